//! The gateway's own log, on standard error.

use pointsman_settings::sections::{LogConfig, LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

/// What watches the config file tells of every change in its folder: where the log lies there too, each line about a
/// line would be followed by another.
const QUIET: [&str; 3] = ["notify", "mio", "inotify"];

/// Starts logging. `POINTSMAN_LOG` (a filter of the `tracing` crate) overrides the configured level.
pub fn init(config: &LogConfig) {
    let filter =
        EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| EnvFilter::new(directives(config.level)));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // A second start in one process (tests do that) keeps the first.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// The filter of a level: the level, and no more than warnings of those who are to be quiet.
fn directives(level: LogLevel) -> String {
    let own = level.name();
    let quiet = if level == LogLevel::Error { own } else { LogLevel::Warn.name() };
    QUIET.iter().fold(own.to_owned(), |all, target| format!("{all},{target}={quiet}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watcher_is_quiet_at_every_level() {
        for (level, expected) in [
            (LogLevel::Trace, "trace,notify=warn,mio=warn,inotify=warn"),
            (LogLevel::Error, "error,notify=error,mio=error,inotify=error"),
        ] {
            assert_eq!(directives(level), expected);
            assert!(EnvFilter::try_new(directives(level)).is_ok(), "{expected}");
        }
    }
}
