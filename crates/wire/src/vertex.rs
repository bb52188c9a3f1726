//! Vertex AI: models of Google and of Anthropic behind a project and a place.
//!
//! What is said is what the models' own dialects say; paths differ, and for Anthropic two members of the body. A wrapper
//! takes the inner dialect, so that nothing is written twice. Clients of those dialects are relayed.

pub mod account;
mod relay;

use crate::chat::{Answer, Conversation, Losses};
use crate::dialect::{AnswerFault, CONVERTED_DEPTH_MAX, Headers, ProviderDef, ProviderDialect, ReadStream};
use crate::json::tree::Tree;
use crate::json::write::Object;
use crate::openai::error::Fault;
use crate::url::{segment, segment_into};

/// What Anthropic's models on Vertex AI want in the body.
pub const ANTHROPIC_VERSION: &str = "vertex-2023-10-16";

/// What comes before the paths of a dialect on Vertex AI.
pub fn path_prefix(project: &str, location: &str) -> String {
    format!("/v1/projects/{}/locations/{}", segment(project), segment(location))
}

/// The host that serves a location; `None` if that is no location, so that it cannot name another host.
pub fn host(location: &str) -> Option<String> {
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if location.is_empty() || location.len() > 32 || !location.bytes().all(sound) {
        return None;
    }
    Some(match location {
        "global" => "aiplatform.googleapis.com".to_owned(),
        // The two that span many regions have hosts of their own form.
        "us" | "eu" => format!("aiplatform.{location}.rep.googleapis.com"),
        _ => format!("{location}-aiplatform.googleapis.com"),
    })
}

/// Whose models they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    /// Google: `generateContent`, and `streamGenerateContent` as server-sent events.
    Google,
    /// Anthropic: `rawPredict` and `streamRawPredict`, with the version in the body instead of the model.
    Anthropic,
}

/// The path of a method of a model.
fn path_of(publisher: Publisher, model: &str, method: &str) -> String {
    let mut path = format!("/publishers/{}/models/", publisher.name());
    // `@` stands before the version in names of models and is sent as it is.
    for (at, part) in model.split('@').enumerate() {
        if at > 0 {
            path.push('@');
        }
        segment_into(part, &mut path);
    }
    path.push(':');
    path.push_str(method);
    path
}

impl Publisher {
    const fn name(self) -> &'static str {
        match self {
            Self::Google => "google",
            Self::Anthropic => "anthropic",
        }
    }

    const fn method(self, stream: bool) -> &'static str {
        match (self, stream) {
            (Self::Google, false) => "generateContent",
            (Self::Google, true) => "streamGenerateContent?alt=sse",
            (Self::Anthropic, false) => "rawPredict",
            (Self::Anthropic, true) => "streamRawPredict",
        }
    }
}

/// Gemini on Vertex AI, by [`path_prefix`].
pub static GEMINI: ProviderDef = ProviderDef {
    name: "vertex-gemini",
    summary: "Gemini on Vertex AI.",
    stream_type: "text/event-stream",
    relays: &[relay::GEMINI],
    dialect: &Vertex { publisher: Publisher::Google, inner: crate::gemini::provider::DEF.dialect },
};

/// Claude on Vertex AI, by [`path_prefix`].
pub static ANTHROPIC: ProviderDef = ProviderDef {
    name: "vertex-anthropic",
    summary: "Claude on Vertex AI.",
    stream_type: "text/event-stream",
    relays: &[relay::ANTHROPIC],
    dialect: &Vertex { publisher: Publisher::Anthropic, inner: crate::anthropic::provider::DEF.dialect },
};

/// A dialect on Vertex AI. The provider's prefix is [`path_prefix`].
pub struct Vertex {
    /// Whose models.
    pub publisher: Publisher,
    /// What the models speak.
    pub inner: &'static dyn ProviderDialect,
}

impl ProviderDialect for Vertex {
    fn path(&self, model: &str, stream: bool) -> String {
        path_of(self.publisher, model, self.publisher.method(stream))
    }

    fn request(&self, conversation: &Conversation, model: &str, losses: &mut Losses) -> String {
        let body = self.inner.request(conversation, model, losses);
        match self.publisher {
            Publisher::Google => body,
            Publisher::Anthropic => with_version(&body).unwrap_or(body),
        }
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        self.inner.answer(body)
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        self.inner.stream()
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        self.inner.fault(status, headers, body)
    }
}

/// The body with the version instead of the model; all else as it was written.
fn with_version(body: &str) -> Option<String> {
    let tree = Tree::parse(body, CONVERTED_DEPTH_MAX).ok()?;
    let mut out = Object::new();
    out.text("anthropic_version", ANTHROPIC_VERSION);
    for (name, value) in tree.into_members().all() {
        if !matches!(&*name, "model" | "anthropic_version") {
            out.raw(&name, value.raw());
        }
    }
    Some(out.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Part, Role};

    fn vertex(publisher: Publisher) -> Vertex {
        Vertex { publisher, inner: crate::openai::chat::provider::DEF.dialect }
    }

    #[test]
    fn paths_name_publisher_model_and_method() {
        let google = vertex(Publisher::Google);
        assert_eq!(
            google.path("gemini-2.5-pro", false),
            "/publishers/google/models/gemini-2.5-pro:generateContent"
        );
        assert_eq!(
            google.path("gemini-2.5-pro", true),
            "/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
        );
        let anthropic = vertex(Publisher::Anthropic);
        assert_eq!(
            anthropic.path("claude-sonnet-4@20250514", true),
            "/publishers/anthropic/models/claude-sonnet-4@20250514:streamRawPredict"
        );
        assert_eq!(
            anthropic.path("claude-opus-4-6", false),
            "/publishers/anthropic/models/claude-opus-4-6:rawPredict"
        );
        assert_eq!(path_prefix("my-project", "us-east5"), "/v1/projects/my-project/locations/us-east5");
    }

    #[test]
    fn i8_names_stay_one_segment() {
        let path = vertex(Publisher::Google).path("../../x:predict?a#b\n", false);
        assert_eq!(path, "/publishers/google/models/..%2F..%2Fx%3Apredict%3Fa%23b%0A:generateContent");
        assert_eq!(path_prefix("a/b", ".."), "/v1/projects/a%2Fb/locations/%2E%2E");
    }

    #[test]
    fn i2_a_location_never_names_another_host() {
        assert_eq!(host("us-east5").as_deref(), Some("us-east5-aiplatform.googleapis.com"));
        assert_eq!(host("global").as_deref(), Some("aiplatform.googleapis.com"));
        assert_eq!(host("eu").as_deref(), Some("aiplatform.eu.rep.googleapis.com"));
        for wrong in ["", "evil.test/", "a.b", "A", "x@y", "us east"] {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn anthropics_body_has_the_version_instead_of_the_model() {
        let parts = vec![Part::text("model \"x\"")];
        let all = Conversation {
            messages: vec![Message { role: Role::User, name: None, parts }],
            choices: 1,
            stream: true,
            ..Conversation::default()
        };
        let mut losses = Losses::default();
        let body = vertex(Publisher::Anthropic).request(&all, "claude", &mut losses);
        assert_eq!(
            body,
            concat!(
                r#"{"anthropic_version":"vertex-2023-10-16","#,
                r#""messages":[{"role":"user","content":"model \"x\""}],"stream":true,"#,
                r#""stream_options":{"include_usage":true}}"#
            )
        );
        let google = vertex(Publisher::Google).request(&all, "gemini", &mut losses);
        assert!(google.starts_with(r#"{"model":"gemini""#), "the inner dialect's own: {google}");
    }
}
