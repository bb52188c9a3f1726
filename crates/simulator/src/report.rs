//! What a run came to.

use std::collections::BTreeMap;

use pointsman_routing::Now;
use pointsman_routing::decision::Outcome;
use pointsman_routing::fleet::FleetView;
use pointsman_routing::flow::{Flow, FlowOutcome};
use pointsman_routing::health::Reason;
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
    /// Clients that left, by the phase of their request.
    pub left_in: BTreeMap<&'static str, u64>,
    /// Requests that failed or were refused while a deployment without a fault had room, and was not tried.
    pub failed_needlessly: u64,
    /// Requests that were refused and not told when to come back.
    pub refused_without_retry_after: u64,
    /// Failed attempts and failed health checks on the day with the most, and requests on the day with the most.
    pub worst_day: Day,
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
    /// What must always hold and did not; builds with assertions stop there instead.
    pub broken: Vec<String>,
    /// A hash of every action in order: equal for equal runs.
    pub log_hash: u64,
    /// Every attempt: when it began, seconds, and where.
    #[serde(skip)]
    sent: Vec<(f64, String)>,
    /// When deployments were taken for slow, seconds, and which.
    #[serde(skip)]
    slow: Vec<(f64, String)>,
    /// When requests were completed, seconds, and how long their first content took, milliseconds.
    #[serde(skip)]
    completed: Vec<(f64, f64)>,
    /// When requests arrived that got content, seconds, and how long that took, milliseconds.
    #[serde(skip)]
    first_content: Vec<(f64, f64)>,
}

/// What is counted by days.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Day {
    /// Failed attempts and failed health checks.
    pub unhealthy_signals: u64,
    /// Requests that ended.
    pub requests: u64,
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
    /// Changes of its health; of several routers', those of the one that saw the most.
    pub health_changes: u64,
}

/// What is counted while a world runs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    outcomes: BTreeMap<&'static str, u64>,
    left_in: BTreeMap<&'static str, u64>,
    failed_needlessly: u64,
    refused_without_retry_after: u64,
    days: BTreeMap<u64, Day>,
    deployments: BTreeMap<String, (DeploymentReport, f64)>,
    first_content: Vec<(f64, f64)>,
    queue_wait_ms: Vec<f64>,
    sent: Vec<(f64, String)>,
    slow: Vec<(f64, String)>,
    completed: Vec<(f64, f64)>,
}

impl Tally {
    pub(crate) fn request(&mut self, outcome: &'static str, flow: &Flow, arrived: Now, now: Now) {
        *self.outcomes.entry(outcome).or_default() += 1;
        self.day(now).requests += 1;
        if let Some(FlowOutcome::ClientGone { phase }) = flow.outcome() {
            *self.left_in.entry(phase.name()).or_default() += 1;
        }
        if let (Some(FlowOutcome::Rejected { .. }), Some(last)) = (flow.outcome(), flow.decisions().last()) {
            let told = matches!(last.outcome, Outcome::Rejected { retry_after: Some(_), .. });
            self.refused_without_retry_after += u64::from(!told);
        }
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
            if attempt.failure.is_some() {
                self.signal(attempt.ended.unwrap_or(now));
            }
            if let Some(first) = attempt.first_content {
                self.first_content.push((arrived.as_secs_f64(), (first - arrived).as_secs_f64() * 1e3));
            }
        }
    }

    /// A request was answered before there was anything to decide.
    pub(crate) fn refused(&mut self, outcome: &'static str) {
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Something said that a deployment does not work.
    pub(crate) fn signal(&mut self, now: Now) {
        self.day(now).unhealthy_signals += 1;
    }

    pub(crate) fn failed_needlessly(&mut self) {
        self.failed_needlessly += 1;
    }

    /// Requests that ended.
    pub(crate) fn ended(&self) -> u64 {
        self.outcomes.values().sum()
    }

    fn day(&mut self, now: Now) -> &mut Day {
        self.days.entry(now.as_millis() / 86_400_000).or_default()
    }

    pub(crate) fn report(
        mut self,
        fleets: &[FleetView],
        (seed, requests): (u64, u64),
        now: Now,
        log_hash: u64,
        broken: Vec<String>,
    ) -> Report {
        let attempts: u64 = self.deployments.values().map(|(deployment, _)| deployment.attempts).sum();
        let span_s = now.as_secs_f64();
        // A fleet that knows a deployment may have sent it nothing; one that was sent something may be gone.
        for view in fleets.iter().flat_map(|fleet| &fleet.models).flat_map(|model| &model.deployments) {
            let (deployment, _) = self.deployments.entry(view.name.to_string()).or_default();
            deployment.health_changes = deployment.health_changes.max(view.breaker_transitions);
            let slow = view.history.iter().filter(|change| change.reason == Reason::Slow);
            self.slow.extend(slow.map(|change| (span_s - change.age_ms as f64 / 1e3, view.name.to_string())));
        }
        let deployments =
            std::mem::take(&mut self.deployments).into_iter().map(|(name, (mut one, busy_s))| {
                one.share = one.attempts as f64 / attempts.max(1) as f64;
                one.inflight_mean = busy_s / span_s.max(1e-9);
                (name, one)
            });
        let days = self.days.values();
        let worst_day = Day {
            unhealthy_signals: days.clone().map(|day| day.unhealthy_signals).max().unwrap_or(0),
            requests: days.map(|day| day.requests).max().unwrap_or(0),
        };
        self.sent.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut first_content_ms: Vec<f64> = self.first_content.iter().map(|(_, took_ms)| *took_ms).collect();
        Report {
            seed,
            requests,
            outcomes: self.outcomes,
            left_in: self.left_in,
            failed_needlessly: self.failed_needlessly,
            refused_without_retry_after: self.refused_without_retry_after,
            worst_day,
            attempts,
            span_s,
            first_content_ms_p50: quantile(&mut first_content_ms, 0.5),
            first_content_ms_p95: quantile(&mut first_content_ms, 0.95),
            first_content_ms_p99: quantile(&mut first_content_ms, 0.99),
            queue_wait_ms_p99: quantile(&mut self.queue_wait_ms, 0.99),
            deployments: deployments.collect(),
            broken,
            log_hash,
            slow: self.slow,
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

    /// Time to first content of what arrived while any of the faults held, milliseconds: what this share keeps below.
    pub fn first_content_during(&self, faults: &[Fault], share: f64) -> f64 {
        during(&self.first_content, faults, share)
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

    /// How many requests a slow deployment got until that was known of it; `None` if it never was.
    pub fn slow_found(&self, fault: &Fault) -> Option<u64> {
        let (found_s, _) = self.slow.iter().find(|slow| is_found(slow, fault))?;
        let sent = self
            .sent
            .iter()
            .filter(|(at, to)| *to == fault.deployment && (fault.from_s..*found_s).contains(at));
        Some(sent.count() as u64)
    }

    /// How often a deployment was taken for slow beside these faults.
    pub fn slow_alarms(&self, faults: &[&Fault]) -> usize {
        self.slow.iter().filter(|slow| !faults.iter().any(|fault| is_found(slow, fault))).count()
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

/// Of times by moment of arrival, those that arrived while any of the faults held: what a share of them keeps below.
pub(crate) fn during(first_content: &[(f64, f64)], faults: &[Fault], share: f64) -> f64 {
    let during = |at: f64| faults.iter().any(|fault| (fault.from_s..fault.until_s).contains(&at));
    let took = first_content.iter().filter(|(at, _)| during(*at)).map(|(_, took_ms)| *took_ms);
    quantile(&mut took.collect::<Vec<_>>(), share)
}

/// Whether a deployment was taken for slow because of a fault.
fn is_found((at, name): &(f64, String), fault: &Fault) -> bool {
    *name == fault.deployment && (fault.from_s..fault.until_s).contains(at)
}

/// The value that a share of `values` keeps below; 0 of nothing.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0)
}
