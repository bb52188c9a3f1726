//! What is known of an engine's prefix cache from its own events.
//!
//! The events name blocks by hashes of the engine's own, so they do not say whose prompts are cached: which prompt is
//! where stays an approximation from what was sent. What they do say is how much is held, how fast it is pushed out, and
//! when all is gone. When events are missed even that is unsure, until the cache is cleared or begins anew.

use std::time::Duration;

use crate::time::Now;

/// Over which time evictions are recent.
const RECENT: Duration = Duration::from_mins(1);

/// Something that happened to an engine's prefix cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheChange {
    /// So many tokens were stored.
    Stored(u64),
    /// So many tokens were pushed out.
    Removed(u64),
    /// All is gone: it was cleared, or the engine began anew.
    Cleared,
    /// Events were missed, or come no more.
    Unsure,
}

/// What is known of an engine's prefix cache from its own events.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct CacheState {
    /// Tokens it holds; a lower bound while it is unsure.
    pub tokens: u64,
    /// Whether no event was missed since it was empty.
    pub sure: bool,
    /// How often it was cleared while it was watched. Whoever remembers what is cached there has to forget it when this
    /// changes.
    pub cleared: u32,
    evicted: f64,
    evicted_at: Now,
}

impl CacheState {
    /// Takes in what happened.
    pub fn note(&mut self, change: CacheChange, now: Now) {
        match change {
            CacheChange::Stored(tokens) => self.tokens = self.tokens.saturating_add(tokens),
            CacheChange::Removed(tokens) => {
                self.tokens = self.tokens.saturating_sub(tokens);
                self.evicted = self.evicted(now) + tokens as f64;
                self.evicted_at = now;
            }
            CacheChange::Cleared => {
                self.tokens = 0;
                self.sure = true;
                self.cleared = self.cleared.saturating_add(1);
            }
            CacheChange::Unsure => self.sure = false,
        }
    }

    /// Tokens that were pushed out within the last minute or so.
    pub fn evicted(&self, now: Now) -> f64 {
        self.evicted * (-(now - self.evicted_at).as_secs_f64() / RECENT.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_and_gaps_make_them_unsure_until_all_is_cleared() {
        let mut cache = CacheState::default();
        let mut note = |change, millis| {
            cache.note(change, Now::from_millis(millis));
            (cache.tokens, cache.sure, cache.cleared)
        };
        assert_eq!(note(CacheChange::Stored(160), 0), (160, false, 0), "what was there before is not known");
        assert_eq!(note(CacheChange::Cleared, 0), (0, true, 1));
        assert_eq!(note(CacheChange::Stored(320), 0), (320, true, 1));
        assert_eq!(note(CacheChange::Removed(32), 0), (288, true, 1));
        assert_eq!(note(CacheChange::Unsure, 0), (288, false, 1));
        assert_eq!(note(CacheChange::Removed(u64::MAX), 0).0, 0, "it never holds less than nothing");
        let mut cache = CacheState::default();
        cache.note(CacheChange::Removed(100), Now::ZERO);
        assert!((cache.evicted(Now::ZERO) - 100.0).abs() < 1e-9);
        assert!(cache.evicted(Now::from_millis(60_000)) < 37.0);
    }
}
