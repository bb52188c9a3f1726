//! What the model is to read: messages, prompts and input items.

use smallvec::SmallVec;
use xxhash_rust::xxh3::Xxh3;

use crate::json::{Kind, Span, Text};
use crate::openai::error::Invalid;

use super::beginnings::Beginnings;
use super::body::Reader;
use super::fields::{Spelling, same};
use super::kept::KeptKind;
use super::values::{text, wrong_type};
use super::{Operation, TOKEN_BYTES_MAX};

/// Bytes of a prompt block, about 512 tokens.
const BLOCK_BYTES: usize = 2048;
/// Prompt text that is hashed: two blocks.
const PREFIX_BYTES: usize = 2 * BLOCK_BYTES;

/// What was found of the prompt so far.
#[derive(Debug, Default)]
pub(super) struct Prompt<'a> {
    pub(super) bytes: u64,
    pub(super) tokens_given: u64,
    /// Tokens that the longest of several prompts has at the very least, where each is read on its own.
    pub(super) longest_tokens_min: Option<u64>,
    pub(super) messages: u32,
    pub(super) images: u32,
    /// Texts until they make up the prefix.
    prefix: SmallVec<[Text<'a>; 4]>,
    prefix_bytes: usize,
    /// Comes first in the prompt, wherever it stands in the body.
    instructions: Option<Text<'a>>,
    pub(super) beginnings: Beginnings,
}

impl<'a> Prompt<'a> {
    pub(super) fn new(operation: Operation, salt: u64) -> Self {
        // Nothing of an embedding is kept for the next.
        let beginnings = Beginnings::new(operation != Operation::Embedding, salt);
        Self { beginnings, ..Self::default() }
    }

    /// Tokens found so far, at the very least.
    pub(super) fn tokens_min(&self) -> u64 {
        self.bytes / TOKEN_BYTES_MAX + self.tokens_given
    }

    pub(super) fn add_bytes(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(super) fn add_text(&mut self, text: Text<'a>) {
        self.add_bytes(text.meant_bytes());
        self.beginnings.text(&text);
        if self.prefix_bytes < PREFIX_BYTES && !text.is_empty() {
            self.prefix_bytes += text.meant_bytes();
            self.prefix.push(text);
        }
    }

    /// The salted hash of the first two blocks, or `None` if there is less text.
    pub(super) fn prefix_hash(&self, salt: u64) -> Option<u64> {
        let instructions = self.instructions.iter();
        let bytes = self.prefix_bytes + self.instructions.map_or(0, |text| text.meant_bytes());
        if bytes < PREFIX_BYTES {
            return None;
        }
        let mut hasher = Xxh3::with_seed(salt);
        let mut left = PREFIX_BYTES;
        for text in instructions.chain(&self.prefix) {
            text.chunks(|chunk| {
                let taken = chunk.len().min(left);
                hasher.update(&chunk[..taken]);
                left -= taken;
                left > 0
            });
        }
        Some(hasher.digest())
    }
}

/// What a message turned out to be.
#[derive(Default)]
struct Message<'a> {
    role: Option<Role>,
    id: Option<Text<'a>>,
    /// It stands for an item that the provider keeps.
    is_reference: bool,
    content: Content,
    /// It has tool calls or the like, which stand in for content.
    acts: bool,
    kind: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Assistant,
    Other,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Content {
    #[default]
    Missing,
    Null,
    Given,
}

impl<'a> Reader<'a, '_> {
    pub(super) fn read_messages(&mut self) -> Result<(), Invalid> {
        const PARAM: &str = "messages";
        let got = self.scanner.peek()?;
        if got != Kind::Array {
            return Err(wrong_type(PARAM, "an array of messages", got));
        }
        let mut elements = self.scanner.array()?;
        let mut index = 0;
        while self.scanner.next_element(&mut elements)? {
            self.count_item(PARAM)?;
            let message = self.read_message(PARAM, index)?;
            let at = |member: &str| format!("{PARAM}[{index}].{member}");
            let Some(role) = message.role else {
                return Err(Invalid::field(at("role"), format!("`{}` is missing", at("role"))));
            };
            let optional = role == Role::Assistant || message.acts;
            if message.content != Content::Given && !optional {
                let what = if message.content == Content::Null { "null" } else { "missing" };
                let param = at("content");
                let message = format!("`{param}` is {what}; only an assistant's message may have none");
                return Err(Invalid::field(param, message));
            }
            let ends_with_answer = role == Role::Assistant;
            // Nothing is put behind Anthropic's messages: their answers are not continued elsewhere.
            let fixed = ends_with_answer || self.shape.is_anthropic();
            self.spans.messages_end = if fixed { 0 } else { self.scanner.at() };
            self.prompt.beginnings.end_message();
            index += 1;
        }
        require_some(index, PARAM)
    }

    /// The input of a response: a text, or a list of messages and other items.
    pub(super) fn read_input(&mut self) -> Result<(), Invalid> {
        const PARAM: &str = "input";
        match self.scanner.peek()? {
            Kind::String => return self.read_single_text(PARAM),
            Kind::Array => {}
            got @ (Kind::Object | Kind::Number | Kind::Bool | Kind::Null) => {
                return Err(wrong_type(PARAM, "a string or an array of items", got));
            }
        }
        let mut elements = self.scanner.array()?;
        let mut index = 0;
        while self.scanner.next_element(&mut elements)? {
            self.count_item(PARAM)?;
            let item = self.read_message(PARAM, index)?;
            if item.role.is_none() && !item.kind {
                let param = format!("{PARAM}[{index}]");
                let message = format!("`{param}` has neither `role` nor `type`; it cannot be an input item");
                return Err(Invalid::field(param, message));
            }
            if let Some(id) = item.id.filter(|_| item.is_reference) {
                self.keep(|| format!("{PARAM}[{index}].id"), &id, KeptKind::Answer);
            }
            self.prompt.beginnings.end_message();
            index += 1;
        }
        require_some(index, PARAM)
    }

    pub(super) fn read_instructions(&mut self, param: &str) -> Result<(), Invalid> {
        if matches!(self.scanner.peek()?, Kind::Array) {
            let span = self.scanner.skip_value()?;
            self.prompt.add_bytes(span.len());
            self.prompt.beginnings.head(&self.text.as_bytes()[span.start..span.end]);
            return Ok(());
        }
        if let Some(instructions) = text(&mut self.scanner, param)? {
            self.prompt.add_bytes(instructions.meant_bytes());
            self.prompt.beginnings.head(instructions.raw().as_bytes());
            self.prompt.instructions = Some(instructions);
        }
        Ok(())
    }

    /// A text, texts, tokens, or lists of tokens.
    pub(super) fn read_texts(&mut self, param: &str) -> Result<(), Invalid> {
        match self.scanner.peek()? {
            Kind::String => return self.read_single_text(param),
            Kind::Array => {}
            got @ (Kind::Object | Kind::Number | Kind::Bool | Kind::Null) => {
                return Err(wrong_type(param, "a string or an array", got));
            }
        }
        let mut elements = self.scanner.array()?;
        let mut index = 0;
        let (mut first, mut longest) = (None, 0);
        while self.scanner.next_element(&mut elements)? {
            let got = self.scanner.peek()?;
            if *first.get_or_insert(got) != got {
                let message = format!("`{param}` mixes texts, tokens and lists of tokens; use one of them");
                return Err(Invalid::field(format!("{param}[{index}]"), message));
            }
            match got {
                Kind::String => {
                    self.count_item(param)?;
                    let text = self.scanner.string()?;
                    self.prompt.add_text(text);
                    self.prompt.beginnings.end_message();
                    longest = longest.max(text.meant_bytes() as u64 / TOKEN_BYTES_MAX);
                }
                Kind::Number => self.read_token(|| format!("{param}[{index}]"))?,
                Kind::Array => {
                    self.count_item(param)?;
                    let before = self.prompt.tokens_given;
                    self.read_tokens(param, index)?;
                    longest = longest.max(self.prompt.tokens_given - before);
                }
                Kind::Object | Kind::Bool | Kind::Null => {
                    return Err(wrong_type(&format!("{param}[{index}]"), "a string, a token or tokens", got));
                }
            }
            index += 1;
        }
        if first == Some(Kind::Number) {
            self.count_item(param)?;
        } else {
            self.prompt.longest_tokens_min = Some(longest);
        }
        require_some(index, param)
    }

    fn read_tokens(&mut self, param: &str, prompt: usize) -> Result<(), Invalid> {
        let mut elements = self.scanner.array()?;
        let mut index = 0;
        while self.scanner.next_element(&mut elements)? {
            self.read_token(|| format!("{param}[{prompt}][{index}]"))?;
            index += 1;
        }
        if index == 0 {
            let param = format!("{param}[{prompt}]");
            let message = format!("`{param}` is empty");
            return Err(Invalid::field(param, message));
        }
        Ok(())
    }

    fn read_token(&mut self, param: impl Fn() -> String) -> Result<(), Invalid> {
        let got = self.scanner.peek()?;
        if got != Kind::Number {
            return Err(wrong_type(&param(), "a token", got));
        }
        let number = self.scanner.number()?;
        let Ok(token) = number.parse::<u32>() else {
            let param = param();
            let message = format!("`{param}` must be a token, a whole number from 0 to {}", u32::MAX);
            return Err(Invalid::field(param, message));
        };
        self.prompt.beginnings.bytes(&token.to_le_bytes());
        self.prompt.tokens_given += 1;
        Ok(())
    }

    fn read_single_text(&mut self, param: &str) -> Result<(), Invalid> {
        let text = self.scanner.string()?;
        self.prompt.messages += 1;
        self.prompt.add_text(text);
        self.prompt.beginnings.end_message();
        require_some(text.raw().len(), param)
    }

    fn count_item(&mut self, param: &str) -> Result<(), Invalid> {
        let max = self.limits.messages_max;
        if self.prompt.messages as usize >= max {
            return Err(Invalid::field(param, format!("`{param}` has more than the {max} items accepted")));
        }
        self.prompt.messages += 1;
        Ok(())
    }

    /// Passes over a value whose text the model reads nearly as it stands.
    pub(super) fn prompt_raw(&mut self) -> Result<Span, Invalid> {
        let span = self.scanner.skip_value()?;
        self.prompt.add_bytes(span.len());
        self.prompt.beginnings.bytes(&self.text.as_bytes()[span.start..span.end]);
        Ok(span)
    }

    fn read_message(&mut self, list: &str, index: usize) -> Result<Message<'a>, Invalid> {
        let at = |member: &str| format!("{list}[{index}].{member}");
        let got = self.scanner.peek()?;
        if got != Kind::Object {
            return Err(wrong_type(&format!("{list}[{index}]"), "an object", got));
        }
        let mut message = Message::default();
        let mut members = self.scanner.object()?;
        while let Some(key) = self.scanner.next_key(&mut members)? {
            if is_member(&key, "role", &at)? {
                only_once(message.role.is_some(), || at("role"))?;
                message.role = Some(self.read_role(&at)?);
            } else if is_member(&key, "content", &at)? {
                only_once(message.content != Content::Missing, || at("content"))?;
                message.content = self.read_content(&at)?;
            } else {
                self.read_other_member(&key, &mut message, &at)?;
            }
        }
        Ok(message)
    }

    fn read_other_member(
        &mut self,
        key: &Text<'_>,
        message: &mut Message<'a>,
        at: &impl Fn(&str) -> String,
    ) -> Result<(), Invalid> {
        let kind = self.scanner.peek()?;
        match key.raw() {
            "type" if kind == Kind::String => {
                message.kind = true;
                message.is_reference = self.scanner.string()?.is("item_reference");
            }
            "id" if kind == Kind::String => message.id = Some(self.scanner.string()?),
            "encrypted_content" if kind == Kind::String => {
                let thoughts = self.scanner.string()?;
                self.keep(|| at("encrypted_content"), &thoughts, KeptKind::Thoughts);
            }
            // What the model did before and what came of it is part of what it reads.
            "tool_calls" | "function_call" | "arguments" | "output" | "summary" if kind != Kind::Null => {
                message.acts = true;
                self.prompt_raw()?;
            }
            _ => drop(self.scanner.skip_value()?),
        }
        Ok(())
    }

    fn read_role(&mut self, at: &impl Fn(&str) -> String) -> Result<Role, Invalid> {
        let got = self.scanner.peek()?;
        if got != Kind::String {
            return Err(wrong_type(&at("role"), "a string", got));
        }
        let role = self.scanner.string()?;
        if role.is_empty() {
            return Err(Invalid::field(at("role"), format!("`{}` is empty", at("role"))));
        }
        self.prompt.beginnings.role(role.raw());
        Ok(if role.is("assistant") { Role::Assistant } else { Role::Other })
    }

    fn read_content(&mut self, at: &impl Fn(&str) -> String) -> Result<Content, Invalid> {
        match self.scanner.peek()? {
            Kind::String => {
                let text = self.scanner.string()?;
                self.prompt.add_text(text);
            }
            Kind::Null => {
                self.scanner.null()?;
                return Ok(Content::Null);
            }
            Kind::Array => {
                let mut parts = self.scanner.array()?;
                let mut index = 0;
                while self.scanner.next_element(&mut parts)? {
                    self.read_part(&|| format!("{}[{index}]", at("content")))?;
                    index += 1;
                }
            }
            got @ (Kind::Object | Kind::Number | Kind::Bool) => {
                return Err(wrong_type(&at("content"), "a string or an array of parts", got));
            }
        }
        Ok(Content::Given)
    }

    /// One part of a message: text counts, media is only noted. Media is never looked into.
    pub(super) fn read_part(&mut self, param: &dyn Fn() -> String) -> Result<(), Invalid> {
        let got = self.scanner.peek()?;
        if got != Kind::Object {
            return Err(wrong_type(&param(), "an object", got));
        }
        let mut kind = None;
        let mut image = false;
        let mut members = self.scanner.object()?;
        while let Some(key) = self.scanner.next_key(&mut members)? {
            let value = self.scanner.peek()?;
            match key.decode().as_deref() {
                Some("type") if value == Kind::String => kind = Some(self.scanner.string()?),
                Some("type") => return Err(wrong_type(&format!("{}.type", param()), "a string", value)),
                Some("text" | "refusal") if value == Kind::String => {
                    let text = self.scanner.string()?;
                    self.prompt.add_text(text);
                }
                Some("text") => return Err(wrong_type(&format!("{}.text", param()), "a string", value)),
                // Some engines take a part for an image by this member alone.
                Some("image_url") => {
                    image = value != Kind::Null;
                    let span = self.scanner.skip_value()?;
                    self.prompt.beginnings.media(&self.text.as_bytes()[span.start..span.end]);
                }
                Some("file_id" | "file") => {
                    let name = key.raw();
                    let field = || format!("{}.{name}", param());
                    self.read_kept_in(&field, "file_id", KeptKind::File)?;
                }
                Some(_) if self.shape.is_anthropic() && self.read_block_member(&key, param)? => {}
                Some(_) | None => drop(self.scanner.skip_value()?),
            }
        }
        let Some(kind) = kind else {
            let param = format!("{}.type", param());
            let message = format!("`{param}` is missing");
            return Err(Invalid::field(param, message));
        };
        if image
            || (self.shape.is_anthropic() && kind.is("image"))
            || kind.is("image_url")
            || kind.is("input_image")
        {
            self.needs.vision = true;
            self.prompt.images = self.prompt.images.saturating_add(1);
        }
        Ok(())
    }
}

/// Whether `key` names this member of a message; an error if it does so in another case.
fn is_member(key: &Text<'_>, name: &str, at: &impl Fn(&str) -> String) -> Result<bool, Invalid> {
    match same(key, name) {
        Some(Spelling::Exact) => Ok(true),
        Some(Spelling::Differs) => {
            let param = at(name);
            let message = format!("`{param}` is spelt in another case; spell it `{name}`");
            Err(Invalid::field(param, message))
        }
        None => Ok(false),
    }
}

fn only_once(seen: bool, param: impl Fn() -> String) -> Result<(), Invalid> {
    if !seen {
        return Ok(());
    }
    let param = param();
    let message = format!("`{param}` appears twice; send it once");
    Err(Invalid::field(param, message))
}

fn require_some(count: usize, param: &str) -> Result<(), Invalid> {
    if count > 0 { Ok(()) } else { Err(Invalid::field(param, format!("`{param}` is empty"))) }
}
