//! A discrete-event world that drives the same fleet and lifecycle as the gateway: virtual time, seeded arrivals, fake
//! deployments, clients that leave. It decides nothing itself; every rule is the one that runs live.
//!
//! The only source of chance is the seed: the same seed, catalog and world give the same run, which
//! [`Report::log_hash`] shows.

mod engine;
mod fault;
mod report;
mod scenario;
mod world;

pub use engine::Batch;
pub use fault::{Fault, What};
pub use report::{DeploymentReport, Report};
pub use scenario::{Rate, Scenario, Verdict};
pub use world::{Spec, run};

#[cfg(test)]
mod tests;
