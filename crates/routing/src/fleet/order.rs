//! In which order those who wait for the slots of one model are served: lane, then class, then tenant.
//!
//! **Lane and class** ([`Rank`]): the most important first, live before batch. Whoever waits behind others gets one
//! grant in twenty all the same ([`Turns`]), so that nobody starves.
//!
//! **Tenant** ([`Shares`]): the virtual token counter of [Sheng et al. 2024]. Each tenant has a counter of the service it
//! got, prompt tokens that were not cached plus twice the output, over its weight; the smallest is next. One that comes
//! back from idle is *lifted* to the least counter of those that wait, so that what it did not use meanwhile is neither
//! saved up nor held against it; where nobody waits, to the counter of whoever was served last. The paper counts output as it
//! is made. Here a request is charged when it is sent, with the output that is usual for its tenant, and settled when it
//! ends, so that many at once are not taken for none. One that is lifted is lifted to what the other surely got: without
//! the output that is under way, for that is still to come, and may be less. Otherwise what is charged and then given back
//! would be held against who came meanwhile.
//!
//! [Sheng et al. 2024]: https://www.usenix.org/conference/osdi24/presentation/sheng

use std::collections::BTreeMap;

use crate::catalog::{Name, TenantSpec};
use crate::facts::{Class, Facts, Lane};
use crate::flow::Usage;
use crate::ids::AccountId;
use crate::limits::{TENANTS_MAX, TOKENS_OUT_ASSUMED};
use crate::slab::Slab;

/// Of so many grants one goes to each rank that waits behind others.
pub(crate) const FLOOR_ONE_IN: u16 = 20;
/// Grants that a rank may be owed for, so that one that could use none for long does not take many in a row.
const PASSED_OVER_MAX: u16 = 3 * FLOOR_ONE_IN;
/// What an output token counts as beside one of the prompt.
const OUTPUT_WEIGHT: u64 = 2;
/// Counters are in parts of a token, so that great weights do not round small requests away.
const SCALE: u64 = 1 << 16;
/// Weight of one more answer in the usual output of a tenant.
const OUTPUT_LEARNT: f64 = 0.1;
/// The tenant that those share who found no account.
const OTHERS: &str = "other";

/// A lane and a class of it: what is served before what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    pub(crate) lane: Lane,
    pub(crate) class: Class,
}

impl Rank {
    /// How many there are.
    pub(crate) const COUNT: usize = 8;

    pub(crate) fn of(facts: &Facts) -> Self {
        Self { lane: facts.lane, class: facts.class }
    }

    /// Every rank, in the order that they are served.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let lanes = [Lane::Live, Lane::Batch].into_iter();
        lanes.flat_map(|lane| Class::ALL.into_iter().map(move |class| Self { lane, class }))
    }

    /// Its place among all.
    pub(crate) const fn index(self) -> usize {
        self.lane as usize * Class::ALL.len() + self.class as usize
    }

    /// Whether the newest are served first while too many wait: where somebody sits and waits, and may have given up.
    pub(crate) const fn prefers_newest(self) -> bool {
        matches!((self.lane, self.class), (Lane::Live, Class::Interactive | Class::Standard))
    }
}

/// Whose turn it is by rank.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turns {
    /// By rank: grants that went to others while it waited, less what it got for them.
    passed_over: [u16; Rank::COUNT],
}

impl Turns {
    /// The rank that is next among those that are `open`: one that was passed over too often, or the most important.
    pub(crate) fn next(&self, open: impl Fn(Rank) -> bool) -> Option<Rank> {
        let passed_over = |rank: Rank| self.passed_over[rank.index()];
        let owed = Rank::all().filter(|rank| self.is_owed(*rank) && open(*rank));
        // Of equals the most important, which `max_by_key` would give last.
        let owed = owed.reduce(|best, one| if passed_over(one) > passed_over(best) { one } else { best });
        owed.or_else(|| Rank::all().find(|rank| open(*rank)))
    }

    /// Whether it was passed over so often that it is its turn whatever stands before it.
    pub(crate) fn is_owed(&self, rank: Rank) -> bool {
        self.passed_over[rank.index()] >= FLOOR_ONE_IN - 1
    }

    /// One that did not wait was served past this rank.
    pub(crate) fn note_passed_over(&mut self, rank: Rank) {
        let passed_over = &mut self.passed_over[rank.index()];
        *passed_over = (*passed_over + 1).min(PASSED_OVER_MAX);
    }

    /// One of this rank was granted a slot.
    pub(crate) fn note_served(&mut self, served: Rank, waits: impl Fn(Rank) -> bool) {
        for rank in Rank::all() {
            let passed_over = &mut self.passed_over[rank.index()];
            *passed_over = match rank {
                rank if !waits(rank) => 0,
                rank if rank == served => passed_over.saturating_sub(FLOOR_ONE_IN - 1),
                _ => (*passed_over + 1).min(PASSED_OVER_MAX),
            };
        }
    }
}

/// What a tenant has been served in one rank of one model.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) tenant: Name,
    hash: u64,
    pub(crate) weight: u32,
    /// The service it got over its weight, with what is under way at its estimate.
    pub(crate) counter: u64,
    /// Its requests that wait.
    pub(crate) waiting: u32,
    /// Its charges that are not settled.
    open: u32,
    /// The output that was charged with them, as it went into the counter.
    output_open: u64,
    /// Its requests that were sent so far.
    pub(crate) requests: u64,
    /// Their cost, in prompt tokens.
    pub(crate) served: u64,
    output_usual: f64,
}

impl Account {
    /// What others are lifted to that come back from idle.
    pub(crate) const fn lift(&self) -> u64 {
        self.counter.saturating_sub(self.output_open)
    }

    /// Its charges that are not settled.
    pub(crate) const fn open(&self) -> u32 {
        self.open
    }

    /// Its counter in tokens.
    pub(crate) const fn counter_tokens(&self) -> u64 {
        self.counter / SCALE
    }
}

/// What was charged for a request that is under way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Charge {
    pub(crate) rank: Rank,
    pub(crate) account: Option<AccountId>,
    cost: u64,
    /// The same as it went into the counter.
    counted: u64,
    /// Of that the output.
    output: u64,
}

/// What has to be paid in the end.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due {
    /// What it used.
    Used(Usage),
    /// What was charged, for nobody knows what it used.
    AsCharged,
    /// Nothing, for nothing was processed.
    Nothing,
}

/// The accounts of one rank.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shares {
    accounts: Slab<AccountId, Account>,
    by_hash: BTreeMap<u64, AccountId>,
    /// Who was asked for last: mostly the next one too.
    last: Option<AccountId>,
    /// Who was served last, and what it lifts others to.
    served_last: (Option<AccountId>, u64),
    /// Tenants to come before it is tried again to forget some.
    full_for: u32,
}

impl Shares {
    pub(crate) fn get(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: AccountId) -> Option<&mut Account> {
        self.accounts.get_mut(id)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// A request comes: the account of its tenant, lifted if none of its requests waits. `least` is what the one of
    /// those that wait with the least counter lifts to, if any does.
    pub(crate) fn arrive(
        &mut self,
        facts: &Facts,
        least: Option<u64>,
        tenants: &BTreeMap<Name, TenantSpec>,
    ) -> AccountId {
        let id = self.account(facts, least, tenants);
        let lift = least.unwrap_or(self.served_last.1);
        if let Some(account) = self.accounts.get_mut(id).filter(|account| account.waiting == 0) {
            account.counter = account.counter.max(lift);
            if self.served_last.0 == Some(id) {
                self.served_last.1 = account.lift();
            }
        }
        id
    }

    fn account(
        &mut self,
        facts: &Facts,
        least: Option<u64>,
        tenants: &BTreeMap<Name, TenantSpec>,
    ) -> AccountId {
        let is_own = |id: AccountId| self.accounts.get(id).is_some_and(|one| one.hash == facts.tenant_hash);
        if let Some(last) = self.last.filter(|id| is_own(*id)) {
            return last;
        }
        let known = self.by_hash.get(&facts.tenant_hash).copied();
        let id = known.unwrap_or_else(|| self.open(facts, least, tenants));
        self.last = Some(id);
        id
    }

    fn open(&mut self, facts: &Facts, least: Option<u64>, tenants: &BTreeMap<Name, TenantSpec>) -> AccountId {
        let (mut tenant, mut hash) = (Name::clone(&facts.tenant), facts.tenant_hash);
        if self.by_hash.len() >= TENANTS_MAX && !self.forget(least) {
            (tenant, hash) = (OTHERS.into(), crate::rng::hash(OTHERS.as_bytes()));
        }
        if let Some(known) = self.by_hash.get(&hash) {
            return *known;
        }
        let weight = tenants.get(&tenant).map_or(1, |spec| spec.weight).max(1);
        let account = Account {
            tenant,
            hash,
            weight,
            counter: 0,
            waiting: 0,
            open: 0,
            output_open: 0,
            requests: 0,
            served: 0,
            output_usual: TOKENS_OUT_ASSUMED as f64,
        };
        let id = self.accounts.insert(account);
        self.by_hash.insert(hash, id);
        id
    }

    /// Forgets those that are idle and whose counter they would be lifted above when they come back. Gives whether there
    /// is room for one more.
    fn forget(&mut self, least: Option<u64>) -> bool {
        self.full_for = self.full_for.saturating_sub(1);
        if self.full_for > 0 {
            return false;
        }
        let lift = least.unwrap_or(self.served_last.1);
        let accounts = &mut self.accounts;
        self.by_hash.retain(|_, id| {
            let idle =
                accounts.get(*id).is_none_or(|one| one.waiting == 0 && one.open == 0 && one.counter <= lift);
            if idle {
                accounts.remove(*id);
            }
            !idle
        });
        let full = self.by_hash.len() >= TENANTS_MAX;
        // Looking at all is not for every stranger.
        self.full_for = if full { TENANTS_MAX as u32 / 8 } else { 0 };
        !full
    }

    /// Charges a request that is sent; gives what was charged.
    pub(crate) fn charge(
        &mut self,
        facts: &Facts,
        least: Option<u64>,
        tenants: &BTreeMap<Name, TenantSpec>,
    ) -> Charge {
        let id = self.account(facts, least, tenants);
        let Some(account) = self.accounts.get_mut(id) else {
            return Charge { rank: Rank::of(facts), account: None, cost: 0, counted: 0, output: 0 };
        };
        let usual = account.output_usual as u64;
        let output = facts.tokens_out_max.map_or(usual, |max| usual.min(u64::from(max)));
        let cost = cost(u64::from(facts.tokens_in_estimate), output);
        let counted = scaled(cost, account.weight);
        account.counter = account.counter.saturating_add(counted);
        let output = scaled(self::cost(0, output), account.weight);
        account.open += 1;
        account.output_open = account.output_open.saturating_add(output);
        account.requests += 1;
        account.served = account.served.saturating_add(cost);
        self.served_last = (Some(id), account.lift());
        Charge { rank: Rank::of(facts), account: Some(id), cost, counted, output }
    }

    /// Corrects a charge to what has to be paid. Gives the account's counter if it changed.
    pub(crate) fn settle(&mut self, charge: &Charge, due: Due) -> Option<(AccountId, u64)> {
        let id = charge.account?;
        let account = self.accounts.get_mut(id)?;
        account.open = account.open.saturating_sub(1);
        account.output_open = account.output_open.saturating_sub(charge.output);
        // What was charged is taken back as it went in, whatever the weight is by now.
        let (paid, counted) = match due {
            Due::AsCharged => (charge.cost, charge.counted),
            Due::Nothing => {
                account.requests = account.requests.saturating_sub(1);
                (0, 0)
            }
            Due::Used(usage) => {
                account.output_usual += (usage.tokens_out as f64 - account.output_usual) * OUTPUT_LEARNT;
                let paid = cost(usage.tokens_in.saturating_sub(usage.tokens_in_cached), usage.tokens_out);
                (paid, scaled(paid, account.weight))
            }
        };
        account.counter = account.counter.saturating_add(counted).saturating_sub(charge.counted);
        account.served = account.served.saturating_add(paid).saturating_sub(charge.cost);
        if self.served_last.0 == Some(id) {
            self.served_last.1 = account.lift();
        }
        Some((id, account.counter))
    }

    /// Who has most waiting for its weight; of equals the one that came first.
    pub(crate) fn fattest(&self) -> Option<(AccountId, u32, u32)> {
        let waiting = self.by_hash.values().filter_map(|id| {
            let account = self.accounts.get(*id)?;
            Some((*id, account.waiting, account.weight)).filter(|(_, waiting, _)| *waiting > 0)
        });
        waiting.reduce(|fattest, one| if is_fatter(one, fattest) { one } else { fattest })
    }

    /// Weights as they are configured now.
    pub(crate) fn apply(&mut self, tenants: &BTreeMap<Name, TenantSpec>) {
        for account in self.accounts.values_mut() {
            account.weight = tenants.get(&account.tenant).map_or(1, |spec| spec.weight).max(1);
        }
    }
}

/// What a request costs, in prompt tokens.
fn cost(tokens_in: u64, tokens_out: u64) -> u64 {
    tokens_in.saturating_add(tokens_out.saturating_mul(OUTPUT_WEIGHT))
}

fn scaled(cost: u64, weight: u32) -> u64 {
    cost.saturating_mul(SCALE) / u64::from(weight.max(1))
}

type Waits = (AccountId, u32, u32);

fn is_fatter((id, waiting, weight): Waits, (other_id, other_waiting, other_weight): Waits) -> bool {
    let (a, b) = (u64::from(waiting) * u64::from(other_weight), u64::from(other_waiting) * u64::from(weight));
    a > b || (a == b && id < other_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::facts;

    #[test]
    fn who_was_served_last_lifts_others_to_what_it_has_now() {
        let (mut shares, tenants) = (Shares::default(), BTreeMap::new());
        let of = |tenant: &str| Facts {
            tenant: tenant.into(),
            tenant_hash: crate::rng::hash(tenant.as_bytes()),
            ..facts()
        };
        let charge = shares.charge(&of("a"), None, &tenants);
        let _ = shares.settle(&charge, Due::Nothing);
        let counter = |shares: &Shares, id| shares.get(id).map(|account| account.counter);
        // Somebody with more waits, so it is lifted; then nobody waits, and the next is lifted as high.
        let a = shares.arrive(&of("a"), Some(500), &tenants);
        assert_eq!(counter(&shares, a), Some(500));
        let b = shares.arrive(&of("b"), None, &tenants);
        assert_eq!(counter(&shares, b), Some(500));
    }
}
