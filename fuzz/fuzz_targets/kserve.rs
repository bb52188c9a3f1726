#![no_main]
//! What is accepted of an inference request is what another reader sees in it.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|request: &[u8]| invariants::kserve(request));
