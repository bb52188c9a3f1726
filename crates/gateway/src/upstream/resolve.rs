//! The addresses of providers. A name is looked up once before its first connection; later lookups run beside the
//! requests, and while they fail or hang the last good answer holds.
//!
//! Of several addresses the families take turns, and the next is tried whenever one has not answered for a moment
//! (Happy Eyeballs, RFC 8305), so that a broken IPv6 costs a quarter of a second and not the whole patience.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pointsman_routing::Now;
use pointsman_settings::egress::{Guard, Refused};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::target::Endpoint;
use crate::clock;

/// An answer older than this is asked for anew, while it goes on being used.
const FRESH: Duration = Duration::from_secs(30);
/// A lookup that has not come back by then is given up; another may begin.
const LOOKUP_MAX: Duration = Duration::from_secs(10);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 8;
/// Names that are remembered; more are looked up each time.
const NAMES_MAX: usize = 10_000;
/// The head start of one address before the next (RFC 8305, 8).
const STAGGER: Duration = Duration::from_millis(250);

/// Connects to a provider's host, by name or by address, on one of its ports.
///
/// # Errors
/// When the name cannot be resolved and never could, none of its addresses may be dialled, or none answers. The caller
/// bounds the time.
pub async fn connect(endpoint: &Endpoint, port: u16) -> io::Result<TcpStream> {
    let host = &endpoint.host;
    let found = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => addresses(host, port).await?,
    };
    let dialled = judged(&endpoint.provider, &endpoint.guard, found)?;
    race(&dialled).await
}

/// The addresses that may be dialled. They are judged anew each time, for a name may lead elsewhere by now, and so may
/// the rules. What is logged is not told to clients, for it says what the network inside looks like.
fn judged(provider: &str, guard: &Guard, found: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
    guard.filter(found, SocketAddr::ip).map_err(|why: Refused| {
        tracing::warn!(provider, reason = why.reason(), %why, "not connected");
        let told = format!("its address is refused by the rules of `egress` ({})", why.reason());
        io::Error::new(io::ErrorKind::PermissionDenied, told)
    })
}

async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static BOOK: OnceLock<Mutex<Book>> = OnceLock::new();
    let book = BOOK.get_or_init(Mutex::default);
    let key = (host.to_owned(), port);
    let look = book.lock().unwrap_or_else(PoisonError::into_inner).look(&key, clock::now());
    match look {
        Look::Known(addresses) => Ok(addresses),
        Look::Stale(addresses) => {
            tokio::spawn(async move {
                let answer = lookup(&key.0, key.1).await;
                if let Err(error) = &answer {
                    tracing::warn!(host = key.0, %error, "cannot resolve; its last addresses go on being used");
                }
                let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                drop(book.learn(key, answer, clock::now()));
            });
            Ok(addresses)
        }
        Look::Unknown => {
            let answer = lookup(host, port).await;
            book.lock().unwrap_or_else(PoisonError::into_inner).learn(key, answer, clock::now())
        }
    }
}

async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let looked_up = tokio::time::timeout(LOOKUP_MAX, tokio::net::lookup_host((host, port))).await;
    let found = looked_up.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "DNS does not answer"))??;
    Ok(in_turns(found))
}

/// The families by turns, beginning with that of the first, as the system prefers it.
fn in_turns(found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let found: Vec<SocketAddr> = found.into_iter().collect();
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    one.dedup();
    other.dedup();
    let (mut one, mut other) = (one.into_iter(), other.into_iter());
    let mut turns = Vec::new();
    loop {
        let pair = [one.next(), other.next()];
        if pair == [None, None] || turns.len() >= ADDRESSES_MAX {
            turns.truncate(ADDRESSES_MAX);
            return turns;
        }
        turns.extend(pair.into_iter().flatten());
    }
}

/// Connects to the first that answers; each gets a head start before the next, unless it fails.
async fn race(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = addresses.iter().copied();
    let mut racing = JoinSet::new();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = left.next() {
            racing.spawn(TcpStream::connect(address));
        }
        loop {
            tokio::select! {
                done = racing.join_next() => match done {
                    Some(Ok(Ok(tcp))) => return Ok(tcp),
                    Some(Ok(Err(error))) => {
                        failed = error;
                        if left.len() > 0 { break; }
                    }
                    Some(Err(error)) => failed = io::Error::other(error),
                    None => return Err(failed),
                },
                () = sleep(STAGGER), if left.len() > 0 => break,
            }
        }
    }
}

type Key = (String, u16);

/// What is known of names.
#[derive(Default)]
struct Book(BTreeMap<Key, Entry>);

struct Entry {
    addresses: Vec<SocketAddr>,
    /// When the next lookup is due.
    due: Now,
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    Known(Vec<SocketAddr>),
    /// Whoever gets this looks it up anew, and nobody else meanwhile.
    Stale(Vec<SocketAddr>),
    Unknown,
}

impl Book {
    fn look(&mut self, key: &Key, now: Now) -> Look {
        match self.0.get_mut(key) {
            None => Look::Unknown,
            Some(entry) if now < entry.due => Look::Known(entry.addresses.clone()),
            Some(entry) => {
                entry.due = now + LOOKUP_MAX;
                Look::Stale(entry.addresses.clone())
            }
        }
    }

    /// Takes an answer in. One that failed or is empty leaves the last good one in force.
    fn learn(
        &mut self,
        key: Key,
        answer: io::Result<Vec<SocketAddr>>,
        now: Now,
    ) -> io::Result<Vec<SocketAddr>> {
        let due = now + FRESH;
        match (answer, self.0.get_mut(&key)) {
            (Ok(addresses), _) if !addresses.is_empty() => {
                if self.0.len() < NAMES_MAX || self.0.contains_key(&key) {
                    self.0.insert(key, Entry { addresses: addresses.clone(), due });
                }
                Ok(addresses)
            }
            (Ok(_) | Err(_), Some(known)) => Ok(known.addresses.clone()),
            (Ok(_), None) => Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address")),
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use pointsman_settings::egress::EgressConfig;
    use pointsman_settings::providers::ProviderConfig;

    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn f11_n4_the_last_good_answer_holds_while_dns_is_gone() {
        let mut book = Book::default();
        let key = || ("gpu.example".to_owned(), 80);
        let at = |s| Now::ZERO + Duration::from_secs(s);
        let (old, new) = (vec![address("192.0.2.1:80")], vec![address("192.0.2.2:80")]);
        assert_eq!(book.look(&key(), at(0)), Look::Unknown);
        assert_eq!(book.learn(key(), Ok(old.clone()), at(0)).expect("known"), old);
        assert_eq!(book.look(&key(), at(29)), Look::Known(old.clone()));
        assert_eq!(book.look(&key(), at(31)), Look::Stale(old.clone()), "one looks it up");
        assert_eq!(book.look(&key(), at(32)), Look::Known(old.clone()), "the others do not");
        for answer in [Err(io::ErrorKind::TimedOut.into()), Ok(Vec::new())] {
            assert_eq!(book.learn(key(), answer, at(41)).expect("the last good answer"), old);
        }
        assert_eq!(book.look(&key(), at(42)), Look::Stale(old), "a failed lookup is soon tried again");
        assert_eq!(book.learn(key(), Ok(new.clone()), at(42)).expect("known"), new);
        assert_eq!(book.look(&key(), at(43)), Look::Known(new));
    }

    #[test]
    fn i2_i3_what_is_dialled_is_what_was_judged() {
        let paid = ProviderConfig { kind: "openai".to_owned(), ..ProviderConfig::default() };
        let guard = Guard::new(&EgressConfig::default(), &paid);
        let (inside, outside) = (address("10.0.0.1:443"), address("1.1.1.1:443"));
        // The name is rebound between two lookups, and within one answer.
        assert_eq!(judged("p", &guard, vec![outside]).expect("public"), [outside]);
        assert_eq!(judged("p", &guard, vec![inside, outside]).expect("one is public"), [outside]);
        let refused = judged("p", &guard, vec![inside]).expect_err("it leads inside");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(!refused.to_string().contains("10.0.0.1"), "clients see this: {refused}");
    }

    #[test]
    fn n4_families_take_turns() {
        let found = ["[2001:db8::1]:1", "[2001:db8::2]:1", "192.0.2.1:1"].map(address);
        let turns = ["[2001:db8::1]:1", "192.0.2.1:1", "[2001:db8::2]:1"].map(address);
        assert_eq!(in_turns(found), turns);
        assert_eq!(in_turns([]), []);
    }

    #[tokio::test]
    async fn n4_an_address_that_does_not_answer_costs_a_moment() {
        // A listener whose backlog is full answers no further connection.
        let hole =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        hole.bind(&address("127.0.0.1:0").into()).expect("a port is free");
        hole.listen(0).expect("it listens");
        let hole_address = hole.local_addr().expect("bound").as_socket().expect("an address");
        let _first = TcpStream::connect(hole_address).await.expect("one fits in");
        let good = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let good_address = good.local_addr().expect("bound");
        let closed = address("127.0.0.1:1");
        let began = Instant::now();
        let tcp = race(&[hole_address, closed, good_address]).await.expect("the third answers");
        assert_eq!(tcp.peer_addr().expect("connected"), good_address);
        assert!((STAGGER..STAGGER * 4).contains(&began.elapsed()), "{:?}", began.elapsed());
        let refused = race(&[closed]).await.expect_err("nobody is there");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
