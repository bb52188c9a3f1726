//! What servers and models say of themselves, errors, and what of an upstream's answer records keep.

use crate::json::write::{Object, array};
use crate::json::{JsonError, Kind, Scanner, quote};
use crate::openai::error::Invalid;
use crate::openai::request::members::Members;

use super::TENSORS_MAX;
use super::rules::{Signature, TensorSpec};

/// Levels of nesting in an answer.
const DEPTH_MAX: usize = 64;

/// Who the server says it is.
pub const NAME: &str = "pointsman";

/// What it can do beyond the protocol.
pub const EXTENSIONS: [&str; 2] = ["binary_tensor_data", "model_repository"];

/// `GET /v2`.
pub fn server(version: &str) -> String {
    let mut object = Object::new();
    object.text("name", NAME).text("version", version);
    object.array("extensions", EXTENSIONS.map(quote));
    object.finish()
}

/// `GET /v2/health/live`.
pub fn live() -> String {
    r#"{"live":true}"#.to_owned()
}

/// `GET /v2/health/ready`, of a server that is.
pub fn ready() -> String {
    r#"{"ready":true}"#.to_owned()
}

/// `GET /v2/models/{name}/ready`, of one that is.
pub fn model_ready(name: &str) -> String {
    let mut object = Object::new();
    object.text("name", name).boolean("ready", true);
    object.finish()
}

/// `GET /v2/models/{name}`.
pub fn model(name: &str, versions: &[&str], signature: &Signature) -> String {
    let mut object = Object::new();
    object.text("name", name).array("versions", versions.iter().map(|version| quote(version)));
    object.text("platform", NAME);
    object.array("inputs", signature.inputs.iter().map(tensor));
    object.array("outputs", signature.outputs.iter().map(tensor));
    object.finish()
}

fn tensor(spec: &TensorSpec) -> String {
    let mut object = Object::new();
    object.text("name", &spec.name).text("datatype", spec.datatype.name());
    object.array("shape", spec.shape.iter().map(ToString::to_string));
    object.finish()
}

/// A model, or a version of it, in the repository's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// The model.
    pub name: String,
    /// Its version, if it has any.
    pub version: Option<String>,
    /// Why it cannot serve; `None` if it can.
    pub why_not: Option<&'static str>,
}

impl Indexed {
    /// Its state, in the protocol's words.
    pub const fn state(&self) -> &'static str {
        if self.why_not.is_none() { "READY" } else { "UNAVAILABLE" }
    }
}

/// `POST /v2/repository/index`.
pub fn index(models: &[Indexed]) -> String {
    array(models.iter().map(|model| {
        let mut object = Object::new();
        object.text("name", &model.name).text_if("version", model.version.as_deref());
        object.text("state", model.state());
        object.text("reason", model.why_not.unwrap_or_default());
        object.finish()
    }))
}

/// Whether a repository's index was asked for with only what is ready: `{"ready": true}`. An empty body asks for nothing in
/// particular, as Triton's own clients do.
///
/// # Errors
/// What is wrong with the body.
pub fn wants_ready_only(body: &[u8]) -> Result<bool, Invalid> {
    if body.trim_ascii().is_empty() {
        return Ok(false);
    }
    let mut ready = false;
    let mut members = Members::new(body, &["ready"], DEPTH_MAX)?;
    while let Some(field) = members.next()? {
        let got = members.scanner.peek()?;
        if got != Kind::Bool {
            return Err(Invalid::field(field, format!("`{field}` must be a boolean, not {}", got.name())));
        }
        ready = members.scanner.boolean()?;
    }
    members.finish()?;
    Ok(ready)
}

/// An error: `{"error":"…"}`.
pub fn error(message: &str) -> String {
    let mut object = Object::new();
    object.text("error", message);
    object.finish()
}

/// What an upstream answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answered {
    /// Tensors.
    pub tensors: u32,
    /// Their elements.
    pub elements: u64,
    /// Bytes of them behind the JSON.
    pub binary_bytes: u64,
}

/// Reads an answer as far as it goes: its beginning is enough. `None` if it is no answer of this protocol.
pub fn read(json: &[u8]) -> Option<Answered> {
    // What follows the JSON need not be text.
    let text = match std::str::from_utf8(json) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&json[..error.valid_up_to()]).ok()?,
    };
    let mut answered = None;
    let _ = read_members(&mut Scanner::new(text, DEPTH_MAX), &mut answered);
    answered
}

fn read_members(scanner: &mut Scanner<'_>, answered: &mut Option<Answered>) -> Result<(), JsonError> {
    let mut walk = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut walk)? {
        if !key.is("outputs") || scanner.peek()? != Kind::Array {
            scanner.skip_value()?;
            continue;
        }
        let all = answered.insert(Answered::default());
        let mut outputs = scanner.array()?;
        while scanner.next_element(&mut outputs)? {
            if scanner.peek()? != Kind::Object || all.tensors as usize == TENSORS_MAX {
                scanner.skip_value()?;
                continue;
            }
            read_output(scanner, all)?;
            all.tensors += 1;
        }
    }
    Ok(())
}

fn read_output(scanner: &mut Scanner<'_>, all: &mut Answered) -> Result<(), JsonError> {
    let mut members = scanner.object()?;
    while let Some(key) = scanner.next_key(&mut members)? {
        if key.is("shape") && scanner.peek()? == Kind::Array {
            let mut elements = Some(1_u64);
            let mut axes = scanner.array()?;
            while scanner.next_element(&mut axes)? {
                let length = number(scanner)?;
                elements = elements.zip(length).and_then(|(all, length)| all.checked_mul(length));
            }
            all.elements = all.elements.saturating_add(elements.unwrap_or_default());
        } else if key.is("parameters") && scanner.peek()? == Kind::Object {
            let mut parameters = scanner.object()?;
            while let Some(key) = scanner.next_key(&mut parameters)? {
                let size = number(scanner)?.filter(|_| key.is("binary_data_size"));
                all.binary_bytes = all.binary_bytes.saturating_add(size.unwrap_or_default());
            }
        } else {
            scanner.skip_value()?;
        }
    }
    Ok(())
}

/// The next value if it is a whole number; whatever it is, it is passed.
fn number(scanner: &mut Scanner<'_>) -> Result<Option<u64>, JsonError> {
    if scanner.peek()? == Kind::Number {
        return Ok(scanner.number()?.parse().ok());
    }
    scanner.skip_value()?;
    Ok(None)
}
