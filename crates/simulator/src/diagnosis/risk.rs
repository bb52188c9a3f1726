//! What is at risk, by the figures of a baseline.

use serde::{Deserialize, Serialize};

use super::{Baseline, ModelBaseline};

/// How much is at risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    Low,
    /// Worth a look.
    Medium,
    /// Users see it, or soon will.
    High,
}

impl Level {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Something that may go wrong, and why that is thought.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Risk {
    /// `hot_model_overload`, `slot_imbalance` or `routing_jitter`.
    pub name: &'static str,
    /// The model it is about.
    pub model: String,
    /// How much is at risk.
    pub level: Level,
    /// The figures that speak for it, in words.
    pub evidence: Vec<String>,
    /// What to do about it.
    pub advice: &'static str,
}

/// A figure, from which value on it is worth a look, and from which on it is grave.
struct Sign {
    value: f64,
    medium: f64,
    high: f64,
    says: String,
}

impl Sign {
    fn level(&self) -> Level {
        match self.value {
            value if value >= self.high => Level::High,
            value if value >= self.medium => Level::Medium,
            _ => Level::Low,
        }
    }
}

/// The risks of every model, the worst first.
pub(super) fn rate(baseline: &Baseline) -> Vec<Risk> {
    let mut risks: Vec<Risk> = baseline
        .models
        .iter()
        .flat_map(|(name, model)| [overload(name, model), imbalance(name, model), jitter(name, model)])
        .collect();
    risks.sort_by(|a, b| b.level.cmp(&a.level).then_with(|| a.model.cmp(&b.model)));
    risks
}

fn risk(name: &'static str, model: &str, signs: Vec<Sign>, advice: &'static str) -> Risk {
    let level = signs.iter().map(Sign::level).max().unwrap_or(Level::Low);
    // The signs that made it what it is; where all is well, all of them.
    let evidence = signs.into_iter().filter(|sign| sign.level() == level).map(|sign| sign.says).collect();
    Risk { name, model: model.to_owned(), level, evidence, advice }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn overload(name: &str, model: &ModelBaseline) -> Risk {
    let mut signs = vec![Sign {
        value: model.refused_share,
        medium: 0.000_1,
        high: 0.01,
        says: format!("{} of its requests got no slot", percent(model.refused_share)),
    }];
    if let (Some(mean), Some(high)) = (model.utilisation, model.utilisation_p95) {
        signs.push(Sign {
            value: high,
            medium: 0.75,
            high: 0.95,
            says: format!(
                "{} of its slots in use on average, {} at its busiest",
                percent(mean),
                percent(high)
            ),
        });
        // What is free now must hold what comes when it is as bursty as it was.
        signs.push(Sign {
            value: mean * model.burst,
            medium: 1.0,
            high: f64::INFINITY,
            says: format!("bursts of {:.1} times its average load would not fit its slots", model.burst),
        });
    }
    let (queue_ms, first_ms) = (model.queue_ms.p99, model.first_content_ms.p50);
    if first_ms > 0.0 {
        signs.push(Sign {
            value: queue_ms / first_ms,
            medium: 0.5,
            high: 2.0,
            says: format!(
                "one in a hundred waits {queue_ms:.0} ms or more for a slot, beside {first_ms:.0} ms to the usual first content"
            ),
        });
    }
    risk(
        "hot_model_overload",
        name,
        signs,
        "add slots or deployments, a further tier to spill to, or put batch traffic into its lane",
    )
}

fn imbalance(name: &str, model: &ModelBaseline) -> Risk {
    let mut signs = Vec::new();
    if model.deployments.len() > 1 {
        signs.push(Sign {
            value: model.imbalance,
            medium: 1.5,
            high: 2.5,
            says: format!(
                "the busiest deployment has {:.2} times the load it would have to have (Jain index {:.2})",
                model.imbalance, model.jain
            ),
        });
        signs.push(Sign {
            value: model.idle_while_queued_s,
            medium: 1.0,
            high: 60.0,
            says: format!(
                "requests waited for {:.1} s in all while slots were free",
                model.idle_while_queued_s
            ),
        });
        let apart = model.deployments.iter().map(|(name, one)| (name, one.share - one.share_intended));
        if let Some((deployment, apart)) = apart.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())) {
            signs.push(Sign {
                value: apart.abs(),
                medium: 0.15,
                high: 0.4,
                says: format!(
                    "`{deployment}` gets {} {} of the traffic than its size",
                    percent(apart.abs()),
                    if apart > 0.0 { "more" } else { "less" }
                ),
            });
        }
    }
    risk(
        "slot_imbalance",
        name,
        signs,
        "compare strategies on this traffic with `pointsman simulate --compare`; check weights, slots and affinity",
    )
}

fn jitter(name: &str, model: &ModelBaseline) -> Risk {
    let flaps = model.deployments.iter().filter_map(|(name, one)| Some((name, one.flaps_per_h?)));
    let mut signs = vec![Sign {
        value: model.oscillation,
        medium: 0.2,
        high: 0.5,
        says: format!(
            "the load of its deployments swings with an autocorrelation of {:.2} within 30 s",
            model.oscillation
        ),
    }];
    if let Some((deployment, flaps)) = flaps.max_by(|a, b| a.1.total_cmp(&b.1)) {
        signs.push(Sign {
            value: flaps,
            medium: 2.0,
            high: 12.0,
            says: format!("the health of `{deployment}` changes {flaps:.1} times an hour"),
        });
    }
    risk(
        "routing_jitter",
        name,
        signs,
        "use a strategy that draws (`latency`, `adaptive`) with several routers; look at the history of its health",
    )
}
