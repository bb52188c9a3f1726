//! What an assistant said beside its content: thoughts before it, pages that it cites, a refusal and calls behind it. In
//! the history of a request and in an answer it is the same.

use crate::chat::{Losses, Page, Part};
use crate::json::tree::{Members, Tree};
use crate::taken::{NO_WORD, note_rest};

use super::words::signature_of;

/// Why a call is lost.
const CUSTOM: &str = "`custom` tools take free text, which other dialects have not";

/// Why a citation is lost.
pub(super) const NO_PAGE: &str = "only pages are cited alike elsewhere";

/// Reads it. The ids of calls that cannot be carried are put behind `dropped`, for their results are lost with them.
pub(super) fn read_said(
    message: &mut Members<'_>,
    mut content: Vec<Part>,
    path: &str,
    losses: &mut Losses,
    dropped: &mut Vec<String>,
) -> Vec<Part> {
    let mut parts = read_thoughts(message, path, losses);
    if let Some(list) = message.take("annotations") {
        cite(&mut content, list.items(), &format!("{path}annotations"), losses);
    }
    parts.extend(content);
    parts.extend(message.take_text("refusal").map(Part::Refusal));
    for (at, call) in
        message.take("tool_calls").map(Tree::into_items).unwrap_or_default().into_iter().enumerate()
    {
        let path = format!("{path}tool_calls[{at}]");
        let mut call = call.into_members();
        let id = call.take_text("id").unwrap_or_default();
        if call.take_text("type").as_deref() == Some("custom") {
            losses.note(path, CUSTOM);
            dropped.push(id);
            continue;
        }
        call.take("index");
        let function = call.take("function").map(Tree::into_members).unwrap_or_default();
        let signed = call.take("extra_content").as_ref().and_then(signature_of);
        parts.push(read_call(id, function, signed, &path, losses));
        note_rest(call, &format!("{path}."), losses);
    }
    if let Some(function) = message.take("function_call") {
        let path = format!("{path}function_call");
        let mut call = read_call(String::new(), function.into_members(), None, &path, losses);
        if let Part::ToolCall { id, name, .. } = &mut call {
            id.clone_from(name);
        }
        parts.push(call);
    }
    parts
}

fn read_call(
    id: String,
    mut function: Members<'_>,
    signature: Option<String>,
    path: &str,
    losses: &mut Losses,
) -> Part {
    let name = function.take_text("name").unwrap_or_default();
    // Some engines give the object itself.
    let arguments =
        function.take("arguments").map(|arguments| arguments.text().unwrap_or(arguments.raw()).to_owned());
    note_rest(function, &format!("{path}.function."), losses);
    Part::ToolCall { id, name, arguments: arguments.unwrap_or_default(), signature }
}

/// Thoughts, as one plain text or in pieces of which each may be proven. Who sends pieces back may have left their words in
/// the plain text: a piece without any gets what the others do not say of it.
fn read_thoughts(message: &mut Members<'_>, path: &str, losses: &mut Losses) -> Vec<Part> {
    let details = message.take("reasoning_details").map(Tree::into_items).unwrap_or_default();
    let plain = message.take_text("reasoning_content");
    let plain = message.take_text("reasoning").or(plain).unwrap_or_default();
    let (mut parts, mut told, mut silent) = (Vec::new(), String::new(), None);
    for (at, detail) in details.into_iter().enumerate() {
        let path = format!("{path}reasoning_details[{at}]");
        let mut detail = detail.into_members();
        for name in ["type", "id", "format", "index"] {
            detail.take(name);
        }
        let signature = detail.take_text("signature").filter(|signature| !signature.is_empty());
        let text = detail.take_text("text").or_else(|| detail.take_text("summary"));
        if let Some(data) = detail.take_text("data") {
            parts.push(Part::HiddenThinking { data });
        } else if text.is_some() || signature.is_some() {
            // One that never had words has no such member.
            if text.as_deref() == Some("") && silent.is_none() {
                silent = Some(parts.len());
            }
            let text = text.unwrap_or_default();
            told.push_str(&text);
            parts.push(Part::Thinking { text, signature });
        } else {
            losses.note(&path, NO_WORD);
        }
        note_rest(detail, &format!("{path}."), losses);
    }
    let unsaid = plain.strip_suffix(told.as_str()).unwrap_or_default();
    if let Some(Part::Thinking { text, .. }) = silent.and_then(|at| parts.get_mut(at)) {
        unsaid.clone_into(text);
    } else if told.is_empty() && !plain.is_empty() {
        parts.insert(0, Part::Thinking { text: plain, signature: None });
    }
    parts.retain(|part| !matches!(part, Part::Thinking { text, signature: None } if text.is_empty()));
    parts
}

/// Puts citations to the texts that they are of: they count from the beginning of all of them.
fn cite(texts: &mut [Part], annotations: &[Tree<'_>], path: &str, losses: &mut Losses) {
    for annotation in annotations {
        // Without a text there is nothing that a page could stand for.
        let page =
            Page::of(annotation).filter(|_| texts.iter().any(|part| matches!(part, Part::Text { .. })));
        let Some(page) = page else {
            losses.note(path, NO_PAGE);
            continue;
        };
        let mut before = 0;
        let last = texts.len().saturating_sub(1);
        for (at, part) in texts.iter_mut().enumerate() {
            let Part::Text { text, citations, .. } = part else { continue };
            let chars = text.chars().count() as u64;
            if at == last || page.span.is_none_or(|(start, _)| start < before + chars) {
                let one = page.clone().from(before).json();
                *citations = Some(match citations.take() {
                    Some(known) => format!("{},{one}]", known.strip_suffix(']').unwrap_or(&known)),
                    None => format!("[{one}]"),
                });
                break;
            }
            before += chars;
        }
    }
}
