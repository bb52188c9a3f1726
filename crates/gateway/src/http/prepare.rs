//! From a request's head and body to what routing needs: parse and validate, then gather the facts.

use std::sync::Arc;

use http::HeaderMap;
use pointsman_routing::catalog::{Capabilities, Name};
use pointsman_routing::facts::PrefixBlock;
use pointsman_routing::{Facts, Now};
use pointsman_wire::dialect::{Asked, ClientDef};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{BodyLimits, Operation, Request};
use pointsman_wire::openai::rules;

use super::auth::ClientKey;
use super::fallback::{self, Fallbacks};
use super::hints;
use super::route::printable;
use crate::snapshot::{Model, Snapshot};

/// A request that is valid and may be routed.
pub struct Prepared {
    /// What was understood of the body, and where it lies.
    pub request: Request,
    /// The model it is for.
    pub model: Arc<Model>,
    /// What routing needs to know.
    pub facts: Facts,
    /// Other models it names.
    pub fallbacks: Fallbacks,
}

/// A request that is not valid.
#[derive(Debug)]
pub struct Refused {
    /// What the client is told.
    pub error: ErrorBody,
    /// The model it is for, if it got so far.
    pub model: Option<Name>,
}

impl<E: Into<ErrorBody>> From<E> for Refused {
    fn from(error: E) -> Self {
        Self { error: error.into(), model: None }
    }
}

/// Parses and validates a request and gathers its facts.
pub fn prepare(
    snapshot: &Snapshot,
    client: &ClientKey,
    (dialect, asked): (&ClientDef, &Asked),
    headers: &HeaderMap,
    body: &[u8],
    now: Now,
) -> Result<Prepared, Refused> {
    let limits = BodyLimits {
        depth_max: snapshot.config.limits.json_depth_max,
        messages_max: snapshot.config.limits.messages_max,
        ..BodyLimits::default()
    };
    let request = (dialect.read)(asked, body, &limits, client.tenant_hash)?;
    of_request(snapshot, client, headers, request, now)
}

/// Validates a request that was read and gathers its facts.
pub fn of_request(
    snapshot: &Snapshot,
    client: &ClientKey,
    headers: &HeaderMap,
    request: Request,
    now: Now,
) -> Result<Prepared, Refused> {
    let model = find_model(snapshot, client, &request.model)?;
    let of_model = |error: ErrorBody| Refused { error, model: Some(Name::clone(&model.name)) };
    rules::validate(&request, &model.rules).map_err(|invalid| of_model(invalid.into()))?;
    let fallbacks = fallback::read(snapshot, client, headers, &request, &model).map_err(of_model)?;
    let hints = hints::read(headers, client, now).map_err(of_model)?;
    let (lane, class) = hints::rank(&hints, client, &model);
    let facts = Facts {
        model: model.id,
        version: request.version.as_deref().map(Into::into),
        needs: needs(&request),
        tokens_in_estimate: request.tokens_in_estimate(),
        tokens_in_min: u32::try_from(request.tokens_in_min).unwrap_or(u32::MAX),
        tokens_out_max: request.tokens_out_max.map(|max| u32::try_from(max).unwrap_or(u32::MAX)),
        stream: request.stream,
        lane,
        tenant: Arc::clone(&client.tenant),
        tenant_hash: client.tenant_hash,
        session_hash: hints.session_hash,
        user_hash: request.user_hash,
        prefix_hash: request.prefix_hash,
        prefix: prefix(&request),
        class,
        objective: hints.objective,
        region: hints.region,
        tags: hints.tags,
        deadline: hints.deadline,
    };
    Ok(Prepared { request, model, facts, fallbacks })
}

/// The model of that name, if the client may use it.
///
/// A model that exists but is not allowed is told apart from one that does not: the names of models are no secret
/// between the tenants of one team, and a wrong answer would send its reader looking in the wrong place.
pub fn find_model(snapshot: &Snapshot, client: &ClientKey, name: &str) -> Result<Arc<Model>, ErrorBody> {
    let model = snapshot.models.get(name).ok_or_else(|| ErrorBody::model_not_found(&printable(name)))?;
    if !client.may_use(&model.name) {
        return Err(ErrorBody::model_not_allowed(&printable(name)));
    }
    Ok(Arc::clone(model))
}

/// The prompt's beginnings. Of a short one there are none, and nothing is allocated.
fn prefix(request: &Request) -> Arc<[PrefixBlock]> {
    if request.prefix.is_empty() {
        return Arc::default();
    }
    request.prefix.iter().map(|block| PrefixBlock { tokens: block.tokens, hash: block.hash }).collect()
}

fn needs(request: &Request) -> Capabilities {
    let base = match request.operation {
        Operation::Chat => Capabilities::CHAT,
        Operation::Completion => Capabilities::COMPLETIONS,
        Operation::Embedding => Capabilities::EMBEDDINGS,
        Operation::Infer => Capabilities::INFER,
        Operation::Response => Capabilities::RESPONSES,
    };
    [
        (request.needs.tools, Capabilities::TOOLS),
        (request.needs.vision, Capabilities::VISION),
        (request.needs.json_schema, Capabilities::JSON_SCHEMA),
    ]
    .into_iter()
    .filter(|(needed, _)| *needed)
    .fold(base, |all, (_, one)| all.with(one))
}
