//! What is accepted as a request, what is read from it, and how a refusal names the field.

use pointsman_wire::openai::{BodyLimits, Invalid, Operation, Request, parse};

const SALT: u64 = 7;

fn read(operation: Operation, body: &str) -> Result<Request, Invalid> {
    parse(operation, body.as_bytes(), &BodyLimits::default(), SALT)
}

/// A chat request with more members.
fn chat(members: &str) -> Result<Request, Invalid> {
    read(
        Operation::Chat,
        &format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{members}}}"#),
    )
}

/// A chat request with these messages.
fn messages(messages: &str) -> Result<Request, Invalid> {
    read(Operation::Chat, &format!(r#"{{"model":"m","messages":{messages}}}"#))
}

#[track_caller]
fn refused(result: Result<Request, Invalid>, param: Option<&str>, words: &str) {
    let error = result.expect_err("must be refused");
    assert_eq!(error.status, 400, "{error}");
    assert_eq!(error.param.as_deref(), param, "{error}");
    assert!(error.message.contains(words), "{error}");
}

#[test]
fn a_whole_chat_request_is_read() {
    let request = read(
        Operation::Chat,
        r#"{
            "model": "llama-3-8b@3.1", "stream": true, "stream_options": {"include_usage": false},
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": [
                    {"type": "text", "text": "what is this"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
                ]},
                {"role": "assistant", "content": null, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "tool_call_id": "1", "content": "42"}
            ],
            "tools": [{"type": "function"}], "tool_choice": "auto",
            "response_format": {"type": "json_schema", "json_schema": {}},
            "max_tokens": 10, "max_completion_tokens": 20, "n": 2, "temperature": 0.5, "top_p": 1,
            "presence_penalty": -2, "frequency_penalty": 2.0, "logprobs": true, "top_logprobs": 3, "seed": -4,
            "user": "ann", "unknown": {"deep": [1e400]}
        }"#,
    )
    .unwrap();
    assert_eq!((&*request.model, request.version.as_deref()), ("llama-3-8b", Some("3.1")));
    assert_eq!((request.stream, request.include_usage), (true, Some(false)));
    assert!(request.needs.tools && request.needs.vision && request.needs.json_schema);
    assert_eq!((request.images, request.messages, request.choices), (1, 4, 2));
    assert_eq!(request.tokens_out_max, Some(20));
    assert_eq!(request.params.temperature, Some(0.5));
    assert_eq!((request.params.presence_penalty, request.params.frequency_penalty), (Some(-2.0), Some(2.0)));
    assert_eq!(
        (request.params.n, request.params.logprobs, request.params.top_logprobs),
        (Some(2), Some(1), Some(3))
    );
    assert_eq!(request.params.seed, Some(-4));
    // Texts, tool call and tool definition; the image does not count.
    let texts = "be brief".len() + "what is this".len() + "42".len();
    assert_eq!(
        request.prompt_bytes as usize,
        texts + r#"[{"id": "1"}]"#.len() + r#"[{"type": "function"}]"#.len()
    );
    assert!(request.user_hash.is_some() && request.prefix_hash.is_none());
}

#[test]
fn names_and_paths_belong_together() {
    for operation in Operation::ALL {
        assert_eq!(Operation::of_path(operation.path()), Some(operation));
        assert_eq!(operation.path(), format!("/v1{}", operation.path_suffix()));
        assert!(!operation.name().is_empty() && !operation.gen_ai_name().is_empty());
    }
    assert_eq!(Operation::of_path("/v1/nothing"), None);
}

#[test]
fn versions_follow_the_last_at_sign() {
    let check = |asked: &str, model: &str, version: Option<&str>| {
        let body = format!(r#"{{"model":"{asked}","input":"x"}}"#);
        let request = read(Operation::Embedding, &body).unwrap();
        assert_eq!((&*request.model, request.version.as_deref()), (model, version), "{asked}");
        assert_eq!(request.model_asked(), asked);
    };
    check("m", "m", None);
    check("m@1", "m", Some("1"));
    check("a@b@1", "a@b", Some("1"));
    check("@cf/meta/llama", "@cf/meta/llama", None);
    check("m@", "m@", None);
}

#[test]
fn c4_a_routed_field_appears_once_and_in_one_spelling() {
    for field in [
        "model",
        "messages",
        "prompt",
        "input",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "max_output_tokens",
        "n",
        "best_of",
        "tools",
        "tool_choice",
        "response_format",
        "text",
        "temperature",
        "top_p",
        "user",
    ] {
        let value = match field {
            "model" => r#""x""#,
            "messages" => r#"[{"role":"user","content":"y"}]"#,
            _ => "null",
        };
        let twice = format!(r#","{field}":{value},"{field}":{value}"#);
        refused(chat(&twice), Some(field), "appears twice");
        let upper = format!(r#","{}":{value}"#, field.to_uppercase());
        refused(chat(&upper), Some(field), "only in case");
    }
    refused(chat(r#","mod\u0065l":"other""#), Some("model"), "appears twice");
    refused(chat(r#","Mod\u0065l":"other""#), Some("model"), r#""Model""#);
    refused(chat(",\"me\u{17f}\u{17f}ages\":[]"), Some("messages"), "only in case");
    refused(
        chat(r#","stream_options":{"include_usage":true,"include_usage":false}"#),
        Some("stream_options.include_usage"),
        "twice",
    );
    refused(
        chat(r#","stream_options":{"Include_Usage":true}"#),
        Some("stream_options.include_usage"),
        "only in case",
    );
    refused(
        messages(r#"[{"role":"user","role":"system","content":"x"}]"#),
        Some("messages[0].role"),
        "twice",
    );
    refused(
        messages(r#"[{"role":"user","content":"x","content":"y"}]"#),
        Some("messages[0].content"),
        "twice",
    );
    refused(messages(r#"[{"role":"user","Content":"y"}]"#), Some("messages[0].content"), "case");
    assert!(chat(r#","mine":1,"mine":2,"Mine":3"#).is_ok(), "unknown fields are the upstream's business");
}

#[test]
fn c5_what_is_no_json_in_utf8_is_refused() {
    let raw = |body: &[u8]| parse(Operation::Chat, body, &BodyLimits::default(), SALT);
    refused(raw(b"\xEF\xBB\xBF{}"), None, "byte order mark");
    refused(raw(b"{\"a\":\"\xff\"}"), None, "not UTF-8: invalid sequence at byte 6");
    refused(raw(b""), None, "not valid JSON");
    refused(raw(b"{"), None, "at byte 1");
    refused(raw(b"[]"), None, "must be a JSON object, not an array");
    refused(raw(b"{} {}"), None, "unexpected bytes after the value at byte 3");
    refused(chat(r#","x":NaN"#), None, "not valid JSON");
    refused(chat(r#","x":01"#), None, "not valid JSON");
    refused(chat(r#","temperature":1e400"#), Some("temperature"), "allowed is 0 to 2");
    assert!(chat(r#","x":[1e400,-0,123456789012345678901234567890,"\ud800"]"#).is_ok());
    assert!(messages(r#"[{"role":"user","content":"\ud800"}]"#).is_ok());
}

#[test]
fn c3_deep_nesting_is_refused() {
    let nested = |levels: usize| format!(r#","x":{}{}"#, "[".repeat(levels), "]".repeat(levels));
    assert!(chat(&nested(63)).is_ok());
    refused(chat(&nested(64)), None, "nested too deep");
    refused(chat(&nested(100_000)), None, "nested too deep");
    refused(messages(&"[".repeat(100_000)), Some("messages[0]"), "must be an object");
}

#[test]
fn c6_unknown_fields_are_no_matter() {
    assert!(chat(r#","vendor_extension":{"a":[null,true]},"":0,"guided_json":null"#).is_ok());
}

#[test]
fn c7_counts_are_positive_and_bounded() {
    for field in ["max_tokens", "max_completion_tokens", "n", "best_of"] {
        for value in
            ["-1", "0", "1000000000000", "99999999999999999999999999999999999999999", "1e400", "-1e400"]
        {
            refused(chat(&format!(r#","{field}":{value}"#)), Some(field), "allowed is 1 to");
        }
        refused(chat(&format!(r#","{field}":1.5"#)), Some(field), "must be an integer");
        refused(chat(&format!(r#","{field}":"1""#)), Some(field), "must be an integer, not a string");
        assert!(chat(&format!(r#","{field}":null"#)).is_ok());
        assert!(chat(&format!(r#","{field}":5.0"#)).is_ok());
    }
    let both =
        read(Operation::Completion, r#"{"model":"m","prompt":"x","n":2,"best_of":5,"logprobs":4}"#).unwrap();
    assert_eq!((both.choices, both.params.logprobs), (5, Some(4)));
}

#[test]
fn parameters_keep_to_the_dialects_ranges() {
    let check = |field: &str, good: &[&str], bad: &[&str]| {
        for value in good {
            assert!(chat(&format!(r#","{field}":{value}"#)).is_ok(), "{field} {value}");
        }
        for value in bad {
            let result = chat(&format!(r#","{field}":{value}"#));
            assert_eq!(result.unwrap_err().param.as_deref(), Some(field), "{field} {value}");
        }
    };
    check(
        "temperature",
        &["0", "2", "1.5", "null", "-0"],
        &["-3", "2.1", "-0.001", "\"1\"", "true", "[1]", "1e999"],
    );
    check("top_p", &["0", "1", "0.9", "null"], &["-0.1", "1.01", "{}"]);
    check("presence_penalty", &["-2", "2"], &["-2.1", "2.1"]);
    check("frequency_penalty", &["-2", "2"], &["-2.1", "2.1"]);
    check("top_logprobs", &["0", "20"], &["-1", "21", "1.5"]);
    check("logprobs", &["true", "false", "null", "5"], &["-1", "21", "\"x\""]);
    check("seed", &["0", "-1", "99999999999999999999", "null"], &["1.5", "\"x\""]);
    check("stream", &["true", "false", "null"], &["1", "\"true\"", "{}"]);
    check("stream_options", &["{}", "null", r#"{"x":1}"#], &["[]", "true", "\"x\""]);
    check("tools", &["[]", "null", "[{}]"], &["{}", "\"x\""]);
    check("tool_choice", &["\"auto\"", "{}", "null"], &["1", "[]"]);
    check("response_format", &[r#"{"type":"text"}"#, "null"], &["\"json\"", "[]"]);
    check("user", &["\"ann\"", "\"\"", "null"], &["1", "{}"]);
    refused(chat(r#","tools":[1]"#), Some("tools[0]"), "must be an object");
    refused(chat(r#","response_format":{"type":1}"#), Some("response_format.type"), "must be a string");
    refused(
        chat(r#","stream_options":{"include_usage":1}"#),
        Some("stream_options.include_usage"),
        "boolean",
    );
}

#[test]
fn c8_a_model_that_cannot_exist_is_not_found() {
    let ask = |model: &str| read(Operation::Embedding, &format!(r#"{{"model":"{model}","input":"x"}}"#));
    for model in [&*"x".repeat(1 << 20), "a\\u0000b", "a\\nb", "\\ud800", "a\\u0085"] {
        let error = ask(model).unwrap_err();
        assert_eq!(
            (error.status, error.code, error.param.as_deref()),
            (404, Some("model_not_found"), Some("model"))
        );
        assert!(error.message.len() < 200);
    }
    assert!(ask(&"x".repeat(256)).is_ok());
    refused(read(Operation::Embedding, r#"{"input":"x"}"#), Some("model"), "missing");
    refused(read(Operation::Embedding, r#"{"model":"","input":"x"}"#), Some("model"), "empty");
    refused(read(Operation::Embedding, r#"{"model":null,"input":"x"}"#), Some("model"), "not null");
    refused(read(Operation::Embedding, r#"{"model":["m"],"input":"x"}"#), Some("model"), "must be a string");
}

#[test]
fn c10_messages_have_a_known_shape() {
    refused(messages("[]"), Some("messages"), "empty");
    refused(messages("null"), Some("messages"), "not null");
    refused(messages("\"hi\""), Some("messages"), "must be an array");
    refused(messages("[1]"), Some("messages[0]"), "must be an object");
    refused(messages(r#"[{"content":"x"}]"#), Some("messages[0].role"), "missing");
    refused(messages(r#"[{"role":"","content":"x"}]"#), Some("messages[0].role"), "empty");
    refused(messages(r#"[{"role":1,"content":"x"}]"#), Some("messages[0].role"), "must be a string");
    let third = |content: &str| {
        messages(&format!(
            r#"[{{"role":"user","content":"a"}},{{"role":"user","content":"b"}},{{"role":"user"{content}}}]"#
        ))
    };
    refused(third(""), Some("messages[2].content"), "missing");
    refused(third(r#","content":null"#), Some("messages[2].content"), "null");
    refused(third(r#","content":5"#), Some("messages[2].content"), "must be a string or an array");
    refused(third(r#","content":["x"]"#), Some("messages[2].content[0]"), "must be an object");
    refused(third(r#","content":[{"text":"x"}]"#), Some("messages[2].content[0].type"), "missing");
    refused(third(r#","content":[{"type":"text","text":5}]"#), Some("messages[2].content[0].text"), "string");
    refused(read(Operation::Chat, r#"{"model":"m"}"#), Some("messages"), "missing");
    assert!(
        messages(r#"[{"role":"assistant"},{"role":"assistant","content":null},{"role":"x","content":""}]"#)
            .is_ok()
    );
    assert!(
        messages(r#"[{"role":"user","content":[{"type":"input_audio","input_audio":{}},{"type":"file"}]}]"#)
            .is_ok()
    );
}

#[test]
fn c10_too_many_messages_are_refused() {
    let many =
        |count: usize| messages(&format!("[{}]", vec![r#"{"role":"user","content":""}"#; count].join(",")));
    assert_eq!(many(10_000).unwrap().messages, 10_000);
    refused(many(10_001), Some("messages"), "10000");
}

#[test]
fn c10_images_are_counted_and_never_taken_for_text() {
    let image = "A".repeat(1 << 20);
    let body = format!(
        r#"[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{image}"}}}}]}}]"#
    );
    let request = messages(&body).unwrap();
    assert_eq!((request.images, request.prompt_bytes, request.needs.vision), (1, 0, true));
    assert!(request.tokens_in_estimate() < 2000);
}

#[test]
fn prompts_and_inputs_take_four_forms() {
    let check = |value: &str, bytes: u64, tokens: u64, items: u32| {
        for (operation, field) in [(Operation::Completion, "prompt"), (Operation::Embedding, "input")] {
            let request = read(operation, &format!(r#"{{"model":"m","{field}":{value}}}"#)).unwrap();
            assert_eq!(
                (request.prompt_bytes, request.prompt_tokens_given, request.messages),
                (bytes, tokens, items)
            );
        }
    };
    check("\"hello\"", 5, 0, 1);
    check(r#"["a","bc"]"#, 3, 0, 2);
    check("[1,2,3]", 0, 3, 1);
    check("[[1,2],[3]]", 0, 3, 2);
    check(r#""\u4e2d\n""#, 4, 0, 1);
    let bad = |value: &str, param: &str| {
        let error = read(Operation::Embedding, &format!(r#"{{"model":"m","input":{value}}}"#)).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{value}: {error}");
    };
    bad("\"\"", "input");
    bad("[]", "input");
    bad("null", "input");
    bad("{}", "input");
    bad("[true]", "input[0]");
    bad("[1,\"a\"]", "input[1]");
    bad("[-1]", "input[0]");
    bad("[1.5]", "input[0]");
    bad("[[1],[]]", "input[1]");
    bad("[[1],[\"a\"]]", "input[1][0]");
}

#[test]
fn responses_take_text_or_items() {
    let ask = |members: &str| read(Operation::Response, &format!(r#"{{"model":"m",{members}}}"#));
    let request = ask(
        r#""instructions":"be brief","input":[{"role":"user","content":[{"type":"input_text","text":"hi"},{"type":"input_image","image_url":"https://x/y.png"}]},
        {"type":"function_call_output","call_id":"1","output":"42"}],"max_output_tokens":9,"tools":[{"type":"web_search"}],
        "text":{"format":{"type":"json_schema","schema":{}}}"#,
    )
    .unwrap();
    assert!(request.needs.tools && request.needs.vision && request.needs.json_schema);
    assert_eq!((request.images, request.messages, request.tokens_out_max), (1, 2, Some(9)));
    assert_eq!(
        request.prompt_bytes as usize,
        "be brief".len() + "hi".len() + "\"42\"".len() + r#"[{"type":"web_search"}]"#.len()
    );
    assert!(
        ask(r#""input":"hi","text":{"format":{"type":"text"}}"#)
            .is_ok_and(|request| !request.needs.json_schema)
    );
    assert!(ask(r#""prompt":{"id":"pmpt_1"}"#).is_ok());
    refused(ask(r#""stream":true"#), Some("input"), "missing");
    refused(ask(r#""input":"""#), Some("input"), "empty");
    refused(ask(r#""input":[]"#), Some("input"), "empty");
    refused(ask(r#""input":[{}]"#), Some("input[0]"), "neither");
    refused(ask(r#""input":5"#), Some("input"), "must be a string or an array");
}

#[test]
fn c11_forbidden_fields_are_reported_in_any_spelling() {
    let names =
        |members: &str| chat(members).unwrap().forbidden.iter().map(|field| field.name).collect::<Vec<_>>();
    assert_eq!(names(r#","api_base":"http://evil","timeout":1,"x":2"#), ["api_base", "timeout"]);
    assert_eq!(names(r#","api\u005fkey":"k","Base_URL":"u""#), ["api_key", "base_url"]);
    assert_eq!(names(r#","extra_body":{},"extra_headers":{},"custom_llm_provider":"x""#).len(), 3);
    assert_eq!(names(r#","chat_template":"{{x}}","chat_template_kwargs":{}"#).len(), 2);
    assert_eq!(
        names(r#","AWS_sts_endpoint":"u","vertex\u005fproject":"p","x_base_url":"u""#),
        ["aws_", "vertex_", "_base_url"]
    );
    let mut request = chat(r#","timeout":1,"api_key":"k""#).unwrap();
    request.permit("timeout");
    assert_eq!(request.forbidden.len(), 1);
}

#[test]
fn fallbacks_are_names_and_few() {
    let named = |members: &str| chat(members).unwrap().fallbacks;
    assert_eq!(named(r#","fallbacks":["n","o@2","\u0061"]"#), ["n", "o@2", "a"]);
    assert_eq!(named(r#","fallbacks":[]"#).len() + named(r#","fallbacks":null"#).len() + named("").len(), 0);
    let eight = [r#""n""#; 8].join(",");
    assert_eq!(named(&format!(r#","fallbacks":[{eight}]"#)).len(), 8);
    for (members, param) in [
        (format!(r#","fallbacks":[{eight},"n"]"#), "fallbacks"),
        (r#","fallbacks":"n""#.to_owned(), "fallbacks"),
        (r#","fallbacks":{}"#.to_owned(), "fallbacks"),
        (r#","fallbacks":["n",1]"#.to_owned(), "fallbacks[1]"),
        (r#","fallbacks":[""]"#.to_owned(), "fallbacks[0]"),
        (r#","fallbacks":["a\u0001"]"#.to_owned(), "fallbacks[0]"),
        (r#","fallbacks":["\ud800"]"#.to_owned(), "fallbacks[0]"),
        (format!(r#","fallbacks":["{}"]"#, "n".repeat(257)), "fallbacks[0]"),
        (r#","fallbacks":["n"],"fallbacks":["o"]"#.to_owned(), "fallbacks"),
        (r#","Fallbacks":["n"]"#.to_owned(), "fallbacks"),
    ] {
        let invalid = chat(&members).unwrap_err();
        assert_eq!((invalid.status, invalid.param.as_deref()), (400, Some(param)), "{members}");
    }
}

#[test]
fn hashes_depend_on_text_and_tenant_only() {
    let ask = |content: &str, user: &str, salt: u64| {
        let body = format!(
            r#"{{"model":"m","user":"{user}","messages":[{{"role":"user","content":"{content}"}}]}}"#
        );
        parse(Operation::Chat, body.as_bytes(), &BodyLimits::default(), salt).unwrap()
    };
    let long = "p".repeat(4096);
    let base = ask(&long, "ann", 1);
    assert!(base.prefix_hash.is_some());
    assert_eq!(base.prefix_hash, ask(&format!("{long} and more"), "bob", 1).prefix_hash);
    assert_ne!(base.prefix_hash, ask(&long, "ann", 2).prefix_hash, "salted");
    assert_ne!(base.prefix_hash, ask(&format!("q{long}"), "ann", 1).prefix_hash);
    assert_eq!(ask(&long[1..], "ann", 1).prefix_hash, None, "shorter than two blocks");
    let escaped = format!("{}{}", "\\u0070".repeat(10), &long[10..]);
    assert_eq!(base.prefix_hash, ask(&escaped, "ann", 1).prefix_hash, "by meaning");
    assert_eq!(base.user_hash, ask("x", "\\u0061nn", 1).user_hash);
    assert_ne!(base.user_hash, ask("x", "ann", 2).user_hash);
    assert_eq!(ask("x", "", 1).user_hash, None);
}

#[test]
fn a_prefix_may_span_messages() {
    let half = "h".repeat(2100);
    let ask = |tail: &str| {
        messages(&format!(
            r#"[{{"role":"system","content":"{half}"}},{{"role":"user","content":"{half}{tail}"}}]"#
        ))
        .unwrap()
    };
    assert!(ask("a").prefix_hash.is_some());
    assert_eq!(ask("a").prefix_hash, ask("b").prefix_hash);
    let response = |order: [&str; 2]| {
        let body = format!(r#"{{"model":"m",{}}}"#, order.join(","));
        read(Operation::Response, &body).unwrap().prefix_hash
    };
    let (instructions, input) =
        (format!(r#""instructions":"{half}""#), format!(r#""input":"{}""#, "i".repeat(3000)));
    assert!(response([&instructions, &input]).is_some());
    assert_eq!(response([&instructions, &input]), response([&input, &instructions]));
}

#[test]
fn estimates_bracket_the_prompt() {
    let request = messages(&format!(r#"[{{"role":"user","content":"{}"}}]"#, "word ".repeat(800))).unwrap();
    assert_eq!(request.tokens_in_estimate(), 1004);
    assert_eq!(request.tokens_in_min, 500);
}
