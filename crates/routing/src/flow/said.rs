//! What providers say of themselves beside their answers: kept with the attempt, and told to the fleet with the next step.

use super::Flow;
use crate::fleet::Fleet;
use crate::said::Said;
use crate::time::Now;

impl Flow {
    /// The provider of the attempt under way, or of its hedge, said this. To be told before the input that it came with.
    pub fn note_said(&mut self, of_hedge: bool, said: Said) {
        let attempt =
            if of_hedge { self.hedge.as_ref().map(|hedge| hedge.attempt) } else { Some(self.current) };
        let Some((at, record)) = attempt.and_then(|at| Some((at, self.attempts.get_mut(at)?))) else {
            return;
        };
        if said.allowances.is_some() || said.model.is_some() {
            self.unheard = Some(at);
        }
        record.said.get_or_insert_default().merge(said);
    }

    /// Tells the fleet what was said of limits and models, while the permit that it is about is there.
    pub(super) fn tell_fleet(&mut self, fleet: &mut Fleet, now: Now) {
        let Some(at) = self.unheard.take() else { return };
        let permit = match &self.hedge {
            Some(hedge) if hedge.attempt == at => Some(&hedge.permit),
            Some(_) | None => self.permit.as_ref().filter(|_| at == self.current),
        };
        let said = self.attempts.get(at).and_then(|record| record.said.as_ref());
        if let (Some(permit), Some(said)) = (permit, said) {
            if let Some(allowances) = &said.allowances {
                fleet.note_allowances(permit, allowances, now);
            }
            if let Some(model) = &said.model {
                fleet.note_model(permit, model);
            }
        }
    }
}
