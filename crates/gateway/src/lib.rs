//! The gateway: everything that does. Sockets, clocks, files and processes are here, and no routing decision is.
//!
//! A request's way begins at [`http::server`], goes through [`http::service`] and is then an [`exchange`], which carries
//! out what the flow of `pointsman-routing` says.

pub mod admin;
pub mod app;
pub mod batches;
pub mod cli;
pub mod clock;
pub mod descriptors;
pub mod discovery;
pub mod drain;
pub mod engines;
pub mod exchange;
pub mod explain;
pub mod health;
pub mod http;
pub mod live;
pub mod members;
pub mod memory;
pub mod mock;
pub mod reload;
pub mod serve;
pub mod snapshot;
pub mod structured;
pub mod telemetry;
pub mod upgrade;
pub mod upstream;
pub mod watch;
