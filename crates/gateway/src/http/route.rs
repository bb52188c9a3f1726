//! Which operation a request asks for, judged by its line and headers alone, before anything else is looked at.

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Uri, Version, request};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Operation;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A generation or embedding.
    Infer(Operation),
    /// The list of models.
    Models,
    /// One model.
    Model(String),
}

/// Why a request is refused on its head, and whether its connection must be closed with it.
pub struct BadHead {
    /// The answer.
    pub error: ErrorBody,
    /// Where the request ends may be in doubt.
    pub close: bool,
}

/// Finds the route of a request.
pub fn route(head: &request::Parts) -> Result<Route, BadHead> {
    check_framing(head)?;
    check_host(head)?;
    let path = head.uri.path();
    if path.bytes().any(|byte| matches!(byte, b';' | b'\\')) || path.contains("//") || dots(path) {
        return Err(refuse(format!("the path `{}` is ambiguous", printable(path))));
    }
    let route = match path {
        "/v1/chat/completions" => Route::Infer(Operation::Chat),
        "/v1/completions" => Route::Infer(Operation::Completion),
        "/v1/embeddings" => Route::Infer(Operation::Embedding),
        "/v1/responses" => Route::Infer(Operation::Response),
        "/v1/models" => Route::Models,
        _ => match path.strip_prefix("/v1/models/") {
            Some(name) if !name.is_empty() => Route::Model(decode(name)?),
            Some(_) | None => return Err(unknown(path)),
        },
    };
    check_method(head, &route)?;
    Ok(route)
}

fn check_method(head: &request::Parts, route: &Route) -> Result<(), BadHead> {
    let (allowed, has_body) = match route {
        Route::Infer(_) => (Method::POST, true),
        Route::Models | Route::Model(_) => (Method::GET, false),
    };
    if head.method != allowed {
        let path = printable(head.uri.path());
        let error = ErrorBody::method_not_allowed(&printable(head.method.as_str()), &path, allowed.as_str());
        return Err(BadHead { error, close: false });
    }
    if has_body {
        return check_content(&head.headers);
    }
    let announces = head.headers.contains_key(TRANSFER_ENCODING)
        || head.headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
    if announces {
        return Err(BadHead { close: true, ..refuse("a GET request has no body here".to_owned()) });
    }
    Ok(())
}

fn check_content(headers: &HeaderMap) -> Result<(), BadHead> {
    if let Some(kind) = headers.get(CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or("");
        let essence = kind.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(BadHead { error: ErrorBody::wrong_content_type(&printable(kind)), close: false });
        }
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let text = "compressed request bodies are not understood; send the body as it is";
        let error = ErrorBody::router(415, "invalid_request_error", "unsupported_media_type", text);
        return Err(BadHead { error, close: false });
    }
    Ok(())
}

/// What hyper lets pass but could be read in two ways (RFC 9112 §6.1).
fn check_framing(head: &request::Parts) -> Result<(), BadHead> {
    let doubt = |text: &str| Err(BadHead { close: true, ..refuse(text.to_owned()) });
    let headers = &head.headers;
    let encodings = headers.get_all(TRANSFER_ENCODING).iter().count();
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    if encodings > 0 && lengths > 0 {
        return doubt("content-length and transfer-encoding exclude each other");
    }
    if lengths > 1 || headers.get(CONTENT_LENGTH).is_some_and(|value| !value.as_bytes().iter().all(u8::is_ascii_digit)) {
        return doubt("content-length must be one number");
    }
    if encodings > 1
        || headers.get(TRANSFER_ENCODING).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        return doubt("transfer-encoding must be `chunked`, once");
    }
    if encodings > 0 && head.version != Version::HTTP_11 {
        return doubt("transfer-encoding needs HTTP/1.1");
    }
    if head.method == Method::CONNECT || headers.contains_key(UPGRADE) {
        return doubt("this is no tunnel: CONNECT and upgrade are refused");
    }
    if headers.get(EXPECT).is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return doubt("the only expectation understood is 100-continue");
    }
    Ok(())
}

fn check_host(head: &request::Parts) -> Result<(), BadHead> {
    let bad = |text: &str| Err(BadHead { close: true, ..refuse(text.to_owned()) });
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if head.version == Version::HTTP_10 => return Ok(()),
        (None, _) => return bad("the host header is missing"),
        (Some(_), Some(_)) => return bad("there is more than one host header"),
        (Some(host), None) => host.as_bytes(),
    };
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || !host.iter().all(plain) {
        return bad("the host header is not a host");
    }
    match head.uri.authority() {
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            bad("the host header and the request line name different hosts")
        }
        Some(_) | None => Ok(()),
    }
}

fn decode(name: &str) -> Result<String, BadHead> {
    let decoded = percent_encoding::percent_decode_str(name).decode_utf8();
    decoded.map(Into::into).map_err(|_| refuse("the model's name in the path is not UTF-8".to_owned()))
}

fn dots(path: &str) -> bool {
    path.split('/').any(|part| {
        let part = part.to_ascii_lowercase().replace("%2e", ".");
        part == "." || part == ".."
    })
}

fn unknown(path: &str) -> BadHead {
    let text = format!(
        "there is nothing at `{}`; this gateway serves /v1/chat/completions, /v1/completions, /v1/embeddings, \
         /v1/responses and /v1/models",
        printable(path)
    );
    BadHead { error: ErrorBody::router(404, "invalid_request_error", "unknown_url", text), close: false }
}

fn refuse(text: String) -> BadHead {
    BadHead { error: ErrorBody::malformed(text), close: false }
}

/// A client's text for an error message: short, and without control characters.
pub fn printable(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    let mut short: String = text.chars().take(CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

/// The keys that a query may carry elsewhere and must not carry here: they end up in logs.
pub fn query_has_key(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| {
        query.split('&').any(|pair| matches!(pair.split('=').next(), Some("key" | "api_key" | "api-key" | "token")))
    })
}
