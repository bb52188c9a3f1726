//! One answer for several requests: a task of its own carries out the exchange, and every request that waits for the
//! answer reads what the task wrote. The exchange goes on while anybody reads, whoever asked first, and is cancelled with
//! the last reader.
//!
//! The answer is kept from its beginning, so that whoever comes later misses nothing, until it is too large for that
//! (see [`Ledger::grow`](pointsman_routing::idempotency::Ledger::grow)). From then on nobody can join, what all have read
//! is dropped, and the task waits for the slowest.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body;
use pointsman_routing::idempotency::{Ending, Turn};

use super::{Exchange, RouterBody};
use crate::http::guard::Guard;
use crate::http::respond::SERVED_BY;
use crate::http::server::Worker;
use crate::telemetry::record::RequestId;

/// Bytes that one read takes at most.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Bytes that the task is ahead of the slowest reader at most, once the answer is not kept any more.
const AHEAD_BYTES_MAX: usize = 256 * 1024;
/// What a key takes beside its answer: digests, places in the ledger, and this page's own state.
const ENTRY_BYTES: u64 = 512;

/// An answer that several requests read.
pub struct Shared {
    /// The request that asks for it.
    pub of: RequestId,
    /// Its place in the ledger.
    pub turn: Turn,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    head: Option<Head>,
    held: BytesMut,
    /// Bytes that came before those held.
    dropped: u64,
    /// Whether later readers can no longer get all of it.
    overflowing: bool,
    /// How it ended, once it has.
    end: Option<Result<(), String>>,
    readers: BTreeMap<u64, Place>,
    next_reader: u64,
    /// The last reader left before the end.
    abandoned: bool,
    /// Whoever writes, while it waits for readers.
    writer: Option<Waker>,
}

/// The head of an answer.
#[derive(Clone)]
pub struct Head {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Bytes of its body, if they are known.
    length: Option<u64>,
}

/// How far a reader is.
#[derive(Default)]
struct Place {
    at: u64,
    waker: Option<Waker>,
}

/// Why an answer cannot be read from its beginning.
pub enum Unreadable {
    /// Everybody left, and what was under way was cancelled.
    Abandoned,
    /// It is too large to be kept.
    TooLarge,
}

impl Shared {
    /// The answer to the request `of`, of which nothing is there yet.
    pub fn new(of: RequestId, turn: Turn) -> Self {
        Self { of, turn, inner: Mutex::default() }
    }

    /// A reader of the whole answer.
    pub fn read(self: &Arc<Self>) -> Result<Reader, Unreadable> {
        let mut inner = self.lock();
        if inner.abandoned {
            return Err(Unreadable::Abandoned);
        }
        if inner.overflowing {
            return Err(Unreadable::TooLarge);
        }
        let id = inner.next_reader;
        inner.next_reader += 1;
        inner.readers.insert(id, Place::default());
        drop(inner);
        Ok(Reader { shared: Arc::clone(self), id, tale: None })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is there and wakes whoever waits for it.
    fn write(&self, change: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        change(&mut inner);
        let wakers: Vec<Waker> = inner.readers.values_mut().filter_map(|place| place.waker.take()).collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ready when nobody reads any more.
    async fn abandoned(&self) {
        poll_fn(|cx| {
            let mut inner = self.lock();
            inner.writer = Some(cx.waker().clone());
            if inner.abandoned { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ready when there is room for more.
    async fn room(&self) {
        poll_fn(|cx| {
            let mut inner = self.lock();
            inner.writer = Some(cx.waker().clone());
            let full = inner.overflowing && inner.held.len() >= AHEAD_BYTES_MAX;
            if full { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
}

impl Inner {
    /// Drops what all have read, where it is not kept for others.
    fn trim(&mut self) {
        if self.overflowing
            && let Some(slowest) = self.readers.values().map(|place| place.at).min()
        {
            let read = slowest.saturating_sub(self.dropped);
            self.held.advance(usize::try_from(read).unwrap_or(usize::MAX).min(self.held.len()));
            self.dropped = slowest;
        }
    }
}

/// How far a reader came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// To the answer's proper end.
    ToItsEnd,
    /// To where the answer broke off.
    ToTheBreak,
    /// Not to the end: its client left.
    Nowhere,
}

/// What is done when a reader is dropped.
type Tale = Box<dyn FnOnce(Came, Option<StatusCode>)>;

/// One reader of a shared answer.
pub struct Reader {
    shared: Arc<Shared>,
    id: u64,
    tale: Option<Tale>,
}

impl Reader {
    /// Has `tale` told when the reader is dropped: how far it came, and the status if there was a head.
    #[must_use]
    pub fn telling(mut self, tale: impl FnOnce(Came, Option<StatusCode>) + 'static) -> Self {
        self.tale = Some(Box::new(tale));
        self
    }

    /// Lets nothing be told: somebody else does.
    pub fn hush(&mut self) {
        self.tale = None;
    }

    /// The head of the answer; `None` if it ended without one.
    pub async fn head(&self) -> Option<Head> {
        poll_fn(|cx| {
            let mut inner = self.shared.lock();
            if inner.head.is_some() || inner.end.is_some() {
                return Poll::Ready(inner.head.clone());
            }
            if let Some(place) = inner.readers.get_mut(&self.id) {
                place.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// The response to a request that reads this answer.
    pub fn respond(self, head: Head) -> Response<RouterBody> {
        let mut response = Response::new(RouterBody::Shared(self));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        response
    }

    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut inner = self.shared.lock();
        let dropped = inner.dropped;
        let Some(at) = inner.readers.get(&self.id).map(|place| place.at) else { return Poll::Ready(None) };
        let from = usize::try_from(at - dropped).unwrap_or(usize::MAX).min(inner.held.len());
        let piece = &inner.held[from..];
        if !piece.is_empty() {
            let piece = Bytes::copy_from_slice(&piece[..piece.len().min(PIECE_BYTES_MAX)]);
            if let Some(place) = inner.readers.get_mut(&self.id) {
                place.at = at + piece.len() as u64;
            }
            inner.trim();
            let writer = if inner.overflowing { inner.writer.take() } else { None };
            drop(inner);
            writer.into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(Ok(piece)));
        }
        match &inner.end {
            Some(Ok(())) => Poll::Ready(None),
            Some(Err(why)) => {
                let error = io::Error::new(io::ErrorKind::ConnectionAborted, why.clone());
                // Told once, and then it is over.
                inner.readers.remove(&self.id);
                Poll::Ready(Some(Err(error)))
            }
            None => {
                if let Some(place) = inner.readers.get_mut(&self.id) {
                    place.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Whether all was read of an answer that ended well.
    pub(super) fn is_at_end(&self) -> bool {
        let inner = self.shared.lock();
        let end = inner.dropped + inner.held.len() as u64;
        matches!(inner.end, Some(Ok(()))) && inner.readers.get(&self.id).is_some_and(|place| place.at == end)
    }

    /// Bytes still to come, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        let inner = self.shared.lock();
        let known = inner.head.as_ref().and_then(|head| head.length);
        let whole = matches!(inner.end, Some(Ok(()))).then(|| inner.dropped + inner.held.len() as u64);
        let read = inner.readers.get(&self.id).map_or(0, |place| place.at);
        whole.or(known).map(|length| length.saturating_sub(read))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let at_end = self.is_at_end();
        let mut inner = self.shared.lock();
        let there = inner.readers.remove(&self.id).is_some();
        inner.trim();
        inner.abandoned |= inner.readers.is_empty() && inner.end.is_none();
        let writer = inner.writer.take();
        let status = inner.head.as_ref().map(|head| head.status);
        drop(inner);
        writer.into_iter().for_each(Waker::wake);
        if let Some(tale) = self.tale.take() {
            let came = match (at_end, there) {
                (true, _) => Came::ToItsEnd,
                (false, true) => Came::Nowhere,
                (false, false) => Came::ToTheBreak,
            };
            tale(came, status);
        }
    }
}

/// Ends what was begun, on whatever way its task ends.
struct Lead {
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    /// What the readers are told that are left.
    end: Result<(), String>,
    keep: bool,
}

impl Drop for Lead {
    fn drop(&mut self) {
        // The key first: whoever comes after the last byte was told must find it as it will stay.
        self.worker.app.idempotency.end(self.shared.turn, self.keep);
        let end = std::mem::replace(&mut self.end, Ok(()));
        self.shared.write(|inner| {
            if self.keep {
                // What is kept takes no more than its bytes.
                inner.held = BytesMut::from(&inner.held[..]);
            }
            inner.end = Some(end);
        });
    }
}

/// Carries out an exchange for all who read its answer.
pub async fn drive(worker: Rc<Worker>, exchange: Box<Exchange>, shared: Arc<Shared>) {
    let _hold = worker.hold();
    let gone = Err("the request that this one waited for ended without an answer; ask again".to_owned());
    let mut lead = Lead { worker: Rc::clone(&worker), shared: Arc::clone(&shared), end: gone, keep: false };
    let work = pin!(worker.attend(carry(&worker, exchange, &shared)));
    tokio::select! {
        ended = Guard::new(work) => match ended {
            Some((end, keep)) => (lead.end, lead.keep) = (end, keep),
            None => {
                worker.app.metrics.panics.inc();
                tracing::error!(request_id = %shared.of, "a request panicked; please report it with the lines before this one");
            }
        },
        // What was under way is dropped, and so cancelled.
        () = shared.abandoned() => {}
    }
}

/// Writes the answer down as it comes. Gives how it ended and whether it is to be kept.
async fn carry(worker: &Worker, exchange: Box<Exchange>, shared: &Shared) -> (Result<(), String>, bool) {
    let (head, mut body) = exchange.run().await.into_parts();
    let by_deployment = head.headers.get(SERVED_BY) != Some(&HeaderValue::from_static("router"));
    let head_bytes: usize = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    let keys = &worker.app.idempotency;
    let mut kept = keys.grow(shared.turn, head_bytes as u64 + ENTRY_BYTES);
    let length = body.size_hint().exact();
    shared.write(|inner| {
        inner.overflowing = !kept;
        inner.head = Some(Head { status: head.status, headers: head.headers, length });
    });
    let end = loop {
        shared.room().await;
        let data = match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => break Ok(()),
            Some(Err(error)) => break Err(error.to_string()),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        kept = kept && keys.grow(shared.turn, data.len() as u64);
        shared.write(|inner| {
            inner.overflowing = !kept;
            inner.trim();
            inner.held.extend_from_slice(&data);
        });
    };
    let complete = end.is_ok() && body.is_complete();
    let ending = Ending { status: head.status.as_u16(), complete, by_deployment };
    (end, ending.is_worth_keeping())
}
