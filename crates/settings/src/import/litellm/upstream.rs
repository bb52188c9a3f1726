//! What `litellm_params` ask for: the vendor by the model's prefix, where it is, and what lets in.

use pointsman_wire::cloud::Cloud;
use pointsman_wire::vendor;
use serde_json::json;

use crate::import::Note;
use crate::import::node::{Fields, Kind, NOT_UNDERSTOOD, Node};
use crate::import::upstream::{Upstream, Variables, kind_for};

/// Prefixes of models whose vendors have another name here.
const PREFIXES: [(&str, &str); 22] = [
    ("hosted_vllm", "vllm"),
    ("vllm", "vllm"),
    ("ollama_chat", "ollama"),
    ("text-completion-openai", "openai"),
    ("aiohttp_openai", "openai"),
    ("anthropic_text", "anthropic"),
    ("cohere_chat", "cohere"),
    ("ai21_chat", "ai21"),
    ("azure_text", "azure"),
    ("bedrock_converse", "bedrock"),
    ("vertex_ai_beta", "vertex"),
    ("custom_openai", "openai_compatible"),
    ("openai_like", "openai_compatible"),
    ("azure_ai", "openai_compatible"),
    ("xinference", "openai_compatible"),
    ("infinity", "openai_compatible"),
    ("oobabooga", "openai_compatible"),
    ("lemonade", "openai_compatible"),
    ("docker_model_runner", "openai_compatible"),
    ("nscale", "openai_compatible"),
    ("codestral", "openai_compatible"),
    ("llamafile", "llama_cpp"),
];

/// Beginnings of names that it knows the vendors of without a prefix.
const BARE: [(&str, &str); 3] = [("claude", "anthropic"), ("gemini", "vertex_ai"), ("command", "cohere")];

/// Beginnings of models at Vertex AI that are neither Google's nor Anthropic's.
const VERTEX_PARTNERS: [&str; 10] = [
    "meta/",
    "mistral",
    "codestral",
    "jamba",
    "ai21/",
    "deepseek-ai/",
    "qwen/",
    "openai/",
    "minimaxai/",
    "moonshotai/",
];

/// Where it looks for what its configuration does not say.
const VARIABLES: Variables = Variables {
    aws_region: "AWS_REGION",
    google_project: "VERTEXAI_PROJECT",
    azure_base_url: "AZURE_API_BASE",
    azure_key: "AZURE_API_KEY",
};

/// The provider that is asked for, without limits, and the model's name there.
pub(super) fn upstream(
    params: &mut Fields<'_>,
    line: u64,
    notes: &mut Vec<Note>,
) -> Option<(Upstream, String)> {
    let node = params.take("model");
    let Some((node, text)) = node.and_then(|node| Some((node, node.text()?))) else {
        let text = "not imported: it says no model that is understood".to_owned();
        let line = node.map_or(line, |node| node.line);
        notes.push(Note { line, path: params.path_of("model"), text });
        return None;
    };
    let given = params.read("custom_llm_provider", notes, Node::text);
    let base_url = params.read("api_base", notes, Node::text);
    let base_url = base_url.or_else(|| params.read("base_url", notes, Node::text)).map(str::to_owned);
    let (prefix, model) = match (given, text.split_once('/')) {
        (Some(given), Some((prefix, model))) if prefix == given => (given, model),
        (Some(given), _) => (given, text),
        (None, Some((prefix, model))) if kind_of(prefix).is_some() || base_url.is_none() => (prefix, model),
        (None, None) if base_url.is_none() && text.starts_with("${") => {
            let text = "not imported: its vendor is in the variable; say it by `custom_llm_provider`";
            params.note(node, "model", text, notes);
            return None;
        }
        (None, _) => (bare(text).filter(|_| base_url.is_none()).unwrap_or("openai"), text),
    };
    let kind = match kind_of(prefix) {
        // What says `openai` but is elsewhere is something that speaks like it.
        Some("openai") if base_url.is_some() => "openai_compatible",
        Some(kind) => kind_for(kind, model),
        None if base_url.is_some() => {
            let text = format!(
                "`{prefix}` is not known here; imported as `openai_compatible`, check that it speaks that"
            );
            params.note(node, "model", text, notes);
            "openai_compatible"
        }
        None => {
            let text = format!("not imported: there is no vendor `{prefix}`, and no `api_base`");
            params.note(node, "model", text, notes);
            return None;
        }
    };
    if kind == "vertex" && VERTEX_PARTNERS.iter().any(|partner| model.starts_with(partner)) {
        let text = "not imported: of Vertex AI's models only Google's and Anthropic's can be served";
        params.note(node, "model", text, notes);
        return None;
    }
    let mut upstream = Upstream { kind, base_url, ..Upstream::default() };
    let model = cloud(&mut upstream, model, params, notes);
    key(&mut upstream, node, params, notes);
    headers(&mut upstream, params, notes);
    for told in upstream.complete(&VARIABLES) {
        params.note(node, "model", told, notes);
    }
    if upstream.is_nowhere() {
        params.note(node, "model", format!("not imported: `{prefix}` needs an `api_base`"), notes);
        return None;
    }
    Some((upstream, model))
}

fn bare(model: &str) -> Option<&'static str> {
    BARE.iter().find(|(start, _)| model.starts_with(start)).map(|(_, prefix)| *prefix)
}

/// The kind of vendor that a prefix stands for.
fn kind_of(prefix: &str) -> Option<&'static str> {
    let known = PREFIXES.iter().find(|(theirs, _)| *theirs == prefix).map(|(_, ours)| *ours);
    known.or_else(|| vendor::vendor(prefix).ok().map(|vendor| vendor.kind.as_str()))
}

/// What only clouds have; gives the model's name there.
fn cloud(upstream: &mut Upstream, model: &str, params: &mut Fields<'_>, notes: &mut Vec<Note>) -> String {
    let mut read = |names: &[&str]| {
        names.iter().find_map(|name| params.read(name, notes, Node::text)).map(str::to_owned)
    };
    match upstream.cloud() {
        Some(Cloud::Bedrock) => {
            let (of_path, model) = bedrock_model(model);
            upstream.location = read(&["aws_region_name", "region_name"]).or(of_path);
            upstream.base_url = upstream.base_url.take().or_else(|| read(&["aws_bedrock_runtime_endpoint"]));
            for (theirs, ours) in [
                ("aws_access_key_id", "access_key_id"),
                ("aws_secret_access_key", "secret_access_key"),
                ("aws_session_token", "session_token"),
            ] {
                upstream.credit(ours, read(&[theirs]).as_deref());
            }
            return model;
        }
        Some(Cloud::Vertex) => {
            upstream.project = read(&["vertex_project", "vertex_ai_project"]);
            upstream.location = read(&["vertex_location", "vertex_ai_location", "region_name"]);
            for name in ["vertex_credentials", "vertex_ai_credentials"] {
                let Some(node) = params.take(name) else { continue };
                let told = upstream.account(Some(node));
                let told = if node.kind == Kind::Code { Some(NOT_UNDERSTOOD) } else { told };
                if let Some(told) = told {
                    params.note(node, name, told, notes);
                }
                break;
            }
        }
        Some(Cloud::Azure) => upstream.api_version = read(&["api_version"]),
        None => {}
    }
    model.to_owned()
}

/// A model of Bedrock's without the way to call it, and the region that may stand before it.
fn bedrock_model(model: &str) -> (Option<String>, String) {
    let mut rest = model;
    for way in ["converse/", "converse_like/", "invoke/"] {
        rest = rest.strip_prefix(way).unwrap_or(rest);
    }
    match rest.split_once('/') {
        Some((region, behind)) if Cloud::Bedrock.base_url(region).is_some() => {
            (Some(region.to_owned()), behind.to_owned())
        }
        Some(_) | None => (None, rest.to_owned()),
    }
}

fn key(upstream: &mut Upstream, node: &Node, params: &mut Fields<'_>, notes: &mut Vec<Note>) {
    let given = params.read("api_key", notes, Node::text).filter(|key| !key.is_empty());
    if let Some(key) = given {
        if !upstream.credential.is_empty() {
            let text = "it is the credential; the keys of the cloud beside it are not imported";
            notes.push(params.note_at("api_key", node.line, text));
            upstream.credential.clear();
        }
        upstream.credit("key", Some(key));
    }
    for (name, value) in &upstream.credential {
        let is_plain = value.as_str().is_some_and(|text| !text.starts_with("${"));
        if is_plain && name != "service_account" {
            let theirs = if name == "key" { "api_key".to_owned() } else { format!("aws_{name}") };
            let text =
                format!("the key of `{}` stands in the file as it is; put it into a variable", upstream.kind);
            notes.push(params.note_at(&theirs, node.line, text));
        }
    }
}

fn headers(upstream: &mut Upstream, params: &mut Fields<'_>, notes: &mut Vec<Note>) {
    let is_openai = upstream.kind.starts_with("openai");
    if is_openai && let Some(name) = params.read("organization", notes, Node::text) {
        upstream.headers.insert("openai-organization".to_owned(), json!(name));
    }
    for field in ["extra_headers", "headers"] {
        let Some(node) = params.take(field) else { continue };
        for (name, value) in node.entries() {
            match value.text() {
                Some(text) => drop(upstream.headers.insert(name.to_lowercase(), json!(text))),
                None => params.note(value, &format!("{field}.{name}"), NOT_UNDERSTOOD, notes),
            }
        }
        if !matches!(node.kind, Kind::Map(_)) {
            params.note(node, field, NOT_UNDERSTOOD, notes);
        }
    }
}

/// Puts limits of a minute on the provider's credential.
pub(super) fn limit(
    upstream: &mut Upstream,
    limits: [(&str, Option<u64>); 2],
    line: u64,
    params: &Fields<'_>,
    notes: &mut Vec<Note>,
) {
    for (name, count) in limits {
        let Some(count) = count else { continue };
        let text = match (upstream.credential.is_empty(), (1..=u64::from(u32::MAX)).contains(&count)) {
            (true, _) => "not imported: it is a limit of a key here, and there is none",
            (false, false) => "not imported: it is no limit from 1 to 4294967295",
            (false, true) => {
                upstream.credential.insert(name.to_owned(), json!(count));
                continue;
            }
        };
        notes.push(params.note_at(name, line, text));
    }
}
