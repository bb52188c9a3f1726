//! What the client is told: the head of a relayed answer, or an error with who failed and what to do.

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use pointsman_routing::decision::{Outcome, Rejection};
use pointsman_routing::flow::{Action, Input, Refusal};
use pointsman_routing::{Failure, FailureClass};
use pointsman_wire::dialect::{self, ProviderDef};
use pointsman_wire::openai::error::ErrorBody;

use super::relay::Relay;
use super::{Exchange, RouterBody, attempt, words};
use crate::clock;
use crate::http::respond::{self, ATTEMPTS, DECISION, OVERHEAD, SERVED_BY, text_value};
use crate::telemetry::record::compact;
use crate::upstream::head::Framing;

pub(crate) const COST: HeaderName = HeaderName::from_static("x-pointsman-cost-usd");
pub(crate) const QUEUE: HeaderName = HeaderName::from_static("x-pointsman-queue-ms");
/// The model that answered, where it is not the one asked for.
const MODEL: HeaderName = HeaderName::from_static("x-pointsman-model");
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

impl Exchange {
    /// Releases the head of the deployment's answer, and what of its body is there.
    pub(super) fn respond(mut self: Box<Self>) -> Response<RouterBody> {
        if !self.keeps_request() {
            self.outgoing = None;
        }
        let Some(head) = self.attempt.as_mut().and_then(|attempt| attempt.head.take()) else {
            return self.give_up();
        };
        let mut response = Response::new(RouterBody::Full(None));
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        self.status = Some(head.status.as_u16());
        let streams = self.attempt.as_deref().is_some_and(attempt::Attempt::is_event_stream);
        if streams {
            let headers = response.headers_mut();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
            headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
        }
        self.put_headers(response.headers_mut());
        if self.attempt.as_deref().is_some_and(attempt::Attempt::converts) {
            let id = self.provider_request_id();
            self.put_provider_request_id(response.headers_mut(), id.as_deref());
        }
        if let Some(whole) = self.whole_body(streams) {
            if let Some(cost) = self.cost_micro_usd {
                response.headers_mut().insert(COST, text_value(&micro_usd(cost)));
            }
            *response.body_mut() = RouterBody::Full(Some(whole));
            return response;
        }
        let length = match head.framing {
            Framing::Length(length) if !streams => Some(length),
            Framing::Empty => Some(0),
            Framing::Length(_) | Framing::Chunked | Framing::UntilClose => None,
        };
        *response.body_mut() = RouterBody::Relay(Box::new(Relay::new(self, length)));
        response
    }

    /// The body of an answer that came in one piece with its end; the request is then settled at once.
    fn whole_body(&mut self, streams: bool) -> Option<Bytes> {
        let attempt = self.attempt.as_mut()?;
        if streams || attempt.ready.len() > 1 || !attempt.is_complete() {
            return None;
        }
        let whole = attempt.ready.pop().unwrap_or_default();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(input @ Input::Done(_)) = attempt.poll(&mut cx) else {
            attempt.ready.push(whole);
            return None;
        };
        let now = clock::now();
        let action = self.step(input, now);
        debug_assert!(matches!(action, Action::Finish), "a complete answer ends its flow");
        self.settle(now);
        Some(whole)
    }

    /// Answers with an error, because no deployment was chosen or the last attempt failed.
    #[cold]
    pub(super) fn refuse(mut self: Box<Self>, refusal: &Refusal) -> Response<RouterBody> {
        let (error, retry_after) = match refusal {
            Refusal::NotRouted(decision, why) => {
                self.provider_error = None;
                let retry_after = match decision.outcome {
                    Outcome::Rejected { retry_after, .. } => retry_after,
                    Outcome::Chosen(_) | Outcome::Queued { .. } => None,
                };
                (self.saying_pinned(self.error_of_rejection(*why)), retry_after)
            }
            Refusal::Failed(failure) => {
                let error = self
                    .refusal
                    .take()
                    .map_or_else(|| self.saying_pinned(self.error_of(failure)), |refusal| *refusal);
                if !is_about_the_request(failure.class) {
                    self.provider_error = None;
                }
                (error, failure.retry_after)
            }
        };
        self.outgoing = None;
        self.attempt = None;
        self.hedge = None;
        let response = self.error_response(&error, retry_after);
        self.status = Some(response.status().as_u16());
        self.settle(clock::now());
        response
    }

    /// Answers that the process stops.
    #[cold]
    pub(super) fn refuse_to_stop(mut self: Box<Self>) -> Response<RouterBody> {
        self.stop();
        self.outgoing = None;
        self.attempt = None;
        self.hedge = None;
        self.provider_error = None;
        let error = ErrorBody::shutting_down();
        let response = self.error_response(&error, None);
        self.status = Some(response.status().as_u16());
        self.settle(clock::now());
        response
    }

    #[cold]
    pub(super) fn error_response(
        &mut self,
        error: &ErrorBody,
        retry_after: Option<Duration>,
    ) -> Response<RouterBody> {
        let of_rerank = respond::error_of_rerank(self.arrival.asked.call, error, self.arrival.id);
        let body = of_rerank
            .or_else(|| self.provider_error.as_ref().and_then(|provider| self.words_of(provider, error)));
        let mut response = respond::error(self.arrival.dialect, error, body, self.arrival.id);
        let wants_retry = matches!(error.status, 429 | 503);
        if let Some(after) =
            retry_after.or_else(|| wants_retry.then_some(Duration::from_secs(1))).filter(|_| wants_retry)
        {
            let seconds = after.as_millis().div_ceil(1000).max(1) as u64;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        self.put_headers(response.headers_mut());
        self.put_provider_request_id(response.headers_mut(), error.provider_request_id.as_deref());
        response
    }

    /// Puts the provider's id of an answer where the client's library looks for it, to be told when the provider is asked
    /// what went wrong.
    fn put_provider_request_id(&self, headers: &mut HeaderMap, id: Option<&str>) {
        if let Some((name, id)) = self.arrival.dialect.request_id_header.zip(id) {
            headers.insert(HeaderName::from_static(name), text_value(id));
        }
    }

    /// A provider's own error, where it is in the client's dialect: that of requests it takes as they are.
    fn words_of(&self, provider: &words::ProviderError, error: &ErrorBody) -> Option<Bytes> {
        if !self.is_in_clients_words(provider) {
            return None;
        }
        if self.arrival.dialect.is_openai() {
            return provider.body_with(error);
        }
        serde_json::from_slice::<serde_json::Value>(&provider.body).ok().map(|_| provider.body.clone())
    }

    /// Whether a provider's own error is in the client's dialect.
    fn is_in_clients_words(&self, provider: &words::ProviderError) -> bool {
        let client = self.arrival.dialect.name;
        let speaks = |def: &ProviderDef| def.relays.iter().any(|relay| relay.client == client);
        dialect::provider(provider.dialect).is_some_and(speaks)
    }

    /// The id that the provider gave the answer of the last attempt.
    fn provider_request_id(&self) -> Option<String> {
        let of_head = self.flow.attempt().and_then(|attempt| attempt.said.as_ref()?.request_id.as_deref());
        let of_body = || self.provider_error.as_ref()?.fault.request_id.clone();
        of_head.map(str::to_owned).or_else(of_body)
    }

    /// The error for a failed attempt.
    pub(super) fn error_of(&self, failure: &Failure) -> ErrorBody {
        self.error_by_class(failure).with_provider_request_id(self.provider_request_id())
    }

    #[cold]
    fn error_by_class(&self, failure: &Failure) -> ErrorBody {
        let last = self.flow.attempt();
        let provider = last.map_or("", |attempt| &attempt.provider);
        let said = self.provider_error.as_ref();
        let message = || {
            let said = said.and_then(|said| said.fault.message.clone());
            said.unwrap_or_else(|| format!("provider `{provider}` refused the request"))
        };
        let from_provider = |status: u16, kind: &'static str, code: Option<&'static str>| {
            let error = ErrorBody::router(status, kind, code, message()).by_provider(provider);
            let fault = said.map(|said| &said.fault);
            let own = || Some(fault?.code.clone()?).filter(|own| own != kind);
            let error = if code.is_some() { error } else { error.with_code(own()) };
            match fault.and_then(|fault| fault.param.as_ref()) {
                Some(param) => error.with_param(param),
                None => error,
            }
        };
        match failure.class {
            FailureClass::Client | FailureClass::ContentPolicy | FailureClass::ContextLength => {
                from_provider(failure.status.unwrap_or(502), "invalid_request_error", code_of(failure.class))
            }
            FailureClass::CredentialQuota => {
                let keeps_code = said.is_some_and(|said| self.is_in_clients_words(said));
                ErrorBody::upstream_quota(provider, failure.status, said.map(|said| &said.fault), keeps_code)
            }
            FailureClass::CredentialDead => ErrorBody::upstream_refused_credential(provider),
            FailureClass::Overloaded => from_provider(503, "server_error", Some("overloaded")),
            FailureClass::ModelMissing => ErrorBody::upstream_model_missing(provider),
            FailureClass::Connect => {
                let detail = self.attempt.as_deref().and_then(attempt::Attempt::detail);
                ErrorBody::upstream_connect_failed(provider, detail)
            }
            FailureClass::Transient if said.is_some() => {
                from_provider(status_of_transient(failure.status), "server_error", None)
            }
            FailureClass::Transient => ErrorBody::upstream_reset(provider),
            FailureClass::SchemaMismatch => self.error_of_misfit(provider),
            FailureClass::Drained => ErrorBody::drained(),
            FailureClass::Protocol => {
                let detail = self.attempt.as_deref().and_then(attempt::Attempt::detail);
                ErrorBody::upstream_protocol(provider, detail.unwrap_or("it is not a complete HTTP answer"))
            }
            FailureClass::ConnectTimeout => ErrorBody::upstream_timeout(provider, "no connection in time"),
            FailureClass::FirstContentTimeout => ErrorBody::upstream_timeout(provider, "no content in time"),
            FailureClass::IdleTimeout => ErrorBody::upstream_timeout(provider, "its content stopped coming"),
            FailureClass::TotalTimeout => ErrorBody::deadline_exceeded(),
        }
    }

    fn error_of_rejection(&self, why: Rejection) -> ErrorBody {
        let model = &self.model.name;
        let facts = self.flow.facts();
        let version = facts.version.as_deref().unwrap_or("");
        let bad = |code: &'static str, message: String| {
            ErrorBody::router(400, "invalid_request_error", code, message)
        };
        match why {
            Rejection::NoDeployment => ErrorBody::no_healthy_upstream(format!("model `{model}` has no deployment")),
            Rejection::NoSuchVersion => ErrorBody::router(
                404,
                "invalid_request_error",
                "model_not_found",
                format!("model `{model}` has no version `{version}`"),
            )
            .with_param("model"),
            Rejection::NoSuchTags => {
                bad("no_such_tags", format!("no deployment of model `{model}` carries the tags asked for"))
                    .with_param("x-pointsman-tags")
            }
            Rejection::NotCapable => {
                let needs = facts.needs.names().collect::<Vec<_>>().join(", ");
                bad("not_capable", format!("no deployment of model `{model}` can do all of: {needs}"))
            }
            Rejection::Pinned => self.error_of_pin(),
            Rejection::TooLong => bad(
                "context_length_exceeded",
                format!(
                    "the prompt (about {} tokens) and the output asked for fit no deployment of model `{model}`",
                    facts.tokens_in_estimate
                ),
            )
            .with_param("messages"),
            Rejection::Unavailable => ErrorBody::no_healthy_upstream(format!(
                "no deployment of model `{model}` can serve now; see x-pointsman-decision for each one's reason"
            )),
            Rejection::TooLate => ErrorBody::deadline_exceeded(),
            Rejection::QueueFull => {
                ErrorBody::overloaded(format!("all slots of model `{model}` are taken and its queue is full"))
            }
            Rejection::Overloaded => ErrorBody::overloaded(format!(
                "model `{model}` has more requests than it can serve; newer ones are served first, and this one had \
                 waited too long"
            )),
            Rejection::QueueTimeout => {
                ErrorBody::overloaded(format!("no slot of model `{model}` became free in the time a request may wait"))
            }
        }
    }

    fn put_headers(&mut self, headers: &mut HeaderMap) {
        respond::put_request_id(headers, self.arrival.id);
        if self.upload.as_ref().is_some_and(|upload| !upload.is_complete()) {
            // What is left of the body may still be on its way; the next request could not be found behind it.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(attempt) = self.flow.attempt() {
            let target = self.snapshot.targets.get(&attempt.deployment);
            let name = target.map_or_else(|| text_value(&attempt.name), |target| target.served_by.clone());
            headers.insert(SERVED_BY, name);
        } else {
            headers.insert(SERVED_BY, HeaderValue::from_static("router"));
        }
        if let Some(model) = self.flow.other_model() {
            headers.insert(MODEL, text_value(model));
        }
        if let Some(decision) = self.flow.decision() {
            headers.insert(DECISION, text_value(&compact(decision, &self.snapshot.names)));
        }
        let attempts = self.flow.attempts().len();
        // Most take one, and a static value needs no allocation.
        let one = HeaderValue::from_static("1");
        headers.insert(ATTEMPTS, if attempts == 1 { one } else { HeaderValue::from(attempts as u64) });
        let queued = self.flow.queue_wait();
        if !queued.is_zero() {
            headers.insert(QUEUE, HeaderValue::from(queued.as_millis() as u64));
        }
        let overhead = (clock::now() - self.began).saturating_sub(self.waited);
        self.overhead = Some(overhead);
        headers.insert(OVERHEAD, HeaderValue::from(overhead.as_micros() as u64));
    }
}

/// The code of an error that is about the request, as OpenAI has it; `None`: the provider's own, if it has one.
const fn code_of(class: FailureClass) -> Option<&'static str> {
    if matches!(class, FailureClass::ContextLength) {
        Some("context_length_exceeded")
    } else if matches!(class, FailureClass::ContentPolicy) {
        Some("content_filter")
    } else {
        None
    }
}

/// The status for a provider's failure that may pass. What a provider says of itself with a status of the 4xx would tell
/// the client that its own request was late, early, or failed.
fn status_of_transient(said: Option<u16>) -> u16 {
    match said {
        Some(408) => 504,
        // What the request names is being changed by another: about the request after all.
        Some(status @ (409 | 500..)) => status,
        Some(_) | None => 502,
    }
}

/// Whether a provider's own error is passed on as it came: only when it speaks of the client's request. The others may
/// speak of the operator's account and keys.
const fn is_about_the_request(class: FailureClass) -> bool {
    matches!(class, FailureClass::Client | FailureClass::ContextLength | FailureClass::ContentPolicy)
}

impl words::ProviderError {
    /// The provider's own error object with who failed and the id put in, if it sent one in the client's dialect.
    fn body_with(&self, told: &ErrorBody) -> Option<Bytes> {
        let mut body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        // Some say beside the error whose account it is.
        body.as_object_mut()?.retain(|name, _| name != "user_id");
        let error = body.get_mut("error")?.as_object_mut()?;
        error.get("message")?.as_str()?;
        error.insert("who".to_owned(), told.who.name().into());
        if let Some(id) = &told.provider_request_id {
            error.insert("provider_request_id".to_owned(), id.as_str().into());
        }
        Some(Bytes::from(body.to_string()))
    }
}

/// Millionths of a USD as USD, such as `0.001250`.
fn micro_usd(micro: u64) -> String {
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}
