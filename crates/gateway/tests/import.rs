//! `pointsman import`, as people run it: the config on standard output, the rest on standard error, `check` content.

use std::path::Path;
use std::process::{Command, Output};

fn pointsman(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args(args).env("OPENAI_API_KEY", "sk-of-the-environment").output().expect("it runs")
}

/// What is told, after the import of `text` and the check of what came of it.
#[track_caller]
fn import(from: &str, name: &str, text: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(name);
    std::fs::write(&file, text).expect("written");
    let imported = pointsman(&["import", from, path(&file)]);
    let told = String::from_utf8_lossy(&imported.stderr).into_owned();
    assert!(imported.status.success(), "{told}");
    let config = folder.path().join("pointsman.yaml");
    std::fs::write(&config, &imported.stdout).expect("written");
    let checked = pointsman(&["check", path(&config)]);
    assert!(checked.status.success(), "{}\n{}", text_of(&checked.stderr), text_of(&imported.stdout));
    assert!(text_of(&checked.stdout).contains("fine: 1 models, 1 deployments, 1 providers"));
    told.replace(path(&file), name)
}

fn path(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn what_is_imported_passes_check_and_what_is_not_is_told_with_its_line() {
    let litellm =
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/gpt-4o\n      seed: 7\n";
    let told = import("litellm", "config.yaml", litellm);
    assert_eq!(
        told,
        "config.yaml:5: model_list[0].litellm_params.seed: not imported: it has no counterpart\n"
    );
    let neurolink = "export default {\n  providers: [{ name: 'openai', config: { model: 'gpt-4o' } }],\n  tools: load(),\n};\n";
    let told = import("neurolink", "neurolink.config.ts", neurolink);
    assert_eq!(told, "neurolink.config.ts:3: tools: not imported: it has no counterpart\n");
}

#[test]
fn what_cannot_be_read_is_bad_usage() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("x.yaml");
    std::fs::write(&file, "providers: {}\n").expect("written");
    for args in [["import", "litellm", path(&file)], ["import", "neurolink", "/nowhere.ts"]] {
        let done = pointsman(&args);
        assert_eq!(done.status.code(), Some(2), "{args:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}");
    }
}
