//! Figures of how well slots are used and load is spread. Set from the fleet's view when somebody asks.

use std::sync::atomic::AtomicU64;

use pointsman_routing::fleet::{FleetView, ModelFigures};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{Kind, Labels};
use super::{DeploymentLabels, ModelLabels};

type Ratio<L> = Family<L, Gauge<f64, AtomicU64>>;
type Total<L> = Family<L, Counter<f64, AtomicU64>>;

/// Gauges and counters of how well slots are used.
#[derive(Default)]
pub(super) struct Figures {
    model_utilization: Ratio<ModelLabels>,
    jain: Ratio<ModelLabels>,
    imbalance: Ratio<ModelLabels>,
    remap: Ratio<ModelLabels>,
    idle_while_queued: Total<ModelLabels>,
    affinity_kept: Family<ModelLabels, Counter>,
    affinity_breaks: Family<BreakLabels, Counter>,
    pool_utilization: Ratio<PoolLabels>,
    busy: Total<DeploymentLabels>,
    utilization: Ratio<DeploymentLabels>,
    share: Ratio<DeploymentLabels>,
    share_intended: Ratio<DeploymentLabels>,
    flaps: Ratio<DeploymentLabels>,
    prediction_error: Ratio<DeploymentLabels>,
    prediction_bias: Ratio<DeploymentLabels>,
}

/// Labels: a model and why sessions of it moved: `lead` or `health`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BreakLabels {
    model: String,
    reason: &'static str,
}

/// Labels: one pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

impl Figures {
    pub(super) fn register(&self, r: &mut Registry) {
        for (name, help, ratio) in [
            (
                "pointsman_model_slot_utilization_ratio",
                "Share of a model's slots in use, over a minute",
                &self.model_utilization,
            ),
            (
                "pointsman_load_jain_index",
                "How even a model's deployments are loaded, over a minute; 1 is even",
                &self.jain,
            ),
            (
                "pointsman_load_imbalance_ratio",
                "Busiest deployment's load to the mean, over a minute; 1 is even",
                &self.imbalance,
            ),
            (
                "pointsman_remap_ratio",
                "Share of keys that the latest change of deployments moved",
                &self.remap,
            ),
        ] {
            r.register(name, help, ratio.clone());
        }
        r.register(
            "pointsman_idle_while_queued_seconds",
            "Time in which somebody waited while a slot of the model was free",
            self.idle_while_queued.clone(),
        );
        r.register(
            "pointsman_affinity_kept",
            "Sessions that stayed where they were though the strategy would have moved them",
            self.affinity_kept.clone(),
        );
        r.register(
            "pointsman_affinity_breaks",
            "Sessions that moved though they were to stay, because another led or their own could not be picked",
            self.affinity_breaks.clone(),
        );
        r.register(
            "pointsman_pool_slot_utilization_ratio",
            "Share of a pool's slots or tokens in use, whichever is more",
            self.pool_utilization.clone(),
        );
        r.register("pointsman_slot_busy_seconds", "Slots in use, times seconds", self.busy.clone());
        self.register_deployments(r);
    }

    fn register_deployments(&self, r: &mut Registry) {
        for (name, help, ratio) in [
            (
                "pointsman_slot_utilization_mean_ratio",
                "Share of a deployment's slots in use, over a minute",
                &self.utilization,
            ),
            (
                "pointsman_traffic_share_ratio",
                "A deployment's share of what its model sent, over a minute",
                &self.share,
            ),
            ("pointsman_traffic_share_intended_ratio", "Its share by weight or slots", &self.share_intended),
            ("pointsman_flaps_per_hour", "Changes of health in the last hour", &self.flaps),
            (
                "pointsman_first_token_prediction_error_ratio",
                "How far predicted first tokens were off lately",
                &self.prediction_error,
            ),
            (
                "pointsman_first_token_prediction_bias_ratio",
                "Actual first tokens to predicted ones lately",
                &self.prediction_bias,
            ),
        ] {
            r.register(name, help, ratio.clone());
        }
    }

    /// Sets all to what the view says.
    pub(super) fn set(&self, fleet: &FleetView, values: &Labels) {
        self.clear();
        for model in &fleet.figures {
            self.set_model(model, values);
        }
        for pool in &fleet.pools {
            let labels = PoolLabels { pool: values.value(Kind::Pool, &pool.name) };
            set(&self.pool_utilization, &labels, pool.utilisation);
        }
    }

    fn set_model(&self, model: &ModelFigures, values: &Labels) {
        let labels = ModelLabels { model: values.value(Kind::Model, &model.name) };
        set(&self.model_utilization, &labels, model.utilisation);
        set(&self.jain, &labels, Some(model.jain));
        set(&self.imbalance, &labels, Some(model.peak_to_mean));
        set(&self.remap, &labels, model.remap_share);
        // Counted by the fleet; cleared above, so adding is setting.
        self.idle_while_queued.get_or_create(&labels).inc_by(model.idle_while_queued_s);
        self.affinity_kept.get_or_create(&labels).inc_by(model.affinity_kept);
        for (reason, breaks) in
            [("lead", model.affinity_broken_by_lead), ("health", model.affinity_broken_by_health)]
        {
            let labels = BreakLabels { model: labels.model.clone(), reason };
            self.affinity_breaks.get_or_create(&labels).inc_by(breaks);
        }
        for one in &model.deployments {
            let labels = DeploymentLabels {
                model: labels.model.clone(),
                deployment: values.value(Kind::Deployment, &one.name),
                provider: values.value(Kind::Provider, &one.provider),
            };
            self.busy.get_or_create(&labels).inc_by(one.busy_slot_seconds);
            set(&self.utilization, &labels, one.utilisation);
            set(&self.share, &labels, Some(one.traffic_share));
            set(&self.share_intended, &labels, Some(one.traffic_share_intended));
            set(&self.flaps, &labels, Some(f64::from(one.flaps_per_h)));
            set(&self.prediction_error, &labels, one.prediction_error);
            set(&self.prediction_bias, &labels, one.prediction_bias);
        }
    }

    fn clear(&self) {
        [&self.model_utilization, &self.jain, &self.imbalance, &self.remap]
            .into_iter()
            .for_each(Family::clear);
        self.idle_while_queued.clear();
        self.affinity_kept.clear();
        self.affinity_breaks.clear();
        self.pool_utilization.clear();
        self.busy.clear();
        let ratios = [&self.utilization, &self.share, &self.share_intended, &self.flaps];
        ratios.into_iter().chain([&self.prediction_error, &self.prediction_bias]).for_each(Family::clear);
    }
}

/// Sets what is known; what is not has no series.
fn set<L: Clone + std::hash::Hash + Eq>(family: &Ratio<L>, labels: &L, value: Option<f64>) {
    if let Some(value) = value {
        family.get_or_create(labels).set(value);
    }
}
