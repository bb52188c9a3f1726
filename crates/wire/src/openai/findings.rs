//! What is worth telling of an answer that is relayed as it came.
//!
//! Found by words alone, without a look at what stands between them: quotes inside strings are escaped, so that a word with
//! its quotes is a whole string, and nearly always a key. What is found decides nothing.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::request::Operation;
use crate::chat::{Finding, Findings};

/// What is worth telling of the body of an answer that was not streamed. O(n), at the speed of a search for two words.
pub fn findings_of_body(operation: Operation, body: &[u8]) -> Findings {
    match operation {
        Operation::Chat | Operation::Completion => of_choices(body),
        Operation::Response => of_response(body),
        Operation::Embedding | Operation::Infer | Operation::Task(_) => Findings::default(),
    }
}

macro_rules! words {
    ($($name:ident = $word:literal),* $(,)?) => {
        $(static $name: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(concat!("\"", $word, "\"")));)*
    };
}

words! {
    AUDIO = "audio",
    CHOICES = "choices",
    CONTENT = "content",
    FINISH_REASON = "finish_reason",
    FUNCTION_CALL = "function_call",
    INCOMPLETE = "incomplete_details",
    OUTPUT = "output",
    REFUSAL = "refusal",
    TEXT = "text",
    TOOL_CALLS = "tool_calls",
}

fn of_choices(body: &[u8]) -> Findings {
    let mut findings = Findings::default();
    let Some(choices) = values(body, &CHOICES).next() else { return findings };
    if !is_filled(choices) {
        findings.insert(Finding::EmptyAnswer);
        return findings;
    }
    findings.extend(of_stops(body));
    if has(body, &REFUSAL) {
        findings.insert(Finding::Refusal);
    } else if ![&CONTENT, &TEXT, &TOOL_CALLS, &FUNCTION_CALL, &AUDIO].into_iter().any(|word| has(body, word))
    {
        findings.insert(Finding::EmptyAnswer);
    }
    findings
}

fn of_response(body: &[u8]) -> Findings {
    let mut findings = Findings::default();
    for details in values(body, &INCOMPLETE) {
        findings.extend(of_incomplete(details));
    }
    // The type of a part.
    if REFUSAL.find(body).is_some() {
        findings.insert(Finding::Refusal);
    }
    if values(body, &OUTPUT).next().is_some_and(|output| !is_filled(output)) {
        findings.insert(Finding::EmptyAnswer);
    }
    findings
}

/// What the reasons of ends tell that stand in `data`.
pub(super) fn of_stops(data: &[u8]) -> Findings {
    let mut findings = Findings::default();
    for value in values(data, &FINISH_REASON) {
        if value.starts_with(b"\"length\"") || value.starts_with(b"\"max_tokens\"") {
            findings.insert(Finding::LengthStop);
        } else if value.starts_with(b"\"content_filter\"") {
            findings.insert(Finding::ContentFilter);
        }
    }
    findings
}

/// What the details tell of a response that is incomplete; `details` begins with them.
pub(super) fn of_incomplete(details: &[u8]) -> Findings {
    let mut findings = Findings::default();
    let object = &details[..memchr::memchr(b'}', details).unwrap_or(details.len())];
    if !object.starts_with(b"{") {
        return findings;
    }
    for (word, finding) in [
        (&b"\"max_output_tokens\""[..], Finding::LengthStop),
        (b"\"content_filter\"", Finding::ContentFilter),
    ] {
        if memchr::memmem::find(object, word).is_some() {
            findings.insert(finding);
        }
    }
    findings
}

/// What stands behind each `word` that is a key.
fn values<'a>(data: &'a [u8], word: &'static Finder<'static>) -> impl Iterator<Item = &'a [u8]> {
    word.find_iter(data).filter_map(move |at| {
        let after = data.get(at + word.needle().len()..)?.trim_ascii_start();
        after.strip_prefix(b":").map(<[u8]>::trim_ascii_start)
    })
}

fn has(data: &[u8], word: &'static Finder<'static>) -> bool {
    values(data, word).any(is_filled)
}

/// Whether a value is neither null nor an empty string, array or object.
fn is_filled(value: &[u8]) -> bool {
    let Some((first, rest)) = value.split_first() else { return false };
    match first {
        b'n' => false,
        b'"' => !rest.starts_with(b"\""),
        b'[' => !rest.trim_ascii_start().starts_with(b"]"),
        b'{' => !rest.trim_ascii_start().starts_with(b"}"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::sse::{Out, StreamObserver};

    fn check(operation: Operation, body: &str, expected: &[&str]) {
        let found: Vec<_> = findings_of_body(operation, body.as_bytes()).iter().map(Finding::name).collect();
        assert_eq!(found, expected, "{body}");
    }

    fn chat(message: &str, reason: &str, expected: &[&str]) {
        let body = format!(
            r#"{{"id":"c","choices":[{{"index":0,"message":{{"role":"assistant",{message}}},"finish_reason":"{reason}"}}],"usage":{{}}}}"#
        );
        check(Operation::Chat, &body, expected);
    }

    #[test]
    fn answers_tell_by_their_words() {
        chat(r#""content":"yes","refusal":null"#, "stop", &[]);
        chat(r#""content" : "" , "refusal":null"#, "stop", &["empty_answer"]);
        chat(r#""content":null,"reasoning_content":"hm""#, "length", &["empty_answer", "length_stop"]);
        chat(r#""content":null,"tool_calls":[{"id":"1"}]"#, "tool_calls", &[]);
        chat(r#""content":null,"refusal":"I will not""#, "stop", &["refusal"]);
        chat(r#""content":"half a""#, "content_filter", &["content_filter"]);
        chat(r#""content":"\"finish_reason\":\"length\"""#, "stop", &[]);
        check(Operation::Chat, r#"{"choices":[]}"#, &["empty_answer"]);
        check(Operation::Chat, r#"{"error":{}}"#, &[]);
        check(
            Operation::Completion,
            r#"{"choices":[{"text":"","finish_reason":"length"}]}"#,
            &["empty_answer", "length_stop"],
        );
        check(Operation::Embedding, r#"{"choices":[]}"#, &[]);
    }

    #[test]
    fn one_choice_of_several_is_enough() {
        let body = r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"},{"finish_reason":"length","message":{"content":"b"}}]}"#;
        check(Operation::Chat, body, &["length_stop"]);
    }

    #[test]
    fn responses_tell_by_their_details() {
        let body = |details: &str, output: &str| {
            format!(r#"{{"incomplete_details":{details},"output":[{output}]}}"#)
        };
        check(Operation::Response, &body("null", r#"{"type":"message"}"#), &[]);
        check(Operation::Response, &body(r#"{"reason":"max_output_tokens"}"#, "{}"), &["length_stop"]);
        check(
            Operation::Response,
            &body(r#"{"reason":"content_filter"}"#, ""),
            &["empty_answer", "content_filter"],
        );
        check(
            Operation::Response,
            &body("null", r#"{"content":[{"type":"refusal","refusal":"no"}]}"#),
            &["refusal"],
        );
    }

    fn stream(operation: Operation, events: &[&str], expected: &[&str]) {
        let mut observer = StreamObserver::new(operation, false);
        let mut out = Out::default();
        for event in events {
            observer.push(format!("data: {event}\n\n").into(), &mut out).expect("it is well formed");
        }
        observer.finish(&mut out);
        let found: Vec<_> = observer.findings().iter().map(Finding::name).collect();
        assert_eq!(found, expected, "{events:?}");
    }

    #[test]
    fn streams_tell_by_their_first_and_last_events() {
        let delta = |delta: &str| {
            format!(r#"{{"choices":[{{"index":0,"delta":{{{delta}}},"finish_reason":null}}]}}"#)
        };
        let end = |reason: &str| {
            format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#)
        };
        let first = delta(r#""role":"assistant","content":"","refusal":null"#);
        let (text, refusal) = (delta(r#""content":"a""#), delta(r#""refusal":"I will""#));
        let chat = |events: &[&str], expected: &[&str]| stream(Operation::Chat, events, expected);
        chat(&[&first, &text, &text, &end("stop"), "[DONE]"], &[]);
        chat(&[&first, &text, &text, &end("length"), "[DONE]"], &["length_stop"]);
        chat(&[&first, &end("content_filter"), "[DONE]"], &["empty_answer", "content_filter"]);
        chat(&[&first, &refusal, &refusal, &end("stop"), "[DONE]"], &["refusal"]);
        chat(&[&first], &[]);
        let refusal = r#"{"type":"response.refusal.delta","delta":"no"}"#;
        let cut = r#"{"type":"response.incomplete","response":{"incomplete_details":{"reason":"max_output_tokens"}}}"#;
        stream(Operation::Response, &[refusal, cut], &["refusal", "length_stop"]);
        stream(Operation::Embedding, &["[DONE]"], &[]);
    }
}
