//! Answers that fail, stall, break off, and clients that leave.

mod support;

use std::io::{Read, Write};
use std::time::Duration;

use pointsman::mock::{Scripted, Settings};
use serde_json::json;
use support::binary::{Binary, one, send};
use support::{Answer, World, hello, request, stream, take_request, upstream};

const CONTENT: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";

fn pieces(pieces: &[&str]) -> Scripted {
    Scripted { pieces: Some(pieces.iter().map(|piece| (*piece).to_owned()).collect()), ..Default::default() }
}

fn status(status: u16) -> Scripted {
    Scripted { status: Some(status), ..Default::default() }
}

/// A server that closes what it accepts, and one that is not there.
fn served_by(answer: &Answer) -> Option<&str> {
    answer.header("x-pointsman-served-by")
}

#[test]
fn d2_an_error_whose_words_do_not_come_is_known_by_its_head() {
    let world = World::new(2, "");
    world.script(0, [Scripted { status: Some(503), hang_after: Some(0), ..Default::default() }]);
    let answer = world.chat(&stream());
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d1")), "{answer:?}");
    let record = world.record(&answer);
    assert_eq!(record["attempts"][0]["failure"]["status"], 503, "{record}");
}

#[test]
fn failures_before_content_are_somebody_elses_turn() {
    let retry = |code| Scripted { retry_after: Some("1".to_owned()), ..status(code) };
    for (name, script) in [
        ("429", retry(429)),
        ("503 with retry-after", retry(503)),
        ("404", status(404)),
        ("401", status(401)),
        (
            "d2 error event",
            pieces(&["data: {\"error\":{\"message\":\"boom\",\"type\":\"server_error\"}}\n\n"]),
        ),
        ("d2 empty stream", pieces(&["data: [DONE"])),
        ("500 of an own engine", status(500)),
        ("closed without an answer", Scripted { close: true, ..Default::default() }),
    ] {
        let world = World::new(2, "");
        world.script(0, [script]);
        let answer = world.chat(&stream());
        assert_eq!((answer.status, served_by(&answer)), (200, Some("d1")), "{name}: {answer:?}");
        assert_eq!(answer.header("x-pointsman-attempts"), Some("2"), "{name}");
        assert!(answer.body.ends_with("data: [DONE]\n\n"), "{name}");
        let record = world.record(&answer);
        assert_eq!(record["attempts"][0]["deployment"], "d0", "{name}");
        assert!(record["attempts"][0]["failure"]["class"].is_string(), "{name}: {record}");
        world.until("all permits are back", || world.permits() == 0);
    }
}

#[test]
fn d2_a_stall_before_content_is_somebody_elses_turn() {
    let world = World::new(2, "timeouts: { first_content_ms: 200 }");
    world.script(0, [Scripted { hang_after: Some(0), ..Default::default() }]);
    let answer = world.chat(&stream());
    assert_eq!((answer.status, served_by(&answer)), (200, Some("d1")), "{answer:?}");
    world.until("the stalled call is cancelled", || world.stats(0).cancelled == 1);
}

#[test]
fn paid_generations_are_never_sent_twice() {
    for script in [status(502), status(504), Scripted { close: true, ..Default::default() }] {
        let world = World::with(2, ", free: false", "", "");
        world.script(0, [script]);
        let answer = world.chat(&hello());
        assert!(answer.status >= 500, "{answer:?}");
        assert_eq!(answer.error("who"), "provider:m0");
        assert_eq!((world.stats(0).requests, world.stats(1).requests), (1, 0));
    }
}

#[test]
fn a_clients_fault_is_passed_on_in_the_providers_words() {
    let world = World::new(2, "");
    let body = r#"{"error":{"message":"prompt too long","type":"exceed_context_size_error","code":400,"n_ctx":512}}"#;
    world.script(0, [Scripted { status: Some(400), ..pieces(&[body]) }]);
    let answer = world.chat(&hello());
    assert_eq!(
        (answer.status, answer.error("message"), answer.error("n_ctx")),
        (400, json!("prompt too long"), json!(512))
    );
    assert_eq!(answer.error("who"), "provider:m0");
    assert_eq!(world.stats(1).requests, 0);
}

#[test]
fn i1_redirects_are_not_followed() {
    let world = World::with(1, ", keys: [the-providers-key]", "", "");
    let headers = [("location".to_owned(), "http://127.0.0.1:1/".to_owned())].into();
    world.script(0, [Scripted { headers, ..status(302) }]);
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.header("location")), (502, None), "{answer:?}");
    assert!(answer.body.contains("its status is 302, and redirects are not followed"), "{answer:?}");
}

#[test]
fn d3_a_death_after_content_is_told_in_band() {
    let world = World::new(2, "");
    world.script(
        0,
        [Scripted { piece_delay_ms: 20, cut_after: Some(2), ..pieces(&[CONTENT, CONTENT, CONTENT]) }],
    );
    let answer = world.chat(&stream());
    assert_eq!((answer.status, answer.whole), (200, true));
    assert!(answer.body.contains("\"error\"") && answer.body.contains("provider:m0"), "{}", answer.body);
    assert!(!answer.body.contains("[DONE]") && !answer.body.contains("\"stop\""), "{}", answer.body);
    assert_eq!(world.stats(1).requests, 0, "no failover after content");
    let record = world.record(&answer);
    assert_eq!(record["outcome"], "truncated");
    let reason = record["detail"].as_str().expect("why");
    let counted = format!("pointsman_stream_truncated_total{{reason=\"{reason}\"}} 1");
    assert!(world.metrics().contains(&counted), "{counted}: {}", world.metrics());
}

#[test]
fn d3_a_death_after_content_is_told_in_every_dialect_and_counted() {
    let world = World::new(1, "");
    let contents = r#"{"contents":[{"role":"user","parts":[{"text":"x"}]}]}"#;
    let messages = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    for (count, (path, body, error, ends)) in (1..).zip([
        ("/v1/chat/completions", messages, "data: {\"error\"", "[DONE]"),
        ("/v1/messages", messages, "event: error", "message_stop"),
        ("/v1beta/models/m:streamGenerateContent?alt=sse", contents, "data: {\"error\"", "finishReason"),
        ("/api/chat", messages, "{\"error\"", "\"done\":true"),
        ("/v1/responses", r#"{"model":"m","stream":true,"input":"x"}"#, "error", "response.completed"),
    ]) {
        let said = if path == "/v1/responses" { RESPONSE } else { CONTENT };
        world.script(0, [Scripted { piece_delay_ms: 20, cut_after: Some(1), ..pieces(&[said, said]) }]);
        let answer = world.post(path, "", body.as_bytes());
        assert!(answer.status == 200 && answer.body.contains(error), "{path}: {answer:?}");
        assert!(!answer.body.contains(ends), "{path}: {answer:?}");
        assert_eq!(world.record(&answer)["outcome"], "truncated", "{path}");
        assert_eq!(truncated(&world.metrics()), count, "{path}");
    }
}

const RESPONSE: &str =
    "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n";

/// Answers that broke off, for whatever reason.
fn truncated(metrics: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with("pointsman_stream_truncated_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[test]
fn d3_an_unstreamed_answer_that_breaks_off_is_visibly_broken() {
    let world = World::with(1, ", free: false", "", "");
    let half = r#"{"id":"x","choices":[{"message":{"content":"ha"#;
    world.script(0, [Scripted { piece_delay_ms: 20, cut_after: Some(1), ..pieces(&[half, "lf"]) }]);
    let answer = world.chat(&hello());
    assert!(!answer.whole, "{answer:?}");
    assert_eq!(world.record(&answer)["outcome"], "truncated");
}

const FINISH: &str =
    "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";

#[test]
fn d3_a_connection_that_closes_is_no_proper_end() {
    for (events, proper) in [
        (vec![CONTENT, CONTENT], false),
        (vec![CONTENT, CONTENT, FINISH], true),
        (vec![CONTENT, CONTENT, "data: [DONE]\n\n"], true),
    ] {
        let body = events.concat();
        let text = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{body}");
        let (address, served) = upstream(move |mut connection| {
            take_request(&mut connection, |_| ());
            connection.write_all(text.as_bytes()).expect("written");
        });
        let world = World::facing(address, "");
        let answer = world.chat(&stream());
        served.join().expect("the upstream served");
        let record = world.record(&answer);
        assert!(answer.status == 200 && answer.whole, "{answer:?}");
        let after = answer.body.strip_prefix(&body).expect("what came is relayed");
        let view = world.app().live.lock().fleet.view(pointsman::clock::now());
        assert_eq!(view.models[0].deployments[0].failures_in_a_row, u32::from(!proper));
        if proper {
            assert_eq!((after, &record["outcome"]), ("", &json!("completed")), "{record}");
            assert_eq!(record["usage"]["truncated"], false);
        } else {
            assert!(after.contains("the stream ended before its last event"), "{after}");
            assert!(!answer.body.contains("[DONE]") && !answer.body.contains("\"stop\""), "{answer:?}");
            assert_eq!((&record["outcome"], &record["detail"]), (&json!("truncated"), &json!("protocol")));
            assert_eq!(record["attempts"][0]["failure"]["class"], "protocol");
        }
    }
}

#[test]
fn d3_what_came_before_the_end_is_relayed_before_the_error() {
    // The content and the loss of the connection are read in one go.
    let (address, served) = upstream(|mut connection| {
        take_request(&mut connection, |_| ());
        let (first, second) = (CONTENT, CONTENT.repeat(3));
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let text = format!("{head}{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n", first.len(), second.len());
        connection.write_all(text.as_bytes()).expect("written");
    });
    let world = World::facing(address, "");
    let answer = world.chat(&stream());
    served.join().expect("the upstream served");
    let after = answer.body.strip_prefix(&CONTENT.repeat(4)).expect("what came is relayed");
    assert!(after.starts_with("data: {\"error\""), "{after}");
}

#[test]
fn d3_an_error_event_does_not_become_part_of_a_long_event() {
    let world = World::new(1, "");
    let long = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}", "x".repeat(3 << 19));
    world.script(0, [Scripted { piece_delay_ms: 20, cut_after: Some(2), ..pieces(&[CONTENT, &long, "x"]) }]);
    let mut body = stream();
    body["stream_options"] = json!({"include_usage": true});
    let answer = world.chat(&body);
    let after = answer.body.strip_prefix(&format!("{CONTENT}{long}")).expect("what came is relayed");
    assert!(after.starts_with("\n\ndata: {\"error\""), "{after}");
}

#[test]
fn d16_a_long_event_is_passed_on() {
    let world = World::new(1, "");
    let image = "x".repeat(3 << 19);
    let delta = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n";
    let last = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"image\":\"{image}\"}}\n\n"
    );
    world.script(0, [pieces(&[delta, &last])]);
    let body = json!({"model": "m", "stream": true, "input": "hello"});
    let answer = world.post("/v1/responses", "", body.to_string().as_bytes());
    assert!(answer.body == format!("{delta}{last}"), "{} bytes came", answer.body.len());
    let record = world.record(&answer);
    assert_eq!((&record["outcome"], &record["usage"]["truncated"]), (&json!("completed"), &json!(false)));
}

#[test]
fn an_answer_that_begins_early_still_gets_the_whole_request() {
    let (relayed, seen) = std::sync::mpsc::channel();
    let (address, served) = upstream(move |mut connection| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n{ ";
        let taken = take_request(&mut connection, |connection| {
            connection.write_all(head.as_bytes()).expect("written");
            seen.recv().expect("the client has seen the beginning");
        });
        connection.write_all(b" }").expect("written");
        taken
    });
    let world = World::facing(address, "");
    let mut body = hello();
    body["messages"][0]["content"] = json!("y".repeat(8_000_000));
    let mut client = world.connect();
    client.write_all(&request("/v1/chat/completions", "", body.to_string().as_bytes())).expect("written");
    assert!(client.peek(&mut [0; 1]).expect("the answer begins") == 1);
    relayed.send(()).expect("the upstream waits");
    let answer = Answer::read(&mut client);
    assert_eq!((answer.status, &*answer.body), (200, "{  }"), "{answer:?}");
    assert!(served.join().expect("the upstream served") > 8_000_000);
}

#[test]
fn an_answer_without_the_whole_request_counts() {
    let (address, served) = upstream(|mut connection| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n{ ";
        // What is not read resets the connection once it is closed, so the rest is read after the answer.
        take_request(&mut connection, |connection| {
            connection.write_all(head.as_bytes()).expect("written");
            connection.write_all(b" }").expect("written");
        });
    });
    let world = World::facing(address, "");
    let mut body = hello();
    body["messages"][0]["content"] = json!("y".repeat(8_000_000));
    let answer = world.chat(&body);
    assert_eq!((answer.status, &*answer.body), (200, "{  }"), "{answer:?}");
    drop(world);
    served.join().expect("the upstream served");
}

#[test]
fn d4_odd_events_in_the_middle_pass_as_they_are() {
    let world = World::new(1, "");
    let odd = "data: {not json\n\n";
    world.script(0, [pieces(&[CONTENT, odd, ": comment\n\n", CONTENT, "data: [DONE]\n\n"])]);
    let answer = world.chat(&stream());
    assert_eq!(answer.body, format!("{CONTENT}{odd}: comment\n\n{CONTENT}data: [DONE]\n\n"));
}

#[test]
fn d1_events_pass_byte_for_byte_however_they_are_cut() {
    let text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h\u{e9}\u{1F600}\"}}]}\r\n\r\n: x\r\n\r\ndata: [DONE]\r\n\r\n";
    let world = World::new(1, "");
    let script =
        Scripted { piece_delay_ms: 1, ..pieces(&text.split_inclusive(|_| true).collect::<Vec<_>>()) };
    world.script(0, [script]);
    assert_eq!(world.chat(&stream()).body, text);
}

#[test]
fn d5_a_stream_without_its_end_is_cut() {
    let world = World::new(1, "");
    world.script(0, [pieces(&[CONTENT]), pieces(&[CONTENT, FINISH])]);
    let answer = world.chat(&stream());
    let after = answer.body.strip_prefix(CONTENT).expect("what came is relayed");
    assert!(after.starts_with("data: {\"error\"") && !after.contains("[DONE]"), "{after}");
    let record = world.record(&answer);
    assert_eq!((&record["outcome"], &record["usage"]["truncated"]), (&json!("truncated"), &json!(true)));
    let answer = world.chat(&stream());
    assert_eq!(answer.body, format!("{CONTENT}{FINISH}"), "some leave `[DONE]` out");
    assert_eq!(world.record(&answer)["outcome"], "completed");
    let counted = "pointsman_stream_truncated_total{reason=\"protocol\"} 1";
    assert!(world.metrics().contains(counted), "{}", world.metrics());
}

#[test]
fn d5_a_stream_without_its_end_has_none_in_another_dialect() {
    let world = World::new(1, "");
    let contents = r#"{"contents":[{"role":"user","parts":[{"text":"x"}]}]}"#;
    let messages = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    for (count, (path, body, ends)) in (1..).zip([
        ("/v1/messages", messages, "message_stop"),
        ("/v1beta/models/m:streamGenerateContent?alt=sse", contents, "finishReason"),
        ("/api/chat", messages, "\"done\":true"),
    ]) {
        world.script(0, [pieces(&[CONTENT])]);
        let answer = world.post(path, "", body.as_bytes());
        assert!(answer.body.contains("hi") && !answer.body.contains(ends), "{path}: {answer:?}");
        assert_eq!(world.record(&answer)["usage"]["truncated"], true, "{path}");
        assert_eq!(truncated(&world.metrics()), count, "{path}");
    }
}

#[test]
fn d3_d5_answers_without_their_end_are_in_the_log_and_the_metrics() {
    let binary = Binary::start(&one());
    let ask = || {
        let sent = request("/v1/chat/completions", "", stream_for("m").to_string().as_bytes());
        send(&binary.client, &sent)
    };
    binary.mock.control().script([
        pieces(&[CONTENT]),
        Scripted { piece_delay_ms: 20, cut_after: Some(1), ..pieces(&[CONTENT, CONTENT]) },
    ]);
    for _ in 0..2 {
        let answer = ask();
        let id = answer.header("x-pointsman-request-id").expect("an id").to_owned();
        binary.until("it is in the log", || {
            let log = binary.log();
            let line = log.lines().find(|line| line.contains(&id) && line.contains("truncated"));
            line.is_some_and(|line| line.contains("INFO"))
        });
    }
    binary.until("both are counted", || truncated(&binary.admin("GET", "/metrics", "", "").body) == 2);
}

fn stream_for(model: &str) -> serde_json::Value {
    let mut body = stream();
    body["model"] = json!(model);
    body
}

/// Bytes of the long line.
const LINE_BYTES: usize = 50_000_000;

/// A server that answers everybody with one event of [`LINE_BYTES`], after a short one.
fn endless_lines() -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.expect("the gateway connects");
            std::thread::spawn(move || {
                take_request(&mut connection, |_| ());
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n";
                let begin = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"";
                let end = "\"}}]}\n\ndata: [DONE]\n\n";
                let length = CONTENT.len() + begin.len() + LINE_BYTES + end.len();
                // A gateway that has seen enough closes the connection.
                let mut say = |bytes: &[u8]| connection.write_all(bytes).is_ok();
                let all = say(format!("{head}content-length: {length}\r\n\r\n{CONTENT}{begin}").as_bytes())
                    && (0..LINE_BYTES / 10_000).all(|_| say(&[b'x'; 10_000]));
                let _ = all && say(end.as_bytes());
            });
        }
    });
    address
}

/// The most memory that a process had so far, bytes.
fn memory_max(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it is told");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn d16_a_line_of_50_mb_passes_or_ends_in_an_error_event_and_is_never_kept() {
    let address = endless_lines();
    let binary = Binary::start(&format!(
        "workers: 1\nproviders: {{ p: {{ kind: mock, base_url: 'http://{address}', health: off }} }}\n\
         models: {{ m: {{ deployments: [ {{ name: a, provider: p }} ] }} }}\n"
    ));
    let before = memory_max(binary.child.id());
    let messages = r#"{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    let mut shown = stream();
    shown["stream_options"] = json!({"include_usage": true});
    let ask = |path: &str, body: &str| send(&binary.client, &request(path, "", body.as_bytes()));
    // In its own dialect it is relayed as it comes.
    let whole = ask("/v1/chat/completions", &shown.to_string());
    assert!(whole.whole && whole.body.len() > LINE_BYTES && whole.body.ends_with("data: [DONE]\n\n"));
    // In another it would have to be read as a whole first.
    let converted = ask("/v1/messages", messages);
    let body = &converted.body;
    assert!(converted.whole && body.len() < 10_000 && body.contains("event: error"), "{body}");
    assert!(body.contains("longer than the 1048576 bytes") && !body.contains("message_stop"), "{body}");
    let gemini =
        ask("/v1beta/models/m:streamGenerateContent?alt=sse", r#"{"contents":[{"parts":[{"text":"x"}]}]}"#);
    assert!(gemini.body.contains("longer than the 1048576 bytes"), "{gemini:?}");
    let few = memory_max(binary.child.id()) - before;
    assert!(few < 16 << 20, "{few} bytes more than before");
    // Where an event may be the one that the client did not ask for, it is held back up to a bound.
    let withheld = ask("/v1/chat/completions", &stream().to_string());
    let body = &withheld.body;
    assert!(withheld.whole && body.len() < 10_000 && body.contains("\"error\""), "{body}");
    assert!(body.contains("longer than the 16777216 bytes") && !body.contains("[DONE]"), "{body}");
    let more = memory_max(binary.child.id()) - before;
    assert!(more < 45_000_000, "{more} bytes more than before");
    binary.until("all that broke off is counted", || {
        truncated(&binary.admin("GET", "/metrics", "", "").body) == 3
    });
}

#[test]
fn d6_silence_between_chunks_ends_in_an_error_event() {
    let world = World::new(1, "timeouts: { idle_ms: 200 }");
    world.script(0, [Scripted { hang_after: Some(2), ..Default::default() }]);
    let answer = world.chat(&stream());
    assert!(answer.whole && answer.body.contains("upstream_timeout"), "{}", answer.body);
    world.until("the upstream is cancelled", || world.stats(0).cancelled == 1);
    assert_eq!(world.record(&answer)["detail"], "idle_timeout");
}

#[test]
fn d7_who_leaves_the_queue_is_never_sent() {
    let world = World::with(1, ", slots: 1", "", "");
    world.script(0, [Scripted { hang: true, ..Default::default() }]);
    let mut first = world.connect();
    first.write_all(&request("/v1/chat/completions", "", hello().to_string().as_bytes())).expect("written");
    world.until("the slot is taken", || world.stats(0).requests == 1);
    let mut second = world.connect();
    second.write_all(&request("/v1/chat/completions", "", hello().to_string().as_bytes())).expect("written");
    let depth = || world.app().live.lock().fleet.view(pointsman::clock::now()).models[0].queue_depth;
    world.until("the second waits", || depth() == 1);
    drop(second);
    world.until("it left the queue", || depth() == 0);
    drop(first);
    world.until("the first is cancelled", || world.stats(0).cancelled == 1 && world.permits() == 0);
    assert_eq!(world.stats(0).requests, 1);
    let newest = world.app().ring.newest(10);
    assert!(newest.iter().any(|record| record.detail.as_deref() == Some("queued") && record.status == 499));
}

#[test]
fn d8_d9_d10_a_client_that_leaves_cancels_its_call() {
    for (name, body, script, read_some) in [
        ("d8 before content", stream(), Scripted { hang: true, ..Default::default() }, false),
        ("d9 mid-stream", stream(), Scripted { hang_after: Some(2), ..Default::default() }, true),
        ("d10 unstreamed", hello(), Scripted { hang: true, ..Default::default() }, false),
    ] {
        let world = World::new(2, "");
        world.script(0, [script]);
        let mut client = world.connect();
        client.write_all(&request("/v1/chat/completions", "", body.to_string().as_bytes())).expect("written");
        world.until("the call is under way", || world.stats(0).inflight == 1);
        if read_some {
            assert!(client.read(&mut [0; 64]).expect("content") > 0);
        }
        drop(client);
        world.until("the call is cancelled", || world.stats(0).cancelled == 1);
        world.until("the permit is back", || world.permits() == 0);
        assert_eq!(world.stats(1).requests, 0, "{name}: nobody else is asked");
    }
}

#[test]
fn d7_d8_d10_who_sent_more_than_its_request_is_seen_to_leave() {
    let second = request("/v1/chat/completions", "", hello().to_string().as_bytes());
    for (name, more) in
        [("a line end", b"\r\n".to_vec()), ("a second request", second), ("a byte", b"P".to_vec())]
    {
        for (phase, body, script, slots) in [
            ("d8 before content", stream(), Scripted { hang: true, ..Default::default() }, ""),
            ("d9 mid-stream", stream(), Scripted { hang_after: Some(2), ..Default::default() }, ""),
            ("d10 unstreamed", hello(), Scripted { hang: true, ..Default::default() }, ""),
            ("d7 queued", hello(), Scripted { hang: true, ..Default::default() }, ", slots: 1"),
        ] {
            let world = World::with(1, slots, "", "");
            world.script(0, [script]);
            let sent = request("/v1/chat/completions", "", body.to_string().as_bytes());
            let depth = || world.app().live.lock().fleet.view(pointsman::clock::now()).models[0].queue_depth;
            let mut first = world.connect();
            first.write_all(&[&sent[..], &more].concat()).expect("written");
            world.until("the call is under way", || world.stats(0).inflight == 1);
            if !slots.is_empty() {
                let mut waiting = world.connect();
                waiting.write_all(&[&sent[..], &more].concat()).expect("written");
                world.until("the second waits", || depth() == 1);
                drop(waiting);
                world.until("it left the queue", || depth() == 0);
            }
            drop(first);
            world.until("the call is cancelled", || world.stats(0).cancelled == 1);
            world.until("the permit is back", || world.permits() == 0);
            assert_eq!(world.reached(), 1, "{phase}, {name}: nothing more was sent");
        }
    }
}

#[test]
fn what_comes_after_a_request_is_kept_for_the_next() {
    let world = World::new(1, "");
    world.script(0, [Scripted { delay_ms: 100, ..Default::default() }]);
    let sent = request("/v1/chat/completions", "", hello().to_string().as_bytes());
    let mut client = world.connect();
    client.write_all(&[&sent[..], b"\r\n"].concat()).expect("written");
    world.until("the call is under way", || world.stats(0).inflight == 1);
    // The server's buffer is not empty now, so this one is read ahead of it, in pieces.
    let second = request("/v1/chat/completions", "", stream().to_string().as_bytes());
    for piece in second.chunks(second.len() / 2) {
        client.write_all(piece).expect("written");
    }
    assert_eq!(Answer::read(&mut client).status, 200);
    client.set_read_timeout(Some(support::PATIENCE)).expect("a timeout can be set");
    let answer = Answer::read(&mut client);
    assert!(answer.status == 200 && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
}

#[test]
fn d12_streams_are_not_compressed_or_cached() {
    let world = World::new(1, "");
    let answer =
        world.post("/v1/chat/completions", "accept-encoding: gzip\r\n", stream().to_string().as_bytes());
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(answer.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(world.stats(0).last_headers["accept-encoding"], "identity");
}

#[test]
fn d13_usage_is_known_always_and_shown_when_asked() {
    let world = World::new(1, "");
    for (asked, shown) in [
        (json!(null), false),
        (json!({"include_usage": false}), false),
        (json!({"include_usage": true}), true),
    ] {
        let mut body = stream();
        body["stream_options"] = asked.clone();
        let answer = world.chat(&body);
        assert_eq!(answer.body.contains("\"usage\""), shown, "{asked}: {}", answer.body);
        let usage = &world.record(&answer)["usage"];
        assert_eq!((&usage["tokens_out"], &usage["estimated"]), (&json!(4), &json!(false)), "{asked}");
    }
}

#[test]
fn a_full_queue_and_a_long_wait_get_503_with_retry_after() {
    for (extra, code) in
        [("queue: { requests_max: 0 }", "queue_full"), ("queue: { wait_ms_max: 100 }", "queue_timeout")]
    {
        let world = World::with(1, ", slots: 1", "", extra);
        world.script(0, [Scripted { hang: true, ..Default::default() }]);
        let mut first = world.connect();
        first
            .write_all(&request("/v1/chat/completions", "", hello().to_string().as_bytes()))
            .expect("written");
        world.until("the slot is taken", || world.stats(0).requests == 1);
        let answer = world.chat(&hello());
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        assert_eq!(world.record(&answer)["detail"], code);
    }
}

#[test]
fn a_freed_slot_goes_to_who_waits() {
    let world = World::with(1, ", slots: 1", "", "");
    world.script(0, [Scripted { delay_ms: 200, ..Default::default() }]);
    let mut first = world.connect();
    first.write_all(&request("/v1/chat/completions", "", hello().to_string().as_bytes())).expect("written");
    world.until("the slot is taken", || world.stats(0).requests == 1);
    let answer = world.chat(&hello());
    assert_eq!(answer.status, 200);
    let waited: u64 = answer.header("x-pointsman-queue-ms").expect("it waited").parse().expect("a number");
    assert!(waited > 0 && waited < 5_000, "{waited}");
    let record = world.record(&answer);
    assert_eq!(record["decisions"][0]["outcome"]["kind"], "queued");
    assert_eq!(record["attempts"][0]["why"]["rule"], "slot_freed");
}

#[test]
fn a_deadline_is_kept() {
    let world = World::new(1, "");
    world.script(0, [Scripted { hang: true, ..Default::default() }]);
    let answer = world.post(
        "/v1/chat/completions",
        "x-pointsman-deadline-ms: 200\r\n",
        hello().to_string().as_bytes(),
    );
    assert_eq!((answer.status, answer.error("code")), (504, json!("deadline_exceeded")));
    world.until("the call is cancelled", || world.stats(0).cancelled == 1);
}

#[test]
fn a_long_silence_releases_the_head() {
    let world = World::new(1, "timeouts: { header_hold_ms: 100 }");
    world.script(
        0,
        [Scripted { piece_delay_ms: 300, ..pieces(&[": ping\n\n", CONTENT, "data: [DONE]\n\n"]) }],
    );
    let mut client = world.connect();
    client.write_all(&request("/v1/chat/completions", "", stream().to_string().as_bytes())).expect("written");
    client.set_read_timeout(Some(Duration::from_millis(280))).expect("a timeout can be set");
    let mut head = [0; 1024];
    let read = client.read(&mut head).expect("the head comes before the content");
    assert!(String::from_utf8_lossy(&head[..read]).starts_with("HTTP/1.1 200"));
}

#[test]
fn a_refused_key_is_taken_out_and_the_next_serves() {
    let world = World::with(1, ", keys: [bad-key-1, good-key-2]", "", "");
    world.mocks[0].control().set(|settings: &mut Settings| settings.api_key = Some("good-key-2".to_owned()));
    for _ in 0..4 {
        assert_eq!(world.chat(&hello()).status, 200);
    }
    let view = world.app().live.lock().fleet.view(pointsman::clock::now());
    let states: Vec<_> =
        view.providers[0].credentials.iter().map(|one| (&*one.name, one.state, one.failures)).collect();
    assert_eq!(states, [("key-1", "dead", 1), ("key-2", "live", 0)]);
}

#[test]
fn a_cooled_key_rests_for_its_retry_after() {
    let world = World::with(1, ", keys: [key-one-1, key-two-2]", "", "");
    world.script(0, [Scripted { retry_after: Some("30".to_owned()), ..status(429) }]);
    assert_eq!(world.chat(&hello()).status, 200);
    let view = world.app().live.lock().fleet.view(pointsman::clock::now());
    let cooling: Vec<_> = view.providers[0].credentials.iter().filter(|one| one.state == "cooling").collect();
    assert_eq!(cooling.len(), 1);
    assert!(cooling[0].returns_in_ms.is_some_and(|ms| (25_000..=30_000).contains(&ms)), "{cooling:?}");
}
