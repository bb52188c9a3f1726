//! Faults of group F: deployments that fail, lie, come back cold or change under way. Named by their ids.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_routing::decision::WhyNot;
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, Input};
use pointsman_routing::{DeploymentId, Facts, FailureClass, decide};
use support::{World, catalog, chosen, failed, sent};

fn id(world: &World, name: &str) -> DeploymentId {
    let model = world.fleet.model("m").expect("the model m");
    world.fleet.deployment(model, name).expect("a deployment of that name")
}

fn state(world: &World, name: &str) -> &'static str {
    let view = world.fleet.view(world.now);
    view.models[0].deployments.iter().find(|one| &*one.name == name).map(|one| one.state).expect("its state")
}

fn probe(world: &mut World, name: &str, healthy: bool) {
    let deployment = id(world, name);
    world.fleet.observe(world.now, Event::Probe { deployment, healthy });
}

/// Refuses connections until it is left alone.
fn fail(world: &mut World, name: &str) {
    for _ in 0..60 {
        let (mut flow, action) = world.arrive();
        if sent(&action) == Some(name) {
            let _ = world.step(&mut flow, failed(FailureClass::Connect, Processed::No, None));
        }
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    assert_eq!(state(world, name), "failed");
}

/// How often each is chosen.
fn counts(world: &mut World, times: usize) -> BTreeMap<String, usize> {
    let facts = world.facts();
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
        *counts.entry(chosen(&decision)).or_default() += 1;
    }
    counts
}

#[test]
fn f2_a_green_health_check_does_not_make_a_failed_deployment_healthy() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    fail(&mut world, "a");
    probe(&mut world, "a", true);
    assert_eq!(state(&world, "a"), "failed", "that it can be reached does not mean that it serves");
    assert!(!counts(&mut world, 500).contains_key("a"));
}

#[test]
fn f2_a_request_that_was_never_sent_makes_nobody_healthy() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    fail(&mut world, "a");
    world.wait(Duration::from_secs(8));
    let (mut flow, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"), "it is probed");
    // It could not be written in the dialect of the deployment.
    let action = world.step(&mut flow, failed(FailureClass::Client, Processed::No, None));
    assert!(matches!(action, Action::Reject(_)), "{action:?}");
    assert_eq!(state(&world, "a"), "failed");
    let (_flow, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"), "the next one probes it");
}

#[test]
fn f3_one_timeout_quarantines_nobody_and_many_not_for_ever() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    let (mut flow, action) = world.arrive();
    let name = sent(&action).expect("somewhere").to_owned();
    world.wait(Duration::from_secs(3));
    let _ = world.step(&mut flow, Input::TimerFired);
    assert_eq!(state(&world, &name), "healthy", "one connect timeout proves nothing");
    let _ = world.step(&mut flow, Input::ClientGone);
    fail(&mut world, &name);
    // The first time it is left alone for seven and a half seconds at most.
    world.wait(Duration::from_secs(8));
    let (mut flow, action) = world.arrive();
    assert_eq!(sent(&action), Some(&*name), "one request probes it");
    world.finish(&mut flow);
    world.wait(Duration::from_secs(11));
    let got = counts(&mut world, 1_000);
    assert!((450..550).contains(&got[&name]), "all of its traffic is back: {got:?}");
}

#[test]
fn f4_with_more_than_half_failed_what_failed_is_used_before_a_wait_and_the_decision_says_so() {
    let mut world = World::new(&catalog("round_robin", &["a slots=1", "b slots=1", "c slots=1"]));
    fail(&mut world, "a");
    fail(&mut world, "b");
    let (_kept, action) =
        (0..50).map(|_| world.arrive()).find(|(_, action)| sent(action) == Some("c")).expect("c");
    assert_eq!(sent(&action), Some("c"));
    let facts = world.facts();
    let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    assert!(decision.panic && matches!(chosen(&decision).as_str(), "a" | "b"), "{decision:?}");
    // While one that works has room nobody is sent to those that failed.
    let mut world = World::new(&catalog("round_robin", &["a slots=1", "b slots=1", "c slots=9"]));
    fail(&mut world, "a");
    fail(&mut world, "b");
    let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    assert!(!decision.panic && chosen(&decision) == "c", "{decision:?}");
}

#[test]
fn f5_those_that_failed_together_do_not_come_back_together() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut world = World::new(&catalog("round_robin", &names));
    for name in &names {
        fail(&mut world, name);
    }
    let view = world.fleet.view(world.now);
    let mut returns: Vec<u64> =
        view.models[0].deployments.iter().filter_map(|one| one.returns_in_ms).collect();
    returns.sort_unstable();
    assert_eq!(returns.len(), 6, "each says when: {returns:?}");
    let spread = returns[5] - returns[0];
    assert!(spread > 1_000, "their times are spread by a jitter of a half: {returns:?}");
    assert!(returns.iter().all(|ms| (2_000..=7_500).contains(ms)), "{returns:?}");
}

#[test]
fn f5_who_comes_back_gets_its_traffic_on_a_ramp() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    fail(&mut world, "a");
    world.wait(Duration::from_secs(8));
    let (mut flow, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    world.finish(&mut flow);
    let early = counts(&mut world, 2_000).get("a").copied().unwrap_or(0);
    assert!(early < 200, "a tenth of its half, though it is its turn: {early}");
}

#[test]
fn f6_a_hot_key_spills_over_and_a_node_that_leaves_moves_its_own_keys_only() {
    let names = ["a", "b", "c", "d", "e"];
    let mut world = World::new(&catalog("consistent_hash", &names));
    let keyed = |world: &World, key: u64| Facts {
        session_hash: Some(key.wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        ..world.facts()
    };
    // One key, a hundred requests at a time: nobody gets more than the bound of 1.25 of the mean, and the next ones.
    let mut held = Vec::new();
    for _ in 0..100 {
        held.push(world.arrive_with(keyed(&world, 7)).0);
    }
    let view = world.fleet.view(world.now);
    let most = view.models[0].deployments.iter().map(|one| one.inflight).max().unwrap_or(0);
    assert!(most <= 26, "1.25 times the mean of 20, and one that is just decided: {most}");
    for mut flow in held {
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    let places = |world: &mut World| -> Vec<String> {
        (0..500)
            .map(|key| {
                let facts = keyed(world, key);
                chosen(&decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng))
            })
            .collect()
    };
    let before = places(&mut world);
    world.fleet.apply(&catalog("consistent_hash", &names[..4]), world.now);
    let after = places(&mut world);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert!(moved.clone().all(|(before, _)| before == "e"), "only the keys of `e` move");
    assert!((60..140).contains(&moved.count()), "about a fifth of 500");
}

#[test]
fn f7_weights_are_exact_and_nought_is_drained() {
    let mut world =
        World::new(&catalog("weighted_round_robin", &["a weight=200", "b weight=1", "c weight=0"]));
    let got = counts(&mut world, 201 * 5);
    assert_eq!((got["a"], got["b"], got.get("c")), (1_000, 5, None));
}

#[test]
fn f8_a_health_check_is_not_believed_over_requests_and_its_word_can_be_taken_back() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    // It lies that all is well: requests find out.
    probe(&mut world, "a", true);
    fail(&mut world, "a");
    // It says that nothing is: the deployment is left out, with the reason.
    probe(&mut world, "b", false);
    let facts = world.facts();
    let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    assert_eq!(decision.candidates[1].why_not, Some(WhyNot::Unhealthy));
    probe(&mut world, "b", true);
    assert!(counts(&mut world, 100).contains_key("b"), "one good check is enough");
}

#[test]
fn f8_what_was_measured_ages_out() {
    let mut world = World::new(&catalog("latency", &["a", "b"]));
    // `a` was very slow once. While `b` is measured again and again, what is known of `a` fades until it is tried.
    let measure = |world: &mut World, name: &str, took: Duration| {
        let found = (0..50).map(|_| world.arrive()).find(|(_, action)| sent(action) == Some(name));
        let (mut flow, _) = found.expect("it is drawn");
        let _ = world.step(&mut flow, Input::Connected);
        world.wait(took);
        for input in [Input::Headers, Input::FirstContent, Input::Done(Default::default())] {
            let _ = world.step(&mut flow, input);
        }
    };
    measure(&mut world, "a", Duration::from_secs(15));
    measure(&mut world, "b", Duration::from_millis(100));
    assert!(!counts(&mut world, 200).contains_key("a"), "at first it is avoided");
    world.wait(Duration::from_secs(60));
    measure(&mut world, "b", Duration::from_millis(100));
    assert!(counts(&mut world, 200).contains_key("a"), "a minute later it gets its chance");
}

#[test]
fn f10_what_one_request_learns_holds_for_every_model_of_the_provider() {
    // Two models share a provider's one key: what one of them is told of it, the other knows.
    let mut both = catalog("least_busy", &["a paid keys=1"]);
    let other = both.models["m"].clone();
    both.models.insert("other".into(), other);
    let mut world = World::new(&both);
    let (mut flow, _) = world.arrive();
    let _ = world.step(&mut flow, failed(FailureClass::CredentialDead, Processed::No, None));
    let facts = Facts { model: world.fleet.model("other").expect("it is there"), ..world.facts() };
    let (_, action) = world.arrive_with(facts);
    assert!(matches!(action, Action::Reject(_)), "nobody asks again with a key that was refused: {action:?}");
}

#[test]
fn f12_a_model_that_was_unloaded_fails_over_once_and_is_asked_again_later() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    let mut asked = 0;
    for _ in 0..200 {
        let (mut flow, action) = world.arrive();
        if sent(&action) == Some("a") {
            asked += 1;
            let action = world.step(&mut flow, failed(FailureClass::ModelMissing, Processed::No, None));
            assert_eq!(sent(&action), Some("b"), "the request goes on elsewhere");
        }
        world.finish(&mut flow);
    }
    assert_eq!(asked, 1, "it is believed for a minute");
    assert_eq!(state(&world, "a"), "healthy", "and is not ill");
    world.wait(Duration::from_secs(61));
    assert!(counts(&mut world, 10).contains_key("a"), "then it is asked again");
}
