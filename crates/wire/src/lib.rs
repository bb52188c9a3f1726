//! Protocols, sans IO: bytes in, typed requests and events out.
//!
//! Nothing here opens a socket, reads a clock or keeps state beyond one request. A client dialect is a module
//! (today [`openai`]); vendors that speak it are records in `vendors.toml` (see [`vendor`]), not code.
//!
//! - [`json`]: the strict, zero-copy scanner every body goes through once.
//! - [`openai::request`]: what a request asks for, and whether it may.
//! - [`openai::rewrite`]: the same bytes with the upstream's model name.
//! - [`openai::sse`]: a stream, relayed as it is and observed on the way.
//! - [`openai::error`]: errors to clients, and what upstream errors mean.
//! - [`anthropic`]: the Messages API, in both directions.
//! - [`gemini`]: the Gemini dialect, in both directions.
//! - [`dialect`]: the seams between dialects, and [`chat`], what stands between two of them.
//! - [`events`]: server-sent events, cut out of bytes; [`ndjson`]: lines of JSON.
//! - [`kserve`]: tensors in, tensors out: the Open Inference Protocol.
//! - [`ollama`], [`cohere`]: further chat dialects.
//! - [`bedrock`], [`azure`], [`vertex`]: clouds that speak in their own way, or wrap what others speak.
//! - [`tasks`]: what is relayed without being a chat, JSON and multipart; [`rerank`]: its two forms.
//! - [`sigv4`]: requests signed for AWS.
//! - [`truth`]: what the headers of answers say of limits; [`answered`]: which model an answer is of.
//! - [`prices`]: what tokens cost.
//! - [`engine`]: what engines say of their load, in all spellings.

pub mod answered;
pub mod anthropic;
pub mod azure;
pub mod bedrock;
pub mod calendar;
pub mod chat;
pub mod cloud;
pub mod cohere;
pub mod dialect;
pub mod engine;
pub mod events;
pub mod gemini;
pub mod json;
pub mod kserve;
pub mod ndjson;
pub mod ollama;
pub mod openai;
pub mod prices;
pub mod rerank;
pub mod sigv4;
mod taken;
pub mod tasks;
pub mod truth;
pub mod url;
pub mod vendor;
pub mod vertex;
