//! The gateway's own log, on standard error.

use pointsman_settings::sections::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// Starts logging. `POINTSMAN_LOG` (a filter of the `tracing` crate) overrides the configured level.
pub fn init(config: &LogConfig) {
    let filter =
        EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| EnvFilter::new(config.level.name()));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests do that) keeps the first.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
