//! Picks the eligible deployment with the fewest tokens to go: prompts that are not cached, and answers as long as usual.
//!
//! Requests hide how much work they are: of two deployments with three requests each, one may have ten times the tokens.
//! Answers are taken to be as long as those before (by tenant; never longer than asked for). Per slot, or per weight
//! where slots are not known. Failures, slowness and the uptime penalty count as in `least_busy`. Ties at random. O(n).

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Reads, Strategy, View};
use crate::decision::Why;
use crate::facts::Facts;
use crate::rng::Rng;

/// Options of `least_tokens`: none.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// The definition.
pub const DEF: Def = Def::of::<LeastTokens>(
    "least_tokens",
    &[],
    "The fewest tokens to go per slot, or per weight: prompt tokens that are not cached and the usual output.",
);

/// Picks by tokens to go.
#[derive(Debug, Clone)]
pub struct LeastTokens;

impl FromParams for LeastTokens {
    type Params = Params;
    const READS: Reads = Reads { prefix: true, ..Reads::NOTHING };

    fn from_params(_: Params, _: &mut Rng) -> Self {
        Self
    }
}

/// Tokens that a failure right now counts as.
const FAILURE_TOKENS: f64 = 4_000.0;

/// Tokens that the request itself adds at a deployment.
pub(super) fn own(view: &View, facts: &Facts, tokens_out: f64) -> f64 {
    f64::from(facts.tokens_in_estimate.saturating_sub(view.tokens_cached)) + tokens_out
}

/// Tokens to go with this request, as they weigh.
pub(super) fn load(view: &View, facts: &Facts, tokens_out: f64) -> f64 {
    let size = f64::from(view.slots.unwrap_or(view.weight).max(1));
    let tokens = view.tokens_expected as f64 + own(view, facts, tokens_out);
    (tokens * view.slow + view.failures * FAILURE_TOKENS) * view.penalty / size
}

impl Strategy for LeastTokens {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
        let out = cx.tokens_out;
        let position = cx.min_by(eligible, |view| load(view, facts, out));
        let picked = &eligible[position];
        cx.one_more = own(picked, facts, out) / f64::from(picked.slots.unwrap_or(picked.weight).max(1));
        let tokens = picked.tokens_expected;
        Pick { position, why: Why::FewestTokens { tokens, load: cx.scores[position] } }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counts, views};
    use super::*;

    fn check(name: &str, lines: &[&str], expected: usize) {
        let picked = counts(&mut LeastTokens, &views(lines), 20);
        assert_eq!(picked[expected], 20, "{name}: {picked:?}");
    }

    #[test]
    fn table() {
        check(
            "fewer tokens, though more requests",
            &["inflight=1 expected=9000", "inflight=5 expected=900"],
            1,
        );
        check("per slot", &["expected=2000 slots=2", "expected=3000 slots=8"], 1);
        check("per weight without slots", &["expected=3000 weight=1", "expected=4000 weight=4"], 1);
        check("what is cached need not be computed", &["", "cached=90"], 1);
        check("a failure right now is load", &["failures=1", "expected=2000"], 1);
        check("one of half the speed has twice as much to do", &["slow=2 expected=600", "expected=900"], 1);
        check("one that answers half of its requests", &["uptime=0.5 expected=50", "expected=100"], 1);
    }

    #[test]
    fn ties_are_broken_at_random() {
        let picked = counts(&mut LeastTokens, &views(&["", "", "expected=10"]), 3000);
        assert!((1_300..1_700).contains(&picked[0]) && picked[2] == 0, "{picked:?}");
    }
}
