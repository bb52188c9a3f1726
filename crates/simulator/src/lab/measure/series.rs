//! What is looked at once a second: in few points over the whole run, and each second for how load swings.

use std::collections::BTreeSet;

use crate::lab::engines::{Place, Places};
use crate::lab::results::Series;

/// Points over a run, at most. Once they are full, two become one.
const POINTS_MAX: usize = 600;
/// Seconds in which each engine's share of the load is kept, from the beginning.
const SHARES_MAX: usize = 3_600;
/// Engines whose share is kept.
const ENGINES_MAX: usize = 64;
/// The longest lag at which load is looked at for swings, seconds.
const LAG_MAX: usize = 30;

/// Sums of one point.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    samples: f64,
    utilisation: f64,
    loaded: f64,
    jain: f64,
    max_to_mean: f64,
    queued: f64,
    engine_queued: f64,
    inflight: f64,
    firsts: f64,
    first_ms: f64,
}

impl Point {
    fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.utilisation += other.utilisation;
        self.loaded += other.loaded;
        self.jain += other.jain;
        self.max_to_mean += other.max_to_mean;
        self.queued += other.queued;
        self.engine_queued += other.engine_queued;
        self.inflight += other.inflight;
        self.firsts += other.firsts;
        self.first_ms += other.first_ms;
    }
}

/// Looks once a second.
#[derive(Debug)]
pub(super) struct Sampler {
    points: Vec<Point>,
    point: Point,
    /// Samples in each point.
    width: f64,
    all: Point,
    busy_ns: u64,
    at_ns: u64,
    /// Each engine's share of the load over an even one, less 1, by seconds.
    shares: Vec<Vec<f32>>,
    /// Engines that are there; `None`: all are.
    present: Option<BTreeSet<u32>>,
}

impl Sampler {
    pub(super) fn new(engines: usize) -> Self {
        Self {
            points: Vec::new(),
            point: Point::default(),
            width: 1.0,
            all: Point::default(),
            busy_ns: 0,
            at_ns: 0,
            shares: vec![Vec::new(); engines.min(ENGINES_MAX)],
            present: None,
        }
    }

    /// These engines are there from now on.
    pub(super) fn note_present(&mut self, present: &BTreeSet<u32>) {
        self.present = Some(present.clone());
    }

    pub(super) fn note_first(&mut self, first_ms: f32) {
        self.point.firsts += 1.0;
        self.point.first_ms += f64::from(first_ms);
    }

    pub(super) fn sample(&mut self, now_ns: u64, places: &Places, queued: i64) {
        // What has left, and has nothing more to do, is no part of the mean.
        let is_there = |(at, place): &(usize, &Place)| {
            place.tokens > 0 || self.present.as_ref().is_none_or(|there| there.contains(&(*at as u32)))
        };
        let count = places.all.iter().enumerate().filter(is_there).count().max(1) as f64;
        let busy_ns: u64 = places.all.iter().map(|place| place.engine.busy_ns(now_ns)).sum();
        let span_ns = (now_ns - self.at_ns).max(1) as f64;
        let (mut sum, mut squares, mut most) = (0.0, 0.0, 0.0_f64);
        for place in &places.all {
            let tokens = place.tokens as f64;
            (sum, squares, most) = (sum + tokens, squares + tokens * tokens, most.max(tokens));
            self.point.engine_queued += place.engine.waiting() as f64;
            self.point.inflight += place.engine.requests() as f64;
        }
        self.point.samples += 1.0;
        self.point.utilisation += busy_ns.saturating_sub(self.busy_ns) as f64 / span_ns / count;
        self.point.queued += queued as f64;
        if sum > 0.0 {
            self.point.loaded += 1.0;
            self.point.jain += sum * sum / (count * squares);
            self.point.max_to_mean += most * count / sum;
        }
        (self.busy_ns, self.at_ns) = (busy_ns, now_ns);
        for (shares, place) in self.shares.iter_mut().zip(&places.all) {
            if shares.len() < SHARES_MAX {
                let share = if sum > 0.0 { place.tokens as f64 * count / sum - 1.0 } else { 0.0 };
                shares.push(share as f32);
            }
        }
        if self.point.samples >= self.width {
            self.close();
        }
    }

    fn close(&mut self) {
        let point = std::mem::take(&mut self.point);
        self.all.add(&point);
        self.points.push(point);
        if self.points.len() == POINTS_MAX {
            let pairs = self.points.chunks(2).map(|pair| {
                let mut sum = pair[0];
                pair[1..].iter().for_each(|other| sum.add(other));
                sum
            });
            self.points = pairs.collect();
            self.width *= 2.0;
        }
    }

    /// Jain's index and the most over the mean, both on average while there was any load.
    pub(super) fn evenness(&self) -> (f64, f64) {
        let mut all = self.all;
        all.add(&self.point);
        let loaded = all.loaded.max(1.0);
        (all.jain / loaded, all.max_to_mean / loaded)
    }

    /// See [`Jitter::oscillation`](crate::lab::Jitter::oscillation).
    pub(super) fn oscillation(&self) -> f64 {
        let peaks: Vec<f64> = self.shares.iter().filter_map(|shares| swing(shares)).collect();
        peaks.iter().sum::<f64>() / peaks.len().max(1) as f64
    }

    pub(super) fn series(mut self) -> Series {
        if self.point.samples > 0.0 {
            self.close();
        }
        let each = |value: fn(&Point) -> (f64, f64)| {
            let mean = |point: &Point| {
                let (sum, count) = value(point);
                if count > 0.0 { sum / count } else { 0.0 }
            };
            self.points.iter().map(mean).collect::<Vec<f64>>()
        };
        Series {
            step_s: self.width,
            utilisation: each(|point| (point.utilisation, point.samples)),
            jain: each(|point| (point.jain, point.loaded)),
            max_to_mean: each(|point| (point.max_to_mean, point.loaded)),
            queued: each(|point| (point.queued, point.samples)),
            engine_queued: each(|point| (point.engine_queued, point.samples)),
            inflight: each(|point| (point.inflight, point.samples)),
            first_token_ms: each(|point| (point.first_ms, point.firsts)),
        }
    }
}

/// The highest autocorrelation after the first lag at which there is none left.
fn swing(shares: &[f32]) -> Option<f64> {
    if shares.len() < 4 * LAG_MAX {
        return None;
    }
    let mean = shares.iter().map(|share| f64::from(*share)).sum::<f64>() / shares.len() as f64;
    let centred: Vec<f64> = shares.iter().map(|share| f64::from(*share) - mean).collect();
    let at = |lag: usize| centred.iter().zip(&centred[lag..]).map(|(one, other)| one * other).sum::<f64>();
    let whole = at(0);
    if whole <= 0.0 {
        return Some(0.0);
    }
    let lags = (1..=LAG_MAX).map(|lag| at(lag) / whole);
    Some(lags.skip_while(|value| *value > 0.0).fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_swings_is_told_from_what_drifts() {
        let wave = |period: f64| {
            (0..600)
                .map(|at| (f64::from(at) / period * std::f64::consts::TAU).sin() as f32)
                .collect::<Vec<_>>()
        };
        assert!(swing(&wave(10.0)).expect("enough") > 0.9, "back after ten seconds");
        assert!(swing(&wave(400.0)).expect("enough") < 0.1, "slower than what is looked at");
        assert_eq!(swing(&[0.5; 600]), Some(0.0), "steady");
        assert_eq!(swing(&[0.5; 60]), None, "too short to say");
    }
}
