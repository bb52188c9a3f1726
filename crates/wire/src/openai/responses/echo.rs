//! What answers repeat of their requests: every response says how it was asked for.

use crate::chat::Tool;
use crate::json::tree::Tree;
use crate::json::write::{Object, object};

/// The members that are repeated as they came, and what they are when they did not.
const REPEATED: [(&str, &str); 15] = [
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("safety_identifier", "null"),
    ("temperature", "1"),
    ("top_p", "1"),
    ("presence_penalty", "0"),
    ("frequency_penalty", "0"),
    ("top_logprobs", "0"),
    ("tool_choice", "\"auto\""),
    ("user", "null"),
];

/// The members of an answer that repeat those of a request, but for the tools.
pub(super) fn of(body: &Tree<'_>) -> String {
    let mut all = Object::new();
    for (name, unsaid) in REPEATED {
        all.raw(name, body.get(name).map_or(unsaid, Tree::raw));
    }
    let effort = body.get("reasoning");
    all.raw("reasoning", &filled(effort, &[("effort", "null"), ("summary", "null")]));
    all.raw("text", &filled(body.get("text"), &[("format", r#"{"type":"text"}"#)]));
    // Neither is done elsewhere, whatever was asked for.
    all.raw("truncation", "\"disabled\"").boolean("background", false).boolean("store", false);
    members(all)
}

/// The same with the tools that were offered.
pub(super) fn with_tools(echoed: &str, tools: &[Tool]) -> String {
    let mut all = Object::new();
    all.array("tools", tools.iter().map(tool_json));
    format!("{echoed},{}", members(all))
}

/// What stands there when the request is not known.
pub(super) fn unsaid() -> String {
    Tree::parse("{}", 1).map(|empty| with_tools(&of(&empty), &[])).unwrap_or_default()
}

fn members(all: Object) -> String {
    let text = all.finish();
    text.get(1..text.len() - 1).unwrap_or_default().to_owned()
}

fn tool_json(tool: &Tool) -> String {
    object(|it| {
        it.text("type", "function").text("name", &tool.name);
        match tool.description.as_deref() {
            Some(text) => it.text("description", text),
            None => it.raw("description", "null"),
        };
        it.raw("parameters", tool.parameters.as_deref().unwrap_or("null"));
        // Not said is held to the schema, in this dialect.
        it.boolean("strict", tool.strict.unwrap_or(true));
    })
}

/// An object as it was sent, with what it leaves unsaid.
fn filled(sent: Option<&Tree<'_>>, unsaid: &[(&str, &str)]) -> String {
    let mut all = Object::new();
    let sent = sent.cloned().map(|sent| sent.into_members().rest().collect::<Vec<_>>()).unwrap_or_default();
    for (name, value) in &sent {
        all.raw(name, value.raw());
    }
    for (name, value) in unsaid.iter().filter(|(name, _)| !sent.iter().any(|(said, _)| said == name)) {
        all.raw(name, value);
    }
    all.finish()
}
