//! What both directions have in common: reasons to stop, usage, and what a model of some version accepts.

use crate::chat::{Effort, Stop, Usage};
use crate::json::tree::Tree;
use crate::json::write::{Object, object};
use crate::openai::usage::is_usual_tier;

/// Why an answer ended, by its word.
pub(super) fn stop_of(word: &str) -> Stop {
    match word {
        "end_turn" => Stop::End,
        // What the context has no room for is cut off like what the client wants no more of.
        "max_tokens" | "model_context_window_exceeded" => Stop::Length,
        "stop_sequence" => Stop::Sequence,
        "tool_use" => Stop::ToolCalls,
        "pause_turn" => Stop::Paused,
        "refusal" => Stop::Refused,
        _ => Stop::Other,
    }
}

/// The word for why an answer ended. Some engines say that an answer with calls is simply complete; clients of this dialect
/// look at the word to know that they have to run tools.
pub(super) fn stop_word(stop: Option<Stop>, calls: bool) -> &'static str {
    match stop {
        None | Some(Stop::End | Stop::Other) if calls => "tool_use",
        None | Some(Stop::End | Stop::Other) => "end_turn",
        Some(Stop::Length) => "max_tokens",
        Some(Stop::Sequence) => "stop_sequence",
        Some(Stop::ToolCalls) => "tool_use",
        Some(Stop::Paused) => "pause_turn",
        Some(Stop::Filtered | Stop::Refused) => "refusal",
    }
}

/// How hard to think, by its word.
pub(super) fn effort_of(word: &str) -> Option<Effort> {
    Some(match word {
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
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::Max => "max",
    }
}

/// What was counted so far. A stream gives counts twice, and the later ones are of the whole answer: they replace.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counted {
    input: u64,
    cache_read: u64,
    cache_written: u64,
    cache_written_1h: u64,
    output: u64,
    thinking: u64,
    off_list: bool,
}

impl Counted {
    pub(super) fn take(&mut self, usage: &Tree<'_>) {
        let put = |name: &str, slot: &mut u64| {
            *slot = usage.get(name).and_then(Tree::count).unwrap_or(*slot);
        };
        put("input_tokens", &mut self.input);
        put("cache_read_input_tokens", &mut self.cache_read);
        put("cache_creation_input_tokens", &mut self.cache_written);
        put("output_tokens", &mut self.output);
        let hourly = usage.get("cache_creation").and_then(|written| written.get("ephemeral_1h_input_tokens"));
        self.cache_written_1h = hourly.and_then(Tree::count).unwrap_or(self.cache_written_1h);
        let tier = usage.get("service_tier").and_then(Tree::text);
        self.off_list |= tier.is_some_and(|tier| !is_usual_tier(tier));
        // What is fetched costs no more than its tokens; what is searched for does.
        let searched = usage.get("server_tool_use").cloned().map(Tree::into_members).unwrap_or_default();
        self.off_list |=
            searched.rest().any(|(name, used)| name != "web_fetch_requests" && used.count() > Some(0));
        let thinking = usage.get("output_tokens_details").and_then(|details| details.get("thinking_tokens"));
        self.thinking = thinking.and_then(Tree::count).unwrap_or(self.thinking);
    }

    /// The prompt's tokens are given in three parts, of which only the first is called input.
    pub(super) fn usage(self) -> Usage {
        Usage {
            tokens_in: self.input.saturating_add(self.cache_read).saturating_add(self.cache_written),
            tokens_in_cached: self.cache_read,
            tokens_in_cache_written: self.cache_written,
            tokens_in_cache_written_1h: self.cache_written_1h.min(self.cache_written),
            tokens_out: self.output,
            tokens_out_reasoning: self.thinking.min(self.output),
            off_list: self.off_list,
            ..Usage::default()
        }
    }
}

/// What the dialect's own description demands of an answer and no other dialect has: nothing.
pub(super) fn fill_nothing(it: &mut Object) {
    it.raw("stop_details", "null").raw("container", "null");
}

/// Usage as clients get it. The dialect's own description demands every member, `null` where there is nothing to say.
pub(super) fn usage_json(usage: &Usage, service_tier: Option<&str>) -> String {
    object(|it| {
        let hourly = usage.tokens_in_cache_written_1h;
        if hourly > 0 {
            it.object("cache_creation", |it| {
                it.count("ephemeral_1h_input_tokens", hourly);
                let others = usage.tokens_in_cache_written.saturating_sub(hourly);
                it.count("ephemeral_5m_input_tokens", others);
            });
        } else {
            it.raw("cache_creation", "null");
        }
        fill_usage(it, usage);
        it.raw("inference_geo", "null");
        let tier = service_tier.and_then(|tier| match tier {
            "default" | "standard" => Some("standard"),
            "priority" => Some("priority"),
            "batch" => Some("batch"),
            _ => None,
        });
        match tier {
            Some(tier) => it.text("service_tier", tier),
            None => it.raw("service_tier", "null"),
        };
    })
}

/// The same at the end of a stream, where it has fewer members.
pub(super) fn last_usage_json(usage: &Usage) -> String {
    object(|it| fill_usage(it, usage))
}

fn fill_usage(it: &mut Object, usage: &Usage) {
    let cached = usage.tokens_in_cached.saturating_add(usage.tokens_in_cache_written);
    it.count("input_tokens", usage.tokens_in.saturating_sub(cached));
    it.count("cache_creation_input_tokens", usage.tokens_in_cache_written);
    it.count("cache_read_input_tokens", usage.tokens_in_cached);
    it.count("output_tokens", usage.tokens_out);
    if usage.tokens_out_reasoning > 0 {
        it.object("output_tokens_details", |it| {
            it.count("thinking_tokens", usage.tokens_out_reasoning);
        });
    } else {
        it.raw("output_tokens_details", "null");
    }
    it.raw("server_tool_use", "null");
}

/// The version of a Claude model, by its name in any of its spellings (`claude-opus-4-6`, `claude-3-7-sonnet-20250219`,
/// `us.anthropic.claude-sonnet-4-5-20250929-v1:0`). `None` for other models, of which nothing is assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version(Option<(u8, u8)>);

impl Version {
    pub(super) fn of(model: &str) -> Self {
        let Some((_, rest)) = model.split_once("claude") else { return Self(None) };
        let mut words = rest.split(|byte: char| !byte.is_ascii_alphanumeric());
        // Longer numbers are dates.
        let number = |word: &str| word.parse::<u8>().ok().filter(|_| word.len() <= 2);
        let major = words.by_ref().find_map(number);
        let minor = words.next().and_then(number).unwrap_or(0);
        Self(major.map(|major| (major, minor)))
    }

    /// Whether it thinks as much as it sees fit, by an effort.
    pub(super) fn thinks_adaptively(self) -> bool {
        self.0 >= Some((4, 6))
    }

    /// Whether it takes no budget of tokens to think with any more, and no sampling parameters.
    pub(super) fn takes_no_budget(self) -> bool {
        self.0 >= Some((4, 7))
    }

    /// Whether it takes `temperature` or `top_p`, but not both.
    pub(super) fn takes_one_sampler(self) -> bool {
        self.0 >= Some((4, 1))
    }

    /// Whether a system message may stand in the middle of a conversation.
    pub(super) fn takes_later_system(self) -> bool {
        self.0 >= Some((4, 8))
    }

    /// The most tokens of an answer when the client does not say, which this dialect demands: as many as every model of the
    /// version can give, at most 32,000, and 4,096 where nothing is known.
    pub(super) fn tokens_out_default(self) -> u64 {
        match self.0 {
            Some((4.., _) | (3, 7..)) => 32_000,
            Some((3, 5..)) => 8_192,
            Some(_) | None => 4_096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_every_spelling() {
        for (model, version) in [
            ("claude-opus-4-6", Some((4, 6))),
            ("claude-opus-5", Some((5, 0))),
            ("claude-fable-5-1", Some((5, 1))),
            ("claude-3-7-sonnet-20250219", Some((3, 7))),
            ("claude-3-opus-20240229", Some((3, 0))),
            ("claude-sonnet-4-20250514", Some((4, 0))),
            ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", Some((4, 5))),
            ("anthropic/claude-opus-4.8", Some((4, 8))),
            ("claude-haiku-4-5@20251001", Some((4, 5))),
            ("claude-mythos-preview", None),
            ("qwen3-32b", None),
        ] {
            assert_eq!(Version::of(model), Version(version), "{model}");
        }
    }

    #[test]
    fn nothing_is_assumed_of_other_models() {
        let other = Version::of("qwen3-32b");
        assert!(!other.thinks_adaptively() && !other.takes_no_budget() && !other.takes_one_sampler());
        assert_eq!(other.tokens_out_default(), 4_096);
        assert_eq!(Version::of("claude-opus-4-1").tokens_out_default(), 32_000);
    }

    #[test]
    fn d14_counts_of_a_stream_replace_each_other() {
        let mut counted = Counted::default();
        for text in [
            r#"{"input_tokens":3,"cache_read_input_tokens":10,"cache_creation_input_tokens":20,"cache_creation":{"ephemeral_1h_input_tokens":15},"output_tokens":1}"#,
            r#"{"output_tokens":5,"cache_read_input_tokens":null}"#,
            r#"{"output_tokens":7,"output_tokens_details":{"thinking_tokens":4},"input_tokens":-1}"#,
        ] {
            counted.take(&Tree::parse(text, 4).unwrap());
        }
        let usage = counted.usage();
        assert_eq!((usage.tokens_in, usage.tokens_in_cached, usage.tokens_in_cache_written), (33, 10, 20));
        assert_eq!((usage.tokens_out, usage.tokens_out_reasoning), (7, 4));
        assert_eq!((usage.tokens_in_cache_written_1h, usage.off_list), (15, false));
        let mut searched = counted;
        searched.take(&Tree::parse(r#"{"server_tool_use":{"web_search_requests":2}}"#, 4).unwrap());
        assert!(searched.usage().off_list);
        let mut hurried = counted;
        hurried.take(&Tree::parse(r#"{"service_tier":"priority"}"#, 4).unwrap());
        assert!(hurried.usage().off_list);
        let text = usage_json(&usage, Some("default"));
        let mut again = Counted::default();
        again.take(&Tree::parse(&text, 4).unwrap());
        assert_eq!(again.usage(), usage, "{text}");
    }
}
