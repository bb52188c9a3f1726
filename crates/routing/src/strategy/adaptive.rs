//! Chooses the rule by what is known of the eligible deployments, and says in the decision which it was.
//!
//! | the request or the eligible deployments | rule | why |
//! |---|---|---|
//! | embeddings | `latency` | all alike in size, so that times tell of the deployment |
//! | own engines whose times are known | `predicted_latency` | queue, cache and speed in one figure |
//! | own engines about which too little is known | `prefix_affinity` | the fewest tokens, or what is cached within its bound |
//! | any paid API among them | two draws | what others send there is not seen: in flight, failures and what is left of the quota; a prompt that is cached there counts half |
//!
//! Own engines are those whose requests cost nothing (`free`). O(n), no allocation.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Strategy, View, latency, predicted_latency, prefix_affinity};
use crate::decision::Why;
use crate::facts::Facts;
use crate::rng::Rng;

/// Options of `adaptive`: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// The definition.
pub const DEF: Def = Def::of::<Adaptive>(
    "adaptive",
    &["auto"],
    "The rule that fits what is known: `latency` for embeddings, `predicted_latency` or `prefix_affinity` for own engines, two draws by load, failures and quota for paid APIs.",
);

/// Picks by the rule that fits.
#[derive(Debug, Clone)]
pub struct Adaptive {
    latency: latency::Latency,
    predicted: predicted_latency::PredictedLatency,
    affinity: prefix_affinity::PrefixAffinity,
}

impl FromParams for Adaptive {
    type Params = Params;

    fn from_params(_: Params, rng: &mut Rng) -> Self {
        Self {
            latency: latency::Latency,
            predicted: FromParams::from_params(predicted_latency::Params::default(), rng),
            affinity: FromParams::from_params(prefix_affinity::Params::default(), rng),
        }
    }
}

/// Requests that a failure right now counts as.
const FAILURE_REQUESTS: f64 = 4.0;
/// The least of a prompt that APIs keep, tokens.
const CACHED_MIN: u32 = 1_024;
/// What is left of a quota counts as no less than this.
const QUOTA_MIN: f64 = 0.05;
/// The name of the rule for paid APIs.
const TWO_DRAWS: &str = "two_draws";

/// Requests in flight with this one, as they weigh at a paid API.
fn load(view: &View, facts: &Facts) -> f64 {
    let size = f64::from(view.slots.unwrap_or(view.weight).max(1));
    let requests = (f64::from(view.inflight) + 1.0) * view.slow + view.failures * FAILURE_REQUESTS;
    let cached = f64::from(view.tokens_cached) / f64::from(facts.tokens_in_estimate.max(1));
    let cheaper = if view.tokens_cached >= CACHED_MIN { 1.0 - 0.5 * cached.min(1.0) } else { 1.0 };
    requests * view.penalty * cheaper / (size * view.quota_left.max(QUOTA_MIN))
}

/// The better of two drawn by weight; one of them is who has the prompt cached, if anybody has.
fn two_draws(cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
    let cached = eligible.iter().enumerate().filter(|(_, view)| view.tokens_cached >= CACHED_MIN);
    let cached = cached.max_by_key(|(_, view)| view.tokens_cached).map(|(position, _)| position);
    let first = cached.unwrap_or_else(|| cx.draw(eligible));
    let mut second = cx.draw(eligible);
    if second == first && eligible.len() > 1 {
        second = (first + 1 + cx.rng.below(eligible.len() - 1)) % eligible.len();
    }
    let (a, b) = (load(&eligible[first], facts), load(&eligible[second], facts));
    (cx.scores[first], cx.scores[second]) = (a, b);
    let (position, score, other) = if b < a { (second, b, a) } else { (first, a, b) };
    let size = eligible[position].slots.unwrap_or(eligible[position].weight).max(1);
    cx.one_more = 1.0 / f64::from(size);
    Pick { position, why: Why::LighterOfTwo { score, other } }
}

impl Strategy for Adaptive {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
        let (used, rule): (_, &mut dyn Strategy) = if facts.needs.is_one_pass() {
            (latency::DEF.name, &mut self.latency)
        } else if eligible.iter().any(|view| !view.free) {
            cx.used = Some(TWO_DRAWS);
            return two_draws(cx, eligible, facts);
        } else if eligible.iter().all(|view| view.predicted.known) {
            (predicted_latency::DEF.name, &mut self.predicted)
        } else {
            (prefix_affinity::DEF.name, &mut self.affinity)
        };
        cx.used = Some(used);
        rule.pick(cx, eligible, facts)
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, used, views};
    use super::*;
    use crate::catalog::Capabilities;

    fn adaptive() -> Adaptive {
        Adaptive::from_params(Params {}, &mut Rng::seeded(0))
    }

    #[test]
    fn it_says_which_rule_it_used() {
        let own = ["free=1 first_ms=10 known=1", "free=1 first_ms=20 known=1"];
        let new = ["free=1 known=1", "free=1"];
        let paid = ["", ""];
        let mixed = ["free=1 known=1", ""];
        let embeds = Facts { needs: Capabilities::EMBEDDINGS, ..facts() };
        for (name, lines, facts, expected) in [
            ("own engines", &own, facts(), "predicted_latency"),
            ("one of them is new", &new, facts(), "prefix_affinity"),
            ("paid", &paid, facts(), "two_draws"),
            ("one of them is paid", &mixed, facts(), "two_draws"),
            ("embeddings", &own, embeds, "latency"),
        ] {
            assert_eq!(used(&mut adaptive(), &views(lines), &facts), Some(expected), "{name}");
        }
    }

    #[test]
    fn paid_apis_are_drawn_by_load_failures_quota_and_cache() {
        let share = |lines: &[&str]| {
            let picked = super::super::testing::counts(&mut adaptive(), &views(lines), 400);
            picked[0]
        };
        assert!((150..250).contains(&share(&["", ""])), "alike");
        assert_eq!(share(&["inflight=3", ""]), 0, "loaded");
        assert_eq!(share(&["failures=1", "inflight=2"]), 0, "failed just now");
        assert_eq!(share(&["quota=0.1", "inflight=2"]), 0, "a tenth of its quota left");
        let long = Facts { tokens_in_estimate: 4_000, ..facts() };
        let cached = views(&["inflight=3 cached=4000", "inflight=2", "inflight=2", "inflight=2"]);
        let picked = super::super::testing::pick(&mut adaptive(), &mut Rng::seeded(1), &cached, &long);
        assert_eq!(picked.position, 0, "it has the prompt cached");
    }
}
