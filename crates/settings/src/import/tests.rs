mod clouds;
mod expressions;
mod fixtures;
mod lost;

use super::*;
use crate::{Config, Sources};

/// A key file as Google gives it.
const ACCOUNT: &str = r#"{"type": "service_account", "client_email": "a@example.com",
    "private_key": "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----"}"#;

/// What `check` says of what was imported, with every variable set.
#[track_caller]
fn checked(imported: &Imported) -> Config {
    let env = |name: &str| {
        Some(match name {
            "AWS_REGION" => "us-east-1".to_owned(),
            "HOST" => "localhost".to_owned(),
            "PORT" => "8000".to_owned(),
            _ if name.ends_with("_LOCATION") => "europe-west1".to_owned(),
            _ if name.ends_with("_URL") => "http://10.0.0.5:8000".to_owned(),
            _ if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
                format!("value-of-{name}")
            }
            _ => return None,
        })
    };
    let file = |path: &str| {
        let is_known = path == "/etc/acme/vertex.json" || path.starts_with("value-of-");
        if is_known { Ok(ACCOUNT.to_owned()) } else { Err("no such file".to_owned()) }
    };
    let sources = Sources { env: &env, file: &file };
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
    assert_eq!(
        (key.key.as_ref().expect("a key").expose(), key.rpm, key.tpm),
        ("value-of-OPENAI_API_KEY", Some(500), Some(30_000))
    );
    assert_eq!(
        config.providers["together"].keys[0].key.as_ref().expect("a key").expose(),
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
        (45, "router_settings.fallbacks.gpt-4o", "no model `gone`"),
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

/// A file with one deployment, some of whose parameters and settings are these.
fn one(params: &str, rest: &str) -> String {
    format!(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: openai/gpt-4o\n{params}{rest}\
         \n  - model_name: good\n    litellm_params: {{ model: groq/llama }}\n"
    )
}

/// Values that no configuration may have: each is told with its line, and the rest passes `check`.
#[test]
fn what_check_would_refuse_is_left_out_and_told() {
    for (line, param, path, says) in [
        (5, "weight: 99999", "model_list[0]", "weight"),
        (5, "weight: -1", "model_list[0].litellm_params.weight", "not understood"),
        (5, "rpm: 0", "model_list[0].litellm_params.rpm", "no limit"),
        (5, "max_parallel_requests: 9999999", "model_list[0]", "slots"),
        (
            5,
            "max_parallel_requests: 0",
            "model_list[0].litellm_params.max_parallel_requests",
            "not understood",
        ),
        (5, "order: 99999999999", "model_list[0]", "tier"),
        (5, "api_base: not-a-url", "model_list[0]", "http://"),
        (5, "api_base: 'file:/etc/passwd'", "model_list[0]", "reads no other file"),
        (5, "api_base: 'https://user:secret@host.example'", "model_list[0]", "must not carry"),
        (5, "api_base: 'http://2130706433:8000'", "model_list[0]", "unusual spelling"),
        (5, "api_key: 'has spaces'", "model_list[0]", "cannot stand in a header"),
        (5, "api_key: [a]", "model_list[0].litellm_params.api_key", "not understood"),
        (5, "timeout: soon", "model_list[0].litellm_params.timeout", "not understood"),
        (
            5,
            "input_cost_per_token: -1",
            "model_list[0].litellm_params.input_cost_per_token",
            "not understood",
        ),
        (
            5,
            "input_cost_per_token: 0.000001",
            "model_list[0].litellm_params.input_cost_per_token",
            "what input and output cost",
        ),
        (5, "model_info: { a: b }", "model_list[0].litellm_params.model_info", "no counterpart"),
    ] {
        let text = one(&format!("      {param}\n"), "");
        let imported = litellm(&text).expect(param);
        let config = checked(&imported);
        assert!(config.models.contains_key("good"), "{param}");
        let found: Vec<_> = imported.notes.iter().filter(|note| note.path.starts_with(path)).collect();
        let told = found.iter().any(|note| note.text.contains(says) && note.line.abs_diff(line) <= 3);
        assert!(told, "{param}: {:#?}", imported.notes);
    }
}

#[test]
fn settings_that_have_no_sense_are_told_and_the_rest_passes_check() {
    for (text, path, says) in [
        ("model_info: [1]\n", "model_list[0].model_info", "has no fields"),
        ("model_info: { id: '' }\n", "model_list[0]", "name"),
    ] {
        let imported = litellm(&one("", &format!("    {text}"))).expect(text);
        checked(&imported);
        assert!(
            imported.notes.iter().any(|note| note.path == path && note.text.contains(says)),
            "{imported:#?}"
        );
    }
    let base = one("", "");
    for (text, path, says) in [
        ("litellm_settings: { num_retries: 99 }", "litellm_settings.num_retries", "not understood"),
        ("router_settings: { allowed_fails: 4294967295 }", "router_settings.allowed_fails", "breaker"),
        ("router_settings: { cooldown_time: never }", "router_settings.cooldown_time", "not understood"),
        (
            "router_settings: { routing_strategy: cost-based-routing }",
            "router_settings.routing_strategy",
            "no strategy",
        ),
        ("router_settings: { fallbacks: good }", "router_settings.fallbacks", "not understood"),
        ("router_settings: { fallbacks: [{ m: good }] }", "router_settings.fallbacks.m", "not understood"),
        ("router_settings: { fallbacks: [m] }", "router_settings.fallbacks", "not understood"),
        (
            "router_settings: { default_fallbacks: [gone] }",
            "router_settings.default_fallbacks",
            "no model `gone`",
        ),
        (
            "router_settings: { context_window_fallbacks: [{ m: [good] }] }",
            "router_settings.context_window_fallbacks",
            "no counterpart",
        ),
        (
            "router_settings: { model_group_alias: { 'a@b': m } }",
            "router_settings.model_group_alias.a@b",
            "no name",
        ),
        (
            "router_settings: { model_group_alias: { good: m } }",
            "router_settings.model_group_alias.good",
            "is one already",
        ),
        (
            "router_settings: { model_group_alias: [m] }",
            "router_settings.model_group_alias",
            "not understood",
        ),
        ("router_settings: [1]", "router_settings", "has no fields"),
        ("general_settings: { master_key: short }", "general_settings.master_key", "not copied"),
        ("general_settings: { master_key: sk-long-enough-key }", "general_settings.master_key", "not copied"),
        ("callbacks: [x]", "callbacks", "no counterpart"),
    ] {
        let imported = litellm(&format!("{base}{text}\n")).expect(text);
        let config = checked(&imported);
        assert_eq!(config.models.len(), 2, "{text}");
        let last = base.lines().count() as u64 + 1;
        let told = |note: &&Note| note.path == path && note.text.contains(says) && note.line == last;
        assert!(imported.notes.iter().find(told).is_some(), "{text}: {:#?}", imported.notes);
    }
}

#[test]
fn a_list_of_models_without_models_is_told() {
    for (text, says) in [
        ("model_list: {}\n", "no list, or empty"),
        ("model_list: 7\n", "no list, or empty"),
        ("model_list: [{ model_name: m, litellm_params: { rpm: 1 } }]\n", ""),
    ] {
        match litellm(text) {
            Err(error) => assert!(error.contains(says) && !says.is_empty(), "{text}: {error}"),
            Ok(imported) => noted(&imported, 1, "model_list[0].litellm_params.model", "says no model"),
        }
    }
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
    let key = |name: &str| config.providers[name].keys[0].key.as_ref().expect("a key").expose().to_owned();
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
fn what_only_the_program_knows_of_neurolink_is_told() {
    let of = |rest: &str| {
        format!("{{ providers: [{{ name: 'groq', model: 'm' }}, {{ name: 'openai', model: 'n'{rest}")
    };
    for (rest, path, says) in [
        (", enabled: flag() }] }", "providers[1].enabled", "not understood"),
        (", weight: 99999 }] }", "providers[1]", "weight"),
        (", config: 7 }] }", "providers[1].config", "has no fields"),
        (", config: { baseURL: 'x' } }] }", "providers[1]", "http://"),
        (" }], loadBalancing: pick() }", "loadBalancing", "has no fields"),
        (" }], loadBalancing: { strategy: 3 } }", "loadBalancing.strategy", "not understood"),
        (" }], loadBalancing: 'by-mood' }", "loadBalancing", "no strategy"),
        (" }], loadBalancing: { weights: 3 } }", "loadBalancing.weights", "not understood"),
    ] {
        let imported = neurolink(&of(rest)).expect(rest);
        checked(&imported);
        let told =
            imported.notes.iter().any(|note| note.path == path && note.text.contains(says) && note.line == 1);
        assert!(told, "{rest}: {:#?}", imported.notes);
    }
    assert!(neurolink("{ providers: 7 }").expect_err("no providers").contains("neither a list"));
}

#[test]
fn strings_are_read_with_their_escapes() {
    let text = r#"{"providers": [{"name": "groq", "model": "a\u0062\ud83d\ude00\u{1f600}\/\"c"}]}"#;
    let config = checked(&neurolink(text).expect("it is read"));
    assert_eq!(config.models["default"].deployments[0].model.as_deref(), Some("ab\u{1f600}\u{1f600}/\"c"));
    for bad in [r"\ud83d", r"\u00", r"\u{110000}", r"\u{+41}", r"\x4", r"\101", r"\8"] {
        let text = format!("{{ providers: [{{ name: 'groq', model: '{bad}' }}] }}");
        let imported = neurolink(&text).expect("it is read");
        noted(&imported, 1, "providers[0].model", "not understood");
        let alone = neurolink(&format!("{{ providers: '{bad}' }}")).expect_err(bad);
        assert!(alone.contains("line 1: `providers` cannot be read: line 1: an "), "{bad}: {alone}");
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
