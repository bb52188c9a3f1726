//! The files tidy looks at: all that git tracks or would track.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A text file of the repository.
#[derive(Debug)]
pub(super) struct File {
    /// Relative to the top of the repository, with `/`.
    pub(super) path: String,
    /// Its whole text.
    pub(super) text: String,
}

impl File {
    /// Whether the file holds only tests: its length is not limited.
    pub(super) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        self.path.split('/').rev().skip(1).any(|folder| folder == "tests")
            || name == "tests.rs"
            || name == "conftest.py"
            || name.ends_with("_tests.rs")
            || name.starts_with("test_")
    }

    /// Whether the name ends with `.extension`.
    pub(super) fn has_extension(&self, extension: &str) -> bool {
        self.path.rsplit_once('.').is_some_and(|(_, own)| own == extension)
    }
}

/// Every text file that is tracked, or new and not ignored.
pub(super) fn list(root: &Path) -> Result<Vec<File>> {
    let output = Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("cannot run git: is it installed?")?;
    ensure!(
        output.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let names = String::from_utf8(output.stdout).context("a file name is not UTF-8")?;
    let mut files: Vec<File> = names
        .split('\0')
        .filter(|path| !path.is_empty())
        // Deleted but still in the index, a link to a folder, or not text: nothing to check.
        .filter_map(|path| {
            Some(File { path: path.to_owned(), text: std::fs::read_to_string(root.join(path)).ok()? })
        })
        .collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_told_from_code() {
        let check = |path: &str, expected: bool| {
            let file = File { path: path.to_owned(), text: String::new() };
            assert_eq!(file.is_test(), expected, "{path}");
        };
        check("crates/a/src/lib.rs", false);
        check("crates/a/src/tests.rs", true);
        check("crates/a/src/flow/tests/retry.rs", true);
        check("crates/a/tests/raw_socket.rs", true);
        check("e2e/test_chat.py", true);
        check("e2e/engine.py", false);
        check("crates/a/src/attests.rs", false);
    }
}
