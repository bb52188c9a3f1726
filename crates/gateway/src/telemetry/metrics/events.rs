//! Counters of what is worth telling of answers, and of what was asked in another dialect.

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

/// Labels: a model, the dialect of the client and that of the provider.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConversionLabels {
    model: String,
    from: &'static str,
    to: &'static str,
}

/// The counters.
#[derive(Default)]
pub(super) struct AnswerEvents {
    events: Series<EventLabels, Counter>,
    conversions: Series<ConversionLabels, Counter>,
    losses: Series<ConversionLabels, Counter>,
}

impl AnswerEvents {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "pointsman_answer_events",
            "Answers of attempts that were refusals, empty, cut short, filtered, or did not fit their schema",
            self.events.family.clone(),
        );
        r.register(
            "pointsman_conversions",
            "Requests that were sent to a provider of another dialect than their client's",
            self.conversions.family.clone(),
        );
        r.register(
            "pointsman_conversion_losses",
            "What they and their answers said that the other dialect has no word for; the decision record names it",
            self.losses.family.clone(),
        );
    }

    /// Forgets the series of models that are gone.
    pub(super) fn retain(&self, keeps: impl Fn(&str) -> bool) {
        self.events.retain(|series| keeps(&series.model));
        self.conversions.retain(|series| keeps(&series.model));
        self.losses.retain(|series| keeps(&series.model));
    }
}

impl Metrics {
    /// An answer for this model came, and this is worth telling of it.
    pub fn answer_event(&self, model: &str, event: &'static str) {
        let model = self.labels.value(Kind::Model, model);
        self.events.events.get(&EventLabels { model, event }).inc();
    }

    /// A request for this model was sent in another dialect, and lost so much.
    pub fn conversion(&self, model: &str, (from, to): (&'static str, &'static str), losses: usize) {
        let labels = ConversionLabels { model: self.labels.value(Kind::Model, model), from, to };
        self.events.losses.get(&labels).inc_by(losses as u64);
        self.events.conversions.get(&labels).inc();
    }
}
