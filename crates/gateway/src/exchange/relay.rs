//! The body of a response: a fixed one, or the answer of a deployment as it comes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pointsman_routing::Now;
use pointsman_routing::flow::{Action, FlowOutcome, Input};
use pointsman_wire::openai::error::ErrorBody;

use super::shared::Reader;
use super::{Exchange, convert};
use crate::app::Shutdown;
use crate::batches::files::FileBody;
use crate::clock;
use crate::http::kept::Piped;

/// The body of a response.
pub enum RouterBody {
    /// It is all there.
    Full(Option<Bytes>),
    /// It comes from a deployment. The exchange is settled when the body ends or is dropped.
    Relay(Box<Relay>),
    /// It is made for several requests with the same idempotency key.
    Shared(Reader),
    /// It is a file.
    File(Box<FileBody>),
    /// It is kept by a provider, and passed on as it comes.
    Piped(Box<Piped>),
}

impl RouterBody {
    /// Whether the whole answer came and was properly ended; asked once the body is at its end.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Relay(relay) => {
                matches!(relay.exchange.flow.outcome(), Some(FlowOutcome::Completed { .. }))
            }
            Self::Shared(reader) => reader.is_at_end(),
            Self::File(file) => file.left() == 0,
            Self::Piped(piped) => piped.is_at_end(),
        }
    }
}

/// An answer on its way through.
pub struct Relay {
    exchange: Box<Exchange>,
    /// Payload bytes still to come, where the deployment said how many.
    left: Option<u64>,
    ended: bool,
    /// When the client last got a byte, and after how long without one it gets a ping.
    spoke: Now,
    ping_every: Option<Duration>,
    /// What it ends with if it breaks off and cannot say so.
    broken: Option<io::Error>,
}

impl Relay {
    pub(super) fn new(exchange: Box<Exchange>, length: Option<u64>) -> Self {
        let ping_ms = exchange.snapshot.config.stream.ping_ms;
        let streams = exchange.attempt.as_deref().is_some_and(super::attempt::Attempt::is_event_stream);
        let streams = streams && !exchange.arrival.dialect.heartbeat.is_empty();
        let ping_every = (streams && ping_ms > 0).then(|| Duration::from_millis(ping_ms));
        Self { exchange, left: length, ended: false, spoke: clock::now(), ping_every, broken: None }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            let Some(attempt) = &mut self.exchange.attempt else { return Poll::Ready(None) };
            if !attempt.ready.is_empty() {
                let bytes = attempt.ready.remove(0);
                self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                return Poll::Ready(Some(Ok(bytes)));
            }
            if self.ended {
                return Poll::Ready(self.broken.take().map(Err));
            }
            if self.exchange.worker.stage.get() == Shutdown::Now {
                self.cut(None);
                continue;
            }
            let ping_at = self.ping_every.map_or(Now::NEVER, |every| self.spoke + every);
            let polled = attempt.poll(cx);
            if let Some(upload) = &self.exchange.upload {
                upload.tell(&mut self.exchange.flow);
            }
            let input = match polled {
                Poll::Ready(input) => input,
                Poll::Pending if !attempt.ready.is_empty() => {
                    self.spoke = clock::now();
                    self.exchange.flow.on_chunk(self.spoke);
                    continue;
                }
                Poll::Pending if self.exchange.is_recalled() => Input::Recalled,
                Poll::Pending => match self.exchange.poll_timer(cx, ping_at) {
                    Poll::Ready(()) if clock::now() < self.exchange.flow.wake_at() => {
                        self.ping();
                        continue;
                    }
                    Poll::Ready(()) => Input::TimerFired,
                    Poll::Pending => return Poll::Pending,
                },
            };
            let now = clock::now();
            if matches!(input, Input::Failed(_) | Input::TimerFired | Input::Recalled) {
                self.exchange.note_continuable();
            }
            match self.exchange.step(input, now) {
                Action::Forward(choice) => self.exchange.continue_at(&choice, now),
                Action::Wait | Action::Relay => {}
                Action::Finish => {
                    self.exchange.settle(now);
                    self.ended = true;
                }
                Action::Truncate(failure) => self.cut(Some(&failure)),
                Action::Hedge(_)
                | Action::Yield
                | Action::DropHedge
                | Action::Promote
                | Action::RelayHedge
                | Action::Reject(_) => {
                    debug_assert!(false, "a response that has begun is neither hedged nor refused");
                    self.cut(None);
                }
            }
        }
    }

    /// Gives a client that has heard nothing for long a comment, unless it is in the middle of an event.
    fn ping(&mut self) {
        self.spoke = clock::now();
        if let Some(attempt) = self.exchange.attempt.as_mut().filter(|attempt| !attempt.is_inside_event()) {
            attempt.ready.push(Bytes::from_static(self.exchange.arrival.dialect.heartbeat.as_bytes()));
        }
    }

    /// Ends the response early: after what is ready a stream gets an event that says why, and another body is visibly
    /// broken off.
    fn cut(&mut self, failure: Option<&pointsman_routing::Failure>) {
        let exchange = &mut self.exchange;
        let error = failure.map_or_else(ErrorBody::shutting_down, |failure| exchange.error_of(failure));
        let event = convert::error_event(&exchange.arrival, &error);
        exchange.cut_short(failure.is_none());
        self.ended = true;
        let Some(attempt) = &mut exchange.attempt else { return };
        attempt.stop();
        if !attempt.is_event_stream() {
            self.broken = Some(io::Error::new(io::ErrorKind::ConnectionAborted, error.message));
            return;
        }
        if attempt.is_inside_event() {
            attempt.ready.push(Bytes::from_static(b"\n\n"));
        }
        if !attempt.has_told() {
            attempt.ready.push(event);
        }
    }
}

impl Body for RouterBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Relay(relay) => relay.poll_frame(cx).map(|frame| frame.map(|bytes| bytes.map(Frame::data))),
            Self::Shared(reader) => {
                reader.poll_piece(cx).map(|frame| frame.map(|bytes| bytes.map(Frame::data)))
            }
            Self::File(file) => file.poll_piece(cx).map(|frame| frame.map(|bytes| bytes.map(Frame::data))),
            Self::Piped(piped) => piped.poll_piece(cx).map(|frame| frame.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Relay(relay) => {
                relay.ended
                    && relay.broken.is_none()
                    && relay.exchange.attempt.as_ref().is_none_or(|attempt| attempt.ready.is_empty())
            }
            Self::Shared(reader) => reader.is_at_end(),
            Self::File(file) => file.left() == 0,
            Self::Piped(piped) => piped.is_at_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Relay(relay) => relay.left.map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Shared(reader) => reader.left().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::File(file) => SizeHint::with_exact(file.left()),
            Self::Piped(_) => SizeHint::default(),
        }
    }
}
