//! Messages as Converse has them: blocks of content, said by the user and the model in turn.

use xxhash_rust::xxh3::xxh3_64;

use crate::chat::{Conversation, Losses, Media, MediaKind, Message, Part, Role};
use crate::json::Kind;
use crate::json::tree::Tree;
use crate::json::write::{array, object};

use super::media;

/// The longest id of a call.
const CALL_ID_BYTES_MAX: usize = 64;
/// Nesting of the arguments of a call and of marks.
const DEPTH_MAX: usize = 128;

/// Writes the blocks of one request.
pub(super) struct Blocks<'a> {
    losses: &'a mut Losses,
    /// Names of documents so far.
    documents: Vec<String>,
}

/// What is said in a turn, and by whom.
struct Turn {
    user: bool,
    blocks: Vec<String>,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(losses: &'a mut Losses) -> Self {
        Self { losses, documents: Vec::new() }
    }

    /// The blocks of `system`.
    pub(super) fn system(&mut self, parts: &[Part]) -> Vec<String> {
        let mut blocks = Vec::new();
        for part in parts {
            match part {
                Part::Text { text, cache, citations: _ } => {
                    if !text.is_empty() {
                        blocks.push(object(|it| _ = it.text("text", text)));
                    }
                    mark(cache.as_deref(), &mut blocks);
                }
                Part::Media(_)
                | Part::ToolCall { .. }
                | Part::ToolResult { .. }
                | Part::Thinking { .. }
                | Part::HiddenThinking { .. }
                | Part::Refusal(_) => {
                    self.losses.note("system", "Converse takes only text here");
                }
            }
        }
        blocks
    }

    /// The messages. Neighbours of one role become one message, since Converse wants turns.
    pub(super) fn messages(&mut self, all: &Conversation) -> Vec<String> {
        let mut turns: Vec<Turn> = Vec::new();
        for (at, message) in all.messages.iter().enumerate() {
            let path = format!("messages[{at}]");
            self.losses.note_if(message.name.is_some(), &format!("{path}.name"), "Converse names nobody");
            let blocks = self.message(message, &path);
            if blocks.is_empty() {
                continue;
            }
            let user = message.role != Role::Assistant;
            match turns.last_mut() {
                Some(turn) if turn.user == user => turn.blocks.extend(blocks),
                Some(_) | None => turns.push(Turn { user, blocks }),
            }
        }
        let json = |turn: Turn| {
            object(|it| {
                it.text("role", if turn.user { "user" } else { "assistant" });
                it.array("content", results_first(turn.blocks));
            })
        };
        turns.into_iter().map(json).collect()
    }

    fn message(&mut self, message: &Message, path: &str) -> Vec<String> {
        match message.role {
            Role::System => self.losses.note(
                format!("{path}.role"),
                "Converse hears the operator before the conversation only: said as the user",
            ),
            Role::User | Role::Assistant | Role::Tool => {}
        }
        let mut blocks = Vec::new();
        for (at, part) in message.parts.iter().enumerate() {
            self.part(part, &format!("{path}.content[{at}]"), &mut blocks);
        }
        blocks
    }

    fn part(&mut self, part: &Part, path: &str, out: &mut Vec<String>) {
        match part {
            Part::Text { text, cache, citations } => {
                self.losses.note_if(
                    citations.is_some(),
                    &format!("{path}.citations"),
                    "citations are not taken back in this form",
                );
                self.text(text, path, out);
                mark(cache.as_deref(), out);
            }
            Part::Media(medium) => {
                out.extend(media::block(medium, &mut self.documents, path, self.losses));
                mark(medium.cache.as_deref(), out);
            }
            Part::ToolCall { id, name, arguments, signature } => {
                self.losses.note_if(
                    signature.is_some(),
                    &format!("{path}.signature"),
                    "Converse signs no calls",
                );
                out.push(self.call(id, name, arguments, path));
            }
            Part::ToolResult { id, name: _, parts, is_error } => self.result(id, parts, *is_error, path, out),
            Part::Thinking { text, signature: Some(signature) } => out.push(object(|it| {
                it.object("reasoningContent", |it| {
                    it.object("reasoningText", |it| _ = it.text("text", text).text("signature", signature));
                });
            })),
            Part::Thinking { signature: None, .. } => {
                self.losses.note(path, "a thought without its signature is not taken back");
            }
            Part::HiddenThinking { data } => out.push(object(|it| {
                it.object("reasoningContent", |it| _ = it.text("redactedContent", data));
            })),
            Part::Refusal(why) => {
                self.losses.note(path, "Converse has no refusals: said as text");
                self.text(why, path, out);
            }
        }
    }

    /// A blank text is refused.
    fn text(&mut self, text: &str, path: &str, out: &mut Vec<String>) {
        if !text.trim().is_empty() {
            out.push(object(|it| _ = it.text("text", text)));
        } else if !text.is_empty() {
            self.losses.note(path, "Converse takes no blank text");
        }
    }

    fn call(&mut self, id: &str, name: &str, arguments: &str, path: &str) -> String {
        let input = Tree::parse(arguments, DEPTH_MAX).ok().filter(|input| input.kind() == Kind::Object);
        if input.is_none() && !arguments.trim().is_empty() {
            self.losses.note(format!("{path}.arguments"), "the arguments of a call must be a JSON object");
        }
        object(|it| {
            it.object("toolUse", |it| {
                it.text("toolUseId", &call_id(id)).text("name", name);
                it.raw("input", input.as_ref().map_or("{}", Tree::raw));
            });
        })
    }

    fn result(&mut self, id: &str, parts: &[Part], is_error: bool, path: &str, out: &mut Vec<String>) {
        let (mut inner, mut marks) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text { text, cache, .. } => {
                    self.text(text, path, &mut inner);
                    marks.extend(cache.as_deref().map(cache_point));
                }
                Part::Media(Media { kind: MediaKind::Audio, .. }) => {
                    self.losses.note(path, "a tool gives no sounds in Converse");
                }
                Part::Media(medium) => {
                    inner.extend(media::block(medium, &mut self.documents, path, self.losses));
                    marks.extend(medium.cache.as_deref().map(cache_point));
                }
                Part::ToolCall { .. }
                | Part::ToolResult { .. }
                | Part::Thinking { .. }
                | Part::HiddenThinking { .. }
                | Part::Refusal(_) => self.losses.note(path, "this is no result of a tool in Converse"),
            }
        }
        out.push(object(|it| {
            it.object("toolResult", |it| {
                it.text("toolUseId", &call_id(id)).array("content", inner);
                // Only some models take a status, so that success is left to be understood.
                if is_error {
                    it.text("status", "error");
                }
            });
        }));
        out.extend(marks.pop());
    }
}

/// Results of tools stand before what the user says beside them, or models refuse the turn.
fn results_first(blocks: Vec<String>) -> Vec<String> {
    // A mark belongs to what stands before it, so that the order is kept where there are any.
    if blocks.iter().any(|block| block.starts_with("{\"cachePoint\"")) {
        return blocks;
    }
    let (mut results, rest): (Vec<String>, Vec<String>) =
        blocks.into_iter().partition(|block| block.starts_with("{\"toolResult\""));
    results.extend(rest);
    results
}

/// Puts a mark behind what it belongs to; where that was left out, there is nothing to keep.
fn mark(cache: Option<&str>, out: &mut Vec<String>) {
    if !out.is_empty() {
        out.extend(cache.map(cache_point));
    }
}

/// A mark for the cache. `mark` is as Anthropic writes it.
pub(super) fn cache_point(mark: &str) -> String {
    let mark = Tree::parse(mark, DEPTH_MAX).ok();
    let ttl = mark.as_ref().and_then(|mark| mark.get("ttl")?.text());
    let ttl = ttl.filter(|ttl| matches!(*ttl, "5m" | "1h"));
    object(|it| _ = it.object("cachePoint", |it| _ = it.text("type", "default").text_if("ttl", ttl)))
}

/// The id of a call in the characters and the length that ids may have; the same id gives the same.
fn call_id(id: &str) -> String {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
    if !id.is_empty() && id.len() <= CALL_ID_BYTES_MAX && id.bytes().all(allowed) {
        return id.to_owned();
    }
    format!("call_{:016x}", xxh3_64(id.as_bytes()))
}

/// The names of tools that were called, and whether there are calls or results at all.
pub(super) fn tools_used(all: &Conversation) -> (Vec<&str>, bool) {
    let (mut names, mut any) = (Vec::new(), false);
    for part in all.messages.iter().flat_map(|message| &message.parts) {
        match part {
            Part::ToolCall { name, .. } => {
                any = true;
                if !names.contains(&name.as_str()) {
                    names.push(name.as_str());
                }
            }
            Part::ToolResult { .. } => any = true,
            Part::Text { .. }
            | Part::Media(_)
            | Part::Thinking { .. }
            | Part::HiddenThinking { .. }
            | Part::Refusal(_) => {}
        }
    }
    (names, any)
}

/// The tools as Converse has them.
pub(super) fn tools(all: &Conversation) -> Vec<String> {
    let mut tools = Vec::new();
    for tool in &all.tools {
        tools.push(object(|it| {
            it.object("toolSpec", |it| {
                it.text("name", &tool.name);
                it.text_if("description", tool.description.as_deref().filter(|text| !text.is_empty()));
                it.object("inputSchema", |it| {
                    it.raw("json", tool.parameters.as_deref().unwrap_or(NO_PARAMETERS));
                });
                it.boolean_if("strict", tool.strict);
            });
        }));
        tools.extend(tool.cache.as_deref().map(cache_point));
    }
    tools
}

/// The schema of a tool without arguments.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

/// A tool of which only the name is known.
pub(super) fn tool_by_name(name: &str) -> String {
    object(|it| {
        it.object("toolSpec", |it| {
            it.text("name", name).object("inputSchema", |it| _ = it.raw("json", r#"{"type":"object"}"#));
        });
    })
}

/// An array of what blocks there are; `None` for none.
pub(super) fn some_array(items: Vec<String>) -> Option<String> {
    (!items.is_empty()).then(|| array(items))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_do_not_fit_are_made_to() {
        assert_eq!(call_id("call_1-a.b:c"), "call_1-a.b:c");
        for odd in ["", "call 1", "é", &"x".repeat(65)] {
            let id = call_id(odd);
            assert!(id.len() <= CALL_ID_BYTES_MAX && id == call_id(odd) && id != odd, "{odd} {id}");
        }
    }

    #[test]
    fn marks_keep_how_long() {
        assert_eq!(cache_point(r#"{"type":"ephemeral"}"#), r#"{"cachePoint":{"type":"default"}}"#);
        assert_eq!(
            cache_point(r#"{"type":"ephemeral","ttl":"1h"}"#),
            r#"{"cachePoint":{"type":"default","ttl":"1h"}}"#
        );
        assert_eq!(cache_point("no json"), r#"{"cachePoint":{"type":"default"}}"#);
    }

    #[test]
    fn a_mark_behind_nothing_is_left_out() {
        let cached = |text: &str| Part::Text {
            text: text.to_owned(),
            cache: Some(r#"{"type":"ephemeral"}"#.to_owned()),
            citations: None,
        };
        let message = |parts| Message { role: Role::User, name: None, parts };
        let mut losses = Losses::default();
        let mut blocks = Blocks::new(&mut losses);
        assert_eq!(blocks.message(&message(vec![cached("")]), "m"), Vec::<String>::new());
        let text = r#"{"text":"a"}"#;
        let point = r#"{"cachePoint":{"type":"default"}}"#;
        assert_eq!(blocks.message(&message(vec![cached("a")]), "m"), [text, point]);
        assert_eq!(blocks.system(&[cached(""), cached("a")]), [text, point]);
    }

    #[test]
    fn d15_broken_arguments_are_never_made_up() {
        let mut losses = Losses::default();
        let mut blocks = Blocks::new(&mut losses);
        let call = blocks.call("c", "f", "{\"a\":", "messages[0].content[0]");
        assert_eq!(call, r#"{"toolUse":{"toolUseId":"c","name":"f","input":{}}}"#);
        assert_eq!(losses.named()[0].field, "messages[0].content[0].arguments");
    }
}
