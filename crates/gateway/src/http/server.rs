//! One worker of the data plane: a thread that accepts connections and serves them to their end. Workers share the
//! listener and the [`App`]; connections to providers are a worker's own.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pointsman_routing::Rng;
use pointsman_routing::shed::Reason;
use pointsman_settings::sections::HalfClose;
use pointsman_wire::openai::error::ErrorBody;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::auth::Recognised;
use super::body;
use super::client_io::{Answering, ClientIo};
use super::grpc;
use super::guard::GuardedBody;
use super::service::serve;
use crate::app::{App, Shutdown};
use crate::clock;
use crate::telemetry::record::RequestId;
use crate::upstream::pool::Pool;

/// Rest after the system refused a connection (out of descriptors, say), so that refusing does not become the work.
pub(super) const ACCEPT_REST: Duration = Duration::from_millis(50);
/// Time between looks at idle connections to providers.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Bytes of a head over its limit that are read all the same, to refuse it in the client's own words.
const HEAD_SLACK_BYTES: usize = 16 * 1024;

/// What the requests of one thread share.
pub struct Worker {
    /// What all threads share.
    pub app: Arc<App>,
    /// Idle connections to providers.
    pub pool: Pool,
    /// How far the shutdown has come, as this worker knows it.
    pub stage: Cell<Shutdown>,
    /// Ends of drains that this worker knows of.
    pub recalls: Cell<u64>,
    ids: RefCell<Rng>,
    open: Cell<usize>,
    /// Told when the stage changes, or a drain is over.
    staged: Notify,
    /// Told when a connection closes.
    closed: Notify,
}

impl Worker {
    fn new(app: Arc<App>, seed: u64) -> Self {
        Self {
            app,
            pool: Pool::default(),
            stage: Cell::new(Shutdown::No),
            recalls: Cell::new(0),
            ids: RefCell::new(Rng::seeded(seed)),
            open: Cell::new(0),
            staged: Notify::new(),
            closed: Notify::new(),
        }
    }

    /// A worker that has no listener, for requests that no client's connection carries.
    pub fn beside(app: Arc<App>) -> Rc<Self> {
        let seed = app.seed();
        Rc::new(Self::new(app, seed))
    }

    /// Keeps a worker without a listener up to date: how far the shutdown is, which drains ended, which connections to
    /// providers idle too long. Never ends.
    pub async fn follow(&self) {
        let mut shutdown = self.app.shutdown.subscribe();
        let mut recalls = self.app.recalls.subscribe();
        self.stage.set(*shutdown.borrow_and_update());
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = recalls.changed() => self.recall(*recalls.borrow_and_update()),
                _ = shutdown.changed() => {
                    self.stage.set(*shutdown.borrow_and_update());
                    self.staged.notify_waiters();
                }
                _ = sweep.tick() => self.pool.sweep(clock::now()),
            }
        }
    }

    /// An id that no other request has.
    pub fn next_id(&self) -> RequestId {
        let mut ids = self.ids.borrow_mut();
        RequestId(u128::from(ids.next_u64()) << 64 | u128::from(ids.next_u64()))
    }

    /// Keeps the worker from its end while something is under way that belongs to no connection of its own.
    pub fn hold(self: &Rc<Self>) -> Hold {
        self.open.set(self.open.get() + 1);
        Hold(Rc::clone(self))
    }

    /// Drives `work` that no client's connection drives, and has it look again when the stage changes or a drain is over.
    pub async fn attend<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut staged = pin!(self.staged.notified());
        poll_fn(|cx| {
            // What comes next must wake this task again. It is listened for before the look at what came.
            while staged.as_mut().poll(cx).is_ready() {
                staged.set(self.staged.notified());
            }
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Waits until the stage changes or a drain is over.
    pub(super) async fn staged(&self) {
        self.staged.notified().await;
    }

    /// A drain is over: whatever is under way looks whether it may go on.
    fn recall(&self, recalls: u64) {
        self.recalls.set(recalls);
        self.staged.notify_waiters();
    }

    /// Bytes of a provider's error that are read.
    pub fn error_body_bytes_max(&self) -> usize {
        self.app.snapshot.load().config.limits.upstream_error_body_bytes_max
    }
}

/// See [`Worker::hold`].
pub struct Hold(Rc<Worker>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.closed.notify_one();
    }
}

/// Serves the listeners until the shutdown, and then what is open until it ends or is told to.
///
/// # Errors
/// When the listener cannot be used at all.
pub async fn run(
    app: Arc<App>,
    listener: std::net::TcpListener,
    grpc: Option<std::net::TcpListener>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let worker = Rc::new(Worker::new(Arc::clone(&app), app.seed()));
    if let Some(grpc) = grpc {
        let worker = Rc::clone(&worker);
        spawn_local(async move {
            if let Err(error) = grpc::listen(worker, grpc).await {
                tracing::error!(%error, "gRPC cannot be served");
            }
        });
    }
    spawn_local(body::give_back());
    let mut shutdown = app.shutdown.subscribe();
    let mut recalls = app.recalls.subscribe();
    let mut refusing = false;
    let mut sweep = interval(SWEEP_EVERY);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while worker.stage.get() < Shutdown::HandedOver {
        let room = app.connections.load(Ordering::Relaxed) < app.connections_room;
        tokio::select! {
            accepted = listener.accept(), if room => match accepted {
                Ok((tcp, _)) => {
                    refusing = false;
                    accept(&worker, tcp);
                }
                Err(error) => {
                    if !std::mem::replace(&mut refusing, true) {
                        tracing::warn!(%error, "cannot accept connections; clients wait");
                    }
                    app.metrics.refused("accept");
                    sleep(ACCEPT_REST).await;
                }
            },
            () = sleep(ACCEPT_REST), if !room => {
                if !std::mem::replace(&mut refusing, true) {
                    let connections_max = app.connections_room;
                    tracing::warn!(connections_max, "no descriptors for more connections; clients wait; raise the limit (`ulimit -n`)");
                }
            }
            _ = recalls.changed() => worker.recall(*recalls.borrow_and_update()),
            _ = shutdown.changed() => worker.stage.set(*shutdown.borrow_and_update()),
            _ = sweep.tick() => worker.pool.sweep(clock::now()),
        }
    }
    drop(listener);
    worker.staged.notify_waiters();
    while worker.open.get() > 0 {
        tokio::select! {
            () = worker.closed.notified() => {}
            _ = recalls.changed() => worker.recall(*recalls.borrow_and_update()),
            _ = shutdown.changed() => {
                worker.stage.set(*shutdown.borrow_and_update());
                worker.staged.notify_waiters();
            }
        }
    }
    Ok(())
}

fn accept(worker: &Rc<Worker>, tcp: TcpStream) {
    let Some(open) = open(worker) else { return };
    spawn_local(async move {
        let worker = Rc::clone(&open.worker);
        serve_connection(worker, tcp).await;
        drop(open);
    });
}

/// Counts a connection that was accepted, unless there are too many.
pub(super) fn open(worker: &Rc<Worker>) -> Option<Open> {
    let connections_max = worker.app.snapshot.load().config.limits.connections_max;
    let open = Open::new(worker);
    if worker.app.connections.load(Ordering::Relaxed) > connections_max {
        worker.app.metrics.refused("connections");
        return None;
    }
    if worker.app.memory.grade().refuses_connections() {
        worker.app.metrics.shed(Reason::MemoryConnection);
        return None;
    }
    Some(open)
}

/// Counts a connection while it is open.
pub(super) struct Open {
    worker: Rc<Worker>,
}

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        worker.app.connections.fetch_add(1, Ordering::Relaxed);
        Self { worker: Rc::clone(worker) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.worker.open.set(self.worker.open.get() - 1);
        self.worker.app.connections.fetch_sub(1, Ordering::Relaxed);
        self.worker.closed.notify_one();
    }
}

async fn serve_connection(worker: Rc<Worker>, tcp: TcpStream) {
    if tcp.set_nodelay(true).is_err() {
        return;
    }
    let snapshot = worker.app.snapshot.load_full();
    let limits = &snapshot.config.limits;
    let answering = Answering::default();
    let (io, client) = ClientIo::new(tcp, Duration::from_millis(limits.write_stall_ms), answering.clone());
    let half_close = limits.half_close == HalfClose::Serve;
    io.set_half_close(half_close);
    let service = {
        let worker = Rc::clone(&worker);
        let recognised = Rc::new(Recognised::default());
        service_fn(move |request| {
            let (worker, recognised) = (Rc::clone(&worker), Rc::clone(&recognised));
            answering.set(false);
            let answering = answering.clone();
            async move {
                let panics = worker.app.metrics.panics.clone();
                let response = serve(worker, request, answering, &recognised).await;
                Ok::<_, Infallible>(response.map(|body| GuardedBody::new(body, panics)))
            }
        })
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_read_ms))
        .max_buf_size(limits.header_bytes_max + HEAD_SLACK_BYTES)
        .max_headers(limits.headers_max)
        .half_close(half_close)
        .serve_connection(TokioIo::new(io), service);
    drop(snapshot);
    let mut told = Shutdown::No;
    let mut staged = pin!(worker.staged.notified());
    staged.as_mut().enable();
    let ended = poll_fn(|cx| {
        if worker.stage.get() != told && worker.stage.get() >= Shutdown::Draining {
            told = worker.stage.get();
            Pin::new(&mut connection).graceful_shutdown();
        }
        // What comes next must wake this task again. It is listened for before the look at what came.
        while staged.as_mut().poll(cx).is_ready() {
            staged.set(worker.staged.notified());
        }
        client.begin();
        let ended = Pin::new(&mut connection).poll(cx).map(Some);
        if ended.is_pending() && client.has_left(cx) {
            return Poll::Ready(None);
        }
        ended
    })
    .await;
    // A client that left takes its connection along, and what was under way is cancelled by that.
    let Some(Err(error)) = ended else { return };
    if error.is_timeout() {
        worker.app.metrics.refused("slow_header");
        let mut io = connection.into_parts().io.into_inner();
        if io.has_unanswered() {
            // Best effort: a client this slow may not read it.
            let _ = io.write_all(&too_slow(worker.next_id())).await;
            let _ = io.shutdown().await;
        }
    } else {
        tracing::debug!(%error, "a client's connection ended");
    }
}

/// What a client is told that took too long over its request's head.
fn too_slow(id: RequestId) -> Vec<u8> {
    let error = ErrorBody::router(
        408,
        "invalid_request_error",
        "request_timeout",
        "the request's head came too slowly; send it at once",
    );
    let body = error.to_json();
    let mut answer = format!(
        "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\nx-pointsman-request-id: {id}\r\nx-pointsman-served-by: router\r\n\
         x-pointsman-decision: refused:request_timeout\r\nx-pointsman-attempts: 0\r\n\r\n",
        body.len(),
    )
    .into_bytes();
    answer.extend_from_slice(&body);
    answer
}
