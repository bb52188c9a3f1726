//! What a run depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pointsman_routing::Catalog;
use pointsman_routing::predict::Mistake;
use pointsman_routing::strategy::{ALL, StrategySpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::engine::Kind;
use crate::workload::Workload;

/// What a run depends on, beside the strategy and the seed.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// What exists.
    pub catalog: &'a Catalog,
    /// The model that is asked for where the workload names none that exists.
    pub model: &'a str,
    /// What serves it.
    pub engines: &'a Engines,
    /// Who asks.
    pub workload: &'a Workload,
    /// Configurations that take effect during the run, and when, seconds; in order.
    pub reloads: &'a [(f64, Catalog)],
    /// When what routers know of engines' times becomes wrong, seconds, and how.
    pub mistaken: Option<(f64, Mistake)>,
    /// How many times as fast requests come as they are written down.
    pub rate: f64,
    /// Routers before the same engines, each with a fleet of its own; each request comes to one of them by chance.
    pub routers: usize,
    /// How old an engine's report is when it comes.
    pub staleness: Duration,
    /// Time between two reports of every engine.
    pub report_every: Duration,
    /// What is good enough.
    pub objective: Objective,
    /// Told now and then how many of how many requests came.
    pub progress: Option<&'a (dyn Fn(u64, u64) + Sync)>,
    /// Nanoseconds of some clock, to measure what decisions cost. Without one they are only counted.
    pub clock: Option<&'a (dyn Fn() -> u64 + Sync)>,
}

/// What is good enough for a request.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Objective {
    /// Time to its first token, milliseconds.
    pub first_token_ms: f64,
    /// Time for each token after that on average, milliseconds.
    pub per_token_ms: f64,
}

impl Default for Objective {
    fn default() -> Self {
        Self { first_token_ms: 2_000.0, per_token_ms: 100.0 }
    }
}

/// What engines there are: one of the usual kind for every deployment, unless it has one of its own.
///
/// Deployments of several models at one provider are one engine: the provider is one server.
#[derive(Debug, Clone)]
pub struct Engines {
    /// The usual kind.
    pub usual: Arc<Kind>,
    /// Those that differ, by the deployment's or its provider's name.
    pub by_name: BTreeMap<String, Arc<Kind>>,
    /// Providers whose engines say nothing of themselves, such as paid APIs.
    pub silent: BTreeSet<String>,
}

impl Engines {
    /// The same kind everywhere.
    pub fn all(kind: Kind) -> Self {
        Self { usual: Arc::new(kind), by_name: BTreeMap::new(), silent: BTreeSet::new() }
    }

    /// What serves a deployment.
    pub fn of(&self, deployment: &str, provider: &str) -> &Arc<Kind> {
        self.by_name.get(deployment).or_else(|| self.by_name.get(provider)).unwrap_or(&self.usual)
    }
}

/// The strategy or baseline of that name, such as `least_busy`, or `consistent_hash{"bound":2.0}` with options.
///
/// # Errors
///
/// What is wrong with it, and what there is.
pub fn strategy(text: &str) -> Result<StrategySpec, String> {
    let (name, options) = match text.find('{') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let name = name.trim();
    if let Some(def) =
        crate::baselines::ALL.iter().find(|def| def.name == name || def.aliases.contains(&name))
    {
        return if options.is_empty() {
            Ok(StrategySpec::of(def))
        } else {
            Err(format!("baseline `{name}` takes no options"))
        };
    }
    let options = match options {
        "" => Value::Object(Map::new()),
        options => serde_json::from_str(options)
            .map_err(|error| format!("strategy `{name}`: its options are no JSON object: {error}"))?,
    };
    StrategySpec::parse(name, options)
        .map_err(|error| format!("{error}; baselines: {}", names(crate::baselines::ALL)))
}

/// Every name that [`strategy`] knows: the strategies, then the baselines.
pub fn known_strategies() -> String {
    format!("{}; baselines: {}", names(ALL), names(crate::baselines::ALL))
}

fn names(all: &[&pointsman_routing::strategy::Def]) -> String {
    all.iter().map(|def| def.name).collect::<Vec<_>>().join(", ")
}

/// What exists, with this strategy in every tier of every model.
pub(super) fn with_strategy(catalog: &Catalog, strategy: Option<&StrategySpec>) -> Catalog {
    let mut catalog = catalog.clone();
    if let Some(strategy) = strategy {
        for model in catalog.models.values_mut() {
            model.strategy = strategy.clone();
            model.tier_strategies.clear();
        }
    }
    catalog
}

/// A span as the world counts time.
pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
