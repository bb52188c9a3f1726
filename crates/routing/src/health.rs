//! Whether a deployment works, as far as requests have shown: healthy, degraded, failed, recovering.
//!
//! Errors are judged as a rate over a fading window, by the lower end of what the rate may be (Wilson, "Probable
//! Inference", 1927), so that a few errors among few requests prove nothing. What cannot be an accident fails at once:
//! connections refused in a row, or nothing but failures. A failed deployment is left alone for a time that doubles,
//! with a jitter of a half so that those that failed together do not come back together; then one request probes it,
//! and its traffic returns on a ramp.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::catalog::HealthSpec;
use crate::failure::FailureClass;
use crate::rng::Rng;
use crate::time::Now;

/// Changes of state that are remembered.
const HISTORY_MAX: usize = 16;
/// Time after which a counted request has lost two thirds of its weight.
const WINDOW: Duration = Duration::from_secs(30);
/// How sure a verdict on a rate has to be, in standard deviations: about one in a thousand is wrong.
const SURENESS: f64 = 3.0;
/// Recent requests from which on their uptime is believed.
const UPTIME_REQUESTS_MIN: f64 = 5.0;
/// The least share of its traffic that a recovering deployment gets.
const RAMP_MIN: f64 = 0.1;
/// The longest between two early looks at a failed deployment; the shortest is a tenth of its time.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(3);

/// Whether a deployment works.
#[derive(Debug, Clone)]
pub struct Health {
    state: State,
    good: f64,
    bad: f64,
    /// The share of the good ones.
    uptime: f64,
    /// How many times worse than its load it looks for that.
    penalty: f64,
    counted_at: Now,
    failures_in_a_row: u32,
    connect_failures_in_a_row: u32,
    /// Too many of its requests fail, though it is used all the same.
    erring: bool,
    /// It answers, but much later than it should.
    slow: bool,
    /// How often it failed since it was healthy last.
    failed_times: u32,
    changes: u64,
    history: VecDeque<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Healthy,
    Degraded,
    Failed { until: Now, probing: bool, span: Duration, look_at: Now },
    Recovering { began: Now, joining: bool },
}

/// The state as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// It works.
    Healthy,
    /// More of its requests fail than should, or they take longer than they should; it is used all the same.
    Degraded,
    /// It is left alone.
    Failed,
    /// It is probed, or gets a growing share of its traffic.
    Recovering,
}

/// One change of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Change {
    /// When.
    pub at: Now,
    /// What it became.
    pub to: HealthState,
    /// Why.
    pub reason: Reason,
}

/// Why a state changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Too many of its recent requests failed.
    ErrorRate,
    /// Nothing but failures for a while.
    FailuresInARow,
    /// It refused connections.
    ConnectFailures,
    /// The probe failed.
    ProbeFailed,
    /// It failed again while its traffic was coming back.
    FailedOnRamp,
    /// A request got through.
    ProbeSucceeded,
    /// All its traffic is back.
    RampEnded,
    /// Its errors became few.
    ErrorsFew,
    /// It takes much longer than it should.
    Slow,
    /// It is as fast as it should be again.
    FastAgain,
    /// It is new, and gets its traffic on a ramp.
    Started,
    /// An operator said so.
    Operator,
}

/// Whether a request may be sent to a deployment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Passage {
    /// It may.
    Free,
    /// This share of requests may, from 0 to 1.
    Ramp(f64),
    /// One may, to see whether it works again.
    Probe,
    /// None before then, but for the rare one that explores.
    FailedUntil(Now),
    /// Somebody is already looking.
    Probing,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            state: State::Healthy,
            good: 0.0,
            bad: 0.0,
            uptime: 1.0,
            penalty: 1.0,
            counted_at: Now::ZERO,
            failures_in_a_row: 0,
            connect_failures_in_a_row: 0,
            erring: false,
            slow: false,
            failed_times: 0,
            changes: 0,
            history: VecDeque::new(),
        }
    }
}

impl Health {
    /// Of a deployment that joins others at work: its traffic comes on a ramp, for it may have to warm up.
    pub fn starting(now: Now) -> Self {
        let mut health = Self::default();
        health.go(State::Recovering { began: now, joining: true }, Reason::Started, now);
        health
    }

    /// Whether nothing is known to be wrong that would keep requests away.
    #[inline]
    pub fn works(&self) -> bool {
        matches!(self.state, State::Healthy | State::Degraded)
    }

    /// Whether a request may be sent now.
    pub fn passage(&self, spec: &HealthSpec, now: Now) -> Passage {
        match self.state {
            State::Healthy | State::Degraded => Passage::Free,
            State::Failed { probing: true, .. } => Passage::Probing,
            State::Failed { until, .. } if now < until => Passage::FailedUntil(until),
            State::Failed { .. } => Passage::Probe,
            State::Recovering { began, joining, .. } => {
                let whole = if joining { spec.slow_start } else { spec.ramp };
                let share = (now - began).as_secs_f64() / whole.as_secs_f64().max(1e-9);
                if share < 1.0 { Passage::Ramp(share.max(RAMP_MIN)) } else { Passage::Free }
            }
        }
    }

    /// A request is sent. Gives whether it is a probe.
    pub fn enter(&mut self) -> bool {
        match &mut self.state {
            State::Failed { probing, .. } => !std::mem::replace(probing, true),
            State::Healthy | State::Degraded | State::Recovering { .. } => false,
        }
    }

    /// A request was answered.
    pub fn succeeded(&mut self, spec: &HealthSpec, was_probe: bool, now: Now) {
        self.count(true, now);
        self.failures_in_a_row = 0;
        self.connect_failures_in_a_row = 0;
        match self.state {
            State::Failed { .. } if was_probe => {
                (self.good, self.bad, self.uptime, self.penalty) = (1.0, 0.0, 1.0, 1.0);
                (self.erring, self.slow) = (false, false);
                self.go(State::Recovering { began: now, joining: false }, Reason::ProbeSucceeded, now);
            }
            State::Recovering { .. } if self.passage(spec, now) == Passage::Free => {
                self.failed_times = 0;
                self.go(self.working(), Reason::RampEnded, now);
            }
            State::Degraded
                if self.erring && self.rate_at_least() < spec.degraded_rate / 2.0 && self.is_settled(now) =>
            {
                self.erring = false;
                self.turn(Reason::ErrorsFew, now);
            }
            State::Healthy | State::Degraded | State::Failed { .. } | State::Recovering { .. } => {}
        }
    }

    /// A request failed by the deployment's fault: whether it was a probe, and when it was sent.
    pub fn failed(
        &mut self,
        spec: &HealthSpec,
        class: FailureClass,
        (was_probe, taken): (bool, Now),
        now: Now,
        rng: &mut Rng,
    ) {
        self.count(false, now);
        self.failures_in_a_row += 1;
        let connect = matches!(class, FailureClass::Connect | FailureClass::ConnectTimeout);
        self.connect_failures_in_a_row = if connect { self.connect_failures_in_a_row + 1 } else { 0 };
        match &mut self.state {
            State::Failed { until, probing, span, look_at } => {
                // A straggler from before it failed says nothing new, and neither does a failure that was to be
                // expected because somebody looked early.
                let due = now >= *until;
                if was_probe {
                    *probing = false;
                    *look_at = now + (*span / 10).min(LOOK_EVERY_MAX);
                    if due {
                        self.fail(spec, Reason::ProbeFailed, now, rng);
                    }
                }
            }
            // So does one that was sent before it came back.
            State::Recovering { began, .. } if taken < *began => {}
            State::Recovering { .. } | State::Healthy | State::Degraded => self.judge(spec, now, rng),
        }
    }

    /// It answers much later than it should, or no longer does.
    pub fn set_slow(&mut self, slow: bool, now: Now) {
        if std::mem::replace(&mut self.slow, slow) != slow {
            self.turn(if slow { Reason::Slow } else { Reason::FastAgain }, now);
        }
    }

    /// A request ended without saying anything about the deployment: a probe leaves room for the next.
    pub fn abandoned(&mut self, was_probe: bool) {
        if let (true, State::Failed { probing, .. }) = (was_probe, &mut self.state) {
            *probing = false;
        }
    }

    /// It is to be left alone until then at least, on its provider's word. Only ever later.
    pub fn extend(&mut self, to: Now) {
        if let State::Failed { until, .. } = &mut self.state {
            *until = to.max(*until);
        }
    }

    /// Takes it for healthy, whatever it knows.
    pub fn reset(&mut self, now: Now) {
        let changes = self.changes;
        let history = std::mem::take(&mut self.history);
        let was = self.state();
        *self = Self { changes, history, ..Self::default() };
        if was != HealthState::Healthy {
            self.note(Reason::Operator, now);
        }
    }

    /// Until when it is left alone, if it is.
    pub fn until(&self) -> Option<Now> {
        match self.state {
            State::Failed { until, .. } => Some(until),
            State::Healthy | State::Degraded | State::Recovering { .. } => None,
        }
    }

    /// Whether it has failed and somebody may look early whether it works again.
    pub fn may_be_looked_at(&self, now: Now) -> bool {
        matches!(self.state, State::Failed { probing: false, look_at, .. } if now >= look_at)
    }

    /// The state as people read it.
    pub fn state(&self) -> HealthState {
        match self.state {
            State::Healthy => HealthState::Healthy,
            State::Degraded => HealthState::Degraded,
            State::Failed { .. } => HealthState::Failed,
            State::Recovering { .. } => HealthState::Recovering,
        }
    }

    /// What is the matter with it now; nothing while it is healthy.
    pub fn reasons(&self) -> Vec<Reason> {
        let proven = [(self.erring, Reason::ErrorRate), (self.slow, Reason::Slow)];
        let proven = proven.into_iter().filter(|(proven, _)| *proven).map(|(_, reason)| reason);
        match self.state {
            State::Healthy => Vec::new(),
            State::Degraded => proven.collect(),
            State::Failed { .. } | State::Recovering { .. } => {
                // Why it changed last, which is newer than whatever it was before.
                self.history.back().map(|change| change.reason).into_iter().collect()
            }
        }
    }

    /// The share of recent requests that were answered, from 0 to 1; 1 while too little is known.
    pub fn uptime(&self) -> f64 {
        self.uptime
    }

    /// How many times worse than its load it looks for its uptime. Kept, because every decision reads it.
    #[inline]
    pub fn penalty(&self) -> f64 {
        self.penalty
    }

    fn count(&mut self, good: bool, now: Now) {
        self.fade(now);
        *(if good { &mut self.good } else { &mut self.bad }) += 1.0;
        let all = self.good + self.bad;
        // Of few requests one that failed is no uptime of nothing.
        self.uptime = if all < UPTIME_REQUESTS_MIN - 0.5 { 1.0 } else { self.good / all };
        self.penalty = 1.0 + uptime_penalty(self.uptime);
    }

    /// What it is while it works.
    fn working(&self) -> State {
        if self.erring || self.slow { State::Degraded } else { State::Healthy }
    }

    /// Something that it is degraded by was proven, or no longer is. Noted even while the other keeps it what it is.
    fn turn(&mut self, reason: Reason, now: Now) {
        if self.works() {
            self.state = self.working();
            self.note(reason, now);
        }
    }

    /// Failures in a row.
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    /// Changes of state so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The latest changes, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &Change> {
        self.history.iter()
    }

    fn judge(&mut self, spec: &HealthSpec, now: Now, rng: &mut Rng) {
        if self.connect_failures_in_a_row >= spec.connect_failures {
            return self.fail(spec, Reason::ConnectFailures, now, rng);
        }
        if self.failures_in_a_row >= spec.failures {
            return self.fail(spec, Reason::FailuresInARow, now, rng);
        }
        // A fading count never quite reaches what was counted.
        if self.good + self.bad < f64::from(spec.requests_min) - 0.5 {
            return;
        }
        let rate = self.rate_at_least();
        if rate > spec.failed_rate {
            self.fail(spec, Reason::ErrorRate, now, rng);
        } else if rate > spec.degraded_rate && self.works() && !self.erring {
            self.erring = true;
            self.turn(Reason::ErrorRate, now);
        }
    }

    fn fail(&mut self, spec: &HealthSpec, reason: Reason, now: Now, rng: &mut Rng) {
        let doubled = spec.open_min.saturating_mul(1 << self.failed_times.min(16)).min(spec.open_max);
        self.failed_times = self.failed_times.saturating_add(1);
        let span = doubled.mul_f64(0.5 + rng.unit());
        let look_at = now + (span / 10).min(LOOK_EVERY_MAX);
        let on_ramp = matches!(self.state, State::Recovering { joining: false, .. });
        let reason = if on_ramp { Reason::FailedOnRamp } else { reason };
        self.go(State::Failed { until: now + span, probing: false, span, look_at }, reason, now);
    }

    /// The least that its rate of errors is likely to be.
    fn rate_at_least(&self) -> f64 {
        wilson_lower(self.bad, self.good + self.bad)
    }

    /// Whether it has been what it is for a window.
    fn is_settled(&self, now: Now) -> bool {
        self.history.back().is_none_or(|change| now - change.at >= WINDOW)
    }

    fn fade(&mut self, now: Now) {
        let kept = (-(now - self.counted_at).as_secs_f64() / WINDOW.as_secs_f64()).exp();
        self.good *= kept;
        self.bad *= kept;
        self.counted_at = now;
    }

    fn go(&mut self, state: State, reason: Reason, now: Now) {
        let before = self.state();
        self.state = state;
        if self.state() != before || reason == Reason::ProbeFailed {
            self.note(reason, now);
        }
    }

    fn note(&mut self, reason: Reason, now: Now) {
        self.changes += 1;
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Change { at: now, to: self.state(), reason });
    }
}

/// The lower end of the interval that holds the true rate of `bad` among `all` (Wilson score interval).
fn wilson_lower(bad: f64, all: f64) -> f64 {
    if all <= 0.0 {
        return 0.0;
    }
    let (rate, z2) = (bad / all, SURENESS * SURENESS);
    let spread = SURENESS * (rate * (1.0 - rate) / all + z2 / (4.0 * all * all)).sqrt();
    ((rate + z2 / (2.0 * all) - spread) / (1.0 + z2 / all)).max(0.0)
}

/// How much worse than its load a deployment of this uptime (0 to 1) looks: nothing down to 95 %, 5.61 at a half.
pub fn uptime_penalty(uptime: f64) -> f64 {
    let short = (95.0 - 100.0 * uptime).max(0.0);
    (5.0 * short / 95.0).powi(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> HealthSpec {
        HealthSpec::default()
    }

    /// Feeds one request every 100 ms: `x` fails, `c` cannot connect, anything else is answered. Gives the state at the
    /// end of each.
    fn run(health: &mut Health, rng: &mut Rng, from: Now, requests: impl Iterator<Item = char>) -> Now {
        let mut now = from;
        for request in requests {
            now = now + Duration::from_millis(100);
            let probe = health.enter();
            match request {
                'x' => health.failed(&spec(), FailureClass::Transient, (probe, now), now, rng),
                'c' => health.failed(&spec(), FailureClass::Connect, (probe, now), now, rng),
                _ => health.succeeded(&spec(), probe, now),
            }
        }
        now
    }

    #[track_caller]
    fn check(requests: &str, expected: HealthState) {
        let mut health = Health::default();
        run(&mut health, &mut Rng::seeded(1), Now::from_millis(1000), requests.chars());
        assert_eq!(health.state(), expected, "{requests}");
    }

    #[test]
    fn errors_are_judged_by_rate_and_not_by_a_few() {
        check("x", HealthState::Healthy);
        check("..x..x", HealthState::Healthy);
        check("xxxxx", HealthState::Failed);
        check("cc", HealthState::Failed);
        check("c.c.", HealthState::Healthy);
        check("...x..x...x", HealthState::Failed);
        check(&(".".repeat(150) + &".........x".repeat(4)), HealthState::Healthy);
        check(&(".".repeat(100) + &"....x".repeat(8)), HealthState::Degraded);
    }

    #[test]
    fn thirty_percent_errors_are_found_within_twenty_requests() {
        let mut missed = 0;
        for seed in 0..1000 {
            let (mut rng, mut health) = (Rng::seeded(seed), Health::default());
            let requests: Vec<char> = (0..20).map(|_| if rng.unit() < 0.3 { 'x' } else { '.' }).collect();
            let mut now = Now::from_millis(1000);
            let found = requests.into_iter().any(|request| {
                now = run(&mut health, &mut rng, now, std::iter::once(request));
                health.state() == HealthState::Failed
            });
            missed += u32::from(!found);
        }
        assert!(missed < 200, "{missed} of 1000 runs did not find it");
    }

    #[test]
    fn one_percent_of_errors_does_not_flap() {
        let (mut rng, mut health) = (Rng::seeded(5), Health::default());
        let day: u64 = 24 * 3600;
        for second in 0..day {
            let class = FailureClass::Transient;
            let now = Now::from_millis(1000 * second);
            let probe = health.enter();
            if rng.unit() < 0.01 {
                health.failed(&spec(), class, (probe, now), now, &mut rng);
            } else {
                health.succeeded(&spec(), probe, now);
            }
        }
        assert!(health.changes() <= 4, "{} changes in a day", health.changes());
    }

    #[test]
    fn e5_it_is_left_alone_longer_each_time_probed_once_and_comes_back_on_a_ramp() {
        let (mut rng, mut health) = (Rng::seeded(2), Health::default());
        let mut now = run(&mut health, &mut rng, Now::from_millis(0), "xxxxx".chars());
        let mut spans = Vec::new();
        for _ in 0..8 {
            let Passage::FailedUntil(until) = health.passage(&spec(), now) else { panic!("{health:?}") };
            spans.push((until - now).as_secs_f64());
            now = until;
            assert_eq!(health.passage(&spec(), now), Passage::Probe);
            assert!(health.enter(), "the first is the probe");
            assert!(!health.enter(), "and the only one");
            assert_eq!(health.passage(&spec(), now), Passage::Probing);
            health.failed(&spec(), FailureClass::Transient, (true, now), now, &mut rng);
        }
        for (time, span) in spans.iter().enumerate() {
            let usual = (5.0 * f64::from(1 << time)).min(300.0);
            assert!((usual * 0.5..=usual * 1.5).contains(span), "{time}: {span} s, usual {usual} s");
        }
        let Passage::FailedUntil(until) = health.passage(&spec(), now) else { panic!("{health:?}") };
        assert!(health.enter());
        health.succeeded(&spec(), true, until);
        assert_eq!(health.passage(&spec(), until), Passage::Ramp(0.1));
        assert_eq!(health.passage(&spec(), until + Duration::from_secs(5)), Passage::Ramp(0.5));
        assert_eq!(health.passage(&spec(), until + Duration::from_secs(10)), Passage::Free);
        health.succeeded(&spec(), false, until + Duration::from_secs(10));
        assert_eq!(health.state(), HealthState::Healthy);
        let reasons: Vec<_> = health.history().map(|change| change.reason).collect();
        assert_eq!(reasons[..2], [Reason::FailuresInARow, Reason::ProbeFailed]);
        assert_eq!(reasons[reasons.len() - 2..], [Reason::ProbeSucceeded, Reason::RampEnded]);
    }

    #[test]
    fn e13_a_providers_word_extends_and_never_shortens() {
        let (mut rng, mut health) = (Rng::seeded(2), Health::default());
        let now = run(&mut health, &mut rng, Now::ZERO, "xxxxx".chars());
        let until = |health: &Health| health.until().expect("it failed");
        let before = until(&health);
        health.extend(now + Duration::from_millis(1));
        assert_eq!(until(&health), before);
        health.extend(now + Duration::from_secs(60));
        assert_eq!(until(&health), now + Duration::from_secs(60));
    }

    #[test]
    fn a_probe_that_says_nothing_leaves_room_for_the_next_and_an_early_look_changes_no_time() {
        let (mut rng, mut health) = (Rng::seeded(2), Health::default());
        let now = run(&mut health, &mut rng, Now::ZERO, "xxxxx".chars());
        let before = health.passage(&spec(), now);
        assert!(health.enter());
        health.abandoned(true);
        assert!(health.enter(), "room for the next");
        health.failed(&spec(), FailureClass::Transient, (true, now), now, &mut rng);
        assert_eq!(health.passage(&spec(), now), before, "it looked early");
    }

    #[test]
    fn errors_and_slowness_degrade_each_on_its_own() {
        let (mut rng, mut health) = (Rng::seeded(1), Health::default());
        let requests = ".".repeat(100) + &"....x".repeat(8);
        let now = run(&mut health, &mut rng, Now::from_millis(1000), requests.chars());
        health.set_slow(true, now);
        assert_eq!(
            (health.state(), health.reasons()),
            (HealthState::Degraded, vec![Reason::ErrorRate, Reason::Slow])
        );
        let now = run(&mut health, &mut rng, now + Duration::from_secs(60), ".".repeat(100).chars());
        assert_eq!((health.state(), health.reasons()), (HealthState::Degraded, vec![Reason::Slow]));
        health.set_slow(false, now);
        assert_eq!((health.state(), health.reasons()), (HealthState::Healthy, vec![]));
        let reasons: Vec<_> = health.history().map(|change| change.reason).collect();
        assert_eq!(reasons, [Reason::ErrorRate, Reason::Slow, Reason::ErrorsFew, Reason::FastAgain]);
        // What failed is failed; that it was slow before it failed is of no interest once it is back.
        health.set_slow(true, now);
        let now = run(&mut health, &mut rng, now, "xxxxx".chars());
        assert_eq!((health.state(), health.reasons()), (HealthState::Failed, vec![Reason::FailuresInARow]));
        assert!(health.enter());
        health.succeeded(&spec(), true, now);
        assert_eq!(health.reasons(), [Reason::ProbeSucceeded]);
    }

    #[test]
    fn one_failure_of_one_request_is_no_uptime_of_nothing() {
        let (mut rng, mut health) = (Rng::seeded(1), Health::default());
        let now = run(&mut health, &mut rng, Now::from_millis(1000), "x".chars());
        assert!((health.penalty() - 1.0).abs() < 1e-9);
        run(&mut health, &mut rng, now, "..x.x".chars());
        assert!((health.uptime() - 0.5).abs() < 0.01 && (health.penalty() - 6.61).abs() < 0.1, "{health:?}");
    }

    #[test]
    fn the_penalty_is_that_of_the_published_score() {
        assert!((uptime_penalty(0.5) - 5.61).abs() < 0.01);
        assert!(uptime_penalty(0.95) < 1e-9 && uptime_penalty(1.0) < 1e-9);
    }
}
