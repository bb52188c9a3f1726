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

/// What is known of one provider.
#[derive(Default)]
struct Known {
    due: Option<Instant>,
    failures: u32,
    running: bool,
}

/// A check that came to its end.
struct Verdict {
    provider: String,
    error: Option<String>,
    took: Duration,
}

/// Checks providers for ever.
pub async fn run(app: Arc<App>) {
    let mut known: HashMap<String, Known> = HashMap::new();
    let mut running: JoinSet<Verdict> = JoinSet::new();
    loop {
        let snapshot = app.snapshot.load_full();
        known.retain(|provider, _| snapshot.config.providers.contains_key(provider));
        for (endpoint, path, interval) in due(&snapshot) {
            let state = known.entry(endpoint.provider.clone()).or_default();
            if state.running || state.due.is_some_and(|due| Instant::now() < due) {
                continue;
            }
            // A tenth of jitter, from the name, keeps the probes of many gateways from marching in step.
            let spread = xxhash_rust::xxh3::xxh3_64(endpoint.provider.as_bytes()) % 100;
            state.due = Some(Instant::now() + interval.mul_f64(0.95 + spread as f64 / 1000.0));
            state.running = true;
            let timeout = Duration::from_millis(snapshot.config.health.timeout_ms);
            running.spawn(check(endpoint, path, timeout));
        }
        tokio::select! {
            Some(Ok(verdict)) = running.join_next() => note(&app, &mut known, &verdict),
            () = sleep(TICK) => {}
        }
    }
}

/// The providers that are checked, with what is asked for and how often.
fn due(snapshot: &Snapshot) -> Vec<(Arc<Endpoint>, String, Duration)> {
    let config = &snapshot.config;
    let mut found: Vec<(Arc<Endpoint>, String, Duration)> = Vec::new();
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
        if interval_ms > 0 && !found.iter().any(|(known, ..)| known.provider == endpoint.provider) {
            let path = path.unwrap_or_else(|| endpoint.vendor.health_path.clone());
            found.push((Arc::clone(endpoint), path, Duration::from_millis(interval_ms)));
        }
    }
    found
}

async fn check(endpoint: Arc<Endpoint>, path: String, timeout: Duration) -> Verdict {
    let began = Instant::now();
    let answer = probe::get(&endpoint, &path, None, timeout).await;
    let error = match answer {
        // An engine that wants a key is up: it said so.
        Ok((200..=299 | 401 | 403, _)) => None,
        Ok((status, _)) => Some(format!("GET {path} gave {status}")),
        Err(error) => Some(error),
    };
    Verdict { provider: endpoint.provider.clone(), error, took: began.elapsed() }
}

fn note(app: &App, known: &mut HashMap<String, Known>, verdict: &Verdict) {
    let snapshot = app.snapshot.load();
    let Some(state) = known.get_mut(&verdict.provider) else { return };
    state.running = false;
    let was_down = state.failures >= snapshot.config.health.failures;
    state.failures = if verdict.error.is_some() { state.failures.saturating_add(1) } else { 0 };
    let is_down = state.failures >= snapshot.config.health.failures;
    match &verdict.error {
        Some(error) if is_down && !was_down => {
            tracing::warn!(provider = verdict.provider, error, "unhealthy; its deployments get no requests");
        }
        None if was_down => tracing::info!(provider = verdict.provider, "healthy again"),
        Some(_) | None => {}
    }
    let now = clock::now();
    app.live.change(|fleet| {
        for (id, target) in &snapshot.targets {
            if *target.provider == *verdict.provider {
                fleet.observe(now, Event::Probe { deployment: *id, healthy: !is_down });
                if verdict.error.is_none() {
                    fleet.observe(now, Event::ConnectTime(*id, verdict.took));
                }
            }
        }
    });
}
