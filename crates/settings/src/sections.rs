//! The smaller sections of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pointsman_routing::catalog::{BatchSpec, HealthSpec, QueueSpec, TimeoutSpec};
use pointsman_routing::idempotency::Limits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{BODY_BYTES_MAX, BODY_BYTES_MIN, COUNT_MAX, TIME_MS_MAX};

/// What the gateway accepts from clients and providers.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Bytes of a request body. Default: 33554432 (32 MiB).
    #[schemars(range(min = BODY_BYTES_MIN, max = BODY_BYTES_MAX))]
    pub body_bytes_max: u64,
    /// The same for single routes: `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`, `/v1/responses`,
    /// `/v2/models/{model}/infer`, or another one of those that a model is asked at (`/v1/audio/transcriptions`, …).
    pub body_bytes_max_by_route: BTreeMap<String, u64>,
    /// Bytes of a form with files (`/v1/images/edits`, `/v1/audio/…`) that are held until its model is known, and to send
    /// them elsewhere if a deployment fails. What is longer passes by while it comes, and must name its model within them.
    /// Default: 8388608 (8 MiB).
    #[schemars(range(min = BODY_BYTES_MIN, max = BODY_BYTES_MAX))]
    pub multipart_buffer_bytes: u64,
    /// Bytes of a request's head. Default: 65536.
    #[schemars(range(min = 8192, max = 1_048_576))]
    pub header_bytes_max: usize,
    /// Header lines of a request. Default: 100.
    #[schemars(range(min = 16, max = 1000))]
    pub headers_max: usize,
    /// Time for a request's head, also while a connection is idle, milliseconds. Default: 30000.
    #[schemars(range(min = 100, max = TIME_MS_MAX))]
    pub header_read_ms: u64,
    /// Time for a request's body, milliseconds. Default: 60000.
    #[schemars(range(min = 100, max = TIME_MS_MAX))]
    pub body_read_ms: u64,
    /// Bytes a second that a body must come with, after a grace of five seconds. Default: 1024.
    pub body_min_bytes_per_s: u64,
    /// Nesting of a request's JSON. Default: 64.
    #[schemars(range(min = 4, max = 512))]
    pub json_depth_max: usize,
    /// Messages of a request. Default: 10000.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub messages_max: usize,
    /// Memory of the process, bytes. From 85 % of it batch requests are refused, from 92 % all new ones, from 95 % new
    /// connections. 0: what its cgroup allows; without a cgroup that does, any. Default: 0.
    pub memory_bytes_max: u64,
    /// Client connections that may be open. Default: 50000.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub connections_max: u64,
    /// Copies to shadows (`models.*.mirror`) that may be under way; more are dropped and counted. Default: 64.
    #[schemars(range(max = COUNT_MAX))]
    pub mirrors_max: u64,
    /// How long a client may take nothing of what is sent to it, milliseconds; one whose connection is dead without a
    /// word is found out by the same. Default: 25000.
    #[schemars(range(min = 100, max = TIME_MS_MAX))]
    pub write_stall_ms: u64,
    /// What a client means that closes its half of the connection after its request. Default: abort.
    pub half_close: HalfClose,
    /// Bytes of a provider's error that are read. Default: 65536.
    #[schemars(range(min = 1024, max = BODY_BYTES_MAX))]
    pub upstream_error_body_bytes_max: usize,
}

/// What a client means that closes its half of the connection after its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HalfClose {
    /// It has left: its request is cancelled. On most connections that is the only way to see a client leave.
    #[default]
    Abort,
    /// It has nothing more to say and waits for its answer. A client that leaves is then noticed by the next write to
    /// it only.
    Serve,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 32 * 1024 * 1024,
            body_bytes_max_by_route: BTreeMap::new(),
            multipart_buffer_bytes: 8 * 1024 * 1024,
            header_bytes_max: 64 * 1024,
            headers_max: 100,
            header_read_ms: 30_000,
            body_read_ms: 60_000,
            body_min_bytes_per_s: 1024,
            json_depth_max: 64,
            messages_max: 10_000,
            memory_bytes_max: 0,
            connections_max: 50_000,
            mirrors_max: 64,
            write_stall_ms: 25_000,
            half_close: HalfClose::Abort,
            upstream_error_body_bytes_max: 64 * 1024,
        }
    }
}

impl LimitsConfig {
    /// Bytes of a request body on this route.
    pub fn body_bytes_max_of(&self, path: &str) -> u64 {
        self.body_bytes_max_by_route.get(path).copied().unwrap_or(self.body_bytes_max)
    }
}

/// Answers as they are streamed to clients.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// After so long without a byte a stream gets a comment (`: ping`), which clients skip and which keeps what stands
    /// between from closing it, milliseconds; 0: never. Default: 15000.
    #[schemars(range(max = TIME_MS_MAX))]
    pub ping_ms: u64,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self { ping_ms: 15_000 }
    }
}

/// How long each phase of a request may take. What is not given is taken from the section for all models, or has its
/// default.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// Until a connection stands, TLS included, milliseconds. Default: 3000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub connect_ms: Option<u64>,
    /// From sending until the first content of a stream, milliseconds. Default: 120000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub first_content_ms: Option<u64>,
    /// From sending until an answer that is not streamed, which comes when all of it is made, milliseconds. Default:
    /// 300000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub answer_ms: Option<u64>,
    /// Between two pieces of content, milliseconds. Default: 60000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub idle_ms: Option<u64>,
    /// From arrival to the end, waits and all attempts included, milliseconds; for batch requests beside the time that they
    /// may wait for a slot. Default: 600000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub total_ms: Option<u64>,
    /// How long the head of a good response is held back for its first content, milliseconds. Default: 15000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub header_hold_ms: Option<u64>,
}

impl TimeoutsConfig {
    /// The times that hold, where `general` is the section for all models.
    pub(crate) fn over(&self, general: &Self) -> TimeoutSpec {
        let ms = |own: Option<u64>, general: Option<u64>, usual| {
            Duration::from_millis(own.or(general).unwrap_or(usual))
        };
        TimeoutSpec {
            connect: ms(self.connect_ms, general.connect_ms, 3_000),
            first_content: ms(self.first_content_ms, general.first_content_ms, 120_000),
            answer: ms(self.answer_ms, general.answer_ms, 300_000),
            idle: ms(self.idle_ms, general.idle_ms, 60_000),
            total: ms(self.total_ms, general.total_ms, 600_000),
            header_hold: ms(self.header_hold_ms, general.header_hold_ms, 15_000),
        }
    }
}

/// Requests that wait for a slot.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// Live requests of one model that may wait; 0: none. Batch requests have `lanes.batch`. Default: 1024.
    #[schemars(range(max = COUNT_MAX))]
    pub requests_max: Option<u32>,
    /// The wait that interactive and standard requests of the live lane are not to stay above, milliseconds, about a tenth of what a user waits for the first
    /// content. Once the oldest has waited longer for a second, the newest are served first and those that waited twice
    /// as long are refused when others come. Never less than two slots take to become free; 0: first come, first served
    /// until `wait_ms_max`. Default: 200.
    #[schemars(range(max = TIME_MS_MAX))]
    pub target_ms: Option<u64>,
    /// How long one may wait, milliseconds. Default: 30000.
    #[schemars(range(max = TIME_MS_MAX))]
    pub wait_ms_max: Option<u64>,
}

impl QueueConfig {
    pub(crate) fn over(&self, general: &Self, batch: BatchSpec) -> QueueSpec {
        QueueSpec {
            batch,
            requests_max: self.requests_max.or(general.requests_max).unwrap_or(1024),
            target: Duration::from_millis(self.target_ms.or(general.target_ms).unwrap_or(200)),
            wait_max: Duration::from_millis(self.wait_ms_max.or(general.wait_ms_max).unwrap_or(30_000)),
        }
    }
}

/// When a deployment that fails is left alone, and how it comes back.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures in a row that fail it. Default: 5.
    #[schemars(range(min = 1))]
    pub failures: Option<u32>,
    /// Connection failures in a row that fail it. Default: 2.
    #[schemars(range(min = 1))]
    pub connect_failures: Option<u32>,
    /// Recent requests there must be before their rate of errors is judged. Default: 10.
    #[schemars(range(min = 1))]
    pub requests_min: Option<u32>,
    /// Percentage of errors above which it counts as degraded, as surely as the number of requests allows. Default: 2.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub degraded_percent: Option<f64>,
    /// Percentage of errors above which it fails. Default: 5.
    #[schemars(range(min = 0.0, max = 100.0))]
    pub failed_percent: Option<f64>,
    /// How long it is left alone the first time, with a jitter of a half, milliseconds. Doubles. Default: 5000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub open_ms_min: Option<u64>,
    /// The longest it is left alone, milliseconds. Default: 300000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub open_ms_max: Option<u64>,
    /// In what time its traffic comes back once a probe succeeded, milliseconds. Default: 10000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub ramp_ms: Option<u64>,
    /// In what time a deployment that joins others at work gets its full share, milliseconds. Default: 30000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub slow_start_ms: Option<u64>,
}

impl BreakerConfig {
    pub(crate) fn over(&self, general: &Self) -> HealthSpec {
        let usual = HealthSpec::default();
        let ms = |own: Option<u64>, general: Option<u64>, usual: Duration| {
            own.or(general).map_or(usual, Duration::from_millis)
        };
        let rate = |own: Option<f64>, general: Option<f64>, usual: f64| {
            own.or(general).map_or(usual, |percent| percent / 100.0)
        };
        HealthSpec {
            failures: self.failures.or(general.failures).unwrap_or(usual.failures),
            connect_failures: self
                .connect_failures
                .or(general.connect_failures)
                .unwrap_or(usual.connect_failures),
            requests_min: self.requests_min.or(general.requests_min).unwrap_or(usual.requests_min),
            degraded_rate: rate(self.degraded_percent, general.degraded_percent, usual.degraded_rate),
            failed_rate: rate(self.failed_percent, general.failed_percent, usual.failed_rate),
            open_min: ms(self.open_ms_min, general.open_ms_min, usual.open_min),
            open_max: ms(self.open_ms_max, general.open_ms_max, usual.open_max),
            ramp: ms(self.ramp_ms, general.ramp_ms, usual.ramp),
            slow_start: ms(self.slow_start_ms, general.slow_start_ms, usual.slow_start),
        }
    }
}

/// What may be sent again after it failed, beyond what can cost nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Also what may have been processed and billed: 502, 504, a connection lost after sending. Default: false.
    pub unsure: bool,
    /// Also what a provider's content policy refused. Default: false.
    pub content_policy: bool,
    /// Also the rest of a chat stream that breaks off half-way, from another deployment whose provider can go on with
    /// an answer (`continuation`). Plain text only. Default: false.
    pub continuation: bool,
}

/// Answers that are given again to a request with the same `Idempotency-Key` (1 to 255 bytes of printable ASCII), tenant,
/// route and body. `pointsman_idempotency_total` counts what keys meant: `first`, `joined` (the first was under way),
/// `replayed`, `conflict` (422: another body), `spent` (409: the answer is not kept), `full` (503), `malformed` (400).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdempotencyConfig {
    /// Keys that are remembered, of all tenants; the oldest gives way to a new one. 0: the header means nothing.
    /// Default: 10000.
    #[schemars(range(max = COUNT_MAX))]
    pub entries_max: usize,
    /// Bytes an answer may have to be given again; the key of a larger one is answered with 409.
    /// Default: 1048576 (1 MiB).
    #[schemars(range(min = 1024, max = BODY_BYTES_MAX))]
    pub answer_bytes_max: u64,
    /// Bytes of all answers together; the oldest gives way, and its key is then answered with 409.
    /// Default: 67108864 (64 MiB).
    #[schemars(range(min = 1024))]
    pub bytes_max: u64,
    /// How long a key is remembered after its answer ended, milliseconds. Default: 86400000 (a day).
    #[schemars(range(min = 1))]
    pub ttl_ms: u64,
}

impl Default for IdempotencyConfig {
    fn default() -> Self {
        Self {
            entries_max: 10_000,
            answer_bytes_max: 1024 * 1024,
            bytes_max: 64 * 1024 * 1024,
            ttl_ms: 24 * 60 * 60 * 1000,
        }
    }
}

impl IdempotencyConfig {
    /// The bounds as the ledger of keys has them.
    pub fn limits(&self) -> Limits {
        Limits {
            entries_max: self.entries_max,
            answer_bytes_max: self.answer_bytes_max,
            bytes_max: self.bytes_max,
            ttl: Duration::from_millis(self.ttl_ms),
        }
    }
}

/// Active health checks, by a listing or `/health`, never by a generation.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthConfig {
    /// Time between two checks of a provider, milliseconds; 0 turns them off. Default: 5000.
    #[schemars(range(max = TIME_MS_MAX))]
    pub interval_ms: u64,
    /// Time for one check, milliseconds. Default: 2000.
    #[schemars(range(min = 1, max = TIME_MS_MAX))]
    pub timeout_ms: u64,
    /// Failed checks in a row until a provider's deployments get no requests. Default: 2.
    #[schemars(range(min = 1))]
    pub failures: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self { interval_ms: 5_000, timeout_ms: 2_000, failures: 2 }
    }
}

/// Decision records.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DecisionsConfig {
    /// Records kept in memory. Default: 1024.
    #[schemars(range(max = COUNT_MAX))]
    pub ring: usize,
    /// A file to which every record is appended, a JSON object a line. Default: none.
    pub log: Option<PathBuf>,
    /// Records that may wait to be written; more are dropped and counted. Default: 4096.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub log_queue_max: usize,
}

impl Default for DecisionsConfig {
    fn default() -> Self {
        Self { ring: 1024, log: None, log_queue_max: 4096 }
    }
}

/// The gateway's own log, on standard error.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// What is worth a line. Default: info.
    pub level: LogLevel,
    /// How a line looks. Default: text.
    pub format: LogFormat,
}

/// What is worth a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// What somebody has to look at.
    Error,
    /// What somebody may have to look at.
    Warn,
    /// What changed, and requests that did not go well.
    #[default]
    Info,
    /// Every request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// How the gateway stops.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// Time between the moment that `/readyz` says 503 and the moment that no more connections are accepted,
    /// milliseconds; requests are served meanwhile, and their connections closed. Behind a load balancer set it to two
    /// of the balancer's probe intervals, or clients are refused until it notices. Default: 0.
    #[schemars(range(max = TIME_MS_MAX))]
    pub delay_ms: u64,
    /// Time for requests under way to finish after that, milliseconds. Default: 30000.
    #[schemars(range(max = TIME_MS_MAX))]
    pub grace_ms: u64,
    /// Time for requests under way to finish on a process whose sockets the next one took over, milliseconds. Default:
    /// 600000.
    #[schemars(range(max = TIME_MS_MAX))]
    pub upgrade_grace_ms: u64,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self { delay_ms: 0, grace_ms: 30_000, upgrade_grace_ms: 600_000 }
    }
}

/// Deployments that were changed through the admin API.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminChangesConfig {
    /// Where the changes are written, and read at the next start. Default: they are kept across reloads only.
    pub file: Option<PathBuf>,
}
