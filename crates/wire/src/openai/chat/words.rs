//! What both directions have in common: media, tools, reasons to stop, usage.

use xxhash_rust::xxh3::Xxh3;

use crate::chat::{Effort, Logprob, Media, MediaKind, Page, Source, Stop, Usage};
use crate::json::tree::Tree;
use crate::json::write::{Object, object};

/// An image's place: a URL, or the data itself.
pub(in crate::openai) fn source_of_url(url: String) -> (Source, Option<String>) {
    let data = url.strip_prefix("data:").and_then(|rest| rest.split_once(','));
    match data.and_then(|(head, data)| Some((head.strip_suffix(";base64")?, data))) {
        Some((media_type, data)) => {
            let media_type = Some(media_type.to_owned()).filter(|media_type| !media_type.is_empty());
            (Source::Base64(data.to_owned()), media_type)
        }
        None => (Source::Url(url), None),
    }
}

/// The same the other way; `None` for what a URL cannot say.
pub(super) fn url_of(media: &Media) -> Option<String> {
    match &media.source {
        Source::Url(url) => Some(url.clone()),
        Source::Base64(data) => {
            let usual = match media.kind {
                MediaKind::Image => "image/png",
                MediaKind::Document => "application/pdf",
                MediaKind::Audio => "audio/wav",
                MediaKind::Video => "video/mp4",
            };
            let media_type = media.media_type.as_deref().unwrap_or(usual);
            Some(format!("data:{media_type};base64,{data}"))
        }
        Source::Text(_) | Source::File(_) => None,
    }
}

/// What a provider wants back with a call, where Google has it: in `extra_content.google.thought_signature`.
pub(in crate::openai) fn signature_of(extra: &Tree<'_>) -> Option<String> {
    Some(extra.get("google")?.get("thought_signature")?.text()?.to_owned())
}

/// The same, written beside a call.
pub(in crate::openai) fn fill_signature(it: &mut Object, signature: &str) {
    it.object("extra_content", |it| {
        it.object("google", |it| _ = it.text("thought_signature", signature));
    });
}

/// The id of a call that came without one: the same for the same place in the same answer.
pub(super) fn call_id(answer: &str, choice: usize, at: usize) -> String {
    let mut hasher = Xxh3::new();
    hasher.update(answer.as_bytes());
    hasher.update(&[0xFF]);
    hasher.update(&(choice as u64).to_le_bytes());
    hasher.update(&(at as u64).to_le_bytes());
    format!("call_{:016x}", hasher.digest())
}

/// The texts of an answer's content, and whether each is a thought: one text, or the parts that some vendors answer with.
pub(super) fn pieces_of(content: &Tree<'_>) -> Vec<(bool, String)> {
    if let Some(text) = content.text() {
        return vec![(false, text.to_owned())];
    }
    let text = |part: &Tree<'_>| part.get("text").and_then(Tree::text).map(str::to_owned);
    let mut pieces = Vec::new();
    for part in content.items() {
        if let Some(thought) = part.get("thinking") {
            let whole = thought.text().map(str::to_owned);
            pieces.extend(
                whole.into_iter().chain(thought.items().iter().filter_map(text)).map(|text| (true, text)),
            );
        } else {
            pieces.extend(text(part).map(|text| (false, text)));
        }
    }
    pieces
}

/// Why it is noted that a reason to stop is not carried over.
pub(super) const NO_SUCH_REASON: &str = "the provider ends its answer for a reason of its own";
/// The same where there is none.
pub(super) const NO_REASON: &str = "the provider does not say why its answer ended";

/// A thought among the details of what was thought. One without words has no such member, so that it is told from one whose
/// words stand in the plain text only.
pub(super) fn thought_json(text: &str, signature: Option<&str>, index: u64) -> String {
    object(|it| {
        it.text("type", "reasoning.text").text_if("text", Some(text).filter(|text| !text.is_empty()));
        it.text_if("signature", signature).count("index", index);
    })
}

/// What proves a thought whose words stand in the plain text only.
pub(super) fn unsaid_json(signature: &str, index: u64) -> String {
    object(|it| {
        it.text("type", "reasoning.text").text("text", "").text("signature", signature).count("index", index);
    })
}

/// The same of one that only its provider can read.
pub(super) fn hidden_json(data: &str, index: u64) -> String {
    object(|it| _ = it.text("type", "reasoning.encrypted").text("data", data).count("index", index))
}

/// A page that is cited by a text of so many characters, behind so many others.
pub(super) fn annotation_json(page: &Page, before: u64, chars: u64) -> String {
    let (start, end) = page.place(chars);
    object(|it| {
        it.text("type", "url_citation").object("url_citation", |it| {
            it.count("start_index", before + start).count("end_index", before + end);
            it.text("url", &page.url).text("title", &page.title);
        });
    })
}

/// Why an answer ended, by its word: the dialect's, and those of engines and vendors that speak it.
pub(super) fn stop_of(word: &str) -> Stop {
    match word {
        "stop" | "eos" | "eos_token" => Stop::End,
        "length" | "max_tokens" | "model_length" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => Stop::Sequence,
        "tool_calls" | "function_call" => Stop::ToolCalls,
        "content_filter" | "sensitive" => Stop::Filtered,
        _ => Stop::Other,
    }
}

/// The word for why an answer ended.
pub(super) fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::End | Stop::Sequence | Stop::Paused | Stop::Other => "stop",
        Stop::Length => "length",
        Stop::ToolCalls => "tool_calls",
        Stop::Filtered | Stop::Refused => "content_filter",
    }
}

/// How hard to think, by its word.
pub(in crate::openai) fn effort_of(word: &str) -> Option<Effort> {
    Some(match word {
        "none" => Effort::None,
        "minimal" => Effort::Minimal,
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
        "xhigh" | "max" => Effort::Max,
        _ => return None,
    })
}

/// The word for how hard to think.
pub(super) fn effort_word(effort: Effort) -> &'static str {
    match effort {
        Effort::None => "none",
        Effort::Minimal => "minimal",
        Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::Max => "xhigh",
    }
}

pub(super) fn usage_of(tree: &Tree<'_>) -> Usage {
    let count = |tree: &Tree<'_>, name: &str| tree.get(name).and_then(Tree::count).unwrap_or(0);
    let within = |group: &str, name: &str| tree.get(group).map_or(0, |group| count(group, name));
    Usage {
        tokens_in: count(tree, "prompt_tokens"),
        // DeepSeek says it beside the others.
        tokens_in_cached: within("prompt_tokens_details", "cached_tokens")
            .max(count(tree, "prompt_cache_hit_tokens")),
        tokens_in_cache_written: within("prompt_tokens_details", "cache_write_tokens"),
        tokens_in_audio: within("prompt_tokens_details", "audio_tokens"),
        tokens_out: count(tree, "completion_tokens"),
        tokens_out_reasoning: within("completion_tokens_details", "reasoning_tokens"),
        tokens_out_audio: within("completion_tokens_details", "audio_tokens"),
        // What xAI and Perplexity searched is billed beside the tokens.
        off_list: count(tree, "num_sources_used").max(count(tree, "num_search_queries")) > 0,
        ..Usage::default()
    }
}

pub(super) fn usage_json(usage: &Usage) -> String {
    object(|it| {
        it.count("prompt_tokens", usage.tokens_in).count("completion_tokens", usage.tokens_out);
        it.count("total_tokens", usage.tokens_in.saturating_add(usage.tokens_out));
        it.object("prompt_tokens_details", |it| {
            it.count("cached_tokens", usage.tokens_in_cached).count("audio_tokens", usage.tokens_in_audio);
            if usage.tokens_in_cache_written > 0 {
                it.count("cache_write_tokens", usage.tokens_in_cache_written);
            }
        });
        it.object("completion_tokens_details", |it| {
            it.count("reasoning_tokens", usage.tokens_out_reasoning);
            it.count("audio_tokens", usage.tokens_out_audio);
        });
    })
}

fn fill_logprob(it: &mut Object, one: &Logprob) {
    it.text("token", &one.token).number_if("logprob", Some(one.logprob));
    match &one.bytes {
        Some(bytes) => it.array("bytes", bytes.iter().map(u8::to_string)),
        None => it.raw("bytes", "null"),
    };
}

/// One token's.
pub(in crate::openai) fn logprob_json(one: &Logprob) -> String {
    object(|it| {
        fill_logprob(it, one);
        it.array("top_logprobs", one.top.iter().map(|top| object(|it| fill_logprob(it, top))));
    })
}

/// The log probabilities of a choice, `null` if there are none.
pub(super) fn logprobs_json(logprobs: &[Logprob]) -> String {
    if logprobs.is_empty() {
        return "null".to_owned();
    }
    object(|it| _ = it.array("content", logprobs.iter().map(logprob_json)).raw("refusal", "null"))
}

/// The same, read.
pub(super) fn logprobs_of(tree: Option<&Tree<'_>>) -> Vec<Logprob> {
    fn one(tree: &Tree<'_>) -> Option<Logprob> {
        let bytes = tree
            .get("bytes")
            .map(|bytes| bytes.items().iter().filter_map(|byte| u8::try_from(byte.count()?).ok()).collect());
        Some(Logprob {
            token: tree.get("token")?.text()?.to_owned(),
            logprob: tree.get("logprob")?.number()?,
            bytes,
            top: tree
                .get("top_logprobs")
                .map(Tree::items)
                .unwrap_or_default()
                .iter()
                .filter_map(one)
                .collect(),
        })
    }
    let content = tree.and_then(|tree| tree.get("content")).map(Tree::items).unwrap_or_default();
    content.iter().filter_map(one).collect()
}
