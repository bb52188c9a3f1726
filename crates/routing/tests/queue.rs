//! Who waits for a slot: who is served, in which order, and what looking costs.

mod support;

use std::time::Duration;

use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, Flow, Input};
use pointsman_routing::{Facts, FailureClass};
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
fn who_waits_is_told_when_a_reload_leaves_nothing_to_wait_for() {
    let mut world = world(&["a slots=1 version=1"]);
    let (_running, _) = arrive(&mut world, "@1");
    let (mut waiting, _) = arrive(&mut world, "@1");
    world.fleet.apply(&catalog("least_busy", &["b slots=1 version=2"]), world.now);
    assert_eq!(world.woken().len(), 1);
    assert!(matches!(world.step(&mut waiting, Input::Granted), Action::Reject(_)));
}
