//! How long answers usually are, by tenant: nobody knows the length of one before it ends.
//!
//! A rough figure is enough to place requests by: with the true length of each instead of one constant for all, nothing
//! changed in simulations. So it is a moving average per tenant and model, and a constant until there is one.

use crate::facts::Facts;
use crate::limits::{OUTPUTS_MAX, TOKENS_OUT_ASSUMED};
use crate::table::{Recent, Table};

/// How fast it follows.
const FOLLOW: f64 = 1.0 / 32.0;
/// Answers before it is believed.
const ANSWERS_MIN: u32 = 3;

/// Usual lengths of answers of one model. Bounded; the tenant that asked least lately is forgotten first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outputs {
    table: Table,
    recent: Recent<Usual>,
    all: Usual,
}

#[derive(Debug, Clone, Copy, Default)]
struct Usual {
    tenant: u64,
    tokens: f64,
    answers: u32,
}

impl Usual {
    fn note(&mut self, tokens: f64) {
        self.answers = self.answers.saturating_add(1);
        self.tokens += (tokens - self.tokens) * FOLLOW.max(1.0 / f64::from(self.answers));
    }
}

impl Outputs {
    /// Tokens that the answer to a request is likely to have.
    pub(crate) fn of(&self, facts: &Facts) -> u64 {
        let own = self.table.get(facts.tenant_hash).and_then(|place| self.recent.get(place));
        let known = own.into_iter().chain([&self.all]).find(|usual| usual.answers >= ANSWERS_MIN);
        let usual = known.map_or(TOKENS_OUT_ASSUMED, |usual| usual.tokens as u64);
        facts.tokens_out_max.map_or(usual, |max| usual.min(u64::from(max)))
    }

    /// An answer to a tenant had so many.
    pub(crate) fn note(&mut self, tenant: u64, tokens: u64) {
        let tokens = tokens.min(u64::from(u32::MAX)) as f64;
        self.all.note(tokens);
        let place = self.table.get(tenant).unwrap_or_else(|| {
            if self.recent.len() >= OUTPUTS_MAX
                && let Some((place, oldest)) = self.recent.oldest()
            {
                self.recent.remove(place);
                self.table.remove(oldest.tenant);
            }
            let place = self.recent.push(Usual { tenant, ..Usual::default() });
            self.table.insert(tenant, place);
            place
        });
        self.recent.touch(place);
        if let Some(usual) = self.recent.get_mut(place) {
            usual.note(tokens);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::facts;

    #[test]
    fn answers_are_as_long_as_those_before() {
        let mut outputs = Outputs::default();
        let asked = |tenant_hash, tokens_out_max| Facts { tokens_out_max, tenant_hash, ..facts() };
        assert_eq!(outputs.of(&asked(1, None)), TOKENS_OUT_ASSUMED, "nothing is known");
        for _ in 0..200 {
            outputs.note(1, 40);
            outputs.note(2, 400);
        }
        assert_eq!(outputs.of(&asked(1, None)), 40);
        assert_eq!(outputs.of(&asked(2, None)), 400);
        assert_eq!(outputs.of(&asked(2, Some(100))), 100, "never more than was asked for");
        assert!(
            (150..300).contains(&outputs.of(&asked(3, None))),
            "one that is not known is like the others"
        );
    }

    #[test]
    fn tenants_are_bounded() {
        let mut outputs = Outputs::default();
        for tenant in 0..3 * OUTPUTS_MAX as u64 {
            outputs.note(tenant, 10);
        }
        assert_eq!(outputs.recent.len(), OUTPUTS_MAX);
    }
}
