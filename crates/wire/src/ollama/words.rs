//! What both directions have in common: times, reasons to stop, usage, thinking, ids of calls, errors.

use xxhash_rust::xxh3::Xxh3;

use crate::chat::{Effort, Logprob, Losses, Media, MediaKind, Part, Reasoning, Source, Stop, Usage};
use crate::json::Kind;
use crate::json::tree::Tree;
use crate::json::write::{Object, array, object};
use crate::openai::error::ErrorBody;

const SECONDS_A_DAY: u64 = 86_400;
/// Days from the first of March of the year 0 to 1970.
const DAYS_TO_1970: u64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: u64 = 146_097;

/// A time as `created_at` has it: RFC 3339 in UTC.
pub(super) fn rfc3339(unix_s: u64) -> String {
    // Years are counted from March, so that the leap day comes last. Beyond the year 9999 the form ends.
    let days = unix_s.min(253_402_300_799) / SECONDS_A_DAY + DAYS_TO_1970;
    let (era, day) = (days / ERA_DAYS, days % ERA_DAYS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let second = unix_s.min(253_402_300_799) % SECONDS_A_DAY;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The seconds since 1970 of such a time, fractions cut off; other zones than UTC are taken into account.
pub(super) fn unix_s(time: &str) -> Option<u64> {
    let number = |from: usize, to: usize| time.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let sound = (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !sound || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let years = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = years * 365 + years / 4 - years / 100 + years / 400 + day_of_year - DAYS_TO_1970;
    let utc = days * SECONDS_A_DAY + hour * 3_600 + minute * 60 + second;
    let zone = time.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let away = |zone: &str| {
        let (hours, minutes) = zone.split_once(':')?;
        Some(hours.parse::<u64>().ok()?.min(24) * 3_600 + minutes.parse::<u64>().ok()?.min(59) * 60)
    };
    match zone.as_bytes().first() {
        Some(b'+') => Some(utc.saturating_sub(away(&zone[1..])?)),
        Some(b'-') => Some(utc + away(&zone[1..])?),
        Some(_) | None => Some(utc),
    }
}

/// Why an answer ended, by its word.
pub(super) fn stop_of(word: &str, called: bool) -> Stop {
    match word {
        "stop" if called => Stop::ToolCalls,
        "stop" => Stop::End,
        "length" => Stop::Length,
        _ => Stop::Other,
    }
}

/// The word for why an answer ended. Ollama has two.
pub(super) fn done_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::Length => "length",
        Stop::End
        | Stop::Sequence
        | Stop::ToolCalls
        | Stop::Filtered
        | Stop::Refused
        | Stop::Paused
        | Stop::Other => "stop",
    }
}

/// Usage, if the object counts anything.
pub(super) fn usage_of(tree: &Tree<'_>) -> Option<Usage> {
    let count = |name: &str| tree.get(name).and_then(Tree::count);
    let (tokens_in, tokens_out) = (count("prompt_eval_count"), count("eval_count"));
    (tokens_in.is_some() || tokens_out.is_some()).then(|| Usage {
        tokens_in: tokens_in.unwrap_or(0),
        tokens_out: tokens_out.unwrap_or(0),
        ..Usage::default()
    })
}

/// The members that end an answer. How long it took is not known here, and so not said.
pub(super) fn fill_end(it: &mut Object, stop: Option<Stop>, usage: Option<&Usage>) {
    it.boolean("done", true).text_if("done_reason", stop.map(done_reason));
    if let Some(usage) = usage {
        it.count("prompt_eval_count", usage.tokens_in).count("eval_count", usage.tokens_out);
    }
}

/// `think`: whether to, or how hard.
pub(super) fn reasoning_of(think: &Tree<'_>) -> Option<Reasoning> {
    let effort = match (think.boolean(), think.text()) {
        (Some(true), _) | (_, Some("medium")) => Effort::Medium,
        (Some(false), _) => Effort::None,
        (_, Some("low")) => Effort::Low,
        (_, Some("high")) => Effort::High,
        (_, Some("max")) => Effort::Max,
        (None, _) => return None,
    };
    let visible = Some(effort != Effort::None);
    Some(Reasoning { effort: Some(effort), tokens: None, visible })
}

/// The models that are told how hard to think. All others are told whether to, and refuse anything else.
const DEGREES: &str = "gpt-oss";

/// The same, written for a model.
pub(super) fn think_json(reasoning: &Reasoning, model: &str, losses: &mut Losses) -> Option<&'static str> {
    let effort = reasoning.effort.or_else(|| reasoning.tokens.map(Effort::of_tokens));
    let Some(effort) = effort else {
        return reasoning.visible.map(|visible| if visible { "true" } else { "false" });
    };
    if !model.contains(DEGREES) {
        let degree = !matches!(effort, Effort::None | Effort::Medium);
        losses.note_if(
            degree,
            "reasoning_effort",
            "only `gpt-oss` models are told how hard to think by Ollama",
        );
        return Some(if effort == Effort::None { "false" } else { "true" });
    }
    Some(match effort {
        // It cannot be told not to.
        Effort::None => {
            losses.note("reasoning_effort", "`gpt-oss` models always think");
            r#""low""#
        }
        Effort::Minimal | Effort::Low => r#""low""#,
        Effort::Medium => r#""medium""#,
        Effort::High | Effort::Max => r#""high""#,
    })
}

/// The id of a call that came without one: the same for the same call of the same answer.
pub(super) fn call_id(created_at: &str, index: usize, name: &str, arguments: &str) -> String {
    let mut hasher = Xxh3::new();
    for part in [created_at, name, arguments] {
        hasher.update(part.as_bytes());
        hasher.update(&[0xFF]);
    }
    hasher.update(&(index as u64).to_le_bytes());
    format!("call_{:016x}", hasher.digest())
}

/// Arguments as the object that they are; `None` if they are no object, which is never mended.
pub(super) fn arguments_object(arguments: &str) -> Option<&str> {
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    let tree = Tree::parse(arguments, crate::dialect::CONVERTED_DEPTH_MAX).ok()?;
    (tree.kind() == Kind::Object).then(|| tree.raw())
}

/// Why arguments are lost.
pub(super) const BROKEN_ARGUMENTS: &str = "Ollama takes arguments as an object, and these are none";

/// A call, as a message has it.
pub(super) fn call_json(id: &str, name: &str, arguments: &str) -> String {
    object(|it| {
        if !id.is_empty() {
            it.text("id", id);
        }
        it.object("function", |it| _ = it.text("name", name).raw("arguments", arguments));
    })
}

/// An image in Base64. Its first bytes tell what it is.
pub(super) fn image(data: String) -> Part {
    let media_type = match data.as_bytes() {
        [b'/', b'9', b'j', ..] => Some("image/jpeg"),
        [b'i', b'V', b'B', b'O', b'R', ..] => Some("image/png"),
        [b'R', b'0', b'l', b'G', ..] => Some("image/gif"),
        [b'U', b'k', b'l', b'G', ..] => Some("image/webp"),
        _ => None,
    };
    Part::Media(Media {
        kind: MediaKind::Image,
        media_type: media_type.map(str::to_owned),
        source: Source::Base64(data),
        name: None,
        detail: None,
        cache: None,
    })
}

/// Log probabilities, read.
pub(super) fn logprobs_of(tree: Option<&Tree<'_>>) -> Vec<Logprob> {
    fn one(tree: &Tree<'_>) -> Option<Logprob> {
        let bytes = tree
            .get("bytes")
            .map(|bytes| bytes.items().iter().filter_map(|byte| u8::try_from(byte.count()?).ok()).collect());
        Some(Logprob {
            token: tree.get("token")?.text()?.to_owned(),
            logprob: tree.get("logprob")?.number()?,
            bytes,
            top: logprobs_of(tree.get("top_logprobs")),
        })
    }
    tree.map(Tree::items).unwrap_or_default().iter().filter_map(one).collect()
}

/// The same, written.
pub(super) fn logprobs_json(logprobs: &[Logprob]) -> String {
    array(logprobs.iter().map(|one| {
        object(|it| {
            it.text("token", &one.token).number_if("logprob", Some(one.logprob));
            if let Some(bytes) = &one.bytes {
                it.array("bytes", bytes.iter().map(u8::to_string));
            }
            if !one.top.is_empty() {
                it.raw("top_logprobs", &logprobs_json(&one.top));
            }
        })
    }))
}

/// Notes a reason to stop that Ollama has no word for.
pub(super) fn note_stop(stop: Option<Stop>, losses: &mut Losses) {
    let lost = matches!(stop, Some(Stop::Filtered | Stop::Refused | Stop::Paused));
    losses.note_if(lost, "done_reason", "Ollama only knows `stop` and `length`");
}

/// The body of an error. Ollama's own has the message alone; `who` stands beside it.
pub(super) fn error_json(error: &ErrorBody) -> String {
    object(|it| {
        it.text("error", &error.message).text("who", &error.who.name());
        it.text_if("provider_request_id", error.provider_request_id.as_deref());
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        for (at, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_001, "2023-11-14T22:13:21Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!((rfc3339(at).as_str(), unix_s(text)), (text, Some(at)));
        }
        assert_eq!(unix_s("2023-11-14T23:13:21.123456789+01:00"), Some(1_700_000_001));
        assert_eq!(unix_s("2023-11-14T20:13:21.5-02:00"), Some(1_700_000_001));
        for bad in [
            "",
            "yesterday",
            "2023-13-01T00:00:00Z",
            "2023-11-14",
            "1960-01-01T00:00:00Z",
            "２０２３-11-14T00:00:00Z",
        ] {
            assert_eq!(unix_s(bad), None, "{bad}");
        }
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn d15_arguments_that_are_no_object_are_never_mended() {
        assert_eq!(arguments_object(" {\"a\": 1} "), Some("{\"a\": 1}"));
        assert_eq!(arguments_object(""), Some("{}"));
        for broken in ["{\"a\":", "[1]", "5", "\"{}\"", "{}{}"] {
            assert_eq!(arguments_object(broken), None, "{broken}");
        }
    }

    #[test]
    fn ids_differ_where_calls_differ() {
        let id = |at, index, name, arguments| call_id(at, index, name, arguments);
        assert_eq!(id("t", 0, "f", "{}"), id("t", 0, "f", "{}"));
        let all =
            [id("t", 0, "f", "{}"), id("t", 1, "f", "{}"), id("u", 0, "f", "{}"), id("t", 0, "f{", "}")];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
