//! Pools with their live state.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde_json::json;

use super::deployments::{Answer, tagged};
use super::extract::Path;
use super::problem::Problem;
use crate::app::App;
use crate::clock;

pub(super) async fn all(State(app): State<Arc<App>>) -> Answer {
    let view = app.live.lock().fleet.view(clock::now());
    Ok(tagged(&app, StatusCode::OK, &json!({"pools": view.pools, "preempted": view.preempted})))
}

pub(super) async fn one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Answer {
    let view = app.live.lock().fleet.view(clock::now());
    let found = view.pools.iter().find(|pool| *pool.name == *name);
    let found = found.ok_or_else(|| Problem::not_found(format!("there is no pool `{name}`")))?;
    Ok(tagged(&app, StatusCode::OK, &json!(found)))
}
