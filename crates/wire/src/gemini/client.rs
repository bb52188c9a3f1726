//! What clients of `generateContent` send, and are sent.

use crate::chat::{Answer, Choice, Conversation, Losses, Page, Part, Source, Stop};
use crate::dialect::{ClientDef, ClientDialect, Told, WriteStream};
use crate::json::tree::Tree;
use crate::json::write::{array, object};
use crate::openai::error::{ErrorBody, Invalid};

use super::config::{read_config, read_tools};
use super::contents::{NO_WORD, read_contents, read_system};
use super::deltas::Deltas;
use super::form::Form;
use super::grounding::Grounding;
use super::route;
use super::words::{
    args_of, base64_only, fill_call, finish_reason, logprobs_json, media_type_of, says_nothing, take,
    take_items, take_members, take_text, usage_json,
};

/// The definition.
pub static DEF: ClientDef = ClientDef {
    name: "gemini",
    summary: "Gemini (`/v1beta/models/{model}:generateContent`, `:streamGenerateContent`).",
    route: route::asked,
    places: &["/v1beta/", "/v1alpha/"],
    read: |asked, body, limits, salt| {
        let model = asked.model.as_deref().unwrap_or_default();
        super::parse(route::method_of(asked.call), model, body, limits, salt)
    },
    headers: &[],
    schema_field: "generationConfig",
    words: &[&[
        (".content", ".parts"),
        (".signature", ".thoughtSignature"),
        ("frequency_penalty", "generationConfig.frequencyPenalty"),
        ("logprobs", "generationConfig.responseLogprobs"),
        ("messages", "contents"),
        ("n", "generationConfig.candidateCount"),
        ("presence_penalty", "generationConfig.presencePenalty"),
        ("reasoning", "generationConfig.thinkingConfig"),
        ("reasoning_effort", "generationConfig.thinkingConfig"),
        ("response_format", "generationConfig.responseMimeType"),
        ("seed", "generationConfig.seed"),
        ("service_tier", "serviceTier"),
        ("stop", "generationConfig.stopSequences"),
        ("system", "systemInstruction"),
        ("temperature", "generationConfig.temperature"),
        ("tool_choice", "toolConfig.functionCallingConfig"),
        ("top_k", "generationConfig.topK"),
        ("top_logprobs", "generationConfig.logprobs"),
        ("top_p", "generationConfig.topP"),
    ]],
    request_id_header: None,
    error_status: |error| error.status,
    stream_type: |asked| form_of(asked.call).content_type(),
    heartbeat: Form::ping(),
    dialect: &GeminiClient,
};

/// The dialect.
struct GeminiClient;

/// The form of a stream: events with `alt=sse`, else one JSON array.
fn form_of(call: &str) -> Form {
    if call == route::STREAM_AS_ARRAY { Form::Array } else { Form::Events }
}

impl ClientDialect for GeminiClient {
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid> {
        let mut body = body.into_members();
        let mut all = Conversation { choices: 1, stream_usage: true, ..Conversation::default() };
        take(&mut body, "model");
        if take(&mut body, "cachedContent").is_some_and(|cached| !says_nothing(&cached)) {
            let text = "`cachedContent`: what Google keeps cannot be read by another provider; send it in `contents`";
            return Err(Invalid::field("cachedContent", text));
        }
        if let Some(system) = take(&mut body, "systemInstruction") {
            read_system(system, &mut all)?;
        }
        read_contents(take_items(&mut body, "contents"), &mut all)?;
        read_tools(&mut body, &mut all);
        read_config(take_members(&mut body, "generationConfig"), &mut all)?;
        all.service_tier = take_text(&mut body, "serviceTier").and_then(|tier| tier_of(&tier));
        for (name, _) in body.rest().filter(|(_, value)| !says_nothing(value)) {
            all.losses.note(name, NO_WORD);
        }
        Ok(all)
    }

    fn answer(&self, answer: &Answer, told: &Told, losses: &mut Losses) -> String {
        let candidates = answer.choices.iter().enumerate();
        let candidates = array(candidates.map(|(index, choice)| candidate(index, choice, losses)));
        object(|it| {
            it.raw("candidates", &candidates);
            if let Some(usage) = &answer.usage {
                it.raw("usageMetadata", &usage_json(usage));
                losses.note_if(
                    usage.tokens_in_cache_written > 0,
                    "usage",
                    "Gemini does not count what a cache is written",
                );
            }
            it.text("modelVersion", &told.model);
            it.text("responseId", if answer.id.is_empty() { &told.id } else { &answer.id });
        })
    }

    fn stream(&self, told: Told) -> Box<dyn WriteStream> {
        let form = form_of(told.call);
        Box::new(Deltas::new(told, form))
    }

    fn counted(&self, tokens_in: u64) -> String {
        object(|it| _ = it.count("totalTokens", tokens_in))
    }

    fn error(&self, error: &ErrorBody, id: &str) -> String {
        super::fault::error_body(error, id)
    }
}

/// A service tier in both of its spellings; `standard` is as usual.
fn tier_of(word: &str) -> Option<String> {
    let word = word.to_ascii_lowercase();
    let word = word.strip_prefix("service_tier_").unwrap_or(&word);
    Some(word.to_owned()).filter(|word| !matches!(word.as_str(), "" | "standard" | "unspecified"))
}

/// Why a citation is lost.
pub(super) const ONLY_PAGES: &str = "Gemini cites pages only";

fn candidate(index: usize, choice: &Choice, losses: &mut Losses) -> String {
    let (mut parts, mut broken, mut grounding) = (Vec::new(), false, Grounding::default());
    for (at, part) in choice.parts.iter().enumerate() {
        if let Part::ToolCall { arguments, .. } = part
            && args_of(arguments).is_none()
        {
            broken = true;
        }
        if let Part::Text { text, citations, .. } = part {
            let (pages, others) = Page::all_of(citations.as_deref());
            losses.note_if(others, "citations", ONLY_PAGES);
            grounding.add_all(&pages, parts.len() as u64, text, losses);
        }
        parts.extend(part_json(part, &choice.parts, at, losses));
    }
    object(|it| {
        it.object("content", |it| _ = it.array("parts", parts).text("role", "model"));
        if let Some(stop) = choice.stop {
            it.text("finishReason", reason(stop, broken));
        }
        it.count("index", index as u64);
        if let Some(grounding) = grounding.json() {
            it.raw("groundingMetadata", &grounding);
        }
        if !choice.logprobs.is_empty() {
            it.raw("logprobsResult", &logprobs_json(&choice.logprobs));
        }
    })
}

/// Why an answer ended. One that calls a tool with broken arguments must not look as if it called it (D15).
pub(super) const fn reason(stop: Stop, broken: bool) -> &'static str {
    let by_itself = match stop {
        Stop::End | Stop::Sequence | Stop::ToolCalls | Stop::Paused | Stop::Other => true,
        Stop::Length | Stop::Filtered | Stop::Refused => false,
    };
    if by_itself && broken { "MALFORMED_FUNCTION_CALL" } else { finish_reason(stop) }
}

/// A signature without words, which belongs to a text beside it.
const fn alone(part: &Part) -> Option<&String> {
    match part {
        Part::Thinking { text, signature: Some(signature) } if text.is_empty() => Some(signature),
        Part::Thinking { .. }
        | Part::Text { .. }
        | Part::Media(_)
        | Part::ToolCall { .. }
        | Part::ToolResult { .. }
        | Part::HiddenThinking { .. }
        | Part::Refusal(_) => None,
    }
}

/// The signature of the text at `at`: the one behind it, or the one before it if that is no other text's (dialects that
/// put all thoughts first move it there).
pub(super) fn signature_of_text<'a>(parts: &'a [Part], at: usize) -> Option<&'a str> {
    let is_text = |at: Option<usize>| matches!(at.and_then(|at| parts.get(at)), Some(Part::Text { .. }));
    let alone = |part: &'a Part| alone(part).and_then(|signature| base64_only(signature));
    let behind = parts.get(at + 1).and_then(alone);
    let before = at.checked_sub(1).and_then(|at| parts.get(at)).and_then(alone);
    let before = before.filter(|_| !is_text(at.checked_sub(2)));
    behind.or(before)
}

/// Whether the part at `at` is written with the text beside it.
pub(super) fn is_text_signature(parts: &[Part], at: usize) -> bool {
    let Some(signature) = parts.get(at).and_then(alone) else { return false };
    let has = |at: usize| {
        matches!(parts.get(at), Some(Part::Text { .. })) && signature_of_text(parts, at) == Some(signature)
    };
    at.checked_sub(1).is_some_and(has) || has(at + 1)
}

/// A signature as far as this dialect can say it.
pub(super) fn signed<'a>(signature: Option<&'a str>, losses: &mut Losses) -> Option<&'a str> {
    let sound = signature.and_then(base64_only);
    losses.note_if(
        sound.is_none() && signature.is_some(),
        "signature",
        "it is no Base64, as it has to be in Gemini",
    );
    sound
}

fn part_json(part: &Part, all: &[Part], at: usize, losses: &mut Losses) -> Option<String> {
    match part {
        Part::Text { text, .. } => {
            let signature = signature_of_text(all, at);
            Some(object(|it| _ = it.text("text", text).text_if("thoughtSignature", signature)))
        }
        Part::Thinking { .. } if is_text_signature(all, at) => None,
        Part::Thinking { text, signature } => {
            let signature = signed(signature.as_deref(), losses);
            let said = object(|it| {
                it.text("text", text);
                if !text.is_empty() {
                    it.boolean("thought", true);
                }
                it.text_if("thoughtSignature", signature);
            });
            Some(said).filter(|_| !text.is_empty() || signature.is_some())
        }
        Part::ToolCall { id, name, arguments, signature } => {
            let signature = signed(signature.as_deref(), losses);
            let args = args_of(arguments);
            losses.note_if(args.is_none(), "arguments", "the model's arguments are no JSON object");
            args.map(|args| object(|it| fill_call(it, id, name, &args, signature)))
        }
        Part::Refusal(why) => Some(object(|it| _ = it.text("text", why))),
        Part::Media(media) => match &media.source {
            Source::Base64(data) => Some(object(|it| {
                it.object("inlineData", |it| {
                    it.text("mimeType", &media_type_of(media)).text("data", data);
                });
            })),
            Source::Text(text) => Some(object(|it| _ = it.text("text", text))),
            Source::Url(url) | Source::File(url) => Some(object(|it| {
                it.object("fileData", |it| {
                    it.text("mimeType", &media_type_of(media)).text("fileUri", url);
                });
            })),
        },
        Part::HiddenThinking { .. } => {
            losses.note("thinking", "Gemini has no thoughts that are hidden");
            None
        }
        Part::ToolResult { .. } => {
            losses.note("content", "a model gives no results of tools");
            None
        }
    }
}
