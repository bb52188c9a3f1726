#![no_main]
//! What a client says keeps its meaning in Anthropic's dialect, and what is said in that is JSON in every other.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::anthropic::conversation(input));
