//! Clients of every dialect, in front of providers of their own and of others.

mod support;

use serde_json::{Value, json};
use support::{Answer, World};

const KINDS: [&str; 4] = ["openai_compatible", "anthropic", "gemini", "ollama_native"];

fn get(world: &World, path: &str, headers: &str) -> Answer {
    world.send(
        format!("GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{headers}\r\n").as_bytes(),
    )
}

fn post(world: &World, path: &str, headers: &str, body: &Value) -> Answer {
    world.post(path, headers, body.to_string().as_bytes())
}

fn gemini(model: &str, call: &str) -> String {
    format!("/v1beta/models/{model}:{call}")
}

fn contents() -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]})
}

#[test]
fn c12_every_client_is_served_by_every_provider() {
    let world = World::speaking(&KINDS);
    for kind in KINDS {
        let turn = json!([{"role": "user", "content": "hello"}]);
        let openai = post(&world, "/v1/chat/completions", "", &json!({"model": kind, "messages": turn}));
        assert_eq!((openai.status, &openai.json()["object"]), (200, &json!("chat.completion")), "{openai:?}");
        let anthropic = json!({"model": kind, "max_tokens": 20, "messages": turn});
        let anthropic = post(&world, "/v1/messages", "", &anthropic);
        assert_eq!((anthropic.status, &anthropic.json()["type"]), (200, &json!("message")), "{anthropic:?}");
        let google = post(&world, &gemini(kind, "generateContent"), "", &contents());
        assert!(
            google.status == 200 && google.json()["candidates"][0]["finishReason"] == "STOP",
            "{google:?}"
        );
        let ollama =
            post(&world, "/api/chat", "", &json!({"model": kind, "messages": turn, "stream": false}));
        assert!(ollama.status == 200 && ollama.json()["done"] == true, "{ollama:?}");
        let generated = json!({"model": format!("{kind}:latest"), "prompt": "hello", "stream": false});
        let generated = post(&world, "/api/generate", "", &generated);
        assert!(generated.status == 200 && generated.json()["response"].is_string(), "{generated:?}");
        let record = world.record(&generated);
        assert_eq!(record["dialect"], "ollama-generate", "{record}");
        assert!(record["usage"]["tokens_out"].as_u64() > Some(0), "{record}");
    }
}

#[test]
fn streams_come_in_the_form_of_the_client() {
    let world = World::speaking(&KINDS);
    for kind in KINDS {
        let events = post(&world, &gemini(kind, "streamGenerateContent?alt=sse"), "", &contents());
        assert_eq!(events.header("content-type"), Some("text/event-stream"), "{events:?}");
        assert!(events.body.starts_with("data: {") && events.body.contains("\"finishReason\""), "{events:?}");
        let array = post(&world, &gemini(kind, "streamGenerateContent"), "", &contents());
        assert_eq!(array.header("content-type"), Some("application/json"), "{array:?}");
        let array: Value = serde_json::from_str(&array.body).expect("one document");
        assert!(array.as_array().is_some_and(|all| all.len() > 1), "{array}");
        let lines = json!({"model": kind, "messages": [{"role": "user", "content": "hello"}]});
        let lines = post(&world, "/api/chat", "", &lines);
        assert_eq!(lines.header("content-type"), Some("application/x-ndjson"), "{lines:?}");
        let last: Value =
            lines.body.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect("a line");
        assert!(last["done"] == true && last["eval_count"].as_u64() > Some(0), "{last}");
    }
}

#[test]
fn the_same_dialect_passes_as_it_came() {
    let world = World::speaking(&KINDS);
    let body = r#"{"contents" : [ {"parts":[{"text":"hi"}], "role":"user"} ],"newField":{"a":[1e3]}}"#;
    let answer = world.post(&gemini("gemini", "generateContent"), "", body.as_bytes());
    assert_eq!((answer.status, world.stats(0).last_body.as_str()), (200, body), "{answer:?}");
    assert_eq!(
        world.stats(0).paths.get("/v1beta/models/up:generateContent"),
        Some(&1),
        "{:?}",
        world.stats(0)
    );
    assert_eq!(
        world.stats(0).last_headers.get("x-goog-api-key").map(String::as_str),
        Some("key-of-provider")
    );
    let body = r#"{"model":"ollama_native", "messages":[{"role":"user","content":"hi"}],"keep_alive":"5m","stream":false}"#;
    let answer = world.post("/api/chat", "", body.as_bytes());
    assert_eq!(
        (answer.status, world.stats(0).last_body),
        (200, body.replace("ollama_native", "up")),
        "{answer:?}"
    );
}

#[test]
fn c5_half_a_surrogate_pair_passes_as_it_came_or_is_refused_by_its_field() {
    let world = World::speaking(&KINDS);
    let body = |model: &str| {
        format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"a\ud83db"}}],"max_tokens":9}}"#)
    };
    // What the provider makes of it is its own affair.
    world.post("/v1/chat/completions", "", body("openai_compatible").as_bytes());
    assert_eq!(world.stats(0).last_body, body("up"));
    for kind in ["anthropic", "gemini", "ollama_native"] {
        let other = world.post("/v1/chat/completions", "", body(kind).as_bytes());
        let error = &other.json()["error"];
        assert_eq!((other.status, &error["param"]), (400, &json!("messages[0].content")), "{other:?}");
    }
}

#[test]
fn tools_that_only_their_provider_runs_are_losses_in_the_record() {
    let world = World::speaking(&KINDS);
    let body = json!({"model": "openai_compatible", "max_tokens": 9,
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        "messages": [{"role": "user", "content": "hi"}]});
    let answer = post(&world, "/v1/messages", "", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let losses = world.record(&answer)["conversion"]["losses"].to_string();
    assert!(losses.contains("tools[0]"), "{losses}");
    for counter in ["conversions", "conversion_losses"] {
        let labels = r#"{model="openai_compatible",from="anthropic",to="openai"} 1"#;
        let line = format!("pointsman_{counter}_total{labels}");
        assert!(world.metrics().contains(&line), "{line}\n{}", world.metrics());
    }
}

#[test]
fn headers_of_anthropics_clients_go_to_anthropic_alone() {
    let world = World::speaking(&KINDS);
    let body = |model: &str| json!({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let sent = "anthropic-version: 2024-01-01\r\nanthropic-beta: one-2025,two-2025\r\n";
    let header = |name: &str| world.stats(0).last_headers.get(name).cloned();
    assert_eq!(post(&world, "/v1/messages", sent, &body("anthropic")).status, 200);
    assert_eq!(header("anthropic-version").as_deref(), Some("2024-01-01"));
    assert_eq!(header("anthropic-beta").as_deref(), Some("one-2025,two-2025"));
    assert_eq!(post(&world, "/v1/messages", "", &body("anthropic")).status, 200);
    assert_eq!(
        (header("anthropic-version").as_deref(), header("anthropic-beta")),
        (Some("2023-06-01"), None)
    );
    assert_eq!(post(&world, "/v1/messages", sent, &body("openai_compatible")).status, 200);
    assert_eq!((header("anthropic-version"), header("anthropic-beta")), (None, None));
}

#[test]
fn tokens_are_counted_by_the_provider_or_estimated() {
    let world = World::speaking(&KINDS);
    let body = json!({"model": "openai_compatible", "messages": [{"role": "user", "content": "one two three four"}]});
    let counted = post(&world, "/v1/messages/count_tokens", "", &body);
    assert!(counted.status == 200 && counted.json()["input_tokens"].as_u64() > Some(3), "{counted:?}");
    assert_eq!(counted.header("x-pointsman-served-by"), Some("router"));
    let counted = post(&world, &gemini("anthropic", "countTokens"), "", &contents());
    assert!(counted.status == 200 && counted.json()["totalTokens"].as_u64() > Some(0), "{counted:?}");
    let before = world.stats(0).requests;
    let _ = post(&world, &gemini("gemini", "countTokens"), "", &contents());
    assert_eq!(world.stats(0).paths.get("/v1beta/models/up:countTokens"), Some(&1));
    assert_eq!(before, 0);
}

#[test]
fn what_only_one_dialect_has_needs_a_provider_of_it() {
    let world = World::speaking(&KINDS);
    let body = json!({"content": {"parts": [{"text": "hi"}]}});
    let refused = post(&world, &gemini("anthropic", "embedContent"), "", &body);
    assert_eq!(
        (refused.status, &refused.json()["error"]["status"]),
        (400, &json!("INVALID_ARGUMENT")),
        "{refused:?}"
    );
    let refused = post(&world, &gemini("openai_compatible", "embedContent"), "", &body);
    assert!(refused.status >= 400 && refused.body.contains("the client's dialect"), "{refused:?}");
}

#[test]
fn models_are_listed_as_the_client_asks() {
    let world = World::speaking(&KINDS);
    let names = |list: &Value, field: &str| -> Vec<String> {
        let all = list.as_array().expect("a list");
        all.iter().map(|one| one[field].as_str().unwrap_or_default().to_owned()).collect()
    };
    let openai = get(&world, "/v1/models", "").json();
    let anthropic = get(&world, "/v1/models", "anthropic-version: 2023-06-01\r\n").json();
    assert_eq!(names(&openai["data"], "id"), names(&anthropic["data"], "id"));
    assert_eq!((&openai["object"], &anthropic["has_more"]), (&json!("list"), &json!(false)));
    let gemini = get(&world, "/v1beta/models", "").json();
    assert!(names(&gemini["models"], "name").contains(&"models/gemini".to_owned()), "{gemini}");
    assert_eq!(get(&world, "/v1beta/models/gemini", "").json()["name"], "models/gemini");
    let tags = get(&world, "/api/tags", "").json();
    assert_eq!(names(&tags["models"], "name"), names(&openai["data"], "id"));
    let shown = post(&world, "/api/show", "", &json!({"model": "gemini:latest"}));
    assert!(shown.status == 200 && shown.json()["capabilities"][0] == "completion", "{shown:?}");
    let nobody = post(&world, "/api/show", "", &json!({"model": "nobody"}));
    assert!(nobody.status == 404 && nobody.json()["error"].is_string(), "{nobody:?}");
    assert!(get(&world, "/api/version", "").json()["version"].is_string());
    let nobody = get(&world, "/v1beta/models/nobody", "");
    assert_eq!((nobody.status, &nobody.json()["error"]["status"]), (404, &json!("NOT_FOUND")), "{nobody:?}");
}
