//! Decision records as they are read back: from a decision log, or from the admin API.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::Context;
use pointsman_routing::decision::Rejection;
use pointsman_simulator::diagnosis::{End, Sent, Served};
use pointsman_simulator::trace::{BadLines, Ended, Lines};
use serde::Deserialize;

/// Refusals for want of a slot, or of one in time.
const NO_SLOT: [&str; 5] = [
    Rejection::Unavailable.name(),
    Rejection::QueueFull.name(),
    Rejection::Overloaded.name(),
    Rejection::QueueTimeout.name(),
    Rejection::TooLate.name(),
];

/// The part of a record that tells how a request was served.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) request_id: String,
    at_unix_ms: u64,
    model: Option<String>,
    mirror_of: Option<String>,
    outcome: String,
    detail: Option<String>,
    #[serde(default)]
    attempts: Vec<Attempt>,
    usage: Option<Usage>,
    queue_us: Option<u64>,
    first_content_us: Option<u64>,
    total_us: u64,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    deployment: String,
    started_us: u64,
    ended_us: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    tokens_out: u64,
}

impl Line {
    /// The request as it is looked at; `None` where it was refused before it had a model, or is a shadow's copy.
    pub(super) fn served(self) -> Option<Served> {
        let arrived_s = self.at_unix_ms as f64 / 1e3;
        let after = |us: u64| arrived_s + us as f64 / 1e6;
        let ended_s = after(self.total_us);
        let attempts = self.attempts.into_iter().map(|one| Sent {
            deployment: one.deployment,
            from_s: after(one.started_us),
            until_s: one.ended_us.map_or(ended_s, after),
        });
        let attempts: Vec<Sent> = attempts.collect();
        let end = match self.outcome.as_str() {
            "completed" => End::Answered,
            "client_gone" => End::Left,
            "rejected" if self.detail.as_deref().is_some_and(|why| NO_SLOT.contains(&why)) => End::Refused,
            // What nobody could have served says nothing of how it was routed.
            "rejected" => return None,
            _ => End::Failed,
        };
        Some(Served {
            model: self.model.filter(|_| self.mirror_of.is_none())?,
            arrived_s,
            ended_s,
            queued_s: self.queue_us.unwrap_or(0) as f64 / 1e6,
            first_content_s: self.first_content_us.map(|us| us as f64 / 1e6),
            tokens_out: self.usage.map_or(0, |usage| usage.tokens_out),
            end,
            attempts,
        })
    }
}

/// The requests of a decision log, and the lines that were left out: those that are too long, and a last one that was cut
/// off when its process was killed.
///
/// # Errors
/// When the file cannot be read, or a line is no decision record; names the line.
pub(super) fn read(path: &Path) -> anyhow::Result<(Vec<Served>, BadLines)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut lines, mut served, mut left_out) =
        (Lines::new(BufReader::new(file)), Vec::new(), BadLines::default());
    loop {
        let ended = lines.advance();
        let number = lines.number();
        match ended.with_context(|| format!("line {number} of {}", path.display()))? {
            None => return Ok((served, left_out)),
            Some(Ended::TooLong) => left_out.note_too_long(number),
            Some(Ended::Whole | Ended::Cut) if lines.line().is_empty() => {}
            Some(ended @ (Ended::Whole | Ended::Cut)) => match serde_json::from_slice::<Line>(lines.line()) {
                Ok(one) => served.extend(one.served()),
                Err(_) if ended == Ended::Cut => left_out.note(number, "was cut off"),
                Err(error) => {
                    let path = path.display();
                    return Err(anyhow::anyhow!("line {number} of {path} is no decision record: {error}"));
                }
            },
        }
    }
}
