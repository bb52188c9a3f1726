//! What clients of the Responses API send, and are sent.

use crate::chat::{Answer, Conversation, Losses};
use crate::dialect::{Asked, ClientDef, ClientDialect, Told, WriteStream};
use crate::json::tree::Tree;
use crate::openai::error::{ErrorBody, Invalid};
use crate::openai::request::{self, Operation};

use super::items::{self, Response};
use super::writer::Writer;
use super::{conversation, items::Status};

/// The definition.
pub static DEF: ClientDef = ClientDef {
    name: "openai-responses",
    summary: "OpenAI responses (`/v1/responses`).",
    route: |path, _| (path == Operation::Response.path()).then(|| Asked::of(Operation::Response)),
    places: &["/v1/responses"],
    read: |asked, body, limits, salt| request::parse(asked.operation, body, limits, salt),
    headers: &[],
    schema_field: "text.format",
    words: &[&[
        ("logprobs", "top_logprobs"),
        ("messages", "input"),
        ("reasoning_effort", "reasoning.effort"),
        ("response_format", "text.format"),
        ("system", "instructions"),
    ]],
    request_id_header: Some("x-request-id"),
    error_status: |error| error.status,
    stream_type: |_| "text/event-stream",
    heartbeat: ": ping\n\n",
    dialect: &ResponsesClient,
};

/// The dialect.
struct ResponsesClient;

impl ClientDialect for ResponsesClient {
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid> {
        conversation::read(body)
    }

    fn answer(&self, answer: &Answer, told: &Told, losses: &mut Losses) -> String {
        losses.note_if(answer.choices.len() > 1, "choices", "a response is one answer; the first is shown");
        let choice = answer.choices.first().cloned().unwrap_or_default();
        let id = items::response_id(if answer.id.is_empty() { &told.id } else { &answer.id });
        let status = Status::of(choice.stop);
        let output = items::output(&choice, &id, losses);
        let response = Response {
            id: &id,
            created_s: answer.created_s.unwrap_or(told.now_unix_s),
            status,
            output: &output,
            usage: answer.usage.as_ref(),
            error: None,
            service_tier: answer.service_tier.as_deref(),
        };
        response.json(told)
    }

    fn stream(&self, told: Told) -> Box<dyn WriteStream> {
        Box::new(Writer::new(told))
    }

    fn error(&self, error: &ErrorBody, _: &str) -> String {
        format!("{{\"error\":{{{}}}}}", error.members())
    }
}
