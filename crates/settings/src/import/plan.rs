//! What is written: providers and models, and the text of a file.

use std::collections::BTreeMap;
use std::fmt::Write;

use pointsman_wire::vendor;
use serde_json::{Map, Value, json};

use super::{Imported, Note};

/// The configuration while it is gathered.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) providers: BTreeMap<String, Value>,
    pub(super) models: BTreeMap<String, Model>,
    pub(super) sections: BTreeMap<&'static str, Value>,
    pub(super) notes: Vec<Note>,
}

/// A model while it is gathered.
#[derive(Default, Clone)]
pub(super) struct Model {
    pub(super) fields: Map<String, Value>,
    pub(super) deployments: Vec<Map<String, Value>>,
}

impl Model {
    /// Adds a deployment; one that would be called as another is given a number.
    pub(super) fn add(&mut self, mut deployment: Map<String, Value>) {
        let base = format!("{}/{}", text(&deployment, "provider"), text(&deployment, "model"));
        let named = |one: &Map<String, Value>| {
            let own = one.get("name").and_then(Value::as_str).map(str::to_owned);
            own.unwrap_or_else(|| format!("{}/{}", text(one, "provider"), text(one, "model")))
        };
        let taken: Vec<String> = self.deployments.iter().map(named).collect();
        if taken.contains(&named(&deployment)) {
            let mut free = (2..=taken.len() + 2).map(|n| format!("{base}-{n}"));
            let name = free.find(|name| !taken.contains(name));
            deployment.insert("name".to_owned(), json!(name));
        }
        self.deployments.push(deployment);
    }
}

fn text<'v>(map: &'v Map<String, Value>, key: &str) -> &'v str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl Plan {
    /// The provider of these values, by a name of its kind: one there is already, or a new one.
    pub(super) fn provider(&mut self, name: &str, value: Value) -> String {
        if let Some((known, _)) = self.providers.iter().find(|(_, known)| **known == value) {
            return known.clone();
        }
        let mut candidates = std::iter::once(name.to_owned()).chain((2..).map(|n| format!("{name}-{n}")));
        let free = candidates.find(|name| !self.providers.contains_key(name)).unwrap_or_default();
        self.providers.insert(free.clone(), value);
        free
    }

    /// The configuration as a file. Models without deployments are left out: they could serve nothing.
    pub(super) fn finish(mut self, from: &str) -> Imported {
        self.models.retain(|_, model| !model.deployments.is_empty());
        let mut yaml = format!("# Imported from {from}.\n");
        for (section, value) in &self.sections {
            let _ = writeln!(yaml, "{section}: {value}");
        }
        let entry = |yaml: &mut String, indent: &str, key: &str, value: &Value| {
            let _ = writeln!(yaml, "{indent}{}: {value}", Value::from(key));
        };
        if !self.providers.is_empty() {
            yaml.push_str("providers:\n");
        }
        for (name, provider) in &self.providers {
            entry(&mut yaml, "  ", name, provider);
        }
        if !self.models.is_empty() {
            yaml.push_str("models:\n");
        }
        for (name, model) in &self.models {
            let _ = writeln!(yaml, "  {}:", Value::from(name.as_str()));
            for (key, value) in &model.fields {
                entry(&mut yaml, "    ", key, value);
            }
            yaml.push_str("    \"deployments\":\n");
            for deployment in &model.deployments {
                let _ = writeln!(yaml, "      - {}", Value::Object(deployment.clone()));
            }
        }
        self.notes.sort_by(|one, other| (one.line, &one.path).cmp(&(other.line, &other.path)));
        self.notes.dedup();
        Imported { yaml, notes: self.notes }
    }
}

/// A provider of this kind at this place with these keys.
pub(super) fn provider_value(kind: &str, base_url: Option<&str>, key: Option<Value>) -> Value {
    let mut value = Map::new();
    value.insert("kind".to_owned(), json!(kind));
    if let Some(url) = base_url {
        value.insert("base_url".to_owned(), json!(url));
    }
    if let Some(key) = key {
        value.insert("keys".to_owned(), json!([key]));
    }
    Value::Object(value)
}

/// The variable that usually has a vendor's key.
pub(super) fn usual_key(kind: &str) -> Option<String> {
    let vendor = vendor::vendor(kind).ok()?;
    Some(format!("${{{}}}", vendor.env.first()?))
}

/// Whether providers of a kind can do without a base URL.
pub(super) fn has_place(kind: &str) -> bool {
    vendor::vendor(kind).is_ok_and(|vendor| !vendor.needs_base_url())
}
