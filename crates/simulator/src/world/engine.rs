//! What the deployments do with what they are sent. There is one of each, whichever router asks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Input, Usage};
use pointsman_routing::{FailureClass, Now};

use super::{Due, World};
use crate::fault::{Extent, Fate, What, failure, fate, overloaded};

/// Time until a connection stands.
const CONNECT: Duration = Duration::from_micros(200);
/// What a provider asks for that is asked more than it sells.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// How long the head of an answer is there before its content, at most.
const HEAD_BEFORE: Duration = Duration::from_millis(1);

/// One attempt of one request.
pub(super) type Attempt = (u64, usize);

/// A deployment that can do so much at once.
#[derive(Debug, Default)]
pub(super) struct Engine {
    running: BTreeSet<Attempt>,
    waiting: VecDeque<(Attempt, Answer)>,
}

/// How an attempt is answered.
#[derive(Debug, Clone, Copy)]
struct Answer {
    slow: f64,
    /// How much of its usual time its first content takes.
    noise: f64,
    extent: Extent,
}

impl World<'_> {
    /// Plays what a deployment does with an attempt.
    pub(super) fn attempt(&mut self, request: u64) {
        let dice = self.chance.unit();
        let every = self.chance.unit();
        let noise = self.noise();
        let Some((name, attempt, router)) = self.latest(request) else { return };
        *self.inflight.entry(name.clone()).or_default() += 1;
        let due = |input: Input| Due::Attempt { request, attempt, input };
        if let Some(per_s) = self.spec.refused_above_per_s
            && !self.sold.take(&name, per_s, self.now)
        {
            let refused = failure(FailureClass::CredentialQuota, Processed::No, Some(429), Some(REFUSED_FOR));
            self.schedule(CONNECT, due(Input::Connected));
            return self.schedule(Duration::from_millis(5), due(Input::Failed(refused)));
        }
        let (slow, extent) = match fate(&self.spec.faults, &name, router, self.now, dice) {
            Fate::Silence => return,
            Fate::Fail(after, failure) => {
                if failure.class != FailureClass::Connect {
                    self.schedule(CONNECT, due(Input::Connected));
                }
                return self.schedule(after, due(Input::Failed(failure)));
            }
            Fate::Answer(slow, extent) => (slow, extent),
        };
        self.schedule(CONNECT, due(Input::Connected));
        if every < self.spec.error_rate {
            let error = failure(FailureClass::Transient, Processed::RefusedWithError, Some(500), None);
            return self
                .schedule(self.first_content(request).mul_f64(slow * noise), due(Input::Failed(error)));
        }
        let answer = Answer { slow, noise, extent };
        if let Some(capacity) = self.spec.capacity.get(&name) {
            let engine = self.engines.entry(name.clone()).or_default();
            if engine.running.len() >= capacity.slots {
                if engine.waiting.len() >= capacity.waiting_max {
                    return self.schedule(Duration::from_millis(5), due(Input::Failed(overloaded())));
                }
                return engine.waiting.push_back(((request, attempt), answer));
            }
            engine.running.insert((request, attempt));
        }
        self.answer((request, attempt), &name, answer);
    }

    /// The deployment begins to work on an attempt.
    fn answer(&mut self, (request, attempt): Attempt, name: &str, answer: Answer) {
        let Some((entry, router)) = self.live.get(&request).map(|entry| (entry, entry.router)) else {
            return;
        };
        let (facts, tokens_out) = (entry.flow.facts(), entry.tokens_out);
        let (tokens_in, stream) = (u64::from(facts.tokens_in_estimate), facts.stream);
        let due = |input: Input| Due::Attempt { request, attempt, input };
        let decode = self.decode(tokens_out).mul_f64(answer.slow);
        let crowding = self.crowding(name);
        let mut first =
            self.first_content(request).mul_f64(answer.slow * answer.noise * crowding).max(2 * CONNECT);
        let mut end = first + decode;
        if !stream {
            (first, end) = (end, end + HEAD_BEFORE);
        }
        self.schedule(first.saturating_sub(HEAD_BEFORE.min(first / 10)), due(Input::Headers));
        // One that goes down takes with it what it has in flight.
        let until = self.now + end;
        let crashes = self
            .spec
            .faults
            .iter()
            .filter(|fault| fault.what == What::Crash && fault.concerns(name, router))
            .filter_map(|fault| fault.begins_after(self.now));
        let crash = crashes.min().filter(|crash| *crash < until);
        let lost = due(Input::Failed(failure(FailureClass::Transient, Processed::Maybe, None, None)));
        if let Some(crash) = crash {
            self.schedule_at(crash, lost.clone());
        }
        let before_crash = |at: Now| crash.is_none_or(|crash| at < crash);
        if answer.extent != Extent::Head && before_crash(self.now + first) {
            self.schedule(first, due(Input::FirstContent));
        }
        if self.spec.batch.is_some() && stream && answer.extent == Extent::Whole && crash.is_none() {
            self.schedule(first, Due::Decode { request, attempt, tokens: tokens_out, slow: answer.slow });
            return;
        }
        match answer.extent {
            Extent::Head | Extent::Middle => {}
            Extent::Cut => self.schedule((first + end) / 2, lost),
            Extent::Whole if crash.is_some() => {}
            Extent::Whole => {
                let usage = Usage { tokens_in, tokens_out, ..Usage::default() };
                self.schedule(end, due(Input::Done(usage)));
            }
        }
        if let Some(entry) = self.live.get_mut(&request) {
            entry.flowing = matches!(answer.extent, Extent::Whole | Extent::Cut);
        }
    }

    /// An attempt is no more, for whatever reason: its place is free for the next that waits.
    pub(super) fn leave_engine(&mut self, name: &str, attempt: Attempt) {
        if let Some(inflight) = self.inflight.get_mut(name) {
            *inflight -= 1;
        }
        let Some(engine) = self.engines.get_mut(name) else { return };
        engine.waiting.retain(|(waiting, _)| *waiting != attempt);
        if engine.running.remove(&attempt)
            && let Some((next, answer)) = engine.waiting.pop_front()
        {
            engine.running.insert(next);
            self.answer(next, name, answer);
        }
    }

    /// Where the latest attempt of a request went, its number, and whose it is.
    fn latest(&self, request: u64) -> Option<(String, usize, usize)> {
        let entry = self.live.get(&request)?;
        let attempts = entry.flow.attempts();
        Some((attempts.last()?.name.to_string(), attempts.len(), entry.router))
    }

    fn first_content(&self, request: u64) -> Duration {
        let tokens_in = self.live.get(&request).map_or(0, |entry| entry.flow.facts().tokens_in_estimate);
        let prefill = Duration::from_micros(self.spec.prefill_us_per_token * u64::from(tokens_in));
        // Nothing comes before the connection stands, and a head comes before its content.
        (Duration::from_millis(self.spec.first_content_base_ms) + prefill).max(2 * CONNECT)
    }

    /// How many times as long things take for what is in flight on a deployment.
    fn crowding(&self, name: &str) -> f64 {
        let Some(batch) = self.spec.batch else { return 1.0 };
        batch.slower(self.inflight.get(name).copied().unwrap_or(0))
    }

    /// The next few tokens of an answer, as fast as the batch lets them be now.
    pub(super) fn decode_on(&mut self, (request, attempt): Attempt, tokens: u64, slow: f64) {
        const TOKENS: u64 = 16;
        let Some(entry) = self.live.get_mut(&request) else { return };
        entry.flow.on_chunk(self.now);
        let tokens_in = u64::from(entry.flow.facts().tokens_in_estimate);
        let usage = Usage { tokens_in, tokens_out: entry.tokens_out, ..Usage::default() };
        let Some(name) = entry.flow.attempts().get(attempt - 1).map(|one| one.name.to_string()) else {
            return;
        };
        if tokens == 0 {
            return self.tell(request, attempt, Input::Done(usage));
        }
        let part = tokens.min(TOKENS);
        let took = self.decode(part).mul_f64(slow * self.crowding(&name));
        self.schedule(took, Due::Decode { request, attempt, tokens: tokens - part, slow });
    }

    /// How many times its usual time something takes: around 1, log-normal (Box and Muller).
    fn noise(&mut self) -> f64 {
        if self.spec.noise == 0.0 {
            return 1.0;
        }
        let length = (-2.0 * self.chance.unit().max(1e-12).ln()).sqrt();
        (self.spec.noise * length * (std::f64::consts::TAU * self.chance.unit()).cos()).exp()
    }

    pub(super) fn decode(&self, tokens: u64) -> Duration {
        Duration::from_micros(self.spec.decode_us_per_token * tokens)
    }
}

/// Whatever is still in an engine when all is over.
pub(super) fn left_in(engines: &BTreeMap<String, Engine>) -> usize {
    engines.values().map(|engine| engine.running.len() + engine.waiting.len()).sum()
}
