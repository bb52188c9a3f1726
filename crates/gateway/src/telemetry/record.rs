//! The decision record: everything about one request that explains what became of it. No content of prompts or
//! answers, no secrets.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_routing::catalog::Name;
use pointsman_routing::decision::{Candidate, Decision, Outcome, Why, WhyNot};
use pointsman_routing::facts::PrefixBlock;
use pointsman_routing::flow::{AttemptRecord, Usage};
use pointsman_routing::said::Said;
use pointsman_routing::{DeploymentId, Facts, Now};
use pointsman_wire::chat::{Finding, Findings, Losses};
use serde_json::{Value, json};

use super::ties::{NO_TIES, Ties};
use crate::exchange::Noted;

/// Everything about one request that explains what became of it.
pub struct Record {
    /// The request's id, as in `x-pointsman-request-id`.
    pub id: RequestId,
    /// When it arrived, milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// When it arrived, on the monotonic clock that the decisions use.
    pub arrived: Now,
    /// The client dialect's operation, such as `chat`.
    pub operation: &'static str,
    /// The dialect it came in.
    pub dialect: &'static str,
    /// What became of it in another dialect.
    pub conversion: Conversion,
    /// The model it is for, if it got so far.
    pub model: Option<Name>,
    /// Who asked, if that is known.
    pub tenant: Option<Name>,
    /// The name of the client key.
    pub key: Option<Name>,
    /// What was known for routing.
    pub facts: Option<Facts>,
    /// Every decision, in order.
    pub decisions: Vec<Decision>,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
    /// What was worth telling of their answers.
    pub noted: Noted,
    /// What it has to do with other requests.
    pub ties: Option<Box<Ties>>,
    /// How it ended: `completed`, `rejected`, `failed`, `truncated`, `client_gone`, `invalid`, and for one that was given
    /// another's answer `joined` or `replayed`.
    pub outcome: &'static str,
    /// More on the end: the failure's class, the phase the client left in, what was invalid.
    pub detail: Option<String>,
    /// The status the client was sent; 499 when it left before.
    pub status: u16,
    /// What the answer used.
    pub usage: Option<Usage>,
    /// What it cost, millionths of a USD, if the price is known.
    pub cost_micro_usd: Option<u64>,
    /// What the attempts that were outrun by another probably cost beside that.
    pub hedge_cost_micro_usd: Option<u64>,
    /// Time it waited for a slot.
    pub queue_us: u64,
    /// Time spent in the router itself, apart from the client, the queue and the upstream.
    pub overhead_us: u64,
    /// Time from arrival to first content.
    pub first_content_us: Option<u64>,
    /// Time from arrival to the end.
    pub total_us: u64,
    /// Names of the deployments that the decisions speak of.
    pub names: Arc<BTreeMap<DeploymentId, Name>>,
}

/// What became of a request in another dialect.
#[derive(Debug, Clone, Default)]
pub struct Conversion {
    /// The dialect that it was served in, if that is not its own.
    pub to: Option<&'static str>,
    /// What could not be carried over, there or back.
    pub losses: Losses,
}

impl Conversion {
    /// Whether it was served in another dialect, or lost something on the way to a repair in its own.
    fn is_told(&self) -> bool {
        self.to.is_some() || !self.losses.is_empty()
    }

    fn to_json(&self) -> Value {
        let losses = self.losses.named().iter().map(|loss| json!({"field": loss.field, "why": loss.why}));
        json!({"to": self.to, "losses": losses.collect::<Vec<_>>(), "losses_count": self.losses.count()})
    }
}

/// A request's id: 128 bits, unique without coordination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u128);

impl RequestId {
    /// The id in the form that headers and URLs carry.
    pub fn to_hex(self) -> [u8; 32] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 32];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0.to_be_bytes()) {
            *pair = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
        }
        hex
    }

    /// The id that `text` spells, if it is one.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Record {
    fn ties(&self) -> &Ties {
        self.ties.as_deref().unwrap_or(NO_TIES)
    }

    /// The record as the admin API and the decision log give it.
    pub fn to_json(&self) -> Value {
        let ties = self.ties();
        json!({
            "request_id": self.id.to_string(),
            "at_unix_ms": self.at_unix_ms,
            "operation": self.operation,
            "dialect": self.dialect,
            "conversion": self.conversion.is_told().then(|| self.conversion.to_json()),
            "model": self.model,
            "tenant": self.tenant,
            "key": self.key,
            "facts": self.facts.as_ref().map(|facts| facts_json(facts, self.arrived)),
            "fallbacks": ties.fallbacks_json(),
            "decisions": self.decisions_json(),
            "attempts": self.attempts_json(),
            "tensors": ties.tensors,
            "events": self.events_json(None),
            "mirror_of": ties.mirror_of.map(|id| id.to_string()),
            "batch": ties.line.as_ref().map(|(id, line)| json!({"id": id, "line": line})),
            "idempotency": ties.idempotency.map(|(result, first)| {
                json!({"result": result, "first_request_id": first.to_string()})
            }),
            "outcome": self.outcome,
            "detail": self.detail,
            "status": self.status,
            "usage": self.usage.map(|u| json!({
                "tokens_in": u.tokens_in,
                "tokens_in_cached": u.tokens_in_cached,
                "tokens_in_cache_written": u.tokens_in_cache_written,
                "tokens_in_cache_written_1h": u.tokens_in_cache_written_1h,
                "tokens_in_image": u.tokens_in_image,
                "tokens_in_audio": u.tokens_in_audio,
                "tokens_out_reasoning": u.tokens_out_reasoning,
                "tokens_out_audio": u.tokens_out_audio,
                "tokens_out": u.tokens_out,
                "off_list": u.off_list,
                "estimated": u.estimated,
                "truncated": self.outcome == "truncated",
            })),
            "cost_usd": self.cost_micro_usd.map(|micro| micro as f64 / 1e6),
            "hedge_cost_usd": self.hedge_cost_micro_usd.map(|micro| micro as f64 / 1e6),
            "queue_us": self.queue_us,
            "overhead_us": self.overhead_us,
            "first_content_us": self.first_content_us,
            "total_us": self.total_us,
        })
    }
}

impl Record {
    /// What was worth telling of the answers: of that of one attempt, or of all together.
    fn events_json(&self, attempt: Option<usize>) -> Value {
        let mut all = Findings::default();
        let told = self.noted.iter().filter(|(place, _)| attempt.is_none_or(|attempt| attempt == *place));
        told.for_each(|(_, findings)| all.extend(*findings));
        all.iter().map(Finding::name).collect()
    }

    fn attempts_json(&self) -> Vec<Value> {
        let told = |(place, attempt)| {
            let mut told = attempt_json(attempt, self.arrived);
            told["events"] = self.events_json(Some(place));
            told
        };
        self.attempts.iter().enumerate().map(told).collect()
    }

    /// Every decision, with the model it is about.
    fn decisions_json(&self) -> Vec<Value> {
        let told = |(at, decision)| {
            let mut told = decision_json(decision, self.arrived, &self.names);
            told["model"] = json!(self.ties().model_of(at).or(self.model.as_ref()));
            if matches!(decision.outcome, Outcome::Queued { .. }) {
                // Whatever came of the wait is the next decision; who left has none.
                let until = self.decisions.get(at + 1).map(|next: &Decision| micros(next.at, decision.at));
                told["outcome"]["waited_us"] = json!(until.unwrap_or(self.queue_us));
            }
            told
        };
        self.decisions.iter().enumerate().map(told).collect()
    }
}

/// Beginnings of a prompt in one record, at most: all of a prompt of two million tokens. Were it fewer, two turns of a
/// conversation would have kept different ones, and a replay would not know that they begin alike.
const PREFIX_CHAIN_MAX: usize = 128;

/// The facts, without any prompt: of its beginnings, of its session and of its user there are hashes, salted with the
/// tenant, so that the traffic can be played again.
pub fn facts_json(facts: &Facts, arrived: Now) -> Value {
    json!({
        "version": facts.version,
        "needs": facts.needs.names().collect::<Vec<_>>(),
        "tokens_in_estimate": facts.tokens_in_estimate,
        "tokens_in_min": facts.tokens_in_min,
        "tokens_out_max": facts.tokens_out_max,
        "stream": facts.stream,
        "lane": facts.lane.name(),
        "class": facts.class.name(),
        "session_hash": facts.session_hash.map(hex),
        "prefix_chain": prefix_chain(&facts.prefix),
        "session": facts.session_hash.is_some(),
        "user": facts.user_hash.is_some(),
        "user_hash": facts.user_hash.map(hex),
        "prefix": facts.prefix_hash.is_some(),
        "prefix_blocks": facts.prefix.len(),
        "objective": {
            "first_token_ms": facts.objective.first_token.map(|span| span.as_millis() as u64),
            "per_token_ms": facts.objective.per_token.map(|span| span.as_millis() as u64),
        },
        "region": facts.region,
        "pinned": facts.pinned.is_some(),
        "tags": facts.tags.as_slice(),
        "deadline_ms": facts.deadline.map(|at| at.since(arrived).as_millis() as u64),
    })
}

fn hex(hash: u64) -> String {
    format!("{hash:016x}")
}

/// How long each beginning is, and its hash; of very many every so many, and the last.
fn prefix_chain(prefix: &[PrefixBlock]) -> Vec<Value> {
    let step = prefix.len().div_ceil(PREFIX_CHAIN_MAX).max(1);
    let mut chain: Vec<&PrefixBlock> = prefix.iter().rev().step_by(step).collect();
    chain.reverse();
    chain.into_iter().map(|block| json!([block.tokens, hex(block.hash)])).collect()
}

/// One decision, with names for handles and times relative to the request's arrival.
pub fn decision_json(decision: &Decision, arrived: Now, names: &BTreeMap<DeploymentId, Name>) -> Value {
    let outcome = match &decision.outcome {
        Outcome::Chosen(choice) => json!({
            "kind": "chosen",
            "deployment": choice.name,
            "provider": choice.provider,
            "credential": choice.credential_name,
            "why": why_json(choice.why),
        }),
        Outcome::Queued { ticket, place } => json!({
            "kind": "queued",
            "ticket": ticket.0,
            "ahead": place.ahead,
            "ahead_of_class": place.of_class,
            "ahead_of_tenant": place.of_tenant,
            "waiting_of_classes_before": place.of_classes_before,
            "wait_ms_expected": place.wait.map(|wait| wait.as_millis() as u64),
        }),
        Outcome::Rejected { why, retry_after } => json!({
            "kind": "rejected",
            "why": why.name(),
            "retry_after_ms": retry_after.map(|t| t.as_millis() as u64),
        }),
    };
    json!({
        "at_us": micros(decision.at, arrived),
        "strategy": decision.strategy,
        "used": decision.used,
        "arm": decision.arm,
        "tier": decision.tier,
        "panic": decision.panic,
        "outcome": outcome,
        "candidates": decision.candidates.iter().map(|c| candidate_json(c, decision.at, names)).collect::<Vec<_>>(),
    })
}

fn candidate_json(candidate: &Candidate, at: Now, names: &BTreeMap<DeploymentId, Name>) -> Value {
    json!({
        "deployment": names.get(&candidate.deployment),
        "tier": candidate.tier,
        "eligible": candidate.why_not.is_none(),
        "why_not": candidate.why_not.map(|why| why_not_json(why, at)),
        "score": candidate.score(),
        "slow": (candidate.slow > 1.0).then_some(candidate.slow),
        "tokens_cached": candidate.tokens_cached,
        "predicted_first_token_ms": candidate.predicted_ms(),
        "hot": candidate.hot,
        "inflight": candidate.inflight,
        "limit": candidate.limit,
        "engine_age_ms": candidate.reported.map(|reported| (at - reported).as_millis() as u64),
        "age_ms": candidate.age(at).map(|age| age.as_millis() as u64),
    })
}

fn attempt_json(attempt: &AttemptRecord, arrived: Now) -> Value {
    let since = |at: Option<Now>| at.map(|at| micros(at, arrived));
    json!({
        "deployment": attempt.name,
        "provider": attempt.provider,
        "credential": attempt.credential_name,
        "why": why_json(attempt.why),
        "kind": attempt.kind.name(),
        "outrun": attempt.outrun,
        "taken_back": attempt.taken_back,
        "started_us": micros(attempt.started, arrived),
        "connected_us": since(attempt.connected),
        "headers_us": since(attempt.headers),
        "first_content_us": since(attempt.first_content),
        "ended_us": since(attempt.ended),
        "said": attempt.said.as_ref().map(said_json),
        "failure": attempt.failure.as_ref().map(|f| json!({
            "class": f.class.name(),
            "processed": f.processed,
            "status": f.status,
            "retry_after_ms": f.retry_after.map(|t| t.as_millis() as u64),
        })),
    })
}

/// What a provider said of itself: of limits only those of which it said something.
fn said_json(said: &Said) -> Value {
    let allowances = said.allowances.iter().flat_map(|allowances| allowances.named());
    let told = allowances.filter(|(_, one)| !one.is_unknown());
    let limits = told.map(|(name, one)| {
        let resets_in_ms = one.resets_in.map(|span| span.as_millis() as u64);
        (
            name.to_owned(),
            json!({"limit": one.limit, "remaining": one.remaining, "resets_in_ms": resets_in_ms}),
        )
    });
    json!({"request_id": said.request_id, "model": said.model, "limits": limits.collect::<serde_json::Map<_, _>>()})
}

fn why_json(why: Why) -> Value {
    match why {
        Why::OnlyOne => json!({"rule": "only_one"}),
        Why::NextInTurn => json!({"rule": "next_in_turn"}),
        Why::NextByWeight { weight } => json!({"rule": "next_by_weight", "weight": weight}),
        Why::FewestInFlight { inflight, load } => {
            json!({"rule": "fewest_in_flight", "inflight": inflight, "load": load})
        }
        Why::LowerLatency { score, other } => {
            json!({"rule": "lower_latency", "score": score, "other": other})
        }
        Why::FewestTokens { tokens, load } => {
            json!({"rule": why.name(), "tokens": tokens, "load": load})
        }
        Why::LongestPrefix { tokens_cached } => {
            json!({"rule": why.name(), "tokens_cached": tokens_cached})
        }
        Why::SoonestFirstToken { predicted_ms, tokens_cached, hot, objective } => json!({
            "rule": why.name(),
            "predicted_first_token_ms": predicted_ms,
            "tokens_cached": tokens_cached,
            "all_hot": hot,
            "objective_kept": objective,
        }),
        Why::LighterOfTwo { score, other } => {
            json!({"rule": why.name(), "score": score, "other": other})
        }
        Why::Hashed { rank } => json!({"rule": "hashed", "rank": rank}),
        Why::Drawn { weight } => json!({"rule": "drawn", "weight": weight}),
        Why::Stayed | Why::SlotFreed | Why::Probed | Why::Explored => json!({"rule": why.name()}),
    }
}

fn why_not_json(why: WhyNot, at: Now) -> Value {
    let millis = |until: Now| until.since(at).as_millis() as u64;
    match why {
        WhyNot::Lacks(missing) => json!({"rule": why.name(), "missing": missing.names().collect::<Vec<_>>()}),
        WhyNot::TooLong { context_tokens_max } => {
            json!({"rule": why.name(), "context_tokens_max": context_tokens_max})
        }
        WhyNot::OutputTooLong { output_tokens_max } => {
            json!({"rule": why.name(), "output_tokens_max": output_tokens_max})
        }
        WhyNot::Failed { until } | WhyNot::Cooling { until } | WhyNot::Missing { until } => {
            json!({"rule": why.name(), "returns_in_ms": millis(until)})
        }
        WhyNot::TokensFull { tokens_inflight_max } => {
            json!({"rule": why.name(), "tokens_inflight_max": tokens_inflight_max})
        }
        WhyNot::PoolFull { limit } => json!({"rule": why.name(), "limit": limit.name()}),
        WhyNot::ForeignFull { foreign, until } => {
            json!({"rule": why.name(), "foreign": foreign, "returns_in_ms": millis(until)})
        }
        WhyNot::NoCredential { until } => json!({"rule": why.name(), "returns_in_ms": until.map(millis)}),
        WhyNot::OtherVersion
        | WhyNot::MissingTag
        | WhyNot::OtherArm
        | WhyNot::OtherAccount
        | WhyNot::Tried
        | WhyNot::Drained
        | WhyNot::Probing
        | WhyNot::Ramping
        | WhyNot::TooLate
        | WhyNot::TierWeak
        | WhyNot::Unhealthy
        | WhyNot::Full
        | WhyNot::LaterTier
        | WhyNot::OtherRegion => json!({"rule": why.name()}),
    }
}

fn micros(at: Now, arrived: Now) -> u64 {
    at.since(arrived).as_micros() as u64
}

/// Whether what was chosen is known to be slow.
fn chosen_slow(decision: &Decision) -> bool {
    let Outcome::Chosen(choice) = &decision.outcome else { return false };
    decision.candidates.iter().any(|one| one.deployment == choice.deployment && one.slow > 1.0)
}

/// The decision in one header value: the rule, the count of candidates, `panic` where what had failed was used for want
/// of others, `slow` where the chosen is, and who was left out and why.
///
/// Such as `least_busy:fewest_in_flight;candidates=3;excluded=gpu-b:failed,gpu-c:full`; a strategy that chooses among
/// several rules names the one it used, as in `adaptive/predicted_latency:soonest_first_token`. At most 400 bytes.
pub fn compact(decision: &Decision, names: &BTreeMap<DeploymentId, Name>) -> String {
    const BYTES_MAX: usize = 400;
    let rule = match &decision.outcome {
        Outcome::Chosen(choice) => choice.why.name(),
        Outcome::Queued { .. } => "queued",
        Outcome::Rejected { why, .. } => why.name(),
    };
    let mut text = String::with_capacity(96);
    text.push_str(decision.strategy);
    if let Some(used) = decision.used {
        text.push('/');
        text.push_str(used);
    }
    for part in [":", rule, ";candidates="] {
        text.push_str(part);
    }
    text.push_str(itoa::Buffer::new().format(decision.candidates.len()));
    if decision.panic {
        text.push_str(";panic");
    }
    if chosen_slow(decision) {
        text.push_str(";slow");
    }
    let mut first = true;
    for candidate in &decision.candidates {
        let Some(why) = candidate.why_not else { continue };
        let (Some(name), true) = (names.get(&candidate.deployment), text.len() < BYTES_MAX - 80) else {
            continue;
        };
        text.push_str(if first { ";excluded=" } else { "," });
        first = false;
        text.extend(
            name.chars().take(40).map(|c| if c.is_ascii_graphic() && c != ',' && c != ';' { c } else { '_' }),
        );
        text.push(':');
        text.push_str(why.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_routing::decision::Rejection;

    #[test]
    fn a_record_holds_hashes_of_beginnings_that_a_replay_reads_and_no_more_than_fit() {
        let block = |place: u32| PrefixBlock { tokens: 16 * (place + 1), hash: u64::from(place) + 10 };
        let prefix: Vec<PrefixBlock> = (0..1_000).map(block).collect();
        let chain = prefix_chain(&prefix);
        assert!(chain.len() <= PREFIX_CHAIN_MAX && chain.len() > PREFIX_CHAIN_MAX / 2);
        assert_eq!(chain.last(), Some(&json!([16_000, "00000000000003f1"])), "all of it");
        assert_eq!(
            prefix_chain(&prefix[..2]),
            [json!([16, "000000000000000a"]), json!([32, "000000000000000b"])]
        );
        let line = json!({
            "request_id": "0", "at_unix_ms": 5, "model": "m", "tenant": "t",
            "facts": {"tokens_in_estimate": 40, "lane": "live", "class": "standard", "session_hash": hex(7), "prefix_chain": chain},
            "usage": null,
        });
        let read = pointsman_simulator::trace::read(line.to_string().as_bytes()).expect("read back");
        assert_eq!(
            (read.asks()[0].session, read.blocks(&read.asks()[0]).len()),
            (7, prefix_chain(&prefix).len())
        );
    }

    #[test]
    fn f4_panic_is_labelled_in_the_header_and_the_record() {
        let mut decision = Decision {
            at: Now::ZERO,
            outcome: Outcome::Rejected { why: Rejection::Unavailable, retry_after: None },
            strategy: "least_busy",
            used: None,
            arm: None,
            tier: 1,
            panic: false,
            candidates: Vec::new(),
        };
        assert_eq!(compact(&decision, &BTreeMap::new()), "least_busy:unavailable;candidates=0");
        decision.panic = true;
        assert_eq!(compact(&decision, &BTreeMap::new()), "least_busy:unavailable;candidates=0;panic");
        assert_eq!(decision_json(&decision, Now::ZERO, &BTreeMap::new())["panic"], true);
    }
}
