//! What errors of AWS mean.

use crate::json::tree::Tree;
use crate::openai::error::{Fault, FaultKind, classify};

/// Nesting of the body of an error.
const DEPTH_MAX: usize = 16;

/// What an answer with an error means. `errortype` is the header `x-amzn-errortype`, which names the exception; without it
/// the body is asked (`__type`), then the status.
pub fn fault(errortype: Option<&str>, status: u16, retry_after: Option<&str>, body: &[u8]) -> Fault {
    let mut fault = classify(status, retry_after, body);
    let tree = std::str::from_utf8(body).ok().and_then(|text| Tree::parse(text, DEPTH_MAX).ok());
    let text = |name: &str| tree.as_ref().and_then(|tree| tree.get(name)?.text());
    if let (None, Some(message)) = (&fault.message, text("Message")) {
        fault.message = Some(message[..message.floor_char_boundary(512)].to_owned());
    }
    let name = errortype.or_else(|| text("__type")).or_else(|| text("code")).map(short);
    let message = fault.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        fault.kind = kind(name, &message).unwrap_or(fault.kind);
        let name = name[..name.floor_char_boundary(64)].to_owned();
        (fault.code, fault.kind_named) = (Some(name.clone()), Some(name));
    } else if status == 400 {
        fault.kind = of_validation(&message).unwrap_or(fault.kind);
    } else if status == 403 && is_about_model(&message) {
        fault.kind = FaultKind::ModelMissing;
    } else if status == 424 {
        fault.kind = FaultKind::Transient;
    }
    fault
}

/// The name of an exception: `com.amazon.coral#ThrottlingException:http://internal/` is `ThrottlingException`.
fn short(name: &str) -> &str {
    let name = name.split(':').next().unwrap_or(name);
    name.rsplit('#').next().unwrap_or(name).trim()
}

fn kind(name: &str, message: &str) -> Option<FaultKind> {
    Some(match name {
        "ThrottlingException" | "TooManyRequestsException" | "ServiceQuotaExceededException" => {
            FaultKind::CredentialQuota
        }
        "ValidationException" => of_validation(message).unwrap_or(FaultKind::Client),
        // A model that the account may not use says nothing of what else it may.
        "AccessDeniedException" if is_about_model(message) => FaultKind::ModelMissing,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId" => FaultKind::CredentialDead,
        "ResourceNotFoundException" | "UnknownOperationException" => FaultKind::ModelMissing,
        "ModelNotReadyException" | "ServiceUnavailableException" => FaultKind::Overloaded,
        "ModelTimeoutException"
        | "InternalServerException"
        | "InternalFailure"
        | "ModelErrorException"
        | "ModelStreamErrorException" => FaultKind::Transient,
        _ => return None,
    })
}

/// One exception stands for all that is wrong with a request; its words tell which.
fn of_validation(message: &str) -> Option<FaultKind> {
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    if says(&[
        "input is too long",
        "prompt is too long",
        "too many input tokens",
        "too many tokens",
        "maximum context length",
        "context window",
        "input length and `max_tokens` exceed context limit",
        "exceeds the maximum number of input tokens",
        "exceed the model's maximum",
    ]) {
        Some(FaultKind::ContextLength)
    } else if says(&[
        "model identifier is invalid",
        "on-demand throughput isn",
        "doesn't support the model",
        "does not support the model",
        "unsupported model",
    ]) {
        Some(FaultKind::ModelMissing)
    } else if says(&["content filtering policy", "blocked by our content filters", "content_policy"]) {
        Some(FaultKind::ContentPolicy)
    } else {
        None
    }
}

fn is_about_model(message: &str) -> bool {
    message.contains("access to the model") || message.contains("model access is denied")
}

/// The status that an exception in a stream stands for.
pub(super) fn status_of(name: &str) -> Option<u16> {
    let is = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    if is(&["throttlingException", "modelNotReadyException"]) {
        Some(429)
    } else if is(&["validationException"]) {
        Some(400)
    } else if is(&["accessDeniedException"]) {
        Some(403)
    } else if is(&["resourceNotFoundException"]) {
        Some(404)
    } else if is(&["modelTimeoutException"]) {
        Some(408)
    } else if is(&["modelStreamErrorException", "modelErrorException"]) {
        Some(424)
    } else if is(&["internalServerException", "internalFailure", "internalError"]) {
        Some(500)
    } else if is(&["serviceUnavailableException"]) {
        Some(503)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_told_by_header_body_and_status() {
        use FaultKind as K;
        let check = |header: Option<&str>, status: u16, body: &str, expected: K| {
            let fault = fault(header, status, None, body.as_bytes());
            assert_eq!(fault.kind, expected, "{header:?} {status} {body}");
        };
        let said = |message: &str| format!(r#"{{"message":"{message}"}}"#);
        let long = said("Input is too long for requested model.");
        let url = Some("ValidationException:http://internal.amazon.com/coral/com.amazon.bedrock/");
        check(url, 400, &long, K::ContextLength);
        check(None, 400, &long, K::ContextLength);
        check(url, 400, &said("The provided model identifier is invalid."), K::ModelMissing);
        check(url, 400, &said("messages: at least one is required"), K::Client);
        check(Some("ThrottlingException"), 429, &said("Too many requests"), K::CredentialQuota);
        check(None, 429, r#"{"__type":"com.amazon#ThrottlingException"}"#, K::CredentialQuota);
        check(Some("ModelNotReadyException"), 429, "{}", K::Overloaded);
        check(Some("AccessDeniedException"), 403, &said("User is not authorized"), K::CredentialDead);
        let model = said("You don't have access to the model with the specified model ID.");
        check(Some("AccessDeniedException"), 403, &model, K::ModelMissing);
        check(None, 403, &model, K::ModelMissing);
        check(Some("ExpiredTokenException"), 403, "{}", K::CredentialDead);
        check(Some("ResourceNotFoundException"), 404, "{}", K::ModelMissing);
        check(Some("ModelTimeoutException"), 408, "{}", K::Transient);
        check(Some("ModelErrorException"), 424, "{}", K::Transient);
        check(None, 424, "{}", K::Transient);
        check(Some("InternalServerException"), 500, "{}", K::Transient);
        check(Some("ServiceUnavailableException"), 503, "{}", K::Overloaded);
        check(Some("SomethingNew"), 503, "no json", K::Overloaded);
        check(None, 302, "", K::Protocol);
    }

    #[test]
    fn the_name_and_the_words_are_kept() {
        let fault = fault(None, 403, Some("3"), br#"{"__type":"a.b#ExpiredTokenException","Message":"old"}"#);
        assert_eq!(fault.code.as_deref(), Some("ExpiredTokenException"));
        assert_eq!((fault.message.as_deref(), fault.retry_after_ms), (Some("old"), Some(3_000)));
    }
}
