//! What came of the traffic: as the log has it, and as it was simulated.

use std::collections::BTreeMap;

use super::log::{Log, Recorded};
use super::pass::{Pass, Use};
use super::report::{Effect, Share};
use super::world::World;
use crate::lab::{Balance, Goodput, Objective, Run, Spread};

/// What the log has of the requests that are played in a world.
pub(super) fn recorded(log: &Log, world: &World, objective: Objective) -> Effect {
    let played: Vec<&Recorded> = world.asks.iter().map(|place| &log.records[*place as usize]).collect();
    let from_ms = played.iter().map(|one| one.at_unix_ms).min().unwrap_or(0);
    let until_ms =
        played.iter().map(|one| one.at_unix_ms as f64 + f64::from(one.total_ms)).fold(0.0, f64::max);
    let span_s = ((until_ms - from_ms as f64) / 1e3).max(1e-3);
    let completed = || played.iter().filter(|one| one.completed);
    let spread = |of: &dyn Fn(&Recorded) -> f32| {
        let mut values: Vec<f32> = completed().map(|one| of(one)).filter(|value| !value.is_nan()).collect();
        Spread::of(&mut values)
    };
    let good = completed().filter(|one| is_good(one, objective)).count() as f64;
    let (mut uses, mut outcomes): (BTreeMap<u32, Use>, BTreeMap<String, f64>) = Default::default();
    let (mut tokens, mut prompt, mut cached) = (0.0, 0.0, 0.0);
    for one in &played {
        *outcomes.entry(one.outcome.to_string()).or_default() += 1.0;
        let Some((tokens_in, tokens_cached, tokens_out)) = one.tokens.filter(|_| one.completed) else {
            continue;
        };
        tokens += f64::from(tokens_in) + f64::from(tokens_out);
        prompt += f64::from(tokens_in);
        cached += f64::from(tokens_cached);
        if let Some(server) = one.served {
            let own = uses.entry(server).or_default();
            own.requests += 1.0;
            own.tokens_in += f64::from(tokens_in);
            own.tokens_out += f64::from(tokens_out);
            own.cost_micro_usd += one.cost_micro_usd.map_or(f64::NAN, |cost| cost as f64);
        }
    }
    let queue = |one: &Recorded| one.queue_ms;
    let (deployments, cost_usd) = shares(log, &uses);
    Effect {
        name: "recorded".to_owned(),
        simulated: false,
        requests: played.len() as u64,
        first_token_ms: spread(&first_ms),
        per_token_ms: spread(&per_token_ms),
        end_to_end_ms: spread(&|one| one.total_ms),
        queue_ms: spread(&queue),
        goodput: Goodput { share: good / played.len().max(1) as f64, per_s: good / span_s },
        tokens_per_s: tokens / span_s,
        tokens_cached_share: if prompt > 0.0 { cached / prompt } else { 0.0 },
        failed: failed(&outcomes),
        outcomes,
        tokens_max_to_mean: max_to_mean(&uses),
        cost_usd,
        deployments,
        ..Effect::default()
    }
}

fn first_ms(one: &Recorded) -> f32 {
    one.first_ms
}

fn per_token_ms(one: &Recorded) -> f32 {
    let after = one.tokens.map_or(0, |(.., tokens_out)| tokens_out.saturating_sub(1));
    // What is not streamed comes at once.
    if after > 0 && one.stream { (one.total_ms - one.first_ms) / after as f32 } else { f32::NAN }
}

fn is_good(one: &Recorded, objective: Objective) -> bool {
    let each = f64::from(per_token_ms(one));
    f64::from(one.first_ms) <= objective.first_token_ms && (each.is_nan() || each <= objective.per_token_ms)
}

fn failed(outcomes: &BTreeMap<String, f64>) -> f64 {
    outcomes.iter().filter(|(name, _)| *name != "completed").fold(0.0, |all, (_, count)| all + count)
}

/// What came of runs with several seeds: means.
pub(super) fn simulated(name: &str, log: &Log, passes: &[Pass]) -> Effect {
    let count = passes.len().max(1) as f64;
    let mean = |of: &dyn Fn(&Run) -> f64| passes.iter().map(|pass| of(&pass.run)).sum::<f64>() / count;
    let spread = |of: fn(&Run) -> &Spread| Spread {
        mean: mean(&|run| of(run).mean),
        p50: mean(&|run| of(run).p50),
        p90: mean(&|run| of(run).p90),
        p99: mean(&|run| of(run).p99),
        max: mean(&|run| of(run).max),
    };
    let (mut uses, mut outcomes): (BTreeMap<u32, Use>, BTreeMap<String, f64>) = Default::default();
    for pass in passes {
        for (name, requests) in &pass.run.outcomes {
            *outcomes.entry(name.clone()).or_default() += *requests as f64 / count;
        }
        for (server, one) in &pass.uses {
            let own = uses.entry(*server).or_default();
            own.requests += one.requests / count;
            own.tokens_in += one.tokens_in / count;
            own.tokens_out += one.tokens_out / count;
            own.cost_micro_usd += one.cost_micro_usd / count;
        }
    }
    let balance = |of: fn(&Balance) -> f64| Some(mean(&|run| of(&run.balance)));
    let (deployments, cost_usd) = shares(log, &uses);
    Effect {
        name: name.to_owned(),
        simulated: true,
        requests: passes.first().map_or(0, |pass| pass.run.outcomes.values().sum()),
        first_token_ms: spread(|run| &run.first_token_ms),
        per_token_ms: spread(|run| &run.per_token_ms),
        end_to_end_ms: spread(|run| &run.end_to_end_ms),
        queue_ms: spread(|run| &run.queue_ms),
        goodput: Goodput { share: mean(&|run| run.goodput.share), per_s: mean(&|run| run.goodput.per_s) },
        tokens_per_s: mean(&|run| run.tokens_per_s),
        tokens_cached_share: mean(&|run| run.tokens_cached_share),
        failed: failed(&outcomes),
        outcomes,
        utilisation_mean: balance(|balance| balance.utilisation_mean),
        utilisation_max: balance(|balance| balance.utilisation_max),
        jain: balance(|balance| balance.jain),
        tokens_max_to_mean: max_to_mean(&uses),
        cost_usd,
        deployments,
    }
}

/// Each deployment's part, and what all of them cost as far as prices are known.
fn shares(log: &Log, uses: &BTreeMap<u32, Use>) -> (Vec<Share>, Option<f64>) {
    let sum = |of: fn(&Use) -> f64| uses.values().map(of).filter(|value| value.is_finite()).sum::<f64>();
    let requests = sum(|one| one.requests);
    let tokens = sum(|one| one.tokens_in + one.tokens_out);
    let cost = sum(|one| one.cost_micro_usd) / 1e6;
    let part = |own: f64, all: f64| if all > 0.0 { own / all } else { 0.0 };
    let share = |(server, one): (&u32, &Use)| {
        let (model, deployment) = &log.places.all[*server as usize];
        let own = Some(one.cost_micro_usd / 1e6).filter(|cost| cost.is_finite());
        Share {
            model: model.to_string(),
            deployment: deployment.to_string(),
            requests: one.requests,
            requests_share: part(one.requests, requests),
            tokens_share: part(one.tokens_in + one.tokens_out, tokens),
            cost_usd: own,
            cost_share: own.map(|own| part(own, cost)),
        }
    };
    let mut shares: Vec<Share> = uses.iter().map(share).collect();
    shares.sort_by(|a, b| (&a.model, &a.deployment).cmp(&(&b.model, &b.deployment)));
    let known = shares.iter().any(|share| share.cost_usd.is_some());
    (shares, known.then_some(cost))
}

/// Tokens of the deployment with the most over those of an average one, of those that served.
fn max_to_mean(uses: &BTreeMap<u32, Use>) -> f64 {
    let tokens: Vec<f64> = uses.values().map(|one| one.tokens_in + one.tokens_out).collect();
    let sum: f64 = tokens.iter().sum();
    if sum > 0.0 { tokens.iter().copied().fold(0.0, f64::max) * tokens.len() as f64 / sum } else { 0.0 }
}
