//! Carries batches out, on a thread of its own: requests of clients never wait for it.
//!
//! A batch belongs to the process whose name stands in its row, for as long as the lease there says; after that any other
//! may take it. From time to time this looks what there is ([`Runner::look`]), and after that, and whenever a line ends,
//! goes on with all of it ([`Runner::advance`]): looks at inputs, starts lines, closes what is done. What becomes of
//! lines and in which order they are started is kept by [`queue`](super::queue).

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use pointsman_settings::batches::BatchesConfig;
use pointsman_wire::openai::request::Operation;
use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, watch};
use tokio::task::{spawn_blocking, spawn_local};
use tokio::time::{Instant, sleep, timeout};

use super::check;
use super::files;
use super::line::{self, Job, Outcome};
use super::lines::{self, Claim, Ending, Finished, Line};
use super::queue::{Active, Queue};
use super::rows::{self, BatchRow, Status};
use super::store::StoreError;
use super::{Batches, results};
use crate::app::{App, Shutdown};
use crate::http::server::Worker;

/// Batches that one process carries out at a time; the others wait their turn.
const ACTIVE_MAX: usize = 256;
/// The longest between two looks at what there is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Time between two looks at what was kept long enough, by the batches' own clock.
const EXPIRE_EVERY_MS: i64 = 60_000;
/// Time between two looks for files that nobody knows.
const STRAYS_EVERY_MS: i64 = 60 * 60_000;
/// Rest after something failed that should not.
const REST: Duration = Duration::from_secs(1);
/// Lines that are taken from the store at a time.
const FETCHED_MAX: usize = 256;

/// Starts the thread.
///
/// # Errors
/// When the system gives none.
pub fn start(app: Arc<App>, batches: Arc<Batches>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("batches".into()).spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "no batch can be carried out");
                return;
            }
        };
        runtime.block_on(async {
            let worker = Worker::beside(app);
            let runner = Rc::new(Runner {
                worker: Rc::clone(&worker),
                batches,
                queue: RefCell::default(),
                wake: Notify::new(),
            });
            tokio::select! {
                () = worker.follow() => {}
                () = runner.run() => {}
            }
        });
        // A look at a long input is not waited for; it is done anew.
        runtime.shutdown_background();
    })
}

struct Runner {
    worker: Rc<Worker>,
    batches: Arc<Batches>,
    queue: RefCell<Queue>,
    /// Told when a line or a step ended.
    wake: Notify,
}

impl Runner {
    async fn run(self: &Rc<Self>) {
        let mut shutdown = self.worker.app.shutdown.subscribe();
        let (mut next_look, mut expired_ms, mut strays_ms) = (Instant::now(), i64::MIN / 2, i64::MIN / 2);
        while *shutdown.borrow_and_update() < Shutdown::HandedOver {
            if Instant::now() >= next_look {
                if let Err(error) = self.look().await {
                    tracing::error!(%error, "cannot look at batches; trying again");
                    self.batches.note_trouble(&error);
                }
                next_look = Instant::now() + self.look_every();
                let now_ms = self.batches.now_ms();
                if now_ms - expired_ms > EXPIRE_EVERY_MS {
                    self.expire(now_ms - strays_ms > STRAYS_EVERY_MS).await;
                    strays_ms = if now_ms - strays_ms > STRAYS_EVERY_MS { now_ms } else { strays_ms };
                    expired_ms = now_ms;
                }
            }
            if let Err(error) = self.advance().await {
                tracing::error!(%error, "cannot go on with batches; trying again");
            }
            let wait = self.queue.borrow().until_next(self.batches.now_ms());
            tokio::select! {
                () = self.wake.notified() => {}
                () = self.batches.changed.notified() => next_look = Instant::now(),
                _ = shutdown.changed() => {}
                () = sleep(next_look.saturating_duration_since(Instant::now()).min(wait)) => {}
            }
        }
        self.leave().await;
    }

    fn config(&self) -> BatchesConfig {
        self.worker.app.snapshot.load().config.batches.clone().unwrap_or_default()
    }

    fn look_every(&self) -> Duration {
        LOOK_EVERY.min(Duration::from_millis(self.config().lease_ms / 4))
    }

    fn claim(&self, batch: i64) -> Claim {
        Claim { owner: self.batches.owner().to_owned(), batch }
    }

    /// Renews what is held, takes what is free, and learns what clients changed.
    async fn look(&self) -> Result<(), StoreError> {
        let (owner, now_ms) = (self.batches.owner().to_owned(), self.batches.now_ms());
        let lease_ms = self.config().lease_ms.cast_signed();
        let held = self.batches.store.call(move |db| lines::hold(db, &owner, now_ms, lease_ms, ACTIVE_MAX));
        let (held, lost) = held.await?;
        if lost > 0 {
            tracing::warn!(
                lines = lost,
                "a process ended while lines of batches were with paid providers; they are not sent again"
            );
            self.worker.app.metrics.batch_lines("interrupted", lost as u64);
        }
        let under_way = {
            let mut queue = self.queue.borrow_mut();
            queue.take_in(held);
            queue.under_way()
        };
        self.batches.look(under_way).await
    }

    /// Goes on with everything that can go on.
    async fn advance(self: &Rc<Self>) -> Result<(), StoreError> {
        let now_s = self.batches.now_s();
        let seqs: Vec<i64> = self.queue.borrow().active.keys().copied().collect();
        for seq in seqs {
            self.go_on(seq, now_s).await;
        }
        loop {
            let most = self.config().concurrency_max;
            let hungry = self.queue.borrow().hungry(most);
            for seq in &hungry {
                self.fetch(*seq).await?;
            }
            let now_ms = self.batches.now_ms();
            while let Some((seq, job, line)) = {
                let mut queue = self.queue.borrow_mut();
                if queue.under_way() < most { queue.next(now_ms) } else { None }
            } {
                spawn_local(Rc::clone(self).carry(seq, job, line));
            }
            if hungry.is_empty() {
                return Ok(());
            }
        }
    }

    /// Begins the next step of a batch, if it is time for it.
    async fn go_on(self: &Rc<Self>, seq: i64, now_s: i64) {
        let step = {
            let mut queue = self.queue.borrow_mut();
            let inputs_looked_at =
                queue.active.values().any(|one| one.busy && one.row.status == Status::Validating);
            let Some(active) = queue.active.get_mut(&seq).filter(|active| !active.busy) else { return };
            let ending = match active.row.status {
                Status::Validating if inputs_looked_at => return,
                Status::Validating => None,
                Status::InProgress if now_s >= active.row.expires_at => Some(Ending::Expired),
                Status::InProgress => {
                    let done = active.is_done();
                    if !done && active.job.is_some() {
                        return;
                    }
                    done.then_some(Ending::Completed)
                }
                Status::Finalizing => Some(Ending::Completed),
                Status::Cancelling => Some(Ending::Cancelled),
                Status::Failed | Status::Completed | Status::Expired | Status::Cancelled => {
                    queue.active.remove(&seq);
                    return;
                }
            };
            if ending.is_some_and(|ending| ending != Ending::Completed) {
                active.stop();
            }
            if ending.is_some() && active.under_way > 0 {
                return;
            }
            active.busy = true;
            (active.row.clone(), ending)
        };
        let runner = Rc::clone(self);
        match step {
            (row, Some(ending)) => drop(spawn_local(async move { runner.close(&row, ending).await })),
            (row, None) if row.status == Status::Validating => {
                drop(spawn_local(async move { runner.validate(&row).await }));
            }
            (row, None) => self.open(&row).await,
        }
    }

    /// Looks at the whole input of a batch.
    async fn validate(&self, row: &BatchRow) {
        let snapshot = self.worker.app.snapshot.load_full();
        let client = snapshot.keys.client(row.key.as_deref(), &row.tenant).cloned();
        let path = self.batches.path_of(&row.input_file_id);
        let checked = match (client, Operation::of_text_path(&row.endpoint)) {
            (Some(client), Some(operation)) => {
                let look = spawn_blocking(move || {
                    let file = File::open(path).map_err(|_| check::unreadable())?;
                    check::check(&file, operation, &snapshot, &client)
                });
                look.await.unwrap_or_else(|_| Err(check::unreadable()))
            }
            (None, _) | (_, None) => Err(check::key_gone()),
        };
        let (claim, now_s) = (self.claim(row.seq), self.batches.now_s());
        let kept = self.batches.store.call(move |db| match checked {
            Ok(found) => lines::begin(db, &claim, &found, now_s),
            Err(found) => lines::refuse(db, &claim, &check::errors(&found).to_string(), now_s),
        });
        self.end_step(row.seq, kept.await.map_err(Into::into)).await;
    }

    /// Opens the input of a batch whose lines are to be sent.
    async fn open(&self, row: &BatchRow) {
        let path = self.batches.path_of(&row.input_file_id);
        let input = spawn_blocking(move || File::open(path)).await.map_err(io::Error::other).flatten();
        let claim = self.claim(row.seq);
        match (input, Operation::of_text_path(&row.endpoint)) {
            (Ok(input), Some(operation)) => {
                let job = Job {
                    batches: Arc::clone(&self.batches),
                    claim,
                    id: row.id.as_str().into(),
                    tenant: row.tenant.clone(),
                    key: row.key.clone(),
                    operation,
                    input: Arc::new(input),
                    stop: watch::Sender::new(false),
                };
                if let Some(active) = self.queue.borrow_mut().active.get_mut(&row.seq) {
                    (active.job, active.busy) = (Some(Rc::new(job)), false);
                }
            }
            (input, _) => {
                tracing::error!(batch = row.id, error = ?input.err(), "the input of a batch cannot be read; its lines fail");
                let lost = self.batches.store.call(move |db| lines::lose_input(db, &claim)).await;
                self.end_step(row.seq, lost.map(drop).map_err(Into::into)).await;
            }
        }
    }

    /// Takes the next lines of a batch from the store.
    async fn fetch(&self, seq: i64) -> Result<(), StoreError> {
        let Some(after) = self.queue.borrow().active.get(&seq).map(|active| active.cursor) else {
            return Ok(());
        };
        let found = self.batches.store.call(move |db| lines::next(db, seq, after, FETCHED_MAX)).await?;
        if let Some(active) = self.queue.borrow_mut().active.get_mut(&seq) {
            active.add(found, FETCHED_MAX);
        }
        Ok(())
    }

    /// One line, to its end.
    async fn carry(self: Rc<Self>, seq: i64, job: Rc<Job>, line: Line) {
        let outcome = line::drive(&self.worker, &job, &line).await;
        let metrics = &self.worker.app.metrics;
        let now_ms = self.batches.now_ms();
        match &outcome {
            Outcome::Finished(finished) => {
                let kept = self.keep(&job, line.number, finished).await;
                if kept {
                    metrics.batch_lines(if finished.good { "done" } else { "failed" }, 1);
                }
                self.queue.borrow_mut().served(&line.model);
            }
            Outcome::Refused(after) => {
                metrics.batch_lines("retried", 1);
                self.queue.borrow_mut().refused(seq, line, *after, now_ms);
            }
            Outcome::Unsent if !*job.stop.borrow() => {
                // It could not be written down that it is sent, so it was not.
                self.queue.borrow_mut().refused(seq, line, REST, now_ms);
            }
            Outcome::Unsent | Outcome::Interrupted => self.queue.borrow_mut().served(&line.model),
        }
        self.queue.borrow_mut().ended(seq);
        self.wake.notify_one();
    }

    /// Keeps a result, for it may have been paid for: tries until it is kept, or the process ends.
    async fn keep(&self, job: &Job, number: i64, finished: &Finished) -> bool {
        loop {
            let (claim, finished) = (job.claim.clone(), finished.clone());
            match self.batches.store.call(move |db| lines::finish(db, &claim, number, &finished)).await {
                Ok(kept) => return kept,
                Err(error) => {
                    tracing::error!(batch = &*job.id, line = number, %error, "cannot keep a result; trying again");
                }
            }
            if self.worker.stage.get() == Shutdown::Now {
                return false;
            }
            sleep(REST).await;
        }
    }

    /// Writes the results of a batch of which no line is under way.
    async fn close(&self, row: &BatchRow, ending: Ending) {
        let closed = self.try_close(row, ending).await;
        self.end_step(row.seq, closed).await;
    }

    async fn try_close(&self, row: &BatchRow, ending: Ending) -> anyhow::Result<()> {
        let (claim, now_s) = (self.claim(row.seq), self.batches.now_s());
        let own = claim.clone();
        if !self.batches.store.call(move |db| lines::close(db, &own, ending, now_s)).await? {
            return Ok(());
        }
        let keep_s = self.config().keep_hours.cast_signed() * 3600;
        let ids = [self.worker.next_id(), self.worker.next_id()].map(|id| format!("file-{id}"));
        let (batches, row) = (Arc::clone(&self.batches), row.clone());
        let written = spawn_blocking(move || results::write(&batches, &row, &ids, keep_s));
        let (output, error) = written.await??;
        let paths: Vec<_> = output.iter().chain(&error).map(|file| self.batches.path_of(&file.id)).collect();
        let now_s = self.batches.now_s();
        let ended = self
            .batches
            .store
            .call(move |db| lines::end(db, &claim, ending, (output.as_ref(), error.as_ref()), now_s))
            .await;
        // Another process holds the batch by now and has files of its own, or nothing was kept and the next try has.
        if matches!(ended, Ok(false) | Err(StoreError::Failed(_))) {
            spawn_blocking(move || paths.iter().for_each(|path| files::remove(path))).await?;
        }
        ended?;
        self.batches.store.forget_soon();
        Ok(())
    }

    /// A step is over: the next look finds the batch as it is then.
    async fn end_step(&self, seq: i64, ended: anyhow::Result<()>) {
        if let Err(error) = ended {
            tracing::error!(%error, "a step of a batch failed; trying again");
            sleep(REST).await;
        }
        self.queue.borrow_mut().active.remove(&seq);
        self.batches.changed.notify_one();
        self.wake.notify_one();
    }

    /// Deletes what was kept long enough.
    async fn expire(&self, strays_too: bool) {
        let (now_s, keep_s) = (self.batches.now_s(), self.config().keep_hours.cast_signed() * 3600);
        let gone = match self.batches.store.call(move |db| rows::expire(db, now_s, keep_s)).await {
            Ok(gone) => gone,
            Err(error) => {
                tracing::error!(%error, "cannot delete old files; trying again");
                return;
            }
        };
        self.batches.store.forget_soon();
        let paths: Vec<_> = gone.iter().map(|id| self.batches.path_of(id)).collect();
        let _ = spawn_blocking(move || paths.iter().for_each(|path| files::remove(path))).await;
        if strays_too && let Err(error) = files::remove_strays(&self.batches).await {
            tracing::error!(%error, "cannot look for leftover files; trying again");
        }
    }

    /// The process stops, or another took over: what was not sent is left to the next, what was is followed to its end.
    async fn leave(&self) {
        self.queue.borrow_mut().active.values_mut().for_each(Active::stop);
        while self.queue.borrow().under_way() > 0 {
            let (owner, now_ms) = (self.batches.owner().to_owned(), self.batches.now_ms());
            let lease_ms = self.config().lease_ms.cast_signed();
            let renewed = self.batches.store.call(move |db| lines::renew(db, &owner, now_ms, lease_ms)).await;
            if let Err(error) = renewed {
                tracing::error!(%error, "cannot go on holding batches");
            }
            let _ = timeout(self.look_every(), self.wake.notified()).await;
        }
        let owner = self.batches.owner().to_owned();
        if let Err(error) = self.batches.store.call(move |db| lines::let_go(db, &owner)).await {
            tracing::error!(%error, "cannot let go of batches; another process takes them after their lease");
        }
    }
}
