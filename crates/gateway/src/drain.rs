//! The ends of drains. When the time of a drained deployment is over, everything under way asks its flow whether it may
//! go on; which requests end is decided there.

use std::sync::Arc;

use pointsman_routing::Now;

use crate::app::App;
use crate::clock;

/// Waits for the ends of drains for as long as the process lives.
pub async fn run(app: Arc<App>) {
    loop {
        let due = app.live.lock().fleet.next_drain_end();
        tokio::select! {
            () = app.installed.notified() => {}
            () = tokio::time::sleep_until(clock::instant(due.unwrap_or(Now::NEVER))), if due.is_some() => {
                if clock::now() >= due.unwrap_or(Now::NEVER) {
                    app.recalls.send_modify(|count| *count += 1);
                    // It is told once; what it ends is ended by whoever runs it.
                    app.live.lock().fleet.note_drain_end(clock::now());
                }
            }
        }
    }
}
