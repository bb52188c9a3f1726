#![no_main]
//! Whatever happens to requests, in whatever order, the invariants hold and nothing is left.

#[path = "../../crates/routing/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|events: &[u8]| invariants::lifecycle(events));
