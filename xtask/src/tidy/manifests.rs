//! Every crate takes the workspace lints, has few features and uses its dependencies; the pure crates share one list
//! of bans.

use toml::{Table, Value};

use super::{File, Problem};

/// Cargo features of one crate, `default` not counted.
const FEATURES_MAX: usize = 4;
/// The crates without IO; their `clippy.toml` are the same, as clippy does not merge them with the root's.
const PURE: [&str; 4] = ["routing", "settings", "simulator", "wire"];

/// Checks every manifest and the bans.
pub(super) fn check(files: &[File]) -> Vec<Problem> {
    let manifests =
        files.iter().filter(|file| file.path.ends_with("/Cargo.toml") && !file.path.starts_with("fuzz/"));
    manifests
        .flat_map(|file| manifest(file).into_iter().chain(unused(file, files)))
        .chain(bans(files))
        .collect()
}

/// Dependencies that no source of the crate names.
fn unused(manifest: &File, files: &[File]) -> Vec<Problem> {
    let folder = manifest.path.trim_end_matches("Cargo.toml");
    let sources: Vec<&str> = files
        .iter()
        .filter(|file| file.path.starts_with(folder) && file.has_extension("rs"))
        .map(|file| file.text.as_str())
        .collect();
    // A manifest that is not TOML has its complaint already.
    let table: Table = manifest.text.parse().unwrap_or_default();
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|section| table.get(*section)?.as_table())
        .flat_map(Table::keys)
        .filter(|name| !sources.iter().any(|text| has_word(text, &name.replace('-', "_"))))
        .map(|name| {
            let line = manifest.text.lines().position(|line| line.starts_with(name.as_str())).unwrap_or(0);
            let message = format!("no source of this crate names the dependency `{name}`; take it out");
            Problem::new(&manifest.path, line + 1, message)
        })
        .collect()
}

fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word)
        .any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

fn manifest(file: &File) -> Vec<Problem> {
    let table: Table = match file.text.parse() {
        Ok(table) => table,
        Err(error) => {
            return vec![Problem::new(&file.path, 1, format!("not valid TOML: {}", error.message()))];
        }
    };
    let mut problems = Vec::new();
    let lints = table.get("lints").and_then(|lints| lints.get("workspace")).and_then(Value::as_bool);
    if lints != Some(true) {
        problems.push(Problem::new(&file.path, 1, "needs `[lints] workspace = true`"));
    }
    let features = table.get("features").and_then(Value::as_table);
    let count = features.map_or(0, |features| features.keys().filter(|name| *name != "default").count());
    if count > FEATURES_MAX {
        problems.push(Problem::new(&file.path, 1, format!("{count} cargo features, at most {FEATURES_MAX}")));
    }
    problems
}

fn bans(files: &[File]) -> Vec<Problem> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.as_str());
    let first = format!("crates/{}/clippy.toml", PURE[0]);
    let Some(expected) = text(&first) else {
        return vec![Problem::new(&first, 1, "missing: it bans clock, environment, files and sockets")];
    };
    PURE.iter()
        .map(|name| format!("crates/{name}/clippy.toml"))
        .filter(|path| text(path) != Some(expected))
        .map(|path| Problem::new(&path, 1, format!("must be the same as {first}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[track_caller]
    fn check_manifest(text: &str, expected: &[&str]) {
        let found: Vec<_> =
            manifest(&file("crates/a/Cargo.toml", text)).into_iter().map(|p| p.message).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn manifests_take_the_lints_and_few_features() {
        check_manifest("[lints]\nworkspace = true\n", &[]);
        check_manifest("[lints.rust]\nunsafe_code = \"allow\"\n", &["needs `[lints] workspace = true`"]);
        check_manifest(
            "[lints]\nworkspace = true\n[features]\ndefault = []\na = []\nb = []\nc = []\nd = []\n",
            &[],
        );
        check_manifest(
            "[lints]\nworkspace = true\n[features]\na = []\nb = []\nc = []\nd = []\ne = []\n",
            &["5 cargo features, at most 4"],
        );
    }

    #[test]
    fn dependencies_are_named_in_the_sources() {
        let manifest = file(
            "crates/a/Cargo.toml",
            "[dependencies]\nhttp.workspace = true\nhttp-body = \"1\"\n[dev-dependencies]\ntoml = \"1\"\n",
        );
        let check = |sources: &[(&str, &str)], expected: &[(usize, &str)]| {
            let files: Vec<File> = sources.iter().map(|(path, text)| file(path, text)).collect();
            let found = unused(&manifest, &files);
            let found: Vec<_> =
                found.iter().map(|p| (p.line, p.message.split('`').nth(1).unwrap())).collect();
            assert_eq!(found, expected, "{sources:?}");
        };
        let test = ("crates/a/tests/t.rs", "toml::from_str()");
        check(&[("crates/a/src/lib.rs", "use http::Uri;\nuse http_body::Body;\n"), test], &[]);
        check(&[("crates/a/src/lib.rs", "use http_body::Body;\n"), test], &[(2, "http")]);
        check(
            &[("crates/ab/src/lib.rs", "use http::Uri; http_body"), test],
            &[(2, "http"), (3, "http-body")],
        );
        check(
            &[("crates/a/README.md", "toml http http_body")],
            &[(2, "http"), (3, "http-body"), (5, "toml")],
        );
    }

    #[test]
    fn pure_crates_share_their_bans() {
        let same =
            |text: &str| PURE.iter().map(|name| file(&format!("crates/{name}/clippy.toml"), text)).collect();
        let mut files: Vec<File> = same("a = 1\n");
        assert_eq!(bans(&files), []);
        files[3].text = "a = 2\n".to_owned();
        assert_eq!(bans(&files).len(), 1);
        files.remove(0);
        assert_eq!(bans(&files).len(), 1, "the first is missing");
    }
}
