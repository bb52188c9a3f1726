//! The parts of one streamed choice, put one after the other.
//!
//! Chunks may bring pieces of several calls in turn, and text between them. Who reads events is told part by part: what
//! belongs to a part whose turn has not come waits until the one before it is whole. That a call is whole shows by its
//! arguments, which are one JSON document; the last one is whole when the choice ends.

use std::collections::VecDeque;

use crate::chat::{Event, Losses, Opened, Page};

/// Calls of one choice that are told apart.
const CALLS_MAX: usize = 128;

/// What a piece belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Text,
    Thinking,
    /// A thought that only its provider can read; it comes whole.
    Hidden,
    Refusal,
    /// A call, by its number in the choice.
    Call(usize),
}

/// What was read of one choice.
#[derive(Debug, Default)]
pub(super) struct Turns {
    choice: u32,
    /// Whether anything of it came.
    pub(super) seen: bool,
    /// Whether it said why it ended.
    pub(super) stopped: bool,
    /// Whether thoughts came in a field of their own: what their details repeat of them is not said again.
    pub(super) thinks_plainly: bool,
    /// Parts that were opened.
    parts: u32,
    open: Option<Place>,
    /// Characters of content so far, and those before the text that was opened last: citations count all of them.
    chars: u64,
    chars_before: u64,
    calls: Vec<Call>,
    waiting: VecDeque<Waiting>,
    /// Bytes of what waits, and of what calls are known by.
    kept_bytes: usize,
}

#[derive(Debug, Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: Document,
    /// Whether its part was closed.
    over: bool,
}

/// A piece whose turn has not come.
#[derive(Debug)]
struct Waiting {
    place: Place,
    text: String,
    signature: Option<String>,
}

/// Bytes that a piece takes however little is in it: an upstream may send nothing else.
const PIECE_BYTES: usize = size_of::<Waiting>();

/// How a call is named in a chunk; all of it may be left out.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) index: Option<u64>,
    pub(super) id: String,
    pub(super) name: String,
    /// Whether arguments come with it.
    pub(super) brings: bool,
}

impl Turns {
    pub(super) fn of(choice: u32) -> Self {
        Self { choice, ..Self::default() }
    }

    /// Bytes that are kept.
    pub(super) const fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// The call that a chunk speaks of, which may be a new one; `None` if there are too many. A call without an id of its own
    /// gets `made`, which is given its number.
    pub(super) fn call(
        &mut self,
        named: Named,
        made: impl FnOnce(usize) -> String,
        out: &mut Vec<Event>,
    ) -> Option<usize> {
        let known = match named.index {
            Some(index) => self.calls.iter().rposition(|call| call.index == Some(index)),
            None if !named.id.is_empty() => self.calls.iter().rposition(|call| call.id == named.id),
            None => self.calls.len().checked_sub(1),
        };
        // What names nothing begins nothing.
        let nameless = named.id.is_empty() && named.name.is_empty();
        let known = known.or_else(|| self.calls.len().checked_sub(1).filter(|_| nameless));
        if let Some(at) = known.filter(|at| !self.calls[*at].is_followed_by(&named)) {
            let call = &mut self.calls[at];
            if call.name.is_empty() && !named.name.is_empty() {
                self.kept_bytes += named.name.len();
                call.name = named.name;
                self.advance(false, out);
            }
            return Some(at);
        }
        let at = self.calls.len();
        if at >= CALLS_MAX {
            return None;
        }
        let Named { index, id, name, brings: _ } = named;
        let id = if id.is_empty() { made(at) } else { id };
        self.kept_bytes += id.len() + name.len();
        self.calls.push(Call { index, id, name, ..Call::default() });
        self.wait(Place::Call(at), "", None);
        self.advance(false, out);
        Some(at)
    }

    /// More of a part.
    pub(super) fn add(&mut self, place: Place, text: &str, out: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        self.seen = true;
        if let Place::Call(at) = place {
            if self.calls[at].over {
                belated(text, out);
                return;
            }
            self.calls[at].arguments.take(text);
        }
        if self.open == Some(place) {
            self.added(text, out);
        } else {
            self.wait(place, text, None);
        }
        self.advance(false, out);
    }

    /// A thought that only its provider can read.
    pub(super) fn hide(&mut self, data: &str, out: &mut Vec<Event>) {
        self.seen = true;
        self.wait(Place::Hidden, data, None);
        self.advance(false, out);
    }

    /// A page that the text that is open cites. Whether there is one.
    pub(super) fn cite(&mut self, page: Page, out: &mut Vec<Event>) -> bool {
        let is_open = self.open == Some(Place::Text);
        if is_open {
            let citation = page.from(self.chars_before).json();
            out.push(Event::Cited { choice: self.choice, part: self.part(), citation });
        }
        is_open
    }

    /// What proves a part. A thought that is proven is whole.
    pub(super) fn sign(&mut self, place: Place, signature: String, out: &mut Vec<Event>) {
        let over = matches!(place, Place::Call(at) if self.calls[at].over);
        if over {
            belated(&signature, out);
        } else if self.open == Some(place) {
            out.push(Event::Signed { choice: self.choice, part: self.part(), signature });
            if place == Place::Thinking {
                self.close_open(out);
            }
        } else {
            self.wait(place, "", Some(signature));
            self.advance(false, out);
        }
    }

    /// Nothing more comes: what waited is told, and the last part is closed.
    pub(super) fn close(&mut self, out: &mut Vec<Event>) {
        self.advance(true, out);
        self.close_open(out);
    }

    fn part(&self) -> u32 {
        self.parts.saturating_sub(1)
    }

    fn added(&mut self, text: &str, out: &mut Vec<Event>) {
        if !text.is_empty() {
            if self.open == Some(Place::Text) {
                self.chars += text.chars().count() as u64;
            }
            out.push(Event::Added { choice: self.choice, part: self.part(), text: text.to_owned() });
        }
    }

    fn wait(&mut self, place: Place, text: &str, signature: Option<String>) {
        self.kept_bytes += text.len() + signature.as_ref().map_or(0, String::len);
        let same = match place {
            Place::Call(_) => self.waiting.iter_mut().find(|one| one.place == place),
            Place::Text | Place::Thinking | Place::Refusal => {
                self.waiting.back_mut().filter(|one| one.place == place && one.signature.is_none())
            }
            Place::Hidden => None,
        };
        match same {
            Some(same) => {
                same.text.push_str(text);
                if let Some(more) = signature {
                    same.signature.get_or_insert_default().push_str(&more);
                }
            }
            None => {
                self.kept_bytes += PIECE_BYTES;
                self.waiting.push_back(Waiting { place, text: text.to_owned(), signature });
            }
        }
    }

    /// Tells what has its turn by now; everything, if nothing more comes.
    fn advance(&mut self, last: bool, out: &mut Vec<Event>) {
        while let Some(next) = self.waiting.front() {
            let is_held = match self.open {
                Some(Place::Call(at)) => !self.calls[at].arguments.is_whole(),
                Some(Place::Text | Place::Thinking | Place::Hidden | Place::Refusal) | None => false,
            };
            let is_blank = !self.calls.is_empty() && next.is_blank();
            // A call is told with its name, which may come later; a blank may be the beginning of a text.
            let is_early = is_blank && self.waiting.len() == 1;
            let is_unnamed = matches!(next.place, Place::Call(at) if self.calls[at].name.is_empty());
            if !last && (is_held || is_early || is_unnamed) {
                return;
            }
            let Some(next) = self.waiting.pop_front() else { return };
            self.kept_bytes -= PIECE_BYTES + next.text.len() + next.signature.as_ref().map_or(0, String::len);
            if is_unnamed {
                self.unnamed(&next, out);
            } else if !is_blank {
                // Engines put line breaks between calls, which are no text of the answer.
                self.tell(next, out);
            }
        }
    }

    fn tell(&mut self, next: Waiting, out: &mut Vec<Event>) {
        let Waiting { place, text, signature } = next;
        if self.open != Some(place) || place == Place::Hidden {
            self.close_open(out);
            let what = match place {
                Place::Text => Opened::Text,
                Place::Thinking => Opened::Thinking,
                Place::Refusal => Opened::Refusal,
                Place::Hidden => Opened::HiddenThinking { data: text.clone() },
                Place::Call(at) => {
                    let call = &self.calls[at];
                    Opened::ToolCall { id: call.id.clone(), name: call.name.clone() }
                }
            };
            self.open = Some(place);
            self.chars_before = self.chars;
            let part = self.parts;
            self.parts += 1;
            out.push(Event::Opened { choice: self.choice, part, what });
        }
        if place != Place::Hidden {
            self.added(&text, out);
        }
        let (choice, part) = (self.choice, self.part());
        let is_proven = signature.is_some();
        out.extend(signature.map(|signature| Event::Signed { choice, part, signature }));
        if is_proven && place == Place::Thinking {
            self.close_open(out);
        }
    }

    fn close_open(&mut self, out: &mut Vec<Event>) {
        let Some(open) = self.open.take() else { return };
        if let Place::Call(at) = open {
            self.calls[at].over = true;
        }
        out.push(Event::Closed { choice: self.choice, part: self.part() });
    }

    fn unnamed(&mut self, next: &Waiting, out: &mut Vec<Event>) {
        if let Place::Call(at) = next.place {
            self.calls[at].over = true;
        }
        let mut losses = Losses::default();
        losses.note("tool_calls", "the provider calls a tool and does not name it");
        out.push(Event::Lost(losses));
    }
}

/// Something of a call that was taken for whole.
fn belated(text: &str, out: &mut Vec<Event>) {
    if !text.trim().is_empty() {
        let mut losses = Losses::default();
        losses.note("tool_calls", "more came of a call behind the end of its arguments");
        out.push(Event::Lost(losses));
    }
}

impl Waiting {
    /// Whether it is white space alone.
    fn is_blank(&self) -> bool {
        let is_text = match self.place {
            Place::Text | Place::Thinking | Place::Refusal => true,
            Place::Hidden | Place::Call(_) => false,
        };
        is_text && self.signature.is_none() && self.text.trim().is_empty()
    }
}

impl Call {
    /// Whether what is named so is another call than this, though it has its index or none. Some engines give every piece of
    /// one call an id of its own, so that an id alone tells only behind whole arguments.
    fn is_followed_by(&self, named: &Named) -> bool {
        let is_whole = self.arguments.is_whole();
        if named.id == self.id {
            return false;
        }
        if !named.id.is_empty() {
            return is_whole || (!named.name.is_empty() && !self.name.is_empty());
        }
        !named.name.is_empty()
            && !self.name.is_empty()
            && (named.name != self.name || (is_whole && named.brings))
    }
}

/// A JSON document that comes in pieces, as far as it takes to tell its end.
#[derive(Debug, Default)]
struct Document {
    depth: usize,
    begun: bool,
    in_string: bool,
    escaped: bool,
}

impl Document {
    fn take(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => {
                    self.begun = true;
                    self.depth += 1;
                }
                b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Whether an object or array began and ended.
    const fn is_whole(&self) -> bool {
        self.begun && self.depth == 0 && !self.in_string
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d15_documents_end_where_they_end() {
        let whole = |pieces: &[&str]| {
            let mut document = Document::default();
            for piece in pieces {
                document.take(piece);
            }
            document.is_whole()
        };
        for pieces in
            [&["{}"][..], &["{\"a\":\"", "}\\", "\"{\"", "}"], &[" [1,", "{}] "], &["{\"a\":\"\\\\\"}"]]
        {
            assert!(whole(pieces), "{pieces:?}");
        }
        for pieces in [&[""][..], &["{"], &["{\"a\":\"}"], &["null"], &["{\"a\":\"\\\"}"], &["{}", "{"]] {
            assert!(!whole(pieces), "{pieces:?}");
        }
    }

    #[test]
    fn d15_ids_of_pieces_begin_no_call_and_names_do() {
        let one = |arguments: &str| {
            let mut call = Call { id: "a".to_owned(), name: "f".to_owned(), ..Call::default() };
            call.arguments.take(arguments);
            call
        };
        let named = |id: &str, name: &str| Named {
            id: id.to_owned(),
            name: name.to_owned(),
            brings: true,
            ..Named::default()
        };
        assert!(one("").is_followed_by(&named("b", "f")));
        assert!(one("{}").is_followed_by(&named("b", "")));
        assert!(one("{}").is_followed_by(&named("", "f")) && one("").is_followed_by(&named("", "g")));
        assert!(!one("{").is_followed_by(&named("b", "")), "an id for every piece");
        assert!(!one("{").is_followed_by(&named("", "f")), "its name for every piece");
        assert!(!one("{}").is_followed_by(&named("a", "f")) && !one("{}").is_followed_by(&named("", "")));
    }

    #[test]
    fn more_calls_than_can_be_told_apart_are_refused() {
        let (mut turns, mut out) = (Turns::of(0), Vec::new());
        let named = |at: usize| Named { id: format!("c{at}"), name: "f".to_owned(), ..Named::default() };
        let made = (0..1_000).take_while(|at| turns.call(named(*at), |_| String::new(), &mut out).is_some());
        assert_eq!(made.count(), CALLS_MAX);
    }
}
