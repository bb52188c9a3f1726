//! The process: listeners, threads, signals, and the way out.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use pointsman_settings::Config;
use pointsman_settings::overlay::Overlay;
use tokio::runtime::LocalOptions;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle as Joined;

use crate::app::{App, Shutdown, Source};
use crate::batches::{self, Batches};
use crate::reload::Overrides;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::log_sink;
use crate::telemetry::metrics::Metrics;
use crate::upgrade::{Inheritance, Line, notify};
use crate::{admin, clock, drain, engines, health, http, memory, reload, watch};

/// Time that streams have to be told of the end, after the grace.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Time in which clients of a process that was upgraded are served once more, to be told that their connection closes:
/// one that is closed while a request is on its way to it fails that request.
const LAST_REQUESTS: Duration = Duration::from_secs(2);
/// Clients that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A gateway that is bound to its addresses.
pub struct Gateway {
    /// What its threads share.
    pub app: Arc<App>,
    /// Where clients are listened to.
    pub address: SocketAddr,
    /// Where the admin API is.
    pub admin_address: SocketAddr,
    /// Where clients over gRPC are listened to, if they are.
    pub grpc_address: Option<SocketAddr>,
    admin: TcpListener,
    workers: Vec<JoinHandle<()>>,
    /// The way back to the process before this one, which waits to hear that this one serves.
    before: Option<Line>,
    /// Does everything beside serving clients.
    runtime: Runtime,
    signals: Signals,
}

impl Gateway {
    /// Binds the addresses and starts the threads that serve clients.
    ///
    /// # Errors
    /// When an address cannot be bound, a log cannot be opened, or a thread cannot be started.
    pub fn start(path: Option<PathBuf>, base: Config, overlay: Overlay) -> anyhow::Result<Self> {
        Self::start_with(path, base, overlay, Overrides::default())
    }

    /// The same with what the command line says instead of the file, on every reload too.
    ///
    /// # Errors
    /// The same.
    pub fn start_with(
        path: Option<PathBuf>,
        base: Config,
        overlay: Overlay,
        overrides: Overrides,
    ) -> anyhow::Result<Self> {
        Self::start_from(path, base, overlay, overrides, None)
    }

    /// The same with the sockets of the process before this one, where they are what the configuration asks for.
    ///
    /// # Errors
    /// The same.
    pub fn start_from(
        path: Option<PathBuf>,
        base: Config,
        overlay: Overlay,
        overrides: Overrides,
        mut inherited: Option<Inheritance>,
    ) -> anyhow::Result<Self> {
        clock::now();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let signals = Signals::listen(&runtime)?;
        let base = overrides.over(base);
        let combined = reload::combine(&Config::default(), &base, overlay)?;
        reload::tell(&base, &combined.stale, &combined.overridden);
        if combined.to_save {
            reload::save(&base, &combined.overlay);
        }
        let (config, overlay) = (combined.config, combined.overlay);
        let mut listener = |key, address| {
            let socket = match inherited.as_mut().and_then(|inherited| inherited.take(key, address)) {
                Some(socket) => socket,
                None => bind(address, key)?,
            };
            crate::descriptors::watch_peers(&socket, Duration::from_millis(config.limits.write_stall_ms))?;
            anyhow::Ok(socket)
        };
        let grpc = config.grpc.map(|address| listener("grpc", address)).transpose()?;
        let (listener, admin) = (listener("listen", config.listen)?, listener("admin", config.admin)?);
        let before = inherited.map(|inherited| inherited.line()).transpose()?;
        let metrics = Metrics::new();
        let decision_log = config.decisions.log.as_ref().map(|path| {
            DecisionLog::open(path, config.decisions.log_queue_max, metrics.dropped_records.clone())
                .context("cannot start the thread of the decision log")
        });
        let threads = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        let seen = path.as_ref().and_then(|path| std::fs::read(path).ok());
        let source = Source { path, seen, overrides, base, overlay, last_error: None };
        let app = App::new(source, config, decision_log.transpose()?, metrics);
        app.upgrade.keep("listen", listener.try_clone()?);
        if let Some(grpc) = &grpc {
            app.upgrade.keep("grpc", grpc.try_clone()?);
        }
        // Nobody else has set either.
        match Batches::open(&app.snapshot.load().config, app.seed()) {
            Ok(batches) => drop(batches.map(|batches| app.batches.set(batches))),
            Err(error) => {
                // Traffic needs no disk.
                let why = format!("{error:#}");
                tracing::error!(why, "files and batches cannot be reached until the next start");
                let _ = app.batches_trouble.set(why);
            }
        }
        app.upgrade.keep("admin", admin.try_clone()?);
        let (address, admin_address) = (listener.local_addr()?, admin.local_addr()?);
        let grpc_address = grpc.as_ref().map(TcpListener::local_addr).transpose()?;
        let mut workers = (0..threads)
            .map(|number| {
                let grpc = grpc.as_ref().map(TcpListener::try_clone).transpose()?;
                worker(number, Arc::clone(&app), listener.try_clone()?, grpc)
            })
            .collect::<io::Result<Vec<_>>>()?;
        if let Some(batches) = app.batches.get() {
            workers.push(batches::run::start(Arc::clone(&app), Arc::clone(batches))?);
        }
        Ok(Self { app, address, admin_address, grpc_address, admin, workers, before, runtime, signals })
    }

    /// Runs the admin API, health checks, file watch and signals until the process is told to stop, and then the way
    /// out: not ready any more, then no new connections, streams finish within the grace, the rest is told, records are written.
    pub fn run(mut self) -> anyhow::Result<()> {
        let (runtime, Signals { hangups, upgrades, mut stops }) = (self.runtime, self.signals);
        runtime.block_on(async {
            let control = control(Arc::clone(&self.app), self.admin, (hangups, upgrades))?;
            tokio::pin!(control);
            if let Some(mut before) = self.before.take() {
                before.tell_ready();
            } else {
                notify("READY=1");
            }
            tokio::select! {
                () = &mut control => {}
                () = stops.next() => {}
                () = self.app.upgrade.handed_over.notified() => {}
            }
            let leaving = leave(Arc::clone(&self.app), self.workers);
            tokio::select! {
                () = leaving => {}
                // The admin API stays up on the way out: that is when people look.
                () = &mut control => {}
                () = stops.next() => tracing::warn!("told to stop twice; stopping at once"),
            }
            anyhow::Ok(())
        })?;
        // What may still block on a thread of its own, such as an upgrade or a worker, is not waited for.
        runtime.shutdown_background();
        if let Some(log) = &self.app.decision_log {
            log.close();
        }
        log_sink::flush();
        Ok(())
    }
}

/// The usual address, or if it is in use the same with one of `ports`, or with any port; never `taken`.
pub fn free_address(usual: SocketAddr, ports: &[u16], taken: Option<SocketAddr>) -> SocketAddr {
    let others = ports.iter().map(|port| SocketAddr::new(usual.ip(), *port));
    let free = |address: &SocketAddr| Some(*address) != taken && bind(*address, "").is_ok();
    std::iter::once(usual).chain(others).find(free).unwrap_or_else(|| SocketAddr::new(usual.ip(), 0))
}

/// Binds an address and says plainly what is in the way.
fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let try_bind = || {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        io::Result::Ok(socket.into())
    };
    try_bind().map_err(|error| {
        if error.kind() == io::ErrorKind::AddrInUse {
            return anyhow::anyhow!(
                "{address} is in use; stop what uses it, or take another address: `--{key} IP:PORT`, or `{key}: \
                 IP:PORT` in the config"
            );
        }
        anyhow::anyhow!("cannot listen on {address} (`{key}`): {error}")
    })
}

fn worker(
    number: usize,
    app: Arc<App>,
    listener: TcpListener,
    grpc: Option<TcpListener>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let served = runtime.and_then(|runtime| runtime.block_on(http::server::run(app, listener, grpc)));
        if let Err(error) = served {
            tracing::error!(%error, "a worker cannot serve");
        }
    })
}

/// Everything beside serving clients, for as long as the process lives.
fn control(
    app: Arc<App>,
    admin: TcpListener,
    (mut hangups, mut upgrades): (Signal, Signal),
) -> anyhow::Result<impl Future<Output = ()>> {
    let admin = tokio::net::TcpListener::from_std(admin)?;
    let on_hangup = {
        let app = Arc::clone(&app);
        async move {
            while hangups.recv().await.is_some() {
                // What came of it is logged and kept.
                let _ = reload::reload(&app);
            }
        }
    };
    let on_upgrade = {
        let app = Arc::clone(&app);
        async move {
            while upgrades.recv().await.is_some() {
                let app = Arc::clone(&app);
                // What came of it is logged.
                let _ = tokio::task::spawn_blocking(move || app.upgrade()).await;
            }
        }
    };
    Ok(async move {
        tokio::join!(
            admin::serve(Arc::clone(&app), admin),
            health::run(Arc::clone(&app)),
            engines::run(Arc::clone(&app)),
            memory::run(Arc::clone(&app)),
            drain::run(Arc::clone(&app)),
            watch::run(app),
            on_hangup,
            on_upgrade
        );
    })
}

/// The signals that are told to a process. They are heard from the start on: one that came before would end it.
struct Signals {
    hangups: Signal,
    upgrades: Signal,
    stops: Stops,
}

/// What tells it to stop.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen(runtime: &Runtime) -> io::Result<Self> {
        let _within = runtime.enter();
        let stops = Stops {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        let hangups = signal(SignalKind::hangup())?;
        Ok(Self { hangups, upgrades: signal(SignalKind::user_defined2())?, stops })
    }
}

impl Stops {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn leave(app: Arc<App>, workers: Vec<JoinHandle<()>>) {
    let config = app.snapshot.load().config.shutdown.clone();
    let mut done = tokio::task::spawn_blocking(move || {
        for worker in workers {
            if worker.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    });
    let grace_ms = if app.upgrade.is_done() {
        app.shut_down(Shutdown::HandedOver);
        app.upgrade.let_go();
        let _ = tokio::time::timeout(LAST_REQUESTS, &mut done).await;
        config.upgrade_grace_ms
    } else {
        notify("STOPPING=1");
        if config.delay_ms > 0 {
            tracing::info!(config.delay_ms, "stopping: not ready any more, and serving whoever comes still");
            app.shut_down(Shutdown::Leaving);
            tokio::time::sleep(Duration::from_millis(config.delay_ms)).await;
        }
        app.upgrade.let_go();
        config.grace_ms
    };
    tracing::info!(grace_ms, "stopping: requests under way finish first");
    drain_process(&app, Duration::from_millis(grace_ms), done).await;
}

async fn drain_process(app: &App, grace: Duration, mut done: Joined<()>) {
    if done.is_finished() {
        return;
    }
    app.shut_down(Shutdown::Draining);
    if tokio::time::timeout(grace, &mut done).await.is_err() {
        tracing::warn!("the grace is over; what still runs is ended with an error");
        app.shut_down(Shutdown::Now);
        let _ = tokio::time::timeout(LAST_WORDS, done).await;
    }
}
