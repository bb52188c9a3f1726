//! The state of files and batches on disk: SQLite behind one thread of its own, so that no request's thread ever waits
//! for a disk.
//!
//! What is asked for while the thread writes is gathered and written together: one sync for many lines. The answer to
//! each comes after the sync, so what was answered is there after a crash.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the thread.
const JOBS_MAX: usize = 1024;
/// Questions that are answered with one sync, at most.
const GATHERED_MAX: usize = 256;
/// How long another process may hold the database.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// The form of the tables that this program knows.
const SCHEMA: i64 = 1;

const TABLES: &str = "
CREATE TABLE files (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX files_of_tenant ON files (tenant, seq);
CREATE TABLE batches (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    key TEXT,
    endpoint TEXT NOT NULL,
    input_file_id TEXT NOT NULL,
    metadata TEXT,
    status TEXT NOT NULL,
    errors TEXT,
    output_file_id TEXT,
    error_file_id TEXT,
    output_keep_s INTEGER,
    created_at INTEGER NOT NULL,
    in_progress_at INTEGER,
    expires_at INTEGER NOT NULL,
    finalizing_at INTEGER,
    completed_at INTEGER,
    failed_at INTEGER,
    expired_at INTEGER,
    cancelling_at INTEGER,
    cancelled_at INTEGER,
    ended_at INTEGER,
    total INTEGER NOT NULL DEFAULT 0,
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    tokens_in INTEGER NOT NULL DEFAULT 0,
    tokens_in_cached INTEGER NOT NULL DEFAULT 0,
    tokens_out INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    lease_until_ms INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX batches_of_tenant ON batches (tenant, seq);
CREATE INDEX batches_by_status ON batches (status, seq);
CREATE TABLE lines (
    batch INTEGER NOT NULL REFERENCES batches (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    start INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    custom_id TEXT NOT NULL,
    model TEXT NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (batch, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE results (
    batch INTEGER NOT NULL REFERENCES batches (seq) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    good INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (batch, number)
) STRICT;
";

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// It could not begin, or its thread is gone.
    #[error("the store of batches did not answer; the gateway's log says why")]
    NoAnswer,
    /// The database said so.
    #[error("the store of batches failed: {0}")]
    Failed(String),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Tells whoever asked, once it is known whether all was written.
type Reply = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
type Job = Box<dyn FnOnce(&Connection) -> Reply + Send>;

/// The way to the thread that has the database.
pub struct Store {
    jobs: mpsc::Sender<Job>,
    path: PathBuf,
    /// Something was deleted that the journal still has.
    forget: Arc<AtomicBool>,
}

impl Store {
    /// Opens or makes the database in `directory` and starts its thread.
    ///
    /// # Errors
    /// When the folder or the database cannot be used.
    pub fn open(directory: &Path) -> anyhow::Result<Self> {
        let folder =
            |path: &Path| {
                DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
                    format!("cannot make the folder {} (`batches.directory`)", path.display())
                })
            };
        folder(directory)?;
        folder(&directory.join("files"))?;
        let path = directory.join("batches.db");
        // Made beforehand, so that it and what SQLite puts beside it are nobody else's to read.
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match made {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot write {} (`batches.directory`)", path.display()));
            }
        }
        let db =
            prepare(&path).with_context(|| format!("cannot use {} (`batches.directory`)", path.display()))?;
        let (sender, receiver) = mpsc::channel(JOBS_MAX);
        let forget = Arc::<AtomicBool>::default();
        let forgets = Arc::clone(&forget);
        std::thread::Builder::new()
            .name("batch-store".into())
            .spawn(move || serve(&db, receiver, &forgets))?;
        Ok(Self { jobs: sender, path, forget })
    }

    /// Has `work` done within a transaction, and gives what came of it once it is safe on disk.
    ///
    /// # Errors
    /// When the database failed. Nothing of `work` was then kept.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move |db| {
            let result = apart(db, work);
            Box::new(move |written| {
                // Whoever asked may have left.
                let _ = sender.send(written.and(result.map_err(StoreError::from)));
            })
        });
        self.jobs.send(job).await.map_err(|_| StoreError::NoAnswer)?;
        receiver.await.map_err(|_| StoreError::NoAnswer)?
    }

    /// What was deleted so far goes from the journal too, as soon as nobody reads it.
    pub fn forget_soon(&self) {
        self.forget.store(true, Ordering::Relaxed);
    }

    /// A connection of its own that only reads, for what takes long.
    ///
    /// # Errors
    /// When the database cannot be opened.
    pub fn reader(&self) -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(BUSY_MAX)?;
        Ok(db)
    }
}

fn prepare(path: &Path) -> anyhow::Result<Connection> {
    let mut db = Connection::open(path)?;
    db.busy_timeout(BUSY_MAX)?;
    // What is deleted is overwritten, and its room given back.
    db.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         PRAGMA secure_delete = ON; PRAGMA foreign_keys = ON;",
    )?;
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let known: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match known {
        SCHEMA => {}
        0 => transaction.execute_batch(&format!("{TABLES} PRAGMA user_version = {SCHEMA};"))?,
        other => {
            bail!("it has form {other}, and this program knows form {SCHEMA}; use the program that made it")
        }
    }
    transaction.commit()?;
    Ok(db)
}

/// Does the work so that nothing of it is kept if it fails, whatever becomes of the others.
fn apart<T>(db: &Connection, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    db.execute_batch("SAVEPOINT job")?;
    let result = work(db);
    let back = if result.is_err() { "ROLLBACK TO job; RELEASE job" } else { "RELEASE job" };
    db.execute_batch(back)?;
    result
}

fn serve(db: &Connection, mut jobs: mpsc::Receiver<Job>, forget: &AtomicBool) {
    while let Some(first) = jobs.blocking_recv() {
        let mut replies = Vec::new();
        let written = together(db, first, &mut jobs, &mut replies);
        if let Err(error) = &written {
            tracing::error!(%error, "cannot write the state of batches");
        }
        for reply in replies {
            reply(written.clone().map_err(StoreError::Failed));
        }
        if forget.swap(false, Ordering::Relaxed) && !empty_journal(db) {
            forget.store(true, Ordering::Relaxed);
        }
    }
}

/// Does the first and whatever else waits already, and writes all of it at once.
fn together(
    db: &Connection,
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
    replies: &mut Vec<Reply>,
) -> Result<(), String> {
    db.execute_batch("BEGIN IMMEDIATE").map_err(|error| error.to_string())?;
    replies.push(first(db));
    while replies.len() < GATHERED_MAX
        && let Ok(job) = jobs.try_recv()
    {
        replies.push(job(db));
    }
    db.execute_batch("COMMIT").map_err(|error| {
        let _ = db.execute_batch("ROLLBACK");
        error.to_string()
    })
}

/// Writes the journal into the database and empties it; `false` if somebody reads it, who is not waited for.
fn empty_journal(db: &Connection) -> bool {
    let busy = db
        .busy_timeout(Duration::ZERO)
        .and_then(|()| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0)));
    db.busy_timeout(BUSY_MAX).is_ok() && busy == Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(db: &Connection) -> rusqlite::Result<i64> {
        db.query_row("SELECT count(*) FROM files", [], |row| row.get(0))
    }

    fn add(db: &Connection, id: &str) -> rusqlite::Result<usize> {
        db.execute(
            "INSERT INTO files (id, tenant, filename, purpose, bytes, created_at, expires_at)
             VALUES (?1, 't', 'f', 'batch', 1, 0, 0)",
            [id],
        )
    }

    #[tokio::test]
    async fn one_that_fails_takes_nothing_of_the_others_along() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("it opens");
        store.call(|db| add(db, "a")).await.expect("written");
        let twice = store.call(|db| add(db, "b").and_then(|_| add(db, "a"))).await;
        assert!(matches!(twice, Err(StoreError::Failed(_))), "{twice:?}");
        assert_eq!(store.call(count).await.expect("read"), 1, "nothing of what failed is kept");
        let reader = store.reader().expect("a reader");
        assert_eq!(count(&reader).expect("read"), 1);
        assert!(add(&reader, "c").is_err(), "a reader writes nothing");
    }

    #[tokio::test]
    async fn what_was_answered_is_there_for_the_next_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = Store::open(folder.path()).expect("it opens");
        first.call(|db| add(db, "a")).await.expect("written");
        let second = Store::open(folder.path()).expect("two processes may have it");
        assert_eq!(second.call(count).await.expect("read"), 1);
        first.call(|db| add(db, "b")).await.expect("written");
        assert_eq!(second.call(count).await.expect("read"), 2);
    }

    #[test]
    fn its_folder_is_nobody_elses_and_a_later_form_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("deep/batches");
        drop(Store::open(&directory).expect("it opens"));
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&directory.join("files"))), (0o700, 0o700));
        assert_eq!(mode(&directory.join("batches.db")), 0o600);
        let db = Connection::open(directory.join("batches.db")).expect("opens");
        db.execute_batch("PRAGMA user_version = 7").expect("set");
        let error = Store::open(&directory).map(drop).expect_err("not known");
        assert!(format!("{error:#}").contains("form 7"), "{error:#}");
    }
}
