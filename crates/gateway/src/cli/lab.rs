//! `pointsman simulate --trace`: recorded traffic through the live rules, strategies side by side.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Write as _};
use std::ops::RangeInclusive;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pointsman_routing::strategy::StrategySpec;
use pointsman_simulator::engine::Kind;
use pointsman_simulator::lab::{self, Engines, Objective, Results, Run, Setup};
use pointsman_simulator::{Workload, trace};

use super::{BadUsage, out};
use crate::reload::load;

/// Arguments of `simulate` for recorded traffic.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Play recorded traffic: an Azure or BurstGPT CSV, a Mooncake trace, or a decision log (found by content)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "random", "error_rate", "leave_rate"])]
    trace: Option<PathBuf>,
    /// Play only the first N requests of the trace
    #[arg(long, value_name = "N", requires = "trace")]
    first: Option<usize>,
    /// Strategies and baselines to play it with, side by side. Default: as configured
    #[arg(long, value_name = "A,B,C", requires = "trace")]
    compare: Option<String>,
    /// What the engines are: a name of the table, see docs/simulator.md
    #[arg(long, value_name = "NAME", requires = "trace", default_value = Kind::DEFAULT)]
    engine: String,
    /// Tokens that the host tier of every engine's prefix cache holds
    #[arg(long, value_name = "N", requires = "trace", default_value_t = 0)]
    host_tokens: u64,
    /// A deployment or provider that takes so many times as long, such as gpu-3=2; may be given again
    #[arg(long, value_name = "NAME=N", requires = "trace")]
    slow: Vec<String>,
    /// Routers before the same engines, each with a fleet of its own
    #[arg(long, value_name = "N", requires = "trace", default_value_t = 1)]
    routers: usize,
    /// How old an engine's report is when it comes, milliseconds
    #[arg(long, value_name = "MS", requires = "trace", default_value_t = 0)]
    staleness_ms: u64,
    /// Time between two reports of an engine, milliseconds
    #[arg(long, value_name = "MS", requires = "trace", default_value_t = 200)]
    report_every_ms: u64,
    /// What is good enough: time to first token and time per token, milliseconds
    #[arg(long, value_name = "FIRST,TOKEN", requires = "trace", default_value = "2000,100")]
    objective: String,
    /// Search the largest --rate at which such shares of the requests are good enough, such as 0.85,0.9,0.93
    #[arg(long, value_name = "SHARES", requires = "trace")]
    capacity: Option<String>,
    /// Write a report as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE", requires = "trace")]
    report: Option<PathBuf>,
    /// Write all results to a file as JSON
    #[arg(long, value_name = "FILE", requires = "trace")]
    out: Option<PathBuf>,
}

/// What `simulate` shares with it.
pub(super) struct Common<'a> {
    pub(super) config: Option<&'a Path>,
    pub(super) model: Option<&'a str>,
    pub(super) rate: f64,
    pub(super) seeds: RangeInclusive<u64>,
    pub(super) json: bool,
}

impl Args {
    /// Whether it is what was asked for.
    pub(super) fn is_asked(&self) -> bool {
        self.trace.is_some()
    }

    fn engines(&self) -> anyhow::Result<Engines> {
        let mut usual = Kind::named(&self.engine).map_err(BadUsage)?;
        usual.host_tokens = self.host_tokens;
        let mut engines = Engines::all(usual.clone());
        for text in &self.slow {
            let slow = text.split_once('=').and_then(|(name, slow)| Some((name, slow.parse().ok()?)));
            let (name, slow) = slow.ok_or_else(|| BadUsage(format!("--slow {text}: write NAME=2")))?;
            let kind = Kind { slow, ..usual.clone() };
            kind.check().map_err(BadUsage)?;
            engines.by_name.insert(name.to_owned(), Arc::new(kind));
        }
        Ok(engines)
    }

    fn objective(&self) -> anyhow::Result<Objective> {
        match numbers("--objective", &self.objective)?[..] {
            [first_token_ms, per_token_ms] => Ok(Objective { first_token_ms, per_token_ms }),
            _ => Err(BadUsage("--objective: write two numbers, such as 2000,100".to_owned()).into()),
        }
    }
}

fn numbers(flag: &str, text: &str) -> anyhow::Result<Vec<f64>> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|one| one.trim().parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.iter().all(|one| *one > 0.0 && one.is_finite()));
    numbers.ok_or_else(|| BadUsage(format!("{flag}: `{text}` is no list of numbers above 0")).into())
}

/// The strategies of a list; commas within braces belong to options.
fn strategies(text: Option<&str>) -> anyhow::Result<Vec<(String, Option<StrategySpec>)>> {
    let Some(text) = text else { return Ok(vec![("as configured".to_owned(), None)]) };
    let (mut depth, mut all) = (0, vec![String::new()]);
    for character in text.chars() {
        depth += i32::from(character == '{') - i32::from(character == '}');
        match (character, all.last_mut()) {
            (',', _) if depth == 0 => all.push(String::new()),
            (character, Some(last)) => last.push(character),
            (_, None) => {}
        }
    }
    let spec = |name: String| Ok((name.clone(), Some(lab::strategy(&name).map_err(BadUsage)?)));
    all.into_iter().map(spec).collect()
}

pub(super) fn run(args: &Args, common: &Common<'_>) -> anyhow::Result<()> {
    let path = common.config.map(Path::to_owned).or_else(super::serve::usual_config);
    let path = path.ok_or_else(|| BadUsage("say which config to simulate: --config FILE".to_owned()))?;
    let config = load(&path)?;
    let model = common.model.map(str::to_owned).or_else(|| config.models.keys().next().cloned());
    let model = model.filter(|model| config.models.contains_key(model));
    let model = model.ok_or_else(|| BadUsage("the config has no such model; see --model".to_owned()))?;
    let strategies = strategies(args.compare.as_deref())?;
    let (engines, objective) = (args.engines()?, args.objective()?);
    let shares = args.capacity.as_deref().map(|text| numbers("--capacity", text)).transpose()?;
    let workload = read(args.trace.as_deref().unwrap_or(Path::new("")), args.first)?;
    let began = Instant::now();
    let clock = move || began.elapsed().as_nanos() as u64;
    let catalog = config.catalog();
    let setup = Setup {
        catalog: &catalog,
        model: &model,
        engines: &engines,
        workload: &workload,
        rate: common.rate,
        routers: args.routers.clamp(1, ROUTERS_MAX),
        staleness: Duration::from_millis(args.staleness_ms),
        report_every: Duration::from_millis(args.report_every_ms.max(1)),
        objective,
        progress: None,
        clock: Some(&clock),
    };
    let runs = play(&setup, &strategies, &common.seeds)?;
    let command = command();
    let mut results = lab::results(&setup, "", &command, runs);
    if let Some(shares) = shares {
        capacities(&setup, &strategies, *common.seeds.start(), &shares, &mut results)?;
    }
    let write = |file: &Path, text: String| {
        std::fs::write(file, text).map_err(|error| BadUsage(format!("{}: {error}", file.display())))
    };
    if let Some(file) = &args.out {
        write(file, serde_json::to_string(&results)?)?;
    }
    if let Some(file) = &args.report {
        write(file, results.to_html())?;
    }
    if common.json {
        out(&format!("{}\n", serde_json::to_string_pretty(&results)?))?;
    } else {
        out(&table(&results))?;
    }
    let broken: Vec<&String> =
        results.strategies.iter().flat_map(|one| &one.runs).flat_map(|run| &run.broken).collect();
    anyhow::ensure!(broken.is_empty(), "what must always hold did not: {}", broken[0]);
    Ok(())
}

/// Routers of one run, at most.
const ROUTERS_MAX: usize = 1_000;

/// The command line as it was given.
fn command() -> String {
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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    workload.source = format!("{} ({name})", workload.source);
    Ok(workload)
}

/// What is told on standard error while it takes long.
struct Progress {
    began: Instant,
    said_ms: AtomicU64,
    runs: u64,
    requests: AtomicU64,
    total: u64,
}

/// Requests after which a run tells how far it is.
const TOLD_EVERY: u64 = 4_096;

impl Progress {
    fn new(runs: u64, requests: u64) -> Self {
        let total = runs * requests;
        Self {
            began: Instant::now(),
            said_ms: AtomicU64::new(2_000),
            runs,
            requests: AtomicU64::new(0),
            total,
        }
    }

    /// So many more requests came.
    fn step(&self) {
        let done = self.requests.fetch_add(TOLD_EVERY, Ordering::Relaxed) + TOLD_EVERY;
        let (now_ms, said_ms) =
            (self.began.elapsed().as_millis() as u64, self.said_ms.load(Ordering::Relaxed));
        let every_ms = if std::io::stderr().is_terminal() { 1_000 } else { 15_000 };
        let turn = now_ms >= said_ms
            && self
                .said_ms
                .compare_exchange(said_ms, now_ms + every_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if turn {
            let share = (done as f64 / self.total.max(1) as f64).min(1.0);
            let left_s = now_ms as f64 / 1e3 * (1.0 - share) / share.max(1e-6);
            let _ = writeln!(
                std::io::stderr(),
                "{:.0} % of {} runs, about {left_s:.0} s to go",
                share * 100.0,
                self.runs
            );
        }
    }
}

/// Plays every strategy with every seed, on all processors.
fn play(
    setup: &Setup<'_>,
    strategies: &[(String, Option<StrategySpec>)],
    seeds: &RangeInclusive<u64>,
) -> anyhow::Result<Vec<(String, Vec<Run>)>> {
    let seeds: Vec<u64> = seeds.clone().collect();
    let progress = Progress::new((strategies.len() * seeds.len()) as u64, setup.workload.asks().len() as u64);
    let step = |done: u64, _| {
        if done > 0 {
            progress.step()
        }
    };
    let setup = Setup { progress: Some(&step), ..*setup };
    let jobs: Vec<_> = strategies
        .iter()
        .flat_map(|(_, spec)| seeds.iter().map(move |seed| (spec.as_ref(), *seed)))
        .collect();
    let done = in_parallel(&jobs, |(spec, seed)| lab::run(&setup, *spec, *seed));
    let mut runs = done.into_iter().collect::<Result<Vec<Run>, String>>().map_err(BadUsage)?.into_iter();
    let of = |(name, _): &(String, _)| (name.clone(), runs.by_ref().take(seeds.len()).collect());
    Ok(strategies.iter().map(of).collect())
}

/// Does all jobs on all processors; gives what came of them in their order.
fn in_parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(at) else { return done };
            done.push((at, work(job)));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        running.into_iter().flat_map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Searches the capacity of every strategy for every share.
fn capacities(
    setup: &Setup<'_>,
    strategies: &[(String, Option<StrategySpec>)],
    seed: u64,
    shares: &[f64],
    results: &mut Results,
) -> anyhow::Result<()> {
    if let Some(share) = shares.iter().find(|share| **share >= 1.0) {
        return Err(BadUsage(format!("--capacity: {share} is no share below 1")).into());
    }
    let found = in_parallel(strategies, |(_, spec)| {
        // Rates that were played for one share tell of the others.
        let mut played: BTreeMap<u64, f64> = BTreeMap::new();
        let mut good_share = |rate: f64| {
            *played.entry(rate.to_bits()).or_insert_with(|| {
                let run = lab::run(&Setup { rate, ..*setup }, spec.as_ref(), seed);
                run.map_or(0.0, |run| run.goodput.share)
            })
        };
        let of = |share: &f64| (format!("{}", share * 100.0), lab::capacity(*share, &mut good_share));
        shares.iter().map(of).collect::<BTreeMap<String, f64>>()
    });
    for (strategy, found) in results.strategies.iter_mut().zip(found) {
        strategy.capacity = found;
    }
    Ok(())
}

/// The results for people.
fn table(results: &Results) -> String {
    let mut text = String::new();
    let traffic = &results.traffic;
    let _ = writeln!(
        text,
        "{}: {} requests in {:.0} s at rate x{}, {:.0} tokens in, {:.0} out on average",
        traffic.source,
        traffic.requests,
        traffic.span_s,
        traffic.rate,
        traffic.tokens_in_mean,
        traffic.tokens_out_mean
    );
    let _ = writeln!(
        text,
        "cacheable: {:.3} of prompt tokens without bounds, {:.3} by one cache of all engines' size",
        traffic.cacheable_share, traffic.cacheable_share_bounded
    );
    let _ = writeln!(
        text,
        "\n{:<28}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}{:>8}{:>8}{:>7}{:>7}",
        "first token ms:",
        "mean",
        "p50",
        "p90",
        "p99",
        "token ms",
        "p99",
        "cached",
        "good",
        "util",
        "mean/",
        "p99/"
    );
    for one in &results.strategies {
        let mean = |of: fn(&Run) -> f64| lab::mean(&one.runs, of);
        let _ = writeln!(
            text,
            "{:<28}{:>9.0}{:>9.0}{:>9.0}{:>9.0}{:>9.1}{:>9.1}{:>8.3}{:>8.3}{:>8.2}{:>7.2}{:>7.2}",
            one.name,
            mean(|run| run.first_token_ms.mean),
            mean(|run| run.first_token_ms.p50),
            mean(|run| run.first_token_ms.p90),
            mean(|run| run.first_token_ms.p99),
            mean(|run| run.per_token_ms.mean),
            mean(|run| run.per_token_ms.p99),
            mean(|run| run.tokens_cached_share),
            mean(|run| run.goodput.share),
            mean(|run| run.balance.utilisation_mean),
            one.ratios.first_token_mean,
            one.ratios.first_token_p99,
        );
        let unfinished: u64 = one
            .runs
            .iter()
            .flat_map(|run| &run.outcomes)
            .filter(|(name, _)| *name != "completed")
            .map(|(_, count)| count)
            .sum();
        if unfinished > 0 {
            let _ = writeln!(text, "    {unfinished} requests of all seeds were not completed");
        }
    }
    capacity_table(results, &mut text);
    let _ = writeln!(text, "again: {}", results.command);
    text
}

fn capacity_table(results: &Results, text: &mut String) {
    let Some(first) = results.strategies.first().filter(|one| !one.capacity.is_empty()) else { return };
    let (good, first) = (results.objective, first.capacity.clone());
    let _ = writeln!(
        text,
        "\nlargest rate with such a share within {} ms to first token and {} ms per token (and over that of the first):",
        good.first_token_ms, good.per_token_ms
    );
    for one in &results.strategies {
        let _ = write!(text, "{:<28}", one.name);
        for (share, rate) in &one.capacity {
            let over = rate / first.get(share).copied().unwrap_or(f64::NAN);
            let _ = write!(text, "  {share} %: {rate:.2} ({over:.2}x)");
        }
        text.push('\n');
    }
}
