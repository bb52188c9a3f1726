//! What is answered, event by event.

use super::{Logprob, Losses, Stop, Usage};
use crate::openai::sse::StreamError;

/// One thing that happens in a streamed answer.
///
/// Parts of one choice come one after the other: [`Event::Opened`], what is added to it, [`Event::Closed`]. Readers of
/// dialects that do not say so work it out; writers may rely on it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It begins.
    Started {
        /// The provider's id of it.
        id: String,
        /// The model, as the provider names it.
        model: String,
        /// When, in seconds since the Unix epoch, where the dialect says it.
        created_s: Option<u64>,
        /// What is known of its usage so far.
        usage: Option<Usage>,
    },
    /// A part begins.
    Opened {
        /// The choice's index.
        choice: u32,
        /// The part's, from 0 in each choice.
        part: u32,
        /// What it is.
        what: Opened,
    },
    /// More of a text, a thought, a refusal, or the arguments of a call, by what the part was opened as.
    Added {
        /// The choice's index.
        choice: u32,
        /// The part's.
        part: u32,
        /// It.
        text: String,
    },
    /// What proves a thought, or comes with a call.
    Signed {
        /// The choice's index.
        choice: u32,
        /// The part's.
        part: u32,
        /// It.
        signature: String,
    },
    /// What a text cites (a JSON value, as the dialect writes it).
    Cited {
        /// The choice's index.
        choice: u32,
        /// The part's.
        part: u32,
        /// It.
        citation: String,
    },
    /// How likely the tokens were that came with what was added last.
    Likely {
        /// The choice's index.
        choice: u32,
        /// They.
        logprobs: Vec<Logprob>,
    },
    /// A part is complete.
    Closed {
        /// The choice's index.
        choice: u32,
        /// The part's.
        part: u32,
    },
    /// A choice is complete.
    Stopped {
        /// The choice's index.
        choice: u32,
        /// Why.
        stop: Stop,
        /// The text that ended it.
        sequence: Option<String>,
    },
    /// What was used, in all.
    Used(Usage),
    /// The provider reports an error. Nothing follows.
    Failed(StreamError),
    /// The provider shows that it is there.
    Ping,
    /// Something was left out that only the provider's dialect has a word for.
    Lost(Losses),
    /// It is complete.
    Ended,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// Text.
    Text,
    /// A thought.
    Thinking,
    /// A thought that only its provider can read; it is whole.
    HiddenThinking {
        /// It.
        data: String,
    },
    /// A call of a tool.
    ToolCall {
        /// Its id.
        id: String,
        /// The tool's name.
        name: String,
    },
    /// A refusal.
    Refusal,
}

impl Event {
    /// Whether it brings something that a reader sees: text, thoughts, calls.
    pub fn is_content(&self) -> bool {
        match self {
            Self::Added { text, .. } => !text.is_empty(),
            Self::Opened { what, .. } => match what {
                Opened::ToolCall { .. } | Opened::HiddenThinking { .. } => true,
                Opened::Text | Opened::Thinking | Opened::Refusal => false,
            },
            Self::Started { .. }
            | Self::Signed { .. }
            | Self::Cited { .. }
            | Self::Likely { .. }
            | Self::Closed { .. }
            | Self::Stopped { .. }
            | Self::Used(_)
            | Self::Failed(_)
            | Self::Ping
            | Self::Lost(_)
            | Self::Ended => false,
        }
    }
}
