//! The beginnings of a prompt as hashes, so that it can be told which prompts begin alike, and how far.
//!
//! Two prompts have the same hashes up to where they part, and none in common after that: each hash is of everything
//! before it, roles and ends of messages included, salted with the tenant. There is no limit of depth (of what Mooncake's
//! conversations share only a third lies within the first 4,096 tokens), so they are sparse: every 64 tokens at first,
//! and from 512 on eight to each doubling, so that where two prompts part is known to about an eighth. In addition there
//! are the exact ends of the first few messages (system prompts are shared to the byte) and of the last (the next turn of
//! a conversation begins with all of this one). Where they lie depends on the prompt alone. Tools and instructions come
//! before the messages, wherever they stand in the body.
//!
//! Of a prompt below 64 tokens nothing is hashed and nothing allocated; of others one state, and one list that is
//! [`BEGINNINGS_MAX`] long at most.

use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::json::Text;

use super::{IMAGE_TOKENS, MESSAGE_TOKENS, TOKEN_BYTES};

/// Bytes between two beginnings near the start: 64 tokens.
const STEP_BYTES: u64 = 64 * TOKEN_BYTES;
/// Beginnings to each doubling of the length after that.
const PER_DOUBLING: u64 = 8;
/// Ends of messages that are exact at the start,
const ENDS_FIRST: usize = 4;
/// and at the end: a turn with a few calls of tools.
const ENDS_LAST: usize = 16;
/// Bytes of a medium's end that stand for all of it: what is encoded there differs where the media do.
const MEDIA_BYTES: usize = 32;
/// Beginnings of one prompt, whatever its length: those of 2³⁴ bytes, and the ends of messages.
pub const BEGINNINGS_MAX: usize = 8 + 24 * PER_DOUBLING as usize + ENDS_FIRST + ENDS_LAST + 1;

/// A beginning of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixBlock {
    /// How long it is, in estimated tokens.
    pub tokens: u32,
    /// Hash of all of it, salted.
    pub hash: u64,
}

/// Marks that no text contains.
const ROLE: [u8; 1] = [0xFF];
const CONTENT: [u8; 1] = [0xFE];
const END: [u8; 1] = [0xFD];

/// The beginnings as far as the prompt was read.
#[derive(Debug, Default)]
pub(super) struct Beginnings {
    wanted: bool,
    salt: u64,
    /// What came before there was enough to hash.
    short: Short,
    /// From then on.
    long: Option<Box<Long>>,
    /// Hash and bytes of what stands before the messages.
    head: Option<(u64, u64)>,
}

/// A prompt of less than a step.
#[derive(Debug, Default)]
struct Short {
    bytes: smallvec::SmallVec<[u8; STEP_BYTES as usize]>,
    /// Bytes of it that count, and the ends of messages in it: where in its bytes, and how far that counts.
    at: u64,
    ends: smallvec::SmallVec<[(usize, u64); ENDS_FIRST]>,
}

struct Long {
    hasher: Xxh3,
    /// Bytes so far that count.
    at: u64,
    /// Where the next beginning ends.
    next: u64,
    found: Vec<PrefixBlock>,
    ends: usize,
    /// The ends of the last messages, in a ring.
    last: smallvec::SmallVec<[PrefixBlock; ENDS_LAST]>,
    last_at: usize,
}

impl std::fmt::Debug for Long {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Long").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Beginnings {
    pub(super) fn new(wanted: bool, salt: u64) -> Self {
        Self { wanted, salt, ..Self::default() }
    }

    /// What stands before the messages: tools, instructions.
    pub(super) fn head(&mut self, bytes: &[u8]) {
        if self.wanted {
            let hash = xxh3_64_with_seed(bytes, self.salt);
            let (known, length) = self.head.unwrap_or_default();
            // In any order: which of the two comes first in the body says nothing.
            self.head = Some((known.wrapping_add(hash), length + bytes.len() as u64));
        }
    }

    /// Text that the model reads.
    pub(super) fn text(&mut self, text: &Text<'_>) {
        if !self.wanted {
            return;
        }
        text.chunks(|chunk| {
            self.bytes(chunk);
            true
        });
    }

    /// The same as bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.feed(bytes, bytes.len() as u64);
    }

    /// A medium, which is not looked into: its length and its end stand for it.
    pub(super) fn media(&mut self, bytes: &[u8]) {
        self.feed(&(bytes.len() as u64).to_le_bytes(), 0);
        self.feed(&bytes[bytes.len().saturating_sub(MEDIA_BYTES)..], 0);
        self.feed(&[], IMAGE_TOKENS * TOKEN_BYTES);
    }

    /// Who says what comes next.
    pub(super) fn role(&mut self, role: &str) {
        self.feed(&ROLE, 0);
        self.feed(role.as_bytes(), 0);
        self.feed(&CONTENT, 0);
    }

    /// A message ends here.
    pub(super) fn end_message(&mut self) {
        self.feed(&END, MESSAGE_TOKENS * TOKEN_BYTES);
        match &mut self.long {
            Some(long) => long.end_message(),
            None => self.short.ends.push((self.short.bytes.len(), self.short.at)),
        }
    }

    /// Takes bytes in that count so many in the prompt's length: as many as there are, or a number of their own.
    fn feed(&mut self, bytes: &[u8], counts: u64) {
        if !self.wanted {
            return;
        }
        if let Some(long) = &mut self.long {
            return long.feed(bytes, counts);
        }
        let short = &mut self.short;
        let fits = short.bytes.len() + bytes.len() <= STEP_BYTES as usize && short.ends.len() < ENDS_FIRST;
        if fits && short.at + counts < STEP_BYTES {
            short.bytes.extend_from_slice(bytes);
            short.at += counts;
            return;
        }
        let mut long = Box::new(Long::new(self.salt, &std::mem::take(short)));
        long.feed(bytes, counts);
        self.long = Some(long);
    }

    /// All that were found, ascending.
    pub(super) fn finish(self) -> Vec<PrefixBlock> {
        let head = self.head.filter(|_| self.wanted);
        let mut found = self.long.map(|long| long.finish()).unwrap_or_default();
        let Some((hash, bytes)) = head.filter(|(_, bytes)| *bytes >= STEP_BYTES || !found.is_empty()) else {
            return found;
        };
        let tokens = u32::try_from(bytes / TOKEN_BYTES).unwrap_or(u32::MAX);
        for block in &mut found {
            block.tokens = block.tokens.saturating_add(tokens);
            block.hash = xxh3_64_with_seed(&block.hash.to_le_bytes(), hash);
        }
        if bytes >= STEP_BYTES {
            found.insert(0, PrefixBlock { tokens, hash: xxh3_64_with_seed(&END, hash) });
        }
        found
    }
}

impl Long {
    fn new(salt: u64, short: &Short) -> Self {
        let mut one = Self {
            hasher: Xxh3::with_seed(salt),
            at: 0,
            next: STEP_BYTES,
            found: Vec::with_capacity(16),
            ends: 0,
            last: smallvec::SmallVec::new(),
            last_at: 0,
        };
        let mut fed = 0;
        for (end, at) in &short.ends {
            one.hasher.update(&short.bytes[fed..*end]);
            (fed, one.at) = (*end, *at);
            one.end_message();
        }
        one.hasher.update(&short.bytes[fed..]);
        one.at = short.at;
        one
    }

    fn feed(&mut self, mut bytes: &[u8], counts: u64) {
        // Only text lies at every place of its length; what counts otherwise is passed over as a whole.
        if counts == bytes.len() as u64 {
            while self.at + bytes.len() as u64 >= self.next {
                let (before, after) = bytes.split_at((self.next - self.at) as usize);
                self.hasher.update(before);
                self.at = self.next;
                self.note();
                self.next = following(self.next);
                bytes = after;
            }
            self.hasher.update(bytes);
            self.at += bytes.len() as u64;
            return;
        }
        self.hasher.update(bytes);
        self.at += counts;
        if self.at >= self.next {
            self.note();
            while self.next <= self.at {
                self.next = following(self.next);
            }
        }
    }

    fn here(&self) -> PrefixBlock {
        let tokens = u32::try_from(self.at / TOKEN_BYTES).unwrap_or(u32::MAX);
        PrefixBlock { tokens, hash: self.hasher.digest() }
    }

    fn note(&mut self) {
        self.found.push(self.here());
    }

    fn end_message(&mut self) {
        let here = self.here();
        self.ends += 1;
        if self.ends <= ENDS_FIRST {
            self.found.push(here);
        } else if self.last.len() < ENDS_LAST {
            self.last.push(here);
        } else {
            self.last[self.last_at] = here;
            self.last_at = (self.last_at + 1) % ENDS_LAST;
        }
    }

    fn finish(mut self) -> Vec<PrefixBlock> {
        self.found.append(&mut self.last.to_vec());
        self.found.sort_unstable_by_key(|block| block.tokens);
        // Where the end of a message is the end of a step it would stand here twice.
        self.found.dedup_by_key(|block| block.hash);
        // Below a step it is not worth remembering.
        self.found.retain(|block| u64::from(block.tokens) * TOKEN_BYTES >= STEP_BYTES);
        self.found
    }
}

/// Where the beginning after the one at `at` ends.
fn following(at: u64) -> u64 {
    at + STEP_BYTES.max((at + 1).next_power_of_two() / 2 / PER_DOUBLING)
}

#[cfg(test)]
mod tests;
