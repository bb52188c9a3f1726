use super::*;
use crate::rng::Rng;

/// An engine by steps: a fixed part, prefill, attention and what decodes beside it.
fn truth(work: &Work, times: f64) -> f64 {
    let steps = 1.0 + work.tokens / STEP_TOKENS;
    let prefill = 36e-6 * work.tokens + 1.2e-9 * work.attention;
    let beside = steps * (4.4e-6 * work.decoding + 7.6e-8 * work.tokens_decoding);
    (0.008 * steps + prefill + beside) * times
}

fn any_work(rng: &mut Rng) -> Work {
    let tokens = 50.0 + (-rng.unit().max(1e-9).ln()) * 8_000.0;
    let decoding = rng.below(20) as f64;
    Work {
        tokens,
        attention: tokens * tokens * (0.3 + 0.4 * rng.unit()),
        decoding,
        tokens_decoding: decoding * 10_000.0 * rng.unit(),
        own_tokens: tokens,
        own_attention: 0.0,
    }
}

/// The mean relative error over fresh work after so many answers, at deployments so many times slower than the first.
fn error_after(answers: usize, times: &[f64], noise: f64) -> Vec<f64> {
    let (mut shared, mut rng) = (Shared::default(), Rng::seeded(4));
    let mut all = vec![Predictor::default(); times.len()];
    for nth in 0..answers {
        let at = nth % times.len();
        let work = any_work(&mut rng);
        let seconds = truth(&work, times[at]) * (1.0 + noise * (rng.unit() - 0.5));
        all[at].observe_first(&mut shared, &work, Duration::from_secs_f64(seconds), Now::ZERO);
    }
    let error = |at: usize| {
        let mut rng = Rng::seeded(99);
        let errors = (0..200).map(|_| {
            let work = any_work(&mut rng);
            let predicted = all[at].predict(&shared, &work, Now::ZERO).first_ms / 1e3;
            ((predicted - truth(&work, times[at])) / truth(&work, times[at])).abs()
        });
        errors.sum::<f64>() / 200.0
    };
    (0..times.len()).map(error).collect()
}

#[test]
fn it_converges_from_any_scale() {
    for times in [0.05, 0.7, 1.0, 1.3, 30.0] {
        let error = error_after(500, &[times], 0.2)[0];
        assert!(error < 0.08, "{times} times: {error}");
    }
}

#[test]
fn speeds_are_known_per_deployment_after_a_few_answers() {
    let times = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0];
    for (at, error) in error_after(80, &times, 0.2).into_iter().enumerate() {
        assert!(error < 0.25, "deployment {at} after ten answers: {error}");
    }
    for (at, error) in error_after(800, &times, 0.2).into_iter().enumerate() {
        assert!(error < 0.1, "deployment {at} after a hundred: {error}");
    }
}

#[test]
fn a_newcomer_begins_with_its_peers_line() {
    let (mut shared, mut rng, mut peer) = (Shared::default(), Rng::seeded(4), Predictor::default());
    assert!(!shared.is_known());
    for _ in 0..300 {
        let work = any_work(&mut rng);
        let took = Duration::from_secs_f64(truth(&work, 3.0));
        peer.observe_first(&mut shared, &work, took, Now::ZERO);
    }
    let work = any_work(&mut rng);
    let predicted = Predictor::default().predict(&shared, &work, Now::ZERO);
    let ratio = predicted.first_ms / 1e3 / truth(&work, 3.0);
    assert!(predicted.known && (0.8..1.25).contains(&ratio), "{ratio}");
    assert_eq!(Predictor::default().error(), None);
    let error = peer.error().expect("compared");
    assert!(error.compared == 280 && error.mean < 0.1 && (0.9..1.1).contains(&error.bias), "{error:?}");
}

#[test]
fn one_that_becomes_slower_is_known_to_be() {
    let (mut shared, mut rng, mut one) = (Shared::default(), Rng::seeded(4), Predictor::default());
    let mut answer = |one: &mut Predictor, times: f64| {
        let work = any_work(&mut rng);
        one.observe_first(&mut shared, &work, Duration::from_secs_f64(truth(&work, times)), Now::ZERO);
        one.predict(&shared, &work, Now::ZERO).first_ms / 1e3 / truth(&work, times)
    };
    for _ in 0..500 {
        answer(&mut one, 1.0);
    }
    let ratio = (0..100).map(|_| answer(&mut one, 2.0)).last().expect("some");
    assert!((0.7..1.3).contains(&ratio), "after a hundred answers of twice the time: {ratio}");
}

#[test]
fn times_per_token_follow_what_decodes() {
    let (mut shared, mut rng, mut one) = (Shared::default(), Rng::seeded(8), Predictor::default());
    let each = |work: &Work| 8e-3 + 4.4e-6 * work.decoding + 7.6e-8 * work.tokens_decoding;
    for _ in 0..500 {
        let work = any_work(&mut rng);
        one.observe_token(&mut shared, &work, Duration::from_secs_f64(each(&work)));
    }
    for _ in 0..20 {
        let work = any_work(&mut rng);
        let ratio = one.predict(&shared, &work, Now::ZERO).token_ms / 1e3 / each(&work);
        assert!((0.85..1.15).contains(&ratio), "{work:?}: {ratio}");
    }
}

#[test]
fn it_never_explodes() {
    let (mut shared, mut rng) = (Shared::default(), Rng::seeded(12));
    let mut all = [Predictor::default(); 3];
    let extremes = [0.0, 1e-9, 1e-3, 1.0, 1e4, 1e12];
    for nth in 0..30_000 {
        let mut any = || extremes[rng.below(extremes.len())];
        let work = Work {
            tokens: any(),
            attention: any(),
            decoding: any(),
            tokens_decoding: any(),
            own_tokens: any(),
            own_attention: any(),
        };
        let took = Duration::from_secs_f64(any().min(1e9));
        let one = &mut all[nth % 3];
        match nth % 5 {
            0 => one.observe_token(&mut shared, &work, took),
            _ => one.observe_first(&mut shared, &work, took, Now::ZERO),
        }
        let predicted = one.predict(&shared, &work, Now::ZERO);
        for ms in [predicted.first_ms, predicted.first_high_ms, predicted.token_ms, predicted.interference_ms]
        {
            assert!(ms.is_finite() && ms >= 0.0, "{work:?}: {predicted:?}");
        }
    }
}

#[test]
fn always_the_same_work_is_learnt_as_well() {
    let (mut shared, mut one) = (Shared::default(), Predictor::default());
    let work = Work { tokens: 500.0, attention: 125_000.0, own_tokens: 500.0, ..Work::default() };
    for _ in 0..5_000 {
        one.observe_first(&mut shared, &work, Duration::from_millis(40), Now::ZERO);
    }
    let predicted = one.predict(&shared, &work, Now::ZERO).first_ms;
    assert!((38.0..42.0).contains(&predicted), "{predicted}");
}
