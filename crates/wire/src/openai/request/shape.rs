//! Whose body it is: the dialects whose requests are read in one pass like those of OpenAI.

use super::fields::{FIELDS, Field};

/// The dialect that a body is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// OpenAI's, by operation.
    #[default]
    OpenAi,
    /// Anthropic's `/v1/messages`.
    AnthropicMessages,
    /// Anthropic's `/v1/messages/count_tokens`: the same without an answer.
    AnthropicCountTokens,
}

/// The fields of Anthropic's that the router acts on.
const ANTHROPIC_FIELDS: [(&str, Field); 16] = [
    ("model", Field::Model),
    ("messages", Field::Messages),
    ("system", Field::System),
    ("stream", Field::Stream),
    ("fallbacks", Field::Fallbacks),
    ("max_tokens", Field::MaxTokens),
    ("tools", Field::Tools),
    ("tool_choice", Field::ToolChoice),
    ("thinking", Field::Thinking),
    ("output_config", Field::OutputConfig),
    ("output_format", Field::OutputFormat),
    ("metadata", Field::Metadata),
    ("container", Field::Container),
    ("temperature", Field::Temperature),
    ("top_p", Field::TopP),
    ("stop_sequences", Field::StopSequences),
];

impl Shape {
    /// The fields that the router acts on, by their names.
    pub(super) const fn fields(self) -> &'static [(&'static str, Field)] {
        match self {
            Self::OpenAi => &FIELDS,
            Self::AnthropicMessages | Self::AnthropicCountTokens => &ANTHROPIC_FIELDS,
        }
    }

    /// Whether content comes in Anthropic's blocks.
    pub const fn is_anthropic(self) -> bool {
        match self {
            Self::OpenAi => false,
            Self::AnthropicMessages | Self::AnthropicCountTokens => true,
        }
    }
}
