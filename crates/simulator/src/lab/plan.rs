//! An experiment as a file: what exists, who asks, what is compared, and what must come out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pointsman_routing::Catalog;
use pointsman_routing::predict::Mistake;
use pointsman_routing::strategy::StrategySpec;
use pointsman_settings::Sources;
use serde::{Deserialize, Serialize};

use super::figure::Must;
use super::setup::{Engines, Objective, Setup, strategy};
use super::streams::Work;
use crate::engine::Kind;
use crate::workload::Workload;

/// Routers of one run, at most.
pub const ROUTERS_MAX: usize = 1_000;

/// An experiment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What it is about, in a sentence.
    pub about: String,
    /// A Pointsman configuration, as it would run. Not given: the one that is named beside it.
    #[serde(default)]
    pub config: Option<String>,
    /// The model that is asked for. Not given: the first.
    #[serde(default)]
    pub model: Option<String>,
    /// Who asks. Not given: a trace that is named beside it.
    #[serde(default)]
    pub workload: Option<Work>,
    /// What differs from the usual world.
    #[serde(default)]
    pub world: WorldSpec,
    /// What is good enough.
    #[serde(default)]
    pub objective: Objective,
    /// Strategies and baselines. Empty: as configured.
    #[serde(default)]
    pub compare: Vec<String>,
    /// The same once more, but for some things.
    #[serde(default)]
    pub variants: Vec<Variant>,
    /// What must come out.
    #[serde(default)]
    pub must: Vec<Must>,
}

/// What a world is like, beside what exists and who asks. What is not given is as usual, or as in the plan.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorldSpec {
    /// The engines.
    pub engines: Option<EnginesSpec>,
    /// How many times as fast requests come. Usually 1.
    pub rate: Option<f64>,
    /// Routers before the same engines. Usually 1.
    pub routers: Option<usize>,
    /// How old an engine's report is when it comes, milliseconds. Usually 0.
    pub staleness_ms: Option<u64>,
    /// Time between two reports of an engine, milliseconds. Usually 200.
    pub report_every_ms: Option<u64>,
    /// What routers know of engines' times is wrong from some moment on.
    pub mistaken: Option<MistakenSpec>,
    /// Configurations that take effect during the run.
    pub reloads: Option<Vec<ReloadSpec>>,
}

/// What routers know of engines' times is wrong from some moment on, so that it is seen how soon they know better.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MistakenSpec {
    /// When, seconds.
    pub at_s: f64,
    /// By which share coefficients are too great or too small, by turns. Not given: nothing is known any more.
    pub share: Option<f64>,
}

/// The engines of a plan.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnginesSpec {
    /// The usual kind, by name. Not given: `h100-llama-3-8b`.
    pub kind: Option<String>,
    /// Coefficients of its own instead.
    pub own: Option<Kind>,
    /// Tokens that the KV cache holds, if other than usual.
    pub kv_tokens: Option<u64>,
    /// Tokens that the host tier holds.
    pub host_tokens: u64,
    /// Requests it works on at the same time, if other than usual.
    pub sequences_max: Option<usize>,
    /// Deployments or providers that differ, by name.
    pub by_name: BTreeMap<String, OneEngine>,
    /// Providers whose engines say nothing of themselves, such as paid APIs.
    pub silent: BTreeSet<String>,
}

/// How an engine differs from the usual one.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct OneEngine {
    /// Another kind, by name.
    pub kind: Option<String>,
    /// How many times as long everything takes.
    pub slow: Option<f64>,
    /// Tokens that its KV cache holds.
    pub kv_tokens: Option<u64>,
    /// Tokens that its host tier holds.
    pub host_tokens: Option<u64>,
}

/// A configuration that takes effect during the run.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadSpec {
    /// When, seconds.
    pub at_s: f64,
    /// The configuration. Not given: that of the plan with the deployments that are left out.
    #[serde(default)]
    pub config: Option<String>,
    /// Deployments that are not there from then on.
    #[serde(default)]
    pub without: Vec<String>,
}

/// The same once more, but for some things.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// Its name: stands behind the strategy's in all results.
    pub name: String,
    /// Streams that are left out.
    #[serde(default)]
    pub without: Vec<String>,
    /// Another configuration.
    #[serde(default)]
    pub config: Option<String>,
    /// Other strategies. Not given: those of the plan.
    #[serde(default)]
    pub compare: Option<Vec<String>>,
    /// What else differs.
    #[serde(default)]
    pub world: WorldSpec,
}

/// A strategy with its name.
pub type Named = (String, Option<StrategySpec>);

/// A world that is ready to run, with all that is compared in it.
#[derive(Debug)]
pub struct Ready {
    catalog: Catalog,
    model: String,
    engines: Engines,
    /// By seed; a trace is the same for all.
    workloads: Vec<Arc<Workload>>,
    reloads: Vec<(f64, Catalog)>,
    mistaken: Option<(f64, Mistake)>,
    rate: f64,
    routers: usize,
    staleness: Duration,
    report_every: Duration,
    objective: Objective,
    /// Under their names in the results.
    pub strategies: Vec<Named>,
}

impl Ready {
    /// The setup of the n-th seed.
    pub fn setup(&self, seed: usize) -> Setup<'_> {
        Setup {
            catalog: &self.catalog,
            model: &self.model,
            engines: &self.engines,
            workload: &self.workloads[seed % self.workloads.len()],
            reloads: &self.reloads,
            mistaken: self.mistaken,
            rate: self.rate,
            routers: self.routers,
            staleness: self.staleness,
            report_every: self.report_every,
            objective: self.objective,
            progress: None,
            clock: None,
        }
    }
}

/// What is given beside a plan.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// A configuration, if the plan has none.
    pub catalog: Option<Catalog>,
    /// Recorded traffic instead of the plan's.
    pub trace: Option<Arc<Workload>>,
    /// The seeds.
    pub seeds: Vec<u64>,
}

impl EnginesSpec {
    /// The engines as they are played.
    ///
    /// # Errors
    ///
    /// What cannot be.
    pub fn engines(&self) -> Result<Engines, String> {
        let mut usual = match &self.own {
            Some(own) => own.clone(),
            None => Kind::named(self.kind.as_deref().unwrap_or(Kind::DEFAULT))?,
        };
        usual.host_tokens = self.host_tokens;
        usual.kv_tokens = self.kv_tokens.unwrap_or(usual.kv_tokens);
        usual.sequences_max = self.sequences_max.unwrap_or(usual.sequences_max);
        usual.check()?;
        let mut engines = Engines::all(usual.clone());
        engines.silent.clone_from(&self.silent);
        for (name, one) in &self.by_name {
            let mut kind = one.kind.as_deref().map_or(Ok(usual.clone()), Kind::named)?;
            kind.slow = one.slow.unwrap_or(kind.slow);
            kind.kv_tokens = one.kv_tokens.unwrap_or(kind.kv_tokens);
            kind.host_tokens = one.host_tokens.unwrap_or(usual.host_tokens);
            kind.check().map_err(|error| format!("{name}: {error}"))?;
            engines.by_name.insert(name.clone(), Arc::new(kind));
        }
        Ok(engines)
    }
}

fn catalog(text: &str) -> Result<Catalog, String> {
    let sources = Sources { env: &|_| None, file: &|name| Err(format!("{name}: plans read no files")) };
    let config = pointsman_settings::parse(text, &sources).map_err(|found| {
        let first = found.first().map_or_else(|| "is no configuration".to_owned(), ToString::to_string);
        format!("config: {first}")
    })?;
    Ok(config.catalog())
}

impl Plan {
    /// The plan of a file.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }

    /// The worlds to run: that of the plan, and one for every variant.
    ///
    /// # Errors
    ///
    /// What cannot be, or is missing.
    pub fn ready(&self, beside: &Beside) -> Result<Vec<Ready>, String> {
        let plain = Variant {
            name: String::new(),
            without: Vec::new(),
            config: None,
            compare: None,
            world: WorldSpec::default(),
        };
        std::iter::once(&plain).chain(&self.variants).map(|variant| self.one(variant, beside)).collect()
    }

    fn one(&self, variant: &Variant, beside: &Beside) -> Result<Ready, String> {
        let catalog = match variant.config.as_ref().or(self.config.as_ref()) {
            Some(text) => catalog(text)?,
            None => {
                beside.catalog.clone().ok_or("no configuration: give one in the file, or --config FILE")?
            }
        };
        let first = || catalog.models.keys().next().map(ToString::to_string);
        let model = self.model.clone().or_else(first).ok_or("the config has no models")?;
        if !catalog.models.contains_key(model.as_str()) {
            return Err(format!("the config has no model `{model}`"));
        }
        let (own, usual) = (&variant.world, &self.world);
        let engines = own.engines.as_ref().or(usual.engines.as_ref()).cloned().unwrap_or_default();
        let rate = own.rate.or(usual.rate).unwrap_or(1.0);
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(format!("`rate` is {rate}; it must be above 0"));
        }
        let routers = own.routers.or(usual.routers).unwrap_or(1);
        if !(1..=ROUTERS_MAX).contains(&routers) {
            return Err(format!("`routers` is {routers}; it must be from 1 to {ROUTERS_MAX}"));
        }
        let millis = |own: Option<u64>, usual: Option<u64>, default| {
            Duration::from_millis(own.or(usual).unwrap_or(default))
        };
        let reloads = own.reloads.as_ref().or(usual.reloads.as_ref());
        let reloads = reloads.into_iter().flatten().map(|reload| self::reload(reload, &catalog));
        let mistaken = own
            .mistaken
            .or(usual.mistaken)
            .map(|one| (one.at_s, one.share.map_or(Mistake::Forgotten, Mistake::Wrong)));
        if mistaken.is_some_and(|(at_s, _)| !at_s.is_finite() || at_s < 0.0) {
            return Err("`mistaken.at_s` must be a time in seconds, from 0 on".to_owned());
        }
        Ok(Ready {
            mistaken,
            reloads: reloads.collect::<Result<_, String>>()?,
            model,
            engines: engines.engines()?,
            workloads: self.workloads(variant, beside)?,
            rate,
            routers,
            staleness: millis(own.staleness_ms, usual.staleness_ms, 0),
            report_every: millis(own.report_every_ms, usual.report_every_ms, 200),
            objective: self.objective,
            strategies: self.strategies(variant)?,
            catalog,
        })
    }

    fn workloads(&self, variant: &Variant, beside: &Beside) -> Result<Vec<Arc<Workload>>, String> {
        if let Some(trace) = &beside.trace {
            return Ok(vec![trace.clone()]);
        }
        let work =
            self.workload.as_ref().ok_or("nobody asks: give a `workload` in the file, or --trace FILE")?;
        beside.seeds.iter().map(|seed| work.workload(*seed, &variant.without).map(Arc::new)).collect()
    }

    fn strategies(&self, variant: &Variant) -> Result<Vec<Named>, String> {
        let names = variant.compare.as_ref().unwrap_or(&self.compare);
        let label = |name: &str| match (name, variant.name.as_str()) {
            (name, "") => name.to_owned(),
            (name, variant) => format!("{name}, {variant}"),
        };
        if names.is_empty() {
            return Ok(vec![(label("as configured"), None)]);
        }
        names.iter().map(|name| Ok((label(name), Some(strategy(name)?)))).collect()
    }
}

fn reload(reload: &ReloadSpec, usual: &Catalog) -> Result<(f64, Catalog), String> {
    let mut changed = reload.config.as_deref().map_or_else(|| Ok(usual.clone()), catalog)?;
    if !(reload.at_s >= 0.0 && reload.at_s.is_finite()) {
        return Err(format!("reload: `at_s` is {}; it must be 0 or more", reload.at_s));
    }
    for name in &reload.without {
        let mut found = false;
        for model in changed.models.values_mut() {
            let before = model.deployments.len();
            model.deployments.retain(|deployment| *deployment.name != **name);
            found |= model.deployments.len() < before;
        }
        if !found {
            return Err(format!("reload: there is no deployment `{name}` to leave out"));
        }
    }
    Ok((reload.at_s, changed))
}
