//! What all threads share.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use pointsman_routing::issued::Issued;
use pointsman_settings::Config;
use pointsman_settings::overlay::Overlay;
use tokio::sync::{Notify, watch};

use crate::batches::Batches;
use crate::http::idempotency::Idempotency;
use crate::live::Live;
use crate::memory::Memory;
use crate::reload::Overrides;
use crate::snapshot::Snapshot;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::record::Record;
use crate::telemetry::ring::Ring;
use crate::upgrade::Upgrade;

/// What all threads share.
pub struct App {
    /// The configuration in force.
    pub snapshot: ArcSwap<Snapshot>,
    /// The fleet.
    pub live: Live,
    /// Idempotency keys, and the answers that are given again.
    pub idempotency: Idempotency,
    /// Which account issued what providers keep.
    issued: Mutex<Issued>,
    /// All counters.
    pub metrics: Metrics,
    /// The newest decision records.
    pub ring: Ring,
    /// Files and batches, where they are configured.
    pub batches: OnceLock<Arc<Batches>>,
    /// Why they cannot be reached in this process, if they could not be opened.
    pub batches_trouble: OnceLock<String>,
    /// Where decision records are written, if configured.
    pub decision_log: Option<DecisionLog>,
    /// Where the configuration comes from, and what became of the last reload.
    pub source: Mutex<Source>,
    /// Client connections that are open.
    pub connections: AtomicU64,
    /// How short the process is of memory.
    pub memory: Memory,
    /// Requests between their first decision and their settlement.
    pub requests: AtomicU64,
    /// Copies to shadows that are under way.
    pub mirrors: AtomicU64,
    /// Attempts under way, counted apart from the fleet's permits so that the self-audit can compare the two.
    pub attempts: AtomicU64,
    /// The sockets that are listened to, for the process after this one.
    pub upgrade: Upgrade,
    /// Counts the ends of drains: whoever is under way asks then whether it may go on.
    pub recalls: watch::Sender<u64>,
    /// Told when the configuration changed, and with it perhaps the end of a drain.
    pub installed: Notify,
    /// Client connections beyond which none are accepted, for want of descriptors.
    pub connections_room: u64,
    /// How far the shutdown has come.
    pub shutdown: watch::Sender<Shutdown>,
    draining: AtomicBool,
}

/// Where the configuration comes from, and what became of the last reload.
#[derive(Default)]
pub struct Source {
    /// The config file; `None` when the configuration was discovered.
    pub path: Option<PathBuf>,
    /// What the file held when it was last looked at.
    pub seen: Option<Vec<u8>>,
    /// What the command line says instead of the file.
    pub overrides: Overrides,
    /// The configuration as the file and the command line have it, without admin changes.
    pub base: Config,
    /// What was changed through the admin API.
    pub overlay: Overlay,
    /// Why the last reload was refused, if it was.
    pub last_error: Option<String>,
}

/// How far the shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Serving.
    No,
    /// Not ready any more, but serving: whoever sends clients here has to notice first.
    Leaving,
    /// Another process accepts; who is connected is served once more, and its connection closed.
    HandedOver,
    /// No new connections; requests under way finish.
    Draining,
    /// The grace period is over: streams are ended with an error event.
    Now,
}

impl App {
    /// The state of a process that serves `base` with `overlay` on top.
    pub fn new(
        source: Source,
        config: Config,
        decision_log: Option<DecisionLog>,
        metrics: Metrics,
    ) -> Arc<Self> {
        let live = Live::new(random_seed());
        let config = Arc::new(config);
        let ring = Ring::new(config.decisions.ring);
        metrics.configure(&config);
        let idempotency = Idempotency::new(config.idempotency.limits());
        let snapshot = Snapshot::build(1, &config, &mut live.lock().fleet, &metrics);
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            live,
            idempotency,
            issued: Mutex::default(),
            metrics,
            ring,
            batches: OnceLock::new(),
            batches_trouble: OnceLock::new(),
            decision_log,
            source: Mutex::new(source),
            connections: AtomicU64::new(0),
            memory: Memory::default(),
            requests: AtomicU64::new(0),
            mirrors: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            upgrade: Upgrade::default(),
            recalls: watch::Sender::new(0),
            installed: Notify::new(),
            connections_room: crate::descriptors::connections_room(),
            shutdown: watch::Sender::new(Shutdown::No),
            draining: AtomicBool::new(false),
        })
    }

    /// Which account issued what providers keep. Not to be held across the fleet's lock.
    pub fn issued(&self) -> MutexGuard<'_, Issued> {
        // Every change is whole before anything can panic.
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `config` in force. Requests under way keep what they started with.
    pub fn install(&self, config: Config) -> Arc<Snapshot> {
        let config = Arc::new(config);
        let installed = self.live.change(|fleet| {
            let generation = self.snapshot.load().generation + 1;
            self.metrics.configure(&config);
            self.idempotency.configure(config.idempotency.limits());
            let mut snapshot = Snapshot::build(generation, &config, fleet, &self.metrics);
            snapshot.inherit(&self.snapshot.load());
            let snapshot = Arc::new(snapshot);
            self.snapshot.store(Arc::clone(&snapshot));
            snapshot
        });
        self.installed.notify_one();
        installed
    }

    /// Starts the program anew and hands the sockets over. Blocks until the new process serves or failed to.
    ///
    /// # Errors
    /// When it does not come to serve; this process then goes on.
    pub fn upgrade(&self) -> anyhow::Result<u32> {
        let changes = self.source.lock().unwrap_or_else(PoisonError::into_inner).overlay.clone();
        self.upgrade.run(changes)
    }

    /// Keeps a record for whoever asks, writes it to the decision log if there is one, and its line to the gateway's.
    pub fn record(&self, record: Record) {
        log::request(&record);
        let record = Arc::new(record);
        if let Some(log) = &self.decision_log
            && !log.push(Arc::clone(&record))
        {
            self.metrics.dropped_records.inc();
        }
        self.ring.push(record);
    }

    /// Moves the shutdown on; it never goes back.
    pub fn shut_down(&self, stage: Shutdown) {
        self.draining.store(true, Ordering::Relaxed);
        self.shutdown.send_if_modified(|now| {
            let later = stage > *now;
            if later {
                *now = stage;
            }
            later
        });
    }

    /// A seed for a generator that must differ from every other.
    pub fn seed(&self) -> u64 {
        random_seed()
    }

    /// Whether the process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

fn random_seed() -> u64 {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    // Without randomness of the system the clock still tells two processes apart.
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        return crate::clock::unix_ms();
    }
    u64::from_ne_bytes(bytes)
}
