//! The fleet behind its one short lock, and the wakers of those who wait for a slot.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pointsman_routing::fleet::Event;
use pointsman_routing::flow::{Action, Flow, Input};
use pointsman_routing::ids::Ticket;
use pointsman_routing::{DeploymentId, Fleet, Now, Rng};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::clock;

/// The live fleet. The lock is held for one step of one flow at a time, never across an await.
pub struct Live {
    inner: Mutex<Inner>,
}

/// What the lock guards.
pub struct Inner {
    /// All that is known of what exists.
    pub fleet: Fleet,
    rng: Rng,
    wakers: FxHashMap<Ticket, oneshot::Sender<()>>,
}

impl Live {
    /// An empty fleet with a generator seeded by `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            inner: Mutex::new(Inner {
                fleet: Fleet::new(),
                rng: Rng::seeded(seed),
                wakers: FxHashMap::default(),
            }),
        }
    }

    /// The fleet, for a look or a change. Waiters that the change let through are woken by [`Live::change`] only.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in one request must not take the others: every step leaves the fleet consistent or asserts first.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drives one flow by one input. When the flow begins to wait for a slot, or to hold one that may be wanted
    /// back, the receiver tells of that; it is registered under the same lock, so that no grant can slip between.
    pub fn step(&self, flow: &mut Flow, now: Now, input: Input) -> (Action, Option<oneshot::Receiver<()>>) {
        let mut inner = self.lock();
        let Inner { fleet, rng, wakers } = &mut *inner;
        let waited = flow.wakes_by();
        let action = flow.step(fleet, now, rng, input);
        let waits = flow.wakes_by();
        let receiver = (waits != waited)
            .then(|| {
                waited.map(|ticket| wakers.remove(&ticket));
                waits.map(|ticket| {
                    let (sender, receiver) = oneshot::channel();
                    wakers.insert(ticket, sender);
                    receiver
                })
            })
            .flatten();
        inner.wake();
        (action, receiver)
    }

    /// A fresh connection to a deployment took this long.
    pub fn note_connect_time(&self, deployment: DeploymentId, took: Duration) {
        self.lock().fleet.observe(clock::now(), Event::ConnectTime(deployment, took));
    }

    /// Changes the fleet and wakes whoever can go on because of it.
    pub fn change<T>(&self, change: impl FnOnce(&mut Fleet) -> T) -> T {
        let mut inner = self.lock();
        let result = change(&mut inner.fleet);
        inner.wake();
        result
    }
}

impl Inner {
    fn wake(&mut self) {
        let mut woken = SmallVec::new();
        self.fleet.drain_woken(&mut woken);
        for ticket in woken {
            if let Some(waker) = self.wakers.remove(&ticket) {
                // A receiver that is gone belongs to a client that left; its flow returns the grant.
                let _ = waker.send(());
            }
        }
    }

    /// A copy of the fleet and a generator of its own, to ask "what if" without consequences.
    pub fn sandbox(&mut self) -> (Fleet, Rng) {
        (self.fleet.clone(), Rng::seeded(self.rng.fork("sandbox").next_u64()))
    }
}
