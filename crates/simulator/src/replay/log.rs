//! A decision log as it is replayed: what was asked for, what was decided, and what came of it.

use std::collections::BTreeMap;
use std::io::BufRead;

use pointsman_routing::catalog::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::words;
use crate::trace::{BadLines, Ended, Lines, log as trace};
use crate::workload::Record;

/// Requests of one log, at most.
const RECORDS_MAX: usize = 5_000_000;
/// Rules that are told apart, at most: strategies times reasons; what is beyond shares the last.
const RULES_MAX: usize = 4_096;

/// A decision log.
#[derive(Debug)]
pub struct Log {
    /// What it is called.
    pub source: String,
    /// Lines that are no records.
    pub bad: BadLines,
    /// Records that are not played, by why.
    pub left_out: BTreeMap<&'static str, u64>,
    /// The requests in the order they came.
    pub(super) records: Vec<Recorded>,
    /// What was asked for, in the same order.
    pub(super) traffic: Vec<Record>,
    pub(super) places: Places,
    /// By what was decided.
    pub(super) rules: Vec<String>,
}

/// Where a request went first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Went {
    /// To this deployment.
    To(u32),
    /// Nowhere: it was refused.
    Refused,
    /// Nowhere: its client left, or its time was over, before there was a choice.
    Left,
    /// To a deployment of another model that it named.
    OtherModel,
    /// It was not played.
    Unplayed,
}

/// What became of a request.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) id: Box<str>,
    pub(super) at_unix_ms: u64,
    pub(super) went: Went,
    /// By what, as a place among the rules.
    pub(super) rule: u16,
    pub(super) words: Box<str>,
    pub(super) completed: bool,
    /// How it ended, as a place among the outcomes.
    pub(super) outcome: Outcome,
    /// Times in milliseconds; not a number where there is none.
    pub(super) first_ms: f32,
    pub(super) total_ms: f32,
    pub(super) queue_ms: f32,
    /// Who served it.
    pub(super) served: Option<u32>,
    /// The provider of that one.
    pub(super) provider: Option<Name>,
    /// What it used, as the provider counted: prompt, of that cached, and answer.
    pub(super) tokens: Option<(u32, u32, u32)>,
    pub(super) cost_micro_usd: Option<u64>,
    /// Attempts that failed.
    pub(super) failures: u16,
    pub(super) stream: bool,
}

/// How a request ended, by its name in the log.
pub(super) type Outcome = Name;

/// Deployments by the model that was asked for and their name there.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) all: Vec<(Name, Name)>,
    index: BTreeMap<(Name, Name), u32>,
}

impl Places {
    pub(super) fn place(&mut self, model: &str, deployment: &str) -> u32 {
        let key = (Name::from(model), Name::from(deployment));
        if let Some(place) = self.index.get(&key) {
            return *place;
        }
        self.all.push(key.clone());
        let place = (self.all.len() - 1) as u32;
        self.index.insert(key, place);
        place
    }

    pub(super) fn known(&self, key: &(Name, Name)) -> Option<u32> {
        self.index.get(key).copied()
    }
}

#[derive(Deserialize)]
struct Line {
    request_id: String,
    at_unix_ms: u64,
    model: Option<String>,
    mirror_of: Option<String>,
    outcome: String,
    #[serde(default)]
    decisions: Vec<DecisionOf>,
    #[serde(default)]
    attempts: Vec<AttemptOf>,
    facts: Option<FactsOf>,
    usage: Option<UsageOf>,
    cost_usd: Option<f64>,
    #[serde(default)]
    queue_us: u64,
    first_content_us: Option<u64>,
    #[serde(default)]
    total_us: u64,
}

#[derive(Deserialize)]
struct FactsOf {
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
struct DecisionOf {
    strategy: String,
    used: Option<String>,
    #[serde(default)]
    panic: bool,
    model: Option<String>,
    outcome: Value,
}

#[derive(Deserialize)]
struct AttemptOf {
    deployment: String,
    provider: Option<String>,
    #[serde(default)]
    outrun: bool,
    failure: Option<Value>,
}

#[derive(Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the log")]
struct UsageOf {
    tokens_in: u64,
    #[serde(default)]
    tokens_in_cached: u64,
    tokens_out: u64,
}

/// Reads a decision log. `tenant_hash` is the hash that routers know a tenant by.
///
/// # Errors
///
/// When it cannot be read, or there is no request in it that can be played.
pub fn read(source: &str, input: impl BufRead, tenant_hash: &dyn Fn(&str) -> u64) -> Result<Log, String> {
    let mut log = Log {
        source: source.to_owned(),
        bad: BadLines::default(),
        left_out: BTreeMap::new(),
        records: Vec::new(),
        traffic: Vec::new(),
        places: Places::default(),
        rules: vec!["none".to_owned()],
    };
    let mut lines = Lines::new(input);
    while let Some(ended) = lines.advance().map_err(|error| format!("{source} cannot be read: {error}"))? {
        let number = lines.number();
        if ended == Ended::TooLong {
            log.bad.note_too_long(number);
        } else if !lines.line().is_empty() {
            match log.add(lines.line(), tenant_hash) {
                Ok(()) => {}
                Err(_) if ended == Ended::Cut => log.bad.note(number, "was cut off"),
                Err(error) => log.bad.note(number, format!("is no decision record: {error}")),
            }
        }
        if log.records.len() > RECORDS_MAX {
            return Err(format!("{source} has more than {RECORDS_MAX} requests; take a part of it"));
        }
    }
    log.sort();
    log.check()
}

impl Log {
    fn add(&mut self, line: &[u8], tenant_hash: &dyn Fn(&str) -> u64) -> Result<(), String> {
        let told = |error: serde_json::Error| error.to_string();
        let read: Line = serde_json::from_slice(line).map_err(told)?;
        let asked = trace::read(line).map_err(|error| error.to_string())?;
        let hash = tenant_hash(asked.tenant());
        let asked = asked.record(Some(hash)).map_err(|error| error.to_string())?;
        let why = match (&asked, read.outcome.as_str()) {
            _ if read.mirror_of.is_some() => "copies for a shadow",
            (_, "joined" | "replayed") => "given another's answer",
            (None, _) => "invalid before there was anything to route",
            (Some(record), _) if record.model.is_none() => "of no model that existed",
            (Some(_), _) => {
                let recorded = self.recorded(read);
                self.records.push(recorded);
                self.traffic.extend(asked);
                return Ok(());
            }
        };
        *self.left_out.entry(why).or_default() += 1;
        Ok(())
    }

    fn recorded(&mut self, line: Line) -> Recorded {
        let model = line.model.as_deref().unwrap_or("");
        let chosen = line.decisions.iter().find(|one| one.outcome["kind"] == "chosen");
        let decided = chosen.or(line.decisions.last());
        let told = decided.map(|one| {
            json!({"strategy": one.strategy, "used": one.used, "panic": one.panic, "outcome": one.outcome})
        });
        let went = match chosen {
            Some(one) if one.model.as_deref().is_some_and(|own| own != model) => Went::OtherModel,
            Some(one) => {
                let name = one.outcome["deployment"].as_str().unwrap_or("");
                Went::To(self.places.place(model, name))
            }
            None if line.outcome == "rejected" => Went::Refused,
            None => Went::Left,
        };
        let rule = told.as_ref().map_or(0, |told| self.rule(words::rule(told)));
        let completed = line.outcome == "completed";
        let last = line.attempts.iter().rev().find(|one| one.failure.is_none() && !one.outrun);
        let last = last.filter(|_| completed && went != Went::OtherModel);
        let ms = |us: u64| (us as f64 / 1e3) as f32;
        let tokens = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Recorded {
            id: line.request_id.into(),
            at_unix_ms: line.at_unix_ms,
            went,
            rule,
            words: told.as_ref().map_or_else(String::new, words::words).into(),
            completed,
            outcome: line.outcome.into(),
            first_ms: line.first_content_us.map_or(f32::NAN, ms),
            total_ms: ms(line.total_us),
            queue_ms: ms(line.queue_us),
            served: last.map(|one| self.places.place(model, &one.deployment)),
            provider: last.and_then(|one| one.provider.as_deref()).map(Into::into),
            tokens: line
                .usage
                .filter(|usage| usage.tokens_out > 0)
                .map(|one| (tokens(one.tokens_in), tokens(one.tokens_in_cached), tokens(one.tokens_out))),
            cost_micro_usd: line.cost_usd.map(|usd| (usd * 1e6).round().max(0.0) as u64),
            failures: line.attempts.iter().filter(|one| one.failure.is_some()).count() as u16,
            stream: line.facts.is_some_and(|facts| facts.stream),
        }
    }

    fn rule(&mut self, rule: String) -> u16 {
        let known = self.rules.iter().position(|known| *known == rule);
        known.unwrap_or_else(|| {
            if self.rules.len() < RULES_MAX {
                self.rules.push(rule);
            }
            self.rules.len() - 1
        }) as u16
    }

    /// Records are written when requests end; they are put in the order in which these came.
    fn sort(&mut self) {
        let mut both: Vec<(Recorded, Record)> =
            std::mem::take(&mut self.records).into_iter().zip(std::mem::take(&mut self.traffic)).collect();
        both.sort_by_key(|(_, asked)| asked.at_ns);
        (self.records, self.traffic) = both.into_iter().unzip();
    }

    fn check(self) -> Result<Self, String> {
        if !self.records.is_empty() {
            return Ok(self);
        }
        let (source, left_out) = (&self.source, self.left_out.values().sum::<u64>());
        Err(match self.bad.first.first() {
            Some(first) if left_out == 0 => {
                format!("{source} has no decision records; its line {} {}", first.line, first.what)
            }
            Some(_) | None if left_out > 0 => {
                let told: Vec<String> =
                    self.left_out.iter().map(|(why, count)| format!("{count} {why}")).collect();
                format!("{source} has no requests that can be played, only {}", told.join(", "))
            }
            Some(_) | None => format!("{source} is empty"),
        })
    }

    /// Requests that can be played.
    pub fn requests(&self) -> usize {
        self.records.len()
    }
}
