//! NeuroLink: `providers` with keys, priorities and weights, and `loadBalancing`.
//!
//! Its clients name no model, so all providers become deployments of one model called `default`: those of the lowest
//! `priority` first, the others as tiers behind them.

use std::collections::BTreeMap;

use pointsman_wire::cloud::Cloud;
use pointsman_wire::vendor;
use serde_json::{Value, json};

use super::node::{Fields, Kind, NOT_UNDERSTOOD, Node};
use super::plan::{Model, Place, Plan};
use super::upstream::{Upstream, Variables, kind_for};
use super::{Imported, Note};

/// The model that all become.
const MODEL: &str = "default";

/// Its names of vendors, where ours differ.
const NAMES: [(&str, &str); 8] = [
    ("google-ai", "gemini"),
    ("google-ai-studio", "gemini"),
    ("openai-compatible", "openai_compatible"),
    ("amazon-bedrock", "bedrock"),
    ("google-vertex", "vertex"),
    ("google-vertex-ai", "vertex"),
    ("google", "gemini"),
    ("aws", "bedrock"),
];

/// Where it looks for what its configuration does not say.
const VARIABLES: Variables = Variables {
    aws_region: "AWS_REGION",
    google_project: "GOOGLE_VERTEX_PROJECT",
    azure_base_url: "AZURE_OPENAI_ENDPOINT",
    azure_key: "AZURE_OPENAI_API_KEY",
};

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

/// What is said of a provider, in its `config` or beside it.
struct Said<'n> {
    config: Fields<'n>,
    /// AWS's keys, within `config`.
    credentials: Option<Fields<'n>>,
    fields: Fields<'n>,
}

impl<'n> Said<'n> {
    fn new(mut fields: Fields<'n>, none: &'n Node, path: &str) -> Self {
        let mut config = Fields::new(format!("{path}.config"), fields.take("config").unwrap_or(none));
        let path = format!("{path}.config.credentials");
        let credentials = config
            .take_if("credentials", |node| matches!(node.kind, Kind::Map(_)))
            .map(|node| Fields::new(path, node));
        Self { config, credentials, fields }
    }

    /// The first of these names that says something.
    fn text(&mut self, names: &[&str], notes: &mut Vec<Note>) -> Option<String> {
        let found = names.iter().find_map(|name| {
            let of_config = self.config.read(name, notes, Node::text);
            of_config.or_else(|| self.fields.read(name, notes, Node::text))
        });
        found.map(str::to_owned)
    }

    /// The same of what signs requests.
    fn secret(&mut self, name: &str, notes: &mut Vec<Note>) -> Option<String> {
        let nested = self.credentials.as_mut().and_then(|fields| fields.read(name, notes, Node::text));
        nested.map(str::to_owned).or_else(|| self.text(&[name], notes))
    }

    fn rest(self, notes: &mut Vec<Note>) {
        self.credentials.into_iter().for_each(|fields| fields.rest(notes));
        self.config.rest(notes);
        self.fields.rest(notes);
    }

    fn left_out(self, from: usize, notes: &mut Vec<Note>) {
        self.credentials.into_iter().for_each(|fields| fields.left_out(from, notes));
        self.config.left_out(from, notes);
        self.fields.left_out(from, notes);
    }
}

fn provider(plan: &mut Plan, model: &mut Model, path: &str, key: Option<&str>, item: &Node) {
    let from = plan.notes.len();
    let none = Node { line: item.line, kind: Kind::Null };
    if item.kind == Kind::Code {
        return plan.notes.push(Place::new(item.line, path).note(NOT_UNDERSTOOD.to_owned()));
    }
    let mut fields = Fields::new(path, item);
    let named = fields.read("name", &mut plan.notes, Node::text).or(key);
    let Some(named) = named else {
        plan.notes.push(Place::new(item.line, path).note("not imported: it has no `name`".to_owned()));
        return fields.left_out(from, &mut plan.notes);
    };
    let enabled = |node: &Node| match node.kind {
        Kind::Bool(enabled) => Some(enabled),
        Kind::Text(_) | Kind::Number(_) | Kind::Null | Kind::Code | Kind::List(_) | Kind::Map(_) => None,
    };
    let is_off = fields.read("enabled", &mut plan.notes, enabled) == Some(false);
    let given = fields.read("type", &mut plan.notes, Node::text);
    let given = given.or_else(|| fields.read("provider", &mut plan.notes, Node::text));
    let mut said = Said::new(fields, &none, path);
    let made = if is_off {
        Err("not imported: it is not enabled".to_owned())
    } else {
        let made = upstream(given.unwrap_or(named), &mut said, &mut plan.notes);
        made.and_then(|(mut upstream, model)| {
            let told = upstream.complete(&VARIABLES);
            if upstream.is_nowhere() {
                return Err(format!("not imported: `{}` needs a `baseURL`", upstream.kind));
            }
            Ok((upstream, model, told))
        })
    };
    let (upstream, upstream_model, told) = match made {
        Ok(made) => made,
        Err(text) => {
            plan.notes.push(Place::new(item.line, path).note(text));
            return said.left_out(from, &mut plan.notes);
        }
    };
    let place = Place::new(item.line, path);
    let is_plain = |(_, value): (&String, &Value)| value.as_str().is_some_and(|key| !key.starts_with("${"));
    if upstream.credential.iter().filter(|(name, _)| *name != "service_account").any(is_plain) {
        plan.notes.push(place.note("its key stands in the file as it is; put it into a variable".to_owned()));
    }
    if upstream_model.is_none() {
        let text = format!(
            "it names no model, and providers are asked for `{MODEL}` then; add `model` to the deployment"
        );
        plan.notes.push(place.note(text));
    }
    plan.notes.extend(told.into_iter().map(|told| place.note(told)));
    let mut made = serde_json::Map::new();
    made.insert("provider".to_owned(), json!(plan.own_provider(named, upstream.value())));
    if let Some(upstream_model) = upstream_model {
        made.insert("model".to_owned(), json!(upstream_model));
    }
    for (theirs, ours) in [("weight", "weight"), ("priority", "tier"), ("maxConcurrent", "slots")] {
        if let Some(count) = said.fields.read(theirs, &mut plan.notes, Node::count) {
            made.insert(ours.to_owned(), json!(count));
        }
    }
    said.rest(&mut plan.notes);
    model.add(made, place);
}

/// Where a provider is and what lets in, and the model that it is asked for; or why it is left out.
fn upstream(
    named: &str,
    said: &mut Said<'_>,
    notes: &mut Vec<Note>,
) -> Result<(Upstream, Option<String>), String> {
    let base_url = said.text(&["baseURL", "baseUrl", "endpoint", "url"], notes);
    let kind = match (kind_named(named), &base_url) {
        (Some("openai") | None, Some(_)) => "openai_compatible",
        (Some(kind), _) => kind,
        (None, None) => return Err(format!("not imported: there is no vendor `{named}`, and no `baseURL`")),
    };
    let mut upstream = Upstream { kind, base_url, ..Upstream::default() };
    if upstream.cloud() == Some(Cloud::Azure) {
        // There a deployment's name is what others call a model.
        let deployment = said.text(&["deployment", "deploymentName"], notes);
        upstream.api_version = said.text(&["apiVersion"], notes);
        let key = said.text(&["apiKey"], notes);
        upstream.credit("key", key.as_deref());
        upstream.region = said.text(&["region"], notes);
        let model = match deployment {
            Some(deployment) => Some(deployment),
            None => said.text(&["model", "defaultModel", "modelName"], notes),
        };
        return Ok((upstream, model));
    }
    let model = said.text(&["model", "defaultModel", "modelName"], notes);
    upstream.kind = kind_for(kind, model.as_deref().unwrap_or_default());
    let of_config = said.config.read("region", notes, Node::text).map(str::to_owned);
    let of_entry = said.fields.read("region", notes, Node::text).map(str::to_owned);
    match upstream.cloud() {
        Some(Cloud::Bedrock) => {
            // Beside the `config` it may be a part of the world, which AWS has no name for.
            let is_location =
                |region: &String| region.starts_with("${") || Cloud::Bedrock.base_url(region).is_some();
            let (location, region) = match of_config {
                Some(location) => (Some(location), of_entry),
                None if of_entry.as_ref().is_some_and(is_location) => (of_entry, None),
                None => (None, of_entry),
            };
            (upstream.location, upstream.region) = (location, region);
            for (theirs, ours) in [
                ("accessKeyId", "access_key_id"),
                ("secretAccessKey", "secret_access_key"),
                ("sessionToken", "session_token"),
            ] {
                upstream.credit(ours, said.secret(theirs, notes).as_deref());
            }
        }
        Some(Cloud::Vertex) => {
            upstream.project = said.text(&["projectId", "project"], notes);
            (upstream.location, upstream.region) = (said.text(&["location"], notes).or(of_config), of_entry);
            account(&mut upstream, said, notes);
        }
        Some(Cloud::Azure) | None => upstream.region = of_config.or(of_entry),
    }
    if let Some(key) = said.text(&["apiKey"], notes) {
        if !upstream.credential.is_empty() {
            let text = "it is the credential; the keys of the cloud beside it are not imported";
            notes.push(said.config.note_at("apiKey", said.fields.line(), text));
            upstream.credential.clear();
        }
        upstream.credit("key", Some(&key));
    }
    Ok((upstream, model))
}

/// Google's key file, which is called by several names.
fn account(upstream: &mut Upstream, said: &mut Said<'_>, notes: &mut Vec<Note>) {
    for name in ["credentials", "keyFilename", "keyFile", "credentialsPath"] {
        let Some(node) = said.config.take(name) else { continue };
        let told = match upstream.account(Some(node)) {
            None if node.kind == Kind::Code => Some(NOT_UNDERSTOOD),
            told => told,
        };
        if let Some(told) = told {
            said.config.note(node, name, told, notes);
        }
        return;
    }
    if let Some(nested) = said.credentials.take() {
        let text = "the key is not copied: put it into a file, and the file's path into GOOGLE_APPLICATION_CREDENTIALS";
        nested.told(text, notes);
    }
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
    let provider = |one: &serde_json::Map<String, Value>| {
        one.get("provider").and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let deployments = model.deployments.iter_mut();
    let mut by_name: BTreeMap<String, _> = deployments.map(|one| (provider(one), one)).collect();
    for (name, weight) in &fields.read("weights", &mut plan.notes, maps).unwrap_or_default() {
        match (weight.count(), by_name.get_mut(name)) {
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
