#![no_main]
//! Whatever is accepted as a request is forwarded unchanged but for its model.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|body: &[u8]| invariants::request(body));
