//! The way of a request, in the order it happens: authenticate → parse and validate → facts → exchange.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use pointsman_routing::Now;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Operation;

use super::body::{self, BodyRules};
use super::guard::Guard;
use super::prepare::{self, prepare};
use super::respond;
use super::route::{self, Route};
use super::server::Worker;
use crate::clock;
use crate::exchange::{Arrival, Exchange, RouterBody, Trace};
use crate::snapshot::Snapshot;
use crate::telemetry::record::{Record, RequestId};

/// Answers one request, whatever it is and whatever happens.
pub async fn serve(worker: Rc<Worker>, request: Request<Incoming>) -> Response<RouterBody> {
    let id = worker.next_id();
    let at = clock::now();
    let mut response = match Guard::new(pin!(answer(Rc::clone(&worker), request, id, at))).await {
        Some(response) => response,
        None => {
            worker.app.metrics.panics.inc();
            tracing::error!(request_id = %id, "a request panicked; please report it with the lines before this one");
            respond::error(&ErrorBody::internal("the request met a defect of the gateway"), None, id)
        }
    };
    if worker.app.is_draining() {
        // The client's next connection finds another gateway, if there is one.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(
    worker: Rc<Worker>,
    request: Request<Incoming>,
    id: RequestId,
    at: Now,
) -> Response<RouterBody> {
    let snapshot = worker.app.snapshot.load_full();
    let (head, body) = request.into_parts();
    let route = match route::route(&head, snapshot.config.limits.header_bytes_max) {
        Ok(route) => route,
        Err(bad) => {
            worker.app.metrics.refused(if bad.close { "framing" } else { "route" });
            // Not at the usual level: strangers must not be able to fill the log.
            tracing::debug!(request_id = %id, status = bad.error.status, "refused on its head");
            let mut response = respond::error(&bad.error, None, id);
            if bad.close {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return response;
        }
    };
    let client = match snapshot.keys.authenticate(&head.headers, &head.uri) {
        Ok(client) => client,
        Err(error) => {
            worker.app.metrics.refused("auth");
            tracing::debug!(request_id = %id, status = error.status, "refused for its key");
            return respond::error(&error, None, id);
        }
    };
    match route {
        Route::Infer(operation) => {
            let trace = Trace::read(&head.headers, id.0);
            let arrival = Arrival { id, at, at_unix_ms: clock::unix_ms(), operation, client, trace };
            infer(worker, snapshot, arrival, head, body).await
        }
        Route::Models => {
            let listed = snapshot.listed(|model| client.may_use(model));
            let data = listed.iter().map(|model| model_json(&model.name)).collect::<Vec<_>>().join(",");
            with_id(
                respond::json(StatusCode::OK, format!(r#"{{"object":"list","data":[{data}]}}"#).into()),
                id,
            )
        }
        Route::Model(name) => match prepare::find_model(&snapshot, &client, &name) {
            Ok(model) => with_id(respond::json(StatusCode::OK, model_json(&model.name).into()), id),
            Err(error) => respond::error(&error, None, id),
        },
    }
}

async fn infer(
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    arrival: Arrival,
    head: Parts,
    body: Incoming,
) -> Response<RouterBody> {
    let (operation, at) = (arrival.operation, arrival.at);
    let body = match body::read(body, body_rules(&snapshot, operation)).await {
        Ok(body) => body,
        Err(error) => {
            let mut response = reject(&worker, &arrival, &error, at);
            // What is left of the body may still be on its way; the next request could not be found behind it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    let began = clock::now();
    match prepare(&snapshot, &arrival.client, operation, &head.headers, &body, at) {
        Ok(prepared) => {
            drop(head);
            Exchange::new(worker, snapshot, arrival, prepared, body, began).run().await
        }
        Err(error) => reject(&worker, &arrival, &error, began),
    }
}

/// Answers a request that cannot be routed, and records why.
fn reject(worker: &Worker, arrival: &Arrival, error: &ErrorBody, began: Now) -> Response<RouterBody> {
    let app = &worker.app;
    app.metrics.refused("invalid");
    let now = clock::now();
    let record = Record {
        id: arrival.id,
        at_unix_ms: arrival.at_unix_ms,
        arrived: arrival.at,
        operation: arrival.operation.name(),
        model: None,
        tenant: Arc::clone(&arrival.client.tenant),
        key: arrival.client.name.clone(),
        facts: None,
        decisions: Vec::new(),
        attempts: Vec::new(),
        outcome: "invalid",
        detail: Some(error.message.clone()),
        status: error.status,
        usage: None,
        cost_micro_usd: None,
        queue_us: 0,
        overhead_us: (now - began).as_micros() as u64,
        first_content_us: None,
        total_us: (now - arrival.at).as_micros() as u64,
        names: Arc::default(),
    };
    app.record(record);
    respond::error(error, None, arrival.id)
}

fn body_rules(snapshot: &Snapshot, operation: Operation) -> BodyRules {
    let limits = &snapshot.config.limits;
    BodyRules {
        bytes_max: limits.body_bytes_max_of(operation.path()),
        time_max: Duration::from_millis(limits.body_read_ms),
        bytes_per_s_min: limits.body_min_bytes_per_s,
    }
}

fn model_json(name: &str) -> String {
    let name = serde_json::Value::from(name);
    format!(r#"{{"id":{name},"object":"model","created":0,"owned_by":"pointsman"}}"#)
}

fn with_id(mut response: Response<RouterBody>, id: RequestId) -> Response<RouterBody> {
    respond::put_request_id(response.headers_mut(), id);
    response
}
