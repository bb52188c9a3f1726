//! Health pages, metrics, and the gateway as a whole.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{OriginalUri, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use pointsman_settings::Config;
use serde_json::{Value, json};

use super::problem::Problem;
use crate::app::App;
use crate::http::route::printable;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Surroundings;
use crate::{clock, reload as reloading};

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Ready means: clients can be served. What is degraded is told, and does not make it unready.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let log_trouble = app.decision_log.as_ref().and_then(DecisionLog::trouble);
    let log_trouble = log_trouble.map(|trouble| format!("decisions.log: {trouble}"));
    let degraded: Vec<String> = app
        .source
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .last_error
        .iter()
        .map(|e| format!("config: {e}"))
        .chain(log_trouble)
        .chain(app.batches_trouble.get().map(|why| format!("batches: {why}")))
        .chain(
            app.batches
                .get()
                .and_then(|batches| batches.overview().trouble)
                .map(|why| format!("batches: {why}")),
        )
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
    app.metrics.idempotency_state(app.idempotency.state());
    let (ids, forgotten) = {
        let issued = app.issued();
        (issued.len(), issued.forgotten())
    };
    app.metrics.issued_state(ids, forgotten);
    if let Some(batches) = app.batches.get() {
        app.metrics.batches_state(&batches.overview());
    }
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

/// Starts the program anew and hands the sockets over.
pub(super) async fn upgrade(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let upgraded = tokio::task::spawn_blocking(move || app.upgrade()).await;
    let refused = |text: String| Problem::new(StatusCode::CONFLICT, "upgrade_failed", text);
    let pid = upgraded
        .map_err(|error| refused(format!("the upgrade broke off: {error}")))?
        .map_err(|error| refused(format!("{error:#}; the running process goes on")))?;
    Ok(Json(json!({"old_pid": std::process::id(), "new_pid": pid})).into_response())
}

pub(super) async fn wrong_method(method: Method, OriginalUri(uri): OriginalUri) -> Problem {
    let path = printable(uri.path());
    let text =
        format!("{} is not possible at {path}; the `allow` header lists what is", printable(method.as_str()));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text)
}

pub(super) async fn unknown(State(app): State<Arc<App>>, OriginalUri(uri): OriginalUri) -> Problem {
    let text = format!("there is nothing at {}", printable(uri.path()));
    Problem::not_found(match encoded(&app.snapshot.load().config, uri.path()) {
        Some(meant) => format!("{text}; a name in a path is percent-encoded: {meant}"),
        None => text,
    })
}

/// The path as it must be written, when it names a model or deployment whose name has characters that part paths.
fn encoded(config: &Config, path: &str) -> Option<String> {
    const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let path = percent_decode_str(path).decode_utf8().ok()?;
    let path = path.strip_prefix("/admin/v1/models/")?;
    let below = |path: &str, name: &str| {
        let rest = path.strip_prefix(name)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| rest.to_owned())
    };
    config.models.iter().find_map(|(name, model)| {
        let rest = below(path, name)?;
        let base = format!("/admin/v1/models/{}", utf8_percent_encode(name, SEGMENT));
        if let Some(path) = rest.strip_prefix("/deployments/") {
            let deployments = model.deployments.iter().map(|one| one.name_in(name));
            return deployments.into_iter().find_map(|one| {
                let rest = below(path, &one)?;
                Some(format!("{base}/deployments/{}{rest}", utf8_percent_encode(&one, SEGMENT)))
            });
        }
        Some(format!("{base}{rest}"))
    })
}

#[cfg(test)]
mod tests {
    use pointsman_settings::models::{DeploymentConfig, ModelConfig};

    use super::*;

    #[test]
    fn a_name_with_a_slash_is_told_in_its_encoded_form() {
        let deployments = vec![DeploymentConfig { provider: "gpu".into(), ..Default::default() }];
        let model = ModelConfig { deployments, ..Default::default() };
        let config = Config { models: [("org/llama".to_owned(), model)].into(), ..Config::default() };
        let base = "/admin/v1/models/org%2Fllama";
        for (path, meant) in [
            ("org/llama", Some(base.to_owned())),
            ("org/llama/deployments/gpu/org/llama", Some(format!("{base}/deployments/gpu%2Forg%2Fllama"))),
            (
                "org%2Fllama/deployments/gpu/org/llama/drain",
                Some(format!("{base}/deployments/gpu%2Forg%2Fllama/drain")),
            ),
            ("org/llama/deployments/other", None),
            ("org/llam", None),
        ] {
            assert_eq!(encoded(&config, &format!("/admin/v1/models/{path}")), meant, "{path}");
        }
    }
}
