//! The allow list: what may be longer than the limits. It may only shrink.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toml::Table;

/// Where the list stands.
pub(super) const PATH: &str = "xtask/tidy-allow.toml";

/// Lines allowed beyond the limits.
#[derive(Debug, Default)]
pub(super) struct List {
    /// By path.
    pub(super) file_lines: BTreeMap<String, usize>,
    /// By `path::function`.
    pub(super) function_lines: BTreeMap<String, usize>,
}

impl List {
    /// Reads the list of the repository at `root`. No file: an empty list.
    pub(super) fn load(root: &Path) -> Result<Self> {
        let path = root.join(PATH);
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {PATH}"))?;
        Self::parse(&text).with_context(|| format!("{PATH} is not valid"))
    }

    fn parse(text: &str) -> Result<Self> {
        let mut list = Self::default();
        for (section, entries) in text.parse::<Table>()? {
            let into = match section.as_str() {
                "file_lines" => &mut list.file_lines,
                "function_lines" => &mut list.function_lines,
                other => bail!("unknown section `{other}`: use `file_lines` or `function_lines`"),
            };
            for (name, lines) in entries.as_table().context("a section holds `name = lines`")? {
                let lines = lines.as_integer().and_then(|n| usize::try_from(n).ok());
                into.insert(
                    name.clone(),
                    lines.with_context(|| format!("`{name}` needs a number of lines"))?,
                );
            }
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_sections_and_values_are_errors() {
        let list = List::parse("[file_lines]\n\"a.rs\" = 600\n[function_lines]\n\"a.rs::f\" = 80\n").unwrap();
        assert_eq!(list.file_lines["a.rs"], 600);
        assert_eq!(list.function_lines["a.rs::f"], 80);
        assert!(List::parse("[files]\n\"a.rs\" = 600\n").is_err());
        assert!(List::parse("[file_lines]\n\"a.rs\" = -1\n").is_err());
    }
}
