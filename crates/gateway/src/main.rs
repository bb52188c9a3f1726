//! The binary.

use std::process::ExitCode;

/// A third of a small request's user time is allocation with the system's allocator, and a tenth with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pointsman::cli::main()
}
