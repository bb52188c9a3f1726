//! What holds for all models: `litellm_settings` and `router_settings`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::millis;
use crate::import::Note;
use crate::import::node::{Fields, Kind, NOT_UNDERSTOOD, Node};
use crate::import::plan::{Model, Place, Plan};
use crate::limits::{ATTEMPTS_MAX, IMPORTED_DEPLOYMENTS_MAX};

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

/// What holds for all models.
#[derive(Default)]
pub(super) struct Settings {
    /// Single values by what they are here.
    said: BTreeMap<&'static str, (Value, Place)>,
    /// Models with those that stand in for them, and where that was first said.
    fallbacks: BTreeMap<String, (Vec<String>, Place)>,
    default_fallbacks: Vec<String>,
    default_place: Place,
    /// Other names of models.
    aliases: Vec<(String, String, Place)>,
}

impl Settings {
    pub(super) fn read(&mut self, section: &str, node: &Node, notes: &mut Vec<Note>) {
        let mut fields = Fields::new(section, node);
        if let Some(node) = fields.take("routing_strategy") {
            let text = node.text().unwrap_or_default();
            match STRATEGIES.iter().find(|(theirs, _)| *theirs == text) {
                Some((_, ours)) => {
                    let place = Place::new(node.line, fields.path_of("routing_strategy"));
                    self.say("strategy", json!(ours), place, notes);
                }
                None => {
                    let text = format!(
                        "not imported: there is no strategy like `{text}`; models have the usual one"
                    );
                    fields.note(node, "routing_strategy", text, notes);
                }
            }
        }
        let retries = |node: &Node| node.count().filter(|count| *count < RETRIES_MAX);
        let fails = |node: &Node| node.count();
        // Of the two timeouts the router's own counts, as there.
        for (theirs, ours, read) in [
            ("num_retries", "retries", &retries as &dyn Fn(&Node) -> Option<u64>),
            ("request_timeout", "timeout_ms", &millis),
            ("timeout", "timeout_ms", &millis),
            ("allowed_fails", "fails", &fails),
            ("cooldown_time", "cooldown_ms", &millis),
        ] {
            if let Some((line, value)) = fields.read(theirs, notes, |node| Some((node.line, read(node)?))) {
                self.say(ours, json!(value), Place::new(line, fields.path_of(theirs)), notes);
            }
        }
        self.read_fallbacks(&mut fields, notes);
        self.read_aliases(&mut fields, notes);
        fields.rest(notes);
    }

    /// Takes a value; one before it that is another is told.
    fn say(&mut self, name: &'static str, value: Value, place: Place, notes: &mut Vec<Note>) {
        if let Some((before, old)) = self.said.get(name)
            && *before != value
        {
            notes.push(old.note(format!("not imported: `{}` says another", place.path)));
        }
        self.said.insert(name, (value, place));
    }

    fn read_fallbacks(&mut self, fields: &mut Fields<'_>, notes: &mut Vec<Note>) {
        let path = fields.path_of("fallbacks");
        for entry in list("fallbacks", fields, notes) {
            if entry.entries().is_empty() {
                notes.push(Place::new(entry.line, path.as_str()).note(NOT_UNDERSTOOD.to_owned()));
            }
            for (model, others) in entry.entries() {
                let place = Place::new(others.line, format!("{path}.{model}"));
                let names = names(others, &place, notes);
                let Some((before, _)) = self.fallbacks.get_mut(model) else {
                    self.fallbacks.insert(model.clone(), (names, place));
                    continue;
                };
                let known: BTreeSet<&String> = before.iter().collect();
                let more: Vec<String> = names.into_iter().filter(|name| !known.contains(name)).collect();
                if !more.is_empty() {
                    notes.push(place.note(format!("joined to what was said of `{model}` before, behind it")));
                }
                before.extend(more);
            }
        }
        let others = list("default_fallbacks", fields, notes);
        if let Some(first) = others.first() {
            let place = Place::new(first.line, fields.path_of("default_fallbacks"));
            let names: Vec<String> = others.iter().filter_map(|node| named(node, &place, notes)).collect();
            if !self.default_fallbacks.is_empty() && self.default_fallbacks != names {
                notes.push(self.default_place.note(format!("not imported: `{}` says others", place.path)));
            }
            self.default_fallbacks = names;
            self.default_place = place;
        }
    }

    /// An alias is a name, or a map with the name and whether it is listed.
    fn read_aliases(&mut self, fields: &mut Fields<'_>, notes: &mut Vec<Note>) {
        let maps = |node: &'_ Node| matches!(node.kind, Kind::Map(_)).then(|| node.entries().to_vec());
        for (alias, model) in &fields.read("model_group_alias", notes, maps).unwrap_or_default() {
            let place = Place::new(model.line, fields.path_of(&format!("model_group_alias.{alias}")));
            let name = match &model.kind {
                Kind::Map(_) => {
                    let mut parts = Fields::new(place.path.as_str(), model);
                    let name = parts.read("model", notes, Node::text);
                    if let Some(node) = parts.take("hidden").filter(|node| node.kind != Kind::Bool(false)) {
                        parts.note(node, "hidden", "not imported: every name is listed", notes);
                    }
                    parts.rest(notes);
                    name
                }
                Kind::Text(_) | Kind::Number(_) | Kind::Bool(_) | Kind::Null | Kind::Code | Kind::List(_) => {
                    model.text()
                }
            };
            match name {
                Some(name) => self.aliases.push((alias.clone(), name.to_owned(), place)),
                None => notes.push(place.note("not imported: it is no name".to_owned())),
            }
        }
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.said.get(name)?.0.as_u64()
    }

    /// Puts everything in its place.
    ///
    /// # Errors
    /// When the fallbacks are more than can be written out.
    pub(super) fn apply(self, plan: &mut Plan) -> Result<(), String> {
        for (theirs, ours) in [
            ("strategy", "strategy"),
            ("retries", "attempts_max"),
            ("timeout_ms", "timeouts"),
            ("fails", "breaker"),
            ("cooldown_ms", "breaker"),
        ] {
            if let Some((_, place)) = self.said.get(theirs) {
                plan.places.insert(ours, place.clone());
            }
        }
        if let Some(ms) = self.number("timeout_ms") {
            plan.sections.insert("timeouts", json!({ "total_ms": ms }));
        }
        let mut breaker = Map::new();
        if let Some(count) = self.number("fails") {
            // It cools what failed more often than that.
            breaker.insert("failures".to_owned(), json!(count.saturating_add(1)));
        }
        if let Some(ms) = self.number("cooldown_ms") {
            breaker.insert("open_ms_min".to_owned(), json!(ms));
        }
        if !breaker.is_empty() {
            plan.sections.insert("breaker", Value::Object(breaker));
        }
        for model in plan.models.values_mut() {
            if let Some((strategy, _)) = self.said.get("strategy") {
                model.fields.insert("strategy".to_owned(), strategy.clone());
            }
            if let Some(retries) = self.number("retries") {
                model.fields.insert("attempts_max".to_owned(), json!(retries + 1));
            }
        }
        self.apply_fallbacks(plan)?;
        self.note_missing(plan);
        self.apply_aliases(plan);
        Ok(())
    }

    fn apply_fallbacks(&self, plan: &mut Plan) -> Result<(), String> {
        let own = plan.models.clone();
        // Those that are not there are told elsewhere; each of the others adds to the count.
        let usual: Vec<String> =
            self.default_fallbacks.iter().filter(|name| own.contains_key(*name)).cloned().collect();
        let mut count: usize = own.values().map(|model| model.deployments.len()).sum();
        for (name, model) in &mut plan.models {
            let said = self.fallbacks.get(name);
            let others = said.map_or(&usual, |(others, _)| others);
            let mut last = last_tier(model);
            for other in others.iter().filter(|other| *other != name) {
                let Some(other) = own.get(other) else { continue };
                count += other.deployments.len();
                if count > IMPORTED_DEPLOYMENTS_MAX {
                    return Err(format!(
                        "with its fallbacks it comes to more than {IMPORTED_DEPLOYMENTS_MAX} deployments;                          take some of the fallbacks out"
                    ));
                }
                last = append_tiers(model, other, last);
            }
        }
        Ok(())
    }

    fn apply_aliases(self, plan: &mut Plan) {
        let mut taken: BTreeSet<String> = plan.models.keys().cloned().collect();
        for (alias, name, place) in self.aliases {
            if alias.contains(['*', '@']) {
                let text = format!("not imported: `{alias}` is no name that a model may have here");
                plan.notes.push(place.note(text));
                continue;
            }
            let is_free = !taken.contains(&alias);
            match plan.models.get_mut(&name).filter(|_| is_free) {
                Some(model) => {
                    let aliases = model.fields.entry("aliases").or_insert_with(|| json!([]));
                    aliases.as_array_mut().into_iter().for_each(|list| list.push(json!(alias)));
                    taken.insert(alias);
                    plan.places.insert("aliases", place);
                }
                None => {
                    let text = format!("not imported: `{name}` is no model, or `{alias}` is one already");
                    plan.notes.push(place.note(text));
                }
            }
        }
    }

    /// Tells of fallbacks from and to models that are not there.
    fn note_missing(&self, plan: &mut Plan) {
        let by_default = self.default_fallbacks.iter().map(|name| (name, &self.default_place));
        let said = self.fallbacks.iter().flat_map(|(model, (others, place))| {
            std::iter::once(model).chain(others).map(move |name| (name, place))
        });
        for (name, place) in said.chain(by_default).filter(|(name, _)| !plan.models.contains_key(*name)) {
            plan.notes.push(place.note(format!("not imported: there is no model `{name}`")));
        }
    }
}

fn tier_of(deployment: &Map<String, Value>) -> u64 {
    deployment.get("tier").and_then(Value::as_u64).unwrap_or(1)
}

fn last_tier(model: &Model) -> u64 {
    model.deployments.iter().map(tier_of).max().unwrap_or(0)
}

/// Other deployments stand in where those before cannot serve. Gives the last tier.
fn append_tiers(model: &mut Model, others: &Model, last: u64) -> u64 {
    for (other, place) in others.deployments.iter().zip(&others.places) {
        let mut other = other.clone();
        other.insert("tier".to_owned(), json!(last.saturating_add(tier_of(&other))));
        model.add(other, place.clone());
    }
    last.saturating_add(last_tier(others))
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
