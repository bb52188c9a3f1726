//! What one event, or a whole answer, means.

use std::borrow::Cow;

use crate::chat::CHOICES_MAX;
use crate::json::{JsonError, Kind, Scanner, check};
use crate::openai::sse::StreamError;
use crate::openai::usage::Usage;

/// Nesting accepted in answers; they are read leniently, but not without end.
const DEPTH_MAX: usize = 256;

/// What an event means.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    pub(super) content: bool,
    /// Candidates, one bit each.
    pub(super) seen: u128,
    /// Those that say why they ended.
    pub(super) stopped: u128,
    /// The prompt was refused.
    pub(super) blocked: bool,
    pub(super) usage: Option<Usage>,
    pub(super) error: Option<StreamError>,
}

/// The data of an event, its lines joined.
pub(super) fn data_of(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let event = event.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(event);
    let mut data: Option<Cow<'_, [u8]>> = None;
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Some(value) = line.strip_prefix(b"data:") else { continue };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        data = Some(match data {
            None => Cow::Borrowed(value),
            Some(before) => Cow::Owned([&before, value].join(&b'\n')),
        });
    }
    data
}

/// Whether data is a whole JSON text.
pub(super) fn is_whole(data: &[u8]) -> bool {
    std::str::from_utf8(data).is_ok_and(|text| check(text, DEPTH_MAX).is_ok())
}

/// What data means; `None` if it cannot be read, which is the client's business to judge.
pub(super) fn of(data: &[u8]) -> Option<Meaning> {
    read(std::str::from_utf8(data).ok()?).ok()
}

/// The usage in the body of an answer that was not streamed, if it has any.
pub fn usage_of_body(body: &[u8]) -> Option<Usage> {
    of(body)?.usage
}

fn read(text: &str) -> Result<Meaning, JsonError> {
    let mut scanner = Scanner::new(text, DEPTH_MAX);
    let mut meaning = Meaning::default();
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        let kind = scanner.peek()?;
        match key.raw() {
            "candidates" if kind == Kind::Array => {
                let (mut elements, mut at) = (scanner.array()?, 0);
                while scanner.next_element(&mut elements)? {
                    read_candidate(&mut scanner, at, &mut meaning)?;
                    at += 1;
                }
            }
            "usageMetadata" | "usage_metadata" if kind == Kind::Object => {
                meaning.usage = Some(read_usage(&mut scanner)?);
            }
            "promptFeedback" | "prompt_feedback" if kind == Kind::Object => {
                meaning.blocked |= has_word(&mut scanner, "blockReason", "block_reason")?;
            }
            "error" if kind == Kind::Object => {
                scanner.skip_value()?;
                meaning.error = Some(super::super::fault::stream_error(text));
            }
            _ => drop(scanner.skip_value()?),
        }
    }
    scanner.finish()?;
    meaning.blocked &= meaning.seen == 0;
    Ok(meaning)
}

/// Whether an object has a filled string of this name.
fn has_word(scanner: &mut Scanner<'_>, name: &str, other: &str) -> Result<bool, JsonError> {
    let (mut members, mut found) = (scanner.object()?, false);
    while let Some(key) = scanner.next_key(&mut members)? {
        if (key.is(name) || key.is(other)) && scanner.peek()? == Kind::String {
            found |= !scanner.string()?.raw().ends_with("UNSPECIFIED");
        } else {
            scanner.skip_value()?;
        }
    }
    Ok(found)
}

fn read_candidate(scanner: &mut Scanner<'_>, at: u32, meaning: &mut Meaning) -> Result<(), JsonError> {
    if scanner.peek()? != Kind::Object {
        return scanner.skip_value().map(drop);
    }
    let (mut members, mut index, mut stopped) = (scanner.object()?, at, false);
    while let Some(key) = scanner.next_key(&mut members)? {
        let kind = scanner.peek()?;
        match key.raw() {
            "content" if kind == Kind::Object => meaning.content |= read_content(scanner)?,
            "finishReason" | "finish_reason" if kind == Kind::String => {
                let reason = scanner.string()?;
                stopped = !reason.is_empty() && !reason.is("FINISH_REASON_UNSPECIFIED");
            }
            "index" if kind == Kind::Number => index = scanner.number()?.parse().unwrap_or(u32::MAX),
            _ => drop(scanner.skip_value()?),
        }
    }
    if index < CHOICES_MAX.min(u128::BITS) {
        meaning.seen |= 1 << index;
        meaning.stopped |= u128::from(stopped) << index;
    }
    Ok(())
}

/// Whether there is a part that says something: more than an empty text or a signature.
fn read_content(scanner: &mut Scanner<'_>) -> Result<bool, JsonError> {
    let (mut members, mut content) = (scanner.object()?, false);
    while let Some(key) = scanner.next_key(&mut members)? {
        if !key.is("parts") || scanner.peek()? != Kind::Array {
            scanner.skip_value()?;
            continue;
        }
        let mut elements = scanner.array()?;
        while scanner.next_element(&mut elements)? {
            content |= read_part(scanner)?;
        }
    }
    Ok(content)
}

fn read_part(scanner: &mut Scanner<'_>) -> Result<bool, JsonError> {
    if scanner.peek()? != Kind::Object {
        return scanner.skip_value().map(|_| false);
    }
    let (mut members, mut content) = (scanner.object()?, false);
    while let Some(key) = scanner.next_key(&mut members)? {
        let kind = scanner.peek()?;
        match key.raw() {
            "text" if kind == Kind::String => content |= !scanner.string()?.is_empty(),
            "functionCall"
            | "function_call"
            | "inlineData"
            | "inline_data"
            | "fileData"
            | "file_data"
            | "executableCode"
            | "executable_code"
            | "codeExecutionResult"
            | "code_execution_result" => {
                content |= kind == Kind::Object;
                scanner.skip_value()?;
            }
            _ => drop(scanner.skip_value()?),
        }
    }
    Ok(content)
}

fn read_usage(scanner: &mut Scanner<'_>) -> Result<Usage, JsonError> {
    let (mut members, mut usage) = (scanner.object()?, Usage::default());
    while let Some(key) = scanner.next_key(&mut members)? {
        let sum = match key.raw() {
            "promptTokenCount"
            | "prompt_token_count"
            | "toolUsePromptTokenCount"
            | "tool_use_prompt_token_count" => &mut usage.tokens_in,
            "cachedContentTokenCount" | "cached_content_token_count" => &mut usage.tokens_in_cached,
            "candidatesTokenCount"
            | "candidates_token_count"
            | "thoughtsTokenCount"
            | "thoughts_token_count" => &mut usage.tokens_out,
            _ => {
                scanner.skip_value()?;
                continue;
            }
        };
        *sum = sum.saturating_add(read_count(scanner)?);
    }
    usage.tokens_in_cached = usage.tokens_in_cached.min(usage.tokens_in);
    Ok(usage)
}

/// A count that can neither be negative nor overflow, whatever the provider wrote.
fn read_count(scanner: &mut Scanner<'_>) -> Result<u64, JsonError> {
    let written = match scanner.peek()? {
        Kind::Number => scanner.number()?,
        Kind::String => scanner.string()?.raw(),
        Kind::Object | Kind::Array | Kind::Bool | Kind::Null => return scanner.skip_value().map(|_| 0),
    };
    let float = |text: &str| text.parse::<f64>().map_or(0, |value| value as u64);
    Ok(written.parse().unwrap_or_else(|_| float(written)))
}
