//! One run of a log through a world: where each request went, and what is most worth telling of it.

use std::collections::BTreeMap;

use pointsman_routing::catalog::Name;
use pointsman_routing::decision::Decision;
use pointsman_routing::flow::{Flow, FlowOutcome};
use pointsman_routing::{DeploymentId, Now};
use serde_json::Value;

use super::log::{Log, Went};
use super::report::{Difference, Side};
use super::words;
use super::world::World;
use crate::lab::{self, Over, Run, Setup};

/// Requests that differ and are told one by one, at most.
const DIFFERENCES_MAX: usize = 200;

/// A decision as the decision record has it, with the names of the deployments it speaks of.
pub type Tell = dyn Fn(&Decision, Now, &BTreeMap<DeploymentId, Name>) -> Value + Sync;

/// What came of a run.
#[derive(Debug)]
pub struct Pass {
    /// Its figures.
    pub run: Run,
    /// Where each request of the log went.
    pub(super) went: Vec<Went>,
    /// Time to the first token of each; not a number where there is none.
    pub first_ms: Vec<f32>,
    /// How often requests that the log decided by one rule were decided by another.
    pub(super) rules: BTreeMap<(u16, String), u64>,
    /// What each deployment did.
    pub(super) uses: BTreeMap<u32, Use>,
    /// Requests that differ from the log, the largest change first.
    pub(super) differences: Vec<Difference>,
}

/// What a deployment did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Use {
    /// Requests it served to their end.
    pub(super) requests: f64,
    pub(super) tokens_in: f64,
    pub(super) tokens_out: f64,
    /// Millionths of a USD; not a number if its price is not known.
    pub(super) cost_micro_usd: f64,
}

/// What a run is looked at for.
pub struct Look<'a> {
    /// How decisions are told.
    pub tell: &'a Tell,
    /// What times to first token are compared with.
    pub against: Against<'a>,
}

/// What the times of requests that go elsewhere are compared with.
#[derive(Debug, Clone, Copy)]
pub enum Against<'a> {
    /// They are not told.
    Nothing,
    /// With those of the log.
    Log,
    /// With those of the configuration before, by place in the log.
    Before(&'a [f32]),
}

struct Watcher<'a> {
    world: &'a World,
    log: &'a Log,
    look: &'a Look<'a>,
    pass: Pass,
    /// Differences with the size of their change, the largest first once they are cut.
    found: Vec<(f64, u32, Difference)>,
    /// Smaller changes need not be kept.
    least: f64,
}

/// Plays a log with one seed.
///
/// # Errors
///
/// What cannot be played.
pub fn play(world: &World, log: &Log, seed: u64, look: &Look<'_>, setup: &Setup<'_>) -> Result<Pass, String> {
    let pass = Pass {
        run: Run::default(),
        went: vec![Went::Unplayed; log.records.len()],
        first_ms: vec![f32::NAN; log.records.len()],
        rules: BTreeMap::new(),
        uses: BTreeMap::new(),
        differences: Vec::new(),
    };
    let mut watcher = Watcher { world, log, look, pass, found: Vec::new(), least: f64::NEG_INFINITY };
    let run = lab::watched(setup, None, seed, &mut |over| watcher.note(over))?;
    watcher.cut(DIFFERENCES_MAX);
    let Watcher { mut pass, found, .. } = watcher;
    pass.run = run;
    pass.differences = found.into_iter().map(|(.., difference)| difference).collect();
    Ok(pass)
}

impl Watcher<'_> {
    fn note(&mut self, over: &Over<'_>) {
        let place = self.world.asks[over.ask] as usize;
        let model = self.log.traffic[place].model.as_deref().unwrap_or("");
        let at = |name: &Name| self.log.places.known(&(model.into(), Name::clone(name)));
        let first = over.flow.attempts().first();
        let went = match first.map(|attempt| at(&attempt.name)) {
            Some(Some(at)) => Went::To(at),
            Some(None) => Went::OtherModel,
            None if matches!(over.flow.outcome(), Some(FlowOutcome::Rejected { .. })) => Went::Refused,
            None => Went::Left,
        };
        let completed = matches!(over.flow.outcome(), Some(FlowOutcome::Completed { .. }));
        let begun = over.flow.attempts().iter().rev().find_map(|attempt| attempt.first_content);
        let first_ms = begun
            .filter(|_| completed)
            .map_or(f32::NAN, |begun| (begun.since(over.arrived).as_secs_f64() * 1e3) as f32);
        let server = over.flow.attempts().iter().rev().find(|one| one.failure.is_none() && !one.outrun);
        if let (true, Some(Some(server))) = (completed, server.map(|attempt| at(&attempt.name))) {
            self.note_use(server, over.flow);
        }
        (self.pass.went[place], self.pass.first_ms[place]) = (went, first_ms);
        match self.look.against {
            Against::Nothing => {}
            Against::Log | Against::Before(_) => self.note_decision(place, went, first_ms, over),
        }
    }

    fn note_use(&mut self, server: u32, flow: &Flow) {
        let Some(FlowOutcome::Completed { usage }) = flow.outcome() else { return };
        let own = self.pass.uses.entry(server).or_default();
        let (tokens_in, tokens_out) = (usage.tokens_in as f64, usage.tokens_out as f64);
        let price = self.world.known.get(&self.log.places.all[server as usize]).copied().flatten();
        own.requests += 1.0;
        own.tokens_in += tokens_in;
        own.tokens_out += tokens_out;
        own.cost_micro_usd +=
            price.map_or(f64::NAN, |(input, output)| tokens_in * input + tokens_out * output);
    }

    fn note_decision(&mut self, place: usize, went: Went, first_ms: f32, over: &Over<'_>) {
        let recorded = &self.log.records[place];
        let Went::To(before) = recorded.went else { return };
        if !self.world.known.contains_key(&self.log.places.all[before as usize]) {
            return;
        }
        let number = over.flow.attempts().first().map(|attempt| attempt.decision);
        let decision =
            number.map_or_else(|| over.flow.decisions().last(), |at| over.flow.decisions().get(at));
        let Some(decision) = decision else { return };
        // As in `words::rule`, without making a record of it.
        let rule = rule(decision);
        *self.pass.rules.entry((recorded.rule, rule)).or_default() += 1;
        if went == recorded.went {
            return;
        }
        let (usual, is_simulated) = match self.look.against {
            Against::Before(all) => (all[place], true),
            Against::Log | Against::Nothing => (recorded.first_ms, false),
        };
        let change = f64::from(first_ms - usual);
        let size = match (first_ms.is_nan(), usual.is_nan()) {
            (false, false) => change.abs(),
            // It would have been answered no more, or is now: nothing is a larger change.
            (true, false) => f64::INFINITY,
            (false, true) if is_simulated => f64::MAX,
            (false | true, true) => -1.0,
        };
        if size < self.least {
            return;
        }
        let difference = self.difference(place, went, decision, over);
        let difference = Difference {
            new: Side { first_token_ms: number_of(first_ms), ..difference.new },
            change_ms: number_of(first_ms - usual),
            ..difference
        };
        self.found.push((size, place as u32, difference));
        if self.found.len() >= 2 * DIFFERENCES_MAX {
            self.cut(DIFFERENCES_MAX);
            self.least = self.found.last().map_or(f64::NEG_INFINITY, |(size, ..)| *size);
        }
    }

    fn difference(&self, place: usize, went: Went, decision: &Decision, over: &Over<'_>) -> Difference {
        let names = decision.candidates.iter().filter_map(|one| {
            Some((one.deployment, Name::clone(over.fleet.deployment_name(one.deployment)?)))
        });
        let told = (self.look.tell)(decision, over.arrived, &names.collect());
        let name = |went: Went| match went {
            Went::To(at) => Some(self.log.places.all[at as usize].1.to_string()),
            Went::Refused | Went::Left | Went::OtherModel | Went::Unplayed => None,
        };
        let (recorded, asked) = (&self.log.records[place], &self.log.traffic[place]);
        let before = name(recorded.went);
        Difference {
            request_id: recorded.id.to_string(),
            at_unix_ms: recorded.at_unix_ms,
            model: asked.model.clone().unwrap_or_default(),
            tenant: asked.tenant.clone(),
            tokens_in: asked.tokens_in,
            tokens_out: asked.tokens_out,
            instead: before.as_deref().and_then(|name| words::standing(&told, name)),
            recorded: Side {
                deployment: before,
                why: recorded.words.to_string(),
                first_token_ms: number_of(recorded.first_ms),
            },
            was: None,
            new: Side { deployment: name(went), why: words::words(&told), first_token_ms: None },
            change_ms: None,
        }
    }

    fn cut(&mut self, most: usize) {
        // Of equal changes the request that came first.
        self.found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.found.truncate(most);
    }
}

/// Who decided and by what reason, as [`words::rule`] says it of a record.
fn rule(decision: &Decision) -> String {
    use pointsman_routing::decision::Outcome;
    let used = decision.used.map(|used| format!("/{used}")).unwrap_or_default();
    let why = match &decision.outcome {
        Outcome::Chosen(choice) => choice.why.name(),
        Outcome::Queued { .. } => "",
        Outcome::Rejected { why, .. } => why.name(),
    };
    format!("{}{used}: {why}", decision.strategy)
}

fn number_of(ms: f32) -> Option<f64> {
    Some(f64::from(ms)).filter(|ms| ms.is_finite())
}
