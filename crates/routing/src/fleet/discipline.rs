//! In which order a lane of a queue is served, and who is told early that it is not.
//!
//! After CoDel ([Nichols and Jacobson 2012]): a queue that empties now and then is a good one, whatever its length; one
//! whose oldest has waited longer than a target for a whole interval is standing, and every request in it waits for
//! nothing. Then, as in [Fail at scale] (adaptive LIFO), live requests are served newest first, for the newest still has
//! a caller who waits, and those who have waited too long are told so. Batch stays oldest first.
//!
//! CoDel's constants suppose that serving takes next to nothing. A slot here is held for seconds, so target and interval are never
//! shorter than it takes for some slots to become free ([`Pace`]), as CoDel never drops the only packet. And one that
//! waited too long is pushed out only by one that comes: without newcomers it would leave a slot idle.
//!
//! [Nichols and Jacobson 2012]: https://queue.acm.org/detail.cfm?id=2209336
//! [Fail at scale]: https://queue.acm.org/detail.cfm?id=2839461

use std::time::Duration;

use crate::limits::{RETRY_AFTER_MAX, RETRY_AFTER_MIN};
use crate::time::Now;

/// How long the oldest must have waited too long for the lane to be overloaded.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Slots that become free within the target, at the least.
const TARGET_TURNS: u32 = 2;
/// Slots that become free within the interval, at the least.
const INTERVAL_TURNS: u32 = 4;
/// Weight of one more request in the time that slots are held.
const HELD_WEIGHT: f64 = 0.05;
/// Requests before which that time is not relied on.
const HELD_REQUESTS_MIN: u32 = 8;

/// How long the slots of a model are held lately.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Turnover {
    held_ns: f64,
    requests: u32,
}

impl Turnover {
    pub(crate) fn note(&mut self, held: Duration) {
        self.requests = self.requests.saturating_add(1);
        let weight = (1.0 / f64::from(self.requests)).max(HELD_WEIGHT);
        self.held_ns += (held.as_nanos() as f64 - self.held_ns) * weight;
    }

    /// The time between two slots that become free while so many are held (Little's law), if it is known.
    pub(crate) fn gap(&self, inflight: u32) -> Option<Duration> {
        // The last that was held may just have become free.
        let known = self.requests >= HELD_REQUESTS_MIN;
        known.then(|| Duration::from_nanos((self.held_ns / f64::from(inflight.max(1))) as u64))
    }
}

/// What one who comes behind `ahead` others has to wait, as told to clients.
pub(crate) fn retry_after(ahead: usize, gap: Option<Duration>) -> Duration {
    let ahead = u32::try_from(ahead).unwrap_or(u32::MAX);
    let wait = gap.map_or(RETRY_AFTER_MIN, |gap| gap.saturating_mul(ahead.saturating_add(1)));
    wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX)
}

/// The times that a queue is held to, where slots become free at a certain pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    target: Duration,
    interval: Duration,
}

impl Pace {
    pub(crate) fn new(target: Duration, gap: Option<Duration>) -> Self {
        let gap = gap.unwrap_or_default();
        Self {
            target: target.max(gap.saturating_mul(TARGET_TURNS)),
            interval: INTERVAL_MIN.max(gap.saturating_mul(INTERVAL_TURNS)),
        }
    }

    /// The wait after which one gives way to a newcomer while the lane is overloaded.
    pub(crate) fn patience(self) -> Duration {
        self.target * 2
    }
}

/// Whether a lane's queue is standing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    /// Since when the oldest has waited longer than the target, without a break.
    above_since: Option<Now>,
    overloaded: bool,
}

impl Standing {
    /// Takes in for how long the oldest of the lane waits; `None`: nobody does.
    pub(crate) fn observe(&mut self, oldest: Option<Now>, pace: Pace, now: Now) {
        match oldest.filter(|since| now - *since > pace.target) {
            None => *self = Self::default(),
            Some(since) => {
                let above_since = *self.above_since.get_or_insert(since + pace.target);
                self.overloaded |= now - above_since >= pace.interval;
            }
        }
    }

    pub(crate) fn is_overloaded(self) -> bool {
        self.overloaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(200);

    #[test]
    fn only_a_standing_queue_is_an_overload() {
        let pace = Pace::new(TARGET, Some(Duration::from_millis(10)));
        let mut standing = Standing::default();
        let mut at = |oldest_ms: Option<u64>, now_ms| {
            standing.observe(oldest_ms.map(Now::from_millis), pace, Now::from_millis(now_ms));
            standing.is_overloaded()
        };
        assert!(!at(Some(0), 150));
        assert!(!at(Some(100), 900), "above the target, but not for an interval yet");
        assert!(!at(None, 1000), "it emptied");
        assert!(!at(Some(1000), 1900));
        assert!(!at(Some(1500), 2100));
        assert!(at(Some(1900), 2300), "above the target from 1.2 s on");
        assert!(at(Some(2000), 5000));
        assert!(!at(Some(4900), 5000), "those who waited are gone");
    }

    #[test]
    fn slots_that_are_held_long_allow_for_longer_waits() {
        let slow = Pace::new(TARGET, Some(Duration::from_secs(5)));
        assert_eq!(slow, Pace { target: Duration::from_secs(10), interval: Duration::from_secs(20) });
        let unknown = Pace::new(TARGET, None);
        assert_eq!(unknown, Pace { target: TARGET, interval: Duration::from_secs(1) });
    }

    #[test]
    fn the_wait_is_told_from_what_slots_take() {
        let mut turnover = Turnover::default();
        assert_eq!(retry_after(40, turnover.gap(4)), RETRY_AFTER_MIN, "nothing is known");
        for _ in 0..100 {
            turnover.note(Duration::from_secs(2));
        }
        assert_eq!(turnover.gap(4), Some(Duration::from_millis(500)));
        assert_eq!(retry_after(39, turnover.gap(4)), Duration::from_secs(20));
        assert_eq!(retry_after(1_000_000, turnover.gap(4)), RETRY_AFTER_MAX);
        assert_eq!(turnover.gap(0), turnover.gap(1));
    }
}
