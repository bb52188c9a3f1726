//! The way to providers: where they are, the connections to them, and HTTP/1.1 on those.
//!
//! The client is our own because an idle hyper connection holds about 16 KiB of buffers and a task of its own. This
//! one reads into scratch space of the worker, so a stream that says nothing costs next to nothing, and it is polled
//! by the request's own task, so that dropping the request is cancelling it.

pub mod body;
pub mod connection;
pub mod credential;
pub mod grpc;
pub mod head;
pub mod kserve;
pub mod pool;
pub mod probe;
pub mod resolve;
pub mod stream;
pub mod target;
pub mod token;
