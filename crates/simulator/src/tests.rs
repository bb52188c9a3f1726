//! The world keeps its own laws, and shows what the rules do.

use pointsman_routing::Catalog;
use pointsman_settings::Sources;

use crate::{Fault, Rate, Report, Scenario, Spec, What, run};

fn catalog(strategy: &str) -> Catalog {
    let text = format!(
        "providers:\n  a: {{ kind: vllm, base_url: 'http://a', slots: 32 }}\n  b: {{ kind: vllm, base_url: 'http://b', slots: 32 }}\n\
         models:\n  m:\n    strategy: {strategy}\n    deployments: [ {{ name: a, provider: a }}, {{ name: b, provider: b }} ]\n"
    );
    let sources = Sources { env: &|_| None, file: &|_| Err("none".to_owned()) };
    pointsman_settings::parse(&text, &sources).expect("a good config").catalog()
}

fn rate(per_s: f64) -> Vec<Rate> {
    vec![Rate { from_s: 0.0, per_s }]
}

fn fault(deployment: &str, from_s: f64, until_s: f64, what: What) -> Fault {
    Fault::new(deployment, from_s, until_s, what)
}

fn spec() -> Spec {
    Spec { model: "m".to_owned(), requests: 2_000, ..Spec::default() }
}

fn outcome(report: &Report, name: &str) -> u64 {
    report.outcomes.get(name).copied().unwrap_or(0)
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let spec = Spec {
        error_rate: 0.05,
        leave_rate: 0.1,
        faults: vec![fault("a", 0.0, 1e9, What::Quota(0.02))],
        ..spec()
    };
    let catalog = catalog("least_busy");
    assert_eq!(run(&catalog, &spec, 7), run(&catalog, &spec, 7));
    assert_ne!(run(&catalog, &spec, 7).log_hash, run(&catalog, &spec, 8).log_hash);
}

#[test]
fn least_busy_sends_less_to_the_slower() {
    let spec = Spec { faults: vec![fault("b", 0.0, 1e9, What::Slow(2.0))], rates: rate(40.0), ..spec() };
    let busy = run(&catalog("least_busy"), &spec, 1);
    let turns = run(&catalog("round_robin"), &spec, 1);
    assert!((turns.deployments["a"].share - 0.5).abs() < 0.01, "{turns:?}");
    assert!(busy.deployments["a"].share > 0.55, "{busy:?}");
    let gap = |report: &Report| {
        (report.deployments["a"].inflight_mean - report.deployments["b"].inflight_mean).abs()
    };
    assert!(gap(&busy) < gap(&turns), "least_busy evens out the load");
}

#[test]
fn a_crash_costs_what_was_in_flight_and_no_more() {
    let spec = Spec { faults: vec![fault("b", 10.0, 20.0, What::Crash)], ..spec() };
    let report = run(&catalog("least_busy"), &spec, 1);
    let lost = outcome(&report, "truncated") + outcome(&report, "failed") + outcome(&report, "rejected");
    assert!(lost > 0 && lost <= 32, "at most the slots of one deployment: {report:?}");
    assert_eq!(outcome(&report, "completed") + lost, 2_000);
}

#[test]
fn overload_is_refused_and_everything_ends() {
    let spec = Spec { rates: rate(400.0), leave_rate: 0.2, error_rate: 0.1, ..spec() };
    let report = run(&catalog("least_busy"), &spec, 1);
    assert!(outcome(&report, "rejected") > 0, "{report:?}");
    assert_eq!(report.outcomes.values().sum::<u64>(), 2_000);
}

/// Runs the random worlds of some seeds; what breaks is told with the command that shows it again.
#[track_caller]
fn worlds(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let run = || {
            let scenario = Scenario::parse(&Scenario::random(seed))?;
            let verdict = scenario.run(seed);
            Ok::<_, String>((verdict.broken, verdict.report.log_hash))
        };
        let told = |what: &str| format!("{what}; again: pointsman simulate --random --seed {seed}");
        let run =
            || std::panic::catch_unwind(run).unwrap_or_else(|_| panic!("{}", told("a panic, see above")));
        match run() {
            Ok((broken, hash)) => {
                assert!(broken.is_empty(), "{}", told(&broken.join("; ")));
                // Every tenth twice: the same seed gives the same run.
                assert!(
                    seed % 10 != 0 || run().is_ok_and(|(_, again)| again == hash),
                    "{}",
                    told("not the same run")
                );
            }
            Err(error) => panic!("{}", told(&error)),
        }
    }
}

// Apart, so that they run at the same time.
#[test]
fn worlds_0_to_199_keep_the_invariants() {
    worlds(0..200);
}

#[test]
fn worlds_200_to_399_keep_the_invariants() {
    worlds(200..400);
}

#[test]
fn worlds_400_to_599_keep_the_invariants() {
    worlds(400..600);
}

#[test]
fn e9_hedges_cut_the_tail_for_a_fiftieth_of_the_tokens() {
    let text = |hedge: &str| {
        format!(
            "providers:\n  a: {{ kind: vllm, base_url: 'http://a', slots: 64 }}\n  b: {{ kind: vllm, base_url: 'http://b', slots: 64 }}\n\
             models:\n  m:\n    strategy: least_busy\n{hedge}    deployments: [ {{ name: a, provider: a }}, {{ name: b, provider: b }} ]\n"
        )
    };
    let sources = Sources { env: &|_| None, file: &|_| Err("none".to_owned()) };
    let catalog = |hedge| pointsman_settings::parse(&text(hedge), &sources).expect("a good config").catalog();
    let spec = Spec {
        requests: 20_000,
        first_content_base_ms: 150,
        noise: 0.1,
        faults: (0..60)
            .map(|minute| {
                fault("a", f64::from(minute) * 20.0, f64::from(minute) * 20.0 + 0.6, What::Slow(8.0))
            })
            .collect(),
        ..spec()
    };
    for seed in 1..=5 {
        let plain = run(&catalog(""), &spec, seed);
        let hedged = run(&catalog("    hedge: { after: 2 }\n"), &spec, seed);
        let more = hedged.attempts as f64 / 20_000.0;
        // A fiftieth of the tokens; short requests are more of the requests than of the tokens.
        assert!(more > 1.002 && more <= 1.04, "{more}");
        assert!(
            hedged.first_content_ms_p99 < 0.7 * plain.first_content_ms_p99,
            "p99 {} against {} ms",
            hedged.first_content_ms_p99,
            plain.first_content_ms_p99
        );
    }
}
