//! A client's connection, watched: a client that stops reading is cut off, one that leaves is noticed whatever it sent
//! before, and one that never finished its first line can be told so.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// Bytes that are read ahead of the server to see whether the client is still there.
const AHEAD_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a head and its body that are copied together, which costs less than to send them as a list of pieces.
const JOINED_BYTES_MAX: usize = 2048;

/// A client's connection, watched.
pub struct ClientIo(Rc<RefCell<Inner>>);

/// The watch over a client's connection, for whoever polls its server.
///
/// The server reads only what it has use for, so while bytes of the client lie unread in its buffer (a stray line end,
/// a pipelined request) it would not see that the client left. Once a request is there as a whole, the watch reads on in
/// its place after each of its polls.
pub struct ClientWatch(Rc<RefCell<Inner>>);

/// Whether a request is there as a whole and its answer is not; shared with whoever reads requests. Before that the
/// server reads for itself, and nobody may take its bytes through a second buffer.
#[derive(Clone, Default)]
pub struct Answering(Rc<Cell<bool>>);

impl Answering {
    /// Says so.
    pub fn set(&self, answering: bool) {
        self.0.set(answering);
    }
}

struct Inner {
    tcp: TcpStream,
    stall_max: Duration,
    /// Runs while a write waits for the client.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Whether anything but line ends came since the last answer began.
    heard: bool,
    /// What was read ahead of the server.
    ahead: BytesMut,
    /// Whether the server waits for bytes, and so sees an end itself.
    server_waits: bool,
    answering: Answering,
    half: Half,
}

/// What it means when a client closes its half of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    /// It has left.
    Leaves,
    /// It waits for its answer.
    Waits,
    /// It waits for its answer, and has closed it.
    Closed,
}

impl ClientIo {
    /// Watches `tcp`; a write may wait for the client for `stall_max`.
    pub fn new(tcp: TcpStream, stall_max: Duration, answering: Answering) -> (Self, ClientWatch) {
        let inner = Rc::new(RefCell::new(Inner {
            tcp,
            stall_max,
            stalled: None,
            heard: false,
            ahead: BytesMut::new(),
            server_waits: false,
            answering,
            half: Half::Leaves,
        }));
        (Self(Rc::clone(&inner)), ClientWatch(inner))
    }

    /// Whether a client that closes its half of the connection waits for its answer instead of having left.
    pub fn set_half_close(&self, half_close: bool) {
        self.0.borrow_mut().half = if half_close { Half::Waits } else { Half::Leaves };
    }

    /// Whether the client began a request that was not answered.
    pub fn has_unanswered(&self) -> bool {
        self.0.borrow().heard
    }
}

impl ClientWatch {
    /// To be called before each poll of the server.
    pub fn begin(&self) {
        self.0.borrow_mut().server_waits = false;
    }

    /// To be called after a poll of the server that left it pending: whether the client has left. A client that closed
    /// its half of the connection counts as gone, unless the configuration says otherwise.
    pub fn has_left(&self, cx: &mut Context<'_>) -> bool {
        let inner = &mut *self.0.borrow_mut();
        if inner.server_waits || inner.half == Half::Closed || !inner.answering.0.get() {
            return false;
        }
        while inner.ahead.len() < AHEAD_BYTES_MAX {
            let mut space = [MaybeUninit::uninit(); 1024];
            let room = space.len().min(AHEAD_BYTES_MAX - inner.ahead.len());
            let mut buf = ReadBuf::uninit(&mut space[..room]);
            match Pin::new(&mut inner.tcp).poll_read(cx, &mut buf) {
                Poll::Pending => return false,
                Poll::Ready(Err(_)) => return true,
                Poll::Ready(Ok(())) if buf.filled().is_empty() => {
                    if inner.half == Half::Leaves {
                        return true;
                    }
                    inner.half = Half::Closed;
                    return false;
                }
                Poll::Ready(Ok(())) => {
                    inner.ahead.extend_from_slice(buf.filled());
                    // The event that these bytes made is used up; the server may have to come for them by itself.
                    cx.waker().wake_by_ref();
                }
            }
        }
        false
    }
}

impl Inner {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = if self.ahead.is_empty() {
            Pin::new(&mut self.tcp).poll_read(cx, buf)
        } else {
            let take = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..take]);
            self.ahead.advance(take);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            Poll::Ready(Ok(()))
        };
        // Line ends may stand between requests (RFC 9112, 2.2); the parser skips them, and they begin none.
        self.heard |= buf.filled()[before..].iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        self.server_waits = read.is_pending();
        read
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            self.heard = false;
            return wrote;
        }
        let stall_max = self.stall_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall_max)));
        if stalled.as_mut().poll(cx).is_ready() {
            stalled.as_mut().reset(Instant::now() + stall_max);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client stopped reading")));
        }
        Poll::Pending
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let wrote = Pin::new(&mut inner.tcp).poll_write(cx, buf);
        inner.watch(cx, wrote)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        let bytes = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let tcp = Pin::new(&mut inner.tcp);
        let wrote = if bytes > JOINED_BYTES_MAX {
            tcp.poll_write_vectored(cx, bufs)
        } else {
            let mut joined = SmallVec::<[u8; JOINED_BYTES_MAX]>::new();
            for buf in bufs {
                joined.extend_from_slice(buf);
            }
            tcp.poll_write(cx, &joined)
        };
        inner.watch(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().tcp).poll_shutdown(cx)
    }
}
