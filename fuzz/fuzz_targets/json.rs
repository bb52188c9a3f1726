#![no_main]
//! The scanner and another parser agree on what JSON is.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|text: &[u8]| invariants::json(text));
