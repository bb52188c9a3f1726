//! A strict JSON scanner that copies nothing and never recurses.
//!
//! A request body is read once, for a handful of fields; the rest only has to be valid, and is skipped. The scanner
//! walks a `&str` (so UTF-8 is settled before), holds every byte to the grammar of RFC 8259, and gives spans into
//! the text. Numbers stay text: what is forwarded is what was sent, whatever a parser would have made of `1e400`.
//! Lone surrogate escapes are valid JSON and pass.
//!
//! Nearly all bytes of a large body lie inside strings, so [`Scanner::string`] passes over them with vector instructions,
//! 64 at a time. Depth is counted, not recursed, and its limit is an argument.

use std::fmt::Write as _;

mod blocks;
pub(crate) mod elements;
mod surrogates;
mod text;
pub mod tree;
pub mod write;

use blocks::BLOCK_BYTES;
pub use surrogates::lone_surrogate;
pub use text::{Piece, Text};
use text::{SIMPLE, find_short_end, hex4, marks};

/// The deepest nesting a scanner can be told to accept.
pub const DEPTH_MAX: usize = 1024;

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// How many bytes it covers.
    pub const fn len(self) -> usize {
        self.end - self.start
    }

    /// Whether it covers nothing.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// Why a text is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct JsonError {
    /// The byte at which it shows.
    pub at: usize,
    /// What is wrong there.
    pub what: JsonFault,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Values are nested deeper than allowed.
    #[error("nesting is too deep")]
    TooDeep,
    /// The text ends before the value does.
    #[error("the text ends too early")]
    Ended,
    /// No value starts here.
    #[error("a value is expected")]
    ValueExpected,
    /// No member name starts here.
    #[error("a member name in quotes is expected")]
    KeyExpected,
    /// A member name without its colon.
    #[error("a colon is expected")]
    ColonExpected,
    /// An element or member that is neither followed by another nor by the end.
    #[error("a comma or the closing bracket is expected")]
    CommaExpected,
    /// Not a number by the grammar.
    #[error("malformed number")]
    Number,
    /// Not an escape by the grammar.
    #[error("malformed escape in a string")]
    Escape,
    /// A control character inside a string.
    #[error("control character in a string")]
    Control,
    /// Something follows the value.
    #[error("unexpected bytes after the value")]
    Trailing,
    /// The value has another type than the caller asked for.
    #[error("a value of another type is expected")]
    Type,
}

/// The type of the next value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A digit or `-`.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

impl Kind {
    /// The name in messages, with its article.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
        }
    }
}

/// A walk through the members of an object or the elements of an array.
#[derive(Debug)]
pub struct Walk {
    first: bool,
}

/// Reads one JSON text from front to back.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    depth_max: usize,
}

impl<'a> Scanner<'a> {
    /// A scanner at the beginning of `text` that accepts `depth_max` (at most [`DEPTH_MAX`]) levels of nesting.
    pub fn new(text: &'a str, depth_max: usize) -> Self {
        Self { text, bytes: text.as_bytes(), at: 0, depth: 0, depth_max: depth_max.min(DEPTH_MAX) }
    }

    /// A scanner among the members of an object whose beginning is not part of `text`: the walk goes on to its end.
    pub(crate) fn within_object(text: &'a str, depth_max: usize) -> (Self, Walk) {
        let scanner = Self { depth: 1, ..Self::new(text, depth_max) };
        (scanner, Walk { first: true })
    }

    /// The byte the scanner is at.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The text of a span.
    pub fn slice(&self, span: Span) -> &'a str {
        self.text.get(span.start..span.end).unwrap_or_default()
    }

    /// The type of the next value, which is not consumed.
    pub fn peek(&mut self) -> Result<Kind, JsonError> {
        self.skip_space();
        match self.bytes.get(self.at) {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => Err(self.fault(JsonFault::ValueExpected)),
            None => Err(self.fault(JsonFault::Ended)),
        }
    }

    /// Enters an object. Its members are read with [`Scanner::next_key`].
    pub fn object(&mut self) -> Result<Walk, JsonError> {
        self.open(b'{')
    }

    /// The name of the next member, with the scanner before its value; `None` after the last.
    pub fn next_key(&mut self, walk: &mut Walk) -> Result<Option<Text<'a>>, JsonError> {
        if !self.next_item(walk, b'}')? {
            return Ok(None);
        }
        self.key().map(Some)
    }

    /// Enters an array. Its elements are reached with [`Scanner::next_element`].
    pub fn array(&mut self) -> Result<Walk, JsonError> {
        self.open(b'[')
    }

    /// Goes to the next element; `false` after the last.
    pub fn next_element(&mut self, walk: &mut Walk) -> Result<bool, JsonError> {
        self.next_item(walk, b']')
    }

    /// Reads a string.
    pub fn string(&mut self) -> Result<Text<'a>, JsonError> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.fault(JsonFault::Type));
        }
        let start = self.at + 1;
        if let Some(at) = find_short_end(self.bytes, start) {
            self.at = at + 1;
            return Ok(Text::new(self.text.get(start..at).unwrap_or_default(), start, 0));
        }
        self.long_string(start)
    }

    fn long_string(&mut self, start: usize) -> Result<Text<'a>, JsonError> {
        let mut saved = 0;
        let mut block = start;
        'blocks: loop {
            let mut left = marks(self.bytes, block);
            while left != 0 {
                let at = block + left.trailing_zeros() as usize;
                match self.bytes.get(at) {
                    Some(b'"') => {
                        self.at = at + 1;
                        return Ok(Text::new(self.text.get(start..at).unwrap_or_default(), start, saved));
                    }
                    Some(b'\\') => {
                        let (length, meant) = self.escape(at)?;
                        saved += length - meant;
                        let next = at + length;
                        if next >= block + BLOCK_BYTES {
                            block = next;
                            continue 'blocks;
                        }
                        left &= u64::MAX << (next - block);
                    }
                    Some(_) => return Err(JsonError { at, what: JsonFault::Control }),
                    None => return Err(JsonError { at: self.bytes.len(), what: JsonFault::Ended }),
                }
            }
            block += BLOCK_BYTES;
        }
    }

    /// Reads a number and gives its text.
    pub fn number(&mut self) -> Result<&'a str, JsonError> {
        self.skip_space();
        let start = self.at;
        let mut at = start + usize::from(self.bytes.get(start) == Some(&b'-'));
        at = match self.bytes.get(at) {
            Some(b'0') => at + 1,
            Some(b'1'..=b'9') => self.digits(at)?,
            Some(_) | None => return Err(JsonError { at, what: JsonFault::Number }),
        };
        if self.bytes.get(at) == Some(&b'.') {
            at = self.digits(at + 1)?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(at) {
            let signed = matches!(self.bytes.get(at + 1), Some(b'+' | b'-'));
            at = self.digits(at + 1 + usize::from(signed))?;
        }
        self.at = at;
        Ok(self.text.get(start..at).unwrap_or_default())
    }

    /// Reads `true` or `false`.
    pub fn boolean(&mut self) -> Result<bool, JsonError> {
        self.skip_space();
        let value = self.bytes.get(self.at) == Some(&b't');
        self.literal(if value { "true" } else { "false" })?;
        Ok(value)
    }

    /// Reads `null`.
    pub fn null(&mut self) -> Result<(), JsonError> {
        self.skip_space();
        self.literal("null")
    }

    /// Passes over the next value, whatever it is, and gives its span.
    pub fn skip_value(&mut self) -> Result<Span, JsonError> {
        let kind = self.peek()?;
        let start = self.at;
        match kind {
            Kind::Object | Kind::Array => self.skip_container()?,
            Kind::String | Kind::Number | Kind::Bool | Kind::Null => self.skip_scalar(kind)?,
        }
        Ok(Span { start, end: self.at })
    }

    /// Holds the rest of the text to be blank.
    pub fn finish(mut self) -> Result<(), JsonError> {
        self.skip_space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(self.fault(JsonFault::Trailing)) }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    #[cold]
    fn fault(&self, what: JsonFault) -> JsonError {
        let what = if self.at >= self.bytes.len() { JsonFault::Ended } else { what };
        JsonError { at: self.at, what }
    }

    fn open(&mut self, bracket: u8) -> Result<Walk, JsonError> {
        self.skip_space();
        if self.bytes.get(self.at) != Some(&bracket) {
            return Err(self.fault(JsonFault::Type));
        }
        self.deeper()?;
        Ok(Walk { first: true })
    }

    fn deeper(&mut self) -> Result<(), JsonError> {
        if self.depth >= self.depth_max {
            return Err(self.fault(JsonFault::TooDeep));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn next_item(&mut self, walk: &mut Walk, closing: u8) -> Result<bool, JsonError> {
        self.skip_space();
        let byte = self.bytes.get(self.at).copied();
        if byte == Some(closing) {
            self.at += 1;
            self.depth -= 1;
            return Ok(false);
        }
        if walk.first {
            walk.first = false;
            return Ok(true);
        }
        if byte != Some(b',') {
            return Err(self.fault(JsonFault::CommaExpected));
        }
        self.at += 1;
        self.skip_space();
        Ok(true)
    }

    fn key(&mut self) -> Result<Text<'a>, JsonError> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.fault(JsonFault::KeyExpected));
        }
        let key = self.string()?;
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b':') {
            return Err(self.fault(JsonFault::ColonExpected));
        }
        self.at += 1;
        Ok(key)
    }

    /// The length of the escape at `at`, and how many bytes of UTF-8 it stands for.
    fn escape(&self, at: usize) -> Result<(usize, usize), JsonError> {
        match self.bytes.get(at + 1) {
            Some(&simple) if SIMPLE[usize::from(simple)] != 0 => Ok((2, 1)),
            Some(b'u') => match self.bytes.get(at + 2..at + 6).and_then(hex4) {
                Some(0..0x80) => Ok((6, 1)),
                // Half of a surrogate pair counts two of the four bytes of the pair.
                Some(0x80..0x800 | 0xD800..0xE000) => Ok((6, 2)),
                Some(0x800..) => Ok((6, 3)),
                None => Err(JsonError { at, what: JsonFault::Escape }),
            },
            Some(_) => Err(JsonError { at, what: JsonFault::Escape }),
            None => Err(JsonError { at, what: JsonFault::Ended }),
        }
    }

    fn digits(&self, from: usize) -> Result<usize, JsonError> {
        let mut at = from;
        while self.bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == from { Err(JsonError { at, what: JsonFault::Number }) } else { Ok(at) }
    }

    fn literal(&mut self, word: &str) -> Result<(), JsonError> {
        if self.bytes.get(self.at..self.at + word.len()) != Some(word.as_bytes()) {
            return Err(self.fault(JsonFault::ValueExpected));
        }
        self.at += word.len();
        Ok(())
    }

    fn skip_scalar(&mut self, kind: Kind) -> Result<(), JsonError> {
        match kind {
            Kind::String => self.string().map(drop),
            Kind::Number => self.number().map(drop),
            Kind::Bool => self.boolean().map(drop),
            Kind::Null => self.null(),
            Kind::Object | Kind::Array => Err(self.fault(JsonFault::Type)),
        }
    }

    /// Passes over an object or array. Which brackets are open is kept as one bit a level.
    fn skip_container(&mut self) -> Result<(), JsonError> {
        let base = self.depth;
        let mut objects = [0_u64; DEPTH_MAX / 64];
        loop {
            let kind = self.peek()?;
            match kind {
                Kind::Object | Kind::Array => {
                    self.deeper()?;
                    let level = self.depth - base - 1;
                    let bit = 1 << (level % 64);
                    let is_object = kind == Kind::Object;
                    if is_object {
                        objects[level / 64] |= bit;
                    } else {
                        objects[level / 64] &= !bit;
                    }
                    self.skip_space();
                    if self.bytes.get(self.at) != Some(if is_object { &b'}' } else { &b']' }) {
                        if is_object {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Kind::String | Kind::Number | Kind::Bool | Kind::Null => self.skip_scalar(kind)?,
            }
            if self.close_containers(base, &objects)? {
                return Ok(());
            }
        }
    }

    /// After a value: closes what ends here. `true` when the outermost container was closed.
    fn close_containers(&mut self, base: usize, objects: &[u64]) -> Result<bool, JsonError> {
        while self.depth > base {
            self.skip_space();
            let level = self.depth - base - 1;
            let is_object = objects[level / 64] >> (level % 64) & 1 == 1;
            match self.bytes.get(self.at) {
                Some(b',') => {
                    self.at += 1;
                    self.skip_space();
                    if is_object {
                        self.key()?;
                    }
                    return Ok(false);
                }
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(_) | None => return Err(self.fault(JsonFault::CommaExpected)),
            }
            self.at += 1;
            self.depth -= 1;
        }
        Ok(true)
    }
}

/// Holds a whole text to the grammar.
pub fn check(text: &str, depth_max: usize) -> Result<(), JsonError> {
    let mut scanner = Scanner::new(text, depth_max);
    scanner.skip_value()?;
    scanner.finish()
}

/// A text as a JSON string, quotes included.
pub fn quote(value: &str) -> String {
    let mut literal = String::with_capacity(value.len() + 2);
    quote_into(value, &mut literal);
    literal
}

/// Puts a text behind `out` as a JSON string, quotes included.
pub fn quote_into(value: &str, out: &mut String) {
    out.push('"');
    let mut rest = value;
    // Nearly all of a text stands for itself.
    while let Some(at) = rest.bytes().position(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => {
                let _ = write!(out, "\\u{control:04x}");
            }
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}
