//! The one timer a request has: when it is due, and what is done when it comes.

use std::time::Duration;

use super::{Flow, State, failure};
use crate::catalog::TimeoutSpec;
use crate::facts::{Facts, Lane};
use crate::failure::{FailureClass, Processed};
use crate::fleet::Fleet;
use crate::flow::Action;
use crate::rng::Rng;
use crate::time::Now;

/// The end of all patience for a request that arrived at `arrived`: its deadline, or the end of its model's total time.
/// Batch requests are there to wait, so that what they may wait, `wait_max`, comes on top.
pub(super) fn total(timeouts: &TimeoutSpec, wait_max: Duration, facts: &Facts, arrived: Now) -> Now {
    let wait = match facts.lane {
        Lane::Live => Duration::ZERO,
        Lane::Batch => wait_max,
    };
    (arrived + wait + timeouts.total).min(facts.deadline.unwrap_or(Now::NEVER))
}

impl Fleet {
    /// The deadline that a request has once it has arrived, whether it named one or not.
    pub fn deadline(&self, facts: &Facts, arrived: Now) -> Option<Now> {
        let model = self.models.get(facts.model);
        model.map_or(facts.deadline, |model| {
            let wait_max = model.spec.queue.wait_max(facts.lane);
            Some(total(&model.spec.timeouts, wait_max, facts, arrived))
        })
    }
}

impl Flow {
    /// When [`Input::TimerFired`] is due.
    pub fn wake_at(&self) -> Now {
        let phase = match self.state {
            State::Over => return Now::NEVER,
            State::New => Now::NEVER,
            State::Queued { until, recheck, .. } => until.min(recheck),
            State::BackingOff { until }
            | State::Connecting { until }
            | State::AwaitingHeaders { until }
            | State::AwaitingContent { until } => until,
            State::HoldingHeaders { until, release } => until.min(release),
            State::Relaying => self.last_chunk + self.policy.timeouts.idle,
        };
        let hedge = self.hedge.as_ref().map_or(self.hedge_at, |hedge| hedge.until());
        phase.min(hedge).min(self.total)
    }

    /// How long the first content may take once the request is sent.
    pub(super) fn patience(&self) -> Duration {
        let timeouts = &self.policy.timeouts;
        if self.facts.stream { timeouts.first_content } else { timeouts.answer }
    }

    pub(super) fn on_timer(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng) -> Action {
        if now < self.wake_at() {
            return Action::Wait;
        }
        if now >= self.total && !matches!(self.state, State::Queued { .. } | State::BackingOff { .. }) {
            return self.on_failed(fleet, now, rng, failure(FailureClass::TotalTimeout, Processed::Maybe));
        }
        if now >= self.hedge_at {
            return self.on_late(fleet, now, rng);
        }
        if self.hedge.as_ref().is_some_and(|hedge| now >= hedge.until()) {
            return self.on_hedge_timer(fleet, now, rng);
        }
        match self.state {
            State::Queued { ticket, until, .. } => self.on_queue_timer(fleet, now, rng, ticket, until),
            State::BackingOff { .. } => {
                let last = self.last_failure.take();
                if now < self.total {
                    return self.decide(fleet, now, rng, last);
                }
                self.fail(last.unwrap_or_else(|| failure(FailureClass::TotalTimeout, Processed::No)))
            }
            State::Connecting { .. } => {
                self.on_failed(fleet, now, rng, failure(FailureClass::ConnectTimeout, Processed::No))
            }
            State::HoldingHeaders { until, .. } if now < until => {
                self.drop_hedge(fleet, now, rng);
                self.relayed = true;
                self.state = State::AwaitingContent { until };
                Action::Relay
            }
            State::AwaitingHeaders { .. } | State::HoldingHeaders { .. } | State::AwaitingContent { .. } => {
                self.on_failed(fleet, now, rng, failure(FailureClass::FirstContentTimeout, Processed::Maybe))
            }
            State::Relaying => {
                self.on_failed(fleet, now, rng, failure(FailureClass::IdleTimeout, Processed::Maybe))
            }
            State::New | State::Over => Action::Wait,
        }
    }
}
