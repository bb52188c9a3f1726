//! The drain of a deployment: no new requests, and a moment at which those still in flight are ended.

use std::time::Duration;

use super::{Deployment, Fleet};
use crate::time::Now;

/// A drain under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    began: Now,
    pub(crate) ends: Now,
    /// Whether those still in flight were told of its end.
    told: bool,
}

impl Deployment {
    /// Begins, moves or forgets the drain as the configuration has it now.
    pub(super) fn apply_drain(&mut self, now: Now) {
        self.drain = self.spec.draining.then(|| {
            let began = self.drain.map_or(now, |drain| drain.began);
            let ends = began + self.spec.drain;
            let told = self.drain.is_some_and(|drain| drain.told && drain.ends == ends);
            Drain { began, ends, told }
        });
    }

    /// Whether its drain is over, so that no request may go on.
    pub(crate) fn is_recalled(&self, now: Now) -> bool {
        self.drain.is_some_and(|drain| now >= drain.ends)
    }

    /// Time until its drain ends, while it has one.
    pub(crate) fn drain_left(&self, now: Now) -> Option<Duration> {
        self.drain.map(|drain| drain.ends.since(now))
    }
}

impl Fleet {
    /// When the next drain ends that nobody was told of: [`Input::Recalled`](crate::flow::Input::Recalled) is due then
    /// for everything under way.
    pub fn next_drain_end(&self) -> Option<Now> {
        let drains = self.deployments.values().filter_map(|deployment| deployment.drain);
        drains.filter(|drain| !drain.told).map(|drain| drain.ends).min()
    }

    /// Everything under way was told of the drains that are over.
    pub fn note_drain_end(&mut self, now: Now) {
        for deployment in self.deployments.values_mut() {
            if let Some(drain) = &mut deployment.drain {
                drain.told |= now >= drain.ends;
            }
        }
    }
}
