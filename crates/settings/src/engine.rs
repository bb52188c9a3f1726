//! What engines are asked of their load, and how often.

use std::fmt;
use std::time::Duration;

use pointsman_wire::engine::{self, Family};
use pointsman_wire::vendor;
use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{ENGINE_BUSY_MS_MIN, ENGINE_IDLE_MS_MAX, ENGINE_IDLE_MS_MIN, ENGINE_TIMEOUT_MS_MAX};
use crate::providers::{OffWord, ProviderConfig};

/// What one provider is asked of its load: `off`, or a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum EngineChoice {
    /// Nothing.
    Off(OffWord),
    /// This.
    On(EngineConfig),
}

/// How one engine is asked of its load.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EngineConfig {
    /// Whose spellings are understood. Default: by `kind`.
    pub family: Option<FamilyName>,
    /// Where its page of metrics is: a path, or `off` to do without. Default: the engine's usual one.
    pub metrics: Option<String>,
    /// The port of its metrics, if it is not that of its requests (Triton: 8002). Keys and headers do not go there.
    #[schemars(range(min = 1))]
    pub port: Option<u16>,
    /// The port where it publishes the events of its KV cache (vLLM's `--kv-events-config`, usually 5557). They say how
    /// much its prefix cache holds and pushes out. Default: nobody listens.
    #[schemars(range(min = 1))]
    pub kv_events_port: Option<u16>,
    /// `auto`: where no number of slots is given, each of its deployments has as many as the engine says. Default: what
    /// it says is shown, and no more.
    pub slots: Option<SlotsWord>,
    /// Time between two looks while it has nothing to do, milliseconds. Default: 1000.
    #[schemars(range(min = ENGINE_IDLE_MS_MIN, max = ENGINE_IDLE_MS_MAX))]
    pub idle_ms: u64,
    /// The same while it is full, milliseconds; four times that while it is hardly busy. Default: 50.
    #[schemars(range(min = ENGINE_BUSY_MS_MIN, max = ENGINE_IDLE_MS_MAX))]
    pub busy_ms: u64,
    /// Time for one look, milliseconds. Default: 1000.
    #[schemars(range(min = 1, max = ENGINE_TIMEOUT_MS_MAX))]
    pub timeout_ms: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            family: None,
            metrics: None,
            port: None,
            kv_events_port: None,
            slots: None,
            idle_ms: 1_000,
            busy_ms: 50,
            timeout_ms: 1_000,
        }
    }
}

/// An engine, by how it speaks of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FamilyName {
    /// vLLM, v0 and v1: `/metrics`.
    Vllm,
    /// SGLang with `--enable-metrics`: `/metrics`, `/get_server_info`.
    Sglang,
    /// Text Generation Inference: `/metrics`, `/info`.
    Tgi,
    /// llama.cpp's server with `--slots` and `--metrics`: `/slots`, `/metrics`, `/props`.
    LlamaCpp,
    /// Ollama: `/api/ps`.
    Ollama,
    /// `trtllm-serve`: `/prometheus/metrics`.
    TensorrtLlm,
    /// Triton: `/metrics`, usually on port 8002.
    Triton,
}

impl FamilyName {
    /// What is understood of it.
    pub fn family(self) -> Option<&'static Family> {
        engine::family(match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Tgi => "tgi",
            Self::LlamaCpp => "llama_cpp",
            Self::Ollama => "ollama",
            Self::TensorrtLlm => "tensorrt_llm",
            Self::Triton => "triton",
        })
    }
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlotsWord {
    /// The word.
    Auto,
}

// By hand, because an untagged enum would not tell which field is wrong.
impl<'de> Deserialize<'de> for EngineChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EngineVisitor)
    }
}

struct EngineVisitor;

impl<'de> Visitor<'de> for EngineVisitor {
    type Value = EngineChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`off`, or a map with `metrics`, `slots` and times")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<EngineChoice, E> {
        match word {
            "off" => Ok(EngineChoice::Off(OffWord::Off)),
            other => Err(E::unknown_variant(other, &["off"])),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<EngineChoice, A::Error> {
        EngineConfig::deserialize(MapAccessDeserializer::new(map)).map(EngineChoice::On)
    }
}

/// How an engine is asked, with all that was left to its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginePlan {
    /// Whose spellings are understood.
    pub family: &'static Family,
    /// What is asked for: the place of the family's ask, and the path.
    pub asks: Vec<(usize, String)>,
    /// The port, if it is not that of requests.
    pub port: Option<u16>,
    /// The port of the events of its KV cache, if they are listened to.
    pub kv_events_port: Option<u16>,
    /// Time between two looks while it has nothing to do.
    pub idle: Duration,
    /// The same while it is full.
    pub busy: Duration,
    /// Time for one look.
    pub timeout: Duration,
}

impl ProviderConfig {
    /// How it is asked of its load, if it is. Who costs money never is.
    pub fn engine_plan(&self) -> Option<EnginePlan> {
        let usual = EngineConfig::default();
        let config = match &self.engine {
            Some(EngineChoice::Off(_)) => return None,
            Some(EngineChoice::On(config)) => config,
            None => &usual,
        };
        let vendor = vendor::vendor(&self.kind).ok()?;
        let family = config.family.and_then(FamilyName::family).or(vendor.signals)?;
        let ask = |at: usize| {
            let ask = &family.asks[at];
            match &config.metrics {
                Some(word) if ask.metrics && word == METRICS_OFF => None,
                Some(path) if ask.metrics => Some((at, path.clone())),
                Some(_) | None => Some((at, ask.path.to_owned())),
            }
        };
        if self.is_grpc() && config.port.is_none() {
            // Metrics are told over HTTP, at another port.
            return None;
        }
        let asks: Vec<(usize, String)> = (0..family.asks.len()).filter_map(ask).collect();
        (!asks.is_empty() && self.may_be_polled()).then(|| EnginePlan {
            family,
            asks,
            port: config.port,
            kv_events_port: config.kv_events_port,
            idle: Duration::from_millis(config.idle_ms),
            busy: Duration::from_millis(config.busy_ms),
            timeout: Duration::from_millis(config.timeout_ms),
        })
    }

    /// Whether it is an engine of one's own, or a server of no known vendor.
    pub(crate) fn may_be_polled(&self) -> bool {
        vendor::vendor(&self.kind).is_ok_and(|vendor| vendor.engine || vendor.needs_base_url())
    }

    /// Whether its deployments take their number of slots from the engine where they have none.
    pub(crate) fn learns_slots(&self) -> bool {
        matches!(&self.engine, Some(EngineChoice::On(EngineConfig { slots: Some(SlotsWord::Auto), .. })))
    }
}

/// The word for no page of metrics.
pub(crate) const METRICS_OFF: &str = "off";
