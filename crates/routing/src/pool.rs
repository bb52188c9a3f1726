//! Pools: slots that several models share, because they share one box or one engine.
//!
//! Each model has a guarantee, a weight and a cap. What one does not use of its guarantee is lent, and comes back with the
//! next release. When a slot of the pool frees, it goes to the waiting model with the largest claim ([`Pool::next`]):
//!
//! 1. those below their guarantee, the one that has the least of it first;
//! 2. of the others those that have live requests waiting, then by use per weight, the least first.
//!
//! Of equal claims the one is served whose turn it is by weight (stride scheduling, [Waldspurger and Weihl 1995]), so that
//! one slot that many share goes round. Nobody gets more than its cap.
//!
//! Where tokens count as well, use is the larger of both shares (dominant resource fairness, [Ghodsi et al. 2011]), and a
//! request that is next but needs more tokens than are free holds the pool until they are: small ones that come later may
//! not keep it waiting for ever. A request larger than all tokens runs when it is alone.
//!
//! All is counted in whole numbers and compared by cross-multiplying. O(models of the pool) a release.
//!
//! [Waldspurger and Weihl 1995]: https://dspace.mit.edu/handle/1721.1/149253
//! [Ghodsi et al. 2011]: https://www.usenix.org/conference/nsdi11/dominant-resource-fairness-fair-allocation-multiple-resource-types

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::catalog::Name;
use crate::decision::PoolLimit;
use crate::facts::Lane;
use crate::ids::{ModelId, Ticket};

/// What a turn by weight costs at weight 1.
const STRIDE: u128 = 1 << 32;

/// A pool, as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PoolSpec {
    /// Requests that it may have in flight. `None`: any number.
    pub slots: Option<u32>,
    /// Tokens that those may have together. `None`: any number.
    pub tokens: Option<u64>,
    /// What models get of it that use it, by name. Others have no guarantee, weight 1 and no cap.
    pub models: BTreeMap<Name, ShareSpec>,
    /// Whether batch requests on it give way to live ones.
    pub preempt: Option<PreemptSpec>,
}

/// What a model gets of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareSpec {
    /// Slots that it has whenever it needs them.
    pub guarantee: u32,
    /// The same in tokens.
    pub guarantee_tokens: u64,
    /// Its share of what is not guaranteed to anybody, relative to the others. At least 1.
    pub weight: u32,
    /// The most slots it may have. `None`: all.
    pub cap: Option<u32>,
    /// The same in tokens.
    pub cap_tokens: Option<u64>,
    /// Whether others may use its guarantee while it does not.
    pub lend: bool,
}

impl Default for ShareSpec {
    fn default() -> Self {
        Self { guarantee: 0, guarantee_tokens: 0, weight: 1, cap: None, cap_tokens: None, lend: true }
    }
}

/// Whether batch requests give their slots to live ones before their first content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreemptSpec {
    /// How often one request does.
    pub times_max: u32,
}

/// What is in use of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Used {
    pub(crate) requests: u32,
    pub(crate) tokens: u64,
}

impl Used {
    fn take(&mut self, tokens: u64) {
        self.requests += 1;
        self.tokens = self.tokens.saturating_add(tokens);
    }

    fn give_back(&mut self, tokens: u64) {
        debug_assert!(self.requests > 0, "nothing is given back twice");
        self.requests = self.requests.saturating_sub(1);
        self.tokens = self.tokens.saturating_sub(tokens);
    }

    /// Adds what is in use already.
    pub(crate) fn add(&mut self, requests: u32, tokens: u64) {
        self.requests = self.requests.saturating_add(requests);
        self.tokens = self.tokens.saturating_add(tokens);
    }

    /// Whether a request of so many tokens finds them free. One that is alone always does.
    pub(crate) fn has_tokens(&self, most: Option<u64>, tokens: u64) -> bool {
        self.requests == 0 || most.is_none_or(|most| self.tokens.saturating_add(tokens) <= most)
    }

    /// What is beyond a size.
    fn beyond(&self, slots: Option<u32>, tokens: Option<u64>) -> Self {
        // Of one request alone nothing is beyond.
        let alone = self.requests <= 1;
        Self {
            requests: slots.map_or(0, |slots| self.requests.saturating_sub(slots)),
            tokens: tokens.filter(|_| !alone).map_or(0, |tokens| self.tokens.saturating_sub(tokens)),
        }
    }

    fn min(self, other: Self) -> Self {
        Self { requests: self.requests.min(other.requests), tokens: self.tokens.min(other.tokens) }
    }
}

/// A model that uses a pool, live.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: Name,
    /// The model of that name, while there is one with a deployment in the pool.
    pub(crate) model: Option<ModelId>,
    pub(crate) share: ShareSpec,
    pub(crate) used: Used,
    /// What it had beyond its cap when that was made smaller, as far as it still has it.
    over: Used,
    /// Its first waiter needs more tokens than are free, and none of its own may overtake it.
    pub(crate) held: Option<Held>,
    /// Its turn, by weight: the smaller, the sooner. Wide enough for as many turns as there can be.
    turn: u128,
}

/// A fraction that is compared without being divided.
#[derive(Debug, Clone, Copy)]
struct Part(u128, u128);

impl Part {
    fn of(used: u64, whole: u64) -> Self {
        Self(u128::from(used), u128::from(whole.max(1)))
    }

    fn compare(self, other: Self) -> Ordering {
        (self.0 * other.1).cmp(&(other.0 * self.1))
    }

    fn larger(self, other: Self) -> Self {
        if self.compare(other) == Ordering::Less { other } else { self }
    }
}

impl Member {
    fn new(name: Name) -> Self {
        Self {
            name,
            model: None,
            share: ShareSpec::default(),
            used: Used::default(),
            over: Used::default(),
            held: None,
            turn: 0,
        }
    }

    /// How much it has of its guarantee, if it has one.
    fn filled(&self) -> Option<Part> {
        let slots = (self.share.guarantee > 0)
            .then(|| Part::of(u64::from(self.used.requests), u64::from(self.share.guarantee)));
        let tokens = (self.share.guarantee_tokens > 0)
            .then(|| Part::of(self.used.tokens, self.share.guarantee_tokens));
        match (slots, tokens) {
            (Some(slots), Some(tokens)) => Some(slots.larger(tokens)),
            (one, None) | (None, one) => one,
        }
    }

    /// How much it has of its guarantee, while that is less than all of it.
    fn shortfall(&self) -> Option<Part> {
        self.filled().filter(|part| part.0 < part.1)
    }

    /// Whether it has less than it is guaranteed.
    pub(crate) fn is_below_guarantee(&self) -> bool {
        self.shortfall().is_some()
    }

    /// Whether it would still have its guarantee without a request of so many tokens.
    pub(crate) fn could_spare(&self, tokens: u64) -> bool {
        let mut without = self.clone();
        without.used.give_back(tokens);
        !without.is_below_guarantee()
    }

    /// Slots that it has of others' guarantees or of what is nobody's.
    pub(crate) fn borrowed(&self) -> u32 {
        self.used.requests.saturating_sub(self.share.guarantee)
    }

    /// Slots of its guarantee that it does not use.
    pub(crate) fn unused(&self) -> u32 {
        self.share.guarantee.saturating_sub(self.used.requests)
    }

    fn unused_tokens(&self) -> u64 {
        self.share.guarantee_tokens.saturating_sub(self.used.tokens)
    }

    /// Whether it has what it may have, and no more than it had when that was made less.
    pub(crate) fn keeps_to_its_cap(&self) -> bool {
        let beyond = self.used.beyond(self.share.cap, self.share.cap_tokens);
        beyond.min(self.over) == beyond
    }
}

/// One whose need for tokens keeps others waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) ticket: Ticket,
    /// Live requests wait for it too; those do not wait for batch, but where it is its turn whatever else waits.
    pub(crate) firm: bool,
}

impl Held {
    /// Whether a request of a lane waits for it.
    pub(crate) fn binds(self, lane: Lane) -> bool {
        self.firm || lane == Lane::Batch
    }
}

/// Who may take of a pool now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Everybody, as far as there is room.
    Open,
    /// One request of this member.
    Of(usize),
    /// Nobody.
    Closed,
}

/// A pool, live.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    pub(crate) name: Name,
    pub(crate) spec: PoolSpec,
    /// Whether it is configured; one that is not has no deployments.
    pub(crate) configured: bool,
    /// As many as models ever used it; each keeps its place.
    pub(crate) members: Vec<Member>,
    pub(crate) used: Used,
    /// What was beyond its size when that was made smaller, as far as it still is.
    over: Used,
    pub(crate) turn: Turn,
    /// Whose next request needs more tokens than are free, so that those with a smaller claim wait for it.
    held: Option<(usize, Held)>,
    /// Where the turns are.
    turns: u128,
    /// Permits taken so far.
    pub(crate) taken: u64,
}

/// Those who wait at one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Nobody.
    None,
    /// Batch requests only.
    Batch,
    /// Live requests.
    Live,
}

impl Pool {
    pub(crate) fn new(name: Name) -> Self {
        Self {
            name,
            spec: PoolSpec::default(),
            configured: false,
            members: Vec::new(),
            used: Used::default(),
            over: Used::default(),
            turn: Turn::Open,
            held: None,
            turns: 0,
            taken: 0,
        }
    }

    /// The place of a model of that name; a new one if it has none.
    pub(crate) fn member(&mut self, name: &Name) -> usize {
        self.members.iter().position(|known| known.name == *name).unwrap_or_else(|| {
            let share = self.spec.models.get(name).copied().unwrap_or_default();
            self.members.push(Member { share, ..Member::new(Name::clone(name)) });
            self.members.len() - 1
        })
    }

    /// Is what it is now configured to be; what is in use is counted anew after this.
    pub(crate) fn apply(&mut self, spec: Option<&PoolSpec>) {
        self.configured = spec.is_some();
        self.spec = spec.cloned().unwrap_or_default();
        (self.used, self.turn, self.held) = (Used::default(), Turn::Closed, None);
        for member in &mut self.members {
            member.share = self.spec.models.get(&member.name).copied().unwrap_or_default();
            (member.used, member.model, member.held) = (Used::default(), None, None);
        }
    }

    /// Counts what a deployment of a member has in flight.
    pub(crate) fn count(&mut self, member: usize, requests: u32, tokens: u64) {
        self.used.add(requests, tokens);
        self.members[member].used.add(requests, tokens);
    }

    /// All is counted: what is too much now may go on until it ends.
    pub(crate) fn counted(&mut self) {
        self.over = self.used.beyond(self.spec.slots, self.spec.tokens);
        for member in &mut self.members {
            member.over = member.used.beyond(member.share.cap, member.share.cap_tokens);
        }
    }

    /// Whether a request of so many tokens may be taken for a member, or what there is none of.
    pub(crate) fn room(&self, at: usize, lane: Lane, tokens: u64) -> Result<(), PoolLimit> {
        match self.turn {
            Turn::Open => {}
            Turn::Of(turn) if turn == at => {}
            Turn::Of(_) | Turn::Closed => return Err(PoolLimit::Slots),
        }
        let member = &self.members[at];
        self.has_slot(at)?;
        if member.held.is_some_and(|held| held.binds(lane))
            || !member.used.has_tokens(member.share.cap_tokens, tokens)
        {
            return Err(PoolLimit::CapTokens);
        }
        let waits_for_tokens = self.held.is_some_and(|(holder, held)| {
            let owed = self.members[holder].is_below_guarantee();
            (owed || held.binds(lane)) && (holder == at || owed || !member.is_below_guarantee())
        });
        if waits_for_tokens || !self.used.has_tokens(self.spec.tokens, tokens) {
            return Err(PoolLimit::Tokens);
        }
        let kept = self.kept(at, Member::unused_tokens);
        let free = self.spec.tokens.map_or(u64::MAX, |all| all.saturating_sub(self.used.tokens));
        if kept > 0
            && self.used.requests > 0
            && free.saturating_sub(kept) < tokens
            && !member.is_below_guarantee()
        {
            return Err(PoolLimit::Guarantees);
        }
        Ok(())
    }

    /// Whether a member may have another slot, whatever its tokens.
    pub(crate) fn has_slot(&self, at: usize) -> Result<(), PoolLimit> {
        let member = &self.members[at];
        let free = self.spec.slots.map_or(u32::MAX, |slots| slots.saturating_sub(self.used.requests));
        if free == 0 {
            return Err(PoolLimit::Slots);
        }
        if member.share.cap.is_some_and(|cap| member.used.requests >= cap) {
            return Err(PoolLimit::Cap);
        }
        let kept = self.kept(at, |other| u64::from(other.unused()));
        if u64::from(free) <= kept && !member.is_below_guarantee() {
            return Err(PoolLimit::Guarantees);
        }
        Ok(())
    }

    /// What is kept free for others that do not lend.
    fn kept(&self, at: usize, unused: impl Fn(&Member) -> u64) -> u64 {
        let others = self.members.iter().enumerate().filter(|(place, _)| *place != at);
        others.filter(|(_, one)| !one.share.lend && one.model.is_some()).map(|(_, one)| unused(one)).sum()
    }

    /// The member with the largest claim of those that wait and may have a slot, `passed` not counted.
    pub(crate) fn next(&self, waits: impl Fn(&Member) -> Waits, passed: &[usize]) -> Option<usize> {
        let all = self.members.iter().enumerate();
        let able = all.filter(|(at, _)| !passed.contains(at) && self.has_slot(*at).is_ok());
        let waiting = able.map(|(at, member)| (at, waits(member))).filter(|(_, waits)| *waits != Waits::None);
        waiting.min_by(|(a, of_a), (b, of_b)| self.compare((*a, *of_a), (*b, *of_b))).map(|(at, _)| at)
    }

    /// Whose claim is larger: that of the one that is less.
    fn compare(&self, (a, a_waits): (usize, Waits), (b, b_waits): (usize, Waits)) -> Ordering {
        let (one, other) = (&self.members[a], &self.members[b]);
        let live_first = || (b_waits == Waits::Live).cmp(&(a_waits == Waits::Live));
        let claims = match (one.shortfall(), other.shortfall()) {
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.compare(other).then_with(live_first),
            (None, None) => live_first().then_with(|| self.per_weight(a).compare(self.per_weight(b))),
        };
        claims.then(one.turn.cmp(&other.turn)).then_with(|| one.name.cmp(&other.name))
    }

    /// What a member uses of the pool, by its weight.
    fn per_weight(&self, at: usize) -> Part {
        let Member { used, share, .. } = &self.members[at];
        let weight = u64::from(share.weight.max(1));
        let slots = Part::of(
            u64::from(used.requests),
            u64::from(self.spec.slots.unwrap_or(1)).saturating_mul(weight),
        );
        match (self.spec.slots, self.spec.tokens) {
            (_, None) => slots,
            (None, Some(tokens)) => Part::of(used.tokens, tokens.saturating_mul(weight)),
            (Some(_), Some(tokens)) => slots.larger(Part::of(used.tokens, tokens.saturating_mul(weight))),
        }
    }

    /// A permit is taken.
    pub(crate) fn take(&mut self, at: usize, tokens: u64) {
        self.used.take(tokens);
        self.taken += 1;
        let member = &mut self.members[at];
        member.used.take(tokens);
        // Who comes back from idle does not bring the turns along that it had no use for.
        self.turns = self.turns.max(member.turn);
        member.turn = self.turns + STRIDE / u128::from(member.share.weight.max(1));
        if let Turn::Of(_) = self.turn {
            self.turn = Turn::Closed;
        }
    }

    /// A permit is given back.
    pub(crate) fn give_back(&mut self, at: usize, tokens: u64) {
        self.used.give_back(tokens);
        self.over = self.over.min(self.used.beyond(self.spec.slots, self.spec.tokens));
        let member = &mut self.members[at];
        member.used.give_back(tokens);
        member.over = member.over.min(member.used.beyond(member.share.cap, member.share.cap_tokens));
    }

    /// A waiter of this member is next and needs more tokens than are free: of the pool, or below the member's cap.
    pub(crate) fn hold(&mut self, at: usize, held: Held, limit: PoolLimit) {
        match limit {
            PoolLimit::Tokens => {
                self.held.get_or_insert((at, held));
            }
            PoolLimit::CapTokens => {
                self.members[at].held.get_or_insert(held);
            }
            PoolLimit::Slots | PoolLimit::Cap | PoolLimit::Guarantees => {}
        }
    }

    /// One who held it does so no more.
    pub(crate) fn let_go_of(&mut self, ticket: Ticket) {
        self.held = self.held.filter(|(_, held)| held.ticket != ticket);
        for member in &mut self.members {
            member.held = member.held.filter(|held| held.ticket != ticket);
        }
    }

    /// Nobody holds it any more.
    pub(crate) fn let_go(&mut self) {
        self.held = None;
        self.members.iter_mut().for_each(|member| member.held = None);
    }

    /// Whose need for tokens keeps others waiting, and of which model.
    pub(crate) fn holder(&self) -> Option<(Held, Option<ModelId>)> {
        self.held.map(|(at, held)| (held, self.members[at].model))
    }

    /// Whether somebody's need for tokens keeps those with smaller claims waiting.
    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Whether no more is in use than there is, or than was when it was made smaller.
    pub(crate) fn keeps_to_its_size(&self) -> bool {
        let beyond = self.used.beyond(self.spec.slots, self.spec.tokens);
        beyond.min(self.over) == beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_go_round_however_many_there_were() {
        let mut pool = Pool::new("box".into());
        pool.apply(Some(&PoolSpec { slots: Some(1), ..PoolSpec::default() }));
        pool.turn = Turn::Open;
        let members = [pool.member(&"a".into()), pool.member(&"b".into())];
        // Four thousand million requests, each of which is a whole turn at weight 1.
        for at in members {
            pool.members[at].turn = u64::MAX.into();
        }
        for nth in 0..8 {
            let next = pool.next(|_| Waits::Live, &[]).expect("there is room");
            assert_eq!(next, members[nth % 2]);
            pool.take(next, 1);
            pool.give_back(next, 1);
        }
    }
}
