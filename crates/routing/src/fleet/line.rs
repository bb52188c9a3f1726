//! Those of one class that wait for the same slots, by tenant: who of them is next, in time that depends on how many there
//! are only as their trees do.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

use crate::facts::Facts;
use crate::ids::{AccountId, Arrival, DeploymentId, Ticket};
use crate::time::Now;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) facts: Box<Facts>,
    pub(crate) since: Now,
    pub(crate) tried: SmallVec<[DeploymentId; 4]>,
    pub(crate) account: AccountId,
    pub(crate) came: Arrival,
}

/// What orders those of one tenant: the earliest deadline first, and of equal ones who came first. Without a deadline of
/// its own a request has that of its arrival, so it is the order of arrival then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Urgency {
    due: Now,
    // Not the ticket: one that gave its slot back or failed elsewhere has a new one, and would be behind all.
    came: Arrival,
}

impl Urgency {
    pub(crate) fn of(facts: &Facts, came: Arrival) -> Self {
        Self { due: facts.deadline.unwrap_or(Now::NEVER), came }
    }
}

impl Waiter {
    fn urgency(&self) -> Urgency {
        Urgency::of(&self.facts, self.came)
    }
}

/// Those of one class that wait for the same slots.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// By arrival.
    waiters: BTreeMap<Ticket, Waiter>,
    /// The tenants among them, by counter.
    tenants: BTreeSet<(u64, AccountId)>,
    own: BTreeMap<AccountId, Own>,
    /// The weights of these tenants.
    weights: u64,
}

/// What one tenant has waiting.
#[derive(Debug)]
struct Own {
    counter: u64,
    weight: u32,
    due: BTreeSet<(Urgency, Ticket)>,
    arrived: BTreeSet<Ticket>,
}

impl Line {
    pub(crate) fn len(&self) -> usize {
        self.waiters.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(crate) fn contains(&self, ticket: Ticket) -> bool {
        self.waiters.contains_key(&ticket)
    }

    pub(crate) fn into_waiters(self) -> BTreeMap<Ticket, Waiter> {
        self.waiters
    }

    /// The one that has waited longest, and since when.
    pub(crate) fn oldest(&self) -> Option<(Ticket, Now)> {
        self.waiters.first_key_value().map(|(ticket, waiter)| (*ticket, waiter.since))
    }

    /// The tenant that is next, with its counter.
    pub(crate) fn next_tenant(&self) -> Option<(u64, AccountId)> {
        self.tenants.first().copied()
    }

    /// The request of a tenant that is next.
    pub(crate) fn most_urgent(&self, account: AccountId) -> Option<(Urgency, Ticket)> {
        self.own.get(&account)?.due.first().copied()
    }

    /// The request of a tenant that is last.
    pub(crate) fn least_urgent(&self, account: AccountId) -> Option<(Urgency, Ticket)> {
        self.own.get(&account)?.due.last().copied()
    }

    /// The request of a tenant that came last.
    pub(crate) fn newest(&self, account: AccountId) -> Option<Ticket> {
        self.own.get(&account)?.arrived.last().copied()
    }

    /// The request of a tenant that came first.
    pub(crate) fn oldest_of(&self, account: AccountId) -> Option<Ticket> {
        self.own.get(&account)?.arrived.first().copied()
    }

    /// How many of a tenant are before one that is so urgent, and how many it has.
    pub(crate) fn own_before(&self, account: AccountId, urgency: Urgency) -> (usize, usize) {
        let Some(own) = self.own.get(&account) else { return (0, 0) };
        let last = own.due.last().is_some_and(|(last, _)| *last <= urgency);
        let before = || own.due.iter().take_while(|(one, _)| *one <= urgency).count();
        (if last { own.due.len() } else { before() }, own.due.len())
    }

    /// The weights of the tenants that wait, one that comes included.
    pub(crate) fn weights_with(&self, account: AccountId, weight: u32) -> u64 {
        self.weights + if self.own.contains_key(&account) { 0 } else { u64::from(weight) }
    }

    pub(crate) fn put(&mut self, ticket: Ticket, waiter: Waiter, (counter, weight): (u64, u32)) {
        let (account, urgency) = (waiter.account, waiter.urgency());
        let own = self.own.entry(account).or_insert_with(|| {
            self.tenants.insert((counter, account));
            self.weights += u64::from(weight);
            Own { counter, weight, due: BTreeSet::new(), arrived: BTreeSet::new() }
        });
        own.due.insert((urgency, ticket));
        own.arrived.insert(ticket);
        self.waiters.insert(ticket, waiter);
    }

    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        let (account, urgency) = (waiter.account, waiter.urgency());
        if let Some(own) = self.own.get_mut(&account) {
            own.due.remove(&(urgency, ticket));
            own.arrived.remove(&ticket);
            if own.arrived.is_empty() {
                self.tenants.remove(&(own.counter, account));
                self.weights -= u64::from(own.weight);
                self.own.remove(&account);
            }
        }
        Some(waiter)
    }

    /// A tenant's counter is another now.
    pub(crate) fn note_counter(&mut self, account: AccountId, counter: u64) {
        if let Some(own) = self.own.get_mut(&account) {
            self.tenants.remove(&(own.counter, account));
            self.tenants.insert((counter, account));
            own.counter = counter;
        }
    }
}
