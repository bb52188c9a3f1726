//! What a log is played in: a configuration, and engines for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_routing::catalog::Name;
use pointsman_settings::Config;

use super::log::Log;
use crate::lab::{Beside, Plan, Ready, Setup};
use crate::workload::Workload;

/// What a log is played in.
#[derive(Debug)]
pub struct World {
    /// The configuration's name, such as its file's.
    pub name: String,
    ready: Ready,
    /// The requests that are played, by their places in the log: those of models that exist.
    pub(super) asks: Vec<u32>,
    /// Requests of models that do not exist.
    pub(super) unknown: BTreeMap<String, u64>,
    /// Deployments as the log would name them: by the model that is asked for, which may be an alias now, and their name;
    /// with prices in USD per million tokens in and out.
    pub(super) known: BTreeMap<(Name, Name), Option<(f64, f64)>>,
}

impl World {
    /// A configuration as a world for a log. The plan says what the engines are like; those of providers that are not asked
    /// of their load live say nothing of it here either.
    ///
    /// # Errors
    ///
    /// What cannot be, such as a configuration without any of the log's models.
    pub fn new(name: &str, config: &Config, log: &mut Log, plan: &Plan) -> Result<Self, String> {
        let aliases = config.models.iter().flat_map(|(model, one)| {
            let names = std::iter::once(model).chain(&one.aliases);
            names.map(move |name| (name.as_str(), model.as_str()))
        });
        let targets: BTreeMap<&str, &str> = aliases.collect();
        let mut known = BTreeMap::new();
        for (asked, model) in &targets {
            for deployment in &config.models[*model].deployments {
                let price = config.price_of(model, deployment);
                let price = price.and_then(|price| Some((price.input, price.output?)));
                let named = deployment.name_in(model);
                log.places.place(asked, &named);
                known.insert((Name::from(*asked), Name::from(named)), price);
            }
        }
        let (mut workload, mut asks, mut unknown) =
            (Workload::new(format!("decision log ({})", log.source)), Vec::new(), BTreeMap::new());
        for (place, record) in log.traffic.iter().enumerate() {
            let asked = record.model.as_deref().unwrap_or("");
            let Some(model) = targets.get(asked) else {
                *unknown.entry(asked.to_owned()).or_default() += 1;
                continue;
            };
            if *model == asked {
                workload.push(record);
            } else {
                workload.push(&crate::Record { model: Some((*model).to_owned()), ..record.clone() });
            }
            asks.push(place as u32);
        }
        if asks.is_empty() {
            let models: Vec<String> = unknown.into_keys().map(|model| format!("`{model}`")).collect();
            return Err(format!("{name} has no model that the log asks for: {}", models.join(", ")));
        }
        workload.left_out = log.bad.clone();
        workload.sort();
        let mut plan = plan.clone();
        let silent = config.providers.iter().filter(|(_, provider)| provider.engine_plan().is_none());
        plan.world.engines.get_or_insert_default().silent.extend(silent.map(|(name, _)| name.clone()));
        let beside =
            Beside { catalog: Some(config.catalog()), trace: Some(Arc::new(workload)), seeds: Vec::new() };
        let ready = plan.ready(&beside)?.into_iter().next().ok_or("there is nothing to play")?;
        Ok(Self { name: name.to_owned(), ready, asks, unknown, known })
    }

    /// What the laboratory plays.
    pub fn setup(&self) -> Setup<'_> {
        self.ready.setup(0)
    }
}
