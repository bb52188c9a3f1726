//! The order of functions in the binary: which of them run when a router starts and when it answers.
//!
//! They are seen by valgrind's callgrind, on the release binary in front of its own mock. What only requests need comes
//! first, then what they share with the start, then what only the start needs: an idle process has the last two in memory,
//! a busy one all of it. Each part is sorted by name, so that a change of the code moves few lines.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Of the configuration that the benchmarks use.
const CONFIG: &str = "benches/gateways/pointsman.yaml";
const CLIENTS: &str = "127.0.0.1:19200";
const ADMIN: &str = "127.0.0.1:19201";
const UPSTREAM: &str = "127.0.0.1:19100";
const KEY: &str = "bench-key-that-is-no-secret";
/// Under valgrind all takes fifty times as long.
const PATIENCE: Duration = Duration::from_secs(120);
const IDLE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Long prompts take other ways than short ones.
const LONG_PROMPT_BYTES: usize = 64 * 1024;

/// Writes the order anew.
pub(crate) fn run(root: &Path) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.current_dir(root).args(["build", "--release", "--package", "pointsman"]);
    for (name, _) in std::env::vars_os() {
        // What cargo says of this package would make others be built anew.
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            build.env_remove(name);
        }
    }
    ensure!(build.status()?.success(), "the release binary could not be built");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let binary = target.join("release/pointsman");
    let work = target.join("order");
    // What a run before left would be taken for this one's.
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;
    let (started, answered) = watch(root, &binary, &work)?;
    let symbols = symbols(&binary)?;
    let requests = answered.difference(&started);
    let both = answered.intersection(&started);
    let start = started.difference(&answered);
    let names = requests.chain(both).chain(start).filter(|name| symbols.contains(*name));
    let lines = names.map(|name| format!("{name}\n"));
    fs::write(root.join("crates/gateway/link/order.txt"), lines.collect::<String>())?;
    Ok(())
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The functions that run at the start, and for requests.
fn watch(root: &Path, binary: &Path, work: &Path) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    for address in [UPSTREAM, CLIENTS, ADMIN] {
        ensure!(TcpStream::connect(address).is_err(), "{address} is taken by another process");
    }
    let out = work.join("callgrind");
    let mut mock = Command::new(binary);
    mock.args([
        "mock",
        "--listen",
        UPSTREAM,
        "--models",
        "fake-model",
        "--slots",
        "0",
        "--first-token-ms",
        "0",
    ]);
    mock.args(["--prefill-tokens-per-s", "0", "--decode-tokens-per-s", "0", "--tokens", "16"]);
    let _mock = Running(mock.stdout(Stdio::null()).spawn()?);
    let mut router = Command::new("valgrind");
    router.args(["--tool=callgrind", "--demangle=no"]).arg(format!("--callgrind-out-file={}", out.display()));
    router.arg(binary).args(["serve", "--config"]).arg(root.join(CONFIG));
    let log = fs::File::create(work.join("log"))?;
    let router = router.stdout(log.try_clone()?).stderr(log).spawn().context("valgrind is needed")?;
    let router = Running(router);
    for address in [UPSTREAM, CLIENTS, ADMIN] {
        wait_for(address, || TcpStream::connect(address).is_ok())?;
    }
    // Probes and all else that an idle process does from time to time count as its start.
    let began = Instant::now();
    wait_for("the first probes", || began.elapsed() > IDLE)?;
    let started = dump(&router, &out.with_extension("1"))?;
    ask_all()?;
    let answered = dump(&router, &out.with_extension("2"))?;
    Ok((started, answered))
}

#[expect(clippy::disallowed_methods, reason = "this tool has nothing else to do")]
fn wait_for(what: &str, mut there: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !there() {
        ensure!(began.elapsed() < PATIENCE, "{what} is not there after {} s", PATIENCE.as_secs());
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// The functions that ran since the last dump.
fn dump(router: &Running, file: &Path) -> Result<BTreeSet<String>> {
    let mut control = Command::new("callgrind_control");
    control.args(["--dump", &router.0.id().to_string()]).stdout(Stdio::null());
    ensure!(control.status()?.success(), "callgrind_control failed");
    let mut text = String::new();
    wait_for(&file.display().to_string(), || {
        text = fs::read_to_string(file).unwrap_or_default();
        text.contains("\ntotals:")
    })?;
    // `fn=(12) name`, and a callee's the same way; recursion is told by a number behind a quote.
    let named = |line: &str| {
        let rest = line.strip_prefix("fn=(").or_else(|| line.strip_prefix("cfn=("))?;
        let (_, name) = rest.split_once(") ")?;
        Some(name.split('\'').next().unwrap_or(name).to_owned())
    };
    Ok(text.lines().filter_map(named).collect())
}

/// The names of the binary's own functions.
fn symbols(binary: &Path) -> Result<BTreeSet<String>> {
    let listed = Command::new("nm").arg(binary).output().context("nm is needed")?;
    let text = String::from_utf8(listed.stdout)?;
    let function = |line: &str| {
        let mut parts = line.split(' ').skip(1);
        parts.next().filter(|kind| matches!(*kind, "t" | "T" | "w" | "W"))?;
        parts.next().map(str::to_owned)
    };
    let found: BTreeSet<String> = text.lines().filter_map(function).collect();
    ensure!(!found.is_empty(), "{} has no symbols", binary.display());
    Ok(found)
}

/// One request of each common kind, several times.
fn ask_all() -> Result<()> {
    let chat = |prompt: &str, stream: bool| {
        format!(
            r#"{{"model":"fake-model","messages":[{{"role":"system","content":"be brief"}},{{"role":"user","content":"{prompt}"}}],"max_tokens":16,"temperature":0.7,"stream":{stream}}}"#
        )
    };
    let long = r#"He said \"no\".\n"#.repeat(LONG_PROMPT_BYTES / 16);
    for _ in 0..5 {
        ask(CLIENTS, "GET", "/v1/models", "")?;
        ask(CLIENTS, "POST", "/v1/chat/completions", &chat("hello", false))?;
        ask(CLIENTS, "POST", "/v1/chat/completions", &chat("hello", true))?;
        ask(CLIENTS, "POST", "/v1/chat/completions", &chat(&long, false))?;
        ask(
            CLIENTS,
            "POST",
            "/v1/messages",
            &chat("hello", false).replace(r#""role":"system""#, r#""role":"user""#),
        )?;
        ask(
            CLIENTS,
            "POST",
            "/v1/messages",
            &chat("hello", true).replace(r#""role":"system""#, r#""role":"user""#),
        )?;
        ask(ADMIN, "GET", "/metrics", "")?;
    }
    Ok(())
}

fn ask(address: &str, method: &str, path: &str, body: &str) -> Result<()> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let key = if address == CLIENTS { format!("authorization: Bearer {KEY}\r\n") } else { String::new() };
    write!(
        connection,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{key}connection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    if !answer.starts_with("HTTP/1.1 200 ") {
        bail!("{method} {path} was answered with {}", answer.lines().next().unwrap_or_default());
    }
    Ok(())
}
