//! Where the configuration comes from: the file, the changes made through the admin API on top, and reloads of both.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use pointsman_settings::overlay::{Overlay, Resting};
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
    /// What the file says is right, but not with what the command line says.
    #[error("{}", listed(.0))]
    Unfit(Vec<Problem>),
    /// The file is right, but with the changes made through the admin API on top it is not.
    #[error("with the changes made through the admin API: {}", listed(.0))]
    Overlay(Vec<Problem>),
}

fn listed(found: &[Problem]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn told(path: &Path, found: &[Diagnostic]) -> String {
    found.iter().map(|one| format!("{}:{one}", path.display())).collect::<Vec<_>>().join("\n")
}

/// What the command line says instead of the file; it holds across reloads.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overrides {
    /// Where clients are listened to.
    pub listen: Option<SocketAddr>,
    /// Where the admin API is.
    pub admin: Option<SocketAddr>,
}

impl Overrides {
    /// The configuration with these in it.
    #[must_use]
    pub fn over(&self, config: Config) -> Config {
        let (listen, admin) = (self.listen.unwrap_or(config.listen), self.admin.unwrap_or(config.admin));
        Config { listen, admin, ..config }
    }
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
    /// Changes made through the admin API that were dropped, or are ignored because they found no place any more.
    pub stale: Vec<String>,
    /// What the file says new, but a change made through the admin API overrides.
    pub overridden: Vec<String>,
}

/// Reads and validates a config file.
pub fn load(path: &Path) -> Result<Config, LoadError> {
    parse(path, &read(path)?)
}

fn read(path: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(path).map_err(|error| LoadError::Read { path: path.to_owned(), error })
}

fn parse(path: &Path, text: &str) -> Result<Config, LoadError> {
    let env = |name: &str| std::env::var(name).ok();
    let file = |name: &str| std::fs::read_to_string(name).map_err(|error| error.to_string());
    pointsman_settings::parse(text, &Sources { env: &env, file: &file })
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

/// A configuration with the admin changes on top, and what is to be told of those.
pub struct Combined {
    /// The configuration to put in force.
    pub config: Config,
    /// The changes without those that the file has caught up with.
    pub overlay: Overlay,
    /// Whether some were left out, so that they are to be written back.
    pub to_save: bool,
    /// Changes that were dropped or are ignored, in words.
    pub stale: Vec<String>,
    /// What the file says new, but a change overrides, in words.
    pub overridden: Vec<String>,
}

/// Lays the changes over the configuration of the file, which was `before`.
pub fn combine(before: &Config, file: &Config, mut overlay: Overlay) -> Result<Combined, LoadError> {
    let unsettled = overlay.clone();
    let mut stale = overlay.settle(file);
    let to_save = overlay != unsettled;
    let (config, resting) = overlay.over(file).map_err(LoadError::Unfit)?;
    stale.extend(resting.iter().map(ToString::to_string));
    let mut in_force = overlay.clone();
    for one in &resting {
        in_force.take_back(&one.model, &one.deployment);
    }
    let overridden = in_force.overridden(before, file);
    Ok(Combined { config, overlay, to_save, stale, overridden })
}

/// Logs what became of admin changes, and with what file they can be looked at.
pub fn tell(config: &Config, stale: &[String], overridden: &[String]) {
    let file = config.admin_changes.file.as_ref().map(|path| path.display().to_string());
    for line in stale.iter().chain(overridden) {
        tracing::warn!(file, "{line}");
    }
}

/// Reads the file again and puts it in force. When it is wrong, the old configuration stays, and the error is kept for
/// whoever asks.
pub fn reload(app: &App) -> Result<Reloaded, LoadError> {
    let mut source = app.source.lock().unwrap_or_else(PoisonError::into_inner);
    let result = try_reload(app, &mut source);
    match &result {
        Ok(reloaded) => {
            source.last_error = None;
            if reloaded.changes.is_empty() {
                tracing::info!("reloaded, nothing changed");
            }
            for change in &reloaded.changes {
                tracing::info!(change, "reloaded");
            }
            for key in &reloaded.restart_needed {
                tracing::warn!(key, "changed, but holds from the next start only");
            }
            tell(&source.base, &reloaded.stale, &reloaded.overridden);
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
        Some(path) => {
            let text = read(path)?;
            // Noted before it is judged, so that the file watch does not reload the same again.
            let parsed = parse(path, &text);
            source.seen = Some(text.into_bytes());
            source.overrides.over(parsed?)
        }
        None => source.base.clone(),
    };
    let combined = combine(&source.base, &base, source.overlay.clone())?;
    source.base = base;
    source.overlay = combined.overlay;
    if combined.to_save {
        save(&combined.config, &source.overlay);
    }
    let config = combined.config;
    let old = Arc::clone(&app.snapshot.load().config);
    let (mut changes, restart_needed) = (diff(&old, &config), restart_needed(&old, &config));
    // What is the same keeps its generation, so that an etag that somebody holds stays good.
    if *old != config {
        if changes.is_empty() {
            changes.push("the order of a list changed".to_owned());
        }
        app.install(config);
    }
    let generation = app.snapshot.load().generation;
    let (stale, overridden) = (combined.stale, combined.overridden);
    Ok(Reloaded { generation, changes, restart_needed, stale, overridden })
}

/// Changes the overlay, if the configuration stays valid with it, and writes it back if a file is configured.
///
/// `change` gets the configuration of the file, the one in force and the overlay, and may refuse.
pub fn change_overlay<E: From<LoadError>>(
    app: &App,
    change: impl FnOnce(&Config, &Config, &mut Overlay) -> Result<(), E>,
) -> Result<(), E> {
    let mut source = app.source.lock().unwrap_or_else(PoisonError::into_inner);
    let mut overlay = source.overlay.clone();
    let old = Arc::clone(&app.snapshot.load().config);
    change(&source.base, &old, &mut overlay)?;
    let (_, ignored) = source.overlay.over(&source.base).map_err(LoadError::Unfit)?;
    let (config, resting) = overlay.over(&source.base).map_err(LoadError::Unfit)?;
    // What was ignored before may stay so; this change must not be, and must not push another out.
    let known = |one: &Resting| {
        ignored.iter().any(|old| (&old.model, &old.deployment) == (&one.model, &one.deployment))
            && source.overlay.get(&one.model, &one.deployment) == overlay.get(&one.model, &one.deployment)
    };
    let refused: Vec<Problem> =
        resting.into_iter().filter(|one| !known(one)).flat_map(|one| one.why).collect();
    if !refused.is_empty() {
        return Err(LoadError::Overlay(refused).into());
    }
    save(&config, &overlay);
    source.overlay = overlay;
    if *old != config {
        app.install(config);
    }
    Ok(())
}

/// Writes the changes back, if a file is configured.
pub fn save(config: &Config, overlay: &Overlay) {
    if let Some(path) = &config.admin_changes.file
        && let Err(error) = write_back(path, overlay)
    {
        // The change is in force all the same; it would only be lost with the process.
        tracing::error!(path = %path.display(), %error, "cannot write the admin changes back");
    }
}

/// Writes a file so that a reader sees either the old content or the new.
fn write_back(path: &Path, overlay: &Overlay) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(overlay)?)?;
    // On the disk before it takes the old one's place: power may fail in between.
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}
