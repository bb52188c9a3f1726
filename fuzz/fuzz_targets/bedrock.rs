#![no_main]
//! Whatever Bedrock or a client sends, it is read within bounds, however it is cut.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::bedrock(input));
