//! What providers say of their limits: who is chosen because of it, and until when.

mod support;

use std::time::Duration;

use pointsman_routing::decision::WhyNot;
use pointsman_routing::flow::{Action, Flow, HedgeInput, Input};
use pointsman_routing::said::{Allowance, Allowances, Said};
use support::{World, catalog, sent};

fn said(remaining: u64, resets_in_s: u64) -> Said {
    let requests = Allowance {
        limit: Some(10),
        remaining: Some(remaining),
        resets_in: Some(Duration::from_secs(resets_in_s)),
    };
    let allowances = Allowances { requests, ..Allowances::default() };
    Said { allowances: Some(Box::new(allowances)), ..Said::default() }
}

/// The head of the answer comes and says this.
fn head(world: &mut World, flow: &mut Flow, said: Said) {
    let _ = world.step(flow, Input::Connected);
    flow.note_said(false, said);
    let _ = world.step(flow, Input::Headers);
}

fn credential(flow: &Flow) -> String {
    flow.attempt().and_then(|attempt| attempt.credential_name.as_deref()).unwrap_or("none").to_owned()
}

#[test]
fn a_credential_of_which_nothing_is_left_is_not_chosen_until_its_reset() {
    let mut world = World::new(&catalog("round_robin", &["a keys=2"]));
    let (mut first, _) = world.arrive();
    let spent = credential(&first);
    head(&mut world, &mut first, said(0, 10));
    let chosen = |world: &mut World| {
        let (mut flow, action) = world.arrive();
        assert_eq!(sent(&action), Some("a"));
        let name = credential(&flow);
        world.finish(&mut flow);
        name
    };
    for _ in 0..4 {
        assert_ne!(chosen(&mut world), spent);
    }
    world.wait(Duration::from_millis(9_999));
    assert_ne!(chosen(&mut world), spent);
    world.wait(Duration::from_millis(1));
    let after: Vec<String> = (0..4).map(|_| chosen(&mut world)).collect();
    assert!(after.contains(&spent), "{after:?}");
    world.finish(&mut first);
}

#[test]
fn when_all_are_used_up_the_soonest_reset_is_told_and_kept() {
    let mut world = World::new(&catalog("round_robin", &["a keys=2"]));
    let (mut one, _) = world.arrive();
    let (mut other, _) = world.arrive();
    assert_ne!(credential(&one), credential(&other));
    head(&mut world, &mut one, said(0, 30));
    head(&mut world, &mut other, said(0, 20));
    let (flow, action) = world.arrive();
    assert!(matches!(action, Action::Reject(_) | Action::Wait), "{action:?}");
    let candidate = &flow.decisions()[0].candidates[0];
    let reset = world.now + Duration::from_secs(20);
    assert!(
        matches!(candidate.why_not, Some(WhyNot::NoCredential { until: Some(until) }) if until == reset),
        "{candidate:?}"
    );
    let view = world.fleet.view(world.now);
    let states: Vec<_> =
        view.providers[0].credentials.iter().map(|one| (one.state, one.returns_in_ms)).collect();
    assert_eq!(states, [("cooling", Some(30_000)), ("cooling", Some(20_000))]);
    assert_eq!(view.providers[0].credentials[1].said["requests"].remaining, 0);
    // An answer that was on its way knows better.
    one.note_said(false, said(5, 30));
    let _ = world.step(&mut one, Input::FirstContent);
    let (late, action) = world.arrive();
    assert_eq!((sent(&action), credential(&late)), (Some("a"), credential(&one)));
}

#[test]
fn requests_sent_since_are_taken_off_what_was_left() {
    let mut world = World::new(&catalog("round_robin", &["a keys=1"]));
    let (mut first, _) = world.arrive();
    head(&mut world, &mut first, said(2, 60));
    let (_one, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    let (_two, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    let (_three, action) = world.arrive();
    assert_eq!(sent(&action), None, "two were left");
    world.wait(Duration::from_secs(60));
    let (_four, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
}

#[test]
fn those_that_share_a_quota_share_what_is_left_of_it() {
    let mut world = World::new(&catalog("round_robin", &["a keys=2 domain=org", "b keys=1"]));
    let (mut first, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    head(&mut world, &mut first, said(0, 10));
    for _ in 0..3 {
        let (_flow, action) = world.arrive();
        assert_eq!(sent(&action), Some("b"));
    }
}

#[test]
fn an_attempt_keeps_what_its_provider_said() {
    let mut world = World::new(&catalog("round_robin", &["a keys=1"]));
    let (mut flow, _) = world.arrive();
    let id = Said { request_id: Some("req_1".into()), ..said(4, 60) };
    head(&mut world, &mut flow, id.clone());
    let model = Said { model: Some("m-2025-01-01".into()), ..Said::default() };
    flow.note_said(false, model.clone());
    // What a hedge would have said, were there one, is nobody's.
    flow.note_said(true, said(0, 60));
    let _ = world.step(&mut flow, Input::Hedge(HedgeInput::Headers));
    world.finish(&mut flow);
    let kept = flow.attempts()[0].said.as_ref().expect("it is kept");
    assert_eq!(kept, &Said { model: model.model, ..id });
    let (_next, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
}

#[test]
fn the_model_that_answered_last_is_kept_and_shown() {
    let mut world = World::new(&catalog("round_robin", &["a"]));
    let shown = |world: &World| world.fleet.view(world.now).models[0].deployments[0].model_said.clone();
    let answered = |world: &mut World, model: Option<&str>| {
        let (mut flow, _) = world.arrive();
        head(world, &mut flow, Said { model: model.map(Into::into), ..Said::default() });
        world.finish(&mut flow);
    };
    assert_eq!(shown(&world), None);
    answered(&mut world, Some("m-2025-01-01"));
    answered(&mut world, None);
    assert_eq!(shown(&world).as_deref(), Some("m-2025-01-01"));
    answered(&mut world, Some("m-2025-02-02"));
    assert_eq!(shown(&world).as_deref(), Some("m-2025-02-02"));
}
