//! What clients of the Messages API send, and are sent.

use crate::chat::{Answer, Conversation, Losses, Part, Usage};
use crate::dialect::{Asked, ClientDef, ClientDialect, Elsewhere, Told, WriteStream};
use crate::json::tree::Tree;
use crate::json::write::object;
use crate::openai::error::{ErrorBody, Invalid};
use crate::openai::request::{self, Operation, Shape};

use super::blocks::answer_block;
use super::words::{fill_nothing, stop_word, usage_json};
use super::writer::Writer;
use super::{conversation, error};

/// The definition.
pub static DEF: ClientDef = ClientDef {
    name: "anthropic",
    summary: "Anthropic messages (`/v1/messages`, `/v1/messages/count_tokens`).",
    route: |path, _| match path {
        "/v1/messages" => Some(Asked::call(Operation::Chat, MESSAGES)),
        "/v1/messages/count_tokens" => {
            Some(Asked { elsewhere: Elsewhere::Estimated, ..Asked::call(Operation::Chat, COUNT_TOKENS) })
        }
        _ => None,
    },
    places: &["/v1/messages"],
    read: |asked, body, limits, salt| {
        let shape =
            if asked.call == MESSAGES { Shape::AnthropicMessages } else { Shape::AnthropicCountTokens };
        request::parse_as(shape, asked.operation, body, limits, salt)
    },
    headers: &["anthropic-version", "anthropic-beta"],
    schema_field: "output_config.format",
    words: &[&[
        ("parallel_tool_calls", "tool_choice.disable_parallel_tool_use"),
        ("reasoning", "thinking"),
        ("reasoning_effort", "output_config.effort"),
        ("response_format", "output_config.format"),
        ("stop", "stop_sequences"),
        ("user", "metadata.user_id"),
    ]],
    request_id_header: Some("request-id"),
    error_status: error::status,
    stream_type: |_| "text/event-stream",
    heartbeat: ": ping\n\n",
    dialect: &MessagesClient,
};

/// The calls, by their paths below `/v1`.
const MESSAGES: &str = "messages";
const COUNT_TOKENS: &str = "messages/count_tokens";

/// The dialect.
struct MessagesClient;

impl ClientDialect for MessagesClient {
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid> {
        conversation::read(body)
    }

    fn answer(&self, answer: &Answer, told: &Told, losses: &mut Losses) -> String {
        losses.note_if(answer.choices.len() > 1, "choices", "Anthropic gives one answer; the first is shown");
        let choice = answer.choices.first().cloned().unwrap_or_default();
        losses.note_if(!choice.logprobs.is_empty(), "logprobs", "Anthropic has no log probabilities");
        losses.note_if(answer.usage.is_none(), "usage", "the provider did not say; it shows as 0");
        let calls = choice.parts.iter().any(|part| matches!(part, Part::ToolCall { .. }));
        let blocks: Vec<String> = choice
            .parts
            .iter()
            .enumerate()
            .filter_map(|(at, part)| answer_block(part, &format!("content[{at}]"), losses))
            .collect();
        object(|it| {
            it.text("id", if answer.id.is_empty() { &told.id } else { &answer.id });
            it.text("type", "message").text("role", "assistant").text("model", &told.model);
            it.array("content", blocks).text("stop_reason", stop_word(choice.stop, calls));
            match choice.stop_sequence.as_deref() {
                Some(sequence) => it.text("stop_sequence", sequence),
                None => it.raw("stop_sequence", "null"),
            };
            fill_nothing(it);
            let usage: Usage = answer.usage.unwrap_or_default();
            it.raw("usage", &usage_json(&usage, answer.service_tier.as_deref()));
        })
    }

    fn stream(&self, told: Told) -> Box<dyn WriteStream> {
        Box::new(Writer::new(told))
    }

    fn counted(&self, tokens_in: u64) -> String {
        object(|it| _ = it.count("input_tokens", tokens_in))
    }

    fn error(&self, error: &ErrorBody, id: &str) -> String {
        error::error_json(error, id)
    }
}
