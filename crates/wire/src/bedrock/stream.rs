//! What Bedrock answers, event by event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::chat::{Event, Losses, Opened, Stop};
use crate::dialect::{CONVERTED_DEPTH_MAX, ReadStream};
use crate::json::tree::{Members, Tree};
use crate::openai::sse::{EVENT_BYTES_MAX, StreamError, StreamFault};

use super::answer::{RUN_ALREADY, RUN_BY_PROVIDER, note_tier, stop_of, stop_sequence, tier, usage_of};
use super::events::{Damage, Decoder, MESSAGE_BYTES_MAX, Message};
use super::fault::status_of;

/// Reads a stream.
#[derive(Default)]
pub(super) struct Frames {
    decoder: Decoder,
    reading: Reading,
}

/// How far an answer was read.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations, each made once")]
struct Reading {
    started: bool,
    /// Parts that were opened.
    parts: u32,
    open: Option<Open>,
    stopped: bool,
    used: bool,
    /// It ended, properly or not; what follows is passed over.
    over: bool,
}

/// The part that is open.
struct Open {
    /// The block's index in the dialect.
    index: u64,
    what: What,
}

enum What {
    Text,
    Thinking,
    Call,
    /// A thought that only its provider can read, as far as it came.
    Hidden(Vec<u8>),
    /// A block that has no place in an answer.
    Lost,
}

impl ReadStream for Frames {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        let Self { decoder, reading } = self;
        if reading.over {
            return Ok(());
        }
        match decoder.push(bytes, |message| reading.take(message, events)) {
            Ok(()) => Ok(()),
            Err(Damage::TooLong) => Err(StreamFault::too_long(MESSAGE_BYTES_MAX)),
            Err(damage) => {
                reading.fail(format!("the provider's event stream is damaged: {damage}"), events);
                Ok(())
            }
        }
    }
}

impl Reading {
    fn take(&mut self, message: &Message<'_>, out: &mut Vec<Event>) {
        if self.over {
            return;
        }
        match message.text(":message-type") {
            Some("exception") => {
                let kind = message.text(":exception-type").unwrap_or("exception");
                let body = std::str::from_utf8(message.payload).ok();
                let body = body.and_then(|text| Tree::parse(text, CONVERTED_DEPTH_MAX).ok());
                let said = body.as_ref().and_then(|body| {
                    body.get("message").or_else(|| body.get("Message"))?.text().map(str::to_owned)
                });
                self.failed(kind, said, out);
            }
            Some("error") => {
                let kind = message.text(":error-code").unwrap_or("error");
                self.failed(kind, message.text(":error-message").map(str::to_owned), out);
            }
            Some(_) | None => {
                let text = std::str::from_utf8(message.payload).ok();
                match text.and_then(|text| Tree::parse(text, CONVERTED_DEPTH_MAX).ok()) {
                    Some(body) => {
                        self.event(message.text(":event-type").unwrap_or_default(), body.into_members(), out);
                    }
                    None => self.fail("an event of the provider's stream is no JSON".to_owned(), out),
                }
            }
        }
    }

    fn fail(&mut self, message: String, out: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.over, true) {
            out.push(Event::Failed(StreamError { message: Some(message), ..StreamError::default() }));
        }
    }

    fn failed(&mut self, kind: &str, message: Option<String>, out: &mut Vec<Event>) {
        let cut = |text: &str, most: usize| text[..text.floor_char_boundary(most)].to_owned();
        self.over = true;
        out.push(Event::Failed(StreamError {
            status: status_of(kind),
            kind: Some(cut(kind, 64)),
            code: Some(cut(kind, 64)),
            message: message.map(|message| cut(&message, 512)),
        }));
    }

    fn event(&mut self, kind: &str, mut body: Members<'_>, out: &mut Vec<Event>) {
        match kind {
            "messageStart" => self.start(out),
            "contentBlockStart" => {
                let index = body.take("contentBlockIndex").and_then(|index| index.count()).unwrap_or(0);
                let mut start = body.take("start").map(Tree::into_members).unwrap_or_default();
                if let Some(call) = start.take("toolUse") {
                    let mut call = call.into_members();
                    if call.take_text("type").as_deref() == Some(RUN_BY_PROVIDER) {
                        self.open(index, What::Lost, None, out);
                        return lost(format!("contentBlock[{index}].toolUse"), RUN_ALREADY, out);
                    }
                    let id = call.take_text("toolUseId").unwrap_or_default();
                    let name = call.take_text("name").unwrap_or_default();
                    self.open(index, What::Call, Some(Opened::ToolCall { id, name }), out);
                } else if let Some((name, _)) = start.rest().next() {
                    self.lose(index, &name, out);
                }
            }
            "contentBlockDelta" => {
                let index = body.take("contentBlockIndex").and_then(|index| index.count()).unwrap_or(0);
                self.delta(index, body.take("delta").map(Tree::into_members).unwrap_or_default(), out);
            }
            "contentBlockStop" => self.close(out),
            "messageStop" => {
                self.close(out);
                let stop = body.take_text("stopReason").map_or(Stop::Other, |word| stop_of(&word));
                let sequence = stop_sequence(&mut body, Some(stop));
                if !std::mem::replace(&mut self.stopped, true) {
                    out.push(Event::Stopped { choice: 0, stop, sequence });
                }
                self.end(out);
            }
            "metadata" => {
                let mut usage = body.take("usage").as_ref().map(usage_of);
                note_tier(usage.as_mut(), tier(&mut body).as_deref());
                out.extend(usage.map(Event::Used));
                if body.take("trace").is_some() {
                    lost("trace".to_owned(), "only Bedrock traces", out);
                }
                self.used = true;
                self.end(out);
            }
            // What is to come, and events that only say that the connection stands.
            _ => {}
        }
    }

    fn start(&mut self, out: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                id: String::new(),
                model: String::new(),
                created_s: None,
                usage: None,
            });
        }
    }

    /// An answer is over once it stopped and its usage came, which is the last thing that comes.
    fn end(&mut self, out: &mut Vec<Event>) {
        if self.stopped && self.used && !std::mem::replace(&mut self.over, true) {
            out.push(Event::Ended);
        }
    }

    fn delta(&mut self, index: u64, mut delta: Members<'_>, out: &mut Vec<Event>) {
        if let Some(text) = delta.take_text("text") {
            self.add(index, &What::Text, text, out);
        } else if let Some(call) = delta.take("toolUse") {
            let input = call.get("input").and_then(Tree::text).unwrap_or_default();
            self.add(index, &What::Call, input.to_owned(), out);
        } else if let Some(thought) = delta.take("reasoningContent") {
            self.thought(index, thought.into_members(), out);
        } else if let Some(citation) = delta.take("citation") {
            let Some(Open { what: What::Text, .. }) = self.open_at(index) else {
                self.open(index, What::Text, Some(Opened::Text), out);
                return self.cite(&citation, out);
            };
            self.cite(&citation, out);
        } else if let Some((name, _)) = delta.rest().next() {
            self.lose(index, &name, out);
        }
    }

    fn cite(&mut self, citation: &Tree<'_>, out: &mut Vec<Event>) {
        out.push(Event::Cited { choice: 0, part: self.part(), citation: citation.raw().to_owned() });
    }

    fn thought(&mut self, index: u64, mut thought: Members<'_>, out: &mut Vec<Event>) {
        if let Some(text) = thought.take_text("text") {
            self.add(index, &What::Thinking, text, out);
        } else if let Some(signature) = thought.take_text("signature") {
            if !matches!(self.open_at(index), Some(Open { what: What::Thinking, .. })) {
                self.open(index, What::Thinking, Some(Opened::Thinking), out);
            }
            out.push(Event::Signed { choice: 0, part: self.part(), signature });
        } else if let Some(data) = thought.take_text("redactedContent") {
            if !matches!(self.open_at(index), Some(Open { what: What::Hidden(_), .. })) {
                self.open(index, What::Hidden(Vec::new()), None, out);
            }
            self.hide(&data, out);
        }
    }

    /// Bytes come in Base64 piece by piece, which cannot simply be put together.
    fn hide(&mut self, data: &str, out: &mut Vec<Event>) {
        let Some(Open { what: What::Hidden(known), index }) = &mut self.open else { return };
        let index = *index;
        match STANDARD.decode(data) {
            Ok(more) if known.len() + more.len() <= EVENT_BYTES_MAX => known.extend_from_slice(&more),
            Ok(_) | Err(_) => {
                // Half of it proves nothing.
                self.open = Some(Open { index, what: What::Lost });
                let why = "it is too long, or no Base64";
                lost(format!("contentBlock[{index}].reasoningContent"), why, out);
            }
        }
    }

    fn open_at(&self, index: u64) -> Option<&Open> {
        self.open.as_ref().filter(|open| open.index == index)
    }

    fn part(&self) -> u32 {
        self.parts.saturating_sub(1)
    }

    fn add(&mut self, index: u64, to: &What, text: String, out: &mut Vec<Event>) {
        let same = |open: &Open| std::mem::discriminant(&open.what) == std::mem::discriminant(to);
        if text.is_empty() {
            return;
        }
        if !self.open_at(index).is_some_and(same) {
            match to {
                What::Text => self.open(index, What::Text, Some(Opened::Text), out),
                What::Thinking => self.open(index, What::Thinking, Some(Opened::Thinking), out),
                // Arguments of a call that nobody began belong nowhere.
                What::Call | What::Hidden(_) | What::Lost => return self.lose(index, "toolUse", out),
            }
        }
        out.push(Event::Added { choice: 0, part: self.part(), text });
    }

    fn open(&mut self, index: u64, what: What, opened: Option<Opened>, out: &mut Vec<Event>) {
        self.start(out);
        self.close(out);
        self.open = Some(Open { index, what });
        if let Some(what) = opened {
            out.push(Event::Opened { choice: 0, part: self.parts, what });
            self.parts = self.parts.saturating_add(1);
        }
    }

    fn lose(&mut self, index: u64, name: &str, out: &mut Vec<Event>) {
        if matches!(self.open_at(index), Some(Open { what: What::Lost, .. })) {
            return;
        }
        self.open(index, What::Lost, None, out);
        lost(format!("contentBlock[{index}].{name}"), "only Converse answers with such a block", out);
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        let Some(open) = self.open.take() else { return };
        match open.what {
            What::Text | What::Thinking | What::Call => {}
            What::Hidden(data) => {
                let what = Opened::HiddenThinking { data: STANDARD.encode(data) };
                out.push(Event::Opened { choice: 0, part: self.parts, what });
                self.parts = self.parts.saturating_add(1);
            }
            What::Lost => return,
        }
        out.push(Event::Closed { choice: 0, part: self.part() });
    }
}

fn lost(field: String, why: &'static str, out: &mut Vec<Event>) {
    let mut losses = Losses::default();
    losses.note(field, why);
    out.push(Event::Lost(losses));
}

#[cfg(test)]
mod tests {
    use super::super::events::{encode, encode_event, encode_exception};
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Event> {
        let (mut frames, mut events) = (Frames::default(), Vec::new());
        frames.push(bytes, &mut events).unwrap();
        events
    }

    fn stream(events: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (kind, payload) in events {
            encode_event(kind, payload, &mut out);
        }
        out
    }

    #[test]
    fn d3_an_exception_in_the_stream_is_an_error_and_the_end() {
        let mut bytes = stream(&[
            ("messageStart", r#"{"role":"assistant"}"#),
            ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"a"}}"#),
        ]);
        encode_exception("throttlingException", r#"{"message":"Too many tokens"}"#, &mut bytes);
        bytes.extend(stream(&[("messageStop", r#"{"stopReason":"end_turn"}"#), ("metadata", "{}")]));
        let events = read(&bytes);
        let Some(Event::Failed(error)) = events.last() else { panic!("{events:?}") };
        assert_eq!(error.status, Some(429));
        assert_eq!(error.code.as_deref(), Some("throttlingException"));
        assert_eq!(error.message.as_deref(), Some("Too many tokens"));
        assert!(!events.iter().any(|event| matches!(event, Event::Ended | Event::Stopped { .. })));
    }

    #[test]
    fn d3_an_error_message_is_told_by_its_headers() {
        use super::super::events::Value;
        let mut bytes = Vec::new();
        let headers = [
            (":message-type", Value::Text("error")),
            (":error-code", Value::Text("InternalFailure")),
            (":error-message", Value::Text("no")),
        ];
        encode(&headers, b"", &mut bytes);
        let [Event::Failed(error)] = &read(&bytes)[..] else { panic!() };
        assert_eq!(
            (error.code.as_deref(), error.message.as_deref(), error.status),
            (Some("InternalFailure"), Some("no"), Some(500))
        );
    }

    #[test]
    fn d4_what_cannot_be_read_is_an_error_event() {
        for bytes in [stream(&[("messageStart", "{")]), vec![7; 64]] {
            let events = read(&bytes);
            assert!(matches!(events[..], [Event::Failed(_)]), "{events:?}");
        }
    }

    #[test]
    fn d5_a_stream_without_its_usage_has_no_end() {
        let events = read(&stream(&[
            ("messageStart", r#"{"role":"assistant"}"#),
            ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"text":"a"}}"#),
            ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
            ("messageStop", r#"{"stopReason":"end_turn"}"#),
        ]));
        assert!(matches!(events.last(), Some(Event::Stopped { stop: Stop::End, .. })), "{events:?}");
    }

    #[test]
    fn d15_calls_keep_their_places_and_are_never_repaired() {
        let events = read(&stream(&[
            (
                "contentBlockStart",
                r#"{"contentBlockIndex":3,"start":{"toolUse":{"toolUseId":"a","name":"f"}}}"#,
            ),
            ("contentBlockDelta", r#"{"contentBlockIndex":3,"delta":{"toolUse":{"input":"{\"x\":"}}}"#),
            (
                "contentBlockStart",
                r#"{"contentBlockIndex":5,"start":{"toolUse":{"toolUseId":"b","name":"g"}}}"#,
            ),
            ("contentBlockStop", r#"{"contentBlockIndex":5}"#),
            ("contentBlockDelta", r#"{"contentBlockIndex":9,"delta":{"toolUse":{"input":"1"}}}"#),
            ("messageStop", r#"{"stopReason":"max_tokens"}"#),
        ]));
        let told: Vec<String> = events
            .iter()
            .map(|event| match event {
                Event::Opened { part, what: Opened::ToolCall { id, .. }, .. } => format!("{part} {id}"),
                Event::Added { part, text, .. } => format!("{part} + {text}"),
                Event::Closed { part, .. } => format!("{part} ."),
                Event::Stopped { stop, .. } => format!("{stop:?}"),
                Event::Lost(losses) => losses.named()[0].field.clone(),
                Event::Started { .. } => "Started".to_owned(),
                Event::Opened { .. }
                | Event::Signed { .. }
                | Event::Cited { .. }
                | Event::Likely { .. }
                | Event::Used(_)
                | Event::Failed(_)
                | Event::Ping
                | Event::Ended => format!("{event:?}"),
            })
            .collect();
        let expected =
            ["Started", "0 a", "0 + {\"x\":", "0 .", "1 b", "1 .", "contentBlock[9].toolUse", "Length"];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_tool_that_the_provider_ran_is_not_called_again() {
        let events = read(&stream(&[
            (
                "contentBlockStart",
                r#"{"contentBlockIndex":0,"start":{"toolUse":{"toolUseId":"a","name":"g","type":"server_tool_use"}}}"#,
            ),
            ("contentBlockDelta", r#"{"contentBlockIndex":0,"delta":{"toolUse":{"input":"{}"}}}"#),
            ("contentBlockStop", r#"{"contentBlockIndex":0}"#),
            ("contentBlockStart", r#"{"contentBlockIndex":1,"start":{"toolResult":{"toolUseId":"a"}}}"#),
            ("contentBlockDelta", r#"{"contentBlockIndex":1,"delta":{"toolResult":[{"text":"b"}]}}"#),
        ]));
        let [Event::Started { .. }, Event::Lost(call), Event::Lost(result)] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(call.named()[0].field, "contentBlock[0].toolUse");
        assert_eq!(result.named()[0].field, "contentBlock[1].toolResult");
    }

    #[test]
    fn d17_events_of_no_known_kind_are_passed_over() {
        assert_eq!(read(&stream(&[("<script>", r#"{"a":"</script>"}"#)])), []);
    }

    #[test]
    fn hidden_thoughts_in_pieces_become_one_within_bounds() {
        let piece = |data: &[u8]| {
            format!(
                r#"{{"contentBlockIndex":0,"delta":{{"reasoningContent":{{"redactedContent":"{}"}}}}}}"#,
                STANDARD.encode(data)
            )
        };
        let stop = ("contentBlockStop", r#"{"contentBlockIndex":0}"#);
        let (one, two) = (piece(b"a"), piece(b"bc"));
        let events = read(&stream(&[("contentBlockDelta", &one), ("contentBlockDelta", &two), stop]));
        let expected = Opened::HiddenThinking { data: STANDARD.encode(b"abc") };
        assert!(matches!(&events[1], Event::Opened { what, .. } if *what == expected), "{events:?}");
        let big = piece(&vec![0; EVENT_BYTES_MAX / 2 + 1]);
        let events = read(&stream(&[("contentBlockDelta", &big), ("contentBlockDelta", &big), stop]));
        assert!(matches!(events[..], [Event::Started { .. }, Event::Lost(_)]), "{}", events.len());
    }
}
