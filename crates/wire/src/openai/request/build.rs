//! A request of another dialect, put together from what its own reader found.

use crate::json::{Span, Text};

use super::members::Found;
use super::prompt::Prompt;
use super::{Needs, Operation, Params, Request, Shape, Spans};

/// Puts a request together.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    prompt: Prompt<'a>,
    salt: u64,
    /// What it needs of a deployment.
    pub(crate) needs: Needs,
    /// Sampling parameters.
    pub(crate) params: Params,
    /// Whether the answer is to be streamed.
    pub(crate) stream: bool,
    /// Whether the output is held to a form.
    pub(crate) formatted: bool,
    /// The most output that is asked for.
    pub(crate) tokens_out_max: Option<u64>,
}

impl<'a> Builder<'a> {
    /// Of a chat. Hashes are salted with `salt`.
    pub(crate) fn chat(salt: u64) -> Self {
        Self {
            prompt: Prompt::new(Operation::Chat, salt),
            salt,
            needs: Needs::default(),
            params: Params::default(),
            stream: false,
            formatted: false,
            tokens_out_max: None,
        }
    }

    /// Who says what comes next.
    pub(crate) fn role(&mut self, role: &str) {
        self.prompt.beginnings.role(role);
    }

    /// Text that the model reads.
    pub(crate) fn text(&mut self, text: Text<'a>) {
        self.prompt.add_text(text);
    }

    /// What the model reads nearly as it stands.
    pub(crate) fn raw(&mut self, raw: &[u8]) {
        self.prompt.add_bytes(raw.len());
        self.prompt.beginnings.bytes(raw);
    }

    /// What stands before all messages, wherever it stands in the body.
    pub(crate) fn head(&mut self, raw: &[u8]) {
        self.prompt.add_bytes(raw.len());
        self.prompt.beginnings.head(raw);
    }

    /// An image.
    pub(crate) fn image(&mut self, raw: &[u8]) {
        self.needs.vision = true;
        self.prompt.images = self.prompt.images.saturating_add(1);
        self.prompt.beginnings.media(raw);
    }

    /// Tokens that the client gave as numbers.
    pub(crate) fn tokens(&mut self, count: u64) {
        self.prompt.tokens_given += count;
    }

    /// A message ends here.
    pub(crate) fn end_message(&mut self) {
        self.prompt.messages += 1;
        self.prompt.beginnings.end_message();
    }

    /// Messages so far.
    pub(crate) fn messages(&self) -> usize {
        self.prompt.messages as usize
    }

    /// The request. Usage always comes in the dialects that are read this way, so it need never be asked for.
    pub(crate) fn finish(self, model: (String, Option<String>, Span), found: Found) -> Request {
        let (model, version, span) = model;
        Request {
            operation: Operation::Chat,
            model,
            version,
            stream: self.stream,
            include_usage: Some(true),
            needs: self.needs,
            prompt_bytes: self.prompt.bytes,
            prompt_tokens_given: self.prompt.tokens_given,
            tokens_in_min: self.prompt.tokens_min(),
            messages: self.prompt.messages,
            images: self.prompt.images,
            tokens_out_max: self.tokens_out_max,
            choices: 1,
            params: self.params,
            fallbacks: Vec::new(),
            tensors: None,
            user_hash: None,
            prefix_hash: self.prompt.prefix_hash(self.salt),
            prefix: self.prompt.beginnings.finish(),
            kept_by_provider: false,
            kept: Vec::new(),
            parts: None,
            formatted: self.formatted,
            forbidden: found.forbidden,
            shape: Shape::default(),
            spans: Spans { body_start: found.body_start, model: span, ..Spans::default() },
        }
    }
}
