//! Batches of all tenants, for operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Path, Query};
use super::problem::Problem;
use crate::app::App;
use crate::batches::rows::{self, BatchRow, Page};
use crate::batches::store::StoreError;
use crate::batches::{Batches, objects};

/// Batches given at once, unless more are asked for.
const LIMIT: u32 = 50;
/// Batches given at once, at most.
const LIMIT_MAX: u32 = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Newest {
    limit: Option<u32>,
    after: Option<String>,
    tenant: Option<String>,
}

pub(super) async fn newest(
    State(app): State<Arc<App>>,
    Query(query): Query<Newest>,
) -> Result<Json<Value>, Problem> {
    let batches = kept(&app)?;
    let limit = query.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let page = Page { after: query.after, limit, ..Page::default() };
    let listed = batches.store.call(move |db| rows::batches(db, query.tenant.as_deref(), &page)).await?;
    let (found, has_more) =
        listed.ok_or_else(|| Problem::not_found("there is no batch with the id `after`"))?;
    let seen = batches.overview();
    let counts: Value = seen.counts.iter().map(|(status, count)| (status.name(), json!(count))).collect();
    Ok(Json(json!({
        "counts": counts,
        "oldest_unfinished_s": seen.oldest_s,
        "lines_under_way": seen.lines_under_way,
        "batches": found.iter().map(told).collect::<Vec<_>>(),
        "has_more": has_more,
    })))
}

pub(super) async fn one(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let batches = kept(&app)?;
    let asked = id.clone();
    let found = batches.store.call(move |db| BatchRow::find(db, None, &asked)).await?;
    found.map(|batch| Json(told(&batch))).ok_or_else(|| none(&id))
}

/// Stops a batch of any tenant.
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let batches = kept(&app)?;
    let (asked, now_s) = (id.clone(), batches.now_s());
    let found = batches.store.call(move |db| rows::cancel(db, None, &asked, now_s)).await?;
    let batch = found.ok_or_else(|| none(&id))?;
    if batch.cancelling_at.is_none() {
        let text = format!("a batch with status `{}` cannot be cancelled", batch.status.name());
        return Err(Problem::new(StatusCode::CONFLICT, "not_cancellable", text));
    }
    batches.changed.notify_one();
    Ok(Json(told(&batch)))
}

/// A batch as its owner sees it, and whose it is.
fn told(batch: &BatchRow) -> Value {
    let mut object = objects::batch(batch);
    object["tenant"] = json!(batch.tenant);
    object["key"] = json!(batch.key);
    object
}

fn kept(app: &App) -> Result<&Arc<Batches>, Problem> {
    app.batches.get().ok_or_else(|| {
        Problem::not_found("no batches are kept; `batches.directory` in the config sets where")
    })
}

fn none(id: &str) -> Problem {
    Problem::not_found(format!("there is no batch `{id}`"))
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", error.to_string())
    }
}
