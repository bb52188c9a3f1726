//! Faults on either side of the gateway over real sockets: what streams carry, what is sent again, and connections that
//! are odd, dead or blocked.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::{Duration, Instant};

use pointsman::mock::Scripted;
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::binary::{Binary, one};
use support::{Answer, PATIENCE, World, config, hello, request, stream};

const PATH: &str = "/v1/chat/completions";
const CONTENT: &str = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"},\"finish_reason\":null}]}\n\n";
const FINISH: &str =
    "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const PING: &str = ": ping\n\n";

fn pieces(pieces: &[&str]) -> Scripted {
    Scripted { pieces: Some(pieces.iter().map(|piece| (*piece).to_owned()).collect()), ..Default::default() }
}

fn status(status: u16) -> Scripted {
    Scripted { status: Some(status), ..Default::default() }
}

fn served_by(answer: &Answer) -> Option<&str> {
    answer.header("x-pointsman-served-by")
}

#[test]
fn d11_a_silent_stream_is_kept_open_by_comments() {
    let slow = |extra| World::new(1, &format!("stream: {{ ping_ms: 100 }}\ntimeouts: {{ {extra} }}"));
    let world = slow("idle_ms: 60000");
    world.script(0, [Scripted { piece_delay_ms: 350, ..pieces(&[CONTENT, CONTENT, DONE]) }]);
    let answer = world.chat(&stream());
    let body = answer.body.replace(PING, "");
    assert_eq!(body, format!("{CONTENT}{CONTENT}{DONE}"), "comments between events only");
    assert!(answer.body.matches(PING).count() >= 3, "{}", answer.body);
    let world = slow("header_hold_ms: 50, first_content_ms: 600");
    world.script(0, [Scripted { hang_after: Some(0), ..Default::default() }]);
    let answer = world.chat(&stream());
    assert!(answer.body.starts_with(PING), "also before the first content: {}", answer.body);
    assert!(answer.body.contains("upstream_timeout"), "and they do not keep the silence from being noticed");
    assert_eq!(world.record(&answer)["detail"], "first_content_timeout");
}

#[test]
fn d11_no_comment_stands_inside_an_event_and_there_is_a_switch() {
    let world = World::new(1, "stream: { ping_ms: 50 }");
    let long = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}", "x".repeat(3 << 19));
    let script = Scripted { piece_delay_ms: 200, ..pieces(&[CONTENT, &long, "\"}}]}\n\n", DONE]) };
    world.script(0, [script]);
    let mut body = stream();
    body["stream_options"] = json!({"include_usage": true});
    let answer = world.chat(&body);
    assert!(answer.body.contains(&format!("{long}\"}}}}]}}\n\n")), "the long event is whole");
    assert!(answer.body.contains(PING), "and around it there are comments");
    let world = World::new(1, "stream: { ping_ms: 0 }");
    world.script(0, [Scripted { piece_delay_ms: 200, ..pieces(&[CONTENT, DONE]) }]);
    assert_eq!(world.chat(&stream()).body, format!("{CONTENT}{DONE}"));
}

#[test]
fn d14_usage_is_counted_once_however_it_is_told() {
    let with = |usage: &str| CONTENT.replace("}]}", &format!("}}],\"usage\":{usage}}}"));
    let told = |tokens_out| format!("{{\"prompt_tokens\":7,\"completion_tokens\":{tokens_out}}}");
    for (name, events, tokens_out, estimated) in [
        ("missing", vec![CONTENT.to_owned(), CONTENT.to_owned()], 2, true),
        ("null", vec![with("null"), with("null")], 2, true),
        ("cumulative", vec![with(&told(1)), with(&told(2)), with(&told(3))], 3, false),
        ("in the last only", vec![CONTENT.to_owned(), with(&told(9))], 9, false),
    ] {
        let world = World::new(1, "");
        let body = format!("{}{FINISH}{DONE}", events.concat());
        world.script(0, [pieces(&[&body])]);
        let usage = &world.record(&world.chat(&stream()))["usage"];
        assert_eq!(
            (&usage["tokens_out"], &usage["estimated"]),
            (&json!(tokens_out), &json!(estimated)),
            "{name}"
        );
    }
}

#[test]
fn d15_tool_calls_pass_as_they_are() {
    let call = |delta: &str, finish: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n")
    };
    let body = [
        call(r#"{"reasoning_content":"hm"}"#, "null"),
        call(r#"{"tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":""}},{"index":1,"id":"b","function":{"name":"g","arguments":"{\"x\":"}}]}"#, "null"),
        call(r#"{"tool_calls":[{"function":{"arguments":"{}"}}]}"#, "null"),
        call("{}", "\"length\""),
        DONE.to_owned(),
    ]
    .concat();
    let world = World::new(1, "");
    world.script(0, [pieces(&[&body])]);
    assert_eq!(world.chat(&stream()).body, body, "nothing is repaired");
}

#[test]
fn d16_many_tiny_events_take_time_in_proportion() {
    let world = World::new(1, "");
    let took = |events: usize| {
        let body = format!("{}{FINISH}{DONE}", CONTENT.repeat(events));
        world.script(0, [pieces(&[&body])]);
        let began = Instant::now();
        assert_eq!(world.chat(&stream()).body, body);
        began.elapsed()
    };
    took(100);
    let (few, many) = (took(2_000), took(20_000));
    assert!(many < few * 40 + Duration::from_secs(1), "ten times as many took {many:?} instead of {few:?}");
}

#[test]
fn d17_foreign_events_are_data() {
    let body = format!(
        "event: evil\nid: 7\nretry: 1\ndata: <script>alert(1)</script>\n\n{CONTENT}data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"<img src=x onerror=y>\"}}}}]}}\n\n{FINISH}{DONE}"
    );
    let world = World::new(1, "");
    world.script(0, [pieces(&[&body])]);
    let answer = world.chat(&stream());
    assert_eq!(
        (answer.body.as_str(), answer.header("content-type")),
        (body.as_str(), Some("text/event-stream"))
    );
    let record = world.record(&answer).to_string();
    assert!(!record.contains("<script>") && !record.contains("<img"), "no answer is in a record");
}

#[test]
fn d18_an_event_leaves_before_the_next_one_comes() {
    let world = World::new(1, "");
    world.script(0, [Scripted { hang_after: Some(1), ..pieces(&[CONTENT, CONTENT]) }]);
    let mut client = world.connect();
    client.write_all(&request(PATH, "", stream().to_string().as_bytes())).expect("written");
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains(CONTENT) {
        let read = client.read(&mut buffer).expect("it comes while the next is awaited");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
}

/// A port where nobody listens.
fn closed_port() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free")
}

/// A gateway whose first provider, `p`, has this URL, with a paid `d0` there and `d1` at a mock.
fn behind(url: &str, world: &World) -> (Gateway, World) {
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n  p: {{ kind: mock, base_url: '{url}', health: off, free: false }}\n  q: {{ kind: mock, base_url: 'http://{}', health: off }}\nmodels:\n  m: {{ deployments: [ {{ name: d0, provider: p }}, {{ name: d1, provider: q, tier: 2 }} ] }}\n  alone: {{ deployments: [ {{ name: d0, provider: p }} ] }}\n",
        world.mocks[0].address()
    );
    let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("it starts");
    let second = Gateway::start(None, config(&text), Overlay::default()).expect("it starts");
    (second, World { mocks: Vec::new(), gateway })
}

#[test]
fn e1_n5_what_cannot_be_connected_is_somebody_elses_turn_and_is_named() {
    let mocks = World::new(1, "");
    let plain = mocks.mocks[0].address();
    for (name, url, cause) in [
        ("refused", format!("http://{}", closed_port()), "refused"),
        ("n5 no TLS there", format!("https://localhost:{}", plain.port()), "corrupt message"),
        ("n4 no such name", "http://no-such-host.invalid:80".to_owned(), ""),
    ] {
        let (_other, world) = behind(&url, &mocks);
        let answer = world.chat(&hello());
        assert_eq!((answer.status, served_by(&answer)), (200, Some("d1")), "{name}: {answer:?}");
        let mut alone = hello();
        alone["model"] = json!("alone");
        let answer = world.chat(&alone);
        assert_eq!((answer.status, answer.error("code")), (502, json!("upstream_connect_failed")), "{name}");
        let message = answer.error("message").to_string();
        assert!(
            message.contains("could be made: ") && message.to_lowercase().contains(cause),
            "{name}: {message}"
        );
    }
}

#[test]
fn e2_e4_what_may_have_been_billed_is_sent_again_by_opt_in_only() {
    for script in [status(502), status(504), Scripted { close: true, ..Default::default() }] {
        for (model, expected) in [("", (1, 0)), ("    retry: { unsure: true }\n", (1, 1))] {
            let world = World::with(2, ", free: false", model, "");
            world.script(0, [script.clone()]);
            let answer = world.chat(&hello());
            assert_eq!((world.stats(0).requests, world.stats(1).requests), expected, "{answer:?}");
            assert_eq!(answer.status == 200, expected.1 == 1);
        }
    }
}

#[test]
fn e3_a_refusal_with_retry_after_is_honoured_in_seconds_and_as_a_date() {
    let date = |after_s: u64| {
        let at = std::time::SystemTime::now() + Duration::from_secs(after_s);
        let text = std::process::Command::new("date")
            .env("LC_ALL", "C")
            .args(["-u", "-d"])
            .arg(format!("@{}", at.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()))
            .arg("+%a, %d %b %Y %H:%M:%S GMT")
            .output();
        String::from_utf8(text.expect("date runs").stdout).expect("text").trim().to_owned()
    };
    for (code, after) in
        [(429, "20".to_owned()), (503, "20".to_owned()), (529, "20".to_owned()), (503, date(21))]
    {
        let world = World::with(2, ", free: false", "", "");
        world.script(0, [Scripted { retry_after: Some(after.clone()), ..status(code) }]);
        let answer = world.chat(&hello());
        assert_eq!((answer.status, served_by(&answer)), (200, Some("d1")), "{code} {after}: {answer:?}");
        let view = world.app().live.lock().fleet.view(pointsman::clock::now());
        let returns_ms = view.models[0].deployments[0].returns_in_ms.expect("it is left alone");
        assert!((15_000..=21_000).contains(&returns_ms), "{code} {after}: {returns_ms}");
        assert_eq!(served_by(&world.chat(&hello())), Some("d1"), "and is not asked meanwhile");
        assert_eq!(world.stats(0).requests, 1);
    }
}

#[test]
fn e5_what_is_wrong_with_the_request_is_never_sent_again() {
    for code in [400, 413, 422] {
        let world = World::new(2, "");
        let body = json!({"error": {"message": "no", "type": "invalid_request_error"}}).to_string();
        world.script(0, [Scripted { status: Some(code), ..pieces(&[&body]) }]);
        let answer = world.chat(&hello());
        assert_eq!(
            (answer.status, world.stats(0).requests, world.stats(1).requests),
            (code, 1, 0),
            "{answer:?}"
        );
    }
    for code in [401, 403] {
        let world = World::with(1, ", keys: [the-only-key-1]", "", "");
        world.script(0, [status(code)]);
        assert!(world.chat(&hello()).status >= 500, "{code}: the client's key is not at fault");
        let state =
            world.app().live.lock().fleet.view(pointsman::clock::now()).providers[0].credentials[0].state;
        assert_eq!((state, world.chat(&hello()).status, world.stats(0).requests), ("dead", 503, 1), "{code}");
    }
}

#[test]
fn e6_failures_do_not_multiply() {
    let world = World::with(3, "", "", "breaker: { failures: 100000, failed_percent: 100 }");
    for mock in &world.mocks {
        mock.control().set(|settings| settings.error_rate = 1.0);
    }
    let (began, requests) = (Instant::now(), 300);
    for _ in 0..requests {
        assert!(world.chat_quickly(&hello()).status >= 500);
    }
    // A fifth of what was asked, and what a quiet model may always: 10 a second over 10 s.
    let allowed = requests + requests / 5 + 100 + 10 * began.elapsed().as_secs();
    assert!(world.reached() <= allowed, "{} attempts, {allowed} allowed", world.reached());
}

#[test]
fn e10_no_attempt_begins_that_would_come_too_late() {
    let world = World::new(1, "");
    world.mocks[0].control().set(|settings| settings.first_token_ms = 400);
    for _ in 0..3 {
        assert_eq!(world.chat(&stream()).status, 200);
    }
    let with = |deadline_ms: u32| {
        let header = format!("x-pointsman-deadline-ms: {deadline_ms}\r\n");
        world.post(PATH, &header, stream().to_string().as_bytes())
    };
    let late = with(150);
    assert_eq!((late.status, world.stats(0).requests), (504, 3), "{late:?}");
    assert_eq!(with(5_000).status, 200);
}

#[test]
fn b5_b6_http_2_is_refused_cleanly() {
    let world = World::new(1, "");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    for _ in 0..100 {
        let mut client = world.connect();
        let _ = client.write_all(preface);
        // A flood of resets, pings and settings behind it is never read.
        let _ = client.write_all(&b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08".repeat(1_000));
        let mut answer = Vec::new();
        match client.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "closed, one way or the other");
            }
        }
        let text = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5"),
            "{text}"
        );
    }
    world.until("no connection is left", || {
        world.app().connections.load(std::sync::atomic::Ordering::Relaxed) == 0
    });
    assert_eq!((world.chat(&hello()).status, world.reached()), (200, 1));
}

#[test]
fn b9_a_half_closed_client_has_left_unless_the_operator_says_otherwise() {
    for (extra, served) in
        [("", false), ("limits: { half_close: abort }", false), ("limits: { half_close: serve }", true)]
    {
        for body in [hello(), stream()] {
            let world = World::new(1, extra);
            world.script(0, [Scripted { delay_ms: 200, ..Default::default() }]);
            let mut client = world.connect();
            client.write_all(&request(PATH, "", body.to_string().as_bytes())).expect("written");
            world.until("the call is under way", || world.stats(0).inflight == 1);
            client.shutdown(Shutdown::Write).expect("half is closed");
            if served {
                let answer = Answer::read(&mut client);
                assert_eq!((answer.status, answer.whole), (200, true), "{extra}: {answer:?}");
            } else {
                world.until("the call is cancelled", || world.stats(0).cancelled == 1);
            }
            world.until("nothing is left", || world.permits() == 0);
        }
    }
}

#[test]
fn n2_a_blocked_log_blocks_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let text = format!("{}decisions: {{ log: '{}', log_queue_max: 16 }}\n", one(), pipe.display());
    let mut binary = Binary::start(&text);
    let lost = || {
        let metrics = binary.admin("GET", "/metrics", "", "").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("pointsman_dropped_records_total "));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    // Nobody reads the pipe: it takes 64 KiB, and then no more.
    binary.until("records are dropped, and requests served", || {
        for _ in 0..25 {
            let mut client = support::binary::connect(&binary.client);
            client.write_all(&request(PATH, "", hello().to_string().as_bytes())).expect("written");
            assert_eq!(Answer::read_quickly(&mut client).status, 200);
        }
        lost() > 5
    });
    binary.signal("TERM");
    let began = Instant::now();
    assert!(binary.child.wait().expect("it ends").success());
    assert!(began.elapsed() < PATIENCE, "nor does it keep the process from ending");
}

#[test]
fn n2_nobody_who_reads_the_log_blocks_nobody() {
    let folder = tempfile::tempdir().expect("a folder");
    let mock = pointsman::mock::MockServer::spawn(pointsman::mock::MockArgs {
        settings: support::fast(),
        ..pointsman::mock::MockArgs::on_any_port()
    })
    .expect("a mock starts");
    std::fs::write(
        folder.path().join("pointsman.yaml"),
        Binary::text(&format!("{}log: {{ level: debug }}\n", one()), &mock),
    )
    .expect("written");
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let mut command = std::process::Command::new("sh");
    // Opened for both, so that it opens without a reader; nobody ever reads.
    command.args(["-c", &format!("exec 2<>'{}'; exec \"$0\" \"$@\"", pipe.display())]);
    command.arg(env!("CARGO_BIN_EXE_pointsman"));
    let mut binary = Binary::launch(command, mock, folder, &[]);
    for _ in 0..1_000 {
        let mut client = support::binary::connect(&binary.client);
        client.write_all(&request(PATH, "", hello().to_string().as_bytes())).expect("written");
        assert_eq!(Answer::read_quickly(&mut client).status, 200);
    }
    binary.signal("TERM");
    assert!(binary.child.wait().expect("it ends").success());
}

#[test]
fn l8_a_write_that_was_overtaken_is_refused() {
    let binary = Binary::start(&one());
    let path = "/admin/v1/models/m/deployments/a";
    let tag = binary.admin("GET", path, "", "").header("etag").expect("an etag").to_owned();
    let write = |weight: u32| {
        let body = json!({"weight": weight}).to_string();
        binary.admin("PATCH", path, &format!("if-match: {tag}\r\n"), &body).status
    };
    assert_eq!((write(2), write(3)), (200, 412));
    let live: Value = binary.admin("GET", path, "", "").json();
    assert_eq!(live["live"]["weight"], 2);
}

#[test]
fn l4_what_is_derived_from_the_config_changes_with_it() {
    let text = |alias: &str| one().replace("{ strategy:", &format!("{{ aliases: [{alias}], strategy:"));
    let binary = Binary::start(&text("first"));
    let ask = |model: &str| {
        let mut body = hello();
        body["model"] = json!(model);
        support::binary::send(&binary.client, &request(PATH, "", body.to_string().as_bytes())).status
    };
    assert_eq!((ask("first"), ask("second")), (200, 404));
    binary.rewrite(&text("second"));
    assert_eq!(binary.admin("POST", "/admin/v1/reload", "", "").status, 200);
    assert_eq!((ask("first"), ask("second")), (404, 200));
}

#[test]
fn l10_an_unknown_price_is_not_a_price_of_nothing() {
    let world = World::new(1, "");
    let answer = world.chat(&hello());
    assert_eq!((answer.status, answer.header("x-pointsman-cost-usd")), (200, None));
    assert_eq!(world.record(&answer)["cost_usd"], Value::Null);
}
