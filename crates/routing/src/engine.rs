//! What engines say of themselves, and what that is worth by now.
//!
//! A report is old when it comes and older with every request that is sent after it: between two reports a whole burst
//! would go to whoever looked idle. So the load of an engine is its last report, as far as it is still believed, and
//! what was sent there from here since.

use std::time::Duration;

use crate::time::Now;

/// How long a report is believed without another.
pub const REPORT_BELIEVED: Duration = Duration::from_secs(5);

/// What an engine said of itself; `None` where it did not say.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Report {
    /// Requests it works on.
    pub running: Option<u32>,
    /// Requests that wait in it.
    pub waiting: Option<u32>,
    /// Share of its KV cache in use, from 0 to 1.
    pub kv_used: Option<f32>,
    /// Tokens that its KV cache holds.
    pub kv_capacity_tokens: Option<u64>,
    /// Requests it works on at the same time, at most.
    pub slots: Option<u32>,
}

/// What is known of an engine's own state.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EngineState {
    report: Option<(Report, Now)>,
    /// Requests sent from here since then.
    sent_since: u32,
    /// Tokens of those.
    tokens_since: u64,
}

/// The load of an engine as it is likely to be now. Nothing is known where no report is believed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EngineLoad {
    /// Requests that wait in it, those sent since its last report included.
    pub waiting: Option<u32>,
    /// Requests it works on.
    pub running: Option<u32>,
    /// Share of its KV cache in use, from 0 to 1, what was sent since its last report included.
    pub kv_used: Option<f32>,
    /// Tokens that its KV cache holds.
    pub kv_capacity_tokens: Option<u64>,
}

impl EngineState {
    /// Takes a report in that was made at `at`.
    pub fn note_report(&mut self, report: Report, at: Now) {
        *self = Self { report: Some((report, at)), sent_since: 0, tokens_since: 0 };
    }

    /// A request of so many tokens is sent there.
    pub fn note_sent(&mut self, tokens: u64) {
        self.sent_since = self.sent_since.saturating_add(1);
        self.tokens_since = self.tokens_since.saturating_add(tokens);
    }

    /// The last report and when it was made, however old.
    pub fn report(&self) -> Option<(Report, Now)> {
        self.report
    }

    /// The load as it is likely to be now.
    pub fn load(&self, now: Now) -> EngineLoad {
        let believed = self.report.filter(|(_, at)| now - *at <= REPORT_BELIEVED);
        let Some((report, _)) = believed else { return EngineLoad::default() };
        let sent = self.tokens_since as f32;
        let more = report.kv_capacity_tokens.map_or(0.0, |capacity| sent / capacity.max(1) as f32);
        EngineLoad {
            waiting: report.waiting.map(|waiting| waiting.saturating_add(self.sent_since)),
            running: report.running,
            kv_used: report.kv_used.map(|used| (used.clamp(0.0, 1.0) + more).min(1.0)),
            kv_capacity_tokens: report.kv_capacity_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f8_a_report_is_aged_by_what_was_sent_since_and_not_believed_for_ever() {
        let mut state = EngineState::default();
        assert_eq!(state.load(Now::ZERO), EngineLoad::default());
        let report = Report {
            running: Some(8),
            waiting: Some(2),
            kv_used: Some(0.5),
            kv_capacity_tokens: Some(10_000),
            slots: None,
        };
        state.note_report(report, Now::from_millis(1_000));
        state.note_sent(1_000);
        state.note_sent(1_000);
        let load = state.load(Now::from_millis(1_100));
        assert_eq!((load.waiting, load.running), (Some(4), Some(8)));
        assert!(load.kv_used.is_some_and(|used| (used - 0.7).abs() < 1e-6), "{load:?}");
        assert_eq!(state.load(Now::from_millis(6_001)), EngineLoad::default(), "too old");
        state.note_report(Report { kv_used: Some(7.0), ..report }, Now::from_millis(7_000));
        assert_eq!(state.load(Now::from_millis(7_000)).kv_used, Some(1.0), "no engine uses more than it has");
    }
}
