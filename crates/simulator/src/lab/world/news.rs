//! What routers hear of engines, and configurations that take effect meanwhile.

use pointsman_routing::fleet::Event;

use super::super::setup::nanos;
use super::{Due, Router, World};

impl World<'_> {
    pub(super) fn scrape(&mut self) {
        let now = self.now();
        for Router { fleet, places, .. } in &mut self.routers {
            let tell = |place: &u32| !self.places.all[*place as usize].silent;
            for (deployment, _) in places.iter().filter(|(_, place)| tell(place)) {
                fleet.observe(now, Event::EngineAsked(*deployment));
            }
        }
        let reports = self.places.all.iter().map(|place| place.engine.report()).collect();
        let at_ns = self.now_ns + nanos(self.setup.staleness);
        self.reports.push_back((at_ns, reports));
        if at_ns == self.now_ns {
            self.deliver();
        } else {
            self.schedule(at_ns, Due::Delivery);
        }
        // An engine is asked again when it has answered.
        let every_ns = nanos(self.setup.report_every.max(self.setup.staleness)).max(1_000_000);
        self.schedule(self.now_ns + every_ns, Due::Scrape);
    }

    pub(super) fn deliver(&mut self) {
        let Some((_, reports)) = self.reports.pop_front() else { return };
        let now = self.now();
        for router in &mut self.routers {
            let Router { fleet, places, .. } = router;
            let tell = |place: &u32| !self.places.all[*place as usize].silent;
            for (deployment, place) in places.iter().filter(|(_, place)| tell(place)) {
                let report = reports[*place as usize];
                fleet.observe(now, Event::Engine { deployment: *deployment, report });
            }
        }
        for router in 0..self.routers.len() {
            self.wake(router);
        }
    }

    pub(super) fn mistake(&mut self) {
        if let Some((_, mistake)) = self.setup.mistaken {
            self.routers.iter_mut().for_each(|router| router.fleet.mistake_times(mistake));
        }
    }

    pub(super) fn reload(&mut self, place: u32) {
        let now = self.now();
        let catalog = &self.reloads[place as usize];
        let present = |router: &Router| router.places.values().copied().collect();
        let before = present(&self.routers[0]);
        for router in &mut self.routers {
            router.fleet.apply(catalog, now);
            router.places = self.places.of(&router.fleet);
        }
        self.measure.note_reload(&before, &present(&self.routers[0]));
        for router in 0..self.routers.len() {
            self.wake(router);
        }
    }
}
