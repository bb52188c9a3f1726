//! Who waits for a slot, as clients, operators and metrics meet it: the class by header, key and model, what a key may not
//! ask for, and what the record says of the wait.

mod support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use support::{Answer, World, hello};

const KEYS: &str = "auth:\n  keys:\n    \
    - { name: plain, tenant: acme, key: plain-key-1 }\n    \
    - { name: chat, tenant: acme, key: chat-key-22, headers: [priority, lane, deadline_ms] }\n    \
    - { name: ops, tenant: ops, key: ops-key-333, headers: [priority], priority_max: system, priority: interactive }\n    \
    - { name: jobs, tenant: jobs, key: jobs-key-44, lane: batch }\ntenants: { ops: { weight: 3 } }\n";

fn ask(world: &World, key: &str, headers: &str) -> Answer {
    let headers = format!("authorization: Bearer {key}\r\n{headers}");
    world.post("/v1/chat/completions", &headers, hello().to_string().as_bytes())
}

fn rank(world: &World, answer: &Answer) -> (Value, Value) {
    let record = world.record(answer);
    (record["facts"]["lane"].clone(), record["facts"]["class"].clone())
}

#[test]
fn the_class_is_the_requests_or_the_keys_or_the_models() {
    let world = World::new(1, KEYS);
    let ranked = World::with(1, "", "    priority: system\n    lane: batch\n", KEYS);
    for (world, key, headers, lane, class) in [
        (&world, "plain-key-1", "", "live", "standard"),
        (&world, "plain-key-1", "x-pointsman-priority: interactive\r\n", "live", "standard"),
        (&world, "chat-key-22", "x-pointsman-priority: interactive\r\n", "live", "interactive"),
        (&world, "chat-key-22", "x-pointsman-priority: batch\r\n", "live", "batch"),
        (&world, "chat-key-22", "x-pointsman-lane: batch\r\n", "batch", "batch"),
        (&world, "ops-key-333", "", "live", "interactive"),
        (&world, "ops-key-333", "x-pointsman-priority: system\r\n", "live", "system"),
        (&world, "jobs-key-44", "", "batch", "batch"),
        (&ranked, "chat-key-22", "x-pointsman-lane: live\r\n", "batch", "interactive"),
        (&ranked, "plain-key-1", "", "batch", "interactive"),
        (&ranked, "ops-key-333", "x-pointsman-priority: standard\r\n", "batch", "standard"),
    ] {
        let answer = ask(world, key, headers);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(rank(world, &answer), (json!(lane), json!(class)), "{key} {headers}");
    }
}

#[test]
fn a_class_that_is_unknown_or_too_high_is_refused_and_nothing_is_sent() {
    let world = World::new(1, KEYS);
    for (class, status, code, says) in [
        ("urgent", 400, json!(null), "`interactive`"),
        ("system", 403, json!("priority_not_allowed"), "`priority_max`"),
    ] {
        let answer = ask(&world, "chat-key-22", &format!("x-pointsman-priority: {class}\r\n"));
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.error("param"), json!("x-pointsman-priority"));
        if status == 403 {
            assert_eq!(answer.error("code"), code);
        }
        assert!(answer.body.contains(says), "{}", answer.body);
    }
    assert_eq!(world.reached(), 0);
}

fn metrics(world: &World) -> String {
    let app = world.app();
    let (fleet, permits) = {
        let live = app.live.lock();
        (live.fleet.view(pointsman::clock::now()), live.fleet.permits_in_use())
    };
    let around = pointsman::telemetry::metrics::Surroundings {
        fleet,
        generation: 1,
        permits,
        attempts: permits,
        connections: 0,
    };
    app.metrics.encode(&around)
}

#[test]
fn who_waits_is_seen_while_it_does_and_its_record_says_where_it_stood() {
    let world = Arc::new(World::with(1, ", slots: 1", "", KEYS));
    world.mocks[0].control().set(|settings| {
        settings.slots = 0;
        settings.first_token_ms = 2_000;
    });
    let depth = |world: &World| {
        let view = world.app().live.lock().fleet.view(pointsman::clock::now());
        view.models[0].queue_depth
    };
    let mut asked = Vec::new();
    for (number, (key, class)) in
        [("plain-key-1", ""), ("plain-key-1", ""), ("chat-key-22", "x-pointsman-priority: interactive\r\n")]
            .into_iter()
            .enumerate()
    {
        let own = Arc::clone(&world);
        asked.push(std::thread::spawn(move || ask(&own, key, class)));
        world.until("it is there", || depth(&world) == number && world.permits() == 1);
        if number == 0 {
            world.until("it holds the slot", || world.reached() == 1);
            world.mocks[0].control().set(|settings| settings.first_token_ms = 50);
        }
    }
    let view = world.app().live.lock().fleet.view(pointsman::clock::now()).models.remove(0);
    let seen: Vec<_> =
        view.queue.iter().map(|class| (class.class, class.depth, class.tenants.len())).collect();
    assert_eq!(seen, [("interactive", 1, 1), ("standard", 1, 1)]);
    let text = metrics(&world);
    for line in [
        "pointsman_class_queue_depth{model=\"m\",lane=\"live\",class=\"interactive\"} 1",
        "pointsman_tenant_queue_depth{model=\"m\",lane=\"live\",class=\"standard\",tenant=\"acme\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let answers: Vec<Answer> = asked.into_iter().map(|one| one.join().expect("an answer")).collect();
    let records: Vec<Value> = answers.iter().map(|answer| world.record(answer)).collect();
    let waited = |record: &Value| record["queue_us"].as_u64().expect("a time");
    assert_eq!(waited(&records[0]), 0);
    assert!(waited(&records[2]) < waited(&records[1]), "the more important was first, though it came later");
    let queued = &records[1]["decisions"][0]["outcome"];
    assert_eq!((&queued["kind"], &queued["ahead"]), (&json!("queued"), &json!(0)));
    assert_eq!(queued["ahead_of_tenant"], json!(0));
    let told = queued["waited_us"].as_u64().expect("a time");
    // Until the slot was granted; the request takes it up a moment later.
    assert!((1..=waited(&records[1])).contains(&told), "{told} {}", waited(&records[1]));
    let in_header: u64 =
        answers[1].header("x-pointsman-queue-ms").and_then(|ms| ms.parse().ok()).expect("it");
    assert_eq!(Duration::from_millis(in_header).as_millis(), u128::from(waited(&records[1]) / 1000));
    let text = metrics(&world);
    for line in [
        "pointsman_class_queue_wait_seconds_count{model=\"m\",lane=\"live\",class=\"interactive\"} 1",
        "pointsman_class_queue_wait_seconds_count{model=\"m\",lane=\"live\",class=\"standard\"} 1",
        "pointsman_tenant_queue_wait_seconds_count{tenant=\"acme\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}
