//! Engines and providers in a few lines, loaded as much as the limiter allows.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

/// An engine: milliseconds per token with so many in its batch.
type Engine<'e> = &'e dyn Fn(f64, f64) -> f64;

/// Keeps `demand` requests of 100 tokens coming for `seconds`, as many at once as the limiter lets; gives the limit
/// over time, a number each second.
fn run(
    limiter: &mut Limiter,
    engine: Engine<'_>,
    demand: u32,
    noise: f64,
    seconds: u64,
    seed: u64,
) -> Vec<u32> {
    let mut rng = Rng::seeded(seed);
    let mut ends: BinaryHeap<Reverse<(u64, u64, u32, u64)>> = BinaryHeap::new();
    let mut limits = Vec::new();
    let mut now_us = 0_u64;
    while now_us < seconds * 1_000_000 {
        while (ends.len() as u32) < limiter.bound(Lane::Live).min(demand) {
            let inflight = ends.len() as u32 + 1;
            let normal = (0..6).map(|_| rng.unit() - 0.5).sum::<f64>() * 1.41;
            let per_token_us =
                engine(f64::from(inflight), now_us as f64 / 1e6) * 1e3 * (normal * noise).exp();
            let took = (per_token_us * 100.0) as u64;
            ends.push(Reverse((now_us + took.max(1), now_us, inflight, per_token_us as u64)));
        }
        let Some(Reverse((end, began, inflight, per_token_us))) = ends.pop() else { break };
        while limits.len() as u64 * 1_000_000 < end {
            limits.push(limiter.bound(Lane::Live));
        }
        now_us = end;
        let sample = Sample {
            taken: Now::from_nanos(began * 1000),
            inflight: inflight.max(ends.len() as u32 + 1),
            per_token_ms: Some(per_token_us as f64 / 1e3),
            ..Sample::default()
        };
        limiter.succeeded(&sample, Now::from_nanos(now_us * 1000));
    }
    limits
}

fn engine(slots: Option<u32>) -> Limiter {
    Limiter::new(
        &LimiterSpec { kind: LimiterKind::Gradient, max: 1000, ..LimiterSpec::default() },
        true,
        slots,
    )
}

#[test]
fn it_finds_the_knee_of_an_engine() {
    for (name, power, knee) in [
        ("linear", 1, 8.0),
        ("linear", 1, 24.0),
        ("linear", 1, 100.0),
        ("thrashing", 3, 24.0),
        ("thrashing", 3, 60.0),
    ] {
        for seed in 0..5 {
            let at = |batch: f64, _| 5.0 * (batch / knee).max(1.0).powi(power);
            let limits = run(&mut engine(None), &at, 400, 0.1, 600, seed);
            let late = &limits[400..];
            let mean = f64::from(late.iter().sum::<u32>()) / late.len() as f64;
            assert!((0.8..=2.0).contains(&(mean / (knee + 4.0))), "{name} {knee} {seed}: {mean} {limits:?}");
        }
    }
}

#[test]
fn an_hour_of_overload_does_not_become_usual() {
    let at = |batch: f64, _| 5.0 * (batch / 24.0).max(1.0);
    let limits = run(&mut engine(None), &at, 400, 0.1, 3600, 1);
    assert!(limits[3000..].iter().all(|limit| *limit < 60), "{:?}", &limits[3000..]);
}

#[test]
fn constant_times_with_noise_never_hurt() {
    for seed in 0..10 {
        let mut limiter = engine(Some(64));
        let limits = run(&mut limiter, &|_, _| 5.0, 64, 0.5, 300, seed);
        let mean = limits.iter().sum::<u32>() / 300;
        assert!(limits.iter().all(|limit| *limit >= 56) && mean >= 63, "slots are enough: {limits:?}");
        let limits = run(&mut engine(None), &|_, _| 5.0, 200, 0.5, 60, seed);
        assert!(limits[10..].iter().all(|limit| *limit >= 200), "it gets out of the way at once: {limits:?}");
    }
}

#[test]
fn a_light_load_is_let_alone_however_slow() {
    let mut limiter = engine(None);
    let limits = run(&mut limiter, &|_, at_s| if at_s < 60.0 { 5.0 } else { 50.0 }, 10, 0.3, 300, 1);
    assert!(limits.iter().all(|limit| *limit >= 32), "{limits:?}");
}

#[test]
fn it_recovers_after_a_slow_phase_and_from_a_slower_world() {
    let slow = |from_s: f64, until_s: f64| {
        move |batch: f64, at_s: f64| {
            let times = if (from_s..until_s).contains(&at_s) { 3.0 } else { 1.0 };
            5.0 * (batch / 48.0_f64).max(1.0) * times
        }
    };
    let limits = run(&mut engine(None), &slow(60.0, 120.0), 400, 0.1, 200, 3);
    let low = limits[140..].iter().filter(|limit| **limit < 48).count();
    assert!(low <= 5, "twenty seconds after, but for short looks at half of it: {:?}", &limits[120..]);
    let limits = run(&mut engine(None), &slow(60.0, 1e9), 400, 0.1, 900, 3);
    let late = limits[600..].iter().sum::<u32>() / 300;
    assert!((48..=110).contains(&late), "slower for good, and not for what is in flight: {limits:?}");
}

/// A provider that serves so many a second (a bucket of a second's worth) and refuses the rest.
fn provider(limiter: &mut Limiter, per_s: impl Fn(u64) -> f64, seconds: u64) -> (f64, f64) {
    let (mut ends, mut now_us) = (BinaryHeap::new(), 0_u64);
    let (mut bucket, mut served, mut refused, mut filled_us) = (20.0_f64, 0.0, 0.0, 0_u64);
    let mut rng = Rng::seeded(9);
    while now_us < seconds * 1_000_000 {
        while (ends.len() as u32) < limiter.bound(Lane::Live).min(300) {
            bucket = (bucket + per_s(now_us / 1_000_000) * (now_us - filled_us) as f64 / 1e6).min(20.0);
            filled_us = now_us;
            let good = bucket >= 1.0;
            bucket -= f64::from(u8::from(good));
            let took_us = if good { 300_000.0 + 400_000.0 * rng.unit() } else { 5_000.0 };
            ends.push(Reverse((now_us + took_us as u64, now_us, ends.len() as u32 + 1, good)));
        }
        let Some(Reverse((end, began, inflight, good))) = ends.pop() else { break };
        now_us = end;
        let (taken, now) = (Now::from_nanos(began * 1000), Now::from_nanos(end * 1000));
        let counted = f64::from(u8::from(now_us > seconds * 500_000));
        if good {
            limiter.succeeded(&Sample { taken, inflight, ..Sample::default() }, now);
            served += counted;
        } else {
            limiter.refused(taken, inflight, now);
            refused += counted;
        }
    }
    (served / (seconds as f64 / 2.0), refused / served.max(1.0))
}

#[test]
fn an_engine_without_slots_is_held_back_only_if_its_operator_says_so() {
    assert_eq!(Limiter::new(&LimiterSpec::default(), true, None).limit(), None);
    assert_eq!(Limiter::new(&LimiterSpec::default(), true, Some(8)).limit(), Some(8));
    assert_eq!(engine(None).limit(), Some(32));
}

#[test]
fn after_refusals_it_settles_near_the_providers_rate() {
    let mut limiter = Limiter::new(&LimiterSpec::default(), false, None);
    assert_eq!(limiter.limit(), Some(100_000), "nothing was refused yet");
    let (served_per_s, refused) = provider(&mut limiter, |_| 100.0, 120);
    assert!((90.0..=101.0).contains(&served_per_s), "{served_per_s}");
    assert!(refused < 0.01, "{refused} refused for each that was served");
}

#[test]
fn it_follows_a_provider_that_gives_more() {
    let mut limiter = Limiter::new(&LimiterSpec::default(), false, None);
    let (served_per_s, _) = provider(&mut limiter, |second| if second < 60 { 50.0 } else { 100.0 }, 300);
    assert!(served_per_s > 88.0, "{served_per_s}");
}

#[test]
fn batch_holds_its_share_and_one_slot_at_least() {
    for (slots, batch) in [(1, 1), (2, 2), (9, 9), (10, 9), (16, 15), (100, 90)] {
        let mut limiter = engine(Some(slots));
        limiter.set_batch_share(0.9);
        assert_eq!((limiter.bound(Lane::Live), limiter.bound(Lane::Batch)), (slots, batch));
    }
    let off = Limiter::new(&LimiterSpec { kind: LimiterKind::Off, ..LimiterSpec::default() }, true, None);
    assert_eq!((off.limit(), off.bound(Lane::Batch)), (None, u32::MAX));
}

#[test]
fn a_reload_keeps_what_was_learnt() {
    let spec = LimiterSpec::default();
    let mut limiter = Limiter::new(&spec, false, Some(64));
    limiter.refused(Now::ZERO, 50, Now::from_millis(5));
    assert_eq!(limiter.limit(), Some(45));
    limiter.apply(&spec, false, Some(40));
    assert_eq!(limiter.limit(), Some(40), "fewer slots count at once");
    limiter.apply(&spec, false, Some(64));
    assert_eq!(limiter.limit(), Some(64), "and more do, where nothing more was refused");
    limiter.apply(&LimiterSpec { kind: LimiterKind::Off, ..spec }, false, Some(64));
    assert_eq!(limiter.limit(), Some(64));
}

proptest! {
    #[test]
    fn it_stays_within_its_bounds_whatever_happens(
        events in prop::collection::vec((0_u8..4, 0_u64..3_000, 0_u32..200, 0.0_f64..1e4), 1..400),
        slots in prop::option::of(1_u32..100), min in 1_u32..50, free in any::<bool>()
    ) {
        let kind = if free { LimiterKind::Gradient } else { LimiterKind::Aimd };
        let spec = LimiterSpec { kind, min, max: 120 };
        let mut limiter = Limiter::new(&spec, free, slots);
        let most = slots.unwrap_or(u32::MAX).min(120);
        let mut now = Now::ZERO;
        for (what, later_ms, inflight, time) in events {
            let taken = now;
            now = now + Duration::from_millis(later_ms);
            let some = |kind: u8| (what == kind).then_some(time);
            let sample =
                Sample { taken, inflight, per_token_ms: some(0), first_ms: some(1), whole_ms: some(2) };
            if what == 3 { limiter.refused(taken, inflight, now) } else { limiter.succeeded(&sample, now) }
            let live = limiter.bound(Lane::Live);
            prop_assert!((min.min(most)..=most).contains(&live), "{live} of {most}");
            prop_assert!((1..=live).contains(&limiter.bound(Lane::Batch)));
        }
    }
}
