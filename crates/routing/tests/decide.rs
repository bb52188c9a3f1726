//! What is chosen, and why not the others.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_routing::catalog::{Catalog, SplitSpec, Sticky};
use pointsman_routing::decision::{Outcome, WhyNot};
use pointsman_routing::failure::Processed;
use pointsman_routing::{Facts, FailureClass, decide};
use support::{World, catalog, chosen, failed, sent};

fn check(name: &str, lines: &[&str], change: impl Fn(&mut Facts), expected: &str) {
    let mut world = World::new(&catalog("random", lines));
    let mut facts = world.facts();
    change(&mut facts);
    for _ in 0..20 {
        let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        assert_eq!(chosen(&decision), expected, "{name}: {decision:?}");
    }
}

#[test]
fn filters_and_their_rejections() {
    let same = |_: &mut Facts| ();
    let version = |facts: &mut Facts| facts.version = Some("2".into());
    let tag = |facts: &mut Facts| facts.tags.push("x".into());
    check("the lowest tier", &["a tier=2", "b tier=1"], same, "b");
    check("a drained tier is passed over", &["a tier=1 weight=0", "b tier=2"], same, "b");
    check("draining too", &["a tier=1 draining", "b tier=2"], same, "b");
    check("version", &["a version=1", "b version=2"], version, "b");
    check("no such version", &["a version=1", "b"], version, "no_such_version");
    check("tag", &["a", "b tag=x"], tag, "b");
    check("no such tags", &["a tag=y"], tag, "no_such_tags");
    check("capable", &["a deaf", "b"], same, "b");
    check("not capable", &["a deaf"], same, "not_capable");
    check("it must fit, output included", &["a context=199", "b context=200"], same, "b");
    check("too long for all", &["a context=199"], same, "too_long");
    check("all drained", &["a weight=0"], same, "unavailable");
    check("none", &[], same, "no_deployment");
}

#[test]
fn the_record_says_why_not() {
    let mut world = World::new(&catalog("least_busy", &["a version=2", "b draining", "c", "d tier=2"]));
    let facts = world.facts();
    let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    let why: Vec<_> = decision.candidates.iter().map(|candidate| candidate.why_not).collect();
    assert_eq!(why, [None, Some(WhyNot::Drained), None, Some(WhyNot::LaterTier)]);
    assert!(decision.candidates[0].score().is_some());
}

#[test]
fn a_full_tier_spills_into_the_next() {
    let mut world = World::new(&catalog("least_busy", &["a slots=1", "b tier=2 slots=1"]));
    let (_first, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    let (_second, action) = world.arrive();
    assert_eq!(sent(&action), Some("b"));
}

#[test]
fn regions_are_preferred_and_never_required() {
    let lines = ["east region=us-east", "west region=us-west", "nowhere"];
    let with_order = |order: &[&str]| -> Catalog {
        let mut catalog = catalog("random", &lines);
        let model = catalog.models.get_mut("m").expect("m");
        model.region.order = order.iter().map(|region| (*region).into()).collect();
        catalog
    };
    for (order, hint, expected) in [
        (&["us-west", "us-east"][..], None, "west"),
        (&["us-west", "us-east"][..], Some("us-east"), "east"),
        (&["eu"][..], Some("us-west"), "west"),
    ] {
        let mut world = World::new(&with_order(order));
        let facts = Facts { region: hint.map(Into::into), ..world.facts() };
        for _ in 0..10 {
            let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
            assert_eq!(chosen(&decision), expected, "{order:?} {hint:?}");
        }
    }
}

#[test]
fn regions_by_latency_go_by_what_was_measured() {
    let mut catalog = catalog("random", &["east region=us-east", "west region=us-west"]);
    catalog.models.get_mut("m").expect("m").region.by_latency = true;
    let mut world = World::new(&catalog);
    let model = world.fleet.model("m").expect("m");
    for (name, ms) in [("west", 5), ("east", 80)] {
        let facts = world.facts();
        let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        assert!(name == "west" || chosen(&decision) == name, "who was never measured is tried");
        let id = world.fleet.deployment(model, name).expect("there");
        let event = pointsman_routing::fleet::Event::ConnectTime(id, Duration::from_millis(ms));
        world.fleet.observe(world.now, event);
    }
    let facts = world.facts();
    for _ in 0..20 {
        let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        assert_eq!(chosen(&decision), "west", "also while no new connection is made for minutes");
        world.wait(Duration::from_secs(15));
    }
}

#[test]
fn arms_are_sticky_and_a_dead_arm_fails_nobody() {
    let mut catalog = catalog("random", &["a arm=stable", "b arm=canary slots=1"]);
    let arms = vec![("stable".into(), 50), ("canary".into(), 50)];
    catalog.models.get_mut("m").expect("m").split = Some(SplitSpec { sticky: Sticky::Tenant, arms });
    let mut world = World::new(&catalog);
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for tenant in 0..2000_u64 {
        let facts = Facts { tenant_hash: tenant.wrapping_mul(0x9E37_79B9_7F4A_7C15), ..world.facts() };
        let first = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        let again = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        assert_eq!(first.arm, again.arm);
        *counts.entry(chosen(&first)).or_default() += 1;
    }
    assert!(counts["a"] > 850 && counts["b"] > 850, "{counts:?}");
    catalog.models.get_mut("m").expect("m").deployments[1].draining = true;
    world.fleet.apply(&catalog, world.now);
    for tenant in 0..50_u64 {
        let facts = Facts { tenant_hash: tenant.wrapping_mul(0x9E37_79B9_7F4A_7C15), ..world.facts() };
        let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        assert_eq!(chosen(&decision), "a");
    }
}

#[test]
fn e11_the_soonest_return_is_the_retry_after() {
    let mut world = World::new(&catalog("random", &["a", "b"]));
    for wait_s in [40, 20] {
        let (mut flow, _) = world.arrive();
        let _ = world
            .step(&mut flow, failed(FailureClass::Overloaded, Processed::RefusedWithError, Some(wait_s)));
        if world.fleet.permits_in_use() > 0 {
            let _ = world
                .step(&mut flow, failed(FailureClass::Overloaded, Processed::RefusedWithError, Some(20)));
        }
    }
    let facts = world.facts();
    let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    let Outcome::Rejected { retry_after: Some(after), .. } = decision.outcome else { panic!("{decision:?}") };
    assert_eq!(after, Duration::from_secs(20));
}

#[test]
fn weights_change_live_and_the_state_stays() {
    let before = catalog("weighted_round_robin", &["a weight=3", "b weight=1"]);
    let after = catalog("weighted_round_robin", &["a weight=1", "b weight=1"]);
    let mut world = World::new(&before);
    let picks = |world: &mut World, times: usize| -> String {
        let facts = world.facts();
        let pick = |_| chosen(&decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng));
        (0..times).map(pick).collect()
    };
    assert_eq!(picks(&mut world, 8), "aabaaaba");
    world.fleet.apply(&after, world.now);
    let next = picks(&mut world, 8);
    assert_eq!(next.matches('a').count(), 4, "{next}");
    assert!(!next.contains("aaa") && !next.contains("bbb"), "no burst: {next}");
}

#[test]
fn lengths_are_held_to_each_deployment() {
    let mut catalog = catalog("round_robin", &["small context=150", "short", "large"]);
    if let Some(model) = catalog.models.get_mut("m") {
        model.deployments[1].output_tokens_max = Some(50);
    }
    let mut world = World::new(&catalog);
    let facts = world.facts();
    let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    let why: Vec<_> = decision.candidates.iter().map(|candidate| candidate.why_not).collect();
    assert_eq!(
        why,
        [
            Some(WhyNot::TooLong { context_tokens_max: 150 }),
            Some(WhyNot::OutputTooLong { output_tokens_max: 50 }),
            None
        ]
    );
    let fits = Facts { tokens_in_estimate: 1000, tokens_in_min: 50, ..world.facts() };
    let decision = decide(&mut world.fleet, &fits, &[], world.now, &mut world.rng);
    assert_eq!(decision.candidates[0].why_not, None, "only what cannot fit is kept away");
}
