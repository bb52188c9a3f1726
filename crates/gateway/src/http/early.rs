//! Answers that the router gives without asking a deployment, and their records.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use pointsman_routing::Now;
use pointsman_routing::catalog::Name;
use pointsman_routing::facts::Lane;
use pointsman_routing::shed::Reason;
use pointsman_wire::dialect::ClientDef;
use pointsman_wire::openai::error::ErrorBody;

use super::auth::ClientKey;
use super::respond;
use super::server::Worker;
use crate::clock;
use crate::exchange::RouterBody;
use crate::telemetry::record::{Conversion, Record, RequestId};

/// What a client is told to wait that was turned away for want of memory: some answers take about as long to end.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(2);

/// What is known of a request that the router answers without asking a deployment.
pub(super) struct Early {
    pub(super) id: RequestId,
    pub(super) arrived: Now,
    /// When the router's own work began.
    pub(super) began: Now,
    pub(super) operation: &'static str,
    /// Which of the dialect's calls it is; empty until that is known.
    pub(super) call: &'static str,
    /// The dialect that its errors are told in.
    pub(super) dialect: &'static ClientDef,
    pub(super) client: Option<Arc<ClientKey>>,
    pub(super) model: Option<Name>,
}

impl Early {
    pub(super) fn new(id: RequestId, arrived: Now, dialect: &'static ClientDef) -> Self {
        Self {
            id,
            arrived,
            began: arrived,
            operation: "unknown",
            call: "",
            dialect,
            client: None,
            model: None,
        }
    }

    /// Answers with what the router itself knows.
    pub(super) fn tell(&self, body: String) -> Response<RouterBody> {
        let mut response = respond::json(StatusCode::OK, body.into());
        respond::put_own_headers(response.headers_mut(), self.id, "router", clock::now() - self.began);
        response
    }

    /// Turns a request away before its body is read, for want of memory.
    #[cold]
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
    #[cold]
    pub(super) fn refuse(
        &self,
        worker: &Worker,
        reason: &'static str,
        error: &ErrorBody,
    ) -> Response<RouterBody> {
        worker.app.metrics.refused(reason);
        self.end(worker, "invalid", &error.message, error)
    }

    #[cold]
    pub(super) fn end(
        &self,
        worker: &Worker,
        outcome: &'static str,
        detail: &str,
        error: &ErrorBody,
    ) -> Response<RouterBody> {
        let overhead = clock::now() - self.began;
        self.note(worker, outcome, detail, (self.dialect.error_status)(error));
        let body = respond::error_of_rerank(self.call, error, self.id);
        let mut response = respond::error(self.dialect, error, body, self.id);
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

    /// Records how it ended.
    pub(super) fn note(&self, worker: &Worker, outcome: &'static str, detail: &str, status: u16) {
        let now = clock::now();
        worker.app.record(Record {
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
            noted: Default::default(),
            ties: None,
            outcome,
            detail: Some(detail.to_owned()),
            status,
            usage: None,
            cost_micro_usd: None,
            hedge_cost_micro_usd: None,
            queue_us: 0,
            overhead_us: (now - self.began).as_micros() as u64,
            first_content_us: None,
            total_us: (now - self.arrived).as_micros() as u64,
            names: Arc::default(),
        });
    }
}
