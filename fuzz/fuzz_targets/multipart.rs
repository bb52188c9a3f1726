#![no_main]
//! However parts are cut, they are the same parts.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|body: &[u8]| invariants::dialects::multipart(body));
