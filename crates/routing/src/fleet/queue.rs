//! Requests that wait for the slots of one model. `order.rs` says who is before whom, `discipline.rs` when the newest are
//! served first, `serve.rs` how slots are given out.
//!
//! Waiters stand in groups by the deployments that they could use, and in a group by class and tenant. When one of a group
//! finds all of them full, so would the others, and the group is left alone until one of its deployments changes: what a
//! decision or a release costs depends on the number of groups, never on how many wait.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use super::discipline::{Pace, Standing};
use super::line::{Line, Urgency, Waiter};
use super::order::{Charge, Due, FLOOR_ONE_IN, Rank, Shares, Turns};
use crate::catalog::{Capabilities, Name, TenantSpec};
use crate::decision::{Decision, Place, WhyNot};
use crate::facts::{Class, Facts, Lane};
use crate::ids::{AccountId, Arrival, DeploymentId, Ticket};
use crate::time::Now;

/// The requests that wait for the slots of one model, and what has been served of it.
#[derive(Debug)]
pub(crate) struct Queue {
    /// As many as there are different sets of deployments that those who wait could use; few.
    groups: Vec<Group>,
    /// How many wait in all groups, by rank.
    waiting: [usize; Rank::COUNT],
    /// The soonest that time alone may make room for a group.
    recheck: Now,
    /// The fleet's counts of changes to credentials, and of their failures, when it was last looked at.
    credentials: (u64, u64),
    /// By rank: whether it is overloaded.
    standing: [Standing; Rank::COUNT],
    turns: Turns,
    /// By rank: what tenants have been served.
    pub(super) shares: [Shares; Rank::COUNT],
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            waiting: [0; Rank::COUNT],
            recheck: Now::NEVER,
            credentials: (0, 0),
            standing: Default::default(),
            turns: Turns::default(),
            shares: Default::default(),
        }
    }
}

/// Those who wait for the same slots.
#[derive(Debug)]
struct Group {
    key: Key,
    /// None of them is empty.
    lines: BTreeMap<Class, Line>,
    /// The first was found to have no slot, and nothing that concerns the group has changed since.
    blocked: bool,
    /// When time alone may make room: a breaker that is due, a wait or a quota window that ends.
    recheck: Now,
    left_out: LeftOut,
    /// After a reload: what they could use may be something else now, and each is looked at.
    stale: bool,
}

/// Whether deployments were left out that a change to a credential may bring in.
#[derive(Debug, Default)]
struct LeftOut {
    /// For want of a credential.
    without_credential: bool,
    /// For they failed, which are used all the same once too few others can serve.
    failed: bool,
}

impl Group {
    fn line(&self, class: Class) -> Option<&Line> {
        self.lines.get(&class)
    }
}

/// What a request could use, whatever the state of things now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) usable: SmallVec<[DeploymentId; 8]>,
    pub(super) lane: Lane,
    /// Where credentials have a limit of tokens: how many the request counts as, as a power of two. Of one class, the
    /// smaller does not overtake.
    pub(super) size_class: u32,
    /// Where one of these said lately that it lacks what is asked for: what that is. Others can use it.
    pub(super) missing: Capabilities,
    /// Those of these that usually take longer than there is time. Who has more time can use them.
    pub(super) late: SmallVec<[DeploymentId; 2]>,
    /// Whether it may look whether one that failed works again. Who failed elsewhere may not; others may.
    pub(super) may_probe: bool,
}

impl Queue {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.iter().sum()
    }

    /// How many of a lane wait.
    pub(super) fn len_of(&self, lane: Lane) -> usize {
        Rank::all().filter(|rank| rank.lane == lane).map(|rank| self.waiting[rank.index()]).sum()
    }

    /// Whether any of a lane wait.
    pub(super) fn waits(&self, lane: Lane) -> bool {
        self.len_of(lane) > 0
    }

    /// How many of a rank wait.
    pub(super) fn waiting(&self, rank: Rank) -> usize {
        self.waiting[rank.index()]
    }

    /// Whether as many wait as are counted.
    pub(crate) fn is_counted(&self) -> bool {
        Rank::all().all(|rank| {
            let waiting: usize = self.lines(rank).map(|(_, line)| line.len()).sum();
            let of_tenants: u32 = self.shares[rank.index()].values().map(|account| account.waiting).sum();
            waiting == self.waiting(rank) && waiting == of_tenants as usize
        })
    }

    /// Charges that are not settled.
    pub(crate) fn charges_open(&self) -> u64 {
        self.shares.iter().flat_map(Shares::values).map(|account| u64::from(account.open())).sum()
    }

    /// Whether live requests of some class are served newest first.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.standing.iter().any(|standing| standing.is_overloaded())
    }

    /// Whether those of a rank are served newest first.
    pub(super) fn is_newest_first(&self, rank: Rank) -> bool {
        self.standing[rank.index()].is_overloaded()
    }

    /// The lines of a rank, with the place of their group.
    fn lines(&self, rank: Rank) -> impl Iterator<Item = (usize, &Line)> {
        let groups = self.groups.iter().enumerate().filter(move |(_, group)| group.key.lane == rank.lane);
        groups.filter_map(move |(at, group)| Some((at, group.line(rank.class)?)))
    }

    /// The one of a rank that has waited longest, and since when.
    pub(super) fn oldest(&self, rank: Rank) -> Option<(Ticket, Now)> {
        self.lines(rank).filter_map(|(_, line)| line.oldest()).min()
    }

    /// What the tenant of a rank with the least counter of those that wait lifts others to.
    fn least(&self, rank: Rank) -> Option<u64> {
        if self.waiting(rank) == 0 {
            return None;
        }
        let (_, next) = self.lines(rank).filter_map(|(_, line)| line.next_tenant()).min()?;
        Some(self.shares[rank.index()].get(next)?.lift())
    }

    /// A request comes, whether it has to wait or not.
    pub(crate) fn note_arrival(&mut self, facts: &Facts, tenants: &BTreeMap<Name, TenantSpec>) -> AccountId {
        let rank = Rank::of(facts);
        let least = self.least(rank);
        let id = self.shares[rank.index()].arrive(facts, least, tenants);
        debug_assert!(self.shares[rank.index()].get(id).is_some(), "who comes has an account");
        id
    }

    /// A request is sent.
    pub(crate) fn charge(&mut self, facts: &Facts, tenants: &BTreeMap<Name, TenantSpec>) -> Charge {
        let rank = Rank::of(facts);
        let least = self.least(rank);
        let charge = self.shares[rank.index()].charge(facts, least, tenants);
        let counter = charge.account.and_then(|id| Some((id, self.shares[rank.index()].get(id)?.counter)));
        self.note_counter(rank, counter);
        charge
    }

    /// It ended.
    pub(crate) fn settle(&mut self, charge: &Charge, due: Due) {
        let counter = self.shares[charge.rank.index()].settle(charge, due);
        self.note_counter(charge.rank, counter);
    }

    fn note_counter(&mut self, rank: Rank, counter: Option<(AccountId, u64)>) {
        let Some((account, counter)) = counter.filter(|_| self.waiting(rank) > 0) else { return };
        for group in self.groups.iter_mut().filter(|group| group.key.lane == rank.lane) {
            if let Some(line) = group.lines.get_mut(&rank.class) {
                line.note_counter(account, counter);
            }
        }
    }

    /// Where a newcomer would stand. What is of other groups does not count: it may be served from elsewhere.
    pub(super) fn place(&self, key: &Key, facts: &Facts, account: AccountId, came: Arrival) -> Place {
        let rank = Rank::of(facts);
        let same = |other: &&Group| other.key.usable == key.usable && other.key.size_class == key.size_class;
        let mut place = Place::default();
        for group in self.groups.iter().filter(same) {
            for (class, line) in &group.lines {
                let other = Rank { lane: group.key.lane, class: *class };
                if other < rank {
                    place.of_classes_before += count(line.len());
                } else if other == rank {
                    let weight = self.shares[rank.index()].get(account).map_or(1, |own| own.weight).max(1);
                    let (before, own) = line.own_before(account, Urgency::of(facts, came));
                    let before = if self.is_newest_first(rank) { 0 } else { before };
                    // Tenants take turns, by weight, until it is this one's.
                    let turns = (before as u64 + 1).saturating_mul(line.weights_with(account, weight));
                    let turns = usize::try_from(turns.div_ceil(u64::from(weight))).unwrap_or(usize::MAX);
                    let others = line.len() - own;
                    place.of_tenant = count(before);
                    place.of_class = count((turns - 1).min(others + before));
                }
            }
        }
        // Whatever is before it, one in twenty grants is for its class.
        let floor = place.of_class.saturating_add(1).saturating_mul(u32::from(FLOOR_ONE_IN)) - 1;
        place.ahead = place.of_class.saturating_add(place.of_classes_before).min(floor);
        place
    }

    /// Who gives way to a newcomer although it waits: the last of those who are less important, or of the tenant that
    /// has most waiting if the newcomer's own has less.
    pub(super) fn gives_way_to(&self, rank: Rank, account: AccountId) -> Option<Ticket> {
        let of_lane = Rank::all().filter(|other| other.lane == rank.lane && self.waiting(*other) > 0);
        let last = of_lane.last().filter(|last| *last >= rank)?;
        let shares = &self.shares[last.index()];
        let (fattest, waiting, weight) = shares.fattest()?;
        if last == rank {
            let own = shares.get(account)?;
            let own_after = u64::from(own.waiting + 1) * u64::from(weight);
            if own_after >= u64::from(waiting) * u64::from(own.weight) {
                // Where the newest are served first, the oldest would not be before it gives up.
                let own_oldest = self.lines(rank).filter_map(|(_, line)| line.oldest_of(account)).min();
                return own_oldest.filter(|_| self.is_newest_first(rank));
            }
        }
        if self.is_newest_first(last) {
            return self.lines(last).filter_map(|(_, line)| line.oldest_of(fattest)).min();
        }
        self.lines(last).filter_map(|(_, line)| line.least_urgent(fattest)).max().map(|(_, ticket)| ticket)
    }

    /// One of this rank was granted a slot.
    pub(super) fn note_served(&mut self, rank: Rank) {
        let waiting = self.waiting;
        self.turns.note_served(rank, |rank| waiting[rank.index()] > 0);
    }

    /// A live request that came just now was served although batch waits for what it took.
    pub(super) fn note_batch_passed_over(&mut self) {
        for rank in Rank::all().filter(|rank| rank.lane == Lane::Batch) {
            if self.waiting(rank) > 0 {
                self.turns.note_passed_over(rank);
            }
        }
    }

    /// Whether it is the turn of a rank whatever stands before it.
    pub(super) fn is_owed(&self, rank: Rank) -> bool {
        self.turns.is_owed(rank)
    }

    /// Who waits, by arrival.
    pub(crate) fn into_tickets(self) -> Vec<Ticket> {
        let lines = self.groups.into_iter().flat_map(|group| group.lines.into_values());
        let mut tickets: Vec<Ticket> = lines.flat_map(|line| line.into_waiters().into_keys()).collect();
        tickets.sort_unstable();
        tickets
    }

    /// Adds one that was just found to have no slot, with that decision and the soonest that time alone may make room.
    /// Gives the place of its group.
    pub(super) fn put(
        &mut self,
        key: Key,
        ticket: Ticket,
        waiter: Waiter,
        (decision, recheck): (&Decision, Now),
    ) -> usize {
        let at = self.groups.iter().position(|group| !group.stale && group.key == key);
        let at = at.unwrap_or_else(|| {
            self.groups.push(Group {
                key,
                lines: BTreeMap::new(),
                blocked: true,
                recheck: Now::NEVER,
                left_out: LeftOut::default(),
                stale: false,
            });
            self.groups.len() - 1
        });
        let rank = Rank::of(&waiter.facts);
        let mut standing = (0, 1);
        if let Some(account) = self.shares[rank.index()].get_mut(waiter.account) {
            account.waiting += 1;
            standing = (account.counter, account.weight);
        }
        let group = &mut self.groups[at];
        group.lines.entry(rank.class).or_default().put(ticket, waiter, standing);
        group.blocked = true;
        let reasons = || decision.candidates.iter().filter_map(|candidate| candidate.why_not);
        group.recheck = recheck;
        group.left_out = LeftOut {
            without_credential: reasons().any(|why| matches!(why, WhyNot::NoCredential { .. })),
            failed: reasons().any(|why| matches!(why, WhyNot::Failed { .. })),
        };
        self.recheck = self.recheck.min(group.recheck);
        self.waiting[rank.index()] += 1;
        at
    }

    /// Takes out whose turn it is of all those whose group may find a slot, with the place of its group.
    pub(super) fn pop(&mut self) -> Option<(usize, Ticket, Waiter)> {
        let is_open =
            |rank: Rank| self.waiting(rank) > 0 && self.lines(rank).any(|(at, _)| !self.groups[at].blocked);
        let rank = self.turns.next(is_open)?;
        let open = || self.lines(rank).filter(|(at, _)| !self.groups[*at].blocked);
        let (_, account) = open().filter_map(|(_, line)| line.next_tenant()).min()?;
        let (at, ticket) = if self.is_newest_first(rank) {
            let newest = open().filter_map(|(at, line)| Some((line.newest(account)?, at)));
            newest.max().map(|(ticket, at)| (at, ticket))
        } else {
            let urgent = open().filter_map(|(at, line)| Some((line.most_urgent(account)?, at)));
            urgent.min().map(|((_, ticket), at)| (at, ticket))
        }?;
        let waiter = self.take(at, rank.class, ticket)?;
        Some((at, ticket, waiter))
    }

    /// Takes one out of its group.
    fn take(&mut self, at: usize, class: Class, ticket: Ticket) -> Option<Waiter> {
        let group = self.groups.get_mut(at)?;
        let line = group.lines.get_mut(&class)?;
        let waiter = line.take(ticket)?;
        if line.is_empty() {
            group.lines.remove(&class);
        }
        let rank = Rank::of(&waiter.facts);
        self.waiting[rank.index()] -= 1;
        if let Some(account) = self.shares[rank.index()].get_mut(waiter.account) {
            account.waiting -= 1;
        }
        Some(waiter)
    }

    fn find(&self, ticket: Ticket) -> Option<(usize, Class)> {
        self.groups.iter().enumerate().find_map(|(at, group)| {
            let mut lines = group.lines.iter();
            lines.find(|(_, line)| line.contains(ticket)).map(|(class, _)| (at, *class))
        })
    }

    pub(super) fn remove(&mut self, ticket: Ticket) {
        if let Some((at, class)) = self.find(ticket) {
            drop(self.take(at, class, ticket));
        }
        self.prune();
    }

    pub(super) fn prune(&mut self) {
        self.groups.retain(|group| !group.lines.is_empty());
    }

    /// When time alone may make room for the group of one that waits.
    pub(super) fn recheck_of(&self, ticket: Ticket) -> Now {
        self.find(ticket).map_or(Now::NEVER, |(at, _)| self.groups[at].recheck)
    }

    /// Groups that could use this deployment are worth a look again.
    pub(super) fn note_change(&mut self, deployment: DeploymentId) {
        for group in self.groups.iter_mut().filter(|group| group.blocked) {
            group.blocked = !group.key.usable.contains(&deployment);
        }
    }

    /// So are those for which time, or a change to a credential, may have made room.
    pub(super) fn note_time(&mut self, now: Now, credentials: (u64, u64)) {
        let before = std::mem::replace(&mut self.credentials, credentials);
        let (changed, failed) = (before.0 != credentials.0, before.1 != credentials.1);
        if now < self.recheck && !changed {
            return;
        }
        self.recheck = Now::NEVER;
        for group in &mut self.groups {
            let by_credential =
                changed && group.left_out.without_credential || failed && group.left_out.failed;
            if now >= group.recheck || by_credential {
                group.blocked = false;
                group.recheck = Now::NEVER;
            }
            self.recheck = self.recheck.min(group.recheck);
        }
    }

    /// So are all, each for itself, after a reload.
    pub(super) fn note_reload(&mut self) {
        for group in &mut self.groups {
            (group.blocked, group.stale) = (false, true);
        }
        self.recheck = Now::NEVER;
    }

    /// Takes in since when the oldest of a rank waits.
    pub(super) fn watch(&mut self, rank: Rank, oldest: Option<Now>, pace: Pace, now: Now) {
        self.standing[rank.index()].observe(oldest, pace, now);
    }
}

fn count(many: usize) -> u32 {
    u32::try_from(many).unwrap_or(u32::MAX)
}
