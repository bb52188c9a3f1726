//! A request's body that passes by while it is sent. Its beginning is kept for another attempt, until more than that has left.
//!
//! What comes is held to what was authorised before it goes on, and is asked for only as the provider takes it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use pointsman_routing::flow::Flow;
use pointsman_wire::openai::Segments;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::tasks::multipart::{Scanner, Splice};

use crate::clock;
use crate::http::body::{BodyRules, Watch};
use crate::http::client_io::Answering;

/// A body that passes by, for the exchange that it belongs to.
pub struct Upload {
    shared: Shared,
    answering: Answering,
}

/// The body itself, for the attempts that take it in turn. Only one thread ever asks, and it never waits with the lock.
#[derive(Clone)]
struct Shared(Arc<Mutex<Inner>>);

struct Inner {
    body: Incoming,
    watch: Watch,
    rules: BodyRules,
    /// `None` once all was scanned.
    scanner: Option<Scanner>,
    received: u64,
    /// Its beginning, until more than that has left.
    kept: Bytes,
    /// Bytes it has, if the client said so.
    length: Option<u64>,
    /// Whether a part of it left since the flow was told.
    moved: bool,
    /// Whether more has left than is kept.
    gone: bool,
    error: Option<ErrorBody>,
}

impl Upload {
    /// A body whose beginning `kept` was scanned, and what comes behind that.
    pub(crate) fn new(
        (body, watch, rules): (Incoming, Watch, BodyRules),
        scanner: Scanner,
        kept: Bytes,
        length: Option<u64>,
        answering: Answering,
    ) -> Self {
        let inner = Inner {
            body,
            watch,
            rules,
            scanner: Some(scanner),
            received: kept.len() as u64,
            kept,
            length,
            moved: false,
            gone: false,
            error: None,
        };
        Self { shared: Shared(Arc::new(Mutex::new(inner))), answering }
    }

    /// Bytes it has, if the client said so.
    pub(super) fn length(&self) -> Option<u64> {
        self.shared.lock().length
    }

    /// Whether all of it came, and was found good.
    pub(super) fn is_complete(&self) -> bool {
        self.shared.lock().scanner.is_none()
    }

    /// Tells the flow what became of it since it was told last.
    pub(super) fn tell(&self, flow: &mut Flow) {
        let mut inner = self.shared.lock();
        if inner.gone {
            flow.note_gone();
        }
        if inner.scanner.is_none() {
            self.answering.set(true);
        }
        if std::mem::take(&mut inner.moved) {
            flow.on_upload(clock::now());
        }
    }

    /// Why it does not go on, once.
    pub(super) fn take_error(&self) -> Option<ErrorBody> {
        self.shared.lock().error.take()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes behind the beginning.
    fn poll_piece(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut inner = self.lock();
        if inner.scanner.is_none() {
            return Poll::Ready(None);
        }
        match ready!(inner.poll_good(cx)) {
            Ok(piece) => Poll::Ready(piece.map(Ok)),
            Err(error) => {
                let cut = io::Error::new(io::ErrorKind::InvalidData, error.message.clone());
                inner.error = Some(error);
                Poll::Ready(Some(Err(cut)))
            }
        }
    }
}

impl Inner {
    /// What is kept, while nothing else has left.
    fn beginning(&self) -> io::Result<Bytes> {
        debug_assert!(!self.gone, "the flow sends nothing again that went by");
        let gone = || io::Error::other("the beginning of the form is not kept any more");
        (!self.gone).then(|| self.kept.clone()).ok_or_else(gone)
    }

    fn poll_good(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ErrorBody>> {
        loop {
            let Some(frame) = ready!(self.watch.poll(cx, self.received, Pin::new(&mut self.body)))? else {
                let finished = self.scanner.take().map(Scanner::finish).transpose();
                return Poll::Ready(finished.map(|_| None).map_err(ErrorBody::from));
            };
            let Ok(data) = frame.into_data() else { continue };
            self.watch.rest();
            self.received += data.len() as u64;
            if self.received > self.rules.bytes_max {
                return Poll::Ready(Err(ErrorBody::too_big(self.rules.bytes_max)));
            }
            if let Some(scanner) = &mut self.scanner {
                scanner.push(&data)?;
            }
            (self.gone, self.moved, self.kept) = (true, true, Bytes::new());
            return Poll::Ready(Ok(Some(data)));
        }
    }
}

/// A body that passes by, as one attempt sends it: with its upstream's name of the model.
pub(super) struct Feed {
    upload: Shared,
    splice: Splice,
    begun: bool,
    ready: Segments,
}

impl Feed {
    /// From the beginning, which must still be kept.
    pub(super) fn new(upload: &Upload, splice: Splice) -> Self {
        Self { upload: upload.shared.clone(), splice, begun: false, ready: Segments::new() }
    }
}

impl Body for Feed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        while this.ready.is_empty() {
            let piece = if std::mem::replace(&mut this.begun, true) {
                match ready!(this.upload.poll_piece(cx)) {
                    None => return Poll::Ready(None),
                    Some(piece) => piece?,
                }
            } else {
                this.upload.lock().beginning()?
            };
            this.splice.push(&piece, &mut this.ready);
        }
        Poll::Ready(Some(Ok(Frame::data(this.ready.remove(0)))))
    }
}
