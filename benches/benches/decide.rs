//! One decision, its permit included, by strategy and number of deployments; with what it allocates.

use std::time::Duration;

use divan::{AllocProfiler, Bencher, black_box};
use pointsman_routing::catalog::{
    Capabilities, Catalog, DeploymentSpec, HealthSpec, ModelSpec, ProviderSpec, QueueSpec, RegionSpec,
    RetrySpec, TimeoutSpec,
};
use pointsman_routing::facts::{Lane, PrefixBlock};
use pointsman_routing::flow::{Flow, Input};
use pointsman_routing::strategy::StrategySpec;
use pointsman_routing::{Facts, Fleet, ModelId, Now, Rng, decide};
use pointsman_simulator::baselines;

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const STRATEGIES: [&str; 11] = [
    "adaptive",
    "round_robin",
    "weighted_round_robin",
    "least_busy",
    "least_tokens",
    "latency",
    "predicted_latency",
    "prefix_affinity",
    "consistent_hash",
    "random",
    "p2c",
];

fn main() {
    divan::main();
}

/// A strategy by its name, or a baseline by its.
fn strategy_of(name: &str) -> StrategySpec {
    let baseline = baselines::ALL.iter().find(|def| def.name == name);
    baseline.map_or_else(
        || StrategySpec::from_value(name.into()).unwrap_or_default(),
        |def| StrategySpec::of(def),
    )
}

fn catalog(strategy: &str, deployments: usize) -> Catalog {
    let mut catalog = Catalog::default();
    let deployment = |number: usize| DeploymentSpec {
        name: format!("d{number}").into(),
        provider: "p".into(),
        version: None,
        weight: 1 + number as u32 % 3,
        tier: 1,
        slots: Some(16),
        slots_learnt: false,
        tokens_inflight_max: None,
        pool: None,
        count_foreign: false,
        limiter: Default::default(),
        cache_tokens: None,
        region: None,
        quota_domain: None,
        tags: Vec::new(),
        arm: None,
        capabilities: Capabilities::CHAT,
        context_tokens_max: Some(8192),
        output_tokens_max: None,
        free: true,
        draining: false,
        drain: Duration::from_secs(60),
    };
    catalog.providers.insert("p".into(), ProviderSpec::default());
    let second = Duration::from_secs(1);
    let model = ModelSpec {
        strategy: strategy_of(strategy),
        tier_strategies: Default::default(),
        split: None,
        sticky: None,
        region: RegionSpec::default(),
        queue: QueueSpec { requests_max: 8, batch: Default::default(), target: second, wait_max: second },
        preempt: None,
        timeouts: TimeoutSpec {
            connect: second,
            first_content: second,
            answer: second,
            idle: second,
            total: second,
            header_hold: second,
        },
        attempts_max: 3,
        health: HealthSpec::default(),
        retry: RetrySpec::default(),
        hedge: None,
        deployments: (0..deployments).map(deployment).collect(),
    };
    catalog.models.insert("m".into(), model);
    catalog
}

fn facts(model: ModelId) -> Facts {
    Facts {
        model,
        version: None,
        needs: Capabilities::CHAT,
        tokens_in_estimate: 500,
        tokens_in_min: 500,
        tokens_out_max: Some(100),
        stream: true,
        lane: Lane::Live,
        tenant: "t".into(),
        tenant_hash: 1,
        session_hash: Some(7),
        user_hash: None,
        prefix_hash: None,
        prefix: std::sync::Arc::default(),
        class: pointsman_routing::facts::Class::default(),
        objective: pointsman_routing::facts::Objective::default(),
        region: None,
        pinned: None,
        tags: Default::default(),
        deadline: None,
    }
}

#[divan::bench(args = STRATEGIES, consts = [8, 64])]
fn one_decision<const N: usize>(bencher: Bencher<'_, '_>, strategy: &str) {
    let mut fleet = Fleet::new();
    fleet.apply(&catalog(strategy, N), Now::ZERO);
    let Some(model) = fleet.model("m") else { return };
    let facts = facts(model);
    let mut rng = Rng::seeded(1);
    let mut now = Now::from_millis(1);
    bencher.bench_local(|| {
        now = now + Duration::from_micros(10);
        // Dropped at once: kept until the sample ends, the records would make the kernel find new pages all the time.
        drop(black_box(decide(&mut fleet, &facts, &[], now, &mut rng)));
    });
}

/// The same where requests are paid for: two are drawn, and the better one of them taken.
#[divan::bench(args = [8, 64])]
fn one_decision_among_paid(bencher: Bencher<'_, '_>, deployments: usize) {
    let mut catalog = catalog("adaptive", deployments);
    for deployment in catalog.models.values_mut().flat_map(|model| &mut model.deployments) {
        deployment.free = false;
    }
    let mut fleet = Fleet::new();
    fleet.apply(&catalog, Now::ZERO);
    let Some(model) = fleet.model("m") else { return };
    let facts = facts(model);
    let mut rng = Rng::seeded(1);
    let mut now = Now::from_millis(1);
    bencher.bench_local(|| {
        now = now + Duration::from_micros(10);
        drop(black_box(decide(&mut fleet, &facts, &[], now, &mut rng)));
    });
}

/// The beginnings of a prompt of 32,000 tokens, as the protocol layer gives them: every 64 tokens at first, then eight to a
/// doubling.
fn beginnings(prompt: u64) -> Vec<PrefixBlock> {
    let (mut blocks, mut tokens) = (Vec::new(), 64_u32);
    while tokens <= 32_768 {
        // The first 1,024 are the same for all.
        let own = if tokens > 1_024 { prompt } else { 0 };
        let hash = (u64::from(tokens) << 20 ^ own).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        blocks.push(PrefixBlock { tokens, hash });
        tokens += (tokens.next_power_of_two() / 16).max(64);
    }
    blocks
}

/// A decision, its permit included, for prompts of 32,000 tokens whose beginnings are cached here and there.
#[divan::bench(args = ["prefix_affinity", "predicted_latency", "adaptive"])]
fn one_decision_with_a_long_prefix(bencher: Bencher<'_, '_>, strategy: &str) {
    let mut fleet = Fleet::new();
    fleet.apply(&catalog(strategy, 64), Now::ZERO);
    let Some(model) = fleet.model("m") else { return };
    let prompt = |prompt: u64| Facts {
        prefix: beginnings(prompt).into(),
        tokens_in_estimate: 32_768,
        tokens_in_min: 4_000,
        ..facts(model)
    };
    let prompts: Vec<Facts> = (0..1_000).map(prompt).collect();
    let (mut rng, mut now) = (Rng::seeded(1), Now::from_millis(1));
    let mut turn = 0;
    bencher.bench_local(|| {
        now = now + Duration::from_millis(1);
        turn += 1;
        drop(black_box(decide(&mut fleet, &prompts[turn * 7919 % 1_000], &[], now, &mut rng)));
    });
}

/// A decision for a version that is free while so many wait for a deployment of another version, which is full: they
/// must not cost those who do not wait.
#[divan::bench(args = [0, 100, 1000])]
fn one_decision_with_a_full_queue(bencher: Bencher<'_, '_>, waiting: usize) {
    let mut catalog = catalog("least_busy", 8);
    if let Some(model) = catalog.models.get_mut("m") {
        model.queue.requests_max = 1000;
        for (number, deployment) in model.deployments.iter_mut().enumerate() {
            deployment.version = Some(if number == 0 { "1" } else { "2" }.into());
        }
    }
    let mut fleet = Fleet::new();
    fleet.apply(&catalog, Now::ZERO);
    let Some(model) = fleet.model("m") else { return };
    let mut rng = Rng::seeded(1);
    let mut now = Now::from_millis(1);
    let wants = |version: &str| Facts { version: Some(version.into()), ..facts(model) };
    // The slots of the full deployment, and those who wait for one; none of them ends.
    let _flows: Vec<Flow> = (0..16 + waiting)
        .map(|_| {
            let mut flow = Flow::new(wants("1"), now);
            let _ = flow.step(&mut fleet, now, &mut rng, Input::Arrived);
            flow
        })
        .collect();
    let facts = wants("2");
    bencher.bench_local(|| {
        now = now + Duration::from_micros(10);
        drop(black_box(decide(&mut fleet, &facts, &[], now, &mut rng)));
    });
}
