//! An answer that breaks off after its client saw a part of it.

mod support;

use std::time::Duration;

use pointsman_routing::FailureClass;
use pointsman_routing::catalog::Capabilities;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, Flow, FlowOutcome, Input, Phase};
use support::{World, catalog, failed, sent};

/// A world of paid deployments in tiers; those that are named can go on with an answer.
fn world(opted_in: bool, able: &[&str]) -> World {
    let mut catalog = catalog("least_busy", &["a paid", "b paid tier=2", "c paid tier=3"]);
    let model = catalog.models.get_mut("m").expect("the model m");
    model.retry.continuation = opted_in;
    for deployment in &mut model.deployments {
        if able.contains(&&*deployment.name) {
            deployment.capabilities = deployment.capabilities.with(Capabilities::CONTINUATION);
        }
    }
    World::new(&catalog)
}

/// A request whose client has seen a part of its answer from `a`, which can be continued or not.
fn relaying(world: &mut World, continuable: bool) -> Flow {
    let (mut flow, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    for input in [Input::Connected, Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut flow, input);
    }
    flow.note_continuable(continuable);
    flow
}

fn lost() -> Input {
    failed(FailureClass::Transient, Processed::Maybe, None)
}

#[test]
fn d3_another_goes_on_only_if_all_agree() {
    for (opted_in, able, continuable, expected) in [
        (true, &["a", "b"][..], true, Some("b")),
        (true, &["a", "c"], true, Some("c")),
        (false, &["a", "b"], true, None),
        (true, &["a"], true, None),
        (true, &["a", "b"], false, None),
    ] {
        let mut world = world(opted_in, able);
        let mut flow = relaying(&mut world, continuable);
        let action = world.step(&mut flow, lost());
        assert_eq!(sent(&action), expected, "{opted_in} {able:?} {continuable}");
        assert_eq!(world.fleet.permits_in_use(), u64::from(expected.is_some()));
        if expected.is_none() {
            assert!(matches!(action, Action::Truncate(_)), "{action:?}");
        }
    }
}

#[test]
fn d3_the_rest_is_relayed_and_the_record_shows_it() {
    let mut world = world(true, &["b", "c"]);
    let mut flow = relaying(&mut world, true);
    assert_eq!(sent(&world.step(&mut flow, lost())), Some("b"));
    let _ = world.step(&mut flow, Input::Connected);
    let _ = world.step(&mut flow, Input::Headers);
    world.wait(Duration::from_secs(16));
    assert!(
        matches!(world.step(&mut flow, Input::TimerFired), Action::Wait),
        "the client has a head already"
    );
    let action = world.step(&mut flow, Input::FirstContent);
    assert!(matches!(action, Action::Wait), "and gets no second one: {action:?}");
    assert_eq!(flow.phase(), Phase::Relaying);
    let _ = world.step(&mut flow, Input::Done(Default::default()));
    assert!(matches!(flow.outcome(), Some(FlowOutcome::Completed { .. })));
    let kinds: Vec<&str> = flow.attempts().iter().map(|attempt| attempt.kind.name()).collect();
    assert_eq!(kinds, ["usual", "continuation"]);
    assert_eq!(world.fleet.permits_in_use(), 0);
}

#[test]
fn d3_what_cannot_be_continued_is_cut_and_never_refused() {
    let mut world = world(true, &["b", "c"]);
    let mut flow = relaying(&mut world, true);
    // One after the other fails before it brings anything; attempts are bounded, and the answer is cut in the end.
    assert_eq!(sent(&world.step(&mut flow, lost())), Some("b"));
    flow.note_continuable(true);
    let refused = failed(FailureClass::Connect, Processed::No, None);
    assert_eq!(sent(&world.step(&mut flow, refused.clone())), Some("c"));
    let action = world.step(&mut flow, refused);
    assert!(matches!(action, Action::Truncate(_)), "{action:?}");
    assert!(matches!(flow.outcome(), Some(FlowOutcome::Truncated { .. })));
    assert_eq!((flow.attempts().len(), world.fleet.permits_in_use()), (3, 0));
}

#[test]
fn the_deadline_holds_for_the_rest_too() {
    let mut world = world(true, &["b"]);
    let mut flow = relaying(&mut world, true);
    for _ in 0..12 {
        world.wait(Duration::from_secs(5));
        flow.on_chunk(world.now);
    }
    let action = world.step(&mut flow, Input::TimerFired);
    assert!(matches!(action, Action::Truncate(_)), "{action:?}");
}

#[test]
fn d3_what_could_be_continued_once_has_to_be_told_again() {
    let mut world = world(true, &["a", "b", "c"]);
    let mut flow = relaying(&mut world, true);
    assert_eq!(sent(&world.step(&mut flow, lost())), Some("b"));
    for input in [Input::Connected, Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut flow, input);
    }
    // More has come since: what was kept of the first part alone would be continued in the wrong place.
    let action = world.step(&mut flow, lost());
    assert!(matches!(action, Action::Truncate(_)), "{action:?}");
}
