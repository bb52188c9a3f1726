//! Who waits for a slot: who is served, in which order, and what looking costs.

mod support;

use std::time::Duration;

use pointsman_routing::decision::{Candidate, Outcome, WhyNot};
use pointsman_routing::facts::{Class, Lane};
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, Flow, Input, Phase, Refusal};
use pointsman_routing::{Facts, FailureClass, decide};
use support::{World, catalog, failed, sent};

/// A world whose queue holds many.
fn world(lines: &[&str]) -> World {
    let mut catalog = catalog("least_busy", lines);
    catalog.models.get_mut("m").expect("the model m").queue.requests_max = 5_000;
    World::new(&catalog)
}

/// A request in two words: `@1` wants a version, `#x` a tag, anything else nothing.
fn arrive(world: &mut World, wish: &str) -> (Flow, Action) {
    let facts = world.facts();
    world.arrive_with(Facts {
        version: wish.strip_prefix('@').map(Into::into),
        tags: wish.strip_prefix('#').map(Into::into).into_iter().collect(),
        ..facts
    })
}

#[test]
fn those_who_wait_cost_nothing_to_those_who_do_not() {
    for waiters in [10, 1_000] {
        let mut world = world(&["a slots=1 version=1", "b slots=4 version=2"]);
        let (mut running, _) = arrive(&mut world, "@1");
        let waiting: Vec<Flow> = (0..waiters).map(|_| arrive(&mut world, "@1").0).collect();
        let before = world.fleet.evaluations();
        for _ in 0..100 {
            let (mut flow, action) = arrive(&mut world, "@2");
            assert_eq!(sent(&action), Some("b"));
            world.finish(&mut flow);
        }
        assert_eq!(
            world.fleet.evaluations() - before,
            100,
            "one for each decision, none for {waiters} waiters"
        );
        assert!(world.woken().is_empty());
        let before = world.fleet.evaluations();
        world.finish(&mut running);
        assert_eq!(world.woken(), [waiting[0].ticket().expect("it waits").0], "the slot goes to the first");
        assert!(world.fleet.evaluations() - before <= 2, "a release looks at the first of them");
    }
}

#[test]
fn the_first_who_can_use_a_slot_gets_it() {
    for (name, lines, running, waiting, freed, served) in [
        ("who came first", &["a slots=1 tag=x", "b slots=1"][..], &["#x", ""][..], &["", "#x", ""][..], 0, 0),
        (
            "whoever comes first of both groups",
            &["a slots=1 tag=x", "b slots=1"],
            &["#x", ""],
            &["#x", ""],
            0,
            0,
        ),
        (
            "who needs less, when who needs more cannot",
            &["a slots=1 tag=x", "b slots=1"],
            &["#x", ""],
            &["#x", "", ""],
            1,
            1,
        ),
        (
            "its version",
            &["a slots=1 version=1", "b slots=1 version=2"],
            &["@1", "@2"],
            &["@1", "@1", "@2"],
            1,
            2,
        ),
    ] {
        let mut world = world(lines);
        let mut running: Vec<Flow> = running.iter().map(|wish| arrive(&mut world, wish).0).collect();
        let waiting: Vec<Flow> = waiting.iter().map(|wish| arrive(&mut world, wish).0).collect();
        world.finish(&mut running[freed]);
        assert_eq!(world.woken(), [waiting[served].ticket().expect("it waits").0], "{name}");
    }
}

#[test]
fn a_client_that_leaves_is_not_served_and_the_order_stays() {
    let mut world = world(&["a slots=1"]);
    let (mut running, _) = arrive(&mut world, "");
    let mut waiting: Vec<Flow> = (0..3).map(|_| arrive(&mut world, "").0).collect();
    let _ = world.step(&mut waiting[0], Input::ClientGone);
    world.finish(&mut running);
    assert_eq!(world.woken(), [waiting[1].ticket().expect("it waits").0]);
}

#[test]
fn time_alone_makes_room() {
    let mut world = world(&["a slots=1", "b slots=1"]);
    let (_running, _) = arrive(&mut world, "");
    let (mut cooled, action) = arrive(&mut world, "");
    let free = sent(&action).expect("it is sent").to_owned();
    let _ = world.step(&mut cooled, failed(FailureClass::CredentialQuota, Processed::No, Some(2)));
    let mut waiting: Vec<Flow> = (0..2).map(|_| arrive(&mut world, "").0).collect();
    world.wait(Duration::from_secs(2));
    assert_eq!(waiting[0].wake_at(), world.now);
    let action = world.step(&mut waiting[0], Input::TimerFired);
    assert_eq!(sent(&action), Some(free.as_str()), "its own timer finds it");
    let _ = (world.woken(), world.step(&mut cooled, Input::ClientGone));
    world.finish(&mut waiting[0]);
    assert_eq!(world.woken(), [waiting[1].ticket().expect("it waits").0]);
}

#[test]
fn a_credential_that_is_good_again_serves_who_waits_before_newcomers() {
    let mut world = world(&["a slots=1", "b tier=2 keys=1"]);
    let (_running, _) = arrive(&mut world, "");
    let (mut refused, action) = arrive(&mut world, "");
    assert_eq!(sent(&action), Some("b"));
    let _ = world.step(&mut refused, failed(FailureClass::CredentialDead, Processed::No, None));
    let (waiting, action) = arrive(&mut world, "");
    assert!(matches!(action, Action::Wait), "{action:?}");
    let credential = world.fleet.credential("b", "k0").expect("the credential");
    world.fleet.observe(world.now, Event::RestoreCredential(credential));
    let _ = arrive(&mut world, "");
    assert!(world.woken().contains(&waiting.ticket().expect("it waits").0));
}

#[test]
fn who_failed_elsewhere_and_may_not_probe_does_not_keep_others_from_it() {
    let mut world = world(&["a slots=1 tag=y", "b slots=1 tag=y", "x slots=1"]);
    let (_running, action) = arrive(&mut world, "#y");
    assert_eq!(sent(&action), Some("a"));
    let mut works = true;
    while works {
        let (mut refused, action) = arrive(&mut world, "#y");
        works = sent(&action) == Some("b");
        if works {
            let _ = world.step(&mut refused, failed(FailureClass::Connect, Processed::No, None));
        }
        let _ = world.step(&mut refused, Input::ClientGone);
    }
    let (mut retried, action) = arrive(&mut world, "");
    assert_eq!(sent(&action), Some("x"));
    let _ = world.step(&mut retried, failed(FailureClass::Overloaded, Processed::No, None));
    while retried.phase() == Phase::BackingOff {
        world.now = retried.wake_at();
        let _ = world.step(&mut retried, Input::TimerFired);
    }
    let (fresh, action) = arrive(&mut world, "#y");
    assert!(matches!(action, Action::Wait), "{action:?}");
    assert!(retried.ticket() < fresh.ticket(), "the one that was retried is before it");
    let [.., Candidate { why_not: Some(WhyNot::Failed { until }), .. }, _] =
        fresh.decisions()[0].candidates[..]
    else {
        panic!("b failed: {:?}", fresh.decisions())
    };
    world.now = until;
    let _ = arrive(&mut world, "#y");
    assert_eq!(world.woken(), [fresh.ticket().expect("it waits").0]);
}

/// A world where nobody can serve: `a` is full, `b` and `c` failed and rest for a minute and a second.
fn failed_and_resting() -> World {
    let mut world = world(&["a slots=1", "b", "c"]);
    let (_running, action) = arrive(&mut world, "");
    assert_eq!(sent(&action), Some("a"));
    let mut sends = true;
    while sends {
        let (mut flow, action) = world.arrive();
        let resting = |seconds| failed(FailureClass::Overloaded, Processed::No, Some(seconds));
        let view = world.fleet.view(world.now);
        let down = view.models[0].deployments.iter().filter(|one| one.state == "failed").count();
        let input = match sent(&action) {
            Some(_) if down < 2 => failed(FailureClass::Connect, Processed::No, None),
            Some("b") => resting(60),
            Some(_) => resting(1),
            None => Input::ClientGone,
        };
        sends = sent(&action).is_some();
        let _ = world.step(&mut flow, input);
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    world
}

#[test]
fn time_makes_room_at_one_that_failed_and_rests() {
    let mut world = failed_and_resting();
    let (mut waiting, action) = arrive(&mut world, "");
    assert!(matches!(action, Action::Wait), "{action:?}");
    assert!(waiting.wake_at() - world.now <= Duration::from_secs(1), "{:?}", waiting.decisions());
    world.now = waiting.wake_at();
    assert_eq!(sent(&world.step(&mut waiting, Input::TimerFired)), Some("c"), "the last resort");
}

#[test]
fn who_waits_is_told_when_a_reload_leaves_nothing_to_wait_for() {
    let mut world = world(&["a slots=1 version=1"]);
    let (_running, _) = arrive(&mut world, "@1");
    let (mut waiting, _) = arrive(&mut world, "@1");
    world.fleet.apply(&catalog("least_busy", &["b slots=1 version=2"]), world.now);
    assert_eq!(world.woken().len(), 1);
    assert!(matches!(world.step(&mut waiting, Input::Granted), Action::Reject(_)));
}

#[test]
fn time_makes_room_again_and_again() {
    let mut world = world(&["a slots=1", "b slots=1"]);
    let quota = |seconds| failed(FailureClass::CredentialQuota, Processed::No, Some(seconds));
    let (_running, _) = arrive(&mut world, "");
    let (mut cooled, _) = arrive(&mut world, "");
    let _ = world.step(&mut cooled, quota(2));
    let mut waiting: Vec<Flow> = (0..2).map(|_| arrive(&mut world, "").0).collect();
    world.wait(Duration::from_secs(2));
    assert_eq!(sent(&world.step(&mut waiting[0], Input::TimerFired)), Some("b"));
    assert!(matches!(world.step(&mut waiting[1], Input::TimerFired), Action::Wait));
    // What the second waits for begins only now, and nothing but time will end it.
    let _ = world.step(&mut waiting[0], quota(1));
    let _ = world.step(&mut cooled, Input::ClientGone);
    let _ = world.step(&mut waiting[0], Input::ClientGone);
    let wake_at = waiting[1].wake_at();
    assert!(wake_at - world.now <= Duration::from_secs(5), "it looks again: {wake_at:?}");
    world.now = wake_at;
    assert_eq!(sent(&world.step(&mut waiting[1], Input::TimerFired)), Some("b"));
}

/// The same, and it is known that slots are held for so long.
fn busy_world(lines: &[&str], held: Duration) -> World {
    let mut world = world(lines);
    for _ in 0..40 {
        let (mut flow, _) = arrive(&mut world, "");
        world.wait(held);
        world.finish(&mut flow);
    }
    world
}

fn refusal(action: &Action) -> Option<(&'static str, u64)> {
    let Action::Reject(Refusal::NotRouted(decision, why)) = action else { return None };
    let Outcome::Rejected { retry_after: Some(after), .. } = decision.outcome else { return None };
    Some((why.name(), after.as_secs()))
}

#[test]
fn in_overload_the_newest_is_next_and_the_oldest_is_told() {
    let mut world = busy_world(&["a slots=1"], Duration::from_millis(10));
    let (mut running, _) = arrive(&mut world, "");
    let mut waiting: Vec<Flow> = (0..3).map(|_| arrive(&mut world, "").0).collect();
    world.wait(Duration::from_millis(1_300));
    let (newcomer, action) = arrive(&mut world, "");
    assert!(matches!(action, Action::Wait), "{action:?}");
    assert_eq!(
        world.woken(),
        [waiting[0].ticket(), waiting[1].ticket()].map(|ticket| ticket.expect("it waits").0)
    );
    let told = world.step(&mut waiting[0], Input::Granted);
    assert_eq!(refusal(&told), Some(("overloaded", 1)), "{told:?}");
    let _ = world.step(&mut waiting[1], Input::Granted);
    world.finish(&mut running);
    assert_eq!(world.woken(), [newcomer.ticket().expect("it waits").0], "newest first");
    assert!(waiting[2].ticket().is_some(), "nobody came to take its place");
}

#[test]
fn a_queue_that_empties_now_and_then_is_first_come_first_served() {
    let mut world = busy_world(&["a slots=1"], Duration::from_millis(10));
    let (mut running, _) = arrive(&mut world, "");
    for _ in 0..40 {
        let (mut first, _) = arrive(&mut world, "");
        let (mut second, _) = arrive(&mut world, "");
        for flow in [&mut first, &mut second] {
            world.wait(Duration::from_millis(90));
            world.finish(&mut running);
            assert_eq!(world.woken(), [flow.ticket().expect("it waits").0]);
            let _ = world.step(flow, Input::Granted);
            std::mem::swap(&mut running, flow);
        }
    }
}

#[test]
fn slots_that_are_held_long_do_not_make_an_overload() {
    let mut world = busy_world(&["a slots=1"], Duration::from_secs(5));
    let (mut running, _) = arrive(&mut world, "");
    let waiting: Vec<Flow> = (0..2).map(|_| arrive(&mut world, "").0).collect();
    world.wait(Duration::from_secs(5));
    world.finish(&mut running);
    assert_eq!(world.woken(), [waiting[0].ticket().expect("it waits").0]);
}

#[test]
fn who_cannot_be_served_in_time_is_told_at_once_and_when_to_return() {
    let mut world = busy_world(&["a slots=1"], Duration::from_secs(2));
    let (_running, _) = arrive(&mut world, "");
    let before = Facts { class: Class::Interactive, ..world.facts() };
    let _waiting: Vec<Flow> = (0..4).map(|_| world.arrive_with(before.clone()).0).collect();
    for (left_s, expected) in [(4, Some(("too_late", 10))), (8, None)] {
        let facts = Facts { deadline: Some(world.now + Duration::from_secs(left_s)), ..world.facts() };
        let (mut flow, action) = world.arrive_with(facts);
        assert_eq!(refusal(&action), expected, "{left_s}");
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    let mut catalog = catalog("least_busy", &["a slots=1"]);
    catalog.models.get_mut("m").expect("the model m").queue.requests_max = 4;
    world.fleet.apply(&catalog, world.now);
    let (_, action) = arrive(&mut world, "");
    assert_eq!(refusal(&action), Some(("queue_full", 10)), "five slots of two seconds each");
}

fn arrive_in(world: &mut World, lane: Lane) -> (Flow, Action) {
    let facts = Facts { lane, ..world.facts() };
    world.arrive_with(facts)
}

#[test]
fn batch_fills_what_nobody_needs_and_waits_behind_live_but_for_one_in_twenty() {
    let mut world = world(&["a slots=10"]);
    let mut running: Vec<Flow> = (0..10).map(|_| arrive_in(&mut world, Lane::Batch).0).collect();
    let mut waiting: Vec<Flow> = (0..30)
        .map(|number| {
            let (flow, action) = arrive_in(&mut world, if number < 3 { Lane::Batch } else { Lane::Live });
            assert!(matches!(action, Action::Wait), "{number}: {action:?}");
            flow
        })
        .collect();
    let mut order = String::new();
    while !waiting.is_empty() {
        world.finish(&mut running.remove(0));
        for ticket in world.woken() {
            let at = waiting.iter().position(|flow| flow.ticket().is_some_and(|own| own.0 == ticket));
            let mut flow = waiting.remove(at.expect("whoever is told waits"));
            let _ = world.step(&mut flow, Input::Granted);
            order.push(if flow.facts().lane == Lane::Batch { 'b' } else { 'l' });
            running.push(flow);
        }
        world.wait(Duration::from_millis(1));
        if order.len() >= 28 {
            break;
        }
    }
    assert_eq!(order, format!("{}b{}", "l".repeat(19), "l".repeat(8)), "then only what is kept is free");
}

#[test]
fn who_is_told_to_ask_again_after_its_deadline_is_not_sent() {
    let mut world = world(&["a slots=1"]);
    let (_running, _) = arrive(&mut world, "");
    let facts = world.facts();
    let deadline = Some(world.now + Duration::from_secs(1));
    let (mut waiting, _) = world.arrive_with(Facts { deadline, ..facts });
    // The only place is gone, so whoever waits has to ask again; by the time it does there is another.
    world.fleet.apply(&catalog("least_busy", &["a slots=1 weight=0"]), world.now);
    world.wait(Duration::from_secs(1));
    world.fleet.apply(&catalog("least_busy", &["a slots=1 weight=0", "b"]), world.now);
    let action = world.step(&mut waiting, Input::Granted);
    assert!(
        matches!(&action, Action::Reject(Refusal::Failed(f)) if f.class == FailureClass::TotalTimeout),
        "{action:?}"
    );
}

#[test]
fn a_slot_that_is_not_used_gives_its_quota_back() {
    let mut world = world(&["a keys=1 slots=1"]);
    let used = |world: &World| {
        let credential = &world.fleet.view(world.now).providers[0].credentials[0];
        (credential.requests_used, credential.tokens_used)
    };
    // A client that leaves before there is a connection has used nothing, and one that leaves later nobody knows what.
    let (mut gone, _) = arrive(&mut world, "");
    let _ = world.step(&mut gone, Input::ClientGone);
    assert_eq!(used(&world), (0, 0));
    let (mut running, _) = arrive(&mut world, "");
    let _ = world.step(&mut running, Input::Connected);
    let one = used(&world);
    assert_eq!(one.0, 1);
    // The running one ends, and who was granted its slot leaves before it is told.
    let (mut waiting, _) = arrive(&mut world, "");
    let _ = world.step(&mut running, Input::ClientGone);
    assert_eq!(used(&world).0, 2, "reserved with the grant");
    let _ = world.step(&mut waiting, Input::ClientGone);
    assert_eq!(used(&world), one);
    // Nor does who only asks what would be decided use any.
    let facts = world.facts();
    let _ = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    assert_eq!(used(&world), one);
}
