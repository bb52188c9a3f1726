//! Clients of files and batches, and an upstream that counts who asked for what.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Answer, PATIENCE};

/// A client of a gateway, with a key or without.
#[derive(Clone)]
pub struct Client {
    pub address: String,
    pub key: Option<&'static str>,
}

impl Client {
    pub fn of(address: &impl ToString) -> Self {
        Self { address: address.to_string(), key: None }
    }

    pub fn with(&self, key: &'static str) -> Self {
        Self { key: Some(key), ..self.clone() }
    }

    pub fn call(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Answer {
        let key = self.key.map_or_else(String::new, |key| format!("authorization: Bearer {key}\r\n"));
        let length = if method == "POST" {
            format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len())
        } else {
            String::new()
        };
        let head =
            format!("{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n{key}{length}\r\n");
        let mut connection = TcpStream::connect(&self.address).expect("it listens");
        connection.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        // A gateway that refuses early may close before all is written.
        let _ = connection.write_all(&[head.as_bytes(), body].concat());
        Answer::read_quickly(&mut connection)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, "application/json", body.to_string().as_bytes())
    }

    /// Uploads with these fields before the file.
    pub fn upload_with(&self, fields: &[(&str, &str)], file: Option<&[u8]>) -> Answer {
        let mut body = Vec::new();
        for (name, value) in fields {
            write!(body, "--edge\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
                .expect("written");
        }
        if let Some(file) = file {
            body.extend_from_slice(
                b"--edge\r\ncontent-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\
                  content-type: application/octet-stream\r\n\r\n",
            );
            body.extend_from_slice(file);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--edge--\r\n");
        self.call("POST", "/v1/files", "multipart/form-data; boundary=edge", &body)
    }

    /// The id of an uploaded file.
    pub fn upload(&self, text: &str) -> String {
        let answer = self.upload_with(&[("purpose", "batch")], Some(text.as_bytes()));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// The id of a batch of chat requests.
    pub fn create(&self, file: &str) -> String {
        let answer = self.post("/v1/batches", &wanted(file));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["status"], "validating");
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    pub fn batch(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/batches/{id}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// The batch, once it has this status.
    pub fn until(&self, id: &str, status: &str) -> Value {
        let began = Instant::now();
        loop {
            let batch = self.batch(id);
            if batch["status"] == status {
                return batch;
            }
            assert!(began.elapsed() < 3 * PATIENCE, "waited in vain until {status}: {batch}");
            std::thread::yield_now();
        }
    }

    /// The lines of a file of results, by their ids; nothing without a file.
    pub fn results(&self, file: &Value) -> BTreeMap<String, Value> {
        let Some(id) = file.as_str() else { return BTreeMap::new() };
        let answer = self.get(&format!("/v1/files/{id}/content"));
        assert_eq!((answer.status, answer.whole), (200, true), "{answer:?}");
        let lines = answer.body.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.map(|line| (line["custom_id"].as_str().expect("an id").to_owned(), line)).collect()
    }
}

pub fn wanted(file: &str) -> Value {
    json!({"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"})
}

/// A line that asks the model for something of its own.
pub fn line(id: &str, model: &str) -> Value {
    json!({
        "custom_id": id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": format!("say {id}.")}]},
    })
}

/// So many lines for the model `m`, with ids from `a0`.
pub fn lines(count: usize) -> String {
    (0..count).map(|number| line(&format!("a{number}"), "m").to_string() + "\n").collect()
}

/// An upstream that counts what it is asked, and answers only those it is let to.
pub struct Counting {
    pub address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    asked: BTreeMap<String, u32>,
    /// Requests that may still be answered.
    let_go: u64,
}

impl Counting {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::<(Mutex<State>, Condvar)>::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(connection, &shared));
            }
        });
        Self { address, state }
    }

    /// Lets so many more be answered.
    pub fn let_go(&self, count: u64) {
        self.state.0.lock().expect("unharmed").let_go += count;
        self.state.1.notify_all();
    }

    /// How often each was asked for.
    pub fn asked(&self) -> BTreeMap<String, u32> {
        self.state.0.lock().expect("unharmed").asked.clone()
    }

    pub fn total(&self) -> u32 {
        self.asked().values().sum()
    }
}

fn serve(mut connection: TcpStream, state: &(Mutex<State>, Condvar)) {
    let answer = json!({
        "id": "x", "object": "chat.completion", "created": 0, "model": "up",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    });
    // Over several lines, as some servers print it.
    let answer = serde_json::to_string_pretty(&answer).expect("JSON");
    while let Some(body) = read_body(&mut connection) {
        let said = body.split("say ").nth(1).and_then(|rest| rest.split('.').next()).unwrap_or("").to_owned();
        let mut inner = state.0.lock().expect("unharmed");
        *inner.asked.entry(said).or_default() += 1;
        while inner.let_go == 0 {
            inner = state.1.wait_timeout(inner, Duration::from_secs(60)).expect("unharmed").0;
        }
        inner.let_go -= 1;
        drop(inner);
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if connection.write_all((head + &answer).as_bytes()).is_err() {
            return;
        }
    }
}

/// The next request's body; none once the connection is over.
fn read_body(connection: &mut TcpStream) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned)
            });
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return Some(body.to_owned());
            }
        }
        match connection.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
        }
    }
}
