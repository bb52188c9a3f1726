//! The life of a request: phases, failover, queue, and what is never done.

mod support;

use std::time::Duration;

use pointsman_routing::catalog::Capabilities;
use pointsman_routing::decision::WhyNot;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, FlowOutcome, Input, Phase, Refusal, Usage};
use pointsman_routing::{Facts, FailureClass, Now};
use support::{World, catalog, failed, sent};

#[test]
fn a_good_request_goes_its_way_and_gives_its_permit_back() {
    let mut world = World::new(&catalog("least_busy", &["a slots=1"]));
    let (mut flow, action) = world.arrive();
    assert_eq!((sent(&action), world.fleet.permits_in_use()), (Some("a"), 1));
    assert!(matches!(world.step(&mut flow, Input::Connected), Action::Wait));
    assert!(matches!(world.step(&mut flow, Input::Headers), Action::Wait));
    assert!(matches!(world.step(&mut flow, Input::FirstContent), Action::Relay));
    assert_eq!(flow.phase(), Phase::Relaying);
    assert!(matches!(world.step(&mut flow, Input::Done(Default::default())), Action::Finish));
    assert_eq!(world.fleet.permits_in_use(), 0);
    assert!(
        matches!(world.step(&mut flow, Input::ClientGone), Action::Finish),
        "what comes after the end changes nothing"
    );
    assert!(matches!(flow.outcome(), Some(FlowOutcome::Completed { .. })));
}

/// What becomes of a request whose first attempt, on `a`, failed so.
fn after(first: &str, input: Input) -> Option<String> {
    let mut world = World::new(&catalog("least_busy", &[first, "b tier=2"]));
    let (mut flow, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    let action = world.step(&mut flow, input);
    assert_eq!(world.fleet.permits_in_use(), u64::from(sent(&action).is_some()));
    sent(&action).map(str::to_owned)
}

#[test]
fn promise_1_a_generation_is_sent_again_only_when_that_is_safe() {
    use FailureClass as C;
    use Processed as P;
    for (name, first, input, expected) in [
        ("connect", "a paid", failed(C::Connect, P::No, None), Some("b")),
        ("429", "a paid", failed(C::CredentialQuota, P::No, Some(1)), Some("b")),
        ("429 in a stream", "a paid", failed(C::CredentialQuota, P::RefusedWithError, None), Some("b")),
        ("429, another key", "a paid keys=2", failed(C::CredentialQuota, P::No, Some(1)), Some("a")),
        ("401, another key", "a paid keys=2", failed(C::CredentialDead, P::No, None), Some("a")),
        ("401, the only key", "a paid keys=1", failed(C::CredentialDead, P::No, None), Some("b")),
        ("503 with retry-after", "a paid", failed(C::Overloaded, P::RefusedWithError, Some(1)), Some("b")),
        ("503 without", "a paid", failed(C::Overloaded, P::RefusedWithError, None), Some("b")),
        ("500", "a paid", failed(C::Transient, P::RefusedWithError, None), Some("b")),
        ("404", "a paid", failed(C::ModelMissing, P::No, None), Some("b")),
        ("e2 lost after sending, paid", "a paid", failed(C::Transient, P::Maybe, None), None),
        ("lost after sending, own engine", "a", failed(C::Transient, P::Maybe, None), Some("b")),
        ("e4 502 of a paid one", "a paid", failed(C::Transient, P::Maybe, None), None),
        ("e5 400", "a", failed(C::Client, P::No, None), None),
        ("too long, nobody knows for what", "a", failed(C::ContextLength, P::No, None), None),
        ("too long for a small one", "a context=4000", failed(C::ContextLength, P::No, None), Some("b")),
        ("content policy", "a", failed(C::ContentPolicy, P::No, None), None),
    ] {
        assert_eq!(after(first, input).as_deref(), expected, "{name}");
    }
}

#[test]
fn after_the_head_is_released_there_is_no_other() {
    for inputs in [
        &[Input::Connected, Input::Headers, Input::FirstContent][..],
        &[Input::Connected, Input::Headers][..],
    ] {
        let mut world = World::new(&catalog("least_busy", &["a", "b tier=2"]));
        let (mut flow, _) = world.arrive();
        for input in inputs {
            let _ = world.step(&mut flow, input.clone());
        }
        if flow.phase() == Phase::HoldingHeaders {
            world.wait(Duration::from_secs(15));
            assert!(matches!(world.step(&mut flow, Input::TimerFired), Action::Relay), "the hold is bounded");
        }
        let action = world.step(&mut flow, failed(FailureClass::Transient, Processed::Maybe, None));
        assert!(matches!(action, Action::Truncate(_)), "{action:?}");
        assert_eq!(world.fleet.permits_in_use(), 0);
    }
}

#[test]
fn attempts_and_time_are_bounded() {
    let mut world = World::new(&catalog("least_busy", &["a", "b tier=2", "c tier=3", "d tier=4"]));
    let (mut flow, mut action) = world.arrive();
    while sent(&action).is_some() {
        action = world.step(&mut flow, failed(FailureClass::Connect, Processed::No, None));
    }
    assert_eq!(flow.attempts().len(), 3);
    assert!(matches!(action, Action::Reject(Refusal::Failed(_))));

    let (mut flow, _) =
        world.arrive_with(Facts { deadline: Some(world.now + Duration::from_secs(2)), ..world.facts() });
    assert_eq!(
        flow.wake_at(),
        world.now + Duration::from_secs(2),
        "the client's deadline comes before the connect timeout"
    );
    world.wait(Duration::from_secs(2));
    assert!(
        matches!(world.step(&mut flow, Input::TimerFired), Action::Reject(Refusal::Failed(f)) if f.class == FailureClass::TotalTimeout)
    );
    assert_eq!(world.fleet.permits_in_use(), 0);
}

#[test]
fn each_phase_has_its_timeout() {
    for (inputs, after_s, class) in [
        (&[][..], 3, FailureClass::ConnectTimeout),
        (&[Input::Connected][..], 20, FailureClass::FirstContentTimeout),
        (&[Input::Connected, Input::Headers, Input::FirstContent][..], 5, FailureClass::IdleTimeout),
    ] {
        let mut world = World::new(&catalog("least_busy", &["a paid"]));
        let (mut flow, _) = world.arrive();
        for input in inputs {
            let _ = world.step(&mut flow, input.clone());
        }
        assert!(
            matches!(world.step(&mut flow, Input::TimerFired), Action::Wait),
            "an early timer changes nothing"
        );
        world.wait(Duration::from_secs(after_s));
        assert_eq!(flow.wake_at(), world.now);
        let _ = world.step(&mut flow, Input::TimerFired);
        assert_eq!(flow.attempts()[0].failure.as_ref().map(|failure| failure.class), Some(class));
    }
}

#[test]
fn chunks_keep_a_stream_alive() {
    let mut world = World::new(&catalog("least_busy", &["a"]));
    let (mut flow, _) = world.arrive();
    for input in [Input::Connected, Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut flow, input);
    }
    for _ in 0..5 {
        world.wait(Duration::from_secs(4));
        flow.on_chunk(world.now);
        assert!(matches!(world.step(&mut flow, Input::TimerFired), Action::Wait));
    }
    let _ = world.step(&mut flow, Input::ClientGone);
    assert_eq!(world.fleet.permits_in_use(), 0);
}

#[test]
fn the_queue_is_first_come_first_served_and_loses_no_grant() {
    let mut world = World::new(&catalog("least_busy", &["a slots=1"]));
    let (mut running, _) = world.arrive();
    let (mut first, action) = world.arrive();
    assert!(matches!(action, Action::Wait));
    let (mut second, _) = world.arrive();
    world.finish(&mut running);
    assert_eq!(world.woken(), [first.ticket().expect("it waits").0]);
    let (newcomer, action) = world.arrive();
    assert!(matches!(action, Action::Wait), "a newcomer does not overtake");
    // The client leaves between the grant and its collection: the slot goes to the next.
    let _ = world.step(&mut first, Input::ClientGone);
    assert_eq!(world.woken(), [second.ticket().expect("it waits").0]);
    world.wait(Duration::from_millis(5));
    let action = world.step(&mut second, Input::Granted);
    assert_eq!(sent(&action), Some("a"));
    assert_eq!(second.queue_wait(), Duration::from_millis(5));
    world.finish(&mut second);
    assert_eq!(world.woken(), [newcomer.ticket().expect("it waits").0]);
}

#[test]
fn the_queue_is_bounded_in_length_and_time() {
    let mut world = World::new(&catalog("least_busy", &["a slots=1"]));
    let (_running, _) = world.arrive();
    let mut waiting: Vec<_> = (0..4).map(|_| world.arrive().0).collect();
    let (_, action) = world.arrive();
    assert!(
        matches!(action, Action::Reject(Refusal::NotRouted(_, why)) if why.name() == "queue_full"),
        "{action:?}"
    );
    world.wait(Duration::from_secs(10));
    let action = world.step(&mut waiting[0], Input::TimerFired);
    assert!(
        matches!(action, Action::Reject(Refusal::NotRouted(_, why)) if why.name() == "queue_timeout"),
        "{action:?}"
    );
}

#[test]
fn who_waits_is_served_by_a_new_deployment() {
    let mut world = World::new(&catalog("least_busy", &["a slots=1"]));
    let (_running, _) = world.arrive();
    let (mut waiting, _) = world.arrive();
    world.fleet.apply(&catalog("least_busy", &["a slots=1", "b slots=1"]), world.now);
    assert_eq!(world.woken().len(), 1);
    assert_eq!(sent(&world.step(&mut waiting, Input::Granted)), Some("b"));
}

#[test]
fn l3_a_reload_keeps_what_is_in_flight() {
    let mut world = World::new(&catalog("least_busy", &["a slots=1", "b slots=1"]));
    let (mut first, _) = world.arrive();
    let (mut second, _) = world.arrive();
    world.fleet.apply(&catalog("least_busy", &["a slots=1"]), world.now);
    assert_eq!(world.fleet.permits_in_use(), 2, "the removed deployment finishes what it has");
    let (_third, action) = world.arrive();
    assert!(matches!(action, Action::Wait), "its slot is not given again");
    world.finish(&mut first);
    world.finish(&mut second);
    assert_eq!(world.woken().len(), 1);
}

#[test]
fn f3_a_deployment_that_keeps_failing_is_left_alone_and_comes_back() {
    let mut world = World::new(&catalog("least_busy", &["a paid"]));
    for _ in 0..3 {
        let (mut flow, action) = world.arrive();
        assert_eq!(sent(&action), Some("a"));
        let _ = world.step(&mut flow, failed(FailureClass::Transient, Processed::Maybe, None));
    }
    let (_, action) = world.arrive();
    let Action::Reject(Refusal::NotRouted(decision, _)) = action else { panic!("open: {action:?}") };
    assert_eq!(decision.candidates[0].why_not.map(WhyNot::name), Some("failed"));
    world.wait(Duration::from_secs(8));
    let (mut probe, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    let (_, action) = world.arrive();
    assert!(matches!(action, Action::Reject(_)), "one probe at a time");
    let _ = world.step(&mut probe, Input::ClientGone);
    let (mut probe, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"), "a client that left does not leave the breaker half open");
    world.finish(&mut probe);
    assert_eq!(sent(&world.arrive().1), Some("a"));
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    for inputs in [
        &[][..],
        &[Input::Connected][..],
        &[Input::Connected, Input::Headers][..],
        &[Input::Connected, Input::Headers, Input::FirstContent][..],
    ] {
        let mut world = World::new(&catalog("least_busy", &["a"]));
        let (mut flow, _) = world.arrive();
        for input in inputs {
            let _ = world.step(&mut flow, input.clone());
        }
        let phase = flow.phase();
        assert!(matches!(world.step(&mut flow, Input::ClientGone), Action::Finish));
        assert!(matches!(flow.outcome(), Some(FlowOutcome::ClientGone { phase: was }) if *was == phase));
        assert_eq!((world.fleet.permits_in_use(), flow.wake_at()), (0, Now::NEVER));
    }
}

#[test]
fn f3_a_probe_that_delivers_lets_the_others_in_at_once() {
    let mut world = World::new(&catalog("least_busy", &["a paid"]));
    for _ in 0..3 {
        let (mut flow, _) = world.arrive();
        let _ = world.step(&mut flow, failed(FailureClass::Transient, Processed::Maybe, None));
    }
    world.wait(Duration::from_secs(8));
    let (mut probe, _) = world.arrive();
    for input in [Input::Connected, Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut probe, input);
    }
    assert_eq!(sent(&world.arrive().1), Some("a"), "its generation may take minutes yet");
}

#[test]
fn f1_what_a_deployment_does_not_have_is_held_against_that_operation_only() {
    let mut world = World::new(&catalog("least_busy", &["a"]));
    let embed = Facts { needs: Capabilities::EMBEDDINGS, ..world.facts() };
    for _ in 0..5 {
        let (mut flow, action) = world.arrive_with(embed.clone());
        if sent(&action).is_some() {
            let _ = world.step(&mut flow, failed(FailureClass::ModelMissing, Processed::No, None));
        }
    }
    let (_, action) = world.arrive_with(embed.clone());
    let Action::Reject(Refusal::NotRouted(decision, _)) = action else { panic!("{action:?}") };
    assert_eq!(decision.candidates[0].why_not.map(WhyNot::name), Some("upstream_missing"));
    assert_eq!(sent(&world.arrive().1), Some("a"), "chat goes on");
    world.wait(Duration::from_secs(61));
    assert_eq!(sent(&world.arrive_with(embed).1), Some("a"), "and the other is asked again after a while");
}

#[test]
fn an_answer_in_one_piece_may_take_longer_than_a_first_token() {
    let mut catalog = catalog("latency", &["a", "b"]);
    if let Some(model) = catalog.models.get_mut("m") {
        model.timeouts.answer = Duration::from_secs(50);
    }
    let mut world = World::new(&catalog);
    let whole = Facts { stream: false, ..world.facts() };
    let (mut flow, _) = world.arrive_with(whole);
    let _ = world.step(&mut flow, Input::Connected);
    assert_eq!(flow.wake_at(), world.now + Duration::from_secs(50));
    world.wait(Duration::from_secs(45));
    for input in [Input::Headers, Input::FirstContent, Input::Done(Usage::default())] {
        let _ = world.step(&mut flow, input);
    }
    let view = world.fleet.view(world.now);
    assert!(
        view.models[0].deployments.iter().all(|deployment| deployment.first_content_normalised_ms.is_none()),
        "how long a whole answer took says nothing about the deployment"
    );
    let (mut flow, _) = world.arrive();
    let _ = world.step(&mut flow, Input::Connected);
    assert_eq!(flow.wake_at(), world.now + Duration::from_secs(20), "a stream has to begin sooner");
}

#[test]
fn a_late_refusal_of_an_old_secret_does_not_take_the_new_one_out() {
    let mut old = catalog("least_busy", &["a keys=1"]);
    let mut world = World::new(&old);
    let (mut flow, _) = world.arrive();
    if let Some(provider) = old.providers.get_mut("a") {
        provider.credentials[0].revision = 1;
    }
    world.fleet.apply(&old, world.now);
    let _ = world.step(&mut flow, failed(FailureClass::CredentialDead, Processed::No, None));
    assert_eq!(sent(&world.arrive().1), Some("a"));
}

#[test]
fn the_only_place_is_tried_again_after_a_moment_if_it_answered_with_an_error() {
    let mut world = World::new(&catalog("least_busy", &["a paid"]));
    let (mut flow, _) = world.arrive();
    let error = || failed(FailureClass::Transient, Processed::RefusedWithError, None);
    for wait_ms in [50..=150, 100..=300] {
        assert!(matches!(world.step(&mut flow, error()), Action::Yield));
        assert_eq!((flow.phase(), world.fleet.permits_in_use()), (Phase::BackingOff, 0));
        let wait = flow.wake_at() - world.now;
        assert!(wait_ms.contains(&wait.as_millis()), "{wait:?}");
        world.wait(wait);
        assert_eq!(sent(&world.step(&mut flow, Input::TimerFired)), Some("a"));
    }
    assert!(
        matches!(world.step(&mut flow, error()), Action::Reject(Refusal::Failed(_))),
        "twice, not for ever"
    );
}

#[test]
fn e7_what_is_sent_again_is_a_share_of_what_is_sent() {
    let mut catalog = catalog("round_robin", &["a", "b", "c"]);
    if let Some(model) = catalog.models.get_mut("m") {
        // Whatever happens, nobody is left alone: only the budget stands between a failure and a storm.
        (model.health.failures, model.health.connect_failures) = (u32::MAX, u32::MAX);
        model.health.failed_rate = 1.0;
    }
    let mut world = World::new(&catalog);
    let mut attempts = 0;
    for _ in 0..2000 {
        let (mut flow, _) = world.arrive();
        while flow.outcome().is_none() {
            let _ = world.step(&mut flow, failed(FailureClass::Connect, Processed::No, None));
        }
        attempts += flow.attempts().len();
        world.wait(Duration::from_millis(4));
    }
    assert!((2000..=2400).contains(&attempts), "{attempts} attempts for 2000 requests");
}

#[test]
fn who_waited_for_the_only_place_and_finds_it_left_alone_is_told_so() {
    let mut world = World::new(&catalog("least_busy", &["a paid"]));
    let error = || failed(FailureClass::Transient, Processed::RefusedWithError, None);
    let (mut waiting, _) = world.arrive();
    assert!(matches!(world.step(&mut waiting, error()), Action::Yield));
    for _ in 0..2 {
        let (mut other, _) = world.arrive();
        let _ = world.step(&mut other, failed(FailureClass::Connect, Processed::No, None));
    }
    world.wait(Duration::from_millis(300));
    let action = world.step(&mut waiting, Input::TimerFired);
    assert!(matches!(action, Action::Reject(Refusal::Failed(_))), "not another wait: {action:?}");
    assert_eq!(
        waiting.decisions().len(),
        3,
        "where to first, that there is no other, and that it is left alone"
    );
}

#[test]
fn a_slow_hour_does_not_keep_everybody_away_for_ever() {
    let mut world = World::new(&catalog("least_busy", &["a"]));
    let (mut flow, _) = world.arrive();
    let _ = world.step(&mut flow, Input::Connected);
    world.wait(Duration::from_secs(15));
    world.finish(&mut flow);
    let hurried =
        |world: &World| Facts { deadline: Some(world.now + Duration::from_secs(5)), ..world.facts() };
    let facts = hurried(&world);
    assert!(matches!(world.arrive_with(facts).1, Action::Reject(_)), "it takes three times as long");
    world.wait(Duration::from_secs(31));
    let facts = hurried(&world);
    assert_eq!(sent(&world.arrive_with(facts).1), Some("a"), "somebody has to see whether it still does");
}

#[test]
fn a_refusal_of_a_credential_that_is_gone_leaves_the_others_at_work() {
    let mut old = catalog("least_busy", &["a keys=2"]);
    let mut world = World::new(&old);
    let (mut flow, _) = world.arrive();
    let used = flow.attempt().and_then(|attempt| attempt.credential_name.clone()).expect("a credential");
    if let Some(provider) = old.providers.get_mut("a") {
        provider.credentials.retain(|credential| credential.name != used);
    }
    world.fleet.apply(&old, world.now);
    let _ = world.step(&mut flow, failed(FailureClass::CredentialQuota, Processed::No, Some(300)));
    let _ = world.step(&mut flow, Input::ClientGone);
    assert_eq!(
        sent(&world.arrive().1),
        Some("a"),
        "what it was told says nothing about the one that is left"
    );
}

#[test]
fn what_an_attempt_tells_that_is_no_more_changes_nothing() {
    // One that waits before it is sent again, and one that waits for a slot.
    let mut world = World::new(&catalog("least_busy", &["a slots=1"]));
    let (mut backing_off, _) = world.arrive();
    let refused = || failed(FailureClass::Transient, Processed::RefusedWithError, None);
    let _ = world.step(&mut backing_off, refused());
    assert_eq!(backing_off.phase(), Phase::BackingOff);
    let (_running, _) = world.arrive();
    let (mut queued, _) = world.arrive();
    assert_eq!(queued.phase(), Phase::Queued);
    for (flow, phase) in [(&mut backing_off, Phase::BackingOff), (&mut queued, Phase::Queued)] {
        for input in [refused(), Input::Done(Usage::default())] {
            assert!(matches!(world.step(flow, input), Action::Wait));
            assert_eq!(flow.phase(), phase);
        }
        let _ = world.step(flow, Input::ClientGone);
    }
    assert_eq!(pointsman_routing::invariants::leftovers(&world.fleet).waiting, 0);
}
