//! What holds of the lifecycle for every row of bytes. The fuzz target and the replay of its corpus call this.

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Flow, Input, Phase};
use pointsman_routing::invariants::{Leftovers, leftovers, of_fleet, of_request};
use pointsman_routing::{Facts, FailureClass, Now};
use support::{World, catalog, failed};

const FLEETS: [&[&str]; 6] = [
    &["a slots=1"],
    &["a slots=2", "b slots=1 tier=2"],
    &["a slots=1 paid keys=2", "b slots=1", "c weight=3 tier=2"],
    &["a slots=1", "b slots=2 weight=0", "c slots=1 keys=1 paid"],
    &["a slots=3 keys=1 paid", "b slots=1 keys=2", "c slots=2 tag=x tier=2"],
    &["d slots=1", "e slots=1 draining"],
];
const STRATEGIES: [&str; 6] =
    ["round_robin", "weighted_round_robin", "least_busy", "latency", "consistent_hash", "random"];
/// Requests of one row of bytes.
const REQUESTS_MAX: usize = 16;

/// The first byte is the fleet, the second the strategy; then three bytes an event: to which request, what, how much
/// later. Whatever comes, the invariants hold after every step, and nothing is left at the end.
pub(crate) fn lifecycle(bytes: &[u8]) {
    let [first, strategy, events @ ..] = bytes else { return };
    let strategy = STRATEGIES[usize::from(*strategy) % STRATEGIES.len()];
    let fleet = |byte: u8| catalog(strategy, FLEETS[usize::from(byte) % FLEETS.len()]);
    let mut world = World::new(&fleet(*first));
    let mut flows: Vec<(Flow, bool)> = Vec::new();
    for event in events.chunks_exact(3) {
        let [to, what, later] = [event[0], event[1], event[2]];
        world.wait(Duration::from_millis(u64::from(later) * u64::from(later)));
        match what % 24 {
            20 => world.fleet.apply(&fleet(to), world.now),
            byte @ (21 | 22) => probe(&mut world, byte == 21),
            what => request(&mut world, &mut flows, (usize::from(to) % REQUESTS_MAX, what, later)),
        }
        tell_woken(&mut world, &mut flows);
        assert_eq!(of_fleet(&world.fleet), Ok(()));
        let holding = flows.iter().filter(|(flow, _)| flow.holds_permit()).count() as u64;
        assert_eq!(world.fleet.permits_in_use(), holding, "a permit is held by exactly one request");
    }
    for at in 0..flows.len() {
        step(&mut world, &mut flows[at], Input::ClientGone);
        tell_woken(&mut world, &mut flows);
    }
    assert_eq!(leftovers(&world.fleet), Leftovers::default());
}

fn request(world: &mut World, flows: &mut Vec<(Flow, bool)>, (to, what, later): (usize, u8, u8)) {
    if to >= flows.len() {
        let Some(model) = world.fleet.model("m") else { return };
        let deadline = (later % 4 == 3).then(|| world.now + Duration::from_millis(u64::from(what) * 100));
        let facts = Facts { model, deadline, stream: later % 2 == 0, ..world.facts() };
        flows.push((Flow::new(facts, world.now), false));
        let last = flows.len() - 1;
        step(world, &mut flows[last], Input::Arrived);
    } else if possible(&flows[to].0, &input(what)) {
        step(world, &mut flows[to], input(what));
    }
}

fn step(world: &mut World, (flow, was_over): &mut (Flow, bool), input: Input) {
    let attempts = flow.attempts().len();
    let content = flow.attempts().iter().any(|attempt| attempt.first_content.is_some());
    let _ = world.step(flow, input);
    assert_eq!(of_request(flow), Ok(()));
    assert!(!(content && flow.attempts().len() > attempts), "nothing is sent after content came");
    assert!(!(*was_over && flow.attempts().len() > attempts), "what is over stays over");
    assert!(flow.phase() == Phase::Over || flow.wake_at() < Now::NEVER, "a request has a timer");
    *was_over = flow.phase() == Phase::Over;
}

/// Whoever was granted a slot is told, as every driver does.
fn tell_woken(world: &mut World, flows: &mut [(Flow, bool)]) {
    let mut woken = world.woken();
    while let Some(ticket) = woken.pop() {
        let waiter = flows.iter_mut().find(|(flow, _)| flow.ticket().is_some_and(|own| own.0 == ticket));
        if let Some(waiter) = waiter {
            step(world, waiter, Input::Granted);
        }
        woken.extend(world.woken());
    }
}

fn probe(world: &mut World, healthy: bool) {
    let Some(model) = world.fleet.model("m") else { return };
    if let Some(deployment) = world.fleet.deployment(model, "a") {
        world.fleet.observe(world.now, Event::Probe { deployment, healthy });
    }
}

fn input(what: u8) -> Input {
    match what {
        0 | 1 => Input::Connected,
        2 | 3 => Input::Headers,
        4 | 5 => Input::FirstContent,
        6 | 7 => Input::Done(Default::default()),
        8 => failed(FailureClass::Connect, Processed::No, None),
        9 => failed(FailureClass::CredentialQuota, Processed::No, Some(2)),
        10 => failed(FailureClass::Transient, Processed::Maybe, None),
        11 => failed(FailureClass::Overloaded, Processed::RefusedWithError, Some(1)),
        12 => failed(FailureClass::CredentialDead, Processed::No, None),
        13 => failed(FailureClass::ModelMissing, Processed::No, None),
        14 => failed(FailureClass::Transient, Processed::RefusedWithError, None),
        15 => failed(FailureClass::ContextLength, Processed::No, None),
        16 => failed(FailureClass::Protocol, Processed::Maybe, None),
        17 | 18 => Input::ClientGone,
        _ => Input::TimerFired,
    }
}

/// Whether a driver could give this input to a flow in this phase.
fn possible(flow: &Flow, input: &Input) -> bool {
    match (flow.phase(), input) {
        (Phase::Over, _) | (_, Input::ClientGone | Input::TimerFired) => true,
        (Phase::New | Phase::Queued | Phase::BackingOff, _) => false,
        (Phase::Connecting, input) => matches!(input, Input::Connected | Input::Failed(_)),
        (Phase::AwaitingHeaders, input) => matches!(input, Input::Headers | Input::Failed(_)),
        (Phase::HoldingHeaders | Phase::AwaitingContent, input) => {
            matches!(input, Input::FirstContent | Input::Failed(_))
        }
        (Phase::Relaying, input) => matches!(input, Input::Done(_) | Input::Failed(_)),
    }
}
