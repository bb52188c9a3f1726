//! Forms that are larger than what is held of them: the rest passes by while it is sent.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use support::{Answer, PATIENCE, World, upstream};

/// What is held in these tests, and a file that is much larger than that and what hyper reads ahead.
const HELD: &str = "limits: { multipart_buffer_bytes: 4096, body_read_ms: 2000, body_bytes_max_by_route: { /v1/audio/transcriptions: 16777216 } }";
const FILE_BYTES: usize = 4 << 20;

fn part(head: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
}

fn head(length: usize, headers: &str) -> String {
    format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: g\r\ncontent-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n{headers}\r\n"
    )
}

/// A form with its model first, and what comes behind the file.
fn large(model: &str, behind: &str) -> String {
    let file = part("name=\"file\"; filename=\"a.wav\"", &"RIFF\r\n--c".repeat(FILE_BYTES / 9));
    format!("{}{file}{behind}--b--\r\n", part("name=\"model\"", model))
}

fn send(world: &World, headers: &str, body: &str) -> Answer {
    world.send((head(body.len(), headers) + body).as_bytes())
}

/// Reads a request, whose length is told, and gives its head and body.
fn read_all(connection: &mut TcpStream) -> (String, Vec<u8>) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(usize::MAX, |length| length.parse().expect("a number"));
            let chunks_end = head.contains("transfer-encoding: chunked") && bytes.ends_with(b"0\r\n\r\n");
            if bytes.len() >= (end + 4).saturating_add(length) || chunks_end {
                return (head, bytes.split_off(end + 4));
            }
        }
        match connection.read(&mut buffer) {
            Ok(0) | Err(_) => return (String::new(), bytes),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

fn answer_text(connection: &mut TcpStream) {
    let body = r#"{"text":"heard"}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    connection.write_all((head + body).as_bytes()).expect("written");
}

#[test]
fn c10_a_large_form_passes_by_while_it_comes() {
    let (said, heard) = std::sync::mpsc::channel();
    let (address, served) = upstream(move |mut connection| {
        let mut bytes = vec![0; 16 << 10];
        let read = connection.read(&mut bytes).expect("the beginning comes");
        said.send(()).expect("somebody waits");
        bytes.truncate(read);
        let mut buffer = vec![0; 64 << 10];
        while !bytes.ends_with(b"--b--\r\n") {
            let read = connection.read(&mut buffer).expect("the rest comes");
            bytes.extend_from_slice(&buffer[..read]);
        }
        answer_text(&mut connection);
        bytes.len()
    });
    let world = World::facing(address, HELD);
    let body = large("m", "");
    let mut connection = world.connect();
    let (now, later) = body.as_bytes().split_at(FILE_BYTES / 2);
    connection.write_all(head(body.len(), "").as_bytes()).expect("written");
    connection.write_all(now).expect("written");
    heard.recv_timeout(PATIENCE).expect("the provider has the beginning before the end is sent");
    connection.write_all(later).expect("written");
    let answer = Answer::read(&mut connection);
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d0")), "{answer:?}");
    assert!(!answer.closed, "the connection serves the next request");
    assert!(served.join().expect("it was served") > body.len());
}

#[test]
fn what_arrives_is_the_form_with_another_model() {
    for chunked in [false, true] {
        let (address, served) = upstream(|mut connection| {
            let request = read_all(&mut connection);
            answer_text(&mut connection);
            request
        });
        let world = World::facing(address, HELD);
        let body = large("m", &part("name=\"prompt\"", "p"));
        let answer = if chunked {
            let head = head(0, "").replace("content-length: 0", "transfer-encoding: chunked");
            let mut sent = head.into_bytes();
            for piece in body.as_bytes().chunks(100_000) {
                sent.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                sent.extend_from_slice(piece);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\n\r\n");
            world.send(&sent)
        } else {
            send(&world, "", &body)
        };
        assert_eq!((answer.status, answer.json()), (200, json!({"text": "heard"})), "{answer:?}");
        let (head, got) = served.join().expect("it was served");
        let expected = large("up", &part("name=\"prompt\"", "p"));
        if chunked {
            assert!(head.contains("transfer-encoding: chunked") && got.len() > expected.len(), "{head}");
        } else {
            assert!(got == expected.as_bytes() && head.contains("content-length"), "{head}");
        }
        assert_eq!((world.permits(), &world.record(&answer)["outcome"]), (0, &json!("completed")));
    }
}

#[test]
fn a_model_that_comes_too_late_is_refused_and_told_what_to_do() {
    let world = World::new(1, HELD);
    let file = part("name=\"file\"; filename=\"a.wav\"", &"x".repeat(FILE_BYTES));
    let body = format!("{file}{}--b--", part("name=\"model\"", "m"));
    let answer = send(&world, "", &body);
    assert_eq!((answer.status, answer.error("param")), (413, json!("model")), "{answer:?}");
    let told = answer.error("message").to_string();
    assert!(told.contains("before the file") && told.contains("multipart_buffer_bytes"), "{told}");
    assert!(answer.closed);
    let answer = send(&world, "idempotency-key: k\r\n", &large("m", ""));
    assert_eq!((answer.status, answer.error("code")), (400, json!("idempotency_body_too_large")));
    assert_eq!(world.reached(), 0);
}

#[test]
fn c1_a_form_over_the_limit_is_refused_on_its_length_and_while_it_comes() {
    let limits = "limits: { multipart_buffer_bytes: 4096, body_bytes_max_by_route: { /v1/audio/transcriptions: 100000 } }";
    let world = World::new(1, limits);
    assert_eq!(send(&world, "", &large("m", "")).status, 413);
    assert_eq!(world.reached(), 0);
    let body = large("m", "");
    let chunked = head(0, "").replace("content-length: 0", "transfer-encoding: chunked");
    let sent = format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let answer = world.send(sent.as_bytes());
    assert_eq!((answer.status, answer.error("code")), (413, json!("request_too_large")), "{answer:?}");
    world.until("the provider is let go", || world.stats(0).inflight == 0 && world.permits() == 0);
}

#[test]
fn c4_c9_what_is_wrong_behind_the_file_never_arrives_whole() {
    for (behind, param) in [
        (part("name=\"model\"", "other"), json!("model")),
        (part("name=\"api_base\"", "http://x"), json!("api_base")),
        ("--bx\r\n".to_owned(), json!(null)),
    ] {
        let (address, served) = upstream(|mut connection| read_all(&mut connection));
        let world = World::facing(address, HELD);
        let answer = send(&world, "", &large("m", &behind));
        assert_eq!(
            (answer.status, answer.error("param"), answer.error("who")),
            (400, param, json!("router")),
            "{answer:?}"
        );
        assert!(answer.closed);
        let (head, _) = served.join().expect("it was served");
        assert_eq!(head, "", "the connection ended before the form did");
        let record = world.record(&answer);
        assert_eq!((world.permits(), &record["outcome"]), (0, &json!("failed")), "{record}");
    }
}

#[test]
fn promise_1_what_went_by_is_not_sent_again_and_what_is_held_is() {
    // It closes once more has come than is held.
    let (address, served) = upstream(|mut connection| {
        let mut buffer = vec![0; 64 << 10];
        let mut read = 0;
        while read < FILE_BYTES / 2 {
            read += connection.read(&mut buffer).expect("it comes");
        }
    });
    let world = World::new(1, HELD);
    let second = world.mocks[0].address();
    let gateway = two(address, second);
    let world = World { gateway, ..world };
    let answer = send(&world, "", &large("m", ""));
    assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (502, Some("1")), "{answer:?}");
    assert_eq!((world.reached(), world.permits()), (0, 0));
    served.join().expect("it was served");
    // Nobody listens at the first any more, and nothing has left yet.
    let answer = send(&world, "", &large("m", ""));
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d1")), "{answer:?}");
    assert!(world.stats(0).last_body.starts_with(&part("name=\"model\"", "up")));
}

/// A gateway in front of two that cost nothing, the second of which is asked when the first fails.
fn two(first: std::net::SocketAddr, second: std::net::SocketAddr) -> pointsman::serve::Gateway {
    let text = format!(
        "{HELD}\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n  \
         m0: {{ kind: mock, base_url: 'http://{first}', health: off }}\n  \
         m1: {{ kind: mock, base_url: 'http://{second}', health: off }}\nmodels:\n  m:\n    deployments:\n      \
         - {{ name: d0, provider: m0, model: up, tier: 0 }}\n      - {{ name: d1, provider: m1, model: up, tier: 1 }}\n"
    );
    let overlay = pointsman_settings::overlay::Overlay::default();
    pointsman::serve::Gateway::start(None, support::config(&text), overlay).expect("the gateway starts")
}

#[test]
fn b1_a_client_that_stalls_is_told_so_and_the_provider_is_let_go() {
    let world = World::new(1, HELD);
    let body = large("m", "");
    let mut connection = world.connect();
    connection.write_all(head(body.len(), "").as_bytes()).expect("written");
    connection.write_all(&body.as_bytes()[..FILE_BYTES / 2]).expect("written");
    let answer = Answer::read(&mut connection);
    assert_eq!((answer.status, answer.error("code")), (408, json!("request_timeout")), "{answer:?}");
    world.until("the provider is let go", || world.permits() == 0);
}

#[test]
fn b3_a_client_that_leaves_while_it_sends_cancels_the_attempt() {
    let (address, served) = upstream(|mut connection| read_all(&mut connection));
    let world = World::facing(address, HELD);
    let body = large("m", "");
    let mut connection = world.connect();
    connection.write_all(head(body.len(), "").as_bytes()).expect("written");
    connection.write_all(&body.as_bytes()[..FILE_BYTES / 2]).expect("written");
    drop(connection);
    assert_eq!(served.join().expect("it was served").0, "", "the connection ends, and with it the form");
    world.until("nothing is left", || world.permits() == 0);
}

#[test]
fn an_answer_before_the_end_of_the_form_counts() {
    let (address, served) = upstream(|mut connection| {
        let mut buffer = vec![0; 64 << 10];
        let _ = connection.read(&mut buffer).expect("it comes");
        let body = r#"{"error":{"message":"no such language","type":"invalid_request_error"}}"#;
        let head = format!(
            "HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all((head + body).as_bytes()).expect("written");
        // Read on, so that the end of the connection does not overtake the answer.
        while connection.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    let world = World::facing(address, HELD);
    let body = large("m", "");
    let mut connection = world.connect();
    connection.write_all(head(body.len(), "").as_bytes()).expect("written");
    connection.write_all(&body.as_bytes()[..FILE_BYTES / 2]).expect("written");
    let answer = Answer::read(&mut connection);
    assert_eq!((answer.status, answer.error("message")), (400, json!("no such language")), "{answer:?}");
    assert!(answer.closed, "the rest of the form is not waited for");
    drop(connection);
    served.join().expect("it was served");
    assert_eq!(world.permits(), 0);
}
