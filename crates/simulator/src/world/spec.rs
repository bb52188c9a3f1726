//! What a world is like.

use std::collections::BTreeMap;

use pointsman_routing::Catalog;
use serde::Deserialize;

use crate::batch::Batch;
use crate::fault::Fault;
use crate::scenario::Rate;

/// What the world is like.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The model that is asked for.
    pub model: String,
    /// Others that are asked for as often.
    pub other_models: Vec<String>,
    /// Requests in all, at most.
    pub requests: u64,
    /// Time after which no more arrive, seconds.
    pub duration_s: f64,
    /// Requests a second, each from its moment on, at random moments (Poisson). At least one.
    pub rates: Vec<Rate>,
    /// Routers, each with a fleet of its own, before the same deployments. Each request comes to one of them by chance.
    pub routers: usize,
    /// Who asks, and how.
    pub clients: Clients,
    /// Prompt tokens on average.
    pub tokens_in_mean: u32,
    /// Output tokens on average.
    pub tokens_out_mean: u32,
    /// Time before the first content that does not depend on the prompt, milliseconds.
    pub first_content_base_ms: u64,
    /// Time per prompt token, microseconds.
    pub prefill_us_per_token: u64,
    /// Time per output token, microseconds.
    pub decode_us_per_token: u64,
    /// What deployments can do at once, whoever asks; those that are not named have no limit of their own.
    pub capacity: BTreeMap<String, Capacity>,
    /// How engines slow down with what is in flight, if they do.
    pub batch: Option<Batch>,
    /// Requests a second above which a deployment answers 429 with a `retry-after` of one second, if it does.
    pub refused_above_per_s: Option<f64>,
    /// How far times to first content are spread beside their prompts: the deviation of their logarithm.
    pub noise: f64,
    /// Share of attempts that fail with 500, whatever else goes wrong.
    pub error_rate: f64,
    /// Share of clients that leave.
    pub leave_rate: f64,
    /// Time between two health checks of every deployment by every router, seconds. 0: there are none.
    pub probe_every_s: f64,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Configurations that take effect during the run.
    pub reloads: Vec<Reload>,
}

/// Who asks, and how.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clients {
    /// Tenants; each request is of one of them by chance.
    pub tenants: u64,
    /// Share of requests of the batch lane.
    pub batch_share: f64,
    /// Share of requests whose answer is not streamed.
    pub whole_share: f64,
    /// Share of those who leave that do so in some phase of their request, each phase as often; the others leave at some
    /// moment.
    pub leave_in_phase_share: f64,
    /// Time that clients give a request, seconds. Not given: as long as the model's policy has it.
    pub deadline_s: Option<f64>,
    /// Tags that one in three requests asks for, one of them each.
    pub tags: Vec<String>,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            tenants: 1,
            batch_share: 0.0,
            whole_share: 0.0,
            leave_in_phase_share: 0.5,
            deadline_s: None,
            tags: Vec::new(),
        }
    }
}

/// What a deployment can do at once, whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Capacity {
    /// Requests it works on at the same time.
    pub slots: usize,
    /// Requests that wait in it; one more is answered with 503.
    pub waiting_max: usize,
}

/// A configuration that takes effect during the run.
#[derive(Debug, Clone)]
pub struct Reload {
    /// When, seconds.
    pub at_s: f64,
    /// The routers that take it, by their place from 0. Empty: all.
    pub routers: Vec<usize>,
    /// What exists from then on.
    pub catalog: Catalog,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            model: String::new(),
            other_models: Vec::new(),
            requests: 10_000,
            duration_s: f64::INFINITY,
            rates: vec![Rate { from_s: 0.0, per_s: 50.0 }],
            routers: 1,
            clients: Clients::default(),
            tokens_in_mean: 500,
            tokens_out_mean: 100,
            first_content_base_ms: 0,
            prefill_us_per_token: 100,
            decode_us_per_token: 5_000,
            capacity: BTreeMap::new(),
            batch: None,
            refused_above_per_s: None,
            noise: 0.0,
            error_rate: 0.0,
            leave_rate: 0.0,
            probe_every_s: 0.0,
            faults: Vec::new(),
            reloads: Vec::new(),
        }
    }
}
