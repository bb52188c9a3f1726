//! What providers say of themselves beside their answers: kept in the record, shown by the admin API, and kept to.

mod support;

use std::collections::BTreeMap;

use pointsman::mock::Scripted;
use serde_json::{Value, json};
use support::binary::Binary;
use support::{World, hello, stream};

const KEYS: &str = ", keys: [the-key-one, the-key-two]";

fn headers(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn spent() -> BTreeMap<String, String> {
    headers(&[
        ("x-ratelimit-limit-requests", "10"),
        ("x-ratelimit-remaining-requests", "0"),
        ("x-ratelimit-reset-requests", "1m0s"),
        ("x-ratelimit-remaining-tokens", "4000"),
        ("x-request-id", "req_1"),
    ])
}

#[test]
fn a_key_whose_provider_says_that_nothing_is_left_is_not_used() {
    for status in [None, Some(500), Some(429)] {
        let world = World::with(1, KEYS, "    attempts_max: 1\n", "");
        world.script(0, [Scripted { status, headers: spent(), ..Scripted::default() }]);
        let answer = world.chat(&hello());
        assert_eq!(answer.status, status.unwrap_or(200), "{answer:?}");
        let used = world.stats(0).last_headers["authorization"].clone();
        let said = &world.record(&answer)["attempts"][0]["said"];
        assert_eq!(said["request_id"], "req_1", "{status:?}");
        let requests = json!({"limit": 10, "remaining": 0, "resets_in_ms": 60_000});
        assert_eq!(said["limits"]["requests"], requests, "{status:?}");
        assert_eq!(said["limits"]["tokens"]["remaining"], 4000);
        for _ in 0..4 {
            assert_eq!(world.chat(&hello()).status, 200);
            assert_ne!(world.stats(0).last_headers["authorization"], used, "{status:?}");
        }
    }
}

#[test]
fn the_admin_api_and_the_metrics_show_what_is_left() {
    let binary = Binary::start(
        "providers: { p: { kind: mock, base_url: 'MOCK', health: off, keys: [ { name: k, key: the-key } ] } }\n\
         models: { m: { deployments: [ { name: a, provider: p } ] } }\n",
    );
    binary.mock.control().script([Scripted { headers: spent(), ..Scripted::default() }]);
    assert_eq!(binary.ask().status, 200);
    let credential = || {
        binary.admin("GET", "/admin/v1/credentials", "", "").json()["providers"][0]["credentials"][0].clone()
    };
    let shown = credential();
    assert_eq!(
        (&shown["state"], &shown["said"]["requests"]["remaining"]),
        (&json!("cooling"), &json!(0)),
        "{shown}"
    );
    assert!(
        shown["said"]["requests"]["resets_in_ms"].as_u64().is_some_and(|ms| (1..=60_000).contains(&ms)),
        "{shown}"
    );
    let metrics = binary.admin("GET", "/metrics", "", "").body;
    let line = "pointsman_credential_remaining{provider=\"p\",credential=\"k\",limit=\"requests\"} 0";
    assert!(metrics.contains(line), "{metrics}");
    let refused = binary.ask();
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(
        refused.header("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok_and(|wait| wait <= 60)),
        "{refused:?}"
    );
}

#[test]
fn the_admin_api_shows_the_snapshot_beside_its_alias() {
    let binary = Binary::start(
        "providers: { p: { kind: mock, base_url: 'MOCK', health: off, keys: [ { name: k, key: the-key } ] } }\n\
         models: { m: { deployments: [ { name: a, provider: p, model: up } ] } }\n",
    );
    let shown = || binary.admin("GET", "/admin/v1/deployments", "", "").json()["deployments"][0].clone();
    let before = shown();
    assert_eq!((&before["model_upstream"], &before["model_said"]), (&json!("up"), &Value::Null), "{before}");
    binary
        .mock
        .control()
        .script([Scripted { pieces: Some(vec![dated().to_string()]), ..Scripted::default() }]);
    assert_eq!(binary.ask().status, 200);
    assert_eq!(shown()["model_said"], "up-2025-01-01");
    let one = binary.admin("GET", "/admin/v1/models/m/deployments/a", "", "").json();
    assert_eq!(one["live"]["model_said"], "up-2025-01-01", "{one}");
}

/// An answer of a dated snapshot.
fn dated() -> Value {
    json!({
        "id": "x", "object": "chat.completion", "created": 1, "model": "up-2025-01-01",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1},
    })
}

#[test]
fn the_snapshot_that_answered_stands_beside_its_alias() {
    let chunk = |delta: Value, finish: Value| {
        format!(
            "data: {}\n\n",
            json!({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up-2025-01-01", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        )
    };
    let streamed = || {
        vec![
            chunk(json!({"role": "assistant", "content": "hi"}), Value::Null),
            chunk(json!({}), json!("stop")),
            "data: [DONE]\n\n".to_owned(),
        ]
    };
    let anthropic = |stream: bool| json!({"model": "m", "max_tokens": 9, "stream": stream, "messages": [{"role": "user", "content": "hi"}]});
    let world = World::new(1, "");
    for (path, body) in [
        ("/v1/chat/completions", hello()),
        ("/v1/chat/completions", stream()),
        ("/v1/messages", anthropic(false)),
        ("/v1/messages", anthropic(true)),
    ] {
        let pieces = if body["stream"] == true { streamed() } else { vec![dated().to_string()] };
        let headers = if body["stream"] == true {
            headers(&[("content-type", "text/event-stream")])
        } else {
            BTreeMap::new()
        };
        world.script(0, [Scripted { pieces: Some(pieces), headers, ..Scripted::default() }]);
        let answer = world.post(path, "", body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        let record = world.record(&answer);
        assert_eq!(record["attempts"][0]["said"]["model"], "up-2025-01-01", "{path} {body}: {record}");
    }
}
