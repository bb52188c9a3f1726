//! What a deployment can take: an engine that slows down with what is in its batch, a provider that refuses what comes
//! faster than it sells.

use std::collections::BTreeMap;

use pointsman_routing::Now;
use serde::Deserialize;

/// An engine whose time grows once more are in its batch than fit.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// Requests up to which each is as fast as alone.
    pub knee: f64,
    /// How the time of each grows beyond: by this power of their number over the knee. 1: the engine does as much as
    /// before in all; more: it does less, as one that has to compute again what it threw out of its cache.
    pub power: f64,
}

impl Batch {
    /// How many times as long everything takes with so many in the batch.
    pub(crate) fn slower(self, inflight: usize) -> f64 {
        (inflight as f64 / self.knee).max(1.0).powf(self.power)
    }
}

/// What is left of the requests that each deployment sells: a bucket that holds a second's worth.
#[derive(Debug, Default)]
pub(crate) struct Sold {
    left: BTreeMap<String, (f64, Now)>,
}

impl Sold {
    /// Takes one request; false if there is none left.
    pub(crate) fn take(&mut self, deployment: &str, per_s: f64, now: Now) -> bool {
        let most = per_s.max(1.0);
        let (left, at) = self.left.entry(deployment.to_owned()).or_insert((most, now));
        *left = (*left + (now - *at).as_secs_f64() * per_s).min(most);
        *at = now;
        let served = *left >= 1.0;
        *left -= f64::from(u8::from(served));
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_slows_down_beyond_its_knee() {
        let batch = Batch { knee: 8.0, power: 2.0 };
        assert_eq!([1, 8, 16].map(|inflight| batch.slower(inflight).round() as u32), [1, 1, 4]);
    }

    #[test]
    fn a_provider_sells_so_many_a_second() {
        let mut sold = Sold::default();
        let served = (0..10_000).filter(|ms| sold.take("a", 50.0, Now::from_millis(*ms))).count();
        assert!((500..=550).contains(&served), "{served}");
    }
}
