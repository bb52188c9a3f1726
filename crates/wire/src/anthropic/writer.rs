//! A stream of message events, written.

use std::fmt::Write as _;

use crate::chat::{Event, Opened, Page, Stop, Usage};
use crate::dialect::{Told, WriteStream};
use crate::json::quote;
use crate::json::write::{Object, object};

use super::blocks::{DIRECT, FOREIGN, NO_CITATIONS, WHOLE_BLOCKS, citation, is_own, known_by};
use super::error::kind_of;
use super::words::{fill_nothing, last_usage_json, stop_word, usage_json};

/// Writes events. Only the first choice is shown: there is but one in this dialect.
pub(super) struct Writer {
    told: Told,
    started: bool,
    /// Blocks so far; the open one is the last.
    blocks: u64,
    open: Option<Opened>,
    calls: bool,
    stop: Option<(Stop, Option<String>)>,
    usage: Usage,
}

impl Writer {
    pub(super) fn new(told: Told) -> Self {
        let usage = Usage::default();
        Self { told, started: false, blocks: 0, open: None, calls: false, stop: None, usage }
    }

    fn start(&mut self, id: &str, out: &mut String) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let message = object(|it| {
            it.text("id", if id.is_empty() { &self.told.id } else { id });
            it.text("type", "message").text("role", "assistant").text("model", &self.told.model);
            it.raw("content", "[]").raw("stop_reason", "null").raw("stop_sequence", "null");
            fill_nothing(it);
            it.raw("usage", &usage_json(&self.usage, None));
        });
        put("message_start", |it| _ = it.raw("message", &message), out);
    }

    fn open(&mut self, what: &Opened, out: &mut String) {
        self.start("", out);
        self.close(out);
        let block = object(|it| match what {
            Opened::Text | Opened::Refusal => {
                it.text("type", "text").text("text", "").raw("citations", NO_CITATIONS);
            }
            Opened::Thinking => {
                it.text("type", "thinking").text("thinking", "").text("signature", "");
            }
            Opened::HiddenThinking { data } => {
                it.text("type", "redacted_thinking").text("data", data);
            }
            Opened::ToolCall { id, name } => {
                it.text("type", "tool_use").text("id", &known_by(id)).text("name", name).raw("input", "{}");
                it.raw("caller", DIRECT);
            }
        });
        self.calls |= matches!(what, Opened::ToolCall { .. });
        let index = self.blocks;
        put("content_block_start", |it| _ = it.count("index", index).raw("content_block", &block), out);
        self.blocks += 1;
        self.open = Some(what.clone());
    }

    fn close(&mut self, out: &mut String) {
        if self.open.take().is_some() {
            let index = self.blocks.saturating_sub(1);
            put("content_block_stop", |it| _ = it.count("index", index), out);
        }
    }

    /// One delta of the open block: its type, and the member that it brings. Written at once, for there are many.
    fn delta(&self, kind: &str, member: &str, json: &str, out: &mut String) {
        let index = self.blocks.saturating_sub(1);
        let _ = write!(
            out,
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":\"{kind}\",\"{member}\":{json}}}}}\n\n"
        );
    }

    fn add(&mut self, text: &str, out: &mut String) {
        let (kind, member) = match &self.open {
            Some(Opened::Text | Opened::Refusal) => ("text_delta", "text"),
            Some(Opened::Thinking) => ("thinking_delta", "thinking"),
            Some(Opened::ToolCall { .. }) => ("input_json_delta", "partial_json"),
            Some(Opened::HiddenThinking { .. }) | None => return,
        };
        self.delta(kind, member, &quote(text), out);
    }

    fn end(&mut self, out: &mut String) {
        self.start("", out);
        self.close(out);
        let (stop, sequence) = self.stop.take().unzip();
        let (reason, sequence) = (stop_word(stop, self.calls), sequence.flatten());
        let delta = object(|it| {
            it.text("stop_reason", reason);
            match sequence.as_deref() {
                Some(sequence) => it.text("stop_sequence", sequence),
                None => it.raw("stop_sequence", "null"),
            };
            fill_nothing(it);
        });
        let usage = last_usage_json(&self.usage);
        put("message_delta", |it| _ = it.raw("delta", &delta).raw("usage", &usage), out);
        put("message_stop", |_| {}, out);
    }
}

/// One event, under its name.
fn put(name: &str, fill: impl FnOnce(&mut Object), out: &mut String) {
    let data = object(|it| {
        it.text("type", name);
        fill(it);
    });
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
}

impl WriteStream for Writer {
    fn write(&mut self, event: &Event, out: &mut String) {
        match event {
            Event::Started { id, usage, .. } => {
                self.usage = usage.unwrap_or_default();
                self.start(id, out);
            }
            Event::Opened { choice: 0, what, .. } => self.open(what, out),
            Event::Added { choice: 0, text, .. } => self.add(text, out),
            Event::Signed { choice: 0, signature, .. } => {
                if self.open == Some(Opened::Thinking) {
                    self.delta("signature_delta", "signature", &quote(signature), out);
                }
            }
            Event::Cited { choice: 0, citation: cited, .. } => {
                if let Some(cited) = citation(cited).filter(|_| self.open == Some(Opened::Text)) {
                    self.delta("citations_delta", "citation", &cited, out);
                }
            }
            Event::Closed { choice: 0, .. } => self.close(out),
            Event::Stopped { choice: 0, stop, sequence } => {
                self.close(out);
                self.stop = Some((*stop, sequence.clone()));
            }
            Event::Used(usage) => self.usage = *usage,
            Event::Ping => put("ping", |_| {}, out),
            Event::Failed(error) => {
                let told = object(|it| {
                    it.text("type", kind_of(error));
                    it.text("message", error.message.as_deref().unwrap_or("the provider failed"));
                });
                put("error", |it| _ = it.raw("error", &told).text("request_id", &self.told.id), out);
            }
            Event::Ended => self.end(out),
            Event::Opened { .. }
            | Event::Added { .. }
            | Event::Signed { .. }
            | Event::Cited { .. }
            | Event::Closed { .. }
            | Event::Stopped { .. }
            | Event::Likely { .. }
            | Event::Lost(_) => {}
        }
    }

    fn lost(&self, event: &Event) -> Option<(&'static str, &'static str)> {
        if matches!(event, Event::Opened { choice: 1.., .. }) {
            return Some(("choices", "Anthropic gives one answer; the first is shown"));
        }
        if matches!(event, Event::Likely { .. }) {
            return Some(("logprobs", "Anthropic has no log probabilities"));
        }
        let Event::Cited { citation: cited, .. } = event else { return None };
        if citation(cited).is_none() {
            return Some(("citations", FOREIGN));
        }
        let narrow = !is_own(cited) && Page::parse(cited).is_some_and(|page| page.span.is_some());
        narrow.then_some(("citations", WHOLE_BLOCKS))
    }
}
