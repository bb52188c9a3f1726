//! The parts of items, read.

use crate::chat::{Losses, Media, MediaKind, Part, Source};
use crate::json::tree::{Members, Tree};
use crate::openai::chat::words::source_of_url;
use crate::openai::error::Invalid;
use crate::taken::{note_rest, says_nothing};

/// A text, or a list of parts.
pub(super) fn read_content(
    content: Option<Tree<'_>>,
    path: &str,
    losses: &mut Losses,
) -> Result<Vec<Part>, Invalid> {
    let Some(content) = content else { return Ok(Vec::new()) };
    if let Some(text) = content.text() {
        return Ok(vec![Part::text(text)]);
    }
    let mut parts = Vec::new();
    for (at, part) in content.into_items().into_iter().enumerate() {
        let path = format!("{path}[{at}]");
        let mut part = part.into_members();
        let kind = part.take_text("type").unwrap_or_default();
        parts.push(read_part(&kind, &mut part, &path)?);
        note_rest(part, &format!("{path}."), losses);
    }
    Ok(parts)
}

fn read_part(kind: &str, part: &mut Members<'_>, path: &str) -> Result<Part, Invalid> {
    let media = |kind, (source, media_type), name, detail| {
        Part::Media(Media { kind, media_type, source, name, detail, cache: None })
    };
    Ok(match kind {
        // A message's text may be said in whichever of these words; each is known to be sent.
        "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text" => {
            let text = part.take_text("text").unwrap_or_default();
            part.take("logprobs");
            let citations = part.take("annotations").filter(|list| !says_nothing(list));
            Part::Text { text, cache: None, citations: citations.map(|list| list.raw().to_owned()) }
        }
        "refusal" => Part::Refusal(part.take_text("refusal").unwrap_or_default()),
        "input_image" => {
            let detail = part.take_text("detail").filter(|detail| detail != "auto");
            let source = match (part.take_text("image_url"), part.take_text("file_id")) {
                (Some(url), _) => source_of_url(url),
                (None, id) => (Source::File(id.unwrap_or_default()), None),
            };
            media(MediaKind::Image, source, None, detail)
        }
        "input_file" => {
            let name = part.take_text("filename");
            let (data, url) = (part.take_text("file_data"), part.take_text("file_url"));
            let source = match (data, url, part.take_text("file_id")) {
                (Some(data), _, _) => match source_of_url(data) {
                    (Source::Url(data), _) => (Source::Base64(data), None),
                    other => other,
                },
                (None, Some(url), _) => (Source::Url(url), None),
                (None, None, id) => (Source::File(id.unwrap_or_default()), None),
            };
            media(MediaKind::Document, source, name, None)
        }
        "input_audio" => {
            let mut audio = part.take("input_audio").map(Tree::into_members).unwrap_or_default();
            let media_type = audio.take_text("format").map(|format| format!("audio/{format}"));
            let source = Source::Base64(audio.take_text("data").unwrap_or_default());
            media(MediaKind::Audio, (source, media_type), None, None)
        }
        other => {
            let field = format!("{path}.type");
            let text = format!("`{field}`: `{other}` is nothing that another dialect knows");
            return Err(Invalid::field(field, text));
        }
    })
}
