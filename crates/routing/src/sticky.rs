//! Where sessions stay: on top of any strategy, a session goes on where it was.
//!
//! A session leaves its deployment when that one can not be picked, or when another leads by so much that what is cached
//! there is not worth the wait. A lead that is no more than what one request makes is no lead, or a session would flee
//! from itself. Sessions are known by hashes salted with their tenant.

use std::time::Duration;

use crate::catalog::StickySpec;
use crate::decision::Why;
use crate::ids::DeploymentId;
use crate::limits::SESSIONS_MAX;
use crate::strategy::{Cx, Pick, View};
use crate::table::{Recent, Table};
use crate::time::Now;

/// Where the sessions of one model are. Bounded; the least lately used is forgotten first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sessions {
    table: Table,
    recent: Recent<Session>,
    /// How often a session stayed though the strategy would have moved it.
    pub(crate) kept: u64,
    /// How often one moved because another deployment led.
    pub(crate) broken_by_lead: u64,
    /// How often one moved because its own could not be picked.
    pub(crate) broken_by_health: u64,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    key: u64,
    deployment: DeploymentId,
    at: Now,
}

impl Sessions {
    /// Where a session is.
    fn place(&self, key: u64, ttl: Duration, now: Now) -> Option<DeploymentId> {
        let session = self.recent.get(self.table.get(key)?)?;
        (now - session.at <= ttl).then_some(session.deployment)
    }

    /// A session was sent somewhere.
    pub(crate) fn note(&mut self, key: u64, deployment: DeploymentId, now: Now) {
        let session = Session { key, deployment, at: now };
        if let Some(place) = self.table.get(key) {
            self.recent.touch(place);
            if let Some(known) = self.recent.get_mut(place) {
                *known = session;
            }
            return;
        }
        if self.recent.len() >= SESSIONS_MAX
            && let Some((place, oldest)) = self.recent.oldest()
        {
            self.recent.remove(place);
            self.table.remove(oldest.key);
        }
        let place = self.recent.push(session);
        self.table.insert(key, place);
    }

    /// Sessions that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.recent.len()
    }

    /// What becomes of a pick for a session: it stays where it was unless that is not eligible, or the picked one leads.
    pub(crate) fn hold(
        &mut self,
        spec: &StickySpec,
        key: u64,
        cx: &Cx<'_>,
        eligible: &[View],
        pick: Pick,
    ) -> Pick {
        let Some(home) = self.place(key, spec.ttl, cx.now) else { return pick };
        let Some(position) = eligible.iter().position(|view| view.id == home) else {
            self.broken_by_health += 1;
            return pick;
        };
        if position == pick.position {
            return pick;
        }
        let (here, there) = (cx.scores[position], cx.scores[pick.position]);
        let comparable = here.is_finite() && there.is_finite();
        if comparable && here - there > cx.one_more && there < here * (1.0 - spec.lead) {
            self.broken_by_lead += 1;
            return pick;
        }
        self.kept += 1;
        Pick { position, why: Why::Stayed }
    }
}

#[cfg(test)]
mod tests;
