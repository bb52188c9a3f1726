//! From a request of the workload to what a router knows of it.

use std::sync::Arc;

use pointsman_routing::catalog::{Capabilities, Name};
use pointsman_routing::facts::{Objective as Wish, PrefixBlock};
use pointsman_routing::{Facts, Fleet, ModelId, Now};

use super::setup::Setup;
use crate::workload::{Ask, Details, Workload, mix};

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

    /// What a router knows of a request that arrives now: not how long its answer will be.
    pub(super) fn facts(&self, workload: &Workload, ask: &Ask, now: Now) -> Facts {
        let prefix: Vec<PrefixBlock> =
            workload.blocks(ask).map(|(tokens, hash)| PrefixBlock { tokens, hash }).collect();
        let facts = facts_of(self.ids[ask.model as usize], workload, ask, prefix.into());
        Facts { deadline: facts.deadline.map(|at| now + at.since(Now::ZERO)), ..facts }
    }

    /// The beginnings of a prompt as engines know them: an engine that serves several models keeps their caches apart,
    /// where hashes that are the router's own are the same for all.
    pub(super) fn engine_prefix(&self, workload: &Workload, ask: &Ask, facts: &Facts) -> Arc<[PrefixBlock]> {
        if self.ids.len() <= 2 || workload.details(ask).is_none() {
            return Arc::clone(&facts.prefix);
        }
        let salt = mix(u64::from(ask.model) + 1);
        facts.prefix.iter().map(|block| PrefixBlock { hash: mix(block.hash ^ salt), ..*block }).collect()
    }
}

/// The facts of a request for a model, with a prompt that begins so.
pub(crate) fn facts_of(model: ModelId, workload: &Workload, ask: &Ask, prefix: Arc<[PrefixBlock]>) -> Facts {
    if let Some(details) = workload.details(ask) {
        return exact(model, workload, (ask, details), prefix);
    }
    let tenant_hash = mix(u64::from(ask.tenant) + 1);
    Facts {
        pinned: None,
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

/// The facts as a router had them. Its deadline is the time it has, for arrival is at 0 here.
fn exact(
    model: ModelId,
    workload: &Workload,
    (ask, details): (&Ask, &Details),
    prefix: Arc<[PrefixBlock]>,
) -> Facts {
    Facts {
        model,
        version: details.version.clone(),
        needs: details.needs,
        tokens_in_estimate: details.tokens_in_estimate,
        tokens_in_min: details.tokens_in_min,
        tokens_out_max: details.tokens_out_max,
        stream: details.stream,
        lane: ask.lane,
        tenant: workload.tenants[ask.tenant as usize].clone(),
        tenant_hash: details.tenant_hash,
        session_hash: details.session_hash,
        user_hash: details.user_hash,
        prefix_hash: prefix.get(1).map(|block| block.hash),
        prefix,
        class: ask.class,
        objective: details.objective,
        region: details.region.clone(),
        pinned: None,
        tags: details.tags.iter().cloned().collect(),
        deadline: details.deadline.map(|span| Now::ZERO + span),
    }
}
