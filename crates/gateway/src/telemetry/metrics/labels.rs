//! Which values labels may take: every configured name, and a bounded number of others. What is no longer configured
//! is forgotten at the next reload, with its series.

use std::collections::{BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pointsman_settings::Config;
use prometheus_client::metrics::family::{Family, MetricConstructor};

/// Values of one label beside the configured names before the rest is counted as [`OTHER`].
pub const LABEL_VALUES_MAX: usize = 1_000;
/// The value that stands for what found no place.
const OTHER: &str = "other";

/// What a label names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Deployment,
    Provider,
    Credential,
    Pool,
    Arm,
    Tenant,
}

/// The values of all labels.
#[derive(Default)]
pub(super) struct Labels {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By [`Kind`].
    values: [Values; Kind::Tenant as usize + 1],
    /// Deployments and arms belong to a model: another model's of the same name does not keep a series.
    of_models: BTreeSet<(String, String)>,
}

#[derive(Default)]
struct Values {
    configured: BTreeSet<String>,
    others: BTreeSet<String>,
}

impl Labels {
    /// Pins the names of a configuration, and forgets all others.
    pub(super) fn configure(&self, config: &Config) {
        let mut inner = Inner::default();
        for (name, model) in &config.models {
            inner.pin(Kind::Model, name);
            for deployment in &model.deployments {
                let deployment = deployment.name_in(name);
                inner.pin(Kind::Deployment, &deployment);
                inner.of_models.insert((name.clone(), deployment));
            }
            for arm in model.split.iter().flat_map(|split| split.arms.keys()) {
                inner.pin(Kind::Arm, arm);
                inner.of_models.insert((name.clone(), arm.clone()));
            }
        }
        for key in &config.auth.keys {
            inner.pin(Kind::Tenant, key.tenant());
        }
        for (name, provider) in &config.providers {
            inner.pin(Kind::Provider, name);
            for (credential, _) in provider.credentials() {
                inner.pin(Kind::Credential, &credential);
            }
        }
        config.pools.keys().for_each(|name| inner.pin(Kind::Pool, name));
        *self.lock() = inner;
    }

    /// The value for a name: the name itself if it is configured, or one of the first thousand others.
    pub(super) fn value(&self, kind: Kind, name: &str) -> String {
        let mut inner = self.lock();
        let values = &mut inner.values[kind as usize];
        if values.configured.contains(name) || values.others.contains(name) {
            return name.to_owned();
        }
        if values.others.len() < LABEL_VALUES_MAX {
            values.others.insert(name.to_owned());
            return name.to_owned();
        }
        OTHER.to_owned()
    }

    /// Whether a series with this value may stay after a reload.
    pub(super) fn keeps(&self, kind: Kind, value: &str) -> bool {
        value == OTHER || self.lock().values[kind as usize].configured.contains(value)
    }

    /// The same for a deployment or an arm, which belongs to a model.
    pub(super) fn keeps_of(&self, model: &str, value: &str) -> bool {
        (value == OTHER && self.keeps(Kind::Model, model))
            || self.lock().of_models.contains(&(model.to_owned(), value.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn pin(&mut self, kind: Kind, name: &str) {
        self.values[kind as usize].configured.insert(name.to_owned());
    }
}

/// A family that knows its series, so that it can forget some.
pub(super) struct Series<S, M, C = fn() -> M> {
    pub(super) family: Family<S, M, C>,
    made: Mutex<HashSet<S>>,
}

impl<S: Clone + Eq + Hash, M: Default> Default for Series<S, M> {
    fn default() -> Self {
        Self::made_by(M::default)
    }
}

impl<S: Clone + Eq + Hash, M> Series<S, M> {
    /// A family whose series are made so.
    pub(super) fn made_by(make: fn() -> M) -> Self {
        Self { family: Family::new_with_constructor(make), made: Mutex::default() }
    }
}

impl<S: Clone + Eq + Hash, M: Clone, C: MetricConstructor<M>> Series<S, M, C> {
    /// The series with these labels.
    pub(super) fn get(&self, labels: &S) -> M {
        if let Some(known) = self.family.get(labels) {
            return known.clone();
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.insert(labels.clone());
        self.family.get_or_create_owned(labels)
    }

    /// Forgets the series that are not to be kept.
    pub(super) fn retain(&self, keep: impl Fn(&S) -> bool) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|labels| keep(labels) || !self.family.remove(labels));
    }
}
