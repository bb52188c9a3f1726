//! A discrete-event world that drives the same fleet and lifecycle as the gateway: virtual time, seeded arrivals, fake
//! deployments, clients that leave. It decides nothing itself; every rule is the one that runs live.
//!
//! The only source of chance is the seed: the same seed, catalog and world give the same run, which
//! [`Report::log_hash`] shows.

mod baseline;
pub mod baselines;
mod batch;
pub mod diagnosis;
pub mod engine;
mod fault;
pub mod lab;
pub mod page;
mod random;
pub mod reference;
pub mod replay;
mod report;
mod scenario;
pub mod trace;
mod workload;
mod world;

pub use batch::Batch;
pub use fault::{Fault, Flapping, Says, What};
pub use report::{Day, DeploymentReport, Report};
pub use scenario::{Figure, Rate, Scenario, Verdict};
pub use workload::{Ask, Details, Record, Workload};
pub use world::{Capacity, Clients, Reload, Spec, run};

#[cfg(test)]
mod tests;
