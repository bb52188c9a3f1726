//! Answers of providers of chat completions, turned into the dialects of other clients: those that break off, those that are
//! none, and what vendors are asked with.

mod support;

use std::fmt::Write as _;

use serde_json::{Value, json};
use support::fake::{Fake, Reply};
use support::{Answer, World};

const CONTENT: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";
const FINISH: &str =
    "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// A world in which `m` is served by these fakes, each of its kind, one after the other.
fn world(fakes: &[(&str, &Fake)]) -> World {
    let (mut providers, mut deployments) = (String::new(), String::new());
    for (at, (kind, fake)) in fakes.iter().enumerate() {
        let place = format!("kind: {kind}, base_url: '{}', health: off, free: true", fake.url());
        let _ = writeln!(providers, "  p{at}: {{ {place}, keys: [key-of-provider] }}");
        let _ = writeln!(deployments, "      - {{ name: d{at}, provider: p{at}, model: up, tier: {at} }}");
    }
    World::of(&format!("providers:\n{providers}models:\n  m:\n    deployments:\n{deployments}"))
}

fn streaming(pieces: &'static [&'static str]) -> Fake {
    Fake::new(move |_, _| {
        Reply::stream("text/event-stream", pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect())
    })
}

/// A client of another dialect: its path, its body, what ends its streams and what is an error in them.
struct Client {
    path: &'static str,
    body: Value,
    end: &'static str,
    error: &'static str,
}

fn clients() -> [Client; 4] {
    let turn = json!([{"role": "user", "content": "hello"}]);
    [
        Client {
            path: "/v1/messages",
            body: json!({"model": "m", "max_tokens": 9, "stream": true, "messages": turn}),
            end: "message_stop",
            error: "event: error",
        },
        Client {
            path: "/v1beta/models/m:streamGenerateContent?alt=sse",
            body: json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}),
            end: "finishReason",
            error: "\"error\":{",
        },
        Client {
            path: "/api/chat",
            body: json!({"model": "m", "messages": turn}),
            end: "\"done\":true",
            error: "\"error\":",
        },
        Client {
            path: "/v1/responses",
            body: json!({"model": "m", "stream": true, "input": "hello"}),
            end: "response.completed",
            error: "event: error",
        },
    ]
}

fn ask(world: &World, client: &Client) -> Answer {
    world.post(client.path, "", client.body.to_string().as_bytes())
}

#[test]
fn d3_a_converted_stream_that_breaks_off_is_not_ended() {
    for pieces in [&[CONTENT][..], &[CONTENT, CONTENT, DONE], &[CONTENT, "data: {\"id\":\"x\",\"choi"]] {
        let fake = streaming(pieces);
        for client in clients() {
            let world = world(&[("openai_compatible", &fake)]);
            let answer = ask(&world, &client);
            assert!(answer.status == 200 && answer.body.contains("hi"), "{}: {answer:?}", client.path);
            assert!(!answer.body.contains(client.end), "{}: {}", client.path, answer.body);
            assert!(answer.body.contains(client.error), "{}: {}", client.path, answer.body);
            let record = world.record(&answer);
            assert_eq!(
                (&record["outcome"], &record["detail"], &record["usage"]["truncated"]),
                (&json!("truncated"), &json!("protocol"), &json!(true)),
                "{record}"
            );
        }
    }
}

#[test]
fn d5_a_converted_stream_without_done_is_ended() {
    for pieces in [&[CONTENT, FINISH][..], &[CONTENT, FINISH, DONE]] {
        let fake = streaming(pieces);
        for client in clients() {
            let world = world(&[("openai_compatible", &fake)]);
            let answer = ask(&world, &client);
            assert!(answer.body.contains(client.end), "{}: {}", client.path, answer.body);
            assert!(!answer.body.contains(client.error), "{}: {}", client.path, answer.body);
            assert_eq!(world.record(&answer)["outcome"], "completed");
        }
    }
}

fn saying(text: &str) -> Value {
    json!({"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})
}

#[test]
fn d2_a_good_status_without_an_answer_is_somebody_elses_turn() {
    let nothings = [
        json!({}),
        json!({"choices": []}),
        json!({"error": {"message": "late"}}),
        json!({"error": {"message": "late", "code": 429}}),
    ];
    for nothing in nothings {
        let body = nothing.to_string();
        let (first, second) = (
            Fake::new(move |_, _| Reply::json(200, body.clone())),
            Fake::new(|_, _| Reply::json(200, saying("from the second"))),
        );
        for mut client in clients() {
            // Gemini says it by the path.
            client.path = client.path.split('?').next().expect("a path");
            for stream in [true, false] {
                if client.path.contains("Generate") {
                    client.path = if stream {
                        "/v1beta/models/m:streamGenerateContent"
                    } else {
                        "/v1beta/models/m:generateContent"
                    };
                } else {
                    client.body["stream"] = json!(stream);
                }
                let both = world(&[("openai_compatible", &first), ("openai_compatible", &second)]);
                let answer = ask(&both, &client);
                assert!(
                    answer.status == 200 && answer.body.contains("from the second"),
                    "{nothing}: {}: {answer:?}",
                    client.path
                );
                let alone = world(&[("openai_compatible", &first)]);
                let answer = ask(&alone, &client);
                assert!(answer.status >= 400, "{nothing}: {}: {answer:?}", client.path);
                assert!(
                    !answer.body.contains("end_turn") && !answer.body.contains("finishReason"),
                    "{answer:?}"
                );
            }
        }
    }
}

#[test]
fn d2_an_empty_stream_is_somebody_elses_turn() {
    let (first, second) = (streaming(&[DONE]), streaming(&[CONTENT, FINISH, DONE]));
    for client in clients() {
        let world = world(&[("openai_compatible", &first), ("openai_compatible", &second)]);
        let answer = ask(&world, &client);
        assert_eq!(answer.header("x-pointsman-served-by"), Some("d1"), "{}: {answer:?}", client.path);
    }
}

#[test]
fn d3_an_answer_that_does_not_say_why_it_ended_is_marked() {
    let mut body = saying("hi");
    body["choices"][0]["finish_reason"] = Value::Null;
    let fake = Fake::new(move |_, _| Reply::json(200, body.clone()));
    let world = world(&[("openai_compatible", &fake)]);
    let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]});
    let answer = world.post("/v1/messages", "", body.to_string().as_bytes());
    let lost = world.record(&answer)["conversion"].to_string();
    assert!(answer.status == 200 && lost.contains("choices[0].finish_reason"), "{lost}: {answer:?}");
}

#[test]
fn vendors_are_asked_by_their_habits() {
    let fake = Fake::new(|_, _| Reply::json(200, saying("hi")));
    let body = json!({"model": "m", "max_tokens": 9, "metadata": {"user_id": "u"}, "messages": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]},
    ], "tools": [{"name": "f", "input_schema": {"type": "object"}}]});
    let sent = |kind: &str| {
        let world = world(&[(kind, &fake)]);
        let answer = world.post("/v1/messages", "", body.to_string().as_bytes());
        assert_eq!(answer.status, 200, "{kind}: {answer:?}");
        (fake.last().json(), world.record(&answer)["conversion"].to_string())
    };
    let (mistral, lost) = sent("mistral");
    assert_eq!(
        (&mistral["max_tokens"], mistral.get("max_completion_tokens")),
        (&json!(9), None),
        "{mistral}"
    );
    assert!(mistral.get("user").is_none() && lost.contains("user"), "{mistral} {lost}");
    let (deepseek, _) = sent("deepseek");
    assert_eq!(deepseek["messages"][1]["reasoning_content"], "hm", "{deepseek}");
    let (openai, _) = sent("openai");
    assert_eq!((&openai["max_completion_tokens"], &openai["user"]), (&json!(9), &json!("u")), "{openai}");
}

#[test]
fn responses_go_as_they_came_only_to_who_has_them() {
    let fake = Fake::new(|_, _| Reply::json(200, saying("hi")));
    let path = |kind: &str| {
        let world = world(&[(kind, &fake)]);
        let body = json!({"model": "m", "input": "hello"});
        assert_eq!(world.post("/v1/responses", "", body.to_string().as_bytes()).status, 200, "{kind}");
        fake.last().path
    };
    for kind in ["openai_compatible", "moonshot", "cerebras", "deepinfra"] {
        assert!(path(kind).ends_with("/chat/completions"), "{kind}");
    }
    for kind in ["openai", "vllm", "lm_studio", "openrouter"] {
        assert!(path(kind).ends_with("/responses"), "{kind}");
    }
}

#[test]
fn what_is_not_carried_is_refused_in_the_clients_own_words() {
    let fake = Fake::new(|_, _| Reply::json(200, json!({"error": "nobody asks"})));
    let providers = ["openai_compatible", "anthropic", "ollama_native"].map(|kind| {
        let place = format!("kind: {kind}, base_url: '{}', health: off", fake.url());
        let (provider, model) =
            (format!("  {kind}: {{ {place} }}\n"), "conversion: { losses: refuse }, deployments");
        (provider, format!("  to_{kind}: {{ {model}: [{{ name: d, provider: {kind}, model: up }}] }}\n"))
    });
    let (providers, models): (Vec<String>, Vec<String>) = providers.into_iter().unzip();
    let world = World::of(&format!("providers:\n{}models:\n{}", providers.concat(), models.concat()));
    let hello = || json!({"role": "user", "content": "hello"});
    let contents = || json!([{"role": "user", "parts": [{"text": "hello"}]}]);
    let instructed = |more: Value| json!([{"role": "system", "content": "be brief"}, more]);
    let marked = json!([{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]);
    for (path, mut body, model, field) in [
        ("/v1/chat/completions", json!({"messages": [hello()], "n": 2}), "to_anthropic", "n"),
        (
            "/v1/chat/completions",
            json!({"messages": instructed(json!({"role": "user", "content": "hello", "name": "Ann"}))}),
            "to_ollama_native",
            "messages[1].name",
        ),
        (
            "/v1/messages",
            json!({"max_tokens": 9, "messages": [{"role": "user", "content": marked}]}),
            "to_openai_compatible",
            "messages[0].content.cache_control",
        ),
        (
            "/v1/messages",
            json!({"max_tokens": 9, "messages": [hello()], "metadata": {"user_id": "u"}}),
            "to_ollama_native",
            "metadata.user_id",
        ),
        (
            "/v1beta/models/to_anthropic:generateContent",
            json!({"contents": contents(), "generationConfig": {"seed": 7}}),
            "to_anthropic",
            "generationConfig.seed",
        ),
        ("/api/chat", json!({"messages": [hello()], "options": {"seed": 7}}), "to_anthropic", "options.seed"),
        (
            "/v1/responses",
            json!({"input": instructed(hello()), "service_tier": "flex"}),
            "to_ollama_native",
            "service_tier",
        ),
    ] {
        if !path.contains(model) {
            body["model"] = json!(model);
        }
        let answer = world.post(path, "", body.to_string().as_bytes());
        assert!(
            answer.status == 400 && answer.body.contains(&format!("`{field}`")),
            "{path} {field}: {answer:?}"
        );
    }
    assert_eq!(fake.seen().len(), 0, "nothing was sent");
}
