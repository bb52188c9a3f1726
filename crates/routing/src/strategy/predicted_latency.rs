//! Picks the eligible deployment that is likely to give the first token soonest, and to slow down the fewest.
//!
//! First a gate: while there is a deployment that is not hot (by its engine's own word: much of its KV cache in use, or
//! requests waiting inside) the hot ones are left out, whatever is predicted for them; blends of load and latency are
//! worse than that order (Wydrowski et al., "Load is not what you should balance: Introducing Prequal", NSDI 2024). The
//! gate stands for what cannot be predicted. An engine that says how many tokens or requests it holds needs none: how
//! long a request waits for room there follows (`room.rs`), and keeping it from where its beginning is cached, for room
//! that it does not need, makes more work than it saves. But predictions err, and where there is too much to do they err
//! on one side for long: whose queue is a tenth and ten requests longer than the shortest is left out in any case.
//!
//! Then the time to the first token is predicted from the prompt tokens that are not cached, those of the requests before
//! it, what decodes there ([`crate::predict`], fitted online) and the wait for room. To that comes what the request costs
//! others: its prompt holds up the answers under way, those who come while others are waiting, and its place is not
//! free while an answer takes. Without that all decoding piles up where prompts happen to be short. Of those within `tie`
//! of the best the one with the most cached is taken, and of several the one that the prompt's beginning hashes to, or
//! any. Where all are hot, who comes waits for room in an engine, and the least crowded is taken.
//!
//! A request with an objective goes where it will be kept nine of ten times and costs the least, so that the fastest
//! stay free for those that need them; if none can keep it, to the best. O(n), no allocation.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, KV_HOT, Pick, Strategy, View, WAITING_HOT};
use crate::decision::Why;
use crate::facts::{Facts, Objective};
use crate::predict::DECODE_TOKENS;
use crate::rng::{Rng, rendezvous};

/// Options of `predicted_latency`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Share of its KV cache in use above which a deployment is hot, if its engine does not say how many tokens it holds.
    /// Default: 0.8.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub kv_hot: f32,
    /// Requests waiting in its engine above which a deployment is hot, if its engine says neither how many tokens nor how
    /// many requests it holds. Default: 5.
    pub waiting_hot: u32,
    /// Predictions that differ by no more than this share are alike, and the one with the most cached is taken, or any: 0 to
    /// 1. Default: 0.05.
    #[serde(deserialize_with = "share")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub tie: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { kv_hot: KV_HOT, waiting_hot: WAITING_HOT, tie: 0.05 }
    }
}

fn share<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let share = f64::deserialize(deserializer)?;
    let fits = (0.0..=1.0).contains(&share);
    fits.then_some(share).ok_or_else(|| serde::de::Error::custom("must be from 0 to 1"))
}

/// The definition.
pub const DEF: Def = Def::of::<PredictedLatency>(
    "predicted_latency",
    &["predicted"],
    "Not the hot ones, then the soonest predicted first token of uncached work plus decode interference, fitted online.",
);

/// Picks by prediction.
#[derive(Debug, Clone)]
pub struct PredictedLatency {
    params: Params,
}

impl FromParams for PredictedLatency {
    type Params = Params;

    fn from_params(params: Params, _: &mut Rng) -> Self {
        Self { params }
    }
}

/// What a failure right now counts as, milliseconds.
const FAILURE_MS: f64 = 1_000.0;
/// Share of requests that look at who was not heard of for a while.
const EXPLORED: f64 = 0.01;
/// What is below anybody's notice, milliseconds.
const NOTICED_MS: f64 = 1.0;

/// A queue is too long that is so many times the shortest and so many requests longer.
const LONGER_TIMES: f64 = 1.1;
const LONGER_BY: f64 = 10.0;

/// Requests that wait in its engine, as far as it says.
fn queue(view: &View) -> f64 {
    f64::from(view.engine.waiting.unwrap_or(0))
}

impl PredictedLatency {
    /// By its engine's own word, where the shortest queue of all is so long.
    fn is_hot(&self, view: &View, shortest: f64) -> bool {
        let engine = &view.engine;
        if queue(view) > shortest * LONGER_TIMES + LONGER_BY {
            return true;
        }
        // What is known need not be guessed.
        if engine.kv_capacity_tokens.is_some() || engine.slots.is_some() {
            return engine.kv_capacity_tokens.is_none()
                && engine.kv_used.is_some_and(|used| used > self.params.kv_hot);
        }
        engine.kv_used.is_some_and(|used| used > self.params.kv_hot)
            || engine.waiting.is_some_and(|waiting| waiting > self.params.waiting_hot)
    }
}

fn score(view: &View, come_per_ms: f64) -> f64 {
    let predicted = &view.predicted;
    let own = predicted.first_ms + predicted.interference_ms + view.failures * FAILURE_MS;
    (own + harm(view, come_per_ms)) * view.penalty
}

/// What a request costs others, milliseconds of their time: each answer under way stands still while its prompt is
/// computed, and counts as one of the few tokens that count beside a first one; whoever comes while others wait before
/// it waits for it as well; and its place is taken.
fn harm(view: &View, come_per_ms: f64) -> f64 {
    let predicted = &view.predicted;
    let before_ms = (predicted.first_ms - predicted.own_ms).max(0.0);
    let answers = (f64::from(view.decoding) + foreign(view)) / DECODE_TOKENS;
    predicted.own_ms * (answers + before_ms * come_per_ms) + predicted.full_ms
}

/// Requests there that were not sent from here.
fn foreign(view: &View) -> f64 {
    f64::from(view.engine.foreign.unwrap_or(0))
}

/// Requests that come to each of them in a millisecond: as many as are there, over the time that each stays (Little's law).
fn come_per_ms(eligible: &[View], tokens_out: f64) -> f64 {
    let (mut there, mut stay_ms) = (0.0, 0.0);
    for view in eligible {
        there += f64::from(view.inflight) + foreign(view);
        stay_ms += view.predicted.first_ms + tokens_out * view.predicted.token_ms;
    }
    if stay_ms > 0.0 { there / stay_ms } else { 0.0 }
}

/// How crowded an engine is. Where all are hot, requests wait in engines for room rather than for their prompts to be
/// computed, and who comes waits for as many as are there.
fn crowd(view: &View) -> f64 {
    let size = f64::from(view.slots.unwrap_or(view.weight).max(1));
    (f64::from(view.inflight) + foreign(view) + view.failures) * view.slow * view.penalty / size
}

/// Whether the objective is likely to be kept.
fn keeps(view: &View, objective: &Objective) -> bool {
    let within =
        |ms: f64, most: Option<std::time::Duration>| most.is_none_or(|most| ms <= most.as_secs_f64() * 1e3);
    within(view.predicted.first_high_ms, objective.first_token)
        && within(view.predicted.token_ms, objective.per_token)
}

/// One in a hundred requests looks at who was not heard of for a while: what is avoided for being slow, and is so no more,
/// would never be known otherwise.
fn explored(cx: &mut Cx<'_>, eligible: &[View]) -> Option<usize> {
    let position = eligible.iter().position(|view| view.predicted.stale && !view.is_hot())?;
    (cx.rng.unit() < EXPLORED).then_some(position)
}

impl Strategy for PredictedLatency {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
        let shortest = eligible.iter().map(queue).fold(f64::INFINITY, f64::min);
        let all_hot = eligible.iter().all(|view| self.is_hot(view, shortest));
        let objective = &facts.objective;
        let wanted = *objective != Objective::default();
        let open = |view: &View| all_hot || !self.is_hot(view, shortest);
        let kept = wanted && eligible.iter().any(|view| open(view) && keeps(view, objective));
        if let Some(position) = explored(cx, eligible) {
            return Pick { position, why: Why::Explored };
        }
        let come_per_ms = come_per_ms(eligible, cx.tokens_out);
        let mut best = f64::INFINITY;
        for (view, place) in eligible.iter().zip(&mut *cx.scores) {
            // What it costs all who are there, where the objective is kept anyway.
            let cost = (view.predicted.own_ms + view.predicted.interference_ms) * view.penalty;
            *place = match (all_hot, kept) {
                (true, _) => crowd(view),
                (false, true) => cost,
                (false, false) => score(view, come_per_ms),
            };
            if open(view) && (!kept || keeps(view, objective)) {
                best = best.min(*place);
            }
        }
        let alike = if all_hot { best } else { best * (1.0 + self.params.tie) + NOTICED_MS };
        let tied = |(position, view): &(usize, &View)| {
            open(view) && (!kept || keeps(view, objective)) && cx.scores[*position] <= alike
        };
        let most = eligible.iter().enumerate().filter(tied).map(|(_, view)| view.tokens_cached).max();
        let best =
            eligible.iter().enumerate().filter(tied).filter(|(_, view)| Some(view.tokens_cached) == most);
        let position = match facts.prefix_hash {
            // Other routers draw the same one for the same beginning, without a word between them.
            Some(key) => {
                let far = |view: &View| rendezvous(key, view.name_hash, f64::from(view.weight));
                best.min_by(|(_, a), (_, b)| far(a).total_cmp(&far(b))).map_or(0, |(position, _)| position)
            }
            None => {
                let count = best.clone().count();
                let drawn = if count > 1 { cx.rng.below(count) } else { 0 };
                best.clone().nth(drawn).map_or(0, |(position, _)| position)
            }
        };
        let picked = &eligible[position];
        cx.one_more = picked.predicted.own_ms.max(NOTICED_MS);
        let why = Why::SoonestFirstToken {
            predicted_ms: picked.predicted.first_ms,
            tokens_cached: picked.tokens_cached,
            hot: all_hot,
            objective: wanted.then_some(kept),
        };
        Pick { position, why }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::testing::{facts, pick, views};
    use super::*;

    fn picks(lines: &[&str], facts: &Facts) -> Vec<usize> {
        let mut strategy = PredictedLatency { params: Params::default() };
        let mut counts = vec![0; lines.len()];
        for seed in 0..100 {
            counts[pick(&mut strategy, &mut Rng::seeded(seed), &views(lines), facts).position] += 1;
        }
        counts
    }

    fn check(name: &str, lines: &[&str], expected: usize) {
        assert_eq!(picks(lines, &facts())[expected], 100, "{name}");
    }

    #[test]
    fn table() {
        check("the soonest", &["first_ms=300", "first_ms=200"], 1);
        check("decoding counts", &["first_ms=200 interference_ms=300", "first_ms=300"], 1);
        check("a hot one is left out, however fast", &["first_ms=10 kv_used=0.9", "first_ms=900"], 1);
        check("so is one with a queue", &["first_ms=10 waiting=6", "first_ms=900 waiting=5"], 1);
        let all_hot = ["first_ms=10 kv_used=0.9 inflight=9", "first_ms=900 waiting=9 inflight=8"];
        check("all are hot: the least crowded", &all_hot, 1);
        let told = ["first_ms=200 kv_used=0.9 kv_capacity=10000 waiting=9", "first_ms=900"];
        check("room that is known needs no gate", &told, 0);
        let queues = ["first_ms=200 waiting=30 engine_slots=8", "first_ms=900 waiting=18 engine_slots=8"];
        check("a queue that is much longer than others is left out, whatever is predicted", &queues, 1);
        let queues = ["first_ms=200 waiting=29 engine_slots=8", "first_ms=900 waiting=18 engine_slots=8"];
        check("one that is not is not", &queues, 0);
        check("nor do places", &["first_ms=200 waiting=9 engine_slots=8", "first_ms=900"], 0);
        check(
            "a cache of unknown size does",
            &["first_ms=200 kv_used=0.9 engine_slots=8", "first_ms=900"],
            1,
        );
        check("one that fails fast does not look fast", &["first_ms=10 failures=1", "first_ms=900"], 1);
        check("one that answers half of its requests", &["first_ms=100 uptime=0.5", "first_ms=150"], 1);
    }

    #[test]
    fn what_it_costs_others_counts() {
        let answers = ["first_ms=300 own_ms=250 decoding=40", "first_ms=350 own_ms=250 decoding=2"];
        check("answers under way stand still for a long prompt", &answers, 1);
        let small = ["first_ms=300 own_ms=10 decoding=40", "first_ms=350 own_ms=10 decoding=2"];
        check("and hardly for a short one", &small, 0);
        let others = [
            "first_ms=300 own_ms=250 token_ms=10 foreign=40",
            "first_ms=350 own_ms=250 token_ms=10 foreign=2",
        ];
        check("also those that others sent", &others, 1);
        let queued =
            ["first_ms=700 own_ms=200 inflight=9 token_ms=1", "first_ms=800 own_ms=50 inflight=9 token_ms=1"];
        check("who comes meanwhile waits as well: where more of it is cached", &queued, 1);
        check("the last places are kept free", &["first_ms=300 full_ms=200", "first_ms=400"], 1);
    }

    #[test]
    fn what_is_alike_is_drawn() {
        let picked = picks(&["first_ms=100", "first_ms=104", "first_ms=120"], &facts());
        assert!(picked[0] > 30 && picked[1] > 30 && picked[2] == 0, "{picked:?}");
    }

    #[test]
    fn of_those_alike_the_one_with_the_most_cached_is_taken() {
        assert_eq!(picks(&["first_ms=100 cached=50", "first_ms=104 cached=90", ""], &facts())[2], 100);
        assert_eq!(picks(&["first_ms=100 cached=50", "first_ms=104 cached=90"], &facts()), [0, 100]);
        let keyed = Facts { prefix_hash: Some(7), ..facts() };
        let picked = picks(&["first_ms=100", "first_ms=101", "first_ms=102"], &keyed);
        assert!(picked.contains(&100), "always the same: {picked:?}");
    }

    #[test]
    fn an_objective_is_kept_where_it_costs_least() {
        let objective = Objective { first_token: Some(Duration::from_millis(500)), per_token: None };
        let wanted = Facts { objective, ..facts() };
        let lines = ["first_ms=100 own_ms=90", "first_ms=400 own_ms=20", "first_ms=600 own_ms=5"];
        assert_eq!(picks(&lines, &wanted), [0, 100, 0], "the one with most of it cached");
        let late = ["first_ms=900", "first_ms=700"];
        assert_eq!(picks(&late, &wanted), [0, 100], "none keeps it: the best");
        let per_token = Objective { first_token: None, per_token: Some(Duration::from_millis(20)) };
        let wanted = Facts { objective: per_token, ..facts() };
        let lines = ["first_ms=100 token_ms=30", "first_ms=400 token_ms=10"];
        assert_eq!(picks(&lines, &wanted), [0, 100], "slower to begin, faster after that");
    }
}
