//! The OpenAI dialect: `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings` and `/v1/responses`.

pub mod chat;
pub mod continuation;
pub mod error;
pub mod findings;
pub mod request;
pub mod responses;
pub mod rewrite;
pub mod rules;
pub mod sse;
pub mod usage;

pub use error::{ErrorBody, Fault, FaultKind, Invalid, Who, classify, retry_after_ms};
pub use request::{BodyLimits, Operation, Request, Shape, parse, parse_as};
pub use rewrite::{Rewritten, Segments, UsageAsk, literal, rewrite, rewrite_from};
pub use rules::{Abilities, ModelRules, ParamName, validate};
pub use sse::{End, Seen, StreamError, StreamFault, StreamObserver, error_event};
pub use usage::{Usage, usage_of_body, usage_of_body_as};
