//! The Cohere dialect: `/v2/chat`, for providers.

mod chunks;
pub mod provider;
mod words;
