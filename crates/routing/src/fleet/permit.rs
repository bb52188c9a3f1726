//! Permits: the right to have one request in flight on a deployment. Taken before anything is sent, released once.

use std::time::Duration;

use super::{Fleet, tokens_of};
use crate::catalog::Capabilities;
use crate::facts::{Facts, Lane};
use crate::failure::{Failure, FailureClass, Processed};
use crate::flow::Usage;
use crate::ids::{CredentialId, DeploymentId};
use crate::limits::{FAILURE_LATENCY, RETRY_AFTER_MAX};
use crate::rng::Rng;
use crate::time::Now;

/// The right to have one request in flight on a deployment. It cannot be copied, and is given back by
/// [`Fleet::release`] alone.
#[derive(Debug)]
#[must_use = "a permit that is dropped is lost; give it to `Fleet::release`"]
pub(crate) struct Permit {
    deployment: DeploymentId,
    credential: Option<CredentialId>,
    tokens: u64,
    tokens_in: u32,
    needs: Capabilities,
    /// The secret of the credential that was chosen: what is learnt of another says nothing about this one.
    revision: u64,
    lane: Lane,
    probe: bool,
    taken: Now,
}

impl Permit {
    /// A copy that belongs to a copy of the fleet.
    pub(super) fn for_copied_fleet(&self) -> Self {
        Self { ..*self }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended<'a> {
    /// With an answer.
    Well(Usage),
    /// With a failure.
    Failed(&'a Failure),
    /// The client left, or somebody else was faster: it says nothing about the deployment.
    Abandoned,
}

impl Fleet {
    /// Takes a permit and reserves the quota of its credential.
    pub(crate) fn take(
        &mut self,
        deployment: DeploymentId,
        credential: Option<CredentialId>,
        facts: &Facts,
        now: Now,
    ) -> Permit {
        let tokens = tokens_of(facts);
        let mut probe = false;
        if let Some(deployment) = self.deployments.get_mut(deployment) {
            debug_assert!(!deployment.is_full(), "a permit is taken on a free slot only");
            deployment.inflight += 1;
            deployment.tokens_inflight = deployment.tokens_inflight.saturating_add(tokens);
            deployment.requests += 1;
            probe = deployment.health_mut(facts.lane).enter();
        }
        let mut revision = 0;
        if let Some(credential) = credential.and_then(|id| self.credentials.get_mut(id)) {
            credential.reserve(tokens, now);
            revision = credential.spec.revision;
        }
        let (tokens_in, needs) = (facts.tokens_in_estimate, facts.needs);
        Permit {
            deployment,
            credential,
            tokens,
            tokens_in,
            needs,
            revision,
            lane: facts.lane,
            probe,
            taken: now,
        }
    }

    /// The first content came: the deployment works, and is known to be this fast. Of a generation that is not
    /// streamed the first content is the whole answer, which measures the request more than the deployment, so the
    /// time is given for the others only.
    pub(crate) fn note_first_content(
        &mut self,
        permit: &mut Permit,
        took: Option<Duration>,
        now: Now,
        rng: &mut Rng,
    ) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        deployment.heard = Some(now);
        // Nobody should have to wait for the end of a probe's generation.
        let recovered = std::mem::take(&mut permit.probe);
        if recovered && let Some(model) = self.models.get(deployment.model) {
            deployment.forget_failures();
            deployment.health_mut(permit.lane).succeeded(&model.spec.health, true, now);
        }
        if let Some(took) = took {
            deployment.note_first_content(took, permit.tokens_in, now);
        }
        if recovered {
            let model = deployment.model;
            self.serve_changed(permit.deployment, model, now, rng);
        }
    }

    /// Gives a permit back and learns from how its attempt ended. The next in the queue gets the slot.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a permit that was given back must not be there any more"
    )]
    pub(crate) fn release(&mut self, permit: Permit, ended: Ended<'_>, now: Now, rng: &mut Rng) {
        self.learn_credential(&permit, ended, now);
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else {
            debug_assert!(false, "a deployment stays until its last permit is released");
            return;
        };
        debug_assert!(deployment.inflight > 0, "no permit is released twice");
        deployment.inflight = deployment.inflight.saturating_sub(1);
        deployment.tokens_inflight = deployment.tokens_inflight.saturating_sub(permit.tokens);
        let model = deployment.model;
        if deployment.removed && deployment.inflight == 0 {
            self.deployments.remove(permit.deployment);
        } else {
            self.learn_deployment(&permit, ended, now, rng);
        }
        self.credential_changes += u64::from(permit.credential.is_some());
        self.serve_changed(permit.deployment, model, now, rng);
    }

    fn learn_credential(&mut self, permit: &Permit, ended: Ended<'_>, now: Now) {
        let Some(credential) = permit.credential.and_then(|id| self.credentials.get_mut(id)) else { return };
        let same_secret = credential.spec.revision == permit.revision;
        match ended {
            Ended::Well(usage) => {
                credential.succeeded();
                let used = usage.tokens_in.saturating_add(usage.tokens_out);
                credential.settle(permit.tokens, used, permit.taken);
            }
            Ended::Failed(failure) => {
                if failure.processed == Processed::No {
                    credential.settle(permit.tokens, 0, permit.taken);
                }
                if failure.class == FailureClass::CredentialDead && same_secret {
                    credential.refused();
                }
                if failure.class == FailureClass::CredentialQuota && same_secret {
                    credential.cool(failure.retry_after, now);
                }
            }
            // What a request used that was cut off is not known; its reservation stands.
            Ended::Abandoned => {}
        }
    }

    fn learn_deployment(&mut self, permit: &Permit, ended: Ended<'_>, now: Now, rng: &mut Rng) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        let Some(model) = self.models.get(deployment.model) else { return };
        let spec = &model.spec.health;
        let health = deployment.health_mut(permit.lane);
        let failure = match ended {
            // Whether it ended by itself or broke off is not known: nothing is learned from it.
            Ended::Well(usage) if usage.truncated => {
                health.abandoned(permit.probe);
                deployment.heard = Some(now);
                return;
            }
            Ended::Well(_) => {
                health.succeeded(spec, permit.probe, now);
                deployment.heard = Some(now);
                if permit.probe {
                    deployment.forget_failures();
                }
                return;
            }
            Ended::Abandoned => return health.abandoned(permit.probe),
            Ended::Failed(failure) => failure,
        };
        let wait = failure.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
        match failure.class {
            // It answered; what it answered is about the request, or about the credential.
            FailureClass::Client | FailureClass::ContextLength | FailureClass::ContentPolicy => {
                health.succeeded(spec, permit.probe, now);
            }
            FailureClass::CredentialDead | FailureClass::CredentialQuota if permit.credential.is_some() => {
                health.abandoned(permit.probe);
            }
            FailureClass::CredentialQuota => {
                health.abandoned(permit.probe);
                deployment.cool(wait.unwrap_or(crate::limits::COOLING_MIN), now);
                deployment.note_failure(failure.class, wait.unwrap_or(FAILURE_LATENCY), now);
            }
            // It works, but not for this: whoever asks for something else must not suffer.
            FailureClass::ModelMissing => {
                health.abandoned(permit.probe);
                deployment.note_missing(permit.needs.operation(), now);
                deployment.last_failure = Some((failure.class, now));
            }
            // The request ran out of its own time, or an operator ended it; that says little about where it was just then.
            FailureClass::TotalTimeout | FailureClass::Drained => health.abandoned(permit.probe),
            FailureClass::CredentialDead
            | FailureClass::Connect
            | FailureClass::Transient
            | FailureClass::Overloaded
            | FailureClass::Protocol
            | FailureClass::ConnectTimeout
            | FailureClass::FirstContentTimeout
            | FailureClass::IdleTimeout => {
                health.failed(spec, failure.class, (permit.probe, permit.taken), now, rng);
                if let Some(wait) = wait {
                    health.extend(now + wait);
                    deployment.cool(wait, now);
                }
                let counted_as = wait.unwrap_or(FAILURE_LATENCY).max(FAILURE_LATENCY);
                deployment.note_failure(failure.class, counted_as, now);
            }
        }
        deployment.heard = Some(now);
    }
}
