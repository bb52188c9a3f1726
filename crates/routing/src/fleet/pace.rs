//! Who has become slow: times judged against the deployment's own past and its peers.

use std::time::Duration;

use smallvec::SmallVec;

use super::{Fleet, Permit};
use crate::facts::Lane;
use crate::ids::{DeploymentId, ModelId};
use crate::limits::PROBE_LATE;
use crate::pace::{Pace, middle};
use crate::time::Now;

impl Fleet {
    /// The first content came, or an answer in one piece.
    pub(super) fn note_pace(&mut self, permit: &Permit, took: Duration, now: Now) {
        let (id, lane) = (permit.deployment, permit.lane);
        let Some(deployment) = self.deployments.get_mut(id) else { return };
        if !permit.tells_speed {
            // It measures the request more than the deployment: good enough to know when a wait is late.
            let whole = &mut deployment.paces_mut(lane).whole;
            whole.observe(took, permit.size(), now, || f64::MAX);
            return;
        }
        let mut pace = deployment.paces_mut(lane).first;
        pace.observe(took, permit.size(), now, || self.peers_lately(id, lane, now));
        self.set_pace(id, lane, pace, now);
    }

    /// A request was given up that got nothing: whether it had waited for so much longer than it should have that this
    /// speaks against the deployment.
    pub(super) fn note_given_up(&mut self, permit: &Permit, now: Now) -> bool {
        let (id, lane) = (permit.deployment, permit.lane);
        let waited = now - permit.taken;
        let Some(deployment) = self.deployments.get(id) else { return false };
        if permit.first_content.is_some() || waited.is_zero() {
            return false;
        }
        let known = self.late_after(permit, now);
        if known.is_some_and(|late| waited >= late) && permit.tells_speed {
            let mut pace = deployment.paces(lane).first;
            pace.observe_at_least(waited, permit.size(), now, || self.peers_lately(id, lane, now));
            self.set_pace(id, lane, pace, now);
        }
        match known {
            Some(late) => waited >= late,
            None => permit.probe && waited >= PROBE_LATE,
        }
    }

    /// After what time a request is late: by what its deployment is like, or its peers, and what all have become slower
    /// by.
    fn late_after(&self, permit: &Permit, now: Now) -> Option<Duration> {
        let late = |id: DeploymentId| {
            let paces = self.deployments.get(id)?.paces(permit.lane);
            let pace = if permit.tells_speed { &paces.first } else { &paces.whole };
            pace.late_after(permit.size())
        };
        let own = late(permit.deployment).or_else(|| {
            let model = self.models.get(self.deployments.get(permit.deployment)?.model)?;
            let peers = model.deployments.iter().filter_map(|id| late(*id)).map(|late| late.as_secs_f64());
            let mut peers: SmallVec<[f64; 16]> = peers.collect();
            (!peers.is_empty()).then(|| Duration::from_secs_f64(middle(&mut peers)))
        })?;
        let shared = self.peers_lately(permit.deployment, permit.lane, now).max(0.0);
        Some(own.mul_f64(shared.exp()))
    }

    /// What the others of its model have become slower by lately, in the middle, as a logarithm; 0 where there are none.
    fn peers_lately(&self, id: DeploymentId, lane: Lane, now: Now) -> f64 {
        let model: Option<ModelId> = self.deployments.get(id).map(|deployment| deployment.model);
        let Some(model) = model.and_then(|model| self.models.get(model)) else { return 0.0 };
        let peers = model.deployments.iter().filter(|peer| **peer != id);
        let paces = peers.filter_map(|peer| Some(&self.deployments.get(*peer)?.paces(lane).first));
        let mut lately: SmallVec<[f64; 16]> = paces.filter_map(|pace| pace.lately(now)).collect();
        middle(&mut lately)
    }

    fn set_pace(&mut self, id: DeploymentId, lane: Lane, pace: Pace, now: Now) {
        if let Some(deployment) = self.deployments.get_mut(id) {
            deployment.paces_mut(lane).first = pace;
            deployment.note_pace(lane, now);
        }
    }
}
