//! What a provider said, in the flow's words.

use std::time::Duration;

use bytes::Bytes;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Input, Usage};
use pointsman_routing::{Failure, FailureClass};
use pointsman_wire::dialect::NO_HEADERS;
use pointsman_wire::openai::error::{Fault, FaultKind, classify};
use pointsman_wire::openai::sse::StreamError;
use pointsman_wire::openai::usage;

use super::Exchange;
use crate::snapshot::Target;

/// A failure that no answer tells more of.
pub(super) fn failure(class: FailureClass, processed: Processed) -> Failure {
    Failure { class, processed, status: None, retry_after: None }
}

/// A refusal in the flow's words.
pub(super) fn refused(status: u16, fault: &Fault) -> Failure {
    let class = match fault.kind {
        FaultKind::Client => FailureClass::Client,
        FaultKind::Transient => FailureClass::Transient,
        FaultKind::Overloaded => FailureClass::Overloaded,
        FaultKind::CredentialDead => FailureClass::CredentialDead,
        FaultKind::CredentialQuota => FailureClass::CredentialQuota,
        FaultKind::ContextLength => FailureClass::ContextLength,
        FaultKind::ContentPolicy => FailureClass::ContentPolicy,
        FaultKind::ModelMissing => FailureClass::ModelMissing,
        FaultKind::Protocol => FailureClass::Protocol,
    };
    let processed = match status {
        // A gateway in between can say so after the work was done, and billed.
        502 | 504 => Processed::Maybe,
        // It failed or gave up at generating, whatever the status says of whose fault that is.
        408 | 424 | 500.. => Processed::RefusedWithError,
        _ => Processed::No,
    };
    Failure {
        class,
        processed,
        status: Some(status),
        retry_after: fault.retry_after_ms.map(Duration::from_millis),
    }
}

/// What a provider says was used.
pub(super) fn known(usage: &usage::Usage) -> Usage {
    Usage {
        tokens_in: usage.tokens_in,
        tokens_in_cached: usage.tokens_in_cached,
        tokens_in_cache_written: usage.tokens_in_cache_written,
        tokens_in_cache_written_1h: usage.tokens_in_cache_written_1h,
        tokens_in_image: usage.tokens_in_image,
        tokens_in_audio: usage.tokens_in_audio,
        tokens_out_reasoning: usage.tokens_out_reasoning,
        tokens_out_audio: usage.tokens_out_audio,
        tokens_out: usage.tokens_out,
        off_list: usage.off_list,
        estimated: false,
    }
}

/// What a provider said about its failure.
pub(super) struct ProviderError {
    /// Its body, cut to what is configured.
    pub body: Bytes,
    /// What that means.
    pub fault: Fault,
    /// The dialect that the body is in.
    pub dialect: &'static str,
}

/// What an error within a provider's stream means: what is said of it, and the failure it is.
pub(super) fn fault_of(error: &StreamError, target: Option<&Target>) -> (ProviderError, Failure) {
    let status = error.status.filter(|status| (400..600).contains(status)).unwrap_or(500);
    let body =
        serde_json::json!({"error": {"message": error.message, "type": error.kind, "code": error.code}});
    let body = Bytes::from(body.to_string());
    let fault = match target {
        Some(target) => target.endpoint.vendor.dialect.dialect.fault(status, NO_HEADERS, &body),
        None => classify(status, None, &body),
    };
    let failure = refused(status, &fault);
    (ProviderError { body, fault, dialect: "openai" }, failure)
}

impl Exchange {
    /// Says aloud what an operator has to look at: a credential that its provider refuses.
    pub(super) fn alert(&self, input: &Input) {
        if let (Input::Failed(failure), Some(attempt)) = (input, self.flow.attempt())
            && failure.class == FailureClass::CredentialDead
        {
            let (provider, credential) =
                (&attempt.provider, attempt.credential_name.as_deref().unwrap_or("none"));
            tracing::error!(%provider, credential, status = failure.status, "the provider refuses the credential; it is out until its secret changes or the admin API restores it");
        }
    }
}
