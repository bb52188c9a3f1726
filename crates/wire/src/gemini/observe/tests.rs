use super::*;
use crate::openai::sse::StreamError;

const FIRST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Héllo"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":7,"totalTokenCount":7}}"#;
const LAST: &str = r#"{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"c2ln"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":7,"cachedContentTokenCount":2,"candidatesTokenCount":3,"thoughtsTokenCount":4,"totalTokenCount":14}}"#;
const ERROR: &str = r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;

fn stream(form: Form, events: &[&str]) -> String {
    match form {
        Form::Events => {
            events.iter().map(|event| format!("data: {event}\r\n\r\n")).collect::<Vec<_>>().concat()
        }
        Form::Array => format!("[{}\n]\n", events.join("\n,\r\n")),
    }
}

/// What was forwarded, what was seen, and how it ended.
fn relay(form: Form, bytes: &[u8], piece_bytes: usize) -> (Vec<u8>, Seen, End) {
    let (mut observer, mut out, mut all) = (Observer::new(form), Out::new(), Seen::default());
    for piece in bytes.chunks(piece_bytes) {
        let seen = observer.push(Bytes::copy_from_slice(piece), &mut out);
        all.content |= seen.content;
        all.content_events += seen.content_events;
        all.done |= seen.done;
        all.usage = seen.usage.or(all.usage);
        all.error = seen.error.or(all.error);
    }
    let end = observer.finish(&mut out);
    (out.concat(), all, end)
}

#[test]
fn d1_however_a_stream_is_cut_its_bytes_pass_and_the_same_is_seen() {
    for form in [Form::Events, Form::Array] {
        let text = stream(form, &[FIRST, FIRST, LAST]);
        let whole = relay(form, text.as_bytes(), text.len());
        assert_eq!(std::str::from_utf8(&whole.0).unwrap().trim_end(), text.trim_end(), "{form:?}");
        let usage = Usage { tokens_in: 7, tokens_in_cached: 2, tokens_out: 7, ..Usage::default() };
        assert_eq!((whole.1.content_events, whole.1.done, whole.1.usage), (2, true, Some(usage)), "{form:?}");
        assert!(whole.2.proper && whole.2.finished && whole.2.bytes_cut == 0);
        assert_eq!(whole.2.tokens_out_seen, 2);
        for piece_bytes in [1, 2, 3, 7, 50] {
            assert_eq!(relay(form, text.as_bytes(), piece_bytes), whole, "{form:?} {piece_bytes}");
        }
    }
}

#[test]
fn d5_a_stream_that_breaks_off_has_no_proper_end() {
    for form in [Form::Events, Form::Array] {
        let text = stream(form, &[FIRST, FIRST]);
        assert!(!relay(form, text.as_bytes(), 16).2.proper, "no reason to end");
        let text = stream(form, &[FIRST, LAST]);
        let (forwarded, _, end) = relay(form, &text.as_bytes()[..text.len() - 40], 16);
        assert!(!end.proper && end.bytes_cut > 0);
        assert!(text.as_bytes().starts_with(&forwarded));
    }
    let open = relay(Form::Array, format!("[{LAST}").as_bytes(), 9).2;
    assert!(!open.proper && open.finished, "the array was not closed");
    let unclosed = relay(Form::Events, format!("data: {LAST}").as_bytes(), 9);
    assert!(unclosed.2.proper && unclosed.0.ends_with(b"\n\n"));
}

#[test]
fn d3_an_error_ends_the_stream_in_its_own_form() {
    let error = ErrorBody::upstream_reset("p");
    for (form, cut) in [(Form::Events, 3), (Form::Array, 5)] {
        let text = stream(form, &[FIRST, LAST]);
        let (mut observer, mut out) = (Observer::new(form), Out::new());
        let at = text.find(LAST).unwrap() + cut;
        observer.push(Bytes::copy_from_slice(&text.as_bytes()[..at]), &mut out);
        assert!(observer.finish(&mut out).bytes_cut > 0);
        out.push(observer.error(&error, "req_1"));
        let told = String::from_utf8(out.concat()).unwrap();
        match form {
            Form::Events => {
                assert!(told.ends_with("]}}\n\n") && told.contains("data: {\"error\":{\"code\":502,"));
            }
            Form::Array => crate::json::check(&told, 16).unwrap(),
        }
        assert!(!told.contains("STOP"));
    }
    crate::json::check(std::str::from_utf8(&error_piece(Form::Array, false, &error, "")).unwrap(), 16)
        .unwrap();
}

#[test]
fn an_error_inside_a_stream_is_seen() {
    for form in [Form::Events, Form::Array] {
        let (_, seen, end) = relay(form, stream(form, &[FIRST, ERROR]).as_bytes(), 11);
        let error = StreamError {
            status: Some(503),
            kind: Some("UNAVAILABLE".to_owned()),
            code: Some("UNAVAILABLE".to_owned()),
            message: Some("The model is overloaded.".to_owned()),
        };
        assert_eq!((seen.error, end.proper), (Some(error), false));
    }
}

#[test]
fn d4_what_cannot_be_read_passes_all_the_same() {
    let text = format!("data: {{oops\n\n: comment\n\ndata: {LAST}\n\n");
    let (forwarded, seen, end) = relay(Form::Events, text.as_bytes(), 4);
    assert_eq!((forwarded.as_slice(), seen.content, end.proper), (text.as_bytes(), false, true));
}

#[test]
fn d16_a_long_event_passes_without_being_kept() {
    let image = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"inlineData":{{"data":"{}"}}}}]}}}}]}}"#,
        "A".repeat(2 << 20)
    );
    for form in [Form::Events, Form::Array] {
        let text = stream(form, &[FIRST, &image, LAST]);
        let (forwarded, seen, end) = relay(form, text.as_bytes(), 60_000);
        assert_eq!(forwarded.trim_ascii_end(), text.as_bytes().trim_ascii_end());
        assert!(seen.content_events == 2 && end.proper, "{form:?} {end:?}");
    }
}

#[test]
fn a_prompt_that_is_blocked_is_an_end() {
    let blocked = r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":7}}"#;
    let (_, seen, end) = relay(Form::Events, stream(Form::Events, &[blocked]).as_bytes(), 10);
    assert!(end.proper && seen.done && !seen.content);
}

#[test]
fn c7_usage_of_bodies_is_never_negative() {
    let body = |count: &str| {
        format!(
            r#"{{"usageMetadata":{{"promptTokenCount":{count},"candidatesTokenCount":{count},"thoughtsTokenCount":{count}}}}}"#
        )
    };
    let usage =
        |count: &str| usage_of_body(body(count).as_bytes()).map(|usage| (usage.tokens_in, usage.tokens_out));
    assert_eq!(usage("3"), Some((3, 6)));
    assert_eq!(usage("\"3\""), Some((3, 6)));
    assert_eq!(usage("-1"), Some((0, 0)));
    assert_eq!(usage("1e400"), Some((u64::MAX, u64::MAX)));
    assert_eq!(usage_of_body(b"{\"totalTokens\":3}"), None);
}

#[test]
fn the_query_names_the_form() {
    assert_eq!(Form::of_query(Some("key=x&alt=sse")), Form::Events);
    assert_eq!(Form::of_query(Some("alt=json")), Form::Array);
    assert_eq!(Form::of_query(None), Form::Array);
}
