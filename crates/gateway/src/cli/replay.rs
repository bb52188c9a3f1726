//! `pointsman replay`: what would have happened to recorded traffic under another config.

mod table;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use pointsman_simulator::engine::Kind;
use pointsman_simulator::lab::{OneEngine, Plan, Setup};
use pointsman_simulator::replay::{self, Against, Fitted, Log, Look, Pass, Play, Replay, World};
use xxhash_rust::xxh3::xxh3_64;

use super::lab::play::{Progress, in_parallel};
use super::lab::{WorldArgs, command, write};
use super::{BadUsage, out, warn};
use crate::reload::load;
use crate::telemetry::record::decision_json;

/// Arguments of `replay`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The decision log (`decisions.log` of the config), a JSON object a line
    log: PathBuf,
    /// The config to try. Default: ./pointsman.yaml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The config that was in force, to be simulated beside it: without, the effect is held against the log's own times
    #[arg(long, value_name = "FILE")]
    was: Option<PathBuf>,
    /// Play with the seeds from 1 to N. With more than one it is told how much of a difference is chance
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    #[command(flatten)]
    world: WorldArgs,
    /// Write a report as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write all of it to a file as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.config.clone().or_else(super::serve::usual_config);
    let config = config.ok_or_else(|| BadUsage("say which config to try: --config FILE".to_owned()))?;
    let mut log = read(&args.log)?;
    warn(&log.bad.told(&args.log.display().to_string()));
    let (plan, fitted) = args.plan(&log)?;
    let mut world = |path: &Path| -> anyhow::Result<World> {
        let name = path.display().to_string();
        Ok(World::new(&name, &load(path)?, &mut log, &plan).map_err(BadUsage)?)
    };
    let new = world(&config)?;
    let was = args.was.as_deref().map(&mut world).transpose()?;
    let replay = play(&log, &new, was.as_ref(), args.seeds, fitted)?;
    if let Some(file) = &args.out {
        write(file, serde_json::to_string(&replay)?)?;
    }
    if let Some(file) = &args.report {
        write(file, replay.to_html())?;
    }
    if args.json {
        out(&format!("{}\n", serde_json::to_string_pretty(&replay)?))?;
    } else {
        out(&table::told(&replay))?;
    }
    let runs = replay.results.strategies.iter().flat_map(|one| &one.runs);
    let broken = runs.flat_map(|run| &run.broken).next().is_none();
    anyhow::ensure!(broken, "what must always hold did not; see `broken` in the JSON");
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Log> {
    let file = File::open(path).map_err(|error| BadUsage(format!("{}: {error}", path.display())))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let tenant_hash = |tenant: &str| xxh3_64(tenant.as_bytes());
    let log = replay::read(&name, BufReader::with_capacity(1 << 20, file), &tenant_hash);
    Ok(log.map_err(|error| BadUsage(format!("{}: {error}", path.display())))?)
}

impl Args {
    /// What the world is like. Engines are as fast as the log says they were, unless it is said what they are.
    fn plan(&self, log: &Log) -> anyhow::Result<(Plan, Option<Fitted>)> {
        let mut plan = Plan::parse("about: ''").map_err(BadUsage)?;
        let kind = Kind::named(Kind::DEFAULT).map_err(BadUsage)?;
        let fitted = if self.world.engine.is_some() { None } else { replay::fit(log, &kind) };
        if let Some(fitted) = &fitted {
            let engines = plan.world.engines.get_or_insert_default();
            engines.own = Some(Kind { slow: fitted.others, ..kind });
            let slow = |slow: &f64| OneEngine { slow: Some(*slow), ..OneEngine::default() };
            engines.by_name =
                fitted.providers.iter().map(|(name, each)| (name.clone(), slow(each))).collect();
        }
        self.world.apply(&mut plan)?;
        Ok((plan, fitted))
    }
}

/// Plays the log with every seed under every config. The run that tells of differences comes last, for it is compared
/// with that of the config before.
fn play(
    log: &Log,
    new: &World,
    was: Option<&World>,
    seeds: u64,
    fitted: Option<Fitted>,
) -> anyhow::Result<Replay> {
    let mut jobs: Vec<(&World, u64)> =
        was.iter().flat_map(|was| (1..=seeds).map(|seed| (*was, seed))).collect();
    jobs.extend((2..=seeds).map(|seed| (new, seed)));
    let runs = jobs.len() as u64 + 1;
    let progress = Progress::new(format!("{runs} runs"), runs * log.requests() as u64);
    let step = |done: u64, _| progress.came(done);
    let clock = || progress.elapsed_ns();
    let run = |world: &World, seed: u64, against| {
        let setup = Setup { progress: Some(&step), clock: Some(&clock), ..world.setup() };
        let pass = replay::play(world, log, seed, &Look { tell: &decision_json, against }, &setup);
        progress.over(setup.workload.asks().len() as u64);
        pass
    };
    let done = in_parallel(&jobs, |(world, seed)| run(world, *seed, Against::Nothing));
    let mut done = done.into_iter().collect::<Result<Vec<Pass>, String>>().map_err(BadUsage)?;
    let others = done.split_off(if was.is_some() { seeds as usize } else { 0 });
    let against = done.first().map_or(Against::Log, |first| Against::Before(&first.first_ms));
    let first = run(new, 1, against).map_err(BadUsage)?;
    let new = Play { world: new, passes: std::iter::once(first).chain(others).collect() };
    let was = was.map(|world| Play { world, passes: done });
    Ok(replay::replay(log, new, was, fitted, &command()))
}
