//! Time in which requests wait although an engine that could serve them has nothing to do.

use crate::lab::engines::Places;

/// What is known of a group of engines.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    /// Engines that have nothing at all.
    idle: i64,
    /// Engines in which somebody waits.
    crowded: i64,
    /// Requests that wait in routers.
    routers: i64,
}

impl Group {
    fn is_wrong(self) -> bool {
        self.idle > 0 && (self.crowded > 0 || self.routers > 0)
    }
}

/// Who waits where.
#[derive(Debug)]
pub(super) struct Waiting {
    groups: Vec<Group>,
    /// By engine: whether it has nothing, and whether somebody waits in it.
    engines: Vec<(bool, bool)>,
    wrong: usize,
    since_ns: u64,
    sum_ns: u64,
    routers: i64,
}

impl Waiting {
    pub(super) fn new(places: &Places) -> Self {
        let of_engines = places.all.iter().map(|place| place.group);
        let groups =
            places.groups.values().copied().chain(of_engines).max().map_or(1, |last| last as usize + 1);
        let mut groups = vec![Group::default(); groups];
        places.all.iter().for_each(|place| groups[place.group as usize].idle += 1);
        let engines = vec![(true, false); places.all.len()];
        Self { groups, engines, wrong: 0, since_ns: 0, sum_ns: 0, routers: 0 }
    }

    pub(super) fn note_router(&mut self, group: u32, change: i64, now_ns: u64) {
        self.routers += change;
        self.change(group, now_ns, |group| group.routers += change);
    }

    pub(super) fn note_engine(&mut self, place: u32, group: u32, (has, waits): (usize, usize), now_ns: u64) {
        let now = (has == 0, waits > 0);
        let before = std::mem::replace(&mut self.engines[place as usize], now);
        if now != before {
            self.change(group, now_ns, |group| {
                group.idle += i64::from(now.0) - i64::from(before.0);
                group.crowded += i64::from(now.1) - i64::from(before.1);
            });
        }
    }

    fn change(&mut self, group: u32, now_ns: u64, change: impl FnOnce(&mut Group)) {
        self.sum_ns += if self.wrong > 0 { now_ns - self.since_ns } else { 0 };
        self.since_ns = now_ns;
        let group = &mut self.groups[group as usize];
        let before = group.is_wrong();
        change(group);
        self.wrong = self.wrong + usize::from(group.is_wrong()) - usize::from(before);
    }

    /// Requests that wait in routers.
    pub(super) fn routers(&self) -> i64 {
        self.routers
    }

    pub(super) fn idle_while_queued_s(&self, now_ns: u64) -> f64 {
        let last = if self.wrong > 0 { now_ns - self.since_ns } else { 0 };
        (self.sum_ns + last) as f64 / 1e9
    }
}
