//! The world: an event heap over virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, Catalog, Name};
use pointsman_routing::facts::Lane;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, Flow, FlowOutcome, Input, Phase, Usage};
use pointsman_routing::{Facts, Failure, FailureClass, Fleet, Now, Rng};

use crate::report::{DeploymentReport, Report, quantile};

/// What the world is like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The model that is asked for.
    pub model: String,
    /// Requests in all.
    pub requests: u64,
    /// Requests a second, at random moments (Poisson).
    pub rate_per_s: f64,
    /// Prompt tokens on average.
    pub tokens_in_mean: u32,
    /// Output tokens on average.
    pub tokens_out_mean: u32,
    /// Time per prompt token, microseconds.
    pub prefill_us_per_token: u64,
    /// Time per output token, microseconds.
    pub decode_us_per_token: u64,
    /// Share of attempts that fail with 500.
    pub error_rate: f64,
    /// Share of attempts answered with 429 and a `retry-after` of one second.
    pub quota_rate: f64,
    /// Share of clients that leave at some moment of their request.
    pub leave_rate: f64,
    /// How much slower single deployments are, by name; 1 is the usual speed.
    pub slowness: BTreeMap<String, f64>,
    /// When single deployments are not there, by name: from and until, seconds.
    pub crashes: BTreeMap<String, (f64, f64)>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            model: String::new(),
            requests: 10_000,
            rate_per_s: 50.0,
            tokens_in_mean: 500,
            tokens_out_mean: 100,
            prefill_us_per_token: 100,
            decode_us_per_token: 5_000,
            error_rate: 0.0,
            quota_rate: 0.0,
            leave_rate: 0.0,
            slowness: BTreeMap::new(),
            crashes: BTreeMap::new(),
        }
    }
}

/// Something that is due: an input for a request, or the next arrival.
#[derive(Debug, Clone)]
enum Due {
    Arrival,
    /// What an attempt does next; of no interest once another attempt has begun.
    Attempt {
        request: usize,
        attempt: usize,
        input: Input,
    },
    Timer {
        request: usize,
    },
    Leave {
        request: usize,
    },
}

struct Request {
    flow: Flow,
    arrived: Now,
    tokens_out: u64,
    relayed: bool,
    ended: bool,
}

struct World<'w> {
    spec: &'w Spec,
    fleet: Fleet,
    rng: Rng,
    chance: Rng,
    now: Now,
    heap: BinaryHeap<Reverse<(Now, u64)>>,
    due: BTreeMap<u64, Due>,
    sequence: u64,
    requests: Vec<Request>,
    log_hash: u64,
    /// The integral of requests in flight over time, by deployment.
    load: BTreeMap<Name, f64>,
}

/// Runs the world to its end.
///
/// Invariants are asserted on the way: every request ends exactly once, nothing is sent after content came, and permits
/// are back at zero when all is over.
pub fn run(catalog: &Catalog, spec: &Spec, seed: u64) -> Report {
    let mut rng = Rng::seeded(seed);
    let chance = rng.fork("world");
    let mut world = World {
        spec,
        fleet: Fleet::new(),
        rng,
        chance,
        now: Now::ZERO,
        heap: BinaryHeap::new(),
        due: BTreeMap::new(),
        sequence: 0,
        requests: Vec::new(),
        log_hash: 0,
        load: BTreeMap::new(),
    };
    world.fleet.apply(catalog, Now::ZERO);
    world.schedule(Duration::ZERO, Due::Arrival);
    while let Some(Reverse((at, key))) = world.heap.pop() {
        let Some(due) = world.due.remove(&key).filter(|due| world.matters(due)) else { continue };
        world.advance(at);
        world.happen(due);
    }
    assert_eq!(world.fleet.permits_in_use(), 0, "every permit is back when all is over");
    assert!(world.requests.iter().all(|request| request.ended), "every request ends");
    world.report(seed)
}

impl World<'_> {
    fn schedule(&mut self, after: Duration, due: Due) {
        self.schedule_at(self.now + after, due);
    }

    fn schedule_at(&mut self, at: Now, due: Due) {
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence)));
        self.due.insert(self.sequence, due);
    }

    fn advance(&mut self, to: Now) {
        let span_s = (to - self.now).as_secs_f64();
        if span_s > 0.0 {
            for request in self.requests.iter().filter(|request| request.flow.holds_permit()) {
                if let Some(attempt) = request.flow.attempts().last() {
                    *self.load.entry(Name::clone(&attempt.name)).or_default() += span_s;
                }
            }
        }
        self.now = self.now.max(to);
    }

    /// Whether something that is due is still of interest; what is not must not even move the clock.
    fn matters(&self, due: &Due) -> bool {
        match due {
            Due::Arrival => true,
            Due::Attempt { request, attempt, .. } => {
                let flow = &self.requests[*request].flow;
                flow.attempts().len() == *attempt && flow.holds_permit()
            }
            Due::Timer { request } | Due::Leave { request } => !self.requests[*request].ended,
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival => self.arrive(),
            Due::Attempt { request, input, .. } => self.step(request, input),
            Due::Timer { request } => self.step(request, Input::TimerFired),
            Due::Leave { request } => self.step(request, Input::ClientGone),
        }
    }

    fn arrive(&mut self) {
        let number = self.requests.len();
        let facts = self.facts(number);
        let Some(facts) = facts else { return };
        let tokens_out = self.around(self.spec.tokens_out_mean).max(1);
        let flow = Flow::new(facts, self.now);
        self.requests.push(Request { flow, arrived: self.now, tokens_out, relayed: false, ended: false });
        if self.chance.unit() < self.spec.leave_rate {
            let usual = self.decode(tokens_out).mul_f64(1.5 * self.chance.unit());
            self.schedule(usual, Due::Leave { request: number });
        }
        self.step(number, Input::Arrived);
        if (self.requests.len() as u64) < self.spec.requests {
            let gap = -self.chance.unit().max(1e-12).ln() / self.spec.rate_per_s;
            self.schedule(Duration::from_secs_f64(gap), Due::Arrival);
        }
    }

    fn facts(&mut self, number: usize) -> Option<Facts> {
        let tokens_in = self.around(self.spec.tokens_in_mean);
        let session = number as u64 % 64;
        Some(Facts {
            model: self.fleet.model(&self.spec.model)?,
            version: None,
            needs: Capabilities::CHAT,
            tokens_in_estimate: u32::try_from(tokens_in).unwrap_or(u32::MAX),
            tokens_in_min: u32::try_from(tokens_in).unwrap_or(u32::MAX),
            tokens_out_max: None,
            stream: true,
            lane: Lane::Live,
            tenant: "simulated".into(),
            tenant_hash: 1,
            session_hash: Some(session.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
            user_hash: None,
            prefix_hash: None,
            region: None,
            tags: Default::default(),
            deadline: None,
        })
    }

    /// A number of tokens around a mean: exponential, as lengths of real traffic roughly are.
    fn around(&mut self, mean: u32) -> u64 {
        (-self.chance.unit().max(1e-12).ln() * f64::from(mean)) as u64
    }

    fn decode(&self, tokens: u64) -> Duration {
        Duration::from_micros(self.spec.decode_us_per_token * tokens)
    }

    /// Gives a request an input, does what is to be done, and tells whoever was granted a slot.
    fn step(&mut self, request: usize, input: Input) {
        let entry = &mut self.requests[request];
        debug_assert!(!entry.ended, "what is over gets no more inputs");
        let action = entry.flow.step(&mut self.fleet, self.now, &mut self.rng, input);
        assert!(
            !(entry.relayed && matches!(action, Action::Forward(_))),
            "nothing is sent after content came"
        );
        entry.relayed |= matches!(action, Action::Relay);
        self.note(request, &action);
        match &action {
            Action::Forward(_) => self.attempt(request),
            Action::Wait | Action::Relay => {}
            Action::Reject(_) | Action::Truncate(_) | Action::Finish => self.requests[request].ended = true,
        }
        let wake_at = self.requests[request].flow.wake_at();
        if !self.requests[request].ended && wake_at < Now::NEVER {
            self.schedule_at(wake_at.max(self.now), Due::Timer { request });
        }
        let mut woken = Default::default();
        self.fleet.drain_woken(&mut woken);
        for ticket in woken {
            let waits = |request: &Request| request.flow.ticket() == Some(ticket);
            if let Some(request) = self.requests.iter().rposition(waits) {
                self.step(request, Input::Granted);
            }
        }
    }

    /// Plays what a deployment does with an attempt.
    fn attempt(&mut self, request: usize) {
        let entry = &self.requests[request];
        let attempts = entry.flow.attempts();
        let attempt = attempts.len();
        let Some(name) = attempts.last().map(|attempt| attempt.name.to_string()) else { return };
        let slow = self.spec.slowness.get(&name).copied().unwrap_or(1.0);
        let tokens_in = u64::from(entry.flow.facts().tokens_in_estimate);
        let first = Duration::from_micros(self.spec.prefill_us_per_token * tokens_in).mul_f64(slow);
        let whole = first + self.decode(entry.tokens_out).mul_f64(slow);
        let usage = Usage { tokens_in, tokens_out: entry.tokens_out, ..Usage::default() };
        let later =
            |world: &mut Self, after, input| world.schedule(after, Due::Attempt { request, attempt, input });
        if self.is_down(&name, self.now) {
            return later(
                self,
                Duration::from_millis(1),
                failure(FailureClass::Connect, Processed::No, None),
            );
        }
        later(self, Duration::from_micros(200), Input::Connected);
        let dice = self.chance.unit();
        if dice < self.spec.quota_rate {
            let wait = Some(Duration::from_secs(1));
            return later(
                self,
                Duration::from_millis(5),
                failure(FailureClass::CredentialQuota, Processed::No, wait),
            );
        }
        if dice < self.spec.quota_rate + self.spec.error_rate {
            return later(self, first, failure(FailureClass::Transient, Processed::RefusedWithError, None));
        }
        later(self, first, Input::Headers);
        later(self, first, Input::FirstContent);
        // One that goes down takes with it what it has in flight.
        let end = self.now + whole;
        let crash = self.spec.crashes.get(&name).map(|(from, _)| Now::from_nanos((from * 1e9) as u64));
        match crash.filter(|crash| *crash > self.now && *crash < end) {
            Some(crash) => {
                let input = failure(FailureClass::Transient, Processed::Maybe, None);
                self.schedule_at(crash, Due::Attempt { request, attempt, input });
            }
            None => later(self, whole, Input::Done(usage)),
        }
    }

    fn is_down(&self, name: &str, at: Now) -> bool {
        self.spec.crashes.get(name).is_some_and(|(from, until)| (*from..*until).contains(&at.as_secs_f64()))
    }

    fn note(&mut self, request: usize, action: &Action) {
        let mut line = String::new();
        let phase = self.requests[request].flow.phase();
        let _ = write!(line, "{request} {} {}", self.now.as_nanos(), phase.name());
        if let Action::Forward(choice) = action {
            line.push_str(&choice.name);
        }
        debug_assert!(phase != Phase::New, "a request that arrived is no longer new");
        self.log_hash = line
            .bytes()
            .fold(self.log_hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    }

    fn report(&self, seed: u64) -> Report {
        let mut outcomes: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut deployments: BTreeMap<String, DeploymentReport> = BTreeMap::new();
        let (mut first_content, mut waits) = (Vec::new(), Vec::new());
        for request in &self.requests {
            let outcome = match request.flow.outcome() {
                Some(FlowOutcome::Completed { .. }) => "completed",
                Some(FlowOutcome::Rejected { .. }) => "rejected",
                Some(FlowOutcome::Failed { .. }) => "failed",
                Some(FlowOutcome::Truncated { .. }) => "truncated",
                Some(FlowOutcome::ClientGone { .. }) => "client_gone",
                None => "unfinished",
            };
            *outcomes.entry(outcome).or_default() += 1;
            waits.push(request.flow.queue_wait().as_secs_f64() * 1e3);
            for attempt in request.flow.attempts() {
                let deployment = deployments.entry(attempt.name.to_string()).or_default();
                deployment.attempts += 1;
                deployment.failures += u64::from(attempt.failure.is_some());
                if let Some(first) = attempt.first_content {
                    first_content.push((first - request.arrived).as_secs_f64() * 1e3);
                }
            }
        }
        let attempts: u64 = deployments.values().map(|deployment| deployment.attempts).sum();
        let span_s = self.now.as_secs_f64();
        for (name, deployment) in &mut deployments {
            deployment.share = deployment.attempts as f64 / attempts.max(1) as f64;
            deployment.inflight_mean =
                self.load.get(name.as_str()).copied().unwrap_or(0.0) / span_s.max(1e-9);
        }
        Report {
            seed,
            requests: self.requests.len() as u64,
            outcomes,
            attempts,
            span_s,
            first_content_ms_p50: quantile(&mut first_content, 0.5),
            first_content_ms_p99: quantile(&mut first_content, 0.99),
            queue_wait_ms_p99: quantile(&mut waits, 0.99),
            deployments,
            log_hash: self.log_hash,
        }
    }
}

fn failure(class: FailureClass, processed: Processed, retry_after: Option<Duration>) -> Input {
    Input::Failed(Failure { class, processed, status: None, retry_after })
}
