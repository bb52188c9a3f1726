//! What changed between two configurations, in words.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::Config;
use crate::tree::join;

/// What changed, one line a field, such as `models.llama.strategy.name: "random" -> "least_busy"`. No secrets.
pub fn diff(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    compare(&named(old), &named(new), "", &mut changes);
    if old.price_list != new.price_list {
        changes.push("prices: the file says something else".to_owned());
    }
    let before = secrets(old);
    for (path, secret) in secrets(new) {
        if before.get(&path).is_some_and(|before| *before != secret) {
            changes.push(format!("{path}: another secret"));
        }
    }
    changes
}

/// Every secret by its path, for comparison only.
fn secrets(config: &Config) -> BTreeMap<String, &str> {
    let providers = config.providers.iter().flat_map(|(name, provider)| {
        let keys = provider.keys.iter().enumerate().flat_map(move |(at, key)| {
            key.secrets().map(move |(part, secret)| {
                let path = format!("providers.{name}.keys.{}", key.name_at(at));
                (if part == "key" { path } else { join(&path, part) }, secret)
            })
        });
        let headers = provider.headers.iter();
        keys.chain(
            headers
                .map(move |(header, value)| (format!("providers.{name}.headers.{header}"), value.expose())),
        )
    });
    let clients = config.auth.keys.iter().filter_map(|key| {
        let secret = key.key.as_ref().or(key.key_sha256.as_ref())?;
        Some((format!("auth.keys.{}", key.name), secret.expose()))
    });
    let admins = config.auth.admin_keys.iter().filter_map(|key| {
        let secret = key.key.as_ref().or(key.key_sha256.as_ref())?;
        Some((format!("auth.admin_keys.{}", key.name), secret.expose()))
    });
    providers.chain(clients).chain(admins).collect()
}

/// The keys that changed but hold from the next start only.
pub fn restart_needed(old: &Config, new: &Config) -> Vec<&'static str> {
    let batches = |config: &Config| config.batches.as_ref().map(|batches| batches.directory.clone());
    let changed = [
        ("listen", old.listen != new.listen),
        ("admin", old.admin != new.admin),
        ("grpc", old.grpc != new.grpc),
        ("workers", old.workers != new.workers),
        ("batches.directory", batches(old) != batches(new)),
        ("decisions", old.decisions != new.decisions),
        ("log", old.log != new.log),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

/// The configuration with lists of named things by name, so that one that moved is not one that changed.
fn named(config: &Config) -> Value {
    let mut value = config.redacted();
    for (name, model) in &config.models {
        let by_name = model.deployments.iter().map(|one| (one.name_in(name), json(one)));
        value["models"][name]["deployments"] = Value::Object(by_name.collect());
    }
    for (name, provider) in &config.providers {
        let by_name = provider.keys.iter().enumerate().map(|(at, key)| (key.name_at(at), json(key)));
        value["providers"][name]["keys"] = Value::Object(by_name.collect());
    }
    let clients = config.auth.keys.iter().map(|key| (key.name.clone(), json(key)));
    value["auth"]["keys"] = Value::Object(clients.collect());
    let admins = config.auth.admin_keys.iter().map(|key| (key.name.clone(), json(key)));
    value["auth"]["admin_keys"] = Value::Object(admins.collect());
    value
}

fn json(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// Notes what differs. What has fields and is new or gone is told whole, by name.
fn compare(old: &Value, new: &Value, path: &str, changes: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old {
                compare(value, new.get(key).unwrap_or(&Value::Null), &join(path, key), changes);
            }
            for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
                compare(&Value::Null, value, &join(path, key), changes);
            }
        }
        (Value::Null, Value::Object(_)) => changes.push(format!("{path}: added")),
        (Value::Object(_), Value::Null) => changes.push(format!("{path}: removed")),
        (old, new) => changes.push(format!("{path}: {} -> {}", shown(old), shown(new))),
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() { "none".to_owned() } else { value.to_string() }
}
