//! Where connections go: nowhere that was not configured, whatever a client, a name or an answer says.

mod support;

use std::net::TcpListener;

use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman_wire::openai::request::{FORBIDDEN, Operation};
use serde_json::{Value, json};
use support::binary::Binary;
use support::{World, fast, hello};

/// A gateway whose provider is at `localhost`, on a port where somebody listens, with these fields.
fn local(fields: &str, extra: &str) -> (World, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.set_nonblocking(true).expect("it can be asked");
    let port = listener.local_addr().expect("bound").port();
    let world = World::configured(&format!(
        "{extra}\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\n\
         timeouts: {{ total_ms: 500 }}\n\
         providers:\n  p: {{ kind: openai_compatible, base_url: 'http://localhost:{port}', keys: [the-key]{fields} }}\n\
         models:\n  m: {{ attempts_max: 1, deployments: [{{ provider: p }}] }}\n"
    ));
    (world, listener)
}

#[test]
fn i2_i3_a_name_that_leads_inside_is_refused_when_it_is_dialled() {
    for (fields, extra) in [
        (", private: false", ""),
        ("", "egress: { private: false }"),
        // The list is about addresses as well, and none of `localhost` is on it.
        ("", "egress: { allow: [192.0.2.0/24] }"),
    ] {
        let (world, listener) = local(fields, extra);
        let answer = world.chat(&hello());
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.body.contains("rules of `egress`"), "{answer:?}");
        assert!(!answer.body.contains("127.0.0.1") && !answer.body.contains("::1"), "{answer:?}");
        assert!(listener.accept().is_err(), "nobody was called");
        let record = world.record(&answer);
        assert_eq!(record["attempts"][0]["failure"]["class"], "connect", "{record}");
    }
}

#[test]
fn i2_what_is_configured_inside_is_called() {
    for (fields, extra) in [
        ("", ""),
        (", private: true", "egress: { private: false }"),
        ("", "egress: { private: false, allow: [127.0.0.0/8, '::1'] }"),
        ("", "egress: { allow: [localhost] }"),
    ] {
        let (world, listener) = local(fields, extra);
        let answer = world.chat(&hello());
        assert!(listener.accept().is_ok(), "{fields} {extra}: {answer:?}");
    }
}

#[test]
fn i2_i7_no_client_says_where_to_go_in_any_operation() {
    let world = World::new(1, "");
    for operation in Operation::TEXT {
        let mut body = match operation {
            Operation::Infer | Operation::Task(_) => unreachable!("texts are neither"),
            Operation::Chat => hello(),
            Operation::Completion => json!({"model": "m", "prompt": "x"}),
            Operation::Embedding | Operation::Response => json!({"model": "m", "input": "x"}),
        };
        for field in FORBIDDEN {
            body[field] = json!("http://169.254.169.254/evil");
        }
        world.post(operation.path(), "x-api-base: http://evil\r\n", body.to_string().as_bytes());
        let seen: Value = serde_json::from_str(&world.stats(0).last_body).expect("JSON");
        let seen = seen.as_object().expect("an object");
        assert!(FORBIDDEN.iter().all(|field| !seen.contains_key(*field)), "{}: {seen:?}", operation.name());
        assert_eq!(seen["model"], "up", "{}", operation.name());
    }
}

#[test]
fn i7_nothing_that_a_message_points_at_is_fetched() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    elsewhere.set_nonblocking(true).expect("it can be asked");
    let url = format!("http://{}/secret.png", elsewhere.local_addr().expect("bound"));
    let openai = json!({"model": "m", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {"url": url}},
    ]}]});
    let anthropic = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [
        {"type": "text", "text": "what is this"}, {"type": "image", "source": {"type": "url", "url": url}},
        {"type": "document", "source": {"type": "url", "url": url}},
    ]}]});
    let gemini = json!({"contents": [{"role": "user", "parts": [
        {"text": "what is this"}, {"fileData": {"mimeType": "image/png", "fileUri": url}},
    ]}]});
    let responses = json!({"model": "m", "input": [{"role": "user", "content": [
        {"type": "input_text", "text": "what is this"}, {"type": "input_image", "image_url": url},
        {"type": "input_file", "file_url": url.replace(".png", ".pdf")},
    ]}]});
    // Some dialects take images as bytes only: then the image is lost, and said to be, not fetched.
    for kind in ["mock", "anthropic", "gemini", "ollama_native"] {
        let mock = MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() })
            .expect("a mock starts");
        let mut world = World::configured(&format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\n\
             providers: {{ p: {{ kind: {kind}, base_url: 'http://{}', health: off }} }}\n\
             models: {{ m: {{ deployments: [{{ provider: p, model: up }}] }} }}\n",
            mock.address()
        ));
        world.mocks.push(mock);
        for (path, body) in [
            ("/v1/chat/completions", &openai),
            ("/v1/messages", &anthropic),
            ("/v1beta/models/m:generateContent", &gemini),
            ("/v1/responses", &responses),
        ] {
            let answer = world.post(path, "", body.to_string().as_bytes());
            assert_eq!(answer.status, 200, "{kind} {path}: {answer:?}");
            assert!(elsewhere.accept().is_err(), "{kind} {path}: it was fetched");
            let seen = world.stats(0).last_body;
            let lost = !world.record(&answer)["conversion"]["losses"].as_array().is_none_or(Vec::is_empty);
            assert!(seen.contains("/secret.p") || lost, "{kind} {path}: passed as text or lost: {seen}");
        }
    }
}

#[test]
fn i2_no_anthropic_client_says_where_to_go_either() {
    let world = World::new(1, "");
    for field in FORBIDDEN {
        let mut body =
            json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
        body[field] = json!("http://169.254.169.254/evil");
        world.post("/v1/messages", "x-api-base: http://evil\r\n", body.to_string().as_bytes());
        let seen = world.stats(0).last_body;
        assert!(!seen.contains("169.254") && !seen.contains(field), "{field}: {seen}");
    }
}

#[test]
fn i1_i4_i6_neither_a_redirect_nor_a_challenge_takes_a_key_elsewhere() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    elsewhere.set_nonblocking(true).expect("it can be asked");
    let port = elsewhere.local_addr().expect("bound").port();
    for status in [301, 302, 303, 307, 308, 401] {
        let world = World::with(1, ", keys: [the-providers-key]", "", "");
        let headers = [
            ("location".to_owned(), format!("http://127.0.0.1:{port}/")),
            ("www-authenticate".to_owned(), format!("Bearer realm=\"http://127.0.0.1:{port}/token\"")),
        ];
        world.script(0, [Scripted { status: Some(status), headers: headers.into(), ..Scripted::default() }]);
        let answer = world.chat(&hello());
        assert_eq!(answer.status, 502, "{status}: {answer:?}");
        assert_eq!(
            (answer.header("location"), answer.header("www-authenticate")),
            (None, None),
            "{answer:?}"
        );
        assert!(elsewhere.accept().is_err(), "{status}: nobody was called");
    }
}

#[test]
fn a_reload_takes_the_prices_of_the_file_as_it_is_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("prices.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("written");
    let priced = |input: f64| {
        format!("[[price]]\nvendor = 'mock'\nmodels = ['up']\ninput = {input:.1}\noutput = 0.0\n")
    };
    write(&priced(10.0));
    let binary = Binary::start(&format!(
        "prices: '{}'\nproviders: {{ p: {{ kind: mock, base_url: MOCK, health: off }} }}\n\
         models:\n  m: {{ deployments: [{{ name: a, provider: p, model: up }}] }}\n",
        file.display()
    ));
    let cost = || {
        binary.mock.control().script([used(&json!({"prompt_tokens": 1000, "completion_tokens": 0}))]);
        binary.ask().header("x-pointsman-cost-usd").map(str::to_owned)
    };
    let reload = || binary.admin("POST", "/admin/v1/reload", "", "").status;
    assert_eq!(cost().as_deref(), Some("0.010000"));
    write(&priced(20.0));
    assert_eq!(cost().as_deref(), Some("0.010000"), "nothing is read between reloads");
    assert_eq!(reload(), 200);
    assert_eq!(cost().as_deref(), Some("0.020000"));
    write("[[price]]\nvendor = 'mock'\n");
    assert!(reload() >= 400, "a list that is wrong is refused");
    assert_eq!(cost().as_deref(), Some("0.020000"), "and the old one goes on");
    write("");
    binary.signal("HUP");
    binary.until("what has no price any more costs what nobody knows", || cost().is_none());
}

/// An answer with this usage.
fn used(usage: &Value) -> Scripted {
    let body = json!({
        "id": "x", "object": "chat.completion", "created": 1, "model": "up", "usage": usage,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    });
    Scripted { pieces: Some(vec![body.to_string()]), ..Scripted::default() }
}

#[test]
fn every_part_of_usage_has_its_price() {
    let priced = "providers: { p: { kind: mock, base_url: MOCK } }\n\
                  models:\n  m: { deployments: [{ name: a, provider: p, price: { input: 10, cached_input: 1, cache_write: 12.5, \
                  output: 100, reasoning: 50 } }] }\n";
    let binary = Binary::start(priced);
    let usage = |audio: u64| {
        json!({
            "prompt_tokens": 1000, "completion_tokens": 20,
            "prompt_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 100, "audio_tokens": audio},
            "completion_tokens_details": {"reasoning_tokens": 12},
        })
    };
    binary.mock.control().script([used(&usage(0)), used(&usage(5))]);
    // 500 plain, 400 cached, 100 written, 8 out, 12 thoughts.
    let known = (500.0 * 10.0 + 400.0 + 1250.0 + 800.0 + 600.0) / 1e6;
    let answer = binary.ask();
    assert_eq!(answer.header("x-pointsman-cost-usd"), Some(format!("{known:.6}").as_str()), "{answer:?}");
    let unknown = binary.ask();
    assert_eq!(unknown.header("x-pointsman-cost-usd"), None, "nobody says what sounds cost");
    let silent = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "up", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]});
    binary
        .mock
        .control()
        .script([Scripted { pieces: Some(vec![silent.to_string()]), ..Scripted::default() }]);
    assert_eq!(binary.ask().header("x-pointsman-cost-usd"), None, "nobody says what it used");
    let hurried = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "up", "usage": usage(0),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "service_tier": "priority"});
    binary
        .mock
        .control()
        .script([Scripted { pieces: Some(vec![hurried.to_string()]), ..Scripted::default() }]);
    assert_eq!(binary.ask().header("x-pointsman-cost-usd"), None, "another service tier has other prices");
    let metrics = || binary.admin("GET", "/metrics", "", "").body;
    let line = format!("pointsman_cost_usd_total{{model=\"m\",deployment=\"a\"}} {known}");
    binary.until("it is counted", || metrics().contains(&line));
}
