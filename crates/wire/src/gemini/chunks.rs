//! A stream of answers, read: events, or the elements of one array.

use crate::chat::{CHOICES_MAX, Event, Losses, Opened, Part, Stop, Usage};
use crate::dialect::{CONVERTED_DEPTH_MAX, ReadStream};
use crate::events::Events;
use crate::json::tree::Tree;
use crate::openai::sse::{EVENT_BYTES_MAX, StreamError, StreamFault};

use super::array::{Elements, Step, is_array};
use super::fault::stream_error;
use super::grounding::{Found, NO_TEXT, citation};
use super::reply::{Candidate, read};
use super::words::stop_of;

/// Reads a stream in either form.
#[derive(Default)]
pub(super) struct Chunks {
    form: Form,
    told: Told,
}

/// The form of a stream, by its first byte.
enum Form {
    Unknown(Vec<u8>),
    Events(Events),
    Array(Elements, Vec<u8>),
}

impl Default for Form {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

/// What was told so far.
#[derive(Default)]
struct Told {
    started: bool,
    /// It ended or failed: nothing follows.
    over: bool,
    id: String,
    usage: Option<Usage>,
    blocked: bool,
    choices: Vec<Reading>,
}

/// What was read of one candidate.
#[derive(Default)]
struct Reading {
    seen: bool,
    /// Parts that were opened.
    parts: u32,
    open: Option<Open>,
    calls: u64,
    stopped: bool,
    /// Bytes and characters of the text that was opened last, and how many were.
    bytes: u64,
    chars: u64,
    texts: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Open {
    Text,
    Thinking,
}

impl ReadStream for Chunks {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        if let Form::Unknown(before) = &mut self.form {
            before.extend_from_slice(bytes);
            // A byte order mark may be cut as well.
            let early = before.len() < 3 && before.first() == Some(&0xEF);
            let Some(is_array) = is_array(before).filter(|_| !early) else {
                return StreamFault::unless_within(before.len(), EVENT_BYTES_MAX);
            };
            let held = std::mem::take(before);
            self.form = if is_array {
                Form::Array(Elements::default(), Vec::new())
            } else {
                Form::Events(Events::default())
            };
            return self.feed(&held, events);
        }
        self.feed(bytes, events)
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        if let Form::Events(cut) = &mut self.form {
            cut.end(|_, data| self.told.take(data, events));
        }
        if !self.told.over && self.told.is_complete() {
            self.told.end(events);
        }
    }
}

impl Chunks {
    fn feed(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        match &mut self.form {
            Form::Unknown(_) => Ok(()),
            Form::Events(cut) => cut.push(bytes, |_, data| self.told.take(data, events)),
            Form::Array(elements, element) => {
                for byte in bytes {
                    let between = elements.is_between();
                    let step = elements.step(*byte);
                    if !between || step == Step::Begins {
                        element.push(*byte);
                    }
                    if step == Step::Ends {
                        self.told.take(&String::from_utf8_lossy(element), events);
                    }
                    if elements.is_between() {
                        element.clear();
                    }
                }
                StreamFault::unless_within(element.len(), EVENT_BYTES_MAX)
            }
        }
    }
}

impl Told {
    fn take(&mut self, data: &str, out: &mut Vec<Event>) {
        // Some that imitate this dialect end as another does.
        if self.over || data.trim().is_empty() || data.trim() == "[DONE]" {
            return;
        }
        let parsed = Tree::parse(data, CONVERTED_DEPTH_MAX).ok();
        let Some(chunk) = parsed.filter(|chunk| chunk.kind() == crate::json::Kind::Object) else {
            let message = Some("an event of the provider's stream is no JSON object".to_owned());
            return self.fail(StreamError { message, ..StreamError::default() }, out);
        };
        if chunk.get("error").is_some() {
            return self.fail(stream_error(data), out);
        }
        self.read(chunk, out);
    }

    fn fail(&mut self, error: StreamError, out: &mut Vec<Event>) {
        self.over = true;
        out.push(Event::Failed(error));
    }

    fn read(&mut self, chunk: Tree<'_>, out: &mut Vec<Event>) {
        let (choices, id) = (&mut self.choices, self.id.clone());
        let mut reply = read(chunk, &id, &mut |choice| {
            let reading = reading(choices, choice);
            reading.calls += 1;
            reading.calls - 1
        });
        // Each event counts all there was so far.
        self.usage = reply.usage.or(self.usage);
        if !std::mem::replace(&mut self.started, true) {
            self.id.clone_from(&reply.id);
            out.push(Event::Started { id: reply.id, model: reply.model, created_s: None, usage: self.usage });
        }
        self.blocked |= reply.blocked;
        for (choice, candidate) in reply.candidates {
            self.read_candidate(choice, candidate, &mut reply.losses, out);
        }
        if reply.blocked && !std::mem::replace(&mut reading(&mut self.choices, 0).stopped, true) {
            out.push(Event::Stopped { choice: 0, stop: Stop::Filtered, sequence: None });
        }
        if !reply.losses.is_empty() {
            out.push(Event::Lost(reply.losses));
        }
        if self.usage.is_some() && self.is_complete() {
            self.end(out);
        }
    }

    /// Whether every candidate said why it ended.
    fn is_complete(&self) -> bool {
        let mut seen = self.choices.iter().filter(|reading| reading.seen).peekable();
        self.blocked || (seen.peek().is_some() && seen.all(|reading| reading.stopped))
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        self.over = true;
        out.extend(self.usage.map(Event::Used));
        out.push(Event::Ended);
    }

    fn read_candidate(&mut self, choice: u32, from: Candidate, losses: &mut Losses, out: &mut Vec<Event>) {
        let reading = reading(&mut self.choices, choice);
        reading.seen = true;
        for part in from.parts {
            reading.read_part(choice, part, losses, out);
        }
        for found in &from.grounds {
            reading.cite(choice, found, losses, out);
        }
        if !from.logprobs.is_empty() {
            out.push(Event::Likely { choice, logprobs: from.logprobs });
        }
        if let Some(stop) = stop_of(&from.reason, reading.calls > 0) {
            reading.close(choice, out);
            if !std::mem::replace(&mut reading.stopped, true) {
                out.push(Event::Stopped { choice, stop, sequence: None });
            }
        }
    }
}

fn reading(choices: &mut Vec<Reading>, choice: u32) -> &mut Reading {
    let at = choice.min(CHOICES_MAX - 1) as usize;
    if choices.len() <= at {
        choices.resize_with(at + 1, Reading::default);
    }
    &mut choices[at]
}

impl Reading {
    fn read_part(&mut self, choice: u32, part: Part, losses: &mut Losses, out: &mut Vec<Event>) {
        match part {
            Part::Text { text, .. } => self.add(choice, Open::Text, text, out),
            Part::Thinking { text, signature } => {
                let alone = text.is_empty() && self.open != Some(Open::Thinking);
                self.add(choice, Open::Thinking, text, out);
                let Some(signature) = signature else { return };
                if alone {
                    self.open(choice, Some(Open::Thinking), Opened::Thinking, out);
                }
                let part = self.parts.saturating_sub(1);
                out.push(Event::Signed { choice, part, signature });
                // What is signed is whole.
                self.close(choice, out);
            }
            Part::ToolCall { id, name, arguments, signature } => {
                self.open(choice, None, Opened::ToolCall { id, name }, out);
                let part = self.parts.saturating_sub(1);
                out.push(Event::Added { choice, part, text: arguments });
                out.extend(signature.map(|signature| Event::Signed { choice, part, signature }));
                out.push(Event::Closed { choice, part });
            }
            Part::Media(_) => losses.note("inlineData", "other dialects stream no media"),
            Part::HiddenThinking { .. } | Part::Refusal(_) | Part::ToolResult { .. } => {}
        }
    }

    fn add(&mut self, choice: u32, to: Open, text: String, out: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(to) {
            let what = if to == Open::Text { Opened::Text } else { Opened::Thinking };
            self.open(choice, Some(to), what, out);
        }
        if to == Open::Text {
            self.bytes += text.len() as u64;
            self.chars += text.chars().count() as u64;
        }
        out.push(Event::Added { choice, part: self.parts.saturating_sub(1), text });
    }

    fn cite(&self, choice: u32, found: &Found, losses: &mut Losses, out: &mut Vec<Event>) {
        if self.open != Some(Open::Text) {
            return losses.note("groundingMetadata", NO_TEXT);
        }
        // Places in one of several texts are not known to be counted from its beginning.
        let bytes = if self.texts == 1 { self.bytes } else { u64::MAX };
        let citation = citation(found, bytes, self.chars);
        out.push(Event::Cited { choice, part: self.parts.saturating_sub(1), citation });
    }

    fn open(&mut self, choice: u32, open: Option<Open>, what: Opened, out: &mut Vec<Event>) {
        self.close(choice, out);
        self.open = open;
        if open == Some(Open::Text) {
            (self.bytes, self.chars) = (0, 0);
            self.texts += 1;
        }
        out.push(Event::Opened { choice, part: self.parts, what });
        self.parts += 1;
    }

    fn close(&mut self, choice: u32, out: &mut Vec<Event>) {
        if self.open.take().is_some() {
            out.push(Event::Closed { choice, part: self.parts.saturating_sub(1) });
        }
    }
}
