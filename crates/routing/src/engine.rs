//! What engines say of themselves, and what that is worth by now.
//!
//! A report is old when it comes and older with every request that is sent after it: between two reports a whole burst
//! would go to whoever looked idle. So the load of an engine is never its last report alone. Of a report we keep what is
//! **foreign**: requests in it that are not ours, because other routers or people use the engine too. The load is the
//! foreign part, which fades as the report grows old, and all that we have there right now. What was sent from here
//! since is counted at once, what ended is counted no more, and nothing is counted twice.
//!
//! What is ours in a report is not always known: requests that are sent or end while the engine is being asked may be
//! in it or not. That leaves a range for the foreign part, and in it what was believed before stays believed: a single
//! router never sees strangers in its own requests.

mod cache;
mod watch;

use std::time::Duration;

use crate::time::Now;
pub use cache::{CacheChange, CacheState};
use watch::Watch;
pub use watch::{Missing, Trend};

/// How long a report is believed without another.
pub const REPORT_BELIEVED: Duration = Duration::from_secs(5);
/// How long it is believed in full; from then on the foreign load in it fades.
pub const REPORT_FRESH: Duration = Duration::from_millis(1_500);
/// The greatest number of requests that an engine is believed.
pub const REQUESTS_MAX: u32 = 1_000_000;

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
    /// Whether the model is in memory and awake.
    pub awake: Option<bool>,
    /// What it counts.
    pub counts: Counts,
    /// What it should have said: what is not there was renamed or taken away.
    pub expected: Signals,
    /// Requests it works on at the same time, at most.
    pub slots: Option<u32>,
}

/// What an engine counts since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// When it was started, seconds since the Unix epoch.
    pub started_s: Option<u64>,
    /// Requests it has put back for want of room.
    pub preemptions: Option<u64>,
    /// Prompt tokens it has looked for in its prefix cache.
    pub prefix_tokens: Option<u64>,
    /// Of those, found.
    pub prefix_tokens_hit: Option<u64>,
}

/// Something that an engine says of itself, and that is missed when it does so no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Signal {
    /// Requests it works on.
    Running,
    /// Requests that wait in it.
    Waiting,
    /// Share of its KV cache in use.
    KvUsed,
    /// Requests it works on at the same time, at most.
    Slots,
    /// Whether the model is in memory and awake.
    Awake,
}

impl Signal {
    /// Every signal.
    pub const ALL: [Self; 5] = [Self::Running, Self::Waiting, Self::KvUsed, Self::Slots, Self::Awake];

    /// The name in metrics, logs and the admin API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::KvUsed => "kv_used",
            Self::Slots => "slots",
            Self::Awake => "awake",
        }
    }
}

/// A set of signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Signals(u8);

impl Signals {
    /// The set with one more.
    #[must_use]
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << signal as u8)
    }

    /// Whether it is in the set.
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << signal as u8) != 0
    }
}

impl Report {
    /// What it says.
    pub fn said(&self) -> Signals {
        let mut said = Signals::default();
        for (signal, is_there) in [
            (Signal::Running, self.running.is_some()),
            (Signal::Waiting, self.waiting.is_some()),
            (Signal::KvUsed, self.kv_used.is_some()),
            (Signal::Slots, self.slots.is_some()),
            (Signal::Awake, self.awake.is_some()),
        ] {
            if is_there {
                said = said.with(signal);
            }
        }
        said
    }

    /// The same without what cannot be.
    fn believable(self) -> Self {
        let requests = |count: Option<u32>| count.map(|count| count.min(REQUESTS_MAX));
        Self {
            running: requests(self.running),
            waiting: requests(self.waiting),
            kv_used: self.kv_used.filter(|used| !used.is_nan()).map(|used| used.clamp(0.0, 1.0)),
            kv_capacity_tokens: self.kv_capacity_tokens.filter(|tokens| *tokens > 0),
            slots: requests(self.slots).filter(|slots| *slots > 0),
            ..self
        }
    }
}

/// What is known of an engine's own state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EngineState {
    heard: Option<Heard>,
    /// Ours, there right now.
    ours: Ours,
    /// Since it is being asked.
    asked: Option<Asked>,
    watch: Box<Watch>,
    /// What its events say of its prefix cache, if it has any.
    cache: Option<Box<CacheState>>,
}

/// A report, and what it means.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Heard {
    report: Report,
    at: Now,
    /// Requests in it that are not ours.
    foreign: u32,
    /// What of ours is sure to be in it.
    ours: Ours,
}

/// What we have at an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Ours {
    requests: u32,
    tokens: u64,
}

/// What we had at an engine when it was asked, and what changed while it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Asked {
    before: Ours,
    sent: u32,
    ended: Ours,
}

impl Asked {
    /// What of ours is sure to be in the answer.
    const fn least(&self) -> Ours {
        Ours {
            requests: self.before.requests.saturating_sub(self.ended.requests),
            tokens: self.before.tokens.saturating_sub(self.ended.tokens),
        }
    }

    /// Requests of ours that may be in it at most.
    const fn most(&self) -> u32 {
        self.before.requests.saturating_add(self.sent)
    }
}

/// The load of an engine as it is likely to be now. Nothing is known where no report is believed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EngineLoad {
    /// Requests that wait in it, those sent since its last report included.
    pub waiting: Option<u32>,
    /// Requests it works on.
    pub running: Option<u32>,
    /// Requests that it works on at the same time, at most.
    pub slots: Option<u32>,
    /// Of all these, those that were not sent from here.
    pub foreign: Option<u32>,
    /// Share of its KV cache in use, from 0 to 1, what was sent since its last report included.
    pub kv_used: Option<f32>,
    /// Tokens that its KV cache holds.
    pub kv_capacity_tokens: Option<u64>,
    /// Tokens that all requests there want of it, those that wait included.
    pub tokens_wanted: Option<u64>,
    /// Whether the model is in memory and awake.
    pub awake: Option<bool>,
}

impl EngineState {
    /// It is asked now; what is sent or ends until [`EngineState::note_report`] may be in the answer or not.
    pub fn note_asked(&mut self) {
        self.asked = Some(Asked { before: self.ours, ..Asked::default() });
    }

    /// Takes in what it answered at `at`. Without [`EngineState::note_asked`] before, it was asked at that moment. Says
    /// whether the engine was started anew since the report before.
    pub fn note_report(&mut self, report: Report, at: Now) -> bool {
        let report = report.believable();
        let asked = self.asked.take().unwrap_or(Asked { before: self.ours, ..Asked::default() });
        let restarted = self.watch.note(&report, at);
        let believed = self.heard.filter(|_| !restarted).map_or(0, |heard| heard.foreign_now(at));
        let ours = asked.least();
        let foreign = report.running.map_or(0, |running| {
            let total = running.saturating_add(report.waiting.unwrap_or(0));
            believed.clamp(total.saturating_sub(asked.most()), total.saturating_sub(ours.requests))
        });
        self.heard = Some(Heard { report, at, foreign, ours });
        if restarted && let Some(cache) = &mut self.cache {
            cache.note(CacheChange::Cleared, at);
        }
        restarted
    }

    /// A request of so many tokens is sent there.
    pub fn note_sent(&mut self, tokens: u64) {
        self.ours.requests = self.ours.requests.saturating_add(1);
        self.ours.tokens = self.ours.tokens.saturating_add(tokens);
        if let Some(asked) = &mut self.asked {
            asked.sent = asked.sent.saturating_add(1);
        }
    }

    /// A request of so many tokens that was sent there is over, however it ended.
    pub fn note_ended(&mut self, tokens: u64) {
        self.ours.requests = self.ours.requests.saturating_sub(1);
        self.ours.tokens = self.ours.tokens.saturating_sub(tokens);
        if let Some(asked) = &mut self.asked {
            asked.ended.requests = asked.ended.requests.saturating_add(1);
            asked.ended.tokens = asked.ended.tokens.saturating_add(tokens);
        }
    }

    /// The last report and when it was made, however old.
    pub fn report(&self) -> Option<(Report, Now)> {
        self.heard.map(|heard| (heard.report, heard.at))
    }

    /// When the last report was made.
    #[inline]
    pub fn reported(&self) -> Option<Now> {
        self.heard.as_ref().map(|heard| heard.at)
    }

    /// How many requests it said it works on at most, however long ago.
    pub fn slots(&self) -> Option<u32> {
        self.watch.slots()
    }

    /// Signals that it used to give, or should, and gives no more.
    pub fn missing(&self, now: Now) -> impl Iterator<Item = Missing> + '_ {
        self.watch.missing(now)
    }

    /// Takes in what happened to its prefix cache.
    pub fn note_cache(&mut self, change: CacheChange, at: Now) {
        self.cache.get_or_insert_default().note(change, at);
    }

    /// What its events say of its prefix cache; `None`: there were none.
    pub fn cache(&self) -> Option<&CacheState> {
        self.cache.as_deref()
    }

    /// What follows from what it counts.
    pub fn trend(&self) -> Trend {
        self.watch.trend()
    }

    /// The load as it is likely to be now.
    pub fn load(&self, now: Now) -> EngineLoad {
        let Some(heard) = self.heard.filter(|heard| now - heard.at <= REPORT_BELIEVED) else {
            return EngineLoad::default();
        };
        let report = &heard.report;
        let foreign = heard.foreign_now(now);
        let total = foreign.saturating_add(self.ours.requests);
        let running = report.running.map(|running| {
            // Who is new runs where there is room, as far as that is known, and waits where others wait.
            let queues = report.waiting.is_some_and(|waiting| waiting > 0);
            let room = report.slots.filter(|_| !queues).map_or(running, |slots| slots.max(running));
            total.min(room)
        });
        let waiting = report.waiting.map(|waiting| match running {
            Some(running) => total - running,
            None => waiting.saturating_add(self.ours.requests.saturating_sub(heard.ours.requests)),
        });
        EngineLoad {
            waiting,
            running,
            slots: report.slots,
            foreign: running.map(|_| foreign),
            kv_used: report.kv_used.map(|used| self.kv_used(&heard, used)),
            kv_capacity_tokens: report.kv_capacity_tokens,
            tokens_wanted: self.tokens_wanted(&heard),
            awake: report.awake,
        }
    }

    /// What was in use, what came and went since, and as much as is usual for each of those that waited.
    fn tokens_wanted(&self, heard: &Heard) -> Option<u64> {
        let (used, capacity) = heard.report.kv_used.zip(heard.report.kv_capacity_tokens)?;
        let usual = self.ours.tokens as f64 / f64::from(self.ours.requests.max(1));
        let waited = f64::from(heard.report.waiting.unwrap_or(0)) * usual;
        let more = self.ours.tokens as f64 - heard.ours.tokens as f64;
        Some((f64::from(used) * capacity as f64 + waited + more).max(0.0) as u64)
    }

    fn kv_used(&self, heard: &Heard, used: f32) -> f32 {
        let Some(capacity) = heard.report.kv_capacity_tokens else { return used };
        let more = self.ours.tokens as f64 - heard.ours.tokens as f64;
        (f64::from(used) + more / capacity as f64).clamp(0.0, 1.0) as f32
    }
}

impl Heard {
    /// The foreign load as it is likely to be now: it fades once the report is no longer fresh, for nobody knows what
    /// became of it.
    fn foreign_now(&self, now: Now) -> u32 {
        let age = now - self.at;
        if age <= REPORT_FRESH {
            return self.foreign;
        }
        let left = REPORT_BELIEVED.saturating_sub(age).as_secs_f64();
        let span = REPORT_BELIEVED.as_secs_f64() - REPORT_FRESH.as_secs_f64();
        (f64::from(self.foreign) * left / span).round() as u32
    }
}

#[cfg(test)]
mod tests;
