//! A stream of server-sent events, relayed as it is and observed on the way.
//!
//! Bytes go through unchanged and uncopied; only whole events are let through, so that an error event or a comment
//! can be put between any two of them. Only one that is too long to be held back passes as it comes, unobserved but
//! for its beginning. Events are read just far enough to tell when content begins, how much there
//! is, what was used, whether the upstream reported an error, and whether the end was a proper one. What cannot be
//! read is forwarded all the same: judging it is the client's business.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::continuation::{Transcript, id_within};
use super::error::ErrorBody;
use super::request::{Operation, Shape};
use super::usage::Usage;
use crate::chat::{Finding, Findings};

mod event;
pub(crate) mod lines;
mod messages;

pub(crate) use event::error_of;
use event::{Fields, Meaning};
use lines::Lines;

/// Largest event that is held back until it is complete, in bytes; a longer one is passed on as it comes.
pub const EVENT_BYTES_MAX: usize = 1 << 20;
/// The same where an event may have to be withheld, so that none can be passed on before it is read.
pub const WITHHELD_BYTES_MAX: usize = 16 << 20;

/// What can be forwarded now.
pub type Out = SmallVec<[Bytes; 2]>;

/// Relays one stream and keeps account of it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations, each made once")]
pub struct StreamObserver {
    operation: Operation,
    shape: Shape,
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
    findings: Findings,
    usage: Option<Usage>,
    /// What came so far, where it may have to be continued.
    transcript: Option<Box<Transcript>>,
    /// The `id` that every event gets, because the stream is the rest of another.
    renames: Option<Bytes>,
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
    /// One event is larger than may be kept of one that must be read before it is passed on: [`EVENT_BYTES_MAX`] where it is
    /// turned into another dialect, [`WITHHELD_BYTES_MAX`] where it may have to be withheld.
    #[error("an event of the stream is longer than the {bytes_max} bytes that are kept of one")]
    EventTooLong {
        /// What is kept.
        bytes_max: usize,
    },
}

impl StreamFault {
    pub(crate) const fn too_long(bytes_max: usize) -> Self {
        Self::EventTooLong { bytes_max }
    }

    pub(crate) const fn unless_within(bytes: usize, bytes_max: usize) -> Result<(), Self> {
        if bytes > bytes_max { Err(Self::too_long(bytes_max)) } else { Ok(()) }
    }
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
            shape: Shape::OpenAi,
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
            findings: Findings::default(),
            usage: None,
            transcript: None,
            renames: None,
        }
    }

    /// An observer of a stream in that dialect, all of which the client gets.
    pub fn of_shape(shape: Shape, operation: Operation) -> Self {
        Self { shape, ..Self::new(operation, false) }
    }

    /// Keeps what comes, so that it can be continued elsewhere if it breaks off. Before the first push.
    pub fn keep_transcript(&mut self) {
        self.transcript = Some(Box::default()).filter(|_| !self.shape.is_anthropic());
    }

    /// An observer of the rest of an answer that broke off: its events get the `id` of the answer, and what comes
    /// before its content is withheld, for the client had a beginning.
    pub fn continuing(operation: Operation, hide_usage: bool, transcript: Transcript) -> Self {
        let mut observer = Self::new(operation, hide_usage);
        observer.renames = transcript.id().cloned();
        observer.transcript = Some(Box::new(transcript));
        observer
    }

    /// What came so far, if it was kept and can be continued.
    pub fn transcript(&self) -> Option<&Transcript> {
        self.transcript.as_deref().filter(|kept| kept.can_be_continued() && !self.passing && !self.proper)
    }

    /// What is worth telling of the answer so far. Of a refusal it is its first content that tells; only a stream that came
    /// to its end can be empty, and here thoughts are content as well.
    pub fn findings(&self) -> Findings {
        let mut findings = self.findings;
        let answers = self.operation != Operation::Embedding && self.renames.is_none();
        if answers && (self.proper || self.finished) && !self.content_seen {
            findings.insert(Finding::EmptyAnswer);
        }
        findings
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
                self.emit(event, out);
            }
            from = end;
        }
        // Whole events are forwarded as one slice; only a withheld one parts them.
        let mut kept = from;
        while let Some(end) = self.lines.event_end(&chunk, from) {
            let forwarded = self.observe(&chunk[from..end], &mut seen);
            if !forwarded || self.renames.is_some() {
                if kept < from {
                    out.push(chunk.slice(kept..from));
                }
                if forwarded {
                    self.emit(chunk.slice(from..end), out);
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
                    self.emit(rest, out);
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

    /// Forwards one event, under the name that the whole stream has.
    fn emit(&self, event: Bytes, out: &mut Out) {
        let (Some(id), Some(span)) = (&self.renames, self.renames.as_ref().and_then(|_| id_within(&event)))
        else {
            out.push(event);
            return;
        };
        out.push(event.slice(..span.start));
        out.push(id.clone());
        out.push(event.slice(span.end..));
    }

    /// Keeps the beginning of an event, or lets it pass if it grows too long.
    fn hold(&mut self, bytes: &[u8], seen: &mut Seen, out: &mut Out) -> Result<(), StreamFault> {
        let length = self.pending.len() + bytes.len();
        if self.hide_usage && length > WITHHELD_BYTES_MAX {
            return Err(StreamFault::too_long(WITHHELD_BYTES_MAX));
        }
        self.pending.extend_from_slice(bytes);
        if self.hide_usage || length <= EVENT_BYTES_MAX {
            return Ok(());
        }
        let beginning = std::mem::take(&mut self.pending).freeze();
        self.at_start = false;
        self.withheld = false;
        self.passing = true;
        if let Some(transcript) = &mut self.transcript {
            transcript.close();
        }
        let meaning = if self.shape.is_anthropic() {
            messages::meaning_of_beginning(&beginning)
        } else {
            event::meaning_of_beginning(self.operation, &beginning)
        };
        self.count(meaning, seen);
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
        let meaning = if self.shape.is_anthropic() {
            messages::meaning(&fields, self.content_seen)
        } else {
            event::meaning(self.operation, &fields, self.content_seen)
        };
        let Some(meaning) = meaning else { return false };
        if let Some(transcript) = &mut self.transcript {
            match fields.data.as_deref().map(std::str::from_utf8) {
                Some(Ok(data)) if meaning.error.is_none() && !meaning.done => transcript.take(data),
                Some(_) => transcript.close(),
                None => {}
            }
        }
        let withheld = (self.hide_usage && meaning.only_usage)
            || (self.renames.is_some() && !self.content_seen && meaning.says_nothing());
        self.count(meaning, seen);
        withheld
    }

    fn count(&mut self, meaning: Meaning, seen: &mut Seen) {
        let Meaning { content, done, finished, error, usage, findings, only_usage: _ } = meaning;
        self.findings.extend(findings);
        if content {
            self.content_seen = true;
            self.tokens_out_seen += 1;
            seen.content = true;
            seen.content_events = seen.content_events.saturating_add(1);
        }
        self.proper |= done;
        self.finished |= finished;
        seen.done |= done;
        if let Some(usage) = usage {
            // Anthropic tells the prompt's at the start and the answer's at the end.
            let before = self.usage.filter(|_| self.shape.is_anthropic()).unwrap_or_default();
            self.usage = Some(usage.max(before));
            seen.usage = self.usage;
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
        Operation::Chat
        | Operation::Completion
        | Operation::Embedding
        | Operation::Infer
        | Operation::Task(_) => Bytes::from(format!("data: {{\"error\":{{{members}}}}}\n\n")),
        Operation::Response => {
            // The dialect documents a flat event, its own client raises on a nested `error`: both are given.
            let flat = error.flat_members();
            Bytes::from(format!(
                "event: error\ndata: {{\"type\":\"error\",{flat},\"error\":{{{members}}}}}\n\n"
            ))
        }
    }
}
