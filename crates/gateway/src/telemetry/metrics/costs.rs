//! What requests cost, and how often nobody knows.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::labels::Series;
use crate::snapshot::Target;

/// Labels: a model and one of its deployments.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CostLabels {
    model: String,
    deployment: String,
}

/// The counters.
#[derive(Default)]
pub(super) struct Costs {
    usd: Series<CostLabels, Counter<f64, AtomicU64>>,
    unknown: Series<CostLabels, Counter>,
}

impl Costs {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "pointsman_cost_usd",
            "What answers cost by the prices that are known, USD",
            self.usd.family.clone(),
        );
        r.register(
            "pointsman_cost_unknown",
            "Answers of paid deployments with a part whose price is unknown; they are not in pointsman_cost_usd",
            self.unknown.family.clone(),
        );
    }

    /// Forgets the series of models that are gone.
    pub(super) fn retain(&self, keeps: impl Fn(&str) -> bool) {
        self.usd.retain(|series| keeps(&series.model));
        self.unknown.retain(|series| keeps(&series.model));
    }
}

impl Metrics {
    /// An answer of this deployment cost so much, if that is known.
    pub fn cost(&self, target: &Target, micro_usd: Option<u64>) {
        let labels =
            CostLabels { model: target.metrics.model.clone(), deployment: target.metrics.deployment.clone() };
        match micro_usd {
            Some(micro_usd) => drop(self.costs.usd.get(&labels).inc_by(micro_usd as f64 / 1e6)),
            None if target.endpoint.vendor.engine => {}
            None => drop(self.costs.unknown.get(&labels).inc()),
        }
    }
}
