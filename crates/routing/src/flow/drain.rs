//! The end of a drain: what a drained deployment has not finished by then goes elsewhere if it may, and is ended if not.

use super::{Flow, failure};
use crate::failure::{FailureClass, Processed};
use crate::fleet::Fleet;
use crate::flow::{Action, AttemptRecord};
use crate::rng::Rng;
use crate::time::Now;

impl Flow {
    /// Some drain is over: a request that is in flight where that is so may not go on.
    pub(super) fn on_recalled(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        let recalled = |fleet: &Fleet, attempt: &AttemptRecord| {
            fleet.deployments.get(attempt.deployment).is_some_and(|deployment| deployment.is_recalled(now))
        };
        let drained = |attempt: &AttemptRecord| {
            let processed = if attempt.connected.is_some() { Processed::Maybe } else { Processed::No };
            failure(FailureClass::Drained, processed)
        };
        let hedge = self.hedged().filter(|hedge| recalled(fleet, hedge)).map(drained);
        let dropped = hedge.map(|failure| self.on_hedge_failed(fleet, now, rng, failure));
        let failed = self.attempt().filter(|attempt| self.permit.is_some() && recalled(fleet, attempt));
        match failed.map(drained) {
            Some(failure) => self.on_failed(fleet, now, rng, failure),
            None => dropped.unwrap_or(Action::Wait),
        }
    }
}
