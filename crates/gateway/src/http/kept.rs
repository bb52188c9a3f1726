//! Answers that a provider keeps: given again, cancelled or deleted by the account that made them.

use std::future::poll_fn;
use std::io;
use std::pin::Pin as Pinned;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::CONNECTION;
use http::request::Parts;
use http::{Method, Response, StatusCode};
use pointsman_routing::CredentialId;
use pointsman_wire::dialect::{Asked, RESPONSES};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{Operation, kept_hash};
use pointsman_wire::openai::responses::state::{Action, Place};
use smallvec::smallvec;
use tokio::time::{Sleep, sleep, timeout};

use super::auth::ClientKey;
use super::pins;
use super::route::printable;
use super::server::Worker;
use crate::clock;
use crate::exchange::RouterBody;
use crate::snapshot::{Snapshot, Target};
use crate::telemetry::record::RequestId;
use crate::upstream::connection::{Call, CallError};
use crate::upstream::credential::Credential;
use crate::upstream::head::Head;
use crate::upstream::stream::Stream;

/// Time for the head of an answer.
const HEAD_MAX: Duration = Duration::from_secs(60);
/// Time without a byte after which an answer is given up.
const IDLE_MAX: Duration = Duration::from_mins(5);

/// The methods that are understood at a place.
pub const fn methods(action: Action) -> &'static [Method] {
    match action {
        Action::Itself => &[Method::GET, Method::DELETE],
        Action::Cancel => &[Method::POST],
        Action::InputItems => &[Method::GET],
    }
}

/// What came of it: an answer and the deployment that gave it.
pub struct Given {
    /// The answer.
    pub response: Response<RouterBody>,
    /// Who gave it.
    pub target: Arc<Target>,
}

/// Asks the account that made an answer.
pub async fn serve(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    client: &ClientKey,
    (place, head): (&Place, &Parts),
    id: RequestId,
) -> Result<Given, ErrorBody> {
    let id_hash = kept_hash(&place.id, client.tenant_hash);
    let pin = pins::keeper(&worker.app, client, id_hash).ok_or_else(|| not_found(place))?;
    let target = snapshot.targets.get(&pin.deployment).ok_or_else(|| gone(place))?;
    let asked = Asked::of(Operation::Response);
    let dialect = target.endpoint.vendor.dialect;
    let path =
        dialect.relay_path(RESPONSES, &asked, &target.upstream_model_name).filter(|_| target.responses);
    let path = path.ok_or_else(|| gone(place))? + &place.below();
    let request = compose(snapshot, target, pin.credential, (&head.method, &path, head.uri.query()), id)
        .ok_or_else(|| gone(place))?;
    let called = timeout(HEAD_MAX, call(worker, target, &head.method, request)).await;
    let provider = &target.provider;
    let (call, answer) = match called {
        Ok(Ok(called)) => called,
        Ok(Err(error)) => return Err(ErrorBody::upstream_connect_failed(provider, Some(&error.to_string()))),
        Err(_) => return Err(ErrorBody::upstream_timeout(provider, "head")),
    };
    if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(ErrorBody::upstream_refused_credential(provider));
    }
    let deleted = head.method == Method::DELETE && answer.status.is_success();
    if deleted || answer.status == StatusCode::NOT_FOUND {
        worker.app.issued().forget(client.tenant_hash, id_hash);
    }
    let mut response = Response::new(RouterBody::Piped(Box::new(Piped {
        call: Some(call),
        target: Arc::clone(target),
        worker: Rc::clone(worker),
        idle: Box::pin(sleep(IDLE_MAX)),
    })));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().remove(CONNECTION);
    Ok(Given { response, target: Arc::clone(target) })
}

/// The bytes that ask for it; `None` if the credential is not known any more.
fn compose(
    snapshot: &Snapshot,
    target: &Target,
    credential: Option<CredentialId>,
    (method, path, query): (&Method, &str, Option<&str>),
    id: RequestId,
) -> Option<Bytes> {
    let (mut head, mut full) = (BytesMut::new(), path.to_owned());
    if let Some(query) = query {
        full.push(if path.contains('?') { '&' } else { '?' });
        full.push_str(query);
    }
    target.endpoint.write_head_of(method.as_str(), &full, &mut head);
    if let Some(credential) = credential {
        // Nobody who is signed for or given tokens keeps responses.
        let Credential::Header(value) = snapshot.credentials.get(&credential)? else { return None };
        target.endpoint.write_auth(&mut head, value);
    }
    head.put_slice(b"accept: application/json, text/event-stream\r\nx-request-id: ");
    head.put_slice(&id.to_hex());
    if *method == Method::POST {
        head.put_slice(b"\r\ncontent-length: 0");
    }
    head.put_slice(b"\r\n\r\n");
    Some(head.freeze())
}

/// Sends it. A kept connection may have been closed just then; what changes nothing is then asked again on a fresh one.
async fn call(
    worker: &Worker,
    target: &Target,
    method: &Method,
    request: Bytes,
) -> Result<(Call, Head), CallError> {
    if *method == Method::GET
        && let Some(kept) = worker.pool.take(&target.endpoint, clock::now())
    {
        let mut call = Call::new(kept, smallvec![request.clone()]);
        if let Ok(head) = poll_fn(|cx| call.poll_head(cx)).await {
            return Ok((call, head));
        }
    }
    let (stream, _) = Stream::connect(&target.endpoint).await?;
    let mut call = Call::new(stream, smallvec![request]);
    let head = poll_fn(|cx| call.poll_head(cx)).await?;
    Ok((call, head))
}

fn not_found(place: &Place) -> ErrorBody {
    let text = format!(
        "this gateway knows of no response `{}` given to you: it was never kept, is too old, or was made before a restart",
        printable(&place.id)
    );
    ErrorBody::router(404, "invalid_request_error", "response_not_found", text).with_param("id")
}

fn gone(place: &Place) -> ErrorBody {
    let text = format!(
        "the response `{}` is kept by an account that is not configured any more",
        printable(&place.id)
    );
    ErrorBody::router(404, "invalid_request_error", "issuer_unavailable", text).with_param("id")
}

/// A body that is passed on as it comes.
pub struct Piped {
    call: Option<Call>,
    target: Arc<Target>,
    worker: Rc<Worker>,
    idle: Pinned<Box<Sleep>>,
}

impl Piped {
    /// The next piece.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(call) = &mut self.call else { return Poll::Ready(None) };
        let ended = match call.poll_data(cx) {
            Poll::Ready(Some(Ok(data))) => {
                let next = tokio::time::Instant::now() + IDLE_MAX;
                self.idle.as_mut().reset(next);
                return Poll::Ready(Some(Ok(data)));
            }
            Poll::Ready(Some(Err(error))) => Some(io::Error::other(error.to_string())),
            Poll::Ready(None) => None,
            Poll::Pending => match self.idle.as_mut().poll(cx) {
                Poll::Ready(()) => Some(io::Error::new(io::ErrorKind::TimedOut, "the provider fell silent")),
                Poll::Pending => return Poll::Pending,
            },
        };
        let call = self.call.take();
        if ended.is_none()
            && let Some(stream) = call.and_then(Call::into_reusable)
        {
            self.worker.pool.put(&self.target.endpoint, stream, clock::now());
        }
        Poll::Ready(ended.map(Err))
    }

    /// Whether nothing follows.
    pub const fn is_at_end(&self) -> bool {
        self.call.is_none()
    }
}
