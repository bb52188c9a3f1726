//! The laboratory as a whole: the same seed is the same run, engines and routers are what they are said to be, and what
//! must come out is looked at.

use super::*;

/// A plan with so many replicas.
fn plan(replicas: usize, rest: &str) -> Plan {
    let each = |line: fn(usize) -> String| (0..replicas).map(line).collect::<String>();
    let providers = each(|n| format!("    gpu-{n}: {{ kind: vllm, base_url: 'http://gpu-{n}' }}\n"));
    let deployments = each(|n| format!("        - {{ name: gpu-{n}, provider: gpu-{n} }}\n"));
    let text = format!(
        "about: a test\nconfig: |\n  providers:\n{providers}  models:\n    m:\n      deployments:\n{deployments}"
    );
    Plan::parse(&format!("{text}{rest}")).expect("a good plan")
}

fn results(plan: &Plan, seeds: &[u64]) -> Results {
    let ready = plan.ready(&Beside { seeds: seeds.to_vec(), ..Beside::default() }).expect("ready");
    let mut runs = Vec::new();
    for world in &ready {
        for (name, spec) in &world.strategies {
            let each = seeds.iter().enumerate();
            let each = each.map(|(place, seed)| run(&world.setup(place), spec.as_ref(), *seed).expect("run"));
            runs.push((name.clone(), each.collect()));
        }
    }
    let mut results = compare::results(&ready[0].setup(0), &plan.about, "", runs);
    for must in &plan.must {
        results.figures.extend(must.figures(&results).expect("there are such figures"));
    }
    results
}

const CHAT: &str = "workload:\n  duration_s: 120\n  streams:\n  - { name: chat, per_s: 8, tokens_in: 600, tokens_out: 60, \
                    shared_tokens: 512, sessions: 40, zipf: 0.8, history_tokens_max: 20000 }\n";

#[test]
fn the_same_seed_is_the_same_run() {
    let compared = plan(4, &format!("compare: [p2c, llmd_like, sglang_like, least_busy]\n{CHAT}"));
    let (one, other) = (results(&compared, &[1, 2]), results(&compared, &[1, 2]));
    assert_eq!(one, other);
    let runs = &one.strategies[0].runs;
    assert!(runs[0].first_token_ms != runs[1].first_token_ms, "another seed is another run");
    for strategy in &one.strategies {
        for run in &strategy.runs {
            assert_eq!(run.broken, Vec::<String>::new(), "{}", strategy.name);
            assert_eq!(run.outcomes.keys().collect::<Vec<_>>(), ["completed"], "{}", strategy.name);
            assert!(
                run.tokens_cached_share > 0.0
                    && run.tokens_cached_share <= one.traffic.cacheable_share + 0.05
            );
        }
    }
}

#[test]
fn results_are_read_back_as_they_were_written() {
    let results = results(&plan(2, CHAT), &[1]);
    let text = serde_json::to_string(&results).expect("written");
    let read: Results = serde_json::from_str(&text).expect("read");
    let (one, other) = (&read.strategies[0].runs[0], &results.strategies[0].runs[0]);
    assert_eq!((&one.outcomes, one.series.jain.len()), (&other.outcomes, other.series.jain.len()));
    assert!((one.first_token_ms.mean - other.first_token_ms.mean).abs() < 1e-9);
}

#[test]
fn what_is_compared_is_told_as_ratios_and_held_to_its_bounds() {
    let must = "must:\n- { figure: first_token_ms.mean, of: least_outstanding, over: rr, at_most: 1.5 }\n\
                - { figure: tenants.chat.completed, at_least: 500 }\n- { figure: tokens_cached_share, of: plain_hash, over: rr, \
                at_least: 1.1 }\n- { figure: goodput.share, at_least: 2 }\n";
    let results =
        results(&plan(4, &format!("compare: [rr, least_outstanding, plain_hash]\n{CHAT}{must}")), &[1]);
    assert!((results.strategies[0].ratios.first_token_mean - 1.0).abs() < 1e-12);
    let held: Vec<bool> = results.figures.iter().map(|figure| figure.held).collect();
    assert_eq!(held, [true, true, true, false], "{:?}", results.figures);
    let missing =
        Must { figure: "no.such".to_owned(), of: None, over: None, at_most: Some(1.0), at_least: None };
    assert_eq!(missing.figures(&results), Err("must: a run has no figure `no.such`".to_owned()));
}

#[test]
fn routers_that_know_little_of_each_other_herd_on_old_reports() {
    let world = "compare: [llmd_like]\nworkload:\n  duration_s: 200\n  streams:\n  - { name: c, per_s: 30, tokens_in: 2500, \
                 tokens_out: 100 }\nvariants:\n- { name: stale, world: { routers: 8, staleness_ms: 3000, report_every_ms: 1000 } }\n";
    let results = results(&plan(4, world), &[1]);
    let (fresh, stale) = (&results.strategies[0].runs[0], &results.strategies[1].runs[0]);
    assert_eq!(results.strategies[1].name, "llmd_like, stale");
    assert!(
        stale.first_token_ms.mean > 1.1 * fresh.first_token_ms.mean,
        "{:?} {:?}",
        stale.first_token_ms,
        fresh.first_token_ms
    );
    assert!(stale.balance.jain < fresh.balance.jain);
}

#[test]
fn half_the_speed_shows_where_it_is() {
    let world = "compare: [rr]\nworld: { engines: { by_name: { gpu-1: { slow: 2 } } } }\nworkload:\n  duration_s: 100\n  \
                 streams:\n  - { name: c, per_s: 4, tokens_in: 1000, tokens_out: 50, fixed: true }\n";
    let results = results(&plan(2, world), &[1]);
    let engines = &results.strategies[0].runs[0].balance.engines;
    assert_eq!(
        (engines[0].requests as i64 - engines[1].requests as i64).abs(),
        results.traffic.requests as i64 % 2
    );
    assert!(engines[1].utilisation > 1.3 * engines[0].utilisation, "{engines:?}");
}

#[test]
fn models_of_one_provider_share_its_engine() {
    let text = "about: one box\nconfig: |\n  providers: { box: { kind: vllm, base_url: 'http://box' }, other: { kind: vllm, base_url: \
                'http://other' } }\n  models:\n    a: { deployments: [{ provider: box }] }\n    b: { deployments: [{ provider: box }, { \
                provider: other }] }\nworkload:\n  duration_s: 20\n  streams:\n  - { name: x, model: a, per_s: 5, tokens_in: 100, \
                tokens_out: 10 }\n  - { name: y, model: b, per_s: 5, tokens_in: 100, tokens_out: 10 }\n";
    let results = results(&Plan::parse(text).expect("good"), &[1]);
    let engines = &results.strategies[0].runs[0].balance.engines;
    assert_eq!(engines.len(), 2, "one for each server");
    assert!(engines[0].requests > engines[1].requests && engines[1].requests > 0, "{engines:?}");
}

#[test]
fn slots_of_the_config_bind_late() {
    let text = "about: late\nconfig: |\n  providers: { p: { kind: vllm, base_url: 'http://p', slots: 2 } }\n  models: { m: { deployments: \
                [{ provider: p }] } }\nworkload:\n  duration_s: 30\n  streams:\n  - { name: x, per_s: 2, tokens_in: 3000, tokens_out: 50 }\n";
    let run = results(&Plan::parse(text).expect("good"), &[1]).strategies.remove(0).runs.remove(0);
    assert!(
        run.queue_ms.max > 0.0 && run.series.queued.iter().any(|queued| *queued > 0.0),
        "they wait in the router"
    );
    assert!(
        run.series.inflight.iter().all(|inflight| *inflight <= 2.0),
        "and no more than two in the engine"
    );
    assert_eq!(run.broken, Vec::<String>::new());
}

#[test]
fn a_deployment_that_leaves_moves_its_own_keys_and_gets_them_back() {
    let world = "compare: [plain_hash]\nworld: { reloads: [{ at_s: 100, without: [gpu-2] }, { at_s: 200 }] }\nworkload:\n  duration_s: \
                 300\n  streams:\n  - { name: c, per_s: 40, tokens_in: 100, tokens_out: 10, sessions: 400 }\n";
    let run = results(&plan(5, world), &[1]).strategies.remove(0).runs.remove(0);
    assert!((0.1..=0.3).contains(&run.jitter.remap_on_reload), "a fifth: {:?}", run.jitter);
    assert!(run.jitter.remap_needless.abs() < 1e-12, "and no other: {:?}", run.jitter);
    let engines: Vec<_> = run.remaps.iter().map(|remap| remap.engines).collect();
    assert_eq!(engines, [(5, 4), (4, 5)], "each change is told");
    for remap in &run.remaps {
        assert!((remap.share_least - 0.2).abs() < 1e-12 && remap.sessions > 300, "{remap:?}");
        assert!(remap.share_needless == 0.0, "{remap:?}");
    }
    assert!((run.remaps[0].share - 0.2).abs() < 0.1, "{:?}", run.remaps[0]);
    // Who joins gets its keys on a ramp.
    assert!(run.remaps[1].share > 0.0 && run.remaps[1].share < 0.3, "{:?}", run.remaps[1]);
    assert_eq!(run.broken, Vec::<String>::new());
    assert_eq!(run.outcomes.keys().collect::<Vec<_>>(), ["completed"]);
}

#[test]
fn tenants_are_told_apart_and_idle_time_is_seen() {
    let world = "compare: [plain_hash]\nworkload:\n  duration_s: 100\n  streams:\n  - { name: hog, per_s: 3, tokens_in: 9000, \
                 tokens_out: 20 }\n  - { name: light, tenants: 3, per_s: 0.2, tokens_in: 100, tokens_out: 20 }\n";
    let run = results(&plan(4, world), &[1]).strategies.remove(0).runs.remove(0);
    let names: Vec<&str> = run.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
    assert_eq!((names.len(), names[0]), (4, "hog"));
    assert!(run.tenants[0].share > 0.9 && run.tenants[0].over_even_share > 1.0, "{:?}", run.tenants[0]);
    assert!(
        run.idle_while_queued_s > 10.0,
        "all of the hog is on one engine, the others have little: {}",
        run.idle_while_queued_s
    );
}

#[test]
fn what_a_plan_gets_wrong_is_told() {
    let error = |rest: &str| {
        let beside = Beside { seeds: vec![1], ..Beside::default() };
        plan(2, rest).ready(&beside).expect_err("a bad plan")
    };
    assert_eq!(error(""), "nobody asks: give a `workload` in the file, or --trace FILE");
    assert!(error(&format!("compare: [least_bsy]\n{CHAT}")).contains("did you mean `least_busy`?"));
    assert!(
        error(&format!("world: {{ engines: {{ kind: h200 }} }}\n{CHAT}"))
            .starts_with("unknown engine `h200`; known: ")
    );
    assert_eq!(
        error(&format!("world: {{ routers: 0 }}\n{CHAT}")),
        "`routers` is 0; it must be from 1 to 1000"
    );
    assert!(Plan::parse("about: x\ncolour: red\n").expect_err("unknown").contains("colour"));
}
