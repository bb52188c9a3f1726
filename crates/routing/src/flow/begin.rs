//! How an attempt begins, and where it is written down.

use super::{Flow, State};
use crate::catalog::Name;
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
        self.attempts.push(AttemptRecord {
            deployment: choice.deployment,
            name: Name::clone(&choice.name),
            provider: Name::clone(&choice.provider),
            credential_name: choice.credential_name.clone(),
            why: choice.why,
            free,
            kind,
            // It is put there right after.
            decision: self.decisions.len(),
            outrun: false,
            taken_back: false,
            started: now,
            connected: None,
            headers: None,
            first_content: None,
            ended: None,
            failure: None,
        });
    }
}
