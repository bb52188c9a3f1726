//! A gateway in front of mocks, and clients that say just what they are told to, byte for byte.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    clippy::format_push_string,
    clippy::needless_pass_by_value,
    clippy::panic,
    clippy::unused_self,
    reason = "helpers of tests: every file uses a part of them, and a panic is their way to fail"
)]

pub mod batch;
pub mod binary;
pub mod fake;
pub mod load;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::app::App;
use pointsman::mock::{MockArgs, MockServer, Scripted, Settings, Stats};
use pointsman::serve::Gateway;
use pointsman::telemetry::metrics::Surroundings;
use pointsman_settings::overlay::Overlay;
use pointsman_settings::{Config, Sources};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway in front of mocks.
pub struct World {
    pub mocks: Vec<MockServer>,
    pub gateway: Gateway,
}

/// A mock that takes no time.
pub fn fast() -> Settings {
    Settings { prefill_tokens_per_s: 0.0, decode_tokens_per_s: 0.0, first_token_ms: 0, ..Settings::default() }
}

/// A configuration from text.
pub fn config(text: &str) -> Config {
    let sources = Sources { env: &|_| None, file: &|_| Err("none".to_owned()) };
    pointsman_settings::parse(text, &sources).unwrap_or_else(|found| panic!("{found:?}\n{text}"))
}

impl World {
    /// `count` mocks `m0`, `m1`, … behind the model `m`, in tiers of their own so that `m0` is asked first, and `extra`
    /// in the configuration.
    pub fn new(count: usize, extra: &str) -> Self {
        Self::with(count, "", "", extra)
    }

    /// The same with fields in every provider and in the model.
    pub fn with(count: usize, provider: &str, model: &str, extra: &str) -> Self {
        let start = |_| {
            MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() })
                .expect("a mock starts")
        };
        let mocks: Vec<MockServer> = (0..count).map(start).collect();
        let addresses: Vec<_> = mocks.iter().map(|mock| (mock.address(), provider)).collect();
        let gateway = Self::gateway(&addresses, model, extra);
        Self { mocks, gateway }
    }

    /// In front of one server that is no mock.
    pub fn facing(upstream: SocketAddr, extra: &str) -> Self {
        Self { mocks: Vec::new(), gateway: Self::gateway(&[(upstream, "")], "", extra) }
    }

    /// As a whole file says it, without mocks.
    pub fn configured(text: &str) -> Self {
        let gateway = Gateway::start(None, config(text), Overlay::default()).expect("the gateway starts");
        Self { mocks: Vec::new(), gateway }
    }

    /// Two mocks, each with fields of its own in its provider.
    pub fn pair(first: &str, second: &str) -> Self {
        let mut world = Self::new(2, "");
        let addresses = [(world.mocks[0].address(), first), (world.mocks[1].address(), second)];
        world.gateway = Self::gateway(&addresses, "", "");
        world
    }

    /// One mock behind providers of several kinds, each with a model of the kind's name.
    pub fn speaking(kinds: &[&str]) -> Self {
        let mock = MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() });
        let mock = mock.expect("a mock starts");
        let mut text = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n".to_owned();
        for kind in kinds {
            let address = mock.address();
            text.push_str(&format!(
                "  {kind}: {{ kind: {kind}, base_url: 'http://{address}', health: off, keys: [key-of-provider] }}\n"
            ));
        }
        text.push_str("models:\n");
        for kind in kinds {
            text.push_str(&format!(
                "  {kind}: {{ deployments: [ {{ name: d, provider: {kind}, model: up }} ] }}\n"
            ));
        }
        let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
        Self { mocks: vec![mock], gateway }
    }

    /// In front of what this configuration says.
    pub fn of(text: &str) -> Self {
        let text = format!("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\n{text}");
        let gateway = Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts");
        Self { mocks: Vec::new(), gateway }
    }

    /// All metrics as text.
    pub fn metrics(&self) -> String {
        self.app().metrics.encode(&Surroundings {
            fleet: self.app().live.lock().fleet.view(pointsman::clock::now()),
            generation: 1,
            permits: 0,
            attempts: 0,
            connections: 0,
        })
    }

    fn gateway(providers: &[(SocketAddr, &str)], model: &str, extra: &str) -> Gateway {
        let mut text = format!("{extra}\nlisten: 127.0.0.1:0\nadmin: 127.0.0.1:0\nworkers: 1\nproviders:\n");
        for (number, (address, provider)) in providers.iter().enumerate() {
            text.push_str(&format!(
                "  m{number}: {{ kind: mock, base_url: 'http://{address}', health: off{provider} }}\n"
            ));
        }
        text.push_str(&format!("models:\n  m:\n{model}    deployments:\n"));
        for number in 0..providers.len() {
            text.push_str(&format!(
                "      - {{ name: d{number}, provider: m{number}, model: up, tier: {number} }}\n"
            ));
        }
        Gateway::start(None, config(&text), Overlay::default()).expect("the gateway starts")
    }

    pub fn app(&self) -> &Arc<App> {
        &self.gateway.app
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    pub fn script(&self, mock: usize, script: impl IntoIterator<Item = Scripted>) {
        self.mocks[mock].control().script(script);
    }

    pub fn stats(&self, mock: usize) -> Stats {
        self.mocks[mock].control().stats()
    }

    /// Requests that reached any upstream.
    pub fn reached(&self) -> u64 {
        (0..self.mocks.len()).map(|mock| self.stats(mock).requests).sum()
    }

    /// Asks with a chat body.
    pub fn chat(&self, body: &Value) -> Answer {
        self.post("/v1/chat/completions", "", body.to_string().as_bytes())
    }

    /// The same without a wait for the end of the connection.
    pub fn chat_quickly(&self, body: &Value) -> Answer {
        let mut connection = self.connect();
        let sent = request("/v1/chat/completions", "", body.to_string().as_bytes());
        connection.write_all(&sent).expect("written");
        Answer::read_quickly(&mut connection)
    }

    /// Posts JSON with further header lines.
    pub fn post(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.send(&request(path, headers, body))
    }

    /// Sends bytes as they are and reads an answer.
    pub fn send(&self, bytes: &[u8]) -> Answer {
        let mut connection = self.connect();
        // A gateway that refuses early may close before all is written.
        let _ = connection.write_all(bytes);
        Answer::read(&mut connection)
    }

    pub fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address()).expect("the gateway listens");
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        connection
    }

    /// The record of a request.
    pub fn record(&self, answer: &Answer) -> Value {
        self.record_of(answer.header("x-pointsman-request-id").expect("every answer has an id"))
    }

    /// The record of a request by its id.
    pub fn record_of(&self, id: &str) -> Value {
        let id = pointsman::telemetry::record::RequestId::parse(id).expect("a request id");
        let mut found = None;
        self.until("the record is there", || {
            found = self.app().ring.find(id);
            found.is_some()
        });
        found.expect("just seen").to_json()
    }

    /// Waits for a condition that must come true.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
            std::thread::yield_now();
        }
    }

    pub fn permits(&self) -> u64 {
        self.app().live.lock().fleet.permits_in_use()
    }
}

/// A server that treats its first connection as it is told to.
pub fn upstream<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, std::thread::JoinHandle<T>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _entered = runtime.enter();
    let socket = TcpSocket::new_v4().expect("a socket");
    // What the system buffers here is not the gateway's, and would only blur how much it takes.
    socket.set_send_buffer_size(64 * 1024).expect("a buffer can be set");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port is free");
    let listener = socket.listen(16).and_then(tokio::net::TcpListener::into_std).expect("it listens");
    listener.set_nonblocking(false).expect("it can block");
    let address = listener.local_addr().expect("it is bound");
    let served = std::thread::spawn(move || {
        let (connection, _) = listener.accept().expect("the gateway connects");
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        serve(connection)
    });
    (address, served)
}

/// Reads one request and gives the bytes of its body. With `before_body` something is done once its head is there.
pub fn take_request(connection: &mut TcpStream, before_body: impl FnOnce(&mut TcpStream)) -> usize {
    let mut bytes = Vec::new();
    while find(&bytes, b"\r\n\r\n").is_none() && more(connection, &mut bytes) {}
    let end = find(&bytes, b"\r\n\r\n").expect("a head comes") + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse().ok()).expect("a length is given");
    let mut rest = bytes.split_off(end);
    before_body(connection);
    while rest.len() < length && more(connection, &mut rest) {}
    rest.len()
}

/// A request as people send it.
pub fn request(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
    );
    [head.as_bytes(), body].concat()
}

/// A chat body for the model `m`.
pub fn hello() -> Value {
    json!({"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]})
}

/// The same, streamed.
pub fn stream() -> Value {
    let mut body = hello();
    body["stream"] = json!(true);
    body
}

/// An answer as it came.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// Whether the body came to the end that its framing promised.
    pub whole: bool,
    /// Whether the gateway closed the connection after it.
    pub closed: bool,
}

impl Answer {
    /// Reads one answer, and waits a moment for the end of its connection.
    pub fn read(connection: &mut TcpStream) -> Self {
        let mut answer = Self::read_quickly(connection);
        if !answer.closed {
            connection.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
            answer.closed = matches!(connection.read(&mut [0; 1]), Ok(0));
        }
        answer
    }

    /// Reads one answer.
    pub fn read_quickly(connection: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        while find(&bytes, b"\r\n\r\n").is_none() && more(connection, &mut bytes) {}
        let Some(end) = find(&bytes, b"\r\n\r\n") else { return Self { closed: true, ..Self::default() } };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let mut rest = bytes.split_off(end + 4);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut answer = Self { status, head, ..Self::default() };
        if answer.header("transfer-encoding") == Some("chunked") {
            while !rest.ends_with(b"0\r\n\r\n") && more(connection, &mut rest) {}
            answer.whole = rest.ends_with(b"0\r\n\r\n");
            answer.body = String::from_utf8_lossy(&unchunk(&rest)).into_owned();
        } else {
            let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            while rest.len() < length && more(connection, &mut rest) {}
            answer.whole = rest.len() == length;
            answer.body = String::from_utf8_lossy(&rest).into_owned();
        }
        answer.closed = answer.header("connection") == Some("close");
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split_once(':').map(|(_, value)| value.trim())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The error's field of that name.
    pub fn error(&self, field: &str) -> Value {
        self.json()["error"][field].clone()
    }
}

fn more(connection: &mut TcpStream, bytes: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16 * 1024];
    match connection.read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(read) => {
            bytes.extend_from_slice(&buffer[..read]);
            true
        }
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = find(bytes, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap_or("0"), 16).unwrap_or(0);
        let data = &bytes[end + 2..];
        if size == 0 || data.len() < size + 2 {
            out.extend_from_slice(&data[..data.len().min(size)]);
            break;
        }
        out.extend_from_slice(&data[..size]);
        bytes = &data[size + 2..];
    }
    out
}
