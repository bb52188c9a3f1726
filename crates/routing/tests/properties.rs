//! What holds whatever happens, in whatever order; and that the same seed gives the same run.

mod support;

use std::time::Duration;

use pointsman_routing::catalog::HedgeSpec;
use pointsman_routing::decision::Outcome;
use pointsman_routing::facts::Lane;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, AttemptKind, Flow, HedgeInput, Input, Phase};
use pointsman_routing::{FailureClass, Rng, decide};
use proptest::prelude::*;
use support::{World, catalog, failed};

const FLEETS: [&[&str]; 5] = [
    &["a slots=1"],
    &["a slots=2", "b slots=1 tier=2"],
    &["a slots=1 paid keys=2", "b slots=1", "c weight=3 tier=2"],
    &["a slots=1", "b slots=2 weight=0", "c slots=1 keys=1 paid"],
    &["a slots=1 version=1", "b slots=1 version=2 keys=1", "c slots=1 version=2 tag=x tier=2"],
];
const STRATEGIES: [&str; 6] =
    ["round_robin", "weighted_round_robin", "least_busy", "latency", "consistent_hash", "random"];

/// One thing that happens: to which flow, what, and how much later.
#[derive(Debug, Clone, Copy)]
struct Event {
    flow: usize,
    what: u8,
    later_ms: u64,
}

fn input(what: u8) -> Input {
    match what {
        0 => Input::Connected,
        1 => Input::Headers,
        2 => Input::FirstContent,
        3 => Input::Done(Default::default()),
        4 => failed(FailureClass::Connect, Processed::No, None),
        5 => failed(FailureClass::CredentialQuota, Processed::No, Some(2)),
        6 => failed(FailureClass::Transient, Processed::Maybe, None),
        7 => failed(FailureClass::Overloaded, Processed::RefusedWithError, Some(1)),
        8 => failed(FailureClass::CredentialDead, Processed::No, None),
        9 => Input::TimerFired,
        11 => Input::Hedge(HedgeInput::Connected),
        12 => Input::Hedge(HedgeInput::Headers),
        13 => Input::Hedge(HedgeInput::FirstContent),
        14 => Input::Hedge(HedgeInput::Failed(support::failure(FailureClass::Overloaded))),
        _ => Input::ClientGone,
    }
}

/// Whether a driver could give this input to a flow in this phase.
fn possible(flow: &Flow, input: &Input) -> bool {
    match (flow.phase(), input) {
        (Phase::Over | Phase::New, _) => false,
        (_, Input::ClientGone | Input::TimerFired) => true,
        // A driver tells of a hedge's content only once it was connected.
        (_, Input::Hedge(_)) => flow.is_hedged(),
        (Phase::Queued | Phase::BackingOff, _) => false,
        (Phase::Connecting, input) => matches!(input, Input::Connected | Input::Failed(_)),
        (Phase::AwaitingHeaders, input) => matches!(input, Input::Headers | Input::Failed(_)),
        (Phase::HoldingHeaders | Phase::AwaitingContent, input) => {
            matches!(input, Input::FirstContent | Input::Failed(_))
        }
        (Phase::Relaying, input) => matches!(input, Input::Done(_) | Input::Failed(_)),
    }
}

/// Right after a decision, which looks at those who wait first, a copy of the fleet can serve none of them.
fn nobody_waits_for_what_is_free(world: &World, flows: &[(Flow, bool)]) {
    let woken = world.fleet.clone();
    let mut told = Default::default();
    woken.clone().drain_woken(&mut told);
    let waits = |flow: &Flow| flow.ticket().is_some_and(|ticket| !told.contains(&ticket));
    for (flow, _) in flows.iter().filter(|(flow, _)| waits(flow)) {
        let tried: Vec<_> = flow.attempts().iter().map(|attempt| attempt.deployment).collect();
        let decision = decide(&mut woken.clone(), flow.facts(), &tried, world.now, &mut Rng::seeded(1));
        assert!(!matches!(decision.outcome, Outcome::Chosen(_)), "{decision:?}");
    }
}

/// Requests that went well, so that it is known how fast the deployments are and some may be hedged.
fn prime(world: &mut World) {
    for _ in 0..200 {
        let (mut flow, action) = world.arrive();
        if matches!(action, Action::Forward(_)) {
            let _ = world.step(&mut flow, Input::Connected);
            world.wait(Duration::from_millis(100));
            world.finish(&mut flow);
        }
        let _ = world.step(&mut flow, Input::ClientGone);
    }
}

/// Walks through `events` and gives the log of actions.
fn walk(strategy: &str, lines: &[&str], events: &[Event]) -> Vec<String> {
    let mut catalog = catalog(strategy, lines);
    let model = catalog.models.get_mut("m").expect("the model m");
    model.hedge = Some(HedgeSpec { after: 2.0 });
    let batch_wait = model.queue.wait_max(Lane::Batch);
    let mut world = World::new(&catalog);
    prime(&mut world);
    let slots: u64 = lines.iter().map(|line| if line.contains("slots=2") { 2 } else { 1 }).sum();
    let unlimited = lines.iter().any(|line| !line.contains("slots="));
    let mut flows: Vec<(Flow, bool)> = Vec::new();
    let mut log = Vec::new();
    let act = |world: &mut World, entry: &mut (Flow, bool), input: Input, log: &mut Vec<String>| {
        let (flow, relayed) = entry;
        let action = world.step(flow, input);
        assert!(
            !(*relayed && matches!(action, Action::Forward(_) | Action::Reject(_))),
            "no failover after content"
        );
        *relayed |= matches!(action, Action::Relay | Action::RelayHedge);
        assert!(
            flow.attempts().iter().filter(|attempt| attempt.kind == AttemptKind::Hedge).count() <= 1,
            "one hedge at most"
        );
        assert!(!(*relayed && flow.is_hedged()), "no hedge after content");
        assert!(flow.attempts().len() <= 3);
        let wait = if flow.facts().lane == Lane::Batch { batch_wait } else { Duration::ZERO };
        let total = Duration::from_secs(60) + wait;
        let arrived = flow.attempts().first().map_or(world.now, |attempt| attempt.started);
        assert!(
            flow.attempts().iter().all(|attempt| attempt.started - arrived < total),
            "no attempt after the deadline"
        );
        log.push(format!("{:?} {action:?}", world.now));
    };
    let mut told = std::collections::BTreeSet::new();
    for event in events {
        world.wait(Duration::from_millis(event.later_ms));
        if event.flow >= flows.len() {
            let mut facts = world.facts();
            facts.lane = if event.what % 4 == 3 { Lane::Batch } else { Lane::Live };
            if lines[0].contains("version=") {
                facts.version = [None, Some("1"), Some("2")][event.flow % 3].map(Into::into);
                facts.tags = (event.flow % 5 == 4).then(|| "x".into()).into_iter().collect();
            }
            flows.push((Flow::new(facts, world.now), false));
            let last = flows.len() - 1;
            act(&mut world, &mut flows[last], Input::Arrived, &mut log);
            nobody_waits_for_what_is_free(&world, &flows);
        } else if possible(&flows[event.flow].0, &input(event.what)) {
            act(&mut world, &mut flows[event.flow], input(event.what), &mut log);
        }
        // Whoever was granted a slot is told, as every driver does.
        let mut woken = world.woken();
        while let Some(ticket) = woken.pop() {
            assert!(told.insert(ticket), "nobody is granted twice");
            if let Some(entry) =
                flows.iter_mut().find(|(flow, _)| flow.ticket().is_some_and(|own| own.0 == ticket))
            {
                act(&mut world, entry, Input::Granted, &mut log);
            }
            woken.extend(world.woken());
        }
        let holding = flows.iter().map(|(flow, _)| flow.permits()).sum::<u64>();
        assert_eq!(world.fleet.permits_in_use(), holding, "every permit is held by exactly one request");
        assert!(unlimited || holding <= slots, "slots are never exceeded");
    }
    for (flow, _) in &mut flows {
        let _ = world.step(flow, Input::ClientGone);
    }
    assert_eq!(world.fleet.permits_in_use(), 0, "every permit comes back");
    log
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0_usize..12, 0_u8..15, 0_u64..4_000);
    prop::collection::vec(event.prop_map(|(flow, what, later_ms)| Event { flow, what, later_ms }), 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn permits_deadlines_and_content_are_respected(
        strategy in 0..STRATEGIES.len(), fleet in 0..FLEETS.len(), events in events()
    ) {
        let log = walk(STRATEGIES[strategy], FLEETS[fleet], &events);
        let again = walk(STRATEGIES[strategy], FLEETS[fleet], &events);
        prop_assert_eq!(log, again, "the same seed gives the same run");
    }
}

/// Lets requests come and end as `events` say on one deployment, and then all of them end: the tickets in the order in
/// which they were served, and how many were refused.
fn serve(target_ms: u64, events: &[(bool, u64)]) -> (Vec<u64>, usize) {
    let mut catalog = catalog("least_busy", &["a slots=2"]);
    let queue = &mut catalog.models.get_mut("m").expect("the model m").queue;
    (queue.target, queue.requests_max) = (Duration::from_millis(target_ms), 8);
    queue.wait_max = Duration::from_secs(3600);
    let mut world = World::new(&catalog);
    let mut flows: Vec<Flow> = Vec::new();
    let mut served = Vec::new();
    let drain = std::iter::repeat_n(&(false, 100), events.len());
    for (comes, later_ms) in events.iter().chain(drain) {
        world.wait(Duration::from_millis(*later_ms));
        if *comes {
            flows.push(world.arrive().0);
        } else if let Some(at) = flows.iter().position(|flow| flow.permits() > 0) {
            let mut ends = flows.remove(at);
            world.finish(&mut ends);
        }
        for ticket in world.woken() {
            let flow = flows.iter_mut().find(|flow| flow.ticket().is_some_and(|own| own.0 == ticket));
            let flow = flow.expect("whoever is told waits");
            if matches!(world.step(flow, Input::Granted), Action::Forward(_)) {
                served.push(ticket);
            }
        }
    }
    assert_eq!(world.fleet.permits_in_use(), 0, "every permit comes back");
    assert!(flows.iter().all(|flow| flow.phase() == Phase::Over), "nobody waits for ever");
    (served, flows.len())
}

proptest! {
    #[test]
    fn nobody_starves_and_without_overload_nobody_is_overtaken(
        events in prop::collection::vec((any::<bool>(), 0_u64..600), 1..200)
    ) {
        let (in_order, _) = serve(0, &events);
        prop_assert!(in_order.is_sorted(), "first come, first served: {in_order:?}");
        // Every one was served or told, which is asserted on the way.
        let (served, _) = serve(200, &events);
        prop_assert!(served.len() <= in_order.len() + 8);
    }
}
