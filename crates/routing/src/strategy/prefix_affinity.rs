//! Sends a prompt to where the longest beginning of it is likely to be cached, as long as that one is not loaded beyond
//! its share; else to where the fewest tokens are to go.
//!
//! What is cached where is known from what was sent there (see `prefix.rs`): hashes of beginnings, salted with the
//! tenant, without a limit of depth. Affinity without a bound gives everything back that it gains, for whatever all
//! prompts have in common draws them all to one place; so a deployment is passed over while its tokens to go would
//! exceed `bound` times its share of all of them (consistent hashing with bounded loads, on tokens). An idle one is never
//! passed over. Knows no speeds: with an engine's own times to go by `predicted_latency` does better. O(n), no
//! allocation.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Reads, Strategy, View, consistent_hash, least_tokens};
use crate::decision::Why;
use crate::facts::Facts;
use crate::rng::Rng;

/// Options of `prefix_affinity`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// How far above its share a deployment may be loaded before another is used: 1.0 to 100. Default: 1.25.
    #[serde(default = "consistent_hash::default_bound", deserialize_with = "consistent_hash::bound")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub bound: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { bound: consistent_hash::default_bound() }
    }
}

/// The definition.
pub const DEF: Def = Def::of::<PrefixAffinity>(
    "prefix_affinity",
    &["prefix"],
    "Where the longest beginning of the prompt is likely to be cached, unless that one is loaded beyond `bound`; else the fewest tokens to go.",
);

/// Picks by what is cached.
#[derive(Debug, Clone)]
pub struct PrefixAffinity {
    params: Params,
}

impl FromParams for PrefixAffinity {
    type Params = Params;
    const READS: Reads = Reads { prefix: true, ..Reads::NOTHING };

    fn from_params(params: Params, _: &mut Rng) -> Self {
        Self { params }
    }
}

impl Strategy for PrefixAffinity {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
        let out = cx.tokens_out;
        let size = |view: &View| f64::from(view.slots.unwrap_or(view.weight).max(1));
        let own = f64::from(facts.tokens_in_estimate) + out;
        let all: f64 = own + eligible.iter().map(|view| view.tokens_expected as f64).sum::<f64>();
        let share_of_one = self.params.bound * all / eligible.iter().map(size).sum::<f64>();
        let fewest = cx.min_by(eligible, |view| least_tokens::load(view, facts, out));
        cx.one_more = least_tokens::own(&eligible[fewest], facts, out) / size(&eligible[fewest]);
        let mut best: Option<usize> = None;
        for (position, view) in eligible.iter().enumerate().filter(|(_, view)| view.tokens_cached > 0) {
            let own = least_tokens::own(view, facts, out);
            let tokens = (view.tokens_expected as f64 + own) * view.slow * view.penalty;
            if view.inflight > 0 && tokens > share_of_one * size(view) {
                continue;
            }
            let longer = best.is_none_or(|best| {
                let known = eligible[best].tokens_cached;
                view.tokens_cached > known
                    || (view.tokens_cached == known && cx.scores[position] < cx.scores[best])
            });
            if longer {
                best = Some(position);
            }
        }
        match best {
            Some(position) => {
                let tokens_cached = eligible[position].tokens_cached;
                Pick { position, why: Why::LongestPrefix { tokens_cached } }
            }
            None => {
                let tokens = eligible[fewest].tokens_expected;
                Pick { position: fewest, why: Why::FewestTokens { tokens, load: cx.scores[fewest] } }
            }
        }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, pick, views};
    use super::*;

    fn check(name: &str, lines: &[&str], expected: usize) {
        let mut strategy = PrefixAffinity { params: Params::default() };
        for seed in 0..20 {
            let picked = pick(&mut strategy, &mut Rng::seeded(seed), &views(lines), &facts());
            assert_eq!(picked.position, expected, "{name}: {picked:?}");
        }
    }

    #[test]
    fn table() {
        check("the longest", &["cached=40", "cached=80", ""], 1);
        let balanced =
            ["cached=80 inflight=2 expected=900", "inflight=2 expected=800", "inflight=2 expected=800"];
        check("loaded more, but within its bound", &balanced, 0);
        let loaded =
            ["cached=80 inflight=2 expected=5000", "inflight=2 expected=800", "inflight=2 expected=900"];
        check("beyond its bound: the fewest tokens", &loaded, 1);
        let second = ["cached=80 inflight=9 expected=9000", "cached=40 inflight=2 expected=900", ""];
        check("the next longest", &second, 1);
        check("an idle one is never passed over", &["cached=80", "", "", ""], 0);
        check("nobody has it: the fewest tokens", &["expected=100", "expected=10"], 1);
        let alike = ["cached=64 inflight=1 expected=500", "cached=64 inflight=1 expected=400"];
        check("what all have decides nothing", &alike, 1);
    }
}
