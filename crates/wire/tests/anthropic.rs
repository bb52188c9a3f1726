//! Anthropic's dialect where golden files do not reach: bodies for routing, streams that are relayed, models by version,
//! what is refused, and what is broken.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use pointsman_wire::anthropic;
use pointsman_wire::chat::{
    Answer, Choice, Conversation, Effort, Event, Format, Losses, Message, Opened, Part, Place, Reasoning,
    Role, Stop, Tool, ToolChoice, Usage,
};
use pointsman_wire::dialect::{CONVERTED_DEPTH_MAX, Told, client, provider};
use pointsman_wire::json::tree::Tree;
use pointsman_wire::openai::sse::{EVENT_BYTES_MAX, Out, StreamError};
use pointsman_wire::openai::{
    BodyLimits, End, ErrorBody, Invalid, Operation, Request, Seen, Shape, StreamObserver, UsageAsk, literal,
    parse_as, rewrite,
};

fn read_as(shape: Shape, body: &str) -> Result<Request, Invalid> {
    parse_as(shape, Operation::Chat, body.as_bytes(), &BodyLimits::default(), 7)
}

/// A messages request with more members.
fn ask(members: &str) -> Result<Request, Invalid> {
    let message = r#""messages":[{"role":"user","content":"hi"}]"#;
    read_as(Shape::AnthropicMessages, &format!(r#"{{"model":"m","max_tokens":9,{message}{members}}}"#))
}

fn messages(messages: &str) -> Result<Request, Invalid> {
    read_as(Shape::AnthropicMessages, &format!(r#"{{"model":"m","max_tokens":9,"messages":{messages}}}"#))
}

#[track_caller]
fn refused(result: Result<Request, Invalid>, param: &str, words: &str) {
    let error = result.expect_err("must be refused");
    assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error}");
    assert!(error.message.contains(words), "{error}");
}

#[test]
fn a_whole_body_is_read_for_routing() {
    let body = r#"{
        "model": "claude@2", "max_tokens": 20, "stream": true, "system": "be brief", "temperature": 1, "top_p": 0.5,
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "what is this"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAAAAAA"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "four"}},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "five5"}]}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a":1}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [
                {"type": "text", "text": "42"}, {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}]}]}
        ],
        "tools": [{"name": "f"}], "tool_choice": {"type": "auto"}, "metadata": {"user_id": "ann"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": {}}},
        "n": -7, "unknown": {"deep": [1e400]}
    }"#;
    let request = read_as(Shape::AnthropicMessages, body).unwrap();
    assert_eq!((&*request.model, request.version.as_deref()), ("claude", Some("2")));
    assert_eq!((request.operation, request.shape), (Operation::Chat, Shape::AnthropicMessages));
    assert!(request.stream && request.formatted && request.user_hash.is_some());
    assert!(request.needs.tools && request.needs.vision && request.needs.json_schema);
    assert_eq!((request.images, request.messages, request.tokens_out_max), (2, 3, Some(20)));
    let text =
        "be brief".len() + "what is this".len() + 4 + 5 + r#"{"a":1}"#.len() + 2 + r#"[{"name": "f"}]"#.len();
    assert_eq!(request.prompt_bytes as usize, text);
    assert_eq!(request.params.temperature, Some(1.0));
}

#[test]
fn fields_are_held_to_their_type_and_named() {
    for (members, param, words) in [
        (r#","temperature":1.5"#, "temperature", "0 to 1"),
        (r#","top_p":"x""#, "top_p", "a number"),
        (r#","stream":1"#, "stream", "a boolean"),
        (r#","system":5"#, "system", "a string"),
        (r#","tools":{}"#, "tools", "an array"),
        (r#","tools":[1]"#, "tools[0]", "an object"),
        (r#","thinking":"yes""#, "thinking", "an object"),
        (r#","output_config":[]"#, "output_config", "an object"),
        (r#","output_config":{"format":1}"#, "output_config.format", "an object"),
        (r#","output_format":1"#, "output_format", "an object"),
        (r#","metadata":[]"#, "metadata", "an object"),
        (r#","metadata":{"user_id":1}"#, "metadata.user_id", "a string"),
        (r#","stop_sequences":"x""#, "stop_sequences", "an array"),
        (r#","stop_sequences":[1]"#, "stop_sequences[0]", "a string"),
    ] {
        refused(ask(members), param, words);
    }
    refused(messages("[]"), "messages", "empty");
    refused(messages(r#"[{"content":"x"}]"#), "messages[0].role", "missing");
    refused(messages(r#"[{"role":"user"}]"#), "messages[0].content", "missing");
    refused(
        messages(r#"[{"role":"user","content":[{"text":"x"}]}]"#),
        "messages[0].content[0].type",
        "missing",
    );
    let inner =
        r#"[{"role":"user","content":[{"type":"tool_result","content":[{"type":"text","text":5}]}]}]"#;
    refused(messages(inner), "messages[0].content[0].content[0].text", "a string");
    let body =
        |limit: &str| format!(r#"{{"model":"m"{limit},"messages":[{{"role":"user","content":"hi"}}]}}"#);
    refused(read_as(Shape::AnthropicMessages, &body("")), "max_tokens", "missing");
    refused(read_as(Shape::AnthropicMessages, &body(r#","max_tokens":-1"#)), "max_tokens", "-1");
    assert!(read_as(Shape::AnthropicCountTokens, &body("")).is_ok());
    let warming = read_as(Shape::AnthropicMessages, &body(r#","max_tokens":0"#)).unwrap();
    assert_eq!(warming.tokens_out_max, Some(0), "fills the cache only");
}

#[test]
fn c4_routed_fields_appear_once_in_one_spelling() {
    for (members, param) in [
        (r#","model":"x""#, "model"),
        (r#","mod\u0065l":"x""#, "model"),
        (r#","Model":"x""#, "model"),
        (r#","system":"a","system":"b""#, "system"),
        (r#","System":"a""#, "system"),
        (r#","MAX_TOKENS":1"#, "max_tokens"),
        (r#","messages":[]"#, "messages"),
    ] {
        assert_eq!(ask(members).unwrap_err().param.as_deref(), Some(param), "{members}");
    }
    // What only other dialects route by is passed over.
    assert!(ask(r#","Prompt":1,"prompt":2,"N":3,"user":4,"User":5"#).is_ok());
}

#[test]
fn c4_c6_the_body_is_forwarded_as_it_was_but_for_the_model() {
    let body = r#"{ "max_tokens":9 ,"api_key":"k","model" : "m@1","messages":[{"role":"user","content":"\u0068i"}],"x":1e400,"stream":true,"fallbacks":["n"]}"#;
    let request = read_as(Shape::AnthropicMessages, body).unwrap();
    assert_eq!(request.fallbacks, ["n"]);
    let bytes = Bytes::copy_from_slice(body.as_bytes());
    let rewritten = rewrite(&request, &bytes, &literal("up"), UsageAsk::Inject);
    assert!(!rewritten.usage_injected, "it knows no such option");
    assert_eq!(
        rewritten.concat(),
        &br#"{ "max_tokens":9 ,"model" : "up","messages":[{"role":"user","content":"\u0068i"}],"x":1e400,"stream":true}"#[..]
    );
}

#[test]
fn c3_depth_is_limited() {
    let deep = "[".repeat(100_000);
    let error = ask(&format!(r#","x":{deep}"#)).unwrap_err();
    assert_eq!(error.status, 400);
    let content =
        format!("{}\"x\"{}", r#"[{"type":"tool_result","content":"#.repeat(5_000), "}]".repeat(5_000));
    assert_eq!(messages(&format!(r#"[{{"role":"user","content":{content}}}]"#)).unwrap_err().status, 400);
}

#[test]
fn prompts_that_begin_alike_are_known_by_their_beginning() {
    let long = "p".repeat(4096);
    let ask = |last: &str, salt: u64| {
        let body = format!(
            r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":[{{"type":"text","text":"{long}"}}]}},{{"role":"assistant","content":"yes"}},{{"role":"user","content":"{last}"}}]}}"#
        );
        parse_as(Shape::AnthropicMessages, Operation::Chat, body.as_bytes(), &BodyLimits::default(), salt)
            .unwrap()
    };
    let (one, other) = (ask("a", 1), ask("b", 1));
    assert!(one.prefix_hash.is_some());
    assert_eq!(one.prefix_hash, other.prefix_hash);
    assert_eq!(one.prefix[..2], other.prefix[..2]);
    assert_ne!(one.prefix.last(), other.prefix.last());
    assert_ne!(one.prefix_hash, ask("a", 2).prefix_hash, "salted");
}

fn stream(case: &str) -> &'static str {
    match case {
        "text" => include_str!("golden/stream/anthropic/text.txt"),
        "tools" => include_str!("golden/stream/anthropic/tools.txt"),
        "reasoning" => include_str!("golden/stream/anthropic/reasoning.txt"),
        "cache" => include_str!("golden/stream/anthropic/cache.txt"),
        _ => panic!("no such case"),
    }
}

fn relay(bytes: &[u8], piece_bytes: usize) -> (Vec<u8>, Vec<Seen>, End) {
    let mut observer = StreamObserver::of_shape(Shape::AnthropicMessages, Operation::Chat);
    let (mut out, mut seen) = (Out::new(), Vec::new());
    for piece in bytes.chunks(piece_bytes) {
        seen.push(observer.push(Bytes::copy_from_slice(piece), &mut out).unwrap());
    }
    let end = observer.finish(&mut out);
    (out.concat(), seen, end)
}

#[test]
fn d1_d14_relayed_streams_are_observed_and_unchanged() {
    for (case, content, usage) in [
        ("text", 2, (12, 8, 5)),
        ("tools", 8, (12, 8, 5)),
        ("reasoning", 3, (12, 8, 5)),
        ("cache", 1, (33, 10, 5)),
    ] {
        let bytes = stream(case).as_bytes();
        for piece_bytes in [1, 7, 64, bytes.len()] {
            let (out, seen, end) = relay(bytes, piece_bytes);
            assert_eq!(out, bytes, "{case}");
            assert_eq!(end.tokens_out_seen, content, "{case}");
            assert!(end.proper && end.finished && seen.iter().any(|seen| seen.done), "{case}");
            let used = end.usage.unwrap();
            assert_eq!((used.tokens_in, used.tokens_in_cached, used.tokens_out), usage, "{case}");
        }
    }
}

#[test]
fn d5_only_message_stop_is_a_proper_end() {
    let whole = stream("text");
    let cut = whole.find("event: message_stop").unwrap();
    let (_, _, end) = relay(&whole.as_bytes()[..cut], 50);
    assert!(!end.proper && end.finished);
    let cut = whole.find("event: message_delta").unwrap();
    let foreign = format!("{}data: [DONE]\n\n", &whole[..cut]);
    let (out, _, end) = relay(foreign.as_bytes(), 50);
    assert!(!end.proper && !end.finished);
    assert_eq!(out, foreign.as_bytes());
}

#[test]
fn d2_content_begins_with_the_first_that_is_shown() {
    let first = |event: &str| {
        let (_, seen, _) = relay(format!("data: {event}\n\n").as_bytes(), 4096);
        seen[0].content
    };
    for silent in [
        r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":1}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"x"}}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"novel","text":"x"}"#,
    ] {
        assert!(!first(silent), "{silent}");
    }
    for content in [
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"x"}}"#,
        r#"{"delta":{"partial_json":"{","type":"input_json_delta"},"type":"content_block_delta"}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"1","name":"f","input":{}}}"#,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"x"}}"#,
    ] {
        assert!(first(content), "{content}");
    }
}

#[test]
fn d2_errors_inside_a_stream_are_seen() {
    let event = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let (out, seen, end) = relay(event.as_bytes(), 4096);
    let error = seen[0].error.clone().unwrap();
    assert_eq!((error.status, error.kind.as_deref()), (Some(529), Some("overloaded_error")));
    assert_eq!(error.message.as_deref(), Some("Overloaded"));
    assert!(!end.proper && out == event.as_bytes());
}

#[test]
fn d16_a_long_event_passes_and_is_content() {
    let text = "x".repeat(EVENT_BYTES_MAX + 10);
    let event = format!(
        "data: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n"
    );
    let whole = format!("{event}data: {{\"type\":\"message_stop\"}}\n\n");
    let (out, _, end) = relay(whole.as_bytes(), 1 << 16);
    assert!(out == whole.as_bytes() && end.proper && end.tokens_out_seen == 1);
}

fn written(all: &Conversation, model: &str) -> (String, Losses) {
    let mut losses = Losses::default();
    let body = provider("anthropic").unwrap().dialect.request(all, model, &mut losses);
    assert!(Tree::parse(&body, CONVERTED_DEPTH_MAX).is_ok(), "{body}");
    (body, losses)
}

fn lost(losses: &Losses) -> Vec<&str> {
    losses.named().iter().map(|loss| &*loss.field).collect()
}

fn said(role: Role, text: &str) -> Message {
    Message { role, name: None, parts: vec![Part::text(text)] }
}

fn conversation() -> Conversation {
    Conversation { choices: 1, messages: vec![said(Role::User, "hi")], ..Conversation::default() }
}

#[test]
fn thinking_is_asked_for_in_the_models_own_way() {
    let ask = |model: &str, reasoning: Reasoning, max: Option<u64>| {
        let all = Conversation { reasoning: Some(reasoning), tokens_out_max: max, ..conversation() };
        let (body, losses) = written(&all, model);
        let tree = Tree::parse(&body, 16).unwrap();
        let member = |name: &str| tree.get(name).map_or("", Tree::raw).to_owned();
        (member("thinking"), member("output_config"), member("max_tokens"), losses.count())
    };
    let effort = |effort| Reasoning { effort: Some(effort), ..Reasoning::default() };
    let tokens = |tokens| Reasoning { tokens: Some(tokens), ..Reasoning::default() };
    let check =
        |got: (String, String, String, usize), thinking: &str, output: &str, max: &str, lost: usize| {
            assert_eq!(got, (thinking.to_owned(), output.to_owned(), max.to_owned(), lost));
        };
    let adaptive = r#"{"type":"adaptive"}"#;
    check(ask("claude-opus-5", effort(Effort::High), None), adaptive, r#"{"effort":"high"}"#, "32000", 0);
    check(ask("claude-opus-4-7", tokens(9_000), None), adaptive, r#"{"effort":"medium"}"#, "32000", 0);
    let budget = |tokens: u64| format!(r#"{{"type":"enabled","budget_tokens":{tokens}}}"#);
    check(ask("claude-opus-4-6", tokens(9_000), None), &budget(9_000), "", "32000", 0);
    check(ask("claude-sonnet-4-5", effort(Effort::High), None), &budget(24_000), "", "32000", 0);
    check(ask("claude-sonnet-4-5", effort(Effort::High), Some(8_000)), &budget(6_000), "", "8000", 0);
    check(ask("claude-sonnet-4-5", tokens(9_000), Some(8_000)), &budget(7_999), "", "8000", 0);
    check(ask("claude-sonnet-4-5", effort(Effort::High), Some(1_000)), "", "", "1000", 1);
    check(ask("other", effort(Effort::Medium), None), &budget(8_192), "", "10923", 0);
    check(ask("other", effort(Effort::None), None), r#"{"type":"disabled"}"#, "", "4096", 0);
    check(ask("other", tokens(0), None), r#"{"type":"disabled"}"#, "", "4096", 0);
    check(ask("other", Reasoning::default(), None), adaptive, "", "4096", 0);
}

#[test]
fn a_thinking_model_is_asked_for_nothing_that_it_refuses() {
    let mut all = conversation();
    all.reasoning = Some(Reasoning { effort: Some(Effort::Low), ..Reasoning::default() });
    (all.sampling.temperature, all.sampling.top_p, all.sampling.top_k) = (Some(0.2), Some(0.9), Some(3));
    let (body, losses) = written(&all, "claude-sonnet-4-5");
    assert!(!body.contains("temperature") && !body.contains("top_"), "{body}");
    assert_eq!(lost(&losses), ["temperature", "top_p", "top_k"]);
    all.tools =
        vec![Tool { name: "f".to_owned(), description: None, parameters: None, strict: None, cache: None }];
    all.tool_choice = Some(ToolChoice::Any);
    let (body, losses) = written(&all, "claude-sonnet-4-5");
    assert!(body.contains(r#""tool_choice":{"type":"any"}"#) && !body.contains("thinking"), "{body}");
    assert_eq!(lost(&losses), ["reasoning", "top_p"]);
    // The calls of another provider come without the thoughts that this one wants to see.
    all.tool_choice = None;
    let call = Part::ToolCall {
        id: "1".to_owned(),
        name: "f".to_owned(),
        arguments: "{}".to_owned(),
        signature: None,
    };
    let result =
        Part::ToolResult { id: "1".to_owned(), name: None, parts: vec![Part::text("42")], is_error: false };
    all.messages.push(Message { role: Role::Assistant, name: None, parts: vec![call.clone()] });
    all.messages.push(Message { role: Role::Tool, name: None, parts: vec![result] });
    assert!(!written(&all, "claude-sonnet-4-5").0.contains("budget_tokens"));
    assert!(written(&all, "claude-sonnet-4-6").0.contains("adaptive"), "which does not mind");
    let thought = Part::Thinking { text: "so".to_owned(), signature: Some("s".to_owned()) };
    all.messages[1].parts = vec![thought, call];
    assert!(written(&all, "claude-sonnet-4-5").0.contains("budget_tokens"));
}

#[test]
fn sampling_is_what_the_model_takes() {
    let mut all = conversation();
    (all.sampling.temperature, all.sampling.top_p) = (Some(1.7), Some(0.9));
    let check = |model: &str, has: &[&str], losses_expected: &[&str]| {
        let (body, losses) = written(&all, model);
        for member in [r#""temperature":1,"#, r#""top_p":0.9"#] {
            assert_eq!(format!("{body},").contains(member), has.contains(&member), "{model} {member} {body}");
        }
        assert_eq!(lost(&losses), losses_expected, "{model}");
    };
    let (temperature, top_p) = (r#""temperature":1,"#, r#""top_p":0.9"#);
    check("other", &[temperature, top_p], &["temperature"]);
    let (body, losses) = written(&all, "claude-sonnet-4-5");
    assert!(body.contains(r#""temperature":1"#) && !body.contains("top_p"), "{body}");
    assert_eq!(lost(&losses), ["temperature", "top_p"]);
    check("claude-opus-4-8", &[], &["temperature", "top_p"]);
}

#[test]
fn messages_of_one_role_are_one_and_blank_blocks_are_none() {
    let mut all = conversation();
    all.messages = vec![
        said(Role::User, "a"),
        said(Role::User, " \n"),
        said(Role::User, "b"),
        said(Role::Assistant, ""),
        said(Role::Assistant, "c"),
    ];
    let (body, losses) = written(&all, "m");
    let expected = r#""messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},{"role":"assistant","content":"c"}]"#;
    assert!(body.contains(expected) && losses.is_empty(), "{body}");
    // A turn that was nothing but blank does not part those around it.
    all.messages = vec![said(Role::User, "a"), said(Role::Assistant, " "), said(Role::User, "b")];
    let (body, _) = written(&all, "m");
    let expected =
        r#""messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}]"#;
    assert!(body.contains(expected), "{body}");
    // Nothing but a system prompt is still something to answer.
    let alone = Conversation { system: vec![Part::text("Say hi.")], choices: 1, ..Conversation::default() };
    let (body, losses) = written(&alone, "m");
    assert!(body.contains(r#""messages":[{"role":"user","content":"Say hi."}]"#) && !body.contains("system"));
    assert_eq!(lost(&losses), ["system"]);
}

#[test]
fn later_system_messages_stay_where_the_model_takes_them() {
    let mut all = conversation();
    all.messages = vec![
        said(Role::User, "a"),
        said(Role::Assistant, "b"),
        said(Role::System, "c"),
        said(Role::User, "d"),
        said(Role::System, "e"),
    ];
    let (body, losses) = written(&all, "claude-opus-4-8");
    assert!(body.ends_with(r#"{"role":"user","content":"d"},{"role":"system","content":"e"}]}"#), "{body}");
    assert!(body.contains(r#""system":"c""#));
    assert_eq!(lost(&losses), ["messages[2]"], "it stands behind the assistant");
    let (body, losses) = written(&all, "claude-opus-4-5");
    assert!(body.contains(r#""system":[{"type":"text","text":"c"},{"type":"text","text":"e"}]"#), "{body}");
    assert_eq!(lost(&losses), ["messages[2]", "messages[4]"]);
}

#[test]
fn what_nobody_else_understands_is_refused_by_name_when_converted() {
    let convert = |members: &str| {
        let body = format!(r#"{{"model":"m","max_tokens":9{members}}}"#);
        let tree = Tree::parse(&body, CONVERTED_DEPTH_MAX).unwrap();
        client("anthropic").unwrap().dialect.conversation(tree).unwrap_err()
    };
    let block = |block: &str| convert(&format!(r#","messages":[{{"role":"user","content":[{block}]}}]"#));
    for (error, param) in [
        (convert(r#","messages":[{"role":"tool","content":"x"}]"#), "messages[0].role"),
        (block(r#"{"type":"server_tool_use","id":"1"}"#), "messages[0]"),
        (block(r#"{"type":"container_upload","file_id":"1"}"#), "messages[0]"),
        (block(r#"{"type":"image","source":{"type":"ftp"}}"#), "messages[0].content[0].source.type"),
        (
            block(r#"{"type":"tool_result","content":[{"type":"novel"}]}"#),
            "messages[0].content[0].content[0].type",
        ),
    ] {
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error}");
        assert!(error.message.contains(param), "{error}");
    }
}

#[test]
fn what_only_anthropic_runs_is_a_loss() {
    let body = r#"{"model":"m","max_tokens":9,"mcp_servers":[{"url":"https://x"}],"tool_choice":{"type":"any"},
        "tools":[{"type":"web_search_20250305","name":"web_search"},{"type":"bash_20250124","name":"bash"}],
        "messages":[{"role":"user","content":[{"type":"container_upload","file_id":"1"},{"type":"text","text":"x"}]}]}"#;
    let all = client("anthropic").unwrap().conversation(body).unwrap();
    let fields = ["messages[0].content[0]", "tools[0]", "tools[1]", "tool_choice", "mcp_servers"];
    assert_eq!(lost(&all.losses), fields);
    assert!(all.tools.is_empty() && all.tool_choice.is_none());
}

fn told() -> Told {
    Told {
        call: "",
        model: "asked".to_owned(),
        now_unix_s: 0,
        id: "req_1".to_owned(),
        stream_usage: true,
        ..Told::default()
    }
}

fn answered(choice: Choice) -> (String, Losses) {
    let answer = Answer { choices: vec![choice], usage: Some(Usage::default()), ..Answer::default() };
    let mut losses = Losses::default();
    (client("anthropic").unwrap().dialect.answer(&answer, &told(), &mut losses), losses)
}

#[test]
fn d15_calls_are_told_by_the_stop_reason_and_never_repaired() {
    let call = |arguments: &str| Part::ToolCall {
        id: "functions.f:0".to_owned(),
        name: "f".to_owned(),
        arguments: arguments.to_owned(),
        signature: None,
    };
    let with = |arguments: &str, stop: Option<Stop>| {
        answered(Choice { parts: vec![call(arguments)], stop, ..Choice::default() })
    };
    // Some engines say `stop` with calls; clients would not run them.
    assert!(with("{}", Some(Stop::End)).0.contains(r#""stop_reason":"tool_use""#));
    assert!(with("{}", None).0.contains(r#""stop_reason":"tool_use""#));
    let (body, losses) = with(r#"{"a":"#, Some(Stop::Length));
    assert!(body.contains(r#""stop_reason":"max_tokens""#), "{body}");
    assert!(
        body.contains(r#""id":"functions_f_0","name":"f","input":{"malformed_arguments":"{\"a\":"}"#),
        "{body}"
    );
    assert_eq!(lost(&losses), ["content[0].input"]);
    for (stop, word) in [
        (Stop::End, "end_turn"),
        (Stop::Sequence, "stop_sequence"),
        (Stop::Filtered, "refusal"),
        (Stop::Refused, "refusal"),
        (Stop::Paused, "pause_turn"),
        (Stop::Other, "end_turn"),
    ] {
        let (body, _) = answered(Choice { stop: Some(stop), ..Choice::default() });
        assert!(body.contains(&format!(r#""content":[],"stop_reason":"{word}""#)), "{body}");
    }
}

#[test]
fn stop_reasons_are_read() {
    for (word, stop) in [
        ("end_turn", Stop::End),
        ("max_tokens", Stop::Length),
        ("model_context_window_exceeded", Stop::Length),
        ("stop_sequence", Stop::Sequence),
        ("tool_use", Stop::ToolCalls),
        ("pause_turn", Stop::Paused),
        ("refusal", Stop::Refused),
        ("novel", Stop::Other),
    ] {
        let body = format!(r#"{{"content":[],"stop_reason":"{word}"}}"#);
        let answer = provider("anthropic").unwrap().dialect.answer(&body).unwrap();
        assert_eq!(answer.choices[0].stop, Some(stop), "{word}");
    }
}

fn events(text: &str) -> Vec<Event> {
    let mut events = Vec::new();
    provider("anthropic").unwrap().dialect.stream().push(text.as_bytes(), &mut events).unwrap();
    events
}

#[test]
fn d3_d4_a_broken_stream_has_an_error_and_no_end() {
    let whole = stream("text");
    let cut = whole.find("event: message_stop").unwrap();
    assert!(!events(&whole[..cut]).contains(&Event::Ended));
    let middle = whole.find("event: content_block_stop").unwrap();
    let broken = format!("{}data: {{\"type\":\n\n{}", &whole[..middle], &whole[middle..]);
    let got = events(&broken);
    assert!(matches!(got.last(), Some(Event::Failed(_))), "nothing follows an error");
    let mut writer = client("anthropic").unwrap().dialect.stream(told());
    let mut text = String::new();
    for event in &got {
        writer.write(event, &mut text);
    }
    assert!(text.contains("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\","));
    assert!(!text.contains("message_stop") && !text.contains("message_delta"), "{text}");
}

#[test]
fn d15_deltas_without_index_and_calls_that_are_whole_at_once() {
    let got = events(concat!(
        "data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\",\"id\":\"1\",\"name\":\"f\",\"input\":{\"a\":1}}}\n\n",
        "data: {\"type\":\"content_block_start\",\"content_block\":{\"type\":\"tool_use\",\"id\":\"2\",\"name\":\"g\",\"input\":{}}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"b\\\":\"}}\n\n",
        "data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"stray\"}}\n\n",
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\"}}\n\n",
        "data: {\"type\":\"message_stop\"}\n\n",
    ));
    let call = |id: &str, name: &str| Opened::ToolCall { id: id.to_owned(), name: name.to_owned() };
    assert_eq!(
        got,
        [
            Event::Opened { choice: 0, part: 0, what: call("1", "f") },
            Event::Added { choice: 0, part: 0, text: "{\"a\":1}".to_owned() },
            Event::Closed { choice: 0, part: 0 },
            Event::Opened { choice: 0, part: 1, what: call("2", "g") },
            Event::Added { choice: 0, part: 1, text: "{\"b\":".to_owned() },
            Event::Closed { choice: 0, part: 1 },
            Event::Stopped { choice: 0, stop: Stop::Length, sequence: None },
            Event::Ended,
        ]
    );
}

#[test]
fn d17_foreign_events_are_data_only() {
    let got = events(
        "event: alert\ndata: {\"type\":\"<script>\",\"x\":1}\n\ndata: 5\n\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"novel\"}}\n\n",
    );
    assert!(got.is_empty(), "{got:?}");
}

#[test]
fn errors_of_others_have_a_type_of_this_dialect() {
    let mut writer = client("anthropic").unwrap().dialect.stream(told());
    let mut text = String::new();
    let error = StreamError {
        status: Some(429),
        kind: Some("tokens".to_owned()),
        code: None,
        message: Some("slow".to_owned()),
    };
    writer.write(&Event::Failed(error), &mut text);
    assert_eq!(
        text,
        "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"slow\"},\"request_id\":\"req_1\"}\n\n"
    );
    let event = anthropic::error_event(&ErrorBody::upstream_reset("p"), "req_1");
    let event = std::str::from_utf8(&event).unwrap();
    assert!(
        event.starts_with("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",")
            && event.ends_with("\n\n")
    );
    assert_eq!(client("anthropic").unwrap().dialect.counted(7), r#"{"input_tokens":7}"#);
}

#[test]
fn c12_a_request_means_the_same_in_both_dialects() {
    let ours = r#"{"model":"m","max_tokens":9,"system":"s","stop_sequences":["x"],"stream":true,"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{"b":2}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"42"},{"type":"text","text":"so?"}]}],"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"any"}}"#;
    let theirs = r#"{"model":"m","max_tokens":9,"stop":"x","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"b\":2}"}}]},{"role":"tool","tool_call_id":"1","content":"42"},{"role":"user","content":"so?"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}],"tool_choice":"required"}"#;
    let read = |dialect: &str, body: &str| {
        let mut all = client(dialect).unwrap().dialect.conversation(Tree::parse(body, 32).unwrap()).unwrap();
        (std::mem::take(&mut all.places), all)
    };
    let ((ours_at, ours), (theirs_at, theirs)) = (read("anthropic", ours), read("openai", theirs));
    assert_eq!(ours, theirs);
    assert_eq!(ours_at.messages, [Place::Whole(0), Place::Whole(1), Place::PartOf(2), Place::PartOf(2)]);
    assert_eq!(theirs_at.messages, [1, 2, 3, 4].map(Place::Whole));
}

#[test]
fn json_at_large_is_a_loss_and_a_schema_is_not() {
    let (body, losses) = written(&Conversation { format: Format::Json, ..conversation() }, "m");
    assert!(!body.contains("output_config"));
    assert_eq!(lost(&losses), ["response_format"]);
}
