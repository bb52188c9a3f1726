//! Requests that carry an `Idempotency-Key`: the first with a key asks upstream, whoever comes with the same key and the
//! same body while it is under way gets the same answer as it comes, and later ones get it again. The rules stand in
//! [`pointsman_routing::idempotency`]; here the header is read, and answers and refusals are put into words.

use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use pointsman_routing::Now;
use pointsman_routing::idempotency::{Claim, Fingerprint, Ledger, Limits, Scope, Turn};
use pointsman_wire::openai::error::ErrorBody;
use ring::digest::{Context, SHA256};
use tokio::task::spawn_local;
use tokio::time::timeout_at;

use super::prepare::Prepared;
use super::respond::{self, ATTEMPTS, OVERHEAD};
use super::server::Worker;
use crate::app::App;
use crate::clock;
use crate::exchange::shared::{Came, Reader, Shared, Unreadable, drive};
use crate::exchange::{Arrival, CLIENT_CLOSED_REQUEST, COST, Exchange, QUEUE, RouterBody};
use crate::snapshot::Snapshot;
use crate::telemetry::record::{Conversion, Record, RequestId};
use crate::telemetry::ties::Ties;

/// The header that clients send.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that says of an answer that it was not made for this request alone: `joined` or `replayed`.
const RESULT: HeaderName = HeaderName::from_static("x-pointsman-idempotency");
/// The header with the id of the request that the answer was made for.
const FIRST: HeaderName = HeaderName::from_static("x-pointsman-first-request-id");
/// Bytes a key may have.
const KEY_BYTES_MAX: usize = 255;

/// All idempotency keys of the process. The lock is held for one look at a time, never across an await.
pub struct Idempotency(Mutex<Ledger<Arc<Shared>>>);

impl Idempotency {
    /// No keys yet.
    pub fn new(limits: Limits) -> Self {
        Self(Mutex::new(Ledger::new(limits)))
    }

    /// Other bounds hold from now on.
    pub fn configure(&self, limits: Limits) {
        self.lock().configure(limits);
    }

    /// The answer to the first request of this turn has so many bytes more; `false` if it cannot be kept.
    pub fn grow(&self, turn: Turn, bytes: u64) -> bool {
        self.lock().grow(turn, bytes)
    }

    /// The first request of this turn is over.
    pub fn end(&self, turn: Turn, keep: bool) {
        self.lock().end(turn, keep, clock::now());
    }

    /// Keys, bytes, and what gave way so far.
    pub fn state(&self) -> (usize, u64, u64) {
        let mut ledger = self.lock();
        ledger.expire(clock::now());
        (ledger.len(), ledger.bytes(), ledger.evicted())
    }

    fn lock(&self) -> MutexGuard<'_, Ledger<Arc<Shared>>> {
        // Every change of the ledger is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key as it is meant, without the quotes that the draft standard puts around it.
pub struct Key(Vec<u8>);

/// The request's key, if it has one and keys mean anything here.
pub fn key(app: &App, headers: &HeaderMap) -> Result<Option<Key>, ErrorBody> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if !app.idempotency.lock().is_on() {
        return Ok(None);
    }
    let bad = |text: &str| {
        app.metrics.idempotency("malformed");
        let text = format!("header `idempotency-key` {text}");
        ErrorBody::router(400, "invalid_request_error", "idempotency_key_malformed", text)
            .with_param(KEY.as_str())
    };
    if values.next().is_some() {
        return Err(bad("appears twice; send it once"));
    }
    let key = unquoted(value.as_bytes())
        .ok_or_else(|| bad("has a quote that does not end, or text after its end"))?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(bad(&format!("must have 1 to {KEY_BYTES_MAX} bytes; a UUID is a good key")));
    }
    if !key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        return Err(bad("must be printable ASCII; a UUID is a good key"));
    }
    Ok(Some(Key(key)))
}

/// The key inside the quotes of a structured header (RFC 8941 §3.3.3), or as it stands.
fn unquoted(value: &[u8]) -> Option<Vec<u8>> {
    let value = value.trim_ascii();
    let Some(quoted) = value.strip_prefix(b"\"") else { return Some(value.to_vec()) };
    let (mut key, mut bytes) = (Vec::with_capacity(quoted.len()), quoted.iter());
    loop {
        match *bytes.next()? {
            b'"' => break,
            b'\\' => key.push(*bytes.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
            byte => key.push(byte),
        }
    }
    bytes.as_slice().is_empty().then_some(key)
}

/// A request that was found valid.
pub struct Asked {
    /// The configuration it arrived under.
    pub snapshot: Arc<Snapshot>,
    /// What is known of its head.
    pub arrival: Box<Arrival>,
    /// What was understood of it.
    pub prepared: Prepared,
    /// Its body.
    pub body: Bytes,
    /// When the router's own work began.
    pub began: Now,
}

impl Asked {
    fn scope(&self, key: &Key) -> Scope {
        let (tenant, operation) =
            (self.arrival.client.tenant.as_bytes(), self.arrival.asked.operation.name());
        Scope(digest(&[tenant, self.arrival.dialect.name.as_bytes(), operation.as_bytes(), &key.0]))
    }

    /// Fallback models count, for a header may name them: who may not use one must not be given its answer.
    fn fingerprint(&self) -> Fingerprint {
        let (asked, named) = (&self.arrival.asked, &self.prepared.fallbacks.named);
        let path = [asked.call.as_bytes(), asked.model.as_deref().unwrap_or("").as_bytes()];
        let named = named.iter().map(|(name, _)| name.as_bytes());
        let parts = path.into_iter().chain([&*self.body]).chain(named);
        Fingerprint(digest(&parts.collect::<Vec<_>>()))
    }
}

/// SHA-256 over the parts, each behind its length, so that no two lists of parts look alike.
fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// Whether two requests are the same cannot be told of a body that is not there as a whole.
pub fn passes_by() -> ErrorBody {
    let text = "an Idempotency-Key cannot be kept for a form that is larger than `limits.multipart_buffer_bytes`; leave \
                the key out, or send a smaller form";
    ErrorBody::router(400, "invalid_request_error", "idempotency_body_too_large", text)
        .with_param("idempotency-key")
}

/// Answers a request with a key.
pub async fn serve(worker: &Rc<Worker>, asked: Asked, key: &Key) -> Result<Response<RouterBody>, ErrorBody> {
    let (scope, fingerprint) = (asked.scope(key), asked.fingerprint());
    let (app, id) = (&worker.app, asked.arrival.id);
    loop {
        let shared = |turn| Arc::new(Shared::new(id, turn));
        let claim = app.idempotency.lock().claim(scope, fingerprint, clock::now(), shared);
        let (result, shared) = match claim {
            Claim::Lead(_, shared) => ("first", shared),
            Claim::Join(shared) => ("joined", shared),
            Claim::Replay(shared) => ("replayed", shared),
            Claim::Conflict => return Err(conflict(app)),
            Claim::Spent => return Err(spent(app)),
            Claim::Full => return Err(full(app)),
        };
        let reader = match shared.read() {
            Ok(reader) => reader,
            Err(Unreadable::TooLarge) => return Err(spent(app)),
            Err(Unreadable::Abandoned) => {
                // Its last reader left this very moment; the key is free, and this request is the first anew.
                app.idempotency.end(shared.turn, false);
                continue;
            }
        };
        app.metrics.idempotency(result);
        if result == "first" {
            return Ok(lead(worker, asked, shared, reader).await);
        }
        return follow(worker, asked, result, shared.of, reader).await;
    }
}

/// Asks upstream, for this request and all that join.
async fn lead(
    worker: &Rc<Worker>,
    asked: Asked,
    shared: Arc<Shared>,
    reader: Reader,
) -> Response<RouterBody> {
    let Asked { snapshot, arrival, prepared, body, began } = asked;
    let arrival = Box::new(Arrival { keyed: true, ..*arrival });
    let (id, dialect) = (arrival.id, arrival.dialect);
    let exchange = Exchange::new(Rc::clone(worker), snapshot, arrival, prepared, body, began);
    spawn_local(drive(Rc::clone(worker), exchange, shared));
    match reader.head().await {
        Some(head) => reader.respond(head),
        None => {
            let error = ErrorBody::internal("the request ended before it was answered");
            respond::error(dialect, &error, None, id)
        }
    }
}

/// Gives the answer that another request got or gets.
async fn follow(
    worker: &Rc<Worker>,
    asked: Asked,
    result: &'static str,
    first: RequestId,
    reader: Reader,
) -> Result<Response<RouterBody>, ErrorBody> {
    let Asked { arrival, prepared, began, .. } = asked;
    let (id, deadline) = (arrival.id, prepared.facts.deadline.unwrap_or(Now::NEVER));
    let app = Arc::clone(&worker.app);
    let mut reader = reader.telling(move |came, status| {
        tell(&app, &arrival, &prepared, (result, first), (came, status));
    });
    let asked_at = clock::now();
    let head = timeout_at(clock::instant(deadline), reader.head()).await;
    let waited = clock::now() - asked_at;
    let mut head = match head {
        Ok(Some(head)) => head,
        Ok(None) => {
            reader.hush();
            let text = "the request that this one waited for ended without an answer; ask again";
            return Err(ErrorBody::router(503, "server_error", "idempotency_first_gone", text));
        }
        Err(_) => {
            reader.hush();
            return Err(ErrorBody::deadline_exceeded());
        }
    };
    let headers = &mut head.headers;
    // What is said of the way and the cost of the first holds for the first.
    headers.remove(COST);
    headers.remove(QUEUE);
    respond::put_request_id(headers, id);
    headers.insert(RESULT, HeaderValue::from_static(result));
    headers.insert(FIRST, respond::text_value(&first.to_string()));
    headers.insert(ATTEMPTS, HeaderValue::from_static("0"));
    let overhead = (clock::now() - began).saturating_sub(waited);
    headers.insert(OVERHEAD, HeaderValue::from(overhead.as_micros() as u64));
    Ok(reader.respond(head))
}

/// Records a request that was given another's answer.
fn tell(
    app: &App,
    arrival: &Arrival,
    prepared: &Prepared,
    (result, first): (&'static str, RequestId),
    (came, status): (Came, Option<StatusCode>),
) {
    let (outcome, detail) = match came {
        Came::ToItsEnd => (result, None),
        Came::ToTheBreak => ("truncated", Some("the answer broke off".to_owned())),
        Came::Nowhere => ("client_gone", Some(result.to_owned())),
    };
    app.record(Record {
        id: arrival.id,
        at_unix_ms: arrival.at_unix_ms,
        arrived: arrival.at,
        operation: arrival.asked.operation.name(),
        dialect: arrival.dialect.name,
        conversion: Conversion::default(),
        model: Some(Arc::clone(&prepared.model.name)),
        tenant: Some(Arc::clone(&arrival.client.tenant)),
        key: arrival.client.name.clone(),
        facts: Some(prepared.facts.clone()),
        decisions: Vec::new(),
        attempts: Vec::new(),
        noted: Default::default(),
        ties: Some(Box::new(Ties { idempotency: Some((result, first)), ..Ties::default() })),
        outcome,
        detail,
        status: status
            .filter(|_| came != Came::Nowhere)
            .map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16()),
        usage: None,
        cost_micro_usd: None,
        hedge_cost_micro_usd: None,
        queue_us: 0,
        overhead_us: 0,
        first_content_us: None,
        total_us: (clock::now() - arrival.at).as_micros() as u64,
        names: Arc::default(),
    });
}

fn conflict(app: &App) -> ErrorBody {
    app.metrics.idempotency("conflict");
    let text = "this idempotency key was used for another request; send this one with a key of its own";
    error(422, "idempotency_key_reused", text)
}

fn spent(app: &App) -> ErrorBody {
    app.metrics.idempotency("spent");
    let text = "the request with this idempotency key was sent before, and its answer is not kept: it was larger than \
                `idempotency.answer_bytes_max`, or others needed the room; send a new key to ask again";
    error(409, "idempotency_answer_not_kept", text)
}

fn full(app: &App) -> ErrorBody {
    app.metrics.idempotency("full");
    ErrorBody::overloaded(
        "as many requests with idempotency keys are under way as may be (`idempotency.entries_max`)",
    )
}

fn error(status: u16, code: &'static str, text: &str) -> ErrorBody {
    ErrorBody::router(status, "invalid_request_error", code, text).with_param(KEY.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_quotes_is_the_key() {
        let check = |value: &str, expected: Option<&str>| {
            assert_eq!(unquoted(value.as_bytes()).as_deref(), expected.map(str::as_bytes), "{value}");
        };
        check("8e03978e", Some("8e03978e"));
        check(" \"8e03978e\" ", Some("8e03978e"));
        check("\"a\\\"b\\\\\"", Some("a\"b\\"));
        check("a\"b", Some("a\"b"));
        check("\"\"", Some(""));
        for bad in ["\"a", "\"a\" b", "\"a\\n\"", "\"a\";x=1", "\""] {
            check(bad, None);
        }
    }

    #[test]
    fn parts_are_told_apart_by_their_lengths() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_ne!(digest(&[b"ab"]), digest(&[b"ab", b""]));
    }
}
