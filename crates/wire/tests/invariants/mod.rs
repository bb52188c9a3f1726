//! What holds for any input. Shared by the corpus test and the fuzz targets.
#![expect(clippy::unwrap_used, reason = "a broken invariant has to stop the run")]

pub(crate) mod anthropic;

use bytes::Bytes;
use pointsman_wire::chat::{Event, Losses};
use pointsman_wire::dialect::{CONVERTED_DEPTH_MAX, client};
use pointsman_wire::engine::{self, REQUESTS_MAX};
use pointsman_wire::json::tree::Tree;
use pointsman_wire::json::{self, JsonFault};
use pointsman_wire::kserve;
use pointsman_wire::openai::request::forbidden;
use pointsman_wire::openai::sse::Out;
use pointsman_wire::openai::{
    BodyLimits, ErrorBody, Operation, StreamObserver, UsageAsk, classify, literal, parse, rewrite,
    usage_of_body,
};
use pointsman_wire::{bedrock, truth};
use serde_json::value::RawValue;

pub(crate) mod dialects;

const UPSTREAM_MODEL: &str = "up\"stream\\\u{1}/é";

/// What is accepted is forwarded unchanged, but for the model, the forbidden fields and the ask for usage.
pub(crate) fn request(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    for operation in Operation::ALL {
        match parse(operation, &body, &BodyLimits::default(), 1) {
            Err(invalid) => {
                assert!(matches!(invalid.status, 400 | 404));
                assert!(!invalid.message.is_empty());
                let error = ErrorBody::from(invalid).to_json();
                json::check(std::str::from_utf8(&error).unwrap(), 4).unwrap();
            }
            Ok(request) => {
                assert!(!request.model.is_empty());
                let rewritten = rewrite(&request, &body, &literal(UPSTREAM_MODEL), UsageAsk::Inject);
                let whole = rewritten.concat();
                assert_eq!(whole.len() as u64, rewritten.len);
                same_but_for_the_model(&body, &whole, rewritten.usage_injected);
                let again = parse(operation, &whole, &BodyLimits::default(), 1).map(|request| {
                    assert!(request.forbidden.is_empty());
                    assert!(!rewritten.usage_injected || request.include_usage == Some(true));
                });
                assert!(
                    again.is_err_and(|error| error.status == 404),
                    "the test's model has a control character"
                );
            }
        }
        let _ = usage_of_body(&body);
        let _ = classify(400, None, &body);
    }
}

/// The members of an object in order, duplicates and all, values as they stand.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn same_but_for_the_model(before: &[u8], after: &[u8], usage_injected: bool) {
    // A lone surrogate in a member's name is valid JSON that the other parser cannot represent.
    let Ok(Members(mut before)) = serde_json::from_slice::<Members>(before) else { return };
    let Members(mut after) = serde_json::from_slice::<Members>(after).unwrap();
    before.retain(|(key, _)| {
        key != "fallbacks" && forbidden(&key.replace('\u{17f}', "s").replace('\u{212a}', "k")).is_none()
    });
    let model = after.iter().find(|(key, _)| key == "model").map(|(_, value)| value.get()).unwrap();
    assert_eq!(serde_json::from_str::<String>(model).unwrap(), UPSTREAM_MODEL);
    for members in [&mut before, &mut after] {
        members.retain(|(key, _)| key != "model" && !(usage_injected && key == "stream_options"));
    }
    let texts = |members: &[(String, Box<RawValue>)]| {
        members.iter().map(|(key, value)| (key.clone(), value.get().to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(texts(&before), texts(&after));
}

/// However a stream is cut, what is forwarded is its beginning, and what is seen is the same.
pub(crate) fn sse(stream: &[u8]) {
    for operation in [Operation::Chat, Operation::Completion, Operation::Response] {
        for hide_usage in [false, true] {
            let whole = relay(operation, hide_usage, stream, stream.len().max(1));
            for piece_bytes in [1, 2, 7, 64] {
                assert_eq!(whole, relay(operation, hide_usage, stream, piece_bytes));
            }
            let (forwarded, cut, _) = &whole;
            if !hide_usage {
                let sent =
                    if forwarded.len() + cut > stream.len() { forwarded.len() - 2 } else { forwarded.len() };
                assert_eq!(sent + cut, stream.len());
                assert_eq!(forwarded[..sent], stream[..sent]);
            }
        }
    }
}

fn relay(
    operation: Operation,
    hide_usage: bool,
    stream: &[u8],
    piece_bytes: usize,
) -> (Vec<u8>, usize, String) {
    let mut observer = StreamObserver::new(operation, hide_usage);
    let mut out = Out::new();
    let (mut content, mut done, mut error) = (0, false, None);
    for piece in stream.chunks(piece_bytes) {
        match observer.push(Bytes::copy_from_slice(piece), &mut out) {
            Ok(seen) => {
                content += seen.content_events;
                done |= seen.done;
                error = seen.error.or(error);
            }
            Err(fault) => return (Vec::new(), stream.len(), fault.to_string()),
        }
    }
    let end = observer.finish(&mut out);
    (out.concat(), end.bytes_cut, format!("{content} {done} {error:?} {end:?}"))
}

/// The scanner accepts what another strict parser accepts, except what is nested too deep.
pub(crate) fn json(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let theirs = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    match json::check(text, json::DEPTH_MAX) {
        Ok(()) => assert!(theirs, "accepted alone: {text:?}"),
        Err(error) if error.what == JsonFault::TooDeep => {}
        Err(error) => assert!(!theirs, "refused alone: {text:?}: {error}"),
    }
}

/// The first two bytes say where the JSON ends; the rest is the body. What is accepted is what another reader sees, and its
/// data is as long as its shape says.
pub(crate) fn kserve(input: &[u8]) {
    let Some((head, body)) = input.split_first_chunk::<2>() else { return };
    let end = u16::from_le_bytes(*head);
    for json_bytes in [None, Some(u64::from(end))] {
        let limits = BodyLimits::default();
        match kserve::parse(body, json_bytes, &limits) {
            Err(invalid) => {
                assert_eq!(invalid.status, 400);
                assert!(!invalid.message.is_empty() && invalid.message.len() < 16 * 1024);
                let error = kserve::answer::error(&invalid.message);
                json::check(&error, 4).unwrap();
            }
            Ok(request) => {
                let json = json_bytes.map_or(body, |end| &body[..end as usize]);
                same_tensors(&request, json, body.len() - json.len());
                let signature = kserve::Signature::default();
                assert_eq!(kserve::check(&request, "m", &signature), Ok(()));
            }
        }
    }
    let _ = kserve::answer::read(body);
    let _ = kserve::answer::wants_ready_only(body);
}

fn same_tensors(request: &kserve::Inference<'_>, json: &[u8], behind: usize) {
    let binary: u64 = request.inputs.iter().filter_map(|input| input.binary_bytes).sum();
    assert_eq!(binary, behind as u64);
    // A lone surrogate in a text, or a number beyond all bounds, is valid JSON that the other parser cannot represent.
    let Ok(theirs) = serde_json::from_slice::<serde_json::Value>(json) else { return };
    let inputs = theirs["inputs"].as_array().unwrap();
    assert_eq!(inputs.len(), request.inputs.len());
    for (ours, theirs) in request.inputs.iter().zip(inputs) {
        assert_eq!(theirs["name"], *ours.name);
        assert_eq!(theirs["datatype"], ours.datatype.name());
        assert_eq!(theirs["shape"], serde_json::json!(ours.shape.as_slice()));
        let product = ours.shape.iter().fold(1_u64, |all, length| all.wrapping_mul(*length));
        assert_eq!(ours.elements, product, "a length of 0 leaves 0, whatever the others are");
        if ours.binary_bytes.is_none() {
            assert_eq!(leaves(&theirs["data"]), ours.elements);
        }
    }
}

fn leaves(value: &serde_json::Value) -> u64 {
    value.as_array().map_or(1, |items| items.iter().map(leaves).sum())
}

/// However the bytes of Bedrock are cut, they are the same events, nothing follows the last of them, and every part is opened
/// before it is added to. Whatever a client sends becomes JSON that another parser reads.
pub(crate) fn bedrock(input: &[u8]) {
    let dialect = bedrock::DEF.dialect;
    let read = |piece_bytes: usize| {
        let (mut stream, mut events) = (dialect.stream(), Vec::new());
        for piece in input.chunks(piece_bytes) {
            if stream.push(piece, &mut events).is_err() {
                break;
            }
        }
        events
    };
    let whole = read(input.len().max(1));
    for piece_bytes in [5, 64] {
        assert_eq!(read(piece_bytes), whole);
    }
    let mut parts = 0;
    for (at, event) in whole.iter().enumerate() {
        match event {
            Event::Opened { part, .. } => {
                assert_eq!(*part, parts);
                parts += 1;
            }
            Event::Added { part, .. } | Event::Signed { part, .. } | Event::Closed { part, .. } => {
                assert_eq!(part + 1, parts);
            }
            Event::Ended | Event::Failed(_) => assert_eq!(at + 1, whole.len()),
            Event::Started { .. }
            | Event::Cited { .. }
            | Event::Likely { .. }
            | Event::Stopped { .. }
            | Event::Used(_)
            | Event::Ping
            | Event::Lost(_) => {}
        }
    }
    for status in [400, 403, 429, 500] {
        let _ = bedrock::fault(None, status, None, input);
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let _ = dialect.answer(text);
    let path = dialect.path(text, true);
    assert_eq!(path.matches('/').count(), 3);
    assert!(path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains(['?', '#']));
    let Ok(tree) = Tree::parse(text, CONVERTED_DEPTH_MAX) else { return };
    let Ok(all) = client("openai").unwrap().dialect.conversation(tree) else { return };
    for model in ["m", "anthropic.claude-sonnet-4-5", "anthropic.claude-opus-4-7", "amazon.nova-2-lite-v1:0"]
    {
        let sent = dialect.request(&all, model, &mut Losses::default());
        json::check(&sent, json::DEPTH_MAX).unwrap();
    }
}

/// Whatever stands in the headers of an answer, it is understood, or not.
pub(crate) fn truth(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let headers = || text.lines().filter_map(|line| line.split_once(':'));
    for now_unix_ms in [0, 1_700_000_000_000, u64::MAX] {
        let read = truth::read(headers(), now_unix_ms);
        assert!(read.request_id.is_none_or(|id| id.bytes().all(|byte| byte.is_ascii_graphic())));
    }
}

/// Whatever an engine answers, what is made of it is possible.
pub(crate) fn engine(answer: &[u8]) {
    let _ = engine::kv_events::read(&[Vec::new(), vec![0; 8], answer.to_vec()]);
    let mut decoder = engine::kv_events::zmtp::Decoder::default();
    decoder.push(answer);
    while let Ok(Some(frames)) = decoder.message() {
        assert!(!frames.is_empty());
        let _ = engine::kv_events::read(&frames);
    }
    for ask in engine::ALL.iter().flat_map(|family| family.asks) {
        for model in ["m", ""] {
            let Ok(reading) = ask.read(answer, model) else { continue };
            for requests in [reading.running, reading.waiting, reading.slots].into_iter().flatten() {
                assert!(requests <= REQUESTS_MAX);
            }
            assert!(reading.kv_share().is_none_or(|used| (0.0..=1.0).contains(&used)));
            assert!(reading.kv_capacity_tokens != Some(0) && reading.slots != Some(0));
            let mut filled = reading;
            filled.fill_from(&reading);
            assert_eq!(filled, reading);
        }
    }
}
