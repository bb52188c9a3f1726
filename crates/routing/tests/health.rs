//! Slow, not dead; hanging, and nobody waits for it; quotas that are shared; lanes apart; no failure that looks fast.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, Catalog};
use pointsman_routing::facts::Lane;
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::DeploymentView;
use pointsman_routing::flow::{Action, Flow, Input};
use pointsman_routing::health::Reason;
use pointsman_routing::{Facts, FailureClass, decide};
use support::{World, catalog, chosen, failed, sent};

fn view(world: &World, name: &str) -> DeploymentView {
    let view = world.fleet.view(world.now);
    let all = view.models.into_iter().flat_map(|model| model.deployments);
    all.into_iter().find(|one| &*one.name == name).expect("a deployment of that name")
}

fn counts(world: &mut World, facts: &Facts, times: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let decision = decide(&mut world.fleet, facts, &[], world.now, &mut world.rng);
        *counts.entry(chosen(&decision)).or_default() += 1;
    }
    counts
}

/// One request, whose first content takes as long as `took` says for the deployment that it is sent to.
fn answer(world: &mut World, facts: Facts, took: impl Fn(&str) -> u64) -> Option<String> {
    let (mut flow, action) = world.arrive_with(facts);
    let name = sent(&action)?.to_owned();
    let _ = world.step(&mut flow, Input::Connected);
    world.wait(Duration::from_millis(took(&name)));
    world.finish(&mut flow);
    Some(name)
}

fn answers(world: &mut World, times: usize, took: impl Fn(&str) -> u64) {
    for _ in 0..times {
        let facts = world.facts();
        answer(world, facts, &took);
        world.wait(Duration::from_millis(100));
    }
}

#[test]
fn a_slow_deployment_is_degraded_gets_less_and_comes_back() {
    let mut world = World::new(&catalog("round_robin", &["a", "b", "c"]));
    answers(&mut world, 120, |_| 200);
    assert_eq!((view(&world, "a").state, view(&world, "a").slow), ("healthy", 1.0));
    answers(&mut world, 60, |name| if name == "a" { 500 } else { 200 });
    let a = view(&world, "a");
    assert_eq!((a.state, a.reasons.as_slice()), ("degraded", &[Reason::Slow][..]));
    assert!((2.0..3.0).contains(&a.slow), "{}", a.slow);
    assert!(a.failures == 0 && a.returns_in_ms.is_none(), "it works: {a:?}");
    assert_eq!(view(&world, "b").state, "healthy");
    // The record shows it.
    let facts = world.facts();
    let decision = decide(&mut world.fleet, &facts, &[], world.now, &mut world.rng);
    let slow: Vec<bool> = decision.candidates.iter().map(|one| one.slow > 2.0).collect();
    assert_eq!(slow, [true, false, false]);
    answers(&mut world, 60, |_| 200);
    let a = view(&world, "a");
    assert_eq!((a.state, a.slow), ("healthy", 1.0));
    let reasons: Vec<Reason> = a.history.iter().map(|change| change.reason).collect();
    assert_eq!(reasons, [Reason::Slow, Reason::FastAgain]);
}

#[test]
fn what_is_slow_is_passed_over_while_that_is_believed() {
    let mut world = World::new(&catalog("least_busy", &["a", "b"]));
    // Every other request finds the other busy, so that both are asked.
    let pair = |world: &mut World, a_ms: u64| {
        let mut flows: Vec<(Flow, Action)> = (0..2).map(|_| world.arrive()).collect();
        for (flow, _) in &mut flows {
            let _ = world.step(flow, Input::Connected);
        }
        world.wait(Duration::from_millis(200));
        flows.sort_by_key(|(_, action)| std::cmp::Reverse(sent(action).map(str::to_owned)));
        for (flow, action) in &mut flows {
            if sent(action) == Some("a") {
                world.wait(Duration::from_millis(a_ms - 200));
            }
            world.finish(flow);
        }
    };
    for _ in 0..40 {
        pair(&mut world, 200);
    }
    for _ in 0..20 {
        pair(&mut world, 600);
    }
    assert_eq!(view(&world, "a").reasons, [Reason::Slow]);
    let facts = world.facts();
    assert_eq!(counts(&mut world, &facts, 100), BTreeMap::from([("b".to_owned(), 100)]));
    world.wait(Duration::from_secs(4));
    assert_eq!(
        counts(&mut world, &facts, 100).len(),
        2,
        "it is looked at again, or nobody would see it recover"
    );
}

#[test]
fn nobody_is_slow_when_prompts_are_long_or_all_are_slow() {
    let mut world = World::new(&catalog("round_robin", &["a", "b", "c", "d"]));
    answers(&mut world, 200, |_| 200);
    answers(&mut world, 400, |_| 700);
    assert!(["a", "b", "c", "d"].iter().all(|name| view(&world, name).breaker_transitions == 0));
    let mut world = World::new(&catalog("round_robin", &["a"]));
    for number in 0..300 {
        let tokens_in_estimate = if number < 150 { 100 + number % 50 * 20 } else { 30_000 };
        let facts = Facts { tokens_in_estimate, ..world.facts() };
        answer(&mut world, facts, |_| 100 + u64::from(tokens_in_estimate) / 5);
        world.wait(Duration::from_millis(100));
    }
    assert_eq!(view(&world, "a").breaker_transitions, 0, "that is what long prompts take");
}

#[test]
fn whole_answers_say_nothing_of_speed() {
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    for number in 0..200 {
        let facts = Facts { stream: false, ..world.facts() };
        answer(&mut world, facts, |name| if name == "a" && number > 100 { 9_000 } else { 1_000 });
    }
    assert_eq!(view(&world, "a").breaker_transitions, 0);
    let mut world = World::new(&catalog("round_robin", &["a", "b"]));
    for number in 0..200 {
        let facts = Facts { stream: false, needs: Capabilities::EMBEDDINGS, ..world.facts() };
        answer(&mut world, facts, |name| if name == "a" && number > 100 { 90 } else { 30 });
    }
    assert_eq!(view(&world, "a").reasons, [Reason::Slow], "those of embeddings do");
}

/// A request that is given up after so long without content.
fn give_up(world: &mut World, facts: Facts, after_ms: u64, by: &str) -> Option<String> {
    let deadline = (by == "deadline").then(|| world.now + Duration::from_millis(after_ms));
    let (mut flow, action) = world.arrive_with(Facts { deadline, ..facts });
    let name = sent(&action)?.to_owned();
    let _ = world.step(&mut flow, Input::Connected);
    if name != "hangs" {
        world.wait(Duration::from_millis(200));
        world.finish(&mut flow);
        return Some(name);
    }
    world.wait(Duration::from_millis(after_ms));
    let _ = world.step(&mut flow, if by == "deadline" { Input::TimerFired } else { Input::ClientGone });
    assert_eq!(flow.phase().name(), "over");
    Some(name)
}

#[test]
fn one_that_hangs_is_found_though_every_request_ends_by_its_own_deadline() {
    for (by, stream) in [("deadline", true), ("client", true), ("deadline", false)] {
        let mut world = World::new(&catalog("round_robin", &["hangs paid", "b", "c"]));
        let facts = Facts { stream, ..world.facts() };
        for _ in 0..90 {
            answer(&mut world, facts.clone(), |_| 200);
        }
        let mut asked = 0;
        for _ in 0..60 {
            asked += u32::from(give_up(&mut world, facts.clone(), 2_000, by).as_deref() == Some("hangs"));
        }
        let found = view(&world, "hangs");
        assert_eq!((found.state, asked < 8), ("failed", true), "{by}, stream {stream}: asked {asked} times");
    }
}

#[test]
fn waits_that_are_not_late_count_nothing() {
    let mut world = World::new(&catalog("round_robin", &["hangs", "b"]));
    answers(&mut world, 90, |_| 200);
    for by in ["deadline", "client"] {
        for _ in 0..200 {
            let facts = world.facts();
            give_up(&mut world, facts, 250, by);
        }
    }
    assert_eq!(view(&world, "hangs").breaker_transitions, 0, "who is impatient speaks for himself");
}

#[test]
fn a_probe_that_is_given_up_late_is_a_probe_that_failed() {
    let mut world = World::new(&catalog("round_robin", &["hangs", "b"]));
    for _ in 0..20 {
        let (mut flow, action) = world.arrive();
        let input = match sent(&action) {
            Some("hangs") => failed(FailureClass::Connect, Processed::No, None),
            _ => Input::ClientGone,
        };
        let _ = world.step(&mut flow, input);
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    world.wait(Duration::from_secs(10));
    let mut probes = 0;
    for _ in 0..30 {
        let facts = world.facts();
        probes += u32::from(give_up(&mut world, facts, 1_500, "deadline").as_deref() == Some("hangs"));
    }
    assert!((1..=3).contains(&probes), "{probes} of 30 requests were lost to it in a row");
    let reasons: Vec<Reason> = view(&world, "hangs").history.iter().map(|change| change.reason).collect();
    assert!(reasons.contains(&Reason::ProbeFailed), "{reasons:?}");
}

/// The same without any breaker, so that the scores alone keep traffic away.
fn without_breaker(mut catalog: Catalog) -> Catalog {
    for model in catalog.models.values_mut() {
        model.health.failures = u32::MAX;
        model.health.connect_failures = u32::MAX;
        model.health.failed_rate = 1.0;
        model.attempts_max = 1;
    }
    catalog
}

#[test]
fn f1_a_deployment_that_answers_503_in_5_ms_attracts_no_traffic() {
    for strategy in ["least_busy", "latency"] {
        let mut world = World::new(&without_breaker(catalog(strategy, &["bad", "b", "c", "d"])));
        let (mut to_bad, mut running) = (0, Vec::<(u64, Flow)>::new());
        // A request every 20 ms for a minute; the good take 400 ms each, so that they always look busier.
        for tick in 0..12_000_u64 {
            world.wait(Duration::from_millis(5));
            let due: Vec<Flow> =
                running.extract_if(.., |(end, _)| *end <= tick).map(|(_, flow)| flow).collect();
            for mut flow in due {
                let bad = flow.attempts().last().is_some_and(|attempt| &*attempt.name == "bad");
                if bad {
                    let error = failed(FailureClass::Overloaded, Processed::RefusedWithError, None);
                    let _ = world.step(&mut flow, error);
                    let _ = world.step(&mut flow, Input::ClientGone);
                } else {
                    world.finish(&mut flow);
                }
            }
            if tick % 4 == 0 {
                let (flow, action) = world.arrive();
                let bad = sent(&action) == Some("bad");
                to_bad += u32::from(bad);
                running.push((tick + if bad { 1 } else { 80 }, flow));
            }
        }
        assert!(to_bad < 300, "{strategy}: {to_bad} of 3,000, where an even share would be 750");
    }
}

#[test]
fn e12_a_limit_holds_for_all_that_share_the_quota() {
    let limit = |lines: &[&str], retry_after_s| {
        let mut world = World::new(&catalog("round_robin", lines));
        let (mut flow, action) = world.arrive();
        assert_eq!(sent(&action), Some("a"));
        let action =
            world.step(&mut flow, failed(FailureClass::CredentialQuota, Processed::No, retry_after_s));
        (world, sent(&action).map(str::to_owned))
    };
    for (lines, expected) in [
        (["a keys=1 paid", "b tier=2 keys=1 paid"], Some("b")),
        (["a keys=1 paid domain=org", "b tier=2 keys=1 paid domain=other"], Some("b")),
        (["a keys=1 paid domain=org", "b tier=2 keys=1 paid domain=org"], None),
        // Both keys of the provider share it, so there is no use in the other.
        (["a keys=2 paid domain=org", "b tier=2 keys=1 paid domain=org"], None),
        // Without keys, and with a quota that belongs to deployments whatever their keys.
        (["a own_domain=org", "b tier=2 own_domain=org"], None),
        (["a own_domain=org", "b tier=2 keys=1 domain=org"], None),
        (["a at=p keys=1 own_domain=x", "b tier=2 at=p own_domain=y"], Some("b")),
        (["a at=p keys=1 own_domain=x", "b tier=2 at=p own_domain=x"], None),
        (["a at=p keys=1", "b tier=2 at=p"], None),
    ] {
        let (mut world, next) = limit(&lines, Some(20));
        assert_eq!(next.as_deref(), expected, "{lines:?}");
        let facts = world.facts();
        let batch = Facts { lane: Lane::Batch, ..facts.clone() };
        if expected.is_none() {
            assert_eq!(view(&world, "b").state, "cooling", "{lines:?}");
            world.wait(Duration::from_millis(19_999));
            for facts in [&facts, &batch] {
                assert!(
                    counts(&mut world, facts, 1).contains_key("unavailable"),
                    "{lines:?}: both lanes share it"
                );
            }
            world.wait(Duration::from_millis(1));
        }
        assert!(!counts(&mut world, &facts, 1).contains_key("unavailable"), "{lines:?}");
    }
}

#[test]
fn e13_a_second_429_extends_the_wait_of_the_domain_and_never_shortens_it() {
    let lines = ["a keys=1 domain=org", "b keys=1 domain=org", "c own_domain=org"];
    let mut world = World::new(&catalog("round_robin", &lines));
    let mut flows: Vec<Flow> = (0..3).map(|_| world.arrive().0).collect();
    let mut left_ms = |world: &mut World, retry_after_s| {
        let mut flow = flows.pop().expect("one more");
        let _ =
            world.step(&mut flow, failed(FailureClass::CredentialQuota, Processed::No, Some(retry_after_s)));
        let _ = world.step(&mut flow, Input::ClientGone);
        ["a", "b", "c"].map(|name| view(world, name).returns_in_ms.unwrap_or(0))
    };
    assert_eq!(left_ms(&mut world, 10), [10_000; 3]);
    assert_eq!(left_ms(&mut world, 2), [10_000; 3], "never shorter");
    assert_eq!(left_ms(&mut world, 60), [60_000; 3], "longer");
}

#[test]
fn what_batch_traffic_is_told_does_not_keep_live_traffic_away() {
    let overloaded = || failed(FailureClass::Overloaded, Processed::RefusedWithError, Some(30));
    let after = |lane| {
        let mut world = World::new(&catalog("round_robin", &["a"]));
        let (mut flow, _) = world.arrive_with(Facts { lane, ..world.facts() });
        let _ = world.step(&mut flow, overloaded());
        let _ = world.step(&mut flow, Input::ClientGone);
        let facts = world.facts();
        let a = view(&world, "a");
        assert_eq!(a.batch.state, "cooling");
        [Lane::Live, Lane::Batch].map(|lane| {
            let facts = Facts { lane, ..facts.clone() };
            counts(&mut world, &facts, 1).contains_key("a")
        })
    };
    assert_eq!(after(Lane::Batch), [true, false]);
    assert_eq!(after(Lane::Live), [false, false], "what live traffic is told, batch traffic heeds");
}

#[test]
fn a_refusal_by_content_policy_goes_to_another_provider() {
    let lines = ["a at=p", "b at=p tier=2", "c at=q tier=3"];
    let mut catalog = catalog("round_robin", &lines);
    for model in catalog.models.values_mut() {
        model.retry.content_policy = true;
    }
    let mut world = World::new(&catalog);
    let (mut flow, _) = world.arrive();
    let action = world.step(&mut flow, failed(FailureClass::ContentPolicy, Processed::No, None));
    assert_eq!(sent(&action), Some("c"), "the same provider refuses it again");
}

#[test]
fn nobody_looks_early_where_failing_may_be_billed() {
    for (line, processed, unsure, looked) in [
        ("a paid", Processed::Maybe, false, false),
        ("a paid", Processed::RefusedWithError, false, true),
        ("a paid", Processed::Maybe, true, true),
        ("a", Processed::Maybe, false, true),
    ] {
        let mut catalog = catalog("round_robin", &[line, "b"]);
        for model in catalog.models.values_mut() {
            model.retry.unsure = unsure;
            model.health.open_min = Duration::from_secs(60);
        }
        let mut world = World::new(&catalog);
        for _ in 0..10 {
            let (mut flow, action) = world.arrive();
            if sent(&action) == Some("a") {
                let _ = world.step(&mut flow, failed(FailureClass::Transient, processed, None));
            }
            let _ = world.step(&mut flow, Input::ClientGone);
        }
        assert_eq!(view(&world, "a").state, "failed");
        world.wait(Duration::from_secs(5));
        let facts = world.facts();
        let got = counts(&mut world, &facts, 2_000).contains_key("a");
        assert_eq!(got, looked, "{line}, {processed:?}, unsure {unsure}");
    }
}

#[test]
fn the_budget_pays_for_what_is_sent_again_and_for_nothing_else() {
    let left = |world: &World| world.fleet.view(world.now).models[0].retry_budget_remaining;
    let mut world = World::new(&catalog("round_robin", &["a paid", "b paid tier=2"]));
    let (mut flow, _) = world.arrive();
    let before = left(&world);
    let action = world.step(&mut flow, failed(FailureClass::Connect, Processed::No, None));
    assert_eq!((sent(&action), left(&world)), (Some("b"), before - 1));
    let action = world.step(&mut flow, failed(FailureClass::Connect, Processed::No, None));
    assert_eq!((sent(&action), left(&world)), (None, before - 1), "there is no third to send it to");
}
