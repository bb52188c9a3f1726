//! Models that a request names for the case that its own cannot serve: by header or body, for keys that may.

mod support;

use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::{Answer, World, config, fast, hello, stream};

const CHAT: &str = "/v1/chat/completions";
const MAY: &str = "authorization: Bearer aaaaaaaaaaaaaaaaaaaaaaaa\r\n";
const MAY_SOME: &str = "authorization: Bearer bbbbbbbbbbbbbbbbbbbbbbbb\r\n";
const MAY_NOT: &str = "authorization: Bearer cccccccccccccccccccccccc\r\n";

/// The models `m`, `n` and `o`, each behind a mock of its own; `n` takes no temperature above 0.5.
fn world() -> World {
    let start = |_| {
        MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock starts")
    };
    let mocks: Vec<MockServer> = (0..3).map(start).collect();
    let mut text = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nauth:\n  keys:\n\
        \x20   - { name: a, key: aaaaaaaaaaaaaaaaaaaaaaaa, may_fallback: true }\n\
        \x20   - { name: b, key: bbbbbbbbbbbbbbbbbbbbbbbb, may_fallback: true, models: [m, n] }\n\
        \x20   - { name: c, key: cccccccccccccccccccccccc }\nproviders:\n"
        .to_owned();
    let provider = |(number, mock): (usize, &MockServer)| {
        let address = mock.address();
        format!("  p{number}: {{ kind: mock, base_url: 'http://{address}', health: off, free: false }}\n")
    };
    text.extend(mocks.iter().enumerate().map(provider));
    text += "models:\n\
        \x20 m: { deployments: [ { name: dm, provider: p0, model: up-m } ] }\n\
        \x20 n: { params: { temperature: { max: 0.5 } }, deployments: [ { name: dn, provider: p1, model: up-n } ] }\n\
        \x20 o: { aliases: [see], deployments: [ { name: do, provider: p2, model: up-o, version: '2' } ] }\n";
    World { mocks, gateway: Gateway::start(None, config(&text), Overlay::default()).expect("it starts") }
}

fn status(status: u16) -> Scripted {
    Scripted { status: Some(status), ..Default::default() }
}

fn ask(world: &World, headers: &str, body: &Value) -> Answer {
    world.post(CHAT, headers, body.to_string().as_bytes())
}

fn naming(mut body: Value, names: &[&str]) -> Value {
    body["fallbacks"] = json!(names);
    body
}

#[test]
fn the_next_model_of_the_list_serves() {
    let header = format!("{MAY}x-pointsman-fallback: n , see@2\r\n");
    for (name, headers, body) in [
        ("header", header.as_str(), stream()),
        ("body", MAY, naming(stream(), &["n", "see@2"])),
        ("whole", MAY, naming(hello(), &["n", "see@2"])),
    ] {
        let world = world();
        world.script(0, [status(503)]);
        world.script(1, [status(429)]);
        let answer = ask(&world, headers, &body);
        assert_eq!(
            (answer.status, answer.header("x-pointsman-served-by")),
            (200, Some("do")),
            "{name}: {answer:?}"
        );
        assert_eq!(answer.header("x-pointsman-model"), Some("o"), "{name}");
        assert_eq!(answer.header("x-pointsman-attempts"), Some("3"), "{name}");
        let sent: Value = serde_json::from_str(&world.stats(2).last_body).expect("a body");
        assert_eq!((&sent["model"], sent.get("fallbacks")), (&json!("up-o"), None), "{name}");
        let record = world.record(&answer);
        assert_eq!((&record["model"], &record["outcome"]), (&json!("m"), &json!("completed")), "{name}");
        let models: Vec<&Value> =
            record["decisions"].as_array().expect("a list").iter().map(|one| &one["model"]).collect();
        assert_eq!((models[0], models[models.len() - 1]), (&json!("m"), &json!("o")), "{name}: {record}");
        assert_eq!(record["fallbacks"][1], json!({"model": "see@2", "left_out": null}), "{name}");
        assert_eq!(record["attempts"].as_array().map(Vec::len), Some(3), "{name}");
        world.until("all permits are back", || world.permits() == 0);
    }
}

#[test]
fn the_model_asked_for_serves_if_it_can() {
    let world = world();
    let answer = ask(&world, MAY, &naming(hello(), &["n", "o"]));
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("dm")));
    assert_eq!(answer.header("x-pointsman-model"), None);
    let sent: Value = serde_json::from_str(&world.stats(0).last_body).expect("a body");
    assert_eq!(sent.get("fallbacks"), None, "no upstream sees it");
}

#[test]
fn what_may_have_been_billed_goes_to_no_other_model() {
    let world = world();
    world.script(0, [Scripted { close: true, ..Default::default() }]);
    let answer = ask(&world, MAY, &naming(hello(), &["n", "o"]));
    assert_eq!((answer.status, answer.error("who")), (502, json!("provider:p0")), "{answer:?}");
    assert_eq!((world.stats(1).requests, world.stats(2).requests), (0, 0));
}

#[test]
fn a_model_that_does_not_fit_is_left_out_and_the_record_says_why() {
    let world = world();
    world.script(0, [status(503)]);
    let mut body = naming(hello(), &["n", "m", "o", "o"]);
    body["temperature"] = json!(1);
    let answer = ask(&world, MAY, &body);
    assert_eq!(answer.header("x-pointsman-model"), Some("o"), "{answer:?}");
    let named = world.record(&answer)["fallbacks"].clone();
    assert!(named[0]["left_out"].as_str().is_some_and(|why| why.contains("temperature")), "{named}");
    assert!(
        named[1]["left_out"].is_string()
            && named[2]["left_out"].is_null()
            && named[3]["left_out"].is_string()
    );
    assert_eq!(world.stats(1).requests, 0);
}

#[test]
fn who_may_not_and_what_is_not_there_is_told() {
    let world = world();
    let header = |client: &str, names: &str| format!("{client}x-pointsman-fallback: {names}\r\n");
    let nine = ["n"; 9];
    for (name, headers, body, expected) in [
        (
            "may not, body",
            MAY_NOT.to_owned(),
            naming(hello(), &["n"]),
            (403, "fallback_not_allowed", "fallbacks"),
        ),
        (
            "may not, header",
            header(MAY_NOT, "n"),
            hello(),
            (403, "fallback_not_allowed", "x-pointsman-fallback"),
        ),
        (
            "not this one",
            MAY_SOME.to_owned(),
            naming(hello(), &["n", "o"]),
            (403, "model_not_allowed", "fallbacks[1]"),
        ),
        ("unknown", MAY.to_owned(), naming(hello(), &["none"]), (404, "model_not_found", "fallbacks[0]")),
        ("unknown, header", header(MAY, "n,none"), hello(), (404, "model_not_found", "x-pointsman-fallback")),
        ("both", header(MAY, "n"), naming(hello(), &["n"]), (400, "", "x-pointsman-fallback")),
        ("empty name", header(MAY, "n,,o"), hello(), (400, "", "x-pointsman-fallback")),
        ("too many", header(MAY, &nine.join(",")), hello(), (400, "", "x-pointsman-fallback")),
        ("too many, body", MAY.to_owned(), naming(hello(), &nine), (400, "", "fallbacks")),
        ("not names", MAY.to_owned(), naming(hello(), &[""]), (400, "", "fallbacks[0]")),
    ] {
        let answer = ask(&world, &headers, &body);
        let (status, code, param) = expected;
        assert_eq!((answer.status, answer.error("param")), (status, json!(param)), "{name}: {answer:?}");
        assert_eq!(answer.error("code").as_str().unwrap_or(""), code, "{name}");
    }
    assert_eq!(world.reached(), 0);
    assert_eq!(ask(&world, MAY_NOT, &hello()).status, 200);
}
