//! The laboratory: recorded or made traffic through the live fleet and flow, before engines that work step by step, and
//! figures by which strategies are compared.
//!
//! A [`Setup`] says what there is, a [`Workload`](crate::Workload) who asks; [`run`] plays them with one strategy and one
//! seed. Everything a run depends on is an argument, so runs can be made side by side.

mod ask;
mod compare;
mod engines;
mod measure;
mod page;
mod results;
mod setup;
mod world;

pub use compare::{capacity, mean, results, traffic};
pub use results::{
    Balance, Decisions, EngineRun, Goodput, Jitter, Ratios, Results, Run, Series, Spread, Strategy, Tenant,
    Traffic,
};
pub use setup::{Engines, Objective, Setup, known_strategies, strategy};
pub use world::run;
