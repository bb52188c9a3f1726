//! Tasks as requests, which go the way of all others.

use crate::json::Span;
use crate::openai::request::{Needs, Operation, Params, Request, Shape, Spans};

use super::Task;
use super::json::{Place, TaskRequest};
use super::multipart::{Form, Parts};

/// Bytes of a sound or an image to a token, by rule of thumb: 16 kB of a sound are a second, or ten tokens.
const FILE_TOKEN_BYTES: u64 = 2_048;

/// A request of which nothing is known but its task.
fn request(task: Task) -> Request {
    Request {
        operation: Operation::Task(task),
        shape: Shape::OpenAi,
        model: String::new(),
        version: None,
        stream: false,
        include_usage: None,
        needs: Needs::default(),
        prompt_bytes: 0,
        prompt_tokens_given: 0,
        // Engines cut what is too long for them, or count in other ways: what fits is for them to say.
        tokens_in_min: 0,
        messages: 0,
        images: 0,
        tokens_out_max: None,
        choices: 1,
        params: Params::default(),
        fallbacks: Vec::new(),
        tensors: None,
        user_hash: None,
        prefix_hash: None,
        prefix: Vec::new(),
        kept_by_provider: false,
        kept: Vec::new(),
        parts: None,
        formatted: false,
        forbidden: smallvec::SmallVec::new(),
        spans: Spans::default(),
    }
}

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
            ..request(self.task)
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
            ..request(task)
        }
    }
}
