//! Media as Converse has them: by a format of its own list, as bytes or from S3.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::chat::{Losses, Media, MediaKind, Source};
use crate::json::write::{Object, object};

/// The longest name of a document.
const NAME_CHARS_MAX: usize = 200;

/// Why media are lost.
const NO_FORMAT: &str = "Converse takes no media of this type";
const NO_SOURCE: &str = "Converse takes media as bytes or from S3, and fetches no URL or file";

/// An image, document, sound or film as a block; `documents` are the names given so far, which must differ.
pub(super) fn block(
    media: &Media,
    documents: &mut Vec<String>,
    path: &str,
    losses: &mut Losses,
) -> Option<String> {
    losses.note_if(media.detail.is_some(), &format!("{path}.detail"), "Converse has no such field");
    let Some(format) = format(media) else {
        losses.note(path, NO_FORMAT);
        return None;
    };
    let source = source(media).or_else(|| {
        losses.note(path, NO_SOURCE);
        None
    })?;
    let name = match media.kind {
        MediaKind::Image => "image",
        MediaKind::Document => "document",
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
    };
    Some(object(|it| {
        it.object(name, |it| {
            it.text("format", format);
            if media.kind == MediaKind::Document {
                it.text("name", &document_name(media.name.as_deref(), documents));
            }
            it.raw("source", &source);
        });
    }))
}

fn source(media: &Media) -> Option<String> {
    let bytes = |data: &str| Some(object(|it| _ = it.text("bytes", data)));
    match &media.source {
        Source::Base64(data) => bytes(data),
        Source::Text(text) => bytes(&STANDARD.encode(text)),
        Source::Url(url) if url.starts_with("s3://") => {
            Some(object(|it| _ = it.object("s3Location", |it: &mut Object| _ = it.text("uri", url))))
        }
        Source::Url(_) | Source::File(_) => None,
    }
}

/// The format, by the media type, or what the data or the name look like where that is not said.
fn format(media: &Media) -> Option<&'static str> {
    let media_type = media.media_type.as_deref().unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let place = match &media.source {
        Source::Url(url) => Some(url.as_str()),
        Source::Base64(_) | Source::Text(_) | Source::File(_) => None,
    };
    let ending = media.name.as_deref().or(place).and_then(|name| name.rsplit_once('.')).map(|(_, end)| end);
    let ending = ending.unwrap_or_default().to_ascii_lowercase();
    match media.kind {
        MediaKind::Image => {
            image_format(&media_type).or_else(|| image_format(&ending)).or_else(|| sniff(media))
        }
        MediaKind::Document => match &media.source {
            Source::Text(_) if media_type.is_empty() => Some(document_format(&ending).unwrap_or("txt")),
            Source::Text(_) | Source::Base64(_) | Source::Url(_) | Source::File(_) => {
                let known = document_format(&media_type).or_else(|| document_format(&ending));
                known.or_else(|| sniff(media))
            }
        },
        MediaKind::Audio => audio_format(&media_type).or_else(|| audio_format(&ending)),
        MediaKind::Video => video_format(&media_type).or_else(|| video_format(&ending)),
    }
}

fn image_format(name: &str) -> Option<&'static str> {
    Some(match name {
        "image/png" | "png" => "png",
        "image/jpeg" | "image/jpg" | "jpeg" | "jpg" => "jpeg",
        "image/gif" | "gif" => "gif",
        "image/webp" | "webp" => "webp",
        _ => return None,
    })
}

fn document_format(name: &str) -> Option<&'static str> {
    Some(match name {
        "application/pdf" | "pdf" => "pdf",
        "text/csv" | "csv" => "csv",
        "application/msword" | "doc" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" | "docx" => "docx",
        "application/vnd.ms-excel" | "xls" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" | "xlsx" => "xlsx",
        "text/html" | "html" | "htm" => "html",
        "text/plain" | "txt" => "txt",
        "text/markdown" | "md" => "md",
        _ => return None,
    })
}

fn audio_format(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("audio/").unwrap_or(name);
    Some(match name {
        "mp3" | "mpeg" => "mp3",
        "wav" | "x-wav" | "wave" | "vnd.wave" => "wav",
        "opus" => "opus",
        "aac" => "aac",
        "x-aac" => "x-aac",
        "flac" | "x-flac" => "flac",
        "mp4" => "mp4",
        "m4a" | "x-m4a" => "m4a",
        "ogg" => "ogg",
        "webm" => "webm",
        "mka" | "x-matroska" => "mka",
        "pcm" | "pcm16" | "l16" => "pcm",
        _ => return None,
    })
}

fn video_format(name: &str) -> Option<&'static str> {
    let name = name.strip_prefix("video/").unwrap_or(name);
    Some(match name {
        "mp4" => "mp4",
        "quicktime" | "mov" => "mov",
        "x-matroska" | "matroska" | "mkv" => "mkv",
        "webm" => "webm",
        "x-flv" | "flv" => "flv",
        "mpeg" => "mpeg",
        "mpg" => "mpg",
        "x-ms-wmv" | "wmv" => "wmv",
        "3gpp" | "3gp" => "three_gp",
        _ => return None,
    })
}

/// By how the data begin, in Base64.
fn sniff(media: &Media) -> Option<&'static str> {
    let Source::Base64(data) = &media.source else { return None };
    let begins = |with: &str| data.starts_with(with);
    match media.kind {
        MediaKind::Image if begins("iVBORw0KGgo") => Some("png"),
        MediaKind::Image if begins("/9j/") => Some("jpeg"),
        MediaKind::Image if begins("R0lGOD") => Some("gif"),
        MediaKind::Image if begins("UklGR") => Some("webp"),
        MediaKind::Document if begins("JVBERi0") => Some("pdf"),
        MediaKind::Image | MediaKind::Document | MediaKind::Audio | MediaKind::Video => None,
    }
}

/// A name of the characters that names may have, which no other document of the request has.
fn document_name(name: Option<&str>, known: &mut Vec<String>) -> String {
    // The ending says no more than the format does, and dots are not allowed.
    let stem = name.map_or("", |name| name.rsplit_once('.').map_or(name, |(stem, _)| stem));
    let mut clean = String::new();
    for character in stem.chars().take(NAME_CHARS_MAX - 8) {
        let allowed = character.is_ascii_alphanumeric() || matches!(character, '-' | '(' | ')' | '[' | ']');
        if allowed {
            clean.push(character);
        } else if !clean.ends_with(' ') {
            clean.push(' ');
        }
    }
    let clean = clean.trim();
    let clean = if clean.is_empty() { "document" } else { clean };
    let mut unique = clean.to_owned();
    let mut count = 1;
    while known.contains(&unique) {
        count += 1;
        unique = format!("{clean} {count}");
    }
    known.push(unique.clone());
    unique
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(kind: MediaKind, media_type: Option<&str>, source: Source) -> Media {
        let media_type = media_type.map(str::to_owned);
        Media { kind, media_type, source, name: None, detail: None, cache: None }
    }

    #[test]
    fn formats_come_from_the_type_the_name_or_the_data() {
        let check = |media: &Media, expected| assert_eq!(format(media), expected, "{media:?}");
        let data = || Source::Base64("iVBORw0KGgoAAA".to_owned());
        check(&media(MediaKind::Image, Some("image/JPEG; q=1"), data()), Some("jpeg"));
        check(&media(MediaKind::Image, None, data()), Some("png"));
        check(&media(MediaKind::Image, Some("image/tiff"), Source::Base64("SUkq".to_owned())), None);
        check(&media(MediaKind::Document, None, Source::Text("x".to_owned())), Some("txt"));
        check(&media(MediaKind::Document, None, Source::Url("s3://b/k.docx".to_owned())), Some("docx"));
        check(&media(MediaKind::Audio, Some("audio/mpeg"), data()), Some("mp3"));
        check(&media(MediaKind::Video, Some("video/3gpp"), data()), Some("three_gp"));
    }

    #[test]
    fn names_of_documents_are_clean_and_differ() {
        let mut known = Vec::new();
        let mut name = |name| document_name(name, &mut known);
        assert_eq!(name(Some("../Q3  report_final (2).pdf")), "Q3 report final (2)");
        assert_eq!(name(None), "document");
        assert_eq!(name(Some("document.txt")), "document 2");
        assert!(name(Some(&"x".repeat(1_000))).len() <= NAME_CHARS_MAX);
    }

    #[test]
    fn i7_nothing_is_fetched() {
        let mut losses = Losses::default();
        let url = media(MediaKind::Image, Some("image/png"), Source::Url("https://a.test/b.png".to_owned()));
        assert_eq!(block(&url, &mut Vec::new(), "messages[0]", &mut losses), None);
        assert_eq!(losses.named()[0].to_string(), format!("`messages[0]`: {NO_SOURCE}"));
    }
}
