//! What the engines and routers of a world are like, by flags.

use pointsman_simulator::engine::Kind;
use pointsman_simulator::lab::{Objective, OneEngine, Plan};

use super::numbers;
use crate::cli::BadUsage;

/// Flags that say what a world is like.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
pub(in crate::cli) struct WorldArgs {
    /// What the engines are: a name of the table in docs/simulator.md. Default: h100-llama-3-8b
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) engine: Option<String>,
    /// Tokens that the host tier of every engine's prefix cache holds. Default: 0
    #[arg(long, value_name = "N")]
    host_tokens: Option<u64>,
    /// A deployment or provider that takes so many times as long, such as gpu-3=2; may be given again
    #[arg(long, value_name = "NAME=N")]
    slow: Vec<String>,
    /// Routers before the same engines, each with a fleet of its own. Default: 1
    #[arg(long, value_name = "N")]
    routers: Option<usize>,
    /// How old an engine's report is when it comes, milliseconds. Default: 0
    #[arg(long, value_name = "MS")]
    staleness_ms: Option<u64>,
    /// Time between two reports of an engine, milliseconds. Default: 200
    #[arg(long, value_name = "MS")]
    report_every_ms: Option<u64>,
    /// What is good enough: time to first token and time per token, milliseconds. Default: 2000,100
    #[arg(long, value_name = "FIRST,TOKEN")]
    objective: Option<String>,
}

impl WorldArgs {
    /// The first of them that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [
            ("--engine", self.engine.is_some()),
            ("--host-tokens", self.host_tokens.is_some()),
            ("--slow", !self.slow.is_empty()),
            ("--routers", self.routers.is_some()),
            ("--staleness-ms", self.staleness_ms.is_some()),
            ("--report-every-ms", self.report_every_ms.is_some()),
            ("--objective", self.objective.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }

    /// Lays them over what a plan says.
    pub(in crate::cli) fn apply(&self, plan: &mut Plan) -> anyhow::Result<()> {
        if let Some(text) = &self.objective {
            plan.objective = objective(text)?;
        }
        let world = &mut plan.world;
        world.routers = self.routers.or(world.routers);
        world.staleness_ms = self.staleness_ms.or(world.staleness_ms);
        world.report_every_ms = self.report_every_ms.or(world.report_every_ms);
        let engines = world.engines.get_or_insert_default();
        if let Some(name) = &self.engine {
            Kind::named(name).map_err(BadUsage)?;
            (engines.kind, engines.own) = (Some(name.clone()), None);
        }
        engines.host_tokens = self.host_tokens.unwrap_or(engines.host_tokens);
        for text in &self.slow {
            let slow = text.split_once('=').and_then(|(name, slow)| Some((name, slow.parse().ok()?)));
            let (name, slow) = slow.ok_or_else(|| BadUsage(format!("--slow {text}: write NAME=2")))?;
            engines.by_name.insert(name.to_owned(), OneEngine { slow: Some(slow), ..OneEngine::default() });
        }
        Ok(())
    }
}

fn objective(text: &str) -> anyhow::Result<Objective> {
    match numbers("--objective", text)?[..] {
        [first_token_ms, per_token_ms] => Ok(Objective { first_token_ms, per_token_ms }),
        _ => Err(BadUsage("--objective: write two numbers, such as 2000,100".to_owned()).into()),
    }
}
