//! What the system gives: descriptors, and word of peers that are gone without a word.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Descriptors that are kept for files, listeners, health checks and the admin API.
const KEPT: u64 = 64;
/// A silent connection is asked after this time whether its peer is still there,
const ASK_AFTER: Duration = Duration::from_secs(10);
/// and again so often,
const ASK_EVERY: Duration = Duration::from_secs(5);
/// and counts as lost after so many questions without an answer: within 30 s.
const ASK_MAX: u32 = 3;
/// How long a provider may acknowledge nothing of what was sent to it.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(25);

/// Raises the soft limit of descriptors to the hard one, and gives the client connections there is room for: each may
/// need one to a provider. Beyond these, clients wait to be accepted, so that those who are served do not fail for
/// want of a descriptor.
pub fn connections_room() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Refused on systems whose hard limit is more than they give; the soft one then stands.
    let _ = setrlimit(Resource::Nofile, raised);
    room(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

fn room(descriptors: u64) -> u64 {
    (descriptors.saturating_sub(KEPT.min(descriptors / 4)) / 2).max(1)
}

/// Has every connection that is accepted watched for peers that are gone without a word. A client that takes nothing
/// of what is sent to it for `stall_max` is one.
///
/// # Errors
/// When the system refuses the options.
pub fn watch_peers(listener: &TcpListener, stall_max: Duration) -> std::io::Result<()> {
    // What is accepted has the options of its listener, so this costs nothing per connection.
    watch(&SockRef::from(listener), stall_max)
}

/// The same for a connection to a provider.
///
/// # Errors
/// The same.
pub fn watch_provider(tcp: &TcpStream) -> std::io::Result<()> {
    watch(&SockRef::from(tcp), UNACKNOWLEDGED_MAX)
}

fn watch(socket: &SockRef<'_>, unacknowledged_max: Duration) -> std::io::Result<()> {
    let asking = TcpKeepalive::new().with_time(ASK_AFTER).with_interval(ASK_EVERY).with_retries(ASK_MAX);
    socket.set_tcp_keepalive(&asking)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged_max))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unacknowledged_max;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b8_there_is_a_descriptor_to_a_provider_for_every_client() {
        for (descriptors, clients) in [(64, 24), (1024, 480), (20_000, 9_968), (2, 1)] {
            assert_eq!(room(descriptors), clients, "{descriptors}");
        }
    }

    #[tokio::test]
    async fn b10_both_sides_are_asked_whether_they_are_there() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        watch_peers(&listener, Duration::from_secs(25)).expect("set");
        let provider = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
        watch_provider(&provider).expect("set");
        let (client, _) = listener.accept().expect("accepted");
        for socket in [SockRef::from(&client), SockRef::from(&provider)] {
            assert!(socket.keepalive().expect("an option"));
            let asked_for = ASK_AFTER + ASK_EVERY * ASK_MAX;
            assert!(asked_for <= Duration::from_secs(30));
            assert_eq!(socket.tcp_keepalive_time().expect("an option"), ASK_AFTER);
            assert_eq!(socket.tcp_keepalive_retries().expect("an option"), ASK_MAX);
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().expect("an option"), Some(Duration::from_secs(25)));
        }
    }
}
