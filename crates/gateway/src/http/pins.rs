//! What a request names of what a provider keeps: which account it is of, and so the only one that may serve it.

use pointsman_routing::catalog::Capabilities;
use pointsman_routing::facts::{Lane, Pin};
use pointsman_routing::fleet::NoSoleAccount;
use pointsman_routing::{CredentialId, DeploymentId, ModelId};
use pointsman_settings::Config;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{Kept, KeptKind};

use super::auth::ClientKey;
use super::prepare::Prepared;
use crate::app::App;
use crate::clock;

/// Pins a request to the account that keeps what it names. Most name nothing.
pub fn pin(app: &App, client: &ClientKey, prepared: &mut Prepared) -> Result<(), ErrorBody> {
    if prepared.request.kept.is_empty() {
        return Ok(());
    }
    let mut known: Option<(Pin, &Kept)> = None;
    let mut unknown = None;
    for kept in &prepared.request.kept {
        match app.issued().find(client.tenant_hash, kept.hash, clock::now()) {
            Some(pin) => match known {
                None => known = Some((pin, kept)),
                Some((before, _)) if app.live.lock().fleet.is_same_account(before, pin) => {}
                Some((_, first)) => return Err(of_two_accounts(first, kept)),
            },
            // Who encrypted them is for the provider to tell: it refuses what it cannot read.
            None if kept.kind == KeptKind::Thoughts => {}
            None => unknown = unknown.or(Some(kept)),
        }
    }
    let pin = match (known, unknown) {
        (Some((pin, _)), _) => pin,
        (None, None) => return Ok(()),
        (None, Some(kept)) => {
            let config = &app.snapshot.load().config;
            if kept.kind == KeptKind::Answer && !is_of_one_tenant(config) {
                return Err(never_given(kept));
            }
            let (model, facts) = (prepared.facts.model, &prepared.facts);
            let sole = app.live.lock().fleet.sole_account(&[model], facts.needs, facts.lane);
            sole.map_err(|why| of_no_account(kept, &prepared.model.name, why))?
        }
    };
    prepared.facts.pinned = Some(pin);
    app.metrics.pinned();
    Ok(())
}

/// The account that keeps an answer which is asked for by its id alone.
pub fn keeper(app: &App, client: &ClientKey, id_hash: u64) -> Option<Pin> {
    if let Some(pin) = app.issued().find(client.tenant_hash, id_hash, clock::now()) {
        return Some(pin);
    }
    let snapshot = app.snapshot.load();
    if !is_of_one_tenant(&snapshot.config) {
        return None;
    }
    let models: Vec<ModelId> =
        snapshot.listed(|model| client.may_use(model)).into_iter().map(|model| model.id).collect();
    app.live.lock().fleet.sole_account(&models, Capabilities::RESPONSES, Lane::Live).ok()
}

/// An account by what an attempt used.
pub const fn account(deployment: DeploymentId, credential: Option<CredentialId>) -> Pin {
    Pin { deployment, credential }
}

/// Whether all clients are of one tenant: only then can an id that nobody knows belong to no other.
fn is_of_one_tenant(config: &Config) -> bool {
    let mut tenants = config.auth.keys.iter().map(pointsman_settings::auth::KeyConfig::tenant);
    let first = tenants.next();
    tenants.all(|tenant| Some(tenant) == first)
}

fn refuse(kept: &Kept, code: &'static str, text: String) -> ErrorBody {
    ErrorBody::router(400, "invalid_request_error", code, text).with_param(kept.field.clone())
}

fn never_given(kept: &Kept) -> ErrorBody {
    let field = &kept.field;
    refuse(
        kept,
        "previous_response_not_found",
        format!(
            "`{field}`: this gateway knows of no such id given to you; send the whole conversation instead"
        ),
    )
}

fn of_two_accounts(first: &Kept, other: &Kept) -> ErrorBody {
    let (one, two) = (&first.field, &other.field);
    let text = format!(
        "`{one}` and `{two}` name what different accounts keep, and one request is served by one account; leave one of \
         them out"
    );
    refuse(other, "several_issuers", text)
}

fn of_no_account(kept: &Kept, model: &str, why: NoSoleAccount) -> ErrorBody {
    let field = &kept.field;
    match why {
        NoSoleAccount::Nobody => refuse(
            kept,
            "not_capable",
            format!(
                "`{field}`: no deployment of model `{model}` keeps such things; send what it names itself"
            ),
        ),
        NoSoleAccount::Several => refuse(
            kept,
            "unknown_issuer",
            format!(
                "`{field}`: nothing is known of who issued this id, and model `{model}` has several accounts that could \
                 have; send what it names itself"
            ),
        ),
    }
}
