//! Figures by which people see how well slots are used, load is spread and requests stay where they were.

use serde::Serialize;

use super::{Deployment, Fleet, Model};
use crate::catalog::{DeploymentSpec, Name};
use crate::facts::Lane;
use crate::figures::{Meter, Rolling, jain, peak_to_mean};
use crate::health::HealthState;
use crate::ids::ModelId;
use crate::rng::{mix, rendezvous};
use crate::time::Now;

/// Keys that are looked at to see how many a change moved.
const KEYS: u64 = 1024;
/// The span that changes of health are counted over.
const HOUR_MS: u64 = 3_600_000;

/// How the slots of a deployment are used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UseOfSlots {
    busy: Meter,
    sent: Rolling,
}

impl UseOfSlots {
    pub(super) fn note_sent(&mut self, inflight: u32, now: Now) {
        self.busy.set(inflight, now);
        self.sent.add(1.0, now);
    }

    pub(super) fn note_ended(&mut self, inflight: u32, now: Now) {
        self.busy.set(inflight, now);
    }
}

/// Figures of a model, over the last minute where nothing else is said.
#[derive(Debug, Clone, Serialize)]
pub struct ModelFigures {
    /// Its name.
    pub name: Name,
    /// Share of its slots in use on average; `null` where not all are known.
    pub utilisation: Option<f64>,
    /// The average load of its busiest deployment to the mean, per slot or weight; 1 when even or idle.
    pub peak_to_mean: f64,
    /// How even the average loads are, from 1/n to 1 (Jain's index).
    pub jain: f64,
    /// Seconds so far in which somebody waited while a deployment had a slot free for live requests: slots kept for them, and
    /// slots that those who waited could not use, included.
    pub idle_while_queued_s: f64,
    /// How often so far a session stayed where it was though the strategy would have moved it.
    pub affinity_kept: u64,
    /// How often one moved because another deployment led.
    pub affinity_broken_by_lead: u64,
    /// How often one moved because its own could not be picked.
    pub affinity_broken_by_health: u64,
    /// Share of keys that the latest change of its deployments moved between those that were there before and after, by
    /// weighted rendezvous; `null` while there was none.
    pub remap_share: Option<f64>,
    /// Its deployments.
    pub deployments: Vec<DeploymentFigures>,
}

/// Figures of a deployment, over the last minute where nothing else is said.
#[derive(Debug, Clone, Serialize)]
pub struct DeploymentFigures {
    /// Its name.
    pub name: Name,
    /// Its provider.
    pub provider: Name,
    /// Requests in flight on average.
    pub inflight_mean: f64,
    /// Slots in use, times seconds, so far.
    pub busy_slot_seconds: f64,
    /// Share of its slots in use on average; `null` where they are not known.
    pub utilisation: Option<f64>,
    /// Its share of what the model sent.
    pub traffic_share: f64,
    /// Its share by weight, or by slots where weights are equal and all slots are known; 0 where it cannot be sent anything.
    pub traffic_share_intended: f64,
    /// Changes of its health in the last hour; the latest 16 are counted.
    pub flaps_per_h: u32,
    /// How far predictions of the first token were off lately, as a share; `null` while there were none.
    pub prediction_error: Option<f64>,
    /// Actual times to predicted ones lately; above 1 they come late.
    pub prediction_bias: Option<f64>,
}

impl Model {
    /// Takes in how far a change of its deployments moved keys.
    pub(super) fn note_members(&mut self, before: &[DeploymentSpec]) {
        let member = |spec: &DeploymentSpec| {
            (spec.weight > 0 && !spec.draining)
                .then(|| (crate::rng::hash(spec.name.as_bytes()), f64::from(spec.weight)))
        };
        let (before, after): (Vec<_>, Vec<_>) = (
            before.iter().filter_map(member).collect(),
            self.spec.deployments.iter().filter_map(member).collect(),
        );
        if before.is_empty() || after.is_empty() || before == after {
            return;
        }
        let home = |of: &[(u64, f64)], key: u64| {
            let far = |one: &&(u64, f64)| rendezvous(key, one.0, one.1);
            of.iter().min_by(|a, b| far(a).total_cmp(&far(b))).map(|one| one.0)
        };
        let moved = (0..KEYS).filter(|key| home(&before, mix(*key)) != home(&after, mix(*key))).count();
        self.remap_share = Some(moved as f64 / KEYS as f64);
    }
}

impl Fleet {
    /// Sees whether somebody waits while a slot is free.
    pub(super) fn note_idle(&mut self, model: ModelId, now: Now) {
        let waits = self.models.get(model).is_some_and(|model| model.queue.len() > 0);
        let idle = waits && self.has_room(model);
        if let Some(known) = self.models.get_mut(model)
            && known.idle_while_queued.level() != u32::from(idle)
        {
            known.idle_while_queued.set(u32::from(idle), now);
        }
    }

    pub(super) fn figures_of(&self, model: &Model, now: Now) -> ModelFigures {
        let deployments: Vec<&Deployment> =
            model.deployments.iter().filter_map(|id| self.deployments.get(*id)).collect();
        let slots: Option<u32> = deployments.iter().map(|one| one.spec.slots).sum();
        let busy: f64 = deployments.iter().map(|one| one.use_of_slots.busy.mean(now)).sum();
        let by_weight = deployments.windows(2).any(|pair| pair[0].spec.weight != pair[1].spec.weight);
        let size = |one: &Deployment| match slots {
            Some(_) if !by_weight => f64::from(one.spec.slots.unwrap_or(0)),
            Some(_) | None => f64::from(one.spec.weight),
        };
        let takes = |one: &Deployment| {
            !one.is_drained() && !one.unhealthy && one.health(Lane::Live).state() != HealthState::Failed
        };
        let sizes: f64 = deployments.iter().filter(|one| takes(one)).map(|one| size(one)).sum();
        let sent: f64 = deployments.iter().map(|one| one.use_of_slots.sent.sum(now)).sum();
        let loads = || {
            let working = deployments.iter().filter(|one| takes(one));
            working.map(|one| one.use_of_slots.busy.mean(now) / size(one).max(1.0))
        };
        let figures = |one: &&Deployment| DeploymentFigures {
            name: Name::clone(&one.spec.name),
            provider: Name::clone(&one.spec.provider),
            inflight_mean: one.use_of_slots.busy.mean(now),
            busy_slot_seconds: one.use_of_slots.busy.total(now),
            utilisation: one
                .spec
                .slots
                .map(|slots| one.use_of_slots.busy.mean(now) / f64::from(slots.max(1))),
            traffic_share: one.use_of_slots.sent.sum(now) / sent.max(1.0),
            traffic_share_intended: if takes(one) { size(one) / sizes.max(1e-9) } else { 0.0 },
            flaps_per_h: one.flaps_per_h(now),
            prediction_error: one.predictor.error().map(|error| error.mean),
            prediction_bias: one.predictor.error().map(|error| error.bias),
        };
        ModelFigures {
            name: Name::clone(&model.name),
            utilisation: slots.map(|slots| busy / f64::from(slots.max(1))),
            peak_to_mean: peak_to_mean(loads()),
            jain: jain(loads()),
            idle_while_queued_s: model.idle_while_queued.total(now),
            affinity_kept: model.sessions.kept,
            affinity_broken_by_lead: model.sessions.broken_by_lead,
            affinity_broken_by_health: model.sessions.broken_by_health,
            remap_share: model.remap_share,
            deployments: deployments.iter().map(figures).collect(),
        }
    }
}

impl Deployment {
    fn flaps_per_h(&self, now: Now) -> u32 {
        let lately = |at: Now| now.since(at).as_millis() as u64 <= HOUR_MS;
        let changes = self.health(Lane::Live).history().filter(|change| lately(change.at)).count();
        u32::try_from(changes).unwrap_or(u32::MAX)
    }
}
