//! The one source of the moments that routing is told and records show. Spans (probes, stalls) are timed by the
//! runtime's own clock.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pointsman_routing::Now;

/// Longer than any process runs.
const YEAR: Duration = Duration::from_hours(365 * 24);

static BEGAN: OnceLock<Instant> = OnceLock::new();

/// The present moment, counted from the first call in this process.
pub fn now() -> Now {
    let began = *BEGAN.get_or_init(Instant::now);
    Now::from_nanos(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The [`Instant`] of a moment, for timers.
pub fn instant(at: Now) -> tokio::time::Instant {
    let began = *BEGAN.get_or_init(Instant::now);
    // A moment beyond any clock means "no deadline"; a year is as good and cannot overflow.
    let span = at.since(Now::ZERO).min(YEAR);
    tokio::time::Instant::from_std(began + span)
}

/// Milliseconds since the Unix epoch, for records that people read.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64)
}
