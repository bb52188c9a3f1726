//! Who may reach whom, as cargo resolves it: ordinary dependencies, direct or not.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Problem;

/// What no pure crate reaches: runtimes, sockets, chance of the system, logging.
const IMPURE: [&str; 10] =
    ["async-std", "getrandom", "hyper", "log", "mio", "rand", "rand_core", "socket2", "tokio", "tracing"];

/// A crate and the members of the workspace it must not reach.
struct Layer {
    name: &'static str,
    above: &'static [&'static str],
}

/// The pure crates, from the bottom up.
const LAYERS: [Layer; 4] = [
    Layer {
        name: "routing",
        above: &["pointsman-wire", "pointsman-settings", "pointsman-simulator", "pointsman"],
    },
    Layer {
        name: "wire",
        above: &["pointsman-routing", "pointsman-settings", "pointsman-simulator", "pointsman"],
    },
    Layer { name: "settings", above: &["pointsman-simulator", "pointsman"] },
    Layer { name: "simulator", above: &["pointsman"] },
];

/// Asks cargo for the tree of every pure crate.
pub(super) fn check(root: &Path) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    for layer in &LAYERS {
        problems.extend(judge(layer, &tree(root, layer.name)?));
    }
    Ok(problems)
}

fn judge(layer: &Layer, reached: &BTreeSet<String>) -> Vec<Problem> {
    let name = layer.name;
    IMPURE
        .iter()
        .chain(layer.above)
        .filter(|forbidden| reached.contains(**forbidden))
        .map(|forbidden| {
            let ask = format!("cargo tree -p pointsman-{name} -e normal -i {forbidden}");
            let message = format!("`{name}` must not reach `{forbidden}`; `{ask}` shows the way");
            Problem::new(&format!("crates/{name}/Cargo.toml"), 1, message)
        })
        .collect()
}

fn tree(root: &Path, name: &str) -> Result<BTreeSet<String>> {
    let package = format!("pointsman-{name}");
    let output = Command::new(env!("CARGO"))
        .current_dir(root)
        .args(["tree", "--package", &package, "--edges", "normal", "--all-features", "--prefix", "none"])
        .args(["--format", "{p}"])
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "cargo tree -p {package} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let reached = names(&String::from_utf8_lossy(&output.stdout));
    ensure!(reached.contains(&package), "cargo tree -p {package} printed no `{package}`");
    Ok(reached)
}

/// The first word of each line.
fn names(tree: &str) -> BTreeSet<String> {
    tree.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_tree(layer: &str, tree: &str, expected: &[&str]) {
        let layer = LAYERS.iter().find(|own| own.name == layer).unwrap();
        let found = judge(layer, &names(tree));
        let forbidden: Vec<_> = found.iter().map(|p| p.message.split('`').nth(3).unwrap()).collect();
        assert_eq!(forbidden, expected, "{}", layer.name);
    }

    #[test]
    fn arrows_point_down_only() {
        check_tree("routing", "pointsman-routing v0.1.0\nserde v1.0.0\n", &[]);
        check_tree("routing", "pointsman-routing v0.1.0\ntokio v1.0.0\nmio v1.0.0 (*)\n", &["mio", "tokio"]);
        check_tree(
            "routing",
            "pointsman-routing v0.1.0\npointsman-wire v0.1.0 (path)\n",
            &["pointsman-wire"],
        );
        check_tree("wire", "pointsman-wire v0.1.0\npointsman-settings v0.1.0\n", &["pointsman-settings"]);
        check_tree("settings", "pointsman-wire v0.1.0\npointsman-routing v0.1.0\n", &[]);
        check_tree("simulator", "pointsman-settings v0.1.0\npointsman v0.1.0\n", &["pointsman"]);
        check_tree("simulator", "tokio-util v0.7.0\n", &[]);
    }
}
