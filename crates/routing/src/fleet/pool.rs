//! The pools of the fleet: who sits in which, what is counted, and who is served when something of one frees.

use smallvec::SmallVec;

use super::deployment::Metered;
use super::{Deployment, Fleet};
use crate::catalog::{Catalog, Name};
use crate::decision::{Decision, WhyNot};
use crate::facts::Lane;
use crate::ids::{DeploymentId, ModelId, Ticket};
use crate::pool::{Held, Member, Pool, Turn, Waits};
use crate::rng::Rng;
use crate::time::Now;

/// The place of a deployment's model in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) pool: usize,
    pub(crate) member: usize,
}

/// One who waits, and is next, and needs more tokens than are free there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hold {
    ticket: Ticket,
    deployment: DeploymentId,
}

impl Fleet {
    /// Makes the pools be what the catalog says, and closes them until those who wait are served. What is in flight is
    /// counted where its deployment is now.
    pub(super) fn apply_pools(&mut self, catalog: &Catalog) {
        for pool in &mut self.pools {
            pool.apply(catalog.pools.get(&pool.name));
        }
        for (name, spec) in &catalog.pools {
            if !self.pools.iter().any(|known| known.name == *name) {
                let mut pool = Pool::new(Name::clone(name));
                pool.apply(Some(spec));
                self.pools.push(pool);
            }
        }
        for deployment in self.deployments.values_mut() {
            let Some(model) = self.models.get(deployment.model).filter(|_| !deployment.removed) else {
                // What is gone but still runs, runs where it was.
                deployment.seat = deployment.seat.filter(|seat| self.pools[seat.pool].configured);
                continue;
            };
            let pool = deployment.spec.pool.as_ref();
            let pool = pool
                .and_then(|name| self.pools.iter().position(|known| known.name == *name && known.configured));
            deployment.seat = pool.map(|pool| Seat { pool, member: self.pools[pool].member(&model.name) });
            if let Some(seat) = deployment.seat {
                self.pools[seat.pool].members[seat.member].model = Some(deployment.model);
            }
        }
        for deployment in self.deployments.values_mut() {
            deployment.held = None;
            deployment.note_metered();
            if let Some(seat) = deployment.seat {
                self.pools[seat.pool].count(seat.member, deployment.inflight, deployment.tokens_inflight);
            }
        }
        self.pools.iter_mut().for_each(Pool::counted);
        self.holds.clear();
    }

    /// Serves those who wait for any pool, after a reload.
    pub(super) fn serve_pools(&mut self, now: Now, rng: &mut Rng) {
        for pool in 0..self.pools.len() {
            self.pools[pool].turn = Turn::Open;
            self.serve_pool(pool, now, rng);
        }
    }

    /// Why a deployment has no room for a request of so many tokens, if it has none.
    #[inline]
    pub(crate) fn no_room(
        &self,
        deployment: &Deployment,
        lane: Lane,
        tokens: u64,
        now: Now,
    ) -> Option<WhyNot> {
        if deployment.is_full(lane) {
            return Some(WhyNot::Full);
        }
        match deployment.metered {
            Metered::BySlots => None,
            Metered::ByMore => self.no_metered_room(deployment, lane, tokens, now),
        }
    }

    #[inline(never)]
    fn no_metered_room(&self, deployment: &Deployment, lane: Lane, tokens: u64, now: Now) -> Option<WhyNot> {
        if let Some(full) = deployment.no_tokens(lane, tokens).or_else(|| deployment.foreign_full(lane, now))
        {
            return Some(full);
        }
        let seat = deployment.seat?;
        let room = self.pools[seat.pool].room(seat.member, lane, tokens);
        room.err().map(|limit| WhyNot::PoolFull { limit })
    }

    /// Whether a deployment has a slot for somebody, as far as slots go.
    pub(super) fn has_slot(&self, deployment: &Deployment) -> bool {
        !deployment.is_full(Lane::Live)
            && deployment.seat.is_none_or(|seat| {
                let pool = &self.pools[seat.pool];
                let open = matches!(pool.turn, Turn::Open) || pool.turn == Turn::Of(seat.member);
                open && pool.has_slot(seat.member).is_ok()
            })
    }

    /// Something of a deployment became free: its model is served, or who has the largest claim to its pool.
    pub(super) fn serve_freed(
        &mut self,
        id: DeploymentId,
        model: ModelId,
        seat: Option<Seat>,
        now: Now,
        rng: &mut Rng,
    ) {
        if !self.holds.is_empty() {
            self.holds.retain(|hold| hold.deployment != id);
            self.deployments.get_mut(id).into_iter().for_each(|one| one.held = None);
        }
        match seat {
            Some(seat) => self.serve_pool(seat.pool, now, rng),
            None => self.serve_changed(id, model, now, rng),
        }
    }

    /// Grants what is free of a pool, one by one, each to the largest claim.
    fn serve_pool(&mut self, pool: usize, now: Now, rng: &mut Rng) {
        if self.pools[pool].turn != Turn::Open {
            // It is being served: whoever is next is looked at in any case.
            return;
        }
        self.let_go(pool);
        let mut passed: SmallVec<[usize; 8]> = SmallVec::new();
        while let Some(member) = self.pools[pool].next(|member| self.waits(member), &passed) {
            let taken = self.pools[pool].taken;
            self.pools[pool].turn = Turn::Of(member);
            self.serve_member(pool, member, now, rng);
            if self.pools[pool].taken == taken {
                passed.push(member);
            }
            if self.pools[pool].is_held() {
                break;
            }
        }
        self.pools[pool].turn = Turn::Open;
    }

    /// Lets those look who wait at one member, until one of them is served.
    fn serve_member(&mut self, pool: usize, member: usize, now: Now, rng: &mut Rng) {
        let Some(model) = self.pools[pool].members[member].model else { return };
        let seat = Some(Seat { pool, member });
        let seated = |id: &DeploymentId| self.deployments.get(*id).is_some_and(|one| one.seat == seat);
        let all = self.models.get(model).into_iter().flat_map(|model| model.deployments.iter().copied());
        let all: SmallVec<[DeploymentId; 8]> = all.filter(seated).collect();
        for id in all {
            self.serve_changed(id, model, now, rng);
            if self.pools[pool].turn == Turn::Closed {
                return;
            }
        }
    }

    fn waits(&self, member: &Member) -> Waits {
        let queue = member.model.and_then(|model| self.models.get(model)).map(|model| &model.queue);
        match queue {
            Some(queue) if queue.waits(Lane::Live) => Waits::Live,
            Some(queue) if queue.waits(Lane::Batch) => Waits::Batch,
            Some(_) | None => Waits::None,
        }
    }

    /// One whose turn it is found no room. If it is tokens that it needs, what it waits for is held for it.
    pub(super) fn note_passed(&mut self, held: Held, decision: &Decision) {
        let ticket = held.ticket;
        for candidate in &decision.candidates {
            let id = candidate.deployment;
            let Some(deployment) = self.deployments.get_mut(id) else { continue };
            match (candidate.why_not, deployment.seat) {
                (Some(WhyNot::TokensFull { .. }), _) if deployment.held.is_none() => {
                    deployment.held = Some(held);
                }
                (Some(WhyNot::PoolFull { limit }), Some(seat)) if limit.is_tokens() => {
                    // Out of turn there are others whose claim was not looked at.
                    if self.pools[seat.pool].turn != Turn::Of(seat.member) {
                        continue;
                    }
                    self.pools[seat.pool].hold(seat.member, held, limit);
                }
                _ => continue,
            }
            self.holds.push(Hold { ticket, deployment: id });
        }
    }

    /// A live request that came just now was sent to a deployment. If batch waits there for tokens it was passed over, and is
    /// owed its turn some time.
    pub(crate) fn note_walked_past(&mut self, lane: Lane, id: DeploymentId) {
        if self.holds.is_empty() || lane == Lane::Batch {
            return;
        }
        let Some(deployment) = self.deployments.get(id) else { return };
        let seat = deployment.seat.map(|seat| (&self.pools[seat.pool], seat.member));
        let own = deployment.held.or_else(|| seat.and_then(|(pool, at)| pool.members[at].held));
        let pooled = seat.and_then(|(pool, _)| pool.holder());
        let passed = own.map(|held| (held, Some(deployment.model)));
        for (_, model) in passed.into_iter().chain(pooled).filter(|(held, _)| !held.firm) {
            if let Some(model) = model.and_then(|model| self.models.get_mut(model)) {
                model.queue.note_batch_passed_over();
            }
        }
    }

    /// How much is held for somebody. For the self-audit.
    pub(crate) fn holds(&self) -> usize {
        self.holds.len()
    }

    /// One who waited does so no more; gives what was held for it.
    pub(super) fn let_go_of(&mut self, ticket: Ticket) -> SmallVec<[DeploymentId; 4]> {
        let mut held = SmallVec::new();
        if self.holds.is_empty() {
            return held;
        }
        held.extend(self.holds.iter().filter(|hold| hold.ticket == ticket).map(|hold| hold.deployment));
        self.holds.retain(|hold| hold.ticket != ticket);
        for id in &held {
            if let Some(deployment) = self.deployments.get_mut(*id) {
                deployment.held = deployment.held.filter(|held| held.ticket != ticket);
                if let Some(seat) = deployment.seat {
                    self.pools[seat.pool].let_go_of(ticket);
                }
            }
        }
        held
    }

    /// One who waited left: what was held for it goes to whoever is next.
    pub(super) fn serve_held(&mut self, ticket: Ticket, model: ModelId, now: Now, rng: &mut Rng) {
        for id in self.let_go_of(ticket) {
            let seat = self.deployments.get(id).and_then(|deployment| deployment.seat);
            self.serve_freed(id, model, seat, now, rng);
        }
    }

    /// Nothing of a pool is held any more.
    fn let_go(&mut self, pool: usize) {
        self.pools[pool].let_go();
        if self.holds.is_empty() {
            return;
        }
        let deployments = &mut self.deployments;
        self.holds.retain(|hold| {
            let deployment = deployments.get_mut(hold.deployment);
            let inside = deployment.filter(|one| one.seat.is_some_and(|seat| seat.pool == pool));
            inside.map(|one| one.held = None).is_none()
        });
    }

    /// How many are in flight of which the first to end makes room for a model with these deployments, if that is not its
    /// own affair: it has the largest claim to what its pool releases.
    pub(super) fn pooled_inflight(&self, deployments: &[DeploymentId]) -> Option<u32> {
        let seats = deployments.iter().filter_map(|id| self.deployments.get(*id)?.seat);
        let mut owed = seats.filter(|seat| {
            let member = &self.pools[seat.pool].members[seat.member];
            member.is_below_guarantee() || member.used.requests == 0
        });
        owed.next().map(|seat| self.pools[seat.pool].used.requests)
    }
}
