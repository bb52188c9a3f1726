//! Pools over sockets: who is served, what is shown, and a batch request that gives way.

mod support;

use std::io::Write;
use std::net::TcpStream;

use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::{Answer, World, config, fast, hello, request, stream};

/// One mock with two models that share a pool.
fn world(pool: &str) -> World {
    let mock = MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock");
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\npools: {{ box: {pool} }}\nproviders:\n  \
         m0: {{ kind: mock, base_url: 'http://{}', health: off, slot_pool: box }}\nmodels:\n  \
         m: {{ deployments: [ {{ name: d0, provider: m0, model: up }} ] }}\n  \
         n: {{ deployments: [ {{ name: d1, provider: m0, model: up }} ] }}\n",
        mock.address()
    );
    let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
    World { mocks: vec![mock], gateway }
}

fn send(world: &World, model: &str, mut body: Value, headers: &str) -> TcpStream {
    body["model"] = json!(model);
    let mut connection = world.connect();
    connection
        .write_all(&request("/v1/chat/completions", headers, body.to_string().as_bytes()))
        .expect("written");
    connection
}

#[test]
fn a_live_request_takes_the_slot_of_a_batch_request_that_has_no_content() {
    for body in [hello(), stream()] {
        let world = world("{ slots: 1, preempt: { times_max: 1 } }");
        world.script(0, [Scripted { hang_after: Some(0), ..Default::default() }]);
        let mut batch = send(&world, "n", body.clone(), "x-pointsman-lane: batch\r\n");
        world.until("the batch request is under way", || world.stats(0).inflight == 1);
        let live = world.chat(&body);
        assert_eq!((live.status, live.header("x-pointsman-served-by")), (200, Some("d0")), "{live:?}");
        world.until("the connection of the batch request is closed", || world.stats(0).cancelled == 1);
        let batch = Answer::read(&mut batch);
        assert_eq!((batch.status, batch.header("x-pointsman-attempts")), (200, Some("2")), "{batch:?}");
        let record = world.record(&batch);
        assert_eq!(record["attempts"][0]["taken_back"], true, "{record}");
        assert_eq!(record["attempts"][0]["failure"], Value::Null, "{record}");
        assert_eq!(
            (&record["attempts"][1]["taken_back"], &record["outcome"]),
            (&json!(false), &json!("completed"))
        );
        world.until("all permits are back", || world.permits() == 0);
        let view = world.app().live.lock().fleet.view(pointsman_routing::Now::ZERO);
        assert_eq!((view.preempted, view.pools[0].inflight), (1, 0));
        assert!(view.models.iter().all(|model| model.deployments[0].failures == 0));
    }
}

#[test]
fn a_client_that_leaves_while_its_slot_is_wanted_back_loses_nothing() {
    let world = world("{ slots: 1, preempt: { times_max: 1 } }");
    world.script(0, [Scripted { hang_after: Some(0), ..Default::default() }]);
    let batch = send(&world, "n", stream(), "x-pointsman-lane: batch\r\n");
    world.until("the batch request is under way", || world.stats(0).inflight == 1);
    let mut live = send(&world, "m", hello(), "");
    drop(batch);
    assert_eq!(Answer::read(&mut live).status, 200);
    world.until("all permits are back", || world.permits() == 0);
}

#[test]
fn whoever_waits_for_a_pool_is_told_why() {
    let world = world("{ slots: 1, tokens: 5000, models: { n: { guarantee: 1 } } }");
    world.script(0, [Scripted { hang_after: Some(0), ..Default::default() }]);
    let hanging = send(&world, "m", stream(), "");
    world.until("it is under way", || world.stats(0).inflight == 1);
    let mut waits = send(&world, "n", hello(), "");
    let pools = || {
        let view = world.app().live.lock().fleet.view(pointsman_routing::Now::ZERO);
        serde_json::to_value(view.pools).expect("JSON")
    };
    world.until("the other waits", || pools()[0]["models"][1]["waiting"] == 1);
    let pools = pools();
    assert_eq!((&pools[0]["slots"], &pools[0]["inflight"]), (&json!(1), &json!(1)), "{pools}");
    assert_eq!((&pools[0]["models"][0]["borrowed"], &pools[0]["models"][1]["lent"]), (&json!(1), &json!(1)));
    drop(hanging);
    let answer = Answer::read(&mut waits);
    assert_eq!(answer.status, 200, "{answer:?}");
    let first = &world.record(&answer)["decisions"][0]["candidates"][0]["why_not"];
    assert_eq!(*first, json!({"rule": "pool_full", "limit": "slots"}));
}
