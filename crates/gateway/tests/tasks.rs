//! What is no chat: reranks, moderations, images and sounds go the way of every other request.

mod support;

use std::fmt::Write as _;

use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::{Answer, World, config, fast};

/// Mocks of these kinds, in tiers of their own, behind the model `m`, and what else there is of models.
fn world(kinds: &[&str], models: &str, extra: &str) -> World {
    let spawn = |_: &&str| {
        MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock starts")
    };
    let mocks: Vec<MockServer> = kinds.iter().map(spawn).collect();
    let mut text = format!("{extra}\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n");
    for (number, (kind, mock)) in kinds.iter().zip(&mocks).enumerate() {
        let at = mock.address();
        let _ = writeln!(text, "  m{number}: {{ kind: {kind}, base_url: 'http://{at}', health: off }}");
    }
    text += "models:\n  m:\n    deployments:\n";
    for number in 0..kinds.len() {
        let _ =
            writeln!(text, "      - {{ name: d{number}, provider: m{number}, model: up, tier: {number} }}");
    }
    text += models;
    let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
    World { mocks, gateway }
}

fn last_body(world: &World, mock: usize) -> Value {
    serde_json::from_str(&world.stats(mock).last_body).expect("JSON was sent")
}

fn post(world: &World, path: &str, body: &Value) -> Answer {
    world.post(path, "", body.to_string().as_bytes())
}

/// A part of a form.
fn part(head: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
}

fn send_form(world: &World, path: &str, headers: &str, body: &str) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: g\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    world.send((head + body).as_bytes())
}

fn transcription(model: &str, more: &str) -> String {
    let file = part("name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav", "RIFF\r\n--\r\nx");
    format!("{file}{}{more}--b--\r\n", part("name=\"model\"", model))
}

#[test]
fn json_tasks_are_relayed_with_another_model() {
    let world = world(&["mock"], "", "");
    for (path, body, operation, has) in [
        ("/v1/moderations", json!({"model": "m", "input": "bad"}), "moderation", "flagged"),
        (
            "/v1/images/generations",
            json!({"model": "m", "prompt": "a cat", "n": 2, "x": [1]}),
            "image_generation",
            "b64_json",
        ),
        (
            "/v1/rerank",
            json!({"model": "m", "query": "q", "documents": ["a", "b"]}),
            "rerank",
            "relevance_score",
        ),
        (
            "/rerank",
            json!({"model": "m", "query": "q", "documents": ["a", "b"]}),
            "rerank",
            "relevance_score",
        ),
    ] {
        let answer = post(&world, path, &body);
        assert!(answer.status == 200 && answer.body.contains(has), "{path}: {answer:?}");
        let mut expected = body.clone();
        expected["model"] = "up".into();
        assert_eq!(last_body(&world, 0), expected, "{path}");
        let record = world.record(&answer);
        assert_eq!(
            (&record["operation"], &record["outcome"]),
            (&json!(operation), &json!("completed")),
            "{path}"
        );
        assert_eq!(answer.header("x-pointsman-served-by"), Some("d0"), "{path}");
    }
    assert_eq!(world.stats(0).paths["/v1/rerank"], 2, "both are asked at one path");
    let answer = post(&world, "/v1/images/generations", &json!({"model": "m", "prompt": "a cat"}));
    let usage = &world.record(&answer)["usage"];
    assert_eq!((&usage["tokens_out"], &usage["estimated"]), (&json!(1), &json!(false)), "{usage}");
}

#[test]
fn sounds_come_back_as_they_are_and_streams_as_streams() {
    let world = world(&["mock"], "", "");
    let body = json!({"model": "m", "input": "Hello", "voice": "alloy"});
    let answer = post(&world, "/v1/audio/speech", &body);
    assert_eq!(
        (answer.header("content-type"), answer.header("content-length")),
        (Some("audio/wav"), Some("844"))
    );
    assert!(answer.body.starts_with("RIFF") && answer.whole, "{answer:?}");
    assert_eq!(world.stats(0).last_headers["accept"], "*/*");
    let mut streamed = body;
    streamed["stream_format"] = "sse".into();
    let answer = post(&world, "/v1/audio/speech", &streamed);
    assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"));
    assert!(answer.whole && answer.body.contains("speech.audio.done"), "{answer:?}");
    assert_eq!(world.record(&answer)["usage"]["tokens_out"], 1);
}

#[test]
fn c12_reranks_are_turned_into_the_form_that_a_provider_takes_and_back() {
    let world = world(&["cohere"], "", "");
    let body = json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "truncation": true});
    let answer = post(&world, "/v1/rerank", &body);
    assert_eq!(
        last_body(&world, 0),
        json!({"model": "up", "query": "q", "documents": ["a", "b"], "top_n": 1})
    );
    assert_eq!(world.stats(0).paths.keys().collect::<Vec<_>>(), ["/v2/rerank"]);
    let told = answer.json();
    assert_eq!(told["results"], json!([{"index": 1, "relevance_score": 1.0, "document": {"text": "b"}}]));
    assert_eq!((&told["model"], &told["meta"]["billed_units"]["search_units"]), (&json!("m"), &json!(1)));
    let record = world.record(&answer);
    assert!(record["conversion"].to_string().contains("truncation"), "{record}");
    let as_it_is = json!({"model": "m", "query": "q", "documents": ["a"], "max_tokens_per_doc": 9});
    let answer = post(&world, "/v2/rerank", &as_it_is);
    assert_eq!(last_body(&world, 0)["max_tokens_per_doc"], 9);
    assert_eq!(answer.json()["meta"]["api_version"]["version"], "2");
}

#[test]
fn c12_a_client_of_cohere_is_answered_by_an_engine() {
    let world = world(&["vllm"], "", "");
    let answer = post(&world, "/v2/rerank", &json!({"model": "m", "query": "q", "documents": ["a", "b"]}));
    assert_eq!(last_body(&world, 0)["return_documents"], false);
    let told = answer.json();
    assert_eq!(
        told["results"],
        json!([{"index": 1, "relevance_score": 1.0}, {"index": 0, "relevance_score": 0.5}])
    );
    assert!(told["meta"]["tokens"]["input_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{told}");
    assert!(told.get("usage").is_none());
    assert_eq!(world.record(&answer)["usage"]["estimated"], false);
}

#[test]
fn i5_errors_are_in_the_form_of_the_caller() {
    let world = world(&["mock", "mock"], "", "");
    let cohere = post(&world, "/v2/rerank", &json!({"model": "m", "documents": ["a"]}));
    assert_eq!((cohere.status, cohere.json()["message"].as_str()), (400, Some("`query` is missing")));
    let jina = post(&world, "/v1/rerank", &json!({"model": "nope", "query": "q", "documents": ["a"]}));
    assert!(jina.status == 404 && jina.json()["detail"].as_str().is_some_and(|text| text.contains("nope")));
    assert_eq!(jina.error("code"), "model_not_found");
    let openai = post(&world, "/v1/moderations", &json!({"model": "m"}));
    assert_eq!((openai.status, openai.error("param")), (400, json!("input")));
    assert_eq!(world.reached(), 0);
    world.script(0, [Scripted { status: Some(400), ..Scripted::default() }]);
    let answer = post(&world, "/v2/rerank", &json!({"model": "m", "query": "q", "documents": ["a"]}));
    assert_eq!((answer.status, answer.json()["message"].as_str()), (400, Some("as scripted")), "{answer:?}");
    assert_eq!(answer.error("who"), "provider:m0");
}

#[test]
fn tasks_fail_over_like_all_else() {
    let world = world(&["mock", "mock"], "", "");
    world.script(0, [Scripted { status: Some(503), ..Scripted::default() }]);
    let answer = post(&world, "/v1/moderations", &json!({"model": "m", "input": "x"}));
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d1")));
    world.script(0, [Scripted { status: Some(503), ..Scripted::default() }]);
    let answer = send_form(&world, "/v1/audio/transcriptions", "", &transcription("m", ""));
    assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (200, Some("2")), "{answer:?}");
    assert_eq!(world.stats(0).last_body, world.stats(1).last_body, "the whole form is sent again");
    assert_eq!(world.permits(), 0);
}

#[test]
fn forms_pass_byte_for_byte_but_for_the_model() {
    let world = world(&["mock"], "", "");
    let more = part("name=\"prompt\"", "a\r\nb") + &part("name=\"x[]\"", "y");
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
        let answer = send_form(&world, path, "", &transcription("m", &more));
        assert_eq!(
            (answer.status, answer.json()["text"].as_str()),
            (200, Some("This is the mock.")),
            "{answer:?}"
        );
        let stats = world.stats(0);
        assert_eq!(stats.last_body, transcription("up", &more));
        assert_eq!(stats.last_headers["content-type"], "multipart/form-data; boundary=b");
        assert!(stats.paths.contains_key(path));
    }
    let streamed = transcription("m", &part("name=\"stream\"", "true"));
    let answer = send_form(&world, "/v1/audio/transcriptions", "", &streamed);
    assert!(answer.whole && answer.body.contains("transcript.text.done"), "{answer:?}");
    assert_eq!(world.record(&answer)["facts"]["stream"], true);
}

#[test]
fn c4_c9_bad_forms_are_refused_before_anything_is_sent() {
    let world = world(&["mock"], "", "");
    let parts = part("name=\"x\"", "").repeat(100_000);
    for (name, body, param) in [
        ("c9 no terminator", transcription("m", "").replace("--b--", ""), Value::Null),
        ("c9 100,000 parts", transcription("m", &parts), Value::Null),
        ("c4 model twice", transcription("m", &part("name=\"model\"", "other")), json!("model")),
        ("c11 api_base", transcription("m", &part("name=\"api_base\"", "http://x")), json!("api_base")),
        ("no file", format!("{}--b--", part("name=\"model\"", "m")), json!("file")),
        ("empty", String::new(), Value::Null),
    ] {
        let answer = send_form(&world, "/v1/audio/transcriptions", "", &body);
        assert_eq!((answer.status, answer.error("param")), (400, param), "{name}: {answer:?}");
    }
    let long = "x".repeat(71);
    for kind in ["multipart/form-data", "application/json", &format!("multipart/form-data; boundary={long}")]
    {
        let text = format!(
            "POST /v1/images/edits HTTP/1.1\r\nhost: g\r\ncontent-type: {kind}\r\ncontent-length: 4\r\n\r\n--b-"
        );
        let answer = world.send(text.as_bytes());
        assert!(matches!(answer.status, 400 | 415), "c9 {kind}: {answer:?}");
    }
    assert_eq!(world.reached(), 0);
}

#[test]
fn the_model_that_lists_a_task_serves_those_that_name_none() {
    let listing = "  guard:\n    capabilities: [moderations, images]\n    deployments: [{ provider: m0, model: omni }]\n";
    let world = world(&["mock"], listing, "");
    let answer = post(&world, "/v1/moderations", &json!({"input": "x"}));
    assert_eq!(
        (answer.status, last_body(&world, 0)),
        (200, json!({"model": "omni", "input": "x"})),
        "{answer:?}"
    );
    let image = part("name=\"image\"; filename=\"a.png\"", "x") + &part("name=\"prompt\"", "a cat") + "--b--";
    let answer = send_form(&world, "/v1/images/edits", "", &image);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(world.stats(0).last_body, part("name=\"model\"", "omni") + &image);
    let answer = post(&world, "/v1/audio/speech", &json!({"model": "guard", "input": "x", "voice": "v"}));
    assert_eq!((answer.status, answer.error("code")), (400, json!("unsupported_capability")));
    let nobody = self::world(&["mock"], "", "");
    let answer = post(&nobody, "/v1/moderations", &json!({"input": "x"}));
    assert_eq!((answer.status, answer.error("param")), (400, json!("model")));
}

#[test]
fn providers_that_do_not_take_a_task_are_not_asked() {
    let world = world(&["anthropic"], "", "");
    let answer = post(&world, "/v1/moderations", &json!({"model": "m", "input": "x"}));
    assert_eq!((answer.status, answer.error("code")), (400, json!("unsupported_capability")), "{answer:?}");
    assert_eq!(world.reached(), 0);
}
