//! A share of the traffic is copied to a shadow: it gets the body, its cost and latency are recorded, and the caller
//! cannot tell whether there is one.

mod support;

use std::sync::atomic::Ordering;

use pointsman::app::Shutdown;
use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::{Answer, World, config, fast, hello, stream};

/// A world whose model `m` is served by `m0` and mirrored whole to the model `shadow`, served by `m1`.
fn world(extra: &str, shadow: &str, deployment: &str) -> World {
    let start = |_| {
        MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock starts")
    };
    let mocks: Vec<MockServer> = (0..2).map(start).collect();
    let text =
        text(&mocks[0].address().to_string(), &mocks[1].address().to_string(), extra, shadow, deployment);
    World { mocks, gateway: Gateway::start(None, config(&text), Overlay::default()).expect("it starts") }
}

fn text(original: &str, shadow_at: &str, extra: &str, shadow: &str, deployment: &str) -> String {
    format!(
        "{extra}\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n\
         \x20 m0: {{ kind: mock, base_url: 'http://{original}', health: off }}\n\
         \x20 m1: {{ kind: mock, base_url: 'http://{shadow_at}', health: off }}\n\
         models:\n\
         \x20 m: {{ mirror: {{ to: shadow, share: 1 }}, deployments: [ {{ name: d0, provider: m0, model: up }} ] }}\n\
         \x20 shadow: {{ {shadow} deployments: [ {{ name: s0, provider: m1, model: small, price: {{ input: 1, output: 2 }} {deployment} }} ] }}\n"
    )
}

/// The record of the copy, once it is there.
fn copy(world: &World, answer: &Answer) -> Value {
    let id = json!(answer.header("x-pointsman-request-id"));
    let mut found = None;
    world.until("the copy is recorded", || {
        found = world
            .app()
            .ring
            .newest(50)
            .iter()
            .map(|record| record.to_json())
            .find(|record| record["mirror_of"] == id);
        found.is_some()
    });
    found.expect("just seen")
}

fn until_counted(world: &World, result: &str, count: u64) {
    let line = format!("pointsman_mirror_total{{model=\"m\",result=\"{result}\"}} {count}");
    world.until(&line, || metrics(world).lines().any(|found| found == line));
}

fn metrics(world: &World) -> String {
    use pointsman::telemetry::metrics::Surroundings;
    let app = world.app();
    app.metrics.encode(&Surroundings {
        fleet: app.live.lock().fleet.view(pointsman_routing::Now::ZERO),
        generation: 1,
        permits: 0,
        attempts: 0,
        connections: 0,
    })
}

#[test]
fn the_shadow_gets_the_body_and_its_cost_and_latency_are_recorded() {
    let world = world("", "", "");
    for (count, body) in [(1, hello()), (2, stream())] {
        let answer = world.chat(&body);
        assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d0")), "{answer:?}");
        let record = copy(&world, &answer);
        until_counted(&world, "completed", count);
        let mut sent: Value = serde_json::from_str(&world.stats(1).last_body).expect("a body");
        assert_eq!((sent["model"].take(), &sent["messages"]), (json!("small"), &body["messages"]));
        assert_eq!((&record["model"], &record["outcome"]), (&json!("shadow"), &json!("completed")));
        assert_eq!(record["facts"]["lane"], "batch");
        assert!(record["cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{record}");
        assert!(record["first_content_us"].is_u64() && record["usage"]["tokens_out"].is_u64(), "{record}");
        assert_eq!(world.record(&answer)["mirror_of"], Value::Null);
    }
    assert_eq!((world.stats(0).requests, world.stats(1).requests), (2, 2));
    world.until("all permits are back", || world.permits() == 0);
}

#[test]
fn a_shadow_that_hangs_is_slow_or_fails_is_not_noticed() {
    for (name, script, status) in [
        ("hangs", Scripted { hang: true, ..Default::default() }, None),
        ("is slow", Scripted { delay_ms: 400, ..Default::default() }, None),
        ("stalls", Scripted { hang_after: Some(1), ..Default::default() }, None),
        ("fails", Scripted { status: Some(500), ..Default::default() }, Some(500)),
        ("refuses", Scripted { status: Some(401), ..Default::default() }, Some(502)),
        ("closes", Scripted { close: true, ..Default::default() }, Some(502)),
    ] {
        let world = world("", "", "");
        world.script(1, [script]);
        let answer = world.chat(&stream());
        assert_eq!((answer.status, answer.whole), (200, true), "{name}: {answer:?}");
        assert_eq!(answer.header("x-pointsman-attempts"), Some("1"), "{name}");
        match status {
            // The caller has all of its answer while the copy is still under way.
            None => assert_eq!(world.app().mirrors.load(Ordering::Relaxed), 1, "{name}"),
            Some(status) => {
                assert_eq!(copy(&world, &answer)["status"], json!(status), "{name}");
                until_counted(&world, "failed", 1);
                assert_eq!(world.stats(1).requests, 1, "{name}: a copy is never sent again");
            }
        }
        assert_eq!(world.record(&answer)["outcome"], "completed", "{name}");
    }
}

#[test]
fn a_shadow_that_is_not_there_is_not_noticed() {
    let mut world = world("", "", "");
    let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = gone.local_addr().expect("it is bound").to_string();
    drop(gone);
    let text = text(&world.mocks[0].address().to_string(), &address, "", "", "");
    world.gateway = Gateway::start(None, config(&text), Overlay::default()).expect("it starts");
    for count in 1..=4 {
        let answer = world.chat(&hello());
        assert_eq!(answer.status, 200);
        // Refused twice it has failed, and the router does not ask it any more.
        let result = if count <= 2 { ("failed", count) } else { ("refused", count - 2) };
        until_counted(&world, result.0, result.1);
    }
    assert_eq!(world.stats(0).requests, 4);
}

#[test]
fn a_copy_never_waits_for_a_slot() {
    let world = world("", "", ", slots: 1");
    world.script(1, [Scripted { hang: true, ..Default::default() }]);
    let first = world.chat(&hello());
    assert_eq!(first.status, 200);
    world.until("the copy is under way", || world.stats(1).inflight == 1);
    let second = world.chat(&hello());
    let record = copy(&world, &second);
    assert_eq!(
        (&record["outcome"], &record["detail"]),
        (&json!("rejected"), &json!("queue_full")),
        "{record}"
    );
    assert_eq!(record["queue_us"], 0);
    until_counted(&world, "refused", 1);
    assert_eq!((world.stats(0).requests, world.stats(1).requests), (2, 1));
}

#[test]
fn copies_are_bounded_and_what_the_shadow_does_not_allow_is_dropped() {
    let bounded = world("limits: { mirrors_max: 1 }", "", "");
    bounded.script(1, [Scripted { hang: true, ..Default::default() }]);
    for _ in 0..3 {
        assert_eq!(bounded.chat(&hello()).status, 200);
    }
    until_counted(&bounded, "over_limit", 2);
    let strict = world("", "params: { temperature: { max: 0.5 } },", "");
    let mut body = hello();
    body["temperature"] = json!(1);
    assert_eq!(strict.chat(&body).status, 200);
    until_counted(&strict, "not_allowed", 1);
    body["temperature"] = json!(0.25);
    assert_eq!(strict.chat(&body).status, 200);
    until_counted(&strict, "completed", 1);
    assert_eq!(strict.stats(1).requests, 1);
}

#[test]
fn a_process_on_its_way_out_mirrors_nothing_and_waits_for_no_copy() {
    let world = world("", "", "");
    world.script(1, [Scripted { hang: true, ..Default::default() }]);
    let mut kept = world.connect();
    std::io::Write::write_all(
        &mut kept,
        &support::request("/v1/chat/completions", "", hello().to_string().as_bytes()),
    )
    .expect("written");
    assert_eq!(Answer::read(&mut kept).status, 200);
    world.until("the copy is under way", || world.stats(1).inflight == 1);
    world.app().shut_down(Shutdown::Leaving);
    assert_eq!(world.chat(&hello()).status, 200);
    until_counted(&world, "stopping", 1);
    drop(kept);
    world.app().shut_down(Shutdown::Draining);
    world.until("the copy under way is given up", || world.stats(1).cancelled == 1);
    world.until("all permits are back", || world.permits() == 0);
}

#[test]
fn a_repeat_that_is_answered_from_memory_is_not_mirrored() {
    let world = world("", "", "");
    for _ in 0..3 {
        let answer =
            world.post("/v1/chat/completions", "idempotency-key: k\r\n", hello().to_string().as_bytes());
        assert_eq!(answer.status, 200);
    }
    until_counted(&world, "completed", 1);
    assert_eq!((world.stats(0).requests, world.stats(1).requests), (1, 1));
}
