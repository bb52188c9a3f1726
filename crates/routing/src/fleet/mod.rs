//! All that is known now of what exists: permits, breakers, latencies, quotas, queues.
//!
//! One fleet holds every model and provider, because credentials are shared between models. Its driver keeps it behind
//! one short lock.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::budget::RetryBudget;
use crate::catalog::{Catalog, ModelSpec, Name, TenantSpec};
use crate::decision::Rejection;
use crate::facts::Facts;
use crate::figures::Meter;
use crate::hedge::HedgeBudget;
use crate::ids::{Arrival, CredentialId, DeploymentId, ModelId, Ticket};
use crate::limits::TOKENS_OUT_ASSUMED;
use crate::outputs::Outputs;
use crate::pool::Pool;
use crate::rng::Rng;
use crate::slab::Slab;
use crate::sticky::Sessions;
use crate::strategy::{Reads, View};
use crate::time::Now;

mod account;
mod allowed;
mod claims;
pub(crate) mod credential;
pub(crate) mod deployment;
mod discipline;
mod drain;
mod engine;
mod event;
mod figures;
mod line;
mod model;
mod order;
mod pace;
mod permit;
pub(crate) mod pool;
mod pool_view;
mod preempt;
mod queue;
mod quota;
mod reserve;
mod serve;
pub(crate) mod underway;
mod view;
mod waiting;

pub use account::NoSoleAccount;
pub(crate) use credential::Credential;
pub(crate) use deployment::Deployment;
pub use engine::{CacheView, EngineSignals, EngineView, MissingSignal};
pub use event::Event;
pub use figures::{DeploymentFigures, ModelFigures};
pub(crate) use model::Model;
pub(crate) use permit::{Ended, Permit};
pub use pool_view::{PoolModelView, PoolView};
pub(crate) use queue::Queue;
pub(crate) use serve::Grant;
pub use view::{AllowanceView, CredentialView, DeploymentView, FleetView, ModelView, ProviderView};
pub use waiting::{ClassView, TenantView};

/// All that is known now of what exists.
#[derive(Clone, Default)]
pub struct Fleet {
    pub(crate) models: Slab<ModelId, Model>,
    model_ids: BTreeMap<Name, ModelId>,
    pub(crate) deployments: Slab<DeploymentId, Deployment>,
    pub(crate) credentials: Slab<CredentialId, Credential>,
    /// Providers are few and keep their place for the life of the fleet.
    pub(crate) providers: Vec<Provider>,
    /// As configured.
    pub(crate) tenants: BTreeMap<Name, TenantSpec>,
    pub(crate) told: BTreeMap<Ticket, Told>,
    /// Pools are few and keep their place for the life of the fleet.
    pub(crate) pools: Vec<Pool>,
    /// What is held for those who need many tokens.
    holds: Vec<pool::Hold>,
    /// Batch requests that may have to give their slot back.
    pub(crate) holders: BTreeMap<Ticket, preempt::Holder>,
    /// How many did.
    preempted: u64,
    woken: Vec<Ticket>,
    next_ticket: u64,
    arrivals: u64,
    /// Counts what may have made a credential usable again, so that those who wait for one are looked at.
    pub(crate) credential_changes: u64,
    /// Counts what made one unusable, so that those are looked at whom then somebody serves as the last resort.
    pub(crate) credential_failures: u64,
    pub(crate) evaluations: u64,
    /// Room for the strategies to work in, kept so that a decision allocates nothing but its record.
    pub(crate) scratch: Scratch,
}

/// Room for one decision to work in.
#[derive(Clone, Default)]
pub(crate) struct Scratch {
    pub(crate) eligible: Vec<View>,
    pub(crate) scores: Vec<f64>,
    /// The first and the last tier of those that are eligible.
    pub(crate) tiers: (u32, u32),
    /// The first whose probe is due, by its place among the candidates.
    pub(crate) probe: Option<usize>,
    /// Whether any is kept out because it failed.
    pub(crate) failed: bool,
}

impl Scratch {
    pub(crate) fn clear(&mut self) {
        self.eligible.clear();
        (self.tiers, self.probe, self.failed) = ((u32::MAX, 0), None, false);
    }

    /// One more is eligible.
    #[inline]
    pub(crate) fn admit(&mut self, view: View, tier: u32) {
        self.eligible.push(view);
        self.tiers = (self.tiers.0.min(tier), self.tiers.1.max(tier));
    }
}

/// What a waiter is told.
#[derive(Clone)]
pub(crate) enum Told {
    /// It cannot be served where it waited.
    AskAgain,
    /// A live request needs the slot that it has.
    TakenBack,
    /// It gave way to others that came, for this reason.
    PushedOut(Rejection),
    /// It has a slot.
    Granted(Box<Grant>),
}

/// What came of a wait.
pub(crate) enum Collected {
    /// Nothing yet.
    Waiting,
    /// This.
    Told(Told),
}

/// A provider, live.
#[derive(Clone)]
pub(crate) struct Provider {
    pub(crate) name: Name,
    pub(crate) credentials: Vec<CredentialId>,
}

/// Tokens that a request counts as while it is in flight: its prompt, and the output it asked for or the usual one.
pub(crate) fn tokens_of(facts: &Facts) -> u64 {
    u64::from(facts.tokens_in_estimate) + facts.tokens_out_max.map_or(TOKENS_OUT_ASSUMED, u64::from)
}

impl Provider {
    /// What is left of its quotas, from 0 to 1: of the credential with the most; all of it where there are none.
    pub(crate) fn quota_left(&self, credentials: &Slab<CredentialId, Credential>, now: Now) -> f64 {
        let left = self.credentials.iter().filter_map(|id| credentials.get(*id)?.left(0, now).ok());
        left.reduce(f64::max).unwrap_or(if self.credentials.is_empty() { 1.0 } else { 0.0 })
    }
}

impl Fleet {
    /// A fleet of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the fleet be what the catalog says. Whatever kept its name keeps its live state; what is gone stays until
    /// its last permit is released. Waiters are looked at again.
    pub fn apply(&mut self, catalog: &Catalog, now: Now) {
        self.apply_providers(catalog);
        self.tenants.clone_from(&catalog.tenants);
        let gone: Vec<Name> =
            self.model_ids.keys().filter(|name| !catalog.models.contains_key(*name)).cloned().collect();
        for name in gone {
            self.remove_model(&name);
        }
        for (name, spec) in &catalog.models {
            self.apply_model(name, spec, now);
        }
        self.apply_pools(catalog);
        let models: Vec<ModelId> = self.model_ids.values().copied().collect();
        // The strategies of waiters are asked with a generator that depends on the fleet alone.
        let mut rng = Rng::seeded(self.next_ticket);
        for model in models {
            self.serve_all(model, now, &mut rng);
        }
        self.serve_pools(now, &mut rng);
        debug_assert_eq!(crate::invariants::of_fleet(self), Ok(()));
    }

    /// Serves those who wait for what all models share. O(models), and rare.
    fn serve_models(&mut self, now: Now, rng: &mut Rng) {
        let models: Vec<ModelId> = self.model_ids.values().copied().collect();
        for model in models {
            self.serve_queue(model, now, rng);
        }
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<ModelId> {
        self.model_ids.get(name).copied()
    }

    /// The deployment of that name.
    pub fn deployment(&self, model: ModelId, name: &str) -> Option<DeploymentId> {
        let model = self.models.get(model)?;
        model
            .deployments
            .iter()
            .copied()
            .find(|id| self.deployment_name(*id).is_some_and(|known| &**known == name))
    }

    /// The deployments of its model that are at the same provider, it included.
    pub(crate) fn of_same_provider(&self, id: DeploymentId) -> impl Iterator<Item = DeploymentId> {
        let known = self.deployments.get(id);
        let model = known.and_then(|known| self.models.get(known.model));
        let peers = model.into_iter().flat_map(|model| model.deployments.iter().copied());
        let provider = known.map(|known| known.provider);
        peers.filter(move |peer| self.deployments.get(*peer).map(|peer| peer.provider) == provider)
    }

    /// The name of a deployment.
    pub fn deployment_name(&self, id: DeploymentId) -> Option<&Name> {
        self.deployments.get(id).map(|deployment| &deployment.spec.name)
    }

    /// The credential of that name.
    pub fn credential(&self, provider: &str, name: &str) -> Option<CredentialId> {
        let provider = self.providers.iter().find(|known| &*known.name == provider)?;
        let named =
            |id: &CredentialId| self.credentials.get(*id).is_some_and(|known| &*known.spec.name == name);
        provider.credentials.iter().copied().find(named)
    }

    /// Puts those into `out` that wait no more since the last call: they were granted a slot, or have to ask again.
    pub fn drain_woken(&mut self, out: &mut SmallVec<[Ticket; 4]>) {
        out.extend(self.woken.drain(..));
    }

    /// Requests that hold a slot, grants that nobody collected yet included. For the self-audit.
    pub fn permits_in_use(&self) -> u64 {
        self.deployments.values().map(|deployment| u64::from(deployment.inflight)).sum()
    }

    /// How often all deployments of a model were looked at, for newcomers and for those who wait. For the self-audit.
    pub fn evaluations(&self) -> u64 {
        self.evaluations
    }

    pub(crate) fn next_ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// A request comes for the first time.
    pub(crate) fn next_arrival(&mut self) -> Arrival {
        self.arrivals += 1;
        Arrival(self.arrivals)
    }

    pub(crate) fn wake(&mut self, ticket: Ticket, told: Told) {
        self.told.insert(ticket, told);
        self.woken.push(ticket);
    }

    /// What a waiter was told.
    pub(crate) fn collect(&mut self, ticket: Ticket) -> Collected {
        self.told.remove(&ticket).map_or(Collected::Waiting, Collected::Told)
    }

    fn apply_providers(&mut self, catalog: &Catalog) {
        for (name, spec) in &catalog.providers {
            let at = self.provider(name);
            let old = std::mem::take(&mut self.providers[at].credentials);
            let mut kept = Vec::with_capacity(spec.credentials.len());
            for spec in &spec.credentials {
                let known = old.iter().copied().find(|id| {
                    self.credentials.get(*id).is_some_and(|credential| credential.spec.name == spec.name)
                });
                let id = known.unwrap_or_else(|| self.credentials.insert(Credential::new(spec.clone())));
                if let Some(credential) = self.credentials.get_mut(id) {
                    credential.apply(spec);
                }
                kept.push(id);
            }
            for id in old.into_iter().filter(|id| !kept.contains(id)) {
                self.credentials.remove(id);
            }
            self.providers[at].credentials = kept;
        }
    }

    /// The place of a provider; a new one if it has none. Bounded by the names ever configured.
    fn provider(&mut self, name: &Name) -> usize {
        self.providers.iter().position(|known| known.name == *name).unwrap_or_else(|| {
            self.providers.push(Provider { name: Name::clone(name), credentials: Vec::new() });
            self.providers.len() - 1
        })
    }

    fn apply_model(&mut self, name: &Name, spec: &ModelSpec, now: Now) {
        let id = if let Some(id) = self.model_ids.get(name) {
            *id
        } else {
            let model = Model {
                name: Name::clone(name),
                spec: spec.clone(),
                deployments: Vec::new(),
                tiers: BTreeMap::new(),
                queue: Queue::default(),
                turnover: discipline::Turnover::default(),
                outputs: Outputs::default(),
                sessions: Sessions::default(),
                idle_while_queued: Meter::default(),
                remap_share: None,
                budget: RetryBudget::default(),
                hedges: HedgeBudget::default(),
            };
            let id = self.models.insert(model);
            self.model_ids.insert(Name::clone(name), id);
            id
        };
        let old = self.models.get(id).map(|model| model.deployments.clone()).unwrap_or_default();
        let mut kept = Vec::with_capacity(spec.deployments.len());
        for deployment in &spec.deployments {
            let provider = self.provider(&deployment.provider);
            // A deployment that moved to another provider is another deployment, whatever its name.
            let known = old.iter().copied().find(|id| {
                let known = self.deployments.get(*id);
                known.is_some_and(|known| known.spec.name == deployment.name && known.provider == provider)
            });
            let deployment_id = match known {
                Some(known) => known,
                None => {
                    let mut new = Deployment::new(deployment.clone(), id, provider);
                    if !old.is_empty() {
                        new.start_slowly(now);
                    }
                    self.deployments.insert(new)
                }
            };
            if self.deployments.get(deployment_id).is_some_and(|known| known.spec.tier != deployment.tier) {
                // What it has cached is remembered by tier.
                self.forget_cached(deployment_id, true);
            }
            if let Some(known) = self.deployments.get_mut(deployment_id) {
                known.apply(deployment);
                known.apply_batch(&spec.queue.batch);
                known.apply_drain(now);
            }
            kept.push(deployment_id);
        }
        for gone in old.into_iter().filter(|id| !kept.contains(id)) {
            self.remove_deployment(gone);
        }
        if let Some(model) = self.models.get_mut(id) {
            let before = std::mem::replace(&mut model.spec, spec.clone());
            model.note_members(&before.deployments);
            model.deployments = kept;
            model.apply_tiers();
            model.queue.shares.iter_mut().for_each(|shares| shares.apply(&self.tenants));
        }
    }

    fn remove_model(&mut self, name: &Name) {
        let Some(model) = self.model_ids.remove(name).and_then(|id| self.models.remove(id)) else { return };
        for deployment in model.deployments {
            self.remove_deployment(deployment);
        }
        for ticket in model.queue.into_tickets() {
            self.wake(ticket, Told::AskAgain);
        }
    }

    /// What the strategy of a tier reads beyond what is always known.
    pub(crate) fn reads(&self, model: ModelId, tier: u32) -> Reads {
        let tier = self.models.get(model).and_then(|model| model.tiers.get(&tier));
        tier.map_or(Reads::NOTHING, |tier| tier.spec.reads())
    }

    fn remove_deployment(&mut self, id: DeploymentId) {
        self.forget_cached(id, true);
        let Some(deployment) = self.deployments.get_mut(id) else { return };
        deployment.removed = true;
        if deployment.inflight == 0 {
            self.deployments.remove(id);
        }
    }
}
