//! The slots that batch leaves free, so that live requests find one: what is sent to an engine cannot be taken back.
//!
//! Batch may fill all slots while no live request comes. While they come, so many are kept free that one in a few hundred
//! finds none (a quantile that is followed step by step, after Robbins and Monro): each live request that has to wait
//! while batch holds slots it could use adds one, each that finds a slot takes a small part of one away. What live needs is the slots
//! for its bursts until batch requests end and are not replaced, not for its peak: a slot that becomes free is live's first.
//! It fades when live traffic becomes rare, and is nothing once no live request came for a while, so that slots are not kept
//! for nobody. Whatever is kept, batch may always have one slot, or one in twenty.

use std::time::Duration;

use super::Fleet;
use super::deployment::Deployment;
use super::order::FLOOR_ONE_IN;
use crate::facts::Lane;
use crate::ids::{DeploymentId, ModelId};
use crate::time::Now;

/// One live request in so many may find no slot for batch's sake.
const MISSED_ONE_IN: f64 = 400.0;
/// The part of the slots that is kept when live traffic begins, until more is known: one in so many.
const FIRST_ONE_IN: u32 = 10;
/// Without a live request for so long nothing is kept.
const LIVE_GONE: Duration = Duration::from_mins(10);
/// In what time one of the kept slots is given up, beside what requests do.
const FADES_IN: Duration = Duration::from_mins(30);

/// How many slots of one deployment are kept for live requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reserve {
    /// Whether any are.
    on: bool,
    /// Whether batch may use them for once.
    open: bool,
    kept: f64,
    /// Batch took a slot since the last time that more was kept: until then nobody knows whether it is enough.
    tried: bool,
    faded_at: Now,
    live_at: Option<Now>,
}

impl Default for Reserve {
    fn default() -> Self {
        Self { on: true, open: false, kept: 0.0, tried: true, faded_at: Now::ZERO, live_at: None }
    }
}

impl Reserve {
    pub(super) fn apply(&mut self, on: bool) {
        self.on = on;
        self.kept = if on { self.kept } else { 0.0 };
    }

    /// A batch request took a slot.
    pub(super) fn note_batch(&mut self) {
        self.tried = true;
    }

    /// A live request took a slot.
    pub(super) fn note_live(&mut self, now: Now, slots: u32) {
        if !self.on || slots == u32::MAX {
            return;
        }
        if self.live_at.is_none_or(|at| now - at >= LIVE_GONE) {
            self.kept = f64::from(slots.div_ceil(FIRST_ONE_IN).min(slots - 1));
            self.faded_at = now;
        }
        self.live_at = Some(now);
        self.kept = (self.kept - 1.0 / MISSED_ONE_IN).max(0.0);
    }

    /// A live request found none, and this is its part in that.
    fn note_missed(&mut self, part: f64, slots: u32, now: Now) {
        if self.on && std::mem::take(&mut self.tried) {
            self.live_at = Some(now);
            self.kept = (self.kept + part).min(f64::from(slots));
        }
    }

    /// Time went by. Gives whether that set slots free.
    fn fade(&mut self, now: Now) -> bool {
        let before = self.kept();
        if self.live_at.is_none_or(|at| now - at >= LIVE_GONE) {
            self.kept = 0.0;
        } else if self.kept > 1.0 {
            let faded = (now - self.faded_at).as_secs_f64() / FADES_IN.as_secs_f64();
            self.kept = (self.kept - faded).max(1.0);
        }
        self.faded_at = now;
        self.kept() < before
    }

    /// How many are kept.
    pub(crate) fn kept(&self) -> u32 {
        self.kept.round() as u32
    }
}

impl Deployment {
    /// Whether the slots that are left are not for batch.
    #[inline]
    pub(super) fn is_full_for_batch(&self) -> bool {
        let slots = self.limiter.bound(Lane::Live);
        self.inflight_batch >= self.limiter.bound(Lane::Batch)
            || (!self.reserve.open
                && self.inflight.saturating_add(self.reserve.kept()) >= slots
                && self.inflight_batch >= batch_least(slots))
    }
}

/// What batch may have whatever is kept.
fn batch_least(slots: u32) -> u32 {
    (slots / u32::from(FLOOR_ONE_IN)).max(1)
}

impl Fleet {
    /// A live request found all of these full: where batch is the reason, more is kept from now on.
    pub(super) fn note_missed(&mut self, usable: &[DeploymentId], now: Now) {
        let full_of_batch = |deployment: &Deployment| {
            let slots = deployment.limiter.bound(Lane::Live);
            deployment.inflight >= slots && deployment.inflight_batch > batch_least(slots)
        };
        let known = |id: &&DeploymentId| self.deployments.get(**id).is_some_and(full_of_batch);
        let part = 1.0 / usable.iter().filter(known).count().max(1) as f64;
        for id in usable {
            if let Some(deployment) = self.deployments.get_mut(*id).filter(|one| full_of_batch(one)) {
                deployment.reserve.note_missed(part, deployment.limiter.bound(Lane::Live), now);
            }
        }
    }

    /// Lets batch use what is kept for live requests, or no more.
    pub(super) fn open_reserves(&mut self, model: ModelId, open: bool) {
        let ids = self.models.get(model).into_iter().flat_map(|model| &model.deployments);
        for id in ids {
            if let Some(deployment) = self.deployments.get_mut(*id) {
                deployment.reserve.open = open;
            }
        }
    }

    /// Gives to batch what time has set free.
    pub(super) fn refresh_reserves(&mut self, model: ModelId, now: Now) {
        let Some(model) = self.models.get_mut(model) else { return };
        for id in &model.deployments {
            if let Some(deployment) = self.deployments.get_mut(*id)
                && deployment.reserve.fade(now)
            {
                model.queue.note_change(*id);
            }
        }
    }
}
