//! Who may ask.

use pointsman_routing::facts::Lane;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Who may ask.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// Client keys. Without any, everybody may ask, and the gateway listens on loopback only.
    pub keys: Vec<KeyConfig>,
    /// Keys of the admin API. Without any, the admin API is open, and listens on loopback only.
    pub admin_keys: Vec<AdminKeyConfig>,
}

/// A client key.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// What records and logs call it. Unique.
    pub name: String,
    /// Who it belongs to. Default: its name.
    pub tenant: Option<String>,
    /// The key itself; or give `key_sha256`.
    pub key: Option<Secret>,
    /// The SHA-256 of the key in hexadecimal, so that the key itself stands nowhere (`pointsman keys` makes both).
    pub key_sha256: Option<Secret>,
    /// The models it may use, by name (not by alias); `*` stands for anything. Default: all.
    pub models: Option<Vec<String>>,
    /// The hints its tenant may set by `x-pointsman-*` headers. Default: session, region, tags,
    /// deadline_ms, first_token_ms, per_token_ms.
    pub headers: Option<Vec<Hint>>,
    /// Whether its requests may name other models to try when the one asked for cannot serve, by `x-pointsman-fallback`
    /// or the body's `fallbacks`: 8 at most, with `@version` if need be. Without any keys everybody may. Default: false.
    #[serde(default)]
    pub may_fallback: bool,
    /// The lane of its traffic where a request does not say. Default: live.
    #[serde(default)]
    pub lane: LaneName,
}

/// A key of the admin API.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminKeyConfig {
    /// What the audit log calls it. Unique.
    pub name: String,
    /// The key itself; or give `key_sha256`.
    pub key: Option<Secret>,
    /// The SHA-256 of the key in hexadecimal.
    pub key_sha256: Option<Secret>,
}

/// Something a client may say about its request by header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// `x-pointsman-session`: keeps requests together.
    Session,
    /// `x-pointsman-region`: where it would like to be served.
    Region,
    /// `x-pointsman-tags`: what the deployment must carry, with commas between.
    Tags,
    /// `x-pointsman-deadline-ms`: when it wants the whole answer.
    DeadlineMs,
    /// `x-pointsman-first-token-ms`: how soon it would like the first token; a preference, never a limit.
    FirstTokenMs,
    /// `x-pointsman-per-token-ms`: how fast it would like those after it; a preference, never a limit.
    PerTokenMs,
    /// `x-pointsman-lane`: `live` or `batch`.
    Lane,
}

/// A lane by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LaneName {
    /// Somebody waits.
    #[default]
    Live,
    /// Nobody waits.
    Batch,
}

impl Hint {
    /// Every hint.
    pub const ALL: [Self; 7] = [
        Self::Session,
        Self::Region,
        Self::Tags,
        Self::DeadlineMs,
        Self::FirstTokenMs,
        Self::PerTokenMs,
        Self::Lane,
    ];
    /// Those that a tenant may set where nothing else is configured.
    const USUAL: [Self; 6] =
        [Self::Session, Self::Region, Self::Tags, Self::DeadlineMs, Self::FirstTokenMs, Self::PerTokenMs];

    /// The header, in lower case.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Session => "x-pointsman-session",
            Self::Region => "x-pointsman-region",
            Self::Tags => "x-pointsman-tags",
            Self::DeadlineMs => "x-pointsman-deadline-ms",
            Self::FirstTokenMs => "x-pointsman-first-token-ms",
            Self::PerTokenMs => "x-pointsman-per-token-ms",
            Self::Lane => "x-pointsman-lane",
        }
    }
}

impl KeyConfig {
    /// Who the key belongs to.
    pub fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(&self.name)
    }

    /// The key itself, if it is configured.
    pub fn secret(&self) -> Option<&str> {
        self.key.as_ref().map(Secret::expose)
    }

    /// The hash of the key, if it is configured.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.key_sha256.as_ref().map(Secret::expose).and_then(parse_sha256)
    }

    /// The hints its tenant may set.
    pub fn hints(&self) -> Vec<Hint> {
        self.headers.clone().unwrap_or_else(|| Hint::USUAL.to_vec())
    }

    /// The lane of its traffic where a request does not say.
    pub fn lane(&self) -> Lane {
        match self.lane {
            LaneName::Live => Lane::Live,
            LaneName::Batch => Lane::Batch,
        }
    }
}

impl AdminKeyConfig {
    /// The key itself, if it is configured.
    pub fn secret(&self) -> Option<&str> {
        self.key.as_ref().map(Secret::expose)
    }

    /// The hash of the key, if it is configured.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.key_sha256.as_ref().map(Secret::expose).and_then(parse_sha256)
    }
}

/// The bytes of a hexadecimal SHA-256.
pub(crate) fn parse_sha256(hex: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
