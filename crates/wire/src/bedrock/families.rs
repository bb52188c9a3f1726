//! What Converse leaves to each family of models: how much to think, and how tokens are drawn beyond temperature.
//!
//! The family is known by the model's id. An id that does not tell it (the ARN of an application inference profile) gets
//! nothing but what Converse itself has.

use crate::chat::{Conversation, Effort, Losses, Part, Role, ToolChoice};
use crate::json::write::Object;

/// The fewest tokens that Claude may be given to think.
const BUDGET_TOKENS_MIN: u64 = 1_024;

/// Who made a model, as far as requests differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Claude of this version.
    Claude(u32, u32),
    /// Amazon Nova of the first generation.
    Nova,
    /// Amazon Nova of the second.
    Nova2,
    /// The open models of OpenAI.
    OpenAi,
    /// Another.
    Other,
}

impl Family {
    fn of(model: &str) -> Self {
        if let Some((_, rest)) = model.split_once("claude-") {
            let (major, minor) = version(rest);
            return Self::Claude(major, minor);
        }
        if model.contains("amazon.nova-2") {
            Self::Nova2
        } else if model.contains("amazon.nova") {
            Self::Nova
        } else if model.contains("openai.") {
            Self::OpenAi
        } else {
            Self::Other
        }
    }

    /// Whether it is Claude, from this version on.
    fn is_claude_from(self, major: u32, minor: u32) -> bool {
        match self {
            Self::Claude(own, own_minor) => (own, own_minor) >= (major, minor),
            Self::Nova | Self::Nova2 | Self::OpenAi | Self::Other => false,
        }
    }
}

/// The version in `opus-4-6-v1`, `sonnet-4-20250514-v1:0` or `3-7-sonnet-20250219`; dates are no part of it. A name
/// without any is taken for a new one.
fn version(name: &str) -> (u32, u32) {
    let number = |part: &str| part.parse::<u32>().ok().filter(|_| part.len() <= 2);
    let parts: Vec<&str> = name.split(['-', ':', '.', '/']).collect();
    match parts.iter().position(|part| number(part).is_some()) {
        Some(at) => {
            let minor = parts.get(at + 1).and_then(|part| number(part)).unwrap_or(0);
            (number(parts[at]).unwrap_or(0), minor)
        }
        None => (u32::MAX, 0),
    }
}

/// What a request asks for, fitted to its model.
pub(super) struct Fit {
    /// `additionalModelRequestFields`.
    pub extra: Object,
    /// `inferenceConfig.temperature`.
    pub temperature: Option<f64>,
    /// `inferenceConfig.topP`.
    pub top_p: Option<f64>,
    /// `outputConfig.effort`.
    pub effort: Option<&'static str>,
    /// Whether the model tells which text ended its answer when it is asked to.
    pub tells_stop_sequence: bool,
}

/// Why thinking is left out.
const FORCED: &str = "Claude does not think when it is made to call a tool";
const NO_ROOM: &str = "the most tokens of the answer leave no room for thinking";
const UNSIGNED: &str = "Claude goes on thinking only behind a call that has its signed thought";
const NO_THINKING: &str = "this model is not known to take a way of thinking by Converse";

/// Fits a request to the model.
pub(super) fn fit(all: &Conversation, model: &str, losses: &mut Losses) -> Fit {
    let family = Family::of(model);
    let mut fit = Fit {
        extra: Object::new(),
        temperature: at_most_one(all.sampling.temperature, losses),
        top_p: all.sampling.top_p,
        effort: None,
        tells_stop_sequence: family.is_claude_from(0, 0),
    };
    let unsaid = all.reasoning.is_some_and(|how| how.visible.is_some()) && asked_effort(all).is_none();
    losses.note_if(unsaid, "reasoning", "Converse is told how much to think, not whether to show it");
    let asked = asked_effort(all).filter(|effort| *effort != Effort::None);
    let thinks = asked.is_some_and(|effort| think(all, family, effort, &mut fit, losses));
    draw(all, family, thinks, &mut fit, losses);
    fit
}

fn at_most_one(temperature: Option<f64>, losses: &mut Losses) -> Option<f64> {
    losses.note_if(
        temperature.is_some_and(|temperature| temperature > 1.0),
        "temperature",
        "Converse takes 1 at most: 1 is sent",
    );
    temperature.map(|temperature| temperature.min(1.0))
}

fn asked_effort(all: &Conversation) -> Option<Effort> {
    let reasoning = all.reasoning?;
    reasoning.effort.or_else(|| reasoning.tokens.map(Effort::of_tokens))
}

/// Writes how much to think; whether the model will.
fn think(all: &Conversation, family: Family, effort: Effort, fit: &mut Fit, losses: &mut Losses) -> bool {
    let refuse = |losses: &mut Losses, why| {
        losses.note("reasoning", why);
        false
    };
    match family {
        Family::Claude(..) => {
            let forced = match all.tool_choice {
                Some(ToolChoice::Any | ToolChoice::Tool(_)) => true,
                Some(ToolChoice::Auto | ToolChoice::None) | None => false,
            };
            if !family.is_claude_from(3, 7) {
                return refuse(losses, NO_THINKING);
            }
            if forced {
                return refuse(losses, FORCED);
            }
            if family.is_claude_from(4, 6) {
                fit.extra.object("thinking", |it| _ = it.text("type", "adaptive"));
                fit.effort = Some(claude_effort(effort));
                return true;
            }
            if last_call_is_unsigned(all) {
                return refuse(losses, UNSIGNED);
            }
            let Some(budget) = budget(all, effort) else { return refuse(losses, NO_ROOM) };
            fit.extra.object("thinking", |it| _ = it.text("type", "enabled").count("budget_tokens", budget));
            true
        }
        Family::Nova2 => {
            let bound = all.sampling.temperature.is_some()
                || all.sampling.top_p.is_some()
                || all.tokens_out_max.is_some();
            let mut word = three_efforts(effort);
            if word == "high" && bound {
                losses.note("reasoning", "Nova thinks hard only without limits: `medium` is sent");
                word = "medium";
            }
            fit.extra.object("reasoningConfig", |it| {
                it.text("type", "enabled").text("maxReasoningEffort", word);
            });
            true
        }
        Family::OpenAi => {
            fit.extra.text("reasoning_effort", three_efforts(effort));
            true
        }
        Family::Nova | Family::Other => refuse(losses, NO_THINKING),
    }
}

/// The tokens to think, such that at least half of the answer's are left to what is said.
fn budget(all: &Conversation, effort: Effort) -> Option<u64> {
    let asked = all.reasoning.and_then(|reasoning| reasoning.tokens);
    let asked = asked.unwrap_or(effort.tokens()).max(BUDGET_TOKENS_MIN);
    match all.tokens_out_max {
        Some(most) if most <= BUDGET_TOKENS_MIN => None,
        Some(most) if asked >= most => Some((most / 2).max(BUDGET_TOKENS_MIN)),
        Some(_) | None => Some(asked),
    }
}

/// Whether the model's last turn calls tools and has no signed thought, as from clients whose dialect takes none back.
fn last_call_is_unsigned(all: &Conversation) -> bool {
    let last = all.messages.iter().rev().find(|message| message.role == Role::Assistant);
    let Some(last) = last else { return false };
    let calls = last.parts.iter().any(|part| matches!(part, Part::ToolCall { .. }));
    let thought = last
        .parts
        .iter()
        .any(|part| matches!(part, Part::Thinking { signature: Some(_), .. } | Part::HiddenThinking { .. }));
    calls && !thought
}

const fn claude_effort(effort: Effort) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::Max => "max",
    }
}

const fn three_efforts(effort: Effort) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High | Effort::Max => "high",
    }
}

/// Writes how tokens are drawn, and leaves out what the model would refuse.
fn draw(all: &Conversation, family: Family, thinks: bool, fit: &mut Fit, losses: &mut Losses) {
    let sampling = &all.sampling;
    let mut top_k = sampling.top_k;
    if family.is_claude_from(4, 7) {
        const FIXED: &str = "this Claude draws in its own way only";
        losses.note_if(fit.temperature.take().is_some_and(|it| it < 1.0), "temperature", FIXED);
        losses.note_if(fit.top_p.take().is_some_and(|it| it < 1.0), "top_p", FIXED);
        losses.note_if(top_k.take().is_some(), "top_k", FIXED);
    } else if family.is_claude_from(0, 0) {
        if thinks {
            const THINKING: &str = "Claude does not take it while it thinks";
            losses.note_if(fit.temperature.take().is_some_and(|it| it < 1.0), "temperature", THINKING);
            losses.note_if(top_k.take().is_some(), "top_k", THINKING);
            if fit.top_p.is_some_and(|top_p| top_p < 0.95) {
                losses.note("top_p", THINKING);
                fit.top_p = None;
            }
        }
        if family.is_claude_from(4, 1) && fit.temperature.is_some() && fit.top_p.take().is_some() {
            losses.note("top_p", "this Claude takes `temperature` or `top_p`, not both");
        }
    }
    let Some(top_k) = top_k else { return };
    match family {
        Family::Claude(..) => _ = fit.extra.count("top_k", top_k),
        Family::Nova | Family::Nova2 => {
            fit.extra.object("inferenceConfig", |it| _ = it.count("topK", top_k));
        }
        Family::OpenAi | Family::Other => {
            losses.note("top_k", "this model is not known to take it by Converse");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Reasoning};

    #[test]
    fn families_and_versions_come_from_the_id() {
        let check = |model: &str, expected| assert_eq!(Family::of(model), expected, "{model}");
        check("anthropic.claude-opus-4-6-v1", Family::Claude(4, 6));
        check("us.anthropic.claude-sonnet-4-20250514-v1:0", Family::Claude(4, 0));
        check("anthropic.claude-3-7-sonnet-20250219-v1:0", Family::Claude(3, 7));
        check("anthropic.claude-v2:1", Family::Claude(1, 0));
        check("anthropic.claude-mythos-preview", Family::Claude(u32::MAX, 0));
        check(
            "arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-haiku-4-5-20251001-v1:0",
            Family::Claude(4, 5),
        );
        check("us.amazon.nova-2-lite-v1:0", Family::Nova2);
        check("amazon.nova-pro-v1:0", Family::Nova);
        check("openai.gpt-oss-120b-1:0", Family::OpenAi);
        check("arn:aws:bedrock:us-east-1:1:application-inference-profile/x1", Family::Other);
    }

    fn asked(effort: Effort) -> Conversation {
        let reasoning = Some(Reasoning { effort: Some(effort), ..Reasoning::default() });
        Conversation { reasoning, choices: 1, ..Conversation::default() }
    }

    #[track_caller]
    fn check(all: &Conversation, model: &str, extra: &str, lost: &[&str]) -> Fit {
        let mut losses = Losses::default();
        let mut fit = fit(all, model, &mut losses);
        assert_eq!(std::mem::take(&mut fit.extra).finish(), extra, "{model}");
        let fields: Vec<&str> = losses.named().iter().map(|loss| loss.field.as_str()).collect();
        assert_eq!(fields, lost, "{model}");
        fit
    }

    #[test]
    fn thinking_is_asked_for_as_each_family_wants() {
        let (old, new) = ("anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic.claude-opus-4-7");
        check(&asked(Effort::Low), old, r#"{"thinking":{"type":"enabled","budget_tokens":2048}}"#, &[]);
        let fit = check(&asked(Effort::Max), new, r#"{"thinking":{"type":"adaptive"}}"#, &[]);
        assert_eq!(fit.effort, Some("max"));
        check(&asked(Effort::None), old, "{}", &[]);
        check(&asked(Effort::High), "openai.gpt-oss-20b-1:0", r#"{"reasoning_effort":"high"}"#, &[]);
        let nova = r#"{"reasoningConfig":{"type":"enabled","maxReasoningEffort":"high"}}"#;
        check(&asked(Effort::High), "amazon.nova-2-lite-v1:0", nova, &[]);
        check(&asked(Effort::Low), "meta.llama3-1-8b-instruct-v1:0", "{}", &["reasoning"]);
        check(&asked(Effort::Low), "anthropic.claude-3-haiku-20240307-v1:0", "{}", &["reasoning"]);
    }

    #[test]
    fn thinking_gives_way_to_what_cannot_be_beside_it() {
        let model = "anthropic.claude-sonnet-4-5-20250929-v1:0";
        let half = r#"{"thinking":{"type":"enabled","budget_tokens":2000}}"#;
        check(&Conversation { tokens_out_max: Some(4_000), ..asked(Effort::High) }, model, half, &[]);
        check(
            &Conversation { tokens_out_max: Some(500), ..asked(Effort::High) },
            model,
            "{}",
            &["reasoning"],
        );
        let forced = Conversation { tool_choice: Some(ToolChoice::Any), ..asked(Effort::High) };
        check(&forced, model, "{}", &["reasoning"]);
        let call = |signature| Conversation {
            messages: vec![Message {
                role: Role::Assistant,
                name: None,
                parts: vec![
                    Part::Thinking { text: "t".to_owned(), signature },
                    Part::ToolCall {
                        id: "c".to_owned(),
                        name: "f".to_owned(),
                        arguments: "{}".to_owned(),
                        signature: None,
                    },
                ],
            }],
            ..asked(Effort::Low)
        };
        check(&call(None), model, "{}", &["reasoning"]);
        let on = r#"{"thinking":{"type":"enabled","budget_tokens":2048}}"#;
        check(&call(Some("s".to_owned())), model, on, &[]);
    }

    #[test]
    fn drawing_is_fitted_to_the_model() {
        let mut all = asked(Effort::Low);
        all.sampling.temperature = Some(0.2);
        all.sampling.top_p = Some(0.9);
        all.sampling.top_k = Some(5);
        let on = r#"{"thinking":{"type":"enabled","budget_tokens":2048}}"#;
        check(&all, "anthropic.claude-sonnet-4-5-20250929-v1:0", on, &["temperature", "top_k", "top_p"]);
        all.reasoning = None;
        let fit = check(&all, "anthropic.claude-sonnet-4-5-20250929-v1:0", r#"{"top_k":5}"#, &["top_p"]);
        assert_eq!((fit.temperature, fit.top_p), (Some(0.2), None));
        check(&all, "anthropic.claude-opus-4-7", "{}", &["temperature", "top_p", "top_k"]);
        check(&all, "amazon.nova-pro-v1:0", r#"{"inferenceConfig":{"topK":5}}"#, &[]);
        all.sampling.temperature = Some(1.7);
        let fit = check(&all, "mistral.mistral-large", "{}", &["temperature", "top_k"]);
        assert_eq!(fit.temperature, Some(1.0));
    }
}
