//! Where the configuration comes from: the file, the changes made through the admin API on top, and reloads of both.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use pointsman_settings::overlay::Overlay;
use pointsman_settings::{Config, Diagnostic, Problem, Sources, diff, restart_needed};
use thiserror::Error;

use crate::app::{App, Source};

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file says something wrong.
    #[error("{}", told(.path, .found))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, each with its place.
        found: Vec<Diagnostic>,
    },
    /// The file is right, but with the changes made through the admin API on top it is not.
    #[error("with the changes made through the admin API: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Overlay(Vec<Problem>),
}

fn told(path: &Path, found: &[Diagnostic]) -> String {
    found.iter().map(|one| format!("{}:{one}", path.display())).collect::<Vec<_>>().join("\n")
}

/// What a reload changed.
#[derive(Debug, serde::Serialize)]
pub struct Reloaded {
    /// The configuration in force.
    pub generation: u64,
    /// What changed, a line a field.
    pub changes: Vec<String>,
    /// Keys that changed but hold from the next start only.
    pub restart_needed: Vec<&'static str>,
    /// Changes made through the admin API that found no place any more.
    pub stale: Vec<String>,
}

/// Reads and validates a config file.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| LoadError::Read { path: path.to_owned(), error })?;
    let env = |name: &str| std::env::var(name).ok();
    let file = |name: &str| std::fs::read_to_string(name).map_err(|error| error.to_string());
    pointsman_settings::parse(&text, &Sources { env: &env, file: &file })
        .map_err(|found| LoadError::Invalid { path: path.to_owned(), found })
}

/// Reads the changes that were made through the admin API before the last stop.
pub fn load_overlay(config: &Config) -> anyhow::Result<Overlay> {
    let Some(path) = &config.admin_changes.file else { return Ok(Overlay::default()) };
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {error}; mend or remove the file", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Overlay::default()),
        Err(error) => Err(anyhow::anyhow!("cannot read {}: {error}", path.display())),
    }
}

/// Lays the changes over the file's configuration and validates the result.
pub fn combine(base: &Config, overlay: &Overlay) -> Result<(Config, Vec<String>), LoadError> {
    let mut config = base.clone();
    let stale = overlay.apply(&mut config);
    let found = pointsman_settings::validate(&config);
    if found.is_empty() { Ok((config, stale)) } else { Err(LoadError::Overlay(found)) }
}

/// Reads the file again and puts it in force. When it is wrong, the old configuration stays, and the error is kept for
/// whoever asks.
pub fn reload(app: &App) -> Result<Reloaded, LoadError> {
    let mut source = app.source.lock().unwrap_or_else(PoisonError::into_inner);
    let result = try_reload(app, &mut source);
    match &result {
        Ok(reloaded) => {
            source.last_error = None;
            for change in &reloaded.changes {
                tracing::info!(change, "reloaded");
            }
            for key in &reloaded.restart_needed {
                tracing::warn!(key, "changed, but holds from the next start only");
            }
        }
        Err(error) => {
            app.metrics.reload_failures.inc();
            tracing::error!(%error, "the reload was refused; the old configuration goes on");
            source.last_error = Some(error.to_string());
        }
    }
    if let Some(log) = &app.decision_log {
        log.reopen();
    }
    result
}

fn try_reload(app: &App, source: &mut Source) -> Result<Reloaded, LoadError> {
    let base = match &source.path {
        Some(path) => load(path)?,
        None => source.base.clone(),
    };
    let (config, stale) = combine(&base, &source.overlay)?;
    source.base = base;
    let old = Arc::clone(&app.snapshot.load().config);
    let (changes, restart_needed) = (diff(&old, &config), restart_needed(&old, &config));
    let snapshot = app.install(config);
    Ok(Reloaded { generation: snapshot.generation, changes, restart_needed, stale })
}

/// Changes the overlay, if the configuration stays valid with it, and writes it back if a file is configured.
///
/// `change` gets the configuration in force and the overlay, and may refuse.
pub fn change_overlay<E: From<LoadError>>(
    app: &App,
    change: impl FnOnce(&Config, &mut Overlay) -> Result<(), E>,
) -> Result<u64, E> {
    let mut source = app.source.lock().unwrap_or_else(PoisonError::into_inner);
    let mut overlay = source.overlay.clone();
    change(&app.snapshot.load().config, &mut overlay)?;
    let (config, _) = combine(&source.base, &overlay)?;
    if let Some(path) = &config.admin_changes.file
        && let Err(error) = write_back(path, &overlay)
    {
        // The change is in force all the same; it would only be lost with the process.
        tracing::error!(path = %path.display(), %error, "cannot write the admin changes back");
    }
    source.overlay = overlay;
    Ok(app.install(config).generation)
}

/// Writes a file so that a reader sees either the old content or the new.
fn write_back(path: &Path, overlay: &Overlay) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec_pretty(overlay)?)?;
    std::fs::rename(&temporary, path)
}
