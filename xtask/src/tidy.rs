//! `cargo xtask tidy`: what the compiler and clippy do not check, so that the house stays as it was drawn.
//!
//! - [`sizes`]: files, functions and traits fit their limits, with an allow list that may only shrink.
//! - [`words`]: no unowned reminders, no unfinished code, no paths of somebody's machine.
//! - [`layers`]: the pure crates reach neither an async runtime nor each other the wrong way.
//! - [`manifests`]: every crate takes the workspace lints and uses its dependencies, and the pure crates have the same
//!   bans.

mod allow;
mod files;
mod layers;
mod manifests;
mod scan;
mod sizes;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use files::File;

/// One complaint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// Relative to the top of the repository.
    path: String,
    /// Counted from 1.
    line: usize,
    message: String,
}

impl Problem {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// Runs every check on the repository at `root`.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = files::list(root)?;
    let mut problems = Vec::new();
    problems.extend(sizes::check(&files, &allow::List::load(root)?));
    problems.extend(files.iter().flat_map(words::check));
    problems.extend(manifests::check(&files));
    problems.extend(layers::check(root)?);
    problems.sort();
    for problem in &problems {
        crate::complain(&problem.to_string());
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("tidy: 1 problem in {} files", files.len()),
        n => bail!("tidy: {n} problems in {} files", files.len()),
    }
}
