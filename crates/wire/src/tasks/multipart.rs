//! Bodies in parts (RFC 7578), scanned as they stream by.
//!
//! Files pass without being held: what is kept is a part's head, the values of the few fields that routing needs, and the end
//! of what came last, in which a boundary may begin. The scanner is strict where parsers differ, so that no upstream can see
//! another model than the one that was authorised.
//!
//! A [`Scanner`] tells where in the stream the model's value lies, and a [`Splice`] puts another there.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::openai::error::Invalid;
use crate::openai::request::members::{model_name, no_model};
use crate::openai::request::{BodyLimits, forbidden};
use crate::openai::rewrite::Segments;

use super::Task;

mod head;
mod parts;

pub use head::boundary;
pub use parts::{Parts, read};

/// Bytes that are looked at at a time, however much comes.
const WINDOW_BYTES: usize = 16 << 10;
/// Bytes of a part's head.
const HEAD_BYTES_MAX: usize = 4 << 10;

/// Limits a body is held to.
#[derive(Debug, Clone)]
pub struct PartLimits {
    /// Parts.
    pub parts_max: u32,
    /// Bytes of a part that is no file.
    pub field_bytes_max: u64,
    /// Bytes of a file.
    pub file_bytes_max: u64,
    /// Bytes of the model's name.
    pub body: BodyLimits,
}

impl Default for PartLimits {
    fn default() -> Self {
        Self {
            parts_max: 64,
            field_bytes_max: 1 << 20,
            file_bytes_max: 512 << 20,
            body: BodyLimits::default(),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Form {
    /// The model's name, without `@version`.
    pub model: Option<String>,
    /// What followed the last `@` of it.
    pub version: Option<String>,
    /// Where in the stream its value lies.
    pub model_at: Option<Range<u64>>,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Files.
    pub files: u32,
    /// Bytes of files.
    pub file_bytes: u64,
    /// Bytes of other fields.
    pub field_bytes: u64,
    /// Parts.
    pub parts: u32,
}

/// Scans one body.
#[derive(Debug)]
pub struct Scanner {
    task: Task,
    limits: PartLimits,
    /// What ends a part: a line break and the boundary.
    delimiter: Finder<'static>,
    window: Vec<u8>,
    /// Where in the stream the window begins.
    at: u64,
    state: State,
    part: Part,
    form: Form,
    /// Required fields that were seen, by their place in [`Task::required`].
    required: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the first boundary.
    Start,
    /// Behind a boundary: a line break, or the end.
    Boundary,
    /// In a part's head, of which so many bytes were searched.
    Head(usize),
    /// In a part's value.
    Value,
    /// Behind the last boundary.
    End,
}

/// The part that is being read.
#[derive(Debug, Default)]
struct Part {
    name: String,
    is_file: bool,
    bytes: u64,
    /// Where its value begins.
    from: u64,
    /// What it is, if routing needs to know.
    kept: Option<Vec<u8>>,
}

impl Scanner {
    /// A scanner of a body with this boundary, which [`boundary`] finds.
    pub fn new(task: Task, boundary: &str, limits: PartLimits) -> Self {
        Self {
            task,
            limits,
            delimiter: Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned(),
            window: Vec::new(),
            at: 0,
            state: State::Start,
            part: Part::default(),
            form: Form::default(),
            required: 0,
        }
    }

    /// What was found so far. The model is there as soon as its part is complete.
    pub const fn form(&self) -> &Form {
        &self.form
    }

    /// Takes the next bytes. They may be cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Invalid> {
        for piece in bytes.chunks(WINDOW_BYTES) {
            self.window.extend_from_slice(piece);
            while self.step()? {}
        }
        Ok(())
    }

    /// The body is complete.
    pub fn finish(self) -> Result<Form, Invalid> {
        if self.state != State::End {
            return Err(Invalid::body("the multipart body ends without its closing boundary"));
        }
        let required = self.task.required();
        if let Some((_, missing)) = required.iter().enumerate().find(|(at, _)| self.required >> at & 1 == 0) {
            return Err(Invalid::field(*missing, format!("`{missing}` is missing")));
        }
        if self.form.model.is_none() && self.task.needs_model() {
            return Err(no_model());
        }
        Ok(self.form)
    }

    /// Reads on; `false` when more has to come.
    fn step(&mut self) -> Result<bool, Invalid> {
        match self.state {
            State::Start => self.start(),
            State::Boundary => self.boundary(),
            State::Head(searched) => self.head(searched),
            State::Value => self.value(),
            State::End => {
                // Some clients end with a line break.
                if self.window.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
                    return Err(Invalid::body("the multipart body goes on behind its closing boundary"));
                }
                self.consume(self.window.len());
                Ok(false)
            }
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.window.drain(..bytes);
        self.at += bytes as u64;
    }

    fn start(&mut self) -> Result<bool, Invalid> {
        let expected = &self.delimiter.needle()[2..];
        let there = self.window.len().min(expected.len());
        if self.window[..there] != expected[..there] {
            let text = "the multipart body does not begin with the boundary that its content type names";
            return Err(Invalid::body(text));
        }
        if there < expected.len() {
            return Ok(false);
        }
        self.consume(there);
        self.state = State::Boundary;
        Ok(true)
    }

    fn boundary(&mut self) -> Result<bool, Invalid> {
        let Some(next) = self.window.first_chunk::<2>() else { return Ok(false) };
        self.state = match next {
            b"\r\n" => State::Head(0),
            b"--" => State::End,
            _ => return Err(Invalid::body("a boundary of the multipart body is followed by something else")),
        };
        self.consume(2);
        if self.state == State::Head(0) {
            self.form.parts += 1;
            let max = self.limits.parts_max;
            if self.form.parts > max {
                return Err(Invalid::body(format!(
                    "the multipart body has more than the {max} parts accepted"
                )));
            }
        }
        Ok(true)
    }

    fn head(&mut self, searched: usize) -> Result<bool, Invalid> {
        let Some(end) = memchr::memmem::find(&self.window[searched..], b"\r\n\r\n") else {
            if self.window.len() > HEAD_BYTES_MAX {
                let text = format!("the head of a part is longer than {HEAD_BYTES_MAX} bytes");
                return Err(Invalid::body(text));
            }
            self.state = State::Head(self.window.len().saturating_sub(3));
            return Ok(false);
        };
        let end = searched + end;
        let head::Head { name, is_file } = head::read(&self.window[..end])?;
        self.begin(name, is_file)?;
        // The line break that ends the head stays, to see a boundary that follows at once.
        self.consume(end + 2);
        self.part.from = self.at + 2;
        self.state = State::Value;
        Ok(true)
    }

    /// A part begins: whether its name may stand here.
    fn begin(&mut self, name: String, is_file: bool) -> Result<(), Invalid> {
        let plain = name.strip_suffix("[]").unwrap_or(&name);
        let required = self.task.required().iter().position(|field| *field == plain);
        let differs = |known: &&&str| plain.eq_ignore_ascii_case(known) && plain != **known;
        let listed = KEPT.iter().find(|known| plain == **known && name != **known);
        let known = KEPT.iter().chain(self.task.required()).find(differs).or(listed);
        if let Some(known) = known {
            let text = format!("the field `{name}` may be taken for `{known}`; spell it so");
            return Err(Invalid::field(*known, text));
        }
        // Some upstreams read `extra_body[x]` as a member of `extra_body`.
        if forbidden(plain.split('[').next().unwrap_or(plain)).is_some() {
            let text = format!("`{plain}` would tell the upstream how to act; leave it out");
            return Err(Invalid::field(plain, text));
        }
        let kept = KEPT.contains(&name.as_str());
        if kept && is_file {
            return Err(Invalid::field(&name, format!("`{name}` must be a plain field, not a file")));
        }
        let twice = match name.as_str() {
            "model" => self.form.model.is_some(),
            // Several images are an array, whether they are spelt so or not.
            _ => required.is_some_and(|at| self.required >> at & 1 == 1) && plain != "image",
        };
        if twice {
            return Err(Invalid::field(&name, format!("`{name}` appears twice in the body; send it once")));
        }
        if let Some(at) = required {
            self.required |= 1 << at;
            if matches!(plain, "file" | "image") && !is_file {
                return Err(Invalid::field(&name, format!("`{name}` must be a file, with a file name")));
            }
        }
        self.form.files += u32::from(is_file);
        let kept = kept.then(Vec::new);
        self.part = Part { name, is_file, bytes: 0, from: 0, kept };
        Ok(())
    }

    fn value(&mut self) -> Result<bool, Invalid> {
        let found = self.delimiter.find(&self.window);
        // What comes before it, or before where it could begin, is the part's. The first two bytes are the head's.
        let length = self.delimiter.needle().len();
        if found == Some(0) && self.at < self.part.from {
            // Some take this for a boundary, others for a value.
            let name = &self.part.name;
            let text = format!("the value of `{name}` begins with the boundary; choose another");
            return Err(Invalid::field(name, text));
        }
        let upto = found.unwrap_or_else(|| self.window.len().saturating_sub(length - 1));
        let skip = usize::try_from(self.part.from.saturating_sub(self.at)).unwrap_or(0).min(upto);
        self.part.bytes += (upto - skip) as u64;
        let max = if self.part.is_file { self.limits.file_bytes_max } else { self.limits.field_bytes_max };
        if self.part.bytes > max {
            let name = &self.part.name;
            let text = format!("`{name}` is larger than the {max} bytes accepted");
            return Err(Invalid { status: 413, ..Invalid::field(name, text) });
        }
        if let Some(kept) = &mut self.part.kept {
            kept.extend_from_slice(&self.window[skip..upto]);
            if kept.len() > self.limits.body.model_bytes_max.max(KEPT_BYTES_MIN) {
                let name = &self.part.name;
                return Err(Invalid::field(name, format!("`{name}` is too long")));
            }
        }
        self.consume(upto);
        if found.is_none() {
            return Ok(false);
        }
        self.consume(length);
        self.state = State::Boundary;
        self.end_part()?;
        Ok(true)
    }

    fn end_part(&mut self) -> Result<(), Invalid> {
        let part = std::mem::take(&mut self.part);
        if part.is_file {
            self.form.file_bytes += part.bytes;
        } else {
            self.form.field_bytes += part.bytes;
        }
        let Some(kept) = part.kept else { return Ok(()) };
        let Ok(value) = String::from_utf8(kept) else {
            return Err(Invalid::field(&part.name, format!("`{}` is not UTF-8", part.name)));
        };
        if part.name == "stream" {
            self.form.stream = matches!(value.trim(), "true" | "True" | "1");
            return Ok(());
        }
        let (model, version) = model_name(&value, &self.limits.body)?;
        (self.form.model, self.form.version) = (Some(model), version);
        self.form.model_at = Some(part.from..part.from + part.bytes);
        Ok(())
    }
}

/// The fields whose values routing needs.
const KEPT: [&str; 2] = ["model", "stream"];
/// Bytes that such a value may have at least.
const KEPT_BYTES_MIN: usize = 16;

/// Puts another value at one place of a stream.
#[derive(Debug)]
pub struct Splice {
    place: Range<u64>,
    value: Bytes,
    at: u64,
    put: bool,
}

impl Splice {
    /// `value` instead of what lies at `place`.
    pub const fn new(place: Range<u64>, value: Bytes) -> Self {
        Self { place, value, at: 0, put: false }
    }

    /// How long a stream of so many bytes becomes.
    pub fn length(&self, bytes: u64) -> u64 {
        bytes - (self.place.end - self.place.start) + self.value.len() as u64
    }

    /// Takes the next bytes and puts what they become behind `out`, uncopied.
    pub fn push(&mut self, bytes: &Bytes, out: &mut Segments) {
        let from = self.at;
        self.at += bytes.len() as u64;
        let within =
            |place: u64| usize::try_from(place.saturating_sub(from)).unwrap_or(usize::MAX).min(bytes.len());
        let (start, end) = (within(self.place.start), within(self.place.end));
        let mut give = |piece: Bytes| {
            if !piece.is_empty() {
                out.push(piece);
            }
        };
        give(bytes.slice(..start));
        if !self.put && self.at > self.place.start {
            self.put = true;
            give(self.value.clone());
        }
        give(bytes.slice(end..));
    }
}
