//! What exists: providers with their credentials, models with their deployments and policy. Immutable; built from
//! the configuration, swapped whole, and applied to the [`Fleet`](crate::Fleet), which keeps the live state of all
//! that kept its name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::facts::Lane;
use crate::limiter::LimiterSpec;
use crate::pool::{PoolSpec, PreemptSpec};
use crate::strategy::StrategySpec;

/// A name that is shared and compared, never changed.
pub type Name = Arc<str>;

/// All that exists at one moment.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Where requests can be sent, by name.
    pub providers: BTreeMap<Name, ProviderSpec>,
    /// Slots that several models share, by name.
    pub pools: BTreeMap<Name, PoolSpec>,
    /// Those of whom more is known than their name. The others have the weight 1.
    pub tenants: BTreeMap<Name, TenantSpec>,
    /// What clients ask for, by name (aliases are resolved before this crate).
    pub models: BTreeMap<Name, ModelSpec>,
}

/// A tenant: what deciding needs to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantSpec {
    /// Its share of what there is too little of, relative to the others that wait. At least 1.
    pub weight: u32,
}

/// A provider: what deciding needs to know of it.
#[derive(Debug, Clone, Default)]
pub struct ProviderSpec {
    /// Its keys, in configured order. Empty: the provider needs none.
    pub credentials: Vec<CredentialSpec>,
}

/// One key of a provider. The secret itself stays with the gateway.
#[derive(Debug, Clone)]
pub struct CredentialSpec {
    /// Unique within the provider.
    pub name: Name,
    /// Requests a minute it may make, if limited.
    pub rpm: Option<u32>,
    /// Tokens a minute it may use, if limited.
    pub tpm: Option<u32>,
    /// The lane it is kept for; `None`: both.
    pub lane: Option<Lane>,
    /// The quota it shares with all that name the same; `None`: one of its own.
    pub quota_domain: Option<Name>,
    /// Changes when the secret does: a credential that was refused is tried again with a new secret.
    pub revision: u64,
}

/// A model and its policy.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The strategy of every tier that has none of its own.
    pub strategy: StrategySpec,
    /// Strategies of single tiers.
    pub tier_strategies: BTreeMap<u32, StrategySpec>,
    /// A/B or canary split, if any.
    pub split: Option<SplitSpec>,
    /// Whether sessions stay where they were, whatever the strategy. `None`: as the strategy says.
    pub sticky: Option<StickySpec>,
    /// How regions are preferred.
    pub region: RegionSpec,
    /// How many requests may wait for a slot, and for how long.
    pub queue: QueueSpec,
    /// Whether its batch requests give way to live ones, wherever they are.
    pub preempt: Option<PreemptSpec>,
    /// How long each phase of a request may take.
    pub timeouts: TimeoutSpec,
    /// How often a request may be sent in all, the first time included. At least 1.
    pub attempts_max: u32,
    /// When a deployment that fails is left alone, and how it comes back.
    pub health: HealthSpec,
    /// What may be sent again.
    pub retry: RetrySpec,
    /// Whether and when a second attempt is sent beside one that is late. `None`: never.
    pub hedge: Option<HedgeSpec>,
    /// The ways to serve the model.
    pub deployments: Vec<DeploymentSpec>,
}

/// One way to serve a model.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the configuration, beside the others")]
#[derive(Debug, Clone)]
pub struct DeploymentSpec {
    /// Unique within the model.
    pub name: Name,
    /// The provider it is sent to.
    pub provider: Name,
    /// The version it serves, for `model@version`.
    pub version: Option<Name>,
    /// Share of traffic relative to the others of its tier. 0: drained.
    pub weight: u32,
    /// Tiers are tried in ascending order.
    pub tier: u32,
    /// Requests it may have in flight. `None`: unlimited.
    pub slots: Option<u32>,
    /// Whether the number that its engine gives counts where there is none.
    pub slots_learnt: bool,
    /// Tokens that those in flight may have together, prompts and expected output. `None`: any number.
    pub tokens_inflight_max: Option<u64>,
    /// The pool that it takes its slots from, beside its own.
    pub pool: Option<Name>,
    /// Whether requests that its engine has from elsewhere take slots.
    pub count_foreign: bool,
    /// How it is found out how many of them it can use.
    pub limiter: LimiterSpec,
    /// Prompt tokens that its cache keeps. `None`: what its engine reports, or a usual number.
    pub cache_tokens: Option<u64>,
    /// Where it is.
    pub region: Option<Name>,
    /// The quota it shares with all that name the same, whatever credential it is used with; `None`: the credential's,
    /// or one of its own without one.
    pub quota_domain: Option<Name>,
    /// What clients may ask for by `x-pointsman-tags`.
    pub tags: Vec<Name>,
    /// The arm of the model's split it belongs to.
    pub arm: Option<Name>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Prompt plus output it accepts, in tokens.
    pub context_tokens_max: Option<u32>,
    /// Output it can give, in tokens.
    pub output_tokens_max: Option<u32>,
    /// Whether a request costs nothing (an own engine): it may be sent again even if it was processed.
    pub free: bool,
    /// No new requests; those in flight may finish.
    pub draining: bool,
    /// Time that those in flight have then.
    pub drain: Duration,
}

/// What a deployment can do, or a request needs. A set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capabilities(u32);

impl Capabilities {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Chat completions.
    pub const CHAT: Self = Self(1);
    /// Plain completions.
    pub const COMPLETIONS: Self = Self(1 << 1);
    /// Embeddings.
    pub const EMBEDDINGS: Self = Self(1 << 2);
    /// The responses API.
    pub const RESPONSES: Self = Self(1 << 3);
    /// Tool calls.
    pub const TOOLS: Self = Self(1 << 4);
    /// Images in messages.
    pub const VISION: Self = Self(1 << 5);
    /// Output held to a JSON schema.
    pub const JSON_SCHEMA: Self = Self(1 << 6);

    /// Tensors by the Open Inference Protocol.
    pub const INFER: Self = Self(1 << 9);
    /// Responses, as they come or turned into chats. Not configured: whoever can do either can do it.
    pub const ANSWERS: Self = Self(1 << 8);
    /// Documents put in order.
    pub const RERANK: Self = Self(1 << 12);
    /// Moderations.
    pub const MODERATIONS: Self = Self(1 << 13);
    /// Images that are made or changed.
    pub const IMAGES: Self = Self(1 << 14);
    /// Text that is spoken.
    pub const SPEECH: Self = Self(1 << 15);
    /// Speech that is written down, also in English.
    pub const TRANSCRIPTIONS: Self = Self(1 << 16);

    /// Going on with an answer that broke off elsewhere. Not configured but known of the provider.
    pub const CONTINUATION: Self = Self(1 << 7);

    /// The place of the first bit of [`own`](Self::own).
    const OWN_FROM: u32 = 24;
    /// Dialects that can be told apart by [`own`](Self::own).
    pub const OWN_MAX: u32 = 8;

    /// Requests of a client dialect as they come, by the dialect's place in a list. Not configured but known of the provider.
    pub const fn own(dialect: u32) -> Self {
        Self(if dialect < Self::OWN_MAX { 1 << (Self::OWN_FROM + dialect) } else { 0 })
    }

    /// The operations: a request needs just one of them.
    const OPERATIONS: u32 = Self::CHAT.0
        | Self::COMPLETIONS.0
        | Self::EMBEDDINGS.0
        | Self::INFER.0
        | Self::RERANK.0
        | Self::MODERATIONS.0
        | Self::IMAGES.0
        | Self::SPEECH.0
        | Self::TRANSCRIPTIONS.0
        | Self::RESPONSES.0
        | Self::ANSWERS.0;

    /// Every capability that is configured, with its name there and in messages.
    pub const NAMES: [(Self, &'static str); 13] = [
        (Self::CHAT, "chat"),
        (Self::COMPLETIONS, "completions"),
        (Self::EMBEDDINGS, "embeddings"),
        (Self::INFER, "infer"),
        (Self::RERANK, "rerank"),
        (Self::MODERATIONS, "moderations"),
        (Self::IMAGES, "images"),
        (Self::SPEECH, "speech"),
        (Self::TRANSCRIPTIONS, "transcriptions"),
        (Self::RESPONSES, "responses"),
        (Self::TOOLS, "tools"),
        (Self::VISION, "vision"),
        (Self::JSON_SCHEMA, "json_schema"),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What of this set is not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The operation in the set.
    #[must_use]
    pub const fn operation(self) -> Self {
        Self(self.0 & Self::OPERATIONS)
    }

    /// Whether what is asked for takes one pass over the input, so that all of its time tells how fast a deployment is.
    pub const fn is_one_pass(self) -> bool {
        self.0 & (Self::EMBEDDINGS.0 | Self::INFER.0) != 0
    }

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of what is in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let known = [(Self::ANSWERS, "responses or chat"), (Self::CONTINUATION, "continuation")];
        let named = Self::NAMES.into_iter().chain(known);
        let own = (self.0 >> Self::OWN_FROM != 0).then_some("the client's dialect");
        named.filter(move |(one, _)| self.contains(*one)).map(|(_, name)| name).chain(own)
    }
}

/// A split of traffic between arms.
#[derive(Debug, Clone)]
pub struct SplitSpec {
    /// What keeps a client on its arm.
    pub sticky: Sticky,
    /// The arms with their weights. Deployments name the arm they belong to.
    pub arms: Vec<(Name, u32)>,
}

/// How long a session stays where it was, and what moves it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StickySpec {
    /// How long it is remembered without another request.
    pub ttl: Duration,
    /// By what share another deployment's score must be better, from 0 to 1.
    pub lead: f64,
}

/// What a sticky choice is tied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sticky {
    /// The session, or the tenant if the request names none.
    Session,
    /// The tenant.
    Tenant,
    /// The `user` field, or the tenant.
    User,
    /// Nothing: every request is drawn anew.
    Request,
}

/// How regions are preferred within a tier. A region is a preference, never a filter.
#[derive(Debug, Clone, Default)]
pub struct RegionSpec {
    /// Nearest first, when the client gives no hint.
    pub order: Vec<Name>,
    /// Without a hint prefer the region with the lowest measured connect time instead of the configured order.
    pub by_latency: bool,
}

/// Limits of a model's queue.
#[derive(Debug, Clone)]
pub struct QueueSpec {
    /// Live requests that may wait.
    pub requests_max: u32,
    /// The batch lane's own limits.
    pub batch: BatchSpec,
    /// The wait that live requests are never to stay above for long; zero: any.
    pub target: Duration,
    /// How long a live one may wait.
    pub wait_max: Duration,
}

impl QueueSpec {
    /// Requests of a lane that may wait.
    pub const fn requests_max(&self, lane: Lane) -> u32 {
        match lane {
            Lane::Live => self.requests_max,
            Lane::Batch => self.batch.requests_max,
        }
    }

    /// How long one of a lane may wait.
    pub const fn wait_max(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Live => self.wait_max,
            Lane::Batch => self.batch.wait_max,
        }
    }
}

/// Limits of the batch lane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchSpec {
    /// Requests that may wait.
    pub requests_max: u32,
    /// How long one may wait.
    pub wait_max: Duration,
    /// Part of a deployment's slots that it may hold, from 0 to 1; one slot in any case.
    pub inflight_share: f64,
    /// Whether it leaves as many slots free as live requests turn out to need.
    pub reserve: bool,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self { requests_max: 1024, wait_max: Duration::from_mins(10), inflight_share: 1.0, reserve: true }
    }
}

/// How long each phase of a request may take.
#[derive(Debug, Clone)]
pub struct TimeoutSpec {
    /// Until a connection stands, TLS included.
    pub connect: Duration,
    /// From sending until the first content of a stream.
    pub first_content: Duration,
    /// From sending until an answer that is not streamed, which comes when all of it is made.
    pub answer: Duration,
    /// Between two pieces of content.
    pub idle: Duration,
    /// From arrival to the end, waits and all attempts included.
    pub total: Duration,
    /// How long the head of a good response is held back for its first content, so that failover stays possible.
    pub header_hold: Duration,
}

/// When a deployment that fails is left alone, for how long, and how it comes back.
#[derive(Debug, Clone)]
pub struct HealthSpec {
    /// Failures in a row that fail it. At least 1.
    pub failures: u32,
    /// Connection failures in a row that fail it. At least 1.
    pub connect_failures: u32,
    /// Recent requests there must be before their rate of errors is judged.
    pub requests_min: u32,
    /// Rate of errors, from 0 to 1, above which it counts as degraded.
    pub degraded_rate: f64,
    /// Rate of errors, from 0 to 1, above which it fails.
    pub failed_rate: f64,
    /// How long it is left alone the first time; doubles up to `open_max`, with a jitter of a half.
    pub open_min: Duration,
    /// The longest it is left alone.
    pub open_max: Duration,
    /// In what time its traffic comes back once a probe succeeded.
    pub ramp: Duration,
    /// In what time a deployment that joins others at work gets its full share.
    pub slow_start: Duration,
}

impl Default for HealthSpec {
    fn default() -> Self {
        Self {
            failures: 5,
            connect_failures: 2,
            requests_min: 10,
            degraded_rate: 0.02,
            failed_rate: 0.05,
            open_min: Duration::from_secs(5),
            open_max: Duration::from_mins(5),
            ramp: Duration::from_secs(10),
            slow_start: Duration::from_secs(30),
        }
    }
}

/// When a second attempt is sent beside one whose first content is late.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HedgeSpec {
    /// After so many times the predicted time to first content. More than 1.
    pub after: f64,
}

/// What may be sent again after it failed, beyond what can cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetrySpec {
    /// Also what may have been processed and billed (502, 504, a connection lost after sending).
    pub unsure: bool,
    /// Also what a provider's content policy refused, to another deployment.
    pub content_policy: bool,
    /// The rest of an answer that broke off after its client saw a part of it.
    pub continuation: bool,
}
