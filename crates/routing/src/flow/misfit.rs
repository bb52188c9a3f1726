//! An answer that came whole and does not fit the JSON schema that its request holds it to.

use super::{AttemptKind, Flow, failure};
use crate::failure::{FailureClass, Processed};
use crate::fleet::{Ended, Fleet};
use crate::flow::{Action, Usage};
use crate::rng::Rng;
use crate::time::Now;

/// What becomes of an answer that does not fit its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMismatch {
    /// Another deployment is asked, as after a failure: within the attempts and the budget for what is sent again.
    FailOver,
    /// The model is told its answer and what is wrong with it, once; what does not fit then is refused.
    Repair,
    /// The request is refused at once.
    Refuse,
}

impl OnMismatch {
    /// The name in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FailOver => "fail_over",
            Self::Repair => "repair",
            Self::Refuse => "refuse",
        }
    }
}

impl Flow {
    /// The whole answer is checked before the client gets any of it; its head is not released before. To be said before the
    /// request arrives.
    pub fn check_answer(&mut self, on_mismatch: OnMismatch) {
        self.checked = Some(on_mismatch);
    }

    /// An answer does not fit.
    pub(super) fn on_misfit(&mut self, fleet: &mut Fleet, now: Now, rng: &mut Rng, usage: Usage) -> Action {
        debug_assert!(!self.relayed, "what is checked is not relayed before");
        // It was processed, and is billed: whether that may happen again is what the model's setting says.
        let misfit = failure(FailureClass::SchemaMismatch, Processed::Maybe);
        if let Some(attempt) = self.attempt_mut() {
            attempt.failure = Some(misfit.clone());
        }
        // The deployment did its work: it answered, in time and to the end, and its figures are as good as any. A model
        // that writes no good JSON is no sick server, and one client with a schema that nobody can fit must not close a
        // breaker on all others. What was used is settled with the credential like that of any answer.
        self.end_attempt(fleet, now, rng, Ended::Well(usage));
        self.drop_hedge(fleet, now, rng);
        self.after_failure(fleet, now, rng, misfit).dropping_all()
    }

    /// Whether the request may be sent again for an answer that fits.
    pub(super) fn asks_again_for_a_fit(&self) -> bool {
        match self.checked {
            Some(OnMismatch::FailOver) => true,
            Some(OnMismatch::Repair) => {
                self.attempt().is_none_or(|attempt| attempt.kind != AttemptKind::Repair)
            }
            Some(OnMismatch::Refuse) | None => false,
        }
    }

    /// Whether what is sent next is told an answer that did not fit. Where that was asked can do as well as any other.
    pub(super) fn repairs(&self) -> bool {
        let misfit = |failure: &crate::failure::Failure| failure.class == FailureClass::SchemaMismatch;
        self.checked == Some(OnMismatch::Repair)
            && self.attempts.iter().any(|attempt| attempt.failure.as_ref().is_some_and(misfit))
    }

    /// What an attempt is sent for while its client has nothing of an answer yet.
    pub(super) fn kind_unless_relayed(&self) -> AttemptKind {
        if self.repairs() { AttemptKind::Repair } else { AttemptKind::Usual }
    }
}
