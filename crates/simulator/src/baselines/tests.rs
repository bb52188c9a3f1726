//! What each baseline picks, through the live seam.

use std::sync::Arc;

use pointsman_routing::catalog::Catalog;
use pointsman_routing::facts::PrefixBlock;
use pointsman_routing::strategy::StrategySpec;
use pointsman_routing::{Fleet, Now, Rng};
use pointsman_settings::Sources;

use crate::lab::strategy;
use crate::workload::{Record, Workload};

/// Who is picked for each of these prompts in turn, none of which ever ends; a prompt is its blocks of 512 tokens.
fn picks(name: &str, prompts: &[&[u64]]) -> Vec<String> {
    let text = "providers: { p: { kind: vllm, base_url: 'http://p' } }\n\
                models: { m: { deployments: [{ name: a, provider: p }, { name: b, provider: p }, { name: c, provider: p }] } }";
    let none = |_: &str| None;
    let config = pointsman_settings::parse(text, &Sources { env: &none, file: &|_| Err(String::new()) });
    let mut catalog: Catalog = config.expect("a good config").catalog();
    let spec: StrategySpec = strategy(name).expect("known");
    catalog.models.get_mut("m").expect("there").strategy = spec;
    let mut fleet = Fleet::new();
    fleet.apply(&catalog, Now::ZERO);
    let mut workload = Workload::new("by hand");
    for prompt in prompts {
        let blocks = prompt.iter().zip(1..).map(|(hash, end)| (512 * end, *hash)).collect();
        let tokens_in = 512 * prompt.len() as u32 + 1;
        workload.push(&Record { tokens_in, blocks, ..Record::default() });
    }
    let mut rng = Rng::seeded(1);
    let model = fleet.model("m").expect("there");
    let facts = |ask: &crate::Ask| {
        let prefix: Arc<[PrefixBlock]> =
            workload.blocks(ask).map(|(tokens, hash)| PrefixBlock { tokens, hash }).collect();
        crate::lab::facts_of(model, &workload, ask, prefix)
    };
    let mut flows = Vec::new();
    for ask in workload.asks() {
        let mut flow = pointsman_routing::Flow::new(facts(ask), Now::ZERO);
        let _ = flow.step(&mut fleet, Now::ZERO, &mut rng, pointsman_routing::Input::Arrived);
        flows.push(flow);
    }
    flows.iter().map(|flow| flow.attempts()[0].name.to_string()).collect()
}

fn counts(name: &str, requests: usize) -> Vec<usize> {
    let picked = picks(name, &vec![&[] as &[u64]; requests]);
    ["a", "b", "c"].iter().map(|one| picked.iter().filter(|name| name == one).count()).collect()
}

#[test]
fn round_robin_goes_round() {
    let picked = picks("rr", &[&[] as &[u64]; 6]);
    assert_eq!(picked[..3], picked[3..]);
    assert_eq!(counts("plain_round_robin", 6), [2, 2, 2]);
}

#[test]
fn those_that_count_requests_spread_them() {
    assert_eq!(counts("least_outstanding", 9), [3, 3, 3]);
    let two = counts("p2c", 300);
    assert!(two.iter().all(|count| (95..=105).contains(count)), "{two:?}");
    let random = counts("plain_random", 300);
    assert!(random.iter().all(|count| (60..=140).contains(count)), "{random:?}");
}

#[test]
fn hashing_keeps_what_begins_alike_together_and_its_bound_spreads_it() {
    let plain = picks("plain_hash", &[&[1, 2], &[1, 2, 3], &[1, 2, 4], &[1, 2, 5]]);
    assert!(plain.iter().all(|name| *name == plain[0]), "{plain:?}");
    let bounded = picks("hash_bounded", &[&[1_u64, 2] as &[u64]; 12]);
    let most = ["a", "b", "c"].map(|one| bounded.iter().filter(|name| *name == one).count());
    assert!(most.iter().all(|count| (2..=6).contains(count)), "{most:?}");
}

#[test]
fn prefix_rules_find_what_they_sent_before() {
    for name in ["sglang_like", "llmd_like"] {
        let picked = picks(name, &[&[1, 2, 3], &[4, 5, 6], &[1, 2, 3, 7], &[4, 5, 6, 8]]);
        assert!(
            picked[0] == picked[2] && picked[1] == picked[3] && picked[0] != picked[1],
            "{name}: {picked:?}"
        );
    }
}

#[test]
fn the_llmd_like_rule_sees_no_further_than_4096_tokens() {
    let first: Vec<u64> = (0..20).collect();
    let mut other = first.clone();
    other[8..].iter_mut().for_each(|hash| *hash += 100);
    let picked = picks("llmd_like", &[&first, &other]);
    assert_eq!(picked[0], picked[1], "they part after eight blocks, where it does not look");
}

#[test]
fn what_is_unknown_is_told_what_there_is() {
    let error = strategy("p3c").expect_err("none");
    assert!(
        error.contains("unknown strategy `p3c`") && error.contains("baselines: plain_round_robin, "),
        "{error}"
    );
    assert!(strategy("lor{\"x\":1}").expect_err("none").contains("takes no options"));
    assert!(strategy("consistent_hash{\"bound\":2.0}").is_ok());
}
