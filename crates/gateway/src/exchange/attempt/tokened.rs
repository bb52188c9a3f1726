//! Requests that carry a token which is fetched: it may have to be waited for, and it may be refused before its time. Then
//! the request, which was not looked at, is sent once more with the next one.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use http::HeaderValue;
use pointsman_routing::{FailureClass, Now};
use pointsman_wire::openai::Segments;

use super::{Attempt, State};
use crate::clock;
use crate::http::server::Worker;
use crate::snapshot::Target;
use crate::upstream::connection::{Call, Message};
use crate::upstream::stream::Stream;
use crate::upstream::token::{Tokens, Trouble};

/// The status by which a token is refused.
const UNAUTHORIZED: u16 = 401;

/// A request that carries a token.
pub(super) struct Tokened {
    tokens: Arc<Tokens>,
    /// The request without it.
    parts: Segments,
    /// The one that was sent.
    sent: Option<HeaderValue>,
    /// Whether one was refused already.
    renewed: bool,
}

impl Tokened {
    /// A request that will carry one of these tokens.
    pub(super) fn new(tokens: &Arc<Tokens>, parts: Segments) -> Self {
        Self { tokens: Arc::clone(tokens), parts, sent: None, renewed: false }
    }

    /// Begins to send it, or to wait for a token first.
    pub(super) fn open(&mut self, worker: &Worker, target: &Target, now: Now) -> State {
        if let Some(parts) = self.with_token(target) {
            let state = Attempt::open(worker, target, parts.into(), now);
            let State::Connected(call) = state else { return state };
            // Where a token was renewed, the flow was told of a connection already.
            return if self.renewed { State::AwaitingHead(call) } else { State::Connected(call) };
        }
        let (tokens, endpoint) = (Arc::clone(&self.tokens), Arc::clone(&target.endpoint));
        let connecting = async move {
            tokens.ready().await.map_err(io::Error::other)?;
            Stream::connect(&endpoint).await
        };
        State::Connecting(Box::pin(connecting), Box::default())
    }

    /// The request with the token of the moment behind its request line.
    fn with_token(&mut self, target: &Target) -> Option<Segments> {
        let value = self.tokens.current()?;
        let mut line = BytesMut::new();
        target.endpoint.write_auth(&mut line, &value);
        self.sent = Some(value);
        let mut parts = self.parts.clone();
        let head = parts.first_mut()?;
        let begins = head.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let rest = head.split_off(begins);
        parts.insert(1, line.freeze());
        parts.insert(2, rest);
        Some(parts)
    }
}

impl Attempt {
    /// What is sent on a connection that stands now: `parts`, or what waited for a token.
    pub(super) fn parts_for(&mut self, parts: Message) -> Option<Message> {
        match (&mut self.tokened, &self.target) {
            (Some(tokened), Some(target)) if tokened.sent.is_none() => {
                tokened.with_token(target).map(Message::from)
            }
            (Some(_) | None, _) => Some(parts),
        }
    }

    /// Whether the flow was told that there is a connection.
    pub(super) fn is_renewed(&self) -> bool {
        self.tokened.as_ref().is_some_and(|tokened| tokened.renewed)
    }

    /// Sends the request with another token if this answer refuses the first that was sent; otherwise gives the call back.
    pub(super) fn renew(&mut self, status: u16, call: Box<Call>) -> Option<Box<Call>> {
        let may = status == UNAUTHORIZED && !self.is_renewed();
        let place = self.worker.as_ref().map(Rc::clone).zip(self.target.as_ref().map(Arc::clone));
        let (Some(mut tokened), Some((worker, target))) = (self.tokened.take().filter(|_| may), place) else {
            return Some(call);
        };
        self.keep(call);
        if let Some(sent) = tokened.sent.take() {
            tokened.tokens.refuse(&sent);
        }
        tokened.renewed = true;
        self.head = None;
        self.state = tokened.open(&worker, &target, clock::now());
        self.tokened = Some(tokened);
        None
    }
}

/// The class of a connection that did not come to be: for want of a token, or as usual.
pub(super) fn class_of(error: &io::Error) -> FailureClass {
    let trouble = error.get_ref().and_then(|inner| inner.downcast_ref::<Trouble>());
    if trouble.is_some_and(Trouble::is_final) { FailureClass::CredentialDead } else { FailureClass::Connect }
}
