//! Waiting for a slot: who may join a queue, and how slots are given to those who wait. The fleet takes the permit on a
//! waiter's behalf, so that no newcomer can slip in between.

use std::time::Duration;

use smallvec::SmallVec;

use super::credential::earlier;
use super::discipline::{Pace, retry_after};
use super::line::Waiter;
use super::order::{Charge, Due, Rank};
use super::queue::Key;
use super::{Collected, Ended, Fleet, Permit, Told, tokens_of};
use crate::catalog::Capabilities;
use crate::decide::{Evaluation, Past, choose};
use crate::decision::{Candidate, Decision, Outcome, Place, Rejection, Why, WhyNot};
use crate::facts::{Facts, Lane};
use crate::failure::Processed;
use crate::ids::{AccountId, DeploymentId, ModelId, Ticket};
use crate::limits::{RETRY_AFTER_MIN, SPEED_BELIEVED, WAITERS_MOVED_MAX};
use crate::pool::Held;
use crate::rng::Rng;
use crate::shed::queue_has_room;
use crate::time::Now;

/// Requests that one newcomer may push out in overload: one for the place it takes, one to make the queue shorter.
const PUSHED_OUT_MAX: usize = 2;

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

impl Fleet {
    /// A request comes, whether it will have to wait or not. Those who wait come first: time alone may have made room for
    /// them (a breaker that is due, a quota that turned).
    pub(crate) fn arrive(&mut self, facts: &Facts, now: Now, rng: &mut Rng) -> Option<AccountId> {
        if facts.lane == Lane::Batch {
            self.refresh_reserves(facts.model, now);
        }
        self.serve_queue(facts.model, now, rng);
        let model = self.models.get_mut(facts.model)?;
        Some(model.queue.note_arrival(facts, &self.tenants))
    }

    /// Charges a request that is sent to its tenant's share.
    pub(crate) fn charge(&mut self, facts: &Facts) -> Option<Charge> {
        let model = self.models.get_mut(facts.model)?;
        Some(model.queue.charge(facts, &self.tenants))
    }

    /// Settles what a request was charged, once it ended.
    pub(crate) fn settle_share(
        &mut self,
        model: ModelId,
        charge: Option<Charge>,
        sent: bool,
        ended: Ended<'_>,
    ) {
        let Some((model, charge)) = self.models.get_mut(model).zip(charge) else { return };
        let due = match ended {
            Ended::Well(usage) => Due::Used(usage),
            Ended::Failed(failure) if failure.processed == Processed::No => Due::Nothing,
            // One that gave its slot back pays for the attempt that it gets instead.
            Ended::Unused => Due::Nothing,
            Ended::Abandoned if !sent => Due::Nothing,
            Ended::Failed(_) | Ended::Abandoned => Due::AsCharged,
        };
        model.queue.settle(&charge, due);
    }

    /// Puts a request that was found to have no slot into the queue of its model, if it may wait there.
    pub(crate) fn join_queue(
        &mut self,
        facts: &Facts,
        (past, decision): (Past<'_>, &Decision),
        account: Option<AccountId>,
        now: Now,
        rng: &mut Rng,
    ) -> Outcome {
        let joined = account.map(|account| self.enqueue(facts, (past, decision), account, now, rng));
        match joined {
            Some(Ok((ticket, place))) => {
                self.preempt(facts, decision);
                Outcome::Queued { ticket, place }
            }
            Some(Err((why, after))) => Outcome::Rejected { why, retry_after: Some(after) },
            None => Outcome::Rejected { why: Rejection::NoDeployment, retry_after: None },
        }
    }

    /// The same: gives where it stands there, or why it cannot wait and when that may be otherwise.
    fn enqueue(
        &mut self,
        facts: &Facts,
        (past, decision): (Past<'_>, &Decision),
        account: AccountId,
        now: Now,
        rng: &mut Rng,
    ) -> Result<(Ticket, Place), (Rejection, Duration)> {
        let ticket = self.next_ticket();
        let key = self.key(facts, past.tried, decision);
        let recheck = self.recheck(facts, decision);
        if facts.lane == Lane::Live {
            self.note_missed(&key.usable, now);
        }
        // What is released elsewhere, where it fails or is drained, say, serves nobody who waits.
        let full = |candidate: &&Candidate| candidate.why_not.is_some_and(WhyNot::is_full);
        let full = decision.candidates.iter().filter(full).map(|candidate| candidate.deployment);
        let full: SmallVec<[DeploymentId; 8]> = full.collect();
        let gap = self.gap(&full, facts.model);
        let first_content = self.first_content_least(&full, now);
        let all_full = decision
            .candidates
            .iter()
            .all(|candidate| candidate.why_not.is_none_or(|why| why.is_about_the_request() || why.is_full()));
        let Some(model) = self.models.get_mut(facts.model) else {
            return Err((Rejection::NoDeployment, RETRY_AFTER_MIN));
        };
        let mut place = model.queue.place(&key, facts, account, past.came);
        let wait = |gap: Duration| gap.saturating_mul(place.ahead.saturating_add(1));
        let after = retry_after(place.ahead as usize, gap);
        // Half of the likely wait: even if slots become free twice as fast as lately, it would be too late.
        if let (Some(gap), Some(deadline), true) = (gap, facts.deadline, all_full)
            && now + wait(gap) / 2 + first_content > deadline
        {
            return Err((Rejection::TooLate, after));
        }
        place.wait = gap.map(wait);
        let pushed_out = self.make_room(facts, account, gap, now);
        let result = match self.models.get_mut(facts.model) {
            Some(model) if model.has_room(facts.lane) => {
                let tried = SmallVec::from_slice(past.tried);
                let (boxed, came) = (Box::new(facts.clone()), past.came);
                let waiter = Waiter { facts: boxed, since: now, tried, account, came };
                model.queue.put(key, ticket, waiter, (decision, recheck));
                self.note_idle(facts.model, now);
                Ok((ticket, place))
            }
            Some(_) | None => Err((Rejection::QueueFull, after)),
        };
        for (ticket, why) in pushed_out {
            self.wake(ticket, Told::PushedOut(why));
            self.serve_held(ticket, facts.model, now, rng);
        }
        result
    }

    /// Takes those out of the queue who give way to a newcomer: who waited too long in overload, and if there is no room
    /// somebody less important, or of a tenant that has more than its share waiting.
    fn make_room(
        &mut self,
        facts: &Facts,
        account: AccountId,
        gap: Option<Duration>,
        now: Now,
    ) -> SmallVec<[(Ticket, Rejection); PUSHED_OUT_MAX]> {
        let mut pushed_out = SmallVec::new();
        let Some(model) = self.models.get_mut(facts.model) else { return pushed_out };
        let pace = Pace::new(model.spec.queue.target, gap);
        let rank = Rank::of(facts);
        while model.queue.is_newest_first(rank)
            && pushed_out.len() < PUSHED_OUT_MAX
            && let Some((oldest, since)) = model.queue.oldest(rank)
            && now - since > pace.patience()
        {
            model.queue.remove(oldest);
            pushed_out.push((oldest, Rejection::Overloaded));
        }
        if !model.has_room(facts.lane)
            && pushed_out.len() < PUSHED_OUT_MAX
            && let Some(last) = model.queue.gives_way_to(rank, account)
        {
            model.queue.remove(last);
            pushed_out.push((last, Rejection::QueueFull));
        }
        pushed_out
    }

    /// What one who comes now and finds all full has to wait.
    pub(crate) fn retry_after(&self, model: ModelId) -> Duration {
        let Some(known) = self.models.get(model) else { return RETRY_AFTER_MIN };
        retry_after(known.queue.len(), self.gap(&known.deployments, model))
    }

    /// The soonest that time alone may make room for one who waits.
    pub(crate) fn queue_recheck(&self, model: ModelId, ticket: Ticket) -> Now {
        self.models.get(model).map_or(Now::NEVER, |model| model.queue.recheck_of(ticket))
    }

    /// The time between two slots that become free on these deployments, if it is known.
    fn gap(&self, deployments: &[DeploymentId], model: ModelId) -> Option<Duration> {
        let known = deployments.iter().filter_map(|id| self.deployments.get(*id));
        let inflight = known.fold(0_u32, |sum, deployment| sum.saturating_add(deployment.inflight));
        let inflight = self.pooled_inflight(deployments).unwrap_or(inflight);
        self.models.get(model)?.turnover.gap(inflight)
    }

    /// The least that it usually takes to the first content at any of these, as far as that is known and believed.
    fn first_content_least(&self, deployments: &[DeploymentId], now: Now) -> Duration {
        let known = deployments.iter().filter_map(|id| self.deployments.get(*id));
        let least = known.map(|deployment| {
            let believed = now - deployment.first_content_at < SPEED_BELIEVED;
            if believed { deployment.first_content_ns } else { 0 }
        });
        Duration::from_nanos(least.min().unwrap_or(0))
    }

    /// Sees whether a queue in which somebody sits and waits is standing.
    fn watch_queue(&mut self, model: ModelId, now: Now) {
        for rank in Rank::all().filter(|rank| rank.prefers_newest()) {
            let Some(known) = self.models.get(model) else { return };
            let target = known.spec.queue.target;
            let oldest = known.queue.oldest(rank).map(|(_, since)| since);
            // Who waits shorter than the least target waits no longer than any.
            let waits = !target.is_zero() && oldest.is_some_and(|since| now - since > target);
            // While it is not known how long slots are held, no wait is known to be too long.
            let gap = waits.then(|| self.gap(&known.deployments, model)).flatten();
            if let Some(known) = self.models.get_mut(model) {
                known.queue.watch(rank, oldest.filter(|_| gap.is_some()), Pace::new(target, gap), now);
            }
        }
    }

    /// Takes a request out of the queue. If a slot was granted to it meanwhile, the slot goes to the next.
    pub(crate) fn leave_queue(&mut self, model: ModelId, ticket: Ticket, now: Now, rng: &mut Rng) {
        if let Some(model) = self.models.get_mut(model) {
            model.queue.remove(ticket);
        }
        self.serve_held(ticket, model, now, rng);
        self.note_idle(model, now);
        if let Collected::Told(Told::Granted(grant)) = self.collect(ticket) {
            self.release(grant.permit, Ended::Unused, now, rng);
        }
    }

    /// Grants free slots to those who wait, in order. Asks for one waiter of each group at most, beside those that are
    /// served; for nobody while nothing is free or nothing has changed, which is the usual case under load.
    pub(crate) fn serve_queue(&mut self, model: ModelId, now: Now, rng: &mut Rng) {
        let credentials = (self.credential_changes, self.credential_failures);
        let Some(queue) = self.models.get_mut(model).map(|model| &mut model.queue) else { return };
        if queue.len() == 0 {
            return;
        }
        queue.note_time(now, credentials);
        if queue.len_of(Lane::Batch) > 0 {
            self.refresh_reserves(model, now);
        }
        self.watch_queue(model, now);
        let mut moved = 0;
        while moved < WAITERS_MOVED_MAX
            && self.has_room(model)
            && let Some((at, ticket, waiter)) = self.models.get_mut(model).and_then(|m| m.queue.pop())
        {
            let now_at = self.serve(model, ticket, waiter, now, rng);
            moved += usize::from(now_at.is_some_and(|now_at| now_at != at));
        }
        if let Some(known) = self.models.get_mut(model) {
            known.queue.prune();
        }
        self.note_idle(model, now);
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
        let Some(known) = self.models.get_mut(model) else { return };
        known.queue.note_reload();
        self.refresh_reserves(model, now);
        while let Some((_, ticket, waiter)) = self.models.get_mut(model).and_then(|m| m.queue.pop()) {
            self.serve(model, ticket, waiter, now, rng);
        }
        if let Some(model) = self.models.get_mut(model) {
            model.queue.prune();
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
        let rank = Rank::of(&waiter.facts);
        // Whose turn it is in any case is not held off for those whose turn it is not.
        let owed = rank.lane == Lane::Batch && self.models.get(model).is_some_and(|m| m.queue.is_owed(rank));
        if owed {
            self.open_reserves(model, true);
        }
        let evaluation = choose(self, &waiter.facts, &waiter.tried, now, rng);
        if owed {
            self.open_reserves(model, false);
        }
        match evaluation {
            Evaluation::Chosen(mut decision, permit) => {
                if let Outcome::Chosen(choice) = &mut decision.outcome {
                    choice.why = Why::SlotFreed;
                }
                if let Some(model) = self.models.get_mut(model) {
                    model.queue.note_served(rank);
                }
                self.wake(ticket, Told::Granted(Box::new(Grant { decision, permit })));
                // What was held for it elsewhere is for those who waited behind it there.
                self.serve_held(ticket, model, now, rng);
                None
            }
            // It waits on, in its place; somebody behind it may be able to use what is free.
            Evaluation::Full(decision) => {
                self.note_passed(Held { ticket, firm: owed || rank.lane == Lane::Live }, &decision);
                let key = self.key(&waiter.facts, &waiter.tried, &decision);
                let recheck = self.recheck(&waiter.facts, &decision);
                let queue = &mut self.models.get_mut(model)?.queue;
                Some(queue.put(key, ticket, waiter, (&decision, recheck)))
            }
            // It will ask again, and be told why.
            Evaluation::Rejected(_) => {
                self.wake(ticket, Told::AskAgain);
                self.serve_held(ticket, model, now, rng);
                None
            }
        }
    }

    /// The soonest that time alone may make room for a request, from a decision that found none.
    fn recheck(&self, facts: &Facts, decision: &Decision) -> Now {
        let soonest = |candidate: &Candidate| {
            let why = candidate.why_not?;
            // One that failed is used before its time if too few others are left, but not while it rests.
            let early = matches!(why, WhyNot::Failed { .. })
                .then(|| self.could_be_sent_from(candidate.deployment, facts, decision.at));
            earlier(why.returns_at(), early.flatten())
        };
        decision.candidates.iter().filter_map(soonest).min().unwrap_or(Now::NEVER)
    }

    /// What a request could use, from a decision that looked at all deployments.
    fn key(&self, facts: &Facts, tried: &[DeploymentId], decision: &Decision) -> Key {
        // One that is too slow now may have become faster by the time it has room.
        let is_late = |candidate: &&Candidate| candidate.why_not == Some(WhyNot::TooLate);
        let usable = |candidate: &&Candidate| {
            is_late(candidate) || candidate.why_not.is_none_or(|why| !why.is_about_the_request())
        };
        let late = decision.candidates.iter().filter(is_late).map(|candidate| candidate.deployment).collect();
        let candidates = decision.candidates.iter().filter(usable);
        let usable: SmallVec<[DeploymentId; 8]> = candidates.map(|candidate| candidate.deployment).collect();
        let counted = usable.iter().filter_map(|id| self.deployments.get(*id)).any(|deployment| {
            let credentials = self.providers[deployment.provider].credentials.iter();
            credentials.filter_map(|id| self.credentials.get(*id)).any(|known| known.spec.tpm.is_some())
        });
        let size_class = if counted { tokens_of(facts).max(1).ilog2() } else { 0 };
        let missing = |candidate: &Candidate| matches!(candidate.why_not, Some(WhyNot::Missing { .. }));
        let missing = decision.candidates.iter().any(missing);
        let missing = if missing { facts.needs.operation() } else { Capabilities::NONE };
        Key { usable, lane: facts.lane, size_class, missing, late, may_probe: tried.is_empty() }
    }

    /// Whether any deployment of the model has a free slot.
    pub(super) fn has_room(&self, model: ModelId) -> bool {
        self.models.get(model).is_some_and(|model| {
            model
                .deployments
                .iter()
                .filter_map(|id| self.deployments.get(*id))
                .any(|deployment| self.has_slot(deployment))
        })
    }
}

impl super::Model {
    /// Whether one more of a lane may wait.
    fn has_room(&self, lane: Lane) -> bool {
        let most = self.spec.queue.requests_max(lane);
        queue_has_room(u32::try_from(self.queue.len_of(lane)).unwrap_or(u32::MAX), most)
    }
}
