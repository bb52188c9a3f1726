//! What is written for providers of chat completions by the habits of their vendors, and what of their answers is none.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use pointsman_wire::chat::{Event, Opened, Part, Stop};
use pointsman_wire::dialect::{AnswerFault, CONVERTED_DEPTH_MAX, client, provider};
use pointsman_wire::json::tree::Tree;
use pointsman_wire::vendor::{self, vendor};
use serde_json::{Value, json};

/// The body for a vendor of what an Anthropic client asks, and the fields that are lost.
fn asked_of(kind: &str, body: &Value) -> (Value, Vec<String>) {
    asked_as("anthropic", kind, body)
}

fn asked_as(dialect: &str, kind: &str, body: &Value) -> (Value, Vec<String>) {
    let text = body.to_string();
    let tree = Tree::parse(&text, CONVERTED_DEPTH_MAX).unwrap();
    let mut all = client(dialect).unwrap().dialect.conversation(tree).unwrap();
    all.habits = vendor(kind).unwrap().habits();
    let mut losses = std::mem::take(&mut all.losses);
    let sent = provider("openai").unwrap().dialect.request(&all, "m", &mut losses);
    let lost = losses.named().iter().map(|loss| loss.field.clone()).collect();
    (serde_json::from_str(&sent).unwrap(), lost)
}

fn hello(more: &Value) -> Value {
    let mut body = json!({"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn the_most_tokens_go_by_the_name_the_vendor_knows() {
    for (kind, name) in [
        ("openai", "max_completion_tokens"),
        ("azure", "max_completion_tokens"),
        ("groq", "max_completion_tokens"),
        ("moonshot", "max_completion_tokens"),
        ("mistral", "max_tokens"),
        ("deepseek", "max_tokens"),
        ("ollama", "max_tokens"),
        ("openai_compatible", "max_tokens"),
    ] {
        let (sent, _) = asked_of(kind, &hello(&json!({})));
        assert_eq!(sent[name], 9, "{kind}: {sent}");
        let names = ["max_tokens", "max_completion_tokens"];
        assert_eq!(names.iter().filter(|name| sent.get(**name).is_some()).count(), 1, "{kind}: {sent}");
    }
}

#[test]
fn refused_fields_are_left_out_and_named() {
    let body = json!({
        "messages": [{"role": "user", "name": "ann", "content": "hi"}], "max_tokens": 9, "seed": 7, "user": "u",
        "logprobs": true, "top_logprobs": 2, "stream": true, "n": 2
    });
    let (sent, lost) = asked_as("openai", "mistral", &body);
    assert_eq!((&sent["random_seed"], &sent["n"], &sent["stream"]), (&json!(7), &json!(2), &json!(true)));
    for name in ["seed", "user", "logprobs", "top_logprobs", "stream_options", "max_completion_tokens"] {
        assert!(sent.get(name).is_none(), "{name}: {sent}");
    }
    assert_eq!(sent["messages"][0].get("name"), None, "{sent}");
    assert_eq!(lost, ["messages[0].name", "logprobs", "top_logprobs", "user"]);
    let (sent, lost) = asked_as("openai", "groq", &body);
    assert_eq!((&sent["seed"], sent.get("n"), &sent["user"]), (&json!(7), None, &json!("u")), "{sent}");
    assert_eq!(lost, ["messages[0].name", "n", "logprobs", "top_logprobs"]);
    assert!(sent["stream_options"]["include_usage"] == true && lost.len() == 4);
}

#[test]
fn a_record_of_a_field_that_nobody_writes_is_refused() {
    let read = |line: &str| vendor::read(&format!("[[vendor]]\nkind = 'acme'\n{line}\n"));
    let acme = read("renamed_fields = { seed = 'random_seed' }\nrefused_fields = ['user']").unwrap();
    assert!(!acme[0].responses && acme[0].refused_fields.len() == 1);
    assert!(read("refused_fields = ['usr']").unwrap_err().contains("usr"));
    assert!(read("renamed_fields = { sed = 'x' }").unwrap_err().contains("sed"));
}

/// A turn that thought and called a tool.
fn looped(thinking: Value) -> Value {
    let mut content = vec![json!({"type": "tool_use", "id": "t1", "name": "f", "input": {}})];
    if !thinking.is_null() {
        content.insert(0, thinking);
    }
    hello(&json!({
        "tools": [{"name": "f", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "1"}]},
        ],
    }))
}

#[test]
fn thoughts_go_back_in_the_field_they_came_in() {
    let thought = json!({"type": "thinking", "thinking": "hm", "signature": ""});
    for (kind, field) in
        [("deepseek", "reasoning_content"), ("openrouter", "reasoning"), ("moonshot", "reasoning_content")]
    {
        let (sent, lost) = asked_of(kind, &looped(thought.clone()));
        assert_eq!(sent["messages"][1][field], "hm", "{kind}: {sent}");
        assert!(lost.is_empty(), "{kind}: {lost:?}");
    }
    let (sent, _) = asked_of("minimax", &looped(thought.clone()));
    assert_eq!(sent["messages"][1]["reasoning_details"], json!([{"type": "reasoning.text", "text": "hm"}]));
    let signed = json!({"type": "thinking", "thinking": "hm", "signature": "s"});
    let (sent, lost) = asked_of("deepseek", &looped(signed));
    assert_eq!(
        (&sent["messages"][1]["reasoning_content"], lost),
        (&json!("hm"), vec!["messages[1].content.signature".to_owned()])
    );
    let (sent, lost) = asked_of("mistral", &looped(thought));
    assert_eq!(lost, ["messages[1].content.thinking"], "{sent}");
    assert!(!sent.to_string().contains("reasoning"), "{sent}");
}

#[test]
fn ids_of_calls_are_as_the_vendor_takes_them() {
    let ids = |kind: &str| {
        let (sent, _) = asked_of(kind, &looped(Value::Null));
        let call = sent["messages"][1]["tool_calls"][0]["id"].as_str().unwrap().to_owned();
        assert_eq!(sent["messages"][2]["tool_call_id"], call, "{sent}");
        call
    };
    assert_eq!(ids("openai"), "t1");
    let made = ids("mistral");
    assert!(made.len() == 9 && made.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{made}");
    let habits = vendor("mistral").unwrap().habits();
    assert_eq!(habits.call_id("D681PevKs"), "D681PevKs");
    assert_ne!(habits.call_id("toolu_01"), habits.call_id("toolu_02"));
}

#[test]
fn who_demands_a_thought_with_every_call_gets_one() {
    let (sent, _) = asked_of("deepseek", &looped(Value::Null));
    assert_eq!(sent["messages"][1]["reasoning_content"], " ", "{sent}");
    let (sent, _) = asked_of("openrouter", &looped(Value::Null));
    assert!(sent["messages"][1].get("reasoning").is_none(), "{sent}");
}

#[test]
fn a_turn_of_thoughts_alone_is_left_out() {
    let body = hello(&json!({"messages": [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
        {"role": "user", "content": "well?"},
    ]}));
    for kind in ["openai", "deepseek"] {
        let (sent, lost) = asked_of(kind, &body);
        let roles: Vec<&Value> =
            sent["messages"].as_array().unwrap().iter().map(|message| &message["role"]).collect();
        assert_eq!(roles, ["user", "user"], "{kind}");
        assert!(lost.contains(&"messages[1].content".to_owned()), "{kind}: {lost:?}");
    }
}

#[test]
fn there_is_no_choice_without_tools() {
    let (sent, lost) = asked_of("openai", &hello(&json!({"tool_choice": {"type": "any"}})));
    assert_eq!((sent.get("tool_choice"), lost), (None, vec!["tool_choice".to_owned()]));
}

fn answer(body: &Value) -> Result<pointsman_wire::chat::Answer, AnswerFault> {
    provider("openai").unwrap().dialect.answer(&body.to_string())
}

#[test]
fn d2_what_is_no_answer_is_none_whatever_its_status() {
    for nothing in [json!({}), json!({"choices": []}), json!({"choices": null}), json!({"choices": [{}]})] {
        assert!(matches!(answer(&nothing), Err(AnswerFault::Missing(_))), "{nothing}");
        let azure = provider("azure").unwrap().dialect.answer(&nothing.to_string());
        assert!(azure.is_err(), "{nothing}");
    }
    for failed in [
        json!({"error": {"message": "late", "code": 429}}),
        json!({"object": "error", "message": "late", "code": 429}),
        json!({"error": {"message": "late", "code": 429}, "choices": [{"message": {"content": ""}}]}),
    ] {
        let Err(AnswerFault::Failed(error)) = answer(&failed) else { panic!("{failed}") };
        assert_eq!((error.status, error.message.as_deref()), (Some(429), Some("late")), "{failed}");
    }
}

#[test]
fn d3_a_whole_answer_that_does_not_say_why_it_ended_is_marked() {
    for (reason, stop, lost) in [
        (json!("stop"), Some(Stop::End), 0),
        (json!("eos_token"), Some(Stop::End), 0),
        (json!("model_length"), Some(Stop::Length), 0),
        (json!("sensitive"), Some(Stop::Filtered), 0),
        (json!("network_error"), Some(Stop::Other), 1),
        (json!(null), None, 1),
        (json!(""), None, 1),
    ] {
        let said =
            answer(&json!({"choices": [{"message": {"content": "a"}, "finish_reason": reason}]})).unwrap();
        assert_eq!(said.choices[0].stop, stop, "{reason}");
        assert_eq!(said.losses.count(), lost, "{reason}: {:?}", said.losses);
        assert!(said.losses.named().iter().all(|loss| loss.field == "choices[0].finish_reason"));
    }
}

#[test]
fn d15_calls_without_ids_are_told_apart() {
    let call = json!({"function": {"name": "f", "arguments": "{}"}});
    let said = answer(
        &json!({"id": "x", "choices": [{"message": {"tool_calls": [call, call]}, "finish_reason": "tool_calls"}]}),
    );
    let ids: Vec<String> = said.unwrap().choices[0]
        .parts
        .iter()
        .map(|part| {
            let Part::ToolCall { id, .. } = part else { panic!("{part:?}") };
            id.clone()
        })
        .collect();
    assert!(ids.len() == 2 && ids[0] != ids[1] && ids[0].starts_with("call_"), "{ids:?}");
}

fn streamed(text: &str) -> Vec<Event> {
    let (mut reader, mut events) = (provider("openai").unwrap().dialect.stream(), Vec::new());
    reader.push(text.as_bytes(), &mut events).unwrap();
    reader.finish(&mut events);
    events
}

fn chunk(delta: &Value, reason: &Value) -> String {
    let chunk = json!({"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
    format!("data: {chunk}\n\n")
}

fn has_ended(events: &[Event]) -> bool {
    events.contains(&Event::Ended)
}

#[test]
fn d3_d5_a_stream_ends_when_every_choice_did() {
    let (content, stop) = (chunk(&json!({"content": "a"}), &json!(null)), chunk(&json!({}), &json!("stop")));
    for (text, ends) in [
        (format!("{content}{stop}data: [DONE]\n\n"), true),
        (format!("{content}{stop}"), true),
        (format!("{content}{}", stop.trim_end()), true),
        (format!("{content}{stop}data: [DONE"), true),
        (content.clone(), false),
        (format!("{content}data: [DONE]\n\n"), false),
        (format!("{content}{}", &stop[..stop.len() - 4]), false),
        ("data: [DONE]\n\n".to_owned(), false),
        (String::new(), false),
        (format!("{content}{}{stop}", content.replace("\"index\":0", "\"index\":1")), false),
    ] {
        let events = streamed(&text);
        assert_eq!(has_ended(&events), ends, "{text}");
        let stops = events.iter().filter(|event| matches!(event, Event::Stopped { .. })).count();
        let seen = if text.contains("\"index\":1") { 2 } else { 1 };
        assert!(ends || stops < seen, "nothing is made up: {text}: {events:?}");
    }
}

#[test]
fn d4_nothing_follows_a_failure() {
    let content = chunk(&json!({"content": "a"}), &json!(null));
    for odd in [
        "data: {not json\n\n",
        "data: {\"error\":{\"message\":\"boom\"}}\n\n",
        "data: {\"object\":\"error\"}\n\n",
    ] {
        let events = streamed(&format!(
            "{content}{odd}{content}{}data: [DONE]\n\n",
            chunk(&json!({}), &json!("stop"))
        ));
        assert!(matches!(events.last(), Some(Event::Failed(_))), "{events:?}");
    }
}

#[test]
fn usage_within_a_choice_counts() {
    let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}]});
    let events = streamed(&format!(
        "{}data: {last}\n\ndata: [DONE]\n\n",
        chunk(&json!({"content": "a"}), &json!(null))
    ));
    let used = |event: &Event| {
        let Event::Used(usage) = event else { return None };
        Some((usage.tokens_in, usage.tokens_out))
    };
    assert_eq!(events.iter().find_map(used), Some((3, 2)));
}

#[test]
fn thoughts_are_read_by_whichever_name_they_come() {
    for delta in [
        json!({"reasoning_content": "hm"}),
        json!({"reasoning": "hm"}),
        json!({"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}),
        json!({"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}),
        json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}),
    ] {
        let events = streamed(&chunk(&delta, &json!("stop")));
        let thoughts = |event: &&Event| matches!(event, Event::Added { text, .. } if text == "hm");
        assert_eq!(events.iter().filter(thoughts).count(), 1, "{delta}: {events:?}");
        let opened = |event: &Event| matches!(event, Event::Opened { what: Opened::Thinking, .. });
        assert!(events.iter().any(opened), "{delta}: {events:?}");
        let whole = answer(&json!({"choices": [{"message": delta, "finish_reason": "stop"}]})).unwrap();
        let thought = Part::Thinking { text: "hm".to_owned(), signature: None };
        assert_eq!(whole.choices[0].parts, [thought], "{delta}");
    }
}

#[test]
fn d15_a_call_that_is_never_named_is_lost_and_said_so() {
    let call = json!({"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": "{}"}}]});
    let events = streamed(&chunk(&call, &json!("tool_calls")));
    assert!(!events.iter().any(|event| matches!(event, Event::Opened { .. })), "{events:?}");
    let lost = events.iter().any(|event| matches!(event, Event::Lost(losses) if losses.count() == 1));
    assert!(lost && has_ended(&events), "{events:?}");
}

#[test]
fn d16_what_waits_for_its_turn_is_bounded() {
    let open = |at: u64| {
        chunk(
            &json!({"tool_calls": [{"index": at, "id": format!("c{at}"), "function": {"name": "f"}}]}),
            &json!(null),
        )
    };
    let piece = chunk(
        &json!({"tool_calls": [{"index": 1, "function": {"arguments": "x".repeat(1 << 19)}}]}),
        &json!(null),
    );
    let (mut reader, mut events) = (provider("openai").unwrap().dialect.stream(), Vec::new());
    reader.push(format!("{}{}", open(0), open(1)).as_bytes(), &mut events).unwrap();
    let fails = (0..64).position(|_| {
        reader.push(piece.as_bytes(), &mut events).unwrap();
        matches!(events.last(), Some(Event::Failed(_)))
    });
    assert!(fails.is_some_and(|at| at < 20), "{fails:?}");
    let many: String = (0..1_000).map(open).collect();
    assert!(matches!(streamed(&many).last(), Some(Event::Failed(_))));
    // Pieces of next to nothing take room as well.
    let hidden = vec![json!({"data": ""}); 10_000];
    let small = chunk(&json!({"reasoning_details": hidden}), &json!(null));
    let (mut reader, mut events) = (provider("openai").unwrap().dialect.stream(), Vec::new());
    reader.push(open(0).as_bytes(), &mut events).unwrap();
    let fails = (0..64).position(|_| {
        reader.push(small.as_bytes(), &mut events).unwrap();
        matches!(events.last(), Some(Event::Failed(_)))
    });
    assert!(fails.is_some(), "{} events", events.len());
}
