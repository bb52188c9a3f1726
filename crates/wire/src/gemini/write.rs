//! A conversation as the contents of a request.

use crate::chat::{Conversation, Losses, Media, MediaKind, Message, Part, Role, Source};
use crate::json::Kind;
use crate::json::tree::Tree;
use crate::json::write::{Object, object};

use super::client::{is_text_signature, signature_of_text, signed};
use super::contents::KEPT_BY_GOOGLE;
use super::words::{NO_SIGNATURE, args_of, fill_call, is_made_up, is_third, media_type_of};

/// Why marks for a cache are lost.
pub(super) const NO_MARKS: &str = "Gemini caches by itself and takes no marks";

/// The contents; what stays empty is left out, for Gemini takes none without parts.
pub(super) fn contents(all: &Conversation, model: &str, losses: &mut Losses) -> Vec<String> {
    let mut writer = Writer { calls: Vec::new(), third: is_third(model), losses };
    let messages = all.messages.iter().enumerate();
    messages.flat_map(|(at, message)| writer.message(message, &format!("messages[{at}].content"))).collect()
}

struct Writer<'a> {
    /// Ids and names of the calls so far: results must say whose they are.
    calls: Vec<(&'a str, &'a str)>,
    third: bool,
    losses: &'a mut Losses,
}

fn content(role: &str, parts: Vec<String>) -> Option<String> {
    (!parts.is_empty()).then(|| object(|it| _ = it.text("role", role).array("parts", parts)))
}

impl<'a> Writer<'a> {
    fn message(&mut self, message: &'a Message, path: &str) -> Vec<String> {
        self.losses.note_if(
            message.name.is_some(),
            &format!("{path}.name"),
            "Gemini has no names beside roles",
        );
        match message.role {
            Role::Assistant => content("model", self.said(&message.parts, path)).into_iter().collect(),
            Role::User => content("user", self.parts(&message.parts, path)).into_iter().collect(),
            Role::System => {
                let why = "Gemini is instructed at the beginning only; later on it is the user's word";
                self.losses.note(path, why);
                content("user", self.parts(&message.parts, path)).into_iter().collect()
            }
            Role::Tool => self.results(&message.parts, path),
        }
    }

    /// What the model said: the first of its calls carries the signature.
    fn said(&mut self, parts: &'a [Part], path: &str) -> Vec<String> {
        let mut unsigned = self.third;
        let mut out = Vec::new();
        for (at, part) in parts.iter().enumerate() {
            if let Part::ToolCall { id, name, arguments, signature } = part {
                self.calls.push((id, name));
                let args = args_of(arguments);
                let why = "the model's arguments are no JSON object";
                self.losses.note_if(args.is_none(), &format!("{path}.arguments"), why);
                let missing = std::mem::take(&mut unsigned).then_some(NO_SIGNATURE);
                let signature = signed(signature.as_deref(), self.losses).or(missing);
                let args = args.unwrap_or_else(|| "{}".to_owned());
                out.push(object(|it| fill_call(it, id, name, &args, signature)));
            } else {
                out.extend(self.part(part, parts, at, path));
            }
        }
        out
    }

    fn parts(&mut self, parts: &[Part], path: &str) -> Vec<String> {
        parts.iter().enumerate().filter_map(|(at, part)| self.part(part, parts, at, path)).collect()
    }

    fn part(&mut self, part: &Part, all: &[Part], at: usize, path: &str) -> Option<String> {
        match part {
            Part::Text { text, cache, citations } => {
                self.losses.note_if(cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
                let why = "Gemini takes no citations back";
                self.losses.note_if(citations.is_some(), &format!("{path}.citations"), why);
                let signature = signature_of_text(all, at);
                Some(object(|it| _ = it.text("text", text).text_if("thoughtSignature", signature)))
            }
            Part::Thinking { text, signature } => {
                if text.is_empty() && signature.is_none() || is_text_signature(all, at) {
                    return None;
                }
                let signature = signed(signature.as_deref(), self.losses);
                let said = object(|it| {
                    it.text("text", text);
                    if !text.is_empty() {
                        it.boolean("thought", true);
                    }
                    it.text_if("thoughtSignature", signature);
                });
                Some(said).filter(|_| !text.is_empty() || signature.is_some())
            }
            Part::Media(media) => self.media(media, path),
            Part::Refusal(why) => Some(object(|it| _ = it.text("text", why))),
            Part::HiddenThinking { .. } => {
                self.losses.note(format!("{path}.thinking"), "only its own provider can read it");
                None
            }
            Part::ToolCall { .. } | Part::ToolResult { .. } => {
                self.losses.note(path, "a call or a result of a tool does not stand here in Gemini");
                None
            }
        }
    }

    /// The results of tools, and what else came with them.
    fn results(&mut self, parts: &[Part], path: &str) -> Vec<String> {
        let (mut results, mut beside) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Part::ToolResult { id, name, parts, is_error } => {
                    let known = self.calls.iter().rev().find(|(call, _)| call == id).map(|(_, name)| *name);
                    let name = name.as_deref().filter(|name| !name.is_empty()).or(known).unwrap_or(id);
                    results.push(self.result((id, name), parts, *is_error, path, &mut beside));
                }
                Part::Text { .. }
                | Part::Media(_)
                | Part::ToolCall { .. }
                | Part::Thinking { .. }
                | Part::HiddenThinking { .. }
                | Part::Refusal(_) => beside.extend(self.part(part, &[], 0, path)),
            }
        }
        content("user", results).into_iter().chain(content("user", beside)).collect()
    }

    /// One result. Media stand inside from the third generation on, before that behind the results.
    fn result(
        &mut self,
        (id, name): (&str, &str),
        parts: &[Part],
        is_error: bool,
        path: &str,
        beside: &mut Vec<String>,
    ) -> String {
        let (mut text, mut inside) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text { text: more, cache, citations: _ } => {
                    self.losses.note_if(cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
                    if !text.is_empty() {
                        text.push('\n');
                    }
                    text.push_str(more);
                }
                Part::Media(media) => {
                    let into = if self.third { &mut inside } else { &mut *beside };
                    into.extend(self.media(media, path));
                }
                Part::ToolCall { .. }
                | Part::ToolResult { .. }
                | Part::Thinking { .. }
                | Part::HiddenThinking { .. }
                | Part::Refusal(_) => self.losses.note(path, "a tool gives text and media only"),
            }
        }
        object(|it| {
            it.object("functionResponse", |it| {
                if !id.is_empty() && !is_made_up(id) {
                    it.text("id", id);
                }
                it.text("name", name);
                fill_response(it, &text, is_error);
                if !inside.is_empty() {
                    it.array("parts", inside);
                }
            });
        })
    }

    fn media(&mut self, media: &Media, path: &str) -> Option<String> {
        self.losses.note_if(media.cache.is_some(), &format!("{path}.cache_control"), NO_MARKS);
        let detail = media.detail.as_deref().is_some_and(|detail| detail != "auto");
        self.losses.note_if(detail, &format!("{path}.detail"), "Gemini is not told of it image by image");
        // Only Vertex AI takes a name, and not for all media.
        let named = media.name.is_some() && media.kind == MediaKind::Document;
        self.losses.note_if(named, &format!("{path}.title"), "Gemini is not told what a document is called");
        let media_type = media_type_of(media);
        match &media.source {
            Source::Base64(data) => Some(object(|it| {
                it.object("inlineData", |it| _ = it.text("mimeType", &media_type).text("data", data));
            })),
            Source::Text(text) => Some(object(|it| _ = it.text("text", text))),
            Source::File(id) if !KEPT_BY_GOOGLE.iter().any(|place| id.starts_with(place)) => {
                self.losses.note(path, "the file is kept by another provider");
                None
            }
            Source::Url(uri) | Source::File(uri) => Some(object(|it| {
                it.object("fileData", |it| _ = it.text("mimeType", &media_type).text("fileUri", uri));
            })),
        }
    }
}

/// What came out, as an object: itself if it is one, else below the name that is usual.
fn fill_response(it: &mut Object, text: &str, is_error: bool) {
    let tree = Tree::parse(text, crate::dialect::CONVERTED_DEPTH_MAX).ok();
    let whole = tree.filter(|tree| tree.kind() == Kind::Object);
    match (whole, is_error) {
        (Some(whole), false) => _ = it.raw("response", whole.raw()),
        (Some(whole), true) => _ = it.object("response", |it| _ = it.raw("error", whole.raw())),
        (None, _) => {
            _ = it.object("response", |it| _ = it.text(if is_error { "error" } else { "output" }, text));
        }
    }
}
