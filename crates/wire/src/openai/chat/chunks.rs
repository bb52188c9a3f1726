//! A stream of chat completion chunks, read.

use crate::chat::{CHOICES_MAX, Event, Losses, Page, Stop, Usage};
use crate::dialect::{CONVERTED_DEPTH_MAX, ReadStream};
use crate::events::Events;
use crate::json::tree::{Members, Tree};
use crate::openai::sse::{StreamError, StreamFault, error_of};
use crate::openai::usage::is_usual_tier;

use super::provider::is_error;
use super::said::NO_PAGE;
use super::turns::{Named, Place, Turns};
use super::words::{NO_SUCH_REASON, call_id, logprobs_of, pieces_of, signature_of, stop_of, usage_of};

/// Bytes of all parts of one answer that may wait for their turn.
const WAITING_BYTES_MAX: usize = 8 << 20;

/// Reads chunks.
#[derive(Default)]
pub(super) struct Chunks {
    events: Events,
    started: bool,
    /// The answer's id.
    id: String,
    /// Whether nothing more counts: the provider said that it is over, or failed.
    over: bool,
    choices: Vec<Turns>,
}

impl ReadStream for Chunks {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        let mut cut = std::mem::take(&mut self.events);
        let pushed = cut.push(bytes, |name, data| self.take(name, data, events));
        self.events = cut;
        pushed
    }

    /// Some providers leave `[DONE]` out, or the blank line behind their last event.
    fn finish(&mut self, events: &mut Vec<Event>) {
        let mut cut = std::mem::take(&mut self.events);
        cut.end(|name, data| {
            let is_whole = is_done(data) || Tree::parse(data, CONVERTED_DEPTH_MAX).is_ok();
            if is_whole {
                self.take(name, data, events);
            }
        });
        self.end(events);
    }
}

fn is_done(data: &str) -> bool {
    data.trim() == "[DONE]"
}

impl Chunks {
    fn take(&mut self, name: &str, data: &str, out: &mut Vec<Event>) {
        if self.over {
            return;
        }
        if is_done(data) {
            self.end(out);
            return;
        }
        let Ok(chunk) = Tree::parse(data, CONVERTED_DEPTH_MAX) else {
            self.fail("an event of the provider's stream is no JSON", out);
            return;
        };
        if name == "error" || is_error(&chunk) {
            self.over = true;
            out.push(Event::Failed(error_of(data.as_bytes())));
            return;
        }
        self.read(chunk.into_members(), out);
        if self.choices.iter().map(Turns::kept_bytes).sum::<usize>() > WAITING_BYTES_MAX {
            self.fail("the provider's stream mixes up more parts than can be put in order", out);
        }
    }

    /// The provider says no more. Only an answer whose choices all said why they ended is complete; another broke off, and
    /// nothing is made up for it.
    fn end(&mut self, out: &mut Vec<Event>) {
        let mut seen = self.choices.iter().filter(|turns| turns.seen).peekable();
        let is_complete = seen.peek().is_some() && seen.all(|turns| turns.stopped);
        if !std::mem::replace(&mut self.over, true) && is_complete {
            for turns in &mut self.choices {
                turns.close(out);
            }
            out.push(Event::Ended);
        }
    }

    fn fail(&mut self, why: &str, out: &mut Vec<Event>) {
        self.over = true;
        out.push(Event::Failed(StreamError { message: Some(why.to_owned()), ..StreamError::default() }));
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
            self.id.clone_from(&id);
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
                let mut choice = choice.into_members();
                // Moonshot says it there.
                let within = choice.take("usage").as_ref().map(usage_of);
                usage = usage.or(within);
                self.read_choice(index, choice, out);
            }
        }
        out.extend(usage.filter(|usage| *usage != Usage::default()).map(Event::Used));
    }

    fn read_choice(&mut self, choice: u32, mut from: Members<'_>, out: &mut Vec<Event>) {
        let mut delta = from.take("delta").map(Tree::into_members).unwrap_or_default();
        let turns = self.turns(choice);
        turns.seen = true;
        read_thoughts(turns, &mut delta, out);
        for (is_thought, text) in delta.take("content").as_ref().map(pieces_of).unwrap_or_default() {
            turns.add(if is_thought { Place::Thinking } else { Place::Text }, &text, out);
        }
        for annotation in delta.take("annotations").map(Tree::into_items).unwrap_or_default() {
            if !Page::of(&annotation).is_some_and(|page| turns.cite(page, out)) {
                let mut losses = Losses::default();
                losses.note("message.annotations", NO_PAGE);
                out.push(Event::Lost(losses));
            }
        }
        turns.add(Place::Refusal, &delta.take_text("refusal").unwrap_or_default(), out);
        for call in delta.take("tool_calls").map(Tree::into_items).unwrap_or_default() {
            self.read_call(choice, call.into_members(), out);
        }
        let logprobs = logprobs_of(from.take("logprobs").as_ref());
        if !logprobs.is_empty() {
            out.push(Event::Likely { choice, logprobs });
        }
        // Some send an empty one with every chunk.
        let reason = from.take_text("finish_reason").filter(|reason| !reason.is_empty());
        let turns = self.turns(choice);
        if let Some(reason) = reason {
            turns.close(out);
            if !std::mem::replace(&mut turns.stopped, true) {
                let stop = stop_of(&reason);
                if stop == Stop::Other {
                    let mut losses = Losses::default();
                    losses.note(format!("choices[{choice}].finish_reason"), NO_SUCH_REASON);
                    out.push(Event::Lost(losses));
                }
                out.push(Event::Stopped { choice, stop, sequence: None });
            }
        }
    }

    fn read_call(&mut self, choice: u32, mut call: Members<'_>, out: &mut Vec<Event>) {
        if self.over {
            return;
        }
        let mut function = call.take("function").map(Tree::into_members).unwrap_or_default();
        let arguments = function.take_text("arguments").unwrap_or_default();
        let named = Named {
            index: call.take("index").and_then(|index| index.count()),
            id: call.take_text("id").unwrap_or_default(),
            name: function.take_text("name").unwrap_or_default(),
            brings: !arguments.is_empty(),
        };
        let answer = self.id.clone();
        let turns = self.turns(choice);
        let Some(at) = turns.call(named, |at| call_id(&answer, choice as usize, at), out) else {
            return self.fail("the provider's answer has more calls than can be told apart", out);
        };
        turns.add(Place::Call(at), &arguments, out);
        if let Some(signature) = call.take("extra_content").as_ref().and_then(signature_of) {
            turns.sign(Place::Call(at), signature, out);
        }
    }

    fn turns(&mut self, choice: u32) -> &mut Turns {
        let at = choice as usize;
        while self.choices.len() <= at {
            let next = u32::try_from(self.choices.len()).unwrap_or(choice);
            self.choices.push(Turns::of(next));
        }
        &mut self.choices[at]
    }
}

/// What the model thinks, by whichever name it comes.
fn read_thoughts(turns: &mut Turns, delta: &mut Members<'_>, out: &mut Vec<Event>) {
    let thought = delta.take_text("reasoning_content").filter(|thought| !thought.is_empty());
    let thought = delta.take_text("reasoning").filter(|thought| !thought.is_empty()).or(thought);
    turns.thinks_plainly |= thought.is_some();
    turns.add(Place::Thinking, &thought.unwrap_or_default(), out);
    for detail in delta.take("reasoning_details").map(Tree::into_items).unwrap_or_default() {
        let text = |name: &str| detail.get(name).and_then(Tree::text);
        if let Some(data) = text("data") {
            turns.hide(data, out);
        }
        if let Some(thought) = text("text").filter(|_| !turns.thinks_plainly) {
            turns.add(Place::Thinking, thought, out);
        }
        if let Some(signature) = text("signature").filter(|signature| !signature.is_empty()) {
            // A thought may be kept back, and only proven.
            turns.sign(Place::Thinking, signature.to_owned(), out);
        }
    }
}
