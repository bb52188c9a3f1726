//! The choice for one attempt: arm, filters with *why not*, tier, region, strategy, credential.

use std::time::Duration;

use crate::catalog::{Capabilities, RegionSpec};
use crate::decision::{Candidate, Decision, Outcome, Rejection, WhyNot};
use crate::facts::{Facts, Lane};
use crate::fleet::credential::{Turn, earlier};
use crate::fleet::deployment::Metered;
use crate::fleet::{Deployment, Fleet, Permit, Scratch, tokens_of};
use crate::health::Passage;
use crate::ids::{Arrival, CredentialId, DeploymentId};
use crate::limits::{CONNECT_DECAY, RETRY_AFTER_MIN, SPEED_BELIEVED};
use crate::recover;
use crate::rng::Rng;
use crate::split;
use crate::time::Now;

mod pick;
mod ready;
mod wanted;

use pick::{choice, pick};
pub use ready::readiness;
use wanted::{Keeper, Wanted, left_ns};

/// What a request has behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past<'a> {
    pub(crate) came: Arrival,
    /// Deployments where earlier attempts failed.
    pub(crate) tried: &'a [DeploymentId],
}

/// Decides one attempt of a request. When a deployment is chosen its permit is taken and belongs to the fleet's copy of
/// the decision's flow; use [`Flow`](crate::Flow), which gives it back, rather than this, for anything that is sent.
///
/// `tried` are deployments where earlier attempts failed. O(n) in the deployments of the model; at most 2 µs at 64.
pub fn decide(fleet: &mut Fleet, facts: &Facts, tried: &[DeploymentId], now: Now, rng: &mut Rng) -> Decision {
    let past = Past { came: fleet.next_arrival(), tried };
    let (decision, permit) = decide_with_permit(fleet, facts, past, now, rng);
    if let Some(permit) = permit {
        fleet.release(permit, crate::fleet::Ended::Unused, now, rng);
    }
    decision
}

/// The same, for a flow, which holds the permit.
pub(crate) fn decide_with_permit(
    fleet: &mut Fleet,
    facts: &Facts,
    past: Past<'_>,
    now: Now,
    rng: &mut Rng,
) -> (Decision, Option<Permit>) {
    let account = fleet.arrive(facts, now, rng);
    match choose(fleet, facts, past.tried, now, rng) {
        Evaluation::Chosen(decision, permit) => {
            fleet.note_walked_past(facts.lane, permit.deployment());
            (decision, Some(permit))
        }
        Evaluation::Rejected(decision) => (decision, None),
        Evaluation::Full(mut decision) => {
            decision.outcome = fleet.join_queue(facts, (past, &decision), account, now, rng);
            (decision, None)
        }
    }
}

/// What came out of looking at all deployments.
#[expect(
    clippy::large_enum_variant,
    reason = "taken apart at once; a box would be allocated with every request"
)]
pub(crate) enum Evaluation {
    /// One was chosen and its permit taken.
    Chosen(Decision, Permit),
    /// All that could serve are full.
    Full(Decision),
    /// None can serve.
    Rejected(Decision),
}

/// Looks at all deployments and picks one, without queueing.
pub(crate) fn choose(
    fleet: &mut Fleet,
    facts: &Facts,
    tried: &[DeploymentId],
    now: Now,
    rng: &mut Rng,
) -> Evaluation {
    let mut decision = Decision::none(now);
    fleet.evaluations += 1;
    let Some(model) = fleet.models.get(facts.model) else { return Evaluation::Rejected(decision) };
    decision.strategy = model.spec.strategy.name();
    decision.arm = model.spec.split.as_ref().and_then(|split| split::arm(split, facts, rng));
    let mut scratch = std::mem::take(&mut fleet.scratch);
    filter(fleet, facts, tried, &mut decision, &mut scratch, rng);
    let can_serve =
        |candidate: &Candidate| candidate.why_not.is_none_or(|why| why.is_full() || why == WhyNot::Ramping);
    if decision.arm.is_some() && !decision.candidates.iter().any(can_serve) {
        // An arm that cannot serve must not fail its requests; the others serve them, and the record shows it.
        decision.arm = None;
        filter(fleet, facts, tried, &mut decision, &mut scratch, rng);
    }
    let looked = recover::look(fleet, facts, tried, &decision, &scratch, rng);
    if looked.is_none() && scratch.eligible.is_empty() {
        recover::rescue(fleet, facts, &mut decision, &mut scratch);
    }
    let evaluation = if looked.is_none() && scratch.eligible.is_empty() {
        none_eligible(decision, facts.pinned.is_some(), now)
    } else {
        let (position, why) = match looked {
            Some((position, why)) => {
                decision.candidates[position].why_not = None;
                decision.tier = decision.candidates[position].tier;
                (position, why)
            }
            None => {
                narrow(fleet, facts, &mut decision, &mut scratch, rng);
                pick(fleet, facts, &mut decision, &mut scratch, rng)
            }
        };
        let id = decision.candidates[position].deployment;
        let credential = take_credential(fleet, id, facts, now);
        let permit = fleet.take(id, credential, facts, now);
        decision.outcome = Outcome::Chosen(choice(fleet, id, credential, why));
        Evaluation::Chosen(decision, permit)
    };
    fleet.scratch = scratch;
    evaluation
}

/// Holds every deployment of the model to the request; the first thing that speaks against it is its *why not*. What
/// nothing speaks against is gathered as the strategies see it.
fn filter(
    fleet: &Fleet,
    facts: &Facts,
    tried: &[DeploymentId],
    decision: &mut Decision,
    scratch: &mut Scratch,
    rng: &mut Rng,
) {
    let Some(model) = fleet.models.get(facts.model) else { return };
    // One draw for all that are on a ramp, and only if there is one.
    let (now, mut drawn) = (decision.at, None);
    let keeper = facts.pinned.map(|pin| Keeper { provider: fleet.provider_of_pin(pin) });
    let wanted = Wanted::new(facts, decision.arm.as_ref(), keeper, now);
    scratch.clear();
    decision.candidates.clear();
    decision.candidates.reserve_exact(model.deployments.len());
    // Deployments of one provider share its credentials, and mostly stand together.
    let mut last_provider = (usize::MAX, Ok(()));
    for id in &model.deployments {
        let Some(deployment) = fleet.deployments.get(*id) else { continue };
        if last_provider.0 != deployment.provider {
            let usable = fleet.credential_for(deployment.provider, facts, now);
            last_provider = (deployment.provider, usable);
        }
        let (place, credential) = (decision.candidates.len(), last_provider.1);
        decision.candidates.push(Candidate::of(*id, deployment, facts.lane, now));
        let plain = tried.is_empty() && credential.is_ok() && is_plain(deployment, &wanted, facts.lane, now);
        debug_assert!(
            !plain || against(deployment, &wanted, false, Passage::Free, credential, now).is_none(),
            "what is plain has nothing against it"
        );
        if plain {
            scratch.admit(deployment.view(*id, place, facts.lane, now), deployment.spec.tier);
            continue;
        }
        let passage = deployment.health(facts.lane).passage(&model.spec.health, now);
        let mut why_not = against(deployment, &wanted, tried.contains(id), passage, credential, now)
            .or_else(|| fleet.no_room(deployment, facts.lane, tokens_of(facts), now));
        match passage {
            Passage::Ramp(share) if why_not.is_none() => {
                let left_out = *drawn.get_or_insert_with(|| rng.unit()) >= share;
                why_not = left_out.then_some(WhyNot::Ramping);
            }
            // Who failed elsewhere already has had its share of bad luck.
            Passage::Probe if why_not.is_none() && !tried.is_empty() => why_not = Some(WhyNot::Probing),
            Passage::Probe if why_not.is_none() => drop(scratch.probe.get_or_insert(place)),
            Passage::Free
            | Passage::Ramp(_)
            | Passage::Probe
            | Passage::FailedUntil(_)
            | Passage::Probing => {}
        }
        match why_not {
            None => scratch.admit(deployment.view(*id, place, facts.lane, now), deployment.spec.tier),
            Some(why) => {
                scratch.failed |= matches!(why, WhyNot::Failed { .. });
                decision.candidates[place].why_not = why_not;
            }
        }
    }
}

impl Candidate {
    /// A deployment that nothing speaks against so far.
    #[inline]
    fn of(id: DeploymentId, deployment: &Deployment, lane: Lane, now: Now) -> Self {
        Self {
            deployment: id,
            tier: deployment.spec.tier,
            score: f64::NAN,
            why_not: None,
            slow: deployment.slow(lane, now) as f32,
            tokens_cached: 0,
            predicted_ms: f32::NAN,
            hot: false,
            inflight: deployment.inflight,
            limit: deployment.limiter.limit(),
            reported: deployment.engine.reported(),
            heard: deployment.heard,
        }
    }
}

/// Whether nothing at all speaks against a deployment, as is usual: the same conditions as in [`against`], without the
/// reasons, so that the loop over deployments stays small.
#[inline]
fn is_plain(deployment: &Deployment, wanted: &Wanted<'_>, lane: Lane, now: Now) -> bool {
    let spec = &deployment.spec;
    wanted.asked.is_none()
        && wanted.needs.without(spec.capabilities).is_empty()
        && spec.context_tokens_max.is_none_or(|max| wanted.tokens <= u64::from(max))
        && spec.output_tokens_max.is_none_or(|max| wanted.tokens_out <= max)
        && deployment.health(lane).works()
        && !deployment.is_drained()
        && !deployment.unhealthy
        && deployment.first_content_ns <= wanted.left_ns
        && deployment.cooling_until(lane) <= now
        && deployment.missing.is_none()
        && deployment.metered == Metered::BySlots
        && !deployment.is_full(lane)
}

/// The first thing that speaks against a deployment: that it is not for this request, or takes none now.
#[inline(never)]
fn against(
    deployment: &Deployment,
    wanted: &Wanted<'_>,
    tried: bool,
    passage: Passage,
    credential: Result<(), Option<Now>>,
    now: Now,
) -> Option<WhyNot> {
    let spec = &deployment.spec;
    if let Some(asked) = &wanted.asked
        && let Some(why) = asked.against(deployment)
    {
        return Some(why);
    }
    let missing = wanted.needs.without(spec.capabilities);
    if !missing.is_empty() {
        return Some(WhyNot::Lacks(missing));
    }
    if let Some(context_tokens_max) = spec.context_tokens_max
        && wanted.tokens > u64::from(context_tokens_max)
    {
        return Some(WhyNot::TooLong { context_tokens_max });
    }
    if let Some(output_tokens_max) = spec.output_tokens_max
        && wanted.tokens_out > output_tokens_max
    {
        return Some(WhyNot::OutputTooLong { output_tokens_max });
    }
    if tried {
        return Some(WhyNot::Tried);
    }
    if deployment.is_drained() {
        return Some(WhyNot::Drained);
    }
    if deployment.unhealthy {
        return Some(WhyNot::Unhealthy);
    }
    match passage {
        Passage::Free | Passage::Ramp(_) | Passage::Probe => {}
        Passage::FailedUntil(until) => return Some(WhyNot::Failed { until }),
        Passage::Probing => return Some(WhyNot::Probing),
    }
    if is_too_late(deployment, wanted.left_ns, now) {
        return Some(WhyNot::TooLate);
    }
    let cooling_until = deployment.cooling_until(wanted.lane);
    if now < cooling_until {
        return Some(WhyNot::Cooling { until: cooling_until });
    }
    if let Some(until) = missing_until(deployment, wanted.needs, now) {
        return Some(WhyNot::Missing { until });
    }
    credential.err().map(|until| WhyNot::NoCredential { until })
}

/// Whether less time is left than it takes to its first content. What is known of its speed is believed for a while only,
/// or a slow hour would keep everybody away for ever.
fn is_too_late(deployment: &Deployment, left_ns: u64, now: Now) -> bool {
    deployment.first_content_ns > left_ns && now - deployment.first_content_at < SPEED_BELIEVED
}

/// Until when it is believed not to have the operation, if it said so.
fn missing_until(deployment: &Deployment, needs: Capabilities, now: Now) -> Option<Now> {
    let (what, until) = deployment.missing?;
    (now < until && what.contains(needs.operation())).then_some(until)
}

impl Fleet {
    /// Whether a deployment could be sent a request if its health were no matter.
    pub(crate) fn could_be_sent(&self, id: DeploymentId, facts: &Facts, now: Now) -> bool {
        self.deployments.get(id).is_some_and(|deployment| {
            let credential = self.credential_for(deployment.provider, facts, now);
            self.no_room(deployment, facts.lane, tokens_of(facts), now).is_none()
                && now >= deployment.cooling_until(facts.lane)
                && !is_too_late(deployment, left_ns(facts, now), now)
                && missing_until(deployment, facts.needs, now).is_none()
                && credential.is_ok()
        })
    }

    /// When time alone may let it be sent a request if its health were no matter; `None` if it is not time that is in
    /// the way.
    pub(crate) fn could_be_sent_from(&self, id: DeploymentId, facts: &Facts, now: Now) -> Option<Now> {
        let deployment = self.deployments.get(id)?;
        let credential = self.credential_for(deployment.provider, facts, now).err().flatten();
        let cooling = Some(deployment.cooling_until(facts.lane));
        let times = [cooling, missing_until(deployment, facts.needs, now), credential];
        times.into_iter().flatten().max().filter(|until| *until > now)
    }

    /// Whether one that failed could be sent a request, if it may be looked at before its time: whoever looks must be
    /// able to go elsewhere if it fails again, so not where failing may be billed.
    pub(crate) fn may_be_looked_at(&self, id: DeploymentId, facts: &Facts, now: Now) -> bool {
        let unsure = self.models.get(facts.model).is_some_and(|model| model.spec.retry.unsure);
        self.deployments.get(id).is_some_and(|deployment| {
            let sure = unsure || deployment.spec.free || !deployment.failure_unsure;
            sure && deployment.health(facts.lane).may_be_looked_at(now)
        }) && self.could_be_sent(id, facts, now)
    }
}

fn take_credential(fleet: &mut Fleet, id: DeploymentId, facts: &Facts, now: Now) -> Option<CredentialId> {
    let provider = fleet.deployments.get(id)?.provider;
    let ids = &fleet.providers[provider].credentials;
    let mut turn = Turn::default();
    for (position, id) in ids.iter().enumerate() {
        if facts.pinned.is_some_and(|pin| pin.credential != Some(*id)) {
            continue;
        }
        if let Some(credential) = fleet.credentials.get_mut(*id).filter(|one| one.serves(facts.lane)) {
            turn.offer(position, credential, tokens_of(facts), now);
        }
    }
    let winner = ids[turn.winner().ok()?];
    turn.pay(fleet.credentials.get_mut(winner)?);
    Some(winner)
}

/// Why nothing is eligible, and when something may be.
fn none_eligible(mut decision: Decision, pinned: bool, now: Now) -> Evaluation {
    let candidates = &decision.candidates;
    decision.tier = candidates.iter().map(|candidate| candidate.tier).min().unwrap_or(0);
    let any =
        |test: fn(WhyNot) -> bool| candidates.iter().filter_map(|candidate| candidate.why_not).any(test);
    if any(WhyNot::is_full) {
        return Evaluation::Full(decision);
    }
    let soonest = candidates.iter().filter_map(|candidate| candidate.why_not).fold(None, |soonest, why| {
        // Whoever probes will know within moments.
        let soon = matches!(why, WhyNot::Probing | WhyNot::Unhealthy | WhyNot::Ramping)
            .then(|| now + RETRY_AFTER_MIN);
        earlier(soonest, why.returns_at().or(soon))
    });
    let all = |test: fn(WhyNot) -> bool| !candidates.iter().filter_map(|c| c.why_not).any(|why| !test(why));
    let why = if candidates.is_empty() {
        Rejection::NoDeployment
    } else if pinned && soonest.is_none() {
        Rejection::Pinned
    } else if all(|why| why == WhyNot::OtherVersion) {
        Rejection::NoSuchVersion
    } else if all(|why| matches!(why, WhyNot::OtherVersion | WhyNot::MissingTag)) {
        Rejection::NoSuchTags
    } else if all(|why| matches!(why, WhyNot::OtherVersion | WhyNot::MissingTag | WhyNot::Lacks(_))) {
        Rejection::NotCapable
    } else if all(|why| {
        matches!(
            why,
            WhyNot::OtherVersion
                | WhyNot::MissingTag
                | WhyNot::Lacks(_)
                | WhyNot::TooLong { .. }
                | WhyNot::OutputTooLong { .. }
        )
    }) {
        Rejection::TooLong
    } else if any(|why| why == WhyNot::TooLate) {
        Rejection::TooLate
    } else {
        Rejection::Unavailable
    };
    let retry_after = soonest.map(|until| (until - now).max(Duration::from_millis(1)));
    decision.outcome = Outcome::Rejected { why, retry_after };
    Evaluation::Rejected(decision)
}

/// Leaves eligible only those of the tier to use, and of the best region among them.
fn narrow(fleet: &Fleet, facts: &Facts, decision: &mut Decision, scratch: &mut Scratch, rng: &mut Rng) {
    let candidates = &mut decision.candidates;
    let (first, last) = scratch.tiers;
    let tier = if last > first { recover::tier(candidates, rng) } else { first };
    decision.tier = tier;
    if last > first {
        for candidate in candidates.iter_mut().filter(|c| c.why_not.is_none() && c.tier != tier) {
            let why_not = if candidate.tier < tier { WhyNot::TierWeak } else { WhyNot::LaterTier };
            candidate.why_not = Some(why_not);
        }
        scratch.eligible.retain(|view| candidates[view.place as usize].why_not.is_none());
    }
    let Some(model) = fleet.models.get(facts.model) else { return };
    let spec = &model.spec.region;
    if facts.region.is_none() && spec.order.is_empty() && !spec.by_latency {
        return;
    }
    let now = decision.at;
    let rank =
        |id: DeploymentId| fleet.deployments.get(id).map_or(f64::MAX, |d| region_rank(d, facts, spec, now));
    let best = scratch.eligible.iter().map(|view| rank(view.id)).fold(f64::MAX, f64::min);
    for candidate in candidates.iter_mut().filter(|candidate| candidate.why_not.is_none()) {
        if rank(candidate.deployment) > best {
            candidate.why_not = Some(WhyNot::OtherRegion);
        }
    }
    scratch.eligible.retain(|view| candidates[view.place as usize].why_not.is_none());
}

/// How far away a deployment is: 0 is what the client asked for, then the configured order or the measured connect
/// time of whole regions, then regions nobody named, then deployments without one.
fn region_rank(deployment: &Deployment, facts: &Facts, spec: &RegionSpec, now: Now) -> f64 {
    // Before all that is measured, or it would never be: what is not checked is measured by its requests alone.
    const UNMEASURED: f64 = 0.5;
    const UNNAMED: f64 = 1e9;
    const NOWHERE: f64 = 2e9;
    let Some(region) = &deployment.spec.region else { return NOWHERE };
    if facts.region.as_ref() == Some(region) {
        return 0.0;
    }
    if spec.by_latency {
        // In steps of 10 ms: what is nearer than that is the same place, and noise must not move traffic.
        let measured = deployment.connect.value_ms_over(now, CONNECT_DECAY);
        return measured.map_or(UNMEASURED, |ms| 1.0 + (ms / 10.0).floor());
    }
    spec.order.iter().position(|named| named == region).map_or(UNNAMED, |place| 1.0 + place as f64)
}
