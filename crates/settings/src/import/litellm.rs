//! LiteLLM's proxy: `model_list`, `router_settings`, `litellm_settings`, `general_settings`.

use std::collections::BTreeMap;

use pointsman_wire::vendor;
use serde_json::{Map, Value, json};

use super::node::{Fields, Kind, NOT_UNDERSTOOD, Node};
use super::plan::{Model, Place, Plan, has_place, provider_value, usual_key};
use super::{Imported, Note};
use crate::limits::ATTEMPTS_MAX;

/// Prefixes of models whose vendors have another name here.
const PREFIXES: [(&str, &str); 8] = [
    ("hosted_vllm", "vllm"),
    ("vllm", "vllm"),
    ("ollama_chat", "ollama"),
    ("text-completion-openai", "openai"),
    ("custom_openai", "openai_compatible"),
    ("openai_like", "openai_compatible"),
    ("azure_ai", "openai_compatible"),
    ("llamafile", "llama_cpp"),
];

/// Its ways to pick a deployment, as ours.
const STRATEGIES: [(&str, &str); 5] = [
    ("simple-shuffle", "random"),
    ("least-busy", "least_busy"),
    ("usage-based-routing", "least_tokens"),
    ("usage-based-routing-v2", "least_tokens"),
    ("latency-based-routing", "latency"),
];

/// Retries that a model may have here.
const RETRIES_MAX: u64 = ATTEMPTS_MAX as u64;

pub(super) fn import(root: &Node) -> Result<Imported, String> {
    let mut plan = Plan::default();
    let mut fields = Fields::new("", root);
    let list =
        fields.take("model_list").ok_or("it has no `model_list`; is it a config of LiteLLM's proxy?")?;
    if list.items().is_empty() {
        return Err("its `model_list` is no list, or empty".to_owned());
    }
    for (at, item) in list.items().iter().enumerate() {
        deployment(&mut plan, &format!("model_list[{at}]"), item);
    }
    let mut settings = Settings::default();
    for section in ["litellm_settings", "router_settings"] {
        if let Some(node) = fields.take(section) {
            settings.read(section, node, &mut plan.notes);
        }
    }
    settings.apply(&mut plan);
    if let Some(node) = fields.take("general_settings") {
        general(&mut plan, node);
    }
    fields.rest(&mut plan.notes);
    plan.finish("LiteLLM")
}

fn deployment(plan: &mut Plan, path: &str, item: &Node) {
    let mut fields = Fields::new(path, item);
    let name = fields.read("model_name", &mut plan.notes, Node::text);
    let params = fields.take("litellm_params");
    let info = fields.take("model_info");
    let (Some(name), Some(params)) = (name, params) else {
        let text = "not imported: it needs `model_name` and `litellm_params`".to_owned();
        plan.notes.push(Note { line: item.line, path: path.to_owned(), text });
        return;
    };
    if name.contains(['*', '@']) {
        let text = format!(
            "not imported: `{name}` is no name that a model may have here; list the models one by one"
        );
        plan.notes.push(Note { line: item.line, path: path.to_owned(), text });
        return;
    }
    let mut params = Fields::new(format!("{path}.litellm_params"), params);
    let Some(mut made) = deployment_of(plan, &mut params, item.line) else { return };
    if let Some(info) = info {
        let mut info = Fields::new(format!("{path}.model_info"), info);
        model_info(&mut made, &mut info, &mut plan.notes);
        price(&mut made, &mut params, &mut plan.notes);
        if !made.contains_key("price") {
            price(&mut made, &mut info, &mut plan.notes);
        }
        info.rest(&mut plan.notes);
    } else {
        price(&mut made, &mut params, &mut plan.notes);
    }
    let total = params.read("timeout", &mut plan.notes, millis);
    let first = params.read("stream_timeout", &mut plan.notes, millis);
    params.rest(&mut plan.notes);
    fields.rest(&mut plan.notes);
    let model = plan.models.entry(name.to_owned()).or_default();
    for (key, ms) in [("total_ms", total), ("first_content_ms", first)] {
        if let Some(ms) = ms {
            let timeouts = model.fields.entry("timeouts").or_insert_with(|| json!({}));
            // Here they are the model's.
            let before = timeouts[key].as_u64();
            timeouts[key] = json!(before.unwrap_or(0).max(ms));
            if before.is_some_and(|before| before != ms) {
                let text = format!(
                    "timeouts are the model's: of `{name}` the longest holds, for all its deployments"
                );
                plan.notes.push(Note { line: item.line, path: path.to_owned(), text });
            }
        }
    }
    plan.places.entry("timeouts").or_insert_with(|| Place::new(item.line, path));
    model.add(made, Place::new(item.line, path));
}

/// The deployment that `litellm_params` ask for, with its provider.
fn deployment_of(plan: &mut Plan, params: &mut Fields<'_>, line: u64) -> Option<Map<String, Value>> {
    let node = params.take("model");
    let Some((node, text)) = node.and_then(|node| Some((node, node.text()?))) else {
        let text = "not imported: it says no model".to_owned();
        plan.notes.push(Note {
            line: node.map_or(line, |node| node.line),
            path: params.path_of("model"),
            text,
        });
        return None;
    };
    let given = params.read("custom_llm_provider", &mut plan.notes, Node::text);
    let base_url = params.read("api_base", &mut plan.notes, Node::text);
    let base_url = base_url.or_else(|| params.read("base_url", &mut plan.notes, Node::text));
    let (prefix, model) = match (given, text.split_once('/')) {
        (Some(given), Some((prefix, model))) if prefix == given => (given, model),
        (Some(given), _) => (given, text),
        (None, Some((prefix, model))) if kind_of(prefix).is_some() || base_url.is_none() => (prefix, model),
        (None, _) => ("openai", text),
    };
    let kind = match kind_of(prefix) {
        // What says `openai` but is elsewhere is something that speaks like it.
        Some("openai") if base_url.is_some() => "openai_compatible",
        Some(kind) if base_url.is_some() || has_place(kind) => kind,
        Some(_) => {
            let text = format!("not imported: `{prefix}` needs an `api_base`");
            params.note(node, "model", text, &mut plan.notes);
            return None;
        }
        None if base_url.is_some() => {
            let text = format!(
                "`{prefix}` is not known here; imported as `openai_compatible`, check that it speaks that"
            );
            params.note(node, "model", text, &mut plan.notes);
            "openai_compatible"
        }
        None => {
            let text = format!("not imported: there is no vendor `{prefix}`, and no `api_base`");
            params.note(node, "model", text, &mut plan.notes);
            return None;
        }
    };
    let key = params.read("api_key", &mut plan.notes, Node::text).map(str::to_owned);
    let key = key.or_else(|| usual_key(kind).filter(|_| base_url.is_none()));
    let rpm = params.read("rpm", &mut plan.notes, Node::count);
    let tpm = params.read("tpm", &mut plan.notes, Node::count);
    let credential = credential(key, [("rpm", rpm), ("tpm", tpm)], kind, node, params, &mut plan.notes);
    let name = plan.provider(kind, provider_value(kind, base_url, credential));
    let mut made = Map::new();
    made.insert("provider".to_owned(), json!(name));
    made.insert("model".to_owned(), json!(model));
    for (theirs, ours) in [("weight", "weight"), ("order", "tier"), ("max_parallel_requests", "slots")] {
        let least = u64::from(ours != "weight");
        if let Some(count) =
            params.read(theirs, &mut plan.notes, |node| node.count().filter(|count| *count >= least))
        {
            made.insert(ours.to_owned(), json!(count));
        }
    }
    Some(made)
}

fn credential(
    key: Option<String>,
    limits: [(&str, Option<u64>); 2],
    kind: &str,
    node: &Node,
    params: &Fields<'_>,
    notes: &mut Vec<Note>,
) -> Option<Value> {
    let Some(key) = key.filter(|key| !key.is_empty()) else {
        if limits.iter().any(|(_, count)| count.is_some()) {
            let text = "`rpm` and `tpm` are not imported: they are limits of a key here, and there is none";
            params.note(node, "model", text, notes);
        }
        return None;
    };
    if !key.starts_with("${") {
        let text = format!("the key of `{kind}` stands in the file as it is; put it into a variable");
        params.note(node, "api_key", text, notes);
    }
    if limits.iter().all(|(_, count)| count.is_none()) {
        return Some(json!(key));
    }
    let mut credential = Map::new();
    credential.insert("key".to_owned(), json!(key));
    for (name, count) in limits {
        match count.filter(|count| (1..=u64::from(u32::MAX)).contains(count)) {
            Some(count) => drop(credential.insert(name.to_owned(), json!(count))),
            None if count.is_some() => {
                params.note(node, name, "not imported: it is no limit from 1 to 4294967295", notes);
            }
            None => {}
        }
    }
    Some(Value::Object(credential))
}

/// The kind of vendor that a prefix stands for.
fn kind_of(prefix: &str) -> Option<&'static str> {
    let known = PREFIXES.iter().find(|(theirs, _)| *theirs == prefix).map(|(_, ours)| *ours);
    known.or_else(|| vendor::vendor(prefix).ok().map(|vendor| vendor.kind.as_str()))
}

/// Prices for each token, as ours for a million.
fn price(made: &mut Map<String, Value>, fields: &mut Fields<'_>, notes: &mut Vec<Note>) {
    let mut price = Map::new();
    for (theirs, ours) in [
        ("input_cost_per_token", "input"),
        ("output_cost_per_token", "output"),
        ("cache_read_input_token_cost", "cached_input"),
        ("cache_creation_input_token_cost", "cache_write"),
        ("cache_creation_input_token_cost_above_1hr", "cache_write_1h"),
        ("output_cost_per_reasoning_token", "reasoning"),
        ("input_cost_per_audio_token", "audio_input"),
        ("output_cost_per_audio_token", "audio_output"),
    ] {
        if let Some(each) = fields.read(theirs, notes, |node| node.number().filter(|number| *number >= 0.0)) {
            // A price has few digits; what more there is came from the multiplication.
            let million = (each * 1e12).round() / 1e6;
            price.insert(ours.to_owned(), json!(million));
        }
    }
    // What is not said is unknown, not free; only embeddings have no output.
    let embeds = made.get("capabilities") == Some(&json!(["embeddings"]));
    if embeds && price.contains_key("input") {
        price.entry("output").or_insert_with(|| json!(0.0));
    }
    match (price.contains_key("input"), price.contains_key("output")) {
        (true, true) => drop(made.insert("price".to_owned(), Value::Object(price))),
        _ if price.is_empty() => {}
        (..) => {
            let text = "not imported: a price needs what input and output cost".to_owned();
            notes.push(Note { line: fields.line(), path: fields.path_of("input_cost_per_token"), text });
        }
    }
}

fn model_info(made: &mut Map<String, Value>, info: &mut Fields<'_>, notes: &mut Vec<Note>) {
    for (theirs, ours) in
        [("max_input_tokens", "context_tokens_max"), ("max_output_tokens", "output_tokens_max")]
    {
        if let Some(count) = info.read(theirs, notes, |node| node.count().filter(|count| *count > 0)) {
            made.insert(ours.to_owned(), json!(count));
        }
    }
    if let Some(id) = info.read("id", notes, Node::text) {
        made.insert("name".to_owned(), json!(id));
    }
    let capability = info.read("mode", notes, |node| match node.text()? {
        "chat" => Some("chat"),
        "completion" => Some("completions"),
        "embedding" => Some("embeddings"),
        "responses" => Some("responses"),
        _ => None,
    });
    if let Some(capability @ ("completions" | "embeddings" | "responses")) = capability {
        made.insert("capabilities".to_owned(), json!([capability]));
    }
}

/// Seconds as milliseconds.
fn millis(node: &Node) -> Option<u64> {
    node.number()
        .filter(|seconds| *seconds > 0.0)
        .map(|seconds| (seconds * 1000.0).round().clamp(1.0, 86_400_000.0) as u64)
}

/// What holds for all models.
#[derive(Default)]
struct Settings {
    strategy: Option<&'static str>,
    retries: Option<u64>,
    timeout_ms: Option<u64>,
    allowed_fails: Option<u64>,
    cooldown_ms: Option<u64>,
    /// Models with those that stand in for them.
    fallbacks: Vec<(String, Vec<String>, Place)>,
    default_fallbacks: Vec<String>,
    default_place: Place,
    places: BTreeMap<&'static str, Place>,
    /// Other names of models.
    aliases: Vec<(String, String, u64)>,
}

impl Settings {
    fn read(&mut self, section: &str, node: &Node, notes: &mut Vec<Note>) {
        let mut fields = Fields::new(section, node);
        if let Some(node) = fields.take("routing_strategy") {
            let text = node.text().unwrap_or_default();
            self.strategy = STRATEGIES.iter().find(|(theirs, _)| *theirs == text).map(|(_, ours)| *ours);
            if self.strategy.is_none() {
                let text =
                    format!("not imported: there is no strategy like `{text}`; models have the usual one");
                fields.note(node, "routing_strategy", text, notes);
            }
        }
        for (theirs, ours) in [
            ("num_retries", "attempts_max"),
            ("allowed_fails", "breaker"),
            ("cooldown_time", "breaker"),
            ("request_timeout", "timeouts"),
            ("timeout", "timeouts"),
            ("model_group_alias", "aliases"),
        ] {
            let line = node.entries().iter().find(|(name, _)| name == theirs).map(|(_, node)| node.line);
            if let Some(line) = line {
                self.places.insert(ours, Place::new(line, fields.path_of(theirs)));
            }
        }
        let retries =
            fields.read("num_retries", notes, |node| node.count().filter(|count| *count < RETRIES_MAX));
        self.retries = retries.or(self.retries);
        for name in ["request_timeout", "timeout"] {
            self.timeout_ms = fields.read(name, notes, millis).or(self.timeout_ms);
        }
        self.allowed_fails = fields.read("allowed_fails", notes, Node::count).or(self.allowed_fails);
        self.cooldown_ms = fields.read("cooldown_time", notes, millis).or(self.cooldown_ms);
        let path = fields.path_of("fallbacks");
        for entry in list("fallbacks", &mut fields, notes) {
            if entry.entries().is_empty() {
                notes.push(Place::new(entry.line, path.as_str()).note(NOT_UNDERSTOOD.to_owned()));
            }
            for (model, others) in entry.entries() {
                let place = Place::new(others.line, format!("{path}.{model}"));
                let others = names(others, &place, notes);
                self.fallbacks.push((model.clone(), others, place));
            }
        }
        let others = list("default_fallbacks", &mut fields, notes);
        if let Some(first) = others.first() {
            let place = Place::new(first.line, fields.path_of("default_fallbacks"));
            self.default_fallbacks = others.iter().filter_map(|node| named(node, &place, notes)).collect();
            self.default_place = place;
        }
        let maps = |node: &'_ Node| matches!(node.kind, Kind::Map(_)).then(|| node.entries().to_vec());
        for (alias, model) in &fields.read("model_group_alias", notes, maps).unwrap_or_default() {
            match model.text() {
                Some(name) => self.aliases.push((alias.clone(), name.to_owned(), model.line)),
                None => fields.note(
                    model,
                    &format!("model_group_alias.{alias}"),
                    "not imported: it is no name",
                    notes,
                ),
            }
        }
        fields.rest(notes);
    }

    fn apply(mut self, plan: &mut Plan) {
        plan.places.append(&mut self.places);
        if let Some(ms) = self.timeout_ms {
            plan.sections.insert("timeouts", json!({ "total_ms": ms }));
        }
        let mut breaker = Map::new();
        if let Some(count) = self.allowed_fails {
            // It cools what failed more often than that.
            breaker.insert("failures".to_owned(), json!(count.saturating_add(1)));
        }
        if let Some(ms) = self.cooldown_ms {
            breaker.insert("open_ms_min".to_owned(), json!(ms));
        }
        if !breaker.is_empty() {
            plan.sections.insert("breaker", Value::Object(breaker));
        }
        let own = plan.models.clone();
        for (name, model) in &mut plan.models {
            if let Some(strategy) = self.strategy {
                model.fields.insert("strategy".to_owned(), json!(strategy));
            }
            if let Some(retries) = self.retries {
                model.fields.insert("attempts_max".to_owned(), json!(retries + 1));
            }
            let said = self.fallbacks.iter().find(|(of, ..)| of == name);
            let others = said.map_or(&self.default_fallbacks, |(_, others, _)| others);
            for other in others.iter().filter(|other| *other != name) {
                if let Some(other) = own.get(other) {
                    append_tier(model, other);
                }
            }
        }
        self.note_missing(plan);
        for (alias, name, line) in self.aliases {
            let is_alias = |model: &Model| {
                let aliases = model.fields.get("aliases").and_then(Value::as_array);
                aliases.is_some_and(|aliases| aliases.contains(&json!(alias)))
            };
            let taken = plan.models.contains_key(&alias) || plan.models.values().any(is_alias);
            match plan.models.get_mut(&name).filter(|_| !taken) {
                Some(model) => {
                    let aliases = model.fields.entry("aliases").or_insert_with(|| json!([]));
                    aliases.as_array_mut().into_iter().for_each(|list| list.push(json!(alias)));
                }
                None => {
                    let text = format!("not imported: `{name}` is no model, or `{alias}` is one already");
                    plan.notes.push(Note {
                        line,
                        path: format!("router_settings.model_group_alias.{alias}"),
                        text,
                    });
                }
            }
        }
    }

    /// Tells of fallbacks from and to models that are not there.
    fn note_missing(&self, plan: &mut Plan) {
        let by_default = self.default_fallbacks.iter().map(|name| (name, &self.default_place));
        let said = self.fallbacks.iter().flat_map(|(model, others, place)| {
            std::iter::once(model).chain(others).map(move |name| (name, place))
        });
        for (name, place) in said.chain(by_default).filter(|(name, _)| !plan.models.contains_key(*name)) {
            plan.notes.push(place.note(format!("not imported: there is no model `{name}`")));
        }
    }
}

/// Other deployments stand in where those before cannot serve.
fn append_tier(model: &mut Model, others: &Model) {
    let tier_of = |one: &Map<String, Value>| one.get("tier").and_then(Value::as_u64).unwrap_or(1);
    let last = model.deployments.iter().map(tier_of).max().unwrap_or(0);
    for (other, place) in others.deployments.iter().zip(&others.places) {
        let mut other = other.clone();
        other.insert("tier".to_owned(), json!(last.saturating_add(tier_of(&other))));
        model.add(other, place.clone());
    }
}

/// The items of a field that is to be a list.
fn list<'n>(name: &str, fields: &mut Fields<'n>, notes: &mut Vec<Note>) -> &'n [Node] {
    let items = |node: &'n Node| matches!(node.kind, Kind::List(_)).then(|| node.items());
    fields.read(name, notes, items).unwrap_or_default()
}

fn names(node: &Node, place: &Place, notes: &mut Vec<Note>) -> Vec<String> {
    if node.items().is_empty() {
        notes.push(place.note(NOT_UNDERSTOOD.to_owned()));
    }
    node.items().iter().filter_map(|one| named(one, place, notes)).collect()
}

fn named(node: &Node, place: &Place, notes: &mut Vec<Note>) -> Option<String> {
    let name = node.text().map(str::to_owned);
    if name.is_none() {
        notes.push(place.note(NOT_UNDERSTOOD.to_owned()));
    }
    name
}

fn general(plan: &mut Plan, node: &Node) {
    let mut fields = Fields::new("general_settings", node);
    if let Some(key) = fields.read("master_key", &mut plan.notes, Node::text) {
        let line =
            node.entries().iter().find(|(name, _)| name == "master_key").map_or(0, |(_, node)| node.line);
        let place = Place::new(line, fields.path_of("master_key"));
        if !key.starts_with("${") {
            plan.notes
                .push(place.note("the key stands in the file as it is; put it into a variable".to_owned()));
        }
        plan.sections.insert("auth", json!({ "keys": [{ "name": "master", "key": key }] }));
        plan.places.insert("auth", place);
    }
    fields.rest(&mut plan.notes);
}
