//! The body for the upstream: the same bytes, except what has to differ.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use pointsman_wire::openai::{BodyLimits, Operation, UsageAsk, literal, parse, rewrite};
use proptest::prelude::*;
use serde_json::Value;

fn rewritten(operation: Operation, body: &str, model: &str, usage: UsageAsk) -> (String, bool) {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let request = parse(operation, &body, &BodyLimits::default(), 0).unwrap();
    let result = rewrite(&request, &body, &literal(model), usage);
    let whole = result.concat();
    assert_eq!(whole.len() as u64, result.len);
    (String::from_utf8(whole.to_vec()).unwrap(), result.usage_injected)
}

#[track_caller]
fn check(body: &str, expected: &str) {
    let (got, _) = rewritten(Operation::Embedding, body, "up", UsageAsk::AsSent);
    assert_eq!(got, expected);
    serde_json::from_str::<serde::de::IgnoredAny>(&got).unwrap();
}

#[test]
fn c4_c6_only_the_model_changes() {
    check(r#"{"model":"m","input":"x"}"#, r#"{"model":"up","input":"x"}"#);
    check(
        "{ \"z\" : 1e400 ,\n \"model\"\t: \"m\\u0061\" , \"input\":\"\\ud800\",\"n\":null ,\"d\":{\"model\":\"m\"} }  ",
        "{ \"z\" : 1e400 ,\n \"model\"\t: \"up\" , \"input\":\"\\ud800\",\"n\":null ,\"d\":{\"model\":\"m\"} }  ",
    );
    check(r#"{"mod\u0065l":"m","input":"x"}"#, r#"{"mod\u0065l":"up","input":"x"}"#);
}

#[test]
fn the_same_name_copies_nothing() {
    let body = Bytes::from_static(br#"{"model":"up","input":"x"}"#);
    let request = parse(Operation::Embedding, &body, &BodyLimits::default(), 0).unwrap();
    let result = rewrite(&request, &body, &literal("up"), UsageAsk::Inject);
    assert_eq!(result.segments.len(), 1);
    assert_eq!(result.segments[0].as_ptr(), body.as_ptr());
}

#[test]
fn c11_forbidden_fields_are_cut_out_with_their_commas() {
    check(r#"{"api_base":"u","model":"m","input":"x"}"#, r#"{"model":"up","input":"x"}"#);
    check(r#"{"model":"m","api_key":"k","input":"x"}"#, r#"{"model":"up","input":"x"}"#);
    check(r#"{"model":"m","input":"x","timeout":1}"#, r#"{"model":"up","input":"x"}"#);
    check(r#"{"model":"m","input":"x" , "timeout" : 1 , "api_key":"k" }"#, r#"{"model":"up","input":"x" }"#);
    check(
        r#"{"api_base":1,"api_key":2,"model":"m","Timeout":3,"input":"x","extra_body":{"a":[1,{}]}}"#,
        r#"{"model":"up","input":"x"}"#,
    );
    check(r#"{"timeout":1,"timeout":2,"model":"m","input":"x"}"#, r#"{"model":"up","input":"x"}"#);
}

#[test]
fn fallbacks_are_cut_out_like_what_is_forbidden() {
    check(r#"{"model":"m","fallbacks":["n","o"],"input":"x"}"#, r#"{"model":"up","input":"x"}"#);
    check(r#"{"fallbacks" : null , "api_key":1,"model":"m","input":"x"}"#, r#"{"model":"up","input":"x"}"#);
    check(r#"{"model":"m","input":"x","timeout":1,"fallbacks":[] }"#, r#"{"model":"up","input":"x" }"#);
}

#[test]
fn d13_usage_is_asked_for_where_the_client_did_not() {
    let check = |members: &str, expected: &str, injected: bool| {
        let body = format!(r#"{{"model":"m","prompt":"x"{members}}}"#);
        let (got, did) = rewritten(Operation::Completion, &body, "m", UsageAsk::Inject);
        assert_eq!((&*got, did), (expected, injected));
        serde_json::from_str::<Value>(&got).unwrap();
    };
    let base = r#""model":"m","prompt":"x""#;
    check("", &format!("{{{base}}}"), false);
    check(r#","stream":false"#, &format!(r#"{{{base},"stream":false}}"#), false);
    check(
        r#","stream":true"#,
        &format!(r#"{{"stream_options":{{"include_usage":true}},{base},"stream":true}}"#),
        true,
    );
    let streamed = |options: &str| format!(r#"{{{base},"stream":true,"stream_options":{options}}}"#);
    let options = |sent: &str, expected: &str, injected: bool| {
        check(&format!(r#","stream":true,"stream_options":{sent}"#), &streamed(expected), injected);
    };
    options("null", r#"{"include_usage":true}"#, true);
    options("{}", r#"{"include_usage":true}"#, true);
    options("{ }", r#"{"include_usage":true }"#, true);
    options(r#"{"x":1}"#, r#"{"include_usage":true,"x":1}"#, true);
    options(r#"{"include_usage":false}"#, r#"{"include_usage":true}"#, true);
    options(r#"{"x":1,"include_usage" : null }"#, r#"{"x":1,"include_usage" : true }"#, true);
    options(r#"{"include_usage":true}"#, r#"{"include_usage":true}"#, false);
}

#[test]
fn d13_usage_is_not_asked_for_where_it_may_not() {
    let body = r#"{"model":"m","prompt":"x","stream":true}"#;
    assert_eq!(rewritten(Operation::Completion, body, "m", UsageAsk::AsSent), (body.to_owned(), false));
    let body = r#"{"model":"m","input":"x","stream":true}"#;
    assert_eq!(rewritten(Operation::Response, body, "m", UsageAsk::Inject), (body.to_owned(), false));
}

#[test]
fn i8_an_upstream_model_cannot_break_out_of_its_string() {
    for model in [
        "a\"b",
        "a\\",
        "../x?y#z\r\nhost: evil",
        "\",\"stream\":true,\"x\":\"",
        "\u{0}\u{1f}\u{7f}",
        "模型😀",
    ] {
        let (got, _) =
            rewritten(Operation::Embedding, r#"{"model":"m","input":"x"}"#, model, UsageAsk::AsSent);
        let value: Value = serde_json::from_str(&got).unwrap();
        assert_eq!(value, serde_json::json!({"model": model, "input": "x"}));
    }
}

fn member() -> impl Strategy<Value = String> {
    prop_oneof![
        1 => prop::sample::select(&["aws_sts_endpoint", "Vertex_Project", "langsmith_base_url"][..]).prop_map(|key| format!("\"{key}\":1")),
        4 => ("[a-z]{6,9}", any::<String>()).prop_map(|(key, value)| format!("\"x{key}\": {}", serde_json::to_string(&value).unwrap())),
        2 => "[a-z]{6,9}".prop_map(|key| format!("\"y{key}\" :[1,{{\"model\":null}}]")),
        3 => prop::sample::select(pointsman_wire::openai::request::FORBIDDEN.as_slice()).prop_map(|key| format!("\"{key}\":{{\"a\":[1, 2]}}")),
    ]
}

proptest! {
    /// Members in any order, with forbidden ones among them: what is left equals the original without those.
    #[test]
    fn c4_c11_nothing_else_changes(
        before in prop::collection::vec(member(), 0..5),
        between in prop::collection::vec(member(), 0..5),
        after in prop::collection::vec(member(), 0..5),
        space in "[ \n]{0,2}",
        model in any::<String>(),
    ) {
        let mut members = before;
        members.push("\"model\": \"m\"".to_owned());
        members.extend(between);
        members.push("\"prompt\":\"p\"".to_owned());
        members.push("\"stream\":true".to_owned());
        members.extend(after);
        let body = format!("{{{space}{}{space}}}", members.join(&format!("{space},{space}")));
        let (got, injected) = rewritten(Operation::Completion, &body, &model, UsageAsk::Inject);
        prop_assert!(injected);
        let mut expected: serde_json::Map<String, Value> = serde_json::from_str(&body).unwrap();
        expected.retain(|key, _| pointsman_wire::openai::request::forbidden(key).is_none());
        expected.insert("model".into(), Value::String(model));
        expected.insert("stream_options".into(), serde_json::json!({"include_usage": true}));
        let got: Value = serde_json::from_str(&got).unwrap();
        prop_assert_eq!(got, Value::Object(expected));
    }
}
