#![no_main]
//! Streams are relayed byte for byte, however they are cut.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|stream: &[u8]| invariants::sse(stream));
