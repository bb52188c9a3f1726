//! What is counted while a run goes on, in as little room as there can be for millions of requests.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_routing::Now;
use pointsman_routing::fleet::FleetView;
use pointsman_routing::flow::{Flow, FlowOutcome};

use super::engines::Places;
use super::results::{self, Balance, Decisions, EngineRun, Goodput, Jitter, Run, Spread, Tenant};
use super::setup::{Objective, Setup};
use crate::engine::Kind;
use crate::workload::{Ask, Workload};

mod series;
mod waiting;

use series::Sampler;
use waiting::Waiting;

/// Tenants that are told of, at most.
const TENANTS_MAX: usize = 100;
/// Engines that are told of, at most.
const ENGINES_MAX: usize = 1_000;
/// Sessions or prefixes whose last place is remembered, at most.
const PLACES_MAX: usize = 200_000;

/// One request that is over; times in milliseconds, not a number where there is none.
#[derive(Debug, Clone, Copy)]
struct Ended {
    tenant: u32,
    first: f32,
    per_token: f32,
    end: f32,
    queue: f32,
    tokens_in: u32,
    good: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct OfTenant {
    requests: u64,
    completed: u64,
    service: u64,
    good: u64,
    /// Requests that are not over.
    present: u32,
    /// Service up to the last sample.
    service_then: u64,
    /// Service while it had something to ask, and what would have been an even share of all service then.
    given: f64,
    even: f64,
}

/// What is counted while a run goes on.
pub(super) struct Measure {
    objective: Objective,
    usual: Kind,
    tenants: Vec<OfTenant>,
    names: Vec<pointsman_routing::catalog::Name>,
    ended: Vec<Ended>,
    outcomes: BTreeMap<&'static str, u64>,
    tokens_in: u64,
    tokens_cached: u64,
    tokens_done: u64,
    decisions: u64,
    deciding_ns: Option<u64>,
    sampler: Sampler,
    waiting: Waiting,
    /// Where sessions went last.
    sessions: BTreeMap<u64, u32>,
    /// Where what begins alike went last.
    last: BTreeMap<u64, u32>,
    turns: u64,
    breaks: u64,
    again: u64,
    moved: u64,
    /// Where sessions went before the last reload, of those that did not come since.
    before: BTreeMap<u64, u32>,
    remaps: Vec<Remap>,
}

/// What became of sessions after a reload.
#[derive(Debug, Default)]
struct Remap {
    /// Engines that were there before and after, and how many were there.
    stayed: BTreeSet<u32>,
    engines: (usize, usize),
    /// Sessions that came again.
    came: u64,
    /// Of those, that went elsewhere.
    moved: u64,
    /// Of those, that went from one that stayed to another that was there before.
    needless: u64,
}

impl Remap {
    fn told(&self, nth: usize) -> results::Remap {
        let share = |part: u64| part as f64 / self.came.max(1) as f64;
        let (before, after) = self.engines;
        let least = |there: usize| (there - self.stayed.len()) as f64 / there.max(1) as f64;
        results::Remap {
            name: nth.to_string(),
            engines: self.engines,
            share_least: least(before).max(least(after)),
            sessions: self.came,
            share: share(self.moved),
            share_needless: share(self.needless),
        }
    }
}

impl Measure {
    pub(super) fn new(setup: &Setup<'_>, places: &Places) -> Self {
        Self {
            objective: setup.objective,
            usual: (*setup.engines.usual).clone(),
            tenants: vec![OfTenant::default(); setup.workload.tenants.len()],
            names: setup.workload.tenants.clone(),
            ended: Vec::with_capacity(setup.workload.asks().len()),
            outcomes: BTreeMap::new(),
            tokens_in: 0,
            tokens_cached: 0,
            tokens_done: 0,
            decisions: 0,
            deciding_ns: setup.clock.map(|_| 0),
            sampler: Sampler::new(places.all.len()),
            waiting: Waiting::new(places),
            sessions: BTreeMap::new(),
            last: BTreeMap::new(),
            turns: 0,
            breaks: 0,
            again: 0,
            moved: 0,
            before: BTreeMap::new(),
            remaps: Vec::new(),
        }
    }

    pub(super) fn note_arrival(&mut self, ask: &Ask) {
        self.tenants[ask.tenant as usize].present += 1;
    }

    /// Another configuration took effect.
    pub(super) fn note_reload(&mut self, before: &BTreeSet<u32>, after: &BTreeSet<u32>) {
        self.before.clone_from(&self.sessions);
        let (stayed, engines) = (before.intersection(after).copied().collect(), (before.len(), after.len()));
        self.remaps.push(Remap { stayed, engines, ..Remap::default() });
        self.sampler.note_present(after);
    }

    pub(super) fn note_decision(&mut self, took_ns: Option<u64>) {
        self.decisions += 1;
        if let (Some(sum), Some(took_ns)) = (&mut self.deciding_ns, took_ns) {
            *sum += took_ns;
        }
    }

    /// So many more wait in routers for engines of a group.
    pub(super) fn note_waiting(&mut self, group: u32, change: i64, now_ns: u64) {
        self.waiting.note_router(group, change, now_ns);
    }

    /// What an engine has, and of that what waits.
    pub(super) fn note_engine(&mut self, place: u32, group: u32, has: (usize, usize), now_ns: u64) {
        self.waiting.note_engine(place, group, has, now_ns);
    }

    /// A request is sent to an engine.
    pub(super) fn note_sent(&mut self, session: Option<u64>, place: u32, workload: &Workload, ask: &Ask) {
        if let Some(session) = session {
            if let Some(last) = went(&mut self.sessions, session, place) {
                self.turns += 1;
                self.breaks += u64::from(last != place);
            }
            if let (Some(before), Some(remap)) = (self.before.remove(&session), self.remaps.last_mut()) {
                let moved = before != place;
                remap.came += 1;
                remap.moved += u64::from(moved);
                remap.needless +=
                    u64::from(moved && remap.stayed.contains(&before) && remap.stayed.contains(&place));
            }
        }
        // The longest beginning that somebody had before says where it had better go.
        let longest =
            workload.blocks(ask).map(|(_, hash)| hash).filter(|hash| self.last.contains_key(hash)).last();
        let own = workload.blocks(ask).last().map(|(_, hash)| hash);
        if let Some(last) = longest.and_then(|hash| self.last.get(&hash)) {
            self.again += 1;
            self.moved += u64::from(*last != place);
        }
        if let Some(own) = own {
            went(&mut self.last, own, place);
        }
    }

    /// A request is over.
    pub(super) fn note_end(
        &mut self,
        ask: &Ask,
        (flow, arrived): (&Flow, Now),
        tokens_cached: u32,
        now_ns: u64,
    ) {
        let name = match flow.outcome() {
            Some(FlowOutcome::Completed { .. }) => "completed",
            Some(FlowOutcome::Rejected { .. }) => "rejected",
            Some(FlowOutcome::Failed { .. }) => "failed",
            Some(FlowOutcome::Truncated { .. }) => "truncated",
            Some(FlowOutcome::ClientGone { .. }) => "client_gone",
            None => "unfinished",
        };
        *self.outcomes.entry(name).or_default() += 1;
        let ms = |from: Now, to: Now| ((to - from).as_secs_f64() * 1e3) as f32;
        let now = Now::from_nanos(now_ns);
        let completed = name == "completed";
        let first = flow.attempts().iter().rev().find_map(|attempt| attempt.first_content);
        let after = ask.tokens_out.saturating_sub(1);
        let per_token = match first {
            Some(first) if completed && after > 0 => ms(first, now) / after as f32,
            Some(_) | None => f32::NAN,
        };
        let first_ms = first.filter(|_| completed).map_or(f32::NAN, |first| ms(arrived, first));
        let in_time = f64::from(first_ms) <= self.objective.first_token_ms;
        let steady = per_token.is_nan() || f64::from(per_token) <= self.objective.per_token_ms;
        let good = completed && in_time && steady;
        self.ended.push(Ended {
            tenant: ask.tenant,
            first: first_ms,
            per_token,
            end: if completed { ms(arrived, now) } else { f32::NAN },
            queue: (flow.queue_wait().as_secs_f64() * 1e3) as f32,
            tokens_in: ask.tokens_in,
            good,
        });
        let tenant = &mut self.tenants[ask.tenant as usize];
        tenant.requests += 1;
        tenant.present = tenant.present.saturating_sub(1);
        tenant.good += u64::from(good);
        if completed {
            let uncached = u64::from(ask.tokens_in - tokens_cached);
            tenant.completed += 1;
            tenant.service += uncached + 2 * u64::from(ask.tokens_out);
            self.tokens_in += u64::from(ask.tokens_in);
            self.tokens_cached += u64::from(tokens_cached);
            self.tokens_done += u64::from(ask.tokens_in) + u64::from(ask.tokens_out);
            self.sampler.note_first(first_ms);
        }
    }

    pub(super) fn sample(&mut self, now_ns: u64, places: &Places) {
        self.sampler.sample(now_ns, places, self.waiting.routers());
        let busy = self.tenants.iter().filter(|tenant| tenant.present > 0).count();
        let all: u64 = self.tenants.iter().map(|tenant| tenant.service - tenant.service_then).sum();
        for tenant in &mut self.tenants {
            if tenant.present > 0 {
                tenant.given += (tenant.service - tenant.service_then) as f64;
                tenant.even += all as f64 / busy as f64;
            }
            tenant.service_then = tenant.service;
        }
    }

    /// What it all came to.
    pub(super) fn run(
        mut self,
        seed: u64,
        now_ns: u64,
        places: &Places,
        views: &[FleetView],
        broken: Vec<String>,
    ) -> Run {
        let span_s = now_ns as f64 / 1e9;
        let good = self.ended.iter().filter(|one| one.good).count() as f64;
        let of = |value: fn(&Ended) -> f32| {
            let mut values: Vec<f32> = self.ended.iter().map(value).filter(|value| !value.is_nan()).collect();
            Spread::of(&mut values)
        };
        let usual = &self.usual;
        let mut slowdown: Vec<f32> = self
            .ended
            .iter()
            .filter(|one| !one.first.is_nan())
            .map(|one| one.first / usual.alone_ms(one.tokens_in) as f32)
            .collect();
        let deployments = views.iter().flat_map(|view| &view.models).flat_map(|model| &model.deployments);
        let flaps: u64 = deployments.map(|deployment| deployment.breaker_transitions).sum();
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        Run {
            seed,
            outcomes: self.outcomes.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
            span_s,
            first_token_ms: of(|one| one.first),
            per_token_ms: of(|one| one.per_token),
            slowdown: Spread::of(&mut slowdown),
            end_to_end_ms: of(|one| one.end),
            queue_ms: of(|one| one.queue),
            goodput: Goodput { share: good / self.ended.len().max(1) as f64, per_s: good / span_s.max(1e-9) },
            tokens_cached_share: share(self.tokens_cached, self.tokens_in),
            tokens_per_s: self.tokens_done as f64 / span_s.max(1e-9),
            balance: self.balance(now_ns, places),
            jitter: Jitter {
                oscillation: self.sampler.oscillation(),
                flaps_per_hour: flaps as f64 / views.len().max(1) as f64 / (span_s / 3_600.0).max(1e-9),
                affinity_breaks_per_1000: share(self.breaks * 1_000, self.turns),
                remap_share: share(self.moved, self.again),
                remap_on_reload: self.remaps.iter().map(|one| share(one.moved, one.came)).fold(0.0, f64::max),
                remap_needless: self
                    .remaps
                    .iter()
                    .map(|one| share(one.needless, one.came))
                    .fold(0.0, f64::max),
            },
            remaps: self.remaps.iter().zip(1..).map(|(one, nth)| one.told(nth)).collect(),
            idle_while_queued_s: self.waiting.idle_while_queued_s(now_ns),
            preempted: places.all.iter().map(|place| place.engine.preempted).sum(),
            decisions: Decisions {
                count: self.decisions,
                mean_ns: self.deciding_ns.map(|sum| sum as f64 / self.decisions.max(1) as f64),
            },
            tenants: self.of_tenants(),
            series: self.sampler.series(),
            broken,
        }
    }

    fn balance(&self, now_ns: u64, places: &Places) -> Balance {
        let one = |place: &super::engines::Place| EngineRun {
            name: place.name.to_string(),
            requests: place.requests,
            tokens: place.work,
            utilisation: place.engine.busy_ns(now_ns) as f64 / now_ns.max(1) as f64,
        };
        let count = places.all.len().max(1) as f64;
        let engines: Vec<EngineRun> = places.all.iter().map(one).collect();
        let mean_work = engines.iter().map(|one| one.tokens as f64).sum::<f64>() / count;
        let (jain, max_to_mean) = self.sampler.evenness();
        Balance {
            utilisation_mean: engines.iter().map(|one| one.utilisation).sum::<f64>() / count,
            utilisation_max: engines.iter().map(|one| one.utilisation).fold(0.0, f64::max),
            jain,
            max_to_mean,
            work_max_to_mean: engines.iter().map(|one| one.tokens as f64).fold(0.0, f64::max)
                / mean_work.max(1.0),
            engines: engines.into_iter().take(ENGINES_MAX).collect(),
        }
    }

    fn of_tenants(&mut self) -> Vec<Tenant> {
        let mut order: Vec<usize> = (0..self.tenants.len()).collect();
        order.sort_by_key(|place| std::cmp::Reverse(self.tenants[*place].requests));
        order.truncate(TENANTS_MAX);
        let mut first: BTreeMap<u32, Vec<f32>> =
            order.iter().map(|place| (*place as u32, Vec::new())).collect();
        for one in self.ended.iter().filter(|one| !one.first.is_nan()) {
            if let Some(values) = first.get_mut(&one.tenant) {
                values.push(one.first);
            }
        }
        let all: u64 = self.tenants.iter().map(|tenant| tenant.service).sum();
        let told = |place: usize| {
            let tenant = self.tenants[place];
            let mut values = first.remove(&(place as u32)).unwrap_or_default();
            Tenant {
                name: self.names[place].to_string(),
                requests: tenant.requests,
                completed: tenant.completed,
                service: tenant.service,
                share: tenant.service as f64 / all.max(1) as f64,
                first_token_ms: Spread::of(&mut values),
                over_even_share: if tenant.even > 0.0 { tenant.given / tenant.even } else { 0.0 },
                good_share: tenant.good as f64 / tenant.requests.max(1) as f64,
            }
        };
        order.into_iter().map(told).collect()
    }
}

/// Notes where a key went; gives where it went before.
fn went(last: &mut BTreeMap<u64, u32>, key: u64, place: u32) -> Option<u32> {
    if last.len() >= PLACES_MAX && !last.contains_key(&key) {
        // Keys are hashes: the first is any.
        last.pop_first();
    }
    last.insert(key, place)
}
