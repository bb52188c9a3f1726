//! What a request asks for, read in one pass over its bytes: the same facts as of any other chat.
//!
//! [`crate::openai::rewrite()`] puts the upstream's model into the body that was read here; usage need not be asked for.

use crate::json::{Kind, Scanner, Text};
use crate::openai::error::Invalid;
use crate::openai::request::build::Builder;
use crate::openai::request::members::{Members, model_of, no_model};
use crate::openai::request::values::{absent, boolean, count, integer, number, text, wrong_type};
use crate::openai::request::{BodyLimits, Operation, Request};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Api {
    /// `/api/chat`
    Chat,
    /// `/api/generate`
    Generate,
}

impl Api {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Chat, Self::Generate];

    /// The path clients call, and that of an upstream that speaks the dialect.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/api/chat",
            Self::Generate => "/api/generate",
        }
    }

    /// The client dialect that reads its bodies.
    pub const fn dialect(self) -> &'static str {
        match self {
            Self::Chat => "ollama",
            Self::Generate => "ollama-generate",
        }
    }

    /// The one of a path.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|api| api.path() == path)
    }
}

/// The fields that the router acts on.
const CHAT: [&str; 9] =
    ["model", "messages", "stream", "options", "format", "tools", "think", "logprobs", "top_logprobs"];
const GENERATE: [&str; 12] = [
    "model",
    "prompt",
    "stream",
    "options",
    "format",
    "system",
    "suffix",
    "images",
    "context",
    "think",
    "logprobs",
    "top_logprobs",
];
/// Temperatures that are accepted; Ollama itself sets no bound.
const TEMPERATURE_MAX: f64 = 100.0;

/// Reads and validates a body. Hashes are salted with `salt`, so that tenants cannot find each other's.
///
/// A body without messages or prompt is accepted: it loads a model, which only Ollama itself can be asked to.
pub fn parse(api: Api, body: &[u8], limits: &BodyLimits, salt: u64) -> Result<Request, Invalid> {
    let fields: &'static [&'static str] = match api {
        Api::Chat => &CHAT,
        Api::Generate => &GENERATE,
    };
    let mut members = Members::new(body, fields, limits.depth_max)?;
    let mut reader = Reader { building: Builder::new(Operation::Chat, salt), body, limits };
    let request = &mut reader.building.request;
    // Usage always comes, so it need never be asked for.
    (request.stream, request.include_usage) = (true, Some(true));
    let mut model = None;
    while let Some(field) = members.next()? {
        let scanner = &mut members.scanner;
        match field {
            "model" => model = Some(model_of(scanner, limits)?),
            "messages" => reader.messages(scanner)?,
            "prompt" => reader.prompt(scanner)?,
            "system" => reader.system(scanner)?,
            "suffix" => reader.suffix(scanner)?,
            "images" => reader.images(scanner, "images")?,
            "context" => reader.context(scanner)?,
            "stream" => reader.building.request.stream = boolean(scanner, "stream")?.unwrap_or(true),
            "options" => reader.options(scanner)?,
            "format" => reader.format(scanner)?,
            "tools" => reader.tools(scanner)?,
            "logprobs" => {
                reader.building.request.params.logprobs = boolean(scanner, "logprobs")?.map(u64::from);
            }
            "top_logprobs" => {
                reader.building.request.params.top_logprobs = count(scanner, "top_logprobs", (0, 20))?;
            }
            _ => drop(scanner.skip_value()?),
        }
    }
    let found = members.finish()?;
    let (model, version, span) = model.ok_or_else(no_model)?;
    let mut request = reader.building.finish((model, version));
    request.forbidden = found.forbidden;
    (request.spans.model, request.spans.body_start) = (span, found.body_start);
    Ok(request)
}

struct Reader<'a, 'l> {
    building: Builder<'a>,
    body: &'a [u8],
    limits: &'l BodyLimits,
}

impl<'a> Reader<'a, '_> {
    fn messages(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Invalid> {
        let Some(mut elements) = array(scanner, "messages", "an array of messages")? else { return Ok(()) };
        let mut index = 0;
        while scanner.next_element(&mut elements)? {
            self.building.message("messages", self.limits)?;
            self.message(scanner, index)?;
            index += 1;
        }
        Ok(())
    }

    fn message(&mut self, scanner: &mut Scanner<'a>, index: usize) -> Result<(), Invalid> {
        let at = |member: &str| format!("messages[{index}].{member}");
        let got = scanner.peek()?;
        if got != Kind::Object {
            return Err(wrong_type(&format!("messages[{index}]"), "an object", got));
        }
        let mut seen: [bool; 2] = [false; 2];
        let mut members = scanner.object()?;
        while let Some(key) = scanner.next_key(&mut members)? {
            let known = MESSAGE.iter().position(|name| key.is(name));
            if known.is_none() && MESSAGE.iter().any(|name| differs_in_case(&key, name)) {
                let name = MESSAGE.iter().find(|name| differs_in_case(&key, name)).unwrap_or(&MESSAGE[0]);
                let text = format!("`{}` is spelt in another case; spell it `{name}`", at(name));
                return Err(Invalid::field(at(name), text));
            }
            if let Some(known) = known.filter(|known| *known < seen.len())
                && std::mem::replace(&mut seen[known], true)
            {
                let field = at(MESSAGE[known]);
                let text = format!("`{field}` appears twice; send it once");
                return Err(Invalid::field(field, text));
            }
            match known.map(|known| MESSAGE[known]) {
                Some("role") => {
                    let role = text(scanner, &at("role"))?.filter(|role| !role.is_empty());
                    let role = role.ok_or_else(|| missing(at("role")))?;
                    self.building.role(role.raw());
                }
                Some(name @ ("content" | "thinking")) => {
                    if let Some(said) = text(scanner, &at(name))? {
                        self.building.text(said);
                    }
                }
                Some("images") => self.images(scanner, &at("images"))?,
                Some("tool_calls") if scanner.peek()? != Kind::Null => {
                    let span = scanner.skip_value()?;
                    self.building.raw(&self.body[span.start..span.end]);
                }
                Some(_) | None => drop(scanner.skip_value()?),
            }
        }
        if !seen[0] {
            return Err(missing(at("role")));
        }
        self.building.end_message();
        Ok(())
    }

    fn prompt(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Invalid> {
        if let Some(prompt) = text(scanner, "prompt")?.filter(|prompt| !prompt.is_empty()) {
            self.building.message("prompt", self.limits)?;
            self.building.role("user");
            self.building.text(prompt);
            self.building.end_message();
        }
        Ok(())
    }

    fn system(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Invalid> {
        if let Some(system) = text(scanner, "system")?.filter(|system| !system.is_empty()) {
            self.building.head(system.raw().as_bytes());
        }
        Ok(())
    }

    /// What stands behind the answer is read as well.
    fn suffix(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Invalid> {
        if let Some(suffix) = text(scanner, "suffix")? {
            self.building.raw(suffix.raw().as_bytes());
        }
        Ok(())
    }

    fn images(&mut self, scanner: &mut Scanner<'a>, field: &str) -> Result<(), Invalid> {
        let Some(mut elements) = array(scanner, field, "an array of images in Base64")? else {
            return Ok(());
        };
        let mut index = 0;
        while scanner.next_element(&mut elements)? {
            let got = scanner.peek()?;
            if got != Kind::String {
                return Err(wrong_type(&format!("{field}[{index}]"), "an image in Base64", got));
            }
            self.building.media(scanner.string()?.raw().as_bytes(), true);
            index += 1;
        }
        Ok(())
    }

    /// The tokens of the conversation so far.
    fn context(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Invalid> {
        let Some(mut elements) = array(scanner, "context", "an array of tokens")? else { return Ok(()) };
        let mut index = 0;
        while scanner.next_element(&mut elements)? {
            let got = scanner.peek()?;
            if got != Kind::Number {
                return Err(wrong_type(&format!("context[{index}]"), "a token", got));
            }
            scanner.number()?;
            index += 1;
        }
        self.building.tokens(index);
        Ok(())
    }

    fn options(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Invalid> {
        if absent(scanner)? {
            return Ok(());
        }
        let got = scanner.peek()?;
        if got != Kind::Object {
            return Err(wrong_type("options", "an object", got));
        }
        let (mut members, mut seen) = (scanner.object()?, 0_u8);
        while let Some(key) = scanner.next_key(&mut members)? {
            let Some(known) = OPTIONS.iter().position(|name| key.is(name)) else {
                scanner.skip_value()?;
                continue;
            };
            let field = format!("options.{}", OPTIONS[known]);
            if seen >> known & 1 == 1 {
                let text = format!("`{field}` appears twice; send it once");
                return Err(Invalid::field(field, text));
            }
            seen |= 1 << known;
            self.option(scanner, known, &field)?;
        }
        Ok(())
    }

    fn option(&mut self, scanner: &mut Scanner<'a>, known: usize, field: &str) -> Result<(), Invalid> {
        let params = &mut self.building.request.params;
        match OPTIONS[known] {
            "temperature" => params.temperature = number(scanner, field, (0.0, TEMPERATURE_MAX))?,
            "top_p" => params.top_p = number(scanner, field, (0.0, 1.0))?,
            "presence_penalty" => params.presence_penalty = number(scanner, field, (-2.0, 2.0))?,
            "frequency_penalty" => params.frequency_penalty = number(scanner, field, (-2.0, 2.0))?,
            "seed" => params.seed = integer(scanner, field)?,
            // Below 0 it means without end; 0 is passed on for the upstream to judge.
            _ => {
                let asked = integer(scanner, field)?.and_then(|count| u64::try_from(count).ok());
                let max = self.limits.tokens_out_max;
                if let Some(asked) = asked.filter(|asked| *asked > max) {
                    let text = format!("`{field}` is {asked}, allowed is up to {max}");
                    return Err(Invalid::field(field, text));
                }
                self.building.request.tokens_out_max = asked.filter(|asked| *asked > 0);
            }
        }
        Ok(())
    }

    fn format(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Invalid> {
        match scanner.peek()? {
            Kind::Object => {
                scanner.skip_value()?;
                self.building.request.needs.json_schema = true;
                self.building.request.formatted = true;
            }
            Kind::String => self.building.request.formatted = !scanner.string()?.is_empty(),
            Kind::Null => scanner.null()?,
            got @ (Kind::Array | Kind::Number | Kind::Bool) => {
                return Err(wrong_type("format", "`json` or a JSON schema", got));
            }
        }
        Ok(())
    }

    fn tools(&mut self, scanner: &mut Scanner<'a>) -> Result<(), Invalid> {
        if absent(scanner)? {
            return Ok(());
        }
        let start = scanner.at();
        let Some(mut elements) = array(scanner, "tools", "an array")? else { return Ok(()) };
        let mut index = 0;
        while scanner.next_element(&mut elements)? {
            let got = scanner.peek()?;
            if got != Kind::Object {
                return Err(wrong_type(&format!("tools[{index}]"), "an object", got));
            }
            scanner.skip_value()?;
            index += 1;
        }
        if index > 0 {
            self.building.request.needs.tools = true;
            self.building.head(&self.body[start..scanner.at()]);
        }
        Ok(())
    }
}

/// The members of a message; the first two may appear once.
const MESSAGE: [&str; 5] = ["role", "content", "thinking", "images", "tool_calls"];
/// The options that the router acts on.
const OPTIONS: [&str; 6] =
    ["temperature", "top_p", "presence_penalty", "frequency_penalty", "seed", "num_predict"];

fn differs_in_case(key: &Text<'_>, name: &str) -> bool {
    key.decode().is_some_and(|key| key.eq_ignore_ascii_case(name))
}

fn missing(field: String) -> Invalid {
    let text = format!("`{field}` is missing");
    Invalid::field(field, text)
}

/// Enters an array; `None` for `null`.
fn array(
    scanner: &mut Scanner<'_>,
    field: &str,
    expected: &str,
) -> Result<Option<crate::json::Walk>, Invalid> {
    if absent(scanner)? {
        return Ok(None);
    }
    let got = scanner.peek()?;
    if got != Kind::Array {
        return Err(wrong_type(field, expected, got));
    }
    Ok(Some(scanner.array()?))
}
