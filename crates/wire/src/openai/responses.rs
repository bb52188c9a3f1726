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
