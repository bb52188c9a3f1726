//! Requests that wait for a slot. First come, first served among those that could use the same slot; the fleet takes
//! the permit on a waiter's behalf, so that no newcomer can slip in between.

use smallvec::SmallVec;

use super::{Collected, Ended, Fleet, Permit};
use crate::decide::{Evaluation, choose};
use crate::decision::{Decision, Outcome, Why};
use crate::facts::Facts;
use crate::ids::{DeploymentId, ModelId, Ticket};
use crate::rng::Rng;
use crate::time::Now;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) ticket: Ticket,
    pub(crate) facts: Box<Facts>,
    pub(crate) tried: SmallVec<[DeploymentId; 4]>,
}

/// A permit that was taken on a waiter's behalf.
#[derive(Debug)]
pub(crate) struct Grant {
    decision: Decision,
    permit: Permit,
}

impl Clone for Grant {
    fn clone(&self) -> Self {
        Self { decision: self.decision.clone(), permit: self.permit.for_copied_fleet() }
    }
}

impl Grant {
    pub(crate) fn into_parts(self) -> (Decision, Permit) {
        (self.decision, self.permit)
    }
}

impl Fleet {
    /// Puts a request at the end of the queue of its model; gives how many wait before it, or `None` if it is full.
    pub(crate) fn enqueue(&mut self, facts: &Facts, tried: &[DeploymentId]) -> Option<(Ticket, u32)> {
        let ticket = self.next_ticket();
        let model = self.models.get_mut(facts.model)?;
        let ahead = u32::try_from(model.queue.len()).unwrap_or(u32::MAX);
        if ahead >= model.spec.queue.requests_max {
            return None;
        }
        let facts = Box::new(facts.clone());
        model.queue.push_back(Waiter { ticket, facts, tried: SmallVec::from_slice(tried) });
        Some((ticket, ahead))
    }

    /// Takes a request out of the queue. If a slot was granted to it meanwhile, the slot goes to the next.
    pub(crate) fn leave_queue(&mut self, model: ModelId, ticket: Ticket, now: Now, rng: &mut Rng) {
        if let Some(model) = self.models.get_mut(model) {
            model.queue.retain(|waiter| waiter.ticket != ticket);
        }
        if let Collected::Granted(grant) = self.collect(ticket) {
            self.release(grant.permit, Ended::Abandoned, now, rng);
        }
    }

    /// Grants free slots to those who wait, in order. O(1) while nothing is free, which is the usual case under load.
    pub(crate) fn serve_queue(&mut self, model: ModelId, now: Now, rng: &mut Rng) {
        let mut at = 0;
        while self.models.get(model).is_some_and(|model| at < model.queue.len()) && self.has_room(model) {
            let Some(waiter) = self.models.get_mut(model).and_then(|model| model.queue.remove(at)) else {
                return;
            };
            match choose(self, &waiter.facts, &waiter.tried, now, rng) {
                Evaluation::Chosen(mut decision, permit) => {
                    if let Outcome::Chosen(choice) = &mut decision.outcome {
                        choice.why = Why::SlotFreed;
                    }
                    self.wake(waiter.ticket, Some(Grant { decision, permit }));
                }
                Evaluation::Full(_) => {
                    // It waits on, in its place; somebody behind it may be able to use what is free.
                    if let Some(model) = self.models.get_mut(model) {
                        model.queue.insert(at, waiter);
                    }
                    at += 1;
                }
                // It will ask again, and be told why.
                Evaluation::Rejected(_) => self.wake(waiter.ticket, None),
            }
        }
    }

    /// Whether any deployment of the model has a free slot.
    fn has_room(&self, model: ModelId) -> bool {
        self.models.get(model).is_some_and(|model| {
            model
                .deployments
                .iter()
                .filter_map(|id| self.deployments.get(*id))
                .any(|deployment| !deployment.is_full())
        })
    }
}
