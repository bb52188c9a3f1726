//! Whole files as people have them: every field that is not taken over is told with its line.

use super::*;

pub(super) const LITELLM_FILE: &str = include_str!("../../../tests/import/litellm.yaml");
pub(super) const NEUROLINK_FILE: &str = include_str!("../../../tests/import/neurolink.ts");

/// Everything that is told of LiteLLM's file: the line, the field, and a part of what is said.
const LITELLM_NOTES: &[(u64, &str, &str)] = &[
    (2, "x-shared", "no counterpart"),
    (15, "model_list[0].litellm_params.max_retries", "no counterpart"),
    (24, "model_list[0].model_info.base_model", "no counterpart"),
    (26, "model_list[1]", "longest holds"),
    (28, "model_list[1].litellm_params.max_retries", "no counterpart"),
    (41, "model_list[2].litellm_params.api_key", "not understood"),
    (46, "model_list[3].litellm_params.aws_role_name", "no counterpart"),
    (50, "model_list[3].model_info.supports_vision", "no counterpart"),
    (70, "model_list[6].litellm_params.vertex_credentials", "path of the key file"),
    (71, "model_list[6].litellm_params.safety_settings", "no counterpart"),
    (75, "model_list[7].litellm_params.model", "only Google's and Anthropic's"),
    (76, "model_list[7].litellm_params.vertex_project", "as what it belongs to"),
    (77, "model_list[7].litellm_params.timeout", "as what it belongs to"),
    (90, "model_list[9].litellm_params.merge_reasoning_content_in_choices", "no counterpart"),
    (93, "model_list[10].litellm_params.model", "`base_url` is port 11434"),
    (94, "model_list[10].litellm_params.keep_alive", "no counterpart"),
    (106, "model_list[13].model_info.output_vector_size", "no counterpart"),
    (121, "model_list[18].model_info.mode", "no capability like `realtime`"),
    (124, "model_list[19].litellm_params.model", "no vendor `sagemaker`"),
    (125, "model_list[19].litellm_params.aws_region_name", "as what it belongs to"),
    (126, "model_list[19].litellm_params.temperature", "as what it belongs to"),
    (127, "model_list[20]", "list the models one by one"),
    (129, "model_list[20].litellm_params.model", "as what it belongs to"),
    (130, "model_list[20].litellm_params.api_key", "as what it belongs to"),
    (133, "litellm_settings.drop_params", "no counterpart"),
    (134, "litellm_settings.num_retries", "says another"),
    (135, "litellm_settings.request_timeout", "says another"),
    (136, "litellm_settings.fallbacks.gpt-4o", "joined"),
    (137, "litellm_settings.callbacks", "no counterpart"),
    (138, "litellm_settings.cache", "no counterpart"),
    (139, "litellm_settings.cache_params", "no counterpart"),
    (150, "router_settings.model_group_alias.gpt-4-old.hidden", "every name is listed"),
    (151, "router_settings.enable_pre_call_checks", "no counterpart"),
    (154, "general_settings.master_key", "POINTSMAN_KEY_MASTER"),
    (155, "general_settings.database_url", "no counterpart"),
    (156, "general_settings.alerting", "no counterpart"),
    (158, "environment_variables", "no counterpart"),
];

/// Everything that is told of NeuroLink's file.
const NEUROLINK_NOTES: &[(u64, &str, &str)] = &[
    (33, "...defaults", "not understood"),
    (42, "providers[0].config.maxTokens", "no counterpart"),
    (45, "providers[1]", "it names no model"),
    (50, "providers[1].config.model", "not understood"),
    (51, "providers[1].config.organization", "no counterpart"),
    (73, "providers[3].config.credentials.expiration", "no counterpart"),
    (77, "providers[3].condition", "no counterpart"),
    (92, "providers[5].config.apiKey", "not understood"),
    (98, "providers[6].healthCheck", "no counterpart"),
    (102, "providers[7]", "no vendor `sagemaker`"),
    (102, "providers[7].config.region", "as what it belongs to"),
    (102, "providers[7].priority", "as what it belongs to"),
    (103, "providers[8]", "not understood"),
    (107, "loadBalancing.weights.nobody", "or of no provider"),
    (108, "loadBalancing.stickyBy", "no counterpart"),
    (110, "failoverConfig", "no counterpart"),
    (111, "onError", "no counterpart"),
];

#[track_caller]
fn told(imported: &Imported, wanted: &[(u64, &str, &str)]) {
    let found: Vec<_> = imported.notes.iter().map(|note| (note.line, note.path.as_str())).collect();
    let places: Vec<_> = wanted.iter().map(|(line, path, _)| (*line, *path)).collect();
    assert_eq!(found, places);
    for (note, (line, path, says)) in imported.notes.iter().zip(wanted) {
        assert!(note.text.contains(says), "{line} {path} {says}: {note:#?}");
    }
}

/// Whether the field itself stands in the line that is told, but for those that are merged into it.
#[track_caller]
fn stands_there(text: &str, imported: &Imported) {
    let lines: Vec<&str> = text.lines().collect();
    for note in &imported.notes {
        let line = lines[usize::try_from(note.line).expect("a line") - 1];
        let field = note.path.rsplit('.').next().unwrap_or_default();
        let is_there = field.ends_with(']') || line.contains(field) || line.contains("<<: *");
        assert!(is_there, "{line}: {note:#?}");
    }
}

#[test]
fn a_whole_file_of_litellm_is_told_line_by_line() {
    let imported = litellm(LITELLM_FILE).expect("it is read");
    let config = checked(&imported);
    assert_eq!((config.models.len(), config.providers.len()), (12, 14), "{}", imported.yaml);
    told(&imported, LITELLM_NOTES);
    stands_there(LITELLM_FILE, &imported);
    assert!(!imported.yaml.contains("sk-1234"));
    let kinds: Vec<&str> = config.models["gpt-4o"]
        .deployments
        .iter()
        .map(|one| config.providers[&one.provider].kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        ["azure", "azure", "openai", "bedrock", "vertex_anthropic", "anthropic", "vllm", "groq"],
        "its own and then both fallbacks"
    );
}

#[test]
fn a_whole_file_of_neurolink_is_told_line_by_line() {
    let imported = neurolink(NEUROLINK_FILE).expect("it is read");
    let config = checked(&imported);
    told(&imported, NEUROLINK_NOTES);
    stands_there(NEUROLINK_FILE, &imported);
    let model = &config.models["default"];
    let tiers: Vec<_> =
        model.deployments.iter().map(|one| (one.provider.as_str(), one.tier, one.weight)).collect();
    assert_eq!(
        tiers,
        [
            ("openai-key-1", 1, 2),
            ("openai-key-2", 1, 1),
            ("azure", 1, 1),
            ("bedrock", 2, 1),
            ("vertex-eu", 2, 1),
            ("groq", 3, 1),
            ("local", 4, 1),
        ]
    );
    assert_eq!(model.deployments[5].model.as_deref(), Some("llama-3.3-70b-versatile"));
    assert!(imported.yaml.contains("https://${AZURE_RESOURCE:-acme}.openai.azure.com"), "{}", imported.yaml);
    assert!(imported.yaml.contains("http://${HOST}:${PORT}/v1"), "{}", imported.yaml);
}
