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
pub(in crate::cli) struct Progress {
    began: Instant,
    said_ms: AtomicU64,
    what: String,
    requests: AtomicU64,
    total: u64,
}

/// Requests after which a run tells how far it is.
const TOLD_EVERY: u64 = 4_096;

impl Progress {
    /// Of so many requests in all.
    pub(in crate::cli) fn new(what: String, total: u64) -> Self {
        Self {
            began: Instant::now(),
            said_ms: AtomicU64::new(2_000),
            what,
            requests: AtomicU64::new(0),
            total,
        }
    }

    /// Nanoseconds since it began.
    pub(in crate::cli) fn elapsed_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// So many requests of a run came: to be given to the run.
    pub(in crate::cli) fn came(&self, requests: u64) {
        if requests > 0 {
            self.add(TOLD_EVERY);
        }
    }

    /// A run of so many requests is over: those that no word came of.
    pub(in crate::cli) fn over(&self, requests: u64) {
        self.add(requests - requests.saturating_sub(1) / TOLD_EVERY * TOLD_EVERY);
    }

    /// At least so many requests are done.
    fn at_least(&self, requests: u64) {
        self.requests.fetch_max(requests, Ordering::Relaxed);
    }

    fn add(&self, requests: u64) {
        let done = self.requests.fetch_add(requests, Ordering::Relaxed) + requests;
        let (now_ms, said_ms) =
            (self.began.elapsed().as_millis() as u64, self.said_ms.load(Ordering::Relaxed));
        let every_ms = if std::io::stderr().is_terminal() { 1_000 } else { 15_000 };
        let turn = now_ms >= said_ms
            && self
                .said_ms
                .compare_exchange(said_ms, now_ms + every_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if turn {
            let _ = writeln!(std::io::stderr(), "{}", told(&self.what, done, self.total, now_ms));
        }
    }
}

/// How far it is, in words.
fn told(what: &str, done: u64, total: u64, took_ms: u64) -> String {
    // What is estimated may turn out to be more, and nothing is over before its end.
    let share = (done as f64 / total.max(1) as f64).min(0.99);
    let left_s = took_ms as f64 / 1e3 * (1.0 - share) / share.max(1e-6);
    format!("{:.0} % of {what}, about {left_s:.0} s to go", share * 100.0)
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
    let progress = Progress::new(format!("{} runs", jobs.len()), requests);
    let step = |done: u64, _| progress.came(done);
    let clock = || progress.elapsed_ns();
    let done = in_parallel(&jobs, |(world, (_, spec), seed, place)| {
        let setup = Setup { progress: Some(&step), clock: Some(&clock), ..world.setup(*place) };
        let run = lab::run(&setup, spec.as_ref(), *seed);
        progress.over(setup.workload.asks().len() as u64);
        run
    });
    let mut runs = done.into_iter().collect::<Result<Vec<Run>, String>>().map_err(BadUsage)?.into_iter();
    let of = |(_, (name, _), ..): &Job<'_>| (name.clone(), runs.by_ref().take(seeds.len()).collect());
    Ok(jobs.iter().step_by(seeds.len()).map(of).collect())
}

/// Rates that a search plays for its first share, about, and for each other one.
const RATES_FIRST: u64 = 11;
const RATES_FURTHER: u64 = 4;

/// Searches the capacity of every strategy for every share, with the first seed.
pub(super) fn capacities(worlds: &[Ready], seed: u64, shares: &[f64], results: &mut Results) {
    let jobs: Vec<_> =
        worlds.iter().flat_map(|world| world.strategies.iter().map(move |(_, spec)| (world, spec))).collect();
    let rates = RATES_FIRST + RATES_FURTHER * (shares.len() as u64).saturating_sub(1);
    let largest = worlds.iter().map(|world| world.setup(0).workload.asks().len() as u64).max().unwrap_or(0);
    let each = rates * largest;
    let progress =
        Progress::new(format!("the search for capacities of {}", jobs.len()), each * jobs.len() as u64);
    let step = |done: u64, _| progress.came(done);
    let searched = AtomicU64::new(0);
    let found = in_parallel(&jobs, |(world, spec)| {
        // Rates that were played for one share tell of the others.
        let mut played: BTreeMap<u64, f64> = BTreeMap::new();
        let mut good_share = |rate: f64| {
            *played.entry(rate.to_bits()).or_insert_with(|| {
                let setup = Setup { rate, progress: Some(&step), ..world.setup(0) };
                let run = lab::run(&setup, spec.as_ref(), seed);
                progress.over(setup.workload.asks().len() as u64);
                run.map_or(0.0, |run| run.goodput.share)
            })
        };
        let of = |share: &f64| (format!("{}", share * 100.0), lab::capacity(*share, &mut good_share));
        let found = shares.iter().map(of).collect::<BTreeMap<String, f64>>();
        progress.at_least((searched.fetch_add(1, Ordering::Relaxed) + 1) * each);
        found
    });
    for (strategy, found) in results.strategies.iter_mut().zip(found) {
        strategy.capacity = found;
    }
}

/// Does all jobs on all processors; gives what came of them in their order.
pub(in crate::cli) fn in_parallel<J: Sync, R: Send>(jobs: &[J], work: impl Fn(&J) -> R + Sync) -> Vec<R> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_far_it_is_is_told_and_never_more_than_all() {
        assert_eq!(told("4 runs", 25, 100, 5_000), "25 % of 4 runs, about 15 s to go");
        assert_eq!(told("the search", 150, 100, 9_900), "99 % of the search, about 0 s to go");
    }

    #[test]
    fn every_request_counts_once() {
        for requests in [1, 4_095, 4_096, 4_097, 9_000] {
            let progress = Progress::new("a run".to_owned(), requests);
            // As a run tells of them: the first of every so many.
            (0..requests).step_by(TOLD_EVERY as usize).for_each(|came| progress.came(came));
            progress.over(requests);
            assert_eq!(progress.requests.load(Ordering::Relaxed), requests, "{requests}");
        }
    }
}
