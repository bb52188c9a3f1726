//! Pools, tokens in flight, batch requests that give way, and what engines say of their own.

mod support;

use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, Catalog, Name};
use pointsman_routing::decision::{Decision, PoolLimit, WhyNot};
use pointsman_routing::engine::Report;
use pointsman_routing::facts::Lane;
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, Flow, Input, Phase};
use pointsman_routing::invariants::{self, Leftovers};
use pointsman_routing::pool::{PoolSpec, PreemptSpec, ShareSpec};
use pointsman_routing::{Facts, FailureClass};
use support::{World, catalog, failed, sent};

/// Models with one line of deployments each, and pools with a line of shares each: `slots=4 tokens=100 a=2/1/3` gives model
/// `a` a guarantee of 2, weight 1 and a cap of 3; a share that begins with `!` is not lent.
fn shared(models: &[(&str, &str)], pools: &[(&str, &str)]) -> Catalog {
    let mut all = Catalog::default();
    for (name, lines) in models {
        let lines: Vec<&str> = lines.split(';').collect();
        let mut one = catalog("least_busy", &lines);
        all.providers.append(&mut one.providers);
        let mut model = one.models.remove("m").expect("the model m");
        model.queue.requests_max = 1_000;
        model.queue.target = Duration::ZERO;
        all.models.insert((*name).into(), model);
    }
    for (name, line) in pools {
        let mut spec = PoolSpec::default();
        for (key, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            let number = || value.parse().expect("a number");
            match key {
                "slots" => spec.slots = Some(number()),
                "tokens" => spec.tokens = Some(number().into()),
                "preempt" => spec.preempt = Some(PreemptSpec { times_max: number() }),
                model => {
                    let (lend, value) = value.strip_prefix('!').map_or((true, value), |value| (false, value));
                    let mut numbers = value.split('/').map(|number| number.parse().expect("a number"));
                    let (guarantee, weight, cap) = (numbers.next(), numbers.next(), numbers.next());
                    let guarantee = guarantee.unwrap_or(0);
                    let share = ShareSpec {
                        guarantee,
                        weight: weight.unwrap_or(1),
                        cap,
                        lend,
                        ..ShareSpec::default()
                    };
                    spec.models.insert(model.into(), share);
                }
            }
        }
        all.pools.insert((*name).into(), spec);
    }
    all
}

fn facts(world: &World, model: &str, tokens: u32) -> Facts {
    let mut facts = Facts { model: world.fleet.model(model).expect("the model"), ..world_facts(world) };
    (facts.tokens_in_estimate, facts.tokens_out_max) = (tokens - 1, Some(1));
    facts
}

/// Facts of any model.
fn world_facts(world: &World) -> Facts {
    let catalog = catalog("least_busy", &["x"]);
    Facts { deadline: None, ..World { now: world.now, ..World::new(&catalog) }.facts() }
}

fn arrive(world: &mut World, model: &str) -> (Flow, Action) {
    let facts = facts(world, model, 200);
    world.arrive_with(facts)
}

fn batch(world: &mut World, model: &str) -> (Flow, Action) {
    let facts = Facts { lane: Lane::Batch, ..facts(world, model, 200) };
    world.arrive_with(facts)
}

/// Whose turn it is once a request has ended.
fn next(world: &mut World, running: &mut Flow, waiting: &mut [(char, Flow)]) -> Option<char> {
    world.finish(running);
    collect(world, waiting)
}

fn collect(world: &mut World, waiting: &mut [(char, Flow)]) -> Option<char> {
    let woken = world.woken();
    assert!(woken.len() <= 1, "a slot is given once: {woken:?}");
    let ticket = woken.first()?;
    let mut told = waiting.iter_mut().filter(|(_, flow)| flow.ticket().is_some_and(|own| own.0 == *ticket));
    let (name, flow) = told.next().expect("whoever is told waits");
    assert!(sent(&world.step(flow, Input::Granted)).is_some());
    assert_eq!(invariants::of_fleet(&world.fleet), Ok(()));
    Some(*name)
}

fn why_not(decision: Option<&Decision>) -> Option<WhyNot> {
    decision?.candidates.first()?.why_not
}

#[test]
fn a_released_slot_goes_to_the_largest_claim() {
    for (name, pool, arrivals, order) in [
        ("below its guarantee first", "slots=4 a=0/1 b=2/1", "aaaa aaaabb", "bb"),
        ("who has least of its guarantee", "slots=6 a=4/1 b=2/1", "aaaccc aaabb", "baab"),
        ("then by weight, until use per weight is even", "slots=6 a=0/1 b=0/2", "aaaaaa aaabbbbbb", "bbbba"),
        ("never above its cap", "slots=4 a=0/1/2 b=0/1", "aabb aaa", "aa-"),
        ("one slot that many share goes round", "slots=1 a=0/1 b=0/1 c=0/1", "a aaabbbccc", "bcabcabca"),
        ("by weight as well", "slots=1 a=0/1 b=0/2", "a aaabbbbb", "bbabba"),
    ] {
        let models = [("a", "a0 pool=box;a1 pool=box"), ("b", "b0 pool=box"), ("c", "c0 pool=box")];
        let mut world = World::new(&shared(&models, &[("box", pool)]));
        let (now, later) = arrivals.split_once(' ').expect("those who run, and those who wait");
        let mut running: Vec<Flow> = Vec::new();
        for model in now.chars() {
            let (flow, action) = arrive(&mut world, &model.to_string());
            assert!(sent(&action).is_some(), "{name}: {action:?}");
            running.push(flow);
        }
        let mut waiting: Vec<(char, Flow)> = Vec::new();
        for model in later.chars() {
            let (flow, action) = arrive(&mut world, &model.to_string());
            assert!(matches!(action, Action::Wait), "{name}: {action:?}");
            waiting.push((model, flow));
        }
        let mut served = String::new();
        for _ in 0..order.len() {
            // One slot is passed on; of several, those end that ran from the beginning.
            let mut one = if running.is_empty() {
                let begun = waiting.iter().position(|(_, flow)| flow.phase() == Phase::Connecting);
                waiting.remove(begun.expect("one that was served")).1
            } else {
                running.remove(0)
            };
            served.push(next(&mut world, &mut one, &mut waiting).unwrap_or('-'));
        }
        assert_eq!(served, order, "{name}");
    }
}

#[test]
fn unused_guarantees_are_lent_unless_they_are_kept() {
    for (lend, runs) in [("3", 4), ("!3", 1)] {
        let pool = format!("slots=4 b={lend}");
        let models = [("a", "a0 pool=box"), ("b", "b0 pool=box")];
        let mut world = World::new(&shared(&models, &[("box", &pool)]));
        let flows: Vec<_> = (0..4).map(|_| arrive(&mut world, "a")).collect();
        assert_eq!(flows.iter().filter(|(_, action)| sent(action).is_some()).count(), runs, "{lend}");
        let view = world.fleet.view(world.now).pools.remove(0);
        let (a, b) = (&view.models[0], &view.models[1]);
        assert_eq!((view.inflight, a.borrowed, a.waiting), (runs as u32, runs as u32, 4 - runs));
        assert_eq!(b.lent, if runs == 4 { 3 } else { 0 });
        let (flow, action) = arrive(&mut world, "b");
        assert_eq!(sent(&action).is_some(), runs == 1, "what is kept is there at once");
        if runs == 4 {
            assert_eq!(why_not(flow.decision()), Some(WhyNot::PoolFull { limit: PoolLimit::Slots }));
        } else {
            let refused = flows[1].0.decision();
            assert_eq!(why_not(refused), Some(WhyNot::PoolFull { limit: PoolLimit::Guarantees }));
        }
    }
}

#[test]
fn a_reload_loses_nothing_and_over_commits_only_what_runs() {
    let models = [("a", "a0 pool=box;a1 pool=box"), ("b", "b0 pool=box")];
    let mut world = World::new(&shared(&models, &[("box", "slots=4 a=0/1/3")]));
    let mut running: Vec<Flow> = "aaab".chars().map(|one| arrive(&mut world, &one.to_string()).0).collect();
    let mut waiting: Vec<(char, Flow)> =
        vec![('a', arrive(&mut world, "a").0), ('b', arrive(&mut world, "b").0)];
    let used =
        |world: &World| world.fleet.view(world.now).pools.iter().map(|one| one.inflight).collect::<Vec<_>>();
    let apply = |world: &mut World, catalog: &Catalog| {
        world.fleet.apply(catalog, world.now);
        assert_eq!(invariants::of_fleet(&world.fleet), Ok(()));
    };
    apply(&mut world, &shared(&models, &[("box", "slots=2 a=0/1/1")]));
    assert_eq!((used(&world), world.woken()), (vec![4], vec![]), "smaller: what runs goes on");
    assert_eq!(next(&mut world, &mut running.remove(0), &mut waiting), None);
    // a0 moves to a pool of its own with what runs there; a1 is gone, and runs on where it was.
    let moved = [("a", "a0 pool=own"), ("b", "b0 pool=box")];
    let pools = [("box", "slots=2"), ("own", "slots=2")];
    apply(&mut world, &shared(&moved, &pools));
    let all: u32 = used(&world).iter().sum();
    assert_eq!(u64::from(all), world.fleet.permits_in_use());
    // No pool at all: everybody who waits may go.
    apply(&mut world, &shared(&[("a", "a0"), ("b", "b0")], &[]));
    for (_, flow) in &mut waiting {
        let _ = world.step(flow, Input::Granted);
    }
    apply(&mut world, &shared(&models, &[("box", "slots=1")]));
    for flow in running.iter_mut().chain(waiting.iter_mut().map(|(_, flow)| flow)) {
        world.finish(flow);
        assert_eq!(invariants::of_fleet(&world.fleet), Ok(()));
    }
    assert_eq!(invariants::leftovers(&world.fleet), Leftovers::default());
    assert!(sent(&arrive(&mut world, "b").1).is_some(), "the pool is free again");
}

#[test]
fn a_model_that_goes_leaves_its_slots_when_its_requests_end() {
    let models = [("a", "a0 pool=box"), ("b", "b0 pool=box")];
    let mut world = World::new(&shared(&models, &[("box", "slots=1")]));
    let (mut running, _) = arrive(&mut world, "a");
    let mut waiting = vec![('b', arrive(&mut world, "b").0)];
    world.fleet.apply(&shared(&models[1..], &[("box", "slots=1")]), world.now);
    assert_eq!(collect(&mut world, &mut waiting), None, "it still runs there");
    assert_eq!(next(&mut world, &mut running, &mut waiting), Some('b'));
}

#[test]
fn tokens_in_flight_are_slots_too() {
    let mut world = World::new(&shared(&[("a", "a0 tokens=1000")], &[]));
    let ask = |world: &mut World, tokens| {
        let facts = facts(world, "a", tokens);
        world.arrive_with(facts)
    };
    let (mut first, _) = ask(&mut world, 600);
    let (large, action) = ask(&mut world, 500);
    assert!(matches!(action, Action::Wait));
    assert_eq!(why_not(large.decision()), Some(WhyNot::TokensFull { tokens_inflight_max: 1000 }));
    let (mut small, action) = ask(&mut world, 100);
    assert!(sent(&action).is_some(), "it fits beside the first");
    world.finish(&mut small);
    assert!(world.woken().is_empty());
    let (held, action) = ask(&mut world, 100);
    assert!(matches!(action, Action::Wait), "whoever is next is not overtaken for ever: {action:?}");
    world.finish(&mut first);
    let mut waiting = [('l', large), ('s', held)];
    assert_eq!(world.woken().len(), 2, "both fit");
    for (_, flow) in &mut waiting {
        assert!(sent(&world.step(flow, Input::Granted)).is_some());
    }
    let [(_, mut large), (_, mut held)] = waiting;
    world.finish(&mut held);
    let (huge, action) = ask(&mut world, 5_000);
    assert!(matches!(action, Action::Wait));
    let mut waiting = [('h', huge)];
    assert_eq!(next(&mut world, &mut large, &mut waiting), Some('h'), "larger than all: it runs alone");
    assert!(matches!(ask(&mut world, 1).1, Action::Wait));
}

#[test]
fn one_who_leaves_holds_no_tokens() {
    for pooled in [false, true] {
        let (a, pools): (&str, &[(&str, &str)]) =
            if pooled { ("a0 pool=box", &[("box", "tokens=1000")]) } else { ("a0 tokens=1000", &[]) };
        let mut world = World::new(&shared(&[("a", a)], pools));
        let ask = |world: &mut World, tokens| {
            let facts = facts(world, "a", tokens);
            world.arrive_with(facts)
        };
        let (_first, mut small) = (ask(&mut world, 600), ask(&mut world, 100).0);
        let (mut large, _) = ask(&mut world, 900);
        world.finish(&mut small);
        let (waits, action) = ask(&mut world, 100);
        assert!(matches!(action, Action::Wait), "{action:?}");
        let _ = world.step(&mut large, Input::ClientGone);
        assert_eq!(collect(&mut world, &mut [('s', waits)]), Some('s'), "pooled: {pooled}");
    }
}

#[test]
fn hedges_and_continuations_need_a_slot_of_the_pool() {
    let mut catalog = shared(&[("a", "a0 pool=box;a1 pool=box tier=2")], &[("box", "slots=1")]);
    let model = catalog.models.get_mut("a").expect("the model");
    model.retry.continuation = true;
    for deployment in &mut model.deployments {
        deployment.capabilities = deployment.capabilities.with(Capabilities::CONTINUATION);
    }
    let mut world = World::new(&catalog);
    let (mut flow, _) = arrive(&mut world, "a");
    for input in [Input::Connected, Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut flow, input);
    }
    flow.note_continuable(true);
    let action = world.step(&mut flow, failed(FailureClass::Transient, Processed::Maybe, None));
    assert_eq!(sent(&action), Some("a1"), "its own slot is free again: {action:?}");
    assert_eq!(world.fleet.view(world.now).pools[0].inflight, 1);
}

/// A pool of one slot with a batch request in it, and a live one that comes.
fn preempted(preempt: &str, deployment: &str) -> (World, Flow, Flow, Vec<u64>) {
    let models = [("a", deployment), ("b", "b0 pool=box")];
    let mut world = World::new(&shared(&models, &[("box", preempt)]));
    let (mut victim, action) = batch(&mut world, "a");
    assert!(sent(&action).is_some());
    let _ = world.step(&mut victim, Input::Connected);
    let (live, action) = arrive(&mut world, "b");
    assert!(matches!(action, Action::Wait));
    let woken = world.woken();
    (world, victim, live, woken)
}

#[test]
fn a_live_request_takes_the_slot_of_a_batch_request() {
    let (mut world, mut victim, live, woken) = preempted("slots=1 preempt=1", "a0 pool=box");
    assert_eq!(woken, [victim.wakes_by().expect("it may be recalled").0]);
    let action = world.step(&mut victim, Input::Granted);
    assert!(matches!(action, Action::Yield), "its connection is closed: {action:?}");
    assert_eq!(victim.phase(), Phase::Queued);
    let mut live = [('b', live)];
    assert_eq!(collect(&mut world, &mut live), Some('b'));
    let attempt = victim.attempts()[0].clone();
    assert!(attempt.taken_back && attempt.failure.is_none() && attempt.ended.is_some());
    let mut waiting = [('a', victim)];
    let [(_, mut live)] = live;
    assert_eq!(next(&mut world, &mut live, &mut waiting), Some('a'));
    let [(_, mut victim)] = waiting;
    assert_eq!(victim.wakes_by(), None, "once is enough");
    let (mut live, _) = arrive(&mut world, "b");
    assert!(world.woken().is_empty());
    world.finish(&mut victim);
    let _ = world.woken();
    let _ = world.step(&mut live, Input::Granted);
    world.finish(&mut live);
    let view = world.fleet.view(world.now);
    assert_eq!((view.preempted, view.models[0].deployments[0].failures), (1, 0));
    assert_eq!(view.models[0].deployments[0].failures_in_a_row, 0);
    assert_eq!(invariants::leftovers(&world.fleet), Leftovers::default());
}

#[test]
fn only_who_may_be_is_taken_back() {
    for (name, pool, deployment) in [
        ("nobody opted in", "slots=1", "a0 pool=box"),
        ("sending it again may cost something", "slots=1 preempt=1", "a0 pool=box paid"),
        ("it has no more than its model is guaranteed", "slots=1 preempt=1 a=1", "a0 pool=box"),
    ] {
        let (_, _, _, woken) = preempted(pool, deployment);
        assert!(woken.is_empty(), "{name}");
    }
    let (mut world, mut victim, live, _) = preempted("slots=1 preempt=1", "a0 pool=box");
    for input in [Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut victim, input);
    }
    assert!(matches!(world.step(&mut victim, Input::Granted), Action::Wait), "its content came first");
    let _ = world.step(&mut victim, Input::Done(Default::default()));
    assert_eq!(collect(&mut world, &mut [('b', live)]), Some('b'));
}

#[test]
fn the_newest_gives_way() {
    let mut catalog = shared(&[("a", "a0 slots=2")], &[]);
    catalog.models.get_mut("a").expect("the model").preempt = Some(PreemptSpec { times_max: 1 });
    let mut world = World::new(&catalog);
    let batches = [batch(&mut world, "a").0, batch(&mut world, "a").0];
    let _live = [arrive(&mut world, "a"), arrive(&mut world, "a"), arrive(&mut world, "a")];
    let told = [&batches[1], &batches[0]].map(|flow| flow.wakes_by().expect("it may be recalled").0);
    assert_eq!(world.woken(), told, "one for each that comes, while there are any");
}

#[test]
fn a_full_queue_does_not_lose_who_gave_way() {
    let mut catalog = shared(&[("a", "a0 pool=box"), ("b", "b0 pool=box")], &[("box", "slots=1 preempt=9")]);
    catalog.models.get_mut("a").expect("the model").queue.batch.requests_max = 1;
    let mut world = World::new(&catalog);
    let (mut victim, _) = batch(&mut world, "a");
    let mut waiting = [('a', batch(&mut world, "a").0)];
    let mut live = [('b', arrive(&mut world, "b").0)];
    assert_eq!(world.woken().len(), 1);
    let action = world.step(&mut victim, Input::Granted);
    assert!(matches!(action, Action::Yield), "{action:?}");
    assert_eq!(victim.phase(), Phase::BackingOff, "its queue is full");
    assert_eq!(collect(&mut world, &mut live), Some('b'));
    let [(_, mut live)] = live;
    assert_eq!(next(&mut world, &mut live, &mut waiting), Some('a'));
    world.wait(Duration::from_secs(1));
    let _ = world.step(&mut victim, Input::TimerFired);
    assert_eq!(victim.phase(), Phase::Queued, "it asks again");
    let [(_, mut other)] = waiting;
    assert_eq!(next(&mut world, &mut other, &mut [('v', victim)]), Some('v'));
}

#[test]
fn what_an_engine_has_beyond_ours_is_told_and_counts_if_asked_to() {
    for counts in ["", "foreign"] {
        let mut world = World::new(&catalog("least_busy", &[&format!("a slots=4 {counts}")]));
        let (_flow, _) = world.arrive();
        let model = world.fleet.model("m").expect("the model m");
        let deployment = world.fleet.deployment(model, "a").expect("a");
        let say = |world: &mut World, running| {
            let report = Report { running: Some(running), waiting: Some(0), ..Report::default() };
            world.fleet.observe(world.now, Event::Engine { deployment, report });
        };
        let gap = |world: &World| world.fleet.view(world.now).models[0].deployments[0].slot_gap;
        assert_eq!(gap(&world), None);
        (0..2).for_each(|_| say(&mut world, 4));
        assert!(sent(&world.arrive().1).is_some(), "two reports prove nothing");
        (0..3).for_each(|_| say(&mut world, 5));
        assert_eq!(gap(&world), Some(3));
        let (mut flow, action) = world.arrive();
        assert_eq!(sent(&action).is_some(), counts.is_empty(), "{counts}");
        if !counts.is_empty() {
            let until = world.now + Duration::from_secs(5);
            assert_eq!(why_not(flow.decision()), Some(WhyNot::ForeignFull { foreign: 3, until }));
            say(&mut world, 2);
            assert_eq!(world.woken().len(), 1, "they are gone");
            assert!(sent(&world.step(&mut flow, Input::Granted)).is_some());
        }
        assert_eq!(world.fleet.permits_in_use(), 3, "our own count stays exact");
    }
}

/// Random histories of everything at once; what must hold is held after every step.
#[test]
fn whatever_happens_permits_of_pools_are_those_of_deployments() {
    for seed in 0..60 {
        let mut rng = pointsman_routing::Rng::seeded(seed);
        let pools =
            ["slots=3 preempt=2 a=1 b=1/2", "slots=2 tokens=700 a=1/1/1", "tokens=900 preempt=1 b=!1"];
        let kinds: [&[(&str, &str)]; 3] = [
            &[
                ("a", "a0 pool=box slots=2;a1 pool=box"),
                ("b", "b0 pool=box paid;b1 tier=2 slots=1 tokens=300"),
            ],
            &[("a", "a0 pool=box;a1"), ("b", "b0 pool=box")],
            &[("a", "a0"), ("b", "b0 pool=box;b1 pool=box draining")],
        ];
        let mut draw = move |most: usize| (rng.unit() * most as f64) as usize;
        let build = |kind: usize, pool: usize| shared(kinds[kind], &[("box", pools[pool])]);
        let mut world = World::new(&build(0, draw(3)));
        let mut flows: Vec<Flow> = Vec::new();
        for _ in 0..300 {
            match draw(12) {
                0..=3 => {
                    let mut facts = facts(&world, ["a", "b"][draw(2)], [50, 200, 600, 2_000][draw(4)]);
                    facts.lane = if draw(2) == 0 { Lane::Batch } else { Lane::Live };
                    flows.push(world.arrive_with(facts).0);
                }
                4 if draw(4) == 0 => {
                    let catalog = build(draw(3), draw(3));
                    world.fleet.apply(&catalog, world.now);
                }
                5 => world.wait(Duration::from_millis(200)),
                what if !flows.is_empty() => {
                    let at = draw(flows.len());
                    let input = match (flows[at].phase(), what) {
                        (_, 6) => Input::ClientGone,
                        (_, 7) => Input::TimerFired,
                        (Phase::Connecting, 8) => failed(FailureClass::Connect, Processed::No, None),
                        (Phase::Connecting, _) => Input::Connected,
                        (Phase::AwaitingHeaders, _) => Input::Headers,
                        (Phase::HoldingHeaders | Phase::AwaitingContent, _) => Input::FirstContent,
                        (Phase::Relaying, _) => Input::Done(Default::default()),
                        (Phase::New | Phase::Queued | Phase::BackingOff | Phase::Over, _) => {
                            Input::TimerFired
                        }
                    };
                    let _ = world.step(&mut flows[at], input);
                }
                _ => {}
            }
            for ticket in world.woken() {
                let told = |flow: &&mut Flow| flow.wakes_by().is_some_and(|own| own.0 == ticket);
                if let Some(flow) = flows.iter_mut().find(told) {
                    let _ = world.step(flow, Input::Granted);
                }
            }
            flows.retain(|flow| flow.phase() != Phase::Over);
            assert_eq!(invariants::of_fleet(&world.fleet), Ok(()), "seed {seed}");
        }
        for flow in &mut flows {
            let _ = world.step(flow, Input::ClientGone);
        }
        assert_eq!(invariants::leftovers(&world.fleet), Leftovers::default(), "seed {seed}");
    }
}

#[test]
fn names_are_shared() {
    // A pool that no deployment names is shown, and empty.
    let catalog = shared(&[("a", "a0")], &[("box", "slots=2")]);
    let world = World::new(&catalog);
    let view = world.fleet.view(world.now);
    assert_eq!(view.pools.len(), 1);
    assert_eq!((Name::clone(&view.pools[0].name), view.pools[0].models.len()), (Name::from("box"), 0));
}
