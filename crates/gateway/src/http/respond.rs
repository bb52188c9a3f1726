//! Responses that the gateway makes itself.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use pointsman_wire::openai::error::ErrorBody;

use crate::exchange::RouterBody;
use crate::telemetry::record::RequestId;

/// The header with the request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-pointsman-request-id");

/// A response with a JSON body.
pub fn json(status: StatusCode, body: Bytes) -> Response<RouterBody> {
    let mut response = Response::new(RouterBody::Full(Some(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An error in the client's dialect; `body` where a provider's own words are passed on.
pub fn error(error: &ErrorBody, body: Option<Bytes>, id: RequestId) -> Response<RouterBody> {
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = json(status, body.unwrap_or_else(|| error.to_json()));
    put_request_id(response.headers_mut(), id);
    response
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
