#![no_main]
//! Whatever is accepted in Anthropic's dialect is forwarded unchanged but for its model.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::anthropic::request(input));
