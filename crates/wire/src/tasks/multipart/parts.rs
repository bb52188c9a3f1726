//! Where the model's name lies in a body of parts, and bodies that are there as a whole.

use std::ops::Range;

use crate::openai::error::Invalid;
use crate::openai::request::Request;

use super::{PartLimits, Scanner, Splice, boundary};
use crate::tasks::Task;

/// The parts of a body: what is between them, and where the model's name lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    boundary: String,
    /// `None`: no part names it, and one that does is put before the others.
    model_at: Option<Range<u64>>,
}

impl Parts {
    pub(crate) fn new(boundary: &str, model_at: Option<Range<u64>>) -> Self {
        Self { boundary: boundary.to_owned(), model_at }
    }

    /// The content type that names the boundary.
    pub fn content_type(&self) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"'+_-.".contains(&byte);
        // Not every server takes quotes, so only a boundary that needs them gets them.
        let quote = if self.boundary.bytes().all(plain) { "" } else { "\"" };
        format!("multipart/form-data; boundary={quote}{}{quote}", self.boundary)
    }

    /// Puts the upstream's name of the model into the body.
    pub fn splice(&self, upstream_model: &str) -> Splice {
        match &self.model_at {
            Some(at) => Splice::new(at.clone(), upstream_model.to_owned().into()),
            None => {
                let head = "Content-Disposition: form-data; name=\"model\"";
                let part = format!("--{}\r\n{head}\r\n\r\n{upstream_model}\r\n", self.boundary);
                Splice::new(0..0, part.into())
            }
        }
    }
}

/// Reads a body that is there as a whole.
pub fn read(task: Task, content_type: &str, body: &[u8], limits: PartLimits) -> Result<Request, Invalid> {
    let boundary = boundary(content_type)?;
    let mut scanner = Scanner::new(task, &boundary, limits);
    scanner.push(body)?;
    Ok(scanner.finish()?.into_request(task, &boundary, Some(body.len() as u64)))
}
