//! From a request of the workload to what a router knows of it.

use std::sync::Arc;

use pointsman_routing::catalog::{Capabilities, Name};
use pointsman_routing::facts::{Objective as Wish, PrefixBlock};
use pointsman_routing::{Facts, Fleet, ModelId};

use super::setup::Setup;
use crate::workload::{Ask, Workload, mix};

/// Models of the workload as the fleets know them.
pub(super) struct Models {
    /// By place in the workload.
    ids: Vec<ModelId>,
    pub(super) names: Vec<Name>,
}

impl Models {
    /// Nothing if the model that is asked for does not exist.
    pub(super) fn new(setup: &Setup<'_>, fleet: &Fleet) -> Option<Self> {
        let usual = fleet.model(setup.model)?;
        let found = |name: &Name| fleet.model(name).map(|id| (id, name.clone()));
        let all = setup.workload.models.iter().map(|name| found(name).unwrap_or((usual, setup.model.into())));
        let (ids, names) = all.unzip();
        Some(Self { ids, names })
    }

    /// What a router knows of a request: not how long its answer will be.
    pub(super) fn facts(&self, workload: &Workload, ask: &Ask) -> Facts {
        let prefix: Vec<PrefixBlock> =
            workload.blocks(ask).map(|(tokens, hash)| PrefixBlock { tokens, hash }).collect();
        facts_of(self.ids[ask.model as usize], workload, ask, prefix.into())
    }
}

/// The facts of a request for a model, with a prompt that begins so.
pub(crate) fn facts_of(model: ModelId, workload: &Workload, ask: &Ask, prefix: Arc<[PrefixBlock]>) -> Facts {
    let tenant_hash = mix(u64::from(ask.tenant) + 1);
    Facts {
        model,
        version: None,
        needs: Capabilities::CHAT,
        tokens_in_estimate: ask.tokens_in,
        tokens_in_min: ask.tokens_in,
        tokens_out_max: None,
        stream: true,
        lane: ask.lane,
        tenant: workload.tenants[ask.tenant as usize].clone(),
        tenant_hash,
        session_hash: (ask.session != 0).then(|| mix(ask.session ^ tenant_hash)),
        user_hash: None,
        prefix_hash: prefix.get(1).map(|block| block.hash),
        prefix,
        class: ask.class,
        objective: Wish::default(),
        region: None,
        tags: Default::default(),
        deadline: None,
    }
}
