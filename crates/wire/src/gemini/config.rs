//! Tools and configuration of a request, read.

use crate::chat::{Conversation, Effort, Format, Losses, Reasoning, Tool, ToolChoice};
use crate::dialect::CONVERTED_DEPTH_MAX;
use crate::json::tree::{Members, Tree};
use crate::openai::error::Invalid;

use super::contents::NO_WORD;
use super::schema::json_schema;
use super::words::{effort_of, says_nothing, take, take_count, take_items, take_members, take_text};

/// Reads `tools` and `toolConfig`.
pub(super) fn read_tools(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    for (at, tool) in take_items(body, "tools").into_iter().enumerate() {
        let mut tool = tool.into_members();
        for (index, function) in take_items(&mut tool, "functionDeclarations").into_iter().enumerate() {
            let path = format!("tools[{at}].functionDeclarations[{index}]");
            let tool = read_function(function.into_members(), &path, &mut all.losses);
            all.tools.push(tool);
        }
        // The others (search, code execution, URLs, maps, files) are run by Google.
        if let Some((name, _)) = tool.rest().next() {
            let field = format!("tools[{at}].{name}");
            let text = format!("`{field}`: this tool is run by its provider; others have none");
            return Err(Invalid::field(field, text));
        }
    }
    let mut config = take_members(body, "toolConfig");
    let calling = take_members(&mut config, "functionCallingConfig");
    read_calling(calling, all);
    for (name, _) in config.rest().filter(|(_, value)| !says_nothing(value)) {
        all.losses.note(format!("toolConfig.{name}"), NO_WORD);
    }
    Ok(())
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
pub(super) fn read_config(mut config: Members<'_>, all: &mut Conversation) {
    read_format(&mut config, all);
    let mut number = |name: &str| take(&mut config, name).and_then(|value| value.number());
    let sampling = &mut all.sampling;
    sampling.temperature = number("temperature");
    sampling.top_p = number("topP");
    sampling.presence_penalty = number("presencePenalty");
    sampling.frequency_penalty = number("frequencyPenalty");
    sampling.top_k = take_count(&mut config, "topK");
    sampling.seed = take(&mut config, "seed").and_then(|seed| seed.text().unwrap_or(seed.raw()).parse().ok());
    all.tokens_out_max = take_count(&mut config, "maxOutputTokens").filter(|tokens| *tokens > 0);
    all.stop = take_items(&mut config, "stopSequences").into_iter().filter_map(Tree::into_text).collect();
    all.choices = take_count(&mut config, "candidateCount").unwrap_or(1).max(1);
    let alternatives = take_count(&mut config, "logprobs");
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
    let level = take_text(&mut thinking, "thinkingLevel").and_then(|word| effort_of(&word));
    let visible = take(&mut thinking, "includeThoughts").and_then(|asked| asked.boolean());
    for (name, _) in thinking.rest().filter(|(_, value)| !says_nothing(value)) {
        losses.note(format!("generationConfig.thinkingConfig.{name}"), NO_WORD);
    }
    Reasoning { effort: level.or_else(|| (tokens == Some(0)).then_some(Effort::None)), tokens, visible }
}
