//! What is sent again after it failed, and where: elsewhere first, never what may have been billed, and never more than
//! the model's budget allows.

use std::time::Duration;

use super::upload::Body;
use super::{Flow, State};
use crate::budget::backoff;
use crate::failure::{Failure, FailureClass, Processed};
use crate::fleet::{Fleet, tokens_of};
use crate::flow::Action;
use crate::rng::Rng;
use crate::time::Now;

/// Attempts up to which a request is sent to the same place again when there is no other.
const SAME_PLACE_ATTEMPTS_MAX: usize = 2;
/// The longest that a request waits for the place where it failed; a client is better told to come back later.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

impl Flow {
    /// Whether the model's budget has what sending it again costs.
    pub(super) fn can_pay(&self, fleet: &mut Fleet, now: Now) -> bool {
        let tokens = tokens_of(&self.facts);
        fleet.models.get_mut(self.payer()).is_some_and(|model| model.budget.remaining(tokens, now) > 0)
    }

    /// Pays for sending it again out of the model's budget, when it is sent. It can be empty by then, if others were
    /// faster while this one waited.
    pub(super) fn pay(&self, fleet: &mut Fleet, now: Now) -> bool {
        let tokens = tokens_of(&self.facts);
        fleet.models.get_mut(self.payer()).is_some_and(|model| model.budget.withdraw(tokens, now))
    }

    /// Whether what is sent next is sent again.
    pub(super) fn owes(&self) -> bool {
        !self.attempts.is_empty() && !self.was_taken_back()
    }

    /// There is no other place. Where it failed may do after a moment, if it said no more than that it had an error.
    pub(super) fn fail_or_back_off(&mut self, failure: Failure, now: Now, rng: &mut Rng) -> Action {
        let refused = failure.processed == Processed::RefusedWithError
            && matches!(failure.class, FailureClass::Transient | FailureClass::Overloaded);
        let wait =
            backoff(self.attempts.len() as u32 - 1, rng.unit()).max(failure.retry_after.unwrap_or_default());
        // Once for each attempt: who waited already and still finds no place is told so.
        let waited = matches!(self.state, State::BackingOff { .. });
        let refused = refused && !waited && wait <= BACKOFF_MAX;
        if !refused || self.attempts.len() > SAME_PLACE_ATTEMPTS_MAX || now + wait >= self.total {
            return self.fail(failure);
        }
        self.tried.clear();
        self.last_failure = Some(failure);
        self.state = State::BackingOff { until: now + wait };
        Action::Wait
    }

    /// Whether the request may be sent to its model again.
    pub(super) fn may_be_sent_again(&mut self, fleet: &Fleet, failure: &Failure, now: Now) -> bool {
        self.attempts_here() < self.policy.attempts_max && self.is_safe_again(fleet, failure, now)
    }

    /// Whether it may be sent anywhere again: never when it may have been processed and that costs something, unless the
    /// operator said so.
    pub(super) fn is_safe_again(&mut self, fleet: &Fleet, failure: &Failure, now: Now) -> bool {
        if now >= self.total || self.body == Body::Gone {
            return false;
        }
        let free = self.attempt().is_some_and(|attempt| attempt.free);
        if !self.policy.retry.unsure && self.may_have_been_billed() {
            return false;
        }
        match failure.class {
            // What was answered with an error and without usage was not billed.
            FailureClass::Connect
            | FailureClass::ConnectTimeout
            | FailureClass::CredentialDead
            | FailureClass::CredentialQuota
            | FailureClass::ModelMissing
            | FailureClass::Overloaded
            | FailureClass::Transient
            | FailureClass::Drained => {
                failure.processed != Processed::Maybe || free || self.policy.retry.unsure
            }
            FailureClass::Protocol | FailureClass::FirstContentTimeout => free || self.policy.retry.unsure,
            FailureClass::ContextLength => self.wants_larger_context(fleet),
            FailureClass::ContentPolicy => self.policy.retry.content_policy,
            FailureClass::SchemaMismatch => self.asks_again_for_a_fit(),
            FailureClass::Client | FailureClass::IdleTimeout | FailureClass::TotalTimeout => false,
        }
    }

    /// Whether an attempt at this model that failed may have cost something: the last, or one that ran beside another.
    fn may_have_been_billed(&self) -> bool {
        let here =
            self.attempts.iter().rev().filter(|attempt| !attempt.taken_back).take(self.attempts_here());
        here.filter(|attempt| !attempt.free)
            .filter_map(|attempt| attempt.failure.as_ref())
            // What does not fit was billed for certain, and the model's setting says what that is worth.
            .filter(|failure| failure.class != FailureClass::SchemaMismatch)
            .any(|failure| failure.processed == Processed::Maybe)
    }

    /// The prompt did not fit where it was sent: it is larger than the context there, so only a larger one will do.
    fn wants_larger_context(&mut self, fleet: &Fleet) -> bool {
        let context = self
            .attempt()
            .and_then(|attempt| fleet.deployments.get(attempt.deployment))
            .and_then(|deployment| deployment.spec.context_tokens_max);
        if let Some(context_tokens_max) = context {
            self.facts.tokens_in_min = self.facts.tokens_in_min.max(context_tokens_max.saturating_add(1));
        }
        context.is_some()
    }

    /// Leaves out where it failed, unless only the credential was at fault and another one is there.
    pub(super) fn exclude_failed(&mut self, fleet: &Fleet, failure: &Failure, now: Now) {
        let Some(attempt) = self.attempt() else { return };
        let credential =
            matches!(failure.class, FailureClass::CredentialDead | FailureClass::CredentialQuota);
        if failure.class == FailureClass::SchemaMismatch && self.repairs() {
            return;
        }
        if failure.class == FailureClass::ContentPolicy {
            // What one refuses, all of the same provider do.
            self.tried.extend(fleet.of_same_provider(attempt.deployment));
        } else if !(credential && fleet.has_usable_credential(attempt.deployment, self.facts.lane, now)) {
            self.tried.push(attempt.deployment);
        }
    }
}
