//! What can be seen from outside: metrics, decision records, logs.

pub mod decision_log;
pub mod log;
pub mod log_sink;
pub mod metrics;
pub mod record;
pub mod ring;
pub mod ties;
