//! Errors to clients, and what Google's errors mean.

use crate::json::quote;
use crate::json::tree::Tree;
use crate::json::write::object;
use crate::openai::error::{self, ErrorBody, Fault, FaultKind};
use crate::openai::sse::StreamError;

use super::words::{take, take_items, take_text};

/// Nesting that is read in errors.
const DEPTH_MAX: usize = 32;
/// The longest wait that is believed, in milliseconds: a day.
const RETRY_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// The canonical name (`google.rpc.Code`) of a status.
pub(super) const fn status_name(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        405 | 501 => "UNIMPLEMENTED",
        409 => "ABORTED",
        408 | 504 => "DEADLINE_EXCEEDED",
        429 => "RESOURCE_EXHAUSTED",
        499 => "CANCELLED",
        400..=499 => "INVALID_ARGUMENT",
        502 | 503 | 529 => "UNAVAILABLE",
        _ => "INTERNAL",
    }
}

/// The body of an error: who failed, the code and the field stand in its details.
pub(super) fn error_body(error: &ErrorBody, id: &str) -> String {
    let info = object(|it| {
        it.text("@type", "type.googleapis.com/google.rpc.ErrorInfo");
        it.text("reason", error.code.as_deref().unwrap_or(error.kind)).text("domain", "pointsman");
        it.object("metadata", |it| {
            it.text("who", &error.who.name()).text("request_id", id);
            it.text_if("provider_request_id", error.provider_request_id.as_deref());
        });
    });
    let violation = error.param.as_deref().map(|param| {
        object(|it| {
            it.text("@type", "type.googleapis.com/google.rpc.BadRequest");
            let field = object(|it| _ = it.text("field", param).text("description", &error.message));
            it.array("fieldViolations", [field]);
        })
    });
    body(error.status, &error.message, [info].into_iter().chain(violation))
}

fn body(status: u16, message: &str, details: impl IntoIterator<Item = String>) -> String {
    object(|it| {
        it.object("error", |it| {
            it.count("code", u64::from(status)).text("message", message).text("status", status_name(status));
            it.array("details", details);
        });
    })
}

/// An error inside a stream.
pub(super) fn stream_error_body(error: &StreamError) -> String {
    let reason = error.code.as_deref().or(error.kind.as_deref());
    let info = reason.map(|reason| {
        format!(
            r#"{{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":{},"domain":"pointsman"}}"#,
            quote(reason)
        )
    });
    let message = error.message.as_deref().unwrap_or("the provider failed");
    body(error.status.unwrap_or(500), message, info)
}

/// An error that came inside a stream.
pub(super) fn stream_error(data: &str) -> StreamError {
    let status = Tree::parse(data, DEPTH_MAX).ok().and_then(|tree| {
        let code = tree.get("error")?.get("code")?.count()?;
        u16::try_from(code).ok().filter(|code| (400..600).contains(code))
    });
    let fault = classify(status.unwrap_or(500), None, data.as_bytes());
    StreamError { status, kind: fault.kind_named, code: fault.code, message: fault.message }
}

/// What an error of Google's means: by its canonical name first, then by its HTTP status.
pub(super) fn classify(status: u16, retry_after: Option<&str>, body: &[u8]) -> Fault {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let tree = Tree::parse(text, DEPTH_MAX).ok();
    // A stream that is an array fails as an array.
    let tree = tree.map(|tree| tree.items().first().cloned().unwrap_or(tree));
    let plain = tree.as_ref().map_or(body, |tree| tree.raw().as_bytes());
    let mut fault = error::classify(status, retry_after, plain);
    let Some(error) = tree.and_then(|tree| tree.into_members().take("error")) else { return fault };
    let mut error = error.into_members();
    let name = take_text(&mut error, "status");
    let mut reason = None;
    for detail in take_items(&mut error, "details") {
        let mut detail = detail.into_members();
        let kind = take_text(&mut detail, "@type").unwrap_or_default();
        if kind.ends_with("RetryInfo") {
            let delay = take(&mut detail, "retryDelay").and_then(Tree::into_text);
            fault.retry_after_ms = fault.retry_after_ms.or_else(|| delay_ms(&delay?));
        } else if kind.ends_with("ErrorInfo") {
            reason = take_text(&mut detail, "reason");
        }
    }
    let message = fault.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    if let Some(kind) = name.as_deref().and_then(|name| kind_of(name, reason.as_deref(), &message)) {
        fault.kind = kind;
    }
    fault.code = reason.map(|reason| short(&reason)).or_else(|| name.as_deref().map(short)).or(fault.code);
    fault.kind_named = name.as_deref().map(short).or(fault.kind_named);
    fault
}

fn short(name: &str) -> String {
    const NAME_BYTES_MAX: usize = 64;
    name[..name.floor_char_boundary(NAME_BYTES_MAX)].to_owned()
}

/// What a canonical name means; `None`: nothing that the status does not say.
fn kind_of(name: &str, reason: Option<&str>, message: &str) -> Option<FaultKind> {
    let tells = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    let of_another = || tells(&["cachedcontent", "cached content", "the file ", "files/"]);
    Some(match name {
        // A key that is wrong is a wrong argument to Google.
        "INVALID_ARGUMENT"
            if reason == Some("API_KEY_INVALID") || tells(&["api key not valid", "api key expired"]) =>
        {
            FaultKind::CredentialDead
        }
        "INVALID_ARGUMENT" | "OUT_OF_RANGE"
            if tells(&[
                "exceeds the maximum number of tokens",
                "input token count",
                "maximum context length",
            ]) =>
        {
            FaultKind::ContextLength
        }
        // Where the account may not be served at all, the request is not at fault.
        "FAILED_PRECONDITION" if tells(&["location is not supported", "billing"]) => {
            FaultKind::CredentialDead
        }
        "INVALID_ARGUMENT" | "FAILED_PRECONDITION" | "OUT_OF_RANGE" | "ALREADY_EXISTS" => FaultKind::Client,
        // What the request names of another account, or what is gone.
        "PERMISSION_DENIED" | "NOT_FOUND" if of_another() => FaultKind::Client,
        "PERMISSION_DENIED" | "UNAUTHENTICATED" => FaultKind::CredentialDead,
        "NOT_FOUND" | "UNIMPLEMENTED" => FaultKind::ModelMissing,
        "RESOURCE_EXHAUSTED" => FaultKind::CredentialQuota,
        "UNAVAILABLE" => FaultKind::Overloaded,
        "DEADLINE_EXCEEDED" | "INTERNAL" | "UNKNOWN" | "ABORTED" | "CANCELLED" | "DATA_LOSS" => {
            FaultKind::Transient
        }
        _ => return None,
    })
}

/// A duration such as `36.5s`, in milliseconds, rounded up.
fn delay_ms(text: &str) -> Option<u64> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    (seconds >= 0.0).then(|| ((seconds * 1_000.0).ceil() as u64).min(RETRY_MS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u16, status: &str, message: &str) -> String {
        format!(r#"{{"error":{{"code":{code},"message":"{message}","status":"{status}"}}}}"#)
    }

    #[test]
    fn canonical_names_map_to_kinds() {
        let check = |code: u16, status: &str, message: &str, expected: FaultKind| {
            let fault = classify(code, None, told(code, status, message).as_bytes());
            assert_eq!(fault.kind, expected, "{status} {message}");
            assert_eq!((fault.code.as_deref(), fault.message.as_deref()), (Some(status), Some(message)));
        };
        check(400, "INVALID_ARGUMENT", "Invalid JSON payload received.", FaultKind::Client);
        check(
            400,
            "INVALID_ARGUMENT",
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            FaultKind::ContextLength,
        );
        check(
            400,
            "INVALID_ARGUMENT",
            "API key not valid. Please pass a valid API key.",
            FaultKind::CredentialDead,
        );
        check(
            400,
            "FAILED_PRECONDITION",
            "User location is not supported for the API use.",
            FaultKind::CredentialDead,
        );
        check(401, "UNAUTHENTICATED", "Request had invalid credentials.", FaultKind::CredentialDead);
        check(
            403,
            "PERMISSION_DENIED",
            "Method doesn't allow unregistered callers",
            FaultKind::CredentialDead,
        );
        check(403, "PERMISSION_DENIED", "CachedContent not found (or permission denied)", FaultKind::Client);
        check(404, "NOT_FOUND", "models/x is not found for API version v1beta", FaultKind::ModelMissing);
        check(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota", FaultKind::CredentialQuota);
        check(503, "UNAVAILABLE", "The model is overloaded.", FaultKind::Overloaded);
        check(504, "DEADLINE_EXCEEDED", "Deadline expired", FaultKind::Transient);
        check(500, "INTERNAL", "An internal error has occurred.", FaultKind::Transient);
        check(418, "TEAPOT", "no", FaultKind::Client);
    }

    #[test]
    fn what_retry_info_says_is_heard_unless_the_header_says_it() {
        let body = r#"[{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED","details":[
            {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[]},
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36.0001s"}]}}]"#;
        let fault = classify(429, None, body.as_bytes());
        assert_eq!((fault.kind, fault.retry_after_ms), (FaultKind::CredentialQuota, Some(36_001)));
        assert_eq!(fault.message.as_deref(), Some("slow"));
        assert_eq!(classify(429, Some("7"), body.as_bytes()).retry_after_ms, Some(7_000));
        for (text, expected) in
            [("0s", Some(0)), ("1e99s", Some(RETRY_MS_MAX)), ("-1s", None), ("NaNs", None), ("3", None)]
        {
            assert_eq!(delay_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn without_a_name_the_status_counts() {
        assert_eq!(classify(503, None, b"<html>").kind, FaultKind::Overloaded);
        assert_eq!(classify(429, None, b"").kind, FaultKind::CredentialQuota);
        assert_eq!(classify(500, None, b"\xff").kind, FaultKind::Transient);
    }

    #[test]
    fn errors_name_the_field_and_who_failed() {
        let error = ErrorBody::malformed("`contents` is missing").with_param("contents");
        let json = error_body(&error, "req_1");
        let expected = concat!(
            r#"{"error":{"code":400,"message":"`contents` is missing","status":"INVALID_ARGUMENT","details":["#,
            r#"{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"invalid_request_error","domain":"pointsman","#,
            r#""metadata":{"who":"router","request_id":"req_1"}},"#,
            r#"{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":["#,
            r#"{"field":"contents","description":"`contents` is missing"}]}]}}"#
        );
        assert_eq!(json, expected);
    }
}
