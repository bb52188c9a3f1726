#![no_main]
//! A configuration is refused with a reason, or makes a fleet.

#[path = "../../crates/settings/tests/invariants/mod.rs"]
mod invariants;

libfuzzer_sys::fuzz_target!(|text: &[u8]| invariants::config(text));
