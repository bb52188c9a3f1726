//! What the deployments do with what they are sent.

use std::time::Duration;

use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Input, Usage};
use pointsman_routing::{Failure, FailureClass};

use super::{Due, World};
use crate::fault::{Fate, Fault, What, fate};

impl World<'_> {
    /// Plays what a deployment does with an attempt.
    pub(super) fn attempt(&mut self, request: u64) {
        let dice = self.chance.unit();
        let every = self.chance.unit();
        let Some(entry) = self.live.get(&request) else { return };
        let attempts = entry.flow.attempts();
        let attempt = attempts.len();
        let Some(name) = attempts.last().map(|attempt| attempt.name.to_string()) else { return };
        let tokens_in = u64::from(entry.flow.facts().tokens_in_estimate);
        let tokens_out = entry.tokens_out;
        let due = |input: Input| Due::Attempt { request, attempt, input };
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
        let first = (Duration::from_millis(self.spec.first_content_base_ms) + prefill).mul_f64(slow);
        if every < self.spec.error_rate {
            let error = failure(FailureClass::Transient, Processed::RefusedWithError);
            return self.schedule(first, due(error));
        }
        self.schedule(first, due(Input::Headers));
        self.schedule(first, due(Input::FirstContent));
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

    pub(super) fn decode(&self, tokens: u64) -> Duration {
        Duration::from_micros(self.spec.decode_us_per_token * tokens)
    }
}

fn failure(class: FailureClass, processed: Processed) -> Input {
    Input::Failed(Failure { class, processed, status: None, retry_after: None })
}
