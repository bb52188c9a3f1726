//! The Open Inference Protocol (KServe v2) at `/v2`: what servers and models say of themselves, and inference requests on
//! their way to the exchange. Its errors are `{"error": "…"}`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method};
use hyper::body::Incoming;
use pointsman_routing::Now;
use pointsman_routing::catalog::{Capabilities, Name};
use pointsman_routing::decide::readiness;
use pointsman_routing::decision::WhyNot;
use pointsman_wire::dialect::Asked;
use pointsman_wire::kserve::answer::{self, Indexed};
use pointsman_wire::kserve::{self, DEF, HEADER_LENGTH, Inference};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{BodyLimits, Operation, Request};

use super::auth::ClientKey;
use super::body::{self, BodyRules};
use super::prepare::{Prepared, Refused, find_model, prepare_read};
use super::route::printable;
use crate::app::App;
use crate::clock;
use crate::snapshot::{Model, Snapshot};

/// Bytes of a question for the index of models.
const INDEX_BYTES_MAX: u64 = 64 * 1024;

/// What is asked for below `/v2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `/v2`
    Server,
    /// `/v2/health/live`
    Live,
    /// `/v2/health/ready`
    Ready,
    /// `/v2/models/{model}[/versions/{version}]`
    Model(Wanted),
    /// The same and `/ready`.
    ModelReady(Wanted),
    /// The same and `/infer`.
    Infer(Wanted),
    /// `/v2/repository/index`
    Index,
}

/// A model, and a version of it if one is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The model's name.
    pub model: String,
    /// The version.
    pub version: Option<String>,
}

impl Wanted {
    /// The same as what is asked for.
    pub fn asked(self) -> Asked {
        let model = match self.version {
            Some(version) => format!("{}@{version}", self.model),
            None => self.model,
        };
        Asked { model: Some(model), ..Asked::call(Operation::Infer, "infer") }
    }
}

impl Place {
    /// The place at a path, if there is one.
    pub fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v2")?;
        let parts: Vec<&str> = rest.strip_prefix('/').unwrap_or(rest).split('/').collect();
        let named = |model: &str, version: Option<&str>| {
            let version = match version {
                Some(version) => Some(decode(version)?),
                None => None,
            };
            Some(Wanted { model: decode(model)?, version })
        };
        match parts.as_slice() {
            [""] => Some(Self::Server),
            ["health", "live"] => Some(Self::Live),
            ["health", "ready"] => Some(Self::Ready),
            ["repository", "index"] => Some(Self::Index),
            ["models", model] => named(model, None).map(Self::Model),
            ["models", model, "ready"] => named(model, None).map(Self::ModelReady),
            ["models", model, "infer"] => named(model, None).map(Self::Infer),
            ["models", model, "versions", version] => named(model, Some(version)).map(Self::Model),
            ["models", model, "versions", version, "ready"] => {
                named(model, Some(version)).map(Self::ModelReady)
            }
            ["models", model, "versions", version, "infer"] => named(model, Some(version)).map(Self::Infer),
            _ => None,
        }
    }

    /// What it takes.
    pub const fn methods(&self) -> &'static [Method] {
        match self {
            Self::Server | Self::Live | Self::Ready | Self::Model(_) | Self::ModelReady(_) => &[Method::GET],
            Self::Infer(_) | Self::Index => &[Method::POST],
        }
    }

    /// The name in records.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Live | Self::Ready => "health",
            Self::Model(_) | Self::ModelReady(_) | Self::Index => "models",
            Self::Infer(_) => "infer",
        }
    }
}

/// A part of a path as text; `None` if it is empty or no text.
fn decode(part: &str) -> Option<String> {
    let text = percent_encoding::percent_decode_str(part).decode_utf8().ok()?;
    (!text.is_empty()).then(|| text.into_owned())
}

/// Whether errors at a path are told in this dialect. Reranks have one of their own.
pub fn is_under(path: &str) -> bool {
    path != "/v2/rerank"
        && path.strip_prefix("/v2").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Answers what the router knows itself.
///
/// # Errors
/// What the client is told when there is no such model, nobody serves it, or the question cannot be read.
pub async fn tell(
    app: &App,
    snapshot: &Snapshot,
    client: &ClientKey,
    place: &Place,
    body: Incoming,
) -> Result<String, ErrorBody> {
    match place {
        Place::Server => Ok(answer::server(env!("CARGO_PKG_VERSION"))),
        Place::Live => Ok(answer::live()),
        Place::Ready if app.is_draining() => Err(not_ready("the gateway is shutting down")),
        Place::Ready => Ok(answer::ready()),
        Place::Model(wanted) => {
            let model = find(snapshot, client, wanted)?;
            let all = versions(snapshot, &model);
            let own = wanted.version.as_deref().map_or_else(|| all.clone(), |version| vec![version]);
            Ok(answer::model(&model.name, &own, &model.rules.signature))
        }
        Place::ModelReady(wanted) => {
            let model = find(snapshot, client, wanted)?;
            let version = wanted.version.as_deref();
            match why_not(app, &model, version) {
                Ok(()) => Ok(answer::model_ready(&model.name)),
                Err(why) => {
                    Err(not_ready(&format!("no deployment of model `{}` can serve: {why}", model.name)))
                }
            }
        }
        Place::Index => {
            let limits = &snapshot.config.limits;
            let rules = BodyRules {
                bytes_max: INDEX_BYTES_MAX,
                time_max: Duration::from_millis(limits.body_read_ms),
                bytes_per_s_min: limits.body_min_bytes_per_s,
            };
            let asked = body::read(body, rules).await?;
            let ready_only = answer::wants_ready_only(&asked)?;
            Ok(answer::index(&indexed(app, snapshot, client, ready_only)))
        }
        // Goes the way of all requests that are sent on.
        Place::Infer(_) => Err(ErrorBody::internal("an inference request lost its way")),
    }
}

/// The protocol has 4xx for what is not ready.
fn not_ready(why: &str) -> ErrorBody {
    ErrorBody::router(400, "invalid_request_error", "not_ready", why)
}

pub(super) fn find(
    snapshot: &Snapshot,
    client: &ClientKey,
    wanted: &Wanted,
) -> Result<Arc<Model>, ErrorBody> {
    let model = find_model(snapshot, client, &wanted.model)?;
    match &wanted.version {
        Some(version) if !versions(snapshot, &model).contains(&version.as_str()) => {
            let text = format!("model `{}` has no version `{}`", model.name, printable(version));
            Err(ErrorBody::router(404, "invalid_request_error", "model_not_found", text))
        }
        Some(_) | None => Ok(model),
    }
}

/// The versions that a model's deployments serve, in the order of the configuration.
pub(super) fn versions<'s>(snapshot: &'s Snapshot, model: &Model) -> Vec<&'s str> {
    let mut all: Vec<&str> = Vec::new();
    let deployments =
        snapshot.config.models.get(&*model.name).into_iter().flat_map(|model| &model.deployments);
    for version in deployments.filter_map(|deployment| deployment.version.as_deref()) {
        if !all.contains(&version) {
            all.push(version);
        }
    }
    all
}

/// Whether a deployment can serve, or the reason why none can.
fn why_not(app: &App, model: &Model, version: Option<&str>) -> Result<(), &'static str> {
    let version = version.map(Name::from);
    let now = clock::now();
    let fleet = &app.live.lock().fleet;
    let ready = readiness(fleet, model.id, version.as_ref(), Capabilities::INFER, now);
    ready.map_err(|why| why.map_or("there is none", WhyNot::name))
}

/// Whether a deployment of the model, and version, can serve.
pub(super) fn is_ready(app: &App, model: &Model, version: Option<&str>) -> bool {
    why_not(app, model, version).is_ok()
}

/// The models that a client may use, in their versions.
pub(super) fn indexed(app: &App, snapshot: &Snapshot, client: &ClientKey, ready_only: bool) -> Vec<Indexed> {
    let mut all = Vec::new();
    let listed = snapshot.listed(|model| client.may_use(model));
    for model in &listed {
        let versions = versions(snapshot, model);
        let named = versions.iter().copied().map(Some).chain(versions.is_empty().then_some(None));
        for version in named {
            let why_not = why_not(app, model, version).err();
            if !(ready_only && why_not.is_some()) {
                let version = version.map(str::to_owned);
                all.push(Indexed { name: model.name.to_string(), version, why_not });
            }
        }
    }
    all
}

/// Reads an inference request, holds it to the registered model, and gathers its facts.
///
/// # Errors
/// What the client is told.
pub fn prepare(
    snapshot: &Snapshot,
    client: &ClientKey,
    head: &Parts,
    body: &Bytes,
    now: Now,
) -> Result<Prepared, Refused> {
    let Some(Place::Infer(wanted)) = Place::of(head.uri.path()) else {
        return Err(ErrorBody::internal("an inference request lost its way").into());
    };
    let known = find_model(snapshot, client, &wanted.model)?;
    let limits = BodyLimits { depth_max: snapshot.config.limits.json_depth_max, ..BodyLimits::default() };
    let json_bytes = json_bytes(&head.headers)?;
    let inference = kserve::parse(body, json_bytes, &limits)
        .map_err(|invalid| Refused { error: invalid.into(), model: Some(Name::clone(&known.name)) })?;
    of_inference(snapshot, client, &head.headers, (wanted, &known, &inference), now)
}

/// Holds an inference to the registered model, and gathers its facts.
///
/// # Errors
/// What the client is told.
pub fn of_inference(
    snapshot: &Snapshot,
    client: &ClientKey,
    headers: &HeaderMap,
    (wanted, known, inference): (Wanted, &Model, &Inference<'_>),
    now: Now,
) -> Result<Prepared, Refused> {
    kserve::check(inference, &known.name, &known.rules.signature)
        .map_err(|invalid| Refused { error: invalid.into(), model: Some(Name::clone(&known.name)) })?;
    let request = Request::infer(wanted.model, wanted.version, inference.tensors());
    let asked = Asked::call(Operation::Infer, "infer");
    // What it is held to beyond its own form are the schemas of chats: its body is not looked at again.
    let mut prepared =
        prepare_read(snapshot, client, (&DEF, &asked), headers, (Box::new(request), &[]), now)?;
    // Other models that the request names take the same tensors or none.
    prepared.fallbacks.models.retain(|other| {
        let Some(model) = snapshot.models.get(&other.name) else { return false };
        let Err(invalid) = kserve::check(inference, &model.name, &model.rules.signature) else {
            return true;
        };
        let left_out =
            prepared.fallbacks.named.iter_mut().find(|(name, why)| *name == other.name && why.is_none());
        if let Some((_, why)) = left_out {
            *why = Some(invalid.message.clone());
        }
        false
    });
    Ok(prepared)
}

/// Where the JSON ends, if binary tensors follow it.
fn json_bytes(headers: &HeaderMap) -> Result<Option<u64>, ErrorBody> {
    let mut values = headers.get_all(HEADER_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.as_bytes();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) && values.next().is_none();
    let length = value.to_str().ok().filter(|_| plain).and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| {
        let text =
            format!("header `{HEADER_LENGTH}` must be one number: the bytes of JSON at the body's beginning");
        ErrorBody::malformed(text).with_param(HEADER_LENGTH)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_paths_of_their_own() {
        let wanted = |model: &str, version: Option<&str>| Wanted {
            model: model.to_owned(),
            version: version.map(str::to_owned),
        };
        for (path, place) in [
            ("/v2", Some(Place::Server)),
            ("/v2/", Some(Place::Server)),
            ("/v2/health/live", Some(Place::Live)),
            ("/v2/health/ready", Some(Place::Ready)),
            ("/v2/repository/index", Some(Place::Index)),
            ("/v2/models/m", Some(Place::Model(wanted("m", None)))),
            ("/v2/models/a%2Fb%20c/ready", Some(Place::ModelReady(wanted("a/b c", None)))),
            ("/v2/models/m/infer", Some(Place::Infer(wanted("m", None)))),
            ("/v2/models/m/versions/3", Some(Place::Model(wanted("m", Some("3"))))),
            ("/v2/models/m/versions/3/ready", Some(Place::ModelReady(wanted("m", Some("3"))))),
            ("/v2/models/m/versions/3/infer", Some(Place::Infer(wanted("m", Some("3"))))),
            ("/v2/models/m/versions/", None),
            ("/v2/models//infer", None),
            ("/v2/models/%ff/infer", None),
            ("/v2/models/m/infer/", None),
            ("/v2/health", None),
            ("/v2x", None),
            ("/v1/models", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
        assert!(
            is_under("/v2")
                && is_under("/v2/x")
                && !is_under("/v2/rerank")
                && !is_under("/v2x")
                && !is_under("/v1")
        );
    }
}
