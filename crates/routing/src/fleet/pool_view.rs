//! Pools as people and metrics see them.

use serde::Serialize;

use super::Fleet;
use crate::catalog::Name;
use crate::pool::{Member, Pool};

/// A pool at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct PoolView {
    /// Its name.
    pub name: Name,
    /// Requests that it may have in flight; `null`: any number.
    pub slots: Option<u32>,
    /// Tokens that those may have together; `null`: any number.
    pub tokens: Option<u64>,
    /// Requests in flight.
    pub inflight: u32,
    /// Tokens of those, in and out, estimated.
    pub tokens_inflight: u64,
    /// Share of its slots or of its tokens in use, whichever is more; `null` where it has neither.
    pub utilisation: Option<f64>,
    /// Whether a request that is next needs more tokens than are free, so that others wait for it.
    pub held_for_tokens: bool,
    /// The models that use it or are named by it.
    pub models: Vec<PoolModelView>,
}

/// What a model has of a pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolModelView {
    /// Its name.
    pub model: Name,
    /// Requests in flight.
    pub inflight: u32,
    /// Tokens of those.
    pub tokens_inflight: u64,
    /// Slots that it has whenever it needs them.
    pub guarantee: u32,
    /// The same in tokens.
    pub guarantee_tokens: u64,
    /// The most slots it may have; `null`: all.
    pub cap: Option<u32>,
    /// The same in tokens.
    pub cap_tokens: Option<u64>,
    /// Its share of what nobody is guaranteed, relative to the others.
    pub weight: u32,
    /// Requests that wait for the model.
    pub waiting: usize,
    /// Slots of its guarantee that others may use now.
    pub lent: u32,
    /// Slots that it has beyond its guarantee.
    pub borrowed: u32,
}

impl Pool {
    fn utilisation(&self) -> Option<f64> {
        let slots = self.spec.slots.map(|slots| f64::from(self.used.requests) / f64::from(slots.max(1)));
        let tokens = self.spec.tokens.map(|tokens| self.used.tokens as f64 / tokens.max(1) as f64);
        [slots, tokens].into_iter().flatten().reduce(f64::max)
    }
}

impl Fleet {
    pub(super) fn pool_views(&self) -> Vec<PoolView> {
        self.pools.iter().filter(|pool| pool.configured).map(|pool| self.pool_view(pool)).collect()
    }

    fn pool_view(&self, pool: &Pool) -> PoolView {
        let known = |member: &&Member| member.model.is_some() || member.used.requests > 0;
        let models = pool.members.iter().filter(known).map(|member| {
            let queue = member.model.and_then(|model| self.models.get(model)).map(|model| &model.queue);
            PoolModelView {
                model: Name::clone(&member.name),
                inflight: member.used.requests,
                tokens_inflight: member.used.tokens,
                guarantee: member.share.guarantee,
                guarantee_tokens: member.share.guarantee_tokens,
                cap: member.share.cap,
                cap_tokens: member.share.cap_tokens,
                weight: member.share.weight,
                waiting: queue.map_or(0, super::Queue::len),
                lent: if member.share.lend { member.unused() } else { 0 },
                borrowed: member.borrowed(),
            }
        });
        PoolView {
            name: Name::clone(&pool.name),
            slots: pool.spec.slots,
            tokens: pool.spec.tokens,
            inflight: pool.used.requests,
            tokens_inflight: pool.used.tokens,
            utilisation: pool.utilisation(),
            held_for_tokens: pool.is_held(),
            models: models.collect(),
        }
    }
}
