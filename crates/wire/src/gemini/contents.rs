//! The contents of a request, read: who said what.

use crate::chat::{Conversation, Losses, Media, Message, Part, Role, Source};
use crate::json::tree::{Members, Tree};
use crate::openai::error::Invalid;
use crate::taken::Emptied;

use super::words::{
    compact, kind_of, made_up, says_nothing, take, take_items, take_text, usual_base64, usual_signature,
};

/// Why a field of this dialect is lost.
pub(super) const NO_WORD: &str = "the provider's dialect has no such field";

/// Files that Google keeps: of its API, and of its cloud.
pub(super) const KEPT_BY_GOOGLE: [&str; 3] =
    ["https://generativelanguage.googleapis.com/", "gs://", "files/"];

/// Calls that have no result yet, so that results without an id find theirs.
#[derive(Default)]
struct Calls {
    /// Calls so far.
    count: u64,
    /// Id and name of those without a result, in order.
    open: Vec<(String, String)>,
}

impl Calls {
    /// The id of a call: its own, or one made up.
    fn called(&mut self, id: Option<String>, name: &str, arguments: &str) -> String {
        let id = id.unwrap_or_else(|| made_up("", name, arguments, self.count));
        self.count += 1;
        self.open.push((id.clone(), name.to_owned()));
        id
    }

    /// The id of the call that a result is for: its own, or that of the first open call of the name.
    fn answered(&mut self, id: Option<String>, name: &str) -> String {
        let found = self.open.iter().position(|(open, called)| match &id {
            Some(id) => open == id,
            None => called == name,
        });
        match (found, id) {
            (Some(at), _) => self.open.remove(at).0,
            (None, Some(id)) => id,
            (None, None) => made_up("", name, "", self.count),
        }
    }
}

/// Reads `contents` into the messages of a conversation.
pub(super) fn read_contents(contents: Vec<Tree<'_>>, all: &mut Conversation) -> Result<(), Invalid> {
    let (mut calls, mut emptied) = (Calls::default(), Emptied::default());
    for (at, content) in contents.into_iter().enumerate() {
        let path = format!("contents[{at}]");
        emptied.before(all);
        let mut content = content.into_members();
        let role = match take_text(&mut content, "role").as_deref() {
            None | Some("" | "user" | "function" | "tool") => Role::User,
            Some("model" | "assistant") => Role::Assistant,
            Some("system") => Role::System,
            Some(other) => {
                let text = format!("`{path}.role`: `{other}` is no role; it is `user` or `model`");
                return Err(Invalid::field(format!("{path}.role"), text));
            }
        };
        let mut parts = Vec::new();
        for (at, part) in take_items(&mut content, "parts").into_iter().enumerate() {
            read_part(
                part.into_members(),
                &format!("{path}.parts[{at}]"),
                &mut calls,
                &mut parts,
                &mut all.losses,
            )?;
        }
        emptied.after(&path, parts.len(), &all.losses);
        note_rest(content, &path, &mut all.losses);
        add(role, parts, all);
        all.message_stood_at(at);
    }
    emptied.refuse()
}

/// Adds what was said; results of tools are messages of their own.
fn add(role: Role, parts: Vec<Part>, all: &mut Conversation) {
    let mut last = None;
    for part in parts {
        let role = if matches!(part, Part::ToolResult { .. }) { Role::Tool } else { role };
        match all.messages.last_mut().filter(|_| last == Some(role)) {
            Some(message) => message.parts.push(part),
            None => all.messages.push(Message { role, name: None, parts: vec![part] }),
        }
        last = Some(role);
    }
}

/// Reads an instruction to the model: its texts.
pub(super) fn read_system(content: Tree<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    if let Some(text) = content.text() {
        all.system.push(Part::text(text));
        return Ok(());
    }
    let mut content = content.into_members();
    content.take("role");
    for (at, part) in take_items(&mut content, "parts").into_iter().enumerate() {
        let path = format!("systemInstruction.parts[{at}]");
        read_part(part.into_members(), &path, &mut Calls::default(), &mut all.system, &mut all.losses)?;
    }
    note_rest(content, "systemInstruction", &mut all.losses);
    Ok(())
}

fn note_rest(members: Members<'_>, path: &str, losses: &mut Losses) {
    for (name, _) in members.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("{path}.{name}"), NO_WORD);
    }
}

fn read_part(
    mut part: Members<'_>,
    path: &str,
    calls: &mut Calls,
    out: &mut Vec<Part>,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    let thought = take(&mut part, "thought").and_then(|thought| thought.boolean()).unwrap_or(false);
    let signature = take_text(&mut part, "thoughtSignature").filter(|signature| !signature.is_empty());
    let signature = signature.map(usual_signature);
    let text = take_text(&mut part, "text");
    if let Some(call) = take(&mut part, "functionCall") {
        let (id, name, arguments) = take_call(call);
        let id = calls.called(id, &name, &arguments);
        out.push(Part::ToolCall { id, name, arguments, signature });
    } else if let Some(response) = take(&mut part, "functionResponse") {
        let path = format!("{path}.functionResponse");
        out.push(read_response(response.into_members(), &path, calls, losses)?);
    } else if let Some(media) = read_media(&mut part, path)? {
        out.push(Part::Media(media));
    } else {
        push_text(text, thought, signature, out);
    }
    note_rest(part, path, losses);
    Ok(())
}

/// A text, a thought, or a signature; that of a text stands behind it as a thought without words.
pub(super) fn push_text(text: Option<String>, thought: bool, signature: Option<String>, out: &mut Vec<Part>) {
    if thought {
        if text.as_ref().is_some_and(|text| !text.is_empty()) || signature.is_some() {
            out.push(Part::Thinking { text: text.unwrap_or_default(), signature });
        }
        return;
    }
    let alone = signature.is_some();
    out.extend(text.filter(|text| !(text.is_empty() && alone)).map(Part::text));
    if signature.is_some() {
        out.push(Part::Thinking { text: String::new(), signature });
    }
}

/// Media, if the part is some.
fn read_media(part: &mut Members<'_>, path: &str) -> Result<Option<Media>, Invalid> {
    if let Some(blob) = take(part, "inlineData") {
        return Ok(Some(inline(blob.into_members())));
    }
    let Some(file) = take(part, "fileData") else { return Ok(None) };
    let mut file = file.into_members();
    let uri = take_text(&mut file, "fileUri").unwrap_or_default();
    if KEPT_BY_GOOGLE.iter().any(|place| uri.starts_with(place)) {
        let field = format!("{path}.fileData.fileUri");
        let text =
            format!("`{field}`: a file that Google keeps cannot be read by another provider; send it inline");
        return Err(Invalid::field(field, text));
    }
    let media_type = take_text(&mut file, "mimeType").filter(|kind| !kind.is_empty());
    Ok(Some(Media {
        kind: kind_of(media_type.as_deref().unwrap_or_default()),
        media_type,
        source: Source::Url(uri),
        name: take_text(&mut file, "displayName"),
        detail: None,
        cache: None,
    }))
}

/// Media that are there.
pub(super) fn inline(mut blob: Members<'_>) -> Media {
    let media_type = take_text(&mut blob, "mimeType").filter(|kind| !kind.is_empty());
    Media {
        kind: kind_of(media_type.as_deref().unwrap_or_default()),
        media_type,
        source: Source::Base64(usual_base64(take_text(&mut blob, "data").unwrap_or_default())),
        name: take_text(&mut blob, "displayName"),
        detail: None,
        cache: None,
    }
}

/// What a tool gave. By convention `output` holds what came out and `error` what went wrong.
fn read_response(
    mut response: Members<'_>,
    path: &str,
    calls: &mut Calls,
    losses: &mut Losses,
) -> Result<Part, Invalid> {
    let name = take_text(&mut response, "name").unwrap_or_default();
    let id = take_text(&mut response, "id").filter(|id| !id.is_empty());
    let id = calls.answered(id, &name);
    let (mut parts, mut is_error) = (Vec::new(), false);
    if let Some(given) = take(&mut response, "response") {
        let raw = compact(given.raw());
        let mut members = given.into_members().rest();
        let only = members.next().filter(|_| members.next().is_none());
        let text = match only {
            Some((name, value)) if name == "output" || name == "error" => {
                is_error = name == "error";
                value.text().map_or_else(|| compact(value.raw()), str::to_owned)
            }
            Some(_) | None => raw,
        };
        parts.push(Part::text(text));
    }
    for (at, part) in take_items(&mut response, "parts").into_iter().enumerate() {
        let path = format!("{path}.parts[{at}]");
        let mut part = part.into_members();
        parts.extend(read_media(&mut part, &path)?.map(Part::Media));
        note_rest(part, &path, losses);
    }
    note_rest(response, path, losses);
    Ok(Part::ToolResult { id, name: Some(name), parts, is_error })
}

/// A call: its id, if it has one, its tool's name, and its arguments.
pub(super) fn take_call(call: Tree<'_>) -> (Option<String>, String, String) {
    let mut call = call.into_members();
    let id = take_text(&mut call, "id").filter(|id| !id.is_empty());
    let name = take_text(&mut call, "name").unwrap_or_default();
    let arguments = take(&mut call, "args").map_or_else(|| "{}".to_owned(), |args| compact(args.raw()));
    (id, name, arguments)
}
