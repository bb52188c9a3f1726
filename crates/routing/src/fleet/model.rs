//! A model, live: its tiers with their strategies, its queue and budgets.

use std::collections::BTreeMap;

use super::{Queue, discipline};
use crate::budget::RetryBudget;
use crate::catalog::{ModelSpec, Name};
use crate::figures::Meter;
use crate::hedge::HedgeBudget;
use crate::homes::Homes;
use crate::ids::DeploymentId;
use crate::outputs::Outputs;
use crate::predict::Shared;
use crate::prefix::PrefixIndex;
use crate::rng::Rng;
use crate::sticky::Sessions;
use crate::strategy::{Strategy, StrategySpec};

/// A model, live.
pub(crate) struct Model {
    pub(crate) name: Name,
    pub(crate) spec: ModelSpec,
    /// In configured order.
    pub(crate) deployments: Vec<DeploymentId>,
    pub(crate) tiers: BTreeMap<u32, Tier>,
    pub(crate) queue: Queue,
    pub(crate) turnover: discipline::Turnover,
    pub(crate) outputs: Outputs,
    pub(crate) sessions: Sessions,
    /// Whether somebody waits while a slot is free.
    pub(crate) idle_while_queued: Meter,
    /// The share of keys that the latest change of its deployments moved.
    pub(crate) remap_share: Option<f64>,
    pub(crate) budget: RetryBudget,
    pub(crate) hedges: HedgeBudget,
}

/// A tier's strategy, live.
pub(crate) struct Tier {
    pub(crate) spec: StrategySpec,
    pub(crate) strategy: Box<dyn Strategy>,
    pub(crate) prefixes: PrefixIndex,
    pub(crate) shared: Shared,
    pub(crate) homes: Homes,
}

impl Clone for Tier {
    fn clone(&self) -> Self {
        Self {
            spec: self.spec.clone(),
            strategy: self.strategy.clone_box(),
            prefixes: self.prefixes.clone(),
            shared: self.shared,
            homes: self.homes,
        }
    }
}

impl Clone for Model {
    fn clone(&self) -> Self {
        Self {
            name: Name::clone(&self.name),
            spec: self.spec.clone(),
            deployments: self.deployments.clone(),
            tiers: self.tiers.clone(),
            // Whoever asks "what if" does not wait, and must not be granted what others wait for.
            queue: Queue::default(),
            turnover: self.turnover,
            outputs: self.outputs.clone(),
            sessions: self.sessions.clone(),
            idle_while_queued: self.idle_while_queued,
            remap_share: self.remap_share,
            budget: self.budget.clone(),
            hedges: self.hedges,
        }
    }
}

impl Model {
    /// Gives every tier its strategy; one that is configured as before goes on where it was.
    pub(super) fn apply_tiers(&mut self) {
        let mut old = std::mem::take(&mut self.tiers);
        for deployment in &self.spec.deployments {
            let number = deployment.tier;
            if self.tiers.contains_key(&number) {
                continue;
            }
            let spec = self.spec.tier_strategies.get(&number).unwrap_or(&self.spec.strategy);
            let seed = crate::rng::hash(self.name.as_bytes()) ^ u64::from(number);
            let build = || spec.build(&mut Rng::seeded(seed));
            let tier = match old.remove(&number) {
                Some(tier) if tier.spec == *spec => tier,
                // What the engines have and how fast they are is the same under another strategy.
                Some(tier) => Tier { spec: spec.clone(), strategy: build(), ..tier },
                None => Tier {
                    spec: spec.clone(),
                    strategy: build(),
                    prefixes: PrefixIndex::default(),
                    shared: Shared::default(),
                    homes: Homes::default(),
                },
            };
            self.tiers.insert(number, tier);
        }
    }
}
