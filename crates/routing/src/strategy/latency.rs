//! Draws two deployments by weight and picks the one that is likely to answer first.
//!
//! The score is the recent normalised time to first content (a peak-sensitive average that fades over ten seconds)
//! times the requests in flight plus one. Two draws keep many routers from running to the same deployment (Mitzenmacher,
//! "The Power of Two Choices in Randomized Load Balancing", 2001). Whole-call time is never used: it measures the
//! request more than the deployment. Errors raise the score by the uptime penalty, and a failure counts as five seconds,
//! or as what the provider asked for. Whoever is slow shows that by its times alone. O(1) beyond the draw, which is O(n).

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Reads, Strategy, View};
use crate::decision::Why;
use crate::facts::Facts;
use crate::rng::Rng;
use crate::time::Now;

/// Options of `latency`: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// The definition.
pub const DEF: Def = Def::of::<Latency>(
    "latency",
    &["latency_based"],
    "The likely faster of two drawn by weight: peak-sensitive time to first content times requests in flight.",
);

/// Picks the likely faster of two.
#[derive(Debug, Clone)]
pub struct Latency;

impl FromParams for Latency {
    type Params = Params;
    const READS: Reads = Reads { latency: true, ..Reads::NOTHING };

    fn from_params(_: Params, _: &mut Rng) -> Self {
        Self
    }
}

/// What a deployment that nothing is known of is thought to take once a request is on its way there, milliseconds:
/// long enough to let the first answer come before it is sent more.
const UNKNOWN_BUSY_MS: f64 = 5_000.0;

fn score(view: &View, now: Now) -> f64 {
    let pending = f64::from(view.inflight);
    match view.latency.value_ms(now) {
        // Never asked and idle: worth a try.
        None if view.inflight == 0 => 0.0,
        None => UNKNOWN_BUSY_MS * pending,
        Some(ms) => ms.max(0.001) * (pending + 1.0) * view.penalty,
    }
}

impl Strategy for Latency {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
        let first = cx.draw(eligible);
        if eligible.len() == 1 {
            let score = score(&eligible[0], cx.now);
            cx.scores[0] = score;
            return Pick { position: 0, why: Why::OnlyOne };
        }
        let mut second = cx.draw(eligible);
        if second == first {
            // Any other will do; drawing until they differ could take long when one weight dominates.
            second = (first + 1 + cx.rng.below(eligible.len() - 1)) % eligible.len();
        }
        let (a, b) = (score(&eligible[first], cx.now), score(&eligible[second], cx.now));
        cx.scores[first] = a;
        cx.scores[second] = b;
        let (position, score, other) = if b < a { (second, b, a) } else { (first, a, b) };
        Pick { position, why: Why::LowerLatency { score, other } }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counts, views};
    use super::*;

    #[test]
    fn the_faster_is_preferred_and_the_idle_unknown_tried() {
        let picked = counts(&mut Latency, &views(&["latency_ms=100", "latency_ms=300"]), 100);
        assert_eq!(picked, [100, 0]);
        let picked = counts(&mut Latency, &views(&["latency_ms=100 inflight=5", "latency_ms=300"]), 100);
        assert_eq!(picked, [0, 100], "requests in flight count");
        let picked = counts(&mut Latency, &views(&["latency_ms=100", ""]), 100);
        assert_eq!(picked, [0, 100], "nothing is known of it and it is idle");
        let picked = counts(&mut Latency, &views(&["latency_ms=100", "inflight=1"]), 100);
        assert_eq!(picked, [100, 0], "one is on its way there already");
    }

    #[test]
    fn f1_errors_raise_the_score_by_the_uptime_penalty() {
        let score = |line| score(&views(&[line])[0], Now::ZERO);
        let (whole, half) =
            (score("latency_ms=100 inflight=1"), score("latency_ms=100 inflight=1 uptime=0.5"));
        assert!((whole - 200.0).abs() < 1e-9 && (half / whole - 6.61).abs() < 0.01, "{whole} {half}");
        assert!((score("latency_ms=100 uptime=0.95") - 100.0).abs() < 1e-9, "nothing down to 95 %");
        let picked = counts(&mut Latency, &views(&["latency_ms=5 uptime=0.3", "latency_ms=50"]), 100);
        assert_eq!(picked, [0, 100], "fast, but it fails");
    }

    #[test]
    fn the_slowest_of_three_gets_nothing_and_the_others_share() {
        let picked =
            counts(&mut Latency, &views(&["latency_ms=100", "latency_ms=110", "latency_ms=900"]), 3000);
        assert_eq!(picked[2], 0, "it loses every pair");
        assert!(picked[1] > 500, "the second wins against the third: {picked:?}");
    }
}
