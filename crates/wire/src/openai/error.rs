//! Errors to clients in the OpenAI dialect, and what an upstream's errors mean.

use std::borrow::Cow;

use bytes::Bytes;

use crate::json::quote;

mod classify;
mod quota;
mod retry_after;

pub use classify::{Fault, FaultKind, classify};
pub use retry_after::retry_after_ms;

/// Who an error comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Pointsman itself.
    Router,
    /// The provider of this name.
    Provider(String),
}

impl Who {
    /// The name in error bodies: `router` or `provider:<name>`.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::Router => Cow::Borrowed("router"),
            Self::Provider(name) => Cow::Owned(format!("provider:{name}")),
        }
    }
}

/// An error as a client gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// HTTP status.
    pub status: u16,
    /// The dialect's `type`.
    pub kind: &'static str,
    /// The dialect's `code`.
    pub code: Option<Cow<'static, str>>,
    /// The field of the request that is at fault.
    pub param: Option<String>,
    /// What went wrong and what to do next.
    pub message: String,
    /// The id that the provider gave its answer, where it failed.
    pub provider_request_id: Option<String>,
    /// Who failed.
    pub who: Who,
}

const INVALID_REQUEST: &str = "invalid_request_error";
const SERVER_ERROR: &str = "server_error";

impl ErrorBody {
    /// An error of the router itself.
    #[cold]
    pub fn router(
        status: u16,
        kind: &'static str,
        code: impl Into<Option<&'static str>>,
        message: impl Into<String>,
    ) -> Self {
        let code = code.into().map(Cow::Borrowed);
        let (message, who) = (message.into(), Who::Router);
        Self { status, kind, code, param: None, message, provider_request_id: None, who }
    }

    /// The same error, caused by a provider.
    #[must_use]
    pub fn by_provider(self, name: impl Into<String>) -> Self {
        Self { who: Who::Provider(name.into()), ..self }
    }

    /// The same error, with the field at fault.
    #[must_use]
    pub fn with_param(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The same error, with the provider's own word for it instead of ours, or none.
    #[must_use]
    pub fn with_code(self, code: Option<String>) -> Self {
        Self { code: code.map(Cow::Owned), ..self }
    }

    /// The same error, with the id that the provider gave its answer, if it is the provider's.
    #[must_use]
    pub fn with_provider_request_id(self, id: Option<String>) -> Self {
        let provider_request_id = id.filter(|_| matches!(self.who, Who::Provider(_)));
        Self { provider_request_id, ..self }
    }

    /// 401: the client key is absent or unknown.
    #[cold]
    pub fn bad_key(message: impl Into<String>) -> Self {
        Self::router(401, INVALID_REQUEST, "invalid_api_key", message)
    }

    /// 403: the client key may not use the model.
    pub fn model_not_allowed(model: &str) -> Self {
        let message = format!("this key may not use the model `{model}`; GET /v1/models lists those it may");
        Self::router(403, INVALID_REQUEST, "model_not_allowed", message).with_param("model")
    }

    /// 404: there is no such model.
    pub fn model_not_found(model: &str) -> Self {
        let message = format!("the model `{model}` does not exist; GET /v1/models lists those that do");
        Self::router(404, INVALID_REQUEST, "model_not_found", message).with_param("model")
    }

    /// 405: the path exists, the method does not fit.
    pub fn method_not_allowed(method: &str, path: &str, allowed: &str) -> Self {
        let message = format!("{path} does not take {method}; use {allowed}");
        Self::router(405, INVALID_REQUEST, "method_not_allowed", message)
    }

    /// 400: the request is malformed.
    #[cold]
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::router(400, INVALID_REQUEST, None, message)
    }

    /// 413: the body is larger than `bytes_max`.
    pub fn too_big(bytes_max: u64) -> Self {
        let message = format!("the body is larger than the {bytes_max} bytes this route accepts");
        Self::router(413, INVALID_REQUEST, "request_too_large", message)
    }

    /// 415: the body is not declared as JSON.
    pub fn wrong_content_type(content_type: &str) -> Self {
        let message = format!("the content type `{content_type}` is not understood; send application/json");
        Self::router(415, INVALID_REQUEST, "unsupported_media_type", message)
    }

    /// 408: the client took too long to send its request.
    pub fn request_timeout() -> Self {
        Self::router(408, INVALID_REQUEST, "request_timeout", "the request did not arrive in time")
    }

    /// 429: too many requests or tokens a minute; `what` is `requests` or `tokens`.
    pub fn rate_limited(what: &'static str, message: impl Into<String>) -> Self {
        Self::router(429, what, "rate_limit_exceeded", message)
    }

    /// 429: the budget is used up.
    pub fn budget_exhausted(message: impl Into<String>) -> Self {
        Self::router(429, "insufficient_quota", "insufficient_quota", message)
    }

    /// 503: too much to do at the moment.
    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::router(503, SERVER_ERROR, "overloaded", message)
    }

    /// 503: no deployment can serve the request now.
    pub fn no_healthy_upstream(message: impl Into<String>) -> Self {
        Self::router(503, SERVER_ERROR, "no_healthy_upstream", message)
    }

    /// 502: no connection to the provider could be made.
    pub fn upstream_connect_failed(provider: &str, why: Option<&str>) -> Self {
        let why = why.map(|why| format!(": {why}")).unwrap_or_default();
        let message = format!("no connection to provider `{provider}` could be made{why}");
        Self::router(502, SERVER_ERROR, "upstream_connect_failed", message).by_provider(provider)
    }

    /// 503: the gateway stops before the answer is complete.
    pub fn shutting_down() -> Self {
        Self::router(503, SERVER_ERROR, "shutting_down", "the gateway is shutting down; ask again")
    }

    /// 503: the deployment was drained before the answer was complete.
    pub fn drained() -> Self {
        let message = "the deployment was taken out of service before it was done; ask again";
        Self::router(503, SERVER_ERROR, "deployment_drained", message)
    }

    /// 502: the connection was lost after the request was sent.
    pub fn upstream_reset(provider: &str) -> Self {
        let message = format!("provider `{provider}` closed the connection before its answer was complete");
        Self::router(502, SERVER_ERROR, "upstream_reset", message).by_provider(provider)
    }

    /// 502: the provider's answer is not what its protocol allows, such as a redirect.
    pub fn upstream_protocol(provider: &str, detail: &str) -> Self {
        let message = format!("provider `{provider}` gave an answer that cannot be relayed: {detail}");
        Self::router(502, SERVER_ERROR, "upstream_protocol", message).by_provider(provider)
    }

    /// 502: every credential of the provider was refused.
    pub fn upstream_refused_credential(provider: &str) -> Self {
        let message =
            format!("provider `{provider}` refused the router's credential; its operator has to look");
        Self::router(502, SERVER_ERROR, "upstream_credential", message).by_provider(provider)
    }

    /// 502: the provider does not know the upstream model, or not this operation.
    pub fn upstream_model_missing(provider: &str) -> Self {
        let message = format!(
            "provider `{provider}` does not know the model or the operation it was asked for; its operator has to look"
        );
        Self::router(502, SERVER_ERROR, "upstream_model_missing", message).by_provider(provider)
    }

    /// 504: the provider did not answer, or did not go on, in time.
    pub fn upstream_timeout(provider: &str, what: &str) -> Self {
        let message = format!("provider `{provider}` took too long: {what}");
        Self::router(504, SERVER_ERROR, "upstream_timeout", message).by_provider(provider)
    }

    /// 504: the request's own deadline passed.
    pub fn deadline_exceeded() -> Self {
        Self::router(504, SERVER_ERROR, "deadline_exceeded", "the request's deadline passed")
    }

    /// 500: a defect of the router.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::router(500, SERVER_ERROR, "internal_error", message)
    }

    /// The body: `{"error":{"message","type","param","code","who"}}`, with `provider_request_id` where there is one.
    pub fn to_json(&self) -> Bytes {
        Bytes::from(format!(r#"{{"error":{{{}}}}}"#, self.members()))
    }

    /// The members of the error object, without its braces.
    pub(crate) fn members(&self) -> String {
        let id = self.provider_request_id.as_deref();
        let id = id.map_or_else(String::new, |id| format!(r#","provider_request_id":{}"#, quote(id)));
        let (kind, who) = (quote(self.kind), quote(&self.who.name()));
        format!(r#"{},"type":{kind},"who":{who}{id}"#, self.flat_members())
    }

    /// The members that also stand at the top of an error event of a response.
    pub(super) fn flat_members(&self) -> String {
        let optional = |value: Option<&str>| value.map_or_else(|| "null".to_owned(), quote);
        let (param, code) = (optional(self.param.as_deref()), optional(self.code.as_deref()));
        format!(r#""message":{},"param":{param},"code":{code}"#, quote(&self.message))
    }
}

/// Why a request is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    /// HTTP status: 400, or 404 for a model that cannot exist.
    pub status: u16,
    /// The dialect's `code`.
    pub code: Option<&'static str>,
    /// The field at fault, such as `messages[2].content`.
    pub param: Option<String>,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Invalid {
    /// A 400 that is about no single field.
    #[cold]
    pub fn body(message: impl Into<String>) -> Self {
        Self { status: 400, code: None, param: None, message: message.into() }
    }

    /// A 400 about one field.
    #[cold]
    pub fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { status: 400, code: None, param: Some(param.into()), message: message.into() }
    }

    /// The same with a code.
    #[must_use]
    pub(super) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }
}

impl From<Invalid> for ErrorBody {
    fn from(invalid: Invalid) -> Self {
        let body = Self::router(invalid.status, INVALID_REQUEST, invalid.code, invalid.message);
        Self { param: invalid.param, ..body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_with_all_five_members() {
        let body = ErrorBody::upstream_reset("gpu \"a\"\n").to_json();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let error = value["error"].as_object().unwrap();
        assert_eq!(
            error.keys().map(String::as_str).collect::<Vec<_>>(),
            ["code", "message", "param", "type", "who"]
        );
        assert_eq!(error["who"], "provider:gpu \"a\"\n");
        assert_eq!(error["code"], "upstream_reset");
        assert!(error["param"].is_null());
        let id = || Some("req_1".to_owned());
        let body = ErrorBody::upstream_reset("p").with_provider_request_id(id()).to_json();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["error"]["provider_request_id"], "req_1");
        let ours = ErrorBody::overloaded("x").with_provider_request_id(id());
        assert_eq!(ours.provider_request_id, None, "no provider failed");
    }

    #[test]
    fn an_invalid_request_keeps_its_field() {
        let body = ErrorBody::from(Invalid::field("messages[2].content", "must be a string"));
        assert_eq!((body.status, body.kind), (400, "invalid_request_error"));
        assert_eq!(body.param.as_deref(), Some("messages[2].content"));
        assert_eq!(body.who, Who::Router);
    }

    #[test]
    fn conditions_have_their_status_and_code() {
        let check = |body: ErrorBody, status: u16, kind: &str, code: &str| {
            assert_eq!((body.status, body.kind, body.code.as_deref()), (status, kind, Some(code)));
        };
        check(ErrorBody::bad_key("x"), 401, "invalid_request_error", "invalid_api_key");
        check(ErrorBody::model_not_allowed("m"), 403, "invalid_request_error", "model_not_allowed");
        check(ErrorBody::model_not_found("m"), 404, "invalid_request_error", "model_not_found");
        check(ErrorBody::too_big(5), 413, "invalid_request_error", "request_too_large");
        check(ErrorBody::rate_limited("tokens", "x"), 429, "tokens", "rate_limit_exceeded");
        check(ErrorBody::budget_exhausted("x"), 429, "insufficient_quota", "insufficient_quota");
        check(ErrorBody::overloaded("x"), 503, "server_error", "overloaded");
        check(ErrorBody::no_healthy_upstream("x"), 503, "server_error", "no_healthy_upstream");
        check(ErrorBody::upstream_connect_failed("p", None), 502, "server_error", "upstream_connect_failed");
        check(ErrorBody::upstream_reset("p"), 502, "server_error", "upstream_reset");
        check(ErrorBody::upstream_timeout("p", "idle"), 504, "server_error", "upstream_timeout");
    }
}
