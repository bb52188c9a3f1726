//! The Open Inference Protocol over sockets: what is told, what is sent on, and what is refused before that.

mod support;

use pointsman::mock::{MockArgs, MockServer, Scripted};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use serde_json::{Value, json};
use support::{Answer, World, config, fast, request};

/// A model `resnet` in two versions at two mocks, with its tensors registered, a model `free` without, and one that only
/// chats.
fn world(extra: &str) -> World {
    let mocks: Vec<MockServer> = (0..2)
        .map(|_| {
            MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() })
                .expect("a mock starts")
        })
        .collect();
    let text = format!(
        "{extra}
listen: 127.0.0.1:0
admin: 127.0.0.1:0
workers: 1
providers:
  a: {{ kind: kserve, base_url: 'http://{}', health: off }}
  b: {{ kind: triton, base_url: 'http://{}', health: off }}
  llm: {{ kind: vllm, base_url: 'http://127.0.0.1:9', health: off }}
models:
  resnet:
    inputs: [ {{ name: x, datatype: FP32, shape: [-1, 3] }} ]
    outputs: [ {{ name: y, datatype: FP32, shape: [-1, 3] }} ]
    deployments:
      - {{ name: r1, provider: a, model: up/resnet, version: '1', tier: 1 }}
      - {{ name: r2, provider: b, model: resnet-b, version: '2', upstream_version: '', tier: 2 }}
  free:
    deployments: [ {{ name: f, provider: a }} ]
  chatty:
    deployments: [ {{ name: c, provider: llm }} ]
",
        mocks[0].address(),
        mocks[1].address()
    );
    let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
    World { mocks, gateway }
}

fn tensor(name: &str, datatype: &str, shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"{name}","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
}

fn good() -> String {
    tensor("x", "FP32", "[1,3]", "[1,2.5,3e1]")
}

/// The same, asking for one output.
fn asks_for(output: &str) -> String {
    let good = good();
    let members = good.strip_suffix('}').expect("an object");
    format!(r#"{members},"outputs":[{{"name":"{output}"}}]}}"#)
}

fn get(world: &World, path: &str) -> Answer {
    world.send(format!("GET {path} HTTP/1.1\r\nhost: g\r\n\r\n").as_bytes())
}

fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).expect("JSON")
}

/// The words of an error, which has nothing else.
#[track_caller]
fn error(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = body(answer);
    let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["error"], "{body}");
    body["error"].as_str().expect("words").to_owned()
}

#[test]
fn tensors_go_to_the_version_asked_for_and_come_back_as_they_were() {
    let world = world("");
    let answer = world.post("/v2/models/resnet/infer", "", good().as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("x-pointsman-served-by"), Some("r1"));
    assert_eq!(body(&answer)["outputs"][0]["data"], json!([1, 2.5, 3e1]));
    assert_eq!(body(&answer)["model_version"], "1");
    let stats = world.stats(0);
    assert_eq!(stats.last_body, good(), "byte for byte");
    assert_eq!(stats.paths.get("/v2/models/up%2Fresnet/versions/1/infer"), Some(&1), "{stats:?}");
    let answer = world.post("/v2/models/resnet/versions/2/infer", "", good().as_bytes());
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("r2")), "{answer:?}");
    assert_eq!(world.stats(1).paths.get("/v2/models/resnet-b/infer"), Some(&1));
    let record = world.record(&answer);
    assert_eq!(
        (&record["operation"], &record["outcome"]),
        (&json!("infer"), &json!("completed")),
        "{record}"
    );
    assert_eq!(record["facts"]["needs"], json!(["infer"]));
    assert_eq!(record["facts"]["version"], "2");
    assert_eq!(record["facts"]["tokens_in_estimate"], json!(good().len().div_ceil(4)));
    assert_eq!((&record["usage"]["tokens_in"], &record["cost_usd"]), (&json!(0), &Value::Null));
    assert_eq!(
        record["tensors"],
        json!({"in": 1, "elements_in": 3, "bytes_in": good().len(), "out": 1, "elements_out": 3, "bytes_out": answer.body.len()})
    );
    world.until("nothing is held", || world.permits() == 0);
}

#[test]
fn binary_tensors_pass_untouched() {
    let world = world("");
    let json = r#"{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","parameters":{"binary_data_size":12}}],"outputs":[{"name":"y","parameters":{"binary_data":true}}]}"#;
    let bytes = [json.as_bytes(), b"\x00\x00\x80\x3fabcdefgh"].concat();
    let head = format!("inference-header-content-length: {}\r\n", json.len());
    let sent = |length: &str| {
        let text = format!(
            "POST /v2/models/resnet/infer HTTP/1.1\r\nhost: g\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n{length}\r\n",
            bytes.len()
        );
        world.send(&[text.as_bytes(), &bytes].concat())
    };
    let answer = sent(&head);
    assert_eq!(answer.status, 200, "{answer:?}");
    let end: usize =
        answer.header("inference-header-content-length").expect("a length").parse().expect("a number");
    assert_eq!(&answer.body[end..], "\0\0\u{fffd}?abcdefgh", "the tensors follow");
    let headers = world.stats(0).last_headers;
    assert_eq!(headers["inference-header-content-length"], json.len().to_string());
    assert_eq!(headers["content-type"], "application/octet-stream");
    assert_eq!(headers["content-length"], bytes.len().to_string());
    assert!(error(&sent(""), 400).contains("UTF-8"), "all of it would be JSON");
    for (length, words) in [
        (head.replace(": ", ": 9"), "has only"),
        (head.replace(": ", ": +"), "one number"),
        (head.repeat(2), "one number"),
        ("inference-header-content-length: 5\r\n".to_owned(), "not valid JSON"),
    ] {
        let told = error(&sent(&length), 400);
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(world.reached(), 1);
}

#[test]
fn what_the_model_does_not_take_is_refused_before_anything_is_sent() {
    let world = world("");
    for (sent, words) in [
        (tensor("x", "FP32", "[3]", "[1,2,3]"), ["`x`", "[3]", "[-1, 3]"]),
        (tensor("x", "FP32", "[1,2]", "[1,2]"), ["`x`", "[1, 2]", "[-1, 3]"]),
        (tensor("x", "INT64", "[1,3]", "[1,2,3]"), ["`x`", "INT64", "FP32"]),
        (tensor("z", "FP32", "[1,3]", "[1,2,3]"), ["\"z\"", "`x`", "FP32 [-1, 3]"]),
        (tensor("x", "FP32", "[1,3]", "[1,2]"), ["\"x\"", "2 elements", "takes 3"]),
        (tensor("x", "FP32", "[1,3]", r#"[1,2,"3"]"#), ["element 2", "a string", "FP32"]),
        (tensor("x", "FP32", "[1,3]", "[1,2,1e39]"), ["element 2", "1e39", "3.4e38"]),
        (asks_for("q"), ["\"q\"", "`y`", "FP32"]),
    ] {
        let answer = world.post("/v2/models/resnet/infer", "", sent.as_bytes());
        let told = error(&answer, 400);
        for word in words {
            assert!(told.contains(word), "{word} in {told}");
        }
        assert_eq!(answer.header("x-pointsman-served-by"), Some("router"));
        assert_eq!(world.record(&answer)["outcome"], "invalid");
    }
    assert_eq!(world.reached(), 0);
    let anything = tensor("q", "INT8", "[1]", "[1]");
    assert_eq!(
        world.post("/v2/models/free/infer", "", anything.as_bytes()).status,
        200,
        "nothing is registered"
    );
}

#[test]
fn every_refusal_is_told_in_the_dialect() {
    let world = world(
        "auth: { keys: [ { name: k, key: 'a-good-key' }, { name: s, key: 'a-small-key', models: [free] } ] }",
    );
    let key = "authorization: Bearer a-good-key\r\n";
    let ask = |path: &str, headers: &str| world.post(path, headers, good().as_bytes());
    assert!(error(&ask("/v2/models/resnet/infer", ""), 401).contains("key"));
    let small = "authorization: Bearer a-small-key\r\n";
    assert!(error(&ask("/v2/models/resnet/infer", small), 403).contains("resnet"));
    assert!(error(&ask("/v2/models/nope/infer", key), 404).contains("nope"));
    assert!(error(&ask("/v2/models/resnet/versions/9/infer", key), 404).contains("no version `9`"));
    assert!(error(&ask("/v2/nowhere", key), 404).contains("/v2/nowhere"));
    assert!(error(&ask("/v2/models/resnet/ready", key), 405).contains("GET"));
    assert!(error(&ask("/v2/models/chatty/infer", key), 400).contains("does not support"));
    assert!(error(&ask("/v2/repository/models/resnet/load", key), 404).contains("nothing at"));
    let plain = format!(
        "POST /v2/models/resnet/infer HTTP/1.1\r\nhost: g\r\n{key}content-type: text/plain\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    assert!(error(&world.send(plain.as_bytes()), 415).contains("text/plain"));
    let short = good().replace("]}]}", "");
    assert!(
        error(&world.post("/v2/models/resnet/infer", key, short.as_bytes()), 400).contains("not valid JSON")
    );
    assert_eq!(world.reached(), 0);
    let chat = world.post(
        "/v1/chat/completions",
        key,
        br#"{"model":"free","messages":[{"role":"user","content":"x"}]}"#,
    );
    assert!(
        body(&chat)["error"]["message"].as_str().is_some_and(|text| text.contains("does not support")),
        "{chat:?}"
    );
}

#[test]
fn servers_and_models_tell_what_they_are() {
    let world = world("");
    let server = body(&get(&world, "/v2"));
    assert_eq!(
        (&server["name"], &server["version"]),
        (&json!("pointsman"), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(body(&get(&world, "/v2/health/live")), json!({"live": true}));
    assert_eq!(body(&get(&world, "/v2/health/ready")), json!({"ready": true}));
    let y = json!([{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]);
    let metadata = body(&get(&world, "/v2/models/resnet"));
    assert_eq!((&metadata["versions"], &metadata["outputs"]), (&json!(["1", "2"]), &y));
    assert_eq!(body(&get(&world, "/v2/models/resnet/versions/2"))["versions"], json!(["2"]));
    assert!(error(&get(&world, "/v2/models/resnet/versions/3"), 404).contains("no version `3`"));
    assert_eq!(get(&world, "/v2/models/resnet/ready").status, 200);
    assert!(error(&get(&world, "/v2/models/chatty/ready"), 400).contains("lacks_capability"));
    let index = |asked: &str| body(&world.post("/v2/repository/index", "", asked.as_bytes()));
    let names = |index: &Value| {
        let all = index.as_array().expect("a list").iter();
        all.map(|one| format!("{}@{} {}", one["name"], one["version"], one["state"]).replace('"', ""))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&index("{}")),
        ["chatty@null UNAVAILABLE", "free@null READY", "resnet@1 READY", "resnet@2 READY"]
    );
    assert_eq!(names(&index(r#"{"ready":true}"#)).len(), 3);
    assert_eq!(names(&index("")).len(), 4, "Triton's clients send nothing");
    for malformed in ["not json", r#"{"ready": tru"#, r#"{"ready":true,"ready":false}"#, r#"{"ready":"yes"}"#]
    {
        let answer = world.post("/v2/repository/index", "", malformed.as_bytes());
        assert!(!error(&answer, 400).is_empty(), "{malformed}");
    }
}

#[test]
fn a_version_is_ready_when_a_deployment_of_it_can_serve() {
    let world = world("breaker: { open_ms_min: 60000, open_ms_max: 60000 }");
    world.mocks[1].control().script((0..40).map(|_| Scripted { status: Some(500), ..Scripted::default() }));
    let ready = |version: &str| get(&world, &format!("/v2/models/resnet/versions/{version}/ready"));
    for _ in 0..40 {
        if ready("2").status != 200 {
            break;
        }
        let _ = world.post("/v2/models/resnet/versions/2/infer", "", good().as_bytes());
    }
    assert!(error(&ready("2"), 400).contains("failed"));
    assert_eq!(ready("1").status, 200);
    assert_eq!(get(&world, "/v2/models/resnet/ready").status, 200, "another version serves");
}

#[test]
fn an_engine_that_fails_is_followed_by_the_next() {
    let world = world("");
    world.script(0, [Scripted { status: Some(503), ..Scripted::default() }]);
    let answer = world.post("/v2/models/resnet/infer", "", good().as_bytes());
    assert_eq!((answer.status, answer.header("x-pointsman-served-by")), (200, Some("r2")), "{answer:?}");
    assert_eq!(answer.header("x-pointsman-attempts"), Some("2"));
}

#[test]
fn what_an_engine_says_of_a_request_comes_back() {
    let world = world("");
    let said = r#"{"error":"[request id: 1] unexpected shape for input 'x'"}"#;
    world.script(
        0,
        [Scripted { status: Some(400), pieces: Some(vec![said.to_owned()]), ..Scripted::default() }],
    );
    let answer = world.post("/v2/models/resnet/infer", "", good().as_bytes());
    assert_eq!(error(&answer, 400), "[request id: 1] unexpected shape for input 'x'");
    assert_eq!(answer.header("x-pointsman-served-by"), Some("r1"));
}

#[test]
fn a_key_of_idempotency_belongs_to_the_model_in_the_path() {
    let world = world("");
    let key = "idempotency-key: one\r\n";
    let anything = tensor("x", "FP32", "[1,3]", "[1,2,3]");
    let first = world.post("/v2/models/free/infer", key, anything.as_bytes());
    assert_eq!(first.status, 200);
    let again = world.post("/v2/models/free/infer", key, anything.as_bytes());
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!(world.reached(), 1);
    let other = world.post("/v2/models/resnet/infer", key, anything.as_bytes());
    assert_eq!(other.status, 422, "{other:?}");
    let _ = error(&other, 422);
}

#[test]
fn d10_a_client_that_leaves_cancels_its_inference() {
    use std::io::Write;
    let world = world("");
    world.script(0, [Scripted { hang: true, ..Scripted::default() }]);
    let mut connection = world.connect();
    connection.write_all(&request("/v2/models/resnet/infer", "", good().as_bytes())).expect("written");
    world.until("it is under way", || world.stats(0).inflight == 1);
    drop(connection);
    world.until("it is cancelled", || world.stats(0).cancelled == 1 && world.permits() == 0);
}
