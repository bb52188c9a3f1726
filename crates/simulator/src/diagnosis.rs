//! What recorded traffic says of how well it was routed: throughput, times and use of slots as a baseline, and the
//! risks that a hot model is overloaded, that slots are used unevenly, and that routing swings to and fro.
//!
//! Everything is computed from when attempts began and ended, so that live records, decision logs and simulated traffic are
//! held to the same measure, whoever routed them.

mod load;
mod risk;

use std::collections::BTreeMap;

use pointsman_routing::figures::{jain, peak_to_mean};
use serde::{Deserialize, Serialize};

use self::load::Loads;
pub use self::risk::{Level, Risk};
use crate::report::quantile;

/// A request that is over, as a record tells it. Times are seconds on a common clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// The model it asked for.
    pub model: String,
    /// When it came.
    pub arrived_s: f64,
    /// When it was over.
    pub ended_s: f64,
    /// How long it waited for a slot.
    pub queued_s: f64,
    /// Time to its first content, if there was any.
    pub first_content_s: Option<f64>,
    /// Output tokens.
    pub tokens_out: u64,
    /// How it ended.
    pub end: End,
    /// Where it was sent.
    pub attempts: Vec<Sent>,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an answer.
    Answered,
    /// Without a slot: it was turned away or waited too long.
    Refused,
    /// With an error, or cut short.
    Failed,
    /// Its client left.
    Left,
}

/// An attempt of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Where it was sent.
    pub deployment: String,
    /// When it began.
    pub from_s: f64,
    /// When it was over.
    pub until_s: f64,
}

/// Some traffic.
#[derive(Debug, Clone, Copy)]
pub struct Traffic<'a> {
    /// Requests that are over.
    pub served: &'a [Served],
    /// What is known of deployments, by model and name.
    pub known: &'a BTreeMap<(String, String), Known>,
    /// Requests in flight that were counted now and then. Where there are some, they are relied on rather than records,
    /// which tell nothing of requests that are not over.
    pub counted: &'a [Counted],
    /// When watching began and ended, seconds; `None`: from the first arrival to the last end.
    pub window_s: Option<(f64, f64)>,
}

/// Requests in flight at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// When they were counted, seconds.
    pub at_s: f64,
    /// The model.
    pub model: String,
    /// The deployment.
    pub deployment: String,
    /// Requests in flight on it.
    pub inflight: u32,
}

/// What is known of a deployment beside its traffic.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Known {
    /// Requests it can work on at once, if that is known.
    pub slots: Option<u32>,
    /// Its weight, where slots are not known.
    pub weight: u32,
    /// Changes of its health an hour, if that is known.
    pub flaps_per_h: Option<f64>,
}

/// Throughput, times and use of slots of some traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// The time it spans, seconds.
    pub span_s: f64,
    /// Requests.
    pub requests: u64,
    /// Answers a second.
    pub answered_per_s: f64,
    /// Output tokens a second.
    pub tokens_out_per_s: f64,
    /// Share of requests that were turned away or waited too long, from 0 to 1.
    pub refused_share: f64,
    /// Share that failed, from 0 to 1.
    pub failed_share: f64,
    /// Time to first content, milliseconds.
    pub first_content_ms: Quantiles,
    /// Time to the end of the answer, milliseconds.
    pub total_ms: Quantiles,
    /// Wait for a slot, milliseconds.
    pub queue_ms: Quantiles,
    /// By model.
    pub models: BTreeMap<String, ModelBaseline>,
}

/// The middle and the ends of some values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quantiles {
    /// Half are below.
    pub p50: f64,
    /// Nine in ten are below.
    pub p90: f64,
    /// All but one in a hundred are below.
    pub p99: f64,
}

impl Quantiles {
    fn of(mut values: Vec<f64>) -> Self {
        let mut at = |share| quantile(&mut values, share);
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99) }
    }
}

/// The traffic of one model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelBaseline {
    /// Requests.
    pub requests: u64,
    /// Share of them that were turned away or waited too long.
    pub refused_share: f64,
    /// Time to first content, milliseconds.
    pub first_content_ms: Quantiles,
    /// Wait for a slot, milliseconds.
    pub queue_ms: Quantiles,
    /// Requests in flight at its busiest to the average.
    pub burst: f64,
    /// Share of its slots in use on average; `None` where not all are known.
    pub utilisation: Option<f64>,
    /// The same at its busiest (95 % of the time it is below).
    pub utilisation_p95: Option<f64>,
    /// How even the load of its deployments is while there is any, from 1/n to 1: the middle over time.
    pub jain: f64,
    /// The busiest deployment to the mean, as many times what cannot be helped with so few requests: the middle over time.
    pub imbalance: f64,
    /// How far load swings to and fro between deployments: the autocorrelation of their shares at its peak.
    pub oscillation: f64,
    /// Seconds in which a request waited while a deployment of its model had a free slot.
    pub idle_while_queued_s: f64,
    /// Its deployments.
    pub deployments: BTreeMap<String, DeploymentBaseline>,
}

/// The traffic of one deployment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeploymentBaseline {
    /// Attempts sent to it.
    pub attempts: u64,
    /// Its share of the attempts of its model, from 0 to 1.
    pub share: f64,
    /// Its share by slots or weight, from 0 to 1.
    pub share_intended: f64,
    /// Requests in flight on average.
    pub inflight_mean: f64,
    /// At its busiest.
    pub inflight_max: f64,
    /// Share of its slots in use on average, where they are known.
    pub utilisation: Option<f64>,
    /// Changes of its health an hour, where they are known.
    pub flaps_per_h: Option<f64>,
}

/// A baseline with what is at risk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diagnosis {
    /// The traffic as it is.
    pub baseline: Baseline,
    /// What is at risk, the worst first.
    pub risks: Vec<Risk>,
}

/// Looks at traffic that is over.
///
/// O(n log n) in the requests, beside a grid of one hour of seconds at most: of longer traffic the steps are longer.
pub fn diagnose(traffic: &Traffic<'_>) -> Diagnosis {
    let Traffic { served, known, counted, .. } = *traffic;
    let arrived = served.iter().map(|one| one.arrived_s).fold(f64::INFINITY, f64::min);
    let ended = served.iter().map(|one| one.ended_s).fold(f64::NEG_INFINITY, f64::max);
    let (from_s, until_s) = traffic.window_s.unwrap_or((arrived, ended));
    let span_s = if until_s > from_s { until_s - from_s } else { 0.0 };
    let mut by_model: BTreeMap<&str, Vec<&Served>> = BTreeMap::new();
    for one in served {
        by_model.entry(&one.model).or_default().push(one);
    }
    let models = by_model.into_iter().map(|(name, served)| {
        let of_model = known.iter().filter(|((model, _), _)| model == name);
        let known: BTreeMap<&str, Known> = of_model.map(|((_, one), known)| (one.as_str(), *known)).collect();
        let counted: Vec<&Counted> = counted.iter().filter(|one| one.model == name).collect();
        (name.to_owned(), model(&served, &known, &counted, (from_s, span_s)))
    });
    let baseline = Baseline {
        span_s,
        requests: served.len() as u64,
        answered_per_s: share_of(served, End::Answered) * served.len() as f64 / span_s.max(1e-9),
        tokens_out_per_s: served.iter().map(|one| one.tokens_out as f64).sum::<f64>() / span_s.max(1e-9),
        refused_share: share_of(served, End::Refused),
        failed_share: share_of(served, End::Failed),
        first_content_ms: first_content(served.iter()),
        total_ms: Quantiles::of(
            served
                .iter()
                .filter(|one| one.end == End::Answered)
                .map(|one| (one.ended_s - one.arrived_s) * 1e3)
                .collect(),
        ),
        queue_ms: Quantiles::of(served.iter().map(|one| one.queued_s * 1e3).collect()),
        models: models.collect(),
    };
    let risks = risk::rate(&baseline);
    Diagnosis { baseline, risks }
}

fn share_of(served: &[Served], end: End) -> f64 {
    served.iter().filter(|one| one.end == end).count() as f64 / served.len().max(1) as f64
}

fn first_content<'a>(served: impl Iterator<Item = &'a Served>) -> Quantiles {
    Quantiles::of(served.filter_map(|one| Some(one.first_content_s? * 1e3)).collect())
}

fn model(
    served: &[&Served],
    known: &BTreeMap<&str, Known>,
    counted: &[&Counted],
    (from_s, span_s): (f64, f64),
) -> ModelBaseline {
    let sent = served.iter().flat_map(|one| &one.attempts);
    let mut attempts: BTreeMap<&str, u64> = known.keys().map(|name| (*name, 0)).collect();
    for one in sent.clone() {
        *attempts.entry(&one.deployment).or_default() += 1;
    }
    let names: Vec<&str> = attempts.keys().copied().collect();
    let slots: Vec<Option<u32>> =
        names.iter().map(|name| known.get(name).and_then(|known| known.slots)).collect();
    let mut loads = Loads::new(names.len(), from_s, span_s);
    let place = |deployment: &str| names.binary_search(&deployment).ok();
    if counted.is_empty() {
        for (at, one) in sent.filter_map(|one| Some((place(&one.deployment)?, one))) {
            loads.add(at, one.from_s, one.until_s);
        }
    } else {
        let counted =
            counted.iter().filter_map(|one| Some((one.at_s, place(&one.deployment)?, one.inflight)));
        loads.count(counted);
    }
    let all_slots: Option<u32> = slots.iter().copied().sum();
    let size = |at: usize| {
        let known = known.get(names[at]).copied().unwrap_or_default();
        f64::from(known.slots.filter(|_| all_slots.is_some()).unwrap_or(known.weight).max(1))
    };
    let size_sum: f64 = (0..names.len()).map(size).sum();
    let attempts_sum: u64 = attempts.values().sum();
    let deployment = |(at, (name, attempts)): (usize, (&&str, &u64))| {
        let inflight_mean = loads.mean(at);
        let one = DeploymentBaseline {
            attempts: *attempts,
            share: *attempts as f64 / attempts_sum.max(1) as f64,
            share_intended: size(at) / size_sum.max(1e-9),
            inflight_mean,
            inflight_max: loads.max(at),
            utilisation: slots[at].map(|slots| inflight_mean / f64::from(slots.max(1))),
            flaps_per_h: known.get(name).and_then(|known| known.flaps_per_h),
        };
        ((*name).to_owned(), one)
    };
    let total = loads.total();
    let mean = total.iter().sum::<f64>() / total.len().max(1) as f64;
    let of_slots = |load: f64| all_slots.map(|slots| load / f64::from(slots.max(1)));
    let peak = total.iter().copied().fold(0.0, f64::max);
    let high = quantile(&mut total.clone(), 0.95);
    let busy: Vec<Vec<f64>> =
        loads.busy().map(|loads| (0..names.len()).map(|at| loads[at] / size(at)).collect()).collect();
    let mut even: Vec<f64> = busy.iter().map(|loads| jain(loads.iter().copied())).collect();
    let mut excess: Vec<f64> = loads.busy().map(|one| excess(one, size_sum, &size)).collect();
    ModelBaseline {
        requests: served.len() as u64,
        refused_share: served.iter().filter(|one| one.end == End::Refused).count() as f64
            / served.len().max(1) as f64,
        first_content_ms: first_content(served.iter().copied()),
        queue_ms: Quantiles::of(served.iter().map(|one| one.queued_s * 1e3).collect()),
        burst: if mean > 0.0 { peak / mean } else { 1.0 },
        utilisation: of_slots(mean),
        utilisation_p95: of_slots(high),
        jain: if even.is_empty() { 1.0 } else { quantile(&mut even, 0.5) },
        imbalance: if excess.is_empty() { 1.0 } else { quantile(&mut excess, 0.5) },
        oscillation: loads.oscillation(),
        idle_while_queued_s: loads.idle_while_queued(served, &slots),
        deployments: attempts.iter().enumerate().map(deployment).collect(),
    }
}

/// How many times as busy the busiest is than it would have to be: with five requests on four deployments one must have two.
fn excess(loads: &[f64], size_sum: f64, size: &impl Fn(usize) -> f64) -> f64 {
    let sum: f64 = loads.iter().sum();
    let share = |at: usize| sum * size(at) / size_sum;
    let best = (0..loads.len())
        .map(|at| share(at).max(1.0_f64.min(sum)).ceil() / share(at))
        .fold(f64::INFINITY, f64::min);
    let peak = peak_to_mean((0..loads.len()).map(|at| loads[at] / size(at)));
    (peak / best.max(1.0)).max(1.0)
}

#[cfg(test)]
mod tests;
