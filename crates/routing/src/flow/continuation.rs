//! What becomes of an answer that breaks off after its client has seen a part of it: the end, or the rest from elsewhere.

use super::{Flow, FlowOutcome, State};
use crate::catalog::Capabilities;
use crate::decide::{Evaluation, choose};
use crate::decision::{Outcome, Rejection};
use crate::failure::Failure;
use crate::fleet::Fleet;
use crate::flow::Action;
use crate::rng::Rng;
use crate::time::Now;

impl Flow {
    /// Says whether what has come so far could be written on by another deployment. Told before a failure is.
    pub fn note_continuable(&mut self, continuable: bool) {
        self.continuable = continuable;
    }

    /// Whether the model lets broken answers be continued elsewhere, so that what came of this one has to be kept.
    pub fn may_continue(&self) -> bool {
        self.policy.retry.continuation && self.facts.stream
    }

    /// The answer broke off. Another deployment goes on with it, if the model opted in and one is free that can; its
    /// client waits for no queue and is sent no error for what another can mend.
    pub(super) fn on_broken(
        &mut self,
        fleet: &mut Fleet,
        now: Now,
        rng: &mut Rng,
        failure: Failure,
    ) -> Action {
        let may = self.may_continue()
            && self.continuable
            && !failure.class.is_about_the_request()
            && self.attempts_here() < self.policy.attempts_max
            && now < self.total;
        if may && let Some(action) = self.go_on_elsewhere(fleet, now, rng) {
            return action;
        }
        self.state = State::Over;
        self.outcome = Some(FlowOutcome::Truncated { failure: failure.clone() });
        Action::Truncate(failure)
    }

    fn go_on_elsewhere(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Option<Action> {
        self.tried.push(self.attempt()?.deployment);
        self.facts.needs = self.facts.needs.with(Capabilities::CONTINUATION);
        // Those who wait come first: time alone may have made room for them.
        fleet.serve_queue(self.facts.model, now, rng);
        let (decision, permit) = match choose(fleet, &self.facts, &self.tried, now, rng) {
            Evaluation::Chosen(decision, permit) => (decision, permit),
            Evaluation::Rejected(decision) => {
                self.decisions.push(decision);
                return None;
            }
            Evaluation::Full(mut decision) => {
                decision.outcome = Outcome::Rejected { why: Rejection::QueueFull, retry_after: None };
                self.decisions.push(decision);
                return None;
            }
        };
        let paid = self.pay(fleet, now);
        match &decision.outcome {
            Outcome::Chosen(choice) if paid => {
                let choice = choice.clone();
                self.begin(fleet, &choice, permit, now);
                self.decisions.push(decision);
                Some(Action::Forward(choice))
            }
            Outcome::Chosen(_) | Outcome::Queued { .. } | Outcome::Rejected { .. } => {
                fleet.release(permit, crate::fleet::Ended::Unused, now, rng);
                None
            }
        }
    }
}
