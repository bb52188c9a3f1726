use std::sync::Arc;

use pointsman_wire::dialect::provider;
use serde_json::json;

use super::*;

fn schema(schema: &Value) -> Schema {
    Schema::new(&schema.to_string()).unwrap_or_else(|why| panic!("{why}: {schema}"))
}

fn person() -> Schema {
    schema(&json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": false,
    }))
}

fn answer(parts: Vec<Part>, stop: Stop) -> Answer {
    let choice = Choice { parts, stop: Some(stop), ..Choice::default() };
    Answer { choices: vec![choice], ..Answer::default() }
}

fn said(text: &str) -> Answer {
    answer(vec![Part::text(text)], Stop::End)
}

#[test]
fn what_does_not_fit_is_named_by_its_path() {
    let wrong = |text: &str| person().check(&said(text)).map(|misfit| misfit.summary());
    assert_eq!(wrong(r#" {"name":"a","age":3}"#), None);
    assert_eq!(
        wrong(r#"{"name":"a","age":"x"}"#).as_deref(),
        Some("`/age`: \"x\" is not of type \"integer\"")
    );
    assert_eq!(wrong(r#"{"name":"a"}"#).as_deref(), Some("\"age\" is a required property"));
    assert!(wrong("Sure! {}").is_some_and(|why| why.starts_with("it is not JSON")));
    assert!(wrong("").is_some_and(|why| why.starts_with("it is not JSON")));
    assert!(wrong("```json\n{\"name\":\"a\",\"age\":3}\n```").is_some(), "what a parser refuses is no JSON");
    let deep = "[".repeat(100_000);
    assert!(wrong(&deep).is_some());
    let long = format!(r#"{{"name":"a","age":"{}"}}"#, "x".repeat(10_000));
    assert!(wrong(&long).is_some_and(|why| why.len() < 700));
}

#[test]
fn only_whole_answers_in_text_are_checked() {
    let fits = |answer: &Answer| person().check(answer).is_none();
    let call = Part::ToolCall {
        id: "1".to_owned(),
        name: "t".to_owned(),
        arguments: "{}".to_owned(),
        signature: None,
    };
    assert!(fits(&answer(vec![call], Stop::ToolCalls)));
    assert!(fits(&answer(vec![Part::Refusal("no".to_owned())], Stop::End)));
    for stop in [Stop::Length, Stop::Filtered, Stop::Refused, Stop::Paused] {
        assert!(fits(&answer(vec![Part::text("{\"na")], stop)), "{stop:?}");
    }
    assert!(!fits(&answer(vec![Part::text("{\"na")], Stop::Sequence)));
    let mut two = said(r#"{"name":"a","age":3}"#);
    two.choices.extend(said("{}").choices);
    assert!(!fits(&two), "each choice has to fit");
}

#[test]
fn a_schema_that_cannot_be_used_says_why() {
    let why = |schema: Value| Schema::new(&schema.to_string()).err().unwrap_or_default();
    assert!(why(json!({"type": "strin"})).contains("at `/type`"), "{}", why(json!({"type": "strin"})));
    assert_ne!(why(json!({"pattern": "("})), "");
    assert_ne!(why(json!({"$ref": "#/$defs/nobody"})), "");
    for remote in ["https://example.com/s.json", "file:///etc/passwd", "other.json"] {
        assert_ne!(why(json!({"$ref": remote})), "", "{remote} is not fetched");
    }
    let own = json!({"$defs": {"a": {"$id": "https://example.com/a", "$ref": "#"}}});
    assert!(why(own).contains("of its own"));
    assert_ne!(why(json!({"$schema": "https://example.com/own"})), "");
    assert!(Schema::new("{").is_err() && Schema::new(&" ".repeat(SCHEMA_BYTES_MAX + 1)).is_err());
    assert!(Schema::new(&"[".repeat(100_000)).is_err());
}

#[test]
fn a_schema_without_an_end_is_refused_before_it_is_used() {
    let refused = |schema: &Value| Schema::new(&schema.to_string()).is_err();
    assert!(refused(&json!({"$ref": "#"})));
    assert!(refused(&json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#"}}}})));
    assert!(refused(&levels(|next| json!({"anyOf": [next, next]}))));
}

/// Sixty-four definitions, each made of the next by `make`.
fn levels(make: impl Fn(Value) -> Value) -> Value {
    let mut defs = serde_json::Map::new();
    for level in 0..64 {
        let next = json!({"$ref": format!("#/$defs/l{}", level + 1)});
        defs.insert(format!("l{level}"), make(next));
    }
    defs.insert("l64".to_owned(), json!({"type": "string"}));
    json!({"$ref": "#/$defs/l0", "$defs": defs})
}

#[test]
fn what_doubles_on_the_way_down_costs_what_the_answer_has() {
    let doubles = levels(|next| json!({"properties": {"a": next, "b": next}}));
    assert!(schema(&doubles).check(&said(r#"{"a":{"b":1}}"#)).is_none());
    let lists = levels(|next| json!({"items": next, "prefixItems": [next]}));
    assert!(schema(&lists).check(&said("[[[]]]")).is_none());
}

#[test]
fn recursion_that_consumes_is_fine_and_what_doubles_is_let_through() {
    let list = schema(&json!({
        "type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"],
    }));
    assert!(list.check(&said(r#"{"next":{"next":{"next":null}}}"#)).is_none());
    assert!(list.check(&said(r#"{"next":{"next":{}}}"#)).is_some());
    let branch = json!({"properties": {"a": {"$ref": "#"}}});
    let doubles = schema(&json!({"anyOf": [branch, branch], "not": {"required": ["z"]}}));
    let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
    assert!(doubles.check(&said(&deep)).is_none());
}

#[test]
fn the_model_is_told_its_answer_and_what_was_wrong() {
    let misfit = person().check(&said("{}")).expect("it does not fit");
    let mut conversation = Conversation::default();
    misfit.ask_again(&mut conversation);
    let [answer, request] = conversation.messages.as_slice() else { panic!("{conversation:?}") };
    assert_eq!((answer.role, &answer.parts[..]), (Role::Assistant, &[Part::text("{}")][..]));
    let Part::Text { text, .. } = &request.parts[0] else { panic!("{request:?}") };
    assert!(request.role == Role::User && text.contains("- \"name\" is a required property"), "{text}");
}

fn watched(pieces: &[&str]) -> bool {
    let reader = provider("openai").expect("it is there").dialect.stream();
    let mut watch = Watch::new(Arc::new(person()), Some(reader));
    for piece in pieces {
        watch.push(piece.as_bytes());
    }
    watch.is_misfit()
}

fn chunk(text: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
    )
}

fn end(reason: &str) -> String {
    format!(
        "data: {}\n\ndata: [DONE]\n\n",
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    )
}

#[test]
fn a_stream_is_checked_at_its_end() {
    let good = [chunk(r#"{"name":"a","#), chunk(r#""age":3}"#)];
    assert!(!watched(&[&good[0], &good[1], &end("stop")]));
    assert!(watched(&[&good[0], &end("stop")]));
    assert!(!watched(&[&good[0], &end("length")]), "it was cut short");
    assert!(!watched(&[&good[0]]), "it broke off");
    let long = chunk(&"x".repeat(900_000));
    assert!(!watched(&[&long, &long, &end("stop")]), "what is too long is not kept");
}
