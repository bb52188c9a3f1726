//! A shadow's copy of a request: sent once or not at all. It takes no place in a queue, is never sent again, and so costs
//! those who wait for an answer neither.

use super::Flow;
use crate::decide::{Evaluation, choose};
use crate::decision::{Decision, Outcome, Rejection};
use crate::facts::Facts;
use crate::fleet::{Fleet, Permit};
use crate::rng::Rng;
use crate::time::Now;

impl Flow {
    /// A copy whose answer nobody waits for.
    pub fn shadow(facts: Facts, now: Now) -> Self {
        Self { shadow: true, ..Self::new(facts, now) }
    }

    /// Decides without queueing; those who wait come first all the same.
    pub(super) fn decide_unqueued(
        &self,
        fleet: &mut Fleet,
        now: Now,
        rng: &mut Rng,
    ) -> (Decision, Option<Permit>) {
        let _ = fleet.arrive(&self.facts, now, rng);
        match choose(fleet, &self.facts, &self.tried, now, rng) {
            Evaluation::Chosen(decision, permit) => (decision, Some(permit)),
            Evaluation::Rejected(decision) => (decision, None),
            Evaluation::Full(mut decision) => {
                decision.outcome = Outcome::Rejected { why: Rejection::QueueFull, retry_after: None };
                (decision, None)
            }
        }
    }
}
