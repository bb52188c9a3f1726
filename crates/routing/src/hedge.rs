//! When a second attempt may run beside a first whose content is late.
//!
//! A hedge trades a few tokens for the tail of the times to first content (Dean and Barroso, "The Tail at Scale",
//! 2013). Where requests wait because there is too much work it makes things worse, so it is never sent into a busy
//! pool, and what it may cost is bounded on its own beside the budget that it shares with retries.

use std::time::Duration;

use smallvec::SmallVec;

use crate::catalog::HedgeSpec;
use crate::facts::Facts;
use crate::fleet::{Fleet, tokens_of};
use crate::ids::{DeploymentId, ModelId};
use crate::time::Now;

/// Tokens that hedges may add, as a share of the tokens of all requests.
const TOKENS_SHARE: f64 = 0.02;
/// Usual requests whose tokens may be saved up for hedges.
const SAVED_REQUESTS_MAX: f64 = 20.0;
/// Share of the pool's slots in use above which nothing is hedged.
const UTILISED_MAX: f64 = 0.8;

/// How many tokens hedges may still add: a share of what requests bring, saved up to a bound. O(1).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HedgeBudget {
    saved_tokens: f64,
    /// Tokens of a usual request.
    usual_tokens: f64,
}

impl HedgeBudget {
    /// A request of this many tokens arrived.
    pub(crate) fn note_request(&mut self, tokens: u64) {
        let tokens = tokens as f64;
        let follow = if self.usual_tokens == 0.0 { 1.0 } else { 0.01 };
        self.usual_tokens += (tokens - self.usual_tokens) * follow;
        let most = SAVED_REQUESTS_MAX * self.usual_tokens;
        self.saved_tokens = (self.saved_tokens + tokens * TOKENS_SHARE).min(most);
    }

    fn suffices(&self, tokens: u64) -> bool {
        self.saved_tokens >= tokens as f64
    }

    fn withdraw(&mut self, tokens: u64) {
        debug_assert!(self.suffices(tokens), "only what is there is taken");
        self.saved_tokens -= tokens as f64;
    }
}

impl Fleet {
    /// How long a request waits for its first content at this deployment before a hedge is considered; `None` while
    /// too little is known of the deployment.
    pub(crate) fn hedge_after(&self, spec: HedgeSpec, at: DeploymentId, facts: &Facts) -> Option<Duration> {
        let predicted = self.deployments.get(at)?.predicted_first_content(facts.tokens_in_estimate)?;
        Some(predicted.mul_f64(spec.after))
    }

    /// Whether a request may be hedged now: its pool is not busy, and both budgets of the model that pays have its
    /// tokens.
    pub(crate) fn may_hedge(&mut self, facts: &Facts, payer: ModelId, now: Now) -> bool {
        let tokens = tokens_of(facts);
        let idle = self.utilisation(facts) <= UTILISED_MAX;
        self.models.get_mut(payer).is_some_and(|model| {
            idle && model.hedges.suffices(tokens) && model.budget.remaining(tokens, now) > 0
        })
    }

    /// Pays for a hedge that is sent.
    pub(crate) fn pay_hedge(&mut self, facts: &Facts, payer: ModelId, now: Now) {
        let tokens = tokens_of(facts);
        if let Some(model) = self.models.get_mut(payer) {
            model.hedges.withdraw(tokens);
            let paid = model.budget.withdraw(tokens, now);
            debug_assert!(paid, "who may hedge can pay");
        }
    }

    /// Share of what the model's deployments can have in flight that is, from 0 to 1, of those that work and of which it is
    /// known; 0 if it is of none. Deployments of a pool have what the pool has, whoever uses it.
    fn utilisation(&self, facts: &Facts) -> f64 {
        let Some(model) = self.models.get(facts.model) else { return 0.0 };
        let known = model.deployments.iter().filter_map(|id| self.deployments.get(*id));
        let mut pools: SmallVec<[usize; 4]> = SmallVec::new();
        let (taken, slots) = known
            .filter(|deployment| !deployment.is_drained() && !deployment.unhealthy)
            .filter(|deployment| deployment.health(facts.lane).until().is_none())
            .filter_map(|deployment| {
                let pool = deployment.seat.map(|seat| (seat.pool, &self.pools[seat.pool]));
                let Some((at, pool, slots)) = pool.and_then(|(at, pool)| Some((at, pool, pool.spec.slots?)))
                else {
                    return Some((deployment.inflight, deployment.limiter.limit()?));
                };
                let counted = pools.contains(&at);
                pools.push(at);
                (!counted).then_some((pool.used.requests, slots))
            })
            .fold((0, 0), |(taken, all), (inflight, slots)| {
                (taken + u64::from(inflight), all + u64::from(slots))
            });
        if slots == 0 { 0.0 } else { taken as f64 / slots as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hedges_add_at_most_a_fiftieth_of_the_tokens() {
        let mut budget = HedgeBudget::default();
        let (mut all, mut hedged) = (0, 0);
        for number in 0..10_000_u64 {
            let tokens = 100 + number % 900;
            budget.note_request(tokens);
            all += tokens;
            if budget.suffices(tokens) {
                budget.withdraw(tokens);
                hedged += tokens;
            }
        }
        let share = hedged as f64 / all as f64;
        assert!((0.015..=0.02).contains(&share), "{share}");
    }

    #[test]
    fn what_is_saved_in_quiet_times_is_bounded() {
        let mut budget = HedgeBudget::default();
        for _ in 0..1_000_000 {
            budget.note_request(100);
        }
        let sent = (0..).take_while(|_| {
            let suffices = budget.suffices(100);
            if suffices {
                budget.withdraw(100);
            }
            suffices
        });
        assert_eq!(sent.count(), 20);
    }
}
