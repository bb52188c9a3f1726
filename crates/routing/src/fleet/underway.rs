//! What a deployment has to do for what was sent there from here, and what others are likely to have sent it.

use super::{Deployment, Fleet, Permit};
use crate::engine::EngineLoad;
use crate::facts::Facts;
use crate::flow::Usage;
use crate::predict::{Mistake, Work, attention};
use crate::prefix::Match;
use crate::room::Room;
use crate::strategy::{Reads, View};
use crate::time::Now;

/// The least that is thought to be left of prompts whose first content has not come.
const LEFT_MIN: f64 = 0.1;
/// Of the requests that an engine runs for others, those whose prompt it is still computing.
const OTHERS_PREFILLING: f64 = 0.15;
/// Output tokens after the first below which their time says little.
const TOKENS_TELLING: u64 = 8;
/// How fast the usual size of requests follows.
const USUAL: f64 = 1.0 / 64.0;

/// What one request adds to it; counted when its permit is taken, and off again when it is given back.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    pub(crate) cached: Match,
    /// Prompt tokens to compute.
    uncached: u32,
    /// Tokens that it is likely to have when it ends, in and out, cached ones not counted.
    expected: u32,
    /// All of its tokens as it decodes.
    context: u32,
    /// It went to its home, which was not known to have anything of it.
    at_home: bool,
    /// It has to wait for room: its time to the first token does not say how fast prompts are computed.
    waits: bool,
    /// What the deployment had to do, this included, when it was sent there, and since it decodes.
    work: [f32; 4],
}

/// Who knows less than this part of a prompt to be cached, one in so many, relies on its home.
const KNOWN_ONE_IN: u32 = 8;

impl Share {
    fn attention(&self) -> u64 {
        attention(self.cached.tokens, self.uncached)
    }
}

/// What a deployment has to do.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Underway {
    pub(crate) tokens_prefilling: u64,
    attention: u64,
    prefilling: u32,
    pub(crate) decoding: u32,
    pub(crate) tokens_decoding: u64,
    pub(crate) tokens_expected: u64,
    /// Time that was spent on prompts that are not done yet, seconds, up to when.
    worked_s: f64,
    worked_at: Now,
    /// What others had in flight there when its engine said so last.
    others: Others,
    /// Usual tokens to compute of a request, and usual tokens of one that decodes.
    usual: Option<(f64, f64)>,
}

/// What an engine does for others.
#[derive(Debug, Clone, Copy, Default)]
struct Others {
    waiting: f64,
    running: f64,
}

impl Underway {
    fn start(&mut self, share: &Share, now: Now) {
        if self.prefilling == 0 {
            (self.worked_s, self.worked_at) = (0.0, now);
        }
        self.prefilling += 1;
        self.tokens_prefilling += u64::from(share.uncached);
        self.attention += share.attention();
        self.tokens_expected += u64::from(share.expected);
        let (tokens, context) = (f64::from(share.uncached), f64::from(share.context));
        let usual = self.usual.get_or_insert((tokens, context));
        usual.0 += (tokens - usual.0) * USUAL;
        usual.1 += (context - usual.1) * USUAL;
    }

    fn decode(&mut self, share: &Share) {
        self.decoding += 1;
        self.tokens_decoding += u64::from(share.context);
    }

    /// A prompt is computed, or given up.
    fn end_prefill(&mut self, share: &Share) {
        debug_assert!(self.prefilling > 0, "no prompt is counted off twice");
        self.prefilling = self.prefilling.saturating_sub(1);
        self.tokens_prefilling = self.tokens_prefilling.saturating_sub(u64::from(share.uncached));
        self.attention = self.attention.saturating_sub(share.attention());
    }

    fn end_decode(&mut self, share: &Share) {
        debug_assert!(self.decoding > 0, "no answer is counted off twice");
        self.decoding = self.decoding.saturating_sub(1);
        self.tokens_decoding = self.tokens_decoding.saturating_sub(u64::from(share.context));
    }

    /// Whether nothing is counted.
    pub(crate) fn is_clear(&self) -> bool {
        self.tokens_prefilling == 0
            && self.attention == 0
            && self.prefilling == 0
            && self.decoding == 0
            && self.tokens_decoding == 0
            && self.tokens_expected == 0
    }

    /// The engine said how it is: what of that is not from here is from others.
    pub(super) fn note_engine(&mut self, load: &EngineLoad) {
        let (running, waiting) = (f64::from(load.running.unwrap_or(0)), f64::from(load.waiting.unwrap_or(0)));
        // Of those that wait some are from here: in proportion.
        let share = f64::from(load.foreign.unwrap_or(0)) / (running + waiting).max(1.0);
        self.others = Others { waiting: waiting * share, running: running * share };
    }

    /// What there is to do by now, prompts as far as they are likely to be worked off. `prefill_s`: how long it takes to
    /// compute what is given.
    fn work(&self, now: Now, prefill_s: impl Fn(f64, f64) -> f64, believed: bool) -> Work {
        let (tokens, attention) = (self.tokens_prefilling as f64, self.attention as f64);
        let mut left = 1.0;
        if self.prefilling > 0 {
            let worked = self.worked_s + (now - self.worked_at).as_secs_f64();
            left = (1.0 - worked / prefill_s(tokens, attention).max(1e-6)).clamp(LEFT_MIN, 1.0);
        }
        let mut work = Work {
            tokens: tokens * left,
            attention: attention * left,
            decoding: f64::from(self.decoding),
            tokens_decoding: self.tokens_decoding as f64,
            ..Work::default()
        };
        if let (Some((tokens, context)), true) = (self.usual, believed) {
            let Others { waiting, running } = self.others;
            let prefilling = waiting + running * OTHERS_PREFILLING;
            work.tokens += prefilling * tokens;
            work.attention += prefilling * tokens * tokens / 2.0;
            work.decoding += running * (1.0 - OTHERS_PREFILLING);
            work.tokens_decoding += running * (1.0 - OTHERS_PREFILLING) * context;
        }
        work
    }
}

impl Deployment {
    fn work(&self, shared: &crate::predict::Shared, now: Now) -> Work {
        let believed = self.engine.load(now).running.is_some();
        let prefill_s = |tokens: f64, attention: f64| self.predictor.prefill_s(shared, tokens, attention);
        self.underway.work(now, prefill_s, believed)
    }
}

fn with_own(mut work: Work, facts: &Facts, cached: u32) -> Work {
    let uncached = facts.tokens_in_estimate.saturating_sub(cached);
    (work.own_tokens, work.own_attention) = (f64::from(uncached), attention(cached, uncached) as f64);
    work.tokens += work.own_tokens;
    work.attention += work.own_attention;
    work
}

impl Fleet {
    /// What is known of engines' times is wrong from now on: for experiments that ask what that costs.
    pub fn mistake_times(&mut self, mistake: Mistake) {
        for model in self.models.values_mut() {
            model.tiers.values_mut().for_each(|tier| tier.shared.mistake(mistake));
        }
        for (nth, deployment) in self.deployments.values_mut().enumerate() {
            deployment.predictor.mistake(mistake, nth);
        }
    }

    /// Fills in what a strategy asks for beyond what is always known.
    pub(crate) fn fill(&mut self, facts: &Facts, tier: u32, reads: Reads, eligible: &mut [View], now: Now) {
        if reads == Reads::NOTHING {
            return;
        }
        let Some(model) = self.models.get_mut(facts.model) else { return };
        let out = model.outputs.of(facts) as f64;
        let Some(tier) = model.tiers.get_mut(&tier) else { return };
        for view in &mut *eligible {
            let Some(deployment) = self.deployments.get(view.id) else { continue };
            view.latency = deployment.first_content;
            if reads.prefix || reads.prediction {
                view.decoding = deployment.underway.decoding;
                view.tokens_expected = deployment.underway.tokens_expected;
                view.engine = deployment.engine.load(now);
            }
        }
        if reads.prefix && !facts.prefix.is_empty() {
            tier.prefixes.look_up(&facts.prefix, eligible, now);
            tier.homes.expect(facts, eligible);
        }
        if !reads.prediction {
            return;
        }
        let mut last = (usize::MAX, 1.0);
        for view in eligible {
            let Some(deployment) = self.deployments.get(view.id) else { continue };
            view.tokens_cached = view.tokens_cached.min(facts.tokens_in_estimate.saturating_sub(1));
            let work = with_own(deployment.work(&tier.shared, now), facts, view.tokens_cached);
            view.predicted = deployment.predictor.predict(&tier.shared, &work, now);
            let uncached = f64::from(facts.tokens_in_estimate.saturating_sub(view.tokens_cached));
            view.predicted.wait_for(Room::of(&view.engine, uncached, out, view.predicted.token_ms));
            if !view.free {
                if last.0 != deployment.provider {
                    let left = self.providers[deployment.provider].quota_left(&self.credentials, now);
                    last = (deployment.provider, left);
                }
                view.quota_left = last.1;
            }
        }
    }

    /// A permit is taken: what its request adds.
    pub(super) fn start_work(&mut self, permit: &mut Permit, facts: &Facts, now: Now) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        let model = self.models.get_mut(deployment.model);
        let (number, out) = (deployment.spec.tier, model.as_ref().map_or(0, |model| model.outputs.of(facts)));
        let tier = model.and_then(|model| model.tiers.get_mut(&number));
        let mut share = Share::default();
        if let Some(tier) = tier {
            let reads = tier.spec.reads();
            if reads.prefix && !facts.prefix.is_empty() {
                let reported = deployment.engine.report().and_then(|(report, _)| report.kv_capacity_tokens);
                let capacity = (deployment.spec.cache_tokens, reported);
                share.cached = tier.prefixes.note_sent(permit.deployment, &facts.prefix, capacity, now);
            }
            let cached = share.cached.tokens.min(facts.tokens_in_estimate.saturating_sub(1));
            share.cached.tokens = cached;
            share.at_home =
                tier.homes.is_home(permit.deployment) && cached < facts.tokens_in_estimate / KNOWN_ONE_IN;
            if reads.prediction {
                let work = with_own(deployment.work(&tier.shared, now), facts, cached);
                share.work = work.compact();
                let token_ms = deployment.predictor.token_ms(&tier.shared, &work);
                let uncached = work.own_tokens;
                let room = Room::of(&deployment.engine.load(now), uncached, out as f64, token_ms);
                share.waits = room.wait_ms > 0.0;
            }
        }
        share.uncached = facts.tokens_in_estimate - share.cached.tokens.min(facts.tokens_in_estimate);
        let out = u32::try_from(out).unwrap_or(u32::MAX);
        share.expected = share.uncached.saturating_add(out);
        share.context = facts.tokens_in_estimate.saturating_add(out / 2);
        deployment.underway.start(&share, now);
        permit.share = share;
    }

    /// The first content came: from then on it decodes.
    pub(super) fn note_decoding(&mut self, permit: &mut Permit, took: Option<std::time::Duration>, now: Now) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        let model = self.models.get_mut(deployment.model);
        let tier = model.and_then(|model| model.tiers.get_mut(&deployment.spec.tier));
        if let Some(tier) = tier.filter(|tier| tier.spec.reads().prediction) {
            let Deployment { underway, predictor, .. } = deployment;
            // Whoever is computed now was worked on all this time.
            let (tokens, attention) = (f64::from(permit.share.uncached), permit.share.attention() as f64);
            let own = predictor.prefill_s(&tier.shared, tokens, attention);
            underway.worked_s = (underway.worked_s + (now - underway.worked_at).as_secs_f64() - own).max(0.0);
            underway.worked_at = now;
            if let Some(took) = took.filter(|_| !permit.share.waits) {
                predictor.observe_first(&mut tier.shared, &Work::of(permit.share.work), took, now);
            }
            permit.share.work = deployment.work(&tier.shared, now).compact();
        }
        deployment.underway.end_prefill(&permit.share);
        deployment.underway.decode(&permit.share);
    }

    /// The permit is given back: what its request added is counted off, wherever it was.
    pub(super) fn end_work(&mut self, permit: &Permit) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        let (underway, share) = (&mut deployment.underway, &permit.share);
        if permit.first_content.is_some() {
            underway.end_decode(share);
        } else {
            underway.end_prefill(share);
        }
        underway.tokens_expected = underway.tokens_expected.saturating_sub(u64::from(share.expected));
    }

    /// A whole answer came: how fast its tokens did, how many they are, and how much of its prompt was cached.
    pub(super) fn note_answer(&mut self, permit: &Permit, usage: Usage, now: Now) {
        let Some(deployment) = self.deployments.get_mut(permit.deployment) else { return };
        let Some(model) = self.models.get_mut(deployment.model) else { return };
        model.outputs.note(permit.tenant_hash, usage.tokens_out);
        let Some(tier) = model.tiers.get_mut(&deployment.spec.tier) else { return };
        let reads = tier.spec.reads();
        if permit.share.at_home && !usage.estimated {
            tier.homes.note_found(usage.tokens_in_cached as f64 / usage.tokens_in.max(1) as f64);
        }
        if reads.prefix && deployment.spec.cache_tokens.is_none() && !usage.estimated {
            tier.prefixes.note_answer(permit.deployment, permit.share.cached, usage.tokens_in_cached);
        }
        let Some((first_at, Some(_))) = permit.first_content.filter(|_| reads.prediction) else { return };
        let after_first = usage.tokens_out.saturating_sub(1);
        if after_first >= TOKENS_TELLING {
            let each = (now - first_at).div_f64(after_first as f64);
            deployment.predictor.observe_token(&mut tier.shared, &Work::of(permit.share.work), each);
        }
    }

    /// A deployment came back from the dead: nobody can say that it still has anything cached.
    pub(super) fn forget_cached(&mut self, id: crate::ids::DeploymentId, gone: bool) {
        let Some(deployment) = self.deployments.get(id) else { return };
        let tier = deployment.spec.tier;
        if let Some(tier) = self.models.get_mut(deployment.model).and_then(|model| model.tiers.get_mut(&tier))
        {
            tier.prefixes.forget(id, gone);
        }
    }
}
