//! Clients that ask without a pause, and long streams.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use pointsman::mock::Scripted;

use super::binary::connect;
use super::{Answer, PATIENCE, hello, request, stream};

const PIECE: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n";

/// A stream of so many pieces with its proper end.
pub fn long(pieces: usize, piece_delay_ms: u64) -> Scripted {
    let mut all = vec![PIECE.to_owned(); pieces];
    all.push("data: [DONE]\n\n".to_owned());
    Scripted { pieces: Some(all), piece_delay_ms, ..Default::default() }
}

/// Opens a stream and waits for its first bytes.
pub fn open_stream(address: &str) -> TcpStream {
    let mut client = connect(address);
    client.write_all(&request("/v1/chat/completions", "", stream().to_string().as_bytes())).expect("written");
    client.read_exact(&mut [0; 16]).expect("the head comes");
    client
}

/// What comes until the connection ends.
pub fn rest_of(mut client: TcpStream) -> String {
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("an end");
    rest
}

/// Clients that ask without a pause, until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// `fresh` clients with a new connection for each request, and `kept` that keep theirs as long as it is open.
    pub fn start(address: &str, fresh: usize, kept: usize) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |keeps: bool| {
            let (stop, asked, address) = (Arc::clone(&stop), Arc::clone(&asked), address.to_owned());
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                let mut kept: Option<TcpStream> = None;
                while !stop.load(Ordering::Relaxed) {
                    match ask(&address, kept.take()) {
                        Ok((answer, connection)) if answer.status == 200 && answer.whole => {
                            kept = connection.filter(|_| keeps && !answer.closed);
                        }
                        Ok((answer, _)) => failures.push(format!("{answer:?}")),
                        Err(error) => failures.push(error.to_string()),
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        };
        let clients = (0..fresh + kept).map(|number| client(number >= fresh)).collect();
        Self { stop, asked, clients }
    }

    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// All failures, and how many requests there were.
    pub fn end(self) -> (Vec<String>, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
        (failures, self.asked.load(Ordering::Relaxed))
    }
}

fn ask(address: &str, kept: Option<TcpStream>) -> std::io::Result<(Answer, Option<TcpStream>)> {
    let mut connection = match kept {
        Some(connection) => connection,
        None => TcpStream::connect(address)?,
    };
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(&request("/v1/chat/completions", "", hello().to_string().as_bytes()))?;
    let answer = Answer::read_quickly(&mut connection);
    Ok((answer, Some(connection)))
}
