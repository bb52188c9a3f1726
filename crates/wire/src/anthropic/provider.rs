//! What providers of the Messages API are sent, and send.

use crate::chat::{Answer, Choice, Conversation, Losses, Part};
use crate::dialect::{
    AnswerFault, CONVERTED_DEPTH_MAX, Headers, ProviderDef, ProviderDialect, ReadStream, Relay,
};
use crate::json::tree::Tree;
use crate::openai::error::Fault;
use crate::openai::request::Operation;

use super::conversation::citations_of;
use super::error::stream_error;
use super::reader::Reader;
use super::words::{Counted, stop_of};
use super::{error, request};

/// The definition.
pub static DEF: ProviderDef = ProviderDef {
    name: "anthropic",
    summary: "Anthropic messages, and whoever speaks them.",
    stream_type: "text/event-stream",
    relays: &[Relay {
        client: "anthropic",
        operations: &[Operation::Chat],
        path: |asked, _| Some(format!("/{}", asked.call)),
        wrapping: None,
    }],
    dialect: &MessagesProvider,
};

/// The dialect.
struct MessagesProvider;

/// Why blocks of tools that the provider runs itself are lost.
pub(super) const OWN_TOOL: &str = "what the provider's own tools did has no place in another dialect";

impl ProviderDialect for MessagesProvider {
    fn path(&self, _: &str, _: bool) -> String {
        "/messages".to_owned()
    }

    fn request(&self, conversation: &Conversation, model: &str, losses: &mut Losses) -> String {
        request::write(conversation, model, losses)
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        let tree = Tree::parse(body, CONVERTED_DEPTH_MAX)?;
        if tree.get("error").is_some() {
            return Err(AnswerFault::Failed(stream_error(body)));
        }
        let mut body = tree.into_members();
        let content = body.take("content").ok_or(AnswerFault::Missing("content"))?;
        let mut answer = Answer {
            id: body.take_text("id").unwrap_or_default(),
            model: body.take_text("model").unwrap_or_default(),
            ..Answer::default()
        };
        if let Some(usage) = body.take("usage") {
            let mut counted = Counted::default();
            counted.take(&usage);
            answer.usage = Some(counted.usage());
            let tier = usage.get("service_tier").and_then(Tree::text);
            answer.service_tier =
                tier.map(|tier| if tier == "standard" { "default" } else { tier }.to_owned());
        }
        let mut choice = Choice {
            stop: body.take_text("stop_reason").map(|word| stop_of(&word)),
            stop_sequence: body.take_text("stop_sequence"),
            ..Choice::default()
        };
        for block in content.into_items() {
            choice.parts.extend(read_block(block, &mut answer.losses));
        }
        answer.choices.push(choice);
        Ok(answer)
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        Box::new(Reader::default())
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        error::fault(status, headers("retry-after"), body)
    }
}

fn read_block(block: Tree<'_>, losses: &mut Losses) -> Option<Part> {
    let mut block = block.into_members();
    let kind = block.take_text("type").unwrap_or_default();
    let mut text = |name: &str| block.take_text(name).unwrap_or_default();
    Some(match kind.as_str() {
        "text" => {
            let text = text("text");
            Part::Text { text, cache: None, citations: citations_of(block.take("citations")) }
        }
        "thinking" => {
            let (text, signature) = (text("thinking"), text("signature"));
            Part::Thinking { text, signature: Some(signature).filter(|signature| !signature.is_empty()) }
        }
        "redacted_thinking" => Part::HiddenThinking { data: text("data") },
        "tool_use" => Part::ToolCall {
            id: text("id"),
            name: text("name"),
            arguments: block.take("input").map_or_else(|| "{}".to_owned(), |input| input.raw().to_owned()),
            signature: None,
        },
        _ => {
            losses.note(format!("content.{kind}"), OWN_TOOL);
            return None;
        }
    })
}
