//! Keys, the admin API, reloads, and the way out.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use pointsman::mock::Scripted;
use pointsman::reload::{Overrides, reload};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::binary::{Binary, ONE, connect, one, send};
use support::{Answer, World, hello, request, stream};

const KEYS: &str = "auth: { keys: [ { name: web, tenant: acme, key: 'key-of-acme', models: ['m*'] }, \
                    { name: other, tenant: other, key: 'key-of-other', models: ['x-*'] } ] }";

fn ask(world: &World, headers: &str) -> Answer {
    world.post("/v1/chat/completions", headers, hello().to_string().as_bytes())
}

fn get(world: &World, path: &str, headers: &str) -> Answer {
    world.send(format!("GET {path} HTTP/1.1\r\nhost: g\r\n{headers}\r\n").as_bytes())
}

#[test]
fn h1_h3_h5_keys_on_every_carrier_and_nobody_else() {
    let world = World::new(1, KEYS);
    for carrier in [
        "authorization: Bearer key-of-acme",
        "x-api-key: key-of-acme",
        "api-key: key-of-acme",
        "x-goog-api-key: key-of-acme",
    ] {
        assert_eq!(ask(&world, &format!("{carrier}\r\n")).status, 200, "{carrier}");
    }
    let messages: Vec<Value> =
        ["authorization: Bearer key-of-acm", "authorization: Bearer key-of-acme-and-more", "x-api-key: nope"]
            .iter()
            .map(|carrier| {
                let answer = ask(&world, &format!("{carrier}\r\n"));
                assert_eq!(answer.status, 401, "{carrier}: no prefix of a key is a key");
                answer.error("message")
            })
            .collect();
    assert!(
        messages.iter().all(|message| *message == messages[0]),
        "unknown and wrong keys are told the same"
    );
    assert_eq!(ask(&world, "").status, 401);
    assert_eq!(ask(&world, "authorization: Bearer key-of-acme\r\nx-api-key: key-of-other\r\n").status, 400);
    let query = request("/v1/chat/completions?key=key-of-acme", "", hello().to_string().as_bytes());
    assert_eq!(world.send(&query).status, 400);
    assert_eq!(world.reached(), 4);
}

#[test]
fn a_key_uses_and_sees_its_own_models_only() {
    let world = World::new(1, KEYS);
    let (acme, other) = ("authorization: Bearer key-of-acme\r\n", "authorization: Bearer key-of-other\r\n");
    let listed = |key| get(&world, "/v1/models", key).json()["data"].as_array().map(Vec::len);
    assert_eq!((listed(acme), listed(other)), (Some(1), Some(0)));
    assert_eq!(ask(&world, other).status, 403);
    assert_eq!(get(&world, "/v1/models/m", acme).json()["id"], "m");
    assert_eq!(get(&world, "/v1/models/m", other).status, 403);
    assert_eq!(get(&world, "/v1/models/nope", acme).status, 404);
}

#[test]
fn h2_neither_keys_nor_their_hashes_are_ever_shown() {
    let key = "a-key-that-is-hashed";
    let hash: String = pointsman::http::auth::sha256(key.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .concat();
    let world = World::new(1, &format!("auth: {{ keys: [ {{ name: k, key_sha256: '{hash}' }} ] }}"));
    assert_eq!(ask(&world, &format!("authorization: Bearer {key}\r\n")).status, 200);
    assert_eq!(ask(&world, &format!("authorization: Bearer {hash}\r\n")).status, 401, "a hash is no key");
    let config = &world.app().snapshot.load().config;
    let shown = format!("{config:?} {}", config.redacted());
    assert!(!shown.contains(&hash) && !shown.contains(key));
}

#[test]
fn deployments_come_change_drain_and_go_on_the_fly() {
    let binary = Binary::start(&one());
    let path = "/admin/v1/models/m/deployments";
    let first = binary.admin("GET", &format!("{path}/a"), "", "");
    let tag = first.header("etag").expect("an etag").to_owned();
    let added =
        binary.admin("POST", path, &format!("if-match: {tag}\r\n"), r#"{"name":"b/2","provider":"p"}"#);
    assert_eq!((added.status, &added.json()["live"]["state"]), (201, &json!("recovering")), "{added:?}");
    assert_eq!(binary.admin("POST", path, "", r#"{"name":"b/2","provider":"p"}"#).status, 409);
    let stale =
        binary.admin("PATCH", &format!("{path}/b%2F2"), &format!("if-match: {tag}\r\n"), r#"{"weight":5}"#);
    assert_eq!(
        (stale.status, stale.header("content-type")),
        (412, Some("application/problem+json")),
        "l8: {stale:?}"
    );
    let changed = binary.admin("PATCH", &format!("{path}/b%2F2"), "", r#"{"weight":5}"#);
    assert_eq!(changed.json()["live"]["weight"], 5);
    let bad = binary.admin("POST", path, "", r#"{"name":"c","provider":"nope"}"#);
    assert_eq!((bad.status, &bad.json()["code"]), (422, &json!("invalid_config")), "{bad:?}");
    assert!(
        bad.json()["errors"][0]["path"].as_str().is_some_and(|path| path.contains("deployments[2]")),
        "{bad:?}"
    );
    assert_eq!(binary.admin("POST", &format!("{path}/a/drain"), "", "").json()["live"]["state"], "draining");
    assert_eq!(binary.ask().header("x-pointsman-served-by"), Some("b/2"));
    assert_eq!(binary.admin("POST", "/admin/v1/reload", "", "").status, 200);
    assert_eq!(binary.ask().header("x-pointsman-served-by"), Some("b/2"), "changes are kept across a reload");
    assert_eq!(binary.admin("POST", &format!("{path}/a/undrain"), "", "").status, 200);
    assert_eq!(binary.admin("DELETE", &format!("{path}/b%2F2"), "", "").status, 204);
    assert_eq!(binary.ask().header("x-pointsman-served-by"), Some("a"));
    assert_eq!(binary.admin("GET", &format!("{path}/b%2F2"), "", "").status, 404);
}

#[test]
fn every_error_of_the_admin_api_is_problem_details() {
    let binary = Binary::start(&one().replace("name: a", "name: x/a"));
    let body = " ".repeat(1024 * 1024 + 1);
    for (method, path, body, status, code, detail) in [
        ("GET", "/decisions?limit=abc", "", 400, "bad_request", "limit: invalid digit"),
        ("POST", "/explain?tenat=x", "{}", 400, "bad_request", "unknown field `tenat`"),
        ("DELETE", "/models", "", 405, "method_not_allowed", "DELETE is not possible at /admin/v1/models;"),
        ("POST", "/models/m/deployments", &body, 413, "too_large", "more than 1048576 bytes"),
        ("POST", "/explain", &body, 413, "too_large", "more than 1048576 bytes"),
        ("GET", "/models/%FF", "", 400, "bad_request", "UTF-8"),
        ("GET", "/models/m/deployments/x/a", "", 404, "not_found", ": /admin/v1/models/m/deployments/x%2Fa"),
    ] {
        let answer = binary.admin(method, &format!("/admin/v1{path}"), "", body);
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, Some("application/problem+json")),
            "{path}: {answer:?}"
        );
        let problem = answer.json();
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{path}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "{path}: {problem}");
        assert_eq!(answer.header("allow"), (status == 405).then_some("get,head"), "{path}");
    }
    let stale =
        binary.admin("POST", "/admin/v1/models/m/deployments/x%2Fa/drain", "if-match: \"77\"\r\n", "");
    let detail = stale.json()["detail"].clone();
    assert_eq!(detail, "the configuration is \"1\" now; read it again, and decide again");
}

#[test]
fn h7_h9_m1_the_admin_api_keeps_its_own() {
    let binary =
        Binary::start(&format!("{}auth: {{ keys: [ {{ name: k, key: 'a-clients-key' }} ] }}\n", one()));
    let refused = |headers: &str| binary.admin("GET", "/admin/v1/models", headers, "").status;
    assert_eq!(refused("authorization: Bearer a-clients-key\r\n"), 403, "h7");
    assert_eq!(refused("origin: http://evil.example\r\n"), 403, "h9");
    assert_eq!(
        send(&binary.admin, b"GET /admin/v1/models HTTP/1.1\r\nhost: evil.example\r\n\r\n").status,
        403,
        "h9"
    );
    for path in
        ["/admin/v1/config", "/admin/v1/overview", "/admin/v1/credentials", "/admin/v1/models", "/metrics"]
    {
        let answer = binary.admin("GET", path, "", "");
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            !answer.body.contains("the-secret-of-p") && !answer.body.contains("a-clients-key"),
            "m1: {path}"
        );
    }
    assert_eq!(binary.admin("GET", "/livez", "", "").status, 200);
}

#[test]
fn l2_a_bad_reload_keeps_the_old_config_and_says_so() {
    let binary = Binary::start(&one());
    binary.rewrite(&one().replace("round_robin", "rond_robin"));
    let failed = || binary.admin("GET", "/readyz", "", "").json()["degraded"][0].as_str().map(str::to_owned);
    binary.until("the file watch refuses it", || failed().is_some());
    assert!(failed().is_some_and(|why| why.contains("did you mean `round_robin`")), "{:?}", failed());
    assert_eq!(binary.ask().status, 200);
    assert!(
        binary.admin("GET", "/metrics", "", "").body.contains("pointsman_config_reload_failures_total 1")
    );
    binary.rewrite(&one().replace("round_robin", "random"));
    let strategy = || binary.admin("GET", "/admin/v1/models/m", "", "").json()["strategy"]["name"].clone();
    binary.until("the next edit is taken", || strategy() == "random");
    assert_eq!(binary.admin("GET", "/readyz", "", "").json()["degraded"], json!([]));
    binary.rewrite(&one().replace("round_robin", "least_busy"));
    binary.signal("HUP");
    binary.until("SIGHUP reloads", || strategy() == "least_busy");
}

#[test]
fn l3_l5_streams_outlive_reloads_and_finish_before_the_exit() {
    let mut binary = Binary::start(&one());
    let piece = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n".to_owned();
    let mut pieces = vec![piece; 20];
    pieces.push("data: [DONE]\n\n".to_owned());
    binary.mock.control().script([Scripted {
        pieces: Some(pieces),
        piece_delay_ms: 40,
        ..Default::default()
    }]);
    let mut client = connect(&binary.client);
    client.write_all(&request("/v1/chat/completions", "", stream().to_string().as_bytes())).expect("written");
    let mut first = [0; 16];
    client.read_exact(&mut first).expect("the head comes");
    binary.rewrite(&one().replace("name: a", "name: z"));
    let names = || binary.admin("GET", "/admin/v1/models/m", "", "").json()["deployments"][0]["name"].clone();
    binary.until("the reload is in force", || names() == "z");
    binary.signal("TERM");
    binary.until("readyz says so", || binary.admin("GET", "/readyz", "", "").status == 503);
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("the stream goes on");
    assert!(rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{rest}");
    assert!(binary.child.wait().expect("it ends").success(), "exit code 0");
}

#[test]
fn l5_who_comes_before_the_balancer_noticed_is_served() {
    let mut binary = Binary::start(&format!("{}shutdown: {{ delay_ms: 1500 }}\n", one()));
    let mut idle = connect(&binary.client);
    let asked = request("/v1/chat/completions", "", hello().to_string().as_bytes());
    idle.write_all(&asked).expect("written");
    assert_eq!(Answer::read(&mut idle).header("connection"), None);
    binary.signal("TERM");
    binary.until("readyz says so", || binary.admin("GET", "/readyz", "", "").status == 503);
    let answer = binary.ask();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close")),
        "a new client: {answer:?}"
    );
    idle.write_all(&asked).expect("written");
    let answer = Answer::read(&mut idle);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "a known one: {answer:?}");
    binary.until("nobody is accepted any more", || TcpStream::connect(&binary.client).is_err());
    assert!(binary.child.wait().expect("it ends").success());
}

#[test]
fn requests_measure_the_time_to_connect_where_nothing_is_checked() {
    let world = World::new(2, "");
    let measured = || {
        let view = world.app().live.lock().fleet.view(pointsman::clock::now());
        let deployments = &view.models[0].deployments;
        deployments.iter().map(|deployment| deployment.connect_ms.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(measured(), [false, false]);
    assert_eq!(world.chat(&hello()).status, 200);
    assert_eq!(measured(), [true, false], "the one that was connected to");
}

#[test]
fn checks_that_are_turned_off_leave_nobody_unhealthy() {
    const BAD: &str = "health: { path: /nothing-is-here }";
    for (name, after, interval_ms) in [
        ("off", "health: off", 100),
        ("off for all", BAD, 0),
        ("elsewhere", "health: { path: /health }", 100),
    ] {
        let text = |health: &str, interval_ms: u32| {
            let general = format!("health: {{ failures: 1, interval_ms: {interval_ms} }}\n");
            one().replace("health: off", health) + &general
        };
        let binary = Binary::start(&text(BAD, 100));
        let state = || {
            binary.admin("GET", "/admin/v1/models/m/deployments/a", "", "").json()["live"]["state"].clone()
        };
        binary.until("the check fails", || state() == "unhealthy");
        assert_eq!(binary.ask().status, 503, "{name}");
        binary.rewrite(&text(after, interval_ms));
        binary.until(&format!("its check is {name}"), || state() == "healthy");
        assert_eq!(binary.ask().status, 200, "{name}");
    }
}

#[test]
fn l5_what_does_not_finish_within_the_grace_is_told() {
    let mut binary = Binary::start(&format!("{}shutdown: {{ grace_ms: 200 }}\n", one()));
    binary.mock.control().script([Scripted { hang_after: Some(2), ..Default::default() }]);
    let mut client = connect(&binary.client);
    client.write_all(&request("/v1/chat/completions", "", stream().to_string().as_bytes())).expect("written");
    client.read_exact(&mut [0; 16]).expect("the head comes");
    binary.signal("TERM");
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("an end");
    assert!(rest.contains("shutting_down") && !rest.contains("[DONE]"), "{rest}");
    assert!(binary.child.wait().expect("it ends").success());
}

#[test]
fn an_explanation_knows_of_the_models_patience() {
    let binary = Binary::start(&format!("{}timeouts: {{ total_ms: 90000 }}\n", one()));
    let told = |answer: Answer| answer.json()["facts"]["deadline_ms"].clone();
    let explain =
        |headers: &str| told(binary.admin("POST", "/admin/v1/explain", headers, &hello().to_string()));
    assert_eq!(explain(""), 90_000);
    assert_eq!(explain("x-pointsman-deadline-ms: 1000\r\n"), 1_000);
    let id = binary.ask().header("x-pointsman-request-id").expect("an id").to_owned();
    let path = format!("/admin/v1/decisions/{id}");
    binary.until("it is recorded", || binary.admin("GET", &path, "", "").status == 200);
    assert_eq!(told(binary.admin("GET", &path, "", "")), 90_000, "as it holds for requests");
}

#[test]
fn records_and_explanations_are_there_for_the_asking() {
    let log = tempfile::tempdir().expect("a folder");
    let path = log.path().join("decisions.ndjson");
    let priced = one().replace("provider: p }", "provider: p, price: { input: 1000, output: 2000 } }");
    let binary = Binary::start(&format!("{priced}decisions: {{ log: '{}' }}\n", path.display()));
    let answer = binary.ask();
    let id = answer.header("x-pointsman-request-id").expect("an id").to_owned();
    let tokens = |field: &str| answer.json()["usage"][field].as_f64().expect("a count");
    let cost_usd = (tokens("prompt_tokens") + 2.0 * tokens("completion_tokens")) / 1000.0;
    assert_eq!(answer.header("x-pointsman-cost-usd"), Some(format!("{cost_usd:.6}").as_str()));
    let record = || binary.admin("GET", &format!("/admin/v1/decisions/{id}"), "", "");
    binary.until("the record is there", || record().status == 200);
    let record = record().json();
    assert_eq!(
        (&record["attempts"][0]["deployment"], &record["attempts"][0]["credential"]),
        (&json!("a"), &json!("key-1"))
    );
    assert!(
        record["decisions"][0]["candidates"][0]["eligible"] == json!(true)
            && record["overhead_us"].is_u64()
            && record["cost_usd"] == json!(cost_usd),
        "{record}"
    );
    let listed = binary.admin("GET", "/admin/v1/decisions?limit=5", "", "").json();
    assert_eq!(listed["decisions"].as_array().map(Vec::len), Some(1));
    let explained = binary.admin("POST", "/admin/v1/explain", "", &hello().to_string());
    assert_eq!(explained.json()["decision"]["outcome"]["deployment"], "a", "{explained:?}");
    assert_eq!(binary.mock.control().stats().requests, 1, "an explanation sends nothing");
    binary.until("the log has it", || std::fs::read_to_string(&path).is_ok_and(|text| text.contains(&id)));
    let line = std::fs::read_to_string(&path).expect("readable");
    assert!(line.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(binary.admin("GET", "/admin/v1/decisions/ffff", "", "").status, 400);
}

#[test]
fn admin_changes_are_written_back_and_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("changes.json");
    let text = ONE.replace("FOLDER/changes.json", &file.display().to_string());
    let binary = Binary::start(&text);
    let added = binary.admin("POST", "/admin/v1/models/m/deployments", "", r#"{"name":"b","provider":"p"}"#);
    assert_eq!(added.status, 201, "{added:?}");
    drop(binary);
    assert!(Path::new(&file).exists());
    let again = Binary::start(&text);
    assert_eq!(again.admin("GET", "/admin/v1/models/m/deployments/b", "", "").status, 200);
}

#[test]
fn a_change_leaves_to_the_file_what_it_is_not_about() {
    let two = one().replace("[ { name: a", "[ { name: b, provider: p }, { name: a");
    let binary = Binary::start(&two);
    let path = "/admin/v1/models/m/deployments/a";
    let seen = || binary.admin("GET", path, "", "").json();
    let reload = || binary.admin("POST", "/admin/v1/reload", "", "").json();
    assert_eq!(binary.admin("POST", &format!("{path}/drain"), "", "").json()["live"]["state"], "draining");
    assert_eq!(seen()["admin_change"], json!({"patch": {"draining": true}}));
    assert_eq!(binary.admin("POST", &format!("{path}/undrain"), "", "").json()["admin_change"], Value::Null);
    binary.rewrite(&two.replace("name: a,", "name: a, weight: 7,"));
    reload();
    assert_eq!(seen()["config"]["weight"], 7);
    assert_eq!(binary.admin("PATCH", path, "", r#"{"weight":5}"#).json()["live"]["weight"], 5);
    assert_eq!(binary.admin("PATCH", path, "", r#"{"name":"z"}"#).status, 400);
    binary.rewrite(&two.replace("name: a,", "name: a, weight: 8, tier: 2,"));
    reload();
    assert!(binary.log().contains("the file says weight: 8, but 5"), "{}", binary.log());
    assert_eq!((&seen()["config"]["weight"], &seen()["config"]["tier"]), (&json!(5), &json!(2)));
    let back = binary.admin("DELETE", &format!("{path}/changes"), "", "");
    assert_eq!((back.status, &back.json()["config"]["weight"]), (200, &json!(8)));
    assert_eq!(binary.admin("DELETE", &format!("{path}/changes"), "", "").status, 404);
    assert_eq!(binary.admin("PATCH", path, "", r#"{"weight":5}"#).status, 200);
    binary.rewrite(&two.replace(", { name: a, provider: p }", ""));
    reload();
    assert_eq!(binary.admin("GET", path, "", "").status, 404, "what the file dropped is not served");
    assert!(binary.log().contains("the admin change of deployment `a` of model `m` is ignored"));
}

#[test]
fn l9_a_changed_deployment_whose_provider_is_gone_is_no_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("changes.json");
    let text = ONE.replace("FOLDER/changes.json", &file.display().to_string());
    let two = text.replace("providers: {", "providers: { q: { kind: mock, base_url: 'MOCK', health: off },");
    let binary = Binary::start(&two);
    let added = binary.admin("POST", "/admin/v1/models/m/deployments", "", r#"{"name":"b","provider":"q"}"#);
    assert_eq!(added.status, 201, "{added:?}");
    drop(binary);
    let again = Binary::start(&text);
    assert_eq!(again.ask().header("x-pointsman-served-by"), Some("a"));
    let log = again.log();
    assert!(log.contains("there is no provider `q`") && log.contains("changes.json"), "{log}");
    let path = again.folder.path().join("pointsman.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("check").arg(path).output();
    let said = String::from_utf8_lossy(&output.expect("it runs").stdout).into_owned();
    assert!(
        said.contains("warning: ")
            && said.contains("changes.json: ")
            && said.contains("there is no provider `q`"),
        "{said}"
    );
    // A change that is ignored does not stand in the way of others, and can be taken back.
    assert_eq!(again.admin("POST", "/admin/v1/models/m/deployments/a/drain", "", "").status, 200);
    assert_eq!(again.admin("DELETE", "/admin/v1/models/m/deployments/b/changes", "", "").status, 204);
}

#[test]
fn what_the_command_line_says_is_not_called_an_admin_change() {
    let binary = Binary::start(&one());
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["serve", "--listen", "0.0.0.0:0", "--config"])
        .arg(binary.folder.path().join("pointsman.yaml"))
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("listen: 0.0.0.0:0 is reachable") && !said.contains("admin API:"), "{said}");
}

#[test]
fn a_reload_without_changes_says_so_and_keeps_the_etag() {
    let binary = Binary::start(&one());
    let tag = || binary.admin("GET", "/admin/v1/models", "", "").header("etag").map(str::to_owned);
    let before = tag();
    binary.signal("HUP");
    binary.until("it says so", || binary.log().contains("reloaded, nothing changed"));
    assert_eq!(tag(), before);
}

#[test]
fn a_reload_keeps_what_the_command_line_says_and_leaves_the_file_watch_nothing_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pointsman.yaml");
    let text = "listen: 127.0.0.1:9\nadmin: 127.0.0.1:0\nworkers: 1\n";
    std::fs::write(&path, text).expect("written");
    let overrides = Overrides { listen: Some(([127, 0, 0, 1], 0).into()), admin: None };
    let base = support::config(text);
    let gateway =
        Gateway::start_with(Some(path.clone()), base, Overlay::default(), overrides).expect("it starts");
    let edited = format!("{text}region: eu\n");
    std::fs::write(&path, &edited).expect("written");
    let reloaded = reload(&gateway.app).expect("it is good");
    assert_eq!(
        (reloaded.changes.as_slice(), reloaded.generation),
        (&["region: none -> \"eu\"".to_owned()][..], 2)
    );
    assert!(reloaded.restart_needed.is_empty(), "{reloaded:?}");
    assert_eq!(gateway.app.source.lock().expect("not poisoned").seen.as_deref(), Some(edited.as_bytes()));
    let again = reload(&gateway.app).expect("it is good");
    assert_eq!((again.changes.len(), again.generation), (0, 2));
}

#[test]
fn l1_check_says_where_and_what_was_meant() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bad.yaml");
    std::fs::write(&path, "models:\n  m:\n    stratgy: random\n").expect("written");
    for args in [["check", ""], ["serve", "--config"]] {
        let args = args.iter().filter(|arg| !arg.is_empty());
        let output =
            Command::new(env!("CARGO_BIN_EXE_pointsman")).args(args).arg(&path).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(
            said.contains("bad.yaml:3:5: models.m.stratgy: unknown key `stratgy`; did you mean `strategy`?"),
            "{said}"
        );
    }
}

#[test]
fn m3_control_characters_never_reach_the_log_as_they_are() {
    let world = World::new(1, "");
    let answer = world.post("/v1/\u{1b}[31mred", "", b"{}");
    assert!(!answer.body.contains('\u{1b}') && !answer.head.contains('\u{1b}'), "{answer:?}");
    let answer =
        world.chat(&json!({"model": "a\u{1b}[31m\r\nb", "messages": [{"role": "user", "content": "x"}]}));
    assert!(answer.status == 404 && !answer.body.contains('\u{1b}'), "{answer:?}");
}

#[test]
fn pools_are_shown_by_the_admin_api_and_the_metrics() {
    let text = format!("pools: {{ box/1: {{ slots: 3, models: {{ m: {{ guarantee: 2 }} }} }} }}\n{}", one());
    let binary = Binary::start(&text.replace("name: a", "name: a, pool: box/1"));
    let all = binary.admin("GET", "/admin/v1/pools", "", "");
    assert_eq!((all.status, &all.json()["pools"][0]["models"][0]["guarantee"]), (200, &json!(2)), "{all:?}");
    assert_eq!(binary.admin("GET", "/admin/v1/pools/box%2F1", "", "").json()["slots"], 3);
    assert_eq!(binary.admin("GET", "/admin/v1/pools/nope", "", "").status, 404);
    let metrics = binary.admin("GET", "/metrics", "", "").body;
    for line in
        ["pointsman_pool_slots{pool=\"box/1\"} 3", "pointsman_pool_in_use{pool=\"box/1\",model=\"m\"} 0"]
    {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}
