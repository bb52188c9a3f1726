//! The results of a batch become files: one of answers, one of failures, each there only if it has a line.

use std::io::{BufWriter, Write};

use anyhow::Context;
use rusqlite::params;

use super::rows::{BatchRow, FileRow};
use super::{Batches, files};

/// Writes one of the two files of results and gives its row; `None` if there is nothing to write. Blocks.
///
/// # Errors
/// When the store cannot be read or the file not be written.
pub fn write(
    batches: &Batches,
    batch: &BatchRow,
    good: bool,
    id: &str,
    keep_s: i64,
) -> anyhow::Result<Option<FileRow>> {
    let path = batches.path_of(id);
    let db = batches.store.reader()?;
    let mut asked = db.prepare("SELECT text FROM results WHERE batch = ?1 AND good = ?2 ORDER BY number")?;
    let mut rows = asked.query(params![batch.seq, good])?;
    let mut out = None;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str()?;
        let out = match &mut out {
            Some(out) => out,
            None => out.insert(BufWriter::new(files::create(&path).context("cannot write results")?)),
        };
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        bytes += text.len() as i64 + 1;
    }
    let Some(out) = out else { return Ok(None) };
    files::put_in_place(&out.into_inner().context("cannot write results")?, &path)?;
    let now_s = batches.now_s();
    Ok(Some(FileRow {
        id: id.to_owned(),
        tenant: batch.tenant.clone(),
        filename: format!("{}_{}.jsonl", batch.id, if good { "output" } else { "error" }),
        purpose: "batch_output".to_owned(),
        bytes,
        created_at: now_s,
        expires_at: now_s + batch.output_keep_s.unwrap_or(keep_s),
    }))
}
