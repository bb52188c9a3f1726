//! Nothing of LiteLLM's is lost without a line: what is said twice, merged, or limited per deployment.

use super::*;

fn settings(text: &str) -> Imported {
    litellm(&format!(
        "model_list:\n  - {{ model_name: a, litellm_params: {{ model: groq/a }} }}\n  - {{ model_name: b, litellm_params: {{ model: groq/b }} }}\n  - {{ model_name: v, litellm_params: {{ model: groq/v }} }}\n{text}"
    ))
    .expect("it is read")
}

#[test]
fn what_is_said_twice_is_told_where_it_does_not_count() {
    let imported = settings(
        "litellm_settings:\n  num_retries: 5\n  request_timeout: 600\n  allowed_fails: 3\n  default_fallbacks: [a]\nrouter_settings:\n  num_retries: 2\n  request_timeout: 90\n  timeout: 60\n  allowed_fails: 3\n  default_fallbacks: [v]\n",
    );
    let config = checked(&imported);
    assert_eq!((config.models["a"].attempts_max, config.timeouts.total_ms), (Some(3), Some(60_000)));
    for (line, path, says) in [
        (6, "litellm_settings.num_retries", "`router_settings.num_retries` says another"),
        (7, "litellm_settings.request_timeout", "`router_settings.request_timeout` says another"),
        (9, "litellm_settings.default_fallbacks", "`router_settings.default_fallbacks` says others"),
        (12, "router_settings.request_timeout", "`router_settings.timeout` says another"),
    ] {
        noted(&imported, line, path, says);
    }
    assert_eq!(imported.notes.len(), 4, "{imported:#?}");
}

#[test]
fn fallbacks_of_one_model_are_joined() {
    let imported = settings("router_settings:\n  fallbacks:\n    - { a: [b] }\n    - { a: [v, b] }\n");
    let config = checked(&imported);
    let tiers: Vec<_> = config.models["a"]
        .deployments
        .iter()
        .map(|one| (one.model.clone().expect("a model"), one.tier))
        .collect();
    assert_eq!(tiers, [("a".to_owned(), 1), ("b".to_owned(), 2), ("v".to_owned(), 3)]);
    noted(&imported, 8, "router_settings.fallbacks.a", "joined");
}

#[test]
fn fallbacks_are_not_more_than_can_be_written_out() {
    let one = "  - { model_name: NAME, litellm_params: { model: groq/m } }\n";
    let many: String = (0..300).map(|n| one.replace("NAME", &format!("m{n}"))).collect();
    let big = one.replace("NAME", "big").repeat(300);
    let text = format!("model_list:\n{many}{big}router_settings: {{ default_fallbacks: [big] }}\n");
    assert!(litellm(&text).expect_err("90,000").contains("more than 50000 deployments"));
}

/// Limits are each deployment's there: the same key twice has a quota of its own each time.
#[test]
fn limits_of_deployments_with_one_key_stay_apart() {
    let entry = |model: &str, rest: &str| {
        format!(
            "  - {{ model_name: {model}, {rest}litellm_params: {{ model: openai/{model}, api_key: os.environ/K, rpm: 500 }} }}\n"
        )
    };
    let free = "  - { model_name: c, litellm_params: { model: openai/c, api_key: os.environ/K } }\n  - { model_name: d, litellm_params: { model: openai/d, api_key: os.environ/K } }\n";
    let text = format!("model_list:\n{}{}{free}", entry("a", ""), entry("b", "tpm: 9, "));
    let imported = litellm(&text).expect("it is read");
    let config = checked(&imported);
    let of = |model: &str| config.models[model].deployments[0].provider.clone();
    assert_eq!([of("a"), of("b"), of("c"), of("d")], ["openai", "openai-2", "openai-3", "openai-3"]);
    let limits = |name: &str| (config.providers[name].keys[0].rpm, config.providers[name].keys[0].tpm);
    assert_eq!(limits("openai"), (Some(500), None));
    assert_eq!(limits("openai-2"), (Some(500), Some(9)), "also beside its parameters");
    assert_eq!(limits("openai-3"), (None, None));
}

#[test]
fn merge_keys_are_carried_out() {
    let text = "x: &def\n  api_key: os.environ/KEY\n  seed: 7\n  timeout: 30\nmodel_list:\n  - model_name: m\n    litellm_params:\n      <<: *def\n      model: openai/gpt-4o\n      timeout: 60\n";
    let imported = litellm(text).expect("it is read");
    let config = checked(&imported);
    assert_eq!(config.models["m"].timeouts.total_ms, Some(60_000), "the own one counts");
    assert_eq!(config.providers["openai"].keys[0].key.as_ref().expect("a key").expose(), "value-of-KEY");
    noted(&imported, 1, "x", "no counterpart");
    noted(&imported, 8, "model_list[0].litellm_params.seed", "no counterpart");
    let ours = "x: &def { a: b }\nproviders: { <<: *def }\n";
    let sources = Sources { env: &|_| None, file: &|_| Err(String::new()) };
    assert!(crate::parse(ours, &sources).is_err(), "there are none in our own files");
}

#[test]
fn modes_become_capabilities() {
    for (mode, capability) in [
        ("rerank", "rerank"),
        ("audio_transcription", "transcriptions"),
        ("audio_speech", "speech"),
        ("image_generation", "images"),
        ("moderation", "moderations"),
        ("embedding", "embeddings"),
        ("completion", "completions"),
        ("responses", "responses"),
    ] {
        let text = format!(
            "model_list:\n  - model_name: m\n    litellm_params: {{ model: openai/m }}\n    model_info: {{ mode: {mode} }}\n"
        );
        let imported = litellm(&text).expect(mode);
        checked(&imported);
        assert!(imported.yaml.contains(&format!("\"capabilities\":[\"{capability}\"]")), "{}", imported.yaml);
        assert!(imported.notes.is_empty(), "{mode}: {imported:#?}");
    }
    let text = "model_list:\n  - model_name: m\n    litellm_params: { model: openai/m }\n    model_info: { mode: realtime }\n";
    noted(
        &litellm(text).expect("it is read"),
        4,
        "model_list[0].model_info.mode",
        "no capability like `realtime`",
    );
}

#[test]
fn aliases_may_be_maps() {
    let imported = settings(
        "router_settings:\n  model_group_alias:\n    old: { model: a, hidden: true }\n    new:\n      model: b\n      since: now\n    shown: { model: v, hidden: false }\n    none: { hidden: false }\n",
    );
    let config = checked(&imported);
    assert_eq!(
        (&config.models["a"].aliases[..], &config.models["b"].aliases[..]),
        (&["old".to_owned()][..], &["new".to_owned()][..])
    );
    noted(&imported, 7, "router_settings.model_group_alias.old.hidden", "every name is listed");
    noted(&imported, 10, "router_settings.model_group_alias.new.since", "no counterpart");
    noted(&imported, 12, "router_settings.model_group_alias.none", "no name");
    assert_eq!(imported.notes.len(), 3, "{imported:#?}");
}

#[test]
fn prefixes_of_litellm_are_known() {
    for (model, kind) in [
        ("cohere_chat/command-a", "cohere"),
        ("jina_ai/jina-embeddings-v3", "jina"),
        ("voyage/voyage-3.5", "voyage"),
        ("fireworks_ai/m", "fireworks"),
        ("together_ai/m", "together"),
        ("nvidia_nim/m", "nvidia_nim"),
        ("huggingface/m", "hugging_face"),
        ("github/m", "github_models"),
        ("dashscope/m", "qwen"),
        ("zai/m", "zhipu"),
        ("friendliai/m", "friendli"),
        ("ai21_chat/m", "ai21"),
        ("vertex_ai_beta/m", "vertex"),
        ("bedrock_converse/m", "bedrock"),
        ("gemini/m", "gemini"),
        ("claude-sonnet-4-5", "anthropic"),
        ("gpt-4o", "openai"),
    ] {
        let text = format!("model_list:\n  - model_name: m\n    litellm_params: {{ model: {model} }}\n");
        let imported = litellm(&text).expect(model);
        checked(&imported);
        assert!(imported.yaml.contains(&format!("\"kind\":\"{kind}\"")), "{model}: {imported:#?}");
    }
}

#[test]
fn a_master_key_is_never_copied_and_never_left_away() {
    for (key, wanted) in [
        ("sk-1234", "${POINTSMAN_KEY_MASTER}"),
        ("1234", "${POINTSMAN_KEY_MASTER}"),
        ("'os.environ/MASTER KEY'", "${POINTSMAN_KEY_MASTER}"),
        ("os.environ/MASTER_KEY", "${MASTER_KEY}"),
    ] {
        let imported = settings(&format!("general_settings:\n  master_key: {key}\n"));
        assert_eq!(checked(&imported).auth.keys.len(), 1, "{key}");
        assert!(
            imported.yaml.contains(&format!("\"key\":\"{wanted}\"")) && !imported.yaml.contains("1234"),
            "{}",
            imported.yaml
        );
        let told =
            imported.notes.iter().any(|note| note.line == 6 && note.text.contains("POINTSMAN_KEY_MASTER"));
        assert_eq!(told, !key.starts_with("os.environ"), "{key}: {imported:#?}");
    }
}

#[test]
fn a_variable_that_cannot_be_one_is_told() {
    let text = "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/gpt-4o\n      api_key: \"os.environ/OPENAI_API_KEY \"\n";
    let imported = litellm(text).expect("it is read");
    checked(&imported);
    noted(&imported, 5, "model_list[0].litellm_params.api_key", "not understood");
    assert!(imported.yaml.contains("[\"${OPENAI_API_KEY}\"]"), "{}", imported.yaml);
    let text = "model_list:\n  - { model_name: m, litellm_params: { model: os.environ/MODEL } }\n";
    noted(&litellm(text).expect("it is read"), 2, "model_list[0].litellm_params.model", "in the variable");
}

/// One bad deployment among many is found by halves, and all others stay.
#[test]
fn one_that_check_refuses_does_not_cost_the_others() {
    let good =
        |n: usize| format!("  - {{ model_name: m{}, litellm_params: {{ model: groq/m{n} }} }}\n", n % 10);
    let many: String = (0..400).map(good).collect();
    let text = format!(
        "model_list:\n{many}  - {{ model_name: bad, litellm_params: {{ model: openai/x, api_base: nowhere }} }}\n"
    );
    let imported = litellm(&text).expect("it is read");
    let config = checked(&imported);
    assert_eq!(config.models.values().map(|model| model.deployments.len()).sum::<usize>(), 400);
    noted(&imported, 402, "model_list[400]", "http://");
    assert_eq!(imported.notes.len(), 1);
}

#[test]
fn tags_and_headers_are_taken_over() {
    let text = "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/gpt-4o\n      organization: os.environ/ORG\n      tags: [paid, eu]\n      extra_headers:\n        X-Team: blue\n        x-count: 3\n";
    let imported = litellm(text).expect("it is read");
    let config = checked(&imported);
    assert_eq!(config.models["m"].deployments[0].tags, ["paid", "eu"]);
    let headers = &config.providers["openai"].headers;
    let of = |name: &str| headers.get(name).map(crate::Secret::expose);
    assert_eq!((of("openai-organization"), of("x-team")), (Some("value-of-ORG"), Some("blue")));
    noted(&imported, 9, "model_list[0].litellm_params.extra_headers.x-count", "not understood");
    assert_eq!(imported.notes.len(), 1, "{imported:#?}");
}
