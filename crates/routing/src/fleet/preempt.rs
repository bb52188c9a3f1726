//! Batch requests that give their slot to a live one before their first content, if the operator opted in.
//!
//! A live request that finds no slot takes the newest of those whose slot it could use: its flow is told, closes its
//! attempt and waits again. The slot goes the usual way, to whoever is next; a request that is more important than the one
//! that asked for it may get it.

use super::{Fleet, Permit, Told, tokens_of};
use crate::decision::{Candidate, Decision, WhyNot};
use crate::facts::{Facts, Lane};
use crate::ids::{DeploymentId, ModelId};

/// Batch requests that one live request looks at.
const LOOK_MAX: usize = 64;

/// A batch request in flight that may be told to give its slot back.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder {
    deployment: DeploymentId,
    model: ModelId,
    tokens: u64,
}

impl Fleet {
    /// A batch request begins an attempt that it may have to give back: `times` says how often it did already.
    pub(crate) fn make_recallable(&mut self, permit: &mut Permit, facts: &Facts, times: u32) {
        let Some(deployment) = self.deployments.get(permit.deployment) else { return };
        let own = self.models.get(facts.model).and_then(|model| model.spec.preempt);
        let spec = own.or_else(|| self.pools[deployment.seat?.pool].spec.preempt);
        if spec.is_none_or(|spec| times >= spec.times_max) {
            return;
        }
        let holder = Holder { deployment: permit.deployment, model: facts.model, tokens: tokens_of(facts) };
        let ticket = self.next_ticket();
        self.holders.insert(ticket, holder);
        permit.recall = Some(ticket);
    }

    /// It has content, or has ended: its slot is its own.
    pub(super) fn keep(&mut self, permit: &mut Permit) {
        if let Some(ticket) = permit.recall.take() {
            self.holders.remove(&ticket);
            self.told.remove(&ticket);
        }
    }

    /// A live request found no slot: a batch request may have one for it.
    pub(crate) fn preempt(&mut self, facts: &Facts, decision: &Decision) {
        if self.holders.is_empty() || facts.lane == Lane::Batch {
            return;
        }
        // Those elsewhere are passed over at the price of a comparison, so that they hide nobody.
        let near =
            |holder: &Holder| decision.candidates.iter().any(|one| self.is_near(one.deployment, holder));
        let newest = self.holders.iter().rev().filter(|(_, holder)| near(holder)).take(LOOK_MAX);
        let victim = newest
            .filter(|(_, holder)| self.gives_way(holder, facts, decision))
            .map(|(ticket, _)| *ticket)
            .next();
        if let Some(ticket) = victim {
            self.holders.remove(&ticket);
            self.preempted += 1;
            self.wake(ticket, Told::TakenBack);
        }
    }

    /// Whether a batch request is at a deployment, or in the pool of it.
    fn is_near(&self, id: DeploymentId, holder: &Holder) -> bool {
        let pool = |id: DeploymentId| Some(self.deployments.get(id)?.seat?.pool);
        id == holder.deployment || pool(id).is_some_and(|own| pool(holder.deployment) == Some(own))
    }

    /// Whether the slot of a batch request would do for a live one, and is not owed to its own model.
    fn gives_way(&self, holder: &Holder, facts: &Facts, decision: &Decision) -> bool {
        let Some(theirs) = self.deployments.get(holder.deployment) else { return false };
        let suffices = |candidate: &Candidate| {
            let Some(ours) = self.deployments.get(candidate.deployment) else { return false };
            let tokens = tokens_of(facts);
            let same = candidate.deployment == holder.deployment;
            let fits = |used: u64, most: Option<u64>| {
                most.is_none_or(|most| used.saturating_sub(holder.tokens).saturating_add(tokens) <= most)
            };
            let fits_here = !same || fits(ours.tokens_inflight, ours.spec.tokens_inflight_max);
            let pool = ours.seat.filter(|seat| theirs.seat.is_some_and(|their| their.pool == seat.pool));
            let fits_pool = pool.is_none_or(|seat| {
                let pool = &self.pools[seat.pool];
                fits(pool.used.tokens, pool.spec.tokens)
            });
            let of_pool = || {
                let (Some(seat), Some(their)) = (pool, theirs.seat) else { return false };
                let pool = &self.pools[seat.pool];
                let spares = pool.members[their.member].could_spare(holder.tokens);
                match candidate.why_not {
                    // Only what its own model gives back is below its cap again.
                    Some(WhyNot::PoolFull { limit }) if limit.is_cap() => holder.model == facts.model,
                    Some(WhyNot::PoolFull { .. }) => holder.model == facts.model || spares,
                    _ => false,
                }
            };
            let of_deployment = same && candidate.why_not.is_some_and(WhyNot::is_full);
            (of_deployment || of_pool()) && fits_here && fits_pool
        };
        decision.candidates.iter().any(suffices)
    }
}
