//! The way of a request, in the order it happens: authenticate → parse and validate → facts → exchange.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::{Body, Incoming};
use pointsman_routing::Now;
use pointsman_routing::catalog::Name;
use pointsman_routing::facts::Lane;
use pointsman_settings::models::DeploymentConfig;
use pointsman_settings::providers::ProviderConfig;
use pointsman_wire::dialect::{Elsewhere, OPENAI};
use pointsman_wire::kserve::DEF;
use pointsman_wire::ollama;
use pointsman_wire::openai::BodyLimits;
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Operation;
use pointsman_wire::openai::responses::state::Place;

use super::auth::{ClientKey, Recognised};
use super::body::{self, BodyRules};
use super::client_io::Answering;
use super::early::Early;
use super::form::{self, Received};
use super::guard::Guard;
use super::hints;
use super::idempotency::{self, Asked};
use super::kept::{self, Given};
use super::kserve;
use super::models;
use super::pins;
use super::prepare::{self, Prepared, Refused, prepare, prepare_read};
use super::respond;
use super::route::{self, Route};
use super::server::Worker;
use crate::batches::api;
use crate::clock;
use crate::exchange::{self, Arrival, Exchange, RouterBody, Trace, Upload};
use crate::snapshot::Snapshot;

/// Answers one request, whatever it is and whatever happens.
pub async fn serve(
    worker: Rc<Worker>,
    request: Request<Incoming>,
    answering: Answering,
    recognised: &Recognised,
) -> Response<RouterBody> {
    let id = worker.next_id();
    let at = clock::now();
    // Its errors have a form of their own, whatever is wrong.
    let dialect = if kserve::is_under(request.uri().path()) { &DEF } else { OPENAI };
    let mut response = match Guard::new(pin!(answer(
        Rc::clone(&worker),
        request,
        Early::new(id, at, dialect),
        answering,
        recognised,
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
    recognised: &Recognised,
) -> Response<RouterBody> {
    let snapshot = worker.app.snapshot.load_full();
    let (head, body) = request.into_parts();
    let has_body = !body.is_end_stream();
    let route = match route::route(&head, snapshot.config.limits.header_bytes_max) {
        Ok(route) => route,
        Err(bad) => {
            early.dialect = bad.dialect;
            return closing(early.refuse(&worker, bad.reason(), &bad.error), bad.close || has_body);
        }
    };
    early.operation = route.name();
    early.dialect = route.dialect(&head.headers);
    let client = match snapshot.keys.authenticate(&head.headers, &head.uri, recognised) {
        Ok(client) => client,
        Err(error) => return closing(early.refuse(&worker, "auth", &error), has_body),
    };
    early.client = Some(Arc::clone(&client));
    let Route::Infer(dialect, asked) = route else {
        // Boxed, for the room of what few requests need is moved about with every request.
        return Box::pin(tell(&worker, (&snapshot, &client), route, (&head, body), early, answering)).await;
    };
    early.call = asked.call;
    let trace = Trace::read(&head.headers, early.id.0);
    let arrival = Box::new(Arrival {
        id: early.id,
        at: early.arrived,
        at_unix_ms: clock::unix_ms(),
        dialect,
        asked,
        client,
        keyed: false,
        mirror_of: None,
        line: None,
        passed: exchange::passed(&head.headers, dialect.headers),
        trace,
    });
    match admit(&worker, snapshot, arrival, (&head, body), &mut early, &answering).await {
        Ok(admitted) => {
            drop(head);
            admitted.run(&worker, &early).await
        }
        Err(response) => response,
    }
}

/// Answers a request that no deployment is chosen for.
async fn tell(
    worker: &Rc<Worker>,
    (snapshot, client): (&Arc<Snapshot>, &Arc<ClientKey>),
    route: Route,
    (head, body): (&Parts, Incoming),
    early: Early,
    answering: Answering,
) -> Response<RouterBody> {
    let told = match route {
        Route::Infer(..) => Err(ErrorBody::internal("the request is for a model")),
        Route::Kserve(place) => {
            answering.set(head.method != Method::POST);
            kserve::tell(&worker.app, snapshot, client, &place, body).await
        }
        Route::Models(asked) => list(snapshot, client, asked, head, body).await,
        Route::Stored(place) => {
            answering.set(head.method != Method::POST);
            let asked = api::Asked { snapshot, client, place, head };
            return stored(worker, asked, body, &early).await;
        }
        Route::Kept(place) => {
            answering.set(head.method != Method::POST);
            return kept(worker, (snapshot, client), (&place, head), body, &early).await;
        }
    };
    match told {
        Ok(text) => early.tell(text),
        Err(error) => refused(worker, &early, &error),
    }
}

/// Says that the connection ends with this response, where a body was not read: the next request could not be found behind
/// it, and a client that was not told would send one.
fn closing(mut response: Response<RouterBody>, closes: bool) -> Response<RouterBody> {
    if closes {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What a client is told of the models that it may use.
async fn list(
    snapshot: &Snapshot,
    client: &ClientKey,
    asked: models::Asked,
    head: &Parts,
    body: Incoming,
) -> Result<String, ErrorBody> {
    let find = |name: &str| prepare::find_model(snapshot, client, name);
    Ok(match asked {
        models::Asked::All(form) => {
            let listed = snapshot.listed(|model| client.may_use(model));
            let listed: Vec<_> = listed.iter().map(|model| &***model).collect();
            models::all(form, &head.headers, &listed)
        }
        models::Asked::One(form, name) => models::one(form, &head.headers, &*find(&name)?),
        models::Asked::Show => {
            let body = body::read(body, body_rules(snapshot, head.uri.path())).await?;
            let name = ollama::models::asked_to_show(&body, &BodyLimits::default())?;
            models::one(models::Form::Ollama, &head.headers, &*find(&name)?)
        }
        models::Asked::Loaded => ollama::models::ps().to_owned(),
        models::Asked::Version => ollama::models::version(env!("CARGO_PKG_VERSION")),
    })
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

/// Answers a request about a response that its provider keeps.
async fn kept(
    worker: &Rc<Worker>,
    (snapshot, client): (&Snapshot, &ClientKey),
    asked: (&Place, &Parts),
    body: Incoming,
    early: &Early,
) -> Response<RouterBody> {
    let read = match asked.1.method {
        Method::POST => body::read(body, body_rules(snapshot, asked.1.uri.path())).await.map(drop),
        _ => Ok(()),
    };
    let given = match read {
        Ok(()) => kept::serve(worker, snapshot, client, asked, early.id).await,
        Err(error) => Err(error),
    };
    match given {
        Ok(Given { mut response, target }) => {
            let took = clock::now() - early.began;
            early.note(worker, "kept", &target.name, response.status().as_u16());
            let headers = response.headers_mut();
            respond::put_own_headers(headers, early.id, "pinned", took);
            headers.insert(respond::SERVED_BY, target.served_by.clone());
            headers.insert(respond::ATTEMPTS, HeaderValue::from_static("1"));
            response
        }
        Err(error) => refused(worker, early, &error),
    }
}

/// Refuses a request whose body was read, unless it was too large or too slow for that.
fn refused(worker: &Rc<Worker>, early: &Early, error: &ErrorBody) -> Response<RouterBody> {
    closing(early.refuse(worker, "invalid", error), matches!(error.status, 408 | 413))
}

/// Reads and validates a request for a model; the error is what its client is told.
async fn admit(
    worker: &Rc<Worker>,
    snapshot: Arc<Snapshot>,
    arrival: Box<Arrival>,
    (head, body): (&Parts, Incoming),
    early: &mut Early,
    answering: &Answering,
) -> Result<Admitted, Response<RouterBody>> {
    let lane = hints::lane(&head.headers, &arrival.client);
    if let Some(reason) = worker.app.memory.grade().against(lane) {
        return Err(early.shed(worker, lane, reason));
    }
    let received = match receive(&snapshot, &arrival, head, body, answering).await {
        Ok(received) => received,
        Err(error) => {
            let mut response = early.refuse(worker, "invalid", &error);
            // What is left of the body may still be on its way; the next request could not be found behind it.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Err(response);
        }
    };
    let Received { body, request, upload } = received;
    answering.set(upload.is_none());
    let began = clock::now();
    let key = match idempotency::key(&worker.app, &head.headers) {
        Ok(Some(_)) if upload.is_some() => {
            return Err(early.refuse(worker, "idempotency", &idempotency::passes_by()));
        }
        Ok(key) => key,
        Err(error) => return Err(early.refuse(worker, "idempotency", &error)),
    };
    let asked = (arrival.dialect, &arrival.asked);
    let prepared = match request {
        None if arrival.asked.operation == Operation::Infer => {
            kserve::prepare(&snapshot, &arrival.client, head, &body, arrival.at)
        }
        None => prepare(&snapshot, &arrival.client, asked, &head.headers, &body, arrival.at),
        Some(request) => {
            prepare_read(&snapshot, &arrival.client, asked, &head.headers, (request, &body), arrival.at)
        }
    };
    Validated { snapshot, arrival, prepared, body, upload, lane, key, began }.admit(worker, early)
}

/// A request that was looked at.
pub(super) struct Validated {
    /// The configuration it arrived under.
    pub(super) snapshot: Arc<Snapshot>,
    /// What is known of its head.
    pub(super) arrival: Box<Arrival>,
    /// What was understood of it, or why it is refused.
    pub(super) prepared: Result<Prepared, Refused>,
    /// Its body.
    pub(super) body: Bytes,
    /// What of its body is still on its way.
    pub(super) upload: Option<Upload>,
    /// The lane that its head asks for.
    pub(super) lane: Lane,
    /// Its idempotency key.
    pub(super) key: Option<idempotency::Key>,
    /// When the router's own work began.
    pub(super) began: Now,
}

impl Validated {
    /// Refuses a request, or says how it is answered.
    pub(super) fn admit(
        self,
        worker: &Rc<Worker>,
        early: &mut Early,
    ) -> Result<Admitted, Response<RouterBody>> {
        let Self { snapshot, arrival, prepared, body, upload, lane, key, began } = self;
        early.began = began;
        let mut prepared = prepared.map_err(|refused| {
            early.model = refused.model;
            early.refuse(worker, "invalid", &refused.error)
        })?;
        early.model = Some(Name::clone(&prepared.model.name));
        pins::pin(&worker.app, &arrival.client, &mut prepared)
            .map_err(|error| early.refuse(worker, "invalid", &error))?;
        // The model may have put it into another lane than its head said.
        let moved = prepared.facts.lane != lane;
        if let Some(reason) = worker.app.memory.grade().against(prepared.facts.lane).filter(|_| moved) {
            return Err(early.shed(worker, prepared.facts.lane, reason));
        }
        if let Some(estimate) = estimate(&snapshot, &arrival, &prepared) {
            return Err(early.tell(estimate));
        }
        Ok(match key {
            None => {
                let exchange = Exchange::new(Rc::clone(worker), snapshot, arrival, prepared, body, began);
                Admitted::Alone(exchange.passing(upload))
            }
            Some(key) => Admitted::Keyed(Box::new((Asked { snapshot, arrival, prepared, body, began }, key))),
        })
    }
}

/// A request that is answered by a deployment.
pub(super) enum Admitted {
    /// It is sent on.
    Alone(Box<Exchange>),
    /// So it is, unless another one with its idempotency key was.
    Keyed(Box<(Asked, idempotency::Key)>),
}

impl Admitted {
    /// The answer.
    pub(super) async fn run(self, worker: &Rc<Worker>, early: &Early) -> Response<RouterBody> {
        match self {
            Self::Alone(exchange) => exchange.run().await,
            Self::Keyed(keyed) => {
                let (asked, key) = *keyed;
                // Boxed, for the room of what few requests need is moved about with every request.
                match Box::pin(idempotency::serve(worker, asked, &key)).await {
                    Ok(response) => response,
                    Err(error) => early.refuse(worker, "idempotency", &error),
                }
            }
        }
    }
}

/// Reads a body as far as it has to be there.
async fn receive(
    snapshot: &Snapshot,
    arrival: &Arrival,
    head: &Parts,
    body: Incoming,
    answering: &Answering,
) -> Result<Received, ErrorBody> {
    let path = match arrival.asked.operation {
        // Whichever of its paths it came by.
        Operation::Task(task) => task.path(),
        // Its path names its model.
        Operation::Infer => Operation::Infer.path(),
        Operation::Chat | Operation::Completion | Operation::Embedding | Operation::Response => {
            head.uri.path()
        }
    };
    let rules = body_rules(snapshot, path);
    match arrival.asked.operation {
        Operation::Task(task) if task.is_multipart() => {
            let limits = &snapshot.config.limits;
            // Boxed, for the room of what few requests need is moved about with every request.
            Box::pin(form::receive(task, &head.headers, body, rules, limits, answering)).await
        }
        Operation::Chat
        | Operation::Completion
        | Operation::Task(_)
        | Operation::Embedding
        | Operation::Infer
        | Operation::Response => body::read(body, rules).await.map(Received::from),
    }
}

/// The answer to a request for a number of tokens, where no deployment of the model can be asked in the client's dialect:
/// what routing takes the prompt for.
fn estimate(snapshot: &Snapshot, arrival: &Arrival, prepared: &Prepared) -> Option<String> {
    if arrival.asked.elsewhere != Elsewhere::Estimated {
        return None;
    }
    let model = snapshot.config.models.get(&*prepared.model.name)?;
    let takes = |deployment: &DeploymentConfig| {
        let provider = snapshot.config.providers.get(&deployment.provider);
        provider.and_then(ProviderConfig::dialect).is_some_and(|to| to.takes(arrival.dialect, &arrival.asked))
    };
    if model.deployments.iter().any(takes) {
        return None;
    }
    Some(arrival.dialect.dialect.counted(prepared.request.tokens_in_estimate().into()))
}

pub(super) fn body_rules(snapshot: &Snapshot, path: &str) -> BodyRules {
    let limits = &snapshot.config.limits;
    BodyRules {
        bytes_max: limits.body_bytes_max_of(path),
        time_max: Duration::from_millis(limits.body_read_ms),
        bytes_per_s_min: limits.body_min_bytes_per_s,
    }
}
