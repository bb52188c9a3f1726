//! Upgrades, drains and deaths of the real process.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use pointsman::mock::Scripted;
use serde_json::{Value, json};
use support::binary::{Binary, connect, kill, one};
use support::load::{Load, long, open_stream, rest_of};
use support::{Answer, PATIENCE, hello, request};

#[test]
fn l6_an_upgrade_under_load_refuses_nobody_and_cuts_nothing() {
    let mut binary = Binary::start(&one());
    binary.mock.control().set(|settings| settings.slots = 0);
    let mut old = u64::from(binary.child.id());
    let drained = binary.admin("PATCH", "/admin/v1/models/m/deployments/a", "", r#"{"weight":7}"#);
    assert_eq!(drained.status, 200, "{drained:?}");
    binary.mock.control().script((0..8).map(|_| long(60, 50)));
    let streams: Vec<TcpStream> = (0..8).map(|_| open_stream(&binary.client)).collect();
    let load = Load::start(&binary.client, 3, 2);
    for round in 1..=2 {
        let before = load.asked();
        binary.until("requests flow", || load.asked() > before + 50);
        let (code, said) = binary.run(&["upgrade", "--admin", &binary.admin]);
        assert_eq!(code, Some(0), "{said}");
        let new = said.split(' ').nth(1).and_then(|pid| pid.parse().ok()).expect("it names the new process");
        binary.heirs.push(new);
        assert!(new != old && said.contains(&format!("process {old} finishes")), "round {round}: {said}");
        // A connection that came between the two processes is closed without an answer; the next is answered.
        let weight = || binary.admin("GET", "/admin/v1/models/m/deployments/a", "", "");
        binary.until("the admin API answers", || weight().status == 200);
        assert_eq!(weight().json()["live"]["weight"], 7, "admin changes that are in no file go along");
        old = new;
    }
    let before = load.asked();
    binary.until("requests flow on", || load.asked() > before + 50);
    for stream in streams {
        assert!(
            rest_of(stream).ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"),
            "streams of the first process finish"
        );
    }
    assert!(
        binary.child.wait().expect("it ends").success(),
        "the first process ends by itself: {}",
        binary.log()
    );
    let (failures, asked) = load.end();
    println!("two upgrades: {} of {asked} requests failed, 8 of 8 streams whole", failures.len());
    assert!(failures.is_empty(), "{} of {asked}: {:?}", failures.len(), &failures[..failures.len().min(3)]);
}

#[test]
fn l6_an_upgrade_that_fails_leaves_the_old_process_serving() {
    let mut binary = Binary::start(&one());
    binary.rewrite(&one().replace("round_robin", "rond_robin"));
    let (code, said) = binary.run(&["upgrade", "--admin", &binary.admin]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("did you mean `round_robin`") && said.contains("goes on"), "{said}");
    assert_eq!(binary.ask().status, 200);
    assert_eq!(binary.admin("GET", "/readyz", "", "").status, 200);
    binary.rewrite(&one());
    binary.signal("USR2");
    assert!(binary.child.wait().expect("it ends").success());
    let answer = binary.ask();
    assert_eq!(answer.status, 200, "the process that the signal began serves: {answer:?}");
    let pid =
        binary.log().split("pid=").nth(1).and_then(|text| text.split_whitespace().next().map(str::to_owned));
    binary.heirs.extend(pid.and_then(|pid| pid.parse::<u64>().ok()));
    assert!(!binary.heirs.is_empty(), "{}", binary.log());
}

#[test]
fn l5_the_drain_of_a_deployment_has_an_end_and_a_way_back() {
    let mut binary = Binary::start(&one().replace(
        "{ name: a, provider: p }",
        "{ name: a, provider: p, drain_ms: 90000 }, { name: b, provider: p, weight: 0 }",
    ));
    let path = "/admin/v1/models/m/deployments/a";
    binary.mock.control().script([Scripted { hang_after: Some(2), ..Default::default() }]);
    let client = open_stream(&binary.client);
    assert_eq!(binary.admin("POST", &format!("{path}/drain?timeout_ms=120001"), "", "").status, 422);
    assert_eq!(binary.admin("POST", &format!("{path}/drain?timeout=1"), "", "").status, 400);
    let drained = binary.admin("POST", &format!("{path}/drain?timeout_ms=1500"), "", "").json();
    let left = drained["live"]["drain_ends_in_ms"].as_u64().expect("a bound");
    assert!(left <= 1500 && drained["live"]["inflight"] == 1, "{drained}");
    assert_eq!(drained["live"]["state"], "draining");
    assert_eq!(drained["admin_change"], json!({"patch": {"draining": true, "drain_ms": 1500}}));
    let refused = binary.ask();
    assert_eq!(refused.status, 503, "nothing new: {refused:?}");
    let rest = rest_of_one(client);
    assert!(rest.contains("deployment_drained") && !rest.contains("[DONE]"), "{rest}");
    assert_eq!(binary.admin("GET", path, "", "").json()["live"]["inflight"], 0);
    let back = binary.admin("POST", &format!("{path}/undrain"), "", "").json();
    assert_eq!((&back["live"]["state"], &back["admin_change"]), (&json!("healthy"), &Value::Null), "{back}");
    assert_eq!(back["config"]["drain_ms"], 90_000);
    assert_eq!(binary.ask().status, 200);
    binary.signal("TERM");
    assert!(binary.child.wait().expect("it ends").success());
}

#[test]
fn l5_what_waits_for_its_content_is_recalled_with_a_key_too() {
    let binary = Binary::start(&one());
    binary.mock.control().script([Scripted { hang: true, ..Default::default() }]);
    let mut client = connect(&binary.client);
    let body = hello().to_string();
    let asked = request("/v1/chat/completions", "idempotency-key: k\r\n", body.as_bytes());
    client.write_all(&asked).expect("written");
    binary.until("it is asked", || binary.mock.control().stats().inflight == 1);
    let began = std::time::Instant::now();
    let path = "/admin/v1/models/m/deployments/a";
    assert_eq!(binary.admin("POST", &format!("{path}/drain?timeout_ms=300"), "", "").status, 200);
    let answer = Answer::read_quickly(&mut client);
    assert_eq!((answer.status, answer.error("code")), (503, json!("deployment_drained")), "{answer:?}");
    assert!(began.elapsed() < std::time::Duration::from_millis(1500), "{:?}", began.elapsed());
}

#[test]
fn d3_what_a_drain_cuts_off_is_continued_elsewhere() {
    let config = one().replace(
        "deployments: [ { name: a, provider: p }",
        "retry: { continuation: true }, deployments: [ { name: a, provider: p, tier: 0 }, { name: b, provider: p }",
    );
    let binary = Binary::start(&config);
    let event = |text: &str| {
        format!(
            "data: {{\"id\":\"x\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
        )
    };
    let hanging = Scripted {
        hang_after: Some(1),
        pieces: Some(vec![event("one"), event("never")]),
        ..Default::default()
    };
    let rest = vec![event("two"), "data: [DONE]\n\n".to_owned()];
    binary.mock.control().script([hanging, Scripted { pieces: Some(rest), ..Default::default() }]);
    let client = open_stream(&binary.client);
    let path = "/admin/v1/models/m/deployments/a";
    assert_eq!(binary.admin("POST", &format!("{path}/drain?timeout_ms=300"), "", "").status, 200);
    let rest = rest_of_one(client);
    assert!(rest.contains("two") && rest.contains("[DONE]"), "{rest}");
}

#[test]
fn l5_whoever_still_waits_when_the_grace_is_over_is_told_and_recorded() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = folder.path().join("log");
    let config =
        format!("{}shutdown: {{ grace_ms: 200 }}\ndecisions: {{ log: '{}' }}\n", one(), log.display());
    let mut binary = Binary::start(&config);
    binary.mock.control().set(|settings| settings.slots = 0);
    let silent = || Scripted { hang: true, ..Default::default() };
    binary.mock.control().script([
        Scripted { hang_after: Some(2), ..Default::default() },
        silent(),
        silent(),
    ]);
    let streaming = open_stream(&binary.client);
    let mut waiting: Vec<TcpStream> = ["", "idempotency-key: k\r\n"]
        .map(|headers| {
            let mut client = connect(&binary.client);
            let asked = request("/v1/chat/completions", headers, hello().to_string().as_bytes());
            client.write_all(&asked).expect("written");
            client
        })
        .into();
    binary.until("all are asked", || binary.mock.control().stats().inflight == 3);
    let began = std::time::Instant::now();
    binary.signal("TERM");
    for client in &mut waiting {
        let answer = Answer::read_quickly(client);
        assert_eq!((answer.status, answer.error("code")), (503, json!("shutting_down")), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    assert!(rest_of_one(streaming).contains("shutting_down"));
    assert!(binary.child.wait().expect("it ends").success());
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    let log = std::fs::read_to_string(&log).expect("readable");
    let mut ends: Vec<String> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a record"))
        .map(|record| format!("{} {} {}", record["outcome"], record["detail"], record["status"]))
        .collect();
    ends.sort();
    let failed = r#""failed" "shutting_down" 503"#;
    assert_eq!(ends, [failed, failed, r#""truncated" "shutting_down" 200"#]);
}

#[test]
fn l6_an_upgrade_that_hangs_keeps_nobody_from_stopping() {
    let mock = pointsman::mock::MockServer::spawn(pointsman::mock::MockArgs {
        settings: support::fast(),
        ..pointsman::mock::MockArgs::on_any_port()
    })
    .expect("a mock starts");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("pointsman.yaml"), Binary::text(&one(), &mock)).expect("written");
    let program = folder.path().join("program");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pointsman"), &program).expect("linked");
    let mut binary = Binary::launch(std::process::Command::new(&program), mock, folder, &[]);
    std::fs::remove_file(&program).expect("removed");
    let began = binary.folder.path().join("began");
    // It ends by itself some time after the test.
    let script = format!("#!/bin/sh\n: > '{}'\nexec sleep 8\n", began.display());
    std::fs::write(&program, script).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).expect("set");
    binary.signal("USR2");
    binary.until("the new process hangs", || began.exists());
    let told = std::time::Instant::now();
    binary.signal("TERM");
    assert!(binary.child.wait().expect("it ends").success());
    assert!(told.elapsed() < std::time::Duration::from_secs(4), "{:?}", told.elapsed());
}

/// The rest of one chunked answer on a connection that stays open.
fn rest_of_one(mut client: TcpStream) -> String {
    let mut rest = Vec::new();
    let mut buffer = [0; 4096];
    while !rest.ends_with(b"0\r\n\r\n") {
        let read = client.read(&mut buffer).expect("it comes in time");
        if read == 0 {
            break;
        }
        rest.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&rest).into_owned()
}

#[test]
fn l7_killed_in_the_middle_of_writes_it_starts_again_with_what_it_had() {
    let folder = tempfile::tempdir().expect("a folder");
    let (log, changes) = (folder.path().join("log"), folder.path().join("changes.json"));
    let text = format!(
        "{}decisions: {{ log: '{}' }}\nadmin_changes: {{ file: '{}' }}\n",
        one(),
        log.display(),
        changes.display()
    );
    for round in 1..=3_u64 {
        let binary = Binary::start(&text);
        let load = Load::start(&binary.client, 2, 0);
        for change in 1..=20 * round {
            let weight = json!({"weight": change});
            let changed = binary.admin("PATCH", "/admin/v1/models/m/deployments/a", "", &weight.to_string());
            assert_eq!(changed.status, 200, "{changed:?}");
        }
        binary.signal("KILL");
        load.end();
        let again = Binary::start(&text);
        let weight = again.admin("GET", "/admin/v1/models/m/deployments/a", "", "").json();
        assert_eq!(weight["live"]["weight"], 20 * round, "what was answered was written");
        let answer = again.ask();
        let id = answer.header("x-pointsman-request-id").expect("an id").to_owned();
        again.until("the log goes on", || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(&id)));
        let text = std::fs::read_to_string(&log).expect("readable");
        let broken = text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count();
        assert!(broken as u64 <= round, "a kill leaves one unfinished line at most: {broken}");
        assert!(text.lines().last().is_some_and(|line| serde_json::from_str::<Value>(line).is_ok()));
    }
}

#[test]
fn l7_traffic_goes_on_without_a_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("not-there");
    let changes = missing.join("changes.json");
    for (name, log) in
        [("disk full", "/dev/full".to_owned()), ("no such folder", format!("{}/log", missing.display()))]
    {
        let text = format!(
            "{}decisions: {{ log: '{log}' }}\nadmin_changes: {{ file: '{}' }}\n",
            one(),
            changes.display()
        );
        let binary = Binary::start(&text);
        for _ in 0..5 {
            assert_eq!(binary.ask().status, 200, "{name}");
        }
        let drained = binary.admin("PATCH", "/admin/v1/models/m/deployments/a", "", r#"{"weight":3}"#);
        assert_eq!((drained.status, &drained.json()["live"]["weight"]), (200, &json!(3)), "{name}: in force");
        let ready = || binary.admin("GET", "/readyz", "", "");
        binary.until("it is told", || ready().body.contains("decisions.log: cannot write"));
        assert_eq!(ready().status, 200, "{name}: degraded, and ready");
        let lost =
            || binary.admin("GET", "/metrics", "", "").body.contains("pointsman_dropped_records_total 5");
        binary.until("what is lost is counted", lost);
        if name == "no such folder" {
            std::fs::create_dir(&missing).expect("made");
            binary.until("the log is opened once it can be", || {
                binary.ask();
                std::fs::read_to_string(missing.join("log")).is_ok_and(|text| !text.is_empty())
            });
            assert_eq!(ready().json()["degraded"], json!([]));
        }
    }
}

#[test]
fn b8_without_descriptors_clients_wait_and_streams_go_on() {
    let mock = pointsman::mock::MockServer::spawn(pointsman::mock::MockArgs {
        settings: support::fast(),
        ..pointsman::mock::MockArgs::on_any_port()
    })
    .expect("a mock starts");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("pointsman.yaml"), Binary::text(&one(), &mock)).expect("written");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 80; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_pointsman")]);
    let binary = Binary::launch(command, mock, folder, &[]);
    binary.mock.control().script([long(30, 50)]);
    let streaming = open_stream(&binary.client);
    // More than there are descriptors: the system accepts them into the backlog, and there they wait.
    let idle: Vec<TcpStream> = (0..120).map(|_| connect(&binary.client)).collect();
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", binary.child.id())).expect("it runs");
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap_or("").split(' ').filter_map(|n| n.parse().ok()).collect();
        // utime and stime, in ticks of 10 ms; the state before them is no number.
        fields[10] + fields[11]
    };
    let (before, began) = (spent(), std::time::Instant::now());
    let mut waiting = connect(&binary.client);
    waiting.set_read_timeout(Some(std::time::Duration::from_secs(1))).expect("a timeout can be set");
    waiting.write_all(&request("/v1/chat/completions", "", hello().to_string().as_bytes())).expect("written");
    let error = waiting.read(&mut [0; 1]).expect_err("no answer yet");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it waits: {error}");
    let ticks_max = began.elapsed().as_millis() as u64 / 10 / 4;
    assert!(spent() - before < ticks_max, "no busy loop: {} ticks of {ticks_max}", spent() - before);
    assert!(rest_of_one(streaming).contains("data: [DONE]"), "the stream is unaffected");
    drop(idle);
    waiting.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    let answer = Answer::read(&mut waiting);
    assert_eq!(answer.status, 200, "who waited is served, upstream connection included: {answer:?}");
    kill("TERM", binary.child.id().into());
}
