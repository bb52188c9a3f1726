//! Standard error, written by a thread of its own: a reader that stops reading must not stop requests. Lines that find
//! no room are dropped, and how many is said as soon as something can be said again.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

/// Lines that may wait to be written.
const LINES_MAX: usize = 4096;
/// Time for the last lines at the end of the process.
const LAST_LINES: Duration = Duration::from_secs(1);

static SINK: OnceLock<SyncSender<Message>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Message {
    Line(Vec<u8>),
    Flush(Sender<()>),
}

/// A writer of log lines, each in one call. It never waits.
pub(super) struct Lines;

impl Lines {
    pub(super) fn new() -> Self {
        SINK.get_or_init(|| {
            let (sender, receiver) = sync_channel(LINES_MAX);
            // Without its thread nothing is logged; serving does not depend on that.
            let _ = std::thread::Builder::new()
                .name("log".into())
                .spawn(move || write(&receiver, io::stderr(), &DROPPED));
            sender
        });
        Self
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(sink) = SINK.get()
            && let Err(TrySendError::Full(_)) = sink.try_send(Message::Line(line.to_vec()))
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until what was logged is written, but not for long.
pub fn flush() {
    let (written, wait) = channel();
    if SINK.get().is_some_and(|sink| sink.try_send(Message::Flush(written)).is_ok()) {
        let _ = wait.recv_timeout(LAST_LINES);
    }
}

fn write(receiver: &Receiver<Message>, mut out: impl Write, dropped: &AtomicU64) {
    while let Ok(message) = receiver.recv() {
        match message {
            // Nobody is left to tell that this cannot be written.
            Message::Line(line) => drop(out.write_all(&line)),
            Message::Flush(written) => drop(written.send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(out, "{lost} lines of the log found no room and were dropped");
        }
    }
}
