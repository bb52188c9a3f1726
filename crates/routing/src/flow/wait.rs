//! Waiting for a slot: how a request joins the queue, is told of its slot, and gives up.

use super::{Flow, State, failure};
use crate::decision::{Decision, Outcome, Rejection};
use crate::failure::{FailureClass, Processed};
use crate::fleet::{Collected, Ended, Fleet, Told};
use crate::flow::{Action, FlowOutcome, Refusal};
use crate::ids::Ticket;
use crate::limits::QUEUE_LOOK_EVERY;
use crate::rng::Rng;
use crate::time::Now;

impl Flow {
    /// The place in the queue, while it waits.
    pub fn ticket(&self) -> Option<Ticket> {
        match self.state {
            State::Queued { ticket, .. } => Some(ticket),
            State::New
            | State::BackingOff { .. }
            | State::Connecting { .. }
            | State::AwaitingHeaders { .. }
            | State::HoldingHeaders { .. }
            | State::AwaitingContent { .. }
            | State::Relaying
            | State::Over => None,
        }
    }

    pub(super) fn wait(&mut self, fleet: &Fleet, ticket: Ticket, now: Now) {
        let since = *self.queued_since.get_or_insert(now);
        let recheck = self.recheck(fleet, ticket, now);
        self.state = State::Queued { ticket, until: since + self.policy.queue_wait_max, recheck };
    }

    /// When it looks again although nobody told it of a slot: what is left alone for a time may serve before one is
    /// released. Whatever is next may have begun after the wait did, so there is a look now and then in any case.
    fn recheck(&self, fleet: &Fleet, ticket: Ticket, now: Now) -> Now {
        let next = fleet.queue_recheck(self.facts.model, ticket);
        let next = if next > now { next } else { Now::NEVER };
        next.min(now + QUEUE_LOOK_EVERY)
    }

    pub(super) fn on_granted(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        let Some(ticket) = self.ticket() else { return self.on_taken_back(fleet, now, rng) };
        let (decision, permit) = match fleet.collect(ticket) {
            Collected::Waiting => return Action::Wait,
            Collected::Told(Told::AskAgain) => {
                self.leave_queue(now);
                if now >= self.total {
                    return self.fail(failure(FailureClass::TotalTimeout, Processed::No));
                }
                return self.decide(fleet, now, rng, None);
            }
            Collected::Told(Told::TakenBack) => {
                debug_assert!(false, "who waits has no slot to give");
                return Action::Wait;
            }
            Collected::Told(Told::PushedOut(why)) => return self.give_up(fleet, now, rng, why),
            Collected::Told(Told::Granted(grant)) => grant.into_parts(),
        };
        self.leave_queue(now);
        if now >= self.total {
            fleet.release(permit, Ended::Unused, now, rng);
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
        let action = self.on_granted(fleet, now, rng);
        if self.ticket() != Some(ticket) {
            return action;
        }
        if now < until && now < self.total {
            // What was waited for came and did not help.
            self.state = State::Queued { ticket, until, recheck: self.recheck(fleet, ticket, now) };
            return Action::Wait;
        }
        fleet.leave_queue(self.facts.model, ticket, now, rng);
        if now >= self.total {
            self.leave_queue(now);
            return self.fail(failure(FailureClass::TotalTimeout, Processed::No));
        }
        self.give_up(fleet, now, rng, Rejection::QueueTimeout)
    }

    /// Ends the wait without a slot.
    fn give_up(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng, why: Rejection) -> Action {
        self.leave_queue(now);
        let mut decision = self.decisions.last().cloned().unwrap_or_else(|| Decision::none(now));
        decision.at = now;
        let retry_after = fleet.retry_after(self.facts.model);
        decision.outcome = Outcome::Rejected { why, retry_after: Some(retry_after) };
        if self.may_fall_back(why, now) {
            return self.fall_back(fleet, now, rng, Some((decision, why)), None);
        }
        self.decisions.push(decision.clone());
        let (decision, why) = self.told_refusal(&decision, why);
        self.state = State::Over;
        self.outcome = Some(FlowOutcome::Rejected { why });
        Action::Reject(Refusal::NotRouted(Box::new(decision), why))
    }
}
