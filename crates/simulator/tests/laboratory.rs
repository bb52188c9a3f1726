//! The experiments of `scenarios/lab`: each can be run, and the large one fits its time and memory.

use std::sync::Arc;

use pointsman_simulator::lab::{Beside, Plan, run};
use pointsman_simulator::trace;

const EXPERIMENTS: [(&str, &str); 7] = [
    ("batch-flood", include_str!("../../../scenarios/lab/batch-flood.yaml")),
    ("churn", include_str!("../../../scenarios/lab/churn.yaml")),
    ("hog", include_str!("../../../scenarios/lab/hog.yaml")),
    ("hot-model", include_str!("../../../scenarios/lab/hot-model.yaml")),
    ("many-routers", include_str!("../../../scenarios/lab/many-routers.yaml")),
    ("mooncake", include_str!("../../../scenarios/lab/mooncake.yaml")),
    ("uneven", include_str!("../../../scenarios/lab/uneven.yaml")),
];
const LARGE: &str = include_str!("../../../scenarios/lab/large.yaml");

/// A short trace for those that need one.
const TRACE: &str = r#"{"timestamp": 0, "input_length": 6758, "output_length": 50, "hash_ids": [0, 1, 2, 3, 4, 5]}
{"timestamp": 0, "input_length": 3072, "output_length": 49, "hash_ids": [0, 14, 15, 16, 17, 18]}
{"timestamp": 3000, "input_length": 3600, "output_length": 9, "hash_ids": [0, 1, 2, 3, 4, 5, 6]}
"#;

#[test]
fn every_experiment_can_be_run() {
    let trace = Arc::new(trace::read(TRACE.as_bytes()).expect("a good trace"));
    for (name, text) in EXPERIMENTS {
        let plan = Plan::parse(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let beside = Beside { trace: Some(trace.clone()), seeds: vec![1], catalog: None };
        let worlds = plan.ready(&beside).unwrap_or_else(|error| panic!("{name}: {error}"));
        for world in &worlds {
            for (strategy, spec) in &world.strategies {
                let run = run(&world.setup(0), spec.as_ref(), 1).expect("run");
                assert_eq!(run.outcomes.get("completed"), Some(&3), "{name}: {strategy}");
                assert_eq!(run.broken, Vec::<String>::new(), "{name}: {strategy}");
            }
        }
        let made = Beside { seeds: vec![1], ..Beside::default() };
        assert_eq!(plan.ready(&made).is_ok(), plan.workload.is_some(), "{name}: its streams are good");
    }
}

/// `cargo test --release -p pointsman-simulator --test laboratory -- --ignored` with a clock beside it.
#[test]
#[ignore = "a million requests; takes minutes"]
fn a_thousand_deployments_a_hundred_routers_a_million_requests() {
    let each = |line: fn(usize) -> String| (0..1_000).map(line).collect::<String>();
    let providers = each(|n| format!("    g{n}: {{ kind: vllm, base_url: 'http://g{n}' }}\n"));
    let deployments = each(|n| format!("        - {{ name: d{n}, provider: g{n} }}\n"));
    let config =
        format!("config: |\n  providers:\n{providers}  models:\n    m:\n      deployments:\n{deployments}");
    let plan = Plan::parse(&format!("{LARGE}{config}")).expect("a good plan");
    let worlds = plan.ready(&Beside { seeds: vec![1], ..Beside::default() }).expect("ready");
    let setup = worlds[0].setup(0);
    assert!(setup.workload.asks().len() > 990_000, "{}", setup.workload.asks().len());
    let run = run(&setup, worlds[0].strategies[0].1.as_ref(), 1).expect("run");
    assert_eq!(run.outcomes.get("completed"), Some(&(setup.workload.asks().len() as u64)));
    assert_eq!(run.broken, Vec::<String>::new());
}
