//! A whole input file is looked at before its first line is sent: the form of each line, and its body as the request
//! that it will be.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use http::HeaderMap;
use pointsman_wire::dialect::{Asked, openai_of};
use pointsman_wire::openai::error::ErrorBody;
use pointsman_wire::openai::request::Operation;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::lines::Line;
use crate::clock;
use crate::http::auth::ClientKey;
use crate::http::prepare::prepare;
use crate::snapshot::Snapshot;

/// Errors that are told at once; what comes after them is not looked at.
pub const ERRORS_MAX: usize = 50;
/// Bytes that a `custom_id` may have.
const CUSTOM_ID_BYTES_MAX: usize = 512;
/// Bytes of a line beside its body.
const AROUND_BYTES_MAX: u64 = 4096;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The line, from 1, if it is about one.
    line: Option<i64>,
    code: String,
    message: String,
    /// The field at fault.
    param: Option<String>,
}

impl Wrong {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self { line: None, code: code.to_owned(), message: message.into(), param: None }
    }

    fn of(self, param: &str) -> Self {
        Self { param: Some(param.to_owned()), ..self }
    }

    fn at(self, line: i64) -> Self {
        Self { line: Some(line), ..self }
    }
}

/// The errors of a batch as OpenAI has them.
pub fn errors(found: &[Wrong]) -> Value {
    let data = found.iter().map(|wrong| {
        json!({"code": wrong.code, "message": wrong.message, "param": wrong.param, "line": wrong.line})
    });
    json!({"object": "list", "data": data.collect::<Vec<_>>()})
}

/// A batch could not be looked at, for the key that made it is gone.
pub fn key_gone() -> Vec<Wrong> {
    vec![Wrong::new("invalid_api_key", "the key that made this batch is not known to this gateway any more")]
}

/// The input could not be read.
pub fn unreadable() -> Vec<Wrong> {
    vec![Wrong::new("file_unreadable", "the input file could not be read").of("input_file_id")]
}

/// What a line must say.
#[derive(Deserialize)]
struct Said<'a> {
    custom_id: Option<Value>,
    method: Option<Value>,
    url: Option<Value>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
}

/// Looks at every line of a file as `client` under `snapshot`.
///
/// # Errors
/// What is wrong with it, at most [`ERRORS_MAX`] things.
pub fn check(
    file: &File,
    operation: Operation,
    snapshot: &Snapshot,
    client: &ClientKey,
) -> Result<Vec<Line>, Vec<Wrong>> {
    let lines_max = snapshot.config.batches.as_ref().map_or(0, |batches| batches.lines_max) as usize;
    let bytes_max = snapshot.config.limits.body_bytes_max_of(operation.path()) + AROUND_BYTES_MAX;
    let mut look = Look { operation, snapshot, client, known: BTreeSet::new() };
    let (mut lines, mut found) = (Vec::new(), Vec::new());
    let mut reader = BufReader::new(file);
    let (mut start, mut number) = (0, 0);
    let mut text = Vec::new();
    while found.len() < ERRORS_MAX {
        text.clear();
        let read = match read_line(&mut reader, &mut text, bytes_max) {
            Ok(0) => break,
            Ok(read) => read,
            Err(_) => return Err(unreadable()),
        };
        number += 1;
        let line = text.strip_suffix(b"\n").unwrap_or(&text);
        if read as u64 > bytes_max {
            found.push(
                Wrong::new("line_too_long", format!("the line has more than {bytes_max} bytes")).at(number),
            );
        } else if !line.trim_ascii().is_empty() {
            match look.at(line) {
                Ok((custom_id, model)) => {
                    lines.push(Line { number, start, bytes: line.len(), custom_id, model });
                }
                Err(wrong) => found.push(wrong.at(number)),
            }
        }
        start += read as u64;
        if lines.len() > lines_max {
            let text = format!("the file has more than {lines_max} requests; split it (`batches.lines_max`)");
            return Err(vec![Wrong::new("too_many_requests", text).of("input_file_id").at(number)]);
        }
    }
    if !found.is_empty() {
        return Err(found);
    }
    if lines.is_empty() {
        return Err(vec![Wrong::new("empty_file", "the file has no requests").of("input_file_id")]);
    }
    Ok(lines)
}

/// Reads a line and gives its bytes; of one that is too long the rest is skipped.
fn read_line(reader: &mut impl BufRead, text: &mut Vec<u8>, bytes_max: u64) -> io::Result<usize> {
    let mut read = reader.by_ref().take(bytes_max + 1).read_until(b'\n', text)?;
    if read as u64 > bytes_max {
        read += reader.skip_until(b'\n')?;
    }
    Ok(read)
}

struct Look<'a> {
    operation: Operation,
    snapshot: &'a Snapshot,
    client: &'a ClientKey,
    /// Hashes of the ids so far.
    known: BTreeSet<u128>,
}

impl Look<'_> {
    /// The id and the model of a line.
    fn at(&mut self, line: &[u8]) -> Result<(String, String), Wrong> {
        let no_object =
            |why: &str| Wrong::new("invalid_json_line", format!("the line is not a JSON object{why}"));
        // A list would do as well for what is read here, and not for what is sent later.
        if !line.trim_ascii_start().starts_with(b"{") {
            let marked = line.starts_with("\u{feff}".as_bytes());
            let hint = "; the file begins with a byte order mark: save it as UTF-8 without one";
            return Err(no_object(if marked { hint } else { "" }));
        }
        let said: Said<'_> =
            serde_json::from_slice(line).map_err(|error| no_object(&format!(": {error}")))?;
        let custom_id = text(said.custom_id, "custom_id")?;
        if custom_id.is_empty() || custom_id.len() > CUSTOM_ID_BYTES_MAX {
            let text = format!("`custom_id` must have 1 to {CUSTOM_ID_BYTES_MAX} bytes");
            return Err(Wrong::new("invalid_custom_id", text).of("custom_id"));
        }
        let method = text(said.method, "method")?;
        if method != "POST" {
            return Err(Wrong::new("invalid_method", "`method` must be `POST`").of("method"));
        }
        let (url, path) = (text(said.url, "url")?, self.operation.path());
        if url != path {
            let text = format!("`url` must be `{path}`, which is the batch's endpoint");
            return Err(Wrong::new("mismatched_url", text).of("url"));
        }
        let body = said.body.ok_or_else(|| missing("body"))?.get().as_bytes();
        let (dialect, asked) = (openai_of(self.operation), Asked::of(self.operation));
        let prepared =
            prepare(self.snapshot, self.client, (dialect, &asked), &HeaderMap::new(), body, clock::now());
        let prepared = prepared.map_err(|refused| of_body(&refused.error))?;
        if prepared.request.stream {
            let text = "`stream` cannot be true in a batch: answers are written to a file";
            return Err(Wrong::new("invalid_value", text).of("body.stream"));
        }
        if !self.known.insert(xxh3_128(custom_id.as_bytes())) {
            let text = "the `custom_id` of an earlier line; each must be unique in the file";
            return Err(Wrong::new("duplicate_custom_id", text).of("custom_id"));
        }
        Ok((custom_id, prepared.model.name.to_string()))
    }
}

fn missing(name: &str) -> Wrong {
    Wrong::new("missing_required_parameter", format!("`{name}` is missing")).of(name)
}

fn text(given: Option<Value>, name: &str) -> Result<String, Wrong> {
    match given {
        Some(Value::String(text)) => Ok(text),
        None | Some(Value::Null) => Err(missing(name)),
        Some(_) => Err(Wrong::new("invalid_type", format!("`{name}` must be a string")).of(name)),
    }
}

/// What a client would have been told of the body alone.
fn of_body(error: &ErrorBody) -> Wrong {
    let code = error.code.as_deref().unwrap_or("invalid_request");
    let param = error.param.as_ref().map_or_else(|| "body".to_owned(), |param| format!("body.{param}"));
    Wrong::new(code, error.message.as_str()).of(&param)
}
