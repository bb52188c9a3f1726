//! A stream of lines, written.

use crate::chat::{Event, Logprob, Opened, Stop, Usage};
use crate::dialect::{Told, WriteStream};
use crate::json::write::{Object, object};
use crate::openai::sse::WITHHELD_BYTES_MAX;

use super::client::is_cut;
use super::words::{arguments_object, call_json, fill_end, logprobs_json, rfc3339};

/// Whose form it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `/api/chat`
    Chat,
    /// `/api/generate`
    Generate,
}

/// Writes lines. Ollama gives one answer, so of several only the first is written.
pub(super) struct Deltas {
    told: Told,
    form: Form,
    created_at: String,
    usage: Option<Usage>,
    stop: Option<Stop>,
    open: Option<Opened>,
    /// The arguments of the open call: they are sent as a whole.
    arguments: String,
    /// The tool whose arguments came to no object.
    broken: Option<String>,
    failed: bool,
}

/// What a line brings.
enum Brings<'a> {
    Text(&'a str),
    Thought(&'a str),
    Call(&'a str),
    Logprobs(&'a [Logprob]),
}

impl Deltas {
    pub(super) fn new(told: Told, form: Form) -> Self {
        let created_at = rfc3339(told.now_unix_s);
        Self {
            told,
            form,
            created_at,
            usage: None,
            stop: None,
            open: None,
            arguments: String::new(),
            broken: None,
            failed: false,
        }
    }

    fn line(&self, fill: impl FnOnce(&mut Object), out: &mut String) {
        out.push_str(&object(|it| {
            it.text("model", &self.told.model).text("created_at", &self.created_at);
            fill(it);
        }));
        out.push('\n');
    }

    fn bring(&self, brings: &Brings<'_>, out: &mut String) {
        let text = if let Brings::Text(text) = brings { text } else { "" };
        let members = |it: &mut Object| match brings {
            Brings::Thought(thought) => _ = it.text("thinking", thought),
            Brings::Call(call) => _ = it.array("tool_calls", [call]),
            Brings::Text(_) | Brings::Logprobs(_) => {}
        };
        self.line(
            |it| {
                match self.form {
                    Form::Chat => {
                        it.object("message", |it| {
                            it.text("role", "assistant").text("content", text);
                            members(it);
                        });
                    }
                    Form::Generate => {
                        it.text("response", text);
                        members(it);
                    }
                }
                if let Brings::Logprobs(logprobs) = brings {
                    it.raw("logprobs", &logprobs_json(logprobs));
                }
                it.boolean("done", false);
            },
            out,
        );
    }

    fn add(&mut self, text: &str, out: &mut String) {
        match &self.open {
            Some(Opened::Text | Opened::Refusal) => self.bring(&Brings::Text(text), out),
            Some(Opened::Thinking) => self.bring(&Brings::Thought(text), out),
            Some(Opened::ToolCall { .. }) => {
                // What is longer than any line may be ends as broken.
                if self.arguments.len() + text.len() <= WITHHELD_BYTES_MAX {
                    self.arguments.push_str(text);
                } else {
                    "too long".clone_into(&mut self.arguments);
                }
            }
            Some(Opened::HiddenThinking { .. }) | None => {}
        }
    }

    fn close(&mut self, out: &mut String) {
        let Some(Opened::ToolCall { id, name }) = self.open.take() else { return };
        let arguments = std::mem::take(&mut self.arguments);
        match (arguments_object(&arguments), self.form) {
            (Some(arguments), Form::Chat) => {
                self.bring(&Brings::Call(&call_json(&id, &name, arguments)), out);
            }
            // No tools can be offered there.
            (Some(_), Form::Generate) => {}
            (None, Form::Chat | Form::Generate) => self.broken = Some(name),
        }
    }

    fn fail(&mut self, message: &str, out: &mut String) {
        self.failed = true;
        out.push_str(&object(|it| _ = it.text("error", message)));
        out.push('\n');
    }

    fn end(&mut self, out: &mut String) {
        let cut = is_cut(self.stop);
        if let Some(tool) = self.broken.take().filter(|_| !cut) {
            let message =
                format!("the model called `{tool}` with arguments that are no JSON object; ask again");
            return self.fail(&message, out);
        }
        let (stop, usage) = (self.stop, self.usage);
        self.line(
            |it| {
                match self.form {
                    Form::Chat => {
                        it.object("message", |it| _ = it.text("role", "assistant").text("content", ""));
                    }
                    Form::Generate => _ = it.text("response", ""),
                }
                fill_end(it, stop, usage.as_ref());
            },
            out,
        );
    }
}

impl WriteStream for Deltas {
    fn write(&mut self, event: &Event, out: &mut String) {
        if self.failed {
            return;
        }
        match event {
            Event::Started { created_s, usage, .. } => {
                if let Some(created_s) = created_s {
                    self.created_at = rfc3339(*created_s);
                }
                self.usage = *usage;
            }
            Event::Opened { choice: 0, part: _, what } => self.open = Some(what.clone()),
            Event::Added { choice: 0, part: _, text } => self.add(text, out),
            Event::Likely { choice: 0, logprobs } => self.bring(&Brings::Logprobs(logprobs), out),
            Event::Closed { choice: 0, part: _ } => self.close(out),
            Event::Stopped { choice: 0, stop, sequence: _ } => self.stop = Some(*stop),
            Event::Used(usage) => self.usage = Some(*usage),
            Event::Failed(error) => {
                self.fail(error.message.as_deref().unwrap_or("the provider failed"), out);
            }
            Event::Ended => self.end(out),
            Event::Opened { .. }
            | Event::Added { .. }
            | Event::Likely { .. }
            | Event::Closed { .. }
            | Event::Stopped { .. }
            | Event::Signed { .. }
            | Event::Cited { .. }
            | Event::Lost(_)
            | Event::Ping => {}
        }
    }

    fn lost(&self, event: &Event) -> Option<(&'static str, &'static str)> {
        if matches!(event, Event::Opened { choice: 1.., .. }) {
            return Some(("choices", "Ollama gives one answer; the first is shown"));
        }
        if matches!(event, Event::Signed { .. }) {
            return Some(("signature", "Ollama signs no thoughts"));
        }
        matches!(event, Event::Cited { .. }).then_some(("citations", "Ollama cites nothing"))
    }
}
