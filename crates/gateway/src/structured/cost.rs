//! How long a check can take at most. Schemas come from clients, and a short one can ask for more steps than there is time:
//! references that go round, or that double at every level. What a check costs is counted before it is made, by a walk
//! that does not double, for it remembers what it has counted.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;
use serde_json::Value;

/// Applications of a schema to a value that one check may take.
const STEPS_MAX: u64 = 2_000_000;
/// Pairs of a schema and a value that are counted at most.
const PAIRS_MAX: usize = 100_000;
/// Schemas within schemas, references followed.
const DEPTH_MAX: usize = 512;

/// Members whose values are schemas that are applied to the value itself.
const IN_PLACE: [&str; 7] = ["not", "if", "then", "else", "allOf", "anyOf", "oneOf"];
/// Members with schemas by name that are applied to the value itself.
const IN_PLACE_BY_NAME: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Members that refer to a schema.
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Members whose values are schemas for what is inside the value.
const INSIDE: [&str; 8] = [
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "unevaluatedItems",
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
];

/// Refuses a schema that no value can be checked by: it refers to another document, or its references go round without
/// end, or are too many.
pub(super) fn check(schema: &Value) -> Result<(), String> {
    let older = schema.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04"));
    stays_within(schema, if older { "id" } else { "$id" }, true)?;
    match Count::of(schema).steps(schema, &Value::Null, 0) {
        Some(steps) if steps <= STEPS_MAX => Ok(()),
        Some(_) => Err("its references are too many to be followed".to_owned()),
        None => Err("its references go round without end, or too deep".to_owned()),
    }
}

/// Whether a value can be checked in the time there is.
pub(super) fn may_be_checked(schema: &Value, value: &Value) -> bool {
    Count::of(schema).steps(schema, value, 0).is_some_and(|steps| steps <= STEPS_MAX)
}

struct Count<'a> {
    root: &'a Value,
    /// By the places of schema and value. `None`: it is being counted.
    counted: HashMap<(usize, usize), Option<u64>, FxBuildHasher>,
}

fn place(value: &Value) -> usize {
    std::ptr::from_ref(value) as usize
}

impl<'a> Count<'a> {
    fn of(root: &'a Value) -> Self {
        Self { root, counted: HashMap::default() }
    }

    /// The most applications that checking `value` by `schema` takes; `None` if there is no end to them, or too many to
    /// be counted.
    fn steps(&mut self, schema: &'a Value, value: &Value, depth: usize) -> Option<u64> {
        let Value::Object(members) = schema else { return Some(1) };
        let pair = (place(schema), place(value));
        if let Some(known) = self.counted.get(&pair) {
            return *known;
        }
        if depth > DEPTH_MAX || self.counted.len() >= PAIRS_MAX {
            return None;
        }
        self.counted.insert(pair, None);
        let mut steps = 1_u64;
        for (name, member) in members {
            steps = steps.saturating_add(self.steps_of_member(name, member, value, depth + 1)?);
        }
        self.counted.insert(pair, Some(steps));
        Some(steps)
    }

    fn steps_of_member(&mut self, name: &str, member: &'a Value, value: &Value, depth: usize) -> Option<u64> {
        if REFERENCES.contains(&name) {
            return self.referred(member).map_or(Some(1), |schema| self.steps(schema, value, depth));
        }
        if IN_PLACE.contains(&name) {
            return self.all(schemas(member), &[value], depth);
        }
        if IN_PLACE_BY_NAME.contains(&name) {
            return self.all(by_name(member).map(|(_, schema)| schema), &[value], depth);
        }
        if INSIDE.contains(&name) {
            return self.all(schemas(member), &inside(value), depth);
        }
        if name == "patternProperties" {
            return self.all(by_name(member).map(|(_, schema)| schema), &inside(value), depth);
        }
        if name == "properties" {
            let mut steps = 0_u64;
            for (name, schema) in by_name(member) {
                let Some(value) = value.get(name) else { continue };
                steps = steps.saturating_add(self.steps(schema, value, depth)?);
            }
            return Some(steps);
        }
        Some(0)
    }

    fn all(
        &mut self,
        schemas: impl Iterator<Item = &'a Value>,
        values: &[&Value],
        depth: usize,
    ) -> Option<u64> {
        let mut steps = 0_u64;
        for schema in schemas {
            for value in values {
                steps = steps.saturating_add(self.steps(schema, value, depth)?);
            }
        }
        Some(steps)
    }

    /// What a reference means: a place, or a name.
    fn referred(&self, reference: &Value) -> Option<&'a Value> {
        let reference = reference.as_str()?;
        let pointer = reference.strip_prefix('#')?;
        let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
        if pointer.is_empty() {
            return Some(self.root);
        }
        self.root.pointer(&pointer).or_else(|| anchored(self.root, &pointer, 0))
    }
}

/// Whether every reference is one to a place in the schema itself, as it is counted here. That a part of a schema names
/// itself a document of its own is nothing that anybody writes by hand.
fn stays_within(schema: &Value, id: &str, outermost: bool) -> Result<(), String> {
    match schema {
        Value::Object(members) => {
            let text = |name: &str| members.get(name).and_then(Value::as_str);
            if let Some(other) =
                REFERENCES.iter().find_map(|name| text(name).filter(|to| !to.starts_with('#')))
            {
                return Err(format!("it refers to `{}`, and nothing is fetched", super::cut(other)));
            }
            if let Some(own) = text(id).filter(|_| !outermost) {
                return Err(format!("a part of it has an `{id}` of its own (`{}`)", super::cut(own)));
            }
            members.values().try_for_each(|member| stays_within(member, id, false))
        }
        Value::Array(items) => items.iter().try_for_each(|item| stays_within(item, id, false)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// The schema with that name for references, anywhere within `schema`.
fn anchored<'a>(schema: &'a Value, name: &str, depth: usize) -> Option<&'a Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    match schema {
        Value::Object(members) => {
            let named = ["$anchor", "$dynamicAnchor"]
                .iter()
                .any(|key| members.get(*key).and_then(Value::as_str) == Some(name));
            if named {
                return Some(schema);
            }
            members.values().find_map(|member| anchored(member, name, depth + 1))
        }
        Value::Array(items) => items.iter().find_map(|item| anchored(item, name, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// One schema, or each of a list.
fn schemas(member: &Value) -> impl Iterator<Item = &Value> {
    let (one, many) = match member {
        Value::Array(many) => (None, many.as_slice()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            (Some(member), &[][..])
        }
    };
    one.into_iter().chain(many)
}

fn by_name(member: &Value) -> impl Iterator<Item = (&String, &Value)> {
    member.as_object().into_iter().flatten()
}

/// What is inside a value.
fn inside(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
