//! Twice as much as can be served, for a minute: the figures hold for several seeds, and without the rules they do not.

use pointsman_simulator::{Scenario, Verdict};

fn scenario(name: &str, change: (&str, &str)) -> Scenario {
    let text = match name {
        "overload" => include_str!("../../../scenarios/overload.yaml"),
        "overload-engine" => include_str!("../../../scenarios/overload-engine.yaml"),
        other => {
            assert_eq!(other, "overload-paid");
            include_str!("../../../scenarios/overload-paid.yaml")
        }
    };
    let changed = text.replacen(change.0, change.1, 1);
    assert!(change.0 == change.1 || changed.as_str() != text, "the change applies");
    Scenario::parse(&changed).expect("a good scenario")
}

fn run(name: &str, change: (&str, &str), seed: u64) -> Verdict {
    scenario(name, change).run(seed)
}

#[test]
fn twice_the_load_for_a_minute_costs_neither_capacity_nor_what_comes_after() {
    for name in ["overload", "overload-engine", "overload-paid"] {
        for seed in 1..=5 {
            let verdict = run(name, ("", ""), seed);
            assert!(verdict.broken.is_empty(), "{name} seed {seed}: {:?}", verdict.broken);
        }
    }
}

#[test]
fn without_the_limiter_an_engine_drowns() {
    let off = ("kind: gradient", "kind: 'off'");
    assert!(!run("overload-engine", off, 1).broken.is_empty());
}

#[test]
fn first_come_first_served_serves_whoever_has_given_up() {
    let plain = ("wait_ms_max: 2000", "wait_ms_max: 20000, target_ms: 0");
    let kept = ("wait_ms_max: 2000", "wait_ms_max: 20000");
    let objective = |verdict: &Verdict| verdict.report.completed_per_s(65.0, 120.0, 500.0);
    let (plain, kept) = (objective(&run("overload", plain, 1)), objective(&run("overload", kept, 1)));
    assert!(kept > 52.0 && plain < 5.0, "{kept} a second begun within half a second, {plain} without");
}
