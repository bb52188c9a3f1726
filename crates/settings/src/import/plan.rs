//! What is written: providers and models, and the text of a file that `check` has passed. What it would refuse is left out
//! and told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::stand_in::StandIns;
use super::{Imported, Note};
use crate::Sources;

/// The configuration while it is gathered.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) providers: BTreeMap<String, Value>,
    pub(super) models: BTreeMap<String, Model>,
    pub(super) sections: BTreeMap<&'static str, Value>,
    pub(super) notes: Vec<Note>,
    /// Providers that may be shared, by what they are.
    shared: BTreeMap<String, String>,
    /// Names that were numbered, with the last number.
    numbers: BTreeMap<String, usize>,
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
    /// What the deployments are called.
    names: BTreeSet<String>,
    /// Names that were numbered, with the last number.
    numbers: BTreeMap<String, usize>,
}

/// Where something was read.
#[derive(Debug, Default, Clone)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) path: String,
}

/// A part of what is written, that can be left out by itself.
#[derive(Clone)]
struct Part {
    slot: Slot,
    place: Place,
}

/// Where a part belongs.
#[derive(Clone)]
enum Slot {
    /// A deployment of a model.
    Deployment(String, Map<String, Value>),
    /// A field of a model.
    Field(String, String, Value),
    Section(&'static str, Value),
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
        let own = deployment.get("name").and_then(Value::as_str).map(str::to_owned);
        let mut name = own.unwrap_or_else(|| base.clone());
        if self.names.contains(&name) {
            name = numbered(&base, &mut self.numbers, |name| self.names.contains(name));
            deployment.insert("name".to_owned(), json!(name));
        }
        self.names.insert(name);
        self.deployments.push(deployment);
        self.places.push(place);
    }
}

/// A name with the first number behind it that makes it free.
fn numbered(base: &str, numbers: &mut BTreeMap<String, usize>, is_taken: impl Fn(&str) -> bool) -> String {
    let last = numbers.entry(base.to_owned()).or_insert(1);
    loop {
        *last += 1;
        let name = format!("{base}-{last}");
        if !is_taken(&name) {
            return name;
        }
    }
}

fn text<'v>(map: &'v Map<String, Value>, key: &str) -> &'v str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

impl Plan {
    /// The provider of these values, by a name of its kind: one there is already, or a new one.
    pub(super) fn provider(&mut self, name: &str, value: Value) -> String {
        let known = value.to_string();
        if let Some(known) = self.shared.get(&known) {
            return known.clone();
        }
        let name = self.own_provider(name, value);
        self.shared.insert(known, name.clone());
        name
    }

    /// A new provider of these values, that nothing else shares.
    pub(super) fn own_provider(&mut self, name: &str, value: Value) -> String {
        let mut free = name.to_owned();
        if self.providers.contains_key(&free) {
            free = numbered(name, &mut self.numbers, |name| self.providers.contains_key(name));
        }
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
        let deployments = self.models.values().flat_map(|model| &model.deployments);
        let used: BTreeSet<&str> = deployments.map(|one| text(one, "provider")).collect();
        self.providers.retain(|name, _| used.contains(name.as_str()));
    }

    /// Leaves out, and tells, every part that `check` would refuse by itself.
    fn sieve(&mut self) {
        let mut deployments = Vec::new();
        let mut fields = Vec::new();
        let place_of =
            |places: &BTreeMap<&'static str, Place>, key: &str| places.get(key).cloned().unwrap_or_default();
        for (name, model) in std::mem::take(&mut self.models) {
            let parts = model.deployments.into_iter().zip(model.places);
            deployments
                .extend(parts.map(|(one, place)| Part { slot: Slot::Deployment(name.clone(), one), place }));
            fields.extend(model.fields.into_iter().map(|(key, value)| {
                let place = place_of(&self.places, &key);
                Part { slot: Slot::Field(name.clone(), key, value), place }
            }));
        }
        let sections = std::mem::take(&mut self.sections).into_iter();
        let sections: Vec<Part> = sections
            .map(|(name, value)| {
                let place = place_of(&self.places, name);
                Part { slot: Slot::Section(name, value), place }
            })
            .collect();
        let mut kept = Vec::new();
        self.sift(&deployments, &mut kept);
        self.models = self.with(&kept).models;
        let (mut kept_fields, mut kept_sections) = (Vec::new(), Vec::new());
        self.sift(&fields, &mut kept_fields);
        self.sift(&sections, &mut kept_sections);
        let found = self.with(&[kept_fields, kept_sections].concat());
        for (name, model) in found.models {
            if let Some(known) = self.models.get_mut(&name) {
                known.fields = model.fields;
            }
        }
        self.sections = found.sections;
        self.drop_idle();
    }

    /// Keeps the parts that `check` does not refuse and tells of the others, by halves.
    fn sift(&mut self, parts: &[Part], kept: &mut Vec<Part>) {
        let problem = if parts.is_empty() { None } else { self.with(parts).problem() };
        match problem {
            None => kept.extend_from_slice(parts),
            Some(problem) if parts.len() == 1 => {
                self.notes.push(parts[0].place.note(format!("not imported: {problem}")));
            }
            Some(_) => {
                let (first, second) = parts.split_at(parts.len() / 2);
                self.sift(first, kept);
                self.sift(second, kept);
            }
        }
    }

    /// Some parts with no more around them than they need.
    fn with(&self, parts: &[Part]) -> Self {
        let mut one = Self::default();
        for part in parts {
            match &part.slot {
                Slot::Deployment(of, deployment) => {
                    one.models.entry(of.clone()).or_default().add(deployment.clone(), part.place.clone());
                }
                Slot::Field(of, name, value) => {
                    let Some(model) = self.models.get(of) else { continue };
                    let bare = || Model { fields: Map::new(), ..model.clone() };
                    let model = one.models.entry(of.clone()).or_insert_with(bare);
                    model.fields.insert(name.clone(), value.clone());
                }
                Slot::Section(name, value) => {
                    one.sections.insert(name, value.clone());
                }
            }
        }
        for deployment in one.models.values().flat_map(|model| &model.deployments) {
            let name = text(deployment, "provider");
            if let Some(provider) = self.providers.get(name) {
                one.providers.insert(name.to_owned(), provider.clone());
            }
        }
        one
    }

    /// What `check` says first, if variables have values, or those with something to stand in for them have none.
    fn problem(&self) -> Option<String> {
        let providers = self.providers.values();
        let models = self.models.values();
        let deployments = models.clone().flat_map(|model| &model.deployments).flat_map(|one| one.iter());
        let fields = models.flat_map(|model| &model.fields);
        let stand_ins = StandIns::of(
            providers
                .chain(self.sections.values())
                .map(|value| ("", value))
                .chain(deployments.chain(fields).map(|(name, value)| (name.as_str(), value))),
        );
        let yaml = self.yaml("");
        [true, false].into_iter().filter(|is_set| *is_set || stand_ins.has_usual()).find_map(|is_set| {
            let sources =
                Sources { env: &|name| stand_ins.variable(name, is_set), file: &|path| stand_ins.file(path) };
            let found = crate::parse(&yaml, &sources).err()?;
            found.first().map(|first| first.problem.to_string())
        })
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
