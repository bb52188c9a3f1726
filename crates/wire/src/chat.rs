//! A conversation with a model in no dialect: what every chat dialect is read into and written from.
//!
//! A request that is served in its own dialect never comes here; its bytes pass as they are. One that is served in another
//! is read by its client's dialect into a [`Conversation`], written by the provider's, and the answer goes the other way:
//! as a whole ([`Answer`]) or event by event ([`Event`]). What a dialect has no word for is never dropped unseen: it is a
//! [`Loss`], with the field's name.

mod answer;
mod citation;
mod event;
mod finding;
mod loss;
mod naming;
mod request;

/// Citations of one part that wait for its end; what there is beyond them is lost.
pub(crate) const CITATIONS_WAITING_MAX: usize = 512;

/// Answers to one request that are told apart; what a provider sends beyond them is passed over.
pub const CHOICES_MAX: u32 = 128;

pub use answer::{Answer, Choice, Logprob, Stop, Usage};
pub use citation::Page;
pub use event::{Event, Opened};
pub use finding::{Finding, Findings, Tally};
pub use loss::{Loss, Losses};
pub(crate) use naming::own_name;
pub use naming::{Place, Places, Words};
pub use request::{
    Conversation, Effort, Format, Media, MediaKind, Message, Part, Reasoning, Role, Sampling, Source, Tool,
    ToolChoice,
};
