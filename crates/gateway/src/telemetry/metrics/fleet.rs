//! Gauges that are set from the fleet's view when somebody asks for them.

use std::sync::atomic::AtomicU64;

use pointsman_routing::fleet::{CredentialView, DeploymentView, FleetView};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::engine::EngineGauges;
use super::labels::{Kind, Labels};
use super::{DeploymentLabels, ModelLabels};

/// Gauges that are set from the fleet's view when somebody asks for the metrics.
#[derive(Default)]
pub(super) struct FleetGauges {
    pub(super) inflight: Family<DeploymentLabels, Gauge>,
    pub(super) slots: Family<DeploymentLabels, Gauge>,
    pub(super) limit: Family<DeploymentLabels, Gauge>,
    pub(super) queue_overloaded: Family<ModelLabels, Gauge>,
    pub(super) utilization: Family<DeploymentLabels, Gauge<f64, AtomicU64>>,
    pub(super) state: Family<StateLabels, Gauge>,
    pub(super) slow: Family<DeploymentLabels, Gauge<f64, AtomicU64>>,
    pub(super) transitions: Family<DeploymentLabels, Counter>,
    pub(super) engine: EngineGauges,
    pub(super) queue_depth: Family<ModelLabels, Gauge>,
    pub(super) retry_budget: Family<ModelLabels, Gauge>,
    pub(super) credential: Family<CredentialLabels, Gauge>,
    pub(super) credential_remaining: Family<AllowanceLabels, Gauge>,
}

/// Labels: a credential and what a limit of it counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AllowanceLabels {
    provider: String,
    credential: String,
    limit: &'static str,
}

/// Labels: a deployment and one of the states it may be in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct StateLabels {
    model: String,
    deployment: String,
    state: String,
}

/// Labels: a credential and one of the states it may be in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CredentialLabels {
    provider: String,
    credential: String,
    state: String,
}

impl FleetGauges {
    /// Sets all to what the view says.
    pub(super) fn set(&self, fleet: &FleetView, values: &Labels) {
        self.clear();
        for model in &fleet.models {
            let name = values.value(Kind::Model, &model.name);
            let labels = ModelLabels { model: name.clone() };
            self.queue_depth.get_or_create(&labels).set(model.queue_depth as i64);
            self.queue_overloaded.get_or_create(&labels).set(i64::from(model.queue_overloaded));
            self.retry_budget.get_or_create(&labels).set(model.retry_budget_remaining as i64);
            for deployment in &model.deployments {
                self.set_deployment(&name, deployment, values);
            }
        }
        for provider in &fleet.providers {
            for credential in &provider.credentials {
                for (limit, left) in &credential.said {
                    let labels = AllowanceLabels {
                        provider: values.value(Kind::Provider, &provider.name),
                        credential: values.value(Kind::Credential, &credential.name),
                        limit,
                    };
                    let remaining = i64::try_from(left.remaining).unwrap_or(i64::MAX);
                    self.credential_remaining.get_or_create(&labels).set(remaining);
                }
                for state in CredentialView::STATES {
                    let labels = CredentialLabels {
                        provider: values.value(Kind::Provider, &provider.name),
                        credential: values.value(Kind::Credential, &credential.name),
                        state: state.to_owned(),
                    };
                    self.credential.get_or_create(&labels).set(i64::from(credential.state == state));
                }
            }
        }
    }

    fn set_deployment(&self, model: &str, deployment: &DeploymentView, values: &Labels) {
        let labels = DeploymentLabels {
            model: model.to_owned(),
            deployment: values.value(Kind::Deployment, &deployment.name),
            provider: values.value(Kind::Provider, &deployment.provider),
        };
        self.inflight.get_or_create(&labels).set(i64::from(deployment.inflight));
        self.slots.get_or_create(&labels).set(deployment.slots.map_or(-1, i64::from));
        self.limit.get_or_create(&labels).set(deployment.limit.map_or(-1, i64::from));
        if let Some(limit) = deployment.limit {
            let ratio = f64::from(deployment.inflight) / f64::from(limit.max(1));
            self.utilization.get_or_create(&labels).set(ratio);
        }
        self.engine.set(&labels, deployment);
        self.slow.get_or_create(&labels).set(deployment.slow);
        // Counted by the fleet; cleared above, so adding is setting.
        self.transitions.get_or_create(&labels).inc_by(deployment.breaker_transitions);
        for state in DeploymentView::STATES {
            let labels = StateLabels {
                model: model.to_owned(),
                deployment: labels.deployment.clone(),
                state: state.to_owned(),
            };
            self.state.get_or_create(&labels).set(i64::from(deployment.state == state));
        }
    }

    /// Forgets all, so that what was removed is not shown for ever.
    fn clear(&self) {
        self.inflight.clear();
        self.slots.clear();
        self.limit.clear();
        self.queue_overloaded.clear();
        self.utilization.clear();
        self.state.clear();
        self.engine.clear();
        self.slow.clear();
        self.transitions.clear();
        self.queue_depth.clear();
        self.retry_budget.clear();
        self.credential.clear();
        self.credential_remaining.clear();
    }
}
