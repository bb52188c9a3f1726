//! Picks the eligible deployment with the fewest requests in flight per slot. Ties are broken at random.
//!
//! Where slots are not known, weight stands for size. With one router this is join-the-shortest-queue; on state shared
//! late by many routers it herds, so use `latency` there. Recent failures count as load, so that a deployment that
//! fails fast does not look idle. O(n), no allocation.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Strategy, View};
use crate::decision::Why;
use crate::facts::Facts;
use crate::rng::Rng;

/// Options of `least_busy`: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// The definition.
pub const DEF: Def = Def::of::<LeastBusy>(
    "least_busy",
    &[],
    "The fewest requests in flight per slot, or per weight; ties at random.",
);

/// Picks the least busy.
#[derive(Debug, Clone)]
pub struct LeastBusy;

impl FromParams for LeastBusy {
    type Params = Params;

    fn from_params(_: Params, _: &mut Rng) -> Self {
        Self
    }
}

/// Requests that a failure right now counts as.
const FAILURE_REQUESTS: f64 = 4.0;

fn load(view: &View) -> f64 {
    let size = f64::from(view.slots.unwrap_or(view.weight).max(1));
    (f64::from(view.inflight) + view.failures * FAILURE_REQUESTS) / size
}

impl Strategy for LeastBusy {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
        let position = cx.min_by(eligible, load);
        let inflight = eligible[position].inflight;
        Pick { position, why: Why::FewestInFlight { inflight, load: cx.scores[position] } }
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
        let picked = counts(&mut LeastBusy, &views(lines), 20);
        assert_eq!(picked[expected], 20, "{name}: {picked:?}");
    }

    #[test]
    fn the_least_busy_is_picked() {
        check("fewest in flight", &["inflight=3", "inflight=1", "inflight=2"], 1);
        check("per slot", &["inflight=3 slots=16", "inflight=1 slots=4"], 0);
        check("per weight where slots are unknown", &["inflight=3 weight=8", "inflight=1"], 0);
        check("f1: a fast failure does not look idle", &["inflight=2", "failures=1"], 0);
    }

    #[test]
    fn ties_are_broken_evenly() {
        let picked = counts(&mut LeastBusy, &views(&["", "", "inflight=1", ""]), 3000);
        assert_eq!(picked[2], 0);
        assert!([0, 1, 3].iter().all(|d| (850..1150).contains(&picked[*d])), "{picked:?}");
    }
}
