//! What providers of Cohere's `/v2/chat` are sent, and send.

use crate::chat::{
    Answer, Choice, Conversation, Effort, Format, Losses, Media, MediaKind, Message, Part, Reasoning, Role,
    Source, Tool, ToolChoice,
};
use crate::dialect::{
    AnswerFault, CONVERTED_DEPTH_MAX, Headers, ProviderDef, ProviderDialect, ReadStream, Relay,
};
use crate::json::quote;
use crate::json::tree::{Members, Tree};
use crate::json::write::{Object, array, compact, object};
use crate::openai::error::{Fault, FaultKind, classify};
use crate::openai::request::Operation;
use crate::tasks::Task;

use super::chunks::Chunks;
use super::words::{logprobs_of, stop_of, usage_of};

/// The definition.
pub static DEF: ProviderDef = ProviderDef {
    name: "cohere",
    summary: "Cohere chats (`/v2/chat`).",
    stream_type: "text/event-stream",
    relays: &[Relay {
        client: "openai",
        operations: &[Operation::Task(Task::Rerank)],
        path: |asked, _| Some(asked.operation.path_suffix().to_owned()),
        wrapping: None,
    }],
    dialect: &CohereProvider,
};

/// The dialect.
struct CohereProvider;

/// Why something is lost.
const NO_WORD: &str = "Cohere has no such field";
/// Why marks for a cache are lost.
const NO_MARKS: &str = "Cohere caches by itself and takes no marks";
/// Texts that may end an answer, by Cohere's documentation.
const STOPS_MAX: usize = 5;

impl ProviderDialect for CohereProvider {
    fn path(&self, _: &str, _: bool) -> String {
        "/chat".to_owned()
    }

    fn request(&self, all: &Conversation, model: &str, losses: &mut Losses) -> String {
        let mut documents = Vec::new();
        object(|it| {
            it.boolean("stream", all.stream).text("model", model);
            it.array("messages", messages(all, &mut documents, losses));
            if !documents.is_empty() {
                it.array("documents", &documents);
            }
            write_tools(it, all, losses);
            write_format(it, &all.format, losses);
            write_sampling(it, all, losses);
            if let Some(reasoning) = &all.reasoning {
                write_thinking(it, reasoning, losses);
            }
            losses.note_if(all.choices > 1, "n", "Cohere gives one answer");
            losses.note_if(all.user.is_some(), "user", NO_WORD);
            losses.note_if(all.service_tier.is_some(), "service_tier", NO_WORD);
        })
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        let mut body = Tree::parse(body, CONVERTED_DEPTH_MAX)?.into_members();
        let mut losses = Losses::default();
        // A text there is the message of an error.
        let message = body.take("message").filter(|message| message.text().is_none());
        let message = message.ok_or(AnswerFault::Missing("message"))?;
        let choice = Choice {
            parts: said(message.into_members()),
            stop: body.take_text("finish_reason").map(|word| stop_of(&word)),
            stop_sequence: None,
            logprobs: logprobs_of(body.take("logprobs").as_ref(), &mut losses),
        };
        Ok(Answer {
            id: body.take_text("id").unwrap_or_default(),
            choices: vec![choice],
            usage: body.take("usage").as_ref().map(usage_of),
            losses,
            ..Answer::default()
        })
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        Box::new(Chunks::default())
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        let fault = classify(status, headers("retry-after"), body);
        let says = |phrase: &str| fault.message.as_deref().is_some_and(|message| message.contains(phrase));
        match status {
            400 | 422 if says("too many tokens") || says("maximum context") => {
                Fault { kind: FaultKind::ContextLength, ..fault }
            }
            // What it was asked, or would have said, contains a word of its deny list.
            498 => Fault { kind: FaultKind::ContentPolicy, ..fault },
            _ => fault,
        }
    }
}

/// The parts of an answer. A plan comes before the calls that it is for; it is text that a reader sees.
fn said(mut message: Members<'_>) -> Vec<Part> {
    let mut parts = Vec::new();
    for part in message.take("content").map(Tree::into_items).unwrap_or_default() {
        let mut part = part.into_members();
        if let Some(text) = part.take_text("thinking").filter(|text| !text.is_empty()) {
            parts.push(Part::Thinking { text, signature: None });
        } else if let Some(text) = part.take_text("text").filter(|text| !text.is_empty()) {
            parts.push(Part::text(text));
        }
    }
    parts.extend(message.take_text("tool_plan").filter(|plan| !plan.is_empty()).map(Part::text));
    if let (Some(given), Some(Part::Text { citations, .. })) = (
        message.take("citations").filter(|citations| !citations.items().is_empty()),
        parts.iter_mut().rfind(|part| matches!(part, Part::Text { .. })),
    ) {
        *citations = Some(array(given.items().iter().map(|item| compact(item.raw()))));
    }
    for call in message.take("tool_calls").map(Tree::into_items).unwrap_or_default() {
        let mut call = call.into_members();
        let id = call.take_text("id").unwrap_or_default();
        let mut function = call.take("function").map(Tree::into_members).unwrap_or_default();
        parts.push(Part::ToolCall {
            id,
            name: function.take_text("name").unwrap_or_default(),
            arguments: function.take_text("arguments").unwrap_or_default(),
            signature: None,
        });
    }
    parts
}

fn messages(all: &Conversation, documents: &mut Vec<String>, losses: &mut Losses) -> Vec<String> {
    let mut out = Vec::new();
    if !all.system.is_empty() {
        out.push(said_json("system", &all.system, "system", documents, losses));
    }
    for (at, message) in all.messages.iter().enumerate() {
        let path = format!("messages[{at}]");
        losses.note_if(message.name.is_some(), &format!("{path}.name"), NO_WORD);
        let path = format!("{path}.content");
        match message.role {
            Role::System => out.push(said_json("system", &message.parts, &path, documents, losses)),
            Role::User => out.push(said_json("user", &message.parts, &path, documents, losses)),
            Role::Assistant => out.push(assistant(message, &path, documents, losses)),
            Role::Tool => results(&message.parts, &path, &mut out, documents, losses),
        }
    }
    out
}

fn said_json(
    role: &str,
    parts: &[Part],
    path: &str,
    documents: &mut Vec<String>,
    losses: &mut Losses,
) -> String {
    object(|it| {
        it.text("role", role);
        write_content(it, parts, path, documents, losses);
    })
}

/// What a model said: beside calls its text is their plan.
fn assistant(message: &Message, path: &str, documents: &mut Vec<String>, losses: &mut Losses) -> String {
    let is_call = |part: &Part| matches!(part, Part::ToolCall { .. });
    let calls = message.parts.iter().any(is_call);
    let is_plan = |part: &&Part| calls && matches!(part, Part::Text { .. } | Part::Refusal(_));
    let plan: Vec<&str> = message
        .parts
        .iter()
        .filter(is_plan)
        .filter_map(|part| match part {
            Part::Text { text, .. } | Part::Refusal(text) => Some(text.as_str()),
            Part::Media(_)
            | Part::ToolCall { .. }
            | Part::ToolResult { .. }
            | Part::Thinking { .. }
            | Part::HiddenThinking { .. } => None,
        })
        .collect();
    let rest: Vec<Part> =
        message.parts.iter().filter(|part| !is_plan(part) && !is_call(part)).cloned().collect();
    object(|it| {
        it.text("role", "assistant");
        if !plan.is_empty() {
            it.text("tool_plan", &plan.join("\n"));
        }
        if !calls || !rest.is_empty() {
            write_content(it, &rest, path, documents, losses);
        }
        let calls = message.parts.iter().filter_map(|part| match part {
            Part::ToolCall { id, name, arguments, signature } => {
                losses.note_if(signature.is_some(), &format!("{path}.signature"), NO_WORD);
                Some(crate::openai::chat::call_json(id, name, arguments, None))
            }
            Part::Text { .. }
            | Part::Media(_)
            | Part::ToolResult { .. }
            | Part::Thinking { .. }
            | Part::HiddenThinking { .. }
            | Part::Refusal(_) => None,
        });
        let calls: Vec<String> = calls.collect();
        if !calls.is_empty() {
            it.array("tool_calls", calls);
        }
    })
}

/// Each result is a message of its own; what stands beside them follows as the user's.
fn results(
    parts: &[Part],
    path: &str,
    out: &mut Vec<String>,
    documents: &mut Vec<String>,
    losses: &mut Losses,
) {
    let mut beside = Vec::new();
    for part in parts {
        let Part::ToolResult { id, name: _, parts, is_error } = part else {
            beside.push(part.clone());
            continue;
        };
        losses.note_if(*is_error, &format!("{path}.is_error"), "Cohere does not say that a tool failed");
        let (texts, media): (Vec<Part>, Vec<Part>) =
            parts.iter().cloned().partition(|part| matches!(part, Part::Text { .. }));
        out.push(object(|it| {
            it.text("role", "tool").text("tool_call_id", id);
            write_content(it, &texts, path, documents, losses);
        }));
        beside.extend(media);
    }
    if !beside.is_empty() {
        out.push(said_json("user", &beside, path, documents, losses));
    }
}

/// Content: one text as a string, anything else as parts.
fn write_content(
    it: &mut Object,
    parts: &[Part],
    path: &str,
    documents: &mut Vec<String>,
    losses: &mut Losses,
) {
    if let [Part::Text { text, cache, citations }] = parts {
        losses.note_if(cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
        losses.note_if(citations.is_some(), &format!("{path}.citations"), NO_CITATIONS);
        it.text("content", text);
        return;
    }
    let parts: Vec<String> =
        parts.iter().filter_map(|part| part_json(part, path, documents, losses)).collect();
    if parts.is_empty() {
        it.text("content", "");
    } else {
        it.array("content", parts);
    }
}

/// Why citations are lost.
const NO_CITATIONS: &str = "citations of another answer are not sent back to Cohere";

fn part_json(part: &Part, path: &str, documents: &mut Vec<String>, losses: &mut Losses) -> Option<String> {
    match part {
        Part::Text { text, cache, citations } => {
            losses.note_if(cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
            losses.note_if(citations.is_some(), &format!("{path}.citations"), NO_CITATIONS);
            Some(object(|it| _ = it.text("type", "text").text("text", text)))
        }
        Part::Refusal(why) => Some(object(|it| _ = it.text("type", "text").text("text", why))),
        Part::Thinking { text, signature } => {
            losses.note_if(signature.is_some(), &format!("{path}.signature"), NO_WORD);
            let shown = object(|it| _ = it.text("type", "thinking").text("thinking", text));
            Some(shown).filter(|_| !text.is_empty())
        }
        Part::HiddenThinking { .. } => {
            losses.note(format!("{path}.thinking"), NO_WORD);
            None
        }
        Part::Media(media) => media_json(media, path, documents, losses),
        Part::ToolCall { .. } | Part::ToolResult { .. } => {
            losses.note(path, "a call or a result of a tool does not stand here in Cohere");
            None
        }
    }
}

fn media_json(media: &Media, path: &str, documents: &mut Vec<String>, losses: &mut Losses) -> Option<String> {
    losses.note_if(media.cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
    match (media.kind, &media.source) {
        (MediaKind::Image, Source::Url(_) | Source::Base64(_)) => {
            let url = match &media.source {
                Source::Base64(data) => {
                    format!("data:{};base64,{data}", media.media_type.as_deref().unwrap_or("image/png"))
                }
                Source::Url(text) | Source::Text(text) | Source::File(text) => text.clone(),
            };
            Some(object(|it| {
                it.text("type", "image_url");
                it.object("image_url", |it| {
                    it.text("url", &url).text_if("detail", media.detail.as_deref());
                });
            }))
        }
        // Documents stand beside the messages, so that they can be cited.
        (MediaKind::Document, Source::Text(text)) => {
            documents.push(object(|it| {
                it.object("data", |it| _ = it.text_if("title", media.name.as_deref()).text("text", text));
            }));
            None
        }
        (MediaKind::Image | MediaKind::Document | MediaKind::Audio | MediaKind::Video, _) => {
            losses.note(path, "Cohere takes texts, images and documents of text only");
            None
        }
    }
}

fn write_tools(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    if !all.tools.is_empty() {
        for (at, tool) in all.tools.iter().enumerate() {
            losses.note_if(tool.cache.is_some(), &format!("tools[{at}].cache_control"), NO_MARKS);
        }
        let named = match &all.tool_choice {
            Some(ToolChoice::Tool(name)) => all.tools.iter().find(|tool| tool.name == *name),
            Some(ToolChoice::Auto | ToolChoice::None | ToolChoice::Any) | None => None,
        };
        // One tool cannot be named, but it can be the only one there is.
        match named {
            Some(tool) => it.array("tools", [tool_json(tool)]),
            None => it.array("tools", all.tools.iter().map(tool_json)),
        };
        let hidden = named.is_some() && all.tools.len() > 1;
        losses.note_if(hidden, "tools", "Cohere cannot be told which tool to call, so it is shown no other");
        // Strictness is for all of them at once.
        if all.tools.iter().any(|tool| tool.strict == Some(true)) {
            it.boolean("strict_tools", true);
        }
    }
    match &all.tool_choice {
        None | Some(ToolChoice::Auto) => {}
        Some(ToolChoice::None) => _ = it.text("tool_choice", "NONE"),
        Some(ToolChoice::Any | ToolChoice::Tool(_)) => _ = it.text("tool_choice", "REQUIRED"),
    }
    let single = all.parallel_tool_calls == Some(false) && !all.tools.is_empty();
    losses.note_if(single, "parallel_tool_calls", NO_WORD);
}

fn tool_json(tool: &Tool) -> String {
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
}

fn write_format(it: &mut Object, format: &Format, losses: &mut Losses) {
    match format {
        Format::Text => {}
        Format::Json => _ = it.raw("response_format", r#"{"type":"json_object"}"#),
        Format::Schema { description, schema, .. } => {
            losses.note_if(description.is_some(), "response_format.description", NO_WORD);
            it.object("response_format", |it| _ = it.text("type", "json_object").raw("json_schema", schema));
        }
    }
}

fn write_sampling(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    let sampling = &all.sampling;
    it.count_if("max_tokens", all.tokens_out_max);
    if !all.stop.is_empty() {
        it.array("stop_sequences", all.stop.iter().take(STOPS_MAX).map(|stop| quote(stop)));
    }
    losses.note_if(all.stop.len() > STOPS_MAX, "stop", "Cohere takes five texts that end an answer");
    it.number_if("temperature", sampling.temperature).number_if("p", sampling.top_p);
    it.count_if("k", sampling.top_k);
    let mut penalty = |name: &str, value: Option<f64>| {
        let fits = value.filter(|value| (0.0..=1.0).contains(value));
        losses.note_if(fits != value, name, "Cohere takes penalties from 0 to 1");
        it.number_if(name, fits);
    };
    penalty("frequency_penalty", sampling.frequency_penalty);
    penalty("presence_penalty", sampling.presence_penalty);
    let seed = sampling.seed.and_then(|seed| u64::try_from(seed).ok());
    losses.note_if(sampling.seed.is_some() && seed.is_none(), "seed", "Cohere takes no negative seeds");
    it.count_if("seed", seed);
    if let Some(alternatives) = all.logprobs {
        it.boolean("logprobs", true);
        losses.note_if(alternatives > 0, "top_logprobs", NO_WORD);
    }
}

fn write_thinking(it: &mut Object, reasoning: &Reasoning, losses: &mut Losses) {
    let tokens = reasoning.tokens.or_else(|| reasoning.effort.map(Effort::tokens));
    match tokens {
        Some(0) => _ = it.raw("thinking", r#"{"type":"disabled"}"#),
        Some(tokens) => {
            _ = it.object("thinking", |it| _ = it.text("type", "enabled").count("token_budget", tokens));
        }
        None => losses.note_if(reasoning.visible.is_some(), "reasoning", "Cohere shows all thoughts"),
    }
}
