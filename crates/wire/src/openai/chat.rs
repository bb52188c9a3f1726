//! Chat completions, turned into other dialects and back.

mod chunks;
pub mod client;
mod delta;
pub mod provider;
pub(in crate::openai) mod words;

pub(crate) use client::call_json;
