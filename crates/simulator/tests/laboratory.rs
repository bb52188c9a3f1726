//! The experiments of `scenarios/lab`: each can be run, and the large one fits its time and memory.

use std::sync::Arc;

use pointsman_simulator::lab::{Beside, Plan, Ready, run};
use pointsman_simulator::trace;

const EXPERIMENTS: [(&str, &str); 8] = [
    ("batch-flood", include_str!("../../../scenarios/lab/batch-flood.yaml")),
    ("churn", include_str!("../../../scenarios/lab/churn.yaml")),
    ("hog", include_str!("../../../scenarios/lab/hog.yaml")),
    ("hot-model", include_str!("../../../scenarios/lab/hot-model.yaml")),
    ("many-routers", include_str!("../../../scenarios/lab/many-routers.yaml")),
    ("mistaken", include_str!("../../../scenarios/lab/mistaken.yaml")),
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

/// The line of the table that speaks of wrong coefficients and a cold start, with few seeds; `pointsman simulate --lab` runs
/// it with more.
#[test]
fn what_was_learnt_wrongly_or_lost_is_learnt_again_within_500_requests() {
    let plan = Plan::parse(include_str!("../../../scenarios/lab/mistaken.yaml")).expect("a good plan");
    let ready = plan.ready(&Beside { seeds: vec![1, 2, 3], ..Beside::default() }).expect("ready");
    let name = "predicted_latency";
    let mean = |world: &Ready| {
        let spec = world.strategies.iter().find(|(known, _)| known.starts_with(name)).expect("compared");
        let of_seed = |place: usize| {
            let run = run(&world.setup(place), spec.1.as_ref(), place as u64 + 1).expect("run");
            assert_eq!(run.broken, Vec::<String>::new());
            let then = run.tenants.iter().find(|tenant| tenant.name == "then").expect("it asks");
            assert!(then.completed > 2_000, "{then:?}");
            then.first_token_ms.mean
        };
        (spec.0.clone(), (0..3).map(of_seed).sum::<f64>() / 3.0)
    };
    let means: Vec<(String, f64)> = ready.iter().map(mean).collect();
    assert_eq!(means.len(), 4);
    for (name, mean) in &means[1..] {
        let over = mean / means[0].1;
        println!("{name}: {over:.3} times {:.1} ms", means[0].1);
        assert!(over <= 1.05, "{name}: {over}");
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
