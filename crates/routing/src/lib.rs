//! Deciding: which deployment serves a request, when, and what happens if that goes wrong.
//!
//! This crate contains no sockets, no clock, no randomness of the operating system, no files and no logging.
//! Time ([`Now`]) and chance ([`Rng`]) are arguments, so the same inputs in the same order give the same
//! actions: a decision can be explained, simulated and replayed by the code that makes it live.
//!
//! Start at [`Flow::step`], the life of one request, and [`decide`], the choice for one attempt. What exists is a
//! [`Catalog`]; what is known of it now is the [`Fleet`].

pub mod budget;
pub mod catalog;
pub mod decide;
pub mod decision;
pub mod engine;
pub mod facts;
pub mod failure;
pub mod figures;
pub mod fleet;
pub mod flow;
pub mod health;
mod hedge;
mod homes;
pub mod idempotency;
pub mod ids;
pub mod invariants;
pub mod issued;
pub mod latency;
pub mod limiter;
pub mod limits;
mod line;
pub mod mirror;
mod outputs;
pub mod pace;
pub mod pool;
pub mod predict;
mod prefix;
mod recover;
pub mod rng;
mod room;
pub mod said;
pub mod shed;
mod slab;
mod split;
mod sticky;
pub mod strategy;
mod table;
pub mod time;

pub use catalog::Catalog;
pub use decide::decide;
pub use decision::Decision;
pub use facts::Facts;
pub use failure::{Failure, FailureClass};
pub use fleet::Fleet;
pub use flow::{Action, Flow, Input};
pub use ids::{CredentialId, DeploymentId, ModelId};
pub use rng::Rng;
pub use time::Now;
