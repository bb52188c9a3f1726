//! Models, deployments and credentials with their live state, and changes on the fly.
//!
//! A change is validated like the config file, put on top of it, and kept across reloads, until it is taken back. Of a
//! deployment of the file only the fields that were changed are kept; all others go on following the file. Every answer carries the
//! configuration's generation as its `etag`; a write with `if-match` is refused when somebody else was faster.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pointsman_routing::fleet::{DeploymentView, Event, ModelView};
use pointsman_settings::Config;
use pointsman_settings::models::DeploymentConfig;
use pointsman_settings::overlay::Overlay;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::extract::{Body, Path, Query};
use super::problem::Problem;
use crate::app::App;
use crate::members::Members;
use crate::{clock, reload};

pub(super) type Answer = Result<Response, Problem>;

pub(super) async fn models(State(app): State<Arc<App>>) -> Answer {
    let view = app.live.lock().fleet.view(clock::now());
    let models: Vec<Value> = view.models.iter().map(|model| model_json(&app, model)).collect();
    Ok(tagged(&app, StatusCode::OK, &json!({"models": models})))
}

pub(super) async fn model(State(app): State<Arc<App>>, Path(model): Path<String>) -> Answer {
    let view = app.live.lock().fleet.view(clock::now());
    let found = view.models.iter().find(|known| *known.name == *model);
    let found = found.ok_or_else(|| no_model(&model))?;
    Ok(tagged(&app, StatusCode::OK, &model_json(&app, found)))
}

fn model_json(app: &App, model: &ModelView) -> Value {
    let mut value = serde_json::to_value(model).unwrap_or_default();
    if let Some(config) = app.snapshot.load().config.models.get(&*model.name) {
        value["aliases"] = json!(config.aliases);
        value["strategy"] = json!(config.strategy);
        value["split"] = json!(config.split);
    }
    value
}

pub(super) async fn all(State(app): State<Arc<App>>) -> Answer {
    let view = app.live.lock().fleet.view(clock::now());
    let snapshot = app.snapshot.load();
    let all: Vec<Value> = view
        .models
        .iter()
        .flat_map(|model| {
            model.deployments.iter().map(|deployment| {
                let mut value = serde_json::to_value(deployment).unwrap_or_default();
                value["model"] = json!(model.name);
                // The alias that `model_said` stands for.
                let target = snapshot.targets.get(&deployment.id);
                value["model_upstream"] = json!(target.map(|target| &target.upstream_model_name));
                value
            })
        })
        .collect();
    Ok(tagged(&app, StatusCode::OK, &json!({"deployments": all})))
}

pub(super) async fn figures(State(app): State<Arc<App>>) -> Answer {
    let view = app.live.lock().fleet.view(clock::now());
    let pools = view.pools.iter().map(|pool| json!({"name": pool.name, "utilisation": pool.utilisation}));
    let figures = json!({
        "models": view.figures,
        "pools": pools.collect::<Vec<_>>(),
        "waits": app.metrics.waits(),
    });
    Ok(tagged(&app, StatusCode::OK, &figures))
}

pub(super) async fn one(State(app): State<Arc<App>>, Path((model, name)): Path<(String, String)>) -> Answer {
    answer_with(&app, StatusCode::OK, &model, &name)
}

/// The configuration and the live state of one deployment.
fn answer_with(app: &App, status: StatusCode, model: &str, name: &str) -> Answer {
    let view = app.live.lock().fleet.view(clock::now());
    let live: Option<&DeploymentView> = view
        .models
        .iter()
        .find(|known| *known.name == *model)
        .and_then(|known| known.deployments.iter().find(|known| *known.name == *name));
    let snapshot = app.snapshot.load();
    let config = find(&snapshot.config, model, name)?;
    let source = app.source.lock().unwrap_or_else(PoisonError::into_inner);
    let change = source.overlay.get(model, name);
    Ok(tagged(app, status, &json!({"config": config, "live": live, "admin_change": change})))
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let deployment: DeploymentConfig = parse(&body)?;
    let name = deployment.name_in(&model);
    write(&app, &headers, |file, config, overlay| {
        let known = config.models.get(&model).ok_or_else(|| no_model(&model))?;
        if known.deployments.iter().any(|one| one.name_in(&model) == name) {
            let text = format!("model `{model}` has a deployment `{name}` already; PUT replaces it");
            return Err(Problem::new(StatusCode::CONFLICT, "exists", text));
        }
        overlay.put(file, &model, &name, deployment);
        Ok(())
    })?;
    answer_with(&app, StatusCode::CREATED, &model, &name)
}

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path((model, name)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let deployment: DeploymentConfig = parse(&body)?;
    if deployment.name.as_ref().is_some_and(|new| *new != name) {
        return Err(renamed(&name));
    }
    write(&app, &headers, |file, config, overlay| {
        if !config.models.contains_key(&model) {
            return Err(no_model(&model));
        }
        overlay.put(file, &model, &name, deployment);
        Ok(())
    })?;
    answer_with(&app, StatusCode::OK, &model, &name)
}

/// Changes single fields (RFC 7396: `null` takes one away).
pub(super) async fn patch(
    State(app): State<Arc<App>>,
    Path((model, name)): Path<(String, String)>,
    headers: HeaderMap,
    Body(body): Body,
) -> Answer {
    let Members { all: fields, twice } = parse(&body)?;
    if let Some(name) = twice {
        return Err(Problem::bad_request(format!("`{name}` appears twice in the body; send it once")));
    }
    if fields.get("name").is_some_and(|new| *new != *name) {
        return Err(renamed(&name));
    }
    set_fields(&app, &headers, &model, &name, fields)
}

/// Takes back what was changed through the admin API, so that the file holds again.
pub(super) async fn take_back(
    State(app): State<Arc<App>>,
    Path((model, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    write(&app, &headers, |_, _, overlay| match overlay.take_back(&model, &name) {
        Some(_) => Ok(()),
        None => Err(Problem::not_found(format!(
            "deployment `{name}` of model `{model}` has no changes to take back; it is as the file has it"
        ))),
    })?;
    // What was added is gone with its change.
    if find(&app.snapshot.load().config, &model, &name).is_err() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    answer_with(&app, StatusCode::OK, &model, &name)
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    Path((model, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    write(&app, &headers, |file, config, overlay| {
        find(config, &model, &name)?;
        overlay.remove(file, &model, &name);
        Ok(())
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    /// Time for what is in flight, instead of the deployment's `drain_ms`.
    timeout_ms: Option<u64>,
}

/// No new requests; those in flight may finish for a while.
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    Path((model, name)): Path<(String, String)>,
    Query(drain): Query<Drain>,
    headers: HeaderMap,
) -> Answer {
    let timeout = drain.timeout_ms.map(|timeout_ms| ("drain_ms".to_owned(), timeout_ms.into()));
    let fields = timeout.into_iter().chain([("draining".to_owned(), true.into())]);
    set_fields(&app, &headers, &model, &name, fields.collect())
}

pub(super) async fn undrain(
    State(app): State<Arc<App>>,
    Path((model, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    // The bound of a drain goes with it; the one in the file stays.
    let in_file = {
        let source = app.source.lock().unwrap_or_else(PoisonError::into_inner);
        find(&source.base, &model, &name).ok().and_then(|deployment| deployment.drain_ms)
    };
    let fields = [("draining".to_owned(), false.into()), ("drain_ms".to_owned(), json!(in_file))];
    set_fields(&app, &headers, &model, &name, Map::from_iter(fields))
}

fn set_fields(app: &App, headers: &HeaderMap, model: &str, name: &str, fields: Map<String, Value>) -> Answer {
    write(app, headers, |file, config, overlay| {
        let now = find(config, model, name)?;
        overlay
            .patch(file, now, (model, name), fields)
            .map_err(|error| Problem::bad_request(error.to_string()))
    })?;
    answer_with(app, StatusCode::OK, model, name)
}

fn renamed(name: &str) -> Problem {
    Problem::bad_request(format!(
        "`{name}` keeps its name; add a deployment of the other name, and remove this one"
    ))
}

pub(super) async fn reset_breaker(
    State(app): State<Arc<App>>,
    Path((model, name)): Path<(String, String)>,
) -> Answer {
    app.live.change(|fleet| {
        let id = fleet.model(&model).and_then(|id| fleet.deployment(id, &name));
        let id = id.ok_or_else(|| no_deployment(&model, &name))?;
        fleet.observe(clock::now(), Event::ResetBreaker(id));
        Ok::<_, Problem>(())
    })?;
    answer_with(&app, StatusCode::OK, &model, &name)
}

pub(super) async fn credentials(State(app): State<Arc<App>>) -> Answer {
    let view = app.live.lock().fleet.view(clock::now());
    Ok(tagged(&app, StatusCode::OK, &json!({"providers": view.providers})))
}

pub(super) async fn restore_credential(
    State(app): State<Arc<App>>,
    Path((provider, name)): Path<(String, String)>,
) -> Answer {
    app.live.change(|fleet| {
        let id = fleet
            .credential(&provider, &name)
            .ok_or_else(|| Problem::not_found(format!("provider `{provider}` has no credential `{name}`")))?;
        fleet.observe(clock::now(), Event::RestoreCredential(id));
        Ok::<_, Problem>(())
    })?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Makes a change to the overlay, if nobody else was faster.
fn write(
    app: &App,
    headers: &HeaderMap,
    change: impl FnOnce(&Config, &Config, &mut Overlay) -> Result<(), Problem>,
) -> Result<(), Problem> {
    reload::change_overlay(app, |file, config, overlay| {
        // Read under the same lock that the change is made under.
        let current = etag(app.snapshot.load().generation);
        if let Some(wanted) = headers.get(header::IF_MATCH)
            && wanted != "*"
            && *wanted != current
        {
            let current = current.to_str().unwrap_or_default();
            let text = format!("the configuration is {current} now; read it again, and decide again");
            return Err(Problem::new(StatusCode::PRECONDITION_FAILED, "changed_meanwhile", text));
        }
        change(file, config, overlay)
    })
}

fn find<'a>(config: &'a Config, model: &str, name: &str) -> Result<&'a DeploymentConfig, Problem> {
    let known = config.models.get(model).ok_or_else(|| no_model(model))?;
    known.deployments.iter().find(|one| one.name_in(model) == name).ok_or_else(|| no_deployment(model, name))
}

fn no_model(model: &str) -> Problem {
    Problem::not_found(format!("there is no model `{model}`"))
}

fn no_deployment(model: &str, name: &str) -> Problem {
    Problem::not_found(format!("model `{model}` has no deployment `{name}`"))
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the body is not understood: {error}")))
}

pub(super) fn tagged(app: &App, status: StatusCode, body: &impl Serialize) -> Response {
    let tag = etag(app.snapshot.load().generation);
    (status, [(header::ETAG, tag)], Json(body)).into_response()
}

fn etag(generation: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{generation}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"0\""))
}
