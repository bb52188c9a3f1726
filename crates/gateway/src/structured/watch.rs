//! A streamed answer that is checked when it has ended: its text is kept while it passes, up to a bound.

use std::collections::BTreeMap;
use std::sync::Arc;

use pointsman_wire::chat::{Event, Opened};
use pointsman_wire::dialect::ReadStream;

use super::{Schema, is_whole};

/// Bytes of an answer that are kept; a longer one is not checked.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// Keeps the text of one streamed answer.
pub struct Watch {
    schema: Arc<Schema>,
    /// Reads the stream, where nobody else does.
    reader: Option<Box<dyn ReadStream>>,
    events: Vec<Event>,
    choices: BTreeMap<u32, Said>,
    kept_bytes: usize,
    /// Whether the answer is too long, or cannot be read.
    blind: bool,
    ended: bool,
}

#[derive(Default)]
struct Said {
    text: String,
    /// Whether the part that is open is text.
    in_text: bool,
    /// Whether it is something else than an answer in text, or was cut short.
    other: bool,
    stopped: bool,
}

impl Watch {
    /// A watch on an answer that has not begun; with a `reader` it reads the bytes itself.
    pub fn new(schema: Arc<Schema>, reader: Option<Box<dyn ReadStream>>) -> Self {
        Self {
            schema,
            reader,
            events: Vec::new(),
            choices: BTreeMap::new(),
            kept_bytes: 0,
            blind: false,
            ended: false,
        }
    }

    /// Takes the next bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        let Some(reader) = self.reader.as_mut().filter(|_| !self.blind) else { return };
        let mut events = std::mem::take(&mut self.events);
        self.blind |= reader.push(bytes, &mut events).is_err();
        events.drain(..).for_each(|event| self.take(&event));
        self.events = events;
    }

    /// Takes the next event in.
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Opened { choice, what, .. } => {
                let said = self.choices.entry(*choice).or_default();
                said.in_text = *what == Opened::Text;
                said.other |= matches!(what, Opened::ToolCall { .. } | Opened::Refusal);
            }
            Event::Added { choice, text, .. } => {
                self.kept_bytes += text.len();
                self.blind |= self.kept_bytes > KEPT_BYTES_MAX;
                if let Some(said) = self.choices.get_mut(choice).filter(|said| said.in_text && !self.blind) {
                    said.text.push_str(text);
                }
            }
            Event::Stopped { choice, stop, .. } => {
                let said = self.choices.entry(*choice).or_default();
                said.stopped = true;
                said.other |= !is_whole(*stop);
            }
            Event::Ended => self.ended = true,
            Event::Started { .. }
            | Event::Signed { .. }
            | Event::Cited { .. }
            | Event::Likely { .. }
            | Event::Closed { .. }
            | Event::Used(_)
            | Event::Failed(_)
            | Event::Ping
            | Event::Lost(_) => {}
        }
    }

    /// Whether the answer came to its end and does not fit. Asked once, for it takes what was kept.
    pub fn is_misfit(&mut self) -> bool {
        if let Some(reader) = self.reader.as_mut().filter(|_| !self.blind) {
            let mut events = std::mem::take(&mut self.events);
            reader.finish(&mut events);
            for event in &events {
                self.take(event);
            }
        }
        let choices = std::mem::take(&mut self.choices);
        if self.blind || !self.ended {
            return false;
        }
        let whole = choices.into_values().filter(|said| said.stopped && !said.other);
        whole.map(|said| said.text).any(|text| self.schema.check_text(text).is_some())
    }
}
