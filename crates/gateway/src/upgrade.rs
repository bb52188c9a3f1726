//! An upgrade without a refused connection: this process starts the program anew, hands over the sockets that are
//! listened to, hears that they are served, and then drains itself.
//!
//! The sockets are never closed, so whoever connects meanwhile waits in their backlog at worst. They travel over a
//! connected pair of Unix sockets (`SCM_RIGHTS`), one end of which is the standard input of the new process: so no
//! number of a descriptor has to be believed, and nothing is left for a process that was not asked.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use pointsman_settings::overlay::Overlay;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// The variable by which a new process knows that sockets wait on its standard input: the id of its parent.
const FROM: &str = "POINTSMAN_UPGRADE_FROM";
/// Time for a new process until it serves.
const READY_MAX: Duration = Duration::from_secs(30);
/// Sockets that one message can carry.
const SOCKETS_MAX: usize = 4;
/// Bytes of the message that are read.
const MESSAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What a new process says when it serves.
const READY: &str = "ready";

/// What goes along with the sockets.
#[derive(Debug, Serialize, Deserialize)]
struct Message {
    /// What each socket is for, in their order: keys of the configuration.
    sockets: Vec<String>,
    /// Changes made through the admin API, which may be in no file.
    admin_changes: Overlay,
}

/// The sockets of this process, for the next.
#[derive(Default)]
pub struct Upgrade {
    sockets: Mutex<Vec<(&'static str, TcpListener)>>,
    busy: AtomicBool,
    done: AtomicBool,
    /// Told when the next process serves.
    pub handed_over: Notify,
}

impl Upgrade {
    /// Keeps a socket to be handed over under the key of the configuration it serves.
    pub fn keep(&self, key: &'static str, socket: TcpListener) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).push((key, socket));
    }

    /// Lets the sockets go: nobody is listened to any more, unless another process has them too.
    pub fn let_go(&self) {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether another process serves the sockets.
    pub fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Starts the program anew and waits until it serves. Blocks. Gives the id of the new process.
    ///
    /// # Errors
    /// When the new process does not come to serve; this one then goes on as before.
    pub fn run(&self, admin_changes: Overlay) -> anyhow::Result<u32> {
        if self.is_done() || self.busy.swap(true, Ordering::Relaxed) {
            bail!("an upgrade is under way already");
        }
        let result = self.hand_over(admin_changes);
        self.busy.store(false, Ordering::Relaxed);
        match &result {
            Ok(pid) => {
                tracing::info!(pid, "upgraded: the new process serves; this one finishes what is under way");
                notify(&format!("MAINPID={pid}"));
                self.done.store(true, Ordering::Relaxed);
                self.handed_over.notify_one();
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "the upgrade failed; this process goes on");
            }
        }
        result
    }

    /// Descriptors of their own, so that the lock is not held while the new process is waited for.
    fn sockets(&self) -> io::Result<Vec<(&'static str, TcpListener)>> {
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        sockets.iter().map(|(key, socket)| Ok((*key, socket.try_clone()?))).collect()
    }

    fn hand_over(&self, admin_changes: Overlay) -> anyhow::Result<u32> {
        let sockets = self.sockets()?;
        if sockets.is_empty() {
            bail!("this process is on its way out; start another");
        }
        let (ours, theirs) = UnixStream::pair()?;
        let child = start(theirs)?;
        let names = sockets.iter().map(|(key, _)| (*key).to_owned()).collect();
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
        let message = Message { sockets: names, admin_changes };
        // A process that ended at once is found out by what it does not answer.
        let _ = send(&ours, &message, &descriptors);
        await_ready(&ours, child)
    }
}

/// Starts this program again as it was called; whatever lies at its path now is what runs.
fn start(input: UnixStream) -> anyhow::Result<Child> {
    let mut args = std::env::args_os();
    let program = args.next().context("the name of the program is not known")?;
    Command::new(&program)
        .args(args)
        .env(FROM, std::process::id().to_string())
        .stdin(Stdio::from(OwnedFd::from(input)))
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

fn send(line: &UnixStream, message: &Message, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut text = serde_json::to_vec(message)?;
    text.push(b'\n');
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("too many sockets for one message"));
    }
    let sent = sendmsg(line, &[IoSlice::new(&text)], &mut control, SendFlags::empty())?;
    (&*line).write_all(&text[sent..])
}

fn await_ready(line: &UnixStream, mut child: Child) -> anyhow::Result<u32> {
    line.set_read_timeout(Some(READY_MAX))?;
    let mut said = String::new();
    let heard = BufReader::new(line).read_line(&mut said);
    match (heard, said.trim_end()) {
        (Ok(_), READY) => return Ok(child.id()),
        (Ok(0), _) => {
            let status = child.wait()?;
            bail!("the new process ended before it served ({status}); its own words are in the log");
        }
        (Ok(_), why) => {
            let _ = child.wait();
            bail!("the new process cannot serve: {}", unfold(why));
        }
        (Err(_), _) => {}
    }
    child.kill()?;
    child.wait()?;
    bail!("the new process did not serve within {} s and was ended", READY_MAX.as_secs())
}

/// What the process before this one handed over.
pub struct Inheritance {
    line: UnixStream,
    sockets: Vec<(String, TcpListener)>,
    /// The changes made through its admin API.
    pub admin_changes: Overlay,
}

impl Inheritance {
    /// Takes what the process before this one hands over, if there is one.
    ///
    /// # Errors
    /// When there is one and what it hands over cannot be taken.
    pub fn receive() -> anyhow::Result<Option<Self>> {
        let parent = std::os::unix::process::parent_id().to_string();
        // A process that this one starts in turn has another parent: it inherits the variable, but nothing else.
        if std::env::var(FROM).ok() != Some(parent) {
            return Ok(None);
        }
        let line = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        line.set_read_timeout(Some(READY_MAX))?;
        receive(line).map(Some).context("cannot take the sockets over from the process before this one")
    }

    /// Where it listened for what the key of the configuration says.
    pub fn address(&self, key: &str) -> Option<SocketAddr> {
        let (_, socket) = self.sockets.iter().find(|(known, _)| known == key)?;
        socket.local_addr().ok()
    }

    /// Its socket for the key, if that is where the configuration wants to listen.
    pub fn take(&mut self, key: &str, wanted: SocketAddr) -> Option<TcpListener> {
        let address = self.address(key)?;
        let fits = address == wanted || (wanted.port() == 0 && address.ip() == wanted.ip());
        let at = self.sockets.iter().position(|(known, _)| known == key)?;
        fits.then(|| self.sockets.swap_remove(at).1)
    }

    /// What is said to the process before this one.
    ///
    /// # Errors
    /// When the system gives no further descriptor.
    pub fn line(&self) -> io::Result<Line> {
        Ok(Line(self.line.try_clone()?))
    }
}

/// The way back to the process before this one.
pub struct Line(UnixStream);

impl Line {
    /// The sockets are served; the process before this one may go.
    pub fn tell_ready(&mut self) {
        // Whoever is not there any more needs not be told.
        let _ = writeln!(self.0, "{READY}");
    }

    /// The sockets will not be served.
    pub fn tell_failure(&mut self, error: &anyhow::Error) {
        let _ = writeln!(self.0, "{}", fold(&format!("{error:#}")));
    }
}

/// One line of several.
fn fold(text: &str) -> String {
    text.replace('\n', "\u{1f}")
}

fn unfold(text: &str) -> String {
    text.replace('\u{1f}', "\n")
}

fn receive(line: UnixStream) -> anyhow::Result<Inheritance> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut first = vec![0; 4096];
    let received = recvmsg(&line, &mut [IoSliceMut::new(&mut first)], &mut control, RecvFlags::empty())?;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    for descriptor in &descriptors {
        fcntl_setfd(descriptor, FdFlags::CLOEXEC)?;
    }
    let mut text = first[..received.bytes].to_vec();
    if text.last() != Some(&b'\n') {
        let rest = io::Read::take(&line, MESSAGE_BYTES_MAX);
        BufReader::new(rest).read_until(b'\n', &mut text)?;
    }
    let message: Message = serde_json::from_slice(&text)?;
    if message.sockets.len() != descriptors.len() {
        bail!("{} sockets were announced, and {} came", message.sockets.len(), descriptors.len());
    }
    let sockets = message.sockets.into_iter().zip(descriptors.into_iter().map(TcpListener::from)).collect();
    Ok(Inheritance { line, sockets, admin_changes: message.admin_changes })
}

/// Tells the service manager, if it asked to be told (`NOTIFY_SOCKET`, see sd_notify(3)).
pub fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = notify_at(&path, state) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

#[cfg(target_os = "linux")]
fn notify_at(path: &std::ffi::OsStr, state: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn notify_at(_: &std::ffi::OsStr, _: &str) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l6_sockets_travel_with_what_they_are_for() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let message = Message { sockets: vec!["listen".to_owned()], admin_changes: Overlay::default() };
        send(&ours, &message, &[listener.as_fd()]).expect("sent");
        drop(listener);
        let mut inherited = receive(theirs).expect("received");
        assert_eq!(inherited.address("listen"), Some(address));
        assert!(inherited.take("listen", SocketAddr::from(([127, 0, 0, 1], 1))).is_none(), "another address");
        let taken =
            inherited.take("listen", SocketAddr::from(([127, 0, 0, 1], 0))).expect("any port will do");
        let client = std::net::TcpStream::connect(address).expect("the socket never closed");
        assert_eq!(taken.accept().expect("accepted").1, client.local_addr().expect("bound"));
    }
}
