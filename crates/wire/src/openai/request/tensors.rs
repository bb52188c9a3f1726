//! Inference requests, which are read by another dialect and go the same way from there.

use super::{Operation, Request};

/// The tensors of an inference request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensors {
    /// How many there are.
    pub count: u32,
    /// Their elements.
    pub elements: u64,
    /// Bytes of the body.
    pub bytes: u64,
    /// Bytes of JSON before binary tensors, if there are any.
    pub json_bytes: Option<u64>,
}

impl Request {
    /// An inference request for a model, both named by its path. Its size counts as a prompt's of as many bytes.
    pub fn infer(model: String, version: Option<String>, tensors: Tensors) -> Self {
        Self {
            model,
            version,
            prompt_bytes: tensors.bytes,
            tensors: Some(tensors),
            ..Self::of(Operation::Infer)
        }
    }
}
