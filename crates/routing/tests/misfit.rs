//! An answer that came whole and does not fit the JSON schema that its request holds it to.

mod support;

use std::time::Duration;

use pointsman_routing::FailureClass;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::misfit::OnMismatch;
use pointsman_routing::flow::{Action, Flow, FlowOutcome, Input, Phase, Refusal, Usage};
use support::{World, catalog, failed, sent};

const USED: Usage = Usage {
    tokens_in: 100,
    tokens_in_cached: 0,
    tokens_in_cache_written: 0,
    tokens_in_cache_written_1h: 0,
    off_list: false,
    tokens_in_image: 0,
    tokens_in_audio: 0,
    tokens_out: 40,
    tokens_out_reasoning: 0,
    tokens_out_audio: 0,
    estimated: false,
};

fn world(change: impl FnOnce(&mut pointsman_routing::catalog::ModelSpec)) -> World {
    let mut catalog = catalog("least_busy", &["a paid", "b paid tier=2", "c paid tier=3"]);
    change(catalog.models.get_mut("m").expect("the model m"));
    World::new(&catalog)
}

/// A request that is sent to `a`, whose answer is checked.
fn arrive(world: &mut World, on_mismatch: OnMismatch) -> Flow {
    let mut facts = world.facts();
    facts.stream = false;
    let mut flow = Flow::new(facts, world.now);
    flow.check_answer(on_mismatch);
    let action = world.step(&mut flow, Input::Arrived);
    assert_eq!(sent(&action), Some("a"));
    flow
}

/// The attempt's answer comes and does not fit.
fn misfit(world: &mut World, flow: &mut Flow) -> Action {
    for input in [Input::Connected, Input::Headers] {
        let _ = world.step(flow, input);
    }
    world.step(flow, Input::Misfit(USED))
}

fn is_refused(action: &Action) -> bool {
    matches!(action, Action::Reject(Refusal::Failed(failure)) if failure.class == FailureClass::SchemaMismatch)
}

fn kinds(flow: &Flow) -> Vec<&'static str> {
    flow.attempts().iter().map(|attempt| attempt.kind.name()).collect()
}

#[test]
fn fail_over_asks_others_though_it_was_billed_until_attempts_are_over() {
    let mut world = world(|_| {});
    let mut flow = arrive(&mut world, OnMismatch::FailOver);
    assert_eq!(sent(&misfit(&mut world, &mut flow)), Some("b"));
    assert_eq!(sent(&misfit(&mut world, &mut flow)), Some("c"));
    assert!(is_refused(&misfit(&mut world, &mut flow)));
    assert_eq!(kinds(&flow), ["usual", "usual", "usual"]);
    assert_eq!(world.fleet.permits_in_use(), 0);
    let Some(FlowOutcome::Failed { failure }) = flow.outcome() else { panic!("{:?}", flow.outcome()) };
    assert_eq!((failure.class, failure.processed), (FailureClass::SchemaMismatch, Processed::Maybe));
}

#[test]
fn fail_over_ends_where_no_other_is_left() {
    let mut world = World::new(&catalog("least_busy", &["a"]));
    let mut flow = arrive(&mut world, OnMismatch::FailOver);
    assert!(is_refused(&misfit(&mut world, &mut flow)), "the same place is not asked the same again");
}

#[test]
fn refuse_ends_at_once() {
    let mut world = world(|_| {});
    let mut flow = arrive(&mut world, OnMismatch::Refuse);
    assert!(is_refused(&misfit(&mut world, &mut flow)));
    assert_eq!(kinds(&flow), ["usual"]);
}

#[test]
fn repair_asks_once_more_and_the_same_place_may_do() {
    let mut world = world(|_| {});
    let mut flow = arrive(&mut world, OnMismatch::Repair);
    assert_eq!(sent(&misfit(&mut world, &mut flow)), Some("a"));
    assert!(is_refused(&misfit(&mut world, &mut flow)));
    assert_eq!(kinds(&flow), ["usual", "repair"]);
}

#[test]
fn a_repair_that_fails_otherwise_is_sent_elsewhere_and_is_still_the_only_one() {
    let mut world = world(|_| {});
    let mut flow = arrive(&mut world, OnMismatch::Repair);
    assert_eq!(sent(&misfit(&mut world, &mut flow)), Some("a"));
    let refused = failed(FailureClass::Overloaded, Processed::RefusedWithError, None);
    assert_eq!(sent(&world.step(&mut flow, refused)), Some("b"));
    assert!(is_refused(&misfit(&mut world, &mut flow)));
    assert_eq!(kinds(&flow), ["usual", "repair", "repair"]);
}

#[test]
fn what_may_have_been_billed_otherwise_still_ends_it() {
    let mut world = world(|_| {});
    let mut flow = arrive(&mut world, OnMismatch::FailOver);
    assert_eq!(sent(&misfit(&mut world, &mut flow)), Some("b"));
    let lost = failed(FailureClass::Transient, Processed::Maybe, None);
    assert!(matches!(world.step(&mut flow, lost), Action::Reject(Refusal::Failed(_))));
}

#[test]
fn attempts_bound_all_of_it() {
    for on_mismatch in [OnMismatch::FailOver, OnMismatch::Repair] {
        let mut world = world(|model| model.attempts_max = 1);
        let mut flow = arrive(&mut world, on_mismatch);
        assert!(is_refused(&misfit(&mut world, &mut flow)), "{on_mismatch:?}");
    }
}

#[test]
fn a_deployment_that_answers_is_not_sick_whatever_it_answers() {
    let mut world = world(|model| model.health.failures = 1);
    for _ in 0..20 {
        let mut flow = arrive(&mut world, OnMismatch::Refuse);
        assert!(is_refused(&misfit(&mut world, &mut flow)));
    }
    let (_, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"), "its breaker is closed");
}

#[test]
fn the_head_of_what_is_checked_waits_for_the_answer() {
    let mut world = world(|_| {});
    let mut flow = arrive(&mut world, OnMismatch::Repair);
    for input in [Input::Connected, Input::Headers] {
        let _ = world.step(&mut flow, input);
    }
    world.wait(Duration::from_secs(16));
    assert!(matches!(world.step(&mut flow, Input::TimerFired), Action::Wait));
    assert_eq!(flow.phase(), Phase::HoldingHeaders);
    assert!(matches!(world.step(&mut flow, Input::FirstContent), Action::Relay), "it fits");
    assert!(matches!(world.step(&mut flow, Input::Done(USED)), Action::Finish));
    assert_eq!(kinds(&flow), ["usual"]);
}
