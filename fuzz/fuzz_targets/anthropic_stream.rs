#![no_main]
//! Anthropic's streams are relayed as they are, and read as the same events however they are cut.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::anthropic::stream(input));
