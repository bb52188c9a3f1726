//! Which account issued what: ids of answers that a provider keeps, and of thoughts that only it can read.
//!
//! A request that names one is decided among the deployments of that account alone ([`Pin`]). Ids are known by hashes salted
//! with their tenant, and every tenant has a table of its own: nobody finds what another was given, or pushes it out unless
//! it holds most of all.

use std::collections::BTreeMap;

use crate::facts::Pin;
use crate::limits::{ISSUED_MAX, ISSUED_OF_TENANT_MAX, ISSUED_TTL};
use crate::table::{Recent, Table};
use crate::time::Now;

/// What was issued, and by whom. Bounded; of whoever holds most, what was used least lately is forgotten first.
#[derive(Debug, Default)]
pub struct Issued {
    tenants: BTreeMap<u64, OfTenant>,
    len: usize,
    forgotten: u64,
}

#[derive(Debug, Default)]
struct OfTenant {
    table: Table,
    recent: Recent<Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: u64,
    pin: Pin,
    at: Now,
}

impl Issued {
    /// An account gave a tenant this id.
    pub fn note(&mut self, tenant: u64, id: u64, pin: Pin, now: Now) {
        let entry = Entry { key: id, pin, at: now };
        let of_tenant = self.tenants.entry(tenant).or_default();
        if let Some(place) = of_tenant.table.get(id) {
            of_tenant.recent.touch(place);
            if let Some(known) = of_tenant.recent.get_mut(place) {
                *known = entry;
            }
            return;
        }
        if of_tenant.recent.len() >= ISSUED_OF_TENANT_MAX {
            self.len -= of_tenant.drop_oldest();
            self.forgotten += 1;
        }
        let place = of_tenant.recent.push(entry);
        of_tenant.table.insert(id, place);
        self.len += 1;
        if self.len > ISSUED_MAX {
            self.make_room();
        }
    }

    /// Which account gave a tenant this id, if that is still known.
    pub fn find(&mut self, tenant: u64, id: u64, now: Now) -> Option<Pin> {
        let of_tenant = self.tenants.get_mut(&tenant)?;
        let place = of_tenant.table.get(id)?;
        let entry = *of_tenant.recent.get(place)?;
        if now - entry.at > ISSUED_TTL {
            self.forget(tenant, id);
            return None;
        }
        of_tenant.recent.touch(place);
        Some(entry.pin)
    }

    /// What a tenant was given is no more.
    pub fn forget(&mut self, tenant: u64, id: u64) {
        let Some(of_tenant) = self.tenants.get_mut(&tenant) else { return };
        if let Some(place) = of_tenant.table.get(id) {
            of_tenant.recent.remove(place);
            of_tenant.table.remove(id);
            self.len -= 1;
        }
        if of_tenant.recent.len() == 0 {
            self.tenants.remove(&tenant);
        }
    }

    /// Ids that are known.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether none is known.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ids that were forgotten for want of room.
    pub const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    fn make_room(&mut self) {
        let most = self.tenants.iter().max_by_key(|(_, of_tenant)| of_tenant.recent.len());
        let Some(tenant) = most.map(|(tenant, _)| *tenant) else { return };
        if let Some(of_tenant) = self.tenants.get_mut(&tenant) {
            self.len -= of_tenant.drop_oldest();
            self.forgotten += 1;
            if of_tenant.recent.len() == 0 {
                self.tenants.remove(&tenant);
            }
        }
    }
}

impl OfTenant {
    /// How many were dropped: one, unless there is none.
    fn drop_oldest(&mut self) -> usize {
        let Some((place, oldest)) = self.recent.oldest() else { return 0 };
        self.recent.remove(place);
        self.table.remove(oldest.key);
        1
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::{CredentialId, DeploymentId};

    fn pin(index: u32) -> Pin {
        Pin {
            deployment: DeploymentId { index, generation: 0 },
            credential: Some(CredentialId { index, generation: 0 }),
        }
    }

    #[test]
    fn each_tenant_finds_its_own_for_a_while() {
        let (mut issued, now) = (Issued::default(), Now::from_millis(1));
        issued.note(1, 7, pin(1), now);
        assert_eq!(issued.find(1, 7, now), Some(pin(1)));
        assert_eq!(issued.find(2, 7, now), None, "another tenant's is never found");
        issued.note(1, 7, pin(2), now);
        assert_eq!((issued.find(1, 7, now), issued.len()), (Some(pin(2)), 1));
        let late = now + ISSUED_TTL + Duration::from_millis(1);
        assert_eq!((issued.find(1, 7, late), issued.len()), (None, 0));
        issued.note(1, 8, pin(1), now);
        issued.forget(1, 8);
        issued.forget(1, 8);
        assert!(issued.is_empty() && issued.find(1, 8, now).is_none());
    }

    #[test]
    fn it_is_bounded_and_one_tenant_cannot_push_out_another() {
        let (mut issued, now) = (Issued::default(), Now::from_millis(1));
        issued.note(1, 0, pin(1), now);
        let tenants = (ISSUED_MAX / ISSUED_OF_TENANT_MAX + 2) as u64;
        for tenant in 2..2 + tenants {
            for id in 0..ISSUED_OF_TENANT_MAX as u64 + 5 {
                issued.note(tenant, id, pin(2), now);
            }
        }
        assert!(issued.len() <= ISSUED_MAX && issued.forgotten() > 0);
        assert_eq!(issued.find(1, 0, now), Some(pin(1)), "of whoever holds most something goes first");
        assert_eq!(issued.find(2, 0, now), None);
        let newest = ISSUED_OF_TENANT_MAX as u64 + 4;
        assert_eq!(issued.find(1 + tenants, newest, now), Some(pin(2)));
    }
}
