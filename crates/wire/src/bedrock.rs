//! AWS Bedrock: the Converse and ConverseStream operations, and the event stream they answer with.
//!
//! Requests are signed ([`crate::sigv4`]), which is the business of whoever sends them.

mod answer;
mod blocks;
pub mod events;
mod families;
mod fault;
mod media;
mod provider;
mod stream;

pub use fault::fault;
pub use provider::DEF;
