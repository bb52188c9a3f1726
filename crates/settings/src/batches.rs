//! Files and batches as OpenAI has them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{
    BATCH_LINES_MAX, BODY_BYTES_MAX, BODY_BYTES_MIN, COUNT_MAX, KEEP_HOURS_MAX, LEASE_MS_MAX, LEASE_MS_MIN,
    STORED_BYTES_MAX,
};

/// Files and batches as OpenAI has them, kept on disk. A batch runs in lane `batch` as the tenant and key that made it.
/// A line that was with a paid deployment when the process died is not sent again, for it may have been billed, unless
/// the model has `retry.unsure`; own engines (`free`) are simply asked again.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BatchesConfig {
    /// Required. Where files and their state are kept: a folder on a local disk that is this gateway's own. It is made
    /// if it is not there. A change holds from the next start.
    pub directory: PathBuf,
    /// Bytes of an uploaded file. Default: 209715200 (200 MiB).
    #[schemars(range(min = BODY_BYTES_MIN, max = BODY_BYTES_MAX))]
    pub file_bytes_max: u64,
    /// Requests of one batch. Default: 50000.
    #[schemars(range(min = 1, max = BATCH_LINES_MAX))]
    pub lines_max: u32,
    /// Requests of all batches that may be under way at a time, those that wait for a slot included. Default: 64.
    #[schemars(range(min = 1, max = 10_000))]
    pub concurrency_max: u32,
    /// Bytes of an answer that is kept; a line with a larger one fails. Default: 16777216 (16 MiB).
    #[schemars(range(min = BODY_BYTES_MIN, max = BODY_BYTES_MAX))]
    pub answer_bytes_max: u64,
    /// Batches of one tenant that may be unfinished. Default: 100.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub batches_max_per_tenant: u32,
    /// Files of one tenant, results included. Default: 1000.
    #[schemars(range(min = 1, max = COUNT_MAX))]
    pub files_max_per_tenant: u32,
    /// Bytes of the files of one tenant, beyond which nothing is uploaded. Default: 10737418240 (10 GiB).
    #[schemars(range(min = BODY_BYTES_MIN, max = STORED_BYTES_MAX))]
    pub bytes_max_per_tenant: u64,
    /// How long files are kept, results included, and batches after their end, hours. Default: 720 (30 days).
    #[schemars(range(min = 1, max = KEEP_HOURS_MAX))]
    pub keep_hours: u64,
    /// After how long without a word from the process that runs a batch another one takes it over, milliseconds.
    /// Default: 15000.
    #[schemars(range(min = LEASE_MS_MIN, max = LEASE_MS_MAX))]
    pub lease_ms: u64,
}

impl Default for BatchesConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::new(),
            file_bytes_max: 200 * 1024 * 1024,
            lines_max: 50_000,
            concurrency_max: 64,
            answer_bytes_max: 16 * 1024 * 1024,
            batches_max_per_tenant: 100,
            files_max_per_tenant: 1_000,
            bytes_max_per_tenant: 10 * 1024 * 1024 * 1024,
            keep_hours: 720,
            lease_ms: 15_000,
        }
    }
}
