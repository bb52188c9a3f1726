//! The real binary with a config file, in front of a mock.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use pointsman::mock::{MockArgs, MockServer};

use super::{Answer, PATIENCE, fast, hello, request};

/// The real binary with a config file, in front of a mock.
pub struct Binary {
    pub child: Child,
    pub client: String,
    pub admin: String,
    pub folder: tempfile::TempDir,
    pub mock: MockServer,
    /// Processes that took over, to be ended with it.
    pub heirs: Vec<u64>,
}

impl Binary {
    pub fn start(text: &str) -> Self {
        Self::start_with(text, &[])
    }

    pub fn start_with(text: &str, args: &[&str]) -> Self {
        let mock = MockServer::spawn(MockArgs { settings: fast(), ..MockArgs::on_any_port() })
            .expect("a mock starts");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pointsman.yaml");
        std::fs::write(&path, Self::text(text, &mock)).expect("written");
        Self::launch(Command::new(env!("CARGO_BIN_EXE_pointsman")), mock, folder, args)
    }

    /// Starts it by a command that ends in the program, such as a shell that sets limits first.
    pub fn launch(mut command: Command, mock: MockServer, folder: tempfile::TempDir, args: &[&str]) -> Self {
        let path = folder.path().join("pointsman.yaml");
        let mut child = command
            .args(["serve", "--config"])
            .arg(&path)
            .args(args)
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines
            .find_map(|line| line.ok().filter(|line| line.starts_with("clients: ")))
            .expect("it says where");
        let mut words =
            line.split("http://").skip(1).map(|part| part.split(['/', ' ']).next().unwrap_or("").to_owned());
        let (client, admin) = (words.next().expect("clients"), words.next().expect("admin"));
        Self { child, client, admin, folder, mock, heirs: Vec::new() }
    }

    pub fn text(text: &str, mock: &MockServer) -> String {
        format!(
            "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\n{}",
            text.replace("MOCK", &format!("http://{}", mock.address()))
        )
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("readable")
    }

    pub fn rewrite(&self, text: &str) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, Self::text(text, &self.mock)).expect("written");
        std::fs::rename(next, self.folder.path().join("pointsman.yaml")).expect("replaced");
    }

    pub fn admin(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        send(&self.admin, request.as_bytes())
    }

    pub fn ask(&self) -> Answer {
        send(&self.client, &request("/v1/chat/completions", "", hello().to_string().as_bytes()))
    }

    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !holds() {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        }
    }

    pub fn signal(&self, name: &str) {
        kill(name, self.child.id().into());
    }

    /// A subcommand of the same program, with its exit code and what it printed and complained of.
    pub fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let run = Command::new(env!("CARGO_BIN_EXE_pointsman")).args(args).output().expect("it runs");
        let said = [run.stdout, run.stderr].concat();
        (run.status.code(), String::from_utf8_lossy(&said).into_owned())
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        for heir in &self.heirs {
            kill("KILL", *heir);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn connect(address: &str) -> TcpStream {
    let connection = TcpStream::connect(address).expect("it listens");
    connection.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    connection
}

pub fn send(address: &str, bytes: &[u8]) -> Answer {
    let mut connection = connect(address);
    let _ = connection.write_all(bytes);
    Answer::read(&mut connection)
}

/// One deployment `a` of the model `m`.
pub const ONE: &str = "providers: { p: { kind: mock, base_url: 'MOCK', health: off, keys: ['the-secret-of-p'] } }\n\
                   models: { m: { strategy: round_robin, deployments: [ { name: a, provider: p } ] } }\n\
                   admin_changes: { file: FOLDER/changes.json }\n";

/// The same without a file for admin changes.
pub fn one() -> String {
    // The folder is not known yet; the changes stay in memory here.
    ONE.lines().filter(|line| !line.contains("FOLDER")).collect::<Vec<_>>().join("\n") + "\n"
}

/// Sends a signal to a process.
pub fn kill(signal: &str, process: u64) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(process.to_string()).status();
    assert!(status.is_ok());
}
