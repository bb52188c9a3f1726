//! A discrete-event world that drives the same fleet and lifecycle as the gateway: virtual time, seeded arrivals, fake
//! deployments, clients that leave. It decides nothing itself; every rule is the one that runs live.
//!
//! The only source of chance is the seed: the same seed, catalog and world give the same run, which
//! [`Report::log_hash`] shows.

mod report;
mod world;

pub use report::{DeploymentReport, Report};
pub use world::{Spec, run};

#[cfg(test)]
mod tests;
