//! What is generated says what is read.

use super::*;
use serde_json::Value;

/// Whether the schema accepts `value`; the words of JSON Schema that ours uses.
fn fits(value: &Value, schema: &Value, root: &Value) -> Result<(), String> {
    if let Some(target) = schema["$ref"].as_str() {
        return fits(value, root.pointer(&target[1..]).unwrap(), root);
    }
    let forms = [&schema["anyOf"], &schema["oneOf"]].into_iter().filter_map(Value::as_array);
    for forms in forms {
        let tried: Vec<_> = forms.iter().map(|form| fits(value, form, root)).collect();
        if tried.iter().all(Result::is_err) {
            return Err(format!("{value}: {tried:?}"));
        }
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let one = |name: &Value| name == kind || (name == "number" && kind == "integer");
    let typed = match &schema["type"] {
        Value::Null => true,
        Value::Array(names) => names.iter().any(one),
        name @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => one(name),
    };
    let constant = schema.get("const").is_none_or(|constant| constant == value);
    let listed = schema["enum"].as_array().is_none_or(|words| words.contains(value));
    if !(typed && constant && listed) {
        return Err(format!("{value} is not {schema}"));
    }
    for item in value.as_array().into_iter().flatten() {
        fits(item, &schema["items"], root)?;
    }
    let Some(map) = value.as_object() else { return Ok(()) };
    for must in schema["required"].as_array().into_iter().flatten() {
        map.get(must.as_str().unwrap()).ok_or_else(|| format!("{must} is missing"))?;
    }
    for (key, value) in map {
        let own = schema["properties"].get(key);
        let pattern = schema["patternProperties"].as_object().and_then(|patterns| patterns.values().next());
        match own.or(pattern).or(schema.get("additionalProperties")) {
            Some(Value::Bool(false)) => return Err(format!("unknown {key}")),
            Some(schema) => fits(value, schema, root).map_err(|error| format!("{key}: {error}"))?,
            None => {}
        }
    }
    Ok(())
}

#[test]
fn the_schema_accepts_what_the_reader_accepts() {
    let root = schema();
    let more = [
        GOOD,
        "providers: { a: { kind: openai, health: off, keys: [x] }, b: { kind: vllm, base_url: 'http://h', health: { path: /h } } }",
        "models: { m: { strategy: least-busy, tiers: { 1: { strategy: { name: random } } }, params: { n: { max: 1 } }, deployments: [] } }",
    ];
    for text in more {
        let sources = Sources { env: &|_| Some("key-value".to_owned()), file: &|_| Err(String::new()) };
        let (document, _) = tree::read(text, &sources).unwrap();
        fits(&document.value, &root, &root).unwrap();
    }
    let wrong = serde_json::json!({"models": {"m": {"stratgy": "random"}}});
    assert!(fits(&wrong, &root, &root).is_err());
}

#[test]
fn what_the_comments_call_the_default_is_the_default() {
    let mut checked = 0;
    let root = schema();
    let definitions = root["$defs"].as_object().unwrap();
    for definition in definitions.values().chain([&root]) {
        for (key, field) in definition["properties"].as_object().into_iter().flatten() {
            let about = field["description"].as_str().unwrap_or_default();
            let Some((_, said)) = about.split_once("Default: ") else { continue };
            let said = said.split([' ', ',']).next().unwrap().trim_end_matches('.').trim_matches('`');
            match &field["default"] {
                Value::Number(number) => assert_eq!(number.to_string(), said, "{key}"),
                Value::String(word) => assert_eq!(word, said, "{key}"),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => continue,
            }
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked}");
    // The sections that models narrow have their defaults where both are put together.
    let (usual, general) = (TimeoutsConfig::default(), definitions["TimeoutsConfig"].clone());
    let spec = usual.over(&usual);
    for (key, time) in [
        ("connect_ms", spec.connect),
        ("first_content_ms", spec.first_content),
        ("idle_ms", spec.idle),
        ("total_ms", spec.total),
        ("header_hold_ms", spec.header_hold),
    ] {
        let about = general["properties"][key]["description"].as_str().unwrap();
        assert!(about.ends_with(&format!("Default: {}.", time.as_millis())), "{about}");
    }
}

#[test]
fn every_example_is_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/examples");
    let mut seen = 0;
    #[expect(clippy::disallowed_methods, reason = "the test reads the examples that ship with the project")]
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let env = |name: &str| Some(format!("value-of-{name}"));
        let file = |_: &str| Ok("secret".to_owned());
        let sources = Sources { env: &env, file: &file };
        if let Err(said) = parse(&text, &sources) {
            panic!("{}: {said:?}", path.display());
        }
        let (document, _) = tree::read(&text, &sources).unwrap();
        fits(&document.value, &schema(), &schema()).unwrap();
        seen += 1;
    }
    assert!(seen >= 5, "{seen}");
}
