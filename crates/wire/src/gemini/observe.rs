//! A stream of this dialect, relayed as it is and observed on the way: when content begins, what was used, whether its end
//! was a proper one. Only whole events or elements are let through, so that an error can be put between any two of them.

use bytes::{Bytes, BytesMut};

use crate::openai::error::ErrorBody;
use crate::openai::sse::lines::Lines;
use crate::openai::sse::{EVENT_BYTES_MAX, End, Out, Seen};
use crate::openai::usage::Usage;

use super::array::{Elements, Step};

mod meaning;

use meaning::Meaning;
pub use meaning::usage_of_body;

/// The form of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Server-sent events.
    Events,
    /// One JSON array.
    Array,
}

impl Form {
    /// What the query of a request asks for: events with `alt=sse`.
    pub fn of_query(query: Option<&str>) -> Self {
        let events = query.unwrap_or_default().split('&').any(|pair| pair == "alt=sse" || pair == "$alt=sse");
        if events { Self::Events } else { Self::Array }
    }

    /// What shows a client that its stream lives, between two events or elements: a blank line. Comments are no part of
    /// either form to the dialect's own clients, some of which take them for data.
    pub const fn ping() -> &'static str {
        "\n"
    }

    /// Its content type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Array => "application/json",
        }
    }
}

/// Finds where events or elements end.
enum Cutter {
    Events(Lines),
    Array(Elements),
}

impl Cutter {
    /// One past the end of what is under way at `from`.
    fn end(&mut self, chunk: &[u8], from: usize) -> Option<usize> {
        match self {
            Self::Events(lines) => lines.event_end(chunk, from),
            Self::Array(elements) => {
                let ends = |byte: &u8| matches!(elements.step(*byte), Step::Ends | Step::Closes);
                Some(from + chunk.get(from..)?.iter().position(ends)? + 1)
            }
        }
    }
}

/// Relays one stream and keeps account of it.
#[expect(clippy::struct_excessive_bools, reason = "independent observations, each made once")]
pub struct Observer {
    form: Form,
    cutter: Cutter,
    /// The beginning of an event whose end has not come yet.
    pending: BytesMut,
    /// Whether an event that is too long to be held back is passing.
    passing: bool,
    /// Whether an element was let through.
    any: bool,
    /// Which candidates there are, and which of them said why they ended: one bit each.
    seen: u128,
    stopped: u128,
    blocked: bool,
    done: bool,
    tokens_out_seen: u64,
    usage: Option<Usage>,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observer").field("form", &self.form).field("done", &self.done).finish_non_exhaustive()
    }
}

impl Observer {
    /// An observer at the beginning of a stream.
    pub fn new(form: Form) -> Self {
        let cutter = match form {
            Form::Events => Cutter::Events(Lines::default()),
            Form::Array => Cutter::Array(Elements::default()),
        };
        Self {
            form,
            cutter,
            pending: BytesMut::new(),
            passing: false,
            any: false,
            seen: 0,
            stopped: 0,
            blocked: false,
            done: false,
            tokens_out_seen: 0,
            usage: None,
        }
    }

    /// Takes what came from the upstream and puts what can be forwarded now into `out`.
    pub fn push(&mut self, chunk: Bytes, out: &mut Out) -> Seen {
        let mut seen = Seen::default();
        let (mut from, mut sent) = (0, 0);
        while let Some(end) = self.cutter.end(&chunk, from) {
            if std::mem::take(&mut self.passing) {
                // Its beginning was let through before it could be read.
            } else if self.pending.is_empty() {
                self.observe(&chunk[from..end], &mut seen);
            } else {
                self.pending.extend_from_slice(&chunk[from..end]);
                let event = std::mem::take(&mut self.pending).freeze();
                self.observe(&event, &mut seen);
                out.push(event);
                sent = end;
            }
            from = end;
        }
        if sent == 0 && from == chunk.len() {
            out.push(chunk);
            return seen;
        }
        let rest = chunk.slice(from..);
        if self.passing {
            from = chunk.len();
        }
        if sent < from {
            out.push(chunk.slice(sent..from));
        }
        if !self.passing && !rest.is_empty() {
            self.hold(&rest, &mut seen, out);
        }
        seen
    }

    /// Keeps the beginning of an event, or lets it pass if it grows too long: an image, most likely.
    fn hold(&mut self, rest: &[u8], seen: &mut Seen, out: &mut Out) {
        self.pending.extend_from_slice(rest);
        if self.pending.len() > EVENT_BYTES_MAX {
            self.passing = true;
            self.any = true;
            out.push(std::mem::take(&mut self.pending).freeze());
            self.count_content(seen);
        }
    }

    /// The upstream closed the stream. A last event without its closing blank line is forwarded if it is whole.
    pub fn finish(&mut self, out: &mut Out) -> End {
        let rest = std::mem::take(&mut self.pending).freeze();
        let mut bytes_cut = rest.len();
        let whole =
            self.form == Form::Events && meaning::data_of(&rest).is_some_and(|data| meaning::is_whole(&data));
        if whole {
            self.observe(&rest, &mut Seen::default());
            out.push(rest);
            out.push(Bytes::from_static(b"\n\n"));
            bytes_cut = 0;
        } else if rest.trim_ascii().is_empty() {
            bytes_cut = 0;
        }
        let closed = match &self.cutter {
            Cutter::Events(_) => true,
            Cutter::Array(elements) => elements.is_closed(),
        };
        End {
            proper: self.is_complete() && closed && !self.passing,
            finished: self.is_complete(),
            usage: self.usage,
            tokens_out_seen: self.tokens_out_seen,
            bytes_cut,
        }
    }

    /// Whether what was forwarded ends inside an event, behind which nothing can be put.
    pub const fn is_inside_event(&self) -> bool {
        self.passing
    }

    /// What tells the client that its stream was cut off; after it nothing follows.
    pub fn error(&self, error: &ErrorBody, id: &str) -> Bytes {
        error_piece(self.form, self.any, error, id)
    }

    fn is_complete(&self) -> bool {
        self.blocked || (self.seen != 0 && self.seen == self.stopped)
    }

    fn count_content(&mut self, seen: &mut Seen) {
        self.tokens_out_seen += 1;
        seen.content = true;
        seen.content_events = seen.content_events.saturating_add(1);
    }

    /// Takes account of one whole event or element.
    fn observe(&mut self, event: &[u8], seen: &mut Seen) {
        let meaning = match self.form {
            Form::Events => meaning::data_of(event).and_then(|data| meaning::of(&data)),
            Form::Array => {
                let start = event.iter().position(|byte| matches!(byte, b'{'));
                self.any |= start.is_some();
                start.and_then(|start| meaning::of(&event[start..]))
            }
        };
        if let Some(meaning) = meaning {
            self.count(meaning, seen);
        }
        let ended = match &self.cutter {
            Cutter::Events(_) => self.usage.is_some(),
            Cutter::Array(elements) => elements.is_closed(),
        };
        if ended && self.is_complete() {
            seen.done = !std::mem::replace(&mut self.done, true) || seen.done;
        }
    }

    fn count(&mut self, meaning: Meaning, seen: &mut Seen) {
        if meaning.content {
            self.count_content(seen);
        }
        self.seen |= meaning.seen;
        self.stopped |= meaning.stopped;
        self.blocked |= meaning.blocked;
        // Each event counts all there was so far.
        if meaning.usage.is_some() {
            self.usage = meaning.usage;
            seen.usage = meaning.usage;
        }
        if meaning.error.is_some() {
            seen.error = meaning.error;
        }
    }
}

/// What ends a stream with an error: an event, or the last element. `any`: an element came before.
pub fn error_piece(form: Form, any: bool, error: &ErrorBody, id: &str) -> Bytes {
    let body = super::client::DEF.dialect.error(error, id);
    Bytes::from(match form {
        Form::Events => format!("data: {body}\n\n"),
        Form::Array if any => format!(",\n{body}]"),
        Form::Array => format!("[{body}]"),
    })
}

#[cfg(test)]
mod tests;
