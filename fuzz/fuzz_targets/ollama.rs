#![no_main]
//! Ollama's bodies are forwarded as authorised, its streams byte for byte.

#[path = "../../crates/wire/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| invariants::dialects::ollama(bytes));
