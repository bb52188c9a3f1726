//! The Responses API: taken as it comes where a deployment has it, turned into its dialect where not, and what is kept by one
//! account is asked of that account.

mod support;

use std::fmt::Write as _;

use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::{Answer, World, config, fast};

const PATH: &str = "/v1/responses";

/// A world whose mocks are of these kinds, each with two keys, behind the model `m` in tiers of their own.
fn world(kinds: &[&str], keys: &str, extra: &str) -> World {
    let start = |_| {
        MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock starts")
    };
    let mocks: Vec<MockServer> = (0..kinds.len()).map(start).collect();
    let gateway = Gateway::start(None, config(&text(&mocks, kinds, keys, extra)), Overlay::default());
    World { mocks, gateway: gateway.expect("the gateway starts") }
}

fn text(mocks: &[MockServer], kinds: &[&str], keys: &str, extra: &str) -> String {
    let mut text = format!("{extra}\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n");
    for (number, kind) in kinds.iter().enumerate() {
        let address = mocks[number].address();
        let _ = writeln!(
            text,
            "  m{number}: {{ kind: {kind}, base_url: 'http://{address}', health: off{keys} }}"
        );
    }
    text.push_str("models:\n  m:\n    deployments:\n");
    for number in 0..kinds.len() {
        let _ =
            writeln!(text, "      - {{ name: d{number}, provider: m{number}, model: up, tier: {number} }}");
    }
    text
}

fn ask(extra: &Value) -> Value {
    let mut body = json!({"model": "m", "input": "hello", "max_output_tokens": 4});
    for (name, value) in extra.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

fn respond(world: &World, extra: &Value) -> Answer {
    world.post(PATH, "", ask(extra).to_string().as_bytes())
}

fn get(world: &World, method: &str, path: &str, headers: &str) -> Answer {
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    world.send(format!("{method} {path} HTTP/1.1\r\nhost: g\r\n{headers}{length}\r\n").as_bytes())
}

fn served_by(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("x-pointsman-served-by").expect("somebody served").to_owned()
}

/// Says that `d0` has too much to do, so that the next tier serves.
fn busy(world: &World) {
    world.script(0, [Scripted { status: Some(503), ..Default::default() }]);
}

#[test]
fn who_has_the_api_gets_the_bytes_as_they_came() {
    let world = world(&["mock", "anthropic"], "", "");
    let answer = respond(&world, &json!({"verbosity_of_mine": 7}));
    assert_eq!(served_by(&answer), "d0");
    let sent: Value = serde_json::from_str(&world.stats(0).last_body).expect("JSON");
    assert_eq!((sent["verbosity_of_mine"].clone(), sent["model"].clone()), (json!(7), json!("up")));
    assert!(world.stats(0).paths.contains_key(PATH));
    assert_eq!(world.record(&answer)["dialect"], "openai-responses");
}

#[test]
fn who_has_it_not_is_asked_in_its_own_dialect() {
    for (kind, path) in [("anthropic", "/v1/messages"), ("tgi", "/v1/chat/completions")] {
        let world = world(&[kind], "", "");
        let answer = respond(&world, &json!({"metadata": {"run": "7"}, "temperature": 0.5}));
        assert_eq!(served_by(&answer), "d0");
        assert_eq!(world.stats(0).paths.get(path), Some(&1), "{kind}: {:?}", world.stats(0).paths);
        let body = answer.json();
        assert_eq!((&body["object"], &body["model"]), (&json!("response"), &json!("m")), "{body}");
        assert_eq!((&body["temperature"], &body["metadata"]["run"]), (&json!(0.5), &json!("7")), "{body}");
        assert!(body["output"][0]["content"][0]["text"].as_str().is_some_and(|text| text.contains("mock")));
        let lost = world.record(&answer)["conversion"].to_string();
        assert!(lost.contains("metadata"), "{lost}");
        let stream = respond(&world, &json!({"stream": true}));
        assert_eq!(stream.header("content-type"), Some("text/event-stream"), "{stream:?}");
        for event in ["response.created", "response.output_text.delta", "response.completed"] {
            assert!(stream.body.contains(&format!("event: {event}\n")), "{kind}: {event} in {}", stream.body);
        }
        assert!(!stream.body.contains("[DONE]"));
    }
}

#[test]
fn a_busy_native_deployment_is_made_good_by_one_that_is_not() {
    let world = world(&["mock", "anthropic"], "", "");
    busy(&world);
    assert_eq!(served_by(&respond(&world, &json!({}))), "d1");
}

#[test]
fn what_is_not_kept_anywhere_is_refused_by_its_field() {
    let world = world(&["anthropic"], "", "");
    let answer = respond(&world, &json!({"previous_response_id": "resp_1"}));
    assert_eq!((answer.status, answer.error("param")), (400, json!("previous_response_id")), "{answer:?}");
    assert_eq!(world.reached(), 0);
}

#[test]
fn a_conversation_goes_on_with_the_credential_that_keeps_it() {
    for streamed in [false, true] {
        let world = world(&["mock", "mock"], ", keys: [ key-one, key-two, key-three ]", "");
        busy(&world);
        let first = respond(&world, &json!({"stream": streamed}));
        assert_eq!(served_by(&first), "d1", "{first:?}");
        let id = if streamed {
            let created = first.body.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
            let of_response = first.body.split('"').find(|word| word.starts_with("resp_mock"));
            of_response.or(created).expect("an id").to_owned()
        } else {
            first.json()["id"].as_str().expect("an id").to_owned()
        };
        let key = world.stats(1).last_headers["authorization"].clone();
        // A reload changes nothing of it.
        let reloaded = text(&world.mocks, &["mock", "mock"], ", keys: [ key-one, key-two, key-three ]", "");
        world.app().install(config(&format!("{reloaded}    timeouts: {{ idle_ms: 7000 }}\n")));
        for _ in 0..6 {
            let next = respond(&world, &json!({"previous_response_id": id}));
            assert_eq!(served_by(&next), "d1");
            assert_eq!(world.stats(1).last_headers["authorization"], key, "the same credential");
            assert_eq!(world.record(&next)["facts"]["pinned"], true);
            assert!(next.header("x-pointsman-decision").is_some_and(|why| why.contains("other_account")));
        }
        for (method, path, status) in [
            ("GET", format!("{PATH}/{id}"), 200),
            ("GET", format!("{PATH}/{id}/input_items?limit=1"), 200),
            ("POST", format!("{PATH}/{id}/cancel"), 200),
            ("DELETE", format!("{PATH}/{id}"), 200),
            ("GET", format!("{PATH}/{id}"), 404),
        ] {
            let answer = get(&world, method, &path, "");
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
            if status == 200 {
                assert_eq!(served_by(&answer), "d1", "{method} {path}");
            }
        }
    }
}

#[test]
fn a_pinned_request_is_not_failed_over_and_says_so() {
    let world = world(&["mock", "mock"], ", keys: [ key-one, key-two ]", "");
    let id = respond(&world, &json!({})).json()["id"].clone();
    world.mocks[0].control().set(|settings| settings.rate_503 = 1.0);
    let answer = respond(&world, &json!({"previous_response_id": id}));
    assert_eq!(answer.status, 503, "{answer:?}");
    let message = answer.error("message").to_string();
    assert!(message.contains("previous_response_id") && message.contains("no other was asked"), "{message}");
    assert_eq!(world.stats(1).requests, 0, "nobody else was asked");
}

#[test]
fn what_a_drained_deployment_keeps_is_out_of_reach() {
    let world = world(&["mock", "mock"], "", "");
    let id = respond(&world, &json!({})).json()["id"].clone();
    let drained =
        text(&world.mocks, &["mock", "mock"], "", "").replace("tier: 0 }", "tier: 0, draining: true }");
    world.app().install(config(&drained));
    let answer = respond(&world, &json!({"previous_response_id": id}));
    assert_eq!((answer.status, answer.error("code")), (400, json!("issuer_unavailable")), "{answer:?}");
    assert_eq!(answer.error("param"), "previous_response_id");
    assert!(answer.error("message").to_string().contains("`d0`"), "{answer:?}");
    assert_eq!(served_by(&respond(&world, &json!({}))), "d1");
}

#[test]
fn an_id_nobody_knows_goes_to_the_only_account_there_is() {
    let one = world(&["mock", "anthropic"], ", keys: [ key-one ]", "");
    let answer = respond(&one, &json!({"previous_response_id": "resp_old"}));
    assert_eq!((answer.status, answer.error("param")), (400, json!("previous_response_id")), "{answer:?}");
    assert_eq!(answer.error("code"), "previous_response_not_found", "the provider's own words");
    assert_eq!(one.stats(0).requests, 1, "it was asked");
    let many = world(&["mock"], ", keys: [ key-one, key-two ]", "");
    let answer = respond(&many, &json!({"previous_response_id": "resp_old"}));
    assert_eq!((answer.status, answer.error("code")), (400, json!("unknown_issuer")), "{answer:?}");
    let file = json!({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]});
    let answer = respond(&many, &file);
    let param = json!("input[0].content[0].file_id");
    assert_eq!((answer.status, answer.error("param")), (400, param), "{answer:?}");
    assert_eq!(many.reached(), 0);
    assert_eq!(get(&many, "GET", "/v1/responses/resp_old", "").status, 404);
}

#[test]
fn d9_another_tenants_id_is_never_found() {
    let auth =
        "auth: { keys: [ { name: a, tenant: a, key: key-of-a }, { name: b, tenant: b, key: key-of-b } ] }";
    let world = world(&["mock"], ", keys: [ key-one ]", auth);
    let of = |key: &str| format!("authorization: Bearer {key}\r\n");
    let ask_as = |key: &str, extra: &Value| world.post(PATH, &of(key), ask(extra).to_string().as_bytes());
    let id = ask_as("key-of-a", &json!({})).json()["id"].as_str().expect("an id").to_owned();
    let path = format!("{PATH}/{id}");
    let reached = world.reached();
    assert_eq!(get(&world, "GET", &path, &of("key-of-b")).status, 404);
    assert_eq!(get(&world, "DELETE", &path, &of("key-of-b")).status, 404);
    let answer = ask_as("key-of-b", &json!({"previous_response_id": id}));
    assert_eq!(
        (answer.status, answer.error("code")),
        (400, json!("previous_response_not_found")),
        "{answer:?}"
    );
    assert_eq!((world.reached(), world.stats(0).paths.get(&path)), (reached, None), "nothing was sent");
    assert_eq!(get(&world, "GET", &path, &of("key-of-a")).status, 200);
}

#[test]
fn methods_and_places_are_told_apart() {
    let world = world(&["mock"], "", "");
    assert_eq!(get(&world, "POST", "/v1/responses/resp_1", "").status, 405);
    assert_eq!(get(&world, "GET", "/v1/responses/resp_1/nothing", "").status, 404);
    assert_eq!(get(&world, "GET", "/v1/responses", "").status, 405);
}
