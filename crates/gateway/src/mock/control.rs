//! What the mock does, and what it saw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pointsman_routing::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// How the mock behaves. Rates are shares of requests, from 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Requests it works on at a time; more wait, as in an engine. 0: unlimited
    #[arg(long, default_value_t = 4)]
    pub slots: u32,
    /// Answer 503 instead of letting requests wait for a slot
    #[arg(long)]
    pub refuse_when_full: bool,
    /// Prompt tokens a second (four bytes count as a token). 0: no time
    #[arg(long, default_value_t = 8000.0)]
    pub prefill_tokens_per_s: f64,
    /// Output tokens a second. 0: no time
    #[arg(long, default_value_t = 50.0)]
    pub decode_tokens_per_s: f64,
    /// Milliseconds before the first token, beside the prefill
    #[arg(long, default_value_t = 20)]
    pub first_token_ms: u64,
    /// Tokens of an answer, unless the request asks for fewer
    #[arg(long, default_value_t = 32)]
    pub tokens: u32,
    /// Share of requests answered with an error
    #[arg(long, default_value_t = 0.0)]
    pub error_rate: f64,
    /// The status of those errors
    #[arg(long, default_value_t = 500)]
    pub error_status: u16,
    /// Share of requests answered with 429 and retry-after
    #[arg(long, default_value_t = 0.0)]
    pub rate_429: f64,
    /// Share of requests answered with 503 and retry-after
    #[arg(long, default_value_t = 0.0)]
    pub rate_503: f64,
    /// The seconds that retry-after says
    #[arg(long, default_value_t = 1)]
    pub retry_after_s: u64,
    /// Share of streams that break off half-way
    #[arg(long, default_value_t = 0.0)]
    pub cut_rate: f64,
    /// Share of streams that stop half-way and stay open
    #[arg(long, default_value_t = 0.0)]
    pub stall_rate: f64,
    /// The key it wants; none: any
    #[arg(long)]
    pub api_key: Option<String>,
    /// What its chance begins with
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            slots: 4,
            refuse_when_full: false,
            prefill_tokens_per_s: 8000.0,
            decode_tokens_per_s: 50.0,
            first_token_ms: 20,
            tokens: 32,
            error_rate: 0.0,
            error_status: 500,
            rate_429: 0.0,
            rate_503: 0.0,
            retry_after_s: 1,
            cut_rate: 0.0,
            stall_rate: 0.0,
            api_key: None,
            seed: 0,
        }
    }
}

/// What one request is answered with, instead of what the settings say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scripted {
    /// Milliseconds before anything is said.
    pub delay_ms: u64,
    /// A status other than 200.
    pub status: Option<u16>,
    /// The `retry-after` header.
    pub retry_after: Option<String>,
    /// Further headers.
    pub headers: BTreeMap<String, String>,
    /// The body in pieces, instead of an answer of the model.
    pub pieces: Option<Vec<String>>,
    /// Milliseconds between the pieces.
    pub piece_delay_ms: u64,
    /// Break the connection off after so many pieces of the body.
    pub cut_after: Option<usize>,
    /// Say nothing more after so many pieces of the body, and stay open.
    pub hang_after: Option<usize>,
    /// Close the connection without an answer.
    pub close: bool,
    /// Say nothing at all, and stay open.
    pub hang: bool,
}

/// What the mock saw.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// Requests for inference.
    pub requests: u64,
    /// Of those, under way, waiting ones included.
    pub inflight: u64,
    /// Requests that hold a slot.
    pub slots_busy: u64,
    /// Requests whose client left before the end.
    pub cancelled: u64,
    /// Connections that are open.
    pub connections: u64,
    /// Connections so far.
    pub connections_total: u64,
    /// Requests by path, all of them.
    pub paths: BTreeMap<String, u64>,
    /// The head of the last request for inference.
    pub last_headers: BTreeMap<String, String>,
    /// Its body, at most 64 KiB.
    pub last_body: String,
}

/// The mock's settings, script and counts.
pub struct Control {
    pub(super) models: Vec<String>,
    inner: Mutex<Inner>,
    /// Told when a count changes.
    pub(super) changed: Notify,
}

pub(super) struct Inner {
    pub(super) settings: Settings,
    pub(super) script: VecDeque<Scripted>,
    pub(super) stats: Stats,
    pub(super) rng: Rng,
}

impl Control {
    pub(super) fn new(models: Vec<String>, settings: Settings) -> Self {
        let rng = Rng::seeded(settings.seed);
        let inner = Inner { settings, script: VecDeque::new(), stats: Stats::default(), rng };
        Self { models, inner: Mutex::new(inner), changed: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes settings.
    pub fn set(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.lock().settings);
        self.changed.notify_waiters();
    }

    /// Answers the next requests so, in this order.
    pub fn script(&self, script: impl IntoIterator<Item = Scripted>) {
        self.lock().script.extend(script);
    }

    /// What was seen so far.
    pub fn stats(&self) -> Stats {
        self.lock().stats.clone()
    }

    /// Waits until what was seen fits.
    pub async fn until(&self, fits: impl Fn(&Stats) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if fits(&self.lock().stats) {
                return;
            }
            changed.await;
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.lock().stats);
        self.changed.notify_waiters();
    }

    /// Changes settings as a client asks: an object of settings, and perhaps a `script`.
    pub(super) fn change(&self, body: &[u8]) -> Result<(), String> {
        let mut asked: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let script = asked.remove("script").map(serde_json::from_value::<Vec<Scripted>>);
        let script = script.transpose().map_err(|error| format!("script: {error}"))?;
        let mut inner = self.lock();
        let mut settings = serde_json::to_value(&inner.settings).map_err(|error| error.to_string())?;
        for (key, value) in asked {
            settings[key] = value;
        }
        inner.settings = serde_json::from_value(settings).map_err(|error| error.to_string())?;
        inner.script.extend(script.into_iter().flatten());
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }
}
