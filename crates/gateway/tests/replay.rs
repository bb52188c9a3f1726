//! `pointsman replay`: recorded traffic of a running gateway, under the same config and under another.

mod support;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use pointsman::mock::{MockArgs, MockServer};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::Value;
use support::fast;

/// By session and nothing else: loads, which depend on how fast engines are, are as good as never too uneven.
const HASHED: &str = "{ name: consistent_hash, key: session, bound: 100 }";

fn pointsman(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman")).args(args).env_clear().output().expect("it runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A config for some mocks, the decision log included.
fn config(folder: &tempfile::TempDir, mocks: &[MockServer], strategy: &str, names: &[&str]) -> String {
    let log = folder.path().join("decisions.jsonl").display().to_string();
    let providers: Vec<String> = names
        .iter()
        .zip(mocks)
        .map(|(name, mock)| {
            format!("  p-{name}: {{ kind: mock, base_url: 'http://{}', health: off }}\n", mock.address())
        })
        .collect();
    let deployments: Vec<String> =
        names.iter().map(|name| format!("      - {{ name: {name}, provider: p-{name} }}\n")).collect();
    format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\ndecisions: {{ log: '{log}' }}\nproviders:\n{}models:\n  m:\n    \
         strategy: {strategy}\n    deployments:\n{}",
        providers.concat(),
        deployments.concat()
    )
}

/// A folder with the log of a gateway that was asked by so many sessions twice, and the config it had.
fn recorded(sessions: usize) -> (tempfile::TempDir, Vec<MockServer>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |_| {
        MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock starts")
    };
    let mocks: Vec<MockServer> = (0..3).map(start).collect();
    let text = config(&folder, &mocks, HASHED, &["a", "b", "c"]);
    let path = folder.path().join("old.yaml");
    std::fs::write(&path, &text).expect("written");
    let gateway = Gateway::start(None, support::config(&text), Overlay::default()).expect("it starts");
    let mut client = support::binary::connect(&gateway.address.to_string());
    for turn in 0..2 * sessions {
        let headers = format!("x-pointsman-session: s{}\r\n", turn % sessions);
        let body = support::stream().to_string();
        let request = support::request("/v1/chat/completions", &headers, body.as_bytes());
        std::io::Write::write_all(&mut client, &request).expect("sent");
        assert_eq!(support::Answer::read_quickly(&mut client).status, 200);
    }
    let (log, began) = (folder.path().join("decisions.jsonl"), Instant::now());
    while std::fs::read_to_string(&log).map_or(0, |text| text.matches('\n').count()) < 2 * sessions {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain for the log");
        std::thread::yield_now();
    }
    let path = path.display().to_string();
    (folder, mocks, path)
}

#[test]
fn the_same_config_decides_the_same_again_and_another_is_told_with_its_reasons() {
    let (folder, mocks, old) = recorded(20);
    let log = folder.path().join("decisions.jsonl").display().to_string();
    let (out, page) = (folder.path().join("out.json"), folder.path().join("out.html"));
    let (out, page) = (out.display().to_string(), page.display().to_string());
    let same = pointsman(&["replay", &log, "--config", &old, "--seeds", "2", "--out", &out]);
    assert!(same.status.success(), "{}", said(&same));
    let told: Value = serde_json::from_str(&std::fs::read_to_string(&out).expect("written")).expect("JSON");
    // By the hash of the session, which the log has as the router had it: nothing else and no chance decides.
    let decisions = &told["decisions"];
    assert_eq!((&decisions["agree"], &decisions["differ"]), (&40.into(), &0.into()), "{}", said(&same));
    assert_eq!(told["chance"]["new_and_itself"], 1.0);

    let text = config(&folder, &mocks, "round_robin", &["a", "b", "d"]);
    let new = folder.path().join("new.yaml").display().to_string();
    std::fs::write(&new, text).expect("written");
    let args = ["replay", &log, "--config", &new, "--was", &old, "--report", &page];
    let changed = pointsman(&args);
    let text = said(&changed);
    assert!(changed.status.success(), "{text}");
    for part in [
        "40 requests in",
        "deployments not known:      ",
        " c of m",
        "consistent_hash: hashed  ->  round_robin: next_in_turn",
        "first token, p99",
        "was (simulated)",
        "by consistent_hash: hashed (rank 0)",
        "by round_robin: next_in_turn",
        "again: pointsman replay",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(std::fs::read_to_string(&page).expect("a page").contains("<h2>Requests that differ</h2>"));
    assert_eq!(said(&pointsman(&args)), text, "the same again");
}

#[test]
fn what_cannot_be_replayed_is_told() {
    let (folder, _mocks, old) = recorded(1);
    let log = folder.path().join("decisions.jsonl").display().to_string();
    let replay = |log: &str| pointsman(&["replay", log, "--config", &old, "--seeds", "1"]);
    let missing = replay("/nowhere/decisions.jsonl");
    assert_eq!(missing.status.code(), Some(2));
    assert!(said(&missing).contains("/nowhere/decisions.jsonl: No such file"), "{}", said(&missing));
    let good = std::fs::read_to_string(&log).expect("a log");
    let with = |text: &str| {
        std::fs::write(&log, text).expect("written");
        replay(&log)
    };
    let empty = with("");
    assert_eq!(empty.status.code(), Some(2));
    assert!(said(&empty).contains("is empty"), "{}", said(&empty));
    let odd = with(&format!("{good}{{\"request_id\": 7}}\n{{\"request_id\": \"a"));
    let text = said(&odd);
    assert!(
        odd.status.success() && text.contains("warning: line 3 of ") && text.contains("warning: line 4 of "),
        "{text}"
    );
    assert!(
        text.contains("2 lines were left out, the first of them: line 3 is no decision record"),
        "{text}"
    );
    let none = with("one\ntwo\n");
    assert_eq!(none.status.code(), Some(2));
    assert!(
        said(&none).contains("has no decision records; its line 1 is no decision record"),
        "{}",
        said(&none)
    );
    std::fs::write(&log, &good).expect("written");
    let seeds = pointsman(&["replay", &log, "--config", &old, "--seeds", "0"]);
    assert_eq!(seeds.status.code(), Some(2), "{}", said(&seeds));
}
