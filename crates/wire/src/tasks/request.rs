//! Tasks as requests, which go the way of all others.

use crate::json::Span;
use crate::openai::request::{Operation, Request, Spans};

use super::Task;
use super::json::{Place, TaskRequest};
use super::multipart::{Form, Parts};

/// Bytes of a sound or an image to a token, by rule of thumb: 16 kB of a sound are a second, or ten tokens.
const FILE_TOKEN_BYTES: u64 = 2_048;

impl TaskRequest {
    /// It as a request. The model is empty where none is named.
    pub fn into_request(self) -> Request {
        let (model, unnamed, body_start) = match self.place {
            Place::Value(span) => (span, false, 0),
            Place::Absent(at) => (Span::default(), true, at),
        };
        let mut spans = Spans::default();
        (spans.model, spans.unnamed, spans.body_start) = (model, unnamed, body_start);
        Request {
            model: self.model.unwrap_or_default(),
            version: self.version,
            stream: self.stream,
            prompt_bytes: self.text_bytes,
            images: self.images,
            choices: if self.task == Task::ImageGeneration { self.items } else { 1 },
            forbidden: self.forbidden,
            spans,
            ..Request::of(Operation::Task(self.task))
        }
    }
}

impl Form {
    /// It as a request with that boundary, of so many bytes if that is known. The model is empty where none is named.
    pub fn into_request(self, task: Task, boundary: &str, bytes: Option<u64>) -> Request {
        let of_files = bytes.unwrap_or(self.file_bytes).saturating_sub(self.field_bytes) / FILE_TOKEN_BYTES;
        Request {
            model: self.model.unwrap_or_default(),
            version: self.version,
            stream: self.stream,
            prompt_bytes: self.field_bytes,
            prompt_tokens_given: if task == Task::ImageEdit { 0 } else { of_files },
            images: if task == Task::ImageEdit { self.files } else { 0 },
            parts: Some(Box::new(Parts::new(boundary, self.model_at))),
            ..Request::of(Operation::Task(task))
        }
    }
}
