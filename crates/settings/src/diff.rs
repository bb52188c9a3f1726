//! What changed between two configurations, in words.

use serde_json::Value;

use crate::Config;
use crate::tree::join;

/// What changed, one line a field, such as `models.llama.strategy.name: "random" -> "least_busy"`. No secrets.
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    compare(&named(old), &named(new), "", &mut changes);
    let secret = |config: &Config| {
        let all = config.providers.iter().flat_map(|(name, provider)| {
            provider
                .credentials()
                .map(move |(key, secret)| (format!("providers.{name}.keys.{key}"), secret.to_owned()))
        });
        all.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = secret(old);
    for (path, value) in secret(new) {
        if before.get(&path).is_some_and(|before| *before != value) {
            changes.push(format!("{path}: another secret"));
        }
    }
    changes
}

/// The keys that changed but hold from the next start only.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let changed = [
        ("listen", old.listen != new.listen),
        ("admin", old.admin != new.admin),
        ("workers", old.workers != new.workers),
        ("decisions", old.decisions != new.decisions),
        ("log", old.log != new.log),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

/// The configuration with deployments by name, so that one that moved is not one that changed.
fn named(config: &Config) -> Value {
    let mut value = config.redacted();
    for (name, model) in &config.models {
        let by_name = model
            .deployments
            .iter()
            .map(|one| (one.name_in(name), serde_json::to_value(one).unwrap_or_default()));
        value["models"][name]["deployments"] = Value::Object(by_name.collect());
    }
    value
}

fn compare(old: &Value, new: &Value, path: &str, changes: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                compare(value, new.get(key).unwrap_or(&Value::Null), &join(path, key), changes);
            }
            for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                compare(&Value::Null, value, &join(path, key), changes);
            }
        }
        (old, new) if old == new => {}
        (Value::Null, _) => changes.push(format!("{path}: added")),
        (_, Value::Null) => changes.push(format!("{path}: removed")),
        (old, new) => changes.push(format!("{path}: {old} -> {new}")),
    }
}
