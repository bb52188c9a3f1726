//! What is known of one credential: what it may still use, and whether the provider takes it.

use std::time::Duration;

use super::allowed::Allowed;
use crate::catalog::CredentialSpec;
use crate::facts::Lane;
use crate::limits::{COOLING_MAX, COOLING_MIN, QUOTA_WINDOW, RETRY_AFTER_MAX};
use crate::time::Now;

/// One key of a provider, live.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    pub(crate) spec: CredentialSpec,
    pub(crate) state: CredentialState,
    window_began: Now,
    requests_used: u64,
    tokens_used: u64,
    /// What its provider says is left.
    pub(super) allowed: Allowed,
    /// How often it was told to wait without a success in between.
    cooled: u32,
    /// What it has gained in the smooth weighted turn.
    gained: f64,
    pub(crate) requests: u64,
    pub(crate) failures: u64,
}

/// Whether the provider takes a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CredentialState {
    /// As far as is known.
    Live,
    /// Not before then.
    Cooling { until: Now },
    /// It was refused; somebody has to look.
    Dead,
}

impl Credential {
    pub(crate) fn new(spec: CredentialSpec) -> Self {
        Self {
            spec,
            state: CredentialState::Live,
            window_began: Now::ZERO,
            requests_used: 0,
            tokens_used: 0,
            allowed: Allowed::default(),
            cooled: 0,
            gained: 0.0,
            requests: 0,
            failures: 0,
        }
    }

    /// Takes a new configuration; a new secret gets a new chance.
    pub(crate) fn apply(&mut self, spec: &CredentialSpec) {
        if spec.revision != self.spec.revision {
            self.restore();
        }
        self.spec = spec.clone();
    }

    /// Whether requests of this lane may use it.
    pub(crate) fn serves(&self, lane: Lane) -> bool {
        self.spec.lane.is_none_or(|kept_for| kept_for == lane)
    }

    pub(crate) fn restore(&mut self) {
        self.state = CredentialState::Live;
        self.allowed = Allowed::default();
        self.cooled = 0;
    }

    /// What is left of its quota, from 0 to 1; `Err` with the moment it is usable again, if it is by itself.
    pub(crate) fn left(&self, tokens: u64, now: Now) -> Result<f64, Option<Now>> {
        match self.state {
            CredentialState::Dead => return Err(None),
            CredentialState::Cooling { until } if now < until => return Err(Some(until)),
            CredentialState::Cooling { .. } | CredentialState::Live => {}
        }
        let allowed = self.allowed.share(now).map_err(Some)?;
        let (requests_used, tokens_used) = self.used(now);
        let fraction = |used: u64, limit: Option<u32>| {
            limit.map_or(1.0, |limit| 1.0 - used as f64 / f64::from(limit.max(1)))
        };
        let own = fraction(requests_used, self.spec.rpm).min(fraction(tokens_used, self.spec.tpm));
        let left = own.min(allowed);
        let fits = self
            .spec
            .tpm
            .is_none_or(|tpm| tokens_used == 0 || tokens_used.saturating_add(tokens) <= u64::from(tpm));
        if left > 0.0 && fits { Ok(left) } else { Err(Some(self.window_began + QUOTA_WINDOW)) }
    }

    /// Reserves one request of this many tokens.
    pub(crate) fn reserve(&mut self, tokens: u64, now: Now) {
        if self.window_is_over(now) {
            self.window_began = now;
            (self.requests_used, self.tokens_used) = (0, 0);
        }
        self.requests_used += 1;
        self.allowed.sent();
        self.tokens_used = self.tokens_used.saturating_add(tokens);
        self.requests += 1;
    }

    /// Corrects a reservation to what was used, unless its window is over.
    pub(crate) fn settle(&mut self, reserved: u64, used: u64, reserved_at: Now) {
        if reserved_at >= self.window_began {
            self.tokens_used = self.tokens_used.saturating_add(used).saturating_sub(reserved);
        }
    }

    /// Takes a reservation back: nothing was sent.
    pub(crate) fn give_back(&mut self, reserved: u64, reserved_at: Now) {
        if reserved_at >= self.window_began {
            self.requests_used = self.requests_used.saturating_sub(1);
        }
        self.requests = self.requests.saturating_sub(1);
        self.allowed.not_sent();
        self.settle(reserved, 0, reserved_at);
    }

    pub(crate) fn succeeded(&mut self) {
        self.cooled = 0;
    }

    pub(crate) fn refused(&mut self) {
        self.failures += 1;
        self.state = CredentialState::Dead;
    }

    /// The provider wants it to wait: until when. A wait that is running is extended, never shortened.
    pub(crate) fn cool(&mut self, retry_after: Option<Duration>, now: Now) -> Now {
        self.failures += 1;
        let doubled = COOLING_MIN.saturating_mul(1 << self.cooled.min(16)).min(COOLING_MAX);
        self.cooled = self.cooled.saturating_add(1);
        let until = now + retry_after.unwrap_or(doubled).min(RETRY_AFTER_MAX);
        self.cool_until(until);
        until
    }

    /// The same for one that shares the quota of another that was told so.
    pub(crate) fn cool_until(&mut self, until: Now) {
        match &mut self.state {
            CredentialState::Dead => {}
            CredentialState::Cooling { until: running } => *running = until.max(*running),
            CredentialState::Live => self.state = CredentialState::Cooling { until },
        }
    }

    pub(crate) fn used(&self, now: Now) -> (u64, u64) {
        if self.window_is_over(now) { (0, 0) } else { (self.requests_used, self.tokens_used) }
    }

    fn window_is_over(&self, now: Now) -> bool {
        now - self.window_began >= QUOTA_WINDOW
    }
}

/// A turn among credentials, by what is left of each (smooth weighted round robin): every one is offered once, and the
/// winner pays. Takes no reservation.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    total: f64,
    best: Option<(usize, f64)>,
    soonest: Option<Now>,
}

impl Turn {
    pub(crate) fn offer(&mut self, position: usize, credential: &mut Credential, tokens: u64, now: Now) {
        match credential.left(tokens, now) {
            Err(until) => self.soonest = earlier(self.soonest, until),
            Ok(left) => {
                credential.gained += left;
                self.total += left;
                if self.best.is_none_or(|(_, gained)| credential.gained > gained) {
                    self.best = Some((position, credential.gained));
                }
            }
        }
    }

    /// The position of the winner, or the soonest that one is usable again.
    pub(crate) fn winner(&self) -> Result<usize, Option<Now>> {
        self.best.map(|(position, _)| position).ok_or(self.soonest)
    }

    /// The winner pays what all gained.
    pub(crate) fn pay(&self, winner: &mut Credential) {
        winner.gained -= self.total;
    }
}

/// The earlier of two moments, where `None` is no moment at all.
pub(crate) fn earlier(a: Option<Now>, b: Option<Now>) -> Option<Now> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(rpm: Option<u32>, tpm: Option<u32>) -> Credential {
        Credential::new(CredentialSpec {
            name: "k".into(),
            rpm,
            tpm,
            lane: None,
            quota_domain: None,
            revision: 0,
        })
    }

    fn turn(credentials: &mut [Credential], now: Now) -> Result<usize, Option<Now>> {
        let mut turn = Turn::default();
        for (position, credential) in credentials.iter_mut().enumerate() {
            turn.offer(position, credential, 10, now);
        }
        turn.winner().inspect(|position| turn.pay(&mut credentials[*position]))
    }

    fn turns(credentials: &mut [Credential], times: usize, now: Now) -> Vec<usize> {
        let mut counts = vec![0; credentials.len()];
        for _ in 0..times {
            let Ok(position) = turn(credentials, now) else { continue };
            credentials[position].reserve(10, now);
            counts[position] += 1;
        }
        counts
    }

    #[test]
    fn they_take_turns_and_stop_at_their_limits() {
        let now = Now::from_millis(100_000);
        assert_eq!(turns(&mut [credential(None, None), credential(None, None)], 10, now), [5, 5]);
        let mut limited = [credential(Some(3), None), credential(None, Some(50))];
        assert_eq!(turns(&mut limited, 20, now), [3, 5]);
        assert_eq!(turn(&mut limited, now), Err(Some(now + QUOTA_WINDOW)));
        assert_eq!(turns(&mut limited, 2, now + QUOTA_WINDOW), [1, 1], "the window turns");
    }

    #[test]
    fn what_is_left_weighs() {
        let now = Now::from_millis(100_000);
        let counts = turns(&mut [credential(Some(100), None), credential(Some(10), None)], 60, now);
        assert!(counts[0] > 2 * counts[1] && counts[1] > 0, "{counts:?}");
    }

    #[test]
    fn e13_a_longer_wait_extends_and_a_shorter_does_not() {
        let mut one = credential(None, None);
        let until = |one: &Credential| one.left(1, Now::ZERO).unwrap_err();
        one.cool(Some(Duration::from_secs(10)), Now::ZERO);
        one.cool(Some(Duration::from_secs(2)), Now::ZERO);
        assert_eq!(until(&one), Some(Now::from_millis(10_000)));
        one.cool(Some(Duration::from_secs(9_999)), Now::ZERO);
        assert_eq!(until(&one), Some(Now::ZERO + RETRY_AFTER_MAX));
    }

    #[test]
    fn a_dead_one_stays_dead_until_its_secret_changes() {
        let mut one = credential(None, None);
        one.refused();
        one.cool(None, Now::ZERO);
        assert_eq!(one.left(1, Now::from_millis(1_000_000)), Err(None));
        one.apply(&CredentialSpec { revision: 0, ..one.spec.clone() });
        assert_eq!(one.left(1, Now::ZERO), Err(None));
        one.apply(&CredentialSpec { revision: 1, ..one.spec.clone() });
        assert!(one.left(1, Now::ZERO).is_ok());
    }

    #[test]
    fn c7_absurd_usage_uses_the_quota_up_and_does_not_wrap() {
        let (mut one, now) = (credential(None, Some(1000)), Now::from_millis(100_000));
        for _ in 0..3 {
            one.reserve(10, now);
            one.settle(10, u64::MAX, now);
            assert!(one.left(10, now).is_err());
        }
    }

    #[test]
    fn settling_corrects_the_reservation() {
        let (mut one, now) = (credential(None, Some(100)), Now::from_millis(100_000));
        one.reserve(90, now);
        assert!(one.left(50, now).is_err());
        one.settle(90, 20, now);
        assert!(one.left(50, now).is_ok());
    }
}
