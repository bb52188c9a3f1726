//! What providers say is left of a credential's limits, and until when that holds.
//!
//! A limit of which nothing is left closes the credential until the provider says there is some again, or until its reset.
//! Of a limit that is not used up only the share counts: credentials take turns by it. Requests sent since are taken off;
//! tokens are not, for what a request will use is a guess, and the next answer tells.

use super::credential::Credential;
use super::{Fleet, Permit};
use crate::catalog::Name;
use crate::facts::Lane;
use crate::limits::{COOLING_MIN, RETRY_AFTER_MAX};
use crate::said::{Allowance, Allowances};
use crate::time::Now;

/// What is left of one limit.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Left {
    /// How much there may be in its window.
    pub(crate) limit: Option<u64>,
    /// How much was left, less what was sent since.
    pub(crate) remaining: u64,
    /// Until when that holds; then nothing is known.
    pub(crate) until: Now,
}

/// What is left of each limit, as its provider says.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Allowed {
    requests: Left,
    tokens: Left,
    tokens_in: Left,
    tokens_out: Left,
    /// After this nothing is known of any.
    until: Now,
}

impl Left {
    fn take(&mut self, said: Allowance, now: Now) {
        let Some(remaining) = said.remaining.filter(|_| said.limit != Some(0)) else { return };
        // Where no reset is said, as after a refusal that does not say how long.
        let holds = said.resets_in.unwrap_or(COOLING_MIN).min(RETRY_AFTER_MAX);
        *self = Self { limit: said.limit, remaining, until: now + holds };
    }

    /// The share that is left; `Err` with its reset when it is used up.
    fn share(&self, now: Now) -> Result<f64, Now> {
        match (now < self.until, self.remaining, self.limit) {
            (false, ..) | (true, 1.., None) => Ok(1.0),
            (true, 0, _) => Err(self.until),
            (true, remaining, Some(limit)) => Ok((remaining as f64 / limit.max(1) as f64).min(1.0)),
        }
    }
}

impl Allowed {
    /// Takes in what an answer says.
    pub(crate) fn take(&mut self, said: &Allowances, now: Now) {
        self.requests.take(said.requests, now);
        self.tokens.take(said.tokens, now);
        self.tokens_in.take(said.tokens_in, now);
        self.tokens_out.take(said.tokens_out, now);
        self.until = self.named().iter().map(|(_, left)| left.until).max().unwrap_or_default();
    }

    /// A request is sent.
    pub(crate) const fn sent(&mut self) {
        self.requests.remaining = self.requests.remaining.saturating_sub(1);
    }

    /// It was not sent after all.
    pub(crate) const fn not_sent(&mut self) {
        self.requests.remaining = self.requests.remaining.saturating_add(1);
    }

    /// The smallest share that is left, from 0 to 1; `Err` with the moment at which none is used up any more.
    pub(crate) fn share(&self, now: Now) -> Result<f64, Now> {
        if now >= self.until {
            return Ok(1.0);
        }
        let mut least = Ok(1.0_f64);
        for (_, left) in self.named() {
            least = match (least, left.share(now)) {
                (Ok(one), Ok(other)) => Ok(one.min(other)),
                (Err(one), Err(other)) => Err(one.max(other)),
                (Err(until), Ok(_)) | (Ok(_), Err(until)) => Err(until),
            };
        }
        least
    }

    /// Each limit with its name.
    pub(crate) const fn named(&self) -> [(&'static str, Left); 4] {
        [
            ("requests", self.requests),
            ("tokens", self.tokens),
            ("tokens_in", self.tokens_in),
            ("tokens_out", self.tokens_out),
        ]
    }
}

impl Fleet {
    /// A provider says which model it was that answered.
    pub(crate) fn note_model(&mut self, permit: &Permit, model: &Name) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        if deployment.model_said.as_ref() != Some(model) {
            deployment.model_said = Some(Name::clone(model));
        }
    }

    /// A provider says what is left. It speaks of the quota that a refusal would be about: that of the deployment's domain
    /// if it names one, else of the credential and those that share its domain, else of the deployment.
    pub(crate) fn note_allowances(&mut self, permit: &Permit, said: &Allowances, now: Now) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        let of_deployment = deployment.spec.quota_domain.clone();
        if of_deployment.is_some() || permit.credential.is_none() {
            let mut told = Allowed::default();
            told.take(said, now);
            if let Err(until) = told.share(now) {
                deployment.cool(Lane::Live, until);
                self.cool_domain(of_deployment.as_ref(), until);
            }
            return;
        }
        let Some(credential) = permit.credential.and_then(|id| self.credentials.get_mut(id)) else { return };
        // What another secret was told says nothing about this one.
        if credential.spec.revision != permit.revision {
            return;
        }
        credential.allowed.take(said, now);
        let Some(domain) = credential.spec.quota_domain.clone() else { return };
        let shares = |one: &&mut Credential| one.spec.quota_domain.as_ref() == Some(&domain);
        for other in self.credentials.values_mut().filter(shares) {
            other.allowed.take(said, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const fn said(limit: u64, remaining: u64, resets_in_ms: u64) -> Allowance {
        Allowance {
            limit: Some(limit),
            remaining: Some(remaining),
            resets_in: Some(Duration::from_millis(resets_in_ms)),
        }
    }

    fn share(allowances: Allowances, sent: u64, at_ms: u64) -> Result<f64, Now> {
        let mut allowed = Allowed::default();
        allowed.take(&allowances, Now::from_millis(1_000));
        (0..sent).for_each(|_| allowed.sent());
        allowed.share(Now::from_millis(at_ms))
    }

    #[test]
    fn what_is_used_up_is_closed_until_its_reset_and_no_longer() {
        let requests = |one| Allowances { requests: one, ..Allowances::default() };
        let at = |ms| Err(Now::from_millis(ms));
        for (allowances, sent, at_ms, expected) in [
            (requests(said(10, 0, 500)), 0, 1_000, at(1_500)),
            (requests(said(10, 0, 500)), 0, 1_499, at(1_500)),
            (requests(said(10, 0, 500)), 0, 1_500, Ok(1.0)),
            (requests(said(10, 5, 500)), 0, 1_100, Ok(0.5)),
            (requests(said(10, 2, 500)), 1, 1_100, Ok(0.1)),
            (requests(said(10, 2, 500)), 2, 1_100, at(1_500)),
            (requests(said(10, 2, 500)), 9, 1_600, Ok(1.0)),
            (requests(said(0, 0, 500)), 0, 1_100, Ok(1.0)),
            (requests(Allowance { remaining: Some(0), ..Allowance::default() }), 0, 1_100, at(2_000)),
            (requests(Allowance { limit: Some(9), ..Allowance::default() }), 0, 1_100, Ok(1.0)),
            (requests(said(1, 0, 99_000_000)), 0, 1_100, Err(Now::from_millis(1_000) + RETRY_AFTER_MAX)),
            (Allowances { tokens: said(100, 0, 300), ..requests(said(10, 0, 500)) }, 0, 1_100, at(1_500)),
            (Allowances { tokens_in: said(100, 0, 300), ..requests(said(10, 5, 500)) }, 0, 1_100, at(1_300)),
            (Allowances { tokens_out: said(100, 20, 300), ..Allowances::default() }, 99, 1_100, Ok(0.2)),
        ] {
            assert_eq!(share(allowances, sent, at_ms), expected, "{allowances:?} {sent} {at_ms}");
        }
    }

    #[test]
    fn the_next_answer_knows_better() {
        let mut allowed = Allowed::default();
        let now = Now::from_millis(1_000);
        let of = |one| Allowances { requests: one, ..Allowances::default() };
        allowed.take(&of(said(10, 0, 60_000)), now);
        assert!(allowed.share(now).is_err());
        allowed.take(&of(said(10, 1, 60_000)), now);
        assert_eq!(allowed.share(now), Ok(0.1));
        allowed.take(&Allowances::default(), now);
        assert_eq!(allowed.share(now), Ok(0.1), "one that says nothing changes nothing");
        allowed.sent();
        assert!(allowed.share(now).is_err());
        allowed.not_sent();
        assert!(allowed.share(now).is_ok());
    }
}
