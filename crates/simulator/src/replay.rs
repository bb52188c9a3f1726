//! What would have happened: a decision log played again under another configuration, and its decisions held beside those
//! that were made.
//!
//! The log's requests come as they came, and are decided on by the code that runs live; engines are those of the
//! [laboratory](crate::lab), as fast as the log says they were. So what a decision is compared with is recorded, and what
//! comes of it is simulated; every figure says which it is. Where a rule draws, two runs differ by chance alone: how often
//! is told by runs of the same configuration with several seeds.

mod compare;
mod effect;
mod fit;
mod log;
mod notes;
mod page;
mod pass;
mod report;
mod words;
mod world;

pub use compare::{Play, replay};
pub use fit::{Fitted, fit};
pub use log::{Log, read};
pub use pass::{Against, Look, Pass, Tell, play};
pub use report::{
    Agreement, Chance, Difference, Effect, Moved, NotCompared, Replay, Rules, Share, Side, Source, Told,
};
pub use world::World;

#[cfg(test)]
mod tests;
