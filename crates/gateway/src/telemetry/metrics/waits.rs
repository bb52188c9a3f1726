//! Who waits for slots and how long, by class and by tenant.

use pointsman_routing::Facts;
use pointsman_routing::fleet::FleetView;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::labels::{Kind, Labels, Series};
use super::{DURATION_BUCKETS, Metrics};

/// Labels: a class of a lane of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
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

/// What some waits came to, for people who ask the admin API rather than a store of metrics.
#[derive(Debug, Clone, Default)]
struct Tally {
    sum: Duration,
    max: Duration,
    /// Waits by the bucket they belong to, those beyond the last one included.
    buckets: [u64; DURATION_BUCKETS.len() + 1],
}

impl Tally {
    fn add(&mut self, wait: Duration) {
        let bucket = DURATION_BUCKETS.partition_point(|most_s| wait.as_secs_f64() > *most_s);
        self.buckets[bucket] += 1;
        self.sum += wait;
        self.max = self.max.max(wait);
    }

    /// What so many of a hundred waits did not exceed: the end of a bucket, or the longest if that is less.
    fn at_most(&self, percent: u64) -> Duration {
        let count: u64 = self.buckets.iter().sum();
        let mut below = 0;
        let bucket = self.buckets.iter().position(|waits| {
            below += waits;
            below * 100 >= count * percent
        });
        let end = bucket.and_then(|bucket| DURATION_BUCKETS.get(bucket));
        end.map_or(self.max, |end_s| Duration::from_secs_f64(*end_s).min(self.max))
    }

    /// Adds itself to what they were the waits of.
    fn told(&self, mut of: Value) -> Value {
        let count: u64 = self.buckets.iter().sum();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        of["count"] = json!(count);
        of["mean_ms"] = json!(ms(self.sum) / count.max(1) as f64);
        of["p50_ms_at_most"] = json!(ms(self.at_most(50)));
        of["p99_ms_at_most"] = json!(ms(self.at_most(99)));
        of["max_ms"] = json!(ms(self.max));
        of
    }
}

/// Waits so far, with the bounds of the labels.
#[derive(Debug, Default)]
struct Tallies {
    classes: BTreeMap<ClassLabels, Tally>,
    tenants: BTreeMap<String, Tally>,
}

/// The series.
pub(super) struct Waits {
    tallies: Mutex<Tallies>,
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
            tallies: Mutex::default(),
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
        let mut tallies = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.classes.retain(|series, _| labels.keeps(Kind::Model, &series.model));
        tallies.tenants.retain(|tenant, _| labels.keeps(Kind::Tenant, tenant));
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
        let of_tenant = TenantLabels { tenant: tenant.clone() };
        self.waits.by_tenant.get(&of_tenant).observe(wait.as_secs_f64());
        let mut tallies = self.waits.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.classes.entry(labels).or_default().add(wait);
        tallies.tenants.entry(tenant).or_default().add(wait);
    }

    /// How long requests waited so far that had to, by class and by tenant.
    pub fn waits(&self) -> Value {
        let tallies = self.waits.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        let of_class = |(of, tally): (&ClassLabels, &Tally)| {
            tally.told(json!({"model": of.model, "lane": of.lane, "class": of.class}))
        };
        let of_tenant = |(tenant, tally): (&String, &Tally)| tally.told(json!({"tenant": tenant}));
        json!({
            "classes": tallies.classes.iter().map(of_class).collect::<Vec<_>>(),
            "tenants": tallies.tenants.iter().map(of_tenant).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_gives_bounds_that_hold() {
        let mut tally = Tally::default();
        assert_eq!(tally.told(json!({}))["p99_ms_at_most"], 0.0);
        for ms in 1..=100 {
            tally.add(Duration::from_millis(ms));
        }
        let told = tally.told(json!({"tenant": "t"}));
        assert_eq!(
            (&told["count"], &told["mean_ms"], &told["max_ms"]),
            (&json!(100), &json!(50.5), &json!(100.0))
        );
        assert_eq!((&told["p50_ms_at_most"], &told["p99_ms_at_most"]), (&json!(80.0), &json!(100.0)));
        tally.add(Duration::from_secs(1_000));
        assert_eq!(tally.told(json!({}))["max_ms"], 1e6);
        assert_eq!(tally.at_most(100), Duration::from_secs(1_000));
    }
}
