//! A small value that fits a JSON schema: what the mock's model fills arguments and formatted answers with.

use serde_json::{Map, Value, json};

/// Schemas inside of each other that are followed; what lies deeper is `null`.
const DEPTH_MAX: usize = 16;

/// The smallest value that fits a schema, as far as its words are the usual ones.
pub(super) fn of_schema(schema: &Value) -> Value {
    inner(schema, schema, DEPTH_MAX)
}

fn inner(schema: &Value, root: &Value, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return Value::Null };
    let first = |name: &str| schema[name].as_array().and_then(|items| items.first());
    if let Some(value) = schema.get("const").or_else(|| first("enum")) {
        return value.clone();
    }
    if let Some(named) = schema["$ref"].as_str() {
        let found = named.strip_prefix('#').and_then(|path| root.pointer(path));
        return found.map_or(Value::Null, |found| inner(found, root, depth));
    }
    if let Some(one) = ["anyOf", "oneOf", "allOf"].into_iter().find_map(first) {
        return inner(one, root, depth);
    }
    let kind = schema["type"].as_str().or_else(|| first("type").and_then(Value::as_str));
    match kind.map(str::to_ascii_lowercase).as_deref() {
        Some("string") => "mock".into(),
        Some("integer") => schema["minimum"].as_i64().unwrap_or(1).into(),
        Some("number") => {
            schema.get("minimum").filter(|least| least.is_number()).cloned().unwrap_or(json!(1.5))
        }
        Some("boolean") => true.into(),
        Some("array") => {
            let least = schema["minItems"].as_u64().unwrap_or(1).clamp(1, DEPTH_MAX as u64);
            (0..least).map(|_| inner(&schema["items"], root, depth)).collect()
        }
        Some("object") => object(schema, root, depth),
        Some(_) | None if schema["properties"].is_object() => object(schema, root, depth),
        Some(_) | None => Value::Null,
    }
}

/// An object with the members that it has to have.
fn object(schema: &Value, root: &Value, depth: usize) -> Value {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let members = required.map(|name| (name.to_owned(), inner(&schema["properties"][name], root, depth)));
    Value::Object(members.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fit_their_schemas() {
        let check = |schema: Value, expected: Value| assert_eq!(of_schema(&schema), expected, "{schema}");
        check(json!({"type": "object", "properties": {"a": {"type": "string"}}}), json!({}));
        check(
            json!({"type": "object", "required": ["a", "b"], "properties": {
                "a": {"type": ["number", "null"]}, "b": {"$ref": "#/$defs/b"}},
                "$defs": {"b": {"type": "array", "minItems": 2, "items": {"enum": ["x", "y"]}}}}),
            json!({"a": 1.5, "b": ["x", "x"]}),
        );
        check(json!({"anyOf": [{"type": "INTEGER", "minimum": 3}, {"type": "null"}]}), json!(3));
        check(json!({"properties": {"a": {"const": 7}}, "required": ["a"]}), json!({"a": 7}));
        check(json!({}), Value::Null);
    }

    #[test]
    fn a_schema_of_itself_ends() {
        let endless = json!({"type": "object", "required": ["a"], "properties": {"a": {"$ref": "#"}}});
        assert!(of_schema(&endless).to_string().len() < 200);
    }
}
