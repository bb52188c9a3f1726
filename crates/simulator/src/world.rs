//! The world: an event heap over virtual time.

mod audit;
mod clients;
mod engine;
mod spec;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write;
use std::time::Duration;

use pointsman_routing::catalog::Catalog;
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, AttemptKind, AttemptRecord, Flow, FlowOutcome, Input, Phase};
use pointsman_routing::ids::Ticket;
use pointsman_routing::invariants::{self, Leftovers};
use pointsman_routing::{Fleet, Now, Rng};

use self::audit::{Audit, Before, Limits};
pub(crate) use self::clients::LEFT_IN;
use self::engine::Engine;
pub use self::spec::{Capacity, Clients, Reload, Spec};
use crate::batch::Sold;
use crate::fault::{Fault, probe};
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
    /// An engine with a batch goes on with an answer.
    Decode {
        request: u64,
        attempt: usize,
        tokens: u64,
        slow: f64,
    },
    Timer {
        request: u64,
    },
    Leave {
        request: u64,
    },
    /// A router checks the health of all deployments.
    Probe {
        router: usize,
    },
    Reload(usize),
}

struct Request {
    router: usize,
    model: String,
    flow: Flow,
    arrived: Now,
    limits: Limits,
    tokens_out: u64,
    relayed: bool,
    /// Content keeps coming once it has begun to.
    flowing: bool,
    /// The phase that its client leaves in.
    leaves_in: Option<Phase>,
    /// The timer that is set, to set no other for the same moment.
    timer: Now,
}

struct Router {
    fleet: Fleet,
    /// What its fleet was told to be.
    catalog: Catalog,
    rng: Rng,
    waiting: BTreeMap<Ticket, u64>,
    audit: Audit,
}

struct World<'w> {
    spec: &'w Spec,
    routers: Vec<Router>,
    chance: Rng,
    now: Now,
    heap: BinaryHeap<Reverse<(Now, u64)>>,
    due: BTreeMap<u64, Due>,
    sequence: u64,
    arrived: u64,
    /// Whether somebody is still to come.
    arriving: bool,
    /// Requests that are not over.
    live: BTreeMap<u64, Request>,
    engines: BTreeMap<String, Engine>,
    /// Attempts under way, by deployment.
    inflight: BTreeMap<String, usize>,
    sold: Sold,
    tally: Tally,
    log_hash: u64,
}

/// Runs the world to its end.
///
/// Invariants are held on the way: every request ends exactly once, nothing is sent after content came or after the
/// deadline, no more is sent again than the budget allows, and nothing is left when all is over. In builds with
/// assertions a breach is a panic; without, it stands in [`Report::broken`]. Memory grows with what is reported, not
/// with the history of requests.
pub fn run(catalog: &Catalog, spec: &Spec, seed: u64) -> Report {
    let mut rng = Rng::seeded(seed);
    let chance = rng.fork("world");
    let router = |_| {
        let mut fleet = Fleet::new();
        fleet.apply(catalog, Now::ZERO);
        let rng = if spec.routers <= 1 { rng.clone() } else { rng.fork("router") };
        Router { fleet, catalog: catalog.clone(), rng, waiting: BTreeMap::new(), audit: Audit::default() }
    };
    let mut world = World {
        spec,
        routers: (0..spec.routers.max(1)).map(router).collect(),
        chance,
        now: Now::ZERO,
        heap: BinaryHeap::new(),
        due: BTreeMap::new(),
        sequence: 0,
        arrived: 0,
        arriving: true,
        live: BTreeMap::new(),
        engines: BTreeMap::new(),
        inflight: BTreeMap::new(),
        tally: Tally::default(),
        sold: Sold::default(),
        log_hash: 0,
    };
    world.begin();
    while let Some(Reverse((at, key))) = world.heap.pop() {
        let Some(due) = world.due.remove(&key).filter(|due| world.matters(due)) else { continue };
        world.now = world.now.max(at);
        world.happen(due);
    }
    world.finish(seed)
}

impl World<'_> {
    fn begin(&mut self) {
        self.schedule(Duration::ZERO, Due::Arrival);
        for (place, reload) in self.spec.reloads.iter().enumerate() {
            self.schedule(Duration::from_secs_f64(reload.at_s), Due::Reload(place));
        }
        for router in 0..self.routers.len() {
            self.schedule_probe(router);
        }
    }

    fn finish(mut self, seed: u64) -> Report {
        for router in &mut self.routers {
            let left = invariants::leftovers(&router.fleet);
            if left != Leftovers::default() || !self.live.is_empty() {
                router.audit.tell(
                    self.now,
                    self.arrived,
                    &format!("all is over and nothing is left: {left:?}"),
                );
            }
        }
        if engine::left_in(&self.engines) > 0 || self.tally.ended() != self.arrived {
            self.routers[0].audit.tell(self.now, self.arrived, "every request ends exactly once");
        }
        let views: Vec<_> = self.routers.iter().map(|router| router.fleet.view(self.now)).collect();
        let broken = self.routers.into_iter().flat_map(|router| router.audit.into_broken()).collect();
        self.tally.report(&views, (seed, self.arrived), self.now, self.log_hash, broken)
    }

    fn schedule(&mut self, after: Duration, due: Due) {
        self.schedule_at(self.now + after, due);
    }

    fn schedule_at(&mut self, at: Now, due: Due) {
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence)));
        self.due.insert(self.sequence, due);
    }

    fn schedule_probe(&mut self, router: usize) {
        if self.spec.probe_every_s > 0.0 {
            // Routers do not look at the same moment.
            let after_s = self.spec.probe_every_s * (0.9 + 0.2 * self.chance.unit());
            self.schedule(Duration::from_secs_f64(after_s), Due::Probe { router });
        }
    }

    /// Whether something that is due is still of interest; what is not must not even move the clock.
    fn matters(&self, due: &Due) -> bool {
        match due {
            Due::Arrival => true,
            Due::Attempt { request, attempt, .. } | Due::Decode { request, attempt, .. } => self
                .live
                .get(request)
                .and_then(|one| one.flow.attempts().get(*attempt - 1))
                .is_some_and(|attempt| attempt.ended.is_none()),
            Due::Timer { request } | Due::Leave { request } => self.live.contains_key(request),
            Due::Probe { .. } | Due::Reload(_) => self.arriving || !self.live.is_empty(),
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival => self.arrive(),
            Due::Attempt { request, attempt, input } => self.tell(request, attempt, input),
            Due::Decode { request, attempt, tokens, slow } => {
                self.decode_on((request, attempt), tokens, slow);
            }
            Due::Timer { request } => self.timer(request),
            Due::Leave { request } => self.step(request, Input::ClientGone),
            Due::Probe { router } => self.probe(router),
            Due::Reload(place) => self.reload(place),
        }
        for router in &mut self.routers {
            router.audit.note_permits(router.fleet.permits_in_use(), self.now);
        }
    }

    /// Tells a request what one of its attempts did.
    fn tell(&mut self, request: u64, attempt: usize, input: Input) {
        let Some(one) = self.live.get(&request) else { return };
        let hedge = one.flow.is_hedged() && one.flow.attempts()[attempt - 1].kind == AttemptKind::Hedge;
        self.step(request, if hedge { input.of_hedge() } else { input });
    }

    fn timer(&mut self, request: u64) {
        if let Some(one) = self.live.get_mut(&request) {
            one.timer = Now::NEVER;
            // Chunks are not events of their own; the last one came just now if they keep coming.
            if one.flowing && one.flow.phase() == Phase::Relaying {
                one.flow.on_chunk(self.now);
            }
        }
        self.step(request, Input::TimerFired);
    }

    fn probe(&mut self, router: usize) {
        let Router { fleet, catalog, .. } = &mut self.routers[router];
        for (model, spec) in &catalog.models {
            for deployment in &spec.deployments {
                let id = fleet.model(model).and_then(|model| fleet.deployment(model, &deployment.name));
                let healthy = probe(&self.spec.faults, &deployment.name, router, self.now);
                if !healthy {
                    self.tally.signal(self.now);
                }
                if let Some(deployment) = id {
                    fleet.observe(self.now, Event::Probe { deployment, healthy });
                }
            }
        }
        self.tell_woken(router);
        self.schedule_probe(router);
    }

    fn reload(&mut self, place: usize) {
        let reload = &self.spec.reloads[place];
        for place in 0..self.routers.len() {
            if !reload.routers.is_empty() && !reload.routers.contains(&place) {
                continue;
            }
            let router = &mut self.routers[place];
            router.catalog.clone_from(&reload.catalog);
            router.fleet.apply(&reload.catalog, self.now);
            router.audit.note_reload(&reload.catalog);
            self.tell_woken(place);
        }
    }

    /// Gives a request an input, does what is to be done, and tells whoever was granted a slot.
    fn step(&mut self, request: u64, input: Input) {
        let Some(entry) = self.live.get_mut(&request) else { return };
        let place = entry.router;
        let router = &mut self.routers[place];
        let waited = entry.flow.wakes_by();
        let before = Before::new(&entry.flow, entry.relayed);
        // Whatever came so far in this world can be continued.
        entry.flow.note_continuable(true);
        let action = entry.flow.step(&mut router.fleet, self.now, &mut router.rng, input);
        router.audit.note_step(request, &entry.model, &before, &entry.flow, self.now);
        if let Action::Forward(choice) | Action::Hedge(choice) = &action {
            let of = (request, entry.model.as_str(), entry.limits);
            router.audit.note_forward(of, &before, (&entry.flow, choice), &router.catalog, self.now);
        }
        entry.relayed |= matches!(action, Action::Relay | Action::RelayHedge);
        let waits = entry.flow.wakes_by();
        let wake_at = entry.flow.wake_at().max(self.now);
        let set = wake_at < entry.timer;
        entry.timer = entry.timer.min(wake_at);
        if waits != waited {
            waited.map(|ticket| router.waiting.remove(&ticket));
            waits.map(|ticket| router.waiting.insert(ticket, request));
        }
        let attempts = entry.flow.attempts();
        let ended = before.live.iter().filter(|place| attempts[**place].ended.is_some());
        let ended: Vec<_> = ended.map(|place| (attempts[*place].name.to_string(), place + 1)).collect();
        self.note(request, &action);
        for (name, attempt) in ended {
            self.leave_engine(&name, (request, attempt));
        }
        match &action {
            Action::Forward(_) | Action::Hedge(_) => self.attempt(request),
            Action::Wait
            | Action::Yield
            | Action::DropHedge
            | Action::Promote
            | Action::RelayHedge
            | Action::Relay => {}
            Action::Reject(_) | Action::Truncate(_) | Action::Finish => self.end(request),
        }
        if set && wake_at < Now::NEVER && self.live.contains_key(&request) {
            self.schedule_at(wake_at, Due::Timer { request });
        }
        self.perhaps_leave(request);
        self.tell_woken(place);
    }

    /// Tells those who wait no more at a router.
    fn tell_woken(&mut self, router: usize) {
        let mut woken = Default::default();
        self.routers[router].fleet.drain_woken(&mut woken);
        for ticket in woken {
            if let Some(request) = self.routers[router].waiting.get(&ticket).copied() {
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
        if matches!(outcome, "rejected" | "failed") && self.another_could_have_served(&ended) {
            self.tally.failed_needlessly();
        }
        self.tally.request(outcome, &ended.flow, ended.arrived, self.now);
    }

    /// Whether a deployment that was not tried has no fault and a free slot at the moment a request fails. What may have
    /// been processed and costs something could not have been sent there.
    fn another_could_have_served(&self, ended: &Request) -> bool {
        let last = ended.flow.attempts().last();
        let unsure = |one: &AttemptRecord| {
            one.failure.as_ref().is_some_and(|failure| failure.processed == Processed::Maybe) && !one.free
        };
        if last.is_some_and(unsure) {
            return false;
        }
        let router = &self.routers[ended.router];
        let Some(spec) = router.catalog.models.get(ended.model.as_str()) else { return false };
        let view = router.fleet.view(self.now);
        let deployments = view.models.iter().filter(|model| *model.name == *ended.model);
        let has_room = |name: &str| {
            let mut views = deployments.clone().flat_map(|model| &model.deployments);
            views.any(|view| *view.name == *name && view.slots.is_none_or(|slots| view.inflight < slots))
        };
        let faulty = |name: &str| {
            let holds = |fault: &Fault| fault.can_fail() && fault.holds(name, ended.router, self.now);
            self.spec.faults.iter().any(holds)
        };
        spec.deployments.iter().any(|one| {
            let tried = ended.flow.attempts().iter().any(|attempt| attempt.name == one.name);
            let usable = one.weight > 0 && !one.draining;
            usable && !tried && !faulty(&one.name) && has_room(&one.name)
        })
    }

    fn note(&mut self, request: u64, action: &Action) {
        let mut line = String::new();
        let one = self.live.get(&request);
        let phase = one.map_or(Phase::Over, |one| one.flow.phase());
        let router = one.map_or(0, |one| one.router);
        let _ = write!(line, "{request} {router} {} {}", self.now.as_nanos(), phase.name());
        if let Action::Forward(choice) | Action::Hedge(choice) = action {
            line.push_str(&choice.name);
        }
        debug_assert!(phase != Phase::New, "a request that arrived is no longer new");
        self.log_hash = line
            .bytes()
            .fold(self.log_hash, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    }
}
