//! Bodies that come in parts. What fits into the buffer is there as a whole, like any other body; of what is longer the
//! beginning is held and the rest passes by while it is sent.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Body;
use hyper::body::Incoming;
use pointsman_settings::sections::LimitsConfig;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{BodyLimits, Request};
use pointsman_wire::tasks::Task;
use pointsman_wire::tasks::multipart::{PartLimits, Scanner, boundary};

use super::body::{BodyRules, Watch, Whole};
use super::client_io::Answering;
use crate::exchange::Upload;

/// A body, as far as it came.
pub struct Received {
    /// Its bytes; none if they pass by.
    pub body: Bytes,
    /// What was understood of it already.
    pub request: Option<Box<Request>>,
    /// The rest of it.
    pub upload: Option<Upload>,
}

impl From<Bytes> for Received {
    fn from(body: Bytes) -> Self {
        Self { body, request: None, upload: None }
    }
}

/// The content type that a request names.
pub fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default()
}

/// What bodies in parts are held to.
pub fn part_limits(limits: &LimitsConfig, bytes_max: u64) -> PartLimits {
    let body = BodyLimits { depth_max: limits.json_depth_max, ..BodyLimits::default() };
    PartLimits { file_bytes_max: bytes_max, body, ..PartLimits::default() }
}

/// Reads a body in parts, until it is at its end or the buffer is full.
pub async fn receive(
    task: Task,
    headers: &HeaderMap,
    mut body: Incoming,
    rules: BodyRules,
    limits: &LimitsConfig,
    answering: &Answering,
) -> Result<Received, ErrorBody> {
    let boundary = boundary(content_type(headers))?;
    let length = body.size_hint().exact();
    if body.size_hint().lower() > rules.bytes_max {
        return Err(ErrorBody::too_big(rules.bytes_max));
    }
    let mut scanner = Scanner::new(task, &boundary, part_limits(limits, rules.bytes_max));
    let mut watch = Watch::new(rules);
    let mut kept = Whole::default();
    let held_max = limits.multipart_buffer_bytes;
    while kept.len() as u64 <= held_max || body.is_end_stream() {
        let received = kept.len() as u64;
        let Some(frame) = poll_fn(|cx| watch.poll(cx, received, Pin::new(&mut body))).await? else {
            let request = Box::new(scanner.finish()?.into_request(task, &boundary, Some(received)));
            return Ok(Received { body: kept.freeze(), request: Some(request), upload: None });
        };
        let Ok(data) = frame.into_data() else { continue };
        if received + data.len() as u64 > rules.bytes_max {
            return Err(ErrorBody::too_big(rules.bytes_max));
        }
        scanner.push(&data)?;
        kept.push(&data);
    }
    let form = scanner.form().clone();
    if form.model.is_none() {
        return Err(late_model(held_max));
    }
    watch.rest();
    let request = Box::new(form.into_request(task, &boundary, length));
    let upload = Upload::new((body, watch, rules), scanner, kept.freeze(), length, answering.clone());
    Ok(Received { body: Bytes::new(), request: Some(request), upload: Some(upload) })
}

/// The model is not named where it would have to be to choose where the rest goes.
fn late_model(held_max: u64) -> ErrorBody {
    let text = format!(
        "the form does not name its `model` within its first {held_max} bytes; send the field `model` before the file, or \
         let the operator raise `limits.multipart_buffer_bytes`"
    );
    ErrorBody::router(413, "invalid_request_error", "model_not_first", text).with_param("model")
}
