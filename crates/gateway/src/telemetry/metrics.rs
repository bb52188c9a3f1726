//! All counters, and their text form. Handles are looked up when a snapshot is built, never per request.

use pointsman_routing::fleet::FleetView;
use pointsman_routing::shed::Reason;
use pointsman_settings::Config;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use batches::BatchMetrics;
use beside::Beside;
use costs::Costs;
use fleet::FleetGauges;
use labels::{Kind, Labels, Series};
use waits::Waits;

mod batches;
mod beside;
mod costs;
mod engine;
mod events;
mod figures;
mod fleet;
mod handles;
mod labels;
mod pools;
mod tokens;
mod waits;

pub use labels::LABEL_VALUES_MAX;
pub use tokens::TokenMetrics;

const DURATION_BUCKETS: [f64; 14] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKEN_BUCKETS: [f64; 19] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0,
];
const PER_TOKEN_BUCKETS: [f64; 13] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const TOKEN_BUCKETS: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];
const OVERHEAD_BUCKETS: [f64; 11] =
    [0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.02, 0.1];

/// Labels: one model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ModelLabels {
    model: String,
}

/// Labels: one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeploymentLabels {
    model: String,
    deployment: String,
    provider: String,
}

/// Labels: a model and how its requests ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    model: String,
    outcome: &'static str,
}

/// Labels: a deployment and how its attempts ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AttemptLabels {
    model: String,
    deployment: String,
    reason: &'static str,
}

/// Labels: tokens of a model, in or out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TokenLabels {
    gen_ai_request_model: String,
    gen_ai_token_type: &'static str,
}

/// Labels: an arm of a model's split.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ArmLabels {
    model: String,
    arm: String,
    outcome: &'static str,
}

/// Labels: one reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    reason: &'static str,
}

type Seconds = Histogram;

/// All counters of the process.
pub struct Metrics {
    registry: Registry,
    labels: Labels,
    requests: Series<OutcomeLabels, Counter>,
    attempts: Series<AttemptLabels, Counter>,
    arms: Series<ArmLabels, Counter>,
    truncated: Family<ReasonLabels, Counter>,
    client_cancel: Family<ReasonLabels, Counter>,
    hedges: Family<ReasonLabels, Counter>,
    panic_routed: Series<ModelLabels, Counter>,
    request_duration: Series<ModelLabels, Seconds>,
    first_token: Series<DeploymentLabels, Seconds>,
    per_token: Series<DeploymentLabels, Seconds>,
    tokens: Series<TokenLabels, Histogram>,
    queue_wait: Series<ModelLabels, Seconds>,
    /// Time spent in the router itself.
    pub overhead: Seconds,
    refused: Family<ReasonLabels, Counter>,
    shed: Family<ReasonLabels, Counter>,
    /// Memory that the process may use, as it is held to; -1: any.
    pub memory_limit_bytes: Gauge,
    batches: BatchMetrics,
    beside: Beside,
    costs: Costs,
    tokens_fetched: tokens::TokenCounters,
    events: events::AnswerEvents,
    waits: Waits,
    /// Requests that panicked.
    pub panics: Counter,
    /// Reloads that were refused.
    pub reload_failures: Counter,
    /// Records that could not be written.
    pub dropped_records: Counter,
    config_generation: Gauge,
    permit_gap: Gauge,
    connections: Gauge,
    resident_bytes: Gauge,
    fleet: FleetGauges,
    figures: figures::Figures,
    pools: pools::PoolGauges,
}

/// Handles of one model.
pub struct ModelMetrics {
    model: String,
    completed: Counter,
    duration: Seconds,
    queue_wait: Seconds,
    tokens_in: Histogram,
    tokens_out: Histogram,
}

/// Handles of one deployment.
pub struct DeploymentMetrics {
    model: String,
    deployment: String,
    succeeded: Counter,
    first_token: Seconds,
    per_token: Seconds,
}

/// What is known outside the counters when somebody asks for them.
pub struct Surroundings {
    /// The fleet.
    pub fleet: FleetView,
    /// The snapshot in force.
    pub generation: u64,
    /// Permits in use.
    pub permits: u64,
    /// Attempts under way, as the data plane counts them.
    pub attempts: u64,
    /// Client connections that are open.
    pub connections: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All counters, at 0.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            labels: Labels::default(),
            requests: Series::default(),
            attempts: Series::default(),
            arms: Series::default(),
            truncated: Family::default(),
            client_cancel: Family::default(),
            hedges: Family::default(),
            panic_routed: Series::default(),
            request_duration: Series::made_by(|| Histogram::new(DURATION_BUCKETS)),
            first_token: Series::made_by(|| Histogram::new(FIRST_TOKEN_BUCKETS)),
            per_token: Series::made_by(|| Histogram::new(PER_TOKEN_BUCKETS)),
            tokens: Series::made_by(|| Histogram::new(TOKEN_BUCKETS)),
            queue_wait: Series::made_by(|| Histogram::new(DURATION_BUCKETS)),
            overhead: Histogram::new(OVERHEAD_BUCKETS),
            refused: Family::default(),
            shed: Family::default(),
            memory_limit_bytes: Gauge::default(),
            batches: BatchMetrics::default(),
            beside: Beside::default(),
            costs: Costs::default(),
            tokens_fetched: tokens::TokenCounters::default(),
            events: events::AnswerEvents::default(),
            waits: Waits::default(),
            panics: Counter::default(),
            reload_failures: Counter::default(),
            dropped_records: Counter::default(),
            config_generation: Gauge::default(),
            permit_gap: Gauge::default(),
            connections: Gauge::default(),
            resident_bytes: Gauge::default(),
            fleet: FleetGauges::default(),
            pools: pools::PoolGauges::default(),
            figures: figures::Figures::default(),
        };
        metrics.register_requests();
        metrics.batches.register(&mut metrics.registry);
        metrics.beside.register(&mut metrics.registry);
        metrics.costs.register(&mut metrics.registry);
        metrics.tokens_fetched.register(&mut metrics.registry);
        metrics.events.register(&mut metrics.registry);
        metrics.fleet.engine.register(&mut metrics.registry);
        metrics.waits.register(&mut metrics.registry);
        metrics.register_state();
        metrics.pools.register(&mut metrics.registry);
        metrics.figures.register(&mut metrics.registry);
        metrics
    }

    fn register_requests(&mut self) {
        let r = &mut self.registry;
        r.register("pointsman_requests", "Requests by how they ended", self.requests.family.clone());
        r.register("pointsman_attempts", "Attempts by how they ended", self.attempts.family.clone());
        r.register("pointsman_split_requests", "Requests by arm of a split", self.arms.family.clone());
        r.register("pointsman_stream_truncated", "Answers that broke off", self.truncated.clone());
        r.register(
            "pointsman_hedges",
            "Second attempts beside a late one, by how they ended: won, outrun, cancelled, or the class of failure",
            self.hedges.clone(),
        );
        r.register("pointsman_client_cancel", "Clients that left, by phase", self.client_cancel.clone());
        r.register(
            "pointsman_panic_decisions",
            "Decisions that used what had failed, because few others were left and full",
            self.panic_routed.family.clone(),
        );
        r.register("pointsman_requests_refused", "Requests refused before routing", self.refused.clone());
        r.register("pointsman_shed", "Requests and connections turned away for overload", self.shed.clone());
        r.register("pointsman_panics", "Requests that panicked", self.panics.clone());
        r.register(
            "pointsman_config_reload_failures",
            "Reloads that were refused",
            self.reload_failures.clone(),
        );
        r.register(
            "pointsman_dropped_records",
            "Records that could not be written",
            self.dropped_records.clone(),
        );
        r.register(
            "gen_ai_server_request_duration_seconds",
            "From arrival to the end of the answer",
            self.request_duration.family.clone(),
        );
        r.register(
            "gen_ai_server_time_to_first_token_seconds",
            "From the beginning of the attempt that answered to its first content",
            self.first_token.family.clone(),
        );
        r.register(
            "gen_ai_server_time_per_output_token_seconds",
            "Between output tokens, after the first",
            self.per_token.family.clone(),
        );
        r.register("gen_ai_client_token_usage", "Tokens of requests", self.tokens.family.clone());
        r.register(
            "pointsman_queue_wait_seconds",
            "Time requests waited for a slot",
            self.queue_wait.family.clone(),
        );
        r.register("pointsman_overhead_seconds", "Time spent in the gateway itself", self.overhead.clone());
    }

    fn register_state(&mut self) {
        let (r, fleet) = (&mut self.registry, &self.fleet);
        r.register("pointsman_inflight", "Requests in flight", fleet.inflight.clone());
        r.register("pointsman_slots", "Slots; -1 where unlimited", fleet.slots.clone());
        r.register(
            "pointsman_concurrency_limit",
            "Requests a deployment may have in flight as things stand; -1 where unlimited",
            fleet.limit.clone(),
        );
        r.register(
            "pointsman_queue_overloaded",
            "1 while live requests wait too long and the newest are served first",
            fleet.queue_overloaded.clone(),
        );
        r.register(
            "pointsman_slot_utilization_ratio",
            "Requests in flight per slot, or of the limit where that is lower",
            fleet.utilization.clone(),
        );
        r.register("pointsman_deployment_state", "1 for the state a deployment is in", fleet.state.clone());
        r.register(
            "pointsman_deployment_slowness_ratio",
            "How many times slower than it should be a deployment is; 1 while that is not proven",
            fleet.slow.clone(),
        );
        r.register("pointsman_breaker_transitions", "Changes of breakers' states", fleet.transitions.clone());
        r.register("pointsman_queue_depth", "Requests that wait for a slot", fleet.queue_depth.clone());
        r.register(
            "pointsman_retry_budget_remaining",
            "Requests of the usual size that may be sent again now",
            fleet.retry_budget.clone(),
        );
        r.register(
            "pointsman_credential_state",
            "1 for the state a credential is in",
            fleet.credential.clone(),
        );
        r.register(
            "pointsman_credential_remaining",
            "What its provider says is left of a credential's limit, while that holds",
            fleet.credential_remaining.clone(),
        );
        r.register("pointsman_config_generation", "Configuration in force", self.config_generation.clone());
        r.register(
            "pointsman_permit_gap",
            "Permits in use minus attempts under way",
            self.permit_gap.clone(),
        );
        r.register("pointsman_connections", "Client connections open", self.connections.clone());
        r.register(
            "pointsman_memory_limit_bytes",
            "Memory that the process is held to; -1 where to none",
            self.memory_limit_bytes.clone(),
        );
        r.register("process_resident_memory_bytes", "Resident memory", self.resident_bytes.clone());
    }

    /// A configuration comes into force: its names are never counted as `other`, and series of what is gone go too.
    pub fn configure(&self, config: &Config) {
        let labels = &self.labels;
        labels.configure(config);
        let model = |name: &str| labels.keeps(Kind::Model, name);
        self.requests.retain(|series| model(&series.model));
        self.request_duration.retain(|series| model(&series.model));
        self.queue_wait.retain(|series| model(&series.model));
        self.panic_routed.retain(|series| model(&series.model));
        self.tokens.retain(|series| model(&series.gen_ai_request_model));
        self.attempts.retain(|series| labels.keeps_of(&series.model, &series.deployment));
        self.beside.retain(model);
        self.costs.retain(model);
        self.tokens_fetched.retain(labels);
        self.events.retain(model);
        self.waits.retain(labels);
        self.arms.retain(|series| labels.keeps_of(&series.model, &series.arm));
        let at = |series: &DeploymentLabels| {
            labels.keeps_of(&series.model, &series.deployment)
                && labels.keeps(Kind::Provider, &series.provider)
        };
        self.first_token.retain(at);
        self.per_token.retain(at);
    }

    /// The handles of a model.
    pub fn model(&self, model: &str) -> ModelMetrics {
        let model = self.labels.value(Kind::Model, model);
        let labels = ModelLabels { model: model.clone() };
        let tokens = |kind| {
            self.tokens.get(&TokenLabels { gen_ai_request_model: model.clone(), gen_ai_token_type: kind })
        };
        ModelMetrics {
            completed: self.requests.get(&OutcomeLabels { model: model.clone(), outcome: "completed" }),
            duration: self.request_duration.get(&labels),
            queue_wait: self.queue_wait.get(&labels),
            tokens_in: tokens("input"),
            tokens_out: tokens("output"),
            model,
        }
    }

    /// The handles of a deployment.
    pub fn deployment(&self, model: &str, deployment: &str, provider: &str) -> DeploymentMetrics {
        let (model, deployment) =
            (self.labels.value(Kind::Model, model), self.labels.value(Kind::Deployment, deployment));
        let labels = DeploymentLabels {
            model: model.clone(),
            deployment: deployment.clone(),
            provider: self.labels.value(Kind::Provider, provider),
        };
        let ok = AttemptLabels { model: model.clone(), deployment: deployment.clone(), reason: "ok" };
        DeploymentMetrics {
            succeeded: self.attempts.get(&ok),
            first_token: self.first_token.get(&labels),
            per_token: self.per_token.get(&labels),
            model,
            deployment,
        }
    }

    /// A request was refused before routing.
    pub fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A request or connection was turned away for overload.
    pub fn shed(&self, reason: Reason) {
        self.shed.get_or_create(&ReasonLabels { reason: reason.name() }).inc();
    }

    /// A request on an arm of a split ended.
    pub fn arm(&self, model: &str, arm: &str, outcome: &'static str) {
        let (model, arm) = (self.labels.value(Kind::Model, model), self.labels.value(Kind::Arm, arm));
        self.arms.get(&ArmLabels { model, arm, outcome }).inc();
    }

    /// An answer broke off.
    pub fn truncated(&self, reason: &'static str) {
        self.truncated.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A hedge ended.
    pub fn hedge(&self, ended: &'static str) {
        self.hedges.get_or_create(&ReasonLabels { reason: ended }).inc();
    }

    /// A client left.
    pub fn client_cancel(&self, phase: &'static str) {
        self.client_cancel.get_or_create(&ReasonLabels { reason: phase }).inc();
    }

    /// A decision used what had failed, because few others were left and full.
    pub fn panic_routed(&self, model: &str) {
        self.panic_routed.get(&ModelLabels { model: self.labels.value(Kind::Model, model) }).inc();
    }

    /// All counters as text (OpenMetrics).
    pub fn encode(&self, around: &Surroundings) -> String {
        self.config_generation.set(around.generation as i64);
        self.permit_gap.set(around.permits as i64 - around.attempts as i64);
        self.connections.set(around.connections as i64);
        self.resident_bytes.set(crate::memory::resident_bytes() as i64);
        self.fleet.set(&around.fleet, &self.labels);
        self.pools.set(&around.fleet, &self.labels);
        self.figures.set(&around.fleet, &self.labels);
        self.waits.set(&around.fleet, &self.labels);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn text(metrics: &Metrics) -> String {
        metrics.encode(&Surroundings {
            fleet: pointsman_routing::Fleet::new().view(pointsman_routing::Now::ZERO),
            generation: 1,
            permits: 0,
            attempts: 0,
            connections: 0,
        })
    }

    /// `count` models with two deployments each.
    fn config(count: usize) -> Config {
        let model = |number: usize| {
            let deployments =
                format!("{{ provider: p, name: a{number} }}, {{ provider: p, name: b{number} }}");
            format!("  m{number}: {{ deployments: [ {deployments} ] }}\n")
        };
        let models = (0..count).map(model).collect::<Vec<_>>().concat();
        let text = format!(
            "providers: {{ p: {{ kind: mock, base_url: 'http://127.0.0.1:1' }} }}\nmodels:\n{models}"
        );
        let sources = pointsman_settings::Sources { env: &|_| None, file: &|_| Err("none".to_owned()) };
        pointsman_settings::parse(&text, &sources).expect("a configuration")
    }

    #[test]
    fn m4_labels_are_capped() {
        let metrics = Metrics::new();
        metrics.configure(&config(1));
        for number in 0..2 * LABEL_VALUES_MAX {
            metrics.arm("m0", &format!("arm-{number}"), "completed");
        }
        let text = text(&metrics);
        metrics.panic_routed("m0");
        assert!(self::text(&metrics).contains("pointsman_panic_decisions_total{model=\"m0\"} 1"));
        let arms = text.lines().filter(|line| line.contains("pointsman_split_requests_total")).count();
        assert_eq!(arms, LABEL_VALUES_MAX + 1);
        assert!(text.contains("arm=\"other\""));
        assert_eq!(metrics.model("one-more").model, "one-more", "the cap is each label's own");
    }

    #[test]
    fn m4_configured_names_are_pinned_and_go_with_the_configuration() {
        const MODELS: usize = 400;
        let metrics = Metrics::new();
        metrics.configure(&config(MODELS));
        let touch = |number: usize| {
            let model = metrics.model(&format!("m{number}"));
            model.settled(&metrics, "failed", Duration::ZERO, Duration::ZERO, None);
            for side in ["a", "b"] {
                let deployment = metrics.deployment(&format!("m{number}"), &format!("{side}{number}"), "p");
                deployment.attempt_ended(&metrics, "connect");
            }
        };
        for number in 0..=LABEL_VALUES_MAX {
            metrics.model(&format!("stranger-{number}"));
        }
        (0..MODELS).for_each(touch);
        let last = "model=\"m399\",deployment=\"b399\"";
        let before = text(&metrics);
        assert!(before.contains(last) && !before.contains("deployment=\"other\""), "all have their names");
        metrics.configure(&config(1));
        touch(0);
        let after = text(&metrics);
        assert!(!after.contains("m399") && !after.contains("stranger-1\""), "what is gone is not shown");
        assert!(
            after.contains("pointsman_requests_total{model=\"m0\",outcome=\"failed\"} 2"),
            "what stays goes on counting"
        );
    }
}
