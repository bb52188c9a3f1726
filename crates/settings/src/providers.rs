//! Where requests can be sent.

use std::collections::BTreeMap;
use std::fmt;

use pointsman_wire::dialect::ProviderDef;
use pointsman_wire::openai::continuation::Style;
use pointsman_wire::vendor::{self, Kserve, VendorKind};
use schemars::{JsonSchema, Schema, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::auth::LaneName;
use crate::engine::EngineChoice;
use crate::limits::{COUNT_MAX, HEALTH_INTERVAL_MS_MIN, TIME_MS_MAX, TOKENS_MAX};
use crate::secret::Secret;

/// Where requests can be sent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// A vendor record, such as `openai`, `vllm` or `openai_compatible` (see the list of vendors).
    #[schemars(with = "VendorKind")]
    pub kind: String,
    /// Scheme, host and port, with or without the path prefix (`/v1`). `grpc://` and `grpcs://` for those that speak the
    /// Open Inference Protocol over gRPC. Default: the vendor's.
    pub base_url: Option<String>,
    /// Where in its cloud it is, which gives its base URL: the region at AWS (`us-east-1`), the location at Vertex AI
    /// (`us-east5`, `global`). For the kinds `bedrock`, `vertex` and `vertex_anthropic`, which need it.
    pub location: Option<String>,
    /// The project at Google Cloud that requests are made and paid in. For the kinds `vertex` and `vertex_anthropic`, which
    /// need it.
    pub project: Option<String>,
    /// The version of the API that is asked for, for the kind `azure`. Default: 2024-10-21.
    pub api_version: Option<String>,
    /// Where service accounts get their tokens, for the kinds `vertex` and `vertex_anthropic`: for a network in which
    /// Google's own address is not reached. Default: what the account's key file says.
    pub token_uri: Option<String>,
    /// Its credentials. Each attempt uses one, in turn by what is left of their quotas.
    #[serde(default)]
    pub keys: Vec<CredentialConfig>,
    /// The quota that its keys share, unless they say otherwise: a limit (429) that one is told cools all that name the
    /// same, of whatever provider and model. Without keys it is that of its deployments. Default: each has its own.
    pub quota_domain: Option<String>,
    /// Where its deployments are, unless they say otherwise.
    pub region: Option<String>,
    /// Requests that each of its deployments may have in flight, unless they say otherwise. Default: unlimited.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub slots: Option<u32>,
    /// Tokens that requests in flight on each of its deployments may have together, unless they say otherwise. Default:
    /// unlimited.
    #[schemars(range(min = 1, max = TOKENS_MAX))]
    pub tokens_inflight_max: Option<u64>,
    /// The pool that its deployments take slots from, unless they say otherwise. Default: none.
    pub slot_pool: Option<String>,
    /// Whether requests that its engine has from elsewhere take slots of its deployments, unless they say otherwise.
    /// Default: false.
    #[serde(default)]
    pub count_foreign: bool,
    /// Whether it may be at private addresses. Default: `egress.private`.
    pub private: Option<bool>,
    /// Headers sent with every request.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// Active health checks. Default: on for own engines, off for paid vendors.
    pub health: Option<HealthChoice>,
    /// What it is asked of its load. Default: what its kind of engine gives; paid vendors are never asked.
    pub engine: Option<EngineChoice>,
    /// Idle connections.
    #[serde(default)]
    pub pool: PoolConfig,
    /// How it is told to go on with an answer that broke off elsewhere, for models with `retry.continuation`. Default:
    /// the vendor's.
    pub continuation: Option<ContinuationChoice>,
    /// Whether requests cost nothing, so that one may be sent again even if it was processed. Default: by vendor.
    pub free: Option<bool>,
}

/// How a provider is told to go on with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContinuationChoice {
    /// It cannot.
    None,
    /// It does so when the last message is the assistant's.
    Prefill,
    /// By `continue_final_message` beside the messages (vLLM, SGLang).
    ContinueFinalMessage,
    /// By `prefix` in the message (Mistral).
    Prefix,
}

/// A credential: the key alone, or with its name and limits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = or_text)]
pub struct CredentialConfig {
    /// What records call it. Default: `key-1`, `key-2`, …
    pub name: Option<String>,
    /// The key. For `bedrock` an API key of Bedrock's, for `vertex` a token that somebody else keeps fresh.
    pub key: Option<Secret>,
    /// The id of an access key of AWS, for the kind `bedrock`, instead of `key`: requests are signed.
    pub access_key_id: Option<Secret>,
    /// The secret that belongs to `access_key_id`.
    pub secret_access_key: Option<Secret>,
    /// The token of an access key that is valid for a while only; empty is none.
    pub session_token: Option<Secret>,
    /// The key file of a service account as Google Cloud gives it (JSON), for the kinds `vertex` and `vertex_anthropic`,
    /// instead of `key`: usually `file:/path`. Tokens are fetched with it, and anew before they end.
    pub service_account: Option<Secret>,
    /// Requests it may make a minute. Default: unlimited.
    #[schemars(range(min = 1))]
    pub rpm: Option<u32>,
    /// Tokens it may use a minute, prompt and output. Default: unlimited.
    #[schemars(range(min = 1))]
    pub tpm: Option<u32>,
    /// The lane it is kept for, so that a flood of batch requests cannot use up what live ones need. Default: both.
    pub lane: Option<LaneName>,
    /// The quota it shares with all keys and deployments that name the same, such as keys of one organisation.
    /// Default: the provider's, or one of its own.
    pub quota_domain: Option<String>,
}

/// The schema of something that is either a text or what `schema` says.
fn or_text(schema: &mut Schema) {
    let description = schema.remove("description");
    let map = schema.clone();
    *schema = json_schema!({ "anyOf": [{ "type": "string" }, map] });
    if let Some(description) = description {
        schema.insert("description".to_owned(), description);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FullCredential {
    name: Option<String>,
    key: Option<Secret>,
    access_key_id: Option<Secret>,
    secret_access_key: Option<Secret>,
    session_token: Option<Secret>,
    service_account: Option<Secret>,
    rpm: Option<u32>,
    tpm: Option<u32>,
    lane: Option<LaneName>,
    quota_domain: Option<String>,
}

// By hand, because an untagged enum would not tell which field is wrong.
impl<'de> Deserialize<'de> for CredentialConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CredentialVisitor)
    }
}

struct CredentialVisitor;

impl<'de> Visitor<'de> for CredentialVisitor {
    type Value = CredentialConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key as text, or a map with `key`")
    }

    fn visit_str<E>(self, key: &str) -> Result<CredentialConfig, E> {
        Ok(CredentialConfig::of_key(key))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<CredentialConfig, A::Error> {
        let full = FullCredential::deserialize(MapAccessDeserializer::new(map))?;
        Ok(CredentialConfig {
            name: full.name,
            key: full.key,
            access_key_id: full.access_key_id,
            secret_access_key: full.secret_access_key,
            session_token: full.session_token,
            service_account: full.service_account,
            rpm: full.rpm,
            tpm: full.tpm,
            lane: full.lane,
            quota_domain: full.quota_domain,
        })
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
    /// What is asked for by GET; a 2xx is healthy, and so is a 401 or 403: who wants a key is up. Default: the vendor's
    /// listing or `/health`.
    pub path: Option<String>,
    /// Time between two checks, milliseconds. Default: `health.interval_ms`.
    #[schemars(range(min = HEALTH_INTERVAL_MS_MIN, max = TIME_MS_MAX))]
    pub interval_ms: Option<u64>,
}

// By hand, for the same reason as credentials.
impl<'de> Deserialize<'de> for HealthChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HealthVisitor)
    }
}

struct HealthVisitor;

impl<'de> Visitor<'de> for HealthVisitor {
    type Value = HealthChoice;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`off`, or a map with `path` and `interval_ms`")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<HealthChoice, E> {
        match word {
            "off" => Ok(HealthChoice::Off(OffWord::Off)),
            other => Err(E::unknown_variant(other, &["off"])),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HealthChoice, A::Error> {
        ProviderHealth::deserialize(MapAccessDeserializer::new(map)).map(HealthChoice::On)
    }
}

/// Idle connections to a provider.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PoolConfig {
    /// How long one is kept, milliseconds: shorter than the provider keeps its side. Default: 4000.
    #[schemars(range(max = TIME_MS_MAX))]
    pub idle_ms: u64,
    /// How many each data-plane thread keeps. Default: 256.
    #[schemars(range(max = COUNT_MAX))]
    pub idle_max_per_worker: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self { idle_ms: 4_000, idle_max_per_worker: 256 }
    }
}

impl ProviderConfig {
    /// Its credentials that are a key, with their names; of those that are more, the name and nothing.
    pub fn credentials<'a>(&'a self) -> impl Iterator<Item = (String, &'a str)> {
        let key = |(at, one): (usize, &'a CredentialConfig)| {
            (one.name_at(at), one.key.as_ref().map_or("", Secret::expose))
        };
        self.keys.iter().enumerate().map(key)
    }

    /// How it is told to go on with an answer that broke off elsewhere, if it can.
    pub fn continuation_style(&self) -> Option<Style> {
        match self.continuation {
            None => vendor::vendor(&self.kind).ok()?.continuation,
            Some(ContinuationChoice::None) => None,
            Some(ContinuationChoice::Prefill) => Some(Style::Prefill),
            Some(ContinuationChoice::ContinueFinalMessage) => Some(Style::ContinueFinalMessage),
            Some(ContinuationChoice::Prefix) => Some(Style::Prefix),
        }
    }

    /// Whether it speaks the Open Inference Protocol.
    pub fn kserve(&self) -> Kserve {
        match vendor::vendor(&self.kind).map_or(Kserve::No, |vendor| vendor.kserve) {
            // There is nothing else over gRPC.
            Kserve::Also if self.is_grpc() => Kserve::Only,
            known @ (Kserve::No | Kserve::Also | Kserve::Only) => known,
        }
    }

    /// Whether it is spoken to over gRPC.
    pub fn is_grpc(&self) -> bool {
        self.base_url.as_deref().is_some_and(|url| url.starts_with("grpc://") || url.starts_with("grpcs://"))
    }

    /// What it speaks; `None` for a kind that nobody has a record of.
    pub fn dialect(&self) -> Option<&'static ProviderDef> {
        vendor::vendor(&self.kind).ok().map(|vendor| vendor.dialect)
    }

    /// Whether it has the Responses API, as far as is known of its kind.
    pub fn has_responses(&self) -> bool {
        vendor::vendor(&self.kind).is_ok_and(|vendor| vendor.responses)
    }

    /// Whether requests cost nothing.
    pub fn is_free(&self) -> bool {
        self.free.unwrap_or_else(|| vendor::vendor(&self.kind).is_ok_and(|vendor| vendor.engine))
    }
}

impl CredentialConfig {
    /// A credential that is a key and nothing more.
    pub fn of_key(key: &str) -> Self {
        Self { key: Some(Secret::new(key)), ..Self::default() }
    }

    /// Its name, if it stands at this position.
    pub fn name_at(&self, position: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("key-{}", position + 1))
    }
}
