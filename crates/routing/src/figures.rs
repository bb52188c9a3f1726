//! Figures by which it is seen how well slots are used and load is spread. O(1) per change, a few words each.

use std::time::Duration;

use crate::time::Now;

/// The span that recent figures speak of.
pub const RECENT: Duration = Duration::from_mins(1);
/// Parts it is kept in: what is older than the span leaves in steps of one part.
const PARTS: usize = 6;

/// A level over time, such as the slots in use: what it came to in all, and on average lately.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Meter {
    level: u32,
    since: Now,
    area: f64,
    recent: Rolling,
}

impl Meter {
    /// The level is this from now on.
    pub fn set(&mut self, level: u32, now: Now) {
        self.advance(now);
        self.level = level;
    }

    /// The level now.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Level times seconds since the beginning: its increase per second is the average level.
    pub fn total(&self, now: Now) -> f64 {
        self.area + f64::from(self.level) * (now - self.since).as_secs_f64()
    }

    /// The average level of the last minute, or since the beginning if that is shorter.
    pub fn mean(&self, now: Now) -> f64 {
        let mut caught_up = *self;
        caught_up.advance(now);
        let span = caught_up.recent.span(now).as_secs_f64();
        if span > 0.0 { caught_up.recent.sum(now) / span } else { f64::from(self.level) }
    }

    fn advance(&mut self, now: Now) {
        let now = now.max(self.since);
        // What a long time at one level comes to belongs to the parts it lies in, of which only the last ones matter.
        let kept_from = Rolling::begin_of_part(now, PARTS as u64);
        if self.since < kept_from {
            self.area += f64::from(self.level) * (kept_from - self.since).as_secs_f64();
            self.recent.begin.get_or_insert(self.since);
            self.since = kept_from;
        }
        while self.since < now {
            let until = Rolling::end_of_part(self.since).min(now);
            let part = f64::from(self.level) * (until - self.since).as_secs_f64();
            self.area += part;
            self.recent.add(part, self.since);
            self.since = until;
        }
    }
}

/// A sum over the last minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rolling {
    parts: [f64; PARTS],
    /// Number of the latest part.
    latest: u64,
    /// When there was something for the first time.
    begin: Option<Now>,
}

impl Rolling {
    const PART_NS: u64 = RECENT.as_nanos() as u64 / PARTS as u64;

    /// Adds what happened now.
    pub fn add(&mut self, amount: f64, now: Now) {
        self.begin.get_or_insert(now);
        let part = now.as_nanos() / Self::PART_NS;
        if part > self.latest {
            let gone = (part - self.latest).min(PARTS as u64);
            for step in 1..=gone {
                self.parts[((self.latest + step) % PARTS as u64) as usize] = 0.0;
            }
            self.latest = part;
        }
        self.parts[(self.latest % PARTS as u64) as usize] += amount;
    }

    /// What was added in the last minute.
    pub fn sum(&self, now: Now) -> f64 {
        let oldest = (now.as_nanos() / Self::PART_NS + 1).saturating_sub(PARTS as u64);
        let kept = oldest..=self.latest;
        kept.rev().take(PARTS).map(|part| self.parts[(part % PARTS as u64) as usize]).sum()
    }

    /// The span that the sum speaks of: a minute less the part of it that is not over, or since the beginning.
    pub fn span(&self, now: Now) -> Duration {
        let from = Self::begin_of_part(now, PARTS as u64 - 1);
        now - self.begin.map_or(now, |begin| begin.max(from))
    }

    /// The beginning of the part that is so many parts before the present one.
    fn begin_of_part(now: Now, before: u64) -> Now {
        Now::from_nanos((now.as_nanos() / Self::PART_NS).saturating_sub(before) * Self::PART_NS)
    }

    fn end_of_part(now: Now) -> Now {
        Now::from_nanos((now.as_nanos() / Self::PART_NS + 1) * Self::PART_NS)
    }
}

/// How even loads are, from 1/n (one has all) to 1 (all have the same): Jain, Chiu and Hawe, "A Quantitative Measure of
/// Fairness and Discrimination", 1984. 1 when there is no load.
pub fn jain(loads: impl Iterator<Item = f64>) -> f64 {
    let (count, sum, squares) = loads.fold((0.0, 0.0, 0.0), |(count, sum, squares), load| {
        (count + 1.0, sum + load, squares + load * load)
    });
    if squares == 0.0 { 1.0 } else { sum * sum / (count * squares) }
}

/// The highest load to the mean; 1 when all have the same, or none has any.
pub fn peak_to_mean(loads: impl Iterator<Item = f64>) -> f64 {
    let (count, sum, peak) = loads.fold((0.0, 0.0, 0.0), |(count, sum, peak): (f64, f64, f64), load| {
        (count + 1.0, sum + load, peak.max(load))
    });
    if sum == 0.0 { 1.0 } else { peak * count / sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Now {
        Now::from_millis(1000 * second)
    }

    fn near(got: f64, wanted: f64) -> bool {
        (got - wanted).abs() < 1e-6
    }

    #[test]
    fn a_meter_knows_the_sum_and_the_recent_average() {
        let mut meter = Meter::default();
        meter.set(4, at(0));
        meter.set(8, at(10));
        meter.set(0, at(20));
        assert!(near(meter.total(at(20)), 120.0) && near(meter.total(at(500)), 120.0));
        assert!(near(meter.mean(at(20)), 6.0), "{}", meter.mean(at(20)));
        assert!(near(meter.mean(at(40)), 3.0), "{}", meter.mean(at(40)));
        assert!(near(meter.mean(at(200)), 0.0));
        meter.set(2, at(100_000));
        assert!(near(meter.mean(at(200_000)), 2.0), "{}", meter.mean(at(200_000)));
        assert!(near(meter.total(at(200_000)), 200_120.0));
    }

    #[test]
    fn a_meter_says_the_same_however_often_it_is_told() {
        let (mut often, mut once) = (Meter::default(), Meter::default());
        once.set(3, at(5));
        for second in 5..300 {
            often.set(3, at(second));
        }
        assert!(near(often.mean(at(300)), 3.0) && near(once.mean(at(300)), 3.0));
        assert!(near(often.total(at(300)), once.total(at(300))));
    }

    #[test]
    fn a_sum_forgets_what_is_older_than_a_minute() {
        let mut sum = Rolling::default();
        for second in 0..600 {
            sum.add(1.0, at(second));
            let known = sum.sum(at(second));
            assert!(known <= 60.0 && (second < 60 || known >= 51.0), "{known} at {second}");
        }
        assert!(near(sum.sum(at(620)), 30.0), "{}", sum.sum(at(620)));
        assert!(near(sum.sum(at(700)), 0.0));
    }

    #[test]
    fn evenness_is_told_by_two_figures() {
        for (loads, even, peak) in [
            (vec![], 1.0, 1.0),
            (vec![0.0, 0.0], 1.0, 1.0),
            (vec![2.0, 2.0, 2.0], 1.0, 1.0),
            (vec![6.0, 0.0, 0.0], 1.0 / 3.0, 3.0),
            (vec![1.0, 3.0], 0.8, 1.5),
        ] {
            assert!(near(jain(loads.iter().copied()), even), "{loads:?}");
            assert!(near(peak_to_mean(loads.iter().copied()), peak), "{loads:?}");
        }
    }
}
