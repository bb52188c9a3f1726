//! Fleets and requests in a few words.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "every test file uses a part of this"
)]

use std::time::Duration;

use pointsman_routing::catalog::{
    Capabilities, Catalog, CredentialSpec, DeploymentSpec, HealthSpec, ModelSpec, Name, ProviderSpec,
    QueueSpec, RegionSpec, TimeoutSpec,
};
use pointsman_routing::decision::{Decision, Outcome};
use pointsman_routing::facts::Lane;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, Flow, Input, Usage};
use pointsman_routing::strategy::StrategySpec;
use pointsman_routing::{Facts, Failure, FailureClass, Fleet, Now, Rng};

/// A catalog with the model `m`: a deployment a line, such as `a tier=2 weight=3 slots=1 region=eu tag=x keys=2 paid`.
/// Every deployment has a provider of its own name, unless it says `at=provider`; its keys have the quota domain of
/// `domain=`, the first of them is kept for live requests with `for_live`, and itself has that of `own_domain=`.
pub fn catalog(strategy: &str, lines: &[&str]) -> Catalog {
    let mut catalog = Catalog::default();
    let mut deployments = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let name = words.next().expect("a name");
        let text =
            |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let number = |key: &str| text(key).and_then(|text| text.parse().ok());
        let credentials = (0..number("keys").unwrap_or(0)).map(|at| CredentialSpec {
            lane: if line.contains("for_live") && at == 0 { Some(Lane::Live) } else { None },
            name: format!("k{at}").into(),
            rpm: None,
            tpm: None,
            quota_domain: text("domain").map(Name::from),
            revision: 0,
        });
        let provider = text("at").unwrap_or(name);
        catalog
            .providers
            .entry(provider.into())
            .or_insert_with(|| ProviderSpec { credentials: credentials.collect() });
        let all = Capabilities::NAMES.into_iter().fold(Capabilities::NONE, |all, (one, _)| all.with(one));
        deployments.push(DeploymentSpec {
            name: name.into(),
            provider: provider.into(),
            version: text("version").map(Name::from),
            weight: number("weight").unwrap_or(1),
            tier: number("tier").unwrap_or(1),
            slots: number("slots"),
            slots_learnt: false,
            tokens_inflight_max: number("tokens").map(u64::from),
            pool: text("pool").map(Name::from),
            count_foreign: line.contains("foreign"),
            limiter: Default::default(),
            cache_tokens: None,
            region: text("region").map(Name::from),
            quota_domain: text("own_domain").map(Name::from),
            tags: text("tag").map(Name::from).into_iter().collect(),
            arm: text("arm").map(Name::from),
            capabilities: if line.contains("deaf") { Capabilities::EMBEDDINGS } else { all },
            context_tokens_max: number("context"),
            output_tokens_max: None,
            free: !line.contains("paid"),
            draining: line.contains("draining"),
            drain: Duration::from_millis(number("drain").map_or(60_000, u64::from)),
        });
    }
    let model = ModelSpec {
        strategy: StrategySpec::from_value(strategy.into()).expect("a strategy"),
        tier_strategies: Default::default(),
        split: None,
        sticky: None,
        region: RegionSpec::default(),
        queue: QueueSpec {
            requests_max: 4,
            batch: Default::default(),
            target: Duration::from_millis(200),
            wait_max: Duration::from_secs(10),
        },
        preempt: None,
        timeouts: timeouts(),
        attempts_max: 3,
        health: HealthSpec { failures: 3, ..HealthSpec::default() },
        retry: Default::default(),
        hedge: None,
        deployments,
    };
    catalog.models.insert("m".into(), model);
    catalog
}

fn timeouts() -> TimeoutSpec {
    TimeoutSpec {
        connect: Duration::from_secs(3),
        first_content: Duration::from_secs(20),
        answer: Duration::from_secs(20),
        idle: Duration::from_secs(5),
        total: Duration::from_secs(60),
        header_hold: Duration::from_secs(15),
    }
}

/// A fleet with a clock and a generator.
pub struct World {
    pub fleet: Fleet,
    pub rng: Rng,
    pub now: Now,
}

impl World {
    pub fn new(catalog: &Catalog) -> Self {
        let mut fleet = Fleet::new();
        fleet.apply(catalog, Now::ZERO);
        Self { fleet, rng: Rng::seeded(7), now: Now::ZERO }
    }

    pub fn facts(&self) -> Facts {
        Facts {
            model: self.fleet.model("m").expect("the model m"),
            version: None,
            needs: Capabilities::CHAT,
            tokens_in_estimate: 100,
            tokens_in_min: 100,
            tokens_out_max: Some(100),
            stream: true,
            lane: Lane::Live,
            tenant: "t".into(),
            tenant_hash: 1,
            session_hash: None,
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

    pub fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
    }

    pub fn step(&mut self, flow: &mut Flow, input: Input) -> Action {
        flow.step(&mut self.fleet, self.now, &mut self.rng, input)
    }

    /// A new request, and what is to be done with it.
    pub fn arrive(&mut self) -> (Flow, Action) {
        self.arrive_with(self.facts())
    }

    pub fn arrive_with(&mut self, facts: Facts) -> (Flow, Action) {
        let mut flow = Flow::new(facts, self.now);
        let action = self.step(&mut flow, Input::Arrived);
        (flow, action)
    }

    /// Carries a request that was forwarded to its good end.
    pub fn finish(&mut self, flow: &mut Flow) {
        for input in [Input::Connected, Input::Headers, Input::FirstContent, Input::Done(Usage::default())] {
            let _ = self.step(flow, input);
        }
    }

    /// Who waits no more.
    pub fn woken(&mut self) -> Vec<u64> {
        let mut out = Default::default();
        self.fleet.drain_woken(&mut out);
        out.iter().map(|ticket| ticket.0).collect()
    }
}

/// Where a request is to be sent.
pub fn sent(action: &Action) -> Option<&str> {
    match action {
        Action::Forward(choice) | Action::Hedge(choice) => Some(&choice.name),
        Action::Wait
        | Action::Yield
        | Action::DropHedge
        | Action::Promote
        | Action::RelayHedge
        | Action::Relay
        | Action::Reject(_)
        | Action::Truncate(_)
        | Action::Finish => None,
    }
}

/// Where a decision sends.
pub fn chosen(decision: &Decision) -> String {
    match &decision.outcome {
        Outcome::Chosen(choice) => choice.name.to_string(),
        Outcome::Queued { .. } => "queued".to_owned(),
        Outcome::Rejected { why, .. } => why.name().to_owned(),
    }
}

pub fn failure(class: FailureClass) -> Failure {
    Failure { class, processed: Processed::Maybe, status: None, retry_after: None }
}

pub fn failed(class: FailureClass, processed: Processed, retry_after_s: Option<u64>) -> Input {
    Input::Failed(Failure {
        class,
        processed,
        status: None,
        retry_after: retry_after_s.map(Duration::from_secs),
    })
}
