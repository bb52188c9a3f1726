//! Quotas: which credential can be used, and what one is told that holds for all that share a quota domain.

use super::credential::earlier;
use super::{Fleet, Permit};
use crate::catalog::Name;
use crate::facts::Lane;
use crate::failure::Failure;
use crate::ids::DeploymentId;
use crate::limits::{COOLING_MIN, RETRY_AFTER_MAX};
use crate::time::Now;

impl Fleet {
    /// Whether the provider has a credential that is usable in a lane, or needs none; else the soonest that one is.
    #[inline(never)]
    pub(crate) fn usable_credential(
        &self,
        provider: usize,
        lane: Lane,
        tokens: u64,
        now: Now,
    ) -> Result<(), Option<Now>> {
        let credentials = &self.providers[provider].credentials;
        let mut soonest = None;
        let known = credentials.iter().filter_map(|id| self.credentials.get(*id));
        for credential in known.filter(|credential| credential.serves(lane)) {
            match credential.left(tokens, now) {
                Ok(_) => return Ok(()),
                Err(until) => soonest = earlier(soonest, until),
            }
        }
        if credentials.is_empty() { Ok(()) } else { Err(soonest) }
    }

    /// Whether the deployment's provider has a credential that can be used now in a lane.
    pub(crate) fn has_usable_credential(&self, deployment: DeploymentId, lane: Lane, now: Now) -> bool {
        let provider = self.deployments.get(deployment).map(|deployment| deployment.provider);
        provider.is_some_and(|provider| {
            let credentials = &self.providers[provider].credentials;
            credentials
                .iter()
                .filter_map(|id| self.credentials.get(*id))
                .any(|known| known.serves(lane) && known.left(0, now).is_ok())
        })
    }

    /// A provider said that a quota is used up (429). The quota is that of the deployment's domain if it names one, else
    /// of the credential's, else of the credential alone, or of the deployment where there is none. It holds for both
    /// lanes, for they share it.
    pub(super) fn note_quota(&mut self, permit: &Permit, failure: &Failure, now: Now) {
        let domain = self.deployments.get(permit.deployment).and_then(|one| one.spec.quota_domain.clone());
        let gone = permit.credential.is_some_and(|id| self.credentials.get(id).is_none());
        if gone && domain.is_none() {
            // What it was told says nothing about those that are left.
            return;
        }
        let until = match permit.credential.and_then(|id| self.credentials.get_mut(id)) {
            Some(credential) if domain.is_none() => {
                // What another secret was told says nothing about this one.
                if credential.spec.revision != permit.revision {
                    return;
                }
                let until = credential.cool(failure.retry_after, now);
                let domain = credential.spec.quota_domain.clone();
                return self.cool_domain(domain.as_ref(), until);
            }
            Some(_) | None => now + failure.retry_after.unwrap_or(COOLING_MIN).min(RETRY_AFTER_MAX),
        };
        if let Some(deployment) = self.deployments.get_mut(permit.deployment) {
            deployment.cool(Lane::Live, until);
        }
        self.cool_domain(domain.as_ref(), until);
    }

    /// All that share a quota wait until then. Only ever longer. O(everything), and rare.
    pub(super) fn cool_domain(&mut self, domain: Option<&Name>, until: Now) {
        if domain.is_none() {
            return;
        }
        for credential in self.credentials.values_mut() {
            if credential.spec.quota_domain.as_ref() == domain {
                credential.cool_until(until);
            }
        }
        for deployment in self.deployments.values_mut() {
            if deployment.spec.quota_domain.as_ref() == domain {
                deployment.cool(Lane::Live, until);
            }
        }
    }
}
