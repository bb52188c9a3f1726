//! Active health checks: one probe per provider, shared by its deployments, never a generation.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pointsman_routing::fleet::Event;
use pointsman_settings::providers::HealthChoice;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::clock;
use crate::snapshot::Snapshot;
use crate::upstream::probe;
use crate::upstream::target::Endpoint;

/// The shortest time between two looks at what is due.
const TICK: Duration = Duration::from_millis(100);

/// What is checked of a provider. When any of it changes, what was found out before says nothing any more.
#[derive(Clone)]
struct Check {
    endpoint: Arc<Endpoint>,
    path: String,
    interval: Duration,
}

impl Check {
    fn is_of(&self, provider: &str) -> bool {
        self.endpoint.provider == provider
    }

    fn is_same(&self, other: &Self) -> bool {
        self.endpoint.pool_key == other.endpoint.pool_key
            && self.path == other.path
            && self.interval == other.interval
    }
}

/// What is known of one provider.
struct Known {
    check: Check,
    due: Option<Instant>,
    failures: u32,
    running: bool,
}

/// A check that came to its end.
struct Verdict {
    check: Check,
    error: Option<String>,
    /// How long the connection took, if there was one.
    connected: Option<Duration>,
}

/// Checks providers for ever.
pub async fn run(app: Arc<App>) {
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut running: JoinSet<Verdict> = JoinSet::new();
    loop {
        let snapshot = app.snapshot.load_full();
        let checks = due(&snapshot);
        forget(&app, &snapshot, &mut known, &checks);
        for check in checks {
            let provider = check.endpoint.provider.clone();
            let state = known.entry(provider).or_insert_with(|| Known {
                check: check.clone(),
                due: None,
                failures: 0,
                running: false,
            });
            if state.running || state.due.is_some_and(|due| Instant::now() < due) {
                continue;
            }
            // A tenth of jitter, from the name, keeps the probes of many gateways from marching in step.
            let spread = xxhash_rust::xxh3::xxh3_64(check.endpoint.provider.as_bytes()) % 100;
            state.due = Some(Instant::now() + check.interval.mul_f64(0.95 + spread as f64 / 1000.0));
            state.running = true;
            let timeout = Duration::from_millis(snapshot.config.health.timeout_ms);
            running.spawn(ask(check, timeout));
        }
        tokio::select! {
            Some(Ok(verdict)) = running.join_next() => note(&app, &mut known, &verdict),
            () = sleep(TICK) => {}
        }
    }
}

/// Forgets providers that are checked no more, or otherwise than before. Nobody would ever say again that their
/// deployments are up, so they are taken for that.
fn forget(app: &App, snapshot: &Snapshot, known: &mut HashMap<String, Known>, checks: &[Check]) {
    known.retain(|provider, state| {
        let kept = checks.iter().any(|check| check.is_of(provider) && check.is_same(&state.check));
        if !kept && state.failures > 0 {
            tracing::info!(provider, "its health checks changed; its deployments are taken for healthy");
            observe(app, snapshot, provider, true, None);
        }
        kept
    });
}

/// The providers that are checked, with what is asked for and how often.
fn due(snapshot: &Snapshot) -> Vec<Check> {
    let config = &snapshot.config;
    let mut found: Vec<Check> = Vec::new();
    for target in snapshot.targets.values() {
        let endpoint = &target.endpoint;
        let Some(provider) = config.providers.get(&endpoint.provider) else { continue };
        let (path, own_interval) = match &provider.health {
            Some(HealthChoice::Off(_)) => continue,
            Some(HealthChoice::On(health)) => (health.path.clone(), health.interval_ms),
            // A listing of a paid vendor costs quota; it is asked only when told to.
            None if !endpoint.vendor.engine => continue,
            None => (None, None),
        };
        let interval_ms = own_interval.unwrap_or(config.health.interval_ms);
        if interval_ms > 0 && !found.iter().any(|known| known.is_of(&endpoint.provider)) {
            let path = path.unwrap_or_else(|| endpoint.vendor.health_path.clone());
            let (endpoint, interval) = (Arc::clone(endpoint), Duration::from_millis(interval_ms));
            found.push(Check { endpoint, path, interval });
        }
    }
    found
}

async fn ask(check: Check, timeout: Duration) -> Verdict {
    let path = &check.path;
    let answer = probe::get(&check.endpoint, path, None, timeout).await;
    let connected = answer.as_ref().ok().map(|answer| answer.connected);
    let error = match answer.map(|answer| answer.status) {
        // An engine that wants a key is up: it said so.
        Ok(200..=299 | 401 | 403) => None,
        Ok(status) => Some(format!("GET {path} gave {status}")),
        Err(error) => Some(error),
    };
    Verdict { check, error, connected }
}

fn note(app: &App, known: &mut HashMap<String, Known>, verdict: &Verdict) {
    let snapshot = app.snapshot.load();
    let provider = verdict.check.endpoint.provider.as_str();
    let Some(state) = known.get_mut(provider).filter(|state| state.check.is_same(&verdict.check)) else {
        return;
    };
    state.running = false;
    let was_down = state.failures >= snapshot.config.health.failures;
    state.failures = if verdict.error.is_some() { state.failures.saturating_add(1) } else { 0 };
    let is_down = state.failures >= snapshot.config.health.failures;
    match &verdict.error {
        Some(error) if is_down && !was_down => {
            tracing::warn!(provider, error, "unhealthy; its deployments get no requests");
        }
        None if was_down => tracing::info!(provider, "healthy again"),
        Some(_) | None => {}
    }
    observe(app, &snapshot, provider, !is_down, verdict.connected);
}

/// Tells the fleet about all deployments of a provider.
fn observe(app: &App, snapshot: &Snapshot, provider: &str, healthy: bool, connected: Option<Duration>) {
    let now = clock::now();
    app.live.change(|fleet| {
        for (id, _) in snapshot.targets.iter().filter(|(_, target)| *target.provider == *provider) {
            fleet.observe(now, Event::Probe { deployment: *id, healthy });
            if let Some(took) = connected {
                fleet.observe(now, Event::ConnectTime(*id, took));
            }
        }
    });
}
