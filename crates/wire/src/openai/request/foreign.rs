//! Requests of other dialects: their own readers find the same things in other places.

use std::borrow::Cow;

use crate::json::{Kind, Text};
use crate::openai::error::Invalid;

use super::fields::folded;
use super::forbidden::forbidden;
use super::prompt::Prompt;
use super::values::wrong_type;
use super::{BodyLimits, Needs, Operation, Params, Request, Shape, Spans, TOKEN_BYTES_MAX};
use super::{impossible_model, shown, split_version};

/// What a reader found of a prompt so far.
pub(crate) struct Found<'a> {
    prompt: Prompt<'a>,
    operation: Operation,
    salt: u64,
    messages_max: usize,
}

impl<'a> Found<'a> {
    /// Nothing yet.
    pub(crate) fn new(operation: Operation, limits: &BodyLimits, salt: u64) -> Self {
        Self { prompt: Prompt::new(operation, salt), operation, salt, messages_max: limits.messages_max }
    }

    /// One more message or prompt of the list `param`.
    pub(crate) fn message(&mut self, param: &str) -> Result<(), Invalid> {
        let max = self.messages_max;
        if self.prompt.messages as usize >= max {
            return Err(Invalid::field(param, format!("`{param}` has more than the {max} items accepted")));
        }
        self.prompt.messages += 1;
        Ok(())
    }

    /// Who speaks.
    pub(crate) fn role(&mut self, role: &str) {
        self.prompt.beginnings.role(role);
    }

    /// Text that the model reads.
    pub(crate) fn text(&mut self, text: Text<'a>) {
        self.prompt.add_text(text);
    }

    /// What it reads nearly as it stands in the body.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.prompt.add_bytes(bytes.len());
        self.prompt.beginnings.bytes(bytes);
    }

    /// The same of what stands before all messages: instructions, tools.
    pub(crate) fn head(&mut self, bytes: &[u8]) {
        self.prompt.add_bytes(bytes.len());
        self.prompt.beginnings.head(bytes);
    }

    /// Media, which are not looked into.
    pub(crate) fn media(&mut self, bytes: &[u8], image: bool) {
        self.prompt.beginnings.media(bytes);
        self.prompt.images = self.prompt.images.saturating_add(u32::from(image));
    }

    /// A message ends.
    pub(crate) fn end_message(&mut self) {
        self.prompt.beginnings.end_message();
    }

    /// Tokens found so far, at the very least.
    pub(crate) fn tokens_min(&self) -> u64 {
        self.prompt.bytes / TOKEN_BYTES_MAX
    }

    /// The request for the model of this name. What else was found is put into its fields.
    pub(crate) fn into_request(self, name: &str, limits: &BodyLimits) -> Result<Request, Invalid> {
        if name.is_empty() {
            return Err(Invalid::field("model", "`model` is empty; name the model to use"));
        }
        if name.len() > limits.model_bytes_max {
            return Err(impossible_model(&format!("is longer than {} bytes", limits.model_bytes_max)));
        }
        if name.chars().any(char::is_control) {
            return Err(impossible_model("contains control characters"));
        }
        let (model, version) = split_version(name);
        Ok(Request {
            operation: self.operation,
            model: model.to_owned(),
            version: version.map(str::to_owned),
            stream: false,
            include_usage: None,
            needs: Needs { vision: self.prompt.images > 0, ..Needs::default() },
            prompt_bytes: self.prompt.bytes,
            prompt_tokens_given: 0,
            tokens_in_min: self.tokens_min(),
            messages: self.prompt.messages,
            images: self.prompt.images,
            tokens_out_max: None,
            choices: 1,
            params: Params::default(),
            fallbacks: Vec::new(),
            tensors: None,
            user_hash: None,
            prefix_hash: self.prompt.prefix_hash(self.salt),
            prefix: self.prompt.beginnings.finish(),
            kept_by_provider: false,
            kept: Vec::new(),
            parts: None,
            formatted: false,
            forbidden: smallvec::SmallVec::new(),
            shape: Shape::default(),
            spans: Spans::default(),
        })
    }
}

/// Which of `names`, each in two spellings, a member's name is; an error if it is one in another case, or would tell an
/// upstream where to go.
pub(crate) fn member_of(
    key: &Text<'_>,
    names: &[(&'static str, &'static str)],
    path: &str,
) -> Result<Option<usize>, Invalid> {
    let text = match (key.escaped(), key.raw().is_ascii()) {
        (false, true) => Cow::Borrowed(key.raw()),
        // Half a surrogate pair is part of no name that any parser folds into one of these.
        (true, _) | (false, false) => Cow::Owned(folded(&key.decode().unwrap_or_default())),
    };
    let either = |fits: &dyn Fn(&str) -> bool| names.iter().position(|(one, other)| fits(one) || fits(other));
    // Most members are spelt as they should be.
    if let Some(at) = either(&|name| *name == *text) {
        return Ok(Some(at));
    }
    if let Some(at) = either(&|name| name.eq_ignore_ascii_case(&text)) {
        let (name, got) = (names.get(at).map_or("", |(name, _)| name), shown(&text));
        let text = format!("the field {got} differs from `{path}{name}` only in case; spell it `{name}`");
        return Err(Invalid::field(format!("{path}{name}"), text));
    }
    match forbidden(&text) {
        Some(name) => {
            let got = shown(&text);
            Err(Invalid::field(
                format!("{path}{name}"),
                format!("{got} is not for clients to say; leave it out"),
            ))
        }
        None => Ok(None),
    }
}

/// An error unless the next value is of this kind.
pub(crate) fn expect(
    scanner: &mut crate::json::Scanner<'_>,
    kind: Kind,
    param: impl Fn() -> String,
) -> Result<(), Invalid> {
    let got = scanner.peek()?;
    if got == kind { Ok(()) } else { Err(wrong_type(&param(), kind.name(), got)) }
}
