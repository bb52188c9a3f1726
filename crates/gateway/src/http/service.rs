//! The way of a request, in the order it happens: authenticate → parse and validate → facts → exchange.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use pointsman_routing::Now;
use pointsman_routing::catalog::Name;
use pointsman_routing::facts::Lane;
use pointsman_routing::shed::Reason;
use pointsman_wire::dialect::{ClientDef, OPENAI};
use pointsman_wire::kserve::DEF;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Operation;

use super::auth::ClientKey;
use super::body::{self, BodyRules};
use super::client_io::Answering;
use super::guard::Guard;
use super::hints;
use super::idempotency::{self, Asked};
use super::kserve;
use super::prepare::{self, Prepared, Refused, prepare};
use super::respond;
use super::route::{self, Route};
use super::server::Worker;
use crate::batches::api;
use crate::clock;
use crate::exchange::{Arrival, Exchange, RouterBody, Trace};
use crate::snapshot::Snapshot;
use crate::telemetry::record::{Conversion, Record, RequestId, Ties};

/// What a client is told to wait that was turned away for want of memory: some answers take about as long to end.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Answers one request, whatever it is and whatever happens.
pub async fn serve(
    worker: Rc<Worker>,
    request: Request<Incoming>,
    answering: Answering,
) -> Response<RouterBody> {
    let id = worker.next_id();
    let at = clock::now();
    // Its errors have a form of their own, whatever is wrong.
    let dialect = if kserve::is_under(request.uri().path()) { &DEF } else { OPENAI };
    let mut response = match Guard::new(pin!(answer(
        Rc::clone(&worker),
        request,
        Early::new(id, at, dialect),
        answering
    )))
    .await
    {
        Some(response) => response,
        None => {
            worker.app.metrics.panics.inc();
            tracing::error!(request_id = %id, "a request panicked; please report it with the lines before this one");
            Early::new(id, at, dialect).refuse(
                &worker,
                "panic",
                &ErrorBody::internal("the request met a defect of the gateway"),
            )
        }
    };
    if worker.app.is_draining() || worker.app.memory.grade().refuses_connections() {
        // The client's next connection finds another gateway, if there is one.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(
    worker: Rc<Worker>,
    request: Request<Incoming>,
    mut early: Early,
    answering: Answering,
) -> Response<RouterBody> {
    let (id, at) = (early.id, early.arrived);
    let snapshot = worker.app.snapshot.load_full();
    let (head, body) = request.into_parts();
    let route = match route::route(&head, snapshot.config.limits.header_bytes_max) {
        Ok(route) => route,
        Err(bad) => {
            let mut response = early.refuse(&worker, if bad.close { "framing" } else { "route" }, &bad.error);
            if bad.close {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return response;
        }
    };
    early.operation = route.name();
    if let Route::Infer(dialect, _) = &route {
        early.dialect = dialect;
    }
    let client = match snapshot.keys.authenticate(&head.headers, &head.uri) {
        Ok(client) => client,
        Err(error) => return early.refuse(&worker, "auth", &error),
    };
    early.client = Some(Arc::clone(&client));
    match route {
        Route::Infer(dialect, asked) => {
            let trace = Trace::read(&head.headers, id.0);
            let arrival = Arrival {
                id,
                at,
                at_unix_ms: clock::unix_ms(),
                dialect,
                asked,
                client,
                keyed: false,
                mirror_of: None,
                line: None,
                trace,
            };
            infer(worker, snapshot, arrival, (head, body), early, answering).await
        }
        Route::Kserve(place) => {
            answering.set(head.method != Method::POST);
            // Boxed, for the room of what few requests need is moved about with every request.
            match Box::pin(kserve::tell(&worker.app, &snapshot, &client, &place, body)).await {
                Ok(text) => early.tell(text),
                Err(error) => early.refuse(&worker, "invalid", &error),
            }
        }
        Route::Models => {
            let listed = snapshot.listed(|model| client.may_use(model));
            let data = listed.iter().map(|model| model_json(&model.name)).collect::<Vec<_>>().join(",");
            early.tell(format!(r#"{{"object":"list","data":[{data}]}}"#))
        }
        Route::Stored(place) => {
            answering.set(head.method != Method::POST);
            let asked = api::Asked { snapshot: &snapshot, client: &client, place, head: &head };
            // Boxed, for the room of what few requests need is moved about with every request.
            Box::pin(stored(&worker, asked, body, &early)).await
        }
        Route::Model(name) => match prepare::find_model(&snapshot, &client, &name) {
            Ok(model) => early.tell(model_json(&model.name)),
            Err(error) => early.refuse(&worker, "invalid", &error),
        },
    }
}

/// Answers a request for files or batches.
async fn stored(
    worker: &Rc<Worker>,
    asked: api::Asked<'_>,
    body: Incoming,
    early: &Early,
) -> Response<RouterBody> {
    let post = asked.head.method == Method::POST;
    match api::serve(worker, asked, body).await {
        Ok(mut response) => {
            let took = clock::now() - early.began;
            respond::put_own_headers(response.headers_mut(), early.id, "router", took);
            response
        }
        Err(error) => {
            let mut response = early.refuse(worker, "batches", &error);
            if post {
                // What is left of the body may still be on its way.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    }
}

async fn infer(
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    arrival: Arrival,
    (head, body): (Parts, Incoming),
    early: Early,
    answering: Answering,
) -> Response<RouterBody> {
    let lane = hints::lane(&head.headers, &arrival.client);
    if let Some(reason) = worker.app.memory.grade().against(lane) {
        return early.shed(&worker, lane, reason);
    }
    let tensors = arrival.asked.operation == Operation::Infer;
    // The path of an inference names its model.
    let route = if tensors { Operation::Infer.path() } else { head.uri.path() };
    let body = match body::read(body, body_rules(&snapshot, route)).await {
        Ok(body) => body,
        Err(error) => {
            let mut response = early.refuse(&worker, "invalid", &error);
            // What is left of the body may still be on its way; the next request could not be found behind it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    answering.set(true);
    let began = clock::now();
    let key = match idempotency::key(&worker.app, &head.headers) {
        Ok(key) => key,
        Err(error) => return early.refuse(&worker, "idempotency", &error),
    };
    let asked = (arrival.dialect, &arrival.asked);
    let prepared = if tensors {
        kserve::prepare(&snapshot, &arrival.client, &head, &body, arrival.at)
    } else {
        prepare(&snapshot, &arrival.client, asked, &head.headers, &body, arrival.at)
    };
    drop(head);
    exchange(worker, snapshot, Validated { arrival, prepared, body, lane, key, began }, early).await
}

/// A request that was looked at.
pub(super) struct Validated {
    /// What is known of its head.
    pub(super) arrival: Arrival,
    /// What was understood of it, or why it is refused.
    pub(super) prepared: Result<Prepared, Refused>,
    /// Its body.
    pub(super) body: Bytes,
    /// The lane that its head asks for.
    pub(super) lane: Lane,
    /// Its idempotency key.
    pub(super) key: Option<idempotency::Key>,
    /// When the router's own work began.
    pub(super) began: Now,
}

/// Sends a request on, unless it is refused.
pub(super) async fn exchange(
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    Validated { arrival, prepared, body, lane, key, began }: Validated,
    mut early: Early,
) -> Response<RouterBody> {
    let prepared = match prepared {
        Ok(prepared) => prepared,
        Err(refused) => {
            (early.began, early.model) = (began, refused.model);
            return early.refuse(&worker, "invalid", &refused.error);
        }
    };
    // The model may have put it into another lane than its head said.
    let moved = prepared.facts.lane != lane;
    if let Some(reason) = worker.app.memory.grade().against(prepared.facts.lane).filter(|_| moved) {
        return early.shed(&worker, prepared.facts.lane, reason);
    }
    let Some(key) = key else {
        drop(early);
        return Exchange::new(worker, snapshot, arrival, prepared, body, began).run().await;
    };
    (early.began, early.model) = (began, Some(Name::clone(&prepared.model.name)));
    let asked = Asked { snapshot, arrival, prepared, body, began };
    // Boxed, for the room of what few requests need is moved about with every request.
    match Box::pin(idempotency::serve(&worker, asked, &key)).await {
        Ok(response) => response,
        Err(error) => early.refuse(&worker, "idempotency", &error),
    }
}

/// What is known of a request that the router answers without asking a deployment.
pub(super) struct Early {
    pub(super) id: RequestId,
    pub(super) arrived: Now,
    /// When the router's own work began.
    began: Now,
    pub(super) operation: &'static str,
    /// The dialect that its errors are told in.
    dialect: &'static ClientDef,
    pub(super) client: Option<Arc<ClientKey>>,
    model: Option<Name>,
}

impl Early {
    pub(super) fn new(id: RequestId, arrived: Now, dialect: &'static ClientDef) -> Self {
        Self { id, arrived, began: arrived, operation: "unknown", dialect, client: None, model: None }
    }

    /// Answers with what the router itself knows.
    pub(super) fn tell(&self, body: String) -> Response<RouterBody> {
        let mut response = respond::json(StatusCode::OK, body.into());
        respond::put_own_headers(response.headers_mut(), self.id, "router", clock::now() - self.began);
        response
    }

    /// Turns a request away before its body is read, for want of memory.
    pub(super) fn shed(&self, worker: &Worker, lane: Lane, reason: Reason) -> Response<RouterBody> {
        worker.app.metrics.shed(reason);
        let text = format!(
            "the gateway is short of memory and takes no new {} requests ({}); try again shortly",
            lane.name(),
            reason.name()
        );
        let error = ErrorBody::overloaded(text);
        let mut response = self.end(worker, "rejected", reason.name(), &error);
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(MEMORY_RETRY_AFTER.as_secs()));
        // Its body was not read, so that the next request could not be found behind it.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }

    /// Answers a request that cannot be routed, and records why.
    pub(super) fn refuse(
        &self,
        worker: &Worker,
        reason: &'static str,
        error: &ErrorBody,
    ) -> Response<RouterBody> {
        worker.app.metrics.refused(reason);
        self.end(worker, "invalid", &error.message, error)
    }

    fn end(
        &self,
        worker: &Worker,
        outcome: &'static str,
        detail: &str,
        error: &ErrorBody,
    ) -> Response<RouterBody> {
        let app = &worker.app;
        let now = clock::now();
        let overhead = now - self.began;
        app.record(Record {
            id: self.id,
            at_unix_ms: clock::unix_ms(),
            arrived: self.arrived,
            operation: self.operation,
            dialect: self.dialect.name,
            conversion: Conversion::default(),
            model: self.model.clone(),
            tenant: self.client.as_ref().map(|client| Arc::clone(&client.tenant)),
            key: self.client.as_ref().and_then(|client| client.name.clone()),
            facts: None,
            decisions: Vec::new(),
            attempts: Vec::new(),
            ties: Ties::default(),
            outcome,
            detail: Some(detail.to_owned()),
            status: error.status,
            usage: None,
            cost_micro_usd: None,
            hedge_cost_micro_usd: None,
            queue_us: 0,
            overhead_us: overhead.as_micros() as u64,
            first_content_us: None,
            total_us: (now - self.arrived).as_micros() as u64,
            names: Arc::default(),
        });
        let mut response = respond::error(self.dialect, error, None, self.id);
        if error.status == 503 {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(1));
        }
        let why = match outcome {
            "rejected" => format!("shed:{detail}"),
            _ => format!("refused:{}", error.code.as_deref().unwrap_or(error.kind)),
        };
        respond::put_own_headers(response.headers_mut(), self.id, &why, overhead);
        response
    }
}

pub(super) fn body_rules(snapshot: &Snapshot, path: &str) -> BodyRules {
    let limits = &snapshot.config.limits;
    BodyRules {
        bytes_max: limits.body_bytes_max_of(path),
        time_max: Duration::from_millis(limits.body_read_ms),
        bytes_per_s_min: limits.body_min_bytes_per_s,
    }
}

fn model_json(name: &str) -> String {
    let name = serde_json::Value::from(name);
    format!(r#"{{"id":{name},"object":"model","created":0,"owned_by":"pointsman"}}"#)
}
