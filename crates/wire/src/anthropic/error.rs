//! Errors to clients, and what a provider's errors mean.

use bytes::Bytes;

use crate::dialect::CONVERTED_DEPTH_MAX;
use crate::json::tree::Tree;
use crate::json::write::{Object, object};
use crate::openai::error::{ErrorBody, Fault, FaultKind, classify};
use crate::openai::sse::StreamError;

/// The HTTP status of an error: 529 says that there is too much to do, where other dialects have no word but 503.
pub fn status(error: &ErrorBody) -> u16 {
    if error.code.as_deref() == Some("overloaded") { 529 } else { error.status }
}

/// The body of an error: `{"type":"error","error":{"type","message"},"request_id"}`.
pub fn error_json(error: &ErrorBody, id: &str) -> String {
    let inner = |it: &mut Object| {
        it.text("type", kind_of_status(error.status)).text("message", &error.message);
        it.text_if("param", error.param.as_deref()).text_if("code", error.code.as_deref());
        it.text("who", &error.who.name());
        it.text_if("provider_request_id", error.provider_request_id.as_deref());
    };
    object(|it| {
        it.text("type", "error").object("error", inner);
        if !id.is_empty() {
            it.text("request_id", id);
        }
    })
}

/// The event that tells a client that its stream was cut off. No `message_stop` follows it.
pub fn error_event(error: &ErrorBody, id: &str) -> Bytes {
    Bytes::from(format!("event: error\ndata: {}\n\n", error_json(error, id)))
}

/// The `type` of an error, by its status.
pub(super) fn kind_of_status(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 | 529 => "overloaded_error",
        _ => "api_error",
    }
}

/// Every `type` of an error and the status that it stands for.
const KINDS: [(&str, u16); 10] = [
    ("invalid_request_error", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
    ("rate_limit_error", 429),
    ("api_error", 500),
    ("timeout_error", 504),
    ("overloaded_error", 529),
];

fn status_of_kind(kind: &str) -> Option<u16> {
    KINDS.iter().find(|(name, _)| *name == kind).map(|(_, status)| *status)
}

/// The `type` under which clients of this dialect are told of an error inside a stream, whoever reported it.
pub(super) fn kind_of(error: &StreamError) -> &'static str {
    let named = error.kind.as_deref().and_then(|kind| KINDS.iter().find(|(name, _)| *name == kind));
    match (named, error.status) {
        (Some((name, _)), _) => name,
        (None, Some(status)) => kind_of_status(status),
        (None, None) => "api_error",
    }
}

/// What an error means. A provider says with the type what others say with the status, and some things only in words.
pub(super) fn fault(status: u16, retry_after: Option<&str>, body: &[u8]) -> Fault {
    let mut fault = classify(status, retry_after, body);
    let text = std::str::from_utf8(body).unwrap_or_default();
    if let Ok(tree) = Tree::parse(text, CONVERTED_DEPTH_MAX)
        && let Some(error) = tree.get("error")
    {
        let kind = error.get("type").and_then(Tree::text).map(|kind| cut(kind, CODE_BYTES_MAX));
        let code = error.get("details").and_then(|details| details.get("error_code")).and_then(Tree::text);
        let code = code.map(|code| cut(code, CODE_BYTES_MAX));
        fault.code = code.or_else(|| kind.clone()).or(fault.code);
        fault.kind_named = kind.or(fault.kind_named);
    }
    let words = fault.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    let said = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    // Only errors have a meaning; what is no error of the protocol was told by its status.
    let kind = fault.kind_named.as_deref().filter(|_| (400..600).contains(&status));
    fault.kind = match kind {
        Some("overloaded_error") => FaultKind::Overloaded,
        Some("rate_limit_error" | "billing_error") => FaultKind::CredentialQuota,
        Some("authentication_error" | "permission_error") => FaultKind::CredentialDead,
        Some("not_found_error") if said(&RESOURCES) => FaultKind::Client,
        Some("not_found_error") => FaultKind::ModelMissing,
        Some("request_too_large") => FaultKind::Client,
        Some("timeout_error" | "api_error") => FaultKind::Transient,
        Some("invalid_request_error") if said(&CONTEXT) => FaultKind::ContextLength,
        // Not the client's fault, though it is told so.
        Some("invalid_request_error") if said(&SPENT) => FaultKind::CredentialQuota,
        Some("invalid_request_error") if said(&POLICY) => FaultKind::ContentPolicy,
        Some(_) | None => fault.kind,
    };
    fault
}

/// Longest type or code that is kept, in bytes.
const CODE_BYTES_MAX: usize = 64;

const CONTEXT: [&str; 3] = ["prompt is too long", "exceed context limit", "maximum context length"];
const SPENT: [&str; 2] = ["credit balance is too low", "reached your specified api usage limits"];
const POLICY: [&str; 1] = ["blocked by content filtering policy"];
const RESOURCES: [&str; 3] = ["file", "container", "thread"];

fn cut(text: &str, bytes_max: usize) -> String {
    text[..text.floor_char_boundary(bytes_max)].to_owned()
}

/// An error that a provider reports inside a stream.
pub(crate) fn stream_error(data: &str) -> StreamError {
    let known = fault(500, None, data.as_bytes());
    let status = known.kind_named.as_deref().and_then(status_of_kind);
    StreamError { status, kind: known.kind_named, code: known.code, message: known.message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::error::Invalid;

    fn body(kind: &str, message: &str) -> String {
        format!(
            r#"{{"error":{{"type":"{kind}","message":"{message}"}},"request_id":"req_1","type":"error"}}"#
        )
    }

    #[test]
    fn faults_are_told_by_type_and_words() {
        let check = |status: u16, kind: &str, message: &str, expected: FaultKind| {
            let fault = fault(status, Some("3"), body(kind, message).as_bytes());
            assert_eq!(fault.kind, expected, "{status} {kind} {message}");
            assert_eq!(fault.message.as_deref(), Some(message));
            assert_eq!((fault.kind_named.as_deref(), fault.retry_after_ms), (Some(kind), Some(3000)));
        };
        check(529, "overloaded_error", "Overloaded", FaultKind::Overloaded);
        check(500, "overloaded_error", "Overloaded", FaultKind::Overloaded);
        check(429, "rate_limit_error", "slow down", FaultKind::CredentialQuota);
        check(402, "billing_error", "pay", FaultKind::CredentialQuota);
        check(401, "authentication_error", "invalid x-api-key", FaultKind::CredentialDead);
        check(403, "permission_error", "no", FaultKind::CredentialDead);
        check(404, "not_found_error", "model: claude-9", FaultKind::ModelMissing);
        check(404, "not_found_error", "File not found: file_1", FaultKind::Client);
        check(413, "request_too_large", "Request exceeds the maximum size", FaultKind::Client);
        check(500, "api_error", "Internal server error", FaultKind::Transient);
        check(504, "timeout_error", "late", FaultKind::Transient);
        check(400, "invalid_request_error", "messages: empty", FaultKind::Client);
        let long = "prompt is too long: 210000 tokens > 200000 maximum";
        check(400, "invalid_request_error", long, FaultKind::ContextLength);
        let both = "input length and `max_tokens` exceed context limit: 1 + 2 > 2";
        check(400, "invalid_request_error", both, FaultKind::ContextLength);
        let poor = "Your credit balance is too low to access the Anthropic API.";
        check(400, "invalid_request_error", poor, FaultKind::CredentialQuota);
        let filtered = "Output blocked by content filtering policy";
        check(400, "invalid_request_error", filtered, FaultKind::ContentPolicy);
        assert_eq!(fault(502, None, b"<html>").kind, FaultKind::Transient);
        assert_eq!(fault(302, None, body("overloaded_error", "x").as_bytes()).kind, FaultKind::Protocol);
        let coded = r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"file_expired"}}}"#;
        assert_eq!(fault(400, None, coded.as_bytes()).code.as_deref(), Some("file_expired"));
    }

    #[test]
    fn conditions_have_their_type() {
        let check = |error: ErrorBody, expected_status: u16, kind: &str| {
            let text = error_json(&error, "req_1");
            let tree = Tree::parse(&text, 4).unwrap();
            let inner = tree.get("error").unwrap();
            assert_eq!(status(&error), expected_status, "{text}");
            assert_eq!(inner.get("type").and_then(Tree::text), Some(kind), "{text}");
            assert_eq!(tree.get("type").and_then(Tree::text), Some("error"));
            assert_eq!(tree.get("request_id").and_then(Tree::text), Some("req_1"));
            assert!(inner.get("message").is_some() && inner.get("who").is_some());
        };
        check(ErrorBody::bad_key("x"), 401, "authentication_error");
        check(ErrorBody::model_not_allowed("m"), 403, "permission_error");
        check(ErrorBody::model_not_found("m"), 404, "not_found_error");
        check(ErrorBody::from(Invalid::field("max_tokens", "missing")), 400, "invalid_request_error");
        check(ErrorBody::too_big(5), 413, "request_too_large");
        check(ErrorBody::rate_limited("tokens", "x"), 429, "rate_limit_error");
        check(ErrorBody::budget_exhausted("x"), 429, "rate_limit_error");
        check(ErrorBody::overloaded("x"), 529, "overloaded_error");
        check(ErrorBody::no_healthy_upstream("x"), 503, "overloaded_error");
        check(ErrorBody::upstream_connect_failed("p", None), 502, "api_error");
        check(ErrorBody::upstream_reset("p"), 502, "api_error");
        check(ErrorBody::upstream_timeout("p", "idle"), 504, "api_error");
        check(ErrorBody::internal("x"), 500, "api_error");
    }

    #[test]
    fn errors_in_streams_keep_the_status_they_stand_for() {
        let error = stream_error(&body("overloaded_error", "Overloaded"));
        assert_eq!((error.status, error.kind.as_deref()), (Some(529), Some("overloaded_error")));
        assert_eq!(kind_of(&error), "overloaded_error");
        assert_eq!(stream_error("nonsense").status, None);
        let foreign =
            StreamError { status: Some(429), kind: Some("tokens".to_owned()), ..StreamError::default() };
        assert_eq!(kind_of(&foreign), "rate_limit_error");
        assert_eq!(kind_of(&StreamError::default()), "api_error");
    }
}
