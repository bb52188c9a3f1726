//! A batch request that gives its slot to a live one: its attempt ends, it waits again, and nothing of that counts against
//! anybody. Only before anything of an answer came, and only where sending it again costs nothing or the operator opted in.

use std::time::Duration;

use super::upload::Body;
use super::{Flow, State, failure};
use crate::decision::Rejection;
use crate::facts::Lane;
use crate::failure::{FailureClass, Processed};
use crate::fleet::{Collected, Ended, Fleet, Permit, Told};
use crate::flow::Action;
use crate::ids::Ticket;
use crate::rng::Rng;
use crate::time::Now;

/// Time after which one that was taken back and finds the queue full asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Flow {
    /// What the fleet tells it by: its place in the queue while it waits, and what its slot can be taken back by while that
    /// may be.
    pub fn wakes_by(&self) -> Option<Ticket> {
        self.ticket().or_else(|| self.permit.as_ref()?.recall)
    }

    /// An attempt begins that may have to be given back.
    pub(super) fn offer(&self, fleet: &mut Fleet, permit: &mut Permit, free: bool) {
        let batch = self.facts.lane == Lane::Batch;
        if batch && !self.relayed && self.body == Body::Whole && (free || self.policy.retry.unsure) {
            let times = self.attempts.iter().filter(|attempt| attempt.taken_back).count();
            fleet.make_recallable(permit, &self.facts, u32::try_from(times).unwrap_or(u32::MAX));
        }
    }

    /// Whether the attempt before was taken back, so that the next is its continuation and paid for.
    pub(super) fn was_taken_back(&self) -> bool {
        self.attempts.last().is_some_and(|attempt| attempt.taken_back)
    }

    /// It is told something while it does not wait: its slot is wanted back.
    pub(super) fn on_taken_back(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        let Some(ticket) = self.permit.as_ref().and_then(|permit| permit.recall) else { return Action::Wait };
        let Collected::Told(Told::TakenBack) = fleet.collect(ticket) else { return Action::Wait };
        match self.state {
            State::Connecting { .. } | State::AwaitingHeaders { .. } | State::HoldingHeaders { .. } => {}
            // Its client has a part of the answer.
            State::AwaitingContent { .. } | State::Relaying => return Action::Wait,
            State::New | State::Queued { .. } | State::BackingOff { .. } | State::Over => {
                return Action::Wait;
            }
        }
        if let Some(attempt) = self.attempt_mut() {
            attempt.taken_back = true;
        }
        self.drop_hedge(fleet, now, rng);
        self.end_attempt(fleet, now, rng, Ended::Unused);
        if now >= self.total {
            return self.fail(failure(FailureClass::TotalTimeout, Processed::No));
        }
        let action = self.decide(fleet, now, rng, None);
        if matches!(action, Action::Wait) { Action::Yield } else { action }
    }

    /// The queue has no place for one that had a slot and gave it away: it asks again, for as long as it has time.
    pub(super) fn asks_again(&mut self, why: Rejection, now: Now) -> bool {
        let full = matches!(why, Rejection::QueueFull | Rejection::TooLate) && !self.shadow;
        let asks = full && self.was_taken_back() && now + ASK_AGAIN < self.total;
        if asks {
            self.state = State::BackingOff { until: now + ASK_AGAIN };
        }
        asks
    }
}
