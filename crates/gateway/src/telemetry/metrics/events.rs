//! Counters of what is worth telling of answers.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::labels::{Kind, Series};

/// Labels: a model and what was worth telling of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    model: String,
    event: &'static str,
}

/// The counters.
#[derive(Default)]
pub(super) struct AnswerEvents {
    events: Series<EventLabels, Counter>,
}

impl AnswerEvents {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "pointsman_answer_events",
            "Answers of attempts that were refusals, empty, cut short, filtered, or did not fit their schema",
            self.events.family.clone(),
        );
    }

    /// Forgets the series of models that are gone.
    pub(super) fn retain(&self, keeps: impl Fn(&str) -> bool) {
        self.events.retain(|series| keeps(&series.model));
    }
}

impl Metrics {
    /// An answer for this model came, and this is worth telling of it.
    pub fn answer_event(&self, model: &str, event: &'static str) {
        let model = self.labels.value(Kind::Model, model);
        self.events.events.get(&EventLabels { model, event }).inc();
    }
}
