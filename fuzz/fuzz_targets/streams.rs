#![no_main]
//! However a provider's stream is cut, its events are the same.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|stream: &[u8]| invariants::dialects::streams(stream));
