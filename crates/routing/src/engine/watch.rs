//! What is missed of an engine's reports, and what follows from its counts.
//!
//! A metric that was renamed looks like an engine without load, and gets all the traffic. So a signal that an engine
//! used to give is missed when it is absent from a few reports in a row, and one that its kind always gives when it
//! does not come at all. An engine that never had a signal and need not have it is not missing anything.

use std::time::Duration;

use super::{Counts, Report, Signal, Signals};
use crate::time::Now;

/// Reports in a row without a signal that was there before it is missed.
const ABSENT_REPORTS: u32 = 3;
/// How long an engine may take to give all its signals for the first time: some do only after their first request.
const FIRST_GIVEN_WITHIN: Duration = Duration::from_secs(30);
/// Over which time the hit rate and the preemptions are recent.
const RECENT: Duration = Duration::from_mins(1);

/// A signal that is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub signal: Signal,
    /// Since when.
    pub since: Now,
}

/// What follows from an engine's counts.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Trend {
    /// Share of prompt tokens that it found in its prefix cache lately.
    pub prefix_hit_ratio: Option<f64>,
    /// Requests it put back for want of room, within the last minute or so.
    pub preemptions: f64,
    /// How often it was started anew while it was watched.
    pub restarts: u32,
}

/// What is remembered of the reports so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Watch {
    given: Signals,
    absent: [Option<Absent>; Signal::ALL.len()],
    counts: Counts,
    counted_at: Now,
    prefix_tokens: f64,
    prefix_tokens_hit: f64,
    preemptions: f64,
    restarts: u32,
    slots: Option<u32>,
}

/// A signal that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Absent {
    since: Now,
    reports: u32,
}

impl Watch {
    /// Takes a report in, and says whether the engine was started anew since the one before.
    pub(super) fn note(&mut self, report: &Report, at: Now) -> bool {
        let said = report.said();
        for (signal, absent) in Signal::ALL.into_iter().zip(&mut self.absent) {
            if said.contains(signal) {
                self.given = self.given.with(signal);
                *absent = None;
            } else if self.given.contains(signal) || report.expected.contains(signal) {
                let known = absent.get_or_insert(Absent { since: at, reports: 0 });
                known.reports = known.reports.saturating_add(1);
            }
        }
        self.slots = report.slots.or(self.slots);
        let restarted = is_restart(&self.counts, &report.counts);
        if restarted {
            self.restarts = self.restarts.saturating_add(1);
            self.counts = Counts::default();
        }
        self.count(&report.counts, at);
        restarted
    }

    fn count(&mut self, counts: &Counts, at: Now) {
        let kept = (-(at - self.counted_at).as_secs_f64() / RECENT.as_secs_f64()).exp();
        let more = |now: Option<u64>, before: Option<u64>| match (now, before) {
            (Some(now), Some(before)) => now.saturating_sub(before) as f64,
            (Some(_) | None, _) => 0.0,
        };
        let before = self.counts;
        self.prefix_tokens = self.prefix_tokens * kept + more(counts.prefix_tokens, before.prefix_tokens);
        let hit = more(counts.prefix_tokens_hit, before.prefix_tokens_hit);
        self.prefix_tokens_hit = self.prefix_tokens_hit * kept + hit;
        self.preemptions = self.preemptions * kept + more(counts.preemptions, before.preemptions);
        self.counted_at = at;
        self.counts = Counts {
            started_s: counts.started_s.or(before.started_s),
            preemptions: counts.preemptions.or(before.preemptions),
            prefix_tokens: counts.prefix_tokens.or(before.prefix_tokens),
            prefix_tokens_hit: counts.prefix_tokens_hit.or(before.prefix_tokens_hit),
        };
    }

    pub(super) fn missing(&self, now: Now) -> impl Iterator<Item = Missing> + '_ {
        Signal::ALL.into_iter().zip(self.absent).filter_map(move |(signal, absent)| {
            let absent = absent?;
            let is_missed = if self.given.contains(signal) {
                absent.reports >= ABSENT_REPORTS
            } else {
                now - absent.since >= FIRST_GIVEN_WITHIN
            };
            is_missed.then_some(Missing { signal, since: absent.since })
        })
    }

    pub(super) fn trend(&self) -> Trend {
        let hit_ratio = || (self.prefix_tokens_hit / self.prefix_tokens).clamp(0.0, 1.0);
        Trend {
            prefix_hit_ratio: (self.prefix_tokens >= 1.0).then(hit_ratio),
            preemptions: self.preemptions,
            restarts: self.restarts,
        }
    }

    pub(super) const fn slots(&self) -> Option<u32> {
        self.slots
    }
}

/// Whether the engine was started between two counts: it says so, or what only grows has shrunk.
fn is_restart(before: &Counts, now: &Counts) -> bool {
    let both = |before: Option<u64>, now: Option<u64>| before.zip(now);
    let later = both(before.started_s, now.started_s).is_some_and(|(before, now)| now > before);
    let shrunk = [
        (before.preemptions, now.preemptions),
        (before.prefix_tokens, now.prefix_tokens),
        (before.prefix_tokens_hit, now.prefix_tokens_hit),
    ];
    later
        || shrunk.into_iter().any(|(before, now)| both(before, now).is_some_and(|(before, now)| now < before))
}
