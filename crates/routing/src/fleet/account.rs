//! Accounts: what a provider keeps belongs to one of its credentials, or to the provider itself where it has none.

use crate::catalog::Capabilities;
use crate::facts::{Facts, Lane, Pin};
use crate::fleet::{Fleet, tokens_of};
use crate::ids::ModelId;
use crate::time::Now;

/// Why no one account can be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSoleAccount {
    /// There is none that keeps anything.
    Nobody,
    /// There are several.
    Several,
}

impl Fleet {
    /// The only account behind models that can do what is needed, if there is just one.
    pub fn sole_account(
        &self,
        models: &[ModelId],
        needs: Capabilities,
        lane: Lane,
    ) -> Result<Pin, NoSoleAccount> {
        let mut sole: Option<Pin> = None;
        for id in models.iter().filter_map(|model| self.models.get(*model)).flat_map(|one| &one.deployments) {
            let Some(deployment) = self.deployments.get(*id) else { continue };
            if !needs.without(deployment.spec.capabilities).is_empty() {
                continue;
            }
            let all = &self.providers[deployment.provider].credentials;
            let serving = |one: &&_| self.credentials.get(**one).is_some_and(|known| known.serves(lane));
            let keyed = all.iter().filter(serving).map(|one| Some(*one));
            for credential in keyed.chain(all.is_empty().then_some(None)) {
                let pin = Pin { deployment: *id, credential };
                match sole {
                    None => sole = Some(pin),
                    Some(known) if self.is_same_account(known, pin) => {}
                    Some(_) => return Err(NoSoleAccount::Several),
                }
            }
        }
        sole.ok_or(NoSoleAccount::Nobody)
    }

    /// Whether two pins mean one account.
    pub fn is_same_account(&self, one: Pin, other: Pin) -> bool {
        one == other
            || (one.credential == other.credential
                && self
                    .provider_of_pin(one)
                    .is_some_and(|provider| Some(provider) == self.provider_of_pin(other)))
    }

    /// The place of the provider whose account it is; `None` if that is not known any more.
    pub(crate) fn provider_of_pin(&self, pin: Pin) -> Option<usize> {
        self.deployments.get(pin.deployment).map(|deployment| deployment.provider)
    }

    /// Whether a request has a usable credential at a provider, where it may use only one or any; else the soonest that it
    /// has.
    #[inline]
    pub(crate) fn credential_for(&self, provider: usize, facts: &Facts, now: Now) -> Result<(), Option<Now>> {
        let Some(credential) = facts.pinned.and_then(|pin| pin.credential) else {
            return self.usable_credential(provider, facts.lane, tokens_of(facts), now);
        };
        let known = self.credentials.get(credential).filter(|known| known.serves(facts.lane));
        known.map_or(Err(None), |known| known.left(tokens_of(facts), now).map(drop))
    }
}
