//! A stream of chat completion chunks, read.

use crate::chat::{CHOICES_MAX, Event, Losses, Opened, Page, Stop, Usage};
use crate::dialect::{CONVERTED_DEPTH_MAX, ReadStream};
use crate::events::Events;
use crate::json::tree::{Members, Tree};
use crate::openai::error::classify;
use crate::openai::sse::{StreamError, StreamFault};
use crate::openai::usage::is_usual_tier;

use super::words::{logprobs_of, signature_of, stop_of, usage_of};

/// Reads chunks.
#[derive(Default)]
pub(super) struct Chunks {
    events: Events,
    started: bool,
    ended: bool,
    choices: Vec<Reading>,
}

/// What was read of one choice.
#[derive(Default)]
struct Reading {
    /// Parts that were opened.
    parts: u32,
    open: Option<Open>,
    stopped: bool,
    /// Characters of content so far, and those before the text that was opened last: citations count all of them.
    chars: u64,
    chars_before: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Open {
    Text,
    Thinking,
    Hidden,
    Refusal,
    /// A call, by its index in the dialect.
    Call(u64),
}

impl ReadStream for Chunks {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        let mut cut = std::mem::take(&mut self.events);
        let pushed = cut.push(bytes, |name, data| self.take(name, data, events));
        self.events = cut;
        pushed
    }
}

impl Chunks {
    fn take(&mut self, name: &str, data: &str, out: &mut Vec<Event>) {
        if data.trim() == "[DONE]" {
            if !std::mem::replace(&mut self.ended, true) {
                self.close_all(out);
                out.push(Event::Ended);
            }
            return;
        }
        let Ok(chunk) = Tree::parse(data, CONVERTED_DEPTH_MAX) else {
            let message = "an event of the provider's stream is no JSON".to_owned();
            out.push(Event::Failed(StreamError { message: Some(message), ..StreamError::default() }));
            return;
        };
        if name == "error" || chunk.get("error").is_some() {
            let fault = classify(500, None, data.as_bytes());
            out.push(Event::Failed(StreamError {
                status: None,
                kind: fault.kind_named,
                code: fault.code,
                message: fault.message,
            }));
            return;
        }
        self.read(chunk.into_members(), out);
    }

    fn read(&mut self, mut chunk: Members<'_>, out: &mut Vec<Event>) {
        let mut usage = chunk.take("usage").as_ref().map(usage_of);
        if let (Some(usage), Some(tier)) = (&mut usage, chunk.take_text("service_tier")) {
            usage.off_list |= !is_usual_tier(&tier);
        }
        let (id, model) =
            (chunk.take_text("id").unwrap_or_default(), chunk.take_text("model").unwrap_or_default());
        // Azure's first chunk names nothing: it only says how the prompt was filtered.
        let is_beginning = !id.is_empty() || !model.is_empty() || chunk.has_items("choices");
        if is_beginning && !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                id,
                model,
                created_s: chunk.take("created").and_then(|created| created.count()),
                usage: None,
            });
        }
        for choice in chunk.take("choices").map(Tree::into_items).unwrap_or_default() {
            let index = choice.get("index").and_then(Tree::count).unwrap_or(0);
            if let Some(index) = u32::try_from(index).ok().filter(|index| *index < CHOICES_MAX) {
                self.read_choice(index, choice.into_members(), out);
            }
        }
        out.extend(usage.filter(|usage| *usage != Usage::default()).map(Event::Used));
    }

    fn read_choice(&mut self, choice: u32, mut from: Members<'_>, out: &mut Vec<Event>) {
        let mut delta = from.take("delta").map(Tree::into_members).unwrap_or_default();
        let thought = delta.take_text("reasoning_content");
        let thought = delta.take_text("reasoning").or(thought);
        self.add(choice, Open::Thinking, thought, out);
        for detail in delta.take("reasoning_details").map(Tree::into_items).unwrap_or_default() {
            if let Some(data) = detail.get("data").and_then(Tree::text) {
                let data = data.to_owned();
                self.open(choice, Open::Hidden, Opened::HiddenThinking { data }, out);
            }
            if let Some(signature) = detail.get("signature").and_then(Tree::text) {
                if self.reading(choice).open != Some(Open::Thinking) {
                    // A thought may be kept back, and only proven.
                    self.open(choice, Open::Thinking, Opened::Thinking, out);
                }
                let part = self.reading(choice).parts.saturating_sub(1);
                out.push(Event::Signed { choice, part, signature: signature.to_owned() });
                // What is signed is whole.
                self.close(choice, out);
            }
        }
        self.add(choice, Open::Text, delta.take_text("content"), out);
        self.cite(choice, delta.take("annotations"), out);
        self.add(choice, Open::Refusal, delta.take_text("refusal"), out);
        for (at, call) in
            delta.take("tool_calls").map(Tree::into_items).unwrap_or_default().into_iter().enumerate()
        {
            self.read_call(choice, at as u64, call.into_members(), out);
        }
        let logprobs = logprobs_of(from.take("logprobs").as_ref());
        if !logprobs.is_empty() {
            out.push(Event::Likely { choice, logprobs });
        }
        if let Some(reason) = from.take_text("finish_reason") {
            self.close(choice, out);
            if !std::mem::replace(&mut self.reading(choice).stopped, true) {
                out.push(Event::Stopped { choice, stop: stop_of(&reason), sequence: None });
            }
        }
    }

    fn cite(&mut self, choice: u32, annotations: Option<Tree<'_>>, out: &mut Vec<Event>) {
        let reading = self.reading(choice);
        let (before, part) = (reading.chars_before, reading.parts.saturating_sub(1));
        for annotation in annotations.map(Tree::into_items).unwrap_or_default() {
            match Page::of(&annotation).filter(|_| reading.open == Some(Open::Text)) {
                Some(page) => {
                    out.push(Event::Cited { choice, part, citation: page.from(before).json() });
                }
                None => {
                    let mut losses = Losses::default();
                    losses.note("message.annotations", super::said::NO_PAGE);
                    out.push(Event::Lost(losses));
                }
            }
        }
    }

    fn read_call(&mut self, choice: u32, at: u64, mut call: Members<'_>, out: &mut Vec<Event>) {
        let index = call.take("index").and_then(|index| index.count()).unwrap_or(at);
        let id = call.take_text("id").filter(|id| !id.is_empty());
        let mut function = call.take("function").map(Tree::into_members).unwrap_or_default();
        let name = function.take_text("name").filter(|name| !name.is_empty());
        let signature = call.take("extra_content").as_ref().and_then(signature_of);
        if self.reading(choice).open != Some(Open::Call(index)) {
            let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
            self.open(choice, Open::Call(index), Opened::ToolCall { id, name }, out);
        }
        self.add(choice, Open::Call(index), function.take_text("arguments"), out);
        let part = self.reading(choice).parts.saturating_sub(1);
        out.extend(signature.map(|signature| Event::Signed { choice, part, signature }));
    }

    fn reading(&mut self, choice: u32) -> &mut Reading {
        let at = choice as usize;
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, Reading::default);
        }
        &mut self.choices[at]
    }

    fn add(&mut self, choice: u32, to: Open, text: Option<String>, out: &mut Vec<Event>) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return };
        if self.reading(choice).open != Some(to) {
            let what = match to {
                Open::Text => Opened::Text,
                Open::Thinking => Opened::Thinking,
                Open::Refusal => Opened::Refusal,
                Open::Hidden | Open::Call(_) => return,
            };
            self.open(choice, to, what, out);
        }
        let reading = self.reading(choice);
        if to == Open::Text {
            reading.chars += text.chars().count() as u64;
        }
        let part = reading.parts.saturating_sub(1);
        out.push(Event::Added { choice, part, text });
    }

    fn open(&mut self, choice: u32, open: Open, what: Opened, out: &mut Vec<Event>) {
        self.close(choice, out);
        let reading = self.reading(choice);
        reading.open = Some(open);
        reading.chars_before = reading.chars;
        let part = reading.parts;
        reading.parts += 1;
        out.push(Event::Opened { choice, part, what });
    }

    fn close(&mut self, choice: u32, out: &mut Vec<Event>) {
        let reading = self.reading(choice);
        if reading.open.take().is_some() {
            out.push(Event::Closed { choice, part: reading.parts.saturating_sub(1) });
        }
    }

    fn close_all(&mut self, out: &mut Vec<Event>) {
        for choice in 0..u32::try_from(self.choices.len()).unwrap_or(0) {
            self.close(choice, out);
            let began = self.reading(choice).parts > 0;
            if began && !std::mem::replace(&mut self.reading(choice).stopped, true) {
                out.push(Event::Stopped { choice, stop: Stop::Other, sequence: None });
            }
        }
    }
}
