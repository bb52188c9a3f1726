//! What people get wrong in a configuration, and what they are told.

use super::*;

fn read(text: &str) -> Result<Config, Vec<Diagnostic>> {
    let env = |name: &str| match name {
        "KEY" => Some("sk-hunter2-hunter2".to_owned()),
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
fn l1_mistakes_are_told_with_their_place_and_what_was_meant() {
    check(
        ("    strategy:", "    stratgy:"),
        "10:5: models.llama.stratgy: unknown key `stratgy`; did you mean `strategy`?",
    );
    check(
        ("consistent_hash", "consistant_hash"),
        "10:5: models.llama.strategy: unknown strategy `consistant_hash`; did you mean `consistent_hash`?",
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
        "13:41: models.llama.deployments[1].weight: invalid type: string \"lots\", expected u32",
    );
    check(
        ("weight: 3", "weight: 20000"),
        "13:41: models.llama.deployments[1].weight: 20000 is not from 0 to 10000",
    );
    check(("model: gpt", "provider: gpu-a"), "13:29: duplicate mapping key: provider");
    check(
        ("kind: vllm", "kind: vlm"),
        "2:12: providers.gpu-a.kind: unknown provider kind `vlm`; did you mean `vllm`?; known: openai, openai_compatible, vllm, sglang, llama_cpp, ollama, lm_studio, tgi, groq, together, mistral, deepseek, openrouter, fireworks, xai, mock",
    );
    check(
        ("http://10.0.0.5:8000", "http://user:pw@10.0.0.5"),
        "2:24: providers.gpu-a.base_url: `http://user:pw@10.0.0.5` must not carry a user or password; use `keys`",
    );
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
    printed.push_str(&format!("{:?}", read(&broken).map(|_| ())));
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
fn changes_are_told_field_by_field() {
    let old = read(GOOD).unwrap();
    let new = read(&GOOD.replace("weight: 3", "weight: 4").replace("listen", "listen")).unwrap();
    assert_eq!(diff(&old, &new), ["models.llama.deployments.openai/gpt.weight: 3 -> 4"]);
    assert!(restart_needed(&old, &new).is_empty());
}

#[test]
fn every_example_is_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/examples");
    let mut seen = 0;
    #[expect(clippy::disallowed_methods, reason = "the test reads the examples that ship with the project")]
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let env = |name: &str| Some(format!("value-of-{name}"));
        let file = |_: &str| Ok("secret".to_owned());
        if let Err(said) = parse(&text, &Sources { env: &env, file: &file }) {
            panic!("{}: {said:?}", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}
