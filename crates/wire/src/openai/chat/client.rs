//! What clients of chat completions send, and are sent.

use crate::chat::{
    Answer, Choice, Conversation, Format, Losses, Media, MediaKind, Message, Page, Part, Reasoning, Role,
    Source,
};
use crate::dialect::{Asked, ClientDef, ClientDialect, Told, WriteStream};
use crate::json::tree::{Members, Tree};
use crate::json::write::{Object, object};
use crate::openai::error::{ErrorBody, Invalid};
use crate::openai::request::{self, Operation};
use crate::taken::{self, Emptied, NO_VALUE, NO_WORD, note_rest, says_nothing};
use crate::tasks::{self, TaskRequest};

use super::delta::Deltas;
use super::said::read_said;
use super::tools::read_tools;
use super::words::{
    annotation_json, effort_of, fill_signature, finish_reason, hidden_json, logprobs_json, source_of_url,
    thought_json, usage_json,
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
    schema_field: "response_format",
    words: &[&[
        (".detail", ".image_url.detail"),
        (".strict", ".function.strict"),
        (".title", ".file.filename"),
        ("reasoning", "reasoning_effort"),
        ("response_format.description", "response_format.json_schema.description"),
        ("system", "messages"),
    ]],
    request_id_header: Some("x-request-id"),
    error_status: |error| error.status,
    stream_type: |_| "text/event-stream",
    heartbeat: ": ping\n\n",
    dialect: &ChatClient,
};

/// The dialect.
struct ChatClient;

impl ClientDialect for ChatClient {
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid> {
        let mut body = body.into_members();
        let mut all = Conversation { choices: 1, ..Conversation::default() };
        body.take("model");
        read_messages(body.take("messages"), &mut all)?;
        super::ids::name_calls(&mut all);
        read_tools(&mut body, &mut all)?;
        read_format(&mut body, &mut all)?;
        read_sampling(&mut body, &mut all)?;
        read_limits(&mut body, &mut all)?;
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

fn read_messages(messages: Option<Tree<'_>>, all: &mut Conversation) -> Result<(), Invalid> {
    // Ids of calls that cannot be carried, whose results cannot be either.
    let (mut dropped, mut emptied) = (Vec::new(), Emptied::default());
    for (at, message) in messages.map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let path = format!("messages[{at}]");
        emptied.before(all);
        let mut message = message.into_members();
        let role = message.take_text("role").unwrap_or_default();
        let name = message.take_text("name");
        let mut parts = read_content(message.take("content"), &format!("{path}.content"), &mut all.losses)?;
        let role = match role.as_str() {
            "system" | "developer" if all.messages.is_empty() => {
                all.losses.note_if(name.is_some(), &format!("{path}.name"), NO_WORD);
                all.system.append(&mut parts);
                note_rest(message, &format!("{path}."), &mut all.losses);
                continue;
            }
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => {
                let within = format!("{path}.");
                parts = read_said(&mut message, parts, &within, &mut all.losses, &mut dropped);
                Role::Assistant
            }
            "tool" | "function" => {
                let id = message.take_text("tool_call_id").or_else(|| name.clone()).unwrap_or_default();
                note_rest(message, &format!("{path}."), &mut all.losses);
                if dropped.contains(&id) {
                    all.losses.note(path, "the call that it is the result of cannot be carried");
                    continue;
                }
                read_result(Part::ToolResult { id, name, parts, is_error: false }, all);
                all.message_stood_at(at);
                continue;
            }
            other => {
                let text = format!("`{path}.role`: `{other}` is no role that another dialect knows");
                return Err(Invalid::field(format!("{path}.role"), text));
            }
        };
        note_rest(message, &format!("{path}."), &mut all.losses);
        if !emptied.after(&path, parts.len(), &all.losses) {
            all.messages.push(Message { role, name, parts });
        }
        all.message_stood_at(at);
    }
    emptied.refuse()
}

/// Results in a row are one message.
fn read_result(result: Part, all: &mut Conversation) {
    match all.messages.last_mut() {
        Some(last) if last.role == Role::Tool => last.parts.push(result),
        Some(_) | None => all.messages.push(Message { role: Role::Tool, name: None, parts: vec![result] }),
    }
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
        parts.push(read_part(&mut part, &path, losses)?);
        note_rest(part, &format!("{path}."), losses);
    }
    Ok(parts)
}

fn read_part(part: &mut Members<'_>, path: &str, losses: &mut Losses) -> Result<Part, Invalid> {
    let kind = part.take_text("type").unwrap_or_default();
    let cache = part.take("cache_control").map(|mark| mark.raw().to_owned());
    let mut object = |name: &str| {
        let inner = part.take(name).map(Tree::into_members).unwrap_or_default();
        (inner, format!("{path}.{name}."))
    };
    Ok(match kind.as_str() {
        "text" => Part::Text { text: part.take_text("text").unwrap_or_default(), cache, citations: None },
        "refusal" => Part::Refusal(part.take_text("refusal").unwrap_or_default()),
        // Engines take sounds and films from where images come from.
        "image_url" | "video_url" | "audio_url" => {
            let (mut at, path) = object(&kind);
            let (source, media_type) = source_of_url(at.take_text("url").unwrap_or_default());
            let detail = at.take_text("detail");
            note_rest(at, &path, losses);
            let kind = match kind.as_str() {
                "video_url" => MediaKind::Video,
                "audio_url" => MediaKind::Audio,
                _ => MediaKind::Image,
            };
            Part::Media(Media { kind, media_type, source, name: None, detail, cache })
        }
        "input_audio" => {
            let (mut audio, path) = object(&kind);
            let source = Source::Base64(audio.take_text("data").unwrap_or_default());
            let media_type = audio.take_text("format").map(|format| format!("audio/{format}"));
            note_rest(audio, &path, losses);
            let kind = MediaKind::Audio;
            Part::Media(Media { kind, media_type, source, name: None, detail: None, cache })
        }
        "file" => {
            let (file, path) = object(&kind);
            read_file(file, cache, &path, losses)
        }
        other => {
            let text = format!("`{path}.type`: `{other}` is nothing that another dialect knows");
            return Err(Invalid::field(format!("{path}.type"), text));
        }
    })
}

fn read_file(mut file: Members<'_>, cache: Option<String>, path: &str, losses: &mut Losses) -> Part {
    let name = file.take_text("filename");
    let (source, media_type) = match (file.take_text("file_data"), file.take_text("file_id")) {
        (Some(data), _) => source_of_url(data),
        (None, id) => (Source::File(id.unwrap_or_default()), None),
    };
    note_rest(file, path, losses);
    Part::Media(Media { kind: MediaKind::Document, media_type, source, name, detail: None, cache })
}

fn read_format(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    const PATH: &str = "response_format.";
    let Some(format) = body.take("response_format") else { return Ok(()) };
    let mut format = format.into_members();
    all.format = match format.take_text("type").as_deref() {
        Some("json_object") => Format::Json,
        Some("json_schema") => {
            let mut schema = format.take("json_schema").map(Tree::into_members).unwrap_or_default();
            let path = format!("{PATH}json_schema.");
            let read = Format::Schema {
                name: schema.take_text("name"),
                description: schema.take_text("description"),
                schema: schema
                    .take("schema")
                    .map_or_else(|| "{}".to_owned(), |schema| schema.raw().to_owned()),
                strict: taken::boolean(&mut schema, &path, "strict")?,
            };
            note_rest(schema, &path, &mut all.losses);
            read
        }
        Some("text") | None => Format::Text,
        // Grammars and the like, which some engines have.
        Some(_) => {
            all.losses.note("response_format.type", NO_VALUE);
            Format::Text
        }
    };
    note_rest(format, PATH, &mut all.losses);
    Ok(())
}

fn read_sampling(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut number = |name: &str| taken::number(body, "", name);
    let sampling = &mut all.sampling;
    sampling.temperature = number("temperature")?;
    sampling.top_p = number("top_p")?;
    sampling.presence_penalty = number("presence_penalty")?;
    sampling.frequency_penalty = number("frequency_penalty")?;
    // Engines say -1 for all there are.
    let top_k = body.take("top_k").filter(|top_k| top_k.raw() != "-1");
    sampling.top_k = taken::typed(top_k.as_ref(), "top_k", "a whole number of 0 or more", Tree::whole)?;
    sampling.seed = taken::seed(body.take("seed").as_ref(), "seed", &mut all.losses)?;
    Ok(())
}

fn read_limits(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut count = |name: &str| taken::count(body, "", name);
    let (completion, tokens) = (count("max_completion_tokens")?, count("max_tokens")?);
    all.tokens_out_max = completion.max(tokens);
    all.choices = count("n")?.unwrap_or(1).max(1);
    let alternatives = count("top_logprobs")?;
    let logprobs = taken::boolean(body, "", "logprobs")?.unwrap_or(false);
    all.logprobs = logprobs.then_some(alternatives.unwrap_or(0));
    all.stop = match body.take("stop") {
        Some(stop) if stop.text().is_some() => stop.into_text().into_iter().collect(),
        Some(stop) => stop.into_items().into_iter().filter_map(Tree::into_text).collect(),
        None => Vec::new(),
    };
    all.stream = taken::boolean(body, "", "stream")?.unwrap_or(false);
    let mut options = body.take("stream_options").map(Tree::into_members).unwrap_or_default();
    let asked = taken::boolean(&mut options, "stream_options.", "include_usage")?;
    all.stream_usage = asked.unwrap_or(false);
    // It concerns the padding of events only.
    options.take("include_obfuscation");
    note_rest(options, "stream_options.", &mut all.losses);
    all.user = taken::text(body, "", "user")?;
    all.service_tier = taken::text(body, "", "service_tier")?.filter(|tier| tier != "auto");
    let word = taken::text(body, "", "reasoning_effort")?;
    let effort = word.as_deref().and_then(effort_of);
    all.losses.note_if(word.is_some() && effort.is_none(), "reasoning_effort", NO_VALUE);
    all.reasoning = effort.map(|effort| Reasoning { effort: Some(effort), ..Reasoning::default() });
    Ok(())
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
    let (mut annotations, mut chars) = (Vec::new(), 0);
    for part in parts {
        match part {
            Part::Text { text: more, citations, .. } => {
                let (pages, others) = Page::all_of(citations.as_deref());
                losses.note_if(others, "citations", "chat completions cites pages only");
                let length = more.chars().count() as u64;
                annotations.extend(pages.iter().map(|page| annotation_json(page, chars, length)));
                chars += length;
                text.get_or_insert_default().push_str(more);
            }
            Part::Thinking { text: more, signature } => {
                thoughts.push_str(more);
                details.push(thought_json(more, signature.as_deref(), details.len() as u64));
            }
            Part::HiddenThinking { data } => {
                details.push(hidden_json(data, details.len() as u64));
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
    if !annotations.is_empty() {
        it.array("annotations", annotations);
    }
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
