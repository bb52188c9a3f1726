//! What providers of chat completions are sent, and send.

use crate::chat::{
    Answer, CHOICES_MAX, Choice, Conversation, Format, Losses, Media, MediaKind, Message, Part, Role, Source,
    Tool, ToolChoice,
};
use crate::dialect::{CONVERTED_DEPTH_MAX, Headers, ProviderDef, ProviderDialect, ReadStream, Relay};
use crate::json::JsonError;
use crate::json::tree::{Members, Tree};
use crate::json::write::{Object, object};
use crate::openai::error::{Fault, classify};
use crate::openai::request::{CHATS, Operation};

use super::chunks::Chunks;
use super::client::call_json;
use super::words::{effort_word, logprobs_of, stop_of, url_of, usage_of};

/// The definition.
pub static DEF: ProviderDef = ProviderDef {
    name: "openai",
    summary: "OpenAI chat completions, and whoever speaks them.",
    stream_type: "text/event-stream",
    relays: &[
        Relay {
            client: "openai",
            operations: &CHATS,
            path: |asked, _| Some(asked.operation.path_suffix().to_owned()),
            wrapping: None,
        },
        Relay {
            client: "openai-responses",
            operations: &[Operation::Response],
            path: |asked, _| Some(asked.operation.path_suffix().to_owned()),
            wrapping: None,
        },
    ],
    dialect: &ChatProvider,
};

/// The dialect.
struct ChatProvider;

impl ProviderDialect for ChatProvider {
    fn path(&self, _: &str, _: bool) -> String {
        "/chat/completions".to_owned()
    }

    fn request(&self, all: &Conversation, model: &str, losses: &mut Losses) -> String {
        object(|it| {
            it.text("model", model);
            it.array("messages", messages(all, losses));
            write_tools(it, all, losses);
            write_format(it, &all.format);
            write_sampling(it, all, losses);
            it.count_if("max_completion_tokens", all.tokens_out_max);
            if !all.stop.is_empty() {
                it.array("stop", all.stop.iter().map(|stop| crate::json::quote(stop)));
            }
            if all.choices > 1 {
                it.count("n", all.choices);
            }
            if let Some(alternatives) = all.logprobs {
                it.boolean("logprobs", true).count("top_logprobs", alternatives);
            }
            it.text_if("user", all.user.as_deref()).text_if("service_tier", all.service_tier.as_deref());
            if all.stream {
                it.boolean("stream", true).raw("stream_options", r#"{"include_usage":true}"#);
            }
        })
    }

    fn answer(&self, body: &str) -> Result<Answer, JsonError> {
        let mut body = Tree::parse(body, CONVERTED_DEPTH_MAX)?.into_members();
        let mut answer = Answer {
            id: body.take_text("id").unwrap_or_default(),
            model: body.take_text("model").unwrap_or_default(),
            created_s: body.take("created").and_then(|created| created.count()),
            usage: body.take("usage").as_ref().map(usage_of),
            service_tier: body.take_text("service_tier"),
            ..Answer::default()
        };
        let choices = body.take("choices").map(Tree::into_items).unwrap_or_default();
        answer.choices = choices
            .into_iter()
            .take(CHOICES_MAX as usize)
            .map(|choice| read_choice(choice.into_members()))
            .collect();
        Ok(answer)
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        Box::new(Chunks::default())
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        classify(status, headers("retry-after"), body)
    }
}

fn messages(all: &Conversation, losses: &mut Losses) -> Vec<String> {
    let mut out = Vec::new();
    if !all.system.is_empty() {
        out.push(object(|it| {
            it.text("role", "system");
            write_content(it, &all.system, "system", losses);
        }));
    }
    for (at, message) in all.messages.iter().enumerate() {
        let path = format!("messages[{at}].content");
        match message.role {
            Role::System | Role::User => out.push(object(|it| {
                it.text("role", if message.role == Role::User { "user" } else { "system" });
                it.text_if("name", message.name.as_deref());
                write_content(it, &message.parts, &path, losses);
            })),
            Role::Assistant => out.push(assistant(message, &path, losses)),
            Role::Tool => out.extend(results(&message.parts, &path, losses)),
        }
    }
    out
}

/// Each result is a message of its own; what a tool gave beside text follows as the user's.
fn results(parts: &[Part], path: &str, losses: &mut Losses) -> Vec<String> {
    let (mut out, mut beside) = (Vec::new(), Vec::new());
    for part in parts {
        let Part::ToolResult { id, name: _, parts, is_error } = part else {
            beside.push(part.clone());
            continue;
        };
        losses.note_if(
            *is_error,
            &format!("{path}.is_error"),
            "chat completions does not say that a tool failed",
        );
        let (texts, media): (Vec<Part>, Vec<Part>) =
            parts.iter().cloned().partition(|part| matches!(part, Part::Text { .. }));
        out.push(object(|it| {
            it.text("role", "tool").text("tool_call_id", id);
            write_content(it, &texts, path, losses);
        }));
        beside.extend(media);
    }
    if !beside.is_empty() {
        out.push(object(|it| {
            it.text("role", "user");
            write_content(it, &beside, path, losses);
        }));
    }
    out
}

fn assistant(message: &Message, path: &str, losses: &mut Losses) -> String {
    let (mut said, mut calls, mut refusal) = (Vec::new(), Vec::new(), None);
    for part in &message.parts {
        match part {
            Part::ToolCall { id, name, arguments, signature } => {
                losses.note_if(signature.is_some(), &format!("{path}.signature"), NO_SIGNATURE);
                calls.push(call_json(id, name, arguments, None));
            }
            Part::Thinking { .. } | Part::HiddenThinking { .. } => {
                losses.note(format!("{path}.thinking"), NO_SIGNATURE);
            }
            Part::Refusal(why) => refusal = Some(why),
            Part::Text { .. } | Part::Media(_) | Part::ToolResult { .. } => said.push(part.clone()),
        }
    }
    object(|it| {
        it.text("role", "assistant").text_if("name", message.name.as_deref());
        if said.is_empty() {
            it.raw("content", "null");
        } else {
            write_content(it, &said, path, losses);
        }
        it.text_if("refusal", refusal.map(String::as_str));
        if !calls.is_empty() {
            it.array("tool_calls", calls);
        }
    })
}

/// Why thoughts are lost.
const NO_SIGNATURE: &str = "chat completions takes no thoughts back";

/// Content: one text as a string, anything else as parts.
fn write_content(it: &mut Object, parts: &[Part], path: &str, losses: &mut Losses) {
    if let [Part::Text { text, cache, citations }] = parts {
        losses.note_if(citations.is_some(), &format!("{path}.citations"), NO_CITATIONS);
        losses.note_if(cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
        it.text("content", text);
        return;
    }
    let parts: Vec<String> = parts.iter().filter_map(|part| part_json(part, path, losses)).collect();
    if parts.is_empty() {
        it.text("content", "");
    } else {
        it.array("content", parts);
    }
}

/// Why citations are lost.
const NO_CITATIONS: &str = "chat completions takes no citations back";

/// Why marks for a cache are lost.
const NO_MARKS: &str = "chat completions caches by itself and takes no marks";

fn part_json(part: &Part, path: &str, losses: &mut Losses) -> Option<String> {
    match part {
        Part::Text { text, cache, citations } => {
            losses.note_if(citations.is_some(), &format!("{path}.citations"), NO_CITATIONS);
            losses.note_if(cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
            Some(object(|it| _ = it.text("type", "text").text("text", text)))
        }
        Part::Media(media) => media_json(media, path, losses),
        Part::Refusal(why) => Some(object(|it| _ = it.text("type", "refusal").text("refusal", why))),
        Part::Thinking { .. } | Part::HiddenThinking { .. } => {
            losses.note(format!("{path}.thinking"), NO_SIGNATURE);
            None
        }
        Part::ToolCall { .. } | Part::ToolResult { .. } => {
            losses.note(path, "a call or a result of a tool does not stand here in chat completions");
            None
        }
    }
}

fn media_json(media: &Media, path: &str, losses: &mut Losses) -> Option<String> {
    losses.note_if(media.cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
    let audio = |media: &Media| match &media.source {
        Source::Base64(data) => {
            let media_type = media.media_type.as_deref().unwrap_or("audio/wav");
            let format = media_type.strip_prefix("audio/").unwrap_or(media_type);
            let format = if format == "mpeg" { "mp3" } else { format.trim_start_matches("x-") };
            Some((data.clone(), format.to_owned()))
        }
        Source::Text(_) | Source::Url(_) | Source::File(_) => None,
    };
    match (media.kind, &media.source) {
        (MediaKind::Image, Source::Url(_) | Source::Base64(_)) => Some(object(|it| {
            it.text("type", "image_url");
            it.object("image_url", |it| {
                it.text("url", &url_of(media).unwrap_or_default()).text_if("detail", media.detail.as_deref());
            });
        })),
        (MediaKind::Audio, _) if audio(media).is_some() => {
            let (data, format) = audio(media)?;
            Some(object(|it| {
                it.text("type", "input_audio");
                it.object("input_audio", |it| _ = it.text("data", &data).text("format", &format));
            }))
        }
        // A plain document is text.
        (MediaKind::Document, Source::Text(text)) => {
            losses.note_if(media.name.is_some(), &format!("{path}.title"), "a plain text has no name there");
            Some(object(|it| _ = it.text("type", "text").text("text", text)))
        }
        (MediaKind::Document, Source::Base64(_)) => Some(object(|it| {
            it.text("type", "file");
            it.object("file", |it| {
                it.text("filename", media.name.as_deref().unwrap_or("document.pdf"));
                it.text("file_data", &url_of(media).unwrap_or_default());
            });
        })),
        (MediaKind::Document, Source::File(id)) => Some(object(|it| {
            it.text("type", "file").object("file", |it| _ = it.text("file_id", id));
        })),
        (MediaKind::Image | MediaKind::Audio | MediaKind::Video | MediaKind::Document, _) => {
            losses.note(path, "chat completions takes no such media, or not from there");
            None
        }
    }
}

fn write_tools(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    if !all.tools.is_empty() {
        for (at, tool) in all.tools.iter().enumerate() {
            losses.note_if(tool.cache.is_some(), &format!("tools[{at}].cache_control"), NO_MARKS);
        }
        it.array("tools", all.tools.iter().map(tool_json));
    }
    match &all.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => _ = it.text("tool_choice", "auto"),
        Some(ToolChoice::None) => _ = it.text("tool_choice", "none"),
        Some(ToolChoice::Any) => _ = it.text("tool_choice", "required"),
        Some(ToolChoice::Tool(name)) => {
            _ = it.object("tool_choice", |it| {
                it.text("type", "function").object("function", |it| _ = it.text("name", name));
            });
        }
    }
    it.boolean_if("parallel_tool_calls", all.parallel_tool_calls.filter(|_| !all.tools.is_empty()));
}

fn tool_json(tool: &Tool) -> String {
    object(|it| {
        it.text("type", "function");
        it.object("function", |it| {
            it.text("name", &tool.name).text_if("description", tool.description.as_deref());
            if let Some(schema) = &tool.parameters {
                it.raw("parameters", schema);
            }
            it.boolean_if("strict", tool.strict);
        });
    })
}

fn write_format(it: &mut Object, format: &Format) {
    match format {
        Format::Text => {}
        Format::Json => _ = it.raw("response_format", r#"{"type":"json_object"}"#),
        Format::Schema { name, description, schema, strict } => {
            _ = it.object("response_format", |it| {
                it.text("type", "json_schema");
                it.object("json_schema", |it| {
                    it.text("name", name.as_deref().unwrap_or("answer"))
                        .text_if("description", description.as_deref());
                    it.raw("schema", schema).boolean_if("strict", *strict);
                });
            });
        }
    }
}

fn write_sampling(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    let sampling = &all.sampling;
    it.number_if("temperature", sampling.temperature).number_if("top_p", sampling.top_p);
    it.number_if("presence_penalty", sampling.presence_penalty);
    it.number_if("frequency_penalty", sampling.frequency_penalty);
    if let Some(seed) = sampling.seed {
        it.raw("seed", &seed.to_string());
    }
    losses.note_if(sampling.top_k.is_some(), "top_k", "chat completions has no `top_k`");
    if let Some(reasoning) = &all.reasoning {
        let effort = reasoning.effort.or_else(|| reasoning.tokens.map(crate::chat::Effort::of_tokens));
        it.text_if("reasoning_effort", effort.map(effort_word));
    }
}

fn read_choice(mut choice: Members<'_>) -> Choice {
    let logprobs = logprobs_of(choice.take("logprobs").as_ref());
    let stop = choice.take_text("finish_reason").map(|word| stop_of(&word));
    let message = choice.take("message").map(Tree::into_members).unwrap_or_default();
    Choice { parts: said(message), stop, stop_sequence: None, logprobs }
}

fn said(mut message: Members<'_>) -> Vec<Part> {
    let content = message.take("content");
    let mut texts = Vec::new();
    if let Some(content) = content {
        match content.text() {
            Some("") => {}
            Some(text) => texts.push(Part::text(text)),
            // Some vendors answer with parts.
            None => texts.extend(content.items().iter().filter_map(|part| {
                Some(Part::text(part.get("text")?.text()?)).filter(|_| part.get("thinking").is_none())
            })),
        }
    }
    super::client::read_said(&mut message, texts)
}
