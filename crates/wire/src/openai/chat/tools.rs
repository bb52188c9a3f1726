//! Tools of a request, and which of them may be called, read.

use crate::chat::{Conversation, Losses, Tool, ToolChoice};
use crate::json::tree::{Members, Tree};
use crate::openai::error::Invalid;
use crate::taken::{NO_VALUE, NO_WORD, boolean, hold_choice, note_rest};

/// Reads both.
pub(super) fn read_tools(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut dropped = false;
    for (at, tool) in body.take("tools").map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let path = format!("tools[{at}]");
        let mut tool = tool.into_members();
        let kind = tool.take_text("type").unwrap_or_else(|| "function".to_owned());
        if kind != "function" {
            dropped = true;
            all.losses.note(path, why_lost(&kind));
            continue;
        }
        let cache = tool.take("cache_control").map(|mark| mark.raw().to_owned());
        let function = tool.take("function").map(Tree::into_members).unwrap_or_default();
        note_rest(tool, &format!("{path}."), &mut all.losses);
        let tool = read_tool(function, cache, &format!("{path}.function."), &mut all.losses)?;
        all.tools.push(tool);
        all.tools_stood_at(at);
    }
    let functions = body.take("functions").map(Tree::into_items).unwrap_or_default();
    for (at, function) in functions.into_iter().enumerate() {
        let path = format!("functions[{at}].");
        let tool = read_tool(function.into_members(), None, &path, &mut all.losses)?;
        all.tools.push(tool);
    }
    all.parallel_tool_calls = boolean(body, "", "parallel_tool_calls")?;
    let choice = body.take("tool_choice");
    if let Some(choice) = choice.or_else(|| body.take("function_call")) {
        all.tool_choice = read_choice(&choice, all);
    }
    hold_choice(all, dropped);
    Ok(())
}

/// Why a tool is lost.
fn why_lost(kind: &str) -> &'static str {
    if kind == "custom" {
        "`custom` tools take free text, which other dialects have not"
    } else {
        "a tool of this type is run by its provider; others have none"
    }
}

fn read_tool(
    mut function: Members<'_>,
    cache: Option<String>,
    path: &str,
    losses: &mut Losses,
) -> Result<Tool, Invalid> {
    let tool = Tool {
        name: function.take_text("name").unwrap_or_default(),
        description: function.take_text("description"),
        parameters: function.take("parameters").map(|schema| schema.raw().to_owned()),
        strict: boolean(&mut function, path, "strict")?,
        cache,
    };
    note_rest(function, path, losses);
    Ok(tool)
}

fn read_choice(choice: &Tree<'_>, all: &mut Conversation) -> Option<ToolChoice> {
    match choice.text() {
        Some("none") => return Some(ToolChoice::None),
        Some("required" | "any") => return Some(ToolChoice::Any),
        Some("auto") => return Some(ToolChoice::Auto),
        Some(_) => {
            all.losses.note("tool_choice", NO_VALUE);
            return None;
        }
        None => {}
    }
    match choice.get("type").and_then(Tree::text) {
        Some("allowed_tools") => {
            // The Responses API says the same without an object around it; some clients do so here.
            let narrowed = choice.get("allowed_tools").unwrap_or(choice);
            Some(narrow(all, narrowed))
        }
        Some("function") | None => {
            let named = choice.get("function").unwrap_or(choice).get("name").and_then(Tree::text);
            if named.is_none() {
                all.losses.note("tool_choice", NO_WORD);
            }
            named.map(|name| ToolChoice::Tool(name.to_owned()))
        }
        Some(_) => {
            all.losses.note("tool_choice", "it names a tool that only its provider runs");
            None
        }
    }
}

/// Offers those tools only that may be called, and says whether one must be.
pub(in crate::openai) fn narrow(all: &mut Conversation, narrowed: &Tree<'_>) -> ToolChoice {
    let allowed = narrowed.get("tools").map(Tree::items).unwrap_or_default();
    let is_allowed = |tool: &Tool| {
        allowed.iter().any(|one| {
            let name = one.get("function").unwrap_or(one).get("name");
            name.and_then(Tree::text) == Some(tool.name.as_str())
        })
    };
    all.tools.retain(is_allowed);
    match narrowed.get("mode").and_then(Tree::text) {
        Some("none") => ToolChoice::None,
        Some("required") => ToolChoice::Any,
        Some(_) | None => ToolChoice::Auto,
    }
}
