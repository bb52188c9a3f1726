//! The fleet as people and metrics see it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::credential::CredentialState;
use super::engine::{CacheView, EngineSignals, EngineView};
use super::{ClassView, Credential, Deployment, Fleet, Model, ModelFigures, PoolView};
use crate::catalog::Name;
use crate::facts::Lane;
use crate::health::{Change, HealthState, Reason};
use crate::ids::DeploymentId;
use crate::time::Now;

/// The fleet at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct FleetView {
    /// Models by name.
    pub models: Vec<ModelView>,
    /// How well slots are used and load is spread, by model.
    pub figures: Vec<ModelFigures>,
    /// Slots that several models share.
    pub pools: Vec<PoolView>,
    /// Batch requests that gave their slot to a live one so far.
    pub preempted: u64,
    /// Providers.
    pub providers: Vec<ProviderView>,
}

/// A model at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct ModelView {
    /// Its name.
    pub name: Name,
    /// The strategy of tiers that have none of their own.
    pub strategy: &'static str,
    /// Sessions whose deployment is remembered.
    pub sessions: usize,
    /// How often a session stayed where it was though the strategy would have moved it.
    pub affinity_kept: u64,
    /// How often one moved because another deployment led.
    pub affinity_broken_by_lead: u64,
    /// How often one moved because its own could not be picked.
    pub affinity_broken_by_health: u64,
    /// Requests that wait for a slot.
    pub queue_depth: usize,
    /// Those who wait by class, and what their tenants were served.
    pub queue: Vec<ClassView>,
    /// Whether live requests wait too long and are served newest first.
    pub queue_overloaded: bool,
    /// Requests of the usual size that may be sent again now.
    pub retry_budget_remaining: u64,
    /// Its deployments in configured order.
    pub deployments: Vec<DeploymentView>,
}

/// A deployment at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct DeploymentView {
    /// Its handle.
    #[serde(skip)]
    pub id: DeploymentId,
    /// Its name.
    pub name: Name,
    /// Its provider.
    pub provider: Name,
    /// The version it serves.
    pub version: Option<Name>,
    /// Its tier.
    pub tier: u32,
    /// Its weight.
    pub weight: u32,
    /// Its slots; `null`: unlimited.
    pub slots: Option<u32>,
    /// How many requests it may have in flight as things stand: its slots or fewer; `null`: any number.
    pub limit: Option<u32>,
    /// What its engine says of itself; `null`: nothing yet.
    pub engine: Option<EngineView>,
    /// What its engine's events say of its prefix cache; `null`: there are none.
    pub engine_cache: Option<CacheView>,
    /// Whether its engine says all that it should.
    pub engine_signals: EngineSignals,
    /// The pool that it takes slots from.
    pub pool: Option<Name>,
    /// Tokens that requests in flight may have together; `null`: any number.
    pub tokens_inflight_max: Option<u64>,
    /// Requests that its engine says it has beyond those that were sent from here; less than 0: it has fewer; `null`: it
    /// does not say.
    pub slot_gap: Option<i64>,
    /// Its region.
    pub region: Option<Name>,
    /// Its tags.
    pub tags: Vec<Name>,
    /// Its arm.
    pub arm: Option<Name>,
    /// Whether it takes requests of the live lane, and if not, why: `healthy`, `degraded`, `recovering`, `failed`,
    /// `cooling`, `unhealthy`, `draining`. Without a credential that can be used it is `cooling`, or `failed` if none
    /// returns by itself.
    pub state: &'static str,
    /// What is the matter with it.
    pub reasons: Vec<Reason>,
    /// When it may take requests again, milliseconds from now.
    pub returns_in_ms: Option<u64>,
    /// When requests that are still in flight are ended because it is drained, milliseconds from now.
    pub drain_ends_in_ms: Option<u64>,
    /// Requests in flight.
    pub inflight: u32,
    /// Slots that batch leaves free for live requests, as they turn out to need them.
    pub kept_for_live: u32,
    /// Tokens of those, in and out, estimated.
    pub tokens_inflight: u64,
    /// Prompt tokens, cached ones not counted, of requests that wait for their first content, estimated.
    pub tokens_prefilling: u64,
    /// Requests whose answer is under way.
    pub decoding: u32,
    /// Tokens of those, in and out, estimated.
    pub tokens_decoding: u64,
    /// Prompt tokens that are likely to be in its cache, of what was sent there from here.
    pub tokens_cached: u64,
    /// How well its times to the first token were predicted lately; `null` while none was.
    pub prediction: Option<PredictionView>,
    /// Failures in a row.
    pub failures_in_a_row: u32,
    /// Share of its recent requests that were answered, from 0 to 1; 1 while they are few.
    pub uptime: f64,
    /// How many times slower than it should be, by its own past and its peers; 1 while that is not proven.
    pub slow: f64,
    /// The time to first content that a prompt of 1,024 tokens should take now, milliseconds.
    pub first_content_expected_ms: Option<f64>,
    /// The same for the batch lane, which has a health of its own.
    pub batch: LaneView,
    /// Changes of its health so far.
    pub breaker_transitions: u64,
    /// The latest of them, oldest first.
    pub history: Vec<HealthChange>,
    /// The model that answered last, as its provider named it: the dated snapshot behind an alias; `null`: it has not said.
    pub model_said: Option<Name>,
    /// Recent time to first content, milliseconds.
    pub first_content_ms: Option<f64>,
    /// The same as `latency` compares it: as if every prompt had 1,024 tokens, failures included, fading, milliseconds.
    pub first_content_normalised_ms: Option<f64>,
    /// Recent time to connect, milliseconds.
    pub connect_ms: Option<f64>,
    /// Requests sent to it so far.
    pub requests: u64,
    /// Of those, failed by its fault.
    pub failures: u64,
    /// The class of its last failure.
    pub last_failure: Option<&'static str>,
    /// The age of its last failure, milliseconds.
    pub last_failure_age_ms: Option<u64>,
}

/// How well times to the first token were predicted lately.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PredictionView {
    /// Predictions that were compared with what came.
    pub compared: u64,
    /// Mean relative error.
    pub error_mean: f64,
    /// How many times as long as predicted it takes; above 1 where answers come late.
    pub bias: f64,
}

/// A deployment at one moment, as one lane sees it.
#[derive(Debug, Clone, Serialize)]
pub struct LaneView {
    /// Whether it takes requests, and if not, why.
    pub state: &'static str,
    /// What is the matter with it.
    pub reasons: Vec<Reason>,
    /// When it may take requests again, milliseconds from now.
    pub returns_in_ms: Option<u64>,
    /// Failures in a row.
    pub failures_in_a_row: u32,
    /// Share of recent requests that were answered, from 0 to 1; 1 while they are few.
    pub uptime: f64,
    /// How many times slower than it should be.
    pub slow: f64,
    /// The latest changes, oldest first.
    pub history: Vec<HealthChange>,
}

/// A change of a deployment's health.
#[derive(Debug, Clone, Serialize)]
pub struct HealthChange {
    /// How long ago, milliseconds.
    pub age_ms: u64,
    /// What it became.
    pub to: HealthState,
    /// Why.
    pub reason: Reason,
}

/// A provider at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct ProviderView {
    /// Its name.
    pub name: Name,
    /// Its credentials.
    pub credentials: Vec<CredentialView>,
}

/// A credential at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct CredentialView {
    /// Its name; never its secret.
    pub name: Name,
    /// `live`, `cooling` or `dead`.
    pub state: &'static str,
    /// When it may be used again, milliseconds from now.
    pub returns_in_ms: Option<u64>,
    /// The lane whose requests alone it serves; `null`: both.
    pub lane: Option<&'static str>,
    /// Requests it may make a minute.
    pub rpm: Option<u32>,
    /// Tokens it may use a minute.
    pub tpm: Option<u32>,
    /// Requests of this minute.
    pub requests_used: u64,
    /// Tokens of this minute.
    pub tokens_used: u64,
    /// What its provider says is left, by what is limited; only what still holds.
    pub said: BTreeMap<&'static str, AllowanceView>,
    /// Requests so far.
    pub requests: u64,
    /// Refusals so far.
    pub failures: u64,
}

/// What a provider says is left of one limit.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AllowanceView {
    /// How much there may be in its window, if it says.
    pub limit: Option<u64>,
    /// How much is left, less the requests sent since.
    pub remaining: u64,
    /// When there is all of it again, milliseconds from now.
    pub resets_in_ms: u64,
}

impl DeploymentView {
    /// Every value of `state`.
    pub const STATES: [&'static str; 7] =
        ["healthy", "degraded", "recovering", "failed", "cooling", "unhealthy", "draining"];

    fn new(id: DeploymentId, deployment: &Deployment, credentials: (Usable, Usable), now: Now) -> Self {
        let spec = &deployment.spec;
        let live = LaneView::new(deployment, Lane::Live, credentials.0, now);
        let expected = deployment.predicted_first_content(EXPECTED_TOKENS_IN);
        Self {
            id,
            name: Name::clone(&spec.name),
            provider: Name::clone(&spec.provider),
            version: spec.version.clone(),
            tier: spec.tier,
            weight: spec.weight,
            slots: spec.slots,
            limit: deployment.limiter.limit(),
            engine: EngineView::new(deployment, now),
            engine_cache: CacheView::new(deployment, now),
            engine_signals: EngineSignals::new(deployment, now),
            pool: spec.pool.clone(),
            tokens_inflight_max: spec.tokens_inflight_max,
            slot_gap: deployment.claims.gap(now),
            region: spec.region.clone(),
            tags: spec.tags.clone(),
            arm: spec.arm.clone(),
            state: live.state,
            reasons: live.reasons,
            returns_in_ms: live.returns_in_ms,
            drain_ends_in_ms: deployment.drain_left(now).map(|left| left.as_millis() as u64),
            inflight: deployment.inflight,
            kept_for_live: deployment.reserve.kept(),
            tokens_inflight: deployment.tokens_inflight,
            tokens_prefilling: deployment.underway.tokens_prefilling,
            decoding: deployment.underway.decoding,
            tokens_decoding: deployment.underway.tokens_decoding,
            tokens_cached: 0,
            prediction: deployment.predictor.error().map(|error| PredictionView {
                compared: error.compared,
                error_mean: error.mean,
                bias: error.bias,
            }),
            failures_in_a_row: live.failures_in_a_row,
            uptime: live.uptime,
            slow: live.slow,
            first_content_expected_ms: expected.map(|expected| expected.as_secs_f64() * 1e3),
            batch: LaneView::new(deployment, Lane::Batch, credentials.1, now),
            breaker_transitions: deployment.health(Lane::Live).changes(),
            history: live.history,
            model_said: deployment.model_said.clone(),
            first_content_ms: Some(deployment.first_content_ns)
                .filter(|ns| *ns > 0)
                .map(|ns| ns as f64 / 1e6),
            first_content_normalised_ms: deployment.first_content.value_ms(now),
            connect_ms: deployment.connect.value_ms_over(now, crate::limits::CONNECT_DECAY),
            requests: deployment.requests,
            failures: deployment.failed,
            last_failure: deployment.last_failure.map(|(class, _)| class.name()),
            last_failure_age_ms: deployment.last_failure.map(|(_, at)| now.since(at).as_millis() as u64),
        }
    }
}

/// Whether a provider has a credential that can be used, or the soonest that it has one, if it has by itself.
type Usable = Result<(), Option<Now>>;

/// The prompt that expected times speak of.
const EXPECTED_TOKENS_IN: u32 = 1024;

impl LaneView {
    fn new(deployment: &Deployment, lane: Lane, credential: Usable, now: Now) -> Self {
        let (state, until) = state(deployment, lane, credential, now);
        let health = deployment.health(lane);
        let change = |change: &Change| HealthChange {
            age_ms: now.since(change.at).as_millis() as u64,
            to: change.to,
            reason: change.reason,
        };
        Self {
            state,
            reasons: health.reasons(),
            returns_in_ms: until.map(|until| until.since(now).as_millis() as u64),
            failures_in_a_row: health.failures_in_a_row(),
            uptime: health.uptime(),
            slow: deployment.paces(lane).first.factor(),
            history: health.history().map(change).collect(),
        }
    }
}

fn state(deployment: &Deployment, lane: Lane, credential: Usable, now: Now) -> (&'static str, Option<Now>) {
    if deployment.is_drained() {
        return ("draining", None);
    }
    if deployment.unhealthy {
        return ("unhealthy", None);
    }
    let health = deployment.health(lane);
    let works = match health.state() {
        HealthState::Failed => return ("failed", health.until()),
        HealthState::Healthy => "healthy",
        HealthState::Degraded => "degraded",
        HealthState::Recovering => "recovering",
    };
    let cooling_until = deployment.cooling_until(lane);
    match credential {
        _ if now < cooling_until => ("cooling", Some(cooling_until)),
        Ok(()) => (works, None),
        Err(Some(until)) => ("cooling", Some(until)),
        Err(None) => ("failed", None),
    }
}

impl CredentialView {
    /// Every value of `state`.
    pub const STATES: [&'static str; 3] = ["live", "cooling", "dead"];

    fn new(credential: &Credential, now: Now) -> Self {
        let (state, until) = match credential.state {
            CredentialState::Dead => ("dead", None),
            CredentialState::Cooling { until } if now < until => ("cooling", Some(until)),
            CredentialState::Cooling { .. } | CredentialState::Live => match credential.allowed.share(now) {
                Ok(_) => ("live", None),
                Err(until) => ("cooling", Some(until)),
            },
        };
        let holding = credential.allowed.named().into_iter().filter(|(_, left)| now < left.until);
        let said = holding.map(|(name, left)| {
            let resets_in_ms = left.until.since(now).as_millis() as u64;
            (name, AllowanceView { limit: left.limit, remaining: left.remaining, resets_in_ms })
        });
        let (requests_used, tokens_used) = credential.used(now);
        Self {
            name: Name::clone(&credential.spec.name),
            state,
            returns_in_ms: until.map(|until| until.since(now).as_millis() as u64),
            rpm: credential.spec.rpm,
            tpm: credential.spec.tpm,
            lane: credential.spec.lane.map(Lane::name),
            requests_used,
            tokens_used,
            said: said.collect(),
            requests: credential.requests,
            failures: credential.failures,
        }
    }
}

impl Fleet {
    fn models_by_name(&self) -> impl Iterator<Item = &Model> {
        self.model_ids.values().filter_map(|id| self.models.get(*id))
    }

    /// The fleet as people and metrics see it. O(everything); not for the way of a request.
    pub fn view(&self, now: Now) -> FleetView {
        let models = self.models_by_name().map(|model| ModelView {
            name: Name::clone(&model.name),
            strategy: model.spec.strategy.name(),
            sessions: model.sessions.len(),
            affinity_kept: model.sessions.kept,
            affinity_broken_by_lead: model.sessions.broken_by_lead,
            affinity_broken_by_health: model.sessions.broken_by_health,
            queue_depth: model.queue.len(),
            queue: ClassView::all(&model.queue, now),
            queue_overloaded: model.queue.is_overloaded(),
            retry_budget_remaining: model.budget.clone().remaining_usual(now),
            deployments: model
                .deployments
                .iter()
                .filter_map(|id| {
                    let deployment = self.deployments.get(*id)?;
                    let usable = |lane| self.usable_credential(deployment.provider, lane, 0, now);
                    let credentials = (usable(Lane::Live), usable(Lane::Batch));
                    let tier = model.tiers.get(&deployment.spec.tier);
                    let tokens_cached = tier.map_or(0, |tier| tier.prefixes.tokens_held(*id));
                    let view = DeploymentView::new(*id, deployment, credentials, now);
                    Some(DeploymentView { tokens_cached, ..view })
                })
                .collect(),
        });
        let providers = self.providers.iter().map(|provider| ProviderView {
            name: Name::clone(&provider.name),
            credentials: provider
                .credentials
                .iter()
                .filter_map(|id| Some(CredentialView::new(self.credentials.get(*id)?, now)))
                .collect(),
        });
        FleetView {
            models: models.collect(),
            figures: self.models_by_name().map(|model| self.figures_of(model, now)).collect(),
            pools: self.pool_views(),
            preempted: self.preempted,
            providers: providers.collect(),
        }
    }
}
