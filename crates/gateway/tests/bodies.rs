//! Bodies that must be refused with the field named, and bodies that must pass untouched.

mod support;

use serde_json::{Value, json};
use support::{World, config, hello, request, stream};

fn refused(world: &World, name: &str, body: &[u8], status: u16, param: &str) {
    let answer = world.post("/v1/chat/completions", "", body);
    assert_eq!(answer.status, status, "{name}: {answer:?}");
    if !param.is_empty() {
        assert_eq!(answer.error("param"), param, "{name}: {answer:?}");
    }
    assert_eq!(answer.error("who"), "router", "{name}");
    assert!(answer.header("x-pointsman-request-id").is_some(), "{name}");
    assert_eq!(world.reached(), 0, "{name}: nothing may reach a deployment");
}

fn with(field: &str, value: Value) -> Vec<u8> {
    let mut body = hello();
    body[field] = value;
    body.to_string().into_bytes()
}

#[test]
fn c1_too_large_bodies_get_413_and_a_record() {
    let world =
        World::new(1, "limits: { body_bytes_max: 2048, body_bytes_max_by_route: { /v1/embeddings: 1024 } }");
    let large = vec![b' '; 4096];
    let answer = world.post("/v1/chat/completions", "", &large);
    assert_eq!((answer.status, world.record(&answer)["outcome"].as_str()), (413, Some("invalid")));
    let chunked = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n{}\r\n0\r\n\r\n",
        " ".repeat(4096)
    );
    assert_eq!(world.send(chunked.as_bytes()).status, 413);
    assert_eq!(
        world.send(&request("/v1/embeddings", "", &large[..1500])).status,
        413,
        "the route's own limit"
    );
    assert_eq!(world.reached(), 0);
}

#[test]
fn c3_c4_c5_c7_c10_bad_bodies_are_refused_with_the_field_named() {
    let world = World::new(1, "");
    let deep = format!(
        "{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],\"x\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for (name, body, param) in [
        ("c3 depth", deep.as_bytes(), ""),
        (
            "c4 model twice",
            br#"{"model":"m","messages":[{"role":"user","content":"x"}],"model":"other"}"#,
            "model",
        ),
        (
            "c4 escaped twice",
            br#"{"model":"m","messages":[{"role":"user","content":"x"}],"mod\u0065l":"other"}"#,
            "model",
        ),
        (
            "c4 other case",
            br#"{"model":"m","messages":[{"role":"user","content":"x"}],"Model":"other"}"#,
            "model",
        ),
        ("c5 nan", br#"{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":NaN}"#, ""),
        ("c5 utf-8", b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", ""),
        ("c5 bom", b"\xef\xbb\xbf{\"model\":\"m\",\"messages\":[]}", ""),
        ("not json", b"model=m", ""),
        ("no object", b"[]", ""),
        ("trailing", br#"{"model":"m","messages":[{"role":"user","content":"x"}]} x"#, ""),
        ("no model", br#"{"messages":[{"role":"user","content":"x"}]}"#, "model"),
        ("no messages", br#"{"model":"m"}"#, "messages"),
        ("empty body", b"", ""),
    ] {
        refused(&world, name, body, 400, param);
    }
    for (name, field, value) in [
        ("c7 n", "n", json!(-1)),
        ("c7 max_tokens", "max_tokens", json!(1_000_000_000_000_u64)),
        ("c7 max_tokens 0", "max_tokens", json!(0)),
        ("temperature", "temperature", json!(-3)),
        ("top_p", "top_p", json!(1.5)),
        ("type of stream", "stream", json!("yes")),
        ("c10 empty messages", "messages", json!([])),
        ("type of messages", "messages", json!("hello")),
    ] {
        refused(&world, name, &with(field, value), 400, field);
    }
    refused(
        &world,
        "message without role",
        &with("messages", json!([{"content": "x"}])),
        400,
        "messages[0].role",
    );
    let many = json!(vec![json!({"role": "user", "content": "x"}); 20_000]);
    refused(&world, "c10 20,000 messages", &with("messages", many), 400, "messages");
}

#[test]
fn c8_unknown_models_are_404_and_no_label() {
    let world = World::new(1, "");
    for model in ["nope".to_owned(), "x".repeat(1024 * 1024), "a\u{1}b".to_owned(), "m2".to_owned()] {
        let answer = world.chat(&json!({"model": model, "messages": [{"role": "user", "content": "x"}]}));
        assert_eq!((answer.status, answer.error("code")), (404, json!("model_not_found")), "{}", &model[..2]);
    }
    let around = pointsman::telemetry::metrics::Surroundings {
        fleet: world.app().live.lock().fleet.view(pointsman::clock::now()),
        generation: 1,
        permits: 0,
        attempts: 0,
        connections: 0,
    };
    let metrics = world.app().metrics.encode(&around);
    assert!(!metrics.contains("nope") && metrics.contains("model=\"m\""), "{metrics}");
}

#[test]
fn c10_wrong_content_types_are_refused_early() {
    let world = World::new(1, "");
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        let bytes = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: {kind}\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        assert_eq!(world.send(bytes.as_bytes()).status, 415, "{kind}");
    }
    assert_eq!(world.reached(), 0);
}

#[test]
fn c2_compressed_bodies_are_refused_unopened() {
    let world = World::new(1, "");
    // Nothing is ever decompressed, so no bomb can go off; what the bytes would have become does not matter.
    for coding in ["gzip", "br", "zstd", "deflate", "gzip, gzip", "x-unheard-of"] {
        let body = hello().to_string();
        let headers = format!("content-encoding: {coding}\r\n");
        let answer = world.send(&request("/v1/chat/completions", &headers, body.as_bytes()));
        assert_eq!(answer.status, 415, "{coding}: {answer:?}");
    }
    let plain =
        request("/v1/chat/completions", "content-encoding: identity\r\n", hello().to_string().as_bytes());
    assert_eq!(world.send(&plain).status, 200, "identity is no coding");
    assert_eq!(world.reached(), 1);
}

#[test]
fn c6_what_is_not_ours_passes_byte_for_byte() {
    let world = World::new(1, "");
    let body = br#"{ "messages" : [ {"role":"user","content":[{"type":"text","text":"\ud83d\ude00 \u00e9"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]} ],
      "logprobs":true, "n" : 2, "future_field": {"a": [1e400, -0, 12345678901234567890123]}, "model":"m", "seed": 7,
      "tools":[{"type":"function","function":{"name":"f","parameters":{}}}], "metadata":null }"#;
    // The mock cannot read such numbers; what counts is what it was sent.
    world.post("/v1/chat/completions", "", body);
    let expected = String::from_utf8_lossy(body).replace("\"model\":\"m\"", "\"model\":\"up\"");
    assert_eq!(world.stats(0).last_body, expected);
}

#[test]
fn c11_fields_of_the_operator_are_dropped() {
    let world = World::new(1, "");
    let body = br#"{"api_base":"http://evil","model":"m","messages":[{"role":"user","content":"x"}],"api_key":"k","timeout":1}"#;
    assert_eq!(world.post("/v1/chat/completions", "", body).status, 200);
    let seen: Value = serde_json::from_str(&world.stats(0).last_body).expect("still JSON");
    let names: Vec<&str> = seen.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(names, ["messages", "model"]);
}

#[test]
fn a_models_rules_hold_and_are_named() {
    let model = "    context_tokens_max: 50\n    output_tokens_max: 40\n    capabilities: [chat]\n    params: { temperature: { max: 1.0 } }\n";
    let world = World::with(1, "", model, "");
    refused(&world, "temperature", &with("temperature", json!(1.5)), 400, "temperature");
    refused(&world, "output", &with("max_tokens", json!(41)), 400, "max_tokens");
    refused(
        &world,
        "tools",
        &with("tools", json!([{"type": "function", "function": {"name": "f"}}])),
        400,
        "tools",
    );
    let long = json!([{"role": "user", "content": "word ".repeat(2000)}]);
    let answer = world.post("/v1/chat/completions", "", &with("messages", long));
    assert_eq!((answer.status, answer.error("code")), (400, json!("context_length_exceeded")));
    let answer = world.post("/v1/embeddings", "", br#"{"model":"m","input":"x"}"#);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(world.reached(), 0);
}

#[test]
fn i8_a_strange_upstream_name_stays_data() {
    let mock =
        pointsman::mock::MockServer::spawn(pointsman::mock::MockArgs::on_any_port()).expect("a mock starts");
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nproviders: {{ p: {{ kind: mock, base_url: 'http://{}', health: off }} }}\n\
         models: {{ m: {{ deployments: [ {{ provider: p, name: d, model: '../a?b#c\" d' }} ] }} }}\n",
        mock.address()
    );
    let gateway = pointsman::serve::Gateway::start(
        None,
        config(&text),
        pointsman_settings::overlay::Overlay::default(),
    );
    let world = World { mocks: vec![mock], gateway: gateway.expect("starts") };
    assert_eq!(world.chat(&hello()).status, 200);
    let stats = world.stats(0);
    let seen: Value = serde_json::from_str(&stats.last_body).expect("JSON");
    assert_eq!(seen["model"], "../a?b#c\" d");
    assert!(stats.paths.contains_key("/v1/chat/completions"), "{:?}", stats.paths);
}

#[test]
fn every_path_works_streamed_and_not() {
    let world = World::new(1, "");
    for (path, body) in [
        ("/v1/chat/completions", hello()),
        ("/v1/completions", json!({"model": "m", "prompt": "x", "max_tokens": 3})),
        ("/v1/responses", json!({"model": "m", "input": "x", "max_output_tokens": 3})),
        ("/v1/embeddings", json!({"model": "m", "input": ["x", "y"]})),
    ] {
        let answer = world.post(path, "", body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.whole && answer.json()["usage"].is_object(), "{path}");
        assert!(world.record(&answer)["usage"]["estimated"] == json!(false), "{path}");
        if path != "/v1/embeddings" {
            let mut streamed = body.clone();
            streamed["stream"] = json!(true);
            let answer = world.post(path, "", streamed.to_string().as_bytes());
            assert_eq!((answer.status, answer.whole), (200, true), "{path}");
            let end = if path == "/v1/responses" { "response.completed" } else { "data: [DONE]" };
            assert!(answer.body.contains(end), "{path}: {}", answer.body);
        }
    }
    assert_eq!(world.chat(&stream()).header("content-type"), Some("text/event-stream; charset=utf-8"));
}
