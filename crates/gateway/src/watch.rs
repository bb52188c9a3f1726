//! Watches the config file, and reloads when it changes.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::app::App;
use crate::reload;

/// Editors and orchestrators touch a file several times; what comes within this span is one change.
const SETTLE: Duration = Duration::from_millis(200);

/// Reloads whenever the content of the config file changes; for ever. Does nothing without a file.
pub async fn run(app: Arc<App>) {
    let path = app.source.lock().unwrap_or_else(PoisonError::into_inner).path.clone();
    let Some(path) = path else { return std::future::pending().await };
    let (sender, mut changes) = mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // One waiting change is as good as many.
            let _ = sender.try_send(());
        }
    });
    // The folder is watched, not the file: a file that is replaced by renaming is another file, and so is the target of
    // a link that is switched over.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let watching =
        watcher.and_then(|mut watcher| watcher.watch(folder, RecursiveMode::NonRecursive).map(|()| watcher));
    let _watcher = match watching {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "cannot watch the config file; SIGHUP and the admin API still reload");
            return std::future::pending().await;
        }
    };
    loop {
        // Looked at once before the first change is told of: one may have come before the watch stood.
        if has_changed(&app, &path) {
            // What came of it is logged and kept.
            let _ = reload::reload(&app);
        }
        if changes.recv().await.is_none() {
            return;
        }
        tokio::time::sleep(SETTLE).await;
        while changes.try_recv().is_ok() {}
    }
}

/// Whether the file holds something else than when it was last looked at.
fn has_changed(app: &App, path: &Path) -> bool {
    let content = std::fs::read(path).ok();
    let mut source = app.source.lock().unwrap_or_else(PoisonError::into_inner);
    // A file that is gone for a moment is being replaced.
    let changed = content.is_some() && content != source.seen;
    if changed {
        source.seen = content;
    }
    changed
}
