//! No permit is ever lost: random histories of three models, pools and all that is opt-in, under everything that goes wrong.
//!
//! Requests come, are sent, fail in every class, time out, are hedged, continued, preempted, drained and given up in every
//! phase, also between a grant and its being told; configurations come and go with their models, pools and deployments;
//! engines, probes, breakers and credentials change; and the clock may stand still. After every event the fleet's own count
//! is held against a driver that only knows what it was told to do.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, Catalog, HedgeSpec, TenantSpec};
use pointsman_routing::decision::{Outcome, Why};
use pointsman_routing::engine::Report;
use pointsman_routing::facts::{Class, Lane};
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::fallback::Fallback;
use pointsman_routing::flow::{Action, AttemptKind, Flow, HedgeInput, Input, Phase, Usage};
use pointsman_routing::invariants::{self, Leftovers};
use pointsman_routing::pool::{PoolSpec, PreemptSpec, ShareSpec};
use pointsman_routing::said::{Allowance, Allowances, Said};
use pointsman_routing::{Facts, Failure, FailureClass, Now, Rng, decide};
use support::{World, catalog};

const MODELS: [&str; 3] = ["m", "n", "o"];
const STRATEGIES: [&str; 6] =
    ["least_busy", "adaptive", "predicted_latency", "prefix_affinity", "round_robin", "consistent_hash"];
const CLASSES: [FailureClass; 14] = [
    FailureClass::Client,
    FailureClass::Connect,
    FailureClass::Transient,
    FailureClass::Overloaded,
    FailureClass::CredentialDead,
    FailureClass::CredentialQuota,
    FailureClass::ContextLength,
    FailureClass::ContentPolicy,
    FailureClass::ModelMissing,
    FailureClass::Drained,
    FailureClass::Protocol,
    FailureClass::ConnectTimeout,
    FailureClass::FirstContentTimeout,
    FailureClass::IdleTimeout,
];

struct Draw(Rng);

impl Draw {
    fn chance(&mut self, share: f64) -> bool {
        self.0.unit() < share
    }

    fn below(&mut self, most: usize) -> usize {
        (self.0.unit() * most as f64) as usize
    }

    fn among<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Some of three models, each with deployments in pools and outside.
    fn catalog(&mut self) -> Catalog {
        let mut all = Catalog::default();
        for (nth, name) in MODELS.into_iter().enumerate() {
            if nth > 0 && self.chance(0.15) {
                continue;
            }
            let lines: Vec<String> =
                (0..=self.below(3)).map(|at| format!("{name}{at} {}", self.deployment())).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let mut one = catalog(self.among(&STRATEGIES), &lines);
            all.providers.append(&mut one.providers);
            let mut model = one.models.remove("m").expect("the model m");
            let queue = &mut model.queue;
            (queue.requests_max, queue.batch.requests_max) =
                (self.among(&[0, 2, 20]), self.among(&[0, 2, 20]));
            (queue.batch.reserve, queue.batch.inflight_share) = (self.chance(0.5), self.among(&[0.4, 1.0]));
            model.hedge = self.chance(0.9).then_some(HedgeSpec { after: 1.2 });
            model.preempt = self.chance(0.3).then_some(PreemptSpec { times_max: 2 });
            model.attempts_max = self.among(&[1, 3, 5]);
            (model.retry.continuation, model.retry.unsure) = (self.chance(0.7), self.chance(0.3));
            model.retry.content_policy = self.chance(0.5);
            all.models.insert(name.into(), model);
        }
        for name in ["box", "side"] {
            let mut pool = PoolSpec { slots: Some(2 + self.below(5) as u32), ..PoolSpec::default() };
            pool.tokens = self.chance(0.5).then(|| 600 + self.below(2_000) as u64);
            pool.slots = pool.slots.filter(|_| pool.tokens.is_none() || self.chance(0.5));
            pool.preempt = self.chance(0.3).then_some(PreemptSpec { times_max: 1 });
            for model in MODELS {
                let cap = self.chance(0.2).then_some(1 + self.below(3) as u32);
                let guarantee = u32::from(self.chance(0.4) && pool.slots.is_some() && cap.is_none());
                let share = ShareSpec {
                    guarantee: guarantee.min(pool.slots.map_or(0, |slots| slots / 3)),
                    weight: 1 + self.below(3) as u32,
                    cap,
                    lend: self.chance(0.8),
                    ..ShareSpec::default()
                };
                pool.models.insert(model.into(), share);
            }
            if name == "box" || self.chance(0.7) {
                all.pools.insert(name.into(), pool);
            }
        }
        all.tenants.insert("t1".into(), TenantSpec { weight: self.among(&[1, 5]) });
        // Who names a pool that is not there is refused before it comes here.
        let known = |all: &Catalog, name: &str| all.pools.contains_key(name);
        let side = known(&all, "side");
        for deployment in all.models.values_mut().flat_map(|model| &mut model.deployments) {
            if self.chance(0.7) {
                deployment.capabilities = deployment.capabilities.with(Capabilities::CONTINUATION);
            }
            deployment.pool = deployment.pool.take().filter(|name| side || &**name != "side");
        }
        all
    }

    fn deployment(&mut self) -> String {
        let words: [&[&str]; 9] = [
            &["", "slots=1", "slots=2", "slots=3"],
            &["", "pool=box", "pool=box", "pool=side"],
            &["", "", "tokens=900"],
            &["", "", "paid keys=2", "paid keys=1 for_live", "keys=1"],
            &["", "", "tier=2"],
            &["", "", "", "weight=0", "draining drain=500"],
            &["", "", "", "foreign"],
            &["", "", "", "tag=x"],
            &["", "", "", "", "deaf", "context=500"],
        ];
        words.iter().map(|words| self.among(words)).collect::<Vec<_>>().join(" ")
    }

    fn facts(&mut self, world: &World, catalog: &Catalog) -> (Facts, Vec<Fallback>) {
        let models: Vec<&str> = catalog.models.keys().map(|name| &**name).collect();
        let tenant = self.below(3);
        let facts = Facts {
            model: world.fleet.model(self.among(&models)).expect("the model"),
            needs: if self.chance(0.1) { Capabilities::EMBEDDINGS } else { Capabilities::CHAT },
            tokens_in_estimate: 1 + self.below(700) as u32,
            tokens_in_min: 1,
            tokens_out_max: Some(1 + self.below(300) as u32),
            stream: self.chance(0.8),
            lane: if self.chance(0.4) { Lane::Batch } else { Lane::Live },
            class: Class::ALL[self.below(4)],
            tenant: format!("t{tenant}").into(),
            tenant_hash: tenant as u64,
            session_hash: self.chance(0.5).then(|| self.below(4) as u64),
            tags: self.chance(0.1).then(|| "x".into()).into_iter().collect(),
            deadline: self.chance(0.3).then(|| world.now + Duration::from_millis(self.below(9_000) as u64)),
            ..some_facts()
        };
        let mut others = Vec::new();
        if self.chance(0.3) {
            let name = self.among(&models);
            let model = world.fleet.model(name).expect("the model");
            others.push(Fallback { model, name: name.into(), version: None });
        }
        (facts, others)
    }

    fn failure(&mut self) -> Failure {
        let processed = self.among(&[Processed::No, Processed::RefusedWithError, Processed::Maybe]);
        let retry_after = self.chance(0.3).then(|| Duration::from_millis(self.below(3_000) as u64));
        Failure { class: self.among(&CLASSES), processed, status: None, retry_after }
    }
}

/// Large requests that went well, so that it is known how fast the deployments are and some may be hedged.
fn prime(world: &mut World, catalog: &Catalog) {
    for name in catalog.models.keys() {
        let model = world.fleet.model(name).expect("the model");
        for _ in 0..150 {
            let facts = Facts { model, tokens_in_estimate: 20_000, deadline: None, ..some_facts() };
            let (mut flow, _) = world.arrive_with(facts);
            let _ = world.step(&mut flow, Input::Connected);
            world.wait(Duration::from_millis(100));
            world.finish(&mut flow);
            let _ = world.step(&mut flow, Input::ClientGone);
            let _ = world.woken();
        }
    }
}

fn some_facts() -> Facts {
    World::new(&catalog("random", &["x"])).facts()
}

/// A request, and what its driver has under way for it.
struct One {
    flow: Flow,
    attempt: bool,
    hedge: bool,
}

/// That so many requests are left for a moment.
fn said(remaining: u64) -> Said {
    let requests = Allowance {
        limit: Some(10),
        remaining: Some(remaining),
        resets_in: Some(Duration::from_millis(200)),
    };
    let allowances = Allowances { requests, ..Allowances::default() };
    Said { allowances: Some(Box::new(allowances)), ..Said::default() }
}

struct Driver {
    world: World,
    draw: Draw,
    catalog: Catalog,
    all: BTreeMap<u64, One>,
    came: u64,
    /// Woken, and not told yet.
    late: Vec<u64>,
    log: u64,
    /// How often each of what is to be shown came about.
    seen: BTreeMap<&'static str, usize>,
}

impl Driver {
    fn new(seed: u64) -> Self {
        let mut draw = Draw(Rng::seeded(seed));
        let catalog = draw.catalog();
        let mut world = World::new(&catalog);
        prime(&mut world, &catalog);
        Self {
            world,
            draw,
            catalog,
            all: BTreeMap::new(),
            came: 0,
            late: Vec::new(),
            log: 0,
            seen: BTreeMap::new(),
        }
    }

    fn note(&mut self, what: &'static str) {
        *self.seen.entry(what).or_default() += 1;
    }

    fn step(&mut self, id: u64, input: Input) {
        let Some(one) = self.all.get_mut(&id) else { return };
        // What has ended by itself is no more.
        match &input {
            Input::Failed(_) | Input::Misfit(_) | Input::Done(_) => one.attempt = false,
            Input::Hedge(HedgeInput::Failed(_)) => one.hedge = false,
            Input::ClientGone => (one.attempt, one.hedge) = (false, false),
            Input::Arrived
            | Input::Granted
            | Input::Connected
            | Input::Headers
            | Input::FirstContent
            | Input::Hedge(_)
            | Input::Recalled
            | Input::TimerFired => {}
        }
        if id.is_multiple_of(5) && matches!(input, Input::Headers | Input::Hedge(HedgeInput::Headers)) {
            one.flow.note_said(matches!(input, Input::Hedge(_)), said(id % 3));
        }
        let action = self.world.step(&mut one.flow, input);
        let what = match &action {
            Action::Forward(_) => {
                (one.attempt, one.hedge) = (true, false);
                "forward"
            }
            Action::Hedge(_) => {
                one.hedge = true;
                "hedge"
            }
            Action::DropHedge => {
                one.hedge = false;
                "drop_hedge"
            }
            Action::Promote | Action::RelayHedge => {
                (one.attempt, one.hedge) = (std::mem::take(&mut one.hedge), false);
                "promote"
            }
            Action::Relay => {
                one.hedge = false;
                "relay"
            }
            Action::Yield | Action::Reject(_) | Action::Truncate(_) | Action::Finish => {
                (one.attempt, one.hedge) = (false, false);
                "end"
            }
            Action::Wait => "wait",
        };
        let under_way = u64::from(one.attempt) + u64::from(one.hedge);
        assert_eq!(
            one.flow.permits(),
            under_way,
            "what is under way has a permit: {action:?} {:?}",
            one.flow
        );
        assert_eq!(invariants::of_request(&one.flow), Ok(()));
        for byte in format!("{:?} {action:?}", self.world.now).bytes() {
            self.log = self.log.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
        }
        let taken_back = one.flow.attempts().iter().any(|attempt| attempt.taken_back);
        let continued = one.flow.attempts().iter().any(|attempt| attempt.kind == AttemptKind::Continuation);
        self.note(what);
        for (is, what) in [(taken_back, "taken_back"), (continued, "continued")] {
            if is {
                self.note(what);
            }
        }
        let woken = self.world.woken();
        self.late.extend(woken);
    }

    /// Tells those who were woken, or a part of them.
    fn tell(&mut self, share: f64) {
        while let Some(at) = (!self.late.is_empty()).then(|| self.draw.below(self.late.len())) {
            if !self.draw.chance(share) {
                return;
            }
            let ticket = self.late.remove(at);
            let told = |one: &One| one.flow.wakes_by().is_some_and(|own| own.0 == ticket);
            let id = self.all.iter().find(|(_, one)| told(one)).map(|(id, _)| *id);
            if let Some(id) = id {
                self.note("told");
                self.step(id, Input::Granted);
            }
        }
    }

    fn audit(&mut self) {
        assert_eq!(invariants::of_fleet(&self.world.fleet), Ok(()));
        let held: u64 = self.all.values().map(|one| one.flow.permits()).sum();
        let in_use = self.world.fleet.permits_in_use();
        let late = self.late.len() as u64;
        assert!((held..=held + late).contains(&in_use), "{in_use} in use, {held} held, {late} to be told");
        self.all.retain(|_, one| one.flow.phase() != Phase::Over);
    }

    /// Nobody who waits for the model could be sent somewhere now.
    fn nobody_waits_for_what_is_free(&self, model: pointsman_routing::ids::ModelId) {
        let waits = |one: &&One| {
            let told = one.flow.ticket().is_some_and(|own| !self.late.contains(&own.0));
            told && one.flow.facts().model == model
        };
        for one in self.all.values().filter(waits) {
            let tried: Vec<_> = one.flow.attempts().iter().map(|attempt| attempt.deployment).collect();
            let facts = one.flow.facts();
            let mut fleet = self.world.fleet.clone();
            let decision = decide(&mut fleet, facts, &tried, self.world.now, &mut Rng::seeded(1));
            if let Outcome::Chosen(choice) = &decision.outcome {
                let looks = matches!(choice.why, Why::Explored | Why::Probed);
                assert!(looks, "{:?} waits though {decision:?}", one.flow);
            }
        }
    }

    fn any(&mut self) -> Option<u64> {
        let ids: Vec<u64> = self.all.keys().copied().collect();
        (!ids.is_empty()).then(|| self.draw.among(&ids))
    }

    fn arrive(&mut self) {
        let (facts, others) = self.draw.facts(&self.world, &self.catalog);
        let flow = if self.draw.chance(0.05) {
            Flow::shadow(facts, self.world.now)
        } else {
            let mut flow = Flow::new(facts, self.world.now);
            flow.fall_back_to(others);
            flow
        };
        let id = self.came;
        self.came += 1;
        self.all.insert(id, One { flow, attempt: false, hedge: false });
        self.step(id, Input::Arrived);
        let model = self.all[&id].flow.facts().model;
        self.nobody_waits_for_what_is_free(model);
    }

    /// What comes next of a request if nothing goes wrong.
    fn go_on(&mut self, id: u64) {
        let one = &self.all[&id];
        let (hedged, attempt) = (one.hedge && self.draw.chance(0.4), one.attempt);
        let next = match one.flow.phase() {
            _ if hedged => {
                let connected = one.flow.attempts().last().is_some_and(|attempt| attempt.connected.is_some());
                let headers = one.flow.attempts().last().is_some_and(|attempt| attempt.headers.is_some());
                Some(Input::Hedge(match (connected, headers) {
                    (false, _) => HedgeInput::Connected,
                    (true, false) => HedgeInput::Headers,
                    (true, true) => HedgeInput::FirstContent,
                }))
            }
            Phase::Connecting => Some(Input::Connected),
            Phase::AwaitingHeaders => Some(Input::Headers),
            Phase::HoldingHeaders | Phase::AwaitingContent => Some(Input::FirstContent),
            Phase::Relaying => Some(Input::Done(Usage {
                tokens_in: 50,
                tokens_in_cached: 10,
                tokens_out: 20,
                ..Usage::default()
            })),
            Phase::New | Phase::Queued | Phase::BackingOff | Phase::Over => None,
        };
        if let Some(next) = next.filter(|next| attempt || matches!(next, Input::Hedge(_))) {
            self.step(id, next);
        }
    }

    fn fail(&mut self, id: u64) {
        let failure = self.draw.failure();
        let continuable = self.draw.chance(0.7);
        let one = self.all.get_mut(&id).expect("it is there");
        if one.hedge && self.draw.chance(0.5) {
            self.step(id, Input::Hedge(HedgeInput::Failed(failure)));
        } else if one.attempt {
            one.flow.note_continuable(continuable);
            self.step(id, Input::Failed(failure));
        }
    }

    fn outside(&mut self) {
        let models: Vec<&str> = self.catalog.models.keys().map(|name| &**name).collect();
        let name = self.draw.among(&models).to_owned();
        let model = self.world.fleet.model(&name).expect("the model");
        let deployment = format!("{name}{}", self.draw.below(3));
        let Some(deployment) = self.world.fleet.deployment(model, &deployment) else { return };
        let number = |draw: &mut Draw| draw.below(6) as u32;
        let event = match self.draw.below(5) {
            0 => Event::Probe { deployment, healthy: self.draw.chance(0.7) },
            1 => Event::EngineAsked(deployment),
            2 => {
                let (running, waiting) = (Some(number(&mut self.draw)), Some(number(&mut self.draw)));
                Event::Engine { deployment, report: Report { running, waiting, ..Report::default() } }
            }
            3 => Event::ResetBreaker(deployment),
            _ => {
                let at = format!("{name}{}", self.draw.below(3));
                let Some(key) = self.world.fleet.credential(&at, "k0") else { return };
                Event::RestoreCredential(key)
            }
        };
        self.world.fleet.observe(self.world.now, event);
        let woken = self.world.woken();
        self.late.extend(woken);
    }

    fn drains_end(&mut self) {
        let Some(at) = self.world.fleet.next_drain_end() else { return };
        self.world.now = self.world.now.max(at);
        self.world.fleet.note_drain_end(self.world.now);
        self.note("drained");
        for id in self.all.keys().copied().collect::<Vec<_>>() {
            self.step(id, Input::Recalled);
        }
    }

    fn happen(&mut self) {
        let what = self.draw.below(100);
        match what {
            0..30 => self.arrive(),
            30..58 => {
                if let Some(id) = self.any() {
                    self.go_on(id);
                }
            }
            58..66 => {
                if let Some(id) = self.any() {
                    self.fail(id);
                }
            }
            66..75 => {
                let Some(id) = self.any() else { return };
                let at = self.all[&id].flow.wake_at();
                // A timer may also fire before its time.
                if at < Now::NEVER && self.draw.chance(0.8) {
                    self.world.now = self.world.now.max(at);
                }
                self.note("timer");
                self.step(id, Input::TimerFired);
            }
            75..81 => {
                let Some(id) = self.any() else { return };
                self.step(id, Input::ClientGone);
            }
            81..84 => {
                self.catalog = self.draw.catalog();
                self.world.fleet.apply(&self.catalog, self.world.now);
                let woken = self.world.woken();
                self.late.extend(woken);
            }
            84..86 => self.drains_end(),
            86..92 => self.outside(),
            _ => {
                // Most events come at the same moment.
                let millis = self.draw.among(&[1, 50, 400]);
                self.world.wait(Duration::from_millis(millis));
            }
        }
    }
}

fn history(seed: u64, events: usize) -> (u64, BTreeMap<&'static str, usize>) {
    let mut driver = Driver::new(seed);
    for _ in 0..events {
        driver.happen();
        let share = driver.draw.among(&[0.0, 0.5, 1.0]);
        driver.tell(share);
        driver.audit();
    }
    // Everybody leaves, some of them before they are told.
    while let Some(id) = driver.any() {
        driver.step(id, Input::ClientGone);
        driver.tell(0.3);
        driver.audit();
    }
    assert_eq!(invariants::leftovers(&driver.world.fleet), Leftovers::default());
    let view = driver.world.fleet.view(driver.world.now);
    assert!(view.pools.iter().all(|pool| pool.inflight == 0 && pool.tokens_inflight == 0));
    (driver.log, driver.seen)
}

#[test]
fn no_permit_is_lost_whatever_happens() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..300 {
        println!("seed {seed}");
        for (what, count) in history(seed, 400).1 {
            *seen.entry(what).or_default() += count;
        }
    }
    println!("{seen:?}");
    for what in ["forward", "hedge", "drop_hedge", "promote", "taken_back", "continued", "told", "drained"] {
        assert!(seen.get(what).copied().unwrap_or(0) > 5, "{what}: {seen:?}");
    }
}

#[test]
fn the_same_history_is_the_same_run() {
    for seed in 500..505 {
        assert_eq!(history(seed, 300), history(seed, 300));
    }
}
