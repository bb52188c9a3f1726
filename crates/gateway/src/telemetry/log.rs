//! The gateway's own log, on standard error.

use pointsman_settings::sections::{LogConfig, LogFormat, LogLevel};
use tracing_subscriber::EnvFilter;

use super::log_sink::Lines;
use super::record::Record;

/// What watches the config file tells of every change in its folder: where the log lies there too, each line about a
/// line would be followed by another.
const QUIET: [&str; 3] = ["notify", "mio", "inotify"];

/// Starts logging. `POINTSMAN_LOG` (a filter of the `tracing` crate) overrides the configured level.
pub fn init(config: &LogConfig) {
    let filter =
        EnvFilter::try_from_env("POINTSMAN_LOG").unwrap_or_else(|_| EnvFilter::new(directives(config.level)));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines::new).with_target(false);
    // A second start in one process (tests do that) keeps the first.
    let _ = match config.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}

/// Writes the line of a request that ended: for whoever runs the gateway if it did not go well, else for debugging.
/// Nothing is formatted unless its level is on.
pub fn request(record: &Record) {
    // The level of an event is fixed where it is written.
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                request_id = %record.id,
                model = record.model.as_deref(),
                tenant = record.tenant.as_deref(),
                outcome = record.outcome,
                // What was invalid is told in the client's words, which do not belong here.
                why = record.detail.as_deref().filter(|_| record.outcome != "invalid"),
                status = record.status,
                deployment = record.attempts.iter().rfind(|attempt| !attempt.outrun).map(|attempt| &*attempt.name),
                attempts = record.attempts.len(),
                queue_us = record.queue_us,
                total_us = record.total_us,
                overhead_us = record.overhead_us,
                "request"
            )
        };
    }
    let well = record.outcome == "completed";
    // Strangers must not be able to fill the log.
    if well || record.tenant.is_none() { line!(debug) } else { line!(info) }
}

/// The filter of a level: the level, and no more than warnings of those who are to be quiet.
fn directives(level: LogLevel) -> String {
    let own = level.name();
    let quiet = if level == LogLevel::Error { own } else { LogLevel::Warn.name() };
    QUIET.iter().fold(own.to_owned(), |all, target| format!("{all},{target}={quiet}"))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use pointsman_routing::Now;
    use serde_json::{Value, json};

    use super::super::record::RequestId;
    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record(outcome: &'static str, detail: Option<&str>) -> Record {
        Record {
            id: RequestId(7),
            at_unix_ms: 0,
            arrived: Now::ZERO,
            operation: "chat",
            dialect: "openai",
            conversion: Default::default(),
            model: Some("m".into()),
            tenant: Some("t\u{1b}".into()),
            key: None,
            facts: None,
            decisions: Vec::new(),
            attempts: Vec::new(),
            noted: Default::default(),
            ties: Default::default(),
            outcome,
            detail: detail.map(str::to_owned),
            status: 503,
            usage: None,
            cost_micro_usd: None,
            hedge_cost_micro_usd: None,
            queue_us: 1,
            overhead_us: 2,
            first_content_us: None,
            total_us: 3,
            names: Arc::default(),
        }
    }

    /// The line of a request at a level.
    fn line(level: &str, record: &Record) -> Option<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(level))
            .with_writer(move || writer.clone())
            .json()
            .flatten_event(true)
            .finish();
        tracing::subscriber::with_default(subscriber, || request(record));
        let text = lines.0.lock().expect("not poisoned").clone();
        (!text.is_empty()).then(|| serde_json::from_slice(&text).expect("one line of JSON"))
    }

    #[test]
    fn every_request_has_one_line_at_its_level() {
        for (outcome, detail, at_info) in [
            ("completed", None, false),
            ("rejected", Some("queue_full"), true),
            ("failed", Some("connect"), true),
            ("truncated", Some("idle_timeout"), true),
            ("client_gone", Some("relaying"), true),
            ("invalid", Some("what a client wrote"), true),
        ] {
            let record = record(outcome, detail);
            assert_eq!(line("info", &record).is_some(), at_info, "{outcome} {detail:?}");
            let stranger = Record { tenant: None, ..self::record(outcome, detail) };
            assert!(line("info", &stranger).is_none(), "{outcome} of a stranger");
            let line = line("debug", &record).expect("a line");
            assert_eq!(line["outcome"], outcome);
            assert_eq!(line["why"], json!(detail.filter(|_| outcome != "invalid")), "{outcome}");
            assert_eq!(
                (&line["request_id"], &line["tenant"], &line["status"], &line["total_us"]),
                (&json!(format!("{:032x}", 7)), &json!("t\u{1b}"), &json!(503), &json!(3))
            );
        }
    }

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
