//! The choice for one attempt: arm, filters with *why not*, tier, region, strategy, credential.

use std::time::Duration;

use crate::breaker::Passage;
use crate::catalog::{Name, RegionSpec};
use crate::decision::{Candidate, Choice, Decision, Outcome, Rejection, Why, WhyNot};
use crate::facts::Facts;
use crate::fleet::credential::{Turn, earlier};
use crate::fleet::{Deployment, Fleet, Permit, tokens_of};
use crate::ids::{CredentialId, DeploymentId};
use crate::limits::RETRY_AFTER_MIN;
use crate::rng::Rng;
use crate::split;
use crate::strategy::Cx;
use crate::time::Now;

/// Decides one attempt of a request. When a deployment is chosen its permit is taken and belongs to the fleet's copy of
/// the decision's flow; use [`Flow`](crate::Flow), which gives it back, rather than this, for anything that is sent.
///
/// `tried` are deployments where earlier attempts failed. O(n) in the deployments of the model; at most 2 µs at 64.
pub fn decide(fleet: &mut Fleet, facts: &Facts, tried: &[DeploymentId], now: Now, rng: &mut Rng) -> Decision {
    let (decision, permit) = decide_with_permit(fleet, facts, tried, now, rng);
    if let Some(permit) = permit {
        fleet.release(permit, crate::fleet::Ended::Abandoned, now, rng);
    }
    decision
}

/// The same, for a flow, which holds the permit.
pub(crate) fn decide_with_permit(
    fleet: &mut Fleet,
    facts: &Facts,
    tried: &[DeploymentId],
    now: Now,
    rng: &mut Rng,
) -> (Decision, Option<Permit>) {
    // Those who wait come first: time alone may have made room for them (a breaker that is due, a quota that turned).
    fleet.serve_queue(facts.model, now, rng);
    match choose(fleet, facts, tried, now, rng) {
        Evaluation::Chosen(decision, permit) => (decision, Some(permit)),
        Evaluation::Rejected(decision) => (decision, None),
        Evaluation::Full(mut decision) => {
            decision.outcome = match fleet.enqueue(facts, tried) {
                Some((ticket, ahead)) => Outcome::Queued { ticket, ahead },
                None => Outcome::Rejected { why: Rejection::QueueFull, retry_after: Some(RETRY_AFTER_MIN) },
            };
            (decision, None)
        }
    }
}

/// What came out of looking at all deployments.
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
    let Some(model) = fleet.models.get(facts.model) else { return Evaluation::Rejected(decision) };
    decision.strategy = model.spec.strategy.name();
    decision.arm = model.spec.split.as_ref().and_then(|split| split::arm(split, facts, rng));
    decision.candidates = filter(fleet, facts, tried, decision.arm.as_ref(), now);
    let can_serve = |candidate: &Candidate| matches!(candidate.why_not, None | Some(WhyNot::Full));
    if decision.arm.is_some() && !decision.candidates.iter().any(can_serve) {
        // An arm that cannot serve must not fail its requests; the others serve them, and the record shows it.
        decision.arm = None;
        decision.candidates = filter(fleet, facts, tried, None, now);
    }
    let eligible = decision.candidates.iter().filter(|candidate| candidate.why_not.is_none());
    let Some(tier) = eligible.map(|candidate| candidate.tier).min() else {
        return none_eligible(decision, now);
    };
    decision.tier = tier;
    narrow(fleet, facts, &mut decision, now);
    let (position, why) = pick(fleet, facts, &mut decision, now, rng);
    let id = decision.candidates[position].deployment;
    let credential = take_credential(fleet, id, facts, now);
    let permit = fleet.take(id, credential, facts, now);
    decision.outcome = Outcome::Chosen(choice(fleet, id, credential, why));
    Evaluation::Chosen(decision, permit)
}

/// Holds every deployment of the model to the request; the first thing that speaks against it is its *why not*.
fn filter(
    fleet: &Fleet,
    facts: &Facts,
    tried: &[DeploymentId],
    arm: Option<&Name>,
    now: Now,
) -> Vec<Candidate> {
    let Some(model) = fleet.models.get(facts.model) else { return Vec::new() };
    let mut candidates = Vec::with_capacity(model.deployments.len());
    // Deployments of one provider share its credentials, and mostly stand together.
    let mut last_provider = None;
    for id in &model.deployments {
        let Some(deployment) = fleet.deployments.get(*id) else { continue };
        let why_not = unfit(deployment, facts, arm)
            .or_else(|| tried.contains(id).then_some(WhyNot::Tried))
            .or_else(|| closed(deployment, now))
            .or_else(|| {
                let known = last_provider.filter(|(provider, _)| *provider == deployment.provider);
                let (_, usable) = known.unwrap_or_else(|| {
                    (deployment.provider, usable_credential(fleet, deployment.provider, facts, now))
                });
                last_provider = Some((deployment.provider, usable));
                usable.err().map(|until| WhyNot::NoCredential { until })
            })
            .or_else(|| deployment.is_full().then_some(WhyNot::Full));
        candidates.push(Candidate {
            deployment: *id,
            tier: deployment.spec.tier,
            score: None,
            why_not,
            inflight: deployment.inflight,
            age: deployment.heard.map(|heard| now - heard),
        });
    }
    candidates
}

/// Why the deployment is not for this request, whatever its state.
fn unfit(deployment: &Deployment, facts: &Facts, arm: Option<&Name>) -> Option<WhyNot> {
    let spec = &deployment.spec;
    if facts.version.is_some() && facts.version != spec.version {
        return Some(WhyNot::OtherVersion);
    }
    if facts.tags.iter().any(|tag| !spec.tags.contains(tag)) {
        return Some(WhyNot::MissingTag);
    }
    if arm.is_some() && arm != spec.arm.as_ref() {
        return Some(WhyNot::OtherArm);
    }
    let missing = facts.needs.without(spec.capabilities);
    if !missing.is_empty() {
        return Some(WhyNot::Lacks(missing));
    }
    let wanted = u64::from(facts.tokens_in_estimate) + facts.tokens_out_max.map_or(0, u64::from);
    spec.context_tokens_max
        .filter(|max| wanted > u64::from(*max))
        .map(|context_tokens_max| WhyNot::TooLong { context_tokens_max })
}

/// Why the deployment takes no request now.
fn closed(deployment: &Deployment, now: Now) -> Option<WhyNot> {
    if deployment.is_drained() {
        return Some(WhyNot::Drained);
    }
    if deployment.unhealthy {
        return Some(WhyNot::Unhealthy);
    }
    match deployment.breaker.passage(now) {
        Passage::Free | Passage::Probe => {}
        Passage::OpenUntil(until) => return Some(WhyNot::BreakerOpen { until }),
        Passage::Probing => return Some(WhyNot::Probing),
    }
    (now < deployment.cooling_until).then_some(WhyNot::Cooling { until: deployment.cooling_until })
}

/// Whether the provider has a credential that is usable, or needs none; else the soonest that one is.
fn usable_credential(fleet: &Fleet, provider: usize, facts: &Facts, now: Now) -> Result<(), Option<Now>> {
    let credentials = &fleet.providers[provider].credentials;
    let mut soonest = None;
    for credential in credentials.iter().filter_map(|id| fleet.credentials.get(*id)) {
        match credential.left(tokens_of(facts), now) {
            Ok(_) => return Ok(()),
            Err(until) => soonest = earlier(soonest, until),
        }
    }
    if credentials.is_empty() { Ok(()) } else { Err(soonest) }
}

impl Fleet {
    /// Whether the deployment's provider has a credential that can be used now.
    pub(crate) fn has_usable_credential(&self, deployment: DeploymentId, now: Now) -> bool {
        let provider = self.deployments.get(deployment).map(|deployment| deployment.provider);
        provider.is_some_and(|provider| {
            let credentials = &self.providers[provider].credentials;
            credentials
                .iter()
                .filter_map(|id| self.credentials.get(*id))
                .any(|known| known.left(0, now).is_ok())
        })
    }
}

fn take_credential(fleet: &mut Fleet, id: DeploymentId, facts: &Facts, now: Now) -> Option<CredentialId> {
    let provider = fleet.deployments.get(id)?.provider;
    let ids = &fleet.providers[provider].credentials;
    let mut turn = Turn::default();
    for (position, id) in ids.iter().enumerate() {
        if let Some(credential) = fleet.credentials.get_mut(*id) {
            turn.offer(position, credential, tokens_of(facts), now);
        }
    }
    let winner = ids[turn.winner().ok()?];
    turn.pay(fleet.credentials.get_mut(winner)?);
    Some(winner)
}

/// Why nothing is eligible, and when something may be.
fn none_eligible(mut decision: Decision, now: Now) -> Evaluation {
    let candidates = &decision.candidates;
    decision.tier = candidates.iter().map(|candidate| candidate.tier).min().unwrap_or(0);
    let any =
        |test: fn(WhyNot) -> bool| candidates.iter().filter_map(|candidate| candidate.why_not).any(test);
    if any(|why| why == WhyNot::Full) {
        return Evaluation::Full(decision);
    }
    let soonest = candidates.iter().filter_map(|candidate| candidate.why_not).fold(None, |soonest, why| {
        // Whoever probes will know within moments.
        let soon = matches!(why, WhyNot::Probing | WhyNot::Unhealthy).then(|| now + RETRY_AFTER_MIN);
        earlier(soonest, why.returns_at().or(soon))
    });
    let all = |test: fn(WhyNot) -> bool| !candidates.iter().filter_map(|c| c.why_not).any(|why| !test(why));
    let why = if candidates.is_empty() {
        Rejection::NoDeployment
    } else if all(|why| why == WhyNot::OtherVersion) {
        Rejection::NoSuchVersion
    } else if all(|why| matches!(why, WhyNot::OtherVersion | WhyNot::MissingTag)) {
        Rejection::NoSuchTags
    } else if all(|why| matches!(why, WhyNot::OtherVersion | WhyNot::MissingTag | WhyNot::Lacks(_))) {
        Rejection::NotCapable
    } else if all(|why| {
        matches!(why, WhyNot::OtherVersion | WhyNot::MissingTag | WhyNot::Lacks(_) | WhyNot::TooLong { .. })
    }) {
        Rejection::TooLong
    } else {
        Rejection::Unavailable
    };
    let retry_after = soonest.map(|until| (until - now).max(Duration::from_millis(1)));
    decision.outcome = Outcome::Rejected { why, retry_after };
    Evaluation::Rejected(decision)
}

/// Leaves eligible only those of the chosen tier, and of the best region among them.
fn narrow(fleet: &Fleet, facts: &Facts, decision: &mut Decision, now: Now) {
    let tier = decision.tier;
    for candidate in decision.candidates.iter_mut().filter(|c| c.why_not.is_none() && c.tier != tier) {
        candidate.why_not = Some(WhyNot::LaterTier);
    }
    let Some(model) = fleet.models.get(facts.model) else { return };
    let spec = &model.spec.region;
    if facts.region.is_none() && spec.order.is_empty() && !spec.by_latency {
        return;
    }
    let rank =
        |id: DeploymentId| fleet.deployments.get(id).map_or(f64::MAX, |d| region_rank(d, facts, spec, now));
    let eligible = decision.candidates.iter().filter(|candidate| candidate.why_not.is_none());
    let best = eligible.map(|candidate| rank(candidate.deployment)).fold(f64::MAX, f64::min);
    for candidate in decision.candidates.iter_mut().filter(|candidate| candidate.why_not.is_none()) {
        if rank(candidate.deployment) > best {
            candidate.why_not = Some(WhyNot::OtherRegion);
        }
    }
}

/// How far away a deployment is: 0 is what the client asked for, then the configured order or the measured connect
/// time of whole regions, then regions nobody named, then deployments without one.
fn region_rank(deployment: &Deployment, facts: &Facts, spec: &RegionSpec, now: Now) -> f64 {
    const UNNAMED: f64 = 1e9;
    const NOWHERE: f64 = 2e9;
    let Some(region) = &deployment.spec.region else { return NOWHERE };
    if facts.region.as_ref() == Some(region) {
        return 0.0;
    }
    if spec.by_latency {
        // In steps of 10 ms: what is nearer than that is the same place, and noise must not move traffic.
        return deployment.connect.value_ms(now).map_or(UNNAMED, |ms| 1.0 + (ms / 10.0).floor());
    }
    spec.order.iter().position(|named| named == region).map_or(UNNAMED, |place| 1.0 + place as f64)
}

/// Lets the tier's strategy pick; gives the position among the candidates.
fn pick(fleet: &mut Fleet, facts: &Facts, decision: &mut Decision, now: Now, rng: &mut Rng) -> (usize, Why) {
    let mut scratch = std::mem::take(&mut fleet.scratch);
    scratch.eligible.clear();
    scratch.positions.clear();
    for (position, candidate) in decision.candidates.iter().enumerate().filter(|(_, c)| c.why_not.is_none()) {
        if let Some(deployment) = fleet.deployments.get(candidate.deployment) {
            scratch.eligible.push(deployment.view(candidate.deployment, now));
            scratch.positions.push(position);
        }
    }
    scratch.scores.clear();
    scratch.scores.resize(scratch.eligible.len(), f64::NAN);
    let mut picked = (0, Why::OnlyOne);
    if let Some(model) = fleet.models.get_mut(facts.model)
        && let Some(tier) = model.tiers.get_mut(&decision.tier)
    {
        let spec = model.spec.tier_strategies.get(&decision.tier).unwrap_or(&model.spec.strategy);
        decision.strategy = spec.name();
        let mut cx = Cx { now, rng, scores: &mut scratch.scores };
        let pick = tier.strategy.pick(&mut cx, &scratch.eligible, facts);
        let alone = scratch.eligible.len() == 1;
        picked = (pick.position, if alone { Why::OnlyOne } else { pick.why });
    }
    for (position, score) in scratch.positions.iter().zip(&scratch.scores) {
        decision.candidates[*position].score = Some(*score).filter(|score| score.is_finite());
    }
    let position = scratch.positions[picked.0];
    fleet.scratch = scratch;
    (position, picked.1)
}

fn choice(fleet: &Fleet, id: DeploymentId, credential: Option<CredentialId>, why: Why) -> Choice {
    let deployment = fleet.deployments.get(id);
    let named = credential.and_then(|id| fleet.credentials.get(id));
    Choice {
        deployment: id,
        name: deployment.map_or_else(|| "".into(), |deployment| Name::clone(&deployment.spec.name)),
        provider: deployment.map_or_else(|| "".into(), |deployment| Name::clone(&deployment.spec.provider)),
        credential,
        credential_name: named.map(|credential| Name::clone(&credential.spec.name)),
        why,
    }
}
