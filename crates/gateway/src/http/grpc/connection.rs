//! Connections of HTTP/2: accepted, watched, and drained.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pointsman_wire::kserve::{DEF, grpc};
use pointsman_wire::openai::error::ErrorBody;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::app::Shutdown;
use crate::clock;
use crate::http::client_io::{Answering, ClientIo};
use crate::http::early::Early;
use crate::http::guard::Guard;
use crate::http::respond::text_value;
use crate::http::server::{ACCEPT_REST, Worker, open};

/// Calls that one connection may have under way.
const CALLS_MAX: u32 = 128;
/// Bytes of a call that a client may send before they are read, and of all calls of a connection.
const WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes of an answer that wait for a client at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Time between looks at what a connection does.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Serves the listener until the process hands it over or stops.
///
/// # Errors
/// When the listener cannot be used at all.
pub async fn listen(worker: Rc<Worker>, listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    while worker.stage.get() < Shutdown::HandedOver {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    let Some(held) = open(&worker) else { continue };
                    let worker = Rc::clone(&worker);
                    spawn_local(async move {
                        serve_connection(worker, tcp).await;
                        drop(held);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection over gRPC");
                    worker.app.metrics.refused("accept");
                    sleep(ACCEPT_REST).await;
                }
            },
            () = worker.staged() => {}
        }
    }
    Ok(())
}

/// What a connection does, for whoever looks after it.
struct Pulse {
    calls: Cell<u32>,
    answers: Cell<u32>,
    at: Cell<Instant>,
}

impl Pulse {
    fn beat(&self) {
        self.at.set(Instant::now());
    }
}

/// A call while it is under way.
struct Under {
    pulse: Rc<Pulse>,
    /// Whether it is being answered.
    answers: bool,
}

impl Under {
    fn new(pulse: &Rc<Pulse>) -> Self {
        pulse.calls.set(pulse.calls.get() + 1);
        pulse.beat();
        Self { pulse: Rc::clone(pulse), answers: false }
    }

    fn answers(mut self) -> Self {
        self.answers = true;
        self.pulse.answers.set(self.pulse.answers.get() + 1);
        self.pulse.beat();
        self
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.pulse.calls.set(self.pulse.calls.get() - 1);
        if self.answers {
            self.pulse.answers.set(self.pulse.answers.get() - 1);
        }
        self.pulse.beat();
    }
}

/// Runs what hyper splits off on this thread.
#[derive(Clone)]
struct Here;

impl<F: Future<Output: 'static> + 'static> hyper::rt::Executor<F> for Here {
    fn execute(&self, work: F) {
        spawn_local(work);
    }
}

async fn serve_connection(worker: Rc<Worker>, tcp: TcpStream) {
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let snapshot = worker.app.snapshot.load_full();
    let limits = &snapshot.config.limits;
    let (idle_max, stall_max) =
        (Duration::from_millis(limits.header_read_ms), Duration::from_millis(limits.write_stall_ms));
    let (io, _) = ClientIo::new(tcp, stall_max, Answering::default());
    let pulse = Rc::new(Pulse { calls: Cell::new(0), answers: Cell::new(0), at: Cell::new(Instant::now()) });
    let service = {
        let (worker, pulse) = (Rc::clone(&worker), Rc::clone(&pulse));
        service_fn(move |request| {
            let (worker, under) = (Rc::clone(&worker), Under::new(&pulse));
            async move { Ok::<_, Infallible>(respond(worker, request, under).await) }
        })
    };
    let mut connection = http2::Builder::new(Here)
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(PIECE_BYTES)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        // A client that is gone without a word holds its calls no longer than one that stopped reading.
        .keep_alive_interval(stall_max)
        .keep_alive_timeout(stall_max)
        .serve_connection(TokioIo::new(io), service);
    drop(snapshot);
    let mut told = Shutdown::No;
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watched = poll_fn(|cx| {
        if worker.stage.get() != told && worker.stage.get() >= Shutdown::Draining {
            told = worker.stage.get();
            Pin::new(&mut connection).graceful_shutdown();
        }
        while look.poll_tick(cx).is_ready() {
            let since = pulse.at.get().elapsed();
            if pulse.answers.get() > 0 && since > stall_max {
                return Poll::Ready(None);
            }
            if pulse.calls.get() == 0 && since > idle_max {
                // Its next call finds another connection; this one is told to end, and then ended.
                Pin::new(&mut connection).graceful_shutdown();
                if since > 2 * idle_max {
                    return Poll::Ready(None);
                }
            }
        }
        Pin::new(&mut connection).poll(cx).map(Some)
    });
    match worker.attend(watched).await {
        None => worker.app.metrics.refused("stalled"),
        Some(Err(error)) => tracing::debug!(%error, "a client's connection over gRPC ended"),
        Some(Ok(())) => {}
    }
}

/// What a call is answered with.
pub(super) enum Told {
    /// A message in its frame.
    Message(HeaderMap, Bytes),
    /// Why there is none.
    Failed(HeaderMap, u8, String),
    /// It was no call.
    NoCall,
}

async fn respond(worker: Rc<Worker>, request: Request<Incoming>, under: Under) -> Response<Answer> {
    let (id, at) = (worker.next_id(), clock::now());
    let early = || Early::new(id, at, &DEF);
    // The connection's task is not what drives a call, so it has to look itself when the process stops.
    let served = worker.attend(super::serve(Rc::clone(&worker), request, early()));
    let told = match Guard::new(pin!(served)).await {
        Some(told) => told,
        None => {
            worker.app.metrics.panics.inc();
            tracing::error!(request_id = %id, "a request panicked; please report it with the lines before this one");
            let error = ErrorBody::internal("the request met a defect of the gateway");
            super::failed(early().refuse(&worker, "panic", &error)).await
        }
    };
    told.into_response(under.answers())
}

impl Told {
    fn into_response(self, under: Under) -> Response<Answer> {
        let mut answer = Answer { left: Bytes::new(), trailers: None, under };
        let (headers, ended) = match self {
            Self::Message(headers, message) => {
                answer.left = message;
                answer.trailers = Some(HeaderMap::from_iter([(STATUS, HeaderValue::from(0))]));
                (headers, None)
            }
            Self::Failed(headers, code, text) => (headers, Some((code, text))),
            Self::NoCall => {
                let mut response = Response::new(answer);
                *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
                return response;
            }
        };
        let mut response = Response::new(answer);
        let own = response.headers_mut();
        for (name, value) in &headers {
            if name.as_str().starts_with("x-") || name.as_str().starts_with("grpc-") {
                own.append(name, value.clone());
            }
        }
        own.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        // An error without an answer ends with its head.
        if let Some((code, text)) = ended {
            own.insert(STATUS, HeaderValue::from(u16::from(code)));
            own.insert(MESSAGE, text_value(&grpc::quote_message(&text)));
        }
        response
    }
}

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The body of an answer.
pub(super) struct Answer {
    left: Bytes,
    trailers: Option<HeaderMap>,
    under: Under,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.under.pulse.beat();
        if !self.left.is_empty() {
            let piece = self.left.len().min(PIECE_BYTES);
            return Poll::Ready(Some(Ok(Frame::data(self.left.split_to(piece)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.trailers.is_none()
    }
}
