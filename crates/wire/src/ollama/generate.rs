//! What clients of `/api/generate` send, and are sent: a conversation of one turn.

use crate::chat::{Answer, Conversation, Losses, Message, Part, Role};
use crate::dialect::{Asked, ClientDef, ClientDialect, Told, WriteStream};
use crate::json::tree::Tree;
use crate::json::write::object;
use crate::openai::error::{ErrorBody, Invalid};
use crate::openai::request::Operation;

use super::client::{WORDS, fill_head, fill_tail, note_rest, read_common, read_images, said};
use super::deltas::{Deltas, Form};
use super::request::{self, Api};
use super::words::error_json;

/// The definition.
pub static DEF: ClientDef = ClientDef {
    name: "ollama-generate",
    summary: "Ollama generations (`/api/generate`): a conversation of one turn.",
    route: |path, _| {
        (path == Api::Generate.path()).then(|| Asked::call(Operation::Chat, Api::Generate.path()))
    },
    places: &[],
    read: |_, body, limits, salt| request::parse(Api::Generate, body, limits, salt),
    headers: &[],
    schema_field: "format",
    words: &[WORDS, &[("messages[0].content", "prompt")]],
    request_id_header: None,
    error_status: |error| error.status,
    stream_type: |_| "application/x-ndjson",
    heartbeat: "",
    dialect: &GenerateClient,
};

/// The dialect.
struct GenerateClient;

impl ClientDialect for GenerateClient {
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid> {
        let mut body = body.into_members();
        let mut all = Conversation { choices: 1, ..Conversation::default() };
        body.take("model");
        let mut parts = read_images(&mut body);
        parts.extend(body.take_text("prompt").filter(|prompt| !prompt.is_empty()).map(Part::text));
        if parts.is_empty() {
            let text = "`prompt` is empty, which loads a model in Ollama; other providers cannot be asked to";
            return Err(Invalid::field("prompt", text));
        }
        all.messages.push(Message { role: Role::User, name: None, parts });
        all.system.extend(body.take_text("system").filter(|text| !text.is_empty()).map(Part::text));
        let whole = body.take("raw").and_then(|raw| raw.boolean()).unwrap_or(false);
        let losses = &mut all.losses;
        losses.note_if(whole, "raw", "other providers put every prompt into their own template");
        let there = |given: Option<String>| given.is_some_and(|text| !text.is_empty());
        losses.note_if(there(body.take_text("suffix")), "suffix", "a chat has nothing behind its answer");
        losses.note_if(
            there(body.take_text("template")),
            "template",
            "other providers have their own template",
        );
        let context = body.take("context").is_some_and(|context| !context.items().is_empty());
        losses.note_if(context, "context", "only the model that gave these tokens can read them");
        read_common(&mut body, &mut all)?;
        note_rest(body, &mut all.losses);
        Ok(all)
    }

    fn answer(&self, answer: &Answer, told: &Told, losses: &mut Losses) -> String {
        let parts = answer.choices.first().map(|choice| choice.parts.as_slice()).unwrap_or_default();
        let said = said(parts, losses);
        losses.note_if(!said.calls.is_empty(), "tool_calls", "a generation calls no tools");
        object(|it| {
            fill_head(it, answer, told);
            it.text("response", &said.text);
            if !said.thoughts.is_empty() {
                it.text("thinking", &said.thoughts);
            }
            fill_tail(it, answer, losses);
        })
    }

    fn stream(&self, told: Told) -> Box<dyn WriteStream> {
        Box::new(Deltas::new(told, Form::Generate))
    }

    fn error(&self, error: &ErrorBody, _: &str) -> String {
        error_json(error)
    }
}
