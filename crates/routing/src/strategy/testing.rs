//! Views and requests in a few words, for the tests of strategies.

use super::*;
use crate::catalog::{Capabilities, Name};
use crate::facts::Lane;
use crate::ids::ModelId;

/// Views from a line each, such as `weight=2 inflight=3 slots=4`.
pub(crate) fn views(lines: &[&str]) -> Vec<View> {
    let view = |(index, line): (usize, &&str)| {
        let number = |key: &str| -> Option<f64> {
            line.split_whitespace().find_map(|part| part.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
        };
        View {
            id: DeploymentId { index: index as u32, generation: 0 },
            place: index as u32,
            name_hash: crate::rng::hash(format!("d{index}").as_bytes()),
            weight: number("weight").unwrap_or(1.0) as u32,
            slots: number("slots").map(|slots| slots as u32),
            inflight: number("inflight").unwrap_or(0.0) as u32,
            tokens_inflight: number("tokens").unwrap_or(0.0) as u64,
            tokens_cached: number("cached").unwrap_or(0.0) as u32,
            decoding: number("decoding").unwrap_or(0.0) as u32,
            tokens_expected: number("expected").unwrap_or(0.0) as u64,
            predicted: Predicted {
                first_ms: number("first_ms").unwrap_or(0.0),
                first_high_ms: number("first_ms").unwrap_or(0.0) * 1.1,
                token_ms: number("token_ms").unwrap_or(0.0),
                interference_ms: number("interference_ms").unwrap_or(0.0),
                full_ms: number("full_ms").unwrap_or(0.0),
                own_ms: number("own_ms").unwrap_or(0.0),
                known: number("known").is_some(),
                stale: number("stale").is_some(),
            },
            free: number("free").is_some(),
            quota_left: number("quota").unwrap_or(1.0),
            engine: EngineLoad {
                waiting: number("waiting").map(|waiting| waiting as u32),
                running: number("running").map(|running| running as u32),
                kv_used: number("kv_used").map(|used| used as f32),
                kv_capacity_tokens: number("kv_capacity").map(|tokens| tokens as u64),
                foreign: number("foreign").map(|foreign| foreign as u32),
                slots: number("engine_slots").map(|slots| slots as u32),
                ..EngineLoad::default()
            },
            latency: number("latency_ms").map_or_else(PeakEwma::default, |ms| {
                let mut latency = PeakEwma::default();
                latency.observe(Now::ZERO, std::time::Duration::from_secs_f64(ms / 1e3));
                latency
            }),
            failures: number("failures").unwrap_or(0.0),
            penalty: 1.0 + crate::health::uptime_penalty(number("uptime").unwrap_or(1.0)),
            slow: number("slow").unwrap_or(1.0),
        }
    };
    lines.iter().enumerate().map(view).collect()
}

pub(crate) fn facts() -> Facts {
    Facts {
        model: ModelId { index: 0, generation: 0 },
        version: None,
        needs: Capabilities::CHAT,
        tokens_in_estimate: 100,
        tokens_in_min: 100,
        tokens_out_max: Some(100),
        stream: true,
        lane: Lane::Live,
        tenant: Name::from("t"),
        tenant_hash: 1,
        session_hash: None,
        user_hash: None,
        prefix_hash: None,
        prefix: std::sync::Arc::default(),
        class: crate::facts::Class::default(),
        objective: crate::facts::Objective::default(),
        region: None,
        pinned: None,
        tags: smallvec::SmallVec::new(),
        deadline: None,
    }
}

pub(crate) fn pick(strategy: &mut dyn Strategy, rng: &mut Rng, views: &[View], facts: &Facts) -> Pick {
    let mut scores = vec![f64::NAN; views.len()];
    strategy.pick(&mut Cx::new(Now::ZERO, rng, &mut scores, 100.0), views, facts)
}

/// The rule that a strategy says it used.
pub(crate) fn used(strategy: &mut dyn Strategy, views: &[View], facts: &Facts) -> Option<&'static str> {
    let (mut scores, mut rng) = (vec![f64::NAN; views.len()], Rng::seeded(1));
    let mut cx = Cx::new(Now::ZERO, &mut rng, &mut scores, 100.0);
    strategy.pick(&mut cx, views, facts);
    cx.used
}

/// How often each of `views` is picked in `times` picks.
pub(crate) fn counts(strategy: &mut dyn Strategy, views: &[View], times: usize) -> Vec<usize> {
    let mut rng = Rng::seeded(11);
    let mut counts = vec![0; views.len()];
    for _ in 0..times {
        counts[pick(strategy, &mut rng, views, &facts()).position] += 1;
    }
    counts
}
