//! The world: an event heap over virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, Catalog};
use pointsman_routing::facts::Lane;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, Flow, FlowOutcome, Input, Phase, Usage};
use pointsman_routing::ids::Ticket;
use pointsman_routing::{DeploymentId, Facts, Failure, FailureClass, Fleet, Now, Rng};

use crate::engine::{Batch, Sold};
use crate::fault::{Fate, Fault, What, fate};
use crate::report::{Report, Tally};
use crate::scenario::Rate;

/// What the world is like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The model that is asked for.
    pub model: String,
    /// Requests in all, at most.
    pub requests: u64,
    /// Time after which no more arrive, seconds.
    pub duration_s: f64,
    /// Requests a second, each from its moment on, at random moments (Poisson). At least one.
    pub rates: Vec<Rate>,
    /// Prompt tokens on average.
    pub tokens_in_mean: u32,
    /// Output tokens on average.
    pub tokens_out_mean: u32,
    /// Time before the first content that does not depend on the prompt, milliseconds.
    pub first_content_base_ms: u64,
    /// Time per prompt token, microseconds.
    pub prefill_us_per_token: u64,
    /// Time per output token, microseconds.
    pub decode_us_per_token: u64,
    /// How engines slow down with what is in flight, if they do.
    pub batch: Option<Batch>,
    /// Requests a second above which a deployment answers 429 with a `retry-after` of one second, if it does.
    pub refused_above_per_s: Option<f64>,
    /// Share of attempts that fail with 500, whatever else goes wrong.
    pub error_rate: f64,
    /// Share of clients that leave at some moment of their request.
    pub leave_rate: f64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            model: String::new(),
            requests: 10_000,
            duration_s: f64::INFINITY,
            rates: vec![Rate { from_s: 0.0, per_s: 50.0 }],
            tokens_in_mean: 500,
            tokens_out_mean: 100,
            first_content_base_ms: 0,
            prefill_us_per_token: 100,
            decode_us_per_token: 5_000,
            batch: None,
            refused_above_per_s: None,
            error_rate: 0.0,
            leave_rate: 0.0,
            faults: Vec::new(),
        }
    }
}

/// Something that is due: an input for a request, or the next arrival.
#[derive(Debug, Clone)]
enum Due {
    Arrival,
    /// What an attempt does next; of no interest once another attempt has begun.
    Attempt {
        request: u64,
        attempt: usize,
        input: Input,
    },
    /// An engine with a batch goes on with an answer.
    Decode {
        request: u64,
        attempt: usize,
        tokens: u64,
        slow: f64,
    },
    Timer {
        request: u64,
    },
    Leave {
        request: u64,
    },
}

struct Request {
    flow: Flow,
    arrived: Now,
    tokens_out: u64,
    relayed: bool,
    /// The timer that is set, to set no other for the same moment.
    timer: Now,
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
    arrived: u64,
    /// Requests that are not over.
    live: BTreeMap<u64, Request>,
    waiting: BTreeMap<Ticket, u64>,
    tally: Tally,
    sold: Sold,
    log_hash: u64,
}

/// Runs the world to its end.
///
/// Invariants are asserted on the way: every request ends exactly once, nothing is sent after content came or after the
/// deadline, and permits are back at zero when all is over. Memory grows with what is reported, not with the history of
/// requests.
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
        arrived: 0,
        live: BTreeMap::new(),
        waiting: BTreeMap::new(),
        tally: Tally::default(),
        sold: Sold::default(),
        log_hash: 0,
    };
    world.fleet.apply(catalog, Now::ZERO);
    world.schedule(Duration::ZERO, Due::Arrival);
    while let Some(Reverse((at, key))) = world.heap.pop() {
        let Some(due) = world.due.remove(&key).filter(|due| world.matters(due)) else { continue };
        world.now = world.now.max(at);
        world.happen(due);
    }
    assert_eq!(world.fleet.permits_in_use(), 0, "every permit is back when all is over");
    assert!(world.live.is_empty(), "every request ends");
    let World { fleet, tally, now, arrived, log_hash, .. } = world;
    tally.report(&fleet.view(now), seed, arrived, now, log_hash)
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

    /// Whether something that is due is still of interest; what is not must not even move the clock.
    fn matters(&self, due: &Due) -> bool {
        match due {
            Due::Arrival => true,
            Due::Attempt { request, attempt, .. } | Due::Decode { request, attempt, .. } => self
                .live
                .get(request)
                .is_some_and(|one| one.flow.attempts().len() == *attempt && one.flow.holds_permit()),
            Due::Timer { request } | Due::Leave { request } => self.live.contains_key(request),
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival => self.arrive(),
            Due::Attempt { request, input, .. } => self.step(request, input),
            Due::Decode { request, attempt, tokens, slow } => self.decode_on(request, attempt, tokens, slow),
            Due::Timer { request } => {
                if let Some(one) = self.live.get_mut(&request) {
                    one.timer = Now::NEVER;
                }
                self.step(request, Input::TimerFired);
            }
            Due::Leave { request } => self.step(request, Input::ClientGone),
        }
    }

    fn arrive(&mut self) {
        let number = self.arrived;
        let Some(facts) = self.facts(number) else { return };
        let tokens_out = self.around(self.spec.tokens_out_mean).max(1);
        let flow = Flow::new(facts, self.now);
        self.arrived += 1;
        let request = Request { flow, arrived: self.now, tokens_out, relayed: false, timer: Now::NEVER };
        self.live.insert(number, request);
        if self.chance.unit() < self.spec.leave_rate {
            let usual = self.decode(tokens_out).mul_f64(1.5 * self.chance.unit());
            self.schedule(usual, Due::Leave { request: number });
        }
        self.step(number, Input::Arrived);
        let now_s = self.now.as_secs_f64();
        let rate = self.spec.rates.iter().rev().find(|rate| rate.from_s <= now_s);
        let per_s = rate.or(self.spec.rates.first()).map_or(1.0, |rate| rate.per_s);
        let gap_s = -self.chance.unit().max(1e-12).ln() / per_s;
        if self.arrived < self.spec.requests && now_s + gap_s < self.spec.duration_s {
            self.schedule(Duration::from_secs_f64(gap_s), Due::Arrival);
        }
    }

    fn facts(&mut self, number: u64) -> Option<Facts> {
        let tokens_in = u32::try_from(self.around(self.spec.tokens_in_mean)).unwrap_or(u32::MAX);
        let session = number % 64;
        Some(Facts {
            model: self.fleet.model(&self.spec.model)?,
            version: None,
            needs: Capabilities::CHAT,
            tokens_in_estimate: tokens_in,
            tokens_in_min: tokens_in,
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
    fn step(&mut self, request: u64, input: Input) {
        let Some(entry) = self.live.get_mut(&request) else { return };
        let waited = entry.flow.ticket();
        let action = entry.flow.step(&mut self.fleet, self.now, &mut self.rng, input);
        assert!(
            !(entry.relayed && matches!(action, Action::Forward(_))),
            "nothing is sent after content came"
        );
        entry.relayed |= matches!(action, Action::Relay);
        let waits = entry.flow.ticket();
        let wake_at = entry.flow.wake_at().max(self.now);
        let set = wake_at < entry.timer;
        entry.timer = entry.timer.min(wake_at);
        if waits != waited {
            waited.map(|ticket| self.waiting.remove(&ticket));
            waits.map(|ticket| self.waiting.insert(ticket, request));
        }
        self.note(request, &action);
        match &action {
            Action::Forward(_) => self.attempt(request),
            Action::Wait | Action::Relay => {}
            Action::Reject(_) | Action::Truncate(_) | Action::Finish => self.end(request),
        }
        if set && wake_at < Now::NEVER && self.live.contains_key(&request) {
            self.schedule_at(wake_at, Due::Timer { request });
        }
        let mut woken = Default::default();
        self.fleet.drain_woken(&mut woken);
        for ticket in woken {
            if let Some(request) = self.waiting.get(&ticket).copied() {
                self.step(request, Input::Granted);
            }
        }
    }

    fn end(&mut self, request: u64) {
        let Some(ended) = self.live.remove(&request) else { return };
        let outcome = match ended.flow.outcome() {
            Some(FlowOutcome::Completed { .. }) => "completed",
            Some(FlowOutcome::Rejected { .. }) => "rejected",
            Some(FlowOutcome::Failed { .. }) => "failed",
            Some(FlowOutcome::Truncated { .. }) => "truncated",
            Some(FlowOutcome::ClientGone { .. }) => "client_gone",
            None => "unfinished",
        };
        self.tally.request(outcome, &ended.flow, ended.arrived, self.now);
    }

    /// Plays what a deployment does with an attempt.
    fn attempt(&mut self, request: u64) {
        let dice = self.chance.unit();
        let every = self.chance.unit();
        let Some(entry) = self.live.get(&request) else { return };
        let attempts = entry.flow.attempts();
        let attempt = attempts.len();
        let Some(last) = attempts.last() else { return };
        let (name, deployment) = (last.name.to_string(), last.deployment);
        let tokens_in = u64::from(entry.flow.facts().tokens_in_estimate);
        let tokens_out = entry.tokens_out;
        let due = |input: Input| Due::Attempt { request, attempt, input };
        if let Some(per_s) = self.spec.refused_above_per_s
            && !self.sold.take(&name, per_s, self.now)
        {
            let wait = Some(Duration::from_secs(1));
            let class = FailureClass::CredentialQuota;
            let refused = Failure { class, processed: Processed::No, status: None, retry_after: wait };
            self.schedule(Duration::from_micros(200), due(Input::Connected));
            return self.schedule(Duration::from_millis(5), due(Input::Failed(refused)));
        }
        let slow = match fate(&self.spec.faults, &name, self.now, dice) {
            Fate::Silence => return,
            Fate::Fail(after, failure) => {
                if failure.class != FailureClass::Connect {
                    self.schedule(Duration::from_micros(200), due(Input::Connected));
                }
                return self.schedule(after, due(Input::Failed(failure)));
            }
            Fate::Answer(slow) => slow,
        };
        self.schedule(Duration::from_micros(200), due(Input::Connected));
        let prefill = Duration::from_micros(self.spec.prefill_us_per_token * tokens_in);
        let first = (Duration::from_millis(self.spec.first_content_base_ms) + prefill)
            .mul_f64(slow * self.crowding(deployment));
        if every < self.spec.error_rate {
            let error = failure(FailureClass::Transient, Processed::RefusedWithError);
            return self.schedule(first, due(error));
        }
        self.schedule(first, due(Input::Headers));
        self.schedule(first, due(Input::FirstContent));
        if self.spec.batch.is_some() {
            return self.schedule(first, Due::Decode { request, attempt, tokens: tokens_out, slow });
        }
        // One that goes down takes with it what it has in flight.
        let end = self.now + first + self.decode(tokens_out).mul_f64(slow);
        let crashes =
            self.spec.faults.iter().filter(|fault| fault.deployment == name && fault.what == What::Crash);
        let crash = crashes.map(Fault::begins).filter(|crash| *crash > self.now && *crash < end).min();
        match crash {
            Some(crash) => self.schedule_at(crash, due(failure(FailureClass::Transient, Processed::Maybe))),
            None => {
                let usage = Usage { tokens_in, tokens_out, ..Usage::default() };
                self.schedule_at(end, due(Input::Done(usage)));
            }
        }
    }

    /// How many times as long things take for what is in flight on a deployment.
    fn crowding(&self, deployment: DeploymentId) -> f64 {
        let Some(batch) = self.spec.batch else { return 1.0 };
        let there = |one: &&Request| {
            one.flow.holds_permit()
                && one.flow.attempts().last().is_some_and(|attempt| attempt.deployment == deployment)
        };
        batch.slower(self.live.values().filter(there).count())
    }

    /// The next few tokens of an answer, as fast as the batch lets them be now.
    fn decode_on(&mut self, request: u64, attempt: usize, tokens: u64, slow: f64) {
        const TOKENS: u64 = 16;
        let Some(entry) = self.live.get_mut(&request) else { return };
        entry.flow.on_chunk(self.now);
        let tokens_in = u64::from(entry.flow.facts().tokens_in_estimate);
        let usage = Usage { tokens_in, tokens_out: entry.tokens_out, ..Usage::default() };
        let Some(deployment) = entry.flow.attempts().last().map(|attempt| attempt.deployment) else { return };
        if tokens == 0 {
            return self.step(request, Input::Done(usage));
        }
        let part = tokens.min(TOKENS);
        let took = self.decode(part).mul_f64(slow * self.crowding(deployment));
        self.schedule(took, Due::Decode { request, attempt, tokens: tokens - part, slow });
    }

    fn note(&mut self, request: u64, action: &Action) {
        let mut line = String::new();
        let phase = self.live.get(&request).map_or(Phase::Over, |one| one.flow.phase());
        let _ = write!(line, "{request} {} {}", self.now.as_nanos(), phase.name());
        if let Action::Forward(choice) = action {
            line.push_str(&choice.name);
        }
        debug_assert!(phase != Phase::New, "a request that arrived is no longer new");
        self.log_hash = line
            .bytes()
            .fold(self.log_hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    }
}

fn failure(class: FailureClass, processed: Processed) -> Input {
    Input::Failed(Failure { class, processed, status: None, retry_after: None })
}
