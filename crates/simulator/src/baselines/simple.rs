//! The textbook: in turn, at random, by requests in flight, by peak-sensitive latency, by hash.

use pointsman_routing::Facts;
use pointsman_routing::decision::Why;
use pointsman_routing::rng::Rng;
use pointsman_routing::strategy::{Cx, Def, FromParams, Pick, Reads, Strategy, View};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::workload::mix;

/// Baselines have no options.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NoOptions {}

/// The next in turn, from a random beginning.
#[derive(Debug, Clone)]
struct RoundRobin {
    next: usize,
}

/// Its definition.
pub(super) const ROUND_ROBIN: Def = Def::of::<RoundRobin>(
    "plain_round_robin",
    &["rr"],
    "In turn, from a random beginning, whatever is known of the deployments.",
);

impl FromParams for RoundRobin {
    type Params = NoOptions;
    const READS: Reads = Reads::NOTHING;

    fn from_params(_: NoOptions, rng: &mut Rng) -> Self {
        Self { next: rng.below(1 << 20) }
    }
}

impl Strategy for RoundRobin {
    fn pick(&mut self, _: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
        self.next += 1;
        Pick { position: self.next % eligible.len(), why: Why::NextInTurn }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

/// A strategy without state of its own.
macro_rules! stateless {
    ($type:ident, $pick:ident, $reads:expr) => {
        #[derive(Debug, Clone)]
        struct $type;

        impl FromParams for $type {
            type Params = NoOptions;
            const READS: Reads = $reads;

            fn from_params(_: NoOptions, _: &mut Rng) -> Self {
                Self
            }
        }

        impl Strategy for $type {
            fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
                $pick(cx, eligible, facts)
            }

            fn clone_box(&self) -> Box<dyn Strategy> {
                Box::new(self.clone())
            }
        }
    };
}

stateless!(Random, random, Reads::NOTHING);
stateless!(LeastOutstanding, least_outstanding, Reads::NOTHING);
stateless!(TwoChoices, two_choices, Reads::NOTHING);
stateless!(PeakEwma, peak_ewma, Reads { latency: true, ..Reads::NOTHING });
stateless!(Hash, hash, Reads::NOTHING);
stateless!(HashBounded, hash_bounded, Reads::NOTHING);

/// Any, by chance.
pub(super) const RANDOM: Def = Def::of::<Random>("plain_random", &[], "Any of them, each as likely.");

/// The fewest requests in flight.
pub(super) const LEAST_OUTSTANDING: Def = Def::of::<LeastOutstanding>(
    "least_outstanding",
    &["lor", "jsq"],
    "The fewest requests in flight, ties at random (join the shortest queue).",
);

/// The better of two by requests in flight.
pub(super) const TWO_CHOICES: Def = Def::of::<TwoChoices>(
    "p2c",
    &["two_choices"],
    "Of two drawn at random the one with fewer requests in flight (Mitzenmacher 2001; Envoy's least request).",
);

/// The better of two by peak-sensitive latency.
pub(super) const PEAK_EWMA: Def = Def::of::<PeakEwma>(
    "p2c_peak_ewma",
    &["peak_ewma"],
    "Of two drawn at random the one with the lower peak-sensitive latency times requests in flight (Finagle).",
);

/// Rendezvous hashing.
pub(super) const HASH: Def = Def::of::<Hash>(
    "plain_hash",
    &["rendezvous"],
    "Where the session, or the first two blocks of the prompt, hash to (rendezvous), however loaded that is.",
);

/// The same with bounded load.
pub(super) const HASH_BOUNDED: Def = Def::of::<HashBounded>(
    "hash_bounded",
    &["chwbl"],
    "The same, unless its requests in flight exceed 1.25 times its share; then the next in order (Mirrokni et al. 2018).",
);

/// How far above its share of requests a deployment may be.
const BOUND: f64 = 1.25;

fn random(cx: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
    Pick { position: cx.rng.below(eligible.len()), why: Why::Drawn { weight: 1 } }
}

fn least_outstanding(cx: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
    let position = cx.min_by(eligible, |view| f64::from(view.inflight));
    fewest(eligible, position)
}

fn fewest(eligible: &[View], position: usize) -> Pick {
    let inflight = eligible[position].inflight;
    Pick { position, why: Why::FewestInFlight { inflight, load: f64::from(inflight) } }
}

/// Two that differ, if there are two.
fn two(cx: &mut Cx<'_>, count: usize) -> (usize, usize) {
    let first = cx.rng.below(count);
    (first, if count == 1 { first } else { (first + 1 + cx.rng.below(count - 1)) % count })
}

fn two_choices(cx: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
    let (a, b) = two(cx, eligible.len());
    fewest(eligible, if eligible[b].inflight < eligible[a].inflight { b } else { a })
}

fn peak_ewma(cx: &mut Cx<'_>, eligible: &[View], _: &Facts) -> Pick {
    /// What a deployment that was never heard of counts as once it has something to do, milliseconds.
    const UNKNOWN_MS: f64 = 60_000.0;
    let (a, b) = two(cx, eligible.len());
    let now = cx.now;
    let cost = |view: &View| match view.latency.value_ms(now) {
        Some(ms) => ms * f64::from(view.inflight + 1),
        None => UNKNOWN_MS * f64::from(view.inflight),
    };
    let (score, other) = (cost(&eligible[a]), cost(&eligible[b]));
    let (position, score, other) = if other < score { (b, other, score) } else { (a, score, other) };
    Pick { position, why: Why::LowerLatency { score, other } }
}

/// How far a deployment is from a request: the nearest has it.
fn distance(view: &View, facts: &Facts) -> f64 {
    let first = facts.prefix.first().map(|block| block.hash);
    let key = facts.session_hash.or(facts.prefix_hash).or(first).unwrap_or(facts.tenant_hash);
    mix(key ^ view.name_hash.rotate_left(32)) as f64
}

fn hash(cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
    Pick { position: cx.min_by(eligible, |view| distance(view, facts)), why: Why::Hashed { rank: 0 } }
}

fn hash_bounded(cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
    let all: u32 = eligible.iter().map(|view| view.inflight).sum();
    let most = (BOUND * f64::from(all + 1) / eligible.len() as f64).ceil();
    let far = |view: &View| {
        let over = f64::from(view.inflight + 1) > most;
        // Beyond every distance there is.
        distance(view, facts) + if over { 2.0 * u64::MAX as f64 } else { 0.0 }
    };
    Pick { position: cx.min_by(eligible, far), why: Why::Hashed { rank: 0 } }
}
