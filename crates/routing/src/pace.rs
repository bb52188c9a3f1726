//! What an answer should take at a deployment, and whether it has become slower than that: slow, not dead.
//!
//! A time is judged against what this request should have taken: a line over its prompt, its expected output and the
//! requests in flight beside it, fitted to the deployment's own past by weighted least squares (a term never makes a
//! request faster). A residual is the logarithm of the ratio, so that twice as slow is the same distance for fast and
//! slow deployments. Residuals are put in units of their usual spread (a mean absolute distance, which one outlier does
//! not move), clipped, and summed up beyond an allowance (CUSUM; Page, "Continuous Inspection Schemes", 1954): one slow
//! answer proves nothing, a lasting drift does. What the peers have become slower by is taken off before, so that
//! nobody is to blame for what all have in common. Whoever is proven slow is held to the middle between slow and usual
//! (Wald's sequential test), so that its recovery is seen as fast. O(1) a time; a logarithm each, none in a decision.

use std::time::Duration;

use crate::line::Line;
use crate::time::Now;

/// Times that are learnt from before anything is judged.
const WARM_UP: u32 = 20;
/// How fast the usual follows while nothing is wrong: of each new time at most this,
const FOLLOW: f64 = 0.005;
/// and not so much that less than this is remembered: a drift over an hour is a drift, not the new usual.
const MEMORY: Duration = Duration::from_hours(1);
/// How much slower the usual follows one that is slow: what stays slow for a day is what it is like.
const FOLLOW_SLOW: f64 = 0.1;
/// How fast "lately" follows.
const LATELY: f64 = 0.2;
/// How fast the size of a proven slowness follows.
const LEVEL: f64 = 0.1;
/// Residuals beyond so many usual spreads count as no more: one outlier must not be proof.
const CLIP: f64 = 4.0;
/// What a residual may exceed the usual by for nothing, in spreads.
const ALLOWANCE: f64 = 0.5;
/// The sum at which it is proven: with this allowance less than one false alarm in a million times of the usual spread.
const PROOF: f64 = 14.0;
/// The sum from which on it is asked whether the peers have become slower too.
const ASK: f64 = 2.0;
/// The sum that a slow one has to its credit as such; it is used up by times nearer to the usual.
const CREDIT: f64 = 5.0;
/// How much slower than its peers' change it must have become lately (the logarithm of 1.3).
const APART: f64 = 0.262;
/// The same for each part of what the peers changed by: while all change nobody knows by how much the others will.
const APART_SHARED: f64 = 0.25;
/// The least spread that is believed: even times that never vary may vary by a seventh.
const SPREAD_MIN: f64 = 0.15;
/// Times below this do not differ in a way that anybody would notice, seconds; added to both sides of a ratio.
const NOTICED_S: f64 = 0.005;
/// A residual that is taken in as no more than this: twenty times.
const RESIDUAL_MAX: f64 = 3.0;
/// How often the expected time must have passed for a wait to be late, whatever the spread.
const LATE: f64 = 3.0;
/// The same in usual spreads.
const LATE_SPREADS: f64 = 3.0;
/// How much slower than usual one can count as.
const FACTOR_MAX: f64 = 20.0;
/// How long what a deployment was like lately is compared with its peers.
const FRESH: Duration = Duration::from_mins(5);

/// Terms of a line: a fixed part, prompt, expected output, requests beside it.
const TERMS: usize = 4;
/// Times that what is thought before the first counts as.
const PRIOR: f64 = 2.0;
/// What is thought before: in prompt tokens, the fixed part,
const PRIOR_BASE_TOKENS: f64 = 256.0;
/// and a token of output.
const PRIOR_TOKENS_PER_OUT: f64 = 32.0;

/// What the time of a request depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Prompt tokens.
    pub tokens_in: u32,
    /// Output tokens that are expected before the time ends: none where it ends with the first content.
    pub tokens_out: u32,
    /// Requests that the deployment had in flight beside it.
    pub beside: u32,
}

impl Size {
    fn terms(self) -> [f64; TERMS] {
        [
            1.0,
            f64::from(self.tokens_in) / 1e3,
            f64::from(self.tokens_out) / 1e3,
            f64::from(self.beside) / 10.0,
        ]
    }
}

/// Through one time: as if it were in proportion to the tokens, beside a fixed part.
fn line_through(seconds: f64, size: Size) -> Line<TERMS> {
    let tokens =
        PRIOR_BASE_TOKENS + f64::from(size.tokens_in) + PRIOR_TOKENS_PER_OUT * f64::from(size.tokens_out);
    let per_token = seconds / tokens;
    let per_out = if size.tokens_out > 0 { PRIOR_TOKENS_PER_OUT * 1e3 * per_token } else { 0.0 };
    let mut line = Line::of([PRIOR_BASE_TOKENS * per_token, 1e3 * per_token, per_out, 0.0]);
    let thought = [(0, 0, 0), (2_048, 0, 0), (0, 0, 10), (size.tokens_in, size.tokens_out, size.beside)];
    for (nth, (tokens_in, tokens_out, beside)) in thought.into_iter().enumerate() {
        let terms = Size { tokens_in, tokens_out, beside }.terms();
        let seconds = line.at(&terms);
        take(&mut line, seconds, &terms, 1.0 / (nth as f64 + 1.0));
    }
    line
}

/// Errors count in proportion to the time.
fn take(line: &mut Line<TERMS>, seconds: f64, terms: &[f64; TERMS], gain: f64) {
    let expected = line.at(terms) + NOTICED_S;
    line.take(seconds, terms, gain, 1.0 / (expected * expected));
}

/// How fast a deployment usually is, and whether it has become slower. O(1).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    line: Line<TERMS>,
    seen: u32,
    seen_at: Now,
    /// The usual residual, beside the line.
    usual: f64,
    /// The usual distance from it.
    spread: f64,
    /// What speaks for a change, beyond what chance explains.
    sum: f64,
    slow: bool,
    /// The residual lately.
    lately: f64,
    /// How slow it is, beyond its peers, while it is.
    level: f64,
}

impl Pace {
    /// Takes a time in. `peers` gives what the peers' [`Pace::lately`] is in the middle; it is asked only if this
    /// deployment looks slow. Gives whether this changed what is thought of the deployment.
    pub fn observe(&mut self, took: Duration, size: Size, now: Now, peers: impl FnOnce() -> f64) -> bool {
        let seconds = took.as_secs_f64();
        let span = if self.seen == 0 { Duration::ZERO } else { now - self.seen_at };
        self.seen = self.seen.saturating_add(1);
        self.seen_at = now;
        if self.seen == 1 {
            self.line = line_through(seconds, size);
            return false;
        }
        let residual = self.residual(seconds, size);
        let was = self.slow;
        self.judge(residual, peers);
        let follow = (span.as_secs_f64() / MEMORY.as_secs_f64()).min(FOLLOW);
        // What is normal is learnt from what is normal.
        let share = if self.slow { FOLLOW_SLOW } else { 1.0 };
        self.learn(seconds, residual, size, share * follow.max(1.0 / f64::from(self.seen)));
        was != self.slow
    }

    /// Takes in that a request was given up after this time without an answer: at least so long would it have taken.
    /// That says something only if it is late.
    pub fn observe_at_least(
        &mut self,
        waited: Duration,
        size: Size,
        now: Now,
        peers: impl FnOnce() -> f64,
    ) -> bool {
        if self.late_after(size).is_none_or(|late| waited < late) {
            return false;
        }
        let was = self.slow;
        self.seen_at = now;
        self.judge(self.residual(waited.as_secs_f64(), size), peers);
        was != self.slow
    }

    /// What a request of this size should take, once enough is known.
    pub fn expected(&self, size: Size) -> Option<Duration> {
        let seconds = (self.line.at(&size.terms()) + NOTICED_S) * self.usual.exp() - NOTICED_S;
        (self.seen > WARM_UP).then(|| Duration::from_secs_f64(seconds.clamp(0.0, 1e6)))
    }

    /// After what time a request of this size is late: much more than chance explains.
    pub fn late_after(&self, size: Size) -> Option<Duration> {
        let times = (LATE_SPREADS * self.unit()).exp().max(LATE);
        self.expected(size).map(|expected| (expected + Duration::from_secs_f64(NOTICED_S)).mul_f64(times))
    }

    /// Whether it has become slower.
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    /// How many times slower than usual, and than its peers have become, it is; 1 while that is not proven.
    pub fn factor(&self) -> f64 {
        if self.slow { self.level.exp().clamp(1.0, FACTOR_MAX) } else { 1.0 }
    }

    /// The logarithm of how many times slower than its own usual it is lately, for its peers; `None` if that is not
    /// known, or was long ago.
    pub fn lately(&self, now: Now) -> Option<f64> {
        (self.seen > WARM_UP && now - self.seen_at <= FRESH).then_some(self.lately)
    }

    /// Takes it for as fast as usual, whatever was proven: it failed and came back, or an operator said so.
    pub fn forgive(&mut self) {
        (self.sum, self.slow, self.lately, self.level) = (0.0, false, 0.0, 0.0);
    }

    fn residual(&self, seconds: f64, size: Size) -> f64 {
        ((seconds + NOTICED_S) / (self.line.at(&size.terms()) + NOTICED_S)).ln() - self.usual
    }

    /// The usual spread; the mean distance of a normal one is four fifths of its deviation.
    fn unit(&self) -> f64 {
        (self.spread * 1.25).max(SPREAD_MIN)
    }

    fn judge(&mut self, residual: f64, peers: impl FnOnce() -> f64) {
        let unit = self.unit();
        self.lately += (residual.clamp(-RESIDUAL_MAX, RESIDUAL_MAX) - self.lately) * LATELY;
        if self.seen <= WARM_UP {
            return;
        }
        // Its own past alone acquits; to be slow it must be so against its peers as well.
        let asked = self.slow || self.sum + residual / unit > ASK;
        let shared = if asked { peers().max(0.0) } else { 0.0 };
        let own = residual - shared;
        if self.slow {
            self.level += (own.clamp(-RESIDUAL_MAX, RESIDUAL_MAX) - self.level) * LEVEL;
            let middle = self.level.max(APART) / 2.0;
            self.sum = (self.sum + ((own - middle) / unit).clamp(-CLIP, CLIP)).min(CREDIT);
            if self.sum <= 0.0 {
                (self.slow, self.sum) = (false, 0.0);
            }
            return;
        }
        let score = (own / unit).clamp(-CLIP, CLIP);
        self.sum = (self.sum + score - ALLOWANCE).clamp(0.0, PROOF);
        if self.sum >= PROOF && self.lately - shared >= APART + APART_SHARED * shared {
            (self.slow, self.sum, self.level) = (true, CREDIT, self.lately - shared);
        }
    }

    fn learn(&mut self, seconds: f64, residual: f64, size: Size, gain: f64) {
        if gain <= 0.0 {
            return;
        }
        let far = if self.seen <= WARM_UP { RESIDUAL_MAX } else { CLIP * self.unit() };
        let near = residual.clamp(-far, far);
        // An outlier moves the line no more than the edge of what is believed.
        let believed = (seconds + NOTICED_S) * (near - residual).exp() - NOTICED_S;
        self.usual += near * gain;
        self.spread += (near.abs() - self.spread) * gain;
        take(&mut self.line, believed.max(0.0), &size.terms(), gain / (1.0 + PRIOR * gain));
        self.line.fit();
    }
}

/// The value in the middle; of two the lower, and 0 of none.
pub(crate) fn middle(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const NOBODY: fn() -> f64 = || 0.0;

    fn size(tokens_in: u32) -> Size {
        Size { tokens_in, tokens_out: 0, beside: 0 }
    }

    /// A deployment with prompts of all lengths, whose times are spread by about `spread` around 150 ms and 0.1 ms a
    /// token (a sum of uniform numbers is nearly normal), `gap_ms` between two.
    struct Deployment {
        pace: Pace,
        rng: Rng,
        spread: f64,
        now: Now,
        gap_ms: u64,
    }

    impl Deployment {
        fn new(seed: u64, spread: f64) -> Self {
            Self { pace: Pace::default(), rng: Rng::seeded(seed), spread, now: Now::ZERO, gap_ms: 1_000 }
        }

        fn warmed(seed: u64, spread: f64) -> Self {
            let mut one = Self::new(seed, spread);
            for _ in 0..500 {
                one.answer(1.0, 0.0);
            }
            one
        }

        /// An answer so many times slower than usual; whether that changed the verdict.
        fn answer(&mut self, times: f64, peers: f64) -> bool {
            let tokens = (-self.rng.unit().max(1e-12).ln() * 500.0) as u32;
            let normal = (0..12).map(|_| self.rng.unit()).sum::<f64>() - 6.0;
            let seconds = (0.15 + 1e-4 * f64::from(tokens)) * times * (normal * self.spread).exp();
            self.now = self.now + Duration::from_millis(self.gap_ms);
            self.pace.observe(Duration::from_secs_f64(seconds), size(tokens), self.now, || peers)
        }

        /// After how many answers, so many times slower, it is known to be slow.
        fn found(&mut self, times: f64, answers: usize) -> Option<usize> {
            (1..=answers).find(|_| self.answer(times, 0.0) && self.pace.is_slow())
        }
    }

    #[test]
    fn twice_as_slow_is_found_within_twenty_answers() {
        for (spread, missed_max) in [(0.1, 0), (0.3, 2), (0.4, 15)] {
            let found = (0..300).map(|seed| Deployment::warmed(seed, spread).found(2.0, 20));
            let missed = found.filter(Option::is_none).count();
            assert!(missed <= missed_max, "spread {spread}: {missed} of 300 not found");
        }
    }

    #[test]
    fn a_day_of_usual_answers_gives_no_alarm() {
        for (spread, gap_ms) in [(0.1, 100), (0.3, 500), (0.6, 200)] {
            let mut one = Deployment { gap_ms, ..Deployment::warmed(9, spread) };
            let alarms = (0..86_400_000 / gap_ms).filter(|_| one.answer(1.0, 0.0) && one.pace.is_slow());
            assert_eq!(alarms.count(), 0, "spread {spread}");
        }
    }

    #[test]
    fn the_first_answers_give_no_alarm() {
        let alarm = |seed| Deployment::new(seed, 0.4).found(1.0, 400).is_some();
        let alarms = (0..300).filter(|seed| alarm(*seed)).count();
        assert!(alarms <= 1, "{alarms} of 300 fleets began with an alarm");
    }

    #[test]
    fn what_a_request_should_take_follows_its_prompt_and_the_requests_beside_it() {
        let mut pace = Pace::default();
        let mut rng = Rng::seeded(3);
        let usual = |size: Size| 0.1 + 2e-4 * f64::from(size.tokens_in) + 0.02 * f64::from(size.beside);
        for second in 0..2_000 {
            let size =
                Size { tokens_in: rng.below(4_000) as u32, tokens_out: 0, beside: rng.below(20) as u32 };
            let noise = (rng.unit() - 0.5) * 0.4;
            let took = Duration::from_secs_f64(usual(size) * (1.0 + noise));
            pace.observe(took, size, Now::from_millis(1000 * second), NOBODY);
        }
        for (tokens_in, beside) in [(100, 0), (100, 15), (3_000, 0), (3_000, 15), (20_000, 4)] {
            let size = Size { tokens_in, tokens_out: 0, beside };
            let ratio = pace.expected(size).expect("known").as_secs_f64() / usual(size);
            assert!((0.9..1.1).contains(&ratio), "{size:?}: {ratio} of what it takes");
        }
    }

    #[test]
    fn a_whole_answer_should_take_as_long_as_its_output() {
        let mut pace = Pace::default();
        let mut rng = Rng::seeded(3);
        for second in 0..300 {
            let tokens_out = 10 + rng.below(990) as u32;
            let took = Duration::from_millis(100 + 20 * u64::from(tokens_out));
            let size = Size { tokens_in: 100, tokens_out, beside: 0 };
            pace.observe(took, size, Now::from_millis(1000 * second), NOBODY);
        }
        let long = Size { tokens_in: 100, tokens_out: 4_000, beside: 0 };
        let ratio = pace.expected(long).expect("known").as_secs_f64() / 80.1;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn one_outlier_proves_nothing_and_recovery_is_seen() {
        let mut one = Deployment::warmed(2, 0.3);
        one.answer(300.0, 0.0);
        assert!(!one.pace.is_slow());
        for _ in 0..30 {
            one.answer(5.0, 0.0);
        }
        assert!(one.pace.is_slow() && (3.5..7.0).contains(&one.pace.factor()), "{:?}", one.pace);
        let back = (1..60).find(|_| one.answer(1.0, 0.0) && !one.pace.is_slow());
        assert!(back.is_some_and(|answers| answers <= 10), "{back:?}");
        assert!((one.pace.factor() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn who_stays_slow_stays_known_as_slow() {
        let mut flips = 0;
        for seed in 0..50 {
            let mut one = Deployment::warmed(seed, 0.3);
            assert!(one.found(2.0, 40).is_some());
            flips += (0..1_000).filter(|_| one.answer(2.0, 0.0)).count();
        }
        assert!(flips <= 4, "{flips} changes of mind in 50,000 answers");
    }

    #[test]
    fn nobody_is_slow_when_all_are_at_once() {
        let mut alarms = 0;
        let pools =
            [(0.1, 2.0, 6), (0.1, 8.0, 6), (0.3, 2.0, 6), (0.3, 4.0, 6), (0.3, 2.0, 2), (0.2, 3.0, 3)];
        for (spread, times, many) in pools {
            let mut pool: Vec<Deployment> = (0..many).map(|seed| Deployment::warmed(seed, spread)).collect();
            for _ in 0..2_000 {
                for at in 0..pool.len() {
                    let peers = pool.iter().enumerate().filter(|(peer, _)| *peer != at);
                    let mut lately: Vec<f64> =
                        peers.filter_map(|(_, peer)| peer.pace.lately(peer.now)).collect();
                    let peers = middle(&mut lately);
                    alarms += usize::from(pool[at].answer(times, peers) && pool[at].pace.is_slow());
                }
            }
        }
        assert_eq!(alarms, 0, "alarms in 58,000 answers of pools that became slower as one");
    }

    #[test]
    fn a_slow_drift_is_found() {
        let mut one = Deployment::warmed(4, 0.2);
        let found =
            (0..400).find(|step| one.answer(1.0 + f64::from(*step) * 0.005, 0.0) && one.pace.is_slow());
        assert!(found.is_some(), "from once to three times as slow over 400 answers");
        let mut one = Deployment { gap_ms: 100, ..Deployment::warmed(5, 0.2) };
        let found =
            (0..36_000).find(|step| one.answer(1.0 + f64::from(*step) / 36_000.0, 0.0) && one.pace.is_slow());
        assert!(found.is_some(), "from once to twice as slow over an hour");
    }

    #[test]
    fn waits_that_are_given_up_count_only_when_they_are_late() {
        let mut one = Deployment::warmed(6, 0.2);
        let late = one.pace.late_after(size(500)).expect("known");
        assert!((Duration::from_millis(500)..Duration::from_secs(1)).contains(&late), "{late:?}");
        let mut found =
            |waited: Duration| (0..10).any(|_| one.pace.observe_at_least(waited, size(500), one.now, NOBODY));
        assert!(!found(late.mul_f64(0.99)));
        assert!(found(late), "four that hung prove it");
        assert_eq!(Pace::default().late_after(size(1)), None, "nothing is late while nothing is known");
    }
}
