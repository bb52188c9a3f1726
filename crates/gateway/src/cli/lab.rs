//! `pointsman simulate --trace` and `--lab`: recorded or made traffic through the live rules, strategies side by side.

pub(super) mod play;
mod table;
mod world;

use std::fs::File;
use std::io::BufReader;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pointsman_simulator::lab::{self, Beside, Plan};
use pointsman_simulator::{Workload, trace};

pub(super) use self::world::WorldArgs;
use super::{BadUsage, out};
use crate::reload::load;

/// Arguments of `simulate` for the laboratory. What is given here goes before what the file says.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Play recorded traffic: an Azure or BurstGPT CSV, a Mooncake trace, or a decision log (found by content)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "random", "error_rate", "leave_rate", "requests"])]
    trace: Option<PathBuf>,
    /// Run an experiment from a file: config, traffic, engines, what is compared, and what must come out
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "random", "error_rate", "leave_rate", "requests"])]
    lab: Option<PathBuf>,
    /// Play only the first N requests of the trace
    #[arg(long, value_name = "N", requires = "trace")]
    first: Option<usize>,
    /// Strategies and baselines, side by side; the first is what the others are compared with. Default: as configured
    #[arg(long, value_name = "A,B,C")]
    compare: Option<String>,
    #[command(flatten)]
    world: WorldArgs,
    /// Search the largest --rate at which such shares of the requests are good enough, such as 0.85,0.9,0.93
    #[arg(long, value_name = "SHARES")]
    capacity: Option<String>,
    /// Write a report as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write all results to a file as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What `simulate` shares with it.
pub(super) struct Common<'a> {
    pub(super) config: Option<&'a Path>,
    pub(super) model: Option<&'a str>,
    pub(super) rate: Option<f64>,
    pub(super) seeds: RangeInclusive<u64>,
    pub(super) json: bool,
}

/// Seeds of one comparison, at most.
const SEEDS_MAX: u64 = 1_000;

impl Args {
    /// Whether it is what was asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.trace.is_some() || self.lab.is_some()
    }

    /// The first of its flags that means nothing without a trace or an experiment.
    pub(super) fn stray(&self) -> Option<&'static str> {
        let given = [
            ("--compare", self.compare.is_some()),
            ("--capacity", self.capacity.is_some()),
            ("--out", self.out.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag).or(self.world.given())
    }

    /// The experiment: that of the file, with what the flags say instead.
    fn plan(&self, common: &Common<'_>) -> anyhow::Result<Plan> {
        let mut plan = match &self.lab {
            Some(path) => {
                let bad = |error: &dyn std::fmt::Display| BadUsage(format!("{}: {error}", path.display()));
                let text = std::fs::read_to_string(path).map_err(|error| bad(&error))?;
                Plan::parse(&text).map_err(|error| bad(&error))?
            }
            None => Plan::parse("about: ''").map_err(BadUsage)?,
        };
        if let Some(model) = common.model {
            plan.model = Some(model.to_owned());
        }
        if let Some(text) = &self.compare {
            plan.compare = names(text);
        }
        plan.world.rate = common.rate.or(plan.world.rate);
        self.world.apply(&mut plan)?;
        Ok(plan)
    }
}

fn numbers(flag: &str, text: &str) -> anyhow::Result<Vec<f64>> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|one| one.trim().parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.iter().all(|one| *one > 0.0 && one.is_finite()));
    numbers.ok_or_else(|| BadUsage(format!("{flag}: `{text}` is no list of numbers above 0")).into())
}

/// The names of a list; commas within braces belong to options.
fn names(text: &str) -> Vec<String> {
    let (mut depth, mut all) = (0, vec![String::new()]);
    for character in text.chars() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        if character == ',' && depth == 0 {
            all.push(String::new());
        } else if let Some(last) = all.last_mut() {
            last.push(character);
        }
    }
    all
}

pub(super) fn run(args: &Args, common: &Common<'_>) -> anyhow::Result<()> {
    let plan = args.plan(common)?;
    let seeds: Vec<u64> = common.seeds.clone().take(SEEDS_MAX as usize).collect();
    let shares = args.capacity.as_deref().map(|text| numbers("--capacity", text)).transpose()?;
    if let Some(share) = shares.iter().flatten().find(|share| **share >= 1.0) {
        return Err(BadUsage(format!("--capacity: {share} is no share below 1")).into());
    }
    let beside = Beside {
        catalog: if plan.config.is_none() || common.config.is_some() { Some(catalog(common)?) } else { None },
        trace: args.trace.as_ref().map(|path| read(path, args.first)).transpose()?.map(Arc::new),
        seeds: seeds.clone(),
    };
    let plan = if common.config.is_some() { Plan { config: None, ..plan } } else { plan };
    let worlds = plan.ready(&beside).map_err(BadUsage)?;
    let runs = play::play(&worlds, &seeds)?;
    let mut results = lab::results(&worlds[0].setup(0), plan.about.trim(), &command(), runs);
    if let Some(shares) = shares {
        play::capacities(&worlds, seeds[0], &shares, &mut results);
    }
    for must in &plan.must {
        let figures = must.figures(&results).map_err(BadUsage)?;
        results.figures.extend(figures);
    }
    if let Some(file) = &args.out {
        write(file, serde_json::to_string(&results)?)?;
    }
    if let Some(file) = &args.report {
        write(file, results.to_html())?;
    }
    if common.json {
        out(&format!("{}\n", serde_json::to_string_pretty(&results)?))?;
    } else {
        out(&table::table(&results))?;
    }
    let mut broken = results.strategies.iter().flat_map(|one| &one.runs).flat_map(|run| &run.broken);
    anyhow::ensure!(broken.next().is_none(), "what must always hold did not; see `broken` in the JSON");
    let (all, missed) = (results.figures.len(), results.figures.iter().filter(|figure| !figure.held).count());
    anyhow::ensure!(missed == 0, "{missed} of {all} figures did not hold");
    Ok(())
}

fn catalog(common: &Common<'_>) -> anyhow::Result<pointsman_routing::Catalog> {
    let path = common.config.map(Path::to_owned).or_else(super::serve::usual_config);
    let path = path.ok_or_else(|| BadUsage("say which config to simulate: --config FILE".to_owned()))?;
    Ok(load(&path)?.catalog())
}

/// Writes a report.
pub(super) fn write(file: &Path, text: String) -> anyhow::Result<()> {
    Ok(std::fs::write(file, text).map_err(|error| BadUsage(format!("{}: {error}", file.display())))?)
}

/// The command line as it was given.
pub(super) fn command() -> String {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    let quoted = words.map(|word| if word.contains([' ', '{', '"']) { format!("'{word}'") } else { word });
    std::iter::once("pointsman".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}

fn read(path: &Path, first: Option<usize>) -> anyhow::Result<Workload> {
    let bad = |error: &dyn std::fmt::Display| BadUsage(format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(|error| bad(&error))?;
    let mut workload = trace::read(BufReader::with_capacity(1 << 20, file)).map_err(|error| bad(&error))?;
    if let Some(first) = first {
        workload.truncate(first.max(1));
    }
    super::warn(&workload.left_out.told(&path.display().to_string()));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    workload.source = format!("{} ({name})", workload.source);
    Ok(workload)
}
