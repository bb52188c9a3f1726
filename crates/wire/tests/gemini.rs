//! The Gemini dialect beyond its golden files: what is refused, what is made up, how streams break.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use pointsman_wire::chat::{
    Answer, Choice, Conversation, Event, Losses, Media, MediaKind, Message, Opened, Part, Role, Source, Stop,
};
use pointsman_wire::dialect::{CONVERTED_DEPTH_MAX, Told, client, provider};
use pointsman_wire::gemini::Form;
use pointsman_wire::json::{check, tree::Tree};
use pointsman_wire::openai::error::Invalid;

fn read(body: &str) -> Result<Conversation, Invalid> {
    client("gemini").unwrap().dialect.conversation(Tree::parse(body, CONVERTED_DEPTH_MAX).unwrap())
}

fn sent(all: &Conversation, model: &str) -> (String, Losses) {
    let mut losses = Losses::default();
    let body = provider("gemini").unwrap().dialect.request(all, model, &mut losses);
    check(&body, 64).unwrap();
    (body, losses)
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

#[test]
fn what_only_google_can_do_is_refused_by_name() {
    let check = |body: &str, field: &str| {
        let invalid = read(body).unwrap_err();
        assert_eq!((invalid.status, invalid.param.as_deref()), (400, Some(field)));
        assert!(invalid.message.contains(field), "{invalid}");
    };
    check(r#"{"cachedContent":"cachedContents/1"}"#, "cachedContent");
    check(r#"{"cached_content":"cachedContents/1"}"#, "cachedContent");
    check(r#"{"contents":[{"role":"robot"}]}"#, "contents[0].role");
    check(r#"{"contents":[{"parts":[{"executableCode":{"code":"1"}}]}]}"#, "contents[0]");
    check(r#"{"generationConfig":{"topK":2.5}}"#, "generationConfig.topK");
    for uri in ["gs://b/a.pdf", "https://generativelanguage.googleapis.com/v1beta/files/x", "files/x"] {
        let body = format!(r#"{{"contents":[{{"parts":[{{"fileData":{{"fileUri":"{uri}"}}}}]}}]}}"#);
        check(&body, "contents[0].parts[0].fileData.fileUri");
    }
}

#[test]
fn tools_that_google_runs_are_losses() {
    let all =
        read(r#"{"tools":[{"functionDeclarations":[]},{"googleSearch":{}},{"code_execution":{}}]}"#).unwrap();
    let fields: Vec<&str> = all.losses.named().iter().map(|loss| loss.field.as_str()).collect();
    assert_eq!(fields, ["tools[1].googleSearch", "tools[2].code_execution"]);
}

#[test]
fn results_without_ids_find_their_calls_by_name_and_order() {
    let all = read(
        r#"{"contents":[{"role":"model","parts":[{"functionCall":{"name":"a","args":{"n":1}}},{"functionCall":{"name":"b"}},{"functionCall":{"name":"a","args":{"n":1}}}]},
        {"role":"function","parts":[{"functionResponse":{"name":"b","response":{}}},{"functionResponse":{"name":"a","response":{"output":1}}},{"functionResponse":{"name":"a","response":{"error":{"x":1}}}}]}]}"#,
    )
    .unwrap();
    let calls: Vec<&str> = all.messages[0]
        .parts
        .iter()
        .filter_map(|part| if let Part::ToolCall { id, .. } = part { Some(id.as_str()) } else { None })
        .collect();
    assert!(calls.len() == 3 && calls[0] != calls[2], "the same call twice is two calls");
    let results: Vec<(&str, bool, &[Part])> = all.messages[1]
        .parts
        .iter()
        .filter_map(|part| {
            let Part::ToolResult { id, is_error, parts, .. } = part else { return None };
            Some((id.as_str(), *is_error, parts.as_slice()))
        })
        .collect();
    assert_eq!(all.messages[1].role, Role::Tool);
    assert_eq!(results[0], (calls[1], false, [Part::text("{}")].as_slice()));
    assert_eq!(results[1], (calls[0], false, [Part::text("1")].as_slice()));
    assert_eq!(results[2], (calls[2], true, [Part::text(r#"{"x":1}"#)].as_slice()));
}

#[test]
fn media_of_results_stand_where_the_model_takes_them() {
    let image = Part::Media(Media {
        kind: MediaKind::Image,
        media_type: Some("image/png".to_owned()),
        source: Source::Base64("AA==".to_owned()),
        name: None,
        detail: None,
        cache: None,
    });
    let result = Part::ToolResult {
        id: "call_1".to_owned(),
        name: Some("look".to_owned()),
        parts: vec![Part::text("here"), image],
        is_error: false,
    };
    let messages = vec![Message { role: Role::Tool, name: None, parts: vec![result] }];
    let all = Conversation { messages, ..Conversation::default() };
    let inline = r#"{"inlineData":{"mimeType":"image/png","data":"AA=="}}"#;
    let (third, _) = sent(&all, "gemini-3-flash");
    assert!(
        third.contains(&format!(r#""response":{{"output":"here"}},"parts":[{inline}]}}}}]}}]"#)),
        "{third}"
    );
    let (second, _) = sent(&all, "gemini-2.5-flash");
    assert!(second.contains(&format!(r#"{{"role":"user","parts":[{inline}]}}]"#)), "{second}");
}

#[test]
fn validated_arguments_are_strict_tools_where_schemas_are_closed() {
    let tool = |schema: &str| {
        format!(
            r#"{{"tools":[{{"functionDeclarations":[{{"name":"f","parametersJsonSchema":{schema}}}]}}],"toolConfig":{{"functionCallingConfig":{{"mode":"VALIDATED"}}}}}}"#
        )
    };
    let closed = read(&tool(r#"{"type":"object","additionalProperties":false}"#)).unwrap();
    assert!(closed.tools[0].strict == Some(true) && closed.losses.is_empty());
    assert!(sent(&closed, "m").0.contains(r#""mode":"VALIDATED""#));
    let open = read(&tool(r#"{"type":"object"}"#)).unwrap();
    assert_eq!(open.losses.named()[0].field, "toolConfig.functionCallingConfig.mode");
}

#[test]
fn a_signature_that_was_moved_before_its_text_comes_back_to_it() {
    let signature = Some("c2ln".to_owned());
    let parts = vec![Part::Thinking { text: String::new(), signature }, Part::text("4")];
    let messages = vec![Message { role: Role::Assistant, name: None, parts }];
    let all = Conversation { messages, ..Conversation::default() };
    let expected = r#""parts":[{"text":"4","thoughtSignature":"c2ln"}]"#;
    assert!(sent(&all, "m").0.contains(expected));
}

/// What an OpenAI client is given with a call comes back to Gemini with it.
#[test]
fn signatures_of_calls_pass_through_other_clients() {
    let answer = Answer {
        choices: vec![Choice {
            parts: vec![Part::ToolCall {
                id: "call_1".to_owned(),
                name: "f".to_owned(),
                arguments: "{}".to_owned(),
                signature: Some("c2ln".to_owned()),
            }],
            ..Choice::default()
        }],
        ..Answer::default()
    };
    let openai = client("openai").unwrap().dialect;
    let given = openai.answer(&answer, &told(), &mut Losses::default());
    let given = Tree::parse(&given, 64).unwrap();
    let message = given.get("choices").unwrap().items()[0].get("message").unwrap().raw();
    let body = format!(r#"{{"model":"m","messages":[{message}]}}"#);
    let all = openai.conversation(Tree::parse(&body, 64).unwrap()).unwrap();
    let (sent, _) = sent(&all, "gemini-3-pro");
    assert!(sent.contains(r#""args":{}},"thoughtSignature":"c2ln"}"#), "{sent}");
}

fn events(text: &str) -> Vec<Event> {
    let (mut stream, mut events) = (provider("gemini").unwrap().dialect.stream(), Vec::new());
    stream.push(text.as_bytes(), &mut events).unwrap();
    stream.finish(&mut events);
    events
}

const HALF: &str = r#"{"candidates":[{"content":{"parts":[{"text":"Well"}]}}]}"#;

#[test]
fn d3_d4_a_failure_in_a_stream_is_its_end() {
    for broken in [
        r#"{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}"#,
        r#"{"candidates":["#,
        r#""text""#,
    ] {
        let events = events(&format!("data: {HALF}\n\ndata: {broken}\n\ndata: {HALF}\n\n"));
        let failures = events.iter().filter(|event| matches!(event, Event::Failed(_))).count();
        assert!(failures == 1 && matches!(events.last(), Some(Event::Failed(_))), "{events:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::Stopped { .. })));
    }
}

#[test]
fn d5_a_stream_without_a_reason_to_end_did_not_end() {
    let half = events(&format!("data: {HALF}\n\n"));
    assert!(!half.iter().any(|event| matches!(event, Event::Ended | Event::Stopped { .. })));
    let whole = events(&format!("data: {HALF}\n\ndata: {}", r#"{"candidates":[{"finishReason":"STOP"}]}"#));
    assert_eq!(whole.last(), Some(&Event::Ended), "its last event lacks its blank line, and nobody counts");
}

#[test]
fn d14_usage_is_told_once_and_is_that_of_the_last_event() {
    let chunk = |count: u32, more: &str| {
        format!(
            "data: {{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"x\"}}]}}{more}}}],\"usageMetadata\":{{\"promptTokenCount\":5,\"candidatesTokenCount\":{count}}}}}\n\n"
        )
    };
    let events = events(&[chunk(1, ""), chunk(2, ""), chunk(3, ",\"finishReason\":\"STOP\"")].concat());
    let used: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Used(usage) = event { Some(usage.tokens_out) } else { None })
        .collect();
    assert_eq!(used, [3]);
}

#[test]
fn d16_an_event_without_end_is_refused_in_time() {
    for start in ["data: ", "[{\"a\":\"", " "] {
        let mut stream = provider("gemini").unwrap().dialect.stream();
        let spaces = vec![b' '; 1 << 16];
        let mut pushed = stream.push(start.as_bytes(), &mut Vec::new());
        for _ in 0..32 {
            pushed = pushed.and_then(|()| stream.push(&spaces, &mut Vec::new()));
        }
        assert!(pushed.is_err(), "{start}");
    }
}

#[test]
fn d17_other_events_and_what_is_in_them_are_only_data() {
    let text = format!(
        "event: hack\nid: 7\nretry: 1\ndata: {}\n\n: <script>\n\n",
        HALF.replace("Well", "<script>alert(1)</script>")
    );
    let events = events(&text);
    assert!(events.contains(&Event::Added {
        choice: 0,
        part: 0,
        text: "<script>alert(1)</script>".to_owned()
    }));
}

fn call(arguments: &str, stop: Stop) -> Vec<Event> {
    vec![
        Event::Started { id: "r".to_owned(), model: "m".to_owned(), created_s: None, usage: None },
        Event::Opened {
            choice: 0,
            part: 0,
            what: Opened::ToolCall { id: "c".to_owned(), name: "f".to_owned() },
        },
        Event::Added { choice: 0, part: 0, text: arguments.to_owned() },
        Event::Closed { choice: 0, part: 0 },
        Event::Stopped { choice: 0, stop, sequence: None },
        Event::Ended,
    ]
}

fn written(form: Form, events: &[Event]) -> String {
    let call = match form {
        Form::Events => "streamGenerateContent?alt=sse",
        Form::Array => "streamGenerateContent",
    };
    let mut writer = client("gemini").unwrap().dialect.stream(Told { call, ..told() });
    let mut text = String::new();
    for event in events {
        writer.write(event, &mut text);
    }
    text
}

#[test]
fn d15_a_call_that_was_cut_off_is_never_made_one_that_can_be_run() {
    for (stop, reason) in [(Stop::Length, "MAX_TOKENS"), (Stop::ToolCalls, "MALFORMED_FUNCTION_CALL")] {
        let text = written(Form::Events, &call(r#"{"city":"Par"#, stop));
        assert!(!text.contains("functionCall") && text.contains(reason), "{text}");
        let part = Part::ToolCall {
            id: "c".to_owned(),
            name: "f".to_owned(),
            arguments: r#"{"city":"Par"#.to_owned(),
            signature: None,
        };
        let choices = vec![Choice { parts: vec![part], stop: Some(stop), ..Choice::default() }];
        let mut losses = Losses::default();
        let answer = Answer { choices, ..Answer::default() };
        let text = client("gemini").unwrap().dialect.answer(&answer, &told(), &mut losses);
        assert!(!text.contains("functionCall") && text.contains(reason) && losses.count() == 1, "{text}");
    }
    let empty = written(Form::Events, &call("", Stop::ToolCalls));
    assert!(empty.contains(r#""functionCall":{"id":"c","name":"f","args":{}}"#), "{empty}");
}

#[test]
fn without_alt_sse_a_stream_is_one_array_however_it_ends() {
    let text = written(Form::Array, &call("{}", Stop::ToolCalls));
    let tree = Tree::parse(&text, 64).unwrap();
    assert_eq!(tree.items().len(), 2);
    assert_eq!(events(&text), events(&written(Form::Events, &call("{}", Stop::ToolCalls))));
    let failed = written(Form::Array, &[Event::Ping, Event::Failed(Default::default())]);
    let tree = Tree::parse(&failed, 64).unwrap();
    assert!(tree.items()[0].get("error").unwrap().get("status").unwrap().text() == Some("INTERNAL"));
    assert!(!failed.contains("finishReason"));
}
