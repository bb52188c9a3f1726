//! A stream of lines, read.

use crate::chat::{Event, Opened, Stop};
use crate::dialect::{CONVERTED_DEPTH_MAX, ReadStream};
use crate::json::tree::{Members, Tree};
use crate::ndjson::JsonLines;
use crate::openai::error::classify;
use crate::openai::sse::{StreamError, StreamFault};

use super::provider::read_call;
use super::words::{logprobs_of, stop_of, unix_s, usage_of};

/// Reads lines.
#[derive(Default)]
pub(super) struct Lines {
    cut: JsonLines,
    started: bool,
    ended: bool,
    parts: u32,
    open: Option<Open>,
    calls: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Open {
    Text,
    Thinking,
}

/// An error in the place of an answer.
pub(super) fn stream_error(said: &str) -> StreamError {
    let fault = classify(500, None, said.as_bytes());
    StreamError { status: None, kind: fault.kind_named, code: fault.code, message: fault.message }
}

impl ReadStream for Lines {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        let mut cut = std::mem::take(&mut self.cut);
        let pushed = cut.push(bytes, |line| self.take(line, events));
        self.cut = cut;
        pushed
    }
}

impl Lines {
    fn take(&mut self, line: &str, out: &mut Vec<Event>) {
        // Nothing follows the end or an error.
        if self.ended {
            return;
        }
        let Ok(tree) = Tree::parse(line, CONVERTED_DEPTH_MAX) else {
            self.ended = true;
            let message = "a line of the provider's stream is no JSON".to_owned();
            out.push(Event::Failed(StreamError { message: Some(message), ..StreamError::default() }));
            return;
        };
        if tree.get("error").is_some() {
            self.ended = true;
            out.push(Event::Failed(stream_error(line)));
            return;
        }
        let usage = usage_of(&tree);
        self.read(tree.into_members(), out);
        if self.ended {
            out.extend(usage.map(Event::Used));
            out.push(Event::Ended);
        }
    }

    fn read(&mut self, mut line: Members<'_>, out: &mut Vec<Event>) {
        let created_at = line.take_text("created_at").unwrap_or_default();
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                id: String::new(),
                model: line.take_text("model").unwrap_or_default(),
                created_s: unix_s(&created_at),
                usage: None,
            });
        }
        let mut message = line.take("message").map(Tree::into_members).unwrap_or_default();
        self.add(Open::Thinking, message.take_text("thinking"), out);
        self.add(Open::Text, message.take_text("content"), out);
        for call in message.take("tool_calls").map(Tree::into_items).unwrap_or_default() {
            self.call(&call, &created_at, out);
        }
        let logprobs = logprobs_of(line.take("logprobs").as_ref());
        if !logprobs.is_empty() {
            out.push(Event::Likely { choice: 0, logprobs });
        }
        if line.take("done").and_then(|done| done.boolean()) == Some(true) {
            self.ended = true;
            self.close(out);
            let reason = line.take_text("done_reason");
            let stop = reason.map_or(Stop::Other, |reason| stop_of(&reason, self.calls > 0));
            out.push(Event::Stopped { choice: 0, stop, sequence: None });
        }
    }

    fn add(&mut self, to: Open, text: Option<String>, out: &mut Vec<Event>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        if self.open != Some(to) {
            self.close(out);
            let what = if to == Open::Text { Opened::Text } else { Opened::Thinking };
            out.push(Event::Opened { choice: 0, part: self.parts, what });
            self.parts += 1;
            self.open = Some(to);
        }
        out.push(Event::Added { choice: 0, part: self.parts - 1, text });
    }

    /// A call is whole when it comes.
    fn call(&mut self, call: &Tree<'_>, created_at: &str, out: &mut Vec<Event>) {
        self.close(out);
        let (id, name, text) = read_call(call, created_at, self.calls);
        let part = self.parts;
        self.calls += 1;
        self.parts += 1;
        out.push(Event::Opened { choice: 0, part, what: Opened::ToolCall { id, name } });
        out.push(Event::Added { choice: 0, part, text });
        out.push(Event::Closed { choice: 0, part });
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if self.open.take().is_some() {
            out.push(Event::Closed { choice: 0, part: self.parts.saturating_sub(1) });
        }
    }
}
