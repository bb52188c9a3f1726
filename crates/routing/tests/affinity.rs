//! What deployments have to do, what they have cached, and where sessions stay: seen from outside, over whole requests.

mod support;

use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, StickySpec};
use pointsman_routing::decision::Why;
use pointsman_routing::facts::PrefixBlock;
use pointsman_routing::fleet::DeploymentView;
use pointsman_routing::flow::{Input, Usage};
use pointsman_routing::{Action, Facts, FailureClass, Flow, invariants};
use support::{World, catalog, failure, sent};

fn views(world: &World) -> Vec<DeploymentView> {
    world.fleet.view(world.now).models.remove(0).deployments
}

/// The beginnings of a prompt whose first so many blocks of 500 tokens are those of `shared`.
fn prompt(shared: u64, own: u64, common: u32) -> Vec<PrefixBlock> {
    let hash = |nth: u32| {
        (u64::from(nth) << 32 | if nth < common { shared } else { own }).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    };
    (0..8).map(|nth| PrefixBlock { tokens: 500 * (nth + 1), hash: hash(nth) }).collect()
}

fn asks(world: &World, prefix: Vec<PrefixBlock>) -> Facts {
    Facts { tokens_in_estimate: 4_050, prefix: prefix.into(), ..world.facts() }
}

/// Answers a request like an engine: so long to the first content, and so many tokens after that.
fn answer(world: &mut World, flow: &mut Flow, first: Duration, tokens_out: u64) {
    let _ = world.step(flow, Input::Connected);
    world.wait(first);
    let _ = world.step(flow, Input::Headers);
    let _ = world.step(flow, Input::FirstContent);
    world.wait(Duration::from_millis(10 * tokens_out));
    let usage = Usage { tokens_in: 4_050, tokens_out, ..Usage::default() };
    let _ = world.step(flow, Input::Done(usage));
}

#[test]
fn what_a_deployment_has_to_do_is_counted_and_counted_off() {
    let mut world = World::new(&catalog("prefix_affinity", &["a"]));
    let (mut flow, _) = world.arrive_with(asks(&world, prompt(1, 1, 8)));
    let of = |world: &World| {
        let view = views(world).remove(0);
        (view.tokens_prefilling, view.decoding, view.tokens_decoding)
    };
    assert_eq!(of(&world), (4_050, 0, 0));
    let (mut again, _) = world.arrive_with(asks(&world, prompt(1, 1, 8)));
    assert_eq!(of(&world).0, 4_050 + 50, "of the second only the end is not cached");
    for input in [Input::Connected, Input::Headers, Input::FirstContent] {
        let _ = world.step(&mut flow, input);
    }
    assert_eq!(of(&world), (50, 1, 4_050 + 50), "half of the output is there in the middle");
    let _ = world.step(&mut again, Input::ClientGone);
    assert_eq!(of(&world), (0, 1, 4_100));
    let _ = world.step(&mut flow, Input::Failed(failure(FailureClass::IdleTimeout)));
    assert_eq!(of(&world), (0, 0, 0));
    assert_eq!(invariants::of_fleet(&world.fleet), Ok(()));
}

#[test]
fn a_prompt_goes_where_its_beginning_is() {
    for strategy in ["prefix_affinity", "predicted_latency", "least_tokens", "adaptive"] {
        let mut world = World::new(&catalog(strategy, &["a", "b", "c", "d"]));
        let (mut flow, action) = world.arrive_with(asks(&world, prompt(1, 1, 8)));
        let home = sent(&action).expect("sent").to_owned();
        answer(&mut world, &mut flow, Duration::from_millis(200), 50);
        for turn in 0..20 {
            let (mut flow, action) = world.arrive_with(asks(&world, prompt(1, 100 + turn, 7)));
            assert_eq!(sent(&action), Some(&*home), "{strategy}");
            answer(&mut world, &mut flow, Duration::from_millis(60), 50);
        }
        let candidates = flow_candidates(&mut world, 7);
        assert_eq!(candidates, [3_500, 0, 0, 0], "{strategy}");
    }
}

/// Tokens that the candidates of a decision are likely to have cached, the most first.
fn flow_candidates(world: &mut World, common: u32) -> Vec<u32> {
    let (mut flow, _) = world.arrive_with(asks(world, prompt(1, 999, common)));
    let mut cached: Vec<u32> =
        flow.decisions()[0].candidates.iter().map(|candidate| candidate.tokens_cached).collect();
    cached.sort_unstable_by(|a, b| b.cmp(a));
    let _ = world.step(&mut flow, Input::ClientGone);
    cached
}

#[test]
fn adaptive_says_what_it_used() {
    let used = |world: &mut World, facts: Facts| {
        let (mut flow, _) = world.arrive_with(facts);
        let decision = flow.decisions()[0].clone();
        answer(world, &mut flow, Duration::from_millis(100), 20);
        assert_eq!(decision.strategy, "adaptive");
        decision.used
    };
    let mut world = World::new(&catalog("adaptive", &["a", "b"]));
    let facts = world.facts();
    assert_eq!(used(&mut world, facts.clone()), Some("prefix_affinity"), "nothing is known of them yet");
    for _ in 0..20 {
        used(&mut world, facts.clone());
    }
    assert_eq!(used(&mut world, facts.clone()), Some("predicted_latency"));
    let embeds = Facts { needs: Capabilities::EMBEDDINGS, ..facts };
    assert_eq!(used(&mut world, embeds), Some("latency"));
    let view = views(&world);
    assert!(view.iter().any(|one| one.prediction.is_some()), "errors of predictions are shown");
    let mut world = World::new(&catalog("adaptive", &["a paid", "b paid"]));
    let facts = world.facts();
    assert_eq!(used(&mut world, facts), Some("two_draws"));
    let mut world = World::new(&catalog("adaptive", &["a"]));
    let facts = world.facts();
    assert_eq!(used(&mut world, facts), None, "one alone needs no rule");
}

#[test]
fn a_session_stays_until_its_deployment_fails() {
    let mut catalog = catalog("round_robin", &["a", "b", "c"]);
    let model = catalog.models.get_mut("m").expect("the model m");
    model.sticky = Some(StickySpec { ttl: Duration::from_mins(30), lead: 0.15 });
    let mut world = World::new(&catalog);
    let of = |world: &World, session| Facts { session_hash: Some(session), ..world.facts() };
    let (mut flow, action) = world.arrive_with(of(&world, 7));
    let home = sent(&action).expect("sent").to_owned();
    world.finish(&mut flow);
    let mut stayed = 0;
    for _ in 0..9 {
        let (mut flow, action) = world.arrive_with(of(&world, 7));
        assert_eq!(sent(&action), Some(&*home));
        stayed += usize::from(flow.attempts()[0].why == Why::Stayed);
        world.finish(&mut flow);
    }
    assert!(stayed >= 6, "round robin would have moved it: {stayed}");
    let view = world.fleet.view(world.now).models.remove(0);
    assert_eq!((view.sessions, view.affinity_kept, view.affinity_broken_by_lead), (1, stayed as u64, 0));
    let id = world.fleet.deployment(world.facts().model, &home).expect("it is there");
    world.fleet.observe(world.now, pointsman_routing::fleet::Event::Probe { deployment: id, healthy: false });
    let (mut flow, action) = world.arrive_with(of(&world, 7));
    let next = sent(&action).expect("sent").to_owned();
    assert_ne!(next, home);
    world.finish(&mut flow);
    world.fleet.observe(world.now, pointsman_routing::fleet::Event::Probe { deployment: id, healthy: true });
    let (mut flow, action) = world.arrive_with(of(&world, 7));
    assert_eq!(sent(&action), Some(&*next), "it does not come back by itself");
    world.finish(&mut flow);
    let view = world.fleet.view(world.now).models.remove(0);
    assert_eq!(view.affinity_broken_by_health, 1);
}

#[test]
fn whoever_came_back_from_the_dead_has_nothing_cached() {
    let mut world = World::new(&catalog("prefix_affinity", &["a"]));
    let (mut flow, _) = world.arrive_with(asks(&world, prompt(1, 1, 8)));
    answer(&mut world, &mut flow, Duration::from_millis(100), 20);
    assert_eq!(views(&world)[0].tokens_cached, 4_000);
    for _ in 0..8 {
        let (mut flow, action) = world.arrive_with(world.facts());
        if matches!(action, Action::Forward(_)) {
            let _ = world.step(&mut flow, Input::Failed(failure(FailureClass::Connect)));
        }
        let _ = world.step(&mut flow, Input::ClientGone);
    }
    world.wait(Duration::from_mins(10));
    let (mut flow, action) = world.arrive_with(world.facts());
    assert_eq!(sent(&action), Some("a"), "a probe");
    world.finish(&mut flow);
    assert_eq!(views(&world)[0].tokens_cached, 0);
}
