//! Chat completions, turned into other dialects and back.

mod chunks;
pub mod client;
mod delta;
pub mod habits;
mod ids;
pub mod provider;
mod said;
pub(in crate::openai) mod tools;
mod turns;
pub(in crate::openai) mod words;

pub(crate) use client::call_json;
