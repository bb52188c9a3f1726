//! What clients ask for, and the ways to serve it.

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_routing::catalog::StickySpec;
use pointsman_routing::strategy::StrategySpec;
use pointsman_wire::openai::rules::ParamName;
use pointsman_wire::prices::Price;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::auth::{ClassName, LaneName};
use crate::lanes::LanesConfig;
use crate::limiter::LimiterConfig;
use crate::limits::{ATTEMPTS_MAX, COUNT_MAX, DRAIN_MS_MAX, STICKY_TTL_S_MAX, TOKENS_MAX, WEIGHT_MAX};
use crate::pools::PreemptConfig;
use crate::sections::{BreakerConfig, QueueConfig, RetryConfig, TimeoutsConfig};
use crate::structured::StructuredOutputConfig;
use crate::tensors::{InputConfig, OutputConfig};

/// What clients ask for, and its policy.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Other names that clients may use.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// How a deployment is picked, in every tier that does not say otherwise. Default: `adaptive`.
    #[serde(default)]
    pub strategy: StrategySpec,
    /// Policies of single tiers, by number.
    #[serde(default)]
    pub tiers: BTreeMap<u32, TierConfig>,
    /// Keeps sessions where they were, whatever the strategy. Default: as the strategy says.
    pub sticky: Option<StickyConfig>,
    /// An A/B test or canary.
    pub split: Option<SplitConfig>,
    /// The lane of all its requests, whatever their key or header says; those of the batch API stay in lane `batch`.
    /// Default: as key or header say.
    pub lane: Option<LaneName>,
    /// What becomes of what a deployment's dialect has no word for, where a request has to be turned into another dialect.
    #[serde(default)]
    pub conversion: ConversionConfig,
    /// What becomes of answers that do not fit the JSON schema that their request holds them to.
    #[serde(default)]
    pub structured_output: StructuredOutputConfig,
    /// Copies a share of its requests to another model, whose answers nobody gets.
    pub mirror: Option<MirrorConfig>,
    /// How regions are preferred.
    #[serde(default)]
    pub regions: RegionsConfig,
    /// What its deployments can do, unless they say otherwise. Default: everything. The one model that a client may use and
    /// that has `moderations` or `images` in its list serves such requests that name no model.
    pub capabilities: Option<Vec<Capability>>,
    /// Prompt plus output that its deployments accept, in tokens, unless they say otherwise. Default: not checked.
    #[schemars(range(min = 1))]
    pub context_tokens_max: Option<u32>,
    /// Output that its deployments give, in tokens, unless they say otherwise. Default: not checked.
    #[schemars(range(min = 1))]
    pub output_tokens_max: Option<u32>,
    /// The tensors it takes, by the Open Inference Protocol (KServe v2). Requests are held to them before anything is sent.
    /// Default: not checked.
    #[serde(default)]
    pub inputs: Vec<InputConfig>,
    /// The tensors it gives, by the Open Inference Protocol. Default: not checked.
    #[serde(default)]
    pub outputs: Vec<OutputConfig>,
    /// Ranges of request parameters, where narrower than the API's: `temperature`, `top_p`, `presence_penalty`,
    /// `frequency_penalty`, `n`, `top_logprobs`, `max_tokens`.
    #[serde(default)]
    pub params: BTreeMap<ParamName, RangeConfig>,
    /// How long each phase of a request may take, where other than for all models.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// Its queue, where other than for all models.
    #[serde(default)]
    pub queue: QueueConfig,
    /// Its batch requests that have no content yet give their slots to live ones that find none. Default: the pool's.
    pub preempt: Option<PreemptConfig>,
    /// What is special to the batch lane, where other than for all models.
    #[serde(default)]
    pub lanes: LanesConfig,
    /// The class of its requests where neither they nor their key say; never above the highest that the key may ask for.
    /// Default: standard, and batch in the batch lane.
    pub priority: Option<ClassName>,
    /// How many requests its deployments may have in flight below their slots, as is found out while they serve.
    #[serde(default)]
    pub limiter: LimiterConfig,
    /// Its breakers, where other than for all models.
    #[serde(default)]
    pub breaker: BreakerConfig,
    /// What may be sent again.
    #[serde(default)]
    pub retry: RetryConfig,
    /// Sends a second attempt beside one whose first content is late, if the pool is not busy, for at most 2 % more
    /// tokens. Default: never.
    pub hedge: Option<HedgeConfig>,
    /// How often a request may be sent in all, the first time included. Default: 3.
    #[schemars(range(min = 1, max = ATTEMPTS_MAX))]
    pub attempts_max: Option<u32>,
    /// The ways to serve it.
    #[serde(default)]
    pub deployments: Vec<DeploymentConfig>,
}

/// What becomes of requests that are served in another dialect than their client's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConversionConfig {
    /// What becomes of what cannot be carried over. Default: `drop`.
    pub losses: LossesConfig,
}

/// What becomes of what cannot be carried over into another dialect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossesConfig {
    /// It is left out, and named in the decision record.
    #[default]
    Drop,
    /// The request is refused with 400, naming the first such field.
    Refuse,
}

/// How long a session (`x-pointsman-session`) stays where it was, and what moves it. It moves when its deployment cannot
/// be picked, or when another leads; `pointsman_*` counts and the admin view show how often each happened.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StickyConfig {
    /// How long a session is remembered without another request, seconds. Default: 1800.
    #[schemars(range(min = 1, max = STICKY_TTL_S_MAX))]
    pub ttl_s: u32,
    /// By what share the score of another deployment must be better to move it, from 0 to 1. Default: 0.15.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lead: f64,
}

impl Default for StickyConfig {
    fn default() -> Self {
        Self { ttl_s: 1800, lead: 0.15 }
    }
}

impl StickyConfig {
    pub(crate) fn spec(self) -> StickySpec {
        StickySpec { ttl: Duration::from_secs(u64::from(self.ttl_s)), lead: self.lead }
    }
}

/// When a second attempt is sent.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HedgeConfig {
    /// After so many times the predicted time to first content. Default: 2.0.
    #[schemars(range(min = 1.1, max = 100.0))]
    pub after: f64,
}

impl Default for HedgeConfig {
    fn default() -> Self {
        Self { after: 2.0 }
    }
}

/// The policy of one tier.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierConfig {
    /// How a deployment of the tier is picked.
    pub strategy: StrategySpec,
}

/// A split of traffic between arms. Deployments name the arm they belong to.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitConfig {
    /// What keeps a client on its arm. Default: tenant.
    #[serde(default)]
    pub sticky: StickyName,
    /// The arms with their weights, 0 to 10000 each; the sum is free.
    pub arms: BTreeMap<String, u32>,
}

/// A shadow: it is sent copies of requests, and its answers are dropped. What they cost and how long they took stands in
/// records of their own. A copy goes in lane `batch`, takes no place in a queue and is never sent again.
/// `pointsman_mirror_total` counts them: `completed`, `failed`, `refused` (no slot was free, or the shadow does not work),
/// `not_allowed` (by the shadow's `params`, capabilities or context), `over_limit` (`limits.mirrors_max`), `stopping`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// The model that gets the copies. It is not mirrored itself.
    pub to: String,
    /// Share of the requests that are copied, from 0 to 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub share: f64,
}

/// What a sticky choice is tied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StickyName {
    /// The session, or the tenant if the request names none.
    Session,
    /// The tenant.
    #[default]
    Tenant,
    /// The `user` field, or the tenant.
    User,
    /// Nothing: every request is drawn anew.
    Request,
}

/// How regions are preferred within a tier, when the client gives no hint.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegionsConfig {
    /// Nearest first. The gateway's own `region` comes before.
    #[serde(default)]
    pub order: Vec<String>,
    /// What counts as near. Default: order.
    #[serde(default)]
    pub by: RegionBy,
}

/// What counts as near.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RegionBy {
    /// The configured order.
    #[default]
    Order,
    /// The measured time to connect.
    Latency,
}

/// Something a deployment can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Chat completions.
    Chat,
    /// Plain completions.
    Completions,
    /// Embeddings.
    Embeddings,
    /// Tensors by the Open Inference Protocol, where the provider's kind speaks it.
    Infer,
    /// Documents put in order.
    Rerank,
    /// Moderations.
    Moderations,
    /// Images that are made or changed.
    Images,
    /// Text that is spoken.
    Speech,
    /// Speech that is written down, also in English.
    Transcriptions,
    /// The responses API.
    Responses,
    /// Tool calls.
    Tools,
    /// Images in messages.
    Vision,
    /// Output held to a JSON schema.
    JsonSchema,
}

/// A range, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeConfig {
    /// The least. Default: the API's.
    pub min: Option<f64>,
    /// The most. Default: the API's.
    pub max: Option<f64>,
}

/// One way to serve a model.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeploymentConfig {
    /// Unique within the model. Default: `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The provider it is sent to.
    pub provider: String,
    /// The name the provider knows the model by. Default: the model's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The version in the provider's own paths, by the Open Inference Protocol; `''` for none. Default: `version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_version: Option<String>,
    /// The version it serves, for clients that ask for `model@version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Share of traffic relative to the others of its tier; 0 drains it. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(max = WEIGHT_MAX))]
    pub weight: u32,
    /// Tiers are tried in ascending order; the next is used when the one before cannot serve. Default: 1.
    #[serde(default = "one")]
    pub tier: u32,
    /// Requests it may have in flight. Default: the provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub slots: Option<u32>,
    /// Prompt tokens that its prefix cache keeps, host memory included. Default: what its engine reports, else 1048576.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cache_tokens: Option<u64>,
    /// Tokens that requests in flight may have together: prompts, and the output they ask for or 256. A request larger
    /// than that runs when it is alone. Default: the provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    pub tokens_inflight_max: Option<u64>,
    /// The pool that it takes slots from, beside its own. Default: the provider's `slot_pool`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Whether requests take slots that its engine reports beyond those sent from here, once three reports in a row agree.
    /// Default: the provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count_foreign: Option<bool>,
    /// The same as the model's, where other than for all its deployments.
    #[serde(default, skip_serializing_if = "LimiterConfig::is_empty")]
    pub limiter: LimiterConfig,
    /// Where it is. Default: the provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The quota it shares with all keys and deployments that name the same: a limit (429) that one is told cools them
    /// all. Default: that of the key it is sent with, or of its own without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota_domain: Option<String>,
    /// What clients may ask for by `x-pointsman-tags`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The arm of the model's split it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// What it can do. Default: the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<Capability>>,
    /// Prompt plus output it accepts, in tokens. Default: the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub context_tokens_max: Option<u32>,
    /// Output it gives, in tokens. Default: the model's.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub output_tokens_max: Option<u32>,
    /// What it costs. Default: what the list of prices says (`prices`), if it has the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceConfig>,
    /// Whether requests cost nothing, so that one may be sent again even if it was processed. Default: the provider's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free: Option<bool>,
    /// No new requests; those in flight may finish. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
    /// Time that requests in flight have to finish once it is drained, milliseconds; what still runs then is sent
    /// elsewhere if it may be, and ended with an error if not. Default: 60000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = DRAIN_MS_MAX))]
    pub drain_ms: Option<u64>,
}

/// What tokens cost, USD per million.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceConfig {
    /// Prompt tokens.
    pub input: f64,
    /// Prompt tokens that were read from the provider's cache. Default: as `input`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<f64>,
    /// Prompt tokens that were written to it. Default: as `input`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write: Option<f64>,
    /// Prompt tokens that were written to it for an hour instead of minutes, as Anthropic sells it. Default: unknown, and
    /// with it the cost of requests that have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<f64>,
    /// Prompt tokens of images. Default: as `input`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<f64>,
    /// Prompt tokens of sounds. Default: unknown, and with it the cost of requests that have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_input: Option<f64>,
    /// Thoughts. Default: as `output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<f64>,
    /// Output tokens of sounds. Default: unknown, and with it the cost of requests that have any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_output: Option<f64>,
    /// Output tokens.
    pub output: f64,
}

impl PriceConfig {
    /// The price as it is reckoned with.
    pub const fn price(&self) -> Price {
        Price {
            input: self.input,
            output: Some(self.output),
            cached_input: self.cached_input,
            cache_write: self.cache_write,
            cache_write_1h: self.cache_write_1h,
            reasoning: self.reasoning,
            image: self.image,
            audio_input: self.audio_input,
            audio_output: self.audio_output,
            tokens_in_max: None,
        }
    }

    /// Every number in it.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f64> {
        let some = [
            self.cached_input,
            self.cache_write,
            self.cache_write_1h,
            self.reasoning,
            self.image,
            self.audio_input,
            self.audio_output,
        ];
        [self.input, self.output].into_iter().chain(some.into_iter().flatten())
    }
}

const fn one() -> u32 {
    1
}

impl Default for DeploymentConfig {
    fn default() -> Self {
        Self {
            name: None,
            provider: String::new(),
            model: None,
            upstream_version: None,
            version: None,
            weight: one(),
            tier: one(),
            slots: None,
            tokens_inflight_max: None,
            pool: None,
            count_foreign: None,
            limiter: LimiterConfig::default(),
            region: None,
            quota_domain: None,
            tags: Vec::new(),
            arm: None,
            capabilities: None,
            cache_tokens: None,
            context_tokens_max: None,
            output_tokens_max: None,
            price: None,
            free: None,
            draining: false,
            drain_ms: None,
        }
    }
}

impl DeploymentConfig {
    /// Its name within the model called `model`.
    pub fn name_in(&self, model: &str) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| format!("{}/{}", self.provider, self.model.as_deref().unwrap_or(model)))
    }
}
