//! Gemini's own schemas, a subset of OpenAPI's, as JSON schemas. The other way none is needed: what is JSON schema already
//! goes into `parametersJsonSchema` and `responseJsonSchema` as it is.

use crate::json::tree::Tree;
use crate::json::write::{Object, array, object};
use crate::json::{Kind, quote};

use super::words::snake;

/// A schema as a JSON schema.
pub(super) fn json_schema(schema: &Tree<'_>) -> String {
    if schema.kind() != Kind::Object {
        return schema.raw().to_owned();
    }
    let get = |name: &str| schema.get(name).or_else(|| schema.get(&snake(name)));
    let nullable = get("nullable").and_then(Tree::boolean) == Some(true);
    let untyped = get("type").is_none();
    object(|it| {
        for (name, value) in schema.clone().into_members().rest() {
            let name = camel(&name);
            match name.as_str() {
                "nullable" | "propertyOrdering" => {}
                "type" => fill_type(it, &value, nullable),
                "enum" if nullable => {
                    let words = value.items().iter().map(Tree::raw).filter(|word| *word != "null");
                    it.array("enum", words.chain(["null"]));
                }
                "properties" | "$defs" | "defs" => {
                    it.object(if name == "properties" { "properties" } else { "$defs" }, |it| {
                        for (name, inner) in value.into_members().all() {
                            it.raw(&name, &json_schema(&inner));
                        }
                    });
                }
                "items" | "additionalProperties" => _ = it.raw(&name, &json_schema(&value)),
                "anyOf" | "oneOf" | "allOf" | "prefixItems" => {
                    let inner = value.items().iter().map(json_schema);
                    let none = nullable && name == "anyOf" && untyped;
                    let none = none.then(|| r#"{"type":"null"}"#.to_owned());
                    it.raw(&name, &array(inner.chain(none)));
                }
                // Whole numbers of 64 bits are strings in this dialect.
                "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties" => {
                    _ = it.raw(&name, value.text().filter(|text| is_digits(text)).unwrap_or(value.raw()));
                }
                "example" => _ = it.array("examples", [value.raw()]),
                _ => _ = it.raw(&name, value.raw()),
            }
        }
    })
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `any_of` as `anyOf`.
fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut characters = word.chars();
        out.extend(characters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(characters.as_str());
    }
    out
}

/// `STRING` as `string`, with `null` beside it where that is allowed.
fn fill_type(it: &mut Object, kind: &Tree<'_>, nullable: bool) {
    let Some(word) = kind.text() else {
        it.raw("type", kind.raw());
        return;
    };
    if word == "TYPE_UNSPECIFIED" {
        return;
    }
    let word = word.to_ascii_lowercase();
    if nullable && word != "null" {
        it.array("type", [quote(&word), quote("null")]);
    } else {
        it.text("type", &word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema: &str, expected: &str) {
        assert_eq!(json_schema(&Tree::parse(schema, 64).unwrap()), expected);
    }

    #[test]
    fn types_are_in_small_letters_and_may_be_null() {
        check(r#"{"type":"STRING"}"#, r#"{"type":"string"}"#);
        check(
            r#"{"nullable":true,"type":"INTEGER","format":"int32"}"#,
            r#"{"type":["integer","null"],"format":"int32"}"#,
        );
        check(
            r#"{"type":"STRING","enum":["A","B"],"nullable":true}"#,
            r#"{"type":["string","null"],"enum":["A","B",null]}"#,
        );
        check(r#"{"type":"object"}"#, r#"{"type":"object"}"#);
    }

    #[test]
    fn what_is_inside_is_turned_as_well_but_not_the_names_of_properties() {
        check(
            r#"{"type":"OBJECT","properties":{"type":{"type":"STRING"},"max_items":{"type":"ARRAY","min_items":"2","items":{"any_of":[{"type":"NUMBER"},{"type":"BOOLEAN"}]}}},"required":["type"],"propertyOrdering":["type"]}"#,
            r#"{"type":"object","properties":{"type":{"type":"string"},"max_items":{"type":"array","minItems":2,"items":{"anyOf":[{"type":"number"},{"type":"boolean"}]}}},"required":["type"]}"#,
        );
    }
}
