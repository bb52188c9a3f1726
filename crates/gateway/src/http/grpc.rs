//! The Open Inference Protocol over gRPC: connections of HTTP/2 on an address of their own, and calls on them.
//!
//! An inference is turned into what it would be over HTTP and goes the same way from there: the same keys, checks, slots,
//! records and limits. Its answer is turned back.

mod call;
mod connection;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use pointsman_wire::dialect::Asked;
use pointsman_wire::kserve::grpc::{self, turn};
use pointsman_wire::kserve::{self, DEF};
use pointsman_wire::openai::error::{ErrorBody, Invalid};
use pointsman_wire::openai::request::{BodyLimits, Operation};

use super::auth::{ClientKey, Recognised};
use super::body::{self, BodyRules};
use super::early::Early;
use super::hints;
use super::kserve::{Wanted, of_inference};
use super::prepare::{Prepared, Refused, find_model};
use super::route::printable;
use super::server::Worker;
use super::service::{self, Validated};
use crate::clock;
use crate::exchange::{Arrival, Passed, RouterBody, Trace};
use crate::http::idempotency;
use crate::snapshot::Snapshot;
use crate::upstream::grpc::json_bytes;

use connection::Told;
pub use connection::listen;

/// Bytes of an answer. It has to be there as a whole before it can be turned.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a question that has no tensors.
const QUESTION_BYTES_MAX: u64 = 64 * 1024;

/// Answers one call.
async fn serve(worker: Rc<Worker>, request: Request<Incoming>, mut early: Early) -> Told {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    if head.method != Method::POST || !kind.starts_with(b"application/grpc") {
        return Told::NoCall;
    }
    let snapshot = worker.app.snapshot.load_full();
    let Some(method) = grpc::Method::of_path(head.uri.path()) else {
        let all = grpc::Method::ALL.map(grpc::Method::name).join(", ");
        let path = printable(head.uri.path());
        let text = format!("there is no method `{path}`; this gateway serves {all} of GRPCInferenceService");
        let error = ErrorBody::router(501, "invalid_request_error", "unknown_url", text);
        return failed(early.refuse(&worker, "route", &error)).await;
    };
    early.operation = call::operation(method);
    let client = match snapshot.keys.authenticate(&head.headers, &head.uri, &Recognised::default()) {
        Ok(client) => client,
        Err(error) => return failed(early.refuse(&worker, "auth", &error)).await,
    };
    early.client = Some(Arc::clone(&client));
    if method == grpc::Method::ModelInfer {
        return infer(worker, snapshot, client, (head, body), early).await;
    }
    let rules = BodyRules { bytes_max: QUESTION_BYTES_MAX, ..service::body_rules(&snapshot, "") };
    let told = match body::read(body, rules).await {
        Ok(body) => call::tell(&worker.app, &snapshot, &client, method, &body),
        Err(error) => Err(error),
    };
    match told {
        Ok(message) => {
            let mut response = early.tell(String::new());
            *response.body_mut() = RouterBody::Full(None);
            Told::Message(std::mem::take(response.headers_mut()), message)
        }
        Err(error) => failed(early.refuse(&worker, "invalid", &error)).await,
    }
}

async fn infer(
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    client: Arc<ClientKey>,
    (head, body): (Parts, Incoming),
    mut early: Early,
) -> Told {
    let lane = hints::lane(&head.headers, &client);
    if let Some(reason) = worker.app.memory.grade().against(lane) {
        return failed(early.shed(&worker, lane, reason)).await;
    }
    let body = match body::read(body, service::body_rules(&snapshot, Operation::Infer.path())).await {
        Ok(body) => body,
        Err(error) => return failed(early.refuse(&worker, "invalid", &error)).await,
    };
    let began = clock::now();
    let key = match idempotency::key(&worker.app, &head.headers) {
        Ok(key) => key,
        Err(error) => return failed(early.refuse(&worker, "idempotency", &error)).await,
    };
    let read = prepare(&snapshot, &client, &head.headers, &body, early.arrived);
    drop(body);
    let (prepared, read) = match read {
        Ok((read, prepared)) => (Ok(prepared), read),
        Err(refused) => (Err(refused), Read::default()),
    };
    let arrival = Box::new(Arrival {
        id: early.id,
        at: early.arrived,
        at_unix_ms: clock::unix_ms(),
        dialect: &DEF,
        asked: Asked { model: Some(read.model), ..Asked::of(Operation::Infer) },
        client,
        keyed: false,
        mirror_of: None,
        line: None,
        passed: Passed::default(),
        trace: Trace::read(&head.headers, early.id.0),
    });
    drop(head);
    let id = read.id;
    let body = read.body;
    let validated = Validated { snapshot, arrival, prepared, body, upload: None, lane, key, began };
    let response = match validated.admit(&worker, &mut early) {
        Ok(admitted) => admitted.run(&worker, &early).await,
        Err(response) => response,
    };
    if response.status().is_success() { told(response, id).await } else { failed(response).await }
}

/// What of a call is needed when it is checked.
#[derive(Default)]
struct Read {
    /// The request as it would have come over HTTP.
    body: Bytes,
    /// The model with its version.
    model: String,
    /// The client's name for the request.
    id: String,
}

/// Reads an inference request, holds it to the registered model, and gathers its facts.
fn prepare(
    snapshot: &Snapshot,
    client: &ClientKey,
    headers: &HeaderMap,
    body: &Bytes,
    now: pointsman_routing::Now,
) -> Result<(Read, Prepared), Refused> {
    let deadline = deadline(headers, now)?;
    let request = grpc::decode_request(grpc::unframe(body)?)?;
    let model = find_model(snapshot, client, &request.model_name)?;
    let refuse = |invalid: Invalid| Refused { error: invalid.into(), model: Some(Arc::clone(&model.name)) };
    let whole = turn::to_http(&request).map_err(refuse)?;
    let limits = BodyLimits { depth_max: snapshot.config.limits.json_depth_max, ..BodyLimits::default() };
    let inference = kserve::parse(&whole.body, whole.json_bytes, &limits).map_err(refuse)?;
    let version = Some(request.model_version).filter(|version| !version.is_empty());
    let wanted = Wanted { model: request.model_name, version };
    let asked = wanted.clone().asked().model.unwrap_or_default();
    let mut prepared = of_inference(snapshot, client, headers, (wanted, &model, &inference), now)?;
    prepared.facts.deadline = [prepared.facts.deadline, deadline].into_iter().flatten().min();
    drop(inference);
    Ok((Read { body: whole.body, model: asked, id: request.id }, prepared))
}

/// When the client gives the call up.
fn deadline(
    headers: &HeaderMap,
    now: pointsman_routing::Now,
) -> Result<Option<pointsman_routing::Now>, ErrorBody> {
    /// The protocol allows for ten thousand years; nobody waits so long.
    const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(grpc::timeout).ok_or_else(|| {
        ErrorBody::malformed("metadata `grpc-timeout` must be up to eight digits and a unit, such as `500m`")
    })?;
    Ok(Some(now + timeout.min(TIMEOUT_MAX)))
}

/// The answer of a deployment, in gRPC.
async fn told(response: Response<RouterBody>, id: String) -> Told {
    let (mut head, body) = response.into_parts();
    let body = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let text = format!("the answer has more than {ANSWER_BYTES_MAX} bytes; ask for fewer outputs");
            return Told::Failed(head.headers, grpc::code::RESOURCE_EXHAUSTED, text);
        }
        Err(error) => return Told::Failed(head.headers, grpc::code::UNAVAILABLE, error.to_string()),
    };
    let json_bytes = json_bytes(&head.headers);
    head.headers.remove(kserve::HEADER_LENGTH);
    match turn::answer_of_http(json_bytes, &body) {
        Ok(mut answer) => {
            answer.id = if answer.id.is_empty() { id } else { answer.id };
            Told::Message(head.headers, grpc::frame(&answer))
        }
        Err(why) => {
            let text = format!("the provider's answer is none of the Open Inference Protocol: {why}");
            Told::Failed(head.headers, grpc::code::INTERNAL, text)
        }
    }
}

/// An error as it would be told over HTTP, in gRPC.
async fn failed(response: Response<RouterBody>) -> Told {
    let (mut head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let said = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let said = said.as_ref().and_then(|said| said["error"].as_str());
    let text = said.map_or_else(|| head.status.to_string(), str::to_owned);
    // Clients that send again by themselves keep to this one (gRFC A6).
    let after = head.headers.remove(RETRY_AFTER);
    if let Some(seconds) = after.and_then(|after| after.to_str().ok()?.parse::<u64>().ok()) {
        head.headers.insert("grpc-retry-pushback-ms", HeaderValue::from(seconds.saturating_mul(1000)));
    }
    let code = grpc::code_of(head.status.as_u16());
    // What cannot be read of a good answer is told where it is read.
    let code = if head.status == StatusCode::OK { grpc::code::UNKNOWN } else { code };
    Told::Failed(head.headers, code, text)
}
