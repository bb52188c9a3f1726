//! What is sent to a provider: the head that its deployment needs, and the client's body with the model's name put in.
//!
//! Of the client's headers none is passed on but what its dialect names: what a provider gets is what is written here.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use pointsman_wire::openai::continuation::Transcript;
use pointsman_wire::openai::request::{Operation, Request};
use pointsman_wire::openai::rewrite::rewrite_wrapped;
use pointsman_wire::openai::{Segments, UsageAsk, rewrite_from};

use smallvec::SmallVec;

use super::{Arrival, convert};
use crate::clock;
use crate::snapshot::Target;
use crate::upstream::credential::{Credential, Sent};

/// Capacity of a request head; what nearly all fit in.
pub(super) const HEAD_BYTES: usize = 640;
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Bytes of a body that are copied behind their head, which costs less than to send them as a list of pieces.
const COPIED_BODY_BYTES_MAX: u64 = 4096;
/// Bytes of a `tracestate` that are passed on (W3C Trace Context §3.3.1.5).
const TRACESTATE_BYTES_MAX: usize = 512;

/// Headers that go with a request.
pub type Passed = SmallVec<[(&'static str, HeaderValue); 0]>;

/// The trace a request belongs to (W3C Trace Context).
#[derive(Debug, Clone)]
pub struct Trace {
    id: u128,
    flags: u8,
    state: Option<HeaderValue>,
}

impl Trace {
    /// The trace that the headers name. A malformed `traceparent` begins a new one, as the standard asks.
    pub fn read(headers: &HeaderMap, fresh: u128) -> Option<Self> {
        let parent = headers.get(TRACEPARENT)?;
        let Some((id, flags)) = parent.to_str().ok().and_then(parse_parent) else {
            return Some(Self { id: fresh, flags: 0, state: None });
        };
        let state = headers.get(TRACESTATE).filter(|state| state.len() <= TRACESTATE_BYTES_MAX).cloned();
        Some(Self { id, flags, state })
    }
}

fn parse_parent(text: &str) -> Option<(u128, u8)> {
    let mut parts = text.split('-');
    let (version, id, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let well_formed = hex(version, 2) && version != "ff" && hex(id, 32) && hex(span, 16) && hex(flags, 2);
    let whole = version != "00" || parts.next().is_none();
    let id = u128::from_str_radix(id, 16).ok()?;
    let span = u64::from_str_radix(span, 16).ok()?;
    (well_formed && whole && id != 0 && span != 0).then_some((id, u8::from_str_radix(flags, 16).ok()?))
}

/// The bytes of one attempt, in the dialect that the request came in.
pub(super) fn compose(
    target: &Target,
    credential: Option<&Credential>,
    (request, body): (&Request, &Bytes),
    rest_of: Option<&Transcript>,
    arrival: &Arrival,
) -> Segments {
    let openai = arrival.dialect.is_openai();
    let usage = if openai && target.stream_usage { UsageAsk::Inject } else { UsageAsk::AsSent };
    let rest_of = rest_of.zip(target.continuation);
    let plain = openai && target.endpoint.speaks_plainly();
    let dialect = target.endpoint.vendor.dialect;
    let wrapping = if plain { None } else { dialect.wrapping(arrival.dialect) };
    let rewritten = match wrapping {
        Some(wrapping) => {
            let edits = (wrapping.edits)(&arrival.asked, request, body, &target.upstream_model);
            rewrite_wrapped(request, body, edits)
        }
        None => rewrite_from(request, body, &target.upstream_model, usage, rest_of),
    };
    let is_small = rewritten.len <= COPIED_BODY_BYTES_MAX;
    let body_bytes = if is_small { rewritten.len as usize } else { 0 };
    let mut head = BytesMut::with_capacity(HEAD_BYTES + body_bytes);
    if request.operation == Operation::Infer {
        target.tensors.write_head(&mut head, request);
    } else if let Some(ready) = target.endpoint.head(request.operation).filter(|_| plain) {
        head.put_slice(ready);
    } else {
        let model = &target.upstream_model_name;
        let path = match wrapping.filter(|_| request.stream) {
            Some(wrapping) => (wrapping.stream_path)(&arrival.asked, model),
            None => dialect.relay_path(arrival.dialect, &arrival.asked, model),
        };
        let path = path.unwrap_or_default();
        target.endpoint.write_head(&path, &mut head);
        sign(&mut head, target, credential, &path, &rewritten.segments);
    }
    put_passed(&mut head, target, &arrival.passed);
    finish_head(&mut head, target, credential, request, Some(rewritten.len), arrival);
    if is_small {
        rewritten.segments.iter().for_each(|part| head.put_slice(part));
        return Segments::from_iter([head.freeze()]);
    }
    let mut parts = Segments::new();
    parts.push(head.freeze());
    parts.extend(rewritten.segments.into_iter().filter(|part| !part.is_empty()));
    parts
}

/// The bytes of one attempt whose body was written in the provider's dialect.
pub(super) fn compose_converted(
    target: &Target,
    credential: Option<&Credential>,
    request: &Request,
    body: String,
    arrival: &Arrival,
) -> Segments {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    let (dialect, model) = (target.endpoint.vendor.dialect, &target.upstream_model_name);
    let path = match request.operation {
        // Turned into another form of the same dialect, it goes where that is taken.
        Operation::Task(_) => dialect.relay_path(arrival.dialect, &arrival.asked, model).unwrap_or_default(),
        Operation::Chat
        | Operation::Completion
        | Operation::Embedding
        | Operation::Infer
        | Operation::Response => dialect.dialect.path(model, request.stream),
    };
    let body = Bytes::from(body);
    target.endpoint.write_head(&path, &mut head);
    sign(&mut head, target, credential, &path, std::slice::from_ref(&body));
    // What a provider of the client's own dialect gets is written anew only to repair an answer.
    let own = !convert::is_needed(arrival, target);
    put_passed(&mut head, target, if own { &arrival.passed } else { &[] });
    finish_head(&mut head, target, credential, request, Some(body.len() as u64), arrival);
    let mut parts = Segments::new();
    parts.push(head.freeze());
    parts.push(body);
    parts
}

/// Puts the signature of a request behind its head, if its credential signs.
fn sign(head: &mut BytesMut, target: &Target, credential: Option<&Credential>, path: &str, body: &[Bytes]) {
    if let Some(credential) = credential {
        let sent = Sent { path, body, now_unix_s: clock::unix_ms() / 1000 };
        credential.sign(head, &target.endpoint, &sent);
    }
}

/// Puts the headers behind a head that the provider's kind wants: the client's, where it said another thing.
pub(super) fn put_passed(head: &mut BytesMut, target: &Target, passed: &[(&'static str, HeaderValue)]) {
    let own = &target.endpoint.vendor.headers;
    let unsaid = own.iter().filter(|(name, _)| !passed.iter().any(|(said, _)| said == name));
    let all = unsaid.map(|(name, value)| (name.as_str(), value.as_bytes()));
    for (name, value) in all.chain(passed.iter().map(|(name, value)| (*name, value.as_bytes()))) {
        head.put_slice(name.as_bytes());
        head.put_slice(b": ");
        head.put_slice(value);
        head.put_slice(b"\r\n");
    }
}

/// The headers of a client's that a provider of its dialect gets.
pub fn passed(headers: &HeaderMap, names: &[&'static str]) -> Passed {
    names.iter().filter_map(|name| Some((*name, headers.get(*name)?.clone()))).collect()
}

/// Puts behind a head what differs from request to request. A body without a length comes in chunks.
pub(super) fn finish_head(
    head: &mut BytesMut,
    target: &Target,
    credential: Option<&Credential>,
    request: &Request,
    len: Option<u64>,
    arrival: &Arrival,
) {
    if let Some(Credential::Header(value)) = credential {
        target.endpoint.write_auth(head, value);
    }
    head.put_slice(b"accept: ");
    let accept = match request.operation {
        // Texts, sounds, images, streams: as the body asks for.
        Operation::Task(_) => "*/*",
        Operation::Chat | Operation::Completion | Operation::Embedding | Operation::Response
            if request.stream =>
        {
            target.endpoint.vendor.dialect.stream_type
        }
        Operation::Chat
        | Operation::Completion
        | Operation::Embedding
        | Operation::Infer
        | Operation::Response => "application/json",
    };
    head.put_slice(accept.as_bytes());
    head.put_slice(b"\r\nx-request-id: ");
    head.put_slice(&arrival.id.to_hex());
    if let Some(trace) = &arrival.trace {
        // The span is ours: the low half of the request's id is as random as any other 64 bits.
        let span = (arrival.id.0 as u64).max(1);
        head.put_slice(
            format!("\r\ntraceparent: 00-{:032x}-{span:016x}-{:02x}", trace.id, trace.flags).as_bytes(),
        );
        if let Some(state) = &trace.state {
            head.put_slice(b"\r\ntracestate: ");
            head.put_slice(state.as_bytes());
        }
    }
    match len {
        Some(len) => {
            head.put_slice(b"\r\ncontent-length: ");
            head.put_slice(itoa::Buffer::new().format(len).as_bytes());
        }
        None => head.put_slice(b"\r\ntransfer-encoding: chunked"),
    }
    head.put_slice(b"\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_continue_or_begin_anew() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(parse_parent(good), Some((0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 1)));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(parse_parent(bad), None, "{bad}");
        }
    }
}
