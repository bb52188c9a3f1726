//! What Bedrock answers, as a whole.

use crate::chat::{Answer, Choice, Losses, Media, MediaKind, Part, Source, Stop, Usage};
use crate::dialect::{AnswerFault, CONVERTED_DEPTH_MAX};
use crate::json::tree::{Members, Tree};
use crate::json::write::array;
use crate::openai::usage::is_usual_tier;

/// The type of calls that the provider itself has answered.
pub(super) const RUN_BY_PROVIDER: &str = "server_tool_use";
/// Why those are lost: a client would run them again.
pub(super) const RUN_ALREADY: &str = "the provider ran this tool itself";

/// Reads the body of an answer.
pub(super) fn read(body: &str) -> Result<Answer, AnswerFault> {
    let mut body = Tree::parse(body, CONVERTED_DEPTH_MAX)?.into_members();
    let mut answer = Answer::default();
    let mut output = body.take("output").map(Tree::into_members).unwrap_or_default();
    let message = output.take("message").ok_or(AnswerFault::Missing("output.message"))?;
    let mut message = message.into_members();
    let mut choice = Choice::default();
    for (at, block) in
        message.take("content").map(Tree::into_items).unwrap_or_default().into_iter().enumerate()
    {
        let path = format!("output.message.content[{at}]");
        choice.parts.extend(part(block.into_members(), &path, &mut answer.losses));
    }
    choice.stop = body.take_text("stopReason").map(|word| stop_of(&word));
    choice.stop_sequence = stop_sequence(&mut body, choice.stop);
    answer.usage = body.take("usage").as_ref().map(usage_of);
    answer.service_tier = tier(&mut body);
    note_tier(answer.usage.as_mut(), answer.service_tier.as_deref());
    answer.losses.note_if(body.take("trace").is_some(), "trace", "only Bedrock traces");
    answer.choices.push(choice);
    Ok(answer)
}

/// The tier that an answer was served in.
pub(super) fn tier(body: &mut Members<'_>) -> Option<String> {
    body.take("serviceTier").and_then(|tier| tier.get("type")?.text().map(str::to_owned))
}

/// What another tier than the usual one used has other prices.
pub(super) fn note_tier(usage: Option<&mut Usage>, tier: Option<&str>) {
    if let (Some(usage), Some(tier)) = (usage, tier) {
        usage.off_list |= !is_usual_tier(tier);
    }
}

/// The text that ended an answer, for which the request asks where the model tells it.
pub(super) fn stop_sequence(body: &mut Members<'_>, stop: Option<Stop>) -> Option<String> {
    let fields = body.take("additionalModelResponseFields")?;
    let sequence = fields.get("stop_sequence")?.text()?;
    (stop == Some(Stop::Sequence)).then(|| sequence.to_owned())
}

fn part(mut block: Members<'_>, path: &str, losses: &mut Losses) -> Option<Part> {
    if let Some(text) = block.take_text("text") {
        return (!text.is_empty()).then(|| Part::text(text));
    }
    if let Some(call) = block.take("toolUse") {
        let mut call = call.into_members();
        if call.take_text("type").as_deref() == Some(RUN_BY_PROVIDER) {
            losses.note(format!("{path}.toolUse"), RUN_ALREADY);
            return None;
        }
        return Some(Part::ToolCall {
            id: call.take_text("toolUseId").unwrap_or_default(),
            name: call.take_text("name").unwrap_or_default(),
            arguments: call.take("input").map_or_else(|| "{}".to_owned(), |input| input.raw().to_owned()),
            signature: None,
        });
    }
    if let Some(thought) = block.take("reasoningContent") {
        let mut thought = thought.into_members();
        if let Some(data) = thought.take_text("redactedContent") {
            return Some(Part::HiddenThinking { data });
        }
        let mut text = thought.take("reasoningText").map(Tree::into_members).unwrap_or_default();
        let signature = text.take_text("signature").filter(|signature| !signature.is_empty());
        return Some(Part::Thinking { text: text.take_text("text").unwrap_or_default(), signature });
    }
    if let Some(cited) = block.take("citationsContent") {
        let said = cited.get("content").map(Tree::items).unwrap_or_default();
        let text = said.iter().filter_map(|said| said.get("text")?.text()).collect();
        let citations = cited.get("citations").map(Tree::items).unwrap_or_default();
        let citations = (!citations.is_empty()).then(|| array(citations.iter().map(Tree::raw)));
        return Some(Part::Text { text, cache: None, citations });
    }
    if let Some(image) = block.take("image") {
        return image_part(&image);
    }
    for (name, _) in block.rest() {
        losses.note(format!("{path}.{name}"), "only Converse answers with such a block");
    }
    None
}

fn image_part(image: &Tree<'_>) -> Option<Part> {
    let data = image.get("source")?.get("bytes")?.text()?;
    Some(Part::Media(Media {
        kind: MediaKind::Image,
        media_type: image.get("format").and_then(Tree::text).map(|format| format!("image/{format}")),
        source: Source::Base64(data.to_owned()),
        name: None,
        detail: None,
        cache: None,
    }))
}

/// Why an answer ended, by its word.
pub(super) fn stop_of(word: &str) -> Stop {
    match word {
        "end_turn" => Stop::End,
        "tool_use" => Stop::ToolCalls,
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => Stop::Sequence,
        "guardrail_intervened" | "content_filtered" => Stop::Filtered,
        // `malformed_model_output`, `malformed_tool_use`, and what is to come.
        _ => Stop::Other,
    }
}

/// What was used. Models differ in whether `inputTokens` counts what was read from a cache or written to it; the total tells.
pub(super) fn usage_of(tree: &Tree<'_>) -> Usage {
    let count = |name: &str| tree.get(name).and_then(Tree::count).unwrap_or(0);
    let (given, tokens_out) = (count("inputTokens"), count("outputTokens"));
    let (cached, written) = (count("cacheReadInputTokens"), count("cacheWriteInputTokens"));
    let by_total = count("totalTokens").saturating_sub(tokens_out);
    let of_cache = cached.saturating_add(written);
    let hourly = tree.get("cacheDetails").map(Tree::items).unwrap_or_default().iter();
    let hourly = hourly.filter(|one| one.get("ttl").and_then(Tree::text) == Some("1h"));
    let hourly = hourly.filter_map(|one| one.get("inputTokens")?.count()).fold(0_u64, u64::saturating_add);
    let counts_cache = by_total == given && given >= of_cache;
    Usage {
        tokens_in: if counts_cache { given } else { given.saturating_add(of_cache) },
        tokens_in_cached: cached,
        tokens_in_cache_written: written,
        tokens_in_cache_written_1h: hourly.min(written),
        tokens_out,
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_to_stop_is_known() {
        let check = |word: &str, expected| assert_eq!(stop_of(word), expected, "{word}");
        check("end_turn", Stop::End);
        check("tool_use", Stop::ToolCalls);
        check("max_tokens", Stop::Length);
        check("stop_sequence", Stop::Sequence);
        check("guardrail_intervened", Stop::Filtered);
        check("content_filtered", Stop::Filtered);
        check("model_context_window_exceeded", Stop::Length);
        check("malformed_tool_use", Stop::Other);
        check("new_reason", Stop::Other);
    }

    #[test]
    fn d14_usage_counts_what_was_cached_once() {
        let usage = |text| usage_of(&Tree::parse(text, 8).unwrap());
        let text = r#"{"inputTokens":10,"outputTokens":5,"totalTokens":115,"cacheReadInputTokens":70,"cacheWriteInputTokens":30}"#;
        let expected = Usage {
            tokens_in: 110,
            tokens_in_cached: 70,
            tokens_in_cache_written: 30,
            tokens_out: 5,
            ..Usage::default()
        };
        assert_eq!(usage(text), expected);
        let counted = r#"{"inputTokens":110,"outputTokens":5,"totalTokens":115,"cacheReadInputTokens":70,"cacheWriteInputTokens":30}"#;
        assert_eq!(usage(counted), expected);
        assert_eq!(usage(r#"{"inputTokens":null,"outputTokens":"x"}"#), Usage::default());
        assert_eq!(usage(r#"{"inputTokens":1e300,"cacheReadInputTokens":1e300}"#).tokens_in, u64::MAX);
    }

    #[test]
    fn an_answer_of_anything_is_read_without_a_panic() {
        for body in ["{}", "[]", "null", r#"{"output":[],"usage":1,"stopReason":2}"#] {
            assert_eq!(read(body), Err(AnswerFault::Missing("output.message")), "{body}");
        }
        let empty = r#"{"output":{"message":[]},"usage":1,"stopReason":2}"#;
        assert_eq!(read(empty).unwrap().choices.len(), 1);
        let odd = r#"{"output":{"message":{"content":[{"searchResult":{}},{"image":{}},7,{"toolUse":{}},{"toolUse":{"type":"server_tool_use","name":"nova_grounding"}}]}}}"#;
        let answer = read(odd).unwrap();
        assert_eq!(answer.choices[0].parts.len(), 1);
        let lost: Vec<&str> = answer.losses.named().iter().map(|loss| loss.field.as_str()).collect();
        assert_eq!(lost, ["output.message.content[0].searchResult", "output.message.content[4].toolUse"]);
    }
}
