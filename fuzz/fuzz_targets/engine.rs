#![no_main]
//! Whatever an engine answers, it is understood, or not, within bounds.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|answer: &[u8]| invariants::engine(answer));
