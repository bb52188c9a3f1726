//! What a registered model accepts, and whether a request keeps to it.

use std::ops::RangeInclusive;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kserve::Signature;

use super::error::Invalid;
use super::request::{Operation, Request};
use crate::tasks::Task;

/// A parameter whose range a model can restrict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParamName {
    /// `temperature`
    Temperature,
    /// `top_p`
    TopP,
    /// `presence_penalty`
    PresencePenalty,
    /// `frequency_penalty`
    FrequencyPenalty,
    /// `n`
    N,
    /// `top_logprobs`
    TopLogprobs,
    /// `max_tokens`, in each of its spellings
    MaxTokens,
}

impl ParamName {
    /// The name in requests and in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::PresencePenalty => "presence_penalty",
            Self::FrequencyPenalty => "frequency_penalty",
            Self::N => "n",
            Self::TopLogprobs => "top_logprobs",
            Self::MaxTokens => "max_tokens",
        }
    }

    fn value(self, request: &Request) -> Option<f64> {
        let params = &request.params;
        match self {
            Self::Temperature => params.temperature,
            Self::TopP => params.top_p,
            Self::PresencePenalty => params.presence_penalty,
            Self::FrequencyPenalty => params.frequency_penalty,
            Self::N => params.n.map(|value| value as f64),
            Self::TopLogprobs => params.top_logprobs.map(|value| value as f64),
            Self::MaxTokens => request.tokens_out_max.map(|value| value as f64),
        }
    }
}

/// What a model can do: true where any of its deployments can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent abilities, each a yes or no")]
pub struct Abilities {
    /// Chat completions.
    pub chat: bool,
    /// Plain completions.
    pub completions: bool,
    /// Embeddings.
    pub embeddings: bool,
    /// Tensors by the Open Inference Protocol.
    pub infer: bool,
    /// Documents put in order.
    pub rerank: bool,
    /// Moderations.
    pub moderations: bool,
    /// Images that are made or changed.
    pub images: bool,
    /// Text that is spoken.
    pub speech: bool,
    /// Speech that is written down, also in English.
    pub transcriptions: bool,
    /// The responses API.
    pub responses: bool,
    /// Tool calls.
    pub tools: bool,
    /// Images in messages.
    pub vision: bool,
    /// Output held to a JSON schema.
    pub json_schema: bool,
}

impl Abilities {
    /// Everything.
    pub const ALL: Self = Self {
        chat: true,
        completions: true,
        embeddings: true,
        infer: true,
        rerank: true,
        moderations: true,
        images: true,
        speech: true,
        transcriptions: true,
        responses: true,
        tools: true,
        vision: true,
        json_schema: true,
    };

    const fn operation(self, operation: Operation) -> bool {
        match operation {
            Operation::Chat => self.chat,
            Operation::Completion => self.completions,
            Operation::Embedding => self.embeddings,
            Operation::Infer => self.infer,
            Operation::Task(Task::Rerank) => self.rerank,
            Operation::Task(Task::Moderation) => self.moderations,
            Operation::Task(Task::ImageGeneration | Task::ImageEdit) => self.images,
            Operation::Task(Task::Speech) => self.speech,
            Operation::Task(Task::Transcription | Task::Translation) => self.transcriptions,
            Operation::Response => self.responses,
        }
    }
}

/// What a registered model accepts.
#[derive(Debug, Clone)]
pub struct ModelRules {
    /// What it can do.
    pub capabilities: Abilities,
    /// Prompt plus output it accepts, in tokens.
    pub context_tokens_max: Option<u32>,
    /// Output it can give, in tokens.
    pub output_tokens_max: Option<u32>,
    /// The tensors it takes and gives.
    pub signature: Arc<Signature>,
    /// Ranges of parameters, where narrower than the dialect's.
    pub ranges: Vec<(ParamName, RangeInclusive<f64>)>,
}

impl Default for ModelRules {
    fn default() -> Self {
        Self {
            capabilities: Abilities::ALL,
            context_tokens_max: None,
            output_tokens_max: None,
            signature: Arc::default(),
            ranges: Vec::new(),
        }
    }
}

/// Holds a request to the rules of its model.
pub fn validate(request: &Request, rules: &ModelRules) -> Result<(), Invalid> {
    check_abilities(request, rules.capabilities)?;
    check_output(request, rules)?;
    check_context(request, rules)?;
    for (param, range) in &rules.ranges {
        check_range(request, *param, range)?;
    }
    Ok(())
}

fn check_abilities(request: &Request, abilities: Abilities) -> Result<(), Invalid> {
    let operation = request.operation;
    let format_field = match operation {
        Operation::Response => "text.format",
        Operation::Chat
        | Operation::Completion
        | Operation::Embedding
        | Operation::Infer
        | Operation::Task(_) => "response_format",
    };
    let prompt_field = prompt_field(operation);
    let needs = request.needs;
    let checks = [
        (true, abilities.operation(operation), "model", operation.path()),
        (needs.tools, abilities.tools, "tools", "tools"),
        (needs.vision, abilities.vision, prompt_field, "images"),
        (needs.json_schema, abilities.json_schema, format_field, "a JSON schema for the output"),
    ];
    match checks.into_iter().find(|(needed, able, ..)| *needed && !able) {
        None => Ok(()),
        Some((_, _, field, what)) => {
            let message = format!("the model `{}` does not support {what}", request.model);
            Err(Invalid::field(field, message).with_code("unsupported_capability"))
        }
    }
}

fn check_output(request: &Request, rules: &ModelRules) -> Result<(), Invalid> {
    let (Some(asked), Some(max)) = (request.tokens_out_max, rules.output_tokens_max) else { return Ok(()) };
    if asked <= u64::from(max) {
        return Ok(());
    }
    let message = format!("`max_tokens` is {asked}, the model `{}` allows 1 to {max}", request.model);
    Err(Invalid::field("max_tokens", message).with_code("max_tokens_exceeded"))
}

/// Rejects only what cannot fit however well the text compresses into tokens; the engine has the last word.
fn check_context(request: &Request, rules: &ModelRules) -> Result<(), Invalid> {
    let Some(max) = rules.context_tokens_max.map(u64::from) else { return Ok(()) };
    let prompt = request.tokens_in_min;
    let output = request.tokens_out_max.unwrap_or(0);
    if prompt.saturating_add(output) <= max {
        return Ok(());
    }
    let model = &request.model;
    let (field, message) = if output > max {
        (
            "max_tokens",
            format!("`max_tokens` is {output}, the context of the model `{model}` is {max} tokens"),
        )
    } else {
        let prompt_field = prompt_field(request.operation);
        let asked = format!("at least {prompt} tokens and asks for {output} more");
        (
            prompt_field,
            format!("`{prompt_field}` has {asked}, the context of the model `{model}` is {max} tokens"),
        )
    };
    Err(Invalid::field(field, message).with_code("context_length_exceeded"))
}

fn check_range(request: &Request, param: ParamName, range: &RangeInclusive<f64>) -> Result<(), Invalid> {
    match param.value(request) {
        Some(value) if !range.contains(&value) => {
            let (name, model) = (param.name(), &request.model);
            let (start, end) = (range.start(), range.end());
            let message = format!("`{name}` is {value}, the model `{model}` allows {start} to {end}");
            Err(Invalid::field(name, message))
        }
        Some(_) | None => Ok(()),
    }
}

const fn prompt_field(operation: Operation) -> &'static str {
    match operation {
        Operation::Chat => "messages",
        Operation::Completion | Operation::Task(Task::ImageGeneration | Task::ImageEdit) => "prompt",
        Operation::Infer => "inputs",
        Operation::Task(Task::Rerank) => "documents",
        Operation::Task(Task::Transcription | Task::Translation) => "file",
        Operation::Embedding | Operation::Response | Operation::Task(Task::Moderation | Task::Speech) => {
            "input"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::request::{BodyLimits, parse};

    const CHAT: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

    fn verdict(operation: Operation, members: &str, rules: &ModelRules) -> Result<(), Invalid> {
        let body = format!(r#"{{"model":"m",{members}}}"#);
        validate(&parse(operation, body.as_bytes(), &BodyLimits::default(), 0).unwrap(), rules)
    }

    #[track_caller]
    fn refused(result: Result<(), Invalid>, param: &str, words: &[&str]) {
        let error = result.unwrap_err();
        assert_eq!((error.status, error.param.as_deref()), (400, Some(param)), "{error}");
        for word in words.iter().chain(&["`m`"]) {
            assert!(error.message.contains(word), "{word} in {error}");
        }
    }

    #[test]
    fn what_a_model_cannot_do_is_refused_with_the_field() {
        let without = |change: fn(&mut Abilities)| {
            let mut rules = ModelRules::default();
            change(&mut rules.capabilities);
            rules
        };
        let tools = format!(r#"{CHAT},"tools":[{{}}]"#);
        assert!(verdict(Operation::Chat, &tools, &ModelRules::default()).is_ok());
        refused(verdict(Operation::Chat, &tools, &without(|can| can.tools = false)), "tools", &["tools"]);
        refused(verdict(Operation::Chat, CHAT, &without(|can| can.chat = false)), "model", &["/v1/chat"]);
        let embed = r#""input":"x""#;
        let rules = without(|can| can.embeddings = false);
        refused(verdict(Operation::Embedding, embed, &rules), "model", &["/v1/embeddings"]);
        assert!(verdict(Operation::Chat, CHAT, &rules).is_ok());
        let image = r#""messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#;
        refused(verdict(Operation::Chat, image, &without(|can| can.vision = false)), "messages", &["images"]);
        let rules = without(|can| can.json_schema = false);
        let format = format!(r#"{CHAT},"response_format":{{"type":"json_schema"}}"#);
        refused(verdict(Operation::Chat, &format, &rules), "response_format", &["JSON schema"]);
        let format = r#""input":"x","text":{"format":{"type":"json_schema"}}"#;
        refused(verdict(Operation::Response, format, &rules), "text.format", &["JSON schema"]);
    }

    #[test]
    fn lengths_are_held_to_the_model() {
        let rules = ModelRules {
            context_tokens_max: Some(100),
            output_tokens_max: Some(50),
            ..ModelRules::default()
        };
        let ask = |prompt_bytes: usize, max: &str| {
            let prompt = "x".repeat(prompt_bytes);
            verdict(Operation::Completion, &format!(r#""prompt":"{prompt}"{max}"#), &rules)
        };
        assert!(ask(400, "").is_ok());
        assert!(ask(400, r#","max_tokens":50"#).is_ok());
        refused(ask(10, r#","max_tokens":51"#), "max_tokens", &["51", "1 to 50"]);
        refused(
            ask(401 * 2, r#","max_tokens":50"#),
            "prompt",
            &["at least 100 tokens", "50 more", "100 tokens"],
        );
        refused(ask(900, ""), "prompt", &["at least 112 tokens"]);
        let many = vec![format!("\"{}\"", "x".repeat(700)); 20].join(",");
        assert!(
            verdict(Operation::Embedding, &format!(r#""input":[{many}]"#), &rules).is_ok(),
            "each is read on its own"
        );
        let one = "x".repeat(900);
        refused(
            verdict(Operation::Embedding, &format!(r#""input":["short","{one}"]"#), &rules),
            "input",
            &["112"],
        );
        let tokens = vec!["1"; 101].join(",");
        refused(verdict(Operation::Embedding, &format!(r#""input":[{tokens}]"#), &rules), "input", &["101"]);
        let rules = ModelRules { context_tokens_max: Some(100), ..ModelRules::default() };
        refused(
            verdict(Operation::Chat, &format!(r#"{CHAT},"max_tokens":101"#), &rules),
            "max_tokens",
            &["101"],
        );
    }

    #[test]
    fn ranges_are_held_to_the_model() {
        let range = |param: ParamName, range: RangeInclusive<f64>| ModelRules {
            ranges: vec![(param, range)],
            ..ModelRules::default()
        };
        for (param, good, bad) in [
            (ParamName::Temperature, "1", "1.5"),
            (ParamName::TopP, "1", "0.1"),
            (ParamName::PresencePenalty, "0.5", "-1"),
            (ParamName::FrequencyPenalty, "0.5", "2"),
            (ParamName::N, "1", "2"),
            (ParamName::TopLogprobs, "1", "5"),
            (ParamName::MaxTokens, "1", "2"),
        ] {
            let name = param.name();
            let ask = |value: &str| {
                verdict(Operation::Chat, &format!(r#"{CHAT},"{name}":{value}"#), &range(param, 0.5..=1.0))
            };
            assert!(ask(good).is_ok(), "{name}");
            refused(ask(bad), name, &[bad, "0.5 to 1"]);
            assert!(verdict(Operation::Chat, CHAT, &range(param, 0.5..=1.0)).is_ok(), "unset is in range");
        }
    }
}
