//! Rules to compare with, through the live strategy seam: what others ship, and what is simplest.

mod prefix;
mod seen;
mod simple;

use pointsman_routing::strategy::Def;

/// Every baseline.
pub static ALL: &[&Def] = &[
    &simple::ROUND_ROBIN,
    &simple::RANDOM,
    &simple::LEAST_OUTSTANDING,
    &simple::TWO_CHOICES,
    &simple::PEAK_EWMA,
    &simple::HASH,
    &simple::HASH_BOUNDED,
    &prefix::SGLANG_LIKE,
    &prefix::LLMD_LIKE,
];

#[cfg(test)]
mod tests;
