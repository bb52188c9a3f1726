//! A `/v1/messages` body, written.

use crate::chat::{Conversation, Effort, Format, Losses, Message, Part, Reasoning, Role, Tool, ToolChoice};
use crate::json::quote;
use crate::json::write::{Object, array, object};

use super::blocks::{block, is_own, write_cache};
use super::words::{Version, effort_word};

/// The fewest tokens that a model is given to think with.
const THINKING_TOKENS_MIN: u64 = 1_024;

/// A body of what is said. What the dialect has no word for is noted.
pub(super) fn write(all: &Conversation, model: &str, losses: &mut Losses) -> String {
    let version = Version::of(model);
    let (system, turns) = turns(all, version, losses);
    let thinking = thinking(all, &turns, version, losses);
    let default = version.tokens_out_default();
    let tokens_out_max = all.tokens_out_max.unwrap_or_else(|| match thinking {
        Thinking::Budget { tokens, .. } if !version.thinks_adaptively() => {
            default.max(tokens.saturating_mul(4).div_ceil(3))
        }
        Thinking::Budget { .. } | Thinking::Unsaid | Thinking::Off | Thinking::Adaptive { .. } => default,
    });
    let body = object(|it| {
        it.text("model", model).count("max_tokens", tokens_out_max);
        write_system(it, &system, losses);
        it.array("messages", turns.iter().filter_map(|turn| turn.json(losses)));
        write_tools(it, all, losses);
        write_thinking(it, &thinking);
        write_output(it, all, &thinking, losses);
        write_sampling(it, all, version, &thinking, losses);
        write_stop(it, all, losses);
        if let Some(user) = &all.user {
            it.object("metadata", |it| _ = it.text("user_id", user));
        }
        match all.service_tier.as_deref() {
            Some("default") => _ = it.text("service_tier", "standard_only"),
            Some(_) => losses.note("service_tier", "Anthropic has tiers of its own"),
            None => {}
        }
        if all.stream {
            it.boolean("stream", true);
        }
    });
    losses.note_if(all.choices > 1, "n", "Anthropic gives one answer");
    losses.note_if(all.logprobs.is_some(), "logprobs", "Anthropic has no log probabilities");
    body
}

/// What one side says until the other does: messages of one role in a row are one.
struct Turn<'a> {
    role: &'static str,
    /// Results of tools come first, as is demanded.
    results: Vec<(String, &'a Part)>,
    said: Vec<(String, &'a Part)>,
}

impl Turn<'_> {
    /// Its message; `None` if nothing is left of it.
    fn json(&self, losses: &mut Losses) -> Option<String> {
        let all = self.results.iter().chain(&self.said);
        let (parts, blocks): (Vec<&Part>, Vec<String>) =
            all.filter_map(|(path, part)| Some((*part, block(part, path, losses)?))).unzip();
        if blocks.is_empty() {
            return None;
        }
        Some(object(|it| {
            it.text("role", self.role);
            match parts.as_slice() {
                [Part::Text { text, cache: None, citations }]
                    if citations.as_deref().is_none_or(|citations| !is_own(citations)) =>
                {
                    it.text("content", text);
                }
                _ => _ = it.array("content", blocks),
            }
        }))
    }
}

type Placed<'a> = (String, &'a Part);

/// What stands before the conversation, and its turns.
fn turns<'a>(
    all: &'a Conversation,
    version: Version,
    losses: &mut Losses,
) -> (Vec<Placed<'a>>, Vec<Turn<'a>>) {
    let placed = |path: &str, parts: &'a [Part]| -> Vec<Placed<'a>> {
        parts.iter().enumerate().map(|(at, part)| (format!("{path}[{at}]"), part)).collect()
    };
    let mut system = placed("system", &all.system);
    let mut turns: Vec<Turn<'a>> = Vec::new();
    for (at, message) in all.messages.iter().enumerate() {
        let path = format!("messages[{at}]");
        losses.note_if(message.name.is_some(), &format!("{path}.name"), "Anthropic knows roles, no names");
        let mut parts = placed(&format!("{path}.content"), &message.parts);
        // A turn of which nothing is left must not part those around it.
        parts.retain(|(path, part)| !is_blank(part) || block(part, path, losses).is_some());
        if parts.is_empty() {
            continue;
        }
        let role = match message.role {
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
            Role::System if may_stand(all, at, &turns, version) => "system",
            Role::System => {
                losses.note(&path, "system messages come first with this model; it was put there");
                system.extend(parts);
                continue;
            }
        };
        let (results, said) =
            parts.into_iter().partition(|(_, part)| matches!(part, Part::ToolResult { .. }));
        match turns.last_mut().filter(|turn| turn.role == role) {
            Some(turn) => {
                turn.results.extend::<Vec<_>>(results);
                turn.said.extend::<Vec<_>>(said);
            }
            None => turns.push(Turn { role, results, said }),
        }
    }
    if turns.iter().all(|turn| turn.results.is_empty() && turn.said.is_empty()) && !system.is_empty() {
        losses.note("system", "Anthropic wants a message to answer; what the system says was made one");
        turns = vec![Turn { role: "user", results: Vec::new(), said: std::mem::take(&mut system) }];
    }
    (system, turns)
}

/// Whether there is nothing in a part that could be sent.
fn is_blank(part: &Part) -> bool {
    match part {
        Part::Text { text, .. } | Part::Refusal(text) => text.trim().is_empty(),
        Part::Thinking { signature, .. } => signature.is_none(),
        Part::Media(_) | Part::ToolCall { .. } | Part::ToolResult { .. } | Part::HiddenThinking { .. } => {
            false
        }
    }
}

/// Whether a system message can stay where it is: behind the user's turn and before the assistant's, or at the end.
fn may_stand(all: &Conversation, at: usize, turns: &[Turn<'_>], version: Version) -> bool {
    let after_user = turns.last().is_some_and(|turn| turn.role != "assistant");
    let follows: Option<&Message> = all.messages[at..].iter().find(|message| message.role != Role::System);
    version.takes_later_system()
        && after_user
        && follows.is_none_or(|message| message.role == Role::Assistant)
}

fn write_system(it: &mut Object, system: &[Placed<'_>], losses: &mut Losses) {
    let (mut parts, mut blocks) = (Vec::new(), Vec::new());
    for (path, part) in system {
        match part {
            Part::Text { .. } | Part::Refusal(_) => {
                if let Some(block) = block(part, path, losses) {
                    parts.push(*part);
                    blocks.push(block);
                }
            }
            Part::Media(_)
            | Part::ToolCall { .. }
            | Part::ToolResult { .. }
            | Part::Thinking { .. }
            | Part::HiddenThinking { .. } => losses.note(path, "the system says texts only"),
        }
    }
    match parts.as_slice() {
        [Part::Text { text, cache: None, citations: None }] => _ = it.text("system", text),
        _ if blocks.is_empty() => {}
        _ => _ = it.array("system", blocks),
    }
}

fn write_tools(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    if all.tools.is_empty() {
        losses.note_if(all.tool_choice.is_some(), "tool_choice", "there are no tools to choose from");
        return;
    }
    it.array("tools", all.tools.iter().map(tool_json));
    let one_at_once = all.parallel_tool_calls == Some(false);
    let fill = |it: &mut Object, kind: &str| {
        it.text("type", kind);
        if one_at_once {
            it.boolean("disable_parallel_tool_use", true);
        }
    };
    match &all.tool_choice {
        None if !one_at_once => {}
        None | Some(ToolChoice::Auto) => _ = it.object("tool_choice", |it| fill(it, "auto")),
        Some(ToolChoice::None) => _ = it.raw("tool_choice", r#"{"type":"none"}"#),
        Some(ToolChoice::Any) => _ = it.object("tool_choice", |it| fill(it, "any")),
        Some(ToolChoice::Tool(name)) => {
            _ = it.object("tool_choice", |it| {
                fill(it, "tool");
                it.text("name", name);
            });
        }
    }
}

fn tool_json(tool: &Tool) -> String {
    object(|it| {
        it.text("name", &tool.name).text_if("description", tool.description.as_deref());
        it.raw("input_schema", tool.parameters.as_deref().unwrap_or(r#"{"type":"object","properties":{}}"#));
        it.boolean_if("strict", tool.strict);
        write_cache(it, tool.cache.as_deref());
    })
}

/// How the model is to think.
enum Thinking {
    /// As is usual with it.
    Unsaid,
    /// Not at all.
    Off,
    /// With so many tokens.
    Budget { tokens: u64, visible: Option<bool> },
    /// As it sees fit.
    Adaptive { effort: Option<Effort>, visible: Option<bool> },
}

impl Thinking {
    const fn is_on(&self) -> bool {
        matches!(self, Self::Budget { .. } | Self::Adaptive { .. })
    }
}

fn thinking(all: &Conversation, turns: &[Turn<'_>], version: Version, losses: &mut Losses) -> Thinking {
    let Some(Reasoning { effort, tokens, visible }) = all.reasoning else { return Thinking::Unsaid };
    if tokens == Some(0) || effort == Some(Effort::None) {
        return Thinking::Off;
    }
    if matches!(all.tool_choice, Some(ToolChoice::Any | ToolChoice::Tool(_))) && !all.tools.is_empty() {
        losses.note("reasoning", "Anthropic does not think when a call of a tool is forced");
        return Thinking::Unsaid;
    }
    if version.takes_no_budget() || (version.thinks_adaptively() && tokens.is_none()) {
        return Thinking::Adaptive { effort: effort.or(tokens.map(Effort::of_tokens)), visible };
    }
    let tokens = match (tokens, effort) {
        // What a client of this dialect asks for is for its provider to judge.
        (None, None) => return Thinking::Adaptive { effort: None, visible },
        (Some(tokens), _) => match all.tokens_out_max {
            Some(max) => tokens.min(max.saturating_sub(1)),
            None => tokens.min(room_to_think(version)),
        },
        // At least a quarter of the answer is left to what is not thought.
        (None, Some(effort)) => match all.tokens_out_max {
            Some(max) => effort.tokens().min(max - max / 4).max(THINKING_TOKENS_MIN),
            None => effort.tokens().min(room_to_think(version)),
        },
    };
    if tokens < THINKING_TOKENS_MIN || all.tokens_out_max.is_some_and(|max| max <= THINKING_TOKENS_MIN) {
        losses.note("reasoning", "an answer of at most 1024 tokens leaves no room to think");
        return Thinking::Unsaid;
    }
    if calls_without_thought(turns) {
        losses.note(
            "reasoning",
            "the model goes on with calls whose thoughts are not there, and does not think",
        );
        return Thinking::Unsaid;
    }
    Thinking::Budget { tokens, visible }
}

/// What there is to think with when the client set no limit.
fn room_to_think(version: Version) -> u64 {
    version.tokens_out_default().max(32_000) * 3 / 4
}

/// Whether the answer goes on behind results of tools whose calls have no signed thought before them, as those of another
/// provider have none. The provider refuses to think then.
fn calls_without_thought(turns: &[Turn<'_>]) -> bool {
    let [.., calls, results] = turns else { return false };
    let thought = |(_, part): &Placed<'_>| match part {
        Part::Thinking { signature, .. } => signature.is_some(),
        Part::HiddenThinking { .. } => true,
        Part::Text { .. }
        | Part::Media(_)
        | Part::ToolCall { .. }
        | Part::ToolResult { .. }
        | Part::Refusal(_) => false,
    };
    !results.results.is_empty() && !calls.said.iter().any(thought)
}

fn write_thinking(it: &mut Object, thinking: &Thinking) {
    let display = |it: &mut Object, visible: Option<bool>| {
        it.text_if("display", visible.map(|visible| if visible { "summarized" } else { "omitted" }));
    };
    match thinking {
        Thinking::Unsaid => {}
        Thinking::Off => _ = it.raw("thinking", r#"{"type":"disabled"}"#),
        Thinking::Budget { tokens, visible } => {
            _ = it.object("thinking", |it| {
                it.text("type", "enabled").count("budget_tokens", *tokens);
                display(it, *visible);
            });
        }
        Thinking::Adaptive { visible, .. } => {
            _ = it.object("thinking", |it| {
                it.text("type", "adaptive");
                display(it, *visible);
            });
        }
    }
}

fn write_output(it: &mut Object, all: &Conversation, thinking: &Thinking, losses: &mut Losses) {
    let format = match &all.format {
        Format::Text => None,
        Format::Json => {
            losses.note("response_format", "Anthropic holds answers to a schema, not to JSON at large");
            None
        }
        Format::Schema { name: _, description, schema, strict: _ } => {
            let there = description.is_some();
            losses.note_if(there, "response_format.description", "Anthropic's schemas have no such field");
            Some(object(|it| _ = it.text("type", "json_schema").raw("schema", schema)))
        }
    };
    let effort = match thinking {
        Thinking::Adaptive { effort, .. } => *effort,
        Thinking::Unsaid | Thinking::Off | Thinking::Budget { .. } => None,
    };
    if format.is_some() || effort.is_some() {
        it.object("output_config", |it| {
            it.text_if("effort", effort.map(effort_word));
            if let Some(format) = &format {
                it.raw("format", format);
            }
        });
    }
}

fn write_sampling(
    it: &mut Object,
    all: &Conversation,
    version: Version,
    thinking: &Thinking,
    losses: &mut Losses,
) {
    const PENALTY: &str = "Anthropic has no penalties";
    let sampling = &all.sampling;
    let none = if version.takes_no_budget() {
        Some("this model takes no sampling parameters")
    } else {
        thinking.is_on().then_some("a model that thinks takes no sampling parameters")
    };
    if let Some(why) = none {
        losses.note_if(sampling.temperature.is_some(), "temperature", why);
        losses.note_if(sampling.top_p.is_some(), "top_p", why);
        losses.note_if(sampling.top_k.is_some(), "top_k", why);
    } else {
        let hotter = sampling.temperature.is_some_and(|temperature| temperature > 1.0);
        losses.note_if(hotter, "temperature", "Anthropic's ends at 1");
        it.number_if("temperature", sampling.temperature.map(|temperature| temperature.min(1.0)));
        let both = sampling.temperature.is_some() && sampling.top_p.is_some() && version.takes_one_sampler();
        losses.note_if(both, "top_p", "this model takes `temperature` or `top_p`, not both");
        it.number_if("top_p", sampling.top_p.filter(|_| !both));
        it.count_if("top_k", sampling.top_k);
    }
    losses.note_if(sampling.presence_penalty.is_some(), "presence_penalty", PENALTY);
    losses.note_if(sampling.frequency_penalty.is_some(), "frequency_penalty", PENALTY);
    losses.note_if(sampling.seed.is_some(), "seed", "Anthropic takes no seed");
}

/// Texts that end the answer; blank ones are refused.
fn write_stop(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    let (said, blank): (Vec<&String>, Vec<&String>) =
        all.stop.iter().partition(|stop| !stop.trim().is_empty());
    losses.note_if(!blank.is_empty(), "stop", "Anthropic takes no blank text to stop at");
    if !said.is_empty() {
        it.raw("stop_sequences", &array(said.iter().map(|stop| quote(stop))));
    }
}
