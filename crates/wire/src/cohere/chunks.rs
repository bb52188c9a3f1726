//! A stream of Cohere's events, read.

use crate::chat::{Event, Losses, Opened, Stop};
use crate::dialect::{CONVERTED_DEPTH_MAX, ReadStream};
use crate::events::Events;
use crate::json::tree::Tree;
use crate::json::write::compact;
use crate::openai::error::classify;
use crate::openai::sse::{StreamError, StreamFault};

use super::words::{logprobs_of, stop_of, usage_of};

/// Reads events.
#[derive(Default)]
pub(super) struct Chunks {
    events: Events,
    started: bool,
    ended: bool,
    parts: u32,
    open: Option<Open>,
    /// The text that citations are of, by what was opened last.
    text: Option<u32>,
}

#[derive(Clone, Copy, PartialEq)]
enum Open {
    Text,
    Thinking,
    Call,
}

impl ReadStream for Chunks {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        let mut cut = std::mem::take(&mut self.events);
        let pushed = cut.push(bytes, |_, data| self.take(data, events));
        self.events = cut;
        pushed
    }
}

impl Chunks {
    fn take(&mut self, data: &str, out: &mut Vec<Event>) {
        // Nothing follows the end but, with some, a mark that it is there.
        if self.ended || data.trim() == "[DONE]" {
            return;
        }
        let Ok(event) = Tree::parse(data, CONVERTED_DEPTH_MAX) else {
            return self.fail(Some("an event of the provider's stream is no JSON".to_owned()), out);
        };
        let message = event.get("delta").and_then(|delta| delta.get("message"));
        match event.get("type").and_then(Tree::text) {
            Some("message-start") => self.start(&event, out),
            Some("content-start" | "content-delta") => {
                self.start(&event, out);
                self.content(message.and_then(|message| message.get("content")), out);
                likely(event.get("logprobs"), out);
            }
            Some("tool-plan-delta") => {
                self.start(&event, out);
                self.add(Open::Text, message.and_then(|message| message.get("tool_plan")?.text()), out);
            }
            Some("tool-call-start") => {
                self.start(&event, out);
                self.call(message.and_then(|message| message.get("tool_calls")), out);
            }
            Some("tool-call-delta") => {
                let call = message.and_then(|message| message.get("tool_calls"));
                self.arguments(call.and_then(|call| call.get("function")?.get("arguments")?.text()), out);
            }
            Some("tool-call-end") => self.close(out),
            Some("citation-start") => self.cite(message.and_then(|message| message.get("citations")), out),
            Some("message-end") => self.end(&event, out),
            // A text stays open until something else begins: citations may follow its end.
            Some("content-end" | "citation-end" | "debug") => {}
            Some(_) | None if event.get("message").is_some_and(|message| message.text().is_some()) => {
                let fault = classify(500, None, data.as_bytes());
                self.fail(fault.message, out);
            }
            Some(_) | None => {}
        }
    }

    fn start(&mut self, event: &Tree<'_>, out: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                id: event.get("id").and_then(Tree::text).unwrap_or_default().to_owned(),
                model: String::new(),
                created_s: None,
                usage: None,
            });
        }
    }

    fn content(&mut self, content: Option<&Tree<'_>>, out: &mut Vec<Event>) {
        let Some(content) = content else { return };
        self.add(Open::Thinking, content.get("thinking").and_then(Tree::text), out);
        self.add(Open::Text, content.get("text").and_then(Tree::text), out);
    }

    fn add(&mut self, to: Open, text: Option<&str>, out: &mut Vec<Event>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        if self.open != Some(to) {
            let what = if to == Open::Thinking { Opened::Thinking } else { Opened::Text };
            self.open(to, what, out);
        }
        out.push(Event::Added { choice: 0, part: self.parts - 1, text: text.to_owned() });
    }

    fn open(&mut self, open: Open, what: Opened, out: &mut Vec<Event>) {
        self.close(out);
        let part = self.parts;
        self.parts += 1;
        self.open = Some(open);
        if open == Open::Text {
            self.text = Some(part);
        }
        out.push(Event::Opened { choice: 0, part, what });
    }

    fn call(&mut self, call: Option<&Tree<'_>>, out: &mut Vec<Event>) {
        let text = |name: &str| call.and_then(|call| call.get(name)?.text()).unwrap_or_default().to_owned();
        let function = |name: &str| call.and_then(|call| call.get("function")?.get(name)?.text());
        let name = function("name").unwrap_or_default().to_owned();
        self.open(Open::Call, Opened::ToolCall { id: text("id"), name }, out);
        self.arguments(function("arguments"), out);
    }

    fn arguments(&mut self, text: Option<&str>, out: &mut Vec<Event>) {
        let Some(text) = text.filter(|text| !text.is_empty() && self.open == Some(Open::Call)) else {
            return;
        };
        out.push(Event::Added { choice: 0, part: self.parts - 1, text: text.to_owned() });
    }

    fn cite(&mut self, citation: Option<&Tree<'_>>, out: &mut Vec<Event>) {
        let (Some(citation), Some(part)) = (citation, self.text) else { return };
        out.push(Event::Cited { choice: 0, part, citation: compact(citation.raw()) });
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if self.open.take().is_some() {
            out.push(Event::Closed { choice: 0, part: self.parts.saturating_sub(1) });
        }
    }

    fn fail(&mut self, message: Option<String>, out: &mut Vec<Event>) {
        self.ended = true;
        out.push(Event::Failed(StreamError { message, ..StreamError::default() }));
    }

    fn end(&mut self, event: &Tree<'_>, out: &mut Vec<Event>) {
        let delta = event.get("delta");
        let of_delta = |name: &str| delta.and_then(|delta| delta.get(name));
        let reason = of_delta("finish_reason").and_then(Tree::text);
        if matches!(reason, Some("ERROR" | "TIMEOUT")) {
            let error = of_delta("error").and_then(Tree::text);
            let message = error.unwrap_or("the provider could not finish the answer");
            out.extend(of_delta("usage").map(usage_of).map(Event::Used));
            return self.fail(Some(message.to_owned()), out);
        }
        self.ended = true;
        self.close(out);
        out.push(Event::Stopped { choice: 0, stop: reason.map_or(Stop::Other, stop_of), sequence: None });
        out.extend(of_delta("usage").map(usage_of).map(Event::Used));
        out.push(Event::Ended);
    }
}

fn likely(logprobs: Option<&Tree<'_>>, out: &mut Vec<Event>) {
    let Some(logprobs) = logprobs else { return };
    let mut losses = Losses::default();
    // Of a stream it is one item, of an answer a list of them.
    let item = Tree::parse(logprobs.raw(), CONVERTED_DEPTH_MAX).ok();
    let listed = format!("[{}]", item.as_ref().map_or("", |item| item.raw()));
    let list = Tree::parse(&listed, CONVERTED_DEPTH_MAX).ok();
    let logprobs = logprobs_of(list.as_ref(), &mut losses);
    if !logprobs.is_empty() {
        out.push(Event::Likely { choice: 0, logprobs });
    }
    if !losses.is_empty() {
        out.push(Event::Lost(losses));
    }
}
