//! What is generated from the types: the JSON Schema and the reference pages. They are checked in, so that they can be
//! read without building; `--check` keeps them from drifting.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context, bail};

/// The command that mends what the check finds.
const COMMAND: &str = "cargo xtask codegen";

/// Writes every generated file, or with `check` fails if one differs from what would be written.
pub(crate) fn run(check: bool) -> anyhow::Result<()> {
    let mut stale = Vec::new();
    for (name, text) in generated()? {
        let path = crate::root().join(name);
        let present = match fs::read_to_string(&path) {
            Ok(present) => Some(present),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
        };
        if present.is_some_and(|present| present == text) {
            continue;
        }
        if check {
            stale.push(name);
            continue;
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
    }
    if !stale.is_empty() {
        bail!("not what the types say: {}; run `{COMMAND}` and commit the result", stale.join(", "));
    }
    Ok(())
}

/// Every generated file with its text.
fn generated() -> anyhow::Result<[(&'static str, String); 5]> {
    Ok([
        ("schema/config.schema.json", format!("{:#}\n", pointsman_settings::schema())),
        ("docs/reference/config.md", pointsman_settings::reference_markdown()),
        ("docs/reference/strategies.md", pointsman_settings::strategies_markdown()),
        ("docs/vendors.md", pointsman_settings::vendors_markdown()),
        ("docs/protocols.md", crate::protocols::page()?),
    ])
}
