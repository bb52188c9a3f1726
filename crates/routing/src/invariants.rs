//! What holds whatever happens. Asked after every step in builds with assertions, and by the simulator and the tests in
//! every build, by the same functions.
//!
//! What only a look over time can show is asked by the simulator alone, from its own log: that a request ends once, and
//! that no more is sent again than the budget allows.

use crate::fleet::Fleet;
use crate::fleet::pool::Seat;
use crate::flow::{AttemptKind, Flow, Phase};
use crate::pool::{Turn, Used};

/// Attempts of one request that may be under way at the same time: the attempt, and one hedge.
pub const LIVE_ATTEMPTS_MAX: usize = 2;

/// What must hold of a request after every step. `Err` says what does not.
pub fn of_request(flow: &Flow) -> Result<(), &'static str> {
    let attempts = flow.attempts();
    let live = attempts.iter().filter(|attempt| attempt.ended.is_none()).count();
    let over = flow.phase() == Phase::Over;
    if over != flow.outcome().is_some() {
        return Err("a request is over exactly when it has an outcome");
    }
    if over && flow.permits() > 0 {
        return Err("a request that is over holds no permit");
    }
    if live > LIVE_ATTEMPTS_MAX {
        return Err("a request has one attempt under way, and one hedge at most");
    }
    if flow.permits() != live as u64 {
        return Err("each attempt under way holds a permit, and nothing else does");
    }
    if !over && flow.phase() != Phase::New && flow.wake_at() == crate::Now::NEVER {
        return Err("a request that is not over has a timer");
    }
    let Some(deadline) = flow.facts().deadline else { return Ok(()) };
    if attempts.iter().any(|attempt| attempt.started >= deadline) {
        return Err("no attempt begins after the deadline");
    }
    let content = attempts.iter().filter_map(|attempt| attempt.first_content).min();
    let again = |content| {
        let mut usual = attempts.iter().filter(|attempt| attempt.kind != AttemptKind::Continuation);
        usual.any(|attempt| attempt.started > content)
    };
    if content.is_some_and(again) {
        return Err("nothing is sent again after content came, but for its rest");
    }
    Ok(())
}

/// What must hold of a fleet between any two steps. `Err` says what does not.
pub fn of_fleet(fleet: &Fleet) -> Result<(), &'static str> {
    for deployment in fleet.deployments.values() {
        if deployment.inflight == 0 && deployment.tokens_inflight > 0 {
            return Err("tokens in flight belong to requests in flight");
        }
        if deployment.inflight == 0 && !deployment.underway.is_clear() {
            return Err("what a deployment has to do belongs to requests in flight");
        }
        if deployment.inflight == 0 && deployment.removed {
            return Err("a deployment that is gone stays only until its last permit is back");
        }
    }
    of_pools(fleet)?;
    if fleet.models.values().any(|model| !model.queue.is_counted()) {
        return Err("those who wait are counted");
    }
    Ok(())
}

/// What must hold of pools: what is counted there is what their deployments have in flight, and no more is than may be.
fn of_pools(fleet: &Fleet) -> Result<(), &'static str> {
    for (place, pool) in fleet.pools.iter().enumerate() {
        let mut all = Used::default();
        for (at, member) in pool.members.iter().enumerate() {
            let mut used = Used::default();
            let seat = Some(Seat { pool: place, member: at });
            for one in fleet.deployments.values().filter(|one| one.seat == seat) {
                used.add(one.inflight, one.tokens_inflight);
            }
            if used != member.used {
                return Err("what a model has of a pool is what its deployments there have in flight");
            }
            if !member.keeps_to_its_cap() {
                return Err(
                    "a model has no more of a pool than its cap, or than it had when that was made less",
                );
            }
            all.add(used.requests, used.tokens);
        }
        if all != pool.used {
            return Err("what is in use of a pool is what its models have");
        }
        if !pool.keeps_to_its_size() {
            return Err("no more is in use of a pool than it has, or than was when it was made smaller");
        }
        if pool.turn != Turn::Open {
            return Err("a pool is open to all when nobody is being served");
        }
        if pool.is_held() && pool.used.requests == 0 {
            return Err("an empty pool is held for nobody");
        }
    }
    Ok(())
}

/// What is left when every request is over; all of it must be zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// Permits.
    pub permits: u64,
    /// Tokens that are counted as in flight.
    pub tokens: u64,
    /// Places in queues.
    pub waiting: usize,
    /// Slots that were granted and not collected, and those that are wanted back.
    pub grants: usize,
    /// Requests that may have to give their slot back.
    pub recallable: usize,
    /// Permits of pools.
    pub pooled: u64,
    /// Charges of tenants that were never settled.
    pub charges: u64,
    /// Tokens that are kept free for somebody.
    pub holds: usize,
}

/// What the fleet still holds for requests.
pub fn leftovers(fleet: &Fleet) -> Leftovers {
    Leftovers {
        permits: fleet.permits_in_use(),
        tokens: fleet.deployments.values().map(|deployment| deployment.tokens_inflight).sum(),
        waiting: fleet.models.values().map(|model| model.queue.len()).sum(),
        grants: fleet.told.len(),
        recallable: fleet.holders.len(),
        pooled: fleet.pools.iter().map(|pool| u64::from(pool.used.requests)).sum(),
        charges: fleet.models.values().map(|model| model.queue.charges_open()).sum(),
        holds: fleet.holds(),
    }
}
