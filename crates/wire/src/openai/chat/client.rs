//! What clients of chat completions send, and are sent.

use crate::chat::{
    Answer, Choice, Conversation, Format, Losses, Media, MediaKind, Message, Part, Reasoning, Role, Source,
    Tool, ToolChoice,
};
use crate::dialect::{Asked, ClientDef, ClientDialect, Told, WriteStream};
use crate::json::Kind;
use crate::json::tree::{Members, Tree};
use crate::json::write::{Object, object};
use crate::openai::error::{ErrorBody, Invalid};
use crate::openai::request::{self, Operation};
use crate::tasks::{self, TaskRequest};

use super::delta::Deltas;
use super::words::{
    effort_of, fill_signature, finish_reason, logprobs_json, signature_of, source_of_url, usage_json,
};

/// The definition.
pub static DEF: ClientDef = ClientDef {
    name: "openai",
    summary: "OpenAI (`/v1/chat/completions`; completions, embeddings and tasks as they are).",
    route: |path, _| Asked::of_path(path).filter(|asked| asked.operation != Operation::Response),
    places: &[],
    read: |asked, body, limits, salt| match asked.operation {
        Operation::Task(task) => tasks::json::parse(task, body, limits).map(TaskRequest::into_request),
        Operation::Chat
        | Operation::Completion
        | Operation::Embedding
        | Operation::Infer
        | Operation::Response => request::parse(asked.operation, body, limits, salt),
    },
    headers: &[],
    request_id_header: Some("x-request-id"),
    error_status: |error| error.status,
    stream_type: |_| "text/event-stream",
    heartbeat: ": ping\n\n",
    dialect: &ChatClient,
};

/// The dialect.
struct ChatClient;

/// Why a field of chat completions is lost.
const NO_WORD: &str = "the provider's dialect has no such field";

impl ClientDialect for ChatClient {
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid> {
        let mut body = body.into_members();
        let mut all = Conversation { choices: 1, ..Conversation::default() };
        body.take("model");
        read_messages(body.take("messages"), &mut all)?;
        read_tools(&mut body, &mut all)?;
        read_format(&mut body, &mut all);
        read_sampling(&mut body, &mut all);
        read_limits(&mut body, &mut all);
        for (name, value) in body.rest().filter(|(_, value)| !says_nothing(value)) {
            if !(name == "modalities" && value.raw().replace([' ', '\n'], "") == r#"["text"]"#) {
                all.losses.note(name, NO_WORD);
            }
        }
        Ok(all)
    }

    fn answer(&self, answer: &Answer, told: &Told, losses: &mut Losses) -> String {
        object(|it| {
            it.text("id", if answer.id.is_empty() { &told.id } else { &answer.id });
            it.text("object", "chat.completion")
                .count("created", answer.created_s.unwrap_or(told.now_unix_s));
            it.text("model", &told.model);
            let choices = answer.choices.iter().enumerate();
            it.array("choices", choices.map(|(index, choice)| choice_json(index, choice, losses)));
            if let Some(usage) = &answer.usage {
                it.raw("usage", &usage_json(usage));
            }
            it.text_if("service_tier", answer.service_tier.as_deref());
        })
    }

    fn stream(&self, told: Told) -> Box<dyn WriteStream> {
        Box::new(Deltas::new(told))
    }

    fn error(&self, error: &ErrorBody, _: &str) -> String {
        format!("{{\"error\":{{{}}}}}", error.members())
    }
}

/// Whether a value asks for nothing: `false`, an empty object or array.
pub(crate) fn says_nothing(value: &Tree<'_>) -> bool {
    match value.kind() {
        Kind::Null => true,
        Kind::Bool => value.boolean() == Some(false),
        Kind::Array => value.items().is_empty(),
        Kind::Object => value.clone().into_members().rest().next().is_none(),
        Kind::String | Kind::Number => false,
    }
}

fn read_messages(messages: Option<Tree<'_>>, all: &mut Conversation) -> Result<(), Invalid> {
    for (at, message) in messages.map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let mut message = message.into_members();
        let role = message.take_text("role").unwrap_or_default();
        let name = message.take_text("name");
        let content = message.take("content");
        let read = |losses: &mut Losses| read_content(content, &format!("{path}.content"), losses);
        match role.as_str() {
            "system" | "developer" if all.messages.is_empty() => {
                let parts = read(&mut all.losses)?;
                all.system.extend(parts);
            }
            "system" | "developer" => {
                let parts = read(&mut all.losses)?;
                all.messages.push(Message { role: Role::System, name, parts });
            }
            "user" => {
                let parts = read(&mut all.losses)?;
                all.messages.push(Message { role: Role::User, name, parts });
            }
            "assistant" => {
                let content = read(&mut all.losses)?;
                let parts = read_said(&mut message, content);
                all.messages.push(Message { role: Role::Assistant, name, parts });
            }
            "tool" | "function" => {
                let id = message.take_text("tool_call_id").or_else(|| name.clone()).unwrap_or_default();
                let parts = read(&mut all.losses)?;
                let result = Part::ToolResult { id, name, parts, is_error: false };
                match all.messages.last_mut() {
                    Some(last) if last.role == Role::Tool => last.parts.push(result),
                    Some(_) | None => {
                        all.messages.push(Message { role: Role::Tool, name: None, parts: vec![result] });
                    }
                }
            }
            other => {
                let text = format!("`{path}.role`: `{other}` is no role that another dialect knows");
                return Err(Invalid::field(format!("{path}.role"), text));
            }
        }
        for (name, _) in message.rest().filter(|(_, value)| !says_nothing(value)) {
            all.losses.note(format!("{path}.{name}"), NO_WORD);
        }
    }
    Ok(())
}

/// What an assistant's message has beside its content: thoughts before it, a refusal and calls behind it.
pub(super) fn read_said(message: &mut Members<'_>, content: Vec<Part>) -> Vec<Part> {
    let mut parts = Vec::new();
    let details = message.take("reasoning_details").map(Tree::into_items).unwrap_or_default();
    let plain = message.take_text("reasoning_content");
    let plain = message.take_text("reasoning").or(plain).filter(|text| !text.is_empty());
    for detail in details {
        let mut detail = detail.into_members();
        if let Some(data) = detail.take_text("data") {
            parts.push(Part::HiddenThinking { data });
        } else if let Some(text) = detail.take_text("text") {
            parts.push(Part::Thinking { text, signature: detail.take_text("signature") });
        }
    }
    if let (true, Some(text)) = (parts.is_empty(), plain) {
        parts.push(Part::Thinking { text, signature: None });
    }
    parts.extend(content);
    parts.extend(message.take_text("refusal").map(Part::Refusal));
    for call in message.take("tool_calls").map(Tree::into_items).unwrap_or_default() {
        let mut call = call.into_members();
        let id = call.take_text("id").unwrap_or_default();
        let function = call.take("function").map(Tree::into_members).unwrap_or_default();
        let signed = call.take("extra_content").as_ref().and_then(signature_of);
        parts.push(read_call(id, function, signed));
    }
    if let Some(function) = message.take("function_call") {
        let mut call = read_call(String::new(), function.into_members(), None);
        if let Part::ToolCall { id, name, .. } = &mut call {
            id.clone_from(name);
        }
        parts.push(call);
    }
    parts
}

fn read_call(id: String, mut function: Members<'_>, signature: Option<String>) -> Part {
    let name = function.take_text("name").unwrap_or_default();
    let arguments = function.take_text("arguments").unwrap_or_default();
    Part::ToolCall { id, name, arguments, signature }
}

fn read_content(content: Option<Tree<'_>>, path: &str, losses: &mut Losses) -> Result<Vec<Part>, Invalid> {
    let Some(content) = content else { return Ok(Vec::new()) };
    if let Some(text) = content.text() {
        return Ok(vec![Part::text(text)]);
    }
    let mut parts = Vec::new();
    for (at, part) in content.into_items().into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        let mut part = part.into_members();
        let kind = part.take_text("type").unwrap_or_default();
        let cache = part.take("cache_control").map(|mark| mark.raw().to_owned());
        let read = match kind.as_str() {
            "text" => {
                let text = part.take_text("text").unwrap_or_default();
                Part::Text { text, cache, citations: None }
            }
            "refusal" => Part::Refusal(part.take_text("refusal").unwrap_or_default()),
            "image_url" => {
                let mut image = part.take("image_url").map(Tree::into_members).unwrap_or_default();
                let (source, media_type) = source_of_url(image.take_text("url").unwrap_or_default());
                let detail = image.take_text("detail");
                Part::Media(Media { kind: MediaKind::Image, media_type, source, name: None, detail, cache })
            }
            "input_audio" => {
                let mut audio = part.take("input_audio").map(Tree::into_members).unwrap_or_default();
                let source = Source::Base64(audio.take_text("data").unwrap_or_default());
                let media_type = audio.take_text("format").map(|format| format!("audio/{format}"));
                Part::Media(Media {
                    kind: MediaKind::Audio,
                    media_type,
                    source,
                    name: None,
                    detail: None,
                    cache,
                })
            }
            "file" => read_file(part.take("file"), cache),
            other => {
                let text = format!("`{path}.type`: `{other}` is nothing that another dialect knows");
                return Err(Invalid::field(format!("{path}.type"), text));
            }
        };
        parts.push(read);
        for (name, _) in part.rest() {
            losses.note(format!("{path}.{name}"), NO_WORD);
        }
    }
    Ok(parts)
}

fn read_file(file: Option<Tree<'_>>, cache: Option<String>) -> Part {
    let mut file = file.map(Tree::into_members).unwrap_or_default();
    let name = file.take_text("filename");
    let (source, media_type) = match (file.take_text("file_data"), file.take_text("file_id")) {
        (Some(data), _) => source_of_url(data),
        (None, id) => (Source::File(id.unwrap_or_default()), None),
    };
    Part::Media(Media { kind: MediaKind::Document, media_type, source, name, detail: None, cache })
}

fn read_tools(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    for (at, tool) in body.take("tools").map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let mut tool = tool.into_members();
        let kind = tool.take_text("type").unwrap_or_else(|| "function".to_owned());
        if kind != "function" {
            let field = format!("tools[{at}].type");
            let text =
                format!("`{field}`: a tool of the type `{kind}` is run by its provider; others have none");
            return Err(Invalid::field(field, text));
        }
        let cache = tool.take("cache_control").map(|mark| mark.raw().to_owned());
        let function = tool.take("function").map(Tree::into_members).unwrap_or_default();
        all.tools.push(read_tool(function, cache));
    }
    let functions = body.take("functions").map(Tree::into_items).unwrap_or_default();
    all.tools.extend(functions.into_iter().map(|function| read_tool(function.into_members(), None)));
    all.parallel_tool_calls = body.take("parallel_tool_calls").and_then(|value| value.boolean());
    let choice = body.take("tool_choice");
    let choice = choice.or_else(|| body.take("function_call"));
    all.tool_choice = choice.and_then(|choice| match choice.text() {
        Some("none") => Some(ToolChoice::None),
        Some("required") => Some(ToolChoice::Any),
        Some(_) => Some(ToolChoice::Auto),
        None => {
            let named = choice.get("function").unwrap_or(&choice).get("name");
            named.and_then(Tree::text).map(|name| ToolChoice::Tool(name.to_owned()))
        }
    });
    Ok(())
}

fn read_tool(mut function: Members<'_>, cache: Option<String>) -> Tool {
    Tool {
        name: function.take_text("name").unwrap_or_default(),
        description: function.take_text("description"),
        parameters: function.take("parameters").map(|schema| schema.raw().to_owned()),
        strict: function.take("strict").and_then(|strict| strict.boolean()),
        cache,
    }
}

fn read_format(body: &mut Members<'_>, all: &mut Conversation) {
    let Some(format) = body.take("response_format") else { return };
    let mut format = format.into_members();
    all.format = match format.take_text("type").as_deref() {
        Some("json_object") => Format::Json,
        Some("json_schema") => {
            let mut schema = format.take("json_schema").map(Tree::into_members).unwrap_or_default();
            Format::Schema {
                name: schema.take_text("name"),
                description: schema.take_text("description"),
                schema: schema
                    .take("schema")
                    .map_or_else(|| "{}".to_owned(), |schema| schema.raw().to_owned()),
                strict: schema.take("strict").and_then(|strict| strict.boolean()),
            }
        }
        Some(_) | None => Format::Text,
    };
}

fn read_sampling(body: &mut Members<'_>, all: &mut Conversation) {
    let mut number = |name: &str| body.take(name).and_then(|value| value.number());
    let sampling = &mut all.sampling;
    sampling.temperature = number("temperature");
    sampling.top_p = number("top_p");
    sampling.presence_penalty = number("presence_penalty");
    sampling.frequency_penalty = number("frequency_penalty");
    sampling.top_k = body.take("top_k").and_then(|value| value.count());
    sampling.seed = body.take("seed").and_then(|value| value.raw().parse().ok());
}

fn read_limits(body: &mut Members<'_>, all: &mut Conversation) {
    let mut count = |name: &str| body.take(name).and_then(|value| value.count());
    let (completion, tokens) = (count("max_completion_tokens"), count("max_tokens"));
    all.tokens_out_max = completion.max(tokens);
    all.choices = count("n").unwrap_or(1).max(1);
    let alternatives = count("top_logprobs");
    let logprobs = body.take("logprobs").and_then(|value| value.boolean()).unwrap_or(false);
    all.logprobs = logprobs.then_some(alternatives.unwrap_or(0));
    all.stop = match body.take("stop") {
        Some(stop) if stop.text().is_some() => stop.into_text().into_iter().collect(),
        Some(stop) => stop.into_items().into_iter().filter_map(Tree::into_text).collect(),
        None => Vec::new(),
    };
    all.stream = body.take("stream").and_then(|value| value.boolean()).unwrap_or(false);
    let options = body.take("stream_options");
    let asked = options.as_ref().and_then(|options| options.get("include_usage")?.boolean());
    all.stream_usage = asked.unwrap_or(false);
    all.user = body.take_text("user");
    all.service_tier = body.take_text("service_tier").filter(|tier| tier != "auto");
    let effort = body.take_text("reasoning_effort").and_then(|word| effort_of(&word));
    all.reasoning = effort.map(|effort| Reasoning { effort: Some(effort), ..Reasoning::default() });
}

fn choice_json(index: usize, choice: &Choice, losses: &mut Losses) -> String {
    object(|it| {
        it.count("index", index as u64);
        it.object("message", |it| message_json(it, &choice.parts, losses));
        it.raw("logprobs", &logprobs_json(&choice.logprobs));
        match choice.stop {
            Some(stop) => it.text("finish_reason", finish_reason(stop)),
            None => it.raw("finish_reason", "null"),
        };
    })
}

/// An assistant's message of these parts.
fn message_json(it: &mut Object, parts: &[Part], losses: &mut Losses) {
    it.text("role", "assistant");
    let (mut text, mut thoughts, mut refusal) = (None::<String>, String::new(), None::<&str>);
    let (mut details, mut calls) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Text { text: more, citations, .. } => {
                losses.note_if(citations.is_some(), "citations", "chat completions cites in no such form");
                text.get_or_insert_default().push_str(more);
            }
            Part::Thinking { text: more, signature } => {
                thoughts.push_str(more);
                details.push(object(|it| {
                    it.text("type", "reasoning.text").text("text", more);
                    it.text_if("signature", signature.as_deref());
                }));
            }
            Part::HiddenThinking { data } => {
                details.push(object(|it| _ = it.text("type", "reasoning.encrypted").text("data", data)));
            }
            Part::ToolCall { id, name, arguments, signature } => {
                calls.push(call_json(id, name, arguments, signature.as_deref()));
            }
            Part::Refusal(why) => refusal = Some(why),
            Part::Media(_) => losses.note("content", "chat completions answers with text only"),
            Part::ToolResult { .. } => losses.note("content", "a model gives no results of tools"),
        }
    }
    match text.as_deref() {
        Some(text) => it.text("content", text),
        None => it.raw("content", "null"),
    };
    match refusal {
        Some(why) => it.text("refusal", why),
        None => it.raw("refusal", "null"),
    };
    if !thoughts.is_empty() {
        it.text("reasoning_content", &thoughts);
    }
    if !details.is_empty() {
        it.array("reasoning_details", details);
    }
    if !calls.is_empty() {
        it.array("tool_calls", calls);
    }
}

pub(crate) fn call_json(id: &str, name: &str, arguments: &str, signature: Option<&str>) -> String {
    object(|it| {
        it.text("id", id).text("type", "function");
        it.object("function", |it| _ = it.text("name", name).text("arguments", arguments));
        if let Some(signature) = signature {
            fill_signature(it, signature);
        }
    })
}
