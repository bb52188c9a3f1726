//! Asks engines of their load, so that routing knows more than what it sent: one task per provider on the control
//! thread, one request at a time, and never to who costs money. What it means is decided in `routing`; when nothing is
//! heard, routing goes by what it sent itself, and traffic does not notice.

mod ask;
mod events;
mod pace;
mod poll;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pointsman_routing::{DeploymentId, Rng};
use pointsman_settings::engine::EnginePlan;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::snapshot::Snapshot;
use crate::upstream::target::{self, Endpoint};

/// Time between two looks at whether the configuration changed.
const TICK: Duration = Duration::from_millis(100);

/// An engine that is asked.
struct Engine {
    /// Where; another port than that of requests, if so configured.
    endpoint: Endpoint,
    /// Header lines of the request, the key included if it goes to the host it was configured for.
    headers: Vec<u8>,
    plan: EnginePlan,
    /// Its deployments, with the name that the engine knows the model by.
    deployments: Vec<(DeploymentId, String)>,
}

impl Engine {
    /// Whether it is asked the same for the same.
    fn is_same(&self, other: &Self) -> bool {
        self.endpoint.pool_key == other.endpoint.pool_key
            && self.headers == other.headers
            && self.deployments == other.deployments
            && self.plan == other.plan
    }
}

/// The task of an engine. Dropping it ends the task and closes its connection.
struct Poller {
    engine: Arc<Engine>,
    task: JoinHandle<()>,
    /// Listens to the events of its KV cache.
    events: Option<JoinHandle<()>>,
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(events) = &self.events {
            events.abort();
        }
    }
}

/// Asks engines for as long as the process lives.
pub async fn run(app: Arc<App>) {
    let mut pollers: HashMap<String, Poller> = HashMap::new();
    let mut rng = Rng::seeded(app.seed());
    let mut generation = 0;
    loop {
        let snapshot = app.snapshot.load_full();
        if snapshot.generation != generation {
            generation = snapshot.generation;
            let mut wanted = engines(&snapshot);
            pollers.retain(|provider, poller| {
                wanted.get(provider).is_some_and(|engine| engine.is_same(&poller.engine))
            });
            wanted.retain(|provider, _| !pollers.contains_key(provider));
            for (provider, engine) in wanted {
                let engine = Arc::new(engine);
                let poll = poll::run(Arc::clone(&app), Arc::clone(&engine), rng.fork(&provider));
                let events = engine
                    .plan
                    .kv_events_port
                    .map(|port| tokio::spawn(events::run(Arc::clone(&app), Arc::clone(&engine), port)));
                pollers.insert(provider, Poller { engine, task: tokio::spawn(poll), events });
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

/// The engines that are asked, by provider. Who serves no deployment is not.
fn engines(snapshot: &Snapshot) -> HashMap<String, Engine> {
    let mut found: HashMap<String, Engine> = HashMap::new();
    for (name, config) in &snapshot.config.providers {
        let Some(plan) = config.engine_plan() else { continue };
        let mut deployments: Vec<(DeploymentId, String)> = snapshot
            .targets
            .values()
            .filter(|target| *target.provider == **name)
            .map(|target| (target.id, serde_json::from_slice(&target.upstream_model).unwrap_or_default()))
            .collect();
        if deployments.is_empty() {
            continue;
        }
        deployments.sort_unstable();
        let mut endpoint = target::endpoint(name, config, &snapshot.config.egress);
        let mut headers = Vec::new();
        match plan.port.filter(|port| *port != endpoint.port) {
            // Keys and headers were configured for the other port.
            Some(port) => endpoint.move_to(port),
            None => {
                for (header, value) in &config.headers {
                    headers.extend_from_slice(format!("{header}: {}\r\n", value.expose()).as_bytes());
                }
                let key = config.credentials().next();
                let key: Option<HeaderValue> = key.and_then(|(_, secret)| endpoint.auth_value(secret));
                if let Some(key) = key {
                    let mut line = bytes::BytesMut::new();
                    endpoint.write_auth(&mut line, &key);
                    headers.extend_from_slice(&line);
                }
            }
        }
        found.insert(name.clone(), Engine { endpoint, headers, plan, deployments });
    }
    found
}
