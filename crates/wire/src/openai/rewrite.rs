//! The body for the upstream: the client's bytes, except the model's name and what must not pass.
//!
//! Nothing is parsed or printed again. The places that change were found when the request was validated, so what
//! is forwarded is what was authorised; the stretches between them are slices of the client's own buffer.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::json::{Span, quote};

use super::continuation::{self, Style, Transcript};
use super::request::{Forbidden, Operation, Request, StreamOptions};

/// Whether the upstream is to report usage at the end of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageAsk {
    /// Ask for it, if the client did not. The client must then not see it: see
    /// [`StreamObserver::new`](super::sse::StreamObserver::new).
    Inject,
    /// Leave it to what the client asked.
    AsSent,
}

/// Pieces of a body, or of a message. Nearly every request has no more than four.
pub type Segments = SmallVec<[Bytes; 4]>;

/// A body in pieces.
#[derive(Debug, Clone)]
pub struct Rewritten {
    /// The pieces in order. Most share the client's buffer.
    pub segments: Segments,
    /// All their bytes together.
    pub len: u64,
    /// Whether usage was asked for on the client's behalf, so that the usage event has to be withheld.
    pub usage_injected: bool,
}

impl Rewritten {
    /// The pieces as one. Copies, unless there is only one.
    pub fn concat(&self) -> Bytes {
        match self.segments.as_slice() {
            [whole] => whole.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

/// A text as it stands in a body: a JSON string, quotes included.
pub fn literal(text: &str) -> Bytes {
    quote(text).into()
}

/// A stretch of the body and what stands there instead.
#[derive(Debug)]
pub struct Edit {
    pub(crate) span: Span,
    pub(crate) replacement: Bytes,
}

impl Edit {
    pub(crate) const fn new(span: Span, replacement: Bytes) -> Self {
        Self { span, replacement }
    }
}

/// What changes in a body.
pub type Edits = SmallVec<[Edit; 4]>;

/// The body of `request` as the upstream is to get it; `upstream_model` is made by [`literal`].
pub fn rewrite(request: &Request, body: &Bytes, upstream_model: &Bytes, usage: UsageAsk) -> Rewritten {
    rewrite_from(request, body, upstream_model, usage, None)
}

/// The same, asking for the rest of an answer that broke off.
pub fn rewrite_from(
    request: &Request,
    body: &Bytes,
    upstream_model: &Bytes,
    usage: UsageAsk,
    from: Option<(&Transcript, Style)>,
) -> Rewritten {
    if request.operation == Operation::Infer {
        // The model is named in the path.
        return assemble(body, SmallVec::new());
    }
    let mut edits = Edits::new();
    edits.extend(model_edit(request, body, upstream_model));
    if request.spans.unnamed {
        let at = request.spans.body_start;
        // A required member always follows.
        let member = [&b"\"model\":"[..], upstream_model, b","].concat();
        edits.push(Edit { span: Span { start: at, end: at }, replacement: member.into() });
    }
    for span in &request.spans.named {
        edits.push(Edit { span: *span, replacement: behind_models(upstream_model) });
    }
    let injection = usage_edit(request, usage);
    let usage_injected = injection.is_some();
    edits.extend(injection);
    drop_forbidden(&request.forbidden, &mut edits);
    if let Some((transcript, style)) = from {
        edits.extend(continuation::edits(request, transcript, style));
    }
    // What is put in comes before what is cut out or replaced from the same place on.
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let mut rewritten = assemble(body, edits);
    rewritten.usage_injected = usage_injected;
    rewritten
}

/// The body of `request` as a provider gets it that wraps the dialect: `edits` are all that changes, but for what must not
/// pass.
pub fn rewrite_wrapped(request: &Request, body: &Bytes, mut edits: Edits) -> Rewritten {
    drop_forbidden(&request.forbidden, &mut edits);
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    assemble(body, edits)
}

/// The upstream's name of the model instead of the client's.
pub(crate) fn model_edit(request: &Request, body: &Bytes, upstream_model: &Bytes) -> Option<Edit> {
    let span = request.spans.model;
    let other = span.end > 0 && body.get(span.start..span.end) != Some(&**upstream_model);
    other.then(|| Edit { span, replacement: upstream_model.clone() })
}

/// A member, from its name to the end of `value`. Its name holds no quote.
pub(crate) fn member_of(value: Span, body: &[u8]) -> Span {
    let before = |end: usize| body[..end].iter().rposition(|byte| *byte == b'"').unwrap_or(0);
    Span { start: before(before(value.start)), end: value.end }
}

/// Cuts a member out, with the comma that would be left over.
pub(crate) fn cut_member(member: Span, body: &[u8]) -> Edit {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace();
    let before = body[..member.start].iter().rposition(|byte| !is_blank(byte)).unwrap_or(0);
    let behind = body[member.end..].iter().position(|byte| !is_blank(byte)).map(|at| member.end + at);
    let span = match behind.filter(|at| body[*at] == b',') {
        _ if body[before] == b',' => Span { start: before, end: member.end },
        Some(comma) => Span { start: member.start, end: comma + 1 },
        None => member,
    };
    Edit { span, replacement: Bytes::new() }
}

/// A literal with `models/` before the name, unless it has it.
fn behind_models(literal: &Bytes) -> Bytes {
    let name = literal.strip_prefix(b"\"").unwrap_or(literal);
    if [&b"models/"[..], b"tunedModels/"].iter().any(|prefix| name.starts_with(prefix)) {
        return literal.clone();
    }
    [b"\"models/", name].concat().into()
}

fn usage_edit(request: &Request, usage: UsageAsk) -> Option<Edit> {
    // Anthropic's streams report usage unasked, and know no such option.
    if request.shape.is_anthropic() {
        return None;
    }
    let streams = match request.operation {
        Operation::Chat | Operation::Completion => request.stream,
        // Responses report usage unasked; embeddings and tensors are not streamed.
        Operation::Embedding | Operation::Infer | Operation::Response | Operation::Task(_) => false,
    };
    if !streams || usage == UsageAsk::AsSent || request.include_usage == Some(true) {
        return None;
    }
    let insert = |at: usize, text: &'static str| Edit {
        span: Span { start: at, end: at },
        replacement: Bytes::from_static(text.as_bytes()),
    };
    let replace =
        |span: Span, text: &'static str| Edit { span, replacement: Bytes::from_static(text.as_bytes()) };
    Some(match request.spans.stream_options {
        // The body has at least its model, so a member always follows.
        None => insert(request.spans.body_start, r#""stream_options":{"include_usage":true},"#),
        Some(StreamOptions::Null(span)) => replace(span, r#"{"include_usage":true}"#),
        Some(StreamOptions::Without { inside, empty: true }) => insert(inside, r#""include_usage":true"#),
        Some(StreamOptions::Without { inside, empty: false }) => insert(inside, r#""include_usage":true,"#),
        Some(StreamOptions::With(span)) => replace(span, "true"),
    })
}

/// Cuts runs of forbidden members, each with the commas that would be left over.
fn drop_forbidden(forbidden: &[Forbidden], edits: &mut Edits) {
    for run in forbidden.chunk_by(|one, next| one.ordinal + 1 == next.ordinal) {
        let [first, ..] = run else { continue };
        let [.., last] = run else { continue };
        let span = match last.next {
            Some(next) => Span { start: first.member.start, end: next },
            None => Span { start: first.before, end: last.member.end },
        };
        edits.push(Edit { span, replacement: Bytes::new() });
    }
}

fn assemble(body: &Bytes, edits: Edits) -> Rewritten {
    let mut segments = Segments::new();
    let mut at = 0;
    for edit in edits {
        segments.push(body.slice(at..edit.span.start));
        segments.push(edit.replacement);
        at = edit.span.end;
    }
    segments.push(body.slice(at..));
    segments.retain(|segment| !segment.is_empty());
    let len = segments.iter().map(|segment| segment.len() as u64).sum();
    Rewritten { segments, len, usage_injected: false }
}
