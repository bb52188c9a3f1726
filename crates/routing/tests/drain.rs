//! The drain of a deployment: nothing new, a bound for what is in flight, and a way back.

mod support;

use std::time::Duration;

use pointsman_routing::FailureClass;
use pointsman_routing::catalog::Catalog;
use pointsman_routing::flow::{Action, Input, Refusal};
use support::{World, catalog, sent};

const SECOND: Duration = Duration::from_secs(1);

fn two(a: &str) -> Catalog {
    catalog("least_busy", &[a, "b tier=2"])
}

fn relaying(world: &mut World) -> pointsman_routing::flow::Flow {
    let (mut flow, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    for input in [Input::Connected, Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut flow, input);
    }
    flow
}

#[test]
fn l5_a_drained_deployment_gets_nothing_new_and_its_streams_finish() {
    let mut world = World::new(&two("a"));
    let mut flow = relaying(&mut world);
    world.fleet.apply(&two("a draining drain=45000"), world.now);
    assert_eq!(sent(&world.arrive().1), Some("b"), "new traffic goes elsewhere");
    assert_eq!(world.fleet.next_drain_end(), Some(world.now + SECOND * 45));
    world.wait(SECOND * 3);
    flow.on_chunk(world.now);
    assert!(matches!(world.step(&mut flow, Input::Recalled), Action::Wait), "its time is not over");
    let view = world.fleet.view(world.now);
    let a = &view.models[0].deployments[0];
    assert_eq!((a.state, a.inflight, a.drain_ends_in_ms), ("draining", 1, Some(42_000)));
    assert!(matches!(world.step(&mut flow, Input::Done(Default::default())), Action::Finish));
    assert_eq!(world.fleet.view(world.now).models[0].deployments[0].inflight, 0);
}

#[test]
fn l5_what_still_runs_at_the_end_of_a_drain_is_ended_and_not_held_against_it() {
    let mut world = World::new(&two("a"));
    let (mut stream, mut other) = (relaying(&mut world), relaying(&mut world));
    let (mut waiting, _) = world.arrive();
    let _ = world.step(&mut waiting, Input::Connected);
    world.fleet.apply(&two("a draining drain=3000"), world.now);
    world.wait(SECOND * 2);
    // A reload in between does not begin it anew.
    world.fleet.apply(&two("a draining drain=3000"), world.now);
    world.wait(SECOND);
    assert_eq!(world.fleet.next_drain_end(), Some(world.now));
    let ended = world.step(&mut stream, Input::Recalled);
    assert!(matches!(ended, Action::Truncate(f) if f.class == FailureClass::Drained), "content was relayed");
    assert_eq!(sent(&world.step(&mut waiting, Input::Recalled)), Some("b"), "an own engine: sent elsewhere");
    assert!(matches!(world.step(&mut waiting, Input::Recalled), Action::Wait), "b is not drained");
    world.fleet.note_drain_end(world.now);
    assert_eq!(world.fleet.next_drain_end(), None, "told once");
    world.fleet.apply(&two("a"), world.now);
    assert!(matches!(world.step(&mut other, Input::Recalled), Action::Wait), "undrained: it goes on");
    let a = &world.fleet.view(world.now).models[0].deployments[0];
    assert_eq!((a.state, a.failures, a.drain_ends_in_ms), ("healthy", 0, None));
    assert_eq!(sent(&world.arrive().1), Some("a"));
}

#[test]
fn l5_a_paid_request_that_was_sent_is_not_sent_again_by_a_drain() {
    let mut world = World::new(&two("a paid"));
    let (mut sent_already, _) = world.arrive();
    let _ = world.step(&mut sent_already, Input::Connected);
    let (mut connecting, _) = world.arrive();
    world.fleet.apply(&two("a paid draining drain=0"), world.now);
    let action = world.step(&mut sent_already, Input::Recalled);
    assert!(matches!(action, Action::Reject(Refusal::Failed(f)) if f.class == FailureClass::Drained));
    assert_eq!(sent(&world.step(&mut connecting, Input::Recalled)), Some("b"), "nothing was sent yet");
}
