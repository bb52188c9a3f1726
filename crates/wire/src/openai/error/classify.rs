//! What an upstream's error means for the request, the deployment and the credential.

use crate::json::tree::Tree;
use crate::json::{JsonError, Kind, Scanner};
use crate::openai::usage::{ANSWER_DEPTH_MAX, object_or_skip};

use super::retry_after_ms;

/// Longest message kept of an upstream's error, in bytes.
const MESSAGE_BYTES_MAX: usize = 512;
/// Longest code, or name of a field, kept, in bytes.
const CODE_BYTES_MAX: usize = 64;
/// Longest id kept, in bytes.
const ID_BYTES_MAX: usize = 128;
/// Findings of a validation that are told.
const FINDINGS_MAX: usize = 3;

/// What an upstream's error means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind of fault.
    pub kind: FaultKind,
    /// When the upstream wants to be asked again, in milliseconds from now, if it said so in seconds.
    pub retry_after_ms: Option<u64>,
    /// The upstream's own words, at most 512 bytes.
    pub message: Option<String>,
    /// The upstream's own code, or its type if it gave no code.
    pub code: Option<String>,
    /// The upstream's own type.
    pub kind_named: Option<String>,
    /// The field that the upstream says is at fault.
    pub param: Option<String>,
    /// The id that the upstream gave the answer in its body.
    pub request_id: Option<String>,
}

impl Fault {
    /// The upstream's own code, if it is more than its type.
    pub fn own_code(&self) -> Option<&str> {
        self.code.as_deref().filter(|code| Some(*code) != self.kind_named.as_deref())
    }
}

/// The kinds of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The request is at fault.
    Client,
    /// It may pass (500, 502, 504, 408, 409, 424, 425 and the like).
    Transient,
    /// Too much to do (503, 529).
    Overloaded,
    /// The credential was refused (401, 403).
    CredentialDead,
    /// The credential has used up what it may (429, 402).
    CredentialQuota,
    /// The prompt does not fit.
    ContextLength,
    /// The content policy refused the request.
    ContentPolicy,
    /// The upstream does not know the model or the operation (404, 405, 501).
    ModelMissing,
    /// The answer is not one the protocol allows; redirects are never followed.
    Protocol,
}

/// What the answer `status` with `body` means. A `retry_after` date needs a clock and is left to
/// [`retry_after_ms`].
pub fn classify(status: u16, retry_after: Option<&str>, body: &[u8]) -> Fault {
    let Words { message, code, kind, param, request_id } = words(body);
    let named = |needles: &[&str]| {
        [code.as_deref(), kind.as_deref()].into_iter().flatten().any(|name| needles.contains(&name))
    };
    let fault = match status {
        400 | 413 | 422 if named(&CONTEXT_CODES) || message.as_deref().is_some_and(tells_context) => {
            FaultKind::ContextLength
        }
        400 | 403 | 422 if named(&POLICY_CODES) => FaultKind::ContentPolicy,
        401 | 403 => FaultKind::CredentialDead,
        402 | 429 => FaultKind::CredentialQuota,
        404 if named(&RESOURCE_CODES) || message.as_deref().is_some_and(tells_resource) => FaultKind::Client,
        404 | 405 | 501 => FaultKind::ModelMissing,
        // Engines say with 424 that they failed at generating.
        408 | 409 | 424 | 425 => FaultKind::Transient,
        400..=499 => FaultKind::Client,
        503 | 529 => FaultKind::Overloaded,
        500..=599 => FaultKind::Transient,
        _ => FaultKind::Protocol,
    };
    let dateless = retry_after.filter(|value| !value.contains(','));
    Fault {
        kind: fault,
        retry_after_ms: dateless.and_then(|value| retry_after_ms(value, 0)),
        message: message.map(|text| cut(text, MESSAGE_BYTES_MAX)),
        code: code.or_else(|| kind.clone()).map(|text| cut(text, CODE_BYTES_MAX)),
        kind_named: kind.map(|text| cut(text, CODE_BYTES_MAX)),
        param: param.map(|text| cut(text, CODE_BYTES_MAX)),
        request_id: request_id.map(|text| cut(text, ID_BYTES_MAX)),
    }
}

const CONTEXT_CODES: [&str; 5] = [
    "context_length_exceeded",
    "exceed_context_size_error",
    "context_window_exceeded",
    "string_above_max_length",
    "max_tokens_exceeded",
];

const POLICY_CODES: [&str; 4] =
    ["content_filter", "content_policy_violation", "moderation_blocked", "responsible_ai_policy_violation"];

const RESOURCE_CODES: [&str; 4] =
    ["previous_response_not_found", "response_not_found", "conversation_not_found", "file_not_found"];

/// A 404 about something that the request names besides its model. Whoever names what is not there must not make the
/// deployment look as if it lacked the operation.
fn tells_resource(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    [
        "previous response",
        "response with id",
        "conversation with id",
        "file with id",
        "no such file",
        "prompt with id",
    ]
    .iter()
    .any(|phrase| message.contains(phrase))
}

/// Engines that give no code of their own say it in words.
fn tells_context(message: &str) -> bool {
    ["maximum context length", "longer than the model's context length", "exceeds the available context size"]
        .iter()
        .any(|phrase| message.contains(phrase))
}

#[derive(Default)]
struct Words {
    message: Option<String>,
    code: Option<String>,
    kind: Option<String>,
    param: Option<String>,
    request_id: Option<String>,
}

fn words(body: &[u8]) -> Words {
    let mut found = Words::default();
    if let Ok(text) = std::str::from_utf8(body) {
        // What was read before a body turns out malformed is still the upstream's own words.
        let _ = read_words(&mut Scanner::new(text, ANSWER_DEPTH_MAX), &mut found);
        let plain = text.trim();
        if found.message.is_none() && !plain.is_empty() && !plain.starts_with(['{', '[', '<']) {
            found.message = Some(cut(plain.to_owned(), MESSAGE_BYTES_MAX));
        }
    }
    found
}

/// `{"error":{"message","type","code"}}`, `{"error":"…"}`, the members at the top (older vLLM), or the findings of a
/// validation as `detail` (FastAPI) or in `message` (Mistral).
fn read_words(scanner: &mut Scanner<'_>, found: &mut Words) -> Result<(), JsonError> {
    let Some(mut members) = object_or_skip(scanner)? else { return Ok(()) };
    while let Some(key) = scanner.next_key(&mut members)? {
        match key.raw() {
            "error" if scanner.peek()? == Kind::Object => read_error(scanner, found)?,
            "response" if scanner.peek()? == Kind::Object => read_response(scanner, found)?,
            "error" | "message" | "detail" => keep_message(scanner, &mut found.message)?,
            "code" => keep(scanner, &mut found.code)?,
            "type" => keep(scanner, &mut found.kind)?,
            "param" => keep(scanner, &mut found.param)?,
            "request_id" => keep(scanner, &mut found.request_id)?,
            _ => drop(scanner.skip_value()?),
        }
    }
    Ok(())
}

/// A failed response carries its error inside.
fn read_response(scanner: &mut Scanner<'_>, found: &mut Words) -> Result<(), JsonError> {
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        if key.is("error") && scanner.peek()? == Kind::Object {
            read_error(scanner, found)?;
        } else {
            scanner.skip_value()?;
        }
    }
    Ok(())
}

fn read_error(scanner: &mut Scanner<'_>, found: &mut Words) -> Result<(), JsonError> {
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        match key.raw() {
            "message" | "detail" => keep_message(scanner, &mut found.message)?,
            "code" => keep(scanner, &mut found.code)?,
            "type" => keep(scanner, &mut found.kind)?,
            "param" => keep(scanner, &mut found.param)?,
            _ => drop(scanner.skip_value()?),
        }
    }
    Ok(())
}

fn keep(scanner: &mut Scanner<'_>, slot: &mut Option<String>) -> Result<(), JsonError> {
    if scanner.peek()? == Kind::String {
        if let Some(text) = scanner.string()?.decode().filter(|text| !text.is_empty()) {
            *slot = Some(text.into_owned());
        }
        return Ok(());
    }
    scanner.skip_value().map(drop)
}

/// A message, which may be more than a text.
fn keep_message(scanner: &mut Scanner<'_>, slot: &mut Option<String>) -> Result<(), JsonError> {
    if !matches!(scanner.peek()?, Kind::Array | Kind::Object) {
        return keep(scanner, slot);
    }
    let span = scanner.skip_value()?;
    if slot.is_none() {
        *slot = Some(told(scanner.slice(span))).filter(|text| !text.is_empty());
    }
    Ok(())
}

/// What a list or an object says: the findings of a validation with their places, or its JSON as it is.
fn told(json: &str) -> String {
    let Ok(tree) = Tree::parse(json, ANSWER_DEPTH_MAX) else { return String::new() };
    let list = tree.get("detail").unwrap_or(&tree);
    let findings: Vec<String> = list.items().iter().filter_map(finding).take(FINDINGS_MAX).collect();
    if !findings.is_empty() {
        return findings.join("; ");
    }
    if let Some(text) = list.text().or_else(|| list.get("msg")?.text()) {
        return text.to_owned();
    }
    // Empty ones say nothing.
    if json.bytes().any(|byte| byte.is_ascii_alphanumeric()) { json.to_owned() } else { String::new() }
}

/// `{"loc":["body","messages",0],"msg":"field required"}` as `body.messages.0: field required`.
fn finding(found: &Tree<'_>) -> Option<String> {
    let what = found.get("msg").or_else(|| found.get("message"))?.text()?;
    let place = |part: &Tree<'_>| part.text().unwrap_or(part.raw()).to_owned();
    let places: Vec<String> =
        found.get("loc").map(|at| at.items().iter().map(place).collect()).unwrap_or_default();
    Some(if places.is_empty() { what.to_owned() } else { format!("{}: {what}", places.join(".")) })
}

fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: FaultKind) {
        assert_eq!(classify(status, None, body.as_bytes()).kind, expected, "{status} {body}");
    }

    #[test]
    fn statuses_and_codes_map_to_kinds() {
        let coded =
            |code: &str| format!(r#"{{"error":{{"message":"no","type":"t","param":null,"code":"{code}"}}}}"#);
        check(400, &coded("context_length_exceeded"), FaultKind::ContextLength);
        check(
            400,
            r#"{"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_ctx":64}}"#,
            FaultKind::ContextLength,
        );
        check(
            400,
            r#"{"object":"error","message":"This model's maximum context length is 64 tokens","code":400}"#,
            FaultKind::ContextLength,
        );
        check(400, &coded("content_filter"), FaultKind::ContentPolicy);
        check(400, &coded("invalid_value"), FaultKind::Client);
        check(422, "", FaultKind::Client);
        check(401, "", FaultKind::CredentialDead);
        check(403, "", FaultKind::CredentialDead);
        for status in [404, 405, 501] {
            check(status, r#"{"detail":"Not Found"}"#, FaultKind::ModelMissing);
        }
        check(404, &coded("model_not_found"), FaultKind::ModelMissing);
        check(404, &coded("previous_response_not_found"), FaultKind::Client);
        check(
            404,
            r#"{"error":{"message":"Response with id 'resp_1' not found.","type":"invalid_request_error","code":null}}"#,
            FaultKind::Client,
        );
        check(408, "", FaultKind::Transient);
        check(
            424,
            r#"{"error":"Request failed during generation","error_type":"generation"}"#,
            FaultKind::Transient,
        );
        check(429, "", FaultKind::CredentialQuota);
        for status in [500, 502, 504] {
            check(status, "<html>", FaultKind::Transient);
        }
        check(503, "", FaultKind::Overloaded);
        check(529, "", FaultKind::Overloaded);
        for status in [101, 204, 302, 307, 600] {
            check(status, "", FaultKind::Protocol);
        }
    }

    #[test]
    fn findings_of_a_validation_are_told_with_their_places() {
        let check = |body: &str, expected: Option<&str>| {
            let fault = classify(422, None, body.as_bytes());
            assert_eq!((fault.kind, fault.message.as_deref()), (FaultKind::Client, expected), "{body}");
        };
        let found =
            r#"[{"type":"missing","loc":["body","messages",0,"content"],"msg":"Field required","input":{}}]"#;
        let told = "body.messages.0.content: Field required";
        check(&format!(r#"{{"detail":{found}}}"#), Some(told));
        let mistral = format!(
            r#"{{"object":"error","message":{{"detail":{found}}},"type":"invalid_request_error","param":null,"code":null}}"#
        );
        check(&mistral, Some(told));
        check(&format!(r#"{{"error":{{"message":{{"detail":{found}}}}}}}"#), Some(told));
        let many = r#"{"detail":[{"msg":"a"},{"loc":[],"msg":"b"},{"loc":["x"],"msg":"c"},{"msg":"d"}]}"#;
        check(many, Some("a; b; x: c"));
        check(r#"{"detail":{"msg":"no"}}"#, Some("no"));
        check(r#"{"detail":{"detail":"inner"}}"#, Some("inner"));
        check(r#"{"detail":{"reason":"odd"}}"#, Some(r#"{"reason":"odd"}"#));
        check(r#"{"detail":[]}"#, None);
        check(r#"{"message":"words","detail":[{"msg":"a"}]}"#, Some("words"));
        let long = format!(r#"{{"detail":{{"reason":"{}"}}}}"#, "x".repeat(1_000));
        assert_eq!(classify(422, None, long.as_bytes()).message.map(|text| text.len()), Some(512));
    }

    #[test]
    fn the_field_and_the_id_are_kept() {
        let body =
            r#"{"error":{"message":"m","type":"t","param":"messages[0]","code":"c"},"request_id":"req_1"}"#;
        let fault = classify(500, None, body.as_bytes());
        assert_eq!(
            (fault.param.as_deref(), fault.request_id.as_deref()),
            (Some("messages[0]"), Some("req_1"))
        );
        assert_eq!(fault.own_code(), Some("c"));
        let typed = classify(500, None, br#"{"error":{"message":"m","type":"t","code":null}}"#);
        assert_eq!((typed.code.as_deref(), typed.own_code()), (Some("t"), None));
    }

    #[test]
    fn words_are_kept_and_bounded() {
        let long = format!(r#"{{"error":{{"message":"{}","code":"slow"}}}}"#, "é".repeat(400));
        let fault = classify(429, Some("7"), long.as_bytes());
        assert_eq!(fault.message.unwrap().len(), 512);
        assert_eq!(fault.code.as_deref(), Some("slow"));
        assert_eq!(fault.retry_after_ms, Some(7_000));
        assert_eq!(classify(500, None, b"upstream exploded").message.as_deref(), Some("upstream exploded"));
        assert_eq!(classify(500, None, br#"{"error":"no gpu"}"#).message.as_deref(), Some("no gpu"));
        assert_eq!(classify(500, None, b"\xff\xfe").message, None);
        assert_eq!(classify(503, Some("Sun, 06 Nov 1994 08:49:37 GMT"), b"").retry_after_ms, None);
    }
}
