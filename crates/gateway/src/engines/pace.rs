//! How soon an engine is asked again: often while its load changes fast, seldom while there is nothing to see.

use std::time::Duration;

use pointsman_routing::engine::EngineLoad;
use pointsman_settings::engine::EnginePlan;

/// How many times longer the interval of an engine is that is hardly busy than of one that is full.
const HARDLY_BUSY: f64 = 4.0;
/// An engine that answers slowly is asked for at most a fifth of the time.
const REST_PER_TIME: u32 = 4;
/// The longest time between two questions to an engine that does not answer: it may be back soon.
const FAILED_MAX: Duration = Duration::from_secs(5);
/// Time between two questions to an engine that has nothing to say.
const QUIET: Duration = Duration::from_secs(30);

/// What came of the last question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    /// A report.
    Report,
    /// The engine has nothing to say.
    Nothing,
    /// No answer, for so many times in a row.
    Failed(u32),
}

/// How hard an engine works, from 0 to 1; `None`: not at all. `inflight` are requests sent from here.
pub(super) fn pressure(inflight: u32, load: &EngineLoad, slots: Option<u32>) -> Option<f64> {
    let (running, waiting) = (load.running.unwrap_or(0), load.waiting.unwrap_or(0));
    if inflight == 0 && running == 0 && waiting == 0 {
        return None;
    }
    if waiting > 0 {
        return Some(1.0);
    }
    let of_slots = slots.map_or(0.0, |slots| f64::from(running.max(inflight)) / f64::from(slots.max(1)));
    Some(of_slots.max(f64::from(load.kv_used.unwrap_or(0.0))).clamp(0.0, 1.0))
}

/// The time until the next question, after one that took `took`.
pub(super) fn interval(plan: &EnginePlan, pressure: Option<f64>, last: Last, took: Duration) -> Duration {
    let interval = match (last, pressure) {
        (Last::Nothing, _) => QUIET,
        (Last::Failed(times), _) => {
            plan.idle.saturating_mul(1 << times.min(10)).min(FAILED_MAX.max(plan.idle))
        }
        (Last::Report, None) => plan.idle,
        (Last::Report, Some(pressure)) => {
            let busy = plan.busy.mul_f64(HARDLY_BUSY - (HARDLY_BUSY - 1.0) * pressure.clamp(0.0, 1.0));
            busy.min(plan.idle)
        }
    };
    interval.max(took * REST_PER_TIME)
}

#[cfg(test)]
mod tests {
    use pointsman_settings::providers::ProviderConfig;

    use super::*;

    #[test]
    fn busy_engines_are_asked_often_and_silent_ones_seldom() {
        let provider = ProviderConfig { kind: "vllm".to_owned(), ..ProviderConfig::default() };
        let plan = provider.engine_plan().expect("an engine");
        let check = |pressure: Option<f64>, last: Last, took_ms: u64, expected_ms: u64| {
            let interval = interval(&plan, pressure, last, Duration::from_millis(took_ms));
            assert_eq!(interval.as_millis() as u64, expected_ms, "{pressure:?} {last:?} {took_ms}");
        };
        check(None, Last::Report, 1, 1_000);
        check(Some(0.0), Last::Report, 1, 200);
        check(Some(0.5), Last::Report, 1, 125);
        check(Some(1.0), Last::Report, 1, 50);
        check(Some(f64::INFINITY), Last::Report, 1, 50);
        check(Some(1.0), Last::Report, 100, 400);
        check(Some(1.0), Last::Failed(1), 1, 2_000);
        check(Some(1.0), Last::Failed(u32::MAX), 1, 5_000);
        check(None, Last::Nothing, 1, 30_000);
    }

    #[test]
    fn pressure_is_that_of_the_fullest() {
        let load = |running, waiting, kv_used| EngineLoad {
            running: Some(running),
            waiting: Some(waiting),
            kv_used: Some(kv_used),
            ..EngineLoad::default()
        };
        assert_eq!(pressure(0, &load(0, 0, 0.9), None), None, "a full cache alone is no work");
        assert_eq!(pressure(1, &EngineLoad::default(), None), Some(0.0));
        assert_eq!(pressure(0, &load(2, 0, 0.25), Some(4)), Some(0.5));
        assert_eq!(pressure(0, &load(1, 0, 0.75), Some(4)), Some(0.75));
        assert_eq!(pressure(0, &load(9, 0, 0.0), Some(4)), Some(1.0));
        assert_eq!(pressure(0, &load(1, 1, 0.0), Some(4)), Some(1.0));
    }
}
