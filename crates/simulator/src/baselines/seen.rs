//! What a router thinks a deployment has cached: beginnings of prompts it was sent, the least recently used forgotten.

use std::collections::BTreeMap;

use pointsman_routing::facts::PrefixBlock;

/// Beginnings that one deployment was sent.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// By hash: when it was used last, and how many tokens it adds to the one before it.
    at: BTreeMap<u64, (u64, u32)>,
    order: BTreeMap<u64, u64>,
    tick: u64,
    tokens: u64,
    tokens_max: u64,
}

impl Seen {
    pub(super) fn new(tokens_max: u64) -> Self {
        Self { at: BTreeMap::new(), order: BTreeMap::new(), tick: 0, tokens: 0, tokens_max }
    }

    /// Tokens at the beginning of a prompt that it was sent before.
    pub(super) fn matched(&self, prefix: &[PrefixBlock]) -> u32 {
        let known = prefix.iter().take_while(|block| self.at.contains_key(&block.hash));
        known.last().map_or(0, |block| block.tokens)
    }

    /// Tokens that are remembered.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// It is sent a prompt.
    pub(super) fn note(&mut self, prefix: &[PrefixBlock]) {
        for (place, block) in prefix.iter().enumerate().rev() {
            let before = place.checked_sub(1).map_or(0, |before| prefix[before].tokens);
            self.tick += 1;
            match self.at.insert(block.hash, (self.tick, block.tokens - before)) {
                Some((at, _)) => drop(self.order.remove(&at)),
                None => self.tokens += u64::from(block.tokens - before),
            }
            self.order.insert(self.tick, block.hash);
        }
        while self.tokens > self.tokens_max {
            let Some((_, oldest)) = self.order.pop_first() else { return };
            self.tokens -= self.at.remove(&oldest).map_or(0, |(_, tokens)| u64::from(tokens));
        }
    }
}

/// That of a deployment, by its place among those of the model.
pub(super) fn of(all: &mut Vec<Seen>, place: u32, tokens_max: u64) -> &mut Seen {
    let place = place as usize;
    if all.len() <= place {
        all.resize_with(place + 1, || Seen::new(tokens_max));
    }
    &mut all[place]
}
