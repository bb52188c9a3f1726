//! Why a deployment was not considered.

use crate::catalog::Capabilities;
use crate::time::Now;

/// What there is none of in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolLimit {
    /// Slots.
    Slots,
    /// Tokens, or one that needs more of them is next.
    Tokens,
    /// Slots below the cap of the model.
    Cap,
    /// Tokens below the cap of the model.
    CapTokens,
    /// Slots or tokens that are not kept for the guarantees of others.
    Guarantees,
}

impl PoolLimit {
    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slots => "slots",
            Self::Tokens => "tokens",
            Self::Cap => "cap",
            Self::CapTokens => "cap_tokens",
            Self::Guarantees => "guarantees",
        }
    }

    /// Whether more tokens would do.
    pub(crate) const fn is_tokens(self) -> bool {
        matches!(self, Self::Tokens | Self::CapTokens)
    }

    /// Whether it is the model's own doing.
    pub(crate) const fn is_cap(self) -> bool {
        matches!(self, Self::Cap | Self::CapTokens)
    }
}

/// Why a deployment could not be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNot {
    /// It serves another version.
    OtherVersion,
    /// It lacks a tag that was asked for.
    MissingTag,
    /// It belongs to another arm of the split.
    OtherArm,
    /// Another account keeps what the request names.
    OtherAccount,
    /// It lacks these capabilities.
    Lacks(Capabilities),
    /// The prompt and output do not fit.
    TooLong {
        /// Tokens it accepts.
        context_tokens_max: u32,
    },
    /// More output is asked for than it gives.
    OutputTooLong {
        /// Tokens it gives.
        output_tokens_max: u32,
    },
    /// An earlier attempt of this request failed there.
    Tried,
    /// It is drained, by weight 0 or by an operator.
    Drained,
    /// It failed, and is left alone.
    Failed {
        /// Until then.
        until: Now,
    },
    /// It failed, and a probe is under way.
    Probing,
    /// It is coming back, and this request is not of the share that it gets yet.
    Ramping,
    /// It usually takes longer to its first content than the request has time.
    TooLate,
    /// An active health check failed.
    Unhealthy,
    /// It asked to be left alone.
    Cooling {
        /// Until then.
        until: Now,
    },
    /// It said lately that it does not know the upstream model, or not this operation.
    Missing {
        /// When it is asked again.
        until: Now,
    },
    /// No credential of its provider is usable.
    NoCredential {
        /// The soonest that one returns, if one does by itself.
        until: Option<Now>,
    },
    /// All its slots are taken.
    Full,
    /// Those in flight have too many tokens for this one beside them, or one that needs more is next.
    TokensFull {
        /// Tokens that they may have together.
        tokens_inflight_max: u64,
    },
    /// Its pool has no room for this model.
    PoolFull {
        /// What there is none of.
        limit: PoolLimit,
    },
    /// Its slots are taken if those are counted that its engine has from elsewhere.
    ForeignFull {
        /// How many those are.
        foreign: u32,
        /// Until then that is believed without another report.
        until: Now,
    },
    /// It could serve, but its tier was not needed.
    LaterTier,
    /// It could serve, but so much of its tier cannot that this request was sent to the next.
    TierWeak,
    /// It could serve, but a preferred region could too.
    OtherRegion,
}

impl WhyNot {
    /// Whether it works and would serve, if others had not taken all of it.
    pub const fn is_full(self) -> bool {
        matches!(
            self,
            Self::Full | Self::TokensFull { .. } | Self::PoolFull { .. } | Self::ForeignFull { .. }
        )
    }

    /// Whether the deployment is not for this request, whatever becomes of its state while the request waits.
    pub const fn is_about_the_request(self) -> bool {
        match self {
            Self::OtherVersion
            | Self::MissingTag
            | Self::OtherArm
            | Self::OtherAccount
            | Self::Lacks(_)
            | Self::TooLong { .. }
            | Self::OutputTooLong { .. }
            | Self::TooLate
            | Self::Tried => true,
            Self::Drained
            | Self::Failed { .. }
            | Self::Probing
            | Self::Ramping
            | Self::Unhealthy
            | Self::Cooling { .. }
            | Self::Missing { .. }
            | Self::NoCredential { .. }
            | Self::Full
            | Self::TokensFull { .. }
            | Self::PoolFull { .. }
            | Self::ForeignFull { .. }
            | Self::LaterTier
            | Self::TierWeak
            | Self::OtherRegion => false,
        }
    }

    /// When it will no longer speak against the deployment, if that is known.
    pub const fn returns_at(self) -> Option<Now> {
        match self {
            Self::Failed { until }
            | Self::Cooling { until }
            | Self::Missing { until }
            | Self::ForeignFull { until, .. } => Some(until),
            Self::NoCredential { until } => until,
            Self::OtherVersion
            | Self::MissingTag
            | Self::OtherArm
            | Self::OtherAccount
            | Self::Lacks(_)
            | Self::TooLong { .. }
            | Self::OutputTooLong { .. }
            | Self::Tried
            | Self::Drained
            | Self::Probing
            | Self::Ramping
            | Self::TooLate
            | Self::TierWeak
            | Self::Unhealthy
            | Self::Full
            | Self::TokensFull { .. }
            | Self::PoolFull { .. }
            | Self::LaterTier
            | Self::OtherRegion => None,
        }
    }

    /// The name in records, headers and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OtherVersion => "other_version",
            Self::MissingTag => "missing_tag",
            Self::OtherArm => "other_arm",
            Self::OtherAccount => "other_account",
            Self::Lacks(_) => "lacks_capability",
            Self::TooLong { .. } => "too_long",
            Self::OutputTooLong { .. } => "output_too_long",
            Self::Missing { .. } => "upstream_missing",
            Self::Tried => "tried",
            Self::Drained => "drained",
            Self::Failed { .. } => "failed",
            Self::Probing => "probing",
            Self::Ramping => "ramping",
            Self::TooLate => "too_late",
            Self::TierWeak => "tier_weak",
            Self::Unhealthy => "unhealthy",
            Self::Cooling { .. } => "cooling",
            Self::NoCredential { .. } => "no_credential",
            Self::Full => "full",
            Self::TokensFull { .. } => "tokens_full",
            Self::PoolFull { .. } => "pool_full",
            Self::ForeignFull { .. } => "foreign_full",
            Self::LaterTier => "later_tier",
            Self::OtherRegion => "other_region",
        }
    }
}
