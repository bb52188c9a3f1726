//! What clients are told: who and why on every answer, and nothing that is the operator's own.

mod support;

use pointsman::mock::Scripted;
use serde_json::json;
use support::{Answer, World, config, hello, request, stream};

fn scripted(status: u16, body: &str) -> Scripted {
    Scripted { status: Some(status), pieces: Some(vec![body.to_owned()]), ..Default::default() }
}

#[test]
fn every_answer_says_who_and_why_and_can_be_looked_up() {
    let world = World::new(1, "auth: { keys: [ { name: k, key: 'a-good-key' } ] }");
    let key = "authorization: Bearer a-good-key\r\n";
    let chat = |headers: &str, body: &serde_json::Value| {
        request("/v1/chat/completions", &format!("{key}{headers}"), body.to_string().as_bytes())
    };
    let unknown = json!({"model": "nope", "messages": [{"role": "user", "content": "x"}]});
    let plain = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\n{}";
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: g\r\n{key}\r\n").into_bytes();
    for (what, bytes, status, decision, served_by) in [
        ("an answer", chat("", &hello()), 200, "adaptive:only_one;candidates=1", "d0"),
        ("a stream", chat("", &stream()), 200, "adaptive:only_one;candidates=1", "d0"),
        ("no messages", chat("", &json!({"model": "m"})), 400, "refused:", "router"),
        ("an unknown model", chat("", &unknown), 404, "refused:model_not_found", "router"),
        ("no key", request("/v1/chat/completions", "", b"{}"), 401, "refused:", "router"),
        ("another path", get("/v1/nothing"), 404, "refused:", "router"),
        ("another method", get("/v1/embeddings"), 405, "refused:", "router"),
        ("another type", plain.to_vec(), 415, "refused:", "router"),
        (
            "a hint that is none",
            chat("x-pointsman-deadline-ms: soon\r\n", &hello()),
            400,
            "refused:",
            "router",
        ),
        (
            "no such tags",
            chat("x-pointsman-tags: none\r\n", &hello()),
            400,
            "adaptive:no_such_tags",
            "router",
        ),
    ] {
        let answer = world.send(&bytes);
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert_eq!(answer.header("x-pointsman-served-by"), Some(served_by), "{what}: {answer:?}");
        let why = answer.header("x-pointsman-decision").expect(what);
        assert!(why.starts_with(decision), "{what}: {why}");
        let attempts = if status == 200 { "1" } else { "0" };
        assert_eq!(answer.header("x-pointsman-attempts"), Some(attempts), "{what}");
        assert!(
            answer.header("x-pointsman-overhead-us").is_some_and(|us| us.parse::<u64>().is_ok()),
            "{what}"
        );
        assert_eq!(world.record(&answer)["status"], status, "{what}");
    }
    for path in ["/v1/models", "/v1/models/m"] {
        let answer = world.send(&get(path));
        assert_eq!(
            (answer.status, answer.header("x-pointsman-served-by")),
            (200, Some("router")),
            "{answer:?}"
        );
        assert!(
            answer.header("x-pointsman-decision").is_some()
                && answer.header("x-pointsman-attempts") == Some("0")
        );
    }
    let bad = world.send(&chat("x-pointsman-deadline-ms: soon\r\n", &hello()));
    let record = world.record(&bad);
    assert_eq!((&record["model"], &record["key"]), (&json!("m"), &json!("k")), "{record}");
}

#[test]
fn m1_what_a_provider_says_of_the_operators_account_stays_inside() {
    let secret = r#"{"error":{"message":"Incorrect API key provided: sk-operator for org-acme","type":"x","code":"y"}}"#;
    for status in [401, 403, 404, 429] {
        let world = World::new(1, "");
        world.script(0, [scripted(status, secret)]);
        let answer = world.chat(&hello());
        assert!(answer.status >= 429, "{answer:?}");
        assert!(
            !answer.body.contains("sk-operator") && !answer.body.contains("org-acme"),
            "{status}: {answer:?}"
        );
        assert_eq!(answer.error("who"), "provider:m0");
    }
    let world = World::new(1, "");
    let said =
        r#"{"error":{"message":"`top_k` must be positive","type":"invalid_request_error","code":"bad"}}"#;
    world.script(0, [scripted(400, said)]);
    let answer = world.chat(&hello());
    assert_eq!(
        (answer.status, answer.error("message")),
        (400, json!("`top_k` must be positive")),
        "about the request"
    );
}

#[test]
fn an_error_is_told_of_the_provider_that_made_it() {
    let world = World::new(2, "");
    world.script(0, [scripted(429, r#"{"error":{"message":"first provider's words"}}"#)]);
    world.script(1, [Scripted { close: true, ..Default::default() }]);
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.error("who")), (502, json!("provider:m1")), "{answer:?}");
    assert!(!answer.body.contains("first provider"), "{answer:?}");
}

#[test]
fn f1_what_one_operation_lacks_does_not_take_the_deployment_from_the_others() {
    let world = World::new(2, "");
    for mock in 0..2 {
        world.script(mock, [scripted(404, "not found")]);
    }
    let respond = json!({"model": "m", "input": "x"}).to_string();
    let answers: Vec<Answer> = (0..8).map(|_| world.post("/v1/responses", "", respond.as_bytes())).collect();
    assert_eq!(answers[0].status, 502, "{:?}", answers[0]);
    assert!(answers[1..].iter().all(|answer| answer.status == 503), "believed for a while");
    assert_eq!(world.reached(), 2, "each is asked once");
    assert_eq!(world.chat(&hello()).status, 200);
}

#[test]
fn l3_a_request_that_waited_over_a_reload_is_sent_with_the_new_secret() {
    let text = |world: &World, key: &str| {
        format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n  p: {{ kind: mock, base_url: 'http://{}', health: off, slots: 1, keys: ['{key}'] }}\nmodels:\n  m: {{ deployments: [ {{ name: d, provider: p, model: up }} ] }}\n",
            world.mocks[0].address()
        )
    };
    let world = World::new(1, "");
    let _ = world.app().install(config(&text(&world, "the-old-secret")));
    world.script(0, [Scripted { delay_ms: 300, ..Default::default() }]);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.chat(&hello()));
        world.until("the first is sent", || world.reached() == 1);
        let second = scope.spawn(|| world.chat(&hello()));
        world.until("the second waits", || {
            world.app().live.lock().fleet.view(pointsman::clock::now()).models[0].queue_depth == 1
        });
        let _ = world.app().install(config(&text(&world, "the-new-secret")));
        assert_eq!(first.join().expect("no panic").status, 200);
        assert_eq!(second.join().expect("no panic").status, 200);
    });
    assert_eq!(
        world.stats(0).last_headers.get("authorization").map(String::as_str),
        Some("Bearer the-new-secret")
    );
}

#[test]
fn e12_a_limit_holds_for_all_that_share_the_quota() {
    let limited = || Scripted {
        status: Some(429),
        retry_after: Some("30".to_owned()),
        pieces: Some(vec!["{}".to_owned()]),
        ..Default::default()
    };
    let shared = ", keys: ['a-key-of-the-organisation'], quota_domain: org";
    let world = World::with(2, shared, "", "");
    world.script(0, [limited()]);
    let answer = world.chat(&hello());
    assert_eq!((answer.status, world.stats(1).requests), (429, 0), "it is the quota of both: {answer:?}");
    let answer = world.chat(&hello());
    assert_eq!((answer.status, world.reached()), (503, 1), "nobody is asked before: {answer:?}");
    assert!(answer.header("retry-after").is_some_and(|after| matches!(after, "29" | "30")), "{answer:?}");
    let view = world.app().live.lock().fleet.view(pointsman::clock::now());
    let states: Vec<_> = view.models[0].deployments.iter().map(|one| one.state).collect();
    assert_eq!(states, ["cooling", "cooling"], "f2: what cannot be sent anything is not shown as healthy");

    let world = World::with(2, ", keys: ['a-key-of-its-own']", "", "");
    world.script(0, [limited()]);
    let answer = world.chat(&hello());
    assert_eq!((answer.status, world.stats(1).requests), (200, 1), "each has its own: {answer:?}");
}
