//! The results of a batch become files: one of answers, one of failures, each there only if it has a line.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use rusqlite::params;

use super::rows::{BatchRow, FileRow};
use super::{Batches, files};

/// Writes both files of results and gives their rows; `None` where there is nothing to write. Blocks.
///
/// # Errors
/// When the store cannot be read or a file not be written. Neither is then there.
pub fn write(
    batches: &Batches,
    batch: &BatchRow,
    ids: &[String; 2],
    keep_s: i64,
) -> anyhow::Result<(Option<FileRow>, Option<FileRow>)> {
    let output = write_one(batches, batch, true, &ids[0], keep_s)?;
    let error = write_one(batches, batch, false, &ids[1], keep_s).inspect_err(|_| {
        if let Some(output) = &output {
            files::remove(&batches.path_of(&output.id));
        }
    })?;
    Ok((output, error))
}

fn write_one(
    batches: &Batches,
    batch: &BatchRow,
    good: bool,
    id: &str,
    keep_s: i64,
) -> anyhow::Result<Option<FileRow>> {
    let path = batches.path_of(id);
    let bytes = copy(batches, batch, good, &path).inspect_err(|_| {
        // What there was no room for must not keep the disk full until it is tried again.
        files::remove(&path);
    })?;
    let now_s = batches.now_s();
    Ok(bytes.map(|bytes| FileRow {
        id: id.to_owned(),
        tenant: batch.tenant.clone(),
        filename: format!("{}_{}.jsonl", batch.id, if good { "output" } else { "error" }),
        purpose: "batch_output".to_owned(),
        bytes,
        created_at: now_s,
        expires_at: now_s + batch.output_keep_s.unwrap_or(keep_s),
    }))
}

/// Writes the lines of one kind and gives their bytes; `None` if there are none.
fn copy(batches: &Batches, batch: &BatchRow, good: bool, path: &Path) -> anyhow::Result<Option<i64>> {
    let db = batches.store.reader()?;
    let mut asked = db.prepare("SELECT text FROM results WHERE batch = ?1 AND good = ?2 ORDER BY number")?;
    let mut rows = asked.query(params![batch.seq, good])?;
    let mut out = None;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        let text = row.get_ref(0)?.as_str()?;
        let out = match &mut out {
            Some(out) => out,
            None => out.insert(BufWriter::new(files::create(path).context("cannot write results")?)),
        };
        out.write_all(text.as_bytes())?;
        out.write_all(b"\n")?;
        bytes += text.len() as i64 + 1;
    }
    let Some(out) = out else { return Ok(None) };
    files::put_in_place(&out.into_inner().context("cannot write results")?, path)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use pointsman_settings::Config;
    use pointsman_settings::batches::BatchesConfig;

    use super::*;

    #[tokio::test]
    async fn h2_results_that_cannot_be_written_whole_leave_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = BatchesConfig { directory: folder.path().to_owned(), ..BatchesConfig::default() };
        let config = Config { batches: Some(config), ..Config::default() };
        let batches = Batches::open(&config, 1).expect("it opens").expect("configured");
        let made = batches.store.call(|db| {
            db.execute_batch(
                "INSERT INTO batches (id, tenant, endpoint, input_file_id, status, created_at, expires_at)
                 VALUES ('b', 't', '/v1/embeddings', 'f', 'finalizing', 0, 9);
                 INSERT INTO results (batch, number, good, text) VALUES (1, 1, 1, 'well'), (1, 2, 0, 'ill');",
            )?;
            BatchRow::find(db, None, "b")
        });
        let batch = made.await.expect("made").expect("there");
        let ids = ["file-1", "file-2"].map(str::to_owned);
        // There is a folder where the second file belongs.
        std::fs::create_dir(batches.path_of(&ids[1])).expect("made");
        assert!(write(&batches, &batch, &ids, 60).is_err());
        let left = || std::fs::read_dir(batches.folder()).expect("a folder").count();
        assert_eq!(left(), 1, "but the folder");
        std::fs::remove_dir(batches.path_of(&ids[1])).expect("empty");
        let (output, error) = write(&batches, &batch, &ids, 60).expect("written");
        assert_eq!((output.map(|file| file.bytes), error.map(|file| file.bytes)), (Some(5), Some(4)));
        assert_eq!(left(), 2);
    }
}
