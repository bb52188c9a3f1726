//! Requests with an `Idempotency-Key`: one upstream call and one answer, whoever leaves and whenever the second comes.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pointsman::mock::Scripted;
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::{Answer, PATIENCE, World, config, hello, request, stream, take_request, upstream};

const CHAT: &str = "/v1/chat/completions";
const CONTENT: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const ANSWER: &str = r#"{"id":"x","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
const TWO_TENANTS: &str = "auth: { keys: [ { name: a, key: aaaaaaaaaaaaaaaaaaaaaaaa }, { name: b, key: bbbbbbbbbbbbbbbbbbbbbbbb } ] }";

fn keyed(world: &World, key: &str, body: &Value) -> Answer {
    world.post(CHAT, &format!("idempotency-key: {key}\r\n"), body.to_string().as_bytes())
}

/// Sends a request with a key and does not wait for its answer.
fn send(world: &World, key: &str, body: &Value) -> TcpStream {
    let mut connection = world.connect();
    let bytes = request(CHAT, &format!("idempotency-key: {key}\r\n"), body.to_string().as_bytes());
    connection.write_all(&bytes).expect("written");
    connection
}

fn result(answer: &Answer) -> Option<&str> {
    answer.header("x-pointsman-idempotency")
}

/// Waits until so many requests had this result.
fn until_counted(world: &World, result: &str, count: u64) {
    let line = format!("pointsman_idempotency_total{{result=\"{result}\"}} {count}");
    world.until(&line, || metrics(&world.gateway).lines().any(|found| found == line));
}

fn metrics(gateway: &Gateway) -> String {
    use pointsman::telemetry::metrics::Surroundings;
    let app = &gateway.app;
    app.metrics.idempotency_state(app.idempotency.state());
    app.metrics.encode(&Surroundings {
        fleet: app.live.lock().fleet.view(pointsman_routing::Now::ZERO),
        generation: 1,
        permits: 0,
        attempts: 0,
        connections: 0,
    })
}

/// An upstream that writes what it is told to, when it is told to; it tells when a request came. What it gives at its end
/// is how long it took until the gateway closed the connection after the last order.
fn told() -> (SocketAddr, Sender<String>, Receiver<()>, JoinHandle<Option<Duration>>) {
    let (orders, taken) = channel::<String>();
    let (came, arrivals) = channel();
    let (address, served) = upstream(move |mut connection| {
        take_request(&mut connection, |_| ());
        came.send(()).expect("the test waits");
        for order in taken {
            connection.write_all(order.as_bytes()).expect("written");
        }
        let began = Instant::now();
        matches!(connection.read(&mut [0; 1]), Ok(0)).then(|| began.elapsed())
    });
    (address, orders, arrivals, served)
}

fn whole(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

#[test]
fn e7_same_key_twice_is_one_call_and_the_same_answer() {
    let world = World::new(1, "");
    for (key, body) in [("one", hello()), ("two", stream())] {
        let before = world.reached();
        let first = keyed(&world, key, &body);
        let second = keyed(&world, key, &body);
        // The draft standard puts keys in quotes; it is the same key.
        let third = keyed(&world, &format!("\"{key}\""), &body);
        assert_eq!((first.status, result(&first)), (200, None), "{first:?}");
        for again in [&second, &third] {
            assert_eq!((again.status, result(again)), (200, Some("replayed")), "{again:?}");
            assert_eq!(again.body, first.body);
            assert!(again.whole);
            assert_eq!(again.header("content-type"), first.header("content-type"));
            assert_eq!(again.header("x-pointsman-served-by"), Some("d0"));
            assert_eq!(again.header("x-pointsman-attempts"), Some("0"));
            let first_id = first.header("x-pointsman-request-id");
            assert_eq!(again.header("x-pointsman-first-request-id"), first_id);
            assert_ne!(again.header("x-pointsman-request-id"), first_id);
        }
        assert_eq!(world.reached(), before + 1);
        let record = world.record(&second);
        assert_eq!((&record["outcome"], &record["status"]), (&json!("replayed"), &json!(200)));
        assert_eq!(record["idempotency"]["first_request_id"], json!(first.header("x-pointsman-request-id")));
        assert_eq!((&record["cost_usd"], &record["usage"]), (&Value::Null, &Value::Null));
        let record = world.record(&first);
        assert_eq!(
            (&record["outcome"], &record["idempotency"]["result"]),
            (&json!("completed"), &json!("first"))
        );
    }
    assert_eq!(keyed(&world, "three", &hello()).status, 200);
    assert_eq!(world.reached(), 3, "another key is another request");
}

#[test]
fn e7_another_body_with_the_same_key_is_refused() {
    let world = World::new(1, "");
    assert_eq!(keyed(&world, "k", &hello()).status, 200);
    let mut other = hello();
    other["max_tokens"] = json!(5);
    let refused = keyed(&world, "k", &other);
    assert_eq!(
        (refused.status, refused.error("code")),
        (422, json!("idempotency_key_reused")),
        "{refused:?}"
    );
    assert_eq!(refused.error("param"), "idempotency-key");
    assert_eq!(world.record(&refused)["status"], 422);
    assert_eq!(world.reached(), 1);
}

#[test]
fn e7_other_fallback_models_are_another_request() {
    let world = World::new(1, "");
    let body = hello().to_string();
    let first = world.post(CHAT, "idempotency-key: k\r\nx-pointsman-fallback: m\r\n", body.as_bytes());
    assert_eq!(first.status, 200, "{first:?}");
    // Who may not name a model must not get its answer by the key of one who may.
    let second = keyed(&world, "k", &hello());
    assert_eq!((second.status, second.error("code")), (422, json!("idempotency_key_reused")), "{second:?}");
}

#[test]
fn e7_keys_are_each_tenants_and_routes_own() {
    let world = World::new(1, TWO_TENANTS);
    let ask = |path: &str, client: &str, body: &Value| {
        let key = client.repeat(24);
        let headers = format!("idempotency-key: k\r\nauthorization: Bearer {key}\r\n");
        world.post(path, &headers, body.to_string().as_bytes())
    };
    let completion = json!({"model": "m", "prompt": "hello", "max_tokens": 4});
    for (path, client, body) in
        [(CHAT, "a", hello()), (CHAT, "b", hello()), ("/v1/completions", "a", completion)]
    {
        let answer = ask(path, client, &body);
        assert_eq!((answer.status, result(&answer)), (200, None), "{path} {client}");
        assert_eq!(result(&ask(path, client, &body)), Some("replayed"), "{path} {client}");
    }
    assert_eq!(world.reached(), 3);
}

#[test]
fn a_malformed_key_is_named() {
    let world = World::new(1, "");
    let long = "k".repeat(256);
    for key in ["", "\"\"", "a\tb", "\u{e9}", "\"open", &long] {
        let answer = keyed(&world, key, &hello());
        assert_eq!(answer.status, 400, "{key:?} {answer:?}");
        assert_eq!(answer.error("param"), "idempotency-key", "{key:?}");
    }
    let twice =
        world.post(CHAT, "idempotency-key: a\r\nidempotency-key: b\r\n", hello().to_string().as_bytes());
    assert_eq!(twice.status, 400);
    assert_eq!(keyed(&world, "a\u{1}b", &hello()).status, 400, "hyper refuses what no header may hold");
    assert_eq!(world.reached(), 0);
    assert_eq!(keyed(&world, &"k".repeat(255), &hello()).status, 200);
}

#[test]
fn e7_the_second_of_two_at_once_waits_for_the_first() {
    let (address, orders, came, _) = told();
    let world = World::facing(address, "");
    let mut first = send(&world, "k", &hello());
    came.recv_timeout(PATIENCE).expect("the request arrives");
    let mut second = send(&world, "k", &hello());
    until_counted(&world, "joined", 1);
    let late = world.post(
        CHAT,
        "idempotency-key: k\r\nx-pointsman-deadline-ms: 20\r\n",
        hello().to_string().as_bytes(),
    );
    assert_eq!(
        (late.status, late.error("code")),
        (504, json!("deadline_exceeded")),
        "its own deadline holds"
    );
    orders.send(whole(ANSWER)).expect("it listens");
    let (first, second) = (Answer::read(&mut first), Answer::read(&mut second));
    assert_eq!((first.status, first.body.as_str(), result(&first)), (200, ANSWER, None));
    assert_eq!((second.status, second.body.as_str(), result(&second)), (200, ANSWER, Some("joined")));
    assert_eq!(world.record(&second)["outcome"], "joined");
}

#[test]
fn e8_the_leader_leaves_and_its_follower_gets_the_answer() {
    for head_first in [false, true] {
        let (address, orders, came, _) = told();
        let world = World::facing(address, "");
        let leader = send(&world, "k", &stream());
        came.recv_timeout(PATIENCE).expect("the request arrives");
        if head_first {
            orders.send(format!("{STREAM_HEAD}{}", chunk(CONTENT))).expect("it listens");
        }
        let mut follower = send(&world, "k", &stream());
        until_counted(&world, "joined", 1);
        drop(leader);
        world.until("the leader is gone", || {
            world.app().connections.load(std::sync::atomic::Ordering::Relaxed) == 1
        });
        if !head_first {
            orders.send(format!("{STREAM_HEAD}{}", chunk(CONTENT))).expect("it listens");
        }
        orders.send(format!("{}{}0\r\n\r\n", chunk(CONTENT), chunk(DONE))).expect("it listens");
        let answer = Answer::read(&mut follower);
        assert_eq!(answer.body, format!("{CONTENT}{CONTENT}{DONE}"), "{answer:?}");
        assert_eq!((result(&answer), answer.whole), (Some("joined"), true));
        let again = keyed(&world, "k", &stream());
        assert_eq!((result(&again), &again.body), (Some("replayed"), &answer.body));
        world.until("all permits are back", || world.permits() == 0);
    }
}

#[test]
fn e8_when_the_last_one_leaves_the_call_is_cancelled() {
    let (address, orders, came, served) = told();
    let world = World::facing(address, "");
    let leader = send(&world, "k", &stream());
    came.recv_timeout(PATIENCE).expect("the request arrives");
    let follower = send(&world, "k", &stream());
    until_counted(&world, "joined", 1);
    drop(leader);
    world.until("the leader is gone", || {
        world.app().connections.load(std::sync::atomic::Ordering::Relaxed) == 1
    });
    assert_eq!(world.permits(), 1, "somebody waits still");
    // From here on the upstream measures how long it takes until its connection closes.
    drop(orders);
    drop(follower);
    let closed = served.join().expect("one connection was served").expect("the gateway closes it");
    assert!(closed < Duration::from_millis(100), "{closed:?}");
    world.until("all permits are back", || world.permits() == 0);
    world.until("the key is free", || world.app().idempotency.state().0 == 0);
}

#[test]
fn e7_a_running_stream_is_joined_from_its_beginning() {
    let (address, orders, came, _) = told();
    let world = World::facing(address, "");
    let mut leader = send(&world, "k", &stream());
    came.recv_timeout(PATIENCE).expect("the request arrives");
    orders.send(format!("{STREAM_HEAD}{}", chunk(CONTENT))).expect("it listens");
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("hi") {
        let mut buffer = [0; 4096];
        let read = leader.read(&mut buffer).expect("content comes");
        seen.extend_from_slice(&buffer[..read]);
    }
    let mut follower = send(&world, "k", &stream());
    let mut so_far = Vec::new();
    while !String::from_utf8_lossy(&so_far).contains("hi") {
        let mut buffer = [0; 4096];
        let read = follower.read(&mut buffer).expect("what came so far comes at once");
        so_far.extend_from_slice(&buffer[..read]);
    }
    orders.send(format!("{}{}0\r\n\r\n", chunk(CONTENT), chunk(DONE))).expect("it listens");
    let replayed = loop {
        let answer = keyed(&world, "k", &stream());
        if result(&answer) == Some("replayed") {
            break answer;
        }
    };
    assert_eq!(replayed.body, format!("{CONTENT}{CONTENT}{DONE}"));
}

#[test]
fn what_is_not_worth_keeping_frees_its_key() {
    let status = |status, kept| (Scripted { status: Some(status), ..Default::default() }, kept);
    let cut = Scripted {
        pieces: Some(vec![CONTENT.to_owned(), CONTENT.to_owned()]),
        cut_after: Some(1),
        ..Default::default()
    };
    let done = Scripted { pieces: Some(vec![CONTENT.to_owned()]), ..Default::default() };
    for (name, (script, kept)) in [
        ("500", status(500, false)),
        ("400", status(400, true)),
        ("a cut stream", (cut, false)),
        ("a stream without its end", (done, false)),
    ] {
        let world = World::with(1, ", free: false", "    attempts_max: 1\n", "");
        world.script(0, [script]);
        let first = keyed(&world, "k", &stream());
        world.until("the request is over", || world.permits() == 0);
        let second = keyed(&world, "k", &stream());
        let expected = if kept { (Some("replayed"), first.status, 1) } else { (None, 200, 2) };
        assert_eq!(
            (result(&second), second.status, world.reached()),
            expected,
            "{name}: {first:?} {second:?}"
        );
    }
}

#[test]
fn what_the_router_refuses_frees_its_key() {
    let world = World::new(1, "");
    let tagged = "idempotency-key: k\r\nx-pointsman-tags: none-such\r\n";
    let refused = world.post(CHAT, tagged, hello().to_string().as_bytes());
    assert_eq!(refused.status, 400, "{refused:?}");
    world.until("the key is free", || world.app().idempotency.state().0 == 0);
    let answer = keyed(&world, "k", &hello());
    assert_eq!((answer.status, result(&answer)), (200, None));
}

#[test]
fn an_answer_above_the_cap_is_relayed_whole_and_not_replayed() {
    let world = World::new(1, "idempotency: { answer_bytes_max: 4096 }");
    let pieces: Vec<String> =
        std::iter::repeat_n(CONTENT.to_owned(), 20_000).chain([DONE.to_owned()]).collect();
    let bytes: usize = pieces.iter().map(String::len).sum();
    world.script(0, [Scripted { pieces: Some(pieces), ..Default::default() }]);
    let first = keyed(&world, "k", &stream());
    assert_eq!((first.status, first.body.len(), first.whole), (200, bytes, true));
    let second = keyed(&world, "k", &stream());
    assert_eq!((second.status, second.error("code")), (409, json!("idempotency_answer_not_kept")));
    let (entries, kept, _) = world.app().idempotency.state();
    assert_eq!((entries, kept, world.reached()), (1, 0, 1));
}

#[test]
fn the_oldest_answer_gives_way_and_its_key_stays_taken() {
    let world = World::new(1, "idempotency: { bytes_max: 2048 }");
    for key in ["a", "b", "c", "d"] {
        assert_eq!(keyed(&world, key, &hello()).status, 200);
    }
    assert_eq!(result(&keyed(&world, "d", &hello())), Some("replayed"));
    assert_eq!(keyed(&world, "a", &hello()).status, 409);
    let (entries, bytes, evicted) = world.app().idempotency.state();
    assert!(entries == 4 && evicted > 0 && bytes <= 2048, "{entries} {bytes} {evicted}");
    assert_eq!(world.reached(), 4);
    let text = metrics(&world.gateway);
    for line in [
        "pointsman_idempotency_total{result=\"first\"} 4",
        "pointsman_idempotency_total{result=\"replayed\"} 1",
        "pointsman_idempotency_total{result=\"spent\"} 1",
        "pointsman_idempotency_entries 4",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn with_no_entries_the_header_means_nothing() {
    let world = World::new(1, "idempotency: { entries_max: 0 }");
    for _ in 0..2 {
        let answer = keyed(&world, "k", &hello());
        assert_eq!((answer.status, result(&answer)), (200, None));
    }
    assert_eq!(keyed(&world, "", &hello()).status, 200);
    assert_eq!(world.reached(), 3);
}

#[test]
fn e7_keys_hold_across_workers() {
    let mut world = World::new(1, "");
    let mock = world.mocks[0].address();
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 4\n\
         providers: {{ p: {{ kind: mock, base_url: 'http://{mock}', health: off }} }}\n\
         models: {{ m: {{ deployments: [ {{ provider: p }} ] }} }}\n"
    );
    world.gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
    let slow = Scripted { delay_ms: 50, ..Default::default() };
    world.script(0, [slow]);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..24).map(|_| scope.spawn(|| keyed(&world, "k", &stream()))).collect();
        asked.into_iter().map(|one| one.join().expect("answered")).collect()
    });
    assert_eq!(world.reached(), 1);
    assert!(
        answers.iter().all(|answer| answer.status == 200 && answer.whole && answer.body == answers[0].body)
    );
    assert_eq!(answers.iter().filter(|answer| result(answer).is_none()).count(), 1);
    world.until("all permits are back", || world.permits() == 0);
}
