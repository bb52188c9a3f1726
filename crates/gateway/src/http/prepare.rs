//! From a request's head and body to what routing needs: parse and validate, then gather the facts.

use std::sync::Arc;

use http::HeaderMap;
use pointsman_routing::catalog::{Capabilities, Name};
use pointsman_routing::facts::PrefixBlock;
use pointsman_routing::{Facts, Now};
use pointsman_wire::dialect::{Asked, CLIENTS, ClientDef, Elsewhere};
use pointsman_wire::ollama::models::without_latest;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{BodyLimits, Operation, Request};
use pointsman_wire::openai::rules;
use pointsman_wire::tasks::{Task, multipart};

use super::auth::ClientKey;
use super::fallback::{self, Fallbacks};
use super::form;
use super::hints;
use super::route::printable;
use crate::snapshot::{Model, Snapshot};
use crate::structured::{self, Schema};

/// A request that is valid and may be routed.
pub struct Prepared {
    /// What was understood of the body, and where it lies.
    pub request: Box<Request>,
    /// The model it is for.
    pub model: Arc<Model>,
    /// What routing needs to know.
    pub facts: Facts,
    /// Other models it names.
    pub fallbacks: Fallbacks,
    /// What its answer is held to, where the model's answers are checked.
    pub schema: Option<Arc<Schema>>,
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
    let config = &snapshot.config.limits;
    let request = match asked.operation {
        Operation::Task(task) if task.is_multipart() => {
            let limits = form::part_limits(config, body.len() as u64);
            multipart::read(task, form::content_type(headers), body, limits).map(Box::new)?
        }
        Operation::Chat
        | Operation::Completion
        | Operation::Task(_)
        | Operation::Embedding
        | Operation::Infer
        | Operation::Response => {
            let limits = BodyLimits {
                depth_max: config.json_depth_max,
                messages_max: config.messages_max,
                ..BodyLimits::default()
            };
            (dialect.read)(asked, body, &limits, client.tenant_hash).map(Box::new)?
        }
    };
    prepare_read(snapshot, client, (dialect, asked), headers, (request, body), now)
}

/// The same for a request whose body is understood already; of one that is still on its way `body` is what is there.
pub fn prepare_read(
    snapshot: &Snapshot,
    client: &ClientKey,
    (dialect, asked): (&ClientDef, &Asked),
    headers: &HeaderMap,
    (mut request, body): (Box<Request>, &[u8]),
    now: Now,
) -> Result<Prepared, Refused> {
    if request.model.is_empty() {
        request.model = only_model(snapshot, client, request.operation)?;
    }
    let model = find_model(snapshot, client, &request.model)?;
    let of_model = |error: ErrorBody| Refused { error, model: Some(Name::clone(&model.name)) };
    rules::validate(&request, &model.rules).map_err(|invalid| of_model(invalid.into()))?;
    let schema = match model.on_mismatch {
        Some(_) => structured::read(dialect, asked, &request, body).map_err(of_model)?.map(Arc::new),
        None => None,
    };
    let fallbacks = fallback::read(snapshot, client, headers, &request, &model).map_err(of_model)?;
    let hints = hints::read(headers, client, now).map_err(of_model)?;
    let (lane, class) = hints::rank(&hints, client, &model);
    let facts = Facts {
        model: model.id,
        version: request.version.as_deref().map(Into::into),
        needs: needs(&request, dialect, asked),
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
        pinned: None,
        tags: hints.tags,
        deadline: hints.deadline,
    };
    Ok(Prepared { request, model, facts, fallbacks, schema })
}

/// The model of that name, if the client may use it.
///
/// A model that exists but is not allowed is told apart from one that does not: the names of models are no secret
/// between the tenants of one team, and a wrong answer would send its reader looking in the wrong place.
pub fn find_model(snapshot: &Snapshot, client: &ClientKey, name: &str) -> Result<Arc<Model>, ErrorBody> {
    let known = snapshot.models.get(name).or_else(|| snapshot.models.get(without_latest(name)));
    let model = known.ok_or_else(|| ErrorBody::model_not_found(&printable(name)))?;
    if !client.may_use(&model.name) {
        return Err(ErrorBody::model_not_allowed(&printable(name)));
    }
    Ok(Arc::clone(model))
}

/// The model of a request that names none, where its dialect lets it: the only one that lists such requests.
fn only_model(snapshot: &Snapshot, client: &ClientKey, operation: Operation) -> Result<String, ErrorBody> {
    let listing = snapshot.config.models_listing(ability(operation)).filter(|name| client.may_use(name));
    let listing: Vec<&str> = listing.collect();
    match listing.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err("name the model to use".to_owned()),
        [one, other, ..] => Err(format!("name the model to use, such as `{one}` or `{other}`")),
    }
    .map_err(|what| ErrorBody::malformed(format!("`model` is missing; {what}")).with_param("model"))
}

/// The prompt's beginnings. Of a short one there are none, and nothing is allocated.
fn prefix(request: &Request) -> Arc<[PrefixBlock]> {
    if request.prefix.is_empty() {
        return Arc::default();
    }
    request.prefix.iter().map(|block| PrefixBlock { tokens: block.tokens, hash: block.hash }).collect()
}

/// What a deployment must be able to do for an operation.
const fn ability(operation: Operation) -> Capabilities {
    match operation {
        Operation::Chat => Capabilities::CHAT,
        Operation::Completion => Capabilities::COMPLETIONS,
        Operation::Task(Task::Rerank) => Capabilities::RERANK,
        Operation::Task(Task::Moderation) => Capabilities::MODERATIONS,
        Operation::Task(Task::ImageGeneration | Task::ImageEdit) => Capabilities::IMAGES,
        Operation::Task(Task::Speech) => Capabilities::SPEECH,
        Operation::Task(Task::Transcription | Task::Translation) => Capabilities::TRANSCRIPTIONS,
        Operation::Embedding => Capabilities::EMBEDDINGS,
        Operation::Infer => Capabilities::INFER,
        Operation::Response => Capabilities::ANSWERS,
    }
}

fn needs(request: &Request, dialect: &ClientDef, asked: &Asked) -> Capabilities {
    let kept = request.operation == Operation::Response && request.needs_keeper();
    let base = if kept { Capabilities::RESPONSES } else { ability(request.operation) };
    // What cannot be turned into another dialect needs a provider that speaks the client's.
    let turned = matches!(asked.operation, Operation::Chat | Operation::Response);
    let own = !turned || asked.elsewhere != Elsewhere::Converted || request.needs_keeper();
    let place = CLIENTS.iter().position(|client| *client == dialect).and_then(|at| u32::try_from(at).ok());
    let base = place.filter(|_| own).map_or(base, |place| base.with(Capabilities::own(place)));
    [
        (request.needs.tools, Capabilities::TOOLS),
        (request.needs.vision, Capabilities::VISION),
        (request.needs.json_schema, Capabilities::JSON_SCHEMA),
    ]
    .into_iter()
    .filter(|(needed, _)| *needed)
    .fold(base, |all, (_, one)| all.with(one))
}
