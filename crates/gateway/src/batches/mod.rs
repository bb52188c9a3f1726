//! Files and batches as OpenAI has them: requests that may take a day, given as a file and answered with a file.
//!
//! What clients see is in [`api`] and [`objects`]; what is kept, in [`rows`] and [`lines`], by way of the [`store`]; the
//! files themselves lie beside the database ([`files`], [`upload`], [`results`]). [`run`] carries batches out on a
//! thread of its own: each line is a request like any other ([`line`]), in lane `batch`. [`check`] looks at a whole input
//! file before the first line is sent.
//!
//! A line has its result at most once. That it is sent is on disk before it is sent, and its result before it counts;
//! both are written only by the process that holds the batch.

pub mod api;
pub mod check;
pub mod files;
pub mod line;
pub mod lines;
pub mod objects;
pub mod params;
pub mod queue;
pub mod results;
pub mod rows;
pub mod run;
pub mod store;
pub mod upload;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use pointsman_settings::Config;
use tokio::sync::Notify;

use crate::clock;
use rows::Status;
use store::{Store, StoreError};

/// Files and batches, for all threads.
pub struct Batches {
    /// What is kept of them.
    pub store: Store,
    directory: PathBuf,
    /// The process, as the store knows it.
    owner: String,
    /// Told when there is something new to carry out or to stop.
    pub changed: Notify,
    /// Milliseconds by which this part's clock is ahead of the system's.
    ahead_ms: AtomicI64,
    seen: Mutex<Overview>,
    /// Uploads under way.
    uploads: AtomicU32,
}

/// Files that may be uploaded at a time, for what they take of the disk is known afterwards only.
const UPLOADS_MAX: u32 = 32;

/// An upload under way.
pub struct Uploading(Arc<Batches>);

impl Drop for Uploading {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many batches there are, as last seen.
#[derive(Debug, Clone, Default)]
pub struct Overview {
    /// By status.
    pub counts: Vec<(Status, i64)>,
    /// Age of the oldest that is not over, seconds.
    pub oldest_s: i64,
    /// Lines of this process that are under way.
    pub lines_under_way: u32,
    /// What is the matter with the store, if anything is.
    pub trouble: Option<String>,
}

impl Batches {
    /// Opens what the configuration says, if it says so. `seed` tells this process from every other.
    ///
    /// # Errors
    /// When the folder or the database cannot be used.
    pub fn open(config: &Config, seed: u64) -> anyhow::Result<Option<Arc<Self>>> {
        let Some(batches) = &config.batches else { return Ok(None) };
        let directory = batches.directory.clone();
        Ok(Some(Arc::new(Self {
            store: Store::open(&directory)?,
            directory,
            owner: format!("{}-{seed:016x}", std::process::id()),
            changed: Notify::new(),
            ahead_ms: AtomicI64::new(0),
            seen: Mutex::default(),
            uploads: AtomicU32::new(0),
        })))
    }

    /// The present moment as batches know it, milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> i64 {
        clock::unix_ms().cast_signed() + self.ahead_ms.load(Ordering::Relaxed)
    }

    /// The same in seconds, as OpenAI's objects have it.
    pub fn now_s(&self) -> i64 {
        self.now_ms() / 1000
    }

    /// Moves this part's clock on, so that a day can be over in a moment.
    pub fn skip_ms(&self, ms: i64) {
        self.ahead_ms.fetch_add(ms, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Where the file of that id lies.
    pub fn path_of(&self, id: &str) -> PathBuf {
        self.directory.join("files").join(id)
    }

    /// Where all of them lie.
    pub fn folder(&self) -> PathBuf {
        self.directory.join("files")
    }

    /// The folder that was opened.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process, as the store knows it.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// How many batches there are, as last seen.
    pub fn overview(&self) -> Overview {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something is the matter with the store; told until the next look succeeds.
    pub fn note_trouble(&self, trouble: &StoreError) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.trouble = Some(trouble.to_string());
    }

    /// Room for one more upload, until what is given is dropped; `None` if as many are under way as may be.
    pub fn begin_upload(self: &Arc<Self>) -> Option<Uploading> {
        let room = |count| (count < UPLOADS_MAX).then_some(count + 1);
        self.uploads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Uploading(Arc::clone(self)))
    }

    /// Looks how many batches there are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn look(&self, lines_under_way: u32) -> Result<(), StoreError> {
        let (counts, oldest) = self.store.call(rows::overview).await?;
        let oldest_s = oldest.map_or(0, |at| (self.now_s() - at).max(0));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Overview { counts, oldest_s, lines_under_way, trouble: None };
        Ok(())
    }
}
