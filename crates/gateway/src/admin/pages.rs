//! Health pages, metrics, and the gateway as a whole.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::problem::Problem;
use crate::app::App;
use crate::telemetry::metrics::Surroundings;
use crate::{clock, reload as reloading};

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Ready means: clients can be served. What is degraded is told, and does not make it unready.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let degraded: Vec<String> = app
        .source
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .last_error
        .iter()
        .map(|e| format!("config: {e}"))
        .collect();
    if app.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "draining"}))).into_response();
    }
    Json(json!({"status": "ok", "degraded": degraded})).into_response()
}

pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let (fleet, permits) = {
        let live = app.live.lock();
        (live.fleet.view(clock::now()), live.fleet.permits_in_use())
    };
    let around = Surroundings {
        fleet,
        generation: app.snapshot.load().generation,
        permits,
        attempts: app.attempts.load(Ordering::Relaxed),
        connections: app.connections.load(Ordering::Relaxed),
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics.encode(&around)).into_response()
}

/// Is it fine, and what is under way.
pub(super) async fn overview(State(app): State<Arc<App>>) -> Json<Value> {
    let view = app.live.lock().fleet.view(clock::now());
    let snapshot = app.snapshot.load();
    let source = app.source.lock().unwrap_or_else(PoisonError::into_inner);
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "config": {
            "generation": snapshot.generation,
            "file": source.path,
            "last_error": source.last_error,
            "admin_changes": source.overlay,
        },
        "draining": app.is_draining(),
        "connections": app.connections.load(Ordering::Relaxed),
        "requests_under_way": app.requests.load(Ordering::Relaxed),
        "models": view.models.len(),
        "deployments_serving": view.models.iter().flat_map(|m| &m.deployments).filter(|d| matches!(d.state, "healthy" | "degraded" | "recovering")).count(),
        "inflight": view.models.iter().flat_map(|m| &m.deployments).map(|d| d.inflight).sum::<u32>(),
        "queued": view.models.iter().map(|m| m.queue_depth).sum::<usize>(),
    }))
}

/// The configuration in force, without secrets.
pub(super) async fn config(State(app): State<Arc<App>>) -> Json<Value> {
    Json(app.snapshot.load().config.redacted())
}

pub(super) async fn reload(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    // Reading files may take its time; nothing else of the admin API should wait for it.
    let reloaded = tokio::task::spawn_blocking(move || reloading::reload(&app)).await;
    let reloaded = reloaded.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", format!("the reload broke off: {error}"))
    })??;
    Ok(Json(reloaded).into_response())
}

pub(super) async fn unknown(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", crate::http::route::printable(uri.path())))
}
