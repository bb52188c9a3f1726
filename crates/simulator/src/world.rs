//! The world: an event heap over virtual time.

mod clients;
mod engine;
mod spec;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use std::time::Duration;

use pointsman_routing::catalog::Catalog;
use pointsman_routing::flow::{Action, Flow, FlowOutcome, Input, Phase};
use pointsman_routing::ids::Ticket;
use pointsman_routing::{Fleet, Now, Rng};

pub use self::spec::Spec;
use crate::report::{Report, Tally};

/// Something that is due: an input for a request, or the next arrival.
#[derive(Debug, Clone)]
enum Due {
    Arrival,
    /// What an attempt does next; of no interest once another attempt has begun.
    Attempt {
        request: u64,
        attempt: usize,
        input: Input,
    },
    Timer {
        request: u64,
    },
    Leave {
        request: u64,
    },
}

struct Request {
    flow: Flow,
    arrived: Now,
    tokens_out: u64,
    relayed: bool,
    /// The timer that is set, to set no other for the same moment.
    timer: Now,
}

struct World<'w> {
    spec: &'w Spec,
    fleet: Fleet,
    rng: Rng,
    chance: Rng,
    now: Now,
    heap: BinaryHeap<Reverse<(Now, u64)>>,
    due: BTreeMap<u64, Due>,
    sequence: u64,
    arrived: u64,
    /// Requests that are not over.
    live: BTreeMap<u64, Request>,
    waiting: BTreeMap<Ticket, u64>,
    tally: Tally,
    log_hash: u64,
}

/// Runs the world to its end.
///
/// Invariants are asserted on the way: every request ends exactly once, nothing is sent after content came or after the
/// deadline, and permits are back at zero when all is over. Memory grows with what is reported, not with the history of
/// requests.
pub fn run(catalog: &Catalog, spec: &Spec, seed: u64) -> Report {
    let mut rng = Rng::seeded(seed);
    let chance = rng.fork("world");
    let mut world = World {
        spec,
        fleet: Fleet::new(),
        rng,
        chance,
        now: Now::ZERO,
        heap: BinaryHeap::new(),
        due: BTreeMap::new(),
        sequence: 0,
        arrived: 0,
        live: BTreeMap::new(),
        waiting: BTreeMap::new(),
        tally: Tally::default(),
        log_hash: 0,
    };
    world.fleet.apply(catalog, Now::ZERO);
    world.schedule(Duration::ZERO, Due::Arrival);
    while let Some(Reverse((at, key))) = world.heap.pop() {
        let Some(due) = world.due.remove(&key).filter(|due| world.matters(due)) else { continue };
        world.now = world.now.max(at);
        world.happen(due);
    }
    assert_eq!(world.fleet.permits_in_use(), 0, "every permit is back when all is over");
    assert!(world.live.is_empty(), "every request ends");
    let World { fleet, tally, now, arrived, log_hash, .. } = world;
    tally.report(&fleet.view(now), seed, arrived, now, log_hash)
}

impl World<'_> {
    fn schedule(&mut self, after: Duration, due: Due) {
        self.schedule_at(self.now + after, due);
    }

    fn schedule_at(&mut self, at: Now, due: Due) {
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence)));
        self.due.insert(self.sequence, due);
    }

    /// Whether something that is due is still of interest; what is not must not even move the clock.
    fn matters(&self, due: &Due) -> bool {
        match due {
            Due::Arrival => true,
            Due::Attempt { request, attempt, .. } => self
                .live
                .get(request)
                .is_some_and(|one| one.flow.attempts().len() == *attempt && one.flow.holds_permit()),
            Due::Timer { request } | Due::Leave { request } => self.live.contains_key(request),
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival => self.arrive(),
            Due::Attempt { request, input, .. } => self.step(request, input),
            Due::Timer { request } => {
                if let Some(one) = self.live.get_mut(&request) {
                    one.timer = Now::NEVER;
                }
                self.step(request, Input::TimerFired);
            }
            Due::Leave { request } => self.step(request, Input::ClientGone),
        }
    }

    /// Gives a request an input, does what is to be done, and tells whoever was granted a slot.
    fn step(&mut self, request: u64, input: Input) {
        let Some(entry) = self.live.get_mut(&request) else { return };
        let waited = entry.flow.ticket();
        let action = entry.flow.step(&mut self.fleet, self.now, &mut self.rng, input);
        assert!(
            !(entry.relayed && matches!(action, Action::Forward(_))),
            "nothing is sent after content came"
        );
        entry.relayed |= matches!(action, Action::Relay);
        let waits = entry.flow.ticket();
        let wake_at = entry.flow.wake_at().max(self.now);
        let set = wake_at < entry.timer;
        entry.timer = entry.timer.min(wake_at);
        if waits != waited {
            waited.map(|ticket| self.waiting.remove(&ticket));
            waits.map(|ticket| self.waiting.insert(ticket, request));
        }
        self.note(request, &action);
        match &action {
            Action::Forward(_) => self.attempt(request),
            Action::Wait | Action::Relay => {}
            Action::Reject(_) | Action::Truncate(_) | Action::Finish => self.end(request),
        }
        if set && wake_at < Now::NEVER && self.live.contains_key(&request) {
            self.schedule_at(wake_at, Due::Timer { request });
        }
        let mut woken = Default::default();
        self.fleet.drain_woken(&mut woken);
        for ticket in woken {
            if let Some(request) = self.waiting.get(&ticket).copied() {
                self.step(request, Input::Granted);
            }
        }
    }

    fn end(&mut self, request: u64) {
        let Some(ended) = self.live.remove(&request) else { return };
        let outcome = match ended.flow.outcome() {
            Some(FlowOutcome::Completed { .. }) => "completed",
            Some(FlowOutcome::Rejected { .. }) => "rejected",
            Some(FlowOutcome::Failed { .. }) => "failed",
            Some(FlowOutcome::Truncated { .. }) => "truncated",
            Some(FlowOutcome::ClientGone { .. }) => "client_gone",
            None => "unfinished",
        };
        self.tally.request(outcome, &ended.flow, ended.arrived, self.now);
    }

    fn note(&mut self, request: u64, action: &Action) {
        let mut line = String::new();
        let phase = self.live.get(&request).map_or(Phase::Over, |one| one.flow.phase());
        let _ = write!(line, "{request} {} {}", self.now.as_nanos(), phase.name());
        if let Action::Forward(choice) = action {
            line.push_str(&choice.name);
        }
        debug_assert!(phase != Phase::New, "a request that arrived is no longer new");
        self.log_hash = line
            .bytes()
            .fold(self.log_hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    }
}
