//! A `/v1/messages` body, read.

use crate::chat::{
    Conversation, Format, Losses, Media, MediaKind, Message, Part, Reasoning, Role, Source, Tool, ToolChoice,
};
use crate::json::tree::{Members, Tree};
use crate::json::write::array;
use crate::openai::error::Invalid;
use crate::taken::{self, Emptied, NO_VALUE, NO_WORD, hold_choice, note_rest};

use super::provider::OWN_TOOL;
use super::words::effort_of;

/// What a body says.
pub(super) fn read(body: Tree<'_>) -> Result<Conversation, Invalid> {
    let mut body = body.into_members();
    // Usage ends every stream of this dialect.
    let mut all = Conversation { choices: 1, stream_usage: true, ..Conversation::default() };
    body.take("model");
    all.system = read_content(body.take("system"), "system", &mut all.losses)?;
    read_messages(body.take("messages"), &mut all)?;
    read_tools(&mut body, &mut all)?;
    read_output(&mut body, &mut all);
    read_thinking(&mut body, &mut all)?;
    read_limits(&mut body, &mut all)?;
    note_rest(body, "", &mut all.losses);
    Ok(all)
}

fn read_messages(messages: Option<Tree<'_>>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut emptied = Emptied::default();
    for (at, message) in messages.map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let path = format!("messages[{at}]");
        emptied.before(all);
        let mut message = message.into_members();
        let role = message.take_text("role").unwrap_or_default();
        let parts = read_content(message.take("content"), &format!("{path}.content"), &mut all.losses)?;
        let lost = emptied.after(&path, parts.len(), &all.losses);
        note_rest(message, &format!("{path}."), &mut all.losses);
        match role.as_str() {
            "user" | "assistant" if lost => {}
            "user" => {
                let (results, said): (Vec<Part>, Vec<Part>) =
                    parts.into_iter().partition(|part| matches!(part, Part::ToolResult { .. }));
                let only_results = said.is_empty() && !results.is_empty();
                if !results.is_empty() {
                    all.messages.push(Message { role: Role::Tool, name: None, parts: results });
                }
                if !only_results {
                    all.messages.push(Message { role: Role::User, name: None, parts: said });
                }
            }
            "assistant" => all.messages.push(Message { role: Role::Assistant, name: None, parts }),
            "system" if all.messages.is_empty() => all.system.extend(parts),
            "system" => all.messages.push(Message { role: Role::System, name: None, parts }),
            other => {
                let text = format!("`{path}.role`: `{other}` is no role; use `user` or `assistant`");
                return Err(Invalid::field(format!("{path}.role"), text));
            }
        }
        all.message_stood_at(at);
    }
    emptied.refuse()
}

fn read_content(content: Option<Tree<'_>>, path: &str, losses: &mut Losses) -> Result<Vec<Part>, Invalid> {
    let Some(content) = content else { return Ok(Vec::new()) };
    if let Some(text) = content.text() {
        return Ok(vec![Part::text(text)]);
    }
    let mut parts = Vec::new();
    for (at, block) in content.into_items().into_iter().enumerate() {
        read_block(block, &format!("{path}[{at}]"), &mut parts, losses)?;
    }
    Ok(parts)
}

fn read_block(
    block: Tree<'_>,
    path: &str,
    parts: &mut Vec<Part>,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    let mut block = block.into_members();
    let kind = block.take_text("type").unwrap_or_default();
    match kind.as_str() {
        "text" => {
            let text = block.take_text("text").unwrap_or_default();
            let citations = citations_of(block.take("citations"));
            parts.push(Part::Text { text, cache: cache_of(&mut block), citations });
        }
        "image" => {
            let source = block.take("source").map(Tree::into_members).unwrap_or_default();
            let (source, media_type) = read_source(source, path)?;
            let cache = cache_of(&mut block);
            let kind = MediaKind::Image;
            parts.push(Part::Media(Media { kind, media_type, source, name: None, detail: None, cache }));
        }
        "document" => read_document(&mut block, path, parts, losses)?,
        "search_result" => read_search_result(&mut block, path, parts, losses)?,
        "tool_use" => {
            parts.push(Part::ToolCall {
                id: block.take_text("id").unwrap_or_default(),
                name: block.take_text("name").unwrap_or_default(),
                arguments: block
                    .take("input")
                    .map_or_else(|| "{}".to_owned(), |input| input.raw().to_owned()),
                signature: None,
            });
            let direct = block.take("caller");
            let direct = direct.filter(|caller| caller.get("type").and_then(Tree::text) != Some("direct"));
            losses.note_if(direct.is_some(), &format!("{path}.caller"), NO_WORD);
        }
        "tool_result" => read_result(&mut block, path, parts, losses)?,
        "thinking" => {
            let text = block.take_text("thinking").unwrap_or_default();
            let signature = block.take_text("signature").filter(|signature| !signature.is_empty());
            parts.push(Part::Thinking { text, signature });
        }
        "redacted_thinking" => {
            parts.push(Part::HiddenThinking { data: block.take_text("data").unwrap_or_default() });
        }
        own if is_of_own_tool(own) => {
            losses.note(path, OWN_TOOL);
            return Ok(());
        }
        other => {
            let text = format!(
                "`{path}.type`: a block of the type `{other}` is understood by its own provider only"
            );
            return Err(Invalid::field(format!("{path}.type"), text));
        }
    }
    note_rest(block, &format!("{path}."), losses);
    Ok(())
}

/// Whether a block is about a tool that the provider runs itself: what was asked of it, what it gave, what it is given.
fn is_of_own_tool(kind: &str) -> bool {
    matches!(kind, "server_tool_use" | "mcp_tool_use" | "container_upload") || kind.ends_with("_tool_result")
}

fn cache_of(block: &mut Members<'_>) -> Option<String> {
    block.take("cache_control").map(|mark| mark.raw().to_owned())
}

/// Citations as an array without white space between them, however they were sent.
pub(super) fn citations_of(citations: Option<Tree<'_>>) -> Option<String> {
    let citations = citations.filter(|citations| !citations.items().is_empty())?;
    Some(array(citations.items().iter().map(Tree::raw)))
}

fn read_source(mut source: Members<'_>, path: &str) -> Result<(Source, Option<String>), Invalid> {
    let kind = source.take_text("type").unwrap_or_default();
    let media_type = source.take_text("media_type");
    let mut text = |name: &str| source.take_text(name).unwrap_or_default();
    Ok(match kind.as_str() {
        "base64" => (Source::Base64(text("data")), media_type),
        "text" => (Source::Text(text("data")), media_type),
        "url" => (Source::Url(text("url")), media_type),
        "file" => (Source::File(text("file_id")), media_type),
        other => {
            let field = format!("{path}.source.type");
            let text = format!("`{field}`: `{other}` is no source that another dialect knows");
            return Err(Invalid::field(field, text));
        }
    })
}

fn read_document(
    block: &mut Members<'_>,
    path: &str,
    parts: &mut Vec<Part>,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    let name = block.take_text("title");
    let cited = block.take("citations").and_then(|citations| citations.get("enabled")?.boolean());
    losses.note_if(cited == Some(true), &format!("{path}.citations"), NO_WORD);
    let cache = cache_of(block);
    let source = block.take("source");
    let nested =
        source.as_ref().is_some_and(|source| source.get("type").and_then(Tree::text) == Some("content"));
    let mut source = source.map(Tree::into_members).unwrap_or_default();
    let (source, media_type, beside) = if nested {
        let inner = read_content(source.take("content"), &format!("{path}.source.content"), losses)?;
        let (text, beside) = joined(inner);
        (Source::Text(text), Some("text/plain".to_owned()), beside)
    } else {
        let (source, media_type) = read_source(source, path)?;
        (source, media_type, Vec::new())
    };
    let kind = MediaKind::Document;
    parts.push(Part::Media(Media { kind, media_type, source, name, detail: None, cache }));
    parts.extend(beside);
    Ok(())
}

/// A result of a search is a document of its texts.
fn read_search_result(
    block: &mut Members<'_>,
    path: &str,
    parts: &mut Vec<Part>,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    let cited = block.take("citations").and_then(|citations| citations.get("enabled")?.boolean());
    losses.note_if(cited == Some(true), &format!("{path}.citations"), NO_WORD);
    let (text, beside) = joined(read_content(block.take("content"), &format!("{path}.content"), losses)?);
    parts.push(Part::Media(Media {
        kind: MediaKind::Document,
        media_type: Some("text/plain".to_owned()),
        source: Source::Text(text),
        name: block.take_text("title"),
        detail: None,
        cache: cache_of(block),
    }));
    parts.extend(beside);
    Ok(())
}

/// The texts of parts as one, and what else there is.
fn joined(parts: Vec<Part>) -> (String, Vec<Part>) {
    let (mut texts, mut beside) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Text { text, .. } => texts.push(text),
            Part::Media(_)
            | Part::ToolCall { .. }
            | Part::ToolResult { .. }
            | Part::Thinking { .. }
            | Part::HiddenThinking { .. }
            | Part::Refusal(_) => beside.push(part),
        }
    }
    (texts.join("\n"), beside)
}

fn read_result(
    block: &mut Members<'_>,
    path: &str,
    parts: &mut Vec<Part>,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    let mut inner = read_content(block.take("content"), &format!("{path}.content"), losses)?;
    // The mark of a result is that of its last text: the same prompt up to the same place.
    if let Some(mark) = cache_of(block) {
        match inner.last_mut() {
            Some(Part::Text { cache, .. }) => *cache = Some(mark),
            Some(_) | None => losses.note(format!("{path}.cache_control"), NO_WORD),
        }
    }
    parts.push(Part::ToolResult {
        id: block.take_text("tool_use_id").unwrap_or_default(),
        name: None,
        parts: inner,
        is_error: block.take("is_error").and_then(|failed| failed.boolean()).unwrap_or(false),
    });
    Ok(())
}

fn read_tools(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut dropped = false;
    for (at, tool) in body.take("tools").map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let path = format!("tools[{at}]");
        let mut tool = tool.into_members();
        if tool.take_text("type").is_some_and(|kind| kind != "custom") {
            all.losses.note(path, "a tool of this type is its provider's own; others have none");
            dropped = true;
            continue;
        }
        let path = format!("{path}.");
        all.tools.push(Tool {
            name: tool.take_text("name").unwrap_or_default(),
            description: tool.take_text("description"),
            parameters: tool.take("input_schema").map(|schema| schema.raw().to_owned()),
            strict: taken::boolean(&mut tool, &path, "strict")?,
            cache: cache_of(&mut tool),
        });
        all.tools_stood_at(at);
        note_rest(tool, &path, &mut all.losses);
    }
    let Some(choice) = body.take("tool_choice") else { return Ok(()) };
    let mut choice = choice.into_members();
    let alone = taken::boolean(&mut choice, "tool_choice.", "disable_parallel_tool_use")?;
    all.parallel_tool_calls = alone.map(|alone| !alone);
    all.tool_choice = match choice.take_text("type").as_deref() {
        Some("none") => Some(ToolChoice::None),
        Some("any") => Some(ToolChoice::Any),
        Some("tool") => Some(ToolChoice::Tool(choice.take_text("name").unwrap_or_default())),
        Some("auto") | None => Some(ToolChoice::Auto),
        Some(_) => {
            all.losses.note("tool_choice.type", NO_VALUE);
            None
        }
    };
    note_rest(choice, "tool_choice.", &mut all.losses);
    hold_choice(all, dropped);
    Ok(())
}

/// `output_config`, and `output_format` as it was called before.
fn read_output(body: &mut Members<'_>, all: &mut Conversation) {
    let mut config = body.take("output_config").map(Tree::into_members).unwrap_or_default();
    let word = config.take_text("effort");
    let effort = word.as_deref().and_then(effort_of);
    all.losses.note_if(word.is_some() && effort.is_none(), "output_config.effort", NO_VALUE);
    if let Some(effort) = effort {
        all.reasoning = Some(Reasoning { effort: Some(effort), ..Reasoning::default() });
    }
    let older = body.take("output_format");
    let Some(format) = config.take("format").or(older) else {
        return note_rest(config, "output_config.", &mut all.losses);
    };
    note_rest(config, "output_config.", &mut all.losses);
    let mut format = format.into_members();
    let kind = format.take_text("type");
    all.losses.note_if(kind.as_deref() != Some("json_schema"), "output_config.format.type", NO_VALUE);
    if kind.as_deref() == Some("json_schema") {
        let schema = format.take("schema").map_or_else(|| "{}".to_owned(), |schema| schema.raw().to_owned());
        // Answers always fit the schema here.
        all.format = Format::Schema { name: None, description: None, schema, strict: Some(true) };
    }
    note_rest(format, "output_config.format.", &mut all.losses);
}

fn read_thinking(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let Some(thinking) = body.take("thinking") else { return Ok(()) };
    let mut thinking = thinking.into_members();
    let mut reasoning = all.reasoning.unwrap_or_default();
    let kind = thinking.take_text("type").unwrap_or_default();
    match kind.as_str() {
        "enabled" => reasoning.tokens = taken::count(&mut thinking, "thinking.", "budget_tokens")?,
        "disabled" => reasoning = Reasoning { tokens: Some(0), ..Reasoning::default() },
        "adaptive" => {}
        _ => all.losses.note("thinking.type", NO_WORD),
    }
    reasoning.visible = match thinking.take_text("display").as_deref() {
        Some("omitted") => Some(false),
        Some(_) => Some(true),
        None => None,
    };
    all.reasoning = Some(reasoning);
    note_rest(thinking, "thinking.", &mut all.losses);
    Ok(())
}

fn read_limits(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    all.sampling.temperature = taken::number(body, "", "temperature")?;
    all.sampling.top_p = taken::number(body, "", "top_p")?;
    all.sampling.top_k = taken::count(body, "", "top_k")?;
    all.tokens_out_max = taken::count(body, "", "max_tokens")?;
    let stop = body.take("stop_sequences").map(Tree::into_items).unwrap_or_default();
    all.stop = stop.into_iter().filter_map(Tree::into_text).collect();
    all.stream = taken::boolean(body, "", "stream")?.unwrap_or(false);
    let mut metadata = body.take("metadata").map(Tree::into_members).unwrap_or_default();
    all.user = metadata.take_text("user_id");
    note_rest(metadata, "metadata.", &mut all.losses);
    all.service_tier = match body.take_text("service_tier").as_deref() {
        Some("auto") | None => None,
        Some("standard_only") => Some("default".to_owned()),
        Some(other) => Some(other.to_owned()),
    };
    Ok(())
}
