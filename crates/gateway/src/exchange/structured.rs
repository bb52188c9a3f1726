//! What comes of answers that are checked: what is kept of one that does not fit, and what is noted of each attempt.

use std::sync::Arc;

use pointsman_routing::flow::{AttemptKind, Usage};
use pointsman_wire::chat::Findings;
use pointsman_wire::openai::error::ErrorBody;
use smallvec::SmallVec;

use super::Exchange;
use crate::structured::{Misfit, Schema};

/// What was worth telling of attempts, by their places.
pub type Noted = SmallVec<[(usize, Findings); 1]>;

/// What the answers of one request are held to, and what came of that.
#[derive(Default)]
pub(super) struct Checked {
    /// The schema, if the model's answers are checked and the request has one.
    pub(super) schema: Option<Arc<Schema>>,
    /// The last answer that did not fit.
    misfit: Option<Box<Misfit>>,
    pub(super) noted: Noted,
}

impl Checked {
    pub(super) fn by(schema: Option<Arc<Schema>>) -> Self {
        Self { schema, ..Self::default() }
    }
}

impl Exchange {
    /// The attempt's answer does not fit. It is kept for the words about it, and what it used is counted.
    pub(super) fn note_misfit(&mut self, usage: &Usage) {
        let Some(attempt) = &mut self.attempt else { return };
        self.checked.misfit = attempt.take_misfit();
        let cost = attempt.target.as_ref().and_then(|target| target.cost_micro_usd(usage));
        self.broken.add(usage, cost);
        self.note_findings();
    }

    /// Notes and counts what is worth telling of the attempt, once.
    pub(super) fn note_findings(&mut self) {
        let Some(findings) = self.attempt.as_deref_mut().map(super::attempt::Attempt::findings) else {
            return;
        };
        let place = self.flow.attempt_place();
        if findings.is_empty() || self.checked.noted.iter().any(|(noted, _)| *noted == place) {
            return;
        }
        for finding in findings.iter() {
            self.worker.app.metrics.answer_event(&self.model.name, finding.name());
        }
        self.checked.noted.push((place, findings));
    }

    /// What the attempt that begins is told of the answer before, if it is there to repair that.
    pub(super) fn repairs(&self) -> Option<&Misfit> {
        let repairs = self.flow.attempt().is_some_and(|attempt| attempt.kind == AttemptKind::Repair);
        self.checked.misfit.as_deref().filter(|_| repairs)
    }

    /// The error for an answer that does not fit.
    pub(super) fn error_of_misfit(&self, provider: &str) -> ErrorBody {
        let deployment = self.flow.attempt().map_or("", |attempt| &attempt.name);
        let why = self.checked.misfit.as_ref().map_or_else(String::new, |misfit| misfit.summary());
        let text = format!(
            "the answer of deployment `{deployment}` does not fit the JSON schema that the request holds it to: {why}; ask \
             again, or make the schema easier to fit"
        );
        ErrorBody::router(502, "server_error", "schema_mismatch", text).by_provider(provider)
    }
}
