//! `pointsman doctor`: what is wrong now, and what is at risk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use pointsman_simulator::diagnosis::{Baseline, Counted, Diagnosis, Known, Level, Served, Traffic, diagnose};
use serde::Deserialize;
use serde_json::{Value, json};

use super::admin::{Admin, AdminArgs};
use super::records::{self, Line};
use super::{BadUsage, out};
use crate::clock;
use crate::reload::load;

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    admin: AdminArgs,
    /// Take throughput, times and use of slots of the present traffic as a baseline, and rate what is at risk
    #[arg(long)]
    baseline: bool,
    /// Of recorded traffic instead: a decision log; may be given several times. Slots come from --config
    #[arg(long, value_name = "FILE", requires = "baseline")]
    log: Vec<PathBuf>,
    /// Seconds to watch live traffic for
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Write the baseline there, as JSON
    #[arg(long, value_name = "FILE", requires = "baseline")]
    out: Option<PathBuf>,
    /// Compare with a baseline that was written before
    #[arg(long, value_name = "FILE", requires = "baseline")]
    against: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// Time for an answer of the admin API.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks at the newest records.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Records that are kept of live traffic, at most.
const RECORDS_MAX: usize = 1_000_000;

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    if !args.baseline {
        return now(&args.admin.api(PATIENCE)?, args.json);
    }
    let old = args.against.as_deref().map(read_baseline).transpose()?;
    let watched = if args.log.is_empty() {
        watch(&args.admin.api(PATIENCE)?, Duration::from_secs(args.seconds))?
    } else {
        let mut watched =
            Watched { known: known_of_config(args.admin.config.as_deref())?, ..Watched::default() };
        for path in &args.log {
            let (served, left_out) = records::read(path)?;
            super::warn(&left_out.told(&path.display().to_string()));
            watched.served.extend(served);
        }
        watched
    };
    let Watched { served, known, counted, window_s, missed } = watched;
    if served.is_empty() {
        let why = "there was no traffic to take a baseline of; give --seconds or --log";
        return Err(BadUsage(why.to_owned()).into());
    }
    let diagnosis = diagnose(&Traffic { served: &served, known: &known, counted: &counted, window_s });
    if let Some(path) = &args.out {
        let text = format!("{}\n", serde_json::to_string_pretty(&diagnosis.baseline)?);
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.json {
        let mut told = serde_json::to_value(&diagnosis)?;
        told["against"] = json!(old);
        told["records_missed"] = json!(missed);
        return out(&format!("{told:#}\n"));
    }
    out(&told(&diagnosis, old.as_ref(), missed))
}

fn read_baseline(path: &Path) -> anyhow::Result<Baseline> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text)
        .with_context(|| format!("{} is no baseline of `pointsman doctor --baseline --out`", path.display()))
}

/// Slots and weights of the deployments of a config; nothing without one.
fn known_of_config(path: Option<&Path>) -> anyhow::Result<BTreeMap<(String, String), Known>> {
    let path = path.map(Path::to_owned).or_else(super::serve::usual_config);
    let Some(path) = path else { return Ok(BTreeMap::new()) };
    let catalog = load(&path)?.catalog();
    let deployments = catalog.models.iter().flat_map(|(model, spec)| {
        spec.deployments.iter().map(move |one| {
            let known = Known { slots: one.slots, weight: one.weight, flaps_per_h: None };
            ((model.to_string(), one.name.to_string()), known)
        })
    });
    Ok(deployments.collect())
}

/// A deployment as the admin API tells of it.
#[derive(Debug, Deserialize)]
struct Told {
    model: String,
    name: String,
    state: String,
    reasons: Vec<Value>,
    slots: Option<u32>,
    weight: u32,
    inflight: u32,
    history: Vec<Change>,
}

#[derive(Debug, Deserialize)]
struct Change {
    age_ms: u64,
}

impl Told {
    /// Changes of health in the last hour.
    fn flaps_per_h(&self) -> f64 {
        const HOUR_MS: u64 = 3_600_000;
        self.history.iter().filter(|change| change.age_ms <= HOUR_MS).count() as f64
    }
}

fn deployments(admin: &Admin<'_>) -> anyhow::Result<Vec<Told>> {
    let mut answer = admin.ask("GET", "/admin/v1/deployments")?;
    serde_json::from_value(answer["deployments"].take())
        .context("the admin API tells of deployments in a form that this version does not know")
}

/// What was seen of some traffic.
#[derive(Default)]
struct Watched {
    served: Vec<Served>,
    known: BTreeMap<(String, String), Known>,
    counted: Vec<Counted>,
    window_s: Option<(f64, f64)>,
    /// How often all records of a look were new, so that there may have been more.
    missed: u64,
}

/// Watches live traffic: requests that end within a span, and how many are in flight meanwhile.
#[expect(clippy::disallowed_methods, reason = "a command of its own process, which has nothing else to do")]
fn watch(admin: &Admin<'_>, span: Duration) -> anyhow::Result<Watched> {
    let mut watched = Watched::default();
    // What ended before is not of this span.
    let mut seen: BTreeSet<String> = newest(admin)?.into_iter().map(|line| line.request_id).collect();
    let (from, from_s) = (Instant::now(), clock::unix_ms() as f64 / 1e3);
    while from.elapsed() < span && watched.served.len() < RECORDS_MAX {
        for one in deployments(admin)? {
            let at_s = from_s + from.elapsed().as_secs_f64();
            let known = Known { slots: one.slots, weight: one.weight, flaps_per_h: Some(one.flaps_per_h()) };
            let (model, deployment) = (one.model.clone(), one.name.clone());
            watched.counted.push(Counted { at_s, model, deployment, inflight: one.inflight });
            watched.known.insert((one.model, one.name), known);
        }
        std::thread::sleep(LOOK_EVERY.min(span.saturating_sub(from.elapsed())));
        let lines = newest(admin)?;
        let (count, before) = (lines.len(), seen.len());
        let new = lines.into_iter().filter(|line| seen.insert(line.request_id.clone()));
        watched.served.extend(new.filter_map(Line::served));
        watched.missed += u64::from(count >= LOOK_MAX && seen.len() - before == count);
    }
    watched.window_s = Some((from_s, from_s + from.elapsed().as_secs_f64()));
    Ok(watched)
}

/// Records that the admin API gives at once.
const LOOK_MAX: usize = 1000;

fn newest(admin: &Admin<'_>) -> anyhow::Result<Vec<Line>> {
    let mut answer = admin.ask("GET", &format!("/admin/v1/decisions?limit={LOOK_MAX}"))?;
    serde_json::from_value(answer["decisions"].take())
        .context("the admin API gives records in a form that this version does not know")
}

/// A credential that cannot be used now.
struct Spent {
    provider: String,
    credential: String,
    state: String,
}

impl Spent {
    fn to_json(&self) -> Value {
        json!({"provider": self.provider, "credential": self.credential, "state": self.state})
    }
}

/// The credentials that cannot be used now.
fn spent(admin: &Admin<'_>) -> anyhow::Result<Vec<Spent>> {
    #[derive(Deserialize)]
    struct Provider {
        name: String,
        credentials: Vec<Credential>,
    }
    #[derive(Deserialize)]
    struct Credential {
        name: String,
        state: String,
    }
    let mut answer = admin.ask("GET", "/admin/v1/credentials")?;
    let providers: Vec<Provider> = serde_json::from_value(answer["providers"].take())
        .context("the admin API tells of credentials in a form that this version does not know")?;
    let of_provider = |provider: Provider| {
        let unusable = provider.credentials.into_iter().filter(|one| one.state != "live");
        unusable
            .map(|one| Spent { provider: provider.name.clone(), credential: one.name, state: one.state })
            .collect::<Vec<_>>()
    };
    Ok(providers.into_iter().flat_map(of_provider).collect())
}

/// What is wrong now, by the running process's own word.
fn now(admin: &Admin<'_>, json: bool) -> anyhow::Result<()> {
    let unwell: Vec<Told> = deployments(admin)?.into_iter().filter(|one| one.state != "healthy").collect();
    let spent = spent(admin)?;
    if json {
        let unwell = unwell.iter().map(|one| {
            json!({"model": one.model, "deployment": one.name, "state": one.state, "reasons": one.reasons})
        });
        return out(&format!(
            "{:#}\n",
            json!({"deployments": unwell.collect::<Vec<_>>(), "credentials": spent.iter().map(Spent::to_json).collect::<Vec<_>>()})
        ));
    }
    let mut text = String::new();
    for one in &unwell {
        let reasons: Vec<&str> = one.reasons.iter().filter_map(Value::as_str).collect();
        let _ =
            writeln!(text, "deployment {} of {}: {} {}", one.name, one.model, one.state, reasons.join(", "));
    }
    for one in &spent {
        let _ = writeln!(text, "credential {} of {}: {}", one.credential, one.provider, one.state);
    }
    if text.is_empty() {
        text.push_str("all deployments are healthy and all credentials can be used\n");
    }
    out(&text)
}

fn told(diagnosis: &Diagnosis, old: Option<&Baseline>, missed: u64) -> String {
    let baseline = &diagnosis.baseline;
    let mut text = String::new();
    let _ = writeln!(text, "{} requests in {:.0} s", baseline.requests, baseline.span_s);
    if missed > 0 {
        text.push_str(
            "more ended than the admin API keeps; a decision log (`decisions.log`, --log) has them all\n",
        );
    }
    let mut row = |name: &str, value: f64, unit: &str, old: Option<f64>| {
        let old =
            old.map_or_else(String::new, |old| format!("   before: {old:.1} ({:+.1} %)", change(value, old)));
        let _ = writeln!(text, "  {name:<28}{value:>10.1} {unit}{old}");
    };
    row("answered", baseline.answered_per_s, "/s", old.map(|old| old.answered_per_s));
    row("output tokens", baseline.tokens_out_per_s, "/s", old.map(|old| old.tokens_out_per_s));
    row("first content p50", baseline.first_content_ms.p50, "ms", old.map(|old| old.first_content_ms.p50));
    row("first content p99", baseline.first_content_ms.p99, "ms", old.map(|old| old.first_content_ms.p99));
    row("whole answer p99", baseline.total_ms.p99, "ms", old.map(|old| old.total_ms.p99));
    row("wait for a slot p99", baseline.queue_ms.p99, "ms", old.map(|old| old.queue_ms.p99));
    row("without a slot", baseline.refused_share * 100.0, "%", old.map(|old| old.refused_share * 100.0));
    row("failed", baseline.failed_share * 100.0, "%", old.map(|old| old.failed_share * 100.0));
    for (name, model) in &baseline.models {
        let before = old.and_then(|old| old.models.get(name)).and_then(|old| old.utilisation);
        if let Some(used) = model.utilisation {
            row(&format!("slots of {name} in use"), used * 100.0, "%", before.map(|used| used * 100.0));
        }
    }
    for risk in &diagnosis.risks {
        let _ = writeln!(text, "{:<7}{} of {}", risk.level.name(), risk.name, risk.model);
        for evidence in &risk.evidence {
            let _ = writeln!(text, "         {evidence}");
        }
        if risk.level > Level::Low {
            let _ = writeln!(text, "         to do: {}", risk.advice);
        }
    }
    text
}

fn change(value: f64, old: f64) -> f64 {
    if old.abs() < 1e-9 { 0.0 } else { (value / old - 1.0) * 100.0 }
}
