//! Answers that are held to a JSON schema, and what is told of answers.

mod support;

use std::fmt::Write as _;

use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman::serve::Gateway;
use pointsman::telemetry::metrics::Surroundings;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::{Answer, World, config, fast, hello};

/// What a provider's answer with a text is.
type Said<'a> = &'a dyn Fn(&str) -> Value;

const GOOD: &str = r#"{ "name": "Ada", "age": 36 }"#;
const BAD: &str = r#"{"name":"Ada","age":"old"}"#;

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": false,
    })
}

/// A chat that is held to the schema.
fn held() -> Value {
    let mut body = hello();
    body["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema()}});
    body
}

fn world(count: usize, on_mismatch: &str) -> World {
    let model = format!("    structured_output: {{ on_mismatch: {on_mismatch} }}\n");
    World::with(count, "", &model, "")
}

/// An answer of an OpenAI-compatible engine.
fn openai(message: &Value, finish: &str) -> String {
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15});
    json!({
        "id": "c", "object": "chat.completion", "created": 1, "model": "up", "usage": usage,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    })
    .to_string()
}

fn saying(text: &str) -> Scripted {
    sending(vec![openai(&json!({"role": "assistant", "content": text}), "stop")])
}

fn sending(pieces: Vec<String>) -> Scripted {
    Scripted { pieces: Some(pieces), ..Scripted::default() }
}

fn content(answer: &Answer) -> Value {
    answer.json()["choices"][0]["message"]["content"].clone()
}

fn counted(world: &World, event: &str) -> u64 {
    let app = world.app();
    let metrics = app.metrics.encode(&Surroundings {
        fleet: app.live.lock().fleet.view(pointsman_routing::Now::ZERO),
        generation: 1,
        permits: 0,
        attempts: 0,
        connections: 0,
    });
    let series = format!("pointsman_answer_events_total{{model=\"m\",event=\"{event}\"}} ");
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(&series))
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
}

#[test]
fn an_answer_that_fits_passes_as_it_came() {
    for on_mismatch in ["off", "fail_over", "repair", "refuse"] {
        let world = world(1, on_mismatch);
        let odd =
            openai(&json!({"role": "assistant", "content": GOOD}), "stop").replace("\"id\":", " \"id\" :  ");
        world.script(0, [sending(vec![odd[..40].to_owned(), odd[40..].to_owned()])]);
        let answer = world.chat(&held());
        assert_eq!((answer.status, &answer.body), (200, &odd), "{on_mismatch}");
        let record = world.record(&answer);
        assert_eq!((&record["events"], &record["conversion"]), (&json!([]), &Value::Null), "{record}");
        assert_eq!(record["usage"]["tokens_out"], 5);
    }
}

#[test]
fn fail_over_asks_another_and_counts_both() {
    let world = world(2, "fail_over");
    world.script(0, [saying(BAD)]);
    world.script(1, [saying(GOOD)]);
    let answer = world.chat(&held());
    assert_eq!((answer.status, content(&answer)), (200, json!(GOOD)), "{answer:?}");
    assert_eq!(answer.header("x-pointsman-served-by"), Some("d1"));
    let record = world.record(&answer);
    assert_eq!(record["attempts"][0]["failure"]["class"], "schema_mismatch", "{record}");
    assert_eq!(record["attempts"][0]["events"], json!(["schema_mismatch"]));
    assert_eq!(
        (&record["attempts"][1]["events"], &record["events"]),
        (&json!([]), &json!(["schema_mismatch"]))
    );
    assert_eq!((&record["usage"]["tokens_in"], &record["usage"]["tokens_out"]), (&json!(20), &json!(10)));
    assert_eq!(record["usage"]["estimated"], false);
    assert_eq!((counted(&world, "schema_mismatch"), world.permits()), (1, 0));
    assert_eq!(world.stats(0).last_body, world.stats(1).last_body, "the same is asked");
}

#[test]
fn fail_over_ends_with_what_did_not_fit() {
    let world = world(2, "fail_over");
    world.script(0, [saying(BAD)]);
    world.script(1, [saying("I cannot do that")]);
    let answer = world.chat(&held());
    assert_eq!((answer.status, answer.error("code")), (502, json!("schema_mismatch")), "{answer:?}");
    let said = answer.error("message");
    assert!(said.as_str().is_some_and(|said| said.contains("`d1`") && said.contains("not JSON")), "{said}");
}

#[test]
fn repair_tells_the_model_what_was_wrong_once() {
    let world = world(1, "repair");
    world.script(0, [saying(BAD), saying(GOOD)]);
    let answer = world.chat(&held());
    assert_eq!((answer.status, content(&answer)), (200, json!(GOOD)), "{answer:?}");
    let sent: Value = serde_json::from_str(&world.stats(0).last_body).expect("JSON");
    let messages = sent["messages"].as_array().expect("messages");
    assert_eq!(messages.len(), 3, "{sent}");
    assert_eq!(messages[1], json!({"role": "assistant", "content": BAD}));
    assert_eq!(messages[2]["role"], "user");
    let told = messages[2]["content"].as_str().unwrap_or_default();
    assert!(told.contains("`/age`") && told.contains("is not of type \"integer\""), "{told}");
    assert_eq!((&sent["model"], &sent["response_format"]), (&json!("up"), &held()["response_format"]));
    let record = world.record(&answer);
    let kinds: Vec<_> =
        record["attempts"].as_array().expect("attempts").iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds, ["usual", "repair"]);
    assert_eq!(record["usage"]["tokens_out"], 10);
}

#[test]
fn what_a_repair_does_not_mend_is_refused() {
    let world = world(2, "repair");
    world.script(0, [saying(BAD), saying(BAD)]);
    let answer = world.chat(&held());
    assert_eq!((answer.status, answer.error("code")), (502, json!("schema_mismatch")), "{answer:?}");
    assert_eq!(answer.error("who"), "provider:m0");
    assert_eq!((world.reached(), world.permits()), (2, 0));
    let record = world.record(&answer);
    assert_eq!((&record["outcome"], &record["detail"]), (&json!("failed"), &json!("schema_mismatch")));
    assert_eq!(record["usage"]["tokens_in"], 20, "both are billed: {record}");
    assert_eq!(counted(&world, "schema_mismatch"), 2);
}

#[test]
fn refuse_asks_nobody_else() {
    let world = world(2, "refuse");
    world.script(0, [saying(BAD)]);
    let answer = world.chat(&held());
    assert_eq!((answer.status, answer.error("code"), world.reached()), (502, json!("schema_mismatch"), 1));
    let said = answer.error("message");
    assert!(said.as_str().is_some_and(|said| said.contains("`/age`: \"old\" is not of type")), "{said}");
    assert!(!answer.body.contains("Ada"), "what was refused is not given");
}

#[test]
fn nothing_is_checked_where_it_is_off_or_not_asked_for() {
    let off = world(1, "off");
    off.script(0, [saying(BAD)]);
    assert_eq!(content(&off.chat(&held())), BAD);
    let on = world(1, "refuse");
    on.script(0, [saying(BAD)]);
    assert_eq!(content(&on.chat(&hello())), BAD);
}

#[test]
fn a_schema_that_cannot_be_used_is_refused_before_anything_is_sent() {
    let world = world(1, "repair");
    for bad in [
        json!({"type": "strin"}),
        json!({"$ref": "http://127.0.0.1:9/schema.json"}),
        json!({"$ref": "#"}),
        json!({"pattern": "("}),
    ] {
        let mut body = held();
        body["response_format"]["json_schema"]["schema"] = bad.clone();
        let answer = world.chat(&body);
        assert_eq!(
            (answer.status, answer.error("param")),
            (400, json!("response_format")),
            "{bad} {answer:?}"
        );
    }
    assert_eq!(world.reached(), 0);
}

#[test]
fn a_stream_is_relayed_and_the_mismatch_noted() {
    let world = world(2, "refuse");
    let event = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\n\n", json!({"id": "c", "object": "chat.completion.chunk", "choices": [choice]}))
    };
    let stream = |text: &str| {
        let (first, rest) = text.split_at(5);
        sending(vec![
            event(json!({"role": "assistant", "content": first}), Value::Null),
            event(json!({"content": rest}), Value::Null),
            event(json!({}), json!("stop")) + "data: [DONE]\n\n",
        ])
    };
    let mut body = held();
    body["stream"] = json!(true);
    for (text, events) in [(GOOD, json!([])), (BAD, json!(["schema_mismatch"]))] {
        world.script(0, [stream(text)]);
        let answer = world.chat(&body);
        assert!(answer.status == 200 && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
        let record = world.record(&answer);
        assert_eq!((&record["events"], &record["outcome"]), (&events, &json!("completed")), "{record}");
    }
    assert_eq!(world.reached(), 2);
}

#[test]
fn what_is_worth_telling_of_answers_is_told_whether_they_are_checked_or_not() {
    for on_mismatch in ["off", "refuse"] {
        let world = world(1, on_mismatch);
        let call = json!([{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
        for (message, finish, events) in [
            (
                json!({"role": "assistant", "content": null, "refusal": "I will not"}),
                "stop",
                json!(["refusal"]),
            ),
            (json!({"role": "assistant", "content": "{\"na"}), "length", json!(["length_stop"])),
            (json!({"role": "assistant", "content": "{\"na"}), "content_filter", json!(["content_filter"])),
            (json!({"role": "assistant", "content": null, "tool_calls": call}), "tool_calls", json!([])),
        ] {
            let sent = openai(&message, finish);
            world.script(0, [sending(vec![sent.clone()])]);
            let answer = world.chat(&held());
            assert_eq!((answer.status, &answer.body), (200, &sent), "{answer:?}");
            assert_eq!(world.record(&answer)["events"], events, "{on_mismatch} {message}");
        }
        assert_eq!((counted(&world, "refusal"), counted(&world, "length_stop")), (1, 1));
        world.script(0, [saying("")]);
        let _ = world.chat(&hello());
        assert_eq!(counted(&world, "empty_answer"), 1);
    }
}

/// One mock behind a provider of each kind; the models are named like the kinds and have `on_mismatch`.
fn speaking(kinds: &[&str], on_mismatch: &str) -> World {
    let mock = MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock");
    let mut text = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n".to_owned();
    for kind in kinds {
        let base = format!("base_url: 'http://{}', health: off, keys: [k]", mock.address());
        let _ = writeln!(text, "  {kind}: {{ kind: {kind}, {base} }}");
    }
    text.push_str("models:\n");
    for kind in kinds {
        let price = "price: { input: 1.0, output: 2.0 }";
        let _ = writeln!(text, "  {kind}:\n    structured_output: {{ on_mismatch: {on_mismatch} }}");
        let _ = writeln!(text, "    deployments: [ {{ name: d, provider: {kind}, model: up, {price} }} ]");
    }
    let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
    World { mocks: vec![mock], gateway }
}

/// What is asked in each client dialect: its path and body.
fn asked(dialect: &str, model: &str) -> (String, Value) {
    let turn = json!([{"role": "user", "content": "who?"}]);
    match dialect {
        "openai" => {
            let format = held()["response_format"].clone();
            let body = json!({"model": model, "messages": turn, "response_format": format});
            ("/v1/chat/completions".to_owned(), body)
        }
        "anthropic" => {
            let format = json!({"format": {"type": "json_schema", "schema": schema()}});
            let body = json!({"model": model, "max_tokens": 99, "messages": turn, "output_config": format});
            ("/v1/messages".to_owned(), body)
        }
        "gemini" => {
            let config = json!({"responseMimeType": "application/json", "responseJsonSchema": schema()});
            let contents = json!([{"role": "user", "parts": [{"text": "who?"}]}]);
            let path = format!("/v1beta/models/{model}:generateContent");
            (path, json!({"contents": contents, "generationConfig": config}))
        }
        "ollama" => {
            let body = json!({"model": model, "messages": turn, "format": schema(), "stream": false});
            ("/api/chat".to_owned(), body)
        }
        _ => {
            let body = json!({"model": model, "prompt": "who?", "format": schema(), "stream": false});
            ("/api/generate".to_owned(), body)
        }
    }
}

const DIALECTS: [&str; 5] = ["openai", "anthropic", "gemini", "ollama", "ollama-generate"];

#[test]
fn every_client_dialect_is_checked_repaired_and_refused() {
    let world = speaking(&["openai_compatible"], "repair");
    for dialect in DIALECTS {
        let (path, body) = asked(dialect, "openai_compatible");
        world.script(0, [saying(BAD), saying(GOOD)]);
        let answer = world.post(&path, "", body.to_string().as_bytes());
        assert!(answer.status == 200 && answer.body.contains("36"), "{dialect} {answer:?}");
        let record = world.record(&answer);
        assert_eq!((&record["dialect"], &record["attempts"][1]["kind"]), (&json!(dialect), &json!("repair")));
        assert_eq!(record["cost_usd"], 40.0 / 1e6, "both are paid for: {record}");
        assert!(world.stats(0).last_body.contains(&json!(BAD).to_string()), "{}", world.stats(0).last_body);
        world.script(0, [saying(BAD), saying(BAD)]);
        let answer = world.post(&path, "", body.to_string().as_bytes());
        assert_eq!(answer.status, 502, "{dialect} {answer:?}");
        assert!(answer.body.contains("does not fit the JSON schema"), "{dialect} {answer:?}");
        assert_eq!(world.record(&answer)["detail"], "schema_mismatch");
    }
}

#[test]
fn providers_of_other_dialects_are_checked_too() {
    let world = speaking(&["anthropic", "gemini", "ollama_native"], "repair");
    let anthropic = |text: &str| {
        json!({"id": "m", "type": "message", "role": "assistant", "model": "up", "stop_reason": "end_turn",
               "content": [{"type": "text", "text": text}], "usage": {"input_tokens": 3, "output_tokens": 4}})
    };
    let gemini = |text: &str| {
        json!({"candidates": [{"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [{"text": text}]}}],
               "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}})
    };
    let ollama = |text: &str| {
        json!({"model": "up", "created_at": "2024-01-01T00:00:00Z", "message": {"role": "assistant", "content": text},
               "done": true, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 4})
    };
    let kinds: [(&str, Said<'_>); 3] =
        [("anthropic", &anthropic), ("gemini", &gemini), ("ollama_native", &ollama)];
    for (kind, saying) in kinds {
        for dialect in DIALECTS {
            let (path, body) = asked(dialect, kind);
            let script = [BAD, GOOD].map(|text| sending(vec![saying(text).to_string()]));
            world.script(0, script);
            let answer = world.post(&path, "", body.to_string().as_bytes());
            assert!(answer.status == 200 && answer.body.contains("36"), "{dialect} {kind} {answer:?}");
            let record = world.record(&answer);
            assert_eq!(record["attempts"][1]["kind"], "repair", "{record}");
            assert_eq!(record["usage"]["tokens_in"], 6, "{dialect} {kind} {record}");
        }
    }
}

#[test]
fn explain_says_that_the_answer_is_checked() {
    let world = world(1, "repair");
    let explained = |body: &Value| {
        let app = world.app();
        let (mut fleet, mut rng) = app.live.lock().sandbox();
        let (options, headers) = (pointsman::explain::Options::default(), http::HeaderMap::new());
        let body = body.to_string();
        pointsman::explain::explain(
            &app.snapshot.load(),
            &mut fleet,
            &mut rng,
            &options,
            &headers,
            body.as_bytes(),
        )
        .expect("it is routed")
    };
    assert_eq!(explained(&held())["answer_checked"], "repair");
    assert_eq!(explained(&hello())["answer_checked"], Value::Null);
}

/// A response with a text, held to the schema.
fn held_response(extra: &Value) -> Value {
    let format = json!({"type": "json_schema", "name": "person", "strict": true, "schema": schema()});
    let mut body = json!({"model": "m", "input": "who?", "text": {"format": format}});
    for (name, value) in extra.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

/// What a provider of the Responses API answers.
fn responding(text: &str) -> String {
    let content = json!([{"type": "output_text", "text": text, "annotations": []}]);
    json!({
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "up-2025",
        "output": [{"type": "reasoning", "id": "rs_1", "summary": []},
                   {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}],
        "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
    })
    .to_string()
}

/// The id of a response that the provider keeps.
fn kept(world: &World) -> Value {
    let answer = world.post("/v1/responses", "", json!({"model": "m", "input": "hi"}).to_string().as_bytes());
    answer.json()["id"].clone()
}

#[test]
fn a_response_that_is_relayed_is_checked_too() {
    let world = world(1, "refuse");
    let ask = |extra: &Value| world.post("/v1/responses", "", held_response(extra).to_string().as_bytes());
    world.script(0, [sending(vec![responding("hi")])]);
    let answer = ask(&json!({}));
    assert_eq!((answer.status, answer.error("code")), (502, json!("schema_mismatch")), "{answer:?}");
    let record = world.record(&answer);
    assert_eq!(
        (&record["usage"]["tokens_in"], &record["events"]),
        (&json!(10), &json!(["schema_mismatch"])),
        "{record}"
    );
    // What its provider keeps is no reason not to look.
    let kept = kept(&world);
    world.script(0, [sending(vec![responding("hi")])]);
    assert_eq!(ask(&json!({"previous_response_id": kept})).error("code"), "schema_mismatch");
    let good = responding(GOOD);
    let (one, other) = good.split_at(good.len() / 2);
    world.script(0, [sending(vec![one.to_owned(), other.to_owned()])]);
    let answer = ask(&json!({}));
    assert_eq!((answer.status, answer.body.as_str()), (200, good.as_str()), "it passes as it came");
    let record = world.record(&answer);
    assert_eq!(
        (&record["usage"]["tokens_out"], &record["attempts"][0]["said"]["model"]),
        (&json!(5), &json!("up-2025"))
    );
    let cut = responding("{").replace("\"completed\",\"model\"", "\"incomplete\",\"model\"");
    let background = responding("").replace("\"status\":\"completed\"", "\"status\":\"queued\"");
    for other in [cut.replace("\"status\":\"completed\"", "\"status\":\"incomplete\""), background] {
        world.script(0, [sending(vec![other])]);
        assert_eq!(ask(&json!({})).status, 200, "it is none that was completed");
    }
}

#[test]
fn a_response_that_does_not_fit_is_repaired_in_a_chat() {
    let world = world(1, "repair");
    let ask = |extra: &Value| world.post("/v1/responses", "", held_response(extra).to_string().as_bytes());
    world.script(0, [sending(vec![responding(BAD)]), saying(GOOD)]);
    let answer = ask(&json!({}));
    assert_eq!((answer.status, &answer.json()["object"]), (200, &json!("response")), "{answer:?}");
    assert_eq!(answer.json()["output"][0]["content"][0]["text"], GOOD, "{answer:?}");
    assert_eq!(world.record(&answer)["attempts"][1]["kind"], "repair");
    let paths = world.stats(0).paths;
    assert_eq!(
        (paths.get("/v1/responses"), paths.get("/v1/chat/completions")),
        (Some(&1), Some(&1)),
        "{paths:?}"
    );
    assert!(world.stats(0).last_body.contains(&json!(BAD).to_string()), "{}", world.stats(0).last_body);
    // A chat cannot go on from what a provider keeps; that is not the client's fault.
    let kept = kept(&world);
    world.script(0, [sending(vec![responding(BAD)])]);
    let answer = ask(&json!({"previous_response_id": kept}));
    assert_eq!((answer.status, answer.error("code")), (502, json!("schema_mismatch")), "{answer:?}");
}

#[test]
fn a_streamed_response_is_relayed_and_the_mismatch_noted() {
    let world = world(1, "refuse");
    for (text, events) in [("hi", json!(["schema_mismatch"])), (GOOD, json!([]))] {
        let whole: Value = serde_json::from_str(&responding(text)).expect("JSON");
        let pieces: Vec<String> = [
            json!({"type": "response.created", "response": {"id": "resp_1", "model": "up-2025", "status": "in_progress"}}),
            json!({"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 1, "content_index": 0, "delta": text}),
            json!({"type": "response.completed", "response": whole}),
        ]
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default()))
        .collect();
        let headers = [("content-type".to_owned(), "text/event-stream".to_owned())].into_iter().collect();
        world.script(0, [Scripted { pieces: Some(pieces.clone()), headers, ..Scripted::default() }]);
        let body = held_response(&json!({"stream": true})).to_string();
        let answer = world.post("/v1/responses", "", body.as_bytes());
        assert_eq!((answer.status, answer.body.as_str()), (200, pieces.concat().as_str()));
        let found = world.record(&answer)["events"].clone();
        assert_eq!(if found.is_null() { json!([]) } else { found }, events, "{text}");
    }
}
