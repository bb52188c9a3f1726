//! The binary.

use std::process::ExitCode;

/// A tenth less of the processor for a small request than with glibc's (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pointsman::cli::main()
}
