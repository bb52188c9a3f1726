//! How deployments that failed are looked at again: by a probe when their time is over, by a rare request before that,
//! on a ramp afterwards, and in panic when too few others can serve.

use crate::decision::{Candidate, Decision, Why, WhyNot};
use crate::facts::Facts;
use crate::fleet::{Fleet, Scratch};
use crate::ids::DeploymentId;
use crate::rng::Rng;

/// Share of requests that look at a failed deployment before its time is over.
const EXPLORED: f64 = 0.01;
/// Share of deployments that must be able to serve; below it those that failed are better than a wait.
const PANIC: f64 = 0.5;
/// Share of a tier that must be able to serve for it to take all requests; below it the rest goes to the next tier
/// (Envoy's priority load, with its overprovisioning factor of 1.4).
const TIER_WHOLE: f64 = 0.72;

/// The deployment that this request looks at, if it is its turn: a probe that is due, or an early look. Only a request
/// that was not sent anywhere yet does: one that failed already has had its share of bad luck.
pub(crate) fn look(
    fleet: &Fleet,
    facts: &Facts,
    tried: &[DeploymentId],
    decision: &Decision,
    scratch: &Scratch,
    rng: &mut Rng,
) -> Option<(usize, Why)> {
    if !tried.is_empty() || (scratch.probe.is_none() && !scratch.failed) {
        return None;
    }
    // No request is sent to a later tier only to look.
    let tier = scratch.tiers.0;
    if let Some(place) = scratch.probe.filter(|place| decision.candidates[*place].tier <= tier) {
        return Some((place, Why::Probed));
    }
    let failed = |candidate: &Candidate| {
        matches!(candidate.why_not, Some(WhyNot::Failed { .. })) && candidate.tier <= tier
    };
    if !scratch.failed || !decision.candidates.iter().any(failed) || rng.unit() >= EXPLORED {
        return None;
    }
    let usable = |candidate: &Candidate| {
        failed(candidate) && fleet.may_be_looked_at(candidate.deployment, facts, decision.at)
    };
    let count = decision.candidates.iter().filter(|candidate| usable(candidate)).count();
    let drawn = rng.below(count);
    let mut usable = decision.candidates.iter().enumerate().filter(|(_, candidate)| usable(candidate));
    usable.nth(drawn).map(|(place, _)| (place, Why::Explored))
}

/// Finds somebody to serve when nobody is eligible as things stand. The last resorts are, in this order: those whose
/// traffic is only coming back, and, while those that work are full and too few, those that failed.
pub(crate) fn rescue(fleet: &Fleet, facts: &Facts, decision: &mut Decision, scratch: &mut Scratch) {
    let any = |why: WhyNot| decision.candidates.iter().any(|candidate| candidate.why_not == Some(why));
    if any(WhyNot::Ramping) {
        let now = decision.at;
        readmit(fleet, facts, decision, scratch, |candidate| {
            candidate.why_not == Some(WhyNot::Ramping)
                && fleet.could_be_sent(candidate.deployment, facts, now)
        });
        return;
    }
    let fit = decision.candidates.iter().filter(|candidate| is_fit(candidate)).count();
    let full =
        decision.candidates.iter().filter(|candidate| candidate.why_not.is_some_and(WhyNot::is_full)).count();
    if full > 0 && (full as f64) < PANIC * fit as f64 {
        let now = decision.at;
        readmit(fleet, facts, decision, scratch, |candidate| {
            matches!(candidate.why_not, Some(WhyNot::Failed { .. }))
                && fleet.could_be_sent(candidate.deployment, facts, now)
        });
        decision.panic = !scratch.eligible.is_empty();
    }
}

fn readmit(
    fleet: &Fleet,
    facts: &Facts,
    decision: &mut Decision,
    scratch: &mut Scratch,
    wanted: impl Fn(&Candidate) -> bool,
) {
    let now = decision.at;
    for (place, candidate) in decision.candidates.iter_mut().enumerate() {
        if wanted(candidate)
            && let Some(deployment) = fleet.deployments.get(candidate.deployment)
        {
            candidate.why_not = None;
            scratch.admit(deployment.view(candidate.deployment, place, facts.lane, now), candidate.tier);
        }
    }
}

/// The tier to use: the first that can serve, or by chance the next, the weaker the first is.
pub(crate) fn tier(candidates: &[Candidate], rng: &mut Rng) -> u32 {
    let next_after = |floor: Option<u32>| {
        let eligible = candidates.iter().filter(|candidate| candidate.why_not.is_none());
        eligible.map(|candidate| candidate.tier).filter(|tier| floor.is_none_or(|floor| *tier > floor)).min()
    };
    let mut tier = next_after(None).unwrap_or(0);
    loop {
        let of_tier = || candidates.iter().filter(|candidate| candidate.tier == tier && is_fit(candidate));
        let able = of_tier().filter(|candidate| candidate.why_not.is_none_or(WhyNot::is_full)).count();
        let share = able as f64 / of_tier().count().max(1) as f64 / TIER_WHOLE;
        if share >= 1.0 {
            return tier;
        }
        let Some(next) = next_after(Some(tier)) else { return tier };
        if rng.unit() < share {
            return tier;
        }
        tier = next;
    }
}

/// Whether a deployment is for this request and not drained, whatever else its state.
fn is_fit(candidate: &Candidate) -> bool {
    candidate.why_not.is_none_or(|why| !why.is_about_the_request() && why != WhyNot::Drained)
}
