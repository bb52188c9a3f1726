//! Other models that a request named: when they are tried, and by whose rules.

mod support;

use std::time::Duration;

use pointsman_routing::catalog::{Catalog, Name};
use pointsman_routing::decision::Rejection;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::fallback::{Fallback, Stop};
use pointsman_routing::flow::{Action, Flow, FlowOutcome, Input, Phase, Refusal};
use pointsman_routing::{Facts, FailureClass};
use support::{World, catalog, failed, sent};

/// The models `m` and `n`, with these deployments.
fn two(m: &[&str], n: &[&str]) -> Catalog {
    let (mut both, other) = (catalog("least_busy", m), catalog("least_busy", n));
    both.providers.extend(other.providers);
    both.models.insert("n".into(), other.models["m"].clone());
    both
}

/// A request for `m` that names `n`, or versions of it.
fn arrive(world: &mut World, facts: Facts, versions: &[Option<&str>]) -> (Flow, Action) {
    let model = world.fleet.model("n").expect("it is there");
    let named =
        |version: Option<&str>| Fallback { model, name: "n".into(), version: version.map(Name::from) };
    let fallbacks = versions.iter().copied().map(named).collect();
    let mut flow = Flow::new(facts, world.now);
    flow.fall_back_to(fallbacks);
    let action = world.step(&mut flow, Input::Arrived);
    (flow, action)
}

fn ask(catalog: &Catalog) -> (World, Flow, Action) {
    let mut world = World::new(catalog);
    let facts = world.facts();
    let (flow, action) = arrive(&mut world, facts, &[None]);
    (world, flow, action)
}

#[test]
fn a_model_that_cannot_serve_gives_way_to_the_next() {
    for m in [&["a draining"][..], &["a deaf"], &["a context=10"], &[]] {
        let (mut world, mut flow, action) = ask(&two(m, &["b"]));
        assert_eq!(sent(&action), Some("b"), "{m:?}");
        assert_eq!(flow.other_model().map(|name| &**name), Some("n"), "{m:?}");
        assert_eq!(flow.stops(), [Stop { model: "n".into(), decision: 1, attempt: 0 }], "{m:?}");
        assert_eq!(flow.decisions().len(), 2, "{m:?}");
        world.finish(&mut flow);
        assert!(matches!(flow.outcome(), Some(FlowOutcome::Completed { .. })));
        assert_eq!(world.fleet.permits_in_use(), 0);
    }
    let (_, flow, action) = ask(&two(&["a"], &["b"]));
    assert_eq!((sent(&action), flow.other_model()), (Some("a"), None));
}

#[test]
fn promise_1_another_model_is_no_way_around_what_may_be_sent_again() {
    use FailureClass as C;
    use Processed as P;
    for (name, input, expected) in [
        ("connect", failed(C::Connect, P::No, None), Some("b")),
        ("429", failed(C::CredentialQuota, P::No, Some(1)), Some("b")),
        ("503", failed(C::Overloaded, P::RefusedWithError, None), Some("b")),
        ("500", failed(C::Transient, P::RefusedWithError, None), Some("b")),
        ("e2 lost after sending", failed(C::Transient, P::Maybe, None), None),
        ("first content", failed(C::FirstContentTimeout, P::Maybe, None), None),
        ("e5 400", failed(C::Client, P::No, None), None),
        ("content policy", failed(C::ContentPolicy, P::No, None), None),
    ] {
        for attempts_max in [1, 3] {
            let mut both = two(&["a paid"], &["b paid"]);
            both.models.get_mut("m").expect("m").attempts_max = attempts_max;
            let (mut world, mut flow, action) = ask(&both);
            assert_eq!(sent(&action), Some("a"));
            let action = world.step(&mut flow, input.clone());
            assert_eq!(sent(&action), expected, "{name}, {attempts_max} attempts");
            assert_eq!(world.fleet.permits_in_use(), u64::from(expected.is_some()), "{name}");
            if expected.is_none() {
                assert_eq!(flow.phase(), Phase::Over, "{name}");
            }
        }
    }
}

#[test]
fn each_model_has_its_own_attempts_and_all_have_one_deadline() {
    let mut both = two(&["a"], &["b", "c"]);
    both.models.get_mut("m").expect("m").attempts_max = 1;
    both.models.get_mut("m").expect("m").timeouts.total = Duration::from_secs(5);
    both.models.get_mut("n").expect("n").attempts_max = 2;
    let (mut world, mut flow, action) = ask(&both);
    assert_eq!(sent(&action), Some("a"));
    let deadline = flow.facts().deadline;
    let refused = || failed(FailureClass::Connect, Processed::No, None);
    assert!(sent(&world.step(&mut flow, refused())).is_some(), "the first of n");
    assert!(sent(&world.step(&mut flow, refused())).is_some(), "the second of n");
    assert_eq!(flow.facts().deadline, deadline);
    let action = world.step(&mut flow, refused());
    assert!(matches!(action, Action::Reject(Refusal::Failed(_))), "{action:?}");
    assert_eq!((flow.attempts().len(), world.fleet.permits_in_use()), (3, 0));

    let (mut world, mut flow, _) = ask(&both);
    world.wait(Duration::from_secs(5));
    let action = world.step(&mut flow, refused());
    assert!(matches!(action, Action::Reject(_)), "nothing is sent after the deadline: {action:?}");
}

#[test]
fn after_content_there_is_no_other_model() {
    let (mut world, mut flow, _) = ask(&two(&["a"], &["b"]));
    for input in [Input::Connected, Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut flow, input);
    }
    let action = world.step(&mut flow, failed(FailureClass::Transient, Processed::RefusedWithError, None));
    assert!(matches!(action, Action::Truncate(_)), "{action:?}");
}

#[test]
fn a_full_queue_and_a_wait_that_is_over_lead_to_the_next_model() {
    let mut both = two(&["a slots=1"], &["b"]);
    both.models.get_mut("m").expect("m").queue.requests_max = 1;
    let mut world = World::new(&both);
    let (mut first, _) = world.arrive();
    let facts = world.facts();
    let (mut waiting, action) = arrive(&mut world, facts, &[None]);
    assert!(matches!(action, Action::Wait));
    let facts = world.facts();
    let (mut third, action) = arrive(&mut world, facts, &[None]);
    assert_eq!(sent(&action), Some("b"), "the queue is full");
    let mut action = Action::Wait;
    while matches!(action, Action::Wait) {
        world.now = waiting.wake_at();
        action = world.step(&mut waiting, Input::TimerFired);
    }
    assert_eq!(sent(&action), Some("b"), "it waited long enough");
    assert!(waiting.queue_wait() > Duration::ZERO);
    for flow in [&mut first, &mut waiting, &mut third] {
        world.finish(flow);
    }
    assert_eq!(world.fleet.permits_in_use(), 0);
}

#[test]
fn when_no_model_can_serve_the_one_asked_for_is_the_answer() {
    let (_, flow, action) = ask(&two(&["a draining"], &["b deaf"]));
    let Action::Reject(Refusal::NotRouted(decision, why)) = action else { panic!("{action:?}") };
    assert_eq!((why, decision.candidates.len()), (Rejection::Unavailable, 1));
    assert!(matches!(flow.outcome(), Some(FlowOutcome::Rejected { why: Rejection::Unavailable })));
    assert_eq!(flow.decisions().len(), 2, "both are on record");
}

#[test]
fn versions_are_each_models_own() {
    let both = two(&["a version=1"], &["b version=2"]);
    let mut world = World::new(&both);
    let facts = Facts { version: Some("9".into()), ..world.facts() };
    let (_, action) = arrive(&mut world, facts, &[None]);
    let wrong = matches!(action, Action::Reject(Refusal::NotRouted(_, Rejection::NoSuchVersion)));
    assert!(wrong, "what only the client can have got wrong is told: {action:?}");
    let mut both = two(&["a draining version=1"], &["b version=2"]);
    both.models.get_mut("m").expect("m").attempts_max = 1;
    let mut world = World::new(&both);
    let facts = Facts { version: Some("1".into()), ..world.facts() };
    let (flow, action) = arrive(&mut world, facts, &[Some("7"), Some("2")]);
    assert_eq!((sent(&action), flow.stops().len()), (Some("b"), 2));
}

#[test]
fn a_shadow_is_sent_once_or_not_at_all() {
    let mut world = World::new(&catalog("least_busy", &["a slots=1", "b tier=2 slots=1"]));
    let mut flow = Flow::shadow(world.facts(), world.now);
    assert_eq!(sent(&world.step(&mut flow, Input::Arrived)), Some("a"));
    let action = world.step(&mut flow, failed(FailureClass::Connect, Processed::No, None));
    assert!(matches!(action, Action::Reject(Refusal::Failed(_))), "{action:?}");
    let mut held: Vec<Flow> = (0..2).map(|_| world.arrive().0).collect();
    let mut flow = Flow::shadow(world.facts(), world.now);
    let action = world.step(&mut flow, Input::Arrived);
    assert!(matches!(action, Action::Reject(Refusal::NotRouted(_, Rejection::QueueFull))), "{action:?}");
    assert_eq!(flow.ticket(), None);
    for flow in &mut held {
        world.finish(flow);
    }
    assert_eq!(world.fleet.permits_in_use(), 0);
}
