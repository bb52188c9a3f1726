//! `pointsman simulate --scenario` and `--random`: scenario files, over several seeds.

use std::fmt::{Display, Write};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pointsman_simulator::{Figure, Scenario, Verdict};
use serde_json::{Value, json};

use super::simulate::table;
use super::{BadUsage, out};

/// A scenario with the command that runs it again.
struct Named {
    name: String,
    again: String,
    scenario: Scenario,
}

/// Prints the scenario of a seed, to be kept and changed.
pub(super) fn print_random(seed: u64) -> anyhow::Result<()> {
    out(&Scenario::random(seed))
}

/// Runs the random world of a seed; fails when something that must hold did not.
pub(super) fn run_random(seed: u64, json: bool) -> anyhow::Result<()> {
    let scenario = parse(format!("the random world of seed {seed}"), &Scenario::random(seed))?;
    let named = Named { name: "random".to_owned(), again: "--random".to_owned(), scenario };
    run_one(&named, seed, json)
}

/// Runs the scenario of a file, or all of a folder; fails when something that must hold did not.
pub(super) fn run(path: &Path, seed: u64, seeds: Option<u64>, json: bool) -> anyhow::Result<()> {
    let files = files(path)?;
    let named = files.iter().map(|file| {
        let text = std::fs::read_to_string(file).map_err(|error| bad(file.display(), &error))?;
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let again = format!("--scenario {}", file.display());
        Ok(Named { name, again, scenario: parse(file.display(), &text)? })
    });
    let named = named.collect::<anyhow::Result<Vec<_>>>()?;
    match (&named[..], seeds) {
        ([one], None) => run_one(one, seed, json),
        (all, seeds) => run_all(all, seeds.unwrap_or(1).max(1), json),
    }
}

fn bad(what: impl Display, error: &dyn Display) -> anyhow::Error {
    BadUsage(format!("{what}: {error}")).into()
}

fn parse(what: impl Display, text: &str) -> anyhow::Result<Scenario> {
    Scenario::parse(text).map_err(|error| bad(what, &error))
}

/// The file itself, or the scenarios of a folder in order.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|error| bad(path.display(), &error))?;
    let mut files: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    if files.is_empty() {
        return Err(bad(path.display(), &"no .yaml file is in this folder; name a scenario file"));
    }
    Ok(files)
}

fn run_one(named: &Named, seed: u64, json: bool) -> anyhow::Result<()> {
    let Named { scenario, again, .. } = named;
    let verdict = scenario.run(seed);
    if json {
        out(&format!("{}\n", serde_json::to_string_pretty(&as_json(scenario, &verdict))?))?;
    } else {
        let mut text = format!("{}\n{}", scenario.about.trim(), table("of the scenario", &verdict.report));
        for line in &verdict.held {
            let _ = writeln!(text, "  held    {line}");
        }
        for line in &verdict.broken {
            let _ = writeln!(text, "  BROKEN  {line}");
        }
        let _ = writeln!(text, "again: pointsman simulate {again} --seed {seed}");
        out(&text)?;
    }
    let (broken, held) = (verdict.broken.len(), verdict.held.len());
    anyhow::ensure!(broken == 0, "{broken} of {} figures did not hold", broken + held);
    Ok(())
}

fn as_json(scenario: &Scenario, verdict: &Verdict) -> Value {
    json!({
        "about": scenario.about,
        "ok": verdict.broken.is_empty(),
        "figures": verdict.figures,
        "held": verdict.held,
        "broken": verdict.broken,
        "report": verdict.report,
    })
}

/// Runs every scenario with every seed, on all processors, and prints the worst of each figure.
fn run_all(all: &[Named], seeds: u64, json: bool) -> anyhow::Result<()> {
    let verdicts = verdicts(all, seeds);
    let of = || all.iter().zip(verdicts.chunks(seeds as usize));
    if json {
        let runs = |named: &Named, runs: &[Verdict]| {
            let each: Vec<Value> = runs.iter().map(|verdict| as_json(&named.scenario, verdict)).collect();
            json!({ "scenario": named.name, "worst": worst(runs), "runs": each })
        };
        let all: Vec<Value> = of().map(|(named, verdicts)| runs(named, verdicts)).collect();
        out(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        let mut text = format!("| scenario | figure | must | worst of {seeds} |\n|---|---|---|---|\n");
        for (named, verdicts) in of() {
            for figure in worst(verdicts) {
                let most = if figure.at_most { "at most" } else { "at least" };
                let (what, bound, value) = (&figure.what, figure.bound, round(figure.value));
                let mark = if figure.held() { "" } else { " BROKEN" };
                let _ = writeln!(text, "| {} | {what} | {most} {bound} | {value}{mark} |", named.name);
            }
        }
        out(&text)?;
    }
    let mut broken = 0;
    for (named, verdicts) in of() {
        for (place, verdict) in verdicts.iter().enumerate().filter(|(_, verdict)| !verdict.broken.is_empty())
        {
            broken += 1;
            let (again, lines) = (&named.again, verdict.broken.join("; "));
            out(&format!("BROKEN {lines}; again: pointsman simulate {again} --seed {}\n", place + 1))?;
        }
    }
    anyhow::ensure!(broken == 0, "{broken} of {} runs did not hold", verdicts.len());
    Ok(())
}

/// What each scenario comes to with each seed, in order.
fn verdicts(all: &[Named], seeds: u64) -> Vec<Verdict> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(named) = all.get(at / seeds as usize) else { return done };
            done.push((at, named.scenario.run(1 + at as u64 % seeds)));
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<(usize, Verdict)> = thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let done = running.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic)));
        done.flatten().collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, verdict)| verdict).collect()
}

/// The worst of each figure over several runs.
fn worst(runs: &[Verdict]) -> Vec<Figure> {
    let mut worst: Vec<Figure> = Vec::new();
    for figure in runs.iter().flat_map(|verdict| &verdict.figures) {
        match worst.iter_mut().find(|known| known.what == figure.what) {
            Some(known) if (figure.value > known.value) == figure.at_most => *known = figure.clone(),
            Some(_) => {}
            None => worst.push(figure.clone()),
        }
    }
    worst
}

/// Three digits behind the point are enough to read; whole numbers need none.
fn round(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
