//! The world of the laboratory: an event heap over virtual time, made for millions of requests.

mod news;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use pointsman_routing::engine::Report;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, AttemptKind, Flow, Input, Phase, Usage};
use pointsman_routing::ids::Ticket;
use pointsman_routing::invariants::{self, Leftovers};
use pointsman_routing::strategy::StrategySpec;
use pointsman_routing::{Catalog, DeploymentId, FailureClass, Fleet, Now, Rng};

use super::ask::Models;
use super::engines::Places;
use super::measure::Measure;
use super::results::Run;
use super::setup::{Setup, with_strategy};
use crate::engine::{Job, Said};
use crate::fault::failure;

/// How often all that is sampled is sampled.
const SAMPLE_EVERY: u64 = 1_000_000_000;
/// Requests between two words of progress.
const PROGRESS_EVERY: u64 = 4_096;

/// Something that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// An engine's step is over.
    Engine(u32),
    /// Reports that were made a while ago come in.
    Delivery,
    /// Engines report.
    Scrape,
    /// What routers know becomes wrong.
    Mistake,
    /// A configuration takes effect.
    Reload(u32),
    Timer {
        slot: u32,
        life: u32,
    },
    Arrival,
    Sample,
}

/// A request that is not over.
struct Live {
    flow: Flow,
    arrived: Now,
    ask: u32,
    router: u32,
    /// Tells requests that used the same slot apart.
    life: u32,
    /// The timer that is set, to set no other for the same moment.
    timer: Now,
    /// What it is woken by.
    ticket: Option<Ticket>,
    /// Whether it waits for a slot.
    waits: bool,
    /// Attempts under way: which, and where.
    sent: [Option<(usize, u32)>; invariants::LIVE_ATTEMPTS_MAX],
    tokens_cached: u32,
}

struct Router {
    fleet: Fleet,
    rng: Rng,
    waiting: BTreeMap<Ticket, u32>,
    /// Where its deployments are. Handles differ from router to router once something was reloaded.
    places: BTreeMap<DeploymentId, u32>,
}

/// A request that is over, for those who look at every one.
pub(crate) struct Over<'a> {
    /// Which, by its place in the workload.
    pub(crate) ask: usize,
    pub(crate) flow: &'a Flow,
    /// The fleet that decided on it.
    pub(crate) fleet: &'a Fleet,
    pub(crate) arrived: Now,
}

/// Told of every request that is over.
pub(crate) type Watch<'a> = dyn FnMut(&Over<'_>) + 'a;

struct World<'a> {
    setup: &'a Setup<'a>,
    watch: &'a mut Watch<'a>,
    reloads: Vec<Catalog>,
    models: Models,
    routers: Vec<Router>,
    places: Places,
    chance: Rng,
    now_ns: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Due)>>,
    sequence: u64,
    next: usize,
    live: Vec<Option<Live>>,
    free: Vec<u32>,
    lives: u32,
    /// What requests are to be told, in order.
    pending: VecDeque<(u32, Input)>,
    said: Vec<Said>,
    reports: VecDeque<(u64, Vec<Report>)>,
    measure: Measure,
}

/// Plays a workload with one strategy (`None`: as configured) and one seed.
///
/// Invariants are held as in all worlds: in builds with assertions after every step, and in any at the end, where a
/// breach stands in [`Run::broken`].
///
/// # Errors
///
/// When the model that is asked for does not exist.
pub fn run(setup: &Setup<'_>, strategy: Option<&StrategySpec>, seed: u64) -> Result<Run, String> {
    watched(setup, strategy, seed, &mut |_| ())
}

/// The same, telling of every request that is over.
pub(crate) fn watched<'a>(
    setup: &'a Setup<'a>,
    strategy: Option<&StrategySpec>,
    seed: u64,
    watch: &'a mut Watch<'a>,
) -> Result<Run, String> {
    let catalog = with_strategy(setup.catalog, strategy);
    let reloads: Vec<Catalog> =
        setup.reloads.iter().map(|(_, catalog)| with_strategy(catalog, strategy)).collect();
    let places = Places::new(std::iter::once(&catalog).chain(&reloads), setup.engines);
    let mut rng = Rng::seeded(seed);
    let chance = rng.fork("lab");
    let router = |_| {
        let mut fleet = Fleet::new();
        fleet.apply(&catalog, Now::ZERO);
        let at = places.of(&fleet);
        Router { fleet, rng: rng.fork("router"), waiting: BTreeMap::new(), places: at }
    };
    let routers: Vec<Router> = (0..setup.routers.max(1)).map(router).collect();
    let missing = || format!("the config has no model `{}`", setup.model);
    let models = Models::new(setup, &routers[0].fleet).ok_or_else(missing)?;
    let mut world = World {
        measure: Measure::new(setup, &places),
        watch,
        setup,
        reloads,
        models,
        routers,
        places,
        chance,
        now_ns: 0,
        heap: BinaryHeap::new(),
        sequence: 0,
        next: 0,
        live: Vec::new(),
        free: Vec::new(),
        lives: 0,
        pending: VecDeque::new(),
        said: Vec::new(),
        reports: VecDeque::new(),
    };
    world.play();
    Ok(world.finish(seed))
}

impl World<'_> {
    fn play(&mut self) {
        self.schedule_arrival();
        self.schedule(0, Due::Scrape);
        self.schedule(SAMPLE_EVERY, Due::Sample);
        if let Some((at_s, _)) = self.setup.mistaken {
            self.schedule((at_s * 1e9) as u64, Due::Mistake);
        }
        for (place, (at_s, _)) in self.setup.reloads.iter().enumerate() {
            self.schedule((at_s * 1e9) as u64, Due::Reload(place as u32));
        }
        while let Some(Reverse((at_ns, _, due))) = self.heap.pop() {
            debug_assert!(at_ns >= self.now_ns, "time goes forward");
            if self.is_over() {
                break;
            }
            self.now_ns = at_ns;
            self.happen(due);
            self.settle();
        }
    }

    fn is_over(&self) -> bool {
        self.next == self.setup.workload.asks().len() && self.live.len() == self.free.len()
    }

    fn finish(self, seed: u64) -> Run {
        let mut broken = Vec::new();
        for router in &self.routers {
            let left = invariants::leftovers(&router.fleet);
            if left != Leftovers::default() {
                broken.push(format!("all is over and something is left: {left:?}"));
            }
        }
        if self.places.all.iter().any(|place| place.engine.requests() > 0 || place.tokens > 0) {
            broken.push("all is over and an engine still works".to_owned());
        }
        let views: Vec<_> = self.routers.iter().map(|router| router.fleet.view(self.now())).collect();
        self.measure.run(seed, self.now_ns, &self.places, &views, broken)
    }

    fn now(&self) -> Now {
        Now::from_nanos(self.now_ns)
    }

    fn schedule(&mut self, at_ns: u64, due: Due) {
        self.sequence += 1;
        self.heap.push(Reverse((at_ns, self.sequence, due)));
    }

    fn schedule_arrival(&mut self) {
        if let Some(ask) = self.setup.workload.asks().get(self.next) {
            let at_ns = (ask.at_ns as f64 / self.setup.rate) as u64;
            self.schedule(at_ns.max(self.now_ns), Due::Arrival);
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrival => self.arrive(),
            Due::Engine(place) => self.advance(place),
            Due::Timer { slot, life } => self.timer(slot, life),
            Due::Scrape => self.scrape(),
            Due::Delivery => self.deliver(),
            Due::Mistake => self.mistake(),
            Due::Reload(place) => self.reload(place),
            Due::Sample => {
                self.measure.sample(self.now_ns, &self.places);
                self.schedule(self.now_ns + SAMPLE_EVERY, Due::Sample);
            }
        }
    }

    fn arrive(&mut self) {
        let setup = self.setup;
        let (workload, number) = (setup.workload, self.next);
        let ask = workload.asks()[number];
        self.next += 1;
        self.schedule_arrival();
        let router = self.chance.below(self.routers.len()) as u32;
        let flow = Flow::new(self.models.facts(workload, &ask, self.now()), self.now());
        self.lives += 1;
        let live = Live {
            flow,
            arrived: self.now(),
            ask: number as u32,
            router,
            life: self.lives,
            timer: Now::NEVER,
            ticket: None,
            waits: false,
            sent: [None; invariants::LIVE_ATTEMPTS_MAX],
            tokens_cached: 0,
        };
        let slot = if let Some(slot) = self.free.pop() {
            self.live[slot as usize] = Some(live);
            slot
        } else {
            self.live.push(Some(live));
            (self.live.len() - 1) as u32
        };
        self.measure.note_arrival(&ask);
        self.pending.push_back((slot, Input::Arrived));
        if let Some(progress) = setup.progress
            && (number as u64).is_multiple_of(PROGRESS_EVERY)
        {
            progress(number as u64, workload.asks().len() as u64);
        }
    }

    fn timer(&mut self, slot: u32, life: u32) {
        let now = self.now();
        let Some(live) = self.live[slot as usize].as_mut().filter(|live| live.life == life) else { return };
        if live.timer > now {
            return;
        }
        live.timer = Now::NEVER;
        // Tokens are not events of their own; the last one came just now, for engines do not stop within an answer.
        if live.flow.phase() == Phase::Relaying {
            live.flow.on_chunk(now);
        }
        self.pending.push_back((slot, Input::TimerFired));
    }

    /// Tells all requests what there is to tell, until none has anything left to be told.
    fn settle(&mut self) {
        while let Some((slot, input)) = self.pending.pop_front() {
            self.step(slot, input);
        }
    }

    /// Gives a request an input and does what is to be done.
    fn step(&mut self, slot: u32, input: Input) {
        let now = self.now();
        let began = self.setup.clock.map(|clock| clock());
        let Some(live) = self.live[slot as usize].as_mut() else { return };
        let place = live.router as usize;
        let router = &mut self.routers[place];
        let arrived = matches!(input, Input::Arrived);
        let action = live.flow.step(&mut router.fleet, now, &mut router.rng, input);
        if arrived {
            self.measure.note_decision(began.and_then(|began| Some(self.setup.clock?() - began)));
        }
        let ticket = live.flow.wakes_by();
        if ticket != live.ticket {
            live.ticket.map(|ticket| router.waiting.remove(&ticket));
            ticket.map(|ticket| router.waiting.insert(ticket, slot));
            live.ticket = ticket;
        }
        let waits = live.flow.ticket().is_some();
        let change = i64::from(waits) - i64::from(std::mem::replace(&mut live.waits, waits));
        if change != 0 {
            let group = self.places.groups[&self.models.names[self.ask_model(slot)]];
            self.measure.note_waiting(group, change, self.now_ns);
        }
        self.drop_ended(slot);
        match action {
            Action::Forward(choice) | Action::Hedge(choice) => self.send(slot, choice.deployment),
            Action::Wait
            | Action::Yield
            | Action::DropHedge
            | Action::Promote
            | Action::RelayHedge
            | Action::Relay => {}
            Action::Reject(_) | Action::Truncate(_) | Action::Finish => self.end(slot),
        }
        self.set_timer(slot);
        self.wake(place);
    }

    fn ask_model(&self, slot: u32) -> usize {
        let ask = self.live[slot as usize].as_ref().map_or(0, |live| live.ask);
        self.setup.workload.asks()[ask as usize].model as usize
    }

    fn set_timer(&mut self, slot: u32) {
        let Some(live) = self.live[slot as usize].as_mut() else { return };
        let wake_at = live.flow.wake_at();
        // What is being connected to answers at once.
        if wake_at < live.timer && live.flow.phase() != Phase::Connecting {
            live.timer = wake_at;
            let due = Due::Timer { slot, life: live.life };
            self.schedule(wake_at.as_nanos().max(self.now_ns), due);
        }
    }

    /// Those who wait no more at a router are told.
    fn wake(&mut self, router: usize) {
        let mut woken = Default::default();
        let router = &mut self.routers[router];
        router.fleet.drain_woken(&mut woken);
        for ticket in woken {
            if let Some(slot) = router.waiting.get(&ticket) {
                self.pending.push_back((*slot, Input::Granted));
            }
        }
    }

    /// Sends an attempt to its engine.
    fn send(&mut self, slot: u32, deployment: DeploymentId) {
        let now_ns = self.now_ns;
        let Some(live) = self.live[slot as usize].as_mut() else { return };
        let attempts = live.flow.attempts();
        let number = attempts.len() - 1;
        let hedge = attempts[number].kind == AttemptKind::Hedge;
        let of = |input: Input| if hedge { input.of_hedge() } else { input };
        self.pending.push_back((slot, of(Input::Connected)));
        let Some(place) = self.routers[live.router as usize].places.get(&deployment).copied() else { return };
        let ask = self.setup.workload.asks()[live.ask as usize];
        let target = &mut self.places.all[place as usize];
        if !target.engine.fits(ask.tokens_in, ask.tokens_out) {
            let refused = failure(FailureClass::ContextLength, Processed::No, Some(400), None);
            return self.pending.push_back((slot, of(Input::Failed(refused))));
        }
        if let Some(free) = live.sent.iter_mut().find(|sent| sent.is_none()) {
            *free = Some((number, place));
        }
        let job = Job {
            id: id(slot, live.life),
            tokens_in: ask.tokens_in,
            tokens_out: ask.tokens_out,
            prefix: self.models.engine_prefix(self.setup.workload, &ask, live.flow.facts()),
        };
        target.tokens += u64::from(ask.tokens_in) + u64::from(ask.tokens_out);
        target.requests += 1;
        target.engine.push(now_ns, job);
        let session = live.flow.facts().session_hash;
        self.measure.note_sent(session, place, self.setup.workload, &ask);
        self.engine_changed(place);
    }

    /// Takes attempts that the flow has ended out of their engines.
    fn drop_ended(&mut self, slot: u32) {
        for at in 0..invariants::LIVE_ATTEMPTS_MAX {
            let Some(live) = self.live[slot as usize].as_mut() else { return };
            let Some((number, place)) = live.sent[at] else { continue };
            if live.flow.attempts()[number].ended.is_some() {
                live.sent[at] = None;
                let (id, ask) = (id(slot, live.life), live.ask);
                let ask = self.setup.workload.asks()[ask as usize];
                let target = &mut self.places.all[place as usize];
                target.tokens -= u64::from(ask.tokens_in) + u64::from(ask.tokens_out);
                // It is there no more if this was its end.
                target.engine.cancel(self.now_ns, id);
                self.engine_changed(place);
            }
        }
    }

    /// An engine's step is over.
    fn advance(&mut self, place: u32) {
        let target = &mut self.places.all[place as usize];
        // What was due here later is due again by what came between.
        if target.scheduled_ns != self.now_ns {
            return;
        }
        target.scheduled_ns = u64::MAX;
        let mut said = std::mem::take(&mut self.said);
        target.engine.advance(self.now_ns, &mut said);
        self.engine_changed(place);
        for one in said.drain(..) {
            self.hear(place, one);
            // In order: an answer's end comes after its beginning.
            self.settle();
        }
        self.said = said;
    }

    fn hear(&mut self, place: u32, said: Said) {
        let (Said::First { id: job, tokens_cached } | Said::Done { id: job, tokens_cached }) = said;
        let slot = job as u32;
        let Some(live) = self.live[slot as usize].as_mut().filter(|live| id(slot, live.life) == job) else {
            return;
        };
        let Some((number, _)) = live.sent.iter().flatten().find(|(_, at)| *at == place).copied() else {
            return;
        };
        let hedge = live.flow.is_hedged() && live.flow.attempts()[number].kind == AttemptKind::Hedge;
        let of = |input: Input| if hedge { input.of_hedge() } else { input };
        let ask = &self.setup.workload.asks()[live.ask as usize];
        match said {
            Said::First { .. } => {
                live.tokens_cached = tokens_cached;
                self.pending.push_back((slot, of(Input::Headers)));
                self.pending.push_back((slot, of(Input::FirstContent)));
            }
            Said::Done { .. } => {
                let usage = Usage {
                    tokens_in: u64::from(ask.tokens_in),
                    tokens_in_cached: u64::from(tokens_cached),
                    tokens_out: u64::from(ask.tokens_out),
                    ..Usage::default()
                };
                // It is out of the engine, and need not be looked for there.
                live.sent
                    .iter_mut()
                    .filter(|sent| **sent == Some((number, place)))
                    .for_each(|sent| *sent = None);
                let target = &mut self.places.all[place as usize];
                target.tokens -= u64::from(ask.tokens_in) + u64::from(ask.tokens_out);
                target.work += u64::from(ask.tokens_in - tokens_cached) + u64::from(ask.tokens_out);
                self.pending.push_back((slot, Input::Done(usage)));
            }
        }
    }

    fn engine_changed(&mut self, place: u32) {
        let target = &mut self.places.all[place as usize];
        let due_ns = target.engine.due_ns().unwrap_or(u64::MAX);
        let (requests, waiting, group) = (target.engine.requests(), target.engine.waiting(), target.group);
        if due_ns < target.scheduled_ns {
            target.scheduled_ns = due_ns;
            self.schedule(due_ns, Due::Engine(place));
        }
        self.measure.note_engine(place, group, (requests, waiting), self.now_ns);
    }

    fn end(&mut self, slot: u32) {
        let Some(live) = self.live[slot as usize].take() else { return };
        self.free.push(slot);
        let fleet = &self.routers[live.router as usize].fleet;
        (self.watch)(&Over { ask: live.ask as usize, flow: &live.flow, fleet, arrived: live.arrived });
        let ask = &self.setup.workload.asks()[live.ask as usize];
        self.measure.note_end(ask, (&live.flow, live.arrived), live.tokens_cached, self.now_ns);
    }
}

/// What an engine calls a request by: its slot, and whose turn it is there.
fn id(slot: u32, life: u32) -> u64 {
    u64::from(life) << 32 | u64::from(slot)
}
