//! The end of an answer that is relayed as bytes: what was used stands there, whatever comes before it.

use memchr::memmem;

use crate::openai::usage::{Usage, usage_of_body};
use crate::rerank;

/// Bytes of the end that are kept.
const KEPT_BYTES: usize = 16 << 10;
/// The last event of some streams, in which nothing is told.
const DONE: &[u8] = b"data: [DONE]";

/// What an answer is, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// JSON, in one piece.
    Json,
    /// Server-sent events.
    Events,
    /// A sound, an image, a text: nothing is told of what was used.
    Other,
}

impl Kind {
    /// What a media type says.
    pub fn of(content_type: &[u8]) -> Self {
        let is = |kind: &[u8]| content_type.get(..kind.len()).is_some_and(|it| it.eq_ignore_ascii_case(kind));
        if is(b"text/event-stream") {
            Self::Events
        } else if is(b"application/json") {
            Self::Json
        } else {
            Self::Other
        }
    }
}

/// The end of an answer.
#[derive(Debug)]
pub struct Tail {
    kind: Kind,
    kept: Vec<u8>,
    /// Whether all that came is kept.
    whole: bool,
}

impl Tail {
    /// Of an answer of which nothing came yet.
    pub const fn new(kind: Kind) -> Self {
        Self { kind, kept: Vec::new(), whole: true }
    }

    /// Whether it is an event stream.
    pub fn streams(&self) -> bool {
        self.kind == Kind::Events
    }

    /// The next bytes came.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.kind == Kind::Other {
            return;
        }
        let from = bytes.len().saturating_sub(KEPT_BYTES);
        self.kept.extend_from_slice(&bytes[from..]);
        self.whole &= from == 0;
        // Cut seldom, so that small pieces are not moved about again and again.
        if self.kept.len() > 2 * KEPT_BYTES {
            self.kept.drain(..self.kept.len() - KEPT_BYTES);
            self.whole = false;
        }
    }

    /// Whether what came ends inside an event.
    pub fn is_inside_event(&self) -> bool {
        let ended =
            self.kept.is_empty() || [&b"\n\n"[..], b"\r\n\r\n"].iter().any(|end| self.kept.ends_with(end));
        self.streams() && !ended
    }

    /// What was used, if the answer says.
    pub fn usage(&self) -> Option<Usage> {
        let mut told = self.kept.trim_ascii_end();
        if self.streams() && told.ends_with(DONE) {
            told = told[..told.len() - DONE.len()].trim_ascii_end();
        }
        usage_of_body(told).or_else(|| self.usage_of_rerank())
    }

    /// Cohere counts beside the answer.
    fn usage_of_rerank(&self) -> Option<Usage> {
        let text = std::str::from_utf8(&self.kept).ok().filter(|_| self.whole && !self.streams())?;
        memmem::find(text.as_bytes(), b"\"meta\"")?;
        let tokens_in = rerank::read_answer(text).ok()?.tokens?;
        Some(Usage { tokens_in, ..Usage::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found at the end of an answer, however it is cut.
    fn check(content_type: &str, answer: &[u8], expected: Option<(u64, u64)>) {
        for piece_bytes in [1, 7, 1 << 20] {
            let mut tail = Tail::new(Kind::of(content_type.as_bytes()));
            for piece in answer.chunks(piece_bytes) {
                tail.push(piece);
                assert!(tail.kept.len() <= 2 * KEPT_BYTES);
            }
            let got = tail.usage().map(|usage| (usage.tokens_in, usage.tokens_out));
            assert_eq!(got, expected, "{} bytes in pieces of {piece_bytes}", answer.len());
        }
    }

    #[test]
    fn usage_stands_at_the_end_of_answers_of_any_length() {
        let image = "A".repeat(100_000);
        let usage = r#""usage":{"input_tokens":50,"output_tokens":4160,"total_tokens":4210}"#;
        let json = format!(r#"{{"created":1,"data":[{{"b64_json":"{image}"}}],{usage}}}"#);
        check("application/json", json.as_bytes(), Some((50, 4160)));
        check("application/json", br#"{"text":"x","usage":{"type":"duration","seconds":9}}"#, None);
        check("audio/mpeg", json.as_bytes(), None);
        let event = format!(
            "event: e\ndata: {{\"type\":\"image_generation.completed\",\"b64_json\":\"{image}\",{usage}}}\n\n"
        );
        check("text/event-stream; charset=utf-8", event.as_bytes(), Some((50, 4160)));
        check("Text/Event-Stream", format!("{event}data: [DONE]\n\n").as_bytes(), Some((50, 4160)));
        check("application/json", br#"{"results":[],"usage":{"total_tokens":815}}"#, Some((815, 0)));
        let cohere = br#"{"id":"x","results":[],"meta":{"billed_units":{"search_units":1},"tokens":{"input_tokens":7}}}"#;
        check("application/json", cohere, Some((7, 0)));
        check("application/json", b"\xff\"usage\"", None);
    }

    #[test]
    fn events_end_with_a_blank_line() {
        let inside = |text: &str, kind: &str| {
            let mut tail = Tail::new(Kind::of(kind.as_bytes()));
            tail.push(text.as_bytes());
            tail.is_inside_event()
        };
        assert!(inside("data: {}\n", "text/event-stream"));
        assert!(
            !inside("data: {}\n\n", "text/event-stream") && !inside("data: {}\r\n\r\n", "text/event-stream")
        );
        assert!(!inside("", "text/event-stream") && !inside("{", "application/json"));
    }
}
