//! Decision records on disk, a JSON object a line, written by a thread of its own. Traffic never waits for the disk,
//! nor does it need one: what cannot be written in time, or at all, is dropped and counted.
//!
//! Every write is of whole lines, so that two processes can append to one file while one hands over to the other, and
//! a process that is killed leaves at most its last line unfinished; whoever opens the file next begins a new one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use super::record::Record;

/// Bytes that are written at once; a line beyond it is begun, never cut.
const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Time between two attempts to open a file that could not be opened.
const REOPEN_EVERY: Duration = Duration::from_secs(1);

/// Time for the last records at the end of the process.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// Decision records on disk.
pub struct DecisionLog {
    sender: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
    trouble: Arc<Mutex<Option<String>>>,
}

enum Message {
    Record(Arc<Record>),
    Reopen,
    Close,
}

impl DecisionLog {
    /// Opens (or makes) the file, to which records are appended; `queue_max` may wait to be written. A file that
    /// cannot be opened is tried again while records come; `dropped` counts those that were lost.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn open(path: &Path, queue_max: usize, dropped: Counter) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(queue_max.max(1));
        let trouble = Arc::default();
        let mut writer = Writer::new(path.to_owned(), dropped, Arc::clone(&trouble));
        writer.open();
        let thread =
            std::thread::Builder::new().name("decision-log".into()).spawn(move || writer.run(&receiver))?;
        Ok(Self { sender, thread: Mutex::new(Some(thread)), trouble })
    }

    /// Hands a record over; false if it had to be dropped.
    pub fn push(&self, record: Arc<Record>) -> bool {
        self.sender.try_send(Message::Record(record)).is_ok()
    }

    /// Opens the file anew, after it was moved away.
    pub fn reopen(&self) {
        // A full queue means that the thread is busy or stuck; the next rotation tries again.
        let _ = self.sender.try_send(Message::Reopen);
    }

    /// Why nothing can be written now, if that is so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what waits, and ends the thread; a disk that does not answer is not waited for.
    pub fn close(&self) {
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        let (closed, wait) = channel();
        let sender = self.sender.clone();
        let closer = std::thread::Builder::new().spawn(move || {
            let _ = sender.send(Message::Close);
            let _ = thread.join();
            let _ = closed.send(());
        });
        if closer.is_err() || wait.recv_timeout(LAST_RECORDS).is_err() {
            tracing::warn!("the decision log cannot be written; its last records are lost");
        }
    }
}

struct Writer {
    path: PathBuf,
    file: Option<File>,
    tried: Instant,
    /// Whole lines that are not written yet, and how many.
    lines: Vec<u8>,
    count: u64,
    dropped: Counter,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Writer {
    fn new(path: PathBuf, dropped: Counter, trouble: Arc<Mutex<Option<String>>>) -> Self {
        Self { path, file: None, tried: Instant::now(), lines: Vec::new(), count: 0, dropped, trouble }
    }

    fn run(&mut self, receiver: &Receiver<Message>) {
        while let Ok(first) = receiver.recv() {
            let mut message = Some(first);
            while let Some(next) = message {
                match next {
                    Message::Record(record) => self.add(&record),
                    Message::Reopen => {
                        self.write();
                        self.open();
                    }
                    Message::Close => {
                        self.write();
                        return;
                    }
                }
                message = receiver.try_recv().ok();
            }
            // Whatever came together is written together, and nothing stays behind.
            self.write();
        }
    }

    fn add(&mut self, record: &Record) {
        // Into memory, which does not fail.
        let _ = writeln!(self.lines, "{}", record.to_json());
        self.count += 1;
        if self.lines.len() >= BATCH_BYTES_MAX {
            self.write();
        }
    }

    fn open(&mut self) {
        self.tried = Instant::now();
        let opened = append(&self.path);
        self.report(opened.as_ref().map(|_| ()));
        self.file = opened.ok();
    }

    fn write(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        if self.file.is_none() && self.tried.elapsed() >= REOPEN_EVERY {
            self.open();
        }
        if let Some(file) = &mut self.file {
            let wrote = file.write_all(&self.lines);
            if wrote.is_err() {
                self.dropped.inc_by(self.count);
                // What was written of it may end within a line: it is looked after when the file is opened next.
                self.file = None;
                self.tried = Instant::now();
            }
            self.report(wrote.as_ref().copied());
        } else {
            self.dropped.inc_by(self.count);
        }
        self.lines.clear();
        self.lines.shrink_to(BATCH_BYTES_MAX);
        self.count = 0;
    }

    /// Says once when writing begins to fail, and once when it works again.
    fn report(&self, result: Result<(), &io::Error>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.path.display();
        match result {
            Err(error) if trouble.is_none() => {
                tracing::error!(%path, %error, "cannot write the decision log; traffic goes on without it");
                *trouble = Some(format!("cannot write {path}: {error}"));
            }
            Ok(()) if trouble.take().is_some() => {
                tracing::info!(%path, "the decision log can be written again");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// Opens the file at its end, on a new line.
fn append(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut last = [0];
    // What is no plain file, such as a pipe, has no last byte.
    let has_last = file.seek(SeekFrom::End(-1)).is_ok() && file.read(&mut last).is_ok_and(|read| read == 1);
    if has_last && last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l7_an_unfinished_line_spoils_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        for (before, after) in [("", "x\n"), ("a\n", "a\nx\n"), ("a\n{\"b", "a\n{\"b\nx\n")] {
            std::fs::write(&path, before).expect("written");
            append(&path).expect("opened").write_all(b"x\n").expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), after);
        }
    }
}
