//! Ollama: the facts of its bodies, its streams as they are relayed, and what becomes of bad ones.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use pointsman_wire::chat::{Conversation, Event, Losses, Part, Role, Stop};
use pointsman_wire::dialect::{NO_HEADERS, Told, client, provider};
use pointsman_wire::json::tree::Tree;
use pointsman_wire::ollama::request::{Api, parse};
use pointsman_wire::openai::{BodyLimits, FaultKind, Request, UsageAsk, literal, rewrite};

fn chat(body: &str) -> Result<Request, pointsman_wire::openai::Invalid> {
    parse(Api::Chat, body.as_bytes(), &BodyLimits::default(), 7)
}

fn generate(body: &str) -> Result<Request, pointsman_wire::openai::Invalid> {
    parse(Api::Generate, body.as_bytes(), &BodyLimits::default(), 7)
}

fn conversation(dialect: &str, body: &str) -> Conversation {
    client(dialect).unwrap().dialect.conversation(Tree::parse(body, 64).unwrap()).unwrap()
}

#[test]
fn facts_of_a_chat() {
    let request = chat(
        r#"{"model":"llama@3.1","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"What is this?","images":["AAAA","BBBB"]}],
            "tools":[{"type":"function","function":{"name":"f"}}],"format":{"type":"object"},
            "options":{"temperature":0.5,"num_predict":100,"seed":-3,"num_ctx":8192},"logprobs":true,"top_logprobs":2,"keep_alive":"5m"}"#,
    )
    .unwrap();
    assert_eq!((request.model.as_str(), request.version.as_deref()), ("llama", Some("3.1")));
    assert!(request.stream, "a stream is the default");
    assert!(request.needs.vision && request.needs.tools && request.needs.json_schema && request.formatted);
    assert_eq!((request.messages, request.images, request.tokens_out_max), (2, 2, Some(100)));
    assert_eq!((request.params.temperature, request.params.seed), (Some(0.5), Some(-3)));
    assert_eq!((request.params.logprobs, request.params.top_logprobs), (Some(1), Some(2)));
    assert!(request.tokens_in_estimate() > 1_500, "two images");
}

#[test]
fn facts_of_a_generation() {
    let request = generate(
        r#"{"model":"m","prompt":"def f(","suffix":"return","system":"Code.","context":[1,2,3],"stream":false,"format":"json","options":{"num_predict":-1}}"#,
    )
    .unwrap();
    assert!(!request.stream && request.formatted && !request.needs.json_schema);
    assert_eq!((request.messages, request.prompt_tokens_given, request.tokens_out_max), (1, 3, None));
    assert_eq!(request.prompt_bytes, 6 + 6 + 5);
    assert!(
        generate(r#"{"model":"m","keep_alive":0}"#).is_ok(),
        "a model is loaded and unloaded without a prompt"
    );
}

#[test]
fn a_prompt_has_the_same_beginnings_whatever_dialect_it_comes_in() {
    let text = "All happy families are alike. ".repeat(40);
    let messages = format!(r#""messages":[{{"role":"user","content":"{text}"}}]"#);
    let here = chat(&format!(r#"{{"model":"m",{messages}}}"#)).unwrap();
    let limits = BodyLimits::default();
    let body = format!(r#"{{"model":"n",{messages}}}"#);
    let there =
        pointsman_wire::openai::parse(pointsman_wire::openai::Operation::Chat, body.as_bytes(), &limits, 7)
            .unwrap();
    assert!(here.prefix.len() > 3);
    assert_eq!((here.prefix, here.prefix_hash), (there.prefix, there.prefix_hash));
    let whole = generate(&format!(r#"{{"model":"m","prompt":"{text}"}}"#)).unwrap();
    let again = chat(&format!(r#"{{"model":"m",{messages}}}"#)).unwrap();
    assert_eq!(whole.prefix, again.prefix, "a generation is a conversation of one turn");
}

#[test]
fn c6_what_is_forwarded_is_what_was_sent_but_for_the_model() {
    for (body, expected) in [
        (
            r#"{ "model" : "m", "messages":[], "unknown":{"a":[1e400]}, "keep_alive":-1 }"#,
            r#"{ "model" : "up", "messages":[], "unknown":{"a":[1e400]}, "keep_alive":-1 }"#,
        ),
        (r#"{"api_base":"http://evil","model":"m","timeout":1}"#, r#"{"model":"up"}"#),
        (r#"{"model":"m","prompt":"\ud800"}"#, r#"{"model":"up","prompt":"\ud800"}"#),
    ] {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let request = generate(body).unwrap();
        let sent = rewrite(&request, &bytes, &literal("up"), UsageAsk::Inject);
        assert!(!sent.usage_injected, "Ollama counts unasked");
        assert_eq!(sent.concat(), expected.as_bytes());
    }
}

#[test]
fn c4_c5_bad_bodies_are_refused_and_the_field_is_named() {
    let check = |body: &str, field: &str| {
        let invalid = chat(body).unwrap_err();
        assert!(matches!(invalid.status, 400 | 404), "{body}");
        assert_eq!(invalid.param.as_deref().unwrap_or(""), field, "{body}: {}", invalid.message);
    };
    check("[]", "");
    check("\u{FEFF}{}", "");
    check("{}", "model");
    check(r#"{"model":"m","model":"n"}"#, "model");
    check(r#"{"model":"m","Model":"n"}"#, "model");
    check(r#"{"model":"m","mod\u0065l":"n"}"#, "model");
    check(r#"{"model":null}"#, "model");
    check(r#"{"model":"\u0000"}"#, "model");
    check(r#"{"model":"m","stream":"yes"}"#, "stream");
    check(r#"{"model":"m","messages":{}}"#, "messages");
    check(r#"{"model":"m","messages":[{"content":"a"}]}"#, "messages[0].role");
    check(r#"{"model":"m","messages":[{"role":"user","role":"tool"}]}"#, "messages[0].role");
    check(r#"{"model":"m","messages":[{"role":"user","Content":"a"}]}"#, "messages[0].content");
    check(r#"{"model":"m","messages":[{"role":"user","content":[]}]}"#, "messages[0].content");
    check(r#"{"model":"m","messages":[{"role":"user","images":[1]}]}"#, "messages[0].images[0]");
    check(r#"{"model":"m","options":[]}"#, "options");
    check(r#"{"model":"m","options":{"temperature":-1}}"#, "options.temperature");
    check(r#"{"model":"m","options":{"num_predict":1.5}}"#, "options.num_predict");
    check(r#"{"model":"m","options":{"num_predict":99999999999}}"#, "options.num_predict");
    check(r#"{"model":"m","options":{"seed":1,"seed":2}}"#, "options.seed");
    check(r#"{"model":"m","format":3}"#, "format");
    check(r#"{"model":"m","tools":{}}"#, "tools");
    check(r#"{"model":"m","options":{"temperature":NaN}}"#, "");
    check(&format!(r#"{{"model":"m","x":{}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000)), "");
    assert!(parse(Api::Chat, b"{\"model\":\"\xFF\"}", &BodyLimits::default(), 0).is_err());
}

#[test]
fn calls_without_ids_get_those_of_their_place_and_results_find_them() {
    let all = conversation(
        "ollama",
        r#"{"messages":[{"role":"user","content":"?"},
            {"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":{}}},{"function":{"name":"b","arguments":{}}},{"id":"given","function":{"name":"a","arguments":{}}}]},
            {"role":"tool","tool_name":"b","content":"of b"},{"role":"tool","tool_call_id":"given","content":"of given"},{"role":"tool","content":"of a"},
            {"role":"tool","tool_name":"nobody","content":"too many"}]}"#,
    );
    assert_eq!(all.messages[2].role, Role::Tool);
    let result = |part: &Part| {
        if let Part::ToolResult { id, name, .. } = part { Some((id.clone(), name.clone())) } else { None }
    };
    let found: Vec<(String, Option<String>)> = all.messages[2].parts.iter().filter_map(result).collect();
    let results: Vec<(&str, Option<&str>)> =
        found.iter().map(|(id, name)| (id.as_str(), name.as_deref())).collect();
    let expected =
        [("call_1_1", Some("b")), ("given", Some("a")), ("call_1_0", Some("a")), ("call_5", Some("nobody"))];
    assert_eq!(results, expected);
}

#[test]
fn what_loads_a_model_cannot_be_asked_of_others() {
    for (dialect, body, field) in
        [("ollama", r#"{"model":"m"}"#, "messages"), ("ollama-generate", r#"{"model":"m"}"#, "prompt")]
    {
        let read = client(dialect).unwrap().dialect.conversation(Tree::parse(body, 8).unwrap());
        assert_eq!(read.unwrap_err().param.as_deref(), Some(field));
    }
}

const STREAM: &str = concat!(
    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":false}\r\n",
    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"é\u{1F600}\"},\"done\":false}\n\n",
    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\",\"thinking\":\"x\"},\"done\":false}\n",
    "{\"model\":\"m\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":7,\"eval_count\":2}\n",
);

fn events_of(pieces: &[&[u8]]) -> Vec<Event> {
    let (mut reader, mut events) = (provider("ollama").unwrap().dialect.stream(), Vec::new());
    for piece in pieces {
        reader.push(piece, &mut events).unwrap();
    }
    reader.finish(&mut events);
    events
}

fn events(stream: &str) -> Vec<Event> {
    events_of(&[stream.as_bytes()])
}

#[test]
fn d1_d13_a_stream_says_the_same_however_it_is_cut() {
    let bytes = STREAM.as_bytes();
    let whole = events(STREAM);
    let used =
        whole.iter().filter_map(|event| if let Event::Used(usage) = event { Some(usage) } else { None });
    let used: Vec<_> = used.map(|usage| (usage.tokens_in, usage.tokens_out)).collect();
    assert_eq!((used, whole.last()), (vec![(7, 2)], Some(&Event::Ended)));
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(events_of(&[head, tail]), whole, "cut at {cut}");
    }
    assert_eq!(events_of(&bytes.chunks(1).collect::<Vec<_>>()), whole);
}

#[test]
fn d5_a_stream_without_its_last_line_has_no_end() {
    let lines: Vec<&str> = STREAM.split_inclusive('\n').collect();
    let cut = lines[..3].concat() + "{\"model\":\"m\",\"mess";
    assert!(!events(&cut).iter().any(|event| matches!(event, Event::Stopped { .. } | Event::Ended)));
}

#[test]
fn d14_usage_that_is_missing_is_not_made_up() {
    let events = events("{\"message\":{\"content\":\"a\"},\"done\":true}\n");
    assert!(
        events.last() == Some(&Event::Ended) && !events.iter().any(|event| matches!(event, Event::Used(_)))
    );
    let answer =
        provider("ollama").unwrap().dialect.answer("{\"response\":\"a\",\"done\":true,\"eval_count\":-5}");
    assert!(answer.unwrap().usage.is_none_or(|usage| usage.tokens_out == 0));
}

#[test]
fn d3_d4_a_converted_stream_that_breaks_ends_with_an_error_and_no_reason() {
    for bad in ["no json\n", "{\"error\":\"out of memory\"}\n"] {
        let stream =
            format!("{{\"message\":{{\"content\":\"a\"}},\"done\":false}}\n{bad}{{\"done\":true}}\n");
        let events = events(&stream);
        assert!(matches!(events.last(), Some(Event::Failed(_))), "{events:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::Stopped { .. } | Event::Ended)));
        let mut text = String::new();
        let mut writer = client("ollama").unwrap().dialect.stream(Told::default());
        for event in &events {
            writer.write(event, &mut text);
        }
        assert!(
            text.lines().last().unwrap().starts_with("{\"error\":") && !text.contains("\"done\":true"),
            "{text}"
        );
    }
}

#[test]
fn d15_arguments_that_were_cut_are_never_a_call_that_can_be_run() {
    let opened = pointsman_wire::chat::Opened::ToolCall { id: "1".to_owned(), name: "f".to_owned() };
    for (stop, expected) in [(Stop::Length, "\"done_reason\":\"length\""), (Stop::ToolCalls, "{\"error\":")] {
        let (mut writer, mut text) =
            (client("ollama").unwrap().dialect.stream(Told::default()), String::new());
        for event in [
            Event::Opened { choice: 0, part: 0, what: opened.clone() },
            Event::Added { choice: 0, part: 0, text: "{\"city\":\"Par".to_owned() },
            Event::Closed { choice: 0, part: 0 },
            Event::Stopped { choice: 0, stop, sequence: None },
            Event::Ended,
        ] {
            writer.write(&event, &mut text);
        }
        assert!(text.contains(expected) && !text.contains("tool_calls"), "{text}");
    }
}

#[test]
fn faults_of_ollama_and_of_cohere_have_their_kinds() {
    let check = |dialect: &str, status: u16, body: &str, kind: FaultKind| {
        let fault = provider(dialect).unwrap().dialect.fault(status, NO_HEADERS, body.as_bytes());
        assert_eq!(fault.kind, kind, "{dialect} {status} {body}");
    };
    check(
        "ollama",
        404,
        r#"{"error":"model \"x\" not found, try pulling it first"}"#,
        FaultKind::ModelMissing,
    );
    check("ollama", 400, r#"{"error":"\"x\" does not support tools"}"#, FaultKind::Client);
    check(
        "ollama",
        400,
        r#"{"error":"the input length exceeds the context length"}"#,
        FaultKind::ContextLength,
    );
    check(
        "ollama",
        503,
        r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#,
        FaultKind::Overloaded,
    );
    check("ollama", 500, r#"{"error":"llama runner process has terminated"}"#, FaultKind::Transient);
    check(
        "cohere",
        400,
        r#"{"message":"too many tokens: total number of tokens in the prompt cannot exceed 4081"}"#,
        FaultKind::ContextLength,
    );
    check("cohere", 401, r#"{"message":"invalid api token"}"#, FaultKind::CredentialDead);
    check("cohere", 404, r#"{"message":"model 'x' not found"}"#, FaultKind::ModelMissing);
    check("cohere", 422, r#"{"message":"invalid type"}"#, FaultKind::Client);
    check("cohere", 429, r#"{"message":"trial key"}"#, FaultKind::CredentialQuota);
    check("cohere", 498, r#"{"message":"blocked input"}"#, FaultKind::ContentPolicy);
    check("cohere", 503, "", FaultKind::Overloaded);
}

#[test]
fn d3_a_cohere_stream_that_fails_has_no_reason_to_stop() {
    let head = "event: message-start\ndata: {\"type\":\"message-start\",\"id\":\"1\"}\n\ndata: {\"type\":\"content-delta\",\"delta\":{\"message\":{\"content\":{\"text\":\"a\"}}}}\n\n";
    for bad in [
        "data: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"ERROR\",\"error\":\"broken\"}}\n\n",
        "data: {\"message\":\"internal server error\"}\n\n",
        "data: {\n\n",
    ] {
        let (mut reader, mut events) = (provider("cohere").unwrap().dialect.stream(), Vec::new());
        reader.push(format!("{head}{bad}data: [DONE]\n\n").as_bytes(), &mut events).unwrap();
        assert!(matches!(events.last(), Some(Event::Failed(_))), "{events:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::Stopped { .. } | Event::Ended)));
    }
    let (mut reader, mut events) = (provider("cohere").unwrap().dialect.stream(), Vec::new());
    reader.push(head.as_bytes(), &mut events).unwrap();
    assert!(!events.contains(&Event::Ended), "d5: a stream that just stops has no end");
}

#[test]
fn documents_and_named_tools_have_their_own_place_in_cohere() {
    let mut all = conversation(
        "openai",
        r#"{"messages":[{"role":"user","content":"Where?"}],"tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"b"}}],"tool_choice":{"type":"function","function":{"name":"b"}},"reasoning_effort":"none","stop":["1","2","3","4","5","6"]}"#,
    );
    all.messages[0].parts.push(Part::Media(pointsman_wire::chat::Media {
        kind: pointsman_wire::chat::MediaKind::Document,
        media_type: None,
        source: pointsman_wire::chat::Source::Text("Paris is mild.".to_owned()),
        name: Some("Weather".to_owned()),
        detail: None,
        cache: None,
    }));
    let mut losses = Losses::default();
    let sent = provider("cohere").unwrap().dialect.request(&all, "m", &mut losses);
    let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
    assert_eq!(sent["documents"], serde_json::json!([{"data":{"title":"Weather","text":"Paris is mild."}}]));
    assert_eq!((&sent["tool_choice"], sent["tools"].as_array().unwrap().len()), (&"REQUIRED".into(), 1));
    assert_eq!(sent["tools"][0]["function"]["name"], "b");
    assert_eq!(sent["thinking"], serde_json::json!({"type":"disabled"}));
    assert_eq!(sent["stop_sequences"].as_array().unwrap().len(), 5);
    let lost: Vec<&str> = losses.named().iter().map(|loss| loss.field.as_str()).collect();
    assert_eq!(lost, ["tools", "stop"]);
}

#[test]
fn only_models_that_know_degrees_are_told_how_hard_to_think() {
    let check = |model: &str, effort: &str, think: serde_json::Value, lost: usize| {
        let body =
            format!(r#"{{"messages":[{{"role":"user","content":"?"}}],"reasoning_effort":"{effort}"}}"#);
        let mut losses = Losses::default();
        let dialect = provider("ollama").unwrap().dialect;
        let sent = dialect.request(&conversation("openai", &body), model, &mut losses);
        let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
        assert_eq!((&sent["think"], losses.count()), (&think, lost), "{model} {effort}");
    };
    check("qwen3:8b", "high", true.into(), 1);
    check("qwen3:8b", "medium", true.into(), 0);
    check("qwen3:8b", "none", false.into(), 0);
    check("gpt-oss:20b", "high", "high".into(), 0);
    check("gpt-oss:20b", "minimal", "low".into(), 0);
    check("gpt-oss:20b", "none", "low".into(), 1);
}
