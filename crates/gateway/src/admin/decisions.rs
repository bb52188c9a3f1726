//! Decision records, and "what would be decided".

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Path, Query};
use super::problem::Problem;
use crate::app::App;
use crate::explain;
use crate::telemetry::record::RequestId;

/// Records given at once, unless more are asked for.
const LIMIT: usize = 50;
/// Records given at once, at most.
const LIMIT_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newest {
    limit: Option<usize>,
    model: Option<String>,
}

pub(super) async fn newest(State(app): State<Arc<App>>, Query(query): Query<Newest>) -> Json<Value> {
    let limit = query.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let records = app.ring.newest(usize::MAX);
    let asked = |model: &Option<pointsman_routing::catalog::Name>| {
        query.model.as_deref().is_none_or(|wanted| model.as_deref() == Some(wanted))
    };
    let records: Vec<Value> = records
        .iter()
        .filter(|record| asked(&record.model))
        .take(limit)
        .map(|record| record.to_json())
        .collect();
    Json(json!({"decisions": records}))
}

pub(super) async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let id = RequestId::parse(&id)
        .ok_or_else(|| Problem::bad_request("a request id has 32 hexadecimal digits"))?;
    let record = app.ring.find(id).ok_or_else(|| {
        Problem::not_found(format!(
            "no record of request {id}; the newest {} are kept (`decisions.ring`)",
            app.snapshot.load().config.decisions.ring
        ))
    })?;
    Ok(Json(record.to_json()))
}

/// Decides a request without sending it: the body as a client would send it, hints as headers.
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    Query(options): Query<explain::Options>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let (mut fleet, mut rng) = app.live.lock().sandbox();
    let snapshot = app.snapshot.load_full();
    explain::explain(&snapshot, &mut fleet, &mut rng, &options, &headers, &body).map(Json).map_err(|error| {
        Problem::new(
            StatusCode::from_u16(error.status).unwrap_or(StatusCode::BAD_REQUEST),
            "request_refused",
            error.message,
        )
    })
}
