//! What clients of `/api/chat` send, and are sent.

use crate::chat::{Answer, Conversation, Format, Losses, Message, Part, Role, Stop, Tool, Words};
use crate::dialect::{Asked, ClientDef, ClientDialect, Told, WriteStream};
use crate::json::Kind;
use crate::json::tree::{Members, Tree};
use crate::json::write::{Object, compact, object};
use crate::openai::error::{ErrorBody, Invalid};
use crate::openai::request::Operation;
use crate::taken;

use super::deltas::{Deltas, Form};
use super::request::{self, Api};
use super::words::{
    BROKEN_ARGUMENTS, arguments_object, call_json, error_json, fill_end, image, logprobs_json, note_stop,
    reasoning_of, rfc3339,
};

/// How its clients call what other dialects have no word for.
pub(super) const WORDS: Words = &[
    (".content.thinking", ".thinking"),
    ("frequency_penalty", "options.frequency_penalty"),
    ("presence_penalty", "options.presence_penalty"),
    ("reasoning", "think"),
    ("reasoning_effort", "think"),
    ("response_format", "format"),
    ("seed", "options.seed"),
    ("stop", "options.stop"),
    ("temperature", "options.temperature"),
    ("top_k", "options.top_k"),
    ("top_p", "options.top_p"),
];

/// The definition.
pub static DEF: ClientDef = ClientDef {
    name: "ollama",
    summary: "Ollama chats (`/api/chat`).",
    route: |path, _| (path == Api::Chat.path()).then(|| Asked::call(Operation::Chat, Api::Chat.path())),
    places: &["/api/"],
    read: |_, body, limits, salt| request::parse(Api::Chat, body, limits, salt),
    headers: &[],
    schema_field: "format",
    words: &[WORDS],
    request_id_header: None,
    error_status: |error| error.status,
    stream_type: |_| "application/x-ndjson",
    heartbeat: "",
    dialect: &ChatClient,
};

/// The dialect.
struct ChatClient;

/// Why a field is lost.
const NO_WORD: &str = "only Ollama has such a field";
/// Why media of an answer are lost.
const TEXT_ONLY: &str = "Ollama answers with text only";

impl ClientDialect for ChatClient {
    fn conversation(&self, body: Tree<'_>) -> Result<Conversation, Invalid> {
        let mut body = body.into_members();
        let mut all = Conversation { choices: 1, ..Conversation::default() };
        body.take("model");
        read_messages(body.take("messages"), &mut all)?;
        if all.messages.is_empty() {
            let text =
                "`messages` is empty, which loads a model in Ollama; other providers cannot be asked to";
            return Err(Invalid::field("messages", text));
        }
        read_tools(&mut body, &mut all);
        read_common(&mut body, &mut all)?;
        note_rest(body, &mut all.losses);
        Ok(all)
    }

    fn answer(&self, answer: &Answer, told: &Told, losses: &mut Losses) -> String {
        object(|it| {
            fill_head(it, answer, told);
            it.object("message", |it| fill_message(it, answer, losses));
            fill_tail(it, answer, losses);
        })
    }

    fn stream(&self, told: Told) -> Box<dyn WriteStream> {
        Box::new(Deltas::new(told, Form::Chat))
    }

    fn error(&self, error: &ErrorBody, _: &str) -> String {
        error_json(error)
    }
}

/// The members before what was said.
pub(super) fn fill_head(it: &mut Object, answer: &Answer, told: &Told) {
    it.text("model", &told.model);
    it.text("created_at", &rfc3339(answer.created_s.unwrap_or(told.now_unix_s)));
}

/// The members behind it.
pub(super) fn fill_tail(it: &mut Object, answer: &Answer, losses: &mut Losses) {
    losses.note_if(answer.choices.len() > 1, "choices", "Ollama gives one answer");
    let tier = answer.service_tier.as_deref().is_some_and(|tier| tier != "default");
    losses.note_if(tier, "service_tier", NO_WORD_BACK);
    let first = answer.choices.first();
    let stop = first.and_then(|choice| choice.stop);
    note_stop(stop, losses);
    if let Some(choice) = first.filter(|choice| !choice.logprobs.is_empty()) {
        it.raw("logprobs", &logprobs_json(&choice.logprobs));
    }
    fill_end(it, stop, answer.usage.as_ref());
}

/// Why something of an answer is lost.
const NO_WORD_BACK: &str = "Ollama has no word for it";

fn fill_message(it: &mut Object, answer: &Answer, losses: &mut Losses) {
    let parts = answer.choices.first().map(|choice| choice.parts.as_slice()).unwrap_or_default();
    let Said { text, thoughts, calls } = said(parts, losses);
    it.text("role", "assistant").text("content", &text);
    if !thoughts.is_empty() {
        it.text("thinking", &thoughts);
    }
    if !calls.is_empty() {
        it.array("tool_calls", calls);
    }
}

/// What a model said, as Ollama has it.
#[derive(Default)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) thoughts: String,
    pub(super) calls: Vec<String>,
}

pub(super) fn said(parts: &[Part], losses: &mut Losses) -> Said {
    let mut said = Said::default();
    for part in parts {
        match part {
            Part::Text { text, citations, .. } => {
                losses.note_if(citations.is_some(), "citations", NO_WORD_BACK);
                said.text.push_str(text);
            }
            // Ollama's models refuse in plain words.
            Part::Refusal(why) => said.text.push_str(why),
            Part::Thinking { text, signature } => {
                losses.note_if(signature.is_some(), "message.thinking.signature", NO_WORD_BACK);
                said.thoughts.push_str(text);
            }
            Part::HiddenThinking { .. } => losses.note("message.thinking", NO_WORD_BACK),
            Part::ToolCall { id, name, arguments, signature } => {
                losses.note_if(signature.is_some(), "message.tool_calls.signature", NO_WORD_BACK);
                match arguments_object(arguments) {
                    Some(object) => said.calls.push(call_json(id, name, object)),
                    None => losses.note("message.tool_calls.function.arguments", BROKEN_ARGUMENTS),
                }
            }
            Part::Media(_) => losses.note("message.content", TEXT_ONLY),
            Part::ToolResult { .. } => losses.note("message.content", "a model gives no results of tools"),
        }
    }
    said
}

/// Notes what nobody took.
pub(super) fn note_rest(body: Members<'_>, losses: &mut Losses) {
    for (name, value) in body.rest() {
        let empty = value.kind() == Kind::Array && value.items().is_empty();
        if !empty && value.boolean() != Some(false) && value.text() != Some("") {
            losses.note(name, NO_WORD);
        }
    }
}

fn read_messages(messages: Option<Tree<'_>>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut asked = Called::default();
    for (at, message) in messages.map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let path = format!("messages[{at}]");
        let mut message = message.into_members();
        let role = message.take_text("role").unwrap_or_default();
        let mut parts = read_images(&mut message);
        parts.extend(message.take_text("content").filter(|text| !text.is_empty()).map(Part::text));
        match role.as_str() {
            "system" if all.messages.is_empty() => all.system.extend(parts),
            "system" | "user" => {
                let role = if role == "user" { Role::User } else { Role::System };
                all.messages.push(Message { role, name: None, parts });
            }
            "assistant" => {
                let thought = message.take_text("thinking").filter(|text| !text.is_empty());
                let thought = thought.map(|text| Part::Thinking { text, signature: None });
                let calls = read_calls(message.take("tool_calls"), at, &mut asked, &mut all.losses);
                let parts = thought.into_iter().chain(parts).chain(calls).collect();
                all.messages.push(Message { role: Role::Assistant, name: None, parts });
            }
            "tool" => {
                let name = message.take_text("tool_name").or_else(|| message.take_text("name"));
                let given = message.take_text("tool_call_id").filter(|id| !id.is_empty());
                let (id, name) = asked.answered_by(given, name, at);
                let result = Part::ToolResult { id, name, parts, is_error: false };
                match all.messages.last_mut() {
                    Some(last) if last.role == Role::Tool => last.parts.push(result),
                    Some(_) | None => {
                        all.messages.push(Message { role: Role::Tool, name: None, parts: vec![result] });
                    }
                }
            }
            other => {
                let text = format!("`{path}.role` is `{other}`; it must be system, user, assistant or tool");
                return Err(Invalid::field(format!("{path}.role"), text));
            }
        }
        taken::note_rest(message, &format!("{path}."), &mut all.losses);
        all.message_stood_at(at);
    }
    Ok(())
}

/// Images, which Ollama puts before the text.
pub(super) fn read_images(from: &mut Members<'_>) -> Vec<Part> {
    let images = from.take("images").map(Tree::into_items).unwrap_or_default();
    images.into_iter().filter_map(Tree::into_text).map(image).collect()
}

/// Calls whose results have not come yet.
#[derive(Default)]
struct Called(Vec<(String, String)>);

impl Called {
    /// Which call a result is of: the one it names, else the first of its tool, else the first.
    fn answered_by(
        &mut self,
        id: Option<String>,
        tool: Option<String>,
        at: usize,
    ) -> (String, Option<String>) {
        let named = |(known, name): &(String, String)| match (&id, &tool) {
            (Some(id), _) => known == id,
            (None, Some(tool)) => name == tool,
            (None, None) => true,
        };
        let found = self.0.iter().position(named);
        // A name that no call has is a slip of the client; the order still tells.
        let found = found.or_else(|| (id.is_none() && !self.0.is_empty()).then_some(0));
        match found.map(|found| self.0.remove(found)) {
            Some((id, name)) => (id, Some(name)),
            None => (id.unwrap_or_else(|| format!("call_{at}")), tool),
        }
    }
}

/// The calls of a message. Those without an id get the one of their place, which stays when the conversation goes on.
fn read_calls(calls: Option<Tree<'_>>, message: usize, asked: &mut Called, losses: &mut Losses) -> Vec<Part> {
    asked.0.clear();
    let calls = calls.map(Tree::into_items).unwrap_or_default();
    let read = |(at, call): (usize, Tree<'_>)| {
        let path = format!("messages[{message}].tool_calls[{at}].");
        let mut call = call.into_members();
        let id = call.take_text("id").filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| format!("call_{message}_{at}"));
        call.take("type");
        let mut function = call.take("function").map(Tree::into_members).unwrap_or_default();
        taken::note_rest(call, &path, losses);
        let name = function.take_text("name").unwrap_or_default();
        let arguments = function.take("arguments");
        function.take("index");
        taken::note_rest(function, &format!("{path}function."), losses);
        // Some clients send them as the text that other dialects have.
        let arguments =
            arguments.map(|given| given.text().map_or_else(|| compact(given.raw()), str::to_owned));
        asked.0.push((id.clone(), name.clone()));
        Part::ToolCall { id, name, arguments: arguments.unwrap_or_else(|| "{}".to_owned()), signature: None }
    };
    calls.into_iter().enumerate().map(read).collect()
}

fn read_tools(body: &mut Members<'_>, all: &mut Conversation) {
    for (at, tool) in body.take("tools").map(Tree::into_items).unwrap_or_default().into_iter().enumerate() {
        let mut tool = tool.into_members();
        tool.take("type");
        let mut function = tool.take("function").map(Tree::into_members).unwrap_or_default();
        taken::note_rest(tool, &format!("tools[{at}]."), &mut all.losses);
        all.tools.push(Tool {
            name: function.take_text("name").unwrap_or_default(),
            description: function.take_text("description"),
            parameters: function.take("parameters").map(|schema| schema.raw().to_owned()),
            strict: None,
            cache: None,
        });
        taken::note_rest(function, &format!("tools[{at}].function."), &mut all.losses);
    }
}

/// What chats and generations have in common.
pub(super) fn read_common(body: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    // A stream, unless the client says otherwise; it always ends with usage.
    all.stream = body.take("stream").and_then(|stream| stream.boolean()).unwrap_or(true);
    all.stream_usage = true;
    all.format = match body.take("format").filter(|format| format.text() != Some("")) {
        Some(format) if format.kind() == Kind::Object => {
            Format::Schema { name: None, description: None, schema: format.raw().to_owned(), strict: None }
        }
        Some(format) if format.text() == Some("json") => Format::Json,
        Some(_) => {
            all.losses.note("format", taken::NO_VALUE);
            Format::Text
        }
        None => Format::Text,
    };
    let think = body.take("think");
    all.reasoning = think.as_ref().and_then(reasoning_of);
    all.losses.note_if(think.is_some() && all.reasoning.is_none(), "think", NO_WORD);
    let alternatives = body.take("top_logprobs").and_then(|count| count.count());
    let logprobs = body.take("logprobs").and_then(|value| value.boolean()).unwrap_or(false);
    all.logprobs = logprobs.then_some(alternatives.unwrap_or(0));
    let mut options = body.take("options").map(Tree::into_members).unwrap_or_default();
    read_options(&mut options, all)?;
    for (name, _) in options.rest() {
        all.losses.note(format!("options.{name}"), NO_WORD);
    }
    Ok(())
}

fn read_options(options: &mut Members<'_>, all: &mut Conversation) -> Result<(), Invalid> {
    let mut number = |name: &str| taken::number(options, "options.", name);
    all.sampling.temperature = number("temperature")?;
    all.sampling.top_p = number("top_p")?;
    all.sampling.presence_penalty = number("presence_penalty")?;
    all.sampling.frequency_penalty = number("frequency_penalty")?;
    // Below 0 it means without end.
    all.tokens_out_max = number("num_predict")?.filter(|count| *count >= 1.0).map(|count| count as u64);
    all.sampling.top_k = taken::count(options, "options.", "top_k")?;
    let seed = options.take("seed");
    all.sampling.seed = taken::seed(seed.as_ref(), "options.seed", &mut all.losses)?;
    all.stop = match options.take("stop") {
        Some(stop) if stop.text().is_some() => stop.into_text().into_iter().collect(),
        Some(stop) => stop.into_items().into_iter().filter_map(Tree::into_text).collect(),
        None => Vec::new(),
    };
    Ok(())
}

/// Whether an answer ended because it was as long as it may be.
pub(super) fn is_cut(stop: Option<Stop>) -> bool {
    stop == Some(Stop::Length)
}
