//! The configuration: composed of the parameters of every feature, read with the place of every field, validated,
//! compared, and described by a schema. The types are the reference: their comments become the schema's descriptions
//! and the reference page.

pub mod auth;
mod build;
mod diagnostic;
mod diff;
pub mod models;
pub mod overlay;
pub mod providers;
mod reference;
mod secret;
pub mod sections;
mod tree;
mod validate;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use diagnostic::{Diagnostic, Problem};
pub use diff::{diff, restart_needed};
pub use reference::{reference_markdown, schema, strategies_markdown, vendors_markdown};
pub use secret::Secret;
pub use tree::Sources;
pub use validate::validate;

use auth::AuthConfig;
use models::ModelConfig;
use providers::ProviderConfig;
use sections::{
    AdminChangesConfig, BreakerConfig, DecisionsConfig, HealthConfig, LimitsConfig, LogConfig, QueueConfig,
    ShutdownConfig, TimeoutsConfig,
};

/// The configuration of Pointsman.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients are listened to. An address that is not loopback needs `auth.keys`. Default: 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Where the admin API, the metrics and the health pages are. An address that is not loopback needs
    /// `auth.admin_keys`. Default: 127.0.0.1:8081.
    pub admin: SocketAddr,
    /// Threads that serve clients: 0 to 256; 0 is one per CPU. Default: 0.
    #[schemars(range(max = 256))]
    pub workers: usize,
    /// Where this gateway is; the first in every model's order of regions.
    pub region: Option<String>,
    /// Who may ask.
    pub auth: AuthConfig,
    /// What is accepted from clients and providers.
    pub limits: LimitsConfig,
    /// How long each phase of a request may take, for all models.
    pub timeouts: TimeoutsConfig,
    /// Requests that wait for a slot, for all models.
    pub queue: QueueConfig,
    /// When a deployment that keeps failing is left alone, for all models.
    pub breaker: BreakerConfig,
    /// Active health checks.
    pub health: HealthConfig,
    /// Decision records.
    pub decisions: DecisionsConfig,
    /// The gateway's own log.
    pub log: LogConfig,
    /// How the gateway stops.
    pub shutdown: ShutdownConfig,
    /// Deployments that were changed through the admin API.
    pub admin_changes: AdminChangesConfig,
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
            workers: 0,
            region: None,
            auth: AuthConfig::default(),
            limits: LimitsConfig::default(),
            timeouts: TimeoutsConfig::default(),
            queue: QueueConfig::default(),
            breaker: BreakerConfig::default(),
            health: HealthConfig::default(),
            decisions: DecisionsConfig::default(),
            log: LogConfig::default(),
            shutdown: ShutdownConfig::default(),
            admin_changes: AdminChangesConfig::default(),
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
        }
    }
}

/// Reads and validates a configuration.
///
/// # Errors
/// Everything that is wrong, each with its place in `text`.
pub fn parse(text: &str, sources: &Sources<'_>) -> Result<Config, Vec<Diagnostic>> {
    let (value, places) = tree::read(text, sources)?;
    let place = |problem: Problem| {
        let (line, column) = nearest_place(&places, &problem.path);
        Diagnostic { line, column, problem }
    };
    let config: Config = serde_path_to_error::deserialize(value)
        .map_err(|error| vec![place(shape_problem(&error.path().to_string(), &error.inner().to_string()))])?;
    let problems = validate(&config);
    if problems.is_empty() { Ok(config) } else { Err(problems.into_iter().map(place).collect()) }
}

/// The place of a node, or of the innermost node around it that has one.
fn nearest_place(places: &tree::Places, path: &str) -> (u64, u64) {
    let mut path = path;
    loop {
        if let Some(place) = places.get(path) {
            return *place;
        }
        let Some(end) = path.rfind(['.', '[']) else { return (1, 1) };
        path = &path[..end];
    }
}

/// What serde says, in our words: the field, and what was probably meant.
fn shape_problem(path: &str, message: &str) -> Problem {
    let path = if path == "." { "" } else { path };
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return Problem::new(path, message);
    }
    let (Some(unknown), known) = (quoted.next(), quoted.collect::<Vec<_>>()) else {
        return Problem::new(path, message);
    };
    let what = if message.starts_with("unknown field") { "key" } else { "value" };
    let path = match what {
        "key" if !path.ends_with(unknown) => tree::join(path, unknown),
        _ => path.to_owned(),
    };
    let help = diagnostic::did_you_mean(unknown, known.iter().copied());
    let help = help.or_else(|| (!known.is_empty()).then(|| format!("known here: {}", known.join(", "))));
    Problem { path, message: format!("unknown {what} `{unknown}`"), help }
}

impl Config {
    /// The configuration as people may see it: no secrets.
    pub fn redacted(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
