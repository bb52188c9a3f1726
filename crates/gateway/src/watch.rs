//! Watches the config file, and reloads when it changes.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::app::App;
use crate::reload;

/// Editors and orchestrators touch a file several times; what comes within this span is one change.
const SETTLE: Duration = Duration::from_millis(200);

/// Names that are watched at most, where the file is a link to a link.
const LINKS_MAX: usize = 16;

/// Reloads whenever the content of the config file changes; for ever. Does nothing without a file.
pub async fn run(app: Arc<App>) {
    let path = app.source.lock().unwrap_or_else(PoisonError::into_inner).path.clone();
    let Some(path) = path else { return std::future::pending().await };
    let (sender, mut changes) = mpsc::channel(1);
    let names = names(&path);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| concerns(&event, &names)) {
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

/// The names in the folder whose change may be a change of the file: its own and, where it is a link, the links on the
/// way to what it points at within the folder (orchestrators switch `..data` over).
fn names(path: &Path) -> Vec<OsString> {
    let mut names = Vec::new();
    let mut next = path.to_owned();
    while names.len() < LINKS_MAX
        && let Some(name) = next.file_name().map(OsStr::to_owned)
    {
        let linked = std::fs::read_link(&next).ok();
        names.push(name);
        let Some(target) = linked else { break };
        if let Some(Component::Normal(first)) = target.components().next() {
            names.push(first.to_owned());
        }
        next = next.with_file_name(target);
    }
    names
}

/// Whether an event may be a change of the file. The log may lie in the same folder and grow with each look.
fn concerns(event: &notify::Event, names: &[OsString]) -> bool {
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| names.iter().any(|known| known == name));
    // An event without a path says that some were lost.
    !event.kind.is_access() && (event.paths.is_empty() || event.paths.iter().any(named))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use notify::event::{AccessKind, CreateKind, Flag, ModifyKind};
    use notify::{Event, EventKind};

    use super::*;

    #[test]
    fn only_what_is_about_the_config_file_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = folder.path().join("plain.yaml");
        let mounted = folder.path().join("mounted.yaml");
        symlink("..data/mounted.yaml", &mounted).expect("linked");
        let write = EventKind::Modify(ModifyKind::Any);
        for (config, kind, name, expected) in [
            (&plain, write, "plain.yaml", true),
            (&plain, EventKind::Create(CreateKind::Any), "plain.yaml", true),
            (&plain, EventKind::Access(AccessKind::Any), "plain.yaml", false),
            (&plain, write, "pointsman.log", false),
            (&plain, write, "..data", false),
            (&mounted, write, "..data", true),
            (&mounted, write, "mounted.yaml", true),
            (&mounted, write, "pointsman.log", false),
        ] {
            let event = Event::new(kind).add_path(folder.path().join(name));
            assert_eq!(concerns(&event, &names(config)), expected, "{config:?} {kind:?} {name}");
        }
        let lost = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert!(concerns(&lost, &names(&plain)));
    }
}
