//! The requests of a batch as they stand in the store. Everything is written by the process that holds the batch, and by
//! no other: each change says whose it is.

use rusqlite::{Connection, params};
use serde_json::json;

use super::rows::{BatchRow, FileRow, Status};

/// What has become of a line. The numbers stand in the store.
mod state {
    /// It has not been sent.
    pub(super) const WAITING: i64 = 0;
    /// It was sent where it may be sent again.
    pub(super) const SENT: i64 = 1;
    /// It was sent where it may have been billed.
    pub(super) const SENT_ONCE: i64 = 2;
    /// It has its result.
    pub(super) const DONE: i64 = 3;
}

/// A request of a batch.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its line in the input file, from 1.
    pub number: i64,
    /// Where it begins there.
    pub start: u64,
    /// Its bytes.
    pub bytes: usize,
    /// What its owner calls it.
    pub custom_id: String,
    /// The model it asks for.
    pub model: String,
}

/// Whose turn it is to change something.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The process.
    pub owner: String,
    /// The batch.
    pub batch: i64,
}

impl Claim {
    fn holds(&self, db: &Connection) -> rusqlite::Result<bool> {
        let sql = "SELECT count(*) FROM batches WHERE seq = ?1 AND owner = ?2";
        db.query_row(sql, params![self.batch, self.owner], |row| Ok(row.get::<_, i64>(0)? == 1))
    }
}

/// What a line used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of the prompt.
    pub input: i64,
    /// Those of them that were cached.
    pub cached: i64,
    /// Of the answer.
    pub output: i64,
}

/// The result of a line.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Whether it belongs to the output file rather than the error file.
    pub good: bool,
    /// The line of that file.
    pub text: String,
    /// What it used.
    pub tokens: Tokens,
}

/// Lines that have not been sent, after this one, in their order.
pub fn next(db: &Connection, batch: i64, after: i64, count: usize) -> rusqlite::Result<Vec<Line>> {
    let sql = "SELECT number, start, bytes, custom_id, model FROM lines
               WHERE batch = ?1 AND number > ?2 AND state = ?3 ORDER BY number LIMIT ?4";
    let mut asked = db.prepare(sql)?;
    let rows = asked.query_map(params![batch, after, state::WAITING, count as i64], |row| {
        Ok(Line {
            number: row.get(0)?,
            start: row.get::<_, i64>(1)?.cast_unsigned(),
            bytes: usize::try_from(row.get::<_, i64>(2)?).unwrap_or(0),
            custom_id: row.get(3)?,
            model: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// Notes before it happens that a line is sent; `false` if it must not be: the batch is another's, or is to stop and the
/// line not begun.
pub fn mark_sent(db: &Connection, claim: &Claim, number: i64, again: bool) -> rusqlite::Result<bool> {
    let to = if again { state::SENT } else { state::SENT_ONCE };
    let changed = db.execute(
        "UPDATE lines SET state = max(state, ?4) WHERE batch = ?1 AND number = ?2 AND state < ?5 AND EXISTS
         (SELECT 1 FROM batches WHERE seq = ?1 AND owner = ?3 AND (status = 'in_progress' OR state > ?6))",
        params![claim.batch, number, claim.owner, to, state::DONE, state::WAITING],
    )?;
    Ok(changed == 1)
}

/// A line was refused before anything was done for it, and is to be sent later.
pub fn take_back(db: &Connection, claim: &Claim, number: i64) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE lines SET state = ?4 WHERE batch = ?1 AND number = ?2 AND state < ?5 AND EXISTS
         (SELECT 1 FROM batches WHERE seq = ?1 AND owner = ?3)",
        params![claim.batch, number, claim.owner, state::WAITING, state::DONE],
    )?;
    Ok(())
}

/// Keeps the result of a line; `false` if the batch is another's by now, or it has one.
pub fn finish(db: &Connection, claim: &Claim, number: i64, finished: &Finished) -> rusqlite::Result<bool> {
    Ok(claim.holds(db)? && keep(db, claim.batch, number, finished)?)
}

fn keep(db: &Connection, batch: i64, number: i64, finished: &Finished) -> rusqlite::Result<bool> {
    let changed = db.execute(
        "UPDATE lines SET state = ?3 WHERE batch = ?1 AND number = ?2 AND state < ?3",
        params![batch, number, state::DONE],
    )?;
    if changed == 0 {
        return Ok(false);
    }
    let Finished { good, text, tokens } = finished;
    db.execute(
        "INSERT INTO results (batch, number, good, text) VALUES (?1, ?2, ?3, ?4)",
        params![batch, number, good, text],
    )?;
    db.execute(
        "UPDATE batches SET completed = completed + ?2, failed = failed + 1 - ?2, tokens_in = tokens_in + ?3,
         tokens_in_cached = tokens_in_cached + ?4, tokens_out = tokens_out + ?5 WHERE seq = ?1",
        params![batch, good, tokens.input, tokens.cached, tokens.output],
    )?;
    Ok(true)
}

/// The line of the error file for a request without an answer.
pub fn unanswered(id: &str, custom_id: &str, code: &str, message: &str) -> Finished {
    let text = json!({
        "id": id,
        "custom_id": custom_id,
        "response": null,
        "error": {"code": code, "message": message},
    });
    Finished { good: false, text: text.to_string(), tokens: Tokens::default() }
}

/// The id of a line's result.
pub fn result_id(batch_id: &str, number: i64) -> String {
    format!("batch_req_{}_{number}", batch_id.trim_start_matches("batch_"))
}

/// Gives every line of a batch that is in one of these states the same error; how many there were.
fn fail_all(
    db: &Connection,
    batch: &BatchRow,
    states: (i64, i64),
    code: &str,
    message: &str,
) -> rusqlite::Result<usize> {
    let sql = "SELECT number, custom_id FROM lines WHERE batch = ?1 AND state BETWEEN ?2 AND ?3";
    let mut asked = db.prepare(sql)?;
    let rows = asked.query_map(params![batch.seq, states.0, states.1], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    let lines = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    for (number, custom_id) in &lines {
        let error = unanswered(&result_id(&batch.id, *number), custom_id, code, message);
        keep(db, batch.seq, *number, &error)?;
    }
    Ok(lines.len())
}

/// Takes over what a process that is gone held: lines that it had sent are sent again only where that cannot be billed
/// twice.
fn adopt(db: &Connection, batch: &BatchRow) -> rusqlite::Result<usize> {
    let message = "the gateway stopped while this request was with its provider; it may have been processed and \
                   billed, so it was not sent again (`retry.unsure` of the model allows it)";
    let lost = fail_all(db, batch, (state::SENT_ONCE, state::SENT_ONCE), "request_interrupted", message)?;
    db.execute(
        "UPDATE lines SET state = ?2 WHERE batch = ?1 AND state = ?3",
        params![batch.seq, state::WAITING, state::SENT],
    )?;
    Ok(lost)
}

/// Renews what this process holds, takes what nobody holds any more, and gives what it is to carry out, by turns of the
/// tenants; with how many lines were lost with the processes before.
pub fn hold(
    db: &Connection,
    owner: &str,
    now_ms: i64,
    lease_ms: i64,
    batches_max: usize,
) -> rusqlite::Result<(Vec<BatchRow>, usize)> {
    // One of each tenant before a second of any: nobody waits for room until another's day is over.
    let sql = format!(
        "SELECT *, owner IS ?1 AS own, row_number() OVER (PARTITION BY tenant ORDER BY owner IS ?1 DESC, seq) AS turn
         FROM batches WHERE status IN {} AND (owner IS NULL OR owner = ?1 OR lease_until_ms < ?2)
         ORDER BY turn, own DESC, seq LIMIT ?3",
        Status::UNFINISHED
    );
    let mut asked = db.prepare(&sql)?;
    let rows = asked.query_map(params![owner, now_ms, batches_max as i64], |row| {
        Ok((BatchRow::read(row)?, row.get::<_, bool>("own")?))
    })?;
    let found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    // What had to make room stays this process's, which may have lines of it under way.
    renew(db, owner, now_ms, lease_ms)?;
    let mut lost = 0;
    let mut held = Vec::with_capacity(found.len());
    for (batch, own) in found {
        if !own {
            lost += adopt(db, &batch)?;
        }
        db.execute(
            "UPDATE batches SET owner = ?2, lease_until_ms = ?3 WHERE seq = ?1",
            params![batch.seq, owner, now_ms + lease_ms],
        )?;
        held.push(batch);
    }
    Ok((held, lost))
}

/// Goes on holding what this process holds, and takes nothing new.
pub fn renew(db: &Connection, owner: &str, now_ms: i64, lease_ms: i64) -> rusqlite::Result<usize> {
    db.execute("UPDATE batches SET lease_until_ms = ?2 WHERE owner = ?1", params![owner, now_ms + lease_ms])
}

/// The input of a batch cannot be read any more: no line of it can be sent.
pub fn lose_input(db: &Connection, claim: &Claim) -> rusqlite::Result<usize> {
    if !claim.holds(db)? {
        return Ok(0);
    }
    let batch = db.query_row("SELECT * FROM batches WHERE seq = ?1", [claim.batch], BatchRow::read)?;
    let rest = (state::WAITING, state::SENT_ONCE);
    fail_all(db, &batch, rest, "input_unreadable", "the input file could not be read any more")
}

/// Holds nothing any more: another process may take it at once.
pub fn let_go(db: &Connection, owner: &str) -> rusqlite::Result<usize> {
    db.execute("UPDATE batches SET owner = NULL, lease_until_ms = 0 WHERE owner = ?1", [owner])
}

/// A batch was found valid: its requests can begin. Nothing happens if it was cancelled meanwhile.
pub fn begin(db: &Connection, claim: &Claim, lines: &[Line], now_s: i64) -> rusqlite::Result<()> {
    let changed = db.execute(
        "UPDATE batches SET status = 'in_progress', in_progress_at = ?3, total = ?4
         WHERE seq = ?1 AND owner = ?2 AND status = 'validating'",
        params![claim.batch, claim.owner, now_s, lines.len() as i64],
    )?;
    if changed == 0 {
        return Ok(());
    }
    let mut add = db.prepare(
        "INSERT INTO lines (batch, number, start, bytes, custom_id, model) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    for line in lines {
        let (start, bytes) = (line.start.cast_signed(), line.bytes as i64);
        add.execute(params![claim.batch, line.number, start, bytes, line.custom_id, line.model])?;
    }
    Ok(())
}

/// A batch was refused for what stands in its input.
pub fn refuse(db: &Connection, claim: &Claim, errors: &str, now_s: i64) -> rusqlite::Result<()> {
    db.execute(
        "UPDATE batches SET status = 'failed', failed_at = ?3, ended_at = ?3, errors = ?4, owner = NULL
         WHERE seq = ?1 AND owner = ?2 AND status = 'validating'",
        params![claim.batch, claim.owner, now_s, errors],
    )?;
    Ok(())
}

/// How a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Every line has its result.
    Completed,
    /// Its window is over.
    Expired,
    /// Its owner wished so.
    Cancelled,
}

impl Ending {
    const fn status(self) -> Status {
        match self {
            Self::Completed => Status::Completed,
            Self::Expired => Status::Expired,
            Self::Cancelled => Status::Cancelled,
        }
    }
}

/// No line of a batch is begun any more: those without a result get an error that says why. `false` if the batch is
/// another's by now.
pub fn close(db: &Connection, claim: &Claim, ending: Ending, now_s: i64) -> rusqlite::Result<bool> {
    if !claim.holds(db)? {
        return Ok(false);
    }
    let batch = db.query_row("SELECT * FROM batches WHERE seq = ?1", [claim.batch], BatchRow::read)?;
    let rest = (state::WAITING, state::SENT_ONCE);
    match ending {
        Ending::Expired => {
            let message = "This request could not be executed before the completion window expired.";
            fail_all(db, &batch, rest, "batch_expired", message)?;
        }
        Ending::Cancelled => {
            let message = "The batch was cancelled before this request was executed.";
            fail_all(db, &batch, rest, "batch_cancelled", message)?;
        }
        Ending::Completed => {
            // What this process sent and could not follow to its end has no result yet.
            adopt(db, &batch)?;
            let sql = "SELECT count(*) FROM lines WHERE batch = ?1 AND state < ?2";
            let left: i64 = db.query_row(sql, params![batch.seq, state::DONE], |row| row.get(0))?;
            if left > 0 {
                return Ok(false);
            }
            // Unless it was cancelled this very moment.
            let changed = db.execute(
                "UPDATE batches SET status = 'finalizing', finalizing_at = coalesce(finalizing_at, ?2)
                 WHERE seq = ?1 AND status IN ('in_progress', 'finalizing')",
                params![claim.batch, now_s],
            )?;
            return Ok(changed == 1);
        }
    }
    Ok(true)
}

/// The results of a batch are written: it is over. `false` if the batch is another's by now; the files are then not its.
pub fn end(
    db: &Connection,
    claim: &Claim,
    ending: Ending,
    (output, error): (Option<&FileRow>, Option<&FileRow>),
    now_s: i64,
) -> rusqlite::Result<bool> {
    if !claim.holds(db)? {
        return Ok(false);
    }
    for file in output.into_iter().chain(error) {
        file.add(db)?;
    }
    let status = ending.status().name();
    db.execute(
        &format!(
            "UPDATE batches SET status = ?2, {status}_at = ?3, ended_at = ?3, output_file_id = ?4, error_file_id = ?5,
             owner = NULL WHERE seq = ?1"
        ),
        params![claim.batch, status, now_s, output.map(|file| &file.id), error.map(|file| &file.id)],
    )?;
    db.execute("DELETE FROM results WHERE batch = ?1", [claim.batch])?;
    db.execute("DELETE FROM lines WHERE batch = ?1", [claim.batch])?;
    give_room_back(db)?;
    Ok(true)
}

/// Gives the disk back what was deleted, some of it at a time.
fn give_room_back(db: &Connection) -> rusqlite::Result<()> {
    let mut vacuum = db.prepare("PRAGMA incremental_vacuum(4096)")?;
    // Each step frees a page.
    let mut pages = vacuum.query([])?;
    while pages.next()?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batches::store::Store;

    #[tokio::test]
    async fn a_tenant_with_many_batches_leaves_room_for_the_first_of_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("it opens");
        let add = |tenant: &'static str, id: &'static str| {
            store.call(move |db| {
                let sql = "INSERT INTO batches (id, tenant, endpoint, input_file_id, status, created_at, expires_at)
                           VALUES (?1, ?2, '/v1/embeddings', 'f', 'in_progress', 0, 9)";
                db.execute(sql, [id, tenant])
            })
        };
        let held = async |owner: &'static str, now_ms: i64| {
            let (held, _) = store.call(move |db| hold(db, owner, now_ms, 1_000, 3)).await.expect("held");
            held.into_iter().map(|batch| batch.id).collect::<Vec<_>>()
        };
        for id in ["a1", "a2", "a3", "a4"] {
            add("many", id).await.expect("added");
        }
        assert_eq!(held("me", 0).await, ["a1", "a2", "a3"]);
        add("small", "b1").await.expect("added");
        assert_eq!(held("me", 500).await, ["a1", "b1", "a2"], "there is room for three");
        assert_eq!(held("me", 600).await, ["a1", "b1", "a2"], "and they stay");
        assert_eq!(held("another", 1_400).await, ["a4"], "what made room is not another's");
    }
}
