//! One connection to an engine, kept from one question to the next.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use pointsman_wire::engine::prometheus::TEXT_BYTES_MAX;
use smallvec::smallvec;

use super::Engine;
use crate::upstream::connection::{self, Call, CallError};
use crate::upstream::stream::Stream;

/// What came of a question.
pub(super) enum Heard {
    /// This.
    Answer(Bytes),
    /// There is nothing at this path: the engine was started without it.
    Absent,
}

/// A connection that is kept.
#[derive(Default)]
pub(super) struct Line {
    kept: Option<Stream>,
}

impl Line {
    /// Asks for `path`. Says in words what went wrong.
    pub(super) async fn get(&mut self, engine: &Engine, path: &str) -> Result<Heard, String> {
        let request = request(engine, path);
        if let Some(kept) = self.kept.take().and_then(still_good) {
            match self.call(kept, request.clone(), path).await {
                // It was closed just then, as happens to connections that are kept.
                Err(Failed::Lost(_)) => {}
                other => return other.map_err(Failed::into_words),
            }
        }
        let (stream, _) = Stream::connect(&engine.endpoint)
            .await
            .map_err(|error| format!("cannot connect to {}: {error}", engine.endpoint.authority))?;
        self.call(stream, request, path).await.map_err(Failed::into_words)
    }

    async fn call(&mut self, stream: Stream, request: Bytes, path: &str) -> Result<Heard, Failed> {
        let mut call = Call::new(stream, smallvec![request]);
        let head = poll_fn(|cx| call.poll_head(cx)).await?;
        let mut body = BytesMut::new();
        while let Some(data) = poll_fn(|cx| call.poll_data(cx)).await {
            let data = data?;
            if body.len() + data.len() > TEXT_BYTES_MAX {
                let most = TEXT_BYTES_MAX >> 20;
                return Err(Failed::Refused(format!("GET {path} gave more than {most} MiB")));
            }
            body.extend_from_slice(&data);
        }
        self.kept = call.into_reusable();
        match head.status.as_u16() {
            200 => Ok(Heard::Answer(body.freeze())),
            404 | 405 | 501 => Ok(Heard::Absent),
            status @ (401 | 403) => Err(Failed::Refused(format!(
                "GET {path} gave {status}; it wants a key, give one in `keys`, or turn this off by `engine: off`"
            ))),
            status => Err(Failed::Refused(format!("GET {path} gave {status}"))),
        }
    }
}

fn still_good(mut stream: Stream) -> Option<Stream> {
    connection::is_idle(&mut stream).then_some(stream)
}

fn request(engine: &Engine, path: &str) -> Bytes {
    let mut request = BytesMut::new();
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {}\r\naccept: */*\r\naccept-encoding: identity\r\n",
        engine.endpoint.authority
    );
    request.extend_from_slice(head.as_bytes());
    request.extend_from_slice(&engine.headers);
    request.extend_from_slice(b"\r\n");
    request.freeze()
}

/// Why there is no answer.
enum Failed {
    /// The connection ended or broke.
    Lost(String),
    /// What came was not wanted.
    Refused(String),
}

impl Failed {
    fn into_words(self) -> String {
        match self {
            Self::Lost(words) | Self::Refused(words) => words,
        }
    }
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Lost(_) => Self::Lost(error.to_string()),
            CallError::Malformed(_) | CallError::Cut(_) => Self::Refused(error.to_string()),
        }
    }
}
