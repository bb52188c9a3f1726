//! NeuroLink: `providers` with keys, priorities and weights, and `loadBalancing`.
//!
//! Its clients name no model, so all providers become deployments of one model called `default`: those of the lowest
//! `priority` first, the others as tiers behind them.

use pointsman_wire::vendor;
use serde_json::{Map, Value, json};

use super::node::{Fields, Kind, Node};
use super::plan::{Model, Place, Plan, has_place, provider_value, usual_key};
use super::{Imported, Note};

/// The model that all become.
const MODEL: &str = "default";

/// Its names of vendors, where ours differ.
const NAMES: [(&str, &str); 5] = [
    ("google-ai", "gemini"),
    ("google-ai-studio", "gemini"),
    ("openai-compatible", "openai_compatible"),
    ("amazon-bedrock", "bedrock"),
    ("google-vertex", "vertex"),
];

/// Its ways to pick a provider, as ours.
const STRATEGIES: [(&str, &str); 12] = [
    ("round-robin", "round_robin"),
    ("weighted", "weighted_round_robin"),
    ("weighted-round-robin", "weighted_round_robin"),
    ("random", "random"),
    ("weighted-random", "random"),
    ("least-busy", "least_busy"),
    ("least-connections", "least_busy"),
    ("least-loaded", "least_busy"),
    ("latency", "latency"),
    ("latency-based", "latency"),
    ("lowest-latency", "latency"),
    ("adaptive", "adaptive"),
];

pub(super) fn import(root: &Node) -> Result<Imported, String> {
    let mut plan = Plan::default();
    let mut fields = Fields::new("", root);
    let providers = fields.take("providers").ok_or("it has no `providers`")?;
    if providers.items().is_empty() && providers.entries().is_empty() {
        return Err("its `providers` are neither a list nor an object, or there are none".to_owned());
    }
    let mut model = Model::default();
    for (at, item) in providers.items().iter().enumerate() {
        provider(&mut plan, &mut model, &format!("providers[{at}]"), None, item);
    }
    for (name, item) in providers.entries() {
        provider(&mut plan, &mut model, &format!("providers.{name}"), Some(name), item);
    }
    if let Some(node) = fields.take("loadBalancing") {
        load_balancing(&mut plan, &mut model, node);
    }
    let from_zero = model.deployments.iter().any(|one| one.get("tier") == Some(&json!(0)));
    if from_zero {
        for one in &mut model.deployments {
            let tier = one.get("tier").and_then(Value::as_u64).unwrap_or(0);
            one.insert("tier".to_owned(), json!(tier.saturating_add(1)));
        }
    }
    plan.models.insert(MODEL.to_owned(), model);
    fields.rest(&mut plan.notes);
    plan.finish("NeuroLink")
}

fn provider(plan: &mut Plan, model: &mut Model, path: &str, key: Option<&str>, item: &Node) {
    let mut fields = Fields::new(path, item);
    let note = |plan: &mut Plan, text: String| {
        plan.notes.push(Note { line: item.line, path: path.to_owned(), text });
    };
    let named = fields.read("name", &mut plan.notes, Node::text).or(key);
    let Some(named) = named else {
        return note(plan, "not imported: it has no `name`".to_owned());
    };
    let enabled = |node: &Node| match node.kind {
        Kind::Bool(enabled) => Some(enabled),
        Kind::Text(_) | Kind::Number(_) | Kind::Null | Kind::Code | Kind::List(_) | Kind::Map(_) => None,
    };
    if fields.read("enabled", &mut plan.notes, enabled) == Some(false) {
        return note(plan, "not imported: it is not enabled".to_owned());
    }
    let kind_of = |fields: &mut Fields<'_>, notes: &mut Vec<Note>| {
        let given =
            fields.read("type", notes, Node::text).or_else(|| fields.read("provider", notes, Node::text));
        kind_named(given.unwrap_or(named))
    };
    let kind = kind_of(&mut fields, &mut plan.notes);
    let config =
        fields.take("config").cloned().unwrap_or(Node { line: item.line, kind: Kind::Map(Vec::new()) });
    let mut config = Fields::new(format!("{path}.config"), &config);
    let mut either = |names: &[&str], notes: &mut Vec<Note>| {
        names.iter().find_map(|name| {
            config.read(name, notes, Node::text).or_else(|| fields.read(name, notes, Node::text))
        })
    };
    let base_url = either(&["baseURL", "baseUrl", "endpoint", "url"], &mut plan.notes).map(str::to_owned);
    let api_key = either(&["apiKey"], &mut plan.notes).map(str::to_owned);
    let region = either(&["region"], &mut plan.notes).map(str::to_owned);
    let upstream = either(&["model", "defaultModel", "modelName"], &mut plan.notes).map(str::to_owned);
    let kind = match (kind, &base_url) {
        (Some("openai") | None, Some(_)) => "openai_compatible",
        (Some(kind), url) if url.is_some() || has_place(kind) => kind,
        (Some(kind), _) => return note(plan, format!("not imported: `{kind}` needs a `baseURL`")),
        (None, None) => {
            return note(plan, format!("not imported: there is no vendor `{named}`, and no `baseURL`"));
        }
    };
    if api_key.as_ref().is_some_and(|key| !key.starts_with("${")) {
        note(plan, "its key stands in the file as it is; put it into a variable".to_owned());
    }
    if upstream.is_none() {
        let text = format!(
            "it names no model, and providers are asked for `{MODEL}` then; add `model` to the deployment"
        );
        note(plan, text);
    }
    let key = api_key.or_else(|| usual_key(kind).filter(|_| base_url.is_none())).map(|key| json!(key));
    let mut value = provider_value(kind, base_url.as_deref(), key);
    if let (Some(region), Some(map)) = (region, value.as_object_mut()) {
        map.insert("region".to_owned(), json!(region));
    }
    let mut made = Map::new();
    made.insert("provider".to_owned(), json!(plan.provider(named, value)));
    if let Some(upstream) = upstream {
        made.insert("model".to_owned(), json!(upstream));
    }
    for (theirs, ours) in [("weight", "weight"), ("priority", "tier"), ("maxConcurrent", "slots")] {
        if let Some(count) = fields.read(theirs, &mut plan.notes, Node::count) {
            made.insert(ours.to_owned(), json!(count));
        }
    }
    config.rest(&mut plan.notes);
    fields.rest(&mut plan.notes);
    model.add(made, Place::new(item.line, path));
}

/// The kind that a provider's name stands for: the name itself, or how it begins (`openai-key-1`).
fn kind_named(name: &str) -> Option<&'static str> {
    let ours = NAMES.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| *ours);
    if let Ok(vendor) = vendor::vendor(ours) {
        return Some(&vendor.kind);
    }
    let (shorter, _) = name.rsplit_once(['-', '_', ' '])?;
    kind_named(shorter)
}

fn load_balancing(plan: &mut Plan, model: &mut Model, node: &Node) {
    let mut fields = Fields::new("loadBalancing", node);
    let own = node.text().map(|text| (node, text));
    let strategy = |node| Node::text(node).map(|text| (node, text));
    let said = own.or_else(|| fields.read("strategy", &mut plan.notes, strategy));
    if let Some((at, text)) = said {
        match STRATEGIES.iter().find(|(theirs, _)| *theirs == text) {
            Some((_, ours)) => {
                model.fields.insert("strategy".to_owned(), json!(ours));
            }
            None => {
                let text =
                    format!("not imported: there is no strategy like `{text}`; the model has the usual one");
                plan.notes.push(Note { line: at.line, path: "loadBalancing".to_owned(), text });
            }
        }
    }
    if own.is_some() {
        return;
    }
    let maps = |node: &'_ Node| matches!(node.kind, Kind::Map(_)).then(|| node.entries().to_vec());
    for (name, weight) in &fields.read("weights", &mut plan.notes, maps).unwrap_or_default() {
        let of = |one: &&mut Map<String, Value>| one.get("provider").and_then(Value::as_str) == Some(name);
        match (weight.count(), model.deployments.iter_mut().find(of)) {
            (Some(weight), Some(one)) => drop(one.insert("weight".to_owned(), json!(weight))),
            (None, _) | (_, None) => {
                let text = "not imported: it is no whole number, or of no provider".to_owned();
                plan.notes.push(Note {
                    line: weight.line,
                    path: format!("loadBalancing.weights.{name}"),
                    text,
                });
            }
        }
    }
    fields.rest(&mut plan.notes);
}
