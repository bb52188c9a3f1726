//! Picks in turn by weight, smoothly: with weights 2 and 1 the order is A B A, never A A B.
//!
//! Each pick, every eligible deployment gains its weight and the one with the most pays the sum (the smooth weighted
//! round robin of nginx). Over any window of as many picks as the weights add up to, shares are exact. What a
//! deployment has gained survives a change of weights and is bounded by the sum of them, so a change shifts traffic
//! without a burst. O(n).

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Reads, Strategy, View};
use crate::decision::Why;
use crate::facts::Facts;
use crate::ids::DeploymentId;
use crate::rng::Rng;

/// Options of `weighted_round_robin`: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// The definition.
pub const DEF: Def = Def::of::<WeightedRoundRobin>(
    "weighted_round_robin",
    &["weighted"],
    "In turn by `weight`, smoothly (A A B A …, never clumped); exact over a window.",
);

/// Picks in turn by weight.
#[derive(Debug, Clone, Default)]
pub struct WeightedRoundRobin {
    /// What each deployment has gained, by handle. Entries of those that left are dropped when they are noticed.
    gained: Vec<(DeploymentId, i64)>,
}

impl FromParams for WeightedRoundRobin {
    type Params = Params;
    const READS: Reads = Reads::NOTHING;

    fn from_params(_: Params, _: &mut Rng) -> Self {
        Self::default()
    }
}

impl WeightedRoundRobin {
    /// Where a deployment's gains are. `hint` is where they are while all deployments are eligible, which is the usual
    /// case and then saves the search.
    fn place(&mut self, id: DeploymentId, hint: usize) -> usize {
        if self.gained.get(hint).is_some_and(|(known, _)| *known == id) {
            return hint;
        }
        self.gained.binary_search_by_key(&id, |(known, _)| *known).unwrap_or_else(|at| {
            self.gained.insert(at, (id, 0));
            at
        })
    }
}

impl Strategy for WeightedRoundRobin {
    fn pick(&mut self, _: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
        let total: i64 = eligible.iter().map(|view| i64::from(view.weight)).sum();
        if self.gained.len() > 2 * eligible.len() + 64 {
            self.gained.retain(|(id, _)| eligible.iter().any(|view| view.id == *id));
        }
        let mut best = (0, i64::MIN);
        for (position, view) in eligible.iter().enumerate() {
            let place = self.place(view.id, position);
            let gained = &mut self.gained[place].1;
            *gained = (*gained + i64::from(view.weight)).clamp(-total, total);
            if *gained > best.1 {
                best = (position, *gained);
            }
        }
        let picked = &eligible[best.0];
        let place = self.place(picked.id, best.0);
        self.gained[place].1 -= total;
        Pick { position: best.0, why: Why::NextByWeight { weight: picked.weight } }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counts, facts, pick, views};
    use super::*;

    fn order(weights: &[&str], picks: usize) -> String {
        let (all, mut rng) = (views(weights), Rng::seeded(1));
        let mut strategy = WeightedRoundRobin::default();
        (0..picks)
            .map(|_| char::from(b'A' + pick(&mut strategy, &mut rng, &all, &facts()).position as u8))
            .collect()
    }

    #[test]
    fn it_is_smooth() {
        assert_eq!(order(&["weight=3", "weight=1"], 8), "AABAAABA");
        assert_eq!(order(&["weight=5", "weight=1", "weight=1"], 7), "AABACAA");
        assert_eq!(order(&["weight=1", "weight=1"], 4), "ABAB");
    }

    #[test]
    fn f7_extreme_weights_are_exact_over_a_window() {
        let all = views(&["weight=200", "weight=1"]);
        assert_eq!(counts(&mut WeightedRoundRobin::default(), &all, 201 * 5), [1000, 5]);
    }

    #[test]
    fn a_change_of_weights_makes_no_burst() {
        let (before, after) = (views(&["weight=100", "weight=1"]), views(&["weight=1", "weight=1"]));
        let (mut strategy, mut rng) = (WeightedRoundRobin::default(), Rng::seeded(1));
        for _ in 0..57 {
            pick(&mut strategy, &mut rng, &before, &facts());
        }
        let picks: Vec<usize> =
            (0..10).map(|_| pick(&mut strategy, &mut rng, &after, &facts()).position).collect();
        let longest = picks.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
        assert!(longest <= Some(3), "{picks:?}");
    }
}
