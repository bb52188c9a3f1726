//! What we believe to have in flight at an engine, held against what the engine says.
//!
//! An engine that works on more than we sent is used by others as well, or we lost count. One report proves nothing: it was
//! made before or after something of ours began or ended. What the last few say all alike is believed.

use super::Deployment;
use crate::decision::WhyNot;
use crate::engine::{REPORT_BELIEVED, Report};
use crate::facts::Lane;
use crate::time::Now;

/// Reports in a row that must say so before somebody else's requests count.
const REPORTS: usize = 3;

/// An engine's reports against our own count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// What the engine has beyond what we sent, by its last report; less than zero: it has less.
    gap: Option<i64>,
    /// What it had beyond by the last reports; 0 where it had not.
    beyond: [u32; REPORTS],
    until: Now,
}

impl Claims {
    fn note(&mut self, report: &Report, inflight: u32, now: Now) {
        let Some(running) = report.running else { return };
        let said = i64::from(running) + i64::from(report.waiting.unwrap_or(0));
        let gap = said - i64::from(inflight);
        self.gap = Some(gap);
        self.beyond.rotate_right(1);
        self.beyond[0] = u32::try_from(gap.max(0)).unwrap_or(u32::MAX);
        self.until = now + REPORT_BELIEVED;
    }

    /// What the engine has beyond what we sent, if it said so lately.
    pub(crate) fn gap(&self, now: Now) -> Option<i64> {
        self.gap.filter(|_| now < self.until)
    }

    /// Requests there that are not ours, as far as all of the last reports agree.
    fn foreign(&self, now: Now) -> u32 {
        if now < self.until { self.beyond.into_iter().min().unwrap_or(0) } else { 0 }
    }
}

impl Deployment {
    /// Its engine said how it is. Tells whether that may have made room.
    pub(super) fn note_claims(&mut self, report: &Report, now: Now) -> bool {
        let before = self.claims.foreign(now);
        self.claims.note(report, self.inflight, now);
        self.spec.count_foreign && self.claims.foreign(now) < before
    }

    /// Whether its slots are taken when those are counted that others use, if they are to be.
    pub(super) fn foreign_full(&self, lane: Lane, now: Now) -> Option<WhyNot> {
        if !self.spec.count_foreign {
            return None;
        }
        let foreign = self.claims.foreign(now);
        let full = foreign > 0 && self.inflight.saturating_add(foreign) >= self.limiter.bound(lane);
        full.then_some(WhyNot::ForeignFull { foreign, until: self.claims.until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_reports_agree_on_is_foreign_and_not_for_ever() {
        let mut claims = Claims::default();
        let at = Now::from_millis;
        let report = |running| Report { running: Some(running), waiting: Some(1), ..Report::default() };
        for (running, ours, gap, foreign) in
            [(4, 2, 3, 0), (6, 2, 5, 0), (5, 4, 2, 2), (3, 2, 2, 2), (1, 2, 0, 0), (0, 4, -3, 0)]
        {
            claims.note(&report(running), ours, at(100));
            assert_eq!((claims.gap(at(100)), claims.foreign(at(100))), (Some(gap), foreign), "{running}");
        }
        claims.note(&Report::default(), 0, at(200));
        assert_eq!(claims.gap(at(200)), Some(-3), "who says nothing changes nothing");
        assert_eq!(claims.gap(at(5_100)), None, "too old");
    }
}
