//! A stream of lines, relayed as it is and observed on the way.
//!
//! As with events: bytes go through unchanged and uncopied, only whole lines are let through, and one that is too long to be
//! held back passes as it comes.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::json::{JsonError, Kind, Scanner};
use crate::openai::error::classify;
use crate::openai::sse::{EVENT_BYTES_MAX, End, Out, Seen, StreamError};
use crate::openai::usage::Usage;

/// Nesting accepted in lines.
const DEPTH_MAX: usize = 256;

/// Relays one stream and keeps account of it.
#[derive(Debug, Default)]
pub struct LineObserver {
    /// The beginning of a line whose end has not come yet.
    pending: BytesMut,
    /// Whether a line that is too long to be held back is passing.
    passing: bool,
    content_seen: bool,
    proper: bool,
    usage: Option<Usage>,
    tokens_out_seen: u64,
}

impl LineObserver {
    /// An observer at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what came from the upstream and puts what can be forwarded now into `out`.
    pub fn push(&mut self, chunk: Bytes, out: &mut Out) -> Seen {
        let mut seen = Seen::default();
        let Some(last) = memchr::memrchr(b'\n', &chunk) else {
            self.hold(chunk, &mut seen, out);
            return seen;
        };
        // Whole lines are forwarded as one slice.
        let (mut from, mut kept) = (0, 0);
        if self.passing || !self.pending.is_empty() {
            from = memchr::memchr(b'\n', &chunk).unwrap_or(last) + 1;
        }
        if !std::mem::take(&mut self.passing) && from > 0 {
            self.pending.extend_from_slice(&chunk[..from]);
            let line = std::mem::take(&mut self.pending).freeze();
            self.account(&line, &mut seen);
            out.push(line);
            kept = from;
        }
        while let Some(end) = chunk.get(from..=last).and_then(|rest| memchr::memchr(b'\n', rest)) {
            self.account(&chunk[from..=from + end], &mut seen);
            from += end + 1;
        }
        if kept < from {
            out.push(chunk.slice(kept..from));
        }
        self.hold(chunk.slice(last + 1..), &mut seen, out);
        seen
    }

    /// Whether what was forwarded ends inside a line, which has to be closed before another can follow.
    pub const fn is_inside_line(&self) -> bool {
        self.passing
    }

    /// The upstream closed the stream. A last line without its end is forwarded if it is whole.
    pub fn finish(&mut self, out: &mut Out) -> End {
        let rest = self.pending.split().freeze();
        let mut bytes_cut = 0;
        if !rest.is_empty() {
            let whole =
                std::str::from_utf8(&rest).is_ok_and(|line| crate::json::check(line, DEPTH_MAX).is_ok());
            if whole {
                self.account(&rest, &mut Seen::default());
                out.push(rest);
                out.push(Bytes::from_static(b"\n"));
            } else {
                bytes_cut = rest.len();
            }
        }
        End {
            proper: self.proper,
            finished: self.proper,
            usage: self.usage,
            tokens_out_seen: self.tokens_out_seen,
            bytes_cut,
        }
    }

    /// Keeps the beginning of a line, or lets it pass if it grows too long.
    fn hold(&mut self, bytes: Bytes, seen: &mut Seen, out: &mut Out) {
        if bytes.is_empty() {
            return;
        }
        if self.passing {
            return out.push(bytes);
        }
        self.pending.extend_from_slice(&bytes);
        if self.pending.len() > EVENT_BYTES_MAX {
            self.passing = true;
            // So long a line is content; only a last one with a huge context would be more.
            self.content(seen);
            out.push(std::mem::take(&mut self.pending).freeze());
        }
    }

    fn content(&mut self, seen: &mut Seen) {
        self.content_seen = true;
        self.tokens_out_seen += 1;
        seen.content = true;
        seen.content_events = seen.content_events.saturating_add(1);
    }

    fn account(&mut self, line: &[u8], seen: &mut Seen) {
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        let says = |word: &str| memmem::find(line, word.as_bytes()).is_some();
        // Once content flows, a line without these words is content like those before it.
        if self.content_seen && says("\"done\":false") && !says("\"error\"") && line.starts_with(b"{") {
            return self.content(seen);
        }
        let Some(meaning) = std::str::from_utf8(line).ok().and_then(|line| read(line).ok()) else { return };
        if let Some(error) = meaning.error {
            let fault = classify(500, None, line);
            seen.error = Some(StreamError {
                status: None,
                kind: fault.kind_named,
                code: fault.code,
                message: fault.message.or(Some(error)),
            });
            return;
        }
        if meaning.content {
            self.content(seen);
        }
        if meaning.done {
            self.proper = true;
            seen.done = true;
            if meaning.usage.is_some() {
                self.usage = meaning.usage;
                seen.usage = meaning.usage;
            }
        }
    }
}

/// What one line means.
#[derive(Debug, Default)]
struct Meaning {
    content: bool,
    done: bool,
    error: Option<String>,
    usage: Option<Usage>,
}

fn read(line: &str) -> Result<Meaning, JsonError> {
    let mut scanner = Scanner::new(line, DEPTH_MAX);
    let mut meaning = Meaning::default();
    let mut usage = Usage::default();
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        match key.raw() {
            "error" if scanner.peek()? != Kind::Null => {
                let error = scanner.skip_value()?;
                meaning.error = Some(scanner.slice(error).chars().take(512).collect());
            }
            "done" if scanner.peek()? == Kind::Bool => meaning.done = scanner.boolean()?,
            "message" if scanner.peek()? == Kind::Object => {
                let mut message = scanner.object()?;
                while let Some(key) = scanner.next_key(&mut message)? {
                    let said = matches!(key.raw(), "content" | "thinking" | "tool_calls");
                    meaning.content |= says_something(&mut scanner)? && said;
                }
            }
            "response" | "thinking" => meaning.content |= says_something(&mut scanner)?,
            "prompt_eval_count" => usage.tokens_in = counted(&mut scanner)?,
            "eval_count" => usage.tokens_out = counted(&mut scanner)?,
            _ => drop(scanner.skip_value()?),
        }
    }
    scanner.finish()?;
    meaning.usage = Some(usage).filter(|usage| *usage != Usage::default());
    Ok(meaning)
}

/// Whether the next value is a text or a list with something in it.
fn says_something(scanner: &mut Scanner<'_>) -> Result<bool, JsonError> {
    let kind = scanner.peek()?;
    let span = scanner.skip_value()?;
    Ok(matches!(kind, Kind::String | Kind::Array) && span.len() > 2)
}

/// A count that can neither be negative nor overflow.
fn counted(scanner: &mut Scanner<'_>) -> Result<u64, JsonError> {
    if scanner.peek()? != Kind::Number {
        scanner.skip_value()?;
        return Ok(0);
    }
    let number = scanner.number()?;
    Ok(number.parse().unwrap_or_else(|_| number.parse::<f64>().map_or(0, |value| value as u64)))
}

/// What an answer that was not streamed used.
pub fn usage_of_body(body: &[u8]) -> Option<Usage> {
    read(std::str::from_utf8(body).ok()?.trim()).ok()?.usage
}
