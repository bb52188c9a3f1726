//! A stream of answers, written: as events, or as the elements of one array.

use crate::chat::{CHOICES_MAX, CITATIONS_WAITING_MAX, Event, Opened, Page, Stop, Usage};
use crate::dialect::{Told, WriteStream};
use crate::json::write::{Object, object};
use crate::openai::sse::EVENT_BYTES_MAX;

use super::client::{ONLY_PAGES, reason};
use super::fault::stream_error_body;
use super::form::Form;
use super::grounding::Grounding;
use super::words::{args_of, base64_only, fill_call, logprobs_json, usage_json};

/// Writes a stream.
pub(super) struct Deltas {
    told: Told,
    form: Form,
    /// Elements written so far, where it is an array.
    elements: u64,
    id: String,
    usage: Option<Usage>,
    choices: Vec<Open>,
}

/// What is open of one choice.
#[derive(Default)]
struct Open {
    what: Option<Opened>,
    /// Something was added to it.
    added: bool,
    /// The arguments of a call, which this dialect sends as a whole.
    arguments: String,
    /// They are too long to be kept.
    too_long: bool,
    signature: Option<String>,
    /// A call's arguments were no JSON object.
    broken: bool,
    stop: Option<Stop>,
    text: Text,
}

/// What is known of the text of a choice, of which only lengths are kept.
#[derive(Default)]
struct Text {
    /// Bytes and characters so far.
    bytes: u64,
    chars: u64,
    /// The same before the text that is open.
    before: (u64, u64),
    /// Pages that the open text cites.
    cited: Vec<Page>,
    grounding: Grounding,
}

impl Text {
    fn cite(&mut self, citation: &str) {
        if self.cited.len() < CITATIONS_WAITING_MAX {
            self.cited.extend(Page::parse(citation));
        }
    }

    /// Its end is known: so are the places of what it cites, which are bytes here. Where those are not as many as
    /// characters, all of the text stands for each.
    fn close(&mut self) {
        let (bytes, chars) = (self.bytes - self.before.0, self.chars - self.before.1);
        let room = CITATIONS_WAITING_MAX.saturating_sub(self.grounding.len());
        for page in std::mem::take(&mut self.cited).into_iter().take(room) {
            let (start, end) = if bytes == chars { page.place(chars) } else { (0, bytes) };
            self.grounding.add(&page, 0, (self.before.0 + start, self.before.0 + end), None);
        }
        self.before = (self.bytes, self.chars);
    }
}

impl Deltas {
    pub(super) fn new(told: Told, form: Form) -> Self {
        let id = told.id.clone();
        Self { told, form, elements: 0, id, usage: None, choices: Vec::new() }
    }

    fn choice(&mut self, choice: u32) -> &mut Open {
        let at = choice.min(CHOICES_MAX - 1) as usize;
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, Open::default);
        }
        &mut self.choices[at]
    }

    /// One event, or one element.
    fn put(&mut self, json: &str, out: &mut String) {
        match self.form {
            Form::Events => {
                out.push_str("data: ");
                out.push_str(json);
                out.push_str("\n\n");
            }
            Form::Array => {
                out.push_str(if self.elements == 0 { "[" } else { ",\n" });
                out.push_str(json);
                self.elements += 1;
            }
        }
    }

    fn finish(&mut self, out: &mut String) {
        if self.form == Form::Array {
            out.push_str(if self.elements == 0 { "[]" } else { "]" });
        }
    }

    fn chunk(&mut self, candidates: &[String], usage: Option<Usage>, out: &mut String) {
        let json = object(|it| {
            if !candidates.is_empty() {
                it.array("candidates", candidates);
            }
            if let Some(usage) = usage {
                it.raw("usageMetadata", &usage_json(&usage));
            }
            it.text("modelVersion", &self.told.model).text("responseId", &self.id);
        });
        self.put(&json, out);
    }

    fn part(&mut self, choice: u32, fill: impl FnOnce(&mut Object), out: &mut String) {
        let candidate = candidate(choice, &object(fill), |_| {});
        self.chunk(&[candidate], None, out);
    }

    fn add(&mut self, choice: u32, text: &str, out: &mut String) {
        let open = self.choice(choice);
        open.added = true;
        match open.what {
            Some(Opened::Text | Opened::Refusal) => {
                open.text.bytes += text.len() as u64;
                open.text.chars += text.chars().count() as u64;
                self.part(choice, |it| _ = it.text("text", text), out);
            }
            Some(Opened::Thinking) => {
                self.part(choice, |it| _ = it.text("text", text).boolean("thought", true), out);
            }
            Some(Opened::ToolCall { .. }) => {
                open.too_long |= open.arguments.len() + text.len() > EVENT_BYTES_MAX;
                if !open.too_long {
                    open.arguments.push_str(text);
                }
            }
            Some(Opened::HiddenThinking { .. }) | None => {}
        }
    }

    fn sign(&mut self, choice: u32, signature: &str, out: &mut String) {
        let open = self.choice(choice);
        if let Some(Opened::ToolCall { .. }) = open.what {
            open.signature.get_or_insert_default().push_str(signature);
            return;
        }
        let Some(signature) = base64_only(signature) else { return };
        let thought = open.added && open.what == Some(Opened::Thinking);
        let fill = |it: &mut Object| {
            it.text("text", "");
            if thought {
                it.boolean("thought", true);
            }
            it.text("thoughtSignature", signature);
        };
        self.part(choice, fill, out);
    }

    /// A call is sent once it is whole. One whose arguments are cut off or broken is never sent as if it were (D15).
    fn close(&mut self, choice: u32, out: &mut String) {
        let open = self.choice(choice);
        open.text.close();
        let Some(Opened::ToolCall { id, name }) = open.what.take() else { return };
        let arguments = std::mem::take(&mut open.arguments);
        let signature = open.signature.take();
        match args_of(&arguments).filter(|_| !open.too_long) {
            Some(args) => {
                self.part(
                    choice,
                    |it| fill_call(it, &id, &name, &args, signature.as_deref().and_then(base64_only)),
                    out,
                );
            }
            None => open.broken = true,
        }
    }

    fn end(&mut self, out: &mut String) {
        let choices = self.choices.iter().enumerate();
        let stopped = choices.filter_map(|(index, open)| {
            let reason = reason(open.stop?, open.broken);
            let grounding = open.text.grounding.json();
            let fill = |it: &mut Object| {
                it.text("finishReason", reason);
                if let Some(grounding) = &grounding {
                    it.raw("groundingMetadata", grounding);
                }
            };
            Some(candidate(index as u32, r#"{"text":""}"#, fill))
        });
        let stopped: Vec<String> = stopped.collect();
        self.chunk(&stopped, self.usage, out);
        self.finish(out);
    }
}

/// One candidate with one part.
fn candidate(choice: u32, part: &str, fill: impl FnOnce(&mut Object)) -> String {
    object(|it| {
        it.object("content", |it| _ = it.array("parts", [part]).text("role", "model"));
        fill(it);
        it.count("index", u64::from(choice));
    })
}

impl WriteStream for Deltas {
    fn write(&mut self, event: &Event, out: &mut String) {
        match event {
            Event::Started { id, model: _, created_s: _, usage } => {
                if !id.is_empty() {
                    self.id.clone_from(id);
                }
                self.usage = *usage;
            }
            Event::Opened { choice, part: _, what } => {
                let open = self.choice(*choice);
                let text = std::mem::take(&mut open.text);
                let kept = Open { broken: open.broken, stop: open.stop, text, ..Open::default() };
                *open = Open { what: Some(what.clone()), ..kept };
            }
            Event::Added { choice, part: _, text } => self.add(*choice, text, out),
            Event::Signed { choice, part: _, signature } => self.sign(*choice, signature, out),
            Event::Closed { choice, part: _ } => self.close(*choice, out),
            Event::Likely { choice, logprobs } => {
                let logprobs = logprobs_json(logprobs);
                let fill = |it: &mut Object| _ = it.raw("logprobsResult", &logprobs);
                let candidate = candidate(*choice, r#"{"text":""}"#, fill);
                self.chunk(&[candidate], None, out);
            }
            Event::Stopped { choice, stop, sequence: _ } => self.choice(*choice).stop = Some(*stop),
            Event::Used(usage) => self.usage = Some(*usage),
            Event::Failed(error) => {
                let body = stream_error_body(error);
                self.put(&body, out);
                self.finish(out);
            }
            Event::Ended => self.end(out),
            Event::Ping => out.push_str(Form::ping()),
            Event::Cited { choice, part: _, citation } => self.choice(*choice).text.cite(citation),
            Event::Lost(_) => {}
        }
    }

    fn lost(&self, event: &Event) -> Option<(&'static str, &'static str)> {
        let other = matches!(event, Event::Cited { citation, .. } if Page::parse(citation).is_none());
        other.then_some(("citations", ONLY_PAGES))
    }
}
