#![no_main]
//! Another router's configuration is refused with a reason, or becomes one that passes `check`.

#[path = "../../crates/settings/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|text: &[u8]| invariants::import(text));
