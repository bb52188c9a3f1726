//! The scenarios of the repository come out as they must. `pointsman simulate --scenario FILE --seed N` runs one.

use pointsman_simulator::Scenario;

#[test]
fn scenarios_come_out_as_they_must() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scenarios");
    let mut broken = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("scenarios") {
        let path = entry.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let scenario = Scenario::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for seed in 1..=2 {
            let verdict = scenario.run(seed).expect("parsed before");
            broken
                .extend(verdict.broken.iter().map(|line| format!("{} seed {seed}: {line}", path.display())));
        }
        count += 1;
    }
    assert!(count >= 9 && broken.is_empty(), "{count} scenarios:\n{}", broken.join("\n"));
}
