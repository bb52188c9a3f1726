//! How long a request waits for room in an engine, and what it costs others that it takes some.
//!
//! An engine works on as many requests at once as have room in its KV cache, and on no more than it has places for. Who
//! finds no room waits until others are done, however short the prompts before it are: that is no matter of computing
//! prompts, and [`crate::predict`] knows nothing of it. It follows from what engines say: requests leave one after the
//! other, as many in the time of an answer as run at once.
//!
//! A place that is taken is held for as long as an answer takes, and while an engine is full all who come wait for so
//! much longer together. How likely it is that it will be full is taken from how far it is from that, against how much
//! the number of requests at random moments varies: its square root.

use crate::engine::EngineLoad;

/// Share of an answer's time that is charged for the last place: how long it takes and who comes is not known.
const CHARGED: f64 = 0.3;
/// The steepness at which a logistic curve is nearly the normal distribution's.
const STEEPNESS: f64 = 1.6;

/// Room in an engine for one more.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Room {
    /// How long until there is room, milliseconds.
    pub(crate) wait_ms: f64,
    /// What it costs those who come later that a place is taken, milliseconds.
    pub(crate) full_ms: f64,
}

impl Room {
    /// For a request with so many tokens that are not there already, where answers have `tokens_out` tokens that take
    /// `token_ms` each.
    pub(crate) fn of(engine: &EngineLoad, tokens: f64, tokens_out: f64, token_ms: f64) -> Self {
        let Some(running) = engine.running.filter(|running| *running > 0).map(f64::from) else {
            return Self::default();
        };
        let waiting = f64::from(engine.waiting.unwrap_or(0));
        let answer_ms = tokens_out.max(1.0) * token_ms;
        // Requests that have to leave before there is room.
        let by_tokens = over_tokens(engine, tokens, running + waiting).unwrap_or(0.0);
        let by_places = engine.slots.map(|slots| {
            let over = running + 1.0 - f64::from(slots);
            // Who waits while places are free waits for something else.
            if over > 0.0 { over + waiting } else { over }
        });
        let full = by_places.map_or(0.0, |over| 1.0 / (1.0 + (-STEEPNESS * over / running.sqrt()).exp()));
        Self {
            wait_ms: by_tokens.max(by_places.unwrap_or(0.0)).max(0.0) * answer_ms / running,
            full_ms: CHARGED * answer_ms * full,
        }
    }
}

/// Requests of the usual size that have to leave a full KV cache before there is room for so many tokens.
fn over_tokens(engine: &EngineLoad, tokens: f64, requests: f64) -> Option<f64> {
    let capacity = engine.kv_capacity_tokens? as f64;
    let (wanted, used) = (engine.tokens_wanted? as f64, f64::from(engine.kv_used?));
    let is_full = capacity * (1.0 - used) < tokens;
    is_full.then_some((wanted + tokens - capacity) / (wanted / requests).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(running: u32, waiting: u32) -> EngineLoad {
        EngineLoad { running: Some(running), waiting: Some(waiting), ..EngineLoad::default() }
    }

    #[test]
    fn who_says_nothing_has_room() {
        assert_eq!(Room::of(&EngineLoad::default(), 1e6, 100.0, 10.0), Room::default());
        assert_eq!(Room::of(&load(0, 0), 1e6, 100.0, 10.0), Room::default());
        assert!(Room::of(&load(50, 9), 1e6, 100.0, 10.0).wait_ms <= 0.0, "for what, it does not say");
    }

    #[test]
    fn who_finds_no_place_waits_for_one_after_the_other() {
        let of = |running, waiting| {
            let engine = EngineLoad { slots: Some(10), ..load(running, waiting) };
            Room::of(&engine, 100.0, 100.0, 10.0)
        };
        assert!(of(9, 0).wait_ms <= 0.0, "one is free");
        assert!((of(10, 0).wait_ms - 100.0).abs() < 1e-9, "ten answers of a second each end in a second");
        assert!((of(10, 4).wait_ms - 500.0).abs() < 1e-9, "after four others");
        assert!(of(5, 4).wait_ms <= 0.0, "who waits beside free places waits for something else");
        assert!(of(2, 0).full_ms < 10.0 && of(10, 0).full_ms > 150.0, "the last place is dear");
    }

    #[test]
    fn who_finds_no_room_in_the_cache_waits_for_as_much_as_is_needed() {
        let of = |used: f32, wanted, tokens| {
            let (kv_used, tokens_wanted) = (Some(used), Some(wanted));
            let engine =
                EngineLoad { kv_used, tokens_wanted, kv_capacity_tokens: Some(10_000), ..load(10, 0) };
            Room::of(&engine, tokens, 100.0, 10.0).wait_ms
        };
        assert!(of(0.85, 8_500, 1_000.0) <= 0.0, "much is in use, but it fits");
        assert!((of(0.95, 9_500, 1_450.0) - 100.0).abs() < 1e-9, "one of 950 tokens has to leave");
        assert!(of(1.0, 19_000, 1_000.0) > of(1.0, 10_000, 1_000.0), "those that wait go before");
        assert!(of(0.4, 14_000, 1_000.0) <= 0.0, "there is room: they wait for something else");
    }
}
