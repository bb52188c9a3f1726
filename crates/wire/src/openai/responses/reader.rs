//! Answers of providers of the Responses API, read for what they say in text: they are relayed as they came, and held to what
//! their requests ask of them.

use crate::chat::{Answer, Choice, Event, Format, Losses, Opened, Part, Stop, Usage};
use crate::dialect::{CONVERTED_DEPTH_MAX, ReadStream};
use crate::events::Events;
use crate::json::JsonError;
use crate::json::tree::{Members, Tree};
use crate::openai::sse::{StreamError, StreamFault};

use super::conversation::read_format;

/// What a request holds its answer to, whatever else it says.
pub fn format_of(body: Tree<'_>) -> Format {
    let mut text = body.into_members().take("text").map(Tree::into_members).unwrap_or_default();
    // What is wrong with it is for the provider to say.
    read_format(&mut text, &mut Losses::default()).unwrap_or_default()
}

/// What the body of an answer says.
pub fn answer(body: &str) -> Result<Answer, JsonError> {
    let mut body = Tree::parse(body, CONVERTED_DEPTH_MAX)?.into_members();
    let mut parts = Vec::new();
    for item in body.take("output").map(Tree::into_items).unwrap_or_default() {
        read_item(item, &mut parts);
    }
    let calls = parts.iter().any(|part| matches!(part, Part::ToolCall { .. }));
    let stop = stop_of(&mut body, calls);
    Ok(Answer {
        id: body.take_text("id").unwrap_or_default(),
        model: body.take_text("model").unwrap_or_default(),
        created_s: body.take("created_at").and_then(|at| at.count()),
        choices: vec![Choice { parts, stop, ..Choice::default() }],
        usage: body.take("usage").as_ref().and_then(usage_of),
        service_tier: body.take_text("service_tier"),
        ..Answer::default()
    })
}

/// A stream, from its beginning.
pub fn stream() -> Box<dyn ReadStream> {
    Box::new(Reader::default())
}

fn read_item(item: Tree<'_>, parts: &mut Vec<Part>) {
    let mut item = item.into_members();
    let kind = item.take_text("type").unwrap_or_default();
    if kind == "message" {
        for content in item.take("content").map(Tree::into_items).unwrap_or_default() {
            let mut content = content.into_members();
            match content.take_text("type").as_deref() {
                Some("output_text") => parts.push(Part::text(content.take_text("text").unwrap_or_default())),
                Some("refusal") => {
                    parts.push(Part::Refusal(content.take_text("refusal").unwrap_or_default()));
                }
                Some(_) | None => {}
            }
        }
    } else if is_call(&kind) {
        parts.push(Part::ToolCall {
            id: item.take_text("call_id").unwrap_or_default(),
            name: item.take_text("name").unwrap_or_default(),
            arguments: item.take_text("arguments").unwrap_or_else(|| "{}".to_owned()),
            signature: None,
        });
    }
}

/// Whether an item asks the client for something, instead of what the provider does by itself.
fn is_call(kind: &str) -> bool {
    matches!(
        kind,
        "function_call"
            | "custom_tool_call"
            | "computer_call"
            | "local_shell_call"
            | "shell_call"
            | "apply_patch_call"
            | "mcp_approval_request"
    )
}

/// Why an answer ended. One that goes on elsewhere, or failed, is none that is whole.
fn stop_of(body: &mut Members<'_>, calls: bool) -> Option<Stop> {
    let reason =
        body.take("incomplete_details").and_then(|details| Some(details.get("reason")?.text()?.to_owned()));
    match (body.take_text("status").as_deref(), reason.as_deref()) {
        (Some("incomplete"), Some("content_filter")) => Some(Stop::Filtered),
        (Some("incomplete"), _) => Some(Stop::Length),
        (Some("queued" | "in_progress" | "failed" | "cancelled"), _) => Some(Stop::Paused),
        (Some(_), _) if calls => Some(Stop::ToolCalls),
        (Some(_), _) => Some(Stop::End),
        (None, _) => None,
    }
}

fn usage_of(usage: &Tree<'_>) -> Option<Usage> {
    let count = |name: &str| usage.get(name).and_then(Tree::count);
    let part = |of: &str, name: &str| usage.get(of).and_then(|of| of.get(name)?.count()).unwrap_or(0);
    Some(Usage {
        tokens_in: count("input_tokens")?,
        tokens_in_cached: part("input_tokens_details", "cached_tokens"),
        tokens_in_cache_written: part("input_tokens_details", "cache_write_tokens"),
        tokens_out: count("output_tokens").unwrap_or(0),
        tokens_out_reasoning: part("output_tokens_details", "reasoning_tokens"),
        ..Usage::default()
    })
}

/// Reads events. What it keeps does not grow with the stream.
#[derive(Default)]
struct Reader {
    events: Events,
    started: bool,
    ended: bool,
    calls: bool,
    /// Parts that were opened.
    parts: u32,
    open: Option<Opened>,
}

impl ReadStream for Reader {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault> {
        let mut cut = std::mem::take(&mut self.events);
        let pushed = cut.push(bytes, |name, data| self.take(name, data, events));
        self.events = cut;
        pushed
    }
}

impl Reader {
    fn take(&mut self, name: &str, data: &str, out: &mut Vec<Event>) {
        if self.ended || data.trim() == "[DONE]" {
            return;
        }
        let Ok(tree) = Tree::parse(data, CONVERTED_DEPTH_MAX) else {
            let message = Some("an event of the provider's stream is no JSON".to_owned());
            return self.fail(StreamError { message, ..StreamError::default() }, out);
        };
        let mut event = tree.into_members();
        let kind = event.take_text("type").unwrap_or_else(|| name.to_owned());
        match kind.as_str() {
            "response.created" => self.start(event.take("response"), out),
            "response.output_item.added" => {
                let item = event.take("item").map(Tree::into_members).unwrap_or_default();
                self.add_item(item, out);
            }
            "response.output_text.delta" => self.add(Opened::Text, event.take_text("delta"), out),
            "response.refusal.delta" => self.add(Opened::Refusal, event.take_text("delta"), out),
            "response.output_item.done" => self.close(out),
            "response.completed" | "response.incomplete" => self.end(event.take("response"), out),
            "response.failed" => {
                let error = event.take("response").and_then(|response| response.into_members().take("error"));
                self.fail(error_of(error.map(Tree::into_members).unwrap_or_default()), out);
            }
            "error" => self.fail(error_of(event), out),
            // Of the many other events none has text.
            _ => {}
        }
    }

    fn fail(&mut self, error: StreamError, out: &mut Vec<Event>) {
        self.ended = true;
        out.push(Event::Failed(error));
    }

    fn start(&mut self, response: Option<Tree<'_>>, out: &mut Vec<Event>) {
        let mut response = response.map(Tree::into_members).unwrap_or_default();
        if !std::mem::replace(&mut self.started, true) {
            out.push(Event::Started {
                id: response.take_text("id").unwrap_or_default(),
                model: response.take_text("model").unwrap_or_default(),
                created_s: response.take("created_at").and_then(|at| at.count()),
                usage: None,
            });
        }
    }

    fn add_item(&mut self, mut item: Members<'_>, out: &mut Vec<Event>) {
        let kind = item.take_text("type").unwrap_or_default();
        if is_call(&kind) {
            self.calls = true;
            let id = item.take_text("call_id").unwrap_or_default();
            let name = item.take_text("name").unwrap_or_default();
            self.begin(Opened::ToolCall { id, name }, out);
        }
    }

    fn begin(&mut self, what: Opened, out: &mut Vec<Event>) {
        self.close(out);
        out.push(Event::Opened { choice: 0, part: self.parts, what: what.clone() });
        self.open = Some(what);
        self.parts += 1;
    }

    fn add(&mut self, what: Opened, text: Option<String>, out: &mut Vec<Event>) {
        let Some(text) = text else { return };
        if self.open.as_ref() != Some(&what) {
            self.begin(what, out);
        }
        out.push(Event::Added { choice: 0, part: self.parts.saturating_sub(1), text });
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if self.open.take().is_some() {
            out.push(Event::Closed { choice: 0, part: self.parts.saturating_sub(1) });
        }
    }

    fn end(&mut self, response: Option<Tree<'_>>, out: &mut Vec<Event>) {
        self.close(out);
        let mut response = response.map(Tree::into_members).unwrap_or_default();
        let usage = response.take("usage").as_ref().and_then(usage_of);
        out.extend(stop_of(&mut response, self.calls).map(|stop| Event::Stopped {
            choice: 0,
            stop,
            sequence: None,
        }));
        out.extend(usage.map(Event::Used));
        out.push(Event::Ended);
        self.ended = true;
    }
}

fn error_of(mut error: Members<'_>) -> StreamError {
    let code = error.take_text("code");
    StreamError { code, message: error.take_text("message"), ..StreamError::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(items: &str, status: &str) -> String {
        format!(
            r#"{{"id":"resp_1","object":"response","created_at":5,"status":"{status}","incomplete_details":null,"model":"gpt-5-2025-08-07","output":[{items}],"usage":{{"input_tokens":7,"input_tokens_details":{{"cached_tokens":2}},"output_tokens":5,"output_tokens_details":{{"reasoning_tokens":3}},"total_tokens":12}}}}"#
        )
    }

    const MESSAGE: &str = r#"{"type":"reasoning","id":"rs_1","summary":[]},{"type":"web_search_call","id":"ws_1","status":"completed"},{"type":"message","id":"msg_1","role":"assistant","status":"completed","content":[{"type":"output_text","text":"a","annotations":[]},{"type":"output_text","text":"b"}]}"#;

    #[test]
    fn whole_answers_are_read_for_their_text() {
        let read = answer(&output(MESSAGE, "completed")).unwrap();
        assert_eq!(
            (read.id.as_str(), read.model.as_str(), read.created_s),
            ("resp_1", "gpt-5-2025-08-07", Some(5))
        );
        let choice = &read.choices[0];
        assert_eq!(
            (choice.parts.as_slice(), choice.stop),
            (&[Part::text("a"), Part::text("b")][..], Some(Stop::End))
        );
        let usage = read.usage.unwrap();
        assert_eq!(
            (usage.tokens_in, usage.tokens_in_cached, usage.tokens_out, usage.tokens_out_reasoning),
            (7, 2, 5, 3)
        );
        let stop = |items: &str, status: &str| answer(&output(items, status)).unwrap().choices[0].stop;
        assert_eq!(stop("", "incomplete"), Some(Stop::Length));
        for status in ["queued", "in_progress", "failed", "cancelled"] {
            assert_eq!(stop("", status), Some(Stop::Paused), "{status}");
        }
        let call =
            r#"{"type":"function_call","id":"fc_1","call_id":"call_1","name":"f","arguments":"{\"x\":1}"}"#;
        assert_eq!(stop(call, "completed"), Some(Stop::ToolCalls));
        let refusal = r#"{"type":"message","content":[{"type":"refusal","refusal":"no"}]}"#;
        let read = answer(&output(refusal, "completed")).unwrap();
        assert_eq!(read.choices[0].parts, [Part::Refusal("no".to_owned())]);
        assert!(answer("[]").is_ok_and(|read| read.choices[0].parts.is_empty()));
        assert!(answer("{").is_err());
    }

    #[test]
    fn d1_streams_are_read_wherever_they_are_cut() {
        let event = |data: &str| format!("event: x\ndata: {data}\n\n");
        let text: String = [
            r#"{"type":"response.created","response":{"id":"resp_1","model":"m","created_at":5}}"#.to_owned(),
            r#"{"type":"response.output_item.added","item":{"type":"message"}}"#.to_owned(),
            r#"{"type":"response.content_part.added","part":{"type":"output_text","text":""}}"#.to_owned(),
            r#"{"type":"response.output_text.delta","delta":"h"}"#.to_owned(),
            r#"{"type":"response.output_text.delta","delta":"é"}"#.to_owned(),
            r#"{"type":"response.output_text.done","text":"hé"}"#.to_owned(),
            r#"{"type":"response.output_item.done","item":{"type":"message"}}"#.to_owned(),
            r#"{"type":"response.output_item.added","item":{"type":"function_call","call_id":"c","name":"f"}}"#.to_owned(),
            r#"{"type":"response.output_item.done","item":{"type":"function_call"}}"#.to_owned(),
            format!(r#"{{"type":"response.completed","response":{}}}"#, output(MESSAGE, "completed")),
        ]
        .iter()
        .map(|data| event(data))
        .collect();
        let read = |size: usize| {
            let (mut reader, mut events) = (stream(), Vec::new());
            text.as_bytes().chunks(size).for_each(|piece| reader.push(piece, &mut events).unwrap());
            events
        };
        let whole = read(usize::MAX);
        (1..9).for_each(|size| assert_eq!(read(size), whole, "{size}"));
        let added = |text: &str| Event::Added { choice: 0, part: 0, text: text.to_owned() };
        assert!(whole.contains(&added("h")) && whole.contains(&added("é")), "{whole:?}");
        assert!(whole.contains(&Event::Stopped { choice: 0, stop: Stop::ToolCalls, sequence: None }));
        assert_eq!(whole.last(), Some(&Event::Ended));
        let opened = whole.iter().filter(|event| matches!(event, Event::Opened { .. })).count();
        let closed = whole.iter().filter(|event| matches!(event, Event::Closed { .. })).count();
        assert_eq!((opened, closed), (2, 2));
    }

    #[test]
    fn failures_are_told() {
        for text in [
            r#"{"type":"error","code":"server_error","message":"m"}"#,
            r#"{"type":"response.failed","response":{"error":{"code":"server_error","message":"m"}}}"#,
        ] {
            let (mut reader, mut events) = (stream(), Vec::new());
            reader.push(format!("data: {text}\n\ndata: x\n\n").as_bytes(), &mut events).unwrap();
            let [Event::Failed(error)] = &events[..] else { unreachable!("{events:?}") };
            assert_eq!((error.code.as_deref(), error.message.as_deref()), (Some("server_error"), Some("m")));
        }
    }

    #[test]
    fn the_format_is_read_whatever_else_is_asked() {
        let body = r#"{"previous_response_id":"resp_1","text":{"format":{"type":"json_schema","name":"n","schema":{"type":"object"}}}}"#;
        let format = format_of(Tree::parse(body, 16).unwrap());
        assert!(matches!(format, Format::Schema { schema, .. } if schema == r#"{"type":"object"}"#));
        assert_eq!(format_of(Tree::parse("{}", 16).unwrap()), Format::Text);
    }
}
