//! What the batch lane may use beside live traffic, and what tenants get of what there is too little of.

use std::time::Duration;

use pointsman_routing::catalog::{BatchSpec, TenantSpec};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{COUNT_MAX, TIME_MS_MAX, WEIGHT_MAX};

/// What is special to a lane. The live lane has `queue`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LanesConfig {
    /// The batch lane.
    pub batch: BatchLaneConfig,
}

/// Limits of the batch lane, whose requests fill the slots that live requests do not need.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchLaneConfig {
    /// Batch requests of one model that may wait, in a queue of their own; 0: none. Default: 1024.
    #[schemars(range(max = COUNT_MAX))]
    pub requests_max: Option<u32>,
    /// How long one may wait, milliseconds. Default: 600000.
    #[schemars(range(max = TIME_MS_MAX))]
    pub wait_ms_max: Option<u64>,
    /// Part of a deployment's slots that batch may hold, from 0 to 1; one slot in any case. Default: 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub inflight_share: Option<f64>,
    /// Whether batch leaves slots free for live requests: as many as it takes for one live request in a few hundred to find
    /// none, found while they come; none once no live request came for ten minutes. Default: true.
    pub reserve: Option<bool>,
}

impl BatchLaneConfig {
    pub(crate) fn over(&self, general: &Self) -> BatchSpec {
        let usual = BatchSpec::default();
        let wait_ms_max = self.wait_ms_max.or(general.wait_ms_max);
        BatchSpec {
            requests_max: self.requests_max.or(general.requests_max).unwrap_or(usual.requests_max),
            wait_max: wait_ms_max.map_or(usual.wait_max, Duration::from_millis),
            inflight_share: self.inflight_share.or(general.inflight_share).unwrap_or(usual.inflight_share),
            reserve: self.reserve.or(general.reserve).unwrap_or(usual.reserve),
        }
    }
}

/// What is known of a tenant beside its keys.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    /// Its share of what there is too little of, relative to the other tenants that wait in the same class. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = WEIGHT_MAX))]
    pub weight: u32,
}

const fn one() -> u32 {
    1
}

impl TenantConfig {
    pub(crate) const fn spec(&self) -> TenantSpec {
        TenantSpec { weight: self.weight }
    }
}
