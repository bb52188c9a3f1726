//! AWS Signature Version 4, sans IO: what must be signed is hashed as it is written, so that memory does not grow with the
//! request. Time is an argument; a secret never shows in `Debug`.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use crate::calendar::Date;
use crate::url::is_unreserved;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The hash of an empty body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What signs.
#[derive(Clone)]
pub struct Credentials {
    /// The id of the key, which is no secret.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// The token of keys that are valid for a while only.
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// What a signature is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope<'a> {
    /// The region, such as `us-east-1`.
    pub region: &'a str,
    /// The service's signing name, such as `bedrock`.
    pub service: &'a str,
}

/// How a path is written into what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PathStyle {
    /// Normalised, and encoded once more than it is sent, as all services but S3 have it.
    #[default]
    EncodedAgain,
    /// As it is sent, as S3 has it.
    AsSent,
}

/// The body, as far as it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// Its SHA-256, of a body that is nowhere as a whole.
    Sha256([u8; 32]),
    /// Not at all.
    Unsigned,
}

/// A request to be signed.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The path, as it is sent.
    pub path: &'a str,
    /// The query, as it is sent, without its question mark.
    pub query: &'a str,
    /// The headers to be signed, with `host`, without `x-amz-date` and `x-amz-security-token`.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub payload: Payload<'a>,
    /// How the path is signed.
    pub path_style: PathStyle,
}

/// The headers that a signed request has beside its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed {
    /// `authorization`
    pub authorization: String,
    /// `x-amz-date`
    pub date: String,
    /// `x-amz-security-token`
    pub security_token: Option<String>,
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("date", &self.date).finish_non_exhaustive()
    }
}

impl Signed {
    /// The headers, names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let token = self.security_token.as_deref().map(|token| ("x-amz-security-token", token));
        [("x-amz-date", self.date.as_str()), ("authorization", self.authorization.as_str())]
            .into_iter()
            .chain(token)
    }
}

/// Signs a request.
pub fn sign(credentials: &Credentials, scope: Scope<'_>, now_unix_s: u64, request: &Request<'_>) -> Signed {
    let date = Date::of_unix_s(now_unix_s);
    let day = format!("{:04}{:02}{:02}", date.year, date.month, date.day);
    let moment = format!("{day}T{:02}{:02}{:02}Z", date.hour, date.minute, date.second);
    let mut headers = request.headers.to_vec();
    headers.push(("x-amz-date", &moment));
    if let Some(token) = &credentials.session_token {
        headers.push(("x-amz-security-token", token));
    }
    let mut hash = Sha256::new();
    let names = canonical(request, headers, &mut |text| hash.update(text));
    let scope_text = format!("{day}/{}/{}/aws4_request", scope.region, scope.service);
    let to_sign = format!("{ALGORITHM}\n{moment}\n{scope_text}\n{}", hex(&hash.finalize()));
    let signature = hex(&hmac(&signing_key(&credentials.secret_access_key, &day, scope), to_sign.as_bytes()));
    let key = &credentials.access_key_id;
    Signed {
        authorization: format!(
            "{ALGORITHM} Credential={key}/{scope_text}, SignedHeaders={names}, Signature={signature}"
        ),
        date: moment,
        security_token: credentials.session_token.clone(),
    }
}

/// Gives the canonical request to `put`, piece by piece; the names of the signed headers.
fn canonical(request: &Request<'_>, mut headers: Vec<(&str, &str)>, put: &mut impl FnMut(&[u8])) -> String {
    put(request.method.as_bytes());
    put(b"\n");
    match request.path_style {
        PathStyle::AsSent => put(request.path.as_bytes()),
        PathStyle::EncodedAgain => canonical_path(request.path, put),
    }
    put(b"\n");
    canonical_query(request.query, put);
    put(b"\n");
    // A stable sort, since values of one name keep their order.
    headers.sort_by_cached_key(|(name, _)| name.to_ascii_lowercase());
    let mut names = String::new();
    let mut last = None::<String>;
    for (name, value) in &headers {
        let name = name.to_ascii_lowercase();
        if last.as_ref() == Some(&name) {
            put(b",");
        } else {
            if last.is_some() {
                put(b"\n");
                names.push(';');
            }
            names.push_str(&name);
            put(name.as_bytes());
            put(b":");
        }
        put_value(value, put);
        last = Some(name);
    }
    put(b"\n\n");
    put(names.as_bytes());
    put(b"\n");
    match request.payload {
        Payload::Bytes(b"") => put(EMPTY_SHA256.as_bytes()),
        Payload::Bytes(bytes) => put(hex(&Sha256::digest(bytes)).as_bytes()),
        Payload::Sha256(hash) => put(hex(&hash).as_bytes()),
        Payload::Unsigned => put(b"UNSIGNED-PAYLOAD"),
    }
    names
}

/// A header's value without blanks around it, and with one where there are several.
fn put_value(value: &str, put: &mut impl FnMut(&[u8])) {
    for (at, word) in value.split_ascii_whitespace().enumerate() {
        if at > 0 {
            put(b" ");
        }
        put(word.as_bytes());
    }
}

/// The path without `.`, `..` and empty segments, each segment encoded as if it had not been yet.
fn canonical_path(path: &str, put: &mut impl FnMut(&[u8])) {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => _ = segments.pop(),
            _ => segments.push(segment),
        }
    }
    for segment in &segments {
        put(b"/");
        segment.bytes().for_each(|byte| put_encoded(byte, put));
    }
    let ends_open = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    if segments.is_empty() || ends_open {
        put(b"/");
    }
}

/// The query's parameters in order, all encoded in the one right way.
fn canonical_query(query: &str, put: &mut impl FnMut(&[u8])) {
    let encode = |text: &str| {
        let mut out = Vec::new();
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let escaped = (bytes[at] == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
            let escaped = escaped.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
            match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => {
                    put_encoded(byte, &mut |text: &[u8]| out.extend_from_slice(text));
                    at += 3;
                }
                None => {
                    put_encoded(bytes[at], &mut |text: &[u8]| out.extend_from_slice(text));
                    at += 1;
                }
            }
        }
        out
    };
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encode(name), encode(value)))
        .collect();
    pairs.sort();
    for (at, (name, value)) in pairs.iter().enumerate() {
        if at > 0 {
            put(b"&");
        }
        put(name);
        put(b"=");
        put(value);
    }
}

fn put_encoded(byte: u8, put: &mut impl FnMut(&[u8])) {
    if is_unreserved(byte) {
        put(&[byte]);
    } else {
        let digit = |value: u8| b"0123456789ABCDEF"[usize::from(value & 15)];
        put(&[b'%', digit(byte >> 4), digit(byte)]);
    }
}

/// The key of one day, region and service.
fn signing_key(secret: &str, day: &str, scope: Scope<'_>) -> [u8; 32] {
    let key = hmac(format!("AWS4{secret}").as_bytes(), day.as_bytes());
    let key = hmac(&key, scope.region.as_bytes());
    let key = hmac(&key, scope.service.as_bytes());
    hmac(&key, b"aws4_request")
}

fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The hash of a body that comes piece by piece.
#[derive(Clone, Default)]
pub struct PayloadHash(Sha256);

impl fmt::Debug for PayloadHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadHash")
    }
}

impl PayloadHash {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The payload of all pieces.
    pub fn finish(self) -> Payload<'static> {
        Payload::Sha256(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests;
