//! The laboratory: recorded or made traffic through the live fleet and flow, before engines that work step by step, and
//! figures by which strategies are compared.
//!
//! A [`Setup`] says what there is, a [`Workload`](crate::Workload) who asks; [`run`] plays them with one strategy and one
//! seed. Everything a run depends on is an argument, so runs can be made side by side.

mod ask;
mod compare;
mod engines;
mod figure;
mod measure;
mod page;
mod plan;
mod results;
mod setup;
mod streams;
mod world;

#[cfg(test)]
pub(crate) use ask::facts_of;
pub use compare::{capacity, mean, results, traffic};
pub use figure::{Figure, Must};
pub use plan::{
    Beside, EnginesSpec, MistakenSpec, Named, OneEngine, Plan, ROUTERS_MAX, Ready, ReloadSpec, Variant,
    WorldSpec,
};
pub use results::{
    Balance, Decisions, EngineRun, Goodput, Jitter, Ratios, Remap, Results, Run, Series, Spread, Strategy,
    Tenant, Traffic,
};
pub use setup::{Engines, Objective, Setup, known_strategies, strategy};
pub use streams::{Bursts, ClassName, LaneName, Stream, Work};
pub use world::run;
pub(crate) use world::{Over, watched};

#[cfg(test)]
mod tests;
