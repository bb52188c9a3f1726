//! The Gemini dialect: `models/{model}:generateContent` and its kin.
//!
//! The model and the method stand in the path ([`route`]). Names are read in both spellings that its JSON allows
//! (`generationConfig`, `generation_config`) and written in the first.

mod array;
mod chunks;
pub mod client;
mod config;
mod contents;
mod deltas;
pub mod facts;
mod fault;
mod form;
mod grounding;
pub mod models;
pub mod provider;
mod reply;
pub mod route;
mod schema;
mod words;
mod write;

pub use facts::parse;
pub use form::Form;
pub use route::{Method, Route};
