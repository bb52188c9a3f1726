#![no_main]
//! Whatever a provider of Gemini answers means the same however it is cut.

#[path = "../../crates/wire/tests/invariants/gemini.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::answer(input));
