//! How many requests a deployment may have in flight, as is found out while it serves.

use pointsman_routing::limiter::{LimiterKind, LimiterSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::COUNT_MAX;

/// How many requests a deployment may have in flight below its slots. What is not given is taken from the model, or has
/// its default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimiterConfig {
    /// How it is found out. Default: auto.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<LimiterName>,
    /// The least it may come to. Default: 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub min: Option<u32>,
    /// The most it may come to; the slots if they are fewer. Default: 100000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub max: Option<u32>,
}

/// How a limit is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimiterName {
    /// `gradient` where requests cost nothing and slots are given, `off` where they cost nothing and none are, `aimd`
    /// elsewhere.
    Auto,
    /// Not at all: slots alone count.
    Off,
    /// By the time that a token takes, which grows when an engine has too many at once.
    Gradient,
    /// By refusals: 429, overloaded, no content in time. Each takes a tenth, and it grows back slowly.
    Aimd,
}

impl LimiterConfig {
    /// Whether nothing is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What holds, where `general` is what the model says.
    pub(crate) fn over(&self, general: &Self) -> LimiterSpec {
        let usual = LimiterSpec::default();
        let kind = self.kind.or(general.kind).map_or(usual.kind, |kind| match kind {
            LimiterName::Auto => LimiterKind::Auto,
            LimiterName::Off => LimiterKind::Off,
            LimiterName::Gradient => LimiterKind::Gradient,
            LimiterName::Aimd => LimiterKind::Aimd,
        });
        let min = self.min.or(general.min).unwrap_or(usual.min);
        LimiterSpec { kind, min, max: self.max.or(general.max).unwrap_or(usual.max) }
    }
}
