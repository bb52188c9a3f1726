//! Mooncake's traces: a JSON object a line.

use serde::Deserialize;

use super::TraceError;
use crate::workload::{Record, mix};

/// Tokens of a block.
const BLOCK_TOKENS: u32 = 512;

#[derive(Deserialize)]
struct Line {
    /// Milliseconds.
    timestamp: u64,
    input_length: u32,
    output_length: u32,
    /// Equal leading numbers are equal beginnings.
    #[serde(default)]
    hash_ids: Vec<u64>,
}

pub(super) fn parse(line: &[u8]) -> Result<Record, TraceError> {
    let line: Line = serde_json::from_slice(line)
        .map_err(|error| TraceError::new(error.column().to_string(), without_place(&error)))?;
    // Only whole blocks can be shared.
    let whole = (line.input_length / BLOCK_TOKENS) as usize;
    let mut chain = 0;
    let blocks = line.hash_ids.iter().take(whole).zip(1..).map(|(id, place): (_, u32)| {
        chain = mix(chain ^ id.wrapping_add(1));
        (place * BLOCK_TOKENS, chain)
    });
    Ok(Record {
        at_ns: line.timestamp.saturating_mul(1_000_000),
        tokens_in: line.input_length,
        tokens_out: line.output_length,
        blocks: blocks.collect(),
        ..Record::default()
    })
}

/// The message without the line and column that it ends with, which are those within the line.
pub(super) fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.clone(), |end| text[..end].to_owned())
}
