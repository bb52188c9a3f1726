//! What would be decided: a request goes the way of every other, up to the moment it would be sent.

use http::HeaderMap;
use pointsman_routing::flow::misfit::OnMismatch;
use pointsman_routing::{Fleet, Rng, decide};
use pointsman_wire::dialect;
use pointsman_wire::openai::error::ErrorBody;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock;
use crate::http::auth::ClientKey;
use crate::http::prepare::prepare;
use crate::snapshot::Snapshot;
use crate::telemetry::record::{compact, decision_json, facts_json};

/// What to assume about a request besides its body and headers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The path it is sent to. Default: /v1/chat/completions.
    pub path: Option<String>,
    /// Who asks. Default: an operator, who may use everything.
    pub tenant: Option<String>,
}

/// Decides a request on a fleet that is a copy (`Live` gives one), and says why.
///
/// # Errors
/// What a client would have been told, when the request does not get as far as routing.
pub fn explain(
    snapshot: &Snapshot,
    fleet: &mut Fleet,
    rng: &mut Rng,
    options: &Options,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Value, ErrorBody> {
    let path = options.path.as_deref().unwrap_or("/v1/chat/completions");
    let (bare, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let (dialect, asked) = dialect::route(bare, query)
        .ok_or_else(|| ErrorBody::malformed(format!("`{path}` is no path that is routed")))?;
    let client = ClientKey::operator(options.tenant.as_deref().unwrap_or("operator"));
    let now = clock::now();
    let mut prepared =
        prepare(snapshot, &client, (dialect, &asked), headers, body, now).map_err(|refused| refused.error)?;
    prepared.facts.deadline = fleet.deadline(&prepared.facts, now);
    let decision = decide(fleet, &prepared.facts, &[], now, rng);
    Ok(json!({
        "model": prepared.model.name,
        "summary": compact(&decision, &snapshot.names),
        "fallbacks": prepared.fallbacks.named.iter().map(|(name, why)| json!({"model": name, "left_out": why})).collect::<Vec<_>>(),
        "answer_checked": prepared.schema.as_ref().and(prepared.model.on_mismatch).map(OnMismatch::name),
        "facts": facts_json(&prepared.facts, now),
        "decision": decision_json(&decision, now, &snapshot.names),
    }))
}
