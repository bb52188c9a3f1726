//! The command line as a newcomer meets it: the first run, and what each command says and exits with.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use pointsman::mock::{MockArgs, MockServer};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_pointsman");

/// The program in `folder`, without the keys of whoever runs the tests.
fn program(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(folder).env_clear();
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    program(folder, args).output().expect("it runs")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_advice_to_keep_what_was_found_works_as_pasted() {
    let folder = tempfile::tempdir().expect("a folder");
    let pasted = format!("{PROGRAM} serve --print-config > pointsman.yaml && {PROGRAM} check pointsman.yaml");
    let shell = Command::new("/bin/sh").args(["-c", &pasted]).current_dir(&folder).env_clear().output();
    let output = shell.expect("a shell runs");
    let checked = said(&output.stdout);
    assert!(output.status.success(), "{checked}{}", said(&output.stderr));
    assert!(checked.contains("fine: ") && !checked.contains("warning"), "{checked}");
    let named = run(folder.path(), &["--config", "pointsman.yaml", "--print-config"]);
    assert_eq!(named.status.code(), Some(2), "a file that says something is not written over");
}

#[test]
fn a_config_without_models_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("pointsman.yaml"), "").expect("written");
    let plain = said(&run(folder.path(), &["check", "pointsman.yaml"]).stdout);
    assert!(plain.contains("warning: pointsman.yaml: no models are configured"), "{plain}");
    let told: Value =
        serde_json::from_slice(&run(folder.path(), &["check", "pointsman.yaml", "--json"]).stdout)
            .expect("JSON");
    assert!(told["warnings"][0].as_str().is_some_and(|text| text.contains("no models")), "{told}");
    let mut child = program(folder.path(), &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut line = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut line).expect("readable");
    child.kill().expect("it can be ended");
    child.wait().expect("it ends");
    assert!(line.contains("WARN no models are configured"), "{line}");
}

#[test]
fn a_first_run_steps_aside_when_the_usual_ports_are_taken() {
    // Whoever has them, this test or somebody else, they are taken.
    let _taken = [TcpListener::bind("127.0.0.1:8080"), TcpListener::bind("127.0.0.1:8081")];
    let folder = tempfile::tempdir().expect("a folder");
    let mut child =
        program(folder.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut greeting = String::new();
    let why = loop {
        let line = lines.next().expect("a greeting that ends with `why:`");
        greeting.push_str(&line);
        greeting.push('\n');
        if line.starts_with("why:") {
            break line;
        }
    };
    let address =
        |text: &str| text.split("http://").nth(1).and_then(|rest| rest.split('/').next()).map(str::to_owned);
    let client = greeting.lines().find(|line| line.starts_with("try:")).and_then(address).expect("a curl");
    let admin = address(&why).expect("a curl");
    let models = get(&client, "/v1/models");
    let ready = get(&admin, "/livez");
    child.kill().expect("it can be ended");
    child.wait().expect("it ends");
    assert!(models.starts_with("HTTP/1.1 200") && ready.starts_with("HTTP/1.1 200"), "{models}\n{ready}");
    assert!(!client.ends_with(":8080") && !admin.ends_with(":8081"), "{greeting}");
    for part in ["127.0.0.1:8080 is in use", "127.0.0.1:8081 is in use", "not set: $OPENAI_API_KEY, "] {
        assert!(greeting.contains(part), "{part}: {greeting}");
    }
}

fn get(address: &str, path: &str) -> String {
    send(address, &format!("GET {path} HTTP/1.1"), "")
}

/// Sends a request and reads all that comes. `head` is its first lines.
fn send(address: &str, head: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("it listens");
    connection.set_read_timeout(Some(support::PATIENCE)).expect("a timeout can be set");
    write!(connection, "{head}\r\nhost: g\r\nconnection: close\r\n\r\n{body}").expect("written");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn an_address_in_use_names_the_flag_and_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    std::fs::write(folder.path().join("pointsman.yaml"), "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\n")
        .expect("written");
    for flag in ["--listen", "--admin"] {
        let output = run(folder.path(), &[flag, &address]);
        let said = said(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let key = format!("`{}: IP:PORT` in the config", flag.trim_start_matches('-'));
        assert!(said.contains(&format!("`{flag} IP:PORT`")) && said.contains(&key), "{said}");
    }
}

#[test]
fn config_is_a_flag_of_the_commands_that_read_it() {
    let folder = tempfile::tempdir().expect("a folder");
    for command in
        [vec!["check", "x.yaml"], vec!["mock"], vec!["keys"], vec!["schema"], vec!["completions", "sh"]]
    {
        let output = run(folder.path(), &[command.as_slice(), &["--config", "y.yaml"]].concat());
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        assert!(said(&output.stderr).contains("unexpected argument '--config'"), "{command:?}");
    }
    for command in [vec![], vec!["serve"], vec!["simulate"], vec!["explain", "--request", "r.json"]] {
        let output = run(folder.path(), &[command.as_slice(), &["--config", "y.yaml"]].concat());
        assert!(said(&output.stderr).contains("cannot read y.yaml"), "{command:?}: {output:?}");
    }
}

#[test]
fn explain_fails_when_the_request_would_not_be_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "providers: { p: { kind: mock, base_url: 'http://127.0.0.1:1' } }\n\
                  models: { m: { deployments: [ { name: a, provider: p } ] }, \
                  drained: { deployments: [ { name: b, provider: p, draining: true } ] } }\n";
    std::fs::write(folder.path().join("pointsman.yaml"), config).expect("written");
    let explain = |model: &str, more: &[&str]| {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "x"}]}).to_string();
        std::fs::write(folder.path().join("r.json"), body).expect("written");
        let output = run(folder.path(), &[&["explain", "--request", "r.json"], more].concat());
        (output.status.code(), said(&output.stdout), said(&output.stderr))
    };
    let (code, out, _) = explain("m", &[]);
    assert!(code == Some(0) && out.starts_with("model m -> a "), "{out}");
    let (code, out, err) = explain("drained", &[]);
    assert!(
        code == Some(1) && out.contains("drained") && err.contains("would not be served: unavailable"),
        "{out}{err}"
    );
    let (code, out, err) = explain("nope", &[]);
    assert!(code == Some(1) && out.is_empty() && err.contains("refused with 404"), "{out}{err}");
    let as_json = |model: &str, more: &[&str]| {
        let (code, out, err) = explain(model, &[&["--json"], more].concat());
        assert_eq!(err, "", "{model}: all is said in JSON");
        (code, serde_json::from_str::<Value>(&out).unwrap_or_else(|error| panic!("{error}: {out}")))
    };
    assert_eq!(as_json("m", &[]).1["decision"]["outcome"]["deployment"], "a");
    let (code, told) = as_json("drained", &[]);
    assert_eq!((code, &told["decision"]["outcome"]["kind"]), (Some(1), &json!("rejected")));
    let (code, told) = as_json("nope", &[]);
    assert_eq!(
        (code, &told["error"]["status"], &told["error"]["param"]),
        (Some(1), &json!(404), &json!("model"))
    );
    let (code, told) = as_json("m", &["--config", "gone.yaml"]);
    assert_eq!(code, Some(2), "no decision was asked for in a way that could be answered");
    assert!(told["error"]["message"].as_str().is_some_and(|text| text.contains("gone.yaml")), "{told}");
}

#[test]
fn the_mock_says_what_it_does_and_refuses_what_makes_no_sense() {
    let mock = MockServer::spawn(MockArgs::on_any_port()).expect("a mock starts");
    let address = mock.address().to_string();
    let control = |body: &str| {
        let answer = send(&address, &format!("POST /_ctl HTTP/1.1\r\ncontent-length: {}", body.len()), body);
        (answer.lines().next().and_then(|line| line.split(' ').nth(1)).map(str::to_owned), answer)
    };
    let (status, _) = control(r#"{"error_rate": 0.25, "slots": 2}"#);
    assert_eq!(status.as_deref(), Some("200"));
    let shown = || {
        let answer = get(&address, "/_ctl");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    };
    let before = shown();
    assert_eq!(
        (&before["error_rate"], &before["slots"], &before["tokens"]),
        (&json!(0.25), &json!(2), &json!(32))
    );
    for (body, part) in [
        (r#"{"slots": 9, "error_rate": 1.5}"#, "`error_rate` is 1.5"),
        (r#"{"stall_rate": -0.1}"#, "`stall_rate` is -0.1"),
        (r#"{"error_status": 200}"#, "`error_status` is 200"),
        (r#"{"decode_tokens_per_s": 1e-30}"#, "`decode_tokens_per_s`"),
        (r#"{"slots": "two"}"#, "`slots`: invalid type"),
        (r#"{"slotz": 2}"#, "unknown field `slotz`"),
        (r#"{"script": [{}, {"status": 42}]}"#, "script[1]: `status` is 42"),
        (r#"{"script": [{"headers": {"a b": "c"}}]}"#, "script[0]: `a b: c` is no header"),
    ] {
        let (status, answer) = control(body);
        assert!(status.as_deref() == Some("400") && answer.contains(part), "{body}: {answer}");
    }
    assert_eq!(shown(), before, "what is refused changes nothing");
}

#[test]
fn the_mock_names_the_flag_that_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let mock = MockServer::spawn(MockArgs::on_any_port()).expect("a mock starts");
    let taken = mock.address().to_string();
    for (args, code, part) in [
        (["mock", "--error-rate", "2"], 2, "`error_rate` is 2"),
        (["mock", "--error-status", "200"], 2, "`error_status` is 200"),
        (
            ["mock", "--listen", &taken],
            1,
            "is in use; stop what uses it, or take another address: `--listen IP:PORT`",
        ),
    ] {
        let output = run(folder.path(), &args);
        let said = said(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(part), "{args:?}: {said}");
    }
}
