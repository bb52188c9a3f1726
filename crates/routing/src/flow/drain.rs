//! The end of a drain: what a drained deployment has not finished by then goes elsewhere if it may, and is ended if not.

use super::{Flow, failure};
use crate::failure::{FailureClass, Processed};
use crate::fleet::Fleet;
use crate::flow::Action;
use crate::rng::Rng;
use crate::time::Now;

impl Flow {
    /// Some drain is over: a request that is in flight where that is so may not go on.
    pub(super) fn on_recalled(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        let Some(attempt) = self.attempts.last().filter(|_| self.permit.is_some()) else {
            return Action::Wait;
        };
        let recalled =
            fleet.deployments.get(attempt.deployment).is_some_and(|deployment| deployment.is_recalled(now));
        if !recalled {
            return Action::Wait;
        }
        let processed = if attempt.connected.is_some() { Processed::Maybe } else { Processed::No };
        self.on_failed(fleet, now, rng, failure(FailureClass::Drained, processed))
    }
}
