//! One request from its first decision to its settlement: carries out what the flow says, and tells it what happened.
//!
//! Nothing is decided here. [`Exchange::run`] is the only loop over [`Flow::step`]; once the head of a response is
//! released, [`relay`] goes on from the body's polls. Dropping an exchange at any point cancels what is under way
//! and settles the rest.

mod answer;
mod attempt;
mod continuation;
mod convert;
mod issue;
mod mirror;
mod noting;
mod outgoing;
mod relay;
mod said;
mod settle;
pub mod shared;
mod structured;
mod tasks;
mod tensors;
mod upload;
mod words;

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use pointsman_routing::catalog::Name;
use pointsman_routing::decision::Choice;
use pointsman_routing::failure::Processed;
use pointsman_routing::flow::{Action, Flow, Input};
use pointsman_routing::{Failure, FailureClass, Now};
use pointsman_wire::chat::Losses;
use pointsman_wire::dialect::{Asked, ClientDef};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{Operation, Request};
use pointsman_wire::openai::responses::reader;
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until};

use crate::app::Shutdown;
use crate::batches::line::Gate;
use crate::clock;
use crate::http::auth::ClientKey;
use crate::http::prepare::Prepared;
use crate::http::server::Worker;
use crate::snapshot::{Model, Snapshot, Target};
use crate::structured::Watch;
use crate::telemetry::record::RequestId;
use crate::upstream::connection::Message;
use crate::upstream::credential::Credential;

pub(crate) use answer::{COST, QUEUE};
use attempt::Attempt;
use continuation::Keeping;
use convert::Reading;
pub use outgoing::{Passed, Trace, passed};
pub use relay::RouterBody;
pub(crate) use settle::CLIENT_CLOSED_REQUEST;
pub use structured::Noted;
pub use upload::Upload;

/// Lets the other tasks that are ready go first, once, so that what all of them write is written in one go (see
/// [`Call::poll_head`](crate::upstream::connection::Call::poll_head)).
async fn give_way() {
    let mut turned = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut turned, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// What is known of a request before its body is read.
pub struct Arrival {
    /// Its id.
    pub id: RequestId,
    /// When its head was there.
    pub at: Now,
    /// The same for people.
    pub at_unix_ms: u64,
    /// The dialect it is in.
    pub dialect: &'static ClientDef,
    /// What its path asks for.
    pub asked: Asked,
    /// Who asks.
    pub client: Arc<ClientKey>,
    /// Whether it is the first with its idempotency key.
    pub keyed: bool,
    /// The request that it is a shadow's copy of.
    pub mirror_of: Option<RequestId>,
    /// The line of a batch that it is.
    pub line: Option<Rc<Gate>>,
    /// Its headers that a provider of the same dialect gets.
    pub passed: Passed,
    /// The trace it belongs to.
    pub trace: Option<Trace>,
}

/// One request from its first decision to its settlement.
pub struct Exchange {
    worker: Rc<Worker>,
    snapshot: Arc<Snapshot>,
    model: Arc<Model>,
    arrival: Box<Arrival>,
    flow: Flow,
    /// The other models it named, and why one was left out if it was.
    named: Vec<(Name, Option<String>)>,
    /// What to send; gone once an answer is relayed, for then it cannot be sent again.
    outgoing: Option<(Box<Request>, Bytes)>,
    /// Its body, where that passes by while it is sent.
    upload: Option<Upload>,
    attempt: Option<Box<Attempt>>,
    /// A second attempt beside it, while the first content is awaited.
    hedge: Option<Box<Attempt>>,
    /// What came of an answer that broke off, while its rest is awaited.
    broken: continuation::Broken,
    /// What answers are held to.
    checked: structured::Checked,
    granted: Option<oneshot::Receiver<()>>,
    timer: Pin<Box<Sleep>>,
    timer_at: Now,
    /// Ends of drains that the flow was asked about.
    recalls: u64,
    /// The provider's own words about the last failure.
    provider_error: Option<Box<words::ProviderError>>,
    /// Why the request could not even be written in the dialect of the last deployment.
    refusal: Option<Box<ErrorBody>>,
    /// The status that the client was or will be sent.
    status: Option<u16>,
    /// When the body was whole and the router's own work began.
    began: Now,
    /// Time since then in which the router waited for somebody else.
    waited: std::time::Duration,
    overhead: Option<std::time::Duration>,
    /// What the request cost, once it is settled and if the price is known.
    cost_micro_usd: Option<u64>,
    settled: bool,
    /// The process stops, and this with it.
    stopped: bool,
}

/// What is sent to a deployment.
struct Composed {
    parts: Message,
    /// What could not be carried over into its dialect.
    losses: Losses,
    /// Who reads the answer, where it is not relayed by its bytes alone.
    reading: Option<Box<Reading>>,
}

impl Exchange {
    /// An exchange for a request that was found valid at `began`.
    pub fn new(
        worker: Rc<Worker>,
        snapshot: Arc<Snapshot>,
        arrival: Box<Arrival>,
        prepared: Prepared,
        body: Bytes,
        began: Now,
    ) -> Box<Self> {
        let Prepared { request, model, facts, fallbacks, schema } = prepared;
        let shadow = arrival.mirror_of.is_some();
        let begin = if shadow { Flow::shadow } else { Flow::new };
        let checks_whole = model.on_mismatch.filter(|_| schema.is_some() && !request.stream);
        worker.app.requests.fetch_add(1, Ordering::Relaxed);
        let recalls = worker.recalls.get();
        let mut exchange = Box::new(Self {
            worker,
            snapshot,
            model,
            flow: begin(facts, arrival.at),
            arrival,
            named: fallbacks.named,
            outgoing: Some((request, body)),
            upload: None,
            attempt: None,
            hedge: None,
            broken: continuation::Broken::default(),
            checked: structured::Checked::by(schema),
            granted: None,
            timer: Box::pin(sleep_until(clock::instant(Now::NEVER))),
            timer_at: Now::NEVER,
            recalls,
            provider_error: None,
            refusal: None,
            status: None,
            began,
            waited: std::time::Duration::ZERO,
            overhead: None,
            cost_micro_usd: None,
            settled: false,
            stopped: false,
        });
        exchange.flow.fall_back_to(fallbacks.models);
        if let Some(on_mismatch) = checks_whole {
            exchange.flow.check_answer(on_mismatch);
        }
        exchange
    }

    /// The same with a body that passes by, if it does.
    pub fn passing(mut self: Box<Self>, upload: Option<Upload>) -> Box<Self> {
        if upload.is_some() {
            self.flow.pass_body();
        }
        self.upload = upload;
        self
    }

    /// Drives the request until there is a response to give.
    pub async fn run(mut self: Box<Self>) -> Response<RouterBody> {
        let mut input = Input::Arrived;
        let mut now = clock::now();
        loop {
            match self.step(input, now) {
                Action::Forward(_) | Action::Hedge(_) if !self.may_be_sent().await => return self.give_up(),
                Action::Forward(choice) => {
                    self.hedge = None;
                    self.begin(&choice, now);
                    now = clock::now();
                }
                Action::Hedge(choice) => {
                    self.hedge = Some(self.attempt_for(&choice, now));
                    now = clock::now();
                }
                Action::DropHedge => self.hedge = None,
                Action::Promote => {
                    self.attempt = self.hedge.take();
                    self.provider_error = None;
                }
                Action::Wait => {}
                Action::Yield => {
                    self.attempt = None;
                    self.hedge = None;
                }
                Action::RelayHedge => {
                    self.attempt = self.hedge.take();
                    give_way().await;
                    return self.respond();
                }
                Action::Relay => {
                    self.hedge = None;
                    give_way().await;
                    return self.respond();
                }
                Action::Reject(refusal) => return self.refuse(&refusal),
                Action::Truncate(_) | Action::Finish => {
                    // Only a response that has begun can be cut short, and only a client that is there is served.
                    return self.give_up();
                }
            }
            let asked = now;
            let Some(next) = poll_fn(|cx| self.poll_input_or_stop(cx)).await else {
                return self.refuse_to_stop();
            };
            (input, now) = (next, clock::now());
            self.waited += now - asked;
        }
    }

    /// Whether the attempt that was just decided on may be sent. Of a batch's line that is written down first.
    async fn may_be_sent(&self) -> bool {
        let Some(gate) = &self.arrival.line else { return true };
        let free = self.flow.attempts().last().is_some_and(|attempt| attempt.free);
        let model = self.flow.other_model().unwrap_or(&self.model.name);
        let config = self.snapshot.config.models.get(&**model);
        let again = free || config.is_some_and(|model| model.retry.unsure);
        // Boxed, for the room of what few requests need is moved about with every request.
        Box::pin(gate.pass(again)).await
    }

    fn step(&mut self, input: Input, now: Now) -> Action {
        self.alert(&input);
        let app = &self.worker.app;
        let held = self.flow.permits();
        let told_by = self.flow.wakes_by();
        let (action, granted) = app.live.step(&mut self.flow, now, input);
        let holds = self.flow.permits();
        if holds != held {
            // Modulo 2^64, so that adding a difference below zero takes away.
            app.attempts.fetch_add(holds.wrapping_sub(held), Ordering::Relaxed);
        }
        if self.flow.wakes_by() != told_by {
            self.granted = granted;
        }
        action
    }

    /// Begins the attempt that was decided on; the one before it, if any, is dropped and so cancelled.
    fn begin(&mut self, choice: &Choice, now: Now) {
        self.attempt = None;
        self.hedge = None;
        self.provider_error = None;
        if let Some((request, body)) = self.outgoing.as_ref().filter(|_| self.upload.is_none()) {
            mirror::consider(self, request, body);
        }
        self.attempt = Some(self.attempt_for(choice, now));
    }

    fn attempt_for(&self, choice: &Choice, now: Now) -> Box<Attempt> {
        // The decision was made by the newest configuration, whatever held when the request arrived: target and secret
        // are taken from there, and together. What is gone by now is still known to the snapshot of its arrival.
        let newest = self.worker.app.snapshot.load();
        let known = [&**newest, &*self.snapshot].into_iter().find_map(|snapshot| {
            let target = snapshot.targets.get(&choice.deployment)?;
            let credential = choice.credential.map(|id| snapshot.credentials.get(&id).ok_or(()));
            Some((target, credential.transpose().ok()?))
        });
        let (Some((target, credential)), Some((request, body))) = (known, &self.outgoing) else {
            return Box::new(Attempt::failed(Failure {
                class: FailureClass::Connect,
                processed: Processed::No,
                status: None,
                retry_after: None,
            }));
        };
        let Composed { parts, losses, reading } = match self.compose(target, credential, (request, body)) {
            Ok(composed) => composed,
            // What cannot be written anew cannot be repaired, which is no fault of the client's.
            Err(_) if self.repairs().is_some() => {
                let failure = words::failure(FailureClass::SchemaMismatch, Processed::Maybe);
                return Box::new(Attempt::failed(failure));
            }
            Err(refusal) => return Box::new(Attempt::refused(refusal)),
        };
        let schema = self.checked.schema.as_ref();
        let keeping = if reading.is_some() { Keeping::Nothing } else { self.keeping() };
        // The rest of an answer that broke off does not fit alone.
        let watched = schema.filter(|_| reading.is_none() && self.broken.transcript.is_none());
        let watch = watched.map(|schema| {
            let reader = match self.arrival.asked.operation {
                Operation::Response => reader::stream(),
                Operation::Chat
                | Operation::Completion
                | Operation::Embedding
                | Operation::Infer
                | Operation::Task(_) => target.endpoint.vendor.dialect.dialect.stream(),
            };
            Watch::new(Arc::clone(schema), Some(reader))
        });
        let tokens = credential.and_then(Credential::tokens);
        let mut attempt = Box::new(Attempt::begin(
            &self.worker,
            Arc::clone(target),
            (parts, tokens),
            request,
            keeping,
            now,
        ));
        attempt.watch_for(self.issues(choice, reading.as_ref().is_some_and(|reading| reading.converts())));
        attempt.read_by(reading, losses);
        if let Some(watch) = watch {
            attempt.watch_by(watch);
        }
        attempt
    }

    /// What is sent to a deployment, in its dialect and form, and who reads the answer.
    fn compose(
        &self,
        target: &Target,
        credential: Option<&Credential>,
        (request, body): (&Request, &Bytes),
    ) -> Result<Composed, ErrorBody> {
        let (arrival, refuses) = (&self.arrival, self.model.refuses_losses);
        let schema = self.checked.schema.as_ref();
        let reading = |echoed: String| {
            let reading = Reading::of(arrival, target, request, schema);
            reading.map(|reading| reading.echoing(echoed))
        };
        if let Some(form) = &request.parts {
            let upload = self.upload.as_ref();
            let parts = tasks::compose(target, credential, (request, form), body, upload, arrival);
            return Ok(Composed { parts, losses: Losses::default(), reading: reading(String::new()) });
        }
        if let Some(form) = tasks::other_form(arrival, target) {
            let (written, ranking) = tasks::write(arrival, target, form, (request, body), refuses)?;
            let parts = outgoing::compose_converted(target, credential, request, written.body, arrival);
            let reading = Some(Reading::of_rerank(arrival, target, request, ranking));
            return Ok(Composed { parts: parts.into(), losses: written.losses, reading });
        }
        let (repairs, converts) = (self.repairs(), convert::is_needed(arrival, target));
        if converts || repairs.is_some() {
            // What is lost for a repair alone is no reason to refuse what was sent once already.
            let written = convert::write(arrival, target, (request, body), converts && refuses, repairs)?;
            let parts = outgoing::compose_converted(target, credential, request, written.body, arrival);
            let mut reading = reading(written.echoed);
            if arrival.asked.operation == Operation::Response {
                reading = reading.map(Reading::turning);
            }
            return Ok(Composed { parts: parts.into(), losses: written.losses, reading });
        }
        let rest_of = self.broken.transcript.as_ref();
        let parts = outgoing::compose(target, credential, (request, body), rest_of, arrival);
        Ok(Composed { parts: parts.into(), losses: Losses::default(), reading: reading(String::new()) })
    }

    /// `None` when the grace of a process that stops is over.
    fn poll_input_or_stop(&mut self, cx: &mut Context<'_>) -> Poll<Option<Input>> {
        if self.worker.stage.get() == Shutdown::Now {
            return Poll::Ready(None);
        }
        self.poll_input(cx).map(Some)
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Input> {
        if let Some(granted) = &mut self.granted
            && Pin::new(granted).poll(cx).is_ready()
        {
            self.granted = None;
            return Poll::Ready(Input::Granted);
        }
        if let Some(attempt) = &mut self.attempt {
            let polled = attempt.poll(cx);
            if let Some(upload) = &self.upload {
                upload.tell(&mut self.flow);
            }
            if let Poll::Ready(input) = polled {
                if let Some(error) = attempt.take_error() {
                    self.provider_error = Some(error);
                }
                self.refusal =
                    attempt.take_refusal().or_else(|| self.upload.as_ref()?.take_error().map(Box::new));
                if let Some(said) = attempt.take_said() {
                    self.flow.note_said(false, said);
                }
                if let Input::Misfit(usage) = &input {
                    self.note_misfit(usage);
                }
                return Poll::Ready(input);
            }
        }
        if let Some(hedge) = &mut self.hedge
            && let Poll::Ready(input) = hedge.poll(cx)
        {
            if let Some(said) = hedge.take_said() {
                self.flow.note_said(true, said);
            }
            return Poll::Ready(input.of_hedge());
        }
        if self.is_recalled() {
            return Poll::Ready(Input::Recalled);
        }
        self.poll_timer(cx, Now::NEVER).map(|()| Input::TimerFired)
    }

    /// Whether a drain has ended since the flow was last asked about it.
    fn is_recalled(&mut self) -> bool {
        let recalls = self.worker.recalls.get();
        std::mem::replace(&mut self.recalls, recalls) != recalls
    }

    /// Ready when the flow wants to be woken, and at `early` at the latest. The timer is set anew only when it would come
    /// too late, or came early: deadlines mostly move away, and a timer that is not touched costs nothing.
    fn poll_timer(&mut self, cx: &mut Context<'_>, early: Now) -> Poll<()> {
        let wake_at = self.flow.wake_at().min(early);
        if wake_at < self.timer_at {
            self.set_timer(wake_at);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            if clock::now() >= wake_at {
                return Poll::Ready(());
            }
            self.set_timer(wake_at);
        }
    }

    fn set_timer(&mut self, at: Now) {
        self.timer.as_mut().reset(clock::instant(at));
        self.timer_at = at;
    }

    #[cold]
    fn give_up(mut self: Box<Self>) -> Response<RouterBody> {
        let error = ErrorBody::internal("the request ended before it was answered");
        let response = self.error_response(&error, None);
        self.status = Some(response.status().as_u16());
        response
    }
}
