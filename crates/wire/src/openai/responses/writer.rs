//! A stream of typed events, written.

use std::fmt::Write as _;

use crate::chat::{Event, Logprob, Opened, Page, Stop, Usage};
use crate::dialect::{Told, WriteStream};
use crate::json::write::{Object, object};
use crate::openai::sse::StreamError;

use super::items::{
    Call, ONLY_PAGES, Response, Status, annotation, hidden, item_id, logprobs_json, message_json,
    refusal_json, response_id, summary_json, text_json, thought_json,
};

/// Bytes of an answer that are kept, for the dialect says everything again at the end.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Writes events.
pub(super) struct Writer {
    told: Told,
    id: String,
    created_s: u64,
    /// Events so far.
    events: u64,
    begun: bool,
    over: bool,
    /// The items that are whole.
    items: Vec<String>,
    kept_bytes: usize,
    /// The parts of the message that is open.
    message: Option<Vec<String>>,
    open: Option<Open>,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

/// The part that is open.
struct Open {
    what: Opened,
    text: String,
    signature: Option<String>,
    citations: Vec<String>,
    logprobs: Vec<Logprob>,
}

impl Writer {
    pub(super) fn new(told: Told) -> Self {
        let (id, created_s) = (response_id(&told.id), told.now_unix_s);
        Self {
            told,
            id,
            created_s,
            events: 0,
            begun: false,
            over: false,
            items: Vec::new(),
            kept_bytes: 0,
            message: None,
            open: None,
            stop: None,
            usage: None,
        }
    }

    fn emit(&mut self, kind: &str, fill: impl FnOnce(&mut Object), out: &mut String) {
        let data = object(|it| {
            it.text("type", kind).count("sequence_number", self.events);
            fill(it);
        });
        self.events += 1;
        let _ = write!(out, "event: {kind}\ndata: {data}\n\n");
    }

    fn emit_response(&mut self, kind: &str, status: Status, error: Option<(&str, &str)>, out: &mut String) {
        let usage = self.usage.filter(|_| status != Status::InProgress);
        let response = Response {
            id: &self.id,
            created_s: self.created_s,
            status,
            output: &self.items,
            usage: usage.as_ref(),
            error,
            service_tier: None,
        };
        let json = response.json(&self.told);
        self.emit(kind, |it| _ = it.raw("response", &json), out);
    }

    fn begin(&mut self, out: &mut String) {
        if !std::mem::replace(&mut self.begun, true) {
            self.emit_response("response.created", Status::InProgress, None, out);
            self.emit_response("response.in_progress", Status::InProgress, None, out);
        }
    }

    /// The id of the item that is open, of this kind.
    fn item(&self, kind: &str) -> String {
        item_id(kind, &self.id, self.items.len())
    }

    fn add_item(&mut self, item: &str, out: &mut String) {
        let index = self.items.len() as u64;
        self.emit(
            "response.output_item.added",
            |it| _ = it.count("output_index", index).raw("item", item),
            out,
        );
    }

    fn end_item(&mut self, item: String, out: &mut String) {
        let index = self.items.len() as u64;
        self.emit(
            "response.output_item.done",
            |it| _ = it.count("output_index", index).raw("item", &item),
            out,
        );
        self.items.push(item);
    }

    /// An event about a part of the open item: of a message or of a summary.
    fn emit_part(
        &mut self,
        kind: &str,
        (item, place): (&str, &str),
        fill: impl FnOnce(&mut Object),
        out: &mut String,
    ) {
        let index = self.items.len() as u64;
        let part = self.message.as_ref().map_or(0, Vec::len) as u64;
        self.emit(
            kind,
            |it| {
                it.text("item_id", item).count("output_index", index);
                if !place.is_empty() {
                    it.count(place, part);
                }
                fill(it);
            },
            out,
        );
    }

    fn open(&mut self, what: &Opened, out: &mut String) {
        self.close(out);
        match what {
            Opened::Text | Opened::Refusal => {
                let id = self.item("msg");
                if self.message.is_none() {
                    self.add_item(&message_json(&id, "in_progress", &[]), out);
                    self.message = Some(Vec::new());
                }
                let empty = if *what == Opened::Text { text_json("", &[], &[]) } else { refusal_json("") };
                let place = (&*id, "content_index");
                self.emit_part("response.content_part.added", place, |it| _ = it.raw("part", &empty), out);
            }
            Opened::Thinking => {
                self.close_message(out);
                self.add_item(&thought_json(&self.item("rs"), "", None), out);
            }
            Opened::HiddenThinking { data } => {
                self.close_message(out);
                let item = thought_json(&self.item("rs"), "", Some(&hidden(data)));
                self.add_item(&item, out);
            }
            Opened::ToolCall { id, name } => {
                self.close_message(out);
                let item = self.item("fc");
                let call = Call { id: &item, of: id, name, arguments: "", signature: None };
                self.add_item(&call.json("in_progress"), out);
            }
        }
        self.open = Some(Open {
            what: what.clone(),
            text: String::new(),
            signature: None,
            citations: Vec::new(),
            logprobs: Vec::new(),
        });
    }

    fn add(&mut self, text: &str, out: &mut String) {
        if text.is_empty() {
            return;
        }
        let Some(open) = &mut self.open else { return };
        let first = open.text.is_empty();
        open.text.push_str(text);
        let what = open.what.clone();
        self.kept_bytes += text.len();
        let delta = |it: &mut Object| _ = it.text("delta", text);
        match what {
            Opened::Text => {
                let id = self.item("msg");
                let fill = |it: &mut Object| _ = it.text("delta", text).raw("logprobs", "[]");
                self.emit_part("response.output_text.delta", (&id, "content_index"), fill, out);
            }
            Opened::Refusal => {
                let id = self.item("msg");
                self.emit_part("response.refusal.delta", (&id, "content_index"), delta, out);
            }
            Opened::Thinking => {
                let id = self.item("rs");
                let place = (&*id, "summary_index");
                if first {
                    let part = summary_json("");
                    let fill = |it: &mut Object| _ = it.raw("part", &part);
                    self.emit_part("response.reasoning_summary_part.added", place, fill, out);
                }
                self.emit_part("response.reasoning_summary_text.delta", place, delta, out);
            }
            Opened::ToolCall { .. } => {
                let id = self.item("fc");
                self.emit_part("response.function_call_arguments.delta", (&id, ""), delta, out);
            }
            Opened::HiddenThinking { .. } => {}
        }
        if self.kept_bytes > KEPT_BYTES_MAX {
            let message =
                format!("the answer is longer than the {KEPT_BYTES_MAX} bytes that a response may have");
            self.fail(&StreamError { message: Some(message), ..StreamError::default() }, out);
        }
    }

    /// Tells how likely the last tokens were; they came before.
    fn tell_likely(&mut self, logprobs: &[Logprob], out: &mut String) {
        let Some(open) = self.open.as_mut().filter(|open| open.what == Opened::Text) else { return };
        open.logprobs.extend(logprobs.iter().cloned());
        let (id, json) = (self.item("msg"), logprobs_json(logprobs));
        let fill = |it: &mut Object| _ = it.text("delta", "").raw("logprobs", &json);
        self.emit_part("response.output_text.delta", (&id, "content_index"), fill, out);
    }

    fn close(&mut self, out: &mut String) {
        let Some(open) = self.open.take() else { return };
        let text = open.text.as_str();
        match &open.what {
            Opened::Text => self.close_text(&open, out),
            Opened::Refusal => {
                let (id, part) = (self.item("msg"), refusal_json(text));
                let place = (&*id, "content_index");
                self.emit_part("response.refusal.done", place, |it| _ = it.text("refusal", text), out);
                self.emit_part("response.content_part.done", place, |it| _ = it.raw("part", &part), out);
                self.message.get_or_insert_default().push(part);
            }
            Opened::Thinking => {
                let id = self.item("rs");
                let place = (&*id, "summary_index");
                if !text.is_empty() {
                    let part = summary_json(text);
                    let done = |it: &mut Object| _ = it.text("text", text);
                    self.emit_part("response.reasoning_summary_text.done", place, done, out);
                    let done = |it: &mut Object| _ = it.raw("part", &part);
                    self.emit_part("response.reasoning_summary_part.done", place, done, out);
                }
                self.end_item(thought_json(&id, text, open.signature.as_deref()), out);
            }
            Opened::HiddenThinking { data } => {
                let item = thought_json(&self.item("rs"), "", Some(&hidden(data)));
                self.end_item(item, out);
            }
            Opened::ToolCall { id: call, name } => {
                let id = self.item("fc");
                let done = |it: &mut Object| _ = it.text("name", name).text("arguments", text);
                self.emit_part("response.function_call_arguments.done", (&id, ""), done, out);
                let signature = open.signature.as_deref();
                let call = Call { id: &id, of: call, name, arguments: text, signature };
                self.end_item(call.json("completed"), out);
            }
        }
    }

    fn close_text(&mut self, open: &Open, out: &mut String) {
        let (id, text) = (self.item("msg"), open.text.as_str());
        let place = (&*id, "content_index");
        let chars = text.chars().count();
        let pages = open.citations.iter().filter_map(|citation| Page::parse(citation));
        let annotations: Vec<String> = pages.map(|page| annotation(&page, chars)).collect();
        for (at, one) in annotations.iter().enumerate() {
            let fill = |it: &mut Object| _ = it.count("annotation_index", at as u64).raw("annotation", one);
            self.emit_part("response.output_text.annotation.added", place, fill, out);
        }
        let logprobs = logprobs_json(&open.logprobs);
        let done = |it: &mut Object| _ = it.text("text", text).raw("logprobs", &logprobs);
        self.emit_part("response.output_text.done", place, done, out);
        let part = text_json(text, &annotations, &open.logprobs);
        self.emit_part("response.content_part.done", place, |it| _ = it.raw("part", &part), out);
        self.message.get_or_insert_default().push(part);
    }

    fn close_message(&mut self, out: &mut String) {
        if let Some(parts) = self.message.take() {
            let item = message_json(&self.item("msg"), Status::of(self.stop).word(), &parts);
            self.end_item(item, out);
        }
    }

    fn end(&mut self, out: &mut String) {
        self.begin(out);
        self.close(out);
        self.close_message(out);
        self.over = true;
        let status = Status::of(self.stop);
        let kind = if status == Status::Completed { "response.completed" } else { "response.incomplete" };
        self.emit_response(kind, status, None, out);
    }

    fn fail(&mut self, error: &StreamError, out: &mut String) {
        self.begin(out);
        self.over = true;
        let code = match (error.code.as_deref(), error.status) {
            (Some(code), _) => code,
            (None, Some(429)) => "rate_limit_exceeded",
            (None, _) => "server_error",
        };
        let message = error.message.as_deref().unwrap_or("the provider failed");
        self.emit_response("response.failed", Status::Failed, Some((code, message)), out);
    }
}

impl WriteStream for Writer {
    fn write(&mut self, event: &Event, out: &mut String) {
        let shown = |choice: &u32| *choice == 0;
        match event {
            _ if self.over => {}
            Event::Started { id, model: _, created_s, usage } => {
                if !id.is_empty() {
                    self.id = response_id(id);
                }
                self.created_s = created_s.unwrap_or(self.created_s);
                self.usage = *usage;
                self.begin(out);
            }
            Event::Opened { choice, part: _, what } if shown(choice) => {
                self.begin(out);
                self.open(what, out);
            }
            Event::Added { choice, part: _, text } if shown(choice) => self.add(text, out),
            Event::Signed { choice, part: _, signature } if shown(choice) => {
                if let Some(open) = &mut self.open {
                    self.kept_bytes += signature.len();
                    open.signature.get_or_insert_default().push_str(signature);
                }
            }
            Event::Cited { choice, part: _, citation } if shown(choice) => {
                if let Some(open) = &mut self.open {
                    self.kept_bytes += citation.len();
                    open.citations.push(citation.clone());
                }
            }
            Event::Likely { choice, logprobs } if shown(choice) => self.tell_likely(logprobs, out),
            Event::Closed { choice, part: _ } if shown(choice) => self.close(out),
            Event::Stopped { choice, stop, sequence: _ } if shown(choice) => self.stop = Some(*stop),
            Event::Used(usage) => self.usage = Some(*usage),
            Event::Failed(error) => self.fail(error, out),
            Event::Ended => self.end(out),
            Event::Ping => out.push_str(": ping\n\n"),
            // A response is one answer.
            Event::Opened { .. }
            | Event::Added { .. }
            | Event::Signed { .. }
            | Event::Cited { .. }
            | Event::Likely { .. }
            | Event::Closed { .. }
            | Event::Stopped { .. }
            | Event::Lost(_) => {}
        }
    }

    fn lost(&self, event: &Event) -> Option<(&'static str, &'static str)> {
        match event {
            Event::Opened { choice: 1.., .. } => {
                Some(("choices", "a response is one answer; the first is shown"))
            }
            Event::Cited { choice: 0, citation, .. } if Page::parse(citation).is_none() => {
                Some(("citations", ONLY_PAGES))
            }
            Event::Started { .. }
            | Event::Opened { .. }
            | Event::Added { .. }
            | Event::Signed { .. }
            | Event::Cited { .. }
            | Event::Likely { .. }
            | Event::Closed { .. }
            | Event::Stopped { .. }
            | Event::Used(_)
            | Event::Failed(_)
            | Event::Ping
            | Event::Lost(_)
            | Event::Ended => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_beyond_all_bounds_fails_and_nothing_follows() {
        let mut writer = Writer::new(Told::default());
        let mut out = String::new();
        writer.write(&Event::Opened { choice: 0, part: 0, what: Opened::Text }, &mut out);
        let added = Event::Added { choice: 0, part: 0, text: "x".repeat(8 << 20) };
        for _ in 0..5 {
            out.clear();
            writer.write(&added, &mut out);
        }
        assert!(out.contains("response.failed") && out.contains("bytes that a response may have"));
        out.clear();
        writer.write(&Event::Ended, &mut out);
        assert!(out.is_empty() && writer.kept_bytes <= KEPT_BYTES_MAX + (8 << 20));
    }
}
