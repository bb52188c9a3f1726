//! What providers of `/api/chat` are sent, and send.

use crate::chat::{
    Answer, Choice, Conversation, Format, Losses, Media, MediaKind, Message, Part, Role, Source, Stop,
    ToolChoice,
};
use crate::dialect::{
    AnswerFault, CONVERTED_DEPTH_MAX, Headers, ProviderDef, ProviderDialect, ReadStream, Relay,
};
use crate::json::quote;
use crate::json::tree::Tree;
use crate::json::write::{Object, compact, object};
use crate::openai::error::{Fault, FaultKind, classify};
use crate::openai::request::Operation;

use super::lines::{Lines, stream_error};
use super::words::{
    BROKEN_ARGUMENTS, arguments_object, call_id, call_json, logprobs_of, stop_of, think_json, unix_s,
    usage_of,
};

/// The definition.
pub static DEF: ProviderDef = ProviderDef {
    name: "ollama",
    summary: "Ollama's own API (`/api/chat`), and whoever speaks it.",
    stream_type: "application/x-ndjson",
    relays: &[
        Relay {
            client: "ollama",
            operations: &[Operation::Chat],
            path: |asked, _| Some(asked.call.to_owned()),
            wrapping: None,
        },
        Relay {
            client: "ollama-generate",
            operations: &[Operation::Chat],
            path: |asked, _| Some(asked.call.to_owned()),
            wrapping: None,
        },
    ],
    dialect: &OllamaProvider,
};

/// The dialect.
struct OllamaProvider;

/// Why something is lost.
const NO_WORD: &str = "Ollama has no such field";
/// Why marks for a cache are lost.
const NO_MARKS: &str = "Ollama caches by itself and takes no marks";

impl ProviderDialect for OllamaProvider {
    fn path(&self, _: &str, _: bool) -> String {
        "/api/chat".to_owned()
    }

    fn request(&self, all: &Conversation, model: &str, losses: &mut Losses) -> String {
        object(|it| {
            it.text("model", model);
            it.array("messages", messages(all, losses));
            write_tools(it, all, losses);
            match &all.format {
                Format::Text => {}
                Format::Json => _ = it.text("format", "json"),
                Format::Schema { description, schema, .. } => {
                    losses.note_if(description.is_some(), "response_format.description", NO_WORD);
                    it.raw("format", schema);
                }
            }
            if let Some(think) = all.reasoning.as_ref().and_then(|how| think_json(how, model, losses)) {
                it.raw("think", think);
            }
            if let Some(alternatives) = all.logprobs {
                it.boolean("logprobs", true).count("top_logprobs", alternatives);
            }
            let options = object(|it| fill_options(it, all));
            if options != "{}" {
                it.raw("options", &options);
            }
            losses.note_if(all.choices > 1, "n", "Ollama gives one answer");
            losses.note_if(all.user.is_some(), "user", NO_WORD);
            losses.note_if(all.service_tier.is_some(), "service_tier", NO_WORD);
            // A stream is what comes if nothing is said.
            it.boolean("stream", all.stream);
        })
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        let tree = Tree::parse(body, CONVERTED_DEPTH_MAX)?;
        if tree.get("error").is_some() {
            return Err(AnswerFault::Failed(stream_error(body)));
        }
        let usage = usage_of(&tree);
        let mut body = tree.into_members();
        let created_at = body.take_text("created_at").unwrap_or_default();
        // `/api/generate` answers with a text, which is relayed as it came.
        let message = body.take("message").or_else(|| body.take("response"));
        let mut message = message.ok_or(AnswerFault::Missing("message"))?.into_members();
        let mut parts = Vec::new();
        let thought = message.take_text("thinking").filter(|text| !text.is_empty());
        parts.extend(thought.map(|text| Part::Thinking { text, signature: None }));
        parts.extend(message.take_text("content").filter(|text| !text.is_empty()).map(Part::text));
        let calls = message.take("tool_calls").map(Tree::into_items).unwrap_or_default();
        let called = !calls.is_empty();
        parts.extend(calls.iter().enumerate().map(|(at, call)| {
            let (id, name, arguments) = read_call(call, &created_at, at);
            Part::ToolCall { id, name, arguments, signature: None }
        }));
        let stop = body.take_text("done_reason").map(|reason| stop_of(&reason, called));
        let done = body.take("done").and_then(|done| done.boolean()) == Some(true);
        let stop = stop.or_else(|| done.then_some(Stop::Other));
        let logprobs = logprobs_of(body.take("logprobs").as_ref());
        Ok(Answer {
            model: body.take_text("model").unwrap_or_default(),
            created_s: unix_s(&created_at),
            choices: vec![Choice { parts, stop, stop_sequence: None, logprobs }],
            usage,
            ..Answer::default()
        })
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        Box::new(Lines::default())
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        let fault = classify(status, headers("retry-after"), body);
        let says = |phrase: &str| fault.message.as_deref().is_some_and(|message| message.contains(phrase));
        let too_long =
            says("input length exceeds") || says("exceeds the context length") || says("prompt too long");
        if (400..=500).contains(&status) && too_long {
            return Fault { kind: FaultKind::ContextLength, ..fault };
        }
        fault
    }
}

/// A call: its id, made if there is none, its tool, its arguments.
pub(super) fn read_call(call: &Tree<'_>, created_at: &str, at: usize) -> (String, String, String) {
    let function = call.get("function");
    let name = function.and_then(|function| function.get("name")).and_then(Tree::text).unwrap_or_default();
    let arguments = function.and_then(|function| function.get("arguments"));
    let arguments = arguments.map_or_else(
        || "{}".to_owned(),
        |given| given.text().map_or_else(|| compact(given.raw()), str::to_owned),
    );
    let id = call.get("id").and_then(Tree::text).filter(|id| !id.is_empty());
    let id = id.map_or_else(|| call_id(created_at, at, name, &arguments), str::to_owned);
    (id, name.to_owned(), arguments)
}

fn fill_options(it: &mut Object, all: &Conversation) {
    let sampling = &all.sampling;
    it.number_if("temperature", sampling.temperature).number_if("top_p", sampling.top_p);
    it.count_if("top_k", sampling.top_k);
    it.number_if("presence_penalty", sampling.presence_penalty);
    it.number_if("frequency_penalty", sampling.frequency_penalty);
    if let Some(seed) = sampling.seed {
        it.raw("seed", &seed.to_string());
    }
    it.count_if("num_predict", all.tokens_out_max);
    if !all.stop.is_empty() {
        it.array("stop", all.stop.iter().map(|stop| quote(stop)));
    }
}

fn write_tools(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    match &all.tool_choice {
        None | Some(ToolChoice::Auto) => {}
        // Tools that must not be called are not shown.
        Some(ToolChoice::None) => return,
        Some(ToolChoice::Any | ToolChoice::Tool(_)) => {
            losses.note("tool_choice", "Ollama leaves it to the model whether it calls a tool");
        }
    }
    let single = all.parallel_tool_calls == Some(false) && !all.tools.is_empty();
    losses.note_if(single, "parallel_tool_calls", NO_WORD);
    let tools = all.tools.iter().enumerate().map(|(at, tool)| {
        losses.note_if(tool.strict == Some(true), &format!("tools[{at}].strict"), NO_WORD);
        losses.note_if(tool.cache.is_some(), &format!("tools[{at}].cache_control"), NO_MARKS);
        object(|it| {
            it.text("type", "function");
            it.object("function", |it| {
                it.text("name", &tool.name).text_if("description", tool.description.as_deref());
                it.raw(
                    "parameters",
                    tool.parameters.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#),
                );
            });
        })
    });
    let tools: Vec<String> = tools.collect();
    if !tools.is_empty() {
        it.array("tools", tools);
    }
}

fn messages(all: &Conversation, losses: &mut Losses) -> Vec<String> {
    let mut out = Vec::new();
    if !all.system.is_empty() {
        out.push(message_json("system", &all.system, "system", losses));
    }
    for (at, message) in all.messages.iter().enumerate() {
        let path = format!("messages[{at}]");
        losses.note_if(message.name.is_some(), &format!("{path}.name"), NO_WORD);
        let path = format!("{path}.content");
        match message.role {
            Role::System => out.push(message_json("system", &message.parts, &path, losses)),
            Role::User => out.push(message_json("user", &message.parts, &path, losses)),
            Role::Assistant => out.push(message_json("assistant", &message.parts, &path, losses)),
            Role::Tool => results(&message.parts, &all.messages[..at], &path, losses, &mut out),
        }
    }
    out
}

/// Each result is a message of its own, with its tool's name; what stands beside them follows as the user's.
fn results(parts: &[Part], before: &[Message], path: &str, losses: &mut Losses, out: &mut Vec<String>) {
    let mut beside = Vec::new();
    for part in parts {
        let Part::ToolResult { id, name, parts, is_error } = part else {
            beside.push(part.clone());
            continue;
        };
        losses.note_if(*is_error, &format!("{path}.is_error"), "Ollama does not say that a tool failed");
        let content = content_of(parts, path, losses);
        out.push(object(|it| {
            fill_content(it, "tool", &content);
            it.text_if("tool_name", tool_of(id, before).or(name.as_deref())).text("tool_call_id", id);
        }));
    }
    if !beside.is_empty() {
        out.push(message_json("user", &beside, path, losses));
    }
}

/// The tool of the last call with this id.
fn tool_of<'a>(asked: &str, before: &'a [Message]) -> Option<&'a str> {
    before.iter().rev().flat_map(|message| &message.parts).find_map(|part| match part {
        Part::ToolCall { id, name, .. } if id == asked => Some(name.as_str()),
        Part::ToolCall { .. }
        | Part::Text { .. }
        | Part::Media(_)
        | Part::ToolResult { .. }
        | Part::Thinking { .. }
        | Part::HiddenThinking { .. }
        | Part::Refusal(_) => None,
    })
}

/// A message's content as Ollama has it.
#[derive(Default)]
struct Content {
    texts: Vec<String>,
    images: Vec<String>,
    thoughts: String,
    calls: Vec<String>,
}

fn message_json(role: &str, parts: &[Part], path: &str, losses: &mut Losses) -> String {
    let content = content_of(parts, path, losses);
    object(|it| fill_content(it, role, &content))
}

fn fill_content(it: &mut Object, role: &str, content: &Content) {
    it.text("role", role).text("content", &content.texts.join("\n"));
    if !content.thoughts.is_empty() {
        it.text("thinking", &content.thoughts);
    }
    if !content.images.is_empty() {
        it.array("images", content.images.iter().map(|image| quote(image)));
    }
    if !content.calls.is_empty() {
        it.array("tool_calls", &content.calls);
    }
}

fn content_of(parts: &[Part], path: &str, losses: &mut Losses) -> Content {
    let mut content = Content::default();
    for part in parts {
        match part {
            Part::Text { text, cache, citations } => {
                losses.note_if(cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
                losses.note_if(citations.is_some(), &format!("{path}.citations"), NO_WORD);
                content.texts.push(text.clone());
            }
            Part::Refusal(why) => content.texts.push(why.clone()),
            Part::Media(media) => add_media(media, path, &mut content, losses),
            Part::ToolCall { id, name, arguments, signature } => {
                losses.note_if(signature.is_some(), &format!("{path}.signature"), NO_WORD);
                let object = arguments_object(arguments);
                losses.note_if(object.is_none(), &format!("{path}.arguments"), BROKEN_ARGUMENTS);
                content.calls.push(call_json(id, name, object.unwrap_or("{}")));
            }
            Part::Thinking { text, signature } => {
                losses.note_if(signature.is_some(), &format!("{path}.signature"), NO_WORD);
                content.thoughts.push_str(text);
            }
            Part::HiddenThinking { .. } => losses.note(format!("{path}.thinking"), NO_WORD),
            Part::ToolResult { .. } => losses.note(path, "a result of a tool does not stand here in Ollama"),
        }
    }
    content
}

fn add_media(media: &Media, path: &str, content: &mut Content, losses: &mut Losses) {
    losses.note_if(media.cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
    match (media.kind, &media.source) {
        (MediaKind::Image, Source::Base64(data)) => {
            losses.note_if(media.detail.is_some(), &format!("{path}.detail"), NO_WORD);
            content.images.push(data.clone());
        }
        (MediaKind::Image, Source::Url(_)) => {
            losses.note(path, "Ollama fetches no images; send the image itself in Base64");
        }
        (MediaKind::Document, Source::Text(text)) => content.texts.push(text.clone()),
        (MediaKind::Image | MediaKind::Document | MediaKind::Audio | MediaKind::Video, _) => {
            losses.note(path, "Ollama takes texts and images only");
        }
    }
}
