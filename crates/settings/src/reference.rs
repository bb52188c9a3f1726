//! What is generated from the types: the schema and the reference pages.

use std::fmt::Write;

use pointsman_routing::strategy;
use pointsman_wire::vendor;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::Config;
use crate::tree::join;

/// The JSON Schema (2020-12) of the configuration.
pub fn schema() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Config>().to_value()
}

/// The reference page of the configuration: a section for every map, by its path in the file.
pub fn reference_markdown() -> String {
    let schema = schema();
    let mut page = Page { definitions: &schema["$defs"], sections: Vec::new(), text: PREFACE.to_owned() };
    page.section("", &schema);
    let mut next = 0;
    while let Some((path, name)) = page.sections.get(next).cloned() {
        page.section(&path, &page.definitions[name.as_str()]);
        next += 1;
    }
    page.text
}

const PREFACE: &str = "# Configuration\n\n\
    Generated from the types by `cargo xtask codegen`; do not edit. Unknown keys are errors. In any value, `${VAR}` and \
    `${VAR:-default}` are put in once when the file is read (`$${` stands for the characters themselves), and a value \
    that begins with `file:` is read from that file. For editors: `pointsman schema`.\n";

/// The page while it is written.
struct Page<'a> {
    definitions: &'a Value,
    /// Maps that have or will have a section: the first path they stand at, and the name of their definition.
    sections: Vec<(String, String)>,
    text: String,
}

impl Page<'_> {
    /// Writes the section of the map at `path`.
    fn section(&mut self, path: &str, definition: &Value) {
        let title = if path.is_empty() { "The file".to_owned() } else { format!("`{path}`") };
        let about = in_line(&definition["description"]);
        let _ = write!(self.text, "\n## {title}\n\n{about}\n\n");
        self.text.push_str("| key | type | range | meaning |\n|---|---|---|---|\n");
        let schema = object_form(definition);
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut words = String::new();
        for (key, field) in schema["properties"].as_object().into_iter().flatten() {
            let kind = self.kind(&join(path, key), field);
            let about = in_line(&field["description"]);
            let must = if required.contains(&key.as_str()) { "Required. " } else { "" };
            let _ = writeln!(self.text, "| `{key}` | {kind} | {} | {must}{about} |", range(field));
            words.push_str(&self.words(key, field));
        }
        self.text.push_str(&words);
    }

    /// The type of a field in a few words, with a link where it has a section of its own.
    fn kind(&mut self, path: &str, field: &Value) -> String {
        if let Some(name) = target(field) {
            return self.named(path, name);
        }
        let forms: Vec<&Value> = field["anyOf"].as_array().into_iter().flatten().collect();
        let forms: Vec<String> = forms
            .into_iter()
            .filter(|form| form["type"] != "null")
            .map(|form| self.kind(path, form))
            .collect();
        if !forms.is_empty() {
            return forms.join(" or ");
        }
        let patterns = field["patternProperties"].as_object().and_then(|patterns| patterns.values().next());
        let inner = Some(&field["additionalProperties"]).filter(|inner| inner.is_object()).or(patterns);
        let names = match &field["type"] {
            Value::Array(names) => {
                names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect()
            }
            Value::String(name) => vec![name.as_str()],
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
        };
        match (names.as_slice(), inner) {
            (["array"], _) => format!("list of {}", self.kind(&format!("{path}[]"), &field["items"])),
            (["object"], Some(inner)) => format!("map to {}", self.kind(&format!("{path}.<name>"), inner)),
            (["string"], _) => "text".to_owned(),
            (["integer"], _) => "whole number".to_owned(),
            (["boolean"], _) => "true or false".to_owned(),
            (names, _) => names.join(" or "),
        }
    }

    fn named(&mut self, path: &str, name: &str) -> String {
        let definition = &self.definitions[name];
        match name {
            "Strategy" => return "[strategy](strategies.md)".to_owned(),
            "VendorKind" => return "[vendor](../vendors.md)".to_owned(),
            "Secret" => return "secret".to_owned(),
            _ => {}
        }
        if let Some([only]) = choices(definition).as_deref() {
            return format!("`{}`", only.0);
        }
        if choices(definition).is_some() {
            return "word".to_owned();
        }
        let form = object_form(definition);
        if !form["properties"].is_object() {
            return self.kind(path, definition);
        }
        let known = self.sections.iter().find(|(_, known)| known == name).map(|(path, _)| path.clone());
        let at = known.unwrap_or_else(|| {
            self.sections.push((path.to_owned(), name.to_owned()));
            path.to_owned()
        });
        let or_text = if std::ptr::eq(form, definition) { "" } else { "text or " };
        format!("{or_text}[map](#{})", anchor(&at))
    }

    /// What the words mean that a field may have.
    fn words(&self, key: &str, field: &Value) -> String {
        let fields = [field, &field["items"]];
        let forms = fields.into_iter().chain(field["anyOf"].as_array().into_iter().flatten());
        let choices = forms.filter_map(target).find_map(|name| choices(&self.definitions[name]));
        let Some(choices) = choices.filter(|choices| choices.len() > 1) else { return String::new() };
        let mut text = format!("\nWords of `{key}`:\n\n");
        for (word, about) in choices {
            let _ = writeln!(text, "- `{word}`: {about}");
        }
        text
    }
}

/// The form of a definition that is a map, where others are allowed.
fn object_form(definition: &Value) -> &Value {
    let forms = definition["anyOf"].as_array().into_iter().flatten();
    forms.into_iter().find(|form| form["properties"].is_object()).unwrap_or(definition)
}

fn target(field: &Value) -> Option<&str> {
    field["$ref"].as_str().and_then(|target| target.strip_prefix("#/$defs/"))
}

/// The words of an enumeration with their meanings.
fn choices(schema: &Value) -> Option<Vec<(&str, String)>> {
    let forms = schema["oneOf"].as_array()?;
    forms.iter().map(|form| Some((form["const"].as_str()?, in_line(&form["description"])))).collect()
}

/// The range of a number; what its type allows anyway is not repeated.
fn range(field: &Value) -> String {
    let unsigned = field["format"].as_str().is_some_and(|format| format.starts_with("uint"));
    match (field["minimum"].as_f64(), field["maximum"].as_f64()) {
        (None, None) => String::new(),
        (Some(0.0), None) if unsigned => String::new(),
        (Some(min), None) => format!("{min} or more"),
        (None, Some(max)) => format!("up to {max}"),
        (Some(min), Some(max)) => format!("{min} to {max}"),
    }
}

fn in_line(text: &Value) -> String {
    text.as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}

/// The anchor that GitHub makes of a heading.
fn anchor(title: &str) -> String {
    let kept = title.to_lowercase().replace(' ', "-");
    kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
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
         these; `openai_compatible` with a `base_url` fits any other server that speaks the OpenAI API. A vendor that is \
         missing is one record in `crates/wire/src/vendors.toml`.\n\nKeys from the environment are taken on the first run \
         without a config; those in parentheses are not, for programs of another purpose have theirs there.\n\n\
         | kind | also | `base_url` and path | key from | own engine | health |\n|---|---|---|---|---|---|\n",
    );
    for vendor in vendor::vendors() {
        let form = || vendor.base_url_form.as_ref().map_or_else(String::new, |form| format!(", `{form}`"));
        let base = vendor.base_url.as_deref();
        let base = base.map_or_else(|| format!("(required{})", form()), |url| format!("`{url}`"));
        let env = code_list(&vendor.env);
        let env = if vendor.discover || env.is_empty() { env } else { format!("({env})") };
        let engine = if vendor.engine { "yes" } else { "no" };
        let (also, prefix, health) = (code_list(&vendor.aliases), &vendor.path_prefix, &vendor.health_path);
        let _ = writeln!(
            page,
            "| `{}` | {also} | {base} `{prefix}` | {env} | {engine} | `{health}` |",
            vendor.kind
        );
    }
    page.push_str("\n## What differs on the wire\n\n");
    for vendor in vendor::vendors() {
        let mut told = vendor.quirks.clone();
        if let Some(field) = &vendor.reasoning_field {
            told.push(format!("Thoughts come in `{field}`, and go back in it."));
        }
        for (field, name) in &vendor.renamed_fields {
            told.push(format!("`{}` is called `{name}`.", field.name()));
        }
        if !vendor.refused_fields.is_empty() {
            let names: Vec<String> =
                vendor.refused_fields.iter().map(|field| field.name().to_owned()).collect();
            told.push(format!("Takes no {}.", code_list(&names)));
        }
        if vendor.responses {
            told.push("Has the Responses API.".to_owned());
        }
        if !vendor.stream_usage {
            told.push("`stream_options` is not sent.".to_owned());
        }
        if !vendor.limit_headers.is_empty() {
            told.push(format!("Limits are told by {}.", code_list(&vendor.limit_headers)));
        }
        if let Some(source) = &vendor.source {
            told.push(format!("Read at <{source}>."));
        }
        if !told.is_empty() {
            let _ = writeln!(page, "- `{}`: {}", vendor.kind, told.join(" "));
        }
    }
    page
}

fn code_list(words: &[String]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
