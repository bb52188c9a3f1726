//! Permits: the right to have one request in flight on a deployment. Taken before anything is sent, released once.

use std::time::Duration;

use super::order::Charge;
use super::underway::Share;
use super::{Deployment, Fleet, tokens_of};
use crate::catalog::Capabilities;
use crate::facts::{Facts, Lane};
use crate::failure::{Failure, FailureClass, Processed};
use crate::flow::Usage;
use crate::ids::{CredentialId, DeploymentId, Ticket};
use crate::latency::normalised;
use crate::limiter::Sample;
use crate::limits::{FAILURE_LATENCY, RETRY_AFTER_MAX, USAGE_TOKENS_MAX};
use crate::pace::Size;
use crate::rng::Rng;
use crate::time::Now;

/// The right to have one request in flight on a deployment. It cannot be copied, and is given back by
/// [`Fleet::release`] alone.
#[derive(Debug)]
#[must_use = "a permit that is dropped is lost; give it to `Fleet::release`"]
pub(crate) struct Permit {
    pub(super) deployment: DeploymentId,
    pub(super) credential: Option<CredentialId>,
    tokens: u64,
    tokens_in: u32,
    /// Whether its first content tells how fast the deployment is.
    pub(super) tells_speed: bool,
    needs: Capabilities,
    stream: bool,
    /// Requests in flight with this one when it was taken.
    inflight: u32,
    /// When the first content came, and how long that took where it tells something.
    pub(super) first_content: Option<(Now, Option<Duration>)>,
    /// The secret of the credential that was chosen: what is learnt of another says nothing about this one.
    pub(super) revision: u64,
    pub(super) lane: Lane,
    pub(super) tenant_hash: u64,
    /// What the request adds to what its deployment has to do.
    pub(super) share: Share,
    /// What its tenant's share was charged.
    charge: Option<Charge>,
    pub(super) probe: bool,
    pub(super) taken: Now,
    /// Since when the request is being sent, so that some of the quota may be used.
    sent: Option<Now>,
    /// What it is told by if its slot is wanted back.
    pub(crate) recall: Option<Ticket>,
}

impl Permit {
    /// Where it is for.
    pub(crate) const fn deployment(&self) -> DeploymentId {
        self.deployment
    }

    /// A copy that belongs to a copy of the fleet.
    pub(super) fn for_copied_fleet(&self) -> Self {
        Self { ..*self }
    }

    /// The connection stands, and the request is being sent.
    pub(crate) fn note_sent(&mut self, now: Now) {
        self.sent = Some(now);
    }

    /// What the time until its first content depends on, or until its end if that is what it waits for.
    pub(super) fn size(&self) -> Size {
        let tokens_out = self.tokens.saturating_sub(u64::from(self.tokens_in));
        let tokens_out = u32::try_from(tokens_out).unwrap_or(u32::MAX);
        let tokens_out = if self.tells_speed { 0 } else { tokens_out };
        Size { tokens_in: self.tokens_in, tokens_out, beside: self.inflight.saturating_sub(1) }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ended<'a> {
    /// It was never begun, or taken back.
    Unused,
    /// With an answer.
    Well(Usage),
    /// With a failure.
    Failed(&'a Failure),
    /// The client left, or somebody else was faster: it says nothing about the deployment, unless it was waited for too
    /// long.
    Abandoned,
}

/// What a wait counts as that was given up much later than it should have ended.
static LATE: Failure = Failure {
    class: FailureClass::FirstContentTimeout,
    processed: Processed::Maybe,
    status: None,
    retry_after: None,
};

impl Ended<'_> {
    /// The same without usage that cannot be: one answer may not settle for ever what a tenant, a quota or a usual length
    /// comes to.
    fn believable(self) -> Self {
        let Ended::Well(usage) = self else { return self };
        let tokens_in = usage.tokens_in.min(USAGE_TOKENS_MAX);
        Ended::Well(Usage {
            tokens_in,
            tokens_in_cached: usage.tokens_in_cached.min(tokens_in),
            tokens_out: usage.tokens_out.min(USAGE_TOKENS_MAX),
            ..usage
        })
    }

    /// Whether somebody lost patience, so that the time it took may speak against the deployment.
    fn may_be_late(self) -> bool {
        match self {
            Ended::Well(_) | Ended::Unused => false,
            Ended::Abandoned => true,
            Ended::Failed(failure) => {
                matches!(failure.class, FailureClass::TotalTimeout | FailureClass::FirstContentTimeout)
            }
        }
    }
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
        let (mut probe, mut inflight) = (false, 0);
        debug_assert!(
            self.deployments
                .get(deployment)
                .is_none_or(|one| self.no_room(one, facts.lane, tokens, now).is_none()),
            "a permit is taken on a free slot only"
        );
        if let Some(deployment) = self.deployments.get_mut(deployment) {
            deployment.inflight += 1;
            deployment.inflight_batch += u32::from(facts.lane == Lane::Batch);
            match facts.lane {
                Lane::Live => deployment.reserve.note_live(now, deployment.limiter.bound(Lane::Live)),
                Lane::Batch => deployment.reserve.note_batch(),
            }
            inflight = deployment.inflight;
            deployment.use_of_slots.note_sent(inflight, now);
            deployment.tokens_inflight = deployment.tokens_inflight.saturating_add(tokens);
            deployment.requests += 1;
            deployment.engine.note_sent(tokens);
            if let Some(seat) = deployment.seat {
                self.pools[seat.pool].take(seat.member, tokens);
            }
            probe = deployment.health_mut(facts.lane).enter();
        }
        let charge = self.charge(facts);
        let mut revision = 0;
        if let Some(credential) = credential.and_then(|id| self.credentials.get_mut(id)) {
            credential.reserve(tokens, now);
            revision = credential.spec.revision;
        }
        let (tokens_in, needs) = (facts.tokens_in_estimate, facts.needs);
        let mut permit = Permit {
            deployment,
            credential,
            tokens,
            tokens_in,
            tells_speed: facts.tells_speed(),
            needs,
            stream: facts.stream,
            inflight,
            first_content: None,
            revision,
            lane: facts.lane,
            tenant_hash: facts.tenant_hash,
            share: Share::default(),
            charge,
            probe,
            taken: now,
            sent: None,
            recall: None,
        };
        self.start_work(&mut permit, facts, now);
        if let (Some(key), Some(model)) = (facts.session_hash, self.models.get_mut(facts.model))
            && model.spec.sticky.is_some()
        {
            model.sessions.note(key, deployment, now);
        }
        permit
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
        self.keep(permit);
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        deployment.heard = Some(now);
        let first = permit.first_content.is_none();
        permit.first_content.get_or_insert((now, took));
        // Nobody should have to wait for the end of a probe's generation.
        let recovered = std::mem::take(&mut permit.probe);
        if recovered && let Some(model) = self.models.get(deployment.model) {
            deployment.forget_failures();
            deployment.forgive(permit.lane);
            deployment.health_mut(permit.lane).succeeded(&model.spec.health, true, now);
        }
        let model = deployment.model;
        if let Some(took) = took {
            deployment.note_first_content(took, permit.tokens_in, now);
        }
        if recovered {
            self.forget_cached(permit.deployment, false);
        }
        if first {
            self.note_decoding(permit, took, now);
        }
        self.note_pace(permit, took.unwrap_or(now - permit.taken), now);
        if recovered {
            self.serve_changed(permit.deployment, model, now, rng);
        }
    }

    /// Gives a permit back and learns from how its attempt ended. The next in the queue gets the slot.
    pub(crate) fn release(&mut self, mut permit: Permit, ended: Ended<'_>, now: Now, rng: &mut Rng) {
        self.keep(&mut permit);
        let ended = ended.believable();
        self.learn_credential(&permit, ended);
        let model = self.deployments.get(permit.deployment).map(|deployment| deployment.model);
        if let Some(model) = model {
            self.settle_share(model, permit.charge, permit.sent.is_some(), ended);
        }
        if let Ended::Failed(failure) = ended
            && failure.class == FailureClass::CredentialQuota
        {
            self.note_quota(&permit, failure, now);
        }
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else {
            debug_assert!(false, "a deployment stays until its last permit is released");
            return;
        };
        debug_assert!(deployment.inflight > 0, "no permit is released twice");
        deployment.learn_limit(&permit, ended, now);
        deployment.inflight = deployment.inflight.saturating_sub(1);
        deployment.use_of_slots.note_ended(deployment.inflight, now);
        let batch = u32::from(permit.lane == Lane::Batch);
        deployment.inflight_batch = deployment.inflight_batch.saturating_sub(batch);
        deployment.tokens_inflight = deployment.tokens_inflight.saturating_sub(permit.tokens);
        if let Some(seat) = deployment.seat {
            self.pools[seat.pool].give_back(seat.member, permit.tokens);
        }
        deployment.engine.note_ended(permit.tokens);
        let (model, seat) = (deployment.model, deployment.seat);
        self.end_work(&permit);
        if let Ended::Well(usage) = ended {
            self.note_answer(&permit, usage, now);
        }
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        if let Some(model) = self.models.get_mut(model).filter(|_| !matches!(ended, Ended::Unused)) {
            model.turnover.note(now - permit.taken);
        }
        if deployment.removed && deployment.inflight == 0 {
            self.deployments.remove(permit.deployment);
        } else {
            let late = ended.may_be_late() && self.note_given_up(&permit, now);
            self.learn_deployment(&permit, if late { Ended::Failed(&LATE) } else { ended }, now, rng);
        }
        let keyed = permit.credential.is_some();
        self.credential_changes += u64::from(keyed);
        self.credential_failures += u64::from(keyed && matches!(ended, Ended::Failed(_)));
        self.serve_freed(permit.deployment, model, seat, now, rng);
    }

    fn learn_credential(&mut self, permit: &Permit, ended: Ended<'_>) {
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
            }
            Ended::Abandoned | Ended::Unused if permit.sent.is_none() => {
                credential.give_back(permit.tokens, permit.taken);
            }
            // What a request used that was cut off is not known; its reservation stands.
            Ended::Abandoned | Ended::Unused => {}
        }
    }

    fn learn_deployment(&mut self, permit: &Permit, ended: Ended<'_>, now: Now, rng: &mut Rng) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        let Some(spec) = self.models.get(deployment.model).map(|model| &model.spec.health) else { return };
        if let Ended::Failed(failure) = ended {
            deployment.failure_unsure = failure.processed == Processed::Maybe;
        }
        let health = deployment.health_mut(permit.lane);
        let failure = match ended {
            Ended::Well(_) => {
                health.succeeded(spec, permit.probe, now);
                deployment.heard = Some(now);
                if permit.probe {
                    deployment.forget_failures();
                    deployment.forgive(permit.lane);
                }
                return;
            }
            Ended::Abandoned | Ended::Unused => return health.abandoned(permit.probe),
            Ended::Failed(failure) => failure,
        };
        let wait = failure.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX));
        match failure.class {
            // It was never asked: the request could not be written for it.
            FailureClass::Client if failure.status.is_none() => return health.abandoned(permit.probe),
            // It answered; what it answered is about the request, or about the credential.
            FailureClass::Client
            | FailureClass::ContextLength
            | FailureClass::ContentPolicy
            | FailureClass::SchemaMismatch => {
                health.succeeded(spec, permit.probe, now);
            }
            FailureClass::CredentialDead | FailureClass::CredentialQuota if permit.credential.is_some() => {
                health.abandoned(permit.probe);
            }
            FailureClass::CredentialQuota => {
                health.abandoned(permit.probe);
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
                    deployment.cool(permit.lane, now + wait);
                }
                deployment.note_failure(failure.class, FAILURE_LATENCY.max(wait.unwrap_or_default()), now);
            }
        }
        deployment.heard = Some(now);
    }
}

/// Output tokens after the first below which their time says little.
const TOKENS_TELLING: u64 = 8;
/// Prompt tokens that take about as long as one of the output.
const TOKENS_IN_PER_OUT: f64 = 32.0;

impl Deployment {
    /// What the end of an attempt says of how many the deployment can have in flight.
    fn learn_limit(&mut self, permit: &Permit, ended: Ended<'_>, now: Now) {
        let inflight = self.inflight.max(permit.inflight);
        match ended {
            Ended::Well(usage) => {
                self.limiter.succeeded(&permit.sample(usage, inflight, now), now);
            }
            Ended::Failed(failure) => match failure.class {
                FailureClass::CredentialQuota
                | FailureClass::Overloaded
                | FailureClass::FirstContentTimeout => self.limiter.refused(permit.taken, inflight, now),
                FailureClass::Client
                | FailureClass::Connect
                | FailureClass::Transient
                | FailureClass::CredentialDead
                | FailureClass::ContextLength
                | FailureClass::ContentPolicy
                | FailureClass::SchemaMismatch
                | FailureClass::ModelMissing
                | FailureClass::Protocol
                | FailureClass::ConnectTimeout
                | FailureClass::IdleTimeout
                | FailureClass::Drained
                | FailureClass::TotalTimeout => {}
            },
            Ended::Abandoned | Ended::Unused => {}
        }
    }
}

impl Permit {
    fn sample(&self, usage: Usage, inflight: u32, now: Now) -> Sample {
        let millis = |span: Duration| span.as_secs_f64() * 1e3;
        let mut sample = Sample { taken: self.taken, inflight, ..Sample::default() };
        let Some((first_at, took)) = self.first_content else { return sample };
        let first_ms = took.map(|took| millis(normalised(took, self.tokens_in)));
        let after_first = usage.tokens_out.saturating_sub(1);
        if self.needs.is_one_pass() {
            sample.whole_ms = first_ms;
        } else if self.stream {
            sample.first_ms = first_ms;
            sample.per_token_ms =
                (after_first >= TOKENS_TELLING).then(|| millis(now - first_at) / after_first as f64);
        } else if after_first >= TOKENS_TELLING {
            let tokens = usage.tokens_out as f64 + f64::from(self.tokens_in) / TOKENS_IN_PER_OUT;
            sample.whole_ms = Some(millis(now - self.taken) / tokens);
        }
        sample
    }
}
