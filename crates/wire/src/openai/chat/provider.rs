//! What providers of chat completions are sent, and send.

use crate::chat::{
    Answer, CHOICES_MAX, Choice, Conversation, Effort, Format, Losses, Media, MediaKind, Message, Part, Role,
    Source, Stop, Tool, ToolChoice,
};
use crate::dialect::{
    AnswerFault, CONVERTED_DEPTH_MAX, Headers, ProviderDef, ProviderDialect, ReadStream, Relay,
};
use crate::json::quote;
use crate::json::tree::{Members, Tree};
use crate::json::write::{Object, array, object};
use crate::openai::error::{Fault, classify};
use crate::openai::request::{CHATS, Operation};
use crate::openai::sse::error_of;
use crate::openai::usage::is_usual_tier;
use crate::taken::note_rest;

use super::chunks::Chunks;
use super::client::call_json;
use super::habits::{Body, Field, Habits};
use super::said::read_said;
use super::words::{
    NO_REASON, NO_SUCH_REASON, call_id, effort_word, logprobs_of, pieces_of, stop_of, url_of, usage_of,
};

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
            let mut body = Body { it, habits: all.habits, losses };
            let parallel = all.parallel_tool_calls.filter(|_| !all.tools.is_empty());
            body.put(Field::ParallelToolCalls, parallel.map(|parallel| parallel.to_string()));
            body.put(Field::ResponseFormat, format_json(&all.format));
            write_sampling(&mut body, all);
            body.count(Field::MaxCompletionTokens, all.tokens_out_max);
            let stop = (!all.stop.is_empty()).then(|| array(all.stop.iter().map(|stop| quote(stop))));
            body.put(Field::Stop, stop);
            body.count(Field::N, Some(all.choices).filter(|choices| *choices > 1));
            body.put(Field::Logprobs, all.logprobs.map(|_| "true".to_owned()));
            body.count(Field::TopLogprobs, all.logprobs);
            body.text(Field::User, all.user.as_deref());
            body.text(Field::ServiceTier, all.service_tier.as_deref());
            if all.stream {
                it.boolean("stream", true);
            }
            if all.stream && all.habits.stream_usage {
                it.raw("stream_options", r#"{"include_usage":true}"#);
            }
        })
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        let tree = Tree::parse(body, CONVERTED_DEPTH_MAX)?;
        if is_error(&tree) {
            return Err(AnswerFault::Failed(error_of(body.as_bytes())));
        }
        let mut body = tree.into_members();
        let mut answer = Answer {
            id: body.take_text("id").unwrap_or_default(),
            model: body.take_text("model").unwrap_or_default(),
            created_s: body.take("created").and_then(|created| created.count()),
            usage: body.take("usage").as_ref().map(usage_of),
            service_tier: body.take_text("service_tier"),
            ..Answer::default()
        };
        if let (Some(usage), Some(tier)) = (&mut answer.usage, &answer.service_tier) {
            usage.off_list |= !is_usual_tier(tier);
        }
        let choices = body.take("choices").map(Tree::into_items).unwrap_or_default();
        if !choices.iter().any(|choice| choice.get("message").is_some()) {
            return Err(AnswerFault::Missing("choices[0].message"));
        }
        for (index, choice) in choices.into_iter().take(CHOICES_MAX as usize).enumerate() {
            let choice = read_choice(choice.into_members(), &answer.id, index, &mut answer.losses);
            let why = match choice.stop {
                None => Some(NO_REASON),
                Some(Stop::Other) => Some(NO_SUCH_REASON),
                Some(_) => None,
            };
            if let Some(why) = why {
                answer.losses.note(format!("choices[{index}].finish_reason"), why);
            }
            answer.choices.push(choice);
        }
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
                it.text_if("name", name_of(message, at, all.habits, losses));
                write_content(it, &message.parts, &path, losses);
            })),
            Role::Assistant => {
                let name = name_of(message, at, all.habits, losses);
                out.extend(assistant(message, name, &path, all.habits, losses));
            }
            Role::Tool => out.extend(results(&message.parts, &path, all.habits, losses)),
        }
    }
    out
}

/// Each result is a message of its own; what a tool gave beside text follows as the user's.
fn results(parts: &[Part], path: &str, habits: Habits, losses: &mut Losses) -> Vec<String> {
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
            it.text("role", "tool").text("tool_call_id", &habits.call_id(id));
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

/// The name of who speaks, if the vendor takes names.
fn name_of<'m>(message: &'m Message, at: usize, habits: Habits, losses: &mut Losses) -> Option<&'m str> {
    let refused = habits.refuses(Field::Name);
    losses.note_if(refused && message.name.is_some(), &format!("messages[{at}].name"), NO_NAMES);
    message.name.as_deref().filter(|_| !refused)
}

/// Why names are lost.
const NO_NAMES: &str = "the vendor takes no names of those who speak";

/// A turn of the model's; `None` if nothing is left that may stand alone.
fn assistant(
    message: &Message,
    name: Option<&str>,
    path: &str,
    habits: Habits,
    losses: &mut Losses,
) -> Option<String> {
    let (mut said, mut calls, mut refusal) = (Vec::new(), Vec::new(), None);
    let mut thoughts = Thoughts { field: habits.reasoning_field, ..Thoughts::default() };
    for part in &message.parts {
        match part {
            Part::ToolCall { id, name, arguments, signature } => {
                losses.note_if(signature.is_some(), &format!("{path}.signature"), NO_SIGNATURE);
                calls.push(call_json(&habits.call_id(id), name, arguments, None));
            }
            Part::Thinking { text, signature } => {
                thoughts.add(text, signature.as_deref(), path, losses);
            }
            Part::HiddenThinking { .. } => losses.note(format!("{path}.thinking"), NO_SIGNATURE),
            Part::Refusal(why) => refusal = Some(why),
            Part::Text { .. } | Part::Media(_) | Part::ToolResult { .. } => said.push(part.clone()),
        }
    }
    if said.is_empty() && calls.is_empty() && refusal.is_none() {
        losses.note(path, "chat completions takes no turn of the model that neither says nor calls anything");
        return None;
    }
    Some(object(|it| {
        it.text("role", "assistant").text_if("name", name);
        if said.is_empty() {
            it.raw("content", "null");
        } else {
            write_content(it, &said, path, losses);
        }
        it.text_if("refusal", refusal.map(String::as_str));
        thoughts.write(it, habits.reasoning_demanded && !calls.is_empty());
        if !calls.is_empty() {
            it.array("tool_calls", calls);
        }
    }))
}

/// What the model thought before it spoke, for vendors that take it back.
#[derive(Default)]
struct Thoughts {
    field: Option<&'static str>,
    texts: Vec<String>,
}

impl Thoughts {
    fn add(&mut self, text: &str, signature: Option<&str>, path: &str, losses: &mut Losses) {
        let is_signed = signature.is_some_and(|signature| !signature.is_empty());
        if self.field.is_none() {
            losses.note(format!("{path}.thinking"), NO_SIGNATURE);
        } else {
            losses.note_if(is_signed, &format!("{path}.signature"), UNSIGNED);
            self.texts.extend(Some(text.to_owned()).filter(|text| !text.is_empty()));
        }
    }

    fn write(&self, it: &mut Object, demanded: bool) {
        let Some(field) = self.field.filter(|_| demanded || !self.texts.is_empty()) else { return };
        if field == "reasoning_details" {
            let details = self
                .texts
                .iter()
                .map(|text| object(|it| _ = it.text("type", "reasoning.text").text("text", text)));
            it.array(field, details);
            return;
        }
        // Who demands the field refuses an empty one, or the turn; clients that dropped the thought can still go on.
        let text = if self.texts.is_empty() { " ".to_owned() } else { self.texts.join("\n") };
        it.text(field, &text);
    }
}

/// Why signatures of thoughts are lost that are sent back.
const UNSIGNED: &str = "the vendor takes thoughts back without their signature";

/// Why thoughts are lost.
const NO_SIGNATURE: &str = "chat completions takes no thoughts back";

/// Content: one text as a string, anything else as parts.
fn write_content(it: &mut Object, parts: &[Part], path: &str, losses: &mut Losses) {
    let sayable = parts.iter().filter_map(|part| Some((part, part_json(part, path, losses)?)));
    let (said, written): (Vec<&Part>, Vec<String>) = sayable.unzip();
    match said.as_slice() {
        [] => it.text("content", ""),
        [Part::Text { text, .. }] => it.text("content", text),
        [..] => it.array("content", written),
    };
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
        // It is refused without tools.
        Some(_) if all.tools.is_empty() => {
            losses.note("tool_choice", "there are no tools to choose from");
        }
        Some(ToolChoice::Auto) => _ = it.text("tool_choice", "auto"),
        Some(ToolChoice::None) => _ = it.text("tool_choice", "none"),
        Some(ToolChoice::Any) => _ = it.text("tool_choice", "required"),
        Some(ToolChoice::Tool(name)) => {
            _ = it.object("tool_choice", |it| {
                it.text("type", "function").object("function", |it| _ = it.text("name", name));
            });
        }
    }
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

fn format_json(format: &Format) -> Option<String> {
    match format {
        Format::Text => None,
        Format::Json => Some(r#"{"type":"json_object"}"#.to_owned()),
        Format::Schema { name, description, schema, strict } => Some(object(|it| {
            it.text("type", "json_schema");
            it.object("json_schema", |it| {
                it.text("name", name.as_deref().unwrap_or("answer"))
                    .text_if("description", description.as_deref());
                it.raw("schema", schema).boolean_if("strict", *strict);
            });
        })),
    }
}

fn write_sampling(body: &mut Body<'_>, all: &Conversation) {
    let sampling = &all.sampling;
    body.number(Field::Temperature, sampling.temperature);
    body.number(Field::TopP, sampling.top_p);
    body.number(Field::PresencePenalty, sampling.presence_penalty);
    body.number(Field::FrequencyPenalty, sampling.frequency_penalty);
    body.put(Field::Seed, sampling.seed.map(|seed| seed.to_string()));
    body.losses.note_if(sampling.top_k.is_some(), "top_k", "chat completions has no `top_k`");
    if let Some(reasoning) = &all.reasoning {
        let effort = reasoning.effort.or_else(|| reasoning.tokens.map(Effort::of_tokens));
        body.text(Field::ReasoningEffort, effort.map(effort_word));
        // Who thinks and can show it does so in any case.
        let unsaid = match (effort, reasoning.visible) {
            (_, None) | (Some(Effort::None), _) | (Some(_), Some(true)) => false,
            (None, Some(_)) | (Some(_), Some(false)) => true,
        };
        body.losses.note_if(unsaid, "reasoning", "chat completions is not told whether thoughts are shown");
    }
}

/// Whether a body reports an error: in OpenAI's form, or in that of older engines.
pub(super) fn is_error(tree: &Tree<'_>) -> bool {
    tree.get("error").is_some() || tree.get("object").and_then(Tree::text) == Some("error")
}

fn read_choice(mut choice: Members<'_>, answer: &str, index: usize, losses: &mut Losses) -> Choice {
    let logprobs = logprobs_of(choice.take("logprobs").as_ref());
    let stop = choice.take_text("finish_reason").filter(|word| !word.is_empty()).map(|word| stop_of(&word));
    let message = choice.take("message").map(Tree::into_members).unwrap_or_default();
    let mut parts = said(message, losses);
    let ids = parts.iter_mut().filter_map(|part| match part {
        Part::ToolCall { id, .. } => Some(id),
        Part::Text { .. }
        | Part::Media(_)
        | Part::ToolResult { .. }
        | Part::Thinking { .. }
        | Part::HiddenThinking { .. }
        | Part::Refusal(_) => None,
    });
    for (at, id) in ids.enumerate().filter(|(_, id)| id.is_empty()) {
        *id = call_id(answer, index, at);
    }
    Choice { parts, stop, stop_sequence: None, logprobs }
}

fn said(mut message: Members<'_>, losses: &mut Losses) -> Vec<Part> {
    let content = message.take("content");
    let pieces = content.as_ref().map(pieces_of).unwrap_or_default();
    let texts = pieces.into_iter().filter(|(_, text)| !text.is_empty()).map(|(is_thought, text)| {
        if is_thought { Part::Thinking { text, signature: None } } else { Part::text(text) }
    });
    let parts = read_said(&mut message, texts.collect(), "message.", losses, &mut Vec::new());
    message.take("role");
    note_rest(message, "message.", losses);
    parts
}
