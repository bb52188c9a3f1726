//! What the slot scheduler once got wrong: who pays what, who waits for whom, and what is told beforehand.

mod support;

use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, Catalog, HedgeSpec, Name, TenantSpec};
use pointsman_routing::decision::{Outcome, Place, Rejection};
use pointsman_routing::facts::{Class, Lane, PrefixBlock};
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, Flow, Input, Phase, Usage};
use pointsman_routing::invariants::{self, Leftovers};
use pointsman_routing::pool::{PoolSpec, PreemptSpec};
use pointsman_routing::{Facts, FailureClass};
use support::{World, catalog, failed, sent};

/// Requests may wait for as long as they live, and none for being too many.
fn patient(lines: &[&str]) -> Catalog {
    let mut catalog = catalog("least_busy", lines);
    let queue = &mut catalog.models.get_mut("m").expect("the model m").queue;
    (queue.requests_max, queue.target, queue.wait_max) = (1_000, Duration::ZERO, Duration::from_secs(3_600));
    queue.batch.wait_max = Duration::from_secs(3_600);
    catalog
}

fn of(world: &World, lane: Lane, tokens: u32) -> Facts {
    Facts { lane, tokens_in_estimate: tokens - 1, tokens_out_max: Some(1), ..world.facts() }
}

fn tagged(world: &World, tag: &str) -> Facts {
    Facts { tags: [Name::from(tag)].into_iter().collect(), ..world.facts() }
}

fn place(flow: &Flow) -> Place {
    match flow.decisions().last().map(|decision| &decision.outcome) {
        Some(Outcome::Queued { place, .. }) => *place,
        other => unreachable!("it does not wait: {other:?}"),
    }
}

/// Tells those that were woken; gives where they are sent.
fn granted(world: &mut World, flow: &mut Flow) -> Option<String> {
    let ticket = flow.ticket()?.0;
    assert!(world.woken().contains(&ticket), "it is not told anything");
    sent(&world.step(flow, Input::Granted)).map(str::to_owned)
}

fn counter(world: &World, lane: &str) -> u64 {
    let view = world.fleet.view(world.now);
    let class = view.models[0].queue.iter().find(|class| class.lane == lane).expect("it was used");
    class.tenants[0].counter
}

fn answer(world: &mut World, flow: &mut Flow, usage: Usage) {
    for input in [Input::Connected, Input::Headers, Input::FirstContent, Input::Done(usage)] {
        let _ = world.step(flow, input);
    }
}

#[test]
fn what_was_charged_is_taken_back_as_it_went_in() {
    let mut catalog = patient(&["a slots=2"]);
    catalog.tenants.insert("t".into(), TenantSpec { weight: 100 });
    let mut world = World::new(&catalog);
    let (mut flow, _) = world.arrive();
    assert_eq!(counter(&world, "live"), 3, "100 + 2 x 100, over 100");
    catalog.tenants.insert("t".into(), TenantSpec { weight: 1 });
    world.fleet.apply(&catalog, world.now);
    answer(&mut world, &mut flow, Usage { tokens_in: 100, tokens_out: 100, ..Usage::default() });
    assert_eq!(counter(&world, "live"), 300, "paid at the weight that it has when it is paid");
}

#[test]
fn c7_one_absurd_usage_does_not_end_fairness() {
    let mut world = World::new(&patient(&["a slots=2"]));
    let (mut flow, _) = world.arrive();
    answer(&mut world, &mut flow, Usage { tokens_in: 100, tokens_out: u64::MAX, ..Usage::default() });
    assert!(counter(&world, "live") < 1 << 26, "{}", counter(&world, "live"));
    let (_, _) = world.arrive_with(Facts { tokens_out_max: None, ..world.facts() });
    assert!(counter(&world, "live") < 1 << 26, "nor is the next one charged for it");
}

#[test]
fn who_gave_its_slot_back_pays_once() {
    let mut catalog = patient(&["a slots=1"]);
    catalog.models.get_mut("m").expect("the model m").preempt = Some(PreemptSpec { times_max: 1 });
    let mut world = World::new(&catalog);
    let (mut victim, _) = world.arrive_with(of(&world, Lane::Batch, 100));
    let _ = world.step(&mut victim, Input::Connected);
    let charged = counter(&world, "batch");
    let (mut live, _) = world.arrive();
    assert_eq!(world.woken(), [victim.wakes_by().expect("it may be recalled").0]);
    assert!(matches!(world.step(&mut victim, Input::Granted), Action::Yield));
    assert_eq!(counter(&world, "batch"), 0, "nothing of that counts against it");
    assert!(granted(&mut world, &mut live).is_some());
    world.finish(&mut live);
    assert!(granted(&mut world, &mut victim).is_some());
    assert_eq!(counter(&world, "batch"), charged);
}

/// The same, with a deadline that others have as well.
fn due(world: &World, facts: Facts) -> Facts {
    Facts { deadline: Some(world.now + Duration::from_secs(50)), ..facts }
}

#[test]
fn who_gave_its_slot_back_stays_before_those_who_came_later() {
    let mut catalog = patient(&["a slots=1"]);
    catalog.models.get_mut("m").expect("the model m").preempt = Some(PreemptSpec { times_max: 1 });
    let mut world = World::new(&catalog);
    let batch = due(&world, of(&world, Lane::Batch, 100));
    let (mut first, _) = world.arrive_with(batch.clone());
    let (mut second, _) = world.arrive_with(batch.clone());
    let (mut live, _) = world.arrive();
    assert!(matches!(world.step(&mut first, Input::Granted), Action::Yield));
    assert_eq!(place(&first).of_tenant, 0, "as it is told");
    assert!(granted(&mut world, &mut live).is_some());
    let (third, _) = world.arrive_with(batch);
    assert_eq!(place(&third).of_tenant, 2);
    world.finish(&mut live);
    assert!(granted(&mut world, &mut first).is_some(), "of equal deadlines the first to come");
    world.finish(&mut first);
    assert!(granted(&mut world, &mut second).is_some());
}

#[test]
fn who_failed_elsewhere_stays_before_those_who_came_later() {
    let mut world = World::new(&patient(&["a slots=1", "b slots=1 tag=x"]));
    let on_b = tagged(&world, "x");
    let (mut running, _) = world.arrive_with(on_b.clone());
    let (mut first, action) = world.arrive_with(due(&world, world.facts()));
    assert_eq!(sent(&action), Some("a"));
    let (second, action) = world.arrive_with(due(&world, on_b));
    assert!(matches!(action, Action::Wait), "{action:?}");
    let action = world.step(&mut first, failed(FailureClass::Connect, Processed::No, None));
    assert!(matches!(action, Action::Yield), "{action:?}");
    world.finish(&mut running);
    assert_eq!(granted(&mut world, &mut first).as_deref(), Some("b"));
    assert_eq!(second.phase(), Phase::Queued);
}

/// 600 of 1,000 tokens are in use, and one who waits is next and needs 900: the one that runs, and the one that waits.
fn held(world: &mut World, lane: Lane) -> (Flow, Flow) {
    let (running, _) = world.arrive_with(of(world, Lane::Live, 600));
    let (mut ends, _) = world.arrive_with(of(world, Lane::Live, 100));
    let (waits, action) = world.arrive_with(of(world, lane, 900));
    assert!(matches!(action, Action::Wait));
    world.finish(&mut ends);
    assert_eq!(world.woken(), [] as [u64; 0]);
    (running, waits)
}

#[test]
fn what_was_held_for_one_that_is_pushed_out_is_for_who_comes() {
    let mut catalog = patient(&["a slots=9 tokens=1000"]);
    catalog.models.get_mut("m").expect("the model m").queue.requests_max = 1;
    let mut world = World::new(&catalog);
    let (_running, mut waits) = held(&mut world, Lane::Live);
    let pushed_out = waits.ticket().expect("it waits").0;
    let more = Facts { class: Class::Interactive, ..of(&world, Lane::Live, 300) };
    let (mut more, _) = world.arrive_with(more);
    let woken = world.woken();
    assert!(woken.contains(&pushed_out), "its queue is full");
    let ticket = more.ticket().expect("it joined the queue before");
    assert!(woken.contains(&ticket.0), "nobody waits for the tokens any more");
    assert!(sent(&world.step(&mut more, Input::Granted)).is_some());
    assert!(matches!(world.step(&mut waits, Input::Granted), Action::Reject(_)));
}

#[test]
fn live_does_not_wait_for_what_batch_needs_but_for_its_floor() {
    let mut world = World::new(&patient(&["a slots=9 tokens=1000"]));
    let (mut running, mut waits) = held(&mut world, Lane::Batch);
    let mut passed = 0;
    let held_up = loop {
        let (mut live, action) = world.arrive_with(of(&world, Lane::Live, 300));
        if sent(&action).is_none() {
            break live;
        }
        passed += 1;
        assert!(passed < 30, "one in twenty is for those who wait behind others");
        world.finish(&mut live);
    };
    assert!(passed >= 19, "{passed}");
    let mut live = held_up;
    world.finish(&mut running);
    assert!(granted(&mut world, &mut waits).is_some(), "alone there is room for it");
    world.finish(&mut waits);
    assert!(granted(&mut world, &mut live).is_some());
    world.finish(&mut live);
    assert_eq!(invariants::leftovers(&world.fleet), Leftovers::default());
}

#[test]
fn who_asks_for_what_is_missing_does_not_stand_before_who_does_not() {
    let mut world = World::new(&patient(&["a slots=1", "b slots=1"]));
    let embeds = Facts { needs: Capabilities::EMBEDDINGS, ..world.facts() };
    let missing = loop {
        let (mut flow, action) = world.arrive_with(embeds.clone());
        let first = sent(&action).expect("both are free").to_owned();
        if first == "a" {
            let action = world.step(&mut flow, failed(FailureClass::ModelMissing, Processed::No, None));
            assert_eq!(sent(&action), Some("b"));
            world.finish(&mut flow);
            break first;
        }
        world.finish(&mut flow);
    };
    assert_eq!(missing, "a");
    let (one, first) = world.arrive();
    let (other, _) = world.arrive();
    let (mut on_a, _on_b) = if sent(&first) == Some("a") { (one, other) } else { (other, one) };
    let (embeds, action) = world.arrive_with(embeds);
    assert!(matches!(action, Action::Wait));
    let (mut chats, action) = world.arrive();
    assert!(matches!(action, Action::Wait));
    world.finish(&mut on_a);
    assert_eq!(granted(&mut world, &mut chats).as_deref(), Some("a"), "the first cannot use it");
    assert_eq!(embeds.phase(), Phase::Queued);
}

/// Requests of a second each, so that it is known how long slots are held and when the first content comes.
fn usual(world: &mut World, facts: &Facts) {
    for _ in 0..10 {
        let (mut flow, action) = world.arrive_with(facts.clone());
        assert!(sent(&action).is_some());
        let _ = world.step(&mut flow, Input::Connected);
        world.wait(Duration::from_secs(1));
        world.finish(&mut flow);
    }
}

#[test]
fn the_wait_is_told_by_what_can_be_waited_for() {
    let mut world = World::new(&patient(&["a slots=2 tag=x", "b slots=8 tag=y"]));
    for tag in ["x", "y"] {
        let facts = tagged(&world, tag);
        usual(&mut world, &facts);
    }
    let _running: Vec<Flow> = (0..10).map(|_| world.arrive().0).collect();
    let wait = |world: &mut World| {
        let (mut flow, action) = world.arrive();
        assert!(matches!(action, Action::Wait));
        let wait = place(&flow).wait.expect("it is known how long slots are held");
        let _ = world.step(&mut flow, Input::ClientGone);
        wait.as_millis()
    };
    assert_eq!(wait(&mut world), 100, "one of ten slots");
    world.fleet.apply(&patient(&["a slots=2 tag=x", "b slots=8 tag=y weight=0"]), world.now);
    assert_eq!(wait(&mut world), 500, "one of two: what the other gives back is for nobody");
}

#[test]
fn a_deadline_that_leaves_no_time_for_the_first_content_is_told_at_once() {
    let mut world = World::new(&patient(&["a slots=1"]));
    let facts = world.facts();
    usual(&mut world, &facts);
    let _running = world.arrive();
    for (left_ms, waits) in [(1_200, false), (1_700, true)] {
        let deadline = Some(world.now + Duration::from_millis(left_ms));
        let (mut flow, action) = world.arrive_with(Facts { deadline, ..world.facts() });
        assert_eq!(matches!(action, Action::Wait), waits, "{left_ms} ms: {action:?}");
        if !waits {
            let why = flow.decisions().last().map(|decision| &decision.outcome);
            assert!(matches!(why, Some(Outcome::Rejected { why: Rejection::TooLate, .. })), "{why:?}");
        }
        let _ = world.step(&mut flow, Input::ClientGone);
    }
}

#[test]
fn d10_what_was_given_up_is_dropped_before_its_request_waits() {
    let mut world = World::new(&patient(&["a slots=1", "b slots=1"]));
    let (mut flow, _) = world.arrive();
    let _other = world.arrive();
    let _ = world.step(&mut flow, Input::Connected);
    world.now = flow.wake_at();
    let action = world.step(&mut flow, Input::TimerFired);
    assert!(matches!(action, Action::Yield), "its slot is another's: {action:?}");
    assert_eq!((flow.phase(), flow.permits()), (Phase::Queued, 0));
}

#[test]
fn e9_who_waits_comes_before_a_hedge() {
    let mut catalog = patient(&["a", "b slots=1 tag=x", "c slots=1 tag=x"]);
    catalog.models.get_mut("m").expect("the model m").hedge = Some(HedgeSpec { after: 2.0 });
    let mut world = World::new(&catalog);
    for _ in 0..400 {
        let (mut flow, _) = world.arrive();
        let _ = world.step(&mut flow, Input::Connected);
        world.wait(Duration::from_millis(100));
        world.finish(&mut flow);
    }
    let (mut one, _) = world.arrive_with(tagged(&world, "x"));
    let (other, _) = world.arrive_with(tagged(&world, "x"));
    let free = one.attempt().expect("it is sent").name.to_string();
    let _ = world.step(&mut one, failed(FailureClass::CredentialQuota, Processed::No, Some(1)));
    let _ = world.step(&mut one, Input::ClientGone);
    let (mut waits, action) = world.arrive_with(tagged(&world, "x"));
    assert!(matches!(action, Action::Wait), "one rests, one is full: {action:?}");
    world.wait(Duration::from_millis(900));
    let (mut late, action) = world.arrive();
    assert_eq!(sent(&action), Some("a"));
    let _ = world.step(&mut late, Input::Connected);
    world.now = late.wake_at();
    let action = world.step(&mut late, Input::TimerFired);
    assert_eq!(sent(&action), None, "{action:?}");
    assert_eq!(granted(&mut world, &mut waits), Some(free), "it has rested");
    drop(other);
}

#[test]
fn e9_a_pool_that_others_use_is_busy_as_well() {
    for (others, hedges) in [(4, true), (9, false)] {
        let mut catalog = patient(&["a0 pool=box", "a1 pool=box"]);
        let mut model = patient(&["b0 pool=box"]);
        catalog.providers.append(&mut model.providers);
        catalog.models.insert("n".into(), model.models.remove("m").expect("the model"));
        catalog.models.get_mut("m").expect("the model m").hedge = Some(HedgeSpec { after: 2.0 });
        catalog.pools.insert("box".into(), PoolSpec { slots: Some(12), ..PoolSpec::default() });
        let mut world = World::new(&catalog);
        for _ in 0..400 {
            let (mut flow, _) = world.arrive();
            let _ = world.step(&mut flow, Input::Connected);
            world.wait(Duration::from_millis(100));
            world.finish(&mut flow);
        }
        let other = world.fleet.model("n").expect("the model");
        for _ in 0..others {
            let (_, action) = world.arrive_with(Facts { model: other, ..world.facts() });
            assert!(sent(&action).is_some());
        }
        let (mut late, _) = world.arrive();
        let _ = world.step(&mut late, Input::Connected);
        world.now = late.wake_at();
        let action = world.step(&mut late, Input::TimerFired);
        assert_eq!(matches!(action, Action::Hedge(_)), hedges, "{others} of 12: {action:?}");
    }
}

#[test]
fn batch_elsewhere_hides_nobody_who_could_give_way() {
    let mut catalog = patient(&["a slots=1"]);
    let mut model = patient(&["b slots=100"]);
    catalog.providers.append(&mut model.providers);
    catalog.models.insert("n".into(), model.models.remove("m").expect("the model"));
    for model in catalog.models.values_mut() {
        model.preempt = Some(PreemptSpec { times_max: 1 });
    }
    let mut world = World::new(&catalog);
    let (victim, _) = world.arrive_with(of(&world, Lane::Batch, 100));
    let other = world.fleet.model("n").expect("the model");
    for _ in 0..100 {
        let _ = world.arrive_with(Facts { model: other, ..of(&world, Lane::Batch, 100) });
    }
    let _live = world.arrive();
    assert_eq!(world.woken(), [victim.wakes_by().expect("it may be recalled").0]);
}

#[test]
fn a_credential_that_is_good_again_serves_who_waits_at_once() {
    let mut world = World::new(&patient(&["a slots=1 keys=1", "b slots=1"]));
    let running = [world.arrive(), world.arrive()];
    let (mut on_a, [on_b, ..]) = {
        let [one, other] = running;
        if sent(&one.1) == Some("a") { (one.0, [other.0]) } else { (other.0, [one.0]) }
    };
    let _ = world.step(&mut on_a, failed(FailureClass::CredentialDead, Processed::No, None));
    let _ = world.step(&mut on_a, Input::ClientGone);
    let (mut waits, action) = world.arrive();
    assert!(matches!(action, Action::Wait), "{action:?}");
    let _ = world.woken();
    let key = world.fleet.credential("a", "k0").expect("the key");
    world.fleet.observe(world.now, Event::RestoreCredential(key));
    assert_eq!(granted(&mut world, &mut waits).as_deref(), Some("a"));
    drop(on_b);
}

#[test]
fn a_deployment_that_changed_its_tier_begins_with_nothing_cached() {
    let config = |tier: u32| {
        let line = format!("a tier={tier}");
        catalog("prefix_affinity", &[&line, "b tier=1", "c tier=2"])
    };
    let mut world = World::new(&config(1));
    let cached = |world: &World| {
        let view = world.fleet.view(world.now);
        view.models[0].deployments[0].tokens_cached
    };
    let prefix: Vec<PrefixBlock> =
        (1..9).map(|block| PrefixBlock { tokens: block * 256, hash: u64::from(block) * 7_919 }).collect();
    while cached(&world) == 0 {
        let asked = Facts { prefix: prefix.clone().into(), tokens_in_estimate: 2_100, ..world.facts() };
        let (mut flow, action) = world.arrive_with(asked);
        assert!(sent(&action).is_some());
        if sent(&action) == Some("a") {
            world.finish(&mut flow);
        }
    }
    for tier in [2, 1] {
        world.fleet.apply(&config(tier), world.now);
        assert_eq!(cached(&world), 0, "tier {tier}: what it did meanwhile was not seen there");
    }
}
