//! How an attempt begins, or fails before that.

use std::rc::Rc;
use std::sync::Arc;

use pointsman_routing::failure::Processed;
use pointsman_routing::{Failure, FailureClass, Now};
use pointsman_wire::chat::{Findings, Losses};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::{Operation, Request};
use smallvec::SmallVec;

use super::super::continuation::Keeping;
use super::super::tensors::Counted;
use super::super::words::failure;
use super::tokened::Tokened;
use super::{Attempt, State, Wants};
use crate::http::server::Worker;
use crate::snapshot::Target;
use crate::upstream::connection::{Call, Message};
use crate::upstream::stream::Stream;
use crate::upstream::token::Tokens;

impl Attempt {
    /// Begins to send `parts` to the target.
    pub(in crate::exchange) fn begin(
        worker: &Rc<Worker>,
        target: Arc<Target>,
        (parts, tokens): (Message, Option<&Arc<Tokens>>),
        request: &Request,
        keeping: Keeping,
        now: Now,
    ) -> Self {
        let (state, tokened) = match tokens {
            None => (Self::open(worker, &target, parts, now), None),
            Some(tokens) => {
                let mut tokened = Box::new(Tokened::new(tokens, parts.parts));
                (tokened.open(worker, &target, now), Some(tokened))
            }
        };
        let asked = request.include_usage == Some(true);
        let wants = Wants { stream: request.stream, usage: asked, injected: target.stream_usage && !asked };
        // Tensors are no tokens: their size counts for routing, and nobody is told that they were used.
        let tokens_in_estimate = match request.tensors {
            Some(_) => 0,
            None => u64::from(request.tokens_in_estimate()),
        };
        let place = Some((target, Rc::clone(worker)));
        let tensors = request.tensors.map(|asked| Box::new(Counted::new(asked)));
        Self {
            tokened,
            keeping,
            tensors,
            ..Self::with_state(state, request.operation, wants, tokens_in_estimate, place)
        }
    }

    /// Takes a connection that is idle, or begins to make one.
    pub(super) fn open(worker: &Worker, target: &Target, parts: Message, now: Now) -> State {
        if let Some(stream) = worker.pool.take(&target.endpoint, now) {
            return State::Connected(Box::new(Call::new(stream, parts)));
        }
        let endpoint = Arc::clone(&target.endpoint);
        State::Connecting(Box::pin(async move { Stream::connect(&endpoint).await }), Box::new(parts))
    }

    /// An attempt that failed before it began.
    pub(in crate::exchange) fn failed(failure: Failure) -> Self {
        let wants = Wants { stream: false, usage: false, injected: false };
        Self::with_state(State::Failed(failure), Operation::Chat, wants, 0, None)
    }

    /// An attempt at what cannot be written in the provider's dialect.
    pub(in crate::exchange) fn refused(refusal: ErrorBody) -> Self {
        // Without a status: the deployment did not answer, and nothing is learnt of it.
        Self {
            refusal: Some(Box::new(refusal)),
            ..Self::failed(failure(FailureClass::Client, Processed::No))
        }
    }

    pub(super) fn with_state(
        state: State,
        operation: Operation,
        wants: Wants,
        tokens_in_estimate: u64,
        place: Option<(Arc<Target>, Rc<Worker>)>,
    ) -> Self {
        let (target, worker) = place.unzip();
        Self {
            target,
            worker,
            state,
            tokened: None,
            operation,
            wants,
            keeping: Keeping::Nothing,
            head: None,
            ready: SmallVec::new(),
            observer: None,
            tail: None,
            watch: None,
            findings: Findings::default(),
            kept: SmallVec::new(),
            kept_bytes: 0,
            held_bytes: 0,
            tensors: None,
            content: false,
            tokens_out_seen: 0,
            tokens_in_estimate,
            usage: None,
            error: None,
            told: None,
            detail: None,
            reading: None,
            said: None,
            issues: None,
            losses: Losses::default(),
            refusal: None,
        }
    }
}
