//! A request of another dialect, put together from what its own reader found.

use crate::json::Text;
use crate::openai::error::Invalid;

use super::prompt::Prompt;
use super::{BodyLimits, Needs, Operation, Request};

/// Puts a request together.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    prompt: Prompt<'a>,
    salt: u64,
    /// What is no part of the prompt.
    pub(crate) request: Request,
}

impl<'a> Builder<'a> {
    /// Nothing yet. Hashes are salted with `salt`.
    pub(crate) fn new(operation: Operation, salt: u64) -> Self {
        Self { prompt: Prompt::new(operation, salt), salt, request: Request::of(operation) }
    }

    /// One more message or prompt of the list `param`.
    pub(crate) fn message(&mut self, param: &str, limits: &BodyLimits) -> Result<(), Invalid> {
        let max = limits.messages_max;
        if self.prompt.messages as usize >= max {
            return Err(Invalid::field(param, format!("`{param}` has more than the {max} items accepted")));
        }
        self.prompt.messages += 1;
        Ok(())
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
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.prompt.add_bytes(bytes.len());
        self.prompt.beginnings.bytes(bytes);
    }

    /// What stands before all messages, wherever it stands in the body: instructions, tools.
    pub(crate) fn head(&mut self, bytes: &[u8]) {
        self.prompt.add_bytes(bytes.len());
        self.prompt.beginnings.head(bytes);
    }

    /// Media, which are not looked into.
    pub(crate) fn media(&mut self, bytes: &[u8], image: bool) {
        self.prompt.beginnings.media(bytes);
        self.prompt.images = self.prompt.images.saturating_add(u32::from(image));
    }

    /// Tokens that the client gave as numbers.
    pub(crate) fn tokens(&mut self, count: u64) {
        self.prompt.tokens_given += count;
    }

    /// A message ends here.
    pub(crate) fn end_message(&mut self) {
        self.prompt.beginnings.end_message();
    }

    /// Tokens of the prompt so far, at the very least.
    pub(crate) fn tokens_min(&self) -> u64 {
        self.prompt.tokens_min()
    }

    /// The request for a model of that name and version.
    pub(crate) fn finish(self, (model, version): (String, Option<String>)) -> Request {
        let needs = Needs { vision: self.prompt.images > 0, ..self.request.needs };
        Request {
            model,
            version,
            needs,
            prompt_bytes: self.prompt.bytes,
            prompt_tokens_given: self.prompt.tokens_given,
            tokens_in_min: self.prompt.tokens_min(),
            messages: self.prompt.messages,
            images: self.prompt.images,
            prefix_hash: self.prompt.prefix_hash(self.salt),
            prefix: self.prompt.beginnings.finish(),
            ..self.request
        }
    }
}
