#![no_main]
//! Whatever a client of Gemini sends is refused, or forwarded as it is and turned into every other dialect.

#[path = "../../crates/wire/tests/invariants/gemini.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|input: &[u8]| invariants::request(input));
