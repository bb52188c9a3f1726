//! What a run came to.

use std::collections::BTreeMap;

use pointsman_routing::Now;
use pointsman_routing::fleet::FleetView;
use pointsman_routing::flow::Flow;
use serde::Serialize;

use crate::fault::Fault;

/// Time after a fault in which a deployment's traffic may come back, seconds.
const BACK_S: f64 = 30.0;
/// Time over which it is then looked at; long enough for chance to even out.
const BACK_OVER_S: f64 = 60.0;

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
    /// The same: what 95 in 100 keep below.
    pub first_content_ms_p95: f64,
    /// The same: what 99 in 100 keep below.
    pub first_content_ms_p99: f64,
    /// Time in the queue, milliseconds: what 99 in 100 keep below.
    pub queue_wait_ms_p99: f64,
    /// What each deployment did, by name.
    pub deployments: BTreeMap<String, DeploymentReport>,
    /// A hash of every action in order: equal for equal runs.
    pub log_hash: u64,
    /// Every attempt: when it began, seconds, and where.
    #[serde(skip)]
    sent: Vec<(f64, String)>,
    /// When requests were completed, seconds, and how long their first content took, milliseconds.
    #[serde(skip)]
    completed: Vec<(f64, f64)>,
    /// When requests arrived that got content, seconds, and how long that took, milliseconds.
    #[serde(skip)]
    first_content: Vec<(f64, f64)>,
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
    /// Changes of its health.
    pub health_changes: u64,
}

/// What is counted while a world runs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    outcomes: BTreeMap<&'static str, u64>,
    deployments: BTreeMap<String, (DeploymentReport, f64)>,
    first_content: Vec<(f64, f64)>,
    queue_wait_ms: Vec<f64>,
    sent: Vec<(f64, String)>,
    completed: Vec<(f64, f64)>,
}

impl Tally {
    pub(crate) fn request(&mut self, outcome: &'static str, flow: &Flow, arrived: Now, now: Now) {
        *self.outcomes.entry(outcome).or_default() += 1;
        self.queue_wait_ms.push(flow.queue_wait().as_secs_f64() * 1e3);
        if outcome == "completed" {
            let first = flow.attempts().iter().find_map(|attempt| attempt.first_content).unwrap_or(now);
            self.completed.push((now.as_secs_f64(), (first - arrived).as_secs_f64() * 1e3));
        }
        for attempt in flow.attempts() {
            let (deployment, busy_s) = self.deployments.entry(attempt.name.to_string()).or_default();
            deployment.attempts += 1;
            deployment.failures += u64::from(attempt.failure.is_some());
            *busy_s += (attempt.ended.unwrap_or(now) - attempt.started).as_secs_f64();
            self.sent.push((attempt.started.as_secs_f64(), attempt.name.to_string()));
            if let Some(first) = attempt.first_content {
                self.first_content.push((arrived.as_secs_f64(), (first - arrived).as_secs_f64() * 1e3));
            }
        }
    }

    pub(crate) fn report(
        mut self,
        fleet: &FleetView,
        seed: u64,
        requests: u64,
        now: Now,
        log_hash: u64,
    ) -> Report {
        let attempts: u64 = self.deployments.values().map(|(deployment, _)| deployment.attempts).sum();
        let span_s = now.as_secs_f64();
        let mut deployments = BTreeMap::new();
        for view in fleet.models.iter().flat_map(|model| &model.deployments) {
            let (mut deployment, busy_s) = self.deployments.remove(&*view.name).unwrap_or_default();
            deployment.share = deployment.attempts as f64 / attempts.max(1) as f64;
            deployment.inflight_mean = busy_s / span_s.max(1e-9);
            deployment.health_changes = view.breaker_transitions;
            deployments.insert(view.name.to_string(), deployment);
        }
        self.sent.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut first_content_ms: Vec<f64> = self.first_content.iter().map(|(_, took_ms)| *took_ms).collect();
        Report {
            seed,
            requests,
            outcomes: self.outcomes,
            attempts,
            span_s,
            first_content_ms_p50: quantile(&mut first_content_ms, 0.5),
            first_content_ms_p95: quantile(&mut first_content_ms, 0.95),
            first_content_ms_p99: quantile(&mut first_content_ms, 0.99),
            queue_wait_ms_p99: quantile(&mut self.queue_wait_ms, 0.99),
            deployments,
            log_hash,
            sent: self.sent,
            completed: self.completed,
            first_content: self.first_content,
        }
    }
}

impl Report {
    /// Share of requests that users saw fail: failed, refused or cut short. Those who left saw nothing.
    pub fn failed_share(&self) -> f64 {
        let of = |name: &str| self.outcomes.get(name).copied().unwrap_or(0);
        let failed = of("failed") + of("rejected") + of("truncated");
        failed as f64 / (self.requests - of("client_gone")).max(1) as f64
    }

    /// Requests completed a second between two moments, seconds, whose first content came within so many milliseconds.
    pub fn completed_per_s(&self, from_s: f64, until_s: f64, objective_ms: f64) -> f64 {
        let good = |(at, took_ms): &&(f64, f64)| (from_s..until_s).contains(at) && *took_ms <= objective_ms;
        let completed = self.completed.iter().filter(good).count();
        completed as f64 / (until_s - from_s).max(1e-9)
    }

    /// Time to first content of what arrived while any of the faults held, milliseconds: what 95 in 100 keep below.
    pub fn p95_during(&self, faults: &[Fault]) -> f64 {
        let during = |at: f64| faults.iter().any(|fault| (fault.from_s..fault.until_s).contains(&at));
        let took = self.first_content.iter().filter(|(at, _)| during(*at)).map(|(_, took_ms)| *took_ms);
        quantile(&mut took.collect::<Vec<_>>(), 0.95)
    }

    /// How many requests a faulty deployment got, and how long it took, seconds, until it was left alone: until it got
    /// less than half of its share before of the next sixty attempts.
    pub fn detection(&self, fault: &Fault) -> (u64, f64) {
        const NEXT: usize = 60;
        let before = self.share(&fault.deployment, 0.0, fault.from_s);
        let from = self.sent.partition_point(|(at, _)| *at < fault.from_s);
        let until = self.sent.partition_point(|(at, _)| *at < fault.until_s);
        let to_it = |sent: &[(f64, String)]| sent.iter().filter(|(_, to)| *to == fault.deployment).count();
        let left_alone = self.sent[from..until]
            .windows(NEXT)
            .position(|next| (to_it(next) as f64) < before * NEXT as f64 / 2.0);
        let end = left_alone.map_or(until, |position| from + position);
        let end_s = self.sent.get(end).map_or(fault.until_s, |(at, _)| *at);
        (to_it(&self.sent[from..end]) as u64, end_s - fault.from_s)
    }

    /// The share of its traffic before that a deployment has again from half a minute after its fault on, for a minute.
    pub fn traffic_back(&self, fault: &Fault) -> f64 {
        let before = self.share(&fault.deployment, 0.0, fault.from_s);
        let from_s = fault.until_s + BACK_S;
        self.share(&fault.deployment, from_s, from_s + BACK_OVER_S) / before.max(1e-9)
    }

    /// A deployment's share of what was sent between two moments.
    fn share(&self, name: &str, from_s: f64, until_s: f64) -> f64 {
        let from = self.sent.partition_point(|(at, _)| *at < from_s);
        let until = self.sent.partition_point(|(at, _)| *at < until_s);
        let sent = &self.sent[from..until.max(from)];
        sent.iter().filter(|(_, to)| to == name).count() as f64 / sent.len().max(1) as f64
    }
}

/// The value that a share of `values` keeps below; 0 of nothing.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0)
}
