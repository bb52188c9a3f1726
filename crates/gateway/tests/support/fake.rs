//! A provider that answers as a test says, connection by connection, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub path: String,
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// An answer: a status, headers, and a body in the pieces it is sent in.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    pieces: Vec<Vec<u8>>,
}

impl Reply {
    #[expect(clippy::needless_pass_by_value, reason = "literals and values are given alike")]
    pub fn json(status: u16, body: impl ToString) -> Self {
        Self { status, headers: Vec::new(), pieces: vec![body.to_string().into_bytes()] }
            .with("content-type", "application/json")
    }

    /// A stream of that media type, a chunk a piece.
    pub fn stream(kind: &str, pieces: Vec<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), pieces }
            .with("content-type", kind)
            .with("transfer-encoding", "chunked")
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn send(&self, connection: &mut TcpStream) -> std::io::Result<()> {
        let chunked = self.headers.iter().any(|(name, _)| name == "transfer-encoding");
        let mut head = format!("HTTP/1.1 {} Said\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !chunked {
            head.push_str(&format!(
                "content-length: {}\r\n",
                self.pieces.iter().map(Vec::len).sum::<usize>()
            ));
        }
        connection.write_all(format!("{head}\r\n").as_bytes())?;
        for piece in self.pieces.iter().filter(|piece| !piece.is_empty()) {
            if chunked {
                connection.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
            }
            connection.write_all(piece)?;
            if chunked {
                connection.write_all(b"\r\n")?;
            }
        }
        if chunked { connection.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }
}

/// The server. Its threads end with the test's process.
pub struct Fake {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    /// One that answers by `answer`, which is told the request and how many came before it.
    pub fn new(answer: impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (answer, all) = (Arc::new(answer), Arc::clone(&seen));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (answer, all) = (Arc::clone(&answer), Arc::clone(&all));
                std::thread::spawn(move || serve(connection, &*answer, &all));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panicked in it").clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request came")
    }
}

fn serve(mut connection: TcpStream, answer: &dyn Fn(&Seen, usize) -> Reply, all: &Mutex<Vec<Seen>>) {
    let _ = connection.set_nodelay(true);
    let mut bytes = Vec::new();
    while let Some(request) = take(&mut connection, &mut bytes) {
        let before = {
            let mut all = all.lock().expect("no test panicked in it");
            all.push(request.clone());
            all.len() - 1
        };
        if answer(&request, before).send(&mut connection).is_err() {
            return;
        }
    }
}

fn take(connection: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Seen> {
    let end = loop {
        match bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            Some(end) => break end,
            None => more(connection, bytes)?,
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < end + 4 + length {
        more(connection, bytes)?;
    }
    let body = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).ok()?;
    bytes.drain(..end + 4 + length);
    Some(Seen { method, path, headers, body })
}

fn more(connection: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    let read = connection.read(&mut buffer).ok().filter(|read| *read > 0)?;
    bytes.extend_from_slice(&buffer[..read]);
    Some(())
}
