//! What can go wrong with an attempt, as data: who is at fault, whether it may have been processed, when to return.

use std::time::Duration;

use serde::Serialize;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub class: FailureClass,
    /// Whether the provider can have processed (and billed) the request.
    pub processed: Processed,
    /// The status the provider answered with, if it answered.
    pub status: Option<u16>,
    /// When the provider wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// The kinds of failure; every provider's errors map to one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The request is at fault. Never retried, never held against the deployment.
    Client,
    /// No connection could be made.
    Connect,
    /// The deployment failed in a way that may pass (500, 502, 504, connection lost).
    Transient,
    /// The deployment said it has too much to do (503, 529).
    Overloaded,
    /// The credential was refused (401, 403).
    CredentialDead,
    /// The credential has used up what it may (429).
    CredentialQuota,
    /// The prompt does not fit this deployment.
    ContextLength,
    /// The provider's content policy refused the request.
    ContentPolicy,
    /// The answer is whole and does not fit the JSON schema that the request holds it to.
    SchemaMismatch,
    /// The deployment does not know the upstream model (404).
    ModelMissing,
    /// The deployment was drained, and the time for what was in flight was over.
    Drained,
    /// The provider broke its protocol.
    Protocol,
    /// No connection in time.
    ConnectTimeout,
    /// No content in time.
    FirstContentTimeout,
    /// Content stopped coming.
    IdleTimeout,
    /// The whole request ran out of time.
    TotalTimeout,
}

/// Whether the provider can have processed a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Processed {
    /// Certainly not: nothing was sent, or it was refused before work began.
    No,
    /// It answered with an error and no usage.
    RefusedWithError,
    /// It may have been processed and billed.
    Maybe,
}

impl FailureClass {
    /// Whether another deployment would say the same, or there is no time left to ask one.
    pub(crate) const fn is_about_the_request(self) -> bool {
        match self {
            Self::Client | Self::ContextLength | Self::ContentPolicy | Self::TotalTimeout => true,
            Self::Connect
            | Self::Transient
            | Self::Overloaded
            | Self::CredentialDead
            | Self::CredentialQuota
            | Self::SchemaMismatch
            | Self::ModelMissing
            | Self::Protocol
            | Self::ConnectTimeout
            | Self::FirstContentTimeout
            | Self::IdleTimeout
            | Self::Drained => false,
        }
    }

    /// The name in records, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Connect => "connect",
            Self::Transient => "transient",
            Self::Overloaded => "overloaded",
            Self::CredentialDead => "credential_dead",
            Self::CredentialQuota => "credential_quota",
            Self::ContextLength => "context_length",
            Self::ContentPolicy => "content_policy",
            Self::SchemaMismatch => "schema_mismatch",
            Self::ModelMissing => "model_missing",
            Self::Drained => "drained",
            Self::Protocol => "protocol",
            Self::ConnectTimeout => "connect_timeout",
            Self::FirstContentTimeout => "first_content_timeout",
            Self::IdleTimeout => "idle_timeout",
            Self::TotalTimeout => "total_timeout",
        }
    }
}
