//! Requests in flight over time, on a grid.

use super::Served;

/// Steps of a grid, at most.
const STEPS_MAX: usize = 3_600;
/// The shortest step, seconds.
const STEP_S: f64 = 1.0;
/// The longest time between two swings that is looked for, seconds.
const LAG_S_MAX: f64 = 30.0;
/// Steps without which swings cannot be told from chance.
const STEPS_TELLING: usize = 60;
/// Requests in flight on average below which shares say nothing.
const LOAD_TELLING: f64 = 2.0;

/// The average requests in flight of each deployment in each step.
pub(super) struct Loads {
    from_s: f64,
    step_s: f64,
    /// By step, then by deployment.
    steps: Vec<Vec<f64>>,
}

impl Loads {
    pub(super) fn new(deployments: usize, from_s: f64, span_s: f64) -> Self {
        let step_s = STEP_S.max(span_s / STEPS_MAX as f64);
        let steps = ((span_s / step_s).ceil() as usize).clamp(1, STEPS_MAX);
        Self { from_s, step_s, steps: vec![vec![0.0; deployments]; steps] }
    }

    pub(super) fn add(&mut self, deployment: usize, from_s: f64, until_s: f64) {
        for (step, share) in self.parts(from_s, until_s) {
            self.steps[step][deployment] += share;
        }
    }

    /// Takes counts in, ascending by moment: each holds until the next of its deployment.
    pub(super) fn count(&mut self, counts: impl Iterator<Item = (f64, usize, u32)>) {
        let mut last: Vec<Option<(f64, u32)>> = vec![None; self.steps.first().map_or(0, Vec::len)];
        for (at_s, deployment, inflight) in counts {
            if let Some((since_s, before)) = last[deployment].replace((at_s, inflight)) {
                self.hold(deployment, before, since_s, at_s);
            }
        }
        for (deployment, last) in last.into_iter().enumerate() {
            if let Some((since_s, inflight)) = last {
                self.hold(deployment, inflight, since_s, f64::INFINITY);
            }
        }
    }

    fn hold(&mut self, deployment: usize, inflight: u32, from_s: f64, until_s: f64) {
        for (step, share) in self.parts(from_s, until_s) {
            self.steps[step][deployment] += share * f64::from(inflight);
        }
    }

    /// The steps that a span touches, with the share of each that it covers.
    fn parts(&self, from_s: f64, until_s: f64) -> impl Iterator<Item = (usize, f64)> + use<> {
        let place = |at_s: f64| ((at_s - self.from_s) / self.step_s).clamp(0.0, self.steps.len() as f64);
        let (from, until) = (place(from_s), place(until_s).max(place(from_s)));
        let (first, last) = (from as usize, (until.ceil() as usize).min(self.steps.len()));
        (first..last).map(move |step| (step, until.min(step as f64 + 1.0) - from.max(step as f64)))
    }

    pub(super) fn mean(&self, deployment: usize) -> f64 {
        self.steps.iter().map(|loads| loads[deployment]).sum::<f64>() / self.steps.len() as f64
    }

    pub(super) fn max(&self, deployment: usize) -> f64 {
        self.steps.iter().map(|loads| loads[deployment]).fold(0.0, f64::max)
    }

    /// The sum over deployments in each step.
    pub(super) fn total(&self) -> Vec<f64> {
        self.steps.iter().map(|loads| loads.iter().sum()).collect()
    }

    /// The steps in which there is enough to be spread.
    pub(super) fn busy(&self) -> impl Iterator<Item = &Vec<f64>> {
        self.steps.iter().filter(|loads| loads.len() > 1 && loads.iter().sum::<f64>() >= 1.0)
    }

    /// How far the shares of deployments swing: where many routers follow the same late figures, all run to one
    /// deployment, then to the next. The autocorrelation of each one's share falls with the time between, as requests
    /// take a while; once it is below zero, a peak after it is a swing.
    pub(super) fn oscillation(&self) -> f64 {
        let busy: Vec<&Vec<f64>> = self.busy().collect();
        let mean = busy.iter().map(|loads| loads.iter().sum::<f64>()).sum::<f64>() / busy.len().max(1) as f64;
        if busy.len() < STEPS_TELLING || mean < LOAD_TELLING {
            return 0.0;
        }
        let lags = ((LAG_S_MAX / self.step_s) as usize).min(busy.len() / 3);
        let swing = |deployment: usize| {
            let shares: Vec<f64> =
                busy.iter().map(|loads| loads[deployment] / loads.iter().sum::<f64>()).collect();
            let correlations: Vec<f64> = (1..=lags).map(|lag| autocorrelation(&shares, lag)).collect();
            let fallen = correlations.iter().position(|correlation| *correlation < 0.0);
            fallen.map_or(0.0, |at| correlations[at..].iter().copied().fold(0.0, f64::max))
        };
        (0..busy[0].len()).map(swing).fold(0.0, f64::max)
    }

    /// Seconds in which a request waited while a deployment had a free slot. What waits for less than a step counts for as
    /// long as it waited.
    pub(super) fn idle_while_queued(&self, served: &[&Served], slots: &[Option<u32>]) -> f64 {
        let mut waiting = vec![0.0_f64; self.steps.len()];
        for one in served.iter().filter(|one| one.queued_s > 0.0) {
            for (step, share) in self.parts(one.arrived_s, one.arrived_s + one.queued_s) {
                waiting[step] = (waiting[step] + share).min(1.0);
            }
        }
        let has_room = |loads: &[f64]| {
            let mut pairs = loads.iter().zip(slots);
            pairs.any(|(load, slots)| slots.is_some_and(|slots| *load + 1.0 <= f64::from(slots)))
        };
        let steps = self.steps.iter().zip(waiting).filter(|(loads, _)| has_room(loads));
        steps.map(|(_, waited)| waited * self.step_s).sum()
    }
}

/// How much values are like those so many places before, from -1 to 1; 0 of what does not change.
fn autocorrelation(values: &[f64], lag: usize) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
    let spread: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    if spread < 1e-12 {
        return 0.0;
    }
    let pairs = values.iter().zip(values.iter().skip(lag));
    pairs.map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>() / spread
}
