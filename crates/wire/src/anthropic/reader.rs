//! A stream of message events, read.

use crate::chat::{Event, Losses, Opened};
use crate::dialect::{CONVERTED_DEPTH_MAX, ReadStream};
use crate::events::Events;
use crate::json::tree::{Members, Tree};
use crate::openai::sse::{StreamError, StreamFault};

use super::error::stream_error;
use super::words::{Counted, stop_of};

/// Reads events. What it keeps does not grow with the stream.
#[derive(Default)]
pub(super) struct Reader {
    events: Events,
    started: bool,
    stopped: bool,
    /// The end came, or an error: nothing follows.
    ended: bool,
    counted: Counted,
    /// Parts that were opened.
    parts: u32,
    open: Option<Open>,
}

/// The block that is open.
#[derive(Clone, Copy, PartialEq)]
struct Open {
    what: What,
    /// Whether something was added to it.
    filled: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Text,
    Thinking,
    Call,
    /// Whole from the start, or not shown.
    Closed,
}

impl ReadStream for Reader {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        let mut cut = std::mem::take(&mut self.events);
        let pushed = cut.push(bytes, |name, data| self.take(name, data, events));
        self.events = cut;
        pushed
    }
}

impl Reader {
    fn take(&mut self, name: &str, data: &str, out: &mut Vec<Event>) {
        // Some that imitate the dialect end with a mark of another.
        if self.ended || data.trim() == "[DONE]" {
            return;
        }
        let Ok(tree) = Tree::parse(data, CONVERTED_DEPTH_MAX) else {
            let message = "an event of the provider's stream is no JSON".to_owned();
            return self.fail(StreamError { message: Some(message), ..StreamError::default() }, out);
        };
        let mut event = tree.into_members();
        let kind = event.take_text("type").unwrap_or_else(|| name.to_owned());
        match kind.as_str() {
            "message_start" => self.start(event.take("message"), out),
            "content_block_start" => self.open(event.take("content_block"), out),
            "content_block_delta" => self.add(event.take("delta"), out),
            "content_block_stop" => self.close(out),
            "message_delta" => self.delta(&mut event, out),
            "message_stop" => {
                self.close(out);
                self.ended = true;
                out.push(Event::Ended);
            }
            "ping" => out.push(Event::Ping),
            "error" => self.fail(stream_error(data), out),
            // Events that are not known yet are to be passed over, by the dialect's own rule.
            _ => {}
        }
    }

    fn fail(&mut self, error: StreamError, out: &mut Vec<Event>) {
        self.ended = true;
        out.push(Event::Failed(error));
    }

    fn start(&mut self, message: Option<Tree<'_>>, out: &mut Vec<Event>) {
        let mut message = message.map(Tree::into_members).unwrap_or_default();
        let usage = message.take("usage");
        if let Some(usage) = &usage {
            self.counted.take(usage);
        }
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                id: message.take_text("id").unwrap_or_default(),
                model: message.take_text("model").unwrap_or_default(),
                created_s: None,
                usage: usage.map(|_| self.counted.usage()),
            });
        }
    }

    fn open(&mut self, block: Option<Tree<'_>>, out: &mut Vec<Event>) {
        self.close(out);
        let mut block = block.map(Tree::into_members).unwrap_or_default();
        let kind = block.take_text("type").unwrap_or_default();
        match kind.as_str() {
            "text" => {
                self.begin(What::Text, Opened::Text, out);
                self.put(What::Text, block.take_text("text"), out);
            }
            "thinking" => {
                self.begin(What::Thinking, Opened::Thinking, out);
                self.put(What::Thinking, block.take_text("thinking"), out);
                self.sign(block.take_text("signature"), out);
            }
            "redacted_thinking" => {
                let data = block.take_text("data").unwrap_or_default();
                self.begin(What::Closed, Opened::HiddenThinking { data }, out);
            }
            "tool_use" => {
                let id = block.take_text("id").unwrap_or_default();
                let name = block.take_text("name").unwrap_or_default();
                self.begin(What::Call, Opened::ToolCall { id, name }, out);
                // The input is empty here and follows in pieces, unless it is whole already.
                let whole =
                    block.take("input").filter(|input| input.clone().into_members().all().next().is_some());
                self.put(What::Call, whole.map(|input| input.raw().to_owned()), out);
            }
            _ => {
                let mut losses = Losses::default();
                losses.note(format!("content.{kind}"), super::provider::OWN_TOOL);
                out.push(Event::Lost(losses));
            }
        }
    }

    fn begin(&mut self, what: What, opened: Opened, out: &mut Vec<Event>) {
        let part = self.parts;
        self.parts += 1;
        self.open = Some(Open { what, filled: false });
        out.push(Event::Opened { choice: 0, part, what: opened });
    }

    fn part(&self) -> u32 {
        self.parts.saturating_sub(1)
    }

    /// Adds to the open part, if it is of that kind.
    fn put(&mut self, what: What, text: Option<String>, out: &mut Vec<Event>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        let part = self.part();
        if let Some(open) = self.open.as_mut().filter(|open| open.what == what) {
            open.filled = true;
            out.push(Event::Added { choice: 0, part, text });
        }
    }

    fn sign(&mut self, signature: Option<String>, out: &mut Vec<Event>) {
        let thinking = self.open.is_some_and(|open| open.what == What::Thinking);
        if let (true, Some(signature)) = (thinking, signature.filter(|signature| !signature.is_empty())) {
            out.push(Event::Signed { choice: 0, part: self.part(), signature });
        }
    }

    /// Blocks come one after the other, so a delta is the open one's, whatever index it has, or lacks.
    fn add(&mut self, delta: Option<Tree<'_>>, out: &mut Vec<Event>) {
        let mut delta = delta.map(Tree::into_members).unwrap_or_default();
        match delta.take_text("type").as_deref() {
            Some("text_delta") => self.put(What::Text, delta.take_text("text"), out),
            Some("thinking_delta") => self.put(What::Thinking, delta.take_text("thinking"), out),
            Some("input_json_delta") => self.put(What::Call, delta.take_text("partial_json"), out),
            Some("signature_delta") => self.sign(delta.take_text("signature"), out),
            Some("citations_delta") => {
                let citation =
                    delta.take("citation").filter(|_| self.open.is_some_and(|open| open.what == What::Text));
                if let Some(citation) = citation {
                    let citation = citation.raw().to_owned();
                    out.push(Event::Cited { choice: 0, part: self.part(), citation });
                }
            }
            Some(_) | None => {}
        }
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        let Some(open) = self.open.take() else { return };
        let part = self.part();
        if open.what == What::Call && !open.filled {
            // A call without arguments has no pieces of them.
            out.push(Event::Added { choice: 0, part, text: "{}".to_owned() });
        }
        out.push(Event::Closed { choice: 0, part });
    }

    fn delta(&mut self, event: &mut Members<'_>, out: &mut Vec<Event>) {
        let mut delta = event.take("delta").map(Tree::into_members).unwrap_or_default();
        if let Some(reason) = delta.take_text("stop_reason") {
            self.close(out);
            if !std::mem::replace(&mut self.stopped, true) {
                let sequence = delta.take_text("stop_sequence");
                out.push(Event::Stopped { choice: 0, stop: stop_of(&reason), sequence });
            }
        }
        if let Some(usage) = event.take("usage") {
            self.counted.take(&usage);
            out.push(Event::Used(self.counted.usage()));
        }
    }
}
