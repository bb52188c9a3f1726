//! Whether a model can serve, for those who ask before they send anything.

use super::against;
use super::wanted::{Asked, Wanted};
use crate::catalog::{Capabilities, Name};
use crate::decision::WhyNot;
use crate::facts::Lane;
use crate::fleet::Fleet;
use crate::ids::ModelId;
use crate::time::Now;

/// Whether a deployment of the model, of that version if one is asked for, can serve live requests that need so much. One
/// that is full can: it takes them in turn. Otherwise what speaks against the first that is meant at all, if one is.
pub fn readiness(
    fleet: &Fleet,
    model: ModelId,
    version: Option<&Name>,
    needs: Capabilities,
    now: Now,
) -> Result<(), Option<WhyNot>> {
    let Some(model) = fleet.models.get(model) else { return Err(None) };
    let asked = version.map(|version| Asked { version: Some(version), tags: &[], arm: None, keeper: None });
    let wanted = Wanted { asked, needs, lane: Lane::Live, tokens: 0, tokens_out: 0, left_ns: u64::MAX };
    let mut first = None;
    for deployment in model.deployments.iter().filter_map(|id| fleet.deployments.get(*id)) {
        let passage = deployment.health(Lane::Live).passage(&model.spec.health, now);
        let credential = fleet.usable_credential(deployment.provider, Lane::Live, 0, now);
        match against(deployment, &wanted, false, passage, credential, now) {
            None => return Ok(()),
            Some(WhyNot::OtherVersion) => {}
            Some(why) => first = first.or(Some(why)),
        }
    }
    Err(first)
}
