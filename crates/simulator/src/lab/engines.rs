//! The engines of a world: which deployment is which, and which could have done the work of which others.

use std::collections::BTreeMap;

use pointsman_routing::catalog::{Catalog, Name};
use pointsman_routing::{DeploymentId, Fleet};

use super::setup::Engines;
use crate::engine::Engine;

/// One engine of the world.
pub(super) struct Place {
    pub(super) engine: Engine,
    pub(super) name: Name,
    /// It says nothing of itself.
    pub(super) silent: bool,
    /// Those that serve the same models, directly or through others, are of one group.
    pub(super) group: u32,
    /// The moment that is in the heap for it; `u64::MAX`: none.
    pub(super) scheduled_ns: u64,
    /// Tokens, in and out, of all that it was sent and has not finished.
    pub(super) tokens: u64,
    /// Tokens it was given to do, over the run.
    pub(super) work: u64,
    pub(super) requests: u64,
}

/// All engines of the world.
#[derive(Default)]
pub(super) struct Places {
    pub(super) all: Vec<Place>,
    /// By the names of the model and the deployment; one that is gone keeps its place for when it comes back.
    by_name: BTreeMap<(Name, Name), u32>,
    /// By the provider, and which of its engines it is.
    known: BTreeMap<(Name, usize), u32>,
    /// The group of a model, by its name.
    pub(super) groups: BTreeMap<Name, u32>,
}

impl Places {
    /// One for every deployment, but one for the deployments of several models at one provider.
    pub(super) fn new<'c>(catalogs: impl Iterator<Item = &'c Catalog>, engines: &Engines) -> Self {
        let mut places = Self::default();
        catalogs.for_each(|catalog| places.add(catalog, engines));
        places
    }

    fn add(&mut self, catalog: &Catalog, engines: &Engines) {
        let places = self;
        for (group, (name, model)) in catalog.models.iter().enumerate() {
            places.groups.entry(name.clone()).or_insert(group as u32);
            let mut of_provider: BTreeMap<&Name, usize> = BTreeMap::new();
            for deployment in &model.deployments {
                let count = of_provider.entry(&deployment.provider).or_default();
                let key = (deployment.provider.clone(), *count);
                *count += 1;
                let named = (name.clone(), deployment.name.clone());
                if places.by_name.contains_key(&named) {
                    continue;
                }
                let group = places.groups[name];
                let place = *places.known.entry(key).or_insert_with(|| {
                    let kind = engines.of(&deployment.name, &deployment.provider);
                    places.all.push(Place {
                        engine: Engine::new(kind.clone()),
                        name: deployment.name.clone(),
                        silent: engines.silent.contains(&*deployment.provider),
                        group,
                        scheduled_ns: u64::MAX,
                        tokens: 0,
                        work: 0,
                        requests: 0,
                    });
                    (places.all.len() - 1) as u32
                });
                places.join(places.all[place as usize].group, group);
                places.by_name.insert(named, place);
            }
        }
    }

    /// Where the deployments are that a fleet has.
    pub(super) fn of(&self, fleet: &Fleet) -> BTreeMap<DeploymentId, u32> {
        let id = |(model, name): &(Name, Name)| fleet.deployment(fleet.model(model)?, name);
        self.by_name.iter().filter_map(|(named, place)| Some((id(named)?, *place))).collect()
    }

    /// Two groups are one.
    fn join(&mut self, one: u32, other: u32) {
        let (to, from) = (one.min(other), one.max(other));
        if to != from {
            self.all.iter_mut().filter(|place| place.group == from).for_each(|place| place.group = to);
            self.groups.values_mut().filter(|group| **group == from).for_each(|group| *group = to);
        }
    }
}
