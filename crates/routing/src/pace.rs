//! Whether a deployment has become slower than it was: slow, not dead.
//!
//! Times are judged against what the request should have taken (they come normalised by prompt length) and against the
//! deployment's own past: a residual is the logarithm of the ratio, so that twice as slow is the same distance for fast
//! and slow deployments. Residuals are put in units of their usual spread, clipped, and summed up beyond an allowance
//! (CUSUM; Page, "Continuous Inspection Schemes", 1954), so that one slow answer proves nothing and a lasting drift does.

use std::time::Duration;

/// Answers that are learnt from before anything is judged.
const WARM_UP: u32 = 20;
/// How fast the usual time follows, while nothing is wrong.
const FOLLOW: f64 = 0.005;
/// Residuals beyond so many usual spreads count as no more: one outlier must not be proof.
const CLIP: f64 = 4.0;
/// What a residual may exceed the usual by for nothing, in spreads.
const ALLOWANCE: f64 = 0.5;
/// The sum at which it is proven: with this allowance less than one false alarm in a million answers of the usual spread.
const PROOF: f64 = 14.0;
/// The least spread that is believed: even times that never vary may vary by a tenth.
const SPREAD_MIN: f64 = 0.1;

/// How fast a deployment usually is, and whether it has become slower. O(1).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    seen: u32,
    /// The usual logarithm of the normalised time.
    usual: f64,
    /// The usual distance from it.
    spread: f64,
    sum: f64,
    slow: bool,
    /// How much slower it is, lately.
    lately: f64,
}

impl Pace {
    /// Takes a normalised time in. Gives whether this changed what is thought of the deployment.
    pub fn observe(&mut self, normalised: Duration) -> bool {
        let time = normalised.as_secs_f64().max(1e-6).ln();
        self.seen = self.seen.saturating_add(1);
        if self.seen <= WARM_UP {
            let weight = 1.0 / f64::from(self.seen);
            let distance = if self.seen == 1 { 0.0 } else { (time - self.usual).abs() };
            self.usual += (time - self.usual) * weight;
            self.spread += (distance - self.spread) * weight;
            return false;
        }
        let residual = time - self.usual;
        // The mean distance of a normal spread is four fifths of its deviation.
        let unit = (self.spread * 1.25).max(SPREAD_MIN);
        let score = (residual / unit).clamp(-CLIP, CLIP);
        self.lately += (residual - self.lately) * 0.2;
        self.sum = (self.sum + score - ALLOWANCE).clamp(0.0, 1.5 * PROOF);
        let was = self.slow;
        self.slow = if was { self.sum > 0.0 } else { self.sum >= PROOF };
        if !self.slow && self.sum < PROOF / 2.0 {
            // What is normal is learnt from what is normal.
            self.usual += (time - self.usual) * FOLLOW;
            self.spread += (residual.abs() - self.spread) * FOLLOW;
        }
        was != self.slow
    }

    /// Whether it has become slower.
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// How many times slower than usual it is lately; 1 while that is not proven.
    pub fn factor(&self) -> f64 {
        if self.slow { self.lately.exp().max(1.0) } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// A time around `ms` whose logarithm is spread by about `spread` (a sum of uniform numbers is nearly normal).
    fn time(rng: &mut Rng, ms: f64, spread: f64) -> Duration {
        let normal = (0..12).map(|_| rng.unit()).sum::<f64>() - 6.0;
        Duration::from_secs_f64(ms / 1e3 * (normal * spread).exp())
    }

    fn warmed(rng: &mut Rng, spread: f64) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..500 {
            pace.observe(time(rng, 200.0, spread));
        }
        pace
    }

    #[test]
    fn twice_as_slow_is_found_within_twenty_answers() {
        for spread in [0.1, 0.3, 0.4] {
            let mut missed = 0;
            for seed in 0..500 {
                let mut rng = Rng::seeded(seed);
                let mut pace = warmed(&mut rng, spread);
                missed += u32::from(
                    !(0..20).any(|_| pace.observe(time(&mut rng, 400.0, spread)) && pace.is_slow()),
                );
            }
            assert!(missed <= 10, "spread {spread}: {missed} of 500 not found");
        }
    }

    #[test]
    fn a_day_of_usual_answers_gives_no_alarm() {
        for spread in [0.1, 0.3, 0.6] {
            let mut rng = Rng::seeded(9);
            let mut pace = warmed(&mut rng, spread);
            let alarms = (0..400_000)
                .filter(|_| pace.observe(time(&mut rng, 200.0, spread)) && pace.is_slow())
                .count();
            assert!(alarms <= 1, "spread {spread}: {alarms} alarms");
        }
    }

    #[test]
    fn one_outlier_proves_nothing_and_recovery_is_seen() {
        let mut rng = Rng::seeded(2);
        let mut pace = warmed(&mut rng, 0.2);
        pace.observe(Duration::from_secs(60));
        assert!(!pace.is_slow());
        for _ in 0..30 {
            pace.observe(time(&mut rng, 1_000.0, 0.2));
        }
        assert!(pace.is_slow() && (4.0..6.0).contains(&pace.factor()), "{pace:?}");
        let back = (0..60).find(|_| pace.observe(time(&mut rng, 200.0, 0.2)) && !pace.is_slow());
        assert!(back.is_some_and(|answers| answers <= 45), "{back:?}");
        assert!((pace.factor() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_slow_drift_is_found() {
        let mut rng = Rng::seeded(4);
        let mut pace = warmed(&mut rng, 0.2);
        let found = (0..400).find(|step| {
            let ms = 200.0 * (1.0 + f64::from(*step) * 0.005);
            pace.observe(time(&mut rng, ms, 0.2)) && pace.is_slow()
        });
        assert!(found.is_some(), "from 200 to 600 ms over 400 answers");
    }
}
