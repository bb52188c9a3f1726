//! What vendors of this dialect do otherwise than its author, where requests are written for them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use xxhash_rust::xxh3::xxh3_128;

use crate::chat::Losses;
use crate::json::write::Object;

/// What ids of calls are made of.
const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Why a field is lost.
const REFUSED: &str = "the vendor refuses this field";

/// A field of requests that vendors may not take, or not by this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// The most tokens of the answer.
    MaxCompletionTokens,
    /// How tokens are drawn.
    Temperature,
    /// The same.
    TopP,
    /// The same.
    PresencePenalty,
    /// The same.
    FrequencyPenalty,
    /// The seed.
    Seed,
    /// Texts that end the answer.
    Stop,
    /// How many answers.
    N,
    /// Whether log probabilities come.
    Logprobs,
    /// How many alternatives come with them.
    TopLogprobs,
    /// How hard to think.
    ReasoningEffort,
    /// Whether several tools may be called at once.
    ParallelToolCalls,
    /// The form of the answer.
    ResponseFormat,
    /// The end user.
    User,
    /// The service tier.
    ServiceTier,
    /// The name of who speaks, in a message.
    Name,
}

impl Field {
    /// Its name in the dialect.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::PresencePenalty => "presence_penalty",
            Self::FrequencyPenalty => "frequency_penalty",
            Self::Seed => "seed",
            Self::Stop => "stop",
            Self::N => "n",
            Self::Logprobs => "logprobs",
            Self::TopLogprobs => "top_logprobs",
            Self::ReasoningEffort => "reasoning_effort",
            Self::ParallelToolCalls => "parallel_tool_calls",
            Self::ResponseFormat => "response_format",
            Self::User => "user",
            Self::ServiceTier => "service_tier",
            Self::Name => "name",
        }
    }
}

static NO_NAMES: BTreeMap<Field, String> = BTreeMap::new();

/// What one vendor does otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Whether it is asked to report the usage of streams.
    pub stream_usage: bool,
    /// Fields that it takes by another name.
    pub renamed_fields: &'static BTreeMap<Field, String>,
    /// Fields that it refuses.
    pub refused_fields: &'static [Field],
    /// The field of messages in which it takes the model's thoughts back.
    pub reasoning_field: Option<&'static str>,
    /// Whether it demands them in every turn that calls tools.
    pub reasoning_demanded: bool,
    /// The letters and digits that it holds ids of calls to; `None`: it takes any.
    pub call_id_chars: Option<u8>,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            stream_usage: true,
            renamed_fields: &NO_NAMES,
            refused_fields: &[],
            reasoning_field: None,
            reasoning_demanded: false,
            call_id_chars: None,
        }
    }
}

impl Habits {
    /// The name of a field for this vendor.
    pub fn name(&self, field: Field) -> &'static str {
        self.renamed_fields.get(&field).map_or(field.name(), String::as_str)
    }

    /// The id of a call as the vendor takes it: a call and its result are changed alike.
    pub fn call_id<'i>(&self, id: &'i str) -> Cow<'i, str> {
        let Some(chars) = self.call_id_chars.map(usize::from) else { return Cow::Borrowed(id) };
        if id.len() == chars && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Cow::Borrowed(id);
        }
        let mut left = xxh3_128(id.as_bytes());
        let made = (0..chars).map(|_| {
            let digit = LETTERS[(left % LETTERS.len() as u128) as usize];
            left /= LETTERS.len() as u128;
            char::from(digit)
        });
        Cow::Owned(made.collect())
    }

    /// Whether a field is refused.
    pub fn refuses(&self, field: Field) -> bool {
        self.refused_fields.contains(&field)
    }
}

/// The members of a body, as far as the vendor takes them.
pub(super) struct Body<'b> {
    pub(super) it: &'b mut Object,
    pub(super) habits: Habits,
    pub(super) losses: &'b mut Losses,
}

impl Body<'_> {
    /// Writes a value that is JSON already, if there is one, or notes that it is lost.
    pub(super) fn put(&mut self, field: Field, json: Option<String>) {
        let Some(json) = json else { return };
        if self.habits.refuses(field) {
            self.losses.note(field.name(), REFUSED);
        } else {
            self.it.raw(self.habits.name(field), &json);
        }
    }

    /// A string.
    pub(super) fn text(&mut self, field: Field, text: Option<&str>) {
        self.put(field, text.map(crate::json::quote));
    }

    /// A number, if it is finite.
    pub(super) fn number(&mut self, field: Field, number: Option<f64>) {
        self.put(field, number.filter(|number| number.is_finite()).map(|number| number.to_string()));
    }

    /// A whole number.
    pub(super) fn count(&mut self, field: Field, count: Option<u64>) {
        self.put(field, count.map(|count| count.to_string()));
    }
}
