//! A body of the Responses API, read.

use crate::chat::{Conversation, Effort, Format, Losses, Message, Part, Reasoning, Role, Tool, ToolChoice};
use crate::json::tree::{Members, Tree};
use crate::openai::chat::tools::narrow;
use crate::openai::chat::words::{effort_of, signature_of};
use crate::openai::error::Invalid;
use crate::taken::{self, NO_VALUE, NO_WORD, hold_choice, note_rest};

use super::echo;
use super::own::{OTHER_THOUGHTS, is_readable_elsewhere, why_lost};
use super::parts::read_content;

/// The mark of a thought that only its provider can read, where it stands for a signature.
pub(super) const HIDDEN: &str = "hidden.";

/// What a request says.
pub(super) fn read(body: Tree<'_>) -> Result<Conversation, Invalid> {
    let mut all = Conversation { choices: 1, ..Conversation::default() };
    let echoed = echo::of(&body);
    let mut body = body.into_members();
    body.take("model");
    refuse_kept(&mut body)?;
    let instructions = body.take("instructions");
    all.system = read_content(instructions, "instructions", &mut all.losses)?;
    read_input(body.take("input"), &mut all)?;
    read_tools(&mut body, &mut all)?;
    read_text(&mut body, &mut all)?;
    read_reasoning(&mut body, &mut all);
    read_limits(&mut body, &mut all)?;
    read_logprobs(&mut body, &mut all)?;
    read_kept(&mut body, &mut all);
    note_rest(body, "", &mut all.losses);
    all.echoed = echo::with_tools(&echoed, &all.tools);
    Ok(all)
}

/// What a provider keeps and no other has: without it the answer would be to another question.
fn refuse_kept(body: &mut Members<'_>) -> Result<(), Invalid> {
    for field in ["previous_response_id", "conversation", "prompt"] {
        if body.take(field).is_some() {
            let text = format!(
                "`{field}` names what a provider of the Responses API keeps, and this request is served in another dialect; \
                 send the whole conversation as `input`"
            );
            return Err(Invalid::field(field, text));
        }
    }
    Ok(())
}

fn read_input(input: Option<Tree<'_>>, all: &mut Conversation) -> Result<(), Invalid> {
    let Some(input) = input else { return Ok(()) };
    if let Some(text) = input.text() {
        all.messages.push(Message { role: Role::User, name: None, parts: vec![Part::text(text)] });
        return Ok(());
    }
    for (at, item) in input.into_items().into_iter().enumerate() {
        let path = format!("input[{at}]");
        let mut item = item.into_members();
        // Ids of items and what became of them mean nothing to another provider.
        let kind = item.take_text("type").unwrap_or_else(|| "message".to_owned());
        for name in ["id", "status", "phase"] {
            item.take(name);
        }
        read_item(&kind, &mut item, &path, all)?;
        note_rest(item, &format!("{path}."), &mut all.losses);
        all.message_stood_at(at);
    }
    Ok(())
}

fn read_item(kind: &str, item: &mut Members<'_>, path: &str, all: &mut Conversation) -> Result<(), Invalid> {
    match kind {
        "message" => return read_message(item, path, all),
        "function_call" => {
            let call = Part::ToolCall {
                id: item.take_text("call_id").unwrap_or_default(),
                name: item.take_text("name").unwrap_or_default(),
                arguments: item.take_text("arguments").unwrap_or_default(),
                signature: item.take("extra_content").as_ref().and_then(signature_of),
            };
            said(all).push(call);
        }
        "function_call_output" => {
            let id = item.take_text("call_id").unwrap_or_default();
            let parts = read_content(item.take("output"), &format!("{path}.output"), &mut all.losses)?;
            let result = Part::ToolResult { id, name: None, parts, is_error: false };
            parts_of(all, Role::Tool).push(result);
        }
        "reasoning" => read_thought(item, path, all),
        "item_reference" => {
            let text = format!(
                "`{path}` refers to what a provider of the Responses API keeps, and this request is served in another \
                 dialect; send the item itself"
            );
            return Err(Invalid::field(path, text));
        }
        other => match why_lost(other) {
            Some(why) => {
                std::mem::take(item);
                all.losses.note(path, why);
            }
            None => {
                let field = format!("{path}.type");
                let text = format!("`{field}`: `{other}` is nothing that another dialect knows");
                return Err(Invalid::field(field, text));
            }
        },
    }
    Ok(())
}

fn read_message(item: &mut Members<'_>, path: &str, all: &mut Conversation) -> Result<(), Invalid> {
    let role = item.take_text("role").unwrap_or_default();
    let parts = read_content(item.take("content"), &format!("{path}.content"), &mut all.losses)?;
    match role.as_str() {
        "system" | "developer" if all.messages.is_empty() => all.system.extend(parts),
        "system" | "developer" => all.messages.push(Message { role: Role::System, name: None, parts }),
        "user" => all.messages.push(Message { role: Role::User, name: None, parts }),
        "assistant" if has_spoken(all) => {
            all.messages.push(Message { role: Role::Assistant, name: None, parts });
        }
        "assistant" => said(all).extend(parts),
        other => {
            let text = format!("`{path}.role`: `{other}` is no role that another dialect knows");
            return Err(Invalid::field(format!("{path}.role"), text));
        }
    }
    Ok(())
}

/// Whether the last message is the assistant's, and says something already.
fn has_spoken(all: &Conversation) -> bool {
    all.messages.last().is_some_and(|last| {
        let speaks = last.parts.iter().any(|part| matches!(part, Part::Text { .. } | Part::Refusal(_)));
        last.role == Role::Assistant && speaks
    })
}

/// What the assistant said last: its thoughts, messages and calls in a row are one message.
fn said(all: &mut Conversation) -> &mut Vec<Part> {
    parts_of(all, Role::Assistant)
}

fn parts_of(all: &mut Conversation, role: Role) -> &mut Vec<Part> {
    if all.messages.last().is_none_or(|last| last.role != role) {
        all.messages.push(Message { role, name: None, parts: Vec::new() });
    }
    let last = all.messages.len() - 1;
    &mut all.messages[last].parts
}

fn read_thought(item: &mut Members<'_>, path: &str, all: &mut Conversation) {
    let texts = |list: Option<Tree<'_>>| -> String {
        let list = list.map(Tree::into_items).unwrap_or_default();
        let texts = list.into_iter().filter_map(|part| part.into_members().take_text("text"));
        texts.collect::<Vec<_>>().join("\n\n")
    };
    let (summary, content) = (texts(item.take("summary")), texts(item.take("content")));
    let text = if content.is_empty() { summary } else { content };
    let mut signature = item.take_text("encrypted_content").filter(|signature| !signature.is_empty());
    if let Some(data) = signature.as_deref().and_then(|signature| signature.strip_prefix(HIDDEN)) {
        let data = data.to_owned();
        said(all).push(Part::HiddenThinking { data });
        return;
    }
    if signature.as_deref().is_some_and(|signature| !is_readable_elsewhere(signature)) {
        all.losses.note(format!("{path}.encrypted_content"), OTHER_THOUGHTS);
        signature = None;
    }
    if !text.is_empty() || signature.is_some() {
        said(all).push(Part::Thinking { text, signature });
    }
}

fn read_tools(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut dropped = false;
    for (at, tool) in body.take("tools").map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let path = format!("tools[{at}].");
        let mut tool = tool.into_members();
        let kind = tool.take_text("type").unwrap_or_default();
        if kind != "function" {
            let why =
                why_lost(&kind).unwrap_or("a tool of this type is run by its provider; others have none");
            all.losses.note(format!("tools[{at}]"), why);
            dropped = true;
            continue;
        }
        all.tools.push(Tool {
            name: tool.take_text("name").unwrap_or_default(),
            description: tool.take_text("description"),
            parameters: tool.take("parameters").map(|schema| schema.raw().to_owned()),
            strict: taken::boolean(&mut tool, &path, "strict")?,
            cache: None,
        });
        all.tools_stood_at(at);
        note_rest(tool, &path, &mut all.losses);
    }
    all.parallel_tool_calls = taken::boolean(body, "", "parallel_tool_calls")?;
    if let Some(choice) = body.take("tool_choice") {
        all.tool_choice = read_choice(&choice, all);
    }
    hold_choice(all, dropped);
    Ok(())
}

fn read_choice(choice: &Tree<'_>, all: &mut Conversation) -> Option<ToolChoice> {
    let kind = choice.get("type").and_then(Tree::text);
    match (choice.text(), kind) {
        (Some("none"), _) => Some(ToolChoice::None),
        (Some("required"), _) => Some(ToolChoice::Any),
        (Some("auto"), _) => Some(ToolChoice::Auto),
        (Some(_), _) => {
            all.losses.note("tool_choice", NO_VALUE);
            None
        }
        (None, Some("function")) => {
            choice.get("name").and_then(Tree::text).map(|name| ToolChoice::Tool(name.to_owned()))
        }
        (None, Some("allowed_tools")) => Some(narrow(all, choice)),
        (None, _) => {
            all.losses.note("tool_choice", "it names a tool that only its provider runs");
            None
        }
    }
}

fn read_text(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut text = body.take("text").map(Tree::into_members).unwrap_or_default();
    let verbosity = text.take_text("verbosity").filter(|verbosity| verbosity != "medium");
    all.losses.note_if(verbosity.is_some(), "text.verbosity", NO_WORD);
    all.format = read_format(&mut text, &mut all.losses)?;
    note_rest(text, "text.", &mut all.losses);
    Ok(())
}

/// The form that an answer is held to, of the members of `text`.
pub(super) fn read_format(text: &mut Members<'_>, losses: &mut Losses) -> Result<Format, Invalid> {
    let mut format = text.take("format").map(Tree::into_members).unwrap_or_default();
    let read = match format.take_text("type").as_deref() {
        Some("json_object") => Format::Json,
        Some("json_schema") => Format::Schema {
            name: format.take_text("name"),
            description: format.take_text("description"),
            schema: format.take("schema").map_or_else(|| "{}".to_owned(), |schema| schema.raw().to_owned()),
            strict: taken::boolean(&mut format, "text.format.", "strict")?,
        },
        Some("text") | None => Format::Text,
        Some(_) => {
            losses.note("text.format.type", NO_VALUE);
            Format::Text
        }
    };
    note_rest(format, "text.format.", losses);
    Ok(read)
}

fn read_reasoning(body: &mut Members<'_>, all: &mut Conversation) {
    let Some(reasoning) = body.take("reasoning") else { return };
    let mut reasoning = reasoning.into_members();
    let summary = reasoning.take_text("summary");
    let summary = reasoning.take_text("generate_summary").or(summary);
    let word = reasoning.take_text("effort");
    let effort: Option<Effort> = word.as_deref().and_then(effort_of);
    all.losses.note_if(
        word.is_some() && effort.is_none(),
        "reasoning.effort",
        "there is no such effort elsewhere",
    );
    let visible = summary.map(|_| true);
    all.reasoning = (effort.is_some() || visible.is_some()).then(|| Reasoning {
        effort,
        visible,
        ..Reasoning::default()
    });
    note_rest(reasoning, "reasoning.", &mut all.losses);
}

fn read_limits(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut number = |name: &str| taken::number(body, "", name);
    all.sampling.temperature = number("temperature")?;
    all.sampling.top_p = number("top_p")?;
    all.sampling.presence_penalty = number("presence_penalty")?;
    all.sampling.frequency_penalty = number("frequency_penalty")?;
    all.tokens_out_max = taken::count(body, "", "max_output_tokens")?;
    all.stream = taken::boolean(body, "", "stream")?.unwrap_or(false);
    // What it can say concerns the padding of events only.
    body.take("stream_options");
    all.service_tier = taken::text(body, "", "service_tier")?.filter(|tier| tier != "auto");
    let identifier = taken::text(body, "", "safety_identifier")?;
    all.user = taken::text(body, "", "user")?.or(identifier);
    Ok(())
}

fn read_logprobs(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let alternatives = taken::count(body, "", "top_logprobs")?;
    let mut asked = alternatives.is_some_and(|alternatives| alternatives > 0);
    for (at, part) in body.take("include").map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        match part.text() {
            Some("message.output_text.logprobs") => asked = true,
            // What proves thoughts is always there.
            Some("reasoning.encrypted_content") | None => {}
            Some(_) => {
                all.losses.note(format!("include[{at}]"), "only a provider of the Responses API has it");
            }
        }
    }
    all.logprobs = asked.then_some(alternatives.unwrap_or(0));
    Ok(())
}

/// What concerns the keeping of answers.
fn read_kept(body: &mut Members<'_>, all: &mut Conversation) {
    let mut is_true = |name: &str| body.take(name).and_then(|value| value.boolean()) == Some(true);
    let (store, background) = (is_true("store"), is_true("background"));
    all.losses.note_if(store, "store", "no other provider keeps answers; send the conversation each time");
    all.losses.note_if(background, "background", "it is answered at once, for nothing is kept elsewhere");
    let truncation = body.take_text("truncation").filter(|truncation| truncation != "disabled");
    all.losses.note_if(truncation.is_some(), "truncation", NO_WORD);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(body: &str) -> Result<Conversation, Invalid> {
        read(Tree::parse(body, 64).unwrap())
    }

    #[test]
    fn what_only_a_provider_keeps_is_refused_by_its_field() {
        for (body, field) in [
            (r#"{"input":"x","previous_response_id":"resp_1"}"#, "previous_response_id"),
            (r#"{"input":"x","conversation":{"id":"conv_1"}}"#, "conversation"),
            (r#"{"prompt":{"id":"pmpt_1"}}"#, "prompt"),
            (r#"{"input":[{"type":"item_reference","id":"msg_1"}]}"#, "input[0]"),
            (r#"{"input":[{"type":"teleport"}]}"#, "input[0].type"),
            (r#"{"input":[{"role":"judge","content":"x"}]}"#, "input[0].role"),
        ] {
            let error = conversation(body).unwrap_err();
            assert_eq!((error.status, error.param.as_deref()), (400, Some(field)), "{error}");
        }
    }

    #[test]
    fn thoughts_messages_and_calls_in_a_row_are_one_message() {
        let body = r#"{"input":[
            {"role":"user","content":"x"},
            {"type":"reasoning","id":"rs_1","summary":[{"type":"summary_text","text":"a"},{"type":"summary_text","text":"b"}],"encrypted_content":"EqQB"},
            {"type":"message","role":"assistant","id":"msg_1","content":[{"type":"output_text","text":"y","annotations":[]}]},
            {"type":"function_call","call_id":"c1","name":"f","arguments":"{}"},
            {"type":"function_call","call_id":"c2","name":"f","arguments":"{}"},
            {"type":"function_call_output","call_id":"c1","output":"1"},
            {"type":"function_call_output","call_id":"c2","output":[{"type":"input_text","text":"2"}]},
            {"type":"message","role":"assistant","content":"z"}]}"#;
        let all = conversation(body).unwrap();
        let roles: Vec<(Role, usize)> = all.messages.iter().map(|one| (one.role, one.parts.len())).collect();
        assert_eq!(roles, [(Role::User, 1), (Role::Assistant, 4), (Role::Tool, 2), (Role::Assistant, 1)]);
        let thought = Part::Thinking { text: "a\n\nb".to_owned(), signature: Some("EqQB".to_owned()) };
        assert_eq!(all.messages[1].parts[0], thought);
        assert!(all.losses.is_empty(), "{:?}", all.losses);
    }

    #[test]
    fn thoughts_that_only_another_provider_can_read_are_named() {
        let body = r#"{"input":[{"type":"reasoning","summary":[],"encrypted_content":"gAAAAABo"},
            {"type":"reasoning","summary":[],"encrypted_content":"hidden.EmwK"}]}"#;
        let all = conversation(body).unwrap();
        assert_eq!(all.losses.named()[0].field, "input[0].encrypted_content");
        assert_eq!(all.messages[0].parts, [Part::HiddenThinking { data: "EmwK".to_owned() }]);
    }
}
