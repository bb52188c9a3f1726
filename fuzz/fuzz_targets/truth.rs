#![no_main]
//! Headers of answers are understood or passed over.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|headers: &[u8]| invariants::truth(headers));
