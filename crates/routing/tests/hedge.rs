//! A second attempt beside one whose first content is late: when there is one, which of the two stays, and its bounds.

mod support;

use std::time::Duration;

use pointsman_routing::catalog::HedgeSpec;
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, AttemptKind, Flow, HedgeInput, Input, Phase};
use pointsman_routing::{FailureClass, Now};
use support::{World, catalog, failed, failure, sent};

const USUAL: Duration = Duration::from_millis(100);

/// A world that hedges, in which every deployment is known to take the usual time and tokens are saved up.
fn world(lines: &[&str]) -> World {
    let mut catalog = catalog("round_robin", lines);
    catalog.models.get_mut("m").expect("the model m").hedge = Some(HedgeSpec { after: 2.0 });
    let mut world = World::new(&catalog);
    usual(&mut world, 400);
    world
}

/// Requests that take the usual time, one after the other.
fn usual(world: &mut World, count: usize) {
    for _ in 0..count {
        let (mut flow, action) = world.arrive();
        assert!(sent(&action).is_some());
        let _ = world.step(&mut flow, Input::Connected);
        world.wait(USUAL);
        world.finish(&mut flow);
    }
}

/// A request whose first content is late enough, and what is done about it.
fn late(world: &mut World) -> (Flow, String, Action) {
    let (mut flow, action) = world.arrive();
    let first = sent(&action).expect("a place").to_owned();
    for input in [Input::Connected, Input::Headers] {
        let _ = world.step(&mut flow, input);
    }
    let at = flow.wake_at();
    assert!(at < world.now + USUAL * 3, "twice what is usual: {at:?} after {:?}", world.now);
    world.now = at;
    let action = world.step(&mut flow, Input::TimerFired);
    (flow, first, action)
}

#[test]
fn e9_late_content_is_hedged_elsewhere_and_the_faster_stays() {
    for hedge_wins in [true, false] {
        let mut world = world(&["a paid", "b paid"]);
        let (mut flow, first, action) = late(&mut world);
        let Action::Hedge(choice) = &action else { panic!("{action:?}") };
        assert_ne!(*choice.name, *first, "elsewhere");
        assert_eq!((flow.permits(), world.fleet.permits_in_use()), (2, 2));
        if hedge_wins {
            let _ = world.step(&mut flow, Input::Hedge(HedgeInput::Connected));
            let _ = world.step(&mut flow, Input::Hedge(HedgeInput::Headers));
            let action = world.step(&mut flow, Input::Hedge(HedgeInput::FirstContent));
            assert!(matches!(action, Action::RelayHedge), "{action:?}");
        } else {
            let action = world.step(&mut flow, Input::FirstContent);
            assert!(matches!(action, Action::Relay), "{action:?}");
        }
        assert_eq!((flow.phase(), flow.permits(), world.fleet.permits_in_use()), (Phase::Relaying, 1, 1));
        let outrun: Vec<bool> = flow.attempts().iter().map(|attempt| attempt.outrun).collect();
        assert_eq!(outrun, [hedge_wins, !hedge_wins]);
        assert!(flow.attempt().is_some_and(|attempt| (attempt.kind == AttemptKind::Hedge) == hedge_wins));
        assert!(matches!(world.step(&mut flow, Input::Done(Default::default())), Action::Finish));
        assert_eq!(world.fleet.permits_in_use(), 0);
    }
}

#[test]
fn e9_when_one_of_the_two_fails_the_other_goes_on() {
    let mut world = world(&["a paid", "b paid"]);
    let (mut flow, _, _) = late(&mut world);
    let action = world.step(&mut flow, failed(FailureClass::Transient, Processed::Maybe, None));
    assert!(matches!(action, Action::Promote), "what may have been billed is not sent again: {action:?}");
    assert_eq!((flow.phase(), flow.permits()), (Phase::Connecting, 1));
    world.finish(&mut flow);

    let (mut flow, first, _) = late(&mut world);
    let action = world.step(&mut flow, Input::Hedge(HedgeInput::Failed(failure(FailureClass::Connect))));
    assert!(matches!(action, Action::DropHedge), "{action:?}");
    assert_eq!((flow.phase(), flow.permits()), (Phase::HoldingHeaders, 1));
    assert!(flow.attempt().is_some_and(|attempt| *attempt.name == *first));
    let _ = world.step(&mut flow, Input::FirstContent);
    let _ = world.step(&mut flow, Input::ClientGone);
    assert_eq!(world.fleet.permits_in_use(), 0);
}

#[test]
fn e9_a_client_that_leaves_ends_both() {
    let mut world = world(&["a", "b"]);
    let (mut flow, _, _) = late(&mut world);
    assert!(matches!(world.step(&mut flow, Input::ClientGone), Action::Finish));
    assert_eq!(world.fleet.permits_in_use(), 0);
    assert!(flow.attempts().iter().all(|attempt| attempt.ended.is_some()));
}

#[test]
fn e9_what_the_provider_says_of_the_request_ends_both() {
    let mut world = world(&["a", "b"]);
    let (mut flow, _, _) = late(&mut world);
    let action = world.step(&mut flow, failed(FailureClass::Client, Processed::No, None));
    assert!(matches!(action, Action::Reject(_)), "{action:?}");
    assert_eq!(world.fleet.permits_in_use(), 0);
}

#[test]
fn e9_a_busy_pool_is_not_hedged() {
    // Of ten slots nine are taken: whoever is late is late because there is too much to do.
    let mut world = world(&["a slots=5", "b slots=5"]);
    let busy: Vec<Flow> = (0..8).map(|_| world.arrive().0).collect();
    let (flow, _, action) = late(&mut world);
    assert!(matches!(action, Action::Wait), "{action:?}");
    assert_eq!(flow.permits(), 1);
    for mut flow in busy {
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    let (_, _, action) = late(&mut world);
    assert!(matches!(action, Action::Hedge(_)), "{action:?}");
}

#[test]
fn e9_nothing_is_hedged_unless_the_model_opted_in_and_another_place_is_free() {
    let mut world = world(&["a slots=9", "b slots=1"]);
    let mut taken = Vec::new();
    while !taken.iter().any(|flow: &Flow| flow.attempt().is_some_and(|attempt| *attempt.name == *"b")) {
        taken.push(world.arrive().0);
    }
    let (_, first, action) = late(&mut world);
    assert_eq!(first, "a");
    assert!(matches!(action, Action::Wait), "no queue for a hedge: {action:?}");

    let mut plain = World::new(&catalog("round_robin", &["a", "b"]));
    for _ in 0..400 {
        let (mut flow, _) = plain.arrive();
        plain.finish(&mut flow);
    }
    let (mut flow, _) = plain.arrive();
    let _ = plain.step(&mut flow, Input::Connected);
    assert_eq!(flow.wake_at(), plain.now + Duration::from_secs(20), "the first content's timeout is next");
}

#[test]
fn e9_hedges_stay_within_their_tokens() {
    let mut world = world(&["a", "b"]);
    let (mut tokens, mut hedged) = (0_u64, 0_u64);
    // One in eight is late; what was saved up is used first.
    for _ in 0..500 {
        usual(&mut world, 7);
        let (mut flow, _, action) = late(&mut world);
        tokens += 8 * 200;
        hedged += if matches!(action, Action::Hedge(_)) { 200 } else { 0 };
        let _ = world.step(&mut flow, Input::FirstContent);
        let _ = world.step(&mut flow, Input::Done(Default::default()));
    }
    let saved = 400 * 200 / 50;
    assert!(hedged <= tokens / 50 + saved, "{hedged} of {tokens}");
    assert!(hedged >= tokens / 60, "and they are used: {hedged} of {tokens}");
}

#[test]
fn a_whole_answer_is_not_hedged() {
    // Its first content is its end, whose time says more of the request than of the deployment.
    let mut world = world(&["a", "b"]);
    let facts = pointsman_routing::Facts { stream: false, ..world.facts() };
    let (mut flow, _) = world.arrive_with(facts);
    let _ = world.step(&mut flow, Input::Connected);
    assert!(flow.wake_at() > world.now + Duration::from_secs(10) && flow.wake_at() < Now::NEVER);
}

#[test]
fn promise_1_what_one_of_the_two_may_have_been_billed_for_is_not_sent_a_third_time() {
    let lost = |class, processed| failed(class, processed, None);
    // The first may have been billed, and then the second cannot connect.
    let mut world = world(&["a paid", "b paid", "c paid"]);
    let (mut flow, _, _) = late(&mut world);
    let action = world.step(&mut flow, lost(FailureClass::Transient, Processed::Maybe));
    assert!(matches!(action, Action::Promote), "{action:?}");
    let action = world.step(&mut flow, lost(FailureClass::Connect, Processed::No));
    assert!(matches!(action, Action::Reject(_)), "the first may have been billed: {action:?}");

    // The second may have been billed, and then the first is refused.
    let (mut flow, _, _) = late(&mut world);
    let action = world.step(&mut flow, lost(FailureClass::Transient, Processed::Maybe).of_hedge());
    assert!(matches!(action, Action::DropHedge), "{action:?}");
    let action = world.step(&mut flow, lost(FailureClass::CredentialQuota, Processed::No));
    assert!(matches!(action, Action::Reject(_)), "the second may have been billed: {action:?}");
    assert_eq!(world.fleet.permits_in_use(), 0);
}

#[test]
fn what_cannot_have_been_billed_is_sent_again_although_it_was_hedged() {
    let mut world = world(&["a paid", "b paid", "c paid"]);
    let (mut flow, _, _) = late(&mut world);
    let refused = || failed(FailureClass::Overloaded, Processed::RefusedWithError, None);
    let action = world.step(&mut flow, refused());
    assert!(matches!(action, Action::Promote), "{action:?}");
    assert!(sent(&world.step(&mut flow, refused())).is_some());
}

#[test]
fn e9_what_failed_is_no_room_for_hedges() {
    let mut world = world(&["a slots=5", "b slots=5", "c slots=10"]);
    let idle = world.fleet.deployment(world.facts().model, "c").expect("the deployment c");
    world.fleet.observe(world.now, Event::Probe { deployment: idle, healthy: false });
    let _busy: Vec<Flow> = (0..8).map(|_| world.arrive().0).collect();
    let (_, _, action) = late(&mut world);
    assert!(matches!(action, Action::Wait), "nine of the ten slots that work are taken: {action:?}");
}

#[test]
fn an_answer_that_ends_without_content_ends_both() {
    let mut world = world(&["a", "b"]);
    let (mut flow, _, _) = late(&mut world);
    let _ = world.step(&mut flow, Input::Done(Default::default()));
    assert_eq!((flow.permits(), world.fleet.permits_in_use()), (0, 0));
}
