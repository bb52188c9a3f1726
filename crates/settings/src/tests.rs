//! What people get wrong in a configuration, and what they are told.

use std::fmt::Write;

use pointsman_routing::limiter::{LimiterKind, LimiterSpec};

use super::*;

mod batches;
mod clouds;
mod egress;
mod lanes;
mod schema;
mod structured;
mod tensors;

fn read(text: &str) -> Result<Config, Vec<Diagnostic>> {
    let env = |name: &str| match name {
        "KEY" => Some("sk-hunter2-hunter2".to_owned()),
        "NUMBER" => Some("7".to_owned()),
        "EMPTY" => Some(String::new()),
        "SHORT" => Some("h2".to_owned()),
        "NESTED" => Some("${KEY}".to_owned()),
        _ => None,
    };
    let file = |path: &str| {
        if path == "/ok" { Ok("from-a-file\n".to_owned()) } else { Err("no such file".to_owned()) }
    };
    parse(text, &Sources { env: &env, file: &file })
}

const GOOD: &str = "\
providers:
  gpu-a: { kind: vllm, base_url: 'http://10.0.0.5:8000', region: us-east, slots: 16 }
  openai:
    kind: openai
    keys:
      - ${KEY}
      - { key: '${KEY}-2', rpm: 500 }
models:
  llama:
    strategy: { name: consistent_hash, key: session, bound: 1.5 }
    deployments:
      - { provider: gpu-a, model: meta/llama, version: '3.1' }
      - { provider: openai, model: gpt, weight: 3, tier: 2, price: { input: 0.15, output: 0.60 } }
";

fn check(change: (&str, &str), expected: &str) {
    let text = GOOD.replacen(change.0, change.1, 1);
    assert_ne!(text, GOOD, "the change applies");
    let said: Vec<String> = read(&text).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(said.join("\n"), expected);
}

#[test]
fn a_good_one_is_understood() {
    let config = read(GOOD).unwrap();
    let catalog = config.catalog();
    let llama = &catalog.models["llama"];
    assert_eq!(llama.strategy.name(), "consistent_hash");
    assert_eq!(&*llama.deployments[0].name, "gpu-a/meta/llama");
    assert_eq!(llama.deployments[0].slots, Some(16));
    assert_eq!(llama.deployments[0].region.as_deref(), Some("us-east"));
    assert!(llama.deployments[0].free && !llama.deployments[1].free);
    let keys: Vec<_> = config.providers["openai"].credentials().collect();
    assert_eq!(
        keys,
        [("key-1".to_owned(), "sk-hunter2-hunter2"), ("key-2".to_owned(), "sk-hunter2-hunter2-2")]
    );
    assert_ne!(
        catalog.providers["openai"].credentials[0].revision,
        catalog.providers["openai"].credentials[1].revision
    );
    assert!(read("").unwrap().models.is_empty());
    assert!(read("# nothing\n").is_ok());
}

#[test]
fn quota_domains_are_those_of_the_key_or_else_of_its_provider() {
    let domains = |extra: (&str, &str)| {
        let text = GOOD.replacen(extra.0, extra.1, 1);
        let catalog = read(&text).unwrap_or_else(|found| panic!("{found:?}")).catalog();
        let keys = catalog.providers["openai"].credentials.iter().map(|key| key.quota_domain.clone());
        let deployments = catalog.models["llama"].deployments.iter().map(|one| one.quota_domain.clone());
        keys.chain(deployments)
            .map(|domain| domain.map_or_else(String::new, |domain| domain.to_string()))
            .collect::<Vec<_>>()
    };
    assert_eq!(domains(("", "")), ["", "", "", ""], "each has its own");
    assert_eq!(domains(("kind: openai", "kind: openai\n    quota_domain: org")), ["org", "org", "", ""]);
    let of_key = "rpm: 500, quota_domain: team";
    assert_eq!(domains(("rpm: 500", of_key)), ["", "team", "", ""]);
    let keyless = "slots: 16, quota_domain: box";
    assert_eq!(domains(("slots: 16", keyless)), ["", "", "box", ""], "where there are no keys");
    assert_eq!(domains(("weight: 3", "weight: 3, quota_domain: azure")), ["", "", "", "azure"]);
    check(
        ("weight: 3", "weight: 3, quota_domain: ''"),
        "13:52: models.llama.deployments[1].quota_domain: must have 1 to 256 bytes and no control characters",
    );
    check(
        ("rpm: 500", "quota_domains: x"),
        "7:28: providers.openai.keys[1].quota_domains: unknown key `quota_domains`; did you mean `quota_domain`?",
    );
}

#[test]
fn l1_mistakes_are_told_with_their_place_and_what_was_meant() {
    check(
        ("    strategy:", "    stratgy:"),
        "10:5: models.llama.stratgy: unknown key `stratgy`; did you mean `strategy`?",
    );
    check(
        ("consistent_hash", "consistant_hash"),
        "10:17: models.llama.strategy.name: unknown strategy `consistant_hash`; did you mean `consistent_hash`?",
    );
    check(
        ("provider: gpu-a", "provider: gpu-b"),
        "12:11: models.llama.deployments[0].provider: there is no provider `gpu-b`; did you mean `gpu-a`?",
    );
    check(
        ("${KEY}", "${KEX}"),
        "6:9: providers.openai.keys[0]: environment variable `KEX` is not set; set it, or write `${KEX:-default}`",
    );
    check(
        ("weight: 3", "weight: lots"),
        "13:41: models.llama.deployments[1].weight: expected a whole number from 0 to 4294967295, found text",
    );
    check(
        ("weight: 3", "weight: 20000"),
        "13:41: models.llama.deployments[1].weight: 20000 is not from 0 to 10000",
    );
    check(("model: gpt", "provider: gpu-a"), "13:29: duplicate mapping key: provider");
    check(
        ("kind: vllm", "kind: vlm"),
        "2:12: providers.gpu-a.kind: unknown provider kind `vlm`; did you mean `vllm`?",
    );
    check(
        ("http://10.0.0.5:8000", "http://user:pw@10.0.0.5"),
        "2:24: providers.gpu-a.base_url: must not carry a user or password; use `keys`",
    );
}

#[test]
fn l1_types_are_told_in_words() {
    check(
        ("version: '3.1'", "version: 3.10"),
        "12:47: models.llama.deployments[0].version: expected text, found a number; put it in quotes",
    );
    check(
        ("slots: 16", "slots: -1"),
        "2:75: providers.gpu-a.slots: expected a whole number from 0 to 4294967295, found -1",
    );
    check(
        ("weight: 3", "weight: 1.5"),
        "13:41: models.llama.deployments[1].weight: expected a whole number from 0 to 4294967295, found 1.5",
    );
    check(("slots: 16", "slots: 0"), "2:75: providers.gpu-a.slots: 0 is not from 1 to 1000000");
    check(("provider: gpu-a, ", ""), "12:9: models.llama.deployments[0]: `provider` is missing");
    check(
        ("rpm: 500", "rpms: 500"),
        "7:28: providers.openai.keys[1].rpms: unknown key `rpms`; did you mean `rpm`?",
    );
    check(
        ("- ${KEY}", "- [a]"),
        "6:9: providers.openai.keys[0]: expected a key as text, or a map with `key`, found a list",
    );
    check(
        ("bound: 1.5", "bounds: 1.5"),
        "10:54: models.llama.strategy.bounds: strategy `consistent_hash`: unknown key `bounds`; did you mean `bound`?",
    );
    check(
        ("bound: 1.5", "bound: 0.5"),
        "10:54: models.llama.strategy.bound: strategy `consistent_hash`: `bound` must be from 1.0 to 100",
    );
    check(
        ("slots: 16", "health: of"),
        "2:75: providers.gpu-a.health: unknown value `of`; did you mean `off`?",
    );
    check(
        ("models:", "listen: localhost\nmodels:"),
        "8:1: listen: not an address; an address is IP:PORT, such as 127.0.0.1:8080",
    );
    check(
        ("models:", "auth:\nmodels:"),
        "8:1: auth: expected a map, found nothing; give it a value, or remove the key",
    );
    check(
        ("    strategy:", "    tiers: { two: { strategy: random } }\n    strategy:"),
        "10:5: models.llama.tiers: a key here is a whole number, such as `1`",
    );
}

#[test]
fn l1_mistakes_in_strategies_are_told_at_the_option() {
    let check = |strategy: &str, expected: &str| {
        let text = format!(
            "models:\n  m:\n    strategy:{strategy}\nproviders:\n  p: {{ kind: mock, base_url: 'http://h' }}\n"
        );
        let said: Vec<String> =
            read(&text).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(said.join("\n"), expected);
    };
    check(
        "\n      name: consistent_hash\n      bound: 0.5\n      key: sesion",
        "5:7: models.m.strategy.bound: strategy `consistent_hash`: `bound` must be from 1.0 to 100\n\
         6:7: models.m.strategy.key: strategy `consistent_hash`: unknown value `sesion`; did you mean `session`?",
    );
    check(
        "\n      name: consistent_hash\n      bound: high",
        "5:7: models.m.strategy.bound: strategy `consistent_hash`: expected a number, found text",
    );
    check(" { nam: least_busy }", "3:17: models.m.strategy.nam: unknown key `nam`; did you mean `name`?");
    check(
        " zzz",
        "3:5: models.m.strategy: unknown strategy `zzz`; known: adaptive, round_robin, weighted_round_robin, least_busy, least_tokens, latency, predicted_latency, prefix_affinity, consistent_hash, random",
    );
    check(
        "\n      key: session\n      name: least_bussy",
        "5:7: models.m.strategy.name: unknown strategy `least_bussy`; did you mean `least_busy`?",
    );
}

#[test]
fn l1_every_mistake_is_told_at_once_and_none_twice() {
    let text = "\
listen: here
auth:
  keys:
    - { name: a, key: 12345678, models: [llama, lama] }
    - { name: b, key: short, headers: [sesion, tags] }
providers:
  gpu-a: { base_url: 'http://h', slots: many }
  gpu-b: { kind: vllm, base_url: '${KEX}/v1' }
  gpu-c: 7
  gpu-d: { kind: vlm, base_url: 'http://h' }
models:
  llama:
    strategy: { name: hash, key: sesion }
    tiers: { 2: { strategy: { nam: random } }, 3: 5 }
    split: { arms: { x: 1 } }
    deployments:
      - { provider: gpu-a, weight: -1, arm: x }
      - { provider: gpu-b, tier: 1.5, arm: z }
      - { providr: gpu-c, version: 3, tags: [a, 1] }
      - { provider: gpu-e, slots: 0 }
      - [gpu-a]
  gpt: { deployments: [{ provider: gpu-c, price: { input: free, outpt: 1 } }], attempts_max: yes }
  alias: { aliases: [gpt] }
";
    let said: Vec<String> = read(text).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "1:1: listen: not an address; an address is IP:PORT, such as 127.0.0.1:8080",
            "4:18: auth.keys[0].key: expected text, found a number; put it in quotes",
            "4:49: auth.keys[0].models[1]: there is no model `lama`; did you mean `llama`?",
            "5:18: auth.keys[1].key: a key has at least 8 characters; `pointsman keys` makes one",
            "5:40: auth.keys[1].headers[0]: unknown value `sesion`; did you mean `session`?",
            "7:3: providers.gpu-a: `kind` is missing",
            "7:34: providers.gpu-a.slots: expected a whole number from 0 to 4294967295, found text",
            "8:24: providers.gpu-b.base_url: environment variable `KEX` is not set; set it, or write `${KEX:-default}`",
            "9:3: providers.gpu-c: expected a map, found a number",
            "10:12: providers.gpu-d.kind: unknown provider kind `vlm`; did you mean `vllm`?",
            "13:29: models.llama.strategy.key: strategy `consistent_hash`: unknown value `sesion`; did you mean `session`?",
            "14:31: models.llama.tiers.2.strategy.nam: unknown key `nam`; did you mean `name`?",
            "14:48: models.llama.tiers.3: expected a map, found a number",
            "17:28: models.llama.deployments[0].weight: expected a whole number from 0 to 4294967295, found -1",
            "18:28: models.llama.deployments[1].tier: expected a whole number from 0 to 4294967295, found 1.5",
            "18:39: models.llama.deployments[1].arm: the model's split has no arm `z`",
            "19:11: models.llama.deployments[2].providr: unknown key `providr`; did you mean `provider`?",
            "19:27: models.llama.deployments[2].version: expected text, found a number; put it in quotes",
            "19:49: models.llama.deployments[2].tags[1]: expected text, found a number; put it in quotes",
            "20:11: models.llama.deployments[3].provider: there is no provider `gpu-e`; did you mean `gpu-d`?",
            "20:28: models.llama.deployments[3].slots: 0 is not from 1 to 1000000",
            "21:9: models.llama.deployments[4]: expected a map, found a list",
            "22:52: models.gpt.deployments[0].price.input: expected a number, found text",
            "22:65: models.gpt.deployments[0].price.outpt: unknown key `outpt`; did you mean `output`?",
            "22:80: models.gpt.attempts_max: expected a whole number from 0 to 4294967295, found text",
            "23:22: models.alias.aliases[0]: the name `gpt` is used by model `gpt` too",
        ]
    );
}

#[test]
fn l1_every_unknown_key_is_told_at_once() {
    let text =
        GOOD.replace("slots:", "slot:").replace("weight:", "wait:").replace("models:", "workrs: 2\nmodels:");
    let said: Vec<String> = read(&text).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "2:75: providers.gpu-a.slot: unknown key `slot`; did you mean `slots`?",
            "8:1: workrs: unknown key `workrs`; did you mean `workers`?",
            "14:41: models.llama.deployments[1].wait: unknown key `wait`; did you mean `weight`?",
        ]
    );
}

#[test]
fn l1_what_does_not_fit_together_is_told() {
    let model = |with: &'static str| ("    strategy:", with);
    check(
        model("    aliases: [a, llama]\n    strategy:"),
        "10:18: models.llama.aliases[1]: the name `llama` is used by model `llama` too",
    );
    check(
        model("    aliases: [a@b]\n    strategy:"),
        "10:15: models.llama.aliases[0]: a model's name has no `@`, which stands before a version",
    );
    check(
        model("    tiers: { 3: { strategy: random } }\n    strategy:"),
        "10:14: models.llama.tiers.3: no deployment is in tier 3",
    );
    check(
        model("    split: { arms: { a: 1 } }\n    strategy:"),
        "10:22: models.llama.split.arms.a: no deployment is on arm `a`",
    );
    check(
        ("version: '3.1'", "arm: stable"),
        "12:47: models.llama.deployments[0].arm: the model's split has no arm `stable`",
    );
    check(
        model("    params: { temperature: { min: 2, max: 1 } }\n    strategy:"),
        "10:15: models.llama.params.temperature: `min` is more than `max`",
    );
    check(
        model("    breaker: { open_ms_min: 400000 }\n    strategy:"),
        "10:5: models.llama.breaker: `open_ms_min` is 400000, more than `open_ms_max`, which is 300000",
    );
    check(
        model("    breaker: { degraded_percent: 40 }\n    strategy:"),
        "10:5: models.llama.breaker: `degraded_percent` is 40, more than `failed_percent`, which is 5; swap them",
    );
    check(
        model("    limiter: { max: 3 }\n    strategy:"),
        "10:5: models.llama.limiter: `min` is 4, more than `max`, which is 3",
    );
    check(
        ("provider: openai, model: gpt", "limiter: { min: 200000 }, provider: openai, model: gpt"),
        "13:11: models.llama.deployments[1].limiter: `min` is 200000, more than `max`, which is 100000",
    );
    check(
        ("provider: openai, model: gpt", "provider: gpu-a, model: meta/llama"),
        "13:9: models.llama.deployments[1]: another deployment is named `gpu-a/meta/llama` too; give one of them a `name`",
    );
    check(
        ("price: { input: 0.15", "price: { input: -1"),
        "13:61: models.llama.deployments[1].price: a price is not negative",
    );
    check(
        ("price: { input: 0.15", "price: { cache_write_1h: -1, input: 0.15"),
        "13:61: models.llama.deployments[1].price: a price is not negative",
    );
}

#[test]
fn limiters_and_queues_are_of_the_deployment_the_model_or_usual() {
    let text = "\
queue: { target_ms: 100 }
providers:
  a: { kind: vllm, base_url: 'http://a' }
models:
  m:
    limiter: { kind: aimd, min: 8 }
    deployments: [ { name: x, provider: a }, { name: y, provider: a, limiter: { kind: 'off', max: 20 } } ]
  n:
    queue: { target_ms: 0 }
    deployments: [ { provider: a } ]
";
    let sources = Sources { env: &|_| None, file: &|_| Err("none".to_owned()) };
    let catalog = parse(text, &sources).expect("a good config").catalog();
    let of = |model: &str, at: usize| catalog.models[model].deployments[at].limiter;
    assert_eq!(of("m", 0), LimiterSpec { kind: LimiterKind::Aimd, min: 8, max: 100_000 });
    assert_eq!(of("m", 1), LimiterSpec { kind: LimiterKind::Off, min: 8, max: 20 });
    assert_eq!(of("n", 0), LimiterSpec { kind: LimiterKind::Auto, min: 4, max: 100_000 });
    let target = |model: &str| catalog.models[model].queue.target.as_millis();
    assert_eq!((target("m"), target("n")), (100, 0));
}

#[test]
fn l1_values_out_of_place_are_told() {
    check(
        ("providers:", "limits: { memory_bytes_max: 100_000 }\nproviders:"),
        "1:11: limits.memory_bytes_max: must be 0 for what the cgroup allows, or at least 33554432",
    );
    check(
        ("models:", "limits: { body_bytes_max_by_route: { /v1/embedding: 2048 } }\nmodels:"),
        "8:38: limits.body_bytes_max_by_route./v1/embedding: there is no route `/v1/embedding`; did you mean `/v1/embeddings`?",
    );
    check(
        ("models:", "limits: { body_bytes_max_by_route: { /v1/responses: 2 } }\nmodels:"),
        "8:38: limits.body_bytes_max_by_route./v1/responses: 2 is not from 1024 to 1073741824",
    );
    check(
        ("    strategy:", "    params: { temperatur: { min: 2 } }\n    strategy:"),
        "10:15: models.llama.params.temperatur: unknown value `temperatur`; did you mean `temperature`?",
    );
    check(
        ("models:", "health: { interval_ms: 5 }\nmodels:"),
        "8:11: health.interval_ms: must be 0 for no checks, or at least 100",
    );
    check(
        ("models:", "timeouts: { idle_ms: 99999999999 }\nmodels:"),
        "8:13: timeouts.idle_ms: 99999999999 is not from 1 to 86400000",
    );
    check(
        ("kind: openai\n", "kind: openai\n    headers: { Authorization: x }\n"),
        "5:5: providers.openai.headers: `authorization` is where the keys go; give `keys` or the header, not both",
    );
    check(
        ("slots: 16", "headers: { Host: x }"),
        "2:86: providers.gpu-a.headers.Host: `Host` is written by the gateway",
    );
    check(
        ("base_url: 'http://10.0.0.5:8000', ", ""),
        "2:3: providers.gpu-a: providers of kind `vllm` need a `base_url`",
    );
    check(
        ("http://10.0.0.5:8000", "10.0.0.5:8000"),
        "2:24: providers.gpu-a.base_url: must begin with http:// or https://",
    );
}

#[test]
fn l1_client_keys_are_checked() {
    let check = |key: &str, expected: &str| {
        let said = read(&format!("auth:\n  keys:\n    - {{ name: a, {key} }}\n")).map(|_| ()).unwrap_err();
        assert_eq!(said.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), expected);
    };
    check("tenant: t", "3:7: auth.keys[0]: `key` or `key_sha256` is missing");
    check(
        "key: short",
        "3:18: auth.keys[0].key: a key has at least 8 characters; `pointsman keys` makes one",
    );
    check("key_sha256: abc", "3:18: auth.keys[0].key_sha256: a SHA-256 has 64 hexadecimal digits");
    check("key: 12345678", "3:18: auth.keys[0].key: expected text, found a number; put it in quotes");
    check(
        "key: 'a b c d e'",
        "3:18: auth.keys[0].key: a key has neither spaces nor characters that cannot stand in a header; `pointsman keys` makes one",
    );
    check("key: abcdefgh, models: ['no-*', m]", "3:50: auth.keys[0].models[1]: there is no model `m`");
    let text = "auth: { keys: [{ name: a, key: abcdefgh, models: [b] }] }\nmodels: { m: { aliases: [b] } }\n";
    let said = read(text).map(|_| ()).unwrap_err();
    assert!(said[0].to_string().ends_with("`b` is an alias; name the model `m`"), "{said:?}");
    check(
        "key: abcdefgh, headers: [regions]",
        "3:43: auth.keys[0].headers[0]: unknown value `regions`; did you mean `region`?",
    );
    check(
        "key: abcdefgh }\n    - { name: a, key: abcdefgh",
        "4:7: auth.keys[1]: another entry has the same key\n4:9: auth.keys[1].name: there is another key named `a`",
    );
}

#[test]
fn l1_hostile_yaml_is_refused() {
    let deep = format!("models: {}{}", "[".repeat(200), "]".repeat(200));
    assert!(read(&deep).is_err());
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = format!("*a{},", level - 1).repeat(10);
        writeln!(bomb, "a{level}: &a{level} [{before}]").unwrap();
    }
    assert!(read(&bomb).is_err());
    let long = "#".repeat(limits::TEXT_BYTES_MAX + 1);
    assert!(read(&long).map(|_| ()).unwrap_err()[0].problem.message.contains("bytes"));
    for text in [
        "- a\n",
        "a: b: c\n",
        "listen: [\n",
        "'\n",
        "a: *x\n",
        "listen: a\n---\nlisten: b\n",
        "\t- a\n",
        "<<: {a: 1}\n",
    ] {
        let said = read(text).map(|_| ()).unwrap_err();
        assert!(said.iter().all(|one| one.line > 0), "{text}: {said:?}");
    }
    assert!(read("---\n").is_ok());
    assert!(read("\u{feff}workers: 2\n").is_ok_and(|config| config.workers == 2));
}

#[test]
fn m1_a_secret_in_the_wrong_place_is_not_told() {
    for text in [
        "workers: ${KEY}",
        "listen: ${KEY}",
        "listen: '${KEY}:80'",
        "log: { level: ${KEY} }",
        "region: [{ a: ${KEY} }]",
        "providers: { a: { kind: ${KEY} } }",
        "providers: { a: { kind: ${SHORT} } }",
        "providers: { a: { kind: openai, base_url: 'http://u:${KEY}@h' } }",
        "providers: { a: { kind: openai, base_url: 'ftp://u:hunter2@h' } }",
        "providers: { a: { kind: openai, keys: ${KEY} } }",
        "providers: { a: { kind: openai, keys: sk-hunter2 } }",
        "providers: { a: { kind: openai, keys: [{ key: ${KEY}, rpm: ${KEY} }] } }",
        "providers: { a: { kind: openai, headers: { x-a: ['${KEY}'] } } }",
        "providers: { a: { kind: openai, health: ${KEY} } }",
        "providers: { a: { kind: openai, keys: ['${KEY} x', 'sk hunter2'] } }",
        "models: { m: { strategy: ${KEY} } }",
        "models: { m: { strategy: { name: random, a: ${KEY} } } }",
        "models: { m: { aliases: ['${KEY}@', m, '${KEY}@'] } }",
        "models: { m: { deployments: [{ provider: ${KEY} }] } }",
        "auth: { keys: [{ name: a, key: '${KEY} x' }, { name: a, key: hunter2 }] }",
        "auth: { keys: [{ name: a, key: sk-hunter2, key: sk-hunter2 }] }",
        "auth: { keys: [{ name: a, key: 'sk-hunter2 }] }",
        "auth: { keys: [{ name: a, key: \"sk-hunter2\\q\" }] }",
        "auth: { keys: [{ name: a, key: !!int sk-hunter2 }] }",
        "auth: { keys: [{ name: a, key: file:/ok, key_sha256: file:/ok }] }",
    ] {
        let said = read(text).map(|_| ()).unwrap_err();
        let printed = format!("{said:?} {}", serde_json::to_string(&said).unwrap());
        for secret in ["hunter2", "`h2`", "from-a-file"] {
            assert!(!printed.contains(secret), "{text}: {printed}");
        }
    }
}

#[test]
fn f7_all_weights_zero_is_an_error() {
    let text = GOOD.replace("weight: 3", "weight: 0").replace("version: '3.1'", "weight: 0");
    let said = read(&text).map(|_| ()).unwrap_err();
    assert_eq!(
        said[0].to_string(),
        "11:5: models.llama.deployments: the weight of every deployment is 0, so nothing can serve the model"
    );
}

#[test]
fn h11_no_listener_without_keys_beyond_loopback() {
    let said = read("listen: 0.0.0.0:80\nadmin: '[::]:81'\n").map(|_| ()).unwrap_err();
    assert_eq!((said[0].line, said[1].line, said.len()), (1, 2, 2));
    let keyed = "listen: 0.0.0.0:80\nauth: { keys: [ { name: a, key: 0123456789 } ] }\n";
    assert!(read(&keyed.replace("0123456789", "'0123456789'")).is_ok());
}

#[test]
fn m1_secrets_stay_out_of_everything_that_is_printed() {
    let config = read(GOOD).unwrap();
    let mut printed = format!("{config:?} {}", config.redacted());
    let broken = GOOD.replace("rpm: 500", "rpm: many");
    write!(printed, "{:?}", read(&broken).map(|_| ())).unwrap();
    let other = read(&GOOD.replace("${KEY}-2", "${KEY}-3")).unwrap();
    let changes = diff(&config, &other);
    assert_eq!(changes, ["providers.openai.keys.key-2: another secret"]);
    printed.push_str(&changes.concat());
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn k6_what_is_put_in_is_not_looked_at_again() {
    let config = read("providers: { a: { kind: openai, keys: ['${NESTED}'] } }\n").unwrap();
    assert_eq!(config.providers["a"].credentials().next().unwrap().1, "${KEY}");
    let config = read("providers: { a: { kind: openai, keys: ['file:/ok', '${NONE:-dflt}'] } }\n").unwrap();
    let keys: Vec<_> = config.providers["a"].credentials().map(|(_, key)| key.to_owned()).collect();
    assert_eq!(keys, ["from-a-file", "dflt"]);
    let said = read("providers: { a: { kind: openai, keys: ['file:/no'] } }\n").map(|_| ()).unwrap_err();
    assert!(said[0].to_string().ends_with("cannot read `/no`: no such file"), "{said:?}");
}

#[test]
fn what_is_put_in_may_be_a_number_and_may_have_a_default() {
    let config =
        read("workers: ${NUMBER}\nlisten: '127.0.0.1:80${NUMBER}'\nqueue: { wait_ms_max: '${X:-250}' }")
            .unwrap();
    assert_eq!((config.workers, config.listen.port(), config.queue.wait_ms_max), (7, 807, Some(250)));
    let config =
        read("region: ${EMPTY:-eu}\nmodels: { m: { aliases: ['$${x}', '${SHORT}${SHORT}'] } }").unwrap();
    assert_eq!(config.region.as_deref(), Some("eu"));
    assert_eq!(config.models["m"].aliases, ["${x}", "h2h2"]);
    let model = |at| format!("  m{at}: {{ attempts_max: '${{NUMBER}}' }}\n");
    let many = (0..200).map(model).collect::<Vec<_>>().concat();
    assert!(read(&format!("models:\n{many}")).is_ok(), "as often as there is something to put in");
    // Only what was put in: a number in quotes is text.
    assert!(read("workers: '7'").is_err());
}

#[test]
fn anchors_may_be_used() {
    let text = "timeouts: &t { idle_ms: 5000 }\nmodels: { a: { timeouts: *t }, b: { timeouts: *t } }\n";
    assert_eq!(read(text).unwrap().models["b"].timeouts.idle_ms, Some(5000));
}

#[test]
fn changes_are_told_field_by_field() {
    let old = read(GOOD).unwrap();
    let check = |change: (&str, &str), expected: &[&str]| {
        let new = read(&GOOD.replacen(change.0, change.1, 1)).unwrap();
        assert_eq!(diff(&old, &new), expected, "{change:?}");
        assert!(restart_needed(&old, &new).is_empty());
    };
    check(("weight: 3", "weight: 4"), &["models.llama.deployments.openai/gpt.weight: 3 -> 4"]);
    check(("region: us-east", "region: eu"), &["providers.gpu-a.region: \"us-east\" -> \"eu\""]);
    check((", rpm: 500", ""), &["providers.openai.keys.key-2.rpm: 500 -> none"]);
    check(("- ${KEY}", "- other-key"), &["providers.openai.keys.key-1: another secret"]);
    check(
        ("model: gpt", "model: gpt2"),
        &["models.llama.deployments.openai/gpt: removed", "models.llama.deployments.openai/gpt2: added"],
    );
    let hashed = |digit: &str| {
        let hash = digit.repeat(64);
        read(&format!("auth: {{ keys: [ {{ name: k, key_sha256: '{hash}' }} ] }}")).unwrap()
    };
    assert_eq!(diff(&hashed("a"), &hashed("b")), ["auth.keys.k: another secret"]);
    assert_ne!(hashed("a"), hashed("b"));
    let keyed = "auth: { keys: [ { name: web, key: abcdefgh } ] }\nlisten: 127.0.0.1:1\nadmin: 127.0.0.1:2\nworkers: 1";
    let (keyed, empty) = (read(keyed).unwrap(), read("").unwrap());
    assert!(diff(&empty, &keyed).contains(&"auth.keys.web: added".to_owned()));
    assert_eq!(restart_needed(&empty, &keyed), ["listen", "admin", "workers"]);
}

#[test]
fn a_deployment_is_the_same_in_json_and_yaml() {
    let text = r#"{"provider": "gpu-a", "weight": 0, "tags": ["a"], "price": {"input": 1, "output": 2}}"#;
    let one: models::DeploymentConfig = serde_json::from_str(text).unwrap();
    assert_eq!((one.weight, one.tier, one.draining), (0, 1, false));
    let again = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<models::DeploymentConfig>(&again).unwrap(), one);
    assert!(serde_json::from_str::<models::DeploymentConfig>(r#"{"provider": "a", "wait": 1}"#).is_err());
    let mut config = read(GOOD).unwrap();
    config.models.get_mut("llama").unwrap().deployments.push(models::DeploymentConfig {
        provider: "gpu-c".to_owned(),
        weight: 20_000,
        ..models::DeploymentConfig::default()
    });
    let said: Vec<_> = validate(&config).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "models.llama.deployments[2].weight: 20000 is not from 0 to 10000",
            "models.llama.deployments[2].provider: there is no provider `gpu-c`; did you mean `gpu-a`?",
        ]
    );
}

#[test]
fn rules_are_the_widest_of_the_deployments() {
    let text = "\
providers: { a: { kind: mock, base_url: 'http://h' } }
models:
  m:
    capabilities: [chat]
    context_tokens_max: 4096
    params: { temperature: { max: 1.5 } }
    deployments:
      - { provider: a }
      - { provider: a, name: big, context_tokens_max: 8192, output_tokens_max: 100, capabilities: [chat, tools] }
";
    let rules = read(text).unwrap().rules("m");
    assert!(rules.capabilities.chat && rules.capabilities.tools && !rules.capabilities.vision);
    assert_eq!((rules.context_tokens_max, rules.output_tokens_max), (Some(8192), None));
    assert!(rules.ranges[0].1.contains(&1.5) && !rules.ranges[0].1.contains(&1.6));
}

#[test]
fn a_mirror_goes_to_another_model_that_is_not_mirrored() {
    let check = |models: &str, expected: Option<&str>| {
        let text = format!(
            "models:\n  b: {{}}\n  c: {{ aliases: [see], mirror: {{ to: b, share: 0.1 }} }}\n{models}"
        );
        let said = read(&text).err().unwrap_or_default();
        match expected {
            Some(expected) => assert!(said.iter().any(|one| one.to_string().contains(expected)), "{said:?}"),
            None => assert!(said.is_empty(), "{said:?}"),
        }
    };
    check("  a: { mirror: { to: b, share: 0.05 } }\n", None);
    check("  a: { mirror: { to: a, share: 0.05 } }\n", Some("a model cannot be its own shadow"));
    check("  a: { mirror: { to: c, share: 0.05 } }\n", Some("model `c` is mirrored itself"));
    check("  a: { mirror: { to: see, share: 0.05 } }\n", Some("`see` is an alias; name the model `c`"));
    check("  a: { mirror: { to: none, share: 0.05 } }\n", Some("there is no model `none`"));
    check("  a: { mirror: { to: b, share: 1.5 } }\n", Some("1.5 is not from 0 to 1"));
    check("  a: { mirror: { to: b } }\n", Some("share"));
}

#[test]
fn a_mirror_does_not_use_up_the_limits_of_the_original() {
    let check = |keys: &str, shadow: &str, refused: bool| {
        let said = read(&format!(
            "providers:\n  p: {{ kind: openai{keys} }}\n  q: {{ kind: openai, keys: [other] }}\n\
             models:\n  a: {{ mirror: {{ to: b, share: 0.1 }}, deployments: [ {{ provider: p }} ] }}\n  \
             b: {{ deployments: [ {{ provider: {shadow} }} ] }}\n"
        ))
        .err()
        .unwrap_or_default();
        let told = said.iter().any(|one| one.to_string().contains("copies would use up its limits"));
        assert_eq!((told, said.len()), (refused, usize::from(refused)), "{said:?}");
    };
    check(", keys: [key]", "p", true);
    check(", keys: [key]", "q", false);
    check("", "p", false);
}

#[test]
fn engines_are_asked_by_kind_and_paid_vendors_never() {
    let plan = |provider: &str| {
        let text = format!("providers: {{ p: {{ {provider} }} }}\nmodels: {{}}\n");
        read(&text).unwrap().providers["p"].engine_plan()
    };
    let asks = |provider: &str| {
        plan(provider).map(|plan| plan.asks.into_iter().map(|(_, path)| path).collect::<Vec<_>>().join(" "))
    };
    let url = "base_url: 'http://10.0.0.5:8000'";
    for (provider, expected) in [
        ("kind: vllm", Some("/metrics")),
        ("kind: llama_cpp", Some("/slots /metrics /props")),
        ("kind: trtllm", Some("/prometheus/metrics")),
        ("kind: ollama", Some("/api/ps")),
        ("kind: openai_compatible", None),
        ("kind: openai", None),
        ("kind: lm_studio", None),
        ("kind: vllm, engine: off", None),
        ("kind: vllm, engine: { metrics: off }", None),
        ("kind: llama_cpp, engine: { metrics: off }", Some("/slots /props")),
        ("kind: openai_compatible, engine: { family: sglang, metrics: /m }", Some("/m /get_server_info")),
    ] {
        assert_eq!(asks(&format!("{provider}, {url}")).as_deref(), expected, "{provider}");
    }
    for family in pointsman_wire::engine::ALL {
        let kind = plan(&format!("kind: openai_compatible, engine: {{ family: {} }}, {url}", family.name));
        assert_eq!(kind.map(|plan| plan.family.name), Some(family.name));
    }
    let slots = |engine: &str| read(&GOOD.replacen("slots: 16", engine, 1)).unwrap().catalog();
    let learnt = slots("engine: { family: llama_cpp, slots: auto }");
    assert!(learnt.models["llama"].deployments[0].slots_learnt);
    let given = slots("slots: 3, engine: { family: llama_cpp, slots: auto }");
    assert!(!given.models["llama"].deployments[0].slots_learnt, "a number counts more");
}

#[test]
fn wrong_engines_are_named() {
    let of = |engine: &str, expected: &str| {
        let said = read(&GOOD.replacen("slots: 16", engine, 1)).map(|_| ()).unwrap_err();
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        assert!(said.join("\n").contains(expected), "{engine}: {said:?}");
    };
    of("engine: on", "unknown value `on`");
    of("engine: { family: vlm }", "did you mean `vllm`");
    of("engine: { metrics: metrics }", "must be `off`, or begin with `/`");
    of("engine: { slots: auto }", "`vllm` does not say how many requests it works on at most");
    of("engine: { family: tgi, kv_events_port: 5557 }", "publishes no events of its KV cache");
    of("engine: { busy_ms: 1 }", "busy_ms");
    of("engine: { interval: 5 }", "interval");
    let paid = GOOD.replacen("kind: openai\n", "kind: openai\n    engine: { family: vllm }\n", 1);
    let said = read(&paid).map(|_| ()).unwrap_err();
    assert!(said[0].to_string().contains("`openai` is a paid API and is not asked of its load"), "{said:?}");
    let ollama =
        "providers: { p: { kind: ollama, base_url: 'http://a', engine: { metrics: /m } } }\nmodels: {}\n";
    assert!(read(ollama).map(|_| ()).unwrap_err()[0].to_string().contains("has no page of metrics"));
}

#[test]
fn pools_can_keep_what_they_promise() {
    let with = |pools: &str, gpu: &str| {
        let text = GOOD.replacen("slots: 16", &format!("slots: 16{gpu}"), 1);
        let said = read(&format!("pools:\n  box: {pools}\n{text}")).map(|_| ());
        said.err()
            .map_or(String::new(), |said| said.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    };
    let pooled = ", slot_pool: box";
    for (pools, gpu, expected) in [
        ("{ slots: 8, models: { llama: { guarantee: 4, weight: 2, cap: 6 } } }", pooled, ""),
        ("{ tokens: 90000 }", pooled, ""),
        ("{ slots: 8 }", "", ""),
        ("{ models: {} }", pooled, "a pool without a size shares nothing"),
        (
            "{ slots: 3, models: { llama: { guarantee: 4 } } }",
            pooled,
            "4 slots are guaranteed in all, and there are 3",
        ),
        (
            "{ slots: 8, models: { llama: { guarantee: 4, cap: 3 } } }",
            pooled,
            "`cap` is 3, less than `guarantee`, which is 4",
        ),
        ("{ slots: 8, models: { llama: { guarantee_tokens: 4 } } }", pooled, "and it has none"),
        ("{ slots: 8, models: { lama: {} } }", pooled, "there is no model `lama`"),
        ("{ slots: 8, models: { lama: {} } }", pooled, "did you mean `llama`?"),
        ("{ slots: 8, models: { llama: {} } }", "", "model `llama` has no deployment in pool `box`"),
        ("{ slots: 8, models: { llama: { weight: 0 } } }", pooled, "0 is not from 1 to 10000"),
        ("{ slots: 8 }", ", slot_pool: bos", "there is no pool `bos`"),
        ("{ slots: 8 }", ", slot_pool: bos", "did you mean `box`?"),
    ] {
        let said = with(pools, gpu);
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{pools}: {said}");
    }
    let text = "pools: { box: { slots: 2, models: { a: { guarantee: 2, lend: false } } } }\n\
                providers: { p: { kind: vllm, base_url: 'http://10.0.0.5:8000', slot_pool: box, count_foreign: true } }\n\
                models: { a: { deployments: [ { provider: p } ] }, b: { deployments: [ { provider: p, pool: box } ] } }";
    let said = read(text).map(|_| ()).unwrap_err()[0].to_string();
    assert!(said.contains("all 2 slots are kept for other models, so model `b` could never run"), "{said}");
    let catalog = read(&text.replace("lend: false", "lend: true, cap_tokens: 9")).unwrap().catalog();
    let a = &catalog.models["a"].deployments[0];
    assert_eq!((a.pool.as_deref(), a.count_foreign), (Some("box"), true));
    assert_eq!(catalog.pools["box"].models["a"].cap_tokens, Some(9));
}
