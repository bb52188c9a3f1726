//! Picks the eligible deployments in turn, whatever their load.
//!
//! The start is drawn at random, so that several routers do not march in step. A deployment that is not eligible is
//! passed over and keeps its place. Blind to size and speed: with replicas of unequal speed prefer `least_busy`. O(n).

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Reads, Strategy, View};
use crate::decision::Why;
use crate::facts::Facts;
use crate::ids::DeploymentId;
use crate::rng::Rng;

/// Options of `round_robin`: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// The definition.
pub const DEF: Def = Def::of::<RoundRobin>(
    "round_robin",
    &["tiered"],
    "In turn, from a random start. `tiered` is understood as this within each tier; tiers exist around every strategy.",
);

/// Picks in turn.
#[derive(Debug, Clone)]
pub struct RoundRobin {
    start: u64,
    last: Option<DeploymentId>,
}

impl FromParams for RoundRobin {
    type Params = Params;
    const READS: Reads = Reads::NOTHING;

    fn from_params(_: Params, rng: &mut Rng) -> Self {
        Self { start: rng.next_u64(), last: None }
    }
}

impl Strategy for RoundRobin {
    fn pick(&mut self, _: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
        let position = match self.last {
            None => (self.start % eligible.len() as u64) as usize,
            // Handles grow in configured order, so "the next" is the same whoever is eligible.
            Some(last) => eligible.iter().position(|view| view.id > last).unwrap_or(0),
        };
        self.last = Some(eligible[position].id);
        Pick { position, why: Why::NextInTurn }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counts, facts, pick, views};
    use super::*;

    #[test]
    fn each_gets_its_turn() {
        let all = views(&["", "", ""]);
        let mut strategy = RoundRobin::from_params(Params {}, &mut Rng::seeded(1));
        assert_eq!(counts(&mut strategy, &all, 300), [100, 100, 100]);
    }

    #[test]
    fn the_start_differs_between_routers() {
        let all = views(&["", "", ""]);
        let starts: std::collections::BTreeSet<usize> = (0..20)
            .map(|seed| {
                let mut rng = Rng::seeded(seed);
                let mut strategy = RoundRobin::from_params(Params {}, &mut rng);
                pick(&mut strategy, &mut rng, &all, &facts()).position
            })
            .collect();
        assert_eq!(starts.len(), 3);
    }

    #[test]
    fn one_that_comes_and_goes_does_not_disturb_the_others() {
        let all = views(&["", "", "", ""]);
        let mut rng = Rng::seeded(1);
        let mut strategy = RoundRobin::from_params(Params {}, &mut rng);
        let mut counts = [0_i32; 4];
        for round in 0..400 {
            let eligible: Vec<View> =
                all.iter().copied().filter(|v| v.id.index != 1 || round % 2 == 0).collect();
            let picked = pick(&mut strategy, &mut rng, &eligible, &facts()).position;
            counts[eligible[picked].id.index as usize] += 1;
        }
        assert!((counts[0] - counts[3]).abs() < 60, "{counts:?}");
    }
}
