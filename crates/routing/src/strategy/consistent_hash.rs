//! Sends what has the same key to the same deployment, as long as that one is not loaded beyond its share.
//!
//! Weighted rendezvous hashing gives every key an order of preference over the deployments; shares follow the weights,
//! and a deployment that leaves moves its own keys only. A deployment is passed over while its tokens in flight would
//! exceed `bound` times its share of all tokens in flight (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with
//! Bounded Loads", 2018; tokens rather than requests, because requests hide how much work they are). A fifth of what the
//! bound allows is kept back, for what others finish until the next request comes. An idle deployment is never passed
//! over. Tokens at one that is proven to be slow count as so many times as many. O(n), no allocation.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Reads, Strategy, View};
use crate::decision::Why;
use crate::facts::Facts;
use crate::fleet::tokens_of;
use crate::rng::{Rng, rendezvous};

/// Options of `consistent_hash`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// What requests are kept together by. Default: `auto`.
    #[serde(default)]
    pub key: Key,
    /// How far above its share a deployment may be loaded before the next in order is used: 1.0 to 100. Default: 1.25.
    #[serde(default = "default_bound", deserialize_with = "bound")]
    #[schemars(range(min = 1.0, max = 100.0))]
    pub bound: f64,
}

/// What requests are kept together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The session if the request names one, else the prompt prefix, else the `user` field, else the tenant.
    #[default]
    Auto,
    /// The session (`x-pointsman-session`); without one, the tenant.
    Session,
    /// The tenant.
    Tenant,
    /// The `user` field; without one, the tenant.
    User,
    /// The first two or more blocks of the prompt; a shorter prompt goes by session, or else by tenant.
    Prefix,
}

pub(super) const fn default_bound() -> f64 {
    1.25
}

pub(super) fn bound<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let bound = f64::deserialize(deserializer)?;
    let fits = (1.0..=100.0).contains(&bound);
    fits.then_some(bound).ok_or_else(|| serde::de::Error::custom("`bound` must be from 1.0 to 100"))
}

/// Share of what the bound allows that is given away. Loads are compared when a request comes; what others finish until the
/// next one lowers their share, and who was at the bound would be beyond it half of the time.
const ALLOWED: f64 = 0.8;

/// The definition.
pub const DEF: Def = Def::of::<ConsistentHash>(
    "consistent_hash",
    &["hash"],
    "The same key to the same deployment (weighted rendezvous), unless that one is loaded beyond `bound`.",
);

/// Picks by key.
#[derive(Debug, Clone)]
pub struct ConsistentHash {
    params: Params,
}

impl FromParams for ConsistentHash {
    type Params = Params;
    const READS: Reads = Reads::NOTHING;

    fn from_params(params: Params, _: &mut Rng) -> Self {
        Self { params }
    }
}

impl ConsistentHash {
    fn key(&self, facts: &Facts) -> u64 {
        let found = match self.params.key {
            Key::Auto => facts.session_hash.or(facts.prefix_hash).or(facts.user_hash),
            Key::Session => facts.session_hash,
            Key::Tenant => None,
            Key::User => facts.user_hash,
            Key::Prefix => facts.prefix_hash.or(facts.session_hash),
        };
        found.unwrap_or(facts.tenant_hash)
    }
}

impl Strategy for ConsistentHash {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
        let key = self.key(facts);
        let own = tokens_of(facts);
        let all: u64 = own + eligible.iter().map(|view| view.tokens_inflight).sum::<u64>();
        let weights: f64 = eligible.iter().map(|view| f64::from(view.weight)).sum();
        let bound = 1.0 + (self.params.bound - 1.0) * ALLOWED;
        let share_of_one = bound * all as f64 / weights;
        let (mut best, mut best_score) = (None, f64::INFINITY);
        for (position, (view, place)) in eligible.iter().zip(&mut *cx.scores).enumerate() {
            let weight = f64::from(view.weight);
            let score = rendezvous(key, view.name_hash, weight);
            *place = score;
            // Signed, because that is one instruction to convert and this loop is the strategy.
            let tokens = view.tokens_inflight.saturating_add(own) as i64;
            let admissible = view.inflight == 0 || tokens as f64 * view.slow <= share_of_one * weight;
            if admissible && score < best_score {
                (best, best_score) = (Some(position), score);
            }
        }
        // All may be above their bound when shares are smaller than one request; then preference alone counts.
        let position = best.unwrap_or_else(|| {
            (0..eligible.len()).min_by(|a, b| cx.scores[*a].total_cmp(&cx.scores[*b])).unwrap_or(0)
        });
        let chosen = cx.scores[position];
        // These scores say who is preferred, not how loaded anybody is.
        cx.one_more = f64::INFINITY;
        let rank = cx.scores.iter().filter(|score| **score < chosen).count();
        Pick { position, why: Why::Hashed { rank: u32::try_from(rank).unwrap_or(u32::MAX) } }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{facts, pick, views};
    use super::*;

    fn by_session(session: u64) -> Facts {
        Facts { session_hash: Some(crate::rng::mix(session)), ..facts() }
    }

    fn place(views: &[View], session: u64) -> DeploymentIndex {
        let mut strategy = ConsistentHash { params: Params { key: Key::Session, bound: default_bound() } };
        views[pick(&mut strategy, &mut Rng::seeded(1), views, &by_session(session)).position].id.index
    }

    type DeploymentIndex = u32;

    #[test]
    fn f6_one_that_leaves_moves_its_own_keys_only() {
        let all = views(&[""; 8]);
        let left: Vec<View> = all.iter().copied().filter(|view| view.id.index != 3).collect();
        let moved = (0..20_000).filter(|session| place(&all, *session) != place(&left, *session)).count();
        let own = (0..20_000).filter(|session| place(&all, *session) == 3).count();
        assert_eq!(moved, own);
        assert!((2_300..2_700).contains(&own), "an eighth of the keys: {own}");
    }

    #[test]
    fn shares_follow_weights() {
        let all = views(&["weight=3", "weight=1"]);
        let first = (0..20_000).filter(|session| place(&all, *session) == 0).count();
        assert!((14_600..15_400).contains(&first), "{first}");
    }

    #[test]
    fn f6_a_hot_key_spills_to_its_next_choice() {
        let idle = views(&["", "", ""]);
        let home = place(&idle, 5);
        let mut loaded = idle.clone();
        loaded[home as usize].inflight = 9;
        loaded[home as usize].tokens_inflight = 10_000;
        let next = place(&loaded, 5);
        assert_ne!(next, home);
        let without: Vec<View> = idle.iter().copied().filter(|view| view.id.index != home).collect();
        assert_eq!(next, place(&without, 5), "deterministic: the second in the key's order");
    }

    #[test]
    fn one_that_is_slow_is_full_sooner() {
        let idle = views(&["", "", ""]);
        let home = place(&idle, 5) as usize;
        let mut loaded = idle.clone();
        for view in &mut loaded {
            (view.inflight, view.tokens_inflight) = (3, 3_000);
        }
        assert_eq!(place(&loaded, 5) as usize, home, "within its bound");
        loaded[home].slow = 2.0;
        assert_ne!(place(&loaded, 5) as usize, home, "as if it had twice as many tokens");
    }

    #[test]
    fn requests_without_the_key_still_have_one() {
        for key in [Key::Auto, Key::Session, Key::Tenant, Key::User, Key::Prefix] {
            let strategy = ConsistentHash { params: Params { key, bound: 1.25 } };
            assert_eq!(strategy.key(&facts()), facts().tenant_hash, "{key:?}");
        }
        let strategy = ConsistentHash { params: Params { key: Key::Auto, bound: 1.25 } };
        let known = Facts { prefix_hash: Some(2), user_hash: Some(3), ..facts() };
        assert_eq!(strategy.key(&known), 2);
    }
}
