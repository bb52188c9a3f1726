//! The slot scheduler and its slow reference agree on every grant, whatever happens.
#![expect(
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::too_many_lines,
    reason = "a test: a panic is its way to fail, and a history is told in one piece"
)]

use std::time::Duration;

use pointsman_routing::catalog::{
    BatchSpec, Capabilities, Catalog, CredentialSpec, DeploymentSpec, HealthSpec, ModelSpec, Name,
    ProviderSpec, QueueSpec, RegionSpec, RetrySpec, TenantSpec, TimeoutSpec,
};
use pointsman_routing::facts::{Class, Lane};
use pointsman_routing::failure::Processed;
use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, Flow, Input, Usage};
use pointsman_routing::limiter::{LimiterKind, LimiterSpec};
use pointsman_routing::pool::PreemptSpec;
use pointsman_routing::{Facts, Failure, FailureClass, Fleet, Now, Rng, decide};
use pointsman_simulator::reference::{Asked, Paid, Place, Reference};
use proptest::prelude::*;

const TENANTS: usize = 4;
/// How often a batch request gives its place to a live one.
const GIVES_WAY: u32 = 2;
/// What may be asked for: a version of its own, anything, and two tags.
const WANTS: [&str; 4] = ["old", "any", "x", "y"];
/// Deployments: `base` serves all but `old`, which has one of its own, so that whoever waits always has something to
/// wait for.
const PLACES: [(&str, &[&str]); 4] =
    [("base", &["any", "x", "y"]), ("old", &["old"]), ("x", &["any", "x"]), ("y", &["any", "y"])];

/// What can be changed by a reload.
#[derive(Debug, Clone)]
struct Config {
    slots: [u32; 4],
    /// Of `x` and `y`.
    drained: [bool; 2],
    /// Whose credential serves live requests alone.
    live_only: [bool; 2],
    batch_share: f64,
    weights: [u32; TENANTS],
}

#[derive(Debug, Clone)]
enum What {
    Arrive { tenant: usize, class: usize, batch: bool, wants: usize, deadline_s: u64, tokens_out_max: u32 },
    End { nth: usize, tokens_out: u64, cached: u64 },
    Content { nth: usize },
    Fail { nth: usize },
    KeyDies { nth: usize },
    KeyReturns { place: usize },
    Gone { nth: usize },
    Leave { nth: usize },
    Probe { place: usize, healthy: bool },
    Reload(Config),
    Tick { millis: u64 },
}

fn configs() -> impl Strategy<Value = Config> {
    (
        prop::array::uniform4(1_u32..4),
        prop::array::uniform2(prop::bool::weighted(0.2)),
        prop::array::uniform2(prop::bool::weighted(0.2)),
        prop::sample::select(vec![1.0, 0.5, 0.9]),
        prop::array::uniform4(1_u32..4),
    )
        .prop_map(|(slots, drained, live_only, batch_share, weights)| Config {
            slots,
            drained,
            live_only,
            batch_share,
            weights,
        })
}

fn events() -> impl Strategy<Value = What> {
    let nth = 0_usize..64;
    let arrive =
        (0..TENANTS, 0_usize..4, prop::bool::weighted(0.3), 0_usize..4, 2_000_u64..2_010, 1_u32..400)
            .prop_map(|(tenant, class, batch, wants, deadline_s, tokens_out_max)| What::Arrive {
                tenant,
                class,
                batch,
                wants,
                deadline_s,
                tokens_out_max,
            });
    prop_oneof![
        12 => arrive,
        8 => (nth.clone(), 0_u64..400, 0_u64..100)
            .prop_map(|(nth, tokens_out, cached)| What::End { nth, tokens_out, cached }),
        4 => nth.clone().prop_map(|nth| What::Content { nth }),
        1 => nth.clone().prop_map(|nth| What::Fail { nth }),
        1 => nth.clone().prop_map(|nth| What::KeyDies { nth }),
        1 => (2_usize..4).prop_map(|place| What::KeyReturns { place }),
        1 => nth.clone().prop_map(|nth| What::Gone { nth }),
        1 => nth.prop_map(|nth| What::Leave { nth }),
        1 => (2_usize..4, any::<bool>()).prop_map(|(place, healthy)| What::Probe { place, healthy }),
        1 => configs().prop_map(What::Reload),
        2 => (1_u64..50).prop_map(|millis| What::Tick { millis }),
    ]
}

fn catalog(config: &Config) -> Catalog {
    let all = Capabilities::NAMES.into_iter().fold(Capabilities::NONE, |all, (one, _)| all.with(one));
    let mut catalog = Catalog::default();
    let hour = Duration::from_secs(3_600);
    let deployments = PLACES.iter().enumerate().map(|(at, (name, offers))| DeploymentSpec {
        name: (*name).into(),
        provider: (*name).into(),
        version: Some(if *name == "old" { "1" } else { "2" }.into()),
        weight: u32::from(at < 2 || !config.drained[at - 2]),
        tier: 1,
        slots: Some(config.slots[at]),
        slots_learnt: false,
        tokens_inflight_max: None,
        pool: None,
        count_foreign: false,
        cache_tokens: None,
        limiter: LimiterSpec { kind: LimiterKind::Off, ..LimiterSpec::default() },
        region: None,
        quota_domain: None,
        tags: offers.iter().map(|tag| Name::from(*tag)).collect(),
        arm: None,
        capabilities: all,
        context_tokens_max: None,
        output_tokens_max: None,
        free: true,
        draining: false,
        drain: hour,
    });
    let deployments = deployments.collect();
    for (at, (name, _)) in PLACES.iter().enumerate() {
        let lane = (at >= 2 && config.live_only[at - 2]).then_some(Lane::Live);
        let key =
            CredentialSpec { name: "k".into(), rpm: None, tpm: None, quota_domain: None, lane, revision: 0 };
        let credentials = if at < 2 { Vec::new() } else { vec![key] };
        catalog.providers.insert((*name).into(), ProviderSpec { credentials });
    }
    for (number, weight) in config.weights.iter().enumerate() {
        catalog.tenants.insert(format!("t{number}").into(), TenantSpec { weight: *weight });
    }
    let model = ModelSpec {
        strategy: Default::default(),
        tier_strategies: Default::default(),
        split: None,
        sticky: None,
        preempt: Some(PreemptSpec { times_max: GIVES_WAY }),
        region: RegionSpec::default(),
        queue: QueueSpec {
            requests_max: 10_000,
            batch: BatchSpec {
                requests_max: 10_000,
                wait_max: hour,
                inflight_share: config.batch_share,
                reserve: false,
            },
            target: Duration::ZERO,
            wait_max: hour,
        },
        timeouts: TimeoutSpec {
            connect: hour,
            first_content: hour,
            answer: hour,
            idle: hour,
            total: hour,
            header_hold: hour,
        },
        attempts_max: 1,
        // The reference knows nothing of breakers.
        health: HealthSpec {
            failures: u32::MAX,
            connect_failures: u32::MAX,
            failed_rate: 1.0,
            ..HealthSpec::default()
        },
        retry: RetrySpec::default(),
        hedge: None,
        deployments,
    };
    catalog.models.insert("m".into(), model);
    catalog
}

struct Pair {
    fleet: Fleet,
    rng: Rng,
    now: Now,
    reference: Reference,
    config: Config,
    healthy: [bool; 4],
    key_lives: [bool; 4],
    flows: Vec<(u64, Flow)>,
    arrived: u64,
    /// Who has to give way to the one that came last.
    victim: Option<u64>,
    granted: usize,
    given_way: usize,
}

impl Pair {
    fn new(config: Config) -> Self {
        let mut fleet = Fleet::new();
        fleet.apply(&catalog(&config), Now::ZERO);
        let mut pair = Self {
            fleet,
            rng: Rng::seeded(7),
            now: Now::ZERO,
            reference: Reference::default(),
            config,
            healthy: [true; 4],
            key_lives: [true; 4],
            flows: Vec::new(),
            arrived: 0,
            victim: None,
            granted: 0,
            given_way: 0,
        };
        pair.tell_places();
        pair
    }

    /// Tells the reference what the deployments are like.
    fn tell_places(&mut self) {
        let config = &self.config;
        for (at, (name, offers)) in PLACES.iter().enumerate() {
            let drained = at >= 2 && config.drained[at - 2];
            let works = !drained && self.healthy[at] && self.key_lives[at];
            let live_only = at >= 2 && config.live_only[at - 2];
            let share = (f64::from(config.slots[at]) * config.batch_share).ceil() as u32;
            let place = Place {
                slots: config.slots[at],
                batch_slots: share.clamp(1, config.slots[at]),
                offers: offers.iter().map(|offer| (*offer).to_owned()).collect(),
                works: [works, works && !live_only],
            };
            self.reference.places.insert((*name).to_owned(), place);
        }
        for (number, weight) in config.weights.iter().enumerate() {
            self.reference.weights.insert(format!("t{number}"), u64::from(*weight));
        }
    }

    fn facts(&self, asked: &Asked) -> Facts {
        let tenant = asked.tenant.bytes().fold(7, |hash: u64, byte| hash * 131 + u64::from(byte));
        Facts {
            model: self.fleet.model("m").expect("the model"),
            version: Some(if asked.wants == "old" { "1" } else { "2" }.into()),
            needs: Capabilities::CHAT,
            tokens_in_estimate: asked.tokens_in as u32,
            tokens_in_min: asked.tokens_in as u32,
            tokens_out_max: Some(asked.tokens_out_max as u32),
            stream: true,
            lane: asked.lane,
            tenant: asked.tenant.as_str().into(),
            tenant_hash: tenant,
            session_hash: None,
            user_hash: None,
            prefix_hash: None,
            prefix: std::sync::Arc::default(),
            class: asked.class,
            objective: Default::default(),
            region: None,
            pinned: None,
            tags: [Name::from(asked.wants.as_str())].into_iter().collect(),
            deadline: Some(asked.deadline),
        }
    }

    fn step(&mut self, at: usize, input: Input) -> Action {
        self.flows[at].1.step(&mut self.fleet, self.now, &mut self.rng, input)
    }

    /// Whoever was granted a slot was next, and nobody else could be served.
    fn compare(&mut self) {
        let mut woken = Default::default();
        self.fleet.drain_woken(&mut woken);
        for ticket in woken {
            let told = |(_, flow): &(u64, Flow)| flow.wakes_by() == Some(ticket);
            let at =
                self.flows.iter().position(told).expect("whoever is told waits, or may have to give way");
            if self.flows[at].1.ticket() != Some(ticket) {
                self.give_way(at);
                continue;
            }
            self.granted(ticket);
        }
        assert_eq!(self.victim, None, "it was told to give way");
        assert_eq!(self.reference.next(), None, "a slot is idle while somebody waits who could use it");
        let (waiting, running) = self.reference.counts();
        assert_eq!(self.fleet.permits_in_use(), running as u64);
        assert_eq!(self.fleet.view(self.now).models[0].queue_depth, waiting);
    }

    /// A batch request gives its place to whoever is next, and comes again.
    fn give_way(&mut self, at: usize) {
        let request = self.flows[at].0;
        assert_eq!(self.victim.take(), Some(request), "who gives way");
        let action = self.step(at, Input::Granted);
        let asked = self.reference.give_way(request).expect("it runs");
        // Its place goes to others before it asks again itself.
        let own = self.flows[at].1.ticket();
        let mut woken = Default::default();
        self.fleet.drain_woken(&mut woken);
        for ticket in woken {
            assert_ne!(Some(ticket), own, "it has just come");
            self.granted(ticket);
        }
        self.given_way += 1;
        self.reference.arrive(&asked);
        let free = self.reference.free(&asked);
        match action {
            Action::Forward(choice) => {
                assert!(free.iter().any(|name| **name == *choice.name), "{} of {free:?}", choice.name);
                self.reference.send(request, asked, &choice.name);
                let _ = self.step(at, Input::Connected);
            }
            Action::Yield => {
                assert!(free.is_empty(), "it waits although it could go to {free:?}");
                self.reference.wait(request, asked);
            }
            other => panic!("{request} is told {other:?}"),
        }
    }

    /// One who waits was granted a slot: it was next.
    fn granted(&mut self, ticket: pointsman_routing::ids::Ticket) {
        let waits = |(_, flow): &(u64, Flow)| flow.ticket() == Some(ticket);
        let at = self.flows.iter().position(waits).expect("whoever is told waits");
        let request = self.flows[at].0;
        let (next, free) = self.reference.next().expect("somebody can be served");
        assert_eq!(request, next, "who is next");
        let action = self.step(at, Input::Granted);
        let Action::Forward(choice) = action else { panic!("{request} is told {action:?}") };
        assert!(free.iter().any(|name| **name == *choice.name), "{} is not one of {free:?}", choice.name);
        self.reference.grant(request, &choice.name);
        let _ = self.step(at, Input::Connected);
        self.granted += 1;
    }

    fn arrive(&mut self, asked: &Asked) {
        let request = self.arrived;
        self.arrived += 1;
        let mut flow = Flow::new(self.facts(asked), self.now);
        let action = flow.step(&mut self.fleet, self.now, &mut self.rng, Input::Arrived);
        self.flows.push((request, flow));
        // Those who wait come first.
        let at = self.flows.len() - 1;
        self.reference.arrive(asked);
        let free = self.reference.free(asked);
        match action {
            Action::Forward(choice) => {
                assert!(
                    free.iter().any(|name| **name == *choice.name),
                    "{} is not one of {free:?}",
                    choice.name
                );
                self.reference.send(request, asked.clone(), &choice.name);
                let _ = self.step(at, Input::Connected);
            }
            Action::Wait => {
                assert!(free.is_empty(), "it waits although it could go to {free:?}");
                self.victim = self.reference.victim(asked);
                self.reference.wait(request, asked.clone());
            }
            other => panic!("{request} is told {other:?}"),
        }
    }

    /// The nth of those that run, or that wait.
    fn nth(&self, nth: usize, runs: bool) -> Option<usize> {
        let fit: Vec<usize> =
            (0..self.flows.len()).filter(|at| self.flows[*at].1.ticket().is_none() == runs).collect();
        (!fit.is_empty()).then(|| fit[nth % fit.len()])
    }

    fn end(&mut self, at: usize, inputs: Vec<Input>, paid: Paid) {
        let request = self.flows[at].0;
        for input in inputs {
            let _ = self.step(at, input);
        }
        self.reference.end(request, paid);
        self.flows.remove(at);
    }

    fn happen(&mut self, what: What) {
        let failed = |class| Failure { class, processed: Processed::No, status: None, retry_after: None };
        match what {
            What::Arrive { tenant, class, batch, wants, deadline_s, tokens_out_max } => {
                let asked = Asked {
                    tenant: format!("t{tenant}"),
                    lane: if batch { Lane::Batch } else { Lane::Live },
                    class: Class::ALL[class],
                    deadline: Now::ZERO + Duration::from_secs(deadline_s),
                    wants: WANTS[wants].to_owned(),
                    tokens_in: 100,
                    tokens_out_max: u64::from(tokens_out_max),
                    gives_way: GIVES_WAY,
                };
                self.arrive(&asked);
            }
            What::End { nth, tokens_out, cached } => {
                let Some(at) = self.nth(nth, true) else { return };
                let usage =
                    Usage { tokens_in: 100, tokens_in_cached: cached, tokens_out, ..Usage::default() };
                let inputs = vec![Input::Headers, Input::FirstContent, Input::Done(usage)];
                self.end(at, inputs, Paid::Used(100 - cached, tokens_out));
            }
            What::Content { nth } => {
                let Some(at) = self.nth(nth, true) else { return };
                for input in [Input::Headers, Input::FirstContent] {
                    let _ = self.step(at, input);
                }
                self.reference.content(self.flows[at].0);
            }
            What::Fail { nth } => {
                let Some(at) = self.nth(nth, true) else { return };
                self.end(at, vec![Input::Failed(failed(FailureClass::Client))], Paid::Nothing);
            }
            What::KeyDies { nth } => {
                let Some(at) = self.nth(nth, true) else { return };
                let name = self.flows[at].1.attempt().map(|attempt| attempt.name.to_string());
                let place = PLACES.iter().position(|(known, _)| Some(*known) == name.as_deref());
                let Some(place) = place.filter(|place| *place >= 2) else { return };
                self.key_lives[place] = false;
                self.tell_places();
                self.end(at, vec![Input::Failed(failed(FailureClass::CredentialDead))], Paid::Nothing);
            }
            What::KeyReturns { place } => {
                let key = self.fleet.credential(PLACES[place].0, "k").expect("its key");
                self.fleet.observe(self.now, Event::RestoreCredential(key));
                self.key_lives[place] = true;
                self.tell_places();
                // Whoever comes next makes the fleet look; this one wants what there is not.
                let asked = Asked {
                    tenant: "nobody".to_owned(),
                    lane: Lane::Live,
                    class: Class::System,
                    deadline: Now::NEVER,
                    wants: "nothing".to_owned(),
                    tokens_in: 1,
                    tokens_out_max: 1,
                    gives_way: 0,
                };
                let facts = self.facts(&asked);
                let _ = decide(&mut self.fleet, &facts, &[], self.now, &mut self.rng);
            }
            What::Gone { nth } => {
                let Some(at) = self.nth(nth, true) else { return };
                self.end(at, vec![Input::ClientGone], Paid::AsCharged);
            }
            What::Leave { nth } => {
                let Some(at) = self.nth(nth, false) else { return };
                let request = self.flows[at].0;
                let _ = self.step(at, Input::ClientGone);
                self.flows.remove(at);
                self.reference.leave(request);
            }
            What::Probe { place, healthy } => {
                self.healthy[place] = healthy;
                self.tell_places();
                let model = self.fleet.model("m").expect("the model");
                let deployment = self.fleet.deployment(model, PLACES[place].0).expect("it");
                self.fleet.observe(self.now, Event::Probe { deployment, healthy });
            }
            What::Reload(config) => {
                self.config = config;
                self.tell_places();
                self.fleet.apply(&catalog(&self.config), self.now);
            }
            What::Tick { millis } => self.now = self.now + Duration::from_millis(millis),
        }
    }
}

fn run(config: Config, history: Vec<What>) -> (usize, usize) {
    let mut pair = Pair::new(config);
    for what in history {
        pair.happen(what);
        pair.compare();
    }
    (pair.granted, pair.given_way)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_grant_is_the_one_of_the_reference(config in configs(), history in prop::collection::vec(events(), 1..400)) {
        run(config, history);
    }
}

#[test]
fn a_long_history_grants_much_and_agrees_on_all() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config as Proptest, RngAlgorithm, TestRng, TestRunner};
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Proptest::default(), rng);
    let config = configs().new_tree(&mut runner).expect("a configuration").current();
    let history = prop::collection::vec(events(), 6_000).new_tree(&mut runner).expect("a history").current();
    let (granted, given_way) = run(config, history);
    assert!(granted > 500, "{granted} were granted a slot after a wait");
    assert!(given_way > 100, "{given_way} gave their place to a live request");
}
