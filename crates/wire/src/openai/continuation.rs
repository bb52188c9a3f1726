//! Going on with an answer that broke off, at another upstream.
//!
//! The text that came so far is put at the end of the conversation as the beginning of the assistant's answer, and the
//! next upstream is asked to write on from there. Only plain text can be continued: what a tool call, a schema or several
//! answers would have become cannot be told from their beginning.

use bytes::Bytes;
use memchr::memmem;
use serde::Deserialize;

use crate::json::{JsonError, Kind, Scanner, Span, quote};

use super::request::{Operation, Request};
use super::rewrite::Edit;
use super::usage::{ANSWER_DEPTH_MAX, object_or_skip};

/// Bytes of an answer that are kept to go on from; a longer one is not continued.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// How an upstream is told to go on with the last message instead of answering it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// It does so by itself when the last message is the assistant's.
    Prefill,
    /// `"continue_final_message": true, "add_generation_prompt": false` beside the messages (vLLM, SGLang).
    ContinueFinalMessage,
    /// `"prefix": true` in the message (Mistral).
    Prefix,
}

/// What there is to go on from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transcript {
    text: String,
    /// Events with content so far, about one token each.
    tokens: u64,
    /// The `id` of the answer, quotes included: the rest carries it too.
    id: Option<Bytes>,
    /// Something came that cannot be continued, or more than is kept.
    closed: bool,
}

impl Transcript {
    /// Whether the rest can be asked for: there is text, and nothing but text.
    pub fn can_be_continued(&self) -> bool {
        !self.closed && !self.text.is_empty()
    }

    /// The answer so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The `id` of the answer, quotes included.
    pub(super) fn id(&self) -> Option<&Bytes> {
        self.id.as_ref()
    }

    /// Nothing after this can be continued.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.text = String::new();
    }

    /// Takes in what one event of a chat stream says.
    pub(super) fn take(&mut self, data: &str) {
        if !self.closed && self.read(data).is_err() {
            self.close();
        }
        if self.text.len() > TEXT_BYTES_MAX {
            self.close();
        }
    }

    fn read(&mut self, data: &str) -> Result<(), JsonError> {
        let mut scanner = Scanner::new(data, ANSWER_DEPTH_MAX);
        let mut members = scanner.object()?;
        while let Some(key) = scanner.next_key(&mut members)? {
            match key.raw() {
                "id" if self.id.is_none() && scanner.peek()? == Kind::String => {
                    let id = scanner.skip_value()?;
                    self.id = Some(Bytes::copy_from_slice(scanner.slice(id).as_bytes()));
                }
                "choices" if scanner.peek()? == Kind::Array => {
                    let mut elements = scanner.array()?;
                    while scanner.next_element(&mut elements)? {
                        self.read_choice(&mut scanner)?;
                    }
                }
                _ => drop(scanner.skip_value()?),
            }
        }
        scanner.finish()
    }

    fn read_choice(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        let Some(mut members) = object_or_skip(scanner)? else { return Ok(()) };
        while let Some(key) = scanner.next_key(&mut members)? {
            match key.raw() {
                "delta" => self.read_delta(scanner)?,
                // What is finished needs no continuation.
                "finish_reason" => self.closed |= scanner.peek()? != Kind::Null && !is_empty(scanner)?,
                _ => {}
            }
            if key.raw() != "delta" {
                scanner.skip_value()?;
            }
        }
        Ok(())
    }

    fn read_delta(&mut self, scanner: &mut Scanner<'_>) -> Result<(), JsonError> {
        let Some(mut members) = object_or_skip(scanner)? else { return Ok(()) };
        while let Some(key) = scanner.next_key(&mut members)? {
            match key.raw() {
                "content" if scanner.peek()? == Kind::String => {
                    let content = scanner.string()?;
                    self.tokens += u64::from(!content.is_empty());
                    match content.decode() {
                        Some(text) => self.text.push_str(&text),
                        None => self.closed = true,
                    }
                }
                "role" => drop(scanner.skip_value()?),
                // Content in parts, reasoning, tool calls, refusals, audio: nothing of these can be handed on.
                _ => {
                    self.closed |= !is_empty(scanner)?;
                    scanner.skip_value()?;
                }
            }
        }
        Ok(())
    }
}

/// Whether the next value says nothing. It is not passed over.
fn is_empty(scanner: &Scanner<'_>) -> Result<bool, JsonError> {
    let mut ahead = scanner.clone();
    let value = ahead.skip_value()?;
    Ok(matches!(ahead.slice(value), "null" | "\"\"" | "[]" | "{}"))
}

/// Whether the answer to this request could be continued if it broke off.
pub fn is_continuable(request: &Request, body: &[u8]) -> bool {
    let says = |field: &str| memmem::find(body, field.as_bytes()).is_some();
    request.operation == Operation::Chat
        && request.stream
        && request.choices == 1
        && request.spans.messages_end > 0
        && !request.formatted
        && !says("\"continue_final_message\"")
        && !says("\"add_generation_prompt\"")
}

/// The changes to a body that ask for the rest of an answer; none if nothing is left of the output that was asked for.
pub(super) fn edits(request: &Request, transcript: &Transcript, style: Style) -> impl Iterator<Item = Edit> {
    let insert =
        |at: usize, text: String| Edit { span: Span { start: at, end: at }, replacement: text.into() };
    let text = quote(&transcript.text);
    let marked = if style == Style::Prefix { r#","prefix":true"# } else { "" };
    let message = format!(r#",{{"role":"assistant","content":{text}{marked}}}"#);
    let options = (style == Style::ContinueFinalMessage).then(|| {
        let options = r#""continue_final_message":true,"add_generation_prompt":false,"#;
        insert(request.spans.body_start, options.to_owned())
    });
    let left = request.tokens_out_max.map(|max| max.saturating_sub(transcript.tokens).max(1));
    let limits = request
        .spans
        .tokens_out
        .iter()
        .zip(std::iter::repeat(left))
        .filter_map(|(span, left)| Some(Edit { span: *span, replacement: left?.to_string().into() }));
    options.into_iter().chain([insert(request.spans.messages_end, message)]).chain(limits.collect::<Vec<_>>())
}

/// Where the `id` of an event stands, quotes included, within the event's bytes.
pub(super) fn id_within(event: &[u8]) -> Option<Span> {
    let brace = memchr::memchr(b'{', event)?;
    let line = &event[brace..];
    let line = &line[..memchr::memchr2(b'\n', b'\r', line).unwrap_or(line.len())];
    let text = std::str::from_utf8(line).ok()?;
    let mut scanner = Scanner::new(text, ANSWER_DEPTH_MAX);
    let mut members = scanner.object().ok()?;
    while let Some(key) = scanner.next_key(&mut members).ok()? {
        let value = scanner.skip_value().ok()?;
        if key.is("id") {
            return Some(Span { start: brace + value.start, end: brace + value.end });
        }
    }
    None
}
