//! Files and batches as they stand in the store, and how they are asked for. Everything is asked for by tenant: what
//! belongs to another is not there.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::Value;

/// Seconds in which a batch must be done: OpenAI knows no other window.
pub const WINDOW_S: i64 = 24 * 60 * 60;

/// How far a batch is, in OpenAI's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Its input file is looked at.
    Validating,
    /// Its input file was refused.
    Failed,
    /// Its requests are under way.
    InProgress,
    /// Its results are written.
    Finalizing,
    /// All of it is done.
    Completed,
    /// Its window was over first.
    Expired,
    /// It is being cancelled.
    Cancelling,
    /// It was cancelled.
    Cancelled,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::Validating,
        Self::Failed,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];
    /// Those of batches that are not over, as SQL.
    pub(super) const UNFINISHED: &str = "('validating', 'in_progress', 'finalizing', 'cancelling')";

    /// The name in answers, metrics and the store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether nothing more happens to a batch.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Failed | Self::Completed | Self::Expired | Self::Cancelled => true,
            Self::Validating | Self::InProgress | Self::Finalizing | Self::Cancelling => false,
        }
    }
}

/// A file.
#[derive(Debug, Clone)]
pub struct FileRow {
    /// Its id, which is also its name on disk.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What its owner calls it.
    pub filename: String,
    /// `batch` or `batch_output`.
    pub purpose: String,
    /// Its bytes.
    pub bytes: i64,
    /// When it was made, seconds since the Unix epoch.
    pub created_at: i64,
    /// When it goes.
    pub expires_at: i64,
}

const FILE: &str = "id, tenant, filename, purpose, bytes, created_at, expires_at";

impl FileRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get("id")?,
            tenant: row.get("tenant")?,
            filename: row.get("filename")?,
            purpose: row.get("purpose")?,
            bytes: row.get("bytes")?,
            created_at: row.get("created_at")?,
            expires_at: row.get("expires_at")?,
        })
    }

    /// Adds it.
    pub fn add(&self, db: &Connection) -> rusqlite::Result<()> {
        let sql = format!("INSERT INTO files ({FILE}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)");
        db.execute(
            &sql,
            params![
                self.id,
                self.tenant,
                self.filename,
                self.purpose,
                self.bytes,
                self.created_at,
                self.expires_at
            ],
        )?;
        Ok(())
    }

    /// The file of a tenant, unless its time is over.
    pub fn find(db: &Connection, tenant: &str, id: &str, now_s: i64) -> rusqlite::Result<Option<Self>> {
        let sql = format!("SELECT {FILE} FROM files WHERE id = ?1 AND tenant = ?2 AND expires_at > ?3");
        db.query_row(&sql, params![id, tenant, now_s], Self::read).optional()
    }
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// What comes after the one of this id.
    pub after: Option<String>,
    /// So many at most.
    pub limit: u32,
    /// The oldest first.
    pub ascending: bool,
    /// Of this purpose only.
    pub purpose: Option<String>,
}

/// A part of a list, and whether there is more. `None` if the one it should begin after is not there.
pub type Listed<T> = Option<(Vec<T>, bool)>;

/// The files of a tenant.
pub fn files(db: &Connection, tenant: &str, page: &Page, now_s: i64) -> rusqlite::Result<Listed<FileRow>> {
    let Some(after) = place(db, "files", tenant, page)? else { return Ok(None) };
    let (order, beyond) = if page.ascending { ("ASC", ">") } else { ("DESC", "<") };
    let sql = format!(
        "SELECT {FILE} FROM files WHERE tenant = ?1 AND seq {beyond} ?2 AND expires_at > ?3
         AND (?4 IS NULL OR purpose = ?4) ORDER BY seq {order} LIMIT ?5"
    );
    let mut asked = db.prepare(&sql)?;
    let limit = page.limit + 1;
    let rows = asked.query_map(params![tenant, after, now_s, page.purpose, limit], FileRow::read)?;
    Ok(Some(cut(rows.collect::<rusqlite::Result<Vec<_>>>()?, page.limit)))
}

/// Where a page begins: beyond this place. `None` if the one it should begin after is not there.
fn place(db: &Connection, table: &str, tenant: &str, page: &Page) -> rusqlite::Result<Option<i64>> {
    let Some(after) = &page.after else { return Ok(Some(if page.ascending { 0 } else { i64::MAX })) };
    let sql = format!("SELECT seq FROM {table} WHERE id = ?1 AND tenant = ?2");
    db.query_row(&sql, params![after, tenant], |row| row.get(0)).optional()
}

fn cut<T>(mut rows: Vec<T>, limit: u32) -> (Vec<T>, bool) {
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    (rows, more)
}

/// Files of a tenant and their bytes.
pub fn stored(db: &Connection, tenant: &str) -> rusqlite::Result<(u64, u64)> {
    db.query_row("SELECT count(*), coalesce(sum(bytes), 0) FROM files WHERE tenant = ?1", [tenant], |row| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
    })
}

/// What became of the wish to delete a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deletion {
    /// It is no more.
    Done,
    /// There is none.
    NotThere,
    /// This batch is not over, and reads it.
    InUse(String),
}

/// Deletes a tenant's file, unless a batch needs it.
pub fn delete_file(db: &Connection, tenant: &str, id: &str) -> rusqlite::Result<Deletion> {
    let sql = format!(
        "SELECT id FROM batches WHERE tenant = ?1 AND input_file_id = ?2 AND status IN {}",
        Status::UNFINISHED
    );
    let user: Option<String> = db.query_row(&sql, [tenant, id], |row| row.get(0)).optional()?;
    if let Some(user) = user {
        return Ok(Deletion::InUse(user));
    }
    let gone = db.execute("DELETE FROM files WHERE id = ?1 AND tenant = ?2", [id, tenant])?;
    Ok(if gone == 0 { Deletion::NotThere } else { Deletion::Done })
}

/// A batch.
#[derive(Debug, Clone)]
pub struct BatchRow {
    /// Its place among all, by age.
    pub seq: i64,
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The name of the key that made it.
    pub key: Option<String>,
    /// The path of its requests.
    pub endpoint: String,
    /// Where its requests stand.
    pub input_file_id: String,
    /// What its owner noted.
    pub metadata: Option<Value>,
    /// How far it is.
    pub status: Status,
    /// What was wrong with its input file.
    pub errors: Option<Value>,
    /// Where its answers stand.
    pub output_file_id: Option<String>,
    /// Where its failures stand.
    pub error_file_id: Option<String>,
    /// How long its results are kept, where its owner said.
    pub output_keep_s: Option<i64>,
    /// Made, seconds since the Unix epoch, as are all that follow.
    pub created_at: i64,
    /// Found valid.
    pub in_progress_at: Option<i64>,
    /// The end of its window.
    pub expires_at: i64,
    /// All requests done.
    pub finalizing_at: Option<i64>,
    /// Results written.
    pub completed_at: Option<i64>,
    /// Refused.
    pub failed_at: Option<i64>,
    /// Expired.
    pub expired_at: Option<i64>,
    /// Told to stop.
    pub cancelling_at: Option<i64>,
    /// Stopped.
    pub cancelled_at: Option<i64>,
    /// Requests.
    pub total: i64,
    /// Those answered well.
    pub completed: i64,
    /// Those that were not.
    pub failed: i64,
    /// Prompt tokens, those of them that were cached, and output tokens.
    pub tokens: (i64, i64, i64),
}

impl BatchRow {
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let status: String = row.get("status")?;
        let json = |text: Option<String>| text.and_then(|text| serde_json::from_str(&text).ok());
        Ok(Self {
            seq: row.get("seq")?,
            id: row.get("id")?,
            tenant: row.get("tenant")?,
            key: row.get("key")?,
            endpoint: row.get("endpoint")?,
            input_file_id: row.get("input_file_id")?,
            metadata: json(row.get("metadata")?),
            status: Status::of(&status).unwrap_or(Status::Failed),
            errors: json(row.get("errors")?),
            output_file_id: row.get("output_file_id")?,
            error_file_id: row.get("error_file_id")?,
            output_keep_s: row.get("output_keep_s")?,
            created_at: row.get("created_at")?,
            in_progress_at: row.get("in_progress_at")?,
            expires_at: row.get("expires_at")?,
            finalizing_at: row.get("finalizing_at")?,
            completed_at: row.get("completed_at")?,
            failed_at: row.get("failed_at")?,
            expired_at: row.get("expired_at")?,
            cancelling_at: row.get("cancelling_at")?,
            cancelled_at: row.get("cancelled_at")?,
            total: row.get("total")?,
            completed: row.get("completed")?,
            failed: row.get("failed")?,
            tokens: (row.get("tokens_in")?, row.get("tokens_in_cached")?, row.get("tokens_out")?),
        })
    }

    /// The batch of a tenant; `None` for the tenant: of any.
    pub fn find(db: &Connection, tenant: Option<&str>, id: &str) -> rusqlite::Result<Option<Self>> {
        let sql = "SELECT * FROM batches WHERE id = ?1 AND (?2 IS NULL OR tenant = ?2)";
        db.query_row(sql, params![id, tenant], Self::read).optional()
    }
}

/// A batch as it is asked for.
#[derive(Debug, Clone)]
pub struct NewBatch {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// The name of the key that makes it.
    pub key: Option<String>,
    /// The path of its requests.
    pub endpoint: String,
    /// Where its requests stand.
    pub input_file_id: String,
    /// What its owner notes.
    pub metadata: Option<Value>,
    /// How long its results are kept, if its owner says.
    pub output_keep_s: Option<i64>,
}

/// What became of the wish for a new batch.
#[derive(Debug)]
pub enum Creation {
    /// It is there.
    Done(Box<BatchRow>),
    /// There is no such input file.
    NoFile,
    /// The file is there, but is no input of batches: this is its purpose.
    OtherPurpose(String),
    /// The tenant has so many unfinished ones.
    TooMany(i64),
}

/// Adds a batch, whose input is looked at afterwards.
pub fn create(
    db: &Connection,
    new: &NewBatch,
    unfinished_max: u32,
    now_s: i64,
) -> rusqlite::Result<Creation> {
    let Some(file) = FileRow::find(db, &new.tenant, &new.input_file_id, now_s)? else {
        return Ok(Creation::NoFile);
    };
    if file.purpose != "batch" {
        return Ok(Creation::OtherPurpose(file.purpose));
    }
    let sql = format!("SELECT count(*) FROM batches WHERE tenant = ?1 AND status IN {}", Status::UNFINISHED);
    let unfinished: i64 = db.query_row(&sql, [&new.tenant], |row| row.get(0))?;
    if unfinished >= i64::from(unfinished_max) {
        return Ok(Creation::TooMany(unfinished));
    }
    db.execute(
        "INSERT INTO batches (id, tenant, key, endpoint, input_file_id, metadata, status, output_keep_s, created_at,
         expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'validating', ?7, ?8, ?9)",
        params![
            new.id,
            new.tenant,
            new.key,
            new.endpoint,
            new.input_file_id,
            new.metadata.as_ref().map(Value::to_string),
            new.output_keep_s,
            now_s,
            now_s + WINDOW_S,
        ],
    )?;
    let made = BatchRow::find(db, Some(&new.tenant), &new.id)?;
    Ok(made.map_or(Creation::NoFile, |made| Creation::Done(Box::new(made))))
}

/// The batches of a tenant, the newest first; `None` for the tenant: of all.
pub fn batches(db: &Connection, tenant: Option<&str>, page: &Page) -> rusqlite::Result<Listed<BatchRow>> {
    let after = match (tenant, &page.after) {
        (Some(tenant), _) => place(db, "batches", tenant, page)?,
        (None, None) => Some(i64::MAX),
        (None, Some(after)) => BatchRow::find(db, None, after)?.map(|batch| batch.seq),
    };
    let Some(after) = after else { return Ok(None) };
    let sql =
        "SELECT * FROM batches WHERE (?1 IS NULL OR tenant = ?1) AND seq < ?2 ORDER BY seq DESC LIMIT ?3";
    let mut asked = db.prepare(sql)?;
    let rows = asked.query_map(params![tenant, after, page.limit + 1], BatchRow::read)?;
    Ok(Some(cut(rows.collect::<rusqlite::Result<Vec<_>>>()?, page.limit)))
}

/// Tells a batch to stop, unless it is over or being finished. Gives the batch as it is then.
pub fn cancel(
    db: &Connection,
    tenant: Option<&str>,
    id: &str,
    now_s: i64,
) -> rusqlite::Result<Option<BatchRow>> {
    db.execute(
        "UPDATE batches SET status = 'cancelling', cancelling_at = ?3
         WHERE id = ?1 AND (?2 IS NULL OR tenant = ?2) AND status IN ('validating', 'in_progress')",
        params![id, tenant, now_s],
    )?;
    BatchRow::find(db, tenant, id)
}

/// How many batches have each status, and when the oldest was made that is not over.
pub type Counted = (Vec<(Status, i64)>, Option<i64>);

/// How many batches have each status, and when the oldest was made that is not over.
pub fn overview(db: &Connection) -> rusqlite::Result<Counted> {
    let mut asked = db.prepare("SELECT status, count(*) FROM batches GROUP BY status")?;
    let rows = asked.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    let counts = rows.collect::<rusqlite::Result<Vec<(String, i64)>>>()?;
    let counts = counts.into_iter().filter_map(|(name, count)| Some((Status::of(&name)?, count))).collect();
    let sql = format!("SELECT min(created_at) FROM batches WHERE status IN {}", Status::UNFINISHED);
    Ok((counts, db.query_row(&sql, [], |row| row.get(0))?))
}

/// Forgets what was kept long enough: gives the files that are no more, to be taken from the disk.
pub fn expire(db: &Connection, now_s: i64, keep_s: i64) -> rusqlite::Result<Vec<String>> {
    let sql = format!(
        "DELETE FROM files WHERE expires_at <= ?1 AND id NOT IN
         (SELECT input_file_id FROM batches WHERE status IN {}) RETURNING id",
        Status::UNFINISHED
    );
    let mut asked = db.prepare(&sql)?;
    let gone = asked.query_map([now_s], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    db.execute("DELETE FROM batches WHERE ended_at <= ?1", [now_s - keep_s])?;
    Ok(gone)
}
