//! What holds at every path that takes a body, whatever dialect is spoken there: JSON that is JSON, no compression, one key.

mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use pointsman::mock::{MockArgs, MockServer};
use pointsman_wire::dialect::{self, CLIENTS};
use pointsman_wire::openai::request::Operation;
use pointsman_wire::tasks::Task;
use serde_json::{Value, json};
use support::batch::Client;
use support::binary::{Binary, one, send};
use support::{Answer, World, fast};

/// The cases of JSONTestSuite that must be accepted (`y`), must be refused (`n`), or may be either (`i`).
const CASES: &str = include_str!("../../wire/tests/json_test_suite.jsonl");

const TENSOR: &str = r#""inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1]}]"#;
const CONTENTS: &str = r#""contents":[{"role":"user","parts":[{"text":"x"}]}]"#;
const MESSAGES: &str = r#""model":"m","max_tokens":2,"messages":[{"role":"user","content":"x"}]"#;
const RERANK: &str = r#""model":"m","query":"x","documents":["y"]"#;
const BATCH: &str =
    r#""input_file_id":"file-none","endpoint":"/v1/chat/completions","completion_window":"24h""#;
const BATCHES: &str = "/v1/batches";

/// Every path that takes a JSON body, and what a body must have there.
const PATHS: [(&str, &str); 26] = [
    ("/v1/chat/completions", MESSAGES),
    ("/v1/completions", r#""model":"m","prompt":"x","max_tokens":2"#),
    ("/v1/embeddings", r#""model":"m","input":"x""#),
    ("/v1/responses", r#""model":"m","input":"x","max_output_tokens":2"#),
    ("/v1/messages", MESSAGES),
    ("/v1/messages/count_tokens", r#""model":"m","messages":[{"role":"user","content":"x"}]"#),
    ("/v1beta/models/google:generateContent", CONTENTS),
    ("/v1beta/models/google:streamGenerateContent", CONTENTS),
    ("/v1beta/models/google:streamGenerateContent?alt=sse", CONTENTS),
    ("/v1beta/models/google:countTokens", CONTENTS),
    ("/v1beta/models/google:embedContent", r#""content":{"parts":[{"text":"x"}]}"#),
    ("/v1beta/models/google:batchEmbedContents", r#""requests":[{"content":{"parts":[{"text":"x"}]}}]"#),
    ("/api/chat", r#""model":"m","messages":[{"role":"user","content":"x"}],"stream":false"#),
    ("/api/generate", r#""model":"m","prompt":"x","stream":false"#),
    ("/api/show", r#""model":"m""#),
    ("/v1/rerank", RERANK),
    ("/v2/rerank", RERANK),
    ("/rerank", RERANK),
    ("/v1/moderations", r#""model":"m","input":"x""#),
    ("/v1/images/generations", r#""model":"m","prompt":"x""#),
    ("/v1/audio/speech", r#""model":"m","input":"x","voice":"v""#),
    ("/v2/models/tensors/infer", TENSOR),
    ("/v2/models/tensors/versions/7/infer", TENSOR),
    ("/v2/repository/index", r#""ready":true"#),
    ("/v1alpha/models/google:generateContent", CONTENTS),
    (BATCHES, BATCH),
];

/// Paths that take a form.
const FORMS: [&str; 4] =
    ["/v1/images/edits", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/files"];

/// A gateway that serves all of them, in front of one mock.
struct Everything {
    world: World,
    _folder: tempfile::TempDir,
}

fn everything(extra: &str) -> Everything {
    let folder = tempfile::tempdir().expect("a folder");
    let mock =
        MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() }).expect("a mock starts");
    let address = mock.address();
    let mut world = World::of(&format!(
        "batches: {{ directory: '{}' }}
{extra}
providers:
  m: {{ kind: mock, base_url: 'http://{address}', health: off }}
  g: {{ kind: gemini, base_url: 'http://{address}', health: off, keys: [key-of-provider] }}
  k: {{ kind: kserve, base_url: 'http://{address}', health: off }}
models:
  m: {{ deployments: [ {{ name: m, provider: m, model: up }} ] }}
  google: {{ deployments: [ {{ name: g, provider: g, model: up }} ] }}
  tensors: {{ deployments: [ {{ name: k, provider: k, model: up, version: '7' }} ] }}
",
        folder.path().display()
    ));
    world.mocks.push(mock);
    Everything { world, _folder: folder }
}

/// A case's name and text.
type Case = (String, String);

/// The cases that must be accepted and those that must be refused.
fn cases() -> (Vec<Case>, Vec<Case>) {
    let all = CASES.lines().map(|line| serde_json::from_str::<Case>(line).expect("a case"));
    let deep = [("n_100000_arrays".to_owned(), "[".repeat(100_000))];
    let told = all.chain(deep).filter(|(name, _)| !name.starts_with('i'));
    told.partition(|(name, _)| name.starts_with('y'))
}

/// A client that keeps its connection as long as the gateway does.
struct Kept {
    address: SocketAddr,
    connection: Option<TcpStream>,
}

impl Kept {
    fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        let connection = self.connection.get_or_insert_with(|| {
            let connection = TcpStream::connect(self.address).expect("it listens");
            connection.set_nodelay(true).expect("a connection");
            connection.set_read_timeout(Some(support::PATIENCE)).expect("a timeout can be set");
            connection
        });
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let _ = connection.write_all(&[head.as_bytes(), body].concat());
        let answer = Answer::read_quickly(connection);
        if answer.closed {
            self.connection = None;
        }
        answer
    }
}

/// Posts every case to one path.
fn post_all(address: SocketAddr, path: &str, members: &str) {
    let mut client = Kept { address, connection: None };
    // A batch knows all its fields, and says of one that is none of its own what it says of JSON that is none.
    let field = if path == BATCHES { "metadata" } else { "extra" };
    let (accepted, refused) = cases();
    for (name, case) in &refused {
        let answer = client.post(path, format!("{{{members},\"{field}\":{case}}}").as_bytes());
        // Some questions are so short that a long one is not read at all.
        let long = case.len() > 60_000 && answer.status == 413;
        assert!(answer.status == 400 || long, "{path} must refuse {name}: {answer:?}");
        let read = path == BATCHES && answer.body.contains("\"metadata\"");
        assert!(!read, "{path} must refuse {name} as JSON: {answer:?}");
    }
    for (name, case) in &accepted {
        let answer = client.post(path, format!("{{{members},\"{field}\":{case}}}").as_bytes());
        if path == BATCHES {
            let read = answer.status == 404 || answer.body.contains("\"metadata\"");
            assert!(read, "{path} must accept {name}: {answer:?}");
        } else {
            assert_eq!(answer.status, 200, "{path} must accept {name}: {answer:?}");
        }
    }
    for bytes in [&b"\xff"[..], b"\"\xed\xa0\x80\"", b"\"\xc0\xaf\"", b"\"\xe6\x97\xa5\xd1\x88\xfa\""] {
        let body = [format!("{{{members},\"{field}\":").as_bytes(), bytes, b"}"].concat();
        let answer = client.post(path, &body);
        assert_eq!(answer.status, 400, "{path} must refuse what is no UTF-8: {answer:?}");
    }
    let marked = client.post(path, format!("\u{feff}{{{members}}}").as_bytes());
    assert_eq!(marked.status, 400, "{path} must refuse a byte order mark: {marked:?}");
}

#[test]
fn every_dialect_and_task_has_its_paths_here() {
    let route = |path: &str| {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        dialect::route(path, query)
    };
    let routed: Vec<_> = PATHS.iter().filter_map(|(path, _)| route(path)).collect();
    for def in CLIENTS {
        assert!(routed.iter().any(|(one, _)| one == def), "{def:?}");
    }
    for operation in Operation::ALL {
        let there = routed.iter().any(|(_, asked)| asked.operation == operation);
        let form = matches!(operation, Operation::Task(task) if task.is_multipart());
        assert!(there || form && FORMS.contains(&operation.path()), "{operation:?}");
    }
    assert!(Task::ALL.iter().all(|task| !task.is_multipart() || FORMS.contains(&task.path())));
}

#[test]
fn c3_c4_c5_every_path_accepts_the_json_it_must_and_refuses_what_it_must() {
    let all = everything("");
    let address = all.world.address();
    std::thread::scope(|scope| {
        for paths in PATHS.chunks(7) {
            scope.spawn(move || paths.iter().for_each(|(path, members)| post_all(address, path, members)));
        }
    });
    all.world.until("nothing is held", || all.world.permits() == 0);
}

#[test]
fn c3_c4_c5_lines_of_a_batch_are_held_to_the_same() {
    let all = everything("");
    let client = Client::of(&all.world.address());
    let (accepted, refused) = cases();
    let one_line = |(_, case): &&Case| !case.contains(['\n', '\r']) && case.len() < 1000;
    let line = |number: usize, inside: &str, beside: &str| {
        let body = format!("{{{MESSAGES}{inside}}}");
        format!(
            r#"{{"custom_id":"a{number}","method":"POST","url":"/v1/chat/completions","body":{body}{beside}}}"#
        ) + "\n"
    };
    let refused: Vec<_> = refused.iter().filter(one_line).collect();
    for some in refused.chunks(25) {
        let mut text = String::new();
        for (at, (_, case)) in some.iter().enumerate() {
            text += &line(2 * at, &format!(",\"extra\":{case}"), "");
            text += &line(2 * at + 1, "", &format!(",\"extra\":{case}"));
        }
        let batch = client.until(&client.create(&client.upload(&text)), "failed");
        let told = batch["errors"]["data"].as_array().expect("errors");
        assert_eq!(told.len(), 2 * some.len(), "each of {some:?} must be refused: {batch}");
    }
    let mut text = String::new();
    for (at, (_, case)) in accepted.iter().filter(one_line).enumerate() {
        text += &line(at, &format!(",\"extra\":{case}"), "");
    }
    let count = text.lines().count();
    let batch = client.until(&client.create(&client.upload(&text)), "completed");
    assert_eq!(batch["request_counts"], json!({"total": count, "completed": count, "failed": 0}), "{batch}");
}

#[test]
fn c3_c4_c5_the_admin_api_reads_json_as_strictly() {
    let binary = Binary::start(&one());
    let mut client = Kept { address: binary.admin.parse().expect("an address"), connection: None };
    let body = MESSAGES;
    let (accepted, refused) = cases();
    for (name, case) in &refused {
        let body = format!("{{{body},\"extra\":{case}}}");
        let answer = client.post("/admin/v1/explain", body.as_bytes());
        assert_eq!(answer.status, 400, "explain must refuse {name}: {answer:?}");
        let body = format!("{{\"name\":\"b\",\"provider\":\"p\",\"extra\":{case}}}");
        let answer = client.post("/admin/v1/models/m/deployments", body.as_bytes());
        assert_eq!(answer.status, 400, "a deployment must refuse {name}: {answer:?}");
    }
    for (name, case) in &accepted {
        let body = format!("{{{body},\"extra\":{case}}}");
        let answer = client.post("/admin/v1/explain", body.as_bytes());
        assert_eq!(answer.status, 200, "explain must accept {name}: {answer:?}");
    }
    let twice = r#"{"name":"b","provider":"p","provider":"q"}"#;
    let answer = binary.admin("POST", "/admin/v1/models/m/deployments", "", twice);
    assert!(answer.status == 400 && answer.body.contains("duplicate"), "c4: {answer:?}");
    let twice = r#"{"weight":1,"weight":2}"#;
    let answer = binary.admin("PATCH", "/admin/v1/models/m/deployments/a", "", twice);
    assert!(answer.status == 400 && answer.body.contains("twice"), "c4: {answer:?}");
    let deployment = binary.admin("GET", "/admin/v1/models/m/deployments/b", "", "");
    assert_eq!(deployment.status, 404, "nothing was added: {deployment:?}");
}

#[test]
fn c2_compressed_bodies_are_refused_at_every_path_and_by_the_admin_api() {
    let all = everything("");
    let bodies = PATHS.iter().map(|(path, members)| (*path, format!("{{{members}}}")));
    // Nothing is ever decompressed: what the bytes would have become does not matter.
    for (path, body) in bodies.chain(FORMS.map(|path| (path, "--x--".to_owned()))) {
        for coding in ["gzip", "br", "zstd", "deflate", "gzip, gzip", "x-unheard-of"] {
            let kind =
                if FORMS.contains(&path) { "multipart/form-data; boundary=x" } else { "application/json" };
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-encoding: {coding}\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let answer = all.world.send(&[head.as_bytes(), body.as_bytes()].concat());
            assert_eq!(answer.status, 415, "{path} {coding}: {answer:?}");
        }
    }
    assert_eq!(all.world.reached(), 0);
    let binary = Binary::start(&one());
    for (method, path) in [
        ("POST", "/admin/v1/explain"),
        ("POST", "/admin/v1/models/m/deployments"),
        ("PUT", "/admin/v1/models/m/deployments/a"),
        ("PATCH", "/admin/v1/models/m/deployments/a"),
    ] {
        let answer = binary.admin(method, path, "content-encoding: gzip\r\n", "\u{1f}\u{8b}");
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (415, &json!("unsupported_media_type")), "{answer:?}");
        let plain = binary.admin(method, path, "content-encoding: identity\r\n", "{}");
        assert_ne!(plain.status, 415, "identity is no coding: {plain:?}");
    }
}

#[test]
fn c1_a_body_that_is_not_read_is_413_and_ends_its_connection_at_every_path() {
    let all = everything("limits: { body_bytes_max: 2048 }");
    let body = vec![b' '; 100_000];
    for path in PATHS.map(|(path, _)| path).into_iter().chain(["/v1/responses/resp_1/cancel"]) {
        let answer = all.world.post(path, "", &body);
        assert_eq!((answer.status, answer.header("connection")), (413, Some("close")), "{path}: {answer:?}");
    }
    assert_eq!(all.world.reached(), 0);
}

#[test]
fn h5_every_carrier_and_every_path_has_the_same_policy() {
    let all = everything("auth: { keys: [ { name: web, tenant: acme, key: 'key-of-acme' } ] }");
    let posts = PATHS.iter().map(|(path, members)| ("POST", *path, format!("{{{members}}}")));
    let forms = FORMS.map(|path| ("POST", path, String::new()));
    let gets = [
        "/v1/models",
        "/v1/models/m",
        "/v1beta/models",
        "/api/tags",
        "/api/ps",
        "/v2",
        "/v2/health/live",
        "/v2/models/tensors",
        "/v2/models/tensors/ready",
        "/v1/files",
        "/v1/batches",
        "/v1/responses/resp_1",
    ];
    let gets = gets.map(|path| ("GET", path, String::new()));
    for (method, path, body) in posts.chain(forms).chain(gets) {
        let ask = |path: &str, headers: &str| {
            let length = if method == "POST" {
                let kind = if FORMS.contains(&path) {
                    "multipart/form-data; boundary=x"
                } else {
                    "application/json"
                };
                format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len())
            } else {
                String::new()
            };
            let text = format!(
                "{method} {path} HTTP/1.1\r\nhost: g\r\nconnection: close\r\n{length}{headers}\r\n{body}"
            );
            send(&all.world.address().to_string(), text.as_bytes())
        };
        let known: Vec<u16> = [
            "authorization: Bearer key-of-acme\r\n",
            "authorization: key-of-acme\r\n",
            "x-api-key: key-of-acme\r\n",
            "api-key: key-of-acme\r\n",
            "x-goog-api-key: key-of-acme\r\n",
            "x-api-key: key-of-acme\r\nauthorization: Bearer key-of-acme\r\n",
        ]
        .iter()
        .map(|carrier| ask(path, carrier).status)
        .collect();
        assert!(known.iter().all(|status| *status == known[0] && *status != 401), "{path}: {known:?}");
        for wrong in ["", "x-goog-api-key: key-of-acm\r\n", "api-key: \r\n", "authorization: Basic a2V5\r\n"]
        {
            assert_eq!(ask(path, wrong).status, 401, "{path} {wrong}");
        }
        let two = "x-goog-api-key: key-of-acme\r\nx-api-key: another\r\n";
        assert_eq!(ask(path, two).status, 400, "{path}: two keys");
        let and = if path.contains('?') { '&' } else { '?' };
        for query in
            ["key=key-of-acme", "%6bey=key-of-acme", "a=b&%6B%65%79=x", "api%5fkey=x", "access_token=x"]
        {
            for headers in ["", "x-api-key: key-of-acme\r\n"] {
                let answer = ask(&format!("{path}{and}{query}"), headers);
                assert_eq!(answer.status, 400, "{path} {query}: {answer:?}");
                assert!(!answer.body.contains("key-of-acme"), "{path} {query}: {answer:?}");
            }
        }
    }
}

#[test]
fn i2_c11_no_field_of_a_client_steers_an_upstream_at_any_path() {
    let all = everything("");
    // What LiteLLM and its like would act on; each is dropped or refused, and never arrives.
    let fields = [
        "api_base",
        "user_config",
        "aws_bedrock_runtime_endpoint",
        "aws_sts_endpoint",
        "AWS_role_name",
        "vertex_credentials",
        "vertex_project",
        "azure_ad_token",
        "azure_endpoint",
        "endpoint",
        "proxy",
        "litellm_metadata",
        "litellm_params",
        "router_settings_override",
        "mock_response",
        "langsmith_base_url",
        "model_list",
    ];
    for (path, members) in PATHS {
        for field in fields {
            let before = all.world.reached();
            let body = format!(r#"{{{members},"{field}":"http://169.254.169.254/evil"}}"#);
            let answer = all.world.post(path, "connection: close\r\n", body.as_bytes());
            let seen = all.world.stats(0).last_body;
            assert!(!seen.contains("169.254"), "{path} {field}: {seen}");
            let refused = answer.status == 400 && all.world.reached() == before;
            assert!(refused || answer.status == 200, "{path} {field}: {answer:?}");
            let refuses =
                path.starts_with("/v1beta") || path.starts_with("/v1alpha") || path.ends_with("/infer");
            assert!(!refuses || refused, "{path} {field}: {answer:?}");
        }
    }
    let form = |field: &str| {
        format!(
            "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x\r\ncontent-disposition: form-data; \
             name=\"{field}\"\r\n\r\nhttp://evil\r\n--x\r\ncontent-disposition: form-data; name=\"file\"; \
             filename=\"a.wav\"\r\n\r\nx\r\n--x--\r\n"
        )
    };
    for field in fields.into_iter().chain(["extra_body[api_base]", "api_base[]"]) {
        let body = form(field);
        let head = format!(
            "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: g\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let answer = all.world.send(&[head.as_bytes(), body.as_bytes()].concat());
        assert_eq!(answer.status, 400, "{field}: {answer:?}");
    }
    let value: Value = json!(all.world.stats(0).paths);
    assert!(value.get("/v1/audio/transcriptions").is_none(), "{value}");
}
