//! What providers of `generateContent` are sent, and send.

use crate::chat::{Answer, Conversation, Effort, Format, Losses, Part, Reasoning, ToolChoice};
use crate::dialect::{
    AnswerFault, CONVERTED_DEPTH_MAX, Headers, ProviderDef, ProviderDialect, ReadStream, Relay,
};
use crate::json::tree::Tree;
use crate::json::write::{Object, object};
use crate::openai::error::Fault;
use crate::openai::request::Operation;

use super::chunks::Chunks;
use super::fault::stream_error;
use super::reply::read_answer;
use super::words::{is_third, level};
use super::write::contents;

/// The definition.
pub static DEF: ProviderDef = ProviderDef {
    name: "gemini",
    summary: "Google's Gemini API, and Gemini on Vertex AI.",
    stream_type: "text/event-stream",
    relays: &[Relay {
        client: "gemini",
        operations: &[Operation::Chat, Operation::Embedding],
        path: super::route::relay_path,
        wrapping: None,
    }],
    dialect: &GeminiProvider,
};

/// The dialect.
struct GeminiProvider;

impl ProviderDialect for GeminiProvider {
    fn path(&self, model: &str, stream: bool) -> String {
        super::route::path_of(model, if stream { "streamGenerateContent?alt=sse" } else { "generateContent" })
    }

    fn request(&self, all: &Conversation, model: &str, losses: &mut Losses) -> String {
        object(|it| {
            write_system(it, &all.system, losses);
            it.array("contents", contents(all, model, losses));
            write_tools(it, all, losses);
            let config = config(all, model, losses);
            if !config.is_empty() {
                it.raw("generationConfig", &config.finish());
            }
            match all.service_tier.as_deref() {
                None | Some("default" | "standard") => {}
                Some(tier @ ("flex" | "priority")) => _ = it.text("serviceTier", tier),
                Some(_) => losses.note("service_tier", "Gemini has no such tier"),
            }
            losses.note_if(all.user.is_some(), "user", "Gemini is not told of end users");
        })
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        let tree = Tree::parse(body, CONVERTED_DEPTH_MAX)?;
        if tree.get("error").is_some() {
            return Err(AnswerFault::Failed(stream_error(body)));
        }
        // A prompt that is blocked has no candidates.
        if tree.get("candidates").or_else(|| tree.get("promptFeedback")).is_none() {
            return Err(AnswerFault::Missing("candidates"));
        }
        Ok(read_answer(tree))
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        Box::new(Chunks::default())
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        super::fault::classify(status, headers("retry-after"), body)
    }
}

fn write_system(it: &mut Object, system: &[Part], losses: &mut Losses) {
    let texts = system.iter().filter_map(|part| match part {
        Part::Text { text, cache, citations: _ } => {
            losses.note_if(cache.is_some(), "system.cache_control", super::write::NO_MARKS);
            Some(object(|it| _ = it.text("text", text)))
        }
        Part::Media(_)
        | Part::ToolCall { .. }
        | Part::ToolResult { .. }
        | Part::Thinking { .. }
        | Part::HiddenThinking { .. }
        | Part::Refusal(_) => {
            losses.note("system", "Gemini is instructed in text only");
            None
        }
    });
    let texts: Vec<String> = texts.collect();
    if !texts.is_empty() {
        it.object("systemInstruction", |it| _ = it.array("parts", texts));
    }
}

fn write_tools(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    if !all.tools.is_empty() {
        let mut declared = Vec::new();
        for (at, tool) in all.tools.iter().enumerate() {
            losses.note_if(
                tool.cache.is_some(),
                &format!("tools[{at}].cache_control"),
                super::write::NO_MARKS,
            );
            declared.push(object(|it| {
                it.text("name", &tool.name).text_if("description", tool.description.as_deref());
                if let Some(schema) = &tool.parameters {
                    it.raw("parametersJsonSchema", schema);
                }
            }));
        }
        it.array("tools", [object(|it| _ = it.array("functionDeclarations", declared))]);
    }
    let strict = !all.tools.is_empty() && all.tools.iter().all(|tool| tool.strict == Some(true));
    let (mode, only) = match &all.tool_choice {
        Some(ToolChoice::None) => ("NONE", None),
        Some(ToolChoice::Any) => ("ANY", None),
        Some(ToolChoice::Tool(name)) => ("ANY", Some(name)),
        None | Some(ToolChoice::Auto) if strict => ("VALIDATED", None),
        None => ("", None),
        Some(ToolChoice::Auto) => ("AUTO", None),
    };
    if !matches!(mode, "ANY" | "VALIDATED" | "NONE") {
        for (at, _) in all.tools.iter().enumerate().filter(|(_, tool)| tool.strict == Some(true)) {
            losses.note(
                format!("tools[{at}].strict"),
                "Gemini holds the arguments of all tools to their schemas, or of none",
            );
        }
    }
    if !mode.is_empty() {
        it.object("toolConfig", |it| {
            it.object("functionCallingConfig", |it| {
                it.text("mode", mode);
                if let Some(name) = only {
                    it.array("allowedFunctionNames", [crate::json::quote(name)]);
                }
            });
        });
    }
    losses.note_if(
        all.parallel_tool_calls == Some(false) && !all.tools.is_empty(),
        "parallel_tool_calls",
        "Gemini cannot be held to one call at a time",
    );
}

fn config(all: &Conversation, model: &str, losses: &mut Losses) -> Object {
    let mut it = Object::new();
    let sampling = &all.sampling;
    it.number_if("temperature", sampling.temperature).number_if("topP", sampling.top_p);
    it.count_if("topK", sampling.top_k).count_if("maxOutputTokens", all.tokens_out_max);
    if !all.stop.is_empty() {
        it.array("stopSequences", all.stop.iter().map(|stop| crate::json::quote(stop)));
    }
    if all.choices > 1 {
        it.count("candidateCount", all.choices);
    }
    it.number_if("presencePenalty", sampling.presence_penalty);
    it.number_if("frequencyPenalty", sampling.frequency_penalty);
    if let Some(seed) = sampling.seed {
        match i32::try_from(seed) {
            Ok(seed) => _ = it.raw("seed", &seed.to_string()),
            Err(_) => losses.note("seed", "Gemini takes seeds of 32 bits"),
        }
    }
    if let Some(alternatives) = all.logprobs {
        it.boolean("responseLogprobs", true)
            .count_if("logprobs", Some(alternatives).filter(|some| *some > 0));
    }
    match &all.format {
        Format::Text => {}
        Format::Json => _ = it.text("responseMimeType", "application/json"),
        Format::Schema { name: _, description, schema, strict: _ } => {
            // A name is a handle, which this dialect does without.
            losses.note_if(
                description.is_some(),
                "response_format.description",
                "Gemini has no description of a schema beside it",
            );
            it.text("responseMimeType", "application/json").raw("responseJsonSchema", schema);
        }
    }
    if let Some(reasoning) = &all.reasoning {
        write_thinking(&mut it, reasoning, model, losses);
    }
    it
}

/// The most tokens that all models that count them can think.
const THOUGHT_TOKENS_MAX: u64 = 24_576;

/// Models of the third generation think by levels; those before count tokens.
fn write_thinking(it: &mut Object, reasoning: &Reasoning, model: &str, losses: &mut Losses) {
    let off = reasoning.effort == Some(Effort::None) || reasoning.tokens == Some(0);
    let why = "Gemini's third generation always thinks; it is told to do so as little as it can";
    losses.note_if(off && is_third(model), "reasoning", why);
    let effort = if off { Some(Effort::None) } else { reasoning.effort };
    let thinking = object(|it| {
        match (effort, reasoning.tokens) {
            (Some(effort), _) if is_third(model) => _ = it.text("thinkingLevel", level(effort)),
            (_, Some(tokens)) => _ = it.count("thinkingBudget", tokens),
            (Some(effort), None) => _ = it.count("thinkingBudget", budget(effort)),
            (None, None) => {}
        }
        it.boolean_if("includeThoughts", reasoning.visible);
    });
    if thinking != "{}" {
        it.raw("thinkingConfig", &thinking);
    }
}

fn budget(effort: Effort) -> u64 {
    effort.tokens().min(THOUGHT_TOKENS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Role};

    fn sent(all: &Conversation, model: &str) -> String {
        GeminiProvider.request(all, model, &mut Losses::default())
    }

    #[test]
    fn the_third_generation_thinks_by_levels() {
        let reasoning = Reasoning { effort: Some(Effort::Max), tokens: None, visible: Some(true) };
        let all = Conversation { reasoning: Some(reasoning), ..Conversation::default() };
        let thinking = r#""thinkingConfig":{"thinkingLevel":"HIGH","includeThoughts":true}"#;
        assert!(sent(&all, "gemini-3-flash").contains(thinking));
        assert!(sent(&all, "gemini-2.5-flash").contains(r#""thinkingBudget":24576,"#));
    }

    #[test]
    fn the_third_generation_gets_a_mark_where_a_call_is_another_models() {
        let call = |signature: Option<&str>| Part::ToolCall {
            id: "call_1".to_owned(),
            name: "f".to_owned(),
            arguments: "{}".to_owned(),
            signature: signature.map(str::to_owned),
        };
        let said = |parts| {
            let messages = vec![Message { role: Role::Assistant, name: None, parts }];
            Conversation { messages, ..Conversation::default() }
        };
        let marks = |all: &Conversation, model: &str| {
            sent(all, model).matches("skip_thought_signature_validator").count()
        };
        let foreign = said(vec![call(None), call(None)]);
        assert_eq!((marks(&foreign, "gemini-3-pro"), marks(&foreign, "gemini-2.5-pro")), (1, 0));
        assert_eq!(marks(&said(vec![call(Some("c2ln")), call(None)]), "gemini-3-pro"), 0);
    }

    #[test]
    fn paths_name_model_and_method() {
        let check = |model: &str, stream, expected: &str| {
            assert_eq!(GeminiProvider.path(model, stream), expected);
        };
        check("gemini-2.5-flash", false, "/models/gemini-2.5-flash:generateContent");
        check("gemini-2.5-flash", true, "/models/gemini-2.5-flash:streamGenerateContent?alt=sse");
        check("tunedModels/a b?", false, "/tunedModels/a%20b%3F:generateContent");
    }
}
