//! The models that a request names for the case that its own cannot serve: in `x-pointsman-fallback` or in the body's
//! `fallbacks`, by clients that may. Each is held to its own rules before anything is sent.

use http::{HeaderMap, HeaderName};
use pointsman_routing::catalog::Name;
use pointsman_routing::facts::Lane;
use pointsman_routing::flow::fallback::Fallback;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{FALLBACKS_MAX, Request, split_version};
use pointsman_wire::openai::rules;

use super::auth::ClientKey;
use super::hints;
use super::prepare::find_model;
use crate::snapshot::{Model, Snapshot};

const HEADER: HeaderName = HeaderName::from_static("x-pointsman-fallback");
/// Bytes the header may have.
const HEADER_BYTES_MAX: usize = 2048;

/// What a request named.
#[derive(Debug, Clone, Default)]
pub struct Fallbacks {
    /// The models that fit it, in its order.
    pub models: Vec<Fallback>,
    /// Every model it named, and why it was left out if it was.
    pub named: Vec<(Name, Option<String>)>,
}

/// Reads the models that a request for `asked` names.
pub fn read(
    snapshot: &Snapshot,
    client: &ClientKey,
    headers: &HeaderMap,
    request: &Request,
    asked: &Model,
) -> Result<Fallbacks, ErrorBody> {
    let listed = headers.get(HEADER);
    if listed.is_none() && request.fallbacks.is_empty() {
        return Ok(Fallbacks::default());
    }
    if !client.may_fallback {
        let text =
            "this key may not name fallback models; its operator can allow it with `may_fallback: true`";
        let error = ErrorBody::router(403, "invalid_request_error", "fallback_not_allowed", text);
        return Err(error.with_param(param(listed.is_some())));
    }
    let bad = |text: String| ErrorBody::malformed(text).with_param(param(listed.is_some()));
    let names: Vec<&str> = match listed {
        None => request.fallbacks.iter().map(String::as_str).collect(),
        Some(_) if !request.fallbacks.is_empty() || headers.get_all(HEADER).iter().nth(1).is_some() => {
            return Err(bad(format!("fallback models are named twice; use `{HEADER}` once, or `fallbacks`")));
        }
        Some(value) => {
            let text = value.to_str().ok().filter(|text| text.len() <= HEADER_BYTES_MAX);
            let text = text
                .ok_or_else(|| bad(format!("header `{HEADER}` must be plain text of 2048 bytes at most")))?;
            text.split(',').map(str::trim).collect()
        }
    };
    if names.len() > FALLBACKS_MAX || names.contains(&"") {
        return Err(bad(format!(
            "header `{HEADER}` must name 1 to {FALLBACKS_MAX} models with commas between"
        )));
    }
    let lane = hints::lane(headers, client);
    let mut found = Fallbacks::default();
    for (at, name) in names.into_iter().enumerate() {
        let (model, version) = split_version(name);
        let param = if listed.is_some() { HEADER.to_string() } else { format!("fallbacks[{at}]") };
        let model = find_model(snapshot, client, model).map_err(|error| error.with_param(param))?;
        let twice = found.models.iter().any(|one| one.model == model.id && one.version.as_deref() == version);
        let why = if twice || (model.id == asked.id && request.version.as_deref() == version) {
            Some("it is tried anyway".to_owned())
        } else if model.lane == Some(Lane::Batch) && asked.lane.unwrap_or(lane) == Lane::Live {
            Some("its lane is `batch`, and the request is in lane `live`".to_owned())
        } else {
            rules::validate(request, &model.rules).err().map(|invalid| invalid.message)
        };
        if why.is_none() {
            let (name, version) = (Name::clone(&model.name), version.map(Name::from));
            found.models.push(Fallback { model: model.id, name, version });
        }
        found.named.push((name.into(), why));
    }
    Ok(found)
}

fn param(in_header: bool) -> &'static str {
    if in_header { "x-pointsman-fallback" } else { "fallbacks" }
}
