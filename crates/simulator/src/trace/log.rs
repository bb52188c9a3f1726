//! The decision log of Pointsman: a record a line, without any prompt.

use std::time::Duration;

use pointsman_routing::catalog::Capabilities;
use pointsman_routing::facts::{Class, Lane, Objective};
use serde::Deserialize;

use super::TraceError;
use super::mooncake::without_place;
use crate::workload::{Details, Record};

/// The part of a record that says what was asked for.
#[derive(Deserialize)]
pub(crate) struct Line {
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
    #[serde(default)]
    user_hash: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    needs: Option<Vec<String>>,
    #[serde(default)]
    tokens_in_min: Option<u32>,
    #[serde(default)]
    tokens_out_max: Option<u32>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    objective: Option<ObjectiveOf>,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    deadline_ms: Option<u64>,
}

#[derive(Deserialize)]
struct ObjectiveOf {
    first_token_ms: Option<u64>,
    per_token_ms: Option<u64>,
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
    read(line)?.record(None)
}

/// What a line says was asked for.
pub(crate) fn read(line: &[u8]) -> Result<Line, TraceError> {
    serde_json::from_slice(line)
        .map_err(|error| TraceError::new(error.column().to_string(), without_place(&error)))
}

impl Line {
    /// Who asked.
    pub(crate) fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or("")
    }

    /// The request, or nothing where it was invalid before there was anything to route. With the hash of its tenant it is
    /// as the router knew it, in all that can choose a deployment; without, only what every trace has.
    pub(crate) fn record(self, tenant_hash: Option<u64>) -> Result<Option<Record>, TraceError> {
        let Some(facts) = self.facts else { return Ok(None) };
        let tokens = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let used = self.usage.filter(|usage| usage.tokens_out > 0);
        let class = facts.class.as_ref();
        let class = class.and_then(|name| Class::ALL.into_iter().find(|class| class.name() == name));
        let hex = |text: &String| u64::from_str_radix(text, 16);
        let chain = facts.prefix_chain.iter().map(|(end, hash)| Ok((*end, hex(hash)?)));
        let blocks = chain.collect::<Result<Vec<_>, std::num::ParseIntError>>();
        let session = facts.session_hash.as_ref().map(hex).transpose();
        let user = facts.user_hash.as_ref().map(hex).transpose();
        let (Ok(blocks), Ok(session), Ok(user_hash)) = (blocks, session, user) else {
            let message = "a hash is 16 hexadecimal digits";
            return Err(TraceError::new("facts".to_owned(), message));
        };
        if blocks.windows(2).any(|two| two[0].0 >= two[1].0) {
            return Err(TraceError::new("facts.prefix_chain".to_owned(), "its lengths must ascend"));
        }
        let tokens_out_unknown = facts.tokens_out_max.unwrap_or(u32::MAX).min(TOKENS_OUT_UNKNOWN);
        let details = tenant_hash.map(|tenant_hash| Box::new(facts.details(tenant_hash, session, user_hash)));
        Ok(Some(Record {
            at_ns: self.at_unix_ms.saturating_mul(1_000_000),
            tokens_in: used.as_ref().map_or(facts.tokens_in_estimate, |usage| tokens(usage.tokens_in)),
            tokens_out: used.map_or(tokens_out_unknown, |usage| tokens(usage.tokens_out)),
            tenant: self.tenant,
            model: self.model,
            session: session.unwrap_or(0),
            lane: if facts.lane.as_deref() == Some("batch") { Lane::Batch } else { Lane::Live },
            class: class.unwrap_or_default(),
            blocks,
            details,
        }))
    }
}

impl FactsOf {
    fn details(&self, tenant_hash: u64, session_hash: Option<u64>, user_hash: Option<u64>) -> Details {
        let named = |name: &String| Capabilities::NAMES.into_iter().find(|(_, known)| known == name);
        let needs = self.needs.as_ref().map(|needs| {
            needs.iter().filter_map(named).fold(Capabilities::NONE, |all, (one, _)| all.with(one))
        });
        let span = |ms: Option<u64>| ms.map(Duration::from_millis);
        let objective = self.objective.as_ref().map(|objective| Objective {
            first_token: span(objective.first_token_ms),
            per_token: span(objective.per_token_ms),
        });
        Details {
            needs: needs.filter(|needs| !needs.is_empty()).unwrap_or(Capabilities::CHAT),
            stream: self.stream.unwrap_or(true),
            tokens_in_estimate: self.tokens_in_estimate,
            tokens_in_min: self.tokens_in_min.unwrap_or(self.tokens_in_estimate),
            tokens_out_max: self.tokens_out_max,
            version: self.version.as_deref().map(Into::into),
            region: self.region.as_deref().map(Into::into),
            tags: self.tags.iter().map(|tag| tag.as_str().into()).collect(),
            objective: objective.unwrap_or_default(),
            deadline: span(self.deadline_ms),
            tenant_hash,
            session_hash,
            user_hash,
        }
    }
}
