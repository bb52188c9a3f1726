//! How fast a deployment has been lately.

use std::time::Duration;

use crate::limits::DECAY;
use crate::time::Now;

/// A peak-sensitive moving average: it jumps up with a slow sample and decays towards faster ones (the cost function
/// of Finagle's `PeakEwma` load balancer). O(1).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PeakEwma {
    value_ms: f64,
    at: Now,
    samples: u64,
}

impl PeakEwma {
    /// Takes a sample in.
    pub fn observe(&mut self, now: Now, sample: Duration) {
        let sample_ms = sample.as_secs_f64() * 1e3;
        let kept = decay(now - self.at);
        self.value_ms = if self.samples == 0 || sample_ms > self.value_ms * kept {
            sample_ms
        } else {
            self.value_ms * kept + sample_ms * (1.0 - kept)
        };
        self.at = now;
        self.samples += 1;
    }

    /// The average now, milliseconds; `None` before the first sample. It fades with time, so that a deployment that
    /// was slow and is therefore avoided gets another chance.
    pub fn value_ms(&self, now: Now) -> Option<f64> {
        (self.samples > 0).then(|| self.value_ms * decay(now - self.at))
    }

    /// The same for what is measured seldom and changes seldom: it fades over `span`.
    pub fn value_ms_over(&self, now: Now, span: Duration) -> Option<f64> {
        let age = (now - self.at).as_secs_f64();
        (self.samples > 0).then(|| self.value_ms * (-age / span.as_secs_f64()).exp())
    }
}

/// The weight left to something of this age.
pub(crate) fn decay(age: Duration) -> f64 {
    if age.is_zero() { 1.0 } else { (-age.as_secs_f64() / DECAY.as_secs_f64()).exp() }
}

/// Prompt tokens that take as long as the rest of what passes before the first token.
const PREFILL_BASE_TOKENS: f64 = 256.0;
/// The prompt that normalised times speak of.
const PREFILL_UNIT_TOKENS: f64 = 1024.0;

/// A time to first content as if the prompt had 1,024 tokens: prefill takes time in proportion to the prompt, beside
/// a fixed part. Without this a deployment that happened to get long prompts would look slow.
pub fn normalised(first_content: Duration, tokens_in: u32) -> Duration {
    let scale = (PREFILL_BASE_TOKENS + PREFILL_UNIT_TOKENS) / (PREFILL_BASE_TOKENS + f64::from(tokens_in));
    first_content.mul_f64(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_jumps_up_and_fades() {
        let mut ewma = PeakEwma::default();
        assert_eq!(ewma.value_ms(Now::ZERO), None);
        ewma.observe(Now::ZERO, Duration::from_millis(100));
        ewma.observe(Now::from_millis(1), Duration::from_millis(500));
        assert_eq!(ewma.value_ms(Now::from_millis(1)), Some(500.0), "a peak counts at once");
        ewma.observe(Now::from_millis(2), Duration::from_millis(100));
        assert!(ewma.value_ms(Now::from_millis(2)).is_some_and(|ms| ms > 450.0), "a fast one counts slowly");
        let later = Now::from_millis(2) + DECAY;
        assert!(ewma.value_ms(later).is_some_and(|ms| ms < 200.0), "it fades");
    }

    #[test]
    fn a_long_prompt_may_take_longer() {
        let short = normalised(Duration::from_millis(100), 0);
        let long = normalised(Duration::from_millis(2_660), 6_553);
        assert!((short.as_secs_f64() - long.as_secs_f64()).abs() < 0.01, "{short:?} {long:?}");
    }
}
