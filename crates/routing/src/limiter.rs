//! How many requests a deployment can usefully have in flight, found out by watching it; never more than its slots.
//!
//! Two rules. **Gradient**, for engines: Gradient2 of Netflix's [concurrency-limits], `new = L * clamp(tolerance * long /
//! short, 0.5, 1) + queue`. What is compared is time per output token, which an engine's batch stretches; beside it the
//! time to first content by prompt length, where an engine that queues inside shows it. **AIMD**, for paid APIs: a
//! refusal (429, overloaded, a timeout) takes a tenth of what was in flight, and what works grows it back slowly.
//!
//! What differs from the sources, and why:
//! - A generation takes seconds, so the limit changes once per turn-around: a window counts only requests that began
//!   under the limit in force, and its median is taken, so that one client that reads slowly proves nothing.
//! - In a calm window (at most 1.2 of the usual time) the limit grows by a fifth, and before the first congestion it
//!   doubles; in a bad one (above the tolerance of 1.5) it goes down at once to where it was calm, by half at the most.
//! - Gradient2 lets the usual time follow an overload until the overload is usual. Here it is learnt while the limit is not
//!   in use. Where it always is, half of the limit is tried for one window now and then, and what is seen then is the
//!   usual time (the probe of Vegas). So the limit ends where twice as many at once make each half as slow again, which
//!   is where a larger batch begins to cost more than it brings.
//! - AIMD grows by 1 % a second around the limit that was refused last, for a refusal costs a pause, and by one per
//!   turn-around beyond.
//!
//! A limit that was never hit is never changed, and one that is not half used never grows. O(1) a request beside a median of
//! at most 64 numbers once per window; the bound that decisions ask for is an integer that is kept.
//!
//! [concurrency-limits]: https://github.com/Netflix/concurrency-limits

use std::time::Duration;

use smallvec::SmallVec;

use crate::facts::Lane;
use crate::time::Now;

/// How much slower than usual is still no congestion.
const TOLERANCE: f64 = 1.5;
/// The same for the first content, which varies more: prompts may be cached.
const TOLERANCE_FIRST: f64 = 3.0;
/// How much slower than usual is still calm.
const CALM: f64 = 1.2;
/// Requests that may wait inside an engine.
const QUEUE: f64 = 4.0;
/// How much of a step up is taken.
const SMOOTHING: f64 = 0.2;
/// The same between calm and congested, where a larger batch brings little.
const SMOOTHING_NEAR: f64 = 0.1;
/// Requests over which the usual time is an average.
const LONG_REQUESTS: f64 = 600.0;
/// Requests that make a window: half of the limit, from and to this. The first to end are those that were fast, so a few
/// of many would tell of the lucky ones.
const WINDOW_REQUESTS: (usize, usize) = (10, 64);
/// Requests before which nothing is held against the usual time, for the same reason.
const WARM_REQUESTS: f64 = 64.0;
/// Windows in use after which the usual time is measured anew; and after a measurement that found it outdated.
const PROBE_AFTER: (u32, u32) = (64, 4);
/// Requests in flight that an engine of unknown size is given at first.
const ENGINE_FIRST: f64 = 32.0;
/// What a refusal leaves.
const BACKOFF: f64 = 0.9;
/// Growth a second around the limit that was refused last.
const GROWTH_PER_S: f64 = 0.01;
/// How far around.
const NEAR_REFUSED: f64 = 1.1;

/// How a deployment's limit is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimiterSpec {
    /// By which rule.
    pub kind: LimiterKind,
    /// The least it may be.
    pub min: u32,
    /// The most it may be; the deployment's slots if those are fewer.
    pub max: u32,
}

impl Default for LimiterSpec {
    fn default() -> Self {
        Self { kind: LimiterKind::Auto, min: 4, max: 100_000 }
    }
}

/// By which rule a limit is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimiterKind {
    /// None: the slots alone count.
    Off,
    /// The gradient under the slots of engines, AIMD where requests cost something; engines without slots have none.
    Auto,
    /// By time per token.
    Gradient,
    /// By refusals.
    Aimd,
}

/// What one request that went well tells.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// When it was sent.
    pub taken: Now,
    /// Requests in flight when it was sent or when it ended, whichever were more.
    pub inflight: u32,
    /// Milliseconds per output token after the first.
    pub per_token_ms: Option<f64>,
    /// Milliseconds to the first content of a stream, by prompt length.
    pub first_ms: Option<f64>,
    /// Milliseconds of an answer in one piece, by its length and that of the prompt.
    pub whole_ms: Option<f64>,
}

/// What is known of how much one deployment can take.
#[derive(Debug, Clone)]
pub struct Limiter {
    rule: Rule,
    limit: f64,
    least: f64,
    most: f64,
    slots: Option<u32>,
    /// The part of it that batch may hold.
    batch_share: f64,
    /// What decisions ask for, by lane.
    bounds: [u32; 2],
}

#[derive(Debug, Clone)]
enum Rule {
    Off,
    Gradient(Gradient),
    Aimd(Aimd),
}

impl Limiter {
    /// The limiter of a deployment nothing is known of.
    pub fn new(spec: &LimiterSpec, free: bool, slots: Option<u32>) -> Self {
        let rule = match (spec.kind, free) {
            // Nobody but the operator may hold an engine back that was given no number of slots.
            (LimiterKind::Auto, true) if slots.is_none() => Rule::Off,
            (LimiterKind::Off, _) => Rule::Off,
            (LimiterKind::Gradient, _) | (LimiterKind::Auto, true) => Rule::Gradient(Gradient::default()),
            (LimiterKind::Aimd, _) | (LimiterKind::Auto, false) => Rule::Aimd(Aimd::default()),
        };
        let most = f64::from(slots.unwrap_or(u32::MAX).min(spec.max).max(1));
        let first = match (&rule, slots) {
            // The size of an engine shows only once its usual time is known, so it is not flooded before.
            (Rule::Gradient(_), None) => ENGINE_FIRST.max(f64::from(spec.min)).min(most),
            (Rule::Gradient(_), Some(_)) | (Rule::Aimd(_) | Rule::Off, _) => most,
        };
        let least = f64::from(spec.min.max(1)).min(most);
        let mut limiter = Self { rule, limit: first, least, most, slots, batch_share: 1.0, bounds: [0; 2] };
        limiter.set(first);
        limiter
    }

    /// Goes on under another configuration; what was learnt stays where the rule does.
    pub fn apply(&mut self, spec: &LimiterSpec, free: bool, slots: Option<u32>) {
        let mut new = Self::new(spec, free, slots);
        let same = std::mem::discriminant(&new.rule) == std::mem::discriminant(&self.rule);
        if same && !matches!(new.rule, Rule::Off) {
            // Where nothing ever lowered it, more slots are more room.
            let limit = if self.limit >= self.most { new.limit.max(self.limit) } else { self.limit };
            std::mem::swap(&mut new.rule, &mut self.rule);
            new.set(limit);
        }
        *self = new;
    }

    /// The part of it that the batch lane may hold.
    pub fn set_batch_share(&mut self, share: f64) {
        self.batch_share = share;
        self.set(self.limit);
    }

    /// Requests that may be in flight of the batch lane, and of both.
    #[inline]
    pub fn bound(&self, lane: Lane) -> u32 {
        self.bounds[lane as usize]
    }

    /// Requests that may be in flight in all; `None`: any number.
    pub fn limit(&self) -> Option<u32> {
        Some(self.bounds[Lane::Live as usize]).filter(|bound| *bound < u32::MAX)
    }

    /// A request went well.
    pub fn succeeded(&mut self, sample: &Sample, now: Now) {
        let limit = match &mut self.rule {
            Rule::Off => return,
            Rule::Gradient(gradient) => gradient.succeeded(sample, (self.limit, self.most), now),
            Rule::Aimd(aimd) => aimd.succeeded(sample.inflight, self.limit, now),
        };
        self.set(limit);
    }

    /// A request that was sent at `taken` was refused for being too many, or never answered.
    pub fn refused(&mut self, taken: Now, inflight: u32, now: Now) {
        // What was sent before the last cut says nothing about the limit since.
        let since = match &mut self.rule {
            Rule::Off => return,
            Rule::Gradient(gradient) => &mut gradient.window.since,
            Rule::Aimd(aimd) => &mut aimd.cut_at,
        };
        if taken < *since {
            return;
        }
        *since = now;
        // A limit that was far away says nothing; what was in flight does.
        let refused = self.limit.min(f64::from(inflight.max(1)));
        match &mut self.rule {
            Rule::Off => {}
            Rule::Gradient(gradient) => gradient.begin(now, true),
            Rule::Aimd(aimd) => (aimd.refused, aimd.grown_at) = (Some(refused), now),
        }
        self.set(refused * BACKOFF);
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(self.least, self.most);
        let halved = matches!(&self.rule, Rule::Gradient(gradient) if gradient.probing);
        let limit = if halved { (self.limit / 2.0).max(self.least) } else { self.limit };
        let live = match self.rule {
            Rule::Off => self.slots.unwrap_or(u32::MAX),
            Rule::Gradient(_) | Rule::Aimd(_) => limit as u32,
        };
        let batch = if live == u32::MAX { live } else { (f64::from(live) * self.batch_share).ceil() as u32 };
        let batch = batch.clamp(1, live);
        self.bounds = [live, batch];
        debug_assert!(live >= 1, "a limit never shuts a deployment off");
        debug_assert!(live <= self.slots.unwrap_or(u32::MAX), "a limit is under the slots");
    }
}

/// The limit by time per token.
#[derive(Debug, Clone, Default)]
struct Gradient {
    /// The usual times: per token, to first content, of whole answers.
    usual: [Average; 3],
    window: Window,
    /// Windows in a row in which the limit was in use, since the usual time was measured.
    in_use: u32,
    /// Half of the limit is in force, to see what is usual.
    probing: bool,
    /// There was congestion before.
    knows_congestion: bool,
}

/// Requests that were sent since the limit last changed.
#[derive(Debug, Clone, Default)]
struct Window {
    since: Now,
    /// How much slower than usual each was.
    slower: SmallVec<[f32; 16]>,
    sums: [(f64, u32); 3],
    inflight_max: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Average {
    value: f64,
    samples: f64,
}

impl Average {
    fn learn(&mut self, mean: f64, samples: u32) {
        let samples = f64::from(samples);
        self.samples = (self.samples + samples).min(LONG_REQUESTS);
        // What became much faster was no longer true; what became slower has to prove it.
        let hurry = if mean < self.value / 2.0 { 10.0 } else { 1.0 };
        let weight = (samples * hurry / self.samples).min(1.0);
        self.value += (mean - self.value) * weight;
    }
}

impl Gradient {
    fn succeeded(&mut self, sample: &Sample, (limit, most): (f64, f64), now: Now) -> f64 {
        if sample.taken < self.window.since {
            return limit;
        }
        let times = [
            (sample.per_token_ms, 1.0),
            (sample.first_ms, TOLERANCE / TOLERANCE_FIRST),
            (sample.whole_ms, 1.0),
        ];
        let mut slower: f64 = 0.0;
        for (at, (time, scale)) in times.into_iter().enumerate() {
            let Some(time) = time.filter(|time| time.is_finite() && *time > 0.0) else { continue };
            let usual = self.usual[at].value;
            // What somebody slow read says little about the engine.
            let counted = if usual > 0.0 { time.min(usual * 4.0) } else { time };
            self.window.sums[at].0 += counted;
            self.window.sums[at].1 += 1;
            let ratio = if self.usual[at].samples >= WARM_REQUESTS { time / usual } else { 1.0 };
            slower = slower.max(ratio * scale);
        }
        self.window.slower.push(slower as f32);
        self.window.inflight_max = self.window.inflight_max.max(sample.inflight);
        let enough = (limit as usize / 2).clamp(WINDOW_REQUESTS.0, WINDOW_REQUESTS.1);
        if self.window.slower.len() < enough { limit } else { self.close(limit, most, now) }
    }

    /// The window is full: what it says of the limit.
    fn close(&mut self, limit: f64, most: f64, now: Now) -> f64 {
        let Window { slower, sums, inflight_max, .. } = &mut self.window;
        let middle = slower.len() / 2;
        let slower = f64::from(*slower.select_nth_unstable_by(middle, f32::total_cmp).1);
        let means = sums.map(|(sum, count)| (sum / f64::from(count.max(1)), count));
        let used = f64::from(*inflight_max) * 2.0 >= limit;
        let calm = slower <= CALM;
        if std::mem::take(&mut self.probing) {
            let outdated = slower < CALM / TOLERANCE;
            self.in_use = if outdated { PROBE_AFTER.0 - PROBE_AFTER.1 } else { 0 };
            for (usual, (mean, count)) in self.usual.iter_mut().zip(means).filter(|(_, mean)| mean.1 > 0) {
                *usual = Average { value: mean, samples: f64::from(count).max(WARM_REQUESTS) };
            }
            self.begin(now, true);
            return limit;
        }
        // While the limit is in use, what looks usual may be what the limit makes of it: only less is believed, and what a
        // probe sees.
        if !used || slower < 1.0 || (calm && !self.knows_congestion) {
            for (usual, (mean, count)) in self.usual.iter_mut().zip(means).filter(|(_, mean)| mean.1 > 0) {
                usual.learn(mean, count);
            }
        }
        self.in_use = if used && self.knows_congestion { self.in_use + 1 } else { 0 };
        // What was never told a time has nothing to be held to.
        let warm = self.usual.iter().all(|usual| usual.samples == 0.0 || usual.samples >= WARM_REQUESTS);
        if !used || !warm {
            self.begin(now, false);
            return limit;
        }
        self.begin(now, !calm);
        self.probing = self.in_use > PROBE_AFTER.0 && limit < most;
        if slower > TOLERANCE {
            // Down at once, for every turn-around under this limit is lost, and to where it is calm, not to the edge.
            return limit * (CALM / slower).max(0.5);
        }
        limit
            + match (calm, self.knows_congestion) {
                (true, false) => limit,
                (true, true) => limit * SMOOTHING,
                (false, _) => QUEUE * SMOOTHING_NEAR,
            }
    }

    fn begin(&mut self, now: Now, congestion: bool) {
        self.knows_congestion |= congestion;
        self.window = Window { since: now, ..Window::default() };
    }
}

/// The limit by refusals.
#[derive(Debug, Clone, Default)]
struct Aimd {
    cut_at: Now,
    grown_at: Now,
    /// What was in flight when something was refused last.
    refused: Option<f64>,
}

impl Aimd {
    fn succeeded(&mut self, inflight: u32, limit: f64, now: Now) -> f64 {
        let since = (now - self.grown_at).min(Duration::from_secs(1));
        if f64::from(inflight) * 2.0 < limit {
            self.grown_at = now;
            return limit;
        }
        self.grown_at = now;
        match self.refused {
            Some(refused) if limit < refused * NEAR_REFUSED => {
                limit * (1.0 + GROWTH_PER_S * since.as_secs_f64())
            }
            Some(_) | None => limit + 1.0 / limit,
        }
    }
}

#[cfg(test)]
mod tests;
