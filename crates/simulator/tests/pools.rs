//! Pools: the fleet grants what the slow reference grants, on random histories; and a model that is asked for twenty times
//! as often as the others does not make them wait.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::OnceLock;
use std::time::Duration;

use pointsman_routing::catalog::{Capabilities, Name};
use pointsman_routing::facts::{Class, Lane, Objective};
use pointsman_routing::flow::{Action, Flow, Input, Usage};
use pointsman_routing::pool::{PoolSpec, ShareSpec};
use pointsman_routing::{Catalog, Facts, Fleet, Now, Rng, invariants};
use pointsman_settings::Sources;
use pointsman_simulator::reference::pool::{Pool, Request, Rules, Share};

/// Models with three deployments each, and queues that hold all.
fn models() -> Catalog {
    let model = |at| {
        format!(
            "  m{at}: {{ deployments: [ {{ provider: p, name: d0 }}, {{ provider: p, name: d1 }}, {{ provider: p, name: d2 }} ] }}\n"
        )
    };
    let models: String = (0..MODELS).map(model).collect();
    let text = format!(
        "queue: {{ requests_max: 100000, target_ms: 0, wait_ms_max: 80000000 }}\n\
         timeouts: {{ total_ms: 86400000, first_content_ms: 80000000 }}\n\
         providers:\n  p: {{ kind: vllm, base_url: 'http://127.0.0.1:1' }}\nmodels:\n{models}"
    );
    let sources = Sources { env: &|_| None, file: &|_| Err("none".to_owned()) };
    pointsman_settings::parse(&text, &sources).expect("a good configuration").catalog()
}

/// The same with a pool of these rules; every model has so many deployments in it.
fn catalog(rules: &Rules, deployments: &[usize]) -> Catalog {
    static MODELS: OnceLock<Catalog> = OnceLock::new();
    let mut catalog = MODELS.get_or_init(models).clone();
    let count = |count: u64| u32::try_from(count).expect("few");
    let mut pool = PoolSpec { slots: rules.slots.map(count), tokens: rules.tokens, ..PoolSpec::default() };
    for (at, share) in rules.shares.iter().enumerate() {
        let name = Name::from(format!("m{at}"));
        let model = catalog.models.get_mut(&name).expect("the model");
        model.deployments.truncate(deployments[at]);
        for deployment in &mut model.deployments {
            deployment.pool = share.inside.then(|| "box".into());
        }
        let spec = ShareSpec {
            guarantee: count(share.guarantee),
            guarantee_tokens: share.guarantee_tokens,
            weight: count(share.weight),
            cap: Some(count(share.cap)),
            cap_tokens: Some(share.cap_tokens),
            lend: share.lend,
        };
        pool.models.insert(name, spec);
    }
    catalog.pools.insert("box".into(), pool);
    catalog
}

/// A fleet with requests, each by its number.
struct World {
    fleet: Fleet,
    rng: Rng,
    now: Now,
    flows: BTreeMap<u64, (Flow, usize)>,
}

impl World {
    fn new(catalog: &Catalog) -> Self {
        let mut fleet = Fleet::new();
        fleet.apply(catalog, Now::ZERO);
        Self { fleet, rng: Rng::seeded(1), now: Now::ZERO, flows: BTreeMap::new() }
    }

    fn step(&mut self, id: u64, input: Input) -> Option<Action> {
        let (flow, _) = self.flows.get_mut(&id)?;
        let action = flow.step(&mut self.fleet, self.now, &mut self.rng, input);
        assert_eq!(invariants::of_request(flow), Ok(()));
        assert_eq!(invariants::of_fleet(&self.fleet), Ok(()));
        Some(action)
    }

    fn arrive(&mut self, id: u64, model: usize, tokens: u64) -> bool {
        let facts = facts(&self.fleet, model, tokens);
        self.flows.insert(id, (Flow::new(facts, self.now), model));
        matches!(self.step(id, Input::Arrived), Some(Action::Forward(_)))
    }

    fn end(&mut self, id: u64) -> Vec<u64> {
        for input in [Input::Connected, Input::Headers, Input::FirstContent, Input::Done(Usage::default())] {
            self.step(id, input);
        }
        self.flows.remove(&id);
        self.served()
    }

    fn leave(&mut self, id: u64) -> Vec<u64> {
        self.step(id, Input::ClientGone);
        self.flows.remove(&id);
        self.served()
    }

    /// Who was granted a slot, in order.
    fn served(&mut self) -> Vec<u64> {
        let (mut woken, mut served) = (Default::default(), Vec::new());
        self.fleet.drain_woken(&mut woken);
        for ticket in woken {
            let waits = |flow: &Flow| flow.ticket() == Some(ticket);
            let Some(id) = self.flows.iter().find(|(_, (flow, _))| waits(flow)).map(|(id, _)| *id) else {
                continue;
            };
            let action = self.step(id, Input::Granted);
            assert!(matches!(action, Some(Action::Forward(_))), "{action:?}");
            served.push(id);
        }
        served
    }
}

fn facts(fleet: &Fleet, model: usize, tokens: u64) -> Facts {
    Facts {
        model: fleet.model(&format!("m{model}")).expect("the model"),
        version: None,
        needs: Capabilities::CHAT,
        tokens_in_estimate: u32::try_from(tokens - 1).expect("few"),
        tokens_in_min: 1,
        tokens_out_max: Some(1),
        stream: true,
        lane: Lane::Live,
        tenant: "t".into(),
        tenant_hash: 1,
        session_hash: None,
        user_hash: None,
        prefix_hash: None,
        prefix: Default::default(),
        class: Class::default(),
        objective: Objective::default(),
        region: None,
        pinned: None,
        tags: Default::default(),
        deadline: None,
    }
}

const MODELS: usize = 4;

/// Rules that can be kept, of any kind.
fn rules(rng: &mut Rng) -> Rules {
    let mut below = |most: u64| (rng.unit() * most as f64) as u64;
    let (slots, tokens) = (1 + below(10), 200 + below(2_000));
    let (by_slots, by_tokens) = match below(4) {
        0 => (None, Some(tokens)),
        1 => (Some(slots), Some(tokens)),
        _ => (Some(slots), None),
    };
    let (mut slots_left, mut tokens_left) = (by_slots.unwrap_or(0), by_tokens.unwrap_or(0));
    let shares = (0..MODELS).map(|_| {
        let inside = below(8) > 0;
        let (guarantee, guarantee_tokens) = if inside {
            (below(slots_left.min(4) + 1), below(3) / 2 * below(tokens_left.min(500) + 1))
        } else {
            (0, 0)
        };
        (slots_left, tokens_left) = (slots_left - guarantee, tokens_left - guarantee_tokens);
        let capped = below(3) == 0;
        Share {
            inside,
            guarantee,
            guarantee_tokens,
            weight: 1 + below(3),
            cap: if capped { (guarantee + below(4)).max(1) } else { 1_000_000 },
            cap_tokens: if capped { (guarantee_tokens + below(1_000)).max(1) } else { 1_000_000_000 },
            lend: below(4) > 0,
        }
    });
    let mut shares: Vec<Share> = shares.collect();
    // Where all is kept for others, those without a guarantee could never run; such a configuration is refused.
    let kept: u64 = shares.iter().filter(|share| !share.lend).map(|share| share.guarantee).sum();
    if by_slots.is_some_and(|slots| kept >= slots) {
        for share in &mut shares {
            share.lend = true;
        }
    }
    Rules { slots: by_slots, tokens: by_tokens, shares }
}

/// One random history; how many were granted after a wait.
fn history(seed: u64, steps: u64) -> usize {
    let mut rng = Rng::seeded(seed);
    let deployments: Vec<usize> = (0..MODELS).map(|_| 1 + (rng.unit() * 3.0) as usize).collect();
    let first = rules(&mut rng);
    let mut world = World::new(&catalog(&first, &deployments));
    let mut slow = Pool::new(first);
    let mut granted = 0;
    for id in 0..steps {
        world.now = world.now + Duration::from_millis(1);
        let what = rng.unit();
        let pick =
            |list: &[Request], rng: &mut Rng| list.get((rng.unit() * list.len() as f64) as usize).copied();
        let before = format!("seed {seed} step {id}: {slow:?}");
        let (fast, slow_says) = if what < 0.5 {
            let model = (rng.unit() * rng.unit() * MODELS as f64) as usize;
            let tokens = if rng.unit() < 0.1 { 2_000 } else { 2 + (rng.unit() * 300.0) as u64 };
            let ran = world.arrive(id, model, tokens);
            let runs = slow.arrive(Request { id, model, tokens });
            (vec![u64::from(ran)], vec![u64::from(runs)])
        } else if what < 0.92 {
            let Some(one) = pick(&slow.running, &mut rng) else { continue };
            (world.end(one.id), slow.end(one.id))
        } else if what < 0.97 {
            let Some(one) = pick(&slow.waiting, &mut rng) else { continue };
            (world.leave(one.id), slow.leave(one.id))
        } else {
            let rules = rules(&mut rng);
            world.fleet.apply(&catalog(&rules, &deployments), world.now);
            let (mut fast, mut slow) = (world.served(), slow.reload(rules));
            // Models that are not in the pool are served in no order.
            fast.sort_unstable();
            slow.sort_unstable();
            (fast, slow)
        };
        assert_eq!(fast, slow_says, "{before}");
        granted += if what < 0.5 { 0 } else { fast.len() };
        nobody_below_its_guarantee_waits_beside_a_free_slot(&slow, &before);
    }
    while let Some(one) = slow.running.first().copied() {
        assert_eq!(world.end(one.id), slow.end(one.id));
    }
    assert_eq!(slow.waiting.len(), 0, "nobody waits for an empty pool");
    assert_eq!(invariants::leftovers(&world.fleet), invariants::Leftovers::default());
    granted
}

/// What the rules are for, asked of the outcome.
fn nobody_below_its_guarantee_waits_beside_a_free_slot(pool: &Pool, at: &str) {
    let Rules { slots: Some(slots), tokens: None, .. } = pool.rules else { return };
    let used: u64 = (0..MODELS).map(|model| pool.used(model).0).sum();
    let waits = |model: usize| pool.waiting.iter().any(|one| one.model == model);
    // Caps of tokens hold even where the pool has none.
    let uncapped = |model: usize| pool.rules.shares[model].cap_tokens == 1_000_000_000;
    let owed =
        (0..MODELS).find(|model| uncapped(*model) && waits(*model) && pool.shortfall(*model).is_some());
    assert!(owed.is_none() || used >= slots, "m{owed:?} is owed a slot: {at}");
}

#[test]
fn the_fleet_grants_what_the_slow_reference_grants() {
    let granted: usize = (0..300).map(|seed| history(seed, 200)).sum();
    assert!(granted > 5_000, "most histories have somebody wait: {granted}");
}

/// A world without a loop of its own: a queue of who comes and whose answer ends.
struct Run {
    /// From arrival to the first content, seconds, by model.
    first: Vec<Vec<f64>>,
    /// Grants to a model while another one below its guarantee waited.
    wronged: usize,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Arrives(usize),
    Ends(u64),
}

/// Four models share 16 slots; the first is asked for so many times as often as the others.
fn four_models(hot: f64, lend: bool, seed: u64) -> Run {
    const PER_S: f64 = 1.0;
    const UNTIL: Now = Now::from_millis(600_000);
    let share = Share {
        inside: true,
        guarantee: 3,
        guarantee_tokens: 0,
        weight: 1,
        cap: 1_000_000,
        cap_tokens: 1_000_000_000,
        lend,
    };
    let hot_share = Share { lend: true, ..share };
    let rules = Rules { slots: Some(16), tokens: None, shares: vec![hot_share, share, share, share] };
    let mut world = World::new(&catalog(&rules, &[1; MODELS]));
    let (mut rng, mut run) = (Rng::seeded(seed), Run { first: vec![Vec::new(); MODELS], wronged: 0 });
    // Every model has a stream of chance of its own, so that the others' requests are the same with and without the hot one.
    let mut chance: Vec<Rng> = (0..MODELS).map(|_| rng.fork("model")).collect();
    let exponential = |rng: &mut Rng, mean: f64| Duration::from_secs_f64(-mean * (1.0 - rng.unit()).ln());
    let mut due = BinaryHeap::new();
    let rate = |model: usize| if model == 0 { PER_S * hot } else { PER_S };
    for (model, chance) in chance.iter_mut().enumerate().filter(|(model, _)| rate(*model) > 0.0) {
        let at = Now::ZERO + exponential(chance, 1.0 / rate(model));
        due.push(std::cmp::Reverse((at, Due::Arrives(model))));
    }
    // Prompt and answer of a request, drawn when it comes: how long until its first content and its end.
    let (mut takes, mut next) = (BTreeMap::new(), 0);
    while let Some(std::cmp::Reverse((at, what))) = due.pop() {
        world.now = at;
        let begun = match what {
            Due::Arrives(model) => {
                let chance = &mut chance[model];
                // Times to first content are spread, log-normal, around 0.4 s (Box and Muller).
                let length = (-2.0 * (1.0 - chance.unit()).ln()).sqrt();
                let spread = length * (std::f64::consts::TAU * chance.unit()).cos();
                let first = Duration::from_secs_f64(0.4 * (0.5 * spread).exp());
                takes.insert(next, (at, first, first + exponential(chance, 0.6)));
                let again = at + exponential(chance, 1.0 / rate(model));
                if again < UNTIL {
                    due.push(std::cmp::Reverse((again, Due::Arrives(model))));
                }
                let runs = world.arrive(next, model, 100);
                next += 1;
                if runs { vec![next - 1] } else { Vec::new() }
            }
            Due::Ends(id) => {
                let before = world.fleet.view(world.now).pools.remove(0);
                let model = world.flows[&id].1;
                let begun = world.end(id);
                let owed = |one: &&pointsman_routing::fleet::PoolModelView| {
                    let used = one.inflight - u32::from(*one.model == *format!("m{model}"));
                    one.waiting > 0 && used < one.guarantee
                };
                let owed: Vec<String> =
                    before.models.iter().filter(owed).map(|one| one.model.to_string()).collect();
                let served = |id: &u64| format!("m{}", world.flows[id].1);
                run.wronged +=
                    usize::from(!owed.is_empty() && !begun.iter().map(served).any(|one| owed.contains(&one)));
                begun
            }
        };
        for id in begun {
            let (arrived, first, whole) = takes.remove(&id).expect("it was drawn");
            let model = world.flows[&id].1;
            run.first[model].push((at + first - arrived).as_secs_f64());
            due.push(std::cmp::Reverse((at + whole, Due::Ends(id))));
        }
    }
    run
}

fn p99(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() * 99 / 100]
}

#[test]
fn a_hot_model_leaves_the_others_their_share() {
    for lend in [true, false] {
        for seed in 1..=5 {
            let (alone, beside) = (four_models(1.0, lend, seed), four_models(20.0, lend, seed));
            assert_eq!(beside.wronged, 0, "guarantees are met at the next release");
            let (alone, beside) = (p99(&alone.first[1..].concat()), p99(&beside.first[1..].concat()));
            println!(
                "lend {lend} seed {seed}: p99 {alone:.3} s, beside a hot model {beside:.3} s, {:.3}",
                beside / alone
            );
            assert!(beside <= 1.2 * alone, "seed {seed}: {beside} s against {alone} s");
        }
    }
}
