//! Where requests can be sent.

use std::collections::BTreeMap;

use pointsman_wire::vendor;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::secret::Secret;

/// Where requests can be sent.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// A vendor record, such as `openai`, `vllm` or `openai_compatible` (see the list of vendors).
    pub kind: String,
    /// Scheme, host and port, with or without the path prefix (`/v1`). Default: the vendor's.
    pub base_url: Option<String>,
    /// Its credentials. Each attempt uses one, in turn by what is left of their quotas.
    #[serde(default)]
    pub keys: Vec<CredentialConfig>,
    /// Where its deployments are, unless they say otherwise.
    pub region: Option<String>,
    /// Requests that each of its deployments may have in flight, unless they say otherwise. Default: unlimited.
    #[schemars(range(min = 1))]
    pub slots: Option<u32>,
    /// Headers sent with every request.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Active health checks. Default: on for own engines, off for paid vendors.
    pub health: Option<HealthChoice>,
    /// Idle connections.
    #[serde(default)]
    pub pool: PoolConfig,
    /// Whether requests cost nothing, so that one may be sent again even if it was processed. Default: by vendor.
    pub free: Option<bool>,
}

/// A credential: the key alone, or with its name and limits.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CredentialConfig {
    /// What records call it. Default: `key-1`, `key-2`, …
    pub name: Option<String>,
    /// The key.
    pub key: Secret,
    /// Requests it may make a minute. Default: unlimited.
    #[schemars(range(min = 1))]
    pub rpm: Option<u32>,
    /// Tokens it may use a minute, prompt and output. Default: unlimited.
    #[schemars(range(min = 1))]
    pub tpm: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullCredential {
    name: Option<String>,
    key: Secret,
    rpm: Option<u32>,
    tpm: Option<u32>,
}

impl<'de> Deserialize<'de> for CredentialConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand, because an untagged enum would lose which field is wrong.
        let value = serde_json::Value::deserialize(deserializer)?;
        if let serde_json::Value::String(key) = value {
            return Ok(Self { name: None, key: Secret::new(key), rpm: None, tpm: None });
        }
        let FullCredential { name, key, rpm, tpm } =
            FullCredential::deserialize(value).map_err(serde::de::Error::custom)?;
        Ok(Self { name, key, rpm, tpm })
    }
}

/// Active health checks of one provider: `off`, or a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum HealthChoice {
    /// None.
    Off(OffWord),
    /// These.
    On(ProviderHealth),
}

/// The word `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OffWord {
    /// The word.
    Off,
}

/// How one provider is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderHealth {
    /// What is asked for by GET; a 2xx is healthy. Default: the vendor's listing or `/health`.
    pub path: Option<String>,
    /// Time between two checks, milliseconds. Default: `health.interval_ms`.
    #[schemars(range(min = 100))]
    pub interval_ms: Option<u64>,
}

impl<'de> Deserialize<'de> for HealthChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if value == "off" {
            return Ok(Self::Off(OffWord::Off));
        }
        if !value.is_object() {
            return Err(serde::de::Error::custom(
                "`health` is `off`, or a map with `path` and `interval_ms`",
            ));
        }
        ProviderHealth::deserialize(value).map(Self::On).map_err(serde::de::Error::custom)
    }
}

/// Idle connections to a provider.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// How long one is kept, milliseconds: shorter than the provider keeps its side. Default: 4000.
    pub idle_ms: u64,
    /// How many each data-plane thread keeps. Default: 256.
    pub idle_max_per_worker: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { idle_ms: 4_000, idle_max_per_worker: 256 }
    }
}

impl ProviderConfig {
    /// Its credentials with their names.
    pub fn credentials(&self) -> impl Iterator<Item = (String, &str)> {
        self.keys.iter().enumerate().map(|(at, key)| (key.name_at(at), key.key.expose()))
    }

    /// Whether requests cost nothing.
    pub fn is_free(&self) -> bool {
        self.free.unwrap_or_else(|| vendor::vendor(&self.kind).is_ok_and(|vendor| vendor.engine))
    }
}

impl CredentialConfig {
    /// Its name, if it stands at this position.
    pub(crate) fn name_at(&self, position: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("key-{}", position + 1))
    }
}
