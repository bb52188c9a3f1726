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

/// How fast the engines of a log were, as multiples of the time of `kind`; nothing if it has too few whole answers.
///
/// Of each provider the faster quarter of its answers counts, in time for all of their tokens: the others waited for one
/// another in the engine, which is what the simulation is to find out anew.
pub fn fit(log: &Log, kind: &Kind) -> Option<Fitted> {
    let mut ratios: BTreeMap<&Name, Vec<f64>> = BTreeMap::new();
    for record in &log.records {
        let (Some(provider), Some((tokens_in, cached, tokens_out))) = (&record.provider, record.tokens) else {
            continue;
        };
        let took = f64::from(record.total_ms - record.queue_ms);
        let prompt = kind.alone_ms(tokens_in.saturating_sub(cached));
        let each = (kind.a0 + kind.d1 + kind.d2 * f64::from(tokens_in)) * kind.slow;
        let ratio = took / (prompt + each * f64::from(tokens_out.saturating_sub(1)));
        if record.failures == 0 && ratio.is_finite() && ratio > 0.0 {
            ratios.entry(provider).or_default().push(ratio);
        }
    }
    ratios.retain(|_, ratios| ratios.len() >= ANSWERS_MIN);
    let slow = |(provider, mut ratios): (&Name, Vec<f64>)| {
        ratios.sort_unstable_by(f64::total_cmp);
        let at = (ALONE_SHARE * ratios.len() as f64) as usize;
        (provider.to_string(), ratios[at].clamp(SLOW_MIN, SLOW_MAX))
    };
    let providers: BTreeMap<String, f64> = ratios.into_iter().map(slow).collect();
    let mut all: Vec<f64> = providers.values().copied().collect();
    all.sort_unstable_by(f64::total_cmp);
    let others = *all.get(all.len() / 2)?;
    Some(Fitted { engine: kind.name.clone(), providers, others })
}
