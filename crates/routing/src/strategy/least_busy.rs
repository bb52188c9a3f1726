//! Picks the eligible deployment with the fewest requests in flight per slot. Ties are broken at random.
//!
//! Where slots are not known, weight stands for size. With one router this is join-the-shortest-queue; on state shared
//! late by many routers it herds, so use `latency` there. Recent failures count as load, so that a deployment that
//! fails fast does not look idle, and all of it counts more the fewer requests are answered (the uptime penalty). What is
//! proven to be slow counts as so many times its load: for embeddings in full, for latency leads there; for generations
//! the load leads, and slowness hardly more than breaks ties between the idle. O(n), no allocation.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Reads, Strategy, View};
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
    const READS: Reads = Reads::NOTHING;

    fn from_params(_: Params, _: &mut Rng) -> Self {
        Self
    }
}

/// Requests that a failure right now counts as.
const FAILURE_REQUESTS: f64 = 4.0;

/// The part of the request to come that is counted where deployments are slow, of an embedding and of a generation.
const OWN_EMBEDDING: f64 = 1.0;
const OWN_GENERATION: f64 = 0.1;

/// Requests in flight per slot, as they weigh. `own` is the part that the request to come counts as.
fn load(view: &View, own: f64) -> f64 {
    let size = f64::from(view.slots.unwrap_or(view.weight).max(1));
    let inflight = f64::from(view.inflight);
    let busy = inflight + (inflight + own) * (view.slow - 1.0);
    (busy + view.failures * FAILURE_REQUESTS) * view.penalty / size
}

impl Strategy for LeastBusy {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
        let embeds = facts.needs.is_one_pass();
        let own = if embeds { OWN_EMBEDDING } else { OWN_GENERATION };
        let position = cx.min_by(eligible, |view| load(view, own));
        let picked = &eligible[position];
        cx.one_more = 1.0 / f64::from(picked.slots.unwrap_or(picked.weight).max(1));
        let inflight = picked.inflight;
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
    use crate::catalog::Capabilities;

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
        check("f1: what fails counts more", &["inflight=2 uptime=0.5", "inflight=12"], 1);
        check("slow counts as so many times its load", &["inflight=2 slow=2", "inflight=3"], 1);
        check("slow, and all the same less busy", &["inflight=2 slow=2", "inflight=5"], 0);
        check("slow and idle", &["slow=2", ""], 1);
    }

    #[test]
    fn the_uptime_penalty_is_that_of_the_published_score() {
        let of = |line: &str| load(&views(&[line])[0], OWN_GENERATION);
        assert!((of("inflight=2 uptime=0.5") / of("inflight=2") - 6.61).abs() < 0.01);
        assert!((of("inflight=2 uptime=0.95") - 2.0).abs() < 1e-9, "nothing down to 95 %");
        assert!(of("uptime=0.1").abs() < 1e-9, "the idle are looked at again, or nobody would see them work");
    }

    #[test]
    fn for_embeddings_latency_leads() {
        let mut facts = super::super::testing::facts();
        let lines = views(&["slow=2.5", "inflight=1"]);
        let pick = |facts: &Facts| {
            super::super::testing::pick(&mut LeastBusy, &mut Rng::seeded(1), &lines, facts).position
        };
        assert_eq!(pick(&facts), 0, "a generation goes where least is to do");
        facts.needs = Capabilities::EMBEDDINGS;
        assert_eq!(pick(&facts), 1, "an embedding where it is answered first");
    }

    #[test]
    fn ties_are_broken_evenly() {
        let picked = counts(&mut LeastBusy, &views(&["", "", "inflight=1", ""]), 3000);
        assert_eq!(picked[2], 0);
        assert!([0, 1, 3].iter().all(|d| (850..1150).contains(&picked[*d])), "{picked:?}");
    }
}
