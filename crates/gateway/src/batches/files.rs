//! The files themselves: one on disk for each in the store, named by its id, readable by this process's user only.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::Batches;
use super::store::StoreError;

/// Bytes that are read at a time for a client.
const PIECE_BYTES: usize = 64 * 1024;
/// What a file is called until all of it is there.
const PART: &str = ".part";
/// Time after which a file that no batch or list knows is a leftover of a process that died. Longer than any upload.
const STRAY_AGE: Duration = Duration::from_hours(24);

/// Makes a file that nobody else may read; it is not there under its own name until it is [`put_in_place`].
///
/// # Errors
/// When it cannot be made.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part(path))
}

/// The file is whole: it gets its name, and all of it is safe on disk.
///
/// # Errors
/// When that fails.
pub fn put_in_place(file: &File, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    std::fs::rename(part(path), path)?;
    // The name is on disk when the folder is.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Takes a file from the disk, whole or not.
pub fn remove(path: &Path) {
    for path in [path.to_owned(), part(path)] {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(%error, file = %path.display(), "cannot delete a file; it will be tried again");
            }
        }
    }
}

fn part(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PART);
    name.into()
}

/// Reads a piece of a file, on a thread that may wait for the disk.
///
/// # Errors
/// When the file is not what it was.
pub async fn read_at(file: Arc<File>, start: u64, bytes: usize) -> io::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; bytes];
        file.read_exact_at(&mut piece, start)?;
        Ok(Bytes::from(piece))
    });
    read.await.map_err(io::Error::other)?
}

/// Takes files from the disk that the store does not know, such as those that were being written when a process died.
///
/// # Errors
/// When the store fails.
pub async fn remove_strays(batches: &Batches) -> Result<(), StoreError> {
    let folder = batches.folder();
    let old = tokio::task::spawn_blocking(move || strays(&folder, SystemTime::now())).await;
    let old = old.unwrap_or_default();
    if old.is_empty() {
        return Ok(());
    }
    let known: BTreeSet<String> = batches
        .store
        .call(|db| db.prepare("SELECT id FROM files")?.query_map([], |row| row.get(0))?.collect())
        .await?;
    let gone: Vec<_> =
        old.into_iter().filter(|id| !known.contains(id)).map(|id| batches.path_of(&id)).collect();
    let _ = tokio::task::spawn_blocking(move || gone.iter().for_each(|path| remove(path))).await;
    Ok(())
}

/// The ids of files that have lain there for long.
fn strays(folder: &Path, now: SystemTime) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let old = entries.filter(|entry| {
        let changed = entry.metadata().and_then(|found| found.modified());
        changed.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > STRAY_AGE))
    });
    let names = old.filter_map(|entry| entry.file_name().into_string().ok());
    names.map(|name| name.trim_end_matches(PART).to_owned()).collect()
}

/// A file on its way to a client.
pub struct FileBody {
    file: tokio::fs::File,
    left: u64,
    buffer: Box<[u8]>,
}

impl FileBody {
    /// All of a file that has so many bytes.
    pub fn new(file: tokio::fs::File, bytes: u64) -> Self {
        Self { file, left: bytes, buffer: vec![0; PIECE_BYTES].into() }
    }

    /// Bytes still to come.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// The next piece.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(self.buffer.len());
        let mut buffer = ReadBuf::new(&mut self.buffer[..room]);
        let read = ready!(Pin::new(&mut self.file).poll_read(cx, &mut buffer));
        let piece = Bytes::copy_from_slice(buffer.filled());
        Poll::Ready(Some(match read {
            Err(error) => Err(error),
            Ok(()) if piece.is_empty() => Err(io::Error::other("the file is shorter than it was")),
            Ok(()) => {
                self.left -= piece.len() as u64;
                Ok(piece)
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_file_is_there_whole_or_not_at_all_and_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file-1");
        let mut file = create(&path).expect("made");
        file.write_all(b"text").expect("written");
        assert!(!path.exists(), "not before it is whole");
        put_in_place(&file, &path).expect("put in place");
        assert_eq!(std::fs::read(&path).expect("there"), b"text");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        remove(&path);
        remove(&path);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn what_lay_there_for_a_day_and_nobody_knows_is_a_leftover() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(create(&folder.path().join("file-1")).expect("made"));
        let later = SystemTime::now() + STRAY_AGE + Duration::from_secs(1);
        assert_eq!(strays(folder.path(), SystemTime::now()), Vec::<String>::new());
        assert_eq!(strays(folder.path(), later), ["file-1"]);
    }
}
