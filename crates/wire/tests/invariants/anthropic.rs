//! What holds of any input in Anthropic's dialect, and of what it is turned into.

use bytes::Bytes;
use pointsman_wire::chat::{Event, Losses};
use pointsman_wire::dialect::{CLIENTS, CONVERTED_DEPTH_MAX, NO_HEADERS, PROVIDERS, Told, client, provider};
use pointsman_wire::json;
use pointsman_wire::json::tree::Tree;
use pointsman_wire::openai::sse::Out;
use pointsman_wire::openai::{
    BodyLimits, Operation, Shape, StreamObserver, UsageAsk, literal, parse_as, rewrite, usage_of_body_as,
};

const NAME: &str = "anthropic";

fn told() -> Told {
    Told {
        call: "",
        model: "m".to_owned(),
        now_unix_s: 1,
        id: "req_1".to_owned(),
        stream_usage: true,
        ..Told::default()
    }
}

#[track_caller]
fn is_json(text: &str) {
    json::check(text, json::DEPTH_MAX).unwrap();
}

/// What is accepted is forwarded unchanged, but for the model and the forbidden fields.
pub(crate) fn request(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    for shape in [Shape::AnthropicMessages, Shape::AnthropicCountTokens] {
        match parse_as(shape, Operation::Chat, &body, &BodyLimits::default(), 1) {
            Err(invalid) => assert!(matches!(invalid.status, 400 | 404) && !invalid.message.is_empty()),
            Ok(request) => {
                let rewritten = rewrite(&request, &body, &literal(super::UPSTREAM_MODEL), UsageAsk::Inject);
                assert!(!rewritten.usage_injected);
                super::same_but_for_the_model(&body, &rewritten.concat(), false);
            }
        }
        let _ = usage_of_body_as(shape, &body);
    }
    let _ = provider(NAME).unwrap().dialect.fault(400, NO_HEADERS, &body);
}

/// What a client says is JSON in every provider's dialect, and means the same when it is read again.
pub(crate) fn conversation(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for from in CLIENTS {
        let Ok(tree) = Tree::parse(text, CONVERTED_DEPTH_MAX) else { return };
        let Ok(all) = from.dialect.conversation(tree) else { continue };
        let to = provider(NAME).unwrap();
        let once = to.dialect.request(&all, "claude-opus-4-5", &mut Losses::default());
        is_json(&once);
        let read =
            Tree::parse(&once, json::DEPTH_MAX).map(|tree| client(NAME).unwrap().dialect.conversation(tree));
        let again = read.unwrap().unwrap();
        assert_eq!(to.dialect.request(&again, "claude-opus-4-5", &mut Losses::default()), once);
        if from.name == NAME {
            for to in PROVIDERS {
                is_json(&to.dialect.request(&all, "up", &mut Losses::default()));
            }
        }
    }
}

/// What a provider answers is JSON in every client's dialect.
pub(crate) fn answer(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for (from, to) in PROVIDERS.iter().flat_map(|from| CLIENTS.iter().map(move |to| (from, to))) {
        if from.name == NAME || to.name == NAME {
            let Ok(answer) = from.dialect.answer(text) else { continue };
            is_json(&to.dialect.answer(&answer, &told(), &mut Losses::default()));
        }
    }
}

/// However a stream is cut, it is relayed as it is, seen as the same, and read as the same events, which every client's dialect
/// can say.
pub(crate) fn stream(bytes: &[u8]) {
    let whole = relay(bytes, bytes.len().max(1));
    let events = read(bytes, bytes.len().max(1));
    // Byte by byte costs too much for every beginning of a long one.
    let piece_bytes = if bytes.len() <= 256 { 1 } else { 7 };
    assert_eq!(relay(bytes, piece_bytes), whole);
    assert_eq!(read(bytes, piece_bytes), events);
    let ends = events.iter().filter(|event| matches!(event, Event::Ended | Event::Failed(_))).count();
    assert!(ends <= 1 && (ends == 0 || matches!(events.last(), Some(Event::Ended | Event::Failed(_)))));
    for to in CLIENTS {
        let (mut writer, mut text) = (to.dialect.stream(told()), String::new());
        for event in &events {
            writer.write(event, &mut text);
        }
        for line in text.lines() {
            let data = line.strip_prefix("data: ").filter(|data| *data != "[DONE]");
            data.into_iter().for_each(is_json);
        }
    }
}

fn read(bytes: &[u8], piece_bytes: usize) -> Vec<Event> {
    let (mut stream, mut events) = (provider(NAME).unwrap().dialect.stream(), Vec::new());
    for piece in bytes.chunks(piece_bytes) {
        stream.push(piece, &mut events).unwrap();
    }
    events
}

fn relay(bytes: &[u8], piece_bytes: usize) -> (Vec<u8>, String) {
    let mut observer = StreamObserver::of_shape(Shape::AnthropicMessages, Operation::Chat);
    let (mut out, mut content) = (Out::new(), 0);
    for piece in bytes.chunks(piece_bytes) {
        content += observer.push(Bytes::copy_from_slice(piece), &mut out).unwrap().content_events;
    }
    let end = observer.finish(&mut out);
    let out = out.concat();
    assert!(bytes.starts_with(out.strip_suffix(b"\n\n").unwrap_or(&out)));
    (out, format!("{content} {end:?}"))
}
