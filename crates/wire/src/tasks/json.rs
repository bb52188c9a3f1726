//! Tasks whose bodies are JSON, read in one pass.

use crate::json::{Kind, Scanner, Span};
use crate::openai::error::Invalid;
use crate::openai::request::members::{Members, model_of, no_model};
use crate::openai::request::values::{absent, boolean, count, text, wrong_type};
use crate::openai::request::{BodyLimits, Forbidden};

use super::Task;

/// Bytes of text to a token, by rule of thumb.
const TOKEN_BYTES: u64 = 4;

/// A validated task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRequest {
    /// What is asked for.
    pub task: Task,
    /// The model's name, without `@version`; `None` where it need not be named and is not.
    pub model: Option<String>,
    /// What followed the last `@` of the model's name.
    pub version: Option<String>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// How many there are: documents, inputs, or images that are asked for.
    pub items: u32,
    /// Images in the input.
    pub images: u32,
    /// Bytes of text that the model reads. With rerank the query counts for each document, as it is read with each.
    pub text_bytes: u64,
    /// Bytes of the whole body.
    pub body_bytes: u64,
    /// Results that are asked for, of a rerank.
    pub top_n: Option<u64>,
    /// Whether documents are to be given back, of a rerank.
    pub return_documents: Option<bool>,
    /// Fields that would tell an upstream where to go; they are dropped.
    pub forbidden: Vec<Forbidden>,
    pub(super) place: Place,
}

/// Where the model's name stands, or would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Value(Span),
    /// Just after the opening brace.
    Absent(usize),
}

impl TaskRequest {
    /// Tokens of input, estimated from the bytes.
    pub fn tokens_in_estimate(&self) -> u32 {
        u32::try_from(self.text_bytes.div_ceil(TOKEN_BYTES)).unwrap_or(u32::MAX)
    }
}

/// The fields that the router acts on.
const FIELDS: [&str; 11] = [
    "model",
    "query",
    "documents",
    "top_n",
    "return_documents",
    "input",
    "prompt",
    "n",
    "stream",
    "voice",
    "stream_format",
];

/// Reads and validates the body of a task that is no multipart one.
pub fn parse(task: Task, body: &[u8], limits: &BodyLimits) -> Result<TaskRequest, Invalid> {
    let mut members = Members::new(body, &FIELDS, limits.depth_max)?;
    let mut reader = Reader { task, limits, query_bytes: 0, items: 0, images: 0, text_bytes: 0 };
    let mut given = Given::default();
    while let Some(field) = members.next()? {
        let scanner = &mut members.scanner;
        match field {
            "model" if task.needs_model() || scanner.peek()? != Kind::Null => {
                given.model = Some(model_of(scanner, limits)?);
            }
            // There, but not said: its place is not known to be free, so it is refused rather than doubled.
            "model" => return Err(Invalid::field("model", "`model` is null; name a model or leave it out")),
            "query" if task == Task::Rerank => reader.query(scanner)?,
            "documents" if task == Task::Rerank => reader.documents(scanner)?,
            "top_n" if task == Task::Rerank => given.top_n = count(scanner, field, (1, u64::MAX))?,
            "return_documents" if task == Task::Rerank => given.return_documents = boolean(scanner, field)?,
            "input" if matches!(task, Task::Moderation | Task::Speech) => reader.input(scanner)?,
            "prompt" if task == Task::ImageGeneration => reader.required_text(scanner, field)?,
            "n" if task == Task::ImageGeneration => {
                given.n = count(scanner, field, (1, u64::from(limits.choices_max)))?;
            }
            "stream" => given.stream |= boolean(scanner, field)?.unwrap_or(false),
            "stream_format" if task == Task::Speech => {
                given.stream |= text(scanner, field)?.is_some_and(|format| format.is("sse"));
            }
            _ => drop(scanner.skip_value()?),
        }
    }
    if let Some(missing) = task.required().iter().find(|field| !members.saw(field)) {
        return Err(Invalid::field(*missing, format!("`{missing}` is missing")));
    }
    let found = members.finish()?;
    let (model, version, place) = match given.model {
        Some((model, version, span)) => (Some(model), version, Place::Value(span)),
        None if task.needs_model() => return Err(no_model()),
        None => (None, None, Place::Absent(found.body_start)),
    };
    let asked = u32::try_from(given.n.unwrap_or(1)).unwrap_or(u32::MAX);
    let documents = u64::from(reader.items);
    Ok(TaskRequest {
        task,
        model,
        version,
        stream: given.stream,
        items: if task == Task::ImageGeneration { asked } else { reader.items },
        images: reader.images,
        text_bytes: reader.text_bytes.saturating_add(reader.query_bytes.saturating_mul(documents)),
        body_bytes: body.len() as u64,
        top_n: given.top_n,
        return_documents: given.return_documents,
        forbidden: found.forbidden,
        place,
    })
}

/// What was given beside texts.
#[derive(Default)]
struct Given {
    model: Option<(String, Option<String>, Span)>,
    stream: bool,
    n: Option<u64>,
    top_n: Option<u64>,
    return_documents: Option<bool>,
}

struct Reader<'l> {
    task: Task,
    limits: &'l BodyLimits,
    query_bytes: u64,
    items: u32,
    images: u32,
    text_bytes: u64,
}

impl Reader<'_> {
    /// A text, or with Jina an object with a text or an image.
    fn query(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Invalid> {
        match scanner.peek()? {
            Kind::String => {
                let query = scanner.string()?;
                if query.is_empty() {
                    return Err(Invalid::field("query", "`query` is empty"));
                }
                self.query_bytes = query.meant_bytes() as u64;
            }
            Kind::Object => self.query_bytes = scanner.skip_value()?.len() as u64,
            got @ (Kind::Array | Kind::Number | Kind::Bool | Kind::Null) => {
                return Err(wrong_type("query", "a string", got));
            }
        }
        Ok(())
    }

    fn documents(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Invalid> {
        self.list(scanner, "documents", |reader, scanner, field| match scanner.peek()? {
            Kind::String => {
                reader.text_bytes += scanner.string()?.meant_bytes() as u64;
                Ok(())
            }
            Kind::Object => {
                reader.text_bytes += scanner.skip_value()?.len() as u64;
                Ok(())
            }
            got @ (Kind::Array | Kind::Number | Kind::Bool | Kind::Null) => {
                Err(wrong_type(field, "a string or an object", got))
            }
        })
    }

    /// What is moderated or spoken: a text, or texts, or with moderation parts.
    fn input(&mut self, scanner: &mut Scanner<'_>) -> Result<(), Invalid> {
        if self.task == Task::Speech || scanner.peek()? == Kind::String {
            return self.required_text(scanner, "input");
        }
        self.list(scanner, "input", |reader, scanner, field| match scanner.peek()? {
            Kind::String => {
                reader.text_bytes += scanner.string()?.meant_bytes() as u64;
                Ok(())
            }
            Kind::Object => reader.part(scanner, field),
            got @ (Kind::Array | Kind::Number | Kind::Bool | Kind::Null) => {
                Err(wrong_type(field, "a string or a part", got))
            }
        })
    }

    fn part(&mut self, scanner: &mut Scanner<'_>, field: &str) -> Result<(), Invalid> {
        let mut members = scanner.object()?;
        while let Some(key) = scanner.next_key(&mut members)? {
            if key.is("text") {
                let said = text(scanner, &format!("{field}.text"))?;
                self.text_bytes += said.map_or(0, |said| said.meant_bytes() as u64);
            } else {
                self.images += u32::from(key.is("image_url"));
                scanner.skip_value()?;
            }
        }
        Ok(())
    }

    fn required_text(&mut self, scanner: &mut Scanner<'_>, field: &str) -> Result<(), Invalid> {
        let got = scanner.peek()?;
        if got != Kind::String {
            return Err(wrong_type(field, "a string", got));
        }
        let given = scanner.string()?;
        if given.is_empty() {
            return Err(Invalid::field(field, format!("`{field}` is empty")));
        }
        self.items = 1;
        self.text_bytes += given.meant_bytes() as u64;
        Ok(())
    }

    fn list(
        &mut self,
        scanner: &mut Scanner<'_>,
        field: &str,
        mut read: impl FnMut(&mut Self, &mut Scanner<'_>, &str) -> Result<(), Invalid>,
    ) -> Result<(), Invalid> {
        let got = scanner.peek()?;
        if got != Kind::Array || absent(scanner)? {
            return Err(wrong_type(field, "an array", got));
        }
        let mut elements = scanner.array()?;
        while scanner.next_element(&mut elements)? {
            let max = self.limits.messages_max;
            if self.items as usize >= max {
                let text = format!("`{field}` has more than the {max} items accepted");
                return Err(Invalid::field(field, text));
            }
            let at = format!("{field}[{}]", self.items);
            read(self, scanner, &at)?;
            self.items += 1;
        }
        if self.items == 0 {
            return Err(Invalid::field(field, format!("`{field}` is empty")));
        }
        Ok(())
    }
}
