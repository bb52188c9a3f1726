//! A stream of chat completion chunks, written.

use std::fmt::Write as _;

use crate::chat::{CHOICES_MAX, CITATIONS_WAITING_MAX, Event, Opened, Page, Usage};
use crate::dialect::{Told, WriteStream};
use crate::json::quote;
use crate::json::write::{Object, object};

use super::words::{
    annotation_json, fill_signature, finish_reason, hidden_json, logprobs_json, thought_json, unsaid_json,
    usage_json,
};

/// Writes chunks.
pub(super) struct Deltas {
    told: Told,
    id: String,
    created_s: u64,
    usage: Option<Usage>,
    /// By choice: the calls so far, and what the open part is.
    choices: Vec<Open>,
}

#[derive(Default)]
struct Open {
    calls: u32,
    what: Option<Opened>,
    greeted: bool,
    /// Characters of content so far, and those before the text that is open.
    chars: u64,
    chars_before: u64,
    /// Pages that all of the open text cites, whose end is not known yet.
    cited: Vec<Page>,
    /// Thoughts so far, shown and hidden ones.
    thoughts: u64,
    /// The words of the open thought, as long as it is not too long: they are said again with what proves them, for there
    /// is nothing else in the dialect that says which words are proven.
    thought: String,
    signature: Option<String>,
}

/// Bytes of one thought that are said again with what proves them; of a longer one only the latter is.
const THOUGHT_BYTES_MAX: usize = 1024 * 1024;

impl Deltas {
    pub(super) fn new(told: Told) -> Self {
        let (id, created_s) = (told.id.clone(), told.now_unix_s);
        Self { told, id, created_s, usage: None, choices: Vec::new() }
    }

    fn choice(&mut self, choice: u32) -> &mut Open {
        let at = choice.min(CHOICES_MAX - 1) as usize;
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, Open::default);
        }
        &mut self.choices[at]
    }

    /// One chunk; `rest` is what stands behind the delta.
    fn chunk(
        &mut self,
        choice: u32,
        delta: impl FnOnce(&mut Object),
        logprobs: &str,
        reason: &str,
        out: &mut String,
    ) {
        let greeted = std::mem::replace(&mut self.choice(choice).greeted, true);
        let delta = object(|it| {
            if !greeted {
                it.text("role", "assistant");
            }
            delta(it);
        });
        self.head(out);
        let _ = write!(
            out,
            ",\"choices\":[{{\"index\":{choice},\"delta\":{delta},\"logprobs\":{logprobs},\"finish_reason\":{reason}}}]}}\n\n"
        );
    }

    fn head(&self, out: &mut String) {
        let _ = write!(
            out,
            "data: {{\"id\":{},\"object\":\"chat.completion.chunk\",\"created\":{},\"model\":{}",
            quote(&self.id),
            self.created_s,
            quote(&self.told.model)
        );
    }

    fn add(&mut self, choice: u32, text: &str, out: &mut String) {
        let open = self.choice(choice);
        let call = open.calls.saturating_sub(1);
        let Some(what) = open.what.clone() else { return };
        match &what {
            Opened::Text => open.chars += text.chars().count() as u64,
            Opened::Thinking if open.thought.len() <= THOUGHT_BYTES_MAX => open.thought.push_str(text),
            Opened::Thinking | Opened::Refusal | Opened::HiddenThinking { .. } | Opened::ToolCall { .. } => {}
        }
        let delta = |it: &mut Object| match what {
            Opened::Text => _ = it.text("content", text),
            Opened::Thinking => _ = it.text("reasoning_content", text),
            Opened::Refusal => _ = it.text("refusal", text),
            Opened::HiddenThinking { .. } => {}
            Opened::ToolCall { .. } => {
                let arguments = object(|it| {
                    it.count("index", u64::from(call));
                    it.object("function", |it| _ = it.text("arguments", text));
                });
                it.array("tool_calls", [arguments]);
            }
        };
        self.chunk(choice, delta, "null", "null", out);
    }

    fn open(&mut self, choice: u32, what: &Opened, out: &mut String) {
        let open = self.choice(choice);
        open.what = Some(what.clone());
        open.chars_before = open.chars;
        match what {
            Opened::ToolCall { id, name } => {
                let index = open.calls;
                open.calls += 1;
                let call = object(|it| {
                    it.count("index", u64::from(index)).text("id", id).text("type", "function");
                    it.object("function", |it| _ = it.text("name", name).text("arguments", ""));
                });
                self.chunk(choice, |it| _ = it.array("tool_calls", [call]), "null", "null", out);
            }
            Opened::HiddenThinking { data } => {
                let detail = hidden_json(data, open.thoughts);
                open.thoughts += 1;
                self.chunk(choice, |it| _ = it.array("reasoning_details", [detail]), "null", "null", out);
            }
            Opened::Text | Opened::Thinking | Opened::Refusal => {}
        }
    }

    fn sign(&mut self, choice: u32, signature: &str, out: &mut String) {
        let open = self.choice(choice);
        match open.what {
            Some(Opened::ToolCall { .. }) => {
                let index = u64::from(open.calls.saturating_sub(1));
                let call = object(|it| {
                    it.count("index", index);
                    fill_signature(it, signature);
                });
                self.chunk(choice, |it| _ = it.array("tool_calls", [call]), "null", "null", out);
            }
            Some(Opened::Thinking) => open.signature.get_or_insert_default().push_str(signature),
            Some(Opened::Text | Opened::HiddenThinking { .. } | Opened::Refusal) | None => {}
        }
    }

    /// Pages that are cited from one character to another are told at once, those that stand for all of the text at its end.
    fn cite(&mut self, choice: u32, citation: &str, out: &mut String) {
        let open = self.choice(choice);
        let Some(page) = Page::parse(citation).filter(|_| open.what == Some(Opened::Text)) else { return };
        if page.span.is_none() {
            if open.cited.len() < CITATIONS_WAITING_MAX {
                open.cited.push(page);
            }
            return;
        }
        let annotation = annotation_json(&page, open.chars_before, u64::MAX - open.chars_before);
        self.chunk(choice, |it| _ = it.array("annotations", [annotation]), "null", "null", out);
    }

    fn close(&mut self, choice: u32, out: &mut String) {
        let open = self.choice(choice);
        let thought = std::mem::take(&mut open.thought);
        if open.what == Some(Opened::Thinking) {
            let index = open.thoughts;
            open.thoughts += 1;
            if let Some(signature) = open.signature.take() {
                let detail = if thought.len() > THOUGHT_BYTES_MAX {
                    unsaid_json(&signature, index)
                } else {
                    thought_json(&thought, Some(&signature), index)
                };
                self.chunk(choice, |it| _ = it.array("reasoning_details", [detail]), "null", "null", out);
            }
        } else if !open.cited.is_empty() {
            let (before, chars) = (open.chars_before, open.chars - open.chars_before);
            let cited = std::mem::take(&mut open.cited);
            let annotations = cited.iter().map(|page| annotation_json(page, before, chars));
            self.chunk(choice, |it| _ = it.array("annotations", annotations), "null", "null", out);
        }
    }
}

impl WriteStream for Deltas {
    fn write(&mut self, event: &Event, out: &mut String) {
        match event {
            Event::Started { id, model: _, created_s, usage } => {
                if !id.is_empty() {
                    self.id.clone_from(id);
                }
                self.created_s = created_s.unwrap_or(self.created_s);
                self.usage = *usage;
                self.chunk(0, |it| _ = it.text("content", ""), "null", "null", out);
            }
            Event::Opened { choice, part: _, what } => self.open(*choice, what, out),
            Event::Added { choice, part: _, text } => self.add(*choice, text, out),
            Event::Signed { choice, part: _, signature } => self.sign(*choice, signature, out),
            Event::Cited { choice, part: _, citation } => self.cite(*choice, citation, out),
            Event::Closed { choice, part: _ } => self.close(*choice, out),
            Event::Likely { choice, logprobs } => {
                let logprobs = logprobs_json(logprobs);
                self.chunk(*choice, |_| {}, &logprobs, "null", out);
            }
            Event::Stopped { choice, stop, sequence: _ } => {
                let reason = quote(finish_reason(*stop));
                self.chunk(*choice, |_| {}, "null", &reason, out);
            }
            Event::Used(usage) => self.usage = Some(*usage),
            Event::Failed(error) => {
                let error = object(|it| {
                    it.text("message", error.message.as_deref().unwrap_or("the provider failed"));
                    it.text("type", error.kind.as_deref().unwrap_or("server_error"));
                    it.text_if("code", error.code.as_deref());
                });
                let _ = write!(out, "data: {{\"error\":{error}}}\n\n");
            }
            Event::Ended => {
                if let (true, Some(usage)) = (self.told.stream_usage, self.usage) {
                    self.head(out);
                    let _ = write!(out, ",\"choices\":[],\"usage\":{}}}\n\n", usage_json(&usage));
                }
                out.push_str("data: [DONE]\n\n");
            }
            Event::Ping => out.push_str(": ping\n\n"),
            Event::Lost(_) => {}
        }
    }

    fn lost(&self, event: &Event) -> Option<(&'static str, &'static str)> {
        let other = matches!(event, Event::Cited { citation, .. } if Page::parse(citation).is_none());
        other.then_some(("citations", "chat completions cites pages only"))
    }
}
