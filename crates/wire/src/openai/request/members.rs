//! The members of any body, one after the other, held to what holds for all bodies: a field that the router acts on may
//! appear once and in one spelling, and what would tell an upstream where to go is dropped.

use crate::json::{JsonError, Kind, Scanner, Span, Text, Walk};
use crate::openai::error::Invalid;

use super::fields::folded;
use super::{BodyLimits, Forbidden, forbidden, impossible_model, shown, split_version};

/// What a reader of members found besides what it gave.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Just after the opening brace.
    pub(crate) body_start: usize,
    /// What is dropped.
    pub(crate) forbidden: Vec<Forbidden>,
}

/// Walks through the members of a body.
#[derive(Debug)]
pub(crate) struct Members<'a> {
    /// The scanner, before the value of the field that was given last.
    pub(crate) scanner: Scanner<'a>,
    fields: &'static [&'static str],
    walk: Walk,
    seen: u64,
    found: Found,
    before: usize,
    ordinal: usize,
}

impl<'a> Members<'a> {
    /// At the beginning of `body`, to give these fields, of which there are 64 at most.
    pub(crate) fn new(
        body: &'a [u8],
        fields: &'static [&'static str],
        depth_max: usize,
    ) -> Result<Self, Invalid> {
        let text = utf8(body)?;
        let mut scanner = Scanner::new(text, depth_max);
        let kind = scanner.peek()?;
        if kind != Kind::Object {
            return Err(Invalid::body(format!("the body must be a JSON object, not {}", kind.name())));
        }
        let walk = scanner.object()?;
        let at = scanner.at();
        let found = Found { body_start: at, ..Found::default() };
        Ok(Self { scanner, fields, walk, seen: 0, found, before: at, ordinal: 0 })
    }

    /// The next of the fields; the value before must have been read. `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<&'static str>, Invalid> {
        loop {
            self.before = self.scanner.at();
            let Some(key) = self.scanner.next_key(&mut self.walk)? else { return Ok(None) };
            let ordinal = self.ordinal;
            self.ordinal += 1;
            let start = key.span().start;
            if let Some(last) = self.found.forbidden.last_mut().filter(|last| last.ordinal + 1 == ordinal) {
                last.next = Some(start);
            }
            match lookup(&key, self.fields)? {
                Known::Field(at) => {
                    let name = self.fields[at];
                    if self.seen >> at & 1 == 1 {
                        let text = format!("`{name}` appears twice in the body; send it once");
                        return Err(Invalid::field(name, text));
                    }
                    self.seen |= 1 << at;
                    return Ok(Some(name));
                }
                Known::Forbidden(name) => {
                    let value = self.scanner.skip_value()?;
                    let member = Span { start, end: value.end };
                    let before = self.before;
                    self.found.forbidden.push(Forbidden { name, ordinal, before, member, next: None });
                }
                Known::Other => drop(self.scanner.skip_value()?),
            }
        }
    }

    /// Whether a field was given.
    pub(crate) fn saw(&self, name: &str) -> bool {
        self.fields.iter().position(|field| *field == name).is_some_and(|at| self.seen >> at & 1 == 1)
    }

    /// Holds the rest to be blank.
    pub(crate) fn finish(self) -> Result<Found, JsonError> {
        self.scanner.finish()?;
        Ok(self.found)
    }
}

enum Known {
    Field(usize),
    Forbidden(&'static str),
    Other,
}

fn lookup(key: &Text<'_>, fields: &[&'static str]) -> Result<Known, Invalid> {
    let meant = if !key.escaped() && key.raw().is_ascii() {
        std::borrow::Cow::Borrowed(key.raw())
    } else {
        // A lone surrogate cannot be part of a name that any parser folds into one of ours.
        let Some(meant) = key.decode() else { return Ok(Known::Other) };
        std::borrow::Cow::Owned(folded(&meant))
    };
    if let Some(at) = fields.iter().position(|name| *name == meant) {
        return Ok(Known::Field(at));
    }
    if let Some(name) = fields.iter().find(|name| name.eq_ignore_ascii_case(&meant)) {
        let got = shown(&key.decode().unwrap_or_default());
        let text = format!("the field {got} differs from `{name}` only in case; spell it `{name}`");
        return Err(Invalid::field(*name, text));
    }
    Ok(forbidden(&meant).map_or(Known::Other, Known::Forbidden))
}

/// A body as text.
pub(crate) fn utf8(body: &[u8]) -> Result<&str, Invalid> {
    if body.starts_with(b"\xEF\xBB\xBF") {
        return Err(Invalid::body("the body starts with a byte order mark; send plain UTF-8"));
    }
    simdutf8::basic::from_utf8(body).or_else(|_| {
        // Slower, and knows the place.
        std::str::from_utf8(body).map_err(|error| {
            Invalid::body(format!("the body is not UTF-8: invalid sequence at byte {}", error.valid_up_to()))
        })
    })
}

/// A model's name and version, if the name can be one.
pub(crate) fn model_name(name: &str, limits: &BodyLimits) -> Result<(String, Option<String>), Invalid> {
    if name.is_empty() {
        return Err(Invalid::field("model", "`model` is empty; name the model to use"));
    }
    if name.len() > limits.model_bytes_max {
        return Err(impossible_model(&format!("is longer than {} bytes", limits.model_bytes_max)));
    }
    if name.chars().any(char::is_control) {
        return Err(impossible_model("contains control characters"));
    }
    let (name, version) = split_version(name);
    Ok((name.to_owned(), version.map(str::to_owned)))
}

/// The same, as it stands in a body, with its place.
pub(crate) fn model_of(
    scanner: &mut Scanner<'_>,
    limits: &BodyLimits,
) -> Result<(String, Option<String>, Span), Invalid> {
    let got = scanner.peek()?;
    if got != Kind::String {
        return Err(super::values::wrong_type("model", "a string", got));
    }
    let model = scanner.string()?;
    if model.meant_bytes() > limits.model_bytes_max {
        return Err(impossible_model(&format!("is longer than {} bytes", limits.model_bytes_max)));
    }
    let name = model.decode().ok_or_else(|| impossible_model("is not text"))?;
    let (name, version) = model_name(&name, limits)?;
    Ok((name, version, model.span()))
}

/// That a body names no model.
pub(crate) fn no_model() -> Invalid {
    Invalid::field("model", "`model` is missing; name the model to use")
}
