//! The models that there are, as each dialect's clients ask for them.

use http::{HeaderMap, Method};
use pointsman_wire::openai::rules::Abilities;
use pointsman_wire::{anthropic, gemini, ollama};

use crate::snapshot::Model;

/// Whose list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `/v1/models`, which OpenAI, Anthropic and Google share.
    Plain,
    /// `/v1beta/models`, `/v1alpha/models`
    Gemini,
    /// `/api/tags`
    Ollama,
}

/// What is asked of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// All models.
    All(Form),
    /// One of them.
    One(Form, String),
    /// One of them, which the body names (`/api/show`).
    Show,
    /// What is loaded (`/api/ps`).
    Loaded,
    /// The version (`/api/version`).
    Version,
}

impl Asked {
    /// What a path asks for, if it is a list's. Names are still percent-encoded.
    pub fn of_path(path: &str) -> Option<Self> {
        let (form, below) = match path {
            "/v1/models" => return Some(Self::All(Form::Plain)),
            "/v1beta/models" | "/v1alpha/models" => return Some(Self::All(Form::Gemini)),
            "/api/tags" => return Some(Self::All(Form::Ollama)),
            "/api/show" => return Some(Self::Show),
            "/api/ps" => return Some(Self::Loaded),
            "/api/version" => return Some(Self::Version),
            _ => match path.strip_prefix("/v1/models/") {
                Some(below) => (Form::Plain, below),
                None => {
                    let below = path.strip_prefix("/v1beta/models/");
                    (Form::Gemini, below.or_else(|| path.strip_prefix("/v1alpha/models/"))?)
                }
            },
        };
        (!below.is_empty()).then(|| Self::One(form, below.to_owned()))
    }

    /// The method it is asked by.
    pub const fn method(&self) -> Method {
        match self {
            Self::Show => Method::POST,
            Self::All(_) | Self::One(..) | Self::Loaded | Self::Version => Method::GET,
        }
    }

    /// The name of the dialect that errors are told in.
    pub fn dialect(&self, headers: &HeaderMap) -> &'static str {
        match self {
            Self::All(Form::Plain) | Self::One(Form::Plain, _) if is_anthropic(headers) => "anthropic",
            Self::All(Form::Plain) | Self::One(Form::Plain, _) if is_google(headers) => "gemini",
            Self::All(Form::Plain) | Self::One(Form::Plain, _) => "openai",
            Self::All(Form::Gemini) | Self::One(Form::Gemini, _) => "gemini",
            Self::All(Form::Ollama)
            | Self::One(Form::Ollama, _)
            | Self::Show
            | Self::Loaded
            | Self::Version => "ollama",
        }
    }
}

/// Anthropic's clients always say which version of the API they speak.
fn is_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

/// Google's clients send their key like that, and say what they are.
fn is_google(headers: &HeaderMap) -> bool {
    headers.contains_key("x-goog-api-key") || headers.contains_key("x-goog-api-client")
}

/// All models, as the client asked for them.
pub fn all(form: Form, headers: &HeaderMap, models: &[&Model]) -> String {
    let names: Vec<&str> = models.iter().map(|model| &*model.name).collect();
    match form {
        Form::Plain if is_anthropic(headers) => anthropic::models::models(&names),
        Form::Plain if is_google(headers) => all(Form::Gemini, headers, models),
        Form::Plain => {
            let data = names.iter().map(|name| plain(name)).collect::<Vec<_>>().join(",");
            format!(r#"{{"object":"list","data":[{data}]}}"#)
        }
        Form::Gemini => {
            gemini::models::models(&models.iter().map(|model| of_gemini(model)).collect::<Vec<_>>())
        }
        Form::Ollama => {
            ollama::models::tags(&models.iter().map(|model| of_ollama(model)).collect::<Vec<_>>())
        }
    }
}

/// One model, as the client asked for it.
pub fn one(form: Form, headers: &HeaderMap, model: &Model) -> String {
    match form {
        Form::Plain if is_anthropic(headers) => anthropic::models::model(&model.name),
        Form::Plain if is_google(headers) => one(Form::Gemini, headers, model),
        Form::Plain => plain(&model.name),
        Form::Gemini => gemini::models::model(&of_gemini(model)),
        Form::Ollama => ollama::models::show(&of_ollama(model)),
    }
}

fn plain(name: &str) -> String {
    let name = serde_json::Value::from(name);
    format!(r#"{{"id":{name},"object":"model","created":0,"owned_by":"pointsman"}}"#)
}

fn of_gemini(model: &Model) -> gemini::models::Listed<'_> {
    let Abilities { chat, embeddings, .. } = model.rules.capabilities;
    gemini::models::Listed {
        name: &model.name,
        context_tokens_max: model.rules.context_tokens_max.map(u64::from),
        generates: chat,
        embeds: embeddings,
    }
}

fn of_ollama(model: &Model) -> ollama::models::Listed<'_> {
    let Abilities { chat, embeddings, tools, vision, .. } = model.rules.capabilities;
    ollama::models::Listed {
        name: &model.name,
        modified_unix_s: 0,
        context_tokens_max: model.rules.context_tokens_max.map(u64::from),
        completion: chat,
        tools: chat && tools,
        vision: chat && vision,
        thinking: false,
        embedding: embeddings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_lists() {
        let check =
            |path: &str, expected: Option<Asked>| assert_eq!(Asked::of_path(path), expected, "{path}");
        check("/v1/models", Some(Asked::All(Form::Plain)));
        check("/v1/models/a/b", Some(Asked::One(Form::Plain, "a/b".to_owned())));
        check("/v1beta/models/m", Some(Asked::One(Form::Gemini, "m".to_owned())));
        check("/v1alpha/models", Some(Asked::All(Form::Gemini)));
        check("/api/tags", Some(Asked::All(Form::Ollama)));
        check("/api/show", Some(Asked::Show));
        check("/v1/models/", None);
        check("/api/pull", None);
    }

    #[test]
    fn who_asks_at_a_shared_path_is_told_by_its_headers() {
        let check = |name: Option<&'static str>, expected: &str| {
            let value = || http::HeaderValue::from_static("x");
            let headers =
                name.map(|name| (http::HeaderName::from_static(name), value())).into_iter().collect();
            for asked in [Asked::All(Form::Plain), Asked::One(Form::Plain, "m".to_owned())] {
                assert_eq!(asked.dialect(&headers), expected, "{name:?}");
            }
            let list = all(Form::Plain, &headers, &[]);
            let members = ["models", "data"].map(|member| list.contains(&format!(r#""{member}""#)));
            assert_eq!(members, [expected == "gemini", expected != "gemini"], "{list}");
        };
        check(None, "openai");
        check(Some("anthropic-version"), "anthropic");
        check(Some("x-goog-api-key"), "gemini");
        check(Some("x-goog-api-client"), "gemini");
    }
}
