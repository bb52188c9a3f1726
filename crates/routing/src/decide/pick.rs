//! What is left to choose when the filters are through: the tier's strategy picks.

use crate::catalog::Name;
use crate::decision::{Choice, Decision, Why};
use crate::facts::Facts;
use crate::fleet::{Fleet, Scratch};
use crate::ids::{CredentialId, DeploymentId};
use crate::rng::Rng;
use crate::strategy::{Cx, Reads};

/// Lets the tier's strategy pick; gives the position among the candidates.
pub(super) fn pick(
    fleet: &mut Fleet,
    facts: &Facts,
    decision: &mut Decision,
    scratch: &mut Scratch,
    rng: &mut Rng,
) -> (usize, Why) {
    let tier = decision.tier;
    let reads = fleet.reads(facts.model, tier);
    fleet.fill(facts, tier, reads, &mut scratch.eligible, decision.at);
    let Scratch { eligible, scores, .. } = scratch;
    scores.clear();
    scores.resize(eligible.len(), f64::NAN);
    let mut picked = (0, Why::OnlyOne);
    if let Some(model) = fleet.models.get_mut(facts.model)
        && let Some(tier) = model.tiers.get_mut(&decision.tier)
    {
        decision.strategy = tier.spec.name();
        let mut cx = Cx::new(decision.at, rng, scores, model.outputs.of(facts) as f64);
        let mut pick = tier.strategy.pick(&mut cx, eligible, facts);
        decision.used = cx.used.filter(|_| eligible.len() > 1);
        if let (Some(sticky), Some(key)) = (&model.spec.sticky, facts.session_hash) {
            pick = model.sessions.hold(sticky, key, &cx, eligible, pick);
        }
        picked = (pick.position, if eligible.len() == 1 { Why::OnlyOne } else { pick.why });
    }
    let told = |score: &f64| reads != Reads::NOTHING || !score.is_nan();
    for (view, score) in eligible.iter().zip(&*scores).filter(|(_, score)| told(score)) {
        let candidate = &mut decision.candidates[view.place as usize];
        candidate.score = *score;
        candidate.tokens_cached = view.tokens_cached;
        candidate.hot = view.is_hot();
        if reads.prediction {
            candidate.predicted_ms = view.predicted.first_ms as f32;
        }
    }
    (eligible[picked.0].place as usize, picked.1)
}

pub(super) fn choice(fleet: &Fleet, id: DeploymentId, credential: Option<CredentialId>, why: Why) -> Choice {
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
