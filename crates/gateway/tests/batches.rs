//! Files and batches as OpenAI has them, from the outside.

mod support;

use std::time::Instant;

use pointsman::mock::Scripted;
use pointsman::serve::Gateway;
use pointsman::telemetry::metrics::Surroundings;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::batch::{Client, Counting, line, lines, wanted};
use support::{World, config, hello};

/// A gateway that keeps batches in a folder of its own, with `more` in its section and `extra` at the top.
struct Kept {
    world: World,
    folder: tempfile::TempDir,
    client: Client,
}

impl Kept {
    fn new(more: &str, extra: &str) -> Self {
        Self::with(1, "", "", more, extra)
    }

    fn with(count: usize, provider: &str, model: &str, more: &str, extra: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let section = format!("batches: {{ directory: '{}'{more} }}\n{extra}", folder.path().display());
        let world = World::with(count, provider, model, &section);
        let client = Client::of(&world.address());
        Self { world, folder, client }
    }

    fn metrics(&self) -> String {
        let app = self.world.app();
        app.metrics.batches_state(&app.batches.get().expect("kept").overview());
        app.metrics.encode(&Surroundings {
            fleet: app.live.lock().fleet.view(pointsman_routing::Now::ZERO),
            generation: 1,
            permits: 0,
            attempts: 0,
            connections: 0,
        })
    }

    /// Moves the clock of batches on.
    fn skip_hours(&self, hours: i64) {
        self.world.app().batches.get().expect("kept").skip_ms(hours * 3_600_000);
    }

    /// Whether a text stands in the database or its journal.
    fn store_has(&self, text: &str) -> bool {
        let files = ["batches.db", "batches.db-wal"].map(|name| std::fs::read(self.folder.path().join(name)));
        files
            .into_iter()
            .flatten()
            .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    fn files_on_disk(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("files")).expect("a folder").count()
    }
}

#[test]
fn a_whole_job_is_done_as_openai_has_it() {
    let kept = Kept::new("", "");
    let client = &kept.client;
    let uploaded = client.upload_with(&[("purpose", "batch")], Some(lines(5).as_bytes())).json();
    let bytes = lines(5).len();
    assert_eq!(
        (&uploaded["object"], &uploaded["bytes"], &uploaded["filename"], &uploaded["purpose"]),
        (&json!("file"), &json!(bytes), &json!("in.jsonl"), &json!("batch")),
        "{uploaded}"
    );
    let file = uploaded["id"].as_str().expect("an id");
    assert!(file.starts_with("file-"), "{file}");
    let mut body = wanted(file);
    body["metadata"] = json!({"night": "1"});
    let made = client.post("/v1/batches", &body).json();
    assert_eq!(
        (&made["object"], &made["status"], &made["metadata"], &made["completion_window"]),
        (&json!("batch"), &json!("validating"), &json!({"night": "1"}), &json!("24h")),
        "{made}"
    );
    let window = made["expires_at"].as_i64().expect("a time") - made["created_at"].as_i64().expect("a time");
    assert_eq!(window, 86_400);
    let id = made["id"].as_str().expect("an id");
    let done = client.until(id, "completed");
    assert_eq!(done["request_counts"], json!({"total": 5, "completed": 5, "failed": 0}));
    assert_eq!((&done["error_file_id"], &done["errors"]), (&Value::Null, &Value::Null), "{done}");
    for at in ["in_progress_at", "finalizing_at", "completed_at"] {
        assert!(done[at].is_i64(), "{at}: {done}");
    }
    assert!(done["usage"]["output_tokens"].as_i64().is_some_and(|tokens| tokens >= 5), "{done}");
    let results = client.results(&done["output_file_id"]);
    assert_eq!(results.len(), 5);
    let one = &results["a3"];
    assert!(one["id"].as_str().is_some_and(|id| id.starts_with("batch_req_")), "{one}");
    assert_eq!((&one["error"], &one["response"]["status_code"]), (&Value::Null, &json!(200)), "{one}");
    assert_eq!(one["response"]["body"]["object"], "chat.completion", "{one}");
    let request = one["response"]["request_id"].as_str().expect("an id");
    let request = pointsman::telemetry::record::RequestId::parse(request).expect("an id");
    let record = kept.world.app().ring.find(request).expect("its record").to_json();
    assert_eq!(
        (&record["batch"], &record["facts"]["lane"]),
        (&json!({"id": id, "line": 4}), &json!("batch"))
    );
    assert_eq!(kept.world.reached(), 5);
    kept.world.until("the gauges follow", || {
        kept.metrics().contains("pointsman_batches{status=\"completed\"} 1\n")
    });
    assert!(kept.metrics().contains("pointsman_batch_lines_total{result=\"done\"} 5\n"));
    let output = client.get(&format!("/v1/files/{}", done["output_file_id"].as_str().expect("an id"))).json();
    assert_eq!(output["purpose"], "batch_output");
}

#[test]
fn answers_over_several_lines_become_one_and_models_may_differ() {
    let upstream = Counting::start();
    upstream.let_go(100);
    let folder = tempfile::tempdir().expect("a folder");
    let extra = format!("batches: {{ directory: '{}' }}", folder.path().display());
    let world = World::facing(upstream.address, &extra);
    let client = Client::of(&world.address());
    let id = client.create(&client.upload(&lines(3)));
    let done = client.until(&id, "completed");
    assert_eq!(client.results(&done["output_file_id"]).len(), 3);
    assert_eq!(done["usage"]["total_tokens"], 12);
}

#[test]
fn a_line_that_its_provider_refuses_stands_in_the_error_file() {
    let kept = Kept::with(1, "", "", ", concurrency_max: 1", "");
    let refused = Scripted { status: Some(400), ..Default::default() };
    kept.world.script(0, [Scripted::default(), refused]);
    let id = kept.client.create(&kept.client.upload(&lines(3)));
    let done = kept.client.until(&id, "completed");
    assert_eq!(done["request_counts"], json!({"total": 3, "completed": 2, "failed": 1}));
    let errors = kept.client.results(&done["error_file_id"]);
    let one = &errors["a1"];
    assert_eq!((errors.len(), &one["response"]["status_code"]), (1, &json!(400)), "{one}");
    assert!(one["response"]["body"]["error"]["message"].is_string() && one["error"].is_null(), "{one}");
    assert_eq!(kept.client.results(&done["output_file_id"]).len(), 2);
}

#[test]
fn f3_a_page_that_is_no_json_is_no_answer() {
    let kept = Kept::with(1, "", "", ", concurrency_max: 1", "");
    kept.world.script(0, [Scripted { pieces: Some(vec!["<html>".to_owned()]), ..Default::default() }]);
    let id = kept.client.create(&kept.client.upload(&lines(2)));
    let done = kept.client.until(&id, "completed");
    assert_eq!(done["request_counts"], json!({"total": 2, "completed": 1, "failed": 1}));
    let errors = kept.client.results(&done["error_file_id"]);
    assert_eq!(errors["a0"]["response"]["body"], "<html>", "{errors:?}");
}

#[test]
fn an_input_with_mistakes_fails_whole_and_names_each_line() {
    let kept = Kept::new("", "");
    let change = |field: &str, value: Value| {
        let mut changed = line("x", "m");
        changed[field] = value;
        changed.to_string()
    };
    let body = |field: &str, value: Value| {
        let mut changed = line("x", "m");
        changed["body"][field] = value;
        changed.to_string()
    };
    let text = [
        line("x", "m").to_string(),
        "{\"custom_id\": ".to_owned(),
        line("x", "m").to_string(),
        String::new(),
        change("custom_id", json!(7)),
        change("method", json!("GET")),
        change("url", json!("/v1/embeddings")),
        change("body", Value::Null),
        body("model", json!("nobody")),
        body("temperature", json!(9)),
        body("stream", json!(true)),
        // What has the parts of a line in their order is none.
        json!(["y", "POST", "/v1/chat/completions", line("y", "m")["body"]]).to_string(),
        format!("\u{feff}{}", line("z", "m")),
    ];
    let id = kept.client.create(&kept.client.upload(&text.join("\n")));
    let failed = kept.client.until(&id, "failed");
    let found: Vec<(i64, &str, &str)> = failed["errors"]["data"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| {
            let text = |field: &str| one[field].as_str().unwrap_or("-");
            assert!(one["message"].is_string());
            (one["line"].as_i64().expect("a line"), text("code"), text("param"))
        })
        .collect();
    assert_eq!(
        found,
        [
            (2, "invalid_json_line", "-"),
            (3, "duplicate_custom_id", "custom_id"),
            (5, "invalid_type", "custom_id"),
            (6, "invalid_method", "method"),
            (7, "mismatched_url", "url"),
            (8, "missing_required_parameter", "body"),
            (9, "model_not_found", "body.model"),
            (10, "invalid_request", "body.temperature"),
            (11, "invalid_value", "body.stream"),
            (12, "invalid_json_line", "-"),
            (13, "invalid_json_line", "-"),
        ]
    );
    assert!(failed["failed_at"].is_i64() && failed["output_file_id"].is_null(), "{failed}");
    assert_eq!(kept.world.reached(), 0, "nothing of it is sent");
    let many = kept.client.create(&kept.client.upload(&"{}\n".repeat(80)));
    let many = kept.client.until(&many, "failed");
    assert_eq!(many["errors"]["data"].as_array().map(Vec::len), Some(50), "so many and no more");
}

#[test]
fn an_input_has_its_bounds() {
    let kept = Kept::new(", lines_max: 2, file_bytes_max: 4096", "");
    let client = &kept.client;
    for (text, code) in [(lines(3), "too_many_requests"), ("\n \n".to_owned(), "empty_file")] {
        let failed = client.until(&client.create(&client.upload(&text)), "failed");
        assert_eq!(failed["errors"]["data"][0]["code"], code, "{failed}");
    }
    let file = b"x".repeat(5000);
    let purpose = ("purpose", "batch");
    let long = "y".repeat(2000);
    for (fields, file, status, param) in [
        (vec![purpose], Some(&file[..]), 413, "file"),
        (vec![purpose], None, 400, "file"),
        (vec![purpose], Some(&b""[..]), 400, "file"),
        (vec![], Some(&b"{}"[..]), 400, "purpose"),
        (vec![("purpose", "fine-tune")], Some(&b"{}"[..]), 400, "purpose"),
        (vec![purpose, ("expires_after[anchor]", "now")], Some(&b"{}"[..]), 400, "expires_after[anchor]"),
        (vec![("purpose", &long)], Some(&b"{}"[..]), 400, "purpose"),
    ] {
        let answer = client.upload_with(&fields, file);
        assert_eq!((answer.status, answer.error("param")), (status, json!(param)), "{answer:?}");
    }
    let plain = client.call("POST", "/v1/files", "application/json", b"{}");
    assert_eq!(plain.status, 415, "{plain:?}");
    let broken = client.call("POST", "/v1/files", "multipart/form-data; boundary=edge", b"--edge\r\n");
    assert_eq!(broken.status, 400, "{broken:?}");
    assert_eq!(kept.files_on_disk(), 2, "nothing is left of what was refused");
}

#[test]
fn a_batch_is_asked_for_in_the_right_way_or_not_at_all() {
    let kept = Kept::new(", batches_max_per_tenant: 1, files_max_per_tenant: 2", "");
    let client = &kept.client;
    let none = client.post("/v1/batches", &wanted("file-none"));
    assert_eq!((none.status, none.error("param")), (404, json!("input_file_id")), "{none:?}");
    let file = client.upload(&lines(1));
    let mut endpoint = wanted(&file);
    endpoint["endpoint"] = json!("/v1/images");
    let wrong = client.post("/v1/batches", &endpoint);
    assert_eq!((wrong.status, wrong.error("param")), (400, json!("endpoint")), "{wrong:?}");
    assert_eq!(wrong.error("type"), "invalid_request_error");
    kept.world.script(0, [Scripted { hang: true, ..Default::default() }]);
    let id = client.create(&file);
    let second = client.post("/v1/batches", &wanted(&file));
    assert_eq!((second.status, second.error("code")), (429, json!("batch_limit_exceeded")), "{second:?}");
    client.until(&id, "in_progress");
    let in_use = client.call("DELETE", &format!("/v1/files/{file}"), "", b"");
    assert_eq!((in_use.status, in_use.error("code")), (409, json!("file_in_use")), "{in_use:?}");
    client.upload(&lines(1));
    let full = client.upload_with(&[("purpose", "batch")], Some(b"{}"));
    assert_eq!((full.status, full.error("code")), (429, json!("storage_quota_exceeded")), "{full:?}");
    for (method, path, status) in [
        ("PUT", "/v1/files", 405),
        ("DELETE", "/v1/batches", 405),
        ("GET", "/v1/files?limit=0", 400),
        ("GET", "/v1/batches?limit=101", 400),
        ("GET", "/v1/batches?after=nobody", 400),
        ("GET", "/v1/batches/nobody", 404),
        ("POST", "/v1/batches/nobody/cancel", 404),
        ("GET", "/v1/files/nobody/content", 404),
    ] {
        let answer = client.call(method, path, "application/json", b"{}");
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    }
    let off = World::new(1, "");
    let answer = Client::of(&off.address()).get("/v1/files");
    assert_eq!((answer.status, answer.error("code")), (501, json!("batches_not_configured")));
    assert!(answer.body.contains("batches.directory"), "{answer:?}");
}

#[test]
fn h2_without_its_folder_a_gateway_serves_all_but_batches() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let world = World::new(1, &format!("batches: {{ directory: '{}' }}", file.path().display()));
    let answer = Client::of(&world.address()).get("/v1/files");
    assert_eq!((answer.status, answer.error("code")), (503, json!("storage_unavailable")), "{answer:?}");
    assert!(world.app().batches_trouble.get().is_some_and(|why| why.contains("batches.directory")));
    assert_eq!(world.chat(&hello()).status, 200);
}

#[test]
fn a_store_that_breaks_while_it_runs_is_told_and_takes_no_live_request_along() {
    let kept = Kept::new("", "");
    let id = kept.client.create(&kept.client.upload(&lines(1)));
    kept.client.until(&id, "completed");
    let db = rusqlite::Connection::open(kept.folder.path().join("batches.db")).expect("opens");
    db.execute_batch("ALTER TABLE batches RENAME TO gone").expect("broken");
    let trouble = || kept.world.app().batches.get().expect("kept").overview().trouble;
    kept.world.until("the trouble is known", || trouble().is_some());
    assert_eq!(kept.client.get("/v1/batches").status, 503);
    assert_eq!(kept.world.chat(&hello()).status, 200);
    db.execute_batch("ALTER TABLE gone RENAME TO batches").expect("mended");
    kept.world.until("it works again", || trouble().is_none());
    assert_eq!(kept.client.get("/v1/batches").status, 200);
}

#[test]
fn a_cancelled_batch_keeps_what_is_done_and_sends_nothing_more() {
    let kept = Kept::new(", concurrency_max: 1", "");
    kept.world.script(0, [Scripted::default(), Scripted { delay_ms: 300, ..Default::default() }]);
    let client = &kept.client;
    let id = client.create(&client.upload(&lines(20)));
    kept.world.until("the second is under way", || kept.world.stats(0).requests == 2);
    let answer = client.post(&format!("/v1/batches/{id}/cancel"), &json!({}));
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("cancelling")), "{answer:?}");
    let done = client.until(&id, "cancelled");
    assert!(done["cancelling_at"].is_i64() && done["cancelled_at"].is_i64(), "{done}");
    assert_eq!(
        kept.world.reached(),
        2,
        "what was sent was paid for and is followed to its end; no more is sent"
    );
    assert_eq!(client.results(&done["output_file_id"]).len(), 2);
    let errors = client.results(&done["error_file_id"]);
    assert_eq!((errors.len(), &errors["a19"]["error"]["code"]), (18, &json!("batch_cancelled")));
    let again = client.post(&format!("/v1/batches/{id}/cancel"), &json!({}));
    assert_eq!((again.status, &again.json()["status"]), (200, &json!("cancelled")), "{again:?}");
    kept.world.until("all permits are back", || kept.world.permits() == 0);
}

#[test]
fn a_batch_that_is_over_cannot_be_cancelled() {
    let kept = Kept::new("", "");
    let id = kept.client.create(&kept.client.upload(&lines(1)));
    kept.client.until(&id, "completed");
    let answer = kept.client.post(&format!("/v1/batches/{id}/cancel"), &json!({}));
    assert_eq!((answer.status, answer.error("code")), (409, json!("batch_not_cancellable")), "{answer:?}");
}

const TWO: &str = "auth: { keys: [ { name: one, tenant: first, key: key-of-one }, { name: other, tenant: second, key: \
                   key-of-other }, { name: narrow, tenant: first, key: key-of-narrow, models: ['none-*'] } ] }\n";

#[test]
fn j1_what_belongs_to_another_tenant_is_not_there() {
    let kept = Kept::new("", TWO);
    let (one, other) = (kept.client.with("key-of-one"), kept.client.with("key-of-other"));
    let file = one.upload(&lines(1));
    let id = one.create(&file);
    let done = one.until(&id, "completed");
    let output = done["output_file_id"].as_str().expect("an id");
    for (method, path) in [
        ("GET", format!("/v1/files/{file}")),
        ("GET", format!("/v1/files/{output}/content")),
        ("DELETE", format!("/v1/files/{file}")),
        ("GET", format!("/v1/batches/{id}")),
        ("POST", format!("/v1/batches/{id}/cancel")),
    ] {
        let answer = other.call(method, &path, "application/json", b"{}");
        assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
    }
    assert_eq!(other.post("/v1/batches", &wanted(&file)).status, 404);
    assert_eq!(other.get(&format!("/v1/files?after={file}")).status, 400);
    for list in ["/v1/files", "/v1/batches"] {
        assert_eq!(other.get(list).json()["data"], json!([]), "{list}");
        assert_ne!(one.get(list).json()["data"], json!([]), "{list}");
    }
    assert_eq!(kept.client.get("/v1/files").status, 401);
    // Another key of the same tenant sees the file, but may not have its lines run for it.
    let narrow = kept.client.with("key-of-narrow");
    let failed = narrow.until(&narrow.create(&file), "failed");
    assert_eq!(failed["errors"]["data"][0]["code"], "model_not_allowed", "{failed}");
    let record = kept.world.app().ring.newest(50);
    assert!(record.iter().any(|record| record.ties.as_ref().is_some_and(|ties| ties.line.is_some())
        && record.key.as_deref() == Some("one")));
}

#[test]
fn lists_come_in_pages() {
    let kept = Kept::new("", "");
    let client = &kept.client;
    let files: Vec<String> = (0..5).map(|_| client.upload(&lines(1))).collect();
    let batches: Vec<String> = files.iter().map(|file| client.create(file)).collect();
    let ids = |answer: &Value| -> Vec<String> {
        let data = answer["data"].as_array().expect("a list").iter();
        data.map(|one| one["id"].as_str().expect("an id").to_owned()).collect()
    };
    let mut seen = Vec::new();
    let mut path = "/v1/batches?limit=2".to_owned();
    loop {
        let page = client.get(&path).json();
        seen.extend(ids(&page));
        assert_eq!(page["last_id"], seen.last().expect("some").as_str(), "{page}");
        if page["has_more"] == false {
            break;
        }
        path = format!("/v1/batches?limit=2&after={}", seen.last().expect("some"));
    }
    assert_eq!(seen, batches.iter().rev().cloned().collect::<Vec<_>>(), "the newest first");
    for id in &batches {
        client.until(id, "completed");
    }
    let inputs = client.get("/v1/files?purpose=batch&order=asc&limit=3").json();
    assert_eq!((ids(&inputs), &inputs["has_more"]), (files[..3].to_vec(), &json!(true)));
    let outputs = client.get("/v1/files?purpose=batch_output").json();
    assert_eq!(outputs["data"].as_array().map(Vec::len), Some(5));
}

#[test]
fn a_day_is_enough_or_the_rest_expires() {
    let kept = Kept::new(", concurrency_max: 1", "");
    kept.world.script(0, [Scripted::default(), Scripted { delay_ms: 300, ..Default::default() }]);
    let client = &kept.client;
    let id = client.create(&client.upload(&lines(10)));
    kept.world.until("the second is under way", || kept.world.stats(0).requests == 2);
    assert_eq!(client.batch(&id)["request_counts"]["completed"], 1, "progress is told");
    assert!(kept.store_has("chat.completion"), "what is done is kept until the results are written");
    kept.skip_hours(25);
    let done = client.until(&id, "expired");
    assert!(done["expired_at"].is_i64(), "{done}");
    assert_eq!(client.results(&done["output_file_id"]).len(), 2, "what was done is kept");
    let errors = client.results(&done["error_file_id"]);
    assert_eq!((errors.len(), &errors["a9"]["error"]["code"]), (8, &json!("batch_expired")));
    assert_eq!(kept.world.reached(), 2);
}

#[test]
fn files_go_when_their_time_is_over_or_their_owner_says_so() {
    let kept = Kept::new(", keep_hours: 48", "");
    let client = &kept.client;
    let file = client.upload(&lines(1));
    let id = client.create(&file);
    let done = client.until(&id, "completed");
    let output = done["output_file_id"].as_str().expect("an id");
    assert_eq!(kept.files_on_disk(), 2);
    kept.world.until("no answer stands in the store any more", || !kept.store_has("chat.completion"));
    let gone = client.call("DELETE", &format!("/v1/files/{file}"), "", b"");
    assert_eq!(gone.json(), json!({"id": file, "object": "file", "deleted": true}));
    assert_eq!((client.get(&format!("/v1/files/{file}")).status, kept.files_on_disk()), (404, 1));
    let keep =
        [("purpose", "batch"), ("expires_after[anchor]", "created_at"), ("expires_after[seconds]", "3600")];
    let short = client.upload_with(&keep, Some(b"{}")).json();
    assert_eq!(
        short["expires_at"].as_i64().zip(short["created_at"].as_i64()).map(|(to, from)| to - from),
        Some(3600)
    );
    kept.skip_hours(2);
    kept.world.until("the short one is deleted", || kept.files_on_disk() == 1);
    assert_eq!(client.get(&format!("/v1/files/{output}")).status, 200);
    kept.skip_hours(47);
    kept.world.until("the results are deleted", || kept.files_on_disk() == 0);
    assert_eq!(client.get(&format!("/v1/files/{output}/content")).status, 404);
    kept.world.until("the batch is forgotten", || client.get(&format!("/v1/batches/{id}")).status == 404);
}

#[test]
fn a_line_without_room_waits_and_is_sent_again() {
    let kept = Kept::new("", "");
    let full =
        |status| Scripted { status: Some(status), retry_after: Some("1".into()), ..Default::default() };
    kept.world.script(0, [full(429), full(503), full(503)]);
    let id = kept.client.create(&kept.client.upload(&lines(2)));
    let done = kept.client.until(&id, "completed");
    assert_eq!(done["request_counts"], json!({"total": 2, "completed": 2, "failed": 0}), "{done}");
    let metrics = kept.metrics();
    assert!(metrics.contains("pointsman_batch_lines_total{result=\"retried\"}"), "{metrics}");
    assert!(!metrics.contains("pointsman_batch_lines_total{result=\"failed\"}"));
}

#[test]
fn a_line_may_wait_for_its_slot_longer_than_it_may_take() {
    let model = "    timeouts: { total_ms: 300 }\n";
    let lanes = "lanes: { batch: { wait_ms_max: 9000 } }";
    let kept = Kept::with(1, ", slots: 1", model, ", concurrency_max: 4", lanes);
    kept.world.mocks[0].control().set(|settings| settings.first_token_ms = 200);
    let id = kept.client.create(&kept.client.upload(&lines(4)));
    let done = kept.client.until(&id, "completed");
    assert_eq!(done["request_counts"], json!({"total": 4, "completed": 4, "failed": 0}), "{done}");
    assert_eq!(kept.world.reached(), 4, "each was sent once");
}

#[test]
fn a_line_waits_for_a_deployment_that_is_out_of_service() {
    let kept = Kept::new("", "");
    let drain = |draining: bool| {
        let mut next = pointsman_settings::Config::clone(&kept.world.app().snapshot.load().config);
        next.models.get_mut("m").expect("there").deployments[0].draining = draining;
        kept.world.app().install(next);
    };
    drain(true);
    let id = kept.client.create(&kept.client.upload(&lines(2)));
    kept.world.until("the lines wait", || kept.metrics().contains("{result=\"retried\"}"));
    drain(false);
    let done = kept.client.until(&id, "completed");
    assert_eq!(done["request_counts"], json!({"total": 2, "completed": 2, "failed": 0}), "{done}");
}

#[test]
fn h2_results_that_cannot_be_kept_are_tried_again_and_leave_nothing_behind() {
    let kept = Kept::new("", "");
    let db = rusqlite::Connection::open(kept.folder.path().join("batches.db")).expect("opens");
    db.execute_batch(
        "CREATE TABLE tries (at INTEGER); CREATE TRIGGER full BEFORE INSERT ON files WHEN NEW.purpose = 'batch_output'
         BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END",
    )
    .expect("broken");
    let id = kept.client.create(&kept.client.upload(&lines(3)));
    kept.client.until(&id, "finalizing");
    let mut most = 0;
    let began = Instant::now();
    while began.elapsed().as_millis() < 2_500 {
        most = most.max(kept.files_on_disk());
    }
    assert!(most <= 2, "the input and one try at most, not {most} files");
    db.execute_batch("DROP TRIGGER full").expect("mended");
    let done = kept.client.until(&id, "completed");
    assert_eq!(kept.client.results(&done["output_file_id"]).len(), 3);
    assert_eq!(kept.files_on_disk(), 2);
}

#[test]
fn e7_a_line_that_may_have_been_billed_is_not_sent_again() {
    let kept = Kept::with(1, ", free: false", "", "", "");
    kept.world.script(0, [Scripted { close: true, ..Default::default() }]);
    let id = kept.client.create(&kept.client.upload(&lines(1)));
    let done = kept.client.until(&id, "completed");
    let errors = kept.client.results(&done["error_file_id"]);
    assert_eq!(errors["a0"]["response"]["status_code"], 502, "{errors:?}");
    assert_eq!(kept.world.reached(), 1);
}

#[test]
fn live_requests_beside_a_job_do_not_notice_it() {
    let kept = Kept::with(1, ", slots: 2", "", ", concurrency_max: 8", "");
    kept.world.mocks[0].control().set(|settings| settings.first_token_ms = 5);
    let id = kept.client.create(&kept.client.upload(&lines(60)));
    kept.client.until(&id, "in_progress");
    let mut during = 0;
    while kept.client.batch(&id)["status"] == "in_progress" {
        let answer = kept.world.chat_quickly(&hello());
        assert_eq!(answer.status, 200, "{answer:?}");
        during += 1;
    }
    assert!(during > 0, "the job was over before anybody asked");
    let done = kept.client.until(&id, "completed");
    assert_eq!(done["request_counts"]["completed"], 60, "{done}");
    kept.world.until("all permits are back", || kept.world.permits() == 0);
}

#[test]
fn a_large_job_is_done_within_its_bounds() {
    let kept = Kept::new(", concurrency_max: 16", "");
    kept.world.mocks[0].control().set(|settings| settings.slots = 0);
    let began = Instant::now();
    let id = kept.client.create(&kept.client.upload(&lines(1_000)));
    let done = kept.client.until(&id, "completed");
    println!("1000 lines in {:?}", began.elapsed());
    assert_eq!(done["request_counts"], json!({"total": 1000, "completed": 1000, "failed": 0}));
    assert_eq!((kept.world.reached(), client_lines(&kept, &done)), (1_000, 1_000));
}

fn client_lines(kept: &Kept, done: &Value) -> usize {
    kept.client.results(&done["output_file_id"]).len()
}

#[test]
fn a_model_of_lane_batch_stays_there_whatever_the_client_says() {
    let keys = "auth: { keys: [ { name: one, key: key-of-one, headers: [lane] } ] }";
    let world = World::with(1, "", "    lane: batch\n", keys);
    for lane in ["", "x-pointsman-lane: live\r\n", "x-pointsman-lane: batch\r\n"] {
        let headers = format!("authorization: Bearer key-of-one\r\n{lane}");
        let answer = world.post("/v1/chat/completions", &headers, hello().to_string().as_bytes());
        assert_eq!(
            (answer.status, &world.record(&answer)["facts"]["lane"]),
            (200, &json!("batch")),
            "{lane}"
        );
    }
}

#[test]
fn a_model_of_lane_batch_is_no_way_out_for_a_live_request() {
    let mut world = World::new(2, "");
    let addresses = [world.mocks[0].address(), world.mocks[1].address()];
    let text = format!(
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n\
         \x20 m0: {{ kind: mock, base_url: 'http://{}', health: off }}\n\
         \x20 m1: {{ kind: mock, base_url: 'http://{}', health: off }}\n\
         models:\n\
         \x20 m: {{ attempts_max: 1, deployments: [ {{ name: d0, provider: m0 }} ] }}\n\
         \x20 night: {{ lane: batch, deployments: [ {{ name: d1, provider: m1 }} ] }}\n",
        addresses[0], addresses[1]
    );
    world.gateway = Gateway::start(None, config(&text), Overlay::default()).expect("it starts");
    for (lane, status, served) in [("", 500, 0), ("x-pointsman-lane: batch\r\n", 200, 1)] {
        world.script(0, [Scripted { status: Some(500), ..Default::default() }]);
        let headers = format!("x-pointsman-fallback: night\r\n{lane}");
        let answer = world.post("/v1/chat/completions", &headers, hello().to_string().as_bytes());
        assert_eq!((answer.status, world.stats(1).requests), (status, served), "{lane}: {answer:?}");
    }
    let left_out =
        world.app().ring.newest(10).last().expect("a record").to_json()["fallbacks"][0]["left_out"].clone();
    assert_eq!(left_out, "its lane is `batch`, and the request is in lane `live`");
}

#[test]
fn a_flood_of_batch_requests_leaves_the_keys_of_live_ones_alone() {
    let keys = ", keys: [ { name: l, key: for-live, lane: live }, { name: b, key: for-batch, lane: batch, rpm: 2 } ]";
    let kept = Kept::with(1, keys, "", "", "");
    let id = kept.client.create(&kept.client.upload(&lines(4)));
    kept.world.until("the key for batches is used up", || kept.world.reached() == 2);
    let key = |answer: &support::Answer| kept.world.record(answer)["attempts"][0]["credential"].clone();
    for _ in 0..3 {
        let answer = kept.world.chat(&hello());
        assert_eq!((answer.status, key(&answer)), (200, json!("l")), "{answer:?}");
    }
    let counts = kept.client.batch(&id)["request_counts"].clone();
    assert_eq!(counts, json!({"total": 4, "completed": 2, "failed": 0}), "the rest waits for its own key");
    assert_eq!(kept.world.reached(), 5);
}
