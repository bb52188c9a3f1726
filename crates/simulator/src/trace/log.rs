//! The decision log of Pointsman: a record a line, without any prompt.

use pointsman_routing::facts::{Class, Lane};
use serde::Deserialize;

use super::TraceError;
use super::mooncake::without_place;
use crate::workload::Record;

#[derive(Deserialize)]
struct Line {
    at_unix_ms: u64,
    model: Option<String>,
    tenant: Option<String>,
    facts: Option<FactsOf>,
    usage: Option<UsageOf>,
}

#[derive(Deserialize)]
struct FactsOf {
    tokens_in_estimate: u32,
    #[serde(default)]
    lane: Option<String>,
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    session_hash: Option<String>,
    /// How long each beginning is, and its hash in hexadecimal digits.
    #[serde(default)]
    prefix_chain: Vec<(u32, String)>,
}

#[derive(Deserialize)]
struct UsageOf {
    tokens_in: u64,
    tokens_out: u64,
}

/// Output tokens of an answer that did not tell.
const TOKENS_OUT_UNKNOWN: u32 = 256;

/// A request, or nothing where it was invalid before there was anything to route.
pub(super) fn parse(line: &[u8]) -> Result<Option<Record>, TraceError> {
    let line: Line = serde_json::from_slice(line)
        .map_err(|error| TraceError::new(error.column().to_string(), without_place(&error)))?;
    let Some(facts) = line.facts else { return Ok(None) };
    let tokens = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let used = line.usage.filter(|usage| usage.tokens_out > 0);
    let class = facts.class.and_then(|name| Class::ALL.into_iter().find(|class| class.name() == name));
    let hex = |text: &String| u64::from_str_radix(text, 16);
    let chain = facts.prefix_chain.iter().map(|(end, hash)| Ok((*end, hex(hash)?)));
    let blocks = chain.collect::<Result<Vec<_>, std::num::ParseIntError>>();
    let session = facts.session_hash.as_ref().map_or(Ok(0), hex);
    let (Ok(blocks), Ok(session)) = (blocks, session) else {
        let message = "a hash is 16 hexadecimal digits";
        return Err(TraceError::new("facts".to_owned(), message));
    };
    if blocks.windows(2).any(|two| two[0].0 >= two[1].0) {
        return Err(TraceError::new("facts.prefix_chain".to_owned(), "its lengths must ascend"));
    }
    Ok(Some(Record {
        at_ns: line.at_unix_ms.saturating_mul(1_000_000),
        tokens_in: used.as_ref().map_or(facts.tokens_in_estimate, |usage| tokens(usage.tokens_in)),
        tokens_out: used.map_or(TOKENS_OUT_UNKNOWN, |usage| tokens(usage.tokens_out)),
        tenant: line.tenant,
        model: line.model,
        session,
        lane: if facts.lane.as_deref() == Some("batch") { Lane::Batch } else { Lane::Live },
        class: class.unwrap_or_default(),
        blocks,
    }))
}
