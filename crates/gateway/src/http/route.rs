//! Which operation a request asks for, judged by its line and headers alone, before anything else is looked at.

use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, Method, Uri, Version, request};
use pointsman_wire::dialect::{self, Asked, ClientDef, OPENAI, RESPONSES};
use pointsman_wire::kserve::DEF;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Operation;
use pointsman_wire::openai::responses::state;

use super::{kept, kserve, models};
use crate::batches::api::Place;

/// Bytes of a header line beside its name and value: `: ` and the line's end.
const LINE_BYTES: usize = 4;
/// Bytes of a request line beside its method and target: two spaces, `HTTP/1.1`, and the line's end.
const REQUEST_LINE_BYTES: usize = 12;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A generation, embedding or inference, in a dialect.
    Infer(&'static ClientDef, Asked),
    /// What servers and models say of themselves by the Open Inference Protocol.
    Kserve(kserve::Place),
    /// The list of models, or one of them.
    Models(models::Asked),
    /// Files and batches.
    Stored(Place),
    /// A response that its provider keeps.
    Kept(state::Place),
}

impl Route {
    /// The dialect that errors are told in.
    pub fn dialect(&self, headers: &HeaderMap) -> &'static ClientDef {
        match self {
            Self::Infer(dialect, _) => dialect,
            Self::Models(asked) => dialect::client(asked.dialect(headers)).unwrap_or(OPENAI),
            Self::Stored(_) => OPENAI,
            Self::Kserve(_) => &DEF,
            Self::Kept(_) => RESPONSES,
        }
    }

    /// The name in records.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Infer(_, asked) => asked.operation.name(),
            Self::Kserve(place) => place.name(),
            Self::Models(_) => "models",
            Self::Stored(place) => place.name(),
            Self::Kept(_) => "kept_response",
        }
    }
}

/// Why a request is refused on its head, and whether its connection must be closed with it.
pub struct BadHead {
    /// The answer.
    pub error: ErrorBody,
    /// The dialect that it is told in.
    pub dialect: &'static ClientDef,
    /// Where the request ends may be in doubt.
    pub close: bool,
}

impl BadHead {
    /// What it is counted as.
    pub const fn reason(&self) -> &'static str {
        if self.close { "framing" } else { "route" }
    }
}

/// Finds the route of a request, whose head may have so many bytes.
pub fn route(head: &request::Parts, header_bytes_max: usize) -> Result<Route, BadHead> {
    judge(head, header_bytes_max).map_err(|bad| {
        let path = head.uri.path();
        let found = find(path, head.uri.query()).map(|route| route.dialect(&head.headers));
        BadHead { dialect: found.unwrap_or_else(|_| dialect::of_place(path)), ..bad }
    })
}

fn judge(head: &request::Parts, header_bytes_max: usize) -> Result<Route, BadHead> {
    let lines = Lines::gather(&head.headers);
    check_size(head, &lines, header_bytes_max)?;
    check_framing(head, &lines)?;
    check_host(head, &lines)?;
    let route = find(head.uri.path(), head.uri.query())?;
    check_method(head, &lines, &route)?;
    Ok(route)
}

/// The route of a path. The usual ones are compared before anything else is asked.
fn find(path: &str, query: Option<&str>) -> Result<Route, BadHead> {
    if let Some(asked) = Asked::of_path(path) {
        return Ok(Route::Infer(dialect::openai_of(asked.operation), asked));
    }
    if path.bytes().any(|byte| matches!(byte, b';' | b'\\')) || path.contains("//") || dots(path) {
        return Err(refuse(format!("the path `{}` is ambiguous", printable(path))));
    }
    if let Some((dialect, asked)) = dialect::route(path, query) {
        return Ok(Route::Infer(dialect, asked));
    }
    if let Some(place) = Place::of(path) {
        return Ok(Route::Stored(place));
    }
    match kserve::Place::of(path) {
        Some(kserve::Place::Infer(wanted)) => return Ok(Route::Infer(&DEF, wanted.asked())),
        Some(place) => return Ok(Route::Kserve(place)),
        None => {}
    }
    if let Some(place) = state::Place::of(path) {
        return Ok(Route::Kept(place));
    }
    match models::Asked::of_path(path) {
        Some(models::Asked::One(form, name)) => Ok(Route::Models(models::Asked::One(form, decode(&name)?))),
        Some(asked) => Ok(Route::Models(asked)),
        None => Err(unknown(path)),
    }
}

/// What the checks need of the headers, gathered in one pass.
#[derive(Default)]
struct Lines<'h> {
    host: Once<'h>,
    content_length: Once<'h>,
    transfer_encoding: Once<'h>,
    content_type: Once<'h>,
    content_encoding: Once<'h>,
    expect: Once<'h>,
    upgrade: bool,
    /// Bytes of all header lines as they came.
    bytes: usize,
}

/// A header that should be there once at most.
#[derive(Default)]
struct Once<'h> {
    first: Option<&'h [u8]>,
    repeated: bool,
}

impl<'h> Lines<'h> {
    fn gather(headers: &'h HeaderMap) -> Self {
        let mut lines = Self::default();
        for (name, value) in headers {
            lines.bytes += name.as_str().len() + value.len() + LINE_BYTES;
            let line = match *name {
                HOST => &mut lines.host,
                CONTENT_LENGTH => &mut lines.content_length,
                TRANSFER_ENCODING => &mut lines.transfer_encoding,
                CONTENT_TYPE => &mut lines.content_type,
                CONTENT_ENCODING => &mut lines.content_encoding,
                EXPECT => &mut lines.expect,
                UPGRADE => {
                    lines.upgrade = true;
                    continue;
                }
                _ => continue,
            };
            line.repeated |= line.first.is_some();
            line.first = line.first.or(Some(value.as_bytes()));
        }
        lines
    }
}

fn check_method(head: &request::Parts, lines: &Lines<'_>, route: &Route) -> Result<(), BadHead> {
    let one;
    let allowed = match route {
        Route::Infer(..) => &[Method::POST],
        Route::Kserve(place) => place.methods(),
        Route::Models(asked) => {
            one = [asked.method()];
            &one[..]
        }
        Route::Stored(place) => place.methods(),
        Route::Kept(place) => kept::methods(place.action),
    };
    if !allowed.contains(&head.method) {
        let path = printable(head.uri.path());
        let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(" or ");
        let error = ErrorBody::method_not_allowed(&printable(head.method.as_str()), &path, &allowed);
        return Err(bad(error, false));
    }
    if head.method == Method::POST {
        return check_content(lines, is_json(route), is_tensors(route));
    }
    let announces =
        lines.transfer_encoding.first.is_some() || lines.content_length.first.is_some_and(|n| n != b"0");
    if announces {
        let text = format!("a {} request has no body here", head.method);
        return Err(BadHead { close: true, ..refuse(text) });
    }
    Ok(())
}

/// Whether the body has to be JSON. What comes in parts is asked for its boundary when it is read.
fn is_json(route: &Route) -> bool {
    match route {
        Route::Infer(_, Asked { operation: Operation::Task(task), .. }) => !task.is_multipart(),
        Route::Infer(..) | Route::Kserve(_) | Route::Models(_) | Route::Kept(_) => true,
        Route::Stored(place) => *place != Place::Files,
    }
}

/// Whether tensors may follow the JSON, and the body be declared as what it is.
fn is_tensors(route: &Route) -> bool {
    matches!(route, Route::Kserve(_) | Route::Infer(_, Asked { operation: Operation::Infer, .. }))
}

/// `binary` bodies may be declared as what they are.
fn check_content(lines: &Lines<'_>, json: bool, binary: bool) -> Result<(), BadHead> {
    if let Some(kind) = lines.content_type.first.filter(|_| json) {
        let essence = kind.split(|byte| *byte == b';').next().unwrap_or(kind).trim_ascii();
        let binary = binary && essence.eq_ignore_ascii_case(b"application/octet-stream");
        if !binary && !essence.eq_ignore_ascii_case(b"application/json") {
            let kind = printable(&String::from_utf8_lossy(kind));
            return Err(bad(ErrorBody::wrong_content_type(&kind), false));
        }
    }
    if lines.content_encoding.first.is_some_and(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
        let text = "compressed request bodies are not understood; send the body as it is";
        let error = ErrorBody::router(415, "invalid_request_error", "unsupported_media_type", text);
        return Err(bad(error, false));
    }
    Ok(())
}

/// Hyper bounds what it buffers, which may be more than the head by what one read took in.
fn check_size(head: &request::Parts, lines: &Lines<'_>, header_bytes_max: usize) -> Result<(), BadHead> {
    let uri = &head.uri;
    let target = uri.path_and_query().map_or(0, |path| path.as_str().len())
        + uri.authority().map_or(0, |authority| authority.as_str().len());
    let bytes = head.method.as_str().len() + target + REQUEST_LINE_BYTES + lines.bytes;
    if bytes <= header_bytes_max {
        return Ok(());
    }
    let text = format!("the head of the request has {bytes} bytes; at most {header_bytes_max} are accepted");
    let error = ErrorBody::router(431, "invalid_request_error", "headers_too_large", text);
    Err(bad(error, true))
}

/// What hyper lets pass but could be read in two ways (RFC 9112 §6.1).
fn check_framing(head: &request::Parts, lines: &Lines<'_>) -> Result<(), BadHead> {
    let doubt = |text: &str| Err(BadHead { close: true, ..refuse(text.to_owned()) });
    let (encoding, length) = (&lines.transfer_encoding, &lines.content_length);
    if encoding.first.is_some() && length.first.is_some() {
        return doubt("content-length and transfer-encoding exclude each other");
    }
    if length.repeated || length.first.is_some_and(|value| !value.iter().all(u8::is_ascii_digit)) {
        return doubt("content-length must be one number");
    }
    if encoding.repeated || encoding.first.is_some_and(|value| !value.eq_ignore_ascii_case(b"chunked")) {
        return doubt("transfer-encoding must be `chunked`, once");
    }
    if encoding.first.is_some() && head.version != Version::HTTP_11 {
        return doubt("transfer-encoding needs HTTP/1.1");
    }
    if head.method == Method::CONNECT || lines.upgrade {
        return doubt("this is no tunnel: CONNECT and upgrade are refused");
    }
    if lines.expect.first.is_some_and(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return doubt("the only expectation understood is 100-continue");
    }
    Ok(())
}

fn check_host(head: &request::Parts, lines: &Lines<'_>) -> Result<(), BadHead> {
    let doubt = |text: &str| Err(BadHead { close: true, ..refuse(text.to_owned()) });
    let host = match (lines.host.first, lines.host.repeated) {
        (None, _) if head.version == Version::HTTP_10 => return Ok(()),
        (None, _) => return doubt("the host header is missing"),
        (Some(_), true) => return doubt("there is more than one host header"),
        (Some(host), false) => host,
    };
    let plain =
        |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || !host.iter().all(plain) {
        return doubt("the host header is not a host");
    }
    match head.uri.authority() {
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host) => {
            doubt("the host header and the request line name different hosts")
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

#[cold]
fn unknown(path: &str) -> BadHead {
    let text = format!(
        "there is nothing at `{}`; this gateway serves /v1/chat/completions, /v1/completions, /v1/embeddings, \
         /v1/responses, /v1/rerank, /v2/rerank, /v1/moderations, /v1/images/generations, /v1/images/edits, \
         /v1/audio/speech, /v1/audio/transcriptions, /v1/audio/translations, /v1/messages, /v1beta/models/{{model}}:generateContent, /api/chat, /api/generate, /v1/models, \
         /v1/files, /v1/batches and /v2",
        printable(path)
    );
    bad(ErrorBody::router(404, "invalid_request_error", "unknown_url", text), false)
}

#[cold]
fn refuse(text: String) -> BadHead {
    bad(ErrorBody::malformed(text), false)
}

/// In whose dialect is for [`route`] to say.
const fn bad(error: ErrorBody, close: bool) -> BadHead {
    BadHead { error, dialect: OPENAI, close }
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
        query.split('&').any(|pair| {
            let name = pair.split('=').next().unwrap_or_default();
            // Whoever reads the log sees what it stands for, however it is written.
            let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
            matches!(&*name, "key" | "api_key" | "api-key" | "token" | "access_token")
        })
    })
}
