//! The questions to one engine, one after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_routing::engine::{Counts, Report, Signal, Signals};
use pointsman_routing::fleet::{EngineSignals, Event};
use pointsman_routing::{DeploymentId, Rng};
use pointsman_wire::engine::{self as wire, Reading};
use tokio::time::{Instant, sleep};

use super::Engine;
use super::ask::{Heard, Line};
use super::pace::{self, Last};
use crate::app::App;
use crate::clock;

/// What hardly ever changes is asked for this often.
const RARELY: Duration = Duration::from_mins(1);
/// An idle engine that is sent a request is looked at again within this time.
const WAKE: Duration = Duration::from_millis(200);
/// An interval is longer or shorter by a tenth of itself at most, so that many gateways do not march in step.
const JITTER: f64 = 0.1;

/// What is known of an engine between two questions.
#[derive(Default)]
struct Known {
    line: Line,
    /// What was asked for rarely, by the model's name upstream.
    rare: BTreeMap<String, Reading>,
    rare_at: Option<Instant>,
    /// Whether it ever gave a report.
    heard: bool,
    failures: u32,
    /// What was missed of it when that was told last, by deployment.
    missed: BTreeMap<DeploymentId, Vec<&'static str>>,
    told_nothing: bool,
}

/// What came of asking all.
struct Round {
    readings: BTreeMap<String, Reading>,
    expected: Signals,
    /// Whether anything was answered at all.
    answered: bool,
}

/// Asks an engine for ever.
pub(super) async fn run(app: Arc<App>, engine: Arc<Engine>, mut rng: Rng) {
    let mut known = Known::default();
    // Many engines that are configured together are not asked together.
    sleep(engine.plan.busy.mul_f64(rng.unit())).await;
    loop {
        let began = Instant::now();
        let last = look(&app, &engine, &mut known).await;
        let pressure = pressure(&app, &engine);
        let interval = pace::interval(&engine.plan, pressure, last, began.elapsed());
        let interval = interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * rng.unit());
        rest(&app, &engine, interval, pressure.is_none() && last == Last::Report).await;
    }
}

/// Asks once, and tells the fleet.
async fn look(app: &App, engine: &Engine, known: &mut Known) -> Last {
    {
        let mut live = app.live.lock();
        for (id, _) in &engine.deployments {
            live.fleet.observe(clock::now(), Event::EngineAsked(*id));
        }
    }
    let timeout = engine.plan.timeout;
    let asked = tokio::time::timeout(timeout, round(engine, known)).await;
    let round = asked.unwrap_or_else(|_| {
        // What is half read cannot be read on.
        known.line = Line::default();
        Err(format!("no answer within {} ms", timeout.as_millis()))
    });
    let provider = engine.endpoint.provider.as_str();
    match round {
        Err(error) => {
            known.failures = known.failures.saturating_add(1);
            if known.failures == 1 {
                tracing::warn!(
                    provider,
                    error,
                    "cannot ask the engine of its load; what is sent from here counts alone"
                );
            }
            app.metrics.engine_polled(provider, "failed");
            Last::Failed(known.failures)
        }
        Ok(round) => {
            if std::mem::take(&mut known.failures) > 0 {
                tracing::info!(provider, "the engine tells its load again");
            }
            if !round.answered && !known.heard {
                if !std::mem::replace(&mut known.told_nothing, true) {
                    tracing::info!(
                        provider,
                        family = engine.plan.family.name,
                        "the engine tells nothing of its load (see docs/engines.md for what it has to be started with)"
                    );
                }
                app.metrics.engine_polled(provider, "absent");
                return Last::Nothing;
            }
            known.heard = true;
            app.metrics.engine_polled(provider, "ok");
            report(app, engine, known, &round);
            Last::Report
        }
    }
}

/// Asks all there is to ask.
async fn round(engine: &Engine, known: &mut Known) -> Result<Round, String> {
    let mut round = Round { readings: BTreeMap::new(), expected: Signals::default(), answered: false };
    let rarely = known.rare_at.is_none_or(|at| at.elapsed() >= RARELY);
    for (at, path) in &engine.plan.asks {
        let ask = &engine.plan.family.asks[*at];
        if ask.rarely && !rarely {
            continue;
        }
        let answer = match known.line.get(engine, path).await {
            Ok(Heard::Answer(answer)) => answer,
            Ok(Heard::Absent) => continue,
            // What is asked for rarely is good to know, and no more.
            Err(_) if ask.rarely => continue,
            Err(error) => return Err(error),
        };
        for (_, model) in &engine.deployments {
            let into = if ask.rarely { &mut known.rare } else { &mut round.readings };
            let reading = ask.read(&answer, model);
            let reading = match reading {
                Ok(reading) => reading,
                Err(_) if ask.rarely => continue,
                Err(error) => return Err(format!("GET {path}: {error}")),
            };
            into.entry(model.clone()).or_default().fill_from(&reading);
        }
        round.answered |= !ask.rarely;
        for signal in ask.expected {
            round.expected = round.expected.with(signal_of(*signal));
        }
    }
    if rarely {
        known.rare_at = Some(Instant::now());
    }
    Ok(round)
}

/// Tells the fleet what was heard, and people what is missed.
fn report(app: &App, engine: &Engine, known: &mut Known, round: &Round) {
    let now = clock::now();
    let signals: Vec<(DeploymentId, EngineSignals)> = app.live.change(|fleet| {
        let of = |(id, model): &(DeploymentId, String)| {
            let mut reading = round.readings.get(model).copied().unwrap_or_default();
            if let Some(rare) = known.rare.get(model) {
                reading.fill_from(rare);
            }
            let report = report_of(&reading, round.expected);
            fleet.observe(now, Event::Engine { deployment: *id, report });
            (*id, fleet.engine_signals(*id, now))
        };
        engine.deployments.iter().map(of).collect()
    });
    let names = Arc::clone(&app.snapshot.load().names);
    for (id, signals) in signals {
        let missing: Vec<&'static str> = signals.missing.iter().map(|missing| missing.signal).collect();
        let before = known.missed.insert(id, missing.clone()).unwrap_or_default();
        if before == missing {
            continue;
        }
        let deployment = names.get(&id).map_or("", |name| name);
        let provider = engine.endpoint.provider.as_str();
        if missing.is_empty() {
            tracing::info!(provider, deployment, "the engine gives all its signals again");
        } else {
            let missing = missing.join(", ");
            tracing::error!(
                provider,
                deployment,
                missing,
                "the engine no longer gives what it should: was it upgraded, and a metric renamed? Its load is counted \
                 from here alone"
            );
        }
    }
}

fn report_of(reading: &Reading, expected: Signals) -> Report {
    Report {
        running: reading.running,
        waiting: reading.waiting,
        kv_used: reading.kv_share(),
        kv_capacity_tokens: reading.kv_capacity_tokens,
        slots: reading.slots,
        awake: reading.awake,
        counts: Counts {
            started_s: reading.started_s,
            preemptions: reading.preemptions,
            prefix_tokens: reading.prefix_tokens,
            prefix_tokens_hit: reading.prefix_tokens_hit,
        },
        expected,
    }
}

const fn signal_of(signal: wire::Signal) -> Signal {
    match signal {
        wire::Signal::Running => Signal::Running,
        wire::Signal::Waiting => Signal::Waiting,
        wire::Signal::KvUsed => Signal::KvUsed,
        wire::Signal::Slots => Signal::Slots,
        wire::Signal::Awake => Signal::Awake,
    }
}

/// How hard the engine works, as its busiest deployment has it.
fn pressure(app: &App, engine: &Engine) -> Option<f64> {
    let now = clock::now();
    let live = app.live.lock();
    let of = |(id, _): &(DeploymentId, String)| {
        let (inflight, load, slots) = live.fleet.engine_load(*id, now);
        pace::pressure(inflight, &load, slots)
    };
    engine.deployments.iter().filter_map(of).reduce(f64::max)
}

/// Waits for the next question; less where an idle engine gets something to do.
async fn rest(app: &App, engine: &Engine, interval: Duration, idle: bool) {
    let until = Instant::now() + interval;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || idle && pressure(app, engine).is_some() {
            return;
        }
        sleep(if idle { left.min(WAKE) } else { left }).await;
    }
}
