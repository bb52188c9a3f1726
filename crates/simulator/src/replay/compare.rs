//! Decisions beside each other: the log's, those under the new configuration, and those under the one before.

use std::collections::BTreeMap;

use super::effect;
use super::fit::Fitted;
use super::log::{Log, Went};
use super::pass::Pass;
use super::report::{Agreement, Chance, Difference, Moved, NotCompared, Replay, Rules, Side, Source, Told};
use super::world::World;
use crate::lab::{self, Results, Run};

/// Pairs of deployments, or of rules, that are told, at most.
const PAIRS_MAX: usize = 10_000;

/// A configuration with its runs, one for each seed.
pub struct Play<'a> {
    /// The configuration, and what it was played in.
    pub world: &'a World,
    /// Its runs, the first with differences from the log.
    pub passes: Vec<Pass>,
}

/// What would have happened.
pub fn replay(
    log: &Log,
    new: Play<'_>,
    was: Option<Play<'_>>,
    fitted: Option<Fitted>,
    command: &str,
) -> Replay {
    let recorded: Vec<Went> = log.records.iter().map(|one| one.went).collect();
    let (not_compared, comparable) = comparable(log, new.world, &new.passes[0].went);
    let both = |one: &[Went], other: &[Went]| agreement(one, other, &comparable);
    let shares = |play: &Play<'_>| -> Vec<f64> {
        play.passes.iter().map(|pass| both(&recorded, &pass.went).agree_share).collect()
    };
    let was_and_new = was.iter().flat_map(|was| {
        let pairs = was.passes.iter().zip(&new.passes);
        pairs.map(|(was, new)| agreement(&was.went, &new.went, &played_by(&was.went)).agree_share)
    });
    let chance = Chance {
        log_and_new: shares(&new),
        log_and_was: was.as_ref().map(shares).unwrap_or_default(),
        was_and_new: was_and_new.collect(),
        new_and_itself: itself(&new.passes),
        was_and_itself: was.as_ref().and_then(|was| itself(&was.passes)),
    };
    let objective = new.world.setup().objective;
    let mut effect = vec![effect::recorded(log, new.world, objective)];
    effect.extend(was.as_ref().map(|was| effect::simulated("was", log, &was.passes)));
    effect.push(effect::simulated("new", log, &new.passes));
    let told = Told {
        new: new.world.name.clone(),
        was: was.as_ref().map(|was| was.world.name.clone()),
        seeds: new.passes.iter().map(|pass| pass.run.seed).collect(),
        fitted,
    };
    let first = &new.passes[0];
    let (moved, rules) = (moved(log, &recorded, &first.went), rules(log, first));
    let (decisions, differences) = (both(&recorded, &first.went), differences(log, first, was.as_ref()));
    let mut replay = Replay {
        command: command.to_owned(),
        log: source(log),
        told,
        decisions,
        not_compared,
        chance,
        moved,
        rules,
        differences,
        effect,
        notes: Vec::new(),
        results: results(new, was, command),
    };
    replay.notes = super::notes::notes(&replay);
    replay
}

/// The runs as an experiment, the configuration before first.
fn results(new: Play<'_>, was: Option<Play<'_>>, command: &str) -> Results {
    let runs = |play: Play<'_>| -> Vec<Run> { play.passes.into_iter().map(|pass| pass.run).collect() };
    let world = new.world;
    let mut all: Vec<(String, Vec<Run>)> = was.map(|was| ("was".to_owned(), runs(was))).into_iter().collect();
    all.push(("new".to_owned(), runs(new)));
    lab::results(&world.setup(), "", command, all)
}

fn source(log: &Log) -> Source {
    let moments = || log.records.iter().map(|one| one.at_unix_ms);
    let from_unix_ms = moments().next().unwrap_or(0);
    Source {
        name: log.source.clone(),
        requests: log.records.len() as u64,
        from_unix_ms,
        span_s: (moments().next_back().unwrap_or(0) - from_unix_ms) as f64 / 1e3,
        bad_lines: log.bad.clone(),
        left_out: log.left_out.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
        attempts_failed: log.records.iter().map(|one| u64::from(one.failures)).sum(),
    }
}

/// Which requests can be compared with what the log has, and why the others cannot.
fn comparable(log: &Log, world: &World, now: &[Went]) -> (NotCompared, Vec<bool>) {
    let mut not = NotCompared { models_unknown: world.unknown.clone(), ..NotCompared::default() };
    let mut each = Vec::with_capacity(log.records.len());
    for (one, now) in log.records.iter().zip(now) {
        let why = match (one.went, now) {
            (_, Went::Unplayed) => Some("their model is not in the new config"),
            (Went::To(at), _) if !world.known.contains_key(&log.places.all[at as usize]) => {
                let (model, name) = &log.places.all[at as usize];
                *not.deployments_unknown.entry(format!("{name} of {model}")).or_default() += 1;
                Some("their deployment is not in the new config")
            }
            (Went::Refused, _) => {
                not.refused_then_sent_now += u64::from(matches!(now, Went::To(_)));
                Some("the log has them refused")
            }
            (Went::OtherModel, _) => Some("the log has them at another model that they named"),
            (Went::Left | Went::Unplayed, _) => Some("their clients left before there was a choice"),
            (Went::To(_), _) => None,
        };
        each.push(why.is_none());
        if let Some(why) = why {
            not.count += 1;
            *not.why.entry(why.to_owned()).or_default() += 1;
        }
    }
    (not, each)
}

fn agreement(one: &[Went], other: &[Went], counts: &[bool]) -> Agreement {
    let pairs = || one.iter().zip(other).zip(counts).filter(|(_, counts)| **counts);
    let compared = pairs().count() as u64;
    let agree = pairs().filter(|((one, other), _)| one == other).count() as u64;
    let agree_share = if compared == 0 { 1.0 } else { agree as f64 / compared as f64 };
    Agreement { compared, agree, differ: compared - agree, agree_share }
}

fn played_by(went: &[Went]) -> Vec<bool> {
    went.iter().map(|one| *one != Went::Unplayed).collect()
}

/// What runs have in common when only their seeds differ, a mean over all pairs.
fn itself(passes: &[Pass]) -> Option<f64> {
    let pairs = passes
        .iter()
        .enumerate()
        .flat_map(|(at, one)| passes[at + 1..].iter().map(move |other| (one, other)));
    let shares: Vec<f64> = pairs
        .map(|(one, other)| agreement(&one.went, &other.went, &played_by(&one.went)).agree_share)
        .collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

fn moved(log: &Log, recorded: &[Went], now: &[Went]) -> Vec<Moved> {
    let mut counts: BTreeMap<(u32, Option<u32>), u64> = BTreeMap::new();
    for (then, now) in recorded.iter().zip(now) {
        let Went::To(from) = then else { continue };
        let to = match now {
            Went::To(to) => Some(*to),
            Went::Refused | Went::Left | Went::OtherModel => None,
            Went::Unplayed => continue,
        };
        *counts.entry((*from, to)).or_default() += 1;
    }
    let name = |at: u32| log.places.all[at as usize].1.to_string();
    let moved = |((from, to), count): ((u32, Option<u32>), u64)| Moved {
        model: log.places.all[from as usize].0.to_string(),
        recorded: name(from),
        new: to.map(name),
        count,
    };
    let mut all: Vec<Moved> = counts.into_iter().map(moved).collect();
    all.sort_by(|a, b| {
        // What is refused stands behind the deployments.
        let key = |one: &Moved| (one.model.clone(), one.recorded.clone(), one.new.is_none(), one.new.clone());
        key(a).cmp(&key(b))
    });
    all.truncate(PAIRS_MAX);
    all
}

fn rules(log: &Log, pass: &Pass) -> Vec<Rules> {
    let mut all: Vec<Rules> = pass
        .rules
        .iter()
        .map(|((recorded, new), count)| Rules {
            recorded: log.rules[usize::from(*recorded)].clone(),
            new: new.clone(),
            count: *count,
        })
        .collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.count));
    all.truncate(PAIRS_MAX);
    all
}

/// The differences of a run, with what came of the same requests under the configuration before.
fn differences(log: &Log, pass: &Pass, was: Option<&Play<'_>>) -> Vec<Difference> {
    let mut all = pass.differences.clone();
    let Some(before) = was.and_then(|was| was.passes.first()) else { return all };
    let places: BTreeMap<&str, usize> =
        log.records.iter().enumerate().map(|(place, one)| (&*one.id, place)).collect();
    for one in &mut all {
        let Some(place) = places.get(one.request_id.as_str()) else { continue };
        let deployment = match before.went[*place] {
            Went::To(at) => Some(log.places.all[at as usize].1.to_string()),
            Went::Refused | Went::Left | Went::OtherModel | Went::Unplayed => None,
        };
        let first = Some(f64::from(before.first_ms[*place])).filter(|ms| ms.is_finite());
        one.was = Some(Side { deployment, why: String::new(), first_token_ms: first });
    }
    all
}
