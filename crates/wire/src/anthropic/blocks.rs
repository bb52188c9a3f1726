//! Content blocks, written: those of requests and those of answers.

use crate::chat::{Losses, Media, MediaKind, Page, Part, Source};
use crate::dialect::CONVERTED_DEPTH_MAX;
use crate::json::Kind;
use crate::json::tree::Tree;
use crate::json::write::{Object, array, object};

/// The member that arguments are put in which are no JSON object: they are shown, and never made into what could run.
const MALFORMED: &str = "malformed_arguments";

/// The citations of a text that has none: the dialect's own description demands the member in answers.
pub(super) const NO_CITATIONS: &str = "[]";
/// Who called a tool: the model itself, and no code that it ran. Demanded like that.
pub(super) const DIRECT: &str = r#"{"type":"direct"}"#;

/// One block of a request; `None` if there is nothing to say or no way to say it.
pub(super) fn block(part: &Part, path: &str, losses: &mut Losses) -> Option<String> {
    match part {
        Part::Text { text, cache, citations } => {
            // Blank blocks are refused.
            if text.trim().is_empty() {
                return None;
            }
            Some(object(|it| {
                it.text("type", "text").text("text", text);
                write_citations(it, citations.as_deref(), path, losses);
                write_cache(it, cache.as_deref());
            }))
        }
        Part::Media(media) => media_block(media, path, losses),
        Part::ToolCall { id, name, arguments, signature } => {
            losses.note_if(signature.is_some(), &format!("{path}.signature"), NO_SIGNATURE);
            Some(object(|it| fill_tool_use(it, id, name, arguments, path, losses)))
        }
        Part::ToolResult { id, name: _, parts, is_error } => {
            Some(tool_result(id, parts, *is_error, path, losses))
        }
        Part::Thinking { text, signature: Some(signature) } => Some(object(|it| {
            it.text("type", "thinking").text("thinking", text).text("signature", signature);
        })),
        Part::Thinking { text: _, signature: None } => {
            losses.note(path, "Anthropic takes thoughts back only with their signature");
            None
        }
        Part::HiddenThinking { data } => Some(hidden(data)),
        Part::Refusal(why) if why.trim().is_empty() => None,
        Part::Refusal(why) => Some(object(|it| _ = it.text("type", "text").text("text", why))),
    }
}

/// One block of an answer.
pub(super) fn answer_block(part: &Part, path: &str, losses: &mut Losses) -> Option<String> {
    match part {
        Part::Thinking { text, signature } => Some(object(|it| {
            it.text("type", "thinking").text("thinking", text);
            it.text("signature", signature.as_deref().unwrap_or(""));
        })),
        Part::Text { text, .. } | Part::Refusal(text) if text.trim().is_empty() => None,
        Part::Text { text, cache: _, citations } => Some(object(|it| {
            it.text("type", "text").text("text", text);
            it.raw("citations", &answer_citations(citations.as_deref(), text, path, losses));
        })),
        Part::Refusal(why) => Some(object(|it| {
            it.text("type", "text").text("text", why).raw("citations", NO_CITATIONS);
        })),
        Part::ToolCall { id, name, arguments, signature } => {
            losses.note_if(signature.is_some(), &format!("{path}.signature"), NO_SIGNATURE);
            Some(object(|it| {
                fill_tool_use(it, id, name, arguments, path, losses);
                it.raw("caller", DIRECT);
            }))
        }
        Part::HiddenThinking { data } => Some(hidden(data)),
        Part::Media(_) => {
            losses.note(path, "Anthropic answers with text only");
            None
        }
        Part::ToolResult { .. } => {
            losses.note(path, "a model gives no results of tools");
            None
        }
    }
}

fn hidden(data: &str) -> String {
    object(|it| _ = it.text("type", "redacted_thinking").text("data", data))
}

pub(super) fn write_cache(it: &mut Object, cache: Option<&str>) {
    if let Some(mark) = cache {
        it.raw("cache_control", mark);
    }
}

fn write_citations(it: &mut Object, citations: Option<&str>, path: &str, losses: &mut Losses) {
    if let Some(citations) = citations.filter(|citations| is_own(citations)) {
        it.raw("citations", citations);
    }
    note_citations(citations, path, losses);
}

fn note_citations(citations: Option<&str>, path: &str, losses: &mut Losses) {
    let foreign = citations.is_some_and(|citations| !is_own(citations));
    losses.note_if(foreign, &format!("{path}.citations"), FOREIGN);
}

/// The citations of an answer. Those of another dialect are shown if they are of pages.
fn answer_citations(citations: Option<&str>, text: &str, path: &str, losses: &mut Losses) -> String {
    let Some(citations) = citations else { return NO_CITATIONS.to_owned() };
    let list = Tree::parse(citations, CONVERTED_DEPTH_MAX).map(Tree::into_items).unwrap_or_default();
    let whole = (0, text.chars().count() as u64);
    array(list.iter().filter_map(|one| {
        let shown = citation(one.raw());
        let path = format!("{path}.citations");
        losses.note_if(shown.is_none(), &path, FOREIGN);
        let narrow = Page::of(one).is_some_and(|page| page.span.is_some_and(|span| span != whole));
        losses.note_if(narrow && !is_own(one.raw()), &path, WHOLE_BLOCKS);
        shown
    }))
}

/// A citation in the form of this dialect, if it has one: its own, or that of a page. What would let its provider find the
/// page again is not known of those that another found.
pub(super) fn citation(citation: &str) -> Option<String> {
    if is_own(citation) {
        return Some(citation.to_owned());
    }
    let page = Page::parse(citation)?;
    Some(object(|it| {
        it.text("type", "web_search_result_location").text("url", &page.url).text("title", &page.title);
        it.text("encrypted_index", "").text("cited_text", "");
    }))
}

/// Why a citation is lost.
pub(super) const FOREIGN: &str = "Anthropic cites in another form";

/// Why it is lost where in a text a citation stands.
pub(super) const WHOLE_BLOCKS: &str =
    "Anthropic cites for a whole text: which of its characters a citation is for is left out";

/// Whether a citation, or a list of them, is in the form of this dialect.
pub(super) fn is_own(citations: &str) -> bool {
    // One without a place in the index was made of another dialect's; the provider would refuse it.
    let own = |one: &Tree<'_>| {
        one.get("type").and_then(Tree::text).is_some_and(|kind| kind.ends_with("_location"))
            && one.get("encrypted_index").and_then(Tree::text) != Some("")
    };
    Tree::parse(citations, CONVERTED_DEPTH_MAX).is_ok_and(|tree| match tree.kind() {
        Kind::Array => tree.items().iter().all(own),
        Kind::Object | Kind::String | Kind::Number | Kind::Bool | Kind::Null => own(&tree),
    })
}

/// Why the signature of a call is lost.
const NO_SIGNATURE: &str = "Anthropic signs thoughts, not calls";

fn fill_tool_use(it: &mut Object, id: &str, name: &str, arguments: &str, path: &str, losses: &mut Losses) {
    it.text("type", "tool_use").text("id", &known_by(id)).text("name", name);
    it.raw("input", &input(arguments, path, losses));
}

/// Ids are held to letters, digits, `_` and `-`. A call and its result are changed alike.
pub(super) fn known_by(id: &str) -> String {
    if id.is_empty() {
        return "call".to_owned();
    }
    let plain = |character: char| match character {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => character,
        _ => '_',
    };
    id.chars().map(plain).collect()
}

/// Arguments as the object that they are.
fn input(arguments: &str, path: &str, losses: &mut Losses) -> String {
    if arguments.trim().is_empty() {
        return "{}".to_owned();
    }
    match Tree::parse(arguments, CONVERTED_DEPTH_MAX) {
        Ok(tree) if tree.kind() == Kind::Object => tree.raw().to_owned(),
        Ok(_) | Err(_) => {
            losses.note(
                format!("{path}.input"),
                "the arguments are no JSON object; they stand in `malformed_arguments` as they came",
            );
            object(|it| _ = it.text(MALFORMED, arguments))
        }
    }
}

fn tool_result(id: &str, parts: &[Part], is_error: bool, path: &str, losses: &mut Losses) -> String {
    // A mark at the end of a result stands at the result.
    let (mut parts, mut mark) = (parts.to_vec(), None);
    if let Some(Part::Text { cache, .. }) = parts.last_mut() {
        mark = cache.take();
    }
    let blocks: Vec<String> = parts
        .iter()
        .enumerate()
        .filter_map(|(at, part)| {
            let path = format!("{path}.content[{at}]");
            match part {
                Part::Text { .. } | Part::Media(_) | Part::Refusal(_) => block(part, &path, losses),
                Part::ToolCall { .. }
                | Part::ToolResult { .. }
                | Part::Thinking { .. }
                | Part::HiddenThinking { .. } => {
                    losses.note(path, "a result of a tool has text and media only");
                    None
                }
            }
        })
        .collect();
    object(|it| {
        it.text("type", "tool_result").text("tool_use_id", &known_by(id));
        match parts.as_slice() {
            [Part::Text { text, .. }] if !text.trim().is_empty() => _ = it.text("content", text),
            _ if blocks.is_empty() => {}
            _ => _ = it.array("content", &blocks),
        }
        if is_error {
            it.boolean("is_error", true);
        }
        write_cache(it, mark.as_deref());
    })
}

fn media_block(media: &Media, path: &str, losses: &mut Losses) -> Option<String> {
    let kind = match media.kind {
        MediaKind::Image => "image",
        MediaKind::Document => "document",
        MediaKind::Audio | MediaKind::Video => {
            losses.note(path, "Anthropic takes images and documents, no sound and no films");
            return None;
        }
    };
    let Some(source) = source(media) else {
        losses.note(path, "Anthropic takes documents in Base64 as PDF only, and images not as text");
        return None;
    };
    let detail = media.detail.as_deref().is_some_and(|detail| detail != "auto");
    losses.note_if(detail, &format!("{path}.detail"), "Anthropic looks at every image alike");
    Some(object(|it| {
        it.text("type", kind).raw("source", &source);
        if media.kind == MediaKind::Document {
            it.text_if("title", media.name.as_deref());
        }
        write_cache(it, media.cache.as_deref());
    }))
}

fn source(media: &Media) -> Option<String> {
    let document = media.kind == MediaKind::Document;
    let usual = if document { "application/pdf" } else { "image/png" };
    let media_type = media.media_type.as_deref().unwrap_or(usual);
    match &media.source {
        Source::Base64(_) if document && media_type != "application/pdf" => None,
        Source::Base64(data) => Some(object(|it| {
            it.text("type", "base64").text("media_type", media_type).text("data", data);
        })),
        Source::Text(text) if document => Some(object(|it| {
            it.text("type", "text").text("media_type", "text/plain").text("data", text);
        })),
        Source::Text(_) => None,
        Source::Url(url) => Some(object(|it| _ = it.text("type", "url").text("url", url))),
        Source::File(id) => Some(object(|it| _ = it.text("type", "file").text("file_id", id))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d15_broken_arguments_are_shown_and_never_made_to_run() {
        let check = |arguments: &str, expected: &str, lost: usize| {
            let mut losses = Losses::default();
            assert_eq!(input(arguments, "c", &mut losses), expected, "{arguments}");
            assert_eq!(losses.count(), lost);
            assert!(Tree::parse(expected, 4).is_ok());
        };
        check("", "{}", 0);
        check(" \n", "{}", 0);
        check(r#" {"a":1.0} "#, r#"{"a":1.0}"#, 0);
        check(r#"{"a":"#, r#"{"malformed_arguments":"{\"a\":"}"#, 1);
        check("[1]", r#"{"malformed_arguments":"[1]"}"#, 1);
        check("null", r#"{"malformed_arguments":"null"}"#, 1);
        let deep = "[".repeat(100_000);
        let mut losses = Losses::default();
        assert!(input(&deep, "c", &mut losses).contains(MALFORMED));
    }

    #[test]
    fn ids_are_of_the_letters_that_are_taken() {
        assert_eq!(known_by("call_1-A"), "call_1-A");
        assert_eq!(known_by("functions.weather:0"), "functions_weather_0");
        assert_eq!(known_by(""), "call");
    }
}
