//! Decision records on disk, a JSON object a line, written by a thread of its own. Traffic never waits for the disk:
//! what cannot be written in time is dropped, and counted by whoever pushed it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::record::Record;

/// Decision records on disk.
pub struct DecisionLog {
    sender: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

enum Message {
    Record(Arc<Record>),
    Reopen,
    Close,
}

impl DecisionLog {
    /// Opens (or makes) the file, to which records are appended; `queue_max` may wait to be written.
    pub fn open(path: &Path, queue_max: usize) -> io::Result<Self> {
        let file = append(path)?;
        let (sender, receiver) = sync_channel(queue_max.max(1));
        let path = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("decision-log".into())
            .spawn(move || write(&path, file, &receiver))?;
        Ok(Self { sender, thread: Mutex::new(Some(thread)) })
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

    /// Writes what waits, and ends the thread.
    pub fn close(&self) {
        let _ = self.sender.send(Message::Close);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn write(path: &Path, file: File, receiver: &Receiver<Message>) {
    let mut out = BufWriter::new(file);
    let mut failing = false;
    while let Ok(first) = receiver.recv() {
        let mut message = Some(first);
        while let Some(next) = message {
            let result = match next {
                Message::Record(record) => writeln!(out, "{}", record.to_json()),
                Message::Reopen => append(path).map(|file| out = BufWriter::new(file)),
                Message::Close => {
                    let _ = out.flush();
                    return;
                }
            };
            report(&result, path, &mut failing);
            message = receiver.try_recv().ok();
        }
        // Whatever came together is written together, and nothing stays behind.
        report(&out.flush(), path, &mut failing);
    }
}

/// Says once when writing begins to fail, and once when it works again.
fn report(result: &io::Result<()>, path: &Path, failing: &mut bool) {
    match result {
        Err(error) if !*failing => {
            tracing::error!(path = %path.display(), %error, "cannot write the decision log; traffic goes on without it");
            *failing = true;
        }
        Ok(()) if *failing => {
            tracing::info!(path = %path.display(), "the decision log can be written again");
            *failing = false;
        }
        Ok(()) | Err(_) => {}
    }
}
