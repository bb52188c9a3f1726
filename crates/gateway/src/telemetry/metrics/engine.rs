//! What engines say of themselves, and what they no longer say.

use std::sync::atomic::AtomicU64;

use pointsman_routing::fleet::DeploymentView;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::Kind;
use super::{DeploymentLabels, Metrics};

/// Labels: a deployment and a signal of its engine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabels {
    model: String,
    deployment: String,
    provider: String,
    signal: &'static str,
}

/// Labels: a provider and what came of asking it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PollLabels {
    provider: String,
    result: &'static str,
}

type Share = Gauge<f64, AtomicU64>;

/// Gauges that are set from the fleet's view, and the count of questions.
#[derive(Default)]
pub(super) struct EngineGauges {
    missing: Family<SignalLabels, Gauge>,
    age: Family<DeploymentLabels, Share>,
    running: Family<DeploymentLabels, Gauge>,
    waiting: Family<DeploymentLabels, Gauge>,
    foreign: Family<DeploymentLabels, Gauge>,
    slots: Family<DeploymentLabels, Gauge>,
    kv_used: Family<DeploymentLabels, Share>,
    prefix_hits: Family<DeploymentLabels, Share>,
    polls: Family<PollLabels, Counter>,
}

impl EngineGauges {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "pointsman_engine_signal_missing",
            "1 for a signal that an engine no longer gives: it was renamed or taken away",
            self.missing.clone(),
        );
        r.register(
            "pointsman_engine_report_age_seconds",
            "Age of the last report of an engine",
            self.age.clone(),
        );
        r.register(
            "pointsman_engine_running",
            "Requests in work, by the engine's word",
            self.running.clone(),
        );
        r.register(
            "pointsman_engine_waiting",
            "Requests that wait, by the engine's word",
            self.waiting.clone(),
        );
        r.register(
            "pointsman_engine_foreign",
            "Requests on an engine that were not sent from here, as far as believed",
            self.foreign.clone(),
        );
        r.register("pointsman_engine_slots", "Requests at a time at most, by its word", self.slots.clone());
        r.register("pointsman_engine_kv_used_ratio", "Share of the KV cache in use", self.kv_used.clone());
        r.register(
            "pointsman_engine_prefix_hit_ratio",
            "Share of prompt tokens that the engine found in its prefix cache lately",
            self.prefix_hits.clone(),
        );
        r.register("pointsman_engine_polls", "Questions to engines by what came of them", self.polls.clone());
    }

    pub(super) fn set(&self, labels: &DeploymentLabels, deployment: &DeploymentView) {
        for missing in &deployment.engine_signals.missing {
            let labels = SignalLabels {
                model: labels.model.clone(),
                deployment: labels.deployment.clone(),
                provider: labels.provider.clone(),
                signal: missing.signal,
            };
            self.missing.get_or_create(&labels).set(1);
        }
        let Some(engine) = &deployment.engine else { return };
        self.age.get_or_create(labels).set(engine.report_age_ms as f64 / 1e3);
        let load = engine.load;
        for (gauge, value) in [
            (&self.running, engine.running),
            (&self.waiting, engine.waiting),
            (&self.slots, engine.slots),
            (&self.foreign, load.and_then(|load| load.foreign)),
        ] {
            if let Some(value) = value {
                gauge.get_or_create(labels).set(i64::from(value));
            }
        }
        if let Some(used) = engine.kv_used {
            self.kv_used.get_or_create(labels).set(f64::from(used));
        }
        if let Some(hits) = engine.prefix_hit_ratio {
            self.prefix_hits.get_or_create(labels).set(hits);
        }
    }

    /// Forgets all but what is counted.
    pub(super) fn clear(&self) {
        self.missing.clear();
        self.age.clear();
        self.running.clear();
        self.waiting.clear();
        self.foreign.clear();
        self.slots.clear();
        self.kv_used.clear();
        self.prefix_hits.clear();
    }
}

impl Metrics {
    /// An engine was asked of its load: `ok`, `absent` (it has nothing to say) or `failed`.
    pub fn engine_polled(&self, provider: &str, result: &'static str) {
        let provider = self.labels.value(Kind::Provider, provider);
        self.fleet.engine.polls.get_or_create(&PollLabels { provider, result }).inc();
    }
}
