//! What one event means.

use std::borrow::Cow;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::chat::{Finding, Findings};
use crate::json::{JsonError, Kind, Scanner, check};
use crate::openai::error::classify;
use crate::openai::findings;
use crate::openai::request::{Operation, Shape};
use crate::openai::usage::{ANSWER_DEPTH_MAX, Usage, is_off_list, object_or_skip, read_usage};

use super::StreamError;

/// The fields of one event that matter here.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    /// The lines of `data`, joined.
    pub(super) data: Option<Cow<'a, [u8]>>,
    /// `event: error`, or a line `error: …` as older llama.cpp servers send it.
    is_error: bool,
    /// The last line has its end.
    line_ended: bool,
}

impl<'a> Fields<'a> {
    /// The fields of the event in `bytes`; `at_start` if a byte order mark may precede it.
    pub(super) fn of(bytes: &'a [u8], at_start: bool) -> Self {
        let bytes = if at_start { bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes) } else { bytes };
        let mut fields =
            Self { line_ended: bytes.ends_with(b"\n") || bytes.ends_with(b"\r"), ..Self::default() };
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            fields.line(&rest[..end]);
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        fields
    }

    fn line(&mut self, line: &'a [u8]) {
        if let Some(value) = value_of(line, b"data") {
            self.data = Some(match self.data.take() {
                None => Cow::Borrowed(value),
                Some(before) => Cow::Owned([&before, value].join(&b'\n')),
            });
        } else if let Some(value) = value_of(line, b"event") {
            self.is_error |= value == b"error";
        } else if let Some(value) = value_of(line, b"error") {
            self.is_error = true;
            self.data.get_or_insert(Cow::Borrowed(value));
        }
    }
}

fn value_of<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(field)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

/// Whether an event that lacks its closing blank line is whole all the same.
pub(super) fn is_whole(fields: &Fields<'_>) -> bool {
    match fields.data.as_deref() {
        None => fields.line_ended,
        Some(data) => {
            is_done(data) || std::str::from_utf8(data).is_ok_and(|text| check(text, ANSWER_DEPTH_MAX).is_ok())
        }
    }
}

/// What one event means.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations of one event")]
pub(super) struct Meaning {
    pub(super) content: bool,
    pub(super) done: bool,
    /// A choice says why it is finished; usage and `[DONE]` may follow.
    pub(super) finished: bool,
    pub(super) error: Option<StreamError>,
    pub(super) usage: Option<Usage>,
    pub(super) findings: Findings,
    /// Usage is all it carries.
    pub(super) only_usage: bool,
}

impl Meaning {
    /// Whether it is a mere beginning: no content, no usage and no end.
    pub(super) const fn says_nothing(&self) -> bool {
        !(self.content || self.done || self.finished) && self.error.is_none() && self.usage.is_none()
    }
}

/// What an event means, or `None` if it means nothing to us (comments, other events, what cannot be read).
pub(super) fn meaning(operation: Operation, fields: &Fields<'_>, content_seen: bool) -> Option<Meaning> {
    let data = fields.data.as_deref()?;
    if is_done(data) {
        return Some(Meaning { done: true, ..Meaning::default() });
    }
    if fields.is_error {
        return Some(Meaning { error: Some(error_of(data)), ..Meaning::default() });
    }
    match operation {
        Operation::Chat
        | Operation::Completion
        | Operation::Embedding
        | Operation::Infer
        | Operation::Task(_) => {
            // Once content flows, an object without these words is content like those before it.
            if content_seen && data.starts_with(b"{") && !mentions(data, &USAGE) && !mentions(data, &ERROR) {
                let finished = mentions(data, &FINISH_REASON);
                // Only the last of a choice says how it ended.
                let findings = if finished { findings::of_stops(data) } else { Findings::default() };
                return Some(Meaning {
                    content: !is_last_delta(data),
                    finished,
                    findings,
                    ..Meaning::default()
                });
            }
            let text = std::str::from_utf8(data).ok()?;
            read_chunk(text).ok()
        }
        Operation::Response => read_response_event(std::str::from_utf8(data).ok()?).ok(),
    }
}

/// Bytes of an event's beginning that name its type, which nearly always stands first.
const TYPE_WITHIN_BYTES: usize = 256;

/// What an event means that is too long to be read whole: content, and the end of a response if it begins like one.
pub(super) fn meaning_of_beginning(operation: Operation, beginning: &[u8]) -> Meaning {
    let named = &beginning[..beginning.len().min(TYPE_WITHIN_BYTES)];
    let is_end = |name: &str| memchr::memmem::find(named, name.as_bytes()).is_some();
    let done = operation == Operation::Response
        && ["response.completed", "response.failed", "response.incomplete"].into_iter().any(is_end);
    Meaning { content: true, done, ..Meaning::default() }
}

fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
static ERROR: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"error\""));
static FINISH_REASON: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"finish_reason\""));
static EMPTY_DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"delta\":{}"));

/// Whether the word stands in `data` with anything but `null` after it. Many upstreams send `"usage":null` with
/// every event.
fn mentions(data: &[u8], word: &Finder<'static>) -> bool {
    word.find_iter(data).any(|at| {
        let after = data.get(at + word.needle().len()..).unwrap_or_default().trim_ascii_start();
        let value = after.strip_prefix(b":").map(<[u8]>::trim_ascii_start);
        !value.is_some_and(|value| value.starts_with(b"null"))
    })
}

/// Whether this is the event that only says why generation stopped.
fn is_last_delta(data: &[u8]) -> bool {
    EMPTY_DELTA.find(data).is_some()
}

/// An error that stands in the place of an answer, or of more of it.
pub(crate) fn error_of(data: &[u8]) -> StreamError {
    let status = std::str::from_utf8(data).ok().and_then(|text| status_of(&mut scanner(text)).ok().flatten());
    let fault = classify(status.unwrap_or(500), None, data);
    StreamError { status, kind: fault.kind_named, code: fault.code, message: fault.message }
}

fn scanner(text: &str) -> Scanner<'_> {
    Scanner::new(text, ANSWER_DEPTH_MAX)
}

/// A numeric `code` or `status`, at the top or inside `error`.
fn status_of(scanner: &mut Scanner<'_>) -> Result<Option<u16>, JsonError> {
    let mut status = None;
    let Some(mut members) = object_or_skip(scanner)? else { return Ok(None) };
    while let Some(key) = scanner.next_key(&mut members)? {
        let kind = scanner.peek()?;
        match key.raw() {
            "code" | "status" | "status_code" if kind == Kind::Number => {
                let code = scanner.number()?.parse().ok();
                status = status.or(code.filter(|code| (400..600).contains(code)));
            }
            "error" | "response" if kind == Kind::Object => {
                let mut inner = scanner.clone();
                let found = status_of(&mut inner)?;
                *scanner = inner;
                status = status.or(found);
            }
            _ => drop(scanner.skip_value()?),
        }
    }
    Ok(status)
}

/// Reads a chunk of a chat or plain completion.
fn read_chunk(text: &str) -> Result<Meaning, JsonError> {
    let mut scanner = scanner(text);
    let mut meaning = Meaning::default();
    let mut choices = None;
    let mut failed = false;
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        let kind = scanner.peek()?;
        match key.raw() {
            "choices" if kind == Kind::Array => {
                let mut elements = scanner.array()?;
                let mut count = 0;
                while scanner.next_element(&mut elements)? {
                    read_choice(&mut scanner, &mut meaning)?;
                    count += 1;
                }
                choices = Some(count);
            }
            "usage" => meaning.usage = read_usage(Shape::OpenAi, &mut scanner)?.or(meaning.usage),
            "error" => {
                failed |= kind != Kind::Null;
                scanner.skip_value()?;
            }
            "object" if kind == Kind::String => failed |= scanner.string()?.is("error"),
            _ => drop(scanner.skip_value()?),
        }
    }
    scanner.finish()?;
    note_price(text, &mut meaning);
    if failed {
        meaning.error = Some(error_of(text.as_bytes()));
    }
    meaning.only_usage = choices == Some(0) && meaning.usage.is_some() && !failed;
    if meaning.finished {
        meaning.findings.extend(findings::of_stops(text.as_bytes()));
    }
    Ok(meaning)
}

/// An event with usage, of which a stream has one or few, says as well whether that has the usual price.
fn note_price(text: &str, meaning: &mut Meaning) {
    if let Some(usage) = &mut meaning.usage {
        usage.off_list |= is_off_list(text.as_bytes());
    }
}

/// Reads whether a choice brings content, or its end.
fn read_choice(scanner: &mut Scanner<'_>, meaning: &mut Meaning) -> Result<(), JsonError> {
    let Some(mut members) = object_or_skip(scanner)? else { return Ok(()) };
    while let Some(key) = scanner.next_key(&mut members)? {
        match key.raw() {
            "text" => meaning.content |= is_filled(scanner)?,
            "delta" => read_delta(scanner, meaning)?,
            "finish_reason" => meaning.finished |= is_filled(scanner)?,
            // Moonshot says it there.
            "usage" => meaning.usage = read_usage(Shape::OpenAi, scanner)?.or(meaning.usage),
            _ => drop(scanner.skip_value()?),
        }
    }
    Ok(())
}

fn read_delta(scanner: &mut Scanner<'_>, meaning: &mut Meaning) -> Result<(), JsonError> {
    let Some(mut members) = object_or_skip(scanner)? else { return Ok(()) };
    while let Some(key) = scanner.next_key(&mut members)? {
        match key.raw() {
            "content" | "reasoning_content" | "reasoning" | "reasoning_details" | "tool_calls"
            | "function_call" | "audio" => meaning.content |= is_filled(scanner)?,
            "refusal" if is_filled(scanner)? => {
                meaning.content = true;
                meaning.findings.insert(Finding::Refusal);
            }
            "refusal" => {}
            _ => drop(scanner.skip_value()?),
        }
    }
    Ok(())
}

/// Whether the next value is neither null nor an empty string, array or object.
pub(super) fn is_filled(scanner: &mut Scanner<'_>) -> Result<bool, JsonError> {
    let kind = scanner.peek()?;
    let span = scanner.skip_value()?;
    Ok(match kind {
        Kind::String => span.len() > 2,
        Kind::Array | Kind::Object => {
            let inside = &scanner.slice(span).as_bytes()[1..span.len() - 1];
            !inside.trim_ascii().is_empty()
        }
        Kind::Null => false,
        Kind::Number | Kind::Bool => true,
    })
}

/// Reads an event of a response. Its type tells what it is, and usually stands first.
fn read_response_event(text: &str) -> Result<Meaning, JsonError> {
    let mut scanner = scanner(text);
    let mut meaning = Meaning::default();
    let mut kind = Cow::Borrowed("");
    let mut filled = false;
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        let value = scanner.peek()?;
        match key.raw() {
            "type" if value == Kind::String => kind = scanner.string()?.decode().unwrap_or_default(),
            "delta" => filled = is_filled(&mut scanner)?,
            "response" if value == Kind::Object => read_response(&mut scanner, &mut meaning)?,
            "error" if value == Kind::Object => meaning.error = Some(error_of(text.as_bytes())),
            _ => drop(scanner.skip_value()?),
        }
    }
    scanner.finish()?;
    note_price(text, &mut meaning);
    meaning.content = filled && kind.ends_with(".delta");
    if meaning.content && kind == "response.refusal.delta" {
        meaning.findings.insert(Finding::Refusal);
    }
    meaning.done = matches!(&*kind, "response.completed" | "response.failed" | "response.incomplete");
    if matches!(&*kind, "error" | "response.failed") {
        meaning.error = Some(error_of(text.as_bytes()));
    }
    Ok(meaning)
}

fn read_response(scanner: &mut Scanner<'_>, meaning: &mut Meaning) -> Result<(), JsonError> {
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        if key.is("usage") {
            meaning.usage = read_usage(Shape::OpenAi, scanner)?;
        } else if key.is("incomplete_details") {
            let details = scanner.skip_value()?;
            meaning.findings.extend(findings::of_incomplete(scanner.slice(details).as_bytes()));
        } else {
            scanner.skip_value()?;
        }
    }
    Ok(())
}
