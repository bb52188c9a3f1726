//! Slots that several models share, and batch requests that give way.

use std::collections::BTreeMap;

use pointsman_routing::pool::{PoolSpec, PreemptSpec, ShareSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{COUNT_MAX, PREEMPT_TIMES_MAX, TOKENS_MAX, WEIGHT_MAX};

/// Slots that several models share: one GPU box, or one engine with several models. Deployments name it (`pool`), or a
/// provider does for all of its deployments (`slot_pool`). Give `slots`, `tokens` or both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlotPoolConfig {
    /// Requests that all its deployments may have in flight together. Default: any number.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub slots: Option<u32>,
    /// Tokens that those requests may have together: prompts, and the output they ask for or 256. A request larger than
    /// that runs when it is alone. Default: any number.
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    pub tokens: Option<u64>,
    /// What models get of it, by name. A model that uses the pool and is not named has no guarantee, weight 1 and no cap.
    #[serde(default)]
    pub models: BTreeMap<String, SlotShareConfig>,
    /// Batch requests that have no content yet give their slots to live ones that find none. Default: they do not.
    pub preempt: Option<PreemptConfig>,
}

/// What a model gets of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlotShareConfig {
    /// Slots that it has whenever it needs them: below that it gets the next that is released, whoever else waits.
    /// Default: 0.
    #[schemars(range(max = COUNT_MAX))]
    pub guarantee: u32,
    /// The same in tokens. Default: 0.
    #[schemars(range(max = TOKENS_MAX))]
    pub guarantee_tokens: u64,
    /// Its share of what is not guaranteed, relative to the others. Default: 1.
    #[schemars(range(min = 1, max = WEIGHT_MAX))]
    pub weight: u32,
    /// The most slots it may have. Default: all.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub cap: Option<u32>,
    /// The same in tokens. Default: all.
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    pub cap_tokens: Option<u64>,
    /// Whether others may use its guarantee while it does not, so that it waits for a release when it comes back. With
    /// `false` its slots are kept free for it. Default: true.
    pub lend: bool,
}

/// Whether batch requests give way: before their first content, where requests cost nothing or `retry.unsure` is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PreemptConfig {
    /// How often one request gives its slot away before it may keep it. Default: 2.
    #[schemars(range(min = 1, max = PREEMPT_TIMES_MAX))]
    pub times_max: u32,
}

impl Default for PreemptConfig {
    fn default() -> Self {
        Self { times_max: 2 }
    }
}

impl Default for SlotShareConfig {
    fn default() -> Self {
        let ShareSpec { guarantee, guarantee_tokens, weight, cap, cap_tokens, lend } = ShareSpec::default();
        Self { guarantee, guarantee_tokens, weight, cap, cap_tokens, lend }
    }
}

impl SlotPoolConfig {
    pub(crate) fn spec(&self) -> PoolSpec {
        let share = |share: &SlotShareConfig| {
            let SlotShareConfig { guarantee, guarantee_tokens, weight, cap, cap_tokens, lend } = *share;
            ShareSpec { guarantee, guarantee_tokens, weight, cap, cap_tokens, lend }
        };
        PoolSpec {
            slots: self.slots,
            tokens: self.tokens,
            models: self.models.iter().map(|(name, one)| (name.as_str().into(), share(one))).collect(),
            preempt: self.preempt.map(PreemptConfig::spec),
        }
    }
}

impl PreemptConfig {
    pub(crate) const fn spec(self) -> PreemptSpec {
        PreemptSpec { times_max: self.times_max }
    }
}
