//! A map from hashes to places in a list, and a list that knows what was used least lately.
//!
//! The standard maps are out of place here: one iterates by chance, the other is several times slower where a decision
//! asks for a hundred hashes. Keys are hashes already.

/// No place.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// Where things are, by hash: open addressing with linear probing, and no tombstones. Grows, never shrinks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// Key and place; a place of [`NOWHERE`] is free. A power of two of them, or none.
    cells: Vec<(u64, u32)>,
    len: usize,
}

impl Table {
    /// The place of a key.
    pub(crate) fn get(&self, key: u64) -> Option<u32> {
        if self.cells.is_empty() {
            return None;
        }
        let mut at = self.home(key);
        loop {
            let (known, place) = self.cells[at];
            if place == NOWHERE {
                return None;
            }
            if known == key {
                return Some(place);
            }
            at = (at + 1) & (self.cells.len() - 1);
        }
    }

    /// Notes the place of a key that has none.
    pub(crate) fn insert(&mut self, key: u64, place: u32) {
        debug_assert!(place != NOWHERE && self.get(key).is_none(), "a key has one place");
        if (self.len + 1) * 4 > self.cells.len() * 3 {
            self.grow();
        }
        self.len += 1;
        self.put(key, place);
    }

    /// Forgets a key.
    pub(crate) fn remove(&mut self, key: u64) {
        if self.cells.is_empty() {
            return;
        }
        let mask = self.cells.len() - 1;
        let mut hole = self.home(key);
        while self.cells[hole].0 != key || self.cells[hole].1 == NOWHERE {
            if self.cells[hole].1 == NOWHERE {
                return;
            }
            hole = (hole + 1) & mask;
        }
        self.len -= 1;
        // Whoever was pushed past the hole moves up, so that every search still ends at a free cell.
        let mut at = (hole + 1) & mask;
        while self.cells[at].1 != NOWHERE {
            let far = at.wrapping_sub(self.home(self.cells[at].0)) & mask;
            if far >= (at.wrapping_sub(hole) & mask) {
                self.cells[hole] = self.cells[at];
                hole = at;
            }
            at = (at + 1) & mask;
        }
        self.cells[hole].1 = NOWHERE;
    }

    fn home(&self, key: u64) -> usize {
        crate::rng::mix(key) as usize & (self.cells.len() - 1)
    }

    fn put(&mut self, key: u64, place: u32) {
        let mut at = self.home(key);
        while self.cells[at].1 != NOWHERE {
            at = (at + 1) & (self.cells.len() - 1);
        }
        self.cells[at] = (key, place);
    }

    fn grow(&mut self) {
        let size = (self.cells.len() * 2).max(64);
        for (key, place) in std::mem::replace(&mut self.cells, vec![(0, NOWHERE); size]) {
            if place != NOWHERE {
                self.put(key, place);
            }
        }
    }
}

/// Values in order of their last use, each at a place that it keeps.
#[derive(Debug, Clone)]
pub(crate) struct Recent<T> {
    links: Vec<Link<T>>,
    newest: u32,
    oldest: u32,
    free: u32,
    len: usize,
}

#[derive(Debug, Clone)]
struct Link<T> {
    newer: u32,
    older: u32,
    value: T,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Self { links: Vec::new(), newest: NOWHERE, oldest: NOWHERE, free: NOWHERE, len: 0 }
    }
}

impl<T: Copy> Recent<T> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, place: u32) -> Option<&T> {
        self.links.get(place as usize).map(|link| &link.value)
    }

    pub(crate) fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.links.get_mut(place as usize).map(|link| &mut link.value)
    }

    /// Puts a value in as the newest; gives its place.
    pub(crate) fn push(&mut self, value: T) -> u32 {
        let link = Link { newer: NOWHERE, older: NOWHERE, value };
        let place = self.free;
        let place = if place == NOWHERE {
            self.links.push(link);
            self.links.len() as u32 - 1
        } else {
            self.free = self.links[place as usize].older;
            self.links[place as usize] = link;
            place
        };
        self.len += 1;
        self.join(place);
        place
    }

    /// It was used: it is the newest.
    pub(crate) fn touch(&mut self, place: u32) {
        if self.newest != place {
            self.part(place);
            self.join(place);
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, place: u32) -> T {
        self.part(place);
        self.links[place as usize].older = self.free;
        self.free = place;
        self.len -= 1;
        self.links[place as usize].value
    }

    /// What was used least lately, and its place.
    pub(crate) fn oldest(&self) -> Option<(u32, T)> {
        self.links.get(self.oldest as usize).map(|link| (self.oldest, link.value))
    }

    fn join(&mut self, place: u32) {
        let was = std::mem::replace(&mut self.newest, place);
        let link = &mut self.links[place as usize];
        (link.newer, link.older) = (NOWHERE, was);
        match self.links.get_mut(was as usize) {
            Some(was) => was.newer = place,
            None => self.oldest = place,
        }
    }

    fn part(&mut self, place: u32) {
        let Link { newer, older, .. } = self.links[place as usize];
        match self.links.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match self.links.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn the_table_agrees_with_a_map_on_random_histories() {
        let (mut table, mut map, mut rng) = (Table::default(), BTreeMap::new(), Rng::seeded(5));
        for _ in 0..50_000 {
            let key = rng.below(700) as u64;
            match (map.contains_key(&key), rng.below(3)) {
                (true, 0) => {
                    table.remove(key);
                    map.remove(&key);
                }
                (false, 1 | 2) => {
                    let place = rng.below(1_000) as u32;
                    table.insert(key, place);
                    map.insert(key, place);
                }
                (true | false, _) => {}
            }
            let asked = rng.below(700) as u64;
            assert_eq!(table.get(asked), map.get(&asked).copied());
        }
        assert_eq!(table.len, map.len());
    }

    #[test]
    fn the_list_agrees_with_a_slow_one_on_random_histories() {
        let (mut list, mut slow, mut rng) = (Recent::default(), Vec::<(u32, u64)>::new(), Rng::seeded(6));
        for step in 0..20_000_u64 {
            let any = (!slow.is_empty()).then(|| rng.below(slow.len()));
            match (rng.below(4), any) {
                (0 | 1, _) if slow.len() < 300 => slow.push((list.push(step), step)),
                (2, Some(at)) => {
                    let used = slow.remove(at);
                    list.touch(used.0);
                    slow.push(used);
                }
                (_, Some(at)) => {
                    let gone = slow.remove(at);
                    assert_eq!(list.remove(gone.0), gone.1);
                }
                (_, None) => {}
            }
            assert_eq!(list.oldest(), slow.first().copied());
            assert_eq!(list.len(), slow.len());
        }
    }
}
