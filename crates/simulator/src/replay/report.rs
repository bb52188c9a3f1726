//! What a replay found: one tree, which is the JSON twin of its report.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fit::Fitted;
use crate::lab::{Goodput, Results, Spread};
use crate::trace::BadLines;

/// What would have happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// The command that gives it again.
    pub command: String,
    /// The log.
    pub log: Source,
    /// The configuration it was played with, and the one before, if it was named.
    pub told: Told,
    /// Decisions of the log beside those of the new configuration, with the first seed.
    pub decisions: Agreement,
    /// Requests that were not compared.
    pub not_compared: NotCompared,
    /// How much of it is chance.
    pub chance: Chance,
    /// Where requests went that the log has at a deployment, with the first seed.
    pub moved: Vec<Moved>,
    /// By which rules they were decided, with the first seed.
    pub rules: Vec<Rules>,
    /// Requests that went elsewhere, the largest change of the time to their first token first; 200 at most.
    pub differences: Vec<Difference>,
    /// What came of it: as recorded, then simulated.
    pub effect: Vec<Effect>,
    /// What is to be known when this is read.
    pub notes: Vec<String>,
    /// The runs, as of any experiment of the laboratory.
    pub results: Results,
}

/// A decision log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    /// What it is called.
    pub name: String,
    /// Requests in it that can be played.
    pub requests: u64,
    /// When the first came, milliseconds since the Unix epoch.
    pub from_unix_ms: u64,
    /// Time from the first request to the last, seconds.
    pub span_s: f64,
    /// Lines that are no records.
    pub bad_lines: BadLines,
    /// Records that are not played, by why.
    pub left_out: BTreeMap<String, u64>,
    /// Attempts that failed.
    pub attempts_failed: u64,
}

/// What was played.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// The new configuration.
    pub new: String,
    /// The one before.
    pub was: Option<String>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// How fast engines were taken to be, where that was found in the log.
    pub fitted: Option<Fitted>,
}

/// Decisions beside each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Requests of which both are known.
    pub compared: u64,
    /// Of those, that went to the same deployment.
    pub agree: u64,
    /// The others.
    pub differ: u64,
    /// Share that went to the same; 1 of none.
    pub agree_share: f64,
}

/// Requests that were not compared.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NotCompared {
    /// How many.
    pub count: u64,
    /// By why.
    pub why: BTreeMap<String, u64>,
    /// Models that the new configuration does not know, with their requests.
    pub models_unknown: BTreeMap<String, u64>,
    /// Deployments that it does not know, with theirs.
    pub deployments_unknown: BTreeMap<String, u64>,
    /// Of those that the log has refused: how many are sent somewhere now.
    pub refused_then_sent_now: u64,
}

/// How much of a difference is chance.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Chance {
    /// Share of the log's decisions that each seed of the new configuration repeats.
    pub log_and_new: Vec<f64>,
    /// The same for the configuration before: how true the simulation is to the log.
    pub log_and_was: Vec<f64>,
    /// Share of decisions that are the same before and now, by seed: chance is the same on both sides.
    pub was_and_new: Vec<f64>,
    /// Share of decisions that two runs of the new configuration have in common when only their seeds differ, a mean over
    /// pairs of seeds: nothing can be expected to agree more than that. `null` with one seed.
    pub new_and_itself: Option<f64>,
    /// The same for the configuration before.
    pub was_and_itself: Option<f64>,
}

/// Requests of a model that went from one deployment to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Moved {
    /// What they asked for.
    pub model: String,
    /// Where the log has them.
    pub recorded: String,
    /// Where they go now; `null`: they are refused.
    pub new: Option<String>,
    /// How many.
    pub count: u64,
}

/// Requests that were decided by one rule and are by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rules {
    /// The strategy, what it used, and its reason, in the log.
    pub recorded: String,
    /// The same now.
    pub new: String,
    /// How many.
    pub count: u64,
}

/// A request that went elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Its id.
    pub request_id: String,
    /// When it came, milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// What it asked for.
    pub model: String,
    /// Who asked.
    pub tenant: Option<String>,
    /// Its prompt.
    pub tokens_in: u32,
    /// Its answer.
    pub tokens_out: u32,
    /// As the log has it. Its time is recorded.
    pub recorded: Side,
    /// Under the configuration before. Its time is simulated.
    pub was: Option<Side>,
    /// Under the new one. Its time is simulated.
    pub new: Side,
    /// How the deployment of the log stood when the new one was chosen.
    pub instead: Option<String>,
    /// Time to first token: the new less that of the configuration before, or of the log without one.
    pub change_ms: Option<f64>,
}

/// One of the decisions on a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Side {
    /// Where it went first; `null`: nowhere.
    pub deployment: Option<String>,
    /// Why, in the words of the decision record.
    pub why: String,
    /// Time to its first token, milliseconds.
    pub first_token_ms: Option<f64>,
}

/// What came of the traffic. Of runs with several seeds these are means.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Effect {
    /// `recorded`, `was` or `new`.
    pub name: String,
    /// Whether it is simulated; else it is as the log has it.
    pub simulated: bool,
    /// Requests.
    pub requests: u64,
    /// Time to first token, milliseconds.
    pub first_token_ms: Spread,
    /// Time for each token after it, milliseconds.
    pub per_token_ms: Spread,
    /// Time to the last token, milliseconds.
    pub end_to_end_ms: Spread,
    /// Wait for a slot, milliseconds.
    pub queue_ms: Spread,
    /// What was good enough.
    pub goodput: Goodput,
    /// Tokens, in and out, of whole answers, a second.
    pub tokens_per_s: f64,
    /// Share of prompt tokens that were cached, as far as it is known.
    pub tokens_cached_share: f64,
    /// Requests by how they ended.
    pub outcomes: BTreeMap<String, f64>,
    /// Of those, that were not completed.
    pub failed: f64,
    /// Share of time in which engines worked; not known of the log.
    pub utilisation_mean: Option<f64>,
    /// The same of the one that worked most.
    pub utilisation_max: Option<f64>,
    /// How even the tokens in flight were (Jain); not known of the log.
    pub jain: Option<f64>,
    /// Tokens of the deployment with the most over those of an average one.
    pub tokens_max_to_mean: f64,
    /// What all of it cost where prices are known, USD.
    pub cost_usd: Option<f64>,
    /// Each deployment that served.
    pub deployments: Vec<Share>,
}

/// What a deployment had of the traffic.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Share {
    /// What was asked for.
    pub model: String,
    /// Its name.
    pub deployment: String,
    /// Requests it served to their end.
    pub requests: f64,
    /// The same as a share of those of all.
    pub requests_share: f64,
    /// Its share of all tokens.
    pub tokens_share: f64,
    /// What they cost, USD; `null` if its price is not known.
    pub cost_usd: Option<f64>,
    /// Its share of all cost.
    pub cost_share: Option<f64>,
}
