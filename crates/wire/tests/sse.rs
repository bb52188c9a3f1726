//! Streams are relayed byte for byte, and what is seen on the way does not depend on how they were cut.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use pointsman_wire::openai::sse::{EVENT_BYTES_MAX, Out, WITHHELD_BYTES_MAX};
use pointsman_wire::openai::{
    End, ErrorBody, Operation, StreamError, StreamFault, StreamObserver, Usage, error_event,
};
use proptest::prelude::*;

/// All that a stream brought.
#[derive(Debug, PartialEq)]
struct Told {
    forwarded: String,
    content_events: u32,
    done: bool,
    error: Option<StreamError>,
    usage: Option<Usage>,
    end: End,
}

fn relay(operation: Operation, hide_usage: bool, pieces: &[&[u8]]) -> Told {
    let mut observer = StreamObserver::new(operation, hide_usage);
    let mut out = Out::new();
    let (mut content_events, mut done, mut error, mut usage) = (0, false, None, None);
    for piece in pieces {
        let seen = observer.push(Bytes::copy_from_slice(piece), &mut out).unwrap();
        assert_eq!(seen.content, seen.content_events > 0);
        content_events += seen.content_events;
        done |= seen.done;
        error = seen.error.or(error);
        usage = seen.usage.or(usage);
    }
    let end = observer.finish(&mut out);
    let forwarded = String::from_utf8(out.concat()).unwrap();
    Told { forwarded, content_events, done, error, usage, end }
}

fn whole(operation: Operation, stream: &str) -> Told {
    relay(operation, false, &[stream.as_bytes()])
}

const DELTA: &str =
    r#"{"id":"1","choices":[{"index":0,"delta":{"content":"héllo 😀"},"finish_reason":null}],"usage":null}"#;
const ROLE: &str =
    r#"{"id":"1","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const STOP: &str = r#"{"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"id":"1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}}"#;

/// A usual chat stream with this line end.
fn stream(eol: &str) -> String {
    let events = [ROLE, DELTA, DELTA, STOP, USAGE, "[DONE]"];
    events.map(|data| format!("data: {data}{eol}{eol}")).concat()
}

#[test]
fn a_usual_stream_is_forwarded_and_understood() {
    let told = whole(Operation::Chat, &stream("\n"));
    assert_eq!(told.forwarded, stream("\n"));
    assert_eq!((told.content_events, told.done), (2, true));
    let usage = Usage { tokens_in: 9, tokens_in_cached: 4, tokens_out: 2, ..Usage::default() };
    assert_eq!((told.usage, told.end.usage), (Some(usage), Some(usage)));
    let end = End { proper: true, finished: true, usage: Some(usage), tokens_out_seen: 2, bytes_cut: 0 };
    assert_eq!(told.end, end);
}

#[test]
fn usage_within_a_choice_counts() {
    // As Moonshot sends it, before any content and behind it.
    let last = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop","usage":{"prompt_tokens":9,"completion_tokens":2}}]}"#;
    for text in [format!("data: {last}\n\n"), format!("data: {DELTA}\n\ndata: {last}\n\ndata: [DONE]\n\n")] {
        for hide_usage in [false, true] {
            let told = relay(Operation::Chat, hide_usage, &[text.as_bytes()]);
            let usage = Usage { tokens_in: 9, tokens_out: 2, ..Usage::default() };
            assert_eq!((told.usage, told.end.finished), (Some(usage), true), "{text}");
            assert_eq!(told.forwarded, text, "nothing of a choice is hidden");
        }
    }
}

#[test]
fn whole_events_are_forwarded_without_a_copy() {
    let chunk = Bytes::from(format!("data: {DELTA}\n\ndata: {DELTA}\n\n"));
    let mut out = Out::new();
    StreamObserver::new(Operation::Chat, true).push(chunk.clone(), &mut out).unwrap();
    assert_eq!(out.len(), 1);
    assert_eq!((out[0].as_ptr(), out[0].len()), (chunk.as_ptr(), chunk.len()));
}

/// A stream with everything that is allowed in one.
fn motley(eol: &str) -> String {
    format!(
        "\u{feff}: hello{eol}{eol}event: message{eol}id: 5{eol}retry: 10{eol}data: {DELTA}{eol}{eol}\
         data:{DELTA}{eol}{eol}data: {{\"choices\":{eol}data: [{{\"text\":\"é\"}}]}}{eol}{eol}\
         : ping{eol}{eol}{eol}data: not json{eol}{eol}data{eol}{eol}data: {USAGE}{eol}{eol}data: [DONE]{eol}{eol}"
    )
}

#[test]
fn d1_split_at_every_byte() {
    for eol in ["\n", "\r\n", "\r"] {
        let text = motley(eol);
        let expected = whole(Operation::Chat, &text);
        assert_eq!(expected.forwarded, text);
        assert_eq!((expected.content_events, expected.end.proper), (3, true), "{eol:?}");
        let bytes = text.as_bytes();
        for at in 0..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            assert_eq!(relay(Operation::Chat, false, &[head, tail]), expected, "{eol:?} at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(relay(Operation::Chat, false, &single), expected, "{eol:?} bytewise");
    }
}

#[test]
fn d1_split_at_every_pair_of_positions() {
    for eol in ["\n", "\r\n", "\r"] {
        let delta = r#"{"choices":[{"delta":{"content":"é😀"}}]}"#;
        let text =
            format!(": x{eol}{eol}data: {delta}{eol}{eol}data: {USAGE}{eol}{eol}data: [DONE]{eol}{eol}");
        let bytes = text.as_bytes();
        let expected = relay(Operation::Chat, true, &[bytes]);
        assert!(!expected.forwarded.contains("usage"));
        for one in 0..bytes.len() {
            for two in one..bytes.len() {
                let pieces = [&bytes[..one], &bytes[one..two], &bytes[two..]];
                assert_eq!(relay(Operation::Chat, true, &pieces), expected, "{eol:?} at {one} and {two}");
            }
        }
    }
}

#[test]
fn d1_only_whole_events_go_out() {
    let mut observer = StreamObserver::new(Operation::Chat, false);
    let mut out = Out::new();
    let text = format!("data: {DELTA}\n\ndata: {DELTA}\n");
    observer.push(Bytes::from(text), &mut out).unwrap();
    assert_eq!(out.concat(), format!("data: {DELTA}\n\n").as_bytes());
    observer.push(Bytes::from_static(b"\n"), &mut out).unwrap();
    assert_eq!(out.concat(), format!("data: {DELTA}\n\ndata: {DELTA}\n\n").as_bytes());
}

#[test]
fn d3_a_cut_stream_is_not_a_proper_one() {
    let check = |tail: &str, forwarded: &str, bytes_cut: usize| {
        let told = whole(Operation::Chat, &format!("data: {DELTA}\n\n{tail}"));
        assert!(!told.end.proper, "{tail:?}");
        assert_eq!(told.forwarded, format!("data: {DELTA}\n\n{forwarded}"), "{tail:?}");
        assert_eq!(told.end.bytes_cut, bytes_cut, "{tail:?}");
    };
    check("", "", 0);
    check("data: {\"choices\":[{\"del", "", 23);
    check("data: {\"choices\":[{\n", "", 20);
    check(": pi", "", 4);
    // Whole but for its blank line: forwarded, and closed so that an error event can follow.
    check(&format!("data: {DELTA}"), &format!("data: {DELTA}\n\n"), 0);
    check(": ping\n", ": ping\n\n\n", 0);
}

#[test]
fn d5_the_end_may_lack_its_blank_line() {
    for tail in ["data: [DONE]", "data: [DONE]\n", "data:[DONE]\r\n"] {
        let text = format!("data: {DELTA}\n\n{tail}");
        let told = whole(Operation::Chat, &text);
        assert!(told.end.proper);
        assert_eq!(told.forwarded, text);
    }
    let told = whole(Operation::Chat, &format!("data: {DELTA}\n\ndata: {STOP}\n\n"));
    assert!(!told.end.proper, "a finish_reason alone is not the end");
}

#[test]
fn d3_the_error_event_is_json_without_done() {
    let error = ErrorBody::upstream_reset("gpu-a");
    let told = whole(Operation::Chat, std::str::from_utf8(&error_event(Operation::Chat, &error)).unwrap());
    assert_eq!(told.error.as_ref().and_then(|error| error.code.as_deref()), Some("upstream_reset"));
    assert!(!told.end.proper && !told.forwarded.contains("[DONE]"));
    let event = error_event(Operation::Response, &error);
    let text = std::str::from_utf8(&event).unwrap();
    let data = text.strip_prefix("event: error\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
    let value: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!((&value["type"], &value["code"]), (&"error".into(), &"upstream_reset".into()));
    assert_eq!(value["error"]["who"], "provider:gpu-a");
    assert!(whole(Operation::Response, text).error.is_some());
}

#[test]
fn d4_malformed_events_are_forwarded_raw() {
    let text = format!(
        "data: {DELTA}\n\ndata: {{\"choices\":[\n\ndata: \"usage\" \"error\"\n\nfoo\n\ndata: {DELTA}\n\ndata: [DONE]\n\n"
    );
    let told = whole(Operation::Chat, &text);
    assert_eq!(told.forwarded, text);
    assert!(told.end.proper && told.error.is_none());
    let mut raw = b"data: \xff\xfe\n\n".to_vec();
    raw.extend_from_slice(b"data: [DONE]\n\n");
    let mut out = Out::new();
    let seen = StreamObserver::new(Operation::Chat, true).push(Bytes::from(raw.clone()), &mut out).unwrap();
    assert!(seen.done && !seen.content);
    assert_eq!(out.concat(), raw);
}

#[test]
fn d13_the_usage_event_is_withheld_when_it_was_not_asked_for() {
    let text = stream("\n");
    let told = relay(Operation::Chat, true, &[text.as_bytes()]);
    assert_eq!(told.forwarded, text.replace(&format!("data: {USAGE}\n\n"), ""));
    assert_eq!(told.usage.map(|usage| usage.tokens_out), Some(2));
    // Usage that comes along with content stays.
    let both = r#"data: {"choices":[{"text":"x"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
    let text = format!("{both}\n\ndata: {{\"choices\":[],\"usage\":null}}\n\ndata: [DONE]\n\n");
    let told = relay(Operation::Completion, true, &[text.as_bytes()]);
    assert_eq!(told.forwarded, text);
    assert_eq!(told.usage.map(|usage| usage.tokens_in), Some(1));
}

#[test]
fn c7_usage_in_streams_is_never_negative_and_the_last_counts() {
    let usage =
        |tokens: &str| format!("data: {{\"choices\":[],\"usage\":{{\"completion_tokens\":{tokens}}}}}\n\n");
    let told = whole(Operation::Chat, &format!("{}{}", usage("5"), usage("7")));
    assert_eq!(told.end.usage.map(|usage| usage.tokens_out), Some(7));
    let told = whole(Operation::Chat, &usage("-7"));
    assert_eq!(told.end.usage.map(|usage| usage.tokens_out), Some(0));
}

#[test]
fn content_is_text_reasoning_tools_or_refusal() {
    let check = |operation: Operation, data: &str, content: bool| {
        let told = whole(operation, &format!("data: {data}\n\n"));
        assert_eq!(told.content_events > 0, content, "{data}");
    };
    let delta = |delta: &str, content: bool| {
        check(Operation::Chat, &format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#), content);
    };
    delta(r#"{"content":"x"}"#, true);
    delta(r#"{"content":""}"#, false);
    delta(r#"{"content":null,"role":"assistant"}"#, false);
    delta(r#"{"reasoning_content":"x"}"#, true);
    delta(r#"{"reasoning":"x","content":""}"#, true);
    delta(r#"{"refusal":"no"}"#, true);
    delta(r#"{"refusal":null}"#, false);
    delta(r#"{"tool_calls":[{"index":0}]}"#, true);
    delta(r#"{"tool_calls":[]}"#, false);
    delta("{}", false);
    delta("null", false);
    check(Operation::Completion, r#"{"choices":[{"text":"x"}]}"#, true);
    check(Operation::Completion, r#"{"choices":[{"text":""}]}"#, false);
    check(Operation::Completion, r#"{"choices":[]}"#, false);
    check(Operation::Response, r#"{"type":"response.output_text.delta","delta":"x"}"#, true);
    check(Operation::Response, r#"{"delta":"x","type":"response.function_call_arguments.delta"}"#, true);
    check(Operation::Response, r#"{"type":"response.output_text.delta","delta":""}"#, false);
    check(
        Operation::Response,
        r#"{"type":"response.created","response":{"usage":null,"error":null}}"#,
        false,
    );
    check(Operation::Response, r#"{"type":"response.output_text.done","text":"x"}"#, false);
}

#[test]
fn responses_end_with_their_final_event() {
    let check = |kind: &str, error: bool| {
        let text = format!(
            "event: {kind}\ndata: {{\"type\":\"{kind}\",\"response\":{{\"usage\":{{\"input_tokens\":3,\"output_tokens\":4}},\
             \"error\":{{\"code\":\"server_error\",\"message\":\"boom\"}}}}}}\n\n"
        );
        let told = whole(Operation::Response, &text);
        assert!(told.end.proper && told.done, "{kind}");
        assert_eq!(
            told.usage,
            Some(Usage { tokens_in: 3, tokens_in_cached: 0, tokens_out: 4, ..Usage::default() })
        );
        assert_eq!(told.error.is_some(), error, "{kind}");
        if let Some(error) = told.error {
            assert_eq!(
                (error.code.as_deref(), error.message.as_deref()),
                (Some("server_error"), Some("boom"))
            );
        }
    };
    check("response.completed", false);
    check("response.incomplete", false);
    check("response.failed", true);
    assert!(!whole(Operation::Response, "data: {\"type\":\"response.created\"}\n\n").end.proper);
}

#[test]
fn errors_inside_a_stream_are_seen_in_every_form() {
    let check =
        |operation: Operation, event: &str, status: Option<u16>, code: Option<&str>, message: &str| {
            for before in ["", "data: {\"choices\":[{\"text\":\"x\"}]}\n\n"] {
                let told = whole(operation, &format!("{before}{event}\n\n"));
                let error = told.error.unwrap_or_else(|| panic!("{event}"));
                assert_eq!((error.status, error.code.as_deref()), (status, code), "{event}");
                assert_eq!(error.message.as_deref(), Some(message), "{event}");
                assert!(!told.end.proper);
            }
        };
    let nested = r#"data: {"error":{"message":"boom","type":"server_error","code":"overloaded"}}"#;
    check(Operation::Chat, nested, None, Some("overloaded"), "boom");
    check(Operation::Chat, r#"data: {"error":{"message":"boom","code":503}}"#, Some(503), None, "boom");
    check(
        Operation::Chat,
        r#"data: {"object":"error","message":"boom","type":"T","code":400}"#,
        Some(400),
        Some("T"),
        "boom",
    );
    check(
        Operation::Chat,
        r#"error: {"code":500,"message":"boom","type":"server_error"}"#,
        Some(500),
        Some("server_error"),
        "boom",
    );
    check(Operation::Chat, "event: error\ndata: {\"message\":\"boom\"}", None, None, "boom");
    check(Operation::Completion, r#"data: {"error":"boom"}"#, None, None, "boom");
    check(
        Operation::Response,
        r#"data: {"type":"error","code":"x","message":"boom"}"#,
        None,
        Some("x"),
        "boom",
    );
    let fine =
        whole(Operation::Chat, r#"data: {"choices":[{"delta":{"content":"\"error\": {}"}}],"error":null}"#);
    assert_eq!(fine.error, None);
}

#[test]
fn d16_an_event_too_long_to_hold_back_passes_as_it_comes() {
    for (operation, first, ended) in [
        (Operation::Chat, format!("data: {ROLE}\n\n"), false),
        (Operation::Response, "event: response.completed\n".to_owned(), true),
    ] {
        let image = "x".repeat(3 << 19);
        let long = format!("{first}data: {{\"type\":\"response.completed\",\"image\":\"{image}\"}}\r\n\r\n");
        let streamed = format!("{long}data: {DELTA}\n\n");
        for piece_bytes in [1 << 16, (1 << 16) - 7] {
            let mut observer = StreamObserver::new(operation, false);
            let (mut out, mut taken) = (Out::new(), 0);
            for piece in streamed.as_bytes().chunks(piece_bytes) {
                observer.push(Bytes::copy_from_slice(piece), &mut out).unwrap();
                taken += piece.len();
                let held = taken - out.iter().map(Bytes::len).sum::<usize>();
                assert!(held <= EVENT_BYTES_MAX, "{held} bytes held back");
                let passing = taken > EVENT_BYTES_MAX + 2 * piece_bytes && taken < long.len();
                assert!(!passing || (observer.is_inside_event() && held == 0));
            }
            assert!(!observer.is_inside_event());
            let end = observer.finish(&mut out);
            assert_eq!((end.proper, end.bytes_cut), (ended, 0));
            assert!(end.tokens_out_seen >= 1);
            assert!(out.concat() == streamed.as_bytes(), "{operation:?}: other bytes came out");
        }
    }
}

#[test]
fn d16_an_endless_event_that_may_have_to_be_withheld_is_a_fault() {
    let mut observer = StreamObserver::new(Operation::Chat, true);
    let mut out = Out::new();
    let piece = Bytes::from(vec![b'x'; 1 << 16]);
    let pushed = (0..1000).find(|_| {
        observer.push(piece.clone(), &mut out) == Err(StreamFault::EventTooLong { bytes_max: 16 << 20 })
    });
    assert_eq!(pushed, Some(WITHHELD_BYTES_MAX >> 16));
    assert!(out.is_empty());
}

#[test]
fn d5_a_finish_reason_is_an_end_of_its_kind() {
    let finish = r#"{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason": "length"}]}"#;
    let quoted =
        r#"{"choices":[{"index":0,"delta":{"content":"\"finish_reason\":1"},"finish_reason":null}]}"#;
    for (events, finished) in [
        (vec![DELTA], false),
        (vec![DELTA, quoted], false),
        (vec![DELTA, STOP], true),
        (vec![STOP], true),
        (vec![DELTA, finish], true),
        (vec![finish], true),
    ] {
        let text = events.iter().map(|data| format!("data: {data}\n\n")).collect::<Vec<_>>().concat();
        assert_eq!(whole(Operation::Chat, &text).end.finished, finished, "{text}");
    }
}

proptest! {
    #[test]
    fn d1_any_bytes_cut_anyhow_are_forwarded_in_order(
        parts in prop::collection::vec(prop_oneof![
            Just("\n".to_owned()), Just("\r".to_owned()), Just("\r\n".to_owned()), Just("\n\n".to_owned()),
            Just("data: ".to_owned()), Just("event: error".to_owned()), Just(DELTA.to_owned()), Just(USAGE.to_owned()),
            Just("[DONE]".to_owned()), "[a-z:é ]{0,5}",
        ], 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        hide in any::<bool>(),
    ) {
        let text = parts.concat();
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let told = relay(Operation::Chat, hide, &pieces);
        prop_assert_eq!(&told, &relay(Operation::Chat, hide, &[bytes]));
        if !hide {
            let sent = told.forwarded.strip_suffix("\n\n").filter(|_| !text.starts_with(&told.forwarded));
            let sent = sent.unwrap_or(&told.forwarded);
            prop_assert!(text.starts_with(sent));
            prop_assert_eq!(text.len(), sent.len() + told.end.bytes_cut);
        }
    }
}
