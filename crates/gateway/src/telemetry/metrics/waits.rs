//! Who waits for slots and how long, by class and by tenant.

use pointsman_routing::Facts;
use pointsman_routing::fleet::FleetView;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::labels::{Kind, Labels, Series};
use super::{DURATION_BUCKETS, Metrics};

/// Labels: a class of a lane of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabels {
    model: String,
    lane: &'static str,
    class: &'static str,
}

/// Labels: a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    tenant: String,
}

/// Labels: a tenant of a class of a lane of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShareLabels {
    model: String,
    lane: &'static str,
    class: &'static str,
    tenant: String,
}

/// The series.
pub(super) struct Waits {
    by_class: Series<ClassLabels, Histogram>,
    by_tenant: Series<TenantLabels, Histogram>,
    depth: Family<ClassLabels, Gauge>,
    oldest: Family<ClassLabels, Gauge<f64, AtomicU64>>,
    tenant_depth: Family<ShareLabels, Gauge>,
    tenant_served: Family<ShareLabels, Counter>,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            by_class: Series::made_by(|| Histogram::new(DURATION_BUCKETS)),
            by_tenant: Series::made_by(|| Histogram::new(DURATION_BUCKETS)),
            depth: Family::default(),
            oldest: Family::default(),
            tenant_depth: Family::default(),
            tenant_served: Family::default(),
        }
    }
}

impl Waits {
    pub(super) fn register(&self, r: &mut Registry) {
        r.register(
            "pointsman_class_queue_wait_seconds",
            "Time requests waited for a slot, by lane and class",
            self.by_class.family.clone(),
        );
        r.register(
            "pointsman_tenant_queue_wait_seconds",
            "Time requests waited for a slot, by tenant",
            self.by_tenant.family.clone(),
        );
        r.register(
            "pointsman_class_queue_depth",
            "Requests that wait for a slot, by lane and class",
            self.depth.clone(),
        );
        r.register(
            "pointsman_class_queue_oldest_seconds",
            "How long the request waits that came first of those that wait",
            self.oldest.clone(),
        );
        r.register(
            "pointsman_tenant_queue_depth",
            "Requests that wait for a slot, of the tenants with most waiting or served",
            self.tenant_depth.clone(),
        );
        r.register(
            "pointsman_tenant_served_tokens",
            "What tenants were served: prompt tokens that were not cached, and twice the output",
            self.tenant_served.clone(),
        );
    }

    /// Forgets the series of what is gone.
    pub(super) fn retain(&self, labels: &Labels) {
        self.by_class.retain(|series| labels.keeps(Kind::Model, &series.model));
        self.by_tenant.retain(|series| labels.keeps(Kind::Tenant, &series.tenant));
    }

    /// Sets what is known of those that wait now.
    pub(super) fn set(&self, fleet: &FleetView, values: &Labels) {
        self.depth.clear();
        self.oldest.clear();
        self.tenant_depth.clear();
        self.tenant_served.clear();
        for model in &fleet.models {
            let name = values.value(Kind::Model, &model.name);
            for of_class in &model.queue {
                let labels = ClassLabels { model: name.clone(), lane: of_class.lane, class: of_class.class };
                self.depth.get_or_create(&labels).set(i64::from(of_class.depth));
                let oldest_s = of_class.oldest_wait_ms.map_or(0.0, |ms| ms as f64 / 1e3);
                self.oldest.get_or_create(&labels).set(oldest_s);
                for tenant in &of_class.tenants {
                    let labels = ShareLabels {
                        model: name.clone(),
                        lane: of_class.lane,
                        class: of_class.class,
                        tenant: values.value(Kind::Tenant, &tenant.tenant),
                    };
                    // Several may be `other`; cleared above, so adding is setting.
                    self.tenant_depth.get_or_create(&labels).inc_by(i64::from(tenant.depth));
                    self.tenant_served.get_or_create(&labels).inc_by(tenant.served_tokens);
                }
            }
        }
    }
}

impl Metrics {
    /// A request that waited for a slot, or did not, ended.
    pub fn waited(&self, model: &str, facts: &Facts, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let labels = ClassLabels {
            model: self.labels.value(Kind::Model, model),
            lane: facts.lane.name(),
            class: facts.class.name(),
        };
        self.waits.by_class.get(&labels).observe(wait.as_secs_f64());
        let tenant = self.labels.value(Kind::Tenant, &facts.tenant);
        self.waits.by_tenant.get(&TenantLabels { tenant }).observe(wait.as_secs_f64());
    }
}
