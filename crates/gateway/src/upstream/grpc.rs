//! Providers that speak the Open Inference Protocol over gRPC, as connections of HTTP/1.1.
//!
//! Everything above speaks one protocol to providers. What stands between is a task at the other end of a pipe: it reads
//! requests as they would go to a provider over HTTP, asks in gRPC over HTTP/2, and answers as that provider would have.
//! The connection has one request at a time, so that it is pooled, timed and cancelled like every other: whoever drops the
//! pipe ends the task, and with it the call and the connection behind it; and if that connection ends, so does the pipe.

use std::convert::Infallible;
use std::io;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode, request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pointsman_wire::kserve::grpc::{self, FRAME_BYTES, turn};
use pointsman_wire::kserve::{HEADER_LENGTH, answer};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

/// Bytes that wait in the pipe, each way.
const PIPE_BYTES: usize = 256 * 1024;
/// Bytes that a provider may send before they are read.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes of an answer. It has to be there as a whole before it can be turned.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of the header lines of an answer.
const HEADERS_BYTES_MAX: u32 = 64 * 1024;

/// Headers that belong to the form over HTTP; the others are passed on as metadata.
const DROPPED: [&str; 8] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    HEADER_LENGTH,
    "user-agent",
];

/// Turns a connection to a provider, which is at `authority`, into one that speaks HTTP/1.1.
pub(super) async fn pipe<S>(stream: S, authority: &str) -> io::Result<DuplexStream>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (calls, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let authority = authority.to_owned();
    tokio::spawn(async move {
        let service = service_fn(|request| {
            let (calls, authority) = (calls.clone(), authority.clone());
            async move { Ok::<_, Infallible>(answer(calls, &authority, request).await) }
        });
        let served = http1::Builder::new().serve_connection(TokioIo::new(far), service);
        tokio::select! {
            ended = connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a provider's connection over gRPC ended");
                }
            }
            // It ends when the pipe does.
            _ = served => {}
        }
    });
    Ok(near)
}

/// An answer that is an error of this protocol.
fn refuse(status: u16, why: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer::error(why).into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

async fn answer(
    calls: SendRequest<Full<Bytes>>,
    authority: &str,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let answered = if head.method == Method::GET {
        // Whatever is asked for, it is asked whether the server is there.
        ready(calls, authority, &head).await
    } else {
        match body.collect().await {
            Ok(body) => infer(calls, authority, &head, body.to_bytes()).await,
            Err(error) => Err((400, format!("the request cannot be read: {error}"))),
        }
    };
    answered.unwrap_or_else(|(status, why)| refuse(status, &why))
}

/// An error as a status and words.
type Failed = (u16, String);

async fn ready(
    calls: SendRequest<Full<Bytes>>,
    authority: &str,
    head: &request::Parts,
) -> Result<Response<Full<Bytes>>, Failed> {
    let asked = call(authority, grpc::Method::ServerReady, head, Bytes::from_static(&[0; FRAME_BYTES]))?;
    let flag: grpc::Flag =
        grpc::decode(send(calls, asked).await?).map_err(|invalid| (502, invalid.message))?;
    if flag.is {
        return Ok(Response::new(Full::new(answer::ready().into())));
    }
    Err((503, "the server is not ready".to_owned()))
}

async fn infer(
    calls: SendRequest<Full<Bytes>>,
    authority: &str,
    head: &request::Parts,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Failed> {
    let (model, version) = named(head.uri.path()).ok_or((404, "there is nothing here".to_owned()))?;
    let (mut request, wants) = turn::of_http(json_bytes(&head.headers), &body)
        .map_err(|why| (400, format!("the request cannot be said in gRPC: {why}")))?;
    drop(body);
    (request.model_name, request.model_version) = (model, version.unwrap_or_default());
    let message = grpc::frame(&request);
    drop(request);
    let answered = send(calls, call(authority, grpc::Method::ModelInfer, head, message)?).await?;
    let turned = grpc::decode_response(answered).map_err(|invalid| invalid.message);
    let whole = turned
        .and_then(|response| turn::answer_to_http(&response, &wants))
        .map_err(|why| (502, format!("the answer cannot be read: {why}")))?;
    let kind = if whole.json_bytes.is_some() { "application/octet-stream" } else { "application/json" };
    let mut response = Response::new(Full::new(whole.body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(bytes) = whole.json_bytes {
        response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(bytes));
    }
    Ok(response)
}

/// The model and version in the path of an inference.
fn named(path: &str) -> Option<(String, Option<String>)> {
    let decoded =
        |part: &str| Some(percent_encoding::percent_decode_str(part).decode_utf8().ok()?.into_owned());
    let (_, rest) = path.split_once("/v2/models/")?;
    match rest.split('/').collect::<Vec<_>>().as_slice() {
        [model, "infer"] => Some((decoded(model)?, None)),
        [model, "versions", version, "infer"] => Some((decoded(model)?, Some(decoded(version)?))),
        _ => None,
    }
}

/// Where the JSON of a body ends.
pub(crate) fn json_bytes(headers: &HeaderMap) -> Option<u64> {
    headers.get(HEADER_LENGTH)?.to_str().ok()?.parse().ok()
}

fn call(
    authority: &str,
    method: grpc::Method,
    head: &request::Parts,
    message: Bytes,
) -> Result<Request<Full<Bytes>>, Failed> {
    let uri = format!("http://{authority}{}", method.path());
    let mut request = Request::post(uri)
        .body(Full::new(message))
        .map_err(|error| (502, format!("the provider cannot be asked: {error}")))?;
    let headers = request.headers_mut();
    for (name, value) in &head.headers {
        if !DROPPED.contains(&name.as_str()) {
            headers.append(name, value.clone());
        }
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(HeaderName::from_static("grpc-accept-encoding"), HeaderValue::from_static("identity"));
    if let Some(agent) = head.headers.get(http::header::USER_AGENT) {
        headers.insert(http::header::USER_AGENT, agent.clone());
    }
    Ok(request)
}

/// Asks, and gives the message of the answer.
async fn send(mut calls: SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Bytes, Failed> {
    let lost = |error: hyper::Error| (502, format!("the provider's connection was lost: {error}"));
    calls.ready().await.map_err(lost)?;
    let (head, mut body) = calls.send_request(request).await.map_err(lost)?.into_parts();
    if head.headers.contains_key("grpc-status") {
        ended(&head.headers)?;
    }
    if head.status != StatusCode::OK {
        return Err((
            head.status.as_u16(),
            format!("the provider answered with {}, not in gRPC", head.status),
        ));
    }
    let (mut message, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(lost)?.into_data() {
            Ok(data) if message.len() + data.len() > ANSWER_BYTES_MAX => {
                return Err((502, format!("its answer is longer than {ANSWER_BYTES_MAX} bytes")));
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    ended(&trailers)?;
    grpc::unframe(&message.freeze()).map_err(|invalid| (502, invalid.message))
}

/// Whether a call ended well.
fn ended(headers: &HeaderMap) -> Result<(), Failed> {
    let code = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse::<u8>().ok());
    let Some(code) = code else { return Err((502, "the call ended without a status".to_owned())) };
    if code == grpc::code::OK {
        return Ok(());
    }
    let message = headers.get("grpc-message").map_or(&b""[..], |value| value.as_bytes());
    let message = percent_encoding::percent_decode(message).decode_utf8_lossy();
    let message =
        if message.is_empty() { format!("the call ended with code {code}") } else { message.into_owned() };
    Err((grpc::status_of(code), message))
}
