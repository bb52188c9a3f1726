//! The Open Inference Protocol over gRPC, on both sides: a gateway in front of a gateway in front of a mock.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pointsman::mock::{MockArgs, MockServer, Scripted, Settings};
use pointsman::serve::Gateway;
use pointsman_settings::overlay::Overlay;
use pointsman_wire::kserve::grpc::{
    self, Flag, Index, IndexRequest, InferRequest, InferResponse, Method, ModelMetadata, ModelRequest,
    Output, ServerMetadata, Tensor, code,
};
use serde_json::{Value, json};
use support::{World, config, fast};

/// A client asks `far` over gRPC, or `near`, which asks `far` over gRPC, which asks a mock over HTTP.
struct Chain {
    near: World,
    far: World,
}

fn chain(extra: &str, settings: Settings) -> Chain {
    let mock = MockServer::spawn(MockArgs { settings, ..MockArgs::on_any_port() }).expect("a mock starts");
    let start = |provider: &str| {
        let text = format!(
            "{extra}
listen: 127.0.0.1:0
admin: 127.0.0.1:0
grpc: 127.0.0.1:0
workers: 1
providers:
  p: {{ {provider}, health: off }}
models:
  m:
    attempts_max: 1
    inputs: [ {{ name: x, datatype: FP32, shape: [-1, 3] }}, {{ name: words, datatype: BYTES, shape: [-1], optional: true }} ]
    outputs: [ {{ name: y, datatype: FP32, shape: [-1, 3] }}, {{ name: said, datatype: BYTES, shape: [-1] }} ]
    deployments: [ {{ name: d, provider: p, model: m, version: '7' }} ]
"
        );
        Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts")
    };
    let far = start(&format!("kind: kserve, base_url: 'http://{}'", mock.address()));
    let grpc = far.grpc_address.expect("it listens");
    let near = start(&format!("kind: triton, base_url: 'grpc://{grpc}', keys: [ key-of-near ]"));
    Chain { near: World { mocks: Vec::new(), gateway: near }, far: World { mocks: vec![mock], gateway: far } }
}

/// How a call ended.
#[derive(Debug)]
struct Ended {
    headers: HeaderMap,
    code: u8,
    text: String,
    message: Option<Bytes>,
}

impl Ended {
    #[track_caller]
    fn read<M: prost::Message + Default>(&self) -> M {
        assert_eq!(self.code, code::OK, "{self:?}");
        let framed = self.message.as_ref().expect("a message");
        grpc::decode(grpc::unframe(framed).expect("a frame")).expect("it can be read")
    }

    #[track_caller]
    fn failed(&self, code: u8, words: &str) {
        assert!(self.code == code && self.text.contains(words), "{code} {words}: {self:?}");
    }
}

/// Calls a method with a body as it stands.
fn call(world: &World, path: &str, body: Bytes, metadata: &[(&str, &str)]) -> Ended {
    let address = world.gateway.grpc_address.expect("it listens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        tokio::time::timeout(support::PATIENCE, call_on(address, path, body, metadata))
            .await
            .expect("in time")
    })
}

async fn call_on(address: SocketAddr, path: &str, body: Bytes, metadata: &[(&str, &str)]) -> Ended {
    let tcp = tokio::net::TcpStream::connect(address).await.expect("it listens");
    let (mut calls, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.expect("it speaks HTTP/2");
    tokio::spawn(connection);
    let mut request = Request::post(format!("http://{address}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let response =
        calls.send_request(request.body(Full::new(body)).expect("a request")).await.expect("a head");
    let headers = response.headers().clone();
    let body = response.into_body().collect().await.expect("an answer");
    let trailers = body.trailers().cloned().unwrap_or_default();
    let said = |name: &str| {
        let value = trailers.get(name).or(headers.get(name))?;
        Some(percent_encoding::percent_decode(value.as_bytes()).decode_utf8_lossy().into_owned())
    };
    let code = said("grpc-status").and_then(|code| code.parse().ok()).unwrap_or(u8::MAX);
    let text = said("grpc-message").unwrap_or_default();
    let message = Some(body.to_bytes()).filter(|bytes| !bytes.is_empty());
    Ended { headers, code, text, message }
}

fn ask(world: &World, method: Method, message: &impl prost::Message) -> Ended {
    call(world, &method.path(), grpc::frame(message), &[])
}

fn tensor(name: &str, datatype: &str, shape: &[i64]) -> Tensor {
    Tensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..Tensor::default()
    }
}

fn good() -> InferRequest {
    InferRequest {
        model_name: "m".to_owned(),
        id: "42".to_owned(),
        inputs: vec![tensor("x", "FP32", &[1, 3]), tensor("words", "BYTES", &[2])],
        outputs: ["y", "said"].map(|name| Output { name: name.to_owned(), ..Output::default() }).to_vec(),
        raw: vec![Bytes::from_static(b"\0\0\x80\x3fabcdefgh"), Bytes::from_static(b"\x01\0\0\0a\0\0\0\0")],
        ..InferRequest::default()
    }
}

#[test]
fn tensors_go_and_come_back_as_they_were() {
    let chain = chain("", fast());
    for world in [&chain.far, &chain.near] {
        let ended = ask(world, Method::ModelInfer, &good());
        let answer: InferResponse = ended.read();
        assert_eq!((&*answer.id, &*answer.model_name), ("42", "m"));
        assert_eq!(answer.raw, good().raw);
        assert_eq!((&*answer.outputs[0].name, &answer.outputs[0].shape), ("y", &vec![1, 3]));
        assert_eq!(ended.headers["x-pointsman-served-by"], "d");
        assert_eq!(ended.headers["content-type"], "application/grpc");
        let id = ended.headers["x-pointsman-request-id"].to_str().expect("text");
        let record = world.record_of(id);
        assert_eq!(
            (&record["operation"], &record["dialect"], &record["outcome"]),
            (&json!("infer"), &json!("kserve"), &json!("completed")),
            "{record}"
        );
        assert_eq!((&record["tensors"]["in"], &record["tensors"]["elements_in"]), (&json!(2), &json!(5)));
        assert_eq!(
            (&record["tensors"]["out"], &record["conversion"]["to"]),
            (&json!(2), &Value::Null),
            "{record}"
        );
        world.until("nothing is held", || world.permits() == 0);
    }
    assert_eq!(chain.far.reached(), 2);
}

#[test]
fn a_client_over_http_is_served_over_grpc() {
    let chain = chain("", fast());
    let body = r#"{"id":"7","inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[[1,2.5,3e1]]}],"outputs":[{"name":"y"}]}"#;
    for _ in 0..2 {
        let answer = chain.near.post("/v2/models/m/versions/7/infer", "", body.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        let told: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(
            (&told["outputs"][0]["data"], &told["id"]),
            (&json!([1.0, 2.5, 30.0]), &json!("7")),
            "{told}"
        );
    }
    assert_eq!(chain.far.reached(), 2);
    // The second went over the same connection.
    assert_eq!(chain.near.app().metrics.panics.get(), 0);
}

#[test]
fn servers_and_models_say_what_they_are() {
    let chain = chain("", fast());
    let world = &chain.far;
    let empty = Flag::default();
    assert!(ask(world, Method::ServerLive, &empty).read::<Flag>().is);
    assert!(ask(world, Method::ServerReady, &empty).read::<Flag>().is);
    assert_eq!(ask(world, Method::ServerMetadata, &empty).read::<ServerMetadata>().name, "pointsman");
    let model =
        |name: &str, version: &str| ModelRequest { name: name.to_owned(), version: version.to_owned() };
    let told: ModelMetadata = ask(world, Method::ModelMetadata, &model("m", "")).read();
    assert_eq!((&told.versions[..], &*told.inputs[0].datatype), (&["7".to_owned()][..], "FP32"));
    assert_eq!(told.inputs[0].shape, [-1, 3]);
    assert!(ask(world, Method::ModelReady, &model("m", "7")).read::<Flag>().is);
    ask(world, Method::ModelReady, &model("m", "8")).failed(code::NOT_FOUND, "no version `8`");
    ask(world, Method::ModelMetadata, &model("nope", "")).failed(code::NOT_FOUND, "nope");
    let index: Index = ask(world, Method::RepositoryIndex, &IndexRequest::default()).read();
    assert_eq!((&*index.models[0].name, &*index.models[0].state), ("m", "READY"));
}

#[test]
fn what_the_model_does_not_take_is_refused_before_anything_is_sent() {
    let chain = chain("limits: { body_bytes_max_by_route: { '/v2/models/{model}/infer': 4096 } }", fast());
    let world = &chain.far;
    let change = |change: fn(&mut InferRequest)| {
        let mut request = good();
        change(&mut request);
        ask(world, Method::ModelInfer, &request)
    };
    let bad = code::INVALID_ARGUMENT;
    change(|all| all.inputs[0].shape = vec![1, 4])
        .failed(bad, "has 12 bytes, FP32 of the shape [1, 4] takes 16");
    change(|all| all.inputs[0].shape = vec![3]).failed(bad, "input `x` has the shape [3]");
    change(|all| all.inputs[0].shape = vec![-1, 3]).failed(bad, "at least 0");
    change(|all| all.inputs[0].datatype = "INT32".to_owned()).failed(bad, "takes FP32");
    change(|all| all.inputs[0].name = "z".to_owned()).failed(bad, "no input \"z\"");
    change(|all| all.raw.truncate(1)).failed(bad, "1 entries for 2 tensors");
    change(|all| all.raw[1] = Bytes::from_static(b"\x09\0\0\0a")).failed(bad, "only 1");
    change(|all| all.outputs[0].name = "w".to_owned()).failed(bad, "no output \"w\"");
    change(|all| all.model_version = "9".to_owned()).failed(code::NOT_FOUND, "no version `9`");
    change(|all| all.model_name = "nope".to_owned()).failed(code::NOT_FOUND, "nope");
    change(|all| all.raw[1] = Bytes::from(vec![0; 5000])).failed(code::RESOURCE_EXHAUSTED, "4096");
    let path = Method::ModelInfer.path();
    call(world, &path, Bytes::new(), &[]).failed(bad, "no message");
    call(world, &path, Bytes::from_static(&[0, 0, 0, 0, 2, 0x2A, 9]), &[]).failed(bad, "cannot be read");
    call(world, &path, Bytes::from_static(&[1, 0, 0, 0, 0]), &[]).failed(code::UNIMPLEMENTED, "compressed");
    let stream = "/inference.GRPCInferenceService/ModelStreamInfer";
    call(world, stream, grpc::frame(&good()), &[]).failed(code::UNIMPLEMENTED, "ModelStreamInfer");
    call(world, &path, grpc::frame(&good()), &[("grpc-timeout", "soon")]).failed(bad, "grpc-timeout");
    assert_eq!(world.reached(), 0);
}

#[test]
fn keys_are_asked_for() {
    let chain = chain("auth: { keys: [ { name: acme, key: key-of-acme } ] }", fast());
    let path = Method::ModelInfer.path();
    let sent = |metadata: &[(&str, &str)]| call(&chain.far, &path, grpc::frame(&good()), metadata);
    sent(&[]).failed(code::UNAUTHENTICATED, "key");
    sent(&[("authorization", "Bearer nobody")]).failed(code::UNAUTHENTICATED, "key");
    let _: InferResponse = sent(&[("authorization", "Bearer key-of-acme")]).read();
    // The other gateway's key is none here, and that is its operator's business, not its client's.
    let ended = call(&chain.near, &path, grpc::frame(&good()), &[("authorization", "Bearer key-of-acme")]);
    assert!(ended.code != code::OK && !ended.text.contains("key-of-near"), "{ended:?}");
    assert_eq!(chain.far.reached(), 1);
}

#[test]
fn a_call_ends_at_its_deadline_and_with_its_client() {
    let chain = chain("", Settings { first_token_ms: 60_000, ..fast() });
    let timed = [("grpc-timeout", "200m")];
    for world in [&chain.far, &chain.near] {
        let ended = call(world, &Method::ModelInfer.path(), grpc::frame(&good()), &timed);
        ended.failed(code::DEADLINE_EXCEEDED, "");
        world.until("nothing is held", || world.permits() == 0);
    }
    // A client that leaves without a word: its connection is dropped with its runtime.
    for world in [&chain.near, &chain.far] {
        let address = world.gateway.grpc_address.expect("it listens");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let request = grpc::frame(&good());
            let path = Method::ModelInfer.path();
            let asked = call_on(address, &path, request, &[]);
            let _ = tokio::time::timeout(Duration::from_millis(300), asked).await;
        });
        drop(runtime);
        world.until("nothing is held", || world.permits() == 0);
    }
    chain.far.until("nothing is held there", || chain.far.permits() == 0);
}

#[test]
fn errors_of_providers_come_back_as_codes() {
    for (status, code) in [(503, code::UNAVAILABLE), (400, code::INVALID_ARGUMENT)] {
        for at in 0..2 {
            let chain = chain("", fast());
            let world = [&chain.far, &chain.near][at];
            let body = json!({"error": "the words of the server"}).to_string();
            let scripted = Scripted { status: Some(status), pieces: Some(vec![body]), ..Scripted::default() };
            chain.far.script(0, [scripted]);
            let ended = ask(world, Method::ModelInfer, &good());
            assert_eq!(ended.code, code, "{ended:?}");
            assert!(status != 400 || ended.text.contains("the words of the server"), "{ended:?}");
        }
    }
}

#[test]
fn what_is_no_call_is_told_so_and_leaves_nothing() {
    let chain = chain("", fast());
    let address = chain.far.gateway.grpc_address.expect("it listens");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let status = runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(address).await.expect("it listens");
        let (mut calls, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.expect("it speaks HTTP/2");
        tokio::spawn(connection);
        let request = Request::get(format!("http://{address}/")).body(Full::new(Bytes::new()));
        calls.send_request(request.expect("a request")).await.expect("a head").status()
    });
    assert_eq!(status, 415);
}
