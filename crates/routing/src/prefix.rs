//! Which deployment is likely to have which beginning of a prompt in its cache.
//!
//! An approximation of the engines' prefix caches from what was sent to them: for every deployment the beginnings of the
//! prompts it was sent, the least lately used forgotten first, for half an hour at most (of the reuses in Mooncake's
//! conversation trace 21 % come later than five minutes and 0.7 % later than this). Within a prompt the longest beginning
//! counts as used first, for that is the order in which engines evict. A beginning is believed to be cached until so many
//! other tokens came to the deployment as its cache holds: as configured; else what its engine reports, or a usual number,
//! until its answers tell better. More is remembered than is believed, so that answers can tell. Beginnings are
//! hashes salted with the tenant, so that nothing is learnt across tenants. One map serves all deployments of a tier: a
//! decision asks once per beginning, longest first, whoever has it. O(beginnings + holders) a decision.

use std::time::Duration;

use smallvec::SmallVec;

use crate::facts::PrefixBlock;
use crate::ids::DeploymentId;
use crate::limits::{CACHE_TOKENS_ASSUMED, PREFIX_NODES_MAX};
use crate::strategy::View;
use crate::table::{Recent, Table};
use crate::time::Now;

/// How long a beginning is believed to stay in a cache without another use.
pub(crate) const PREFIX_BELIEVED: Duration = Duration::from_mins(30);
/// The least that a cache is thought to hold, tokens: whatever an engine says, it can keep a prompt or two.
const CACHE_TOKENS_MIN: u64 = 16_384;
/// The most that one is found out to hold, tokens.
const CACHE_TOKENS_MAX: u64 = 1 << 26;
/// How many times what it is believed to hold is remembered.
const REMEMBERED: u64 = 4;
/// A prediction of cached tokens that was wrong by no more than this is as good as right, tokens.
const MISSED_TOKENS: u64 = 512;

/// What deployments of one tier are likely to have cached.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrefixIndex {
    nodes: Vec<Node>,
    free: Vec<u32>,
    table: Table,
    caches: Vec<Cache>,
    /// Room to work in: which of the eligible a cache belongs to.
    asked: Vec<u32>,
}

/// A beginning, and who has it.
#[derive(Debug, Clone)]
struct Node {
    hash: u64,
    holders: SmallVec<[Holder; 1]>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    cache: u32,
    /// In that cache's list.
    place: u32,
}

/// One deployment's cache, as far as it is known.
#[derive(Debug, Clone)]
struct Cache {
    /// `None`: its deployment is gone, and another may have its place.
    deployment: Option<DeploymentId>,
    recent: Recent<Held>,
    tokens: u64,
    /// What it is believed to hold, and whether its answers say what was cached, so that they show how much.
    capacity: u64,
    tells: bool,
    /// Tokens ever put in: how far back something was used is a distance on this.
    entered: u64,
}

impl Cache {
    fn believes(&self, held: &Held) -> bool {
        self.entered - held.entered <= self.capacity
    }
}

#[derive(Debug, Clone, Copy)]
struct Held {
    node: u32,
    /// Tokens of it beyond those of the beginning before.
    tokens: u32,
    at: Now,
    /// What the cache had been given when it was used last.
    entered: u64,
}

/// What a deployment had of a prompt when it was sent there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Match {
    /// Tokens it was likely to have.
    pub(crate) tokens: u32,
    /// Tokens it had at some time,
    remembered: u32,
    /// and what it was given since it used them last.
    distance: u64,
}

impl PrefixIndex {
    /// Notes for each of the eligible how much of the prompt it is likely to have.
    pub(crate) fn look_up(&mut self, prefix: &[PrefixBlock], eligible: &mut [View], now: Now) {
        self.asked.clear();
        self.asked.resize(self.caches.len(), u32::MAX);
        let mut left = 0;
        for (at, cache) in self.caches.iter().enumerate() {
            let id = cache.deployment.filter(|_| cache.recent.len() > 0);
            // Handles of the eligible ascend, but for those of a model that was configured anew.
            let place = id.and_then(|id| {
                let found = eligible.binary_search_by_key(&id, |view| view.id).ok();
                found.or_else(|| eligible.iter().position(|view| view.id == id))
            });
            if let Some(place) = place {
                self.asked[at] = place as u32;
                left += 1;
            }
        }
        for block in prefix.iter().rev() {
            if left == 0 {
                return;
            }
            let Some(node) = self.table.get(block.hash) else { continue };
            for holder in &self.nodes[node as usize].holders {
                let asked = &mut self.asked[holder.cache as usize];
                if *asked == u32::MAX {
                    continue;
                }
                let cache = &self.caches[holder.cache as usize];
                let held = cache.recent.get(holder.place);
                if held.is_some_and(|held| now - held.at <= PREFIX_BELIEVED && cache.believes(held)) {
                    eligible[*asked as usize].tokens_cached = block.tokens;
                    *asked = u32::MAX;
                    left -= 1;
                }
            }
        }
    }

    /// A prompt was sent to a deployment: it has all of it now. Gives what it had before. Its cache holds so many tokens as
    /// is configured, or reported as long as its answers do not tell better.
    pub(crate) fn note_sent(
        &mut self,
        id: DeploymentId,
        prefix: &[PrefixBlock],
        (configured, reported): (Option<u64>, Option<u64>),
        now: Now,
    ) -> Match {
        let at = self.cache(id);
        let cache = &mut self.caches[at];
        if let Some(capacity) = configured.or(reported.filter(|_| !cache.tells)) {
            cache.capacity = capacity.clamp(CACHE_TOKENS_MIN, CACHE_TOKENS_MAX);
        }
        self.forget_old(at, now);
        let matched = self.matched(at, prefix);
        // What it did not have is put in; also what was evicted meanwhile.
        let whole = prefix.last().map_or(0, |block| block.tokens);
        self.caches[at].entered += u64::from(whole.saturating_sub(matched.tokens));
        // The longest first, so that it is the first that is forgotten.
        for (nth, block) in prefix.iter().enumerate().rev() {
            let before = nth.checked_sub(1).map_or(0, |nth| prefix[nth].tokens).max(matched.tokens);
            self.hold(at, block.hash, block.tokens.saturating_sub(before), now);
        }
        let most = self.caches[at].capacity.max(CACHE_TOKENS_ASSUMED).saturating_mul(REMEMBERED);
        while self.caches[at].tokens > most || self.caches[at].recent.len() > PREFIX_NODES_MAX {
            if !self.forget_oldest(at) {
                break;
            }
        }
        matched
    }

    /// An answer told how many prompt tokens were cached. What was still there was used so long ago, and what was gone so
    /// long: the size of the cache lies between.
    pub(crate) fn note_answer(&mut self, id: DeploymentId, matched: Match, tokens_cached: u64) {
        let at = self.caches.iter().position(|cache| cache.deployment == Some(id));
        let Some(cache) = at.map(|at| &mut self.caches[at]) else { return };
        if !cache.tells && tokens_cached > 0 {
            // From now on it is believed too much rather than too little: only where something is sent can it be found out.
            cache.tells = true;
            cache.capacity = cache.capacity.saturating_mul(REMEMBERED).min(CACHE_TOKENS_MAX);
        }
        if !cache.tells || u64::from(matched.remembered) <= MISSED_TOKENS {
            return;
        }
        let there = tokens_cached + MISSED_TOKENS >= u64::from(matched.remembered);
        let (known, seen) = (cache.capacity, matched.distance.clamp(CACHE_TOKENS_MIN, CACHE_TOKENS_MAX));
        // Only part of the way, and not for what was sent just before and is not computed yet.
        if there && seen > known {
            cache.capacity = known + (seen - known) / 4;
        } else if !there && seen < known && seen > known / 4 {
            cache.capacity = known - (known - seen) / 4;
        }
    }

    /// A deployment has nothing cached any more: it was started anew, or is gone.
    pub(crate) fn forget(&mut self, id: DeploymentId, gone: bool) {
        let Some(at) = self.caches.iter().position(|cache| cache.deployment == Some(id)) else { return };
        while self.forget_oldest(at) {}
        if gone {
            self.caches[at].deployment = None;
        }
    }

    /// Tokens that a deployment is likely to have cached, of all prompts.
    pub(crate) fn tokens_held(&self, id: DeploymentId) -> u64 {
        let cache = self.caches.iter().find(|cache| cache.deployment == Some(id));
        cache.map_or(0, |cache| cache.tokens)
    }

    fn cache(&mut self, id: DeploymentId) -> usize {
        let known = self.caches.iter().position(|cache| cache.deployment == Some(id));
        known.unwrap_or_else(|| {
            let new = Cache {
                deployment: Some(id),
                recent: Recent::default(),
                tokens: 0,
                capacity: CACHE_TOKENS_ASSUMED,
                tells: false,
                entered: 0,
            };
            let free = self.caches.iter().position(|cache| cache.deployment.is_none());
            let at = free.unwrap_or(self.caches.len());
            if at == self.caches.len() {
                self.caches.push(new);
            } else {
                self.caches[at] = new;
            }
            at
        })
    }

    fn matched(&self, at: usize, prefix: &[PrefixBlock]) -> Match {
        let cache = &self.caches[at];
        let mut matched = Match::default();
        for block in prefix.iter().rev() {
            let node = self.table.get(block.hash).map(|node| &self.nodes[node as usize]);
            let holder = node.and_then(|node| node.holders.iter().find(|holder| holder.cache as usize == at));
            let Some(held) = holder.and_then(|holder| cache.recent.get(holder.place)) else { continue };
            if matched.remembered == 0 {
                (matched.remembered, matched.distance) = (block.tokens, cache.entered - held.entered);
            }
            if cache.believes(held) {
                matched.tokens = block.tokens;
                break;
            }
        }
        matched
    }

    /// The cache has this beginning, of which so many tokens are not of another.
    fn hold(&mut self, at: usize, hash: u64, tokens: u32, now: Now) {
        let node = self.table.get(hash).unwrap_or_else(|| {
            let new = Node { hash, holders: SmallVec::new() };
            let node = match self.free.pop() {
                Some(free) => {
                    self.nodes[free as usize] = new;
                    free
                }
                None => {
                    self.nodes.push(new);
                    self.nodes.len() as u32 - 1
                }
            };
            self.table.insert(hash, node);
            node
        });
        let cache = &mut self.caches[at];
        let holders = &mut self.nodes[node as usize].holders;
        if let Some(holder) = holders.iter().find(|holder| holder.cache as usize == at) {
            cache.recent.touch(holder.place);
            if let Some(held) = cache.recent.get_mut(holder.place) {
                (held.at, held.entered) = (now, cache.entered);
            }
            return;
        }
        let place = cache.recent.push(Held { node, tokens, at: now, entered: cache.entered });
        cache.tokens += u64::from(tokens);
        holders.push(Holder { cache: at as u32, place });
    }

    fn forget_old(&mut self, at: usize, now: Now) {
        while self.caches[at].recent.oldest().is_some_and(|(_, held)| now - held.at > PREFIX_BELIEVED) {
            self.forget_oldest(at);
        }
    }

    /// Whether there was anything to forget.
    fn forget_oldest(&mut self, at: usize) -> bool {
        let cache = &mut self.caches[at];
        let Some((place, held)) = cache.recent.oldest() else { return false };
        cache.recent.remove(place);
        cache.tokens = cache.tokens.saturating_sub(u64::from(held.tokens));
        let node = &mut self.nodes[held.node as usize];
        node.holders.retain(|holder| holder.cache as usize != at);
        if node.holders.is_empty() {
            self.table.remove(node.hash);
            self.free.push(held.node);
        }
        true
    }
}

#[cfg(test)]
mod tests;
