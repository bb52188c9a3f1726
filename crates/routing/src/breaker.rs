//! Leaves a deployment alone that keeps failing, and lets one request through to see whether it is back.

use std::time::Duration;

use serde::Serialize;

use crate::catalog::BreakerSpec;
use crate::rng::Rng;
use crate::time::Now;

/// A circuit breaker over failures in a row (Nygard, "Release It!", 2007). Open times double from `open_min` to
/// `open_max` with a jitter of a half, so that deployments that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Breaker {
    state: State,
    /// How often it opened without a success in between.
    opened: u32,
    transitions: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed { failures: u32 },
    Open { until: Now },
    HalfOpen { probing: bool },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

/// Whether a request may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// It may.
    Free,
    /// One may, to see whether the deployment is back.
    Probe,
    /// None before then.
    OpenUntil(Now),
    /// Somebody is already looking.
    Probing,
}

/// The state as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// None pass.
    Open,
    /// One passes.
    HalfOpen,
}

impl Breaker {
    /// Whether a request may pass now.
    pub fn passage(&self, now: Now) -> Passage {
        match self.state {
            State::Closed { .. } => Passage::Free,
            State::Open { until } if now < until => Passage::OpenUntil(until),
            State::Open { .. } | State::HalfOpen { probing: false } => Passage::Probe,
            State::HalfOpen { probing: true } => Passage::Probing,
        }
    }

    /// A request passes. Gives whether it is the probe.
    pub fn enter(&mut self, now: Now) -> bool {
        let probes = self.passage(now) == Passage::Probe;
        if probes {
            self.go(State::HalfOpen { probing: true });
        }
        probes
    }

    /// A request succeeded.
    pub fn succeeded(&mut self) {
        self.opened = 0;
        self.go(State::Closed { failures: 0 });
    }

    /// A request failed by the deployment's fault.
    pub fn failed(&mut self, spec: &BreakerSpec, was_probe: bool, now: Now, rng: &mut Rng) {
        match self.state {
            State::Closed { failures } if failures + 1 < spec.failures.max(1) => {
                self.state = State::Closed { failures: failures + 1 };
            }
            State::Closed { .. } => self.open(spec, now, rng),
            State::HalfOpen { .. } if was_probe => self.open(spec, now, rng),
            // A straggler from before it opened says nothing new.
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    /// A request ended without saying anything about the deployment: a probe leaves room for the next.
    pub fn abandoned(&mut self, was_probe: bool) {
        if was_probe && self.state == (State::HalfOpen { probing: true }) {
            self.state = State::HalfOpen { probing: false };
        }
    }

    /// Closes it, whatever it knows.
    pub fn reset(&mut self) {
        self.succeeded();
    }

    /// Failures in a row while closed.
    pub fn failures_in_a_row(&self) -> u32 {
        match self.state {
            State::Closed { failures } => failures,
            State::Open { .. } | State::HalfOpen { .. } => 0,
        }
    }

    /// Changes of state so far.
    pub fn transitions(&self) -> u64 {
        self.transitions
    }

    /// The state as people read it.
    pub fn state(&self, now: Now) -> BreakerState {
        match self.passage(now) {
            Passage::Free => BreakerState::Closed,
            Passage::OpenUntil(_) => BreakerState::Open,
            Passage::Probe | Passage::Probing => BreakerState::HalfOpen,
        }
    }

    fn open(&mut self, spec: &BreakerSpec, now: Now, rng: &mut Rng) {
        let doubled = spec.open_min.saturating_mul(1 << self.opened.min(16)).min(spec.open_max);
        let jittered = doubled.mul_f64(0.5 + rng.unit());
        self.opened = self.opened.saturating_add(1);
        self.go(State::Open { until: now + jittered.max(Duration::from_millis(1)) });
    }

    fn go(&mut self, state: State) {
        let kind = std::mem::discriminant(&state);
        self.transitions += u64::from(kind != std::mem::discriminant(&self.state));
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: BreakerSpec =
        BreakerSpec { failures: 3, open_min: Duration::from_secs(5), open_max: Duration::from_secs(300) };

    fn opened(times: u32) -> (Breaker, Now, Rng) {
        let (mut breaker, mut now, mut rng) = (Breaker::default(), Now::ZERO, Rng::seeded(3));
        for _ in 0..SPEC.failures {
            breaker.failed(&SPEC, false, now, &mut rng);
        }
        for _ in 1..times {
            let Passage::OpenUntil(until) = breaker.passage(now) else { panic!("not open") };
            now = until;
            assert!(breaker.enter(now));
            breaker.failed(&SPEC, true, now, &mut rng);
        }
        (breaker, now, rng)
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let (mut breaker, mut rng) = (Breaker::default(), Rng::seeded(1));
        for _ in 0..10 {
            breaker.failed(&SPEC, false, Now::ZERO, &mut rng);
            breaker.failed(&SPEC, false, Now::ZERO, &mut rng);
            breaker.succeeded();
        }
        assert_eq!(breaker.passage(Now::ZERO), Passage::Free);
    }

    #[test]
    fn f3_it_comes_back_through_one_probe() {
        let (mut breaker, now, _) = opened(1);
        let Passage::OpenUntil(until) = breaker.passage(now) else { panic!("not open") };
        assert_eq!(breaker.passage(until), Passage::Probe);
        assert!(breaker.enter(until));
        assert_eq!(breaker.passage(until), Passage::Probing, "one at a time");
        breaker.abandoned(true);
        assert_eq!(
            breaker.passage(until),
            Passage::Probe,
            "a client that left does not leave it half open for ever"
        );
        assert!(breaker.enter(until));
        breaker.succeeded();
        assert_eq!(breaker.passage(until), Passage::Free);
    }

    #[test]
    fn open_times_double_with_jitter_up_to_the_cap() {
        for (times, at_least, at_most) in [(1, 2.5, 7.5), (2, 5.0, 15.0), (4, 20.0, 60.0), (12, 150.0, 450.0)]
        {
            let (breaker, now, _) = opened(times);
            let Passage::OpenUntil(until) = breaker.passage(now) else { panic!("not open") };
            let open_s = (until - now).as_secs_f64();
            assert!((at_least..=at_most).contains(&open_s), "{times}: {open_s}");
        }
    }
}
