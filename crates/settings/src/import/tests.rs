use super::*;
use crate::{Config, Sources};

/// What `check` says of what was imported, with every variable set.
#[track_caller]
fn checked(imported: &Imported) -> Config {
    let sources =
        Sources { env: &|name| Some(format!("value-of-{name}")), file: &|_| Err("no files".to_owned()) };
    crate::parse(&imported.yaml, &sources).unwrap_or_else(|found| panic!("{found:#?}\n{}", imported.yaml))
}

#[track_caller]
fn noted(imported: &Imported, line: u64, path: &str, says: &str) {
    let found =
        imported.notes.iter().any(|note| note.line == line && note.path == path && note.text.contains(says));
    assert!(found, "{line} {path} {says}: {:#?}", imported.notes);
}

const LITELLM: &str = r#"model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o-2024-08-06
      api_key: os.environ/OPENAI_API_KEY
      rpm: 500
      tpm: 30000
      timeout: 30
      weight: 3
  - model_name: gpt-4o
    litellm_params:
      model: together_ai/openai/gpt-oss-120b
      order: 2
      input_cost_per_token: 0.00000015
      output_cost_per_token: 0.0000006
      temperature: 0.2
    model_info:
      id: cheap
      max_input_tokens: 128000
      team_id: blue
  - model_name: llama
    litellm_params:
      model: hosted_vllm/meta-llama/Llama-3.1-8B-Instruct
      api_base: http://10.0.0.5:8000/v1
      max_parallel_requests: 16
  - model_name: llama
    litellm_params:
      model: openai/llama-3.1-8b
      api_base: https://llm.example.com/v1
      api_key: sk-in-the-file
  - model_name: odd
    litellm_params:
      model: sagemaker/my-endpoint
  - model_name: embed
    litellm_params: { model: text-embedding-3-small }
    model_info: { mode: embedding }
  - model_name: "*"
    litellm_params: { model: "openai/*" }
router_settings:
  routing_strategy: latency-based-routing
  num_retries: 2
  timeout: 45.5
  allowed_fails: 3
  cooldown_time: 30
  fallbacks: [{ gpt-4o: [llama, gone] }]
  model_group_alias: { "gpt-4": gpt-4o }
  redis_host: os.environ/REDIS_HOST
litellm_settings:
  drop_params: true
general_settings:
  master_key: os.environ/LITELLM_MASTER_KEY
  database_url: postgres://x
"#;

#[test]
fn a_config_of_litellm_passes_check_and_means_the_same() {
    let imported = litellm(LITELLM).expect("it is read");
    let config = checked(&imported);
    let gpt = &config.models["gpt-4o"];
    let of = |deployment: &crate::models::DeploymentConfig| {
        (
            deployment.provider.clone(),
            deployment.model.clone().unwrap_or_default(),
            deployment.tier,
            deployment.weight,
        )
    };
    let text = |text: &str| text.to_owned();
    assert_eq!(
        gpt.deployments.iter().map(of).collect::<Vec<_>>(),
        [
            (text("openai"), text("gpt-4o-2024-08-06"), 1, 3),
            (text("together"), text("openai/gpt-oss-120b"), 2, 1),
            (text("vllm"), text("meta-llama/Llama-3.1-8B-Instruct"), 3, 1),
            (text("openai_compatible"), text("llama-3.1-8b"), 3, 1),
        ]
    );
    assert_eq!(gpt.aliases, ["gpt-4"]);
    assert_eq!(gpt.attempts_max, Some(3));
    assert_eq!(gpt.timeouts.total_ms, Some(30_000));
    assert_eq!(gpt.deployments[1].price.map(|price| (price.input, price.output)), Some((0.15, 0.6)));
    assert_eq!(
        (gpt.deployments[1].name.as_deref(), gpt.deployments[1].context_tokens_max),
        (Some("cheap"), Some(128_000))
    );
    let key = &config.providers["openai"].keys[0];
    assert_eq!((key.key.expose(), key.rpm, key.tpm), ("value-of-OPENAI_API_KEY", Some(500), Some(30_000)));
    assert_eq!(
        config.providers["together"].keys[0].key.expose(),
        "value-of-TOGETHER_API_KEY",
        "as LiteLLM finds it"
    );
    assert_eq!(config.models["llama"].deployments[0].slots, Some(16));
    assert_eq!(config.models["embed"].deployments[0].model.as_deref(), Some("text-embedding-3-small"));
    assert_eq!(
        (config.timeouts.total_ms, config.breaker.failures, config.breaker.open_ms_min),
        (Some(45_500), Some(4), Some(30_000))
    );
    assert_eq!(
        config.auth.keys[0].key.as_ref().map(crate::Secret::expose),
        Some("value-of-LITELLM_MASTER_KEY")
    );
    assert!(!config.models.contains_key("odd"));
}

#[test]
fn every_field_of_litellm_without_a_place_is_told_with_its_line() {
    let imported = litellm(LITELLM).expect("it is read");
    for (line, path, says) in [
        (16, "model_list[1].litellm_params.temperature", "no counterpart"),
        (20, "model_list[1].model_info.team_id", "no counterpart"),
        (28, "model_list[3].litellm_params.api_key", "stands in the file"),
        (33, "model_list[4].litellm_params.model", "no vendor `sagemaker`"),
        (37, "model_list[6]", "list the models one by one"),
        (45, "fallbacks.gpt-4o", "no model `gone`"),
        (47, "router_settings.redis_host", "no counterpart"),
        (49, "litellm_settings.drop_params", "no counterpart"),
        (52, "general_settings.database_url", "no counterpart"),
    ] {
        let near = imported.notes.iter().any(|note| note.path == path && note.text.contains(says));
        assert!(near, "{path}: {:#?}", imported.notes);
        let lines: Vec<u64> =
            imported.notes.iter().filter(|note| note.path == path).map(|note| note.line).collect();
        assert!(lines.iter().any(|at| at.abs_diff(line) <= 2), "{path} {line} {lines:?}");
    }
    noted(&imported, 16, "model_list[1].litellm_params.temperature", "not imported");
    assert!(litellm("providers: {}\n").expect_err("another file").contains("model_list"));
    assert!(litellm("model_list: [").is_err());
}

const NEUROLINK: &str = r#"import { NeuroLink } from "@juspay/neurolink";

// Two keys of one vendor, another behind them.
const ai = new NeuroLink({
  providers: [
    { name: "openai-key-1", priority: 1, weight: 3,
      config: { apiKey: process.env.OPENAI_KEY_1!, model: 'gpt-4o' } },
    { name: "openai-key-2", priority: 1, config: { apiKey: process.env["OPENAI_KEY_2"], model: "gpt-4o" } },
    {
      name: "mistral",
      priority: 2,
      config: { apiKey: process.env.MISTRAL_API_KEY ?? "none", model: `mistral-small-latest`, temperature: 0.1 },
      condition: (req) => req.metadata?.userRegion === "EU, or so",
      onError(error) { log("}", error); },
    },
    { name: "local", config: { baseURL: "http://localhost:8000/v1", model: "llama" } as const },
    { name: "sagemaker", config: { region: "us-east-1" } },
  ],
  loadBalancing: { strategy: "weighted-round-robin", weights: { "openai-key-2": 2, nobody: 1 }, sticky: true },
  failoverConfig: { enabled: true, maxRetries: 3 }, /* and so on */
});
"#;

#[test]
fn an_object_of_neurolink_passes_check_and_means_the_same() {
    let imported = neurolink(NEUROLINK).expect("it is read");
    let config = checked(&imported);
    let model = &config.models["default"];
    let of = |one: &crate::models::DeploymentConfig| (one.provider.clone(), one.tier, one.weight);
    let text = |text: &str| text.to_owned();
    assert_eq!(
        model.deployments.iter().map(of).collect::<Vec<_>>(),
        [
            (text("openai-key-1"), 1, 3),
            (text("openai-key-2"), 1, 2),
            (text("mistral"), 2, 1),
            (text("local"), 1, 1),
        ]
    );
    let key = |name: &str| config.providers[name].keys[0].key.expose().to_owned();
    assert_eq!(
        (key("openai-key-1"), key("openai-key-2")),
        (text("value-of-OPENAI_KEY_1"), text("value-of-OPENAI_KEY_2"))
    );
    assert!(imported.yaml.contains("${MISTRAL_API_KEY:-none}"), "{}", imported.yaml);
    assert_eq!(config.providers["local"].kind, "openai_compatible");
    assert!(imported.yaml.contains("\"strategy\": \"weighted_round_robin\""), "{}", imported.yaml);
    for (line, path, says) in [
        (12, "providers[2].config.temperature", "no counterpart"),
        (13, "providers[2].condition", "no counterpart"),
        (14, "providers[2].onError", "no counterpart"),
        (17, "providers[4]", "no vendor `sagemaker`"),
        (19, "loadBalancing.weights.nobody", "of no provider"),
        (19, "loadBalancing.sticky", "no counterpart"),
        (20, "failoverConfig", "no counterpart"),
    ] {
        noted(&imported, line, path, says);
    }
}

#[test]
fn json_and_providers_by_name_are_read_as_well() {
    let text = r#"{"providers": {"groq": {"priority": 0, "model": "m"}, "openai": {"priority": 1, "model": "n"}}, "loadBalancing": "round-robin"}"#;
    let imported = neurolink(text).expect("it is read");
    let config = checked(&imported);
    let tiers: Vec<u32> = config.models["default"].deployments.iter().map(|one| one.tier).collect();
    assert_eq!((tiers, imported.notes.len()), (vec![1, 2], 0), "{imported:#?}");
    for (text, says) in
        [("const a = 1;", "no object with `providers`"), ("{ providers: [", "line 1"), ("", "no object")]
    {
        assert!(neurolink(text).expect_err(text).contains(says), "{text}");
    }
}

#[test]
fn texts_stand_for_themselves() {
    let imported = litellm(
        "model_list:\n  - model_name: m\n    litellm_params: { model: 'openai/a${b}', api_base: 'http://localhost:1' }\n",
    );
    let config = checked(&imported.expect("it is read"));
    assert_eq!(config.models["m"].deployments[0].model.as_deref(), Some("a${b}"));
}
