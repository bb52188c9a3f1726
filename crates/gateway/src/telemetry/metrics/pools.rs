//! Gauges of pools, and what deployments have beyond what was sent to them. Set from the fleet's view when somebody asks.

use pointsman_routing::fleet::{DeploymentView, FleetView, PoolModelView, PoolView};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{Kind, Labels};

/// Gauges of pools.
#[derive(Default)]
pub(super) struct PoolGauges {
    slots: Family<PoolLabels, Gauge>,
    tokens: Family<PoolLabels, Gauge>,
    in_use: Family<MemberLabels, Gauge>,
    tokens_in_use: Family<MemberLabels, Gauge>,
    guarantee: Family<MemberLabels, Gauge>,
    lent: Family<MemberLabels, Gauge>,
    waiting: Family<MemberLabels, Gauge>,
    gap: Family<GapLabels, Gauge>,
}

/// Labels: one pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

/// Labels: a model in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    pool: String,
    model: String,
}

/// Labels: one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GapLabels {
    model: String,
    deployment: String,
}

impl PoolGauges {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register("pointsman_pool_slots", "Slots of a pool; -1 where unlimited", self.slots.clone());
        r.register(
            "pointsman_pool_tokens",
            "Tokens that a pool may have in flight; -1 where unlimited",
            self.tokens.clone(),
        );
        r.register("pointsman_pool_in_use", "Slots of a pool that a model has", self.in_use.clone());
        r.register(
            "pointsman_pool_tokens_in_use",
            "Tokens that a model has in flight in a pool, estimated",
            self.tokens_in_use.clone(),
        );
        r.register(
            "pointsman_pool_guarantee",
            "Slots of a pool that a model has whenever it needs them",
            self.guarantee.clone(),
        );
        r.register(
            "pointsman_pool_lent",
            "Slots of its guarantee that a model lends to others now",
            self.lent.clone(),
        );
        r.register(
            "pointsman_pool_waiting",
            "Requests that wait for a model that is in a pool",
            self.waiting.clone(),
        );
        r.register(
            "pointsman_slot_gap",
            "Requests that an engine says it has beyond those that were sent from here",
            self.gap.clone(),
        );
    }

    /// Sets all to what the view says.
    pub(super) fn set(&self, fleet: &FleetView, values: &Labels) {
        self.clear();
        for pool in &fleet.pools {
            self.set_pool(pool, values);
        }
        for model in &fleet.models {
            let name = values.value(Kind::Model, &model.name);
            let known =
                |one: &DeploymentView| Some((values.value(Kind::Deployment, &one.name), one.slot_gap?));
            for (deployment, gap) in model.deployments.iter().filter_map(known) {
                self.gap.get_or_create(&GapLabels { model: name.clone(), deployment }).set(gap);
            }
        }
    }

    fn set_pool(&self, pool: &PoolView, values: &Labels) {
        let name = values.value(Kind::Pool, &pool.name);
        let labels = PoolLabels { pool: name.clone() };
        self.slots.get_or_create(&labels).set(pool.slots.map_or(-1, i64::from));
        self.tokens.get_or_create(&labels).set(pool.tokens.map_or(-1, signed));
        let set = |member: &PoolModelView| {
            let labels = MemberLabels { pool: name.clone(), model: values.value(Kind::Model, &member.model) };
            self.in_use.get_or_create(&labels).set(i64::from(member.inflight));
            self.tokens_in_use.get_or_create(&labels).set(signed(member.tokens_inflight));
            self.guarantee.get_or_create(&labels).set(i64::from(member.guarantee));
            self.lent.get_or_create(&labels).set(i64::from(member.lent));
            self.waiting.get_or_create(&labels).set(member.waiting as i64);
        };
        pool.models.iter().for_each(set);
    }

    fn clear(&self) {
        self.slots.clear();
        self.tokens.clear();
        self.in_use.clear();
        self.tokens_in_use.clear();
        self.guarantee.clear();
        self.lent.clear();
        self.waiting.clear();
        self.gap.clear();
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
