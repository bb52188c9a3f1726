#![no_main]
//! Tensors over gRPC are over HTTP what they were, and the other way round.

#[path = "../../crates/wire/tests/invariants/grpc.rs"]
mod grpc;

libfuzzer_sys::fuzz_target!(|message: &[u8]| grpc::kserve_grpc(message));
