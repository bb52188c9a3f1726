//! What is generated from the types: the schema and the reference pages.

use std::fmt::Write;

use pointsman_routing::strategy;
use pointsman_wire::vendor;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::Config;

/// The JSON Schema (2020-12) of the configuration.
pub fn schema() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>().to_value()
}

/// The reference page of the configuration.
pub fn reference_markdown() -> String {
    let schema = schema();
    let mut page = String::from(
        "# Configuration\n\nGenerated from the types by `cargo xtask codegen`; do not edit. Unknown keys are errors. In any text, \
         `${VAR}` and `${VAR:-default}` are put in once when the file is read, and a value that begins with `file:` is \
         read from that file. For editors: `pointsman schema`.\n",
    );
    section(&mut page, "The file", &schema);
    let Some(definitions) = schema["$defs"].as_object() else { return page };
    for (name, definition) in definitions {
        if definition["properties"].is_object() && name != "Strategy" {
            section(&mut page, name, definition);
        } else if let Some(values) = choices(definition) {
            let about = definition["description"].as_str().unwrap_or_default();
            let _ = write!(page, "\n## {name}\n\n{about}\n\n| value | meaning |\n|---|---|\n{values}");
        }
    }
    page
}

fn section(page: &mut String, name: &str, schema: &Value) {
    let about = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    let _ = write!(page, "\n## {name}\n\n{about}\n\n| key | type | meaning |\n|---|---|---|\n");
    for (key, field) in schema["properties"].as_object().into_iter().flatten() {
        let about = field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(page, "| `{key}` | {} | {about} |", kind(field));
    }
}

fn choices(schema: &Value) -> Option<String> {
    let mut rows = String::new();
    for form in schema["oneOf"].as_array()? {
        let about = form["description"].as_str().unwrap_or_default().replace('\n', " ");
        let _ = writeln!(rows, "| `{}` | {about} |", form["const"].as_str()?);
    }
    Some(rows)
}

/// The type of a field in a few words, with a link where it has a section of its own.
fn kind(field: &Value) -> String {
    if let Some(name) = field["$ref"].as_str().and_then(|target| target.strip_prefix("#/$defs/")) {
        return match name {
            "Strategy" => "[Strategy](strategies.md)".to_owned(),
            "Secret" => "secret".to_owned(),
            _ => format!("[{name}](#{})", name.to_lowercase()),
        };
    }
    let forms = field["anyOf"].as_array().into_iter().flatten();
    let forms: Vec<String> = forms.filter(|form| form["type"] != "null").map(kind).collect();
    if !forms.is_empty() {
        return forms.join(" or ");
    }
    let names = match &field["type"] {
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
        }
        Value::String(name) => vec![name.as_str()],
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    match names.as_slice() {
        ["array"] => format!("list of {}", kind(&field["items"])),
        ["object"] if field["additionalProperties"].is_object() => {
            format!("map to {}", kind(&field["additionalProperties"]))
        }
        [] => "value".to_owned(),
        names => names.join(" or "),
    }
}

/// The reference page of the strategies.
pub fn strategies_markdown() -> String {
    let mut page = String::from(
        "# Strategies\n\nGenerated from the definitions by `cargo xtask codegen`; do not edit. Hyphens are understood for \
         underscores. Around every strategy stand tiers, splits, regions, tags, versions, capabilities, breakers and quotas: \
         a strategy picks among the deployments that all of these leave.\n\n| name | also | picks |\n|---|---|---|\n",
    );
    for def in strategy::ALL {
        let also = def.aliases.iter().map(|alias| format!("`{alias}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| `{}` | {also} | {} |", def.name, def.summary);
    }
    for def in strategy::ALL {
        let schema = def.schema(&mut SchemaSettings::draft2020_12().into_generator()).to_value();
        if let Some(fields) = schema["properties"].as_object().filter(|fields| !fields.is_empty()) {
            let _ = write!(page, "\n## Options of `{}`\n\n| key | meaning |\n|---|---|\n", def.name);
            for (key, field) in fields {
                let about = field["description"].as_str().unwrap_or_default().replace('\n', " ");
                let _ = writeln!(page, "| `{key}` | {about} |");
            }
        }
    }
    page
}

/// The reference page of the vendors.
pub fn vendors_markdown() -> String {
    let mut page = String::from(
        "# Vendors\n\nGenerated from the records by `cargo xtask codegen`; do not edit. The `kind` of a provider is one of \
         these; `openai_compatible` with a `base_url` fits any other server that speaks the OpenAI API.\n\n\
         | kind | default `base_url` | key from | own engine | health |\n|---|---|---|---|---|\n",
    );
    for vendor in vendor::vendors() {
        let base =
            vendor.base_url.as_deref().map_or_else(|| "(required)".to_owned(), |url| format!("`{url}`"));
        let env = vendor.env.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let engine = if vendor.engine { "yes" } else { "no" };
        let _ =
            writeln!(page, "| `{}` | {base} | {env} | {engine} | `{}` |", vendor.kind, vendor.health_path);
    }
    page
}
