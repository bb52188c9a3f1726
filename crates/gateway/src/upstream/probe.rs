//! A plain GET to a provider, for health checks and discovery. Never a generation.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use smallvec::smallvec;

use super::connection::Call;
use super::stream::Stream;
use super::target::Endpoint;

/// Bytes of an answer that are looked at.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How the words begin that tell of a host where nobody listens.
pub const NO_CONNECTION: &str = "cannot connect";

/// What a provider answered.
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The beginning of its body.
    pub body: Bytes,
    /// How long it took to connect, TLS included.
    pub connected: Duration,
}

/// Asks for `path` (absolute on the endpoint's host).
///
/// # Errors
/// Says in words what went wrong: no connection, no answer in time, or no HTTP.
pub async fn get(
    endpoint: &Endpoint,
    path: &str,
    auth: Option<&HeaderValue>,
    timeout: Duration,
) -> Result<Answer, String> {
    let asked = tokio::time::timeout(timeout, ask(endpoint, path, auth)).await;
    asked.map_err(|_| format!("no answer within {} ms", timeout.as_millis()))?
}

async fn ask(endpoint: &Endpoint, path: &str, auth: Option<&HeaderValue>) -> Result<Answer, String> {
    let (stream, connected) =
        Stream::connect(endpoint).await.map_err(|error| format!("{NO_CONNECTION}: {error}"))?;
    let mut request = BytesMut::new();
    request.extend_from_slice(
        format!(
            "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\naccept: application/json\r\n",
            endpoint.authority
        )
        .as_bytes(),
    );
    if let Some(auth) = auth {
        endpoint.write_auth(&mut request, auth);
    }
    request.extend_from_slice(b"\r\n");
    let mut call = Call::new(stream, smallvec![request.freeze()]);
    let head = poll_fn(|cx| call.poll_head(cx)).await.map_err(|error| error.to_string())?;
    let mut body = BytesMut::new();
    while body.len() < BODY_BYTES_MAX
        && let Some(data) = poll_fn(|cx| call.poll_data(cx)).await
    {
        body.extend_from_slice(&data.map_err(|error| error.to_string())?);
    }
    body.truncate(BODY_BYTES_MAX);
    Ok(Answer { status: head.status.as_u16(), body: body.freeze(), connected })
}
