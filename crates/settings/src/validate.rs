//! What a configuration must keep to beyond its shape.

mod clouds;
mod egress;
mod engine;
mod mirror;
mod pools;
mod provider;
mod share;
mod structured;
mod tensors;

use std::collections::{BTreeMap, BTreeSet};

use pointsman_wire::openai::request::Operation;
use serde_json::Value;

use crate::Config;
use crate::auth::parse_sha256;
use crate::diagnostic::{Problem, did_you_mean};
use crate::limiter::LimiterConfig;
use crate::limits::{
    BODY_BYTES_MAX, BODY_BYTES_MIN, HEALTH_INTERVAL_MS_MIN, KEY_CHARS_MIN, MEMORY_BYTES_MIN, NAME_BYTES_MAX,
    WEIGHT_MAX,
};
use crate::models::{DeploymentConfig, ModelConfig};
use crate::secret::Secret;
use crate::tree::join;

/// Everything that is wrong with a configuration whose shape is right.
pub fn validate(config: &Config) -> Vec<Problem> {
    let mut found = ranges(config);
    listeners(config, &mut found);
    check_routes(config, &mut found);
    if (1..HEALTH_INTERVAL_MS_MIN).contains(&config.health.interval_ms) {
        let text = format!("must be 0 for no checks, or at least {HEALTH_INTERVAL_MS_MIN}");
        found.push(Problem::new("health.interval_ms", text));
    }
    if (1..MEMORY_BYTES_MIN).contains(&config.limits.memory_bytes_max) {
        let text = format!("must be 0 for what the cgroup allows, or at least {MEMORY_BYTES_MIN}");
        found.push(Problem::new("limits.memory_bytes_max", text));
    }
    if config.batches.as_ref().is_some_and(|batches| batches.directory.as_os_str().is_empty()) {
        let problem = Problem::new("batches", "`directory` is missing");
        found.push(problem.help("name a folder on a local disk that is this gateway's own"));
    }
    check_text("region", config.region.as_deref(), &mut found);
    let keys = config.auth.keys.iter().map(|key| Key {
        name: &key.name,
        secret: key.secret(),
        hash: key.key_sha256.as_ref().map(Secret::expose),
        tenant: key.tenant(),
    });
    check_keys("auth.keys", keys, &mut found);
    check_key_models(config, &mut found);
    share::check(config, &mut found);
    let admins = config.auth.admin_keys.iter().map(|key| Key {
        name: &key.name,
        secret: key.secret(),
        hash: key.key_sha256.as_ref().map(Secret::expose),
        tenant: &key.name,
    });
    check_keys("auth.admin_keys", admins, &mut found);
    for (name, provider) in &config.providers {
        let path = join("providers", name);
        check_text(&path, Some(name), &mut found);
        provider::check_provider(&path, provider, &mut found);
    }
    egress::check(config, &mut found);
    check_names(config, &mut found);
    pools::check(config, &mut found);
    for (name, model) in &config.models {
        check_model(config, &join("models", name), name, model, &mut found);
    }
    found
}

/// Every name that clients may ask for stands for one model.
fn check_names(config: &Config, found: &mut Vec<Problem>) {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let models = config.models.keys().map(|name| (name, name, join("models", name)));
    let aliases = config.models.iter().flat_map(|(name, model)| {
        let path = move |at| format!("models.{name}.aliases[{at}]");
        model.aliases.iter().enumerate().map(move |(at, alias)| (alias, name, path(at)))
    });
    for (known, model, path) in models.chain(aliases) {
        check_text(&path, Some(known), found);
        if known.contains('@') {
            found.push(Problem::new(&path, "a model's name has no `@`, which stands before a version"));
        }
        if let Some(other) = names.insert(known, model) {
            found.push(Problem::new(path, format!("the name `{known}` is used by model `{other}` too")));
        }
    }
}

/// A name is neither empty nor endless, and fits into a header and a log line.
fn check_text(path: &str, text: Option<&str>, found: &mut Vec<Problem>) {
    let Some(text) = text else { return };
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        let message = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
        found.push(Problem::new(path, message));
    }
}

fn check_routes(config: &Config, found: &mut Vec<Problem>) {
    let routes = || Operation::ALL.into_iter().chain([Operation::Infer]).map(Operation::path);
    for (route, bytes) in &config.limits.body_bytes_max_by_route {
        if !(BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(bytes) {
            let text = format!("{bytes} is not from {BODY_BYTES_MIN} to {BODY_BYTES_MAX}");
            found.push(Problem::new(format!("limits.body_bytes_max_by_route.{route}"), text));
        }
        if !routes().any(|known| known == route) {
            let problem = Problem::new(
                format!("limits.body_bytes_max_by_route.{route}"),
                format!("there is no route `{route}`"),
            );
            let help = did_you_mean(route, routes());
            let all = || format!("known: {}", routes().collect::<Vec<_>>().join(", "));
            found.push(problem.help(help.unwrap_or_else(all)));
        }
    }
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
        // Strategies hold their options to their ranges themselves; several have options of the same name.
        if target == "/$defs/Strategy" {
            return;
        }
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
    let Some(grpc) = config.grpc else { return };
    if !grpc.ip().is_loopback() && config.auth.keys.is_empty() {
        let text = format!("{grpc} is reachable from elsewhere, and no client needs a key");
        found.push(Problem::new("grpc", text).help("add `auth.keys`, or listen on 127.0.0.1"));
    }
    if [config.listen, config.admin].contains(&grpc) && grpc.port() != 0 {
        found.push(Problem::new("grpc", "gRPC needs an address of its own"));
    }
}

/// What client keys and admin keys have in common.
struct Key<'a> {
    name: &'a str,
    secret: Option<&'a str>,
    hash: Option<&'a str>,
    tenant: &'a str,
}

fn check_keys<'a>(path: &str, keys: impl Iterator<Item = Key<'a>>, found: &mut Vec<Problem>) {
    let (mut names, mut values) = (BTreeSet::new(), BTreeSet::new());
    for (at, key) in keys.enumerate() {
        let path = format!("{path}[{at}]");
        check_text(&join(&path, "name"), Some(key.name), found);
        if key.tenant != key.name {
            check_text(&join(&path, "tenant"), Some(key.tenant), found);
        }
        if !names.insert(key.name) {
            found.push(Problem::new(
                join(&path, "name"),
                format!("there is another key named `{}`", key.name),
            ));
        }
        if let Err(problem) = check_key(&path, &key) {
            found.push(problem);
        }
        let hash = key.hash.map(str::to_ascii_lowercase);
        if (key.secret.is_some() || hash.is_some()) && !values.insert((key.secret, hash)) {
            found.push(Problem::new(&path, "another entry has the same key"));
        }
    }
}

/// What a key may use exists; a pattern may wait for models to come.
fn check_key_models(config: &Config, found: &mut Vec<Problem>) {
    for (at, key) in config.auth.keys.iter().enumerate() {
        for (nth, name) in key.models.iter().flatten().enumerate() {
            if name.contains('*') || config.models.contains_key(name) {
                continue;
            }
            let path = format!("auth.keys[{at}].models[{nth}]");
            let of_alias = config.models.iter().find(|(_, model)| model.aliases.contains(name));
            found.push(match of_alias {
                Some((model, _)) => {
                    Problem::new(path, format!("`{name}` is an alias; name the model `{model}`"))
                }
                None => {
                    let help = did_you_mean(name, config.models.keys().map(String::as_str));
                    Problem { help, ..Problem::new(path, format!("there is no model `{name}`")) }
                }
            });
        }
    }
}

fn check_key(path: &str, key: &Key<'_>) -> Result<(), Problem> {
    let at = |field: &str, text: String| Problem::new(join(path, field), text);
    match (key.secret, key.hash) {
        (Some(_), Some(_)) => Err(Problem::new(path, "a key has either `key` or `key_sha256`, not both")),
        (None, None) => Err(Problem::new(path, "`key` or `key_sha256` is missing")),
        (Some(secret), None) if secret.len() < KEY_CHARS_MIN => {
            let text = format!("a key has at least {KEY_CHARS_MIN} characters");
            Err(at("key", text).help("`pointsman keys` makes one"))
        }
        (Some(secret), None) if !secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
            let text = "a key has neither spaces nor characters that cannot stand in a header";
            Err(at("key", text.to_owned()).help("`pointsman keys` makes one"))
        }
        (None, Some(hash)) if parse_sha256(hash).is_none() => {
            Err(at("key_sha256", "a SHA-256 has 64 hexadecimal digits".to_owned()))
        }
        (Some(_), None) | (None, Some(_)) => Ok(()),
    }
}

fn check_model(config: &Config, path: &str, name: &str, model: &ModelConfig, found: &mut Vec<Problem>) {
    let mut names = BTreeSet::new();
    for (at, deployment) in model.deployments.iter().enumerate() {
        let path = format!("{path}.deployments[{at}]");
        let name = deployment.name_in(name);
        if !names.insert(name.clone()) {
            let text = format!("another deployment is named `{name}` too");
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
    mirror::check(config, path, name, model, found);
    structured::check(path, model, found);
    tensors::check(config, path, model, found);
    check_split(&join(path, "split"), model, found);
    for (at, region) in model.regions.order.iter().enumerate() {
        check_text(&format!("{path}.regions.order[{at}]"), Some(region), found);
    }
    for (param, range) in &model.params {
        let path = format!("{path}.params.{}", param.name());
        if range.min.is_none() && range.max.is_none() {
            found.push(Problem::new(path, "give `min`, `max` or both"));
        } else if range.min.zip(range.max).is_some_and(|(min, max)| min > max) {
            found.push(Problem::new(path, "`min` is more than `max`"));
        }
    }
    check_limiters(path, model, found);
    let breaker = model.breaker.over(&config.breaker);
    if breaker.open_min > breaker.open_max {
        let (min, max) = (breaker.open_min.as_millis(), breaker.open_max.as_millis());
        let text = format!("`open_ms_min` is {min}, more than `open_ms_max`, which is {max}");
        found.push(Problem::new(join(path, "breaker"), text));
    }
    if breaker.degraded_rate > breaker.failed_rate {
        let (degraded, failed) = (breaker.degraded_rate * 100.0, breaker.failed_rate * 100.0);
        let text = format!(
            "`degraded_percent` is {degraded}, more than `failed_percent`, which is {failed}; swap them"
        );
        found.push(Problem::new(join(path, "breaker"), text));
    }
}

/// A limit can be found only between its bounds.
fn check_limiters(path: &str, model: &ModelConfig, found: &mut Vec<Problem>) {
    let own = (join(path, "limiter"), model.limiter.over(&LimiterConfig::default()));
    let deployments = model.deployments.iter().enumerate().filter(|(_, one)| !one.limiter.is_empty());
    let deployments = deployments
        .map(|(at, one)| (format!("{path}.deployments[{at}].limiter"), one.limiter.over(&model.limiter)));
    for (path, limiter) in std::iter::once(own).chain(deployments).filter(|(_, one)| one.min > one.max) {
        let (min, max) = (limiter.min, limiter.max);
        found.push(Problem::new(path, format!("`min` is {min}, more than `max`, which is {max}")));
    }
}

fn check_split(path: &str, model: &ModelConfig, found: &mut Vec<Problem>) {
    let Some(split) = &model.split else { return };
    let path = join(path, "arms");
    for (arm, weight) in &split.arms {
        let path = join(&path, arm);
        check_text(&path, Some(arm), found);
        if *weight > WEIGHT_MAX {
            found.push(Problem::new(&path, format!("{weight} is not from 0 to {WEIGHT_MAX}")));
        }
        if !model.deployments.iter().any(|one| one.arm.as_ref() == Some(arm)) {
            found.push(Problem::new(&path, format!("no deployment is on arm `{arm}`")));
        }
    }
    if split.arms.values().all(|weight| *weight == 0) {
        found.push(Problem::new(path, "the weight of every arm is 0"));
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
        let text = format!("there is no provider `{}`", deployment.provider);
        let help = did_you_mean(&deployment.provider, config.providers.keys().map(String::as_str));
        found.push(Problem { help, ..Problem::new(join(path, "provider"), text) });
    }
    let texts = [
        ("name", &deployment.name),
        ("model", &deployment.model),
        ("version", &deployment.version),
        ("upstream_version", &deployment.upstream_version.clone().filter(|version| !version.is_empty())),
        ("region", &deployment.region),
        ("quota_domain", &deployment.quota_domain),
    ];
    for (field, text) in texts {
        check_text(&join(path, field), text.as_deref(), found);
    }
    if deployment.version.as_ref().is_some_and(|version| version.contains('@')) {
        found.push(Problem::new(join(path, "version"), "a version has no `@`, which stands before it"));
    }
    for (at, tag) in deployment.tags.iter().enumerate() {
        let path = format!("{path}.tags[{at}]");
        check_text(&path, Some(tag), found);
        if tag.contains(',') || tag.trim() != tag {
            found.push(Problem::new(path, "a tag has no comma, and no space around it: clients list tags"));
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
    if deployment.price.is_some_and(|price| !price.numbers().all(|number| number >= 0.0)) {
        found.push(Problem::new(join(path, "price"), "a price is not negative"));
    }
}
