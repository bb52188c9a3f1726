//! What engines say of themselves, in all spellings: bytes in, a [`Reading`] out.
//!
//! One file per engine. Most are a table: which quantity has which names, the newest first, and where several series
//! say one quantity, which of them are the same ranks of a group and which are to be added up. A colon and an underscore
//! in a name are the same, since exporters on the way change one into the other.
//!
//! What is not said stays `None`: a metric that was renamed must never read as 0.

pub mod kv_events;
mod llama_cpp;
mod ollama;
pub mod prometheus;
mod sglang;
mod table;
mod tensorrt_llm;
mod tgi;
mod triton;
mod vllm;

use std::fmt;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// The greatest number of requests that is believed.
pub const REQUESTS_MAX: u32 = 1_000_000;
/// The greatest number of tokens that is believed.
const TOKENS_MAX: f64 = 1e15;

/// An engine, by how it speaks of itself.
pub struct Family {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Whether it says how many requests it works on at most.
    pub tells_slots: bool,
    /// Whether it can publish the events of its KV cache.
    pub publishes: bool,
    /// What it is asked for.
    pub asks: &'static [Ask],
}

/// Something an engine is asked for by GET.
pub struct Ask {
    /// Where, from the root of its host.
    pub path: &'static str,
    /// Whether it is the page of metrics, which may be elsewhere by configuration.
    pub metrics: bool,
    /// Whether it hardly ever changes and is asked for at first and now and then.
    pub rarely: bool,
    /// What an answer has to say; what is not in it was renamed or taken away.
    pub expected: &'static [Signal],
    read: Read,
}

type Read = fn(&[u8], &str) -> Result<Reading, Misread>;

impl Ask {
    /// The page of metrics.
    const fn page(path: &'static str, expected: &'static [Signal], read: Read) -> Self {
        Self { path, metrics: true, rarely: false, expected, read }
    }

    /// What the engine was started with.
    const fn once(path: &'static str, read: Read) -> Self {
        Self { path, metrics: false, rarely: true, expected: &[], read }
    }

    /// What the answer says of the model with this name upstream.
    pub fn read(&self, answer: &[u8], model: &str) -> Result<Reading, Misread> {
        (self.read)(answer, model)
    }
}

/// What routing goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Requests in work.
    Running,
    /// Requests that wait.
    Waiting,
    /// Share of the KV cache in use.
    KvUsed,
    /// How many requests it works on at most.
    Slots,
    /// Whether the model is in memory and awake.
    Awake,
}

/// Why an answer says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Misread {
    /// It is too long, or has too many samples.
    #[error("more than {} MiB or too many samples of one name", prometheus::TEXT_BYTES_MAX >> 20)]
    TooMuch,
    /// It should be JSON of a known shape.
    #[error("not the JSON it should be: {0}")]
    Json(String),
}

impl Misread {
    #[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` gives")]
    fn json(error: serde_json::Error) -> Self {
        // The text could quote a prompt, which old servers show with their slots; its place is enough.
        Self::Json(format!("{:?} at byte {}", error.classify(), error.column()))
    }
}

/// What an engine says of itself and one model. `None`: it did not say.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reading {
    /// Requests it works on.
    pub running: Option<u32>,
    /// Requests that wait in it.
    pub waiting: Option<u32>,
    /// Share of its KV cache in use, from 0 to 1.
    pub kv_used: Option<f32>,
    /// Tokens in its KV cache.
    pub kv_used_tokens: Option<u64>,
    /// Tokens that its KV cache holds.
    pub kv_capacity_tokens: Option<u64>,
    /// Requests it works on at the same time, at most.
    pub slots: Option<u32>,
    /// Whether the model is in memory and awake.
    pub awake: Option<bool>,
    /// Requests it has put back so far for want of room.
    pub preemptions: Option<u64>,
    /// Prompt tokens it has looked for in its prefix cache so far.
    pub prefix_tokens: Option<u64>,
    /// Of those, found.
    pub prefix_tokens_hit: Option<u64>,
    /// When it was started, seconds since the Unix epoch.
    pub started_s: Option<u64>,
}

impl Reading {
    /// Takes from `other` what this does not say.
    pub fn fill_from(&mut self, other: &Self) {
        self.running = self.running.or(other.running);
        self.waiting = self.waiting.or(other.waiting);
        self.kv_used = self.kv_used.or(other.kv_used);
        self.kv_used_tokens = self.kv_used_tokens.or(other.kv_used_tokens);
        self.kv_capacity_tokens = self.kv_capacity_tokens.or(other.kv_capacity_tokens);
        self.slots = self.slots.or(other.slots);
        self.awake = self.awake.or(other.awake);
        self.preemptions = self.preemptions.or(other.preemptions);
        self.prefix_tokens = self.prefix_tokens.or(other.prefix_tokens);
        self.prefix_tokens_hit = self.prefix_tokens_hit.or(other.prefix_tokens_hit);
        self.started_s = self.started_s.or(other.started_s);
    }

    /// Share of its KV cache in use, from its tokens where it gives no share.
    pub fn kv_share(&self) -> Option<f32> {
        self.kv_used.or_else(|| {
            let capacity = self.kv_capacity_tokens.filter(|tokens| *tokens > 0)?;
            Some((self.kv_used_tokens? as f64 / capacity as f64).clamp(0.0, 1.0) as f32)
        })
    }
}

/// A count that may be anything. What is no number was not said; what is below 0 is 0.
fn count(value: f64) -> Option<u32> {
    value.is_finite().then(|| value.clamp(0.0, f64::from(REQUESTS_MAX)).round() as u32)
}

/// The same for tokens and other large numbers.
fn large(value: f64) -> Option<u64> {
    value.is_finite().then(|| value.clamp(0.0, TOKENS_MAX).round() as u64)
}

/// How many requests an engine works on at most; with none it would not be there.
fn slots(value: f64) -> Option<u32> {
    count(value).filter(|slots| *slots > 0)
}

/// Tokens that a KV cache holds; with none it would not be there.
fn capacity(value: f64) -> Option<u64> {
    large(value).filter(|tokens| *tokens > 0)
}

/// A share that may be anything.
fn share(value: f64) -> Option<f32> {
    (!value.is_nan()).then(|| value.clamp(0.0, 1.0) as f32)
}

/// Every engine that is understood.
pub static ALL: &[&Family] = &[
    &vllm::FAMILY,
    &sglang::FAMILY,
    &tgi::FAMILY,
    &llama_cpp::FAMILY,
    &ollama::FAMILY,
    &tensorrt_llm::FAMILY,
    &triton::FAMILY,
];

/// The engine of that name.
pub fn family(name: &str) -> Option<&'static Family> {
    let name = name.replace('-', "_");
    ALL.iter().copied().find(|family| family.name == name)
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Family {}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<'de> Deserialize<'de> for &'static Family {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        family(&name).ok_or_else(|| serde::de::Error::custom(format!("no engine is called `{name}`")))
    }
}

#[cfg(test)]
mod tests;
