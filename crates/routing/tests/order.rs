//! Who of those that wait is next: classes with their floors, tenants by what they were served, deadlines; and what batch
//! leaves to live requests.

mod support;

use std::time::Duration;

use pointsman_routing::catalog::{Catalog, TenantSpec};
use pointsman_routing::decision::Outcome;
use pointsman_routing::facts::{Class, Lane};
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, Flow, FlowOutcome, Input, Refusal, Usage};
use pointsman_routing::{Facts, FailureClass};
use support::{World, catalog, failed, sent};

const OUT: u32 = 100;

/// A catalog whose queues hold many, oldest first.
fn patient(lines: &[&str]) -> Catalog {
    let mut catalog = catalog("least_busy", lines);
    let queue = &mut catalog.models.get_mut("m").expect("the model m").queue;
    (queue.requests_max, queue.batch.requests_max, queue.target) = (5_000, 5_000, Duration::ZERO);
    queue.batch.wait_max = Duration::from_secs(10);
    catalog
}

fn hash(tenant: &str) -> u64 {
    tenant.bytes().fold(7, |hash, byte| hash * 131 + u64::from(byte))
}

fn of(world: &World, tenant: &str, class: Class) -> Facts {
    Facts {
        tenant: tenant.into(),
        tenant_hash: hash(tenant),
        class,
        tokens_out_max: Some(OUT),
        ..world.facts()
    }
}

fn ask(world: &mut World, tenant: &str, class: Class) -> Flow {
    let facts = of(world, tenant, class);
    world.arrive_with(facts).0
}

fn end(world: &mut World, flow: &mut Flow) {
    let usage = Usage { tokens_in: 100, tokens_out: u64::from(OUT), ..Usage::default() };
    for input in [Input::Connected, Input::Headers, Input::FirstContent, Input::Done(usage)] {
        let _ = world.step(flow, input);
    }
}

/// Ends what runs, again and again, and gives whose turn it was.
fn turns(world: &mut World, running: &mut Vec<Flow>, waiting: &mut Vec<Flow>, count: usize) -> Vec<Facts> {
    let mut served = Vec::new();
    while served.len() < count {
        end(world, &mut running.remove(0));
        for ticket in world.woken() {
            let at = waiting.iter().position(|flow| flow.ticket().is_some_and(|own| own.0 == ticket));
            let mut flow = waiting.remove(at.expect("whoever is told waits"));
            let _ = world.step(&mut flow, Input::Granted);
            served.push(flow.facts().clone());
            running.push(flow);
        }
    }
    served
}

fn count(served: &[Facts], test: impl Fn(&Facts) -> bool) -> usize {
    served.iter().filter(|facts| test(facts)).count()
}

#[test]
fn the_more_important_come_first_and_nobody_starves() {
    let mut world = World::new(&patient(&["a slots=2"]));
    let mut running: Vec<Flow> = (0..2).map(|_| ask(&mut world, "t", Class::Standard)).collect();
    let mut waiting = Vec::new();
    for class in [Class::Batch, Class::Standard, Class::Interactive, Class::System] {
        waiting.extend((0..400).map(|_| ask(&mut world, "t", class)));
    }
    let served = turns(&mut world, &mut running, &mut waiting, 400);
    for (class, expected) in
        [(Class::System, 340), (Class::Interactive, 20), (Class::Standard, 20), (Class::Batch, 20)]
    {
        let got = count(&served, |facts| facts.class == class);
        assert!(got.abs_diff(expected) <= 2, "{class:?} got {got} of 400");
    }
    for window in served.windows(23) {
        assert!(
            window.iter().any(|facts| facts.class == Class::Batch),
            "one in twenty, and two others' turns"
        );
    }
}

#[test]
fn tenants_share_by_what_they_were_served_and_by_weight() {
    for (weight, expected) in [(1, 100), (3, 150)] {
        let mut catalog = patient(&["a slots=2"]);
        catalog.tenants.insert("light".into(), TenantSpec { weight });
        let mut world = World::new(&catalog);
        let mut running: Vec<Flow> = (0..2).map(|_| ask(&mut world, "hog", Class::Standard)).collect();
        let mut waiting: Vec<Flow> = (0..400).map(|_| ask(&mut world, "hog", Class::Standard)).collect();
        waiting.extend((0..200).map(|_| ask(&mut world, "light", Class::Standard)));
        let served = turns(&mut world, &mut running, &mut waiting, 200);
        let light = count(&served, |facts| &*facts.tenant == "light");
        assert!(light.abs_diff(expected) <= 3, "weight {weight}: {light} of 200");
    }
}

#[test]
fn who_comes_back_from_idle_has_saved_nothing_up_and_owes_nothing() {
    let mut world = World::new(&patient(&["a slots=2"]));
    let mut running: Vec<Flow> = ["a", "b"].map(|tenant| ask(&mut world, tenant, Class::Standard)).into();
    let mut waiting = Vec::new();
    for _ in 0..400 {
        waiting.extend(["a", "b"].map(|tenant| ask(&mut world, tenant, Class::Standard)));
    }
    let _ = turns(&mut world, &mut running, &mut waiting, 300);
    waiting.extend((0..200).map(|_| ask(&mut world, "back", Class::Standard)));
    let served = turns(&mut world, &mut running, &mut waiting, 150);
    let back = count(&served, |facts| &*facts.tenant == "back");
    assert!(back.abs_diff(50) <= 2, "a third, no more and no less: {back} of 150");
    let first = count(&served[..6], |facts| &*facts.tenant == "back");
    assert!((1..=3).contains(&first), "{first} of the first six");
}

#[test]
fn what_is_cached_costs_nothing_and_what_failed_unprocessed_is_given_back() {
    let mut world = World::new(&patient(&["a slots=2"]));
    let counter = |world: &World| {
        let view = world.fleet.view(world.now);
        (view.models[0].queue[0].tenants[0].counter, view.models[0].queue[0].tenants[0].served_tokens)
    };
    let mut flow = ask(&mut world, "t", Class::Standard);
    assert_eq!(counter(&world), (300, 300), "charged when it is sent");
    let usage = Usage { tokens_in: 100, tokens_in_cached: 90, tokens_out: 5, ..Usage::default() };
    for input in [Input::Connected, Input::Headers, Input::FirstContent, Input::Done(usage)] {
        let _ = world.step(&mut flow, input);
    }
    assert_eq!(counter(&world), (20, 20), "settled when it ends");
    let mut flow = ask(&mut world, "t", Class::Standard);
    let _ = world.step(&mut flow, failed(FailureClass::Client, Processed::No, None));
    assert_eq!(counter(&world), (20, 20));
}

#[test]
fn of_one_tenant_the_most_urgent_is_next() {
    let mut world = World::new(&patient(&["a slots=1"]));
    let mut running = vec![ask(&mut world, "t", Class::Standard)];
    let mut waiting = vec![ask(&mut world, "t", Class::Standard)];
    for left_s in [30, 10, 20] {
        let deadline = Some(world.now + Duration::from_secs(left_s));
        let facts = Facts { deadline, ..of(&world, "t", Class::Standard) };
        waiting.push(world.arrive_with(facts).0);
    }
    let served = turns(&mut world, &mut running, &mut waiting, 4);
    let left: Vec<u64> =
        served.iter().map(|facts| (facts.deadline.expect("one") - world.now).as_secs()).collect();
    assert_eq!(left, [10, 20, 30, 60]);
}

#[test]
fn whether_a_deadline_can_be_met_depends_on_the_place() {
    let mut world = World::new(&patient(&["a slots=1"]));
    for _ in 0..10 {
        let mut flow = ask(&mut world, "hog", Class::Standard);
        world.wait(Duration::from_secs(1));
        end(&mut world, &mut flow);
    }
    let _running = ask(&mut world, "hog", Class::Standard);
    let _waiting: Vec<Flow> = (0..20).map(|_| ask(&mut world, "hog", Class::Standard)).collect();
    let soon = Some(world.now + Duration::from_secs(6));
    for (tenant, class, ahead, too_late) in [
        ("hog", Class::Standard, 20, true),
        ("light", Class::Standard, 1, false),
        ("hog", Class::Interactive, 0, false),
        ("light", Class::Batch, 19, true),
    ] {
        let facts = Facts { deadline: soon, ..of(&world, tenant, class) };
        // Behind all of its tenant, not before them.
        let facts = Facts { deadline: Some(world.now + Duration::from_secs(60)), ..facts };
        let (mut flow, action) = world.arrive_with(facts.clone());
        assert!(matches!(action, Action::Wait), "{tenant} {class:?}");
        let Some(Outcome::Queued { place, .. }) = flow.decisions().last().map(|one| &one.outcome) else {
            panic!("it waits")
        };
        assert_eq!(place.ahead, ahead, "{tenant} {class:?}: {place:?}");
        assert_eq!(place.wait.map(|wait| wait.as_secs()), Some(u64::from(ahead) + 1));
        let _ = world.step(&mut flow, Input::ClientGone);
        if tenant == "hog" && class == Class::Standard {
            continue;
        }
        let (mut flow, action) = world.arrive_with(Facts { deadline: soon, ..facts });
        assert_eq!(matches!(action, Action::Reject(_)), too_late, "{tenant} {class:?}: {action:?}");
        let _ = world.step(&mut flow, Input::ClientGone);
    }
}

#[test]
fn a_full_queue_makes_room_for_who_has_less_or_is_more_important() {
    let mut catalog = patient(&["a slots=1"]);
    catalog.models.get_mut("m").expect("the model m").queue.requests_max = 4;
    let mut world = World::new(&catalog);
    let _running = ask(&mut world, "hog", Class::Standard);
    let mut waiting: Vec<Flow> = (0..4).map(|_| ask(&mut world, "hog", Class::Standard)).collect();
    let arrive = |world: &mut World, tenant: &str, class| {
        let facts = of(world, tenant, class);
        let (flow, action) = world.arrive_with(facts);
        (flow, matches!(action, Action::Wait), world.woken())
    };
    let (_, waits, woken) = arrive(&mut world, "hog", Class::Standard);
    assert!(!waits && woken.is_empty(), "who has most waiting has to come again");
    let (_light, waits, woken) = arrive(&mut world, "light", Class::Standard);
    assert!(waits);
    assert_eq!(woken, [waiting[3].ticket().expect("it waits").0], "the last of the tenant that has most");
    let told = world.step(&mut waiting[3], Input::Granted);
    assert!(
        matches!(&told, Action::Reject(Refusal::NotRouted(_, why)) if why.name() == "queue_full"),
        "{told:?}"
    );
    assert!(matches!(waiting[3].outcome(), Some(FlowOutcome::Rejected { .. })));
    let (_, waits, woken) = arrive(&mut world, "hog", Class::Batch);
    assert!(!waits && woken.is_empty(), "who is less important pushes nobody out");
    let (_urgent, waits, woken) = arrive(&mut world, "hog", Class::Interactive);
    assert!(waits);
    assert_eq!(woken, [waiting[2].ticket().expect("it waits").0]);
    let facts = Facts { lane: Lane::Batch, ..of(&world, "hog", Class::Batch) };
    assert!(matches!(world.arrive_with(facts).1, Action::Wait), "the other lane has a queue of its own");
}

#[test]
fn a_release_costs_what_groups_there_are_and_not_who_waits() {
    let mut world = World::new(&patient(&["a slots=1 version=1", "b slots=1 version=2"]));
    let versioned = |world: &mut World, version: &str, number: usize| {
        let class = Class::ALL[number % 4];
        let facts = of(world, &format!("t{}", number % 50), class);
        world.arrive_with(Facts { version: Some(version.into()), ..facts }).0
    };
    let (mut a, _b) = (versioned(&mut world, "1", 0), versioned(&mut world, "2", 0));
    let mut waiting: Vec<Flow> = (0..800).map(|number| versioned(&mut world, "1", number)).collect();
    waiting.extend((0..800).map(|number| versioned(&mut world, "2", number)));
    let before = world.fleet.evaluations();
    end(&mut world, &mut a);
    assert_eq!(world.woken().len(), 1);
    assert!(world.fleet.evaluations() - before <= 2, "one is served, and nobody else is looked at");
}

#[test]
fn tenants_are_remembered_up_to_a_bound_and_idle_ones_forgotten() {
    let mut world = World::new(&patient(&["a"]));
    for number in 0..3_000 {
        let mut flow = ask(&mut world, &format!("t{number}"), Class::Standard);
        end(&mut world, &mut flow);
    }
    let known = |world: &World| world.fleet.view(world.now).models[0].queue[0].clone();
    let view = known(&world);
    assert!(view.tenants_known <= 1_025, "{}", view.tenants_known);
    assert_eq!(view.tenants.len(), 32);
    let _flows: Vec<Flow> =
        (0..3_000).map(|number| ask(&mut world, &format!("u{number}"), Class::Standard)).collect();
    let view = known(&world);
    assert!(view.tenants_known <= 1_025, "{}", view.tenants_known);
    assert!(view.tenants.iter().any(|one| &*one.tenant == "other"), "who finds no place shares one");
}

#[test]
fn batch_leaves_free_what_live_turns_out_to_need() {
    let mut world = World::new(&patient(&["a slots=10"]));
    let batch = |world: &mut World| {
        let facts = Facts { lane: Lane::Batch, class: Class::Batch, ..of(world, "jobs", Class::Batch) };
        world.arrive_with(facts)
    };
    let kept = |world: &World| world.fleet.view(world.now).models[0].deployments[0].kept_for_live;
    let mut jobs: Vec<Flow> = (0..10).map(|_| batch(&mut world).0).collect();
    assert_eq!(kept(&world), 0, "nobody else comes, so nothing is kept");
    let (mut late, action) = batch(&mut world);
    assert!(matches!(action, Action::Wait));
    // Three live requests find no slot. One more is kept; whether it is enough shows once batch has taken another.
    let mut live: Vec<Flow> = (0..3).map(|_| ask(&mut world, "chat", Class::Standard)).collect();
    assert_eq!(kept(&world), 1);
    for job in &mut jobs[..3] {
        end(&mut world, job);
    }
    for flow in &mut live {
        let _ = world.step(flow, Input::Granted);
        end(&mut world, flow);
    }
    let told = world.step(&mut late, Input::Granted);
    assert_eq!(sent(&told), Some("a"));
    assert_eq!(sent(&batch(&mut world).1), Some("a"), "two of the three that are free");
    let (waiting, action) = batch(&mut world);
    assert!(matches!(action, Action::Wait), "one is kept");
    let mut chat = ask(&mut world, "chat", Class::Standard);
    assert!(chat.attempt().is_some(), "for whoever comes");
    end(&mut world, &mut chat);
    let _ = world.woken();
    world.now = world.now + Duration::from_secs(700);
    let _ = batch(&mut world);
    assert_eq!(world.woken(), [waiting.ticket().expect("it waits").0], "live is gone for long");
}

#[test]
fn a_credential_of_one_lane_serves_the_other_lane_nothing() {
    let mut catalog = patient(&["a keys=2"]);
    let keys = &mut catalog.providers.get_mut("a").expect("the provider").credentials;
    (keys[0].lane, keys[1].lane) = (Some(Lane::Live), Some(Lane::Batch));
    let mut world = World::new(&catalog);
    for (lane, expected) in [(Lane::Live, "k0"), (Lane::Batch, "k1"), (Lane::Live, "k0")] {
        let facts = Facts { lane, ..world.facts() };
        let (flow, _) = world.arrive_with(facts);
        let used = flow.attempt().and_then(|attempt| attempt.credential_name.clone());
        assert_eq!(used.as_deref(), Some(expected));
    }
    let keys = &mut catalog.providers.get_mut("a").expect("the provider").credentials;
    keys.pop();
    let mut world = World::new(&catalog);
    let facts = Facts { lane: Lane::Batch, ..world.facts() };
    assert!(matches!(world.arrive_with(facts).1, Action::Reject(_)));
    let view = world.fleet.view(world.now);
    assert_eq!(
        (view.models[0].deployments[0].state, view.models[0].deployments[0].batch.state),
        ("healthy", "failed")
    );
}
