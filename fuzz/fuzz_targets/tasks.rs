#![no_main]
//! Tasks are forwarded as authorised, and reranked in either form.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|body: &[u8]| invariants::dialects::tasks(body));
