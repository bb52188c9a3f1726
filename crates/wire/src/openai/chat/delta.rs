//! A stream of chat completion chunks, written.

use std::fmt::Write as _;

use crate::chat::{CHOICES_MAX, Event, Opened, Usage};
use crate::dialect::{Told, WriteStream};
use crate::json::quote;
use crate::json::write::{Object, object};

use super::words::{fill_signature, finish_reason, logprobs_json, usage_json};

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
}

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
                let detail = object(|it| _ = it.text("type", "reasoning.encrypted").text("data", data));
                self.chunk(choice, |it| _ = it.array("reasoning_details", [detail]), "null", "null", out);
            }
            Opened::Text | Opened::Thinking | Opened::Refusal => {}
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
            Event::Signed { choice, part: _, signature } => {
                let open = self.choice(*choice);
                if let Some(Opened::ToolCall { .. }) = open.what {
                    let index = u64::from(open.calls.saturating_sub(1));
                    let call = object(|it| {
                        it.count("index", index);
                        fill_signature(it, signature);
                    });
                    let delta = |it: &mut Object| _ = it.array("tool_calls", [call]);
                    self.chunk(*choice, delta, "null", "null", out);
                }
                if self.choice(*choice).what == Some(Opened::Thinking) {
                    let detail = object(|it| {
                        it.text("type", "reasoning.text").text("text", "").text("signature", signature);
                    });
                    self.chunk(
                        *choice,
                        |it| _ = it.array("reasoning_details", [detail]),
                        "null",
                        "null",
                        out,
                    );
                }
            }
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
            Event::Cited { .. } | Event::Closed { .. } | Event::Lost(_) => {}
        }
    }

    fn lost(&self, event: &Event) -> Option<(&'static str, &'static str)> {
        let cited = matches!(event, Event::Cited { .. });
        cited.then_some(("citations", "chunks of chat completions cite nothing"))
    }
}
