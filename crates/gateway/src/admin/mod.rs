//! The admin listener: live state, changes on the fly, decision records, metrics, health pages.

mod access;
mod batches;
mod decisions;
mod deployments;
mod extract;
mod pages;
mod pools;
mod problem;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use tokio::net::TcpListener;

use crate::app::App;

/// Bytes of a request to the admin API.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Serves the admin API for as long as the process lives.
pub async fn serve(app: Arc<App>, listener: TcpListener) {
    let mut stage = app.shutdown.subscribe();
    let upgraded = {
        let app = Arc::clone(&app);
        // After an upgrade the next process answers; on every other way out this one does, to the end.
        async move { drop(stage.wait_for(|_| app.upgrade.is_done()).await) }
    };
    if let Err(error) = axum::serve(listener, router(app)).with_graceful_shutdown(upgraded).await {
        tracing::error!(%error, "the admin API ended");
    }
}

/// All routes of the admin listener.
pub fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/overview", get(pages::overview))
        .route("/config", get(pages::config))
        .route("/reload", post(pages::reload))
        .route("/upgrade", post(pages::upgrade))
        .route("/models", get(deployments::models))
        .route("/models/{model}", get(deployments::model))
        .route("/deployments", get(deployments::all))
        .route("/models/{model}/deployments", post(deployments::add))
        .route(
            "/models/{model}/deployments/{name}",
            get(deployments::one).put(deployments::put).patch(deployments::patch).delete(deployments::remove),
        )
        .route("/models/{model}/deployments/{name}/changes", delete(deployments::take_back))
        .route("/models/{model}/deployments/{name}/drain", post(deployments::drain))
        .route("/models/{model}/deployments/{name}/undrain", post(deployments::undrain))
        .route("/models/{model}/deployments/{name}/reset-breaker", post(deployments::reset_breaker))
        .route("/pools", get(pools::all))
        .route("/pools/{pool}", get(pools::one))
        .route("/credentials", get(deployments::credentials))
        .route("/credentials/{provider}/{name}/restore", post(deployments::restore_credential))
        .route("/figures", get(deployments::figures))
        .route("/decisions", get(decisions::newest))
        .route("/decisions/{id}", get(decisions::one))
        .route("/batches", get(batches::newest))
        .route("/batches/{id}", get(batches::one))
        .route("/batches/{id}/cancel", post(batches::cancel))
        .route("/explain", post(decisions::explain))
        .method_not_allowed_fallback(pages::wrong_method);
    Router::new()
        .route("/livez", get(pages::livez))
        .route("/readyz", get(pages::readyz))
        .route("/healthz", get(pages::readyz))
        .route("/metrics", get(pages::metrics))
        .nest("/admin/v1", api)
        .fallback(pages::unknown)
        .method_not_allowed_fallback(pages::wrong_method)
        .layer(from_fn_with_state(Arc::clone(&app), access::check))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(app)
}
