//! What `pointsman doctor` says of a running process and of recorded traffic.

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::binary::Binary;
use support::load::Load;
use support::{World, hello};

/// A model with one deployment.
const ONE: &str = "providers:\n  up: { kind: mock, base_url: 'MOCK' }\nmodels:\n  m:\n    deployments:\n      - { provider: up, model: up, slots: 4 }\n";

fn doctor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .arg("doctor")
        .args(args)
        .env_clear()
        .output()
        .expect("it runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A gateway that writes its decisions to a file.
fn recorded(folder: &tempfile::TempDir) -> (World, String) {
    let log = folder.path().join("decisions.jsonl").display().to_string();
    (World::new(2, &format!("decisions: {{ log: '{log}' }}")), log)
}

#[test]
fn live_traffic_gives_a_baseline_and_its_risks() {
    let binary = Binary::start(ONE);
    let load = Load::start(&binary.client, 0, 2);
    let output = doctor(&["--admin", &binary.admin, "--baseline", "--seconds", "2", "--json"]);
    let (failures, asked) = load.end();
    assert!(failures.is_empty(), "{failures:?}");
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let (requests, per_s) = (&told["baseline"]["requests"], &told["baseline"]["answered_per_s"]);
    assert!(requests.as_u64().is_some_and(|seen| seen > 0 && seen <= asked), "{told}");
    assert!(per_s.as_f64().is_some_and(|per_s| per_s > 0.5), "{told}");
    let names: Vec<&str> =
        told["risks"].as_array().into_iter().flatten().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names.len(), 3, "{told}");
}

#[test]
fn recorded_traffic_is_held_against_an_earlier_baseline() {
    let folder = tempfile::tempdir().expect("a folder");
    let (world, log) = recorded(&folder);
    for _ in 0..20 {
        assert_eq!(world.chat_quickly(&hello()).status, 200);
    }
    world.until("all is written", || {
        std::fs::read_to_string(&log).is_ok_and(|text| text.lines().count() == 20)
    });
    let before = folder.path().join("before.json").display().to_string();
    let first = doctor(&["--baseline", "--log", &log, "--out", &before]);
    assert!(first.status.success() && said(&first).contains("20 requests"), "{}", said(&first));
    let second = doctor(&["--baseline", "--log", &log, "--against", &before]);
    assert!(
        said(&second).contains("(+0.0 %)") && said(&second).contains("slot_imbalance of m"),
        "{}",
        said(&second)
    );
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let (world, log) = recorded(&folder);
    assert_eq!(world.chat_quickly(&hello()).status, 200);
    world.until("it is written", || std::fs::read_to_string(&log).is_ok_and(|text| text.ends_with('\n')));
    let good = std::fs::read_to_string(&log).expect("readable");
    let with = |more: &str| {
        std::fs::write(&log, format!("{good}{more}")).expect("written");
        doctor(&["--baseline", "--log", &log])
    };
    let cut = with("{\"request_id\": \"a");
    assert!(cut.status.success(), "a process was killed while it wrote");
    assert!(
        said(&cut).contains("warning: line 2 of ") && said(&cut).contains("was cut off"),
        "{}",
        said(&cut)
    );
    let long = with(&format!("{}\n{good}", "x".repeat((16 << 20) + 1)));
    assert!(
        long.status.success() && said(&long).contains("2 requests in"),
        "what is behind it is read: {}",
        said(&long)
    );
    assert!(
        said(&long).contains("warning: line 2 of ") && said(&long).contains("is longer than"),
        "{}",
        said(&long)
    );
    let odd = with("{\"request_id\": 7}\n");
    assert!(!odd.status.success() && said(&odd).contains("line 2 of "), "{}", said(&odd));
    std::fs::write(&log, "").expect("written");
    let nothing = doctor(&["--baseline", "--log", &log]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(said(&nothing).contains("no traffic"), "{}", said(&nothing));
}

#[test]
fn without_a_baseline_it_tells_what_is_wrong_now() {
    let binary = Binary::start(&ONE.replace("'MOCK' }", "'MOCK', keys: [the-only-key-1] }"));
    let admin = binary.admin.clone();
    let well = doctor(&["--admin", &admin]);
    assert!(said(&well).contains("all deployments are healthy"), "{}", said(&well));
    binary.mock.control().set(|settings| settings.api_key = Some("another".to_owned()));
    assert!(binary.ask().status >= 500);
    let unwell = doctor(&["--admin", &admin]);
    assert!(said(&unwell).contains("credential key-1 of up: dead"), "{}", said(&unwell));
    let unwell: Value = serde_json::from_slice(&doctor(&["--admin", &admin, "--json"]).stdout).expect("JSON");
    assert_eq!(unwell["credentials"][0]["provider"], "up", "{unwell}");
    drop(binary);
    let gone = doctor(&["--admin", &admin]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(said(&gone).contains("--admin ADDRESS"), "{}", said(&gone));
}
