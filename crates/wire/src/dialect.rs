//! The seams of chat dialects: what clients speak, and what providers speak.
//!
//! A dialect is one file per direction and one line in [`CLIENTS`] or [`PROVIDERS`]. Neither side knows the other: between
//! them stand [`Conversation`], [`Answer`] and [`Event`].

use bytes::Bytes;

use crate::chat::{Answer, Conversation, Event, Losses, Words, own_name};
use crate::json::JsonError;
use crate::json::tree::Tree;
use crate::openai::error::{ErrorBody, Fault, Invalid};
use crate::openai::request::{BodyLimits, Operation, Request};
use crate::openai::rewrite::Edits;
use crate::openai::sse::{StreamError, StreamFault};
use crate::rerank::Form;

/// Nesting that is accepted in the bodies of clients that are turned into another dialect, and in answers.
pub const CONVERTED_DEPTH_MAX: usize = 256;

/// The dialect that clients speak where nothing says otherwise.
pub static OPENAI: &ClientDef = &crate::openai::chat::client::DEF;

/// The Responses API.
pub static RESPONSES: &ClientDef = &crate::openai::responses::client::DEF;

/// Looks up a header of an answer, by its name in lower case.
pub type Headers<'a> = &'a dyn Fn(&'static str) -> Option<&'a str>;

/// An answer of whose headers nothing is known.
pub const NO_HEADERS: Headers<'static> = &|_| None;

/// Every chat dialect that clients may speak.
pub static CLIENTS: &[&ClientDef] = &[
    OPENAI,
    RESPONSES,
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
    &crate::azure::DEF,
    &crate::bedrock::DEF,
    &crate::vertex::GEMINI,
    &crate::vertex::ANTHROPIC,
];

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What is to be done.
    pub operation: Operation,
    /// Which of the dialect's own calls it is, in the dialect's word.
    pub call: &'static str,
    /// The model, where the path names it and not the body.
    pub model: Option<String>,
    /// What becomes of it where a provider speaks another dialect.
    pub elsewhere: Elsewhere,
}

/// What becomes of a call where a provider speaks another dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// It is turned into that.
    Converted,
    /// Nothing: only a provider of the same dialect can be asked.
    Unserved,
    /// It asks for a number of tokens, which is estimated.
    Estimated,
}

impl Asked {
    /// An operation of OpenAI's, whose body says everything else.
    pub const fn of(operation: Operation) -> Self {
        Self::call(operation, operation.name())
    }

    /// What a path of OpenAI's, or of a rerank, asks for.
    pub fn of_path(path: &str) -> Option<Self> {
        let operation = Operation::of_path(path)?;
        let form = match operation {
            Operation::Task(_) => Form::of_path(path),
            Operation::Chat
            | Operation::Completion
            | Operation::Embedding
            | Operation::Infer
            | Operation::Response => None,
        };
        Some(Self::call(operation, form.map_or(operation.name(), Form::name)))
    }

    /// A call whose body says everything else.
    pub const fn call(operation: Operation, call: &'static str) -> Self {
        Self { operation, call, model: None, elsewhere: Elsewhere::Converted }
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
    /// What a path and the query behind it ask for, if the path is one of the dialect's.
    pub route: fn(&str, Option<&str>) -> Option<Asked>,
    /// How the paths begin that are the dialect's alone, so that whoever asks for something there that does not exist is told
    /// in its words.
    pub places: &'static [&'static str],
    /// Reads a body.
    pub read: ReadFacts,
    /// Headers of the client's that a provider of the same dialect gets, in lower case.
    pub headers: &'static [&'static str],
    /// Where a request has the schema that its answer is to fit, for messages.
    pub schema_field: &'static str,
    /// How its clients call fields of a conversation.
    pub words: &'static [Words],
    /// The header under which its clients look for the id of an answer, in lower case, if there is one.
    pub request_id_header: Option<&'static str>,
    /// The status that its clients are told an error with.
    pub error_status: fn(&ErrorBody) -> u16,
    /// The media type of its streams, by call.
    pub stream_type: fn(&Asked) -> &'static str,
    /// What shows its clients that a stream lives in which nothing comes: no event to them. Empty if there is no such thing.
    pub heartbeat: &'static str,
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
    /// The client dialects whose requests it takes as they are.
    pub relays: &'static [Relay],
    /// It.
    pub dialect: &'static dyn ProviderDialect,
}

/// A client dialect whose requests a provider takes as they came, but for the model's name.
#[derive(Debug)]
pub struct Relay {
    /// The dialect's name.
    pub client: &'static str,
    /// What it may ask for.
    pub operations: &'static [Operation],
    /// The path of a call below the provider's prefix, query included, for the upstream's name of the model; `None` if that
    /// call is not taken.
    pub path: fn(&Asked, &str) -> Option<String>,
    /// What else changes, where more does than the model's name.
    pub wrapping: Option<&'static Wrapping>,
}

/// How a provider takes requests that it does not take just as they came.
#[derive(Debug)]
pub struct Wrapping {
    /// The path of a request that is to be streamed, where its body says so.
    pub stream_path: fn(&Asked, &str) -> Option<String>,
    /// What changes in the body, for the upstream's name of the model as a literal.
    pub edits: fn(&Asked, &Request, &Bytes, &Bytes) -> Edits,
}

impl ProviderDef {
    /// The path at which a request is taken as it came; `None` if it is not.
    pub fn relay_path(&self, client: &ClientDef, asked: &Asked, model: &str) -> Option<String> {
        let relay = self.relays.iter().find(|relay| relay.client == client.name)?;
        relay.operations.contains(&asked.operation).then(|| (relay.path)(asked, model))?
    }

    /// What else changes of a request that is taken as it came, and its path if it is to be streamed, where that is another.
    pub fn wrapping(&self, client: &ClientDef) -> Option<&'static Wrapping> {
        self.relays.iter().find(|relay| relay.client == client.name)?.wrapping
    }

    /// Whether a request is taken as it came.
    pub fn takes(&self, client: &ClientDef, asked: &Asked) -> bool {
        self.relay_path(client, asked, "").is_some()
    }
}

impl std::fmt::Debug for ClientDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl ClientDef {
    /// What a body says, for a provider that speaks another dialect. Half a surrogate pair, which no text can hold and so
    /// no other body could say, is refused by its field.
    ///
    /// # Errors
    /// The body is no JSON, or asks for what cannot be understood in another dialect.
    pub fn conversation(&self, body: &str) -> Result<Conversation, Invalid> {
        let tree = Tree::parse(body, CONVERTED_DEPTH_MAX)?;
        if let Some(field) = crate::json::lone_surrogate(body, CONVERTED_DEPTH_MAX) {
            let text = format!(
                "`{field}` has half a surrogate pair (`\\ud800` to `\\udfff`), which is no character"
            );
            return Err(Invalid::field(field, text));
        }
        self.dialect.conversation(tree)
    }

    /// Writes what its clients said for a provider that speaks another dialect. What is lost has their names.
    pub fn write_for(
        &self,
        provider: &ProviderDef,
        conversation: &Conversation,
        upstream_model_name: &str,
    ) -> (String, Losses) {
        let mut unsaid = Losses::default();
        let body = provider.dialect.request(conversation, upstream_model_name, &mut unsaid);
        let mut losses = conversation.losses.clone();
        losses.extend(unsaid.named_by(|field| {
            let is_reasoning = matches!(field, "reasoning" | "reasoning_effort");
            let field = if is_reasoning { conversation.reasoning_field() } else { field };
            own_name(self.words, &conversation.places, field)
        }));
        (body, losses)
    }

    /// Whether it is one of OpenAI's own, whose errors and headers are alike.
    pub fn is_openai(&self) -> bool {
        self.name == OPENAI.name || self.name == RESPONSES.name
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

/// The dialect that a path belongs to, and what it asks for together with the query behind it.
pub fn route(path: &str, query: Option<&str>) -> Option<(&'static ClientDef, Asked)> {
    CLIENTS.iter().find_map(|def| Some((*def, (def.route)(path, query)?)))
}

/// The dialect whose clients ask at a path, whether there is something or not.
pub fn of_place(path: &str) -> &'static ClientDef {
    let mut all = CLIENTS.iter().copied().chain([&crate::kserve::DEF]);
    all.find(|def| def.places.iter().any(|place| path.starts_with(place))).unwrap_or(OPENAI)
}

/// The dialect of OpenAI's that an operation belongs to.
pub fn openai_of(operation: Operation) -> &'static ClientDef {
    match operation {
        Operation::Chat | Operation::Completion | Operation::Embedding | Operation::Task(_) => OPENAI,
        Operation::Infer => &crate::kserve::DEF,
        Operation::Response => RESPONSES,
    }
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
    /// The call that is answered (see [`Asked::call`]).
    pub call: &'static str,
    /// The model, as the client asked for it.
    pub model: String,
    /// The time, in seconds since the Unix epoch, for answers that do not say theirs.
    pub now_unix_s: u64,
    /// An id for answers that have none: the request's.
    pub id: String,
    /// Whether the stream is to end with usage, where the dialect lets the client choose.
    pub stream_usage: bool,
    /// What the answer repeats of the request (see [`Conversation::echoed`]).
    pub echoed: String,
}

/// A chat dialect that clients speak.
pub trait ClientDialect: Sync {
    /// What a request says. What the conversation has no place for is noted in its losses.
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid>;

    /// The body of an answer. What the dialect has no word for is noted in `losses`.
    fn answer(&self, answer: &Answer, told: &Told, losses: &mut Losses) -> String;

    /// A stream.
    fn stream(&self, told: Told) -> Box<dyn WriteStream>;

    /// The answer to a call that asks for a number of tokens.
    fn counted(&self, _tokens_in: u64) -> String {
        String::new()
    }

    /// The body of an error, with the request's id.
    fn error(&self, error: &ErrorBody, id: &str) -> String;
}

/// Writes the events of one answer.
pub trait WriteStream: Send {
    /// Puts what an event is in the dialect behind `out`; nothing for what the dialect does not show.
    fn write(&mut self, event: &Event, out: &mut String);

    /// The field of an answer that an event belongs to, and why the dialect does not show it, if it does not.
    fn lost(&self, _event: &Event) -> Option<(&'static str, &'static str)> {
        None
    }
}

/// Why the body of a good status is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// It is no JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The provider reports an error, whatever its status.
    #[error("it is an error")]
    Failed(StreamError),
    /// It says nothing.
    #[error("it has no `{0}`")]
    Missing(&'static str),
}

/// A chat dialect that providers speak.
pub trait ProviderDialect: Sync {
    /// The path below the provider's prefix, query included.
    fn path(&self, model: &str, stream: bool) -> String;

    /// The body of a request. What the dialect has no word for is noted in `losses`.
    fn request(&self, conversation: &Conversation, model: &str, losses: &mut Losses) -> String;

    /// What the body of an answer says.
    fn answer(&self, body: &str) -> Result<Answer, AnswerFault>;

    /// A stream, from its beginning.
    fn stream(&self) -> Box<dyn ReadStream>;

    /// What an error means.
    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault;
}

/// Reads the bytes of one streamed answer.
pub trait ReadStream: Send {
    /// Puts what the next bytes bring behind `events`. The bytes may be cut anywhere.
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), StreamFault>;

    /// Puts what only the end of the stream tells behind `events`: the provider closed it, as its protocol allows. A stream
    /// without [`Event::Ended`] by then broke off.
    fn finish(&mut self, _events: &mut Vec<Event>) {}
}
