//! What both directions have in common: names, media, reasons to stop, usage, ids of calls.

use xxhash_rust::xxh3::Xxh3;

use crate::chat::{Effort, Logprob, Media, MediaKind, Source, Stop, Usage};
use crate::json::Kind;
use crate::json::tree::{Members, Tree};
use crate::json::write::{Object, object};

/// The other spelling of a name: `topP` as `top_p`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for character in name.chars() {
        if character.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
}

/// Takes a member out, in either spelling.
pub(super) fn take<'a>(members: &mut Members<'a>, name: &str) -> Option<Tree<'a>> {
    let camel = members.take(name);
    if camel.is_some() || !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return camel;
    }
    members.take(&snake(name))
}

/// The same of a string.
pub(super) fn take_text(members: &mut Members<'_>, name: &str) -> Option<String> {
    take(members, name)?.into_text()
}

/// The same of an object's members.
pub(super) fn take_members<'a>(members: &mut Members<'a>, name: &str) -> Members<'a> {
    take(members, name).map(Tree::into_members).unwrap_or_default()
}

/// The same of an array's elements.
pub(super) fn take_items<'a>(members: &mut Members<'a>, name: &str) -> Vec<Tree<'a>> {
    take(members, name).map(Tree::into_items).unwrap_or_default()
}

/// The same of a whole number, which may be written as a string.
pub(super) fn take_count(members: &mut Members<'_>, name: &str) -> Option<u64> {
    take(members, name).as_ref().and_then(count)
}

/// A whole number from 0 on; 64 bits are often written as a string.
pub(super) fn count(tree: &Tree<'_>) -> Option<u64> {
    tree.count().or_else(|| tree.text()?.parse().ok())
}

/// Whether a value asks for nothing.
pub(super) fn says_nothing(value: &Tree<'_>) -> bool {
    match value.kind() {
        Kind::Null => true,
        Kind::Bool => value.boolean() == Some(false),
        Kind::Array => value.items().is_empty(),
        Kind::Object => value.clone().into_members().rest().next().is_none(),
        Kind::String => value.text() == Some(""),
        Kind::Number => false,
    }
}

/// The generation of a model by its name: 3 of `gemini-3-flash-preview`. Names that say none have none.
fn generation(model: &str) -> Option<u32> {
    let after = &model[model.find("gemini-")? + "gemini-".len()..];
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    after[..digits].parse().ok()
}

/// Whether a model thinks by levels, wants signatures back with calls, and takes media inside of results.
pub(super) fn is_third(model: &str) -> bool {
    generation(model).is_some_and(|generation| generation >= 3)
}

/// What is sent where a model wants a signature and the call is another model's, as Google documents it.
pub(super) const NO_SIGNATURE: &str = "skip_thought_signature_validator";

const MADE_UP: &str = "call_";
const HASH_DIGITS: usize = 16;

/// An id for a call that came without: the same for the same call of the same answer, another in another answer.
pub(super) fn made_up(answer: &str, name: &str, arguments: &str, index: u64) -> String {
    let mut hasher = Xxh3::new();
    for text in [answer, name, arguments] {
        hasher.update(text.as_bytes());
        hasher.update(&[0xFF]);
    }
    format!("{MADE_UP}{:016x}_{index}", hasher.digest())
}

/// Whether an id is one of those; Gemini never saw it, and does not get it.
pub(super) fn is_made_up(id: &str) -> bool {
    let Some((hash, index)) = id.strip_prefix(MADE_UP).and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    hash.len() == HASH_DIGITS
        && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        && !index.is_empty()
        && index.bytes().all(|byte| byte.is_ascii_digit())
}

/// What kind of media a media type is of.
pub(super) fn kind_of(media_type: &str) -> MediaKind {
    match media_type.split('/').next().unwrap_or_default() {
        "image" => MediaKind::Image,
        "audio" => MediaKind::Audio,
        "video" => MediaKind::Video,
        _ => MediaKind::Document,
    }
}

/// A media type where none is given, by the end of the URL or by what it usually is.
pub(super) fn media_type_of(media: &Media) -> String {
    if let Some(known) = &media.media_type {
        return known.clone();
    }
    let named = match &media.source {
        Source::Url(url) | Source::File(url) => url.as_str(),
        Source::Base64(_) | Source::Text(_) => media.name.as_deref().unwrap_or_default(),
    };
    let path = named.split(['?', '#']).next().unwrap_or_default();
    let ending = path.rsplit('.').next().unwrap_or_default().to_ascii_lowercase();
    let by_ending = match ending.as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "heic" => "image/heic",
        "pdf" => "application/pdf",
        "txt" => "text/plain",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => match (media.kind, &media.source) {
            (MediaKind::Document, Source::Text(_)) => "text/plain",
            (MediaKind::Image, _) => "image/png",
            (MediaKind::Document, _) => "application/pdf",
            (MediaKind::Audio, _) => "audio/wav",
            (MediaKind::Video, _) => "video/mp4",
        },
    };
    by_ending.to_owned()
}

/// Base64 in the usual alphabet; this dialect's bytes may be in that of URLs.
pub(super) fn usual_base64(data: String) -> String {
    if data.contains(['-', '_']) { data.replace('-', "+").replace('_', "/") } else { data }
}

/// A signature as its provider wrote it: this dialect's clients send it back in the alphabet of URLs.
pub(super) fn usual_signature(signature: String) -> String {
    if signature == NO_SIGNATURE { signature } else { usual_base64(signature) }
}

/// A signature, if it can be one here: clients and providers of this dialect read it as Base64.
pub(super) fn base64_only(signature: &str) -> Option<&str> {
    let bare = signature.trim_end_matches('=');
    let padding = signature.len() - bare.len();
    let sound = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(&byte));
    let whole =
        if padding == 0 { bare.len() % 4 != 1 } else { padding <= 2 && signature.len().is_multiple_of(4) };
    (sound && whole && !bare.is_empty()).then_some(signature)
}

/// How hard to think, by its word.
pub(super) fn effort_of(word: &str) -> Option<Effort> {
    Some(match word.to_ascii_uppercase().as_str() {
        "MINIMAL" => Effort::Minimal,
        "LOW" => Effort::Low,
        "MEDIUM" => Effort::Medium,
        "HIGH" => Effort::High,
        "XHIGH" => Effort::Max,
        _ => return None,
    })
}

/// The word for how hard to think; there is none for not at all.
pub(super) const fn level(effort: Effort) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal => "MINIMAL",
        Effort::Low => "LOW",
        Effort::Medium => "MEDIUM",
        Effort::High | Effort::Max => "HIGH",
    }
}

/// Why an answer ended, by its word. `calls`: whether it calls tools.
pub(super) fn stop_of(word: &str, calls: bool) -> Option<Stop> {
    Some(match word {
        "" | "FINISH_REASON_UNSPECIFIED" => return None,
        "STOP" if calls => Stop::ToolCalls,
        "STOP" => Stop::End,
        "MAX_TOKENS" => Stop::Length,
        "SAFETY"
        | "RECITATION"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION"
        | "MODEL_ARMOR" => Stop::Filtered,
        // LANGUAGE, MALFORMED_FUNCTION_CALL, UNEXPECTED_TOOL_CALL, OTHER and what comes to be.
        _ => Stop::Other,
    })
}

/// The word for why an answer ended.
pub(super) const fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Sequence | Stop::ToolCalls | Stop::Paused => "STOP",
        Stop::Length => "MAX_TOKENS",
        Stop::Filtered | Stop::Refused => "SAFETY",
        Stop::Other => "OTHER",
    }
}

pub(super) fn usage_of(tree: Tree<'_>) -> Usage {
    let mut usage = tree.into_members();
    let mut number = |name: &str| take_count(&mut usage, name).unwrap_or(0);
    // What built-in tools read counts as well, and is billed.
    let prompt = number("promptTokenCount").saturating_add(number("toolUsePromptTokenCount"));
    let cached = number("cachedContentTokenCount");
    let (candidates, thoughts) = (number("candidatesTokenCount"), number("thoughtsTokenCount"));
    let mut audio = |name: &str| {
        take_items(&mut usage, name).into_iter().map(Tree::into_members).fold(0_u64, |sum, mut one| {
            let audio = take_text(&mut one, "modality").as_deref() == Some("AUDIO");
            let tokens = take_count(&mut one, "tokenCount").filter(|_| audio).unwrap_or(0);
            sum.saturating_add(tokens)
        })
    };
    Usage {
        tokens_in: prompt,
        tokens_in_cached: cached.min(prompt),
        tokens_in_cache_written: 0,
        tokens_in_audio: audio("promptTokensDetails"),
        tokens_out: candidates.saturating_add(thoughts),
        tokens_out_reasoning: thoughts,
        tokens_out_audio: audio("candidatesTokensDetails"),
        ..Usage::default()
    }
}

pub(super) fn usage_json(usage: &Usage) -> String {
    let candidates = usage.tokens_out.saturating_sub(usage.tokens_out_reasoning);
    let details = |all: u64, audio: u64| {
        [("TEXT", all.saturating_sub(audio)), ("AUDIO", audio)].map(|(modality, tokens)| {
            object(|it| _ = it.text("modality", modality).count("tokenCount", tokens))
        })
    };
    let some = |count: u64| Some(count).filter(|count| *count > 0);
    object(|it| {
        it.count("promptTokenCount", usage.tokens_in);
        it.count_if("cachedContentTokenCount", some(usage.tokens_in_cached));
        it.count("candidatesTokenCount", candidates);
        it.count_if("thoughtsTokenCount", some(usage.tokens_out_reasoning));
        it.count("totalTokenCount", usage.tokens_in.saturating_add(usage.tokens_out));
        if usage.tokens_in_audio > 0 {
            it.array("promptTokensDetails", details(usage.tokens_in, usage.tokens_in_audio));
        }
        if usage.tokens_out_audio > 0 {
            it.array("candidatesTokensDetails", details(candidates, usage.tokens_out_audio));
        }
    })
}

/// The log probabilities of a candidate.
pub(super) fn logprobs_of(result: Option<Tree<'_>>) -> Vec<Logprob> {
    fn one(tree: Tree<'_>) -> Option<Logprob> {
        let mut one = tree.into_members();
        Some(Logprob {
            token: take_text(&mut one, "token")?,
            logprob: take(&mut one, "logProbability")?.number()?,
            bytes: None,
            top: Vec::new(),
        })
    }
    let mut result = result.map(Tree::into_members).unwrap_or_default();
    let mut tops = take_items(&mut result, "topCandidates").into_iter();
    let chosen = take_items(&mut result, "chosenCandidates").into_iter();
    chosen
        .filter_map(|chosen| {
            let mut top = tops.next().map(Tree::into_members).unwrap_or_default();
            let top = take_items(&mut top, "candidates").into_iter().filter_map(one).collect();
            Some(Logprob { top, ..one(chosen)? })
        })
        .collect()
}

/// The same, written.
pub(super) fn logprobs_json(logprobs: &[Logprob]) -> String {
    let one = |one: &Logprob| {
        object(|it| _ = it.text("token", &one.token).number_if("logProbability", Some(one.logprob)))
    };
    object(|it| {
        it.array("chosenCandidates", logprobs.iter().map(one));
        if logprobs.iter().any(|chosen| !chosen.top.is_empty()) {
            let tops = logprobs
                .iter()
                .map(|chosen| object(|it| _ = it.array("candidates", chosen.top.iter().map(one))));
            it.array("topCandidates", tops);
        }
    })
}

/// A JSON text without the spaces between its tokens: Google's whole answers are indented.
pub(super) fn compact(raw: &str) -> String {
    let (mut out, mut in_string, mut escaped) = (String::with_capacity(raw.len()), false, false);
    for character in raw.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            ' ' | '\n' | '\r' | '\t' if !in_string => continue,
            _ => {}
        }
        out.push(character);
    }
    out
}

/// The arguments of a call as this dialect has them; `None` if they are no JSON object.
pub(super) fn args_of(arguments: &str) -> Option<String> {
    let text = arguments.trim();
    if text.is_empty() {
        return Some("{}".to_owned());
    }
    let tree = Tree::parse(text, crate::dialect::CONVERTED_DEPTH_MAX).ok()?;
    (tree.kind() == Kind::Object).then(|| text.to_owned())
}

/// A call as a part.
pub(super) fn fill_call(it: &mut Object, id: &str, name: &str, args: &str, signature: Option<&str>) {
    it.object("functionCall", |it| {
        if !id.is_empty() && !is_made_up(id) {
            it.text("id", id);
        }
        it.text("name", name).raw("args", args);
    });
    it.text_if("thoughtSignature", signature);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_two_spellings() {
        assert_eq!(
            (snake("systemInstruction"), snake("topP")),
            ("system_instruction".into(), "top_p".into())
        );
        let tree = Tree::parse(r#"{"top_p":0.5,"topK":null,"top_k":"7"}"#, 4).unwrap();
        let mut members = tree.into_members();
        assert_eq!(take(&mut members, "topP").unwrap().number(), Some(0.5));
        assert_eq!(take_count(&mut members, "topK"), Some(7));
    }

    #[test]
    fn only_spaces_between_tokens_are_left_out() {
        assert_eq!(compact("{ \"a b\" :\n [1, \"c\\\" d\\\\\", {}] }"), r#"{"a b":[1,"c\" d\\",{}]}"#);
    }

    #[test]
    fn signatures_are_base64_or_nothing() {
        for sound in ["c2ln", "c2lnLQ==", "c2lnLTE=", "c2lnLQ", "-_+/", NO_SIGNATURE] {
            assert_eq!(base64_only(sound), Some(sound));
        }
        for other in ["", "=", "c2lnL", "c2ln=", "c2lnLQ===", "c2 n", "sig.1"] {
            assert_eq!(base64_only(other), None, "{other}");
        }
        assert_eq!(usual_signature("ab-_".to_owned()), "ab+/");
        assert_eq!(usual_signature(NO_SIGNATURE.to_owned()), NO_SIGNATURE);
    }

    #[test]
    fn made_up_ids_are_known_again() {
        let id = made_up("r1", "weather", "{}", 0);
        assert_eq!(id, made_up("r1", "weather", "{}", 0));
        assert_ne!(id, made_up("r2", "weather", "{}", 0));
        assert!(is_made_up(&id) && id.len() <= 40, "{id}");
        for other in ["call_1", "call_abc", "call_0123456789abcdef", "toolu_1", "call_0123456789abcdefg_1"] {
            assert!(!is_made_up(other), "{other}");
        }
    }

    #[test]
    fn generations_of_models() {
        for (model, third) in [
            ("gemini-3-flash-preview", true),
            ("models/gemini-3.5-pro", true),
            ("gemini-2.5-pro", false),
            ("gemini-flash-latest", false),
            ("gemma-3-27b-it", false),
            ("m", false),
        ] {
            assert_eq!(is_third(model), third, "{model}");
        }
    }

    #[test]
    fn d14_usage_counts_thoughts_once_and_never_overflows() {
        let read = |text: &str| usage_of(Tree::parse(text, 8).unwrap());
        let usage = read(
            r#"{"promptTokenCount":10,"cachedContentTokenCount":4,"candidatesTokenCount":3,"thoughtsTokenCount":"5",
                "toolUsePromptTokenCount":2,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":6},{"modality":"TEXT","tokenCount":4}]}"#,
        );
        assert_eq!((usage.tokens_in, usage.tokens_in_cached, usage.tokens_in_audio), (12, 4, 6));
        assert_eq!((usage.tokens_out, usage.tokens_out_reasoning), (8, 5));
        assert_eq!(read(&usage_json(&usage)), usage);
        let wild = read(
            r#"{"promptTokenCount":1e400,"candidatesTokenCount":18446744073709551615,"thoughtsTokenCount":9}"#,
        );
        assert_eq!((wild.tokens_in, wild.tokens_out), (0, u64::MAX));
    }
}
