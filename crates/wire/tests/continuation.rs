//! Going on with an answer that broke off: what is asked for, and what the client sees of the rest.

use bytes::Bytes;
use pointsman_wire::openai::continuation::{Style, Transcript, is_continuable};
use pointsman_wire::openai::request::{BodyLimits, Operation, Request, parse};
use pointsman_wire::openai::sse::{Out, StreamObserver};
use pointsman_wire::openai::{UsageAsk, literal, rewrite_from};
use serde_json::{Value, json};

fn request(body: &Value) -> (Request, Bytes) {
    let bytes = Bytes::from(body.to_string());
    (parse(Operation::Chat, &bytes, &BodyLimits::default(), 0).expect("a good request"), bytes)
}

fn chat(more: &Value) -> Value {
    let mut body = json!({"model": "m", "stream": true, "messages": [{"role": "user", "content": "count"}]});
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

fn event(delta: &Value) -> String {
    let chunk = json!({"id": "first-1", "choices": [{"index": 0, "delta": delta, "finish_reason": null}]});
    format!("data: {chunk}\n\n")
}

/// What was kept of a stream of these deltas.
fn kept(deltas: &[Value]) -> Option<Transcript> {
    let mut observer = StreamObserver::new(Operation::Chat, false);
    observer.keep_transcript();
    for delta in deltas {
        observer.push(Bytes::from(event(delta)), &mut Out::new()).expect("a good stream");
    }
    observer.transcript().cloned()
}

#[test]
fn d3_the_rest_is_asked_for_in_the_upstreams_own_way() {
    let so_far = kept(&[
        json!({"role": "assistant", "content": ""}),
        json!({"content": "one \"two\"\n"}),
        json!({"content": "thr"}),
    ]);
    let so_far = so_far.expect("text can be continued");
    assert_eq!(so_far.text(), "one \"two\"\nthr");
    let (request, body) = request(&chat(&json!({"max_tokens": 10, "temperature": 0})));
    for (style, options, prefix) in [
        (Style::Prefill, None, None),
        (Style::ContinueFinalMessage, Some((true, false)), None),
        (Style::Prefix, None, Some(true)),
    ] {
        let sent = rewrite_from(&request, &body, &literal("up"), UsageAsk::Inject, Some((&so_far, style)));
        assert_eq!(sent.concat().len() as u64, sent.len);
        let sent: Value = serde_json::from_slice(&sent.concat()).expect("still JSON");
        assert_eq!(sent["messages"][0], json!({"role": "user", "content": "count"}), "{style:?}");
        assert_eq!(sent["messages"][1]["role"], "assistant");
        assert_eq!(sent["messages"][1]["content"], so_far.text(), "{style:?}");
        assert_eq!(sent["messages"][1]["prefix"].as_bool(), prefix, "{style:?}");
        let said = sent["continue_final_message"].as_bool().zip(sent["add_generation_prompt"].as_bool());
        assert_eq!(said, options, "{style:?}");
        assert_eq!((&sent["max_tokens"], &sent["model"]), (&json!(8), &json!("up")), "two tokens are there");
        assert_eq!(sent["stream_options"]["include_usage"], true);
    }
}

#[test]
fn d3_what_is_dropped_from_the_front_of_a_body_makes_room_for_what_is_put_there() {
    let so_far = kept(&[json!({"content": "one"})]).expect("text can be continued");
    let body = Bytes::from_static(
        br#"{"fallbacks":["x"],"model":"m","stream":true,"messages":[{"role":"user","content":"count"}]}"#,
    );
    let request = parse(Operation::Chat, &body, &BodyLimits::default(), 0).expect("a good request");
    let from = Some((&so_far, Style::ContinueFinalMessage));
    let sent = rewrite_from(&request, &body, &literal("up"), UsageAsk::Inject, from).concat();
    let sent: Value = serde_json::from_slice(&sent).expect("still JSON");
    assert_eq!((&sent["fallbacks"], &sent["continue_final_message"]), (&Value::Null, &json!(true)));
    assert_eq!(sent["stream_options"]["include_usage"], true);
}

#[test]
fn only_plain_text_is_continued() {
    let text = json!({"content": "a"});
    assert!(kept(std::slice::from_ref(&text)).is_some());
    for other in [
        json!({"tool_calls": [{"index": 0}]}),
        json!({"reasoning_content": "hm"}),
        json!({"refusal": "no"}),
        json!({"audio": {"id": "x"}}),
        json!({"content": [{"type": "thinking", "thinking": []}]}),
    ] {
        assert!(kept(&[text.clone(), other.clone()]).is_none(), "{other}");
    }
    assert!(kept(&[json!({"role": "assistant", "content": ""})]).is_none(), "nothing came yet");
    assert!(kept(&[text, json!({"content": "b", "tool_calls": [], "refusal": null})]).is_some());
    let long = json!({"content": "x".repeat(100 * 1024)});
    assert!(kept(&[long.clone(), long.clone(), long]).is_none(), "what is kept is bounded");
}

#[test]
fn only_a_request_for_one_text_is_continued() {
    for (more, expected) in [
        (json!({}), true),
        (json!({"n": 2}), false),
        (json!({"stream": false}), false),
        (json!({"response_format": {"type": "json_object"}}), false),
        (json!({"response_format": {"type": "text"}}), true),
        (json!({"add_generation_prompt": true}), false),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
            false,
        ),
    ] {
        let (request, body) = request(&chat(&more));
        assert_eq!(is_continuable(&request, &body), expected, "{more}");
    }
}

#[test]
fn the_rest_looks_like_the_same_answer_however_it_is_split() {
    let so_far = kept(&[json!({"content": "one "})]).expect("text can be continued");
    let chunk = |text: &str| {
        let chunk = json!({"id": "other-9", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]});
        format!("data: {chunk}\n\n")
    };
    let beginning =
        "data: {\"id\":\"other-9\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    let stream = format!("{beginning}: ping\n\n{}{}data: [DONE]\n\n", chunk("two "), chunk("three"));
    let expected = stream.replace(beginning, "").replace("other-9", "first-1");
    for at in 0..=stream.len() {
        let mut observer = StreamObserver::continuing(Operation::Chat, false, so_far.clone());
        let mut out = Out::new();
        for part in [&stream[..at], &stream[at..]] {
            observer.push(Bytes::copy_from_slice(part.as_bytes()), &mut out).expect("a good stream");
        }
        assert!(observer.finish(&mut out).proper);
        assert_eq!(String::from_utf8(out.concat()).expect("text"), expected, "split at {at}");
    }
    // What broke off twice goes on from both.
    let mut observer = StreamObserver::continuing(Operation::Chat, false, so_far);
    observer.push(Bytes::from(chunk("two ")), &mut Out::new()).expect("a good stream");
    assert_eq!(observer.transcript().map(Transcript::text), Some("one two "));
}
