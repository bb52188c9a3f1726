//! Responses that the gateway makes itself.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use pointsman_wire::dialect::ClientDef;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::rerank;

use crate::exchange::RouterBody;
use crate::telemetry::record::RequestId;

/// The header with the request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-pointsman-request-id");

/// The header with the deployment that answered, or `router`.
pub const SERVED_BY: HeaderName = HeaderName::from_static("x-pointsman-served-by");
/// The header with the decision in short.
pub const DECISION: HeaderName = HeaderName::from_static("x-pointsman-decision");
/// The header with the number of attempts.
pub const ATTEMPTS: HeaderName = HeaderName::from_static("x-pointsman-attempts");
/// The header with the router's own time.
pub const OVERHEAD: HeaderName = HeaderName::from_static("x-pointsman-overhead-us");

/// A response with a JSON body.
pub fn json(status: StatusCode, body: Bytes) -> Response<RouterBody> {
    let mut response = Response::new(RouterBody::Full(Some(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error in the client's dialect; `body` where a provider's own words are passed on.
pub fn error(
    dialect: &ClientDef,
    error: &ErrorBody,
    body: Option<Bytes>,
    id: RequestId,
) -> Response<RouterBody> {
    let status = StatusCode::from_u16((dialect.error_status)(error)).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response =
        json(status, body.unwrap_or_else(|| dialect.dialect.error(error, &id.to_string()).into()));
    put_request_id(response.headers_mut(), id);
    response
}

/// The body of an error in the form of a rerank, if `call` is one.
pub fn error_of_rerank(call: &str, error: &ErrorBody, id: RequestId) -> Option<Bytes> {
    let form = rerank::Form::of_name(call)?;
    Some(rerank::error(form, error, &id.to_string()).into())
}

/// Puts the headers of an answer that the router gave without asking a deployment; `why` is its decision in a word or
/// two.
pub fn put_own_headers(headers: &mut HeaderMap, id: RequestId, why: &str, overhead: Duration) {
    put_request_id(headers, id);
    headers.insert(SERVED_BY, HeaderValue::from_static("router"));
    headers.insert(DECISION, text_value(why));
    headers.insert(ATTEMPTS, HeaderValue::from_static("0"));
    headers.insert(OVERHEAD, HeaderValue::from(overhead.as_micros() as u64));
}

/// A text that may hold anything as a header's value: what cannot stand there becomes `?`.
pub fn text_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| {
        let plain =
            text.bytes().map(|byte| if byte.is_ascii_graphic() || byte == b' ' { byte } else { b'?' });
        HeaderValue::from_maybe_shared(plain.collect::<Bytes>())
            .expect("invariant: only graphic ASCII and spaces")
    })
}

/// Puts the request's id into a response's headers.
pub fn put_request_id(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(&id.to_hex())) {
        headers.insert(REQUEST_ID, value);
    }
}
