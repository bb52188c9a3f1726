//! The seams of chat dialects: what clients speak, and what providers speak.
//!
//! A dialect is one file per direction and one line in [`CLIENTS`] or [`PROVIDERS`]. Neither side knows the other: between
//! them stand [`Conversation`], [`Answer`] and [`Event`].

use crate::chat::{Answer, Conversation, Event, Losses};
use crate::json::JsonError;
use crate::json::tree::Tree;
use crate::openai::error::{ErrorBody, Fault, Invalid};
use crate::openai::request::{BodyLimits, Operation, Request};
use crate::openai::sse::StreamFault;

/// Nesting that is accepted in the bodies of clients that are turned into another dialect, and in answers.
pub const CONVERTED_DEPTH_MAX: usize = 256;

/// The dialect that clients speak where nothing says otherwise.
pub static OPENAI: &ClientDef = &crate::openai::chat::client::DEF;

/// Every chat dialect that clients may speak.
pub static CLIENTS: &[&ClientDef] = &[
    OPENAI,
    &crate::anthropic::client::DEF,
    &crate::gemini::client::DEF,
    &crate::ollama::client::DEF,
    &crate::ollama::generate::DEF,
];

/// Every chat dialect that providers may speak.
pub static PROVIDERS: &[&ProviderDef] = &[
    &crate::openai::chat::provider::DEF,
    &crate::anthropic::provider::DEF,
    &crate::gemini::provider::DEF,
    &crate::cohere::provider::DEF,
    &crate::ollama::provider::DEF,
];

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What is to be done.
    pub operation: Operation,
    /// The model, where the path names it and not the body.
    pub model: Option<String>,
    /// Whether the answer is to be streamed, where the path says so and not the body.
    pub stream: Option<bool>,
}

impl Asked {
    /// An operation whose body says everything else.
    pub const fn of(operation: Operation) -> Self {
        Self { operation, model: None, stream: None }
    }
}

/// Reads what a body asks for and holds it to its types and ranges. The last argument salts hashes.
pub type ReadFacts = fn(&Asked, &[u8], &BodyLimits, u64) -> Result<Request, Invalid>;

/// The definition of a dialect that clients speak.
pub struct ClientDef {
    /// Its name in records, metrics and docs.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub summary: &'static str,
    /// What a path asks for, if it is one of the dialect's.
    pub route: fn(&str) -> Option<Asked>,
    /// Reads a body.
    pub read: ReadFacts,
    /// The media type of its streams.
    pub stream_type: &'static str,
    /// It.
    pub dialect: &'static dyn ClientDialect,
}

/// The definition of a dialect that providers speak.
pub struct ProviderDef {
    /// Its name in vendor records, decision records and docs: that of the client dialect it is the same as, if there is one.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub summary: &'static str,
    /// The media type of its streams.
    pub stream_type: &'static str,
    /// It.
    pub dialect: &'static dyn ProviderDialect,
}

impl std::fmt::Debug for ClientDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for ClientDef {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ClientDef {}

impl std::fmt::Debug for ProviderDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The dialect that a path belongs to, and what it asks for.
pub fn route(path: &str) -> Option<(&'static ClientDef, Asked)> {
    CLIENTS.iter().find_map(|def| Some((*def, (def.route)(path)?)))
}

/// The client dialect of that name.
pub fn client(name: &str) -> Option<&'static ClientDef> {
    CLIENTS.iter().copied().find(|def| def.name == name)
}

/// The provider dialect of that name.
pub fn provider(name: &str) -> Option<&'static ProviderDef> {
    PROVIDERS.iter().copied().find(|def| def.name == name)
}

/// What the client is told beside the answer itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The model, as the client asked for it.
    pub model: String,
    /// The time, in seconds since the Unix epoch, for answers that do not say theirs.
    pub now_unix_s: u64,
    /// An id for answers that have none: the request's.
    pub id: String,
    /// Whether the stream is to end with usage, where the dialect lets the client choose.
    pub stream_usage: bool,
}

/// A chat dialect that clients speak.
pub trait ClientDialect: Sync {
    /// What a request says. What the conversation has no place for is noted in its losses.
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid>;

    /// The body of an answer. What the dialect has no word for is noted in `losses`.
    fn answer(&self, answer: &Answer, told: &Told, losses: &mut Losses) -> String;

    /// A stream.
    fn stream(&self, told: Told) -> Box<dyn WriteStream>;

    /// The body of an error, with the request's id.
    fn error(&self, error: &ErrorBody, id: &str) -> String;
}

/// Writes the events of one answer.
pub trait WriteStream: Send {
    /// Puts what an event is in the dialect behind `out`; nothing for what the dialect does not show.
    fn write(&mut self, event: &Event, out: &mut String);
}

/// A chat dialect that providers speak.
pub trait ProviderDialect: Sync {
    /// The path below the provider's prefix, query included.
    fn path(&self, model: &str, stream: bool) -> String;

    /// The body of a request. What the dialect has no word for is noted in `losses`.
    fn request(&self, conversation: &Conversation, model: &str, losses: &mut Losses) -> String;

    /// What the body of an answer says.
    fn answer(&self, body: &str) -> Result<Answer, JsonError>;

    /// A stream, from its beginning.
    fn stream(&self) -> Box<dyn ReadStream>;

    /// What an error means.
    fn fault(&self, status: u16, retry_after: Option<&str>, body: &[u8]) -> Fault;
}

/// Reads the bytes of one streamed answer.
pub trait ReadStream: Send {
    /// Puts what the next bytes bring behind `events`. The bytes may be cut anywhere.
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault>;

    /// Puts what only the end of the stream tells behind `events`: the provider closed it, as its protocol allows. A stream
    /// without [`Event::Ended`] by then broke off.
    fn finish(&mut self, _events: &mut Vec<Event>) {}
}
