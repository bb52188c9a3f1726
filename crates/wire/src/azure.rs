//! Azure OpenAI: chat completions by deployment, and what its content filter says.
//!
//! The newer form of the API (`/openai/v1/…`, where the body names the deployment) is the OpenAI dialect behind another
//! prefix and needs nothing of this: its credentials go into `api-key`, and [`V1_PREFIX`] comes before its paths.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::chat::{Answer, Conversation, Losses};
use crate::dialect::{
    AnswerFault, CONVERTED_DEPTH_MAX, Headers, ProviderDef, ProviderDialect, ReadStream, Relay,
};
use crate::json::tree::Tree;
use crate::openai::error::{Fault, FaultKind};
use crate::openai::request::Operation;
use crate::tasks::Task;
use crate::url::{is_unreserved, segment_into};

/// What comes before the paths of the newer form.
pub const V1_PREFIX: &str = "/openai/v1";
/// The version of the API that is asked for where none is configured: the latest that is no preview.
pub const API_VERSION: &str = "2024-10-21";

/// The definition, with [`API_VERSION`].
pub static DEF: ProviderDef = ProviderDef {
    name: "azure",
    summary: "Azure OpenAI chat completions, by deployment.",
    stream_type: "text/event-stream",
    relays: &[
        Relay {
            client: "openai",
            operations: &TAKEN,
            path: |asked, model| relay_path(asked.operation, model),
            wrapping: None,
        },
        Relay {
            client: "openai-responses",
            operations: &[Operation::Response],
            path: |asked, model| relay_path(asked.operation, model),
            wrapping: None,
        },
    ],
    dialect: &Deployments { api_version: API_VERSION },
};

/// What deployments are asked for.
const TAKEN: [Operation; 8] = [
    Operation::Chat,
    Operation::Completion,
    Operation::Embedding,
    Operation::Task(Task::ImageGeneration),
    Operation::Task(Task::ImageEdit),
    Operation::Task(Task::Speech),
    Operation::Task(Task::Transcription),
    Operation::Task(Task::Translation),
];

/// Chat completions of deployments, in a version of the API. The upstream model is the deployment's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deployments {
    /// The version, such as `2024-10-21`.
    pub api_version: &'static str,
}

fn path_of(model: &str, operation: Operation, api_version: &str) -> String {
    let mut path = String::from("/openai/deployments/");
    segment_into(model, &mut path);
    path.push_str(operation.path_suffix());
    version_into(api_version, &mut path);
    path
}

fn version_into(api_version: &str, path: &mut String) {
    path.push_str("?api-version=");
    for byte in api_version.bytes() {
        if is_unreserved(byte) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "%{byte:02X}");
        }
    }
}

/// A path of the dialect with another version of the API. What asks for none is left as it is.
pub fn with_version<'p>(path: &'p str, api_version: &str) -> Cow<'p, str> {
    let Some((path, _)) = path.rsplit_once("?api-version=") else { return Cow::Borrowed(path) };
    let mut path = path.to_owned();
    version_into(api_version, &mut path);
    Cow::Owned(path)
}

/// Responses are asked for below no deployment, in a version of the API of their own.
fn relay_path(operation: Operation, model: &str) -> Option<String> {
    match operation {
        Operation::Chat
        | Operation::Completion
        | Operation::Embedding
        | Operation::Task(
            Task::ImageGeneration | Task::ImageEdit | Task::Speech | Task::Transcription | Task::Translation,
        ) => Some(path_of(model, operation, API_VERSION)),
        Operation::Infer | Operation::Task(Task::Rerank | Task::Moderation) => None,
        Operation::Response => Some("/openai/v1/responses".to_owned()),
    }
}

fn openai() -> &'static dyn ProviderDialect {
    crate::openai::chat::provider::DEF.dialect
}

impl ProviderDialect for Deployments {
    fn path(&self, model: &str, _: bool) -> String {
        path_of(model, Operation::Chat, self.api_version)
    }

    fn request(&self, conversation: &Conversation, model: &str, losses: &mut Losses) -> String {
        openai().request(conversation, model, losses)
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        let mut answer = openai().answer(body)?;
        let body = Tree::parse(body, CONVERTED_DEPTH_MAX)?;
        note_filtered(&body, &mut answer.losses);
        Ok(answer)
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        openai().stream()
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        let mut fault = openai().fault(status, headers, body);
        if let Some(what) = filtered_prompt(body) {
            fault.kind = FaultKind::ContentPolicy;
            let message = fault.message.get_or_insert_default();
            let _ = write!(message, " (filtered: {what})");
            message.truncate(message.floor_char_boundary(512));
        }
        fault
    }
}

/// Notes what the filter found; what it found nothing in is no loss.
fn note_filtered(body: &Tree<'_>, losses: &mut Losses) {
    const WHY: &str = "only Azure says what its filter found";
    let prompts = body.get("prompt_filter_results").map(Tree::items).unwrap_or_default();
    for (at, prompt) in prompts.iter().enumerate() {
        let found = prompt.get("content_filter_results").is_some_and(|results| !found(results).is_empty());
        losses.note_if(found, &format!("prompt_filter_results[{at}]"), WHY);
    }
    for (at, choice) in body.get("choices").map(Tree::items).unwrap_or_default().iter().enumerate() {
        let found = choice.get("content_filter_results").is_some_and(|results| !found(results).is_empty());
        losses.note_if(found, &format!("choices[{at}].content_filter_results"), WHY);
    }
}

/// The categories in which a filter found something, in the order it names them.
fn found(results: &Tree<'_>) -> Vec<String> {
    let says = |result: &Tree<'_>, name: &str| result.get(name).and_then(Tree::boolean) == Some(true);
    let members = results.clone().into_members();
    members
        .rest()
        .filter(|(_, result)| says(result, "filtered") || says(result, "detected"))
        .map(|(name, _)| name.into_owned())
        .collect()
}

/// The categories for which a prompt was refused; `None` if it was not.
fn filtered_prompt(body: &[u8]) -> Option<String> {
    let body = Tree::parse(std::str::from_utf8(body).ok()?, CONVERTED_DEPTH_MAX).ok()?;
    let inner = body.get("error")?.get("innererror")?;
    let is_policy = inner.get("code").and_then(Tree::text) == Some("ResponsibleAIPolicyViolation");
    let results = inner.get("content_filter_result").or_else(|| inner.get("content_filter_results"))?;
    is_policy.then(|| found(results).join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Event;
    use crate::dialect::NO_HEADERS;

    #[test]
    fn i8_deployments_stay_one_segment() {
        let path = |model| DEF.dialect.path(model, true);
        assert_eq!(path("gpt-4o"), "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21");
        assert_eq!(
            path("../a?b&c"),
            "/openai/deployments/..%2Fa%3Fb%26c/chat/completions?api-version=2024-10-21"
        );
        let odd = Deployments { api_version: "v&x=1" };
        assert!(odd.path("m", false).ends_with("?api-version=v%26x%3D1"));
        let other =
            with_version("/openai/deployments/m/embeddings?api-version=2024-10-21", "2025-04-01-preview");
        assert_eq!(other, "/openai/deployments/m/embeddings?api-version=2025-04-01-preview");
        assert_eq!(with_version("/openai/v1/responses", "2025-04-01-preview"), "/openai/v1/responses");
    }

    #[test]
    fn a_refused_prompt_names_what_was_found() {
        let body = br#"{"error":{"message":"The response was filtered","type":null,"param":"prompt",
            "code":"content_filter","status":400,"innererror":{"code":"ResponsibleAIPolicyViolation",
            "content_filter_result":{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"detected":true,
            "filtered":true},"violence":{"filtered":true,"severity":"high"}}}}}"#;
        let fault = DEF.dialect.fault(400, NO_HEADERS, body);
        assert_eq!(fault.kind, FaultKind::ContentPolicy);
        assert_eq!(
            fault.message.as_deref(),
            Some("The response was filtered (filtered: jailbreak, violence)")
        );
        let missing = br#"{"error":{"code":"DeploymentNotFound","message":"no such deployment"}}"#;
        assert_eq!(DEF.dialect.fault(404, NO_HEADERS, missing).kind, FaultKind::ModelMissing);
        assert_eq!(DEF.dialect.fault(401, NO_HEADERS, b"").kind, FaultKind::CredentialDead);
        let soon = |name: &str| (name == "retry-after").then_some("3");
        assert_eq!(DEF.dialect.fault(429, &soon, b"").retry_after_ms, Some(3_000));
    }

    #[test]
    fn the_chunk_of_the_prompts_filter_is_no_beginning() {
        let stream = concat!(
            r#"data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}"#,
            "\n\n",
            r#"data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null}]}"#,
            "\n\ndata: [DONE]\n\n",
        );
        let (mut reader, mut events) = (DEF.dialect.stream(), Vec::new());
        reader.push(stream.as_bytes(), &mut events).unwrap();
        let Event::Started { id, model, .. } = &events[0] else { panic!("{events:?}") };
        assert_eq!((id.as_str(), model.as_str()), ("c1", "gpt-4o"));
        assert_eq!(events.iter().filter(|event| matches!(event, Event::Started { .. })).count(), 1);
    }
}
