//! What is learnt about the fleet from outside of requests.

use std::time::Duration;

use super::Fleet;
use crate::engine::{CacheChange, Report};
use crate::ids::{CredentialId, DeploymentId};
use crate::rng::Rng;
use crate::time::Now;

/// Something that was learnt about the fleet from outside a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// An active health check came to a verdict.
    Probe {
        /// The deployment it is about.
        deployment: DeploymentId,
        /// Whether it can be sent requests.
        healthy: bool,
    },
    /// Its engine is being asked how it is.
    EngineAsked(DeploymentId),
    /// Its engine said how it is.
    Engine {
        /// The deployment.
        deployment: DeploymentId,
        /// What it said.
        report: Report,
    },
    /// Something happened to the prefix cache of its engine.
    Cache {
        /// The deployment.
        deployment: DeploymentId,
        /// What.
        change: CacheChange,
    },
    /// A connection to the deployment took this long.
    ConnectTime(DeploymentId, Duration),
    /// An operator says that the credential is good again.
    RestoreCredential(CredentialId),
    /// An operator says that the deployment is good again.
    ResetBreaker(DeploymentId),
}

impl Fleet {
    /// Takes in what was learnt outside of requests.
    pub fn observe(&mut self, now: Now, event: Event) {
        let changed = match event {
            Event::Probe { deployment: id, healthy } => self.deployments.get_mut(id).map(|deployment| {
                deployment.unhealthy = !healthy;
                deployment.heard = Some(now);
                (id, deployment.model)
            }),
            Event::EngineAsked(id) => {
                if let Some(deployment) = self.deployments.get_mut(id) {
                    deployment.engine.note_asked();
                }
                None
            }
            Event::Engine { deployment: id, report } => self.note_engine(id, report, now),
            Event::Cache { deployment, change } => {
                if let Some(known) = self.deployments.get_mut(deployment) {
                    known.engine.note_cache(change, now);
                }
                if change == CacheChange::Cleared {
                    self.forget_cached(deployment, false);
                }
                None
            }
            Event::ConnectTime(deployment, took) => {
                if let Some(deployment) = self.deployments.get_mut(deployment) {
                    deployment.connect.observe(now, took);
                }
                None
            }
            Event::RestoreCredential(credential) => {
                if let Some(credential) = self.credentials.get_mut(credential) {
                    credential.restore();
                    self.credential_changes += 1;
                }
                self.serve_models(now, &mut Rng::seeded(self.next_ticket));
                None
            }
            Event::ResetBreaker(id) => self.deployments.get_mut(id).map(|deployment| {
                deployment.reset_health(now);
                (id, deployment.model)
            }),
        };
        if let Some((deployment, model)) = changed {
            self.serve_changed(deployment, model, now, &mut Rng::seeded(self.next_ticket));
        }
    }
}
