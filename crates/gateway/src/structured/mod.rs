//! Answers that a request holds to a JSON schema: the schema is read from the request, answers are checked by it, and one
//! that does not fit is put into words, for its client and for the model that is asked again.

mod cost;
mod watch;

use jsonschema::{PatternOptions, Validator};
use pointsman_wire::chat::{Answer, Choice, Conversation, Format, Message, Part, Role, Stop};
use pointsman_wire::dialect::{Asked, CONVERTED_DEPTH_MAX, ClientDef, Elsewhere};
use pointsman_wire::json::tree::Tree;
use pointsman_wire::openai::error::{ErrorBody, Invalid};
use pointsman_wire::openai::request::{Operation, Request};
use pointsman_wire::openai::responses::reader;
use serde_json::Value;

pub use watch::Watch;

/// Bytes of a schema.
const SCHEMA_BYTES_MAX: usize = 256 * 1024;
/// Steps back that one pattern may take on one text, and the size it may have when it is compiled, in bytes.
const PATTERN_STEPS_MAX: usize = 10_000;
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Faults of one answer that are named; that there are more is said.
const FAULTS_MAX: usize = 5;
/// Bytes of one fault's path and of its words.
const FAULT_BYTES_MAX: usize = 300;
/// Bytes of an answer that the model is told again.
const TOLD_BYTES_MAX: usize = 256 * 1024;

/// A JSON schema that answers are checked by.
pub struct Schema {
    validator: Validator,
    schema: Value,
}

/// An answer that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What the model said, or its beginning.
    answer: String,
    faults: Vec<Fault>,
    /// Whether there are more than are named.
    more: bool,
}

/// Something that is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    /// Where, as a JSON pointer; empty for all of it.
    path: String,
    what: String,
}

/// The schema that a request holds its answer to, if it does and is one that can be checked.
///
/// # Errors
/// The schema is broken, refers to another document, or is too costly; or the request holds its answer to a schema that
/// cannot be read.
pub fn read(
    dialect: &ClientDef,
    asked: &Asked,
    request: &Request,
    body: &[u8],
) -> Result<Option<Schema>, ErrorBody> {
    let answers = matches!(asked.operation, Operation::Chat | Operation::Response);
    if !answers || asked.elsewhere != Elsewhere::Converted {
        return Ok(None);
    }
    let text = std::str::from_utf8(body).map_err(|_| ErrorBody::malformed("the body is not UTF-8"))?;
    let tree = Tree::parse(text, CONVERTED_DEPTH_MAX).map_err(Invalid::from)?;
    let format = if asked.operation == Operation::Response {
        // What it names that its provider keeps, no conversation can say.
        reader::format_of(tree)
    } else {
        match dialect.dialect.conversation(tree) {
            Ok(conversation) => conversation.format,
            // A request that is only relayed may say what no conversion understands; it must not be taken for unchecked.
            Err(invalid) if request.needs.json_schema => return Err(invalid.into()),
            Err(_) => return Ok(None),
        }
    };
    let Format::Schema { schema, .. } = format else { return Ok(None) };
    Schema::new(&schema).map(Some).map_err(|why| {
        let text = format!("the JSON schema of the answer cannot be used: {why}");
        ErrorBody::malformed(text).with_param(dialect.schema_field)
    })
}

impl Schema {
    /// A schema from its text. `Err` says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(format!("it is longer than {SCHEMA_BYTES_MAX} bytes"));
        }
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        cost::check(&schema)?;
        let patterns = PatternOptions::fancy_regex()
            .backtrack_limit(PATTERN_STEPS_MAX)
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX);
        // Nothing is fetched, whatever another crate of the build turns on.
        let options = jsonschema::options().offline().with_pattern_options(patterns);
        let validator = options.build(&schema).map_err(|error| {
            let at = error.instance_path().to_string();
            let at = if at.is_empty() { at } else { format!(" (at `{}`)", cut(&at)) };
            format!("{}{at}", cut(&error.to_string()))
        })?;
        Ok(Self { validator, schema })
    }

    /// The first choice of an answer that does not fit, if there is one.
    pub fn check(&self, answer: &Answer) -> Option<Misfit> {
        answer.choices.iter().filter_map(text_of).find_map(|text| self.check_text(text))
    }

    /// What is wrong with a text, if anything is. One that would take too long to check is let through.
    fn check_text(&self, text: String) -> Option<Misfit> {
        let value: Value = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => {
                let fault = Fault { path: String::new(), what: format!("it is not JSON: {error}") };
                return Some(Misfit { answer: told(text), faults: vec![fault], more: false });
            }
        };
        if !cost::may_be_checked(&self.schema, &value) || self.validator.is_valid(&value) {
            return None;
        }
        let mut faults: Vec<Fault> = Vec::new();
        let mut errors = self.validator.iter_errors(&value);
        for error in errors.by_ref().take(FAULTS_MAX) {
            let path = cut(&error.instance_path().to_string());
            faults.push(Fault { path, what: cut(&error.to_string()) });
        }
        let more = errors.next().is_some();
        Some(Misfit { answer: told(text), faults, more })
    }
}

/// The text of a choice that has to fit; `None` for one that is no answer in text, or no whole one.
fn text_of(choice: &Choice) -> Option<String> {
    if choice.stop.is_some_and(|stop| !is_whole(stop)) {
        return None;
    }
    let mut all = String::new();
    for part in &choice.parts {
        match part {
            Part::Text { text, .. } => all.push_str(text),
            Part::ToolCall { .. } | Part::Refusal(_) => return None,
            Part::Media(_)
            | Part::ToolResult { .. }
            | Part::Thinking { .. }
            | Part::HiddenThinking { .. } => {}
        }
    }
    Some(all)
}

/// Whether an answer that ended so is one that was completed.
const fn is_whole(stop: Stop) -> bool {
    match stop {
        Stop::End | Stop::Sequence | Stop::Other => true,
        Stop::Length | Stop::ToolCalls | Stop::Filtered | Stop::Refused | Stop::Paused => false,
    }
}

/// The beginning of some words.
fn cut(text: &str) -> String {
    if text.len() <= FAULT_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(FAULT_BYTES_MAX)])
}

fn told(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TOLD_BYTES_MAX));
    text
}

impl Misfit {
    /// What is wrong, in one line.
    pub fn summary(&self) -> String {
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        format!("{}{}", faults.join("; "), if self.more { "; and more" } else { "" })
    }

    /// Lets a conversation go on with the answer and what is wrong with it, so that the model can mend it.
    pub fn ask_again(&self, conversation: &mut Conversation) {
        let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
        let faults = faults.join("\n- ");
        let more = if self.more { "- and more\n" } else { "" };
        let text = format!(
            "Your answer does not fit the JSON schema that it is held to:\n- {faults}\n{more}Answer again, with nothing but \
             one JSON value that fits the schema."
        );
        let say = |role, text: String| Message { role, name: None, parts: vec![Part::text(text)] };
        // Some dialects take no message without text.
        if !self.answer.trim().is_empty() {
            conversation.messages.push(say(Role::Assistant, self.answer.clone()));
        }
        conversation.messages.push(say(Role::User, text));
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.what)
        } else {
            write!(f, "`{}`: {}", self.path, self.what)
        }
    }
}

#[cfg(test)]
mod tests;
