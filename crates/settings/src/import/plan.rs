//! What is written: providers and models, and the text of a file that `check` has passed. What it would refuse is left out
//! and told.

use std::collections::BTreeMap;
use std::fmt::Write;

use pointsman_wire::vendor;
use serde_json::{Map, Value, json};

use super::{Imported, Note};
use crate::Sources;

/// What every variable stands for while the result is checked: it has to do for keys as well as for base URLs.
const STAND_IN: &str = "https://variable.example";

/// The configuration while it is gathered.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) providers: BTreeMap<String, Value>,
    pub(super) models: BTreeMap<String, Model>,
    pub(super) sections: BTreeMap<&'static str, Value>,
    pub(super) notes: Vec<Note>,
    /// Where sections, and fields of models by their own name, were read.
    pub(super) places: BTreeMap<&'static str, Place>,
}

/// A model while it is gathered.
#[derive(Default, Clone)]
pub(super) struct Model {
    pub(super) fields: Map<String, Value>,
    pub(super) deployments: Vec<Map<String, Value>>,
    /// Where each deployment was read.
    pub(super) places: Vec<Place>,
}

/// Where something was read.
#[derive(Debug, Default, Clone)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) path: String,
}

impl Place {
    pub(super) fn new(line: u64, path: impl Into<String>) -> Self {
        Self { line, path: path.into() }
    }

    pub(super) fn note(&self, text: String) -> Note {
        Note { line: self.line, path: self.path.clone(), text }
    }
}

impl Model {
    /// Adds a deployment; one that would be called as another is given a number.
    pub(super) fn add(&mut self, mut deployment: Map<String, Value>, place: Place) {
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
        self.places.push(place);
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

    /// The configuration as a file that `check` passes.
    ///
    /// # Errors
    /// When there is none, whatever is left out.
    pub(super) fn finish(mut self, from: &str) -> Result<Imported, String> {
        self.drop_idle();
        if self.problem().is_some() {
            self.sieve();
        }
        if let Some(problem) = self.problem() {
            return Err(format!("what it says has no counterpart that `check` passes: {problem}"));
        }
        self.notes.sort_by(|one, other| (one.line, &one.path).cmp(&(other.line, &other.path)));
        self.notes.dedup();
        Ok(Imported { yaml: self.yaml(from), notes: self.notes })
    }

    /// Leaves out models that could serve nothing, and providers that nothing is served by.
    fn drop_idle(&mut self) {
        self.models.retain(|_, model| !model.deployments.is_empty());
        let deployments = || self.models.values().flat_map(|model| &model.deployments);
        let used = |name: &str| deployments().any(|one| text(one, "provider") == name);
        self.providers =
            std::mem::take(&mut self.providers).into_iter().filter(|(name, _)| used(name)).collect();
    }

    /// Leaves out, and tells, every part that `check` would refuse by itself.
    fn sieve(&mut self) {
        let mut notes = Vec::new();
        let names: Vec<String> = self.models.keys().cloned().collect();
        for name in names {
            let Some(model) = self.models.remove(&name) else { continue };
            let mut kept = Model::default();
            for (deployment, place) in model.deployments.into_iter().zip(model.places) {
                let alone = Model {
                    deployments: vec![deployment.clone()],
                    places: vec![place.clone()],
                    ..Model::default()
                };
                match self.with_only(&name, alone).problem() {
                    Some(problem) => notes.push(place.note(format!("not imported: {problem}"))),
                    None => kept.add(deployment, place),
                }
            }
            for (key, value) in model.fields {
                let mut with = Model { fields: Map::new(), ..kept.clone() };
                with.fields.insert(key.clone(), value.clone());
                match self.with_only(&name, with).problem().filter(|_| !kept.deployments.is_empty()) {
                    Some(problem) => {
                        let place = self.places.get(key.as_str()).cloned().unwrap_or_default();
                        notes.push(place.note(format!("not imported: {problem}")));
                    }
                    None => drop(kept.fields.insert(key, value)),
                }
            }
            self.models.insert(name, kept);
        }
        for (section, value) in std::mem::take(&mut self.sections) {
            let alone = Self { sections: BTreeMap::from([(section, value.clone())]), ..Self::default() };
            match alone.problem() {
                Some(problem) => {
                    let place = self.places.get(section).cloned().unwrap_or_default();
                    notes.push(place.note(format!("not imported: {problem}")));
                }
                None => drop(self.sections.insert(section, value)),
            }
        }
        self.notes.extend(notes);
        self.drop_idle();
    }

    /// One model with its providers.
    fn with_only(&self, name: &str, model: Model) -> Self {
        let mut one = Self {
            providers: self.providers.clone(),
            models: BTreeMap::from([(name.to_owned(), model)]),
            ..Self::default()
        };
        one.drop_idle();
        one
    }

    /// What `check` says first, if variables have values.
    fn problem(&self) -> Option<String> {
        let none = |_: &str| Err("an import reads no other file".to_owned());
        let sources = Sources { env: &|_| Some(STAND_IN.to_owned()), file: &none };
        let found = crate::parse(&self.yaml(""), &sources).err()?;
        found.first().map(|first| first.problem.to_string())
    }

    fn yaml(&self, from: &str) -> String {
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
        yaml
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
