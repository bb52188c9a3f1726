//! What is asked.

use super::{Losses, Place, Places};
use crate::openai::chat::habits::Habits;

/// A conversation, and how it is to go on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conversation {
    /// What is said to the model before anybody speaks.
    pub system: Vec<Part>,
    /// What was said so far.
    pub messages: Vec<Message>,
    /// Where messages and tools stand in the client's own lists.
    pub places: Places,
    /// Tools that the model may call.
    pub tools: Vec<Tool>,
    /// Whether it may, or must.
    pub tool_choice: Option<ToolChoice>,
    /// Whether it may call several at once.
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer.
    pub format: Format,
    /// How much it is to think first.
    pub reasoning: Option<Reasoning>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The most tokens of the answer.
    pub tokens_out_max: Option<u64>,
    /// Texts that end the answer.
    pub stop: Vec<String>,
    /// How many answers are asked for; 1 unless the client said more.
    pub choices: u64,
    /// Whether log probabilities are asked for, with so many alternatives each.
    pub logprobs: Option<u64>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether the stream is to end with usage, where the client's dialect lets it choose.
    pub stream_usage: bool,
    /// The end user, as the client names them.
    pub user: Option<String>,
    /// The provider's service tier.
    pub service_tier: Option<String>,
    /// What the vendor that is asked does otherwise than the dialect of OpenAI, if that is what it speaks.
    pub habits: Habits,
    /// What answers in the client's dialect repeat of the request: members of an object.
    pub echoed: String,
    /// What only the client's own dialect has a word for.
    pub losses: Losses,
}

impl Conversation {
    /// Notes what became of the message at this place of the client's list: it was added, in one piece or several, or went into
    /// the one before.
    pub(crate) fn message_stood_at(&mut self, at: usize) {
        let known = &mut self.places.messages;
        let place = match self.messages.len() - known.len() {
            0 => {
                known.last_mut().into_iter().for_each(|last| *last = Place::Several);
                return;
            }
            1 => Place::Whole(at),
            _ => Place::PartOf(at),
        };
        known.resize(self.messages.len(), place);
    }

    /// What says how much is to be thought: a word for how hard, or more.
    pub(crate) fn reasoning_field(&self) -> &'static str {
        let in_a_word = |asked: &Reasoning| asked.tokens.is_none() && asked.visible.is_none();
        if self.reasoning.as_ref().is_some_and(in_a_word) { "reasoning_effort" } else { "reasoning" }
    }

    /// Notes where the tools that were added last stand in the client's own list.
    pub(crate) fn tools_stood_at(&mut self, at: usize) {
        self.places.tools.resize(self.tools.len(), at);
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator, in the middle of the conversation.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// The tools that it called: the message's parts are [`Part::ToolResult`].
    Tool,
}

/// What one of them said.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// A name beside the role, where the dialect has one.
    pub name: Option<String>,
    /// What.
    pub parts: Vec<Part>,
}

/// A part of what is said.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// Text.
    Text {
        /// It.
        text: String,
        /// The provider is asked to keep the prompt up to here in its cache (a JSON value, as Anthropic writes it).
        cache: Option<String>,
        /// What it cites (a JSON array, as the dialect writes it that gave it).
        citations: Option<String>,
    },
    /// An image, a document or a sound.
    Media(Media),
    /// A call of a tool by the model.
    ToolCall {
        /// What its result is told by.
        id: String,
        /// The tool's name.
        name: String,
        /// Its arguments: a JSON text, which may be broken if the model broke it.
        arguments: String,
        /// What the provider wants back with it, as it came (Gemini's thought signature).
        signature: Option<String>,
    },
    /// What a tool gave.
    ToolResult {
        /// The call's id.
        id: String,
        /// The tool's name, where the dialect says it.
        name: Option<String>,
        /// What it gave: text and media.
        parts: Vec<Part>,
        /// Whether it failed.
        is_error: bool,
    },
    /// What the model thought.
    Thinking {
        /// The text; empty where only the signature is given.
        text: String,
        /// What proves to the provider that it is its own.
        signature: Option<String>,
    },
    /// What the model thought, readable to its provider only.
    HiddenThinking {
        /// It.
        data: String,
    },
    /// That the model will not answer, and why.
    Refusal(String),
}

impl Part {
    /// A plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into(), cache: None, citations: None }
    }
}

/// An image, a document or a sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Media {
    /// What it is.
    pub kind: MediaKind,
    /// Its media type, such as `image/png`, where it is known.
    pub media_type: Option<String>,
    /// Where it is.
    pub source: Source,
    /// A file's name.
    pub name: Option<String>,
    /// How closely an image is to be looked at (`low`, `high`, `auto`).
    pub detail: Option<String>,
    /// As with text.
    pub cache: Option<String>,
}

/// What kind of media it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaKind {
    /// An image.
    Image,
    /// A document, such as a PDF.
    Document,
    /// A sound.
    Audio,
    /// A film.
    Video,
}

/// Where media are.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Here, in Base64.
    Base64(String),
    /// Here, as plain text.
    Text(String),
    /// At a URL, which the provider fetches.
    Url(String),
    /// A file that the provider keeps.
    File(String),
}

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// The JSON schema of its arguments, as it was written.
    pub parameters: Option<String>,
    /// Whether arguments must fit the schema.
    pub strict: Option<bool>,
    /// As with text.
    pub cache: Option<String>,
}

/// Whether tools may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    Auto,
    /// None.
    None,
    /// One at least.
    Any,
    /// This one.
    Tool(String),
}

/// The form of an answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// What fits a JSON schema.
    Schema {
        /// The schema's name.
        name: Option<String>,
        /// What it is for.
        description: Option<String>,
        /// The schema, as it was written.
        schema: String,
        /// Whether it must fit.
        strict: Option<bool>,
    },
}

/// How much the model is to think before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reasoning {
    /// In words; `None`: not said.
    pub effort: Option<Effort>,
    /// In tokens; 0: not at all.
    pub tokens: Option<u64>,
    /// Whether the client wants to see it; `None`: not said.
    pub visible: Option<bool>,
}

/// How hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effort {
    /// Not at all.
    None,
    /// Hardly.
    Minimal,
    /// Little.
    Low,
    /// As usual.
    Medium,
    /// Much.
    High,
    /// As much as there is.
    Max,
}

impl Effort {
    /// The tokens that an effort is taken for where a dialect counts them.
    pub const fn tokens(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minimal => 1_024,
            Self::Low => 2_048,
            Self::Medium => 8_192,
            Self::High => 24_576,
            Self::Max => 32_768,
        }
    }

    /// The effort that so many tokens are taken for.
    pub const fn of_tokens(tokens: u64) -> Self {
        match tokens {
            0 => Self::None,
            1..=1_024 => Self::Minimal,
            1_025..=4_096 => Self::Low,
            4_097..=16_384 => Self::Medium,
            16_385..=32_767 => Self::High,
            32_768.. => Self::Max,
        }
    }
}

/// How tokens are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sampling {
    /// 0 to 2, or 1 in some dialects.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// The most likely so many.
    pub top_k: Option<u64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// The seed.
    pub seed: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effort_in_tokens_is_the_same_effort() {
        for effort in [Effort::None, Effort::Minimal, Effort::Low, Effort::Medium, Effort::High, Effort::Max]
        {
            assert_eq!(Effort::of_tokens(effort.tokens()), effort);
        }
    }
}
