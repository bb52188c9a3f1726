//! What the mock does, and what it saw.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http::{HeaderName, HeaderValue};
use pointsman_routing::Rng;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::engine::{Metrics, Spelling};
use super::kept::Answers;

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
    /// Prompt tokens a second (four bytes of the body count as a token). 0: no time
    #[arg(long, default_value_t = 8000.0)]
    pub prefill_tokens_per_s: f64,
    /// Output tokens a second. 0: no time
    #[arg(long, default_value_t = 50.0)]
    pub decode_tokens_per_s: f64,
    /// Milliseconds before the first token, beside the prefill
    #[arg(long, default_value_t = 20)]
    pub first_token_ms: u64,
    /// Tokens of an answer, unless the request says how many (`max_tokens` and its like)
    #[arg(long, default_value_t = 32)]
    pub tokens: u32,
    /// Share of requests answered with an error
    #[arg(long, default_value_t = 0.0)]
    pub error_rate: f64,
    /// The status of those errors, from 400 to 599
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
    /// Whose spellings it tells its load in
    #[arg(long, value_enum, default_value_t)]
    pub engine: Spelling,
    /// What is wrong with what it tells of its load
    #[arg(long, value_enum, default_value_t)]
    pub metrics: Metrics,
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
            engine: Spelling::default(),
            metrics: Metrics::default(),
            api_key: None,
            seed: 0,
        }
    }
}

/// Speeds that make sense, tokens a second; 0 takes no time at all.
const TOKENS_PER_S: std::ops::RangeInclusive<f64> = 0.001..=1e9;
/// Statuses that are errors.
const ERROR_STATUS: std::ops::RangeInclusive<u16> = 400..=599;
/// Statuses an answer can have.
const STATUS: std::ops::RangeInclusive<u16> = 200..=599;

impl Settings {
    /// Says which setting has a value that makes no sense, and what would.
    ///
    /// # Errors
    /// The first such setting, in words.
    pub fn check(&self) -> Result<(), String> {
        for (name, share) in [
            ("error_rate", self.error_rate),
            ("rate_429", self.rate_429),
            ("rate_503", self.rate_503),
            ("cut_rate", self.cut_rate),
            ("stall_rate", self.stall_rate),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("`{name}` is {share}; it is a share of requests, from 0 to 1"));
            }
        }
        for (name, speed) in [
            ("prefill_tokens_per_s", self.prefill_tokens_per_s),
            ("decode_tokens_per_s", self.decode_tokens_per_s),
        ] {
            if speed != 0.0 && !TOKENS_PER_S.contains(&speed) {
                let (min, max) = (TOKENS_PER_S.start(), TOKENS_PER_S.end());
                return Err(format!("`{name}` is {speed}; it is 0 for no time, or from {min} to {max}"));
            }
        }
        if !ERROR_STATUS.contains(&self.error_status) {
            let (status, min, max) = (self.error_status, ERROR_STATUS.start(), ERROR_STATUS.end());
            return Err(format!("`error_status` is {status}; an error is from {min} to {max}"));
        }
        Ok(())
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

impl Scripted {
    fn check(&self) -> Result<(), String> {
        if let Some(status) = self.status.filter(|status| !STATUS.contains(status)) {
            return Err(format!("`status` is {status}; it is from {} to {}", STATUS.start(), STATUS.end()));
        }
        let after = self.retry_after.iter().map(|after| ("retry-after", after));
        for (name, value) in self.headers.iter().map(|(name, value)| (name.as_str(), value)).chain(after) {
            if name.parse::<HeaderName>().is_err() || HeaderValue::try_from(value).is_err() {
                return Err(format!("`{name}: {value}` is no header"));
            }
        }
        Ok(())
    }
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
    pub(super) answers: Answers,
    /// When it was started, seconds since the Unix epoch.
    pub(super) started_s: u64,
}

impl Control {
    pub(super) fn new(models: Vec<String>, settings: Settings) -> Self {
        let rng = Rng::seeded(settings.seed);
        let started_s = crate::clock::unix_ms() / 1000;
        let (script, answers) = (VecDeque::new(), Answers::default());
        let inner = Inner { settings, script, stats: Stats::default(), rng, answers, started_s };
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

    /// The settings as they are.
    pub fn settings(&self) -> Settings {
        self.lock().settings.clone()
    }

    /// Changes settings as a client asks: an object of settings, and perhaps a `script`. All of it, or nothing.
    pub(super) fn change(&self, body: &[u8]) -> Result<(), String> {
        let mut asked: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body)
            .map_err(|error| format!("send a JSON object of settings: {error}"))?;
        let script = asked.remove("script").map(serde_json::from_value::<Vec<Scripted>>);
        let script = script.transpose().map_err(|error| format!("script: {error}"))?.unwrap_or_default();
        for (at, one) in script.iter().enumerate() {
            one.check().map_err(|error| format!("script[{at}]: {error}"))?;
        }
        let mut inner = self.lock();
        let mut settings = inner.settings.clone();
        let reseed = asked.contains_key("seed");
        for (key, value) in asked {
            let mut changed = serde_json::to_value(&settings).map_err(|error| error.to_string())?;
            changed[&key] = value;
            settings = serde_json::from_value(changed).map_err(|error| format!("`{key}`: {error}"))?;
        }
        settings.check()?;
        if reseed {
            inner.rng = Rng::seeded(settings.seed);
        }
        inner.settings = settings;
        inner.script.extend(script);
        drop(inner);
        self.changed.notify_waiters();
        Ok(())
    }
}
