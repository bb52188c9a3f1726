//! A fake inference server that speaks the OpenAI API and the Open Inference Protocol: slots, prefill and decode times, streams, errors, all settable
//! while it runs. For trying things on one machine, and for tests.
//!
//! `GET /_ctl` tells the settings; `POST /_ctl` with a JSON object changes them, or gives a `script`: what the next
//! requests are answered with. `GET /_stats` tells what came in. People read `docs/mock.md`.

mod answer;
mod control;
mod dialects;
mod engine;
mod example;
mod kept;
mod server;
mod tasks;
mod tensors;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::Notify;

pub use control::{Control, Scripted, Settings, Stats};
pub use engine::{Metrics, Spelling};

/// Arguments of `pointsman mock`.
#[derive(Debug, Clone, clap::Args)]
pub struct MockArgs {
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:9100")]
    pub listen: SocketAddr,
    /// The models it lists, with commas between; it answers for any
    #[arg(long, value_delimiter = ',', default_value = "mock-model")]
    pub models: Vec<String>,
    /// How it behaves
    #[command(flatten)]
    pub settings: Settings,
}

impl MockArgs {
    /// The usual behaviour on a port that is free.
    pub fn on_any_port() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { listen, models: vec!["mock-model".to_owned()], settings: Settings::default() }
    }
}

/// A fake inference server on a thread of its own. It stops when this is dropped.
pub struct MockServer {
    address: SocketAddr,
    control: Arc<Control>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl MockServer {
    /// Starts one.
    ///
    /// # Errors
    /// When the address cannot be bound, or no thread be started.
    pub fn spawn(args: MockArgs) -> std::io::Result<Self> {
        let listener = TcpListener::bind(args.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let control = Arc::new(Control::new(args.models, args.settings));
        let stop = Arc::new(Notify::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = {
            let (control, stop) = (Arc::clone(&control), Arc::clone(&stop));
            std::thread::Builder::new().name("mock".into()).spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        served = server::serve(listener, control) => {
                            if let Err(error) = served {
                                tracing::error!(%error, "the mock ended");
                            }
                        }
                        () = stop.notified() => {}
                    }
                });
            })?
        };
        Ok(Self { address, control, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its settings, script and counts.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Drop for MockServer {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs `pointsman mock` until it is killed.
pub fn run(args: MockArgs) -> anyhow::Result<()> {
    use std::io::Write;
    let listen = args.listen;
    let mut server = MockServer::spawn(args).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            return anyhow::anyhow!(
                "{listen} is in use; stop what uses it, or take another address: `--listen IP:PORT`"
            );
        }
        anyhow::anyhow!("cannot listen on {listen} (`--listen`): {error}")
    })?;
    let _ = writeln!(
        std::io::stdout(),
        "mock listens on http://{} (settings: GET and POST /_ctl, counts: GET /_stats)",
        server.address()
    );
    if let Some(thread) = server.thread.take() {
        let _ = thread.join();
    }
    Ok(())
}
