//! Scenarios: a configuration, its traffic, what goes wrong, and what must hold all the same. One file each.

use std::collections::BTreeMap;

use pointsman_routing::Catalog;
use pointsman_settings::Sources;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::fault::{Fault, What};
use crate::world::{Capacity, Clients, LEFT_IN, Reload};
use crate::{Report, Spec, baseline, run};

/// Reloads of one run, at most.
const RELOADS_MAX: usize = 10_000;
/// Routers of one run, at most.
const ROUTERS_MAX: usize = 64;

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
    /// Others that are asked for as often.
    #[serde(default)]
    other_models: Vec<String>,
    /// Routers before the same deployments, each with a fleet of its own.
    #[serde(default = "one")]
    routers: usize,
    /// Who asks, and how.
    #[serde(default)]
    clients: Clients,
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
    /// How far times to first content are spread beside their prompts: the deviation of their logarithm.
    #[serde(default)]
    noise: f64,
    /// What deployments can do at once, whoever asks, by name.
    #[serde(default)]
    capacity: BTreeMap<String, Capacity>,
    /// Time between two health checks of every deployment by every router, seconds. 0: there are none.
    #[serde(default)]
    probe_every_s: f64,
    /// Configurations that take effect during the run.
    #[serde(default)]
    reloads: Vec<Reloads>,
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
    /// What the configurations say, read once.
    #[serde(skip)]
    read: (Catalog, Vec<Reload>),
}

/// A configuration that takes effect, once or again and again.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reloads {
    /// When, seconds.
    at_s: f64,
    /// Again after so many seconds. Not given: once.
    every_s: Option<f64>,
    /// Not again from then on, seconds. Not given: until nobody arrives any more.
    until_s: Option<f64>,
    /// The routers that take it, by their place from 0. Empty: all.
    #[serde(default)]
    routers: Vec<usize>,
    /// The configuration, as a Pointsman config file has it.
    config: String,
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
    /// Requests that failed or were refused while a deployment without a fault had room, and was not tried.
    failed_needlessly_max: Option<u64>,
    /// Requests that were refused without being told when to come back.
    refused_without_retry_after_max: Option<u64>,
    /// Failed attempts and failed health checks there are to be on the worst day, lest the scenario prove too little.
    unhealthy_signals_a_day_min: Option<u64>,
    /// Requests there are to be on the busiest day.
    requests_a_day_min: Option<u64>,
    /// Clients that are to leave in each phase of their requests.
    left_in_each_phase_min: Option<u64>,
    /// The 95th percentile of the time to first content while faults hold, as a share of that of round robin that
    /// learns nothing, with clients that come again when they are told to.
    p95_of_round_robin_max: Option<f64>,
    /// The same for the 99th percentile.
    p99_of_round_robin_max: Option<f64>,
    /// Requests that a faulty deployment gets until it is left alone, or the seconds that takes.
    detected: Option<Detected>,
    /// Requests that a slow deployment gets until that is known of it.
    slow_found: Option<SlowFound>,
    /// Times a day that a deployment was taken for slow that was not. Without `slow_found` none is.
    slow_alarms_per_day_max: Option<f64>,
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
struct SlowFound {
    requests_max: u64,
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

const fn one() -> usize {
    1
}

const fn tokens_in() -> u32 {
    500
}

const fn tokens_out() -> u32 {
    100
}

/// One figure that was looked at.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub what: String,
    /// What it came to.
    pub value: f64,
    /// What it must keep to.
    pub bound: f64,
    /// Whether the bound is the most; else it is the least.
    pub at_most: bool,
}

impl Figure {
    /// Whether it kept to its bound.
    pub fn held(&self) -> bool {
        if self.at_most { self.value <= self.bound } else { self.value >= self.bound }
    }
}

/// What a scenario came to.
#[derive(Debug)]
pub struct Verdict {
    /// The run.
    pub report: Report,
    /// All that was looked at.
    pub figures: Vec<Figure>,
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
        let mut scenario: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        scenario.read = (scenario.catalog()?, scenario.reloads()?);
        scenario.check()?;
        Ok(scenario)
    }

    /// A small world that all follows from a seed: the text of a scenario that draws from everything there is.
    pub fn random(seed: u64) -> String {
        crate::random::scenario(seed)
    }

    fn check(&self) -> Result<(), String> {
        let (first, reloads) = &self.read;
        let catalogs = || std::iter::once(first).chain(reloads.iter().map(|reload| &reload.catalog));
        let rates = self.rates.iter().map(|rate| rate.per_s);
        if self.rates.is_empty() || !rates.clone().all(|rate| rate > 0.0 && rate.is_finite()) {
            return Err("`rates` needs at least one, each above 0".to_owned());
        }
        if !(1..=ROUTERS_MAX).contains(&self.routers) {
            return Err(format!("`routers` must be 1 to {ROUTERS_MAX}"));
        }
        if !(self.probe_every_s >= 0.0 && self.probe_every_s.is_finite()) {
            return Err("`probe_every_s` must be 0 or above".to_owned());
        }
        let mut named = self.faults.iter().map(|fault| &fault.deployment).chain(self.capacity.keys());
        let known = |name: &String| {
            let mut models = catalogs().flat_map(|catalog| catalog.models.values());
            models.any(|model| model.deployments.iter().any(|one| *one.name == **name))
        };
        if let Some(name) = named.find(|name| !known(name)) {
            return Err(format!("no configuration has a deployment `{name}`"));
        }
        self.faults.iter().find_map(Fault::problem).map_or(Ok(()), Err)
    }

    fn catalog(&self) -> Result<Catalog, String> {
        let catalog = catalog(&self.config).map_err(|error| format!("config: {error}"))?;
        let mut asked = std::iter::once(&self.model).chain(&self.other_models);
        match asked.find(|model| !catalog.models.contains_key(model.as_str())) {
            Some(model) => Err(format!("its config has no model `{model}`")),
            None => Ok(catalog),
        }
    }

    fn reloads(&self) -> Result<Vec<Reload>, String> {
        let mut reloads = Vec::new();
        for (place, one) in self.reloads.iter().enumerate() {
            let catalog = catalog(&one.config).map_err(|error| format!("reloads[{place}]: {error}"))?;
            let every_s = one.every_s.unwrap_or(f64::INFINITY);
            if every_s <= 0.0 || every_s.is_nan() {
                return Err(format!("reloads[{place}]: `every_s` must be above 0"));
            }
            let until_s = one.until_s.unwrap_or(self.duration_s);
            let mut at_s = one.at_s;
            loop {
                reloads.push(Reload { at_s, routers: one.routers.clone(), catalog: catalog.clone() });
                at_s += every_s;
                if at_s >= until_s {
                    break;
                }
                if reloads.len() > RELOADS_MAX {
                    return Err(format!("more than {RELOADS_MAX} reloads"));
                }
            }
        }
        Ok(reloads)
    }

    fn spec(&self) -> Spec {
        Spec {
            model: self.model.clone(),
            other_models: self.other_models.clone(),
            routers: self.routers,
            clients: self.clients.clone(),
            capacity: self.capacity.clone(),
            probe_every_s: self.probe_every_s,
            reloads: self.read.1.clone(),
            requests: u64::MAX,
            duration_s: self.duration_s,
            rates: self.rates.clone(),
            tokens_in_mean: self.tokens_in_mean,
            tokens_out_mean: self.tokens_out_mean,
            first_content_base_ms: self.first_content_base_ms,
            noise: self.noise,
            batch: self.batch,
            refused_above_per_s: self.refused_above_per_s,
            leave_rate: self.leave_rate,
            error_rate: self.error_rate,
            faults: self.faults.clone(),
            ..Spec::default()
        }
    }

    /// Runs it and holds what came out to what must.
    pub fn run(&self, seed: u64) -> Verdict {
        let (catalog, spec) = (&self.read.0, self.spec());
        let report = run(catalog, &spec, seed);
        let broken = report.broken.clone();
        let mut verdict = Verdict { figures: Vec::new(), held: Vec::new(), broken, report };
        self.judge_users(&mut verdict);
        self.judge_worst(&mut verdict, &baseline::RoundRobin { catalog, spec: &spec, seed });
        self.judge_faults(&mut verdict);
        self.judge_slow(&mut verdict);
        verdict
    }

    fn judge_worst(&self, verdict: &mut Verdict, plain: &baseline::RoundRobin<'_>) {
        let must = &self.must;
        let bounds = [(0.95, must.p95_of_round_robin_max), (0.99, must.p99_of_round_robin_max)];
        for (share, bound) in bounds.into_iter().filter(|(_, bound)| bound.is_some()) {
            let ours = verdict.report.first_content_during(&self.faults, share);
            let theirs = plain.first_content_during(&self.faults, share);
            let what = format!("p{:.0} of first content during faults over round robin's", share * 100.0);
            verdict.at_most(&what, ours / theirs.max(1e-9), bound);
        }
    }

    fn judge_users(&self, verdict: &mut Verdict) {
        let report = verdict.report.clone();
        let must = &self.must;
        verdict.at_most("share of requests failed", report.failed_share(), must.failed_share_max);
        verdict.at_most(
            "attempts a request",
            report.attempts as f64 / report.requests.max(1) as f64,
            must.attempts_per_request_max,
        );
        let count = |bound: Option<u64>| bound.map(|bound| bound as f64);
        let needlessly = report.failed_needlessly as f64;
        verdict.at_most(
            "requests failed that another deployment could have served",
            needlessly,
            count(must.failed_needlessly_max),
        );
        verdict.at_most(
            "requests refused without retry-after",
            report.refused_without_retry_after as f64,
            count(must.refused_without_retry_after_max),
        );
        let day = report.worst_day;
        verdict.at_least(
            "unhealthy signals on the worst day",
            day.unhealthy_signals as f64,
            count(must.unhealthy_signals_a_day_min),
        );
        let busiest = count(must.requests_a_day_min);
        verdict.at_least("requests on the busiest day", day.requests as f64, busiest);
        let phases = LEFT_IN.iter().map(|phase| report.left_in.get(phase.name()).copied().unwrap_or(0));
        let least = phases.min().unwrap_or(0) as f64;
        verdict.at_least("clients that left in each phase", least, count(must.left_in_each_phase_min));
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
                if held {
                    verdict.held.push(text);
                } else {
                    verdict.broken.push(text);
                }
                // Either of the two will do, so the one that holds is the figure.
                let (value, bound) = (requests as f64, detected.requests_max as f64);
                let by_requests = Figure {
                    what: format!("requests until `{name}` was left alone"),
                    value,
                    bound,
                    at_most: true,
                };
                let (value, bound) = (seconds, detected.seconds_max);
                let by_seconds = Figure {
                    what: format!("seconds until `{name}` was left alone"),
                    value,
                    bound,
                    at_most: true,
                };
                verdict.figures.push(if by_requests.held() { by_requests } else { by_seconds });
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

impl Scenario {
    fn judge_slow(&self, verdict: &mut Verdict) {
        let mut to_be_found = Vec::new();
        if let Some(SlowFound { requests_max }) = self.must.slow_found {
            to_be_found.extend(self.faults.iter().filter(|fault| matches!(fault.what, What::Slow(_))));
            for fault in &to_be_found {
                let requests =
                    verdict.report.slow_found(fault).map_or(f64::INFINITY, |requests| requests as f64);
                let what = format!("requests to `{}` until it was known to be slow", fault.deployment);
                verdict.at_most(&what, requests, Some(requests_max as f64));
            }
        }
        let days = verdict.report.span_s / 86_400.0;
        let alarms = verdict.report.slow_alarms(&to_be_found);
        // A run that is shorter than a day has had less time to be wrong in, but one alarm is one.
        let alarms_a_day = alarms as f64 / days.max(1.0);
        verdict.at_most("false alarms of slowness a day", alarms_a_day, self.must.slow_alarms_per_day_max);
    }
}

impl Verdict {
    fn at_most(&mut self, what: &str, value: f64, bound: Option<f64>) {
        self.judge(what, value, bound, true);
    }

    fn at_least(&mut self, what: &str, value: f64, bound: Option<f64>) {
        self.judge(what, value, bound, false);
    }

    fn judge(&mut self, what: &str, value: f64, bound: Option<f64>, at_most: bool) {
        let Some(bound) = bound else { return };
        let text = format!("{what}: {value:.4} (at {} {bound})", if at_most { "most" } else { "least" });
        let figure = Figure { what: what.to_owned(), value, bound, at_most };
        (if figure.held() { &mut self.held } else { &mut self.broken }).push(text);
        self.figures.push(figure);
    }
}

/// What a configuration has.
fn catalog(config: &str) -> Result<Catalog, String> {
    let sources = Sources { env: &|_| None, file: &|_| Err("a scenario reads no files".to_owned()) };
    let config = pointsman_settings::parse(config, &sources).map_err(|found| {
        let found: Vec<String> =
            found.iter().map(|one| format!("line {}: {}", one.line, one.problem.message)).collect();
        found.join("; ")
    })?;
    Ok(config.catalog())
}
