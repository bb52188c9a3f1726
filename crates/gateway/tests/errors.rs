//! What clients are told of errors: in their dialect, with the status that their libraries know, and with the words, the code
//! and the id of the provider that failed.

mod support;

use std::collections::BTreeMap;

use pointsman::mock::Scripted;
use serde_json::{Value, json};
use support::{Answer, World, hello, request};

const OPENAI: &str = "openai_compatible";

fn failing(status: u16, body: &Value, headers: &[(&str, &str)]) -> Scripted {
    let headers: BTreeMap<String, String> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Scripted { status: Some(status), pieces: Some(vec![body.to_string()]), headers, ..Default::default() }
}

/// What a client of a dialect is told when a provider of a kind fails so, and the record of it.
fn told(client: &str, kind: &str, failure: Scripted) -> (Answer, Value) {
    let world = World::speaking(&[kind]);
    // What may pass is asked for again.
    world.script(0, [failure.clone(), failure.clone(), failure]);
    let turn = json!([{"role": "user", "content": "hi"}]);
    let (path, body) = match client {
        "openai" => ("/v1/chat/completions".to_owned(), json!({"model": kind, "messages": turn})),
        "anthropic" => ("/v1/messages".to_owned(), json!({"model": kind, "max_tokens": 9, "messages": turn})),
        "ollama" => ("/api/chat".to_owned(), json!({"model": kind, "messages": turn, "stream": false})),
        _ => (
            format!("/v1beta/models/{kind}:generateContent"),
            json!({"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}),
        ),
    };
    let answer = world.post(&path, "", body.to_string().as_bytes());
    let record = world.record(&answer);
    assert_eq!(record["status"], answer.status, "{record}");
    (answer, record)
}

fn openai(message: &str, kind: &str, code: &Value) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

fn anthropic(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_an"})
}

#[test]
fn an_error_has_the_providers_words_code_and_id_in_the_callers_dialect() {
    let of_openai = |status: u16, code: Value| {
        failing(
            status,
            &openai("no such thing", "invalid_request_error", &code),
            &[("x-request-id", "req_oa")],
        )
    };
    for status in [400, 500] {
        for code in [json!("invalid_value"), Value::Null] {
            let (answer, _) = told("openai", OPENAI, of_openai(status, code.clone()));
            assert_eq!((answer.status, answer.error("message")), (status, json!("no such thing")));
            let expected =
                if status == 500 && code.is_null() { json!("invalid_request_error") } else { code.clone() };
            assert_eq!((answer.error("code"), answer.error("param")), (expected, Value::Null), "{answer:?}");
            assert_eq!(answer.error("provider_request_id"), "req_oa");
            assert_eq!(answer.header("x-request-id"), Some("req_oa"));

            let (answer, _) = told("anthropic", OPENAI, of_openai(status, code.clone()));
            assert_eq!(
                (answer.status, answer.error("message")),
                (status, json!("no such thing")),
                "{answer:?}"
            );
            assert_ne!(answer.error("code"), "client");
            assert_eq!(answer.error("provider_request_id"), "req_oa");
            assert_eq!((answer.header("request-id"), answer.header("x-request-id")), (Some("req_oa"), None));

            let (answer, _) = told("gemini", OPENAI, of_openai(status, code.clone()));
            let metadata = &answer.json()["error"]["details"][0]["metadata"];
            assert_eq!(metadata["provider_request_id"], "req_oa", "{answer:?}");

            let (answer, _) = told("ollama", OPENAI, of_openai(status, code));
            assert_eq!(answer.json()["provider_request_id"], "req_oa", "{answer:?}");
        }
    }
    let of_anthropic = |headers: &[(&str, &str)]| {
        failing(400, &anthropic("invalid_request_error", "max_tokens: too many"), headers)
    };
    let id = [("request-id", "req_an"), ("anthropic-organization-id", "0b1c")];
    let (answer, _) = told("openai", "anthropic", of_anthropic(&id));
    assert_eq!((answer.error("code"), answer.error("type")), (Value::Null, json!("invalid_request_error")));
    assert_eq!(answer.error("provider_request_id"), "req_an");
    assert_eq!(
        (answer.header("x-request-id"), answer.header("anthropic-organization-id")),
        (Some("req_an"), None)
    );
    let (answer, _) = told("openai", "anthropic", of_anthropic(&[]));
    assert_eq!(answer.header("x-request-id"), Some("req_an"), "its body has it as well");
    let (answer, _) = told("anthropic", "anthropic", of_anthropic(&id));
    assert_eq!(answer.json(), anthropic("invalid_request_error", "max_tokens: too many"), "as it came");
    assert_eq!(answer.header("request-id"), Some("req_an"));
    let refused = |body: &Value| told("openai", OPENAI, failing(400, body, &[])).0;
    let mut body = openai("no", "t", &Value::Null);
    body["user_id"] = json!("user_of_the_operator");
    assert!(!refused(&body).body.contains("user_of_the_operator"));
}

#[test]
fn an_answer_that_was_turned_has_the_providers_id_where_its_client_looks() {
    let world = World::speaking(&["anthropic"]);
    let headers = [("request-id".to_owned(), "req_an".to_owned())].into_iter().collect();
    world.script(0, [Scripted { headers, ..Scripted::default() }]);
    let body = json!({"model": "anthropic", "messages": [{"role": "user", "content": "hi"}]});
    let answer = world.post("/v1/chat/completions", "", body.to_string().as_bytes());
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("req_an")), "{answer:?}");
}

#[test]
fn a_quota_that_is_used_up_is_told_in_the_providers_words_without_its_account() {
    let spent = "You exceeded your current quota, please check your plan and billing details.";
    let failure = || failing(429, &openai(spent, "insufficient_quota", &json!("insufficient_quota")), &[]);
    let (answer, _) = told("openai", OPENAI, failure());
    assert_eq!((answer.status, answer.error("code")), (429, json!("insufficient_quota")), "{answer:?}");
    assert!(answer.error("type") == "insufficient_quota" && answer.body.contains(spent), "{answer:?}");
    let (answer, _) = told("anthropic", OPENAI, failure());
    assert_eq!(answer.error("type"), "rate_limit_error", "{answer:?}");
    assert!(answer.error("code") == "insufficient_quota" && answer.body.contains(spent), "{answer:?}");
    let words = "Rate limit reached for gpt-4o in organization org-acme on tokens per min (TPM). Please try again in 2s.";
    let failure = || {
        failing(429, &openai(words, "tokens", &json!("rate_limit_exceeded")), &[("x-request-id", "req_oa")])
    };
    let (answer, _) = told("openai", OPENAI, failure());
    assert_eq!((answer.error("type"), answer.error("code")), (json!("tokens"), json!("rate_limit_exceeded")));
    assert!(answer.body.contains("try again in 2s") && !answer.body.contains("acme"), "{answer:?}");
    assert_eq!(answer.header("x-request-id"), Some("req_oa"));
    let (answer, _) = told("openai", "anthropic", failing(429, &anthropic("rate_limit_error", "slow"), &[]));
    assert_eq!(
        (answer.error("type"), answer.error("code")),
        (json!("requests"), json!("rate_limit_exceeded"))
    );
}

#[test]
fn clients_of_anthropic_are_told_of_overload_with_529() {
    let failure = || failing(503, &openai("busy", "server_error", &Value::Null), &[]);
    let (answer, _) = told("anthropic", OPENAI, failure());
    assert_eq!((answer.status, answer.error("type")), (529, json!("overloaded_error")), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let overloaded = failing(529, &anthropic("overloaded_error", "Overloaded"), &[]);
    assert_eq!(told("anthropic", "anthropic", overloaded).0.status, 529);
    for client in ["openai", "gemini", "ollama"] {
        assert_eq!(told(client, OPENAI, failure()).0.status, 503, "{client}");
    }
    // Nothing is left to ask: that is another condition, and no overload of ours.
    let world = World::speaking(&["anthropic"]);
    world.script(0, [failing(401, &json!({}), &[])]);
    let body =
        json!({"model": "anthropic", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let ask = || world.post("/v1/messages", "", body.to_string().as_bytes()).status;
    assert_eq!((ask(), ask()), (502, 503));
}

#[test]
fn e3_what_a_provider_says_to_wait_is_heard_in_every_spelling() {
    let info = json!({"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED", "details": [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}]}});
    let waits = |kind: &str, body: &Value, headers: &[(&str, &str)]| {
        let (answer, record) = told("openai", kind, failing(429, body, headers));
        assert_eq!(answer.status, 429, "{answer:?}");
        (answer.header("retry-after").map(str::to_owned), record)
    };
    assert_eq!(waits("gemini", &info, &[]).0.as_deref(), Some("17"));
    assert_eq!(waits("gemini", &info, &[("retry-after", "5")]).0.as_deref(), Some("5"));
    let slow = openai("slow", "requests", &Value::Null);
    assert_eq!(waits(OPENAI, &slow, &[("retry-after-ms", "2500")]).0.as_deref(), Some("3"));
    assert_eq!(
        waits(OPENAI, &slow, &[("x-ms-retry-after-ms", "9000"), ("retry-after", "2")]).0.as_deref(),
        Some("9")
    );
}

#[test]
fn what_a_provider_says_of_itself_is_no_fault_of_the_clients() {
    for (said, expected) in [(424, 502), (408, 504), (425, 502), (409, 409), (500, 500), (502, 502)] {
        let failure = failing(said, &json!({"error": "Request failed during generation"}), &[]);
        let (answer, _) = told("openai", OPENAI, failure);
        assert_eq!(answer.status, expected, "{said}: {answer:?}");
        assert_eq!(answer.error("message"), "Request failed during generation");
        assert_eq!(answer.error("type"), "server_error");
    }
}

#[test]
fn findings_of_a_validation_reach_the_client() {
    let found =
        json!([{"type": "missing", "loc": ["body", "messages", 0, "content"], "msg": "Field required"}]);
    for body in
        [json!({"detail": found}), json!({"object": "error", "message": {"detail": found}, "type": "x"})]
    {
        for client in ["openai", "anthropic"] {
            let (answer, _) = told(client, OPENAI, failing(422, &body, &[]));
            let expected = json!("body.messages.0.content: Field required");
            assert_eq!((answer.status, answer.error("message")), (422, expected), "{client} {body}");
        }
    }
}

#[test]
fn what_is_wrong_with_a_head_is_told_in_the_dialect_of_its_path() {
    let world = World::speaking(&[OPENAI]);
    let get = |path: &str| world.send(format!("GET {path} HTTP/1.1\r\nhost: g\r\n\r\n").as_bytes());
    let with = |path: &str, line: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: g\r\n{line}\r\ncontent-length: 2\r\n\r\n{{}}");
        world.send(head.as_bytes())
    };
    let of_anthropic = |answer: &Answer, status: u16, kind: &str| {
        assert_eq!((answer.status, answer.error("type")), (status, json!(kind)), "{answer:?}");
        assert_eq!(answer.json()["type"], "error", "{answer:?}");
        assert_eq!(world.record(answer)["dialect"], "anthropic");
    };
    of_anthropic(&get("/v1/messages"), 405, "invalid_request_error");
    of_anthropic(&with("/v1/messages", "content-type: text/plain"), 415, "invalid_request_error");
    of_anthropic(&with("/v1/messages", "content-encoding: gzip"), 415, "invalid_request_error");
    of_anthropic(&get("/v1/messages/batches"), 404, "not_found_error");
    of_anthropic(&with("/v1/messages", "transfer-encoding: chunked"), 400, "invalid_request_error");
    for path in ["/v1beta/models/m:generateContent", "/v1/models/m:generateContent"] {
        let answer = get(path);
        assert_eq!((answer.status, answer.error("code")), (405, json!(405)), "{answer:?}");
        assert_eq!(answer.error("status"), "UNIMPLEMENTED");
    }
    assert_eq!(get("/v1beta/nothing").error("status"), "NOT_FOUND");
    for (path, status) in [("/api/chat", 405), ("/api/nothing", 404)] {
        let answer = get(path);
        assert!(answer.status == status && answer.json()["error"].is_string(), "{answer:?}");
    }
    let answer = get("/v2/models/m/nothing");
    assert!(answer.status == 404 && answer.json()["error"].is_string(), "{answer:?}");
    for path in ["/v1/chat/completions", "/v1/responses", "/v1/nothing", "/v1/rerank"] {
        let answer = get(path);
        assert!(answer.error("message").is_string() && answer.json()["type"].is_null(), "{answer:?}");
    }
    let plain = request("/v1/chat/completions", "", hello().to_string().as_bytes());
    assert_eq!(world.send(&plain).status, 404, "its model is another");
}
