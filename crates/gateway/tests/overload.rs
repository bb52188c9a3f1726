//! Too much of everything: who is turned away, in which order, and what they are told.

mod support;

use std::io::{Read, Write};

use serde_json::json;
use support::{Answer, World, hello, request};

fn ask(world: &World, lane: &str) -> Answer {
    let headers = format!("x-pointsman-lane: {lane}\r\n");
    world.post("/v1/chat/completions", &headers, hello().to_string().as_bytes())
}

fn shed(answer: &Answer) -> Option<&str> {
    answer.header("x-pointsman-decision")?.strip_prefix("shed:")
}

#[test]
fn b11_memory_turns_away_batch_then_everybody_then_connections() {
    let world = World::new(1, "");
    let memory = |used| world.app().memory.note(used, Some(100));
    for (used, live, batch) in [
        (50, None, None),
        (86, None, Some("memory_batch")),
        (93, Some("memory_new"), Some("memory_new")),
        (50, None, None),
    ] {
        memory(used);
        for (lane, expected) in [("live", live), ("batch", batch)] {
            let reached = world.reached();
            let answer = ask(&world, lane);
            assert_eq!(shed(&answer), expected, "{lane} at {used}: {answer:?}");
            if let Some(reason) = expected {
                assert_eq!((answer.status, answer.error("code")), (503, json!("overloaded")));
                assert_eq!(answer.header("retry-after"), Some("2"));
                assert_eq!(answer.header("connection"), Some("close"), "its body was not read");
                assert_eq!(world.reached(), reached, "nothing is sent");
                let record = world.record(&answer);
                assert_eq!((&record["outcome"], &record["detail"]), (&json!("rejected"), &json!(reason)));
            } else {
                assert_eq!(answer.status, 200);
            }
        }
    }
    memory(96);
    let mut connection = world.connect();
    let mut said = Vec::new();
    // Closed or reset before a word was said.
    let _ = connection.read_to_end(&mut said);
    assert!(said.is_empty());
    memory(50);
    assert_eq!(ask(&world, "live").status, 200);
}

#[test]
fn b11_who_is_turned_away_is_told_before_its_body_is_read() {
    let world = World::new(1, "");
    world.app().memory.note(93, Some(100));
    let mut connection = world.connect();
    let whole = request("/v1/chat/completions", "", hello().to_string().as_bytes());
    let head = whole.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    connection.write_all(&whole[..head]).expect("sent");
    assert_eq!(Answer::read(&mut connection).status, 503, "not a byte of the body was sent");
}

#[test]
fn b11_what_is_under_way_is_not_touched() {
    let world = World::new(1, "");
    let mut connection = world.connect();
    let headers = "expect: 100-continue\r\n";
    let whole = request("/v1/chat/completions", headers, hello().to_string().as_bytes());
    let head = whole.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    connection.write_all(&whole[..head]).expect("sent");
    let mut wanted = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    connection.read_exact(&mut wanted).expect("its body is wanted");
    world.app().memory.note(99, Some(100));
    connection.write_all(&whole[head..]).expect("sent");
    let answer = Answer::read(&mut connection);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
}
