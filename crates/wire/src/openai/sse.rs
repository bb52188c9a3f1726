//! A stream of server-sent events, relayed as it is and observed on the way.
//!
//! Bytes go through unchanged and uncopied; only whole events are let through, so that an error event or a comment
//! can be put between any two of them. Only one that is too long to be held back passes as it comes, unobserved but
//! for its beginning. Events are read just far enough to tell when content begins, how much there
//! is, what was used, whether the upstream reported an error, and whether the end was a proper one. What cannot be
//! read is forwarded all the same: judging it is the client's business.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::error::ErrorBody;
use super::request::Operation;
use super::usage::Usage;

mod event;
mod lines;

use event::{Fields, Meaning};
use lines::Lines;

/// Largest event that is held back until it is complete, in bytes; a longer one is passed on as it comes.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// The same where an event may have to be withheld, so that none can be passed on before it is read.
pub const WITHHELD_BYTES_MAX: usize = 16 << 20;

/// What can be forwarded now.
pub type Out = SmallVec<[Bytes; 4]>;

/// Relays one stream and keeps account of it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations, each made once")]
pub struct StreamObserver {
    operation: Operation,
    hide_usage: bool,
    lines: Lines,
    /// The beginning of an event whose end has not come yet.
    pending: BytesMut,
    /// Whether an event that is too long to be held back is passing.
    passing: bool,
    /// Whether nothing was seen yet, so that a byte order mark may come.
    at_start: bool,
    content_seen: bool,
    /// Whether the last event was withheld.
    withheld: bool,
    proper: bool,
    finished: bool,
    tokens_out_seen: u64,
    usage: Option<Usage>,
}

/// What one push brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Whether there was content: text, reasoning, tool calls or a refusal.
    pub content: bool,
    /// Events with content, about one token each.
    pub content_events: u32,
    /// Whether the stream came to its proper end.
    pub done: bool,
    /// An error the upstream reported inside the stream.
    pub error: Option<StreamError>,
    /// Usage the upstream reported.
    pub usage: Option<Usage>,
}

/// An error the upstream reported inside a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamError {
    /// The HTTP status it stands for, if the upstream named one.
    pub status: Option<u16>,
    /// Its type.
    pub kind: Option<String>,
    /// Its code.
    pub code: Option<String>,
    /// The upstream's words, at most 512 bytes.
    pub message: Option<String>,
}

/// Why a stream cannot be relayed any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamFault {
    /// One event is larger than [`WITHHELD_BYTES_MAX`], and must be read before it is passed on.
    #[error("an event of the stream is longer than {WITHHELD_BYTES_MAX} bytes")]
    EventTooLong,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Whether it came to its proper end: `[DONE]`, or the final event of a response.
    pub proper: bool,
    /// Whether a choice said why it is finished, after which some upstreams just close.
    pub finished: bool,
    /// What was used, if the upstream said.
    pub usage: Option<Usage>,
    /// Events with content, about one token each.
    pub tokens_out_seen: u64,
    /// Bytes of a last event that was cut off and therefore not forwarded.
    pub bytes_cut: usize,
}

impl StreamObserver {
    /// An observer at the beginning of a stream. With `hide_usage` the event that carries nothing but usage is
    /// withheld, because the client did not ask for it.
    pub fn new(operation: Operation, hide_usage: bool) -> Self {
        Self {
            operation,
            hide_usage,
            lines: Lines::default(),
            pending: BytesMut::new(),
            passing: false,
            at_start: true,
            content_seen: false,
            withheld: false,
            proper: false,
            finished: false,
            tokens_out_seen: 0,
            usage: None,
        }
    }

    /// Takes what came from the upstream and puts what can be forwarded now into `out`.
    pub fn push(&mut self, chunk: Bytes, out: &mut Out) -> Result<Seen, StreamFault> {
        let mut seen = Seen::default();
        if chunk.is_empty() {
            return Ok(seen);
        }
        let mut from = 0;
        if self.passing {
            let Some(end) = self.lines.event_end(&chunk, 0) else {
                out.push(chunk);
                return Ok(seen);
            };
            self.passing = false;
            out.push(chunk.slice(..end));
            from = end;
        } else if !self.pending.is_empty() {
            let Some(end) = self.lines.event_end(&chunk, 0) else {
                return self.hold(&chunk, &mut seen, out).map(|()| seen);
            };
            self.hold(&chunk[..end], &mut seen, out)?;
            // Nothing is kept for a next event that may never be split.
            let event = std::mem::take(&mut self.pending).freeze();
            if !std::mem::take(&mut self.passing) && self.observe(&event, &mut seen) {
                out.push(event);
            }
            from = end;
        }
        // Whole events are forwarded as one slice; only a withheld one parts them.
        let mut kept = from;
        while let Some(end) = self.lines.event_end(&chunk, from) {
            if !self.observe(&chunk[from..end], &mut seen) {
                if kept < from {
                    out.push(chunk.slice(kept..from));
                }
                kept = end;
            }
            from = end;
        }
        if kept == 0 && from == chunk.len() {
            out.push(chunk);
            return Ok(seen);
        }
        if kept < from {
            out.push(chunk.slice(kept..from));
        }
        self.hold(&chunk[from..], &mut seen, out)?;
        Ok(seen)
    }

    /// Whether what was forwarded ends inside an event, which has to be closed before another can follow.
    pub const fn is_inside_event(&self) -> bool {
        self.passing
    }

    /// The upstream closed the stream. A last event without its closing blank line is forwarded if it is whole;
    /// after an improper end a blank line closes it, so that an error event can follow.
    pub fn finish(&mut self, out: &mut Out) -> End {
        let rest = self.pending.split().freeze();
        let mut bytes_cut = 0;
        if !rest.is_empty() {
            let fields = Fields::of(&rest, self.at_start);
            if event::is_whole(&fields) {
                if self.observe(&rest, &mut Seen::default()) {
                    out.push(rest);
                    if !self.proper {
                        out.push(Bytes::from_static(b"\n\n"));
                    }
                }
            } else {
                bytes_cut = rest.len();
            }
        }
        End {
            proper: self.proper,
            finished: self.finished,
            usage: self.usage,
            tokens_out_seen: self.tokens_out_seen,
            bytes_cut,
        }
    }

    /// Keeps the beginning of an event, or lets it pass if it grows too long.
    fn hold(&mut self, bytes: &[u8], seen: &mut Seen, out: &mut Out) -> Result<(), StreamFault> {
        let length = self.pending.len() + bytes.len();
        if self.hide_usage && length > WITHHELD_BYTES_MAX {
            return Err(StreamFault::EventTooLong);
        }
        self.pending.extend_from_slice(bytes);
        if self.hide_usage || length <= EVENT_BYTES_MAX {
            return Ok(());
        }
        let beginning = std::mem::take(&mut self.pending).freeze();
        self.at_start = false;
        self.withheld = false;
        self.passing = true;
        self.count(event::meaning_of_beginning(self.operation, &beginning), seen);
        out.push(beginning);
        Ok(())
    }

    /// Takes account of one whole event. `false` if it is to be withheld.
    fn observe(&mut self, event: &[u8], seen: &mut Seen) -> bool {
        if !self.lines.belated() {
            self.withheld = self.account(event, seen);
        }
        !self.withheld
    }

    /// Adds up what one event means. `true` if the client is not to get it.
    fn account(&mut self, event: &[u8], seen: &mut Seen) -> bool {
        let fields = Fields::of(event, self.at_start);
        self.at_start = false;
        let Some(meaning) = event::meaning(self.operation, &fields, self.content_seen) else { return false };
        let only_usage = meaning.only_usage;
        self.count(meaning, seen);
        self.hide_usage && only_usage
    }

    fn count(&mut self, meaning: Meaning, seen: &mut Seen) {
        let Meaning { content, done, finished, error, usage, only_usage: _ } = meaning;
        if content {
            self.content_seen = true;
            self.tokens_out_seen += 1;
            seen.content = true;
            seen.content_events = seen.content_events.saturating_add(1);
        }
        self.proper |= done;
        self.finished |= finished;
        seen.done |= done;
        if usage.is_some() {
            self.usage = usage;
            seen.usage = usage;
        }
        if error.is_some() {
            seen.error = error;
        }
    }
}

/// The event that tells a client its stream was cut off. No `[DONE]` follows it.
pub fn error_event(operation: Operation, error: &ErrorBody) -> Bytes {
    let members = error.members();
    match operation {
        Operation::Chat | Operation::Completion | Operation::Embedding => {
            Bytes::from(format!("data: {{\"error\":{{{members}}}}}\n\n"))
        }
        Operation::Response => {
            // The dialect documents a flat event, its own client raises on a nested `error`: both are given.
            let flat = error.flat_members();
            Bytes::from(format!(
                "event: error\ndata: {{\"type\":\"error\",{flat},\"error\":{{{members}}}}}\n\n"
            ))
        }
    }
}
