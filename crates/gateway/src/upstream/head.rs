//! The head of a response, and how its body is framed (RFC 9112 §6.3). Strict: whatever could be read in two ways is
//! an error, so that nobody can smuggle one answer into another.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use thiserror::Error;

/// Header lines a response may have.
const HEADERS_MAX: usize = 100;
/// Headers that the gateway adds to a response, less those that nearly every response has and that end here; room is
/// made for as many at once.
const OWN_HEADERS: usize = 3;
/// Headers of a provider that end at the gateway: those of the hop (RFC 9110 §7.6.1), those that speak for the provider's
/// host, not for the answer, and those that name the operator's account.
const DROPPED: [&str; 16] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
    "openai-organization",
    "openai-project",
    "anthropic-organization-id",
    "date",
];
/// What the gateway alone may say.
const OWN_PREFIX: &str = "x-pointsman-";
/// Bytes a response head may have.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The headers that go on to the client, as they came.
    pub headers: HeaderMap,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the connection can be used again after the body.
    pub keep_alive: bool,
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// By its length.
    Length(u64),
    /// In chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// What is wrong with a response.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum Malformed {
    /// The head is no HTTP/1 head.
    #[error("the response head is not HTTP/1.1")]
    Head,
    /// The head is larger than any honest one.
    #[error("the response head is larger than {HEAD_BYTES_MAX} bytes or has more than {HEADERS_MAX} lines")]
    HeadTooLarge,
    /// Length and transfer encoding contradict each other or themselves.
    #[error("the response's content-length and transfer-encoding are ambiguous")]
    Framing,
    /// A chunk is not framed as RFC 9112 §7.1 says.
    #[error("a chunk of the response is malformed")]
    Chunk,
    /// The provider wants to change the protocol.
    #[error("the provider answered with an unexpected 1xx")]
    Informational,
}

/// Parses a head from the beginning of `bytes`: the head and its length, or `None` if it is not complete. Interim
/// responses (1xx other than 101) are skipped.
pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let mut skipped = 0;
    loop {
        let Some((head, length)) = parse_one(&bytes[skipped..])? else { return Ok(None) };
        skipped += length;
        if head.status == StatusCode::SWITCHING_PROTOCOLS || skipped > HEAD_BYTES_MAX {
            return Err(Malformed::Informational);
        }
        if !head.status.is_informational() {
            return Ok(Some((head, skipped)));
        }
    }
}

fn parse_one(bytes: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let mut lines = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, bytes, &mut lines) {
        Ok(httparse::Status::Complete(length)) if length <= HEAD_BYTES_MAX => length,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Malformed::HeadTooLarge),
        Err(_) => return Err(Malformed::Head),
    };
    let status = StatusCode::from_u16(response.code.unwrap_or(0)).map_err(|_| Malformed::Head)?;
    let http_1_1 = response.version == Some(1);
    let mut headers = HeaderMap::with_capacity(response.headers.len() + OWN_HEADERS);
    let mut framed = Framed::default();
    // One copy of the head, if any is needed; header values are slices of it.
    let mut shared = None;
    for line in &*response.headers {
        framed.note(line.name, line.value, http_1_1)?;
        if ends_here(line.name) {
            continue;
        }
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Malformed::Head)?;
        let value = match line.value {
            b"" => HeaderValue::from_static(""),
            b"application/json" => HeaderValue::from_static("application/json"),
            value => {
                let start = value.as_ptr() as usize - bytes.as_ptr() as usize;
                let shared = shared.get_or_insert_with(|| Bytes::copy_from_slice(&bytes[..length]));
                HeaderValue::from_maybe_shared(shared.slice(start..start + value.len()))
                    .map_err(|_| Malformed::Head)?
            }
        };
        headers.append(name, value);
    }
    for name in &framed.named {
        headers.remove(name.as_str());
    }
    let framing = framed.framing(status)?;
    let keep_alive = framing != Framing::UntilClose && !framed.close && (http_1_1 || framed.keep_alive);
    Ok(Some((Head { status, headers, framing, keep_alive }, length)))
}

/// Whether a header is not passed on.
fn ends_here(name: &str) -> bool {
    let own = name.get(..OWN_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OWN_PREFIX));
    own || DROPPED.iter().any(|dropped| dropped.eq_ignore_ascii_case(name))
}

/// What the headers say about where the response ends.
#[derive(Default)]
struct Framed {
    /// Headers that the provider declared to be of this hop only.
    named: Vec<String>,
    chunked: bool,
    length: Option<u64>,
    close: bool,
    keep_alive: bool,
}

impl Framed {
    fn note(&mut self, name: &str, value: &[u8], http_1_1: bool) -> Result<(), Malformed> {
        let is = |known: HeaderName| name.eq_ignore_ascii_case(known.as_str());
        if is(header::CONTENT_LENGTH) {
            let length = parse_length(value).ok_or(Malformed::Framing)?;
            if self.length.is_some_and(|other| other != length) {
                return Err(Malformed::Framing);
            }
            self.length = Some(length);
        } else if is(header::TRANSFER_ENCODING) {
            if self.chunked || !http_1_1 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::Framing);
            }
            self.chunked = true;
        } else if is(header::CONNECTION) {
            for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if token.eq_ignore_ascii_case(b"close") {
                    self.close = true;
                } else if token.eq_ignore_ascii_case(b"keep-alive") {
                    self.keep_alive = true;
                } else if let Ok(name) = std::str::from_utf8(token) {
                    self.named.push(name.to_ascii_lowercase());
                }
            }
        }
        Ok(())
    }

    fn framing(&self, status: StatusCode) -> Result<Framing, Malformed> {
        if self.chunked && self.length.is_some() {
            return Err(Malformed::Framing);
        }
        if status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
        {
            return Ok(Framing::Empty);
        }
        Ok(match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, Some(0)) => Framing::Empty,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::UntilClose,
        })
    }
}

fn parse_length(digits: &[u8]) -> Option<u64> {
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
        .then(|| std::str::from_utf8(digits).ok()?.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &str, expected: Result<(u16, Framing, bool), Malformed>) {
        let got = parse(head.as_bytes()).map(|parsed| {
            let (head, _) = parsed.expect("complete");
            (head.status.as_u16(), head.framing, head.keep_alive)
        });
        assert_eq!(got, expected, "{head:?}");
    }

    #[test]
    fn frames_are_told_apart() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Ok((200, Framing::Length(5), true)));
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", Ok((200, Framing::Chunked, true)));
        check("HTTP/1.1 200 OK\r\n\r\n", Ok((200, Framing::UntilClose, false)));
        check("HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n", Ok((200, Framing::Length(1), false)));
        check("HTTP/1.1 204 No\r\n\r\n", Ok((204, Framing::Empty, true)));
        check(
            "HTTP/1.1 200 OK\r\nconnection: foo, Close\r\ncontent-length: 1\r\n\r\n",
            Ok((200, Framing::Length(1), false)),
        );
        check(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Ok((200, Framing::Empty, true)),
        );
    }

    #[test]
    fn headers_of_the_hop_of_the_host_and_of_the_account_end_here() {
        let lines = [
            "HTTP/1.1 200 OK",
            "content-length: 1",
            "Date: today",
            "set-cookie: a=b",
            "Connection: keep-alive, X-Hop",
            "x-hop: 1",
            "OpenAI-Organization: acme",
            "openai-project: proj_1",
            "anthropic-organization-id: 0b1c",
            "X-Pointsman-Cost-Usd: 0",
            "content-type: application/json",
            "x-request-id: abc",
            "x-empty:",
            "\r\n",
        ];
        let (head, _) = parse(lines.join("\r\n").as_bytes()).expect("well formed").expect("complete");
        let mut kept: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        kept.sort_unstable();
        assert_eq!(kept, [("content-type", "application/json"), ("x-empty", ""), ("x-request-id", "abc")]);
    }

    #[test]
    fn a14_ambiguous_responses_are_refused() {
        let framing = Err(Malformed::Framing);
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", framing);
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", framing);
        check("HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n", framing);
        check("HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n", framing);
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n", framing);
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", framing);
        check("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", framing);
        check("HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n", Err(Malformed::Informational));
        check("garbage\r\n\r\n", Err(Malformed::Head));
    }

    #[test]
    fn a_head_may_come_in_pieces_but_not_for_ever() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        for cut in 0..head.len() {
            assert!(parse(&head.as_bytes()[..cut]).expect("no error").is_none(), "cut at {cut}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse(endless.as_bytes()).map(|_| ()), Err(Malformed::HeadTooLarge));
    }
}
