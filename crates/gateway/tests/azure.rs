//! Azure OpenAI behind the gateway: what OpenAI's clients send passes as it is, below the deployment, in a version of the API.

mod support;

use serde_json::{Value, json};
use support::World;
use support::fake::{Fake, Reply};

fn world(fake: &Fake, more: &str) -> World {
    World::of(&format!(
        "providers:\n  az: {{ kind: azure, base_url: '{}', keys: [ azure-key-1 ]{more} }}\n\
         models:\n  m: {{ deployments: [ {{ name: d, provider: az, model: my-gpt }} ] }}\n",
        fake.url()
    ))
}

#[test]
fn requests_pass_as_they_are_below_the_deployment() {
    let fake = Fake::new(|seen, _| {
        Reply::json(
            200,
            json!({"id": "x", "object": seen.path, "usage": {"prompt_tokens": 7, "completion_tokens": 1}}),
        )
    });
    for (more, version) in [("", "2024-10-21"), (", api_version: 2025-04-01-preview", "2025-04-01-preview")] {
        let world = world(&fake, more);
        for (call, rest) in [
            ("chat/completions", r#""messages":[{"role":"user","content":"hi"}],"newField":{"a":[1e3]}"#),
            ("completions", r#""prompt":"hi" , "echo":false"#),
            ("embeddings", r#""input":["hi"],"encoding_format":"float""#),
        ] {
            let body = |model: &str| format!("{{ \"model\" : \"{model}\",{rest}}}");
            let answer = world.post(&format!("/v1/{call}"), "", body("m").as_bytes());
            let path = format!("/openai/deployments/my-gpt/{call}?api-version={version}");
            assert_eq!((answer.status, &answer.json()["object"]), (200, &json!(path)), "{answer:?}");
            let seen = fake.last();
            assert_eq!(seen.body, body("my-gpt"), "byte for byte but for the model");
            assert_eq!((seen.header("api-key"), seen.header("authorization")), (Some("azure-key-1"), None));
            assert_eq!(world.record(&answer)["usage"]["tokens_in"], 7);
        }
    }
}

#[test]
fn a_client_of_another_dialect_is_served_in_the_same_version() {
    let fake = Fake::new(|_, _| {
        let message = json!({"role": "assistant", "content": "Hello"});
        Reply::json(
            200,
            json!({"id": "x", "object": "chat.completion", "model": "gpt", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}),
        )
    });
    let world = world(&fake, ", api_version: 2025-04-01-preview");
    let body = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let answer = world.post("/v1/messages", "", body.to_string().as_bytes());
    assert_eq!((answer.status, &answer.json()["content"][0]["text"]), (200, &json!("Hello")), "{answer:?}");
    assert!(fake.last().path.ends_with("/my-gpt/chat/completions?api-version=2025-04-01-preview"));
}

#[test]
fn a_filtered_prompt_is_the_clients_and_says_why() {
    let error = json!({"error": {"message": "The response was filtered", "type": null, "param": "prompt", "code": "content_filter", "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"violence": {"filtered": true, "severity": "high"}}}}});
    let body = error.to_string();
    let fake = Fake::new(move |_, _| Reply::json(400, &body));
    let world = world(&fake, "");
    let answer = world.chat(&support::hello());
    assert_eq!((answer.status, answer.error("code")), (400, json!("content_filter")), "{answer:?}");
    assert_eq!(answer.error("innererror"), error["error"]["innererror"]);
    let record = world.record(&answer);
    assert_eq!((&record["outcome"], &record["detail"]), (&json!("failed"), &json!("content_policy")));
    let messages = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]});
    let answer = world.post("/v1/messages", "", messages.to_string().as_bytes());
    assert_eq!((answer.status, &answer.json()["type"]), (400, &json!("error")), "{answer:?}");
    assert!(
        answer.error("message").as_str().is_some_and(|text| text.contains("(filtered: violence)")),
        "{answer:?}"
    );
}

/// A stream as Azure sends it: the prompt's filter first, usage last.
fn chunks(with_usage: bool) -> String {
    let chunk = |value: Value| format!("data: {value}\n\n");
    let delta = |delta: Value, finish: Option<&str>| {
        chunk(json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "content_filter_results": {}}]}))
    };
    let mut body = chunk(json!({"choices": [], "created": 0, "id": "", "model": "", "object": "",
        "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {"hate": {"filtered": false}}}]}));
    body += &delta(json!({"role": "assistant", "content": "Hello"}), None);
    body += &delta(json!({}), Some("stop"));
    if with_usage {
        body += &chunk(
            json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt", "choices": [],
            "usage": {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}}),
        );
    }
    body + "data: [DONE]\n\n"
}

#[test]
fn usage_is_asked_for_in_streams_and_hidden_from_who_did_not_ask() {
    let fake = Fake::new(|_, _| {
        Reply::stream("text/event-stream", chunks(true).as_bytes().chunks(64).map(<[u8]>::to_vec).collect())
    });
    let world = world(&fake, "");
    let answer = world.chat(&support::stream());
    assert_eq!(fake.last().json()["stream_options"], json!({"include_usage": true}));
    assert_eq!(answer.body, chunks(false), "the chunk of usage is hidden, and that of the filter is not");
    let usage = &world.record(&answer)["usage"];
    assert_eq!(
        (&usage["tokens_in"], &usage["tokens_out"], &usage["estimated"]),
        (&json!(7), &json!(1), &json!(false))
    );
    let mut asked = support::stream();
    asked["stream_options"] = json!({"include_usage": true});
    assert_eq!(world.chat(&asked).body, chunks(true));
}
