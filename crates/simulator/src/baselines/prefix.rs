//! Rules that look for the prompt's beginning, re-created from the documentation of those who ship them. They are not
//! their programs; what differs stands at each.

use pointsman_routing::Facts;
use pointsman_routing::decision::Why;
use pointsman_routing::facts::PrefixBlock;
use pointsman_routing::rng::Rng;
use pointsman_routing::strategy::{Cx, Def, FromParams, Pick, Strategy, View};

use super::seen::{Seen, of};
use super::simple::NoOptions;

/// As SGLang's router does with `cache_aware`: the shortest queue if loads differ too much, else where most of the prompt
/// is known, or where least is known if that is too little.
///
/// Thresholds 64 and 1.5 in requests, 0.3 of the prompt, 2^24 tokens per deployment. SGLang counts characters, and
/// forgets by age as well.
#[derive(Debug, Clone, Default)]
pub(super) struct SglangLike {
    seen: Vec<Seen>,
}

/// Its definition.
pub(super) const SGLANG_LIKE: Def = Def::of::<SglangLike>(
    "sglang_like",
    &["sglang"],
    "The shortest queue if loads differ by 64 requests and 1.5 times, else the longest known prefix over 0.3 of the prompt, \
     else where least is known.",
);

impl SglangLike {
    const TOKENS_MAX: u64 = 1 << 24;
    const DIFFER_MIN: u32 = 64;
    const TIMES_MIN: f64 = 1.5;
    const SHARE_MIN: f64 = 0.3;
}

impl FromParams for SglangLike {
    type Params = NoOptions;

    fn from_params(_: NoOptions, _: &mut Rng) -> Self {
        Self::default()
    }
}

impl Strategy for SglangLike {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
        let most = eligible.iter().map(|view| view.inflight).max().unwrap_or(0);
        let least = eligible.iter().map(|view| view.inflight).min().unwrap_or(0);
        let uneven = most - least > Self::DIFFER_MIN && f64::from(most) > f64::from(least) * Self::TIMES_MIN;
        let matched: Vec<u32> = eligible
            .iter()
            .map(|view| of(&mut self.seen, view.place, Self::TOKENS_MAX).matched(&facts.prefix))
            .collect();
        let best = matched.iter().copied().max().unwrap_or(0);
        let position = if uneven {
            cx.min_by(eligible, |view| f64::from(view.inflight))
        } else if f64::from(best) > Self::SHARE_MIN * f64::from(facts.tokens_in_estimate) {
            matched.iter().position(|tokens| *tokens == best).unwrap_or(0)
        } else {
            let seen = &self.seen;
            cx.min_by(eligible, |view| seen[view.place as usize].tokens() as f64)
        };
        of(&mut self.seen, eligible[position].place, Self::TOKENS_MAX).note(&facts.prefix);
        let view = &eligible[position];
        Pick {
            position,
            why: Why::FewestInFlight { inflight: view.inflight, load: f64::from(view.inflight) },
        }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}

/// As llm-d's scheduler does: the highest of twice the share of the prompt that is known, how short the queue is beside
/// the others', and how free the KV cache is.
///
/// The first 4,096 tokens of a prompt are looked at, and 500,000 tokens per deployment remembered (256 and 31,250 blocks
/// of 16). Queue and cache are the engine's last report with what was sent since, which llm-d does not add.
#[derive(Debug, Clone, Default)]
pub(super) struct LlmdLike {
    seen: Vec<Seen>,
}

/// Its definition.
pub(super) const LLMD_LIKE: Def = Def::of::<LlmdLike>(
    "llmd_like",
    &["llmd", "llm_d_like"],
    "The highest of 2 x known share of the first 4,096 tokens, 1 x how short its queue is, 1 x how free its KV cache is.",
);

impl LlmdLike {
    const TOKENS_MAX: u64 = 500_000;
    const PREFIX_TOKENS_MAX: u32 = 4_096;
}

impl FromParams for LlmdLike {
    type Params = NoOptions;

    fn from_params(_: NoOptions, _: &mut Rng) -> Self {
        Self::default()
    }
}

/// What waits at a deployment, as its engine said.
fn queue(view: &View) -> f64 {
    f64::from(view.engine.waiting.unwrap_or(view.inflight))
}

impl Strategy for LlmdLike {
    fn pick(&mut self, cx: &mut Cx<'_>, eligible: &[View], facts: &Facts) -> Pick {
        let seen_of = facts.prefix.iter().take_while(|block| block.tokens <= Self::PREFIX_TOKENS_MAX).count();
        let prefix: &[PrefixBlock] = &facts.prefix[..seen_of];
        let whole = prefix.last().map_or(0, |block| block.tokens);
        let last = eligible.iter().map(|view| view.place).max().unwrap_or(0);
        of(&mut self.seen, last, Self::TOKENS_MAX);
        let most = eligible.iter().map(queue).fold(0.0, f64::max);
        let least = eligible.iter().map(queue).fold(f64::INFINITY, f64::min);
        let seen = &self.seen;
        let score = |view: &View| {
            let known = f64::from(seen[view.place as usize].matched(prefix)) / f64::from(whole.max(1));
            let short = if most > least { (most - queue(view)) / (most - least) } else { 1.0 };
            let free = 1.0 - f64::from(view.engine.kv_used.unwrap_or(0.0));
            -(2.0 * known + short + free)
        };
        let position = cx.min_by(eligible, score);
        of(&mut self.seen, eligible[position].place, Self::TOKENS_MAX).note(prefix);
        let view = &eligible[position];
        Pick { position, why: Why::FewestInFlight { inflight: view.inflight, load: queue(view) } }
    }

    fn clone_box(&self) -> Box<dyn Strategy> {
        Box::new(self.clone())
    }
}
