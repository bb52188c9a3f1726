//! Draws an eligible deployment at random, by weight. Knows nothing and herds never. O(n).

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Def, FromParams, Pick, Reads, Strategy, View};
use crate::decision::Why;
use crate::facts::Facts;
use crate::rng::Rng;

/// Options of `random`: none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {}

/// The definition.
pub const DEF: Def = Def::of::<Random>("random", &[], "At random, by `weight`.");

/// Picks at random.
#[derive(Debug, Clone)]
pub struct Random;

impl FromParams for Random {
    type Params = Params;
    const READS: Reads = Reads::NOTHING;

    fn from_params(_: Params, _: &mut Rng) -> Self {
        Self
    }
}

impl Strategy for Random {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
        let position = cx.draw(eligible);
        Pick { position, why: Why::Drawn { weight: eligible[position].weight } }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{counts, views};
    use super::*;

    #[test]
    fn draws_follow_weights() {
        let picked = counts(&mut Random, &views(&["weight=3", "weight=1", "weight=0"]), 8000);
        assert!((5_800..6_200).contains(&picked[0]), "{picked:?}");
        assert_eq!(picked[2], 0);
    }
}
