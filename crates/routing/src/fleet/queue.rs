//! Requests that wait for a slot. First come, first served among those that could use the same slot, live traffic before
//! batch but for every tenth; in overload the newest of the live ones first (`discipline.rs` says when that is). The fleet
//! takes the permit on a waiter's behalf, so that no newcomer can slip in between.
//!
//! Waiters stand in groups by the deployments that they could use. When one of a group finds all of them full,
//! so would the others, and the group is left alone until one of its deployments changes: what a decision or a release
//! costs depends on the number of groups, never on how many wait.

use std::collections::BTreeMap;
use std::time::Duration;

use smallvec::SmallVec;

use super::discipline::{Pace, Standing, retry_after};
use super::{Collected, Ended, Fleet, Permit, Told, tokens_of};
use crate::decide::{Evaluation, choose};
use crate::decision::{Candidate, Decision, Outcome, Rejection, Why, WhyNot};
use crate::facts::{Facts, Lane};
use crate::ids::{DeploymentId, ModelId, Ticket};
use crate::limits::{RETRY_AFTER_MIN, WAITERS_MOVED_MAX};
use crate::rng::Rng;
use crate::shed::queue_has_room;
use crate::time::Now;

/// Live requests that are served in a row while batch requests wait: one slot in ten is for those.
const LIVE_IN_A_ROW_MAX: u8 = 9;
/// Requests that one newcomer may push out in overload: one for the place it takes, one to make the queue shorter.
const PUSHED_OUT_MAX: usize = 2;

/// A request that waits.
#[derive(Debug)]
struct Waiter {
    facts: Box<Facts>,
    since: Now,
    tried: SmallVec<[DeploymentId; 4]>,
}

/// The requests that wait for the slots of one model.
#[derive(Debug)]
pub(crate) struct Queue {
    /// As many as there are different sets of deployments that those who wait could use; few.
    groups: Vec<Group>,
    /// How many wait in all groups.
    waiting: usize,
    /// The soonest that time alone may make room for a group.
    recheck: Now,
    /// The fleet's count of changes to credentials when it was last looked at.
    credential_changes: u64,
    /// Whether the live lane is overloaded.
    standing: Standing,
    /// Live requests that were served since a batch request was, while one waited.
    live_in_a_row: u8,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            waiting: 0,
            recheck: Now::NEVER,
            credential_changes: 0,
            standing: Standing::default(),
            live_in_a_row: 0,
        }
    }
}

/// Those who wait for the same slots, by arrival.
#[derive(Debug)]
struct Group {
    key: Key,
    waiters: BTreeMap<Ticket, Waiter>,
    /// The first was found to have no slot, and nothing that concerns the group has changed since.
    blocked: bool,
    /// When time alone may make room: a breaker that is due, a wait or a quota window that ends.
    recheck: Now,
    /// A deployment was left out for want of a credential.
    wants_credential: bool,
}

/// What a request could use, whatever the state of things now.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    usable: SmallVec<[DeploymentId; 8]>,
    lane: Lane,
    /// Where credentials have a limit of tokens: how many the request counts as, as a power of two. Of one class, the
    /// smaller does not overtake.
    size_class: u32,
}

/// A permit that was taken on a waiter's behalf.
#[derive(Debug)]
pub(crate) struct Grant {
    decision: Decision,
    permit: Permit,
}

impl Clone for Grant {
    fn clone(&self) -> Self {
        Self { decision: self.decision.clone(), permit: self.permit.for_copied_fleet() }
    }
}

impl Grant {
    pub(crate) fn into_parts(self) -> (Decision, Permit) {
        (self.decision, self.permit)
    }
}

impl Queue {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether any of a lane wait.
    pub(crate) fn waits(&self, lane: Lane) -> bool {
        self.groups.iter().any(|group| group.key.lane == lane && !group.waiters.is_empty())
    }

    /// Whether as many wait as are counted.
    pub(crate) fn is_counted(&self) -> bool {
        self.waiting == self.groups.iter().map(|group| group.waiters.len()).sum::<usize>()
    }

    /// Whether live requests are served newest first.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.standing.is_overloaded()
    }

    /// The one of a lane that has waited longest, and since when.
    fn oldest(&self, lane: Lane) -> Option<(Ticket, Now)> {
        let groups = self.groups.iter().filter(|group| group.key.lane == lane);
        groups.filter_map(|group| group.waiters.first_key_value()).map(|(t, w)| (*t, w.since)).min()
    }

    /// How many would be served before a newcomer.
    fn before(&self, key: &Key) -> usize {
        match key.lane {
            Lane::Live if self.is_overloaded() => 0,
            Lane::Live => {
                let own = self.groups.iter().find(|group| group.key == *key);
                own.map_or(0, |group| group.waiters.len())
            }
            Lane::Batch => self.waiting,
        }
    }

    fn note_served(&mut self, lane: Lane) {
        let batch_waits = || self.groups.iter().any(|group| group.key.lane == Lane::Batch);
        self.live_in_a_row = match lane {
            Lane::Live if batch_waits() => self.live_in_a_row.saturating_add(1),
            Lane::Live | Lane::Batch => 0,
        };
    }

    /// Who waits, by arrival.
    pub(crate) fn into_tickets(self) -> Vec<Ticket> {
        self.into_waiters().into_keys().collect()
    }

    fn into_waiters(self) -> BTreeMap<Ticket, Waiter> {
        self.groups.into_iter().flat_map(|group| group.waiters).collect()
    }

    /// Adds one that was just found to have no slot. Gives the place of its group.
    fn put(&mut self, key: Key, ticket: Ticket, waiter: Waiter, decision: &Decision) -> usize {
        let at = self.groups.iter().position(|group| group.key == key).unwrap_or_else(|| {
            self.groups.push(Group {
                key,
                waiters: BTreeMap::new(),
                blocked: true,
                recheck: Now::NEVER,
                wants_credential: false,
            });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.waiters.insert(ticket, waiter);
        group.blocked = true;
        let reasons = || decision.candidates.iter().filter_map(|candidate| candidate.why_not);
        group.recheck = reasons().filter_map(WhyNot::returns_at).min().unwrap_or(Now::NEVER);
        group.wants_credential = reasons().any(|why| matches!(why, WhyNot::NoCredential { .. }));
        self.recheck = self.recheck.min(group.recheck);
        self.waiting += 1;
        at
    }

    /// Takes out whose turn it is of all those whose group may find a slot, with the place of its group.
    fn pop(&mut self) -> Option<(usize, Ticket, Waiter)> {
        let batch_first = self.live_in_a_row >= LIVE_IN_A_ROW_MAX;
        let lanes = if batch_first { [Lane::Batch, Lane::Live] } else { [Lane::Live, Lane::Batch] };
        lanes.into_iter().find_map(|lane| self.pop_of(lane))
    }

    fn pop_of(&mut self, lane: Lane) -> Option<(usize, Ticket, Waiter)> {
        let newest = lane == Lane::Live && self.is_overloaded();
        let groups = self.groups.iter().enumerate();
        let open = groups.filter(|(_, group)| !group.blocked && group.key.lane == lane);
        let at = if newest {
            open.filter_map(|(at, group)| Some((*group.waiters.last_key_value()?.0, at))).max()?.1
        } else {
            open.filter_map(|(at, group)| Some((*group.waiters.first_key_value()?.0, at))).min()?.1
        };
        let waiters = &mut self.groups[at].waiters;
        let (ticket, waiter) = if newest { waiters.pop_last() } else { waiters.pop_first() }?;
        self.waiting -= 1;
        Some((at, ticket, waiter))
    }

    fn remove(&mut self, ticket: Ticket) {
        let gone = self.groups.iter_mut().any(|group| group.waiters.remove(&ticket).is_some());
        self.waiting -= usize::from(gone);
        self.prune();
    }

    fn prune(&mut self) {
        self.groups.retain(|group| !group.waiters.is_empty());
    }

    /// Groups that could use this deployment are worth a look again.
    fn note_change(&mut self, deployment: DeploymentId) {
        for group in self.groups.iter_mut().filter(|group| group.blocked) {
            group.blocked = !group.key.usable.contains(&deployment);
        }
    }

    /// So are those for which time, or a change to a credential, may have made room.
    fn note_time(&mut self, now: Now, credential_changes: u64) {
        let credentials = std::mem::replace(&mut self.credential_changes, credential_changes);
        let credentials_changed = credentials != credential_changes;
        if now < self.recheck && !credentials_changed {
            return;
        }
        self.recheck = Now::NEVER;
        for group in &mut self.groups {
            if now >= group.recheck || (credentials_changed && group.wants_credential) {
                group.blocked = false;
                group.recheck = Now::NEVER;
            }
            self.recheck = self.recheck.min(group.recheck);
        }
    }
}

impl Fleet {
    /// Puts a request that was found to have no slot into the queue of its model; gives how many wait there, or why it
    /// cannot wait and when that may be otherwise.
    pub(crate) fn enqueue(
        &mut self,
        facts: &Facts,
        tried: &[DeploymentId],
        decision: &Decision,
        now: Now,
    ) -> Result<(Ticket, u32), (Rejection, Duration)> {
        let ticket = self.next_ticket();
        let key = self.key(facts, decision);
        let gap = self.gap(&key.usable, facts.model);
        let all_full = decision
            .candidates
            .iter()
            .all(|candidate| candidate.why_not.is_none_or(|why| why.is_about_the_request() || why.is_full()));
        let Some(model) = self.models.get_mut(facts.model) else {
            return Err((Rejection::NoDeployment, RETRY_AFTER_MIN));
        };
        let before = model.queue.before(&key);
        let after = retry_after(before, gap);
        // Half of the likely wait: even if slots become free twice as fast as lately, it would be too late.
        let soonest = gap.map(|gap| gap.saturating_mul(u32::try_from(before + 1).unwrap_or(u32::MAX)) / 2);
        if let (Some(soonest), Some(deadline), true) = (soonest, facts.deadline, all_full)
            && now + soonest > deadline
        {
            return Err((Rejection::TooLate, after));
        }
        let pace = Pace::new(model.spec.queue.target, gap);
        let most = model.spec.queue.requests_max;
        let has_room =
            |queue: &Queue| queue_has_room(u32::try_from(queue.len()).unwrap_or(u32::MAX), most, facts.lane);
        let mut pushed_out: SmallVec<[Ticket; PUSHED_OUT_MAX]> = SmallVec::new();
        while facts.lane == Lane::Live
            && model.queue.is_overloaded()
            && pushed_out.len() < PUSHED_OUT_MAX
            && let Some((oldest, since)) = model.queue.oldest(Lane::Live)
            && (now - since > pace.patience() || !has_room(&model.queue))
        {
            model.queue.remove(oldest);
            pushed_out.push(oldest);
        }
        let result = if has_room(&model.queue) {
            let ahead = u32::try_from(model.queue.len()).unwrap_or(u32::MAX);
            let facts = Box::new(facts.clone());
            let waiter = Waiter { facts, since: now, tried: SmallVec::from_slice(tried) };
            model.queue.put(key, ticket, waiter, decision);
            Ok((ticket, ahead))
        } else {
            Err((Rejection::QueueFull, after))
        };
        for ticket in pushed_out {
            self.wake(ticket, Told::PushedOut);
        }
        result
    }

    /// What one who comes now and finds all full has to wait.
    pub(crate) fn retry_after(&self, model: ModelId) -> Duration {
        let Some(known) = self.models.get(model) else { return RETRY_AFTER_MIN };
        retry_after(known.queue.len(), self.gap(&known.deployments, model))
    }

    /// The soonest that time alone may make room for one who waits.
    pub(crate) fn queue_recheck(&self, model: ModelId, ticket: Ticket) -> Now {
        let groups = self.models.get(model).map_or(&[][..], |model| &model.queue.groups);
        let own = groups.iter().find(|group| group.waiters.contains_key(&ticket));
        own.map_or(Now::NEVER, |group| group.recheck)
    }

    /// The time between two slots that become free on these deployments, if it is known.
    fn gap(&self, deployments: &[DeploymentId], model: ModelId) -> Option<Duration> {
        let known = deployments.iter().filter_map(|id| self.deployments.get(*id));
        let inflight = known.fold(0_u32, |sum, deployment| sum.saturating_add(deployment.inflight));
        let inflight = self.pooled_inflight(deployments).unwrap_or(inflight);
        self.models.get(model)?.turnover.gap(inflight)
    }

    /// Sees whether the live lane's queue is standing.
    fn watch_queue(&mut self, model: ModelId, now: Now) {
        let Some(known) = self.models.get(model) else { return };
        let target = known.spec.queue.target;
        let oldest = known.queue.oldest(Lane::Live).map(|(_, since)| since);
        // Who waits shorter than the least target waits no longer than any.
        let waits = !target.is_zero() && oldest.is_some_and(|since| now - since > target);
        // While it is not known how long slots are held, no wait is known to be too long.
        let gap = waits.then(|| self.gap(&known.deployments, model)).flatten();
        if let Some(known) = self.models.get_mut(model) {
            known.queue.standing.observe(oldest.filter(|_| gap.is_some()), Pace::new(target, gap), now);
        }
    }

    /// Takes a request out of the queue. If a slot was granted to it meanwhile, the slot goes to the next.
    pub(crate) fn leave_queue(&mut self, model: ModelId, ticket: Ticket, now: Now, rng: &mut Rng) {
        if let Some(model) = self.models.get_mut(model) {
            model.queue.remove(ticket);
        }
        self.serve_held(ticket, model, now, rng);
        if let Collected::Told(Told::Granted(grant)) = self.collect(ticket) {
            self.release(grant.permit, Ended::Unused, now, rng);
        }
    }

    /// Grants free slots to those who wait, in order. Asks for one waiter of each group at most, beside those that are
    /// served; for nobody while nothing is free or nothing has changed, which is the usual case under load.
    pub(crate) fn serve_queue(&mut self, model: ModelId, now: Now, rng: &mut Rng) {
        let credential_changes = self.credential_changes;
        let Some(queue) = self.models.get_mut(model).map(|model| &mut model.queue) else { return };
        if queue.len() == 0 {
            return;
        }
        queue.note_time(now, credential_changes);
        self.watch_queue(model, now);
        let mut moved = 0;
        while moved < WAITERS_MOVED_MAX
            && self.has_room(model)
            && let Some((at, ticket, waiter)) = self.models.get_mut(model).and_then(|m| m.queue.pop())
        {
            let now_at = self.serve(model, ticket, waiter, now, rng);
            moved += usize::from(now_at.is_some_and(|now_at| now_at != at));
        }
        if let Some(model) = self.models.get_mut(model) {
            model.queue.prune();
        }
    }

    /// The same after a deployment of the model changed: a slot was freed, say, or its breaker closed.
    pub(crate) fn serve_changed(
        &mut self,
        deployment: DeploymentId,
        model: ModelId,
        now: Now,
        rng: &mut Rng,
    ) {
        if let Some(model) = self.models.get_mut(model) {
            model.queue.note_change(deployment);
        }
        self.serve_queue(model, now, rng);
    }

    /// The same after a reload: all who wait are looked at, for what they could use may be something else now.
    pub(crate) fn serve_all(&mut self, model: ModelId, now: Now, rng: &mut Rng) {
        let queue = self.models.get_mut(model).map(|model| std::mem::take(&mut model.queue));
        for (ticket, waiter) in queue.unwrap_or_default().into_waiters() {
            self.serve(model, ticket, waiter, now, rng);
        }
    }

    /// Grants a slot to one that was taken out of the queue, or puts it back: the place of the group it waits in then.
    fn serve(
        &mut self,
        model: ModelId,
        ticket: Ticket,
        waiter: Waiter,
        now: Now,
        rng: &mut Rng,
    ) -> Option<usize> {
        match choose(self, &waiter.facts, &waiter.tried, now, rng) {
            Evaluation::Chosen(mut decision, permit) => {
                if let Outcome::Chosen(choice) = &mut decision.outcome {
                    choice.why = Why::SlotFreed;
                }
                if let Some(model) = self.models.get_mut(model) {
                    model.queue.note_served(waiter.facts.lane);
                }
                self.let_go_of(ticket);
                self.wake(ticket, Told::Granted(Box::new(Grant { decision, permit })));
                None
            }
            // It waits on, in its place; somebody behind it may be able to use what is free.
            Evaluation::Full(decision) => {
                self.note_passed(ticket, &decision);
                let key = self.key(&waiter.facts, &decision);
                let queue = &mut self.models.get_mut(model)?.queue;
                Some(queue.put(key, ticket, waiter, &decision))
            }
            // It will ask again, and be told why.
            Evaluation::Rejected(_) => {
                self.wake(ticket, Told::AskAgain);
                None
            }
        }
    }

    /// What a request could use, from a decision that looked at all deployments.
    fn key(&self, facts: &Facts, decision: &Decision) -> Key {
        let usable = |candidate: &&Candidate| candidate.why_not.is_none_or(|why| !why.is_about_the_request());
        let candidates = decision.candidates.iter().filter(usable);
        let usable: SmallVec<[DeploymentId; 8]> = candidates.map(|candidate| candidate.deployment).collect();
        let counted = usable.iter().filter_map(|id| self.deployments.get(*id)).any(|deployment| {
            let credentials = self.providers[deployment.provider].credentials.iter();
            credentials.filter_map(|id| self.credentials.get(*id)).any(|known| known.spec.tpm.is_some())
        });
        let size_class = if counted { tokens_of(facts).max(1).ilog2() } else { 0 };
        Key { usable, lane: facts.lane, size_class }
    }

    /// Whether any deployment of the model has a free slot.
    fn has_room(&self, model: ModelId) -> bool {
        self.models.get(model).is_some_and(|model| {
            model
                .deployments
                .iter()
                .filter_map(|id| self.deployments.get(*id))
                .any(|deployment| self.has_slot(deployment))
        })
    }
}
