//! The Ollama dialect: `/api/chat` and `/api/generate`, and the lists of models that its clients ask for.
//!
//! Streams are JSON objects, one a line, and are the default. The last one says `"done":true`; an error is a line of its own.
//! Calls of tools have arguments that are objects; many servers give them no ids, so they are made here, always the same
//! ones for the same bytes.

pub mod client;
mod deltas;
pub mod generate;
mod lines;
pub mod models;
pub mod provider;
pub mod request;
mod words;
