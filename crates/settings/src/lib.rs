//! The configuration: composed of the parameters of every feature, read with the place of every field, validated,
//! compared, and described by a schema. The types are the reference: their comments become the schema's descriptions
//! and the reference page.

pub mod auth;
pub mod batches;
mod build;
pub mod clouds;
mod diagnostic;
mod diff;
pub mod egress;
pub mod engine;
pub mod import;
pub mod lanes;
pub mod limiter;
pub mod limits;
pub mod models;
pub mod overlay;
pub mod pools;
pub mod providers;
mod read;
mod reference;
mod secret;
pub mod sections;
pub mod structured;
pub mod tensors;
mod tree;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use pointsman_wire::prices;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use diagnostic::{Diagnostic, Problem};
pub use diff::{diff, restart_needed};
pub use read::parse;
pub use reference::{reference_markdown, schema, strategies_markdown, vendors_markdown};
pub use secret::Secret;
pub use tree::Sources;
pub use validate::validate;

use auth::AuthConfig;
use batches::BatchesConfig;
use egress::EgressConfig;
use lanes::{LanesConfig, TenantConfig};
use limits::WORKERS_MAX;
use models::ModelConfig;
use pools::SlotPoolConfig;
use providers::ProviderConfig;
use sections::{
    AdminChangesConfig, BreakerConfig, DecisionsConfig, HealthConfig, IdempotencyConfig, LimitsConfig,
    LogConfig, QueueConfig, ShutdownConfig, StreamConfig, TimeoutsConfig,
};

/// The configuration of Pointsman.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients are listened to. An address that is not loopback needs `auth.keys`. Default: 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Where the admin API, the metrics and the health pages are. An address that is not loopback needs
    /// `auth.admin_keys`. Default: 127.0.0.1:8081.
    pub admin: SocketAddr,
    /// Where clients of the Open Inference Protocol over gRPC are listened to, HTTP/2 without TLS; nowhere unless it is
    /// given. An address that is not loopback needs `auth.keys`.
    pub grpc: Option<SocketAddr>,
    /// Threads that serve clients; 0 is one per CPU that the process may use, by its cgroup's quota and its affinity.
    /// Default: 0.
    #[schemars(range(max = WORKERS_MAX))]
    pub workers: usize,
    /// Where this gateway is; the first in every model's order of regions.
    pub region: Option<String>,
    /// Who may ask.
    pub auth: AuthConfig,
    /// What is accepted from clients and providers.
    pub limits: LimitsConfig,
    /// Answers as they are streamed to clients.
    pub stream: StreamConfig,
    /// How long each phase of a request may take, for all models.
    pub timeouts: TimeoutsConfig,
    /// Where connections to providers may go.
    pub egress: EgressConfig,
    /// A file of prices in the form of the bundled list (TOML, see docs/prices.md), whose entries stand before it. Read again
    /// with each reload. Default: the bundled list alone.
    pub prices: Option<PathBuf>,
    /// What the file of prices says.
    #[serde(skip)]
    pub price_list: prices::List,
    /// Requests that wait for a slot, for all models.
    pub queue: QueueConfig,
    /// What is special to the batch lane, for all models.
    pub lanes: LanesConfig,
    /// Tenants of the keys in `auth.keys` of whom more is said, by name.
    pub tenants: BTreeMap<String, TenantConfig>,
    /// When a deployment that keeps failing is left alone, for all models.
    pub breaker: BreakerConfig,
    /// Active health checks.
    pub health: HealthConfig,
    /// Answers that are given again to a request with the same `Idempotency-Key`.
    pub idempotency: IdempotencyConfig,
    /// Files and batches as OpenAI has them, kept on disk. Without this section their endpoints answer with 501.
    pub batches: Option<BatchesConfig>,
    /// Decision records.
    pub decisions: DecisionsConfig,
    /// The gateway's own log.
    pub log: LogConfig,
    /// How the gateway stops.
    pub shutdown: ShutdownConfig,
    /// Deployments that were changed through the admin API.
    pub admin_changes: AdminChangesConfig,
    /// Slots that several models share, by name.
    pub pools: BTreeMap<String, SlotPoolConfig>,
    /// Where requests can be sent, by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// What clients ask for, by name.
    pub models: BTreeMap<String, ModelConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin: SocketAddr::from(([127, 0, 0, 1], 8081)),
            grpc: None,
            workers: 0,
            region: None,
            auth: AuthConfig::default(),
            limits: LimitsConfig::default(),
            stream: StreamConfig::default(),
            timeouts: TimeoutsConfig::default(),
            egress: EgressConfig::default(),
            prices: None,
            price_list: prices::List::default(),
            queue: QueueConfig::default(),
            lanes: LanesConfig::default(),
            tenants: BTreeMap::new(),
            breaker: BreakerConfig::default(),
            health: HealthConfig::default(),
            idempotency: IdempotencyConfig::default(),
            batches: None,
            decisions: DecisionsConfig::default(),
            log: LogConfig::default(),
            shutdown: ShutdownConfig::default(),
            admin_changes: AdminChangesConfig::default(),
            pools: BTreeMap::new(),
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
        }
    }
}

impl Config {
    /// The configuration as people may see it: no secrets.
    pub fn redacted(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
