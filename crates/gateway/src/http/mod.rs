//! The clients' side: accept, authenticate, parse and validate, gather facts, and hand over to the exchange.

pub mod auth;
pub mod body;
pub mod client_io;
mod early;
pub mod fallback;
pub mod form;
pub mod grpc;
pub mod guard;
pub mod hints;
pub mod idempotency;
pub mod kept;
pub mod kserve;
pub mod models;
pub mod pins;
pub mod prepare;
pub mod respond;
pub mod route;
pub mod server;
pub mod service;
