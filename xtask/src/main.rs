//! Checks and generators of this repository: `cargo xtask tidy`, `cargo xtask codegen [--check]`, `cargo xtask order`.

mod codegen;
mod order;
mod protocols;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Checks and generators of this repository")]
enum Command {
    /// Checks sizes, words, layers and manifests; every complaint is `path:line: message`.
    Tidy,
    /// Writes the JSON Schema and the reference pages from the types.
    Codegen {
        /// Write nothing; fail if a generated file differs from what would be written.
        #[arg(long)]
        check: bool,
    },
    /// Writes which functions of the binary run, so that they are put together. Needs valgrind; takes ten minutes.
    Order,
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Tidy => tidy::run(&root()),
        Command::Codegen { check } => codegen::run(check),
        Command::Order => order::run(&root()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The top of the repository.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

#[expect(clippy::print_stderr, reason = "this is a command line tool")]
fn complain(line: &str) {
    eprintln!("{line}");
}
