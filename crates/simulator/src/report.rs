//! What a run came to.

use std::collections::BTreeMap;

use serde::Serialize;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Requests that arrived.
    pub requests: u64,
    /// How they ended, by name.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Attempts in all.
    pub attempts: u64,
    /// Virtual time from the first arrival to the last end, seconds.
    pub span_s: f64,
    /// Time from arrival to first content, milliseconds: the median.
    pub first_content_ms_p50: f64,
    /// The same: what 99 in 100 keep below.
    pub first_content_ms_p99: f64,
    /// Time in the queue, milliseconds: what 99 in 100 keep below.
    pub queue_wait_ms_p99: f64,
    /// What each deployment did, by name.
    pub deployments: BTreeMap<String, DeploymentReport>,
    /// A hash of every action in order: equal for equal runs.
    pub log_hash: u64,
}

/// What one deployment did.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct DeploymentReport {
    /// Attempts sent to it.
    pub attempts: u64,
    /// Of those, failed.
    pub failures: u64,
    /// Its share of all attempts, from 0 to 1.
    pub share: f64,
    /// Requests in flight on average over the run.
    pub inflight_mean: f64,
}

/// The value that a share of `values` keeps below; 0 of nothing.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0)
}
