//! One request on one connection: written, then its response read, by whoever polls it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use pointsman_wire::openai::Segments;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::body::Decoder;
use super::head::{self, Head, Malformed};
use super::stream::Stream;

/// What one read can take. Reads go through scratch space of the thread, so this is paid once, not per connection.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Slices handed to one vectored write.
const SLICES_MAX: usize = 16;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice());
}

/// Why a call failed.
#[derive(Debug, Error)]
pub enum CallError {
    /// The connection ended or broke.
    #[error("the connection to the provider was lost: {0}")]
    Lost(#[from] io::Error),
    /// The response is not one.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// What still had to come of the request did not come, or must not be sent.
    #[error("the rest of the request is missing: {0}")]
    Cut(io::Error),
}

/// A request to be written.
#[derive(Default)]
pub struct Message {
    /// What is there of it, its head at least.
    pub parts: Segments,
    /// What still comes.
    pub rest: Option<Rest>,
}

impl From<Segments> for Message {
    fn from(parts: Segments) -> Self {
        Self { parts, rest: None }
    }
}

/// What still comes of a request. It is asked for as the provider takes it.
pub struct Rest {
    /// Its pieces.
    pub pieces: Pin<Box<dyn Body<Data = Bytes, Error = io::Error> + Send>>,
    /// Whether they are framed as chunks, for want of a length.
    pub chunked: bool,
}

impl Rest {
    /// The next pieces as they are written; `None` behind the last.
    fn poll_next(&mut self, cx: &mut Context<'_>, out: &mut Segments) -> Poll<io::Result<bool>> {
        let piece = match ready!(self.pieces.as_mut().poll_frame(cx)) {
            Some(frame) => frame?.into_data().unwrap_or_default(),
            None => {
                out.extend(self.chunked.then(|| Bytes::from_static(b"0\r\n\r\n")));
                return Poll::Ready(Ok(false));
            }
        };
        // An empty chunk would be the last.
        if piece.is_empty() {
            return Poll::Ready(Ok(true));
        }
        if self.chunked {
            out.push(format!("{:x}\r\n", piece.len()).into());
        }
        out.push(piece);
        out.extend(self.chunked.then(|| Bytes::from_static(b"\r\n")));
        Poll::Ready(Ok(true))
    }
}

/// One request on one connection. Dropping it closes the connection, which is how a call is cancelled.
pub struct Call {
    stream: Stream,
    /// What is still to be written.
    out: Segments,
    rest: Option<Rest>,
    written: u64,
    /// Whether all of it left.
    sent: bool,
    /// A head that came in pieces.
    partial: BytesMut,
    /// Payload that came with the head.
    ready: Option<Bytes>,
    decoder: Option<Decoder>,
    keep_alive: bool,
    /// Whether the other tasks that are ready were let go first.
    turned: bool,
}

impl Call {
    /// A call that will write `request` to `stream`.
    pub fn new(stream: Stream, request: impl Into<Message>) -> Self {
        let Message { parts, rest } = request.into();
        Self {
            stream,
            out: parts,
            rest,
            written: 0,
            sent: false,
            partial: BytesMut::new(),
            ready: None,
            decoder: None,
            keep_alive: false,
            turned: false,
        }
    }

    /// Whether any byte of the request has left.
    pub fn has_sent(&self) -> bool {
        self.written > 0
    }

    /// Writes the request and reads the head of the response.
    ///
    /// The first poll only gives way: what else is ready is read and decided first, and then all is written in one go.
    /// A write wakes its reader, and one reader that is kept awake by a row of writes costs less than one that is woken
    /// for each; under load that is a fifth of the time a request takes.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, CallError>> {
        if !std::mem::replace(&mut self.turned, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let wrote = match self.poll_write(cx) {
            Poll::Ready(Err(cut @ CallError::Cut(_))) => return Poll::Ready(Err(cut)),
            wrote @ (Poll::Ready(Ok(()) | Err(CallError::Lost(_) | CallError::Malformed(_)))
            | Poll::Pending) => wrote,
        };
        // A provider may answer before it has read everything, so a write that waits or fails does not keep the answer
        // from being read.
        match self.poll_read_head(cx) {
            Poll::Ready(Ok(head)) => {
                self.keep_alive = head.keep_alive && self.sent;
                Poll::Ready(Ok(head))
            }
            Poll::Ready(Err(CallError::Lost(read))) => match wrote {
                Poll::Ready(Err(write)) => Poll::Ready(Err(write)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Err(read.into())),
            },
            other @ (Poll::Ready(Err(CallError::Malformed(_) | CallError::Cut(_))) | Poll::Pending) => other,
        }
    }

    /// Reads the next piece of the body's payload; `None` at its end. What is left of the request is written on.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CallError>>> {
        if let Poll::Ready(Err(_)) = self.poll_write(cx) {
            // Whoever answers without the whole request may close its side of it; the answer counts all the same.
            self.out.clear();
            self.rest = None;
            self.sent = true;
            self.keep_alive = false;
        }
        if let Some(ready) = self.ready.take() {
            return Poll::Ready(Some(Ok(ready)));
        }
        let Self { stream, decoder: Some(decoder), keep_alive, .. } = self else { return Poll::Ready(None) };
        loop {
            if decoder.is_done() {
                return Poll::Ready(None);
            }
            let payload = ready!(SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
                let read = buffer.filled();
                if read.is_empty() {
                    if decoder.ends_with_connection() {
                        return Poll::Ready(Ok(None));
                    }
                    return Poll::Ready(Err(CallError::Lost(io::ErrorKind::UnexpectedEof.into())));
                }
                let (payload, used) = decoder.decode(read)?;
                // Bytes that belong to no body were not asked for: the connection cannot be trusted again.
                *keep_alive &= used == read.len();
                Poll::Ready(Ok(Some(payload)))
            }))?;
            match payload {
                None => return Poll::Ready(None),
                Some(payload) if payload.is_empty() => {}
                Some(payload) => return Poll::Ready(Some(Ok(payload))),
            }
        }
    }

    /// Whether the whole response has been read and handed out.
    pub fn is_done(&self) -> bool {
        self.ready.is_none() && self.decoder.as_ref().is_some_and(Decoder::is_done)
    }

    /// The connection, if the response was read to its end and the provider keeps it open.
    pub fn into_reusable(self) -> Option<Stream> {
        (self.is_done() && self.keep_alive).then_some(self.stream)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        if self.sent {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.poll_write_out(cx))?;
            let Some(rest) = &mut self.rest else { break };
            match rest.poll_next(cx, &mut self.out) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => self.rest = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(CallError::Cut(error))),
                Poll::Pending => {
                    // What was written meanwhile must not lie about.
                    ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
                    return Poll::Pending;
                }
            }
        }
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.sent = true;
        Poll::Ready(Ok(()))
    }

    /// Writes what is there.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let stream = Pin::new(&mut self.stream);
            let mut wrote = if let [only] = self.out.as_slice() {
                ready!(stream.poll_write(cx, only))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = self.out.len().min(SLICES_MAX);
                for (slice, part) in slices.iter_mut().zip(&self.out) {
                    *slice = IoSlice::new(part);
                }
                ready!(stream.poll_write_vectored(cx, &slices[..count]))?
            };
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += wrote as u64;
            let whole = self.out.iter().take_while(|part| {
                let all = part.len() <= wrote;
                wrote -= if all { part.len() } else { 0 };
                all
            });
            let whole = whole.count();
            self.out.drain(..whole);
            if let Some(first) = self.out.first_mut() {
                first.advance(wrote);
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, CallError>> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut buffer = ReadBuf::new(scratch);
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
                let read = buffer.filled();
                if read.is_empty() {
                    return Poll::Ready(Err(CallError::Lost(io::ErrorKind::UnexpectedEof.into())));
                }
                // The head nearly always comes whole, and is then parsed where it lies.
                let whole = self.partial.is_empty();
                if !whole {
                    self.partial.extend_from_slice(read);
                }
                let bytes: &[u8] = if whole { read } else { &self.partial };
                let Some((head, length)) = head::parse(bytes)? else {
                    if whole {
                        self.partial.extend_from_slice(read);
                    }
                    continue;
                };
                let mut decoder = Decoder::new(head.framing);
                let (payload, used) = decoder.decode(&bytes[length..])?;
                let surplus = used < bytes.len() - length;
                self.ready = (!payload.is_empty()).then_some(payload);
                self.decoder = Some(decoder);
                self.partial = BytesMut::new();
                return Poll::Ready(Ok(Head { keep_alive: head.keep_alive && !surplus, ..head }));
            }
        })
    }
}

/// Whether an idle connection is still good: nothing may have come, not even its end.
pub fn is_idle(stream: &mut Stream) -> bool {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut byte = [0; 1];
    let mut buffer = ReadBuf::new(&mut byte);
    Pin::new(stream).poll_read(&mut cx, &mut buffer).is_pending()
}
