//! The Anthropic dialect: `/v1/messages` and `/v1/messages/count_tokens`.

mod blocks;
pub mod client;
mod conversation;
pub mod error;
pub mod models;
pub mod provider;
mod reader;
mod request;
mod words;
mod writer;

pub use error::{error_event, error_json, status};
