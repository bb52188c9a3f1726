//! What engines say, taken into the fleet, and as people and metrics see it.

use serde::Serialize;

use super::{Deployment, Fleet};
use crate::engine::{EngineLoad, REPORT_BELIEVED, Report};
use crate::ids::{DeploymentId, ModelId};
use crate::time::Now;

/// What an engine says of itself, and what it comes to with what was sent since.
#[derive(Debug, Clone, Serialize)]
pub struct EngineView {
    /// The age of its last report, milliseconds.
    pub report_age_ms: u64,
    /// Requests it worked on.
    pub running: Option<u32>,
    /// Requests that waited in it.
    pub waiting: Option<u32>,
    /// Share of its KV cache in use, from 0 to 1.
    pub kv_used: Option<f32>,
    /// Tokens that its KV cache holds.
    pub kv_capacity_tokens: Option<u64>,
    /// How many requests it works on at most, by its own word.
    pub slots: Option<u32>,
    /// Whether the model is in memory and awake.
    pub awake: Option<bool>,
    /// The load as it is likely to be now; `null` where its report is too old.
    pub load: Option<LoadView>,
    /// Share of prompt tokens that it found in its prefix cache lately.
    pub prefix_hit_ratio: Option<f64>,
    /// Requests it put back for want of room, within the last minute or so.
    pub preemptions: f64,
    /// How often it was started anew while it was watched.
    pub restarts: u32,
}

/// What an engine's events say of its prefix cache.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CacheView {
    /// Tokens it holds; a lower bound while it is unsure.
    pub tokens: u64,
    /// Whether no event was missed since it was empty.
    pub sure: bool,
    /// How often it was cleared.
    pub cleared: u32,
    /// Tokens that were pushed out within the last minute or so.
    pub evicted: f64,
}

impl CacheView {
    pub(super) fn new(deployment: &Deployment, now: Now) -> Option<Self> {
        let cache = deployment.engine.cache()?;
        let evicted = cache.evicted(now);
        Some(Self { tokens: cache.tokens, sure: cache.sure, cleared: cache.cleared, evicted })
    }
}

/// The load of an engine as it is likely to be now.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LoadView {
    /// Requests it works on.
    pub running: Option<u32>,
    /// Requests that wait in it.
    pub waiting: Option<u32>,
    /// Of all these, those that were not sent from here.
    pub foreign: Option<u32>,
    /// Share of its KV cache in use, from 0 to 1.
    pub kv_used: Option<f32>,
}

/// Whether an engine says all that it should.
#[derive(Debug, Clone, Default, Serialize)]
pub struct EngineSignals {
    /// `ok`, `missing` when it no longer gives what it should, `stale` when its last report is too old to be believed, or
    /// `none` when it never gave one.
    pub state: &'static str,
    /// What is missing.
    pub missing: Vec<MissingSignal>,
    /// Since when nothing was heard, milliseconds, if it is stale.
    pub stale_ms: Option<u64>,
}

/// A signal that an engine no longer gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MissingSignal {
    /// Its name.
    pub signal: &'static str,
    /// For how long, milliseconds.
    pub since_ms: u64,
}

impl EngineView {
    pub(super) fn new(deployment: &Deployment, now: Now) -> Option<Self> {
        let engine = &deployment.engine;
        let (report, at) = engine.report()?;
        let (load, trend) = (engine.load(now), engine.trend());
        let load = LoadView {
            running: load.running,
            waiting: load.waiting,
            foreign: load.foreign,
            kv_used: load.kv_used,
        };
        Some(Self {
            report_age_ms: now.since(at).as_millis() as u64,
            running: report.running,
            waiting: report.waiting,
            kv_used: report.kv_used,
            kv_capacity_tokens: report.kv_capacity_tokens,
            slots: engine.slots(),
            awake: report.awake,
            load: (now.since(at) <= REPORT_BELIEVED).then_some(load),
            prefix_hit_ratio: trend.prefix_hit_ratio,
            preemptions: trend.preemptions,
            restarts: trend.restarts,
        })
    }
}

impl EngineSignals {
    pub(super) fn new(deployment: &Deployment, now: Now) -> Self {
        let missing = deployment.engine.missing(now).map(|missing| MissingSignal {
            signal: missing.signal.name(),
            since_ms: now.since(missing.since).as_millis() as u64,
        });
        let missing: Vec<MissingSignal> = missing.collect();
        let age = deployment.engine.reported().map(|at| now - at);
        let stale_ms = age.filter(|age| *age > REPORT_BELIEVED).map(|age| age.as_millis() as u64);
        let state = match age {
            None => "none",
            Some(_) if stale_ms.is_some() => "stale",
            Some(_) if !missing.is_empty() => "missing",
            Some(_) => "ok",
        };
        Self { state, missing, stale_ms }
    }
}

impl Deployment {
    /// Takes the number of slots that its engine gives, where it has none and is to learn it. Says whether it changed.
    pub(super) fn learn_slots(&mut self) -> bool {
        let Some(learnt) = self.engine.slots().filter(|_| self.spec.slots_learnt) else { return false };
        self.spec.slots.replace(learnt) != Some(learnt)
    }
}

impl Fleet {
    /// Takes a report in; gives the deployment and its model if it may have got room.
    pub(super) fn note_engine(
        &mut self,
        id: DeploymentId,
        report: Report,
        now: Now,
    ) -> Option<(DeploymentId, ModelId)> {
        let deployment = self.deployments.get_mut(id)?;
        if deployment.engine.note_report(report, now) {
            // What it had cached is gone with its memory.
            self.forget_cached(id, false);
        }
        let deployment = self.deployments.get_mut(id)?;
        deployment.underway.note_engine(&deployment.engine.load(now));
        let mut made_room = deployment.note_claims(&report, now);
        if deployment.learn_slots() {
            let spec = &deployment.spec;
            deployment.limiter.apply(&spec.limiter, spec.free, spec.slots);
            made_room = true;
        }
        made_room.then_some((id, deployment.model))
    }

    /// Whether the signals of a deployment's engine are all there.
    pub fn engine_signals(&self, id: DeploymentId, now: Now) -> EngineSignals {
        self.deployments.get(id).map(|deployment| EngineSignals::new(deployment, now)).unwrap_or_default()
    }

    /// Requests that are in flight on a deployment, its engine's load as it is likely to be now, and its slots, or
    /// those its engine speaks of.
    pub fn engine_load(&self, id: DeploymentId, now: Now) -> (u32, EngineLoad, Option<u32>) {
        self.deployments.get(id).map_or_else(Default::default, |known| {
            (known.inflight, known.engine.load(now), known.spec.slots.or(known.engine.slots()))
        })
    }
}
