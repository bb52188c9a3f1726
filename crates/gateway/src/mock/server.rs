//! The mock's server: takes a slot, takes its time, answers.

use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pointsman_wire::dialect;
use pointsman_wire::openai::responses::state::Place;
use serde_json::{Value, json};
use tokio::time::{Sleep, sleep};

use super::answer::Asked;
use super::control::{Control, Scripted, Settings};
use super::dialects::Other;
use super::engine::Metrics;
use super::kept;
use super::tasks;
use super::tensors;

/// Bytes of the last body that are kept.
const KEPT_BYTES: usize = 64 * 1024;
/// Noise.
const GARBAGE: &[u8] = b"\xff\xfe{\"vllm:num_requests_running\nvllm:num_requests_waiting{ NaN one\n\0";
/// Bytes of an answer that has no end as far as anybody is concerned.
const ENDLESS_BYTES: usize = 1 << 30;
/// Bytes of its pieces.
const PIECE_BYTES: usize = 64 * 1024;

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, control: Arc<Control>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (tcp, _) = listener.accept().await?;
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            control.count(|stats| {
                stats.connections += 1;
                stats.connections_total += 1;
            });
            let _ = tcp.set_nodelay(true);
            let service = {
                let control = Arc::clone(&control);
                service_fn(move |request| answer(Arc::clone(&control), request))
            };
            // A closed or broken connection is what clients do.
            let io = TokioIo::new(tcp);
            let _ = http1::Builder::new().timer(TokioTimer::new()).serve_connection(io, service).await;
            control.count(|stats| stats.connections -= 1);
        });
    }
}

pub(super) type Answer = Response<Steps>;

async fn answer(control: Arc<Control>, request: Request<Incoming>) -> Result<Answer, io::Error> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    control.count(|stats| *stats.paths.entry(path.clone()).or_default() += 1);
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    match (&head.method, path.as_str()) {
        (&Method::GET, "/health") => Ok(json_answer(200, &json!({"status": "ok"}))),
        (&Method::GET, "/api/version") => {
            Ok(json_answer(200, &json!({"version": env!("CARGO_PKG_VERSION")})))
        }
        (&Method::GET, "/v1/models") => Ok(json_answer(200, &models(&control))),
        (&Method::GET, "/_stats") => Ok(json_answer(200, &json!(control.stats()))),
        (&Method::GET, "/_ctl") => Ok(json_answer(200, &json!(control.settings()))),
        (&Method::POST, "/_ctl") => Ok(match control.change(&body) {
            Ok(()) => json_answer(200, &json!({"ok": true})),
            Err(error) => json_answer(400, &json!({"error": {"message": error}})),
        }),
        (&Method::POST, path)
            if dialect::route(path, head.uri.query()).is_some() || tensors::is_inference(path) =>
        {
            let path = head.uri.path_and_query().map_or(path, |all| all.as_str()).to_owned();
            let headers = head.headers.iter().map(|(name, value)| {
                (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            });
            let headers = headers.collect();
            control.count(|stats| {
                stats.last_headers = headers;
                stats.last_body = String::from_utf8_lossy(&body[..body.len().min(KEPT_BYTES)]).into_owned();
            });
            let form = tasks::fields(head.uri.path(), &head.headers, &body);
            let json_end = tensors::json_end(&head.headers, &body);
            infer(control, path, (&body, json_end, form), key_of(&head)).await
        }
        (_, path) if let Some(place) = Place::of(path) => {
            let (status, body) = control.lock().answers.ask(&head.method, &place, key_of(&head).as_deref());
            Ok(json_answer(status, &body))
        }
        (method, path) if let Some(answer) = tensors::told(method, path) => Ok(answer),
        (&Method::GET, path) if let Some(answer) = engine(&control, path).await => Ok(answer),
        _ => Ok(json_answer(
            404,
            &json!({"error": {"message": "the mock has nothing here", "type": "not_found_error"}}),
        )),
    }
}

fn key_of(head: &Parts) -> Option<String> {
    head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

async fn infer(
    control: Arc<Control>,
    path: String,
    (body, json_end, form): (&Bytes, usize, Option<Result<Value, String>>),
    key: Option<String>,
) -> Result<Answer, io::Error> {
    let mut call = Call::new(&control);
    let (settings, scripted, dice) = {
        let mut inner = control.lock();
        let dice = [inner.rng.unit(), inner.rng.unit()];
        (inner.settings.clone(), inner.script.pop_front(), dice)
    };
    if settings.api_key.as_ref().is_some_and(|wanted| key.as_deref() != Some(&format!("Bearer {wanted}"))) {
        return Ok(error(401, "wrong API key", "invalid_request_error", None).finish(call));
    }
    let mut other = Other::of_path(&path);
    let read = match &mut other {
        None if let Some(form) = form => form,
        Some(other) => other.own(&String::from_utf8_lossy(body)),
        None => serde_json::from_slice(&body[..json_end]).map_err(|_| "the body is not JSON".to_owned()),
    };
    let body_json = match read {
        Ok(body) => body,
        Err(why) => return Ok(error(400, &why, "invalid_request_error", None).finish(call)),
    };
    let path = other.as_ref().map_or(path, |other| other.own_path().to_owned());
    let asked = Asked {
        path,
        other,
        body: body_json,
        body_bytes: body.len(),
        tail: body.slice(json_end..),
        id: kept::new_id(),
    };
    let against = control.lock().answers.against(key.as_deref(), &asked.body);
    if let Some(why) = against {
        return Ok(json_answer(400, &why).finish(call));
    }
    if asked.path == "/v1/responses" && asked.body["store"] != json!(false) {
        let answer = asked.whole(asked.tokens(settings.tokens));
        control.lock().answers.keep(key.as_deref(), answer, asked.body["input"].clone());
    }
    if let Some(scripted) = scripted {
        return play(scripted, &asked, &settings, call).await;
    }
    if let Some(refusal) = refusal(&settings, dice[0]) {
        return Ok(refusal.finish(call));
    }
    if !call.take_slot(settings.refuse_when_full).await {
        let full =
            error(503, "all slots are taken", "server_error", Some(settings.retry_after_s.to_string()));
        return Ok(full.finish(call));
    }
    let prefill = per(asked.tokens_in(), settings.prefill_tokens_per_s);
    sleep(Duration::from_millis(settings.first_token_ms) + prefill).await;
    let mut answer = model_answer(&asked, &settings);
    let half = answer.body_mut().queue.len() / 2;
    if asked.streams() && dice[1] < settings.cut_rate {
        answer.body_mut().end_at(half, Step::Cut);
    } else if asked.streams() && dice[1] < settings.cut_rate + settings.stall_rate {
        answer.body_mut().end_at(half, Step::Hang);
    }
    if !asked.streams() {
        sleep(per(asked.tokens(settings.tokens), settings.decode_tokens_per_s)).await;
    }
    Ok(answer.finish(call))
}

/// The time that so many tokens take.
fn per(tokens: usize, tokens_per_s: f64) -> Duration {
    if tokens_per_s > 0.0 { Duration::from_secs_f64(tokens as f64 / tokens_per_s) } else { Duration::ZERO }
}

fn refusal(settings: &Settings, dice: f64) -> Option<Answer> {
    let retry_after = Some(settings.retry_after_s.to_string());
    if dice < settings.rate_429 {
        return Some(error(429, "rate limit reached", "requests", retry_after));
    }
    if dice < settings.rate_429 + settings.rate_503 {
        return Some(error(503, "overloaded", "server_error", retry_after));
    }
    (dice < settings.rate_429 + settings.rate_503 + settings.error_rate)
        .then(|| error(settings.error_status, "an error as configured", "server_error", None))
}

/// What the model says to a request, as steps.
fn model_answer(asked: &Asked, settings: &Settings) -> Answer {
    if tensors::is_inference(&asked.path) {
        return tensors::answer(asked);
    }
    let tokens = asked.tokens(settings.tokens);
    if let Some(said) = tasks::answer(&asked.path, &asked.body, asked.tokens_in()) {
        let mut answer = Response::new(Steps::new(said.pieces.into_iter().map(Step::Data).collect()));
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(said.kind));
        return answer;
    }
    if !asked.streams() {
        let whole = asked.whole(tokens);
        return match &asked.other {
            Some(other) => text_answer(200, other.whole(&whole)),
            None => json_answer(200, &whole),
        };
    }
    let (mut first, mut middle, mut last) = asked.events(tokens);
    if let Some(other) = &asked.other {
        let mut interpreter = other.stream();
        for event in first.iter_mut().chain(&mut middle).chain(&mut last) {
            *event = interpreter.say(event);
        }
        for events in [&mut first, &mut middle, &mut last] {
            events.retain(|event| !event.is_empty());
        }
    }
    let pause = per(1, settings.decode_tokens_per_s);
    let mut steps: VecDeque<Step> = first.into_iter().map(|event| Step::Data(event.into())).collect();
    for (at, event) in middle.into_iter().enumerate() {
        if at > 0 && !pause.is_zero() {
            steps.push_back(Step::Wait(pause));
        }
        steps.push_back(Step::Data(event.into()));
    }
    steps.extend(last.into_iter().map(|event| Step::Data(event.into())));
    let mut answer = Response::new(Steps::new(steps));
    let kind = asked.other.as_ref().map_or("text/event-stream; charset=utf-8", Other::stream_type);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// Answers as a script says.
async fn play(
    scripted: Scripted,
    asked: &Asked,
    settings: &Settings,
    mut call: Call,
) -> Result<Answer, io::Error> {
    call.take_slot(false).await;
    sleep(Duration::from_millis(scripted.delay_ms)).await;
    if scripted.hang {
        std::future::pending::<()>().await;
    }
    if scripted.close {
        call.done = true;
        return Err(io::Error::other("scripted"));
    }
    let status = scripted.status.unwrap_or(200);
    let mut answer = match (&scripted.pieces, status) {
        (Some(pieces), _) => {
            let mut steps = VecDeque::new();
            for piece in pieces {
                steps.push_back(Step::Data(piece.clone().into()));
                steps.push_back(Step::Wait(Duration::from_millis(scripted.piece_delay_ms)));
            }
            let mut answer = Response::new(Steps::new(steps));
            let kind = if asked.streams() { "text/event-stream" } else { "application/json" };
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            answer
        }
        (None, 200) => model_answer(asked, settings),
        (None, status) => error(status, "as scripted", "server_error", None),
    };
    *answer.status_mut() = StatusCode::from_u16(status).map_err(io::Error::other)?;
    let extra = scripted
        .headers
        .into_iter()
        .chain(scripted.retry_after.map(|after| ("retry-after".to_owned(), after)));
    for (name, value) in extra {
        let name: HeaderName = name.parse().map_err(io::Error::other)?;
        answer.headers_mut().insert(name, value.parse().map_err(io::Error::other)?);
    }
    let data_at = |steps: &VecDeque<Step>, wanted: usize| {
        let data = steps.iter().enumerate().filter(|(_, step)| matches!(step, Step::Data(_)));
        data.map(|(at, _)| at).nth(wanted).unwrap_or(steps.len())
    };
    if let Some(wanted) = scripted.cut_after {
        let at = data_at(&answer.body().queue, wanted);
        answer.body_mut().end_at(at, Step::Cut);
    } else if let Some(wanted) = scripted.hang_after {
        let at = data_at(&answer.body().queue, wanted);
        answer.body_mut().end_at(at, Step::Hang);
    }
    Ok(answer.finish(call))
}

fn models(control: &Control) -> Value {
    let data = control
        .models
        .iter()
        .map(|id| json!({"id": id, "object": "model", "created": 0, "owned_by": "mock"}));
    json!({"object": "list", "data": data.collect::<Vec<_>>()})
}

/// What it says of its load, if it does at this path.
async fn engine(control: &Control, path: &str) -> Option<Answer> {
    let (fault, page) = {
        let inner = control.lock();
        (inner.settings.metrics, inner.page(path, &control.models)?)
    };
    let steps = match fault {
        Metrics::Off => return None,
        Metrics::Hang => std::future::pending().await,
        Metrics::Garbage => [Step::Data(GARBAGE.into())].into(),
        Metrics::Endless => {
            let piece = Bytes::from(vec![b'a'; PIECE_BYTES]);
            (0..ENDLESS_BYTES / PIECE_BYTES).map(|_| Step::Data(piece.clone())).collect()
        }
        Metrics::Good | Metrics::Renamed | Metrics::Lies => [Step::Data(page.into())].into(),
    };
    Some(Response::new(Steps::new(steps)))
}

fn error(status: u16, message: &str, kind: &str, retry_after: Option<String>) -> Answer {
    let mut answer = json_answer(
        status,
        &json!({"error": {"message": message, "type": kind, "param": null, "code": null}}),
    );
    if let Some(value) = retry_after.and_then(|after| HeaderValue::try_from(after).ok()) {
        answer.headers_mut().insert("retry-after", value);
    }
    answer
}

pub(super) fn json_answer(status: u16, body: &Value) -> Answer {
    text_answer(status, body.to_string())
}

fn text_answer(status: u16, body: String) -> Answer {
    let mut answer = Response::new(Steps::new([Step::Data(body.into())].into()));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// One request, counted as long as it runs, and its slot.
struct Call {
    control: Arc<Control>,
    slot: bool,
    done: bool,
}

impl Call {
    fn new(control: &Arc<Control>) -> Self {
        control.count(|stats| {
            stats.requests += 1;
            stats.inflight += 1;
        });
        Self { control: Arc::clone(control), slot: false, done: false }
    }

    /// Takes a slot, in whatever order; false if it must not wait and none is free.
    async fn take_slot(&mut self, refuse: bool) -> bool {
        loop {
            let changed = self.control.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut inner = self.control.lock();
                let slots = u64::from(inner.settings.slots);
                if slots == 0 || inner.stats.slots_busy < slots {
                    inner.stats.slots_busy += 1;
                    self.slot = true;
                    break;
                }
            }
            if refuse {
                return false;
            }
            changed.await;
        }
        self.control.changed.notify_waiters();
        true
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.control.count(|stats| {
            stats.inflight -= 1;
            stats.slots_busy -= u64::from(self.slot);
            stats.cancelled += u64::from(!self.done);
        });
    }
}

trait Finish {
    /// Gives the call to the answer, which ends it.
    fn finish(self, call: Call) -> Answer;
}

impl Finish for Answer {
    fn finish(mut self, call: Call) -> Answer {
        self.body_mut().call = Some(call);
        self
    }
}

/// A body that is made of steps.
pub(super) struct Steps {
    queue: VecDeque<Step>,
    pause: Option<Pin<Box<Sleep>>>,
    call: Option<Call>,
}

pub(super) enum Step {
    Data(Bytes),
    Wait(Duration),
    Cut,
    Hang,
}

impl Steps {
    pub(super) fn new(steps: VecDeque<Step>) -> Self {
        Self { queue: steps, pause: None, call: None }
    }

    fn end_at(&mut self, at: usize, step: Step) {
        self.queue.truncate(at);
        self.queue.push_back(step);
    }

    fn over(&mut self) {
        if let Some(call) = &mut self.call {
            call.done = true;
        }
        self.call = None;
    }
}

impl Body for Steps {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            match this.queue.pop_front() {
                None => {
                    this.over();
                    return Poll::Ready(None);
                }
                Some(Step::Data(data)) => {
                    if this.queue.is_empty() {
                        this.over();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Step::Wait(pause)) if pause.is_zero() => {}
                Some(Step::Wait(pause)) => this.pause = Some(Box::pin(sleep(pause))),
                Some(Step::Cut) => {
                    this.over();
                    return Poll::Ready(Some(Err(io::Error::other("cut"))));
                }
                Some(Step::Hang) => {
                    this.queue.push_front(Step::Hang);
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.queue.is_empty() && self.pause.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self.queue.iter().collect::<Vec<_>>().as_slice() {
            [Step::Data(only)] => http_body::SizeHint::with_exact(only.len() as u64),
            _ => http_body::SizeHint::default(),
        }
    }
}
