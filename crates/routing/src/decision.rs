//! The answer for one attempt: what was chosen and why, and why not the others.

mod why_not;

use std::time::Duration;

use crate::catalog::Name;
use crate::ids::{CredentialId, DeploymentId, Ticket};
use crate::shed::Reason;
use crate::time::Now;

pub use why_not::{PoolLimit, WhyNot};

/// The answer for one attempt of a request.
#[derive(Debug, Clone)]
pub struct Decision {
    /// When it was made.
    pub at: Now,
    /// What came out.
    pub outcome: Outcome,
    /// The strategy that picked, or would have.
    pub strategy: &'static str,
    /// The rule that the strategy used, if it chooses among several.
    pub used: Option<&'static str>,
    /// The arm of the split the request is on.
    pub arm: Option<Name>,
    /// The tier that was used, or the first if none could serve.
    pub tier: u32,
    /// Whether so few deployments could serve that some were used that had failed.
    pub panic: bool,
    /// Every deployment of the model, chosen or not, in configured order.
    pub candidates: Vec<Candidate>,
}

impl Decision {
    /// A decision about nothing.
    pub(crate) const fn none(at: Now) -> Self {
        let outcome = Outcome::Rejected { why: Rejection::NoDeployment, retry_after: None };
        Self {
            at,
            outcome,
            strategy: "none",
            used: None,
            arm: None,
            tier: 0,
            panic: false,
            candidates: Vec::new(),
        }
    }
}

/// What came out of a decision.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Send it there. The permit is taken.
    Chosen(Choice),
    /// All that could serve are full: the request waits for a slot.
    Queued {
        /// Its place in the queue.
        ticket: Ticket,
        /// Where it stands among those that wait.
        place: Place,
    },
    /// Nothing can serve it now.
    Rejected {
        /// Why.
        why: Rejection,
        /// When it may be worth asking again: the soonest return of a deployment or credential.
        retry_after: Option<Duration>,
    },
}

/// Where a request stood among those that wait for the same slots, when it joined them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// How many are to be served before it, as things stand: tenants take turns, and each class has its floor.
    pub ahead: u32,
    /// Of its class, those that are to be served before it.
    pub of_class: u32,
    /// Of those, the ones of its own tenant.
    pub of_tenant: u32,
    /// Those that wait of more important classes.
    pub of_classes_before: u32,
    /// The wait that is to be expected at the present pace, if that is known.
    pub wait: Option<Duration>,
}

/// The chosen deployment.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The deployment. Its permit is held until the flow ends the attempt.
    pub deployment: DeploymentId,
    /// Its name.
    pub name: Name,
    /// Its provider's name.
    pub provider: Name,
    /// The credential to send with, if the provider needs one.
    pub credential: Option<CredentialId>,
    /// The credential's name.
    pub credential_name: Option<Name>,
    /// Why this one.
    pub why: Why,
}

/// Why no deployment can serve a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The model has no deployment at all, or was removed.
    NoDeployment,
    /// None has the version asked for.
    NoSuchVersion,
    /// None carries the tags asked for.
    NoSuchTags,
    /// None can do what the request needs.
    NotCapable,
    /// The account that keeps what the request names cannot serve it, and no other can.
    Pinned,
    /// The prompt fits none.
    TooLong,
    /// Those that could serve are failing, cooling, draining or out of quota.
    Unavailable,
    /// All are full and so is the queue.
    QueueFull,
    /// Newer requests are served first, for the queue does not empty, and it had waited too long to be next.
    Overloaded,
    /// It waited for a slot as long as it may.
    QueueTimeout,
    /// No deployment is fast enough for the time that is left, or none becomes free in it.
    TooLate,
}

/// Why a deployment was picked. The numbers are those the strategy compared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// It was the only one eligible.
    OnlyOne,
    /// It was next in turn.
    NextInTurn,
    /// It was next in turn by weight.
    NextByWeight {
        /// Its weight.
        weight: u32,
    },
    /// It had the fewest requests in flight per slot or weight.
    FewestInFlight {
        /// Requests in flight when it was picked.
        inflight: u32,
        /// What was compared.
        load: f64,
    },
    /// It was the faster of two drawn.
    LowerLatency {
        /// Its score: expected normalised time, milliseconds.
        score: f64,
        /// The score of the other that was drawn.
        other: f64,
    },
    /// It had the fewest tokens to go per slot or weight.
    FewestTokens {
        /// Tokens to go when it was picked.
        tokens: u64,
        /// What was compared, this request included.
        load: f64,
    },
    /// The longest beginning of the prompt is likely to be cached there.
    LongestPrefix {
        /// Tokens of it.
        tokens_cached: u32,
    },
    /// Its first token is likely to come soonest, all in all.
    SoonestFirstToken {
        /// When it is predicted, milliseconds.
        predicted_ms: f64,
        /// Tokens of the prompt that are likely to be cached there.
        tokens_cached: u32,
        /// Whether all that could serve were hot, it included.
        hot: bool,
        /// Whether the request's objective is likely to be kept; `None`: it has none.
        objective: Option<bool>,
    },
    /// It had the lighter load of two drawn: requests, failures, quota and what is cached.
    LighterOfTwo {
        /// Its score.
        score: f64,
        /// The score of the other that was drawn.
        other: f64,
    },
    /// The session was there before.
    Stayed,
    /// The key hashed to it.
    Hashed {
        /// Its place in the key's order of preference, from 0; more than 0 when those before it were loaded.
        rank: u32,
    },
    /// It was drawn by weight.
    Drawn {
        /// Its weight.
        weight: u32,
    },
    /// A slot became free while the request waited.
    SlotFreed,
    /// It had failed, and this request sees whether it works again.
    Probed,
    /// It is left alone for failing, or nothing was learnt of it for a while, and one in a hundred requests looks all the
    /// same.
    Explored,
}

/// One deployment as a decision saw it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The deployment.
    pub deployment: DeploymentId,
    /// Its tier.
    pub tier: u32,
    /// The strategy's score, lower is better; not a number if it compared none. See [`Candidate::score`].
    pub(crate) score: f64,
    /// Why it could not be picked. `None`: it was eligible.
    pub why_not: Option<WhyNot>,
    /// How many times slower than it should be it was; 1 while that is not proven.
    pub slow: f32,
    /// Tokens of the prompt that it was likely to have cached.
    pub tokens_cached: u32,
    /// When the first token was predicted, milliseconds; not a number if that was not asked. See
    /// [`Candidate::predicted_ms`].
    pub(crate) predicted_ms: f32,
    /// Whether its engine was hot, if the strategy goes by that: much of its KV cache in use, or requests waiting in it.
    pub hot: bool,
    /// Requests in flight.
    pub inflight: u32,
    /// How many it may have in flight; `None`: any number.
    pub limit: Option<u32>,
    /// When its engine reported last; `None` where it never did.
    pub reported: Option<Now>,
    /// When something was last heard of it (a response or a probe).
    pub heard: Option<Now>,
}

impl Candidate {
    /// The strategy's score, lower is better, if the strategy compared scores.
    pub fn score(&self) -> Option<f64> {
        Some(self.score).filter(|score| score.is_finite())
    }

    /// The predicted time to the first token, milliseconds, if the strategy goes by it.
    pub fn predicted_ms(&self) -> Option<f64> {
        Some(f64::from(self.predicted_ms)).filter(|ms| ms.is_finite())
    }

    /// Age of the newest thing that was known of it when the decision was made.
    pub fn age(&self, at: Now) -> Option<Duration> {
        self.heard.map(|heard| at - heard)
    }
}

impl Why {
    /// The name in records, headers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnlyOne => "only_one",
            Self::NextInTurn => "next_in_turn",
            Self::NextByWeight { .. } => "next_by_weight",
            Self::FewestInFlight { .. } => "fewest_in_flight",
            Self::LowerLatency { .. } => "lower_latency",
            Self::FewestTokens { .. } => "fewest_tokens",
            Self::LongestPrefix { .. } => "longest_prefix",
            Self::SoonestFirstToken { .. } => "soonest_first_token",
            Self::LighterOfTwo { .. } => "lighter_of_two",
            Self::Stayed => "stayed",
            Self::Hashed { .. } => "hashed",
            Self::Drawn { .. } => "drawn",
            Self::SlotFreed => "slot_freed",
            Self::Probed => "probed",
            Self::Explored => "explored",
        }
    }
}

impl Rejection {
    /// The name in records, headers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoDeployment => "no_deployment",
            Self::NoSuchVersion => "no_such_version",
            Self::NoSuchTags => "no_such_tags",
            Self::NotCapable => "not_capable",
            Self::Pinned => "pinned",
            Self::TooLong => "too_long",
            Self::Unavailable => "unavailable",
            Self::QueueFull => "queue_full",
            Self::Overloaded => "overloaded",
            Self::QueueTimeout => "queue_timeout",
            Self::TooLate => "too_late",
        }
    }

    /// What is counted as turned away for having too much to do.
    pub const fn shed(self) -> Option<Reason> {
        match self {
            Self::QueueFull => Some(Reason::QueueFull),
            Self::Overloaded => Some(Reason::QueueOverloaded),
            Self::TooLate => Some(Reason::TooLate),
            Self::NoDeployment
            | Self::NoSuchVersion
            | Self::NoSuchTags
            | Self::NotCapable
            | Self::Pinned
            | Self::TooLong
            | Self::Unavailable
            | Self::QueueTimeout => None,
        }
    }
}
