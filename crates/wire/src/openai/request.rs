//! What a request asks for, read in one pass over its bytes, and whether it is one at all.
//!
//! The body is not turned into a document: every field the router acts on is read and held to its type and range,
//! everything else is held to the grammar and passed over, and will be forwarded as it is. A field that decides
//! routing or authorisation may appear once, in one spelling: a second parser downstream must not be able to see
//! another request than the one that was authorised.

use smallvec::SmallVec;

use crate::json::{JsonError, JsonFault, Span, quote};
use crate::tasks::Task;
use crate::tasks::multipart::Parts;

use super::error::Invalid;

mod beginnings;
mod blocks;
mod body;
pub(crate) mod build;
mod fallbacks;
mod fields;
pub(crate) mod forbidden;
pub(crate) mod foreign;
mod kept;
pub(crate) mod members;
mod prompt;
mod shape;
mod tensors;
pub(crate) mod values;

pub use beginnings::{BEGINNINGS_MAX, PrefixBlock};
pub use fallbacks::FALLBACKS_MAX;
pub use forbidden::{FORBIDDEN, FORBIDDEN_BEGINNINGS, FORBIDDEN_ENDS, forbidden};
pub use kept::{KEPT_MAX, Kept, KeptKind, kept_hash};
pub use shape::Shape;
pub use tensors::Tensors;

/// What a request asks the model to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
    /// What is no text of a model's: rerank, moderations, images, sounds.
    Task(Task),
    /// `/v1/embeddings`
    Embedding,
    /// `/v2/models/{model}/infer`, in the dialect of [`kserve`](crate::kserve)
    Infer,
    /// `/v1/responses`
    Response,
}

/// The operations of the dialect that is named after chat completions: all but responses.
pub const CHATS: [Operation; 10] = [
    Operation::Chat,
    Operation::Completion,
    Operation::Embedding,
    Operation::Task(Task::Rerank),
    Operation::Task(Task::Moderation),
    Operation::Task(Task::ImageGeneration),
    Operation::Task(Task::ImageEdit),
    Operation::Task(Task::Speech),
    Operation::Task(Task::Transcription),
    Operation::Task(Task::Translation),
];

impl Operation {
    /// Those of models that read and write text.
    pub const TEXT: [Self; 4] = [Self::Chat, Self::Completion, Self::Embedding, Self::Response];
    /// Every operation with a path of its own, which are all but inference.
    pub const ALL: [Self; 11] = [
        Self::Chat,
        Self::Completion,
        Self::Embedding,
        Self::Response,
        Self::Task(Task::Rerank),
        Self::Task(Task::Moderation),
        Self::Task(Task::ImageGeneration),
        Self::Task(Task::ImageEdit),
        Self::Task(Task::Speech),
        Self::Task(Task::Transcription),
        Self::Task(Task::Translation),
    ];

    /// The name in records and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completion => "completion",
            Self::Task(task) => task.name(),
            Self::Embedding => "embedding",
            Self::Infer => "infer",
            Self::Response => "response",
        }
    }

    /// The path clients call.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completion => "/v1/completions",
            Self::Task(task) => task.path(),
            Self::Embedding => "/v1/embeddings",
            Self::Infer => "/v2/models/{model}/infer",
            Self::Response => "/v1/responses",
        }
    }

    /// The path below a vendor's prefix, such as `/chat/completions`.
    pub const fn path_suffix(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Completion => "/completions",
            Self::Task(task) => task.path_suffix(),
            Self::Embedding => "/embeddings",
            Self::Infer => "/infer",
            Self::Response => "/responses",
        }
    }

    /// The operation of a path.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::of_text_path(path).or_else(|| Task::of_path(path).map(Self::Task))
    }

    /// The same, of those in [`TEXT`](Self::TEXT).
    pub fn of_text_path(path: &str) -> Option<Self> {
        Self::TEXT.into_iter().find(|operation| operation.path() == path)
    }

    /// The value of the metric attribute `gen_ai.operation.name`.
    pub const fn gen_ai_name(self) -> &'static str {
        match self {
            Self::Chat | Self::Response => "chat",
            Self::Completion => "text_completion",
            Self::Task(task) => task.name(),
            Self::Embedding => "embeddings",
            Self::Infer => "infer",
        }
    }
}

/// Limits a body is held to.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Levels of nesting.
    pub depth_max: usize,
    /// Messages, input items or prompts.
    pub messages_max: usize,
    /// Bytes of the model name.
    pub model_bytes_max: usize,
    /// Answers to one prompt (`n`, `best_of`).
    pub choices_max: u32,
    /// Output tokens that can be asked for at all.
    pub tokens_out_max: u64,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            messages_max: 10_000,
            model_bytes_max: 256,
            choices_max: 128,
            tokens_out_max: i32::MAX as u64,
        }
    }
}

/// What a request needs of a deployment beyond its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// It offers tools to the model.
    pub tools: bool,
    /// It contains images.
    pub vision: bool,
    /// It holds the output to a JSON schema.
    pub json_schema: bool,
}

/// Sampling parameters, as far as the client set them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Params {
    /// 0 to 2.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// -2 to 2.
    pub presence_penalty: Option<f64>,
    /// -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Answers asked for.
    pub n: Option<u64>,
    /// Answers sampled, of which the best is given.
    pub best_of: Option<u64>,
    /// Alternatives per token, 0 to 20.
    pub top_logprobs: Option<u64>,
    /// Whether log probabilities are asked for: 0 or 1 for chat, the number of alternatives for completions.
    pub logprobs: Option<u64>,
    /// Seed of the sampler.
    pub seed: Option<i64>,
}

/// A validated request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What it asks for.
    pub operation: Operation,
    /// The dialect that it is in.
    pub shape: Shape,
    /// The model's name, without `@version`.
    pub model: String,
    /// What followed the last `@` of the model's name.
    pub version: Option<String>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// `stream_options.include_usage`, if the client set it.
    pub include_usage: Option<bool>,
    /// What it needs of a deployment.
    pub needs: Needs,
    /// Bytes of text the model reads: messages, prompts, instructions, tools. Media do not count.
    pub prompt_bytes: u64,
    /// Tokens the client gave as numbers.
    pub prompt_tokens_given: u64,
    /// Prompt tokens there are at the very least; of several prompts, which are read one by one, those of the longest.
    pub tokens_in_min: u64,
    /// Messages, input items or prompts.
    pub messages: u32,
    /// Images.
    pub images: u32,
    /// The most output the client asked for, in tokens, for each choice.
    pub tokens_out_max: Option<u64>,
    /// Answers to be generated: the larger of `n` and `best_of`, at least 1.
    pub choices: u32,
    /// Sampling parameters.
    pub params: Params,
    /// Models to try when the one asked for cannot serve, with their versions; at most [`FALLBACKS_MAX`].
    pub fallbacks: Vec<String>,
    /// The tensors of an inference request.
    pub tensors: Option<Tensors>,
    /// Hash of the `user` field, salted.
    pub user_hash: Option<u64>,
    /// Hash of the first two blocks of 2 KiB of prompt text, salted; `None` if there is less.
    pub prefix_hash: Option<u64>,
    /// The prompt's beginnings, ascending in length, salted; empty if it is shorter than the first of them.
    pub prefix: Vec<PrefixBlock>,
    /// Whether it refers to what a provider keeps, which only the account that owns it can read.
    pub kept_by_provider: bool,
    /// What that is, each thing once; at most [`KEPT_MAX`].
    pub kept: Vec<Kept>,
    /// The parts that its body comes in, if it does.
    pub parts: Option<Box<Parts>>,
    /// Whether the output is held to a form (`response_format`).
    pub formatted: bool,
    /// Fields that would tell an upstream where to go or how to act; [`rewrite`](super::rewrite::rewrite) drops them.
    pub forbidden: Vec<Forbidden>,
    pub(crate) spans: Spans,
}

/// A field that is dropped before forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forbidden {
    /// Its name in [`FORBIDDEN`], or how it begins or ends.
    pub name: &'static str,
    /// Which member of the body it is, from 0.
    pub(super) ordinal: usize,
    /// Where the member before it ends, or the body begins.
    pub(super) before: usize,
    /// The member, name and value.
    pub(super) member: Span,
    /// Where the next member begins, if there is one.
    pub(super) next: Option<usize>,
}

/// Where things stand in the body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Spans {
    /// Just after the opening brace.
    pub(crate) body_start: usize,
    /// The model's value, quotes included; empty if the path names the model.
    pub(crate) model: Span,
    /// Whether no model is named at all, so that one has to be put in.
    pub(crate) unnamed: bool,
    /// Further values that name the model, behind `models/`, as Gemini has them.
    pub(crate) named: SmallVec<[Span; 1]>,
    /// Just after the last message, unless that is the assistant's own; 0 if there is no such place.
    pub(super) messages_end: usize,
    /// The values of the limits of output.
    pub(super) tokens_out: SmallVec<[Span; 1]>,
    /// The value of `stream_options`.
    pub(super) stream_options: Option<StreamOptions>,
}

/// The value of `stream_options`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamOptions {
    /// `null`
    Null(Span),
    /// An object that does not mention `include_usage`.
    Without {
        /// Just after its opening brace.
        inside: usize,
        /// Whether it has no members at all.
        empty: bool,
    },
    /// An object with `include_usage`, whose value stands there.
    With(Span),
}

/// Bytes of English text or code to a token, by rule of thumb.
const TOKEN_BYTES: u64 = 4;
/// Bytes that text has to a token when it compresses unusually well; used where an estimate must not be too high.
const TOKEN_BYTES_MAX: u64 = 8;
/// Tokens that mark a message's role and end.
const MESSAGE_TOKENS: u64 = 4;
/// Tokens of an image of common size.
const IMAGE_TOKENS: u64 = 765;

impl Request {
    /// A request of which nothing else is known.
    pub(crate) fn of(operation: Operation) -> Self {
        Self {
            operation,
            shape: Shape::OpenAi,
            model: String::new(),
            version: None,
            stream: false,
            include_usage: None,
            needs: Needs::default(),
            prompt_bytes: 0,
            prompt_tokens_given: 0,
            tokens_in_min: 0,
            messages: 0,
            images: 0,
            tokens_out_max: None,
            choices: 1,
            params: Params::default(),
            fallbacks: Vec::new(),
            tensors: None,
            user_hash: None,
            prefix_hash: None,
            prefix: Vec::new(),
            kept_by_provider: false,
            kept: Vec::new(),
            parts: None,
            formatted: false,
            forbidden: Vec::new(),
            spans: Spans::default(),
        }
    }

    /// Prompt tokens, estimated from the bytes.
    pub fn tokens_in_estimate(&self) -> u32 {
        let text = self.prompt_bytes.div_ceil(TOKEN_BYTES);
        let framing = u64::from(self.messages) * MESSAGE_TOKENS + u64::from(self.images) * IMAGE_TOKENS;
        u32::try_from(text + framing + self.prompt_tokens_given).unwrap_or(u32::MAX)
    }

    /// The model's name as the client wrote it, with its version.
    pub fn model_asked(&self) -> String {
        match &self.version {
            Some(version) => format!("{}@{version}", self.model),
            None => self.model.clone(),
        }
    }

    /// Lets a field of [`FORBIDDEN`] pass after all, for a client that may set it.
    pub fn permit(&mut self, name: &str) {
        self.forbidden.retain(|field| field.name != name);
    }
}

/// Reads and validates a body. Hashes are salted with `salt`, so that tenants cannot find each other's.
pub fn parse(operation: Operation, body: &[u8], limits: &BodyLimits, salt: u64) -> Result<Request, Invalid> {
    parse_as(Shape::OpenAi, operation, body, limits, salt)
}

/// The same of a body in another dialect, whose operation is [`Operation::Chat`].
pub fn parse_as(
    shape: Shape,
    operation: Operation,
    body: &[u8],
    limits: &BodyLimits,
    salt: u64,
) -> Result<Request, Invalid> {
    let text = members::utf8(body)?;
    body::Reader::new(shape, operation, text, limits, salt).read()
}

impl From<JsonError> for Invalid {
    fn from(error: JsonError) -> Self {
        match error.what {
            JsonFault::TooDeep => Self::body(format!("the body is nested too deep at byte {}", error.at)),
            JsonFault::Ended
            | JsonFault::ValueExpected
            | JsonFault::KeyExpected
            | JsonFault::ColonExpected
            | JsonFault::CommaExpected
            | JsonFault::Number
            | JsonFault::Escape
            | JsonFault::Control
            | JsonFault::Trailing
            | JsonFault::Type => Self::body(format!("the body is not valid JSON: {error}")),
        }
    }
}

/// A model's name and the version behind its last `@`, if there is one.
pub fn split_version(name: &str) -> (&str, Option<&str>) {
    let split = name.rsplit_once('@').filter(|(model, version)| !model.is_empty() && !version.is_empty());
    split.map_or((name, None), |(name, version)| (name, Some(version)))
}

/// A model name that cannot exist, which is answered like one that does not (C8).
fn impossible_model(why: &str) -> Invalid {
    Invalid {
        status: 404,
        code: Some("model_not_found"),
        param: Some("model".to_owned()),
        message: format!("there is no such model: its name {why}; GET /v1/models lists those that exist"),
    }
}

/// A client's text for a message: quoted and short.
fn shown(text: &str) -> String {
    const SHOWN_BYTES_MAX: usize = 64;
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX);
    let ellipsis = if end < text.len() { "…" } else { "" };
    quote(&format!("{}{ellipsis}", &text[..end]))
}
