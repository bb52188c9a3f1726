//! LiteLLM's proxy: `model_list`, `router_settings`, `litellm_settings`, `general_settings`.

mod settings;
mod upstream;

use serde_json::{Map, Value, json};

use super::node::{Fields, Kind, Node};
use super::plan::{Place, Plan};
use super::{Imported, Note};
use settings::Settings;

/// The variable that has the client key, where the file has it itself.
const MASTER_KEY: &str = "${POINTSMAN_KEY_MASTER}";

/// What it calls the ways to use a model, as ours; `chat` is what everything can do.
const MODES: [(&str, &str); 9] = [
    ("completion", "completions"),
    ("embedding", "embeddings"),
    ("responses", "responses"),
    ("rerank", "rerank"),
    ("audio_transcription", "transcriptions"),
    ("audio_speech", "speech"),
    ("image_generation", "images"),
    ("image_edit", "images"),
    ("moderation", "moderations"),
];

pub(super) fn import(root: &Node) -> Result<Imported, String> {
    gathered(root)?.finish("LiteLLM")
}

/// All that is written, before `check` has seen it.
pub(super) fn gathered(root: &Node) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let mut fields = Fields::new("", root);
    let list =
        fields.take("model_list").ok_or("it has no `model_list`; is it a config of LiteLLM's proxy?")?;
    if list.items().is_empty() {
        return Err("its `model_list` is no list, or empty".to_owned());
    }
    for (at, item) in list.items().iter().enumerate() {
        deployment(&mut plan, &format!("model_list[{at}]"), item);
    }
    let mut settings = Settings::default();
    // What the second says counts, as there.
    for section in ["litellm_settings", "router_settings"] {
        if let Some(node) = fields.take(section) {
            settings.read(section, node, &mut plan.notes);
        }
    }
    settings.apply(&mut plan)?;
    if let Some(node) = fields.take("general_settings") {
        general(&mut plan, node);
    }
    fields.rest(&mut plan.notes);
    Ok(plan)
}

/// The parts of an entry of `model_list`.
struct Entry<'n> {
    fields: Fields<'n>,
    params: Fields<'n>,
    info: Fields<'n>,
    line: u64,
}

fn deployment(plan: &mut Plan, path: &str, item: &Node) {
    let from = plan.notes.len();
    let none = Node { line: item.line, kind: Kind::Null };
    let mut fields = Fields::new(path, item);
    let name = fields.read("model_name", &mut plan.notes, Node::text);
    let params = fields.take("litellm_params");
    let why = match (name, params) {
        (None, _) | (_, None) => Some("not imported: it needs `model_name` and `litellm_params`".to_owned()),
        (Some(name), Some(_)) => name.contains(['*', '@']).then(|| {
            format!(
                "not imported: `{name}` is no name that a model may have here; list the models one by one"
            )
        }),
    };
    let info = fields.take("model_info");
    let mut entry = Entry {
        fields,
        params: Fields::new(format!("{path}.litellm_params"), params.unwrap_or(&none)),
        info: Fields::new(format!("{path}.model_info"), info.unwrap_or(&none)),
        line: item.line,
    };
    let (made, name) = match (why, name) {
        (None, Some(name)) => (made(plan, &mut entry), name),
        (text, _) => {
            let text = text.unwrap_or_default();
            plan.notes.push(Note { line: item.line, path: path.to_owned(), text });
            (None, "")
        }
    };
    let Entry { fields, mut params, info, .. } = entry;
    let Some(made) = made else {
        params.left_out(from, &mut plan.notes);
        info.left_out(from, &mut plan.notes);
        fields.rest(&mut plan.notes);
        return;
    };
    let total = params.read("timeout", &mut plan.notes, millis);
    let first = params.read("stream_timeout", &mut plan.notes, millis);
    params.rest(&mut plan.notes);
    info.rest(&mut plan.notes);
    fields.rest(&mut plan.notes);
    let model = plan.models.entry(name.to_owned()).or_default();
    for (key, ms) in [("total_ms", total), ("first_content_ms", first)] {
        if let Some(ms) = ms {
            let timeouts = model.fields.entry("timeouts").or_insert_with(|| json!({}));
            // Here they are the model's.
            let before = timeouts[key].as_u64();
            timeouts[key] = json!(before.unwrap_or(0).max(ms));
            if before.is_some_and(|before| before != ms) {
                let text = format!(
                    "timeouts are the model's: of `{name}` the longest holds, for all its deployments"
                );
                plan.notes.push(Note { line: item.line, path: path.to_owned(), text });
            }
        }
    }
    plan.places.entry("timeouts").or_insert_with(|| Place::new(item.line, path));
    model.add(made, Place::new(item.line, path));
}

/// The deployment that an entry asks for, with its provider.
fn made(plan: &mut Plan, entry: &mut Entry<'_>) -> Option<Map<String, Value>> {
    let notes = &mut plan.notes;
    let (mut upstream, model) = upstream::upstream(&mut entry.params, entry.line, notes)?;
    let mut limit = |name| {
        let read = |fields: &mut Fields<'_>, notes: &mut Vec<Note>| fields.read(name, notes, Node::count);
        let of_params = read(&mut entry.params, notes);
        of_params.or_else(|| read(&mut entry.fields, notes)).or_else(|| read(&mut entry.info, notes))
    };
    let limits = [("rpm", limit("rpm")), ("tpm", limit("tpm"))];
    upstream::limit(&mut upstream, limits, entry.line, &entry.params, notes);
    // Limits are a deployment's there and a credential's here: with any, a deployment has a provider of its own.
    let is_limited = ["rpm", "tpm"].iter().any(|name| upstream.credential.contains_key(*name));
    let (kind, value) = (upstream.kind, upstream.value());
    let provider = if is_limited { plan.own_provider(kind, value) } else { plan.provider(kind, value) };
    let mut made = Map::new();
    made.insert("provider".to_owned(), json!(provider));
    made.insert("model".to_owned(), json!(model));
    for (theirs, ours) in [("weight", "weight"), ("order", "tier"), ("max_parallel_requests", "slots")] {
        let least = u64::from(ours != "weight");
        let count = |node: &Node| node.count().filter(|count| *count >= least);
        if let Some(count) = entry.params.read(theirs, &mut plan.notes, count) {
            made.insert(ours.to_owned(), json!(count));
        }
    }
    let tags = |node: &Node| -> Option<Vec<String>> {
        matches!(node.kind, Kind::List(_)).then_some(())?;
        node.items().iter().map(|tag| tag.text().map(str::to_owned)).collect()
    };
    if let Some(tags) = entry.params.read("tags", &mut plan.notes, tags).filter(|tags| !tags.is_empty()) {
        made.insert("tags".to_owned(), json!(tags));
    }
    model_info(&mut made, &mut entry.info, &mut plan.notes);
    price(&mut made, &mut entry.params, &mut plan.notes);
    if !made.contains_key("price") {
        price(&mut made, &mut entry.info, &mut plan.notes);
    }
    Some(made)
}

/// Prices for each token, as ours for a million.
fn price(made: &mut Map<String, Value>, fields: &mut Fields<'_>, notes: &mut Vec<Note>) {
    let mut price = Map::new();
    for (theirs, ours) in [
        ("input_cost_per_token", "input"),
        ("output_cost_per_token", "output"),
        ("cache_read_input_token_cost", "cached_input"),
        ("cache_creation_input_token_cost", "cache_write"),
        ("cache_creation_input_token_cost_above_1hr", "cache_write_1h"),
        ("output_cost_per_reasoning_token", "reasoning"),
        ("input_cost_per_audio_token", "audio_input"),
        ("output_cost_per_audio_token", "audio_output"),
    ] {
        if let Some(each) = fields.read(theirs, notes, |node| node.number().filter(|number| *number >= 0.0)) {
            // A price has few digits; what more there is came from the multiplication.
            let million = (each * 1e12).round() / 1e6;
            price.insert(ours.to_owned(), json!(million));
        }
    }
    // What is not said is unknown, not free; only embeddings have no output.
    let embeds = made.get("capabilities") == Some(&json!(["embeddings"]));
    if embeds && price.contains_key("input") {
        price.entry("output").or_insert_with(|| json!(0.0));
    }
    match (price.contains_key("input"), price.contains_key("output")) {
        (true, true) => drop(made.insert("price".to_owned(), Value::Object(price))),
        _ if price.is_empty() => {}
        (..) => {
            let text = "not imported: a price needs what input and output cost".to_owned();
            notes.push(Note { line: fields.line(), path: fields.path_of("input_cost_per_token"), text });
        }
    }
}

fn model_info(made: &mut Map<String, Value>, info: &mut Fields<'_>, notes: &mut Vec<Note>) {
    for (theirs, ours) in
        [("max_input_tokens", "context_tokens_max"), ("max_output_tokens", "output_tokens_max")]
    {
        if let Some(count) = info.read(theirs, notes, |node| node.count().filter(|count| *count > 0)) {
            made.insert(ours.to_owned(), json!(count));
        }
    }
    if let Some(id) = info.read("id", notes, Node::text) {
        made.insert("name".to_owned(), json!(id));
    }
    let Some(mode) = info.read("mode", notes, Node::text) else { return };
    match MODES.iter().find(|(theirs, _)| *theirs == mode) {
        Some((_, capability)) => drop(made.insert("capabilities".to_owned(), json!([capability]))),
        None if mode == "chat" => {}
        None => {
            let text = format!("not imported: there is no capability like `{mode}`");
            notes.push(info.note_at("mode", info.line(), text));
        }
    }
}

/// Seconds as milliseconds.
fn millis(node: &Node) -> Option<u64> {
    node.number()
        .filter(|seconds| *seconds > 0.0)
        .map(|seconds| (seconds * 1000.0).round().clamp(1.0, 86_400_000.0) as u64)
}

fn general(plan: &mut Plan, node: &Node) {
    let mut fields = Fields::new("general_settings", node);
    if let Some(key) = fields.take("master_key") {
        let place = Place::new(key.line, fields.path_of("master_key"));
        // What comes in without it must not be served, so there is a key whatever is said of it.
        let key = key.text().filter(|key| key.starts_with("${")).unwrap_or_else(|| {
            let text = "the key is not copied: put one of 8 characters or more into the variable POINTSMAN_KEY_MASTER";
            plan.notes.push(place.note(text.to_owned()));
            MASTER_KEY
        });
        plan.sections.insert("auth", json!({ "keys": [{ "name": "master", "key": key }] }));
        plan.places.insert("auth", place);
    }
    fields.rest(&mut plan.notes);
}
