//! One line of a batch: a request like any other, without a client that waits.
//!
//! It is validated anew, for the configuration may have changed since, and gets its facts, its flow and its record like
//! every request. What it was refused for want of room it does not fail for: it is sent again later.

use std::cell::Cell;
use std::fs::File;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::RETRY_AFTER;
use http_body::Body;
use pointsman_routing::catalog::Name;
use pointsman_routing::facts::Lane;
use pointsman_wire::dialect::{Asked, openai_of};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Operation;
use pointsman_wire::openai::usage_of_body;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::Batches;
use super::files::read_at;
use super::lines::{self, Claim, Finished, Line, Tokens};
use crate::app::Shutdown;
use crate::clock;
use crate::exchange::{Arrival, Exchange, Passed};
use crate::http::pins;
use crate::http::prepare::prepare;
use crate::http::server::Worker;
use crate::telemetry::record::RequestId;

/// What a line waits that was turned away for want of memory.
const MEMORY_RETRY_AFTER: Duration = Duration::from_secs(2);
/// What a line waits that does not know how long.
const RETRY_AFTER_USUAL: Duration = Duration::from_secs(1);
/// Tokens that one answer is believed to have used.
const TOKENS_MAX: u64 = 1_000_000_000;

/// Every sending of a line passes here, and is written down before it happens.
pub struct Gate {
    batches: Arc<Batches>,
    claim: Claim,
    /// The id of the batch.
    pub batch_id: Name,
    /// The line, from 1.
    pub number: i64,
    passed: Cell<bool>,
    closed: Cell<bool>,
}

impl Gate {
    /// Whether the line may be sent now; `again` if it might be sent again although nobody knew what became of it.
    pub async fn pass(&self, again: bool) -> bool {
        self.passed.set(true);
        let (claim, number) = (self.claim.clone(), self.number);
        let marked = self.batches.store.call(move |db| lines::mark_sent(db, &claim, number, again)).await;
        // What cannot be written down is not sent.
        let open = marked.unwrap_or(false);
        self.closed.set(!open);
        open
    }
}

/// What is needed to carry out the lines of one batch.
pub struct Job {
    /// Files and batches.
    pub batches: Arc<Batches>,
    /// The process and the batch.
    pub claim: Claim,
    /// The id of the batch.
    pub id: Name,
    /// Whose it is.
    pub tenant: String,
    /// The name of the key that made it.
    pub key: Option<String>,
    /// What its lines ask for.
    pub operation: Operation,
    /// Its input file.
    pub input: Arc<File>,
    /// Told when what was not sent must not be sent any more.
    pub stop: watch::Sender<bool>,
}

/// What became of a line.
#[derive(Debug)]
pub enum Outcome {
    /// It has its result.
    Finished(Finished),
    /// There was no room for it; nothing was done for it.
    Refused(Duration),
    /// It was not sent, and is not to be sent now.
    Unsent,
    /// It was sent, and nobody knows what became of it: the process stops.
    Interrupted,
}

/// What a line of an input file says.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Carries out a line.
pub async fn carry(worker: &Rc<Worker>, job: &Job, line: &Line) -> Outcome {
    if worker.app.memory.grade().against(Lane::Batch).is_some() {
        return Outcome::Refused(MEMORY_RETRY_AFTER);
    }
    let id = worker.next_id();
    let body = match read_at(Arc::clone(&job.input), line.start, line.bytes).await {
        Ok(text) => serde_json::from_slice::<Said<'_>>(&text).map(|said| {
            let start = said.body.get().as_ptr().addr() - text.as_ptr().addr();
            text.slice(start..start + said.body.get().len())
        }),
        Err(error) => {
            tracing::error!(batch = &*job.id, line = line.number, %error, "cannot read the input of a batch");
            return unreadable(job, line);
        }
    };
    let Ok(body) = body else { return unreadable(job, line) };
    let gate = Rc::new(Gate {
        batches: Arc::clone(&job.batches),
        claim: job.claim.clone(),
        batch_id: Arc::clone(&job.id),
        number: line.number,
        passed: Cell::new(false),
        closed: Cell::new(false),
    });
    let exchange = match exchange(worker, job, &gate, body, id) {
        Ok(exchange) => exchange,
        Err(error) => {
            worker.app.metrics.refused("invalid");
            return Outcome::Finished(answered(job, line, error.status, id, &error.to_json()));
        }
    };
    let answer_bytes_max = answer_bytes_max(worker);
    let outcome = tokio::select! {
        answer = answer(exchange, answer_bytes_max) => outcome(worker, job, line, &gate, (answer, id)),
        // Dropping what was not sent takes nothing from anybody.
        () = stopped(job, &gate) => Outcome::Unsent,
    };
    if gate.passed.get() && matches!(outcome, Outcome::Refused(_)) {
        let (claim, number) = (job.claim.clone(), line.number);
        if job.batches.store.call(move |db| lines::take_back(db, &claim, number)).await.is_err() {
            return Outcome::Interrupted;
        }
    }
    outcome
}

/// Ready when the batch stops and the line was not sent.
async fn stopped(job: &Job, gate: &Gate) {
    let mut stop = job.stop.subscribe();
    // The sender is the job's own and lives as long.
    let _ = stop.wait_for(|stop| *stop).await;
    if gate.passed.get() {
        std::future::pending::<()>().await;
    }
}

fn answer_bytes_max(worker: &Worker) -> usize {
    let snapshot = worker.app.snapshot.load();
    let bytes = snapshot.config.batches.as_ref().map(|batches| batches.answer_bytes_max);
    usize::try_from(bytes.unwrap_or_default()).unwrap_or(usize::MAX)
}

/// The line as a request of the tenant and key that made its batch.
fn exchange(
    worker: &Rc<Worker>,
    job: &Job,
    gate: &Rc<Gate>,
    body: Bytes,
    id: RequestId,
) -> Result<Box<Exchange>, ErrorBody> {
    let snapshot = worker.app.snapshot.load_full();
    let at = clock::now();
    let client = snapshot.keys.client(job.key.as_deref(), &job.tenant).cloned();
    let client = client.ok_or_else(|| {
        ErrorBody::bad_key("the key that made this batch is not known to this gateway any more")
    })?;
    let client = Arc::new(client.in_lane(Lane::Batch));
    let asked = Asked::of(job.operation);
    let prepared =
        prepare(&snapshot, &client, (openai_of(job.operation), &asked), &HeaderMap::new(), &body, at);
    let mut prepared = prepared.map_err(|refused| refused.error)?;
    // Whatever the model's rule says.
    prepared.facts.lane = Lane::Batch;
    pins::pin(&worker.app, &client, &mut prepared)?;
    let arrival = Box::new(Arrival {
        id,
        at,
        at_unix_ms: clock::unix_ms(),
        dialect: openai_of(job.operation),
        asked,
        client,
        keyed: false,
        mirror_of: None,
        line: Some(Rc::clone(gate)),
        passed: Passed::new(),
        trace: None,
    });
    Ok(Exchange::new(Rc::clone(worker), snapshot, arrival, prepared, body, at))
}

/// An answer as it came.
struct Answer {
    status: u16,
    retry_after: Option<Duration>,
    /// What it says; or why it is not all there.
    body: Result<Bytes, (&'static str, String)>,
}

async fn answer(exchange: Box<Exchange>, bytes_max: usize) -> Answer {
    let (head, mut body) = exchange.run().await.into_parts();
    let retry_after = head.headers.get(RETRY_AFTER).map(|value| {
        let seconds = value.to_str().ok().and_then(|value| value.parse().ok());
        seconds.map_or(RETRY_AFTER_USUAL, Duration::from_secs)
    });
    let status = head.status.as_u16();
    let mut whole = Vec::new();
    let body = loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => break Ok(Bytes::from(whole)),
            Some(Err(error)) => break Err(("answer_broken", error.to_string())),
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                if whole.len() + data.len() > bytes_max {
                    let text =
                        format!("the answer has more than {bytes_max} bytes (`batches.answer_bytes_max`)");
                    break Err(("answer_too_large", text));
                }
                whole.extend_from_slice(&data);
            }
        }
    };
    Answer { status, retry_after, body }
}

fn outcome(worker: &Worker, job: &Job, line: &Line, gate: &Gate, came: (Answer, RequestId)) -> Outcome {
    let (answer, id) = came;
    if gate.closed.get() {
        return Outcome::Unsent;
    }
    let good = (200..300).contains(&answer.status);
    if !good && worker.stage.get() == Shutdown::Now {
        return if gate.passed.get() { Outcome::Interrupted } else { Outcome::Unsent };
    }
    if let Some(after) = no_room(answer.status, answer.retry_after, gate.passed.get()) {
        return Outcome::Refused(after);
    }
    Outcome::Finished(match answer.body {
        Ok(body) => answered(job, line, answer.status, id, &body),
        Err((code, why)) => {
            lines::unanswered(&lines::result_id(&job.id, line.number), &line.custom_id, code, &why)
        }
    })
}

/// How long a line waits for which there was no room; `None` if its answer is its result.
///
/// What was sent and may have been processed comes as 502 or 504. But where nothing was sent at all, there was no slot in
/// time, or no deployment in service, and nobody waits who could lose patience.
fn no_room(status: u16, retry_after: Option<Duration>, sent: bool) -> Option<Duration> {
    match (status, sent) {
        (429 | 503, true) => retry_after,
        (429 | 503 | 504, false) => Some(retry_after.unwrap_or(RETRY_AFTER_USUAL)),
        _ => None,
    }
}

fn unreadable(job: &Job, line: &Line) -> Outcome {
    let text = "the line could not be read from the input file any more";
    let id = lines::result_id(&job.id, line.number);
    Outcome::Finished(lines::unanswered(&id, &line.custom_id, "input_unreadable", text))
}

/// The line of the output or error file for an answer.
fn answered(job: &Job, line: &Line, status: u16, id: RequestId, body: &[u8]) -> Finished {
    let raw = serde_json::from_slice::<&RawValue>(body).map(RawValue::get);
    // A page of a proxy on the way is no answer, whatever its status.
    let good = (200..300).contains(&status) && raw.is_ok();
    // A line end within JSON stands between its parts only, for those in strings are escaped.
    let body = raw.map_or_else(
        |_| serde_json::Value::from(String::from_utf8_lossy(body)).to_string(),
        |raw| raw.replace(['\n', '\r'], " "),
    );
    let custom_id = serde_json::Value::from(line.custom_id.as_str());
    let result_id = lines::result_id(&job.id, line.number);
    let text = format!(
        r#"{{"id":"{result_id}","custom_id":{custom_id},"response":{{"status_code":{status},"request_id":"{id}","body":{body}}},"error":null}}"#
    );
    let tokens = if good { tokens(&body) } else { Tokens::default() };
    Finished { good, text, tokens }
}

/// What an answer says it used. Sums of a whole batch must fit too.
fn tokens(body: &str) -> Tokens {
    let used = usage_of_body(body.as_bytes()).unwrap_or_default();
    let count = |tokens: u64| tokens.min(TOKENS_MAX).cast_signed();
    Tokens {
        input: count(used.tokens_in),
        cached: count(used.tokens_in_cached),
        output: count(used.tokens_out),
    }
}

/// A line that panicked: a defect of the gateway, told like any other failure.
pub fn panicked(job: &Job, line: &Line) -> Outcome {
    let text =
        json!({"error": {"message": "the request met a defect of the gateway", "type": "server_error"}});
    Outcome::Finished(answered(job, line, 500, RequestId(0), text.to_string().as_bytes()))
}

/// Drives a line, and wakes it when the process stops or a drain is over.
pub async fn drive(worker: &Rc<Worker>, job: &Job, line: &Line) -> Outcome {
    let work = pin!(worker.attend(carry(worker, job, line)));
    match crate::http::guard::Guard::new(work).await {
        Some(outcome) => outcome,
        None => {
            worker.app.metrics.panics.inc();
            tracing::error!(
                batch = &*job.id,
                line = line.number,
                "a line panicked; please report it with the lines before this one"
            );
            panicked(job, line)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_waits_and_what_was_is_its_result() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        for (status, retry_after, sent, expected) in [
            (429, Some(minute), true, Some(minute)),
            (503, None, true, None),
            (503, None, false, Some(second)),
            (503, Some(minute), false, Some(minute)),
            (504, Some(minute), true, None),
            (504, None, false, Some(second)),
            (400, Some(minute), false, None),
            (502, None, false, None),
            (200, Some(minute), true, None),
        ] {
            assert_eq!(no_room(status, retry_after, sent), expected, "{status} {retry_after:?} {sent}");
        }
    }

    #[test]
    fn tokens_are_counted_whatever_they_are_called_and_by_both_names() {
        for (usage, expected) in [
            (r#"{"prompt_tokens": 3, "completion_tokens": 2}"#, (3, 0, 2)),
            (
                r#"{"prompt_tokens": 3, "input_tokens": 3, "output_tokens": 2, "completion_tokens": 2}"#,
                (3, 0, 2),
            ),
            (
                r#"{"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 1}"#,
                (9, 4, 1),
            ),
            (r#"{"prompt_tokens": 3.0, "completion_tokens": -1}"#, (3, 0, 0)),
            (r#"{"prompt_tokens": 1e300}"#, (TOKENS_MAX.cast_signed(), 0, 0)),
            ("null", (0, 0, 0)),
        ] {
            let Tokens { input, cached, output } = tokens(&format!(r#"{{"id": "x", "usage": {usage}}}"#));
            assert_eq!((input, cached, output), expected, "{usage}");
        }
    }
}
