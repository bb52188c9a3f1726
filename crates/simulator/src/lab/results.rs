//! What the laboratory found: one tree, which is the JSON twin of every report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::figure::Figure;
use super::setup::Objective;

/// What was compared, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// What it is about, in a sentence.
    pub about: String,
    /// The command that gives it again.
    pub command: String,
    /// The traffic.
    pub traffic: Traffic,
    /// What was good enough.
    pub objective: Objective,
    /// Routers before the same engines.
    pub routers: usize,
    /// How old an engine's report was when it came, milliseconds.
    pub staleness_ms: f64,
    /// Each strategy, in the order they were named; the first is what the others are compared with.
    pub strategies: Vec<Strategy>,
    /// What had to come out, and whether it did.
    pub figures: Vec<Figure>,
}

/// The traffic of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Where it is from.
    pub source: String,
    /// Requests.
    pub requests: u64,
    /// Time from the first to the last, at the rate played, seconds.
    pub span_s: f64,
    /// How many times as fast it was played as it was written down.
    pub rate: f64,
    /// Prompt tokens on average.
    pub tokens_in_mean: f64,
    /// Output tokens on average.
    pub tokens_out_mean: f64,
    /// Share of prompt tokens that a cache without bounds would have.
    pub cacheable_share: f64,
    /// The same for one least-recently-used cache as large as those of all engines together.
    pub cacheable_share_bounded: f64,
}

/// One strategy, with every seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Strategy {
    /// Its name, with its options if any were given.
    pub name: String,
    /// Each seed.
    pub runs: Vec<Run>,
    /// The means over the seeds, as a share of those of the first strategy.
    pub ratios: Ratios,
    /// The largest rate at which so large a share of requests was good enough, by that share in percent; not searched:
    /// empty.
    pub capacity: BTreeMap<String, f64>,
}

/// Means over the seeds, as a share of those of the first strategy. 1 where those are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Ratios {
    /// Mean time to first token.
    pub first_token_mean: f64,
    /// Its 99th percentile.
    pub first_token_p99: f64,
    /// Mean time per token.
    pub per_token_mean: f64,
    /// Mean time to the end.
    pub end_to_end_mean: f64,
}

/// One run: a strategy with a seed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// How requests ended, by name.
    pub outcomes: BTreeMap<String, u64>,
    /// Time from the first arrival to the last end, seconds.
    pub span_s: f64,
    /// Arrival to first token, milliseconds.
    pub first_token_ms: Spread,
    /// First token to last, for each after the first, milliseconds.
    pub per_token_ms: Spread,
    /// Time to first token over that of the same prompt alone on an idle engine of the usual kind.
    pub slowdown: Spread,
    /// Arrival to last token, milliseconds.
    pub end_to_end_ms: Spread,
    /// Wait for a slot in the router, milliseconds.
    pub queue_ms: Spread,
    /// What was good enough.
    pub goodput: Goodput,
    /// Share of prompt tokens that engines had cached.
    pub tokens_cached_share: f64,
    /// Tokens, in and out, that engines completed a second.
    pub tokens_per_s: f64,
    /// How evenly the work was shared out.
    pub balance: Balance,
    /// What moved that had better stayed.
    pub jitter: Jitter,
    /// What moved when deployments left or came, change by change.
    #[serde(default)]
    pub remaps: Vec<Remap>,
    /// Time in which some request waited while an engine that could have served it had nothing to do, seconds.
    pub idle_while_queued_s: f64,
    /// Requests that engines put back because their KV cache was full.
    pub preempted: u64,
    /// What deciding came to.
    pub decisions: Decisions,
    /// How it went over time.
    pub series: Series,
    /// Each tenant, those with the most requests; 100 at most.
    pub tenants: Vec<Tenant>,
    /// What must always hold and did not.
    pub broken: Vec<String>,
}

/// How a quantity is spread over requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// What half keep below.
    pub p50: f64,
    /// What 90 in 100 keep below.
    pub p90: f64,
    /// What 99 in 100 keep below.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of some values, which are put in order.
    pub(crate) fn of(values: &mut [f32]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        values.sort_unstable_by(f32::total_cmp);
        let at = |share: f64| {
            let place = (share * values.len() as f64).ceil() as usize;
            f64::from(values[place.clamp(1, values.len()) - 1])
        };
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        Self { mean, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

/// What was good enough.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Goodput {
    /// Share of all requests that were completed and good enough.
    pub share: f64,
    /// Such requests a second.
    pub per_s: f64,
}

/// How evenly the work was shared out between the engines.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// Share of time in which engines worked, on average.
    pub utilisation_mean: f64,
    /// The same of the one that worked most.
    pub utilisation_max: f64,
    /// Jain's index of tokens in flight, over engines, a mean over time: 1 is even, 1/n all on one.
    pub jain: f64,
    /// Tokens in flight on the most loaded engine over those on an average one, a mean over time.
    pub max_to_mean: f64,
    /// Tokens computed over the run by the one that computed most, over an average one.
    pub work_max_to_mean: f64,
    /// Each engine, in configured order; 1,000 at most.
    pub engines: Vec<EngineRun>,
}

/// One engine over a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EngineRun {
    /// The name of the first deployment it serves.
    pub name: String,
    /// Requests it was sent.
    pub requests: u64,
    /// Tokens it computed: of prompts what was not cached, and of answers all.
    pub tokens: u64,
    /// Share of time in which it worked.
    pub utilisation: f64,
}

/// What moved that had better stayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Jitter {
    /// How much load swings from engine to engine: the highest autocorrelation of an engine's share of the load after it
    /// first fell to nothing, at lags up to 30 s; a mean over engines. Herds swing; what is steady stays below 0.2.
    pub oscillation: f64,
    /// Changes of health of any deployment, an hour.
    pub flaps_per_hour: f64,
    /// Times that a session went elsewhere than the time before, of 1,000 turns of sessions.
    pub affinity_breaks_per_1000: f64,
    /// Share of requests with a prefix seen before that went elsewhere than the one before them with the same.
    pub remap_share: f64,
    /// Share of sessions that went elsewhere after a reload than before it; of several reloads the most.
    pub remap_on_reload: f64,
    /// The same, of those that moved between engines that were there before and after.
    pub remap_needless: f64,
}

/// What became of keys when deployments left or came: the sessions that came again since.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Remap {
    /// Which change: `1` is the first.
    pub name: String,
    /// Engines before and after.
    pub engines: (usize, usize),
    /// The share of keys that has to move: that of what left, or of what came.
    pub share_least: f64,
    /// Sessions that came again before the next change.
    pub sessions: u64,
    /// Share of them that went elsewhere than before.
    pub share: f64,
    /// Share of them that moved between engines that were there before and after. None has to.
    pub share_needless: f64,
}

/// What deciding came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Decisions {
    /// Requests that were decided on at arrival.
    pub count: u64,
    /// Mean time of a decision at arrival, nanoseconds of the machine it ran on; not measured: `null`.
    pub mean_ns: Option<f64>,
}

/// How it went over time. All lists are as long, 600 at most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Time that each point stands for, seconds.
    pub step_s: f64,
    /// Share of time in which engines worked.
    pub utilisation: Vec<f64>,
    /// Jain's index of tokens in flight.
    pub jain: Vec<f64>,
    /// Tokens in flight on the most loaded engine over an average one.
    pub max_to_mean: Vec<f64>,
    /// Requests that wait in routers.
    pub queued: Vec<f64>,
    /// Requests that wait in engines.
    pub engine_queued: Vec<f64>,
    /// Requests in engines.
    pub inflight: Vec<f64>,
    /// Mean time to first token of those whose first token came then, milliseconds.
    pub first_token_ms: Vec<f64>,
}

/// One tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Requests.
    pub requests: u64,
    /// Of those, completed.
    pub completed: u64,
    /// What it was given: uncached prompt tokens and twice the output.
    pub service: u64,
    /// The same as a share of that of all.
    pub share: f64,
    /// Arrival to first token, milliseconds.
    pub first_token_ms: Spread,
    /// What it was given while it had something to ask, over an even share of what all were given then.
    pub over_even_share: f64,
    /// Share of its requests that were good enough.
    pub good_share: f64,
}
