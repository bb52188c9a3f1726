//! What one event of Anthropic's means.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::anthropic::error::stream_error;
use crate::json::{JsonError, Kind, Scanner};
use crate::openai::request::Shape;
use crate::openai::usage::{ANSWER_DEPTH_MAX, object_or_skip, read_usage};

use super::event::{Fields, Meaning, is_filled};

/// How nearly all events of a stream begin.
const DELTA: &[u8] = br#"{"type":"content_block_delta","#;
/// How one ends that brings nothing.
const EMPTY: &[u8] = br#":""}}"#;
static SIGNATURE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"signature_delta\""));
static CITATIONS: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"citations_delta\""));

/// What an event means, or `None` if it means nothing to us.
pub(super) fn meaning(fields: &Fields<'_>, content_seen: bool) -> Option<Meaning> {
    let data = fields.data.as_deref()?;
    // Once content flows, what begins like content and has neither of these words is content like what came before.
    if content_seen
        && data.starts_with(DELTA)
        && SIGNATURE.find(data).is_none()
        && CITATIONS.find(data).is_none()
    {
        return Some(Meaning { content: !data.ends_with(EMPTY), ..Meaning::default() });
    }
    read(std::str::from_utf8(data).ok()?).ok()
}

/// What an event means that is too long to be read whole.
pub(super) fn meaning_of_beginning(beginning: &[u8]) -> Meaning {
    const TYPE_WITHIN_BYTES: usize = 256;
    let named = &beginning[..beginning.len().min(TYPE_WITHIN_BYTES)];
    let done = memchr::memmem::find(named, b"\"message_stop\"").is_some();
    Meaning { content: !done, done, ..Meaning::default() }
}

fn read(text: &str) -> Result<Meaning, JsonError> {
    let mut scanner = Scanner::new(text, ANSWER_DEPTH_MAX);
    let mut meaning = Meaning::default();
    let (mut kind, mut filled) = (Cow::Borrowed(""), false);
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        let value = scanner.peek()?;
        match key.raw() {
            "type" if value == Kind::String => kind = scanner.string()?.decode().unwrap_or_default(),
            "message" if value == Kind::Object => read_start(&mut scanner, &mut meaning)?,
            "usage" => meaning.usage = read_usage(Shape::AnthropicMessages, &mut scanner)?,
            "delta" => filled |= read_delta(&mut scanner, &mut meaning)?,
            "content_block" => filled |= read_block(&mut scanner)?,
            _ => drop(scanner.skip_value()?),
        }
    }
    scanner.finish()?;
    meaning.content = filled && matches!(&*kind, "content_block_delta" | "content_block_start");
    meaning.done = kind == "message_stop";
    if kind == "error" {
        meaning.error = Some(stream_error(text));
    }
    Ok(meaning)
}

/// A message at its start has the usage of its prompt.
fn read_start(scanner: &mut Scanner<'_>, meaning: &mut Meaning) -> Result<(), JsonError> {
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        if key.is("usage") {
            meaning.usage = read_usage(Shape::AnthropicMessages, scanner)?;
        } else {
            scanner.skip_value()?;
        }
    }
    Ok(())
}

/// Whether a delta brings content; the last one brings the reason of the end.
fn read_delta(scanner: &mut Scanner<'_>, meaning: &mut Meaning) -> Result<bool, JsonError> {
    let Some(mut members) = object_or_skip(scanner)? else { return Ok(false) };
    let mut content = false;
    while let Some(key) = scanner.next_key(&mut members)? {
        match key.raw() {
            "text" | "thinking" | "partial_json" => content |= is_filled(scanner)?,
            "stop_reason" => meaning.finished |= is_filled(scanner)?,
            _ => drop(scanner.skip_value()?),
        }
    }
    Ok(content)
}

/// Whether a block is content from its start: all but texts and thoughts, which come in pieces.
fn read_block(scanner: &mut Scanner<'_>) -> Result<bool, JsonError> {
    let Some(mut members) = object_or_skip(scanner)? else { return Ok(false) };
    let mut content = false;
    while let Some(key) = scanner.next_key(&mut members)? {
        match key.raw() {
            "type" if scanner.peek()? == Kind::String => {
                let kind = scanner.string()?;
                content |= !(kind.is("text") || kind.is("thinking"));
            }
            "text" | "thinking" => content |= is_filled(scanner)?,
            _ => drop(scanner.skip_value()?),
        }
    }
    Ok(content)
}
