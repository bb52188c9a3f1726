//! The prefix cache of an engine: blocks of prompts, those in use pinned, the others kept in the order they were used,
//! in the accelerator's memory and then in a host tier.

use std::collections::BTreeMap;

use pointsman_routing::facts::PrefixBlock;

/// No place.
const NONE: u32 = u32::MAX;

/// Where a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Device,
    Host,
}

#[derive(Debug, Clone)]
struct Node {
    hash: u64,
    tokens: u32,
    /// Requests that use it now.
    pins: u32,
    tier: Tier,
    previous: u32,
    next: u32,
}

/// Blocks in the order they were used, the oldest first.
#[derive(Debug, Clone, Copy)]
struct List {
    oldest: u32,
    newest: u32,
    tokens: u64,
}

impl Default for List {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE, tokens: 0 }
    }
}

/// Cached blocks of prompts.
#[derive(Debug, Default)]
pub(super) struct Cache {
    nodes: Vec<Node>,
    free: Vec<u32>,
    index: BTreeMap<u64, u32>,
    /// On the device and used by nobody: may be evicted.
    idle: List,
    host: List,
    host_tokens_max: u64,
    /// Tokens on the device, pinned or not.
    resident: u64,
}

impl Cache {
    pub(super) fn new(host_tokens_max: u64) -> Self {
        Self { host_tokens_max, ..Self::default() }
    }

    /// Tokens on the device, those in use included.
    pub(super) fn resident(&self) -> u64 {
        self.resident
    }

    /// Tokens on the device that nobody uses.
    pub(super) fn idle(&self) -> u64 {
        self.idle.tokens
    }

    /// How many leading blocks of a prompt are cached, in either tier.
    pub(super) fn matched(&self, prefix: &[PrefixBlock]) -> usize {
        prefix.iter().take_while(|block| self.index.contains_key(&block.hash)).count()
    }

    /// Uses a block, which is put on the device if it is not there. Gives the tokens that had to be loaded from the host,
    /// or nothing if it was not cached at all.
    pub(super) fn pin(&mut self, hash: u64, tokens: u32) -> Option<u32> {
        let Some(place) = self.index.get(&hash).copied() else {
            let node = Node { hash, tokens, pins: 1, tier: Tier::Device, previous: NONE, next: NONE };
            let place = match self.free.pop() {
                Some(place) => {
                    self.nodes[place as usize] = node;
                    place
                }
                None => {
                    self.nodes.push(node);
                    (self.nodes.len() - 1) as u32
                }
            };
            self.index.insert(hash, place);
            self.resident += u64::from(tokens);
            return None;
        };
        let (pins, tier, tokens) = {
            let node = &self.nodes[place as usize];
            (node.pins, node.tier, node.tokens)
        };
        if pins == 0 {
            self.unlink(place);
        }
        let node = &mut self.nodes[place as usize];
        node.pins += 1;
        node.tier = Tier::Device;
        if tier == Tier::Host {
            self.resident += u64::from(tokens);
            return Some(tokens);
        }
        Some(0)
    }

    /// Uses blocks no more. The last of a prompt are the first to go, for they are of use to the fewest.
    pub(super) fn unpin(&mut self, blocks: &[PrefixBlock]) {
        for block in blocks.iter().rev() {
            let Some(place) = self.index.get(&block.hash).copied() else { continue };
            let node = &mut self.nodes[place as usize];
            node.pins -= 1;
            if node.pins == 0 {
                self.link(place, Tier::Device);
            }
        }
    }

    /// Takes so many tokens off the device, the least recently used first; the host keeps them as far as it has room.
    pub(super) fn evict(&mut self, tokens: u64) {
        let mut left = tokens;
        while left > 0 && self.idle.oldest != NONE {
            let place = self.idle.oldest;
            let size = u64::from(self.nodes[place as usize].tokens);
            self.unlink(place);
            self.resident -= size;
            left = left.saturating_sub(size);
            if self.host_tokens_max >= size {
                while self.host.tokens + size > self.host_tokens_max {
                    let oldest = self.host.oldest;
                    self.unlink(oldest);
                    self.forget(oldest);
                }
                self.link(place, Tier::Host);
            } else {
                self.forget(place);
            }
        }
    }

    fn forget(&mut self, place: u32) {
        self.index.remove(&self.nodes[place as usize].hash);
        self.free.push(place);
    }

    fn list(&mut self, tier: Tier) -> &mut List {
        match tier {
            Tier::Device => &mut self.idle,
            Tier::Host => &mut self.host,
        }
    }

    fn link(&mut self, place: u32, tier: Tier) {
        let list = self.list(tier);
        let last = std::mem::replace(&mut list.newest, place);
        if last == NONE {
            list.oldest = place;
        }
        let node = &mut self.nodes[place as usize];
        (node.tier, node.previous, node.next) = (tier, last, NONE);
        let tokens = u64::from(node.tokens);
        if last != NONE {
            self.nodes[last as usize].next = place;
        }
        self.list(tier).tokens += tokens;
    }

    fn unlink(&mut self, place: u32) {
        let node = &self.nodes[place as usize];
        let (tier, previous, next, tokens) = (node.tier, node.previous, node.next, u64::from(node.tokens));
        if previous != NONE {
            self.nodes[previous as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        let list = self.list(tier);
        if previous == NONE {
            list.oldest = next;
        }
        if next == NONE {
            list.newest = previous;
        }
        list.tokens -= tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(hashes: &[u64]) -> Vec<PrefixBlock> {
        let block =
            |(place, hash): (usize, &u64)| PrefixBlock { tokens: 100 * (place as u32 + 1), hash: *hash };
        hashes.iter().enumerate().map(block).collect()
    }

    fn used(cache: &mut Cache, hashes: &[u64]) {
        for hash in hashes {
            cache.pin(*hash, 100);
        }
        cache.unpin(&blocks(hashes));
    }

    #[test]
    fn the_least_recently_used_goes_first_and_of_a_prompt_its_end() {
        let mut cache = Cache::new(0);
        used(&mut cache, &[1, 2, 3]);
        used(&mut cache, &[1, 4]);
        cache.evict(100);
        assert_eq!(cache.matched(&blocks(&[1, 2, 3])), 2, "its end is gone");
        cache.evict(100);
        assert_eq!((cache.matched(&blocks(&[1, 2])), cache.matched(&blocks(&[1, 4]))), (1, 2));
        assert_eq!((cache.resident(), cache.idle()), (200, 200));
    }

    #[test]
    fn what_is_pinned_stays() {
        let mut cache = Cache::new(0);
        used(&mut cache, &[1, 2]);
        assert_eq!(cache.pin(1, 100), Some(0), "it was there");
        cache.evict(1_000);
        assert_eq!((cache.matched(&blocks(&[1, 2])), cache.resident(), cache.idle()), (1, 100, 0));
        cache.pin(1, 100);
        cache.unpin(&blocks(&[1]));
        cache.evict(1_000);
        assert_eq!(cache.matched(&blocks(&[1])), 1, "another still uses it");
        cache.unpin(&blocks(&[1]));
        cache.evict(1_000);
        assert_eq!((cache.matched(&blocks(&[1])), cache.resident()), (0, 0));
    }

    #[test]
    fn the_host_keeps_what_the_device_has_no_room_for() {
        let mut cache = Cache::new(200);
        used(&mut cache, &[1, 2, 3, 4]);
        cache.evict(400);
        assert_eq!((cache.resident(), cache.idle()), (0, 0));
        assert_eq!(
            cache.matched(&blocks(&[2, 1])),
            2,
            "the host has room for two, and took the beginning last"
        );
        assert_eq!(cache.matched(&blocks(&[3])), 0);
        assert_eq!(cache.pin(2, 100), Some(100), "loaded from the host");
        assert_eq!((cache.resident(), cache.host.tokens), (100, 100));
        assert_eq!(cache.pin(9, 100), None, "never seen");
        assert_eq!(cache.resident(), 200);
    }
}
