//! From runs to results: what the traffic allows, ratios, and the largest rate that is still good enough.

use std::collections::{BTreeMap, BTreeSet};

use super::results::{Ratios, Results, Run, Strategy, Traffic};
use super::setup::Setup;

/// The rate below which no capacity is looked for, and above which none.
const RATE_MIN: f64 = 0.05;
const RATE_MAX: f64 = 64.0;
/// How near to each other two rates are between which a search ends, as a share of the larger.
const RATE_STEP: f64 = 0.01;

/// What the traffic of a setup is like.
pub fn traffic(setup: &Setup<'_>) -> Traffic {
    let asks = setup.workload.asks();
    let mean = |of: fn(&crate::Ask) -> u32| {
        asks.iter().map(|ask| f64::from(of(ask))).sum::<f64>() / asks.len().max(1) as f64
    };
    let deployments = setup.catalog.models.get(setup.model).map_or(&[][..], |model| &model.deployments);
    let capacity = deployments.iter().map(|one| {
        let kind = setup.engines.of(&one.name, &one.provider);
        kind.kv_tokens + kind.host_tokens
    });
    Traffic {
        source: setup.workload.source.clone(),
        requests: asks.len() as u64,
        span_s: setup.workload.span_s() / setup.rate,
        rate: setup.rate,
        tokens_in_mean: mean(|ask| ask.tokens_in),
        tokens_out_mean: mean(|ask| ask.tokens_out),
        cacheable_share: cacheable(setup, u64::MAX),
        cacheable_share_bounded: cacheable(setup, capacity.sum()),
    }
}

/// Share of prompt tokens that one least-recently-used cache of so many tokens would have, if every prompt were in it as
/// soon as it came.
fn cacheable(setup: &Setup<'_>, tokens_max: u64) -> f64 {
    let (mut last, mut order) = (BTreeMap::<u64, (u64, u32)>::new(), BTreeSet::<(u64, u64)>::new());
    let (mut tick, mut held, mut all, mut cached) = (0_u64, 0_u64, 0_u64, 0_u64);
    for ask in setup.workload.asks() {
        all += u64::from(ask.tokens_in);
        let (mut before, mut matching) = (0, true);
        let blocks: Vec<(u32, u64)> = setup.workload.blocks(ask).collect();
        for (end, hash) in &blocks {
            matching &= last.contains_key(hash);
            // The last token is computed in any case.
            cached += u64::from(if matching && *end < ask.tokens_in { end - before } else { 0 });
            before = *end;
        }
        for (place, (end, hash)) in blocks.iter().enumerate().rev() {
            tick += 1;
            let tokens = end - place.checked_sub(1).map_or(0, |before| blocks[before].0);
            if let Some((at, _)) = last.insert(*hash, (tick, tokens)) {
                order.remove(&(at, *hash));
            } else {
                held += u64::from(tokens);
            }
            order.insert((tick, *hash));
        }
        while held > tokens_max {
            let Some((_, oldest)) = order.pop_first() else { break };
            held -= last.remove(&oldest).map_or(0, |(_, tokens)| u64::from(tokens));
        }
    }
    cached as f64 / all.max(1) as f64
}

/// The mean of a figure over runs.
pub fn mean(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    runs.iter().map(of).sum::<f64>() / runs.len().max(1) as f64
}

/// Results of runs: `runs` has those of each strategy, by name.
pub fn results(setup: &Setup<'_>, about: &str, command: &str, runs: Vec<(String, Vec<Run>)>) -> Results {
    let figures = |runs: &[Run]| {
        [
            mean(runs, |run| run.first_token_ms.mean),
            mean(runs, |run| run.first_token_ms.p99),
            mean(runs, |run| run.per_token_ms.mean),
            mean(runs, |run| run.end_to_end_ms.mean),
        ]
    };
    let first = runs.first().map_or([0.0; 4], |(_, runs)| figures(runs));
    let strategies = runs.into_iter().map(|(name, runs)| {
        let own = figures(&runs);
        let ratio = |at: usize| if first[at] > 0.0 { own[at] / first[at] } else { 1.0 };
        let ratios = Ratios {
            first_token_mean: ratio(0),
            first_token_p99: ratio(1),
            per_token_mean: ratio(2),
            end_to_end_mean: ratio(3),
        };
        Strategy { name, runs, ratios, capacity: BTreeMap::new() }
    });
    Results {
        about: about.to_owned(),
        command: command.to_owned(),
        traffic: traffic(setup),
        objective: setup.objective,
        routers: setup.routers,
        staleness_ms: setup.staleness.as_secs_f64() * 1e3,
        strategies: strategies.collect(),
        figures: Vec::new(),
    }
}

/// The largest rate at which at least `share` of the requests are good enough, by bisection; `good_share` plays a rate.
/// 0 if there is none from 0.05 on.
pub fn capacity(share: f64, mut good_share: impl FnMut(f64) -> f64) -> f64 {
    let (mut good, mut bad) = (0.0, RATE_MAX);
    let mut next = 1.0;
    while bad - good > RATE_STEP * bad {
        if good_share(next) >= share {
            good = next;
        } else {
            bad = next;
        }
        if bad < RATE_MIN || good >= RATE_MAX {
            break;
        }
        next = if bad >= RATE_MAX { (good * 2.0).min(RATE_MAX) } else { f64::midpoint(good, bad) };
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_rate_is_found() {
        for most in [0.08, 0.3, 1.0, 2.29, 7.7] {
            let mut played = 0;
            let found = capacity(0.9, |rate| {
                played += 1;
                if rate <= most { 0.95 } else { 0.5 }
            });
            assert!(found <= most && found >= most * 0.98 - 0.001, "{most}: {found}");
            assert!(played <= 16, "{most}: {played}");
        }
        assert!(capacity(0.9, |_| 0.0) < 0.05, "never");
        assert!(capacity(0.9, |_| 1.0) >= 63.0, "always");
    }
}
