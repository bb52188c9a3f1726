#![no_main]
//! Whatever a client or a provider sends is refused, or becomes JSON in every other dialect.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|body: &[u8]| invariants::dialects::conversions(body));
