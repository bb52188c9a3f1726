//! The Responses API (`/v1/responses`) for clients whose requests are served in another dialect, and the places of what its
//! providers keep.

pub mod client;
mod conversation;
mod echo;
mod items;
mod own;
mod parts;
pub mod reader;
pub mod state;
mod writer;

/// Why a field of the Responses API is lost.
const NO_WORD: &str = "the provider's dialect has no such field";
