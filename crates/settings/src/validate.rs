//! What a configuration must keep to beyond its shape.

use std::collections::{BTreeMap, BTreeSet};

use pointsman_wire::vendor;
use serde_json::Value;

use crate::Config;
use crate::auth::parse_sha256;
use crate::diagnostic::{Problem, did_you_mean};
use crate::models::{DeploymentConfig, ModelConfig};
use crate::providers::ProviderConfig;
use crate::tree::join;

/// Everything that is wrong with a configuration whose shape is right.
pub fn validate(config: &Config) -> Vec<Problem> {
    let mut found = ranges(config);
    listeners(config, &mut found);
    keys(config, &mut found);
    for (name, provider) in &config.providers {
        check_provider(&join("providers", name), provider, &mut found);
    }
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, model) in &config.models {
        let path = join("models", name);
        if name.is_empty() || name.contains('@') || name.chars().any(char::is_control) {
            found.push(Problem::new(
                &path,
                "a model's name has no `@` and no control characters, and is not empty",
            ));
        }
        for known in std::iter::once(name).chain(&model.aliases) {
            if let Some(other) = names.insert(known, name) {
                let text = format!("the name `{known}` is used by model `{other}` too");
                found.push(Problem::new(join(&path, "aliases"), text));
            }
        }
        check_model(config, &path, name, model, &mut found);
    }
    found
}

/// Holds every number to the range that its schema gives, so that each range stands in one place.
fn ranges(config: &Config) -> Vec<Problem> {
    let mut found = Vec::new();
    let schema = crate::schema();
    let value = serde_json::to_value(config).unwrap_or_default();
    in_range(&value, &schema, &schema, "", &mut found);
    found
}

fn in_range(value: &Value, schema: &Value, root: &Value, path: &str, found: &mut Vec<Problem>) {
    if let Some(target) = schema["$ref"].as_str().and_then(|target| target.strip_prefix('#')) {
        if let Some(schema) = root.pointer(target) {
            in_range(value, schema, root, path, found);
        }
        return;
    }
    for form in schema["anyOf"].as_array().into_iter().flatten() {
        in_range(value, form, root, path, found);
    }
    match value {
        Value::Number(number) => {
            let Some(number) = number.as_f64() else { return };
            let (min, max) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
            let below = min.is_some_and(|min| number < min);
            if below || max.is_some_and(|max| number > max) {
                let text = match (min, max) {
                    (Some(min), Some(max)) => format!("{number} is not from {min} to {max}"),
                    (Some(min), None) => format!("{number} is less than {min}"),
                    (None, _) => format!("{number} is more than {}", max.unwrap_or(f64::NAN)),
                };
                found.push(Problem::new(path, text));
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                let own = &schema["properties"][key.as_str()];
                let schema = if own.is_null() { &schema["additionalProperties"] } else { own };
                in_range(value, schema, root, &join(path, key), found);
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                in_range(item, &schema["items"], root, &format!("{path}[{at}]"), found);
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn listeners(config: &Config, found: &mut Vec<Problem>) {
    if !config.listen.ip().is_loopback() && config.auth.keys.is_empty() {
        let text = format!("{} is reachable from elsewhere, and no client needs a key", config.listen);
        found.push(Problem::new("listen", text).help("add `auth.keys`, or listen on 127.0.0.1"));
    }
    if !config.admin.ip().is_loopback() && config.auth.admin_keys.is_empty() {
        let text = format!("{} is reachable from elsewhere, and no admin needs a key", config.admin);
        found.push(Problem::new("admin", text).help("add `auth.admin_keys`, or listen on 127.0.0.1"));
    }
    if config.listen == config.admin && config.listen.port() != 0 {
        found.push(Problem::new("admin", "clients and admins need addresses of their own"));
    }
}

fn keys(config: &Config, found: &mut Vec<Problem>) {
    let clients = config.auth.keys.iter().map(|key| (&key.name, key.secret(), key.key_sha256.as_deref()));
    check_keys("auth.keys", clients, found);
    let admins =
        config.auth.admin_keys.iter().map(|key| (&key.name, key.secret(), key.key_sha256.as_deref()));
    check_keys("auth.admin_keys", admins, found);
}

fn check_keys<'a>(
    path: &str,
    keys: impl Iterator<Item = (&'a String, Option<&'a str>, Option<&'a str>)>,
    found: &mut Vec<Problem>,
) {
    let (mut names, mut values) = (BTreeSet::new(), BTreeSet::new());
    for (at, (name, key, hash)) in keys.enumerate() {
        let path = format!("{path}[{at}]");
        if !names.insert(name) {
            found.push(Problem::new(join(&path, "name"), format!("there is another key named `{name}`")));
        }
        match (key, hash) {
            (Some(_), Some(_)) | (None, None) => {
                found.push(Problem::new(&path, "a key has either `key` or `key_sha256`"));
            }
            (Some(key), None) if key.len() < 8 => {
                found.push(
                    Problem::new(join(&path, "key"), "a key has at least 8 characters")
                        .help("`pointsman keys` makes one"),
                );
            }
            (None, Some(hash)) if parse_sha256(hash).is_none() => {
                found.push(Problem::new(join(&path, "key_sha256"), "a SHA-256 has 64 hexadecimal digits"));
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        if !values.insert((key, hash)) {
            found.push(Problem::new(&path, "another entry has the same key"));
        }
    }
}

fn check_provider(path: &str, provider: &ProviderConfig, found: &mut Vec<Problem>) {
    match vendor::vendor(&provider.kind) {
        Err(error) => {
            let all =
                vendor::vendors().iter().map(|vendor| vendor.kind.as_str()).collect::<Vec<_>>().join(", ");
            found.push(Problem::new(join(path, "kind"), error.to_string()).help(format!("known: {all}")));
        }
        Ok(vendor) if provider.base_url.is_none() && vendor.needs_base_url() => {
            let text = format!("providers of kind `{}` need a `base_url`", provider.kind);
            found.push(Problem::new(path, text));
        }
        Ok(_) => {}
    }
    if let Some(url) = &provider.base_url
        && let Err(why) = check_url(url)
    {
        found.push(Problem::new(join(path, "base_url"), format!("`{url}` {why}")));
    }
    for (name, value) in &provider.headers {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let ours =
            ["host", "content-length", "transfer-encoding", "connection", "content-type", "accept-encoding"];
        if name.is_empty() || !name.bytes().all(plain) || ours.contains(&name.to_ascii_lowercase().as_str()) {
            found.push(Problem::new(join(path, "headers"), format!("`{name}` cannot be set")));
        }
        if value.expose().bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 127) {
            found.push(Problem::new(
                join(path, "headers"),
                format!("the value of `{name}` has control characters"),
            ));
        }
    }
    let mut names = BTreeSet::new();
    for (at, (name, secret)) in provider.credentials().enumerate() {
        let path = format!("{path}.keys[{at}]");
        if secret.is_empty() || secret.bytes().any(|byte| !(b' '..127).contains(&byte)) {
            found.push(Problem::new(
                &path,
                "the key is empty or has characters that cannot stand in a header",
            ));
        }
        if !names.insert(name.clone()) {
            found.push(Problem::new(&path, format!("there is another credential named `{name}`")));
        }
    }
}

/// Why a base URL cannot be used.
fn check_url(url: &str) -> Result<(), &'static str> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let rest = rest.ok_or("must begin with http:// or https://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.contains('@') {
        return Err("must not carry a user or password; use `keys`");
    }
    if path.contains(['?', '#']) || authority.contains(['?', '#']) {
        return Err("must not have a query or fragment");
    }
    let host = authority
        .rsplit_once(':')
        .filter(|(_, port)| !port.ends_with(']'))
        .map_or(authority, |(host, _)| host);
    let port = authority[host.len()..].strip_prefix(':');
    if host.is_empty() || url.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err("must name a host");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("must have a port from 1 to 65535");
    }
    Ok(())
}

fn check_model(config: &Config, path: &str, name: &str, model: &ModelConfig, found: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for (at, deployment) in model.deployments.iter().enumerate() {
        let path = format!("{path}.deployments[{at}]");
        if !names.insert(deployment.name_in(name)) {
            let text = format!("another deployment is named `{}` too", deployment.name_in(name));
            found.push(Problem::new(&path, text).help("give one of them a `name`"));
        }
        check_deployment(config, &path, model, deployment, found);
    }
    if !model.deployments.is_empty() && model.deployments.iter().all(|deployment| deployment.weight == 0) {
        let text = "the weight of every deployment is 0, so nothing can serve the model";
        found.push(Problem::new(join(path, "deployments"), text));
    }
    for tier in model.tiers.keys().filter(|tier| !model.deployments.iter().any(|one| one.tier == **tier)) {
        found.push(Problem::new(format!("{path}.tiers.{tier}"), format!("no deployment is in tier {tier}")));
    }
    if let Some(split) = &model.split {
        for arm in
            split.arms.keys().filter(|arm| !model.deployments.iter().any(|one| one.arm.as_ref() == Some(arm)))
        {
            found.push(Problem::new(
                format!("{path}.split.arms.{arm}"),
                format!("no deployment is on arm `{arm}`"),
            ));
        }
        if split.arms.values().all(|weight| *weight == 0) {
            found.push(Problem::new(format!("{path}.split.arms"), "the weight of every arm is 0"));
        }
    }
    for (param, range) in &model.params {
        if range.min.zip(range.max).is_some_and(|(min, max)| min > max) {
            found.push(Problem::new(format!("{path}.params.{}", param.name()), "`min` is more than `max`"));
        }
    }
}

fn check_deployment(
    config: &Config,
    path: &str,
    model: &ModelConfig,
    deployment: &DeploymentConfig,
    found: &mut Vec<Problem>,
) {
    if !config.providers.contains_key(&deployment.provider) {
        let problem =
            Problem::new(join(path, "provider"), format!("there is no provider `{}`", deployment.provider));
        let help = did_you_mean(&deployment.provider, config.providers.keys().map(String::as_str));
        found.push(Problem { help, ..problem });
    }
    let texts = [("name", &deployment.name), ("model", &deployment.model), ("version", &deployment.version)];
    for (field, text) in texts {
        if text.as_ref().is_some_and(|text| text.is_empty() || text.chars().any(char::is_control)) {
            found.push(Problem::new(join(path, field), "must not be empty or have control characters"));
        }
    }
    let arms = model.split.as_ref().map(|split| &split.arms);
    if let Some(arm) = &deployment.arm
        && !arms.is_some_and(|arms| arms.contains_key(arm))
    {
        let problem = Problem::new(join(path, "arm"), format!("the model's split has no arm `{arm}`"));
        let help = arms.and_then(|arms| did_you_mean(arm, arms.keys().map(String::as_str)));
        found.push(Problem { help, ..problem });
    }
    if deployment.price.is_some_and(|price| !(price.input >= 0.0 && price.output >= 0.0)) {
        found.push(Problem::new(join(path, "price"), "a price is not negative"));
    }
}
