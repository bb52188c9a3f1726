//! What Bedrock is sent.

use crate::chat::{Answer, Conversation, Format, Losses, ToolChoice};
use crate::dialect::{AnswerFault, Headers, ProviderDef, ProviderDialect, ReadStream};
use crate::json::write::{Object, object};
use crate::openai::error::Fault;
use crate::url::segment_into;

use super::blocks::{Blocks, some_array, tool_by_name, tools, tools_used};
use super::families::{Fit, fit};
use super::stream::Frames;

/// The definition.
pub static DEF: ProviderDef = ProviderDef {
    name: "bedrock",
    summary: "AWS Bedrock by Converse and ConverseStream.",
    stream_type: "application/vnd.amazon.eventstream",
    relays: &[],
    dialect: &Converse,
};

/// The dialect.
struct Converse;

impl ProviderDialect for Converse {
    fn path(&self, model: &str, stream: bool) -> String {
        let mut path = String::from("/model/");
        segment_into(model, &mut path);
        path.push_str(if stream { "/converse-stream" } else { "/converse" });
        path
    }

    fn request(&self, all: &Conversation, model: &str, losses: &mut Losses) -> String {
        let mut fit = fit(all, model, losses);
        let mut blocks = Blocks::new(losses);
        let (messages, system) = (blocks.messages(all), blocks.system(&all.system));
        object(|it| {
            it.array("messages", messages);
            if let Some(system) = some_array(system) {
                it.raw("system", &system);
            }
            write_inference(it, all, &fit);
            write_tools(it, all, losses);
            write_output(it, all, &fit, losses);
            if fit.tells_stop_sequence && !all.stop.is_empty() {
                it.raw("additionalModelResponseFieldPaths", r#"["/stop_sequence"]"#);
            }
            let extra = std::mem::take(&mut fit.extra);
            if !extra.is_empty() {
                it.raw("additionalModelRequestFields", &extra.finish());
            }
            write_tier(it, all, losses);
            note_rest(all, losses);
        })
    }

    fn answer(&self, body: &str) -> Result<Answer, AnswerFault> {
        super::answer::read(body)
    }

    fn stream(&self) -> Box<dyn ReadStream> {
        Box::new(Frames::default())
    }

    fn fault(&self, status: u16, headers: Headers<'_>, body: &[u8]) -> Fault {
        super::fault(headers("x-amzn-errortype"), status, headers("retry-after"), body)
    }
}

fn write_inference(it: &mut Object, all: &Conversation, fit: &Fit) {
    let mut config = Object::new();
    config.count_if("maxTokens", all.tokens_out_max);
    config.number_if("temperature", fit.temperature).number_if("topP", fit.top_p);
    let stop: Vec<String> =
        all.stop.iter().filter(|stop| !stop.is_empty()).map(|stop| crate::json::quote(stop)).collect();
    if let Some(stop) = some_array(stop) {
        config.raw("stopSequences", &stop);
    }
    if !config.is_empty() {
        it.raw("inferenceConfig", &config.finish());
    }
}

fn write_tools(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    let (called, used) = tools_used(all);
    let mut known = tools(all);
    let forbidden = all.tool_choice == Some(ToolChoice::None);
    if forbidden && !used {
        return;
    }
    losses.note_if(
        forbidden && !known.is_empty(),
        "tool_choice",
        "Converse cannot forbid tools that were called before",
    );
    if known.is_empty() && used {
        // Converse wants tools defined as soon as one was called.
        known = called.into_iter().map(tool_by_name).collect();
        if known.is_empty() {
            known.push(tool_by_name("unknown"));
        }
    }
    losses.note_if(
        all.parallel_tool_calls == Some(false) && !known.is_empty(),
        "parallel_tool_calls",
        "Converse cannot forbid calls at once",
    );
    let Some(known) = some_array(known) else { return };
    it.object("toolConfig", |it| {
        it.raw("tools", &known);
        match &all.tool_choice {
            None | Some(ToolChoice::None) => {}
            Some(ToolChoice::Auto) => _ = it.raw("toolChoice", r#"{"auto":{}}"#),
            Some(ToolChoice::Any) => _ = it.raw("toolChoice", r#"{"any":{}}"#),
            Some(ToolChoice::Tool(name)) => {
                it.object("toolChoice", |it| _ = it.object("tool", |it| _ = it.text("name", name)));
            }
        }
    });
}

fn write_output(it: &mut Object, all: &Conversation, fit: &Fit, losses: &mut Losses) {
    let mut output = Object::new();
    match &all.format {
        Format::Text => {}
        Format::Json => losses.note("response_format", "Converse promises JSON only by a schema"),
        Format::Schema { name, description, schema, strict: _ } => {
            output.object("textFormat", |it| {
                it.text("type", "json_schema");
                it.object("structure", |it| {
                    it.object("jsonSchema", |it| {
                        it.text("schema", schema).text_if("name", name.as_deref());
                        it.text_if("description", description.as_deref());
                    });
                });
            });
        }
    }
    output.text_if("effort", fit.effort);
    if !output.is_empty() {
        it.raw("outputConfig", &output.finish());
    }
}

fn write_tier(it: &mut Object, all: &Conversation, losses: &mut Losses) {
    match all.service_tier.as_deref() {
        None => {}
        Some(tier @ ("priority" | "default" | "flex" | "reserved")) => {
            it.object("serviceTier", |it| _ = it.text("type", tier));
        }
        Some(_) => losses.note("service_tier", "Bedrock has `priority`, `default`, `flex` and `reserved`"),
    }
}

/// What Converse has no word for.
fn note_rest(all: &Conversation, losses: &mut Losses) {
    const NO_WORD: &str = "Converse has no such field";
    losses.note_if(all.choices > 1, "n", "Converse gives one answer");
    losses.note_if(all.logprobs.is_some(), "logprobs", NO_WORD);
    losses.note_if(all.sampling.presence_penalty.is_some(), "presence_penalty", NO_WORD);
    losses.note_if(all.sampling.frequency_penalty.is_some(), "frequency_penalty", NO_WORD);
    losses.note_if(all.sampling.seed.is_some(), "seed", NO_WORD);
    losses.note_if(all.user.is_some(), "user", "Converse would write it to the account's logs");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, Part, Role, Tool};

    fn request(all: &Conversation) -> (String, Losses) {
        let mut losses = Losses::default();
        let body = Converse.request(all, "amazon.nova-pro-v1:0", &mut losses);
        (body, losses)
    }

    fn called() -> Conversation {
        let call = Part::ToolCall {
            id: "c1".to_owned(),
            name: "f".to_owned(),
            arguments: r#"{"a": 1}"#.to_owned(),
            signature: None,
        };
        let result = Part::ToolResult {
            id: "c1".to_owned(),
            name: None,
            parts: vec![Part::text("4")],
            is_error: true,
        };
        let message = |role, parts| Message { role, name: None, parts };
        Conversation {
            messages: vec![
                message(Role::User, vec![Part::text("hi")]),
                message(Role::Assistant, vec![Part::text("  "), call]),
                message(Role::Tool, vec![result]),
                message(Role::User, vec![Part::text("well?")]),
            ],
            choices: 1,
            ..Conversation::default()
        }
    }

    #[test]
    fn i8_models_stay_one_segment() {
        assert_eq!(
            Converse.path("us.anthropic.claude-sonnet-4-5-20250929-v1:0", false),
            "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"
        );
        assert_eq!(Converse.path("../x?y#z\r\n", true), "/model/..%2Fx%3Fy%23z%0D%0A/converse-stream");
    }

    #[test]
    fn turns_alternate_and_tools_that_were_called_are_defined() {
        let (body, losses) = request(&called());
        assert_eq!(
            body,
            concat!(
                r#"{"messages":[{"role":"user","content":[{"text":"hi"}]},"#,
                r#"{"role":"assistant","content":[{"toolUse":{"toolUseId":"c1","name":"f","input":{"a": 1}}}]},"#,
                r#"{"role":"user","content":[{"toolResult":{"toolUseId":"c1","content":[{"text":"4"}],"status":"error"}},"#,
                r#"{"text":"well?"}]}],"#,
                r#""toolConfig":{"tools":[{"toolSpec":{"name":"f","inputSchema":{"json":{"type":"object"}}}}]}}"#
            )
        );
        assert_eq!(losses.named().len(), 1, "the blank text: {losses:?}");
    }

    #[test]
    fn tools_that_are_forbidden_are_left_out_unless_one_was_called() {
        let tool =
            Tool { name: "f".to_owned(), description: None, parameters: None, strict: None, cache: None };
        let forbid =
            |all| Conversation { tools: vec![tool.clone()], tool_choice: Some(ToolChoice::None), ..all };
        let (body, losses) = request(&forbid(Conversation { choices: 1, ..Conversation::default() }));
        assert!(!body.contains("toolConfig") && losses.is_empty(), "{body}");
        let (body, losses) = request(&forbid(called()));
        assert!(body.contains("toolConfig") && !body.contains("toolChoice"), "{body}");
        assert!(losses.named().iter().any(|loss| loss.field == "tool_choice"));
    }
}
