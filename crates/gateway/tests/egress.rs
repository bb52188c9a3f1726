//! Where connections go: nowhere that was not configured, whatever a client, a name or an answer says.

mod support;

use std::net::TcpListener;

use pointsman::mock::Scripted;
use pointsman_wire::openai::request::{FORBIDDEN, Operation};
use serde_json::{Value, json};
use support::binary::Binary;
use support::{World, hello};

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
    for operation in Operation::ALL {
        let mut body = match operation {
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
fn i1_i4_i6_neither_a_redirect_nor_a_challenge_takes_a_key_elsewhere() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    elsewhere.set_nonblocking(true).expect("it can be asked");
    let port = elsewhere.local_addr().expect("bound").port();
    let world = World::with(1, ", keys: [the-providers-key]", "", "");
    for status in [301, 302, 303, 307, 308, 401] {
        let headers = [
            ("location".to_owned(), format!("http://127.0.0.1:{port}/")),
            ("www-authenticate".to_owned(), format!("Bearer realm=\"http://127.0.0.1:{port}/token\"")),
        ];
        world.script(0, [Scripted { status: Some(status), headers: headers.into(), ..Scripted::default() }]);
        let answer = world.chat(&hello());
        assert!(answer.status >= 400, "{status}: {answer:?}");
        assert_eq!(
            (answer.header("location"), answer.header("www-authenticate")),
            (None, None),
            "{answer:?}"
        );
        assert!(elsewhere.accept().is_err(), "{status}: nobody was called");
    }
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
    let metrics = || binary.admin("GET", "/metrics", "", "").body;
    let line = format!("pointsman_cost_usd_total{{model=\"m\",deployment=\"a\"}} {known}");
    binary.until("it is counted", || metrics().contains(&line));
}
