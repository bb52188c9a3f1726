//! What is answered, as a whole.

use super::{Losses, Part};

/// An answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// The provider's id of it.
    pub id: String,
    /// The model that answered, as the provider names it.
    pub model: String,
    /// When, in seconds since the Unix epoch, where the dialect says it.
    pub created_s: Option<u64>,
    /// The answers, in order of their index.
    pub choices: Vec<Choice>,
    /// What it used.
    pub usage: Option<Usage>,
    /// The service tier that it was served in.
    pub service_tier: Option<String>,
    /// What only the provider's own dialect has a word for.
    pub losses: Losses,
}

/// One of the answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Choice {
    /// What the model said.
    pub parts: Vec<Part>,
    /// Why it ended; `None`: the provider does not say.
    pub stop: Option<Stop>,
    /// The text that ended it.
    pub stop_sequence: Option<String>,
    /// Log probabilities of its tokens.
    pub logprobs: Vec<Logprob>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It was complete.
    End,
    /// It had as many tokens as it may have.
    Length,
    /// One of the texts came that end it.
    Sequence,
    /// The model calls tools.
    ToolCalls,
    /// The provider's filter ended it.
    Filtered,
    /// The model will not answer.
    Refused,
    /// It stopped for a while and would go on if it were asked to.
    Paused,
    /// For another reason.
    Other,
}

/// A token and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprob {
    /// The token.
    pub token: String,
    /// The natural logarithm of its probability.
    pub logprob: f64,
    /// Its bytes, where they are given.
    pub bytes: Option<Vec<u8>>,
    /// The most likely ones in its place.
    pub top: Vec<Logprob>,
}

/// What was used, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All of the prompt, cached or not.
    pub tokens_in: u64,
    /// Of those, read from the provider's cache.
    pub tokens_in_cached: u64,
    /// Of those, written to it.
    pub tokens_in_cache_written: u64,
    /// Of those, written for an hour instead of minutes.
    pub tokens_in_cache_written_1h: u64,
    /// Of the prompt's, of sounds.
    pub tokens_in_audio: u64,
    /// All of the answer, thoughts included.
    pub tokens_out: u64,
    /// Of those, thoughts.
    pub tokens_out_reasoning: u64,
    /// Of those, of sounds.
    pub tokens_out_audio: u64,
    /// The answer is billed otherwise than by its tokens at the usual price: it was served in another service tier, or the
    /// provider ran tools for it.
    pub off_list: bool,
}
