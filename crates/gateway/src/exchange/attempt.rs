//! One forward of a request to a deployment: connect, send, read, and say what happened in the flow's words.

mod begin;
mod reading;
mod tokened;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Input, Usage};
use pointsman_routing::said::Said;
use pointsman_routing::{Failure, FailureClass};
use pointsman_wire::chat::{Findings, Losses};
use pointsman_wire::openai::continuation::Transcript;
use pointsman_wire::openai::error::{ErrorBody, FaultKind, classify};
use pointsman_wire::openai::request::Operation;
use pointsman_wire::openai::sse::{Out, StreamObserver};
use pointsman_wire::tasks::tail::{Kind, Tail};
use smallvec::SmallVec;
use tokio::time::{Sleep, sleep};

use crate::clock;
use crate::http::server::Worker;
use crate::snapshot::Target;
use crate::structured::Watch;
use crate::upstream::connection::{Call, CallError, Message};
use crate::upstream::head::Head;
use crate::upstream::stream::{Connecting, Stream};

use super::continuation::Keeping;
use super::convert::{Reading, Unread};
use super::issue::Issues;
use super::tensors::Counted;
use super::words::{ProviderError, failure, refused};
use tokened::Tokened;

/// Bytes of a stream that are held back while its first content is awaited; more counts as content.
const HELD_BYTES_MAX: usize = 256 * 1024;
/// Bytes, and pieces, that are read ahead of a client while its answer is relayed.
const READY_BYTES_MAX: usize = 64 * 1024;
const READY_PIECES_MAX: usize = 16;
/// Time for the words of an error whose head is there.
const ERROR_BODY_MAX: Duration = Duration::from_secs(1);
/// Bytes of an unstreamed answer that are kept to read its usage from.
const USAGE_BYTES_MAX: usize = 1024 * 1024;

/// One forward of a request to a deployment.
pub(super) struct Attempt {
    /// Where it went; `None` if there was no such place any more.
    pub target: Option<Arc<Target>>,
    worker: Option<Rc<Worker>>,
    state: State,
    /// The request, where it carries a token that may be refused before its time; until an answer is there.
    tokened: Option<Box<Tokened>>,
    operation: Operation,
    /// Whether the client asked for a stream, and to see its usage.
    wants: Wants,
    /// What the answer is to be observed with beyond what it is relayed for.
    keeping: Keeping,
    /// The head of the answer.
    pub head: Option<Head>,
    /// Pieces of the answer that the client may have.
    pub ready: Out,
    observer: Option<Box<StreamObserver>>,
    /// The end of an answer to a task, which is relayed as bytes.
    tail: Option<Tail>,
    /// Checks a stream that is relayed by its bytes alone.
    watch: Option<Box<Watch>>,
    /// What is worth telling of an unstreamed answer that is relayed by its bytes alone.
    findings: Findings,
    /// An unstreamed answer, kept for its usage.
    kept: SmallVec<[Bytes; 1]>,
    kept_bytes: usize,
    held_bytes: usize,
    /// The tensors that are asked with, and those of the answer.
    pub tensors: Option<Box<Counted>>,
    content: bool,
    tokens_out_seen: u64,
    /// What the prompt was thought to have, for an answer that does not say.
    tokens_in_estimate: u64,
    usage: Option<Usage>,
    error: Option<Box<ProviderError>>,
    /// The failure that the provider told of within the stream, after content; the client has read it there.
    told: Option<Failure>,
    /// How the provider broke its protocol, in words.
    detail: Option<String>,
    /// Reads the answer, where it is not relayed by its bytes alone.
    reading: Option<Box<Reading>>,
    /// What the provider said of itself, until it is told.
    said: Option<Said>,
    /// Looks for what the answer gives out that only its account can go on with.
    issues: Option<Box<Issues>>,
    /// What could not be carried over into the provider's dialect.
    losses: Losses,
    /// Why the request was not sent: it could not be written in the provider's dialect.
    refusal: Option<Box<ErrorBody>>,
}

#[derive(Debug, Clone, Copy)]
struct Wants {
    stream: bool,
    usage: bool,
    injected: bool,
}

enum State {
    Connecting(Connecting, Box<Message>),
    /// The connection came from the pool; nobody was told yet.
    Connected(Box<Call>),
    AwaitingHead(Box<Call>),
    Refused(Box<Call>, BytesMut, Pin<Box<Sleep>>),
    Body(Box<Call>),
    Failed(Failure),
    /// The whole answer is there, and its end has not been told yet.
    Ended(Usage),
    Over,
}

impl Attempt {
    /// The next thing that the flow has to know. Data that is no news is put into `ready`; while a client is relayed
    /// to, no more is read than it may have at once, and the next poll is due when that is handed out.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        loop {
            match &mut self.state {
                State::Connecting(connecting, _) => {
                    let connected = ready!(connecting.as_mut().poll(cx));
                    if let Some(input) = self.on_connected(connected) {
                        return Poll::Ready(input);
                    }
                }
                State::Connected(_) => {
                    if let State::Connected(call) = std::mem::replace(&mut self.state, State::Over) {
                        self.state = State::AwaitingHead(call);
                    }
                    return Poll::Ready(Input::Connected);
                }
                State::AwaitingHead(call) => {
                    let head = ready!(call.poll_head(cx));
                    if let Some(input) = self.on_head(head) {
                        return Poll::Ready(input);
                    }
                }
                State::Refused(call, body, patience) => {
                    let data = match call.poll_data(cx) {
                        Poll::Ready(data) => data,
                        Poll::Pending => {
                            ready!(patience.as_mut().poll(cx));
                            None
                        }
                    };
                    let cap = self.worker.as_ref().map_or(0, |worker| worker.error_body_bytes_max());
                    if let Some(Ok(data)) = data {
                        let room = cap.saturating_sub(body.len());
                        body.extend_from_slice(&data[..data.len().min(room)]);
                        if body.len() < cap {
                            continue;
                        }
                    }
                    if let Some(input) = self.on_refused() {
                        return Poll::Ready(input);
                    }
                }
                State::Body(_) if self.content && is_enough(&self.ready) => return Poll::Pending,
                State::Body(call) => {
                    let data = ready!(call.poll_data(cx));
                    if let Some(input) = self.on_data(data) {
                        return Poll::Ready(input);
                    }
                }
                State::Failed(failure) => {
                    let failure = failure.clone();
                    self.state = State::Over;
                    return Poll::Ready(Input::Failed(failure));
                }
                State::Ended(usage) => {
                    let usage = *usage;
                    self.state = State::Over;
                    return Poll::Ready(Input::Done(usage));
                }
                State::Over => return Poll::Pending,
            }
        }
    }

    /// What the provider said about a failure, once.
    pub(super) fn take_error(&mut self) -> Option<Box<ProviderError>> {
        self.error.take()
    }

    /// Gives the connection up; nothing more will be read. What is ready may still be handed out.
    pub(super) fn stop(&mut self) {
        self.state = State::Over;
    }

    /// Whether what the client was given ends inside an event.
    pub(super) fn is_inside_event(&self) -> bool {
        self.observer.as_ref().is_some_and(|observer| observer.is_inside_event())
            || self.reading.as_ref().is_some_and(|reading| reading.is_inside_event())
            || self.tail.as_ref().is_some_and(Tail::is_inside_event)
    }

    /// Whether the client was told of a failure by the provider itself.
    pub(super) fn has_told(&self) -> bool {
        self.told.is_some()
    }

    /// What came so far, if the rest of it can be asked for elsewhere.
    pub(super) fn transcript(&self) -> Option<&Transcript> {
        self.observer.as_ref()?.transcript()
    }

    /// How the provider broke its protocol, in words.
    pub(super) fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Whether the answer is an event stream.
    pub(super) fn is_event_stream(&self) -> bool {
        self.observer.is_some()
            || self.reading.as_ref().is_some_and(|reading| reading.is_stream())
            || self.tail.as_ref().is_some_and(Tail::streams)
    }

    /// Whether all of the answer has been read; what is left lies in `ready`.
    pub(super) fn is_complete(&self) -> bool {
        matches!(&self.state, State::Body(call) if call.is_done()) || matches!(self.state, State::Ended(_))
    }

    fn on_connected(&mut self, connected: io::Result<(Stream, Duration)>) -> Option<Input> {
        let parts = match std::mem::replace(&mut self.state, State::Over) {
            State::Connecting(_, parts) => *parts,
            State::Connected(_)
            | State::AwaitingHead(_)
            | State::Refused(..)
            | State::Body(_)
            | State::Failed(_)
            | State::Ended(_)
            | State::Over => Message::default(),
        };
        let connected = connected.and_then(|(stream, took)| {
            let parts =
                self.parts_for(parts).ok_or_else(|| io::Error::other("the access token has ended"))?;
            Ok((stream, took, parts))
        });
        match connected {
            Ok((stream, took, parts)) => {
                self.state = State::AwaitingHead(Box::new(Call::new(stream, parts)));
                if let (Some(worker), Some(target)) = (&self.worker, &self.target) {
                    worker.app.live.note_connect_time(target.id, took);
                }
                (!self.is_renewed()).then_some(Input::Connected)
            }
            Err(error) => {
                tracing::debug!(deployment = self.name(), %error, "cannot connect");
                self.detail = Some(error.to_string());
                Some(Input::Failed(failure(tokened::class_of(&error), Processed::No)))
            }
        }
    }

    fn on_head(&mut self, head: Result<Head, CallError>) -> Option<Input> {
        let State::AwaitingHead(call) = std::mem::replace(&mut self.state, State::Over) else { return None };
        let head = match head {
            Ok(head) => head,
            Err(error) => return Some(Input::Failed(self.lost(&error, call.has_sent()))),
        };
        self.said = super::said::of_head(&head.headers);
        let good = head.status.is_success();
        let kind = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
        let readable = !head.headers.contains_key(CONTENT_ENCODING);
        if let Some(reading) = self.reading.as_mut().filter(|_| good) {
            if !readable && reading.is_first_read() {
                let detail = "its answer is compressed, though it was asked not to".to_owned();
                return Some(Input::Failed(self.broke_protocol(detail)));
            }
            if self.wants.stream && readable && kind.starts_with(reading.stream_type().as_bytes()) {
                reading.begin_stream();
            }
        } else if let Operation::Task(_) = self.operation {
            self.tail = Some(Tail::new(if readable { Kind::of(kind) } else { Kind::Other }));
        } else if good && readable && self.wants.stream && kind.starts_with(b"text/event-stream") {
            let hide_usage = self.wants.injected && !self.wants.usage;
            let mut observer = Box::new(StreamObserver::new(self.operation, hide_usage));
            match std::mem::replace(&mut self.keeping, Keeping::Nothing) {
                Keeping::Nothing => {}
                Keeping::FromNow => observer.keep_transcript(),
                Keeping::From(transcript) => {
                    *observer = StreamObserver::continuing(self.operation, hide_usage, *transcript);
                }
            }
            self.observer = Some(observer);
            self.issues.iter_mut().for_each(|issues| issues.of_stream());
        } else if good && matches!(self.keeping, Keeping::From(_)) {
            let detail = "it was asked for the rest of a stream and answered with something else";
            return Some(Input::Failed(self.broke_protocol(detail.to_owned())));
        }
        self.head = Some(head);
        if good {
            self.tokened = None;
            self.retitle();
            self.state = State::Body(call);
            return Some(Input::Headers);
        }
        self.state = State::Refused(call, BytesMut::new(), Box::pin(sleep(ERROR_BODY_MAX)));
        None
    }

    /// `None` where the request is on its way again, with another token.
    fn on_refused(&mut self) -> Option<Input> {
        let broke = || Some(Input::Failed(failure(FailureClass::Protocol, Processed::Maybe)));
        let State::Refused(call, body, _) = std::mem::replace(&mut self.state, State::Over) else {
            return broke();
        };
        let status = self.head.as_ref().map_or(0, |head| head.status.as_u16());
        let call = self.renew(status, call)?;
        let Some(head) = &self.head else { return broke() };
        let header = |name: &'static str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let mut fault = match &self.target {
            Some(target) => target.endpoint.vendor.dialect.dialect.fault(status, &header, &body),
            None => classify(status, header("retry-after"), &body),
        };
        // An HTTP date has to be held against the clock, which the classification does not read. Some say it in the body.
        fault.retry_after_ms = super::said::retry_after_ms(&head.headers).or(fault.retry_after_ms);
        let failure = refused(status, &fault);
        if fault.kind == FaultKind::Protocol {
            let redirect = if head.status.is_redirection() { ", and redirects are not followed" } else { "" };
            self.detail = Some(format!("its status is {status}{redirect}"));
        } else {
            let dialect = self.target.as_ref().map_or("openai", |target| target.endpoint.vendor.dialect.name);
            self.error = Some(Box::new(ProviderError { body: body.freeze(), fault, dialect }));
        }
        self.keep(call);
        Some(Input::Failed(failure))
    }

    fn on_data(&mut self, data: Option<Result<Bytes, CallError>>) -> Option<Input> {
        match data {
            Some(Ok(data)) => self.on_bytes(data),
            Some(Err(error)) => {
                self.state = State::Over;
                Some(Input::Failed(self.lost(&error, true)))
            }
            None => Some(self.on_end()),
        }
    }

    fn on_end(&mut self) -> Input {
        let State::Body(call) = std::mem::replace(&mut self.state, State::Over) else {
            return Input::Failed(failure(FailureClass::Protocol, Processed::Maybe));
        };
        // An answer that ends before it says so broke off, however the body ended: nothing is made up for its client.
        let mut is_cut = false;
        if self.reading.is_some() {
            match self.end_reading() {
                Ok(cut) => is_cut = cut,
                Err(Unread::Broken(detail)) => return Input::Failed(self.broke_protocol(detail)),
                Err(Unread::Failed(error)) => return self.on_stream_error(&error),
            }
        } else if let Some(mut observer) = self.observer.take() {
            let end = observer.finish(&mut self.ready);
            // Some providers leave `[DONE]` out.
            is_cut = !(end.proper || (end.finished && self.content));
            self.observer = Some(observer);
        } else {
            self.usage = self.usage.take().or_else(|| self.usage_of_kept());
        }
        self.keep(call);
        if let Some(issues) = self.issues.take() {
            issues.finish();
        }
        if let Some(failure) = &self.told {
            return Input::Failed(failure.clone());
        }
        if is_cut {
            return Input::Failed(self.broke_protocol("the stream ended before its last event".to_owned()));
        }
        if self.reading.as_mut().is_some_and(|reading| reading.noting().is_misfit()) {
            self.ready.clear();
            return Input::Misfit(self.usage_so_far());
        }
        let usage = self.usage_so_far();
        if self.content {
            return Input::Done(usage);
        }
        // An answer without content is an answer all the same: its head has to be released before its end is told.
        self.content = true;
        self.state = State::Ended(usage);
        Input::FirstContent
    }

    fn keep(&self, call: Box<Call>) {
        if let (Some(worker), Some(target), Some(stream)) = (&self.worker, &self.target, call.into_reusable())
        {
            worker.pool.put(&target.endpoint, stream, clock::now());
        }
    }

    #[cold]
    fn broke_protocol(&mut self, detail: String) -> Failure {
        self.detail = Some(detail);
        failure(FailureClass::Protocol, Processed::Maybe)
    }

    #[cold]
    fn lost(&mut self, error: &CallError, sent: bool) -> Failure {
        tracing::debug!(deployment = self.name(), %error, sent, "the attempt failed");
        let processed = if sent { Processed::Maybe } else { Processed::No };
        match error {
            CallError::Lost(_) if !sent => failure(FailureClass::Connect, processed),
            CallError::Lost(_) => failure(FailureClass::Transient, processed),
            // It is the client's body that is at fault, and nothing is learnt of the deployment.
            CallError::Cut(_) => failure(FailureClass::Client, Processed::Maybe),
            CallError::Malformed(malformed) => {
                self.detail = Some(malformed.to_string());
                failure(FailureClass::Protocol, processed)
            }
        }
    }

    fn name(&self) -> &str {
        self.target.as_ref().map_or("", |target| &target.name)
    }
}

/// Whether a client has enough to go on with.
fn is_enough(ready: &[Bytes]) -> bool {
    ready.len() >= READY_PIECES_MAX || ready.iter().map(Bytes::len).sum::<usize>() >= READY_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;

    use pointsman_wire::openai::Segments;

    use super::*;

    /// Bytes that lie ready in the socket before the first read; more than may be taken at once.
    const WAITING_BYTES: usize = 160 * 1024;

    #[tokio::test]
    async fn b7_no_more_is_read_than_a_client_may_have_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1024 * 1024).expect("a buffer can be set");
        let address = listener.local_addr().expect("it is bound");
        let tcp = socket.connect(address).await.expect("it listens");
        let upstream = std::thread::spawn(move || {
            let (mut upstream, _) = listener.accept().expect("it connects");
            upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n").expect("written");
            upstream.write_all(&vec![b'x'; 1024 * 1024]).expect("written");
        });
        let mut seen = vec![0; WAITING_BYTES];
        while tcp.peek(&mut seen).await.expect("it is open") < WAITING_BYTES {
            tokio::task::yield_now().await;
        }
        let call = Call::new(Stream::Plain(tcp), Segments::new());
        let wants = Wants { stream: false, usage: false, injected: false };
        let mut attempt =
            Attempt::with_state(State::AwaitingHead(Box::new(call)), Operation::Chat, wants, 0, None);
        assert!(matches!(poll_fn(|cx| attempt.poll(cx)).await, Input::Headers));
        assert!(matches!(poll_fn(|cx| attempt.poll(cx)).await, Input::FirstContent));
        let mut taken = 0;
        poll_fn(|cx| {
            loop {
                let polled = attempt.poll(cx);
                let ready: usize = attempt.ready.drain(..).map(|piece| piece.len()).sum();
                assert!(ready <= 2 * READY_BYTES_MAX, "{ready} bytes were read ahead");
                taken += ready;
                if polled.is_ready() {
                    return Poll::Ready(());
                }
                if ready == 0 {
                    return Poll::Pending;
                }
            }
        })
        .await;
        assert_eq!(taken, 1024 * 1024);
        upstream.join().expect("the upstream served");
    }
}
