//! Waiting for a slot: how a request joins the queue, is told of its slot, and gives up.

use super::{Flow, State, failure};
use crate::decision::{Decision, Outcome, Rejection};
use crate::failure::{FailureClass, Processed};
use crate::fleet::{Collected, Ended, Fleet};
use crate::flow::{Action, FlowOutcome, Refusal};
use crate::ids::Ticket;
use crate::limits::RETRY_AFTER_MIN;
use crate::rng::Rng;
use crate::time::Now;

impl Flow {
    pub(super) fn wait(&mut self, ticket: Ticket, decision: &Decision, now: Now) {
        let since = *self.queued_since.get_or_insert(now);
        // What is left alone for a time may serve before a slot is released.
        let returns = decision.candidates.iter().filter_map(|candidate| candidate.why_not?.returns_at());
        let recheck = returns.filter(|at| *at > now).min().unwrap_or(Now::NEVER);
        self.state = State::Queued { ticket, until: since + self.policy.queue_wait_max, recheck };
    }

    pub(super) fn on_granted(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        let Some(ticket) = self.ticket() else { return Action::Wait };
        let (decision, permit) = match fleet.collect(ticket) {
            Collected::Waiting => return Action::Wait,
            Collected::AskAgain => {
                self.leave_queue(now);
                return self.decide(fleet, now, rng, None);
            }
            Collected::Granted(grant) => grant.into_parts(),
        };
        self.leave_queue(now);
        if now >= self.total {
            fleet.release(permit, Ended::Abandoned, now, rng);
            return self.fail(failure(FailureClass::TotalTimeout, Processed::No));
        }
        self.follow(fleet, now, (decision, Some(permit)), None, rng)
    }

    pub(super) fn leave_queue(&mut self, now: Now) {
        if let Some(since) = self.queued_since.take() {
            self.queue_wait += now - since;
        }
    }

    pub(super) fn on_queue_timer(
        &mut self,
        fleet: &mut Fleet,
        now: Now,
        rng: &mut Rng,
        ticket: Ticket,
        until: Now,
    ) -> Action {
        fleet.serve_queue(self.facts.model, now, rng);
        if let action @ (Action::Forward(_) | Action::Reject(_)) = self.on_granted(fleet, now, rng) {
            return action;
        }
        if now < until && now < self.total {
            // What was waited for came and did not help; the next look is at the next release, or at the end.
            self.state = State::Queued { ticket, until, recheck: Now::NEVER };
            return Action::Wait;
        }
        fleet.leave_queue(self.facts.model, ticket, now, rng);
        self.leave_queue(now);
        if now >= self.total {
            return self.fail(failure(FailureClass::TotalTimeout, Processed::No));
        }
        let why = Rejection::QueueTimeout;
        let mut decision = self.decisions.last().cloned().unwrap_or_else(|| Decision::none(now));
        decision.at = now;
        decision.outcome = Outcome::Rejected { why, retry_after: Some(RETRY_AFTER_MIN) };
        if self.may_fall_back(why, now) {
            return self.fall_back(fleet, now, rng, Some((decision, why)), None);
        }
        self.decisions.push(decision.clone());
        let (decision, why) = self.told_refusal(&decision, why);
        self.state = State::Over;
        self.outcome = Some(FlowOutcome::Rejected { why });
        Action::Reject(Refusal::NotRouted(decision, why))
    }
}
