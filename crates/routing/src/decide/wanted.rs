//! What a request wants of a deployment, whatever the deployment's state.

use crate::catalog::{Capabilities, DeploymentSpec, Name};
use crate::decision::WhyNot;
use crate::facts::{Facts, Lane};
use crate::fleet::Deployment;
use crate::time::Now;

/// What a request needs of a deployment, whatever its state.
pub(super) struct Wanted<'a> {
    pub(super) asked: Option<Asked<'a>>,
    pub(super) needs: Capabilities,
    pub(super) lane: Lane,
    /// Prompt and output together, at the least.
    pub(super) tokens: u64,
    pub(super) tokens_out: u32,
    /// Time until its deadline, nanoseconds.
    pub(super) left_ns: u64,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(facts: &'a Facts, arm: Option<&'a Name>, keeper: Option<Keeper>, now: Now) -> Self {
        Self {
            asked: Asked::new(facts, arm, keeper),
            needs: facts.needs,
            lane: facts.lane,
            tokens: u64::from(facts.tokens_in_min) + facts.tokens_out_max.map_or(0, u64::from),
            tokens_out: facts.tokens_out_max.unwrap_or(0),
            left_ns: left_ns(facts, now),
        }
    }
}

/// Who keeps what a request names.
#[derive(Clone, Copy)]
pub(super) struct Keeper {
    /// The provider's place; `None` if it is not known any more.
    pub(super) provider: Option<usize>,
}

/// Which deployments a request asks for by name; most do not.
pub(super) struct Asked<'a> {
    /// Who keeps what it names.
    pub(super) keeper: Option<Keeper>,
    pub(super) version: Option<&'a Name>,
    pub(super) tags: &'a [Name],
    pub(super) arm: Option<&'a Name>,
}

impl<'a> Asked<'a> {
    fn new(facts: &'a Facts, arm: Option<&'a Name>, keeper: Option<Keeper>) -> Option<Self> {
        let any = facts.version.is_some() || !facts.tags.is_empty() || arm.is_some() || keeper.is_some();
        any.then(|| Self { keeper, version: facts.version.as_ref(), tags: &facts.tags, arm })
    }

    // Comparing names takes registers that the loop over deployments needs.
    #[inline(never)]
    pub(super) fn against(&self, deployment: &Deployment) -> Option<WhyNot> {
        let spec: &DeploymentSpec = &deployment.spec;
        if self.keeper.is_some_and(|keeper| keeper.provider != Some(deployment.provider)) {
            return Some(WhyNot::OtherAccount);
        }
        if self.version.is_some() && self.version != spec.version.as_ref() {
            return Some(WhyNot::OtherVersion);
        }
        if self.tags.iter().any(|tag| !spec.tags.contains(tag)) {
            return Some(WhyNot::MissingTag);
        }
        (self.arm.is_some() && self.arm != spec.arm.as_ref()).then_some(WhyNot::OtherArm)
    }
}

/// Time until the deadline, nanoseconds.
pub(super) fn left_ns(facts: &Facts, now: Now) -> u64 {
    facts.deadline.map_or(u64::MAX, |at| at.as_nanos().saturating_sub(now.as_nanos()))
}
