//! What clients say that others have no word for is named or refused, and what comes back to them they can send again.

#![expect(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test stops at the first surprise, and is in no hurry"
)]

use pointsman_wire::chat::{Conversation, Losses, Part, ToolChoice};
use pointsman_wire::dialect::{Told, client, provider};
use pointsman_wire::openai::error::Invalid;
use serde_json::{Value, json};

fn read(dialect: &str, body: &Value) -> Result<Conversation, Invalid> {
    client(dialect).unwrap().conversation(&body.to_string())
}

fn fields(losses: &Losses) -> Vec<&str> {
    losses.named().iter().map(|loss| loss.field.as_str()).collect()
}

fn openai(members: Value) -> Result<Conversation, Invalid> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    read("openai", &body)
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

#[test]
fn tools_that_are_allowed_are_all_that_is_offered() {
    let choice = |mode: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [{"type": "function", "function": {"name": "b"}}]}});
    for (mode, expected) in [("required", ToolChoice::Any), ("auto", ToolChoice::Auto)] {
        let all = openai(json!({"tools": [tool("a"), tool("b")], "tool_choice": choice(mode)})).unwrap();
        let names: Vec<&str> = all.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!((names, all.tool_choice, all.losses.is_empty()), (vec!["b"], Some(expected), true));
    }
}

#[test]
fn nothing_that_chat_clients_say_vanishes() {
    for (members, lost) in [
        (json!({"tools": [{"type": "custom", "custom": {"name": "grep"}}]}), vec!["tools[0]"]),
        (
            json!({"tools": [tool("a"), {"type": "custom", "custom": {"name": "grep"}}], "tool_choice": {"type": "custom", "custom": {"name": "grep"}}}),
            vec!["tools[1]", "tool_choice"],
        ),
        (
            json!({"tools": [{"type": "function", "defer": 1, "function": {"name": "a", "flavour": 2}}]}),
            vec!["tools[0].defer", "tools[0].function.flavour"],
        ),
        (
            json!({"messages": [{"role": "system", "name": "op", "content": "s"}, {"role": "user", "content": "x"}]}),
            vec!["messages[0].name"],
        ),
        (
            json!({"response_format": {"type": "grammar", "grammar": "x"}}),
            vec!["response_format.type", "response_format.grammar"],
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "dialect": "x"}}}),
            vec!["response_format.json_schema.dialect"],
        ),
        (json!({"reasoning_effort": "heroic"}), vec!["reasoning_effort"]),
        (json!({"tool_choice": "maybe", "tools": [tool("a")]}), vec!["tool_choice"]),
        (json!({"seed": 9_223_372_036_854_775_808_u64}), vec!["seed"]),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/a.png", "crop": "1"}}]}]}),
            vec!["messages[0].content[0].image_url.crop"],
        ),
        (
            json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", "audio": {"id": "a"}, "tool_calls": [{"id": "c", "type": "function", "weight": 1, "function": {"name": "f", "arguments": "{}"}}]}]}),
            vec!["messages[1].tool_calls[0].weight", "messages[1].audio"],
        ),
    ] {
        let all = openai(members.clone()).unwrap();
        assert_eq!(fields(&all.losses), lost, "{members}");
    }
    for (members, field) in [
        (json!({"top_k": 2.5}), "top_k"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"parallel_tool_calls": "yes"}), "parallel_tool_calls"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "a", "strict": 1}}]}),
            "tools[0].function.strict",
        ),
    ] {
        let error = openai(members).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some(field)));
    }
    assert_eq!(openai(json!({"seed": 3.0})).unwrap().sampling.seed, Some(3));
}

#[test]
fn a_custom_call_is_lost_with_its_result_and_never_becomes_an_empty_one() {
    let all = openai(json!({"messages": [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "grep", "input": "a"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "b"},
        {"role": "user", "content": "y"}]}))
    .unwrap();
    assert_eq!(fields(&all.losses), ["messages[1].tool_calls[0]", "messages[2]"]);
    assert_eq!(all.messages.len(), 2, "{:?}", all.messages);
    let answer = json!({"choices": [{"message": {"role": "assistant", "content": "z", "audio": {"id": "a"},
        "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "grep", "input": "a"}}]}, "finish_reason": "stop"}]});
    let answer = provider("openai").unwrap().dialect.answer(&answer.to_string()).unwrap();
    assert_eq!(fields(&answer.losses), ["message.tool_calls[0]", "message.audio"]);
    assert_eq!(answer.choices[0].parts, [Part::text("z")]);
}

#[test]
fn a_wish_to_see_thoughts_alone_is_kept() {
    let gemini = read(
        "gemini",
        &json!({"contents": [], "generationConfig": {"thinkingConfig": {"includeThoughts": true}}}),
    );
    let responses = read("openai-responses", &json!({"input": "x", "reasoning": {"summary": "auto"}}));
    for all in [gemini.unwrap(), responses.unwrap()] {
        assert_eq!(all.reasoning.unwrap().visible, Some(true));
        let mut losses = Losses::default();
        provider("openai").unwrap().dialect.request(&all, "m", &mut losses);
        assert_eq!(fields(&losses), ["reasoning"]);
    }
}

#[test]
fn only_where_nothing_is_left_to_answer_is_a_loss_refused() {
    let error = openai(json!({"messages": [{"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "g", "input": ""}}]}]}))
    .unwrap_err();
    assert_eq!((error.status, error.param.as_deref()), (400, Some("messages[1]")));
}

#[test]
fn c5_half_a_surrogate_pair_is_refused_by_its_field_when_converted() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"a\ud800b"}]}"#;
    for dialect in ["openai", "anthropic", "ollama"] {
        let error = client(dialect).unwrap().conversation(body).unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some("messages[0].content")), "{dialect}");
    }
}

/// What a client of chat completions keeps of a stream: texts are put together, details by their index.
fn kept(stream: &str) -> Value {
    let mut message =
        json!({"role": "assistant", "content": "", "reasoning_content": "", "reasoning_details": []});
    for data in stream.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]")
    {
        let chunk: Value = serde_json::from_str(data).unwrap();
        let Some(delta) = chunk["choices"].get(0).map(|choice| choice["delta"].clone()) else { continue };
        for name in ["content", "reasoning_content"] {
            let more = format!("{}{}", message[name].as_str().unwrap(), delta[name].as_str().unwrap_or(""));
            message[name] = more.into();
        }
        for detail in delta["reasoning_details"].as_array().into_iter().flatten() {
            assert!(detail["index"].is_u64(), "{detail}");
            message["reasoning_details"].as_array_mut().unwrap().push(detail.clone());
        }
    }
    message
}

/// The blocks of the first message that an Anthropic provider is sent.
fn blocks_sent(message: Value) -> Value {
    let all = openai(
        json!({"messages": [{"role": "user", "content": "x"}, message, {"role": "user", "content": "y"}]}),
    );
    let mut losses = Losses::default();
    let sent = provider("anthropic").unwrap().dialect.request(&all.unwrap(), "claude-opus-4-5", &mut losses);
    assert!(losses.is_empty(), "{losses:?}");
    serde_json::from_str::<Value>(&sent).unwrap()["messages"][1]["content"].clone()
}

#[test]
fn signed_thoughts_come_back_with_their_words() {
    let event = |value: Value| format!("data: {value}\n\n");
    let thought = |index: u64, text: &str, signature: &str| {
        [
            event(json!({"type": "content_block_start", "index": index, "content_block": {"type": "thinking", "thinking": "", "signature": ""}})),
            event(json!({"type": "content_block_delta", "index": index, "delta": {"type": "thinking_delta", "thinking": text}})),
            event(json!({"type": "content_block_delta", "index": index, "delta": {"type": "signature_delta", "signature": signature}})),
            event(json!({"type": "content_block_stop", "index": index})),
        ]
        .concat()
    };
    let stream = [
        event(json!({"type": "message_start", "message": {"id": "m", "model": "c"}})),
        thought(0, "First.", "c2lnMQ=="),
        thought(1, "Second.", "c2lnMg=="),
        event(json!({"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": "Done."}})),
        event(json!({"type": "content_block_stop", "index": 2})),
        event(json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})),
        event(json!({"type": "message_stop"})),
    ]
    .concat();
    let (mut reader, mut events) = (provider("anthropic").unwrap().dialect.stream(), Vec::new());
    reader.push(stream.as_bytes(), &mut events).unwrap();
    let (mut writer, mut text) = (client("openai").unwrap().dialect.stream(Told::default()), String::new());
    for event in &events {
        writer.write(event, &mut text);
    }
    let expected = json!([
        {"type": "thinking", "thinking": "First.", "signature": "c2lnMQ=="},
        {"type": "thinking", "thinking": "Second.", "signature": "c2lnMg=="},
        {"type": "text", "text": "Done."}]);
    let message = kept(&text);
    assert_eq!(message["reasoning_content"], "First.Second.");
    assert_eq!(blocks_sent(message.clone()), expected);
    // Some keep the details only, and some leave the words in the plain text.
    let mut bare = message.clone();
    bare.as_object_mut().unwrap().remove("reasoning_content");
    assert_eq!(blocks_sent(bare), expected);
    let mut split = message;
    split["reasoning_details"][0]["text"] = "".into();
    assert_eq!(blocks_sent(split), expected);
}
