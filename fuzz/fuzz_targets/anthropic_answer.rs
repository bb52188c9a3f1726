#![no_main]
//! What a provider answers can be said in every client's dialect.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::anthropic::answer(input));
