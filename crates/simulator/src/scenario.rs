//! Scenarios: a configuration, its traffic, what goes wrong, and what must hold all the same. One file each.

use pointsman_routing::Catalog;
use pointsman_routing::strategy::StrategySpec;
use pointsman_settings::Sources;
use serde::Deserialize;

use crate::engine::Batch;
use crate::fault::Fault;
use crate::{Report, Spec, run};

/// A scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is about, in a sentence.
    pub about: String,
    /// The configuration, as a Pointsman config file has it.
    config: String,
    /// The model that is asked for.
    model: String,
    /// For how long requests arrive, seconds.
    duration_s: f64,
    /// Requests a second, each from its moment on.
    rates: Vec<Rate>,
    /// Prompt tokens on average.
    #[serde(default = "tokens_in")]
    tokens_in_mean: u32,
    /// Output tokens on average.
    #[serde(default = "tokens_out")]
    tokens_out_mean: u32,
    /// Time before the first content that does not depend on the prompt, milliseconds.
    #[serde(default)]
    first_content_base_ms: u64,
    /// How engines slow down with what is in flight.
    #[serde(default)]
    batch: Option<Batch>,
    /// Requests a second above which a deployment answers 429.
    #[serde(default)]
    refused_above_per_s: Option<f64>,
    /// Share of clients that leave.
    #[serde(default)]
    leave_rate: f64,
    /// Share of attempts that fail everywhere.
    #[serde(default)]
    error_rate: f64,
    /// What goes wrong.
    #[serde(default)]
    faults: Vec<Fault>,
    /// What must hold.
    #[serde(default)]
    must: Must,
}

/// How many requests come from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// From then on, seconds.
    pub from_s: f64,
    /// Requests a second, at random moments (Poisson).
    pub per_s: f64,
}

/// What must hold at the end of a run; what is not given is not looked at.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Must {
    /// Share of requests that users saw fail.
    failed_share_max: Option<f64>,
    /// The 95th percentile of the time to first content while faults hold, as a share of that of round robin that
    /// learns nothing.
    p95_of_round_robin_max: Option<f64>,
    /// Requests that a faulty deployment gets until it is left alone, or the seconds that takes.
    detected: Option<Detected>,
    /// Share of its traffic before that a deployment has again 30 seconds after its fault.
    traffic_back_min: Option<f64>,
    /// Attempts for each request.
    attempts_per_request_max: Option<f64>,
    /// Completed requests a second between two moments.
    goodput: Vec<Goodput>,
    /// Changes of health for each deployment and hour.
    health_changes_per_hour_max: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detected {
    requests_max: u64,
    seconds_max: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct Goodput {
    from_s: f64,
    until_s: f64,
    per_s_min: f64,
    /// Only those count whose first content came within this time of their arrival, milliseconds.
    #[serde(default = "any_time")]
    first_content_objective_ms: f64,
}

const fn any_time() -> f64 {
    f64::INFINITY
}

const fn tokens_in() -> u32 {
    500
}

const fn tokens_out() -> u32 {
    100
}

/// What a scenario came to.
#[derive(Debug)]
pub struct Verdict {
    /// The run.
    pub report: Report,
    /// What was looked at, with the figure and its bound.
    pub held: Vec<String>,
    /// The same for what did not hold.
    pub broken: Vec<String>,
}

impl Scenario {
    /// Reads a scenario from the text of its file.
    ///
    /// # Errors
    /// Says what is wrong with the file or with the configuration in it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scenario: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        scenario.catalog()?;
        let rates = scenario.rates.iter().map(|rate| rate.per_s);
        if scenario.rates.is_empty() || !rates.clone().all(|rate| rate > 0.0 && rate.is_finite()) {
            return Err("`rates` needs at least one, each above 0".to_owned());
        }
        Ok(scenario)
    }

    fn catalog(&self) -> Result<Catalog, String> {
        let sources = Sources { env: &|_| None, file: &|_| Err("a scenario reads no files".to_owned()) };
        let config = pointsman_settings::parse(&self.config, &sources).map_err(|found| {
            let found: Vec<String> =
                found.iter().map(|one| format!("config:{}: {}", one.line, one.problem.message)).collect();
            found.join("; ")
        })?;
        if !config.models.contains_key(self.model.as_str()) {
            return Err(format!("its config has no model `{}`", self.model));
        }
        Ok(config.catalog())
    }

    fn spec(&self) -> Spec {
        Spec {
            model: self.model.clone(),
            requests: u64::MAX,
            duration_s: self.duration_s,
            rates: self.rates.clone(),
            tokens_in_mean: self.tokens_in_mean,
            tokens_out_mean: self.tokens_out_mean,
            first_content_base_ms: self.first_content_base_ms,
            batch: self.batch,
            refused_above_per_s: self.refused_above_per_s,
            leave_rate: self.leave_rate,
            error_rate: self.error_rate,
            faults: self.faults.clone(),
            ..Spec::default()
        }
    }

    /// Runs it and holds what came out to what must.
    ///
    /// # Errors
    /// The same as [`Scenario::parse`].
    pub fn run(&self, seed: u64) -> Result<Verdict, String> {
        let catalog = self.catalog()?;
        let report = run(&catalog, &self.spec(), seed);
        let mut verdict = Verdict { held: Vec::new(), broken: Vec::new(), report };
        self.judge_users(&mut verdict, &catalog, seed);
        self.judge_faults(&mut verdict);
        Ok(verdict)
    }

    fn judge_users(&self, verdict: &mut Verdict, catalog: &Catalog, seed: u64) {
        let report = verdict.report.clone();
        let must = &self.must;
        verdict.at_most("share of requests failed", report.failed_share(), must.failed_share_max);
        verdict.at_most(
            "attempts a request",
            report.attempts as f64 / report.requests.max(1) as f64,
            must.attempts_per_request_max,
        );
        if must.p95_of_round_robin_max.is_some() {
            let plain = run(&plain(catalog, &self.model), &self.spec(), seed);
            let share = report.p95_during(&self.faults) / plain.p95_during(&self.faults).max(1e-9);
            verdict.at_most(
                "p95 of first content during faults over round robin's",
                share,
                must.p95_of_round_robin_max,
            );
        }
        for goodput in &must.goodput {
            let Goodput { from_s, until_s, first_content_objective_ms: objective_ms, .. } = *goodput;
            let per_s = report.completed_per_s(from_s, until_s, objective_ms);
            let within = if objective_ms.is_finite() {
                format!(", begun within {objective_ms} ms,")
            } else {
                String::new()
            };
            let what = format!("completed a second{within} from {from_s} to {until_s} s");
            verdict.at_least(&what, per_s, Some(goodput.per_s_min));
        }
        let hours = report.span_s / 3600.0;
        let most = report.deployments.values().map(|one| one.health_changes).max().unwrap_or(0);
        verdict.at_most("changes of health an hour", most as f64 / hours, must.health_changes_per_hour_max);
    }

    fn judge_faults(&self, verdict: &mut Verdict) {
        for fault in &self.faults {
            let name = &fault.deployment;
            if let Some(detected) = self.must.detected {
                let (requests, seconds) = verdict.report.detection(fault);
                let text = format!(
                    "`{name}` was left alone after {requests} requests or {seconds:.1} s (at most {} or {})",
                    detected.requests_max, detected.seconds_max
                );
                let held = requests <= detected.requests_max || seconds <= detected.seconds_max;
                if held { verdict.held.push(text) } else { verdict.broken.push(text) }
            }
            let back = verdict.report.traffic_back(fault);
            verdict.at_least(
                &format!("share of its traffic that `{name}` has again"),
                back,
                self.must.traffic_back_min,
            );
        }
    }
}

impl Verdict {
    fn at_most(&mut self, what: &str, figure: f64, bound: Option<f64>) {
        let Some(bound) = bound else { return };
        let text = format!("{what}: {figure:.4} (at most {bound})");
        if figure <= bound { self.held.push(text) } else { self.broken.push(text) }
    }

    fn at_least(&mut self, what: &str, figure: f64, bound: Option<f64>) {
        let Some(bound) = bound else { return };
        let text = format!("{what}: {figure:.4} (at least {bound})");
        if figure >= bound { self.held.push(text) } else { self.broken.push(text) }
    }
}

/// The same fleet as most would have it: round robin that learns nothing.
fn plain(catalog: &Catalog, model: &str) -> Catalog {
    let mut plain = catalog.clone();
    if let Some(model) = plain.models.get_mut(model) {
        model.strategy = StrategySpec::from_value("round_robin".into()).unwrap_or_default();
        model.tier_strategies.clear();
        model.health.failures = u32::MAX;
        model.health.connect_failures = u32::MAX;
        model.health.failed_rate = 1.0;
    }
    plain
}
