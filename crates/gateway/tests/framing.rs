//! Requests that could be read in two ways, floods and slow clients, over a raw socket. Whatever is refused here must
//! not have reached a deployment.

mod support;

use std::io::Write;

use pointsman::mock::Scripted;
use support::{Answer, PATIENCE, World, hello, request, stream, take_request, upstream};

fn check(world: &World, name: &str, bytes: &[u8], status: u16) {
    let answer = world.send(bytes);
    assert_eq!(answer.status, status, "{name}: {answer:?}");
    assert!(answer.closed, "{name}: the connection must be closed");
    assert_eq!(world.reached(), 0, "{name}: nothing may reach a deployment");
}

fn post(lines: &str) -> Vec<u8> {
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n{lines}\r\n")
        .into_bytes()
}

#[test]
fn a1_to_a3_ambiguous_lengths_are_refused() {
    let world = World::new(1, "");
    for (name, lines) in [
        ("a1 both", "content-length: 5\r\ntransfer-encoding: chunked\r\n"),
        ("a1 both, turned", "transfer-encoding: chunked\r\ncontent-length: 5\r\n"),
        ("a2 two lengths", "content-length: 5\r\ncontent-length: 6\r\n"),
        ("a2 list", "content-length: 5, 6\r\n"),
        ("a2 plus", "content-length: +5\r\n"),
        ("a2 hex", "content-length: 0x5\r\n"),
        ("a2 overflow", "content-length: 18446744073709551616\r\n"),
        ("a3 xchunked", "transfer-encoding: xchunked\r\n"),
        ("a3 list", "transfer-encoding: ,chunked\r\n"),
        ("a3 twice", "transfer-encoding: chunked,chunked\r\n"),
        ("a3 two lines", "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("a3 gzip", "transfer-encoding: gzip, chunked\r\n"),
    ] {
        check(&world, name, &[post(lines), b"0\r\n\r\n".to_vec()].concat(), 400);
    }
    let old = b"POST /v1/chat/completions HTTP/1.0\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    check(&world, "a3 http/1.0", old, 400);
}

#[test]
fn a4_odd_header_lines_are_refused() {
    let world = World::new(1, "");
    for (name, lines) in [
        ("space before colon", "transfer-encoding : chunked\r\n"),
        ("tab before colon", "content-length\t: 5\r\n"),
        ("obs-fold", "x-a: b\r\n c\r\n"),
        ("control in value", "x-a: b\x01c\r\n"),
        ("nul in value", "x-a: b\0c\r\n"),
        ("control in name", "x\x01a: b\r\n"),
        ("lone cr", "x-a: b\rc\r\n"),
    ] {
        check(&world, name, &post(lines), 400);
    }
    // An underscore variant is another header and means nothing: the real length counts.
    let body = hello().to_string();
    let lines =
        format!("content_length: 3\r\ntransfer_encoding: chunked\r\ncontent-length: {}\r\n", body.len());
    let answer = world.send(&[post(&lines), body.into_bytes()].concat());
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a5_odd_chunks_are_refused() {
    let world = World::new(1, "");
    for chunk in [
        "0x1\r\n{\r\n",
        "1_0\r\n",
        "-1\r\n",
        "\r\n{",
        "1\n{\n",
        "1 x\r\n{\r\n",
        "11111111111111111\r\n{",
        "2\r\n{}XX",
    ] {
        let bytes =
            [post("transfer-encoding: chunked\r\n"), chunk.as_bytes().to_vec(), b"0\r\n\r\n".to_vec()]
                .concat();
        check(&world, chunk, &bytes, 400);
    }
    let long = format!("1;{}\r\n{{\r\n0\r\n\r\n", "x".repeat(64 * 1024));
    check(
        &world,
        "64 KiB extension",
        &[post("transfer-encoding: chunked\r\n"), long.into_bytes()].concat(),
        400,
    );
}

#[test]
fn a6_no_tunnels() {
    let world = World::new(1, "");
    check(
        &world,
        "upgrade",
        &post("connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 0\r\n"),
        400,
    );
    check(&world, "connect", b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n", 400);
}

#[test]
fn a7_an_early_answer_leaves_no_bytes_behind() {
    let world = World::new(1, "auth: { keys: [ { name: k, key: 'the-right-key' } ] }");
    let mut connection = world.connect();
    let smuggled = request(
        "/v1/chat/completions",
        "authorization: Bearer the-right-key\r\n",
        hello().to_string().as_bytes(),
    );
    let outer = request("/v1/chat/completions", "authorization: Bearer wrong\r\n", &smuggled);
    connection.write_all(&outer).expect("written");
    assert_eq!(Answer::read(&mut connection).status, 401);
    // Whether it is closed or not: what was a body must never be read as a request.
    let _ = connection.write_all(&request("/v1/nothing", "", b"{}"));
    let next = Answer::read(&mut connection);
    assert!(next.status == 404 || next.closed, "{next:?}");
    assert_eq!(world.reached(), 0);
}

#[test]
fn a8_a_get_has_no_body() {
    let world = World::new(1, "");
    check(&world, "length", b"GET /v1/models HTTP/1.1\r\nhost: g\r\ncontent-length: 2\r\n\r\n{}", 400);
    check(
        &world,
        "chunked",
        b"GET /v1/models HTTP/1.1\r\nhost: g\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    );
}

#[test]
fn a9_a10_a13_i5_nothing_of_the_clients_head_is_forwarded() {
    let world = World::with(
        1,
        ", keys: [the-providers-key]",
        "",
        "auth: { keys: [ { name: k, key: 'clients-own-key' } ] }",
    );
    let headers = "authorization: Bearer clients-own-key\r\nconnection: authorization, x-request-id\r\nte: trailers\r\n\
                   x-forwarded-for: 1.2.3.4\r\nx-gateway-model-name-rewrite: x\r\nx-pointsman-session: s\r\ncookie: a=b\r\n\
                   openai-organization: org\r\nproxy-authorization: x\r\n";
    let answer = world.post("/v1/chat/completions", headers, hello().to_string().as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    let seen = world.stats(0).last_headers;
    assert_eq!(seen["authorization"], "Bearer the-providers-key");
    assert_eq!(seen["x-request-id"], answer.header("x-pointsman-request-id").unwrap());
    let allowed = [
        "host",
        "user-agent",
        "accept",
        "accept-encoding",
        "content-type",
        "content-length",
        "authorization",
        "x-request-id",
    ];
    assert!(seen.keys().all(|name| allowed.contains(&name.as_str())), "{seen:?}");
    for hop in ["keep-alive", "transfer-encoding", "proxy-authenticate"] {
        assert!(answer.header(hop).is_none() || hop == "transfer-encoding", "{hop}");
    }
}

#[test]
fn i4_nothing_of_one_provider_reaches_the_next() {
    let first = ", keys: [first-secret-1], headers: { x-first-secret: first-secret-2, openai-organization: first-secret-3 }";
    let second = ", keys: [second-secret-1], headers: { x-second: second-secret-2 }";
    let headers = "authorization: Bearer clients-secret\r\nopenai-project: clients-secret\r\n";
    // The first refuses in every way that lets another take its place.
    for status in [401, 429, 503, 500] {
        let world = World::pair(first, second);
        let retry_after = (status == 503).then(|| "1".to_owned());
        world.script(0, [Scripted { status: Some(status), retry_after, ..Default::default() }]);
        let answer = world.post("/v1/chat/completions", headers, hello().to_string().as_bytes());
        assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("d1")), "{answer:?}");
        let (at_first, at_second) = (world.stats(0).last_headers, world.stats(1).last_headers);
        assert_eq!(at_first["authorization"], "Bearer first-secret-1");
        assert_eq!(at_first["x-first-secret"], "first-secret-2");
        assert_eq!(at_second["authorization"], "Bearer second-secret-1");
        assert_eq!(at_second["x-second"], "second-secret-2");
        let seen = format!("{at_second:?}{}{}", world.stats(1).last_body, answer.head);
        assert!(!seen.contains("first-secret") && !seen.contains("clients-secret"), "{status}: {seen}");
        assert!(!format!("{at_first:?}").contains("clients-secret"), "{status}: {at_first:?}");
    }
}

#[test]
fn a11_odd_hosts_are_refused() {
    let world = World::new(1, "");
    for host in ["a?x=/admin", "a#", "", "a b", "a/b"] {
        check(&world, host, format!("GET /v1/models HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes(), 400);
    }
    check(&world, "two", b"GET /v1/models HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400);
    check(&world, "none", b"GET /v1/models HTTP/1.1\r\n\r\n", 400);
    check(&world, "mismatch", b"GET http://a/v1/models HTTP/1.1\r\nhost: b\r\n\r\n", 400);
}

#[test]
fn a12_odd_paths_reach_nothing() {
    let world = World::new(1, "");
    for path in [
        "//v1/chat/completions",
        "/v1/..%2fadmin",
        "/v1/%2e%2e/x",
        "/v1/../v1/chat/completions",
        "/v1/chat;x/completions",
        "/V1/chat/completions",
        "/v1/chat/completions/",
        "/v1%5cchat",
    ] {
        let answer = world.post(path, "", hello().to_string().as_bytes());
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
        assert_eq!(world.reached(), 0, "{path}");
    }
}

#[test]
fn b1_a_slow_head_gets_408_at_the_deadline() {
    let world = World::new(1, "limits: { header_read_ms: 200 }");
    let mut connection = world.connect();
    connection.write_all(b"POST /v1/chat").expect("written");
    let answer = Answer::read(&mut connection);
    assert_eq!((answer.status, answer.closed), (408, true), "{answer:?}");
}

#[test]
fn b2_a_slow_body_gets_408_and_is_let_go() {
    let world = World::new(1, "limits: { body_read_ms: 200 }");
    let mut bytes = request("/v1/chat/completions", "", &[b' '; 1000]);
    bytes.truncate(bytes.len() - 900);
    let mut connection = world.connect();
    connection.write_all(&bytes).expect("written");
    let answer = Answer::read(&mut connection);
    assert_eq!((answer.status, answer.closed), (408, true), "{answer:?}");
    assert_eq!((world.permits(), world.reached()), (0, 0));
}

#[test]
fn b4_floods_of_headers_are_refused() {
    let world = World::new(1, "");
    let many = (0..10_000).map(|number| format!("x-{number}: y\r\n")).collect::<Vec<_>>().concat();
    let long = format!("x-long: {}\r\n", "y".repeat(1024 * 1024));
    for (name, lines) in [("10,000 lines", many), ("1 MiB", long)] {
        check(&world, name, &post(&lines), 431);
    }
}

#[test]
fn b4_the_limit_of_the_head_is_held_to_the_byte() {
    let body = hello().to_string();
    for (limits, bytes_max) in [("", 65_536), ("limits: { header_bytes_max: 20000 }", 20_000)] {
        let world = World::new(1, limits);
        let with_head_of = |bytes: usize| {
            let fill = |filling: usize| {
                request(
                    "/v1/chat/completions",
                    &format!("x-fill: {}\r\n", "y".repeat(filling)),
                    body.as_bytes(),
                )
            };
            // The empty line that ends the head is not counted.
            fill(bytes - (fill(0).len() - body.len() - 2))
        };
        for bytes in [bytes_max + 1, bytes_max + 1_000, 90_000, 120_000] {
            check(&world, &format!("{bytes} of {bytes_max}"), &with_head_of(bytes), 431);
        }
        let answer = world.send(&with_head_of(bytes_max + 1));
        assert_eq!(answer.error("code"), "headers_too_large", "in the client's dialect");
        assert_eq!(world.send(&with_head_of(bytes_max)).status, 200, "{bytes_max} of {bytes_max}");
    }
}

#[test]
fn b7_a_reader_that_stops_holds_the_upstream_back_and_is_cut_off() {
    let event = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n",
        "x".repeat(32 * 1024)
    );
    let body_bytes = event.len() * 2000;
    let (address, served) = upstream(move |mut connection| {
        take_request(&mut connection, |_| ());
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        connection.write_all(head.as_bytes()).expect("written");
        connection.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut taken = 0;
        for _ in 0..2000 {
            match connection.write(event.as_bytes()) {
                Ok(wrote) if wrote == event.len() => taken += wrote,
                Ok(_) | Err(_) => break,
            }
        }
        taken
    });
    let world = World::facing(address, "limits: { write_stall_ms: 300 }");
    let mut connection = world.connect();
    connection
        .write_all(&request("/v1/chat/completions", "", stream().to_string().as_bytes()))
        .expect("written");
    // 64 MiB are to come and nobody reads. The upstream must be given up, and no more taken from it than sockets hold.
    let taken = served.join().expect("the upstream served");
    assert!(taken < body_bytes / 8, "{taken} of {body_bytes} bytes were taken");
    world.until("the permit is back", || world.permits() == 0);
    drop(connection);
}
