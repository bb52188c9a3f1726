//! The scenarios of the repository come out as they must. `pointsman simulate --scenario scenarios --seeds 5` prints
//! all figures. One test for each part of the folder, so that they run at the same time.

use std::path::PathBuf;

use pointsman_simulator::Scenario;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=2;
const PARTS: usize = 4;

fn files() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios");
    let entries = std::fs::read_dir(folder).expect("scenarios").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = entries.collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

#[track_caller]
fn part(part: usize) {
    let mut broken = Vec::new();
    for path in files().iter().skip(part).step_by(PARTS) {
        let text = std::fs::read_to_string(path).expect("readable");
        let parsed = Scenario::parse(&text).map_err(|error| format!("{}: {error}", path.display()));
        let scenario = parsed.expect("a good scenario");
        for seed in SEEDS {
            let again = format!("pointsman simulate --scenario {} --seed {seed}", path.display());
            let run = || scenario.run(seed).broken;
            let lines =
                std::panic::catch_unwind(run).unwrap_or_else(|_| vec!["a panic, see above".to_owned()]);
            broken.extend(lines.into_iter().map(|line| format!("{line}; again: {again}")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn scenarios_come_out_as_they_must_1() {
    part(0);
}

#[test]
fn scenarios_come_out_as_they_must_2() {
    part(1);
}

#[test]
fn scenarios_come_out_as_they_must_3() {
    part(2);
}

#[test]
fn scenarios_come_out_as_they_must_4() {
    part(3);
}

#[test]
fn there_are_scenarios() {
    assert!(files().len() >= 15);
}
