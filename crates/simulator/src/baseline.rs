//! What the same traffic would meet without any routing: round robin that learns nothing, with clients that come again
//! as their libraries do. Simple enough to be obviously right, and fair: nothing queues.

use std::time::Duration;

use pointsman_routing::{Catalog, Now, Rng};

use crate::Spec;
use crate::fault::{Extent, Fate, Fault, fate};
use crate::report::during;

/// How often a client tries in all; the usual libraries give up sooner.
const TRIES: usize = 10;
/// How long a client waits that is not told how long (the first wait of the usual libraries).
const COMES_AGAIN: Duration = Duration::from_millis(500);

/// Round robin over the deployments of a model.
#[derive(Debug)]
pub(crate) struct RoundRobin<'w> {
    pub(crate) catalog: &'w Catalog,
    pub(crate) spec: &'w Spec,
    pub(crate) seed: u64,
}

impl RoundRobin<'_> {
    /// Time to first content of what arrives while any of the faults holds, milliseconds: what this share keeps below.
    pub(crate) fn first_content_during(&self, faults: &[Fault], share: f64) -> f64 {
        during(&self.first_content(), faults, share)
    }

    /// When requests arrive, seconds, and how long their first content takes, milliseconds.
    fn first_content(&self) -> Vec<(f64, f64)> {
        let Some(model) = self.catalog.models.get(self.spec.model.as_str()) else { return Vec::new() };
        let mut rng = Rng::seeded(self.seed).fork("round robin");
        let (mut turn, mut at_s, mut all) = (0, 0.0, Vec::new());
        let exponential = |mean: f64, rng: &mut Rng| -rng.unit().max(1e-12).ln() * mean;
        while at_s < self.spec.duration_s && (all.len() as u64) < self.spec.requests {
            let tokens_in = exponential(f64::from(self.spec.tokens_in_mean), &mut rng) as u64;
            let first = Duration::from_millis(self.spec.first_content_base_ms)
                + Duration::from_micros(self.spec.prefill_us_per_token * tokens_in);
            let arrived = Now::from_nanos((at_s * 1e9) as u64);
            let mut at = arrived;
            for _ in 0..TRIES {
                turn += 1;
                let name = &model.deployments[turn % model.deployments.len()].name;
                let wait = match fate(&self.spec.faults, name, 0, at, rng.unit()) {
                    Fate::Answer(slow, Extent::Whole | Extent::Middle | Extent::Cut) => {
                        at = at + first.mul_f64(slow);
                        break;
                    }
                    Fate::Answer(_, Extent::Head) => model.timeouts.first_content,
                    Fate::Fail(after, failure) => after + failure.retry_after.unwrap_or(COMES_AGAIN),
                    Fate::Silence => model.timeouts.connect,
                };
                at = at + wait;
            }
            all.push((at_s, (at - arrived).as_secs_f64() * 1e3));
            let rate = self.spec.rates.iter().rev().find(|rate| rate.from_s <= at_s);
            let per_s = rate.or(self.spec.rates.first()).map_or(1.0, |rate| rate.per_s);
            at_s += exponential(1.0 / per_s, &mut rng);
        }
        all
    }
}
