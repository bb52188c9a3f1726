//! What becomes of batches and their lines.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Metrics;
use crate::batches::Overview;
use crate::batches::rows::Status;

/// Labels: a status of batches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

/// Labels: what became of lines.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LineLabels {
    result: &'static str,
}

/// The counters and gauges.
#[derive(Default)]
pub(super) struct BatchMetrics {
    batches: Family<StatusLabels, Gauge>,
    lines: Family<LineLabels, Counter>,
    under_way: Gauge,
    oldest_s: Gauge,
}

impl BatchMetrics {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("pointsman_batches", "Batches that are kept, by status", self.batches.clone());
        r.register(
            "pointsman_batch_lines",
            "Lines of batches that this process carried out: done, failed, retried for want of room, interrupted by the \
             end of a process",
            self.lines.clone(),
        );
        r.register(
            "pointsman_batch_lines_under_way",
            "Lines of batches that are under way in this process",
            self.under_way.clone(),
        );
        r.register(
            "pointsman_batch_oldest_seconds",
            "Age of the oldest batch that is not over; 0 without any",
            self.oldest_s.clone(),
        );
    }
}

impl Metrics {
    /// Lines of batches came to this end.
    pub fn batch_lines(&self, result: &'static str, count: u64) {
        self.batches.lines.get_or_create(&LineLabels { result }).inc_by(count);
    }

    /// How many batches there are.
    pub fn batches_state(&self, seen: &Overview) {
        for status in Status::ALL {
            let count = seen.counts.iter().find(|(known, _)| *known == status).map_or(0, |(_, count)| *count);
            self.batches.batches.get_or_create(&StatusLabels { status: status.name() }).set(count);
        }
        self.batches.under_way.set(i64::from(seen.lines_under_way));
        self.batches.oldest_s.set(seen.oldest_s);
    }
}
