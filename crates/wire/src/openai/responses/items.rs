//! The items of an answer, and the response around them.

use crate::chat::{Choice, Logprob, Losses, Page, Part, Stop, Usage};
use crate::dialect::Told;
use crate::json::write::{Object, object};
use crate::openai::chat::words::{fill_signature, logprob_json};

use super::conversation::HIDDEN;
use super::echo;

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// It goes on.
    InProgress,
    /// It is whole.
    Completed,
    /// It is cut short, for this reason.
    Incomplete(&'static str),
    /// The provider failed.
    Failed,
}

impl Status {
    /// What an answer is that ended so.
    pub(super) const fn of(stop: Option<Stop>) -> Self {
        match stop {
            Some(Stop::Length) => Self::Incomplete("max_output_tokens"),
            Some(Stop::Filtered | Stop::Refused) => Self::Incomplete("content_filter"),
            Some(Stop::End | Stop::Sequence | Stop::ToolCalls | Stop::Paused | Stop::Other) | None => {
                Self::Completed
            }
        }
    }

    /// Its word.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete(_) => "incomplete",
            Self::Failed => "failed",
        }
    }
}

/// A response.
pub(super) struct Response<'a> {
    pub(super) id: &'a str,
    pub(super) created_s: u64,
    pub(super) status: Status,
    pub(super) output: &'a [String],
    pub(super) usage: Option<&'a Usage>,
    /// Code and message.
    pub(super) error: Option<(&'a str, &'a str)>,
    pub(super) service_tier: Option<&'a str>,
}

impl Response<'_> {
    /// Its JSON, with what it repeats of the request.
    pub(super) fn json(&self, told: &Told) -> String {
        let mut it = Object::new();
        it.text("id", self.id).text("object", "response").count("created_at", self.created_s);
        it.text("status", self.status.word()).raw("completed_at", "null");
        match self.error {
            Some((code, message)) => {
                it.object("error", |it| _ = it.text("code", code).text("message", message));
            }
            None => _ = it.raw("error", "null"),
        }
        match self.status {
            Status::Incomplete(reason) => {
                it.object("incomplete_details", |it| _ = it.text("reason", reason));
            }
            Status::InProgress | Status::Completed | Status::Failed => {
                it.raw("incomplete_details", "null");
            }
        }
        it.text("model", &told.model).array("output", self.output);
        it.text("service_tier", self.service_tier.unwrap_or("default"));
        match self.usage {
            Some(usage) => it.raw("usage", &usage_json(usage)),
            None => it.raw("usage", "null"),
        };
        let unsaid;
        let echoed = if told.echoed.is_empty() {
            unsaid = echo::unsaid();
            &unsaid
        } else {
            &told.echoed
        };
        let mut text = it.finish();
        text.pop();
        text.push(',');
        text.push_str(echoed);
        text.push('}');
        text
    }
}

/// An id of the form that this dialect's have.
pub(super) fn response_id(id: &str) -> String {
    if id.starts_with("resp_") { id.to_owned() } else { format!("resp_{id}") }
}

/// The id of an item of a response.
pub(super) fn item_id(kind: &str, response: &str, index: usize) -> String {
    format!("{kind}_{}_{index}", response.strip_prefix("resp_").unwrap_or(response))
}

fn usage_json(usage: &Usage) -> String {
    object(|it| {
        it.count("input_tokens", usage.tokens_in);
        it.object("input_tokens_details", |it| {
            it.count("cached_tokens", usage.tokens_in_cached);
            if usage.tokens_in_cache_written > 0 {
                it.count("cache_write_tokens", usage.tokens_in_cache_written);
            }
        });
        it.count("output_tokens", usage.tokens_out);
        it.object("output_tokens_details", |it| {
            _ = it.count("reasoning_tokens", usage.tokens_out_reasoning);
        });
        it.count("total_tokens", usage.tokens_in.saturating_add(usage.tokens_out));
    })
}

/// A message of these parts.
pub(super) fn message_json(id: &str, status: &str, content: &[String]) -> String {
    object(|it| {
        it.text("id", id).text("type", "message").text("status", status).text("role", "assistant");
        it.array("content", content);
    })
}

/// A text.
pub(super) fn text_json(text: &str, annotations: &[String], logprobs: &[Logprob]) -> String {
    object(|it| {
        it.text("type", "output_text").text("text", text).array("annotations", annotations);
        it.raw("logprobs", &logprobs_json(logprobs));
    })
}

/// A refusal.
pub(super) fn refusal_json(why: &str) -> String {
    object(|it| _ = it.text("type", "refusal").text("refusal", why))
}

/// Log probabilities.
pub(super) fn logprobs_json(logprobs: &[Logprob]) -> String {
    crate::json::write::array(logprobs.iter().map(logprob_json))
}

/// A part of a summary.
pub(super) fn summary_json(text: &str) -> String {
    object(|it| _ = it.text("type", "summary_text").text("text", text))
}

/// A thought.
pub(super) fn thought_json(id: &str, text: &str, encrypted: Option<&str>) -> String {
    object(|it| {
        it.text("id", id).text("type", "reasoning");
        it.array("summary", (!text.is_empty()).then(|| summary_json(text)));
        it.text_if("encrypted_content", encrypted);
    })
}

/// What stands for a thought that only its provider can read.
pub(super) fn hidden(data: &str) -> String {
    format!("{HIDDEN}{data}")
}

/// A call of a tool.
pub(super) struct Call<'a> {
    pub(super) id: &'a str,
    pub(super) of: &'a str,
    pub(super) name: &'a str,
    pub(super) arguments: &'a str,
    pub(super) signature: Option<&'a str>,
}

impl Call<'_> {
    pub(super) fn json(&self, status: &str) -> String {
        object(|it| {
            it.text("id", self.id).text("type", "function_call").text("status", status);
            it.text("call_id", self.of).text("name", self.name).text("arguments", self.arguments);
            if let Some(signature) = self.signature {
                fill_signature(it, signature);
            }
        })
    }
}

/// What a text of so many characters cites, where that is a page.
pub(super) fn annotation(page: &Page, chars: usize) -> String {
    let (start, end) = page.place(chars as u64);
    object(|it| {
        it.text("type", "url_citation").count("start_index", start).count("end_index", end);
        it.text("url", &page.url).text("title", &page.title);
    })
}

/// The annotations that the citations of a text are; the others are noted.
pub(super) fn annotations(citations: Option<&str>, text: &str, losses: &mut Losses) -> Vec<String> {
    let (pages, others) = Page::all_of(citations);
    losses.note_if(others, "citations", ONLY_PAGES);
    let chars = text.chars().count();
    pages.iter().map(|page| annotation(page, chars)).collect()
}

/// Why a citation is lost.
pub(super) const ONLY_PAGES: &str = "a response cites pages and its provider's files only";

/// The items of an answer: texts in a row are one message.
pub(super) fn output(choice: &Choice, response: &str, losses: &mut Losses) -> Vec<String> {
    let status = Status::of(choice.stop).word();
    let mut logprobs = choice.logprobs.as_slice();
    let (mut items, mut content): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let close = |items: &mut Vec<String>, content: &mut Vec<String>| {
        if !content.is_empty() {
            let id = item_id("msg", response, items.len());
            items.push(message_json(&id, status, &std::mem::take(content)));
        }
    };
    for part in &choice.parts {
        match part {
            Part::Text { text, cache: _, citations } => {
                let annotations = annotations(citations.as_deref(), text, losses);
                // Whose they are is not said; they stand with the first text.
                content.push(text_json(text, &annotations, std::mem::take(&mut logprobs)));
                continue;
            }
            Part::Refusal(why) => {
                content.push(refusal_json(why));
                continue;
            }
            Part::Media(_) => losses.note("content", "a response shows media that its tools made only"),
            Part::ToolResult { .. } => losses.note("content", "a model gives no results of tools"),
            Part::ToolCall { .. } | Part::Thinking { .. } | Part::HiddenThinking { .. } => {}
        }
        close(&mut items, &mut content);
        let index = items.len();
        match part {
            Part::ToolCall { id, name, arguments, signature } => {
                let call = Call {
                    id: &item_id("fc", response, index),
                    of: id,
                    name,
                    arguments,
                    signature: signature.as_deref(),
                };
                items.push(call.json("completed"));
            }
            Part::Thinking { text, signature } => {
                items.push(thought_json(&item_id("rs", response, index), text, signature.as_deref()));
            }
            Part::HiddenThinking { data } => {
                items.push(thought_json(&item_id("rs", response, index), "", Some(&hidden(data))));
            }
            Part::Text { .. } | Part::Refusal(_) | Part::Media(_) | Part::ToolResult { .. } => {}
        }
    }
    close(&mut items, &mut content);
    items
}
