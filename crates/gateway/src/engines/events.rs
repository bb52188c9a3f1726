//! The events of an engine's KV cache, as it publishes them. When they break off or some are missed, what is known of
//! the cache is unsure, and routing goes on with what it knows by itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pointsman_routing::engine::CacheChange;
use pointsman_routing::fleet::Event;
use pointsman_wire::engine::kv_events::zmtp::{self, Decoder};
use pointsman_wire::engine::kv_events::{self, KvEvent, Sequence, Step};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::Engine;
use crate::app::App;
use crate::upstream::resolve;
use crate::{clock, descriptors};

/// Time for a connection and a greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until it is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// What one read can take.
const READ_BYTES: usize = 64 * 1024;

/// Listens for as long as it is let.
pub(super) async fn run(app: Arc<App>, engine: Arc<Engine>, port: u16) {
    let provider = engine.endpoint.provider.as_str();
    let mut told = false;
    // Numbers go on over a new connection: what was missed meanwhile shows.
    let mut sequence = Sequence::default();
    let mut block_tokens = 0;
    loop {
        let broken = listen(&app, &engine, port, (&mut sequence, &mut block_tokens, &mut told)).await;
        let error = broken.err().map_or_else(String::new, |error| error.to_string());
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                provider,
                port,
                error,
                "no events of the engine's KV cache; what it holds is unsure"
            );
        }
        note(&app, &engine, [CacheChange::Unsure]);
        app.metrics.engine_polled(provider, "events_lost");
        sleep(RETRY).await;
    }
}

async fn listen(
    app: &App,
    engine: &Engine,
    port: u16,
    (sequence, block_tokens, told): (&mut Sequence, &mut u64, &mut bool),
) -> io::Result<()> {
    let connecting = timeout(CONNECT_TIMEOUT, resolve::connect(&engine.endpoint, port));
    let mut stream = connecting.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    descriptors::watch_provider(&stream)?;
    stream.write_all(&zmtp::opening()).await?;
    let mut decoder = Decoder::default();
    let mut scratch = vec![0; READ_BYTES];
    loop {
        let read = stream.read(&mut scratch).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        decoder.push(&scratch[..read]);
        let was_ready = decoder.is_ready();
        while let Some(frames) = decoder.message().map_err(io::Error::other)? {
            let Some((number, events)) = kv_events::read(&frames) else {
                note(app, engine, [CacheChange::Unsure]);
                continue;
            };
            let step = sequence.step(number);
            let before = match step {
                Step::Next if number > 0 => None,
                // Nothing was published before the first, so it begins with nothing.
                Step::Next => Some(CacheChange::Cleared),
                Step::First | Step::Gap | Step::Restart => Some(CacheChange::Unsure),
            };
            if step == Step::Restart {
                note(app, engine, [CacheChange::Cleared]);
            }
            let before = before.filter(|_| step != Step::Restart || number > 0);
            *told = false;
            let changes = events.into_iter().map(|event| match event {
                KvEvent::Stored { blocks, block_tokens: tokens } => {
                    *block_tokens = tokens;
                    CacheChange::Stored(blocks.saturating_mul(tokens))
                }
                KvEvent::Removed { blocks } => CacheChange::Removed(blocks.saturating_mul(*block_tokens)),
                KvEvent::Cleared => CacheChange::Cleared,
            });
            let changes: Vec<CacheChange> = before.into_iter().chain(changes).collect();
            note(app, engine, changes);
        }
        if decoder.is_ready() && !was_ready {
            stream.write_all(&zmtp::SUBSCRIBE_TO_ALL).await?;
        }
    }
}

fn note(app: &App, engine: &Engine, changes: impl IntoIterator<Item = CacheChange>) {
    let now = clock::now();
    let mut live = app.live.lock();
    for change in changes {
        for (deployment, _) in &engine.deployments {
            live.fleet.observe(now, Event::Cache { deployment: *deployment, change });
        }
    }
}
