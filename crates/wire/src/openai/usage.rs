//! What an answer used, as the provider counted it.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use crate::json::{JsonError, Kind, Scanner, Walk};

use super::request::Shape;

/// Nesting accepted in answers; they are read leniently, but not without end.
pub(crate) const ANSWER_DEPTH_MAX: usize = 256;

/// Tokens a provider counted. What it reported as negative or as no integer counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Prompt tokens.
    pub tokens_in: u64,
    /// Prompt tokens the provider had cached; part of `tokens_in`.
    pub tokens_in_cached: u64,
    /// Prompt tokens written to its cache; part of `tokens_in`.
    pub tokens_in_cache_written: u64,
    /// Prompt tokens written to it for an hour instead of minutes; part of `tokens_in_cache_written`.
    pub tokens_in_cache_written_1h: u64,
    /// Prompt tokens of images; part of `tokens_in`.
    pub tokens_in_image: u64,
    /// Prompt tokens of sounds; part of `tokens_in`.
    pub tokens_in_audio: u64,
    /// Thoughts; part of `tokens_out`.
    pub tokens_out_reasoning: u64,
    /// Output tokens of sounds; part of `tokens_out`.
    pub tokens_out_audio: u64,
    /// Output tokens.
    pub tokens_out: u64,
    /// The answer is billed otherwise than by its tokens at the usual price: it was served in another service tier, or the
    /// provider ran tools for it.
    pub off_list: bool,
}

impl Usage {
    /// The larger of each count.
    pub(super) fn max(self, other: Self) -> Self {
        Self {
            tokens_in: self.tokens_in.max(other.tokens_in),
            tokens_in_cached: self.tokens_in_cached.max(other.tokens_in_cached),
            tokens_in_cache_written: self.tokens_in_cache_written.max(other.tokens_in_cache_written),
            tokens_in_cache_written_1h: self.tokens_in_cache_written_1h.max(other.tokens_in_cache_written_1h),
            tokens_in_image: self.tokens_in_image.max(other.tokens_in_image),
            tokens_in_audio: self.tokens_in_audio.max(other.tokens_in_audio),
            tokens_out_reasoning: self.tokens_out_reasoning.max(other.tokens_out_reasoning),
            tokens_out_audio: self.tokens_out_audio.max(other.tokens_out_audio),
            tokens_out: self.tokens_out.max(other.tokens_out),
            off_list: self.off_list || other.off_list,
        }
    }
}

/// Bytes at the end of an answer in which nearly all have their usage.
const TAIL_BYTES: usize = 512;

/// The usage in the body of an answer that was not streamed, if it has any. O(1) in the content where usage comes
/// behind it, as it does with nearly every provider; else O(n).
pub fn usage_of_body(body: &[u8]) -> Option<Usage> {
    usage_of_body_as(Shape::OpenAi, body)
}

/// The same of an answer in another dialect.
pub fn usage_of_body_as(shape: Shape, body: &[u8]) -> Option<Usage> {
    static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));
    // Quotes inside strings are escaped, so this is a whole string, if the body is JSON.
    let last = last_of(&USAGE, body)?;
    let mut usage = last_member(shape, &body[last..]).or_else(|| {
        // It is a value, or a member of something else; the right one may come before it.
        let mut scanner = Scanner::new(std::str::from_utf8(body).ok()?, ANSWER_DEPTH_MAX);
        let mut members = scanner.object().ok()?;
        usage_member(shape, &mut scanner, &mut members).ok().flatten()
    })?;
    usage.off_list |= !shape.is_anthropic() && is_off_list(body);
    Some(usage)
}

/// Whether a service tier is one of those that the usual price is of.
pub(crate) fn is_usual_tier(tier: &str) -> bool {
    matches!(tier, "" | "default" | "standard" | "auto" | "on_demand")
}

/// Whether an answer in a dialect of OpenAI's, or its last event, says that it is billed otherwise than by its tokens at the
/// usual price. Quotes inside strings are escaped, so that these are whole strings.
pub(super) fn is_off_list(body: &[u8]) -> bool {
    static TIER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"service_tier\""));
    static CALL: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("_call\""));
    const BILLED: [&[u8]; 4] =
        [b"\"web_search", b"\"file_search", b"\"code_interpreter", b"\"image_generation"];
    let tier = last_of(&TIER, body).and_then(|at| {
        let (mut scanner, mut members) =
            Scanner::within_object(std::str::from_utf8(&body[at..]).ok()?, ANSWER_DEPTH_MAX);
        scanner.next_key(&mut members).ok()??;
        (scanner.peek().ok()? == Kind::String).then_some(())?;
        scanner.string().ok()?.decode()
    });
    tier.is_some_and(|tier| !is_usual_tier(&tier))
        || CALL.find_iter(body).any(|at| BILLED.iter().any(|tool| body[..at].ends_with(tool)))
}

/// Where a word stands last. Searches go forwards, for those are made for it (SIMD), and begin where it nearly always is.
fn last_of(word: &Finder<'_>, body: &[u8]) -> Option<usize> {
    let tail = body.len().saturating_sub(TAIL_BYTES);
    let in_tail = word.find_iter(&body[tail..]).last().map(|at| tail + at);
    // What begins before the tail may end in it.
    let before = || word.find_iter(&body[..(tail + word.needle().len() - 1).min(body.len())]).last();
    in_tail.or_else(|| before().filter(|_| tail > 0))
}

/// The usage at the beginning of `tail`, if what follows it are members of the outermost object and its end.
fn last_member(shape: Shape, tail: &[u8]) -> Option<Usage> {
    let (mut scanner, mut members) =
        Scanner::within_object(std::str::from_utf8(tail).ok()?, ANSWER_DEPTH_MAX);
    let usage = usage_member(shape, &mut scanner, &mut members).ok()?;
    scanner.finish().is_ok().then_some(usage?)
}

fn usage_member(
    shape: Shape,
    scanner: &mut Scanner<'_>,
    members: &mut Walk,
) -> Result<Option<Usage>, JsonError> {
    let mut usage = None;
    while let Some(key) = scanner.next_key(members)? {
        if key.is("usage") {
            usage = read_usage(shape, scanner)?;
        } else {
            scanner.skip_value()?;
        }
    }
    Ok(usage)
}

/// Reads a usage object; `None` for `null` and anything else that is no object.
pub(super) fn read_usage(shape: Shape, scanner: &mut Scanner<'_>) -> Result<Option<Usage>, JsonError> {
    let Some(mut members) = object_or_skip(scanner)? else { return Ok(None) };
    let (mut usage, mut beside) = (Usage::default(), 0_u64);
    let (mut told, mut total) = (false, None);
    while let Some(key) = scanner.next_key(&mut members)? {
        match key.raw() {
            "prompt_tokens" | "input_tokens" => (told, usage.tokens_in) = (true, read_count(scanner)?),
            "completion_tokens" | "output_tokens" => (told, usage.tokens_out) = (true, read_count(scanner)?),
            "total_tokens" => total = Some(read_count(scanner)?),
            "prompt_tokens_details" | "input_tokens_details" => {
                read_details(scanner, |name, count| match name {
                    "cached_tokens" => usage.tokens_in_cached = count,
                    "cache_write_tokens" | "cache_creation_tokens" => usage.tokens_in_cache_written = count,
                    "image_tokens" => usage.tokens_in_image = count,
                    "audio_tokens" => usage.tokens_in_audio = count,
                    _ => {}
                })?;
            }
            "completion_tokens_details" | "output_tokens_details" => {
                read_details(scanner, |name, count| match name {
                    "reasoning_tokens" => usage.tokens_out_reasoning = count,
                    "audio_tokens" => usage.tokens_out_audio = count,
                    _ => {}
                })?;
            }
            "cache_creation" if shape.is_anthropic() => read_details(scanner, |name, count| {
                if name == "ephemeral_1h_input_tokens" {
                    usage.tokens_in_cache_written_1h = count;
                }
            })?,
            // What is fetched costs no more than its tokens; what is searched for does.
            "server_tool_use" if shape.is_anthropic() => {
                read_details(scanner, |name, count| {
                    usage.off_list |= count > 0 && name != "web_fetch_requests";
                })?;
            }
            "service_tier" if shape.is_anthropic() && scanner.peek()? == Kind::String => {
                let tier = scanner.string()?.decode();
                usage.off_list |= tier.is_some_and(|tier| !is_usual_tier(&tier));
            }
            // What xAI and Perplexity searched.
            "num_sources_used" | "num_search_queries" => usage.off_list |= read_count(scanner)? > 0,
            // DeepSeek and Moonshot say it beside the others.
            "prompt_cache_hit_tokens" | "cached_tokens" => usage.tokens_in_cached = read_count(scanner)?,
            // Anthropic's input is what comes beside these two; with others it contains them.
            "cache_read_input_tokens" if shape.is_anthropic() => {
                usage.tokens_in_cached = read_count(scanner)?;
                beside = beside.saturating_add(usage.tokens_in_cached);
            }
            "cache_creation_input_tokens" if shape.is_anthropic() => {
                usage.tokens_in_cache_written = read_count(scanner)?;
                beside = beside.saturating_add(usage.tokens_in_cache_written);
            }
            _ => drop(scanner.skip_value()?),
        }
    }
    // Who tells one number reads only, as with Jina's rerank; who counts seconds tells none.
    match total {
        Some(total) if !told => usage.tokens_in = total,
        None if !told && beside == 0 => return Ok(None),
        Some(_) | None => {}
    }
    usage.tokens_in = usage.tokens_in.saturating_add(beside);
    Ok(Some(held(usage)))
}

/// Parts are never more than their whole.
fn held(mut usage: Usage) -> Usage {
    for part in [
        &mut usage.tokens_in_cached,
        &mut usage.tokens_in_cache_written,
        &mut usage.tokens_in_image,
        &mut usage.tokens_in_audio,
    ] {
        *part = (*part).min(usage.tokens_in);
    }
    usage.tokens_in_cache_written_1h = usage.tokens_in_cache_written_1h.min(usage.tokens_in_cache_written);
    for part in [&mut usage.tokens_out_reasoning, &mut usage.tokens_out_audio] {
        *part = (*part).min(usage.tokens_out);
    }
    usage
}

/// Enters the next value if it is an object, else passes over it.
pub(super) fn object_or_skip(scanner: &mut Scanner<'_>) -> Result<Option<Walk>, JsonError> {
    if scanner.peek()? == Kind::Object {
        return scanner.object().map(Some);
    }
    scanner.skip_value()?;
    Ok(None)
}

/// Reads the counts of an object of details.
fn read_details(scanner: &mut Scanner<'_>, mut each: impl FnMut(&str, u64)) -> Result<(), JsonError> {
    let Some(mut members) = object_or_skip(scanner)? else { return Ok(()) };
    while let Some(key) = scanner.next_key(&mut members)? {
        let count = read_count(scanner)?;
        each(key.raw(), count);
    }
    Ok(())
}

/// A count that can neither be negative nor overflow, whatever the provider wrote.
fn read_count(scanner: &mut Scanner<'_>) -> Result<u64, JsonError> {
    if scanner.peek()? != Kind::Number {
        scanner.skip_value()?;
        return Ok(0);
    }
    Ok(saturating_count(scanner.number()?))
}

fn saturating_count(number: &str) -> u64 {
    if number.starts_with('-') {
        return 0;
    }
    if number.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only digits: what does not fit is too large.
        return number.parse().unwrap_or(u64::MAX);
    }
    // A float cast saturates.
    number.parse::<f64>().map_or(0, |value| value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, expected: Option<(u64, u64, u64)>) {
        let got = usage_of_body(body.as_bytes())
            .map(|usage| (usage.tokens_in, usage.tokens_in_cached, usage.tokens_out));
        assert_eq!(got, expected, "{body}");
    }

    #[test]
    fn usage_in_both_spellings() {
        check(
            r#"{"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":8}}}"#,
            Some((12, 8, 3)),
        );
        check(
            r#"{"output":[],"usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":4},"output_tokens":3}}"#,
            Some((12, 4, 3)),
        );
        check(r#"{"data":[],"usage":{"prompt_tokens":5,"total_tokens":5}}"#, Some((5, 0, 0)));
        check(r#"{"results":[],"usage":{"total_tokens":815}}"#, Some((815, 0, 0)));
        check(r#"{"text":"","usage":{"type":"duration","seconds":27}}"#, None);
        check(r#"{"usage":null}"#, None);
        check(r#"{"choices":[{"usage":{"prompt_tokens":5}}]}"#, None);
        check(r#"{"usage":{"prompt_tokens":5}"#, None);
        check("", None);
    }

    #[test]
    fn every_part_of_usage_is_read() {
        let body = r#"{"usage":{"prompt_tokens":20,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":8,"cache_write_tokens":3,"audio_tokens":2,"image_tokens":1,"text_tokens":5},"completion_tokens_details":{"reasoning_tokens":4,"audio_tokens":1,"accepted_prediction_tokens":0}}}"#;
        let expected = Usage {
            tokens_in: 20,
            tokens_in_cached: 8,
            tokens_in_cache_written: 3,
            tokens_in_image: 1,
            tokens_in_audio: 2,
            tokens_out_reasoning: 4,
            tokens_out_audio: 1,
            tokens_out: 9,
            ..Usage::default()
        };
        assert_eq!(usage_of_body(body.as_bytes()), Some(expected));
        let more = r#"{"usage":{"prompt_tokens":1,"completion_tokens":1,"completion_tokens_details":{"reasoning_tokens":7}}}"#;
        assert_eq!(usage_of_body(more.as_bytes()).map(|usage| usage.tokens_out_reasoning), Some(1));
        let beside =
            r#"{"usage":{"prompt_tokens":9,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":5}}"#;
        assert_eq!(usage_of_body(beside.as_bytes()).map(|usage| usage.tokens_in_cached), Some(4));
    }

    #[test]
    fn anthropic_counts_what_was_cached_beside_its_input() {
        let body = br#"{"content":[],"usage":{"input_tokens":3,"cache_creation_input_tokens":20,"cache_read_input_tokens":10,"output_tokens":5}}"#;
        let get = |shape: Shape| {
            usage_of_body_as(shape, body)
                .map(|it| (it.tokens_in, it.tokens_in_cached, it.tokens_in_cache_written))
        };
        assert_eq!(get(Shape::AnthropicMessages), Some((33, 10, 20)));
        assert_eq!(get(Shape::OpenAi), Some((3, 0, 0)), "proxies put these beside inclusive counts");
    }

    #[test]
    fn what_is_billed_otherwise_is_known_by_tier_and_tools() {
        let off = |shape, body: &str| usage_of_body_as(shape, body.as_bytes()).expect(body).off_list;
        let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":1}"#;
        for (body, expected) in [
            (format!(r#"{{{usage},"service_tier":"flex"}}"#), true),
            (format!(r#"{{"service_tier" : "priority",{usage}}}"#), true),
            (format!(r#"{{"service_tier":"default",{usage}}}"#), false),
            (format!(r#"{{{usage},"service_tier":null}}"#), false),
            (format!(r#"{{"text":"\"service_tier\":\"flex\"",{usage}}}"#), false),
            (format!(r#"{{"output":[{{"type": "web_search_call"}}],{usage}}}"#), true),
            (format!(r#"{{"output":[{{"type":"function_call"}}],{usage}}}"#), false),
            (r#"{"usage":{"prompt_tokens":7,"num_sources_used":3}}"#.to_owned(), true),
        ] {
            assert_eq!(off(Shape::OpenAi, &body), expected, "{body}");
        }
        for (more, expected) in [
            (r#""service_tier":"standard","server_tool_use":null"#, false),
            (r#""service_tier":"priority""#, true),
            (r#""server_tool_use":{"web_search_requests":1,"web_fetch_requests":0}"#, true),
            (r#""server_tool_use":{"web_search_requests":0,"web_fetch_requests":2}"#, false),
        ] {
            let body = format!(r#"{{"usage":{{"input_tokens":7,"output_tokens":1,{more}}}}}"#);
            assert_eq!(off(Shape::AnthropicMessages, &body), expected, "{body}");
        }
        let body = br#"{"usage":{"input_tokens":7,"cache_creation_input_tokens":30,"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}}}"#;
        let usage = usage_of_body_as(Shape::AnthropicMessages, body).expect("usage");
        assert_eq!((usage.tokens_in_cache_written, usage.tokens_in_cache_written_1h), (30, 20));
    }

    #[test]
    fn only_the_outermost_member_counts_wherever_it_stands() {
        let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":1}"#;
        let expected = Some((7, 0, 1));
        check(&format!("{{{usage}}}"), expected);
        check(&format!("{{{usage} , \"choices\":[{{}}] }}\n"), expected);
        check(&format!(r#"{{{usage},"choices":[{{"text":"say \"usage\": {{}}"}}]}}"#), expected);
        check(&format!(r#"{{{usage},"choices":[{{"usage":{{"prompt_tokens":9}}}}]}}"#), expected);
        check(&format!(r#"{{{usage},"object":"usage"}}"#), expected);
        check(&format!(r#"{{"usage":{{"prompt_tokens":9}},{usage}}}"#), expected);
        check(&format!(r#"{{"x_groq":{{{usage}}}}}"#), None);
        check(&format!("[{{{usage}}}]"), None);
    }

    #[test]
    fn it_is_found_however_far_from_the_end() {
        let usage = r#""usage":{"prompt_tokens":7,"completion_tokens":1},"service_tier":"flex""#;
        // The words stand before the tail that is looked at first, across its border, and in it.
        for behind in 0..2 * TAIL_BYTES {
            let body = format!(r#"{{{usage},"text":"{}"}}"#, "x".repeat(behind));
            let found = usage_of_body(body.as_bytes()).expect("usage");
            assert_eq!((found.tokens_in, found.tokens_out, found.off_list), (7, 1, true), "{behind}");
        }
    }

    #[test]
    fn c7_usage_is_never_negative_and_never_overflows() {
        let body =
            |count: &str| format!(r#"{{"usage":{{"prompt_tokens":{count},"completion_tokens":{count}}}}}"#);
        check(&body("-1"), Some((0, 0, 0)));
        check(&body("-9223372036854775809"), Some((0, 0, 0)));
        check(&body("99999999999999999999999"), Some((u64::MAX, 0, u64::MAX)));
        check(&body("1e400"), Some((u64::MAX, 0, u64::MAX)));
        check(&body("7.9"), Some((7, 0, 7)));
        check(&body("\"12\""), Some((0, 0, 0)));
        check(
            r#"{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}}"#,
            Some((5, 5, 0)),
        );
    }
}
