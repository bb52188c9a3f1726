//! How an attempt begins, and where it is written down.

use super::{Flow, State};
use crate::decision::Choice;
use crate::fleet::{Fleet, Permit};
use crate::flow::{AttemptKind, AttemptRecord};
use crate::time::Now;

impl Flow {
    /// The place of the attempt that goes on, or of the last, among [`attempts`](Self::attempts).
    pub fn attempt_place(&self) -> usize {
        self.current
    }

    pub(super) fn begin(&mut self, fleet: &mut Fleet, choice: &Choice, mut permit: Permit, now: Now) {
        debug_assert!(self.permit.is_none(), "one attempt at a time");
        debug_assert!(now < self.total, "no attempt begins after the deadline");
        let kind = if self.relayed { AttemptKind::Continuation } else { self.kind_unless_relayed() };
        self.note_attempt(fleet, choice, kind, now);
        self.current = self.attempts.len() - 1;
        self.offer(fleet, &mut permit, self.attempts[self.current].free);
        self.permit = Some(permit);
        self.state = State::Connecting { until: now + self.policy.timeouts.connect };
        self.hedge_at = self.hedge_at(fleet, now);
    }

    pub(super) fn note_attempt(&mut self, fleet: &Fleet, choice: &Choice, kind: AttemptKind, now: Now) {
        let free = fleet.deployments.get(choice.deployment).is_some_and(|deployment| deployment.spec.free);
        // Its decision is put there right after.
        self.attempts.push(AttemptRecord::new(choice, kind, free, self.decisions.len(), now));
    }
}
