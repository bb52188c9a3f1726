//! Cohere: what its answers say beside their text.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use pointsman_wire::chat::{Answer, Event, Losses, Stop, Usage};
use pointsman_wire::dialect::{Told, client, provider};

fn answer(body: &str) -> Answer {
    provider("cohere").unwrap().dialect.answer(body).unwrap()
}

fn events(stream: &str) -> Vec<Event> {
    let (mut reader, mut events) = (provider("cohere").unwrap().dialect.stream(), Vec::new());
    reader.push(stream.as_bytes(), &mut events).unwrap();
    events
}

#[test]
fn log_probabilities_of_single_tokens_are_kept_and_others_named_as_lost() {
    let given = answer(
        r#"{"id":"1","finish_reason":"COMPLETE","message":{"role":"assistant","content":[{"type":"text","text":"ab"}]},
            "logprobs":[{"token_ids":[5],"text":"a","logprobs":[-0.5]},{"token_ids":[6,7],"text":"b","logprobs":[-1,-2]}]}"#,
    );
    let logprobs = &given.choices[0].logprobs;
    assert_eq!((logprobs.len(), logprobs[0].token.as_str(), logprobs[0].logprob), (1, "a", -0.5));
    assert_eq!(given.losses.named()[0].field, "logprobs");
    let streamed = events(
        "data: {\"type\":\"content-delta\",\"delta\":{\"message\":{\"content\":{\"text\":\"a\"}}},\"logprobs\":{\"token_ids\":[5],\"text\":\"a\",\"logprobs\":[-0.5]}}\n\n",
    );
    assert!(
        matches!(&streamed[..], [Event::Started { .. }, Event::Opened { .. }, Event::Added { .. }, Event::Likely { logprobs, .. }] if logprobs.len() == 1)
    );
}

#[test]
fn d14_usage_is_what_was_read_or_else_what_is_billed_and_never_made_up() {
    let usage = |usage: &str| answer(&format!("{{\"message\":{{}},\"usage\":{usage}}}")).usage.unwrap();
    let expected = Usage { tokens_in: 9, tokens_in_cached: 9, tokens_out: 2, ..Usage::default() };
    assert_eq!(
        usage(r#"{"billed_units":{"input_tokens":9,"output_tokens":2},"cached_tokens":50}"#),
        expected
    );
    let both = r#"{"billed_units":{"input_tokens":1,"output_tokens":1},"tokens":{"input_tokens":9,"output_tokens":2}}"#;
    assert_eq!(usage(both), Usage { tokens_in_cached: 0, ..expected });
    assert_eq!(answer(r#"{"message":{}}"#).usage, None);
}

#[test]
fn reasons_to_stop_have_their_meaning() {
    for (word, stop) in [
        ("COMPLETE", Stop::End),
        ("MAX_TOKENS", Stop::Length),
        ("STOP_SEQUENCE", Stop::Sequence),
        ("TOOL_CALL", Stop::ToolCalls),
        ("ERROR", Stop::Other),
        ("TIMEOUT", Stop::Other),
    ] {
        let body = format!("{{\"message\":{{}},\"finish_reason\":\"{word}\"}}");
        assert_eq!(answer(&body).choices[0].stop, Some(stop), "{word}");
    }
}

#[test]
fn d15_a_call_that_was_cut_keeps_its_broken_arguments_and_its_reason() {
    let start = "data: {\"type\":\"tool-call-start\",\"index\":0,\"delta\":{\"message\":{\"tool_calls\":{\"id\":\"c\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}}}}\n\n";
    let delta = "data: {\"type\":\"tool-call-delta\",\"index\":0,\"delta\":{\"message\":{\"tool_calls\":{\"function\":{\"arguments\":\"{\\\"a\\\":\"}}}}}\n\n";
    let end = "data: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"MAX_TOKENS\"}}\n\n";
    let (mut writer, mut text) = (client("openai").unwrap().dialect.stream(Told::default()), String::new());
    for event in events(&[start, delta, end].concat()) {
        writer.write(&event, &mut text);
    }
    assert!(
        text.contains(r#"{"arguments":"{\"a\":"}"#) && text.contains(r#""finish_reason":"length""#),
        "{text}"
    );
}

#[test]
fn d17_foreign_events_are_passed_over() {
    let events = events(
        "event: x\ndata: {\"type\":\"<script>\"}\n\ndata: 5\n\n: comment\n\ndata: {\"type\":\"debug\",\"prompt\":\"secret\"}\n\n",
    );
    assert!(events.is_empty(), "{events:?}");
    let mut losses = Losses::default();
    assert!(
        client("openai")
            .unwrap()
            .dialect
            .answer(&answer(r#"{"message":{}}"#), &Told::default(), &mut losses)
            .starts_with('{')
    );
}
