//! Tools and configuration of a request, read.

use crate::chat::{Conversation, Effort, Format, Losses, Reasoning, Tool, ToolChoice};
use crate::dialect::CONVERTED_DEPTH_MAX;
use crate::json::tree::{Members, Tree};
use crate::openai::error::Invalid;
use crate::taken::{self, NO_VALUE, hold_choice, typed};

use super::contents::NO_WORD;
use super::schema::json_schema;
use super::words::{effort_of, says_nothing, take, take_count, take_items, take_members, take_text};

/// Reads `tools` and `toolConfig`.
pub(super) fn read_tools(body: &mut Members<'_>, all: &mut Conversation) {
    let mut dropped = false;
    for (at, tool) in take_items(body, "tools").into_iter().enumerate() {
        let mut tool = tool.into_members();
        for (index, function) in take_items(&mut tool, "functionDeclarations").into_iter().enumerate() {
            let path = format!("tools[{at}].functionDeclarations[{index}]");
            let tool = read_function(function.into_members(), &path, &mut all.losses);
            all.tools.push(tool);
        }
        // The others (search, code execution, URLs, maps, files) are run by Google.
        for (name, _) in tool.rest() {
            dropped = true;
            let why = "this tool is run by its provider; others have none";
            all.losses.note(format!("tools[{at}].{name}"), why);
        }
    }
    let mut config = take_members(body, "toolConfig");
    let calling = take_members(&mut config, "functionCallingConfig");
    read_calling(calling, all);
    hold_choice(all, dropped);
    for (name, _) in config.rest().filter(|(_, value)| !says_nothing(value)) {
        all.losses.note(format!("toolConfig.{name}"), NO_WORD);
    }
}

fn read_function(mut function: Members<'_>, path: &str, losses: &mut Losses) -> Tool {
    let own = take(&mut function, "parameters").map(|schema| json_schema(&schema));
    let parameters =
        take(&mut function, "parametersJsonSchema").map(|schema| schema.raw().to_owned()).or(own);
    let tool = Tool {
        name: take_text(&mut function, "name").unwrap_or_default(),
        description: take_text(&mut function, "description"),
        parameters,
        strict: None,
        cache: None,
    };
    for (name, _) in function.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("{path}.{name}"), NO_WORD);
    }
    tool
}

fn read_calling(mut calling: Members<'_>, all: &mut Conversation) {
    const PATH: &str = "toolConfig.functionCallingConfig";
    let allowed: Vec<String> =
        take_items(&mut calling, "allowedFunctionNames").into_iter().filter_map(Tree::into_text).collect();
    let mode = take_text(&mut calling, "mode").unwrap_or_default();
    let narrowed = !allowed.is_empty() && !all.tools.iter().all(|tool| allowed.contains(&tool.name));
    let named = |all: &mut Conversation| {
        let why = "other dialects name one function or all";
        all.losses.note_if(narrowed, &format!("{PATH}.allowedFunctionNames"), why);
    };
    all.tool_choice = match mode.as_str() {
        "" | "MODE_UNSPECIFIED" => None,
        "NONE" => Some(ToolChoice::None),
        "ANY" => match allowed.as_slice() {
            [one] => Some(ToolChoice::Tool(one.clone())),
            [] | [_, _, ..] => {
                named(all);
                Some(ToolChoice::Any)
            }
        },
        "VALIDATED" => {
            // Arguments fit their schemas: what others say of each tool, if its schema is closed.
            for tool in &mut all.tools {
                tool.strict = tool.parameters.as_deref().is_some_and(is_closed).then_some(true);
            }
            let open = all.tools.iter().any(|tool| tool.strict.is_none());
            let why = "other dialects hold arguments only to schemas with `additionalProperties: false`";
            all.losses.note_if(open, &format!("{PATH}.mode"), why);
            named(all);
            Some(ToolChoice::Auto)
        }
        _ => {
            named(all);
            Some(ToolChoice::Auto)
        }
    };
    for (name, _) in calling.rest().filter(|(_, value)| !says_nothing(value)) {
        all.losses.note(format!("{PATH}.{name}"), NO_WORD);
    }
}

/// Whether a schema lets nothing in but what it names.
fn is_closed(schema: &str) -> bool {
    let tree = Tree::parse(schema, CONVERTED_DEPTH_MAX);
    tree.is_ok_and(|tree| tree.get("additionalProperties").and_then(Tree::boolean) == Some(false))
}

/// Reads `generationConfig`.
pub(super) fn read_config(mut config: Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    read_format(&mut config, all);
    let mut number = |name: &str| {
        typed(take(&mut config, name).as_ref(), &format!("{CONFIG}{name}"), "a number", Tree::number)
    };
    let sampling = &mut all.sampling;
    sampling.temperature = number("temperature")?;
    sampling.top_p = number("topP")?;
    sampling.presence_penalty = number("presencePenalty")?;
    sampling.frequency_penalty = number("frequencyPenalty")?;
    sampling.top_k = whole(&mut config, "topK")?;
    let seed = take(&mut config, "seed");
    sampling.seed = taken::seed(seed.as_ref(), &format!("{CONFIG}seed"), &mut all.losses)?;
    all.tokens_out_max = whole(&mut config, "maxOutputTokens")?.filter(|tokens| *tokens > 0);
    all.stop = take_items(&mut config, "stopSequences").into_iter().filter_map(Tree::into_text).collect();
    all.choices = whole(&mut config, "candidateCount")?.unwrap_or(1).max(1);
    let alternatives = whole(&mut config, "logprobs")?;
    let logprobs = take(&mut config, "responseLogprobs").and_then(|asked| asked.boolean()).unwrap_or(false);
    all.logprobs = logprobs.then_some(alternatives.unwrap_or(0));
    if let Some(thinking) = take(&mut config, "thinkingConfig") {
        all.reasoning = Some(read_thinking(thinking.into_members(), &mut all.losses));
    }
    let modalities = take(&mut config, "responseModalities");
    let others = modalities.iter().flat_map(Tree::items).any(|word| word.text() != Some("TEXT"));
    all.losses.note_if(others, "generationConfig.responseModalities", "the answer is text");
    for (name, _) in config.rest().filter(|(_, value)| !says_nothing(value)) {
        all.losses.note(format!("generationConfig.{name}"), NO_WORD);
    }
    Ok(())
}

/// Where most of it stands.
const CONFIG: &str = "generationConfig.";

/// Takes a whole number, which may be written as a string.
fn whole(config: &mut Members<'_>, name: &str) -> Result<Option<u64>, Invalid> {
    let read = |value: &Tree<'_>| value.whole().or_else(|| value.text()?.parse().ok());
    let expected = "a whole number of 0 or more";
    typed(take(config, name).as_ref(), &format!("{CONFIG}{name}"), expected, read)
}

fn read_format(config: &mut Members<'_>, all: &mut Conversation) {
    let media_type = take_text(config, "responseMimeType").unwrap_or_default();
    let own = take(config, "responseSchema").map(|schema| json_schema(&schema));
    let schema = take(config, "responseJsonSchema").map(|schema| schema.raw().to_owned()).or(own);
    all.format = match (media_type.as_str(), schema) {
        ("" | "application/json", Some(schema)) => {
            Format::Schema { name: None, description: None, schema, strict: None }
        }
        ("application/json", None) => Format::Json,
        ("" | "text/plain", _) => Format::Text,
        _ => {
            all.losses.note("generationConfig.responseMimeType", "other dialects answer in text or JSON");
            Format::Text
        }
    };
}

fn read_thinking(mut thinking: Members<'_>, losses: &mut Losses) -> Reasoning {
    // -1 leaves it to the model, as does saying nothing.
    let tokens = take_count(&mut thinking, "thinkingBudget");
    let word = take_text(&mut thinking, "thinkingLevel");
    let word = word.filter(|word| !matches!(word.as_str(), "" | "THINKING_LEVEL_UNSPECIFIED"));
    let level = word.as_deref().and_then(effort_of);
    let unknown = word.is_some() && level.is_none();
    losses.note_if(unknown, "generationConfig.thinkingConfig.thinkingLevel", NO_VALUE);
    let visible = take(&mut thinking, "includeThoughts").and_then(|asked| asked.boolean());
    for (name, _) in thinking.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("generationConfig.thinkingConfig.{name}"), NO_WORD);
    }
    Reasoning { effort: level.or_else(|| (tokens == Some(0)).then_some(Effort::None)), tokens, visible }
}
