//! Which arm of an A/B or canary split a request is on.

use crate::catalog::{Name, SplitSpec, Sticky};
use crate::facts::Facts;
use crate::rng::{Rng, hash, rendezvous};

/// The arm of a request; `None` if every arm has weight 0.
///
/// Sticky choices are weighted rendezvous: a client stays on its arm, and when weights change only as many clients
/// move as the shares do. O(arms).
pub(crate) fn arm(split: &SplitSpec, facts: &Facts, rng: &mut Rng) -> Option<Name> {
    let key = match split.sticky {
        Sticky::Session => facts.session_hash.unwrap_or(facts.tenant_hash),
        Sticky::Tenant => facts.tenant_hash,
        Sticky::User => facts.user_hash.unwrap_or(facts.tenant_hash),
        Sticky::Request => rng.next_u64(),
    };
    let armed = split.arms.iter().filter(|(_, weight)| *weight > 0);
    let distances =
        armed.map(|(name, weight)| (name, rendezvous(key, hash(name.as_bytes()), f64::from(*weight))));
    distances.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(name, _)| Name::clone(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::facts;

    fn arm_of(weights: [u32; 2], session: u64) -> Option<Name> {
        let arms = vec![("stable".into(), weights[0]), ("canary".into(), weights[1])];
        let split = SplitSpec { sticky: Sticky::Session, arms };
        let facts = Facts { session_hash: Some(crate::rng::mix(session)), ..facts() };
        arm(&split, &facts, &mut Rng::seeded(1))
    }

    #[test]
    fn shares_follow_weights_and_clients_stay() {
        let canary =
            |weights| (0..10_000).filter(|s| arm_of(weights, *s).as_deref() == Some("canary")).count();
        assert!((420..580).contains(&canary([95, 5])), "{}", canary([95, 5]));
        assert_eq!(canary([1, 0]), 0);
        assert_eq!(arm_of([0, 0], 1), None);
        let back = (0..10_000).filter(|s| {
            arm_of([95, 5], *s).as_deref() == Some("canary")
                && arm_of([90, 10], *s).as_deref() == Some("stable")
        });
        assert_eq!(back.count(), 0, "raising the canary's weight moves nobody away from it");
    }
}
