//! How deployments that failed are looked at again, and what is done when few are left.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_routing::decision::{Decision, Why, WhyNot};
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, Input, Refusal};
use pointsman_routing::{Facts, FailureClass, decide};
use support::{World, catalog, chosen, failed, sent};

/// Fails a deployment by connection failures, which need no proof by numbers.
fn fail(world: &mut World, name: &str) {
    for _ in 0..60 {
        let (mut flow, action) = world.arrive();
        let input = if sent(&action) == Some(name) {
            failed(FailureClass::Connect, Processed::No, None)
        } else {
            Input::ClientGone
        };
        let _ = world.step(&mut flow, input);
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    assert_eq!(state(world, name), "failed");
}

fn state(world: &World, name: &str) -> &'static str {
    let view = world.fleet.view(world.now);
    let found = view.models[0].deployments.iter().find(|one| &*one.name == name).map(|one| one.state);
    found.expect("a deployment of that name")
}

fn decided(world: &mut World, times: usize) -> Vec<Decision> {
    let facts = world.facts();
    (0..times).map(|_| decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng)).collect()
}

/// How often each is chosen.
fn counts(world: &mut World, times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for decision in decided(world, times) {
        *counts.entry(chosen(&decision)).or_default() += 1;
    }
    counts
}

#[test]
fn one_in_a_hundred_looks_at_what_failed_and_one_at_a_time() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    fail(&mut world, "a");
    assert!(!counts(&mut world, 2_000).contains_key("a"), "not at once");
    world.wait(Duration::from_secs(1));
    let got = counts(&mut world, 10_000);
    assert!((60..160).contains(&got["a"]), "{got:?}");
    // An early look that is under way is the only one.
    let facts = world.facts();
    let looking = (0..10_000).find_map(|_| {
        let (mut flow, action) = world.arrive_with(facts.clone());
        if sent(&action) == Some("a") {
            return Some(flow);
        }
        let _ = world.step(&mut flow, Input::ClientGone);
        None
    });
    let mut looking = looking.expect("somebody looks");
    assert!(!counts(&mut world, 5_000).contains_key("a"));
    world.finish(&mut looking);
    assert_eq!(state(&world, "a"), "recovering");
}

#[test]
fn traffic_comes_back_on_a_ramp() {
    let mut world = World::new(&catalog("random", &["a", "b"]));
    fail(&mut world, "a");
    world.wait(Duration::from_secs(10));
    let (mut probe, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"), "the probe is due");
    let Some(why) = probe.attempts().last().map(|attempt| attempt.why) else { panic!("no attempt") };
    assert_eq!(why, Why::Probed);
    world.finish(&mut probe);
    let share = |world: &mut World| counts(world, 4_000).get("a").copied().unwrap_or(0) as f64 / 4_000.0;
    assert!((0.03..0.08).contains(&share(&mut world)), "a tenth of its half at first");
    world.wait(Duration::from_secs(5));
    assert!((0.2..0.3).contains(&share(&mut world)), "half of it half way");
    world.wait(Duration::from_secs(5));
    assert!((0.45..0.55).contains(&share(&mut world)), "all of it at the end");
}

#[test]
fn who_is_new_among_others_starts_slowly() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    assert_eq!(state(&world, "a"), "healthy", "all are new at the start, and then none is");
    world.fleet.apply(&catalog("round_robin", &["a", "b", "c"]), world.now);
    let got = counts(&mut world, 3_000);
    assert!((50..170).contains(&got["c"]), "a tenth of a third: {got:?}");
    world.wait(Duration::from_secs(31));
    let got = counts(&mut world, 3_000);
    assert!((900..1_100).contains(&got["c"]), "{got:?}");
}

#[test]
fn what_failed_is_better_than_a_wait_while_few_are_left() {
    let mut world = World::new(&catalog("round_robin", &["a slots=1", "b slots=1", "c slots=1"]));
    fail(&mut world, "a");
    fail(&mut world, "b");
    let mut held = Vec::new();
    while !world.fleet.view(world.now).models[0].deployments.iter().any(|one| one.inflight == 1) {
        held.push(world.arrive().0);
    }
    let decision = decided(&mut world, 1).remove(0);
    assert!(decision.panic && matches!(chosen(&decision).as_str(), "a" | "b"), "{decision:?}");
}

#[test]
fn everybody_down_is_told_at_once_with_the_soonest_return() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    fail(&mut world, "a");
    fail(&mut world, "b");
    let mut told = 0;
    for _ in 0..500 {
        let (mut flow, action) = world.arrive();
        if let Action::Reject(Refusal::NotRouted(decision, why)) = action {
            assert_eq!(why.name(), "unavailable", "{decision:?}");
            told += 1;
        }
        let _ = world.step(&mut flow, failed(FailureClass::Connect, Processed::No, None));
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    assert!(told > 470, "only early looks are sent: {told} of 500 refused");
}

#[test]
fn a_weak_tier_gives_its_share_to_the_next() {
    let mut world = World::new(&catalog("round_robin", &["a", "b", "c", "d", "spare tier=2"]));
    assert!(!counts(&mut world, 100).contains_key("spare"));
    fail(&mut world, "a");
    assert!(!counts(&mut world, 1_000).contains_key("spare"), "three of four are enough");
    fail(&mut world, "b");
    let got = counts(&mut world, 2_000);
    // Half of the tier is left, of the 72 % it takes.
    assert!((450..780).contains(&got["spare"]), "{got:?}");
}

#[test]
fn nothing_is_sent_where_it_would_come_too_late() {
    let mut world = World::new(&catalog("round_robin", &["slow", "fast"]));
    for _ in 0..20 {
        let (mut flow, action) = world.arrive();
        let slow = sent(&action) == Some("slow");
        let _ = world.step(&mut flow, Input::Connected);
        world.wait(Duration::from_millis(if slow { 3_000 } else { 100 }));
        world.finish(&mut flow);
    }
    let facts = Facts { deadline: Some(world.now + Duration::from_secs(1)), ..world.facts() };
    let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    assert_eq!((chosen(&decision).as_str(), decision.candidates[0].why_not), ("fast", Some(WhyNot::TooLate)));
}

#[test]
fn nobody_is_sent_to_a_later_tier_only_to_look() {
    let mut world = World::new(&catalog("round_robin", &["a", "spare tier=2"]));
    // The later tier fails while the first is drained.
    world.fleet.apply(&catalog("round_robin", &["a weight=0", "spare tier=2"]), world.now);
    fail(&mut world, "spare");
    world.fleet.apply(&catalog("round_robin", &["a", "spare tier=2"]), world.now);
    world.wait(Duration::from_secs(10));
    assert_eq!(counts(&mut world, 2_000).len(), 1, "its probe is due, and waits until it is needed");
    fail(&mut world, "a");
    assert_eq!(sent(&world.arrive().1), Some("spare"));
}

#[test]
fn what_failed_is_no_last_resort_for_what_it_would_give_too_late() {
    let mut world = World::new(&catalog("round_robin", &["a slots=1", "b slots=1", "c slots=1"]));
    for _ in 0..6 {
        let (mut flow, action) = world.arrive();
        let fast = sent(&action) == Some("c");
        let _ = world.step(&mut flow, Input::Connected);
        world.wait(Duration::from_millis(if fast { 100 } else { 3_000 }));
        world.finish(&mut flow);
    }
    fail(&mut world, "a");
    fail(&mut world, "b");
    world.wait(Duration::from_secs(1));
    let mut held = Vec::new();
    for full in [false, true] {
        let facts = Facts { deadline: Some(world.now + Duration::from_secs(1)), ..world.facts() };
        for _ in 0..500 {
            let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
            assert!(!matches!(chosen(&decision).as_str(), "a" | "b"), "{full}: {decision:?}");
        }
        while !world.fleet.view(world.now).models[0].deployments.iter().any(|one| one.inflight == 1) {
            held.push(world.arrive().0);
        }
    }
}
