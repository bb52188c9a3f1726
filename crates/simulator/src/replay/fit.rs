//! How fast the engines were, by the log: so many times as long as the engine that is played takes for the same.

use std::collections::BTreeMap;

use pointsman_routing::catalog::Name;
use serde::{Deserialize, Serialize};

use super::log::Log;
use crate::engine::Kind;

/// Answers of a provider that are needed to say how fast it is.
const ANSWERS_MIN: usize = 20;
/// The share of its answers that is taken as having had the engine for themselves, as far as that ever was.
const ALONE_SHARE: f64 = 0.25;
/// The share of the time with something to do in which it was at work, at most: what is simulated is not to be overloaded
/// where the log was not.
const BUSY_SHARE_MAX: f64 = 0.9;
/// How many times faster or slower than the engine it may be.
const SLOW_MIN: f64 = 0.01;
const SLOW_MAX: f64 = 1_000.0;

/// How fast the engines of a log were.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fitted {
    /// The engine they are told by.
    pub engine: String,
    /// How many times as long each provider took.
    pub providers: BTreeMap<String, f64>,
    /// The same for those that are not in the log: the median of the others.
    pub others: f64,
}

/// What the log tells of a provider.
#[derive(Debug, Default)]
struct Seen {
    /// How many times as long each answer took as it would alone.
    ratios: Vec<f64>,
    /// Milliseconds of work that cannot be shared between answers, at the speed of the engine.
    work_ms: f64,
    /// When it had something to do, milliseconds: from, until.
    busy_ms: Vec<(f64, f64)>,
}

/// How fast the engines of a log were, as multiples of the time of `kind`; nothing if it has too few whole answers.
///
/// Of each provider the faster quarter of its answers counts, in time for all of their tokens: the others waited for one
/// another in the engine, which is what the simulation is to find out anew. And none is so slow that it could not have
/// done what it did in the time in which it had something to do.
pub fn fit(log: &Log, kind: &Kind) -> Option<Fitted> {
    let mut seen: BTreeMap<&Name, Seen> = BTreeMap::new();
    for record in &log.records {
        let (Some(provider), Some((tokens_in, cached, tokens_out))) = (&record.provider, record.tokens)
        else {
            continue;
        };
        let took = f64::from(record.total_ms - record.queue_ms);
        let prompt = kind.alone_ms(tokens_in.saturating_sub(cached));
        let own = (kind.d1 + kind.d2 * f64::from(tokens_in)) * kind.slow;
        let after = f64::from(tokens_out.saturating_sub(1));
        let ratio = took / (prompt + (kind.a0 * kind.slow + own) * after);
        if record.failures > 0 || !ratio.is_finite() || ratio <= 0.0 {
            continue;
        }
        let seen = seen.entry(provider).or_default();
        let until = record.at_unix_ms as f64 + f64::from(record.total_ms);
        seen.ratios.push(ratio);
        seen.work_ms += prompt + own * after;
        seen.busy_ms.push((until - took, until));
    }
    seen.retain(|_, seen| seen.ratios.len() >= ANSWERS_MIN);
    let providers: BTreeMap<String, f64> =
        seen.into_iter().map(|(provider, seen)| (provider.to_string(), seen.slow())).collect();
    let mut all: Vec<f64> = providers.values().copied().collect();
    all.sort_unstable_by(f64::total_cmp);
    let others = *all.get(all.len() / 2)?;
    Some(Fitted { engine: kind.name.clone(), providers, others })
}

impl Seen {
    fn slow(mut self) -> f64 {
        self.ratios.sort_unstable_by(f64::total_cmp);
        let alone = self.ratios[(ALONE_SHARE * self.ratios.len() as f64) as usize];
        self.busy_ms.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let (mut busy_ms, mut until) = (0.0, f64::NEG_INFINITY);
        for (from, to) in self.busy_ms {
            busy_ms += (to - from.max(until)).max(0.0);
            until = until.max(to);
        }
        let at_most = BUSY_SHARE_MAX * busy_ms / self.work_ms.max(1e-9);
        alone.min(at_most).clamp(SLOW_MIN, SLOW_MAX)
    }
}
