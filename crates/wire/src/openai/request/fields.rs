//! The fields the router acts on, and how a member's name finds them.

use crate::json::Text;

use super::forbidden::forbidden;
use super::shape::Shape;

/// A field the router acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Model,
    Messages,
    Prompt,
    Input,
    Stream,
    StreamOptions,
    Fallbacks,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    N,
    BestOf,
    Tools,
    ToolChoice,
    Functions,
    ResponseFormat,
    Text,
    Instructions,
    PreviousResponse,
    Conversation,
    Container,
    System,
    Thinking,
    OutputConfig,
    OutputFormat,
    Metadata,
    StopSequences,
    Temperature,
    TopP,
    PresencePenalty,
    FrequencyPenalty,
    TopLogprobs,
    Logprobs,
    Seed,
    User,
}

pub(super) const FIELDS: [(&str, Field); 28] = [
    ("model", Field::Model),
    ("messages", Field::Messages),
    ("prompt", Field::Prompt),
    ("input", Field::Input),
    ("stream", Field::Stream),
    ("stream_options", Field::StreamOptions),
    ("fallbacks", Field::Fallbacks),
    ("max_tokens", Field::MaxTokens),
    ("max_completion_tokens", Field::MaxCompletionTokens),
    ("max_output_tokens", Field::MaxOutputTokens),
    ("n", Field::N),
    ("best_of", Field::BestOf),
    ("tools", Field::Tools),
    ("tool_choice", Field::ToolChoice),
    ("functions", Field::Functions),
    ("response_format", Field::ResponseFormat),
    ("text", Field::Text),
    ("instructions", Field::Instructions),
    ("previous_response_id", Field::PreviousResponse),
    ("conversation", Field::Conversation),
    ("temperature", Field::Temperature),
    ("top_p", Field::TopP),
    ("presence_penalty", Field::PresencePenalty),
    ("frequency_penalty", Field::FrequencyPenalty),
    ("top_logprobs", Field::TopLogprobs),
    ("logprobs", Field::Logprobs),
    ("seed", Field::Seed),
    ("user", Field::User),
];

impl Field {
    pub(super) fn name(self) -> &'static str {
        let all = FIELDS.iter().chain(Shape::AnthropicMessages.fields());
        all.into_iter().find(|(_, field)| *field == self).map_or("", |(name, _)| name)
    }

    /// Its bit in a set of fields.
    pub(super) const fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// What a member's name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A field the router acts on.
    Known(Field),
    /// Such a field in another spelling: some parsers would take it for the field, so it cannot pass.
    Misspelt(Field),
    /// A field that is dropped, in any spelling.
    Forbidden(&'static str),
    /// Anything else.
    Other,
}

/// What the name `key` stands for in a body of that shape.
pub(super) fn lookup(shape: Shape, key: &Text<'_>) -> Name {
    if !key.escaped() && key.raw().is_ascii() {
        return lookup_plain(shape, key.raw());
    }
    // A lone surrogate cannot be part of a name that any parser folds into one of ours.
    key.decode().map_or(Name::Other, |name| lookup_plain(shape, &folded(&name)))
}

fn lookup_plain(shape: Shape, key: &str) -> Name {
    let fields = shape.fields();
    // Most members are known and spelt as they should be.
    if let Some((_, field)) = fields.iter().find(|(name, _)| *name == key) {
        return Name::Known(*field);
    }
    let misspelt = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key));
    if let Some((_, field)) = misspelt {
        return Name::Misspelt(*field);
    }
    forbidden(key).map_or(Name::Other, Name::Forbidden)
}

/// Upper case for the two characters outside ASCII that Unicode folds into ASCII letters, as Go's parser does.
pub(super) fn folded(name: &str) -> String {
    name.chars()
        .map(|character| match character {
            '\u{17F}' => 'S',
            '\u{212A}' => 'K',
            other => other,
        })
        .collect()
}

/// Whether `key` is `name`, or would be for a parser that ignores case.
pub(super) fn same(key: &Text<'_>, name: &str) -> Option<Spelling> {
    if !key.escaped() && key.raw() == name {
        return Some(Spelling::Exact);
    }
    let text = folded(&key.decode()?);
    if text == name {
        Some(Spelling::Exact)
    } else {
        text.eq_ignore_ascii_case(name).then_some(Spelling::Differs)
    }
}

/// How a name is spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    Exact,
    Differs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_its_own_bit_and_name() {
        let mut seen = 0_u64;
        for (name, field) in FIELDS {
            assert_eq!(field.name(), name);
            assert_eq!(seen & field.bit(), 0, "{name}");
            seen |= field.bit();
        }
    }

    #[test]
    fn c4_names_are_compared_by_what_they_mean() {
        let check = |key: &str, expected: Name| {
            let literal = format!("\"{key}\"");
            let text = crate::json::Scanner::new(&literal, 1).string().unwrap();
            assert_eq!(lookup(Shape::OpenAi, &text), expected, "{key}");
        };
        check("model", Name::Known(Field::Model));
        check("mod\\u0065l", Name::Known(Field::Model));
        check("Model", Name::Misspelt(Field::Model));
        check("\\u004dodel", Name::Misspelt(Field::Model));
        check("me\u{17F}sages", Name::Misspelt(Field::Messages));
        check("\u{212A}", Name::Other);
        check("API_Key", Name::Forbidden("api_key"));
        check("api\\u005fkey", Name::Forbidden("api_key"));
        check("models", Name::Forbidden("models"));
        check("modelss", Name::Other);
        check("\\ud800model", Name::Other);
    }
}
