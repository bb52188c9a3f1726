//! Runs on all processors, with a word now and then on how far they are.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use pointsman_routing::strategy::StrategySpec;
use pointsman_simulator::lab::{self, Ready, Results, Run, Setup};

use crate::cli::BadUsage;

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
    fn new(runs: u64, total: u64) -> Self {
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

/// A run to be made: the world, the strategy and its place in the world's list, the seed and its place.
type Job<'w> = (&'w Ready, &'w (String, Option<StrategySpec>), u64, usize);

/// Plays every strategy of every world with every seed; gives the runs of each strategy under its name.
pub(super) fn play(worlds: &[Ready], seeds: &[u64]) -> anyhow::Result<Vec<(String, Vec<Run>)>> {
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for world in worlds {
        for named in &world.strategies {
            jobs.extend(seeds.iter().enumerate().map(|(place, seed)| (world, named, *seed, place)));
        }
    }
    let requests =
        jobs.iter().map(|(world, _, _, place)| world.setup(*place).workload.asks().len() as u64).sum();
    let progress = Progress::new(jobs.len() as u64, requests);
    let step = |done: u64, _| {
        if done > 0 {
            progress.step();
        }
    };
    let clock = || progress.began.elapsed().as_nanos() as u64;
    let done = in_parallel(&jobs, |(world, (_, spec), seed, place)| {
        let setup = Setup { progress: Some(&step), clock: Some(&clock), ..world.setup(*place) };
        lab::run(&setup, spec.as_ref(), *seed)
    });
    let mut runs = done.into_iter().collect::<Result<Vec<Run>, String>>().map_err(BadUsage)?.into_iter();
    let of = |(_, (name, _), ..): &Job<'_>| (name.clone(), runs.by_ref().take(seeds.len()).collect());
    Ok(jobs.iter().step_by(seeds.len()).map(of).collect())
}

/// Searches the capacity of every strategy for every share, with the first seed.
pub(super) fn capacities(worlds: &[Ready], seed: u64, shares: &[f64], results: &mut Results) {
    let jobs: Vec<_> =
        worlds.iter().flat_map(|world| world.strategies.iter().map(move |(_, spec)| (world, spec))).collect();
    let found = in_parallel(&jobs, |(world, spec)| {
        // Rates that were played for one share tell of the others.
        let mut played: BTreeMap<u64, f64> = BTreeMap::new();
        let mut good_share = |rate: f64| {
            *played.entry(rate.to_bits()).or_insert_with(|| {
                let run = lab::run(&Setup { rate, ..world.setup(0) }, spec.as_ref(), seed);
                run.map_or(0.0, |run| run.goodput.share)
            })
        };
        let of = |share: &f64| (format!("{}", share * 100.0), lab::capacity(*share, &mut good_share));
        shares.iter().map(of).collect::<BTreeMap<String, f64>>()
    });
    for (strategy, found) in results.strategies.iter_mut().zip(found) {
        strategy.capacity = found;
    }
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
