//! Those who wait, and what tenants were served, as people and metrics see it.

use serde::Serialize;

use super::order::{Account, Rank};
use super::queue::Queue;
use crate::catalog::Name;
use crate::limits::TENANTS_SHOWN_MAX;
use crate::time::Now;

/// A class of a lane of a model at one moment. Only those that were ever used are shown.
#[derive(Debug, Clone, Serialize)]
pub struct ClassView {
    /// The lane: `live` or `batch`.
    pub lane: &'static str,
    /// The class: `system`, `interactive`, `standard` or `batch`.
    pub class: &'static str,
    /// Requests that wait.
    pub depth: u32,
    /// How long the one that came first of them waits, milliseconds.
    pub oldest_wait_ms: Option<u64>,
    /// Whether the newest are served first, because too many wait too long.
    pub overloaded: bool,
    /// Requests that were sent so far, of the tenants that are remembered.
    pub requests: u64,
    /// Tenants that are remembered.
    pub tenants_known: usize,
    /// Those of them with most waiting, then most served: 32 at most.
    pub tenants: Vec<TenantView>,
}

/// What a tenant has waiting, and was served, in one class of one model.
#[derive(Debug, Clone, Serialize)]
pub struct TenantView {
    /// Its name; `other` are those who found no account of their own.
    pub tenant: Name,
    /// Its weight.
    pub weight: u32,
    /// Requests that wait.
    pub depth: u32,
    /// Requests that were sent so far.
    pub requests: u64,
    /// What they cost: prompt tokens that were not cached, and twice the output.
    pub served_tokens: u64,
    /// The counter that decides who is next, the smallest first: cost over weight, with what is under way as it is
    /// expected, lifted when it came back from idle.
    pub counter: u64,
}

impl ClassView {
    pub(super) fn all(queue: &Queue, now: Now) -> Vec<Self> {
        let used = Rank::all().filter(|rank| queue.shares[rank.index()].values().next().is_some());
        used.map(|rank| Self::new(queue, rank, now)).collect()
    }

    fn new(queue: &Queue, rank: Rank, now: Now) -> Self {
        let mut accounts: Vec<&Account> = queue.shares[rank.index()].values().collect();
        accounts.sort_by_key(|one| std::cmp::Reverse((one.waiting, one.served)));
        Self {
            lane: rank.lane.name(),
            class: rank.class.name(),
            depth: u32::try_from(queue.waiting(rank)).unwrap_or(u32::MAX),
            oldest_wait_ms: queue.oldest(rank).map(|(_, since)| now.since(since).as_millis() as u64),
            overloaded: queue.is_newest_first(rank),
            requests: accounts.iter().map(|account| account.requests).sum(),
            tenants_known: accounts.len(),
            tenants: accounts.into_iter().take(TENANTS_SHOWN_MAX).map(TenantView::new).collect(),
        }
    }
}

impl TenantView {
    fn new(account: &Account) -> Self {
        Self {
            tenant: Name::clone(&account.tenant),
            weight: account.weight,
            depth: account.waiting,
            requests: account.requests,
            served_tokens: account.served,
            counter: account.counter_tokens(),
        }
    }
}
