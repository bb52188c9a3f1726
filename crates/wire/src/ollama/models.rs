//! The models that there are, as Ollama's clients ask for them: `/api/tags`, `/api/show`, `/api/ps`, `/api/version`.

use std::fmt::Write as _;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::json::Kind;
use crate::json::write::{Object, object};
use crate::openai::error::Invalid;
use crate::openai::request::BodyLimits;
use crate::openai::request::members::{Members, model_name};
use crate::openai::request::values::wrong_type;

use super::words::rfc3339;

/// A model as its clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what a model can do, each a yes or no")]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a str,
    /// When it was configured, in seconds since the Unix epoch.
    pub modified_unix_s: u64,
    /// Prompt plus output it accepts, in tokens, if that is known.
    pub context_tokens_max: Option<u64>,
    /// It completes texts and chats.
    pub completion: bool,
    /// It calls tools.
    pub tools: bool,
    /// It takes images.
    pub vision: bool,
    /// It thinks.
    pub thinking: bool,
    /// It embeds.
    pub embedding: bool,
}

/// The tag that a name without one has.
const LATEST: &str = ":latest";

/// A model's name without the tag that Ollama's clients put behind names that have none.
pub fn without_latest(name: &str) -> &str {
    name.strip_suffix(LATEST).filter(|name| !name.is_empty()).unwrap_or(name)
}

/// The body of `/api/tags`.
pub fn tags(models: &[Listed<'_>]) -> String {
    object(|it| {
        _ = it.array(
            "models",
            models.iter().map(|model| {
                object(|it| {
                    it.text("name", model.name).text("model", model.name);
                    it.text("modified_at", &rfc3339(model.modified_unix_s));
                    // There is no file here; clients cut the digest, so it has the length of one.
                    it.count("size", 0).text("digest", &digest(model.name));
                    it.object("details", details);
                })
            }),
        );
    })
}

/// The body of `/api/ps`: nothing is loaded here.
pub fn ps() -> &'static str {
    r#"{"models":[]}"#
}

/// The body of `/api/show`.
pub fn show(model: &Listed<'_>) -> String {
    object(|it| {
        it.text("modelfile", "").text("parameters", "").text("template", "");
        it.object("details", details);
        it.object("model_info", |it| {
            it.text("general.architecture", ARCHITECTURE).text("general.basename", model.name);
            it.count_if(&format!("{ARCHITECTURE}.context_length"), model.context_tokens_max);
        });
        let capabilities = [
            ("completion", model.completion),
            ("tools", model.tools),
            ("vision", model.vision),
            ("thinking", model.thinking),
            ("embedding", model.embedding),
        ];
        let able = capabilities.iter().filter(|(_, able)| *able);
        it.array("capabilities", able.map(|(name, _)| crate::json::quote(name)));
        it.text("modified_at", &rfc3339(model.modified_unix_s));
    })
}

/// What is said of a model's architecture, which is its provider's affair.
const ARCHITECTURE: &str = "remote";

/// The body of `/api/version`.
pub fn version(version: &str) -> String {
    object(|it| _ = it.text("version", version))
}

/// The model that a body of `/api/show` asks for, in either spelling.
pub fn asked_to_show(body: &[u8], limits: &BodyLimits) -> Result<String, Invalid> {
    let mut members = Members::new(body, &["model", "name"], limits.depth_max)?;
    let mut asked = [None, None];
    while let Some(field) = members.next()? {
        let scanner = &mut members.scanner;
        let got = scanner.peek()?;
        if got != Kind::String {
            return Err(wrong_type(field, "a string", got));
        }
        let name = scanner.string()?.decode().unwrap_or_default().into_owned();
        asked[usize::from(field == "name")] = Some(name).filter(|name| !name.is_empty());
    }
    members.finish()?;
    let [model, name] = asked;
    let asked = model
        .or(name)
        .ok_or_else(|| Invalid::field("model", "`model` is missing; name the model to show"))?;
    model_name(&asked, limits)?;
    Ok(asked)
}

fn details(it: &mut Object) {
    it.text("parent_model", "").text("format", "").text("family", ARCHITECTURE);
    it.array("families", [crate::json::quote(ARCHITECTURE)]);
    it.text("parameter_size", "").text("quantization_level", "");
}

/// A digest that stands for a name: the same for the same name.
fn digest(name: &str) -> String {
    let mut text = String::with_capacity(64);
    for seed in 0..2 {
        let _ = write!(text, "{:032x}", xxh3_128_with_seed(name.as_bytes(), seed));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_what_clients_read() {
        let model = Listed {
            name: "llama-3@3.1",
            modified_unix_s: 1_700_000_000,
            context_tokens_max: Some(8192),
            completion: true,
            tools: true,
            ..Listed::default()
        };
        let tags: serde_json::Value = serde_json::from_str(&tags(&[model])).unwrap();
        let first = &tags["models"][0];
        assert_eq!((&first["name"], &first["model"]), (&"llama-3@3.1".into(), &"llama-3@3.1".into()));
        assert_eq!(first["modified_at"], "2023-11-14T22:13:20Z");
        assert_eq!(first["digest"].as_str().unwrap().len(), 64);
        let show: serde_json::Value = serde_json::from_str(&show(&model)).unwrap();
        assert_eq!(show["capabilities"], serde_json::json!(["completion", "tools"]));
        assert_eq!(show["model_info"]["remote.context_length"], 8192);
        assert_eq!(version("0.12.0"), r#"{"version":"0.12.0"}"#);
        assert!(crate::json::check(ps(), 4).is_ok());
    }

    #[test]
    fn names_to_show_stand_in_either_member() {
        let ask = |body: &str| asked_to_show(body.as_bytes(), &BodyLimits::default());
        assert_eq!(ask(r#"{"model":"a:latest"}"#).as_deref(), Ok("a:latest"));
        assert_eq!(ask(r#"{"name":"a","verbose":true}"#).as_deref(), Ok("a"));
        assert_eq!(ask(r#"{"model":"b","name":"a"}"#).as_deref(), Ok("b"));
        for bad in
            ["{}", r#"{"model":""}"#, r#"{"model":3}"#, r#"{"Model":"a"}"#, r#"{"model":"a","model":"b"}"#]
        {
            assert_eq!(ask(bad).unwrap_err().status, 400, "{bad}");
        }
        assert_eq!(
            (without_latest("a:latest"), without_latest("a:8b"), without_latest(":latest")),
            ("a", "a:8b", ":latest")
        );
    }
}
