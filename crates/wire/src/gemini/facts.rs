//! What a request asks for, read in one pass over its bytes, as routing needs to know it.
//!
//! The model and whether the answer is streamed stand in the path. A field that decides anything may appear once, in
//! either of its spellings; what is not acted on is held to the grammar and passed on as it is.

use smallvec::SmallVec;

use crate::json::{Kind, Scanner, Span, Text};
use crate::openai::error::Invalid;
use crate::openai::request::build::Builder;
use crate::openai::request::foreign::{expect, member_of};
use crate::openai::request::members::{model_name, utf8};
use crate::openai::request::values::{absent, text};
use crate::openai::request::{BodyLimits, KEPT_MAX, Kept, KeptKind, Params, Request, kept_hash};

use super::route::Method;

mod config;

/// Fields of the body that are acted on, in both spellings.
const FIELDS: [(&str, &str); 9] = [
    ("model", "model"),
    ("contents", "contents"),
    ("content", "content"),
    ("requests", "requests"),
    ("generateContentRequest", "generate_content_request"),
    ("systemInstruction", "system_instruction"),
    ("generationConfig", "generation_config"),
    ("cachedContent", "cached_content"),
    ("tools", "tools"),
];
const MODEL: usize = 0;
const CONTENTS: usize = 1;
const CONTENT: usize = 2;
const REQUESTS: usize = 3;
const INNER: usize = 4;
const SYSTEM: usize = 5;
const CONFIG: usize = 6;
const CACHED: usize = 7;
const TOOLS: usize = 8;

/// Reads and validates a body. `model` is what the path names.
pub fn parse(
    method: Method,
    model: &str,
    body: &[u8],
    limits: &BodyLimits,
    salt: u64,
) -> Result<Request, Invalid> {
    let text = utf8(body)?;
    let mut reader = Reader {
        scanner: Scanner::new(text, limits.depth_max),
        text,
        limits,
        model,
        found: Builder::new(method.operation(), salt),
        config: Config::default(),
        tools: false,
        kept: Vec::new(),
        salt,
        longest_tokens_min: None,
        models: SmallVec::new(),
    };
    reader.read_body("", method, false)?;
    reader.scanner.clone().finish()?;
    reader.finish(method)
}

/// What `generationConfig` says.
#[derive(Default)]
struct Config {
    params: Params,
    tokens_out_max: Option<u64>,
    schema: bool,
    formatted: bool,
}

struct Reader<'a, 'l> {
    scanner: Scanner<'a>,
    text: &'a str,
    limits: &'l BodyLimits,
    /// The model that the path names.
    model: &'l str,
    found: Builder<'a>,
    config: Config,
    tools: bool,
    /// What it names that Google keeps.
    kept: Vec<Kept>,
    salt: u64,
    /// Of several prompts that are read one by one, what the longest has at least.
    longest_tokens_min: Option<u64>,
    models: SmallVec<[Span; 1]>,
}

impl<'a> Reader<'a, '_> {
    /// The body, or the request inside it (`inner`), below `path`.
    fn read_body(&mut self, path: &str, method: Method, inner: bool) -> Result<(), Invalid> {
        let got = self.scanner.peek()?;
        if got != Kind::Object {
            let name = if path.is_empty() { "the body" } else { path.trim_end_matches('.') };
            return Err(Invalid::body(format!("{name} must be a JSON object, not {}", got.name())));
        }
        let (mut members, mut seen) = (self.scanner.object()?, 0_u32);
        while let Some(key) = self.scanner.next_key(&mut members)? {
            let Some(field) = member_of(&key, &FIELDS, path)? else {
                self.scanner.skip_value()?;
                continue;
            };
            let at = || format!("{path}{}", FIELDS[field].0);
            once(&mut seen, field, at)?;
            self.read_field(field, &at(), method, inner)?;
        }
        let needed: &[usize] = match method {
            Method::GenerateContent | Method::StreamGenerateContent => &[CONTENTS],
            Method::CountTokens if inner => &[CONTENTS],
            Method::CountTokens => &[CONTENTS, INNER],
            Method::EmbedContent => &[CONTENT],
            Method::BatchEmbedContents if inner => &[CONTENT],
            Method::BatchEmbedContents => &[REQUESTS],
        };
        if needed.iter().any(|field| seen & 1 << field != 0) {
            return Ok(());
        }
        let param = format!("{path}{}", needed.first().map_or("", |field| FIELDS[*field].0));
        let message = format!("`{param}` is missing");
        Err(Invalid::field(param, message))
    }

    fn read_field(&mut self, field: usize, at: &str, method: Method, inner: bool) -> Result<(), Invalid> {
        let batch = method == Method::BatchEmbedContents;
        match field {
            MODEL => self.read_model(at),
            CONTENTS => self.read_contents(at),
            CONTENT if method == Method::EmbedContent || inner && batch => self.read_prompt(at),
            REQUESTS if batch && !inner => self.read_requests(at, method),
            INNER if method == Method::CountTokens && !inner => {
                self.read_body(&format!("{at}."), method, true)
            }
            SYSTEM => self.read_head(at, &[Kind::Object, Kind::String]).map(drop),
            TOOLS => {
                self.tools |= self.read_head(at, &[Kind::Array])?;
                Ok(())
            }
            CONFIG => config::read(&mut self.scanner, at, self.limits, &mut self.config),
            CACHED => {
                if let Some(name) = text(&mut self.scanner, at)? {
                    self.keep(at, &name, KeptKind::Cache);
                }
                Ok(())
            }
            // Belongs to another method: passed on for the upstream to judge.
            _ => {
                self.scanner.skip_value()?;
                Ok(())
            }
        }
    }

    /// A body that names the model as well must name the same one: what was authorised is what is asked.
    fn read_model(&mut self, at: &str) -> Result<(), Invalid> {
        let Some(name) = text(&mut self.scanner, at)? else { return Ok(()) };
        let named = name.decode().unwrap_or_default();
        if named.strip_prefix("models/").unwrap_or(&named) != self.model {
            let message = format!("`{at}` names another model than the path; leave it out");
            return Err(Invalid::field(at, message));
        }
        self.models.push(name.span());
        Ok(())
    }

    /// What stands before the messages. Whether there is anything.
    fn read_head(&mut self, at: &str, kinds: &[Kind]) -> Result<bool, Invalid> {
        if absent(&mut self.scanner)? {
            return Ok(false);
        }
        let got = self.scanner.peek()?;
        if !kinds.contains(&got) {
            let allowed = kinds.first().map_or("", |kind| kind.name());
            let message = format!("`{at}` must be {allowed}, not {}", got.name());
            return Err(Invalid::field(at, message));
        }
        let span = self.scanner.skip_value()?;
        let bytes = &self.text.as_bytes()[span.start..span.end];
        self.found.head(bytes);
        Ok(!bytes[1..bytes.len() - 1].trim_ascii().is_empty())
    }

    fn read_requests(&mut self, at: &str, method: Method) -> Result<(), Invalid> {
        expect(&mut self.scanner, Kind::Array, || at.to_owned())?;
        let (mut elements, mut index) = (self.scanner.array()?, 0);
        while self.scanner.next_element(&mut elements)? {
            self.read_body(&format!("{at}[{index}]."), method, true)?;
            index += 1;
        }
        some(index, at)
    }

    fn read_contents(&mut self, at: &str) -> Result<(), Invalid> {
        expect(&mut self.scanner, Kind::Array, || at.to_owned())?;
        let (mut elements, mut index) = (self.scanner.array()?, 0);
        while self.scanner.next_element(&mut elements)? {
            self.found.message(at, self.limits)?;
            self.read_content(&format!("{at}[{index}]"))?;
            index += 1;
        }
        some(index, at)
    }

    /// A text that is read on its own.
    fn read_prompt(&mut self, at: &str) -> Result<(), Invalid> {
        let before = self.found.tokens_min();
        self.found.message(at, self.limits)?;
        self.read_content(at)?;
        let tokens = self.found.tokens_min() - before;
        self.longest_tokens_min = self.longest_tokens_min.max(Some(tokens));
        Ok(())
    }

    fn read_content(&mut self, at: &str) -> Result<(), Invalid> {
        const MEMBERS: [(&str, &str); 2] = [("role", "role"), ("parts", "parts")];
        expect(&mut self.scanner, Kind::Object, || at.to_owned())?;
        let (mut members, mut seen) = (self.scanner.object()?, 0_u32);
        while let Some(key) = self.scanner.next_key(&mut members)? {
            let Some(member) = member_of(&key, &MEMBERS, &format!("{at}."))? else {
                self.scanner.skip_value()?;
                continue;
            };
            once(&mut seen, member, || format!("{at}.{}", MEMBERS[member].0))?;
            if member == 0 {
                if let Some(role) = text(&mut self.scanner, &format!("{at}.role"))? {
                    self.found.role(role.raw());
                }
            } else {
                self.read_parts(&format!("{at}.parts"))?;
            }
        }
        self.found.end_message();
        Ok(())
    }

    fn read_parts(&mut self, at: &str) -> Result<(), Invalid> {
        expect(&mut self.scanner, Kind::Array, || at.to_owned())?;
        let (mut elements, mut index) = (self.scanner.array()?, 0);
        while self.scanner.next_element(&mut elements)? {
            let at = || format!("{at}[{index}]");
            expect(&mut self.scanner, Kind::Object, at)?;
            let mut members = self.scanner.object()?;
            while let Some(key) = self.scanner.next_key(&mut members)? {
                self.read_part_member(&key, at)?;
            }
            index += 1;
        }
        Ok(())
    }

    /// One member of a part: text counts, media are only noted.
    fn read_part_member(&mut self, key: &Text<'a>, at: impl Fn() -> String) -> Result<(), Invalid> {
        match key.decode().as_deref() {
            Some("text") => {
                if let Some(text) = text(&mut self.scanner, &format!("{}.text", at()))? {
                    self.found.text(text);
                }
            }
            Some("inlineData" | "inline_data" | "fileData" | "file_data") => {
                let mut inside = self.scanner.clone();
                let span = self.scanner.skip_value()?;
                let (image, uri) = read_media(&mut inside)?;
                if let Some(uri) = uri {
                    self.keep_file(&format!("{}.fileData.fileUri", at()), &uri);
                }
                self.found.media(&self.text.as_bytes()[span.start..span.end], image);
            }
            Some("functionCall" | "function_call" | "functionResponse" | "function_response") => {
                let span = self.scanner.skip_value()?;
                self.found.raw(&self.text.as_bytes()[span.start..span.end]);
            }
            Some(_) | None => drop(self.scanner.skip_value()?),
        }
        Ok(())
    }

    fn keep_file(&mut self, field: &str, uri: &Text<'_>) {
        // Of Google's own storage who may read it is not told by the key.
        let meant = uri.decode().unwrap_or_default();
        if meant.starts_with("https://generativelanguage.googleapis.com/") || meant.starts_with("files/") {
            self.keep(field, uri, KeptKind::File);
        }
    }

    fn keep(&mut self, field: &str, id: &Text<'_>, kind: KeptKind) {
        let meant = id.decode().unwrap_or_default();
        let hash = kept_hash(&meant, self.salt);
        let new = !meant.is_empty() && !self.kept.iter().any(|known| known.hash == hash);
        if new && self.kept.len() < KEPT_MAX {
            self.kept.push(Kept { field: field.to_owned(), hash, kind });
        }
    }

    fn finish(self, method: Method) -> Result<Request, Invalid> {
        let mut request = self.found.finish(model_name(self.model, self.limits)?);
        let Config { params, tokens_out_max, schema, formatted } = self.config;
        request.stream = method.streams();
        request.needs.tools = self.tools;
        request.needs.json_schema = schema;
        request.formatted = formatted;
        request.tokens_out_max = tokens_out_max;
        request.choices = u32::try_from(params.n.unwrap_or(1)).unwrap_or(u32::MAX);
        request.params = params;
        request.tokens_in_min = self.longest_tokens_min.unwrap_or(request.tokens_in_min);
        request.kept_by_provider = !self.kept.is_empty();
        request.kept = self.kept;
        request.spans.named = self.models;
        Ok(request)
    }
}

/// Whether media are an image by their type, and where they are if not here.
fn read_media<'a>(scanner: &mut Scanner<'a>) -> Result<(bool, Option<Text<'a>>), Invalid> {
    if scanner.peek()? != Kind::Object {
        return Ok((false, None));
    }
    let (mut members, mut image, mut uri) = (scanner.object()?, false, None);
    while let Some(key) = scanner.next_key(&mut members)? {
        let is_type = key.is("mimeType") || key.is("mime_type");
        if is_type && scanner.peek()? == Kind::String {
            image |= scanner.string()?.decode().is_some_and(|kind| kind.starts_with("image/"));
        } else if (key.is("fileUri") || key.is("file_uri")) && scanner.peek()? == Kind::String {
            uri = Some(scanner.string()?);
        } else {
            scanner.skip_value()?;
        }
    }
    Ok((image, uri))
}

fn once(seen: &mut u32, field: usize, param: impl Fn() -> String) -> Result<(), Invalid> {
    if *seen & 1 << field != 0 {
        let param = param();
        let message = format!("`{param}` appears twice; send it once");
        return Err(Invalid::field(param, message));
    }
    *seen |= 1 << field;
    Ok(())
}

fn some(count: usize, param: &str) -> Result<(), Invalid> {
    if count > 0 { Ok(()) } else { Err(Invalid::field(param, format!("`{param}` is empty"))) }
}

#[cfg(test)]
mod tests;
