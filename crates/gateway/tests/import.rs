//! `pointsman import`, as people run it: the config on standard output, the rest on standard error, `check` content.

use std::path::Path;
use std::process::{Command, Output};

fn pointsman(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    for name in [
        "ANTHROPIC_API_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AZURE_API_KEY_EU",
        "AZURE_OPENAI_API_KEY",
        "COHERE_API_KEY",
        "GOOGLE_VERTEX_PROJECT_ID",
        "GROQ_API_KEY",
        "JINA_API_KEY",
        "OPENAI_API_KEY",
        "OPENAI_KEY_1",
        "OPENAI_KEY_2",
        "OPENAI_ORG",
        "POINTSMAN_KEY_MASTER",
        "VERTEX_PROJECT",
        "VOYAGE_API_KEY",
    ] {
        command.env(name, "of-the-environment");
    }
    command.env("VERTEX_LOCATION", "europe-west1").env("VLLM_URL", "http://10.0.0.5:8000");
    command.env("HOST", "localhost").env("PORT", "8000");
    // Two have something to stand in for them.
    command.env_remove("AZURE_RESOURCE").env_remove("GOOGLE_VERTEX_LOCATION");
    command.env("VERTEX_CREDENTIALS", ACCOUNT).env("GOOGLE_APPLICATION_CREDENTIALS", ACCOUNT);
    command.args(args).output().expect("it runs")
}

/// A key file of Google's.
const ACCOUNT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/service_account.json");

/// What is told, after the import of `text` and the check of what came of it.
#[track_caller]
fn import(from: &str, name: &str, text: &str, fine: &str) -> String {
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
    assert!(text_of(&checked.stdout).contains(fine), "{}", text_of(&checked.stdout));
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
    let told = import("litellm", "config.yaml", litellm, "fine: 1 models, 1 deployments, 1 providers");
    assert_eq!(
        told,
        "config.yaml:5: model_list[0].litellm_params.seed: not imported: it has no counterpart\n"
    );
    let neurolink = "export default {\n  providers: [{ name: 'openai', config: { model: 'gpt-4o' } }],\n  tools: load(),\n};\n";
    let told =
        import("neurolink", "neurolink.config.ts", neurolink, "fine: 1 models, 1 deployments, 1 providers");
    assert_eq!(told, "neurolink.config.ts:3: tools: not imported: it has no counterpart\n");
}

/// Whole files as people have them. The lines that are told stand in the tests of `pointsman-settings`, beside the files.
#[test]
fn whole_files_pass_check() {
    let litellm =
        include_str!("../../settings/tests/import/litellm.yaml").replace("/etc/acme/vertex.json", ACCOUNT);
    let told = import("litellm", "config.yaml", &litellm, "fine: 12 models, 23 deployments, 14 providers");
    assert!(
        told.contains("config.yaml:71: model_list[6].litellm_params.safety_settings: not imported"),
        "{told}"
    );
    let neurolink = include_str!("../../settings/tests/import/neurolink.ts");
    let told = import("neurolink", "ai.ts", neurolink, "fine: 1 models, 7 deployments, 7 providers");
    assert!(told.contains("ai.ts:77: providers[3].condition: not imported"), "{told}");
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
